//! Which back end to use, and why.

use std::fmt;
use std::io;

use rustix::io::Errno;

use super::choice::{Backend, IoChoice};
use super::directory::Directory;
use super::error::Error;
use super::uring::Runtime;

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
    // Of one that does not say what it is nothing good is known.
    let is_fuse = matches!(set_up, Some(Ok(()))) && directory.is_fuse().unwrap_or(true);
    decide(FileSystem { direct: directory.direct(), is_fuse }, choice, set_up)
}

/// What the file system is, as far as it matters here.
#[derive(Clone, Copy)]
pub(super) struct FileSystem {
    pub direct: bool,
    /// A process behind the kernel carries it out. It may write less than it was asked to; the kernel then comes back for
    /// io_uring with the rest, puts it where the write began, and says that all is written (seen on Linux 6.18).
    pub is_fuse: bool,
}

/// The decision apart from the trial: `set_up` is what came of setting up a ring, if that was tried.
pub(super) fn decide(
    FileSystem { direct, is_fuse }: FileSystem,
    choice: IoChoice,
    set_up: Option<Result<(), Error>>,
) -> Result<Probed, ProbeError> {
    let obstacle = match set_up {
        None => return Ok(Probed { backend: Backend::Blocking, reason: "as configured".to_owned(), direct }),
        Some(Err(error)) => Some(refusal(&error.source).ok_or(error)?),
        Some(Ok(())) if !direct => {
            Some(("the file system has no O_DIRECT".to_owned(), "put the directory on ext4, xfs or btrfs"))
        }
        // Whoever insists may know that this one never writes less.
        Some(Ok(())) if is_fuse && choice == IoChoice::Auto => {
            Some(("on FUSE the kernel misplaces the rest of a short write through io_uring".to_owned(), "use blocking"))
        }
        Some(Ok(())) => None,
    };
    match obstacle {
        None => {
            let reason = match is_fuse {
                true => "as insisted on; this is FUSE, where a short write through io_uring destroys what was written",
                false => "io_uring and O_DIRECT work",
            };
            Ok(Probed { backend: Backend::Uring, reason: reason.to_owned(), direct })
        }
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
