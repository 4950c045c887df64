//! Putting back what has rotted: other nodes have the same.

use super::error::{Damage, Error};
use super::listing::{damaged, examine};
use super::manifest::Manifest;
use super::naming::{CHUNKS, MANIFEST, Stage};
use super::reader::Reader;
use super::removal::put_away;
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

/// Makes of a snapshot that is damaged as a whole one that is being received, as this manifest says: chunks that are right
/// need not come again. To be called when that manifest is here, and to be followed by [`super::Receiver::open`]. After a cut of
/// power in the midst all of it comes again.
///
/// # Errors
/// What the disk says.
pub fn reopen(files: &impl Files, manifest: &Manifest) -> Result<(), Error> {
    let whole = manifest.description.named(Stage::Whole);
    let name = whole.with(Stage::Receiving);
    if files.list("")?.contains(&name.to_string()) {
        // More has come of it than was there.
        return put_away(files, whole);
    }
    files.rename(&whole.to_string(), &name.to_string())?;
    files.sync_directory("")?;
    let there = files.list(&name.to_string())?;
    let file = |is_there: bool, file: &str| if is_there { files.open(file) } else { files.create(file) };
    let chunks = file(there.iter().any(|file| file == CHUNKS), &name.file(CHUNKS))?;
    let lengthened = lengthen(files, chunks, manifest.bytes);
    files.close(chunks);
    lengthened?;
    if there.iter().any(|file| file == MANIFEST) {
        files.remove(&name.file(MANIFEST))?;
    }
    let written = files.create(&name.file(MANIFEST))?;
    let flushed = files.write(written, 0, &manifest.encode()).and_then(|()| files.sync(written));
    files.close(written);
    flushed?;
    Ok(files.sync_directory(&name.to_string())?)
}

/// One that is too long is none of this snapshot, and is made anew by whoever receives.
fn lengthen(files: &impl Files, file: FileId, bytes: u64) -> Result<(), Error> {
    let length = files.length(file)?;
    if length < bytes {
        files.zero(file, length, bytes - length)?;
    }
    Ok(files.sync(file)?)
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
