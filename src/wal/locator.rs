//! From log index to place. Derived from the frames, never on disk, never evidence: the answer is checked against
//! what is read.
//!
//! Three small things find any entry. Each group has **spans**: from a span's first index on, live entries lie in
//! frames from the span's place on (a cut begins a new span; a log that was never cut is one). Each group has a list of
//! the **segments** that hold any of it. Each segment has a **sparse index** of at most 128 places; when it is full
//! every second one goes. From the nearest place before, the reader walks frames. So memory grows with segments and with
//! cuts, not with entries: about 4 KiB for a segment, and 32 bytes for each cut that left entries before it, until those
//! entries are cut or purged themselves. All places together are bounded too: beyond the bound every second one of each
//! segment that has ended goes, so that the older a segment is the longer its walks, and a segment costs some hundred
//! bytes at last. To find a place takes two binary searches and a look at one sparse index.

use std::collections::{BTreeMap, VecDeque};

use super::followed::Followed;
use super::frame::{FRAME_HEAD_BYTES, FrameHead, Run};
use super::outline::{Outline, OutlineRun};
use super::record::RecordKind;
use super::sections::{SPARSE_ENTRIES_MAX, SealSection, SparseEntry};
use super::segment::{FRAMES_START, SegmentHeader};
use crate::disk::FileId;
use crate::types::{FrameNumber, GroupId, Index, SegmentNumber};

/// Distance between places of a sparse index before it has ever been full.
const SPARSE_STRIDE_BYTES: u64 = 16 << 10;
/// Places in all segments, 32 bytes each: those of 8,192 segments, and fewer of each where there are more.
const PLACES_MAX: usize = 8192 * SPARSE_ENTRIES_MAX;
/// Parts of one plan: it is made while the log waits.
pub const PARTS_MAX: usize = 64;

/// Where everything durable lies.
#[derive(Clone, Debug, Default)]
pub struct Locator {
    segments: BTreeMap<SegmentNumber, SegmentIndex>,
    /// Places of all sparse indexes together.
    places: usize,
    groups: BTreeMap<GroupId, GroupSpans>,
    /// Kept for those who follow the log, once somebody may.
    pub followed: Option<Followed>,
}

/// One segment of the chain.
#[derive(Clone, Debug)]
pub struct SegmentIndex {
    pub file: FileId,
    pub header: SegmentHeader,
    /// What the wall clock showed when it was begun: for retention by age alone.
    pub opened_milliseconds: u64,
    /// The end of its last durable frame.
    pub end: u64,
    /// That frame's number.
    pub end_frame: FrameNumber,
    /// The highest index of each group in it: below the group's first one, the segment is not needed for it.
    pub highest: BTreeMap<GroupId, Index>,
    /// The lowest index at which a run of entries of each group, or a cut, begins in it: from there on nothing that lies
    /// before the segment is part of the group any more.
    pub lowest: BTreeMap<GroupId, Index>,
    /// Some of its frames with entries, in their order.
    pub sparse: Vec<SparseEntry>,
    stride_bytes: u64,
    /// Records in it, and their bytes.
    records: u64,
    records_bytes: u64,
    /// For its seal. `None` if it is too long for that, or no seal will be written any more.
    outline: Option<Outline>,
    /// Every frame of it was read and found intact, when the log was opened or since, or was written since.
    pub is_verified: bool,
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
    /// What a record of this segment takes on average, whosever it is.
    pub record_bytes: u64,
    /// Nothing is written to this segment any more.
    pub has_ended: bool,
    /// It has ended, and all of it was verified, by the recovery that opened the log or since, or written since.
    pub may_be_mapped: bool,
}

impl Locator {
    /// `opened_milliseconds` is what the wall clock showed when it was begun.
    pub fn add_segment(&mut self, header: SegmentHeader, file: FileId, opened_milliseconds: u64) {
        let newest = self.segments.last_key_value().map(|(&number, _)| number);
        assert!(newest.is_none_or(|newest| newest < header.number), "segments join the chain in order");
        if let Some(mut ended) = self.segments.last_entry() {
            ended.get_mut().outline = None;
        }
        self.thin_out();
        self.segments.insert(
            header.number,
            SegmentIndex {
                file,
                header,
                opened_milliseconds,
                end: FRAMES_START,
                end_frame: FrameNumber(0),
                highest: BTreeMap::new(),
                lowest: BTreeMap::new(),
                sparse: Vec::new(),
                stride_bytes: SPARSE_STRIDE_BYTES,
                records: 0,
                records_bytes: 0,
                outline: Some(Outline::default()),
                is_verified: true,
            },
        );
    }

    /// Keeps the places of segments that have ended within their bound.
    fn thin_out(&mut self) {
        if self.places > PLACES_MAX {
            self.segments.values_mut().for_each(SegmentIndex::thin_out);
            self.places = self.segments.values().map(|segment| segment.sparse.len()).sum();
        }
    }

    pub fn remove_segment(&mut self, number: SegmentNumber) -> Option<SegmentIndex> {
        for group in self.groups.values_mut() {
            while group.starts.pop_front_if(|start| start.segment <= number).is_some() {}
        }
        let removed = self.segments.remove(&number)?;
        self.places -= removed.sparse.len();
        Some(removed)
    }

    pub fn segments(&self) -> impl Iterator<Item = &SegmentIndex> {
        self.segments.values()
    }

    pub fn segment(&self, number: SegmentNumber) -> Option<&SegmentIndex> {
        self.segments.get(&number)
    }

    /// Whether live entries of a group, of which `first` is the first, may lie in this segment.
    pub fn may_hold(&self, segment: &SegmentIndex, group: GroupId, first: Index) -> bool {
        let span = || self.groups.get(&group).and_then(|known| known.live_from(first));
        let is_above = segment.highest.get(&group).is_some_and(|&highest| highest >= first);
        is_above && span().is_some_and(|span| span.segment <= segment.header.number)
    }

    /// Record bytes in segments that hold entries of this group alone, all of them live if `first` is: of some if there are
    /// many.
    pub fn alone_bytes(&self, group: GroupId, first: Index) -> u64 {
        let Some(known) = self.groups.get(&group) else { return 0 };
        // Behind a later span are entries that were cut off.
        let Some(span) = known.live_from(first).filter(|span| known.spans.last() == Some(span)) else { return 0 };
        let behind = self.segments.range(span.segment.next()..).map(|(_, segment)| segment);
        let alone = behind.filter(|segment| segment.highest.len() == 1 && segment.highest.contains_key(&group));
        alone.take(PARTS_MAX).map(|segment| segment.records_bytes).sum()
    }

    /// All of a segment was read up to this offset and found intact. Another one than is known here is passed over.
    pub fn mark_verified(&mut self, header: &SegmentHeader, end: u64) {
        if let Some(segment) = self.segments.get_mut(&header.number)
            && (segment.header, segment.end) == (*header, end)
        {
            segment.is_verified = true;
        }
    }

    /// Something of a segment was found damaged. If only in what is dead the log is opened nonetheless, and the segment
    /// is read past memory: a sector that changed may be one that the disk does not give the next time, and through a
    /// map that would end the process. A number is one segment's alone, so that what is not in the chain any more is
    /// passed over.
    pub fn mark_unverified(&mut self, number: SegmentNumber) {
        if let Some(segment) = self.segments.get_mut(&number) {
            segment.is_verified = false;
        }
    }

    /// From which index on segments behind this one ended a group's entries, where they did.
    pub fn cuts_behind(&self, number: SegmentNumber) -> BTreeMap<GroupId, Index> {
        let mut lowest = BTreeMap::new();
        for (&group, &from) in self.segments.range(number.next()..).flat_map(|(_, segment)| &segment.lowest) {
            let own = lowest.entry(group).or_insert(from);
            *own = from.min(*own);
        }
        lowest
    }

    /// What the seal frame of the newest segment will say.
    pub fn seal(&self) -> SealSection {
        let newest = self.segments.last_key_value().expect("only what is in a segment is sealed").1;
        SealSection {
            sparse: newest.sparse.clone(),
            records: newest.records,
            records_bytes: newest.records_bytes,
            outline: newest.outline.clone(),
        }
    }

    /// Spans of all groups and places of all segments: what grows with the log.
    #[cfg(test)]
    pub fn sizes(&self) -> (usize, usize) {
        let spans = self.groups.values().map(|group| group.spans.len()).sum();
        (spans, self.segments.values().map(|segment| segment.sparse.len()).sum())
    }

    /// Leaves out how the log was read, and what matters to a segment that is written alone; gives which segments were not
    /// read whole and found intact.
    #[cfg(test)]
    pub fn forget_reading(&mut self) -> Vec<SegmentNumber> {
        let mut unverified = Vec::new();
        for segment in self.segments.values_mut() {
            unverified.extend(Some(segment.header.number).filter(|_| !segment.is_verified));
            (segment.is_verified, segment.stride_bytes) = (true, SPARSE_STRIDE_BYTES);
        }
        unverified
    }

    /// Lets the seal of the newest segment say something else than what is in the segment.
    #[cfg(test)]
    pub fn falsify_seal(&mut self, change: impl FnOnce(&mut SealSection)) {
        let mut seal = self.seal();
        change(&mut seal);
        let mut newest = self.segments.last_entry().expect("it is in the chain");
        let newest = newest.get_mut();
        self.places = self.places - newest.sparse.len() + seal.sparse.len();
        (newest.sparse, newest.outline) = (seal.sparse, seal.outline);
        (newest.records, newest.records_bytes) = (seal.records, seal.records_bytes);
    }

    /// Takes in a durable frame.
    pub fn note(&mut self, head: &FrameHead, own: &[Run], holds_membership: bool) {
        let segment = self.segments.get_mut(&head.segment).expect("frames lie in segments of the chain");
        assert!(segment.end <= head.offset, "frames are noted in order");
        segment.end = head.end().offset;
        segment.end_frame = head.number;
        segment.records += head.records as u64;
        segment.records_bytes += head.records_bytes as u64;
        segment.outline = segment.outline.take().and_then(|outline| outline.with(head, own, holds_membership));
        self.places -= segment.sparse.len();
        for run in own {
            if run.kind == RecordKind::Entry {
                segment.note_place(head, run);
            }
            if let Some(followed) = &mut self.followed {
                followed.note(run);
            }
            let group = self.groups.entry(run.group).or_default();
            segment.note_run(group, run, (head.offset, head.number));
        }
        self.places += segment.sparse.len();
    }

    /// Takes in a durable frame of entries that are there already: those who follow the log need not know.
    pub fn note_copy(&mut self, head: &FrameHead, own: &[Run], holds_membership: bool) {
        let followed = self.followed.take();
        self.note(head, own, holds_membership);
        self.followed = followed;
    }

    /// Takes in the newest segment as its seal, whose head this is, describes it.
    pub fn note_sealed(&mut self, head: &FrameHead, seal: SealSection, runs: &[OutlineRun]) {
        let segment = self.segments.get_mut(&head.segment).expect("it was added to the chain");
        assert!(segment.end == FRAMES_START, "nothing of it was noted yet");
        segment.end = head.end().offset;
        segment.end_frame = head.number;
        self.places += seal.sparse.len();
        segment.sparse = seal.sparse;
        (segment.records, segment.records_bytes) = (seal.records, seal.records_bytes);
        segment.is_verified = false;
        for OutlineRun { run, offset, frame } in runs {
            let group = self.groups.entry(run.group).or_default();
            segment.note_run(group, run, (*offset, *frame));
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
            let has_ended = newest != Some(start.segment);
            let may_be_mapped = has_ended && segment.is_verified;
            let record_bytes = segment.records_bytes / segment.records.max(1);
            parts.push(Part { file, header, start: nearest, end, until, record_bytes, has_ended, may_be_mapped });
        }
    }
}

impl SegmentIndex {
    /// Takes in a run that begins in the frame of this offset and number; where else it goes on is of no interest.
    fn note_run(&mut self, group: &mut GroupSpans, run: &Run, (offset, frame): (u64, FrameNumber)) {
        match run.kind {
            RecordKind::Entry => {
                let highest = self.highest.entry(run.group).or_default();
                *highest = (*highest).max(run.end().previous());
                let span = Span { first: run.first, segment: self.header.number, offset, frame };
                group.note_entries(run, span);
                self.note_lowest(run.group, run.first);
            }
            RecordKind::Truncate => {
                group.cut(run.first);
                self.note_lowest(run.group, run.first);
            }
            RecordKind::Purge => group.purge(run.first),
        }
    }

    fn note_lowest(&mut self, group: GroupId, from: Index) {
        let lowest = self.lowest.entry(group).or_insert(from);
        *lowest = (*lowest).min(from);
    }

    /// A frame with entries, for the sparse index.
    fn note_place(&mut self, head: &FrameHead, run: &Run) {
        let previous = self.sparse.iter().rev().find(|entry| entry.group == run.group);
        let due =
            previous.is_none_or(|entry| head.offset >= entry.offset + self.stride_bytes || run.first < entry.first);
        if !due || previous.is_some_and(|entry| entry.frame == head.number) {
            return;
        }
        if self.sparse.len() == SPARSE_ENTRIES_MAX {
            self.thin_out();
            self.stride_bytes *= 2;
        }
        let (offset, frame) = (head.offset, head.number);
        self.sparse.push(SparseEntry { group: run.group, first: run.first, offset, frame });
    }

    /// Every second place goes, and its memory with it.
    fn thin_out(&mut self) {
        let kept = self.sparse.iter().copied().step_by(2);
        self.sparse = Vec::from_iter(kept);
    }

    /// The last place of the sparse index, among frames from `frame_min` on, that does not lie behind `from`.
    fn nearest(&self, group: GroupId, from: Index, frame_min: FrameNumber) -> Option<&SparseEntry> {
        let fits = |entry: &&SparseEntry| entry.group == group && entry.frame >= frame_min && entry.first <= from;
        self.sparse.iter().rev().find(fits)
    }
}

impl GroupSpans {
    /// Takes in a run of entries, which may begin a span.
    fn note_entries(&mut self, run: &Run, span: Span) {
        if run.first < self.end {
            self.cut(run.first);
        }
        if self.is_cut || self.spans.is_empty() || run.first > self.end {
            self.spans.push(span);
        }
        if self.starts.back().is_none_or(|last| last.segment < span.segment) {
            self.starts.push_back(span);
        }
        self.is_cut = false;
        self.end = run.end();
    }

    /// Where the live entries begin, of which the first is `first`; none if there is no such entry.
    fn live_from(&self, first: Index) -> Option<&Span> {
        let at = self.spans.partition_point(|span| span.first <= first).saturating_sub(1);
        self.spans.get(at).filter(|_| first < self.end)
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
