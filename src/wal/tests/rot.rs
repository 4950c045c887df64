//! Rot in a log of three segments: whatever changes, nothing wrong is read and nothing is changed by the refusal.

use super::model::{State, state_of};
use super::rig::{DIRECTORY, G, Rig, identity, open, options, segment};
use crate::disk::Files;
use crate::random::Random;
use crate::sim::disk::SimDisk;
use crate::types::{GroupId, Place, SegmentNumber};
use crate::wal::{Analysis, Error, Log, Severity, Source};

struct Log3 {
    disk: SimDisk,
    state: State,
    /// Names of the chain's segments, and where the frames of each end.
    segments: Vec<(String, u64)>,
    /// Where the last frame begins, which nothing covers: it holds no entry.
    last: u64,
}

/// Three segments, two groups, quiet: the last frame is a covering one.
fn log() -> Log3 {
    let mut rig = Rig::new(options());
    rig.settle();
    for round in 0..3 {
        rig.grow(G, 2, 300);
        rig.grow(GroupId(1), 1, 1500);
        rig.settle();
        if round < 2 {
            rig.rotate(G);
        }
    }
    rig.rest();
    let end = rig.log.durable_end();
    let Rig { disk, model, log, .. } = rig;
    disk.crash_to(&vec![0; disk.loose().len()]);
    let segments: Vec<_> = log.locator.segments().map(|own| (segment(own.header.number.0), own.end)).collect();
    assert_eq!(segments.len(), 3);
    Log3 { disk, state: model.state().clone(), segments, last: end.offset - 4096 }
}

fn severity(disk: &SimDisk) -> Option<Severity> {
    let source = Source {
        directory: DIRECTORY.to_owned(),
        identity: Some(identity()),
        evidence: Place::START,
        exclusive: false,
    };
    let files = disk.files();
    let analysis = Analysis::read(&files, &source).expect("no fault of the disk");
    analysis.close(&files);
    analysis.severity()
}

impl Log3 {
    /// Whether a fault is found; panics if something wrong is read or the refusal changes anything.
    fn is_found(&self, damaged: &SimDisk, what: &str) -> bool {
        let names: Vec<(String, Vec<u8>)> =
            self.segments.iter().map(|(name, _)| (name.clone(), damaged.contents(name))).collect();
        let files = damaged.files();
        match Log::open(&files, options(), Place::START, 1) {
            Ok((log, recovery)) => {
                let found = state_of(&files, &log).unwrap_or_else(|error| panic!("{what}: {error}"));
                assert!(found == self.state, "{what}: wrong data was read");
                !recovery.findings.is_empty()
            }
            Err(Error::Damaged(_) | Error::NewerFormat { .. }) => {
                for (name, content) in names {
                    assert!(damaged.contents(&name) == content, "{what}: the refusal changed {name}");
                }
                true
            }
            Err(error) => panic!("{what}: {error}"),
        }
    }

    fn flip(&self, name: &str, end: u64, at: u64, bit: u32) {
        self.disk.flip_bit(name, at, bit);
        let is_tail = name == self.segments[2].0 && (self.last..).contains(&at) && at < 61_440;
        let is_unwritten = at >= end && at < 61_440;
        // Where an earlier segment was never written nobody looks.
        if severity(&self.disk).is_none() {
            assert!(is_unwritten || is_tail, "{name} byte {at} bit {bit} is not found");
        }
        self.disk.flip_bit(name, at, bit);
    }
}

fn flips(stride: u64) -> u64 {
    let log = log();
    let mut count = 0;
    for (name, end) in &log.segments {
        for at in (0..65_536).filter(|at| at % 4096 < 400 && at % 4 == 0 || at % stride == 0) {
            if at >= end + 4096 && at < 61_440 && at % 509 != 0 {
                continue;
            }
            log.flip(name, *end, at, (at % 8) as u32);
            count += 1;
        }
    }
    count
}

#[test]
fn flipped_bits_are_found() {
    let count = flips(64);
    println!("{count} bits");
    assert!(count > 3_000, "{count}");
}

#[test]
#[ignore = "minutes: every byte, every bit"]
fn all_flipped_bits_are_found() {
    let log = log();
    for (name, end) in &log.segments {
        for at in 0..65_536 {
            for bit in 0..8 {
                log.flip(name, *end, at, bit);
            }
        }
    }
}

/// Each block zeroed, all ones, noise, or what stood there before.
#[test]
fn damaged_blocks_are_found() {
    let log = log();
    let mut random = Random::seeded(5);
    let mut count = 0;
    for (name, end) in &log.segments {
        let before = log.disk.contents(name);
        for size in [512, 4096] {
            for start in (0..*end).step_by(size as usize).chain([65_536 - size]) {
                for kind in 0..4 {
                    let fork = log.disk.fork();
                    let range = start..start + size;
                    match kind {
                        0 => fork.zero(name, range),
                        1 => fork.fill(name, range, 0xff),
                        2 => fork.junk(name, range, &mut random),
                        _ => fork.copy_block(name, 4096..4096 + size, name, start),
                    }
                    if fork.contents(name) == before {
                        continue;
                    }
                    count += 1;
                    let what = format!("{name} {start} {size} {kind}");
                    let is_last = *name == log.segments[2].0 && start >= log.last && start < 61_440;
                    assert!(log.is_found(&fork, &what) || is_last, "{what} is not found");
                }
            }
        }
    }
    println!("{count} blocks");
    assert!(count > 800, "{count}");
}

#[test]
fn unreadable_blocks_are_found() {
    let log = log();
    for (name, end) in &log.segments {
        for start in (0..*end).step_by(4096) {
            let fork = log.disk.fork();
            fork.make_unreadable(name, start..start + 512);
            assert!(severity(&fork).is_some(), "{name} {start}");
            assert!(start == 0 || open(&fork, &options()).is_err(), "{name} {start}");
        }
    }
}

/// Every pair of blocks exchanged, within a segment and between segments.
#[test]
fn exchanged_blocks_are_found() {
    let log = log();
    let blocks: Vec<(&String, u64)> =
        log.segments.iter().flat_map(|(name, end)| (0..*end).step_by(4096).map(move |at| (name, at))).collect();
    let mut count = 0;
    for (at, (left, left_at)) in blocks.iter().enumerate() {
        for (right, right_at) in &blocks[at + 1..] {
            let fork = log.disk.fork();
            let (one, two) = (log.disk.contents(left), log.disk.contents(right));
            let (one, two) = (&one[*left_at as usize..][..4096], &two[*right_at as usize..][..4096]);
            if one == two {
                continue;
            }
            fork.overwrite(left, *left_at, two);
            fork.overwrite(right, *right_at, one);
            count += 1;
            assert!(severity(&fork).is_some(), "{left} {left_at} and {right} {right_at}");
            // One that went to the wrong place alone.
            let fork = log.disk.fork();
            fork.overwrite(right, *right_at, one);
            let is_last = **right == log.segments[2].0 && *right_at >= log.last;
            assert!(severity(&fork).is_some() || is_last, "{left} {left_at} over {right} {right_at}");
        }
    }
    println!("{count} pairs");
    assert!(count > 300, "{count}");
}

/// An older state of a segment under its own name is found if a later segment follows; a retired generation of a file
/// is no segment of the present chain.
#[test]
fn older_generations_are_not_taken() {
    let mut rig = Rig::new(options());
    rig.grow(G, 2, 300);
    rig.settle();
    let older = rig.disk.contents(&segment(1));
    rig.rotate(G);
    rig.grow(G, 2, 300);
    rig.rest();
    let (second, active) = (segment(2), rig.log.active.number);
    assert!(active >= SegmentNumber(2));
    let Rig { disk, .. } = rig;
    disk.crash_to(&vec![0; disk.loose().len()]);
    let fork = disk.fork();
    fork.plant(&segment(1), &older);
    assert_eq!(severity(&fork), Some(Severity::Corrupt));
    for name in [segment(7), second] {
        let fork = disk.fork();
        fork.plant(&name, &older);
        assert!(matches!(open(&fork, &options()), Err(Error::Damaged(_))), "{name}");
    }
    // Used again under another number, with an old block where it was once.
    let mut rig = Rig::new(options());
    rig.grow(G, 3, 500);
    rig.rotate(G);
    let first = rig.disk.contents(&segment(1));
    rig.purge(G, rig.model.group(G).last());
    rig.rest();
    while rig.log.active.number < SegmentNumber(6) {
        rig.rotate(G);
    }
    let number = rig.log.active.number.0;
    rig.rest();
    let end = rig.log.durable_end().offset;
    let Rig { disk, model, .. } = rig;
    disk.crash_to(&vec![0; disk.loose().len()]);
    for block in 1..8 {
        let fork = disk.fork();
        let at = end + (block - 1) * 4096;
        if at + 4096 > 61_440 {
            break;
        }
        fork.overwrite(&segment(number), at, &first[block as usize * 4096..][..4096]);
        match open(&fork, &options()) {
            Ok((.., found)) => assert!(model.is_possible(&found)),
            Err(error) => assert!(matches!(error, Error::Damaged(_)), "{error}"),
        }
    }
}

/// Lost, foreign, cut and renamed files.
#[test]
fn lost_and_strange_files() {
    let log = log();
    for (at, (name, _)) in log.segments.iter().enumerate() {
        let fork = log.disk.fork();
        fork.lose(name);
        // Nobody misses the last one without the superblock's evidence.
        assert_eq!(open(&fork.fork(), &options()).is_err(), at < 2, "{name}");
        let files = fork.files();
        let evidence = Place { segment: SegmentNumber(9), offset: 4096, frame: crate::types::FrameNumber(1 << 40) };
        assert!(matches!(Log::open(&files, options(), evidence, 1), Err(Error::Damaged(_))));
        let fork = log.disk.fork();
        fork.misplace(name, &segment(77));
        assert!(matches!(open(&fork, &options()), Err(Error::Damaged(_))), "{name}");
        for length in [0, 100, 4096, 30_000, 65_535] {
            let fork = log.disk.fork();
            fork.truncate(name, length);
            assert!(matches!(open(&fork, &options()), Err(Error::Damaged(_))), "{name} {length}");
        }
        let fork = log.disk.fork();
        fork.truncate(name, 131_072);
        assert!(matches!(open(&fork, &options()), Err(Error::Damaged(_))), "{name} too long");
    }
    let fork = log.disk.fork();
    fork.plant("log/notes.txt", b"hello");
    fork.plant("log/0000000000000099.preparing", &[1; 5000]);
    let (_, recovery, found) = open(&fork, &options()).expect("neither is of the log");
    assert!(found == log.state && recovery.findings.len() == 1);
    assert!(!fork.files().list(DIRECTORY).expect("no fault").iter().any(|name| name.ends_with(".preparing")));
}
