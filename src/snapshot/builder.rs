//! Making a snapshot, a step at a time.

use bytes::BytesMut;

use super::error::{Damage, Error};
use super::listing::{damaged, examine};
use super::manifest::{Description, Manifest};
use super::naming::{CHUNKS, MANIFEST, Name, Stage};
use super::reader::Reader;
use super::removal::{clear, put_away};
use crate::disk::{FileId, Files};
use crate::limits::{SECTOR_BYTES, SNAPSHOT_CHUNK_BYTES, SNAPSHOT_CHUNKS_MAX};
use crate::mutant::{self, Mutant};

/// Chunks are flushed after so many bytes, so that no flush has much to do: the log's wait for the same disk.
const FLUSH_BYTES: u64 = 8 << 20;

/// Where the state comes from: a handle that does not change any more.
pub trait ChunkSource: Send {
    /// Appends the next bytes of the state, a few MiB at most. False, and nothing, once all were given.
    fn encode_next(&mut self, out: &mut BytesMut) -> bool;
}

/// What a step of a [`Builder`] did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// A chunk is written, of so many bytes: whoever wants to spare the disk waits here.
    Wrote { bytes: usize },
    /// A chunk is read back, of so many bytes: the same.
    Read { bytes: usize },
    /// Something small.
    Went,
    /// All chunks are durable, and the caller has not said yet that the point is, too.
    Waits,
    /// The snapshot is durable, under its name, and reads back.
    Done,
}

/// A snapshot that is being made. It does no more than one thing at each [`Builder::step`], and after an error nothing
/// more but to be [abandoned](Builder::abandon).
///
/// ```text
///   Begin ──▶ Chunks ⟲ ──▶ Flush ──▶ Wait ──▶ Manifest ──▶ FlushManifest ──▶ FlushDirectory ──▶ Rename ──▶ FlushRoot
///     ╰─── it came from another node ─────────────────────────────────────────────────────────────────────▶    ▼
///                                                                                                Done ◀── Verify ⟲
/// ```
///
/// What of the log goes rests on it: so it is read back before it counts, as it was written, past the page cache where files
/// are read so.
pub struct Builder {
    /// What the manifest will say; its chunks are those written so far.
    manifest: Manifest,
    source: Box<dyn ChunkSource>,
    /// What the source gave and no chunk has: less than a chunk and a piece.
    pending: BytesMut,
    /// The source has given all.
    is_exhausted: bool,
    /// Written since the last flush.
    unflushed_bytes: u64,
    phase: Phase,
    /// It was there already, from another node: it is verified, and stays whatever comes of that.
    is_adopted: bool,
    /// What is read back, and how many chunks were.
    reader: Option<Reader>,
    verified_chunks: u32,
    /// The file that is written just now.
    file: Option<FileId>,
    /// A step failed.
    is_poisoned: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Begin,
    Chunks,
    Flush,
    Wait,
    Manifest,
    FlushManifest,
    FlushDirectory,
    Rename,
    FlushRoot,
    Verify,
    Done,
}

impl Builder {
    /// A snapshot of what `source` will give. Nothing is done yet.
    pub fn new(description: Description, source: Box<dyn ChunkSource>) -> Builder {
        Builder::with_chunks(description, source, SNAPSHOT_CHUNK_BYTES)
    }

    /// With smaller chunks, for tests: of whole sectors.
    pub(crate) fn with_chunks(description: Description, source: Box<dyn ChunkSource>, chunk_bytes: usize) -> Builder {
        assert!((1..=SNAPSHOT_CHUNK_BYTES).contains(&chunk_bytes) && chunk_bytes.is_multiple_of(SECTOR_BYTES));
        Builder {
            manifest: Manifest { description, chunk_bytes: chunk_bytes as u32, bytes: 0, checksums: Vec::new() },
            source,
            pending: BytesMut::new(),
            is_exhausted: false,
            unflushed_bytes: 0,
            phase: Phase::Begin,
            is_adopted: false,
            reader: None,
            verified_chunks: 0,
            file: None,
            is_poisoned: false,
        }
    }

    /// Bytes of the state that are written so far.
    pub fn bytes(&self) -> u64 {
        self.manifest.bytes
    }

    /// Which snapshot it will be.
    pub fn description(&self) -> &Description {
        &self.manifest.description
    }

    /// Does the next thing. `point_is_durable` says whether the node's own log holds the point durably: before that the
    /// manifest is not written, since a restart would find a state ahead of its log.
    ///
    /// # Errors
    /// What the disk says; [`Error::Damaged`] if it does not read back; [`Error::Exists`] if another state is there under
    /// its name; [`Error::TooLarge`]. Then it is to be abandoned.
    pub fn step(&mut self, files: &impl Files, point_is_durable: bool) -> Result<Step, Error> {
        assert!(!self.is_poisoned, "a step failed, and none is made after that");
        let said = self.advance(files, point_is_durable);
        self.is_poisoned = said.is_err();
        said
    }

    /// Removes what was made. A process that ends without it leaves that to the next start.
    ///
    /// # Errors
    /// What the disk says; what is left then has an ending, unless nothing was wrong but the flush of the root.
    pub fn abandon(mut self, files: &impl Files) -> Result<(), Error> {
        if let Some(file) = self.file.take() {
            files.close(file);
        }
        if let Some(reader) = self.reader.take() {
            reader.close(files);
        }
        match self.phase {
            Phase::Begin | Phase::Done => Ok(()),
            Phase::FlushRoot | Phase::Verify if self.is_adopted => Ok(()),
            // It has its name, but perhaps not durably; nobody was told of it.
            Phase::FlushRoot | Phase::Verify => put_away(files, self.manifest.description.named(Stage::Whole)),
            _ => clear(files, self.manifest.description.named(Stage::Making)),
        }
    }

    fn advance(&mut self, files: &impl Files, point_is_durable: bool) -> Result<Step, Error> {
        let making = self.manifest.description.named(Stage::Making);
        let whole = making.with(Stage::Whole);
        self.phase = match self.phase {
            Phase::Begin => self.begin(files, making)?,
            Phase::Chunks if self.unflushed_bytes >= FLUSH_BYTES => {
                self.flush(files)?;
                Phase::Chunks
            }
            Phase::Chunks => match self.next_chunk(files)? {
                Some(bytes) => return Ok(Step::Wrote { bytes }),
                None => Phase::Flush,
            },
            Phase::Flush => {
                self.flush(files)?;
                self.close(files);
                Phase::Wait
            }
            Phase::Wait if !point_is_durable => return Ok(Step::Waits),
            Phase::Wait => Phase::Manifest,
            Phase::Manifest => {
                let file = files.create(&making.file(MANIFEST))?;
                self.file = Some(file);
                files.write(file, 0, &self.manifest.encode())?;
                if mutant::is_on(Mutant::SnapshotRenamedBeforeFlush) {
                    Phase::FlushDirectory
                } else {
                    Phase::FlushManifest
                }
            }
            Phase::FlushManifest => {
                files.sync(self.open_file())?;
                self.close(files);
                Phase::FlushDirectory
            }
            Phase::FlushDirectory => {
                if !mutant::is_on(Mutant::NoDirectoryFsync) {
                    files.sync_directory(&making.to_string())?;
                }
                Phase::Rename
            }
            Phase::Rename => {
                files.rename(&making.to_string(), &whole.to_string())?;
                Phase::FlushRoot
            }
            Phase::FlushRoot => {
                if !mutant::is_on(Mutant::NoDirectoryFsync) {
                    files.sync_directory("")?;
                }
                if let Some(file) = self.file.take() {
                    files.sync(file)?;
                    files.close(file);
                }
                Phase::Verify
            }
            Phase::Verify => match self.verify_next(files, whole)? {
                Some(bytes) => return Ok(Step::Read { bytes }),
                None => Phase::Done,
            },
            Phase::Done => return Ok(Step::Done),
        };
        Ok(if self.phase == Phase::Done { Step::Done } else { Step::Went })
    }

    fn begin(&mut self, files: &impl Files, making: Name) -> Result<Phase, Error> {
        let whole = making.with(Stage::Whole);
        if files.list("")?.contains(&whole.to_string()) {
            self.adopt(files, whole)?;
            return Ok(Phase::FlushRoot);
        }
        clear(files, making)?;
        // From here on there is something to remove.
        self.phase = Phase::Chunks;
        files.create_directory(&making.to_string())?;
        self.file = Some(files.create(&making.file(CHUNKS))?);
        Ok(Phase::Chunks)
    }

    /// It is there already: its state is the same if its description is, for the encoding is canonical.
    fn adopt(&mut self, files: &impl Files, whole: Name) -> Result<(), Error> {
        let found = examine(files, whole, Some(self.manifest.description.cluster))?;
        if found.description != self.manifest.description {
            return Err(Error::Exists { name: whole.to_string() });
        }
        (self.manifest, self.is_adopted) = (found, true);
        Ok(())
    }

    /// Reads the next chunk back; tells its length, or that all were.
    fn verify_next(&mut self, files: &impl Files, whole: Name) -> Result<Option<usize>, Error> {
        if mutant::is_on(Mutant::SnapshotNotReadBack) {
            return Ok(None);
        }
        let reader = match &mut self.reader {
            Some(reader) => reader,
            none => {
                if examine(files, whole, Some(self.manifest.description.cluster))? != self.manifest {
                    return Err(damaged(whole, Damage::Manifest));
                }
                none.insert(Reader::open(files, self.manifest.clone())?)
            }
        };
        if self.verified_chunks < self.manifest.chunks() {
            let bytes = reader.chunk(files, self.verified_chunks)?.len();
            self.verified_chunks += 1;
            return Ok(Some(bytes));
        }
        if let Some(reader) = self.reader.take() {
            reader.close(files);
        }
        Ok(None)
    }

    /// Writes the next chunk; tells its length, or that there is none.
    fn next_chunk(&mut self, files: &impl Files) -> Result<Option<usize>, Error> {
        let chunk_bytes = self.manifest.chunk_bytes as usize;
        while self.pending.len() < chunk_bytes && !self.is_exhausted {
            self.is_exhausted = !self.source.encode_next(&mut self.pending);
        }
        if self.pending.is_empty() {
            return Ok(None);
        }
        let number = self.manifest.chunks();
        if number as usize == SNAPSHOT_CHUNKS_MAX {
            let bytes_max = (SNAPSHOT_CHUNKS_MAX * chunk_bytes) as u64;
            return Err(Error::TooLarge { bytes_max });
        }
        let chunk = self.pending.split_to(chunk_bytes.min(self.pending.len()));
        let checksum = self.manifest.description.checksum_of(number, &chunk);
        files.write(self.open_file(), self.manifest.bytes, &chunk)?;
        self.manifest.checksums.push(checksum);
        self.manifest.bytes += chunk.len() as u64;
        self.unflushed_bytes += chunk.len() as u64;
        Ok(Some(chunk.len()))
    }

    fn flush(&mut self, files: &impl Files) -> Result<(), Error> {
        self.unflushed_bytes = 0;
        if mutant::is_on(Mutant::SnapshotManifestBeforeChunks) {
            return Ok(());
        }
        Ok(files.sync(self.open_file())?)
    }

    fn open_file(&self) -> FileId {
        self.file.expect("a file is open in this phase")
    }

    fn close(&mut self, files: &impl Files) {
        if let Some(file) = self.file.take() {
            files.close(file);
        }
    }
}

impl std::fmt::Debug for Builder {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = formatter.debug_struct("Builder");
        shown.field("point", &self.manifest.description.point).field("phase", &self.phase);
        shown.field("bytes", &self.manifest.bytes).finish_non_exhaustive()
    }
}
