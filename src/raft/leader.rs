//! What a leader takes, counts and commits. What it sends stands in sending.rs.

use std::ops::Range;

use crate::limits::ENTRY_OVERHEAD_BYTES;
use crate::mutant::{self, Mutant};
use crate::types::{Entry, Index, LogId, NodeId, Payload};

use super::by_node::ByNode;
use super::lease::LeaderLease;
use super::progress::{Progress, Rejected};
use super::rationing::Growth;
use super::reads::LeaderReads;
use super::replica::{Replica, State};
use super::transfer::Transfer;
use super::{AppendOutcome, AppendReply, Contradicted, Event, Refused, Round, quorum};

/// What a leader keeps for its term.
#[derive(Clone, Hash, Debug)]
pub(super) struct Leading {
    /// The no-op that began the term. Once it is committed, so is all before it, and the leader knows what is.
    pub(super) term_first: Index,
    /// All members but this node, learners too.
    pub(super) progress: ByNode<Progress>,
    /// The newest round of heartbeats.
    pub(super) round: Round,
    pub(super) heartbeat_elapsed_ticks: u32,
    /// What the cached entries above the commit index count.
    uncommitted_bytes: usize,
    pub(super) transfer: Option<Transfer>,
    pub(super) reads: LeaderReads,
    pub(super) lease: LeaderLease,
    pub(super) growth: Growth,
}

impl Leading {
    pub(super) fn new(term_first: Index, uncommitted_bytes: usize) -> Leading {
        Leading {
            term_first,
            progress: ByNode::new(),
            round: Round::default(),
            heartbeat_elapsed_ticks: 0,
            uncommitted_bytes,
            transfer: None,
            reads: LeaderReads::default(),
            lease: LeaderLease::default(),
            growth: Growth::default(),
        }
    }

    /// This node is no member any more.
    pub(super) fn told_farewell(&mut self, node: NodeId, next: Index) -> &mut Progress {
        self.progress.or_insert_with(node, || Progress::new(next))
    }

    /// This node is replicated to. One that was told farewell and comes back may have another disk.
    pub(super) fn follow(&mut self, node: NodeId, next: Index) -> &mut Progress {
        self.progress.retain(|id, progress| *id != node || !progress.departs());
        self.progress.or_insert_with(node, || Progress::new(next))
    }

    /// What this follower gets from now on carries a round in which it got nothing yet.
    pub(super) fn begin_attempt(&mut self, follower: NodeId) {
        self.round = Round(self.round.0 + 1);
        if let Some(progress) = self.progress.value_mut(&follower) {
            progress.begin_attempt(self.round);
        }
    }

    /// Where nothing waits there is room for anything: what is larger than the bound could never be taken otherwise.
    pub(super) fn has_room(&self, bytes: usize, uncommitted_bytes_max: usize) -> bool {
        self.uncommitted_bytes == 0 || self.uncommitted_bytes + bytes <= uncommitted_bytes_max
    }

    /// Before an entry of its own term is committed, a leader does not know what is (§8).
    pub(super) fn knows_commit(&self, commit: Index) -> bool {
        commit >= self.term_first || mutant::is_on(Mutant::ReadWithoutOwnEntry)
    }

    pub(super) fn matched(&self, id: NodeId) -> Index {
        self.progress.value(&id).map_or(Index::ZERO, |progress| progress.matched)
    }

    pub(super) fn silent_ticks(&self, id: NodeId) -> u32 {
        self.progress.value(&id).map_or(u32::MAX, |progress| progress.silent_ticks)
    }
}

impl Replica {
    /// Whether these may be appended now.
    pub(super) fn admit(&self, payloads: &[Payload]) -> Result<(), Refused> {
        let State::Leader(leading) = &self.state else { return Err(Refused::NotLeader { leader: self.leader }) };
        if leading.transfer.is_some() {
            return Err(Refused::TransferPending);
        }
        let changes = payloads.iter().any(|payload| matches!(payload, Payload::Membership(_)));
        assert!(!changes, "a configuration is not proposed: `Replica::change` plans it");
        let bytes: usize = payloads.iter().map(|payload| payload.data_bytes() + ENTRY_OVERHEAD_BYTES).sum();
        // What the others have committed may wait for this disk alone: that has a bound as well.
        let has_room = leading.has_room(bytes, self.config.limits.uncommitted_bytes_max);
        if has_room && !self.log.is_full(self.commit) { Ok(()) } else { Err(Refused::Busy) }
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
        leading.growth.note(bytes);
        if membership_changed {
            self.follow_membership();
        }
        first..end
    }

    pub(super) fn on_leader_tick(&mut self) {
        let patience_ticks = self.config.election_ticks.end;
        let own = self.config.id;
        let State::Leader(leading) = &mut self.state else { unreachable!("called for leaders") };
        let last = self.log.last().index;
        leading.progress.values_mut().for_each(|progress| progress.on_tick(last));
        leading.progress.retain(|_, progress| !progress.has_departed(self.commit));
        self.ration_followers();
        let State::Leader(leading) = &mut self.state else { unreachable!("called for leaders") };
        let transfer = leading.transfer;
        leading.transfer = transfer.and_then(Transfer::ticked);
        let given_up = transfer.filter(|_| leading.transfer.is_none());
        let heard = |voter: NodeId| {
            voter == own
                || leading.progress.value(&voter).is_some_and(|follower| follower.silent_ticks < patience_ticks)
        };
        if !quorum::won(self.memberships.current(), heard) && !mutant::is_on(Mutant::NoCheckQuorum) {
            return self.step_down_without_quorum();
        }
        if given_up.is_some_and(|transfer| transfer.from_disk) && self.is_disk_stalled() {
            return self.step_down_for_disk();
        }
        let State::Leader(leading) = &mut self.state else { unreachable!("called for leaders") };
        leading.heartbeat_elapsed_ticks += 1;
        if leading.heartbeat_elapsed_ticks >= self.config.heartbeat_ticks {
            self.begin_round();
        }
        if given_up.is_some() && self.is_out() {
            return self.step_down();
        }
        self.leave_stalled_disk();
        self.continue_transfer();
        self.continue_change();
    }

    pub(super) fn on_append_reply(&mut self, from: NodeId, reply: AppendReply) {
        if !self.hear_follower(from, reply.round) {
            return;
        }
        let State::Leader(leading) = &mut self.state else { unreachable!("it was heard as a follower") };
        let newest = leading.round;
        let Some(progress) = leading.progress.value_mut(&from) else { unreachable!("it was heard as a follower") };
        match reply.outcome {
            AppendOutcome::Matched { last: said } if said > self.log.last().index => {
                return self.contradict(from, Contradicted::MatchedBeyond { said, last: self.log.last() });
            }
            AppendOutcome::Matched { last } => {
                if progress.on_matched(last, reply.round, newest, &self.log) {
                    self.advance_commit();
                }
            }
            AppendOutcome::Rejected { previous, hint } => {
                if let Some(acknowledged) = progress.lost(hint, reply.round) {
                    return self.take_voice(from, acknowledged, hint);
                }
                match progress.on_rejected(previous, hint, reply.round, &self.log) {
                    Rejected::Nothing => {}
                    Rejected::BeginsAnew => leading.begin_attempt(from),
                    // A link that is new is asked anew, and may be offered another one.
                    Rejected::NeedsSnapshot { .. } if self.snapshot != LogId::ZERO => progress.begin_offering(),
                    Rejected::NeedsSnapshot { is_news: false } => {}
                    Rejected::NeedsSnapshot { is_news: true } => {
                        self.output.events.push(Event::SnapshotNeeded { peer: from });
                    }
                }
            }
        }
        self.confirm_reads();
        self.continue_transfer();
    }

    /// It lives: whatever it should have answered long ago is lost, and it is probed again.
    pub(super) fn on_heartbeat_reply(&mut self, from: NodeId, round: Round) {
        let patience_ticks = 2 * self.config.heartbeat_ticks;
        if !self.hear_follower(from, round) {
            return;
        }
        let State::Leader(leading) = &mut self.state else { unreachable!("it was heard as a follower") };
        let Some(progress) = leading.progress.value_mut(&from) else { unreachable!("it was heard as a follower") };
        if progress.probe_if_stalled(patience_ticks, &self.log) {
            leading.begin_attempt(from);
        }
        self.confirm_reads();
    }

    /// A follower of this leader answers, and names the newest round that it has heard. False if it is none, or
    /// cannot have heard that.
    fn hear_follower(&mut self, from: NodeId, said: Round) -> bool {
        if self.has_lost(from) {
            return false;
        }
        let State::Leader(leading) = &mut self.state else { return false };
        let newest = leading.round;
        let Some(progress) = leading.progress.value_mut(&from) else { return false };
        if said > newest {
            self.contradict(from, Contradicted::RoundAhead { said, newest });
            return false;
        }
        progress.on_heard(said);
        if progress.knows_farewell() {
            leading.progress.remove(&from);
            return false;
        }
        true
    }

    /// Commit what a majority holds durably. Counted is only an entry of the own term: an older one may be on a
    /// majority and still be replaced (§5.4.2, figure 8); it is committed with the next that is not.
    pub(super) fn advance_commit(&mut self) {
        let State::Leader(leading) = &self.state else { return };
        let own = self.config.id;
        let held_by = |voter: NodeId| if voter == own { self.log.durable() } else { leading.matched(voter) };
        let membership = self.memberships.current();
        let held = if mutant::is_on(Mutant::CommitByAll) {
            membership.voters.iter().map(|voter| held_by(*voter)).min().unwrap_or(Index::ZERO)
        } else if mutant::is_on(Mutant::RemovedCounted) {
            self.held_by_any(leading)
        } else {
            quorum::reached(membership, held_by)
        };
        let countable = self.log.term_at(held) == Some(self.term()) || mutant::is_on(Mutant::CommitOfOldTerm);
        if held > self.commit && countable {
            self.commit_to(held);
        }
    }

    /// What so many hold as would be a majority, whoever they are.
    fn held_by_any(&self, leading: &Leading) -> Index {
        let all = leading.progress.values().map(|progress| progress.matched).chain([self.log.durable()]);
        let mut all: Vec<Index> = all.collect();
        all.sort_unstable_by(|a, b| b.cmp(a));
        let majority = self.memberships.current().voters.len() / 2;
        all.get(majority).copied().unwrap_or_default()
    }

    fn commit_to(&mut self, commit: Index) {
        let State::Leader(leading) = &mut self.state else { unreachable!("called for leaders") };
        leading.uncommitted_bytes -= self.log.cached_cost_bytes(self.commit, commit);
        self.commit = commit;
        self.note_commit();
        self.continue_change();
    }
}
