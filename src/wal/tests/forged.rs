//! Payloads that look like frames, and frames that hold them.

use bytes::Bytes;

use super::rig::{DIRECTORY, G, Rig, identity, options, segment};
use crate::checksum::Checksum;
use crate::disk::Buffer;
use crate::limits::{BLOCK_BYTES, SECTOR_BYTES};
use crate::random::Random;
use crate::sim::proofs::Proof;
use crate::types::{Data, Entry, FrameNumber, GroupId, Index, LogId, Payload, Place, SegmentNumber, Term};
use crate::wal::body::{self, FramePlan, Item};
use crate::wal::frame::{FrameHead, FrameKind, Run};
use crate::wal::record::RecordKind;
use crate::wal::{Analysis, Severity, Source};

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

/// D6: random payloads that look like frames in every way but the salt, which a client does not know.
pub fn payloads_like_frames(proof: &Proof) {
    const PIECE: u64 = 10_000;
    let (salt, segment) = (0x1122_3344_5566_7788, SegmentNumber(5));
    proof.spread(proof.pick(20_000, 200_000, 1_000_000) / PIECE, |piece| {
        let mut random = Random::seeded(piece);
        let mut sector = [0; SECTOR_BYTES];
        for turn in 0..PIECE {
            let offset = BLOCK_BYTES as u64 * (1 + random.below(14));
            let guess = match turn % 4 {
                0 => 0,
                1 => salt ^ (1 << random.below(64)),
                _ => random.next_u64(),
            };
            let next = FrameNumber(1 + random.below(100));
            let head = forged(&mut random, guess, next, (segment, offset));
            random.fill(&mut sector[104..]);
            sector[..104].copy_from_slice(&head.encode(guess));
            if turn % 2 == 0 {
                // The salt in clear can be read from a segment; the one under the checksum is of the frame.
                sector[8..16].copy_from_slice(&u64::to_le_bytes(salt));
            }
            let decoded = FrameHead::decode(&sector, salt, segment, offset);
            assert!(decoded.is_err(), "piece {piece} turn {turn}: {decoded:?}");
            proof.case();
        }
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
