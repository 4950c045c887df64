//! From log index to place. Derived from the frames, never on disk, never evidence: the answer is checked against
//! what is read.
//!
//! Two small things find any entry. Each group has **spans**: from a span's first index on, live entries lie in
//! frames from the span's place on (a cut begins a new span; a log that was never cut is one). Each segment has a
//! **sparse index** of at most 128 places; when it is full every second one goes. From the nearest place before, the
//! reader walks frames. So memory grows with segments and with cuts, not with entries: about 4 KiB for a segment, and 32
//! bytes for each cut that left entries before it, until those entries are cut or purged themselves.

use std::collections::BTreeMap;

use super::followed::Followed;
use super::frame::{FRAME_HEAD_BYTES, FrameHead, Run};
use super::record::RecordKind;
use super::sections::{SPARSE_ENTRIES_MAX, SealSection, SparseEntry};
use super::segment::{FRAMES_START, SegmentHeader};
use crate::disk::FileId;
use crate::types::{FrameNumber, GroupId, Index, SegmentNumber};

/// Distance between places of a sparse index before it has ever been full.
const SPARSE_STRIDE_BYTES: u64 = 16 << 10;

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

    /// Where to look for the entries `from..to` of a group: pieces in the order of the log.
    pub fn parts(&self, group: GroupId, from: Index, to: Index) -> Vec<Part> {
        let Some(GroupSpans { spans, end, .. }) = self.groups.get(&group) else { return Vec::new() };
        // What was cut off behind the last live entry is still in its frames.
        let to = to.min(*end);
        let mut parts = Vec::new();
        for (at, span) in spans.iter().enumerate() {
            let until = spans.get(at + 1).map_or(to, |next| next.first.min(to));
            if until <= from || span.first >= to {
                continue;
            }
            // Entries below the next span's first may still lie in the very frame where that span begins.
            let last = spans.get(at + 1).map_or(SegmentNumber(u64::MAX), |next| next.segment);
            self.span_parts(group, span, from, until, last, &mut parts);
        }
        parts
    }

    fn span_parts(
        &self,
        group: GroupId,
        span: &Span,
        from: Index,
        until: Index,
        last: SegmentNumber,
        parts: &mut Vec<Part>,
    ) {
        let within = self.segments.range(span.segment..=last.max(span.segment));
        let nearest = |(&number, segment): (&SegmentNumber, &SegmentIndex)| {
            segment.nearest(group, from, span.frame).map(|entry| (number, entry.offset))
        };
        let (segment_start, offset_start) = within.rev().find_map(nearest).unwrap_or((span.segment, span.offset));
        for (&number, segment) in self.segments.range(segment_start..=last.max(segment_start)) {
            // What begins behind the last wanted entry holds none: plans do not grow with the log.
            if number > segment_start && segment.first_noted(group).is_some_and(|first| first >= until) {
                break;
            }
            let start = if number == segment_start { offset_start } else { FRAMES_START };
            if segment.highest.contains_key(&group) && start < segment.end {
                parts.push(Part { file: segment.file, header: segment.header, start, end: segment.end, until });
            }
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

    /// The group's first index in the first frame that holds any of it. Never thinned out.
    fn first_noted(&self, group: GroupId) -> Option<Index> {
        self.seal.sparse.iter().find(|entry| entry.group == group).map(|entry| entry.first)
    }

    /// The last place of the sparse index, among frames from `frame_min` on, that does not lie behind `from`.
    fn nearest(&self, group: GroupId, from: Index, frame_min: FrameNumber) -> Option<&SparseEntry> {
        if self.first_noted(group).is_none_or(|first| first > from) {
            return None;
        }
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
