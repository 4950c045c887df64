//! openraft's calls as operations of the log, and what the log holds as openraft knows it. Pure: no I/O, no thread, no
//! clock. The adapter carries the operations out on [`crate::wal::Wal`], a test on the bare core.
//!
//! A call may be **told** as done when the last of its operations is durable. The log makes operations durable in their
//! order, so a crash leaves a prefix of them:
//!
//! | call | operations, in this order | what a crash between them leaves |
//! |---|---|---|
//! | append | the entries, in one piece if they fit one frame | a prefix of the batch |
//! | truncate | truncate | |
//! | save_vote, save_committed | a state record | |
//! | purge | truncate, if what is behind conflicts; a state record; purge | entries that are purged by name, and hidden: recovery ends them |
//!
//! A **state record** says everything that is no entry: vote, committed and purged log id. Only the newest counts.
//! Index and term count from 0 there and from 1 here.

use std::ops::{Bound, Range, RangeBounds};

use bytes::{BufMut, BytesMut};
use openraft::{LogId, NodeId, RaftLogId, RaftTypeConfig, Vote};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::error::Error;
use crate::limits::{ENTRY_OVERHEAD_BYTES, FRAME_RECORDS_MAX, FRAME_RUNS_MAX, GROUPS_MAX, INDEX_MAX};
use crate::mutant::{self, Mutant};
use crate::types::{self, Data, Entry, GroupId, Index, Payload, Term};
use crate::wal::GroupLog;

/// The first byte of each record; the rest is MessagePack.
pub const FORMAT_VERSION: u8 = 1;
/// State records that are kept behind the newest at most: to end each by itself would cost a record per save.
const STATES_KEPT_MAX: u64 = 64;
/// State records are in one term.
const STATE_TERM: Term = Term(1);
/// The last Raft log of a log on disk: each takes two groups.
const LOG_NUMBER_MAX: u32 = (GROUPS_MAX / 2 - 1) as u32;

/// The two groups of one Raft log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Groups {
    pub entries: GroupId,
    pub state: GroupId,
}

/// What is to be done with the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Operation {
    Append { group: GroupId, entries: Vec<Entry> },
    Truncate { group: GroupId, from: Index },
    Purge { group: GroupId, last: types::LogId },
}

/// What the mapping asks of the log beneath: the names of all that it has taken, durable or not.
pub trait Beneath {
    fn group(&self, group: GroupId) -> Option<GroupLog>;
    /// The most record bytes of one append.
    fn batch_bytes_max(&self) -> usize;
}

/// What a state record says.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(bound = "")]
pub struct Saved<N: NodeId> {
    pub vote: Option<Vote<N>>,
    pub committed: Option<LogId<N>>,
    /// Entries up to here are purged, whether or not they are gone from the log.
    pub purged: Option<LogId<N>>,
}

/// One Raft log: what openraft has said of it besides its entries. Changes with the call, before it is durable.
#[derive(Clone, Debug)]
pub struct Mapping<C: RaftTypeConfig> {
    groups: Groups,
    saved: Saved<C::NodeId>,
}

impl Operation {
    pub fn appends_to(&self, wanted: GroupId) -> bool {
        matches!(self, Operation::Append { group, .. } if *group == wanted)
    }
}

impl Groups {
    pub fn of(log: u32) -> Result<Groups, Error> {
        if log > LOG_NUMBER_MAX {
            return Err(Error::TooManyLogs { found: log, max: LOG_NUMBER_MAX });
        }
        Ok(Groups { entries: GroupId(2 * log), state: GroupId(2 * log + 1) })
    }

    /// The state record that counts, if there is one.
    pub fn newest_state(self, log: &impl Beneath) -> Option<Index> {
        let state = log.group(self.state)?;
        (state.last.index > state.before_first.index).then_some(state.last.index)
    }

    /// Which entries of a wanted range the log has, as the log numbers them. `purged_next` is the first index that is
    /// not purged.
    pub fn readable(self, log: &impl Beneath, purged_next: u64, wanted: impl RangeBounds<u64>) -> Range<Index> {
        let Some(names) = log.group(self.entries) else { return Index::FIRST..Index::FIRST };
        let start = match wanted.start_bound() {
            Bound::Included(&start) => start,
            Bound::Excluded(&before) => before.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match wanted.end_bound() {
            Bound::Included(&last) => last.saturating_add(1),
            Bound::Excluded(&end) => end,
            Bound::Unbounded => u64::MAX,
        };
        let end = end.min(names.last.index.0);
        let first = start.max(purged_next).max(names.before_first.index.0).min(end);
        Index(first).next()..Index(end).next()
    }
}

impl<C: RaftTypeConfig> Mapping<C> {
    /// What a log holds that was just opened, and what must be done to finish a purge that was cut short. `newest` is
    /// the record at [`Groups::newest_state`].
    pub fn recover(
        groups: Groups,
        log: &impl Beneath,
        newest: Option<&Entry>,
    ) -> Result<(Mapping<C>, Vec<Operation>), Error> {
        let saved = match newest {
            Some(record) => decode(groups.state, record, "state record")?,
            None => Saved { vote: None, committed: None, purged: None },
        };
        let mapping = Mapping { groups, saved };
        let is_lost =
            |names: &GroupLog, known: Index| names.before_first.index > known && names.before_first.term > Term::ZERO;
        let purged = mapping.saved.purged.as_ref().map(name).transpose()?;
        for (group, known) in [
            (groups.entries, purged.map_or(Index::ZERO, |purged| purged.index)),
            (groups.state, newest.map_or(Index::ZERO, |record| record.id.index)),
        ] {
            if let Some(names) = log.group(group).filter(|names| is_lost(names, known)) {
                return Err(Error::Lost { group, before_first: names.before_first });
            }
        }
        let unfinished = purged.and_then(|last| mapping.end_entries(log, last));
        Ok((mapping, unfinished.into_iter().collect()))
    }

    pub fn saved(&self) -> &Saved<C::NodeId> {
        &self.saved
    }

    /// The first index that is not purged.
    pub fn purged_next(&self) -> u64 {
        self.saved.purged.as_ref().map_or(0, |purged| purged.index + 1)
    }

    /// Entries behind the last one, or in the place of older ones. What is purged already is passed over.
    pub fn append(&self, log: &impl Beneath, entries: Vec<C::Entry>) -> Result<Vec<Operation>, Error> {
        let purged_next = self.purged_next();
        let new = entries.into_iter().filter(|entry| entry.get_log_id().index >= purged_next);
        let entries = new.map(|entry| encode_entry::<C>(&entry)).collect::<Result<Vec<Entry>, Error>>()?;
        let mut expected = log.group(self.groups.entries).map(|names| names.last.index.next());
        for entry in &entries {
            let index = entry.id.index;
            if expected.is_some_and(|expected| index > expected) {
                let expected = expected.unwrap_or_default().previous().0;
                return Err(Error::Hole { found: index.previous().0, expected });
            }
            expected = Some(index.next());
        }
        let group = self.groups.entries;
        let pieces = pieces(entries, log.batch_bytes_max())?;
        Ok(pieces.into_iter().map(|entries| Operation::Append { group, entries }).collect())
    }

    /// Ends all entries from `from` on.
    pub fn truncate(&self, log: &impl Beneath, from: u64) -> Result<Vec<Operation>, Error> {
        if let Some(purged) = self.saved.purged.as_ref().filter(|purged| from <= purged.index) {
            return Err(Error::Purged { from, purged: purged.index });
        }
        Ok(self.end_behind(log, index(from)?).into_iter().collect())
    }

    /// Ends all entries up to and including `last`. `held` is what the log has at its index and at the next one.
    ///
    /// What is purged is committed. So an entry of another name in its place, or one behind it of an older leader,
    /// conflicts with what is committed, and with it all that follow.
    pub fn purge(
        &mut self,
        log: &impl Beneath,
        last: LogId<C::NodeId>,
        held: &[LogId<C::NodeId>],
    ) -> Result<Vec<Operation>, Error> {
        if last.index < self.purged_next() {
            return Ok(Vec::new());
        }
        let name = name(&last)?;
        let conflicts = held.iter().any(|held| match held.index == last.index {
            true => *held != last,
            false => held.leader_id < last.leader_id,
        });
        let mut operations = Vec::new();
        if conflicts {
            operations.extend(self.end_behind(log, name.index));
        }
        self.saved.purged = Some(last);
        let record = self.state_record(log)?;
        let before = types::LogId::new(STATE_TERM, record.id.index.previous());
        operations.push(Operation::Append { group: self.groups.state, entries: vec![record] });
        operations.extend(self.end_entries(log, name));
        // The segments that the entries give free must not be held by an old state record.
        operations.extend(self.end_states(log, before, 0));
        Ok(operations)
    }

    pub fn save_vote(&mut self, log: &impl Beneath, vote: Vote<C::NodeId>) -> Result<Vec<Operation>, Error> {
        self.saved.vote = Some(vote);
        if mutant::is_on(Mutant::OpenraftVoteNotSaved) {
            return Ok(Vec::new());
        }
        self.save(log)
    }

    pub fn save_committed(
        &mut self,
        log: &impl Beneath,
        committed: Option<LogId<C::NodeId>>,
    ) -> Result<Vec<Operation>, Error> {
        self.saved.committed = committed;
        self.save(log)
    }

    fn save(&self, log: &impl Beneath) -> Result<Vec<Operation>, Error> {
        let record = self.state_record(log)?;
        let before = types::LogId::new(STATE_TERM, record.id.index.previous());
        let mut operations = vec![Operation::Append { group: self.groups.state, entries: vec![record] }];
        operations.extend(self.end_states(log, before, STATES_KEPT_MAX));
        Ok(operations)
    }

    fn state_record(&self, log: &impl Beneath) -> Result<Entry, Error> {
        let next = log.group(self.groups.state).map_or(Index::FIRST, |names| names.last.index.next());
        encode(types::LogId::new(STATE_TERM, next), &self.saved, "the state")
    }

    /// Ends state records up to `last`, if there are more than `kept`.
    fn end_states(&self, log: &impl Beneath, last: types::LogId, kept: u64) -> Option<Operation> {
        let before_first = log.group(self.groups.state).map_or(Index::ZERO, |names| names.before_first.index);
        (last.index.0 > before_first.0 + kept).then_some(Operation::Purge { group: self.groups.state, last })
    }

    /// Ends entries up to `last`, if that is not done.
    fn end_entries(&self, log: &impl Beneath, last: types::LogId) -> Option<Operation> {
        let names = log.group(self.groups.entries);
        let is_done = names.is_some_and(|names| names.before_first.index >= last.index);
        (!is_done).then_some(Operation::Purge { group: self.groups.entries, last })
    }

    fn end_behind(&self, log: &impl Beneath, from: Index) -> Option<Operation> {
        let names = log.group(self.groups.entries)?;
        let from = from.max(names.first());
        (from <= names.last.index).then_some(Operation::Truncate { group: self.groups.entries, from })
    }
}

/// An entry of the log as openraft wrote it.
pub fn decode_entry<C: RaftTypeConfig>(group: GroupId, record: &Entry) -> Result<C::Entry, Error> {
    let entry: C::Entry = decode(group, record, "entry of openraft's")?;
    let found = name(entry.get_log_id())?;
    if found != record.id {
        let reason = format!("it calls itself {found}");
        return Err(Error::Record { group, id: record.id, what: "entry of openraft's", reason });
    }
    Ok(entry)
}

fn encode_entry<C: RaftTypeConfig>(entry: &C::Entry) -> Result<Entry, Error> {
    encode(name(entry.get_log_id())?, entry, "an entry")
}

fn encode(id: types::LogId, value: &impl Serialize, what: &'static str) -> Result<Entry, Error> {
    let mut bytes = BytesMut::new();
    bytes.put_u8(FORMAT_VERSION);
    let mut writer = bytes.writer();
    // With the names of fields: whatever serde can derive for the user's types is read back as it was.
    let mut serializer = rmp_serde::Serializer::new(&mut writer).with_struct_map();
    value.serialize(&mut serializer).map_err(|error| Error::Encode { what, reason: error.to_string() })?;
    Ok(Entry { id, payload: Payload::Data(Data::new(writer.into_inner().freeze())) })
}

fn decode<T: DeserializeOwned>(group: GroupId, record: &Entry, what: &'static str) -> Result<T, Error> {
    let id = record.id;
    let bad = |reason: String| Error::Record { group, id, what, reason };
    let Payload::Data(Data { bytes, .. }) = &record.payload else {
        return Err(bad("it holds no data".to_owned()));
    };
    match bytes.split_first() {
        Some((&FORMAT_VERSION, rest)) => rmp_serde::from_slice(rest).map_err(|error| bad(error.to_string())),
        Some((&found, _)) if found > FORMAT_VERSION => {
            Err(Error::NewerFormat { group, id, found, known: FORMAT_VERSION })
        }
        _ => Err(bad("it has no format version".to_owned())),
    }
}

fn index(index: u64) -> Result<Index, Error> {
    if index >= INDEX_MAX {
        return Err(Error::OverLimit { what: "index", found: index, max: INDEX_MAX - 1 });
    }
    Ok(Index(index).next())
}

fn name<N: NodeId>(id: &LogId<N>) -> Result<types::LogId, Error> {
    let term = id.leader_id.term;
    if term == u64::MAX {
        return Err(Error::OverLimit { what: "term", found: term, max: u64::MAX - 1 });
    }
    Ok(types::LogId::new(Term(term).next(), index(id.index)?))
}

/// Cuts a batch so that each piece fits one append: in records, in changes of term, and in bytes.
fn pieces(entries: Vec<Entry>, bytes_max: usize) -> Result<Vec<Vec<Entry>>, Error> {
    let mut pieces: Vec<Vec<Entry>> = Vec::new();
    let (mut bytes, mut terms) = (0, 0);
    for entry in entries {
        let own = record_bytes(&entry);
        if own > bytes_max {
            return Err(Error::TooLarge { index: entry.id.index.previous().0, bytes: own, max: bytes_max });
        }
        let last = pieces.last_mut().filter(|last| {
            let before = last.last().map(|before| before.id.term);
            terms += usize::from(before != Some(entry.id.term));
            bytes += own;
            bytes <= bytes_max && terms < FRAME_RUNS_MAX && last.len() < FRAME_RECORDS_MAX
        });
        match last {
            Some(last) => last.push(entry),
            None => {
                (bytes, terms) = (own, 1);
                pieces.push(vec![entry]);
            }
        }
    }
    Ok(pieces)
}

/// What an entry counts for where a limit is in bytes: no less than its record takes.
pub fn record_bytes(entry: &Entry) -> usize {
    entry.payload.data_bytes() + ENTRY_OVERHEAD_BYTES
}
