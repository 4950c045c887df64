//! The clocks that a node reads.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

use crate::raft::BootTime;

/// A clock that goes on while the machine sleeps, and that nobody sets.
pub(super) fn boot_time() -> BootTime {
    let now = clock_gettime(ClockId::Boottime);
    BootTime(Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec as u32))
}

/// The wall clock, for what is only written down.
pub(super) fn wall_clock_milliseconds() -> u64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
}

/// How long this thread has worked. While it waits for a core that others use nothing is counted: that would tell nothing of
/// the work.
pub(super) fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
}
