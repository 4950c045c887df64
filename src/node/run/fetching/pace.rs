//! No faster than allowed.

use std::time::{Duration, Instant};

/// Spreads bytes over time.
#[derive(Debug)]
pub(super) struct Pace {
    bytes_per_second: u64,
    /// When the next bytes may be asked for.
    due: Instant,
}

impl Pace {
    pub fn new(bytes_per_second: u64, now: Instant) -> Pace {
        Pace { bytes_per_second, due: now }
    }

    /// Takes so many bytes' turn; tells how long it is until then. Time in which nothing was wanted is not made up for.
    pub fn turn(&mut self, bytes: usize, now: Instant) -> Duration {
        let turn = self.due.max(now);
        self.due = turn + Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64);
        turn - now
    }
}
