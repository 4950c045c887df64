//! Stands between openraft and the adapter: writes down what changes the log, and sees that what was told is durable.

use std::fmt::Debug;
use std::ops::RangeBounds;
use std::sync::{Arc, Mutex};

use openraft::storage::{LogFlushed, LogState, RaftLogStorage};
use openraft::{Entry, LogId, OptionalSend, RaftLogReader, StorageError, Vote};

use super::Types;
use crate::adapters::openraft::{LogReader, LogStorage};

type Result<T> = std::result::Result<T, StorageError<u64>>;

/// What changes the log.
#[derive(Clone, Debug)]
pub enum Call {
    Append(Vec<Entry<Types>>),
    Truncate(LogId<u64>),
    Purge(LogId<u64>),
    SaveVote(Vote<u64>),
    SaveCommitted(Option<LogId<u64>>),
}

/// The calls of each storage that was built, in their order.
pub type Recording = Arc<Mutex<Vec<Vec<Call>>>>;

#[derive(Debug)]
pub struct Recorder {
    log: LogStorage<Types>,
    recording: Recording,
    run: usize,
}

impl Recorder {
    pub fn new(log: LogStorage<Types>, recording: &Recording) -> Recorder {
        let mut runs = recording.lock().unwrap();
        runs.push(Vec::new());
        Recorder { log, recording: Arc::clone(recording), run: runs.len() - 1 }
    }

    fn record(&self, call: Call) {
        self.check();
        self.recording.lock().unwrap()[self.run].push(call);
    }

    /// openraft, and its suite, make the next call when they have heard of the one before.
    fn check(&self) {
        let taken = self.log.wal().flush().ticket();
        let durable = self.log.wal().durable();
        assert!(durable >= taken, "told as done up to {taken:?}, durable up to {durable:?}");
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.check();
        }
    }
}

impl RaftLogReader<Types> for Recorder {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: R,
    ) -> Result<Vec<Entry<Types>>> {
        self.log.try_get_log_entries(range).await
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry<Types>>> {
        self.log.limited_get_log_entries(start, end).await
    }
}

impl RaftLogStorage<Types> for Recorder {
    type LogReader = LogReader<Types>;

    async fn get_log_state(&mut self) -> Result<LogState<Types>> {
        self.log.get_log_state().await
    }

    async fn get_log_reader(&mut self) -> LogReader<Types> {
        self.log.get_log_reader().await
    }

    async fn save_vote(&mut self, vote: &Vote<u64>) -> Result<()> {
        self.record(Call::SaveVote(*vote));
        RaftLogStorage::save_vote(&mut self.log, vote).await
    }

    async fn read_vote(&mut self) -> Result<Option<Vote<u64>>> {
        self.check();
        self.log.read_vote().await
    }

    async fn save_committed(&mut self, committed: Option<LogId<u64>>) -> Result<()> {
        self.record(Call::SaveCommitted(committed));
        RaftLogStorage::save_committed(&mut self.log, committed).await
    }

    async fn read_committed(&mut self) -> Result<Option<LogId<u64>>> {
        self.check();
        self.log.read_committed().await
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<Types>) -> Result<()>
    where
        I: IntoIterator<Item = Entry<Types>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry<Types>> = entries.into_iter().collect();
        self.record(Call::Append(entries.clone()));
        RaftLogStorage::append(&mut self.log, entries, callback).await
    }

    async fn truncate(&mut self, log_id: LogId<u64>) -> Result<()> {
        self.record(Call::Truncate(log_id));
        RaftLogStorage::truncate(&mut self.log, log_id).await
    }

    async fn purge(&mut self, log_id: LogId<u64>) -> Result<()> {
        self.record(Call::Purge(log_id));
        RaftLogStorage::purge(&mut self.log, log_id).await
    }
}
