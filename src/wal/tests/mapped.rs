//! Ended segments are read by memory map, and what a map shows is checked like everything else.

use std::cell::Cell;
use std::rc::Rc;

use super::rig::{G, Rig, options, read_by_plans, segment};
use super::seals::open_by_seals;
use crate::limits::SEGMENT_BYTES_MIN;
use crate::sim::disk::{Act, Code, Failure, SimDisk};
use crate::types::{Entry, GroupId, Index, SegmentNumber};
use crate::wal::locator::PARTS_MAX;
use crate::wal::{Checked, Error, Log, Options};

/// Three segments or more, the last of them in use.
fn rotated() -> Rig {
    let mut rig = Rig::new(options());
    for _ in 0..3 {
        rig.rotate(G);
    }
    rig.grow(G, 2, 900);
    rig.settle();
    rig
}

fn read(rig: &Rig, disk: &SimDisk, from: u64) -> Result<Vec<Entry>, Error> {
    let to = rig.model.group(G).last().index.next();
    rig.log.plan_read(G, Index(from), to, usize::MAX).run(&disk.files())
}

/// Counts how often something is done to a file of this name.
fn count(disk: &SimDisk, act: Act, name: String) -> Rc<Cell<usize>> {
    let count = Rc::new(Cell::new(0));
    let seen = Rc::clone(&count);
    disk.observe(move |event| seen.set(seen.get() + usize::from(event.act == act && event.name == name)));
    count
}

#[test]
fn an_ended_segment_is_mapped_and_the_one_in_use_is_not() {
    let rig = rotated();
    let (first, active) = (segment(1), segment(rig.log.active.number.0));
    for (act, name, expected) in
        [(Act::Map, &first, 1), (Act::Read, &first, 0), (Act::Map, &active, 0), (Act::Read, &active, 1)]
    {
        let disk = rig.disk.fork();
        let seen = count(&disk, act, name.clone());
        assert_eq!(read(&rig, &disk, 1).expect("it is intact"), rig.model.group(G).entries);
        assert_eq!(seen.get().min(1), expected, "{act:?} {name}");
    }
}

#[test]
fn damage_in_a_mapped_segment_is_told_as_by_a_direct_read() {
    let rig = rotated();
    let all = rig.model.group(G).entries;
    let mut told = 0;
    for at in (4096..SEGMENT_BYTES_MIN).step_by(331) {
        let disk = rig.disk.fork();
        disk.flip_bit(&segment(1), at, 3);
        let unmapped = disk.fork();
        for from in 1..=3 {
            // The first thing that a read of this segment does is to map it.
            unmapped.fail_at(unmapped.operations(), Failure::Error(Code::Io));
            match (read(&rig, &disk, from), read(&rig, &unmapped, from)) {
                (Ok(mapped), Ok(direct)) => assert!(mapped == direct && all[from as usize - 1..].starts_with(&mapped)),
                (Err(Error::Damaged(mapped)), Err(Error::Damaged(direct))) => {
                    assert_eq!(format!("{mapped:?}"), format!("{direct:?}"), "{at}");
                    told += 1;
                }
                (mapped, direct) => panic!("{at} {from}: {mapped:?}, {direct:?}"),
            }
        }
    }
    assert!(told > 40, "{told}");
}

#[test]
fn a_sector_that_cannot_be_mapped_is_an_error_of_the_disk() {
    let rig = rotated();
    rig.disk.make_unreadable(&segment(1), 12_288..12_800);
    let refusal = read(&rig, &rig.disk, 1).expect_err("a sector of it cannot be read");
    assert!(matches!(refusal, Error::Disk(_)), "{refusal}");
}

/// The segments that a plan speaks of are purged, zeroed and used again before it is run.
#[test]
fn a_plan_of_segments_that_were_used_again_is_stale() {
    let mut rig = rotated();
    let plan = rig.log.plan_read(G, Index(1), Index(3), 1 << 20);
    let last = rig.model.group(G).entries[5].id;
    rig.purge(G, last);
    for _ in 0..3 {
        rig.rotate(G);
    }
    let said = plan.run(&rig.files);
    assert!(matches!(said, Err(Error::Stale { .. })), "{said:?}");
}

/// A plan is made while the log waits: a long range takes several.
#[test]
fn a_plan_over_many_segments_is_cut_and_gone_on_with() {
    let mut rig = Rig::new(options());
    let segments = PARTS_MAX as u64 + 20;
    while rig.log.counters().segments < segments {
        rig.grow(G, 1, 20_000);
        rig.settle();
    }
    let all = rig.model.group(G).entries;
    for from in [1, 7, all.len() as u64 - 40] {
        let mut plans = 0;
        let found = read_by_plans(&rig, from, |plan| {
            assert!(plan.parts.len() <= PARTS_MAX);
            plans += 1;
        });
        assert_eq!(found, all[from as usize - 1..]);
        assert_eq!(plans, if from < 10 { 2 } else { 1 }, "from {from}");
    }
}

/// Every second place of a full sparse index goes, and with it the only place of a group that is seldom written. What
/// that group has in the segment is found all the same.
#[test]
fn entries_of_a_group_are_found_whose_first_place_was_thinned_out() {
    let mut rig = Rig::new(Options { segment_bytes: 8 << 20, ..options() });
    let (busy, seldom) = (GroupId(0), GroupId(1));
    rig.grow(seldom, 4, 100);
    rig.settle();
    while rig.log.counters().segments < 1 {
        rig.grow(busy, 1, 100_000);
        rig.settle();
    }
    // In the second segment the seldom one comes second, and again much later.
    rig.grow(busy, 1, 20_000);
    rig.settle();
    for _ in 0..3 {
        rig.grow(seldom, 10, 100);
        rig.settle();
        for _ in 0..50 {
            rig.grow(busy, 1, 20_000);
            rig.settle();
        }
    }
    assert_eq!(rig.log.counters().segments, 1);
    let all = rig.model.group(seldom).entries;
    for from in 1..=all.len() {
        for to in from + 1..=all.len() + 1 {
            let plan = rig.log.plan_read(seldom, Index(from as u64), Index(to as u64), usize::MAX);
            let found = plan.run(&rig.files).unwrap_or_else(|error| panic!("{from}..{to}: {error}"));
            assert_eq!(found, all[from - 1..to - 1], "{from}..{to}");
        }
    }
}

#[test]
fn a_map_that_the_kernel_refuses_costs_no_read() {
    let rig = rotated();
    rig.disk.fail_at(rig.disk.operations(), Failure::Error(Code::TooManyFiles));
    assert_eq!(read(&rig, &rig.disk, 1).expect("it is intact"), rig.model.group(G).entries);
}

/// A log that was opened by its seals, and a disk with it.
fn by_seals() -> (SimDisk, Log, Vec<Entry>) {
    let mut rig = rotated();
    rig.rest();
    let Rig { disk, model, .. } = rig;
    disk.crash_to(&vec![0; disk.loose().len()]);
    let log = open_by_seals(&disk, &options()).expect("it is intact");
    (disk, log, model.group(G).entries)
}

fn scrubbed(log: &Log, disk: &SimDisk, number: u64) -> Checked {
    let extent = log.sealed_extent(SegmentNumber(number)).expect("it is sealed");
    extent.check(&disk.files()).expect("its file is there")
}

/// Whether the first entry is read by a map of its segment.
fn is_mapped(log: &Log, disk: &SimDisk) -> bool {
    let fork = disk.fork();
    let maps = count(&fork, Act::Map, segment(1));
    let plan = log.plan_read(G, Index(1), Index(2), 1);
    assert_eq!(plan.run(&fork.files()).expect("it is intact").len(), 1);
    maps.get() > 0
}

/// No start has read it, and a scrub has: what it found clean is read by map from then on.
#[test]
fn a_segment_taken_by_its_seal_is_mapped_once_a_scrub_found_it_clean() {
    let (disk, mut log, all) = by_seals();
    assert!(!is_mapped(&log, &disk));
    let other = scrubbed(&log, &disk, 2);
    log.mark_verified(&other);
    assert!(!is_mapped(&log, &disk), "another one was scrubbed");
    let checked = scrubbed(&log, &disk, 1);
    log.mark_verified(&checked);
    assert!(is_mapped(&log, &disk));
    let found = log.plan_read(G, Index(1), Index(u64::MAX), usize::MAX).run(&disk.files());
    assert_eq!(found.expect("it is intact"), all);
}

#[test]
fn all_of_a_log_that_was_verified_whole_is_mapped() {
    let (disk, mut log, _) = by_seals();
    let checked = log.extent().check(&disk.files()).expect("its files are there");
    log.mark_verified(&checked);
    assert!(log.locator.segments().all(|segment| segment.is_verified));
}

#[test]
fn a_segment_with_a_finding_is_not_mapped() {
    let (disk, mut log, _) = by_seals();
    let damaged = disk.fork();
    let end = log.locator.segments().next().expect("it holds the first entry").end;
    damaged.make_unreadable(&segment(1), end - 4096..end - 3584);
    for checked in [scrubbed(&log, &damaged, 1), log.extent().check(&damaged.files()).expect("its files are there")] {
        assert!(!checked.findings.is_empty());
        log.mark_verified(&checked);
        let verified: Vec<_> = log.locator.segments().map(|segment| segment.is_verified).collect();
        assert!(!verified[0] && verified[2..].iter().all(|&verified| verified), "{verified:?}");
    }
    assert!(!is_mapped(&log, &disk));
}

/// It was mapped, since it was written by this very process: until somebody finds out what became of it.
#[test]
fn a_finding_takes_back_the_mark_of_a_segment_that_was_written_since() {
    let mut rig = rotated();
    rig.rest();
    let end = rig.log.locator.segments().next().expect("it holds the first entry").end;
    for at in [4096, 8192, end - 4096] {
        let damaged = rig.disk.fork();
        damaged.make_unreadable(&segment(1), at..at + 512);
        for is_whole in [false, true] {
            assert!(is_mapped(&rig.log, &rig.disk));
            let checked = match is_whole {
                false => scrubbed(&rig.log, &damaged, 1),
                true => rig.log.extent().check(&damaged.files()).expect("its files are there"),
            };
            rig.log.mark_verified(&checked);
            assert!(!is_mapped(&rig.log, &rig.disk), "{at} {is_whole}");
            assert!(rig.log.locator.segments().skip(1).all(|segment| segment.is_verified));
            let clean = scrubbed(&rig.log, &rig.disk, 1);
            rig.log.mark_verified(&clean);
        }
    }
    assert!(is_mapped(&rig.log, &rig.disk));
}

/// It was retired while it was read, and another one has its number or its room.
#[test]
fn a_segment_that_became_another_one_is_not_mapped() {
    let (disk, mut log, _) = by_seals();
    let checked = scrubbed(&log, &disk, 1);
    let changes: [fn(&mut Checked); 3] = [
        |checked| checked.clean[0].0.salt ^= 1,
        |checked| checked.clean[0].0.number = SegmentNumber(77),
        |checked| checked.clean[0].1 -= 4096,
    ];
    for change in changes {
        let mut changed = checked.clone();
        change(&mut changed);
        log.mark_verified(&changed);
        assert!(!is_mapped(&log, &disk));
    }
}
