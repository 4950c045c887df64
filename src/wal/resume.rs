//! Makes a log, and opens one that is there: the half of recovery that writes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;

use super::analysis::{Analysis, Reading, Source, SpareSegment};
use super::body::{self, FramePlan};
use super::chain::{self, Candidate, Gathered};
use super::copying::Copying;
use super::error::{Error, Finding, Severity};
use super::frame::{FrameHead, FrameKind, Run};
use super::given_up::Removals;
use super::locator::Locator;
use super::log::{Counters, Log, Options, Phase, Ticket};
use super::repair::{self, Copied};
use super::rewrite::{self, start_of};
use super::sections::{OPEN_SECTION_BYTES_MAX, OpenSection};
use super::segment::{FRAMES_START, Fill, Prepare, SegmentHeader, prepare, segment_name};
use super::tail_cache::TailCache;
use crate::disk::{self, Buffer, BufferPool, FileId, Files};
use crate::limits::{FRAME_BYTES_MAX, SEGMENTS_READY, SEGMENTS_SPARE};
use crate::random::Random;
use crate::types::{FrameNumber, GroupId, Index, Membership, Place, SegmentNumber};

/// Bytes of a torn tail that are kept aside, and how many such files there may be.
const CUT_BYTES_MAX: u64 = 1 << 20;
const CUT_FILES_MAX: usize = 16;
/// Write buffers kept for use again: two of the largest.
const POOL_BYTES_MAX: usize = 2 * FRAME_BYTES_MAX;

/// What opening a log found.
#[derive(Debug)]
pub struct Recovery {
    /// The configurations in each group's log, in order of index.
    pub memberships: BTreeMap<GroupId, Vec<(Index, Membership)>>,
    /// Notes and a torn tail; a log with anything worse is not opened.
    pub findings: Vec<Finding>,
    /// So many more there are, which are counted alone.
    pub findings_more: u64,
    /// Bytes of a torn tail: the file they lie in and where.
    pub torn: Option<Range<u64>>,
    pub segments: usize,
}

impl Recovery {
    /// What was found, in lines for people.
    pub fn told(&self) -> Vec<String> {
        self.findings.iter().map(ToString::to_string).chain(more_findings(self.findings_more)).collect()
    }
}

/// A line that says how many findings are counted alone, if there are any.
pub fn more_findings(count: u64) -> Option<String> {
    let plural = if count == 1 { "" } else { "s" };
    (count > 0).then(|| format!("and {count} more finding{plural}"))
}

impl Log {
    /// Makes an empty log in a directory that holds none, with its first segment in use. What a crash in the midst of
    /// this left, a log in which nothing was ever written, is no log: it goes first, whoever's it was to be.
    pub fn create<F: Files>(files: &F, options: Options, wall_clock_milliseconds: u64) -> Result<Log, Error> {
        files.create_directory(&options.directory)?;
        let source = Source {
            directory: options.directory.clone(),
            identity: None,
            evidence: Place::START,
            exclusive: true,
            reading: Reading::Everything,
        };
        let found = Analysis::read(files, &source)?;
        let removed = remove_half_made(files, &options.directory, &found);
        found.close(files);
        removed?;
        let mut random = Random::seeded(options.seed);
        let section = OpenSection { predecessor_end: Place::START, wall_clock_milliseconds, groups: Vec::new() };
        let number = found.next_segment;
        let order = (number, Fill::Zeros, &mut Vec::new());
        let opened = open_segment(files, &options, &mut random, order, &section, (FrameNumber(1), &[]))?;
        let mut locator = Locator::default();
        locator.add_segment(opened.header, opened.file, wall_clock_milliseconds);
        locator.note(&opened.head, &[], false);
        let mut log = Log::assemble(options, random, (opened.header, opened.file), opened.head.end(), locator);
        log.wall_clock_milliseconds = wall_clock_milliseconds;
        log.repeat_open = Some(section);
        Ok(log)
    }

    /// Opens a log to write on. Recovery happens here: nothing of the log counts before this returns. Reads everything,
    /// and refuses a log that is damaged, or might be.
    pub fn open<F: Files>(
        files: &F,
        options: Options,
        evidence: Place,
        wall_clock_milliseconds: u64,
    ) -> Result<(Log, Recovery), Error> {
        Log::open_reading(files, options, (evidence, Reading::Everything), wall_clock_milliseconds)
    }

    /// As [`Log::open`]. [`Reading::BySeals`] reads some 20 KiB of each older segment, and sees damage only where it reads:
    /// what else is damaged is an error of [`super::ReadPlan::run`], with file, offset and log ids, never other data than was
    /// written.
    pub fn open_reading<F: Files>(
        files: &F,
        options: Options,
        (evidence, reading): (Place, Reading),
        wall_clock_milliseconds: u64,
    ) -> Result<(Log, Recovery), Error> {
        let source = Source {
            directory: options.directory.clone(),
            identity: Some(options.identity),
            evidence,
            exclusive: true,
            reading,
        };
        let mut gathered = chain::gather(files, &source)?;
        let opened = Log::open_gathered(files, options, (&mut gathered, &source), wall_clock_milliseconds);
        opened.inspect_err(|_| gathered.close(files))
    }

    fn open_gathered<F: Files>(
        files: &F,
        options: Options,
        (gathered, source): (&mut Gathered, &Source),
        wall_clock_milliseconds: u64,
    ) -> Result<(Log, Recovery), Error> {
        let mut analysis = intact(gathered.read(files, source, None))?;
        if analysis.chain.is_empty() {
            return Err(Error::Missing { directory: options.directory });
        }
        remove_leftovers(files, &options.directory, analysis.leftovers.iter().cloned())?;
        let (torn, mut findings, findings_more) =
            (analysis.torn.clone(), analysis.findings.clone(), analysis.findings_more());
        if let (Some(torn), Some(last)) = (&torn, analysis.chain.last()) {
            findings.extend(keep_aside(files, &options.directory, last.header, last.file, torn)?);
        }
        if !files.reads_past_cache() && analysis.proven.frame < analysis.end.frame {
            rewrite::rewrite(files, &options, (gathered, source), &analysis, wall_clock_milliseconds)?;
            analysis = intact(gathered.read(files, source, None))?;
        }
        let (memberships, segments) = (analysis.memberships.clone(), analysis.chain.len());
        let recovery = Recovery { memberships, findings, findings_more, torn, segments };
        let must_cut = analysis.torn.is_some();
        let spare = std::mem::take(&mut analysis.spare);
        let mut log = Log::resumed(options, analysis);
        log.take_spare(&spare);
        log.wall_clock_milliseconds = wall_clock_milliseconds;
        if must_cut {
            log.cut(files, &mut gathered.candidates)?;
        }
        Ok((log, recovery))
    }

    /// Gives the log's files back, and with them their locks. Nothing may be in flight.
    pub fn close<F: Files>(self, files: &F) {
        assert!(self.in_flight.is_empty() && self.preparing.is_empty(), "what is in flight needs its file");
        let chain = self.locator.segments().map(|segment| segment.file);
        let ready = self.ready.values().map(|(_, file)| *file);
        chain
            .chain(ready)
            .chain(self.recyclable.values().chain(self.unopened.values()).chain(self.late.values()).copied())
            .for_each(|file| files.close(file));
    }

    /// Goes on where the analysis ended, in the same segment.
    fn resumed(options: Options, analysis: Analysis) -> Log {
        let last = analysis.chain.last().expect("the chain is not empty");
        // Salts must differ from those of the last life even if the caller's seed does not.
        let random = Random::seeded(options.seed ^ last.header.salt.rotate_left(17));
        let framed = analysis.groups.values().map(|log| (log.group, start_of(log))).collect();
        let purged = analysis.groups.values().map(|log| (log.group, log.before_first.index)).collect();
        let end = analysis.end;
        // A sealed segment takes nothing more: the next one was about to be opened.
        let phase = if last.is_sealed { Phase::Sealing } else { Phase::Running };
        let repeat_open = (last.frames == 1).then(|| last.open.clone());
        let active = (last.header, last.file);
        let mut log = Log::assemble(options, random, active, end, analysis.locator);
        log.groups = analysis.groups;
        log.framed = framed;
        log.purged = purged;
        log.phase = phase;
        log.previous_runs = analysis.last_runs;
        log.repeat_open = repeat_open;
        log.last_data_frame = end.frame;
        log.proven_frame = analysis.proven.frame;
        log.next_segment = analysis.next_segment;
        log.copying.is_due = true;
        log.retire();
        log
    }

    /// Segments of no chain. Those of which recovery has seen that they are zero are not zeroed again: they get new numbers,
    /// as what came too late does.
    fn take_spare(&mut self, spare: &[SpareSegment]) {
        for &SpareSegment { header, file, is_zero, is_unopened } in spare {
            let is_wanted = self.late.len() < SEGMENTS_READY + SEGMENTS_SPARE;
            let is_usable = is_zero && header.bytes == self.options.segment_bytes;
            let unused = match () {
                () if is_usable && is_wanted => &mut self.late,
                () if is_unopened => &mut self.unopened,
                () => &mut self.recyclable,
            };
            unused.insert(header.number, file);
        }
    }

    /// Ends a torn tail, whose bytes were kept aside: opens a new segment that names the end. Until that is durable
    /// nothing has changed.
    fn cut<F: Files>(&mut self, files: &F, candidates: &mut Vec<Candidate>) -> Result<(), Error> {
        let section = OpenSection {
            predecessor_end: self.durable,
            wall_clock_milliseconds: self.wall_clock_milliseconds,
            groups: self.framed.values().copied().collect(),
        };
        let number = self.next_segment;
        let previous = (self.next_frame, self.previous_runs.as_slice());
        let order = (number, Fill::Allocated, &mut *candidates);
        let opened = open_segment(files, &self.options, &mut self.random, order, &section, previous)?;
        // One of the spare segments may have been used for it.
        let is_there = |number: &SegmentNumber| candidates.iter().any(|candidate| candidate.number == *number);
        let unused = [&mut self.recyclable, &mut self.unopened, &mut self.late];
        unused.into_iter().for_each(|own| own.retain(|number, _| is_there(number)));
        self.next_segment = number.next();
        self.locator.add_segment(opened.header, opened.file, section.wall_clock_milliseconds);
        self.locator.note(&opened.head, &[], false);
        (self.active, self.active_file) = (opened.header, opened.file);
        self.durable = opened.head.end();
        self.offset = self.durable.offset;
        self.next_frame = self.durable.frame.next();
        self.proven_frame = self.proven_frame.max(opened.head.durable.frame);
        self.previous_runs.clear();
        self.repeat_open = Some(section);
        self.phase = Phase::Running;
        Ok(())
    }

    fn assemble(
        options: Options,
        random: Random,
        (active, active_file): (SegmentHeader, FileId),
        durable: Place,
        locator: Locator,
    ) -> Log {
        Log {
            groups: BTreeMap::new(),
            framed: BTreeMap::new(),
            purged: BTreeMap::new(),
            locator,
            tail: TailCache::new(options.tail_cache_bytes),
            pool: BufferPool::new(POOL_BYTES_MAX),
            random,
            counters: Counters::default(),
            queue: VecDeque::new(),
            queued_bytes: 0,
            queued_frame_bytes: 0,
            last_ticket: Ticket(0),
            durable_ticket: Ticket(0),
            active,
            active_file,
            offset: durable.offset,
            next_frame: durable.frame.next(),
            previous_runs: Vec::new(),
            repeat_open: None,
            phase: Phase::Running,
            in_flight: VecDeque::new(),
            durable,
            last_data_frame: FrameNumber(0),
            proven_frame: FrameNumber(0),
            quiet_ticks: 0,
            cover_wanted: false,
            wall_clock_milliseconds: 0,
            ready: BTreeMap::new(),
            preparing: BTreeMap::new(),
            recyclable: BTreeMap::new(),
            unopened: BTreeMap::new(),
            removals: Removals::default(),
            late: BTreeMap::new(),
            next_segment: active.number.next(),
            no_space: None,
            has_one_failed: false,
            retry_ticks: 0,
            copying: Copying::default(),
            effects: VecDeque::new(),
            is_poisoned: false,
            options,
        }
    }
}

/// Removes what the making of a log left that did not come to its end: segments in no chain, or one with nothing but its
/// open frame. The names are flushed before another's take their place.
fn remove_half_made<F: Files>(files: &F, directory: &str, found: &Analysis) -> Result<(), Error> {
    if !found.is_half_made() {
        return Err(Error::Exists { directory: directory.to_owned() });
    }
    remove_leftovers(files, directory, found.leftovers.iter().cloned())?;
    let chain = found.chain.iter().map(|segment| segment.header.number);
    let numbers: BTreeSet<SegmentNumber> = chain.chain(found.spare.iter().map(|spare| spare.header.number)).collect();
    for &number in &numbers {
        files.remove(&segment_name(directory, number))?;
    }
    if numbers.is_empty() { Ok(()) } else { files.sync_directory(directory).map_err(Error::Disk) }
}

/// An analysis without damage.
pub(super) fn intact(analysis: Analysis) -> Result<Analysis, Error> {
    match analysis.damage() {
        Some(damage) => Err(Error::Damaged(damage.clone())),
        None => Ok(analysis),
    }
}

/// A segment in use, and its open frame.
pub(super) struct Opened {
    pub header: SegmentHeader,
    pub file: FileId,
    pub head: FrameHead,
}

/// Makes a segment and writes its open frame, durably.
pub(super) fn open_segment<F: Files>(
    files: &F,
    options: &Options,
    random: &mut Random,
    (number, fill, candidates): (SegmentNumber, Fill, &mut Vec<Candidate>),
    section: &OpenSection,
    (frame, previous): (FrameNumber, &[Run]),
) -> Result<Opened, Error> {
    let header =
        SegmentHeader { identity: options.identity, number, salt: random.next_u64(), bytes: options.segment_bytes };
    let order = Prepare { directory: options.directory.clone(), header, fill, recycled: None };
    let file = prepare_or_recycle(files, order, candidates)?;
    let mut buffer = Buffer::with_capacity(body::frame_bytes_max(0, OPEN_SECTION_BYTES_MAX, 0));
    let plan = FramePlan {
        kind: FrameKind::Open,
        segment: number,
        salt: header.salt,
        offset: FRAMES_START,
        number: frame,
        durable: section.predecessor_end,
        own: &[],
        previous,
        open: Some(section),
        seal: None,
    };
    let head = body::build(&mut buffer, &plan, std::iter::empty());
    let written = files.write(file, FRAMES_START, &buffer).and_then(|()| files.sync(file));
    written.inspect_err(|_| files.close(file))?;
    Ok(Opened { header, file, head })
}

/// Makes a segment that recovery needs; on a full disk out of the room of one that stands ready. That is then no
/// candidate any more.
pub(super) fn prepare_or_recycle<F: Files>(
    files: &F,
    mut order: Prepare,
    candidates: &mut Vec<Candidate>,
) -> Result<FileId, Error> {
    let full = match prepare(files, &order) {
        Err(error) if error.is_no_space() => error,
        said => return said.map_err(Error::Disk),
    };
    let spare = candidates.iter().rposition(|candidate| candidate.is_spare).ok_or(full)?;
    let Candidate { number, file, .. } = candidates.remove(spare);
    order.fill = Fill::Zeros;
    order.recycled = Some((number, file));
    prepare(files, &order).map_err(Error::Disk)
}

pub(super) fn remove_leftovers<F: Files>(
    files: &F,
    directory: &str,
    names: impl Iterator<Item = String>,
) -> Result<(), Error> {
    let mut removed = false;
    for name in names.filter(|name| name.ends_with(".preparing")) {
        files.remove(&name)?;
        removed = true;
    }
    if removed {
        files.sync_directory(directory)?;
    }
    Ok(())
}

/// The file that a torn tail is kept in.
pub(super) fn cut_name(segment: &str, start: u64) -> String {
    format!("{}-{start}.cut", segment.trim_end_matches(".segment"))
}

/// Copies what is cut to a file of its own, for whoever wants to look. Bounded; done before the cut is named. A disk that
/// is too full for it, or cannot read all of it, is no reason not to go on, and is noted.
fn keep_aside<F: Files>(
    files: &F,
    directory: &str,
    header: SegmentHeader,
    file: FileId,
    torn: &Range<u64>,
) -> Result<Option<Finding>, Error> {
    let segment = segment_name(directory, header.number);
    let name = cut_name(&segment, torn.start);
    let names = files.list(directory)?;
    let kept = names.iter().filter(|name| name.ends_with(".cut")).count();
    let exists = names.iter().any(|own| format!("{directory}/{own}") == name);
    if exists {
        return Ok(None);
    }
    let length = (torn.end - torn.start).min(CUT_BYTES_MAX);
    let note = |what: &str| Finding {
        severity: Severity::Note,
        file: segment,
        bytes: torn.clone(),
        what: what.to_owned(),
        acknowledged: None,
        entries: Vec::new(),
    };
    if kept >= CUT_FILES_MAX {
        return Ok(Some(note(&format!(
            "what is cut off is not kept aside: {CUT_FILES_MAX} such files are kept already"
        ))));
    }
    // A crash leaves a name that is removed at the next start, and not half of a copy that counts as one.
    let temporary = format!("{name}.preparing");
    let copied = copy_aside(files, &temporary, file, torn.start..torn.start + length);
    match copied.and_then(|copied| files.rename(&temporary, &name).map(|()| copied)) {
        Ok(copied) => {
            files.sync_directory(directory)?;
            let note = || note("some of what is cut off could not be read: it is zero in what is kept aside");
            Ok((copied.unreadable_blocks > 0).then(note))
        }
        Err(error) if error.is_no_space() => Ok(Some(note("what is cut off is not kept aside: the disk is full"))),
        Err(error) => Err(Error::Disk(error)),
    }
}

fn copy_aside<F: Files>(files: &F, name: &str, from: FileId, range: Range<u64>) -> Result<Copied, disk::Error> {
    let to = files.create(name)?;
    let copied = repair::copy_bytes(files, (from, range), to).and_then(|copied| files.sync(to).map(|()| copied));
    files.close(to);
    // The error that counts is the first; a name that stays is removed at the next start.
    copied.inspect_err(|_| drop(files.remove(name)))
}
