//! Payloads that look like frames, and frames that hold them.

use bytes::Bytes;

use super::rig::{DIRECTORY, G, Rig, Start, WHOLE, identity, open_as, options, segment};
use super::rot::severity_as;
use crate::checksum::Checksum;
use crate::disk::Buffer;
use crate::limits::{BLOCK_BYTES, SECTOR_BYTES};
use crate::random::Random;
use crate::sim::proofs::Proof;
use crate::types::{Data, Entry, FrameNumber, GroupId, Index, LogId, Payload, Place, SegmentNumber, Term};
use crate::wal::body::{self, FramePlan, Item};
use crate::wal::frame::{FrameHead, FrameKind, Run};
use crate::wal::record::RecordKind;
use crate::wal::{Analysis, Options, Severity, Source};

/// A head that says what the next frames of a log would say, under a checksum that anyone can make.
fn forged(random: &mut Random, salt: u64, next: FrameNumber, place: (SegmentNumber, u64)) -> FrameHead {
    let number = FrameNumber(next.0 + random.below(4));
    FrameHead {
        kind: *random.pick(&[FrameKind::Open, FrameKind::Data, FrameKind::Seal, FrameKind::Cover]),
        segment: place.0,
        offset: place.1,
        number,
        length: BLOCK_BYTES,
        zero_sectors: random.below(9) as u32,
        durable: Place { segment: place.0, offset: place.1, frame: FrameNumber(number.0 - 1) },
        own_runs: 0,
        previous_runs: 0,
        open_bytes: 0,
        seal_bytes: 0,
        records: random.below(3) as usize,
        records_bytes: BLOCK_BYTES - 104 - random.below(4000) as usize / 8 * 8,
        sections_checksum: Checksum(salt as u32),
    }
}

/// Payloads of one batch, and how large its segment is. The record of each takes a block.
const PAYLOADS: u64 = 200;
const SEGMENT_BYTES: u64 = 1 << 20;
const RECORD_HEAD_BYTES: usize = 40;

/// A payload of one block but for its record's head, at the place in a segment where it will lie. It looks like the frame
/// that may stand there in every way but one: a client does not know the salt that is under the checksum, or it knows it
/// and the place is another.
fn payload_like_a_frame(
    random: &mut Random,
    turn: u64,
    salt: u64,
    next: FrameNumber,
    place: (SegmentNumber, u64),
) -> Bytes {
    let (guess, place) = match turn % 5 {
        0 => (0, place),
        1 => (salt ^ (1 << random.below(64)), place),
        2 => (salt, (place.0, place.1 + BLOCK_BYTES as u64 * random.between(1, 20))),
        3 => (salt, (SegmentNumber(place.0.0 + random.between(1, 3)), place.1)),
        _ => (random.next_u64(), place),
    };
    let head = forged(random, guess, next, place);
    let mut bytes = vec![0; BLOCK_BYTES - RECORD_HEAD_BYTES];
    random.fill(&mut bytes);
    bytes[..104].copy_from_slice(&head.encode(guess));
    if random.below(2) == 0 {
        // The salt in clear can be read from a segment; the one under the checksum is of the frame.
        bytes[8..16].copy_from_slice(&salt.to_le_bytes());
    }
    Bytes::from(bytes)
}

fn data_behind(rig: &Rig, at: u64, bytes: Bytes) -> Entry {
    let index = rig.model.group(G).last().index.plus(at);
    Entry { id: LogId::new(rig.model.term, index), payload: Payload::Data(Data::new(bytes)) }
}

/// A log in which the next frame is its third, and the place where that begins.
fn two_frames() -> (Rig, Place) {
    let mut rig = Rig::new(Options { segment_bytes: SEGMENT_BYTES, ..options() });
    rig.settle();
    rig.grow(G, 2, 100);
    rig.settle();
    let start = rig.log.durable_end();
    (rig, start)
}

/// The length of a first payload behind which the next one begins at a block's edge.
fn filler_bytes() -> usize {
    let is_at_edge = |bytes: &usize| {
        let (mut rig, start) = two_frames();
        let mark = Bytes::from_static(&[0x5a; 64]);
        let batch = [data_behind(&rig, 1, Bytes::from(vec![7; *bytes])), data_behind(&rig, 2, mark.clone())];
        rig.append(G, &batch);
        rig.settle();
        rig.disk.contents(&segment(1))[start.offset as usize + BLOCK_BYTES..].starts_with(&mark)
    };
    (0..BLOCK_BYTES).step_by(8).find(is_at_edge).expect("one of them is right")
}

/// D6: payloads that look like frames, each at the place of a frame, in a frame that was then cut off. It is torn all the
/// same: whoever looks for frames behind it finds none. Before that they are read back as they were.
pub fn payloads_like_frames(proof: &Proof) {
    let filler = filler_bytes();
    proof.spread(proof.pick(20_000, 200_000, 1_000_000) / PAYLOADS, |piece| {
        let mut random = Random::seeded(piece);
        let (mut rig, start) = two_frames();
        let before = rig.model.state().clone();
        let salt = rig.log.active.salt;
        let mut batch = vec![data_behind(&rig, 1, Bytes::from(vec![7; filler]))];
        for turn in 0..PAYLOADS {
            let place = (start.segment, start.offset + BLOCK_BYTES as u64 * (turn + 1));
            let payload = payload_like_a_frame(&mut random, turn, salt, start.frame.next(), place);
            batch.push(data_behind(&rig, turn + 2, payload));
        }
        rig.append(G, &batch);
        rig.settle();
        rig.check();
        let bytes = rig.disk.contents(&segment(1));
        let edges = (1..=PAYLOADS).map(|block| start.offset as usize + block as usize * BLOCK_BYTES);
        assert!(edges.into_iter().all(|at| bytes[at..at + 4] == *b"TFRM"), "each stands where a frame may");
        rig.disk.crash_to(&vec![0; rig.disk.loose().len()]);
        // A sector of the frame did not come: the one with its head, or one of the payloads'.
        let sector = if piece % 2 == 0 { 0 } else { 1 + random.below(8 * PAYLOADS) };
        let at = start.offset + sector * SECTOR_BYTES as u64;
        rig.disk.zero(&segment(1), at..at + SECTOR_BYTES as u64);
        let found = severity_as(&rig.disk, WHOLE);
        assert_eq!(found, Some(Severity::Torn), "piece {piece}, without sector {sector}");
        let start = Start::drawn(&[start], &mut random);
        let opened = open_as(&rig.disk, rig.log.options(), start);
        let (.., found) = opened.unwrap_or_else(|error| panic!("piece {piece}, without sector {sector}: {error}"));
        assert!(found == before, "piece {piece}: {}", super::model::shown(&found));
        (0..PAYLOADS).for_each(|_| proof.case());
    });
}

/// The image of a frame that holds one entry, as a client could make it who knows all but the salt.
fn image(place: (SegmentNumber, u64), number: FrameNumber, id: LogId) -> Buffer {
    let entry = Entry { id, payload: Payload::Data(Data::new(Bytes::from_static(b"forged"))) };
    let items = [Item::Entries { group: G, entries: vec![entry] }];
    let run =
        Run { group: G, kind: RecordKind::Entry, first: id.index, count: 1, term: id.term, previous_term: id.term };
    let mut buffer = Buffer::with_capacity(1 << 16);
    let plan = FramePlan {
        kind: FrameKind::Data,
        segment: place.0,
        salt: 0,
        offset: place.1,
        number,
        durable: Place { segment: place.0, offset: place.1, frame: FrameNumber(number.0 - 1) },
        own: &[run],
        previous: &[],
        open: None,
        seal: None,
    };
    body::build(&mut buffer, &plan, items.iter());
    buffer
}

/// D6: a frame that was not finished holds, at a block's edge, the image of a frame that would prove it: it is torn all
/// the same, and the image is no frame. Finished, its payload is what it was.
pub fn torn_frames_that_hold_frames(proof: &Proof) {
    for shift in 0..64u64 {
        let mut rig = Rig::new(options());
        rig.settle();
        rig.grow(G, 2, 100);
        rig.settle();
        let start = rig.log.durable_end();
        let (at, number) = (start.offset + 4096, FrameNumber(start.frame.0 + 1 + shift % 3));
        let next = rig.model.group(G).last().index.next();
        let image = image((start.segment, at), number, LogId::new(Term(1), next.plus(1 + shift % 2)));
        // Head and directory take the front; the payload is padded so that the image stands at the block's edge.
        let payload = |front: usize| {
            let mut bytes = vec![7; front];
            bytes.extend_from_slice(&image);
            bytes.extend_from_slice(&[7; 3000]);
            Entry { id: LogId::new(Term(1), next), payload: Payload::Data(Data::new(Bytes::from(bytes))) }
        };
        // The repeated open section and the directories of two frames: measured, not computed.
        let front = (0..4096).step_by(8).find(|&front| {
            let probe = rig_with(&payload(front));
            probe.get(at as usize..at as usize + 4) == Some(&b"TFRM"[..])
        });
        rig.append(G, &[payload(front.expect("one of them is right"))]);
        rig.settle();
        rig.check();
        proof.case();
        rig.disk.crash_to(&vec![0; rig.disk.loose().len()]);
        // The head's sector came; one of the next did not.
        rig.disk.zero(&segment(1), start.offset + 512 * (1 + shift % 7)..start.offset + 512 * (2 + shift % 7));
        let source = Source { identity: Some(identity()), ..Source::from_outside(DIRECTORY) };
        let found = Analysis::read(&rig.disk.files(), &source).expect("no fault of the disk");
        assert_eq!(found.severity(), Some(Severity::Torn), "shift {shift}: {:?}", found.findings);
        assert_eq!(found.groups[&GroupId(0)].last.index, Index(2));
        proof.case();
    }
}

/// The first segment of a log that holds, behind two others, this entry.
fn rig_with(entry: &Entry) -> Vec<u8> {
    let mut rig = Rig::new(options());
    rig.settle();
    rig.grow(G, 2, 100);
    rig.settle();
    rig.append(G, std::slice::from_ref(entry));
    rig.settle();
    rig.disk.contents(&segment(1))
}
