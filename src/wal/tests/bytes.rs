//! Exact bytes, and bytes that must not pass.

use super::model::entry;
use super::rig::identity;
use crate::disk::Buffer;
use crate::limits::{BLOCK_BYTES, SECTOR_BYTES};
use crate::random::Random;
use crate::types::{Entry, FrameNumber, GroupId, Index, LogId, Payload, Place, SegmentNumber, Term};
use crate::wal::body::{self, FramePlan, FrameView, Item, extend_runs};
use crate::wal::encoded::Encoded;
use crate::wal::frame::{FrameHead, FrameKind, HeadFault, Run};
use crate::wal::outline::{Outline, OutlineRun};
use crate::wal::record::{FrameSalt, RecordKind, parse};
use crate::wal::sections::{GroupStart, OpenSection, SealSection, SparseEntry};
use crate::wal::segment::{HeaderFault, SegmentHeader};

const SALT: u64 = 0x1122_3344_5566_7788;
/// Each line: what it is, and its bytes up to the last that is not zero.
const GOLDEN: &str = include_str!("golden_log.txt");

fn header() -> SegmentHeader {
    SegmentHeader { identity: identity(), number: SegmentNumber(5), salt: SALT, bytes: 65536 }
}

fn place() -> Place {
    Place { segment: SegmentNumber(4), offset: 0x6000, frame: FrameNumber(9) }
}

fn open_section() -> OpenSection {
    let (before_first, last) = (LogId::new(Term(1), Index(2)), LogId::new(Term(3), Index(6)));
    let group = GroupStart { group: GroupId(1), before_first, last, last_place: place() };
    OpenSection { predecessor_end: place(), wall_clock_milliseconds: 1_700_000_000_000, groups: vec![group] }
}

fn seal_section() -> SealSection {
    let entry = SparseEntry { group: GroupId(1), first: Index(7), offset: 0x3000, frame: FrameNumber(11) };
    let run = |kind, term| Run { group: GroupId(1), kind, first: Index(7), count: 1, term, previous_term: Term(3) };
    let runs = [run(RecordKind::Entry, Term(3)), run(RecordKind::Truncate, Term(0))];
    let runs = runs.map(|run| OutlineRun { run, offset: 0x3000, frame: FrameNumber(11) }).to_vec();
    let outline = Some(Outline { runs, memberships: vec![0x3000] });
    SealSection { sparse: vec![entry], records: 2, records_bytes: 88, outline }
}

fn items() -> Vec<Item> {
    let entries = vec![entry(Term(3), Index(7), 5), entry(Term(4), Index(8), 0)];
    vec![
        Item::Entries { group: GroupId(1), entries },
        Item::Entries { group: GroupId(2), entries: vec![entry(Term(4), Index(1), 16)] },
        Item::Cut { group: GroupId(1), kind: RecordKind::Truncate, id: LogId::new(Term(0), Index(8)) },
    ]
}

fn runs(items: &[Item]) -> Vec<Run> {
    let mut runs = Vec::new();
    for item in items {
        match item {
            Item::Entries { group, entries } => {
                for entry in entries {
                    let previous = LogId::new(Term(3), Index(entry.id.index.0 - 1));
                    extend_runs(&mut runs, *group, RecordKind::Entry, entry.id, previous);
                }
            }
            Item::Encoded(encoded) => panic!("{encoded:?} stands in no golden frame"),
            Item::Cut { group, kind, id } => extend_runs(&mut runs, *group, *kind, *id, LogId::new(Term(3), Index(7))),
        }
    }
    runs
}

fn frame(kind: FrameKind) -> (FrameHead, Buffer) {
    let items = if kind == FrameKind::Data { items() } else { Vec::new() };
    let (own, previous) = (runs(&items), runs(&self::items()));
    let (open, seal) = (open_section(), seal_section());
    let mut buffer = Buffer::with_capacity(1 << 16);
    let plan = FramePlan {
        kind,
        segment: SegmentNumber(5),
        salt: SALT,
        offset: 0x2000,
        number: FrameNumber(12),
        durable: place(),
        own: &own,
        previous: if kind == FrameKind::Data { &[] } else { &previous },
        open: (kind == FrameKind::Open).then_some(&open),
        seal: (kind == FrameKind::Seal).then_some(&seal),
    };
    let head = body::build(&mut buffer, &plan, items.iter());
    (head, buffer)
}

fn hex(bytes: &[u8]) -> String {
    let used = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
    bytes[..used].iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn the_bytes_are_those_of_the_format() {
    let kinds = [
        ("open frame", FrameKind::Open),
        ("data frame", FrameKind::Data),
        ("covering frame", FrameKind::Cover),
        ("seal frame", FrameKind::Seal),
    ];
    let mut written = format!("segment header: {}\n", hex(&header().encode()));
    for (name, kind) in kinds {
        let (head, bytes) = frame(kind);
        assert_eq!(bytes.len(), BLOCK_BYTES);
        written += &format!("{name}: {}\n", hex(&bytes));
        let decoded = FrameHead::decode(&bytes, SALT, SegmentNumber(5), 0x2000).expect("it was just encoded");
        assert_eq!(decoded, head);
        let mut names = Vec::new();
        let view = FrameView::new(decoded, &bytes, SALT);
        let sections = view.verify(|record, _| names.push(record.id)).expect("it was just built");
        assert_eq!(names.len(), if kind == FrameKind::Data { 4 } else { 0 });
        assert_eq!(sections.open, (kind == FrameKind::Open).then(open_section));
        assert_eq!(sections.seal, (kind == FrameKind::Seal).then(seal_section));
        assert!(!view.has_unwritten_sectors());
    }
    if let Ok(path) = std::env::var("TRILITH_GOLDEN_LOG_OUT") {
        std::fs::write(path, &written).expect("the path can be written");
    }
    assert_eq!(written, GOLDEN);
    assert_eq!(SegmentHeader::decode(&header().encode()), Ok(header()));
}

fn passes(bytes: &[u8]) -> bool {
    let Ok(head) = FrameHead::decode(bytes, SALT, SegmentNumber(5), 0x2000) else { return false };
    head.length == bytes.len() && FrameView::new(head, bytes, SALT).verify(|_, _| {}).is_ok()
}

#[test]
fn every_flipped_bit_of_a_frame_is_found() {
    for kind in [FrameKind::Open, FrameKind::Data, FrameKind::Cover, FrameKind::Seal] {
        let (_, mut bytes) = frame(kind);
        assert!(passes(&bytes));
        for at in 0..bytes.len() * 8 {
            bytes[at / 8] ^= 1 << (at % 8);
            assert!(!passes(&bytes), "{kind:?} bit {at}");
            bytes[at / 8] ^= 1 << (at % 8);
        }
    }
}

#[test]
fn every_flipped_bit_of_a_header_is_found() {
    let good = header().encode();
    for at in 0..good.len() * 8 {
        let mut bad = good;
        bad[at / 8] ^= 1 << (at % 8);
        assert!(SegmentHeader::decode(&bad).is_err(), "bit {at}");
    }
    let mut newer = good;
    newer[8] = 2;
    assert_eq!(SegmentHeader::decode(&newer), Err(HeaderFault::NewerFormat { found: 2 }));
}

#[test]
fn zeros_never_decode() {
    let zeros = [0; 2 * BLOCK_BYTES];
    assert_eq!(FrameHead::decode(&zeros, 0, SegmentNumber(0), 0), Err(HeadFault::Zero));
    for frame in 0..1000 {
        let salt = FrameSalt::new(frame * 0x9e37, FrameNumber(frame));
        assert!(parse(&zeros, salt).is_err(), "{frame}");
    }
    assert!(SegmentHeader::decode(&[0; BLOCK_BYTES]).is_err());
    let (_, bytes) = frame(FrameKind::Data);
    for sector in 0..bytes.len() / SECTOR_BYTES {
        let mut holed = bytes.to_vec();
        holed[sector * SECTOR_BYTES..][..SECTOR_BYTES].fill(0);
        assert!(!passes(&holed) || holed[..] == bytes[..], "sector {sector}");
    }
}

#[test]
fn a_frame_passes_in_its_own_place_and_life_alone() {
    let (head, bytes) = frame(FrameKind::Data);
    assert_eq!(FrameHead::decode(&bytes, SALT, SegmentNumber(5), 0x3000), Err(HeadFault::Elsewhere));
    assert_eq!(FrameHead::decode(&bytes, SALT, SegmentNumber(6), 0x2000), Err(HeadFault::Elsewhere));
    assert_eq!(FrameHead::decode(&bytes, SALT + 1, SegmentNumber(5), 0x2000), Err(HeadFault::Checksum));
    let records = &bytes[head.records_start()..];
    assert!(parse(records, FrameSalt::new(SALT, FrameNumber(12))).is_ok());
    assert!(parse(records, FrameSalt::new(SALT, FrameNumber(13))).is_err());
    assert!(parse(records, FrameSalt::new(SALT + 1, FrameNumber(12))).is_err());
}

/// Noise behind the magic never makes a frame; neither does a frame inside a payload.
#[test]
fn noise_is_no_frame() {
    let (_, good) = frame(FrameKind::Data);
    let mut random = Random::seeded(3);
    let mut bytes = vec![0; BLOCK_BYTES];
    for _ in 0..20_000 {
        random.fill(&mut bytes);
        bytes[..5].copy_from_slice(&good[..5]);
        assert!(!passes(&bytes));
    }
    let payload = crate::types::Data::new(bytes::Bytes::copy_from_slice(&good));
    let held = crate::types::Entry { id: LogId::new(Term(3), Index(7)), payload: crate::types::Payload::Data(payload) };
    let items = [Item::Entries { group: GroupId(1), entries: vec![held] }];
    let buffer = data_frame(&runs(&items), &items);
    for block in 1..buffer.len() / BLOCK_BYTES {
        let at = (0x2000 + block * BLOCK_BYTES) as u64;
        assert!(FrameHead::decode(&buffer[block * BLOCK_BYTES..], SALT, SegmentNumber(5), at).is_err());
    }
}

/// A frame of segment 5, at 0x2000.
fn data_frame(own: &[Run], items: &[Item]) -> Buffer {
    let plan = FramePlan {
        kind: FrameKind::Data,
        segment: SegmentNumber(5),
        salt: SALT,
        offset: 0x2000,
        number: FrameNumber(12),
        durable: place(),
        own,
        previous: &[],
        open: None,
        seal: None,
    };
    let mut buffer = Buffer::with_capacity(1 << 16);
    body::build(&mut buffer, &plan, items.iter());
    buffer
}

/// Whether records were encoded before they came into a frame leaves no trace in it.
#[test]
fn records_encoded_ahead_are_the_same_bytes() {
    let entries: Vec<Entry> = (0..40).map(|ahead| entry(Term(4), Index(7 + ahead), ahead as usize)).collect();
    let mut encoded = Encoded::with_capacity(GroupId(1), entries[0].id, 0);
    for entry in &entries {
        let Payload::Data(data) = &entry.payload else { panic!("{entry:?}") };
        encoded.push(data);
    }
    assert_eq!((encoded.count(), encoded.last_index()), (40, Index(46)));
    let plain = Item::Entries { group: GroupId(1), entries };
    let encoded = Item::Encoded(encoded);
    assert_eq!(encoded.record_bytes(), plain.record_bytes());
    let own = runs(std::slice::from_ref(&plain));
    assert_eq!(data_frame(&own, &[encoded])[..], data_frame(&own, &[plain])[..]);
}
