//! A leader whose own disk stalls hands over (design §6, Slow disk).
//!
//! Its entries are committed by the others all the same, but it keeps no promise about itself any more, and whatever
//! needs its disk waits: its vote, its state machine, its clients' reads of the log. So, if a flush takes longer than
//! half the shortest election timeout while the durable ends of a majority move on without it, one of those is asked to
//! lead. If it does not come to that within an election timeout, the leader steps down; and whoever's disk stalls does
//! not stand. Where there is no majority without this disk, the next leader would have to wait for it, too.
//!
//! Nodes that share one stalled disk do not pass leadership round: where no follower moves, nobody is better. And a node
//! hands over for this reason at most once in ten of the longest election timeouts.

use crate::types::NodeId;

use super::replica::{Replica, State};
use super::{Event, quorum};

/// In longest election timeouts.
const REST_TIMEOUTS: u32 = 10;

#[derive(Clone, Debug, Default)]
pub(super) struct OwnDisk {
    /// Since a persist became durable, or the first of those under way was handed out.
    stalled_ticks: u32,
    /// Until leadership may be handed over again for its sake.
    rest_ticks: u32,
}

impl OwnDisk {
    pub(super) fn on_tick(&mut self, is_waited_for: bool) {
        self.stalled_ticks = if is_waited_for { self.stalled_ticks.saturating_add(1) } else { 0 };
        self.rest_ticks = self.rest_ticks.saturating_sub(1);
    }

    pub(super) fn on_durable(&mut self) {
        self.stalled_ticks = 0;
    }
}

impl Replica {
    pub(super) fn is_disk_stalled(&self) -> bool {
        self.own_disk.stalled_ticks > self.config.election_ticks.start / 2
    }

    /// Hand over if the disk stalls here and goes on elsewhere.
    pub(super) fn leave_stalled_disk(&mut self) {
        if !self.is_disk_stalled() || self.own_disk.rest_ticks > 0 {
            return;
        }
        let State::Leader(leading) = &self.state else { return };
        // What was flushed before the stall began may be heard of within it: only its later half counts.
        let since_ticks = self.own_disk.stalled_ticks / 2;
        let membership = self.memberships.current();
        let moves =
            |id: NodeId| leading.progress.get(&id).is_some_and(|follower| follower.matched_ticks_ago <= since_ticks);
        if !quorum::won(membership, moves) {
            return;
        }
        let moving = leading.progress.iter().filter(|(id, _)| membership.voters.contains(*id) && moves(**id));
        let Some(to) = moving.max_by_key(|(_, progress)| progress.matched).map(|(id, _)| *id) else { return };
        if self.begin_transfer_from_disk(to).is_ok() {
            self.own_disk.rest_ticks = REST_TIMEOUTS.saturating_mul(self.config.election_ticks.end);
            self.output.events.push(Event::DiskStalls { to: Some(to) });
        }
    }

    /// Nobody has taken over in time.
    pub(super) fn step_down_for_disk(&mut self) {
        self.output.events.push(Event::DiskStalls { to: None });
        self.step_down();
    }
}
