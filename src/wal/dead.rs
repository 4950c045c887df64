//! Damage to what is not part of the log any more: noted, and nothing else.
//!
//! Two things end records for good. A **purge** ends whole segments: from some segment of the chain on nothing is needed
//! that lies before it, and the older ones are files that wait to be used again. If one of those is damaged the log is
//! read as if they were gone. A **later run** of a group's entries, or a truncation, ends the older ones from its first
//! index on: a damaged entry is a suspect until the walk is at its end, and then dead if something ended it.
//!
//! Only what is certain counts. Of a damaged frame the directory must hold, and nothing but entries be damaged in it: then
//! their names are known, the other records of the frame are taken in, and readers pass the damaged ones by. It must be
//! proven, and what ended it must stand in a later frame. An entry that was purged in a segment that is still needed may
//! have been a configuration: it stays damaged.

use std::collections::BTreeMap;

use super::analysis::Analysis;
use super::error::{Finding, LogIds, Severity};
use super::frame::Run;
use super::record::RecordKind;
use super::surplus::shorten;
use super::walk;
use crate::limits::FINDINGS_MAX;
use crate::types::{GroupId, Index, SegmentNumber};

/// More damaged frames than these are not looked after: each is compared with all that follows.
const SUSPECTS_MAX: usize = 1024;

// Of a log that is not damaged otherwise each is kept when it is noted: parts of the log are judged by these notes.
const _: () = assert!(2 * SUSPECTS_MAX <= FINDINGS_MAX);

const REPLACED: &str = "these entries were replaced or cut off since";

/// Damaged entries of one frame, which something may have ended.
#[derive(Clone, Debug)]
pub(super) struct Suspect {
    pub finding: Finding,
    /// The groups of which something is still part of the log of what is damaged, with the lowest damaged index of each:
    /// what ends a group's entries from there on ends all of them.
    pub live: Vec<(GroupId, Index)>,
    /// Its place among the findings.
    pub at: usize,
}

/// The youngest segment of the chain before which nothing is needed.
pub(super) fn needed_from(analysis: &Analysis) -> Option<SegmentNumber> {
    let mut replaced = BTreeMap::new();
    let mut youngest = analysis.chain.iter().rev();
    let found = youngest.find(|segment| {
        walk::take_replaced(analysis, segment.header.number, &mut replaced);
        walk::needed_before(analysis, &segment.open, &replaced).is_empty()
    });
    found.map(|segment| segment.header.number)
}

/// Whether a finding is about a segment below `number`, and forbids to open the log.
pub(super) fn is_below(finding: &Finding, number: SegmentNumber) -> bool {
    finding.severity >= Severity::Unclear && finding.segment().is_some_and(|own| own < number)
}

/// Takes over what was found, from `from` on, in segments below `number` when those were read: none of it matters. Of the
/// configurations that stand there, those before a group's first entry are known as long as the files are.
pub(super) fn take_notes(needed: &mut Analysis, whole: Analysis, (number, from): (SegmentNumber, usize)) {
    let Analysis { findings, surplus, memberships, .. } = whole;
    for (group, memberships) in memberships {
        let before_first = needed.groups.get(&group).map_or(Index::ZERO, |own| own.before_first.index);
        let own = needed.memberships.entry(group).or_default();
        let first_own = own.first().map(|&(index, _)| index);
        let is_older = |index: Index| index <= before_first && first_own.is_none_or(|first| index < first);
        let older: Vec<_> = memberships.into_iter().filter(|&(index, _)| is_older(index)).collect();
        own.splice(0..0, older);
    }
    needed.surplus.take_below(number, &surplus);
    for mut finding in findings.into_iter().skip(from).filter(|finding| is_below(finding, number)) {
        demote(&mut finding, "nothing in the segment is needed any more");
        needed.keep(finding);
    }
}

/// A part of the log was read again: what reading all of it showed to be dead is dead in the part.
pub(super) fn settle_by(part: &mut Analysis, whole: &Analysis) {
    for finding in part.findings.iter_mut().filter(|finding| finding.severity >= Severity::Unclear) {
        let is_same = |known: &&Finding| known.file == finding.file && known.bytes == finding.bytes;
        if whole.findings.iter().filter(is_same).any(|known| known.severity == Severity::Note) {
            demote(finding, REPLACED);
        }
    }
}

impl Analysis {
    /// Looks after a finding of which it is known that nothing but the entries that it names is damaged.
    pub(super) fn suspect(&mut self, mut finding: Finding) {
        // Of what names nothing it cannot be said that all of it ended.
        if self.suspects.len() >= SUSPECTS_MAX || finding.entries.is_empty() {
            return self.found(finding);
        }
        let (at, live) = (self.findings.len(), lowest(&finding.entries));
        shorten(&mut finding, self.runs_left());
        self.suspects.push(Suspect { finding, live, at });
    }

    /// Does to the suspects what a later run says.
    pub(super) fn end_suspects(&mut self, run: &Run) {
        if run.kind != RecordKind::Purge {
            self.end_suspects_from(run.group, run.first);
        }
    }

    /// Something later ended the group's entries from this index on.
    pub(super) fn end_suspects_from(&mut self, group: GroupId, from: Index) {
        for suspect in &mut self.suspects {
            suspect.live.retain(|&(own, lowest)| own != group || lowest < from);
        }
    }

    /// All is read: what was ended is noted, and what was not is damage.
    pub(super) fn settle_suspects(&mut self) {
        if self.suspects.is_empty() {
            return;
        }
        for Suspect { mut finding, live, at } in std::mem::take(&mut self.suspects).into_iter().rev() {
            if live.is_empty() {
                demote(&mut finding, REPLACED);
            }
            self.findings.insert(at, finding);
        }
        // In the order of the log, as if they had been found so.
        let in_frames = self.findings.split_off(self.files_found);
        in_frames.into_iter().for_each(|finding| self.keep(finding));
    }
}

/// The lowest index of each group.
fn lowest(entries: &[LogIds]) -> Vec<(GroupId, Index)> {
    let mut lowest = BTreeMap::new();
    for ids in entries {
        let own = lowest.entry(ids.group).or_insert(ids.first);
        *own = ids.first.min(*own);
    }
    lowest.into_iter().collect()
}

fn demote(finding: &mut Finding, why: &str) {
    finding.severity = Severity::Note;
    finding.acknowledged = None;
    finding.what = format!("{}; {why}", finding.what);
}
