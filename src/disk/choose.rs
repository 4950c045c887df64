//! What is chosen for a directory when it is made: its disk is measured for a fraction of a second, through the queue that
//! the log will write with, and the superblock remembers what came of it.
//!
//! ```text
//!   dsync, one in flight      ┐ in turn    the clearly faster one is the sync mode
//!   fdatasync, one in flight  ┘
//!   the chosen one, several in flight      does the disk work on them at once? then so does the log
//! ```
//!
//! What disturbs a measurement makes it slower: of the turns of each candidate the best one counts.

use std::fmt;
use std::time::Duration;

use super::choice::{Backend, SyncMode};
use super::directory::Directory;
use super::error::Error;
use super::measure::{BLOCKS_BYTES, Lane, Surface, written_surface};
use super::seam::Seam;
use crate::limits::{BLOCK_BYTES, WRITES_IN_FLIGHT_DEFAULT};

/// What was chosen for a directory, and the figures that it was chosen by.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Chosen {
    /// How writes are flushed.
    pub sync_mode: SyncMode,
    /// Writes of the log in flight at once.
    pub writes_in_flight: usize,
    /// Median time of one block through `O_DSYNC`, one in flight, in the best turn.
    pub dsync: Duration,
    /// Median time of one block and its `fdatasync`, one in flight, in the best turn.
    pub fdatasync: Duration,
    /// Flushed blocks per second in the chosen mode with one in flight, and with [`DEPTH_TRIED`].
    pub alone_per_second: f64,
    pub together_per_second: f64,
}

/// Writes in flight when it is tried whether the disk works on several at once.
pub const DEPTH_TRIED: usize = 4;
/// Turns in which the candidates are measured, and the time of each in one of them: less than 0.3 s in all.
const TURNS: usize = 7;
const TURN_TIME: Duration = Duration::from_millis(12);

/// Measures and chooses. The file that it takes is removed again.
///
/// # Errors
/// What the disk says.
pub fn choose(directory: &Directory, backend: Backend) -> Result<Chosen, Error> {
    // On a thread of its own: the caller's may drive a runtime already, within which no other one can be started.
    std::thread::scope(|scope| {
        let measuring = scope.spawn(|| choose_with(directory, backend, |_| Seam::default()));
        measuring.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// As [`choose`], with faults of their own for each mode.
pub(super) fn choose_with(
    directory: &Directory,
    backend: Backend,
    seam: impl Fn(SyncMode) -> Seam,
) -> Result<Chosen, Error> {
    let mut surface = written_surface(directory, BLOCKS_BYTES)?;
    let mut dsync = Candidate::new(Lane::open(directory, backend, SyncMode::Dsync, seam(SyncMode::Dsync))?);
    let mut fdatasync = Candidate::new(Lane::open(directory, backend, SyncMode::Fdatasync, seam(SyncMode::Fdatasync))?);
    // Turn by turn, so that a disk that changes its pace changes both.
    for _ in 0..TURNS {
        dsync.alone.turn(&mut dsync.lane, &mut surface, 1)?;
        fdatasync.alone.turn(&mut fdatasync.lane, &mut surface, 1)?;
    }
    let (dsync_time, fdatasync_time) = (dsync.alone.median, fdatasync.alone.median);
    let sync_mode = better(dsync_time, fdatasync_time);
    let mut chosen = match sync_mode {
        SyncMode::Dsync => dsync,
        SyncMode::Fdatasync => fdatasync,
    };
    let mut together = Turns::default();
    for _ in 0..TURNS {
        together.turn(&mut chosen.lane, &mut surface, DEPTH_TRIED)?;
    }
    let (alone_per_second, together_per_second) = (chosen.alone.per_second, together.per_second);
    Ok(Chosen {
        sync_mode,
        writes_in_flight: depth(alone_per_second, together_per_second),
        dsync: dsync_time,
        fdatasync: fdatasync_time,
        alone_per_second,
        together_per_second,
    })
}

/// `O_DSYNC` unless the other is clearly faster: it is one request where the other is two, of which io_uring hands the
/// second to a worker thread, and on a busy machine the two medians are noise.
pub(super) fn better(dsync: Duration, fdatasync: Duration) -> SyncMode {
    let is_clearly_slower = dsync > fdatasync.saturating_add(fdatasync / 4);
    if is_clearly_slower { SyncMode::Fdatasync } else { SyncMode::Dsync }
}

/// Several only where the disk gains clearly from them: each costs the log a frame, a flush and wake-ups of its own.
pub(super) fn depth(alone_per_second: f64, together_per_second: f64) -> usize {
    if together_per_second >= 1.5 * alone_per_second { WRITES_IN_FLIGHT_DEFAULT } else { 1 }
}

/// A way that is measured.
struct Candidate {
    lane: Lane,
    alone: Turns,
}

impl Candidate {
    fn new(lane: Lane) -> Candidate {
        Candidate { lane, alone: Turns::default() }
    }
}

/// What the best turn came to.
struct Turns {
    median: Duration,
    per_second: f64,
}

impl Default for Turns {
    fn default() -> Turns {
        Turns { median: Duration::MAX, per_second: 0.0 }
    }
}

impl Turns {
    fn turn(&mut self, lane: &mut Lane, surface: &mut Surface, depth: usize) -> Result<(), Error> {
        let pace = lane.run(surface, depth, BLOCK_BYTES, TURN_TIME)?;
        if pace.writes > 0 {
            self.median = self.median.min(pace.median);
        }
        self.per_second = self.per_second.max(pace.writes_per_second());
        Ok(())
    }
}

impl fmt::Display for Chosen {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = |time: Duration| time.as_nanos() as f64 / 1000.0;
        write!(
            formatter,
            "{}, {} in flight (one block: dsync {:.0} us, fdatasync {:.0} us; {:.0} flushes/s alone, {:.0} with \
             {DEPTH_TRIED} in flight)",
            self.sync_mode,
            self.writes_in_flight,
            micros(self.dsync),
            micros(self.fdatasync),
            self.alone_per_second,
            self.together_per_second
        )
    }
}
