//! Frames: one batch, one write, one flush.
//!
//! ```text
//! ┌──────┬──────────┬───────────────┬──────┬──────┬─────────┬─────────┬───────┐
//! │ head │ own runs │ previous runs │ open │ seal │ zeros   │ records │ zeros │   a multiple of 4096 bytes
//! └──────┴──────────┴───────────────┴──────┴──────┴─────────┴─────────┴───────┘
//!         └─────── sections, under one checksum ──┘ to 8
//! ```
//!
//! docs/formats.md has the bytes. The head fits one sector and has its own checksum, so after a torn write it is there
//! whole or reads as what was there before: zero. **A frame is valid if and only if** its head's checksum, salt, segment and offset are right,
//! its sections' checksum holds, every record is valid, records and own runs name the same entries, and all padding
//! is zero. Whether it is valid never depends on another frame.
//!
//! The runs name what is in this frame and in the frame before it: if a whole frame is lost, its neighbour still
//! tells which entries it held.

use bytes::BufMut;

use super::record::{FrameSalt, RecordKind};
use super::sections::{OPEN_SECTION_BYTES_MAX, SEAL_SECTION_BYTES_MAX};
use crate::checksum::Checksum;
use crate::codec::{self, Reader};
use crate::limits::{BLOCK_BYTES, FRAME_BYTES_MAX, FRAME_RECORDS_MAX, FRAME_RUNS_MAX, SECTOR_BYTES};
use crate::mutant::{self, Mutant};
use crate::types::{FrameNumber, GroupId, Index, Place, SegmentNumber, Term};

pub const FRAME_MAGIC: u32 = u32::from_le_bytes(*b"TFRM");
pub const FRAME_HEAD_BYTES: usize = 104;
pub const RUN_BYTES: usize = 40;
/// Head and both directories at their largest.
pub const FRAME_OVERHEAD_BYTES_MAX: usize = FRAME_HEAD_BYTES + 2 * FRAME_RUNS_MAX * RUN_BYTES + 8;
/// Room that the open frame takes at most.
pub const OPEN_FRAME_BYTES_MAX: usize =
    (FRAME_HEAD_BYTES + FRAME_RUNS_MAX * RUN_BYTES + OPEN_SECTION_BYTES_MAX + 8).next_multiple_of(BLOCK_BYTES);
/// Room that is kept at the end of a segment for its seal.
pub const SEAL_FRAME_BYTES_MAX: usize =
    (FRAME_HEAD_BYTES + FRAME_RUNS_MAX * RUN_BYTES + SEAL_SECTION_BYTES_MAX + 8).next_multiple_of(BLOCK_BYTES);

/// The most record bytes that fit one frame of a log with segments of this size, whatever else is in it.
pub const fn batch_bytes_max(segment_bytes: u64) -> usize {
    let room = segment_bytes as usize - 2 * BLOCK_BYTES - OPEN_FRAME_BYTES_MAX - SEAL_FRAME_BYTES_MAX;
    let frame = if room < FRAME_BYTES_MAX { room } else { FRAME_BYTES_MAX };
    frame - FRAME_OVERHEAD_BYTES_MAX - OPEN_SECTION_BYTES_MAX - BLOCK_BYTES
}

const CHECKSUM_AT: usize = 100;

#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum FrameKind {
    /// The first of a segment: ends the predecessor.
    Open,
    /// A batch of records.
    Data,
    /// The last of a segment: what is in it.
    Seal,
    /// Nothing but proof that what lies before it is durable.
    Cover,
}

/// The fixed part of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FrameHead {
    pub kind: FrameKind,
    pub segment: SegmentNumber,
    pub offset: u64,
    pub number: FrameNumber,
    /// The whole frame, padding included: a multiple of a block.
    pub length: usize,
    /// Sectors that are zero by content. More on disk means that some were never written.
    pub zero_sectors: u32,
    /// Every frame up to here was on disk when this one was built.
    pub durable: Place,
    pub own_runs: usize,
    pub previous_runs: usize,
    pub open_bytes: usize,
    pub seal_bytes: usize,
    pub records: usize,
    pub records_bytes: usize,
    pub sections_checksum: Checksum,
}

/// Consecutive records of one group, kind and term.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Run {
    pub group: GroupId,
    pub kind: RecordKind,
    pub first: Index,
    pub count: u32,
    pub term: Term,
    /// The term of the entry before `first`; zero if there is none.
    pub previous_term: Term,
}

/// What is wrong with a head.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum HeadFault {
    #[error("its head reads as zeros")]
    Zero,
    #[error("it is no frame")]
    Magic,
    #[error("the checksum of its head does not hold")]
    Checksum,
    #[error("it belongs to another segment or another place")]
    Elsewhere,
    #[error("its head contradicts itself")]
    Contradiction,
}

impl FrameKind {
    fn byte(self) -> u8 {
        match self {
            FrameKind::Open => 1,
            FrameKind::Data => 2,
            FrameKind::Seal => 3,
            FrameKind::Cover => 4,
        }
    }

    fn from_byte(byte: u8) -> Option<FrameKind> {
        match byte {
            1 => Some(FrameKind::Open),
            2 => Some(FrameKind::Data),
            3 => Some(FrameKind::Seal),
            4 => Some(FrameKind::Cover),
            _ => None,
        }
    }
}

impl FrameHead {
    /// The place after this frame.
    pub fn end(&self) -> Place {
        Place { segment: self.segment, offset: self.offset + self.length as u64, frame: self.number }
    }

    /// Bytes of the sections behind the head, without the padding to the records.
    pub fn sections_bytes(&self) -> usize {
        (self.own_runs + self.previous_runs) * RUN_BYTES + self.open_bytes + self.seal_bytes
    }

    /// Where the records start within the frame.
    pub fn records_start(&self) -> usize {
        (FRAME_HEAD_BYTES + self.sections_bytes()).next_multiple_of(8)
    }

    pub fn encode(&self, segment_salt: u64) -> [u8; FRAME_HEAD_BYTES] {
        let narrow = |value: usize| u32::try_from(value).expect("frames are bounded by limits.rs");
        let runs = |value: usize| u16::try_from(value).expect("runs are bounded by limits.rs");
        let mut head = [0u8; FRAME_HEAD_BYTES];
        let mut out = &mut head[..];
        out.put_u32_le(FRAME_MAGIC);
        out.put_u8(self.kind.byte());
        out.put_slice(&[0; 3]);
        out.put_u64_le(segment_salt);
        out.put_u64_le(self.segment.0);
        out.put_u64_le(self.offset);
        out.put_u64_le(self.number.0);
        out.put_u32_le(narrow(self.length));
        out.put_u32_le(self.zero_sectors);
        out.put_u64_le(self.durable.segment.0);
        out.put_u64_le(self.durable.offset);
        out.put_u64_le(self.durable.frame.0);
        out.put_u16_le(runs(self.own_runs));
        out.put_u16_le(runs(self.previous_runs));
        out.put_u32_le(narrow(self.open_bytes));
        out.put_u32_le(narrow(self.seal_bytes));
        out.put_u32_le(narrow(self.records));
        out.put_u32_le(narrow(self.records_bytes));
        out.put_u32_le(self.sections_checksum.0);
        let checksum = FrameSalt::new(segment_salt, self.number).checksum(&[&head[..CHECKSUM_AT]]);
        head[CHECKSUM_AT..].copy_from_slice(&checksum.0.to_le_bytes());
        head
    }

    /// Reads a head that should stand at `offset` of the segment with this salt and number.
    pub fn decode(
        bytes: &[u8],
        segment_salt: u64,
        segment: SegmentNumber,
        offset: u64,
    ) -> Result<FrameHead, HeadFault> {
        assert!(bytes.len() >= SECTOR_BYTES, "a head is read with its sector");
        if is_zero(&bytes[..SECTOR_BYTES]) {
            return Err(HeadFault::Zero);
        }
        let bytes = &bytes[..FRAME_HEAD_BYTES];
        let mut reader = Reader::new(bytes);
        let head = decode_fields(&mut reader, bytes, segment_salt)?;
        if (head.segment != segment || head.offset != offset) && !is_place_ignored() {
            return Err(HeadFault::Elsewhere);
        }
        if !head.is_consistent() {
            return Err(HeadFault::Contradiction);
        }
        Ok(head)
    }

    /// What no writer of ours violates; checked so that a reader can trust the lengths.
    fn is_consistent(&self) -> bool {
        self.length.is_multiple_of(BLOCK_BYTES)
            && self.length > 0
            && self.own_runs <= FRAME_RUNS_MAX
            && self.previous_runs <= FRAME_RUNS_MAX
            && self.open_bytes <= OPEN_SECTION_BYTES_MAX
            && self.seal_bytes <= SEAL_SECTION_BYTES_MAX
            && self.records <= FRAME_RECORDS_MAX
            && self.records_bytes <= self.length
            && (self.records_start() + self.records_bytes).next_multiple_of(BLOCK_BYTES) == self.length
            && self.durable.frame < self.number
            && (1..u64::MAX).contains(&self.number.0)
    }
}

/// Never, but for two deliberate bugs.
fn is_place_ignored() -> bool {
    mutant::is_on(Mutant::ChecksumWithoutPlace) || mutant::is_on(Mutant::OlderGenerationAccepted)
}

fn decode_fields(reader: &mut Reader<'_>, bytes: &[u8], segment_salt: u64) -> Result<FrameHead, HeadFault> {
    let short = |_: codec::Error| HeadFault::Contradiction;
    if reader.u32("magic").map_err(short)? != FRAME_MAGIC {
        return Err(HeadFault::Magic);
    }
    let kind = reader.u8("kind").map_err(short)?;
    let zero = reader.take(3, "zero").map_err(short)?;
    let salt = reader.u64("salt").map_err(short)?;
    let mut long = |what| reader.u64(what).map_err(short);
    let (segment, offset, number) = (long("segment")?, long("offset")?, long("frame number")?);
    let found = Checksum(u32::from_le_bytes([bytes[100], bytes[101], bytes[102], bytes[103]]));
    if FrameSalt::new(segment_salt, FrameNumber(number)).checksum(&[&bytes[..CHECKSUM_AT]]) != found {
        return Err(HeadFault::Checksum);
    }
    if salt != segment_salt && !is_place_ignored() {
        return Err(HeadFault::Elsewhere);
    }
    if zero != [0; 3] || bytes[96..CHECKSUM_AT] != [0; 4] {
        return Err(HeadFault::Contradiction);
    }
    Ok(FrameHead {
        kind: FrameKind::from_byte(kind).ok_or(HeadFault::Contradiction)?,
        segment: SegmentNumber(segment),
        offset,
        number: FrameNumber(number),
        length: reader.u32("length").map_err(short)? as usize,
        zero_sectors: reader.u32("zero sectors").map_err(short)?,
        durable: Place {
            segment: SegmentNumber(reader.u64("durable segment").map_err(short)?),
            offset: reader.u64("durable offset").map_err(short)?,
            frame: FrameNumber(reader.u64("durable frame").map_err(short)?),
        },
        own_runs: usize::from(reader.u16("own runs").map_err(short)?),
        previous_runs: usize::from(reader.u16("previous runs").map_err(short)?),
        open_bytes: reader.u32("open section").map_err(short)? as usize,
        seal_bytes: reader.u32("seal section").map_err(short)? as usize,
        records: reader.u32("records").map_err(short)? as usize,
        records_bytes: reader.u32("records' bytes").map_err(short)? as usize,
        sections_checksum: Checksum(reader.u32("sections' checksum").map_err(short)?),
    })
}

impl Run {
    /// The index after the run's last entry.
    pub fn end(&self) -> Index {
        self.first.plus(u64::from(self.count))
    }

    /// What no writer of ours violates; checked so that a reader can count with it.
    pub fn is_consistent(&self) -> bool {
        self.first.0 > 0 && self.count > 0 && self.first.0.checked_add(u64::from(self.count)).is_some()
    }

    /// Whether `next`, written right behind this run, is more of the same.
    pub fn goes_on_in(&self, next: &Run) -> bool {
        let same = (self.group, self.kind, self.term) == (next.group, next.kind, next.term);
        same && self.kind == RecordKind::Entry && self.end() == next.first
    }

    /// This run and `next`, which goes on in it and names its term as the one before, as one.
    pub fn joined(&self, next: &Run) -> Option<Run> {
        let goes_on = self.goes_on_in(next) && next.previous_term == self.term;
        let count = self.count.checked_add(next.count).filter(|_| goes_on)?;
        Some(Run { count, ..*self })
    }

    pub fn put(&self, out: &mut impl BufMut) {
        assert!(self.is_consistent(), "no reader takes this run: {self:?}");
        out.put_u32_le(self.group.0);
        out.put_u8(self.kind.byte());
        out.put_slice(&[0; 3]);
        out.put_u64_le(self.first.0);
        out.put_u32_le(self.count);
        out.put_u32_le(0);
        out.put_u64_le(self.term.0);
        out.put_u64_le(self.previous_term.0);
    }

    pub fn take(reader: &mut Reader<'_>) -> Result<Run, codec::Error> {
        let group = GroupId(reader.u32("group")?);
        let kind = reader.u8("kind of run")?;
        reader.take(3, "zero")?;
        let first = Index(reader.u64("first index")?);
        let count = reader.u32("count")?;
        reader.u32("zero")?;
        let run = Run {
            group,
            kind: RecordKind::from_byte(kind)
                .ok_or(codec::Error::Invalid { what: "kind of run", found: u64::from(kind) })?,
            first,
            count,
            term: Term(reader.u64("term")?),
            previous_term: Term(reader.u64("previous term")?),
        };
        if run.is_consistent() { Ok(run) } else { Err(codec::Error::Invalid { what: "run", found: first.0 }) }
    }
}

/// How many of the 512-byte sectors are zero.
pub fn count_zero_sectors(bytes: &[u8]) -> u32 {
    bytes.chunks_exact(SECTOR_BYTES).filter(|sector| is_zero(sector)).count() as u32
}

/// Whether all bytes are zero: the first is, and each equals the one before it. A comparison of memory is many times
/// faster than a loop over bytes that may end early.
pub fn is_zero(bytes: &[u8]) -> bool {
    match bytes {
        [] => true,
        [first, rest @ ..] => *first == 0 && *rest == bytes[..rest.len()],
    }
}

const _: () = assert!(FRAME_HEAD_BYTES <= SECTOR_BYTES && CHECKSUM_AT + 4 == FRAME_HEAD_BYTES);
