//! What the callers' threads hand to the log's thread: checked and named here, so that an append is refused at once.
//!
//! The names of everything taken are kept beside the queue. The core keeps the same names by the same rules, so what
//! passes here is never refused there.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use bytes::Bytes;

use super::error::Refused;
use super::options::WhenFull;
use crate::disk::{self, FileId};
use crate::limits::{FRAME_RECORDS_MAX, FRAME_RUNS_MAX, GROUPS_MAX, INDEX_MAX};
use crate::types::{Data, Entry, GroupId, Index, LogId, Payload, Place, SegmentNumber, Term};
use crate::wal::body::{Item, frame_room_bytes};
use crate::wal::record::RecordKind;
use crate::wal::{self, GroupLog, Log, Ticket};

/// Appends that go on from each other are joined up to this: what is done per item is then done once for many of them.
const JOINED_BYTES_MAX: usize = 64 << 10;

/// What became of a preparation.
pub(super) type Prepared = (SegmentNumber, Result<FileId, disk::Error>);

#[derive(Debug)]
pub(super) struct Inbox {
    state: Mutex<State>,
    /// There may be room again.
    room: Condvar,
    queue_bytes_max: usize,
    /// The most record bytes of one batch.
    batch_bytes_max: usize,
    when_full: WhenFull,
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
    prepared: Vec<Prepared>,
    /// Threads that wait for room.
    blocked: usize,
    /// The disk is full, and frames of so many bytes still fit what is ready.
    room_bytes: Option<u64>,
    /// Set while the core sleeps. Whoever takes it wakes the core.
    waker: Option<Waker>,
    /// The core could write at once: an append wakes it. Otherwise the write in flight will.
    wake_on_append: bool,
    closing: bool,
    poisoned: bool,
}

/// What the core takes at the start of a turn.
#[derive(Debug, Default)]
pub(super) struct Taken {
    pub items: Vec<Item>,
    pub prepared: Vec<Prepared>,
    pub closing: bool,
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
            prepared: Vec::new(),
            blocked: 0,
            room_bytes: None,
            waker: None,
            wake_on_append: true,
            closing: false,
            poisoned: false,
        };
        let batch_bytes_max = log.batch_bytes_max();
        Inbox { state: Mutex::new(state), room: Condvar::new(), queue_bytes_max, batch_bytes_max, when_full }
    }

    /// Takes entries that the caller has named.
    pub fn append(&self, group: GroupId, entries: Vec<Entry>) -> Result<(Ticket, Range<Index>), Refused> {
        let item = Item::Entries { group, entries };
        let bytes = self.check_size(&item)?;
        let state = self.wait_for_room(bytes)?;
        let Item::Entries { entries, .. } = &item else { unreachable!("made above") };
        let Some((first, last)) = entries.first().zip(entries.last()) else {
            return Ok((state.last_ticket, Index::ZERO..Index::ZERO));
        };
        let indexes = first.id.index..last.id.index.next();
        state.check_entries(group, entries)?;
        Ok((self.take_in(state, item, bytes), indexes))
    }

    /// Takes records and names them: the group's next indexes, its last term.
    pub fn append_records(
        &self,
        group: GroupId,
        records: impl Iterator<Item = Bytes>,
    ) -> Result<(Ticket, Range<Index>), Refused> {
        let entry = |bytes| Entry { id: LogId::ZERO, payload: Payload::Data(Data::new(bytes)) };
        let mut item = Item::Entries { group, entries: records.map(entry).collect() };
        let bytes = self.check_size(&item)?;
        let state = self.wait_for_room(bytes)?;
        let last = state.names.get(&group).map_or(LogId::new(Term(1), Index::ZERO), |log| log.last);
        // Term 0 is before the first entry.
        let (term, first) = (last.term.max(Term(1)), last.index.next());
        let Item::Entries { entries, .. } = &mut item else { unreachable!("made above") };
        for (ahead, entry) in (0..).zip(entries.iter_mut()) {
            entry.id = LogId::new(term, first.plus(ahead));
        }
        let indexes = first..first.plus(entries.len() as u64);
        if entries.is_empty() {
            return Ok((state.last_ticket, indexes));
        }
        state.check_group(group)?;
        Ok((self.take_in(state, item, bytes), indexes))
    }

    /// Takes a truncate or a purge.
    pub fn cut(&self, group: GroupId, kind: RecordKind, id: LogId) -> Result<Ticket, Refused> {
        let item = Item::Cut { group, kind, id };
        let bytes = self.check_size(&item)?;
        // A cut needs no room of the clients': it may be what makes some.
        let state = self.lock();
        state.check_open()?;
        state.check_group(group)?;
        if kind == RecordKind::Truncate {
            state.check_join(group, id.index)?;
        }
        Ok(self.take_in(state, item, bytes))
    }

    fn check_size(&self, item: &Item) -> Result<usize, Refused> {
        if item.last_index().0 > INDEX_MAX {
            return Err(wal::Refused::IndexTooLarge { found: item.last_index(), max: INDEX_MAX }.into());
        }
        let (bytes, max) = (item.record_bytes(), self.batch_bytes_max);
        if bytes > max || item.records() > FRAME_RECORDS_MAX {
            return Err(wal::Refused::TooLarge { bytes, max }.into());
        }
        Ok(bytes)
    }

    fn wait_for_room(&self, bytes: usize) -> Result<MutexGuard<'_, State>, Refused> {
        let mut state = self.lock();
        loop {
            state.check_open()?;
            let waiting = state.item_bytes + state.core_bytes;
            let frame_bytes = state.item_frame_bytes + state.core_frame_bytes + frame_room_bytes(bytes);
            if state.room_bytes.is_some_and(|room| frame_bytes > room) {
                return Err(wal::Refused::NoSpace.into());
            }
            if waiting == 0 || waiting + bytes <= self.queue_bytes_max {
                return Ok(state);
            }
            if self.when_full == WhenFull::Busy {
                return Err(Refused::Busy { bytes: waiting, max: self.queue_bytes_max });
            }
            state.blocked += 1;
            state = self.room.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.blocked -= 1;
        }
    }

    fn take_in(&self, mut state: MutexGuard<'_, State>, item: Item, bytes: usize) -> Ticket {
        state.take_names(&item);
        state.item_bytes += bytes;
        let bytes_max = JOINED_BYTES_MAX.min(self.batch_bytes_max);
        let joined_bytes = state.last_item_bytes;
        if let Some(item) = state.join(item, bytes, bytes_max) {
            state.items.push(item);
            state.item_frame_bytes += frame_room_bytes(bytes);
            state.last_item_bytes = bytes;
            state.last_ticket = Ticket(state.last_ticket.0 + 1);
        } else {
            state.item_frame_bytes += frame_room_bytes(joined_bytes + bytes) - frame_room_bytes(joined_bytes);
        }
        let ticket = state.last_ticket;
        let waker = if state.wake_on_append { state.waker.take() } else { None };
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

    pub fn prepared(&self, prepared: Prepared) {
        self.lock().prepared.push(prepared);
        self.wake();
    }

    /// Nothing is taken any more; what was taken is finished.
    pub fn close(&self) {
        self.lock().closing = true;
        self.room.notify_all();
        self.wake();
    }

    /// The log has failed.
    pub fn poison(&self) {
        self.lock().poisoned = true;
        self.room.notify_all();
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

    /// The core begins a turn. `taken.items` is empty, and swapped for what waits.
    pub fn take(&self, waker: &Waker, taken: &mut Taken, with_items: bool) {
        let mut state = self.lock();
        if state.waker.as_ref().is_none_or(|old| !old.will_wake(waker)) {
            state.waker = Some(waker.clone());
        }
        taken.closing = state.closing;
        std::mem::swap(&mut taken.prepared, &mut state.prepared);
        if with_items {
            std::mem::swap(&mut taken.items, &mut state.items);
            state.core_bytes += std::mem::take(&mut state.item_bytes);
            state.core_frame_bytes += std::mem::take(&mut state.item_frame_bytes);
        }
    }

    /// The core ends a turn: tells whether it must take another at once.
    pub fn settle(&self, log: &Log, room_bytes: Option<u64>, can_write: bool) -> bool {
        let mut state = self.lock();
        let core_bytes = log.queued_bytes();
        state.core_bytes = core_bytes;
        state.core_frame_bytes = log.queued_frame_bytes();
        state.room_bytes = room_bytes;
        state.wake_on_append = can_write;
        let again = (can_write && !state.items.is_empty()) || !state.prepared.is_empty();
        let has_room = state.item_bytes + core_bytes < self.queue_bytes_max;
        // On a full disk the queue may never empty: who waits for that is told now.
        let has_answer = state.blocked > 0 && (has_room || room_bytes.is_some());
        drop(state);
        if has_answer {
            self.room.notify_all();
        }
        again
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

    /// Adds entries to the last item if they go on where it ends, in its term: one item has one ticket, and is
    /// durable as a whole. Gives back what does not.
    fn join(&mut self, item: Item, bytes: usize, bytes_max: usize) -> Option<Item> {
        let fits = self.last_item_bytes + bytes <= bytes_max;
        match (self.items.last_mut(), item) {
            (Some(Item::Entries { group: last_group, entries: last }), Item::Entries { group, mut entries })
                if fits && *last_group == group && goes_on(last, &entries) =>
            {
                last.append(&mut entries);
                self.last_item_bytes += bytes;
                None
            }
            (_, item) => Some(item),
        }
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

fn goes_on(before: &[Entry], next: &[Entry]) -> bool {
    let (Some(before), Some(first), Some(last)) = (before.last(), next.first(), next.last()) else { return false };
    first.id.index == before.id.index.next() && first.id.term == before.id.term && last.id.term == before.id.term
}
