//! Segments that nobody needs: a few are kept for use again, the room of the others goes back to the disk.

use std::collections::BTreeSet;

use super::crash::cuts;
use super::rig::{DIRECTORY, G, READINGS, Rig, Start, open_as, options};
use crate::disk::{Error, Files, Operation};
use crate::limits::{SEGMENT_BYTES_MIN, SEGMENTS_GIVEN_UP, SEGMENTS_READY, SEGMENTS_SPARE};
use crate::random::Random;
use crate::sim::disk::{Act, Code, Failure, SimDisk};
use crate::types::{Place, SegmentNumber};
use crate::wal::Remove;

/// Of a log that needs its active segment alone: what stands ready, and what is kept of those that were given up.
const FILES_AT_REST: usize = 1 + SEGMENTS_READY + SEGMENTS_SPARE + SEGMENTS_GIVEN_UP;
const SEGMENTS: u64 = 12;

/// So many segments are full, and another one is in use.
fn full(segments: u64) -> Rig {
    let mut rig = Rig::new(options());
    rig.settle();
    for _ in 0..segments {
        rig.rotate(G);
    }
    rig.settle();
    rig
}

/// All but its last entry goes; nothing of what that sets free is removed yet.
fn purge(rig: &mut Rig) {
    let entries = rig.model.group(G).entries;
    rig.purge(G, entries[entries.len() - 2].id);
    rig.pump();
    rig.disk.complete_all();
    rig.take();
    rig.pump();
}

fn names(disk: &SimDisk) -> Vec<String> {
    disk.files().list(DIRECTORY).expect("it is there")
}

#[test]
fn what_a_big_purge_sets_free_goes_back_to_the_disk() {
    let mut rig = full(SEGMENTS);
    let (files, bytes) = (names(&rig.disk).len(), rig.disk.used_bytes());
    assert!(files as u64 > SEGMENTS, "{files}");
    purge(&mut rig);
    assert_eq!(rig.removes.len(), 1, "one after the other");
    rig.settle();
    let left = names(&rig.disk).len();
    assert!(left <= FILES_AT_REST, "{left} of {files} files");
    assert_eq!(bytes - rig.disk.used_bytes(), (files - left) as u64 * SEGMENT_BYTES_MIN);
    assert_eq!(rig.log.counters().removed_segments, (files - left) as u64);
    assert_eq!(rig.log.recyclable.len(), SEGMENTS_GIVEN_UP);
    rig.check();
    // What is kept is used before a new one is made.
    let used = rig.disk.used_bytes();
    for _ in 0..SEGMENTS_GIVEN_UP {
        rig.rotate(G);
        rig.settle();
    }
    assert_eq!(rig.disk.used_bytes(), used);
    rig.rotate(G);
    rig.settle();
    assert_eq!(rig.disk.used_bytes(), used + SEGMENT_BYTES_MIN);
    rig.check();
    rig.disk.crash(&mut Random::seeded(1));
    rig.reopened().check();
}

/// Of a process that died before it removed them, or of a program that kept all of them.
#[test]
fn a_start_gives_back_what_another_life_gave_up() {
    for reading in READINGS {
        let mut rig = full(SEGMENTS);
        rig.keeps_given_up = true;
        purge(&mut rig);
        rig.settle();
        rig.disk.crash_to(&vec![0; rig.disk.loose().len()]);
        assert!(names(&rig.disk).len() as u64 > SEGMENTS);
        let start = Start { reading, evidence: Place::START };
        let (log, _, found) = open_as(&rig.disk, &options(), start).expect("nothing is wrong with it");
        assert!(rig.model.is_possible(&found));
        rig.model.recover(found);
        let mut rig = Rig::with(rig.disk, log, rig.model);
        rig.settle();
        let left = names(&rig.disk).len();
        assert!(left <= FILES_AT_REST, "{reading:?}: {left} files");
        rig.check();
    }
}

/// The power goes at each operation of a purge that removes many, and each subset of what is loose survives.
#[test]
fn a_cut_at_each_operation_of_giving_back_loses_nothing() {
    let (mut seen, mut lives) = (BTreeSet::new(), 0);
    for at in 0.. {
        let mut rig = full(SEGMENTS_GIVEN_UP as u64 + 4);
        rig.disk.crash_at(rig.disk.operations() + at);
        purge(&mut rig);
        rig.settle();
        let is_over = !rig.disk.is_off();
        let removed = rig.log.counters().removed_segments;
        let mut random = Random::seeded(at);
        let learned = rig.learned.clone();
        cuts(&rig.disk, 64, &mut Random::seeded(at), |fork| {
            let start = Start::drawn(&learned, &mut random);
            let opened = open_as(&fork, &options(), start);
            let (log, recovery, found) = opened.unwrap_or_else(|error| panic!("cut at {at}, {start:?}: {error}"));
            assert!(rig.model.is_possible(&found), "cut at {at}, {start:?}");
            assert!(recovery.findings.is_empty(), "cut at {at}: {:?}", recovery.findings);
            // What was told to be removed stays so.
            assert!((1..=removed).all(|gone| log.recyclable.keys().all(|own| *own != SegmentNumber(gone))), "{at}");
            let mut model = rig.model.clone();
            model.recover(found);
            let mut again = Rig::with(fork, log, model);
            again.grow(G, 2, 100);
            again.settle();
            purge(&mut again);
            again.settle();
            assert!(names(&again.disk).len() <= FILES_AT_REST, "cut at {at}: {:?}", names(&again.disk));
            again.check();
            lives += 1;
        });
        seen.insert(removed);
        if is_over {
            break;
        }
    }
    assert!(seen.len() >= 4 && lives > 75, "{seen:?}, {lives} lives");
    println!("{lives} lives, {seen:?} segments removed");
}

/// So many ticks pass.
fn elapse(rig: &mut Rig, ticks: u32) {
    for _ in 0..ticks {
        rig.log.tick(1);
        rig.settle();
    }
}

/// Nothing of the log is at stake: it goes on, tries no other one in vain, and again after a while. A file whose name went and
/// that could not be made durable is gone when that was.
#[test]
fn a_removal_that_fails_stops_nothing_and_is_tried_again() {
    for (act, code) in [(Act::Remove, Code::Io), (Act::Remove, Code::NoSpace), (Act::SyncDirectory, Code::Io)] {
        let mut rig = full(SEGMENTS);
        purge(&mut rig);
        let at = rig.disk.operations() + u64::from(act == Act::SyncDirectory);
        rig.disk.fail_at(at, Failure::Error(code));
        rig.remove();
        assert!(rig.disk.operations() > at, "it was reached");
        rig.settle();
        let counted = |rig: &Rig| {
            let counters = rig.log.counters();
            (counters.removed_segments, counters.removals_failed, counters.unremoved_segments)
        };
        assert!(!rig.is_poisoned, "{act:?}");
        assert_eq!(counted(&rig), (0, 1, 1), "{act:?}");
        let files = names(&rig.disk).len();
        assert!(files > FILES_AT_REST, "{act:?}: {files}");
        elapse(&mut rig, 99);
        assert_eq!((counted(&rig), names(&rig.disk).len()), ((0, 1, 1), files), "{act:?}");
        elapse(&mut rig, 1);
        let (removed, failed, unremoved) = counted(&rig);
        assert_eq!((failed, unremoved), (1, 0), "{act:?}");
        assert!(removed > 4 && names(&rig.disk).len() <= FILES_AT_REST, "{act:?}: {removed}");
        rig.check();
        rig.disk.crash_to(&vec![0; rig.disk.loose().len()]);
        let mut rig = rig.reopened();
        rig.settle();
        assert!(names(&rig.disk).len() <= FILES_AT_REST, "{act:?}");
        rig.check();
    }
}

/// What never succeeds is tried ever more seldom, and few are given up for it; more that are given up are a reason to try again.
#[test]
fn a_disk_that_removes_nothing_is_asked_seldom_and_keeps_most_for_use_again() {
    let mut rig = full(SEGMENTS);
    purge(&mut rig);
    let mut tried = Vec::new();
    for tick in 0..100_000_u32 {
        rig.pump();
        while rig.removes.pop_front_if(|_| true).map(|order| fail(&mut rig, &order)).is_some() {
            tried.push(tick);
        }
        rig.log.tick(1);
    }
    let waits: Vec<u32> = tried.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert_eq!(waits[..8], [100, 200, 400, 800, 1600, 3200, 6400, 6400]);
    let counters = rig.log.counters();
    assert_eq!((counters.removals_failed, counters.unremoved_segments), (tried.len() as u64, 4));
    assert!(rig.log.recyclable.len() > SEGMENTS_GIVEN_UP, "they can be used");
    // It works again.
    elapse(&mut rig, 6_400);
    assert_eq!(rig.log.counters().unremoved_segments, 0);
    assert!(names(&rig.disk).len() <= FILES_AT_REST);
    rig.check();
}

fn fail(rig: &mut Rig, order: &Remove) {
    order.file.into_iter().for_each(|file| rig.files.close(file));
    let error = Error::new(Operation::Remove, "a segment", std::io::Error::other("no"));
    rig.log.removed(order.number, &Err(error));
}

/// One file that cannot go keeps no other.
#[test]
fn others_are_removed_beside_one_that_cannot_be() {
    let mut rig = full(SEGMENTS);
    purge(&mut rig);
    let stuck = rig.removes.pop_front().expect("there is one");
    fail(&mut rig, &stuck);
    for _ in 0..20_000_u32 {
        rig.pump();
        while let Some(order) = rig.removes.pop_front() {
            if order.number == stuck.number {
                fail(&mut rig, &order);
            } else {
                rig.removes.push_front(order);
                rig.remove();
            }
            rig.pump();
        }
        rig.log.tick(1);
    }
    assert_eq!(rig.log.counters().unremoved_segments, 1);
    assert!(rig.log.counters().removals_failed < 12, "{:?}", rig.log.counters());
    assert_eq!(rig.log.recyclable.len(), SEGMENTS_GIVEN_UP);
    assert_eq!(names(&rig.disk).len(), FILES_AT_REST + 1);
}

/// The disk has no room for a segment, a purge is taken all the same, and what it sets free is used, here or by others.
#[test]
fn a_purge_on_a_full_disk_makes_room_for_the_log_and_for_others() {
    let mut rig = full(SEGMENTS);
    rig.disk.set_capacity(rig.disk.used_bytes());
    // What is queued and finds no segment would hold up the purge: nobody appends more than there is room for.
    while rig.log.room().bytes > 30_000 {
        rig.grow(G, 1, 20_000);
        rig.settle();
    }
    assert!(rig.log.is_out_of_space(), "the disk is full");
    let used = rig.disk.used_bytes();
    purge(&mut rig);
    rig.rest();
    assert!(!rig.log.is_out_of_space());
    assert_eq!(rig.log.durable_ticket(), rig.log.last_ticket());
    let free = used - rig.disk.used_bytes();
    assert!(free >= 6 * SEGMENT_BYTES_MIN, "{free} bytes are free for others");
    // Others take it, and the log goes on in what it has kept for itself.
    rig.disk.set_capacity(rig.disk.used_bytes());
    for _ in 0..SEGMENTS_GIVEN_UP {
        rig.rotate(G);
        rig.settle();
    }
    assert!(!rig.log.is_out_of_space());
    rig.check();
    rig.disk.crash(&mut Random::seeded(4));
    rig.reopened().check();
}
