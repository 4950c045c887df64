//! Little-endian bytes, read and written in one way, and the one encoding of what is in [`crate::types`].
//!
//! Reading refuses and never panics, whatever the input; a length is checked against what is there before anything
//! is allocated. Writing is canonical: one value, one encoding. The byte tables are in docs/formats.md.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::checksum::Checksum;
use crate::limits::{MEMBERS_MAX, RECORD_BYTES_MAX};
use crate::types::{
    Command, Data, Entry, Incarnation, Index, LogId, Member, Membership, NodeId, Payload, RequestNumber, Service,
    SessionId, Term,
};

/// Bytes that are not what they should be.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Error {
    #[error("{what} needs {needed} bytes, {found} are there")]
    TooShort { what: &'static str, needed: usize, found: usize },
    #[error("{found} bytes are left over behind {what}")]
    TooLong { what: &'static str, found: usize },
    #[error("{what} is at most {max}, found {found}")]
    OverLimit { what: &'static str, max: u64, found: u64 },
    #[error("{found} is no {what}")]
    Invalid { what: &'static str, found: u64 },
    #[error("the checksum of {what} is {found}, expected {expected}")]
    Checksum { what: &'static str, expected: Checksum, found: Checksum },
}

/// Takes values off the front of a byte string.
#[derive(Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { bytes }
    }

    /// How many bytes are left.
    pub fn remaining(&self) -> usize {
        self.bytes.len()
    }

    pub fn u8(&mut self, what: &'static str) -> Result<u8, Error> {
        Ok(self.array::<1>(what)?[0])
    }

    pub fn u16(&mut self, what: &'static str) -> Result<u16, Error> {
        Ok(u16::from_le_bytes(self.array(what)?))
    }

    pub fn u32(&mut self, what: &'static str) -> Result<u32, Error> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    pub fn u64(&mut self, what: &'static str) -> Result<u64, Error> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }

    pub fn u128(&mut self, what: &'static str) -> Result<u128, Error> {
        Ok(u128::from_le_bytes(self.array(what)?))
    }

    /// The next `length` bytes, borrowed.
    pub fn take(&mut self, length: usize, what: &'static str) -> Result<&'a [u8], Error> {
        if length > self.bytes.len() {
            return Err(Error::TooShort { what, needed: length, found: self.bytes.len() });
        }
        let (taken, rest) = self.bytes.split_at(length);
        self.bytes = rest;
        Ok(taken)
    }

    /// A count or length of 32 bits, refused over `max`.
    pub fn length(&mut self, max: usize, what: &'static str) -> Result<usize, Error> {
        let found = self.u32(what)?;
        if found as usize > max {
            return Err(Error::OverLimit { what, max: max as u64, found: u64::from(found) });
        }
        Ok(found as usize)
    }

    /// Refuses what is left over.
    pub fn finish(self, what: &'static str) -> Result<(), Error> {
        match self.bytes.len() {
            0 => Ok(()),
            found => Err(Error::TooLong { what, found }),
        }
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], Error> {
        let taken = self.take(N, what)?;
        Ok(taken.try_into().expect("take gives as many bytes as asked for"))
    }
}

/// Bytes of a [`Command`] before its body.
pub const COMMAND_HEAD_BYTES: usize = 25;

/// A client's data: the head, then the body.
pub fn encode_command(command: &Command, body: &[u8]) -> Data {
    let mut bytes = BytesMut::with_capacity(COMMAND_HEAD_BYTES + body.len());
    put_command_head(&mut bytes, command);
    bytes.put_slice(body);
    Data::new(bytes.freeze())
}

/// Appends the head of a client's data; the body follows.
pub fn put_command_head(out: &mut impl BufMut, command: &Command) {
    out.put_u8(match command.service {
        Service::Register => 0,
        Service::Append => 1,
        Service::Machine => 2,
    });
    out.put_u64_le(command.session.0);
    out.put_u64_le(command.number.0);
    out.put_u64_le(command.lowest_unanswered.0);
}

/// Splits a client's data into head and body; the body shares the memory.
pub fn decode_command(data: &Bytes) -> Result<(Command, Bytes), Error> {
    let mut reader = Reader::new(data);
    let service = match reader.u8("service")? {
        0 => Service::Register,
        1 => Service::Append,
        2 => Service::Machine,
        found => return Err(Error::Invalid { what: "service", found: u64::from(found) }),
    };
    let command = Command {
        service,
        session: SessionId(reader.u64("session")?),
        number: RequestNumber(reader.u64("request number")?),
        lowest_unanswered: RequestNumber(reader.u64("lowest unanswered number")?),
    };
    Ok((command, data.slice(COMMAND_HEAD_BYTES..)))
}

pub fn put_log_id(out: &mut impl BufMut, id: LogId) {
    out.put_u64_le(id.index.0);
    out.put_u64_le(id.term.0);
}

pub fn log_id(reader: &mut Reader<'_>) -> Result<LogId, Error> {
    let index = Index(reader.u64("index")?);
    let term = Term(reader.u64("term")?);
    Ok(LogId { term, index })
}

/// The kind of [`Payload::Data`].
pub const DATA_KIND: u8 = 4;

/// Which kind of payload, as it stands in records and messages.
pub fn payload_kind(payload: &Payload) -> u8 {
    match payload {
        Payload::Noop => 0,
        Payload::Membership(_) => 1,
        Payload::Trim { .. } => 2,
        Payload::SnapshotPoint => 3,
        Payload::Data(_) => DATA_KIND,
    }
}

/// The bytes of a payload and their checksum: a client's data as the client made them, everything else encoded here.
pub fn payload_data(payload: &Payload) -> Data {
    match payload {
        Payload::Data(data) => data.clone(),
        Payload::Noop | Payload::SnapshotPoint => Data::new(Bytes::new()),
        Payload::Trim { first } => Data::new(Bytes::copy_from_slice(&first.0.to_le_bytes())),
        Payload::Membership(membership) => {
            let mut bytes = BytesMut::new();
            put_membership(&mut bytes, membership);
            Data::new(bytes.freeze())
        }
    }
}

/// The payload behind kind and data. The checksum is verified.
pub fn decode_payload(kind: u8, data: Data) -> Result<Payload, Error> {
    let found = Checksum::of(&data.bytes);
    if found != data.checksum {
        return Err(Error::Checksum { what: "payload", expected: data.checksum, found });
    }
    if kind == DATA_KIND { Ok(Payload::Data(data)) } else { decode_other_payload(kind, &data.bytes) }
}

/// As [`decode_payload`], of a kind that is not data, and of bytes whose checksum the caller has verified.
pub fn decode_other_payload(kind: u8, bytes: &[u8]) -> Result<Payload, Error> {
    let mut reader = Reader::new(bytes);
    let payload = match kind {
        0 => Payload::Noop,
        1 => Payload::Membership(membership(&mut reader)?.into()),
        2 => Payload::Trim { first: Index(reader.u64("trim index")?) },
        3 => Payload::SnapshotPoint,
        found => return Err(Error::Invalid { what: "kind of payload", found: u64::from(found) }),
    };
    reader.finish("payload")?;
    Ok(payload)
}

/// Bytes of an entry before its payload, as [`put_entry`] writes them.
pub const ENTRY_HEAD_BYTES: usize = 25;

/// Appends an entry: name, kind, length, checksum, payload.
pub fn put_entry(out: &mut impl BufMut, entry: &Entry) {
    let data = payload_data(&entry.payload);
    put_log_id(out, entry.id);
    out.put_u8(payload_kind(&entry.payload));
    out.put_u32_le(u32::try_from(data.bytes.len()).expect("payloads are bounded by limits.rs"));
    out.put_u32_le(data.checksum.0);
    out.put_slice(&data.bytes);
}

/// How many bytes [`put_entry`] writes for an entry whose payload is client data or empty.
pub fn entry_bytes(entry: &Entry) -> usize {
    ENTRY_HEAD_BYTES
        + match &entry.payload {
            Payload::Data(data) => data.bytes.len(),
            other => payload_data(other).bytes.len(),
        }
}

/// Takes an entry off the front of `bytes`; its data shares the memory. The checksum is verified.
pub fn take_entry(bytes: &mut Bytes) -> Result<Entry, Error> {
    let mut reader = Reader::new(bytes);
    let id = log_id(&mut reader)?;
    let kind = reader.u8("kind of payload")?;
    let length = reader.length(RECORD_BYTES_MAX + COMMAND_HEAD_BYTES, "payload length")?;
    let checksum = Checksum(reader.u32("payload checksum")?);
    if reader.remaining() < length {
        return Err(Error::TooShort { what: "payload", needed: length, found: reader.remaining() });
    }
    bytes.advance(ENTRY_HEAD_BYTES);
    let payload = decode_payload(kind, Data { bytes: bytes.split_to(length), checksum })?;
    Ok(Entry { id, payload })
}

pub fn put_membership(out: &mut impl BufMut, membership: &Membership) {
    out.put_u32_le(membership.members.len() as u32);
    out.put_u8(u8::from(membership.forming));
    for member in &membership.members {
        out.put_u64_le(member.id.0);
        out.put_u64_le(member.incarnation.0);
        put_address(out, member.address);
        let voter = u8::from(membership.voters.contains(&member.id));
        let outgoing = u8::from(membership.voters_outgoing.contains(&member.id));
        let promoting = u8::from(membership.promoting.contains(&member.id));
        out.put_u8(voter | outgoing << 1 | promoting << 2);
    }
}

pub fn membership(reader: &mut Reader<'_>) -> Result<Membership, Error> {
    let count = reader.length(MEMBERS_MAX, "number of members")?;
    let forming = match reader.u8("whether the cluster is being born")? {
        flag @ 0..=1 => flag == 1,
        found => return Err(Error::Invalid { what: "whether the cluster is being born", found: u64::from(found) }),
    };
    let mut result = Membership { members: Vec::with_capacity(count), forming, ..Membership::default() };
    let (mut voters, mut voters_outgoing) = (BTreeSet::new(), BTreeSet::new());
    let mut promoting = BTreeSet::new();
    for _ in 0..count {
        let id = NodeId(reader.u64("node id")?);
        if id.0 == 0 || result.members.last().is_some_and(|last: &Member| last.id >= id) {
            return Err(Error::Invalid { what: "next node id in order", found: id.0 });
        }
        let incarnation = Incarnation(reader.u64("incarnation")?);
        result.members.push(Member { id, incarnation, address: address(reader)? });
        match reader.u8("role of a member")? {
            4 => {
                promoting.insert(id);
            }
            flags @ 0..=3 => {
                if flags & 1 != 0 {
                    voters.insert(id);
                }
                if flags & 2 != 0 {
                    voters_outgoing.insert(id);
                }
            }
            found => return Err(Error::Invalid { what: "role of a member", found: u64::from(found) }),
        }
    }
    Ok(Membership { voters, voters_outgoing, promoting, ..result })
}

pub fn put_address(out: &mut impl BufMut, address: SocketAddr) {
    match address.ip() {
        IpAddr::V4(ip) => {
            out.put_u8(4);
            out.put_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            out.put_u8(6);
            out.put_slice(&ip.octets());
        }
    }
    out.put_u16_le(address.port());
}

pub fn address(reader: &mut Reader<'_>) -> Result<SocketAddr, Error> {
    let ip: IpAddr = match reader.u8("kind of address")? {
        4 => Ipv4Addr::from(reader.array::<4>("IPv4 address")?).into(),
        6 => Ipv6Addr::from(reader.array::<16>("IPv6 address")?).into(),
        found => return Err(Error::Invalid { what: "kind of address", found: u64::from(found) }),
    };
    Ok(SocketAddr::new(ip, reader.u16("port")?))
}
