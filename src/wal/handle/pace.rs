//! Reads at a given rate: a bucket that says how long to wait, and files that wait before each read.

use std::io;
use std::time::Duration;

use crate::disk::{Error, FileId, Files, Operation};

/// So much may be made up for after a pause.
const BURST: Duration = Duration::from_millis(100);
const NANOSECONDS_PER_SECOND: u128 = 1_000_000_000;

/// Spreads bytes over time. The time is a reading of any clock that does not go back.
#[derive(Debug)]
pub(super) struct Bucket {
    bytes_per_second: u64,
    /// When all that was taken will have had its time.
    paid_until: Duration,
}

impl Bucket {
    pub fn new(bytes_per_second: u64, now: Duration) -> Bucket {
        assert!(bytes_per_second > 0, "nothing would ever be read");
        Bucket { bytes_per_second, paid_until: now }
    }

    /// Takes `bytes`; gives the time to wait before they are read.
    pub fn take(&mut self, bytes: u64, now: Duration) -> Duration {
        let nanoseconds = u128::from(bytes) * NANOSECONDS_PER_SECOND / u128::from(self.bytes_per_second);
        let cost = Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX));
        let start = self.paid_until.max(now.saturating_sub(BURST));
        self.paid_until = start.saturating_add(cost);
        start.saturating_sub(now)
    }
}

/// Files that are only read, each read when `pace` has returned; it says whether to go on.
pub(super) struct Paced<'a, F> {
    pub files: &'a F,
    pub pace: &'a dyn Fn(u64) -> bool,
}

impl<F: Files> Files for Paced<'_, F> {
    type Map = F::Map;

    fn read(&self, file: FileId, offset: u64, buffer: &mut [u8]) -> Result<(), Error> {
        match (self.pace)(buffer.len() as u64) {
            true => self.files.read(file, offset, buffer),
            false => Err(Error::new(Operation::Read, "a segment", io::Error::from(io::ErrorKind::Interrupted))),
        }
    }

    fn list(&self, directory: &str) -> Result<Vec<String>, Error> {
        self.files.list(directory)
    }

    fn open_read(&self, name: &str) -> Result<FileId, Error> {
        self.files.open_read(name)
    }

    fn length(&self, file: FileId) -> Result<u64, Error> {
        self.files.length(file)
    }

    fn reads_past_cache(&self) -> bool {
        self.files.reads_past_cache()
    }

    fn free_bytes(&self) -> Result<u64, Error> {
        self.files.free_bytes()
    }

    fn close(&self, file: FileId) {
        self.files.close(file);
    }

    fn create_directory(&self, directory: &str) -> Result<(), Error> {
        Err(refused(directory))
    }

    fn create(&self, name: &str) -> Result<FileId, Error> {
        Err(refused(name))
    }

    fn open(&self, name: &str) -> Result<FileId, Error> {
        Err(refused(name))
    }

    fn write(&self, _: FileId, _: u64, _: &[u8]) -> Result<(), Error> {
        Err(refused("a segment"))
    }

    fn zero(&self, _: FileId, _: u64, _: u64) -> Result<(), Error> {
        Err(refused("a segment"))
    }

    fn allocate(&self, _: FileId, _: u64) -> Result<(), Error> {
        Err(refused("a segment"))
    }

    fn sync(&self, _: FileId) -> Result<(), Error> {
        Err(refused("a segment"))
    }

    fn rename(&self, from: &str, _: &str) -> Result<(), Error> {
        Err(refused(from))
    }

    fn remove(&self, name: &str) -> Result<(), Error> {
        Err(refused(name))
    }

    fn sync_directory(&self, directory: &str) -> Result<(), Error> {
        Err(refused(directory))
    }

    fn map(&self, _: FileId) -> Result<Self::Map, Error> {
        Err(refused("a segment"))
    }
}

/// Whoever checks a log changes nothing.
fn refused(name: &str) -> Error {
    Error::new(Operation::Write, name, io::Error::from(io::ErrorKind::ReadOnlyFilesystem))
}
