//! The built-in state machine: an ordered map from keys to values.

use std::ops::Bound;

use bytes::Bytes;
use imbl::OrdMap;

use super::command::{Answer, Command, Query, SCAN_BYTES_MAX, SCAN_ENTRIES_MAX};
use super::encoding::{MapRestoring, MapSnapshot};
use super::{Error, Restoring, Snapshot, StateMachine};
use crate::checksum::Checksum;
use crate::types::LogId;

/// An ordered key-value map in memory. To clone it takes constant time: the clone shares what neither has changed
/// since, and may be read on another thread.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Map {
    /// Keys and values own their memory: they are copied out of the batch that brought them.
    pub(super) entries: OrdMap<Bytes, Bytes>,
}

impl Map {
    pub fn new() -> Map {
        Map::default()
    }

    pub fn get(&self, key: &[u8]) -> Option<&Bytes> {
        self.entries.get(key)
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// All entries, in the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&Bytes, &Bytes)> {
        self.entries.iter()
    }

    fn run(&mut self, command: Command) -> Answer {
        match command {
            Command::Put { key, value } => {
                self.entries.insert(key, value);
                Answer::Done
            }
            Command::Delete { key } => Answer::Deleted { existed: self.entries.remove(&key).is_some() },
            Command::CompareAndSet { key, expected, new } => {
                let equal = self.entries.get(&key) == expected.as_ref();
                match new {
                    Some(new) if equal => drop(self.entries.insert(key, new)),
                    None if equal => drop(self.entries.remove(&key)),
                    Some(_) | None => {}
                }
                Answer::Compared { equal }
            }
        }
    }

    fn scan(&self, from: Bytes, to: Option<Bytes>, limit: u32) -> Answer {
        let (mut entries, mut bytes) = (Vec::new(), 0);
        if to.as_ref().is_some_and(|to| *to <= from) {
            return Answer::Entries { entries, next: None };
        }
        let limit = SCAN_ENTRIES_MAX.min(limit as usize);
        let end = to.map_or(Bound::Unbounded, Bound::Excluded);
        for (key, value) in self.entries.range((Bound::Included(from), end)) {
            if entries.len() == limit || bytes >= SCAN_BYTES_MAX {
                return Answer::Entries { entries, next: Some(key.clone()) };
            }
            bytes += key.len() + value.len();
            entries.push((key.clone(), value.clone()));
        }
        Answer::Entries { entries, next: None }
    }
}

impl StateMachine for Map {
    fn apply(&mut self, _: LogId, command: &[u8]) -> Result<Bytes, Error> {
        Ok(match Command::decode(command) {
            Ok(command) => self.run(command).encode(),
            Err(refusal) => Answer::Refused(refusal).encode(),
        })
    }

    fn query(&self, query: &[u8]) -> Result<Bytes, Error> {
        let answer = match Query::decode(query) {
            Ok(Query::Get { key }) => Answer::Value(self.entries.get(&key).cloned()),
            Ok(Query::Scan { from, to, limit }) => self.scan(from, to, limit),
            Err(refusal) => Answer::Refused(refusal),
        };
        Ok(answer.encode())
    }

    /// Each entry's checksum is salted with that of all before it; the lengths are part of it, so that no byte can
    /// move from a key to its value unseen.
    fn digest(&self) -> Checksum {
        self.entries.iter().fold(Checksum::of(&[]), |before, (key, value)| {
            let lengths = [key.len() as u32, value.len() as u32].map(u32::to_le_bytes);
            Checksum::salted(u64::from(before.0), &[&lengths[0], &lengths[1], key, value])
        })
    }

    fn snapshot(&self) -> Option<Box<dyn Snapshot>> {
        Some(Box::new(MapSnapshot::new(self.clone())))
    }

    fn restoring(&self) -> Option<Box<dyn Restoring<Map>>> {
        Some(Box::new(MapRestoring::default()))
    }
}
