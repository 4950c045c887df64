//! Requests that a node passes on to the leader, and what came of them, as bytes. The tables stand in docs/formats.md.

use bytes::{BufMut, Bytes, BytesMut};

use crate::codec::{Error, Reader};
use crate::limits::WIRE_FRAME_BYTES_MAX;
use crate::types::{Data, Incarnation, Term};

use super::answer_wire::{Refusal, SubmitResult, put_refusal, put_results, refusal, results};
use super::client_wire::{CLIENT_FRAME_BYTES_MAX, commands, put_commands};
use super::wire::{Frame, put_frame, refuse_rest, take_fields};

/// The longest frame of the stream: an answer at the bound of all frames. Requests are shorter.
pub const FORWARD_FRAME_BYTES_MAX: usize = WIRE_FRAME_BYTES_MAX;
/// What the state machine's answers to one request may take together: with the heads they fit a frame.
pub const FORWARDED_ANSWER_BYTES_MAX: usize = 6 << 20;

const _: () = assert!(CLIENT_FRAME_BYTES_MAX + HEAD_BYTES <= FORWARD_FRAME_BYTES_MAX);

/// Bytes before the commands: the copy's id, and the term.
const HEAD_BYTES: usize = 32;

pub(super) const KIND_FORWARD_STREAM: u8 = 3;
const KIND_FORWARD: u8 = 48;
const KIND_FORWARDED: u8 = 49;

/// Names one copy of a request that was passed on: by the node that did, in which life and since which start. Never
/// used again, so that no answer is taken for that to another copy.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct ForwardId {
    pub incarnation: Incarnation,
    pub boot: u64,
    pub number: u64,
}

/// A client's commands, on their way to the leader of this term: no other takes them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Forward {
    pub id: ForwardId,
    pub term: Term,
    pub commands: Vec<Data>,
}

/// What the leader says of them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Forwarded {
    pub id: ForwardId,
    /// As of a client's own request.
    pub outcome: Result<Vec<SubmitResult>, Refusal>,
}

/// What a frame on the stream for forwarded requests holds, in either direction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ForwardMessage {
    Forward(Forward),
    Forwarded(Forwarded),
}

/// The first frame on the stream.
pub fn put_forward_stream(out: &mut BytesMut) {
    put_frame(out, KIND_FORWARD_STREAM, |_| {});
}

pub fn forward_stream(frame: &Frame) -> Result<(), Error> {
    match frame.kind {
        KIND_FORWARD_STREAM => refuse_rest(&frame.body, "forward stream frame"),
        found => Err(Error::Invalid { what: "forward stream frame", found: u64::from(found) }),
    }
}

/// Appends a request as one frame. The bounds of limits.rs were kept by the client that sent it.
pub fn put_forward(out: &mut BytesMut, forward: &Forward) {
    put_frame(out, KIND_FORWARD, |out| {
        put_id(out, forward.id);
        out.put_u64_le(forward.term.0);
        put_commands(out, &forward.commands);
    });
}

/// Appends an answer as one frame. Where the state machine's answers are too long for one, what was done is not known
/// to the client any more.
pub fn put_forwarded(out: &mut BytesMut, forwarded: &Forwarded) {
    put_frame(out, KIND_FORWARDED, |out| {
        put_id(out, forwarded.id);
        match &forwarded.outcome {
            Ok(results) if answer_bytes(results) <= FORWARDED_ANSWER_BYTES_MAX => {
                out.put_u8(0);
                put_results(out, results);
            }
            Ok(_) => {
                out.put_u8(1);
                put_refusal(out, &Refusal::OutcomeUnknown);
            }
            Err(refusal) => {
                out.put_u8(1);
                put_refusal(out, refusal);
            }
        }
    });
}

/// What a frame holds. Commands and answers share its memory; commands' checksums are verified.
pub fn forward_message(frame: Frame) -> Result<ForwardMessage, Error> {
    let Frame { kind, body: mut bytes } = frame;
    let id = take_fields(&mut bytes, id)?;
    let message = match kind {
        KIND_FORWARD => {
            let term = take_fields(&mut bytes, |reader| Ok(Term(reader.u64("term")?)))?;
            ForwardMessage::Forward(Forward { id, term, commands: commands(&mut bytes)? })
        }
        KIND_FORWARDED => ForwardMessage::Forwarded(Forwarded { id, outcome: outcome(&mut bytes)? }),
        found => return Err(Error::Invalid { what: "kind of forwarded message", found: u64::from(found) }),
    };
    refuse_rest(&bytes, "forwarded message")?;
    Ok(message)
}

fn outcome(bytes: &mut Bytes) -> Result<Result<Vec<SubmitResult>, Refusal>, Error> {
    Ok(match take_fields(bytes, |reader| reader.u8("outcome of a forwarded request"))? {
        0 => Ok(results(bytes)?),
        1 => Err(take_fields(bytes, refusal)?),
        found => {
            return Err(Error::Invalid { what: "outcome of a forwarded request", found: u64::from(found) });
        }
    })
}

fn answer_bytes(results: &[SubmitResult]) -> usize {
    let bytes = |result: &SubmitResult| if let SubmitResult::Done { answer, .. } = result { answer.len() } else { 0 };
    results.iter().map(bytes).sum()
}

fn put_id(out: &mut BytesMut, id: ForwardId) {
    out.put_u64_le(id.incarnation.0);
    out.put_u64_le(id.boot);
    out.put_u64_le(id.number);
}

fn id(reader: &mut Reader<'_>) -> Result<ForwardId, Error> {
    Ok(ForwardId {
        incarnation: Incarnation(reader.u64("incarnation of the forwarder")?),
        boot: reader.u64("boot number of the forwarder")?,
        number: reader.u64("number of a forwarded request")?,
    })
}
