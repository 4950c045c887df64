//! Where things lie, of logs too long to be written by a test.

use super::rig::identity;
use crate::checksum::Checksum;
use crate::disk::FileId;
use crate::types::{FrameNumber, GroupId, Index, Place, SegmentNumber, Term};
use crate::wal::frame::{FrameHead, FrameKind, Run};
use crate::wal::locator::Locator;
use crate::wal::outline::OutlineRun;
use crate::wal::record::RecordKind;
use crate::wal::sections::{SPARSE_ENTRIES_MAX, SealSection, SparseEntry};
use crate::wal::segment::SegmentHeader;

const SEGMENT_BYTES: u64 = 64 << 20;
const GROUP: GroupId = GroupId(0);

/// The head of a frame of which no more matters than where it lies.
pub fn head(kind: FrameKind, place: Place, length: usize) -> FrameHead {
    FrameHead {
        kind,
        segment: place.segment,
        offset: place.offset,
        number: place.frame,
        length,
        zero_sectors: 0,
        durable: Place::START,
        own_runs: 0,
        previous_runs: 0,
        open_bytes: 0,
        seal_bytes: 0,
        records: 0,
        records_bytes: 0,
        sections_checksum: Checksum::of(&[]),
    }
}

/// A full segment as its seal describes it: an entry and a place for each of its frames.
fn add_sealed(locator: &mut Locator, segment: u64) {
    let frames = SPARSE_ENTRIES_MAX as u64;
    let first = (segment - 1) * frames + 1;
    let (number, bytes) = (SegmentNumber(segment), SEGMENT_BYTES);
    locator.add_segment(SegmentHeader { identity: identity(), number, salt: segment, bytes }, FileId(segment), 0);
    let place = |at: u64| (8192 + at * (SEGMENT_BYTES - 65536) / frames, FrameNumber(first + at));
    let sparse = (0..frames).map(|at| {
        let (offset, frame) = place(at);
        SparseEntry { group: GROUP, first: Index(first + at), offset, frame }
    });
    let seal = SealSection { sparse: sparse.collect(), records: frames, records_bytes: 0, outline: None };
    let (kind, term) = (RecordKind::Entry, Term(1));
    let run = Run { group: GROUP, kind, first: Index(first), count: frames as u32, term, previous_term: term };
    let (offset, frame) = place(0);
    let runs = [OutlineRun { run, offset, frame }];
    let end = Place { frame: FrameNumber(first + frames), segment: number, offset: SEGMENT_BYTES - 20480 };
    locator.note_sealed(&head(FrameKind::Seal, end, 16384), seal, &runs);
}

/// 4 TiB: what is kept of it is bounded, and each entry is found, from a place at or before it in its own segment.
#[test]
fn places_of_a_long_log_are_bounded_and_each_entry_is_found() {
    let mut locator = Locator::default();
    let (segments, frames) = (65_536, SPARSE_ENTRIES_MAX as u64);
    let mut most = 0;
    for segment in 1..=segments {
        add_sealed(&mut locator, segment);
        if segment % 512 == 0 {
            most = most.max(locator.sizes().1);
        }
    }
    assert!((500_000..=1 << 20).contains(&most), "{most} places");
    let mut walks = Vec::new();
    for segment in [1, 2, 9_000, 40_000, segments - 1, segments] {
        let from = Index((segment - 1) * frames + frames / 2 + 2);
        let parts = locator.parts(GROUP, from, from.next());
        assert_eq!(parts.len(), 1, "segment {segment}");
        assert_eq!(parts[0].header.number, SegmentNumber(segment));
        let frame = 8192 + (frames / 2 + 1) * (SEGMENT_BYTES - 65536) / frames;
        walks.push(frame.checked_sub(parts[0].start).expect("it lies at or before the entry"));
    }
    assert!(walks.is_sorted_by(|older, newer| older >= newer), "older segments have fewer places: {walks:?}");
    assert!(walks[0] > 0 && walks[0] < SEGMENT_BYTES, "{walks:?}");
    assert_eq!(walks.last(), Some(&0), "the newest have all: {walks:?}");
    // What is given up is not counted any more.
    (1..=segments).for_each(|segment| drop(locator.remove_segment(SegmentNumber(segment))));
    add_sealed(&mut locator, segments + 1);
    assert_eq!(locator.sizes().1, SPARSE_ENTRIES_MAX);
}
