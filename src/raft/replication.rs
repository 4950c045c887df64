//! The leader's side of replication: propose, send, count, commit.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::limits::ENTRY_OVERHEAD_BYTES;
use crate::mutant::{self, Mutant};
use crate::types::{Entry, Index, LogId, Membership, NodeId, Payload};

use super::progress::{Fetching, Mode, Progress};
use super::reads::LeaderReads;
use super::replica::{Envelope, Replica, State};
use super::{Append, AppendOutcome, AppendReply, Body, Event, Fetch, Refused, Round, quorum};

/// What a leader keeps for its term.
#[derive(Debug)]
pub(super) struct Leading {
    /// The no-op that began the term. Once it is committed, so is all before it, and the leader knows what is.
    term_first: Index,
    /// All members but this node, learners too.
    pub(super) progress: BTreeMap<NodeId, Progress>,
    /// The newest round of heartbeats.
    pub(super) round: Round,
    heartbeat_elapsed_ticks: u32,
    /// What the cached entries above the commit index count.
    uncommitted_bytes: usize,
    transfer: Option<Transfer>,
    pub(super) reads: LeaderReads,
}

/// Leadership is being handed over.
#[derive(Clone, Copy, Debug)]
struct Transfer {
    to: NodeId,
    /// When they are over, this node leads on.
    remaining_ticks: u32,
    /// Until the other is asked to stand again, since that may have been lost; 0 before it was asked. Counted apart from
    /// the heartbeats, whose interval begins anew with each round that reads want.
    ask_again_ticks: u32,
    /// Because the disk here stalls: if nobody takes over, this node does not lead on.
    from_disk: bool,
}

impl Leading {
    pub(super) fn new(term_first: Index, uncommitted_bytes: usize) -> Leading {
        Leading {
            term_first,
            progress: BTreeMap::new(),
            round: Round::default(),
            heartbeat_elapsed_ticks: 0,
            uncommitted_bytes,
            transfer: None,
            reads: LeaderReads::default(),
        }
    }

    /// Replicate to exactly the members of the configuration in force.
    pub(super) fn follow_membership(&mut self, membership: &Membership, own: NodeId, next: Index) {
        self.progress.retain(|id, _| membership.member(*id).is_some());
        for member in membership.members.iter().filter(|member| member.id != own) {
            self.progress.entry(member.id).or_insert_with(|| Progress::new(next));
        }
    }

    fn matched(&self, id: NodeId) -> Index {
        self.progress.get(&id).map_or(Index::ZERO, |progress| progress.matched)
    }
}

impl Replica {
    /// Whether these may be appended now.
    pub(super) fn admit(&self, payloads: &[Payload]) -> Result<(), Refused> {
        let State::Leader(leading) = &self.state else { return Err(Refused::NotLeader { leader: self.leader }) };
        if leading.transfer.is_some() {
            return Err(Refused::TransferPending);
        }
        let changes = payloads.iter().filter(|payload| matches!(payload, Payload::Membership(_))).count();
        let settled = self.commit >= leading.term_first && self.memberships.index() <= self.commit;
        if changes > 1 || (changes == 1 && !settled) {
            return Err(Refused::ChangePending);
        }
        let bytes: usize = payloads.iter().map(|payload| payload.data_bytes() + ENTRY_OVERHEAD_BYTES).sum();
        let fits = leading.uncommitted_bytes + bytes <= self.config.limits.uncommitted_bytes_max;
        if fits || leading.uncommitted_bytes == 0 { Ok(()) } else { Err(Refused::Busy) }
    }

    /// Every term begins with an entry that says nothing: older ones are committed with it (§8).
    pub(super) fn append_noop(&mut self) {
        self.append_own(vec![Payload::Noop]);
    }

    pub(super) fn append_own(&mut self, payloads: Vec<Payload>) -> Range<Index> {
        let term = self.term();
        let first = self.log.last().index.next();
        let mut bytes = 0;
        let mut membership_changed = false;
        for payload in payloads {
            bytes += payload.data_bytes() + ENTRY_OVERHEAD_BYTES;
            membership_changed |= matches!(payload, Payload::Membership(_));
            self.push_entry(Entry { id: LogId::new(term, self.log.last().index.next()), payload });
        }
        let end = self.log.last().index.next();
        let State::Leader(leading) = &mut self.state else { unreachable!("only a leader appends of its own") };
        leading.uncommitted_bytes += bytes;
        if membership_changed {
            leading.follow_membership(self.memberships.current(), self.config.id, end);
        }
        first..end
    }

    pub(super) fn on_leader_tick(&mut self) {
        let patience_ticks = self.config.election_ticks.end;
        let own = self.config.id;
        let State::Leader(leading) = &mut self.state else { unreachable!("called for leaders") };
        leading.progress.values_mut().for_each(Progress::on_tick);
        let transfer = leading.transfer;
        leading.transfer = transfer.and_then(Transfer::ticked);
        let is_stuck = leading.transfer.is_none() && transfer.is_some_and(|transfer| transfer.from_disk);
        let heard = |voter: NodeId| {
            voter == own || leading.progress.get(&voter).is_some_and(|follower| follower.silent_ticks < patience_ticks)
        };
        if !quorum::won(self.memberships.current(), heard) {
            return self.step_down_without_quorum();
        }
        if is_stuck && self.is_disk_stalled() {
            return self.step_down_for_disk();
        }
        let State::Leader(leading) = &mut self.state else { unreachable!("called for leaders") };
        leading.heartbeat_elapsed_ticks += 1;
        if leading.heartbeat_elapsed_ticks >= self.config.heartbeat_ticks {
            self.begin_round();
        }
        self.leave_stalled_disk();
        self.continue_transfer();
    }

    pub(super) fn on_append_reply(&mut self, from: NodeId, reply: AppendReply) {
        let State::Leader(leading) = &mut self.state else { return };
        let Some(progress) = leading.progress.get_mut(&from) else { return };
        progress.on_heard(reply.round.min(leading.round));
        match reply.outcome {
            AppendOutcome::Matched { last } => {
                if last <= self.log.last().index && progress.on_matched(last) {
                    self.advance_commit();
                }
            }
            AppendOutcome::Rejected { previous, hint } => {
                if progress.on_rejected(previous, hint, &self.log) {
                    self.output.events.push(Event::SnapshotNeeded { peer: from });
                }
            }
        }
        self.confirm_reads();
        self.continue_transfer();
    }

    /// It lives: whatever it should have answered long ago is lost, and it is probed again.
    pub(super) fn on_heartbeat_reply(&mut self, from: NodeId, round: Round) {
        let patience_ticks = 2 * self.config.heartbeat_ticks;
        let State::Leader(leading) = &mut self.state else { return };
        let Some(progress) = leading.progress.get_mut(&from) else { return };
        progress.on_heard(round.min(leading.round));
        progress.probe_if_stalled(patience_ticks);
        self.confirm_reads();
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

    /// Everything that followers may get now; and the round that waiting reads need.
    pub(super) fn send_as_leader(&mut self) {
        let State::Leader(leading) = &mut self.state else { unreachable!("called for leaders") };
        if leading.reads.want_round() && self.commit >= leading.term_first {
            self.begin_round();
        }
        let envelope = self.envelope();
        let State::Leader(leading) = &mut self.state else { unreachable!("a round does not depose") };
        let peers: Vec<NodeId> = leading.progress.keys().copied().collect();
        for peer in peers {
            self.send_appends(peer, envelope);
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
            Mode::Probe { outstanding: true } => {}
            Mode::Probe { outstanding: false } => {
                self.output.send.push(append(progress.next.previous(), Vec::new()));
                progress.on_probe_sent();
            }
            Mode::Replicate => {
                while progress.next <= self.log.last().index && progress.window_is_open(&limits) {
                    let batch = self.log.batch(progress.next, limits.append_bytes_max, limits.append_entries_max);
                    let Some((entries, bytes)) = batch else {
                        let last = self.log.last().index;
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

    /// Heartbeats to all, in a new round. Each tells only as much of the commit index as is known to match there.
    fn begin_round(&mut self) {
        let envelope = self.envelope();
        let State::Leader(leading) = &mut self.state else { unreachable!("called for leaders") };
        leading.heartbeat_elapsed_ticks = 0;
        leading.round = Round(leading.round.0 + 1);
        if self.commit >= leading.term_first {
            leading.reads.begin(leading.round, self.commit);
        }
        for (peer, progress) in &mut leading.progress {
            progress.on_heartbeat();
            let commit = self.commit.min(progress.matched);
            self.output.send.push(envelope.outgoing(*peer, Body::Heartbeat { commit, round: leading.round }));
        }
        self.confirm_reads();
    }

    /// Commit what a majority holds durably. Counted is only an entry of the own term: an older one may be on a
    /// majority and still be replaced (§5.4.2, figure 8); it is committed with the next that is not.
    pub(super) fn advance_commit(&mut self) {
        let State::Leader(leading) = &self.state else { return };
        let own = self.config.id;
        let held = quorum::reached(self.memberships.current(), |voter| match voter == own {
            true => self.log.durable(),
            false => leading.matched(voter),
        });
        let countable = self.log.term_at(held) == Some(self.term()) || mutant::is_on(Mutant::CommitOfOldTerm);
        if held > self.commit && countable {
            self.commit_to(held);
        }
    }

    fn commit_to(&mut self, commit: Index) {
        let State::Leader(leading) = &mut self.state else { unreachable!("called for leaders") };
        leading.uncommitted_bytes -= self.log.cached_cost_bytes(self.commit, commit);
        self.commit = commit;
        self.memberships.on_commit(commit);
        let removed = self.memberships.index() <= commit && !self.membership().is_voter(self.config.id);
        if removed {
            // It led until its own removal was committed (dissertation §4.2.2).
            self.step_down();
        }
    }

    pub(super) fn begin_transfer(&mut self, to: NodeId) -> Result<(), Refused> {
        self.begin_transfer_for(to, false)
    }

    pub(super) fn begin_transfer_from_disk(&mut self, to: NodeId) -> Result<(), Refused> {
        self.begin_transfer_for(to, true)
    }

    fn begin_transfer_for(&mut self, to: NodeId, from_disk: bool) -> Result<(), Refused> {
        let remaining_ticks = self.config.election_ticks.end;
        let State::Leader(leading) = &mut self.state else { return Err(Refused::NotLeader { leader: self.leader }) };
        if leading.transfer.is_some() {
            return Err(Refused::TransferPending);
        }
        if to == self.config.id || !self.memberships.current().is_voter(to) {
            return Err(Refused::NotAnotherVoter);
        }
        leading.transfer = Some(Transfer { to, remaining_ticks, ask_again_ticks: 0, from_disk });
        self.continue_transfer();
        Ok(())
    }

    /// Ask the other to stand, once it has everything, and again after each heartbeat interval.
    fn continue_transfer(&mut self) {
        let (last, interval_ticks) = (self.log.last().index, self.config.heartbeat_ticks);
        let State::Leader(leading) = &mut self.state else { return };
        let Some(transfer) = leading.transfer.filter(|transfer| transfer.ask_again_ticks == 0) else { return };
        if leading.matched(transfer.to) == last {
            leading.transfer = Some(Transfer { ask_again_ticks: interval_ticks, ..transfer });
            self.send(transfer.to, Body::StandNow);
        }
    }
}

impl Transfer {
    fn ticked(self) -> Option<Transfer> {
        let remaining_ticks = self.remaining_ticks.checked_sub(1)?;
        Some(Transfer { remaining_ticks, ask_again_ticks: self.ask_again_ticks.saturating_sub(1), ..self })
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
    fn on_heartbeat(&mut self) {
        if self.fetching == Fetching::Later {
            self.fetching = Fetching::No;
        }
    }
}
