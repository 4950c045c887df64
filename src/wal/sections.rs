//! What open and seal frames say: how a segment joins the one before it, and what is in it.
//!
//! docs/formats.md has the bytes of both sections.
//!
//! The wall clock is for retention by age alone; nothing else looks at it.

use bytes::BufMut;

use super::frame::Run;
use super::outline::{OUTLINE_BYTES_MAX, OUTLINE_MEMBERSHIPS_MAX, OUTLINE_RUNS_MAX, Outline, narrow};
use super::record::RecordKind;
use crate::codec::{self, Error, Reader};
use crate::limits::GROUPS_MAX;
use crate::types::{FrameNumber, GroupId, Index, LogId, Place, SegmentNumber};

const OPEN_FIXED_BYTES: usize = 40;
const OPEN_GROUP_BYTES: usize = 72;
const SEAL_FIXED_BYTES: usize = 32;
const SPARSE_BYTES: usize = 24;
/// Entries of a segment's sparse index; when full, every second one goes.
pub const SPARSE_ENTRIES_MAX: usize = 128;
pub const OPEN_SECTION_BYTES_MAX: usize = OPEN_FIXED_BYTES + GROUPS_MAX * OPEN_GROUP_BYTES;
pub const SEAL_SECTION_BYTES_MAX: usize = SEAL_FIXED_BYTES + SPARSE_ENTRIES_MAX * SPARSE_BYTES + OUTLINE_BYTES_MAX;

/// How a segment joins its predecessor.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OpenSection {
    /// The end of the predecessor: bytes of it beyond this do not exist. [`Place::START`] if there is none.
    pub predecessor_end: Place,
    /// Milliseconds since 1970 when the segment was opened.
    pub wall_clock_milliseconds: u64,
    /// Every group that has ever had a record, in order of id.
    pub groups: Vec<GroupStart>,
}

/// A group's log when a segment was opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GroupStart {
    pub group: GroupId,
    /// The entry before the group's first.
    pub before_first: LogId,
    pub last: LogId,
    /// The end of the last frame that added an entry.
    pub last_place: Place,
}

/// What is in a segment.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SealSection {
    /// In order of frames.
    pub sparse: Vec<SparseEntry>,
    /// Records in it, and their bytes.
    pub records: u64,
    pub records_bytes: u64,
    /// `None` if it is too long: then the segment is read whole.
    pub outline: Option<Outline>,
}

/// A frame that holds an entry of a group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SparseEntry {
    pub group: GroupId,
    /// The group's first index in the frame.
    pub first: Index,
    pub offset: u64,
    pub frame: FrameNumber,
}

impl OpenSection {
    pub fn put(&self, out: &mut impl BufMut) {
        assert!(self.groups.len() <= GROUPS_MAX, "the number of groups is checked when one is added");
        out.put_u64_le(self.predecessor_end.segment.0);
        out.put_u64_le(self.predecessor_end.offset);
        out.put_u64_le(self.predecessor_end.frame.0);
        out.put_u64_le(self.wall_clock_milliseconds);
        out.put_u32_le(self.groups.len() as u32);
        out.put_u32_le(0);
        for group in &self.groups {
            out.put_u32_le(group.group.0);
            out.put_u32_le(0);
            codec::put_log_id(out, group.before_first);
            codec::put_log_id(out, group.last);
            put_place(out, group.last_place);
        }
    }

    pub fn decode(bytes: &[u8]) -> Result<OpenSection, Error> {
        let mut reader = Reader::new(bytes);
        let predecessor_end = place(&mut reader)?;
        if predecessor_end.frame.0 == u64::MAX {
            return Err(Error::Invalid { what: "last frame of the predecessor", found: u64::MAX });
        }
        let wall_clock_milliseconds = reader.u64("wall clock")?;
        let count = reader.length(GROUPS_MAX, "number of groups")?;
        reader.u32("zero")?;
        let mut groups = Vec::with_capacity(count);
        for _ in 0..count {
            let group = GroupId(reader.u32("group")?);
            reader.u32("zero")?;
            let (before_first, last) = (codec::log_id(&mut reader)?, codec::log_id(&mut reader)?);
            if before_first.index > last.index || last.index.0 == u64::MAX {
                return Err(Error::Invalid { what: "last index of a group", found: last.index.0 });
            }
            groups.push(GroupStart { group, before_first, last, last_place: place(&mut reader)? });
        }
        reader.finish("open section")?;
        Ok(OpenSection { predecessor_end, wall_clock_milliseconds, groups })
    }
}

impl GroupStart {
    /// A group of which nothing is known but the run that comes next.
    pub fn before(run: &Run) -> GroupStart {
        let before = LogId::new(run.previous_term, Index(run.first.0.saturating_sub(1)));
        GroupStart { group: run.group, before_first: before, last: before, last_place: Place::START }
    }

    /// Does what a run of a frame says; `end` is the end of that frame.
    pub fn apply(&mut self, run: &Run, end: Place) {
        match run.kind {
            RecordKind::Entry => {
                self.last = LogId::new(run.term, run.end().previous());
                self.last_place = end;
            }
            RecordKind::Truncate if run.first <= self.before_first.index.next() => self.last = self.before_first,
            RecordKind::Truncate if run.first <= self.last.index => {
                self.last = LogId::new(run.previous_term, run.first.previous());
            }
            RecordKind::Truncate => {}
            // By index, as `GroupLog` does it: the caller's term need not be known.
            RecordKind::Purge if run.first > self.before_first.index => {
                self.before_first = LogId::new(run.term, run.first);
                if self.last.index <= self.before_first.index {
                    self.last = self.before_first;
                }
            }
            RecordKind::Purge => {}
        }
    }
}

impl SealSection {
    pub fn put(&self, out: &mut impl BufMut) {
        let (runs, memberships) =
            self.outline.as_ref().map_or((0, 0), |outline| (outline.runs.len(), outline.memberships.len()));
        let fits = runs <= OUTLINE_RUNS_MAX && memberships <= OUTLINE_MEMBERSHIPS_MAX;
        assert!(fits && self.sparse.len() <= SPARSE_ENTRIES_MAX, "bounded by the writer");
        out.put_u32_le(self.sparse.len() as u32);
        out.put_u32_le(runs as u32);
        out.put_u32_le(memberships as u32);
        out.put_u32_le(u32::from(self.outline.is_some()));
        out.put_u64_le(self.records);
        out.put_u64_le(self.records_bytes);
        for entry in &self.sparse {
            out.put_u32_le(entry.group.0);
            out.put_u32_le(narrow(entry.offset));
            out.put_u64_le(entry.first.0);
            out.put_u64_le(entry.frame.0);
        }
        if let Some(outline) = &self.outline {
            outline.put(out);
        }
    }

    pub fn decode(bytes: &[u8]) -> Result<SealSection, Error> {
        let mut reader = Reader::new(bytes);
        let sparse_count = reader.length(SPARSE_ENTRIES_MAX, "number of index entries")?;
        let runs = reader.length(OUTLINE_RUNS_MAX, "number of runs")?;
        let memberships = reader.length(OUTLINE_MEMBERSHIPS_MAX, "number of frames with configurations")?;
        let has_outline = match reader.u32("whether there is an outline")? {
            0 if runs + memberships == 0 => false,
            1 => true,
            found => return Err(Error::Invalid { what: "whether there is an outline", found: u64::from(found) }),
        };
        let (records, records_bytes) = (reader.u64("number of records")?, reader.u64("length of the records")?);
        let sparse = (0..sparse_count).map(|_| sparse_entry(&mut reader)).collect::<Result<_, _>>()?;
        let outline = if has_outline { Some(Outline::take(&mut reader, (runs, memberships))?) } else { None };
        reader.finish("seal section")?;
        Ok(SealSection { sparse, records, records_bytes, outline })
    }
}

fn sparse_entry(reader: &mut Reader<'_>) -> Result<SparseEntry, Error> {
    let (group, offset) = (GroupId(reader.u32("group")?), u64::from(reader.u32("offset")?));
    let (first, frame) = (Index(reader.u64("first index")?), FrameNumber(reader.u64("frame number")?));
    Ok(SparseEntry { group, first, offset, frame })
}

fn put_place(out: &mut impl BufMut, place: Place) {
    out.put_u64_le(place.segment.0);
    out.put_u64_le(place.offset);
    out.put_u64_le(place.frame.0);
}

fn place(reader: &mut Reader<'_>) -> Result<Place, Error> {
    Ok(Place {
        segment: SegmentNumber(reader.u64("segment")?),
        offset: reader.u64("offset")?,
        frame: FrameNumber(reader.u64("frame")?),
    })
}
