//! Reads entries from durable frames. A plan is made on the core and run anywhere: it holds all it needs.

use bytes::Bytes;

use super::body::FrameView;
use super::error::{Error, Finding, Severity};
use super::frame::is_zero;
use super::locator::Part;
use super::record::RecordKind;
use super::scan::{Found, HeadProblem, Scan};
use super::segment::{SegmentHeader, segment_name};
use crate::codec;
use crate::disk::Files;
use crate::limits::{BLOCK_BYTES, ENTRY_OVERHEAD_BYTES};
use crate::types::{Data, Entry, GroupId, Index};

/// Where to look for some entries. It goes stale when segments are retired: then [`ReadPlan::run`] says that the
/// entries are not there, and a new plan tells why.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReadPlan {
    pub(super) directory: String,
    pub(super) group: GroupId,
    pub(super) from: Index,
    pub(super) to: Index,
    pub(super) bytes_max: usize,
    pub(super) parts: Vec<Part>,
}

impl ReadPlan {
    /// The entries from the first wanted one on, without gaps: all of them, or as many as `bytes_max` allows and at
    /// least one. Payloads are copied out and their checksums verified. Empty if nothing wanted is durable.
    pub fn run<F: Files>(&self, files: &F) -> Result<Vec<Entry>, Error> {
        let mut reading = Reading { plan: self, entries: Vec::new(), bytes: 0, next: self.from };
        for part in &self.parts {
            if reading.is_done() {
                break;
            }
            match reading.read_part(files, part) {
                Err(Error::Damaged(_) | Error::Disk(_)) if Reading::is_stale(files, part) => break,
                other => other?,
            }
        }
        Ok(reading.entries)
    }
}

struct Reading<'p> {
    plan: &'p ReadPlan,
    entries: Vec<Entry>,
    bytes: usize,
    next: Index,
}

impl Reading<'_> {
    fn is_done(&self) -> bool {
        self.next >= self.plan.to || (!self.entries.is_empty() && self.bytes >= self.plan.bytes_max)
    }

    fn read_part<F: Files>(&mut self, files: &F, part: &Part) -> Result<(), Error> {
        let mut scan = Scan::new(files, part.file, part.header);
        let mut at = part.start;
        while at < part.end && self.next < part.until && !self.is_done() {
            match scan.frame_at(at) {
                Found::Frame(frame) => {
                    at = frame.head.end().offset;
                    self.read_frame(part, &frame)?;
                }
                // The record may be whole: it is the device that refuses to give it.
                Found::Fault(HeadProblem::Unreadable(error)) => return Err(Error::Disk(error)),
                Found::Fault(problem) => return Err(self.damaged(part, at, &problem.to_string())),
            }
        }
        Ok(())
    }

    /// Whether the file has become another segment since the plan was made. It is zeroed from its header on, so
    /// whoever meets zeros where frames were finds another header, or zeros there too.
    fn is_stale<F: Files>(files: &F, part: &Part) -> bool {
        let mut block = [0; BLOCK_BYTES];
        let is_other = |block: &[u8; BLOCK_BYTES]| match SegmentHeader::decode(block) {
            Ok(header) => header != part.header,
            Err(_) => is_zero(block),
        };
        files.read(part.file, 0, &mut block).is_ok() && is_other(&block)
    }

    fn read_frame(&mut self, part: &Part, frame: &FrameView<'_>) -> Result<(), Error> {
        let offset = frame.head.offset;
        let sections = frame.sections().map_err(|fault| self.damaged(part, offset, &fault.to_string()))?;
        let concerns = |run: &super::frame::Run| run.group == self.plan.group && run.kind == RecordKind::Entry;
        if !sections.own.iter().any(|run| concerns(run) && run.end() > self.next && run.first < part.until) {
            return Ok(());
        }
        // Within one frame a later record ends older ones from its index on, so the last of a name counts.
        let mut live: Vec<Entry> = Vec::new();
        let plan = self.plan;
        let wanted = |index: Index| index >= self.next && index < part.until;
        let mut fault = None;
        frame
            .records(|head, payload| {
                if head.group != plan.group || head.kind == RecordKind::Purge {
                    return;
                }
                while live.last().is_some_and(|last| last.id.index >= head.id.index) {
                    live.pop();
                }
                if head.kind == RecordKind::Entry && wanted(head.id.index) {
                    let data = Data { bytes: Bytes::copy_from_slice(payload), checksum: head.payload_checksum };
                    match codec::decode_payload(head.payload_kind, data) {
                        Ok(payload) => live.push(Entry { id: head.id, payload }),
                        Err(error) => fault = Some(error.to_string()),
                    }
                }
            })
            .map_err(|fault| self.damaged(part, offset, &fault.to_string()))?;
        if let Some(fault) = fault {
            return Err(self.damaged(part, offset, &fault));
        }
        self.take(part, offset, live)
    }

    fn take(&mut self, part: &Part, offset: u64, live: Vec<Entry>) -> Result<(), Error> {
        for entry in live {
            if self.is_done() {
                return Ok(());
            }
            if entry.id.index != self.next {
                return Err(self.damaged(part, offset, &format!("entry {} where {} should be", entry.id, self.next)));
            }
            self.bytes += entry.payload.data_bytes() + ENTRY_OVERHEAD_BYTES;
            self.next = self.next.next();
            self.entries.push(entry);
        }
        Ok(())
    }

    fn damaged(&self, part: &Part, offset: u64, what: &str) -> Error {
        Error::Damaged(Finding {
            severity: Severity::Corrupt,
            file: segment_name(&self.plan.directory, part.header.number),
            bytes: offset..part.end,
            what: what.to_owned(),
            entries: vec![(self.plan.group, self.next..self.plan.to)],
        })
    }
}
