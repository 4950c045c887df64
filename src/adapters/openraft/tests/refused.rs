//! Calls that the log refuses, reads that it cannot answer, and what goes on when the disk is full.

use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use openraft::storage::{RaftLogStorage, RaftLogStorageExt};
use openraft::{RaftLogReader, Vote};

use super::durable::{block_on, indexes, open, options};
use super::{Types, entry, id};
use crate::adapters::openraft::LogStorage;
use crate::adapters::openraft::mapping::{Groups, Mapping, Operation};
use crate::limits::{INDEX_MAX, SEGMENT_BYTES_MIN, SEGMENTS_READY, SEGMENTS_SPARE};
use crate::types::Index;
use crate::wal::Wal;
use crate::wal::handle::Options;

/// An entry's text: tells entries apart in the files.
fn text(index: u64) -> String {
    format!("<{index:05}>").repeat(15_000)
}

/// Less than all was "there is no more", and openraft would have started without the membership that it did not see.
#[test]
fn a_read_over_a_damaged_entry_is_an_error_and_never_less_than_all() {
    const DAMAGED: u64 = 5;
    let home = tempfile::tempdir().unwrap();
    block_on(async {
        let mut log = LogStorage::<Types>::open(Arc::new(open(&home)), 0).unwrap();
        for index in 0..40 {
            log.blocking_append([entry(id(1, 1, index), text(index))]).await.unwrap();
        }
    });
    let path = home.path().join("log/log/0000000000000001.segment");
    let bytes = std::fs::read(&path).unwrap();
    let pattern = format!("<{DAMAGED:05}><{DAMAGED:05}>").into_bytes();
    let at = bytes.windows(pattern.len()).position(|window| window == pattern).expect("it is in the first segment");
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(b"!", at as u64).unwrap();
    file.sync_all().unwrap();
    block_on(async {
        let mut log = LogStorage::<Types>::open(Arc::new(open(&home)), 0).unwrap();
        let mut reader = log.get_log_reader().await;
        for range in [0..40, 0..DAMAGED + 1, DAMAGED..DAMAGED + 1, 3..20] {
            let error = log.try_get_log_entries(range.clone()).await.unwrap_err().to_string();
            assert!(error.contains("damaged"), "{range:?}: {error}");
        }
        assert!(reader.try_get_log_entries(..).await.is_err());
        for range in [0..DAMAGED, DAMAGED + 1..40] {
            let found = log.try_get_log_entries(range.clone()).await.unwrap();
            assert!(found.iter().map(|entry| entry.log_id.index).eq(range));
        }
        let limited = reader.limited_get_log_entries(0, 40).await.unwrap();
        assert!(limited.iter().map(|entry| entry.log_id.index).eq(0..DAMAGED), "as much as there is before it");
        assert!(reader.limited_get_log_entries(DAMAGED, 40).await.is_err());
        // Whether what is behind conflicts with a purge cannot be told.
        RaftLogStorage::purge(&mut log, id(1, 1, DAMAGED - 1)).await.unwrap_err();
        assert_eq!(log.get_log_state().await.unwrap().last_purged_log_id, None);
        RaftLogStorage::purge(&mut log, id(1, 1, DAMAGED + 1)).await.unwrap();
        assert_eq!(indexes(&mut log).await, (DAMAGED + 2..40).collect::<Vec<u64>>());
    });
}

/// A vote that was refused was given by `read_vote`, and was nowhere on the disk.
#[test]
fn a_call_that_is_refused_has_changed_nothing() {
    let home = tempfile::tempdir().unwrap();
    block_on(async {
        let wal = Arc::new(open(&home));
        // The state record that no other one can come behind.
        let groups = Groups::of(0).unwrap();
        let mut mapping = Mapping::<Types>::recover(groups, &*wal, None).unwrap().0;
        let operation = mapping.save_vote(&*wal, Vote::new(1, 1)).unwrap().remove(0);
        let Operation::Append { group, mut entries } = operation else { panic!("{operation:?}") };
        entries[0].id.index = Index(INDEX_MAX);
        wal.append_beside_cuts(group, entries).unwrap().await.unwrap();

        let mut log = LogStorage::<Types>::open(Arc::clone(&wal), 0).unwrap();
        log.blocking_append((0..9).map(|index| entry(id(1, 1, index), "a"))).await.unwrap();
        let refused = |said: String| assert!(said.contains("over the limit"), "{said}");
        refused(RaftLogStorage::save_vote(&mut log, &Vote::new(7, 2)).await.unwrap_err().to_string());
        assert_eq!(log.read_vote().await.unwrap(), Some(Vote::new(1, 1)));
        refused(RaftLogStorage::save_committed(&mut log, Some(id(1, 1, 3))).await.unwrap_err().to_string());
        assert_eq!(log.read_committed().await.unwrap(), None);
        refused(RaftLogStorage::purge(&mut log, id(1, 1, 3)).await.unwrap_err().to_string());
        assert_eq!(log.get_log_state().await.unwrap().last_purged_log_id, None);
        assert_eq!(indexes(&mut log).await, (0..9).collect::<Vec<u64>>());
    });
}

/// Nothing is full here: the log's directory is away, and no segment can be made in it.
#[test]
fn on_a_full_disk_votes_and_purges_go_on() {
    let home = tempfile::tempdir().unwrap();
    let small = Options { segment_bytes: SEGMENT_BYTES_MIN, ..options(&home) };
    let (at, away) = (small.directory.join("log"), home.path().join("away"));
    let start = Instant::now();
    let patience = |what: &str| {
        assert!(start.elapsed() < Duration::from_secs(20), "{what}");
        std::thread::sleep(Duration::from_millis(1));
    };
    block_on(async {
        let mut log = LogStorage::<Types>::open(Arc::new(Wal::open(small.clone()).unwrap().0), 0).unwrap();
        log.blocking_append([entry(id(1, 1, 0), "first")]).await.unwrap();
        let names = || std::fs::read_dir(&at).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        while names().filter(|name| name.ends_with(".segment")).count() < 1 + SEGMENTS_READY + SEGMENTS_SPARE {
            patience("no segments stand ready");
        }
        std::fs::rename(&at, &away).unwrap();
        let mut next = 1;
        let refused = loop {
            match log.blocking_append([entry(id(1, 1, next), "-".repeat(4000))]).await {
                Ok(()) => next += 1,
                Err(refused) => break refused.to_string(),
            }
            patience("never refused");
        };
        assert!(refused.contains("no segment can be made"), "{refused}");
        RaftLogStorage::save_vote(&mut log, &Vote::new(2, 1)).await.unwrap();
        RaftLogStorage::save_committed(&mut log, Some(id(1, 1, next - 1))).await.unwrap();
        RaftLogStorage::truncate(&mut log, id(1, 1, next - 1)).await.unwrap();
        RaftLogStorage::purge(&mut log, id(1, 1, next - 3)).await.unwrap();
        assert!(log.wal().preparation_error().is_some() && log.wal().failure().is_none());
        assert!(log.blocking_append([entry(id(2, 1, next - 1), "-".repeat(4000))]).await.is_err(), "it is full still");
        std::fs::rename(&away, &at).unwrap();
        while log.blocking_append([entry(id(2, 1, next - 1), "-".repeat(4000))]).await.is_err() {
            patience("it does not resume");
        }
        drop(log);
        let mut log = LogStorage::<Types>::open(Arc::new(Wal::open(small).unwrap().0), 0).unwrap();
        assert_eq!(log.read_vote().await.unwrap(), Some(Vote::new(2, 1)));
        assert_eq!(log.get_log_state().await.unwrap().last_purged_log_id, Some(id(1, 1, next - 3)));
        assert_eq!(indexes(&mut log).await, [next - 2, next - 1]);
    });
}
