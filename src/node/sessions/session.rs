//! One session: which of its numbers are done, and what came of them.

use std::collections::VecDeque;

use bytes::Bytes;

use super::table::Limits;
use crate::mutant::{self, Mutant};
use crate::types::{Index, RequestNumber, SessionId};

/// What came of a request that is done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answered {
    /// The entry that carried it: for an append, the whole answer.
    pub index: Index,
    /// What the state machine answered. `None` for an append, and for a command whose answer is not here: not yet,
    /// or not any more.
    pub answer: Option<Bytes>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Session {
    pub id: SessionId,
    /// The newest entry of the session.
    pub last_use: Index,
    /// The lowest number that is remembered; the client has the answers to all before it. At least 1, never falls.
    pub first: RequestNumber,
    /// The entries of the numbers from `first` on, without a gap: all that are done.
    pub indexes: VecDeque<Index>,
    /// The machine's answers that are kept, by rising number; all at or above `first`.
    pub answers: VecDeque<(RequestNumber, Bytes)>,
    /// The lengths of `answers`, added up.
    pub answer_bytes: usize,
}

impl Session {
    pub fn new(id: SessionId) -> Session {
        Session {
            id,
            last_use: Index(id.0),
            first: RequestNumber(1),
            indexes: VecDeque::new(),
            answers: VecDeque::new(),
            answer_bytes: 0,
        }
    }

    /// The lowest number that is not done.
    pub fn next(&self) -> RequestNumber {
        RequestNumber(self.first.0 + self.indexes.len() as u64)
    }

    /// What came of a number that is done and remembered.
    pub fn answered(&self, number: RequestNumber) -> Option<Answered> {
        let at = number.0.checked_sub(self.first.0)?;
        let index = *self.indexes.get(usize::try_from(at).ok()?)?;
        let is_off = u64::from(mutant::is_on(Mutant::SessionAnswerMisnumbered));
        let found = self.answers.binary_search_by_key(&number.0, |(number, _)| number.0 + is_off).ok();
        Some(Answered { index, answer: found.map(|at| self.answers[at].1.clone()) })
    }

    /// The next number is done, by the entry at `index`.
    pub fn push(&mut self, index: Index, limits: &Limits) {
        self.indexes.push_back(index);
        if self.indexes.len() > limits.answers_max {
            self.forget_below(RequestNumber(self.first.0 + 1));
        }
    }

    /// The machine's answer to a number that is done. One that the client does not need any more is not kept.
    pub fn keep(&mut self, number: RequestNumber, answer: Bytes, limits: &Limits) {
        assert!(number < self.next(), "an answer to request {number} of session {}, which was not run", self.id);
        if number < self.first {
            return;
        }
        let in_order = self.answers.back().is_none_or(|(last, _)| *last < number);
        assert!(in_order, "answers of session {} come out of order: {number}", self.id);
        self.answer_bytes += answer.len();
        self.answers.push_back((number, answer));
        while self.answer_bytes > limits.answer_bytes_max {
            self.drop_oldest_answer();
        }
    }

    /// The client has the answers below `lowest`. What is not done yet cannot be forgotten.
    pub fn forget_below(&mut self, lowest: RequestNumber) {
        let lowest = lowest.min(self.next());
        while self.first < lowest {
            self.indexes.pop_front();
            self.first.0 += 1;
        }
        while self.answers.front().is_some_and(|(number, _)| *number < self.first) {
            self.drop_oldest_answer();
        }
    }

    fn drop_oldest_answer(&mut self) {
        let (_, answer) = self.answers.pop_front().expect("answers that count bytes are there");
        self.answer_bytes -= answer.len();
    }
}
