//! What must be durable before what: persists on their way through superblock and log, and the messages that wait for
//! them.

use std::collections::VecDeque;

use super::{Effect, Stopped};
use crate::disk::Completion;
use crate::mutant::{self, Mutant};
use crate::raft::{Base, Message, Persist, PersistNumber};
use crate::superblock::{SaveNumber, Writer};
use crate::types::{Entry, GroupId, LogId, SegmentNumber};
use crate::wal::{self, Effect as LogEffect, Log, Ticket};

/// Tokens of the superblock's writes begin here; the log's lie below.
pub(super) const SUPERBLOCK_TOKENS: u64 = 1 << 63;

/// Persists, in the order of their numbers: first the hard state, and with it a snapshot that takes the log's place,
/// durably; then the log begins where that says, and then come the entries.
///
/// ```text
///   persist ─▶ waiting ──(superblock durable)──▶ writing ──(log durable)──▶ Durable(n) ─▶ held messages leave
/// ```
#[derive(Debug)]
pub(super) struct Pipeline {
    pub log: Log,
    pub superblock: Writer,
    /// Wait for the superblock. Bounded by the replica's limits on what is uncommitted or in a window.
    waiting: VecDeque<Waiting>,
    /// What they take of the log's room at most, together.
    waiting_frame_bytes: u64,
    /// Wait for the log.
    writing: VecDeque<(PersistNumber, Ticket)>,
    /// Messages that wait for a persist, by rising number.
    held: VecDeque<(PersistNumber, Message)>,
    /// Where the durable end was when the superblock learned of it last: it learns of each new segment, so that one
    /// that is missing at the next start is missed.
    known_segment: SegmentNumber,
    /// The last save that a persist asked for.
    last_save: SaveNumber,
    durable: PersistNumber,
}

#[derive(Debug)]
struct Waiting {
    number: PersistNumber,
    save: SaveNumber,
    /// The superblock says that the log begins after this entry: what the log has of before goes.
    begin_after: Option<LogId>,
    entries: Vec<Entry>,
    /// What these take of the log's room at most.
    frame_bytes: u64,
}

impl Pipeline {
    pub fn new(log: Log, superblock: Writer) -> Pipeline {
        Pipeline {
            log,
            superblock,
            waiting: VecDeque::new(),
            waiting_frame_bytes: 0,
            writing: VecDeque::new(),
            held: VecDeque::new(),
            known_segment: SegmentNumber(0),
            last_save: SaveNumber::default(),
            durable: PersistNumber::default(),
        }
    }

    pub fn persist(&mut self, persist: Persist) {
        let Persist { number, hard_state, base, entries } = persist;
        if hard_state.is_some() || base.is_some() {
            let durable_end = self.log.durable_end();
            self.last_save = self.superblock.save(|state| {
                let group = state.group_mut(GroupId::CLUSTER);
                group.hard_state = hard_state.unwrap_or(group.hard_state);
                if let Some(Base { point, begin_after }) = base {
                    group.log_start = begin_after.index.next();
                    // One whose point the log has not reached counts when it has.
                    if point == begin_after {
                        group.snapshot = point;
                    }
                }
                state.durable_end = state.durable_end.max(durable_end);
            });
        }
        let begin_after = base.map(|base| base.begin_after);
        let frame_bytes = self.log.frames_bytes_max(entries.iter().map(wal::entry_record_bytes).sum());
        self.waiting_frame_bytes += frame_bytes;
        self.waiting.push_back(Waiting { number, save: self.last_save, begin_after, entries, frame_bytes });
    }

    /// What waits for a frame takes at most so much of the log's room.
    pub fn waiting_frame_bytes(&self) -> u64 {
        self.waiting_frame_bytes + self.log.queued_frame_bytes()
    }

    /// A message leaves now, or when its persist is durable.
    pub fn send(&mut self, message: Message, after: Option<PersistNumber>, effects: &mut Vec<Effect>) {
        let after = after.filter(|_| !mutant::is_on(Mutant::AckBeforeFlush));
        match after {
            Some(number) if number > self.durable => {
                // A follower that stood and follows the same leader again knows less of its log to match than before,
                // so that an answer may wait for an earlier persist than the one before it.
                let at = self.held.partition_point(|(last, _)| *last <= number);
                self.held.insert(at, (number, message));
            }
            _ => effects.push(Effect::Send(message)),
        }
    }

    /// A write has completed.
    pub fn written(&mut self, completion: Completion) -> Result<(), Stopped> {
        if completion.token.0 >= SUPERBLOCK_TOKENS {
            return self.superblock.handle(completion).map_err(Stopped::Disk);
        }
        self.log.completed(completion).map_err(|poisoned| Stopped::Disk(poisoned.0))
    }

    /// Moves everything on that can move; gives the number up to which persists have become durable, if it rose.
    pub fn advance(&mut self, effects: &mut Vec<Effect>) -> Result<Option<PersistNumber>, Stopped> {
        let spoken = self.superblock.durable();
        while let Some(ready) = self.waiting.pop_front_if(|waiting| waiting.save <= spoken) {
            self.waiting_frame_bytes -= ready.frame_bytes;
            if let Some(begin_after) = ready.begin_after {
                self.log.purge_prefix(GroupId::CLUSTER, begin_after).map_err(Stopped::Log)?;
            }
            let ticket = self.log.append_each(GroupId::CLUSTER, &ready.entries).map_err(Stopped::Log)?;
            self.writing.push_back((ready.number, ticket));
        }
        self.tell_segment();
        self.give_out(effects);
        let written = self.log.durable_ticket();
        let mut durable = None;
        while let Some((number, _)) = self.writing.pop_front_if(|(_, ticket)| *ticket <= written) {
            durable = Some(number);
        }
        if let Some(number) = durable {
            self.durable = number;
            while let Some((_, message)) = self.held.pop_front_if(|(after, _)| *after <= number) {
                effects.push(Effect::Send(message));
            }
        }
        Ok(durable)
    }

    fn tell_segment(&mut self) {
        let durable_end = self.log.durable_end();
        if durable_end.segment != self.known_segment {
            self.known_segment = durable_end.segment;
            self.superblock.save(|state| state.durable_end = state.durable_end.max(durable_end));
        }
    }

    fn give_out(&mut self, effects: &mut Vec<Effect>) {
        while let Some(write) = self.superblock.take_write() {
            effects.push(Effect::Write(write));
        }
        while let Some(effect) = self.log.take_effect() {
            effects.push(match effect {
                LogEffect::Write(write) => Effect::Write(write),
                LogEffect::Prepare(order) => Effect::Prepare(order),
                LogEffect::Remove(order) => Effect::Remove(order),
            });
        }
    }

    /// Nothing waits for the disk.
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.writing.is_empty() && self.log.is_idle() && self.superblock.is_idle()
    }

    /// One step towards the end: everything durable, then covered, then known to the superblock, which shows it where a full
    /// disk has no room for the cover.
    pub fn is_finished(&mut self) -> bool {
        if !self.is_idle() || self.log.cover() {
            return false;
        }
        let durable_end = self.log.durable_end();
        self.superblock.save(|state| state.durable_end = state.durable_end.max(durable_end));
        self.superblock.is_idle()
    }
}
