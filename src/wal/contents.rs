//! Everything that stands in a log's files, in the order in which it was written: for people who look.
//!
//! What was cut back or purged since is still there and is shown. Bounded memory: a window of one segment at a time.

use std::ops::ControlFlow;

use super::analysis::{Analysis, ChainSegment};
use super::body::FrameView;
use super::error::{Finding, Severity};
use super::frame::Run;
use super::record::{RecordFault, RecordHead, RecordKind};
use super::scan::{Found, Scan};
use super::segment::{FRAMES_START, segment_name};
use crate::disk::Files;
use crate::limits::BLOCK_BYTES;
use crate::types::{GroupId, LogId, SegmentNumber};

/// One thing in the files.
#[derive(Debug)]
pub enum Piece<'p> {
    /// A record, the offset of its frame, and its payload.
    Record { segment: SegmentNumber, offset: u64, head: &'p RecordHead, payload: &'p [u8] },
    /// A record that its frame's directory names, and that cannot be read.
    Damaged { segment: SegmentNumber, offset: u64, group: GroupId, kind: RecordKind, id: LogId, fault: RecordFault },
    /// What was found wrong from here on. Records behind it that can be read follow.
    Finding(&'p Finding),
    /// The file was taken into other use while it was read: the rest of the segment is not shown.
    Changed { segment: SegmentNumber, offset: u64 },
}

/// Calls `each` with everything that stands in the log that was read as `analysis`, of one segment or of all, until it
/// says that it is enough. `findings` are those of the analysis and of others who looked.
pub fn contents<F: Files>(
    files: &F,
    (analysis, findings): (&Analysis, &[Finding]),
    (directory, only): (&str, Option<SegmentNumber>),
    each: &mut impl FnMut(Piece<'_>) -> ControlFlow<()>,
) -> ControlFlow<()> {
    let name = |segment: &ChainSegment| segment_name(directory, segment.header.number);
    let names: Vec<String> = analysis.chain.iter().map(name).collect();
    let is_elsewhere = |finding: &&Finding| !names.contains(&finding.file);
    findings.iter().filter(is_elsewhere).try_for_each(|finding| each(Piece::Finding(finding)))?;
    for (segment, name) in analysis.chain.iter().zip(&names) {
        if only.is_some_and(|only| only != segment.header.number) {
            continue;
        }
        let mut own: Vec<&Finding> = findings.iter().filter(|finding| finding.file == *name).collect();
        own.sort_by_key(|finding| finding.bytes.start);
        read_segment(files, segment, &own, each)?;
    }
    ControlFlow::Continue(())
}

fn read_segment<F: Files>(
    files: &F,
    segment: &ChainSegment,
    findings: &[&Finding],
    each: &mut impl FnMut(Piece<'_>) -> ControlFlow<()>,
) -> ControlFlow<()> {
    let number = segment.header.number;
    let mut scan = Scan::new(files, segment.file, segment.header);
    let mut findings = findings.iter().peekable();
    let is_within = |finding: &&&Finding| finding.severity != Severity::Torn && finding.bytes.start >= FRAMES_START;
    let damaged_end = findings.clone().filter(is_within).map(|finding| finding.bytes.end).max();
    let end = segment.end.max(damaged_end.unwrap_or_default()).min(segment.header.frames_end());
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
