//! What the committed log means for clients, told a second time: which commands count, and what the map answers.
//!
//! It has none of the economy of [`crate::node::sessions`], and nothing of a node goes into it but committed entries. So
//! it finds what all nodes do wrong alike: a command that is run twice, or in a session that went, an answer that is
//! another's, a session that goes out of turn.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::copies::Name;
use crate::machine::command::{Answer, Command as MapCommand};
use crate::node::sessions::Limits;
use crate::types::{Command, Index, RequestNumber, Service, SessionId};

/// What becomes of a committed command.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Fate {
    /// A record: it stands, though its session went.
    Stands,
    /// The map runs it, and answers this.
    Run(Bytes),
    /// Its session went before it.
    NotRun,
}

#[derive(Debug, Default)]
pub(super) struct Sessions {
    limits: Limits,
    open: BTreeMap<SessionId, Known>,
    /// Each key's values, and from which entry on.
    values: BTreeMap<Bytes, Vec<(Index, Option<Bytes>)>>,
    /// Sessions that had to make room.
    pub gone: u64,
}

#[derive(Debug)]
struct Known {
    last_use: Index,
    /// The lowest number that is not done.
    next: u64,
    /// The map's answers that a node must still know.
    answers: BTreeMap<u64, Bytes>,
}

impl Sessions {
    pub fn with_limits(limits: Limits) -> Sessions {
        Sessions { limits, ..Sessions::default() }
    }

    /// The next committed entry that opens a session.
    pub fn register(&mut self, index: Index) {
        if self.open.len() == self.limits.sessions_max {
            let least = self.open.iter().min_by_key(|(_, known)| known.last_use).map(|(id, _)| *id);
            self.open.remove(&least.expect("a full table is not empty"));
            self.gone += 1;
        }
        self.open.insert(SessionId(index.0), Known { last_use: index, next: 1, answers: BTreeMap::new() });
    }

    /// The next committed entry that holds a command of a session.
    pub fn take(&mut self, index: Index, command: &Command, body: &Bytes) -> Fate {
        let fate = if command.service == Service::Append { Fate::Stands } else { Fate::NotRun };
        let Some(known) = self.open.get_mut(&command.session) else { return fate };
        known.last_use = index;
        known.answers.retain(|number, _| *number >= command.lowest_unanswered.0);
        if command.number.0 != known.next {
            return fate;
        }
        known.next += 1;
        if command.service == Service::Append {
            return fate;
        }
        let answer = self.run(index, body);
        let known = self.open.get_mut(&command.session).expect("found above");
        known.answers.insert(command.number.0, answer.clone());
        while known.answers.values().map(Bytes::len).sum::<usize>() > self.limits.answer_bytes_max {
            known.answers.pop_first();
        }
        Fate::Run(answer)
    }

    pub fn contains(&self, session: SessionId) -> bool {
        self.open.contains_key(&session)
    }

    /// Whether a node must still know what the map answered to it.
    pub fn keeps_answer(&self, (session, RequestNumber(number)): Name) -> bool {
        self.open.get(&session).is_some_and(|known| known.answers.contains_key(&number))
    }

    pub fn ids(&self) -> impl Iterator<Item = SessionId> {
        self.open.keys().copied()
    }

    /// Whether a key had this value at an entry, or at a later one.
    pub fn had_value(&self, key: &Bytes, since: Index, value: &Option<Bytes>) -> bool {
        let first = (Index::ZERO, None);
        let values: Vec<_> = std::iter::once(&first).chain(self.values.get(key).into_iter().flatten()).collect();
        let from = values.iter().rposition(|(index, _)| *index <= since).expect("the first is before all");
        values[from..].iter().any(|(_, had)| had == value)
    }

    fn run(&mut self, index: Index, body: &Bytes) -> Bytes {
        let answer = match MapCommand::decode(body) {
            Ok(MapCommand::Put { key, value }) => {
                self.set(index, key, Some(value));
                Answer::Done
            }
            Ok(MapCommand::Delete { key }) => {
                let existed = self.value(&key).is_some();
                self.set(index, key, None);
                Answer::Deleted { existed }
            }
            Ok(MapCommand::CompareAndSet { key, expected, new }) => {
                let equal = self.value(&key) == expected;
                if equal {
                    self.set(index, key, new);
                }
                Answer::Compared { equal }
            }
            Err(refusal) => Answer::Refused(refusal),
        };
        answer.encode()
    }

    fn value(&self, key: &Bytes) -> Option<Bytes> {
        self.values.get(key).and_then(|values| values.last()).and_then(|(_, value)| value.clone())
    }

    fn set(&mut self, index: Index, key: Bytes, value: Option<Bytes>) {
        self.values.entry(key).or_default().push((index, value));
    }
}
