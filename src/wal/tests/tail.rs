//! The active segment cut at each byte of its last frames: what lies behind reads as zero.

use super::rig::{G, Rig, identity, open, options, segment};
use crate::limits::SECTOR_BYTES;
use crate::sim::disk::SimDisk;
use crate::types::{FrameNumber, Place, SegmentNumber};
use crate::wal::{Analysis, Severity, Source};

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
    let source = Source { directory: "log".to_owned(), identity: Some(identity()), evidence, exclusive: false };
    let files = disk.files();
    let analysis = Analysis::read(&files, &source).expect("no fault of the disk");
    analysis.close(&files);
    analysis.severity()
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

#[test]
fn the_tail_is_cut_at_each_byte() {
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
            if kept % 64 == 0 && frame.bytes[kept..].iter().any(|&byte| byte != 0) {
                assert_eq!(worst(&fork, end), Some(Severity::Corrupt), "frame {at} cut at {kept}, covered");
            }
            if kept % 256 == 0 {
                let is_open = open(&fork, &options()).is_ok();
                assert_eq!(is_open, found.is_none_or(|severity| severity < Severity::Unclear));
            }
        }
    }
    println!("{clean} clean, {torn} torn, {unclear} unclear");
    assert!(clean > 3 && torn > 1000 && unclear > 300);
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

/// A damaged frame with a covering frame, an open frame or the superblock behind it is corrupt, never torn.
#[test]
fn what_is_covered_is_never_torn() {
    let covered = |rig: Rig, offset: u64, evidence: Place| {
        let Rig { disk, .. } = rig;
        disk.crash_to(&vec![0; disk.loose().len()]);
        for damage in 0..3 {
            let fork = disk.fork();
            match damage {
                0 => fork.zero(&segment(1), offset..offset + 4096),
                1 => fork.zero(&segment(1), offset + 512..offset + 1024),
                _ => fork.flip_bit(&segment(1), offset + 700, 1),
            }
            assert_eq!(worst(&fork, evidence), Some(Severity::Corrupt), "{damage}");
        }
    };
    let with_frame = || {
        let mut rig = Rig::new(options());
        rig.settle();
        rig.grow(G, 2, 800);
        rig.settle();
        rig
    };
    let start = with_frame().log.durable_end().offset - 4096;
    let mut rested = with_frame();
    rested.rest();
    covered(rested, start, Place::START);
    let mut rotated = with_frame();
    rotated.rotate(G);
    covered(rotated, start, Place::START);
    let plain = with_frame();
    let end = plain.log.durable_end();
    assert_eq!(end.frame, FrameNumber(2));
    covered(plain, start, end);
}
