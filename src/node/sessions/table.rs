//! The table of all sessions.

use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use imbl::{OrdMap, Vector};

use super::session::{Answered, Session};
use crate::limits::{SESSION_ANSWER_BYTES_MAX, SESSION_ANSWERS_MAX, SESSIONS_MAX};
use crate::mutant::{self, Mutant};
use crate::types::{Command, Index, RequestNumber, Service, SessionId};

/// What the table keeps; must be the same on all nodes of a cluster.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    pub sessions_max: usize,
    /// Per session, in number.
    pub answers_max: usize,
    /// Per session.
    pub answer_bytes_max: usize,
}

/// What to do with a committed session entry. Except for [`Decision::Run`] a machine's command is **not** run. An
/// appended record stands in the log whatever the decision says; that tells only what its client is answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Decision {
    /// A new session. `gone` had to make room for it.
    Registered { session: SessionId, gone: Option<SessionId> },
    /// The first time. A machine's command is run now, and its answer given to [`Sessions::keep`].
    Run,
    /// It is done already.
    Duplicate(Answered),
    /// It is done already, and the client said that it has the answer.
    Stale,
    /// A number before it is not done. No leader admits such an entry.
    Gap { expected: RequestNumber },
    /// The session had to make room for another.
    SessionGone,
}

/// All sessions of a cluster, as far as the log was applied. Equal on all nodes at equal index.
///
/// Sessions lie in slots that are never given up: one goes only when another takes its place. They are chained by
/// last use, and the slot of the last one asked for is remembered, so that a run of one session's records costs one
/// search.
///
/// A clone takes constant time and may be read on another thread. It shares what neither has changed since: the first
/// change of a session after it copies that session's numbers (at most 48 KiB, never the bytes of its answers) and a
/// leaf of 64 slots (3 KiB).
#[derive(Clone, Debug)]
pub struct Sessions {
    pub(super) limits: Limits,
    slots: Vector<Slot>,
    /// Which session is in which slot.
    places: OrdMap<SessionId, usize>,
    /// The ends of the chain by last use; `None` while there is no session.
    ends: Option<Ends>,
    /// The slot that was asked for last: a guess, checked at use.
    recent: usize,
}

#[derive(Clone, Debug)]
struct Slot {
    session: Arc<Session>,
    /// The next one in the chain towards the least recently used.
    older: Option<usize>,
    newer: Option<usize>,
}

#[derive(Clone, Copy, Debug)]
struct Ends {
    oldest: usize,
    newest: usize,
}

impl Sessions {
    pub fn new() -> Sessions {
        Sessions::with_limits(Limits::default())
    }

    pub fn with_limits(limits: Limits) -> Sessions {
        assert!(limits.sessions_max > 0 && limits.answers_max > 0, "a table without room: {limits:?}");
        Sessions { limits, slots: Vector::new(), places: OrdMap::new(), ends: None, recent: 0 }
    }

    pub fn len(&self) -> usize {
        self.slots.len()
    }

    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    pub fn contains(&self, session: SessionId) -> bool {
        self.find(session).is_some()
    }

    /// In order.
    pub fn ids(&self) -> impl Iterator<Item = SessionId> {
        self.places.keys().copied()
    }

    /// Takes the next committed entry that a client sent: its index and the head of its data. To be called for each
    /// of them, in order.
    pub fn begin(&mut self, index: Index, command: &Command) -> Decision {
        let last_use = self.ends.map_or(Index::ZERO, |ends| self.slots[ends.newest].session.last_use);
        assert!(index > last_use, "entry {index} comes behind entry {last_use}");
        if command.service == Service::Register {
            return self.register(index);
        }
        let Some(slot) = self.find(command.session) else { return Decision::SessionGone };
        self.recent = slot;
        self.make_newest(slot);
        let limits = self.limits;
        let session = Arc::make_mut(&mut self.slots[slot].session);
        session.last_use = index;
        session.forget_below(command.lowest_unanswered);
        let expected = session.next();
        if command.number == expected {
            session.push(index, &limits);
            return Decision::Run;
        }
        if command.number > expected {
            return Decision::Gap { expected };
        }
        session.answered(command.number).map_or(Decision::Stale, Decision::Duplicate)
    }

    /// Keeps the machine's answer to a request that was [`Decision::Run`]. Of each session the answers come in
    /// order; other entries may have come since. If the session went meanwhile, so does the answer.
    pub fn keep(&mut self, session: SessionId, number: RequestNumber, answer: Bytes) {
        if let Some(slot) = self.find(session) {
            Arc::make_mut(&mut self.slots[slot].session).keep(number, answer, &self.limits);
        }
    }

    pub(super) fn session(&self, id: SessionId) -> Option<&Session> {
        self.find(id).map(|slot| &*self.slots[slot].session)
    }

    /// In the order of their ids.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Session> {
        self.places.values().map(|slot| &*self.slots[*slot].session)
    }

    /// The session with the lowest id above this one.
    pub(super) fn next_behind(&self, last: Option<SessionId>) -> Option<&Session> {
        let from = last.map_or(Bound::Unbounded, Bound::Excluded);
        self.places.range((from, Bound::Unbounded)).next().map(|(_, slot)| &*self.slots[*slot].session)
    }

    /// Puts a session into its place in an empty or growing table: they come by rising last use.
    pub(super) fn push(&mut self, session: Session) {
        assert!(self.slots.len() < self.limits.sessions_max, "the table is full");
        let slot = self.slots.len();
        self.places.insert(session.id, slot);
        self.slots.push_back(Slot { session: Arc::new(session), older: None, newer: None });
        self.link_newest(slot);
    }

    fn register(&mut self, index: Index) -> Decision {
        let session = Session::new(SessionId(index.0));
        let id = session.id;
        if self.slots.len() < self.limits.sessions_max {
            self.push(session);
            return Decision::Registered { session: id, gone: None };
        }
        let slot = match mutant::is_on(Mutant::SessionOldestGoes) {
            true => *self.places.values().next().expect("a full table is not empty"),
            false => self.ends.expect("a full table is not empty").oldest,
        };
        let gone = self.slots[slot].session.id;
        self.places.remove(&gone);
        self.places.insert(id, slot);
        self.slots[slot].session = Arc::new(session);
        self.make_newest(slot);
        Decision::Registered { session: id, gone: Some(gone) }
    }

    fn find(&self, session: SessionId) -> Option<usize> {
        match self.slots.get(self.recent) {
            Some(slot) if slot.session.id == session => Some(self.recent),
            _ => self.places.get(&session).copied(),
        }
    }

    fn make_newest(&mut self, slot: usize) {
        if self.ends.is_none_or(|ends| ends.newest != slot) {
            self.unlink(slot);
            self.link_newest(slot);
        }
    }

    /// Takes a slot that is not the newest out of the chain.
    fn unlink(&mut self, slot: usize) {
        let (older, newer) = (self.slots[slot].older, self.slots[slot].newer);
        let newer = newer.expect("only the newest has none newer");
        self.slots[newer].older = older;
        match older {
            Some(older) => self.slots[older].newer = Some(newer),
            None => self.ends.as_mut().expect("a linked slot is in the chain").oldest = newer,
        }
    }

    fn link_newest(&mut self, slot: usize) {
        let newest = self.ends.map(|ends| ends.newest);
        self.slots[slot].older = newest;
        self.slots[slot].newer = None;
        if let Some(newest) = newest {
            self.slots[newest].newer = Some(slot);
        }
        self.ends = Some(Ends { oldest: self.ends.map_or(slot, |ends| ends.oldest), newest: slot });
    }
}

impl Default for Sessions {
    fn default() -> Sessions {
        Sessions::new()
    }
}

/// Equal for clients: which slots the sessions lie in does not matter.
impl PartialEq for Sessions {
    fn eq(&self, other: &Sessions) -> bool {
        self.limits == other.limits && self.iter().eq(other.iter())
    }
}

impl Eq for Sessions {}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            sessions_max: SESSIONS_MAX,
            answers_max: SESSION_ANSWERS_MAX,
            answer_bytes_max: SESSION_ANSWER_BYTES_MAX,
        }
    }
}
