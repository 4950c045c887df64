//! Reads entries from durable frames. A plan is made on the core and run anywhere: it holds all it needs.
//!
//! Three ways to the bytes of a frame, tried in this order: the tail cache has the newest; ended segments are mapped; for
//! the rest, and wherever memory shows something that makes no sense (a page of the cache that is older than the disk, a
//! segment that became another one), there is a read past the page cache. The checks are the same on all three.

use std::io;
use std::ops::Range;

use bytes::Bytes;

use super::body::FrameView;
use super::error::{Error, Finding, LogIds, Severity};
use super::frame::{FrameHead, Run, is_zero};
use super::locator::Part;
use super::plan::{PlannedPart, ReadPlan};
use super::record::{RecordFault, RecordHead, RecordKind};
use super::recovery::Acknowledged;
use super::scan::{Found, HeadProblem, Scan};
use super::segment::{SegmentHeader, segment_name};
use super::window::Window;
use crate::codec;
use crate::disk::Files;
use crate::limits::{BLOCK_BYTES, ENTRY_OVERHEAD_BYTES};
use crate::types::{Data, Entry, Index, LogId};

/// Memory to read into, kept from one read to the next.
#[derive(Debug, Default)]
pub struct ReadBuffer(Window);

/// A reader's memory is his own: a clone begins without.
impl Clone for ReadBuffer {
    fn clone(&self) -> ReadBuffer {
        ReadBuffer::default()
    }
}

impl ReadPlan {
    /// The entries from the first wanted one on, without gaps: all of them, or as many as `bytes_max` allows and at
    /// least one, or as many as this plan reaches ([`ReadPlan::is_cut`]), or those before the first that cannot be read.
    /// Payloads are copied out and their checksums verified. Empty only if nothing wanted is durable.
    ///
    /// # Errors
    /// [`Error::Trimmed`] if the first wanted entry was purged when this was planned; [`Error::Stale`] if its segment
    /// was given up since: plan again. [`Error::Damaged`] or [`Error::Disk`] if the **first** wanted entry cannot be
    /// read: those behind it can be asked for.
    pub fn run<F: Files>(&self, files: &F) -> Result<Vec<Entry>, Error> {
        self.run_with(files, &mut ReadBuffer::default())
    }

    /// As [`ReadPlan::run`], with memory that a reader of many plans keeps.
    pub fn run_with<F: Files>(&self, files: &F, buffer: &mut ReadBuffer) -> Result<Vec<Entry>, Error> {
        let (group, wanted) = (self.group, self.from);
        if let Some(first) = self.trimmed {
            return Err(Error::Trimmed { group, first, wanted });
        }
        let mut reading = Reading { plan: self, entries: Vec::new(), bytes: 0, next: self.from };
        for planned in &self.parts {
            if reading.is_done() {
                break;
            }
            match reading.read_part(files, planned, buffer) {
                Ok(()) => {}
                Err(error) if is_stale(files, &planned.part, &error) => return Err(Error::Stale { group, wanted }),
                Err(Error::Damaged(_) | Error::Disk(_)) if !reading.entries.is_empty() => break,
                Err(error) => return Err(error),
            }
        }
        match self.parts.last() {
            // The plan said that it is there, and no frame names it.
            Some(PlannedPart { part, .. }) if reading.entries.is_empty() && self.from < self.to => {
                let error = reading.damaged(part, part.start, (self.from.next(), "the entry is in none of its frames"));
                match self.parts.iter().any(|planned| is_stale(files, &planned.part, &error)) {
                    true => Err(Error::Stale { group, wanted }),
                    false => Err(error),
                }
            }
            _ => Ok(reading.entries),
        }
    }
}

/// Whether the file was closed or has become another segment since the plan was made. It is zeroed from its header on, so
/// whoever meets zeros where frames were finds another header, or zeros there too.
fn is_stale<F: Files>(files: &F, part: &Part, error: &Error) -> bool {
    if matches!(error, Error::Disk(error) if error.kind() == io::ErrorKind::NotFound) {
        return true;
    }
    let mut block = [0; BLOCK_BYTES];
    match files.read(part.file, 0, &mut block) {
        Ok(()) => match SegmentHeader::decode(&block) {
            Ok(header) => header != part.header,
            Err(_) => is_zero(&block),
        },
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

struct Reading<'p> {
    plan: &'p ReadPlan,
    entries: Vec<Entry>,
    bytes: usize,
    next: Index,
}

/// An entry that a frame's directory names, if its record is intact.
type Named = (LogId, Result<Entry, String>);

impl Reading<'_> {
    fn is_done(&self) -> bool {
        self.next >= self.plan.to || (!self.entries.is_empty() && self.bytes >= self.plan.bytes_max)
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
        let mut at = part.start;
        if at < *disk_end && part.is_ended {
            at = self.read_mapped(files, part, at..*disk_end);
        }
        self.read_disk(files, part, at..*disk_end, buffer)?;
        for frame in cached.iter().filter(|frame| frame.offset >= part.start) {
            if !self.wants_more(part) {
                break;
            }
            if self.read_memory(part, &frame.bytes, frame.offset).is_none() {
                let end = frame.offset + frame.bytes.len() as u64;
                self.read_disk(files, part, frame.offset..end, buffer)?;
            }
        }
        Ok(())
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
        while at < range.end && self.wants_more(part) {
            match self.read_memory(part, &map[at as usize..], at) {
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
        ReadBuffer(kept): &mut ReadBuffer,
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
            match scan.frame_at(at) {
                Found::Frame(frame) => {
                    at = frame.head.end().offset;
                    self.read_frame(part, &frame)?;
                }
                // The record may be whole: it is the device that refuses to give it.
                Found::Fault(HeadProblem::Unreadable(error)) => return Err(Error::Disk(error)),
                Found::Fault(problem) => return Err(self.damaged(part, at, (self.plan.to, &problem.to_string()))),
            }
        }
        Ok(())
    }

    /// Reads the frame that `bytes` begin with; gives its end, or nothing if anything is wrong with it. Entries before
    /// what is wrong are taken.
    fn read_memory(&mut self, part: &Part, bytes: &[u8], offset: u64) -> Option<u64> {
        let head = bytes.get(..BLOCK_BYTES)?;
        let head = FrameHead::decode(head, part.header.salt, part.header.number, offset).ok()?;
        if bytes.len() < head.length || head.end().offset > part.header.frames_end() {
            return None;
        }
        self.read_frame(part, &FrameView::new(head, bytes, part.header.salt)).ok()?;
        Some(head.end().offset)
    }

    fn read_frame(&mut self, part: &Part, frame: &FrameView<'_>) -> Result<(), Error> {
        let offset = frame.head.offset;
        let sections =
            frame.sections().map_err(|fault| self.damaged(part, offset, (self.plan.to, &fault.to_string())))?;
        let concerns = |run: &Run| run.group == self.plan.group && run.kind == RecordKind::Entry;
        if !sections.own.iter().any(|run| concerns(run) && run.end() > self.next && run.first < part.until) {
            return Ok(());
        }
        // Within one frame a later record ends older ones from its index on, so the last of a name counts.
        let mut live: Vec<Named> = Vec::new();
        frame.salvage(&sections.own, |(group, kind, id), record| {
            if group != self.plan.group || kind == RecordKind::Purge {
                return;
            }
            while live.last().is_some_and(|(last, _)| last.index >= id.index) {
                live.pop();
            }
            if kind == RecordKind::Entry && id.index >= self.next && id.index < part.until {
                live.push((id, entry(id, record)));
            }
        });
        self.take(part, offset, live)
    }

    fn take(&mut self, part: &Part, offset: u64, live: Vec<Named>) -> Result<(), Error> {
        let damage_end = |at: usize| {
            let damaged = live[at..].iter().take_while(|(_, entry)| entry.is_err());
            damaged.last().map_or(self.next, |(id, _)| id.index.next())
        };
        let first_damaged = live.iter().position(|(_, entry)| entry.is_err());
        let damage_end = first_damaged.map_or(self.next, damage_end);
        for (id, entry) in live {
            if self.is_done() {
                return Ok(());
            }
            if id.index != self.next {
                let what = format!("entry {id} where {} should be", self.next);
                return Err(self.damaged(part, offset, (id.index, &what)));
            }
            let entry = entry.map_err(|what| self.damaged(part, offset, (damage_end, &what)))?;
            self.bytes += entry.payload.data_bytes() + ENTRY_OVERHEAD_BYTES;
            self.next = self.next.next();
            self.entries.push(entry);
        }
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

fn entry(id: LogId, record: Result<(&RecordHead, &[u8]), RecordFault>) -> Result<Entry, String> {
    let (head, payload) = record.map_err(|fault| format!("the record of entry {id} is damaged: {fault}"))?;
    let data = Data { bytes: Bytes::copy_from_slice(payload), checksum: head.payload_checksum };
    let payload = codec::decode_payload(head.payload_kind, data).map_err(|error| error.to_string())?;
    Ok(Entry { id, payload })
}
