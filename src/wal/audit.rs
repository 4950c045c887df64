//! Checks a log that somebody has open: what stood durable at one moment is read again, as recovery would read it.
//!
//! ```text
//!  Log::extent ──▶ Extent ──▶ check, anywhere ──▶ Checked ──▶ Log::has_segment: is it still about this log?
//! ```
//!
//! The end is known, so everything before it must be there: each fault is damage to what had been acknowledged. A segment
//! that was retired since may be in other use by now, and what is found in it means nothing.

use std::collections::BTreeMap;

use super::analysis::{Analysis, Source};
use super::chain;
use super::error::{Error, Finding, Severity};
use super::log::Log;
use super::recovery::Acknowledged;
use super::segment::{Identity, SegmentHeader, segment_name};
use super::surplus::Surplus;
use crate::disk::Files;
use crate::types::{GroupId, Index, Place, SegmentNumber};

/// What stood durable at one moment: the whole chain, or one sealed segment of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Extent {
    directory: String,
    identity: Identity,
    /// In order; not empty.
    segments: Vec<SegmentNumber>,
    end: Place,
    is_whole: bool,
    /// From which index on durable frames behind it ended a group's entries.
    ended_behind: BTreeMap<GroupId, Index>,
}

/// What was read, and what is wrong with it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Checked {
    /// Everything durable up to here was looked at.
    pub end: Place,
    pub segments: usize,
    pub frames: u64,
    pub records: u64,
    pub record_bytes: u64,
    pub findings: Vec<Finding>,
    pub(super) surplus: Surplus,
    /// So many more there are, which are counted alone.
    pub findings_more: u64,
    /// Segments of which all was read up to these offsets, and nothing was found.
    pub(super) clean: Vec<(SegmentHeader, u64)>,
    /// Segments in which anything was found, also if it was counted alone.
    pub(super) damaged: Vec<SegmentNumber>,
}

impl Log {
    /// Everything that is durable now.
    pub fn extent(&self) -> Extent {
        let end = self.durable_end();
        let numbers = self.locator.segments().map(|segment| segment.header.number);
        Extent { is_whole: true, ..self.extent_of(numbers.filter(|&number| number <= end.segment).collect(), end) }
    }

    /// One segment that takes nothing more; `None` if it is written still, or is not in the log any more.
    pub fn sealed_extent(&self, number: SegmentNumber) -> Option<Extent> {
        let segment = self.locator.segments().find(|segment| segment.header.number == number)?;
        let end = Place { segment: number, offset: segment.end, frame: segment.end_frame };
        let ended_behind = self.locator.cuts_behind(number);
        let extent = Extent { ended_behind, ..self.extent_of(vec![number], end) };
        (number < self.durable_end().segment).then_some(extent)
    }

    /// The segments that take nothing more, oldest first.
    pub fn sealed_segments(&self) -> Vec<SegmentNumber> {
        let active = self.durable_end().segment;
        let numbers = self.locator.segments().map(|segment| segment.header.number);
        numbers.filter(|&number| number < active).collect()
    }

    /// Whether the segment is in the log still. Its file is not used for anything else before it is not.
    pub fn has_segment(&self, number: SegmentNumber) -> bool {
        self.locator.segments().any(|segment| segment.header.number == number)
    }

    /// Takes note of what was read: segments that were found intact are read by map from now on, and those in which
    /// anything was found are not any more. Those that are not in the log any more, or are others by now, are passed
    /// over.
    pub fn mark_verified(&mut self, checked: &Checked) {
        checked.clean.iter().for_each(|(header, end)| self.locator.mark_verified(header, *end));
        checked.damaged.iter().for_each(|&number| self.mark_unverified(number));
    }

    /// Takes note that a segment could not be looked at: it is not read by map any more.
    pub(super) fn mark_unverified(&mut self, number: SegmentNumber) {
        self.locator.mark_unverified(number);
    }

    fn extent_of(&self, segments: Vec<SegmentNumber>, end: Place) -> Extent {
        let (directory, identity) = (self.options.directory.clone(), self.options.identity);
        Extent { directory, identity, segments, end, is_whole: false, ended_behind: BTreeMap::new() }
    }
}

impl Extent {
    pub fn segments(&self) -> &[SegmentNumber] {
        &self.segments
    }

    /// Reads all of it. In bounded memory: a window of one segment at a time, and what a log keeps of each segment.
    ///
    /// # Errors
    /// If a file cannot be opened, or is none of this log. What cannot be read in it is a finding.
    pub fn check<F: Files>(&self, files: &F) -> Result<Checked, Error> {
        let source =
            Source { identity: Some(self.identity), evidence: self.end, ..Source::from_outside(&self.directory) };
        let mut gathered = chain::gather_segments(files, &source, &self.segments)?;
        gathered.ended_behind.clone_from(&self.ended_behind);
        let analysis = gathered.read(files, &source, Some(self.end));
        analysis.close(files);
        Ok(self.checked(analysis))
    }

    fn checked(&self, analysis: Analysis) -> Checked {
        let chain = &analysis.chain;
        let mut checked = Checked {
            end: self.end,
            segments: chain.len(),
            frames: chain.iter().map(|segment| segment.frames).sum(),
            records: chain.iter().map(|segment| segment.records).sum(),
            record_bytes: chain.iter().map(|segment| segment.record_bytes).sum(),
            clean: analysis.chain.iter().map(|segment| (segment.header, segment.end)).collect(),
            damaged: self.segments.clone(),
            findings_more: analysis.surplus.sum(if self.is_whole { None } else { Some(&self.segments) }),
            findings: analysis.findings,
            surplus: analysis.surplus.clone(),
        };
        let surplus = analysis.surplus;
        // What lies before a segment that is looked at by itself is not its affair.
        let names: Vec<String> = self.segments.iter().map(|&number| segment_name(&self.directory, number)).collect();
        checked.findings.retain(|finding| self.is_whole || names.contains(&finding.file));
        let is_damaged = |&number: &SegmentNumber| {
            let name = segment_name(&self.directory, number);
            checked.findings.iter().any(|finding| finding.file == name) || surplus.sum(Some(&[number])) > 0
        };
        checked.damaged.retain(is_damaged);
        checked.clean.retain(|(header, _)| !checked.damaged.contains(&header.number));
        for finding in checked.findings.iter_mut().filter(|finding| finding.severity > Severity::Note) {
            // The log has seen all of this durable: nothing of it is torn, and nothing is unclear.
            finding.severity = Severity::Corrupt;
            finding.acknowledged = Some(Acknowledged::Yes);
        }
        checked
    }
}
