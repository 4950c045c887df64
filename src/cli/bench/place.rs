//! The directory of one run.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::cli::exit::{Exit, Failure};
use crate::disk;

/// A directory that is made for a run, and gone when this is dropped.
pub struct Place {
    pub path: PathBuf,
}

impl Place {
    pub fn make(below: &Path) -> Result<Place, Failure> {
        let path = below.join(format!("trilith-bench-{}", std::process::id()));
        std::fs::create_dir(&path).map_err(|error| {
            let next = match error.kind() {
                ErrorKind::AlreadyExists => "a run that was killed left it behind: remove it, and run this again",
                ErrorKind::NotFound => "make the directory first, or name one that exists: --directory DIR",
                ErrorKind::NotADirectory => "name a directory, not a file: --directory DIR",
                _ => "name a directory that this user may write to: --directory DIR",
            };
            Failure::new(Exit::Usage, format!("{}: no directory can be made: {error}", path.display()), next)
        })?;
        Ok(Place { path })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.path) {
            eprintln!("warning: {} stays behind: {error}", self.path.display());
        }
    }
}

pub fn disk_failure(error: &disk::Error) -> Failure {
    match error.is_no_space() {
        true => Failure::new(Exit::NoSpace, error.to_string(), "free some space, or name another --directory"),
        false => Failure::new(Exit::DiskFailed, error.to_string(), "see the kernel's log"),
    }
}
