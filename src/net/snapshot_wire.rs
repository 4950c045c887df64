//! Questions for a snapshot and what is said to them, as bytes. The tables stand in docs/formats.md.
//!
//! What a manifest or a chunk holds is not looked at here: whoever asked has the checksums of both.

use bytes::{BufMut, Bytes, BytesMut};

use crate::codec::{self, Error, Reader};
use crate::limits::{SNAPSHOT_CHUNK_BYTES, SNAPSHOT_CHUNKS_MAX, SNAPSHOT_HEAD_BYTES, WIRE_FRAME_BYTES_MAX};
use crate::types::{GroupId, LogId};

use super::wire::{Frame, put_frame, put_length, refuse_rest, take_bytes, take_fields};

/// The longest manifest that is sent.
pub const MANIFEST_BYTES_MAX: usize = 4 * SNAPSHOT_CHUNKS_MAX + SNAPSHOT_HEAD_BYTES;
/// The longest answer: a manifest or a chunk, and its head.
pub(super) const ANSWER_FRAME_BYTES_MAX: usize =
    if MANIFEST_BYTES_MAX > SNAPSHOT_CHUNK_BYTES { MANIFEST_BYTES_MAX + 64 } else { SNAPSHOT_CHUNK_BYTES + 64 };
/// The longest frame of who asks: its greeting.
pub(super) const REQUEST_FRAME_BYTES_MAX: usize = 128;

const _: () = assert!(ANSWER_FRAME_BYTES_MAX <= WIRE_FRAME_BYTES_MAX);

const KIND_ASK_MANIFEST: u8 = 112;
const KIND_ASK_CHUNK: u8 = 113;
const KIND_MANIFEST: u8 = 114;
const KIND_CHUNK: u8 = 115;
const KIND_REFUSED: u8 = 116;

/// What a node asks of another one's snapshot. Answers come in the order of the questions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SnapshotRequest {
    /// What the snapshot at this point consists of.
    Manifest { group: GroupId, point: LogId },
    /// One chunk of it.
    Chunk { group: GroupId, point: LogId, number: u32 },
}

/// What is said to it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SnapshotAnswer {
    /// At most [`MANIFEST_BYTES_MAX`].
    Manifest(Bytes),
    /// At most [`SNAPSHOT_CHUNK_BYTES`].
    Chunk {
        number: u32,
        bytes: Bytes,
    },
    Refused(SnapshotRefusal),
}

/// Why a question for a snapshot is not answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SnapshotRefusal {
    /// There is no whole snapshot at this point, or no such chunk in it.
    NotHere,
    /// This chunk is damaged there, or cannot be read: another node may have it.
    Damaged { number: u32 },
    /// So many fetch from there that this has to wait.
    Busy,
}

impl SnapshotRequest {
    /// Which snapshot it is about.
    pub fn snapshot(&self) -> (GroupId, LogId) {
        match *self {
            SnapshotRequest::Manifest { group, point } | SnapshotRequest::Chunk { group, point, .. } => (group, point),
        }
    }
}

pub fn put_snapshot_request(out: &mut BytesMut, request: &SnapshotRequest) {
    let kind = match request {
        SnapshotRequest::Manifest { .. } => KIND_ASK_MANIFEST,
        SnapshotRequest::Chunk { .. } => KIND_ASK_CHUNK,
    };
    put_frame(out, kind, |out| {
        let (group, point) = request.snapshot();
        out.put_u32_le(group.0);
        codec::put_log_id(out, point);
        if let SnapshotRequest::Chunk { number, .. } = request {
            out.put_u32_le(*number);
        }
    });
}

pub fn snapshot_request(frame: &Frame) -> Result<SnapshotRequest, Error> {
    let mut reader = Reader::new(&frame.body);
    let (group, point) = (GroupId(reader.u32("group id")?), codec::log_id(&mut reader)?);
    let request = match frame.kind {
        KIND_ASK_MANIFEST => SnapshotRequest::Manifest { group, point },
        KIND_ASK_CHUNK => SnapshotRequest::Chunk { group, point, number: chunk_number(&mut reader)? },
        found => return Err(Error::Invalid { what: "kind of question for a snapshot", found: u64::from(found) }),
    };
    reader.finish("question for a snapshot")?;
    Ok(request)
}

/// Appends an answer as one frame. Panics if a manifest or chunk is over its bound: [`crate::snapshot`] makes none.
pub fn put_snapshot_answer(out: &mut BytesMut, answer: &SnapshotAnswer) {
    match answer {
        SnapshotAnswer::Manifest(bytes) => {
            assert!(bytes.len() <= MANIFEST_BYTES_MAX, "a manifest of {} bytes", bytes.len());
            put_frame(out, KIND_MANIFEST, |out| put_bytes(out, bytes));
        }
        SnapshotAnswer::Chunk { number, bytes } => {
            assert!(bytes.len() <= SNAPSHOT_CHUNK_BYTES, "a chunk of {} bytes", bytes.len());
            put_frame(out, KIND_CHUNK, |out| {
                out.put_u32_le(*number);
                put_bytes(out, bytes);
            });
        }
        SnapshotAnswer::Refused(refusal) => put_frame(out, KIND_REFUSED, |out| match refusal {
            SnapshotRefusal::NotHere => out.put_u8(0),
            SnapshotRefusal::Damaged { number } => {
                out.put_u8(1);
                out.put_u32_le(*number);
            }
            SnapshotRefusal::Busy => out.put_u8(2),
        }),
    }
}

/// What a frame holds. Manifest and chunk share its memory; nothing in them is verified yet.
pub fn snapshot_answer(frame: Frame) -> Result<SnapshotAnswer, Error> {
    let Frame { kind, body: mut bytes } = frame;
    let answer = match kind {
        KIND_MANIFEST => {
            let manifest = sized(&mut bytes, MANIFEST_BYTES_MAX, "bytes of a manifest")?;
            SnapshotAnswer::Manifest(manifest)
        }
        KIND_CHUNK => {
            let number = take_fields(&mut bytes, chunk_number)?;
            let chunk = sized(&mut bytes, SNAPSHOT_CHUNK_BYTES, "bytes of a chunk")?;
            SnapshotAnswer::Chunk { number, bytes: chunk }
        }
        KIND_REFUSED => SnapshotAnswer::Refused(take_fields(&mut bytes, refusal)?),
        found => return Err(Error::Invalid { what: "kind of answer about a snapshot", found: u64::from(found) }),
    };
    refuse_rest(&bytes, "answer about a snapshot")?;
    Ok(answer)
}

fn refusal(reader: &mut Reader<'_>) -> Result<SnapshotRefusal, Error> {
    Ok(match reader.u8("refusal about a snapshot")? {
        0 => SnapshotRefusal::NotHere,
        1 => SnapshotRefusal::Damaged { number: chunk_number(reader)? },
        2 => SnapshotRefusal::Busy,
        found => return Err(Error::Invalid { what: "refusal about a snapshot", found: u64::from(found) }),
    })
}

fn chunk_number(reader: &mut Reader<'_>) -> Result<u32, Error> {
    let number = reader.u32("number of a chunk")?;
    match (number as usize) < SNAPSHOT_CHUNKS_MAX {
        true => Ok(number),
        false => Err(Error::Invalid { what: "number of a chunk", found: u64::from(number) }),
    }
}

fn put_bytes(out: &mut BytesMut, bytes: &Bytes) {
    put_length(out, bytes.len());
    out.put_slice(bytes);
}

fn sized(bytes: &mut Bytes, max: usize, what: &'static str) -> Result<Bytes, Error> {
    let length = take_fields(bytes, |reader| reader.length(max, what))?;
    take_bytes(bytes, length, what)
}
