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
    /// No frame can be read here, in a segment that does not join the log, or of which findings are counted alone.
    Unread { segment: SegmentNumber, bytes: Range<u64>, problem: HeadProblem },
    /// The frame here is whole by its head, and its directory cannot be read, where findings are counted alone. Its records
    /// up to the first damaged one follow, if that is not the first.
    Undirected { segment: SegmentNumber, offset: u64 },
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
    for segment in standing(analysis, findings) {
        let (own, rest) = elsewhere.into_iter().partition(|own| own.segment() == Some(segment.header.number));
        elsewhere = rest;
        let before = elsewhere.partition_point(|finding| finding.segment() < Some(segment.header.number));
        elsewhere.drain(..before).try_for_each(|finding| each(Piece::Finding(finding)))?;
        if only.is_some_and(|only| only != segment.header.number) {
            continue;
        }
        read(files, &segment, &own, each)?;
    }
    elsewhere.into_iter().try_for_each(|finding| each(Piece::Finding(finding)))
}

/// A segment that records stand in.
struct Standing {
    header: SegmentHeader,
    file: FileId,
    is_joined: bool,
    /// Nothing from here on is part of the log, or may be.
    end: u64,
    /// Wherever no frame can be read there is a finding.
    is_told: bool,
}

/// In order of number: those of the chain, and those that do not join it.
fn standing(analysis: &Analysis, findings: &[Finding]) -> Vec<Standing> {
    let ends = analysis.chain.iter().skip(1).map(|next| Some(next.open.predecessor_end.offset)).chain([None]);
    let of_chain = analysis.chain.iter().zip(ends).map(|(own, end)| joined(analysis, findings, own, end));
    let unjoined = analysis.unjoined.iter().map(|&(header, file)| {
        let end = header.frames_end();
        Standing { header, file, is_joined: false, end, is_told: false }
    });
    let mut all: Vec<Standing> = of_chain.chain(unjoined).collect();
    all.sort_by_key(|segment| segment.header.number);
    all
}

/// A segment of the chain, and where the next one says that it ends.
fn joined(analysis: &Analysis, findings: &[Finding], own: &ChainSegment, named_end: Option<u64>) -> Standing {
    let (header, file) = (own.header, own.file);
    let is_told = !analysis.surplus.has(Some(header.number));
    let is_within = |finding: &&Finding| finding.severity != Severity::Torn && finding.bytes.start >= FRAMES_START;
    let of_own = findings.iter().filter(|finding| finding.segment() == Some(header.number)).filter(is_within);
    let found_end = || of_own.map(|finding| finding.bytes.end).max().unwrap_or_default().max(own.end);
    let end = match (named_end, is_told) {
        (Some(end), _) => end,
        (None, true) => found_end(),
        // Where the frames end that are damaged and counted alone is not known.
        (None, false) => analysis.torn.as_ref().map_or(u64::MAX, |torn| torn.start),
    };
    Standing { header, file, is_joined: true, end: end.min(header.frames_end()), is_told }
}

/// Every frame that can be read, and in its place what is known of those that cannot.
fn read<F: Files>(
    files: &F,
    segment: &Standing,
    findings: &[&Finding],
    each: &mut impl FnMut(Piece<'_>) -> ControlFlow<()>,
) -> ControlFlow<()> {
    let number = segment.header.number;
    let mut findings = findings.iter().peekable();
    if !segment.is_joined {
        findings.by_ref().try_for_each(|finding| each(Piece::Finding(finding)))?;
        each(Piece::Unjoined { segment: number })?;
    }
    let mut scan = Scan::new(files, segment.file, segment.header);
    let mut at = FRAMES_START;
    while at < segment.end {
        let mut behind = None;
        while let Some(finding) = findings.next_if(|finding| finding.bytes.start <= at) {
            each(Piece::Finding(finding))?;
            let is_here = finding.bytes.start == at && finding.severity >= Severity::Unclear;
            behind = behind.max(is_here.then_some(finding.bytes.end));
        }
        let problem = match scan.frame_at(at) {
            Found::Frame(frame) => {
                if !segment.is_told && frame.sections().is_err() {
                    each(Piece::Undirected { segment: number, offset: at })?;
                }
                show(&frame, (number, at), each)?;
                at = behind.unwrap_or_default().max(frame.head.end().offset);
                continue;
            }
            Found::Fault(problem) => problem,
        };
        if let Some(behind) = behind {
            at = behind.max(at + BLOCK_BYTES as u64);
            continue;
        }
        if segment.is_told {
            return each(Piece::Changed { segment: number, offset: at });
        }
        let next = scan.next_head(at + BLOCK_BYTES as u64, FrameNumber(0)).map(|head| head.offset);
        let next = next.unwrap_or(segment.end).min(segment.end);
        // Behind the last frame of all there may be nothing.
        if next < segment.header.frames_end() || scan.next_nonzero(at).is_some() {
            each(Piece::Unread { segment: number, bytes: at..next, problem })?;
        }
        at = next;
    }
    findings.try_for_each(|finding| each(Piece::Finding(finding)))
}

/// Every record that the frame's directory names; where that cannot be read, every one up to the first damaged.
fn show(
    frame: &FrameView<'_>,
    (segment, offset): (SegmentNumber, u64),
    each: &mut impl FnMut(Piece<'_>) -> ControlFlow<()>,
) -> ControlFlow<()> {
    let mut flow = ControlFlow::Continue(());
    let Ok(sections) = frame.sections() else {
        // What is wrong with the frame was shown before.
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
