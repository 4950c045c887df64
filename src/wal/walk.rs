//! Walks the chain's frames forward and takes in what they say.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::analysis::{Analysis, ChainSegment, Reading, Source};
use super::body::{BodyFault, FrameView, Sections, extend_runs};
use super::chain::{Candidate, head_fault};
use super::error::{Finding, LogIds, Severity};
use super::frame::{FrameHead, FrameKind, Run};
use super::group::GroupLog;
use super::record::{RecordHead, RecordKind};
use super::recovery::{Acknowledged, Evidence, Fault, Judgement, Site, Verdict, judge};
use super::scan::{Found, Scan};
use super::sealed;
use super::sections::OpenSection;
use super::segment::{FRAMES_START, segment_name};
use super::window::Window;
use crate::codec;
use crate::disk::Files;
use crate::limits::BLOCK_BYTES;
use crate::mutant::{self, Mutant};
use crate::types::{Data, FrameNumber, GroupId, Index, LogId, Membership, Payload, Place, SegmentNumber};

/// Segments at the end of the chain that are read whole, whatever else is not.
const READ_WHOLE_MIN: usize = 2;

/// Walks the segments `linked` of `candidates`, oldest first, the last one up to `until` if that is given. Older ones are
/// taken in by their seals if `source` wants it so.
pub(super) fn walk<F: Files>(
    files: &F,
    candidates: &[Candidate],
    linked: &[SegmentNumber],
    (source, until): (&Source, Option<Place>),
    analysis: &mut Analysis,
) {
    let of = |number: &SegmentNumber| candidates.iter().find(|candidate| candidate.number == *number);
    let chain: Vec<&Candidate> = linked.iter().filter_map(of).collect();
    analysis.proven = source.evidence;
    let mut window = Window::default();
    for (at, candidate) in chain.iter().enumerate() {
        let (Some(header), Some(open)) = (candidate.header, &candidate.open) else { continue };
        if at == 0 {
            begin(analysis, &open.section);
        }
        let next = chain.get(at + 1).and_then(|next| next.open.as_ref());
        let own_until = until.filter(|until| until.segment == header.number);
        let end = next.map_or(own_until, |open| Some(open.section.predecessor_end));
        analysis.chain.push(ChainSegment {
            header,
            file: candidate.file,
            end: FRAMES_START,
            open: open.section.clone(),
            frames: 0,
            records: 0,
            record_bytes: 0,
            is_sealed: false,
        });
        analysis.locator.add_segment(header, candidate.file, open.section.wall_clock_milliseconds);
        let is_by_seal = source.reading == Reading::BySeals && at + READ_WHOLE_MIN < chain.len();
        if let Some(next) = next.filter(|_| is_by_seal && analysis.damage().is_none()) {
            let end = next.section.predecessor_end.offset;
            let mut scan = Scan::for_reader(files, (candidate.file, header), end, window);
            let is_taken = sealed::take(&mut scan, (open.number, &next.section), analysis);
            window = scan.into_window();
            if is_taken {
                continue;
            }
        }
        let name = segment_name(&source.directory, header.number);
        let expected = open.number;
        let scan = Scan::with_window(files, (candidate.file, header), window).expect_all();
        let evidence = source.evidence;
        window = SegmentWalk { scan, name, end, evidence, expected, at: FRAMES_START, has_rest: false }.run(analysis);
    }
}

/// What a log must hold beside frames that join each other.
pub(super) fn check_ends(source: &Source, analysis: &mut Analysis) {
    check_beginning(source, analysis);
    analysis.check_end(source);
}

/// Takes the groups from the oldest open frame: what lay before it is gone, or missing.
fn begin(analysis: &mut Analysis, open: &OpenSection) {
    for start in &open.groups {
        let mut group = GroupLog::new(start.group, start.before_first, start.last_place);
        if start.last.index > start.before_first.index {
            // The terms between are in the predecessors; whether they are needed is decided when all is read.
            group.terms.push((group.first(), start.last.term));
            group.last = start.last;
            analysis.unread.insert(start.group, start.last.index.previous());
        }
        analysis.groups.insert(start.group, group);
    }
}

/// Entries that only a missing predecessor could hold must have been purged since.
fn check_beginning(source: &Source, analysis: &mut Analysis) {
    let Some(oldest) = analysis.chain.first().map(|oldest| oldest.open.clone()) else { return };
    let predecessor_end = oldest.predecessor_end;
    let missing = predecessor_end.segment;
    let needed = needed_before_chain(analysis);
    if needed.is_empty() {
        return;
    }
    analysis.note(
        (Severity::Corrupt, Acknowledged::Yes),
        (&segment_name(&source.directory, missing), 0..predecessor_end.offset),
        "the segment is missing, or its open frame cannot be read".to_owned(),
        needed,
    );
}

/// Whether entries are needed that lie before the chain.
pub(super) fn lacks_beginning(analysis: &Analysis) -> bool {
    !needed_before_chain(analysis).is_empty()
}

fn needed_before_chain(analysis: &Analysis) -> Vec<LogIds> {
    let Some(oldest) = analysis.chain.first() else { return Vec::new() };
    let mut replaced = BTreeMap::new();
    analysis.chain.iter().for_each(|own| take_replaced(analysis, own.header.number, &mut replaced));
    needed_before(analysis, &oldest.open, &replaced)
}

/// The lowest index of each group at which entries or a cut begin in this segment, if it is lower than what is known.
pub(super) fn take_replaced(analysis: &Analysis, number: SegmentNumber, replaced: &mut BTreeMap<GroupId, Index>) {
    for (&group, &from) in analysis.locator.segment(number).iter().flat_map(|segment| &segment.lowest) {
        let lowest = replaced.entry(group).or_insert(from);
        *lowest = from.min(*lowest);
    }
}

/// What only segments before the one that begins so can hold, and was neither purged since nor `replaced` in that one or
/// behind it.
pub(super) fn needed_before(
    analysis: &Analysis,
    open: &OpenSection,
    replaced: &BTreeMap<GroupId, Index>,
) -> Vec<LogIds> {
    let mut needed = Vec::new();
    if open.predecessor_end.segment.0 == 0 {
        return needed;
    }
    for start in &open.groups {
        let own = analysis.groups.get(&start.group);
        let first = own.map_or(start.before_first.index.next(), GroupLog::first);
        let last = start.last;
        let end = replaced.get(&start.group).map_or(last.index.next(), |&from| from.min(last.index.next()));
        let unnamed = first..end.min(last.index);
        if !unnamed.is_empty() {
            needed.push(LogIds::unnamed(start.group, unnamed));
        }
        if first <= last.index && last.index < end {
            let term = Some(last.term);
            needed.push(LogIds { first: last.index, term, ..LogIds::unnamed(start.group, first..last.index.next()) });
        }
    }
    needed
}

/// One segment's walk.
struct SegmentWalk<'a, F: Files> {
    scan: Scan<'a, F>,
    name: String,
    /// Where a later segment says that this one ends; `None` for the last.
    end: Option<Place>,
    /// What the superblock has seen durable.
    evidence: Place,
    /// The number that the next frame must have.
    expected: FrameNumber,
    at: u64,
    /// A damaged frame was taken in. What its damaged records were is not known, so a seal cannot be compared.
    has_rest: bool,
}

/// What was found at one place.
enum Step {
    Accepted(FrameHead, Contents),
    Faulty(Faulty),
}

/// What is in a frame that is taken in, but for clients' records: sections, and the intact records that are not theirs.
pub(super) struct Contents {
    pub sections: Sections,
    internal: Vec<InternalRecord>,
}

/// What is wrong with a frame whose head is intact.
pub(super) struct Flaw {
    fault: Fault,
    what: String,
    /// The directory holds: it is records that are damaged.
    is_in_records: bool,
}

/// What is known of a frame that is not as it was written.
struct Faulty {
    fault: Fault,
    what: String,
    head: Option<FrameHead>,
    /// The records concerned, if the frame's own directory can be read.
    ids: Option<Vec<LogIds>>,
    /// What else the frame says, if nothing but entries is damaged.
    rest: Option<Contents>,
}

/// A record that is not a client's.
struct InternalRecord {
    /// Records before it in the frame. A frame may hold the same index several times, so this says which run is its own.
    ordinal: u64,
    index: Index,
    payload: Payload,
}

impl<F: Files> SegmentWalk<'_, F> {
    /// Gives the window back for the next segment.
    fn run(mut self, analysis: &mut Analysis) -> Window {
        loop {
            let limit = self.end.map_or(self.scan.header.frames_end(), |end| end.offset);
            if self.at >= limit || self.goes_on_elsewhere(analysis) {
                break;
            }
            match self.step() {
                Step::Accepted(head, contents) => self.accept(analysis, &head, contents),
                Step::Faulty(faulty) => {
                    if !self.judge(analysis, faulty) {
                        return self.scan.into_window();
                    }
                }
            }
        }
        self.check_named_end(analysis);
        self.scan.into_window()
    }

    /// Nothing stands behind a seal. What was durable behind it lay in the next segment, which is not there: that one is
    /// missing, and nothing is wrong with this one.
    fn goes_on_elsewhere(&self, analysis: &Analysis) -> bool {
        let is_sealed = analysis.chain.last().is_some_and(|segment| segment.is_sealed);
        let is_seen = self.evidence.segment > self.scan.header.number && self.evidence.frame >= self.expected;
        self.site() == Site::Tail && is_sealed && is_seen
    }

    fn step(&mut self) -> Step {
        let problem = match self.scan.frame_at(self.at) {
            Found::Frame(frame) => {
                let head = frame.head;
                if head.number != self.expected && !mutant::is_on(Mutant::OlderGenerationAccepted) {
                    let what = format!("frame {} stands where frame {} should", head.number, self.expected);
                    return Step::Faulty(Faulty {
                        fault: Fault::HeadDamaged,
                        what,
                        head: Some(head),
                        ids: None,
                        rest: None,
                    });
                }
                return match contents(&frame) {
                    Ok(contents) => Step::Accepted(head, contents),
                    Err(Flaw { fault, what, is_in_records }) => {
                        let rest = if is_in_records { rest_of(&frame) } else { None };
                        Step::Faulty(Faulty { fault, what, head: Some(head), ids: damaged_ids(&frame), rest })
                    }
                };
            }
            Found::Fault(problem) => problem,
        };
        let fault = head_fault(&mut self.scan, self.at, &problem);
        Step::Faulty(Faulty { fault, what: problem.to_string(), head: None, ids: None, rest: None })
    }

    fn accept(&mut self, analysis: &mut Analysis, head: &FrameHead, contents: Contents) {
        let sections = &contents.sections;
        if analysis.damage().is_none() {
            self.check_names(analysis, head, sections);
            if !self.has_rest {
                self.check_seal(analysis, head, sections);
            }
        }
        take_runs(analysis, head, &sections.own);
        let segment = analysis.chain.last_mut().expect("the segment was pushed before its walk");
        segment.end = head.end().offset;
        segment.frames += 1;
        segment.records += head.records as u64;
        segment.record_bytes += head.records_bytes as u64;
        segment.is_sealed = head.kind == FrameKind::Seal;
        analysis.locator.note(head, &sections.own, contents.holds_membership());
        analysis.end = head.end();
        analysis.last_runs.clone_from(&sections.own);
        analysis.proven = analysis.proven.max(head.durable);
        take_internal(analysis, contents);
        self.at = head.end().offset;
        self.expected = head.number.next();
    }

    /// A seal says where the frames before it lie and what they do to the log. Whoever reads by it must find what a scan
    /// finds.
    fn check_seal(&mut self, analysis: &mut Analysis, head: &FrameHead, sections: &Sections) {
        if sections.seal.as_ref().is_some_and(|seal| *seal != analysis.locator.seal()) {
            let what = format!("frame {}: the seal says other than what is in the segment", head.number);
            self.contradicted(analysis, head, what, Vec::new());
        }
    }

    /// Runs must join what is there: a gap, or another term before them, means that frames are missing.
    fn check_names(&mut self, analysis: &mut Analysis, head: &FrameHead, sections: &Sections) {
        let mut problem = None;
        for run in sections.own.iter().filter(|run| run.kind == RecordKind::Entry) {
            let Some(group) = analysis.groups.get(&run.group) else { continue };
            // Within one frame a run may join the run before it, which is not taken in yet.
            let joins_own = sections.own.iter().any(|other| other.group == run.group && other.end() == run.first);
            let joins = joins(group, analysis.unread.get(&run.group).copied(), run);
            if !joins && !joins_own && sections.own.iter().find(|other| other.group == run.group) == Some(run) {
                problem = Some(format!("group {} goes on at {}, after {}", run.group, run.first, group.last));
            }
        }
        if let Some(what) = problem {
            self.contradicted(analysis, head, what, sections.own.iter().map(LogIds::of).collect());
        }
    }

    /// A frame is intact, and what it says is not what the frames before it say.
    fn contradicted(&mut self, analysis: &mut Analysis, head: &FrameHead, what: String, ids: Vec<LogIds>) {
        let acknowledged = Acknowledged::by(self.evidence(None, analysis.proven).0);
        let place = (self.name.as_str(), head.offset..head.end().offset);
        analysis.note((Severity::Corrupt, acknowledged), place, what, ids);
    }

    /// Judges a fault and records what follows; tells whether there is something behind it to go on with.
    fn judge(&mut self, analysis: &mut Analysis, faulty: Faulty) -> bool {
        let (evidence, proven, later) = self.evidence(Some(faulty.fault), analysis.proven);
        let Judgement { verdict, acknowledged } = judge(faulty.fault, self.site(), evidence);
        let head = faulty.head;
        match verdict {
            Verdict::Accept => unreachable!("an intact frame is no fault"),
            Verdict::End => return false,
            Verdict::Torn | Verdict::NotJoined => {
                let end = self.scan.header.frames_end();
                analysis.torn = Some(self.at..end);
                let what = format!("frame {}: {}", self.expected, faulty.what);
                let ids = faulty.ids.unwrap_or_default();
                analysis.note((Severity::Torn, acknowledged), (&self.name, self.at..end), what, ids);
                return false;
            }
            Verdict::Corrupt => self.report(analysis, (Severity::Corrupt, acknowledged), faulty, &later),
            // Only what is proven may turn out to be dead: what nothing proves is copied, and must be whole.
            Verdict::Unclear => {
                self.report(analysis, (Severity::Unclear, acknowledged), Faulty { rest: None, ..faulty }, &later);
            }
        }
        analysis.proven = analysis.proven.max(proven);
        self.skip(head, &later)
    }

    fn site(&self) -> Site {
        if self.end.is_some() { Site::Within } else { Site::Tail }
    }

    /// Whether something shows that the frame at this place had been durable; the highest durable end that is known
    /// then, and the heads that were found behind the place.
    fn evidence(&mut self, fault: Option<Fault>, proven: Place) -> (Evidence, Place, Vec<FrameHead>) {
        let site = self.site();
        // Behind what is zero to the end of the segment there is nothing to look for.
        let later = if fault == Some(Fault::Nothing) { Vec::new() } else { self.later_heads(site, proven) };
        let proven = later.iter().map(|head| head.durable).max().unwrap_or_default().max(proven);
        let is_covered = site == Site::Within || proven.frame >= self.expected;
        (if is_covered { Evidence::Covered } else { Evidence::Uncovered }, proven, later)
    }

    /// Intact heads behind this place, with rising numbers: what stands there was written after it. Only the first
    /// where the others could not change the verdict.
    fn later_heads(&mut self, site: Site, proven: Place) -> Vec<FrameHead> {
        let is_decided = site == Site::Within || proven.frame >= self.expected;
        let mut heads = Vec::new();
        let mut at = self.at + BLOCK_BYTES as u64;
        let mut above = self.expected;
        while let Some(head) = self.scan.next_head(at, above) {
            if self.end.is_some_and(|end| head.offset >= end.offset) {
                break;
            }
            (at, above) = (head.end().offset, head.number);
            heads.push(head);
            if is_decided {
                break;
            }
        }
        heads
    }

    fn report(
        &mut self,
        analysis: &mut Analysis,
        severity: (Severity, Acknowledged),
        Faulty { what, head, ids, rest, .. }: Faulty,
        later: &[FrameHead],
    ) {
        let next = later.first().copied();
        let named = head.filter(|head| head.number == self.expected).map(|head| head.end().offset);
        let end = named.or(next.map(|next| next.offset)).or(self.end.map(|end| end.offset));
        let end = end.unwrap_or(self.scan.header.frames_end());
        let ids = ids.or_else(|| Some(self.names_from(next)?.iter().map(LogIds::of).collect()));
        let known = if ids.is_some() { "" } else { "; which entries it held is not known" };
        let what = format!("frame {}: {what}{known}", self.expected);
        let (bytes, entries, (severity, acknowledged)) = (self.at..end, ids.unwrap_or_default(), severity);
        let (file, acknowledged) = (self.name.clone(), Some(acknowledged));
        let finding = Finding { severity, file, bytes, what, acknowledged, entries };
        match head.zip(rest) {
            Some((head, rest)) => self.take_rest(analysis, (&head, rest), finding),
            None => analysis.found(finding),
        }
    }

    /// Takes in a frame of which entries are damaged that may be dead: for whoever else has records in it, and so that
    /// readers find that others replaced them.
    fn take_rest(&mut self, analysis: &mut Analysis, (head, rest): (&FrameHead, Contents), finding: Finding) {
        self.has_rest = true;
        let sections = &rest.sections;
        if analysis.damage().is_none() {
            self.check_names(analysis, head, sections);
        }
        take_runs(analysis, head, &sections.own);
        analysis.locator.note(head, &sections.own, rest.holds_membership());
        analysis.locator.mark_unverified(head.segment);
        analysis.last_runs.clone_from(&sections.own);
        take_internal(analysis, rest);
        analysis.suspect(finding);
    }

    /// What the frame behind the damaged one says that it held.
    fn names_from(&mut self, next: Option<FrameHead>) -> Option<Vec<Run>> {
        let next = next.filter(|next| next.number == self.expected.next())?;
        let Found::Frame(frame) = self.scan.frame_at(next.offset) else { return None };
        frame.sections().ok().map(|sections| sections.previous)
    }

    /// Moves behind the damaged place, to the next frame; tells whether there is one.
    fn skip(&mut self, head: Option<FrameHead>, later: &[FrameHead]) -> bool {
        let own = head.filter(|head| head.number == self.expected);
        if let Some(own) = own {
            (self.at, self.expected) = (own.end().offset, own.number.next());
            return true;
        }
        match later.first() {
            Some(next) => {
                (self.at, self.expected) = (next.offset, next.number);
                true
            }
            None => false,
        }
    }

    /// The walk must have ended exactly where the next segment says.
    fn check_named_end(&self, analysis: &mut Analysis) {
        let Some(end) = self.end else { return };
        if (self.at, self.expected) != (end.offset, end.frame.next()) && analysis.damage().is_none() {
            let what = format!(
                "the segment ends with frame {} at {}, expected {end}",
                self.expected.0.saturating_sub(1),
                self.at
            );
            let place = (self.name.as_str(), self.at..end.offset.max(self.at));
            analysis.note((Severity::Corrupt, Acknowledged::Yes), place, what, Vec::new());
        }
    }
}

/// Does what the runs of a frame say.
fn take_runs(analysis: &mut Analysis, head: &FrameHead, own: &[Run]) {
    for run in own {
        analysis.end_suspects(run);
        take_run((&mut analysis.groups, &mut analysis.unread), run, head.end());
    }
}

/// Whether a run of entries joins what its group has; `unread` is the last entry whose term is not known.
pub(super) fn joins(group: &GroupLog, unread: Option<Index>, run: &Run) -> bool {
    let before = run.first.previous();
    let is_unread = unread.is_some_and(|last| before <= last);
    group.id_at(before).is_some_and(|id| is_unread || id.term == run.previous_term)
}

/// Does to its group what a run says that ends at `end`.
pub(super) fn take_run(
    (groups, unread): (&mut BTreeMap<GroupId, GroupLog>, &mut BTreeMap<GroupId, Index>),
    run: &Run,
    end: Place,
) {
    let group = groups.entry(run.group).or_insert_with(|| {
        let before = LogId::new(run.previous_term, run.first.previous());
        GroupLog::new(run.group, before, Place::START)
    });
    group.apply(run, end);
    if let Some(unread) = unread.get_mut(&run.group).filter(|_| run.kind != RecordKind::Purge) {
        *unread = (*unread).min(run.first.previous());
    }
}

/// Takes in a frame's configurations.
pub(super) fn take_internal(analysis: &mut Analysis, Contents { sections, internal }: Contents) {
    let mut internal = internal.into_iter().peekable();
    let mut end = 0;
    for run in &sections.own {
        let memberships = end_memberships(analysis, run);
        end += u64::from(run.count);
        while let Some(record) = internal.next_if(|record| record.ordinal < end) {
            if let Payload::Membership(membership) = record.payload {
                memberships.push((record.index, *membership));
            }
        }
    }
}

/// The configurations of a run's group that it leaves.
pub(super) fn end_memberships<'a>(analysis: &'a mut Analysis, run: &Run) -> &'a mut Vec<(Index, Membership)> {
    let memberships = analysis.memberships.entry(run.group).or_default();
    match run.kind {
        RecordKind::Entry | RecordKind::Truncate => memberships.retain(|&(index, _)| index < run.first),
        RecordKind::Purge => {}
    }
    memberships
}

impl Contents {
    fn holds_membership(&self) -> bool {
        self.internal.iter().any(|record| matches!(record.payload, Payload::Membership(_)))
    }
}

/// Verifies a frame and takes out what is in it, or says what is wrong.
pub(super) fn contents(frame: &FrameView<'_>) -> Result<Contents, Flaw> {
    let mut internal = Vec::new();
    let mut malformed = None;
    let mut ordinal = 0;
    let verified = frame.verify(|record, payload| {
        match internal_record((ordinal, record), payload) {
            Ok(found) => internal.extend(found),
            Err(error) => malformed = Some(error),
        }
        ordinal += 1;
    });
    let is_in_records = matches!(verified, Err(BodyFault::Record { .. }));
    let (fault, what) = match (verified, malformed) {
        (Ok(sections), None) => return Ok(Contents { sections, internal }),
        (Ok(_), Some(error)) => (Fault::BodyDamaged, error.to_string()),
        (Err(error), _) if frame.has_unwritten_sectors() => (Fault::BodyUnwritten, error.to_string()),
        (Err(error), _) => (Fault::BodyDamaged, error.to_string()),
    };
    Err(Flaw { fault, what, is_in_records })
}

/// The names of a frame's records that are damaged; of all if it is not a record that is. `None` if its directory cannot
/// be read.
fn damaged_ids(frame: &FrameView<'_>) -> Option<Vec<LogIds>> {
    let own = frame.sections().ok()?.own;
    let mut damaged = Vec::new();
    frame.salvage(&own, |(group, kind, id), record| {
        if record.is_err() {
            extend_runs(&mut damaged, group, kind, id, LogId::ZERO);
        }
    });
    let concerned = if damaged.is_empty() { &own } else { &damaged };
    Some(concerned.iter().map(LogIds::of).collect())
}

/// What a damaged frame says, if only records of entries are damaged in it.
fn rest_of(frame: &FrameView<'_>) -> Option<Contents> {
    let sections = frame.sections().ok()?;
    let mut internal = Vec::new();
    let mut is_known = true;
    let mut ordinal = 0;
    frame.salvage(&sections.own, |(_, kind, _), record| {
        match record.map(|(head, data)| internal_record((ordinal, head), data)) {
            Ok(Ok(found)) => internal.extend(found),
            Ok(Err(_)) => is_known = false,
            Err(_) => is_known &= kind == RecordKind::Entry,
        }
        ordinal += 1;
    });
    is_known.then_some(Contents { sections, internal })
}

/// Decodes what is not a client's. What does not decode under a valid checksum was written by another program.
fn internal_record(
    (ordinal, record): (u64, &RecordHead),
    payload: &[u8],
) -> Result<Option<InternalRecord>, codec::Error> {
    let is_data = record.payload_kind == 4;
    if record.kind != RecordKind::Entry || is_data {
        return Ok(None);
    }
    let data = Data { bytes: Bytes::copy_from_slice(payload), checksum: record.payload_checksum };
    let payload = codec::decode_payload(record.payload_kind, data)?;
    Ok(Some(InternalRecord { ordinal, index: record.id.index, payload }))
}
