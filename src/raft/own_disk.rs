//! A leader whose own disk stalls hands over (design §6, Slow disk), and one whose disk does not give what a follower needs.
//!
//! Its entries are committed by the others all the same, but it keeps no promise about itself any more, and whatever
//! needs its disk waits: its vote, its state machine, its clients' reads of the log. So, if its oldest flush is older
//! than half the shortest election timeout while the durable ends of a majority move on without it, one of those is
//! asked to lead. If it does not come to that within an election timeout, the leader steps down; and whoever's disk
//! stalls does not stand. Where there is no majority without this disk, the next leader would have to wait for it, too.
//!
//! Nodes that share one stalled disk do not pass leadership round: where no follower moves, nobody is better. When such a disk
//! goes on, one of them is heard of first, for a moment: who is better is so for an eighth of the shortest election timeout.
//! And a node hands over for this reason at most once in ten of the longest election timeouts.
//!
//! Where the making of a segment hangs no flush needs to be under way: what clients want waits before the log. The driver sees
//! it, and leadership is handed over within the same limits.

use std::collections::VecDeque;

use crate::mutant::{self, Mutant};
use crate::types::{Index, NodeId};

use super::progress::Progress;
use super::replica::{Replica, State};
use super::{Event, PersistNumber, quorum};

/// In longest election timeouts.
const REST_TIMEOUTS: u32 = 10;
/// Ticks of which the persists are told apart: more than a disk may take before it counts as hung.
const TICKS_MAX: usize = 4096;

#[derive(Clone, Debug, Default)]
pub(super) struct OwnDisk {
    now_ticks: u64,
    /// Persists that are not durable: of each tick in which one was handed out the last, that tick, and the last entry that
    /// the log held with it; in order.
    under_way: VecDeque<(PersistNumber, u64, Index)>,
    /// For so long the others have been ahead of it.
    ahead_ticks: u32,
    /// Until leadership may be handed over again for its sake.
    rest_ticks: u32,
    /// Until leadership that was handed over to this node may be handed on because no segment is made.
    handed_ticks: u32,
    /// Whom this node asked last because no segment is made: next time it is the turn of those behind.
    asked: Option<NodeId>,
}

impl OwnDisk {
    pub(super) fn on_tick(&mut self) {
        self.now_ticks += 1;
        self.rest_ticks = self.rest_ticks.saturating_sub(1);
        self.handed_ticks = self.handed_ticks.saturating_sub(1);
    }

    pub(super) fn on_handed_out(&mut self, number: PersistNumber, entry: Index) {
        let is_full = self.under_way.len() == TICKS_MAX;
        match self.under_way.back_mut() {
            Some((last, since, last_entry)) if *since == self.now_ticks || is_full => {
                (*last, *last_entry) = (number, entry);
            }
            _ => self.under_way.push_back((number, self.now_ticks, entry)),
        }
    }

    pub(super) fn on_durable(&mut self, number: PersistNumber) {
        while self.under_way.front().is_some_and(|(last, ..)| *last <= number) {
            self.under_way.pop_front();
        }
        if mutant::is_on(Mutant::StallEndsWithAny) {
            self.under_way.iter_mut().for_each(|(_, since, _)| *since = self.now_ticks);
        }
    }

    /// How long the oldest persist has been under way.
    pub(super) fn stalled_ticks(&self) -> u64 {
        self.under_way.front().map_or(0, |(_, since, _)| self.now_ticks - since)
    }

    /// The last entry that has been owed for so long.
    fn owed(&self, ticks: u64) -> Index {
        let older = self.under_way.partition_point(|(_, since, _)| self.now_ticks - since >= ticks);
        older.checked_sub(1).map_or(Index::ZERO, |last| self.under_way[last].2)
    }
}

impl Replica {
    pub(super) fn is_disk_stalled(&self) -> bool {
        self.own_disk.stalled_ticks() > u64::from(self.config.election_ticks.start / 2)
    }

    /// Hand over if the disk stalls here and has gone on elsewhere for a while. Once in a tick.
    pub(super) fn leave_stalled_disk(&mut self) {
        let Some(to) = self.who_is_ahead() else {
            self.own_disk.ahead_ticks = 0;
            return;
        };
        self.own_disk.ahead_ticks += 1;
        let is_settled = self.own_disk.ahead_ticks > self.config.election_ticks.start / 8;
        if !self.is_disk_stalled() || !(is_settled || mutant::is_on(Mutant::StallHandsAtOnce)) {
            return;
        }
        if self.begin_transfer_from_disk(to).is_ok() {
            self.own_disk.rest_ticks = self.rest_timeouts();
            self.output.events.push(Event::DiskStalls { to: Some(to) });
        }
    }

    /// The making of the next segment of the log hangs here, and clients wait for it. Leadership is handed over to a voter that
    /// holds everything, if a majority without this node does, and is heard; if it does not take over, this node leads on.
    /// Nothing is written meanwhile that could show whose disk goes on: so who was asked to lead does not hand it on for this
    /// within the time in which nobody does it twice. Tells whether that was begun.
    pub fn leave_hanging_segment(&mut self) -> bool {
        let State::Leader(leading) = &self.state else { return false };
        if self.own_disk.rest_ticks > 0 || self.own_disk.handed_ticks > 0 {
            return false;
        }
        let last = self.log.last().index;
        let holds_all =
            |progress: &Progress| progress.silent_ticks < self.config.election_ticks.start && progress.matched == last;
        let membership = self.memberships.current();
        if !quorum::won(membership, |id| leading.progress.value(&id).is_some_and(holds_all)) {
            return false;
        }
        let may_lead: Vec<NodeId> = leading
            .progress
            .iter()
            .filter(|(id, progress)| membership.voters.contains(*id) && holds_all(progress))
            .map(|(id, _)| *id)
            .collect();
        // In a ring: two whose disks hang do not pass it to each other while a third is there.
        let before = self.own_disk.asked.unwrap_or(self.config.id);
        let Some(to) = may_lead.iter().find(|id| **id > before).or(may_lead.first()).copied() else { return false };
        let is_begun = self.begin_transfer(to).is_ok();
        if is_begun {
            self.own_disk.asked = Some(to);
            self.own_disk.rest_ticks = self.rest_timeouts();
            self.output.events.push(Event::SegmentHangs { to });
        }
        is_begun
    }

    /// A leader asks this node to lead.
    pub(super) fn note_handed_over(&mut self) {
        self.own_disk.handed_ticks = self.rest_timeouts();
    }

    fn rest_timeouts(&self) -> u32 {
        REST_TIMEOUTS.saturating_mul(self.config.election_ticks.end)
    }

    /// This disk gives no more what a follower needs next, from this entry on. Leadership is handed over to a voter that is
    /// heard and holds all that is committed, if there is one; if it does not take over, this node leads on. Tells whether
    /// that was begun.
    pub fn leave_damaged_log(&mut self, follower: NodeId, index: Index) -> bool {
        let State::Leader(leading) = &self.state else { return false };
        let membership = self.memberships.current();
        let is_heard = |progress: &Progress| progress.silent_ticks < self.config.election_ticks.start;
        // Who is not there needs nothing now.
        if !leading.progress.value(&follower).is_some_and(is_heard) {
            return false;
        }
        let holds = |progress: &Progress| progress.matched >= self.commit;
        let may_lead = |id: NodeId, progress: &Progress| {
            id != follower
                && membership.voters.contains(&id)
                && (is_heard(progress) || mutant::is_on(Mutant::DamageHandsToUnheard))
                && (holds(progress) || mutant::is_on(Mutant::DamageHandsToBehind))
        };
        let may_lead = leading.progress.iter().filter(|(id, progress)| may_lead(**id, progress));
        let Some(to) = may_lead.max_by_key(|(_, progress)| progress.matched).map(|(id, _)| *id) else { return false };
        let is_begun = self.begin_transfer(to).is_ok();
        if is_begun {
            self.output.events.push(Event::LogDamaged { to, follower, index });
        }
        is_begun
    }

    /// Of the voters whose disks go on, if they are a majority, while this one's may be about to stall, the one that holds
    /// most.
    fn who_is_ahead(&self) -> Option<NodeId> {
        let is_late = self.own_disk.stalled_ticks() > u64::from(self.config.election_ticks.start / 4);
        if !is_late || self.own_disk.rest_ticks > 0 {
            return None;
        }
        let State::Leader(leading) = &self.state else { return None };
        // What was flushed before the stall began may be heard of within it: only its later half counts.
        let since_ticks = self.own_disk.stalled_ticks() / 2;
        // Where all are overloaded alike their disks owe alike: only who holds what this disk has owed for long is ahead.
        let owed = self.own_disk.owed(since_ticks);
        let membership = self.memberships.current();
        let is_ahead =
            |follower: &Progress| u64::from(follower.matched_ticks_ago) <= since_ticks && follower.matched >= owed;
        let moves = |id: NodeId| {
            let follower = leading.progress.value(&id);
            follower.is_some_and(|follower| is_ahead(follower) || mutant::is_on(Mutant::StallHandsToAny))
        };
        if !quorum::won(membership, moves) {
            return None;
        }
        let moving = leading.progress.iter().filter(|(id, _)| membership.voters.contains(*id) && moves(**id));
        moving.max_by_key(|(_, progress)| progress.matched).map(|(id, _)| *id)
    }

    /// Nobody has taken over in time.
    pub(super) fn step_down_for_disk(&mut self) {
        self.output.events.push(Event::DiskStalls { to: None });
        self.step_down();
    }
}
