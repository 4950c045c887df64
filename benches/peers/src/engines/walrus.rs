//! walrus-rust: the schedule that syncs each append. A topic for each thread, its best shape: the appends of one topic
//! wait for each other, with a flush each. Its directory, and that it keep quiet, go through the environment alone.

use std::path::Path;

use trilith::cli::Failure;
use walrus_rust::{FsyncSchedule, ReadConsistency, Walrus};

use super::{Counted, Engine, Kind, Producer};

const READ_BYTES: usize = 4 << 20;
/// How far a reader has come is not kept.
const READS: ReadConsistency = ReadConsistency::AtLeastOnce { persist_every: u32::MAX };

struct Peer(Walrus);

pub fn environment(directory: &Path) -> Vec<(&'static str, String)> {
    let directory = directory.to_string_lossy().into_owned();
    vec![("WALRUS_DATA_DIR", directory), ("WALRUS_QUIET", "1".to_owned())]
}

pub fn open() -> Result<Box<dyn Engine>, Failure> {
    start(FsyncSchedule::SyncEach).map(|log| Box::new(Peer(log)) as Box<dyn Engine>)
}

fn start(schedule: FsyncSchedule) -> Result<Walrus, Failure> {
    Walrus::with_consistency_and_schedule(READS, schedule).map_err(|error| Kind::Walrus.io_failure(&error))
}

fn topic(thread: usize) -> String {
    format!("t{thread}")
}

impl Engine for Peer {
    fn producer(&self, thread: usize) -> Result<Box<dyn Producer + '_>, Failure> {
        Ok(Box::new(PeerProducer { log: &self.0, topic: topic(thread) }))
    }

    fn about(&self) -> String {
        "0.2.0: SyncEach (O_SYNC, and fsync after it), a topic for each thread, nothing is let go".to_owned()
    }

    fn close(self: Box<Self>) -> Result<(), Failure> {
        Ok(())
    }
}

struct PeerProducer<'a> {
    log: &'a Walrus,
    topic: String,
}

impl Producer for PeerProducer<'_> {
    fn submit(&mut self, payload: &[u8]) -> Result<(), Failure> {
        self.log.append_for_topic(&self.topic, payload).map_err(|error| Kind::Walrus.io_failure(&error))
    }

    fn reap(&mut self) -> Result<usize, Failure> {
        Ok(1)
    }
}

pub fn count(threads: usize) -> Result<Counted, Failure> {
    let log = start(FsyncSchedule::NoFsync)?;
    let mut present = 0;
    for thread in 0..threads {
        loop {
            let read = log.batch_read_for_topic(&topic(thread), READ_BYTES, true);
            let read = read.map_err(|error| Kind::Walrus.io_failure(&error))?.len() as u64;
            if read == 0 {
                break;
            }
            present += read;
        }
    }
    Ok(Counted { appended: present, present })
}
