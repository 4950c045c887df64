//! The world fails: at each operation, in each way.

use std::sync::atomic::{AtomicU64, Ordering};

use super::crash::cuts;
use super::model::State;
use super::rig::{G, Rig, Start, WHOLE, open, open_as, options, tear};
use super::voter::Voter;
use crate::disk::Files;
use crate::limits::SEGMENT_BYTES_MIN;
use crate::random::Random;
use crate::sim::disk::{Code, Failure};
use crate::sim::proofs::{Proof, Scale};
use crate::types::GroupId;
use crate::wal::{Error, Fill, Options, Prepare, Reading, Refused};

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

/// Reads all that a recovered log holds; what is wrong with the disk may show here, and is then no loss.
fn read_all(rig: &Rig, start: Start) -> Option<State> {
    match open_as(&rig.disk, rig.log.options(), start) {
        Ok((.., found)) => Some(found),
        Err(Error::Disk(_)) => None,
        // What cannot be read might have been there: nothing is cut, and the next start finds it.
        Err(Error::Damaged(_)) => None,
        Err(error) => panic!("{error}"),
    }
}

/// D8: whatever is said to an operation of a life (work, the end of the process, recovery, reads), what was
/// acknowledged is there afterwards, and a poisoned log writes nothing.
pub fn an_error_at_each_operation(proof: &Proof) {
    let mut clean = Rig::new(options());
    let before = clean.disk.operations();
    work(&mut clean, 40);
    let written = clean.disk.operations() - before;
    clean.disk.kill(&mut Random::seeded(1));
    read_all(&clean, WHOLE).expect("nothing is wrong");
    let operations = clean.disk.operations() - before;
    assert!(written >= 100 && operations > written + 10, "{written} {operations}");
    let counts = [AtomicU64::new(0), AtomicU64::new(0)];
    let kinds = failures();
    proof.spread(operations * kinds.len() as u64, |piece| {
        let (at, kind) = (piece / kinds.len() as u64, (piece % kinds.len() as u64) as usize);
        if proof.scale == Scale::Share && !(at + kind as u64).is_multiple_of(3) {
            return;
        }
        // What is said to a recovery is said to either kind.
        let readings: &[Reading] = match at < written {
            true => &[Reading::Everything],
            false => &[Reading::Everything, Reading::BySeals],
        };
        for &reading in readings {
            an_error_at((at, kinds[kind]), reading, at * 10 + kind as u64, &counts);
            proof.case();
        }
    });
    let [poisoned, waited] = counts.map(AtomicU64::into_inner);
    assert!(proof.is_part() || poisoned > written / 2 && waited > 0, "{poisoned} poisoned, {waited} waited");
}

fn an_error_at((at, failure): (u64, Failure), reading: Reading, seed: u64, counts: &[AtomicU64; 2]) {
    let mut rig = Rig::new(Options { writes_in_flight: 2, ..options() });
    rig.disk.fail_at(rig.disk.operations() + at, failure);
    work(&mut rig, 40);
    if rig.is_poisoned {
        counts[0].fetch_add(1, Ordering::Relaxed);
        writes_nothing_more(&mut rig);
    } else if rig.log.is_out_of_space() {
        counts[1].fetch_add(1, Ordering::Relaxed);
        for _ in 0..200 {
            rig.log.tick(1);
            rig.settle();
        }
        assert!(!rig.log.is_out_of_space(), "it goes on by itself");
    }
    let mut random = Random::seeded(seed);
    match random.chance(500) {
        true => rig.disk.crash(&mut random),
        false => rig.disk.kill(&mut random),
    }
    let start = Start { reading, ..rig.start() };
    if let Some(found) = read_all(&rig, start) {
        let shown = super::model::shown(&found);
        assert!(rig.model.is_possible(&found), "operation {at}, {failure:?}, {start:?}: {shown}");
    }
    rig.disk.clear_failures();
    rig.disk.kill(&mut random);
    rig.reopened().rest();
}

fn writes_nothing_more(rig: &mut Rig) {
    let operations = rig.disk.operations();
    let next = super::model::entry(rig.model.term, rig.model.group(G).last().index.next(), 1);
    assert_eq!(rig.log.append(G, &[next]), Err(Refused::Poisoned));
    for _ in 0..10 {
        rig.log.tick(1);
        rig.pump();
    }
    assert_eq!(rig.disk.operations(), operations, "nothing is tried again");
}

/// What a disk may say, a write that ends too early, and a read that does.
fn failures() -> [Failure; 8] {
    [
        Failure::Error(Code::Io),
        Failure::Error(Code::NoSpace),
        Failure::Error(Code::QuotaExceeded),
        Failure::Error(Code::Interrupted),
        Failure::Error(Code::Again),
        Failure::Partial { bytes: 700, error: Code::Io },
        Failure::Partial { bytes: 1 << 20, error: Code::Io },
        Failure::Ends,
    ]
}

/// D9: one write in flight fails, with each number of its sectors on the disk or not; all that comes later succeeds.
/// What is then on the disk is old, new or mixed: the log is poisoned, and what was not acknowledged stays so.
pub fn a_flush_fails_once(proof: &Proof) {
    let cases: Vec<(usize, usize, u64)> = (1..=4)
        .flat_map(|depth| (0..depth).flat_map(move |failing| (0..=8).map(move |sectors| (depth, failing, sectors))))
        .collect();
    proof.spread(cases.len() as u64, |at| {
        let (depth, failing, sectors) = cases[at as usize];
        let mut rig = Rig::new(Options { writes_in_flight: depth, ..options() });
        rig.settle();
        rig.grow(G, 2, 600);
        rig.settle();
        let acknowledged = rig.model.acknowledged;
        let failure = Failure::Partial { bytes: 512 * sectors, error: Code::Io };
        rig.disk.fail_at(rig.disk.operations() + failing as u64, failure);
        for _ in 0..depth {
            rig.grow(G, 2, 1700);
            rig.pump();
        }
        assert_eq!(rig.disk.pending().len(), depth);
        rig.disk.complete_all();
        rig.take();
        assert!(rig.is_poisoned, "frame {failing} of {depth}");
        assert!(rig.model.acknowledged <= acknowledged + failing, "frame {failing} of {depth} counts");
        writes_nothing_more(&mut rig);
        rig.learn();
        let Rig { disk, model, log, learned, .. } = rig;
        let mut random = Random::seeded(at);
        cuts(&disk, 256, &mut Random::seeded(at), |fork| {
            let start = Start::drawn(&learned, &mut random);
            let (.., found) = open_as(&fork, log.options(), start)
                .unwrap_or_else(|error| panic!("frame {failing} of {depth}, {sectors}, {start:?}: {error}"));
            assert!(model.is_possible(&found), "frame {failing} of {depth}, {sectors} sectors landed, {start:?}");
            proof.case();
        });
    });
}

/// A log that has ordered another segment, which it prepares next: a new one, or one that was used before, with zeros or
/// at once.
fn ordering(recycled: bool, fill: Fill) -> Rig {
    let mut rig = Rig::new(options());
    rig.settle();
    for _ in 0..8 {
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
        let is_meant = |order: &Prepare| order.recycled.is_some() == recycled && order.fill == fill;
        if let Some(at) = rig.prepares.iter().position(is_meant) {
            rig.prepares.swap(0, at);
            return rig;
        }
    }
    panic!("no segment is ordered");
}

/// Nothing durable is at stake: whatever is said to the making of a segment, the file goes, with its room, and another
/// attempt is made.
#[test]
fn a_segment_that_cannot_be_made_leaves_nothing_and_is_tried_again() {
    let kinds =
        [(false, Fill::Zeros, 7), (true, Fill::Zeros, 8), (false, Fill::Allocated, 7), (true, Fill::Allocated, 9)];
    for (recycled, fill, operations_min) in kinds {
        for code in [Code::Io, Code::TooManyFiles, Code::NoSpace] {
            let mut failed = 0;
            for at in 0.. {
                let mut rig = ordering(recycled, fill);
                let before = rig.disk.used_bytes();
                let names = rig.files.list("log").expect("it exists").len();
                let operation = rig.disk.operations() + at;
                rig.disk.fail_at(operation, Failure::Error(code));
                rig.prepare(0);
                if rig.disk.operations() <= operation {
                    break;
                }
                failed += 1;
                assert!(!rig.is_poisoned, "{code:?} {at}");
                // While others are on their way it is no full disk.
                assert_eq!(rig.log.is_out_of_space(), rig.prepares.is_empty(), "{code:?} {at}");
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

/// It asked the disk for more, was told that this is full, and appends were refused beside segments that nobody needs.
#[test]
fn a_segment_that_is_wanted_at_once_takes_the_room_of_one_that_is_not_needed() {
    let mut rig = ordering(true, Fill::Allocated);
    let used = rig.disk.used_bytes();
    rig.disk.set_capacity(used);
    rig.prepare(0);
    assert!(!rig.log.is_out_of_space());
    assert_eq!(rig.disk.used_bytes(), used);
    rig.disk.set_capacity(1 << 40);
    rig.rest();
    rig.check();
    rig.disk.crash(&mut Random::seeded(1));
    rig.reopened().rest();
}

/// Whoever closes a log waits for what it was asked for.
#[test]
fn a_cover_for_which_there_is_no_room_is_not_waited_for() {
    let mut rig = Rig::new(options());
    rig.settle();
    rig.disk.set_capacity(rig.disk.used_bytes());
    for _ in 0..100 {
        if !rig.log.may_fit_cover() {
            break;
        }
        rig.grow(G, 1, 600);
        rig.settle();
    }
    assert_eq!(rig.log.durable_ticket(), rig.log.last_ticket());
    rig.rest();
    assert!(!rig.log.is_covered());
    assert!(!rig.log.cover());
    assert!(rig.log.is_idle());
    rig.disk.set_capacity(1 << 40);
    for _ in 0..10 {
        rig.rest();
    }
    assert!(rig.log.is_covered(), "there is room again");
    rig.check();
}

/// One failed while others were on their way, which then came too late for their numbers: no other was ordered any more, and
/// nothing said that the disk was full.
#[test]
fn a_segment_that_cannot_be_made_beside_late_ones_is_tried_again() {
    let mut rig = ordering(false, Fill::Allocated);
    rig.prepare(0);
    rig.pump();
    rig.disk.complete_all();
    rig.take();
    rig.pump();
    rig.log.hurry_room();
    rig.pump();
    let at = rig.prepares.iter().position(|order| order.fill == Fill::Allocated).expect("one is hurried");
    rig.disk.fail_at(rig.disk.operations(), Failure::Error(Code::NoSpace));
    rig.prepare(at);
    assert!(!rig.log.is_out_of_space() && !rig.prepares.is_empty(), "others are on their way");
    assert!(rig.prepares.iter().all(|order| order.header.number < rig.log.active.number), "and all of them late");
    for _ in 0..rig.prepares.len() {
        rig.prepare(0);
    }
    rig.pump();
    assert!(!rig.prepares.is_empty(), "another is made");
    rig.rest();
    rig.check();
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

/// D12: the disk is full, in the midst of appends and of a rotation, and free again. Votes are saved all the same:
/// they need no room.
pub fn full_and_free_again(proof: &Proof) {
    const CYCLES: u64 = 20;
    proof.spread(proof.pick(60, 1_000, 1_000) / CYCLES, |seed| {
        let mut rig = Rig::new(Options { seed, ..options() });
        let mut voter = Voter::new(&rig.disk);
        rig.settle();
        for cycle in 0..CYCLES {
            rig = fill_and_free(rig, &mut voter, seed + cycle);
            proof.case();
        }
    });
}

fn fill_and_free(mut rig: Rig, voter: &mut Voter, cycle: u64) -> Rig {
    rig.disk.set_capacity(rig.disk.used_bytes() + 30_000 * (cycle % 4));
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
    voter.save();
    voter.settle(&rig.disk);
    assert!(voter.is_durable(), "{cycle}: a vote needs no room");
    if cycle.is_multiple_of(3) {
        rig.disk.crash(&mut Random::seeded(cycle));
        rig = rig.reopened();
        voter.check(&rig.disk.fork(), &|| format!("cycle {cycle}"));
        *voter = Voter::load(&rig.disk).expect("it is intact");
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
    rig
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
    tear(&mut rig);
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
