//! What of the log goes for good, and when (design §8).
//!
//! ```text
//!   trimmed ─┐
//!   older kept snapshot ─┤
//!   what followers lack, within their tail ─┤
//!   what was offered, while it is fetched ─┼─▶ the lowest ─▶ whole segments ─▶ purge ──durable──▶ Compacted
//!   applied, durable ─┘
//! ```
//!
//! # Invariants
//!
//! - A snapshot lets no record go: only a trim moves what may be read, and nothing goes that may be.
//! - The node can begin from the older of the two snapshots that are kept, and the log behind it. With one of them alone
//!   nothing goes: if that rotted there would be nothing to begin from.
//! - Both were read back, and the log reaches both: another node's that lies beyond its end does not count, nor does what an
//!   installation has left behind before its start.
//! - The superblock need not know. It says where the log begins at least, and names a snapshot at or above the older one;
//!   so a start before and after each step finds a snapshot whose point its log has, or is the one before its first entry.
//!   Between an installation and its state's taking over it names one before the log's start: a start passes that over.
//! - Nobody else keeps anything: who reads or tails what goes is told `Trimmed`, and a follower is offered the snapshot.

use super::{Driver, Stopped};
use crate::disk;
use crate::machine::StateMachine;
use crate::mutant::{self, Mutant};
use crate::raft::Input as RaftInput;
use crate::types::{GroupId, Index, LogId, NodeId};
use crate::wal::{Kept, Ticket};

/// Between two looks at what may go: a second.
const LOOK_TICKS: u32 = 100;

/// What is kept of the log for followers that lag, though nobody else needs it: what lies beyond one of the bounds goes.
/// By its own log and clock; a node that does not lead knows of nobody's progress, and keeps as much.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FollowerTail {
    /// The newest of it, of whole segments.
    pub bytes: u64,
    /// What was written so long ago at most, by the wall clock as far as it is believed.
    pub milliseconds: u64,
}

#[derive(Debug, Default)]
pub(super) struct Purging {
    /// Since the last look.
    ticks: u32,
    /// The entry before the log's first one as soon as the ticket is durable.
    under_way: Option<(LogId, Ticket)>,
}

impl<M: StateMachine> Driver<M> {
    /// A tick has passed. Now and then what nobody needs goes, if that sets segments free.
    pub(super) fn purge_if_useful(&mut self) {
        let Some(tail) = self.options.follower_tail else { return };
        self.offers.tick(tail.milliseconds);
        self.purging.ticks += 1;
        if self.purging.ticks < LOOK_TICKS || self.purging.under_way.is_some() {
            return;
        }
        self.purging.ticks = 0;
        let needed_by_nobody = self.needed_here_from().previous();
        if needed_by_nobody < self.replica.first_index() {
            return;
        }
        let since_milliseconds = self.wall_clock.older_than(tail.milliseconds);
        let kept = Kept { bytes: Some(tail.bytes), since_milliseconds };
        let beyond_tail = self.pipeline.log.kept_from(GroupId::CLUSTER, kept).previous();
        let held_by_all = self.replica.held_by_all().unwrap_or(Index::ZERO);
        let last = needed_by_nobody.min(beyond_tail.max(held_by_all));
        let last = self.offers.needed_behind().map_or(last, |needed_behind| last.min(needed_behind));
        let Some(last) = self.pipeline.log.sets_free_until(GroupId::CLUSTER, last) else { return };
        assert_eq!(self.replica.term_at(last.index), Some(last.term), "what goes is committed");
        match self.pipeline.log.purge_prefix(GroupId::CLUSTER, last) {
            Ok(ticket) => self.purging.under_way = Some((last, ticket)),
            Err(refused) => self.stop_on(Err(Stopped::Log(refused))),
        }
    }

    /// A member fetches this snapshot, perhaps one that an earlier leader offered: that is what stays for it from here on.
    pub(super) fn on_snapshot_asked(&mut self, node: NodeId, point: LogId) {
        if self.replica.term_at(point.index) == Some(point.term) {
            self.offers.asked(node, point);
        }
    }

    /// The first index that this node itself may still need, or serve.
    fn needed_here_from(&self) -> Index {
        let Some(older) = self.snapshots.oldest_kept() else { return Index::FIRST };
        let held = self.applied.index.min(self.replica.status().durable.index).min(older.index);
        if mutant::is_on(Mutant::PurgedThoughReadable) { held.next() } else { held.next().min(self.readable_from()) }
    }

    /// Whether the disk has no room for another segment of the log.
    pub fn is_log_full(&self) -> bool {
        self.pipeline.log.preparation_error().is_some_and(disk::Error::is_no_space)
    }

    /// Whether something of the log is on its way out.
    pub fn is_purging(&self) -> bool {
        self.purging.under_way.is_some()
    }

    /// What was purged is gone for good now.
    pub(super) fn end_purge(&mut self) {
        let durable = self.pipeline.log.durable_ticket();
        if let Some((before_first, _)) = self.purging.under_way.take_if(|(_, ticket)| *ticket <= durable) {
            self.replica.handle(RaftInput::Compacted { before_first });
        }
    }
}
