//! What clients are told, as bytes. The tables stand in docs/formats.md.

use std::net::SocketAddr;

use bytes::{BufMut, Bytes, BytesMut};

use crate::codec::{self, Error, Reader};
use crate::limits::{RECORD_BYTES_MAX, REQUEST_RECORDS_MAX, SESSION_ANSWER_BYTES_MAX, WIRE_FRAME_BYTES_MAX};
use crate::types::{Index, NodeId};

use super::snapshot_status_wire::{self, SnapshotMade};
use super::status_wire::{self, NodeStatus};
use super::wire::{
    Frame, flag, plausible, put_frame, put_length, put_text, refuse_rest, take_bytes, take_fields, text,
};

const KIND_SUBMITTED: u8 = 96;
const KIND_RECORDS: u8 = 97;
const KIND_ANSWER: u8 = 98;
const KIND_STATUS: u8 = 99;
const KIND_CHANGED: u8 = 100;
const KIND_REFUSED: u8 = 101;
const KIND_SNAPSHOT_MADE: u8 = 102;

/// Bytes of a record before its bytes: index and length.
const RECORD_HEAD_BYTES: usize = 12;
/// The fewest bytes that one result takes.
const RESULT_BYTES_MIN: usize = 2;
/// Bytes a reader may ask for at once, heads included: the answer must fit a frame.
pub const READ_BYTES_MAX: usize = WIRE_FRAME_BYTES_MAX - RECORD_BYTES_MAX - 4096;

/// The answer to the request with this number.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Response {
    pub id: u64,
    pub body: ResponseBody,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ResponseBody {
    /// What became of the commands, in their order; together the results cover each of them once.
    Submitted {
        results: Vec<SubmitResult>,
    },
    Records(Records),
    /// What the state machine said.
    Answer(Bytes),
    Status(Box<NodeStatus>),
    /// The change is committed; `index` is that of its entry, or 0 if it needs none.
    Changed {
        index: Index,
    },
    Refused(Refusal),
    /// The snapshot that was ordered is durable on the leader.
    SnapshotMade(SnapshotMade),
}

/// What became of one command, or of a run of them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SubmitResult {
    /// `count` commands with nothing to say but their indexes, which are consecutive.
    Run { first: Index, count: u32 },
    /// One command: where it stands, and what the state machine answered.
    Done { index: Index, answer: Bytes },
    /// One command that was not carried out, or whose outcome is unknown.
    Refused(Refusal),
}

/// Appended records, in order, with gaps where other entries stand. On a tail's stream the id is 0.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Records {
    pub records: Vec<(Index, Bytes)>,
    /// Where to read on.
    pub next: Index,
    /// The first readable index.
    pub first: Index,
    pub commit: Index,
}

/// Why a node does not do what it was asked.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refusal {
    #[error("this node does not lead{}", leader_suffix(.leader))]
    NotLeader { leader: Option<(NodeId, SocketAddr)> },
    #[error("too much is waiting; try again later")]
    Busy,
    #[error("the disk is full")]
    NoSpace,
    #[error("larger than {max} bytes")]
    TooLarge { max: u64 },
    #[error("the session is gone; register a new one")]
    SessionGone,
    #[error("request {expected} of this session must come first")]
    Gap { expected: u64 },
    #[error("records below {first} were trimmed")]
    Trimmed { first: Index },
    #[error("unavailable: {reason}")]
    Unavailable { reason: String },
    #[error("it was sent, but what became of it is unknown")]
    OutcomeUnknown,
    #[error("not understood")]
    Malformed,
    #[error("this needs an admin certificate")]
    NotAllowed,
    #[error("reads by lease are off in this cluster")]
    LeasesOff,
    /// A change that will be refused again as long as the members are as they are.
    #[error("{reason}")]
    Impossible { reason: String },
    /// The leader could not write the snapshot that was ordered. The log goes on.
    #[error("the snapshot failed: {reason}")]
    SnapshotFailed { reason: String },
    #[error("this cluster keeps its log for the map alone, and takes no records")]
    MapAlone,
}

/// Appends a response as one frame. Records are bounded by [`READ_BYTES_MAX`] before they come here.
pub fn put_response(out: &mut BytesMut, response: &Response) {
    let kind = match response.body {
        ResponseBody::Submitted { .. } => KIND_SUBMITTED,
        ResponseBody::Records(_) => KIND_RECORDS,
        ResponseBody::Answer(_) => KIND_ANSWER,
        ResponseBody::Status(_) => KIND_STATUS,
        ResponseBody::Changed { .. } => KIND_CHANGED,
        ResponseBody::Refused(_) => KIND_REFUSED,
        ResponseBody::SnapshotMade(_) => KIND_SNAPSHOT_MADE,
    };
    put_frame(out, kind, |out| {
        out.put_u64_le(response.id);
        match &response.body {
            ResponseBody::Submitted { results } => put_results(out, results),
            ResponseBody::Records(records) => put_records(out, records),
            ResponseBody::Answer(answer) => out.put_slice(answer),
            ResponseBody::Status(status) => status_wire::put_status(out, status),
            ResponseBody::Changed { index } => out.put_u64_le(index.0),
            ResponseBody::Refused(refusal) => put_refusal(out, refusal),
            ResponseBody::SnapshotMade(made) => snapshot_status_wire::put_snapshot_made(out, made),
        }
    });
}

/// The response in a frame. Records and answers share its memory.
pub fn response(frame: Frame) -> Result<Response, Error> {
    let Frame { kind, body: mut bytes } = frame;
    let id = take_fields(&mut bytes, |reader| reader.u64("request number"))?;
    let body = match kind {
        KIND_SUBMITTED => ResponseBody::Submitted { results: results(&mut bytes)? },
        KIND_RECORDS => ResponseBody::Records(records(&mut bytes)?),
        KIND_ANSWER => ResponseBody::Answer(std::mem::take(&mut bytes)),
        KIND_STATUS => ResponseBody::Status(Box::new(take_fields(&mut bytes, status_wire::status)?)),
        KIND_CHANGED => ResponseBody::Changed { index: take_fields(&mut bytes, index)? },
        KIND_REFUSED => ResponseBody::Refused(take_fields(&mut bytes, refusal)?),
        KIND_SNAPSHOT_MADE => ResponseBody::SnapshotMade(take_fields(&mut bytes, snapshot_status_wire::snapshot_made)?),
        found => return Err(Error::Invalid { what: "kind of response", found: u64::from(found) }),
    };
    refuse_rest(&bytes, "response")?;
    Ok(Response { id, body })
}

pub(super) fn put_results(out: &mut BytesMut, results: &[SubmitResult]) {
    put_length(out, results.len());
    for result in results {
        match result {
            SubmitResult::Run { first, count } => {
                out.put_u8(0);
                out.put_u64_le(first.0);
                out.put_u32_le(*count);
            }
            SubmitResult::Done { index, answer } => {
                out.put_u8(1);
                out.put_u64_le(index.0);
                put_length(out, answer.len());
                out.put_slice(answer);
            }
            SubmitResult::Refused(refusal) => {
                out.put_u8(2);
                put_refusal(out, refusal);
            }
        }
    }
}

pub(super) fn results(bytes: &mut Bytes) -> Result<Vec<SubmitResult>, Error> {
    let count = take_fields(bytes, |reader| reader.length(REQUEST_RECORDS_MAX, "number of results"))?;
    let mut results = Vec::with_capacity(plausible(count, RESULT_BYTES_MIN, bytes.len()));
    for _ in 0..count {
        results.push(result(bytes)?);
    }
    Ok(results)
}

fn result(bytes: &mut Bytes) -> Result<SubmitResult, Error> {
    Ok(match take_fields(bytes, |reader| reader.u8("kind of result"))? {
        0 => take_fields(bytes, |reader| {
            let first = index(reader)?;
            let count = reader.length(REQUEST_RECORDS_MAX, "length of a run")? as u32;
            match first.0.checked_add(u64::from(count)) {
                Some(_) => Ok(SubmitResult::Run { first, count }),
                None => Err(Error::Invalid { what: "first index of a run", found: first.0 }),
            }
        })?,
        1 => {
            let (index, length) = take_fields(bytes, |reader| {
                Ok((index(reader)?, reader.length(SESSION_ANSWER_BYTES_MAX, "answer length")?))
            })?;
            SubmitResult::Done { index, answer: take_bytes(bytes, length, "answer")? }
        }
        2 => SubmitResult::Refused(take_fields(bytes, refusal)?),
        found => return Err(Error::Invalid { what: "kind of result", found: u64::from(found) }),
    })
}

fn put_records(out: &mut BytesMut, records: &Records) {
    out.put_u64_le(records.next.0);
    out.put_u64_le(records.first.0);
    out.put_u64_le(records.commit.0);
    put_length(out, records.records.len());
    for (index, bytes) in &records.records {
        out.put_u64_le(index.0);
        put_length(out, bytes.len());
        out.put_slice(bytes);
    }
}

fn records(bytes: &mut Bytes) -> Result<Records, Error> {
    let (next, first, commit, count) = take_fields(bytes, |reader| {
        let heads = (index(reader)?, index(reader)?, index(reader)?);
        let count = reader.length(WIRE_FRAME_BYTES_MAX / RECORD_HEAD_BYTES, "number of records")?;
        Ok((heads.0, heads.1, heads.2, count))
    })?;
    let mut records = Vec::with_capacity(plausible(count, RECORD_HEAD_BYTES, bytes.len()));
    for _ in 0..count {
        let (index, length) =
            take_fields(bytes, |reader| Ok((index(reader)?, reader.length(RECORD_BYTES_MAX, "record length")?)))?;
        records.push((index, take_bytes(bytes, length, "record")?));
    }
    Ok(Records { records, next, first, commit })
}

pub(super) fn put_refusal(out: &mut BytesMut, refusal: &Refusal) {
    match refusal {
        Refusal::NotLeader { leader } => {
            out.put_u8(0);
            put_leader(out, leader);
        }
        Refusal::Busy => out.put_u8(1),
        Refusal::NoSpace => out.put_u8(2),
        Refusal::TooLarge { max } => {
            out.put_u8(3);
            out.put_u64_le(*max);
        }
        Refusal::SessionGone => out.put_u8(4),
        Refusal::Gap { expected } => {
            out.put_u8(5);
            out.put_u64_le(*expected);
        }
        Refusal::Trimmed { first } => {
            out.put_u8(6);
            out.put_u64_le(first.0);
        }
        Refusal::Unavailable { reason } => {
            out.put_u8(7);
            put_text(out, reason);
        }
        Refusal::OutcomeUnknown => out.put_u8(8),
        Refusal::Malformed => out.put_u8(9),
        Refusal::NotAllowed => out.put_u8(10),
        Refusal::LeasesOff => out.put_u8(11),
        Refusal::Impossible { reason } => {
            out.put_u8(12);
            put_text(out, reason);
        }
        Refusal::SnapshotFailed { reason } => {
            out.put_u8(13);
            put_text(out, reason);
        }
        Refusal::MapAlone => out.put_u8(14),
    }
}

pub(super) fn refusal(reader: &mut Reader<'_>) -> Result<Refusal, Error> {
    Ok(match reader.u8("kind of refusal")? {
        0 => Refusal::NotLeader { leader: leader(reader)? },
        1 => Refusal::Busy,
        2 => Refusal::NoSpace,
        3 => Refusal::TooLarge { max: reader.u64("largest size")? },
        4 => Refusal::SessionGone,
        5 => Refusal::Gap { expected: reader.u64("expected number")? },
        6 => Refusal::Trimmed { first: index(reader)? },
        7 => Refusal::Unavailable { reason: text(reader, "reason")? },
        8 => Refusal::OutcomeUnknown,
        9 => Refusal::Malformed,
        10 => Refusal::NotAllowed,
        11 => Refusal::LeasesOff,
        12 => Refusal::Impossible { reason: text(reader, "reason")? },
        13 => Refusal::SnapshotFailed { reason: text(reader, "reason")? },
        14 => Refusal::MapAlone,
        found => return Err(Error::Invalid { what: "kind of refusal", found: u64::from(found) }),
    })
}

pub(super) fn put_leader(out: &mut BytesMut, leader: &Option<(NodeId, SocketAddr)>) {
    out.put_u8(u8::from(leader.is_some()));
    if let Some((node, address)) = leader {
        out.put_u64_le(node.0);
        codec::put_address(out, *address);
    }
}

pub(super) fn leader(reader: &mut Reader<'_>) -> Result<Option<(NodeId, SocketAddr)>, Error> {
    match flag(reader, "flag of a leader")? {
        true => Ok(Some((NodeId(reader.u64("leader")?), codec::address(reader)?))),
        false => Ok(None),
    }
}

fn index(reader: &mut Reader<'_>) -> Result<Index, Error> {
    Ok(Index(reader.u64("index")?))
}

fn leader_suffix(leader: &Option<(NodeId, SocketAddr)>) -> String {
    leader.map(|(node, address)| format!("; node {node} at {address} does")).unwrap_or_default()
}
