//! Logs that do not begin with their first entry (§7), and followers that lack what a leader's log has no more.
//!
//! ```text
//!   leader                                   follower
//!   Append after the log's start ──────────▶ lacks it
//!              rejected ◀─────────────────── its log ends before, or has another entry there
//!   Snapshot: point, where the log begins ─▶ SnapshotOffered ──▶ fetched, durable, loaded ──▶ Installed
//!   again, from time to time                    its log is empty, and begins there        persist: base
//!              matched ◀──────────────────── once that is durable
//!   Append after the log's start ──────────▶ as ever
//! ```
//!
//! - **Only what is committed is offered**, so that a follower that takes it cannot lose what counts: whatever it had in
//!   those places is the same, or was never committed. It takes nothing that its own log has; so neither its commit index
//!   nor what it has acknowledged ever goes back.
//! - **The log ends first on disk, not in memory.** The snapshot is durable before [`Input::Installed`](super::Input);
//!   then the superblock says that it counts and where the log begins, then the old log goes, then the follower says that
//!   it holds the beginning. A start that finds the old log behind a superblock which says so ends it.
//! - **A snapshot's configuration counts**, and is committed, from the moment that it is installed, though its entry may
//!   be one of those that are still to come.
//! - The offer says nothing of the state: entries up to the snapshot's point are appended and committed like others, and
//!   whoever applies them passes them over.

use crate::mutant::{self, Mutant};
use crate::types::{Index, LogId, Membership, NodeId};

use super::progress::{Mode, Progress};
use super::replica::{Replica, State};
use super::sending::Courier;
use super::{Base, Body, Event, Output, Round};

/// Intervals of heartbeats from one offer to the next.
const OFFER_INTERVALS: u32 = 4;

impl Replica {
    /// Whether a snapshot with the log that goes with it is of use here: the log's beginning is not in this log. A leader
    /// has what is committed.
    pub fn wants(&self, base: Base) -> bool {
        let Base { begin_after, .. } = base;
        let is_held = self.log.term_at(begin_after.index) == Some(begin_after.term);
        let is_below = begin_after.index <= self.commit || is_held;
        let leads = matches!(self.state, State::Leader(_));
        !leads && (!is_below || mutant::is_on(Mutant::InstalledBelowCommit))
    }

    /// A leader offers what this node may lack (§7). If it does not lack it that is as good as an append up to there.
    pub(super) fn on_snapshot(&mut self, from: NodeId, base: Base, round: Round) {
        let Some(verified) = self.follow_leader(from).map(|following| following.verified) else { return };
        if let Some(what) = self.contradicted_by_offer(base, verified) {
            return self.contradict(from, what);
        }
        let is_wanted = self.wants(base);
        let State::Follower(following) = &mut self.state else { unreachable!("who hears a leader follows it") };
        following.hear(round);
        if is_wanted {
            return self.output.events.push(Event::SnapshotOffered { from, base });
        }
        following.verify(base.begin_after.index);
        self.follow_commit(base.begin_after.index);
    }

    /// The snapshot is durable. What came of an offer long ago may be of no use any more.
    #[inline(never)]
    pub(super) fn on_installed(&mut self, base: Base, (entry, membership): (LogId, Membership)) {
        if !self.wants(base) {
            return;
        }
        // Whoever stands does so with a log that is no more.
        if !matches!(self.state, State::Follower(_)) {
            self.become_follower();
        }
        let Base { point, begin_after } = base;
        self.log.begin_after(begin_after, point.index);
        self.base_waits = Some(base);
        self.snapshot = self.snapshot.max(point);
        let committed_before = std::mem::replace(&mut self.commit, begin_after.index);
        if !mutant::is_on(Mutant::SnapshotMembershipForgotten) {
            self.take_membership((entry, membership), committed_before);
        }
        self.note_commit();
        let State::Follower(following) = &mut self.state else { unreachable!("it follows, or nobody leads") };
        // Every leader from the one that offered it on has what is committed (§5.4.3).
        following.begin_at(begin_after.index);
    }

    /// It is committed, wherever its entry lies.
    fn take_membership(&mut self, (entry, membership): (LogId, Membership), committed_before: Index) {
        let before = self.memberships.id();
        self.memberships.install(entry, membership, committed_before);
        let index = entry.index;
        if entry != before {
            self.output.events.push(Event::MembershipChanged { index });
        }
        self.output.events.push(Event::MembershipCommitted { index });
    }

    /// Entries of the log are given up, for a snapshot has them.
    #[inline(never)]
    pub(super) fn on_compacted(&mut self, before_first: LogId) {
        if before_first.index <= self.log.before_first().index {
            return;
        }
        assert!(before_first.index <= self.commit, "{before_first} is given up and not committed");
        assert!(before_first.index <= self.snapshot.index, "{before_first} is given up, and no snapshot has it");
        self.log.compact(before_first);
        let State::Leader(leading) = &mut self.state else { return };
        let log = &self.log;
        let probed = leading.progress.iter_mut().filter_map(|(id, progress)| progress.on_compacted(log).then_some(*id));
        let probed: Vec<NodeId> = probed.collect();
        probed.into_iter().for_each(|peer| leading.begin_attempt(peer));
    }

    /// The last entry that everybody holds to whom this node replicates, as far as it knows; only a leader knows.
    pub fn held_by_all(&self) -> Option<Index> {
        let State::Leader(leading) = &self.state else { return None };
        let stays = leading.progress.values().filter(|progress| !progress.departs());
        Some(stays.map(|progress| progress.matched).min().unwrap_or(self.log.last().index))
    }
}

impl Courier<'_> {
    /// To one that is heard: who is silent takes nothing.
    pub(super) fn send_offer(&self, peer: NodeId, progress: &mut Progress, output: &mut Output) {
        let interval_ticks = OFFER_INTERVALS * self.config.heartbeat_ticks;
        let patience_ticks = self.config.election_ticks.start;
        if progress.mode == (Mode::Snapshot { wait_ticks: 0 }) && progress.silent_ticks < patience_ticks {
            progress.mode = Mode::Snapshot { wait_ticks: interval_ticks };
            let base = Base { point: self.snapshot, begin_after: self.log.before_first() };
            output.send.push(self.envelope.outgoing(peer, Body::Snapshot { base, round: self.round }));
        }
    }
}
