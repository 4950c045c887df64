//! How fast the disk is in each of the ways in which a log could use it: what defaults are chosen by, and what every
//! benchmark stands beside.
//!
//! Measured are writes and their flush on a file made for it, which is removed again: by the caller's own calls, or
//! through the very queues that the log writes with.
//!
//! Caveat: on a disk that hangs a measurement of the caller's own calls, or of [`BlockingQueue`], hangs as well.

use std::future::poll_fn;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use rustix::fs::FallocateFlags;

use super::blocking::BlockingQueue;
use super::buffer::Buffer;
use super::choice::{Backend, SyncMode};
use super::directory::Directory;
use super::error::{Error, Operation};
use super::queue::{FileId, Queue, Token, Write};
use super::seam::Seam;
use super::uring::{Runtime, UringQueue};
use super::{Files, open_file};
use crate::limits::{BLOCK_BYTES, DISK_OPERATION_AGE_MAX};

/// What writes fall on.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Ground {
    /// Behind the end of the file: each write makes it longer.
    Growing,
    /// `fallocate`: room that was never written.
    Allocated,
    /// `FALLOC_FL_ZERO_RANGE`: room that reads as zero, which most file systems note down instead of writing it.
    ZeroRange,
    /// `FALLOC_FL_WRITE_ZEROES` (Linux 6.17): written blocks, zeroed by the disk itself where it can do that cheaply.
    WriteZeroes,
    /// Zeros written past the page cache, and flushed.
    Written,
}

/// Who carries a write to the disk, and how.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Way {
    /// The caller: `pwrite` into the page cache, and `fdatasync`.
    Cached,
    /// The caller, past the page cache where that can be.
    Caller(SyncMode),
    /// The queue that the log writes with.
    Queue {
        /// Which one.
        backend: Backend,
        /// How its writes are flushed.
        sync_mode: SyncMode,
        /// Writes in flight at once.
        depth: usize,
    },
}

/// What a run came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pace {
    /// Writes that were flushed.
    pub writes: u64,
    /// From the first submission to the last completion.
    pub time: Duration,
    /// Of one write, from its submission to its flush.
    pub median: Duration,
}

/// A file to measure on. Dropping it removes it.
#[derive(Debug)]
pub struct Surface {
    directory: Directory,
    file: FileId,
    name: String,
    bytes: u64,
    ground: Ground,
    /// Where the next write goes: over written blocks in rounds, over any other ground once.
    offset: u64,
}

/// Writes of a run whose times are kept for its median.
const SAMPLES_MAX: usize = 100_000;
/// `FALLOC_FL_WRITE_ZEROES`, which rustix does not name yet.
const WRITE_ZEROES: FallocateFlags = FallocateFlags::from_bits_retain(0x80);

impl Surface {
    /// Makes a file of `bytes`, durably, and tells how long that took; nothing if kernel, file system or disk do not
    /// know this ground.
    ///
    /// # Errors
    /// What the disk says.
    pub fn make(directory: &Directory, ground: Ground, bytes: u64) -> Result<Option<(Surface, Duration)>, Error> {
        // A name of its own, since another process may measure here at the same time. One that a process of the same
        // number left behind is in the way.
        let name = format!("flush-time-{}-{ground:?}.tmp", std::process::id());
        match directory.remove(&name) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = directory.create(&name)?;
        let surface = Surface { directory: directory.clone(), file, name, bytes, ground, offset: 0 };
        let start = Instant::now();
        match surface.prepare() {
            Ok(()) => {}
            Err(error) if Surface::is_unknown(&error) => return Ok(None),
            Err(error) => return Err(error),
        }
        directory.sync(file)?;
        Ok(Some((surface, start.elapsed())))
    }

    /// Writes and flushes for a time, or until a ground that is written once is used up.
    ///
    /// # Errors
    /// What the disk says, and what the kernel says where it gives no ring.
    pub fn run(&mut self, way: Way, bytes: usize, time: Duration) -> Result<Pace, Error> {
        match way {
            Way::Cached | Way::Caller(_) => self.run_by_caller(way, bytes, time),
            Way::Queue { backend, sync_mode, depth } => {
                let mut lane = Lane::open(&self.directory, backend, sync_mode, Seam::default())?;
                lane.run(self, depth, bytes, time)
            }
        }
    }

    fn prepare(&self) -> Result<(), Error> {
        let flags = match self.ground {
            Ground::Growing => return Ok(()),
            Ground::Written => return self.directory.zero(self.file, 0, self.bytes),
            Ground::Allocated => FallocateFlags::empty(),
            Ground::ZeroRange => FallocateFlags::ZERO_RANGE,
            Ground::WriteZeroes => WRITE_ZEROES,
        };
        let open = self.directory.file(Operation::Write, self.file, true)?;
        open.fallocate(flags, self.bytes).map_err(|error| self.directory.error_at(Operation::Write, self.file, error))
    }

    /// What a kernel, a file system or a disk says that does not know a flag.
    fn is_unknown(error: &Error) -> bool {
        let numbers = [rustix::io::Errno::OPNOTSUPP, rustix::io::Errno::NOSYS, rustix::io::Errno::INVAL];
        numbers.iter().any(|number| error.source.raw_os_error() == Some(number.raw_os_error()))
    }

    /// The place of the next write, if there is one.
    fn next_place(&mut self, bytes: usize) -> Option<u64> {
        if self.offset + bytes as u64 > self.bytes {
            if self.ground != Ground::Written {
                return None;
            }
            self.offset = 0;
        }
        let place = self.offset;
        self.offset += bytes as u64;
        Some(place)
    }

    fn run_by_caller(&mut self, way: Way, bytes: usize, time: Duration) -> Result<Pace, Error> {
        let buffer = filled(bytes);
        let mut clock = PaceClock::start(time);
        while !clock.is_over()
            && let Some(place) = self.next_place(bytes)
        {
            let since = Instant::now();
            self.write_by_caller(way, place, &buffer)?;
            clock.record(since);
        }
        Ok(clock.pace())
    }

    fn write_by_caller(&self, way: Way, place: u64, buffer: &[u8]) -> Result<(), Error> {
        let Way::Caller(sync_mode) = way else {
            self.directory.write(self.file, place, buffer)?;
            return self.directory.sync(self.file);
        };
        let failed = |operation, error| self.directory.error_at(operation, self.file, error).at(place);
        let target = self.directory.target(self.file, sync_mode)?;
        open_file::write_all(&target.descriptor, place, buffer, target.granule)
            .map_err(|error| failed(Operation::Write, error))?;
        match sync_mode {
            SyncMode::Dsync => Ok(()),
            SyncMode::Fdatasync => {
                open_file::flush(&target.descriptor).map_err(|error| failed(Operation::Flush, error))
            }
        }
    }
}

impl Drop for Surface {
    fn drop(&mut self) {
        self.directory.close(self.file);
        if let Err(error) = self.directory.remove(&self.name) {
            tracing::warn!("a file that was made to measure stays behind: {error}");
        }
    }
}

/// A queue with its runtime, for runs through it.
pub(super) struct Lane {
    // Before the runtime: it is dropped first.
    queue: Box<dyn Queue>,
    runtime: Runtime,
    woken: Arc<Woken>,
}

/// Whom a completion wakes.
#[derive(Debug, Default)]
struct Woken(Mutex<Option<Waker>>);

impl Woken {
    fn wake(&self) {
        let waker = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        waker.into_iter().for_each(Waker::wake);
    }

    fn register(&self, waker: &Waker) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(waker.clone());
    }
}

impl Lane {
    pub fn open(directory: &Directory, backend: Backend, sync_mode: SyncMode, seam: Seam) -> Result<Lane, Error> {
        let runtime = Runtime::new(backend)?;
        let woken = Arc::<Woken>::default();
        let waking = Arc::clone(&woken);
        let (directory, age_max) = (directory.clone(), DISK_OPERATION_AGE_MAX);
        let wake = Box::new(move || waking.wake());
        let queue: Box<dyn Queue> = match backend {
            Backend::Uring => Box::new(UringQueue::with_seam(directory, sync_mode, wake, seam, age_max)),
            Backend::Blocking => Box::new(BlockingQueue::with_seam(directory, sync_mode, wake, seam, age_max)?),
        };
        Ok(Lane { queue, runtime, woken })
    }

    /// Keeps `depth` writes in flight for a time, or until the surface is used up.
    pub fn run(&mut self, surface: &mut Surface, depth: usize, bytes: usize, time: Duration) -> Result<Pace, Error> {
        let mut flight = Flight {
            surface,
            bytes,
            clock: PaceClock::start(time),
            since: vec![Instant::now(); depth],
            idle: (0..depth).map(|slot| (slot, filled(bytes))).collect(),
        };
        let (queue, woken) = (&mut self.queue, &self.woken);
        self.runtime.block_on(poll_fn(|context| flight.poll(queue.as_mut(), woken, context)))?;
        Ok(flight.clock.pace())
    }
}

/// A run through a queue.
struct Flight<'s> {
    surface: &'s mut Surface,
    bytes: usize,
    clock: PaceClock,
    /// When the write of each slot was submitted.
    since: Vec<Instant>,
    /// Slots that are not in flight, with their buffers.
    idle: Vec<(usize, Buffer)>,
}

impl Flight<'_> {
    fn poll(&mut self, queue: &mut dyn Queue, woken: &Woken, context: &Context<'_>) -> Poll<Result<(), Error>> {
        // Before the look for completions: one that comes behind it wakes.
        woken.register(context.waker());
        queue.hand_over();
        // The queue's bound is this loop's.
        while let Some(completion) = queue.take() {
            completion.result?;
            let slot = completion.token.0 as usize;
            self.clock.record(self.since[slot]);
            self.idle.push((slot, completion.buffer));
        }
        while !self.clock.is_over()
            && let Some((slot, buffer)) = self.idle.pop()
        {
            let Some(offset) = self.surface.next_place(self.bytes) else {
                self.idle.push((slot, buffer));
                self.clock.end();
                break;
            };
            self.since[slot] = Instant::now();
            queue.submit(Write { token: Token(slot as u64), file: self.surface.file, offset, buffer });
        }
        let is_done = self.idle.len() == self.since.len();
        if is_done { Poll::Ready(Ok(())) } else { Poll::Pending }
    }
}

/// When a run ends, and what its writes took.
struct PaceClock {
    start: Instant,
    limit: Duration,
    writes: u64,
    last: Instant,
    samples: Vec<Duration>,
}

impl PaceClock {
    fn start(limit: Duration) -> PaceClock {
        let start = Instant::now();
        PaceClock { start, limit, writes: 0, last: start, samples: Vec::new() }
    }

    fn is_over(&self) -> bool {
        self.start.elapsed() >= self.limit
    }

    fn end(&mut self) {
        self.limit = Duration::ZERO;
    }

    fn record(&mut self, since: Instant) {
        self.last = Instant::now();
        self.writes += 1;
        if self.samples.len() < SAMPLES_MAX {
            self.samples.push(self.last - since);
        }
    }

    fn pace(mut self) -> Pace {
        Pace { writes: self.writes, time: self.last - self.start, median: median(&mut self.samples) }
    }
}

impl Pace {
    /// Flushed writes per second; 0 if there was none.
    pub fn writes_per_second(&self) -> f64 {
        if self.writes == 0 { 0.0 } else { self.writes as f64 / self.time.as_secs_f64() }
    }
}

/// Of an even number the mean of the two in the middle. Zero if there is none.
fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    let upper = times.get(times.len() / 2).copied().unwrap_or_default();
    match times.len() % 2 {
        0 if !times.is_empty() => (times[times.len() / 2 - 1] + upper) / 2,
        _ => upper,
    }
}

/// A buffer that is not zero: disks and file systems may know zeros.
fn filled(bytes: usize) -> Buffer {
    let mut buffer = Buffer::as_of_pool(bytes);
    buffer.pad_to_capacity();
    buffer.fill(0x5a);
    buffer
}

/// Medians of one block's write and flush, on blocks that were written before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FlushTimes {
    /// `pwrite` into the page cache, and `fdatasync`: the floor that every log can have.
    pub fdatasync: Duration,
    /// A write through `O_DSYNC`, past the page cache where that can be.
    pub dsync: Duration,
    /// Flushes measured of the kind that was measured least.
    pub samples: u32,
}

/// Room for measurements of single blocks.
pub(super) const BLOCKS_BYTES: u64 = 64 * BLOCK_BYTES as u64;
/// Turns of a flush measurement, and the time of one way in one of them.
const TURNS: u32 = 10;
const TURN_TIME: Duration = Duration::from_millis(8);

/// Measures, for less than 200 ms unless a single flush takes longer, in a file that is removed again.
///
/// # Errors
/// What the disk says.
pub fn measure_flush(directory: &Directory) -> Result<FlushTimes, Error> {
    let mut surface = written_surface(directory, BLOCKS_BYTES)?;
    let mut rounds = [Vec::new(), Vec::new()];
    let mut samples = [0, 0];
    // Turn by turn, so that a disk that changes its pace changes both.
    for _ in 0..TURNS {
        for (at, way) in [Way::Cached, Way::Caller(SyncMode::Dsync)].into_iter().enumerate() {
            let pace = surface.run(way, BLOCK_BYTES, TURN_TIME)?;
            samples[at] += u32::try_from(pace.writes).unwrap_or(u32::MAX);
            rounds[at].push(pace.median);
        }
    }
    let [fdatasync, dsync] = rounds.map(|mut times| median(&mut times));
    Ok(FlushTimes { fdatasync, dsync, samples: samples[0].min(samples[1]) })
}

/// Blocks that were written before: every disk has that ground.
pub(super) fn written_surface(directory: &Directory, bytes: u64) -> Result<Surface, Error> {
    let made = Surface::make(directory, Ground::Written, bytes)?;
    let (surface, _) = made.ok_or_else(|| {
        let error = io::Error::from(io::ErrorKind::Unsupported);
        Error::new(Operation::Write, directory.root().display().to_string(), error)
    })?;
    Ok(surface)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_an_even_number_of_times_the_median_lies_between_the_two_in_the_middle() {
        let median_of = |times: &[u64]| {
            let mut times: Vec<Duration> = times.iter().map(|time| Duration::from_micros(*time)).collect();
            median(&mut times).as_micros()
        };
        assert_eq!([median_of(&[]), median_of(&[7]), median_of(&[4, 2]), median_of(&[9, 1, 2])], [0, 7, 3, 2]);
        assert_eq!(median_of(&[100, 8, 2, 4]), 6);
    }
}
