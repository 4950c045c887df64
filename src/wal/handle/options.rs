//! What is chosen when a log is opened, and what opening found.

use std::path::PathBuf;

use super::error::Error;
use crate::disk::{IoChoice, Probed, SyncMode};
use crate::limits::{
    BLOCK_BYTES, CORE_QUEUE_BYTES_MAX, FRAME_CACHE_BYTES_DEFAULT, SEGMENT_BYTES_DEFAULT, SEGMENT_BYTES_MAX,
    SEGMENT_BYTES_MIN, WRITES_IN_FLIGHT_MAX,
};
use crate::wal::{Finding, GroupLog, Identity};

/// How to open a log. [`Options::new`] gives what is right for most.
#[derive(Clone, Debug)]
pub struct Options {
    /// The log's directory; its parent exists.
    pub directory: PathBuf,
    /// Make the log if there is none. A log that is damaged is never made anew.
    pub create: bool,
    pub io: IoChoice,
    /// The size of segments made from now on: a multiple of 4096 from 64 KiB to 1 GiB.
    pub segment_bytes: u64,
    /// How writes are flushed; none = as measured when the log was made.
    pub sync_mode: Option<SyncMode>,
    /// Small writes on their way to the disk at once, 1 to 8; none = as measured when the log was made. Large ones go up to
    /// three at a time in any case.
    pub writes_in_flight: Option<usize>,
    /// Record bytes that may wait for a write. One append may go beyond it if nothing else waits; truncates and purges
    /// may by 64 KiB.
    pub queue_bytes_max: usize,
    pub when_full: WhenFull,
    /// What was written last stays in memory for readers, in bytes of write buffers: 0 for none. What a read holds while
    /// it runs comes on top, at most 16 MiB.
    pub tail_cache_bytes: usize,
    /// Read the whole log before it is opened, and refuse it if anything that counts is damaged. Otherwise the last two
    /// segments are read, and of each older one what it takes to know what is in it, about 20 KiB. Damage to an older segment is then met by whoever reads there, as an error with file, offset and
    /// log ids, never as other data than was written; [`super::Wal::verify`], [`super::Wal::scrub`] and `trilith wal verify`
    /// look for it. Older segments that were not read are read without a memory map.
    pub verify_at_start: bool,
}

/// What an append does that finds the queue full, or no segment that could take it ready yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum WhenFull {
    /// Waits for room.
    #[default]
    Block,
    /// Is refused with [`super::Refused::Busy`].
    Busy,
}

/// What opening a log found.
#[derive(Clone, Debug)]
pub struct Recovery {
    /// The log was made just now.
    pub created: bool,
    pub identity: Identity,
    /// How often the log was opened.
    pub boot: u64,
    pub io: Probed,
    pub sync_mode: SyncMode,
    pub writes_in_flight: usize,
    pub segments: usize,
    /// What each group holds.
    pub groups: Vec<GroupLog>,
    /// Notes, and the end that was being written when the power went.
    pub findings: Vec<Finding>,
    /// So many more there are, which are counted alone.
    pub findings_more: u64,
}

impl Options {
    /// The log in `directory`, made if there is none.
    pub fn new(directory: impl Into<PathBuf>) -> Options {
        Options {
            directory: directory.into(),
            create: true,
            io: IoChoice::Auto,
            segment_bytes: SEGMENT_BYTES_DEFAULT,
            sync_mode: None,
            writes_in_flight: None,
            queue_bytes_max: CORE_QUEUE_BYTES_MAX,
            when_full: WhenFull::Block,
            tail_cache_bytes: FRAME_CACHE_BYTES_DEFAULT,
            verify_at_start: false,
        }
    }

    pub(super) fn check(&self) -> Result<(), Error> {
        let refuse = |what: String| Err(Error::Options { what });
        let sizes = SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX;
        if !sizes.contains(&self.segment_bytes) || !self.segment_bytes.is_multiple_of(BLOCK_BYTES as u64) {
            let (low, high) = (SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX);
            let found = self.segment_bytes;
            return refuse(format!("segment_bytes is {found}, not a multiple of {BLOCK_BYTES} from {low} to {high}"));
        }
        if let Some(found) = self.writes_in_flight.filter(|found| !(1..=WRITES_IN_FLIGHT_MAX).contains(found)) {
            return refuse(format!("writes_in_flight is {found}, not 1 to {WRITES_IN_FLIGHT_MAX}"));
        }
        if self.queue_bytes_max == 0 {
            return refuse("queue_bytes_max is 0: nothing could ever be appended".to_owned());
        }
        Ok(())
    }
}
