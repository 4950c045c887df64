//! What is found wrong with a log has a bound: a very damaged one has a finding for each of its frames.
//!
//! The first findings are kept, and what is worse than all of them, since the worst decides what follows. The others are
//! counted, by the segment that they are about: of which segments anything was found is always known.

use std::collections::BTreeMap;

use super::error::Finding;
use crate::limits::{FINDING_RUNS_MAX, FINDINGS_MAX};
use crate::types::SegmentNumber;

/// Findings that are counted and not kept.
#[derive(Clone, Debug, Default)]
pub(super) struct Surplus {
    /// Those about other files stand under none.
    by_segment: BTreeMap<Option<SegmentNumber>, u64>,
}

impl Surplus {
    /// Takes a finding in behind `kept`, of which those from `from` on are bounded together.
    pub fn keep(&mut self, (kept, from): (&mut Vec<Finding>, usize), mut finding: Finding) {
        let bounded = &kept[from..];
        let worst = bounded.iter().map(|known| known.severity).max();
        let is_full = bounded.len() >= FINDINGS_MAX;
        if is_full && worst >= Some(finding.severity) {
            return self.count(&finding);
        }
        shorten(&mut finding, FINDING_RUNS_MAX.saturating_sub(bounded.iter().map(|known| known.entries.len()).sum()));
        if is_full {
            let last = kept.pop().expect("it is full");
            self.count(&last);
        }
        kept.push(finding);
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

    fn count(&mut self, finding: &Finding) {
        *self.by_segment.entry(finding.segment()).or_default() += 1;
    }
}

/// Leaves so many runs of entries, one at least: that there are any says that something is missing.
fn shorten(finding: &mut Finding, room: usize) {
    let room = room.max(1);
    if let more @ 1.. = finding.entries.len().saturating_sub(room) {
        finding.entries.truncate(room);
        finding.what += &format!("; {more} more runs of entries are not named");
    }
}
