//! The built-in map, through the log.

use bytes::Bytes;

use super::error::Error;
use super::handle::Client;
use crate::machine::command::{Answer, Command, Query};
use crate::net::Consistency;

/// A part of the map in the order of its keys.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Scanned {
    pub entries: Vec<(Bytes, Bytes)>,
    /// The first key that was left out, to go on from; `None` if there is none.
    pub next: Option<Bytes>,
}

impl Client {
    /// Sets a key's value.
    pub async fn put(&self, key: Bytes, value: Bytes) -> Result<(), Error> {
        match self.change_map(Command::Put { key, value }).await? {
            Answer::Done => Ok(()),
            other => Err(unexpected(other)),
        }
    }

    /// Removes a key; tells whether it was there.
    pub async fn delete(&self, key: Bytes) -> Result<bool, Error> {
        match self.change_map(Command::Delete { key }).await? {
            Answer::Deleted { existed } => Ok(existed),
            other => Err(unexpected(other)),
        }
    }

    /// Sets (or removes: `new` is `None`) a key's value if it is `expected` (`None`: not there); tells whether it was.
    pub async fn compare_and_set(
        &self,
        key: Bytes,
        expected: Option<Bytes>,
        new: Option<Bytes>,
    ) -> Result<bool, Error> {
        match self.change_map(Command::CompareAndSet { key, expected, new }).await? {
            Answer::Compared { equal } => Ok(equal),
            other => Err(unexpected(other)),
        }
    }

    /// A key's value, if it has one.
    pub async fn get(&self, key: Bytes, consistency: Consistency) -> Result<Option<Bytes>, Error> {
        match self.ask_map(Query::Get { key }, consistency).await? {
            Answer::Value(value) => Ok(value),
            other => Err(unexpected(other)),
        }
    }

    /// Keys from `from` on, below `to`, with their values: at most `limit`, as far as one answer holds them.
    pub async fn scan(
        &self,
        from: Bytes,
        to: Option<Bytes>,
        limit: u32,
        consistency: Consistency,
    ) -> Result<Scanned, Error> {
        match self.ask_map(Query::Scan { from, to, limit }, consistency).await? {
            Answer::Entries { entries, next } => Ok(Scanned { entries, next }),
            other => Err(unexpected(other)),
        }
    }

    async fn change_map(&self, command: Command) -> Result<Answer, Error> {
        let (_, answer) = self.command(command.encode().map_err(Error::Machine)?).await?;
        Answer::decode(&answer).map_err(Error::Answer)
    }

    async fn ask_map(&self, query: Query, consistency: Consistency) -> Result<Answer, Error> {
        let answer = self.query(query.encode().map_err(Error::Machine)?, consistency).await?;
        Answer::decode(&answer).map_err(Error::Answer)
    }
}

fn unexpected(answer: Answer) -> Error {
    match answer {
        Answer::Refused(refusal) => Error::Machine(refusal),
        _ => Error::WrongAnswer,
    }
}
