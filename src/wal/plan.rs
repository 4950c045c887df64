//! What a read will look at. Made on the core, while the log waits: so it is bounded, in parts and in frames.

use std::sync::Arc;

use super::error::Error;
use super::group::GroupLog;
use super::locator::{PARTS_MAX, Part};
use super::log::Log;
use super::tail_cache::{Budget, CachedFrame};
use crate::types::{GroupId, Index};

/// Where to look for some entries. It goes stale when segments are retired: then [`ReadPlan::run`] says so,
/// [`Log::judged`] confirms it, and a new plan tells why.
#[derive(Clone, Debug)]
pub struct ReadPlan {
    pub(super) directory: String,
    pub(super) group: GroupId,
    pub(super) from: Index,
    pub(super) to: Index,
    pub(super) bytes_max: usize,
    /// The group's first entry, if `from` lies before it.
    pub(super) trimmed: Option<Index>,
    pub(super) parts: Vec<PlannedPart>,
    /// It is known that the first wanted entry is durable, and not where.
    pub(super) is_lost: bool,
    is_cut: bool,
}

/// A piece of one segment, first on disk and then in memory.
#[derive(Clone, Debug)]
pub(super) struct PlannedPart {
    pub part: Part,
    /// Where what is read from the file ends.
    pub disk_end: u64,
    /// The frames with wanted entries from there on.
    pub cached: Vec<Arc<CachedFrame>>,
}

impl ReadPlan {
    /// Whether there may be more of what was asked for behind what this plan reaches: another plan reads on there.
    pub fn is_cut(&self) -> bool {
        self.is_cut
    }
}

impl Log {
    /// How to read the durable entries `from..to` of a group, as far as `bytes_max` goes and at least one. The plan is
    /// run anywhere, by [`ReadPlan::run`], which also says if `from` is purged. A long range takes several plans.
    pub fn plan_read(&self, group: GroupId, from: Index, to: Index, bytes_max: usize) -> ReadPlan {
        let trimmed = self.groups.get(&group).map(GroupLog::first).filter(|&first| from < first && from < to);
        let parts = if trimmed.is_some() { Vec::new() } else { self.locator.parts(group, from, to) };
        let is_lost = parts.is_empty() && trimmed.is_none() && from < to && self.is_known_durable(group, from);
        let mut is_cut = parts.len() == PARTS_MAX;
        let mut planned = Vec::with_capacity(parts.len());
        let mut budget = Budget::default();
        for part in parts {
            // The first part, which has the first wanted entry, always finds some left: each plan goes on.
            if budget.is_spent() {
                is_cut = true;
                break;
            }
            let end = part.end;
            let part = self.planned(part, (group, from), &mut budget);
            let reaches = part.part.end == end;
            planned.push(part);
            if !reaches {
                is_cut = true;
                break;
            }
        }
        let directory = self.options.directory.clone();
        ReadPlan { directory, group, from, to, bytes_max, trimmed, parts: planned, is_lost, is_cut }
    }

    /// What the run of a plan said, judged by the log as it is now. Only the log knows whether it gave a segment up: one
    /// that is in it still, whatever its file looks like, is damaged or cannot be read. A number is given to one segment
    /// only, as long as a log is open.
    ///
    /// What it leaves of [`Error::Stale`] is true, and ends: segments are given up by a purge or for a copy, and the next
    /// plan knows either.
    ///
    /// # Errors
    /// What `said` says, or what it would have said of a segment that it took for another one.
    pub fn judged<T>(&self, said: Result<T, Error>) -> Result<T, Error> {
        match said {
            Err(Error::Stale { segment, cause, .. }) if self.has_segment(segment) => Err(*cause),
            said => said,
        }
    }

    /// Whether those who follow the log, if anybody may, are told that this entry is durable.
    fn is_known_durable(&self, group: GroupId, index: Index) -> bool {
        let durable = self.locator.followed.as_ref().and_then(|followed| followed.durable().get(&group));
        durable.is_some_and(|&last| index <= last)
    }

    fn planned(&self, mut part: Part, (group, from): (GroupId, Index), budget: &mut Budget) -> PlannedPart {
        let Some(cached) = self.tail.cached(&part, (group, from), budget) else {
            return PlannedPart { disk_end: part.end, part, cached: Vec::new() };
        };
        part.end = cached.end;
        // The place of the locator lies before what is wanted; where that is in memory, so is all behind it.
        if cached.frames[0].holds(group, from..from.next()) {
            part.start = cached.start;
        }
        PlannedPart { disk_end: cached.start, part, cached: cached.frames }
    }
}
