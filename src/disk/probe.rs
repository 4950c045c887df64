//! Which back end to use, why, and how fast the disk flushes.

use std::fmt;
use std::io;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::buffer::Buffer;
use super::choice::{Backend, IoChoice, SyncMode};
use super::directory::Directory;
use super::error::{Error, Operation};
use super::queue::FileId;
use super::uring::Runtime;
use super::{Files, open_file};
use crate::limits::BLOCK_BYTES;

/// What a probe found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Probed {
    /// What to use.
    pub backend: Backend,
    /// Why, for the first log line, the status and the headers of benchmarks.
    pub reason: String,
    /// Whether files are read and written past the page cache.
    pub direct: bool,
}

impl fmt::Display for Probed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cache = if self.direct { "O_DIRECT" } else { "through the page cache" };
        write!(formatter, "{}, {cache} ({})", self.backend, self.reason)
    }
}

/// Why nothing could be chosen.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// io_uring was insisted on, and this stands in the way.
    #[error("io_uring was insisted on and cannot be used: {cause}; {remedy}, or take --io auto")]
    Refused {
        /// What the kernel said, and what that means.
        cause: String,
        /// What the operator can do.
        remedy: &'static str,
    },
    /// Something else is wrong: not a reason to use the other back end.
    #[error(transparent)]
    Disk(#[from] Error),
}

/// Chooses the back end for a directory.
///
/// # Errors
/// [`ProbeError::Refused`] if io_uring was insisted on and cannot be had, [`ProbeError::Disk`] if setting it up failed
/// for a reason that has nothing to do with io_uring.
pub fn probe(directory: &Directory, choice: IoChoice) -> Result<Probed, ProbeError> {
    let set_up = match choice {
        IoChoice::Blocking => None,
        IoChoice::Auto | IoChoice::Uring => Some(Runtime::new(Backend::Uring).map(drop)),
    };
    decide(directory.direct(), choice, set_up)
}

/// The decision apart from the trial: `set_up` is what came of setting up a ring, if that was tried.
pub(super) fn decide(direct: bool, choice: IoChoice, set_up: Option<Result<(), Error>>) -> Result<Probed, ProbeError> {
    let obstacle = match set_up {
        None => return Ok(Probed { backend: Backend::Blocking, reason: "as configured".to_owned(), direct }),
        Some(Err(error)) => Some(refusal(&error.source).ok_or(error)?),
        Some(Ok(())) if !direct => {
            Some(("the file system has no O_DIRECT".to_owned(), "put the directory on ext4, xfs or btrfs"))
        }
        Some(Ok(())) => None,
    };
    match obstacle {
        None => Ok(Probed { backend: Backend::Uring, reason: "io_uring and O_DIRECT work".to_owned(), direct }),
        Some((cause, remedy)) if choice == IoChoice::Uring => Err(ProbeError::Refused { cause, remedy }),
        Some((cause, _)) => Ok(Probed { backend: Backend::Blocking, reason: cause, direct }),
    }
}

/// What the kernel's refusal of a ring means and what helps; none if it is no refusal but a failure.
fn refusal(error: &io::Error) -> Option<(String, &'static str)> {
    let (meaning, remedy) = match Errno::from_io_error(error)? {
        Errno::PERM | Errno::ACCESS => (
            "io_uring is not permitted here",
            "set the sysctl kernel.io_uring_disabled=0 and allow io_uring_setup in the container's seccomp profile",
        ),
        Errno::NOSYS => ("this kernel has no io_uring", "use Linux 5.6 or newer with CONFIG_IO_URING"),
        Errno::INVAL => ("this kernel's io_uring lacks what is needed", "use Linux 5.6 or newer"),
        Errno::NOMEM => ("the limit of locked memory is too low", "raise it (ulimit -l, LimitMEMLOCK=)"),
        _ => return None,
    };
    Some((format!("{meaning} ({error})"), remedy))
}

/// Medians of one block's write and flush, on blocks that were written before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FlushTimes {
    /// `pwrite` and `fdatasync`.
    pub fdatasync: Duration,
    /// A write through `O_DSYNC`, past the page cache where that can be.
    pub dsync: Duration,
    /// Flushes measured of the kind that was measured least.
    pub samples: u32,
}

impl FlushTimes {
    /// The one to use. `O_DSYNC` unless the other is clearly faster: it is one request where the other is two, of which
    /// io_uring hands the second to a worker thread, and on a busy machine the two medians are noise.
    pub fn better(&self) -> SyncMode {
        let is_clearly_slower = self.dsync > self.fdatasync + self.fdatasync / 4;
        if is_clearly_slower { SyncMode::Fdatasync } else { SyncMode::Dsync }
    }
}

const MEASURED_BLOCKS: u64 = 64;
const MEASURED_TIME: Duration = Duration::from_millis(150);
const SAMPLES_MAX: usize = 1000;

/// Measures, for less than 200 ms unless a single flush takes longer, in a file that is removed again.
///
/// # Errors
/// What the disk says.
pub fn measure_flush(directory: &Directory) -> Result<FlushTimes, Error> {
    // A name of its own, since another process may measure here at the same time. One that a process of the same
    // number left behind is in the way.
    let name = format!("flush-time-{}.tmp", std::process::id());
    match directory.remove(&name) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = directory.create(&name)?;
    let measured = measure_file(directory, file);
    directory.close(file);
    directory.remove(&name)?;
    measured
}

fn measure_file(directory: &Directory, file: FileId) -> Result<FlushTimes, Error> {
    directory.zero(file, 0, MEASURED_BLOCKS * BLOCK_BYTES as u64)?;
    directory.sync(file)?;
    let mut block = Buffer::with_capacity(BLOCK_BYTES);
    block.pad_to_capacity();
    let mut samples = [Vec::new(), Vec::new()];
    let start = Instant::now();
    // Turn by turn, so that a disk that changes its pace changes both.
    while start.elapsed() < MEASURED_TIME && samples[0].len() < SAMPLES_MAX {
        for (mode, samples) in [SyncMode::Fdatasync, SyncMode::Dsync].into_iter().zip(&mut samples) {
            let offset = (samples.len() as u64 % MEASURED_BLOCKS) * BLOCK_BYTES as u64;
            samples.push(time_flush(directory, file, mode, offset, &block)?);
        }
    }
    let count = samples[0].len() as u32;
    let [fdatasync, dsync] = samples.map(|mut times| {
        times.sort_unstable();
        times[times.len() / 2]
    });
    Ok(FlushTimes { fdatasync, dsync, samples: count })
}

fn time_flush(
    directory: &Directory,
    file: FileId,
    mode: SyncMode,
    offset: u64,
    block: &[u8],
) -> Result<Duration, Error> {
    let target = directory.target(file, mode)?;
    let failed = |operation, error| directory.error_at(operation, file, error).at(offset);
    let start = Instant::now();
    open_file::write_all(&target.descriptor, offset, block, target.granule)
        .map_err(|error| failed(Operation::Write, error))?;
    if mode == SyncMode::Fdatasync {
        open_file::flush(&target.descriptor).map_err(|error| failed(Operation::Flush, error))?;
    }
    Ok(start.elapsed())
}
