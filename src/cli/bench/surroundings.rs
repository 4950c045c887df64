//! What every figure depends on, whatever is measured.

use std::fs;
use std::path::Path;

use serde::Serialize;

use crate::cli::doctor;
use crate::cli::output::counted;
use crate::disk::{Directory, Error, measure_flush};
use crate::wal::handle::Recovery;

pub const BUILD: &str = if cfg!(debug_assertions) { "debug" } else { "release" };

/// The version, and that it is a debug build if it is one.
pub fn version_words() -> String {
    let version = env!("CARGO_PKG_VERSION");
    if cfg!(debug_assertions) { format!("{version}, debug build") } else { version.to_owned() }
}

/// The machine, and what lies under a directory.
#[derive(Debug, Serialize)]
pub struct Surroundings {
    version: &'static str,
    /// `release` or `debug`: figures of a debug build say nothing about the log.
    build: &'static str,
    kernel: String,
    cores: usize,
    file_system: String,
    /// The block device by name, and what the kernel knows of its cache; `unknown` where there is none.
    device: String,
}

impl Surroundings {
    pub fn of(directory: &Path) -> Surroundings {
        Surroundings {
            version: env!("CARGO_PKG_VERSION"),
            build: BUILD,
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            file_system: doctor::file_system(directory),
            device: device(directory).unwrap_or_else(|| "unknown".to_owned()),
        }
    }

    pub fn line(&self) -> String {
        let Surroundings { kernel, cores, file_system, device, .. } = self;
        let cores = counted(*cores as u64, "core");
        format!("{}, Linux {kernel}, {cores}, {file_system} on {device}", version_words())
    }
}

/// How a log does its I/O, as a report has it.
#[derive(Debug, Serialize)]
pub struct Io {
    io: String,
    io_reason: String,
    direct: bool,
    sync_mode: String,
    writes_in_flight: usize,
}

impl Io {
    pub fn of(opened: &Recovery) -> Io {
        Io {
            io: opened.io.backend.to_string(),
            io_reason: opened.io.reason.clone(),
            direct: opened.io.direct,
            sync_mode: opened.sync_mode.to_string(),
            writes_in_flight: opened.writes_in_flight,
        }
    }

    pub fn line(&self) -> String {
        let Io { io, io_reason, direct, sync_mode, writes_in_flight } = self;
        let cache = if *direct { "O_DIRECT" } else { "page cache" };
        let writes = counted(*writes_in_flight as u64, "write");
        format!("{io}, {cache} ({io_reason}), {sync_mode}, {writes} in flight")
    }
}

/// The disk's own time for one block.
pub fn flush_words(fdatasync_microseconds: f64, dsync_microseconds: f64) -> String {
    format!("one written block: pwrite + fdatasync {fdatasync_microseconds:.1} us, O_DSYNC {dsync_microseconds:.1} us")
}

/// What stands above the figures of a benchmark of the log: the machine, the disk's own flush time, measured now, and how
/// the log does its I/O.
///
/// # Errors
/// What the disk says.
pub fn header(directory: &Path, opened: &Recovery) -> Result<String, Error> {
    let flush = measure_flush(&Directory::open(directory)?)?;
    let microseconds = |time: std::time::Duration| time.as_nanos() as f64 / 1000.0;
    Ok(format!(
        "trilith {}\ndisk alone: {}\nio: {}",
        Surroundings::of(directory).line(),
        flush_words(microseconds(flush.fdatasync), microseconds(flush.dsync)),
        Io::of(opened).line()
    ))
}

/// File systems of several devices have a number that leads to none.
fn device(directory: &Path) -> Option<String> {
    let number = rustix::fs::stat(directory).ok()?.st_dev;
    let (major, minor) = (rustix::fs::major(number), rustix::fs::minor(number));
    let path = fs::canonicalize(format!("/sys/dev/block/{major}:{minor}")).ok()?;
    let name = path.file_name()?.to_string_lossy().into_owned();
    // A partition has the queue of its disk.
    let queue = [path.join("queue"), path.join("../queue")].into_iter().find(|queue| queue.is_dir())?;
    let said = |file: &str| fs::read_to_string(queue.join(file)).ok().map(|text| text.trim().to_owned());
    let cache = said("write_cache").unwrap_or_else(|| "unknown cache".to_owned());
    let fua = match said("fua").as_deref() {
        Some("1") => "FUA",
        _ => "no FUA",
    };
    Some(format!("{name} ({cache}, {fua})"))
}
