//! What the machine says of itself. What cannot be read is `None`, and judged as such.

use std::fs;
use std::path::Path;
use std::thread;

use rustix::fs::{CWD, Mode, OFlags, StatFs};
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

use crate::cli::exit::{Exit, Failure};
use crate::disk::{self, Directory, FlushTimes, IoChoice, Probed};

/// Everything that is judged.
#[derive(Clone, Debug)]
pub struct Readings {
    pub kernel_release: String,
    /// Processors that this process may use.
    pub cores: Option<usize>,
    pub memory_bytes: Option<u64>,
    /// The control group's, where there is one.
    pub memory_limit_bytes: Option<u64>,
    /// `kernel.io_uring_disabled`; kernels before 6.6 do not have it.
    pub io_uring_disabled: Option<u64>,
    /// `None` is unlimited.
    pub locked_memory_bytes: Option<u64>,
    /// `None` is unlimited.
    pub open_files: Option<u64>,
    pub clock_source: Option<String>,
    /// The magic number of statfs(2).
    pub file_system: u64,
    pub free_bytes: u64,
    /// Whether a file of the directory can be opened with O_DIRECT; `None`: could not be tried.
    pub direct: Option<bool>,
    /// What a log here would use, and why.
    pub back_end: Result<Probed, String>,
    /// How long the disk takes to make one block durable, or why that could not be measured.
    pub flush: Result<FlushTimes, String>,
}

impl Readings {
    pub fn take(directory: &Path) -> Result<Readings, Failure> {
        let shown = directory.display();
        let file_system = rustix::fs::statfs(directory).map_err(|error| {
            Failure::new(Exit::Usage, format!("{shown}: {error}"), "name a directory that exists: --directory DIR")
        })?;
        Ok(Readings {
            kernel_release: rustix::system::uname().release().to_string_lossy().into_owned(),
            cores: thread::available_parallelism().ok().map(usize::from),
            memory_bytes: memory_bytes(),
            memory_limit_bytes: number("/sys/fs/cgroup/memory.max"),
            io_uring_disabled: number("/proc/sys/kernel/io_uring_disabled"),
            locked_memory_bytes: getrlimit(Resource::Memlock).current,
            open_files: getrlimit(Resource::Nofile).current,
            clock_source: line("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
            file_system: file_system_of(&file_system),
            free_bytes: file_system.f_bavail.saturating_mul(file_system.f_bsize as u64),
            direct: direct(directory)?,
            back_end: back_end(directory),
            flush: flush(directory),
        })
    }
}

/// The kernel's number of the file system.
pub fn file_system(directory: &Path) -> Result<u64, Errno> {
    Ok(file_system_of(&rustix::fs::statfs(directory)?))
}

/// The kernel's numbers are 32 bits wide; the type of the field differs between machines.
fn file_system_of(said: &StatFs) -> u64 {
    (said.f_type as u64) & 0xffff_ffff
}

fn back_end(directory: &Path) -> Result<Probed, String> {
    let directory = Directory::open(directory).map_err(|error| error.to_string())?;
    disk::probe(&directory, IoChoice::Auto).map_err(|error| error.to_string())
}

fn flush(directory: &Path) -> Result<FlushTimes, String> {
    let directory = Directory::open(directory).map_err(|error| error.to_string())?;
    disk::measure_flush(&directory).map_err(|error| error.to_string())
}

fn line(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_string())
}

fn number(path: &str) -> Option<u64> {
    line(path)?.parse().ok()
}

fn memory_bytes() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: u64 = total.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

/// Opens a file without a name, so that nothing is left behind.
fn direct(directory: &Path) -> Result<Option<bool>, Failure> {
    let open =
        |flags| rustix::fs::openat(CWD, directory, OFlags::RDWR | OFlags::TMPFILE | flags, Mode::RUSR | Mode::WUSR);
    match open(OFlags::empty()) {
        Ok(_) => Ok(Some(open(OFlags::DIRECT).is_ok())),
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::NOENT) => Ok(None),
        Err(error) => Err(Failure::new(
            Exit::Usage,
            format!("{}: no file can be made there: {error}", directory.display()),
            "name a directory that this user may write to: --directory DIR",
        )),
    }
}
