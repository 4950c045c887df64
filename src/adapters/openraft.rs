//! The log as openraft's: [`LogStorage`] is a [`RaftLogStorage`] of openraft 0.9 (its `storage-v2`) on a [`Wal`].
//!
//! ```text
//!   openraft's core ──▶ LogStorage ──▶ Mapping (pure) ──▶ operations ──▶ Wal ──▶ disk
//!                          │                                              │
//!      LogFlushed ◀── a task per append ◀────────── Pending ◀─────────────┘ durable
//!   replication ──▶ LogReader ──▶ what is not durable yet, from memory; the rest from the Wal
//! ```
//!
//! # The contract
//!
//! - openraft hears that entries are flushed when the log says that they are durable. Vote, committed, truncate and
//!   purge return when they are durable.
//! - Entries can be read as soon as `append` returns.
//! - Vote, committed and purged log id are records in a second group of the same log: they are durable in one order
//!   with the entries, by the same flush, and recovered by the same rules. No file of their own.
//! - After a failure nothing is told as done any more: every call is an error, and openraft stops its node. A vote,
//!   committed or purged log id that is refused is not what is read afterwards.
//! - A read without a limit gives all that is there of its range, or an error: never less.
//!
//! # Caveats
//!
//! - Several Raft logs may share one [`Wal`], and its flushes: each has a number, 0 to 31, and takes two groups. One
//!   `LogStorage` per number: it knows what it has said itself, and nothing of another's.
//! - Any runtime will do: nothing here names one. Reads run on the task that asks, and may read the disk there.
//!   [`LogStorage::open`] and the end of the [`Wal`] wait for the disk: not from within a task that others wait for.
//! - On a full disk entries are refused. Vote, committed, truncate and purge go on, in the room that the log keeps for
//!   itself: openraft stops its node at the refusal, and once that runs again, a snapshot and its purge make room.
//! - With [`WhenFull::Busy`](crate::wal::handle::WhenFull) a full queue is awaited; with `Block`, the default, it holds
//!   up a thread of the runtime.
//! - An entry must fit one frame (almost 8 MiB in segments of the default size); a batch need not.
//! - Entries are MessagePack with the names of fields (docs/formats.md): a field may be added to a type if it has a
//!   default.

mod error;
mod mapping;
mod shared;
#[cfg(test)]
mod tests;

use std::fmt::Debug;
use std::io;
use std::marker::PhantomData;
use std::ops::RangeBounds;
use std::sync::Arc;

use openraft::storage::{LogFlushed, LogState, RaftLogStorage};
use openraft::{
    AnyError, AsyncRuntime, ErrorSubject, ErrorVerb, LogId, OptionalSend, RaftLogId, RaftLogReader, RaftTypeConfig,
    StorageError, StorageIOError, Vote,
};

use self::mapping::{Groups, Mapping, Operation, decode_entry};
use self::shared::Shared;
use crate::mutant::{self, Mutant};
use crate::types::{Entry, Index};
use crate::wal::Wal;
use crate::wal::handle::Pending;

pub use self::error::Error;

/// What one limited read gives at most, in bytes; at least one entry.
const READ_BYTES_MAX: usize = 1 << 20;
/// Entries that are kept for readers until they are durable. Beyond it an append waits for its own flush.
const UNFLUSHED_BYTES_MAX: usize = 64 << 20;

/// One Raft log on a [`Wal`]. See [`self`] for the contract.
#[derive(Debug)]
pub struct LogStorage<C: RaftTypeConfig> {
    reader: LogReader<C>,
    mapping: Mapping<C>,
}

/// Reads one Raft log, beside the one who writes it.
#[derive(Debug)]
pub struct LogReader<C: RaftTypeConfig> {
    shared: Arc<Shared>,
    types: PhantomData<fn() -> C>,
}

impl<C: RaftTypeConfig> LogStorage<C> {
    /// Raft log number `log` (0 to 31) of an open log: empty if it is not there. A purge that was cut short is finished.
    ///
    /// # Errors
    /// If its groups hold what this adapter did not write, or cannot be read.
    pub fn open(wal: Arc<Wal>, log: u32) -> Result<LogStorage<C>, Error> {
        let groups = Groups::of(log)?;
        let newest = match groups.newest_state(&*wal) {
            Some(at) => wal.read(groups.state, at..at.next(), 1)?,
            None => Vec::new(),
        };
        let (mapping, unfinished) = Mapping::recover(groups, &*wal, newest.first())?;
        let shared = Arc::new(Shared::new(wal, groups, mapping.purged_next()));
        for operation in unfinished {
            shared.submit_now(operation)?.wait()?;
        }
        Ok(LogStorage { reader: LogReader { shared, types: PhantomData }, mapping })
    }

    /// The log beneath.
    pub fn wal(&self) -> &Arc<Wal> {
        &self.shared().wal
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.reader.shared
    }

    async fn save_vote(&mut self, vote: Vote<C::NodeId>) -> Result<(), Error> {
        let mut next = self.mapping.clone();
        let operations = next.save_vote(&**self.wal(), vote)?;
        let pending = self.submit(next, operations).await?;
        if !mutant::is_on(Mutant::OpenraftVoteNotFlushed) {
            pending.await?;
        }
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId<C::NodeId>>) -> Result<(), Error> {
        let mut next = self.mapping.clone();
        let operations = next.save_committed(&**self.wal(), committed)?;
        self.submit(next, operations).await?.await?;
        Ok(())
    }

    async fn truncate(&mut self, from: u64) -> Result<(), Error> {
        let operations = self.mapping.truncate(&**self.wal(), from)?;
        self.shared().submit_all(operations).await?.await?;
        Ok(())
    }

    async fn purge(&mut self, last: LogId<C::NodeId>) -> Result<(), Error> {
        // Below the purged id nothing can be read, and there is nothing to do.
        let held = self.reader.read(last.index..last.index.saturating_add(2))?;
        let held: Vec<LogId<C::NodeId>> = held.iter().map(|entry| entry.get_log_id().clone()).collect();
        let mut next = self.mapping.clone();
        let operations = next.purge(&**self.wal(), last, &held)?;
        self.submit(next, operations).await?.await?;
        self.shared().set_purged_next(self.mapping.purged_next());
        Ok(())
    }

    /// Hands operations to the log. `next` is the mapping behind them: it holds from when its state record is taken, and
    /// not if that is refused.
    async fn submit(&mut self, next: Mapping<C>, operations: Vec<Operation>) -> Result<Pending, Error> {
        let mut pending = None;
        for operation in operations {
            let is_state_record = operation.appends_to(self.shared().groups.state);
            pending = Some(self.shared().submit(operation).await?);
            if is_state_record {
                self.mapping = next.clone();
            }
        }
        self.mapping = next;
        Ok(pending.unwrap_or_else(|| self.wal().flush()))
    }

    async fn append(&mut self, entries: Vec<C::Entry>, callback: LogFlushed<C>) -> Result<(), Error> {
        let operations = self.mapping.append(&**self.wal(), entries)?;
        let pending = self.shared().submit_all(operations).await?;
        let shared = Arc::clone(self.shared());
        let is_over = shared.unflushed_bytes() > UNFLUSHED_BYTES_MAX;
        let telling = tell(shared, pending, callback);
        match is_over {
            true => telling.await,
            // It ends by itself when the log has said durable or failed.
            false => drop(<C::AsyncRuntime as AsyncRuntime>::spawn(telling)),
        }
        Ok(())
    }

    fn log_state(&self) -> Result<LogState<C>, Error> {
        self.shared().check()?;
        let Shared { wal, groups, .. } = &**self.shared();
        let last = wal.group(groups.entries).map_or(Index::ZERO, |names| names.last.index);
        let last = match last.0.checked_sub(1) {
            Some(last) => self.reader.read(last..=last)?,
            None => Vec::new(),
        };
        let last_purged_log_id = self.mapping.saved().purged.clone();
        let last_log_id = last.last().map(|entry| entry.get_log_id().clone()).or(last_purged_log_id.clone());
        Ok(LogState { last_purged_log_id, last_log_id })
    }
}

/// Tells openraft that an append is flushed, once it is.
async fn tell<C: RaftTypeConfig>(shared: Arc<Shared>, pending: Pending, callback: LogFlushed<C>) {
    let ticket = pending.ticket();
    let callback = match mutant::is_on(Mutant::OpenraftToldBeforeFlush) {
        true => {
            callback.log_io_completed(Ok(()));
            None
        }
        false => Some(callback),
    };
    let said = pending.await;
    if said.is_ok() {
        shared.flushed(ticket);
    }
    // Whoever hears of it may close the log.
    drop(shared);
    if let Some(callback) = callback {
        callback.log_io_completed(said.map(drop).map_err(io::Error::other));
    }
}

impl<C: RaftTypeConfig> LogReader<C> {
    fn read(&self, wanted: impl RangeBounds<u64>) -> Result<Vec<C::Entry>, Error> {
        self.decoded(&self.shared.read(wanted)?)
    }

    fn decoded(&self, entries: &[Entry]) -> Result<Vec<C::Entry>, Error> {
        entries.iter().map(|entry| decode_entry::<C>(self.shared.groups.entries, entry)).collect()
    }
}

impl<C: RaftTypeConfig> RaftLogReader<C> for LogReader<C> {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: R,
    ) -> Result<Vec<C::Entry>, StorageError<C::NodeId>> {
        self.read(range).map_err(|error| failed(ErrorSubject::Logs, ErrorVerb::Read, &error))
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<C::Entry>, StorageError<C::NodeId>> {
        let entries = self.shared.read_limited(start..end, READ_BYTES_MAX).and_then(|entries| self.decoded(&entries));
        entries.map_err(|error| failed(ErrorSubject::Logs, ErrorVerb::Read, &error))
    }
}

impl<C: RaftTypeConfig> RaftLogReader<C> for LogStorage<C> {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: R,
    ) -> Result<Vec<C::Entry>, StorageError<C::NodeId>> {
        self.reader.try_get_log_entries(range).await
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<C::Entry>, StorageError<C::NodeId>> {
        self.reader.limited_get_log_entries(start, end).await
    }
}

impl<C: RaftTypeConfig> RaftLogStorage<C> for LogStorage<C> {
    type LogReader = LogReader<C>;

    async fn get_log_state(&mut self) -> Result<LogState<C>, StorageError<C::NodeId>> {
        self.log_state().map_err(|error| failed(ErrorSubject::Logs, ErrorVerb::Read, &error))
    }

    async fn get_log_reader(&mut self) -> LogReader<C> {
        LogReader { shared: Arc::clone(self.shared()), types: PhantomData }
    }

    async fn save_vote(&mut self, vote: &Vote<C::NodeId>) -> Result<(), StorageError<C::NodeId>> {
        let saved = LogStorage::save_vote(self, vote.clone()).await;
        saved.map_err(|error| failed(ErrorSubject::Vote, ErrorVerb::Write, &error))
    }

    async fn read_vote(&mut self) -> Result<Option<Vote<C::NodeId>>, StorageError<C::NodeId>> {
        self.shared().check().map_err(|error| failed(ErrorSubject::Vote, ErrorVerb::Read, &error))?;
        Ok(self.mapping.saved().vote.clone())
    }

    async fn save_committed(&mut self, committed: Option<LogId<C::NodeId>>) -> Result<(), StorageError<C::NodeId>> {
        let saved = LogStorage::save_committed(self, committed).await;
        saved.map_err(|error| failed(ErrorSubject::Store, ErrorVerb::Write, &error))
    }

    async fn read_committed(&mut self) -> Result<Option<LogId<C::NodeId>>, StorageError<C::NodeId>> {
        self.shared().check().map_err(|error| failed(ErrorSubject::Store, ErrorVerb::Read, &error))?;
        Ok(self.mapping.saved().committed.clone())
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<C>) -> Result<(), StorageError<C::NodeId>>
    where
        I: IntoIterator<Item = C::Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let appended = LogStorage::append(self, entries.into_iter().collect(), callback).await;
        appended.map_err(|error| failed(ErrorSubject::Logs, ErrorVerb::Write, &error))
    }

    async fn truncate(&mut self, log_id: LogId<C::NodeId>) -> Result<(), StorageError<C::NodeId>> {
        let truncated = LogStorage::truncate(self, log_id.index).await;
        truncated.map_err(|error| failed(ErrorSubject::Log(log_id), ErrorVerb::Delete, &error))
    }

    async fn purge(&mut self, log_id: LogId<C::NodeId>) -> Result<(), StorageError<C::NodeId>> {
        let purged = LogStorage::purge(self, log_id.clone()).await;
        purged.map_err(|error| failed(ErrorSubject::Log(log_id), ErrorVerb::Delete, &error))
    }
}

fn failed<N: openraft::NodeId>(subject: ErrorSubject<N>, verb: ErrorVerb, error: &Error) -> StorageError<N> {
    StorageIOError::new(subject, verb, AnyError::new(error)).into()
}
