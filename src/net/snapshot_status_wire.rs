//! What a node says of its snapshots, as bytes: which it has, and what moves just now. The table stands in docs/formats.md.

use bytes::{BufMut, BytesMut};

use crate::codec::{self, Error, Reader};
use crate::types::{LogId, NodeId};

use super::settings::{EXPORTS_SERVED_MAX, SNAPSHOTS_SERVED_MAX};
use super::wire::{flag, put_text, text};

/// Who may be sent snapshots at once: what a status can name.
const SENDING_MAX: usize = SNAPSHOTS_SERVED_MAX + EXPORTS_SERVED_MAX;

/// What a node knows of its own snapshots.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SnapshotStatus {
    /// The newest that it has made or begun from.
    pub last: Option<SnapshotMade>,
    /// The one that is being written.
    pub making: Option<SnapshotMaking>,
    /// The one that is being fetched, or read into the state.
    pub fetching: Option<SnapshotFetching>,
    /// Those that are being sent, each to somebody else.
    pub sending: Vec<SnapshotSending>,
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
    /// How long the core's thread worked to take the state, or to hand it to the thread that writes it, the longer of both:
    /// CPU time. 0 where `milliseconds` is.
    pub core_microseconds: u64,
}

/// A snapshot that is being written. How large it will be nobody knows before it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SnapshotMaking {
    pub point: LogId,
    /// Of the state, written so far.
    pub bytes: u64,
    /// Since it was begun.
    pub milliseconds: u64,
}

/// A snapshot that comes from other nodes, and then takes the place of the state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SnapshotFetching {
    pub point: LogId,
    /// Who is asked just now; there may be others that have given some of it.
    pub from: NodeId,
    /// Of the whole state; 0 until a node has said what it consists of.
    pub bytes: u64,
    /// What is here of it.
    pub bytes_here: u64,
    /// What of that was here when this fetch began: an earlier one had brought it.
    pub bytes_resumed: u64,
    /// What is read into the state; more than 0 only when all of it is here.
    pub bytes_installed: u64,
    /// Since the fetch was begun.
    pub milliseconds: u64,
    /// Since anything of it came or was read.
    pub quiet_milliseconds: u64,
}

/// A snapshot of this node that somebody fetches.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SnapshotSending {
    pub point: LogId,
    pub to: SnapshotReader,
    /// Of the whole state. Whoever fetches may have some of it already, or from others.
    pub bytes: u64,
    pub bytes_sent: u64,
    /// Since the first question.
    pub milliseconds: u64,
    /// Since the last answer.
    pub quiet_milliseconds: u64,
}

/// Who fetches.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SnapshotReader {
    Node(NodeId),
    /// By the name in the certificate.
    Administrator(String),
}

pub(super) fn put_snapshots(out: &mut BytesMut, snapshots: &SnapshotStatus) {
    put_flag(out, snapshots.last.is_some());
    snapshots.last.iter().for_each(|made| put_snapshot_made(out, made));
    put_flag(out, snapshots.making.is_some());
    if let Some(SnapshotMaking { point, bytes, milliseconds }) = snapshots.making {
        codec::put_log_id(out, point);
        put_numbers(out, [bytes, milliseconds]);
    }
    put_flag(out, snapshots.fetching.is_some());
    snapshots.fetching.iter().for_each(|fetching| put_fetching(out, fetching));
    assert!(snapshots.sending.len() <= SENDING_MAX, "there are no more seats: {:?}", snapshots.sending);
    out.put_u8(snapshots.sending.len() as u8);
    snapshots.sending.iter().for_each(|sending| put_sending(out, sending));
    put_text(out, &snapshots.failure);
}

pub(super) fn put_snapshot_made(out: &mut BytesMut, made: &SnapshotMade) {
    codec::put_log_id(out, made.point);
    put_numbers(out, [made.bytes, made.milliseconds, made.core_microseconds]);
}

fn put_fetching(out: &mut BytesMut, fetching: &SnapshotFetching) {
    let SnapshotFetching { point, from, bytes, bytes_here, bytes_resumed, bytes_installed, .. } = *fetching;
    codec::put_log_id(out, point);
    put_numbers(out, [from.0, bytes, bytes_here, bytes_resumed, bytes_installed]);
    put_numbers(out, [fetching.milliseconds, fetching.quiet_milliseconds]);
}

fn put_sending(out: &mut BytesMut, sending: &SnapshotSending) {
    codec::put_log_id(out, sending.point);
    match &sending.to {
        SnapshotReader::Node(node) => {
            out.put_u8(0);
            out.put_u64_le(node.0);
        }
        SnapshotReader::Administrator(name) => {
            out.put_u8(1);
            put_text(out, name);
        }
    }
    put_numbers(out, [sending.bytes, sending.bytes_sent, sending.milliseconds, sending.quiet_milliseconds]);
}

fn put_flag(out: &mut BytesMut, is_there: bool) {
    out.put_u8(u8::from(is_there));
}

fn put_numbers<const N: usize>(out: &mut BytesMut, numbers: [u64; N]) {
    numbers.into_iter().for_each(|number| out.put_u64_le(number));
}

pub(super) fn snapshots(reader: &mut Reader<'_>) -> Result<SnapshotStatus, Error> {
    let last = if flag(reader, "flag of a snapshot")? { Some(snapshot_made(reader)?) } else { None };
    let making = if flag(reader, "flag of a snapshot that is made")? { Some(making(reader)?) } else { None };
    let fetching = if flag(reader, "flag of a snapshot that is fetched")? { Some(fetching(reader)?) } else { None };
    let count = reader.u8("snapshots that are sent")?;
    if usize::from(count) > SENDING_MAX {
        return Err(Error::Invalid { what: "snapshots that are sent", found: u64::from(count) });
    }
    let sending = (0..count).map(|_| sending(reader)).collect::<Result<_, _>>()?;
    Ok(SnapshotStatus { last, making, fetching, sending, failure: text(reader, "why a snapshot failed")? })
}

pub(super) fn snapshot_made(reader: &mut Reader<'_>) -> Result<SnapshotMade, Error> {
    Ok(SnapshotMade {
        point: codec::log_id(reader)?,
        bytes: reader.u64("bytes of a snapshot")?,
        milliseconds: reader.u64("milliseconds that a snapshot took")?,
        core_microseconds: reader.u64("microseconds that a snapshot took the core")?,
    })
}

fn making(reader: &mut Reader<'_>) -> Result<SnapshotMaking, Error> {
    Ok(SnapshotMaking {
        point: codec::log_id(reader)?,
        bytes: reader.u64("bytes written of a snapshot")?,
        milliseconds: reader.u64("milliseconds since a snapshot was begun")?,
    })
}

fn fetching(reader: &mut Reader<'_>) -> Result<SnapshotFetching, Error> {
    Ok(SnapshotFetching {
        point: codec::log_id(reader)?,
        from: NodeId(reader.u64("node that a snapshot comes from")?),
        bytes: reader.u64("bytes of a snapshot")?,
        bytes_here: reader.u64("bytes of a snapshot that are here")?,
        bytes_resumed: reader.u64("bytes of a snapshot that were here")?,
        bytes_installed: reader.u64("bytes of a snapshot that are read")?,
        milliseconds: reader.u64("milliseconds since a fetch was begun")?,
        quiet_milliseconds: reader.u64("milliseconds since a fetch moved")?,
    })
}

fn sending(reader: &mut Reader<'_>) -> Result<SnapshotSending, Error> {
    Ok(SnapshotSending {
        point: codec::log_id(reader)?,
        to: match reader.u8("whom a snapshot is sent to")? {
            0 => SnapshotReader::Node(NodeId(reader.u64("node that a snapshot is sent to")?)),
            1 => SnapshotReader::Administrator(text(reader, "administrator that a snapshot is sent to")?),
            found => return Err(Error::Invalid { what: "whom a snapshot is sent to", found: u64::from(found) }),
        },
        bytes: reader.u64("bytes of a snapshot")?,
        bytes_sent: reader.u64("bytes of a snapshot that were sent")?,
        milliseconds: reader.u64("milliseconds since a snapshot is sent")?,
        quiet_milliseconds: reader.u64("milliseconds since anything of it was sent")?,
    })
}
