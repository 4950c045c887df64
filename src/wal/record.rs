//! Records: one entry (or one cut) each, inside a frame.
//!
//! A head of fixed size, the payload, zeros to a multiple of 8; docs/formats.md has the bytes.
//!
//! A record is valid if and only if its head's checksum holds, its kind is known, its zeros are zero, its payload lies
//! within the frame and the payload's checksum holds. The head's salt ties it to its segment and frame: a record of
//! another place or another life of the file never passes. Because heads stand on multiples of 8 and are salted, the
//! record behind a damaged one is found by searching.

use bytes::Bytes;

use crate::checksum::Checksum;
use crate::codec;
use crate::disk::Buffer;
use crate::mutant::{self, Mutant};
use crate::types::{Data, Entry, FrameNumber, GroupId, Index, LogId, Payload, Term};

pub const RECORD_HEAD_BYTES: usize = 40;
/// Records start on a multiple of this within a frame.
pub const RECORD_ALIGNMENT_BYTES: usize = 8;

/// The salt of one frame's records: no two frames of a log share one, in space or in time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FrameSalt {
    salt: u64,
    /// The checksum of the salt alone: where those of all records go on from.
    start: Checksum,
}

impl FrameSalt {
    pub fn new(segment_salt: u64, frame: FrameNumber) -> FrameSalt {
        // The multiplier is odd, so distinct frame numbers give distinct salts.
        let mut salt = segment_salt ^ frame.0.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        if mutant::is_on(Mutant::ChecksumWithoutPlace) || mutant::is_on(Mutant::OlderGenerationAccepted) {
            salt = 0;
        }
        FrameSalt { salt, start: Checksum::salted(salt, &[]) }
    }

    pub fn checksum(self, pieces: &[&[u8]]) -> Checksum {
        Checksum::salted(self.salt, pieces)
    }

    /// Of all that a head holds behind its checksum.
    fn checksum_of_head(self, head: &[u8; RECORD_HEAD_BYTES]) -> Checksum {
        if mutant::is_on(Mutant::ChecksumWithoutLength) {
            return self.checksum(&[&head[4..8], &head[12..]]);
        }
        self.start.continued(&head[4..])
    }
}

/// What a record does to its group's log.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum RecordKind {
    /// An entry. It ends all older entries of its group from its index on.
    Entry,
    /// Ends all older entries from its index on, and adds none.
    Truncate,
    /// Ends all entries below its index. The term is that of the last entry that ended.
    Purge,
}

/// The head of a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RecordHead {
    pub group: GroupId,
    pub kind: RecordKind,
    pub id: LogId,
    pub payload_kind: u8,
    pub payload_length: usize,
    pub payload_checksum: Checksum,
}

/// What is wrong with a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RecordFault {
    #[error("its head does not fit the frame")]
    HeadOutside,
    #[error("the checksum of its head does not hold")]
    Head,
    #[error("its kind is unknown")]
    Kind,
    #[error("its payload reaches beyond the frame")]
    PayloadOutside,
    #[error("the checksum of its payload does not hold")]
    Payload,
    #[error("its padding is not zero")]
    Padding,
}

impl RecordHead {
    /// As a directory names it.
    pub fn name(&self) -> (GroupId, RecordKind, LogId) {
        (self.group, self.kind, self.id)
    }
}

impl RecordKind {
    pub fn byte(self) -> u8 {
        match self {
            RecordKind::Entry => 1,
            RecordKind::Truncate => 2,
            RecordKind::Purge => 3,
        }
    }

    pub fn from_byte(byte: u8) -> Option<RecordKind> {
        match byte {
            1 => Some(RecordKind::Entry),
            2 => Some(RecordKind::Truncate),
            3 => Some(RecordKind::Purge),
            _ => None,
        }
    }
}

/// Bytes a record takes in a frame.
pub fn record_bytes(payload_length: usize) -> usize {
    RECORD_HEAD_BYTES + payload_length.next_multiple_of(RECORD_ALIGNMENT_BYTES)
}

/// Bytes an entry takes in a frame.
pub fn entry_record_bytes(entry: &Entry) -> usize {
    record_bytes(codec::entry_bytes(entry) - codec::ENTRY_HEAD_BYTES)
}

/// Appends an entry's record.
pub fn put_entry(out: &mut Buffer, salt: FrameSalt, group: GroupId, entry: &Entry) {
    let payload_kind = codec::payload_kind(&entry.payload);
    match &entry.payload {
        Payload::Data(data) => put(out, salt, group, RecordKind::Entry, entry.id, payload_kind, data),
        other => put(out, salt, group, RecordKind::Entry, entry.id, payload_kind, &codec::payload_data(other)),
    }
}

/// Appends the record of a cut: nothing but a head.
pub fn put_cut(out: &mut Buffer, salt: FrameSalt, group: GroupId, kind: RecordKind, id: LogId) {
    assert!(kind != RecordKind::Entry, "an entry is no cut");
    put(out, salt, group, kind, id, 0, &Data::new(Bytes::new()));
}

fn put(
    out: &mut Buffer,
    salt: FrameSalt,
    group: GroupId,
    kind: RecordKind,
    id: LogId,
    payload_kind: u8,
    payload: &Data,
) {
    let mut head = head_without_checksum(group, kind, id, payload_kind, payload);
    let checksum = salt.checksum_of_head(&head);
    head[..4].copy_from_slice(&checksum.0.to_le_bytes());
    out.extend(&head);
    out.extend(&payload.bytes);
    out.pad_to(RECORD_ALIGNMENT_BYTES);
}

/// Appends the record of a data entry, with zeros for the checksum of its head: see [`finish_heads`].
pub fn encode_data(out: &mut Vec<u8>, group: GroupId, id: LogId, data: &Data) {
    let head = head_without_checksum(group, RecordKind::Entry, id, codec::DATA_KIND, data);
    let padding = data.bytes.len().next_multiple_of(RECORD_ALIGNMENT_BYTES) - data.bytes.len();
    out.reserve(record_bytes(data.bytes.len()));
    out.extend_from_slice(&head);
    out.extend_from_slice(&data.bytes);
    out.extend_from_slice(&[0; RECORD_ALIGNMENT_BYTES][..padding]);
}

/// Gives records that [`encode_data`] has made, one behind the other, the checksums of their heads.
pub fn finish_heads(records: &mut [u8], salt: FrameSalt) {
    let mut rest = records;
    while !rest.is_empty() {
        let head = rest.first_chunk_mut::<RECORD_HEAD_BYTES>().expect("a record ends where the next begins");
        let checksum = salt.checksum_of_head(head);
        head[..4].copy_from_slice(&checksum.0.to_le_bytes());
        let length = u32::from_le_bytes([head[8], head[9], head[10], head[11]]);
        rest = &mut rest[record_bytes(length as usize)..];
    }
}

fn head_without_checksum(
    group: GroupId,
    kind: RecordKind,
    id: LogId,
    payload_kind: u8,
    payload: &Data,
) -> [u8; RECORD_HEAD_BYTES] {
    let length = u32::try_from(payload.bytes.len()).expect("payloads are bounded by limits.rs");
    let mut head = [0u8; RECORD_HEAD_BYTES];
    head[4..8].copy_from_slice(&payload.checksum.0.to_le_bytes());
    head[8..12].copy_from_slice(&length.to_le_bytes());
    head[12..16].copy_from_slice(&group.0.to_le_bytes());
    head[16..24].copy_from_slice(&id.index.0.to_le_bytes());
    head[24..32].copy_from_slice(&id.term.0.to_le_bytes());
    head[32] = kind.byte();
    head[33] = payload_kind;
    head
}

/// Reads the head at the start of `bytes`, which reach to the end of the frame's records.
pub fn parse_head(bytes: &[u8], salt: FrameSalt) -> Result<RecordHead, RecordFault> {
    let head: &[u8; RECORD_HEAD_BYTES] = bytes.first_chunk().ok_or(RecordFault::HeadOutside)?;
    let word = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
    if salt.checksum_of_head(head) != Checksum(word(0)) {
        return Err(RecordFault::Head);
    }
    if head[34..].iter().any(|&byte| byte != 0) {
        return Err(RecordFault::Padding);
    }
    Ok(RecordHead {
        group: GroupId(word(12)),
        kind: RecordKind::from_byte(head[32]).ok_or(RecordFault::Kind)?,
        id: LogId::new(Term(long(24)), Index(long(16))),
        payload_kind: head[33],
        payload_length: word(8) as usize,
        payload_checksum: Checksum(word(4)),
    })
}

/// Reads and verifies the record at the start of `bytes`; gives its head, its payload and its whole size.
pub fn parse(bytes: &[u8], salt: FrameSalt) -> Result<(RecordHead, &[u8], usize), RecordFault> {
    let head = parse_head(bytes, salt)?;
    let size = record_bytes(head.payload_length);
    if size > bytes.len() {
        return Err(RecordFault::PayloadOutside);
    }
    let (payload, padding) = bytes[RECORD_HEAD_BYTES..size].split_at(head.payload_length);
    if Checksum::of(payload) != head.payload_checksum {
        return Err(RecordFault::Payload);
    }
    if padding.iter().any(|&byte| byte != 0) {
        return Err(RecordFault::Padding);
    }
    Ok((head, payload, size))
}

const _: () = assert!(RECORD_HEAD_BYTES.is_multiple_of(RECORD_ALIGNMENT_BYTES));
