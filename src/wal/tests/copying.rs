//! Copying forward: what is chosen, what becomes of the log, and what gets in between.

use std::collections::BTreeSet;

use super::rig::{DIRECTORY, G, Rig, open, options, segment};
use super::seals::{compare, configure};
use crate::disk::Files;
use crate::limits::{FRAME_RECORDS_MAX, FRAME_RUNS_MAX, SEGMENT_BYTES_MIN};
use crate::random::Random;
use crate::types::{GroupId, Index, LogId, SegmentNumber, Term};
use crate::wal::copying::{Choice, Ended, Needs, choose};
use crate::wal::followed::Followed;
use crate::wal::frame::{FRAME_OVERHEAD_BYTES_MAX, batch_bytes_max};
use crate::wal::sections::OPEN_SECTION_BYTES_MAX;
use crate::wal::{Error, Options, Severity};

/// The group that is seldom written.
pub(super) const SELDOM: GroupId = GroupId(3);
const OTHER: GroupId = GroupId(4);
const AROUND: usize = FRAME_OVERHEAD_BYTES_MAX + OPEN_SECTION_BYTES_MAX;

/// Segments whose oldest is needed by [`SELDOM`] alone.
pub(super) fn pinned(options: Options) -> Rig {
    let mut rig = Rig::new(options);
    rig.settle();
    rig.grow(SELDOM, 3, 300);
    pass(&mut rig);
    rig.settle();
    rig
}

/// The busy group goes through three segments, and ends what was in them.
pub(super) fn pass(rig: &mut Rig) {
    for _ in 0..3 {
        rig.rotate(G);
    }
    rig.purge(G, rig.model.group(G).last());
}

fn oldest(rig: &Rig) -> SegmentNumber {
    rig.log.locator.segments().next().expect("there is always one").header.number
}

/// What survives of a log if nothing is lost, opened again both ways.
fn reopened(rig: Rig) -> Rig {
    rig.disk.crash_to(&vec![0; rig.disk.loose().len()]);
    compare(&rig.disk, rig.log.options());
    let rig = rig.reopened();
    rig.check();
    rig
}

fn ended(segments: &[(u64, &[u32])]) -> Vec<Ended> {
    let one = |&(bytes, groups): &(u64, &[u32])| Ended {
        bytes,
        needed_by: groups.iter().map(|&group| GroupId(group)).collect::<BTreeSet<_>>(),
    };
    segments.iter().map(one).collect()
}

fn small(bytes: usize) -> Needs {
    Needs { bytes, records: 1, runs: 1 }
}

/// Each row: the segments, what the groups take at least, and what is chosen.
#[test]
fn what_sets_the_most_free_for_an_eighth_is_chosen() {
    const MIB: u64 = 1 << 20;
    type Row<'r> = (&'r [(u64, &'r [u32])], &'r [(u32, usize)], Option<(&'r [u32], usize, usize)>);
    let batch = 400 << 10;
    let rows: [Row<'_>; 12] = [
        (&[], &[], None),
        (&[(MIB, &[]), (MIB, &[])], &[], None),
        // One segment alone is not worth it; two are.
        (&[(MIB, &[1])], &[(1, 40)], None),
        (&[(MIB, &[1]), (MIB, &[])], &[(1, 40)], Some((&[1], 2, (256 << 10) - AROUND))),
        // What is free already is none of its merits.
        (&[(MIB, &[]), (MIB, &[1])], &[(1, 40)], None),
        // As far as nobody else needs anything, and no frame is larger than a frame.
        (&[(MIB, &[1]), (MIB, &[1]), (MIB, &[]), (MIB, &[1]), (MIB, &[2])], &[(1, 40)], Some((&[1], 4, batch))),
        (&[(MIB, &[1]), (MIB, &[2]), (MIB, &[])], &[(1, 40)], None),
        (&[(MIB, &[1]), (MIB, &[2]), (MIB, &[])], &[(1, 40), (2, 80)], Some((&[1, 2], 3, (384 << 10) - AROUND))),
        (&[(MIB, &[1]), (MIB, &[]), (MIB, &[2])], &[(1, 40), (2, 500 << 10)], Some((&[1], 2, (256 << 10) - AROUND))),
        // An eighth, with all that is around the records.
        (&[(MIB, &[1]), (MIB, &[])], &[(1, (256 << 10) - AROUND)], Some((&[1], 2, (256 << 10) - AROUND))),
        (&[(MIB, &[1]), (MIB, &[])], &[(1, (256 << 10) - AROUND + 1)], None),
        (&[(SEGMENT_BYTES_MIN, &[1]), (SEGMENT_BYTES_MIN, &[])], &[(1, 40)], Some((&[1], 2, (16 << 10) - AROUND))),
    ];
    for (segments, least, expected) in rows {
        let needs = |group: GroupId| least.iter().find(|(own, _)| *own == group.0).map(|&(_, bytes)| small(bytes));
        let chosen = choose(ended(segments).into_iter(), batch, needs);
        let expected = expected.map(|(groups, segments, bytes_max)| Choice {
            groups: groups.iter().map(|&group| GroupId(group)).collect(),
            segments,
            bytes_max,
        });
        assert_eq!(chosen, expected, "{segments:?} {least:?}");
    }
}

/// The smaller choice is made where all would be more records or runs than one frame holds.
#[test]
fn a_choice_has_no_more_records_and_runs_than_a_frame() {
    let segments = ended(&[(1 << 20, &[9]), (1 << 20, &[]), (1 << 20, &[2])]);
    for (records, runs, expected) in [
        (FRAME_RECORDS_MAX - 1, FRAME_RUNS_MAX - 1, &[9, 2][..]),
        (FRAME_RECORDS_MAX, 1, &[9]),
        (1, FRAME_RUNS_MAX, &[9]),
    ] {
        let needs = |group| Some(if group == GroupId(2) { Needs { bytes: 40, records, runs } } else { small(40) });
        let choice = choose(segments.iter().cloned(), 400 << 10, needs).expect("two segments are worth it");
        let groups: Vec<u32> = choice.groups.iter().map(|group| group.0).collect();
        assert_eq!(groups, expected, "{records} records, {runs} runs, in the order in which they join");
    }
}

/// Whatever is chosen keeps to the bound, and is no less than another choice would be.
#[test]
fn a_choice_keeps_to_its_bound() {
    let mut chosen = 0;
    for seed in 0..5_000 {
        let mut random = Random::seeded(seed);
        let sizes: Vec<Option<usize>> =
            (0..3).map(|_| random.chance(800).then(|| random.below(40_000) as usize)).collect();
        let segments: Vec<Ended> = (0..random.below(12))
            .map(|_| Ended {
                bytes: SEGMENT_BYTES_MIN * (1 + random.below(3)),
                needed_by: (0..3).filter(|_| random.chance(150)).map(GroupId).collect(),
            })
            .collect();
        let batch = batch_bytes_max(SEGMENT_BYTES_MIN);
        let choice = choose(segments.iter().cloned(), batch, |group| sizes[group.0 as usize].map(small));
        let from = segments.iter().position(|own| !own.needed_by.is_empty()).unwrap_or(segments.len());
        // By the rule, not by the way in which it is applied.
        let is_fine = |count: usize| {
            let groups: BTreeSet<GroupId> =
                segments[from..from + count].iter().flat_map(|own| own.needed_by.clone()).collect();
            let freed: u64 = segments[from..from + count].iter().map(|own| own.bytes).sum();
            let bytes: Option<usize> = groups.iter().map(|group| sizes[group.0 as usize]).sum();
            let frame = |bytes: usize| (bytes + AROUND).next_multiple_of(4096) as u64;
            bytes.is_some_and(|bytes| bytes <= batch && 8 * frame(bytes) <= freed)
        };
        let most = (2..=segments.len() - from).rev().find(|&count| is_fine(count));
        assert_eq!(choice.as_ref().map(|choice| choice.segments), most, "{segments:?} {sizes:?}");
        chosen += usize::from(choice.is_some());
    }
    assert!(chosen > 500, "{chosen}");
}

#[test]
fn a_seldom_written_group_goes_on_into_new_segments_and_the_old_ones_are_used_again() {
    let mut rig = pinned(options());
    assert_eq!(oldest(&rig), SegmentNumber(1));
    let followed = Followed::new(rig.log.groups());
    let last = followed.durable()[&SELDOM];
    rig.log.locator.followed = Some(followed);
    let (ticket, model) = (rig.log.last_ticket(), rig.model.state().clone());
    rig.copy();
    rig.settle();
    assert_eq!((rig.log.counters().copies, oldest(&rig)), (1, SegmentNumber(1)), "nothing proves it yet");
    rig.check();
    rig.rest();
    assert!(oldest(&rig) >= SegmentNumber(4), "{}", oldest(&rig));
    assert_eq!((rig.log.last_ticket(), rig.log.durable_ticket()), (ticket, ticket), "it is no append");
    let followed = rig.log.locator.followed.as_mut().expect("it was put there");
    assert!(followed.take().is_empty() && followed.durable()[&SELDOM] == last, "and nobody is told");
    assert!(*rig.model.state() == model);
    rig.check();
    let copied_bytes = rig.log.counters().copied_bytes;
    assert!((1..=2 * SEGMENT_BYTES_MIN / 8).contains(&copied_bytes), "{copied_bytes}");
    // Once is enough, and it goes on as ever.
    rig.copy();
    rig.rest();
    assert_eq!(rig.log.counters().copies, 1);
    rig.grow(SELDOM, 2, 300);
    rig.rest();
    let mut rig = reopened(rig);
    assert!(oldest(&rig) >= SegmentNumber(4));
    rig.truncate(SELDOM, Index(3));
    pass(&mut rig);
    rig.settle();
    rig.copy();
    rig.rest();
    assert_eq!(rig.log.counters().copies, 1, "and again, from where it is now");
    reopened(rig);
}

/// What is needed of old segments stays bounded, however much goes through the log.
#[test]
fn the_disk_holds_a_bounded_log_of_a_busy_and_some_seldom_written_groups() {
    for copies in [true, false] {
        let mut rig = Rig::new(options());
        rig.settle();
        rig.grow(SELDOM, 4, 500);
        let (bound, mut most) = (10, 0);
        for segment in 0..20 * bound as u64 {
            rig.rotate(G);
            if segment % 40 == 7 {
                rig.grow(SELDOM, 1, 20);
                rig.grow(OTHER, 1, 60);
            }
            if copies {
                rig.copy();
            }
            rig.purge(G, rig.model.group(G).last());
            rig.settle();
            most = most.max(rig.files.list(DIRECTORY).expect("it is there").len());
        }
        rig.rest();
        let counters = rig.log.counters();
        assert_eq!(most <= bound, copies, "{most} files");
        assert!(8 * counters.copied_bytes <= counters.segments * SEGMENT_BYTES_MIN, "{counters:?}");
        assert_eq!(counters.copies > 20, copies, "{counters:?}");
        reopened(rig);
    }
}

/// What is taken for the group wins, at each moment at which it may come.
#[test]
fn whatever_is_taken_meanwhile_wins() {
    type Change = fn(&mut Rig);
    let changes: [Change; 4] = [
        |rig| rig.grow(SELDOM, 1, 40),
        |rig| rig.truncate(SELDOM, Index(2)),
        |rig| rig.purge(SELDOM, LogId::new(Term(1), Index(2))),
        |rig| {
            let entries = rig.model.entries_behind(Index(1), 2, 77);
            rig.append(SELDOM, &entries);
        },
    ];
    for change in changes {
        for moment in 0..5 {
            let mut rig = pinned(options());
            let at = |now: usize, rig: &mut Rig| {
                if now == moment {
                    change(rig);
                }
            };
            at(0, &mut rig);
            let plan = rig.log.take_copy();
            assert_eq!(plan.is_none(), moment == 0, "what waits for a frame is not copied");
            at(1, &mut rig);
            let said = plan.map(|plan| plan.run(&rig.files));
            at(2, &mut rig);
            said.map(|said| rig.log.copy_read(said));
            assert_eq!(rig.log.has_copy(), moment > 2);
            at(3, &mut rig);
            rig.pump();
            at(4, &mut rig);
            rig.settle();
            assert_eq!(rig.log.counters().copies, u64::from(moment == 4));
            assert_eq!(rig.log.counters().copies_dropped, u64::from((1..4).contains(&moment)), "moment {moment}");
            rig.check();
            // With the next segment it is tried again.
            rig.rotate(G);
            rig.purge(G, rig.model.group(G).last());
            rig.copy();
            rig.rest();
            assert_eq!(rig.log.counters().copies, 1, "moment {moment}");
            assert!(oldest(&rig) >= SegmentNumber(4), "moment {moment}");
            reopened(rig);
        }
    }
}

/// Nothing of the old segments goes before a durable frame says that the copy is durable.
#[test]
fn a_copy_that_nothing_proves_sets_nothing_free() {
    let mut rig = pinned(options());
    rig.copy();
    rig.settle();
    // A purge is a reason to look which segments are free.
    rig.purge(G, LogId::new(Term(1), rig.model.group(G).last().index));
    rig.grow(G, 1, 10);
    rig.purge(G, rig.model.group(G).last());
    rig.pump();
    rig.disk.complete_all();
    rig.take();
    assert_eq!((rig.log.counters().copies, oldest(&rig)), (1, SegmentNumber(1)));
    // The copy is lost to rot at its end of the log: the old place serves.
    let mut lost = pinned(options());
    lost.copy();
    lost.settle();
    let Rig { disk, log, model, .. } = lost;
    disk.crash_to(&vec![0; disk.loose().len()]);
    disk.zero(&segment(log.active.number.0), log.durable.offset - 4096..log.durable.offset);
    let (.., found) = open(&disk, log.options()).expect("it looks like a frame that was never written");
    assert!(found == *model.state());
}

/// Terms, configurations and several groups in one frame.
#[test]
fn names_terms_and_configurations_are_what_they_were() {
    let mut rig = Rig::new(options());
    rig.settle();
    rig.grow(SELDOM, 2, 300);
    rig.model.term = Term(4);
    configure(&mut rig, SELDOM);
    rig.grow(SELDOM, 2, 10);
    rig.grow(OTHER, 3, 90);
    rig.purge(OTHER, LogId::new(Term(4), Index(1)));
    pass(&mut rig);
    rig.settle();
    let memberships = |rig: &Rig| {
        let fork = rig.disk.fork();
        fork.crash_to(&vec![0; fork.loose().len()]);
        let recovery = open(&fork, rig.log.options()).expect("it is whole").1;
        recovery.memberships[&SELDOM].clone()
    };
    let before = memberships(&rig);
    assert_eq!(before.len(), 1);
    rig.copy();
    rig.rest();
    assert_eq!(rig.log.counters().copies, 1);
    assert!(oldest(&rig) >= SegmentNumber(4));
    assert_eq!(memberships(&rig), before);
    // By its seal, too.
    for _ in 0..3 {
        rig.rotate(G);
    }
    rig.rest();
    assert_eq!(memberships(&rig), before);
    reopened(rig);
}

/// A group of which nothing is left needs nothing, and is known all the same.
#[test]
fn an_empty_group_keeps_no_segment_and_its_name() {
    for purged in [false, true] {
        let mut rig = Rig::new(options());
        rig.settle();
        rig.grow(SELDOM, 5, 300);
        rig.rotate(G);
        if purged {
            rig.purge(SELDOM, LogId::new(Term(1), Index(2)));
        }
        rig.truncate(SELDOM, Index(if purged { 3 } else { 1 }));
        pass(&mut rig);
        rig.rest();
        assert!(oldest(&rig) >= SegmentNumber(4), "{}", oldest(&rig));
        rig.rotate(G);
        let mut rig = reopened(rig);
        rig.grow(SELDOM, 2, 30);
        rig.rest();
        reopened(rig);
    }
}

#[test]
fn what_cannot_be_read_is_not_copied_and_told() {
    let mut rig = Rig::new(options());
    rig.settle();
    rig.grow(SELDOM, 3, 1500);
    pass(&mut rig);
    rig.settle();
    let bytes = rig.disk.contents(&segment(1));
    let first = bytes.windows(1500).position(|bytes| bytes.iter().all(|&byte| byte & 1 == 1));
    let at = first.expect("its entries are there").next_multiple_of(512) as u64;
    rig.disk.junk(&segment(1), at..at + 512, &mut Random::seeded(1));
    rig.copy();
    rig.settle();
    let told = rig.log.copy_finding().expect("it is told").clone();
    assert_eq!(
        (told.entries[0].group, told.entries[0].last()),
        (SELDOM, Some(LogId::new(Term(1), Index(1)))),
        "{told}"
    );
    assert_eq!((told.severity, told.file.as_str()), (Severity::Corrupt, segment(1).as_str()));
    assert_eq!((rig.log.counters().copies, oldest(&rig)), (0, SegmentNumber(1)));
    // Later and later, and told once.
    let mut attempts = Vec::new();
    for rotation in 1..40 {
        rig.rotate(G);
        rig.purge(G, rig.model.group(G).last());
        rig.settle();
        if let Some(plan) = rig.log.take_copy() {
            attempts.push(rotation);
            let said = plan.run(&rig.files);
            assert!(rig.log.copy_read(said).is_none(), "it is known");
        }
    }
    assert_eq!(attempts, [1, 3, 7, 15, 31]);
    assert_eq!(rig.log.copy_finding(), Some(&told));
    // Without what cannot be read it is another group.
    rig.purge(SELDOM, LogId::new(Term(1), Index(2)));
    rig.rotate(G);
    rig.purge(G, rig.model.group(G).last());
    rig.settle();
    rig.copy();
    rig.rest();
    assert!(rig.log.copy_finding().is_none());
    assert!(rig.log.counters().copies == 1 && oldest(&rig) > SegmentNumber(30));
    rig.check();
}

/// What is known to be too large is not read, and what turns out to be is left alone for a while.
#[test]
fn what_is_too_large_is_left_where_it_is() {
    let mut rig = Rig::new(options());
    rig.settle();
    rig.grow(SELDOM, 2, 9_000);
    let mut reads = Vec::new();
    for rotation in 1..8 {
        rig.rotate(G);
        rig.purge(G, rig.model.group(G).last());
        rig.settle();
        while let Some(plan) = rig.log.take_copy() {
            reads.push(rotation);
            let said = plan.run(&rig.files);
            rig.log.copy_read(said);
        }
        rig.settle();
    }
    // 18 kB are worth it for eight times as much and what is around them, which the third attempt has.
    assert_eq!(rig.log.counters().copies, 1, "{reads:?}");
    assert!(reads.len() <= 4, "{reads:?}");
    rig.rest();
    reopened(rig);
    // The busy group does not purge: it is in all segments, alone, and never read.
    let mut rig = Rig::new(options());
    for _ in 0..10 {
        rig.rotate(G);
        assert!(rig.log.take_copy().is_none());
    }
}

/// Of two groups that are too large together, the one that pins the oldest segments is copied, and the other one waits.
#[test]
fn the_group_that_joined_last_is_the_one_left_alone() {
    let mut rig = Rig::new(options());
    rig.settle();
    let batch = rig.log.batch_bytes_max();
    let first = GroupId(9);
    rig.grow(first, 4, batch / 8);
    (0..6).for_each(|_| rig.rotate(G));
    rig.grow(SELDOM, 3, batch / 4 - 100);
    pass(&mut rig);
    rig.settle();
    for dropped in [1, 2] {
        rig.copy();
        rig.settle();
        let counters = rig.log.counters();
        assert_eq!((counters.copies, counters.copies_dropped), (0, dropped));
        rig.rotate(G);
        rig.purge(G, rig.model.group(G).last());
        rig.settle();
    }
    rig.copy();
    rig.rest();
    assert_eq!(rig.log.counters().copies, 1);
    assert!(oldest(&rig) >= SegmentNumber(6), "{}", oldest(&rig));
    reopened(rig);
}

/// What is in flight alone may be an append that its own thread writes.
#[test]
fn a_copy_is_not_written_beside_what_is_alone_in_flight() {
    let mut rig = pinned(options());
    let said = rig.log.take_copy().expect("it is worth it").run(&rig.files);
    rig.grow(G, 1, 100);
    rig.pump();
    rig.log.copy_read(said);
    assert!(rig.log.has_copy() && rig.log.is_writing() && rig.log.queue.is_empty());
    assert!(!rig.log.write_copy());
    rig.pump();
    assert!(rig.log.has_copy() && rig.log.in_flight.len() == 1);
    rig.settle();
    assert_eq!(rig.log.counters().copies, 1);
}

/// Where no segment can be made nothing is copied; when there is room again it is.
#[test]
fn a_full_disk_is_not_filled_by_a_copy() {
    let mut rig = pinned(options());
    let plan = rig.log.take_copy().expect("it is worth it");
    rig.disk.set_capacity(rig.disk.used_bytes());
    rig.rotate(G);
    rig.settle();
    assert!(rig.log.is_out_of_space());
    let said = plan.run(&rig.files);
    rig.log.copy_read(said);
    assert!(rig.log.has_copy());
    rig.settle();
    assert!(!rig.log.has_copy() && rig.log.counters().copies == 0, "it is dropped");
    assert!(rig.log.take_copy().is_none());
    rig.check();
    rig.disk.set_capacity(1 << 40);
    for _ in 0..120 {
        rig.log.tick(1);
    }
    rig.settle();
    assert!(!rig.log.is_out_of_space());
    rig.rotate(G);
    rig.purge(G, rig.model.group(G).last());
    rig.copy();
    rig.rest();
    assert!(rig.log.counters().copies == 1 && oldest(&rig) > SegmentNumber(3));
    reopened(rig);
}

/// A copy that does not fit what is left of the segment goes into the next one.
#[test]
fn a_copy_waits_for_the_next_segment_if_it_must() {
    let mut rig = Rig::new(options());
    rig.settle();
    rig.grow(SELDOM, 1, 4_000);
    pass(&mut rig);
    pass(&mut rig);
    rig.settle();
    let segments = rig.log.counters().segments;
    while rig.log.active.frames_end() - rig.log.offset > 24_000 {
        rig.grow(G, 1, 2_000);
        rig.settle();
    }
    assert_eq!(rig.log.counters().segments, segments);
    rig.copy();
    rig.settle();
    assert_eq!((rig.log.counters().segments, rig.log.counters().copies), (segments + 1, 1));
    rig.check();
    reopened(rig);
}

/// While appends never end, too.
#[test]
fn a_busy_log_copies_between_its_frames() {
    for writes_in_flight in 1..=4 {
        let mut rig = pinned(Options { writes_in_flight, ..options() });
        rig.grow(G, 1, 100);
        rig.pump();
        rig.grow(G, 1, 100);
        rig.copy();
        let mut random = Random::seeded(writes_in_flight as u64);
        for _ in 0..30 {
            rig.grow(G, 1, 100);
            rig.pump();
            assert!(!rig.disk.pending().is_empty());
            rig.disk.complete_any(&mut random);
            rig.take();
        }
        assert_eq!(rig.log.counters().copies, 1, "{writes_in_flight}");
        rig.settle();
        rig.check();
        reopened(rig);
    }
}

/// What was copied is dead where it was: damage there is noted, and nothing else.
#[test]
fn damage_where_it_was_before_is_noted() {
    let mut rig = pinned(options());
    rig.grow(G, 1, 10);
    rig.copy();
    // No proof: so the old segments stay in the chain.
    rig.settle();
    assert_eq!((rig.log.counters().copies, oldest(&rig)), (1, SegmentNumber(1)));
    let Rig { disk, log, model, .. } = rig;
    disk.crash_to(&vec![0; disk.loose().len()]);
    let bytes = disk.contents(&segment(1));
    let mut noted = 0;
    for at in (8192..24_576).step_by(512).filter(|&at: &usize| bytes[at..at + 512].iter().any(|&byte| byte != 0)) {
        for is_readable in [true, false] {
            let fork = disk.fork();
            match is_readable {
                true => fork.junk(&segment(1), at as u64..at as u64 + 512, &mut Random::seeded(at as u64)),
                false => fork.make_unreadable(&segment(1), at as u64..at as u64 + 512),
            }
            let (log, recovery, found) = match open(&fork, log.options()) {
                Ok(opened) => opened,
                Err(Error::Damaged(finding)) => panic!("{at}: {finding}"),
                Err(error) => panic!("{at}: {error}"),
            };
            assert!(found == *model.state(), "{at}");
            noted += usize::from(recovery.findings.iter().any(|finding| finding.severity == Severity::Note));
            log.close(&fork.files());
        }
    }
    assert!(noted > 20, "{noted}");
}
