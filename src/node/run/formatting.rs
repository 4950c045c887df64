//! A node's directory, before it is started for the first time.

use std::path::Path;

use super::{RunError, wall_clock_milliseconds};
use crate::disk::{self, Chosen, Directory, IoChoice};
use crate::node::driver::{self, StartError};
use crate::random::entropy;
use crate::superblock;

/// Makes a node's directory: measures the disk, formats log and superblock.
pub fn format(path: &Path, mut state: superblock::State, segment_bytes: u64, io: IoChoice) -> Result<Chosen, RunError> {
    let directory = match Directory::open(path) {
        // A mount point, or what a first try left behind: its superblock says whether it is a node's already.
        Ok(directory) => directory,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Directory::create(path)?,
        Err(error) => return Err(error.into()),
    };
    if !matches!(superblock::inspect(&directory), Err(superblock::Error::NotFormatted)) {
        return Err(StartError::from(superblock::Error::AlreadyFormatted).into());
    }
    let chosen = disk::choose(&directory, disk::probe(&directory, io)?.backend)?;
    state.remember(&chosen);
    driver::format(&directory, &state, segment_bytes, entropy(), wall_clock_milliseconds())?;
    Ok(chosen)
}
