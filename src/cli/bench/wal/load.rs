//! The threads that append, and what they saw.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressStyle};

use super::reading::{self, HISTORY_BYTES, Marks, Reading, TURN};
use crate::types::{GroupId, LogId};
use crate::wal::handle::{self, OutcomeUnknown, Pending, Refused};
use crate::wal::{Counters, Wal};

pub const GROUP: GroupId = GroupId(0);
/// How often progress is shown, and what is not needed any more is purged.
const BEAT: Duration = Duration::from_millis(100);
/// Appends that share a reading of the clock.
const APPENDS_PER_READING: usize = 32;

/// What is done.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    pub bytes: usize,
    pub threads: usize,
    pub in_flight: usize,
    pub batch: usize,
    pub warm_up: Duration,
    pub time: Duration,
    /// What a reader reads of the log's old segments meanwhile, every other second; 0 for none.
    pub read_bytes_per_second: u64,
}

/// What was seen.
#[derive(Debug)]
pub struct Measured {
    pub time: Duration,
    /// What the log wrote in that time.
    pub counters: Counters,
    /// Nanoseconds from append to durable, once per append.
    pub latency: Histogram<u64>,
    /// With a reader: the turns without it, and those with it.
    pub turns: Option<[Turns; 2]>,
}

/// The seconds in which nobody read, or those in which somebody did.
#[derive(Debug)]
pub struct Turns {
    pub time: Duration,
    pub records: u64,
    pub latency: Histogram<u64>,
    pub read_bytes: u64,
}

/// What stops a load.
#[derive(Debug, thiserror::Error)]
pub enum Stopped {
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error(transparent)]
    OutcomeUnknown(#[from] OutcomeUnknown),
    #[error(transparent)]
    Read(#[from] handle::Error),
}

/// What the threads are told.
#[derive(Debug, Default)]
struct Phase {
    is_measuring: AtomicBool,
    is_over: AtomicBool,
    reading: Reading,
}

/// What the conductor counted, without and with a reader.
#[derive(Debug, Default)]
struct Counted {
    time: [Duration; 2],
    records: [u64; 2],
    read_bytes: [u64; 2],
}

impl Load {
    pub fn run(&self, wal: &Wal) -> Result<Measured, Stopped> {
        let phase = Phase::default();
        let mut marks = Marks::default();
        let rate = self.read_bytes_per_second;
        if rate > 0 {
            reading::write_history(wal, self.bytes, &mut marks)?;
        }
        thread::scope(|scope| {
            let start = |_| scope.spawn(|| self.produce(wal, &phase));
            let threads: Vec<_> = (0..self.threads).map(start).collect();
            let reader = (rate > 0).then(|| scope.spawn(|| phase.reading.read(wal, rate)));
            let conducted = self.conduct(wal, &phase, marks);
            phase.is_over.store(true, Ordering::Relaxed);
            phase.reading.is_over.store(true, Ordering::Relaxed);
            let mut latency = [empty_histogram(), empty_histogram()];
            for thread in threads {
                let seen = thread.join().expect("a producer returns its errors")?;
                latency.iter_mut().zip(seen).for_each(|(sum, seen)| *sum += seen);
            }
            if let Some(reader) = reader {
                reader.join().expect("a reader returns its errors")?;
            }
            let (time, counters, counted) = conducted?;
            Ok(measured(time, counters, latency, (rate > 0).then_some(counted)))
        })
    }

    /// Warms up, measures, shows how far it is; gives the time and what the log wrote in it.
    fn conduct(&self, wal: &Wal, phase: &Phase, mut marks: Marks) -> Result<(Duration, Counters, Counted), Stopped> {
        let warm = Instant::now();
        while warm.elapsed() < self.warm_up {
            self.beat(wal, phase, &mut marks)?;
        }
        let before = wal.counters();
        let start = Instant::now();
        phase.is_measuring.store(true, Ordering::Relaxed);
        // Draws on a terminal only, to standard error.
        let bar = ProgressBar::new(self.time.as_millis() as u64);
        bar.set_style(ProgressStyle::with_template("{bar:30} {msg}").expect("the template is a constant"));
        let mut counted = Counted::default();
        let mut seen = (start, before.records, 0);
        while start.elapsed() < self.time {
            self.beat(wal, phase, &mut marks)?;
            let now = (Instant::now(), wal.counters().records, phase.reading.read_bytes.load(Ordering::Relaxed));
            let side = usize::from(phase.reading.is_on.load(Ordering::Relaxed));
            counted.time[side] += now.0 - seen.0;
            counted.records[side] += now.1 - seen.1;
            counted.read_bytes[side] += now.2 - seen.2;
            seen = now;
            let turn = start.elapsed().as_nanos() / TURN.as_nanos();
            phase.reading.is_on.store(self.read_bytes_per_second > 0 && turn % 2 == 1, Ordering::Relaxed);
            let records = now.1 - before.records;
            bar.set_position(start.elapsed().as_millis() as u64);
            bar.set_message(format!("{:.0} records/s", records as f64 / start.elapsed().as_secs_f64()));
        }
        let (time, after) = (start.elapsed(), wal.counters());
        phase.is_measuring.store(false, Ordering::Relaxed);
        bar.finish_and_clear();
        let counters = Counters {
            flushes: after.flushes - before.flushes,
            records: after.records - before.records,
            written_bytes: after.written_bytes - before.written_bytes,
            unzeroed_segments: after.unzeroed_segments - before.unzeroed_segments,
            segments: after.segments - before.segments,
        };
        Ok((time, counters, counted))
    }

    /// Waits a little. So that the disk does not fill, what nobody reads any more is purged: its segments are used again.
    fn beat(&self, wal: &Wal, phase: &Phase, marks: &mut Marks) -> Result<(), Stopped> {
        thread::sleep(BEAT);
        let written_bytes = wal.counters().written_bytes;
        let kept_bytes = if self.read_bytes_per_second > 0 { HISTORY_BYTES } else { 0 };
        let old = marks.before(written_bytes, kept_bytes);
        if old > LogId::ZERO {
            drop(wal.purge_prefix(GROUP, old)?);
            marks.forget_before(old);
        }
        marks.push(written_bytes, wal.group(GROUP).map_or(LogId::ZERO, |group| group.last));
        phase.reading.advance(marks, written_bytes);
        Ok(())
    }

    fn produce(&self, wal: &Wal, phase: &Phase) -> Result<[Histogram<u64>; 2], Stopped> {
        let payload = vec![0x5a; self.bytes];
        let mut latency = [empty_histogram(), empty_histogram()];
        let mut waiting: VecDeque<(Instant, Pending)> = VecDeque::with_capacity(self.in_flight);
        // Bounded by the time that the conductor gives.
        while !phase.is_over.load(Ordering::Relaxed) {
            let mut now = Instant::now();
            for append in 1..=self.in_flight - waiting.len() {
                // Each record has memory of its own, as it would have where it comes from.
                let records = (0..self.batch).map(|_| Bytes::copy_from_slice(&payload));
                waiting.push_back((now, wal.append_records(GROUP, records)?));
                if append % APPENDS_PER_READING == 0 {
                    now = Instant::now();
                }
            }
            let is_measuring = phase.is_measuring.load(Ordering::Relaxed);
            let latency = &mut latency[usize::from(phase.reading.is_on.load(Ordering::Relaxed))];
            let (since, oldest) = waiting.pop_front().expect("at least one was appended");
            oldest.wait()?;
            let seen = Instant::now();
            let mut record = |since: Instant| {
                if is_measuring {
                    latency.saturating_record(nanoseconds(seen - since));
                }
            };
            record(since);
            while let Some((since, _)) = waiting.pop_front_if(|(_, pending)| pending.is_durable()) {
                record(since);
            }
        }
        for (_, pending) in waiting {
            pending.wait()?;
        }
        Ok(latency)
    }
}

fn measured(time: Duration, counters: Counters, [off, on]: [Histogram<u64>; 2], counted: Option<Counted>) -> Measured {
    let mut latency = empty_histogram();
    latency += &off;
    latency += &on;
    let turns = counted.map(|Counted { time, records, read_bytes }| {
        let turns =
            |at: usize, latency| Turns { time: time[at], records: records[at], latency, read_bytes: read_bytes[at] };
        [turns(0, off), turns(1, on)]
    });
    Measured { time, counters, latency, turns }
}

/// Up to a minute, to three digits.
fn empty_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("the bounds are constants")
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).max(1)
}
