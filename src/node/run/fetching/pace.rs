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

    /// How long it is until more may be asked for.
    pub fn wait(&self, now: Instant) -> Duration {
        self.due.saturating_duration_since(now)
    }

    /// So many bytes are asked for now. Time in which nothing was wanted is not made up for.
    pub fn take(&mut self, bytes: usize, now: Instant) {
        self.due = self.due.max(now) + Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64);
    }
}
