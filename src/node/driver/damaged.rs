//! A leader whose log cannot be read where a follower needs it hands leadership over: what is damaged here may be intact
//! there, and the follower waits for it.

use std::collections::BTreeMap;

use super::Driver;
use crate::machine::StateMachine;
use crate::types::{Index, NodeId};
use crate::wal;

/// So often in a row, once in a heartbeat, the same entry cannot be read: a second by default.
const READS_MAX: u32 = 20;
/// Ten minutes. Where all logs are damaged there leadership is not passed round for nothing.
const REST_TICKS: u32 = 60_000;

#[derive(Debug, Default)]
pub(super) struct Damaged {
    /// By follower: from where it was read for it, and how often in vain since it was read.
    reads: BTreeMap<NodeId, (Index, u32)>,
    /// Until leadership may be handed over for this again.
    rest_ticks: u32,
}

impl Damaged {
    pub fn tick(&mut self) {
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
        let reads = self.reads.entry(follower).or_insert((from, 0));
        if reads.0 != from {
            *reads = (from, 0);
        }
        reads.1 = reads.1.saturating_add(1);
        reads.1 >= READS_MAX && self.rest_ticks == 0
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
