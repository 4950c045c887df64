//! The threads that append, and what they saw.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressStyle};

use crate::types::{GroupId, LogId};
use crate::wal::handle::{OutcomeUnknown, Pending, Refused, Unsaved};
use crate::wal::{Counters, Wal};

const GROUP: GroupId = GroupId(0);
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
    /// Ends when so many were appended.
    pub records: Option<u64>,
}

/// What was seen.
#[derive(Debug)]
pub struct Measured {
    pub time: Duration,
    /// What the log wrote in that time.
    pub counters: Counters,
    /// Nanoseconds from append to durable, once per append.
    pub latency: Histogram<u64>,
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
}

/// What the threads are told.
#[derive(Debug, Default)]
struct Phase {
    is_measuring: AtomicBool,
    is_over: AtomicBool,
}

impl Load {
    pub fn run(&self, wal: &Wal) -> Result<Measured, Stopped> {
        let phase = Phase::default();
        phase.is_measuring.store(self.warm_up.is_zero(), Ordering::Relaxed);
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
            let conducted = self.conduct(wal, &phase, &all_ended);
            phase.is_over.store(true, Ordering::Relaxed);
            let mut latency = empty_histogram();
            for thread in threads {
                latency += thread.join().expect("a producer returns its errors")?;
            }
            let (time, counters) = conducted?;
            Ok(Measured { time, counters, latency })
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
    fn conduct(&self, wal: &Wal, phase: &Phase, all_ended: &Receiver<()>) -> Result<(Duration, Counters), Stopped> {
        let mut purged = LogId::ZERO;
        // Tells whether all threads have ended.
        let beat = |purged: &mut LogId| -> Result<bool, Stopped> {
            if all_ended.recv_timeout(BEAT) == Err(RecvTimeoutError::Disconnected) {
                return Ok(true);
            }
            // So that the disk does not fill: segments that are read by nobody are used again.
            let last = wal.group(GROUP).map_or(LogId::ZERO, |group| group.last);
            if *purged > LogId::ZERO {
                drop(wal.purge_prefix(GROUP, *purged)?);
            }
            *purged = last;
            Ok(false)
        };
        let warm = Instant::now();
        while warm.elapsed() < self.warm_up && !beat(&mut purged)? {}
        let before = if self.warm_up.is_zero() { Counters::default() } else { wal.counters() };
        let start = Instant::now();
        phase.is_measuring.store(true, Ordering::Relaxed);
        // Draws on a terminal only, to standard error.
        let bar = ProgressBar::new(self.time.as_millis() as u64);
        bar.set_style(ProgressStyle::with_template("{bar:30} {msg}").expect("the template is a constant"));
        while start.elapsed() < self.time && !beat(&mut purged)? {
            let records = wal.counters().records - before.records;
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
        Ok((time, counters))
    }

    fn produce(&self, wal: &Wal, phase: &Phase, appends: u64) -> Result<Histogram<u64>, Stopped> {
        let produce = if self.in_flight == 1 { Load::produce_one_by_one } else { Load::produce_pipelined };
        produce(self, wal, phase, appends)
    }

    fn produce_one_by_one(&self, wal: &Wal, phase: &Phase, appends: u64) -> Result<Histogram<u64>, Stopped> {
        let payload = vec![0x5a; self.bytes];
        let mut latency = empty_histogram();
        for _ in 0..appends {
            if phase.is_over.load(Ordering::Relaxed) {
                break;
            }
            let since = Instant::now();
            wal.append_records_durably(GROUP, (0..self.batch).map(|_| Bytes::copy_from_slice(&payload)))?;
            if phase.is_measuring.load(Ordering::Relaxed) {
                latency.saturating_record(nanoseconds(since.elapsed()));
            }
        }
        Ok(latency)
    }

    fn produce_pipelined(&self, wal: &Wal, phase: &Phase, appends: u64) -> Result<Histogram<u64>, Stopped> {
        let payload = vec![0x5a; self.bytes];
        let mut latency = empty_histogram();
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
            let (since, oldest) = waiting.pop_front().expect("one was appended, or waits still");
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

/// Up to a minute, to three digits.
fn empty_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("the bounds are constants")
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).max(1)
}
