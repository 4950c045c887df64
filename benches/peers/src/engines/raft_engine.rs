//! raft-engine: files recycled and filled ahead, no compression, every write synced. A Raft group for each thread, as
//! its users have, since the entries of one group come in order; all groups share its log and its flushes.

use std::path::Path;
use std::sync::Mutex;

use protobuf::well_known_types::BytesValue;
use raft_engine::{Config, Engine as RaftEngine, LogBatch, MessageExt, ReadableSize};
use trilith::cli::Failure;

use super::{Counted, Engine, Kind, Producer};

const FILE_BYTES: ReadableSize = ReadableSize::mb(64);
/// Files beyond this are purged; half as much again is filled ahead.
const PURGE_BYTES: ReadableSize = ReadableSize::mb(256);
const INDEX_BYTES: usize = 8;
const READ_BYTES: usize = 4 << 20;

struct Peer {
    engine: RaftEngine,
    /// By group: the last index at the beat before, which nobody needs any more.
    released: Mutex<Vec<u64>>,
}

/// An entry whose payload begins with its index.
struct Entry;

impl MessageExt for Entry {
    type Entry = BytesValue;

    fn index(entry: &BytesValue) -> u64 {
        let bytes = entry.value[..INDEX_BYTES].try_into().expect("an entry begins with its index");
        u64::from_le_bytes(bytes)
    }
}

pub fn open(directory: &Path, threads: usize) -> Result<Box<dyn Engine>, Failure> {
    let engine = start(directory, true)?;
    Ok(Box::new(Peer { engine, released: Mutex::new(vec![0; threads]) }))
}

fn start(directory: &Path, prefill: bool) -> Result<RaftEngine, Failure> {
    let config = Config {
        dir: directory.to_string_lossy().into_owned(),
        batch_compression_threshold: ReadableSize(0),
        target_file_size: FILE_BYTES,
        purge_threshold: PURGE_BYTES,
        enable_log_recycle: true,
        prefill_for_recycle: prefill,
        ..Config::default()
    };
    RaftEngine::open(config).map_err(|error| Kind::RaftEngine.failure(error))
}

fn group(thread: usize) -> u64 {
    thread as u64 + 1
}

impl Engine for Peer {
    fn producer(&self, thread: usize) -> Result<Box<dyn Producer + '_>, Failure> {
        Ok(Box::new(PeerProducer { engine: &self.engine, group: group(thread), last: 0, batch: LogBatch::default() }))
    }

    fn release(&self) -> Result<(), Failure> {
        let mut released = self.released.lock().expect("no thread panics while it holds it");
        for (thread, released) in released.iter_mut().enumerate() {
            let last = self.engine.last_index(group(thread)).unwrap_or(0);
            if *released > 0 {
                self.engine.compact_to(group(thread), *released);
            }
            *released = last;
        }
        self.engine.purge_expired_files().map(drop).map_err(|error| Kind::RaftEngine.failure(error))
    }

    fn about(&self) -> String {
        "0.4.2: sync each, 64 MiB files recycled and filled ahead, no compression, a group for each thread".to_owned()
    }

    fn close(self: Box<Self>) -> Result<(), Failure> {
        drop(self.engine);
        Ok(())
    }
}

struct PeerProducer<'a> {
    engine: &'a RaftEngine,
    group: u64,
    last: u64,
    batch: LogBatch,
}

impl Producer for PeerProducer<'_> {
    fn submit(&mut self, payload: &[u8]) -> Result<(), Failure> {
        self.last += 1;
        let mut entry = BytesValue::new();
        entry.value = payload.to_vec();
        entry.value[..INDEX_BYTES].copy_from_slice(&self.last.to_le_bytes());
        let added = self.batch.add_entries::<Entry>(self.group, &[entry]);
        added
            .and_then(|()| self.engine.write(&mut self.batch, true))
            .map_err(|error| Kind::RaftEngine.failure(error))?;
        Ok(())
    }

    fn reap(&mut self) -> Result<usize, Failure> {
        Ok(1)
    }
}

pub fn count(directory: &Path) -> Result<Counted, Failure> {
    let engine = start(directory, false)?;
    let mut counted = Counted { appended: 0, present: 0 };
    for group in engine.raft_groups() {
        let (Some(first), Some(last)) = (engine.first_index(group), engine.last_index(group)) else { continue };
        let (mut next, mut entries) = (first, Vec::new());
        while next <= last {
            entries.clear();
            let read = engine.fetch_entries_to::<Entry>(group, next, last + 1, Some(READ_BYTES), &mut entries);
            let read = read.map_err(|error| Kind::RaftEngine.failure(error))? as u64;
            if read == 0 {
                return Err(Kind::RaftEngine.damage(format!("group {group} lacks entry {next}")));
            }
            next += read;
        }
        counted.present += last + 1 - first;
        counted.appended += last;
    }
    Ok(counted)
}
