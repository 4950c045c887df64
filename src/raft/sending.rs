//! What a leader sends beside heartbeats: probes, and entries as far as the windows let it.

use crate::types::{Entry, Index, LogId, NodeId};

use super::progress::{Fetching, Mode, Progress};
use super::replica::{Envelope, Replica, State};
use super::{Append, Body, Fetch};

impl Replica {
    /// Everything that followers may get now; and the round that waiting reads need.
    pub(super) fn send_as_leader(&mut self) {
        let State::Leader(leading) = &mut self.state else { unreachable!("called for leaders") };
        if leading.reads.want_round() && leading.knows_commit(self.commit) {
            self.begin_round();
        }
        let envelope = self.envelope();
        let State::Leader(leading) = &mut self.state else { unreachable!("a round does not depose") };
        let peers: Vec<NodeId> = leading.progress.keys().copied().collect();
        for peer in peers {
            self.send_appends(peer, envelope);
            self.send_offer(peer, envelope);
        }
    }

    /// Probe, or fill the window.
    fn send_appends(&mut self, peer: NodeId, envelope: Envelope) {
        let limits = self.config.limits;
        let State::Leader(leading) = &mut self.state else { unreachable!("called for leaders") };
        let progress = leading.progress.get_mut(&peer).expect("called for members");
        let (commit, round) = (self.commit, leading.round);
        let append = |previous: Index, entries| {
            let term = self.log.term_at(previous).expect("followers are probed within the log");
            let append = Append { previous: LogId::new(term, previous), entries, commit, round };
            envelope.outgoing(peer, Body::Append(append))
        };
        match progress.mode {
            Mode::Probe { outstanding: true } | Mode::Snapshot { .. } => {}
            Mode::Probe { outstanding: false } => {
                self.output.send.push(append(progress.next.previous(), Vec::new()));
                progress.on_probe_sent();
            }
            Mode::Replicate => {
                let last = progress.last_to_send(self.log.last().index);
                while progress.next <= last && progress.window_is_open(&limits) {
                    let entries_max = limits.append_entries_max.min((last.0 - progress.next.0) as usize + 1);
                    let batch = self.log.batch(progress.next, limits.append_bytes_max, entries_max);
                    let Some((entries, bytes)) = batch else {
                        self.output.fetch.extend(progress.fetch(peer, last, limits.append_bytes_max));
                        break;
                    };
                    let previous = progress.next.previous();
                    progress.on_sent(previous.plus(entries.len() as u64), bytes);
                    self.output.send.push(append(previous, entries));
                }
            }
        }
    }

    /// Entries for a follower were read from the log. They are sent only if they are still the ones it needs, and
    /// still in this log: both may have changed since.
    pub(super) fn on_fetched(&mut self, peer: NodeId, from: Index, entries: Vec<Entry>) {
        let (envelope, commit) = (self.envelope(), self.commit);
        let State::Leader(leading) = &mut self.state else { return };
        let Some(progress) = leading.progress.get_mut(&peer) else { return };
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
        let append = Append { previous, entries, commit, round: leading.round };
        self.output.send.push(envelope.outgoing(peer, Body::Append(append)));
    }
}

impl Progress {
    /// A request for what memory does not have any more: at most one at a time.
    fn fetch(&mut self, peer: NodeId, last: Index, bytes_max: usize) -> Option<Fetch> {
        if self.fetching != Fetching::No {
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
