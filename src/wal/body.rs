//! A frame with its body: how one is built, and how one is read and verified.

use super::encoded::Encoded;
use super::frame::{
    FRAME_HEAD_BYTES, FRAME_OVERHEAD_BYTES_MAX, FrameHead, FrameKind, Run, count_zero_sectors, is_zero,
};
use super::record::{self, FrameSalt, RecordFault, RecordHead, RecordKind};
use super::sections::{OpenSection, SealSection};
use crate::checksum::Checksum;
use crate::codec::Reader;
use crate::disk::Buffer;
use crate::limits::{BLOCK_BYTES, FRAME_BYTES_MAX, SECTOR_BYTES};
use crate::types::{Entry, FrameNumber, GroupId, Index, LogId, Payload, Place, SegmentNumber};

/// What goes into a frame: the entries of one append, or a cut.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Item {
    /// Consecutive entries, at least one.
    Entries { group: GroupId, entries: Vec<Entry> },
    /// As above, encoded already.
    Encoded(Encoded),
    /// A truncate or a purge.
    Cut { group: GroupId, kind: RecordKind, id: LogId },
}

/// Everything about a frame but its records.
#[derive(Clone, Debug)]
pub struct FramePlan<'a> {
    pub kind: FrameKind,
    pub segment: SegmentNumber,
    pub salt: u64,
    pub offset: u64,
    pub number: FrameNumber,
    pub durable: Place,
    pub own: &'a [Run],
    pub previous: &'a [Run],
    pub open: Option<&'a OpenSection>,
    pub seal: Option<&'a SealSection>,
}

/// What a directory says of a record.
pub type RecordName = (GroupId, RecordKind, LogId);

/// The directories and special sections of a frame.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Sections {
    pub own: Vec<Run>,
    pub previous: Vec<Run>,
    pub open: Option<OpenSection>,
    pub seal: Option<SealSection>,
}

/// What is wrong with a frame behind an intact head.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BodyFault {
    #[error("the checksum of its sections does not hold")]
    SectionsChecksum,
    #[error("its sections are malformed: {0}")]
    Sections(crate::codec::Error),
    #[error("record {ordinal} of it is damaged: {fault}")]
    Record { ordinal: usize, fault: RecordFault },
    #[error("its records are not those that its directory names")]
    Directory,
    #[error("its kind does not go with what it holds")]
    Kind,
    #[error("its padding is not zero")]
    Padding,
}

impl Item {
    pub fn group(&self) -> GroupId {
        match self {
            Item::Entries { group, .. } | Item::Cut { group, .. } => *group,
            Item::Encoded(encoded) => encoded.group(),
        }
    }

    /// Bytes of its records in a frame.
    pub fn record_bytes(&self) -> usize {
        match self {
            Item::Entries { entries, .. } => entries.iter().map(record::entry_record_bytes).sum(),
            Item::Encoded(encoded) => encoded.record_bytes(),
            Item::Cut { .. } => record::record_bytes(0),
        }
    }

    /// The highest index that it names.
    pub fn last_index(&self) -> Index {
        match self {
            Item::Entries { entries, .. } => entries.last().map_or(Index::ZERO, |entry| entry.id.index),
            Item::Encoded(encoded) => encoded.last_index(),
            Item::Cut { id, .. } => id.index,
        }
    }

    /// Whether a configuration is among its entries. None is ever encoded ahead.
    pub fn holds_membership(&self) -> bool {
        let is_membership = |entry: &Entry| matches!(entry.payload, Payload::Membership(_));
        matches!(self, Item::Entries { entries, .. } if entries.iter().any(is_membership))
    }

    pub fn records(&self) -> usize {
        match self {
            Item::Entries { entries, .. } => entries.len(),
            Item::Encoded(encoded) => encoded.count() as usize,
            Item::Cut { .. } => 1,
        }
    }
}

/// An upper bound of the frame's size, before it is built.
pub fn frame_bytes_max(records_bytes: usize, open_bytes: usize, seal_bytes: usize) -> usize {
    (FRAME_OVERHEAD_BYTES_MAX + open_bytes + seal_bytes + records_bytes).next_multiple_of(BLOCK_BYTES)
}

/// What an item of so many record bytes takes of a segment at most: a frame of its own.
pub fn frame_room_bytes(record_bytes: usize) -> u64 {
    frame_bytes_max(record_bytes, 0, 0) as u64
}

/// Builds a frame into an empty buffer that holds [`frame_bytes_max`].
pub fn build<'i>(buffer: &mut Buffer, plan: &FramePlan<'_>, items: impl Iterator<Item = &'i Item>) -> FrameHead {
    assert!(buffer.is_empty(), "a frame starts at the start of its buffer");
    let salt = FrameSalt::new(plan.salt, plan.number);
    let (sections, open_bytes, seal_bytes) = encode_sections(plan);
    buffer.extend(&[0; FRAME_HEAD_BYTES]);
    buffer.extend(&sections);
    buffer.pad_to(record::RECORD_ALIGNMENT_BYTES);
    let records_start = buffer.len();
    let mut records = 0;
    for item in items {
        records += item.records();
        put_item(buffer, salt, item);
    }
    let records_bytes = buffer.len() - records_start;
    buffer.pad_to(BLOCK_BYTES);
    assert!(buffer.len() <= FRAME_BYTES_MAX, "no reader takes a longer frame: {} bytes", buffer.len());
    let head = FrameHead {
        kind: plan.kind,
        segment: plan.segment,
        offset: plan.offset,
        number: plan.number,
        length: buffer.len(),
        // The first sector holds the magic, whatever the rest of it.
        zero_sectors: count_zero_sectors(&buffer[SECTOR_BYTES..]),
        durable: plan.durable,
        own_runs: plan.own.len(),
        previous_runs: plan.previous.len(),
        open_bytes,
        seal_bytes,
        records,
        records_bytes,
        sections_checksum: salt.checksum(&[&sections]),
    };
    buffer[..FRAME_HEAD_BYTES].copy_from_slice(&head.encode(plan.salt));
    head
}

fn put_item(buffer: &mut Buffer, salt: FrameSalt, item: &Item) {
    match item {
        Item::Entries { group, entries } => {
            for entry in entries {
                record::put_entry(buffer, salt, *group, entry);
            }
        }
        Item::Encoded(encoded) => encoded.put(buffer, salt),
        Item::Cut { group, kind, id } => record::put_cut(buffer, salt, *group, *kind, *id),
    }
}

fn encode_sections(plan: &FramePlan<'_>) -> (Vec<u8>, usize, usize) {
    let mut bytes = Vec::new();
    for run in plan.own.iter().chain(plan.previous) {
        run.put(&mut bytes);
    }
    let open_start = bytes.len();
    if let Some(open) = plan.open {
        open.put(&mut bytes);
    }
    let seal_start = bytes.len();
    if let Some(seal) = plan.seal {
        seal.put(&mut bytes);
    }
    let seal_bytes = bytes.len() - seal_start;
    (bytes, seal_start - open_start, seal_bytes)
}

/// A frame as it was read: an intact head and as many bytes as it says.
#[derive(Clone, Copy, Debug)]
pub struct FrameView<'a> {
    pub head: FrameHead,
    bytes: &'a [u8],
    salt: FrameSalt,
}

impl<'a> FrameView<'a> {
    /// `bytes` begin with the frame and reach at least to its end.
    pub fn new(head: FrameHead, bytes: &'a [u8], segment_salt: u64) -> FrameView<'a> {
        assert!(bytes.len() >= head.length, "a frame is viewed whole");
        FrameView { head, bytes: &bytes[..head.length], salt: FrameSalt::new(segment_salt, head.number) }
    }

    /// As [`FrameView::new`], of a frame whose records are not all here: for its sections, and its first record's head.
    pub fn without_records(head: FrameHead, bytes: &'a [u8], segment_salt: u64) -> FrameView<'a> {
        assert!(bytes.len() >= head.records_start(), "its sections are viewed whole");
        FrameView { head, bytes, salt: FrameSalt::new(segment_salt, head.number) }
    }

    /// Whether more of its sectors are zero than were written as zeros: then some were never written.
    pub fn has_unwritten_sectors(&self) -> bool {
        count_zero_sectors(self.bytes) > self.head.zero_sectors
    }

    /// The sections, under their checksum.
    pub fn sections(&self) -> Result<Sections, BodyFault> {
        let bytes = &self.bytes[FRAME_HEAD_BYTES..FRAME_HEAD_BYTES + self.head.sections_bytes()];
        let found: Checksum = self.salt.checksum(&[bytes]);
        if found != self.head.sections_checksum {
            return Err(BodyFault::SectionsChecksum);
        }
        let sections = self.decode_sections(bytes).map_err(BodyFault::Sections)?;
        // Whoever goes through the names is bound by what a frame can hold.
        let named: u64 = sections.own.iter().map(|run| u64::from(run.count)).sum();
        if named > self.head.records as u64 { Err(BodyFault::Directory) } else { Ok(sections) }
    }

    fn decode_sections(&self, bytes: &[u8]) -> Result<Sections, crate::codec::Error> {
        let mut reader = Reader::new(bytes);
        let own = (0..self.head.own_runs).map(|_| Run::take(&mut reader)).collect::<Result<_, _>>()?;
        let previous = (0..self.head.previous_runs).map(|_| Run::take(&mut reader)).collect::<Result<_, _>>()?;
        let open = reader.take(self.head.open_bytes, "open section")?;
        let seal = reader.take(self.head.seal_bytes, "seal section")?;
        Ok(Sections {
            own,
            previous,
            open: if open.is_empty() { None } else { Some(OpenSection::decode(open)?) },
            seal: if seal.is_empty() { None } else { Some(SealSection::decode(seal)?) },
        })
    }

    /// Verifies everything behind the head; gives the sections and calls `each` with every record.
    pub fn verify(&self, mut each: impl FnMut(&RecordHead, &'a [u8])) -> Result<Sections, BodyFault> {
        let sections = self.sections()?;
        self.check_kind(&sections)?;
        self.check_padding()?;
        let mut expected = sections.own.iter().flat_map(names);
        let mut is_named = true;
        let read = self.records(|head, payload| {
            is_named &= expected.next() == Some((head.group, head.kind, head.id));
            each(head, payload);
        })?;
        let is_complete = is_named && read == self.head.records_bytes && expected.next().is_none();
        drop(expected);
        if is_complete { Ok(sections) } else { Err(BodyFault::Directory) }
    }

    /// Where its records lie, one behind the other.
    pub(super) fn records_bytes(&self) -> &'a [u8] {
        let start = self.head.records_start();
        &self.bytes[start..(start + self.head.records_bytes).min(self.bytes.len())]
    }

    pub(super) fn salt(&self) -> FrameSalt {
        self.salt
    }

    /// Calls `each` with every record in order, verifying heads and payloads; gives the bytes they took.
    pub fn records(&self, mut each: impl FnMut(&RecordHead, &'a [u8])) -> Result<usize, BodyFault> {
        let bytes = self.records_bytes();
        let mut at = 0;
        for ordinal in 0..self.head.records {
            let (head, payload, size) =
                record::parse(&bytes[at..], self.salt).map_err(|fault| BodyFault::Record { ordinal, fault })?;
            each(&head, payload);
            at += size;
        }
        Ok(at)
    }

    fn check_kind(&self, sections: &Sections) -> Result<(), BodyFault> {
        let goes = match self.head.kind {
            FrameKind::Open => sections.open.is_some() && sections.seal.is_none() && self.head.records == 0,
            FrameKind::Data => sections.seal.is_none() && self.head.records > 0,
            FrameKind::Seal => sections.seal.is_some() && self.head.records == 0,
            FrameKind::Cover => sections.seal.is_none() && self.head.records == 0,
        };
        if goes { Ok(()) } else { Err(BodyFault::Kind) }
    }

    fn check_padding(&self) -> Result<(), BodyFault> {
        let records_end = self.head.records_start() + self.head.records_bytes;
        let sections_end = FRAME_HEAD_BYTES + self.head.sections_bytes();
        let before = &self.bytes[sections_end..self.head.records_start()];
        let behind = &self.bytes[records_end..];
        if is_zero(before) && is_zero(behind) { Ok(()) } else { Err(BodyFault::Padding) }
    }
}

/// The records that a run names, in order.
fn names(run: &Run) -> impl Iterator<Item = RecordName> + '_ {
    (0..u64::from(run.count)).map(|ahead| (run.group, run.kind, LogId::new(run.term, run.first.plus(ahead))))
}

/// Adds a record to a directory: to its last run if it goes on there, else as a new one.
pub fn extend_runs(runs: &mut Vec<Run>, group: GroupId, kind: RecordKind, id: LogId, previous: LogId) {
    if let Some(last) = runs.last_mut() {
        let goes_on = last.group == group && last.kind == kind && kind == RecordKind::Entry;
        if goes_on && last.term == id.term && last.end() == id.index {
            last.count += 1;
            return;
        }
    }
    runs.push(Run { group, kind, first: id.index, count: 1, term: id.term, previous_term: previous.term });
}
