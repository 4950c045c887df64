//! One group's log as far as names go: where it begins, where it ends, which term each entry has.

use super::frame::Run;
use super::record::RecordKind;
use crate::types::{GroupId, Index, LogId, Place, Term};

/// The names of a group's entries. Says nothing about what is durable.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupLog {
    pub group: GroupId,
    /// The entry before the first one. Only a purge moves it, and only up.
    pub before_first: LogId,
    /// The last entry, or `before_first`.
    pub last: LogId,
    /// The end of the last frame that added an entry.
    pub last_place: Place,
    /// Entries as runs of one term: each begins at an index and reaches to the next run, or to `last`.
    pub terms: Vec<(Index, Term)>,
}

impl GroupLog {
    pub fn new(group: GroupId, before_first: LogId, place: Place) -> GroupLog {
        GroupLog { group, before_first, last: before_first, last_place: place, terms: Vec::new() }
    }

    /// The index of the first entry, or the one it will have.
    pub fn first(&self) -> Index {
        self.before_first.index.next()
    }

    /// The name of the entry at `index`, which may be the one before the first.
    pub fn id_at(&self, index: Index) -> Option<LogId> {
        if index == self.before_first.index {
            return Some(self.before_first);
        }
        if index < self.before_first.index || index > self.last.index {
            return None;
        }
        let run = self.terms.partition_point(|&(first, _)| first <= index);
        run.checked_sub(1).map(|run| LogId::new(self.terms[run].1, index))
    }

    /// Adds `count` entries of one term from `first` on, which ends all older entries from there on.
    pub fn append(&mut self, first: Index, count: u64, term: Term) {
        assert!(count > 0, "a run holds an entry");
        self.truncate(first);
        if self.terms.last().is_none_or(|&(_, last)| last != term) {
            self.terms.push((first, term));
        }
        self.last = LogId::new(term, first.plus(count - 1));
    }

    /// Ends all entries from `from` on.
    pub fn truncate(&mut self, from: Index) {
        if from > self.last.index {
            return;
        }
        let keep = from.previous().max(self.before_first.index);
        self.last = self.id_at(keep).unwrap_or(self.before_first);
        self.terms.retain(|&(first, _)| first <= self.last.index);
        if self.last.index == self.before_first.index {
            self.terms.clear();
        }
    }

    /// Ends all entries up to and including `last`, which becomes the one before the first. If the log does not
    /// reach that far it is empty from there on.
    pub fn purge(&mut self, last: LogId) {
        if last.index <= self.before_first.index {
            return;
        }
        self.before_first = last;
        if last.index >= self.last.index {
            self.last = last;
            self.terms.clear();
            return;
        }
        let first = last.index.next();
        let run = self.terms.partition_point(|&(start, _)| start <= first);
        self.terms.drain(..run.saturating_sub(1));
        if let Some(run) = self.terms.first_mut() {
            run.0 = run.0.max(first);
        }
    }

    /// Does what a run of a frame says. `end` is the end of that frame.
    pub fn apply(&mut self, run: &Run, end: Place) {
        match run.kind {
            RecordKind::Entry => {
                self.append(run.first, u64::from(run.count), run.term);
                self.last_place = end;
            }
            RecordKind::Truncate => self.truncate(run.first),
            RecordKind::Purge => self.purge(LogId::new(run.term, run.first)),
        }
    }
}
