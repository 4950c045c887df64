//! okaywal: one entry of one chunk per append, committed. Its segments are filled with zeros when they are made, and
//! used again once they were checkpointed, which is free here: nobody needs what is in them.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use okaywal::{Configuration, Entry, EntryId, LogManager, LogVoid, ReadChunkResult, SegmentReader, WriteAheadLog};
use trilith::cli::Failure;

use super::{Counted, Engine, Kind, Producer};

const SEGMENT_BYTES: u32 = 64 << 20;
/// What is left beyond it fits what all threads append at once.
const CHECKPOINT_BYTES: u64 = 60 << 20;

struct Peer(WriteAheadLog);

fn configuration(directory: &Path) -> Configuration {
    Configuration::default_for(directory).preallocate_bytes(SEGMENT_BYTES).checkpoint_after_bytes(CHECKPOINT_BYTES)
}

pub fn open(directory: &Path) -> Result<Box<dyn Engine>, Failure> {
    let log = configuration(directory).open(LogVoid).map_err(|error| Kind::Okaywal.io_failure(&error))?;
    Ok(Box::new(Peer(log)))
}

impl Engine for Peer {
    fn producer(&self, _thread: usize) -> Result<Box<dyn Producer + '_>, Failure> {
        Ok(Box::new(PeerProducer(&self.0)))
    }

    fn about(&self) -> String {
        "0.3.1: fdatasync before each commit returns, 64 MiB segments filled when made and used again".to_owned()
    }

    fn close(self: Box<Self>) -> Result<(), Failure> {
        self.0.shutdown().map_err(|error| Kind::Okaywal.io_failure(&error))
    }
}

struct PeerProducer<'a>(&'a WriteAheadLog);

impl Producer for PeerProducer<'_> {
    fn submit(&mut self, payload: &[u8]) -> Result<(), Failure> {
        let append = || {
            let mut entry = self.0.begin_entry()?;
            entry.write_chunk(payload)?;
            entry.commit()
        };
        append().map(drop).map_err(|error| Kind::Okaywal.io_failure(&error))
    }

    fn reap(&mut self) -> Result<usize, Failure> {
        Ok(1)
    }
}

/// Entries are numbered from 1 in the order of their beginning.
#[derive(Clone, Debug, Default)]
struct Recovered(Arc<Mutex<Numbers>>);

#[derive(Debug, Default)]
struct Numbers {
    last: u64,
    present: u64,
    /// The first number that does not go on from the one before it.
    gap: Option<u64>,
}

impl LogManager for Recovered {
    fn recover(&mut self, entry: &mut Entry<'_>) -> io::Result<()> {
        let id = entry.id().0;
        while let ReadChunkResult::Chunk(mut chunk) = entry.read_chunk()? {
            chunk.read_all()?;
            if !chunk.check_crc()? {
                return Err(io::Error::new(io::ErrorKind::InvalidData, format!("entry {id}: the checksum is wrong")));
            }
        }
        let mut numbers = self.0.lock().expect("no thread panics while it holds the numbers");
        if numbers.present > 0 && id != numbers.last + 1 {
            numbers.gap.get_or_insert(id);
        }
        numbers.last = id;
        numbers.present += 1;
        Ok(())
    }

    fn checkpoint_to(&mut self, _last: EntryId, _entries: &mut SegmentReader, _log: &WriteAheadLog) -> io::Result<()> {
        Ok(())
    }
}

pub fn count(directory: &Path) -> Result<Counted, Failure> {
    let recovered = Recovered::default();
    let opened = configuration(directory).open(recovered.clone());
    let log = opened.map_err(|error| Kind::Okaywal.io_failure(&error))?;
    log.shutdown().map_err(|error| Kind::Okaywal.io_failure(&error))?;
    let numbers = recovered.0.lock().expect("no thread panics while it holds the numbers");
    match numbers.gap {
        Some(gap) => Err(Kind::Okaywal.damage(format!("what is before entry {gap} is missing"))),
        None => Ok(Counted { appended: numbers.last, present: numbers.present }),
    }
}
