//! What a cut would lose: the names of everything behind an end, as far as anything that can be read tells them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::analysis::{Analysis, Source};
use super::body::Sections;
use super::chain::Gathered;
use super::frame::{FrameHead, Run};
use super::record::RecordKind;
use super::scan::{Found, Scan};
use super::segment::{FRAMES_START, SegmentHeader};
use crate::disk::{FileId, Files};
use crate::limits::BLOCK_BYTES;
use crate::types::{FrameNumber, GroupId, Index, LogId, Place, SegmentNumber, Term};

/// Everything behind an end of the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Loss {
    /// The end of what is kept.
    pub end: Place,
    /// In order of group.
    pub entries: Vec<Lost>,
    /// More may be lost than `entries` name.
    pub has_unnamed: bool,
    /// Segments that hold something behind the end.
    pub segments: BTreeSet<SegmentNumber>,
    /// No frame that is or may be behind the end has a higher number.
    pub frame_last: FrameNumber,
}

/// Entries of one group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lost {
    pub group: GroupId,
    /// The lowest; term 0 if its term is not known.
    pub first: LogId,
    /// The highest.
    pub last: LogId,
}

impl Loss {
    /// Where what is cut is kept, in the directory of the superblock.
    pub fn directory(&self) -> String {
        format!("cut-{:016}-{}", self.end.segment.0, self.end.frame)
    }

    /// What is lost, one line each.
    pub fn lines(&self) -> impl Iterator<Item = String> + '_ {
        let unnamed = self.has_unnamed.then(|| "entries that nothing readable names".to_owned());
        self.entries.iter().map(ToString::to_string).chain(unnamed)
    }
}

impl Lost {
    /// The index behind the last.
    pub fn end(&self) -> Index {
        self.last.index.next()
    }
}

impl fmt::Display for Lost {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Lost { group, first, last } = self;
        write!(formatter, "group {group} entries {}..{} (the last is {last})", first.index, self.end())
    }
}

/// What is lost if only `kept` stays of a log of which the segments `no_part` are no part.
pub(super) fn measure<F: Files>(
    files: &F,
    source: &Source,
    (gathered, no_part): (&Gathered, &BTreeSet<SegmentNumber>),
    kept: &Analysis,
) -> Loss {
    let is_cut = |number: SegmentNumber| number >= kept.end.segment && !no_part.contains(&number);
    let cut: Vec<_> = gathered.candidates.iter().filter(|own| is_cut(own.number)).collect();
    let mut names = Names { known: BTreeMap::new(), expected: kept.end.frame.next(), owed: 0, has_unnamed: false };
    let mut blocks = 0;
    for candidate in &cut {
        let length = files.length(candidate.file).unwrap_or_default();
        blocks += length / BLOCK_BYTES as u64;
        let start = if candidate.number == kept.end.segment { kept.end.offset } else { FRAMES_START };
        match candidate.header {
            Some(header) => names.read(files, (candidate.file, header), start),
            None => names.owed += length / BLOCK_BYTES as u64,
        }
    }
    names.has_unnamed |= names.owed > 0 || source.evidence.frame >= names.expected;
    let highest = names.expected.0.max(source.evidence.frame.0).max(kept.end.frame.0);
    Loss {
        end: kept.end,
        entries: names.behind(kept),
        has_unnamed: names.has_unnamed,
        segments: cut.iter().map(|own| own.number).collect(),
        frame_last: FrameNumber(highest.saturating_add(blocks)),
    }
}

/// The names that were met.
struct Names {
    /// The lowest and the highest of each group, by index.
    known: BTreeMap<GroupId, (LogId, LogId)>,
    /// The number of the next frame.
    expected: FrameNumber,
    /// So many frames before that one are not named yet: the next frame names one.
    owed: u64,
    has_unnamed: bool,
}

impl Names {
    fn read<F: Files>(&mut self, files: &F, (file, header): (FileId, SegmentHeader), start: u64) {
        let mut scan = Scan::new(files, file, header);
        let mut at = start;
        while let Some(head) = scan.next_head(at, FrameNumber(0)) {
            at = head.end().offset;
            let sections = match scan.frame_at(head.offset) {
                Found::Frame(frame) => frame.sections().ok(),
                Found::Fault(_) => None,
            };
            self.take(&head, sections);
        }
        // Something stands behind the last frame that can be read, and nothing behind it names it.
        let is_written = at < header.frames_end() && scan.next_nonzero(at).is_some();
        self.owed += u64::from(is_written);
    }

    fn take(&mut self, head: &FrameHead, sections: Option<Sections>) {
        let unnamed = self.owed.max(head.number.0.saturating_sub(self.expected.0));
        self.expected = self.expected.max(head.number.next());
        let Some(sections) = sections else {
            self.owed = unnamed + 1;
            return;
        };
        self.owed = 0;
        // An open frame names the last entry of each group, whatever was before it.
        self.has_unnamed |= unnamed > 1 && sections.open.is_none();
        if unnamed > 0 {
            sections.previous.iter().for_each(|run| self.add_run(run));
        }
        for start in sections.open.iter().flat_map(|open| &open.groups).filter(|start| start.last.index > Index::ZERO) {
            self.end_at(start.group, start.last);
            self.add(start.group, start.last, start.last);
        }
        sections.own.iter().for_each(|run| self.add_run(run));
    }

    /// A run of entries or a truncation ends what was known from its first index on.
    fn add_run(&mut self, run: &Run) {
        if run.kind == RecordKind::Purge {
            return;
        }
        self.end_at(run.group, LogId::new(run.previous_term, run.first.previous()));
        if run.kind == RecordKind::Entry {
            self.add(run.group, LogId::new(run.term, run.first), LogId::new(run.term, run.end().previous()));
        }
    }

    /// Nothing of the group lies behind this entry now.
    fn end_at(&mut self, group: GroupId, last: LogId) {
        let Some(known) = self.known.get_mut(&group) else { return };
        if last.index < known.0.index {
            self.known.remove(&group);
        } else if last.index < known.1.index {
            known.1 = last;
        }
    }

    fn add(&mut self, group: GroupId, first: LogId, last: LogId) {
        let known = self.known.entry(group).or_insert((first, last));
        if first.index < known.0.index {
            known.0 = first;
        }
        if last.index >= known.1.index {
            known.1 = last;
        }
    }

    /// Of each group what is not kept: an index that is kept under the same name is no loss.
    fn behind(&self, kept: &Analysis) -> Vec<Lost> {
        let mut lost = Vec::new();
        for (&group, &(lowest, last)) in &self.known {
            let own = kept.groups.get(&group);
            let last_kept = own.map_or(Index::ZERO, |own| own.last.index);
            let is_kept = |id: LogId| own.is_some_and(|own| own.id_at(id.index) == Some(id));
            if is_kept(last) {
                continue;
            }
            let next = last_kept.next();
            let first = match () {
                () if lowest.index <= last_kept && !is_kept(lowest) => lowest,
                () if lowest.index == next => lowest,
                () => LogId::new(Term::ZERO, next.min(last.index)),
            };
            lost.push(Lost { group, first, last });
        }
        lost
    }
}
