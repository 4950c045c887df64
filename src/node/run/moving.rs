//! How far snapshots are that are made, fetched and sent: what a status tells of them.

use std::time::{Duration, Instant};

use super::exchange::Exchange;
use super::fetching;
use super::snapshots::Snapshots;
use crate::machine::StateMachine;
use crate::net::{Peers, Role, Sending, SnapshotFetching, SnapshotReader, SnapshotSending};
use crate::node::driver::SnapshotProgress;

/// All of it, as it is now.
pub(super) fn progress<M: StateMachine + Send + 'static>(
    snapshots: &Snapshots,
    exchange: &Exchange<M>,
    peers: &Peers,
) -> SnapshotProgress {
    let now = Instant::now();
    SnapshotProgress {
        written_bytes: snapshots.written_bytes(),
        making_milliseconds: snapshots.began().map_or(0, |began| milliseconds(now, began)),
        fetching: exchange.progress().map(|progress| fetched(&progress, now)),
        sending: peers.sendings().into_iter().filter_map(|sending| sent(sending, now)).collect(),
    }
}

fn fetched(progress: &fetching::Progress, now: Instant) -> SnapshotFetching {
    let fetching::Progress { point, from, bytes, bytes_here, bytes_resumed, bytes_installed, began, moved } = *progress;
    let (milliseconds, quiet_milliseconds) = (milliseconds(now, began), milliseconds(now, moved));
    SnapshotFetching {
        point,
        from,
        bytes,
        bytes_here,
        bytes_resumed,
        bytes_installed,
        milliseconds,
        quiet_milliseconds,
    }
}

/// Plain clients are sent none.
fn sent(sending: Sending, now: Instant) -> Option<SnapshotSending> {
    let Sending { to, point, bytes, bytes_sent, began, moved } = sending;
    let to = match to {
        Role::Node(node) => SnapshotReader::Node(node),
        Role::Admin(name) => SnapshotReader::Administrator(name),
        Role::Client(_) => return None,
    };
    let (milliseconds, quiet_milliseconds) = (milliseconds(now, began), milliseconds(now, moved));
    Some(SnapshotSending { point, to, bytes, bytes_sent, milliseconds, quiet_milliseconds })
}

/// Another thread may have looked at its clock just now.
fn milliseconds(now: Instant, since: Instant) -> u64 {
    let passed: Duration = now.saturating_duration_since(since);
    u64::try_from(passed.as_millis()).unwrap_or(u64::MAX)
}
