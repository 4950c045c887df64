//! Receiving a snapshot from other nodes, chunk by chunk, in any order, with any number of interruptions.
//!
//! What has arrived is not written down anywhere: a chunk has arrived if it is there and has its checksum. So nothing can
//! say more than is true, and a start after a cut of power reads what there is and asks for the rest.

use super::error::Error;
use super::listing::read_manifest;
use super::manifest::Manifest;
use super::naming::{CHUNKS, MANIFEST, Name, Stage};
use super::removal::{clear, put_away};
use crate::disk::{Buffer, FileId, Files};
use crate::mutant::{self, Mutant};
use crate::types::{ClusterId, GroupId, LogId};

/// Chunks are flushed after so many bytes: what a cut of power makes us ask for again.
const FLUSH_BYTES: u64 = 8 << 20;

/// A snapshot that comes from other nodes. Its manifest is on the disk before its first chunk; its name it gets when all
/// are there. After an error of the disk it does nothing more but to be [abandoned](Receiver::abandon); a chunk that is not
/// what it should be is an answer and no error.
#[derive(Debug)]
pub struct Receiver {
    manifest: Manifest,
    file: FileId,
    /// Of each chunk, whether it is there.
    arrived: Vec<bool>,
    /// How many of them are not.
    missing: u32,
    /// How many were there when it was opened, or gone on with last, and so are not sent again.
    resumed: u32,
    unflushed_bytes: u64,
    is_poisoned: bool,
}

/// What became of a chunk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Arrival {
    New,
    /// It was there.
    Known,
    /// It is none of this snapshot, or not this one: whoever sent it has another, or a damaged one.
    Bad,
}

impl Receiver {
    /// Goes on with what has come of this very snapshot, from whomever, or begins it. What had come of another one at the
    /// same point is removed.
    ///
    /// # Errors
    /// [`Error::WrongCluster`], [`Error::Exists`], and what the disk says, also that it has no room for all of it, or that
    /// another one receives it just now.
    pub fn open(files: &impl Files, manifest: Manifest, cluster: ClusterId) -> Result<Receiver, Error> {
        let opened = Receiver::open_while(files, manifest, cluster, || true)?;
        Ok(opened.expect("it is wanted to the end"))
    }

    /// The same, as long as it is wanted, which is asked before each chunk that is looked at: none, and nothing changed, if
    /// it is not any more. What has come may be much.
    ///
    /// # Errors
    /// As of [`Receiver::open`].
    pub fn open_while(
        files: &impl Files,
        manifest: Manifest,
        cluster: ClusterId,
        is_wanted: impl FnMut() -> bool,
    ) -> Result<Option<Receiver>, Error> {
        let (whole, found) = (manifest.description.named(Stage::Whole), manifest.description.cluster);
        if found != cluster {
            return Err(Error::WrongCluster { name: whole.to_string(), expected: cluster, found });
        }
        if files.list("")?.contains(&whole.to_string()) {
            return Err(Error::Exists { name: whole.to_string() });
        }
        let name = whole.with(Stage::Receiving);
        let (file, is_resumed) = match resume(files, name, &manifest)? {
            Some(file) => (file, true),
            None => (begin(files, name, &manifest)?, false),
        };
        let chunks = manifest.chunks();
        let arrived = vec![false; chunks as usize];
        let mut receiver =
            Receiver { manifest, file, arrived, missing: chunks, resumed: 0, unflushed_bytes: 0, is_poisoned: false };
        let looked = if is_resumed { receiver.look(files, is_wanted) } else { Ok(true) };
        match looked {
            Ok(true) => Ok(Some(receiver)),
            Ok(false) => {
                files.close(file);
                Ok(None)
            }
            Err(error) => {
                files.close(file);
                Err(error)
            }
        }
    }

    /// What has come of a snapshot at this point is of this one. None if nothing has, or nothing that can be gone on with.
    ///
    /// # Errors
    /// What the disk says.
    pub fn begun(files: &impl Files, group: GroupId, point: LogId) -> Result<Option<Manifest>, Error> {
        let name = Name::new(group, point, Stage::Receiving);
        if !files.list("")?.contains(&name.to_string()) {
            return Ok(None);
        }
        match read_manifest(files, name) {
            Ok(manifest) => Ok(Some(manifest)),
            // It was torn while it was written, or rotted: what has come is of no use.
            Err(Error::Damaged { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What it will be.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The numbers of the chunks that are not there, rising.
    pub fn missing(&self) -> impl Iterator<Item = u32> {
        (0..).zip(&self.arrived).filter(|(_, arrived)| !**arrived).map(|(number, _)| number)
    }

    /// How many chunks are not there.
    pub fn missing_count(&self) -> u32 {
        self.missing
    }

    /// Another fetch goes on with it: what is there counts as having been.
    pub fn go_on(&mut self) {
        self.resumed = self.manifest.chunks() - self.missing;
    }

    /// How many chunks were there when it was opened, or gone on with last.
    pub fn resumed_count(&self) -> u32 {
        self.resumed
    }

    /// Takes a chunk, if it is the one of this number.
    ///
    /// # Errors
    /// What the disk says. Then it is to be abandoned.
    pub fn take(&mut self, files: &impl Files, number: u32, bytes: &[u8]) -> Result<Arrival, Error> {
        assert!(!self.is_poisoned, "the disk failed, and nothing is written after that");
        if !self.manifest.is_chunk(number, bytes) && !mutant::is_on(Mutant::ChunkUnverified) {
            return Ok(Arrival::Bad);
        }
        if self.arrived[number as usize] {
            return Ok(Arrival::Known);
        }
        self.is_poisoned = true;
        self.write(files, number, bytes)?;
        if self.unflushed_bytes >= FLUSH_BYTES {
            self.unflushed_bytes = 0;
            files.sync(self.file)?;
        }
        self.is_poisoned = false;
        Ok(Arrival::New)
    }

    /// All chunks are there: makes the snapshot whole, durably. Panics if some are missing.
    ///
    /// # Errors
    /// What the disk says. Then nobody may take it for whole, and what was received is removed as far as that goes.
    pub fn finish(self, files: &impl Files) -> Result<Manifest, Error> {
        assert!(self.missing == 0 && !self.is_poisoned, "{} chunks are missing", self.missing);
        let name = self.name();
        let flushed = if mutant::is_on(Mutant::ReceivedBeforeFlush) { Ok(()) } else { files.sync(self.file) };
        files.close(self.file);
        let renamed = flushed.and_then(|()| {
            files.sync_directory(&name.to_string())?;
            files.rename(&name.to_string(), &name.with(Stage::Whole).to_string())
        });
        if let Err(error) = renamed {
            clear(files, name)?;
            return Err(error.into());
        }
        if let Err(error) = files.sync_directory("") {
            put_away(files, name.with(Stage::Whole))?;
            return Err(error.into());
        }
        Ok(self.manifest)
    }

    /// Makes durable what has come.
    ///
    /// # Errors
    /// What the disk says. Then what it holds is not known: it is to be put down, and read by whoever goes on with it.
    pub fn flush(&mut self, files: &impl Files) -> Result<(), Error> {
        assert!(!self.is_poisoned, "the disk failed, and what it holds is not known");
        self.is_poisoned = true;
        files.sync(self.file)?;
        self.unflushed_bytes = 0;
        self.is_poisoned = false;
        Ok(())
    }

    /// Leaves it as it was flushed last, to be gone on with later.
    pub fn put_down(self, files: &impl Files) {
        files.close(self.file);
    }

    /// Leaves it as it is, to be gone on with later.
    ///
    /// # Errors
    /// What the disk says.
    pub fn close(mut self, files: &impl Files) -> Result<(), Error> {
        let flushed = self.flush(files);
        self.put_down(files);
        flushed
    }

    /// Removes what has come.
    ///
    /// # Errors
    /// What the disk says.
    pub fn abandon(self, files: &impl Files) -> Result<(), Error> {
        files.close(self.file);
        clear(files, self.name())
    }

    fn name(&self) -> Name {
        self.manifest.description.named(Stage::Receiving)
    }

    /// Finds out which chunks are there. False if that is not wanted any more.
    fn look(&mut self, files: &impl Files, mut is_wanted: impl FnMut() -> bool) -> Result<bool, Error> {
        // What a dead process has written and not flushed would be read now and be gone after a cut of power.
        files.sync(self.file)?;
        let mut buffer = Buffer::with_capacity(self.manifest.chunk_bytes as usize);
        for number in 0..self.manifest.chunks() {
            if !is_wanted() {
                return Ok(false);
            }
            let (start, length) = self.manifest.place(number);
            if buffer.len() != length {
                buffer = Buffer::zeroed(length);
            }
            // One that cannot be read is asked for again, and written anew.
            let is_read = files.read(self.file, start, &mut buffer).is_ok();
            let is_it = self.manifest.is_chunk(number, &buffer) || mutant::is_on(Mutant::ResumedUnverified);
            if !is_read || !is_it {
                continue;
            }
            if files.reads_past_cache() {
                self.arrived[number as usize] = true;
                self.missing -= 1;
            } else {
                // It may be in the page cache alone, if a flush failed in an earlier life: then it is clean there.
                self.write(files, number, &buffer)?;
            }
        }
        self.resumed = self.manifest.chunks() - self.missing;
        Ok(true)
    }

    fn write(&mut self, files: &impl Files, number: u32, bytes: &[u8]) -> Result<(), Error> {
        files.write(self.file, self.manifest.place(number).0, bytes)?;
        self.arrived[number as usize] = true;
        self.missing -= 1;
        self.unflushed_bytes += bytes.len() as u64;
        Ok(())
    }
}

/// The file with the chunks, if something of this very snapshot has come.
fn resume(files: &impl Files, name: Name, manifest: &Manifest) -> Result<Option<FileId>, Error> {
    if !files.list("")?.contains(&name.to_string()) {
        return Ok(None);
    }
    // Whatever is wrong with what has come, it can come again.
    match read_manifest(files, name) {
        Ok(found) if found == *manifest || mutant::is_on(Mutant::ResumedUnverified) => {}
        _ => return Ok(None),
    }
    let file = match files.open(&name.file(CHUNKS)) {
        Ok(file) => file,
        // Somebody receives it just now: what is there is of use.
        Err(error) if error.is_locked() => return Err(error.into()),
        Err(_) => return Ok(None),
    };
    match files.length(file) {
        Ok(length) if length == manifest.bytes => Ok(Some(file)),
        _ => {
            files.close(file);
            Ok(None)
        }
    }
}

/// Makes the directory, with the manifest and room for all chunks.
fn begin(files: &impl Files, name: Name, manifest: &Manifest) -> Result<FileId, Error> {
    clear(files, name)?;
    let made = make(files, name, manifest);
    if made.is_err() {
        clear(files, name)?;
    }
    made
}

fn make(files: &impl Files, name: Name, manifest: &Manifest) -> Result<FileId, Error> {
    files.create_directory(&name.to_string())?;
    let file = files.create(&name.file(MANIFEST))?;
    let written = files.write(file, 0, &manifest.encode()).and_then(|()| files.sync(file));
    files.close(file);
    written?;
    let file = files.create(&name.file(CHUNKS))?;
    let reserved = files.allocate(file, manifest.bytes).and_then(|()| files.sync(file));
    let reserved = reserved.and_then(|()| files.sync_directory(&name.to_string()));
    match reserved {
        Ok(()) => Ok(file),
        Err(error) => {
            files.close(file);
            Err(error.into())
        }
    }
}
