//! What may go by a rule in bytes or in time. Nothing goes by that alone: who keeps the log purges it.

use super::log::Log;
use crate::types::{GroupId, Index, LogId};

/// What a rule keeps: what lies beyond one of its bounds may go. Only whole segments do, so that more is kept than it says,
/// never less.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Kept {
    /// At least so many of the newest bytes.
    pub bytes: Option<u64>,
    /// What was written since, by the wall clock of whoever wrote it, in milliseconds since 1970.
    pub since_milliseconds: Option<u64>,
}

impl Log {
    /// The first index of a group that the rule keeps; that of the log if all is kept.
    ///
    /// A segment was written before the next one was begun, and after all before it: while the clock is set back nothing
    /// that is written is older than what was written before.
    pub fn kept_from(&self, group: GroupId, kept: Kept) -> Index {
        let first = self.groups.get(&group).map_or(Index::FIRST, |known| known.first());
        let segments: Vec<_> = self.locator.segments().collect();
        let mut latest = 0;
        let mut written: Vec<u64> = Vec::with_capacity(segments.len());
        for segment in &segments {
            latest = segment.opened_milliseconds.max(latest);
            written.push(latest);
        }
        let mut newer_bytes = 0;
        let mut goes = 0;
        for at in (1..segments.len()).rev() {
            newer_bytes += segments[at].end;
            let is_beyond = kept.bytes.is_some_and(|bytes| newer_bytes >= bytes);
            let is_before = kept.since_milliseconds.is_some_and(|since| written[at] < since);
            if is_beyond || is_before {
                goes = at;
                break;
            }
        }
        let highest = segments[..goes].iter().filter_map(|segment| segment.highest.get(&group)).max();
        // What was cut off since may have been higher, and what came in its place lies in a newer segment.
        let newest = segments[..goes].last().map(|segment| segment.header.number);
        let cut = newest.and_then(|number| self.locator.cuts_behind(number).get(&group).copied());
        let gone = highest.map_or(first, |highest| highest.next()).min(cut.unwrap_or(Index(u64::MAX)));
        let last = self.groups.get(&group).map_or(Index::ZERO, |known| known.last.index);
        gone.min(last.next()).max(first)
    }

    /// How far to purge if all up to `last` may go: as far as that sets segments free of what this group has in them, if
    /// it does.
    pub fn sets_free_until(&self, group: GroupId, last: Index) -> Option<LogId> {
        let known = self.groups.get(&group)?;
        let ended = self.locator.segments().filter(|segment| segment.header.number != self.active.number);
        let goes = ended.take_while(|segment| !self.locator.may_hold(segment, group, last.next()));
        let highest = goes.filter_map(|segment| segment.highest.get(&group)).max()?;
        // What was cut off since may have been higher.
        let last = last.min(*highest);
        known.id_at(last).filter(|last| *last > known.before_first)
    }
}
