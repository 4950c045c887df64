//! What nodes say to each other, as bytes. The tables stand in docs/formats.md.

use bytes::{BufMut, Bytes, BytesMut};

use crate::codec::{self, Error, Reader};
use crate::limits::{APPEND_BYTES_MAX, APPEND_ENTRIES_MAX, BOOT_MAX, RECORD_BYTES_MAX};
use crate::raft::message::{Append, AppendOutcome, AppendReply, Base, Body, Message, Round, Sender};
use crate::types::{ClusterId, Incarnation, Index, LogId, NodeId, Term};

use super::wire::{self, Frame, flag, plausible, put_frame, put_length, refuse_rest, take_fields};

/// The version that a [`Hello`] carries. Two nodes talk if theirs are equal.
pub const PEER_PROTOCOL_VERSION: u32 = 1;
/// The longest frame between nodes: an AppendEntries at its bound, or one with a single record of the largest size,
/// and the heads.
pub const PEER_FRAME_BYTES_MAX: usize =
    APPEND_BYTES_MAX + RECORD_BYTES_MAX + APPEND_ENTRIES_MAX * codec::ENTRY_HEAD_BYTES + 4096;

const _: () = assert!(PEER_FRAME_BYTES_MAX <= crate::limits::WIRE_FRAME_BYTES_MAX);

pub(super) const KIND_HELLO: u8 = 1;
pub(super) const KIND_LOG_STREAM: u8 = 2;
const KIND_PRE_VOTE: u8 = 16;
const KIND_PRE_VOTE_REPLY: u8 = 17;
const KIND_VOTE: u8 = 18;
const KIND_VOTE_REPLY: u8 = 19;
const KIND_APPEND: u8 = 20;
const KIND_APPEND_REPLY: u8 = 21;
const KIND_HEARTBEAT: u8 = 22;
const KIND_HEARTBEAT_REPLY: u8 = 23;
const KIND_READ_INDEX: u8 = 24;
const KIND_READ_INDEX_REPLY: u8 = 25;
const KIND_STAND_NOW: u8 = 26;
const KIND_SNAPSHOT: u8 = 27;

/// Who a node claims to be. The first frame on the control stream, in both directions; the certificate must agree.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hello {
    pub cluster: ClusterId,
    pub node: NodeId,
    pub incarnation: Incarnation,
    /// Counts the starts of this node on this directory.
    pub boot: u64,
    pub protocol_version: u32,
    /// Of all settings that must agree across the cluster: in the low half of the first members, 0 where it was not told
    /// any; in the high half of all others.
    pub fingerprint: u64,
    /// The entry of the configuration that is in force here; zero if it is the one before the log.
    pub configuration: LogId,
    /// Which life of the receiver that configuration means, if the receiver is a member.
    pub receiver: Option<Incarnation>,
}

impl Hello {
    /// Who sends what comes after it.
    pub fn sender(&self) -> Sender {
        Sender { incarnation: self.incarnation, boot: self.boot, configuration: self.configuration }
    }

    /// Whether two nodes were told the same of what must agree.
    pub(super) fn agrees(&self, other: &Hello) -> bool {
        let halves = |fingerprint: u64| ((fingerprint >> 32) as u32, fingerprint as u32);
        let ((settings, first), (other_settings, other_first)) = (halves(self.fingerprint), halves(other.fingerprint));
        settings == other_settings && (first == other_first || first == 0 || other_first == 0)
    }
}

pub fn put_hello(out: &mut BytesMut, hello: &Hello) {
    put_frame(out, KIND_HELLO, |out| {
        out.put_u128_le(hello.cluster.0);
        out.put_u64_le(hello.node.0);
        out.put_u64_le(hello.incarnation.0);
        out.put_u64_le(hello.boot);
        out.put_u32_le(hello.protocol_version);
        out.put_u64_le(hello.fingerprint);
        codec::put_log_id(out, hello.configuration);
        out.put_u8(u8::from(hello.receiver.is_some()));
        out.put_u64_le(hello.receiver.map_or(0, |named| named.0));
    });
}

pub fn hello(frame: &Frame) -> Result<Hello, Error> {
    expect_kind(frame, KIND_HELLO, "hello frame")?;
    let mut reader = Reader::new(&frame.body);
    let hello = Hello {
        cluster: ClusterId(reader.u128("cluster id")?),
        node: NodeId(reader.u64("node id")?),
        incarnation: Incarnation(reader.u64("incarnation")?),
        boot: reader.u64("boot number")?,
        protocol_version: reader.u32("protocol version")?,
        fingerprint: reader.u64("fingerprint")?,
        configuration: codec::log_id(&mut reader)?,
        receiver: receiver(&mut reader)?,
    };
    reader.finish("hello")?;
    // It is remembered in the superblock, which holds none above.
    if hello.boot > BOOT_MAX {
        return Err(Error::Invalid { what: "boot number", found: hello.boot });
    }
    if hello.incarnation == Incarnation::OPEN {
        return Err(Error::Invalid { what: "incarnation", found: 0 });
    }
    Ok(hello)
}

/// One encoding for one value: 0 where none is named.
fn receiver(reader: &mut Reader<'_>) -> Result<Option<Incarnation>, Error> {
    match (flag(reader, "flag of the receiver")?, reader.u64("incarnation of the receiver")?) {
        (true, incarnation) => Ok(Some(Incarnation(incarnation))),
        (false, 0) => Ok(None),
        (false, found) => Err(Error::Invalid { what: "incarnation of a receiver that is no member", found }),
    }
}

/// The first frame on the log stream.
pub fn put_log_stream(out: &mut BytesMut) {
    put_frame(out, KIND_LOG_STREAM, |_| {});
}

pub fn log_stream(frame: &Frame) -> Result<(), Error> {
    expect_kind(frame, KIND_LOG_STREAM, "log stream frame")?;
    refuse_rest(&frame.body, "log stream frame")
}

/// Appends a message as one frame.
pub fn put_message(out: &mut BytesMut, message: &Message) {
    put_frame(out, kind(&message.body), |out| {
        out.put_u64_le(message.from.0);
        out.put_u64_le(message.to.0);
        out.put_u64_le(message.term.0);
        put_body(out, &message.body);
    });
}

/// The message in a frame. Entries share its memory; their checksums are verified.
pub fn message(frame: Frame) -> Result<Message, Error> {
    let Frame { kind, body: mut bytes } = frame;
    let (from, to, term) = take_fields(&mut bytes, |reader| {
        Ok((NodeId(reader.u64("sender")?), NodeId(reader.u64("receiver")?), Term(reader.u64("term")?)))
    })?;
    let body = match kind {
        KIND_APPEND => Body::Append(append(&mut bytes)?),
        _ => take_fields(&mut bytes, |reader| small_body(kind, reader))?,
    };
    refuse_rest(&bytes, "message")?;
    Ok(Message { from, to, term, body })
}

fn kind(body: &Body) -> u8 {
    match body {
        Body::PreVote { .. } => KIND_PRE_VOTE,
        Body::PreVoteReply { .. } => KIND_PRE_VOTE_REPLY,
        Body::Vote { .. } => KIND_VOTE,
        Body::VoteReply { .. } => KIND_VOTE_REPLY,
        Body::Append(_) => KIND_APPEND,
        Body::AppendReply(_) => KIND_APPEND_REPLY,
        Body::Heartbeat { .. } => KIND_HEARTBEAT,
        Body::HeartbeatReply { .. } => KIND_HEARTBEAT_REPLY,
        Body::ReadIndex { .. } => KIND_READ_INDEX,
        Body::ReadIndexReply { .. } => KIND_READ_INDEX_REPLY,
        Body::StandNow => KIND_STAND_NOW,
        Body::Snapshot { .. } => KIND_SNAPSHOT,
    }
}

fn put_body(out: &mut BytesMut, body: &Body) {
    match body {
        Body::PreVote { next, last } => {
            out.put_u64_le(next.0);
            codec::put_log_id(out, *last);
        }
        Body::PreVoteReply { next, granted } => {
            out.put_u64_le(next.0);
            out.put_u8(u8::from(*granted));
        }
        Body::Vote { last, transfer } => {
            codec::put_log_id(out, *last);
            out.put_u8(u8::from(*transfer));
        }
        Body::VoteReply { granted } => out.put_u8(u8::from(*granted)),
        Body::Append(append) => put_append(out, append),
        Body::AppendReply(reply) => put_append_reply(out, reply),
        Body::Heartbeat { commit, round } => {
            out.put_u64_le(commit.0);
            out.put_u64_le(round.0);
        }
        Body::HeartbeatReply { round } => out.put_u64_le(round.0),
        Body::ReadIndex { asked } => out.put_u64_le(*asked),
        Body::ReadIndexReply { asked, index } => {
            out.put_u64_le(*asked);
            out.put_u8(u8::from(index.is_some()));
            out.put_u64_le(index.unwrap_or_default().0);
        }
        Body::StandNow => {}
        Body::Snapshot { base, round } => {
            codec::put_log_id(out, base.point);
            codec::put_log_id(out, base.begin_after);
            out.put_u64_le(round.0);
        }
    }
}

fn put_append(out: &mut BytesMut, append: &Append) {
    codec::put_log_id(out, append.previous);
    out.put_u64_le(append.commit.0);
    out.put_u64_le(append.round.0);
    put_length(out, append.entries.len());
    for entry in &append.entries {
        codec::put_entry(out, entry);
    }
}

fn put_append_reply(out: &mut BytesMut, reply: &AppendReply) {
    out.put_u64_le(reply.round.0);
    match reply.outcome {
        AppendOutcome::Matched { last } => {
            out.put_u8(0);
            out.put_u64_le(last.0);
        }
        AppendOutcome::Rejected { previous, hint } => {
            out.put_u8(1);
            codec::put_log_id(out, previous);
            codec::put_log_id(out, hint);
        }
    }
}

fn small_body(kind: u8, reader: &mut Reader<'_>) -> Result<Body, Error> {
    Ok(match kind {
        KIND_PRE_VOTE => Body::PreVote { next: Term(reader.u64("next term")?), last: codec::log_id(reader)? },
        KIND_PRE_VOTE_REPLY => {
            Body::PreVoteReply { next: Term(reader.u64("next term")?), granted: flag(reader, "granted flag")? }
        }
        KIND_VOTE => Body::Vote { last: codec::log_id(reader)?, transfer: flag(reader, "transfer flag")? },
        KIND_VOTE_REPLY => Body::VoteReply { granted: flag(reader, "granted flag")? },
        KIND_APPEND_REPLY => Body::AppendReply(append_reply(reader)?),
        KIND_HEARTBEAT => Body::Heartbeat { commit: Index(reader.u64("commit index")?), round: round(reader)? },
        KIND_HEARTBEAT_REPLY => Body::HeartbeatReply { round: round(reader)? },
        KIND_READ_INDEX => Body::ReadIndex { asked: reader.u64("number of a read")? },
        KIND_READ_INDEX_REPLY => {
            Body::ReadIndexReply { asked: reader.u64("number of a read")?, index: read_index(reader)? }
        }
        KIND_STAND_NOW => Body::StandNow,
        KIND_SNAPSHOT => {
            let base = Base { point: codec::log_id(reader)?, begin_after: codec::log_id(reader)? };
            Body::Snapshot { base, round: round(reader)? }
        }
        found => return Err(Error::Invalid { what: "kind of message", found: u64::from(found) }),
    })
}

fn append(bytes: &mut Bytes) -> Result<Append, Error> {
    let (previous, commit, round, count) = take_fields(bytes, |reader| {
        let previous = codec::log_id(reader)?;
        let commit = Index(reader.u64("commit index")?);
        Ok((previous, commit, round(reader)?, reader.length(APPEND_ENTRIES_MAX, "number of entries")?))
    })?;
    let mut entries = Vec::with_capacity(plausible(count, codec::ENTRY_HEAD_BYTES, bytes.len()));
    for place in 0..count as u64 {
        let entry = codec::take_entry(bytes)?;
        // Consecutive, as the message promises: a replica may rely on it.
        if previous.index.0.checked_add(place + 1) != Some(entry.id.index.0) {
            return Err(Error::Invalid { what: "next index in order", found: entry.id.index.0 });
        }
        entries.push(entry);
    }
    Ok(Append { previous, entries, commit, round })
}

fn append_reply(reader: &mut Reader<'_>) -> Result<AppendReply, Error> {
    let round = round(reader)?;
    let outcome = match reader.u8("outcome of an append")? {
        0 => AppendOutcome::Matched { last: Index(reader.u64("matched index")?) },
        1 => AppendOutcome::Rejected { previous: codec::log_id(reader)?, hint: codec::log_id(reader)? },
        found => return Err(Error::Invalid { what: "outcome of an append", found: u64::from(found) }),
    };
    Ok(AppendReply { round, outcome })
}

fn read_index(reader: &mut Reader<'_>) -> Result<Option<Index>, Error> {
    let known = flag(reader, "flag of a read index")?;
    match (known, reader.u64("read index")?) {
        (true, index) => Ok(Some(Index(index))),
        (false, 0) => Ok(None),
        (false, found) => Err(Error::Invalid { what: "absent read index", found }),
    }
}

fn round(reader: &mut Reader<'_>) -> Result<Round, Error> {
    Ok(Round(reader.u64("round")?))
}

fn expect_kind(frame: &wire::Frame, kind: u8, what: &'static str) -> Result<(), Error> {
    match frame.kind == kind {
        true => Ok(()),
        false => Err(Error::Invalid { what, found: u64::from(frame.kind) }),
    }
}
