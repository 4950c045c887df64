//! Everything that stands in a log's files, in the order in which it was written: for people who look.
//!
//! What was cut back or purged since is still there and is shown. Bounded memory: a window of one segment at a time.

use std::ops::{ControlFlow, Range};

use super::analysis::{Analysis, ChainSegment};
use super::body::FrameView;
use super::error::{Finding, Severity};
use super::frame::Run;
use super::record::{RecordFault, RecordHead, RecordKind};
use super::scan::{Found, HeadProblem, Scan};
use super::segment::{FRAMES_START, SegmentHeader};
use crate::disk::{FileId, Files};
use crate::limits::BLOCK_BYTES;
use crate::types::{FrameNumber, GroupId, LogId, SegmentNumber};

/// One thing in the files.
#[derive(Debug)]
pub enum Piece<'p> {
    /// A record, the offset of its frame, and its payload.
    Record { segment: SegmentNumber, offset: u64, head: &'p RecordHead, payload: &'p [u8] },
    /// A record that its frame's directory names, and that cannot be read.
    Damaged { segment: SegmentNumber, offset: u64, group: GroupId, kind: RecordKind, id: LogId, fault: RecordFault },
    /// What was found wrong from here on. Records behind it that can be read follow.
    Finding(&'p Finding),
    /// Segment `segment` does not join the log. What can be read in it follows: whether it was cut back, or is in the log
    /// still, is not known.
    Unjoined { segment: SegmentNumber },
    /// No frame can be read here, in a segment that does not join the log.
    Unread { segment: SegmentNumber, bytes: Range<u64>, problem: HeadProblem },
    /// The file was taken into other use while it was read: the rest of the segment is not shown.
    Changed { segment: SegmentNumber, offset: u64 },
}

/// Calls `each` with everything that stands in the log that was read as `analysis`, of one segment or of all, until it
/// says that it is enough. `findings` are those of the analysis and of others who looked.
pub fn contents<F: Files>(
    files: &F,
    (analysis, findings): (&Analysis, &[Finding]),
    only: Option<SegmentNumber>,
    each: &mut impl FnMut(Piece<'_>) -> ControlFlow<()>,
) -> ControlFlow<()> {
    let mut elsewhere: Vec<&Finding> = findings.iter().collect();
    elsewhere.sort_by_key(|finding| (finding.segment(), finding.bytes.start));
    for segment in standing(analysis) {
        let (own, rest) = elsewhere.into_iter().partition(|own| own.segment() == Some(segment.header.number));
        elsewhere = rest;
        let before = elsewhere.partition_point(|finding| finding.segment() < Some(segment.header.number));
        elsewhere.drain(..before).try_for_each(|finding| each(Piece::Finding(finding)))?;
        if only.is_some_and(|only| only != segment.header.number) {
            continue;
        }
        match segment.end {
            Some(end) => read_joined(files, &segment, (&own, end), each)?,
            None => read_unjoined(files, &segment, &own, each)?,
        }
    }
    elsewhere.into_iter().try_for_each(|finding| each(Piece::Finding(finding)))
}

/// A segment that records stand in.
struct Standing {
    header: SegmentHeader,
    file: FileId,
    /// Its room up to here is in use; `None` if it does not join the log.
    end: Option<u64>,
}

/// In order of number: those of the chain, and those that do not join it.
fn standing(analysis: &Analysis) -> Vec<Standing> {
    let of_chain = |own: &ChainSegment| Standing { header: own.header, file: own.file, end: Some(own.end) };
    let unjoined = analysis.unjoined.iter().map(|&(header, file)| Standing { header, file, end: None });
    let mut all: Vec<Standing> = analysis.chain.iter().map(of_chain).chain(unjoined).collect();
    all.sort_by_key(|segment| segment.header.number);
    all
}

fn read_joined<F: Files>(
    files: &F,
    segment: &Standing,
    (findings, end): (&[&Finding], u64),
    each: &mut impl FnMut(Piece<'_>) -> ControlFlow<()>,
) -> ControlFlow<()> {
    let number = segment.header.number;
    let mut scan = Scan::new(files, segment.file, segment.header);
    let mut findings = findings.iter().peekable();
    let is_within = |finding: &&&Finding| finding.severity != Severity::Torn && finding.bytes.start >= FRAMES_START;
    let damaged_end = findings.clone().filter(is_within).map(|finding| finding.bytes.end).max();
    let end = end.max(damaged_end.unwrap_or_default()).min(segment.header.frames_end());
    let mut at = FRAMES_START;
    while at < end {
        let mut behind = None;
        while let Some(finding) = findings.next_if(|finding| finding.bytes.start <= at) {
            each(Piece::Finding(finding))?;
            let is_here = finding.bytes.start == at && finding.severity >= Severity::Unclear;
            behind = behind.max(is_here.then_some(finding.bytes.end));
        }
        let read = match scan.frame_at(at) {
            Found::Frame(frame) => {
                show(&frame, (number, at), each)?;
                Some(frame.head.end().offset)
            }
            Found::Fault(_) => None,
        };
        at = match read.max(behind) {
            Some(next) => next.max(at + BLOCK_BYTES as u64),
            None => return each(Piece::Changed { segment: number, offset: at }),
        };
    }
    findings.try_for_each(|finding| each(Piece::Finding(finding)))
}

/// Every frame that can be read, wherever the segment ends.
fn read_unjoined<F: Files>(
    files: &F,
    segment: &Standing,
    findings: &[&Finding],
    each: &mut impl FnMut(Piece<'_>) -> ControlFlow<()>,
) -> ControlFlow<()> {
    let number = segment.header.number;
    findings.iter().try_for_each(|finding| each(Piece::Finding(finding)))?;
    each(Piece::Unjoined { segment: number })?;
    let mut scan = Scan::new(files, segment.file, segment.header);
    let mut at = FRAMES_START;
    while at < segment.header.frames_end() {
        let problem = match scan.frame_at(at) {
            Found::Frame(frame) => {
                show(&frame, (number, at), each)?;
                at = frame.head.end().offset;
                continue;
            }
            Found::Fault(problem) => problem,
        };
        let next = scan.next_head(at + BLOCK_BYTES as u64, FrameNumber(0)).map(|head| head.offset);
        if next.is_some() || scan.next_nonzero(at).is_some() {
            let end = next.unwrap_or(segment.header.frames_end());
            each(Piece::Unread { segment: number, bytes: at..end, problem })?;
        }
        let Some(next) = next else { break };
        at = next;
    }
    ControlFlow::Continue(())
}

/// Every record that the frame's directory names; where that cannot be read, every one up to the first damaged.
fn show(
    frame: &FrameView<'_>,
    (segment, offset): (SegmentNumber, u64),
    each: &mut impl FnMut(Piece<'_>) -> ControlFlow<()>,
) -> ControlFlow<()> {
    let mut flow = ControlFlow::Continue(());
    let Ok(sections) = frame.sections() else {
        // What is wrong with the frame is a finding, and was shown.
        let _damaged = frame.records(|head, payload| {
            if flow.is_continue() {
                flow = each(Piece::Record { segment, offset, head, payload });
            }
        });
        return flow;
    };
    let own: &[Run] = &sections.own;
    frame.salvage(own, |(group, kind, id), found| {
        if flow.is_break() {
            return;
        }
        flow = match found {
            Ok((head, payload)) => each(Piece::Record { segment, offset, head, payload }),
            Err(fault) => each(Piece::Damaged { segment, offset, group, kind, id, fault }),
        };
    });
    flow
}
