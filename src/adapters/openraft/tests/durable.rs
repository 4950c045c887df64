//! What openraft is told, and when, on a disk that is slow, or that fails.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use openraft::storage::{RaftLogStorage, RaftLogStorageExt};
use openraft::{RaftLogReader, Vote};
use tempfile::TempDir;

use super::{Types, entry, id};
use crate::adapters::openraft::{Error, LogStorage};
use crate::disk::{self, Completion, IoChoice, Operation, Queue, Write};
use crate::types::{GroupId, Index};
use crate::wal::Wal;
use crate::wal::handle::{self, Options, WhenFull};

/// How long the slow disk looks at a write before it takes it.
const WRITE_DELAY: Duration = Duration::from_millis(2);

struct Slow(Box<dyn Queue>);

impl Queue for Slow {
    fn submit(&mut self, write: Write) {
        std::thread::sleep(WRITE_DELAY);
        self.0.submit(write);
    }

    fn take(&mut self) -> Option<Completion> {
        self.0.take()
    }
}

/// Takes some writes, then fails all.
struct Failing(Box<dyn Queue>, usize);

impl Queue for Failing {
    fn submit(&mut self, write: Write) {
        self.0.submit(write);
    }

    fn take(&mut self) -> Option<Completion> {
        let mut completion = self.0.take()?;
        match self.1.checked_sub(1) {
            Some(left) => self.1 = left,
            None => {
                completion.result = Err(disk::Error::new(Operation::Write, "a test", io::Error::from_raw_os_error(5)))
            }
        }
        Some(completion)
    }
}

pub fn options(home: &TempDir) -> Options {
    let directory = home.path().join("log");
    Options { io: IoChoice::Blocking, segment_bytes: 1 << 20, when_full: WhenFull::Busy, ..Options::new(directory) }
}

pub fn open(home: &TempDir) -> Wal {
    Wal::open(options(home)).unwrap().0
}

pub fn open_slow(home: &TempDir) -> Wal {
    Wal::open_with(&options(home), |queue| Box::new(Slow(queue))).unwrap().0
}

pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(future)
}

pub async fn indexes(log: &mut impl RaftLogReader<Types>) -> Vec<u64> {
    log.try_get_log_entries(..).await.unwrap().iter().map(|entry| entry.log_id.index).collect()
}

/// Everything that the log has taken is on the disk, or was when this was asked.
fn all_is_durable(log: &LogStorage<Types>) -> bool {
    log.wal().durable() >= log.wal().flush().ticket()
}

#[test]
fn entries_are_durable_when_openraft_hears_so() {
    let home = tempfile::tempdir().unwrap();
    block_on(async {
        let mut log = LogStorage::<Types>::open(Arc::new(open_slow(&home)), 0).unwrap();
        for index in 0..20 {
            log.blocking_append([entry(id(1, 1, index), "a")]).await.unwrap();
            assert!(all_is_durable(&log), "entry {index} is not");
        }
    });
}

#[test]
fn vote_committed_truncate_and_purge_are_durable_when_they_return() {
    let home = tempfile::tempdir().unwrap();
    block_on(async {
        let mut log = LogStorage::<Types>::open(Arc::new(open_slow(&home)), 0).unwrap();
        log.blocking_append((0..9).map(|index| entry(id(1, 1, index), "a"))).await.unwrap();
        for round in 0..5 {
            RaftLogStorage::save_vote(&mut log, &Vote::new(round, 1)).await.unwrap();
            assert!(all_is_durable(&log), "vote {round} is not");
            RaftLogStorage::save_committed(&mut log, Some(id(1, 1, round))).await.unwrap();
            assert!(all_is_durable(&log), "committed {round} is not");
            RaftLogStorage::truncate(&mut log, id(1, 1, 9 - round)).await.unwrap();
            assert!(all_is_durable(&log), "truncate {round} is not");
            RaftLogStorage::purge(&mut log, id(1, 1, round)).await.unwrap();
            assert!(all_is_durable(&log), "purge {round} is not");
        }
    });
}

/// Entries can be read when `append` returns, long before they are durable.
#[test]
fn entries_are_read_before_they_are_durable() {
    let home = tempfile::tempdir().unwrap();
    block_on(async {
        let mut log = LogStorage::<Types>::open(Arc::new(open_slow(&home)), 0).unwrap();
        let mut reader = log.get_log_reader().await;
        log.blocking_append([entry(id(1, 1, 0), "a")]).await.unwrap();
        // Joined: the append is polled to where it waits for the flush, then read around.
        let append = async {
            log.blocking_append((1..5).map(|index| entry(id(1, 1, index), "b"))).await.unwrap();
        };
        let read = async {
            let found = indexes(&mut reader).await;
            assert!(!found.is_empty());
            found
        };
        let ((), found) = tokio::join!(append, read);
        assert_eq!(found, [0, 1, 2, 3, 4], "what append has taken can be read");
    });
}

/// A failed flush is an error of every call from then on, and what was told before is there.
#[test]
fn after_a_failed_flush_nothing_is_told_as_done() {
    let home = tempfile::tempdir().unwrap();
    let wal = Wal::open_with(&options(&home), |queue| Box::new(Failing(queue, 6))).unwrap().0;
    let told = block_on(async {
        let mut log = LogStorage::<Types>::open(Arc::new(wal), 0).unwrap();
        let mut told = 0;
        while log.blocking_append([entry(id(1, 1, told), "x")]).await.is_ok() {
            told += 1;
            assert!(told < 100, "the disk has failed");
        }
        let refused = RaftLogStorage::save_vote(&mut log, &Vote::new(2, 1)).await.unwrap_err();
        assert!(refused.to_string().contains("nothing more is written"), "{refused}");
        let unknown = |said: String| assert!(said.contains("outcome is unknown"), "{said}");
        unknown(log.read_vote().await.unwrap_err().to_string());
        unknown(log.read_committed().await.unwrap_err().to_string());
        unknown(log.get_log_state().await.unwrap_err().to_string());
        unknown(log.try_get_log_entries(..).await.unwrap_err().to_string());
        unknown(log.get_log_reader().await.limited_get_log_entries(0, 1).await.unwrap_err().to_string());
        told
    });
    assert!(told > 0);
    // The failed log's thread gives its files free in its own time.
    let start = Instant::now();
    let wal = loop {
        match Wal::open(options(&home)) {
            Ok((wal, _)) => break wal,
            Err(handle::Error::InUse { .. }) => assert!(start.elapsed() < Duration::from_secs(20), "never given free"),
            Err(error) => panic!("{error}"),
        }
    };
    block_on(async {
        let mut log = LogStorage::<Types>::open(Arc::new(wal), 0).unwrap();
        let found = indexes(&mut log).await;
        assert!(found.len() as u64 >= told && found.len() as u64 <= told + 1, "{told} were told, {found:?} are there");
        assert_eq!(log.read_vote().await.unwrap(), None);
    });
}

/// Two Raft logs on one log, each with its own; what is not openraft's is refused by name.
#[test]
fn raft_logs_share_a_log_and_keep_apart() {
    let home = tempfile::tempdir().unwrap();
    block_on(async {
        let wal = Arc::new(open(&home));
        for number in [0, 31] {
            let mut log = LogStorage::<Types>::open(Arc::clone(&wal), number).unwrap();
            RaftLogStorage::save_vote(&mut log, &Vote::new(u64::from(number) + 1, 1)).await.unwrap();
            log.blocking_append([entry(id(u64::from(number), 1, 0), format!("of {number}"))]).await.unwrap();
        }
        let over = LogStorage::<Types>::open(Arc::clone(&wal), 32).unwrap_err();
        assert!(matches!(over, Error::TooManyLogs { found: 32, max: 31 }), "{over}");
        wal.append_records(GroupId(3), ["\u{1}no state"]).unwrap().await.unwrap();
        let foreign = LogStorage::<Types>::open(Arc::clone(&wal), 1).unwrap_err();
        assert!(matches!(foreign, Error::Record { group: GroupId(3), .. }), "{foreign}");
        wal.append_records(GroupId(3), ["\u{2}of later"]).unwrap().await.unwrap();
        let newer = LogStorage::<Types>::open(Arc::clone(&wal), 1).unwrap_err();
        assert!(matches!(newer, Error::NewerFormat { found: 2, known: 1, .. }), "{newer}");
    });
    block_on(async {
        let wal = Arc::new(open(&home));
        for number in [0, 31] {
            let mut log = LogStorage::<Types>::open(Arc::clone(&wal), number).unwrap();
            assert_eq!(log.read_vote().await.unwrap(), Some(Vote::new(u64::from(number) + 1, 1)));
            let entries = log.try_get_log_entries(..).await.unwrap();
            assert_eq!(entries, [entry(id(u64::from(number), 1, 0), format!("of {number}"))]);
        }
    });
}

/// A queue that is full is awaited; a batch that does not fit one frame goes in pieces.
#[test]
fn a_full_queue_is_awaited() {
    let home = tempfile::tempdir().unwrap();
    let options = Options { queue_bytes_max: 100_000, ..options(&home) };
    block_on(async {
        let wal = Wal::open_with(&options, |queue| Box::new(Slow(queue))).unwrap().0;
        let mut log = LogStorage::<Types>::open(Arc::new(wal), 0).unwrap();
        let line = "-".repeat(60_000);
        let batch = |from: u64| (from..from + 40).map(|index| entry(id(1, 1, index), line.clone())).collect::<Vec<_>>();
        log.blocking_append(batch(0)).await.unwrap();
        log.blocking_append(batch(40)).await.unwrap();
        assert_eq!(indexes(&mut log).await, (0..80).collect::<Vec<u64>>());
        let limited = log.limited_get_log_entries(10, 80).await.unwrap();
        assert!(limited.len() > 1 && limited.len() < 30 && limited[0].log_id.index == 10, "{}", limited.len());
        assert_eq!(log.wal().group(GroupId(0)).map(|names| names.last.index), Some(Index(80)));
    });
}
