//! The threads that append, and what they saw.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressStyle};

use super::reading::{self, HISTORY_BYTES, Marks, Reading, TURN};
use crate::types::{GroupId, LogId};
use crate::wal::handle::{self, OutcomeUnknown, Pending, Refused, Unsaved};
use crate::wal::{Counters, Wal};

pub const GROUP: GroupId = GroupId(0);
/// How often what is not needed any more is purged, and the same where a run ends with bytes.
const BEAT: Duration = Duration::from_millis(100);
const BEAT_SHORT: Duration = Duration::from_millis(2);
/// How often progress is shown.
const SHOWN_EVERY: Duration = Duration::from_secs(1);
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
    /// Ends when so many were appended.
    pub records: Option<u64>,
    /// It ends when so much is on the disk, if that comes before its time.
    pub written_bytes_max: Option<u64>,
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
    /// The longest time in which no thread saw an append become durable.
    pub longest_gap: Duration,
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
    Unsaved(#[from] Unsaved),
    #[error(transparent)]
    Read(#[from] handle::Error),
}

impl Stopped {
    pub fn next_step(&self) -> String {
        match self {
            Stopped::Refused(error) => error.next_step().to_owned(),
            Stopped::OutcomeUnknown(error) => error.next_step().to_owned(),
            Stopped::Unsaved(error) => error.next_step().to_owned(),
            Stopped::Read(error) => error.next_step(),
        }
    }
}

/// What the threads are told, and tell.
#[derive(Debug)]
struct Phase {
    is_measuring: AtomicBool,
    is_over: AtomicBool,
    reading: Reading,
    /// What the two below count from.
    start: Instant,
    /// In nanoseconds: when an append was last seen durable, and the longest time between two such moments.
    seen_nanoseconds: AtomicU64,
    longest_gap_nanoseconds: AtomicU64,
}

/// What the conductor counted, without and with a reader.
#[derive(Debug, Default)]
struct Counted {
    time: [Duration; 2],
    records: [u64; 2],
    read_bytes: [u64; 2],
}

/// Latencies without and with a reader.
type Latencies = [Histogram<u64>; 2];

impl Load {
    pub fn run(&self, wal: &Wal) -> Result<Measured, Stopped> {
        let phase = Phase::new();
        phase.is_measuring.store(self.warm_up.is_zero(), Ordering::Relaxed);
        let (mut marks, rate) = (Marks::default(), self.read_bytes_per_second);
        if rate > 0 {
            reading::write_history(wal, self.bytes, &mut marks)?;
        }
        // Nothing is sent: who has ended has dropped its end.
        let (running, all_ended) = channel::<()>();
        thread::scope(|scope| {
            let threads: Vec<_> = (0..self.threads)
                .map(|thread| {
                    let (phase, running) = (&phase, running.clone());
                    scope.spawn(move || {
                        let said = self.produce(wal, phase, self.appends_of(thread));
                        drop(running);
                        said
                    })
                })
                .collect();
            drop(running);
            let reader = (rate > 0).then(|| scope.spawn(|| phase.reading.read(wal, rate)));
            let conducted = self.conduct(wal, &phase, &all_ended, marks);
            phase.is_over.store(true, Ordering::Relaxed);
            phase.reading.is_over.store(true, Ordering::Relaxed);
            let mut latency = empty_histograms();
            for thread in threads {
                let seen = thread.join().expect("a producer returns its errors")?;
                latency.iter_mut().zip(seen).for_each(|(sum, seen)| *sum += seen);
            }
            if let Some(reader) = reader {
                reader.join().expect("a reader returns its errors")?;
            }
            let (time, counters, counted) = conducted?;
            Ok(measured((time, counters), latency, phase.longest_gap(), (rate > 0).then_some(counted)))
        })
    }

    /// How many appends a thread makes: shares differ by one at most.
    fn appends_of(&self, thread: usize) -> u64 {
        let threads = self.threads as u64;
        let share = |records: u64| {
            let appends = records.div_ceil(self.batch as u64);
            appends / threads + u64::from((thread as u64) < appends % threads)
        };
        self.records.map_or(u64::MAX, share)
    }

    /// Warms up, measures, shows how far it is; gives the time and what the log wrote in it.
    fn conduct(
        &self,
        wal: &Wal,
        phase: &Phase,
        all_ended: &Receiver<()>,
        mut marks: Marks,
    ) -> Result<(Duration, Counters, Counted), Stopped> {
        let warm = Instant::now();
        while warm.elapsed() < self.warm_up && !self.beat(wal, phase, all_ended, &mut marks)? {}
        let before = if self.warm_up.is_zero() { Counters::default() } else { wal.counters() };
        let start = Instant::now();
        phase.is_measuring.store(true, Ordering::Relaxed);
        let mut shown = Shown::new(self.time, self.records, before.records);
        let mut counted = Counted::default();
        let mut seen = (start, before.records, 0);
        let is_full = |counters: Counters| {
            self.written_bytes_max.is_some_and(|most| counters.written_bytes - before.written_bytes >= most)
        };
        while start.elapsed() < self.time && !is_full(wal.counters()) {
            if self.beat(wal, phase, all_ended, &mut marks)? {
                break;
            }
            let now = (Instant::now(), wal.counters().records, phase.reading.read_bytes.load(Ordering::Relaxed));
            let side = usize::from(phase.reading.is_on.load(Ordering::Relaxed));
            counted.time[side] += now.0 - seen.0;
            counted.records[side] += now.1 - seen.1;
            counted.read_bytes[side] += now.2 - seen.2;
            seen = now;
            let turn = start.elapsed().as_nanos() / TURN.as_nanos();
            phase.reading.is_on.store(self.read_bytes_per_second > 0 && turn % 2 == 1, Ordering::Relaxed);
            shown.refresh(start.elapsed(), now.1);
        }
        let (time, after) = (start.elapsed(), wal.counters());
        phase.is_measuring.store(false, Ordering::Relaxed);
        shown.bar.finish_and_clear();
        let counters = Counters {
            flushes: after.flushes - before.flushes,
            records: after.records - before.records,
            written_bytes: after.written_bytes - before.written_bytes,
            unzeroed_segments: after.unzeroed_segments - before.unzeroed_segments,
            segments: after.segments - before.segments,
            removed_segments: after.removed_segments - before.removed_segments,
            removals_failed: after.removals_failed - before.removals_failed,
            unremoved_segments: after.unremoved_segments,
            copies: after.copies - before.copies,
            copied_bytes: after.copied_bytes - before.copied_bytes,
            copies_dropped: after.copies_dropped - before.copies_dropped,
        };
        Ok((time, counters, counted))
    }

    /// Waits a little, and tells whether all threads have ended. So that the disk does not fill, what nobody reads any
    /// more is purged: its segments are used again. Where a run ends within a segment there is none to use again.
    fn beat(&self, wal: &Wal, phase: &Phase, all_ended: &Receiver<()>, marks: &mut Marks) -> Result<bool, Stopped> {
        let length = if self.written_bytes_max.is_some() { BEAT_SHORT } else { BEAT };
        if all_ended.recv_timeout(length) == Err(RecvTimeoutError::Disconnected) {
            return Ok(true);
        }
        if self.written_bytes_max.is_some() {
            return Ok(false);
        }
        let written_bytes = wal.counters().written_bytes;
        let kept_bytes = if self.read_bytes_per_second > 0 { HISTORY_BYTES } else { 0 };
        let old = marks.before(written_bytes, kept_bytes);
        if old > LogId::ZERO {
            drop(wal.purge_prefix(GROUP, old)?);
            marks.forget_before(old);
        }
        marks.push(written_bytes, wal.group(GROUP).map_or(LogId::ZERO, |group| group.last));
        phase.reading.advance(marks, written_bytes);
        Ok(false)
    }

    fn produce(&self, wal: &Wal, phase: &Phase, appends: u64) -> Result<Latencies, Stopped> {
        let produce = if self.in_flight == 1 { Load::produce_one_by_one } else { Load::produce_pipelined };
        produce(self, wal, phase, appends)
    }

    fn produce_one_by_one(&self, wal: &Wal, phase: &Phase, appends: u64) -> Result<Latencies, Stopped> {
        let payload = vec![0x5a; self.bytes];
        let mut latency = empty_histograms();
        for _ in 0..appends {
            if phase.is_over.load(Ordering::Relaxed) {
                break;
            }
            let since = Instant::now();
            wal.append_records_durably(GROUP, (0..self.batch).map(|_| Bytes::copy_from_slice(&payload)))?;
            let (seen, is_measuring) = (Instant::now(), phase.is_measuring.load(Ordering::Relaxed));
            phase.saw(seen, is_measuring);
            if is_measuring {
                latency[phase.side()].saturating_record(nanoseconds(seen - since));
            }
        }
        Ok(latency)
    }

    fn produce_pipelined(&self, wal: &Wal, phase: &Phase, appends: u64) -> Result<Latencies, Stopped> {
        let payload = vec![0x5a; self.bytes];
        let mut latency = empty_histograms();
        let mut waiting: VecDeque<(Instant, Pending)> = VecDeque::with_capacity(self.in_flight);
        let mut left = appends;
        // Bounded by its share, or by the time that the conductor gives.
        while (left > 0 || !waiting.is_empty()) && !phase.is_over.load(Ordering::Relaxed) {
            let mut now = Instant::now();
            let count = (self.in_flight - waiting.len()).min(usize::try_from(left).unwrap_or(usize::MAX));
            left -= count as u64;
            for append in 1..=count {
                // Each record has memory of its own, as it would have where it comes from.
                let records = (0..self.batch).map(|_| Bytes::copy_from_slice(&payload));
                waiting.push_back((now, wal.append_records(GROUP, records)?));
                if append % APPENDS_PER_READING == 0 {
                    now = Instant::now();
                }
            }
            let is_measuring = phase.is_measuring.load(Ordering::Relaxed);
            let latency = &mut latency[phase.side()];
            let (since, oldest) = waiting.pop_front().expect("one was appended, or waits still");
            oldest.wait()?;
            let seen = Instant::now();
            let mut record = |since: Instant| {
                if is_measuring {
                    latency.saturating_record(nanoseconds(seen - since));
                }
            };
            phase.saw(seen, is_measuring);
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

fn measured(
    (time, counters): (Duration, Counters),
    [off, on]: Latencies,
    longest_gap: Duration,
    counted: Option<Counted>,
) -> Measured {
    let mut latency = empty_histogram();
    latency += &off;
    latency += &on;
    let turns = counted.map(|Counted { time, records, read_bytes }| {
        let turns =
            |at: usize, latency| Turns { time: time[at], records: records[at], latency, read_bytes: read_bytes[at] };
        [turns(0, off), turns(1, on)]
    });
    Measured { time, counters, latency, longest_gap, turns }
}

impl Phase {
    fn new() -> Phase {
        Phase {
            is_measuring: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
            reading: Reading::default(),
            start: Instant::now(),
            seen_nanoseconds: AtomicU64::new(0),
            longest_gap_nanoseconds: AtomicU64::new(0),
        }
    }

    /// Which of two latencies a moment belongs to.
    fn side(&self) -> usize {
        usize::from(self.reading.is_on.load(Ordering::Relaxed))
    }

    /// An append was seen durable. The moments of several threads may come here out of order.
    fn saw(&self, moment: Instant, is_measuring: bool) {
        let moment = nanoseconds(moment - self.start);
        let before = self.seen_nanoseconds.fetch_max(moment, Ordering::Relaxed);
        if is_measuring && before > 0 {
            self.longest_gap_nanoseconds.fetch_max(moment.saturating_sub(before), Ordering::Relaxed);
        }
    }

    fn longest_gap(&self) -> Duration {
        Duration::from_nanos(self.longest_gap_nanoseconds.load(Ordering::Relaxed))
    }
}

/// Progress, a line that is drawn on a terminal only, to standard error.
pub(super) struct Shown {
    pub(super) bar: ProgressBar,
    at: Duration,
    records: u64,
    /// What the log had before, if the run ends after so many records, and not after a time.
    first: Option<u64>,
}

impl Shown {
    /// Its length is the records that are wanted, or the time in milliseconds.
    pub(super) fn new(time: Duration, wanted: Option<u64>, records: u64) -> Shown {
        let bar = ProgressBar::new(wanted.unwrap_or_else(|| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)));
        bar.set_style(ProgressStyle::with_template("{bar:30} {msg}").expect("the template is a constant"));
        Shown { bar, at: Duration::ZERO, records, first: wanted.map(|_| records) }
    }

    pub(super) fn refresh(&mut self, at: Duration, records: u64) {
        let past = at - self.at;
        if past < SHOWN_EVERY {
            return;
        }
        let per_second = (records - self.records) as f64 / past.as_secs_f64();
        self.bar.set_position(self.first.map_or(at.as_millis() as u64, |first| records - first));
        self.bar.set_message(format!("{:.0} s: {per_second:.0} records/s", at.as_secs_f64()));
        (self.at, self.records) = (at, records);
    }
}

fn empty_histograms() -> Latencies {
    [empty_histogram(), empty_histogram()]
}

/// Up to a minute, to three digits.
fn empty_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("the bounds are constants")
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).max(1)
}
