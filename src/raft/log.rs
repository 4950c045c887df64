//! The log as the protocol sees it: the terms of all entries, the newest entries themselves, and what is on disk.
//!
//! ```text
//!  before_first   first                  durable    unpersisted      last
//!       │           │                       │            │             │
//!       ▼           ▼   runs: (first, term) ▼            ▼             ▼
//!       ┄───────────┬────────── t1 ─────┬────── t2 ──────┬──── t4 ─────┤
//!                   │  on disk alone    │  cache: the entries          │
//! ```
//!
//! A term is found by binary search in the runs, so that the whole log costs memory per election and none per entry.
//! What is durable is told by the numbers of persists, never by log ids: after a change of term the same index may be
//! written again while the first write is still in flight, and the end of the first says nothing about the second.

use std::collections::VecDeque;

use crate::limits::ENTRY_OVERHEAD_BYTES;
use crate::mutant::{self, Mutant};
use crate::types::{Entry, Index, LogId, Term};

use super::{PersistNumber, Restored};

/// Consecutive entries of one term.
#[derive(Clone, Copy, Hash, Debug)]
struct Run {
    first: Index,
    term: Term,
}

/// A persist that was handed out and whose end has not been heard of.
#[derive(Clone, Copy, Hash, Debug)]
pub(super) struct Flight {
    pub(super) number: PersistNumber,
    /// Once this persist is durable, so is the present log up to here. Cut back when entries are replaced.
    last: Index,
}

/// See the module.
#[derive(Clone, Hash, Debug)]
pub(super) struct Log {
    before_first: LogId,
    /// In order of index, and by the rules of Raft of term, too. The first begins at `before_first` + 1.
    runs: Vec<Run>,
    last: LogId,
    /// The present log is on disk up to here; zero while not even its beginning is. Moves back when entries are replaced.
    durable: Index,
    /// From here on nothing has been handed out in a persist.
    unpersisted: Index,
    /// `number` rises strictly, `last` never falls.
    pub(super) in_flight: VecDeque<Flight>,
    /// The state machine needs nothing up to here.
    pub(super) applied: Index,
    /// The newest entries; the back one is `last`, unless it is empty.
    cache: VecDeque<Entry>,
    cache_bytes: usize,
    cache_bytes_max: usize,
}

/// What an entry counts where a bound is in bytes.
pub(super) fn cost_bytes(entry: &Entry) -> usize {
    entry.payload.data_bytes() + ENTRY_OVERHEAD_BYTES
}

impl Log {
    /// The log as it was found on disk: all of it durable, none of it in memory.
    pub(super) fn restored(restored: &Restored, cache_bytes_max: usize) -> Log {
        let runs: Vec<Run> = restored.terms.iter().map(|&(first, term)| Run { first, term }).collect();
        assert!(
            runs.windows(2).all(|pair| pair[0].first < pair[1].first && pair[0].term < pair[1].term),
            "runs of terms are not in order: {runs:?}"
        );
        let first = restored.before_first.index.next();
        match runs.last() {
            None => assert_eq!(restored.last, restored.before_first, "an empty log ends before its first entry"),
            Some(newest) => {
                assert_eq!(runs[0].first, first, "the first run begins with the first entry");
                assert_eq!(newest.term, restored.last.term, "the last run has the last entry's term");
                assert!(newest.first <= restored.last.index, "the last run begins beyond the last entry");
            }
        }
        Log {
            before_first: restored.before_first,
            runs,
            last: restored.last,
            durable: restored.last.index,
            unpersisted: restored.last.index.next(),
            in_flight: VecDeque::new(),
            // What a snapshot holds is not applied again.
            applied: restored.commit.max(restored.snapshot.index),
            cache: VecDeque::new(),
            cache_bytes: 0,
            cache_bytes_max,
        }
    }

    pub(super) fn before_first(&self) -> LogId {
        self.before_first
    }

    pub(super) fn last(&self) -> LogId {
        self.last
    }

    /// The last index of the present log that is on this node's disk.
    pub(super) fn durable(&self) -> Index {
        self.durable
    }

    /// The term of the entry at `index`; `None` outside of the log. The entry before the first one is known, too.
    pub(super) fn term_at(&self, index: Index) -> Option<Term> {
        if index == self.before_first.index {
            return Some(self.before_first.term);
        }
        if index < self.before_first.index || index > self.last.index {
            return None;
        }
        match self.runs.last() {
            Some(newest) if newest.first <= index => Some(newest.term),
            _ => {
                let after = self.runs.partition_point(|run| run.first <= index);
                Some(self.runs[after - 1].term)
            }
        }
    }

    /// The highest entry at or below `index` whose term is at most `term`; the entry before the first if there is
    /// none. What both sides of a conflict use to jump over whole terms (§5.3).
    pub(super) fn highest_at_most(&self, index: Index, term: Term) -> LogId {
        let after = self.runs.partition_point(|run| run.first <= index && run.term <= term);
        if after == 0 {
            return self.before_first;
        }
        let run_last = match self.runs.get(after) {
            Some(next) => next.first.previous(),
            None => self.last.index,
        };
        LogId::new(self.runs[after - 1].term, run_last.min(index))
    }

    /// Append the next entry.
    pub(super) fn push(&mut self, entry: Entry) {
        assert_eq!(entry.id.index, self.last.index.next(), "entries are appended without gaps");
        assert!(entry.id.term >= self.last.term, "terms in a log never fall: {} after {}", entry.id, self.last);
        if entry.id.term > self.last.term || self.runs.is_empty() {
            self.runs.push(Run { first: entry.id.index, term: entry.id.term });
        }
        self.last = entry.id;
        self.cache_bytes += cost_bytes(&entry);
        self.cache.push_back(entry);
    }

    /// Drop the entries from `from` on, because others take their place at once. Persists in flight that hold some of
    /// them prove from now on only what lies before.
    pub(super) fn truncate(&mut self, from: Index) {
        assert!(from > self.before_first.index && from <= self.last.index, "{from} is not in the log");
        let last = from.previous();
        let dropped = (self.last.index.0 - last.0) as usize;
        for _ in 0..dropped.min(self.cache.len()) {
            let entry = self.cache.pop_back().expect("as many as were counted");
            self.cache_bytes -= cost_bytes(&entry);
        }
        let term = self.term_at(last).expect("the entry before one of the log is known");
        while self.runs.last().is_some_and(|run| run.first >= from) {
            self.runs.pop();
        }
        self.last = LogId::new(term, last);
        self.durable = self.durable.min(last);
        self.unpersisted = self.unpersisted.min(from);
        for flight in self.in_flight.iter_mut().rev() {
            if flight.last <= last || mutant::is_on(Mutant::DurableByIndex) {
                break;
            }
            flight.last = last;
        }
    }

    /// Drop all entries, for a snapshot takes their place: the log goes on after this one. The state machine needs nothing up
    /// to `applied`. What was in flight proves nothing of this log.
    pub(super) fn begin_after(&mut self, before_first: LogId, applied: Index) {
        self.before_first = before_first;
        self.runs.clear();
        self.last = before_first;
        self.durable = if mutant::is_on(Mutant::InstalledBeforeDurable) { before_first.index } else { Index::ZERO };
        self.unpersisted = before_first.index.next();
        self.in_flight.clear();
        self.cache.clear();
        self.cache_bytes = 0;
        self.on_applied(applied);
    }

    /// The entries up to this one are on disk no more. All that there is behind stays.
    pub(super) fn compact(&mut self, before_first: LogId) {
        assert_eq!(self.term_at(before_first.index), Some(before_first.term), "{before_first} is not in the log");
        assert!(before_first.index <= self.durable, "what is not durable is not given up");
        let first = before_first.index.next();
        let gone = self.runs.partition_point(|run| run.first <= first);
        self.runs.drain(..gone.saturating_sub(1));
        if before_first == self.last {
            self.runs.clear();
        }
        if let Some(run) = self.runs.first_mut() {
            run.first = run.first.max(first);
        }
        self.before_first = before_first;
        while let Some(oldest) = self.cache.pop_front_if(|entry| entry.id.index < first) {
            self.cache_bytes -= cost_bytes(&oldest);
        }
    }

    /// All entries that no persist holds yet, for persist `number`.
    pub(super) fn persist(&mut self, number: PersistNumber) -> Vec<Entry> {
        let waiting = (self.last.index.next().0 - self.unpersisted.0) as usize;
        let Some(skipped) = self.cache.len().checked_sub(waiting) else {
            panic!("entries that are not on disk have left the cache");
        };
        self.unpersisted = self.last.index.next();
        self.in_flight.push_back(Flight { number, last: self.last.index });
        self.cache.range(skipped..).cloned().collect()
    }

    pub(super) fn has_unpersisted(&self) -> bool {
        self.unpersisted <= self.last.index
    }

    /// Persist `number`, and all before it, are on disk.
    pub(super) fn on_durable(&mut self, number: PersistNumber) {
        while let Some(flight) = self.in_flight.front().filter(|flight| flight.number <= number) {
            self.durable = self.durable.max(flight.last);
            self.in_flight.pop_front();
        }
        self.evict();
    }

    /// Which persist makes the present log durable up to `last`: `None` if it is, `next` if the one that is handed out
    /// next.
    pub(super) fn durable_after(&self, last: Index, next: PersistNumber) -> Option<PersistNumber> {
        assert!(last <= self.last.index, "{last} is beyond the log");
        if last <= self.durable {
            return None;
        }
        let at = self.in_flight.partition_point(|flight| flight.last < last);
        Some(self.in_flight.get(at).map_or(next, |flight| flight.number))
    }

    pub(super) fn on_applied(&mut self, applied: Index) {
        self.applied = self.applied.max(applied);
        self.evict();
    }

    /// Whether so much waits for this node's disk or state machine that no more should be taken from a leader: twice
    /// the bound of the cache. What waits to be committed does not count, for it may need more entries to get there.
    pub(super) fn is_full(&self, commit: Index) -> bool {
        let own_work_waits = self.applied < commit || self.durable < self.last.index;
        self.cache_bytes > 2 * self.cache_bytes_max && own_work_waits
    }

    /// The entries of `range`, if memory has them all.
    pub(super) fn cached(&self, range: std::ops::Range<Index>) -> Option<impl ExactSizeIterator<Item = &Entry>> {
        let first = self.cache_first();
        if range.start < first || range.end > self.last.index.next() || range.start > range.end {
            return None;
        }
        Some(self.cache.range((range.start.0 - first.0) as usize..(range.end.0 - first.0) as usize))
    }

    /// Entries from `from` on for one message, and what they count: at least one, then as many as fit. `None` if
    /// memory does not have them any more.
    pub(super) fn batch(&self, from: Index, bytes_max: usize, entries_max: usize) -> Option<(Vec<Entry>, usize)> {
        let start = from.0.checked_sub(self.cache_first().0)? as usize;
        let (mut count, mut bytes) = (0, 0);
        for entry in self.cache.range(start..).take(entries_max) {
            let cost = cost_bytes(entry);
            if count > 0 && bytes + cost > bytes_max {
                break;
            }
            count += 1;
            bytes += cost;
        }
        (count > 0).then(|| (self.cache.range(start..start + count).cloned().collect(), bytes))
    }

    /// What the cached entries in (`after`, `last`] count together.
    pub(super) fn cached_cost_bytes(&self, after: Index, last: Index) -> usize {
        let start = after.next().max(self.cache_first());
        self.cached(start..last.next().max(start)).map_or(0, |entries| entries.map(cost_bytes).sum())
    }

    /// The index of the oldest entry in memory; one beyond the log if there is none.
    pub(super) fn cache_first(&self) -> Index {
        Index(self.last.index.next().0 - self.cache.len() as u64)
    }

    /// Let the oldest go while the bound is passed, but none that the disk or the state machine still waits for.
    fn evict(&mut self) {
        let evictable = self.durable.min(self.applied);
        while self.cache_bytes > self.cache_bytes_max {
            match self.cache.front() {
                Some(oldest) if oldest.id.index <= evictable => {
                    self.cache_bytes -= cost_bytes(oldest);
                    self.cache.pop_front();
                }
                _ => break,
            }
        }
    }
}
