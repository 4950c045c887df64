//! Where reads do not go past the page cache.

use super::model::{Model, entry, state_of};
use super::rig::{DIRECTORY, G, Rig, identity, open, options, segment};
use crate::disk::Files;
use crate::limits::{FRAME_BYTES_MAX, FRAME_RUNS_MAX, GROUPS_MAX};
use crate::random::Random;
use crate::sim::disk::{Code, Failure, SimDisk};
use crate::types::{Entry, FrameNumber, GroupId, Index, Place, SegmentNumber, Term};
use crate::wal::repair::{self, Orders};
use crate::wal::{Log, Options, Reading, Source, prepare};

/// A frame whose flush failed: whole in the page cache, clean there, and not on the disk.
fn abandoned(entries_before: u64) -> Rig {
    let mut rig = Rig::new(Options { writes_in_flight: 2, ..options() });
    rig.disk.set_reads_past_cache(false);
    rig.settle();
    if entries_before > 0 {
        rig.grow(G, entries_before, 300);
        rig.settle();
    }
    rig.disk.fail_at(rig.disk.operations(), Failure::Partial { bytes: 1 << 20, error: Code::Io });
    rig.grow(G, 2, 300);
    rig.pump();
    rig.disk.complete_all();
    rig.take();
    assert!(rig.is_poisoned);
    rig.disk.kill(&mut Random::seeded(1));
    rig
}

fn lose_all(disk: &SimDisk) {
    disk.crash_to(&vec![0; disk.loose().len()]);
}

#[test]
fn a_frame_in_the_page_cache_is_written_again_before_it_counts() {
    for entries_before in [0, 3] {
        let Rig { disk, .. } = abandoned(entries_before);
        let (log, _, found) = open(&disk, &options()).expect("the log is intact");
        let entries = &found[&G].entries;
        assert_eq!(entries.last().map(|last| last.id.index), Some(Index(entries_before + 2)));
        assert!(log.active.number.0 > 1, "a new segment holds it");
        lose_all(&disk);
        let (mut log, _, again) = open(&disk, &options()).expect("the log is intact");
        assert_eq!(again, found);
        // Only the covering frame is not proven, which holds nothing: no third segment is begun for it.
        let number = log.active.number;
        for _ in 0..3 {
            lose_all(&disk);
            (log, ..) = open(&disk, &options()).expect("the log is intact");
            assert_eq!(log.active.number, number);
        }
    }
}

/// A frame that was acknowledged, and that nothing proves.
fn acknowledged(_: u64) -> Rig {
    let mut rig = Rig::new(options());
    rig.disk.set_reads_past_cache(false);
    rig.grow(G, 3, 300);
    rig.settle();
    rig.disk.kill(&mut Random::seeded(1));
    rig
}

#[test]
fn the_rewriting_is_cut_at_each_operation() {
    for made in [abandoned as fn(u64) -> Rig, acknowledged] {
        let mut cases = 0;
        for at in 0.. {
            let Rig { disk, model, .. } = made(3);
            disk.crash_at(disk.operations() + at);
            if open(&disk, &options()).is_ok() {
                break;
            }
            for seed in 0..16 {
                let fork = disk.fork();
                fork.crash(&mut Random::seeded(seed));
                let (.., found) = open(&fork, &options()).unwrap_or_else(|error| panic!("{at} {seed}: {error}"));
                assert!(model.is_possible(&found), "{at} {seed}");
                lose_all(&fork);
                let (.., again) = open(&fork, &options()).expect("the log is intact");
                assert_eq!(found, again);
                cases += 1;
            }
        }
        assert!(cases >= 16 * 10, "{cases}");
    }
}

/// Only the open frame is not proven: it is written again where it is, and then built upon.
#[test]
fn an_unproven_open_frame_is_written_again_in_its_place() {
    let mut rig = Rig::new(options());
    rig.disk.set_reads_past_cache(false);
    rig.settle();
    while rig.log.phase != crate::wal::log::Phase::Sealing {
        rig.grow(G, 1, 20_000);
        rig.pump();
        if rig.log.phase != crate::wal::log::Phase::Sealing {
            rig.disk.complete_all();
            rig.take();
        }
    }
    rig.disk.complete_all();
    rig.take();
    rig.disk.fail_at(rig.disk.operations(), Failure::Partial { bytes: 1 << 20, error: Code::Io });
    rig.pump();
    rig.disk.complete_all();
    rig.take();
    assert!(rig.is_poisoned);
    rig.disk.kill(&mut Random::seeded(2));
    let Rig { disk, model, .. } = rig;
    let (log, _, found) = open(&disk, &options()).expect("the log is intact");
    assert!(model.is_possible(&found));
    let number = log.active.number;
    let mut rig = Rig::with(disk, log, Model { term: Term(2), ..Model::new(found) });
    rig.grow(G, 2, 50);
    rig.pump();
    rig.disk.complete_all();
    rig.take();
    lose_all(&rig.disk);
    let rig = rig.reopened();
    rig.check();
    assert!(rig.log.active.number > number, "the entries behind it were not proven either");
}

/// A purge that is durable gives segments up, and with room for another one they are used again before anything proves
/// the purge: a recovery in between reads the proven part of the log by itself, and does not miss them there.
#[test]
fn segments_that_an_unproven_purge_emptied_are_not_missed() {
    let mut rig = Rig::new(options());
    rig.disk.set_reads_past_cache(false);
    rig.rotate(G);
    rig.settle();
    rig.disk.set_capacity(rig.disk.used_bytes());
    rig.rotate(G);
    rig.rest();
    assert!(rig.log.is_out_of_space());
    let first = segment(rig.log.locator.segments().next().expect("there are three").header.number.0);
    let entries = rig.model.group(G).entries;
    rig.purge(G, entries[entries.len() - 2].id);
    rig.settle();
    rig.disk.set_capacity(1 << 40);
    while rig.log.is_out_of_space() {
        rig.log.tick(1);
        rig.pump();
        rig.prepares.pop_front().into_iter().for_each(|order| {
            let result = prepare(&rig.files, &order);
            rig.log.prepared(order.header.number, result);
        });
    }
    let names = rig.files.list(DIRECTORY).expect("it exists");
    assert!(!names.iter().any(|name| first.ends_with(name)), "{first} is used again: {names:?}");
    rig.disk.kill(&mut Random::seeded(1));
    let mut rig = rig.reopened();
    rig.grow(G, 2, 300);
    rig.rest();
    rig.check();
}

/// The copy of a frame that filled its room to the last block got the groups' beginnings besides, and was longer than a
/// frame may be: nobody could read it. Such a frame was of several appends, which are not joined into one so long any
/// more; the largest append with the most runs is copied here.
#[test]
fn a_copied_frame_has_room_for_what_it_repeats() {
    let mut rig = Rig::new(Options { segment_bytes: 16 << 20, ..options() });
    rig.disk.set_reads_past_cache(false);
    let groups = || (0..GROUPS_MAX as u32).map(GroupId);
    groups().for_each(|group| rig.grow(group, 1, 10));
    rig.rest();
    let before = rig.log.durable_end();
    // Each entry has a term of its own, and so a run.
    let entries: Vec<Entry> =
        (1..=FRAME_RUNS_MAX as u64).map(|term| entry(Term(term), Index(1 + term), 130_800)).collect();
    rig.append(GroupId(0), &entries);
    rig.settle();
    let end = rig.log.durable_end();
    assert_eq!(end.frame, before.frame.next(), "one frame holds them all");
    assert!(end.offset - before.offset + 3 * 4096 > FRAME_BYTES_MAX as u64, "{}", end.offset - before.offset);
    rig.disk.kill(&mut Random::seeded(1));
    let rig = rig.reopened();
    rig.check();
    rig.disk.kill(&mut Random::seeded(2));
    rig.reopened().check();
}

/// A cut named an end that was in the page cache alone.
#[test]
fn the_end_that_a_cut_names_is_on_the_disk() {
    for entries_before in [0, 3] {
        let Rig { disk, .. } = abandoned(entries_before);
        let seen = Place { segment: SegmentNumber(1), offset: 40_960, frame: FrameNumber(100) };
        let source = Source {
            directory: DIRECTORY.to_owned(),
            identity: Some(identity()),
            evidence: seen,
            exclusive: true,
            reading: Reading::Everything,
        };
        let plan = repair::plan(&disk.files(), &source).expect("well");
        let loss = plan.damage.and_then(|(_, loss)| loss);
        assert!(loss.is_some(), "frames that the superblock has seen are missing");
        let orders = Orders { loss, mark: None, seed: 3, wall_clock_milliseconds: 1 };
        repair::apply(&disk.files(), &source, &orders).expect("well");
        lose_all(&disk);
        let files = disk.files();
        let (log, _) = Log::open(&files, options(), seen, 1).expect("it was repaired");
        let found = state_of(&files, &log).expect("it can be read");
        assert_eq!(found[&G].entries.last().map(|last| last.id.index), Some(Index(entries_before + 2)));
    }
}

/// Where the copying failed the copy's file stayed open, and its lock was held until the process ended.
#[test]
fn a_copy_that_failed_is_not_held() {
    let mut cases = 0;
    for at in 0.. {
        let Rig { disk, model, .. } = abandoned(3);
        let files = disk.files();
        disk.fail_at(disk.operations() + at, Failure::Error(Code::Io));
        let failed = Log::open(&files, options(), Place::START, 1);
        disk.clear_failures();
        match failed {
            Ok(_) if at > 40 => break,
            Ok((log, _)) => log.close(&files),
            Err(_) => cases += 1,
        }
        let (log, _) = Log::open(&files, options(), Place::START, 1).unwrap_or_else(|error| panic!("{at}: {error}"));
        assert!(model.is_possible(&state_of(&files, &log).expect("it can be read")), "{at}");
    }
    assert!(cases >= 15, "{cases}");
}
