//! From log index to place. Derived from the frames, never on disk, never evidence: the answer is checked against
//! what is read.
//!
//! Three small things find any entry. Each group has **spans**: from a span's first index on, live entries lie in
//! frames from the span's place on (a cut begins a new span; a log that was never cut is one). Each group has a list of
//! the **segments** that hold any of it. Each segment has a **sparse index** of at most 128 places; when it is full
//! every second one goes. From the nearest place before, the reader walks frames. So memory grows with segments and with
//! cuts, not with entries: about 4 KiB for a segment, and 32 bytes for each cut that left entries before it, until those
//! entries are cut or purged themselves. To find a place takes two binary searches and a look at one sparse index.

use std::collections::{BTreeMap, VecDeque};

use super::followed::Followed;
use super::frame::{FRAME_HEAD_BYTES, FrameHead, Run};
use super::record::RecordKind;
use super::sections::{SPARSE_ENTRIES_MAX, SealSection, SparseEntry};
use super::segment::{FRAMES_START, SegmentHeader};
use crate::disk::FileId;
use crate::types::{FrameNumber, GroupId, Index, SegmentNumber};

/// Distance between places of a sparse index before it has ever been full.
const SPARSE_STRIDE_BYTES: u64 = 16 << 10;
/// Parts of one plan: it is made while the log waits.
pub const PARTS_MAX: usize = 64;

/// Where everything durable lies.
#[derive(Clone, Debug, Default)]
pub struct Locator {
    segments: BTreeMap<SegmentNumber, SegmentIndex>,
    groups: BTreeMap<GroupId, GroupSpans>,
    /// Kept for those who follow the log, once somebody may.
    pub followed: Option<Followed>,
}

/// One segment of the chain.
#[derive(Clone, Debug)]
pub struct SegmentIndex {
    pub file: FileId,
    pub header: SegmentHeader,
    /// The end of its last durable frame.
    pub end: u64,
    /// That frame's number.
    pub end_frame: FrameNumber,
    /// The highest index of each group in it: below the group's first one, the segment is not needed for it.
    pub highest: BTreeMap<GroupId, Index>,
    seal: SealSection,
    stride_bytes: u64,
}

/// Where one group's live entries lie.
#[derive(Clone, Debug, Default)]
struct GroupSpans {
    /// Rising in first index and in frame.
    spans: Vec<Span>,
    /// The group's first frame with entries in each segment that has one. Within a span, of its live entries, rising in
    /// first index: what does not rise was cut off.
    starts: VecDeque<Span>,
    /// The index after the last live entry.
    end: Index,
    /// There was a cut since the last entry: the next one begins a span.
    is_cut: bool,
}

/// Live entries from `first` on lie in frames from `frame` on, up to the next span's first index.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Span {
    first: Index,
    segment: SegmentNumber,
    offset: u64,
    frame: FrameNumber,
}

/// A piece of one segment that holds wanted entries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Part {
    pub file: FileId,
    pub header: SegmentHeader,
    /// Where a frame begins that lies at or before the first wanted entry.
    pub start: u64,
    /// Where the durable frames of this segment end.
    pub end: u64,
    /// Entries from this index on are not to be taken from here: they were written again later.
    pub until: Index,
    /// Nothing is written to this segment any more. All of it was verified by the recovery that opened the log, or
    /// written since.
    pub is_ended: bool,
}

impl Locator {
    pub fn add_segment(&mut self, header: SegmentHeader, file: FileId) {
        let newest = self.segments.last_key_value().map(|(&number, _)| number);
        assert!(newest.is_none_or(|newest| newest < header.number), "segments join the chain in order");
        self.segments.insert(
            header.number,
            SegmentIndex {
                file,
                header,
                end: FRAMES_START,
                end_frame: FrameNumber(0),
                highest: BTreeMap::new(),
                seal: SealSection::default(),
                stride_bytes: SPARSE_STRIDE_BYTES,
            },
        );
    }

    pub fn remove_segment(&mut self, number: SegmentNumber) -> Option<SegmentIndex> {
        for group in self.groups.values_mut() {
            while group.starts.pop_front_if(|start| start.segment <= number).is_some() {}
        }
        self.segments.remove(&number)
    }

    pub fn segments(&self) -> impl Iterator<Item = &SegmentIndex> {
        self.segments.values()
    }

    /// What the segment's seal frame will say.
    pub fn seal(&self, number: SegmentNumber) -> SealSection {
        self.segments.get(&number).map(|segment| segment.seal.clone()).unwrap_or_default()
    }

    /// Spans of all groups and places of all segments: what grows with the log.
    #[cfg(test)]
    pub fn sizes(&self) -> (usize, usize) {
        let spans = self.groups.values().map(|group| group.spans.len()).sum();
        (spans, self.segments.values().map(|segment| segment.seal.sparse.len()).sum())
    }

    /// Lets the segment's seal say something else than what is in the segment.
    #[cfg(test)]
    pub fn falsify_seal(&mut self, number: SegmentNumber, change: impl FnOnce(&mut SealSection)) {
        change(&mut self.segments.get_mut(&number).expect("it is in the chain").seal);
    }

    /// Takes in a durable frame.
    pub fn note(&mut self, head: &FrameHead, own: &[Run]) {
        let segment = self.segments.get_mut(&head.segment).expect("frames lie in segments of the chain");
        assert!(segment.end <= head.offset, "frames are noted in order");
        segment.end = head.offset + head.length as u64;
        segment.end_frame = head.number;
        for run in own {
            if let Some(followed) = &mut self.followed {
                followed.note(run);
            }
            let group = self.groups.entry(run.group).or_default();
            match run.kind {
                RecordKind::Entry => {
                    segment.note_entries(head, run);
                    if group.note_entries(head, run) {
                        segment.note_cut(run.group, run.first);
                    }
                }
                RecordKind::Truncate => {
                    group.cut(run.first);
                    segment.note_cut(run.group, run.first);
                }
                RecordKind::Purge => group.purge(run.first),
            }
        }
    }

    /// Where to look for the entries `from..to` of a group: pieces in the order of the log, at most [`PARTS_MAX`].
    pub fn parts(&self, group: GroupId, from: Index, to: Index) -> Vec<Part> {
        let Some(known) = self.groups.get(&group) else { return Vec::new() };
        // What was cut off behind the last live entry is still in its frames.
        let to = to.min(known.end);
        let mut parts = Vec::new();
        let first = known.spans.partition_point(|span| span.first <= from).saturating_sub(1);
        for (at, span) in known.spans.iter().enumerate().skip(first) {
            let next = known.spans.get(at + 1);
            let until = next.map_or(to, |next| next.first.min(to));
            if span.first >= to || parts.len() == PARTS_MAX {
                break;
            }
            if until > from {
                // Entries below the next span's first may still lie in the very frame where that span begins.
                let last = next.map_or(SegmentNumber(u64::MAX), |next| next.segment);
                self.span_parts((group, known), span, (from, until), last, &mut parts);
            }
        }
        parts
    }

    fn span_parts(
        &self,
        (group, known): (GroupId, &GroupSpans),
        span: &Span,
        (from, until): (Index, Index),
        last: SegmentNumber,
        parts: &mut Vec<Part>,
    ) {
        // Where the span begins, older frames of its segment may hold other entries; behind that its own indexes rise.
        let own = known.starts.partition_point(|start| start.segment <= span.segment);
        let passed = known
            .starts
            .partition_point(|start| start.segment <= span.segment || (start.segment <= last && start.first <= from));
        let first = if passed > own { known.starts[passed - 1] } else { *span };
        let rest = known.starts.range(passed..).take_while(|start| start.segment <= last && start.first < until);
        let newest = self.segments.last_key_value().map(|(&number, _)| number);
        for start in std::iter::once(&first).chain(rest).take(PARTS_MAX - parts.len()) {
            // What is not in the chain any more holds nothing that is asked for.
            let Some(segment) = self.segments.get(&start.segment) else { continue };
            let nearest = segment.nearest(group, from, start.frame).map_or(start.offset, |entry| entry.offset);
            let (file, header, end) = (segment.file, segment.header, segment.end);
            parts.push(Part { file, header, start: nearest, end, until, is_ended: newest != Some(start.segment) });
        }
    }
}

impl SegmentIndex {
    fn note_entries(&mut self, head: &FrameHead, run: &Run) {
        let highest = self.highest.entry(run.group).or_default();
        *highest = (*highest).max(run.end().previous());
        let previous = self.seal.sparse.iter().rev().find(|entry| entry.group == run.group);
        let due =
            previous.is_none_or(|entry| head.offset >= entry.offset + self.stride_bytes || run.first < entry.first);
        if !due || previous.is_some_and(|entry| entry.frame == head.number) {
            return;
        }
        if self.seal.sparse.len() == SPARSE_ENTRIES_MAX {
            let mut ordinal = 0;
            self.seal.sparse.retain(|_| {
                ordinal += 1;
                ordinal % 2 == 1
            });
            self.stride_bytes *= 2;
        }
        let (offset, frame) = (head.offset, head.number);
        self.seal.sparse.push(SparseEntry { group: run.group, first: run.first, offset, frame });
    }

    fn note_cut(&mut self, group: GroupId, from: Index) {
        match self.seal.cuts.iter_mut().find(|(other, _)| *other == group) {
            Some((_, lowest)) => *lowest = (*lowest).min(from),
            None => self.seal.cuts.push((group, from)),
        }
    }

    /// The last place of the sparse index, among frames from `frame_min` on, that does not lie behind `from`.
    fn nearest(&self, group: GroupId, from: Index, frame_min: FrameNumber) -> Option<&SparseEntry> {
        let fits = |entry: &&SparseEntry| entry.group == group && entry.frame >= frame_min && entry.first <= from;
        self.seal.sparse.iter().rev().find(fits)
    }
}

impl GroupSpans {
    /// Takes in a run of entries; tells whether it ended older ones.
    fn note_entries(&mut self, head: &FrameHead, run: &Run) -> bool {
        let ends_older = run.first < self.end;
        if ends_older {
            self.cut(run.first);
        }
        if self.is_cut || self.spans.is_empty() || run.first > self.end {
            let span = Span { first: run.first, segment: head.segment, offset: head.offset, frame: head.number };
            self.spans.push(span);
        }
        if self.starts.back().is_none_or(|last| last.segment < head.segment) {
            let start = Span { first: run.first, segment: head.segment, offset: head.offset, frame: head.number };
            self.starts.push_back(start);
        }
        self.is_cut = false;
        self.end = run.end();
        ends_older
    }

    fn cut(&mut self, from: Index) {
        self.spans.retain(|span| span.first < from);
        self.end = self.end.min(from);
        self.is_cut = true;
    }

    fn purge(&mut self, last: Index) {
        let live = self.spans.partition_point(|span| span.first <= last.next());
        self.spans.drain(..live.saturating_sub(1));
        if last >= self.end {
            self.end = last.next();
            self.is_cut = true;
        }
    }
}

const _: () = assert!(SPARSE_STRIDE_BYTES > FRAME_HEAD_BYTES as u64);
