//! The disk alone: how fast it flushes, how often it does, and what lies on it.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{major, minor, statfs, statvfs, syncfs};
use trilith::cli::{Exit, Failure};

const BLOCK_BYTES: usize = 4096;
const MEASURED_BLOCKS: usize = 64;
const MEASURED_TIME: Duration = Duration::from_millis(150);

/// `pwrite` of one block and `fdatasync`, on blocks that were written before: the median, in microseconds.
pub fn flush_time(directory: &Path) -> Result<f64, Failure> {
    let measured = measure(&directory.join("flush-time"));
    measured.map(|time| time.as_nanos() as f64 / 1000.0).map_err(|error| failure(directory, &error))
}

fn measure(path: &Path) -> io::Result<Duration> {
    let file = File::options().read(true).write(true).create_new(true).open(path)?;
    let block = [0x5a; BLOCK_BYTES];
    let offset = |at: usize| (at % MEASURED_BLOCKS * BLOCK_BYTES) as u64;
    (0..MEASURED_BLOCKS).try_for_each(|at| file.write_all_at(&block, offset(at)))?;
    file.sync_all()?;
    let (begin, mut times) = (Instant::now(), Vec::new());
    while times.is_empty() || begin.elapsed() < MEASURED_TIME {
        let start = Instant::now();
        file.write_all_at(&block, offset(times.len()))?;
        file.sync_data()?;
        times.push(start.elapsed());
    }
    fs::remove_file(path)?;
    times.sort_unstable();
    Ok(times[times.len() / 2])
}

/// Writes back all that is dirty on the file system, so that no engine pays for what came before its load.
pub fn settle(directory: &Path) -> Result<(), Failure> {
    let settled = File::open(directory).and_then(|directory| Ok(syncfs(directory)?));
    settled.map_err(|error| failure(directory, &error))
}

/// The device's own count of the flushes it was sent, by whichever process.
#[derive(Debug)]
pub struct Flushes {
    statistics: PathBuf,
}

/// In `/sys/dev/block/*/stat`, counted from 0.
const FLUSHES_FIELD: usize = 15;

impl Flushes {
    /// None if the device cannot be found, or has no volatile cache, or writes through it on demand (FUA): then a write
    /// can be durable without a flush that is counted.
    pub fn of(directory: &Path) -> Option<Flushes> {
        let device = fs::metadata(directory).ok()?.dev();
        let mut place = fs::canonicalize(format!("/sys/dev/block/{}:{}", major(device), minor(device))).ok()?;
        if place.join("partition").exists() {
            place.pop();
        }
        let setting = |name: &str| fs::read_to_string(place.join("queue").join(name)).ok();
        let is_counted = setting("write_cache")?.trim() == "write back" && setting("fua")?.trim() == "0";
        let flushes = Flushes { statistics: place.join("stat") };
        (is_counted && flushes.count().is_some()).then_some(flushes)
    }

    pub fn count(&self) -> Option<u64> {
        let statistics = fs::read_to_string(&self.statistics).ok()?;
        statistics.split_whitespace().nth(FLUSHES_FIELD)?.parse().ok()
    }
}

pub fn file_system(directory: &Path) -> String {
    // The kernel's numbers are 32 bits wide; the type of the field differs between machines.
    match statfs(directory).map(|found| (found.f_type as u64) & 0xffff_ffff) {
        Ok(0xef53) => "ext4".to_owned(),
        Ok(0x5846_5342) => "xfs".to_owned(),
        Ok(0x9123_683e) => "btrfs".to_owned(),
        Ok(0x2fc1_2fc1) => "zfs".to_owned(),
        Ok(0x0102_1994) => "tmpfs (in memory: nothing is flushed)".to_owned(),
        Ok(0x794c_7630) => "overlayfs".to_owned(),
        Ok(other) => format!("file system {other:#x}"),
        Err(error) => format!("unknown ({error})"),
    }
}

pub fn check_room(directory: &Path, bytes: u64) -> Result<(), Failure> {
    let found = statvfs(directory).map_err(|error| failure(directory, &error.into()))?;
    let free = found.f_bavail.saturating_mul(found.f_frsize);
    if free < bytes {
        return Err(no_space(&format!("{}: {free} bytes are free, {bytes} are needed", directory.display())));
    }
    Ok(())
}

pub fn no_space(message: &str) -> Failure {
    Failure::new(Exit::NoSpace, message, "free some space, or name a directory elsewhere: --dir DIR")
}

fn failure(directory: &Path, error: &io::Error) -> Failure {
    let message = format!("{}: {error}", directory.display());
    match error.kind() {
        io::ErrorKind::StorageFull => no_space(&message),
        _ => Failure::new(Exit::DiskFailed, message, "see the kernel's log, or name a directory elsewhere: --dir DIR"),
    }
}
