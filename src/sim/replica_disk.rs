//! What of a replica survives a crash: its log, and the snapshots that take the place of the log's beginning.

use std::collections::BTreeMap;

use crate::raft::{Persist, Restored};
use crate::types::{Entry, HardState, Index, LogId, Membership, Payload, Term};

/// See the module.
#[derive(Clone, Hash, Debug, Default)]
pub struct Disk {
    pub hard_state: HardState,
    /// The entry before the first one.
    pub before_first: LogId,
    /// Without gaps.
    pub entries: Vec<Entry>,
    /// The newest that counts: made here, or installed.
    pub snapshot: Option<Taken>,
    /// Whole, and they do not count yet: by their points, the configuration in force there.
    pub received: BTreeMap<LogId, (LogId, Membership)>,
}

/// A snapshot, without the state.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Taken {
    pub point: LogId,
    /// The configuration in force at the point, and its entry.
    pub membership: (LogId, Membership),
}

impl Disk {
    pub fn write(&mut self, persist: &Persist) {
        self.hard_state = persist.hard_state.unwrap_or(self.hard_state);
        if let Some(base) = persist.base {
            let membership = self.received.get(&base.point).expect("what is installed was received").clone();
            self.snapshot = Some(Taken { point: base.point, membership });
            if self.term_at(base.begin_after.index) != Some(base.begin_after.term) {
                self.entries.clear();
            }
            self.entries.retain(|entry| entry.id.index > base.begin_after.index);
            self.before_first = base.begin_after;
        }
        if let Some(first) = persist.entries.first() {
            let keep = (first.id.index.0 - 1 - self.before_first.index.0) as usize;
            assert!(keep <= self.entries.len(), "a persist leaves no gap");
            self.entries.truncate(keep);
            self.entries.extend(persist.entries.iter().cloned());
        }
    }

    pub fn last(&self) -> LogId {
        self.entries.last().map_or(self.before_first, |entry| entry.id)
    }

    pub fn term_at(&self, index: Index) -> Option<Term> {
        match index.0.checked_sub(self.before_first.index.0)? {
            0 => Some(self.before_first.term),
            place => self.entries.get(place as usize - 1).map(|entry| entry.id.term),
        }
    }

    /// Those from this index on.
    pub fn entries_from(&self, from: Index) -> &[Entry] {
        let start = from.0.saturating_sub(self.before_first.index.next().0) as usize;
        self.entries.get(start..).unwrap_or_default()
    }

    /// The point of the snapshot.
    pub fn point(&self) -> Option<Index> {
        self.snapshot.as_ref().map(|taken| taken.point.index)
    }

    pub fn restored(&self, applied: Index, born_with: &Membership) -> Restored {
        let mut terms: Vec<(Index, Term)> = Vec::new();
        let (first, membership) = self.base_membership(born_with);
        let mut memberships = vec![(first.index, membership)];
        for entry in &self.entries {
            if terms.last().is_none_or(|run| run.1 != entry.id.term) {
                terms.push((entry.id.index, entry.id.term));
            }
            if let Payload::Membership(membership) = &entry.payload
                && entry.id.index > first.index
            {
                memberships.push((entry.id.index, Membership::clone(membership)));
            }
        }
        Restored {
            hard_state: self.hard_state,
            before_first: self.before_first,
            terms,
            last: self.last(),
            // What is installed lies beyond what was applied, and the log may end before either.
            commit: applied.min(self.last().index).max(self.before_first.index),
            snapshot: self.snapshot.as_ref().map_or(LogId::ZERO, |taken| taken.point),
            memberships,
            membership_term: first.term,
        }
    }

    /// What was applied becomes a snapshot. False if there is one of as much.
    pub fn take_snapshot(&mut self, applied: Index, born_with: &Membership) -> bool {
        let term = self.term_at(applied).filter(|_| applied > self.point().unwrap_or_default());
        let Some(term) = term else { return false };
        let (mut entry, mut membership) = self.base_membership(born_with);
        for own in self.entries.iter().take_while(|own| own.id.index <= applied) {
            if let Payload::Membership(next) = &own.payload
                && own.id.index > entry.index
            {
                (entry, membership) = (own.id, Membership::clone(next));
            }
        }
        let point = LogId::new(term, applied);
        self.snapshot = Some(Taken { point, membership: (entry, membership) });
        true
    }

    /// The log begins after this entry now, if that is news.
    pub fn compact(&mut self, index: Index) -> Option<LogId> {
        let term = self.term_at(index).filter(|_| index > self.before_first.index)?;
        self.entries.retain(|entry| entry.id.index > index);
        self.before_first = LogId::new(term, index);
        Some(self.before_first)
    }

    fn base_membership(&self, born_with: &Membership) -> (LogId, Membership) {
        self.snapshot.as_ref().map_or_else(|| (LogId::ZERO, born_with.clone()), |taken| taken.membership.clone())
    }
}
