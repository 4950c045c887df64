//! Those whom a flush woke are awaited for a moment before the next frame is written.
//!
//! A few threads that append one by one fall into two halves: the frame of one half is written while the other's threads
//! are woken and append anew, and so each waits for two flushes. They come back at once, all of them; to wait for them
//! makes one half out of two:
//!
//! ```text
//!   at once   disk  [ 1 2 3 4 ][ 5 6 7 8 ][ 1 2 3 4 ][ 5 6 7 8 ]
//!   gathered  disk  [ 1 ... 8 ]   [ 1 ... 8 ]   [ 1 ... 8 ]
//! ```
//!
//! The wait is bounded, and it ends when all have come. Where they do not come back, nobody is awaited for a while.

use std::thread;
use std::time::{Duration, Instant};

/// Less than a flush takes on a fast disk: who waits for that can bear it.
const WAIT_MAX: Duration = Duration::from_micros(60);
/// More than so many appends keep the processors busy about as long as a flush takes: to write meanwhile is better.
const EXPECTED_MAX: usize = 16;
/// Flushes behind which nobody is awaited, after less than half of those woken came.
const PAUSE_FLUSHES: u32 = 32;

/// Whether those who are woken come back.
#[derive(Debug, Default)]
pub(super) struct Gathering {
    /// Flushes until somebody is awaited again.
    pause_flushes: u32,
}

impl Gathering {
    /// Whether to wait behind a flush that wakes `woken`, with so many appends waiting already. One alone is not worth it.
    pub fn is_worthwhile(&mut self, woken: usize, waiting: usize) -> bool {
        let is_fit = woken > 0 && (2..=EXPECTED_MAX).contains(&(woken + waiting));
        if is_fit && self.pause_flushes > 0 {
            self.pause_flushes -= 1;
            return false;
        }
        is_fit
    }

    /// Waits until as many more than `before` wait as were woken, or its time is over.
    pub fn wait(&mut self, woken: usize, before: usize, waiting: impl Fn() -> usize) {
        let start = Instant::now();
        while waiting() < before + woken {
            if start.elapsed() >= WAIT_MAX {
                let came = waiting().saturating_sub(before);
                self.pause_flushes = if came < woken.div_ceil(2) { PAUSE_FLUSHES } else { 0 };
                return;
            }
            // They need a processor to come.
            thread::yield_now();
        }
    }
}
