//! Repairs a log that recovery refuses, as far as its owner allows.
//!
//! ```text
//!   plan ──▶ steps ──▶ somebody reads them ──▶ apply: one kind of step, and the log is looked at anew, until none is left
//! ```
//!
//! Three kinds of step lose nothing: a header is written again from its twin; a damaged file that is in no chain is moved
//! out of the way; an end that was being written when the power went is cut as the next start would cut it. The fourth
//! loses what may have been acknowledged, and is taken only if it is ordered with the very [`Loss`] that was planned:
//!
//! ```text
//!   segment 7  ┌──────┬──────┬─╳─╳─┬──────┐      1. 7 and 8 are copied, and a manifest behind the copies
//!              │ open │ kept │     │ lost │      2. where it is asked for, a mark is left beside the log
//!   segment 8  ├──────┼──────┼─────┴──────┘      3. the open frame of a new segment names the end of what is kept
//!              │ lost │ lost │
//!   segment 9  ├──────┴──────┘   its open frame is numbered above every frame that was or may have been there,
//!              │ open            so it is the newest, and what the superblock has seen durable lies before it
//! ```
//!
//! Until step 3 is durable the log is the damaged one, and afterwards the repaired one. No byte of a segment that holds
//! frames is changed; where reads may tell what is in memory alone, what is kept and not proven is written again as it
//! is, before step 3.

use std::collections::BTreeSet;
use std::ops::Range;

use super::analysis::{Analysis, Source};
use super::chain::{self, Gathered};
use super::error::{Error, Finding, Severity};
use super::log::{Log, Options};
use super::loss::{self, Loss};
use super::resume::{self, open_segment};
use super::rewrite::{section_at, write_in_place};
use super::scan::Scan;
use super::segment::{FRAMES_START, Fill, segment_name};
use super::walk;
use crate::checksum::Checksum;
use crate::disk::{self, FileId, Files};
use crate::limits::BLOCK_BYTES;
use crate::random::Random;
use crate::types::{FrameNumber, Place, SegmentNumber};

/// Where damaged files go that are in no chain.
pub const SET_ASIDE_DIRECTORY: &str = "set-aside";
/// The file that says that a copy is whole, and of what.
pub const MANIFEST_NAME: &str = "manifest";
/// Headers, cut, what the cut put in the way, the end: one more than can be needed. And one for each file: of very many
/// that are damaged some are seen when the others are out of the way.
const ROUNDS_MAX: usize = 6;
/// Copied at once.
const COPY_BYTES: usize = 1 << 20;
/// A line for each segment and each group.
const MANIFEST_BYTES_MAX: u64 = 64 << 20;

/// What a repair does, in this order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// One of a segment's two headers is written again, from the other.
    RestoreHeader { file: String, offset: u64 },
    /// A damaged segment that is no part of the log is moved to [`SET_ASIDE_DIRECTORY`].
    SetAside { file: String },
    /// What was being written when the power went is kept in a file of its own and cut off, as the next start would do.
    CutTorn { file: String, bytes: Range<u64> },
    /// Everything from the first damage on is copied and cut off, though it may have been acknowledged.
    CutAcknowledged(Loss),
}

impl Step {
    /// The file that what is cut off is kept in, up to a bound, if there is room.
    pub fn keeps_in(&self) -> Option<String> {
        match self {
            Step::CutTorn { file, bytes } => Some(resume::cut_name(file, bytes.start)),
            _ => None,
        }
    }
}

/// What can be done for a log.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Plan {
    /// What loses nothing.
    pub steps: Vec<Step>,
    /// What would remain damaged, and what it takes to be rid of it; [`None`] if no cut helps: `obstacle` says why.
    pub damage: Option<(Finding, Option<Loss>)>,
    pub obstacle: Option<Obstacle>,
}

/// Why a log cannot be cut off before its first damage.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Obstacle {
    /// Nothing would be left.
    NothingLeft,
    /// Entries would be in the log again that were purged, or copied forward behind the damage, and their segments are used
    /// again.
    PurgedAgain,
}

/// What a repair may do, and what it needs for it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Orders {
    /// The loss that somebody has agreed to: that one is taken, and no other.
    pub loss: Option<Loss>,
    /// A file that is made in the directory, durably, before anything is lost.
    pub mark: Option<(String, String)>,
    pub seed: u64,
    pub wall_clock_milliseconds: u64,
}

/// What can be done for the log at `source`. Changes nothing.
pub fn plan<F: Files>(files: &F, source: &Source) -> Result<Plan, Error> {
    let mut gathered = chain::gather(files, source)?;
    let plan = examine(files, source, &mut gathered).0;
    gathered.close(files);
    Ok(plan)
}

/// Does what can be done, and may be, for the log at `source`, which is opened to be written; gives the steps taken.
/// After a cut of power it may be called again.
pub fn apply<F: Files>(files: &F, source: &Source, orders: &Orders) -> Result<Vec<Step>, Error> {
    assert!(source.exclusive, "nobody else may have a log that is repaired");
    let mut done = Vec::new();
    for _ in 0..ROUNDS_MAX + files.list(&source.directory)?.len() {
        let taken = round(files, source, orders)?;
        if taken.is_empty() {
            break;
        }
        done.extend(taken);
    }
    Ok(done)
}

fn round<F: Files>(files: &F, source: &Source, orders: &Orders) -> Result<Vec<Step>, Error> {
    let mut gathered = chain::gather(files, source)?;
    let (plan, kept) = examine(files, source, &mut gathered);
    let mut torn = None;
    let mut taken = Vec::new();
    let outcome: Result<(), Error> = plan.steps.into_iter().try_for_each(|step| {
        match &step {
            Step::RestoreHeader { file, offset } => restore_header(files, &gathered, source, (file, *offset))?,
            Step::SetAside { file } => set_aside(files, source, file)?,
            Step::CutTorn { .. } | Step::CutAcknowledged(_) => {
                torn = Some(step);
                return Ok(());
            }
        }
        taken.push(step);
        Ok(())
    });
    let options = gathered.candidates.iter().rev().find_map(|own| own.header).map(|header| Options {
        directory: source.directory.clone(),
        identity: header.identity,
        segment_bytes: header.bytes,
        writes_in_flight: 1,
        quiet_ticks: 1,
        tail_cache_bytes: 0,
        seed: orders.seed,
    });
    let outcome = outcome.and_then(|()| {
        let Some((options, kept)) = options.as_ref().zip(kept).filter(|_| taken.is_empty()) else { return Ok(()) };
        let Some((_, Some(loss))) = &plan.damage else { return Ok(()) };
        if orders.loss.as_ref() == Some(loss) {
            cut_acknowledged(files, options, &mut gathered, (&kept, loss), orders)?;
            taken.push(Step::CutAcknowledged(loss.clone()));
        }
        Ok(())
    });
    gathered.close(files);
    outcome?;
    if let (Some(step), Some(options), true) = (torn, options, taken.is_empty()) {
        let (log, _) = Log::open(files, options, source.evidence, orders.wall_clock_milliseconds)?;
        log.close(files);
        taken.push(step);
    }
    Ok(taken)
}

/// The plan, and what would be kept of a damaged log.
fn examine<F: Files>(files: &F, source: &Source, gathered: &mut Gathered) -> (Plan, Option<Analysis>) {
    let analysis = gathered.read(files, source, None);
    let mut plan = Plan { steps: damaged_headers(files, gathered, source), ..Plan::default() };
    let passed = passed(&analysis);
    let name = |number: &SegmentNumber| segment_name(&source.directory, *number);
    plan.steps.extend(passed.iter().map(|number| Step::SetAside { file: name(number) }));
    let Some(damage) = first_damage(&analysis).cloned() else {
        if let (Some(bytes), Some(last)) = (&analysis.torn, analysis.chain.last()) {
            plan.steps.push(Step::CutTorn { file: name(&last.header.number), bytes: bytes.clone() });
        }
        return (plan, None);
    };
    let kept = kept(files, source, gathered);
    let no_part = analysis.spare.iter().map(|spare| spare.header.number).chain(passed).collect();
    let loss = kept.as_ref().ok().map(|kept| loss::measure(files, source, (gathered, &no_part), kept));
    plan.obstacle = kept.as_ref().err().map(|obstacle| match walk::lacks_beginning(&analysis) {
        true => Obstacle::NothingLeft,
        false => *obstacle,
    });
    plan.damage = Some((damage, loss));
    (plan, kept.ok())
}

/// Segments of which one header is not what the other says.
pub(super) fn damaged_headers<F: Files>(files: &F, gathered: &Gathered, source: &Source) -> Vec<Step> {
    let mut steps = Vec::new();
    for candidate in &gathered.candidates {
        let Some(header) = candidate.header else { continue };
        let expected = header.encode();
        let is_fine = |offset: &u64| {
            let mut block = [0; BLOCK_BYTES];
            files.read(candidate.file, *offset, &mut block).is_ok() && block == expected
        };
        let (fine, damaged): (Vec<u64>, Vec<u64>) = [0, header.frames_end()].into_iter().partition(is_fine);
        // Without a twin that says so the file was taken into other use meanwhile.
        let file = segment_name(&source.directory, candidate.number);
        let step = |offset| Step::RestoreHeader { file: file.clone(), offset };
        steps.extend(damaged.into_iter().filter(|_| !fine.is_empty()).map(step));
    }
    steps
}

fn restore_header<F: Files>(
    files: &F,
    gathered: &Gathered,
    source: &Source,
    (name, offset): (&str, u64),
) -> Result<(), Error> {
    let own = gathered.candidates.iter().find(|own| segment_name(&source.directory, own.number) == name);
    let (file, header) = own.and_then(|own| Some((own.file, own.header?))).expect("it was planned from these");
    files.write(file, offset, &header.encode())?;
    files.sync(file)?;
    Ok(())
}

/// A rename: the file is in one place or the other.
fn set_aside<F: Files>(files: &F, source: &Source, name: &str) -> Result<(), Error> {
    let own = name.rsplit('/').next().expect("a split gives at least one part");
    files.create_directory(SET_ASIDE_DIRECTORY)?;
    files.rename(name, &format!("{SET_ASIDE_DIRECTORY}/{own}"))?;
    files.sync_directory(SET_ASIDE_DIRECTORY)?;
    files.sync_directory(&source.directory)?;
    Ok(())
}

fn is_damage(finding: &&Finding) -> bool {
    finding.severity >= Severity::Unclear
}

/// Damaged segments that are in no chain for certain: a newer one is, and the chain does not lack its beginning there.
fn passed(analysis: &Analysis) -> BTreeSet<SegmentNumber> {
    let (Some(oldest), Some(newest)) = (analysis.chain.first(), analysis.chain.last()) else { return BTreeSet::new() };
    let lacks_beginning = walk::lacks_beginning(analysis);
    let is_passed = |number: &SegmentNumber| {
        let is_in_chain = analysis.chain.iter().any(|segment| segment.header.number == *number);
        *number < newest.header.number && !is_in_chain && !(lacks_beginning && *number < oldest.header.number)
    };
    let exists = |finding: &&Finding| is_damage(finding) && finding.entries.is_empty();
    analysis.findings.iter().filter(exists).filter_map(Finding::segment).filter(is_passed).collect()
}

/// The first in the order of the log.
fn first_damage(analysis: &Analysis) -> Option<&Finding> {
    let passed = passed(analysis);
    let counts = |finding: &&Finding| finding.segment().is_none_or(|number| !passed.contains(&number));
    let damage = analysis.findings.iter().filter(is_damage).filter(counts);
    damage.min_by_key(|finding| (finding.segment(), finding.bytes.start))
}

/// What stays if everything from the first damage on goes: the log is read up to it, until that part shows none.
fn kept<F: Files>(files: &F, source: &Source, gathered: &mut Gathered) -> Result<Analysis, Obstacle> {
    // What the superblock has seen is what is about to be given up.
    let source = Source { evidence: Place::START, ..source.clone() };
    let mut bound = (SegmentNumber(u64::MAX), None);
    let mut obstacle = Obstacle::NothingLeft;
    loop {
        let analysis = read_up_to(files, &source, gathered, bound);
        let Some(damage) = first_damage(&analysis) else {
            return if analysis.chain.is_empty() { Err(obstacle) } else { Ok(analysis) };
        };
        if walk::lacks_beginning(&analysis) {
            // What lies behind the cut says that nothing is needed there.
            obstacle = Obstacle::PurgedAgain;
        }
        let next = before(files, &analysis, damage).ok_or(obstacle)?;
        let order =
            |(number, until): (SegmentNumber, Option<Place>)| (number, until.map_or(u64::MAX, |end| end.offset));
        if order(next) >= order(bound) {
            return Err(obstacle);
        }
        bound = next;
    }
}

/// Reads the log as if there were no segment above `number`, and nothing in that one behind `until`.
fn read_up_to<F: Files>(
    files: &F,
    source: &Source,
    gathered: &mut Gathered,
    (number, until): (SegmentNumber, Option<Place>),
) -> Analysis {
    let end = gathered.candidates.partition_point(|own| own.number <= number);
    let beyond = gathered.candidates.split_off(end);
    let findings = gathered.findings.clone();
    gathered.findings.retain(|finding| finding.segment().is_none_or(|own| own <= number));
    let analysis = gathered.read(files, source, until);
    gathered.candidates.extend(beyond);
    gathered.findings = findings;
    analysis
}

/// How far the log may be read so as not to meet this damage.
fn before<F: Files>(files: &F, analysis: &Analysis, damage: &Finding) -> Option<(SegmentNumber, Option<Place>)> {
    let number = damage.segment()?;
    let segment = analysis.chain.iter().find(|own| own.header.number == number);
    let end = segment.and_then(|segment| {
        let mut scan = Scan::new(files, segment.file, segment.header);
        let mut end = None;
        let mut at = FRAMES_START;
        while at < damage.bytes.start
            && let Ok(head) = scan.head_at(at)
        {
            at = head.end().offset;
            end = Some(head.end());
        }
        end
    });
    Some(match end {
        Some(end) => (number, Some(end)),
        None => (SegmentNumber(number.0.checked_sub(1)?), None),
    })
}

/// Cuts everything behind `kept`. See the picture above for the order.
fn cut_acknowledged<F: Files>(
    files: &F,
    options: &Options,
    gathered: &mut Gathered,
    (kept, loss): (&Analysis, &Loss),
    orders: &Orders,
) -> Result<(), Error> {
    resume::remove_leftovers(files, &options.directory, gathered.leftovers.iter().cloned())?;
    copy_aside(files, options, gathered, loss)?;
    if let Some((name, text)) = &orders.mark {
        write_whole(files, ("", name), text)?;
    }
    if let (false, Some(last)) = (files.reads_past_cache(), kept.chain.last()) {
        // What was read may be in memory alone, and its end is about to be named.
        let is_within = kept.proven.segment == last.header.number;
        write_in_place(files, last, if is_within { kept.proven.offset } else { FRAMES_START })?;
    }
    let mut section = section_at(kept);
    section.wall_clock_milliseconds = orders.wall_clock_milliseconds;
    let salt = kept.chain.last().map_or(0, |last| last.header.salt);
    let mut random = Random::seeded(options.seed ^ salt.rotate_left(17));
    let number = FrameNumber(loss.frame_last.0 + 1);
    // No segment may be used again for it: those that are cut look like such.
    let order = (gathered.next_segment, Fill::Allocated, &mut Vec::new());
    let opened = open_segment(files, options, &mut random, order, &section, (number, &kept.last_runs))?;
    files.close(opened.file);
    Ok(())
}

/// Copies the segments that lose something, whole; the manifest is written when they are durable.
fn copy_aside<F: Files>(files: &F, options: &Options, gathered: &Gathered, loss: &Loss) -> Result<(), Error> {
    let home = loss.directory();
    files.create_directory(&home)?;
    let there = files.list(&home)?;
    if there.iter().any(|name| name == MANIFEST_NAME) && has_whole_manifest(files, &home)? {
        return Ok(());
    }
    for name in &there {
        files.remove(&format!("{home}/{name}"))?;
    }
    let mut manifest = format!("cut off behind {}\n", loss.end);
    for line in loss.lines() {
        manifest += &format!("lost {line}\n");
    }
    for candidate in gathered.candidates.iter().filter(|own| loss.segments.contains(&own.number)) {
        let name = segment_name(&home, candidate.number);
        let (bytes, checksum) = copy(files, candidate.file, &name)?;
        manifest += &format!("copy {name} of {bytes} bytes, checksum {checksum}\n");
    }
    manifest += &format!("of the log in {}, {}\n", options.directory, options.identity);
    manifest += &last_line(&manifest);
    files.sync_directory(&home)?;
    write_whole(files, (&home, MANIFEST_NAME), &manifest)
}

/// What ends a manifest: the CRC-32 of the lines above.
fn last_line(lines: &str) -> String {
    format!("checksum of the lines above {}\n", Checksum::of(lines.as_bytes()))
}

/// Whether the manifest there is as it was written. If it is not, the copies are made anew: the log is still what it was.
fn has_whole_manifest<F: Files>(files: &F, home: &str) -> Result<bool, Error> {
    let file = files.open_read(&format!("{home}/{MANIFEST_NAME}"))?;
    let read = files.length(file).and_then(|length| {
        let mut bytes = vec![0; length.min(MANIFEST_BYTES_MAX) as usize];
        files.read(file, 0, &mut bytes).map(|()| bytes)
    });
    files.close(file);
    let text = String::from_utf8(read?).unwrap_or_default();
    let lines = text.trim_end_matches('\n').rfind('\n').map_or("", |end| &text[..=end]);
    Ok(!lines.is_empty() && text[lines.len()..] == last_line(lines))
}

/// Copies a file block by block; what cannot be read is zero in the copy. Gives the copy's length and its CRC-32.
fn copy<F: Files>(files: &F, from: FileId, name: &str) -> Result<(u64, Checksum), Error> {
    let bytes = files.length(from)?;
    let to = files.create(name)?;
    let copied = copy_bytes(files, (from, 0..bytes), to).and_then(|copied| files.sync(to).map(|()| copied));
    files.close(to);
    Ok((bytes, copied?.checksum))
}

/// What became of a copy.
pub(super) struct Copied {
    checksum: Checksum,
    /// They are zero in the copy.
    pub unreadable_blocks: usize,
}

/// Copies a range of a file to the start of another, block by block where it cannot be read otherwise.
pub(super) fn copy_bytes<F: Files>(
    files: &F,
    (from, range): (FileId, Range<u64>),
    to: FileId,
) -> Result<Copied, disk::Error> {
    let mut window = vec![0; COPY_BYTES.min((range.end - range.start) as usize)];
    let mut copied = Copied { checksum: Checksum::default(), unreadable_blocks: 0 };
    for at in range.clone().step_by(COPY_BYTES) {
        let length = (range.end - at).min(COPY_BYTES as u64) as usize;
        if files.read(from, at, &mut window[..length]).is_err() {
            for (block, part) in window[..length].chunks_mut(BLOCK_BYTES).enumerate() {
                if files.read(from, at + (block * BLOCK_BYTES) as u64, part).is_err() {
                    part.fill(0);
                    copied.unreadable_blocks += 1;
                }
            }
        }
        files.write(to, at - range.start, &window[..length])?;
        copied.checksum = copied.checksum.continued(&window[..length]);
    }
    Ok(copied)
}

/// Makes a small file, or replaces it, so that it is there whole or not at all.
fn write_whole<F: Files>(files: &F, (directory, name): (&str, &str), text: &str) -> Result<(), Error> {
    let path = if directory.is_empty() { name.to_owned() } else { format!("{directory}/{name}") };
    let temporary = format!("{path}.preparing");
    if files.list(directory)?.iter().any(|own| *own == format!("{name}.preparing")) {
        files.remove(&temporary)?;
    }
    let file = files.create(&temporary)?;
    let written = files.write(file, 0, text.as_bytes()).and_then(|()| files.sync(file));
    files.close(file);
    written?;
    files.rename(&temporary, &path)?;
    files.sync_directory(directory)?;
    Ok(())
}
