//! Segments that are given up: some are kept for use again, the others' room goes back to the disk.
//!
//! ```text
//!   purge, or proof of a copy ──▶ retire ──▶ recyclable ──▶ Prepare: zeroed again, under a new number
//!                                                 │ more than are kept
//!                                                 ▼
//!                                               Remove: one at a time, the oldest first
//! ```
//!
//! To remove a file takes a commit of the file system's journal. It is done where segments are made, never where they are
//! written. What a crash brings back is a segment that no group needs, as it was before: the next start gives it back again.
//! Each is gone durably before the next one goes, so that no more than one can come back; but for one that could not be
//! removed, or waits for that while a younger one is used again in haste: it is a file that is passed over.
//!
//! What stood ready in another life, and is not taken as it is, is zeroed again before those; none of it is kept when enough
//! stand ready, since each start would read all of it.
//!
//! A removal that fails is tried again, ever more seldom: nothing that is needed is at stake, as it would be with a flush. The
//! others go first, so that one file that cannot go keeps no other; and few are waiting for another try, since the others
//! can still be used again.

use std::collections::VecDeque;
use std::io::ErrorKind;

use super::log::{Effect, Log};
use super::segment::segment_name;
use crate::disk::{self, FileId, Files};
use crate::limits::{SEGMENTS_GIVEN_UP, SEGMENTS_READY, SEGMENTS_SPARE, SEGMENTS_UNREMOVED_MAX};
use crate::types::SegmentNumber;

/// A segment that nobody needs, to be removed off the core by [`remove`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Remove {
    pub directory: String,
    pub number: SegmentNumber,
    /// None if it was tried before: it was closed then.
    pub file: Option<FileId>,
}

/// Ticks between a removal that failed and the next: a second, and twice as many after each further one, to a minute or so.
const PAUSE_TICKS_MIN: u32 = 100;
const PAUSE_TICKS_MAX: u32 = 6_400;

/// What is removed, and what could not be.
#[derive(Debug, Default)]
pub(super) struct Removals {
    under_way: Option<SegmentNumber>,
    /// Nobody has them open. The one that was tried last is the last.
    failed: VecDeque<SegmentNumber>,
    /// Until the next try, and how long the last wait was at first.
    remaining_ticks: u32,
    last_ticks: u32,
}

impl Removals {
    pub fn tick(&mut self) {
        self.remaining_ticks = self.remaining_ticks.saturating_sub(1);
    }

    /// Something has changed: another try may have more luck.
    pub fn end_pause(&mut self) {
        self.remaining_ticks = 0;
    }

    fn is_free(&self) -> bool {
        self.under_way.is_none() && self.remaining_ticks == 0
    }
}

/// Removes a segment's file, durably: its room is free then.
///
/// # Errors
/// The first one. The file is closed all the same, and its removal is ordered again after a while ([`Log::removed`]); what is
/// left of it when the process ends is given back by the next start.
pub fn remove<F: Files>(files: &F, order: &Remove) -> Result<(), disk::Error> {
    let removed = files.remove(&segment_name(&order.directory, order.number));
    order.file.into_iter().for_each(|file| files.close(file));
    let is_gone = |error: &disk::Error| order.file.is_none() && error.kind() == ErrorKind::NotFound;
    match removed {
        // Its name went the last time, and that could not be made durable.
        Err(error) if is_gone(&error) => {}
        removed => removed?,
    }
    files.sync_directory(&order.directory)
}

impl Log {
    /// Orders the removal of what each start would read whole, then of the oldest segment beyond those that are kept for use
    /// again, or of one that could not be removed, if none is under way.
    pub(super) fn give_back(&mut self) {
        if !self.removals.is_free() {
            return;
        }
        let surplus = if self.removals.failed.len() < SEGMENTS_UNREMOVED_MAX { self.take_surplus() } else { None };
        let retried = || self.removals.failed.pop_front().map(|number| (number, None));
        let Some((number, file)) = surplus.map(|(number, file)| (number, Some(file))).or_else(retried) else { return };
        self.removals.under_way = Some(number);
        let directory = self.options.directory.clone();
        self.effects.push_back(Effect::Remove(Remove { directory, number, file }));
    }

    fn take_surplus(&mut self) -> Option<(SegmentNumber, FileId)> {
        let stand_ready = self.ready.len() >= SEGMENTS_READY + SEGMENTS_SPARE;
        let unopened = if stand_ready { self.unopened.pop_first() } else { None };
        unopened.or_else(|| self.take_one_too_many())
    }

    fn take_one_too_many(&mut self) -> Option<(SegmentNumber, FileId)> {
        // Those that were overtaken by one that was hurried are kept, too.
        let overtaken = self.late.len() + self.ready.len().saturating_sub(SEGMENTS_READY + SEGMENTS_SPARE);
        let is_one_too_many = self.recyclable.len() + overtaken > SEGMENTS_GIVEN_UP;
        if is_one_too_many { self.recyclable.pop_first() } else { None }
    }

    /// What became of a removal. After an error no other one is tried before a while has passed or more segments are given up:
    /// mostly it would be the same error.
    pub fn removed(&mut self, number: SegmentNumber, result: &Result<(), disk::Error>) {
        let removals = &mut self.removals;
        assert!(removals.under_way.take() == Some(number), "one removal at a time is ordered");
        if result.is_ok() {
            (removals.remaining_ticks, removals.last_ticks) = (0, 0);
            self.counters.removed_segments += 1;
        } else {
            removals.failed.push_back(number);
            removals.last_ticks = (2 * removals.last_ticks).clamp(PAUSE_TICKS_MIN, PAUSE_TICKS_MAX);
            removals.remaining_ticks = removals.last_ticks;
            self.counters.removals_failed += 1;
        }
        self.counters.unremoved_segments = removals.failed.len() as u64;
    }
}
