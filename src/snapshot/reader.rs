//! Reading a snapshot back, chunk by chunk, each checked.

use std::io;

use super::error::{Damage, Error};
use super::listing::{damaged, open};
use super::manifest::Manifest;
use super::naming::{CHUNKS, Name, Stage};
use crate::disk::{self, Buffer, FileId, Files};

/// A whole snapshot that is open.
#[derive(Debug)]
pub struct Reader {
    manifest: Manifest,
    name: Name,
    file: FileId,
    /// The chunk that was read last.
    buffer: Buffer,
}

/// A chunk that cannot be used.
#[derive(Debug)]
pub struct BadChunk {
    pub number: u32,
    /// What the disk said; none if it is not the chunk that was written.
    pub read_error: Option<disk::Error>,
}

impl Reader {
    /// Opens the snapshot of a manifest that a [listing](super::list()) gave.
    pub fn open(files: &impl Files, manifest: Manifest) -> Result<Reader, Error> {
        let name = manifest.description.named(Stage::Whole);
        let file = open(files, name, CHUNKS)?;
        let buffer = Buffer::with_capacity(manifest.chunk_bytes as usize);
        Ok(Reader { manifest, name, file, buffer })
    }

    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The bytes of a chunk, if they are those that were written. Panics if there is none of this number.
    ///
    /// # Errors
    /// [`Error::Damaged`] with the number, or what the disk says.
    pub fn chunk(&mut self, files: &impl Files, number: u32) -> Result<&[u8], Error> {
        let (start, length) = self.manifest.place(number);
        if self.buffer.len() != length {
            self.buffer = Buffer::zeroed(length);
        }
        files.read(self.file, start, &mut self.buffer).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => damaged(self.name, Damage::Chunk { number }),
            _ => Error::Disk(error),
        })?;
        match self.manifest.is_chunk(number, &self.buffer) {
            true => Ok(&self.buffer),
            false => Err(damaged(self.name, Damage::Chunk { number })),
        }
    }

    pub fn close(self, files: &impl Files) {
        files.close(self.file);
    }
}

/// Reads every chunk, and says which cannot be used.
///
/// # Errors
/// If the snapshot does not open.
pub fn verify(files: &impl Files, manifest: &Manifest) -> Result<Vec<BadChunk>, Error> {
    let mut reader = Reader::open(files, manifest.clone())?;
    let mut bad = Vec::new();
    for number in 0..manifest.chunks() {
        match reader.chunk(files, number) {
            Ok(_) => {}
            Err(Error::Disk(error)) => bad.push(BadChunk { number, read_error: Some(error) }),
            Err(_) => bad.push(BadChunk { number, read_error: None }),
        }
    }
    reader.close(files);
    Ok(bad)
}
