//! Writes again what may be in the page cache alone.
//!
//! Where reads do not go past the page cache, an intact frame need not be on the disk: a flush of it may have failed
//! in an earlier life of the process, and the kernel takes its pages for clean since. What a durable end proves is on
//! the disk; what lies behind it, a few frames, is copied into a new segment:
//!
//! ```text
//!  old  ┌──────┬────────┬────────┬ ─ ─ ─ ┬ ─ ─ ─ ┐
//!       │ open │ proven │ proven │ read  │ read  │
//!       └──────┴────────┴────────┴ ─ ─ ─ ┴ ─ ─ ─ ┘
//!                                ▲
//!  new  ┌──────┬────────┬──────┬─│────┬───────┐   1. what repeats the open frame, the frames and a flush
//!       │ open │ repeat │ copy │ copy │ cover │   2. the open frame, which names the proven end, and a flush
//!       └──┬───┴────────┴──────┴─│────┴───────┘   3. a covering frame and a flush: the copies are proven
//!          └─────────────────────┘
//! ```
//!
//! Before the second flush nothing has changed: the copies carry a durable end in an older segment, so they do not
//! prove that their open frame was ever there, and the segment counts as not joined.
//!
//! If not even the open frame of the old segment is proven and there are entries behind it (then it is itself such a
//! copy, cut before its covering frame), the new segment names what that one named, takes over all its frames, and
//! the old one is in no chain any more.
//!
//! Where what is not proven holds no entry (an open, seal or covering frame) it is written again in its place: the
//! bytes are the same, so a cut cannot tear it, and a restart does not cost a segment.

use bytes::Bytes;

use super::analysis::{Analysis, ChainSegment, Source};
use super::body::{self, FramePlan, FrameView, Item};
use super::chain::{Candidate, Gathered};
use super::dead;
use super::error::{Error, Finding, Severity};
use super::frame::{FrameHead, FrameKind, OPEN_FRAME_BYTES_MAX, Run, SEAL_FRAME_BYTES_MAX};
use super::group::GroupLog;
use super::log::Options;
use super::record::{RecordHead, RecordKind};
use super::recovery::Acknowledged;
use super::resume::prepare_or_recycle;
use super::scan::{Found, Scan};
use super::sections::{GroupStart, OpenSection};
use super::segment::{FRAMES_START, Fill, Prepare, SegmentHeader, segment_name};
use crate::codec;
use crate::disk::{Buffer, FileId, Files};
use crate::limits::{BLOCK_BYTES, SEGMENT_BYTES_MAX, WRITES_IN_FLIGHT_MAX};
use crate::random::Random;
use crate::types::{Data, Entry, FrameNumber, Place};

/// Data frames that can be read and not proven: those that were in flight together.
const FRAMES_UNPROVEN_MAX: usize = WRITES_IN_FLIGHT_MAX + 1;
const CHANGED: &str = "a frame that was intact cannot be read again";

/// Copies the frames of `analysis` that nothing proves into a new segment of the log, and takes that in.
pub(super) fn rewrite<F: Files>(
    files: &F,
    options: &Options,
    (gathered, source): (&mut Gathered, &Source),
    analysis: &Analysis,
    wall_clock_milliseconds: u64,
) -> Result<(), Error> {
    let old = analysis.chain.last().expect("frames lie in segments");
    let is_within = analysis.proven.segment == old.header.number;
    let (from, mut section, previous) = match is_within {
        true => {
            let mut proven = gathered.read_part(files, source, Some(analysis.proven));
            // What ended a damaged entry may be in the frames that are copied.
            dead::settle_by(&mut proven, analysis);
            let proven = super::resume::intact(proven)?;
            (analysis.proven, section_at(&proven), proven.last_runs)
        }
        false => (old.open.predecessor_end, old.open.clone(), Vec::new()),
    };
    section.wall_clock_milliseconds = wall_clock_milliseconds;
    let start = if is_within { from.offset } else { FRAMES_START };
    let heads = unproven(files, options, old, start)?;
    if heads.is_empty() {
        return write_in_place(files, old, start);
    }
    let mut copy = Copy::prepare(files, options, gathered, (section, from), &heads, old)?;
    copy.open(files, previous)?;
    for head in &heads {
        copy.frame(files, old, head)?;
    }
    copy.finish(files)
}

/// Writes the bytes of the segment from `start` on once more, so that the next flush covers them.
pub(super) fn write_in_place<F: Files>(files: &F, old: &ChainSegment, start: u64) -> Result<(), Error> {
    let mut block = [0; BLOCK_BYTES];
    for at in (start..old.end).step_by(BLOCK_BYTES) {
        files.read(old.file, at, &mut block)?;
        files.write(old.file, at, &block)?;
    }
    files.sync(old.file)?;
    Ok(())
}

/// What an open frame behind all of this says.
pub(super) fn section_at(analysis: &Analysis) -> OpenSection {
    OpenSection {
        predecessor_end: analysis.end,
        wall_clock_milliseconds: 0,
        groups: analysis.groups.values().map(start_of).collect(),
    }
}

/// What an open frame says of a group.
pub(super) fn start_of(log: &GroupLog) -> GroupStart {
    GroupStart { group: log.group, before_first: log.before_first, last: log.last, last_place: log.last_place }
}

/// The data frames of the segment from `start` on.
fn unproven<F: Files>(files: &F, options: &Options, old: &ChainSegment, start: u64) -> Result<Vec<FrameHead>, Error> {
    let mut scan = Scan::new(files, old.file, old.header);
    let mut heads = Vec::new();
    let mut at = start;
    while at < old.end {
        let Ok(head) = scan.head_at(at) else { return Err(refuse(&options.directory, old, at, CHANGED)) };
        at = head.end().offset;
        if head.kind == FrameKind::Data {
            heads.push(head);
        }
        if heads.len() > FRAMES_UNPROVEN_MAX {
            return Err(refuse(&options.directory, old, start, "more frames lack proof than can be in flight"));
        }
    }
    Ok(heads)
}

/// The new segment while it is written.
struct Copy {
    header: SegmentHeader,
    file: FileId,
    section: OpenSection,
    /// The proven end: what all frames but the last carry as durable.
    proven: Place,
    /// Built first, for its length; written last.
    open_frame: Buffer,
    offset: u64,
    next_frame: FrameNumber,
    previous: Vec<Run>,
    /// Until the open frame and its repetition are built.
    repeat_open: bool,
    directory: String,
}

impl Copy {
    fn prepare<F: Files>(
        files: &F,
        options: &Options,
        gathered: &mut Gathered,
        (section, proven): (OpenSection, Place),
        heads: &[FrameHead],
        old: &ChainSegment,
    ) -> Result<Copy, Error> {
        let frames: usize = heads.iter().map(|head| body::frame_bytes_max(head.records_bytes, 0, 0)).sum();
        let around = 2 * BLOCK_BYTES + 3 * OPEN_FRAME_BYTES_MAX + SEAL_FRAME_BYTES_MAX;
        let bytes = options.segment_bytes.max((frames + around) as u64);
        assert!(bytes <= SEGMENT_BYTES_MAX, "the number of frames is bounded, and so is each");
        // Salts must differ from those of the last life even if the caller's seed does not.
        let salt = Random::seeded(options.seed ^ old.header.salt.rotate_left(31)).next_u64();
        let header = SegmentHeader { identity: options.identity, number: gathered.next_segment, salt, bytes };
        let directory = options.directory.clone();
        let order = Prepare { directory: directory.clone(), header, fill: Fill::Allocated, recycled: None };
        let file = prepare_or_recycle(files, order, &mut gathered.candidates)?;
        // From here on it is closed with the others, whatever becomes of it.
        gathered.candidates.push(Candidate {
            number: header.number,
            file,
            header: Some(header),
            found: Some(header),
            open: None,
            is_spare: false,
            is_zero: false,
            has_holes: false,
        });
        gathered.next_segment = header.number.next();
        Ok(Copy {
            header,
            file,
            section,
            proven,
            open_frame: Buffer::with_capacity(OPEN_FRAME_BYTES_MAX),
            offset: FRAMES_START,
            next_frame: proven.frame.next(),
            previous: Vec::new(),
            repeat_open: true,
            directory,
        })
    }

    /// Builds the open frame, and writes the frame behind it, which repeats it: one without records, because the frames
    /// that are copied may fill their room without that.
    fn open<F: Files>(&mut self, files: &F, previous: Vec<Run>) -> Result<(), Error> {
        self.previous = previous;
        let mut open_frame = Buffer::with_capacity(OPEN_FRAME_BYTES_MAX);
        self.build(&mut open_frame, FrameKind::Open, &[], &[]);
        self.open_frame = open_frame;
        let mut buffer = Buffer::with_capacity(OPEN_FRAME_BYTES_MAX);
        let offset = self.offset;
        self.build(&mut buffer, FrameKind::Cover, &[], &[]);
        files.write(self.file, offset, &buffer)?;
        self.repeat_open = false;
        Ok(())
    }

    /// Copies one frame of the old segment.
    fn frame<F: Files>(&mut self, files: &F, old: &ChainSegment, head: &FrameHead) -> Result<(), Error> {
        let mut scan = Scan::new(files, old.file, old.header);
        let Found::Frame(frame) = scan.frame_at(head.offset) else { return Err(self.changed(old, head.offset)) };
        let (own, items) = contents(&frame).ok_or_else(|| self.changed(old, head.offset))?;
        let mut buffer = Buffer::with_capacity(body::frame_bytes_max(head.records_bytes, 0, 0));
        let offset = self.offset;
        self.build(&mut buffer, FrameKind::Data, &own, &items);
        files.write(self.file, offset, &buffer)?;
        Ok(())
    }

    /// The order that makes it safe: copies, open frame, proof.
    fn finish<F: Files>(&mut self, files: &F) -> Result<(), Error> {
        files.sync(self.file)?;
        files.write(self.file, FRAMES_START, &self.open_frame)?;
        files.sync(self.file)?;
        let mut buffer = Buffer::with_capacity(OPEN_FRAME_BYTES_MAX);
        let offset = self.offset;
        let frame = FrameNumber(self.next_frame.0 - 1);
        self.proven = Place { segment: self.header.number, offset, frame };
        self.build(&mut buffer, FrameKind::Cover, &[], &[]);
        files.write(self.file, offset, &buffer)?;
        files.sync(self.file)?;
        Ok(())
    }

    fn build(&mut self, buffer: &mut Buffer, kind: FrameKind, own: &[Run], items: &[Item]) {
        let plan = FramePlan {
            kind,
            segment: self.header.number,
            salt: self.header.salt,
            offset: self.offset,
            number: self.next_frame,
            durable: self.proven,
            own,
            previous: &self.previous,
            open: self.repeat_open.then_some(&self.section),
            seal: None,
        };
        let head = body::build(buffer, &plan, items.iter());
        self.offset = head.end().offset;
        self.next_frame = head.number.next();
        self.previous = own.to_vec();
    }

    fn changed(&self, old: &ChainSegment, at: u64) -> Error {
        refuse(&self.directory, old, at, CHANGED)
    }
}

/// The directory and the records of a frame that was verified before.
fn contents(frame: &FrameView<'_>) -> Option<(Vec<Run>, Vec<Item>)> {
    let mut items = Vec::new();
    let sections = frame.verify(|head, payload| items.push(item(head, payload))).ok()?;
    let items = items.into_iter().collect::<Result<Vec<Item>, codec::Error>>().ok()?;
    Some((sections.own, items))
}

fn item(head: &RecordHead, payload: &[u8]) -> Result<Item, codec::Error> {
    let (group, kind, id) = (head.group, head.kind, head.id);
    if kind != RecordKind::Entry {
        return Ok(Item::Cut { group, kind, id });
    }
    let data = Data { bytes: Bytes::copy_from_slice(payload), checksum: head.payload_checksum };
    let payload = codec::decode_payload(head.payload_kind, data)?;
    Ok(Item::Entries { group, entries: vec![Entry { id, payload }] })
}

fn refuse(directory: &str, old: &ChainSegment, at: u64, what: &str) -> Error {
    Error::Damaged(Finding {
        severity: Severity::Unclear,
        file: segment_name(directory, old.header.number),
        bytes: at..old.end,
        what: what.to_owned(),
        acknowledged: Some(Acknowledged::Unknown),
        entries: Vec::new(),
    })
}
