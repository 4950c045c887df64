//! Segments: the log's files, their static headers, and how they are made.
//!
//! A header, frames from the open frame to the seal, zeros, the header again; docs/formats.md has the bytes.
//!
//! The header is durable, twice, before the file gets its name, and nothing in it ever changes. Everything between
//! the headers is zero before the file gets its name: "never written" is something one can see.

use bytes::BufMut;

use super::error::Error;
use super::frame::is_zero;
use crate::checksum::Checksum;
use crate::codec::Reader;
use crate::disk::{self, FileId, Files};
use crate::limits::{BLOCK_BYTES, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN};
use crate::mutant::{self, Mutant};
use crate::types::{ClusterId, Incarnation, NodeId, SegmentNumber};

pub const SEGMENT_MAGIC: [u8; 8] = *b"TRLTHSEG";
pub const FORMAT_VERSION: u32 = 1;
/// Where the first frame of a segment lies.
pub const FRAMES_START: u64 = BLOCK_BYTES as u64;
const HEADER_BYTES: usize = 76;
const CHECKSUM_AT: usize = 72;

/// Whose log this is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity {
    pub cluster: ClusterId,
    pub node: NodeId,
    pub incarnation: Incarnation,
}

/// What a segment says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SegmentHeader {
    pub identity: Identity,
    pub number: SegmentNumber,
    /// Random. In every frame in clear and in every salted checksum.
    pub salt: u64,
    /// The file's length.
    pub bytes: u64,
}

/// What is wrong with a block that should be a segment header.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum HeaderFault {
    #[error("it is no segment header")]
    Magic,
    #[error("its format is version {found}; this program knows {FORMAT_VERSION}")]
    NewerFormat { found: u32 },
    #[error("its format version is none that ever was")]
    Version,
    #[error("its checksum does not hold")]
    Checksum,
    #[error("bytes that should be zero are not")]
    Padding,
    #[error("its length of {found} bytes is out of bounds")]
    Length { found: u64 },
    #[error("the disk cannot read it")]
    Unreadable,
}

impl SegmentHeader {
    /// The end of the room for frames.
    pub fn frames_end(&self) -> u64 {
        self.bytes - BLOCK_BYTES as u64
    }

    pub fn encode(&self) -> [u8; BLOCK_BYTES] {
        let mut block = [0u8; BLOCK_BYTES];
        let mut out = &mut block[..];
        out.put_slice(&SEGMENT_MAGIC);
        out.put_u32_le(FORMAT_VERSION);
        out.put_u32_le(0);
        out.put_u128_le(self.identity.cluster.0);
        out.put_u64_le(self.identity.node.0);
        out.put_u64_le(self.identity.incarnation.0);
        out.put_u64_le(self.number.0);
        out.put_u64_le(self.salt);
        out.put_u64_le(self.bytes);
        let checksum = Checksum::of(&block[..CHECKSUM_AT]);
        block[CHECKSUM_AT..HEADER_BYTES].copy_from_slice(&checksum.0.to_le_bytes());
        block
    }

    pub fn decode(block: &[u8; BLOCK_BYTES]) -> Result<SegmentHeader, HeaderFault> {
        if block[..8] != SEGMENT_MAGIC {
            return Err(HeaderFault::Magic);
        }
        // Before the checksum: a newer format may keep it elsewhere.
        let version = u32::from_le_bytes([block[8], block[9], block[10], block[11]]);
        if version > FORMAT_VERSION {
            return Err(HeaderFault::NewerFormat { found: version });
        }
        let found = Checksum(u32::from_le_bytes([block[72], block[73], block[74], block[75]]));
        if Checksum::of(&block[..CHECKSUM_AT]) != found {
            return Err(HeaderFault::Checksum);
        }
        let mut reader = Reader::new(&block[8..CHECKSUM_AT]);
        let header = SegmentHeader::decode_fields(&mut reader)?;
        if !is_zero(&block[HEADER_BYTES..]) {
            return Err(HeaderFault::Padding);
        }
        Ok(header)
    }

    fn decode_fields(reader: &mut Reader<'_>) -> Result<SegmentHeader, HeaderFault> {
        let short = |_| HeaderFault::Checksum;
        if reader.u32("format version").map_err(short)? != FORMAT_VERSION {
            return Err(HeaderFault::Version);
        }
        if reader.u32("zero").map_err(short)? != 0 {
            return Err(HeaderFault::Padding);
        }
        let identity = Identity {
            cluster: ClusterId(reader.u128("cluster").map_err(short)?),
            node: NodeId(reader.u64("node").map_err(short)?),
            incarnation: Incarnation(reader.u64("incarnation").map_err(short)?),
        };
        let number = SegmentNumber(reader.u64("segment number").map_err(short)?);
        let salt = reader.u64("salt").map_err(short)?;
        let bytes = reader.u64("segment length").map_err(short)?;
        if !(SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&bytes) || !bytes.is_multiple_of(BLOCK_BYTES as u64) {
            return Err(HeaderFault::Length { found: bytes });
        }
        Ok(SegmentHeader { identity, number, salt, bytes })
    }
}

/// The name of a segment that is ready or in use.
pub fn segment_name(directory: &str, number: SegmentNumber) -> String {
    format!("{directory}/{:016}.segment", number.0)
}

/// The number in a segment's name, if it is one.
pub fn segment_number(name: &str) -> Option<SegmentNumber> {
    let digits = name.strip_suffix(".segment")?;
    let well_formed = digits.len() == 16 && digits.bytes().all(|byte| byte.is_ascii_digit());
    well_formed.then(|| digits.parse().ok().map(SegmentNumber)).flatten()
}

/// How the room between the headers is made zero.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fill {
    /// Zeros are written: overwriting them later needs no journal commit. The normal way, ahead of need.
    Zeros,
    /// It is zero: what was zeroed ahead of need, and came too late for its number, gets new headers.
    AsItIs,
    /// Space is reserved and reads as zero, but the first write of each block goes through the journal. Quick, for
    /// when the next segment is needed now.
    Allocated,
}

/// A segment to be made ready: done off the core by [`prepare`], since it takes as long as writing the segment does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Prepare {
    pub directory: String,
    pub header: SegmentHeader,
    pub fill: Fill,
    /// A segment that is not used any more and becomes this one: zeroed again under a temporary name first, unless it is
    /// zero.
    pub recycled: Option<(SegmentNumber, FileId)>,
}

/// Makes a segment: temporary name, zeros, both headers, flush, rename, flush of the directory. What a crash leaves
/// under a temporary name is removed at the next start.
///
/// # Errors
/// Whatever failed, nothing durable was at stake: the file held nothing that is needed. It is closed and removed, also
/// the one that was to be used again, and never trusted: another attempt makes a new one.
pub fn prepare<F: Files>(files: &F, order: &Prepare) -> Result<FileId, disk::Error> {
    let name = segment_name(&order.directory, order.header.number);
    let temporary = format!("{}/{:016}.preparing", order.directory, order.header.number.0);
    let begun = begin(files, order, &temporary);
    let made = begun.and_then(|file| {
        let finished = finish(files, order, file).and_then(|()| files.rename(&temporary, &name));
        match finished.and_then(|()| flush_names(files, &order.directory)) {
            Ok(()) => Ok(file),
            Err(error) => {
                files.close(file);
                Err(error)
            }
        }
    });
    made.or_else(|error| {
        let old = order.recycled.map(|(old, _)| segment_name(&order.directory, old));
        // A name that stays, or that a crash brings back, is removed or zeroed again at the next start. That one stays is not
        // told: what is told is the error of the same disk that came before, by which preparations wait for a second each.
        let removed = old.iter().chain([&temporary, &name]).filter(|name| files.remove(name).is_ok()).count();
        let flushed =
            if removed > 0 || order.recycled.is_some() { files.sync_directory(&order.directory) } else { Ok(()) };
        flushed.and(Err(error))
    })
}

/// The file under its temporary name. After an error none is open, not even the one that was to be used again.
fn begin<F: Files>(files: &F, order: &Prepare, temporary: &str) -> Result<FileId, disk::Error> {
    let Some((old, file)) = order.recycled else { return files.create(temporary) };
    let old = segment_name(&order.directory, old);
    let length = files.length(file);
    let is_zeroed = order.fill != Fill::Allocated;
    if is_zeroed && length.as_ref().is_ok_and(|length| *length == order.header.bytes) {
        // The directory is flushed before the zeros: a crash must not leave a half-zeroed file under the old name.
        let renamed = files.rename(&old, temporary).and_then(|()| flush_names(files, &order.directory));
        return renamed.map(|()| file).inspect_err(|_| files.close(file));
    }
    // There is no time for zeros, or the segment size was changed since: another one takes its room.
    files.close(file);
    // Its room is free when its end is durable.
    let removed = length.and_then(|_| files.remove(&old)).and_then(|()| files.sync_directory(&order.directory));
    removed.and_then(|()| files.create(temporary))
}

fn flush_names<F: Files>(files: &F, directory: &str) -> Result<(), disk::Error> {
    if mutant::is_on(Mutant::NoDirectoryFsync) { Ok(()) } else { files.sync_directory(directory) }
}

fn finish<F: Files>(files: &F, order: &Prepare, file: FileId) -> Result<(), disk::Error> {
    let block = BLOCK_BYTES as u64;
    let header = order.header.encode();
    match order.fill {
        Fill::Zeros => files.zero(file, 0, order.header.bytes)?,
        Fill::AsItIs if files.length(file)? == order.header.bytes => files.expect_writes(file)?,
        Fill::AsItIs => files.zero(file, 0, order.header.bytes)?,
        Fill::Allocated => files.allocate(file, order.header.bytes)?,
    }
    files.write(file, 0, &header)?;
    files.write(file, order.header.bytes - block, &header)?;
    files.sync(file)
}

/// Both headers of an open segment: one of them, or the fault of each. The second value tells whether one was damaged.
pub fn read_headers<F: Files>(files: &F, file: FileId) -> Result<(Result<SegmentHeader, HeaderFault>, bool), Error> {
    let length = files.length(file)?;
    let first = read_header(files, file, 0);
    let last_at = length.saturating_sub(BLOCK_BYTES as u64) / BLOCK_BYTES as u64 * BLOCK_BYTES as u64;
    let last = read_header(files, file, last_at);
    Ok(match (first, last) {
        (Ok(first), Ok(last)) if first == last => (Ok(first), false),
        (Ok(_), Ok(_)) => (Err(HeaderFault::Checksum), true),
        (Ok(header), Err(_)) | (Err(_), Ok(header)) => (Ok(header), true),
        (Err(fault), Err(_)) => (Err(fault), true),
    })
}

fn read_header<F: Files>(files: &F, file: FileId, offset: u64) -> Result<SegmentHeader, HeaderFault> {
    let mut block = [0u8; BLOCK_BYTES];
    files.read(file, offset, &mut block).map_err(|_| HeaderFault::Unreadable)?;
    SegmentHeader::decode(&block)
}

const _: () = assert!(SEGMENT_MAGIC.len() + 4 + 4 + 16 + 5 * 8 == CHECKSUM_AT && CHECKSUM_AT + 4 == HEADER_BYTES);
