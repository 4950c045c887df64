//! Nodes on loopback, each with a directory: one has a snapshot, another one fetches it. `trouble.rs` has what goes wrong,
//! `again.rs` what is tried again.

mod again;
mod leftovers;
mod trouble;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::*;
use crate::checksum::Checksum;
use crate::machine::command::Command as MapCommand;
use crate::machine::{Map, StateMachine};
use crate::net::certificate::{Authority, Validity};
use crate::net::{
    Correspondents, Endpoint, Facts, Identity, Role, Settings, SnapshotAnswer, SnapshotQuestion, SnapshotRefusal,
    SnapshotRequest,
};
use crate::node::driver::checkpoint::Checkpoint;
use crate::node::run::serving::Serving;
use crate::node::sessions::Limits;
use crate::node::transfer::Unfit;
use crate::snapshot::{self, Builder, Description, Reader, Step};
use crate::types::{Incarnation, Index, Member, Membership, Term};

const CLUSTER: ClusterId = ClusterId(0xc1);
const GROUP: GroupId = GroupId::CLUSTER;
/// Small, so that a state of some hundred KiB has many.
const CHUNK_BYTES: usize = 8192;

/// A node without a core.
struct Node {
    home: tempfile::TempDir,
    files: Directory,
    endpoint: Endpoint,
}

fn nodes<const N: usize>() -> [Node; N] {
    let authority = Authority::create(CLUSTER, Validity::days(1)).unwrap();
    let mut id = 0;
    let nodes = [(); N].map(|()| {
        id += 1;
        let home = tempfile::tempdir().unwrap();
        let issued = authority.issue(&Role::Node(NodeId(id)), Validity::days(1)).unwrap();
        let authority = &authority.pem().certificate;
        let identity = Identity::from_pem(&issued.certificate, &issued.key, authority, None).unwrap();
        let facts =
            Facts { incarnation: Incarnation(100 + id), is_first_member: true, boot: 1, fingerprint: 7, seed: id };
        let address: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let endpoint = Endpoint::bind(&identity, address, facts, Settings::default()).unwrap();
        Node { files: Directory::open(home.path()).unwrap(), home, endpoint }
    });
    let member = |node: &Node| {
        let (id, address) = (node.endpoint.node(), node.endpoint.local_address());
        Member { id, incarnation: Incarnation(100 + id.0), address }
    };
    let members: Vec<Member> = nodes.iter().map(member).collect();
    let configuration = LogId::new(Term(1), Index(3));
    for node in &nodes {
        let members = members.clone();
        node.endpoint.peers().set_correspondents(Correspondents { configuration, members, forming: false });
    }
    nodes
}

/// The state at an index: about 350 KiB.
fn state(index: u64) -> (Sessions, Map) {
    let mut map = Map::new();
    for key in 0..100 {
        let value = vec![(key + index) as u8; 3500];
        let put = MapCommand::Put { key: format!("key {key}").into(), value: value.into() };
        map.apply(LogId::new(Term(1), Index(index)), &put.encode().unwrap()).unwrap();
    }
    (Sessions::new(), map)
}

fn point(index: u64) -> LogId {
    LogId::new(Term(3), Index(index))
}

fn description(index: u64) -> Description {
    Description {
        cluster: CLUSTER,
        group: GROUP,
        point: point(index),
        membership: Membership::default(),
        membership_id: LogId::ZERO,
        log_start: Index(1),
        last_record: Index::ZERO,
        log_digest: Checksum(5),
    }
}

impl Node {
    /// Makes a snapshot at this index, as a node does, with small chunks.
    fn makes(&self, index: u64) -> Manifest {
        let (sessions, map) = state(index);
        let source = Box::new(Checkpoint::of(&sessions, &map).unwrap());
        let mut builder = Builder::with_chunks(description(index), source, CHUNK_BYTES);
        while builder.step(&self.files, true).unwrap() != Step::Done {}
        self.has(index).expect("it was made")
    }

    /// Its snapshot at this index, if that is whole.
    fn has(&self, index: u64) -> Option<Manifest> {
        let listing = snapshot::list(&self.files, Some(CLUSTER)).unwrap();
        listing.whole(GROUP).find(|manifest| manifest.description.point == point(index)).cloned()
    }

    fn names(&self) -> Vec<String> {
        crate::disk::Files::list(&self.files, "").unwrap()
    }

    /// Serves what it has.
    fn serves(&self) -> Serving {
        Serving::start(self.files.clone(), self.endpoint.peers(), CLUSTER, |_, _| {}).unwrap()
    }

    fn rots(&self, manifest: &Manifest, number: u32) {
        let path = self.home.path().join(manifest.description.name()).join("chunks");
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[manifest.place(number).0 as usize + 100] ^= 4;
        std::fs::write(&path, bytes).unwrap();
    }

    fn fetching(&self, options: FetchOptions) -> (Fetching<Map>, UnboundedReceiver<Fetched<Map>>) {
        let (sender, told) = unbounded_channel();
        let peers = self.endpoint.peers();
        let tell = move |told| match told {
            Told::Fetched(fetched) => drop(sender.send(*fetched)),
            Told::Mended { .. } => {}
        };
        (Fetching::start(self.files.clone(), peers, options, tell).unwrap(), told)
    }
}

fn options() -> FetchOptions {
    FetchOptions { bytes_per_second: 1 << 40, patience: Duration::from_secs(10), ..FetchOptions::new(CLUSTER) }
}

fn order(index: u64, from: u64, others: &[u64]) -> Order<Map> {
    Order {
        group: GROUP,
        point: point(index),
        from: NodeId(from),
        term: Term(3),
        others: others.iter().map(|id| NodeId(*id)).collect(),
        restoring: Restoring::new(&Map::new(), Limits::default()).unwrap(),
    }
}

async fn told(told: &mut UnboundedReceiver<Fetched<Map>>) -> Fetched<Map> {
    let next = tokio::time::timeout(Duration::from_secs(30), told.recv()).await;
    next.expect("something is told in time").expect("the thread lives")
}

/// What was told is the state at this index, and the snapshot that holds it is whole, chunk by chunk.
fn check(node: &Node, fetched: Fetched<Map>, index: u64) {
    assert_eq!(fetched.point, point(index));
    let (manifest, sessions, map) = fetched.result.expect("it was fetched");
    let expected = state(index);
    assert_eq!((sessions.digest(), map.digest()), (expected.0.digest(), expected.1.digest()));
    assert_eq!(node.has(index).as_ref(), Some(&manifest));
    assert!(snapshot::verify(&node.files, &manifest).unwrap().is_empty());
}

/// A server that is not a node: it answers what `change` makes of the right answer.
struct Crooked {
    /// Chunks that were asked for, of any snapshot.
    asked: Arc<Mutex<Vec<u32>>>,
}

type Change = dyn Fn(SnapshotRequest, SnapshotAnswer) -> Option<SnapshotAnswer> + Send;

fn crooked(node: &Node, manifest: &Manifest, change: Box<Change>) -> Crooked {
    let mut reader = Reader::open(&node.files, manifest.clone()).unwrap();
    let chunks: Vec<Bytes> = (0..manifest.chunks())
        .map(|number| Bytes::copy_from_slice(reader.chunk(&node.files, number).unwrap()))
        .collect();
    reader.close(&node.files);
    let (sender, questions) = channel::<SnapshotQuestion>();
    node.endpoint.peers().answer_snapshots(Some(sender));
    let asked = Arc::new(Mutex::new(Vec::new()));
    let (seen, manifest) = (asked.clone(), manifest.clone());
    std::thread::spawn(move || {
        let mut unanswered = Vec::new();
        for question in questions {
            let request = question.request;
            let right = match request {
                SnapshotRequest::Manifest { .. } => SnapshotAnswer::Manifest(manifest.encode().into()),
                SnapshotRequest::Chunk { number, .. } => {
                    seen.lock().unwrap().push(number);
                    SnapshotAnswer::Chunk { number, bytes: chunks[number as usize].clone() }
                }
            };
            match change(request, right) {
                Some(answer) => question.answer(answer),
                None => unanswered.push(question),
            }
        }
        // Silent for good: else what waits behind it on its connection would be asked of the next one.
        std::mem::forget(unanswered);
    });
    Crooked { asked }
}

/// As it should be.
fn honest() -> Box<Change> {
    Box::new(|_, right| Some(right))
}

/// Right up to so many chunks; then nothing comes.
fn falls_silent_after(chunks: u64) -> Box<Change> {
    let given = AtomicU64::new(0);
    Box::new(move |request, right| {
        let is_chunk = matches!(request, SnapshotRequest::Chunk { .. });
        (!is_chunk || given.fetch_add(1, Ordering::Relaxed) < chunks).then_some(right)
    })
}

impl Crooked {
    fn asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

/// Until so many chunks have come.
async fn until_here(fetching: &Fetching<Map>, chunks: u64) {
    let here = || fetching.progress().map_or(0, |progress| progress.bytes_here);
    eventually("chunks have come", || here() == chunks * CHUNK_BYTES as u64).await;
}

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(20), "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_snapshot_comes_whole_and_its_state_with_it() {
    let [one, two] = nodes();
    let manifest = one.makes(20);
    let _serving = one.serves();
    let (fetching, mut results) = two.fetching(options());
    fetching.order(order(20, 1, &[]));
    check(&two, told(&mut results).await, 20);
    for file in ["chunks", "manifest"] {
        let of = |node: &Node| std::fs::read(node.home.path().join(manifest.description.name()).join(file)).unwrap();
        assert!(of(&one) == of(&two), "the same bytes");
    }
    eventually("nothing is under way", || fetching.progress().is_none()).await;
    // Once it is here nobody is asked.
    one.endpoint.peers().answer_snapshots(None);
    fetching.order(order(20, 1, &[]));
    check(&two, told(&mut results).await, 20);
}

/// The sender goes, then the receiver ends; another start goes on, with another sender, and no chunk is sent twice.
#[tokio::test]
async fn what_was_broken_off_is_gone_on_with_by_another_start_and_from_another_node() {
    let [one, two, three] = nodes();
    let manifest = one.makes(20);
    assert_eq!(three.makes(20), manifest);
    let first = crooked(&one, &manifest, falls_silent_after(17));
    let (fetching, results) = two.fetching(options());
    fetching.order(order(20, 1, &[]));
    until_here(&fetching, 17).await;
    let progress = fetching.progress().unwrap();
    assert_eq!((progress.point, progress.from, progress.bytes), (point(20), NodeId(1), manifest.bytes));
    drop((fetching, results));
    one.endpoint.close().await;
    let second = crooked(&three, &manifest, honest());
    let (fetching, mut results) = two.fetching(options());
    fetching.order(order(20, 1, &[3]));
    check(&two, told(&mut results).await, 20);
    let chunks = manifest.chunks() as usize;
    assert!(chunks > 40 && first.asked() >= 17);
    assert_eq!(second.asked(), chunks - 17, "those that had come are not asked for again");
}

#[tokio::test]
async fn another_node_goes_on_where_the_first_one_broke_off() {
    let [one, two, three] = nodes();
    let manifest = one.makes(20);
    three.makes(20);
    let first = crooked(&one, &manifest, falls_silent_after(10));
    let second = crooked(&three, &manifest, honest());
    let (fetching, mut results) = two.fetching(options());
    fetching.order(order(20, 1, &[3]));
    until_here(&fetching, 10).await;
    assert!(first.asked() >= 10);
    one.endpoint.close().await;
    check(&two, told(&mut results).await, 20);
    assert_eq!(second.asked(), manifest.chunks() as usize - 10);
}

#[tokio::test]
async fn nothing_comes_faster_than_it_may() {
    let [one, two] = nodes();
    let manifest = one.makes(20);
    let _serving = one.serves();
    let (fetching, mut results) = two.fetching(FetchOptions { bytes_per_second: 500_000, ..options() });
    let begun = Instant::now();
    fetching.order(order(20, 1, &[]));
    let mut seen = Vec::new();
    while results.is_empty() {
        seen.extend(fetching.progress().map(|progress| progress.bytes_here));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    check(&two, told(&mut results).await, 20);
    let least = Duration::from_secs_f64((manifest.bytes - 2 * CHUNK_BYTES as u64) as f64 / 500_000.0);
    assert!(begun.elapsed() >= least, "{} bytes in {:?}", manifest.bytes, begun.elapsed());
    seen.dedup();
    assert!(seen.is_sorted() && seen.len() > 10, "{seen:?}");
}

#[tokio::test]
async fn what_has_come_is_taken_while_the_pace_holds_the_next_question_back() {
    let [one, two] = nodes();
    let manifest = one.makes(20);
    let honest = crooked(&one, &manifest, honest());
    // A chunk in ten seconds.
    let (fetching, _results) = two.fetching(FetchOptions { bytes_per_second: CHUNK_BYTES as u64 / 10, ..options() });
    fetching.order(order(20, 1, &[]));
    until_here(&fetching, 1).await;
    assert_eq!(honest.asked(), 1);
}

/// The newer one takes the place of the older one, of which nothing stays and nothing is told.
#[tokio::test]
async fn a_newer_order_takes_the_place_of_the_older_one() {
    let [one, two, three] = nodes();
    let (old, new) = (one.makes(20), three.makes(30));
    let slow = crooked(&one, &old, falls_silent_after(5));
    let _serving = three.serves();
    let (fetching, mut results) = two.fetching(options());
    fetching.order(order(20, 1, &[]));
    eventually("some of it is here", || slow.asked() > 5).await;
    let asked = slow.asked();
    // Said again, as leaders do, it changes nothing.
    fetching.order(order(20, 1, &[]));
    fetching.order(order(20, 1, &[]));
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!((slow.asked(), two.names()), (asked, vec![format!("{}.receiving", old.description.name())]));
    fetching.order(order(30, 3, &[]));
    check(&two, told(&mut results).await, 30);
    assert_eq!(two.names(), [new.description.name()]);
    assert!(results.is_empty());
}

#[tokio::test]
async fn what_is_cancelled_is_told_nothing_of_and_stays_for_later() {
    let [one, two] = nodes();
    let manifest = one.makes(20);
    let silent = crooked(&one, &manifest, falls_silent_after(7));
    let (fetching, mut results) = two.fetching(options());
    fetching.order(order(20, 1, &[]));
    until_here(&fetching, 7).await;
    assert!(silent.asked() >= 7);
    fetching.cancel();
    eventually("nothing is under way", || fetching.progress().is_none()).await;
    assert!(results.is_empty());
    let honest = crooked(&one, &manifest, honest());
    fetching.order(order(20, 1, &[]));
    check(&two, told(&mut results).await, 20);
    assert_eq!(honest.asked(), manifest.chunks() as usize - 7);
    // The end of the node does not wait for anybody.
    let manifest = one.makes(30);
    let silent = crooked(&one, &manifest, falls_silent_after(0));
    fetching.order(order(30, 1, &[]));
    eventually("asked for", || silent.asked() > 0).await;
    let begun = Instant::now();
    drop(fetching);
    assert!(begun.elapsed() < Duration::from_secs(2));
}

#[test]
fn the_pace_makes_nothing_up_for_time_in_which_nothing_was_wanted() {
    let (begun, second) = (Instant::now(), Duration::from_secs(1));
    let mut pace = pace::Pace::new(100, begun);
    for (bytes, waits) in [(100, 0), (100, 1), (50, 2)] {
        assert_eq!(pace.wait(begun), waits * second);
        pace.take(bytes, begun);
    }
    let later = begun + 60 * second;
    assert_eq!(pace.wait(later), Duration::ZERO);
    pace.take(100, later);
    assert_eq!(pace.wait(later), second);
}
