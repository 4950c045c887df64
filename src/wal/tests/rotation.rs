//! From one segment to the next.

use std::collections::BTreeSet;

use super::rig::{DIRECTORY, G, Rig, identity, options, segment};
use crate::random::Random;
use crate::types::{GroupId, Index, SegmentNumber};
use crate::wal::outline::OutlineRun;
use crate::wal::scan::{Found, Scan};
use crate::wal::sections::SealSection;
use crate::wal::segment::FRAMES_START;
use crate::wal::{Analysis, Fill, Options, Source};

/// Appends one large entry after another while `each` looks on, until so many segments were opened.
fn fill(rig: &mut Rig, segments: u64, mut each: impl FnMut(&mut Rig)) {
    for _ in 0..2000 {
        if rig.log.counters().segments >= segments {
            return;
        }
        if rig.log.queued_bytes() < 60_000 {
            rig.grow(G, 1, 9000);
        }
        rig.pump();
        each(rig);
        rig.take();
    }
    panic!("it does not rotate");
}

/// First barrier: an open frame is handed out when nothing is in flight. Second: nothing else is before it is durable.
#[test]
fn an_open_frame_is_in_flight_alone() {
    for writes_in_flight in 1..=4 {
        for seed in 0..20 {
            let mut random = Random::seeded(seed);
            let mut rig = Rig::new(Options { writes_in_flight, ..options() });
            rig.settle();
            let mut opened = BTreeSet::new();
            fill(&mut rig, 4, |rig| {
                let pending = rig.disk.pending();
                let opens: Vec<_> = pending.iter().filter(|write| write.offset == FRAMES_START).collect();
                if let Some(open) = opens.first() {
                    assert_eq!(pending.len(), 1, "{pending:?}");
                    opened.insert(open.name.clone());
                }
                if random.chance(600) {
                    rig.disk.complete_any(&mut random);
                }
                if !rig.prepares.is_empty() && random.chance(600) {
                    rig.prepare(0);
                }
            });
            assert!(opened.len() >= 3);
            rig.settle();
            rig.check();
        }
    }
}

/// What the frames of a segment are: open first, repeated by the second, sealed at the end.
#[test]
fn a_segment_begins_with_open_and_ends_with_a_seal() {
    let mut rig = Rig::new(options());
    rig.settle();
    rig.grow(GroupId(4), 1, 10);
    rig.rotate(G);
    rig.rotate(G);
    rig.settle();
    for own in rig.log.locator.segments().take(2) {
        let mut scan = Scan::new(&rig.files, own.file, own.header);
        let (mut at, mut kinds, mut opens) = (FRAMES_START, Vec::new(), Vec::new());
        while at < own.end {
            let Found::Frame(frame) = scan.frame_at(at) else { panic!("a frame at {at}") };
            let sections = frame.verify(|_, _| {}).expect("it is intact");
            kinds.push(format!("{:?}", frame.head.kind));
            opens.push(sections.open);
            at = frame.head.end().offset;
        }
        assert_eq!((kinds[0].as_str(), kinds[kinds.len() - 1].as_str()), ("Open", "Seal"));
        assert_eq!(opens[0], opens[1]);
        assert!(opens[0].is_some() && opens[2..].iter().all(Option::is_none));
    }
}

/// Each order of completions, each moment of a cut: a damaged open frame is made good by the frame that repeats it.
#[test]
fn a_lost_open_frame_is_reported_with_what_it_said() {
    let mut rig = Rig::new(options());
    rig.rotate(G);
    rig.grow(G, 2, 100);
    rig.settle();
    let Rig { disk, .. } = rig;
    disk.crash_to(&vec![0; disk.loose().len()]);
    let number = (2..9).find(|&number| disk.contents(&segment(number))[4096] != 0).expect("the second in use");
    disk.zero(&segment(number), 4096..8192);
    let source = Source { identity: Some(identity()), ..Source::from_outside(DIRECTORY) };
    let analysis = Analysis::read(&disk.files(), &source).expect("no fault");
    assert_eq!(analysis.chain.len(), 2, "the repetition links it");
    assert!(analysis.damage().is_some());
}

#[test]
fn a_quiet_log_covers_its_tail_once() {
    let mut rig = Rig::new(options());
    rig.settle();
    rig.grow(G, 1, 100);
    rig.settle();
    let before = rig.submitted;
    for _ in 0..4 {
        rig.log.tick(1);
        rig.settle();
    }
    assert_eq!(rig.submitted, before, "not before it is quiet");
    rig.rest();
    rig.rest();
    assert_eq!(rig.submitted, before + 1, "one covering frame");
    let covered = rig.log.proven_frame;
    assert_eq!(covered, rig.log.last_data_frame);
}

/// The preparer falls behind: an allocated segment is taken, and the late ones are used later.
#[test]
fn a_late_preparation_stalls_nothing() {
    let mut rig = Rig::new(options());
    rig.pump();
    let late: Vec<_> = rig.prepares.drain(..).collect();
    assert!(late.iter().all(|order| order.fill == Fill::Zeros));
    fill(&mut rig, 3, |rig| {
        rig.disk.complete_all();
        if let Some(at) = rig.prepares.iter().position(|order| order.fill == Fill::Allocated) {
            rig.prepare(at);
        }
    });
    assert!(rig.log.counters().unzeroed_segments >= 3);
    rig.prepares.extend(late);
    rig.settle();
    rig.rotate(G);
    rig.rotate(G);
    rig.check();
    rig.disk.crash(&mut Random::seeded(1));
    super::seals::compare(&rig.disk, rig.log.options());
    rig.reopened().check();
}

/// What was zeroed and came too late is not zeroed again: it gets a new number, and is used next.
#[test]
fn a_segment_that_was_zeroed_too_late_is_numbered_anew() {
    let mut rig = Rig::new(options());
    rig.pump();
    let late: Vec<_> = rig.prepares.drain(..).collect();
    fill(&mut rig, 3, |rig| {
        rig.disk.complete_all();
        if let Some(at) = rig.prepares.iter().position(|order| order.fill == Fill::Allocated) {
            rig.prepare(at);
        }
    });
    let count = late.len();
    for order in late {
        rig.prepares.push_front(order);
        rig.prepare(0);
        rig.pump();
    }
    let anew = rig.prepares.iter().filter(|order| order.fill == Fill::AsItIs).count();
    assert_eq!(anew, count, "{:?}", rig.prepares);
    let unzeroed = rig.log.counters().unzeroed_segments;
    rig.settle();
    for number in rig.log.ready.keys() {
        let bytes = rig.disk.contents(&segment(number.0));
        assert!(bytes[4096..61_440].iter().all(|&byte| byte == 0), "{number}");
    }
    for _ in 0..count {
        rig.rotate(G);
    }
    assert_eq!(rig.log.counters().unzeroed_segments, unzeroed, "they are used");
    rig.check();
    rig.disk.crash(&mut Random::seeded(3));
    super::seals::compare(&rig.disk, rig.log.options());
    rig.reopened().check();
}

/// Beside many bytes on their way nothing small is written; beside few there is.
#[test]
fn small_frames_wait_behind_many_bytes() {
    for (bytes, in_flight) in [(9_000, 2), (150_000, 1)] {
        let mut rig = Rig::new(Options { writes_in_flight: 2, segment_bytes: 1 << 20, ..options() });
        rig.settle();
        for _ in 0..3 {
            rig.grow(G, 1, bytes);
            rig.pump();
        }
        assert_eq!(rig.disk.pending().len(), in_flight, "{bytes}");
        assert_ne!(rig.log.leaves_from_bytes(), Some(0));
        rig.settle();
        rig.check();
    }
}

/// Of what waits together not all goes into one frame: the next one is built while that is written.
#[test]
fn what_waits_is_joined_into_frames_of_bounded_size() {
    let mut rig = Rig::new(Options { writes_in_flight: 1, segment_bytes: 16 << 20, ..options() });
    rig.settle();
    for bytes in [1_000, 300_000, 300_000, 300_000, 300_000, 3_000_000, 1_000] {
        rig.grow(G, 1, bytes);
    }
    rig.pump();
    let lengths: Vec<usize> = rig.disk.pending().iter().map(|write| write.length / 100_000).collect();
    assert_eq!(lengths, [9, 3, 30], "one append is never cut");
    rig.settle();
    rig.check();
}

/// A large frame is built and handed out while those before it are on their way, and no fourth one.
#[test]
fn a_large_frame_goes_beside_others() {
    for writes_in_flight in [1, 2, 4] {
        let mut rig = Rig::new(Options { writes_in_flight, segment_bytes: 16 << 20, ..options() });
        rig.settle();
        let mut pending = Vec::new();
        for bytes in [200_000, 300_000, 300_000, 600_000, 1 << 20] {
            rig.grow(G, 1, bytes);
            rig.pump();
            pending.push(rig.disk.pending().len());
        }
        assert_eq!(pending, [1, 1, 2, 3, 3], "{writes_in_flight}");
        rig.settle();
        rig.check();
        rig.disk.crash(&mut Random::seeded(3));
        rig.reopened().check();
    }
}

/// A purged segment is zeroed again under a new number: no byte of its last life is left in it.
#[test]
fn a_retired_segment_is_used_again_all_zero() {
    let mut rig = Rig::new(options());
    rig.settle();
    rig.grow(GroupId(3), 1, 50);
    let mut seen = BTreeSet::new();
    for _ in 0..12 {
        rig.rotate(G);
        let last = rig.model.group(G).last();
        rig.purge(G, last);
        let last = rig.model.group(GroupId(3)).last();
        rig.purge(GroupId(3), last);
        rig.rest();
        for (number, (_, _)) in &rig.log.ready {
            let bytes = rig.disk.contents(&segment(number.0));
            assert!(bytes[4096..61_440].iter().all(|&byte| byte == 0), "{number}");
            seen.insert(*number);
        }
    }
    let files = crate::disk::Files::list(&rig.files, DIRECTORY).expect("no fault");
    assert!(files.len() <= 7, "{files:?}");
    assert!(seen.len() > 10 && !files.contains(&segment(1)[4..].to_owned()));
    assert!(rig.log.active.number > SegmentNumber(10));
    rig.check();
    rig.disk.crash(&mut Random::seeded(2));
    super::seals::compare(&rig.disk, rig.log.options());
    rig.reopened().check();
}

/// A group that alone needs an old segment keeps it; names of retired ones go on.
#[test]
fn a_segment_that_one_group_needs_stays() {
    let mut rig = Rig::new(options());
    rig.grow(GroupId(3), 2, 50);
    rig.rotate(G);
    rig.rotate(G);
    rig.purge(G, rig.model.group(G).last());
    rig.rest();
    assert_eq!(rig.log.locator.segments().next().map(|own| own.header.number), Some(SegmentNumber(1)));
    rig.check();
    rig.disk.crash(&mut Random::seeded(3));
    super::seals::compare(&rig.disk, rig.log.options());
    rig.reopened().check();
}

fn runs(seal: &mut SealSection) -> &mut Vec<OutlineRun> {
    &mut seal.outline.as_mut().expect("it is short").runs
}

/// A seal that names other frames than there are, or forgets a cut, is damage, though its checksum holds.
#[test]
fn a_seal_that_does_not_fit_its_segment_is_damage() {
    type Change = fn(&mut SealSection);
    let changes: [(&str, Change, bool); 12] = [
        ("nothing", |_| {}, true),
        ("a frame more", |seal| seal.sparse.push(*seal.sparse.last().unwrap()), false),
        ("no frames", |seal| seal.sparse.clear(), false),
        ("another place", |seal| seal.sparse[0].offset += 4096, false),
        ("a run is forgotten", |seal| runs(seal).truncate(1), false),
        ("a run more", |seal| runs(seal).extend_from_within(..1), false),
        ("a run of another group", |seal| runs(seal)[0].run.group = GroupId(5), false),
        ("a run in another frame", |seal| runs(seal)[1].offset += 4096, false),
        ("a run of another length", |seal| runs(seal)[0].run.count -= 1, false),
        ("no outline", |seal| seal.outline = None, false),
        ("configurations", |seal| seal.outline.as_mut().expect("it is short").memberships.push(8192), false),
        ("records", |seal| seal.records += 1, false),
    ];
    for (what, change, is_intact) in changes {
        let mut rig = Rig::new(options());
        rig.grow(G, 5, 300);
        rig.truncate(G, Index(4));
        rig.settle();
        while rig.log.phase != crate::wal::log::Phase::Sealing {
            let number = rig.log.active.number;
            rig.grow(G, 1, 20_000);
            rig.pump();
            rig.disk.complete_all();
            rig.take();
            let free = rig.log.active.frames_end() - rig.log.offset;
            if free < 45_000 && rig.log.active.number == number && rig.log.queued_bytes() == 0 {
                rig.log.locator.falsify_seal(change);
                break;
            }
        }
        rig.rotate(G);
        rig.rest();
        rig.disk.crash(&mut Random::seeded(1));
        let opened = super::rig::open(&rig.disk, &options()).map(drop);
        match is_intact {
            true => opened.unwrap_or_else(|error| panic!("{what}: {error}")),
            false => assert!(matches!(opened, Err(crate::wal::Error::Damaged(_))), "{what}"),
        }
    }
}
