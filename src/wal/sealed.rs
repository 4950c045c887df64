//! Takes in an older segment by its seal: what its frames do to the log, without reading them.
//!
//! ```text
//!   segment  │ open │ data │ data │ data, a configuration │ data │ seal │      the next one's open frame
//!                                     ▲                          ▲                        │
//!                                     │ read, as it is listed    │ found backwards from ──┤ the end that it names
//!                                     └──────────────────────────┘                        └ where each group must stand then
//! ```
//!
//! A seal is believed if it is the very frame that the next segment names as the last one, intact, and if what it says
//! leads each group from where it stood to where the next open frame says that it stood. With anything else, a segment
//! that ended without a seal included, nothing is taken from it: the segment is read whole and judged as ever.
//!
//! What is taken is what a walk over the frames would have taken: the runs go through the same code, in the same order.
//! That the frames are intact, and hold what the seal says, is not known by that. Who reads an entry checks it then;
//! scrubbing, verifying, and a start that reads everything check it all.

use std::collections::BTreeMap;

use super::analysis::Analysis;
use super::frame::{FrameHead, FrameKind, SEAL_FRAME_BYTES_MAX};
use super::group::GroupLog;
use super::outline::{Outline, OutlineRun};
use super::record::{RECORD_HEAD_BYTES, RecordKind};
use super::scan::{Found, Scan};
use super::sections::{OpenSection, SealSection};
use super::segment::FRAMES_START;
use super::walk::{self, Contents};
use crate::disk::Files;
use crate::limits::BLOCK_BYTES;
use crate::types::{FrameNumber, GroupId, Index, Place};

const BLOCK: u64 = BLOCK_BYTES as u64;

/// What a seal and the few frames that it lists tell of a segment.
struct Sealed {
    head: FrameHead,
    seal: SealSection,
    outline: Outline,
    /// What is in the frames with configurations, in order.
    memberships: Vec<(FrameNumber, Contents)>,
}

/// Where the groups stand.
struct Names {
    groups: BTreeMap<GroupId, GroupLog>,
    unread: BTreeMap<GroupId, Index>,
}

/// Takes the segment in, whose first frame has the number `first` and whose end `next`, the open frame behind it, names;
/// tells whether it could. If not, nothing has happened.
pub(super) fn take<F: Files>(
    scan: &mut Scan<'_, F>,
    (first, next): (FrameNumber, &OpenSection),
    analysis: &mut Analysis,
) -> bool {
    let Some(sealed) = Sealed::read(scan, first, next.predecessor_end) else { return false };
    let names = Names { groups: analysis.groups.clone(), unread: analysis.unread.clone() };
    let Some(names) = names.behind(&sealed.outline, next) else { return false };
    (analysis.groups, analysis.unread) = (names.groups, names.unread);
    sealed.finish(analysis, first);
    true
}

impl Sealed {
    fn read<F: Files>(scan: &mut Scan<'_, F>, first: FrameNumber, end: Place) -> Option<Sealed> {
        let (head, mut seal) = seal_frame(scan, end)?;
        let outline = seal.outline.take()?;
        let sealed = Sealed { head, seal, outline, memberships: Vec::new() };
        if sealed.is_consistent(first) { sealed.with_memberships(scan) } else { None }
    }

    /// Whether every frame that it speaks of can lie before it, in this order. Whoever goes by it counts on that.
    fn is_consistent(&self, first: FrameNumber) -> bool {
        let can_be = |frames: &[(u64, FrameNumber)]| {
            let is_within = |&(offset, frame): &(u64, FrameNumber)| {
                let is_in_reach = FRAMES_START < offset && offset < self.head.offset;
                offset.is_multiple_of(BLOCK) && is_in_reach && first < frame && frame < self.head.number
            };
            let rises =
                |pair: &[(u64, FrameNumber)]| pair[0] == pair[1] || (pair[0].0 < pair[1].0 && pair[0].1 < pair[1].1);
            frames.iter().all(is_within) && frames.windows(2).all(rises)
        };
        let runs: Vec<_> = self.outline.runs.iter().map(|run| (run.offset, run.frame)).collect();
        let sparse: Vec<_> = self.seal.sparse.iter().map(|entry| (entry.offset, entry.frame)).collect();
        let memberships = &self.outline.memberships;
        let is_block =
            |offset: &u64| offset.is_multiple_of(BLOCK) && FRAMES_START < *offset && *offset < self.head.offset;
        let are_places = memberships.iter().all(is_block) && memberships.is_sorted_by(|before, next| before < next);
        first < self.head.number && can_be(&runs) && can_be(&sparse) && are_places && self.can_hold_records()
    }

    /// Whether so many records of so many bytes can lie before it. Readers reckon with these numbers.
    fn can_hold_records(&self) -> bool {
        let SealSection { records, records_bytes, .. } = self.seal;
        records_bytes <= self.head.offset - FRAMES_START && records <= records_bytes / RECORD_HEAD_BYTES as u64
    }

    fn with_memberships<F: Files>(mut self, scan: &mut Scan<'_, F>) -> Option<Sealed> {
        for &offset in &self.outline.memberships {
            let Found::Frame(frame) = scan.frame_at(offset) else { return None };
            self.memberships.push((frame.head.number, walk::contents(&frame).ok()?));
        }
        Some(self)
    }

    /// What a walk does with each frame, for all of them; the names are in their place already.
    fn finish(self, analysis: &mut Analysis, first: FrameNumber) {
        let Sealed { head, seal, outline, memberships } = self;
        take_memberships(analysis, &outline, memberships);
        let segment = analysis.chain.last_mut().expect("the segment was pushed before it is taken in");
        segment.end = head.end().offset;
        segment.frames = head.number.0 - first.0 + 1;
        segment.records = seal.records;
        segment.record_bytes = seal.records_bytes;
        segment.is_sealed = true;
        outline.runs.iter().for_each(|outlined| analysis.end_suspects(&outlined.run));
        analysis.locator.note_sealed(&head, seal, &outline.runs);
        analysis.end = head.end();
        analysis.last_runs.clear();
        analysis.proven = analysis.proven.max(head.durable);
    }
}

impl Names {
    /// Where they stand behind the runs; nothing if a run does not join, or if they do not end where `next` says.
    fn behind(mut self, outline: &Outline, next: &OpenSection) -> Option<Names> {
        for OutlineRun { run, .. } in &outline.runs {
            let unread = self.unread.get(&run.group).copied();
            let joins = |group: &GroupLog| run.kind != RecordKind::Entry || walk::joins(group, unread, run);
            if !self.groups.get(&run.group).is_none_or(joins) {
                return None;
            }
            walk::take_run((&mut self.groups, &mut self.unread), run, Place::START);
        }
        let mut starts = next.groups.iter();
        let is_at = |group: &mut GroupLog| {
            let Some(start) = starts.next() else { return false };
            // The frame that a run ends in is in no outline.
            group.last_place = start.last_place;
            (group.group, group.before_first, group.last) == (start.group, start.before_first, start.last)
        };
        let are_there = self.groups.values_mut().all(is_at) && starts.next().is_none();
        are_there.then_some(self)
    }
}

/// The seal, if it is the last frame before this end.
fn seal_frame<F: Files>(scan: &mut Scan<'_, F>, end: Place) -> Option<(FrameHead, SealSection)> {
    if !end.offset.is_multiple_of(BLOCK) || end.offset > scan.header.frames_end() {
        return None;
    }
    let blocks = end.offset.checked_sub(FRAMES_START)?.min(SEAL_FRAME_BYTES_MAX as u64) / BLOCK;
    (1..=blocks).find_map(|blocks| {
        let offset = end.offset - blocks * BLOCK;
        let head = scan.head_at(offset).ok()?;
        if head.kind != FrameKind::Seal || head.end() != end {
            return None;
        }
        let Found::Frame(frame) = scan.frame_at(offset) else { return None };
        Some((head, walk::contents(&frame).ok()?.sections.seal?))
    })
}

/// Runs end configurations, frames bring them, in the order in which they were written. A listed frame does both for
/// itself, also for a run that only goes on in it.
fn take_memberships(analysis: &mut Analysis, outline: &Outline, frames: Vec<(FrameNumber, Contents)>) {
    let mut frames = frames.into_iter().peekable();
    for OutlineRun { run, frame, .. } in &outline.runs {
        while let Some((_, contents)) = frames.next_if(|(number, _)| number < frame) {
            walk::take_internal(analysis, contents);
        }
        if frames.peek().is_none_or(|(number, _)| number != frame) {
            walk::end_memberships(analysis, run);
        }
    }
    frames.for_each(|(_, contents)| walk::take_internal(analysis, contents));
}
