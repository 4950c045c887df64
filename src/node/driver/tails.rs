//! Tails: appended records as they are applied, to whoever follows the log.

use std::collections::BTreeMap;

use super::log_reads::log_moved_on;
use super::reads::take_record;
use super::{Driver, Effect, ReadFor, STALE_READS_MAX};
use crate::machine::StateMachine;
use crate::net::{Records, Refusal, TailKey};
use crate::types::{Entry, Index};
use crate::wal;

/// Bytes given to a tail at once; then it must say that it has room.
const TAIL_BYTES: usize = 256 << 10;
const TAIL_ENTRIES: u64 = 16_384;

/// Who follows. Bounded by the streams that the network lets in.
#[derive(Debug, Default)]
pub(super) struct Tails {
    open: BTreeMap<TailKey, Tail>,
}

#[derive(Clone, Copy, Debug)]
struct Tail {
    /// The next index to give.
    next: Index,
    /// It takes more, and nothing is being read for it.
    is_ready: bool,
    /// Reads for it, one after the other, that found the log moved on.
    stale_reads: usize,
}

impl Tails {
    pub fn open(&mut self, tail: TailKey, from: Index) {
        self.open.insert(tail, Tail { next: from.max(Index::FIRST), is_ready: true, stale_reads: 0 });
    }

    pub fn ready(&mut self, tail: TailKey) {
        if let Some(tail) = self.open.get_mut(&tail) {
            tail.is_ready = true;
        }
    }

    pub fn close(&mut self, tail: TailKey) {
        self.open.remove(&tail);
    }
}

impl<M: StateMachine> Driver<M> {
    /// Gives each tail that takes more what has been applied since; tells whether one has more to look at.
    pub(super) fn serve_tails(&mut self) -> bool {
        let applied = self.applied.index;
        let due = |(key, tail): (&TailKey, &Tail)| (tail.is_ready && tail.next <= applied).then_some((*key, tail.next));
        let due: Vec<(TailKey, Index)> = self.tails.open.iter().filter_map(due).collect();
        for (key, next) in due {
            if next < self.first_readable() {
                let first = self.first_readable();
                self.end_tail(key, Refusal::Trimmed { first });
                continue;
            }
            let end = applied.next().min(next.plus(TAIL_ENTRIES));
            match self.cached_records(next, end, TAIL_BYTES) {
                Some(records) => self.give(key, records),
                None => {
                    self.wait(key);
                    self.read_log(next, end, TAIL_BYTES, ReadFor::Tail(key));
                }
            }
        }
        self.tails.open.values().any(|tail| tail.is_ready && tail.next <= applied)
    }

    pub(super) fn on_tail_read(&mut self, key: TailKey, result: Result<Vec<Entry>, wal::Error>) {
        let Some(next) = self.tails.open.get(&key).map(|tail| tail.next) else { return };
        match result {
            // It would be read for again at once, for ever.
            Ok(entries) if entries.is_empty() => self.end_tail(key, self.missing(next)),
            Ok(entries) => {
                let mut records = self.records_from(next);
                entries.iter().for_each(|entry| take_record(&mut records, entry));
                self.give(key, records);
            }
            Err(error) if log_moved_on(&error) && self.read_tail_again(key) => {}
            Err(error) => self.end_tail(key, Refusal::Unavailable { reason: error.to_string() }),
        }
    }

    /// Lets it be looked at once more, where it may turn out to be trimmed; not for ever.
    fn read_tail_again(&mut self, key: TailKey) -> bool {
        let Some(tail) = self.tails.open.get_mut(&key).filter(|tail| tail.stale_reads < STALE_READS_MAX) else {
            return false;
        };
        tail.stale_reads += 1;
        tail.is_ready = true;
        true
    }

    fn give(&mut self, key: TailKey, records: Records) {
        let Some(tail) = self.tails.open.get_mut(&key) else { return };
        tail.next = records.next;
        tail.stale_reads = 0;
        // Entries that are no records are passed over in silence.
        tail.is_ready = records.records.is_empty();
        if !records.records.is_empty() {
            self.effects.push(Effect::Tail { tail: key, records });
        }
    }

    fn end_tail(&mut self, key: TailKey, refusal: Refusal) {
        self.tails.close(key);
        self.effects.push(Effect::EndTail { tail: key, refusal });
    }

    fn wait(&mut self, key: TailKey) {
        if let Some(tail) = self.tails.open.get_mut(&key) {
            tail.is_ready = false;
        }
    }
}
