//! Trilith's log, through its public handle: one group, one record per append.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Mutex;

use bytes::Bytes;
use trilith::cli::{Exit, Failure};
use trilith::types::{GroupId, Index, LogId};
use trilith::wal::Wal;
use trilith::wal::handle::{Error, Options, Pending, Recovery};

use super::{Counted, Engine, Kind, Producer, Settings};

const GROUP: GroupId = GroupId(0);
const READ_BYTES: usize = 8 << 20;

struct Own {
    wal: Wal,
    opened: Recovery,
    /// The last record at the beat before, which nobody needs any more.
    released: Mutex<LogId>,
}

fn options(directory: &Path, settings: &Settings) -> Options {
    let writes_in_flight = settings.depth.map(usize::from);
    Options { io: settings.io, writes_in_flight, ..Options::new(directory.join("wal")) }
}

fn failure(error: &Error) -> Failure {
    match error {
        Error::Io(error) => Failure::new(Exit::IoUringRefused, error.to_string(), "take --io auto"),
        Error::Disk(disk) | Error::Log(trilith::wal::Error::Disk(disk)) if disk.is_no_space() => {
            crate::disk::no_space(&format!("trilith: {disk}"))
        }
        Error::Log(error @ trilith::wal::Error::Damaged { .. }) => Kind::Trilith.damage(error),
        error => Kind::Trilith.failure(error),
    }
}

pub fn open(directory: &Path, settings: &Settings) -> Result<Box<dyn Engine>, Failure> {
    let (wal, opened) = Wal::open(options(directory, settings)).map_err(|error| failure(&error))?;
    Ok(Box::new(Own { wal, opened, released: Mutex::new(LogId::ZERO) }))
}

impl Engine for Own {
    fn producer(&self, _thread: usize) -> Result<Box<dyn Producer + '_>, Failure> {
        Ok(Box::new(OwnProducer { wal: &self.wal, waiting: VecDeque::new() }))
    }

    fn release(&self) -> Result<(), Failure> {
        let last = self.wal.group(GROUP).map_or(LogId::ZERO, |group| group.last);
        let mut released = self.released.lock().expect("no thread panics while it holds it");
        if *released > LogId::ZERO {
            let purged = self.wal.purge_prefix(GROUP, *released);
            drop(purged.map_err(|error| Kind::Trilith.failure(error))?);
        }
        *released = last;
        Ok(())
    }

    fn about(&self) -> String {
        let Recovery { io, sync_mode, writes_in_flight, .. } = &self.opened;
        format!("{io}, {sync_mode}, {writes_in_flight} in flight, one group")
    }

    fn close(self: Box<Self>) -> Result<(), Failure> {
        self.wal.close().map_err(|error| failure(&error))
    }
}

struct OwnProducer<'a> {
    wal: &'a Wal,
    waiting: VecDeque<Pending>,
}

impl Producer for OwnProducer<'_> {
    fn submit(&mut self, payload: &[u8]) -> Result<(), Failure> {
        // Each record has memory of its own, as it would have where it comes from.
        let record = Bytes::copy_from_slice(payload);
        let pending = self.wal.append_records(GROUP, [record]).map_err(|error| Kind::Trilith.failure(error))?;
        self.waiting.push_back(pending);
        Ok(())
    }

    fn reap(&mut self) -> Result<usize, Failure> {
        let oldest = self.waiting.pop_front().expect("something was submitted");
        oldest.wait().map_err(|error| Kind::Trilith.failure(error))?;
        let mut reaped = 1;
        while self.waiting.pop_front_if(|pending| pending.is_durable()).is_some() {
            reaped += 1;
        }
        Ok(reaped)
    }

    fn append(&mut self, payload: &[u8]) -> Result<(), Failure> {
        let record = Bytes::copy_from_slice(payload);
        let said = self.wal.append_records_durably(GROUP, [record]);
        said.map(drop).map_err(|error| Kind::Trilith.failure(error))
    }
}

pub fn count(directory: &Path, settings: &Settings) -> Result<Counted, Failure> {
    let options = Options { create: false, ..options(directory, settings) };
    let (wal, _) = Wal::open(options).map_err(|error| failure(&error))?;
    let Some(group) = wal.group(GROUP) else { return Ok(Counted { appended: 0, present: 0 }) };
    let (end, mut next, mut present) = (group.last.index.next(), group.first(), 0);
    while next < end {
        let entries = wal.read(GROUP, next..end, READ_BYTES).map_err(|error| failure(&error))?;
        let Some(last) = entries.last().map(|entry| entry.id.index) else {
            return Err(Kind::Trilith.damage(format!("record {} is missing", next.0)));
        };
        present += entries.len() as u64;
        next = last.next();
    }
    wal.close().map_err(|error| failure(&error))?;
    Ok(Counted { appended: end.0 - Index::FIRST.0, present })
}
