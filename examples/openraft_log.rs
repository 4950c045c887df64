//! openraft's log on ours: a node votes, appends, truncates what a new leader overrules, and comes back.
//!
//!     cargo run --features openraft --example openraft_log [DIRECTORY]
//!
//! A whole node hands the same `LogStorage` to `openraft::Raft::new`.

use std::error::Error;
use std::io::Cursor;
use std::path::PathBuf;
use std::sync::Arc;

use openraft::storage::{RaftLogStorage, RaftLogStorageExt};
use openraft::{CommittedLeaderId, Entry, EntryPayload, LogId, RaftLogReader, Vote};
use trilith::adapters::openraft::LogStorage;
use trilith::wal::Wal;
use trilith::wal::handle::{Options, WhenFull};

openraft::declare_raft_types!(
    /// A cluster whose entries are lines of text.
    pub Lines: D = String, R = (), NodeId = u64, Node = (), Entry = Entry<Lines>, SnapshotData = Cursor<Vec<u8>>
);

fn id(term: u64, index: u64) -> LogId<u64> {
    LogId::new(CommittedLeaderId::new(term, 1), index)
}

fn line(term: u64, index: u64, text: &str) -> Entry<Lines> {
    Entry { log_id: id(term, index), payload: EntryPayload::Normal(text.to_owned()) }
}

/// Opens the log, has it used, and closes it. Both ends wait for the disk: not while the runtime has something to do.
fn with_log(
    options: &Options,
    used: impl AsyncFnOnce(&mut LogStorage<Lines>) -> Result<(), Box<dyn Error>>,
) -> Result<(), Box<dyn Error>> {
    let wal = Arc::new(Wal::open(options.clone())?.0);
    let mut log = LogStorage::open(Arc::clone(&wal), 0)?;
    tokio::runtime::Builder::new_current_thread().build()?.block_on(used(&mut log))?;
    drop(log);
    Ok(Arc::try_unwrap(wal).map_err(|_| "the log is in use")?.close()?)
}

async fn write(log: &mut LogStorage<Lines>) -> Result<(), Box<dyn Error>> {
    log.save_vote(&Vote::new(1, 1)).await?;
    // Returns when openraft's callback was called: the entries are on the disk.
    log.blocking_append([line(1, 0, "one"), line(1, 1, "two"), line(1, 2, "overruled")]).await?;
    log.truncate(id(1, 2)).await?;
    log.save_vote(&Vote::new(2, 1)).await?;
    log.blocking_append([line(2, 2, "three")]).await?;
    log.save_committed(Some(id(2, 2))).await?;
    log.purge(id(1, 0)).await?;
    Ok(())
}

async fn read(log: &mut LogStorage<Lines>) -> Result<(), Box<dyn Error>> {
    let state = log.get_log_state().await?;
    let (vote, committed) = (log.read_vote().await?, log.read_committed().await?);
    println!("vote {}, committed {}", vote.ok_or("no vote")?, committed.ok_or("nothing is committed")?);
    println!("purged {}", state.last_purged_log_id.ok_or("nothing is purged")?);
    for entry in log.try_get_log_entries(..).await? {
        if let EntryPayload::Normal(text) = entry.payload {
            println!("{}: {text}", entry.log_id);
        }
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let directory = std::env::args_os().nth(1).map_or_else(|| PathBuf::from("openraft_log"), PathBuf::from);
    let mut options = Options::new(directory);
    options.segment_bytes = 1 << 20;
    // A full queue is awaited, and holds up no thread of the runtime.
    options.when_full = WhenFull::Busy;
    with_log(&options, write)?;
    with_log(&options, read)
}
