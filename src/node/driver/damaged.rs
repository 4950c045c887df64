//! A leader whose log cannot be read where a follower needs it hands leadership over: what is damaged here may be intact
//! there, and the follower waits for it.

use std::collections::BTreeMap;

use super::Driver;
use crate::machine::StateMachine;
use crate::types::{Index, NodeId};
use crate::wal;

/// So often in a row the same entry cannot be read, of those times that are told apart,
const READS_MAX: u32 = 20;
/// which are so far from each other: reads by clients make heartbeats follow each other without a pause. Together a second.
const APART_TICKS: u64 = 5;
/// Ten minutes. Where all logs are damaged there leadership is not passed round for nothing.
const REST_TICKS: u32 = 60_000;

#[derive(Debug, Default)]
pub(super) struct Damaged {
    ticks: u64,
    /// By follower: what was read for it in vain.
    reads: BTreeMap<NodeId, Reads>,
    /// Until leadership may be handed over for this again.
    rest_ticks: u32,
}

#[derive(Debug)]
struct Reads {
    from: Index,
    times: u32,
    /// The last of these.
    at_ticks: u64,
}

impl Damaged {
    pub fn tick(&mut self) {
        self.ticks += 1;
        self.rest_ticks = self.rest_ticks.saturating_sub(1);
    }

    /// Something could be read for it.
    pub fn was_read(&mut self, follower: NodeId) {
        self.reads.remove(&follower);
    }

    /// This node leads no more.
    pub fn forget(&mut self) {
        self.reads.clear();
    }

    /// Tells whether it could not be read so often that it is not to be hoped for.
    fn count(&mut self, follower: NodeId, from: Index) -> bool {
        let first = || Reads { from, times: 1, at_ticks: self.ticks };
        let reads = self.reads.entry(follower).or_insert_with(first);
        if reads.from != from {
            *reads = first();
        }
        if self.ticks >= reads.at_ticks + APART_TICKS {
            (reads.times, reads.at_ticks) = (reads.times + 1, self.ticks);
        }
        reads.times >= READS_MAX && self.rest_ticks == 0
    }
}

impl<M: StateMachine> Driver<M> {
    /// What a follower needs next, from this entry on, could not be read.
    pub(super) fn on_unreadable(&mut self, follower: NodeId, from: Index, error: &wal::Error) {
        let is_damage = match error {
            wal::Error::Damaged(_) => true,
            wal::Error::Disk(error) => error.is_media_error(),
            _ => false,
        };
        if is_damage && self.damaged.count(follower, from) && self.replica.leave_damaged_log(follower, from) {
            self.damaged.rest_ticks = REST_TICKS;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads that fail in each tick from this one on, so many ticks.
    fn fails(damaged: &mut Damaged, from: u64, ticks: u64) -> bool {
        let mut is_lost = false;
        for _ in 0..ticks {
            damaged.tick();
            is_lost = (0..50).fold(is_lost, |is_lost, _| damaged.count(NodeId(2), Index(from)) || is_lost);
        }
        is_lost
    }

    #[test]
    fn only_what_fails_for_a_second_without_a_success_between_is_lost() {
        let mut damaged = Damaged::default();
        assert!(!fails(&mut damaged, 7, 95));
        damaged.was_read(NodeId(2));
        assert!(!fails(&mut damaged, 7, 95), "it was read between");
        assert!(!fails(&mut damaged, 8, 95), "another entry");
        assert!(fails(&mut damaged, 8, 1));
        damaged.rest_ticks = 10;
        assert!(!fails(&mut damaged, 8, 9), "it rests");
        assert!(fails(&mut damaged, 8, 1));
    }
}
