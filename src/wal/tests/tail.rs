//! The active segment cut at each byte of its last frames: what lies behind reads as zero.

use std::ops::Range;

use super::rig::{G, READINGS, Rig, Start, open, options, segment};
use super::rot::severity_as;
use crate::limits::SECTOR_BYTES;
use crate::random::Random;
use crate::sim::disk::SimDisk;
use crate::sim::proofs::Proof;
use crate::types::{FrameNumber, Place, SegmentNumber};
use crate::wal::Severity;

/// One frame of the log: where it lies, and its bytes.
struct Cut {
    start: usize,
    bytes: Vec<u8>,
}

fn log() -> (SimDisk, Vec<Cut>, Place) {
    let mut rig = Rig::new(options());
    rig.settle();
    for bytes in [300, 900, 5000, 700, 2600] {
        rig.grow(G, 1, bytes);
        rig.settle();
    }
    let end = rig.log.durable_end();
    let content = rig.disk.contents(&segment(1));
    let starts: Vec<usize> = (1..16).map(|block| block * 4096).filter(|&at| content[at..at + 4] == *b"TFRM").collect();
    let ends = starts.iter().skip(1).copied().chain([end.offset as usize]);
    let cuts = starts.iter().zip(ends).map(|(&start, end)| Cut { start, bytes: content[start..end].to_vec() });
    let cuts = cuts.collect();
    rig.disk.crash_to(&vec![0; rig.disk.loose().len()]);
    (rig.disk, cuts, end)
}

fn worst(disk: &SimDisk, evidence: Place) -> Option<Severity> {
    let [whole, by_seals] = READINGS.map(|reading| severity_as(disk, Start { evidence, reading }));
    assert_eq!(by_seals, whole, "the end of a log is read, however it is opened");
    whole
}

/// What the design says of a frame of which the first `kept` bytes are there: nothing was ever written here; or it was
/// cut off, which shows in sectors that are zero and should not be; or neither can be shown.
fn expected(frame: &Cut, kept: usize) -> Option<Severity> {
    let mut left = frame.bytes.clone();
    left[kept..].fill(0);
    let is_zero = |sector: &[u8]| sector.iter().all(|&byte| byte == 0);
    let zeros = |bytes: &[u8]| bytes.chunks(SECTOR_BYTES).filter(|sector| is_zero(sector)).count();
    let head_is_whole = left[..104] == frame.bytes[..104];
    match () {
        () if left == frame.bytes => None,
        () if is_zero(&left) => None,
        () if !head_is_whole => Some(Severity::Unclear),
        () if zeros(&left) > zeros(&frame.bytes) => Some(Severity::Torn),
        () => Some(Severity::Unclear),
    }
}

/// D3: the last three frames, each cut at each of its bytes. Inside a frame's head, or inside the last of its sectors,
/// that is unclear; where a sector is missing it is torn; with proof behind it, corrupt.
pub fn cut_at_each_byte(proof: &Proof) {
    let (disk, frames, end) = log();
    let (mut torn, mut unclear, mut clean) = (0, 0, 0);
    let count = frames.len();
    for (at, frame) in frames.iter().enumerate().skip(count - 3) {
        for kept in 0..frame.bytes.len() {
            let fork = disk.fork();
            fork.zero(&segment(1), (frame.start + kept) as u64..61_440);
            let found = worst(&fork, Place::START);
            assert_eq!(found, expected(frame, kept), "frame {at} cut at {kept}");
            match found {
                None => clean += 1,
                Some(Severity::Torn) => torn += 1,
                _ => unclear += 1,
            }
            if frame.bytes[kept..].iter().any(|&byte| byte != 0) {
                assert_eq!(worst(&fork, end), Some(Severity::Corrupt), "frame {at} cut at {kept}, covered");
            }
            if kept % 256 == 0 {
                let is_open = open(&fork, &options()).is_ok();
                assert_eq!(is_open, found.is_none_or(|severity| severity < Severity::Unclear));
            }
            proof.case();
        }
    }
    assert!(clean > 3 && torn > 1000 && unclear > 300, "{clean} clean, {torn} torn, {unclear} unclear");
}

/// At a sector's edge within the written sectors it is always torn.
#[test]
fn a_cut_at_a_sectors_edge_is_torn() {
    let (disk, frames, _) = log();
    let last = frames.last().expect("there are frames");
    for sector in 1..5 {
        let fork = disk.fork();
        fork.zero(&segment(1), (last.start + sector * SECTOR_BYTES) as u64..61_440);
        assert_eq!(worst(&fork, Place::START), Some(Severity::Torn), "{sector}");
        let (log, recovery, found) = open(&fork, &options()).expect("a torn tail is cut");
        assert_eq!(found[&G].entries.len(), 4);
        assert_eq!(recovery.torn.map(|torn| torn.start), Some(last.start as u64));
        assert_eq!(log.active.number, SegmentNumber(5), "behind the three that stood ready");
        let names = crate::disk::Files::list(&fork.files(), "log").expect("no fault");
        assert_eq!(names.iter().filter(|name| name.ends_with(".cut")).count(), 1);
    }
}

/// What shows that a frame had been on the disk.
#[derive(Clone, Copy, Debug)]
enum Cover {
    Nothing,
    LaterFrame,
    CoveringFrame,
    OpenFrame,
    Superblock,
}

/// A log whose second frame is proven in this way, or is the last and not proven; and what the superblock says.
fn proven(cover: Cover) -> (SimDisk, Range<u64>, Place) {
    let mut rig = Rig::new(options());
    rig.settle();
    rig.grow(G, 2, 800);
    rig.settle();
    let end = rig.log.durable_end();
    assert_eq!(end.frame, FrameNumber(2));
    match cover {
        Cover::Nothing | Cover::Superblock => {}
        Cover::LaterFrame => {
            rig.grow(G, 1, 100);
            rig.settle();
        }
        Cover::CoveringFrame => rig.rest(),
        Cover::OpenFrame => rig.rotate(G),
    }
    rig.disk.crash_to(&vec![0; rig.disk.loose().len()]);
    let evidence = if matches!(cover, Cover::Superblock) { end } else { Place::START };
    (rig.disk, end.offset - 4096..end.offset, evidence)
}

/// D5: a durable frame at the tail is damaged, sector by sector and bit by bit. Where something proves it, that is
/// corrupt; where nothing does it is unclear, but for a sector that turned to zeros; it is never torn with proof.
pub fn damaged_where_it_is_covered_and_where_not(proof: &Proof) {
    let stride = proof.pick(131, 7, 1);
    let covers = [Cover::Nothing, Cover::LaterFrame, Cover::CoveringFrame, Cover::OpenFrame, Cover::Superblock];
    proof.spread(covers.len() as u64 * 8, |piece| {
        let (cover, sector) = (covers[piece as usize / 8], piece % 8);
        let (disk, frame, evidence) = proven(cover);
        let start = frame.start + sector * SECTOR_BYTES as u64;
        let range = start..start + SECTOR_BYTES as u64;
        let judge = |fork: &SimDisk, what: &dyn Fn() -> String| {
            let sectors =
                |disk: &SimDisk| disk.contents(&segment(1))[frame.start as usize..frame.end as usize].to_vec();
            let (now, before) = (sectors(fork), sectors(&disk));
            if now == before {
                return;
            }
            let zeros =
                |bytes: &[u8]| bytes.chunks(SECTOR_BYTES).filter(|own| own.iter().all(|&byte| byte == 0)).count();
            let expected = match cover {
                Cover::Nothing if zeros(&now) > zeros(&before) => Severity::Torn,
                Cover::Nothing => Severity::Unclear,
                _ => Severity::Corrupt,
            };
            assert_eq!(worst(fork, evidence), Some(expected), "{cover:?} {}", what());
            proof.case();
        };
        for kind in 0..3 {
            let fork = disk.fork();
            match kind {
                0 => fork.zero(&segment(1), range.clone()),
                1 => fork.fill(&segment(1), range.clone(), 0xff),
                _ => fork.junk(&segment(1), range.clone(), &mut Random::seeded(piece)),
            }
            judge(&fork, &|| format!("sector {sector} kind {kind}"));
        }
        for bit in (start * 8..range.end * 8).filter(|bit| bit % stride == 0) {
            let fork = disk.fork();
            fork.flip_bit(&segment(1), bit / 8, (bit % 8) as u32);
            judge(&fork, &|| format!("bit {bit}"));
        }
    });
}
