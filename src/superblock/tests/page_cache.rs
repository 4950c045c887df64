//! Where reads do not go past the page cache: a pair whose flush failed looks whole to the next process.

use super::*;
use crate::disk::Queue;
use crate::random::Random;
use crate::sim::disk::{Code, Failure, SimDisk, What};

const FLUSH_FAILS: Failure = Failure::Partial { bytes: 1 << 20, error: Code::Io };
/// More operations than a start and a save have.
const OPERATIONS_MAX: u64 = 16;
const PATTERNS: u64 = 6;

/// A fresh superblock on a disk whose reads tell what is in memory.
fn fresh() -> SimDisk {
    let disk = SimDisk::new();
    disk.set_reads_past_cache(false);
    format(&disk.files(), &state(4)).unwrap();
    disk
}

fn term(state: &State) -> u64 {
    age(state)
}

/// One life: a start and a save, then the process ends. Gives the term that was spoken: what was loaded, or the one
/// above it if the save became durable; none if the start failed.
fn life(disk: &SimDisk) -> Option<u64> {
    let spoken = start_and_save(disk);
    if !disk.is_off() {
        disk.kill(&mut Random::seeded(1));
    }
    spoken
}

fn start_and_save(disk: &SimDisk) -> Option<u64> {
    let (mut queue, loaded) = (disk.queue(), load(&disk.files(), 0).ok()?);
    let (mut writer, loaded) = (loaded.writer, term(&loaded.state));
    writer
        .save(|state| state.group_mut(GroupId::CLUSTER).hard_state = HardState { term: Term(loaded + 1), vote: None });
    while let Some(write) = writer.take_write() {
        queue.submit(write);
        disk.complete_all();
        let Some(completion) = queue.take() else { return Some(loaded) };
        if writer.handle(completion).is_err() {
            assert!(writer.take_write().is_none(), "nothing is written after a failed flush");
            return Some(loaded);
        }
    }
    Some(loaded + 1)
}

fn crash(disk: &SimDisk, pattern: u64) {
    match pattern {
        0 => disk.crash_with(&mut |_| 0),
        1 => disk.crash_with(&mut |loose| loose.outcomes - 1),
        // Every block that is loose is torn: its first sector and its last are of different writes.
        2 | 3 => disk.crash_with(&mut |loose| match loose.what {
            What::Sector { sector, .. } if sector % 2 == pattern % 2 => loose.outcomes - 1,
            _ => 0,
        }),
        seed => disk.crash(&mut Random::seeded(seed)),
    }
}

/// A flush that fails at any point of one life and again of the next, then a cut of power at any point of the third:
/// a pair is whole on the disk all the time, and what was spoken is in it.
#[test]
fn two_failed_flushes_and_a_cut_lose_nothing() {
    let mut cuts = 0;
    for first in 0..OPERATIONS_MAX {
        let one = fresh();
        one.fail_at(one.operations() + first, FLUSH_FAILS);
        let spoken = life(&one).max(Some(4));
        one.clear_failures();
        for second in 0..OPERATIONS_MAX {
            let two = one.fork();
            two.fail_at(two.operations() + second, FLUSH_FAILS);
            let spoken = life(&two).max(spoken);
            two.clear_failures();
            for third in 0..OPERATIONS_MAX {
                for pattern in 0..PATTERNS {
                    let three = two.fork();
                    three.crash_at(three.operations() + third);
                    let spoken = life(&three).max(spoken);
                    crash(&three, pattern);
                    let found = inspect(&three.files());
                    let found = found.unwrap_or_else(|error| panic!("{first} {second} {third} {pattern}: {error}"));
                    assert!(Some(term(&found.state)) >= spoken, "{first} {second} {third} {pattern}");
                    cuts += 1;
                }
            }
        }
    }
    assert_eq!(cuts, OPERATIONS_MAX.pow(3) * PATTERNS);
}
