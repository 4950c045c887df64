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
/// Flushes behind which nobody is awaited, after nobody came.
const PAUSE_FLUSHES: u32 = 32;

/// Whether those who are woken come back.
#[derive(Debug, Default)]
pub(super) struct Gathering {
    /// The most appends that were expected behind a flush; it fades by an eighth with each. Where many threads append, a
    /// frame that happens to be small is no sign of few.
    crowd: usize,
    /// Flushes until somebody is awaited again.
    pause_flushes: u32,
}

impl Gathering {
    /// Whether to wait behind a flush of so many appends, with so many others waiting already. One alone is not worth it.
    pub fn is_worthwhile(&mut self, flushed: usize, waiting: usize) -> bool {
        let expected = flushed + waiting;
        self.crowd = expected.max(self.crowd - self.crowd.div_ceil(8));
        let is_fit = expected >= 2 && self.crowd <= EXPECTED_MAX;
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
                let has_come = waiting() > before;
                self.pause_flushes = if has_come { 0 } else { PAUSE_FLUSHES };
                return;
            }
            // They need a processor to come.
            thread::yield_now();
        }
    }
}
