//! How far the wall clock is believed, where something goes by its age.
//!
//! One wrong reading may be years ahead, and what goes by it is gone on all nodes. So a reading counts when readings have
//! gone on for a while as ticks do: for the age that is asked about, of which nothing then goes too early whatever the clock
//! showed before, but no longer than for [`PATIENCE_TICKS`]. A start and each jump begin that anew.

use crate::limits::TICK;
use crate::mutant::{self, Mutant};

/// Between two readings that are compared: a second.
const LOOK_TICKS: u32 = 100;
/// An hour: so long somebody has to set a clock right.
const PATIENCE_TICKS: u64 = 360_000;
/// What a reading may be away from what ticks say, from one to the next: a thread may be kept from running.
const SLACK_MILLISECONDS: u64 = 10_000;

const TICK_MILLISECONDS: u64 = TICK.as_millis() as u64;

/// The readings of this process.
#[derive(Debug, Default)]
pub(super) struct WallClock {
    /// At the last look.
    last_milliseconds: Option<u64>,
    /// Since then.
    ticks: u32,
    /// For how long readings have gone on as ticks do, up to the last look.
    steady_ticks: u64,
}

impl WallClock {
    pub fn tick(&mut self, milliseconds: u64) {
        self.ticks += 1;
        if self.last_milliseconds.is_some() && self.ticks < LOOK_TICKS {
            return;
        }
        let ticks = u64::from(std::mem::take(&mut self.ticks));
        let expected = self.last_milliseconds.map(|last| last.saturating_add(ticks * TICK_MILLISECONDS));
        let is_steady = expected.is_some_and(|expected| expected.abs_diff(milliseconds) <= SLACK_MILLISECONDS);
        self.steady_ticks = if is_steady { self.steady_ticks + ticks } else { 0 };
        self.last_milliseconds = Some(milliseconds);
    }

    /// What was written before this time is older than `age_milliseconds`; none: that cannot be told yet.
    pub fn older_than(&self, age_milliseconds: u64) -> Option<u64> {
        let needed_ticks = (age_milliseconds / TICK_MILLISECONDS).min(PATIENCE_TICKS);
        let is_believed = self.steady_ticks >= needed_ticks || mutant::is_on(Mutant::ClockJumpBelieved);
        let last = self.last_milliseconds.filter(|_| is_believed)?;
        Some(last.saturating_sub(age_milliseconds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: u64 = 60_000;
    const HOUR: u64 = 60 * MINUTE;

    /// So much time, as ticks count it, from this time of the clock on; tells where it ends.
    fn pass(clock: &mut WallClock, from: u64, milliseconds: u64) -> u64 {
        let end = from + milliseconds;
        (from..end).step_by(10).for_each(|now| clock.tick(now));
        end
    }

    #[test]
    fn a_reading_counts_when_the_clock_went_as_ticks_do_for_that_age_or_an_hour() {
        let mut clock = WallClock::default();
        let now = pass(&mut clock, 100 * HOUR, 9 * MINUTE);
        assert_eq!(clock.older_than(10 * MINUTE), None, "it began nine minutes ago");
        let now = pass(&mut clock, now, 2 * MINUTE);
        assert!(clock.older_than(10 * MINUTE).is_some_and(|since| since.abs_diff(now - 10 * MINUTE) < 1100));
        assert_eq!(clock.older_than(50 * HOUR), None);
        let now = pass(&mut clock, now, 50 * MINUTE);
        assert!(clock.older_than(50 * HOUR).is_some_and(|since| since.abs_diff(now - 50 * HOUR) < 1100));
        assert_eq!(clock.older_than(u64::MAX), Some(0));
    }

    #[test]
    fn a_jump_to_either_side_is_believed_after_the_same_time_only() {
        for there in [10 * 365 * 24 * HOUR, HOUR] {
            let mut clock = WallClock::default();
            let now = pass(&mut clock, 100 * HOUR, 2 * HOUR + 50);
            // It is back before it is looked at, or not.
            clock.tick(there);
            assert!(clock.older_than(HOUR).is_some_and(|since| since < now));
            pass(&mut clock, there, 59 * MINUTE);
            assert_eq!(clock.older_than(HOUR), None);
            pass(&mut clock, now, 59 * MINUTE);
            assert_eq!(clock.older_than(HOUR), None, "the way back is a jump, too");
        }
    }

    /// The thread was kept from running, and made up for a few of the ticks.
    #[test]
    fn a_short_stall_is_no_jump() {
        let mut clock = WallClock::default();
        let now = pass(&mut clock, 100 * HOUR, HOUR + MINUTE);
        pass(&mut clock, now + 8_000, MINUTE);
        assert!(clock.older_than(HOUR).is_some());
    }
}
