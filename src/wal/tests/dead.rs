//! Damage to what is not part of the log any more.

use std::ops::Range;

use super::model::{Model, State, state_of};
use super::rig::{DIRECTORY, G, Rig, open, options, segment};
use super::seals::{compare, configure, open_by_seals};
use super::starts::is_honest;
use crate::disk::Files;
use crate::random::Random;
use crate::sim::disk::SimDisk;
use crate::sim::proofs::Proof;
use crate::types::{GroupId, Index, Place, SegmentNumber, Term};
use crate::wal::{Error, Log, Severity};

/// A log that stands on the disk, and what it must hold.
struct Stand {
    disk: SimDisk,
    state: State,
}

impl Stand {
    fn of(rig: Rig) -> Stand {
        let Rig { disk, model, .. } = rig;
        disk.crash_to(&vec![0; disk.loose().len()]);
        Stand { disk, state: model.state().clone() }
    }

    /// Whether a damaged copy opens; then it can be read, holds what it held, and says what was found.
    fn opens(&self, fork: &SimDisk, what: &str) -> bool {
        let is_refused = match Log::open(&fork.fork().files(), options(), Place::START, 1) {
            Err(Error::Damaged(_)) => true,
            said => said.map(|_| false).unwrap_or_else(|error| panic!("{what}: {error}")),
        };
        is_honest(fork, (&options(), Place::START), (&self.state, is_refused), &|| what.to_owned());
        let files = fork.files();
        match Log::open(&files, options(), Place::START, 1) {
            Ok((log, recovery)) => {
                let found = state_of(&files, &log).unwrap_or_else(|error| panic!("{what}: open, and damaged: {error}"));
                assert!(found == self.state, "{what}: {}", super::model::shown(&found));
                let is_noted = recovery.findings.iter().any(|finding| finding.severity == Severity::Note);
                assert!(is_noted, "{what} is not noted");
                log.close(&files);
                true
            }
            Err(Error::Damaged(_)) => false,
            Err(error) => panic!("{what}: {error}"),
        }
    }

    /// Each sector of a range, in each way.
    fn damage(&self, name: &str, range: Range<u64>, proof: &Proof, mut each: impl FnMut(&SimDisk, u64, &str)) {
        for start in range.step_by(512) {
            for kind in 0..4 {
                let fork = self.disk.fork();
                let sector = start..start + 512;
                match kind {
                    0 => fork.zero(name, sector),
                    1 => fork.fill(name, sector, 0xff),
                    2 => fork.junk(name, sector, &mut Random::seeded(start)),
                    _ => fork.make_unreadable(name, sector),
                }
                if kind == 3 || fork.contents(name) != self.disk.contents(name) {
                    let readable = if kind == 3 { "not given" } else { "readable" };
                    each(&fork, start, &format!("{name} sector at {start}, kind {kind}, {readable}"));
                    proof.case();
                }
            }
        }
    }
}

/// Two segments that a purge gave up, whose files are there still, and one with live entries.
fn retired() -> (Stand, Vec<String>) {
    let mut rig = Rig::new(options());
    rig.settle();
    rig.grow(GroupId(1), 3, 600);
    rig.rotate(G);
    rig.rotate(G);
    rig.purge(G, rig.model.group(G).last());
    rig.purge(GroupId(1), rig.model.group(GroupId(1)).last());
    rig.grow(G, 2, 300);
    rig.grow(GroupId(1), 1, 300);
    rig.rest();
    let active = rig.log.active.number;
    assert_eq!(active, SegmentNumber(3));
    let names = rig.files.list(DIRECTORY).expect("it is there");
    let dead: Vec<String> = [1, 2].map(segment).into();
    assert!(dead.iter().all(|dead| names.iter().any(|name| dead.ends_with(name))), "{names:?}");
    (Stand::of(rig), dead)
}

/// A segment in which frames were replaced and cut off.
struct Replaced {
    stand: Stand,
    /// Frames, and where their records lie in them: all of them are dead.
    dead: Vec<(Range<u64>, Range<u64>)>,
    /// A frame, and where dead records lie in it, with live ones behind them.
    mixed: (Range<u64>, Range<u64>),
    live: Range<u64>,
}

/// Where records begin in a frame with so many runs of its own and of the frame before.
pub fn records_start(runs: u64) -> u64 {
    104 + runs * 40
}

const RECORD_BYTES: u64 = 40 + 600;

fn replaced() -> Replaced {
    let mut rig = Rig::new(options());
    rig.settle();
    rig.grow(G, 2, 600);
    rig.settle();
    let frame = |rig: &mut Rig| {
        let start = rig.log.durable_end().offset;
        rig.settle();
        start..rig.log.durable_end().offset
    };
    rig.grow(G, 4, 600);
    let replaced = frame(&mut rig);
    rig.grow(G, 2, 600);
    rig.grow(GroupId(1), 2, 600);
    let mixed = frame(&mut rig);
    rig.model.term = Term(2);
    let entries = rig.model.entries_behind(Index(2), 1, 600);
    rig.append(G, &entries);
    rig.settle();
    rig.grow(GroupId(2), 1, 100);
    rig.settle();
    rig.grow(GroupId(2), 3, 600);
    let cut = frame(&mut rig);
    rig.truncate(GroupId(2), Index(2));
    rig.settle();
    rig.grow(GroupId(2), 1, 100);
    rig.grow(G, 2, 600);
    let live = frame(&mut rig);
    rig.rest();
    let records = |runs: u64, count: u64| records_start(runs)..records_start(runs) + count * RECORD_BYTES;
    let dead = vec![(replaced, records(2, 4)), (cut, records(2, 3))];
    let mixed = (mixed, records(3, 2));
    Replaced { stand: Stand::of(rig), dead, mixed, live }
}

/// D5, the other way round: a frame that is covered is corrupt, but for what is in it and is not in the log any more. Each
/// sector of segments that were given up, and of records that were replaced, in each way: the log opens, holds what it
/// held, and notes it. Where anything live is damaged it does not.
pub fn dead_everywhere(proof: &Proof) {
    let (stand, dead) = retired();
    for name in &dead {
        stand.damage(name, 4096..61_440, proof, |fork, start, what| {
            let is_written =
                stand.disk.contents(name)[start as usize..start as usize + 512].iter().any(|&byte| byte != 0);
            let opens = match open(&fork.fork(), &options()) {
                Ok((_, _, found)) => found == stand.state,
                Err(error) => panic!("{what}: {error}"),
            };
            assert!(opens && (!is_written || stand.opens(fork, what)), "{what}");
        });
    }
    let Replaced { stand, dead, mixed, live } = replaced();
    // It opens where a sector holds nothing but dead records, and can be read. The first sector holds the names of what is
    // in the frame, and without them nothing is certain; nor is it where what lies between frames is not as it was.
    let is_noted = |(start, end): (u64, u64), sector: u64, what: &str| {
        start <= sector && sector + 512 <= end && what.ends_with("readable")
    };
    for (frame, records) in dead {
        let records = (frame.start + records.start, frame.start + records.end);
        stand.damage(&segment(1), frame, proof, |fork, sector, what| {
            // Zeros in the last sector change the records alone: what lies behind them is zero.
            let is_last = sector < records.1 && sector + 512 > records.1;
            assert!(stand.opens(fork, what) == is_noted(records, sector, what) || is_last, "{what}");
        });
    }
    let (frame, records) = mixed;
    let records = (frame.start + records.start, frame.start + records.end);
    stand.damage(&segment(1), frame, proof, |fork, sector, what| {
        assert_eq!(stand.opens(fork, what), is_noted(records, sector, what), "{what}");
    });
    stand.damage(&segment(1), live, proof, |fork, _, what| assert!(!stand.opens(fork, what), "{what}"));
}

/// A log of which a retired segment is damaged goes on, and uses the file again.
#[test]
fn a_damaged_file_that_was_given_up_is_used_again() {
    let (stand, dead) = retired();
    dead.iter().for_each(|name| stand.disk.fill(name, 8192..12_288, 7));
    let (log, _, found) = open(&stand.disk, &options()).expect("nothing of it is needed");
    let mut rig = Rig::with(stand.disk, log, Model { term: Term(2), ..Model::new(found) });
    for _ in 0..3 {
        rig.rotate(G);
    }
    rig.rest();
    let names = rig.files.list(DIRECTORY).expect("it is there");
    assert!(dead.iter().all(|dead| !names.iter().any(|name| dead.ends_with(name))), "{names:?}");
    rig.disk.crash(&mut Random::seeded(1));
    rig.reopened().check();
}

/// It counted as whole, and was read through a map.
#[test]
fn a_segment_with_damage_in_what_is_dead_is_not_verified() {
    let mut rig = Rig::new(options());
    rig.settle();
    rig.grow(G, 2, 600);
    rig.settle();
    let dead = rig.log.durable_end().offset + records_start(2) + 200;
    rig.grow(G, 2, 600);
    rig.settle();
    rig.model.term = Term(2);
    let entries = rig.model.entries_behind(Index(2), 1, 600);
    rig.append(G, &entries);
    rig.rest();
    let stand = Stand::of(rig);
    for is_damaged in [false, true] {
        let fork = stand.disk.fork();
        if is_damaged {
            fork.flip_bit(&segment(1), dead, 3);
        }
        let (log, recovery, _) = open(&fork, &options()).expect("what is damaged is dead");
        assert_eq!(recovery.findings.is_empty(), !is_damaged);
        let first = log.locator.segments().next().expect("there is one");
        assert_eq!(first.is_verified, !is_damaged);
    }
}

/// Where reads may tell what is in memory alone the purge may be, too: what it gives up stays until it is on the disk.
#[test]
fn what_an_unproven_purge_gave_up_is_not_used_for_its_copy() {
    let mut rig = Rig::new(options());
    rig.disk.set_reads_past_cache(false);
    rig.settle();
    rig.rotate(G);
    rig.rotate(G);
    rig.rest();
    rig.purge(G, rig.model.group(G).last());
    rig.settle();
    rig.disk.kill(&mut Random::seeded(1));
    rig.disk.fill(&segment(1), 8192..12_288, 7);
    rig.disk.set_capacity(rig.disk.used_bytes());
    let mut at = 0;
    loop {
        let fork = rig.disk.fork();
        fork.crash_at(fork.operations() + at);
        let is_open = open(&fork, &options()).is_ok();
        fork.crash(&mut Random::seeded(at));
        let (.., found) = open(&fork, &options()).unwrap_or_else(|error| panic!("{at}: {error}"));
        assert!(rig.model.is_possible(&found), "{at}");
        if is_open {
            break;
        }
        at += 1;
    }
    assert!(at > 10, "{at}");
}

/// Entries and a configuration that were replaced, in the next segment or in their own, with segments behind that are taken
/// in by their seals: a start by seals and one that reads everything open the log, and say the same. The configuration's
/// frame is listed in the seal, and cannot be compared with it any more.
#[test]
fn a_dead_configuration_under_a_seal_costs_nothing() {
    for rotations_between in [0, 1, 3] {
        let mut rig = Rig::new(options());
        rig.settle();
        rig.grow(G, 2, 600);
        rig.settle();
        let start = rig.log.durable_end().offset;
        configure(&mut rig, G);
        rig.grow(G, 1, 600);
        rig.settle();
        (0..rotations_between).for_each(|_| rig.rotate(GroupId(1)));
        rig.model.term = Term(2);
        let entries = rig.model.entries_behind(Index(2), 4, 600);
        rig.append(G, &entries);
        rig.settle();
        (0..3).for_each(|_| rig.rotate(GroupId(1)));
        rig.rest();
        let stand = Stand::of(rig);
        let records = start + records_start(2);
        for (at, index) in [(records + 20, 3), (records + 50, 3), (records + 200, 4)] {
            let fork = stand.disk.fork();
            fork.flip_bit(&segment(1), at, 3);
            let (_, recovery, _) = open(&fork.fork(), &options()).unwrap_or_else(|error| panic!("{at}: {error}"));
            let damaged = recovery.findings.iter().flat_map(|finding| &finding.entries);
            assert_eq!(damaged.map(|ids| ids.first).collect::<Vec<_>>(), [Index(index)], "{at}");
            compare(&fork, &options());
            let log = open_by_seals(&fork.fork(), &options()).unwrap_or_else(|error| panic!("{at}: {error}"));
            assert_eq!(log.group(G).map(|group| group.last.index), Some(Index(6)));
            assert!(stand.opens(&fork, &format!("{at}, {rotations_between} between")));
        }
    }
}

/// Where reads may tell what is in memory alone: what replaced a damaged entry is not proven yet, and is copied.
#[test]
fn what_an_unproven_frame_replaced_does_not_keep_the_log_from_opening() {
    let mut rig = Rig::new(options());
    rig.disk.set_reads_past_cache(false);
    rig.settle();
    rig.grow(G, 2, 600);
    rig.settle();
    let start = rig.log.durable_end().offset;
    rig.grow(G, 2, 600);
    rig.rest();
    rig.model.term = Term(2);
    let entries = rig.model.entries_behind(Index(2), 3, 600);
    rig.append(G, &entries);
    rig.settle();
    rig.disk.kill(&mut Random::seeded(1));
    rig.disk.flip_bit(&segment(1), start + records_start(2) + 200, 3);
    let rig = rig.reopened();
    rig.check();
}

/// A scrub sees one segment alone, and called damage what a start notes.
#[test]
fn a_scrub_notes_damage_in_what_a_later_segment_replaced() {
    for (is_cut, rotations_between) in [(false, 0), (false, 2), (true, 0), (true, 2)] {
        let mut rig = Rig::new(options());
        rig.settle();
        rig.grow(G, 2, 600);
        rig.settle();
        let [mut live, mut dead] = [0; 2];
        for start in [&mut live, &mut dead] {
            *start = rig.log.durable_end().offset + records_start(2) + 200;
            rig.grow(G, 2, 600);
            rig.settle();
        }
        (0..=rotations_between).for_each(|_| rig.rotate(GroupId(1)));
        let scrub = |rig: &Rig, damaged: u64| {
            let fork = rig.disk.fork();
            fork.flip_bit(&segment(1), damaged, 3);
            let extent = rig.log.sealed_extent(SegmentNumber(1)).expect("it is sealed");
            let found = extent.check(&fork.files()).expect("its file is there").findings;
            let [finding] = found.try_into().unwrap_or_else(|found| panic!("{damaged}: {found:?}"));
            (finding, fork)
        };
        assert_eq!(scrub(&rig, dead).0.severity, Severity::Corrupt, "it is live still");
        if is_cut {
            rig.truncate(G, Index(5));
        } else {
            rig.model.term = Term(2);
            let entries = rig.model.entries_behind(Index(4), 4, 600);
            rig.append(G, &entries);
        }
        rig.rest();
        assert_eq!(scrub(&rig, live).0.severity, Severity::Corrupt);
        let (finding, fork) = scrub(&rig, dead);
        fork.crash_to(&vec![0; fork.loose().len()]);
        let (_, recovery, found) = open(&fork, &options()).expect("it opens");
        assert!(found == *rig.model.state());
        assert_eq!((finding.severity, vec![finding]), (Severity::Note, recovery.findings));
    }
}
