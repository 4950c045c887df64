//! What is found wrong with a log has a bound: a very damaged one has a finding for each of its frames.
//!
//! The worst are kept, since they decide what follows, and of those that are equally bad the first. The others are
//! counted, by the segment that they are about: of which segments anything was found is always known.

use std::collections::BTreeMap;

use super::analysis::Analysis;
use super::audit::Checked;
use super::error::{Finding, Severity};
use crate::limits::{FINDING_RUNS_MAX, FINDINGS_MAX};
use crate::types::SegmentNumber;

/// Findings that are counted and not kept.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Surplus {
    /// Those about other files stand under none.
    by_segment: BTreeMap<Option<SegmentNumber>, u64>,
}

/// A finding that was counted, and where it stood: behind the others if it is the new one.
pub(super) struct Crowded {
    pub at: usize,
    pub finding: Finding,
}

impl Surplus {
    /// Takes a finding in behind `kept`, of which those from `from` on are bounded together; gives the one that had to go.
    pub fn keep(&mut self, (kept, from): (&mut Vec<Finding>, usize), finding: Finding) -> Option<Crowded> {
        if kept.len() - from < FINDINGS_MAX {
            kept.push(finding);
            return None;
        }
        // The last of those that are least bad.
        let at = (from..kept.len()).rev().min_by_key(|&at| kept[at].severity).expect("it is full");
        let crowded = match kept[at].severity < finding.severity {
            true => {
                let crowded = Crowded { at, finding: kept.remove(at) };
                kept.push(finding);
                crowded
            }
            false => Crowded { at: kept.len(), finding },
        };
        *self.by_segment.entry(crowded.finding.segment()).or_default() += 1;
        Some(crowded)
    }

    /// One about this segment, which was counted, is kept after all.
    pub fn take_one(&mut self, segment: SegmentNumber) {
        let count = self.by_segment.get_mut(&Some(segment)).expect("it was counted");
        *count -= 1;
        if *count == 0 {
            self.by_segment.remove(&Some(segment));
        }
    }

    /// Takes over what another counted of segments below `number`, in which it has looked and this one has not.
    pub fn take_below(&mut self, number: SegmentNumber, other: &Surplus) {
        let is_below = |own: &Option<SegmentNumber>| own.is_some_and(|own| own < number);
        for (&own, &count) in other.by_segment.iter().filter(|(own, _)| is_below(own)) {
            self.by_segment.insert(own, count);
        }
    }

    /// How many there are of these segments, or of all files.
    pub fn sum(&self, segments: Option<&[SegmentNumber]>) -> u64 {
        let is_meant = |own: &Option<SegmentNumber>| {
            segments.is_none_or(|segments| own.is_some_and(|own| segments.contains(&own)))
        };
        self.by_segment.iter().filter(|(own, _)| is_meant(own)).map(|(_, count)| count).sum()
    }

    /// Whether there are any of this segment, or of files that are none.
    pub fn has(&self, segment: Option<SegmentNumber>) -> bool {
        self.by_segment.contains_key(&segment)
    }

    /// Forgets those of other segments than these.
    pub fn retain(&mut self, is_meant: impl Fn(Option<SegmentNumber>) -> bool) {
        self.by_segment.retain(|&own, _| is_meant(own));
    }
}

impl Analysis {
    /// Of a log in use one look finds what another, a while later, does not: a frame that is being written looks torn. Leaves
    /// what the `earlier` look had found too, or may have: what it only counted it cannot tell.
    pub fn leave_what_lasts(&mut self, earlier: &Analysis) {
        let is_told = |new: &Finding| earlier.findings.iter().any(|old| old.is_where(new));
        let lasts = |new: &Finding| earlier.surplus.has(new.segment()) || is_told(new);
        let is_touched = |segment| earlier.findings.iter().any(|old| old.segment() == segment);
        self.surplus.retain(|segment| earlier.surplus.has(segment) || is_touched(segment));
        let lasting = |finding: &&Finding| finding.severity > Severity::Note && lasts(finding);
        let is_damaged = self.surplus.by_segment.keys().any(Option::is_some);
        // What is counted was no worse than what goes, so it may not stand alone and look like nothing.
        if !is_damaged || self.findings.iter().any(|finding| lasting(&finding)) {
            self.findings.retain(lasts);
        }
    }

    /// How many more runs of entries findings may name.
    pub(super) fn runs_left(&self) -> usize {
        let found = self.findings[self.files_found..].iter().map(|known| known.entries.len());
        let suspected = self.suspects.iter().map(|suspect| suspect.finding.entries.len());
        FINDING_RUNS_MAX.saturating_sub(found.chain(suspected).sum())
    }
}

impl Checked {
    /// Leaves what was found in these segments, and in files that are none: what others held means nothing any more.
    pub(super) fn leave_those_of(&mut self, is_held: impl Fn(SegmentNumber) -> bool) {
        self.findings.retain(|finding| finding.segment().is_none_or(&is_held));
        self.surplus.retain(|segment| segment.is_none_or(&is_held));
        self.findings_more = self.surplus.sum(None);
    }
}

/// Leaves so many runs of entries, one at least: that there are any says that something is missing.
pub(super) fn shorten(finding: &mut Finding, room: usize) {
    let room = room.max(1);
    if let more @ 1.. = finding.entries.len().saturating_sub(room) {
        finding.entries.truncate(room);
        finding.entries.shrink_to_fit();
        finding.what += &format!("; {more} more runs of entries are not named");
    }
}
