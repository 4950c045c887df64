//! The world fails: at each operation, in each way.

use super::rig::{G, Rig, open, options};
use crate::disk::Files;
use crate::limits::SEGMENT_BYTES_MIN;
use crate::random::Random;
use crate::sim::disk::{Code, Failure};
use crate::types::GroupId;
use crate::wal::{Options, Refused};

/// About a hundred operations: appends, cuts, rotations, preparations.
fn work(rig: &mut Rig, rounds: u64) {
    for round in 0..rounds {
        rig.grow(G, 1 + round % 3, 200 + 900 * (round % 5) as usize);
        rig.grow(GroupId(1), 1, 4000);
        if round % 5 == 4 {
            let group = rig.model.group(G);
            rig.truncate(G, group.last().index);
            rig.purge(G, group.entries[0].id);
        }
        rig.settle();
        if rig.is_poisoned || rig.disk.is_off() {
            return;
        }
    }
    rig.log.tick(1);
    rig.settle();
}

/// Whatever is said to an operation, what was acknowledged is there afterwards, and a poisoned log writes nothing.
#[test]
fn an_error_at_each_operation_loses_nothing() {
    let mut clean = Rig::new(options());
    let before = clean.disk.operations();
    work(&mut clean, 40);
    let operations = clean.disk.operations() - before;
    assert!(operations >= 100, "{operations}");
    let mut poisoned = 0;
    let mut waited = 0;
    for at in 0..operations {
        for (kind, failure) in failures().into_iter().enumerate() {
            let mut rig = Rig::new(Options { writes_in_flight: 2, ..options() });
            rig.disk.fail_at(rig.disk.operations() + at, failure);
            work(&mut rig, 40);
            if rig.is_poisoned {
                poisoned += 1;
                let submitted = rig.disk.operations();
                assert_eq!(
                    rig.log
                        .append(G, &[super::model::entry(rig.model.term, rig.model.group(G).last().index.next(), 1)]),
                    Err(Refused::Poisoned)
                );
                for _ in 0..10 {
                    rig.log.tick(1);
                    rig.pump();
                }
                assert_eq!(rig.disk.operations(), submitted, "nothing is tried again");
            } else if rig.log.is_out_of_space() {
                waited += 1;
                for _ in 0..200 {
                    rig.log.tick(1);
                    rig.settle();
                }
                assert!(!rig.log.is_out_of_space(), "it goes on by itself");
            }
            let mut random = Random::seeded(at * 10 + kind as u64);
            match random.chance(500) {
                true => rig.disk.crash(&mut random),
                false => rig.disk.kill(&mut random),
            }
            rig.disk.clear_failures();
            rig.reopened().rest();
        }
    }
    println!("{operations} operations, {poisoned} poisoned, {waited} waited");
    assert!(poisoned > 2 * operations && waited > 0);
}

fn failures() -> [Failure; 5] {
    [
        Failure::Error(Code::Io),
        Failure::Error(Code::NoSpace),
        Failure::Error(Code::QuotaExceeded),
        Failure::Partial { bytes: 700, error: Code::Io },
        Failure::Partial { bytes: 1 << 20, error: Code::Io },
    ]
}

/// A log that has ordered another segment: a new one, or one that was used before.
fn ordering(recycled: bool) -> Rig {
    let mut rig = Rig::new(options());
    rig.settle();
    for _ in 0..3 {
        rig.rotate(G);
    }
    if recycled {
        let last = rig.model.group(G).last();
        rig.purge(G, last);
    }
    for _ in 0..20 {
        rig.grow(G, 1, 20_000);
        rig.pump();
        rig.disk.complete_all();
        rig.take();
        if rig.prepares.front().is_some_and(|order| order.recycled.is_some() == recycled) {
            return rig;
        }
    }
    panic!("no segment is ordered");
}

/// Nothing durable is at stake: whatever is said to the making of a segment, the file goes, with its room, and another
/// attempt is made.
#[test]
fn a_segment_that_cannot_be_made_leaves_nothing_and_is_tried_again() {
    for (recycled, operations_min) in [(false, 7), (true, 8)] {
        for code in [Code::Io, Code::TooManyFiles, Code::NoSpace] {
            let mut failed = 0;
            for at in 0.. {
                let mut rig = ordering(recycled);
                let before = rig.disk.used_bytes();
                let names = rig.files.list("log").expect("it exists").len();
                let operation = rig.disk.operations() + at;
                rig.disk.fail_at(operation, Failure::Error(code));
                rig.prepare(0);
                if rig.disk.operations() <= operation {
                    break;
                }
                failed += 1;
                assert!(!rig.is_poisoned && rig.log.is_out_of_space(), "{code:?} {at}");
                let freed = if recycled { SEGMENT_BYTES_MIN } else { 0 };
                assert_eq!(rig.disk.used_bytes(), before - freed, "{code:?} {at}: the file stays");
                let left = rig.files.list("log").expect("it exists");
                assert_eq!(left.len(), names - usize::from(recycled), "{code:?} {at}: {left:?}");
                for _ in 0..200 {
                    rig.log.tick(1);
                    rig.settle();
                }
                assert!(!rig.log.is_out_of_space(), "{code:?} {at}: it goes on by itself");
                rig.grow(G, 2, 20_000);
                rig.settle();
                rig.check();
                rig.disk.crash(&mut Random::seeded(at));
                rig.reopened().rest();
            }
            assert!(failed >= operations_min, "{failed}");
        }
    }
}

/// A write fails in flight, with the others around it completing or not.
#[test]
fn a_failed_flush_is_not_tried_again_and_nothing_behind_it_counts() {
    for seed in 0..300 {
        let mut random = Random::seeded(seed);
        let mut rig = Rig::new(Options { writes_in_flight: 4, ..options() });
        rig.settle();
        for _ in 0..4 {
            rig.grow(G, 1, 600);
            rig.pump();
        }
        rig.settle();
        for _ in 0..4 {
            rig.grow(G, 1, 600);
            rig.pump();
        }
        assert_eq!(rig.disk.pending().len(), 4);
        let acknowledged = rig.model.acknowledged;
        let failing = random.below(4) as usize;
        rig.disk.fail(failing, Code::Io, &mut random);
        rig.disk.complete_all();
        rig.take();
        assert!(rig.is_poisoned);
        assert!(rig.model.acknowledged <= acknowledged + failing);
        rig.disk.kill(&mut random);
        rig.reopened().rest();
    }
}

#[test]
fn the_disk_is_full_and_free_again() {
    let mut rig = Rig::new(options());
    rig.settle();
    for cycle in 0..60u64 {
        rig.disk.set_capacity(rig.disk.used_bytes());
        let mut filled = false;
        for _ in 0..80 {
            rig.grow(G, 1, 20_000);
            rig.settle();
            filled = rig.log.is_out_of_space() && rig.log.durable_ticket() < rig.log.last_ticket();
            if filled {
                break;
            }
        }
        assert!(filled && !rig.is_poisoned, "{cycle}");
        if cycle % 3 == 0 {
            rig.disk.crash(&mut Random::seeded(cycle));
            rig = rig.reopened();
        }
        rig.disk.set_capacity(1 << 40);
        for _ in 0..250 {
            rig.log.tick(1);
            rig.settle();
        }
        assert_eq!(rig.log.durable_ticket(), rig.log.last_ticket());
        let last = rig.model.group(G).last();
        rig.purge(G, last);
        rig.settle();
        rig.check();
    }
}

/// A log with a torn tail, on a disk that is full: with segments that stand ready, or with none.
fn torn_on_a_full_disk(has_spare: bool) -> Rig {
    let mut rig = Rig::new(options());
    rig.grow(G, 3, 3000);
    match has_spare {
        true => rig.settle(),
        false => {
            rig.pump();
            rig.disk.complete_all();
            rig.take();
        }
    }
    rig.grow(G, 1, 3000);
    rig.pump();
    let mut at = 0;
    rig.disk.crash_with(&mut |loose| {
        at += 1;
        usize::from(at == 1).min(loose.outcomes - 1)
    });
    rig.disk.set_capacity(rig.disk.used_bytes());
    rig
}

/// A disk that is full while a log is opened is an error, and changes nothing.
#[test]
fn a_torn_log_on_a_full_disk_opens_when_there_is_room() {
    let rig = torn_on_a_full_disk(false);
    let error = open(&rig.disk, &options()).map(drop).expect_err("there is no room for a segment");
    assert!(matches!(&error, crate::wal::Error::Disk(error) if error.is_no_space()), "{error}");
    rig.disk.set_capacity(1 << 40);
    let (.., found) = open(&rig.disk, &options()).expect("there is room");
    assert!(rig.model.is_possible(&found));
}

/// A segment that stands ready is the room that a recovery needs, also if it is cut at any operation.
#[test]
fn a_torn_log_on_a_full_disk_opens_with_a_segment_that_stands_ready() {
    for reads_past_cache in [true, false] {
        for at in 0.. {
            let rig = torn_on_a_full_disk(true);
            rig.disk.set_reads_past_cache(reads_past_cache);
            rig.disk.crash_at(rig.disk.operations() + at);
            let is_open = open(&rig.disk, &options()).map(drop);
            rig.disk.crash(&mut Random::seeded(at));
            let (.., found) = open(&rig.disk, &options()).unwrap_or_else(|error| panic!("{at}: {error}"));
            assert!(rig.model.is_possible(&found));
            if is_open.is_ok() {
                assert!(at > 20, "{at}");
                break;
            }
        }
    }
}

/// A crash between the making of the copy and its first byte left an empty one, which counted as kept.
#[test]
fn what_is_kept_aside_is_whole_or_not_there() {
    let mut kept = 0;
    for at in 0.. {
        let rig = torn_on_a_full_disk(true);
        rig.disk.set_capacity(1 << 40);
        rig.disk.crash_at(rig.disk.operations() + at);
        let is_open = open(&rig.disk, &options()).is_ok();
        rig.disk.crash(&mut Random::seeded(at));
        open(&rig.disk, &options()).expect("the log is torn, not damaged");
        let files = rig.disk.files();
        for name in files.list("log").expect("it exists").iter().filter(|name| name.ends_with(".cut")) {
            let file = files.open_read(&format!("log/{name}")).expect("it exists");
            assert!(files.length(file).expect("it is open") > 0, "{at}: {name} is empty");
            kept += 1;
        }
        if is_open {
            break;
        }
    }
    assert!(kept > 20, "{kept}");
}
