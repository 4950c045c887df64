//! The built-in map, through the log.

use bytes::Bytes;

use super::error::Error;
use super::handle::Client;
use super::node::NodeClient;
use crate::machine::command::{Answer, Command, Query};
use crate::net::Consistency;
use crate::types::Index;

/// Which part of the map is asked for: keys from `from` on, below `to`, at most `limit` of them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Scan {
    pub from: Bytes,
    pub to: Option<Bytes>,
    pub limit: u32,
}

/// A part of the map in the order of its keys.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Scanned {
    pub entries: Vec<(Bytes, Bytes)>,
    /// The first key that was left out, to go on from; `None` if there is none.
    pub next: Option<Bytes>,
}

/// Changes name the index at which they stand in the log: a read at [`Consistency::AtLeast`] that shows them, on any node.
impl Client {
    /// Sets a key's value.
    pub async fn put(&self, key: Bytes, value: Bytes) -> Result<Index, Error> {
        match self.change_map(Command::Put { key, value }).await? {
            (index, Answer::Done) => Ok(index),
            (_, other) => Err(unexpected(other)),
        }
    }

    /// Removes a key; tells whether it was there.
    pub async fn delete(&self, key: Bytes) -> Result<(Index, bool), Error> {
        match self.change_map(Command::Delete { key }).await? {
            (index, Answer::Deleted { existed }) => Ok((index, existed)),
            (_, other) => Err(unexpected(other)),
        }
    }

    /// Sets (or removes: `new` is `None`) a key's value if it is `expected` (`None`: not there); tells whether it was.
    pub async fn compare_and_set(
        &self,
        key: Bytes,
        expected: Option<Bytes>,
        new: Option<Bytes>,
    ) -> Result<(Index, bool), Error> {
        match self.change_map(Command::CompareAndSet { key, expected, new }).await? {
            (index, Answer::Compared { equal }) => Ok((index, equal)),
            (_, other) => Err(unexpected(other)),
        }
    }

    /// A key's value, if it has one.
    pub async fn get(&self, key: Bytes, consistency: Consistency) -> Result<Option<Bytes>, Error> {
        value(&self.query(encoded(&Query::Get { key })?, consistency).await?)
    }

    /// Keys with their values, as far as one answer holds them.
    pub async fn scan(&self, scan: Scan, consistency: Consistency) -> Result<Scanned, Error> {
        scanned(&self.query(encoded(&scan.into())?, consistency).await?)
    }

    async fn change_map(&self, command: Command) -> Result<(Index, Answer), Error> {
        let (index, answer) = self.command(command.encode().map_err(Error::Machine)?).await?;
        Ok((index, Answer::decode(&answer).map_err(Error::Answer)?))
    }
}

/// The map as one node has it.
impl NodeClient {
    /// As [`Client::get`].
    pub async fn get(&mut self, key: Bytes, consistency: Consistency) -> Result<Option<Bytes>, Error> {
        value(&self.query(encoded(&Query::Get { key })?, consistency).await?)
    }

    /// As [`Client::scan`].
    pub async fn scan(&mut self, scan: Scan, consistency: Consistency) -> Result<Scanned, Error> {
        scanned(&self.query(encoded(&scan.into())?, consistency).await?)
    }
}

impl From<Scan> for Query {
    fn from(Scan { from, to, limit }: Scan) -> Query {
        Query::Scan { from, to, limit }
    }
}

fn encoded(query: &Query) -> Result<Bytes, Error> {
    query.encode().map_err(Error::Machine)
}

fn value(answer: &Bytes) -> Result<Option<Bytes>, Error> {
    match Answer::decode(answer).map_err(Error::Answer)? {
        Answer::Value(value) => Ok(value),
        other => Err(unexpected(other)),
    }
}

fn scanned(answer: &Bytes) -> Result<Scanned, Error> {
    match Answer::decode(answer).map_err(Error::Answer)? {
        Answer::Entries { entries, next } => Ok(Scanned { entries, next }),
        other => Err(unexpected(other)),
    }
}

fn unexpected(answer: Answer) -> Error {
    match answer {
        Answer::Refused(refusal) => Error::Machine(refusal),
        _ => Error::WrongAnswer,
    }
}
