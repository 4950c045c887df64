//! The thread around a [`Builder`]: runs it to its end, no faster than it may.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::builder::{Builder, Step};
use super::error::Error;
use super::manifest::Description;
use crate::disk::Files;

/// How often somebody who waits looks up.
const PAUSE: Duration = Duration::from_millis(10);

/// What the rest of the node says to the thread that writes.
#[derive(Debug)]
pub struct Control {
    /// The node's own log holds the point durably.
    pub point_is_durable: AtomicBool,
    /// Nobody wants it any more.
    pub stop: AtomicBool,
    /// Writes are spread so that a second has no more than this.
    bytes_per_second: u64,
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
        Control { point_is_durable: AtomicBool::new(false), stop: AtomicBool::new(false), bytes_per_second }
    }
}

/// Makes a snapshot on this thread; the state is dropped here, too. What was made before an error is removed.
///
/// # Errors
/// The first one; that the rest could not be removed is not told, since the next start does it.
pub fn run(files: &impl Files, mut builder: Builder, control: &Control) -> Result<Ended, Error> {
    let description = builder.description().clone();
    let began = Instant::now();
    loop {
        if control.stop.load(Ordering::Acquire) {
            builder.abandon(files)?;
            return Ok(Ended::Stopped);
        }
        match builder.step(files, control.point_is_durable.load(Ordering::Acquire)) {
            Ok(Step::Wrote { .. }) => wait(began, builder.bytes(), control),
            Ok(Step::Went) => {}
            Ok(Step::Waits) => thread::sleep(PAUSE),
            Ok(Step::Done) => return Ok(Ended::Done(description)),
            // The next start removes what is left, if it cannot be removed now.
            Err(error) => match builder.abandon(files) {
                Ok(()) | Err(_) => return Err(error),
            },
        }
    }
}

/// Until so many bytes may have been written since.
fn wait(began: Instant, bytes: u64, control: &Control) {
    let due = Duration::from_secs_f64(bytes as f64 / control.bytes_per_second as f64);
    while began.elapsed() < due && !control.stop.load(Ordering::Acquire) {
        thread::sleep(PAUSE.min(due.saturating_sub(began.elapsed())));
    }
}
