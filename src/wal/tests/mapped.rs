//! Ended segments are read by memory map, and what a map shows is checked like everything else.

use std::cell::Cell;
use std::rc::Rc;

use super::rig::{G, Rig, options, segment};
use crate::limits::SEGMENT_BYTES_MIN;
use crate::sim::disk::{Act, Code, Failure, SimDisk};
use crate::types::{Entry, GroupId, Index};
use crate::wal::locator::PARTS_MAX;
use crate::wal::{Error, Options};

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
        let mut found: Vec<Entry> = Vec::new();
        let mut plans = 0;
        loop {
            let at = Index(from + found.len() as u64);
            let plan = rig.log.plan_read(G, at, Index(u64::MAX), usize::MAX);
            assert!(plan.parts.len() <= PARTS_MAX);
            plans += 1;
            let read = plan.run(&rig.files).expect("it is intact");
            assert!(!read.is_empty() || !plan.is_cut(), "each plan goes on");
            found.extend(read);
            if !plan.is_cut() {
                break;
            }
        }
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
