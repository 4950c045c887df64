//! The directory of a life that is over, kept beside that of the next (design §6, No voice).
//!
//! ```text
//!   data_directory/  superblock  log/  no-voice        ──▶   data_directory/  superblock  log/        (the next life's)
//!                                                              before-1/  superblock  log/  no-voice  (read-only)
//! ```
//!
//! Only where that life must not go on: it is marked so, or its superblock cannot be used. The mark is moved last, and made
//! first where there is none, so that whatever is interrupted is either marked or moved whole; run again, it goes on.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::configuration::NodeConfiguration;
use super::{Exit, Failure, failures};
use crate::disk::{self, Directory, Files};
use crate::net::Identity;
use crate::superblock::{self, NO_VOICE_NAME, REMOVED_NAME};
use crate::wal::handle::{LOCK_NAME, LOG_DIRECTORY, has_entries};
use crate::wal::repair::SET_ASIDE_DIRECTORY;

/// What a former life's directory is called, with a number from 1 on.
const KEPT: &str = "before-";
const READ_ONLY: u32 = 0o400;

const WHY: &str =
    "the superblock cannot be used: what this node has promised is not known any more, and it must not vote\n";
const WHY_REMOVED: &str = "this life of the node was removed from its cluster: it must not vote\n";

/// Moves what a life that is over has left aside, and gives where to; `None` if there is nothing of the kind.
pub fn keep(configuration: &NodeConfiguration) -> Result<Option<PathBuf>, Failure> {
    let path = &configuration.data_directory;
    // Whatever is wrong with it is found again, and said, where the new directory is made.
    let Ok(files) = Directory::open(path) else { return Ok(None) };
    if !is_over(&files, configuration)? {
        return Ok(None);
    }
    // Nobody runs on it, and nobody starts.
    let of_disk = |error: disk::Error| failures::of_disk(&error, format!("{}: {error}", path.display()));
    let lock = match files.open(superblock::FILE_NAME) {
        Ok(file) => Some(file),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(of_disk(error)),
    };
    let is_removed = files.list("").map_err(of_disk)?.iter().any(|name| name == REMOVED_NAME);
    let why = if is_removed { WHY_REMOVED } else { WHY };
    superblock::mark_no_voice(&files, why).map_err(|error| failures::of_superblock(&error, path, error.to_string()))?;
    let kept = place(&files).map_err(of_disk)?;
    files.create_directory(&kept).map_err(of_disk)?;
    let moved = move_into(&files, path, &kept);
    lock.into_iter().for_each(|file| files.close(file));
    moved?;
    Ok(Some(path.join(kept)))
}

/// Whether the node whose directory this is must not be started any more.
fn is_over(files: &Directory, configuration: &NodeConfiguration) -> Result<bool, Failure> {
    let path = &configuration.data_directory;
    let names = files.list("").unwrap_or_default();
    // A log by itself is nobody's to move.
    if names.iter().any(|name| name == LOCK_NAME) {
        return Ok(false);
    }
    let is_marked = names.iter().any(|name| name == NO_VOICE_NAME || name == REMOVED_NAME);
    match superblock::inspect(files) {
        Ok(found) if is_marked => {
            let tls = &configuration.tls;
            let identity = Identity::load(&tls.certificate, &tls.key, &tls.ca, tls.crl.as_deref())
                .map_err(|error| failures::of_certificate(&error))?;
            let checked = found.state.check(Some(identity.name().cluster), configuration.node_id);
            checked.map_err(|error| failures::of_superblock(&error, path, format!("{}: {error}", path.display())))?;
            Ok(true)
        }
        // What cannot be read now may be whole tomorrow.
        Err(error @ superblock::Error::Damaged { read_error: Some(_), .. }) => {
            Err(failures::of_superblock(&error, path, format!("{}: {error}", path.display())))
        }
        Err(superblock::Error::Damaged { .. }) => Ok(true),
        Err(superblock::Error::NotFormatted) => Ok(is_marked || has_entries(files)),
        Ok(_) | Err(_) => Ok(false),
    }
}

/// The last one if it was begun and not finished, or the next.
fn place(files: &Directory) -> Result<String, disk::Error> {
    let names = files.list("")?;
    let last = names.iter().filter_map(|name| name.strip_prefix(KEPT)?.parse::<u64>().ok()).max().unwrap_or(0);
    let is_begun = last > 0 && !files.list(&format!("{KEPT}{last}"))?.iter().any(|name| name == NO_VOICE_NAME);
    Ok(format!("{KEPT}{}", if is_begun { last } else { last + 1 }))
}

fn move_into(files: &Directory, path: &Path, kept: &str) -> Result<(), Failure> {
    let of_disk = |error: disk::Error| failures::of_disk(&error, format!("{}: {error}", path.display()));
    let sync = || files.sync_directory(kept).and_then(|()| files.sync_directory("")).map_err(of_disk);
    let names = files.list("").map_err(of_disk)?;
    for name in names.iter().filter(|name| is_of_a_life(name)) {
        move_one(path, kept, name)?;
    }
    sync()?;
    move_one(path, kept, NO_VOICE_NAME)?;
    sync()
}

/// All that a node makes in its directory but the mark, which is moved last. What else lies there is somebody else's: a key,
/// a configuration, the `lost+found` of a file system.
fn is_of_a_life(name: &str) -> bool {
    const NAMES: [&str; 5] =
        [superblock::FILE_NAME, "superblock.new", LOG_DIRECTORY, REMOVED_NAME, SET_ASIDE_DIRECTORY];
    NAMES.contains(&name) || name.starts_with("cut-") || name.starts_with("snapshot-")
}

fn move_one(path: &Path, kept: &str, name: &str) -> Result<(), Failure> {
    let (from, to) = (path.join(name), path.join(kept).join(name));
    protect(&from).and_then(|()| fs::rename(&from, &to)).map_err(|error| {
        let message = format!("{} cannot be moved to {}: {error}", from.display(), to.display());
        Failure::new(Exit::Other, message, "nothing is lost: make room or rights for it, and run the command again")
    })
}

/// Nobody is to write to these files any more.
fn protect(path: &Path) -> std::io::Result<()> {
    // Not through links: what they lead to is somebody else's.
    let found = fs::symlink_metadata(path)?;
    if found.is_symlink() {
        return Ok(());
    }
    if !found.is_dir() {
        return fs::set_permissions(path, Permissions::from_mode(READ_ONLY));
    }
    for entry in fs::read_dir(path)? {
        protect(&entry?.path())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
