//! Reads a whole log and says what it holds: the read-only half of recovery.
//!
//! ```text
//!  files ─▶ headers ─▶ open frames ─▶ the chain, walked back from the newest open frame by the predecessor it names
//!                                        └─▶ frames, walked forward; each fault judged by the table in recovery.rs
//! ```
//!
//! Nothing is changed here. What is wrong becomes a [`Finding`]; whoever opens the log to write decides what follows:
//! a log with a corrupt or unclear finding is not opened.

use std::collections::{BTreeMap, BTreeSet};

use super::chain::{self, Candidate};
use super::dead::Suspect;
use super::error::{Error, Finding, LogIds, Severity};
use super::frame::Run;
use super::group::GroupLog;
use super::locator::Locator;
use super::recovery::Acknowledged;
use super::sections::OpenSection;
use super::segment::{Identity, SegmentHeader, segment_name};
use super::surplus::{Surplus, shorten};
use crate::disk::{FileId, Files};
use crate::mutant::{self, Mutant};
use crate::types::{FrameNumber, GroupId, Index, Membership, Place, SegmentNumber};

/// Where a log lies and what is known of it from elsewhere.
#[derive(Clone, Debug)]
pub struct Source {
    /// The directory, as [`Files`] knows it.
    pub directory: String,
    /// Whose log it must be; `None` takes what the first segment says (for tools that look from outside).
    pub identity: Option<Identity>,
    /// The durable end that the superblock carries: everything up to it had been on disk.
    pub evidence: Place,
    /// Whether the log is opened to be written: then files are locked, and flushed before they are read.
    pub exclusive: bool,
    pub reading: Reading,
}

impl Source {
    /// For whoever looks without opening the log, and knows nothing else of it: everything is read.
    pub fn from_outside(directory: &str) -> Source {
        Source {
            directory: directory.to_owned(),
            identity: None,
            evidence: Place::START,
            exclusive: false,
            reading: Reading::Everything,
        }
    }
}

/// How much of a log is read to say what it holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reading {
    /// Every frame, with its checksums.
    Everything,
    /// Of all segments but the last two the open frame and the seal, and the frames that hold configurations. Damage to
    /// the others is not seen by that: it is found by who reads there.
    BySeals,
}

/// What a log holds.
#[derive(Debug)]
pub struct Analysis {
    /// Whose log it is, if there is any segment.
    pub identity: Option<Identity>,
    /// The chain, oldest first.
    pub chain: Vec<ChainSegment>,
    /// Segments that are in no chain: never joined, or not needed any more.
    pub spare: Vec<SpareSegment>,
    /// Segments of this log that are in no chain because of damage: before a hole in it, or of another length than their
    /// headers say. What stands in them can be looked at.
    pub unjoined: Vec<(SegmentHeader, FileId)>,
    /// Every segment file that was opened, in the chain or not: see [`Analysis::close`].
    pub files: Vec<FileId>,
    /// Files under temporary names, left by a crash.
    pub leftovers: Vec<String>,
    pub groups: BTreeMap<GroupId, GroupLog>,
    /// The last entry of each group that lies before the chain and was not written again: up to it the terms in
    /// `groups` are not known.
    pub(super) unread: BTreeMap<GroupId, Index>,
    /// The configurations in each group's log, in order of index.
    pub memberships: BTreeMap<GroupId, Vec<(Index, Membership)>>,
    pub locator: Locator,
    /// The end of the last valid frame.
    pub end: Place,
    /// What the last valid frame holds: the next one repeats it.
    pub last_runs: Vec<Run>,
    /// The highest durable end that something proves.
    pub proven: Place,
    /// Bytes of the last segment that were being written when the power went.
    pub torn: Option<std::ops::Range<u64>>,
    /// Above every number ever seen.
    pub next_segment: SegmentNumber,
    /// What is wrong, at most [`crate::limits::FINDINGS_MAX`] of the files themselves and as many of what stands in them: see
    /// [`Analysis::findings_more`].
    pub findings: Vec<Finding>,
    /// What was found beyond the bound.
    pub(super) surplus: Surplus,
    /// Findings before this one are of the files themselves, and bounded apart.
    pub(super) files_found: usize,
    /// Findings that may be about what was replaced since: see [`super::dead`].
    pub(super) suspects: Vec<Suspect>,
}

/// One segment of the chain, and what was counted in it.
#[derive(Clone, Debug)]
pub struct ChainSegment {
    pub header: SegmentHeader,
    pub file: FileId,
    /// Its room up to here is in use.
    pub end: u64,
    /// How it joins its predecessor.
    pub open: OpenSection,
    pub frames: u64,
    pub records: u64,
    pub record_bytes: u64,
    pub is_sealed: bool,
}

/// A segment in no chain.
#[derive(Clone, Copy, Debug)]
pub struct SpareSegment {
    pub header: SegmentHeader,
    pub file: FileId,
    /// Everything between its headers was read, and is zero. Where the log is opened to be written, none of it is room that
    /// was only reserved, as far as the file system tells.
    pub is_zero: bool,
    /// It has no open frame: each start reads all of it, to see that it holds nothing.
    pub is_unopened: bool,
}

impl Analysis {
    /// Reads the log at `source`.
    pub fn read<F: Files>(files: &F, source: &Source) -> Result<Analysis, Error> {
        Ok(chain::gather(files, source)?.read(files, source, None))
    }

    /// Closes all its files.
    pub fn close<F: Files>(&self, files: &F) {
        self.files.iter().for_each(|&file| files.close(file));
    }

    /// Of a directory that holds no segment.
    pub fn empty(identity: Option<Identity>, next_segment: SegmentNumber) -> Analysis {
        Analysis {
            identity,
            chain: Vec::new(),
            spare: Vec::new(),
            unjoined: Vec::new(),
            files: Vec::new(),
            leftovers: Vec::new(),
            groups: BTreeMap::new(),
            unread: BTreeMap::new(),
            memberships: BTreeMap::new(),
            locator: Locator::default(),
            end: Place::START,
            last_runs: Vec::new(),
            proven: Place::START,
            torn: None,
            next_segment,
            findings: Vec::new(),
            surplus: Surplus::default(),
            files_found: 0,
            suspects: Vec::new(),
        }
    }

    /// Segments of this log below `needed_from` are spare, too, once it is open: what says so may not be durable before.
    pub(super) fn take_files(
        &mut self,
        candidates: &[Candidate],
        linked: &[SegmentNumber],
        needed_from: SegmentNumber,
    ) {
        self.files = candidates.iter().map(|candidate| candidate.file).collect();
        let linked: BTreeSet<SegmentNumber> = linked.iter().copied().collect();
        let is_spare = |own: &&Candidate| own.is_spare || (own.header.is_some() && own.number < needed_from);
        let spare = candidates.iter().filter(is_spare).filter(|candidate| !linked.contains(&candidate.number));
        let spare = spare.filter_map(|own| {
            let is_zero = own.is_zero && !own.has_holes;
            let is_unopened = own.is_spare && own.open.is_none();
            Some(SpareSegment { header: own.header?, file: own.file, is_zero, is_unopened })
        });
        self.spare = spare.collect();
    }

    /// Whether it is what the making of a log leaves that does not come to its end: no log, or one in which nothing was
    /// ever written.
    pub fn is_half_made(&self) -> bool {
        self.groups.is_empty() && self.end.frame <= FrameNumber(1) && self.damage().is_none()
    }

    /// The worst that was found.
    pub fn severity(&self) -> Option<Severity> {
        self.findings.iter().map(|finding| finding.severity).max()
    }

    /// The finding that forbids opening the log, if there is one.
    pub fn damage(&self) -> Option<&Finding> {
        self.findings.iter().find(|finding| finding.severity >= Severity::Unclear)
    }

    /// What the superblock has seen durable must be there, up to its last frame.
    pub(super) fn check_end(&mut self, source: &Source) {
        let evidence = source.evidence;
        if mutant::is_on(Mutant::ZerosAccepted) || evidence.frame <= self.end.frame || self.damage().is_some() {
            return;
        }
        let is_there = self.chain.last().is_some_and(|last| last.header.number >= evidence.segment);
        let what = match is_there {
            true => format!("frames {} to {} were durable and are missing", self.end.frame.next(), evidence.frame),
            false => format!("missing: it had been durable up to offset {}, frame {}", evidence.offset, evidence.frame),
        };
        let file = segment_name(&source.directory, evidence.segment);
        self.note((Severity::Corrupt, Acknowledged::Yes), (&file, 0..evidence.offset), what, Vec::new());
    }

    /// How many findings there are that are counted and not kept: none of them is worse than any that was kept instead.
    pub fn findings_more(&self) -> u64 {
        self.surplus.sum(None)
    }

    pub(super) fn found(&mut self, mut finding: Finding) {
        shorten(&mut finding, self.runs_left());
        self.keep(finding);
    }

    /// As [`Analysis::found`], of a finding that names no more than it may.
    pub(super) fn keep(&mut self, finding: Finding) {
        if let Some(crowded) = self.surplus.keep((&mut self.findings, self.files_found), finding) {
            self.suspects.iter_mut().filter(|suspect| suspect.at > crowded.at).for_each(|suspect| suspect.at -= 1);
        }
    }

    pub(super) fn note(
        &mut self,
        (severity, acknowledged): (Severity, Acknowledged),
        (file, bytes): (&str, std::ops::Range<u64>),
        what: String,
        entries: Vec<LogIds>,
    ) {
        let (file, acknowledged) = (file.to_owned(), Some(acknowledged));
        self.found(Finding { severity, file, bytes, what, acknowledged, entries });
    }
}

impl ChainSegment {
    pub fn name(&self, directory: &str) -> String {
        segment_name(directory, self.header.number)
    }
}
