//! D13 of docs/testing.md for a log by itself: flushes that take long are waited for, and nothing else happens.

use std::collections::{BTreeMap, VecDeque};

use super::*;
use crate::wal::handle::open::SUPERBLOCK_TOKENS;

/// A disk whose flushes of frames take so long; which of them are done is seen at the next tick.
struct Slow<const MILLISECONDS: u64> {
    queue: Box<dyn disk::Queue>,
    begun: BTreeMap<u64, Instant>,
    done: VecDeque<disk::Completion>,
}

impl<const MILLISECONDS: u64> Slow<MILLISECONDS> {
    fn wrap(queue: Box<dyn disk::Queue>) -> Box<dyn disk::Queue> {
        Box::new(Slow::<MILLISECONDS> { queue, begun: BTreeMap::new(), done: VecDeque::new() })
    }

    fn is_due(&self, completion: &disk::Completion) -> bool {
        let begun = self.begun.get(&completion.token.0);
        begun.is_none_or(|begun| begun.elapsed() >= Duration::from_millis(MILLISECONDS))
    }
}

impl<const MILLISECONDS: u64> disk::Queue for Slow<MILLISECONDS> {
    fn submit(&mut self, write: disk::Write) {
        if write.token.0 < SUPERBLOCK_TOKENS {
            self.begun.insert(write.token.0, Instant::now());
        }
        self.queue.submit(write);
    }

    fn take(&mut self) -> Option<disk::Completion> {
        while let Some(completion) = self.queue.take() {
            self.done.push_back(completion);
        }
        let due = self.done.iter().position(|completion| self.is_due(completion))?;
        self.done.remove(due)
    }

    fn hand_over(&mut self) {
        self.queue.hand_over();
    }
}

/// Appends while flushes take so long, two of them at once: all are acknowledged, in order, and the log is whole afterwards.
fn slow<const MILLISECONDS: u64>(io: IoChoice, bursts: usize) {
    const APPENDS: usize = 100;
    // Three flushes one after the other, and the machine's own time.
    let longest = Duration::from_secs(20).max(Duration::from_millis(5 * MILLISECONDS));
    let home = home();
    let options = Options { writes_in_flight: Some(2), ..options(&home, io) };
    let (wal, _) = Wal::open_with(&options, Slow::<MILLISECONDS>::wrap).unwrap();
    for burst in 0..bursts {
        let begun = Instant::now();
        let pending: Vec<Pending> =
            (0..APPENDS).map(|at| wal.append_records(GROUP, [format!("{burst} {at}")]).unwrap()).collect();
        assert!(begun.elapsed() < Duration::from_millis(MILLISECONDS.max(1000)), "appends do not wait for the flush");
        while !pending.iter().all(Pending::is_durable) {
            // From the last to the first: what becomes durable meanwhile comes before those that were looked at.
            let seen: Vec<bool> = pending.iter().rev().map(Pending::is_durable).collect();
            assert!(seen.is_sorted(), "an append is durable before one that was taken earlier");
            assert!(wal.failure().is_none() && begun.elapsed() < longest, "{:?}", wal.failure());
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(begun.elapsed() >= Duration::from_millis(MILLISECONDS), "nothing is acknowledged before its flush");
        let first = (burst * APPENDS) as u64 + 1;
        for (index, pending) in (first..).zip(pending) {
            assert_eq!(pending.wait().unwrap(), Index(index)..Index(index + 1));
        }
    }
    wal.close().unwrap();
    let (wal, opened) = Wal::open(options).unwrap();
    assert!(opened.findings.is_empty(), "{:?}", opened.findings);
    let found: Vec<String> =
        read_all(&wal).iter().map(|entry| String::from_utf8(data(entry).to_vec()).unwrap()).collect();
    let appended = (0..bursts).flat_map(|burst| (0..APPENDS).map(move |at| format!("{burst} {at}")));
    assert!(found.into_iter().eq(appended), "all of it, in its order");
}

#[test]
fn d13_flushes_of_a_millisecond_to_a_second_are_waited_for_in_order() {
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for io in back_ends() {
            scope.spawn(move || slow::<1>(io, 20));
            scope.spawn(move || slow::<100>(io, 4));
            scope.spawn(move || slow::<1000>(io, 1));
        }
    });
    println!("D13, the log alone: {:.1?}", begun.elapsed());
}

mod proofs {
    use super::*;
    use crate::sim::proofs::{Proof, Scale, prove};

    /// One burst of each, in full alone: they wait for real.
    #[test]
    fn d13_a_log_alone_waits_for_flushes_of_three_and_ten_seconds() {
        let run = |proof: &Proof| {
            if proof.scale != Scale::Full || proof.is_part() {
                return;
            }
            let bursts: [fn(IoChoice, usize); 2] = [slow::<3_000>, slow::<10_000>];
            std::thread::scope(|scope| {
                for (io, burst) in back_ends().into_iter().flat_map(|io| bursts.map(|burst| (io, burst))) {
                    scope.spawn(move || {
                        burst(io, 1);
                        proof.case();
                    });
                }
            });
        };
        let least = if std::env::var_os("TRILITH_PROOFS_PART").is_some() { 0 } else { 2 };
        prove("D13w", run, [0, 0, least]);
    }
}
