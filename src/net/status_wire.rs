//! What a node says of itself, as bytes. The table stands in docs/formats.md.

use std::net::SocketAddr;

use bytes::{BufMut, BytesMut};

use crate::codec::{self, Error, Reader};
use crate::types::{Incarnation, Index, LogId, Membership, NodeId, Term};

use super::answer_wire::{leader, put_leader};
use super::wire::{flag, put_text, text};

/// A node's own view, at the moment when it was asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeStatus {
    pub id: NodeId,
    pub incarnation: Incarnation,
    pub address: SocketAddr,
    /// The operating system's number of the process.
    pub pid: u32,
    pub role: NodeRole,
    pub term: Term,
    pub leader: Option<(NodeId, SocketAddr)>,
    /// The first readable index.
    pub first: Index,
    pub last: LogId,
    pub durable: LogId,
    pub commit: Index,
    pub applied: Index,
    pub membership: Membership,
    /// The disk's back end, and why it was chosen.
    pub io: String,
    pub sync_mode: String,
    /// What the node waits for, in words; empty if for nothing.
    pub waiting: String,
    pub records: u64,
    pub record_bytes: u64,
    pub flushes: u64,
    pub sessions: u64,
    pub snapshots: SnapshotStatus,
}

/// What a node knows of its own snapshots.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SnapshotStatus {
    /// The newest that it has made or begun from.
    pub last: Option<SnapshotMade>,
    /// The point of the one that is being written, and the bytes of the state that are written.
    pub making: Option<(LogId, u64)>,
    /// Why the last attempt failed, or what is wrong with one that was found at the start; empty if nothing is.
    pub failure: String,
}

/// A snapshot that is durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SnapshotMade {
    /// The last entry whose effect is in it.
    pub point: LogId,
    /// Of the state.
    pub bytes: u64,
    /// How long it took; 0 of one that was there when the node started.
    pub milliseconds: u64,
    /// How long the core's thread worked in the longest turn in which the state was taken or handed to the thread that
    /// writes it, with all else that was done in that turn: CPU time. 0 where `milliseconds` is.
    pub core_microseconds: u64,
}

/// What a node does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NodeRole {
    Follower,
    Candidate,
    Leader,
    Learner,
    /// It neither votes nor acknowledges (design §6).
    WithoutVoice,
}

pub(super) fn put_status(out: &mut BytesMut, status: &NodeStatus) {
    out.put_u64_le(status.id.0);
    out.put_u64_le(status.incarnation.0);
    codec::put_address(out, status.address);
    out.put_u32_le(status.pid);
    out.put_u8(match status.role {
        NodeRole::Follower => 0,
        NodeRole::Candidate => 1,
        NodeRole::Leader => 2,
        NodeRole::Learner => 3,
        NodeRole::WithoutVoice => 4,
    });
    out.put_u64_le(status.term.0);
    put_leader(out, &status.leader);
    out.put_u64_le(status.first.0);
    codec::put_log_id(out, status.last);
    codec::put_log_id(out, status.durable);
    out.put_u64_le(status.commit.0);
    out.put_u64_le(status.applied.0);
    codec::put_membership(out, &status.membership);
    put_text(out, &status.io);
    put_text(out, &status.sync_mode);
    put_text(out, &status.waiting);
    for counter in [status.records, status.record_bytes, status.flushes, status.sessions] {
        out.put_u64_le(counter);
    }
    put_snapshots(out, &status.snapshots);
}

fn put_snapshots(out: &mut BytesMut, snapshots: &SnapshotStatus) {
    out.put_u8(u8::from(snapshots.last.is_some()));
    snapshots.last.iter().for_each(|made| put_snapshot_made(out, made));
    out.put_u8(u8::from(snapshots.making.is_some()));
    if let Some((point, bytes)) = snapshots.making {
        codec::put_log_id(out, point);
        out.put_u64_le(bytes);
    }
    put_text(out, &snapshots.failure);
}

pub(super) fn put_snapshot_made(out: &mut BytesMut, made: &SnapshotMade) {
    codec::put_log_id(out, made.point);
    out.put_u64_le(made.bytes);
    out.put_u64_le(made.milliseconds);
    out.put_u64_le(made.core_microseconds);
}

pub(super) fn status(reader: &mut Reader<'_>) -> Result<NodeStatus, Error> {
    Ok(NodeStatus {
        id: NodeId(reader.u64("node id")?),
        incarnation: Incarnation(reader.u64("incarnation")?),
        address: codec::address(reader)?,
        pid: reader.u32("process")?,
        role: role(reader)?,
        term: Term(reader.u64("term")?),
        leader: leader(reader)?,
        first: Index(reader.u64("first index")?),
        last: codec::log_id(reader)?,
        durable: codec::log_id(reader)?,
        commit: Index(reader.u64("commit index")?),
        applied: Index(reader.u64("applied index")?),
        membership: codec::membership(reader)?,
        io: text(reader, "back end")?,
        sync_mode: text(reader, "sync mode")?,
        waiting: text(reader, "what the node waits for")?,
        records: reader.u64("records")?,
        record_bytes: reader.u64("record bytes")?,
        flushes: reader.u64("flushes")?,
        sessions: reader.u64("sessions")?,
        snapshots: snapshots(reader)?,
    })
}

fn snapshots(reader: &mut Reader<'_>) -> Result<SnapshotStatus, Error> {
    let last = if flag(reader, "flag of a snapshot")? { Some(snapshot_made(reader)?) } else { None };
    let making = match flag(reader, "flag of a snapshot that is made")? {
        true => Some((codec::log_id(reader)?, reader.u64("bytes written of a snapshot")?)),
        false => None,
    };
    Ok(SnapshotStatus { last, making, failure: text(reader, "why a snapshot failed")? })
}

pub(super) fn snapshot_made(reader: &mut Reader<'_>) -> Result<SnapshotMade, Error> {
    Ok(SnapshotMade {
        point: codec::log_id(reader)?,
        bytes: reader.u64("bytes of a snapshot")?,
        milliseconds: reader.u64("milliseconds that a snapshot took")?,
        core_microseconds: reader.u64("microseconds that a snapshot took the core")?,
    })
}

fn role(reader: &mut Reader<'_>) -> Result<NodeRole, Error> {
    Ok(match reader.u8("role of a node")? {
        0 => NodeRole::Follower,
        1 => NodeRole::Candidate,
        2 => NodeRole::Leader,
        3 => NodeRole::Learner,
        4 => NodeRole::WithoutVoice,
        found => return Err(Error::Invalid { what: "role of a node", found: u64::from(found) }),
    })
}
