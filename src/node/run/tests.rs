//! A node with its threads, one turn at a time.

use std::sync::mpsc::{Receiver, Sender, channel};

use bytes::Bytes;

use super::*;
use crate::checksum::Checksum;
use crate::machine;
use crate::net::Role as CertificateRole;
use crate::net::certificate::{Authority, Validity};
use crate::node::sessions::Sessions;
use crate::snapshot::{Description, Manifest};
use crate::superblock::State;
use crate::types::{ClusterId, GroupId, Incarnation, LogId, Member, Membership, Term};

const CLUSTER: ClusterId = ClusterId(0xc1);
const OWN: NodeId = NodeId(1);

/// Says by which thread it is dropped.
struct Noted(Sender<Option<String>>);

impl Drop for Noted {
    fn drop(&mut self) {
        // Of the node's own machine nobody hears.
        drop(self.0.send(std::thread::current().name().map(str::to_owned)));
    }
}

impl StateMachine for Noted {
    fn apply(&mut self, _: LogId, _: &[u8]) -> Result<Bytes, machine::Error> {
        Ok(Bytes::new())
    }

    fn query(&self, _: &[u8]) -> Result<Bytes, machine::Error> {
        Ok(Bytes::new())
    }

    fn digest(&self) -> Checksum {
        Checksum::default()
    }
}

fn options(home: &std::path::Path, authority: &Authority) -> NodeOptions {
    let issued = authority.issue(&CertificateRole::Node(OWN), Validity::days(1)).unwrap();
    let authority = &authority.pem().certificate;
    let address: SocketAddr = "127.0.0.1:0".parse().unwrap();
    NodeOptions {
        id: OWN,
        directory: home.to_owned(),
        listen: address,
        advertise: address,
        identity: Identity::from_pem(&issued.certificate, &issued.key, authority, None).unwrap(),
        io: IoChoice::Blocking,
        segment_bytes: 64 << 10,
        verify_at_start: false,
        uncommitted_bytes_max: 8 << 20,
        lease_drift_percent: 0,
        retention: RetentionRule::default(),
        follower_tail: FollowerTail { bytes: 0, milliseconds: 0 },
        snapshot_entries: 0,
        snapshot_bytes: 0,
        snapshot_bytes_per_second: 1 << 20,
        snapshot_fetch_bytes_per_second: 1 << 20,
        heartbeat: Duration::from_millis(50),
        election: Duration::from_millis(300)..Duration::from_millis(600),
        fingerprint: 7,
    }
}

fn node(options: &NodeOptions, endpoint: &Endpoint) -> (Node<Noted>, Receiver<Option<String>>) {
    let directory = Directory::open(&options.directory).unwrap();
    let about =
        About { address: options.advertise, pid: 0, io: "blocking".to_owned(), sync_mode: "fdatasync".to_owned() };
    let (sender, own) = channel();
    let driver = Driver::start(&directory, driver_options(options, 2, about), Noted(sender), 0).unwrap().driver;
    let writing =
        SnapshotWriting { cluster: CLUSTER, bytes_per_second: 1, fetch_bytes_per_second: 1, kept_free_bytes: 0 };
    let node = Node::new(driver, directory, Backend::Blocking, SyncMode::Fdatasync, endpoint, false, writing);
    (node.unwrap(), own)
}

/// What comes of a fetch that nobody waits for any more is a whole state. A turn gives it to a thread that does nothing else,
/// however long a snapshot takes that is written meanwhile, and that is not the core's.
#[tokio::test]
async fn a_turn_has_what_is_discarded_dropped_by_a_thread_of_its_own() {
    let home = tempfile::tempdir().unwrap();
    let authority = Authority::create(CLUSTER, Validity::days(1)).unwrap();
    let options = options(home.path(), &authority);
    let member = Member { id: OWN, incarnation: Incarnation(1), address: options.advertise };
    let membership = Membership { members: vec![member], voters: [OWN].into_iter().collect(), ..Membership::default() };
    let state = State::new(CLUSTER, OWN, Incarnation(1), membership);
    format(home.path(), state, options.segment_bytes, IoChoice::Blocking).unwrap();
    let facts = Facts { incarnation: Incarnation(1), is_first_member: true, boot: 1, fingerprint: 7, seed: 3 };
    let endpoint = Endpoint::bind(&options.identity, options.listen, facts, Settings::default()).unwrap();
    let (mut node, _own) = node(&options, &endpoint);
    let point = LogId::new(Term(2), Index(9));
    let description = Description {
        cluster: CLUSTER,
        group: GroupId::CLUSTER,
        point,
        membership: Membership::default(),
        membership_id: LogId::ZERO,
        log_start: Index(1),
        last_record: Index::ZERO,
        log_digest: Checksum(5),
    };
    let manifest = Manifest { description, chunk_bytes: 1 << 20, bytes: 0, checksums: Vec::new() };
    let (noted, dropped) = channel();
    node.driver.fetched(point, Ok((manifest, Sessions::new(), Noted(noted))));
    assert!(dropped.try_recv().is_err(), "not where it comes");
    node.turn().unwrap();
    let by = dropped.recv_timeout(Duration::from_secs(10)).expect("it is dropped at once");
    assert_eq!(by.as_deref(), Some("discard"));
    drop(node);
    endpoint.close().await;
}
