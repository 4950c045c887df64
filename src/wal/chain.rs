//! Which segments are the log, in which order: headers, open frames, predecessors.

use std::collections::BTreeMap;
use std::io;

use super::analysis::{Analysis, Source};
use super::body::FrameView;
use super::dead;
use super::error::{Error, Finding, Severity};
use super::frame::{FrameHead, FrameKind, HeadFault, OPEN_FRAME_BYTES_MAX};
use super::recovery::{Evidence, Fault, Judgement, Site, Verdict, judge};
use super::scan::{Found, HeadProblem, Scan};
use super::sections::OpenSection;
use super::segment::{
    FORMAT_VERSION, FRAMES_START, HeaderFault, Identity, SegmentHeader, read_headers, segment_name, segment_number,
};
use super::surplus::Surplus;
use super::walk;
use super::window::Window;
use crate::disk::{FileId, Files, Operation};
use crate::limits::BLOCK_BYTES;
use crate::types::{FrameNumber, GroupId, Index, Place, SegmentNumber};

/// A segment file, and how it would join the chain.
#[derive(Debug)]
pub(super) struct Candidate {
    pub number: SegmentNumber,
    pub file: FileId,
    pub header: Option<SegmentHeader>,
    /// As `header`, also if the file has another length than it says: then it cannot join the chain, and what stands in it
    /// can be looked at.
    pub found: Option<SegmentHeader>,
    /// Its open frame, or the repetition of it in its second frame.
    pub open: Option<OpenFrame>,
    /// It is in no chain and holds nothing: may be used again.
    pub is_spare: bool,
    /// Everything between its headers reads as zero.
    pub is_zero: bool,
    /// Some of it may be room that was never written. Asked before anything is read: what was read through the page cache
    /// may seem written.
    pub has_holes: bool,
}

#[derive(Clone, Debug)]
pub(super) struct OpenFrame {
    pub number: FrameNumber,
    pub section: OpenSection,
}

/// What the directory holds.
#[derive(Debug)]
pub(super) struct Gathered {
    pub identity: Option<Identity>,
    /// In order of number.
    pub candidates: Vec<Candidate>,
    pub leftovers: Vec<String>,
    pub next_segment: SegmentNumber,
    pub findings: Vec<Finding>,
    surplus: Surplus,
    /// Damaged headers that are counted alone: at most one a file. How bad they are is seen when the chain is known.
    crowded: Vec<Finding>,
    /// Segments below this one are taken for files that a purge gave up.
    needed_from: SegmentNumber,
    /// From which index on segments behind these ended a group's entries, where the log that has them says so.
    pub ended_behind: BTreeMap<GroupId, Index>,
}

/// Opens every segment and reads its headers.
pub(super) fn gather<F: Files>(files: &F, source: &Source) -> Result<Gathered, Error> {
    let mut gathered = Gathered::nothing(source);
    let names = files.list(&source.directory)?;
    gathered.take_names(files, source, names).inspect_err(|_| gathered.close(files))?;
    Ok(gathered)
}

/// Opens these segments and reads their headers. One that has no file is left out: the walk says what is missing.
pub(super) fn gather_segments<F: Files>(
    files: &F,
    source: &Source,
    numbers: &[SegmentNumber],
) -> Result<Gathered, Error> {
    let mut gathered = Gathered::nothing(source);
    for &number in numbers {
        match gathered.add(files, source, number) {
            Err(Error::Disk(error)) if error.kind() == io::ErrorKind::NotFound => {}
            said => said.inspect_err(|_| gathered.close(files))?,
        }
    }
    Ok(gathered)
}

impl Gathered {
    fn nothing(source: &Source) -> Gathered {
        Gathered {
            identity: source.identity,
            candidates: Vec::new(),
            leftovers: Vec::new(),
            // A number is used once, also if the files that had it are gone.
            next_segment: source.evidence.segment.next(),
            findings: Vec::new(),
            surplus: Surplus::default(),
            crowded: Vec::new(),
            needed_from: SegmentNumber(0),
            ended_behind: BTreeMap::new(),
        }
    }

    /// Closes what was opened: nobody is to write on this log.
    pub fn close<F: Files>(&self, files: &F) {
        self.candidates.iter().for_each(|candidate| files.close(candidate.file));
    }

    /// Links the chain and reads it; as if nothing lay behind `until`, if that is given.
    pub fn read<F: Files>(&mut self, files: &F, source: &Source, until: Option<Place>) -> Analysis {
        let mut analysis = self.read_needed(files, source, until);
        self.judge_headers(source, &mut analysis);
        tell_once(&mut analysis);
        self.find_unjoined(&mut analysis);
        analysis
    }

    fn read_needed<F: Files>(&mut self, files: &F, source: &Source, until: Option<Place>) -> Analysis {
        self.needed_from = SegmentNumber(0);
        let mut analysis = self.read_part(files, source, until);
        walk::check_ends(source, &mut analysis);
        let Some(number) = dead::needed_from(&analysis) else { return analysis };
        if !analysis.findings[self.findings.len()..].iter().any(|finding| dead::is_below(finding, number)) {
            return analysis;
        }
        // What is damaged there no recovery would miss if its files were gone: so it is read as if they were.
        self.needed_from = number;
        let mut needed = self.read_part(files, source, until);
        walk::check_ends(source, &mut needed);
        if walk::lacks_beginning(&needed) {
            self.needed_from = SegmentNumber(0);
            return analysis;
        }
        dead::take_notes(&mut needed, analysis, (number, self.findings.len()));
        needed
    }

    /// As [`Gathered::read`], of a log that was read whole before: what allows that segments are gone from its beginning
    /// may lie behind `until`.
    pub fn read_part<F: Files>(&mut self, files: &F, source: &Source, until: Option<Place>) -> Analysis {
        let mut analysis = Analysis::empty(self.identity, self.next_segment);
        analysis.leftovers.clone_from(&self.leftovers);
        analysis.findings.clone_from(&self.findings);
        (analysis.surplus, analysis.files_found) = (self.surplus.clone(), self.findings.len());
        let mut known = Vec::new();
        let mut linked = link(files, &mut self.candidates, source, &mut known);
        known.retain(|finding| !dead::is_below(finding, self.needed_from));
        known.into_iter().for_each(|finding| analysis.found(finding));
        linked.retain(|&number| number >= self.needed_from);
        analysis.take_files(&self.candidates, &linked, self.needed_from);
        walk::walk(files, &self.candidates, &linked, (source, until), &mut analysis);
        self.ended_behind.iter().for_each(|(&group, &from)| analysis.end_suspects_from(group, from));
        analysis.settle_suspects();
        analysis
    }

    /// Which of the segments that cannot be used had been part of the log for certain: the superblock has seen something
    /// durable in them, or behind them.
    fn judge_headers(&self, source: &Source, analysis: &mut Analysis) {
        let last = analysis.chain.last().map(|segment| segment.header.number);
        let before = analysis.chain.first().map(|oldest| oldest.open.predecessor_end.segment);
        let before = before.filter(|_| walk::lacks_beginning(analysis));
        let evidence = source.evidence;
        let has_header = |number| self.candidates.iter().any(|own| own.number == number && own.header.is_some());
        let raise = |finding: &mut Finding| {
            let number = finding.segment().filter(|_| finding.severity == Severity::Unclear)?;
            let is_behind = last.is_none_or(|last| last < number);
            let is_covered = number <= evidence.segment && (is_behind || before == Some(number));
            let evidence_is = if is_covered { Evidence::Covered } else { Evidence::Uncovered };
            // Where its open frame is cannot be read.
            let Judgement { verdict, acknowledged } = judge(Fault::Unreadable, Site::Open, evidence_is);
            if verdict != Verdict::Corrupt || has_header(number) {
                return None;
            }
            (finding.severity, finding.acknowledged) = (Severity::Corrupt, Some(acknowledged));
            finding.what += &match evidence.segment == number {
                true => format!("; it had been durable up to offset {}, frame {}", evidence.offset, evidence.frame),
                false => format!("; the log had been durable up to {evidence}"),
            };
            Some(number)
        };
        for finding in &mut analysis.findings {
            raise(finding);
        }
        for mut finding in self.crowded.iter().cloned() {
            if let Some(number) = raise(&mut finding) {
                analysis.surplus.take_one(number);
                analysis.found(finding);
            }
        }
    }

    /// Segments in which something of this log may stand, and that do not join it: before a hole in the chain, or damaged
    /// themselves.
    fn find_unjoined(&self, analysis: &mut Analysis) {
        let numbers: Vec<SegmentNumber> = analysis.chain.iter().map(|segment| segment.header.number).collect();
        let hole = numbers.first().copied().filter(|_| walk::lacks_beginning(analysis));
        let mut unjoined = Vec::new();
        for candidate in self.candidates.iter().filter(|own| own.number >= self.needed_from) {
            let Some(header) = candidate.found.filter(|header| Some(header.identity) == self.identity) else {
                continue;
            };
            let is_before_hole = candidate.open.is_some() && hole.is_some_and(|oldest| candidate.number < oldest);
            if !numbers.contains(&candidate.number) && (is_before_hole || !candidate.is_spare) {
                unjoined.push((header, candidate.file));
            }
        }
        analysis.spare.retain(|spare| !unjoined.iter().any(|(header, _)| header.number == spare.header.number));
        analysis.unjoined = unjoined;
    }

    fn take_names<F: Files>(&mut self, files: &F, source: &Source, names: Vec<String>) -> Result<(), Error> {
        for name in names {
            self.take_name(files, source, &name)?;
        }
        Ok(())
    }

    fn take_name<F: Files>(&mut self, files: &F, source: &Source, name: &str) -> Result<(), Error> {
        match segment_number(name) {
            Some(number) => match self.add(files, source, number) {
                Err(Error::Disk(error))
                    if !source.exclusive && error.operation == Operation::Open && error.is_of_file() =>
                {
                    self.next_segment = self.next_segment.max(number.next());
                    let file = segment_name(&source.directory, number);
                    self.found(Finding::header(&file, 0, Severity::Unclear, error.to_string()));
                }
                said => said?,
            },
            None if name.ends_with(".preparing") => {
                self.leftovers.push(format!("{}/{name}", source.directory));
            }
            None if name.ends_with(".cut") => {}
            None => self.found(Finding {
                severity: Severity::Note,
                file: format!("{}/{name}", source.directory),
                bytes: 0..0,
                what: "not a file of the log".to_owned(),
                acknowledged: None,
                entries: Vec::new(),
            }),
        }
        Ok(())
    }

    fn add<F: Files>(&mut self, files: &F, source: &Source, number: SegmentNumber) -> Result<(), Error> {
        let name = segment_name(&source.directory, number);
        let file = if source.exclusive { files.open(&name)? } else { files.open_read(&name)? };
        self.candidates.push(Candidate {
            number,
            file,
            header: None,
            found: None,
            open: None,
            is_spare: false,
            is_zero: false,
            has_holes: source.exclusive && files.has_holes(file),
        });
        if source.exclusive {
            files.sync(file)?;
        }
        self.next_segment = self.next_segment.max(number.next());
        let length = files.length(file)?;
        let (header, is_damaged) = read_headers(files, file)?;
        let candidate = self.candidates.last_mut().expect("pushed above");
        let what = match header {
            Ok(header) if header.number == number && header.bytes == length => {
                (candidate.header, candidate.found) = (Some(header), Some(header));
                self.check_identity(&header)?;
                if is_damaged {
                    let what = format!("segment header: {}", HeaderFault::Checksum);
                    self.found(Finding::header(&name, length, Severity::Note, what));
                }
                return Ok(());
            }
            Ok(header) if header.number == number => {
                candidate.found = Some(header);
                format!("the file has {length} bytes, its header says {}", header.bytes)
            }
            Ok(header) => format!("the header is that of segment {}", header.number),
            Err(HeaderFault::NewerFormat { found }) => {
                return Err(Error::NewerFormat { segment: number, found, known: FORMAT_VERSION });
            }
            Err(_) if length < 2 * BLOCK_BYTES as u64 => format!("the file has {length} bytes"),
            Err(fault) => format!("segment header: {fault}"),
        };
        // Whether the log had been durable in it is seen when the chain is known.
        self.found(Finding::header(&name, length, Severity::Unclear, what));
        Ok(())
    }

    fn found(&mut self, finding: Finding) {
        let crowded = self.surplus.keep((&mut self.findings, 0), finding);
        let header = crowded.map(|crowded| crowded.finding).filter(|finding| finding.severity == Severity::Unclear);
        self.crowded.extend(header);
    }

    fn check_identity(&mut self, header: &SegmentHeader) -> Result<(), Error> {
        let expected = *self.identity.get_or_insert(header.identity);
        if expected == header.identity {
            return Ok(());
        }
        Err(Error::WrongIdentity { segment: header.number, expected, found: header.identity })
    }
}

/// Why a segment that the log lacks cannot join it, and which entries that costs, is one finding.
fn tell_once(analysis: &mut Analysis) {
    let before = analysis.chain.first().map(|oldest| oldest.open.predecessor_end.segment);
    let Some(number) = before.filter(|_| walk::lacks_beginning(analysis)) else { return };
    let is_damage = |finding: &Finding| finding.severity >= Severity::Unclear && finding.segment() == Some(number);
    let found = &mut analysis.findings;
    let Some(cause) = found.iter().position(is_damage) else { return };
    let Some(cost) = found.iter().rposition(is_damage).filter(|&cost| cost > cause) else { return };
    let Finding { severity, bytes, acknowledged, entries, .. } = found.remove(cost);
    let cause = &mut found[cause];
    (cause.severity, cause.acknowledged, cause.entries) = (severity, acknowledged, entries);
    cause.bytes = cause.bytes.start.min(bytes.start)..cause.bytes.end.max(bytes.end);
}

/// Reads the open frames and walks back from the newest: the chain's segments, oldest first.
fn link<F: Files>(
    files: &F,
    candidates: &mut [Candidate],
    source: &Source,
    findings: &mut Vec<Finding>,
) -> Vec<SegmentNumber> {
    let mut window = Window::default();
    for candidate in candidates.iter_mut() {
        (candidate.open, candidate.is_spare, candidate.is_zero) = (None, false, false);
        let Some(header) = candidate.header else { continue };
        // Mostly it is there, and more than it is not looked at.
        let end = FRAMES_START + OPEN_FRAME_BYTES_MAX as u64;
        let mut scan = Scan::for_reader(files, (candidate.file, header), end, window);
        if let Found::Frame(frame) = scan.frame_at(FRAMES_START) {
            candidate.open = open_frame(&frame).ok();
        }
        let mut scan = Scan::with_window(files, (candidate.file, header), scan.into_window());
        if candidate.open.is_none() {
            read_open(&mut scan, candidate, source, findings);
        }
        window = scan.into_window();
    }
    let newest = candidates.iter().filter(|candidate| candidate.open.is_some()).max_by_key(|candidate| {
        let number = candidate.open.as_ref().map(|open| open.number);
        (number, candidate.number)
    });
    let mut chain = Vec::new();
    let mut next = newest.map(|candidate| candidate.number);
    while let Some(candidate) = next.and_then(|number| candidates.iter().find(|own| own.number == number)) {
        let Some(open) = &candidate.open else { break };
        chain.push(candidate.number);
        let end = open.section.predecessor_end;
        // Predecessors have lower numbers: that is what makes this walk end.
        next = (end.segment.0 > 0 && end.segment < candidate.number).then_some(end.segment);
    }
    chain.reverse();
    // Retired ones lie before the chain; one that a recovery put another in the place of lies beside it.
    let is_passed = |candidate: &&mut Candidate| {
        chain.last() > Some(&candidate.number) && !chain.contains(&candidate.number) && candidate.open.is_some()
    };
    candidates.iter_mut().filter(is_passed).for_each(|candidate| candidate.is_spare = true);
    chain
}

fn read_open<F: Files>(
    scan: &mut Scan<'_, F>,
    candidate: &mut Candidate,
    source: &Source,
    findings: &mut Vec<Finding>,
) {
    let (fault, what) = match open_fault(scan) {
        Ok(open) => {
            candidate.open = Some(open);
            return;
        }
        Err(fault) => fault,
    };
    // Where nothing was ever written nothing is looked for again: most of these segments stand ready.
    let later = match fault {
        Fault::Nothing => None,
        _ => scan.next_head(FRAMES_START + BLOCK_BYTES as u64, FrameNumber(0)),
    };
    let is_covered = source.evidence.segment == candidate.number || proves_open(scan, later);
    let evidence = if is_covered { Evidence::Covered } else { Evidence::Uncovered };
    let Judgement { verdict, acknowledged } = judge(fault, Site::Open, evidence);
    let severity = match verdict {
        Verdict::NotJoined => {
            (candidate.is_spare, candidate.is_zero) = (true, fault == Fault::Nothing);
            return;
        }
        Verdict::Unclear => Severity::Unclear,
        _ => Severity::Corrupt,
    };
    candidate.open = later.and_then(|head| repeated_open(scan, &head));
    findings.push(Finding {
        severity,
        file: segment_name(&source.directory, candidate.number),
        bytes: FRAMES_START..later.map_or(scan.header.frames_end(), |head| head.offset),
        what: format!("the open frame: {what}"),
        acknowledged: Some(acknowledged),
        entries: Vec::new(),
    });
}

/// Whether a frame from `later` on shows that the open frame had been durable: its durable end lies in this segment.
/// Frames alone do not show it: where reads do not go past the page cache a recovery writes the open frame last.
fn proves_open<F: Files>(scan: &mut Scan<'_, F>, later: Option<FrameHead>) -> bool {
    let mut next = later;
    while let Some(head) = next {
        if head.durable.segment == scan.header.number {
            return true;
        }
        next = scan.next_head(head.end().offset, head.number);
    }
    false
}

/// The open frame, or what is wrong with it.
fn open_fault<F: Files>(scan: &mut Scan<'_, F>) -> Result<OpenFrame, (Fault, String)> {
    let problem = match scan.frame_at(FRAMES_START) {
        Found::Frame(frame) => return open_frame(&frame),
        Found::Fault(problem) => problem,
    };
    Err((head_fault(scan, FRAMES_START, &problem), problem.to_string()))
}

fn open_frame(frame: &FrameView<'_>) -> Result<OpenFrame, (Fault, String)> {
    let number = frame.head.number;
    match frame.verify(|_, _| {}) {
        Ok(sections) => match sections.open {
            Some(section) if frame.head.kind == FrameKind::Open => Ok(OpenFrame { number, section }),
            _ => Err((Fault::HeadDamaged, "another frame stands in its place".to_owned())),
        },
        Err(fault) if frame.has_unwritten_sectors() => Err((Fault::BodyUnwritten, fault.to_string())),
        Err(fault) => Err((Fault::BodyDamaged, fault.to_string())),
    }
}

/// What a place is where no head can be read.
pub(super) fn head_fault<F: Files>(scan: &mut Scan<'_, F>, offset: u64, problem: &HeadProblem) -> Fault {
    match problem {
        HeadProblem::Unreadable(_) => Fault::Unreadable,
        HeadProblem::Head(HeadFault::Zero) if scan.next_nonzero(offset).is_none() => Fault::Nothing,
        HeadProblem::Head(HeadFault::Zero) => Fault::HeadUnwritten,
        HeadProblem::Head(_) | HeadProblem::Beyond => Fault::HeadDamaged,
    }
}

/// The open section that the second frame repeats.
fn repeated_open<F: Files>(scan: &mut Scan<'_, F>, head: &FrameHead) -> Option<OpenFrame> {
    let Found::Frame(frame) = scan.frame_at(head.offset) else { return None };
    let section = frame.sections().ok()?.open?;
    Some(OpenFrame { number: FrameNumber(head.number.0 - 1), section })
}
