//! What a leader lets into its log.

use std::collections::{BTreeMap, VecDeque};

use super::session::{Answered, Session};
use super::table::Sessions;
use crate::types::{Command, Index, RequestNumber, SessionId};

/// What to do with a request that a client sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Admit {
    /// It is the next one: propose it, and report its index with [`Lane::appended`]. If it cannot be proposed,
    /// nothing is reported, and those behind it are refused until it is sent again.
    Append,
    /// It is done: this is the answer.
    Answered(Answered),
    /// It is in the log at this index: its answer comes with the first one's.
    Pending { index: Index },
    /// Refused: the client sends again from `expected` on.
    Gap { expected: RequestNumber },
    /// Refused: the client has too many numbers without an answer.
    TooManyUnanswered,
    /// It is done, and the client said that it has the answer.
    Stale,
    /// Refused for good: its numbers contradict each other.
    Invalid,
    /// The client has answers that this table knows nothing of: another leader gave them, and this one leads no more.
    Behind,
}

/// What one leader has put into its log, on top of the table. Made when the leader's no-op is applied, not before:
/// only then does the table hold all that earlier leaders have put there. Dropped when it leads no more, before an
/// entry of another leader is applied.
#[derive(Debug, Default)]
pub struct Admission {
    /// At most twice as many as the table holds sessions: those that went are swept out when it gets there.
    sessions: BTreeMap<SessionId, Pending>,
}

/// One session at the door; for a run of its requests. It sees the table as it was when it was made.
#[derive(Debug)]
pub struct Lane<'a> {
    session: &'a Session,
    pending: &'a mut Pending,
    answers_max: u64,
}

/// Requests of one session that are in the leader's log and not in the table.
#[derive(Debug)]
struct Pending {
    /// The number of the first one, or of the next one to come. Follows the table.
    first: RequestNumber,
    /// Their entries, without a gap. At most as many as answers are kept.
    indexes: VecDeque<Index>,
}

impl Admission {
    pub fn new() -> Admission {
        Admission::default()
    }

    /// The lane of a session, or `None` if the table does not have it: the session is gone.
    pub fn lane<'a>(&'a mut self, table: &'a Sessions, id: SessionId) -> Option<Lane<'a>> {
        let session = table.session(id)?;
        if self.sessions.len() >= 2 * table.limits.sessions_max {
            self.sessions.retain(|id, _| table.contains(*id));
        }
        let pending = self.sessions.entry(id).or_insert_with(|| Pending::behind(session));
        pending.follow(session);
        Some(Lane { session, pending, answers_max: table.limits.answers_max as u64 })
    }

    #[cfg(test)]
    pub(super) fn sessions_held(&self) -> usize {
        self.sessions.len()
    }
}

impl Lane<'_> {
    /// What to do with a request of this session.
    pub fn admit(&self, command: &Command) -> Admit {
        assert!(command.session == self.session.id, "session {} in lane {}", command.session, self.session.id);
        let (number, lowest) = (command.number, command.lowest_unanswered);
        if lowest.0 == 0 || lowest > number {
            return Admit::Invalid;
        }
        if lowest > self.session.next() {
            return Admit::Behind;
        }
        if number < self.session.first {
            return Admit::Stale;
        }
        if let Some(answered) = self.session.answered(number) {
            return Admit::Answered(answered);
        }
        let expected = self.pending.next();
        if number > expected {
            return Admit::Gap { expected };
        }
        if number < expected {
            return Admit::Pending { index: self.pending.index(number) };
        }
        if number.0 - lowest.0.max(self.session.first.0) >= self.answers_max {
            return Admit::TooManyUnanswered;
        }
        Admit::Append
    }

    /// The request that was [`Admit::Append`] is in the log at `index`.
    pub fn appended(&mut self, number: RequestNumber, index: Index) {
        assert!(number == self.pending.next(), "request {number} of session {} is out of turn", self.session.id);
        let last = self.pending.indexes.back().copied().unwrap_or(self.session.last_use);
        assert!(index > last, "entry {index} of session {} comes behind entry {last}", self.session.id);
        let bounded = (self.pending.indexes.len() as u64) < self.answers_max;
        assert!(bounded, "session {} has more pending than may be unanswered", self.session.id);
        self.pending.indexes.push_back(index);
    }
}

impl Pending {
    fn behind(session: &Session) -> Pending {
        Pending { first: session.next(), indexes: VecDeque::new() }
    }

    /// The next number to take.
    fn next(&self) -> RequestNumber {
        RequestNumber(self.first.0 + self.indexes.len() as u64)
    }

    /// The entry of a number that is pending.
    fn index(&self, number: RequestNumber) -> Index {
        self.indexes[(number.0 - self.first.0) as usize]
    }

    /// Drops what the table has by now.
    fn follow(&mut self, session: &Session) {
        let done = session.next();
        assert!(self.first <= done, "session {}: the table lags behind what was admitted", session.id);
        assert!(done <= self.next(), "session {}: an entry of another leader came after our no-op", session.id);
        self.indexes.drain(..(done.0 - self.first.0) as usize);
        self.first = done;
    }
}
