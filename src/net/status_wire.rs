//! What a node says of itself, as bytes. The table stands in docs/formats.md.

use std::net::SocketAddr;

use bytes::{BufMut, BytesMut};

use crate::codec::{self, Error, Reader};
use crate::types::{Incarnation, Index, LogId, Membership, NodeId, Term};

use super::answer_wire::{leader, put_leader};
use super::snapshot_status_wire::{SnapshotStatus, put_snapshots, snapshots};
use super::wire::{put_text, text};

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
    /// Removals of segments that nobody needs that failed, and how many of these segments still take room. They are tried again.
    pub removals_failed: u64,
    pub unremoved_segments: u64,
    pub snapshots: SnapshotStatus,
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
    let counters = [status.records, status.record_bytes, status.flushes, status.sessions];
    for counter in counters.into_iter().chain([status.removals_failed, status.unremoved_segments]) {
        out.put_u64_le(counter);
    }
    put_snapshots(out, &status.snapshots);
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
        removals_failed: reader.u64("removals that failed")?,
        unremoved_segments: reader.u64("segments that are not removed")?,
        snapshots: snapshots(reader)?,
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
