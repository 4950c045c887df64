//! The log as a core: appends and completions in, writes and preparations out. No I/O of its own once it is open.

use std::collections::{BTreeMap, VecDeque};

use super::body::{self, FramePlan, Item};
use super::copying::Copying;
use super::error::Refused;
use super::flight::{InFlight, JOINED_BYTES_MAX};
use super::frame::{FrameHead, FrameKind, Run, SEAL_FRAME_BYTES_MAX};
use super::given_up::{Removals, Remove};
use super::group::GroupLog;
use super::locator::Locator;
use super::record::RecordKind;
use super::sections::{GroupStart, OPEN_SECTION_BYTES_MAX, OpenSection, SealSection};
use super::segment::{Identity, Prepare, SegmentHeader};
use super::tail_cache::TailCache;
use crate::disk::{self, Buffer, BufferPool, Completion, FileId, Token, Write};
use crate::limits::{FRAME_BYTES_MAX, FRAME_RECORDS_MAX, FRAME_RUNS_MAX, GROUPS_MAX, INDEX_MAX, WRITES_IN_FLIGHT_MAX};
use crate::mutant::{self, Mutant};
use crate::random::Random;
use crate::types::{Entry, FrameNumber, GroupId, Index, LogId, Place, SegmentNumber, Term};

/// What is fixed for the life of an open log.
#[derive(Clone, Debug)]
pub struct Options {
    /// The log's directory, as [`disk::Files`] knows it.
    pub directory: String,
    pub identity: Identity,
    /// The size of segments made from now on: a multiple of a block within the bounds of limits.rs.
    pub segment_bytes: u64,
    /// Small writes in flight at once, 1 to [`WRITES_IN_FLIGHT_MAX`].
    pub writes_in_flight: usize,
    /// Ticks without anything to do after which a covering frame is written.
    pub quiet_ticks: u32,
    /// Frames that became durable last and stay in memory for readers, in bytes of their buffers; 0 for none.
    pub tail_cache_bytes: usize,
    /// For salts.
    pub seed: u64,
}

/// Numbers the appends of an open log from 1 on. Durable in this order.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct Ticket(pub u64);

/// What must be done outside.
#[derive(Debug)]
pub enum Effect {
    /// Submit to the [`disk::Queue`]; answer with [`Log::completed`].
    Write(Write),
    /// Run [`super::prepare`] off the core; answer with [`Log::prepared`].
    Prepare(Prepare),
    /// Run [`super::remove`] off the core; answer with [`Log::removed`].
    Remove(Remove),
}

/// A write or a flush failed: nothing more is written, and nothing more becomes durable.
#[derive(Debug, thiserror::Error)]
#[error("the log is poisoned: {0}")]
pub struct Poisoned(pub disk::Error);

/// What was written since the log was opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// Writes that completed; each is one flush.
    pub flushes: u64,
    pub records: u64,
    /// Frame bytes, padding included.
    pub written_bytes: u64,
    /// Segments that were opened although their blocks had only been allocated: the preparer fell behind.
    pub unzeroed_segments: u64,
    pub segments: u64,
    /// Segments that were given up and whose room went back to the disk.
    pub removed_segments: u64,
    /// Removals that failed: each is tried again.
    pub removals_failed: u64,
    /// Segments of them whose files are still there.
    pub unremoved_segments: u64,
    /// Frames of entries that were copied forward, and their bytes: part of what was written.
    pub copies: u64,
    pub copied_bytes: u64,
    /// Copies that were begun and given up: a group was written meanwhile, too large, or could not be read.
    pub copies_dropped: u64,
}

/// The log. See [`super`] for the contract.
#[derive(Debug)]
pub struct Log {
    pub(super) options: Options,
    /// The names of everything taken, durable or not.
    pub(super) groups: BTreeMap<GroupId, GroupLog>,
    /// The names of everything that is in a frame: what an open frame says.
    pub(super) framed: BTreeMap<GroupId, GroupStart>,
    /// The last entry of each group that a durable purge ended.
    pub(super) purged: BTreeMap<GroupId, Index>,
    /// Knows durable frames only.
    pub(super) locator: Locator,
    /// The newest of them.
    pub(super) tail: TailCache,
    pub(super) pool: BufferPool,
    pub(super) random: Random,
    pub(super) counters: Counters,
    /// Waits for a frame, in the order of tickets. Bounded by the caller, who sees [`Log::queued_bytes`].
    pub(super) queue: VecDeque<Queued>,
    pub(super) queued_bytes: usize,
    /// What they take at most, each in a frame of its own.
    pub(super) queued_frame_bytes: u64,
    pub(super) last_ticket: Ticket,
    pub(super) durable_ticket: Ticket,
    /// The segment that is written, and where its next frame goes.
    pub(super) active: SegmentHeader,
    pub(super) active_file: FileId,
    pub(super) offset: u64,
    /// The number of the next frame.
    pub(super) next_frame: FrameNumber,
    /// The directory of the last frame built: the next one repeats it.
    pub(super) previous_runs: Vec<Run>,
    /// Set from the open frame to the one behind it, which repeats it.
    pub(super) repeat_open: Option<OpenSection>,
    pub(super) phase: Phase,
    /// In the order of frames. Empties from the front, as far as all have completed.
    pub(super) in_flight: VecDeque<InFlight>,
    /// The end of the contiguous completed prefix.
    pub(super) durable: Place,
    /// The last frame with records, and the highest durable end that a durable frame carries: while the latter is
    /// lower, a covering frame is wanted.
    pub(super) last_data_frame: FrameNumber,
    pub(super) proven_frame: FrameNumber,
    pub(super) quiet_ticks: u32,
    pub(super) cover_wanted: bool,
    pub(super) wall_clock_milliseconds: u64,
    /// Segments that stand ready, and those on their way.
    pub(super) ready: BTreeMap<SegmentNumber, (Prepare, FileId)>,
    pub(super) preparing: BTreeMap<SegmentNumber, Prepare>,
    /// Segments of no chain, to be zeroed again.
    pub(super) recyclable: BTreeMap<SegmentNumber, FileId>,
    /// As `recyclable`, of another life, without an open frame: each start would read all of them, so they go first.
    pub(super) unopened: BTreeMap<SegmentNumber, FileId>,
    /// What is removed, and what could not be.
    pub(super) removals: Removals,
    /// Segments of no chain that were zeroed, and were not ready when they were needed, or stood ready in another life.
    pub(super) late: BTreeMap<SegmentNumber, FileId>,
    pub(super) next_segment: SegmentNumber,
    /// Why no segment could be made, until one can.
    pub(super) no_space: Option<disk::Error>,
    /// A segment could not be made; others are on their way.
    pub(super) has_one_failed: bool,
    pub(super) retry_ticks: u32,
    pub(super) copying: Copying,
    pub(super) effects: VecDeque<Effect>,
    pub(super) is_poisoned: bool,
}

#[derive(Debug)]
pub(super) struct Queued {
    pub ticket: Ticket,
    pub item: Item,
    pub bytes: usize,
    /// The directory entries that this item alone would have, with the terms before them.
    pub runs: Vec<Run>,
}

/// Where rotation stands. Two barriers: all of the old segment durable, then the new open frame alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    Running,
    /// The segment is full: when what is in flight is durable, and so known to the locator, the seal is written.
    Draining,
    /// The seal is submitted; when everything is durable the next segment is opened.
    Sealing,
    /// The open frame is in flight, alone.
    Opening,
}

impl Log {
    /// Takes a batch of consecutive entries. They become durable together or not at all; if the first index is not
    /// behind the group's last, everything older from there on ends.
    pub fn append(&mut self, group: GroupId, entries: &[Entry]) -> Result<Ticket, Refused> {
        let Some(first) = entries.first() else { return Ok(self.last_ticket) };
        self.check_join(group, first.id.index)?;
        let consecutive = entries.windows(2).all(|pair| pair[1].id.index == pair[0].id.index.next());
        assert!(consecutive, "a batch has no gaps");
        self.push(Item::Entries { group, entries: entries.to_vec() })
    }

    /// As [`Log::append`], but a batch that does not fit one frame is cut into several: each entry is durable whole
    /// or not at all, the batch need not be.
    pub fn append_each(&mut self, group: GroupId, entries: &[Entry]) -> Result<Ticket, Refused> {
        let bytes_max = self.batch_bytes_max();
        // Before the first piece is taken: a refusal means that nothing has happened.
        if let Some(bytes) = entries.iter().map(super::record::entry_record_bytes).find(|&bytes| bytes > bytes_max) {
            return Err(Refused::TooLarge { bytes, max: bytes_max });
        }
        let mut ticket = self.last_ticket;
        let mut rest = entries;
        while !rest.is_empty() {
            let mut bytes = 0;
            let fits = |entry: &&Entry| {
                bytes += super::record::entry_record_bytes(entry);
                bytes <= bytes_max
            };
            let count = rest.iter().take(FRAME_RECORDS_MAX).take_while(fits).count().max(1);
            let (batch, behind) = rest.split_at(count);
            ticket = self.append_runs_bounded(group, batch)?;
            rest = behind;
        }
        Ok(ticket)
    }

    /// Ends all entries of a group from `from` on.
    pub fn truncate_suffix(&mut self, group: GroupId, from: Index) -> Result<Ticket, Refused> {
        if !self.groups.contains_key(&group) {
            return Ok(self.last_ticket);
        }
        self.check_join(group, from)?;
        self.push(Item::Cut { group, kind: RecordKind::Truncate, id: LogId::new(Term::ZERO, from) })
    }

    /// Ends all entries of a group up to and including `last`. Their segments are given up once nothing else needs them: a
    /// few are used again, the others removed.
    ///
    /// If the group has an entry of another term in that place, what lies behind is no part of a log that begins there:
    /// it is truncated first. Both become durable in this order, not together; what is left after the first is a log that
    /// does not reach `last`.
    pub fn purge_prefix(&mut self, group: GroupId, last: LogId) -> Result<Ticket, Refused> {
        let known = self.groups.get(&group);
        if last.index <= known.map_or(Index::ZERO, |known| known.before_first.index) {
            return Ok(self.last_ticket);
        }
        let held = known.and_then(|known| known.id_at(last.index));
        if held.is_some_and(|held| held != last) && !mutant::is_on(Mutant::LogKeptBehindPurge) {
            self.truncate_suffix(group, last.index)?;
        }
        self.push(Item::Cut { group, kind: RecordKind::Purge, id: last })
    }

    /// What is to be done next, until there is nothing.
    pub fn take_effect(&mut self) -> Option<Effect> {
        if self.effects.is_empty() && !self.is_poisoned {
            self.pump();
        }
        self.effects.pop_front()
    }

    /// A write has completed. An error poisons the log.
    pub fn completed(&mut self, completion: Completion) -> Result<(), Poisoned> {
        let Completion { token, result, buffer } = completion;
        if let (Err(error), false) = (result, mutant::is_on(Mutant::FlushErrorSwallowed)) {
            self.is_poisoned = true;
            self.effects.clear();
            return Err(Poisoned(error));
        }
        self.complete(token, buffer);
        Ok(())
    }

    /// One tick of the clock. The reading is only written down, for retention by age.
    pub fn tick(&mut self, wall_clock_milliseconds: u64) {
        self.wall_clock_milliseconds = wall_clock_milliseconds;
        self.retry_preparation();
        self.removals.tick();
        let is_idle = self.queue.is_empty() && self.in_flight.is_empty();
        self.quiet_ticks = if is_idle { self.quiet_ticks.saturating_add(1) } else { 0 };
        if is_idle && self.quiet_ticks >= self.options.quiet_ticks {
            self.cover();
        }
    }

    /// All appends up to this one are on disk.
    pub fn durable_ticket(&self) -> Ticket {
        if mutant::is_on(Mutant::AckBeforeFlush) { self.last_ticket_sent() } else { self.durable_ticket }
    }

    /// The last append taken.
    pub fn last_ticket(&self) -> Ticket {
        self.last_ticket
    }

    /// Every frame up to here is on disk: evidence for the superblock.
    pub fn durable_end(&self) -> Place {
        self.durable
    }

    /// Whether everything taken is durable and, as far as wanted, covered.
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.in_flight.is_empty() && !self.cover_wanted
    }

    /// Whether a write is on its way to the disk.
    pub fn is_writing(&self) -> bool {
        !self.in_flight.is_empty()
    }

    /// Whether nothing waits, nothing is in flight, and the next effect is the write of a batch of so many record bytes
    /// if that is pushed now.
    pub(super) fn would_write_at_once(&self, bytes: usize) -> bool {
        let end = self.offset + (body::frame_bytes_max(bytes, OPEN_SECTION_BYTES_MAX, 0) + SEAL_FRAME_BYTES_MAX) as u64;
        let is_running = self.phase == Phase::Running && !self.is_poisoned && self.effects.is_empty();
        let is_idle = self.is_idle() && !self.copying.is_ready();
        is_running && is_idle && self.has_enough_ready() && end <= self.active.frames_end()
    }

    /// Whether nothing is to be done before the next append or tick.
    pub(super) fn is_at_rest(&self) -> bool {
        self.phase == Phase::Running && self.effects.is_empty() && self.is_idle() && !self.copying.is_ready()
    }

    /// Record bytes that wait for a frame.
    pub fn queued_bytes(&self) -> usize {
        self.queued_bytes
    }

    /// What waits for a frame takes at most so much of [`Log::room`].
    pub fn queued_frame_bytes(&self) -> u64 {
        self.queued_frame_bytes
    }

    pub fn group(&self, group: GroupId) -> Option<&GroupLog> {
        self.groups.get(&group)
    }

    pub fn groups(&self) -> impl Iterator<Item = &GroupLog> {
        self.groups.values()
    }

    pub fn counters(&self) -> Counters {
        self.counters
    }

    pub fn options(&self) -> &Options {
        &self.options
    }

    /// The most record bytes that fit one frame of this log, whatever else is in it.
    pub fn batch_bytes_max(&self) -> usize {
        super::frame::batch_bytes_max(self.options.segment_bytes)
    }

    /// A batch with more changes of term than a directory holds goes in pieces.
    fn append_runs_bounded(&mut self, group: GroupId, batch: &[Entry]) -> Result<Ticket, Refused> {
        let mut ticket = self.last_ticket;
        let mut rest = batch;
        while !rest.is_empty() {
            let mut changes = 1;
            let too_many = rest.windows(2).position(|pair| {
                changes += usize::from(pair[0].id.term != pair[1].id.term);
                changes > FRAME_RUNS_MAX
            });
            let (piece, behind) = rest.split_at(too_many.map_or(rest.len(), |at| at + 1));
            ticket = self.append(group, piece)?;
            rest = behind;
        }
        Ok(ticket)
    }

    fn check_join(&self, group: GroupId, first: Index) -> Result<(), Refused> {
        let known = self.groups.get(&group);
        let before_first = known.map_or(Index::ZERO, |known| known.before_first.index);
        let expected = known.map_or(first.max(Index::FIRST), |known| known.last.index.next());
        if first > expected || first <= before_first {
            return Err(Refused::Gap { found: first, expected, before_first });
        }
        Ok(())
    }

    pub(super) fn push(&mut self, item: Item) -> Result<Ticket, Refused> {
        if self.is_poisoned {
            return Err(Refused::Poisoned);
        }
        if item.last_index().0 > INDEX_MAX {
            return Err(Refused::IndexTooLarge { found: item.last_index(), max: INDEX_MAX });
        }
        let (bytes, max) = (item.record_bytes(), self.batch_bytes_max());
        if bytes > max || item.records() > FRAME_RECORDS_MAX {
            return Err(Refused::TooLarge { bytes, max });
        }
        if !self.groups.contains_key(&item.group()) && self.groups.len() >= GROUPS_MAX {
            return Err(Refused::TooManyGroups { max: GROUPS_MAX });
        }
        let item = if mutant::is_on(Mutant::BatchHalfVisible) { self.push_first_half(item) } else { item };
        self.overtake_copy(item.group());
        let runs = self.take_names(&item);
        assert!(runs.len() <= FRAME_RUNS_MAX, "a batch changes its term at most {FRAME_RUNS_MAX} times");
        self.last_ticket = Ticket(self.last_ticket.0 + 1);
        self.quiet_ticks = 0;
        self.enqueue(item, runs);
        Ok(self.last_ticket)
    }

    pub(super) fn enqueue(&mut self, item: Item, runs: Vec<Run>) {
        let bytes = item.record_bytes();
        self.queued_bytes += bytes;
        self.queued_frame_bytes += body::frame_room_bytes(bytes);
        self.queue.push_back(Queued { ticket: self.last_ticket, item, bytes, runs });
    }

    fn complete(&mut self, token: Token, buffer: Buffer) {
        let number = FrameNumber(token.0);
        let own = self.in_flight.iter_mut().find(|frame| frame.head.number == number);
        let frame = own.expect("a completion names a write in flight");
        assert!(frame.written.is_none(), "a write completes once");
        frame.written = Some(buffer);
        while let Some(InFlight { head, own, holds_membership, is_copy, ticket, written: Some(buffer) }) =
            self.in_flight.pop_front_if(|frame| frame.written.is_some())
        {
            match is_copy {
                true => self.note_copy(&head, &own, holds_membership),
                false => self.locator.note(&head, &own, holds_membership),
            }
            self.became_durable(&head, &own, ticket);
            self.tail.push(&head, own, buffer, &mut self.pool);
        }
    }

    fn became_durable(&mut self, head: &FrameHead, own: &[Run], ticket: Ticket) {
        assert!(head.number == self.durable.frame.next(), "frames become durable in order");
        self.durable = head.end();
        self.proven_frame = self.proven_frame.max(head.durable.frame);
        self.durable_ticket = ticket;
        self.counters.flushes += 1;
        self.counters.records += head.records as u64;
        self.counters.written_bytes += head.length as u64;
        for run in own.iter().filter(|run| run.kind == RecordKind::Purge) {
            let purged = self.purged.entry(run.group).or_default();
            *purged = (*purged).max(run.first);
        }
        // With its successor joined, a segment that was written at the time of a purge may go, too. What proves a copy
        // may set free what was copied.
        self.copying.is_due |= head.kind == FrameKind::Open;
        let is_proof = matches!(head.kind, FrameKind::Open | FrameKind::Cover);
        if is_proof || own.iter().any(|run| run.kind == RecordKind::Purge) {
            self.retire();
        }
    }

    /// Hands out whatever may be written now.
    fn pump(&mut self) {
        assert!((1..=WRITES_IN_FLIGHT_MAX).contains(&self.options.writes_in_flight), "checked when opened");
        self.keep_ready();
        self.give_back();
        loop {
            let went_on = match self.phase {
                Phase::Running => self.pump_running(),
                Phase::Draining => self.in_flight.is_empty() && self.write_seal(),
                Phase::Sealing => self.in_flight.is_empty() && self.open_next(),
                Phase::Opening => {
                    let opened = self.in_flight.is_empty();
                    if opened {
                        self.phase = Phase::Running;
                    }
                    opened
                }
            };
            if !went_on {
                return;
            }
        }
    }

    fn pump_running(&mut self) -> bool {
        if self.leaves_from_bytes().is_none_or(|from| self.queued_bytes < from) {
            return false;
        }
        if self.write_copy() {
            return true;
        }
        if self.queue.is_empty() {
            return self.cover_wanted && self.in_flight.is_empty() && self.write_cover();
        }
        let (batch, own) = self.take_batch();
        if batch.is_empty() {
            self.phase = Phase::Draining;
            return true;
        }
        self.write_batch(&batch, own);
        true
    }

    /// The appends that go into the next frame and the directory that names them: as many as make a large one and fit the
    /// segment, none if that is full.
    fn take_batch(&mut self) -> (Vec<Queued>, Vec<Run>) {
        let open_bytes = if self.repeat_open.is_some() { OPEN_SECTION_BYTES_MAX } else { 0 };
        let room = (self.active.frames_end() - SEAL_FRAME_BYTES_MAX as u64).saturating_sub(self.offset) as usize;
        let room = room.min(FRAME_BYTES_MAX);
        let (mut bytes, mut records) = (0, 0);
        let (mut batch, mut own) = (Vec::new(), Vec::<Run>::new());
        while let Some(next) = self.queue.pop_front_if(|next| {
            bytes += next.bytes;
            records += next.item.records();
            let joined = own.last().zip(next.runs.first()).is_some_and(|(last, run)| last.goes_on_in(run));
            let runs = own.len() + next.runs.len() - usize::from(joined);
            let is_alone = records == next.item.records() || !mutant::is_on(Mutant::BatchHalfVisible);
            let fits = body::frame_bytes_max(bytes, open_bytes, 0) <= room && records <= FRAME_RECORDS_MAX;
            let is_wanted = bytes == next.bytes || bytes <= JOINED_BYTES_MAX;
            fits && runs <= FRAME_RUNS_MAX && is_alone && is_wanted
        }) {
            self.queued_bytes -= next.bytes;
            self.queued_frame_bytes -= body::frame_room_bytes(next.bytes);
            for run in &next.runs {
                match own.last_mut().filter(|last| last.goes_on_in(run)) {
                    Some(last) => last.count += run.count,
                    None => own.push(*run),
                }
            }
            batch.push(next);
        }
        (batch, own)
    }

    fn write_batch(&mut self, batch: &[Queued], own: Vec<Run>) {
        let bytes = batch.iter().map(|queued| queued.bytes).sum();
        let ticket = batch.last().expect("a batch is not empty").ticket;
        let open = self.repeat_open.take();
        let items = batch.iter().map(|queued| &queued.item);
        self.submit(FrameKind::Data, own, open.as_ref(), None, (bytes, items), ticket);
        let frame = self.in_flight.back_mut().expect("it was just submitted");
        frame.holds_membership = batch.iter().any(|queued| queued.item.holds_membership());
        self.last_data_frame = FrameNumber(self.next_frame.0 - 1);
    }

    /// The last append that is in a frame already.
    pub(super) fn last_ticket_sent(&self) -> Ticket {
        self.in_flight.back().map_or(self.durable_ticket, |frame| frame.ticket)
    }

    /// Builds a frame at the end of the active segment and hands it out as a write.
    pub(super) fn submit<'i>(
        &mut self,
        kind: FrameKind,
        own: Vec<Run>,
        open: Option<&OpenSection>,
        seal: Option<&SealSection>,
        (bytes, items): (usize, impl Iterator<Item = &'i Item>),
        ticket: Ticket,
    ) {
        let open_bytes = open.map_or(0, |_| OPEN_SECTION_BYTES_MAX);
        let seal_bytes = seal.map_or(0, |_| SEAL_FRAME_BYTES_MAX);
        let mut buffer = self.pool.take(body::frame_bytes_max(bytes, open_bytes, seal_bytes));
        let plan = FramePlan {
            kind,
            segment: self.active.number,
            salt: self.active.salt,
            offset: self.offset,
            number: self.next_frame,
            durable: self.durable,
            own: &own,
            previous: &self.previous_runs,
            open,
            seal,
        };
        let head = body::build(&mut buffer, &plan, items);
        assert!(head.end().offset <= self.active.frames_end(), "room was checked");
        if mutant::is_on(Mutant::BufferReused) {
            self.reuse_last_buffer(&buffer);
        }
        let token = Token(head.number.0);
        self.effects.push_back(Effect::Write(Write { token, file: self.active_file, offset: head.offset, buffer }));
        self.offset = head.end().offset;
        self.next_frame = head.number.next();
        for run in &own {
            self.framed.entry(run.group).or_insert_with(|| GroupStart::before(run)).apply(run, head.end());
        }
        self.previous_runs.clone_from(&own);
        self.in_flight.push_back(InFlight {
            head,
            own,
            holds_membership: false,
            is_copy: false,
            ticket,
            written: None,
        });
    }
}
