//! Reads entries from durable frames. A plan is made on the core and run anywhere: it holds all it needs.
//!
//! Four ways to the bytes of a frame. The tail cache has the newest. Ended segments are mapped; but whoever reads long
//! stretches of one has them read past the page cache, which they would fill with what nobody else wants, into memory that
//! he keeps. For the rest, and wherever memory shows something that makes no sense (a page of the cache that is older than
//! the disk, a segment that became another one), the disk is asked, frame by frame. The checks are the same on all four.

use std::ops::{ControlFlow, Range};

use super::ahead::Ahead;
use super::body::FrameView;
use super::error::{Error, Finding, LogIds, Severity};
use super::frame::{FrameHead, Run};
use super::locator::Part;
use super::plan::{PlannedPart, ReadPlan};
use super::record::{RECORD_HEAD_BYTES, RecordKind};
use super::recovery::Acknowledged;
use super::salvage::Salvaged;
use super::scan::{Found, HeadProblem, Scan};
use super::segment::{SegmentHeader, segment_name};
use super::stretch::Stretch;
use super::taken::Taken;
use super::window::Window;
use crate::codec;
use crate::disk::{Buffer, Files};
use crate::limits::{BLOCK_BYTES, ENTRY_OVERHEAD_BYTES, FRAME_BYTES_MAX};
use crate::types::{Entry, GroupId, Index, LogId};

/// Shorter frames are read whole: the disk is asked once.
const EXCERPT_BYTES_MIN: usize = 64 << 10;
/// Who wants so much of an ended segment, or more, reads it past the page cache: what one read of the device costs is then
/// little beside what it gives.
const LONG_BYTES_MIN: usize = 128 << 10;
/// What is read at once at most, but for a frame that is longer.
const STRETCH_BYTES_MAX: usize = 1 << 20;
/// Who begins to read, and wants this part of a frame or less, is given its place by the frame's directories.
const LONG_FRAME_PARTS: usize = 8;
/// Room for so many entries is made at once at most.
const ENTRIES_RESERVED_MAX: usize = 4096;

/// What a reader keeps from one read to the next: memory, and where the last one ended.
#[derive(Debug, Default)]
pub struct ReadBuffer {
    window: Window,
    stretch: Stretch,
    passed: Option<Passed>,
}

/// Where a read ended, so that the next one goes on there and not at the last place that the log knows.
#[derive(Clone, Copy, Debug)]
struct Passed {
    group: GroupId,
    /// Of the segment that the frame lies in.
    header: SegmentHeader,
    /// The frame with the last entry that was taken.
    offset: u64,
    /// The index behind that entry.
    next: Index,
}

/// A reader's memory is his own: a clone begins without.
impl Clone for ReadBuffer {
    fn clone(&self) -> ReadBuffer {
        ReadBuffer::default()
    }
}

impl ReadBuffer {
    /// Whether a read from this entry on goes on where the last one with this memory ended.
    pub fn is_at(&self, group: GroupId, from: Index) -> bool {
        self.passed.is_some_and(|passed| (passed.group, passed.next) == (group, from))
    }
}

impl Passed {
    /// Where to look for the entry of this index in a part, of which `end` bytes are on disk. A record ends all older ones
    /// from its index on: so what is live of that stands behind each record with a lower index. That holds for what was
    /// durable when the plan was made: memory may know a frame of which an older plan does not.
    fn start(&self, part: &Part, (group, next): (GroupId, Index), end: u64) -> u64 {
        let is_known = self.header == part.header && self.offset < part.end;
        let is_behind = is_known && self.group == group && self.next <= next;
        if is_behind { part.start.max(self.offset.min(end)) } else { part.start }
    }
}

impl ReadPlan {
    /// The entries from the first wanted one on, without gaps: all of them, or as many as `bytes_max` allows and at
    /// least one, or as many as this plan reaches ([`ReadPlan::is_cut`]), or those before the first that cannot be read.
    /// Payloads are copied out and their checksums verified; small ones share memory, so that one that is kept keeps up to
    /// 16 KiB. Empty only if nothing wanted is durable.
    ///
    /// # Errors
    /// [`Error::Trimmed`] if the first wanted entry was purged when this was planned. [`Error::Damaged`] or
    /// [`Error::Disk`] if the **first** wanted entry cannot be read: those behind it can be asked for. [`Error::Stale`] if
    /// it cannot be read and its file does not look like its segment any more: [`super::Log::judged`] tells whether the
    /// segment was given up since.
    pub fn run<F: Files>(&self, files: &F) -> Result<Vec<Entry>, Error> {
        self.run_with(files, &mut ReadBuffer::default())
    }

    /// As [`ReadPlan::run`], with memory that a reader of many plans keeps.
    pub fn run_with<F: Files>(&self, files: &F, buffer: &mut ReadBuffer) -> Result<Vec<Entry>, Error> {
        let (group, wanted) = (self.group, self.from);
        if let Some(first) = self.trimmed {
            return Err(Error::Trimmed { group, first, wanted });
        }
        if self.is_lost {
            return Err(self.lost());
        }
        let goes_on = buffer.is_at(group, wanted);
        let passed = buffer.passed.take();
        let mut reading = Reading { plan: self, taken: Taken::default(), bytes: 0, next: self.from, passed, goes_on };
        for planned in &self.parts {
            if reading.is_done() {
                break;
            }
            match reading.read_part(files, planned, buffer) {
                Ok(()) => {}
                Err(_) if !reading.taken.is_empty() => break,
                Err(error) => return Err(self.suspected(files, std::slice::from_ref(planned), error)),
            }
        }
        buffer.passed = reading.passed;
        match self.parts.last() {
            // The plan said that it is there, and no frame names it.
            Some(PlannedPart { part, .. }) if reading.taken.is_empty() && self.from < self.to => {
                let error = reading.damaged(part, part.start, (self.from.next(), "the entry is in none of its frames"));
                Err(self.suspected(files, &self.parts, error))
            }
            _ => Ok(reading.taken.into_entries()),
        }
    }

    /// It is durable, and no segment of the log has it.
    fn lost(&self) -> Error {
        Error::Damaged(Finding {
            severity: Severity::Corrupt,
            file: self.directory.clone(),
            bytes: 0..0,
            what: "no segment of the log holds the entry".to_owned(),
            acknowledged: Some(Acknowledged::Yes),
            entries: vec![LogIds::unnamed(self.group, self.from..self.from.next())],
        })
    }

    /// The error, with the suspicion that a file became something else since the plan was made. It is zeroed from its
    /// header on, so whoever meets zeros where frames were finds another header, or zeros there too.
    fn suspected<F: Files>(&self, files: &F, parts: &[PlannedPart], error: Error) -> Error {
        match parts.iter().find(|planned| !has_header(files, &planned.part)) {
            Some(PlannedPart { part, .. }) => {
                let (group, wanted, segment) = (self.group, self.from, part.header.number);
                Error::Stale { group, wanted, segment, cause: Box::new(error) }
            }
            None => error,
        }
    }
}

/// Whether the file shows that it is this segment still.
fn has_header<F: Files>(files: &F, part: &Part) -> bool {
    let mut block = [0; BLOCK_BYTES];
    let read = files.read(part.file, 0, &mut block);
    read.is_ok() && SegmentHeader::decode(&block).is_ok_and(|header| header == part.header)
}

struct Reading<'p> {
    plan: &'p ReadPlan,
    taken: Taken,
    bytes: usize,
    next: Index,
    /// Where this read is, or the last one ended.
    passed: Option<Passed>,
    /// It began where the last one ended.
    goes_on: bool,
}

impl Reading<'_> {
    fn is_done(&self) -> bool {
        self.next >= self.plan.to || (!self.taken.is_empty() && self.bytes >= self.plan.bytes_max)
    }

    fn wants_more(&self, part: &Part) -> bool {
        self.next < part.until && !self.is_done()
    }

    /// From memory what is there, mapped or cached; from the disk what is not, or makes no sense: only what the disk
    /// gives is damage.
    fn read_part<F: Files>(
        &mut self,
        files: &F,
        PlannedPart { part, disk_end, cached }: &PlannedPart,
        buffer: &mut ReadBuffer,
    ) -> Result<(), Error> {
        self.reserve(part);
        let mut at =
            self.passed.map_or(part.start, |passed| passed.start(part, (self.plan.group, self.next), *disk_end));
        if at < *disk_end && part.has_ended {
            let range = at..*disk_end;
            let is_long = self.is_long(part, &range) || buffer.stretch.holds(part, at);
            if is_long && files.reads_past_cache() {
                at = self.read_stretch(files, part, range, &mut buffer.stretch);
            } else if part.may_be_mapped {
                at = self.read_mapped(files, part, range);
            }
        }
        self.read_disk(files, part, at..*disk_end, &mut buffer.window)?;
        for frame in cached.iter().filter(|frame| frame.offset >= part.start) {
            if !self.wants_more(part) {
                break;
            }
            if self.read_memory(part, &frame.bytes, frame.offset, |_| ()).is_none() {
                let end = frame.offset + frame.bytes.len() as u64;
                self.read_disk(files, part, frame.offset..end, &mut buffer.window)?;
            }
        }
        Ok(())
    }

    /// Whether so much is wanted of a part that its reader goes past the page cache.
    fn is_long(&self, part: &Part, range: &Range<u64>) -> bool {
        self.usual_bytes(part).min((range.end - range.start) as usize) >= LONG_BYTES_MIN
    }

    /// How much is wanted of a part, if its records are of the usual size.
    fn usual_bytes(&self, part: &Part) -> usize {
        let entries = part.until.0.saturating_sub(self.next.0) as usize;
        entries.saturating_mul(part.record_bytes as usize).min(self.bytes_left())
    }

    /// Reads frames of an ended segment past the page cache; gives where the first one lies that was not read.
    fn read_stretch<F: Files>(&mut self, files: &F, part: &Part, range: Range<u64>, stretch: &mut Stretch) -> u64 {
        let mut at = range.start;
        while at < range.end && self.wants_more(part) {
            let reach = self.usual_bytes(part).clamp(LONG_BYTES_MIN, STRETCH_BYTES_MAX).next_multiple_of(BLOCK_BYTES);
            let reach = (at + reach as u64).min(range.end);
            let Some(end) = self.read_kept(files, part, at..reach, stretch) else { return at };
            at = end;
        }
        range.end
    }

    /// Reads the frame at the start of this range; what of the range is not in memory yet is read with it. Not one of
    /// which little is wanted, perhaps nothing, unless it is there: but who goes on will want its rest.
    fn read_kept<F: Files>(&mut self, files: &F, part: &Part, range: Range<u64>, stretch: &mut Stretch) -> Option<u64> {
        let at = range.start;
        let block = stretch.bytes(files, part, at..at + BLOCK_BYTES as u64, range.end).ok()?;
        let head = FrameHead::decode(block, part.header.salt, part.header.number, at).ok()?;
        let end = head.end().offset;
        if end > part.header.frames_end() || head.length > FRAME_BYTES_MAX {
            return None;
        }
        let begins = !self.goes_on && self.taken.is_empty();
        if begins && head.length / LONG_FRAME_PARTS >= self.usual_bytes(part) && stretch.end() < end {
            return None;
        }
        let bytes = stretch.bytes(files, part, at..end, range.end).ok()?;
        self.read_frame(part, &FrameView::new(head, bytes, part.header.salt), |_| ()).ok()?;
        Some(end)
    }

    /// Reads frames of an ended segment by a memory map, which does not outlive this call; gives where the first one lies
    /// that was not read.
    fn read_mapped<F: Files>(&mut self, files: &F, part: &Part, range: Range<u64>) -> u64 {
        let mut at = range.start;
        let Ok(map) = files.map(part.file) else { return at };
        // Of another length it is another segment by now, or was cut: nothing of it is touched.
        if map.len() as u64 != part.header.bytes {
            return at;
        }
        let mut ahead = Ahead::new(range.end);
        let ask = |asked: Option<Range<u64>>| {
            if let Some(asked) = asked {
                files.expect(&map, asked.start as usize..asked.end as usize);
            }
        };
        while at < range.end && self.wants_more(part) {
            ask(ahead.reach(at, self.wanted_bytes()));
            match self.read_memory(part, &map[at as usize..], at, |likely| ask(ahead.expect(likely))) {
                Some(end) => at = end,
                None => return at,
            }
        }
        range.end
    }

    fn read_disk<F: Files>(
        &mut self,
        files: &F,
        part: &Part,
        range: Range<u64>,
        kept: &mut Window,
    ) -> Result<(), Error> {
        if range.is_empty() || !self.wants_more(part) {
            return Ok(());
        }
        let mut scan = Scan::for_reader(files, (part.file, part.header), range.end, std::mem::take(kept));
        let said = self.read_scanned(part, range, &mut scan);
        *kept = scan.into_window();
        said
    }

    fn read_scanned<F: Files>(&mut self, part: &Part, range: Range<u64>, scan: &mut Scan<'_, F>) -> Result<(), Error> {
        let mut at = range.start;
        while at < range.end && self.wants_more(part) {
            if let Some(end) = self.read_excerpt(part, at, scan) {
                at = end;
                continue;
            }
            match scan.frame_at(at) {
                Found::Frame(frame) => {
                    at = frame.head.end().offset;
                    self.read_frame(part, &frame, |_| ())?;
                }
                // The record may be whole: it is the device that refuses to give it.
                Found::Fault(HeadProblem::Unreadable(error)) => return Err(Error::Disk(error)),
                Found::Fault(problem) => return Err(self.damaged(part, at, (part.until, &problem.to_string()))),
            }
        }
        Ok(())
    }

    /// Reads of a large frame its head and its directories, and then the blocks in which the wanted records lie; gives its
    /// end, or nothing if it takes more than that. Zeros stand for what was not read, and are no record.
    fn read_excerpt<F: Files>(&mut self, part: &Part, offset: u64, scan: &mut Scan<'_, F>) -> Option<u64> {
        let head = scan.head_at(offset).ok()?;
        if head.length <= EXCERPT_BYTES_MIN {
            return None;
        }
        let start = (head.records_start() + RECORD_HEAD_BYTES).next_multiple_of(BLOCK_BYTES).min(head.length);
        let front = FrameView::without_records(head, scan.bytes(offset, start).ok()?, part.header.salt);
        let own = front.sections().ok()?.own;
        let likely = self.likely_place(&head, &own, &self.wanted(&own, part.until));
        if likely.is_empty() {
            return Some(head.end().offset);
        }
        let blocks = (likely.start - offset) as usize / BLOCK_BYTES * BLOCK_BYTES
            ..((likely.end - offset) as usize).next_multiple_of(BLOCK_BYTES).min(head.length);
        // Records of other sizes, or of several runs, are found from head to head.
        if own.len() > 1 || !front.has_equal_records() || blocks.len() > head.length / 2 {
            return None;
        }
        let mut bytes = Buffer::zeroed(head.length);
        bytes[..start].copy_from_slice(scan.bytes(offset, start).ok()?);
        scan.read(offset + blocks.start as u64, &mut bytes[blocks]).ok()?;
        self.read_frame(part, &FrameView::new(head, &bytes, part.header.salt), |_| ()).ok()?;
        Some(head.end().offset)
    }

    /// Reads the frame that `bytes` begin with; gives its end, or nothing if anything is wrong with it. Entries before
    /// what is wrong are taken. `expect` is told where records lie, most likely, before they are looked at.
    fn read_memory(&mut self, part: &Part, bytes: &[u8], offset: u64, expect: impl FnMut(Range<u64>)) -> Option<u64> {
        let head = bytes.get(..BLOCK_BYTES)?;
        let head = FrameHead::decode(head, part.header.salt, part.header.number, offset).ok()?;
        if bytes.len() < head.length || head.end().offset > part.header.frames_end() {
            return None;
        }
        self.read_frame(part, &FrameView::new(head, bytes, part.header.salt), expect).ok()?;
        Some(head.end().offset)
    }

    fn read_frame(
        &mut self,
        part: &Part,
        frame: &FrameView<'_>,
        mut expect: impl FnMut(Range<u64>),
    ) -> Result<(), Error> {
        let offset = frame.head.offset;
        let sections =
            frame.sections().map_err(|fault| self.damaged(part, offset, (part.until, &fault.to_string())))?;
        let wanted = self.wanted(&sections.own, part.until);
        if wanted.iter().all(Range::is_empty) {
            return Ok(());
        }
        expect(self.likely_place(&frame.head, &sections.own, &wanted));
        let from = self.next;
        // What is wrong with the first entry that cannot be read, and the index behind those like it.
        let mut fault: Option<(String, Index)> = None;
        frame.salvage_wanted(
            &sections.own,
            |run| wanted[run].clone(),
            |(.., id), record| {
                let goes_on = match &mut fault {
                    None => match self.take(id, record) {
                        Ok(()) => !self.is_done(),
                        Err(said) => fault.insert(said).1 == id.index.next(),
                    },
                    Some((_, end)) => {
                        let is_next = id.index == *end && record.is_err();
                        *end = if is_next { end.next() } else { *end };
                        is_next
                    }
                };
                if goes_on { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            },
        );
        if self.next > from {
            self.passed = Some(Passed { group: self.plan.group, header: part.header, offset, next: self.next });
        }
        fault.map_or(Ok(()), |(what, end)| Err(self.damaged(part, offset, (end, &what))))
    }

    /// Which indexes of each run of a frame are to be read: those of its live entries. Within a frame, too, a later record
    /// ends all older ones from its index on.
    fn wanted(&self, own: &[Run], until: Index) -> Vec<Range<Index>> {
        let mut live_end = until;
        let mut wanted: Vec<Range<Index>> = own
            .iter()
            .rev()
            .map(|run| {
                if run.group != self.plan.group || run.kind == RecordKind::Purge {
                    return run.first..run.first;
                }
                let (start, end) = (run.first.max(self.next), run.end().min(live_end));
                live_end = live_end.min(run.first);
                let is_wanted = run.kind == RecordKind::Entry && start < end;
                if is_wanted { start..end } else { run.first..run.first }
            })
            .collect();
        wanted.reverse();
        wanted
    }

    /// Where in the segment the wanted records of a frame lie if all of its records are of one size.
    fn likely_place(&self, head: &FrameHead, own: &[Run], wanted: &[Range<Index>]) -> Range<u64> {
        let record_bytes = head.records_bytes.div_ceil(head.records.max(1)) as u64;
        let mut records = 0;
        let mut ordinals = own.iter().zip(wanted).map(|(run, wanted)| {
            let start = records + (wanted.start.0 - run.first.0);
            records += u64::from(run.count);
            start..start + (wanted.end.0 - wanted.start.0)
        });
        let Some(first) = ordinals.find(|wanted| !wanted.is_empty()) else { return 0..0 };
        let end = ordinals.filter(|wanted| !wanted.is_empty()).last().map_or(first.end, |last| last.end);
        let records_start = head.offset + head.records_start() as u64;
        let start = records_start + first.start * record_bytes;
        // On disk a record is no longer than it counts, and the last one may go beyond the limit.
        let bytes_left = (self.bytes_left() as u64).saturating_add(record_bytes);
        start..(records_start + end * record_bytes).min(start.saturating_add(bytes_left))
    }

    /// What the rest of what is wanted takes on disk at least, once some was found: before, frames are passed by.
    fn wanted_bytes(&self) -> Option<u64> {
        let entries_left = self.plan.to.0.saturating_sub(self.next.0);
        let bytes = entries_left.saturating_mul(BLOCK_BYTES as u64).min(self.bytes_left() as u64);
        (!self.taken.is_empty()).then_some(bytes)
    }

    fn bytes_left(&self) -> usize {
        self.plan.bytes_max.saturating_sub(self.bytes)
    }

    /// Makes room for what is wanted of a part, if its records are of the usual size.
    fn reserve(&mut self, part: &Part) {
        let entries = part.until.0.saturating_sub(self.next.0).min(ENTRIES_RESERVED_MAX as u64) as usize;
        let entry_bytes =
            (part.record_bytes as usize).max(RECORD_HEAD_BYTES) - RECORD_HEAD_BYTES + ENTRY_OVERHEAD_BYTES;
        self.taken.reserve((self.bytes_left() / entry_bytes).saturating_add(1).min(entries));
    }

    /// Takes the next entry in; or says what is wrong, and the index behind what that concerns.
    fn take(&mut self, id: LogId, record: Salvaged<'_, '_>) -> Result<(), (String, Index)> {
        if id.index != self.next {
            return Err((format!("entry {id} where {} should be", self.next), id.index));
        }
        let damaged = |what: String| (what, id.index.next());
        let (head, bytes) = record.map_err(|fault| damaged(format!("the record of entry {id} is damaged: {fault}")))?;
        let bytes_left = self.bytes_left();
        let left =
            || (bytes_left / (bytes.len() + ENTRY_OVERHEAD_BYTES) + 1).min((self.plan.to.0 - id.index.0) as usize);
        // The record's checksum of its payload was verified just now.
        if head.payload_kind == codec::DATA_KIND {
            self.taken.push_copy(id, bytes, head.payload_checksum, left);
            self.bytes += bytes.len();
        } else {
            let payload =
                codec::decode_other_payload(head.payload_kind, bytes).map_err(|error| damaged(error.to_string()))?;
            self.bytes += payload.data_bytes();
            self.taken.push(Entry { id, payload });
        }
        self.bytes += ENTRY_OVERHEAD_BYTES;
        self.next = self.next.next();
        Ok(())
    }

    /// The entries from the next one up to `end` cannot be read.
    fn damaged(&self, part: &Part, offset: u64, (end, what): (Index, &str)) -> Error {
        Error::Damaged(Finding {
            severity: Severity::Corrupt,
            file: segment_name(&self.plan.directory, part.header.number),
            bytes: offset..part.end,
            what: what.to_owned(),
            // A plan knows durable frames only.
            acknowledged: Some(Acknowledged::Yes),
            entries: vec![LogIds::unnamed(self.plan.group, self.next..end.max(self.next.next()))],
        })
    }
}
