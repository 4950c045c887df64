//! Reads what is to be copied forward, off the log's thread, at a bounded rate.
//!
//! ```text
//!   core ── a plan ──▶ copier ──▶ reads it, slowly ──▶ locks the log: copy_read, the next plan ──▶ ... ──▶ wakes the core
//! ```
//!
//! Nobody waits for it. It holds no lock while it reads, and at most a few frames' worth of entries.

use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::Shared;
use super::pace::{Bucket, Paced};
use crate::wal::{Finding, ReadBuffer, ReadPlan};

/// What is read for copies leaves most of a disk to others. Whole segments are read where a
/// group lies thin in them: a copy of a few records may take as long as all old segments together.
const BYTES_PER_SECOND: u64 = 64 << 20;

/// Reads from `plan` on until there is nothing more to read, or the log stops.
pub(super) fn copy(shared: &Shared, mut plan: ReadPlan, stopping: &AtomicBool) {
    let (begun, bucket) = (Instant::now(), RefCell::new(Bucket::new(BYTES_PER_SECOND, Duration::ZERO)));
    let pace = |bytes| {
        std::thread::sleep(bucket.borrow_mut().take(bytes, begun.elapsed()));
        !stopping.load(Ordering::Relaxed)
    };
    let files = Paced { files: &shared.directory, pace: &pace };
    let mut buffer = ReadBuffer::default();
    // Ends: each plan gives an entry of the copy, or ends it; and a copy is chosen once for each segment that is opened.
    loop {
        let said = plan.run_with(&files, &mut buffer);
        if stopping.load(Ordering::Relaxed) {
            return;
        }
        let mut log = shared.log();
        let found = log.copy_read(said);
        let next = log.take_copy();
        drop(log);
        if let Some(found) = found {
            tell(&found);
        }
        match next {
            Some(next) => plan = next,
            None => break,
        }
    }
    // The core writes it.
    shared.inbox.wake();
}

pub(super) fn tell(finding: &Finding) {
    tracing::error!("what keeps the oldest segments in use cannot be copied forward: {finding}");
}
