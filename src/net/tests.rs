//! What the tests of this folder share: a cluster's certificates, and nodes on loopback.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;

use super::certificate::{Authority, Issued, Validity};
use super::endpoint::{Endpoint, Facts};
use super::identity::Identity;
use super::inbox::{Arrival, Inbox};
use super::name::Role;
use super::settings::Settings;
use super::snapshot_status_wire::{
    SnapshotFetching, SnapshotMade, SnapshotMaking, SnapshotReader, SnapshotSending, SnapshotStatus,
};
use crate::codec::encode_command;
use crate::raft::message::{Append, Body, Message, Round};
use crate::types::*;

pub(super) const CLUSTER: ClusterId = ClusterId(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef);

pub(super) struct Cluster {
    pub(super) authority: Authority,
}

impl Cluster {
    pub(super) fn new() -> Cluster {
        Cluster { authority: Authority::create(CLUSTER, Validity::days(1)).unwrap() }
    }

    pub(super) fn identity(&self, role: Role) -> Identity {
        self.trusting(&self.authority.issue(&role, Validity::days(1)).unwrap())
    }

    /// An identity of any certificate that trusts this cluster's authority.
    pub(super) fn trusting(&self, issued: &Issued) -> Identity {
        let authority = &self.authority.pem().certificate;
        Identity::from_pem(&issued.certificate, &issued.key, authority, None).unwrap()
    }

    pub(super) fn node(&self, id: u64) -> Endpoint {
        self.node_with(id, "127.0.0.1:0".parse().unwrap(), facts(id), Settings::default())
    }

    pub(super) fn node_with(&self, id: u64, address: SocketAddr, facts: Facts, settings: Settings) -> Endpoint {
        Endpoint::bind(&self.identity(Role::Node(NodeId(id))), address, facts, settings).unwrap()
    }

    pub(super) fn client(&self) -> Identity {
        self.identity(Role::Client("app".into()))
    }
}

pub(super) fn facts(id: u64) -> Facts {
    Facts { incarnation: Incarnation(100 + id), is_first_member: true, boot: 1, fingerprint: 7, seed: id }
}

/// Tells two nodes of each other.
pub(super) fn introduce(left: &Endpoint, right: &Endpoint) {
    let members = [left, right].map(|endpoint| (endpoint.node(), endpoint.local_address()));
    left.peers().set_members(members);
    right.peers().set_members(members);
}

pub(super) fn heartbeat(from: u64, to: u64, round: u64) -> Message {
    let body = Body::Heartbeat { commit: Index(round), round: Round(round) };
    Message { from: NodeId(from), to: NodeId(to), term: Term(1), body }
}

/// An AppendEntries with one entry at `index`.
pub(super) fn append(from: u64, to: u64, index: u64, bytes: usize) -> Message {
    let previous = LogId::new(Term(1), Index(index - 1));
    let entry = Entry { id: LogId::new(Term(1), Index(index)), payload: Payload::Data(command(index, bytes)) };
    let append = Append { previous, entries: vec![entry], commit: Index(0), round: Round(1) };
    Message { from: NodeId(from), to: NodeId(to), term: Term(1), body: Body::Append(append) }
}

pub(super) fn command(number: u64, bytes: usize) -> Data {
    let command = Command {
        service: Service::Append,
        session: SessionId(1),
        number: RequestNumber(number),
        lowest_unanswered: RequestNumber(1),
    };
    encode_command(&command, &Bytes::from(vec![number as u8; bytes]))
}

/// Waits for arrivals until `done` says that it has seen enough of them.
pub(super) async fn arrivals_until(inbox: &Inbox, mut done: impl FnMut(&[Arrival]) -> bool) -> Vec<Arrival> {
    let mut arrivals = Vec::new();
    let wait = async {
        while !done(&arrivals) {
            inbox.ready().await;
            inbox.drain(&mut arrivals);
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(20), wait).await;
    assert!(waited.is_ok(), "only {} arrivals in time", arrivals.len());
    arrivals
}

pub(super) async fn until_up(endpoint: &Endpoint, node: u64) {
    arrivals_until(&endpoint.inbox(), |arrivals| {
        arrivals.iter().any(|arrival| matches!(arrival, Arrival::PeerUp { hello } if hello.node == NodeId(node)))
    })
    .await;
}

/// Waits until something holds that other tasks bring about.
pub(super) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..2000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("not in time: {what}");
}

/// Made once, and in the midst of everything else.
pub(super) fn snapshots() -> SnapshotStatus {
    let point = |term, index| LogId::new(Term(term), Index(index));
    let to = |to| SnapshotSending {
        point: point(4, 6),
        to,
        bytes: 60,
        bytes_sent: 50,
        milliseconds: 40,
        quiet_milliseconds: 30,
    };
    SnapshotStatus {
        last: Some(snapshot_made()),
        making: Some(SnapshotMaking { point: point(5, 7), bytes: 1000, milliseconds: 50 }),
        fetching: Some(SnapshotFetching {
            point: point(5, 8),
            from: NodeId(3),
            bytes: 900,
            bytes_here: 800,
            bytes_resumed: 700,
            bytes_installed: 600,
            milliseconds: 500,
            quiet_milliseconds: 400,
        }),
        sending: [SnapshotReader::Node(NodeId(2)), SnapshotReader::Administrator("ops".into())].map(to).into(),
        failure: "full".into(),
    }
}

pub(super) fn snapshot_made() -> SnapshotMade {
    SnapshotMade { point: LogId::new(Term(4), Index(6)), bytes: 2000, milliseconds: 30, core_microseconds: 40 }
}
