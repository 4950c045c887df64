//! What the callers' threads hand to the log's thread: checked and named here, so that an append is refused at once.
//!
//! The names of everything taken are kept beside the queue. The core keeps the same names by the same rules, so what
//! passes here is never refused there.

mod room;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use super::error::Refused;
use super::options::WhenFull;
use super::payloads::check_payloads;
use crate::disk::{self, FileId};
use crate::limits::{FRAME_RECORDS_MAX, FRAME_RUNS_MAX, GROUPS_MAX, INDEX_MAX};
use crate::types::{Data, Entry, GroupId, Index, LogId, Payload, Place, SegmentNumber, Term};
use crate::wal::body::{Item, frame_room_bytes};
use crate::wal::encoded::Encoded;
use crate::wal::record::{RecordKind, record_bytes};
use crate::wal::{self, GroupLog, Log, Supply, Ticket};

/// Appends that go on from each other are joined up to this: what is done per item is then done once for many of them.
const JOINED_BYTES_MAX: usize = 64 << 10;
/// Appends of records up to this are copied into the queue as they will stand in a frame; larger ones wait as they are.
const COPIED_BYTES_MAX: usize = 4 << 10;

/// Which share of the queue, and of a disk that is full, an append takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Share {
    Appends,
    /// That of truncates and purges: see [`crate::limits::CUT_QUEUE_BYTES`].
    Cuts,
}

/// What became of a segment that was ordered to be made, or to be removed.
#[derive(Debug)]
pub(super) enum Upkeep {
    Prepared(SegmentNumber, Result<FileId, disk::Error>),
    Removed(SegmentNumber, Result<(), disk::Error>),
}

#[derive(Debug)]
pub(super) struct Inbox {
    state: Mutex<State>,
    /// There may be room again.
    room: Condvar,
    queue_bytes_max: usize,
    /// The most record bytes of one batch.
    batch_bytes_max: usize,
    when_full: WhenFull,
    /// Appends since the core took the items last. Changed while the state is locked.
    appends: AtomicUsize,
}

#[derive(Debug)]
struct State {
    /// The names of everything taken.
    names: BTreeMap<GroupId, GroupLog>,
    last_ticket: Ticket,
    /// Taken, and not yet with the core: the last of them has `last_ticket`.
    items: Vec<Item>,
    item_bytes: usize,
    /// Record bytes of the last of them.
    last_item_bytes: usize,
    /// What the items take of a segment at most.
    item_frame_bytes: u64,
    /// Record bytes that wait in the core, and what they take of a segment at most.
    core_bytes: usize,
    core_frame_bytes: u64,
    upkeep: Vec<Upkeep>,
    /// Threads that wait for room.
    blocked: usize,
    /// What is ready for what waits.
    disk_room: wal::Room,
    /// Somebody needs more of it, sooner.
    is_room_wanted: bool,
    /// Grows with each turn, after which there may be room.
    turns: u64,
    /// Tasks that wait for the next one.
    room_wakers: Vec<Waker>,
    /// Appends that the core took last: with one the log has a lone appender.
    taken_appends: usize,
    /// Set while the core sleeps. Whoever takes it wakes the core.
    waker: Option<Waker>,
    /// The core could write at once if record bytes so many wait: the append that makes them so many wakes it. None if only
    /// the write in flight will.
    wake_from_bytes: Option<usize>,
    /// The core comes round at each tick: it sees a write that hangs.
    is_ticking: bool,
    closing: bool,
    poisoned: bool,
}

/// What the core takes at the start of a turn.
#[derive(Debug, Default)]
pub(super) struct Taken {
    pub items: Vec<Item>,
    pub upkeep: Vec<Upkeep>,
    pub closing: bool,
    pub poisoned: bool,
    /// See [`Log::hurry_room`].
    pub is_room_wanted: bool,
}

impl Inbox {
    pub fn new(log: &Log, queue_bytes_max: usize, when_full: WhenFull) -> Inbox {
        let state = State {
            names: log.groups().map(|group| (group.group, group.clone())).collect(),
            last_ticket: log.last_ticket(),
            items: Vec::new(),
            item_bytes: 0,
            last_item_bytes: 0,
            item_frame_bytes: 0,
            core_bytes: 0,
            core_frame_bytes: 0,
            upkeep: Vec::new(),
            blocked: 0,
            disk_room: log.room(),
            is_room_wanted: false,
            turns: 0,
            room_wakers: Vec::new(),
            taken_appends: 0,
            waker: None,
            wake_from_bytes: Some(0),
            is_ticking: false,
            closing: false,
            poisoned: false,
        };
        let batch_bytes_max = log.batch_bytes_max();
        Inbox {
            state: Mutex::new(state),
            room: Condvar::new(),
            queue_bytes_max,
            batch_bytes_max,
            when_full,
            appends: AtomicUsize::new(0),
        }
    }

    /// Takes entries that the caller has named.
    pub fn append(&self, group: GroupId, entries: Vec<Entry>, share: Share) -> Result<(Ticket, Range<Index>), Refused> {
        check_payloads(&entries)?;
        let item = Item::Entries { group, entries };
        let bytes = self.check_size(&item)?;
        let state = self.wait_for(share, bytes)?;
        let Item::Entries { entries, .. } = &item else { unreachable!("made above") };
        let Some((first, last)) = entries.first().zip(entries.last()) else {
            return Ok((state.last_ticket, Index::ZERO..Index::ZERO));
        };
        let indexes = first.id.index..last.id.index.next();
        state.check_entries(group, entries)?;
        Ok((self.take_in(state, item, bytes), indexes))
    }

    /// Takes records and names them: the group's next indexes, its last term.
    pub fn append_data(&self, group: GroupId, records: &[Data]) -> Result<(Ticket, Range<Index>), Refused> {
        let bytes = self.check_data(records)?;
        if bytes > COPIED_BYTES_MAX {
            let entry = |data: &Data| Entry { id: LogId::ZERO, payload: Payload::Data(data.clone()) };
            return self.append_unnamed(group, records.iter().map(entry).collect(), bytes);
        }
        let mut state = self.wait_for_room(bytes)?;
        let indexes = state.take_data(group, records, bytes, self.joined_bytes_max())?;
        let ticket = if records.is_empty() { state.last_ticket } else { self.taken_in(state) };
        Ok((ticket, indexes))
    }

    /// As [`Inbox::append_data`] if nothing waits and the core comes round at each tick: then the item is given to the
    /// caller, who writes it. Nobody else is told, and appends wake nobody until the write has settled. Where more than
    /// one append was in the last batch others will be along, and the core writes them all.
    pub fn append_direct(&self, group: GroupId, records: &[Data]) -> Result<Option<(Item, Range<Index>)>, Refused> {
        let bytes = self.check_data(records)?;
        let mut state = self.lock();
        state.check_open()?;
        let is_alone = state.items.is_empty() && state.taken_appends <= 1;
        if !is_alone || !state.is_ticking || state.is_disk_full() {
            return Ok(None);
        }
        let fits_disk = frame_room_bytes(bytes) <= state.disk_room.bytes;
        if records.is_empty() || bytes > JOINED_BYTES_MAX || !fits_disk {
            return Ok(None);
        }
        let indexes = state.take_data(group, records, bytes, self.joined_bytes_max())?;
        let item = state.items.pop().expect("it was added to none");
        state.core_bytes += std::mem::take(&mut state.item_bytes);
        state.core_frame_bytes += std::mem::take(&mut state.item_frame_bytes);
        state.wake_from_bytes = None;
        Ok(Some((item, indexes)))
    }

    /// Takes entries of which only the names are missing.
    fn append_unnamed(
        &self,
        group: GroupId,
        mut entries: Vec<Entry>,
        bytes: usize,
    ) -> Result<(Ticket, Range<Index>), Refused> {
        let state = self.wait_for_room(bytes)?;
        let LogId { term, index: first } = state.next_name(group);
        let indexes = first..first.plus(entries.len() as u64);
        check_index(indexes.end.previous())?;
        state.check_group(group)?;
        for (ahead, entry) in (0..).zip(entries.iter_mut()) {
            entry.id = LogId::new(term, first.plus(ahead));
        }
        Ok((self.take_in(state, Item::Entries { group, entries }, bytes), indexes))
    }

    /// Takes a truncate or a purge, or nothing if what it would end has ended.
    pub fn cut(&self, group: GroupId, kind: RecordKind, id: LogId) -> Result<Ticket, Refused> {
        let item = Item::Cut { group, kind, id };
        let bytes = self.check_size(&item)?;
        let state = self.wait_for(Share::Cuts, bytes)?;
        if state.has_ended(group, kind, id.index) {
            return Ok(state.last_ticket);
        }
        state.check_group(group)?;
        if kind == RecordKind::Truncate {
            state.check_join(group, id.index)?;
        }
        Ok(self.take_in(state, item, bytes))
    }

    fn check_size(&self, item: &Item) -> Result<usize, Refused> {
        check_index(item.last_index())?;
        let bytes = item.record_bytes();
        self.check_bytes(bytes, item.records())?;
        Ok(bytes)
    }

    fn check_bytes(&self, bytes: usize, records: usize) -> Result<(), Refused> {
        let max = self.batch_bytes_max;
        let is_too_large = bytes > max || records > FRAME_RECORDS_MAX;
        if is_too_large { Err(wal::Refused::TooLarge { bytes, max }.into()) } else { Ok(()) }
    }

    fn check_data(&self, records: &[Data]) -> Result<usize, Refused> {
        let bytes = records.iter().map(|data| record_bytes(data.bytes.len())).sum();
        self.check_bytes(bytes, records.len())?;
        Ok(bytes)
    }

    fn joined_bytes_max(&self) -> usize {
        JOINED_BYTES_MAX.min(self.batch_bytes_max)
    }

    fn take_in(&self, mut state: MutexGuard<'_, State>, item: Item, bytes: usize) -> Ticket {
        state.take_names(&item);
        if let Some(item) = state.join(item, bytes, self.joined_bytes_max()) {
            state.add(item, bytes);
        }
        self.taken_in(state)
    }

    /// Something was taken: sees to it that it is written.
    fn taken_in(&self, mut state: MutexGuard<'_, State>) -> Ticket {
        self.appends.store(self.appends() + 1, Ordering::Relaxed);
        let ticket = state.last_ticket;
        let waker = if state.reaches(state.wake_from_bytes) { state.waker.take() } else { None };
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
        ticket
    }

    /// Wakes the core, if it sleeps.
    pub fn wake(&self) {
        let waker = self.lock().waker.take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// A segment is made, or removed.
    pub fn kept_up(&self, upkeep: Upkeep) {
        self.lock().upkeep.push(upkeep);
        self.wake();
    }

    /// Nothing is taken any more; what was taken is finished.
    pub fn close(&self) {
        let mut state = self.lock();
        state.closing = true;
        state.turns += 1;
        drop(state);
        self.room.notify_all();
        self.wake();
    }

    /// The log has failed.
    pub fn poison(&self) {
        let mut state = self.lock();
        state.poisoned = true;
        state.turns += 1;
        drop(state);
        self.room.notify_all();
    }

    /// Appends that the core took last.
    pub fn taken_appends(&self) -> usize {
        self.lock().taken_appends
    }

    /// Appends that wait for the core to take them.
    pub fn appends(&self) -> usize {
        self.appends.load(Ordering::Relaxed)
    }

    pub fn batch_bytes_max(&self) -> usize {
        self.batch_bytes_max
    }

    pub fn last_ticket(&self) -> Ticket {
        self.lock().last_ticket
    }

    pub fn group(&self, group: GroupId) -> Option<GroupLog> {
        self.lock().names.get(&group).cloned()
    }

    /// The core begins a turn. `taken.items` is empty, and swapped for what waits, if that is enough for a frame to leave.
    pub fn take(&self, waker: &Waker, taken: &mut Taken, from_bytes: Option<usize>) {
        let mut state = self.lock();
        if state.waker.as_ref().is_none_or(|old| !old.will_wake(waker)) {
            state.waker = Some(waker.clone());
        }
        (taken.closing, taken.poisoned) = (state.closing, state.poisoned);
        taken.is_room_wanted = std::mem::take(&mut state.is_room_wanted);
        std::mem::swap(&mut taken.upkeep, &mut state.upkeep);
        if state.reaches(from_bytes) {
            std::mem::swap(&mut taken.items, &mut state.items);
            state.core_bytes += std::mem::take(&mut state.item_bytes);
            state.core_frame_bytes += std::mem::take(&mut state.item_frame_bytes);
            if self.appends() > 0 {
                state.taken_appends = self.appends.swap(0, Ordering::Relaxed);
            }
        }
    }

    /// The core ends a turn, or an appender a write of its own: tells whether the core must take a turn at once.
    pub fn settle(&self, log: &Log, disk_room: wal::Room, from_bytes: Option<usize>) -> bool {
        let mut state = self.lock();
        let core_bytes = log.queued_bytes();
        state.core_bytes = core_bytes;
        state.core_frame_bytes = log.queued_frame_bytes();
        state.disk_room = disk_room;
        state.turns += 1;
        state.wake_from_bytes = from_bytes;
        let is_wanted = state.is_room_wanted || !state.upkeep.is_empty();
        let again = (state.reaches(from_bytes) && !state.items.is_empty()) || is_wanted;
        let has_room = state.item_bytes + core_bytes < self.queue_bytes_max;
        // On a full disk the queue may never empty: who waits for that is told now.
        let has_answer = state.blocked > 0 && (has_room || state.is_disk_full());
        drop(state);
        if has_answer {
            self.room.notify_all();
        }
        again
    }

    /// Whether the core comes round at each tick from now on.
    pub fn set_ticking(&self, is_ticking: bool) {
        self.lock().is_ticking = is_ticking;
    }

    /// Threads that wait for room.
    #[cfg(test)]
    pub fn blocked(&self) -> usize {
        self.lock().blocked
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // What may panic stands before the first change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whether so many bytes wait, here and in the core.
    fn reaches(&self, bytes: Option<usize>) -> bool {
        bytes.is_some_and(|bytes| self.waiting_bytes() >= bytes)
    }

    fn is_disk_full(&self) -> bool {
        self.disk_room.supply == Supply::Failing
    }

    /// Record bytes that wait for a frame.
    fn waiting_bytes(&self) -> usize {
        self.item_bytes + self.core_bytes
    }

    fn check_group(&self, group: GroupId) -> Result<(), Refused> {
        if !self.names.contains_key(&group) && self.names.len() >= GROUPS_MAX {
            return Err(wal::Refused::TooManyGroups { max: GROUPS_MAX }.into());
        }
        Ok(())
    }

    fn check_open(&self) -> Result<(), Refused> {
        if self.poisoned {
            return Err(wal::Refused::Poisoned.into());
        }
        if self.closing { Err(Refused::Closed) } else { Ok(()) }
    }

    /// Whether a cut has nothing to end, and so is no record, which no reader would take at index 0.
    fn has_ended(&self, group: GroupId, kind: RecordKind, index: Index) -> bool {
        let known = self.names.get(&group);
        match kind {
            RecordKind::Purge => index <= known.map_or(Index::ZERO, |known| known.before_first.index),
            RecordKind::Truncate | RecordKind::Entry => known.is_none() && index > Index::ZERO,
        }
    }

    fn check_join(&self, group: GroupId, first: Index) -> Result<(), Refused> {
        let (expected, before_first) = match self.names.get(&group) {
            Some(known) => (known.last.index.next(), known.before_first.index),
            None if first > Index::ZERO => return Ok(()),
            None => (Index::FIRST, Index::ZERO),
        };
        if first > expected || first <= before_first {
            return Err(wal::Refused::Gap { found: first, expected, before_first }.into());
        }
        Ok(())
    }

    fn check_entries(&self, group: GroupId, entries: &[Entry]) -> Result<(), Refused> {
        self.check_group(group)?;
        let first = entries[0].id;
        check_index(first.index)?;
        self.check_join(group, first.index)?;
        let known = self.names.get(&group).and_then(|log| log.id_at(first.index.previous()));
        let mut before = known.unwrap_or(LogId::new(Term::ZERO, first.index.previous()));
        let mut changes = 0;
        for entry in entries {
            let next = entry.id;
            if next.index != before.index.next() || next.term < before.term {
                return Err(Refused::Order { before, next });
            }
            changes += usize::from(next.term != before.term);
            before = next;
        }
        if changes >= FRAME_RUNS_MAX { Err(Refused::TooManyTerms { max: FRAME_RUNS_MAX }) } else { Ok(()) }
    }

    /// Names records and copies them in; gives their indexes.
    fn take_data(
        &mut self,
        group: GroupId,
        records: &[Data],
        bytes: usize,
        joined_bytes_max: usize,
    ) -> Result<Range<Index>, Refused> {
        let first = self.next_name(group);
        let indexes = first.index..first.index.plus(records.len() as u64);
        if records.is_empty() {
            return Ok(indexes);
        }
        check_index(indexes.end.previous())?;
        self.check_group(group)?;
        self.take_run(group, first, records.len() as u64);
        self.copy_in((group, first), records, bytes, joined_bytes_max);
        Ok(indexes)
    }

    /// What the next record of a group is called.
    fn next_name(&self, group: GroupId) -> LogId {
        // Term 0 is before the first entry.
        let last = self.names.get(&group).map_or(LogId::ZERO, |log| log.last);
        LogId::new(last.term.max(Term(1)), last.index.next())
    }

    /// Copies records behind those of the last item if they go on where it ends, or else into a new one.
    fn copy_in(&mut self, (group, first): (GroupId, LogId), records: &[Data], bytes: usize, bytes_max: usize) {
        let fits = self.last_item_bytes + bytes <= bytes_max;
        if let Some(Item::Encoded(last)) = self.items.last_mut()
            && fits
            && (last.group(), last.next()) == (group, first)
        {
            records.iter().for_each(|data| last.push(data));
            return self.joined(bytes);
        }
        let mut encoded = Encoded::with_capacity(group, first, bytes);
        records.iter().for_each(|data| encoded.push(data));
        self.add(Item::Encoded(encoded), bytes);
    }

    /// Adds entries to the last item if they go on where it ends, in its term: one item has one ticket, and is
    /// durable as a whole. Gives back what does not.
    fn join(&mut self, item: Item, bytes: usize, bytes_max: usize) -> Option<Item> {
        let fits = self.last_item_bytes + bytes <= bytes_max;
        match (self.items.last_mut(), item) {
            (Some(Item::Entries { group: last_group, entries: last }), Item::Entries { group, mut entries })
                if fits && *last_group == group && goes_on(last, &entries) =>
            {
                last.append(&mut entries);
                self.joined(bytes);
                None
            }
            (_, item) => Some(item),
        }
    }

    fn joined(&mut self, bytes: usize) {
        let before = self.last_item_bytes;
        self.item_bytes += bytes;
        self.item_frame_bytes += frame_room_bytes(before + bytes) - frame_room_bytes(before);
        self.last_item_bytes += bytes;
    }

    fn add(&mut self, item: Item, bytes: usize) {
        self.items.push(item);
        self.item_bytes += bytes;
        self.item_frame_bytes += frame_room_bytes(bytes);
        self.last_item_bytes = bytes;
        self.last_ticket = Ticket(self.last_ticket.0 + 1);
    }

    /// Entries of one term that come behind the group's last.
    fn take_run(&mut self, group: GroupId, first: LogId, count: u64) {
        let before = LogId::new(Term::ZERO, first.index.previous());
        let log = self.names.entry(group).or_insert_with(|| GroupLog::new(group, before, Place::START));
        log.append(first.index, count, first.term);
    }

    /// As the core will.
    fn take_names(&mut self, item: &Item) {
        let group = item.group();
        match item {
            Item::Entries { entries, .. } => {
                let before = LogId::new(Term::ZERO, entries[0].id.index.previous());
                let log = self.names.entry(group).or_insert_with(|| GroupLog::new(group, before, Place::START));
                for run in entries.chunk_by(|left, right| left.id.term == right.id.term) {
                    log.append(run[0].id.index, run.len() as u64, run[0].id.term);
                }
            }
            Item::Encoded(encoded) => self.take_run(group, encoded.first(), u64::from(encoded.count())),
            Item::Cut { kind, id, .. } => {
                let new = || GroupLog::new(group, LogId::ZERO, Place::START);
                let log = self.names.entry(group).or_insert_with(new);
                match kind {
                    RecordKind::Purge => log.purge(*id),
                    RecordKind::Truncate | RecordKind::Entry => log.truncate(id.index),
                }
            }
        }
    }
}

fn check_index(last: Index) -> Result<(), Refused> {
    let is_too_large = last.0 > INDEX_MAX;
    if is_too_large { Err(wal::Refused::IndexTooLarge { found: last, max: INDEX_MAX }.into()) } else { Ok(()) }
}

fn goes_on(before: &[Entry], next: &[Entry]) -> bool {
    let (Some(before), Some(first), Some(last)) = (before.last(), next.first(), next.last()) else { return false };
    first.id.index == before.id.index.next() && first.id.term == before.id.term && last.id.term == before.id.term
}
