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

use super::log::{Effect, Log};
use super::segment::segment_name;
use crate::disk::{self, FileId, Files};
use crate::limits::{SEGMENTS_GIVEN_UP, SEGMENTS_READY, SEGMENTS_SPARE};
use crate::types::SegmentNumber;

/// A segment that nobody needs, to be removed off the core by [`remove`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Remove {
    pub directory: String,
    pub number: SegmentNumber,
    pub file: FileId,
}

/// Removes a segment's file, durably: its room is free then.
///
/// # Errors
/// The first one. The file is closed all the same: what is left of it is found by the next start, and given back then.
pub fn remove<F: Files>(files: &F, order: &Remove) -> Result<(), disk::Error> {
    let removed = files.remove(&segment_name(&order.directory, order.number));
    files.close(order.file);
    removed.and_then(|()| files.sync_directory(&order.directory))
}

impl Log {
    /// Orders the removal of the oldest segment beyond those that are kept for use again, if none is under way.
    pub(super) fn give_back(&mut self) {
        // Those that were overtaken by one that was hurried are kept, too.
        let overtaken = self.late.len() + self.ready.len().saturating_sub(SEGMENTS_READY + SEGMENTS_SPARE);
        let is_one_too_many = self.recyclable.len() + overtaken > SEGMENTS_GIVEN_UP;
        if !is_one_too_many || self.removing.is_some() || self.keeps_all {
            return;
        }
        let Some((number, file)) = self.recyclable.pop_first() else { return };
        self.removing = Some(number);
        let directory = self.options.directory.clone();
        self.effects.push_back(Effect::Remove(Remove { directory, number, file }));
    }

    /// What became of a removal. After an error no other one is tried before more segments are given up: mostly it would be
    /// the same error.
    pub fn removed(&mut self, number: SegmentNumber, result: &Result<(), disk::Error>) {
        assert!(self.removing.take() == Some(number), "one removal at a time is ordered");
        self.keeps_all = result.is_err();
        self.counters.removed_segments += u64::from(result.is_ok());
    }
}
