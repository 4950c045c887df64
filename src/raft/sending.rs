//! What a leader sends beside heartbeats: probes, and entries as far as the windows let it.

use crate::types::{Entry, Index, LogId, NodeId};

use super::log::Log;
use super::progress::{Fetching, Mode, Progress};
use super::rationing::Ration;
use super::replica::{Envelope, Replica, State};
use super::{Append, Body, Config, Fetch, Outgoing, Output, Round};

impl Replica {
    /// Everything that followers may get now; and the round that waiting reads need.
    pub(super) fn send_as_leader(&mut self) {
        let State::Leader(leading) = &mut self.state else { unreachable!("called for leaders") };
        if leading.reads.want_round() && leading.knows_commit(self.commit) {
            self.begin_round();
        }
        let envelope = self.envelope();
        let Replica { config, log, snapshot, commit, state, output, .. } = self;
        let State::Leader(leading) = state else { unreachable!("a round does not depose") };
        let (commit, round) = (*commit, leading.round);
        let courier = Courier { config, log, snapshot: *snapshot, commit, round, envelope };
        for (peer, progress) in leading.progress.iter_mut() {
            courier.send_appends(*peer, progress, output);
            courier.send_offer(*peer, progress, output);
        }
    }

    /// Entries for a follower were read from the log. They are sent only if they are still the ones it needs, and
    /// still in this log: both may have changed since.
    pub(super) fn on_fetched(&mut self, peer: NodeId, from: Index, entries: Vec<Entry>) {
        let (envelope, commit) = (self.envelope(), self.commit);
        let State::Leader(leading) = &mut self.state else { return };
        let Some(progress) = leading.progress.value_mut(&peer) else { return };
        if progress.fetching != Fetching::From(from) {
            return;
        }
        progress.fetching = if entries.is_empty() { Fetching::Later } else { Fetching::No };
        let wanted = progress.mode == Mode::Replicate && progress.next == from;
        let consecutive = entries.iter().zip(from.0..).all(|(entry, index)| entry.id.index.0 == index);
        let current = entries.iter().all(|entry| self.log.term_at(entry.id.index) == Some(entry.id.term));
        let Some(last) = entries.last().map(|entry| entry.id.index) else { return };
        if !(wanted && consecutive && current) {
            return;
        }
        let bytes = entries.iter().map(super::log::cost_bytes).sum();
        let previous =
            LogId::new(self.log.term_at(from.previous()).expect("precedes an entry of the log"), from.previous());
        progress.on_sent(last, bytes);
        progress.ration.take(bytes);
        let append = Append { previous, entries, commit, round: leading.round };
        self.output.send.push(envelope.outgoing(peer, Body::Append(append)));
    }
}

/// What a leader sends from, the same for all that it sends to.
pub(super) struct Courier<'a> {
    pub(super) config: &'a Config,
    pub(super) log: &'a Log,
    /// As [`Replica::snapshot`].
    pub(super) snapshot: LogId,
    pub(super) commit: Index,
    pub(super) round: Round,
    pub(super) envelope: Envelope,
}

impl Courier<'_> {
    /// Probe, or fill the window.
    fn send_appends(&self, peer: NodeId, progress: &mut Progress, output: &mut Output) {
        let limits = &self.config.limits;
        match progress.mode {
            Mode::Probe { outstanding: true } | Mode::Snapshot { .. } => {}
            Mode::Probe { outstanding: false } => {
                output.send.push(self.append(peer, progress.next.previous(), Vec::new()));
                progress.on_probe_sent();
            }
            Mode::Replicate => {
                let last = progress.last_to_send(self.log.last().index);
                while progress.next <= last && progress.window_is_open(limits) {
                    let entries_max = limits.append_entries_max.min((last.0 - progress.next.0) as usize + 1);
                    let batch = self.log.batch(progress.next, limits.append_bytes_max, entries_max);
                    let Some((entries, bytes)) = batch else {
                        output.fetch.extend(progress.fetch(peer, last, limits.append_bytes_max));
                        break;
                    };
                    let previous = progress.next.previous();
                    progress.ration = Ration::default();
                    progress.on_sent(previous.plus(entries.len() as u64), bytes);
                    output.send.push(self.append(peer, previous, entries));
                }
            }
        }
    }

    fn append(&self, peer: NodeId, previous: Index, entries: Vec<Entry>) -> Outgoing {
        let term = self.log.term_at(previous).expect("followers are probed within the log");
        let (previous, commit, round) = (LogId::new(term, previous), self.commit, self.round);
        self.envelope.outgoing(peer, Body::Append(Append { previous, entries, commit, round }))
    }
}

impl Progress {
    /// A request for what memory does not have any more: at most one at a time, and within the ration.
    fn fetch(&mut self, peer: NodeId, last: Index, bytes_max: usize) -> Option<Fetch> {
        if self.fetching != Fetching::No || self.ration.is_used_up() {
            return None;
        }
        self.fetching = Fetching::From(self.next);
        Some(Fetch { peer, from: self.next, last, bytes_max })
    }

    /// What could not be read may be tried again.
    pub(super) fn retry_fetch(&mut self) {
        if self.fetching == Fetching::Later {
            self.fetching = Fetching::No;
        }
    }
}
