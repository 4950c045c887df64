//! The directory that a command writes a snapshot into, which no other one may write into meanwhile.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::reading;
use crate::cli::exit::{Exit, Failure};
use crate::disk::{self, Directory};

/// Locked until it is dropped: of two that write into one directory each would take away what the other writes.
#[derive(Debug)]
pub struct Locked {
    pub files: Directory,
    path: PathBuf,
    /// It was not there before.
    is_made: bool,
    _lock: File,
}

impl Locked {
    /// Made, if it is not there; its name is durable. Refused at once if another one has it.
    pub fn take(path: &Path) -> Result<Locked, Failure> {
        let (files, is_made) = match Directory::create(path) {
            Ok(files) => (Ok(files), true),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => (Directory::open(path), false),
            Err(error) => (Err(error), false),
        };
        let files = files.map_err(|error| reading::disk_failure(&error))?;
        let cannot = |what: &str, error: &dyn std::fmt::Display| {
            let message = format!("{} cannot be {what}: {error}", path.display());
            Failure::new(Exit::DiskFailed, message, "name a directory on a local disk")
        };
        let lock = File::open(path).map_err(|error| cannot("locked", &error))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => return Err(in_use(path)),
            Err(std::fs::TryLockError::Error(error)) => return Err(cannot("locked", &error)),
        }
        // Whoever had made it may have taken it away again between the opening and the lock.
        match (lock.metadata(), std::fs::metadata(path)) {
            (Ok(ours), Ok(there)) if (ours.dev(), ours.ino()) == (there.dev(), there.ino()) => {}
            _ => return Err(in_use(path)),
        }
        if !is_made {
            sync_parent(path, &lock).map_err(|error| cannot("flushed", &error))?;
        }
        Ok(Locked { files, path: path.to_owned(), is_made, _lock: lock })
    }

    /// Nothing is to be written: a directory that was made for it, and holds nothing, goes.
    pub fn give_up(self) {
        if !self.is_made {
            return;
        }
        match std::fs::remove_dir(&self.path) {
            Err(error) if error.kind() != std::io::ErrorKind::DirectoryNotEmpty => {
                tracing::warn!(directory = %self.path.display(), "it stays there, and is empty: {error}");
            }
            Ok(()) | Err(_) => {}
        }
    }
}

fn in_use(path: &Path) -> Failure {
    Failure::new(
        Exit::InUse,
        format!("{}: another command writes into it", path.display()),
        "wait for that one, or name another directory",
    )
}

/// Somebody made it just now, maybe, and did not flush its name: all that is in it would be gone with a cut of power.
fn sync_parent(path: &Path, directory: &File) -> Result<(), disk::Error> {
    let shown = path.join("..").display().to_string();
    let synced = match File::open(path.join("..")) {
        Ok(parent) => parent.sync_all(),
        // A directory that we may pass and not read: with its whole file system, then.
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            rustix::fs::syncfs(directory.as_fd()).map_err(std::io::Error::from)
        }
        Err(error) => Err(error),
    };
    synced.map_err(|error| disk::Error::new(disk::Operation::SyncDirectory, shown, error))
}
