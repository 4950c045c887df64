//! What clients ask, as bytes; the answers stand in answer_wire.rs. The tables stand in docs/formats.md.

use bytes::{BufMut, Bytes, BytesMut};

use crate::checksum::Checksum;
use crate::codec::{self, COMMAND_HEAD_BYTES, Error, Reader};
use crate::limits::{MEMBERS_MAX, RECORD_BYTES_MAX, REQUEST_BYTES_MAX, REQUEST_RECORDS_MAX};
use crate::types::{ClusterId, Data, Incarnation, Index, Member, NodeId};

use super::wire::{Frame, plausible, put_frame, put_length, refuse_rest, take_bytes, take_fields};

/// The version that [`ClientHello`] and [`Welcome`] carry.
pub const CLIENT_PROTOCOL_VERSION: u32 = 1;
/// The longest frame from a client: a request at its bound with the heads of its records.
pub const CLIENT_FRAME_BYTES_MAX: usize = REQUEST_BYTES_MAX + 64 * 1024;

const _: () = assert!(CLIENT_FRAME_BYTES_MAX <= crate::limits::WIRE_FRAME_BYTES_MAX);
const _: () = assert!(REQUEST_RECORDS_MAX * DATA_HEAD_BYTES <= 64 * 1024 - 4096);

const KIND_CLIENT_HELLO: u8 = 64;
const KIND_WELCOME: u8 = 65;
const KIND_SUBMIT: u8 = 66;
const KIND_READ: u8 = 67;
const KIND_QUERY: u8 = 68;
const KIND_STATUS: u8 = 69;
const KIND_CHANGE: u8 = 70;
const KIND_TAIL: u8 = 71;
const KIND_SUBMIT_ANYWHERE: u8 = 72;

/// Bytes of a [`Data`] before its bytes: length and checksum.
const DATA_HEAD_BYTES: usize = 8;

/// The first frame of a client's stream for requests.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ClientHello {
    pub protocol_version: u32,
}

/// A node's answer to [`ClientHello`]: it has accepted the client's certificate and role.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Welcome {
    pub protocol_version: u32,
    pub cluster: ClusterId,
    pub node: NodeId,
    pub incarnation: Incarnation,
}

/// One request. Its answer carries the same number.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Request {
    /// Chosen by the client; used once per connection.
    pub id: u64,
    pub body: RequestBody,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RequestBody {
    /// To be replicated, in this order: each is a [`crate::types::Command`] with its body and checksum.
    Submit {
        commands: Vec<Data>,
    },
    /// As [`RequestBody::Submit`], and a node that does not lead passes it on to the one that does, once, and passes its
    /// answer back.
    SubmitAnywhere {
        commands: Vec<Data>,
    },
    /// Appended records from `from` on, below `to`, and not (much) more than `bytes_max` bytes.
    Read {
        from: Index,
        to: Option<Index>,
        bytes_max: u32,
        consistency: Consistency,
    },
    /// A question to the state machine, in its own encoding.
    Query {
        query: Bytes,
        consistency: Consistency,
    },
    Status,
    /// A change to the cluster itself. Needs the admin role.
    Change(Change),
}

/// How new an answer must be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Consistency {
    /// Shows everything that was acknowledged before the question was asked.
    Linearizable,
    /// Shows what this node has applied, however old.
    Stale,
    /// Shows at least what was applied at this index.
    AtLeast(Index),
    /// As linearizable, and the leader asks nobody, as long as clocks keep to the bound that the cluster is configured with.
    Lease,
}

/// What an administrator may order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// All at once, 1 to [`MEMBERS_MAX`]; answered when it is whole, and safe to ask for again.
    Members(Vec<MemberChange>),
    Transfer(NodeId),
    /// A snapshot of what is committed by now, on every node; answered when the leader's is durable, and safe to ask for
    /// again.
    Snapshot,
    /// Records below `first` may go.
    Trim {
        first: Index,
    },
}

/// One thing that is wanted of the members.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MemberChange {
    /// A new member, a learner at first. With `promote` it votes as soon as it has caught up; so does a learner that is
    /// there.
    Add { member: Member, promote: bool },
    /// A learner that has caught up is to vote.
    Promote { node: NodeId },
    /// Voter or learner: this life of it is to go. If another one is a member, or none, it is gone already.
    Remove { node: NodeId, incarnation: Incarnation },
}

/// The only frame from the client on a stream of its own: send appended records from here on, for ever.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TailRequest {
    pub from: Index,
}

/// What the first frame of a client's stream says that the stream is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ClientStream {
    Requests(ClientHello),
    Tail(TailRequest),
}

pub fn put_client_hello(out: &mut BytesMut, hello: ClientHello) {
    put_frame(out, KIND_CLIENT_HELLO, |out| out.put_u32_le(hello.protocol_version));
}

pub fn put_tail_request(out: &mut BytesMut, request: TailRequest) {
    put_frame(out, KIND_TAIL, |out| out.put_u64_le(request.from.0));
}

pub fn client_stream(frame: &Frame) -> Result<ClientStream, Error> {
    let mut reader = Reader::new(&frame.body);
    let stream = match frame.kind {
        KIND_CLIENT_HELLO => ClientStream::Requests(ClientHello { protocol_version: reader.u32("protocol version")? }),
        KIND_TAIL => ClientStream::Tail(TailRequest { from: Index(reader.u64("first index")?) }),
        found => return Err(Error::Invalid { what: "first frame of a stream", found: u64::from(found) }),
    };
    reader.finish("first frame of a stream")?;
    Ok(stream)
}

pub fn put_welcome(out: &mut BytesMut, welcome: &Welcome) {
    put_frame(out, KIND_WELCOME, |out| {
        out.put_u32_le(welcome.protocol_version);
        out.put_u128_le(welcome.cluster.0);
        out.put_u64_le(welcome.node.0);
        out.put_u64_le(welcome.incarnation.0);
    });
}

pub fn welcome(frame: &Frame) -> Result<Welcome, Error> {
    if frame.kind != KIND_WELCOME {
        return Err(Error::Invalid { what: "welcome frame", found: u64::from(frame.kind) });
    }
    let mut reader = Reader::new(&frame.body);
    let welcome = Welcome {
        protocol_version: reader.u32("protocol version")?,
        cluster: ClusterId(reader.u128("cluster id")?),
        node: NodeId(reader.u64("node id")?),
        incarnation: Incarnation(reader.u64("incarnation")?),
    };
    reader.finish("welcome")?;
    Ok(welcome)
}

/// Appends a request as one frame. The bounds of limits.rs are the caller's to keep.
pub fn put_request(out: &mut BytesMut, request: &Request) {
    let kind = match request.body {
        RequestBody::Submit { .. } => KIND_SUBMIT,
        RequestBody::SubmitAnywhere { .. } => KIND_SUBMIT_ANYWHERE,
        RequestBody::Read { .. } => KIND_READ,
        RequestBody::Query { .. } => KIND_QUERY,
        RequestBody::Status => KIND_STATUS,
        RequestBody::Change(_) => KIND_CHANGE,
    };
    put_frame(out, kind, |out| {
        out.put_u64_le(request.id);
        put_request_body(out, &request.body);
    });
}

/// The request in a frame. Commands share its memory; their checksums are verified.
pub fn request(frame: Frame) -> Result<Request, Error> {
    let Frame { kind, body: mut bytes } = frame;
    let id = take_fields(&mut bytes, |reader| reader.u64("request number"))?;
    let body = match kind {
        KIND_SUBMIT => RequestBody::Submit { commands: commands(&mut bytes)? },
        KIND_SUBMIT_ANYWHERE => RequestBody::SubmitAnywhere { commands: commands(&mut bytes)? },
        KIND_QUERY => query(&mut bytes)?,
        KIND_READ => take_fields(&mut bytes, read)?,
        KIND_STATUS => RequestBody::Status,
        KIND_CHANGE => RequestBody::Change(take_fields(&mut bytes, change)?),
        found => return Err(Error::Invalid { what: "kind of request", found: u64::from(found) }),
    };
    refuse_rest(&bytes, "request")?;
    Ok(Request { id, body })
}

fn put_request_body(out: &mut BytesMut, body: &RequestBody) {
    match body {
        RequestBody::Submit { commands } | RequestBody::SubmitAnywhere { commands } => put_commands(out, commands),
        RequestBody::Read { from, to, bytes_max, consistency } => {
            out.put_u64_le(from.0);
            out.put_u64_le(to.unwrap_or(Index(u64::MAX)).0);
            out.put_u32_le(*bytes_max);
            put_consistency(out, *consistency);
        }
        RequestBody::Query { query, consistency } => {
            put_consistency(out, *consistency);
            put_length(out, query.len());
            out.put_slice(query);
        }
        RequestBody::Status => {}
        RequestBody::Change(change) => put_change(out, change),
    }
}

pub(super) fn put_commands(out: &mut BytesMut, commands: &[Data]) {
    put_length(out, commands.len());
    for command in commands {
        put_length(out, command.bytes.len());
        out.put_u32_le(command.checksum.0);
        out.put_slice(&command.bytes);
    }
}

fn put_change(out: &mut BytesMut, change: &Change) {
    match change {
        Change::Members(changes) => {
            out.put_u8(0);
            put_length(out, changes.len());
            changes.iter().for_each(|change| put_member_change(out, change));
        }
        Change::Transfer(node) => put_numbered(out, 1, node.0),
        Change::Snapshot => out.put_u8(2),
        Change::Trim { first } => put_numbered(out, 3, first.0),
    }
}

fn put_member_change(out: &mut BytesMut, change: &MemberChange) {
    match change {
        MemberChange::Add { member, promote } => {
            out.put_u8(if *promote { 1 } else { 0 });
            out.put_u64_le(member.id.0);
            out.put_u64_le(member.incarnation.0);
            codec::put_address(out, member.address);
        }
        MemberChange::Promote { node } => put_numbered(out, 2, node.0),
        MemberChange::Remove { node, incarnation } => {
            put_numbered(out, 3, node.0);
            out.put_u64_le(incarnation.0);
        }
    }
}

fn put_numbered(out: &mut BytesMut, tag: u8, number: u64) {
    out.put_u8(tag);
    out.put_u64_le(number);
}

/// One encoding for one value: the index is 0 where it has no meaning.
fn put_consistency(out: &mut BytesMut, consistency: Consistency) {
    match consistency {
        Consistency::Linearizable => put_numbered(out, 0, 0),
        Consistency::Stale => put_numbered(out, 1, 0),
        Consistency::AtLeast(index) => put_numbered(out, 2, index.0),
        Consistency::Lease => put_numbered(out, 3, 0),
    }
}

fn consistency(reader: &mut Reader<'_>) -> Result<Consistency, Error> {
    match (reader.u8("consistency")?, reader.u64("lowest index to show")?) {
        (0, 0) => Ok(Consistency::Linearizable),
        (1, 0) => Ok(Consistency::Stale),
        (2, index) => Ok(Consistency::AtLeast(Index(index))),
        (3, 0) => Ok(Consistency::Lease),
        (found, _) => Err(Error::Invalid { what: "consistency", found: u64::from(found) }),
    }
}

pub(super) fn commands(bytes: &mut Bytes) -> Result<Vec<Data>, Error> {
    let count = take_fields(bytes, |reader| reader.length(REQUEST_RECORDS_MAX, "number of commands"))?;
    let mut commands = Vec::with_capacity(plausible(count, DATA_HEAD_BYTES, bytes.len()));
    for _ in 0..count {
        commands.push(command(bytes)?);
    }
    Ok(commands)
}

fn command(bytes: &mut Bytes) -> Result<Data, Error> {
    let (length, checksum) = take_fields(bytes, |reader| {
        let length = reader.length(RECORD_BYTES_MAX + COMMAND_HEAD_BYTES, "command length")?;
        Ok((length, Checksum(reader.u32("command checksum")?)))
    })?;
    let bytes = take_bytes(bytes, length, "command")?;
    let found = Checksum::of(&bytes);
    if found != checksum {
        return Err(Error::Checksum { what: "command", expected: checksum, found });
    }
    Ok(Data { bytes, checksum })
}

fn query(bytes: &mut Bytes) -> Result<RequestBody, Error> {
    let (consistency, length) =
        take_fields(bytes, |reader| Ok((consistency(reader)?, reader.length(REQUEST_BYTES_MAX, "query length")?)))?;
    Ok(RequestBody::Query { query: take_bytes(bytes, length, "query")?, consistency })
}

fn read(reader: &mut Reader<'_>) -> Result<RequestBody, Error> {
    Ok(RequestBody::Read {
        from: Index(reader.u64("first index")?),
        to: match reader.u64("end index")? {
            u64::MAX => None,
            end => Some(Index(end)),
        },
        bytes_max: reader.u32("bytes to read")?,
        consistency: consistency(reader)?,
    })
}

fn change(reader: &mut Reader<'_>) -> Result<Change, Error> {
    Ok(match reader.u8("kind of change")? {
        0 => {
            let count = reader.length(MEMBERS_MAX, "number of members to change")?;
            if count == 0 {
                return Err(Error::Invalid { what: "number of members to change", found: 0 });
            }
            Change::Members((0..count).map(|_| member_change(reader)).collect::<Result<_, _>>()?)
        }
        1 => Change::Transfer(node_id(reader)?),
        2 => Change::Snapshot,
        3 => Change::Trim { first: Index(reader.u64("trim index")?) },
        found => return Err(Error::Invalid { what: "kind of change", found: u64::from(found) }),
    })
}

fn member_change(reader: &mut Reader<'_>) -> Result<MemberChange, Error> {
    Ok(match reader.u8("kind of change of a member")? {
        kind @ (0 | 1) => {
            let id = node_id(reader)?;
            let incarnation = incarnation(reader)?;
            let member = Member { id, incarnation, address: codec::address(reader)? };
            MemberChange::Add { member, promote: kind == 1 }
        }
        2 => MemberChange::Promote { node: node_id(reader)? },
        3 => MemberChange::Remove { node: node_id(reader)?, incarnation: incarnation(reader)? },
        found => return Err(Error::Invalid { what: "kind of change of a member", found: u64::from(found) }),
    })
}

/// Left open it would mean any life of that node.
fn incarnation(reader: &mut Reader<'_>) -> Result<Incarnation, Error> {
    match reader.u64("incarnation")? {
        0 => Err(Error::Invalid { what: "incarnation of a member to change", found: 0 }),
        incarnation => Ok(Incarnation(incarnation)),
    }
}

fn node_id(reader: &mut Reader<'_>) -> Result<NodeId, Error> {
    match reader.u64("node id")? {
        0 => Err(Error::Invalid { what: "node id", found: 0 }),
        id => Ok(NodeId(id)),
    }
}
