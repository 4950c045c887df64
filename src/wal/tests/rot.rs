//! Rot in a log of three segments: whatever changes, nothing wrong is read and nothing is changed by the refusal.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::model::{State, state_of};
use super::rig::{DIRECTORY, G, Rig, Start, WHOLE, identity, open, options, segment};
use super::starts::is_honest;
use crate::disk::Files;
use crate::limits::BLOCK_BYTES;
use crate::random::Random;
use crate::sim::disk::SimDisk;
use crate::sim::proofs::{Proof, Scale};
use crate::types::{Data, Entry, GroupId, LogId, Payload, Place, SegmentNumber};
use crate::wal::frame::SEAL_FRAME_BYTES_MAX;
use crate::wal::{Analysis, Error, Log, Options, Reading, Severity, Source};

pub struct Log3 {
    pub disk: SimDisk,
    pub state: State,
    /// Names of the chain's segments, and where the frames of each end.
    pub segments: Vec<(String, u64)>,
    /// What was in the file of each before it was used again.
    pub older: Vec<Vec<u8>>,
    /// Where the last frame begins, which nothing covers: it holds no entry.
    pub last: u64,
    pub end: Place,
    /// Where it was durable when its last segment began: so much a superblock knows that was told no more.
    begun: Place,
    /// What the superblock says was durable.
    pub evidence: Place,
}

/// Three segments of files that had another life before, two groups, quiet: the last frame is a covering one.
pub fn log() -> Log3 {
    let mut rig = Rig::new(options());
    rig.retired = Some(BTreeMap::new());
    rig.settle();
    for _ in 0..4 {
        rig.rotate(G);
    }
    rig.purge(G, rig.model.group(G).last());
    rig.settle();
    let mut used_again = 0;
    while used_again < 5 {
        rig.rotate(G);
        rig.purge(G, rig.model.group(G).last());
        rig.settle();
        let retired = rig.retired.as_ref().expect("it was asked for");
        used_again = if retired.contains_key(&rig.log.active.number.0) { used_again + 1 } else { 0 };
    }
    // A payload whose checksum is that of itself with zeros behind: only its length tells them apart.
    let next = rig.model.group(G).last().index.next();
    let payload = Payload::Data(Data::new(Bytes::from_static(&[0xff; 4])));
    rig.append(G, &[Entry { id: LogId::new(rig.model.term, next), payload }]);
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
    let begun = *rig.learned.last().expect("it knows where the log began");
    let Rig { disk, model, log, retired, .. } = rig;
    disk.crash_to(&vec![0; disk.loose().len()]);
    let retired = retired.expect("it was asked for");
    let own = log.locator.segments().skip_while(|own| !retired.contains_key(&own.header.number.0));
    let segments: Vec<_> = own.map(|own| (segment(own.header.number.0), own.end)).collect();
    let older = log.locator.segments().filter_map(|own| retired.get(&own.header.number.0).cloned()).collect();
    assert_eq!(segments.len(), 3);
    assert_eq!(log.locator.segments().count(), 3, "nothing else is in the chain");
    assert!(begun.segment == end.segment && begun < end);
    let (state, last, evidence) = (model.state().clone(), end.offset - 4096, Place::START);
    Log3 { disk, state, segments, older, last, end, begun, evidence }
}

pub fn severity(disk: &SimDisk) -> Option<Severity> {
    severity_as(disk, WHOLE)
}

/// The worst that a start finds.
pub fn severity_as(disk: &SimDisk, Start { evidence, reading }: Start) -> Option<Severity> {
    let identity = Some(identity());
    let source = Source { identity, evidence, reading, ..Source::from_outside(DIRECTORY) };
    let files = disk.files();
    let analysis = Analysis::read(&files, &source).expect("no fault of the disk");
    analysis.close(&files);
    analysis.severity()
}

impl Log3 {
    /// What the superblock may know: nothing, where the last segment began, or all.
    fn knowing(&self, turn: u64) -> Place {
        [Place::START, self.begun, self.end][(turn % 3) as usize]
    }

    /// Whether a fault is found; panics if something wrong is read or the refusal changes anything. By seals it is found,
    /// too, or met by who reads there.
    pub fn is_found(&self, damaged: &SimDisk, what: &str) -> bool {
        let start = Start { evidence: self.evidence, reading: Reading::Everything };
        let is_refused = severity_as(damaged, start).is_some_and(|found| found >= Severity::Unclear);
        is_honest(damaged, (&options(), self.evidence), (&self.state, is_refused), &|| what.to_owned());
        let names: Vec<(String, Vec<u8>)> =
            self.segments.iter().map(|(name, _)| (name.clone(), damaged.contents(name))).collect();
        let files = damaged.files();
        match Log::open(&files, options(), self.evidence, 1) {
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
        let evidence = self.knowing(at / 8 + u64::from(bit));
        let is_proven = evidence == self.end;
        let is_tail = name == self.segments[2].0 && (self.last..).contains(&at) && at < 61_440 && !is_proven;
        let is_unwritten = at >= end && at < 61_440 && name != self.segments[2].0;
        let found = |reading| severity_as(&self.disk, Start { evidence, reading });
        let whole = found(Reading::Everything);
        // Of one byte in 32: it costs more than all else.
        let by_seals = if at.is_multiple_of(32) { found(Reading::BySeals) } else { whole };
        // Where an earlier segment was never written nobody looks.
        if whole.is_none() {
            assert!(is_unwritten || is_tail, "{name} byte {at} bit {bit} is not found");
        }
        if whole != by_seals {
            let is_refused = whole.is_some_and(|found| found >= Severity::Unclear);
            let what = || format!("{name} byte {at} bit {bit}");
            is_honest(&self.disk, (&options(), evidence), (&self.state, is_refused), &what);
            assert!(*name == self.segments[0].0, "{}: it is read", what());
        }
        self.disk.flip_bit(name, at, bit);
    }
}

/// D4: each bit of the three segments. CI takes one bit of each byte, a share those of the heads and some between.
pub fn flipped_bits(proof: &Proof) {
    const PIECE: u64 = 8192;
    proof.spread(3 * 65_536 / PIECE, |piece| {
        let log = log();
        let (name, end) = &log.segments[(piece * PIECE / 65_536) as usize];
        let start = piece * PIECE % 65_536;
        for at in start..start + PIECE {
            let is_head = at % 4096 < 400 && at % 4 == 0 && (at < end + 4096 || at >= 61_440);
            let bits = match proof.scale {
                Scale::Share if is_head || at % 509 == 0 => at % 8..at % 8 + 1,
                Scale::Share => 0..0,
                Scale::Ci => at % 8..at % 8 + 1,
                Scale::Full => 0..8,
            };
            for bit in bits {
                log.flip(name, *end, at, bit as u32);
                proof.case();
            }
        }
        // The payload that only its length tells from another, bit by bit.
        let bytes = log.disk.contents(name);
        let places =
            (start..start + PIECE).filter(|&at| bytes[at as usize..].starts_with(&[0xff, 0xff, 0xff, 0xff, 0]));
        for at in places.filter(|&at| at >= 40) {
            for bit in 0..40 * 8 {
                log.flip(name, *end, at - 40 + bit / 8, (bit % 8) as u32);
                proof.case();
            }
        }
    });
}

/// D4: each block of both sizes zeroed, all ones, junk, another's, or as it was in the file's life before.
pub fn damaged_blocks(proof: &Proof) {
    proof.spread(6, |piece| {
        let mut log = log();
        let mut random = Random::seeded(piece);
        let (at, size) = ((piece / 2) as usize, [512, 4096][(piece % 2) as usize]);
        let (name, end) = &log.segments[at].clone();
        let (before, older) = (log.disk.contents(name), &log.older[at]);
        // Of earlier segments nobody looks at what was never written.
        let end = if at == 2 { 65_536 - size } else { *end };
        for start in (0..end).step_by(size as usize).chain([65_536 - size]) {
            for kind in 0..5 {
                let fork = log.disk.fork();
                let range = start..start + size;
                match kind {
                    0 => fork.zero(name, range),
                    1 => fork.fill(name, range, 0xff),
                    2 => fork.junk(name, range, &mut random),
                    3 => fork.copy_block(name, 4096..4096 + size, name, start),
                    _ => fork.overwrite(name, start, &older[start as usize..(start + size) as usize]),
                }
                if fork.contents(name) == before {
                    continue;
                }
                let what = format!("{name} {start} {size} {kind}");
                log.evidence = log.knowing(start / size + kind);
                let is_last = at == 2 && start >= log.last && start < 61_440 && log.evidence != log.end;
                assert!(log.is_found(&fork, &what) || is_last, "{what} is not found");
                proof.case();
            }
        }
    });
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

/// Where nothing was ever written it cost the whole log: what was to be kept aside could not be read.
#[test]
fn unreadable_blocks_behind_the_end_cost_nothing() {
    let log = log();
    for (at, (name, end)) in log.segments.iter().enumerate() {
        // Where the next frame would begin nobody knows that there was none.
        for start in (*end + if at == 2 { 4096 } else { 0 }..61_440).step_by(4096) {
            let fork = log.disk.fork();
            fork.make_unreadable(name, start..start + 512);
            let (own, recovery, found) =
                open(&fork, &options()).unwrap_or_else(|error| panic!("{name} {start}: {error}"));
            assert!(found == log.state, "{name} {start}");
            let is_noted = recovery.findings.iter().any(|finding| finding.what.contains("could not be read"));
            assert_eq!(is_noted, at == 2, "{name} {start}: {:?}", recovery.findings);
            own.close(&fork.files());
            let (.., again) = open(&fork, &options()).expect("it was cut off");
            assert!(again == log.state, "{name} {start}");
        }
    }
}

/// A segment of 1 MiB, full of frames of one block each but for its last, up to the room that is kept for a seal.
fn large() -> (Vec<u8>, Place) {
    let mut rig = Rig::new(Options { segment_bytes: 1 << 20, ..options() });
    rig.settle();
    let room = (SEAL_FRAME_BYTES_MAX + 4 * BLOCK_BYTES) as u64;
    while rig.log.durable_end().offset < (1 << 20) - room {
        rig.grow(G, 1, 3000);
        rig.settle();
    }
    rig.rest();
    assert_eq!(rig.log.active.number, SegmentNumber(1));
    let end = rig.log.durable_end();
    (rig.disk.contents(&segment(1)), end)
}

/// D6: every pair of blocks in 1 MiB exchanged, and each of the two written over the other alone.
pub fn exchanged_blocks(proof: &Proof) {
    let stride = proof.pick(127, 11, 1);
    let (content, end) = large();
    let (blocks, last) = (end.offset / 4096, end.offset - 4096);
    proof.spread(blocks, |left| {
        let disk = SimDisk::new();
        disk.files().create_directory(DIRECTORY).expect("the disk is empty and well");
        disk.plant(&segment(1), &content);
        let block = |at: u64| &content[at as usize * 4096..][..4096];
        for right in (left + 1..blocks).chain([255]).filter(|right| (left * 257 + right) % stride == 0) {
            if block(left) == block(right) {
                continue;
            }
            let (left_at, right_at) = (left * 4096, right * 4096);
            for kind in 0..3 {
                let fork = disk.fork();
                if kind != 1 {
                    fork.overwrite(&segment(1), left_at, block(right));
                }
                if kind != 2 {
                    fork.overwrite(&segment(1), right_at, block(left));
                }
                // Only the last frame is covered by nothing. It holds no entry.
                let is_proven = (left + right) % 2 == 1;
                let is_last = (kind == 1 && right_at == last || kind == 2 && left_at == last) && !is_proven;
                let evidence = if is_proven { end } else { Place::START };
                let found = severity_as(&fork, Start { evidence, ..WHOLE });
                assert!(found.is_some() || is_last, "blocks {left} and {right}, kind {kind}");
                proof.case();
            }
        }
    });
}

/// D6: what a segment was in the file's life before, whole or block by block, in its place or behind the end of the log.
pub fn older_generations(proof: &Proof) {
    let mut log = log();
    let mut turn = 0;
    let segments = log.segments.clone();
    for ((name, end), older) in segments.iter().zip(&log.older.clone()) {
        let fork = log.disk.fork();
        fork.plant(name, older);
        assert!(log.is_found(&fork, name), "{name} is another");
        proof.case();
        for block in 1..15 {
            let is_active = *name == log.segments[2].0;
            for at in (4096..(end + 8192).min(61_440)).step_by(4096) {
                let fork = log.disk.fork();
                fork.overwrite(name, at, &older[block * 4096..][..4096]);
                let what = format!("{name}: block {block} of the life before at {at}");
                let is_changed = fork.contents(name) != log.disk.contents(name);
                turn += 1;
                log.evidence = log.knowing(turn);
                let is_proven = log.evidence == log.end && at < *end;
                let matters = is_changed && (at < *end && !is_active || at < log.last || is_proven);
                assert!(log.is_found(&fork, &what) || !matters, "{what} is not found");
                proof.case();
            }
        }
    }
    older_entries_do_not_come_back(proof);
}

/// Frames of the life before, whose place, number and kind would fit behind the end, are not taken.
fn older_entries_do_not_come_back(proof: &Proof) {
    for frames in 1..12 {
        let mut rig = Rig::new(options());
        rig.settle();
        for _ in 0..frames {
            rig.grow(G, 1, 100);
            rig.settle();
        }
        let end = rig.log.durable_end();
        let mut other = Rig::new(Options { seed: 99, ..options() });
        other.settle();
        for _ in 0..frames + 3 {
            other.grow(G, 1, 200);
            other.settle();
        }
        let older = other.disk.contents(&segment(1));
        rig.disk.crash_to(&vec![0; rig.disk.loose().len()]);
        for count in 1..4 {
            let fork = rig.disk.fork();
            let bytes = &older[end.offset as usize..end.offset as usize + count * 4096];
            fork.overwrite(&segment(1), end.offset, bytes);
            match open(&fork, &options()) {
                Ok((.., found)) => assert!(rig.model.is_possible(&found), "{}", super::model::shown(&found)),
                Err(error) => assert!(matches!(error, Error::Damaged(_)), "{error}"),
            }
            proof.case();
        }
    }
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
