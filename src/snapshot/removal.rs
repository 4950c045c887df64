//! What goes, and in which order.
//!
//! A snapshot loses its name first, durably; what has an ending is never taken for one. So its files may go in any order,
//! and a cut of power in the midst leaves a directory that the next start removes.

use std::ops::RangeInclusive;

use super::error::{Damage, Error};
use super::listing::{Condition, Found, Listing, list};
use super::naming::{Name, Stage};
use crate::disk::Files;
use crate::limits::SNAPSHOTS_KEPT;
use crate::mutant::{self, Mutant};
use crate::types::{ClusterId, GroupId, Index, LogId};

/// From which snapshots their node could begin, as far as the directory does not show it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reach {
    /// From the entry before the log's first one to its last durable one. What was fetched and not begun from may lie
    /// beyond, and what an installation has left behind lies before.
    pub log: RangeInclusive<Index>,
    /// Points of those that cannot be used for another reason: they did not read back, or the log has another entry there.
    pub unusable: Vec<LogId>,
    /// Points of those that other nodes may be fetching: they stay, and count as ever.
    pub offered: Vec<LogId>,
}

impl Reach {
    fn holds(&self, point: LogId) -> bool {
        let is_held = self.log.contains(&point.index) && !self.unusable.contains(&point);
        is_held || mutant::is_on(Mutant::SnapshotBeyondLogCounted)
    }
}

/// Makes durable what a listing will show: to be called once at start, before it. What a dead process renamed and did not
/// flush would be seen now and be gone after a cut of power.
pub fn settle(files: &impl Files) -> Result<(), Error> {
    Ok(files.sync_directory("")?)
}

/// The names of a group that are not needed any more, in the order in which to remove them: what was not finished, and
/// what is older than the newest [`SNAPSHOTS_KEPT`] whole ones, damaged or not. Never one at or above `in_use`, the point
/// that the superblock names, and never what cannot be judged: another cluster's, a newer program's, an unreadable one. Of
/// what was being received, that stays which is newer than all whole ones.
///
/// Not to be removed while a snapshot is made: the one under way counts as unfinished.
pub fn superfluous(listing: &Listing, group: GroupId, in_use: LogId) -> Vec<String> {
    let newest = listing.whole(group).next_back().map(|manifest| manifest.description.point);
    let oldest_kept = listing.whole(group).rev().nth(SNAPSHOTS_KEPT - 1).map(|manifest| manifest.description.point);
    let of_group = listing.found.iter().filter(|found| found.group == group);
    let goes = of_group.filter(|found| match &found.condition {
        Condition::Unfinished(Stage::Receiving) => newest.is_some_and(|newest| found.point <= newest),
        Condition::Unfinished(_) => true,
        Condition::Whole(_) | Condition::Damaged(_) => {
            oldest_kept.is_some_and(|kept| found.point < kept) && (in_use == LogId::ZERO || found.point < in_use)
        }
        Condition::Foreign { .. } | Condition::Newer { .. } | Condition::Unreadable(_) => false,
    });
    let (mut unfinished, finished): (Vec<_>, Vec<_>) =
        goes.partition(|found| matches!(found.condition, Condition::Unfinished(_)));
    unfinished.extend(finished);
    unfinished.into_iter().map(|found| found.name.clone()).collect()
}

/// Removes what is superfluous, and tells how much that was. What is not in reach does not count as whole; what lies before
/// the log goes as soon as there is another one in reach.
///
/// # Errors
/// The first one; what is left is removed another time.
pub fn remove_superfluous(
    files: &impl Files,
    cluster: ClusterId,
    group: GroupId,
    in_use: LogId,
    reach: &Reach,
) -> Result<usize, Error> {
    let mut listing = list(files, Some(cluster))?;
    for found in listing.found.iter_mut().filter(|found| found.group == group && !reach.holds(found.point)) {
        if found.manifest().is_some() {
            // Which chunk it is makes no difference here.
            found.condition = Condition::Damaged(Damage::Chunk { number: 0 });
        }
    }
    let mut names = superfluous(&listing, group, in_use);
    let is_one_in_reach = listing.whole(group).next().is_some();
    let is_before_log = |found: &&Found| {
        let is_finished = matches!(found.condition, Condition::Whole(_) | Condition::Damaged(_));
        let is_needed = found.group != group || in_use != LogId::ZERO && found.point >= in_use;
        is_one_in_reach && is_finished && !is_needed && found.point.index < *reach.log.start()
    };
    for found in listing.found.iter().filter(is_before_log) {
        if !names.contains(&found.name) {
            names.push(found.name.clone());
        }
    }
    let is_offered = |found: &&Found| found.group == group && reach.offered.contains(&found.point);
    for found in listing.found.iter().filter(is_offered) {
        names.retain(|name| *name != found.name);
    }
    names.iter().try_for_each(|name| remove(files, name))?;
    Ok(names.len())
}

/// Removes a snapshot's directory, whole or not, durably. Panics if the name is none that we give.
pub fn remove(files: &impl Files, name: &str) -> Result<(), Error> {
    let name = Name::parse(name).unwrap_or_else(|| panic!("{name} is no snapshot"));
    match name.stage {
        Stage::Whole => put_away(files, name),
        _ => clear(files, name),
    }
}

/// Takes the name away first.
pub(super) fn put_away(files: &impl Files, whole: Name) -> Result<(), Error> {
    let removing = whole.with(Stage::Removing);
    clear(files, removing)?;
    files.rename(&whole.to_string(), &removing.to_string())?;
    if !mutant::is_on(Mutant::NoDirectoryFsync) {
        files.sync_directory("")?;
    }
    clear(files, removing)
}

/// Removes a directory with an ending, if there is one, with all that is in it.
pub(super) fn clear(files: &impl Files, name: Name) -> Result<(), Error> {
    assert!(name.stage != Stage::Whole, "a whole one loses its name first");
    let directory = name.to_string();
    if !files.list("")?.contains(&directory) {
        return Ok(());
    }
    for file in files.list(&directory)? {
        files.remove(&name.file(&file))?;
    }
    // Else their room might come back only with a later flush.
    files.sync_directory(&directory)?;
    files.remove(&directory)?;
    Ok(files.sync_directory("")?)
}
