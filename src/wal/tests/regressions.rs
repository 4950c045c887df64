//! Bugs that were found, each by its name.

use super::model::{entry, state_of};
use super::rig::{DIRECTORY, G, Rig, identity, open, options, segment};
use crate::disk::Files;
use crate::random::Random;
use crate::sim::disk::{Code, Failure, SimDisk};
use crate::types::{
    Entry, GroupId, Incarnation, Index, LogId, Member, Membership, NodeId, Payload, Place, SegmentNumber, Term,
};
use crate::wal::log::Phase;
use crate::wal::{Error, Identity, Log, Options, Refused};

/// A crash between the seal and the next open frame: the sealed segment was written on.
#[test]
fn a_sealed_segment_takes_no_more_frames() {
    let mut rig = Rig::new(options());
    rig.settle();
    while rig.log.phase != Phase::Sealing {
        rig.grow(G, 1, 22_000);
        rig.pump();
        if rig.log.phase != Phase::Sealing {
            rig.disk.complete_all();
            rig.take();
        }
    }
    rig.disk.complete_all();
    rig.disk.crash_to(&vec![0; rig.disk.loose().len()]);
    let mut rig = rig.reopened();
    // There is room for it behind the seal.
    rig.grow(G, 1, 50);
    rig.settle();
    assert!(rig.log.active.number > SegmentNumber(1));
    rig.check();
    rig.disk.crash(&mut Random::seeded(1));
    rig.reopened().check();
}

/// A crash in the midst of making a log left a directory that could be neither made nor opened.
#[test]
fn making_a_log_survives_a_crash_at_each_operation() {
    let mut cases = 0;
    for at in 0.. {
        let disk = SimDisk::new();
        disk.crash_at(at);
        if Log::create(&disk.files(), options(), 1).is_ok() {
            break;
        }
        for seed in 0..8 {
            let disk = disk.fork();
            disk.crash(&mut Random::seeded(seed));
            let is_there = disk.files().list("").expect("no fault").iter().any(|name| name == DIRECTORY);
            let opened = if is_there { open(&disk, &options()).map(drop) } else { Ok(()) };
            if !is_there || matches!(opened, Err(Error::Missing { .. })) {
                let log = Log::create(&disk.files(), options(), 1).expect("what is left is no log");
                Rig::with(disk, log, super::model::Model::new(Default::default())).rest();
            } else {
                opened.expect("the log is there or not");
            }
            cases += 1;
        }
    }
    assert!(cases >= 80, "{cases}");
}

/// What was left belonged to the incarnation of the first attempt, and no other could be made beside it or started.
#[test]
fn making_a_log_begins_anew_whatever_the_first_attempt_left() {
    let own = Options { identity: Identity { incarnation: Incarnation(9), ..identity() }, seed: 8, ..options() };
    let mut cases = 0;
    for at in 0.. {
        let disk = SimDisk::new();
        disk.crash_at(at);
        let is_made = Log::create(&disk.files(), options(), 1).is_ok();
        for seed in 0..8 {
            let disk = disk.fork();
            disk.crash(&mut Random::seeded(seed));
            let log = Log::create(&disk.files(), own.clone(), 1).unwrap_or_else(|error| panic!("{at}: {error}"));
            log.close(&disk.files());
            disk.crash(&mut Random::seeded(seed));
            open(&disk, &own).unwrap_or_else(|error| panic!("{at}: {error}"));
            cases += 1;
        }
        if is_made {
            break;
        }
    }
    assert!(cases >= 80, "{cases}");
}

/// What the first attempt had left stayed open where the second failed, and its lock was held.
#[test]
fn what_a_failed_making_found_is_not_held() {
    let left = SimDisk::new();
    let made = Log::create(&left.files(), options(), 1).expect("the disk is well");
    drop(made);
    left.kill(&mut Random::seeded(1));
    let mut cases = 0;
    for at in 0.. {
        let disk = left.fork();
        let files = disk.files();
        disk.fail_at(disk.operations() + at, Failure::Error(Code::Io));
        let failed = Log::create(&files, options(), 1);
        disk.clear_failures();
        match failed {
            Ok(_) if at > 40 => break,
            Ok(log) => log.close(&files),
            Err(_) => cases += 1,
        }
        Log::create(&files, options(), 1).unwrap_or_else(|error| panic!("{at}: {error}")).close(&files);
    }
    assert!(cases >= 10, "{cases}");
}

/// A retired segment of another size became one whose last header stood in the wrong place.
#[test]
fn the_size_of_segments_can_change() {
    let large = Options { segment_bytes: 256 << 10, ..options() };
    let mut rig = Rig::new(large);
    for _ in 0..3 {
        for _ in 0..12 {
            rig.grow(G, 1, 20_000);
            rig.settle();
        }
    }
    let last = rig.model.group(G).last();
    rig.purge(G, last);
    rig.rest();
    let Rig { disk, model, .. } = rig;
    disk.crash(&mut Random::seeded(3));
    let (log, _, found) = open(&disk, &options()).expect("the log is intact");
    assert!(model.is_possible(&found));
    let mut rig = Rig::with(disk, log, super::model::Model::new(found));
    rig.model.term = Term(2);
    for _ in 0..12 {
        rig.grow(G, 1, 20_000);
        rig.settle();
        let last = rig.model.group(G).last();
        rig.purge(G, last);
        rig.settle();
    }
    rig.disk.crash(&mut Random::seeded(4));
    rig.reopened().check();
}

/// The terms of entries in retired segments are not known; they were taken to be that of the last one.
#[test]
fn names_before_the_chain_are_not_guessed() {
    let mut rig = Rig::new(options());
    rig.grow(G, 4, 100);
    rig.model.term = Term(2);
    rig.grow(G, 4, 100);
    rig.rotate(G);
    rig.model.term = Term(3);
    let entries = rig.model.entries_behind(Index(2), 3, 100);
    rig.append(G, &entries);
    rig.settle();
    rig.purge(G, LogId::new(Term(3), Index(20)));
    rig.rotate(G);
    rig.rotate(G);
    rig.rest();
    assert!(!rig.files.list(DIRECTORY).expect("no fault").contains(&"0000000000000001.segment".to_owned()));
    rig.disk.crash(&mut Random::seeded(5));
    rig.reopened().check();
}

/// A truncate of a group that has no entries moved its beginning at the next start.
#[test]
fn truncating_an_unknown_group_does_nothing() {
    let mut rig = Rig::new(options());
    rig.truncate(GroupId(9), Index(5));
    rig.purge(GroupId(8), LogId::ZERO);
    assert_eq!(rig.log.groups().count(), 0);
    rig.grow(GroupId(9), 3, 10);
    rig.settle();
    rig.disk.crash(&mut Random::seeded(6));
    rig.reopened().check();
    let mut rig = Rig::new(options());
    let refused = rig.log.append(G, &[entry(Term(1), Index(0), 1)]).expect_err("no entry lies before the log");
    assert!(matches!(refused, Refused::Gap { .. }));
}

/// A refused log kept its locks: nobody could open it after a repair.
#[test]
fn a_refused_log_is_not_held() {
    let mut rig = Rig::new(options());
    rig.grow(G, 3, 5000);
    rig.rest();
    let Rig { disk, model, .. } = rig;
    disk.crash(&mut Random::seeded(7));
    disk.flip_bit(&segment(1), 9000, 3);
    let files = disk.files();
    let refusal = Log::open(&files, options(), Place::START, 1).expect_err("it is damaged");
    assert!(matches!(refusal, Error::Damaged(_)), "{refusal}");
    disk.flip_bit(&segment(1), 9000, 3);
    let (log, _) = Log::open(&files, options(), Place::START, 1).expect("it is repaired");
    assert!(model.is_possible(&state_of(&files, &log).expect("it can be read")));
}

/// Entries that a truncate had ended were read until others were written in their place.
#[test]
fn truncated_entries_are_not_read() {
    let mut rig = Rig::new(options());
    rig.grow(G, 6, 10);
    rig.settle();
    rig.truncate(G, Index(3));
    rig.settle();
    let found = rig.log.plan_read(G, Index(1), Index(7), 1 << 20).run(&rig.files).expect("no damage");
    assert_eq!(found.len(), 2);
}

/// Of a batch in pieces the first ones were taken before a later one was refused.
#[test]
fn a_refused_batch_in_pieces_is_refused_whole() {
    let mut rig = Rig::new(options());
    let mut entries = rig.model.entries_behind(Index(0), 3, 20_000);
    entries.push(entry(Term(1), Index(4), 40_000));
    assert!(matches!(rig.log.append_each(G, &entries), Err(Refused::TooLarge { .. })));
    assert_eq!(rig.log.groups().count(), 0);
    rig.log.append_each(G, &entries[..3]).expect("each fits");
}

/// A plan for a segment that was used again said that the log was damaged, and then that nothing was there.
#[test]
fn a_stale_plan_says_so() {
    let mut rig = Rig::new(options());
    rig.grow(G, 3, 100);
    rig.rotate(G);
    let plan = rig.log.plan_read(G, Index(1), Index(3), 1 << 20);
    assert_eq!(plan.run(&rig.files).expect("it is there").len(), 2);
    rig.purge(G, rig.model.group(G).last());
    rig.rotate(G);
    rig.rest();
    assert!(matches!(plan.run(&rig.files), Err(Error::Stale { wanted: Index(1), .. })));
    let first = rig.log.group(G).expect("it has entries").first();
    let purged = rig.log.plan_read(G, Index(1), Index(3), 1 << 20).run(&rig.files);
    assert!(matches!(purged, Err(Error::Trimmed { wanted: Index(1), first: found, .. }) if found == first));
}

/// Of two configurations at the same index of one frame, the one that counts was taken for the one that had ended.
#[test]
fn a_configuration_written_again_in_its_frame_is_not_lost() {
    let mut rig = Rig::new(options());
    rig.settle();
    let configuration = |term: u64| {
        let member = Member { id: NodeId(term), incarnation: Incarnation(1), address: ([127, 0, 0, 1], 1).into() };
        let members = Membership { voters: [member.id].into(), members: vec![member], ..Membership::default() };
        [Entry { id: LogId::new(Term(term), Index(1)), payload: Payload::Membership(members.into()) }]
    };
    rig.append(G, &configuration(1));
    rig.truncate(G, Index(1));
    rig.append(G, &configuration(2));
    rig.rest();
    rig.disk.crash(&mut Random::seeded(1));
    let (_, recovery, _) = open(&rig.disk, &options()).expect("it is intact");
    let [(index, found)] = recovery.memberships[&G].as_slice() else { panic!("{:?}", recovery.memberships) };
    assert_eq!((*index, &found.voters), (Index(1), &[NodeId(2)].into()));
}
