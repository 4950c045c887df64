//! Putting a chunk back that has rotted: other nodes have the same one.

use super::error::{Damage, Error};
use super::listing::{damaged, examine};
use super::manifest::Manifest;
use super::naming::{CHUNKS, Stage};
use super::reader::Reader;
use crate::disk::{FileId, Files};

/// What became of a chunk that was to be put back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mended {
    /// It was damaged, and is durably right now: it was read back.
    Done,
    /// The one that is there is right; nothing was written.
    WasRight,
    /// What came is not this chunk; nothing was written.
    Bad,
}

/// Writes a chunk of a whole snapshot over what stands there, if that is damaged and this is the right one. A cut of power
/// in the midst leaves it damaged, which it was before, and touches no other.
///
/// # Errors
/// If the snapshot is not whole or not the one of this manifest, and what the disk says; [`Error::Damaged`] if the chunk is
/// not right when it is read back: the disk does not keep it.
pub fn mend(files: &impl Files, manifest: &Manifest, number: u32, bytes: &[u8]) -> Result<Mended, Error> {
    if !manifest.is_chunk(number, bytes) {
        return Ok(Mended::Bad);
    }
    let name = manifest.description.named(Stage::Whole);
    if examine(files, name, Some(manifest.description.cluster))? != *manifest {
        return Err(damaged(name, Damage::Misplaced { found: "another state at the same point".to_owned() }));
    }
    match reads(files, manifest, number) {
        Ok(()) => return Ok(Mended::WasRight),
        Err(error) if is_rot(&error) => {}
        // It may be right: nothing is written over it.
        Err(error) => return Err(error),
    }
    let file = files.open(&name.file(CHUNKS))?;
    let written = write(files, file, manifest.place(number).0, bytes);
    files.close(file);
    written?;
    reads(files, manifest, number)?;
    Ok(Mended::Done)
}

/// The chunk is another one, or the disk says that it cannot read it.
fn is_rot(error: &Error) -> bool {
    match error {
        Error::Damaged { .. } => true,
        Error::Disk(error) => error.is_media_error(),
        _ => false,
    }
}

fn write(files: &impl Files, file: FileId, offset: u64, bytes: &[u8]) -> Result<(), Error> {
    files.write(file, offset, bytes)?;
    Ok(files.sync(file)?)
}

fn reads(files: &impl Files, manifest: &Manifest, number: u32) -> Result<(), Error> {
    let mut reader = Reader::open(files, manifest.clone())?;
    let read = reader.chunk(files, number).map(|_| ());
    reader.close(files);
    read
}
