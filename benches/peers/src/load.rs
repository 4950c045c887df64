//! The threads that append, and what they saw: the same for every engine.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use trilith::cli::Failure;

use crate::disk::Flushes;
use crate::engines::{Engine, Producer};

/// How often an engine lets go of what is old.
const BEAT: Duration = Duration::from_millis(100);
/// Appends that share a reading of the clock.
const APPENDS_PER_READING: usize = 32;

/// What is done.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    pub threads: usize,
    pub bytes: usize,
    /// Entries that each thread keeps on their way: 1 blocks for each.
    pub in_flight: usize,
    pub warm_up: Duration,
    pub time: Duration,
}

/// What was seen.
#[derive(Debug)]
pub struct Seen {
    pub time: Duration,
    /// Entries acknowledged from the first to the last, warm-up among them.
    pub acknowledged: u64,
    /// Nanoseconds from append to acknowledgement, of each entry acknowledged in `time`.
    pub latency: Histogram<u64>,
    /// What the device was sent in `time`.
    pub flushes: Option<u64>,
}

/// What the threads are told.
#[derive(Debug, Default)]
struct Phase {
    is_measuring: AtomicBool,
    is_over: AtomicBool,
}

/// What one thread saw.
struct Produced {
    acknowledged: u64,
    latency: Histogram<u64>,
}

impl Load {
    pub fn run(&self, engine: &dyn Engine, flushes: Option<&Flushes>) -> Result<Seen, Failure> {
        let phase = Phase::default();
        thread::scope(|scope| {
            let phase = &phase;
            let start = |thread| scope.spawn(move || self.produce_or_stop(engine, thread, phase));
            let threads: Vec<_> = (0..self.threads).map(start).collect();
            let conducted = self.conduct(engine, phase, flushes);
            phase.is_over.store(true, Ordering::Relaxed);
            let (mut acknowledged, mut latency) = (0, empty_histogram());
            for thread in threads {
                let produced = thread.join().expect("a producer returns its errors")?;
                acknowledged += produced.acknowledged;
                latency += produced.latency;
            }
            let (time, flushes) = conducted?;
            Ok(Seen { time, acknowledged, latency, flushes })
        })
    }

    /// Warms up and measures; gives the time, and the flushes in it.
    fn conduct(
        &self,
        engine: &dyn Engine,
        phase: &Phase,
        flushes: Option<&Flushes>,
    ) -> Result<(Duration, Option<u64>), Failure> {
        let beat_until = |start: Instant, time: Duration| {
            while start.elapsed() < time && !phase.is_over.load(Ordering::Relaxed) {
                thread::sleep(BEAT.min(time.saturating_sub(start.elapsed())));
                engine.release()?;
            }
            Ok::<(), Failure>(())
        };
        beat_until(Instant::now(), self.warm_up)?;
        let count = || flushes.and_then(Flushes::count);
        let (before, start) = (count(), Instant::now());
        phase.is_measuring.store(true, Ordering::Relaxed);
        beat_until(start, self.time)?;
        phase.is_measuring.store(false, Ordering::Relaxed);
        let (time, after) = (start.elapsed(), count());
        Ok((time, before.zip(after).map(|(before, after)| after - before)))
    }

    /// A thread that cannot go on ends the load of all.
    fn produce_or_stop(&self, engine: &dyn Engine, thread: usize, phase: &Phase) -> Result<Produced, Failure> {
        let produced = engine.producer(thread).and_then(|mut producer| self.produce(&mut *producer, phase));
        if produced.is_err() {
            phase.is_over.store(true, Ordering::Relaxed);
        }
        produced
    }

    fn produce(&self, producer: &mut dyn Producer, phase: &Phase) -> Result<Produced, Failure> {
        if self.in_flight == 1 {
            return self.produce_one_by_one(producer, phase);
        }
        let payload = vec![0x5a; self.bytes];
        let (mut acknowledged, mut latency) = (0, empty_histogram());
        let mut waiting: VecDeque<Instant> = VecDeque::with_capacity(self.in_flight);
        // Bounded by the time that the conductor gives.
        loop {
            let mut now = Instant::now();
            let room = if phase.is_over.load(Ordering::Relaxed) { 0 } else { self.in_flight - waiting.len() };
            for append in 1..=room {
                waiting.push_back(now);
                producer.submit(&payload)?;
                if append % APPENDS_PER_READING == 0 {
                    now = Instant::now();
                }
            }
            if waiting.is_empty() {
                return Ok(Produced { acknowledged, latency });
            }
            let reaped = producer.reap()?;
            let seen = Instant::now();
            let is_measuring = phase.is_measuring.load(Ordering::Relaxed);
            for since in waiting.drain(..reaped) {
                if is_measuring {
                    latency.saturating_record(nanoseconds(seen - since));
                }
            }
            acknowledged += reaped as u64;
        }
    }

    fn produce_one_by_one(&self, producer: &mut dyn Producer, phase: &Phase) -> Result<Produced, Failure> {
        let payload = vec![0x5a; self.bytes];
        let mut produced = Produced { acknowledged: 0, latency: empty_histogram() };
        // Bounded by the time that the conductor gives.
        while !phase.is_over.load(Ordering::Relaxed) {
            let since = Instant::now();
            producer.append(&payload)?;
            if phase.is_measuring.load(Ordering::Relaxed) {
                produced.latency.saturating_record(nanoseconds(since.elapsed()));
            }
            produced.acknowledged += 1;
        }
        Ok(produced)
    }
}

/// Up to a minute, to three digits.
fn empty_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("the bounds are constants")
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).max(1)
}
