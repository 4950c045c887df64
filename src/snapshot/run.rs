//! The thread around a [`Builder`]: runs it to its end, no faster than it may.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::builder::{Builder, Step};
use super::error::Error;
use super::manifest::Description;
use crate::disk::Files;

/// How often somebody who waits looks up.
const PAUSE: Duration = Duration::from_millis(10);
/// Between two looks at the room that is left.
const LOOK_BYTES: u64 = 16 << 20;

/// What the rest of the node says to the thread that writes.
#[derive(Debug)]
pub struct Control {
    /// The node's own log holds the point durably.
    pub point_is_durable: AtomicBool,
    /// Nobody wants it any more.
    pub stop: AtomicBool,
    /// There is no room for another segment of the log. What is left is of no use to the log, and a snapshot may be what lets
    /// a part of it go.
    pub log_is_full: AtomicBool,
    /// Bytes of the state that are written.
    pub written_bytes: AtomicU64,
    /// Writes are spread so that a second has no more than this, and so is the reading back.
    bytes_per_second: u64,
    /// Room that is left free for the log.
    kept_free_bytes: u64,
}

/// How it ended.
#[derive(Debug)]
pub enum Ended {
    /// It is durable, under its name.
    Done(Description),
    /// It was stopped, and nothing is left of it.
    Stopped,
}

impl Control {
    /// Panics if nothing may be written.
    pub fn new(bytes_per_second: u64) -> Control {
        assert!(bytes_per_second > 0, "a snapshot would never end");
        Control {
            point_is_durable: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            log_is_full: AtomicBool::new(false),
            written_bytes: AtomicU64::new(0),
            bytes_per_second,
            kept_free_bytes: 0,
        }
    }

    /// The same, and it fails where it would leave less room than this, unless the log is full.
    pub fn keeping_free(self, kept_free_bytes: u64) -> Control {
        Control { kept_free_bytes, ..self }
    }
}

/// Makes a snapshot on this thread; the state is dropped here, too. What was made before an error is removed.
///
/// # Errors
/// The first one; that the rest could not be removed is not told, since the next start does it.
pub fn run(files: &impl Files, mut builder: Builder, control: &Control) -> Result<Ended, Error> {
    let description = builder.description().clone();
    let began = Instant::now();
    control.written_bytes.store(0, Ordering::Relaxed);
    let (mut looked_at_bytes, mut moved_bytes) = (None, 0);
    loop {
        // What others take meanwhile shows at the next look.
        if looked_at_bytes.is_none_or(|looked| builder.bytes() >= looked + LOOK_BYTES) {
            looked_at_bytes = Some(builder.bytes());
            if let Err(error) = check_room(files, control) {
                return abandoned(files, builder, error);
            }
        }
        if control.stop.load(Ordering::Acquire) {
            builder.abandon(files)?;
            return Ok(Ended::Stopped);
        }
        match builder.step(files, control.point_is_durable.load(Ordering::Acquire)) {
            Ok(Step::Wrote { bytes } | Step::Read { bytes }) => {
                control.written_bytes.store(builder.bytes(), Ordering::Relaxed);
                moved_bytes += bytes as u64;
                wait(began, moved_bytes, control);
            }
            Ok(Step::Went) => {}
            Ok(Step::Waits) => thread::sleep(PAUSE),
            Ok(Step::Done) => return Ok(Ended::Done(description)),
            Err(error) => return abandoned(files, builder, error),
        }
    }
}

/// The next start removes what is left, if it cannot be removed now.
fn abandoned(files: &impl Files, builder: Builder, error: Error) -> Result<Ended, Error> {
    match builder.abandon(files) {
        Ok(()) | Err(_) => Err(error),
    }
}

fn check_room(files: &impl Files, control: &Control) -> Result<(), Error> {
    let needed_bytes = control.kept_free_bytes + LOOK_BYTES;
    let is_kept = control.kept_free_bytes > 0 && !control.log_is_full.load(Ordering::Acquire);
    let free_bytes = if is_kept { files.free_bytes()? } else { u64::MAX };
    if free_bytes < needed_bytes { Err(Error::NoRoom { needed_bytes, free_bytes }) } else { Ok(()) }
}

/// Until so many bytes may have been written, or read back, since.
fn wait(began: Instant, bytes: u64, control: &Control) {
    let due = Duration::from_secs_f64(bytes as f64 / control.bytes_per_second as f64);
    while began.elapsed() < due && !control.stop.load(Ordering::Acquire) {
        thread::sleep(PAUSE.min(due.saturating_sub(began.elapsed())));
    }
}
