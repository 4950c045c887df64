//! A durable machine, and snapshots: its own, and another node's that takes the place of its state.

use super::super::rig::{CLIENT, CLUSTER, OTHER, OWN, Rig, formatted, from_other, options};
use super::ledger::{Ledger, Store};
use super::{Shown, add, shown};
use crate::net::{Change, RequestBody};
use crate::node::driver::{Driver, Input, Made, Making, StartError};
use crate::node::sessions::Sessions;
use crate::raft::{Append, Base, Body, Message, Round};
use crate::random::Random;
use crate::sim::disk::SimDisk;
use crate::snapshot::{self, Builder, ChunkSource, Manifest, Step};
use crate::superblock;
use crate::types::{Entry, GroupId, Index, LogId, Payload, Term};

/// The snapshot that was ordered, whole and durable under its name.
fn make(rig: &mut Rig<Ledger>) -> LogId {
    rig.request(CLIENT, RequestBody::Change(Change::Snapshot));
    rig.settle();
    let Making { description, checkpoint } = rig.makings.remove(0);
    let mut builder = Builder::new(description, Box::new(checkpoint));
    let point = builder.description().point;
    while builder.step(&rig.files, true).expect("nothing is wrong with the disk") != Step::Done {}
    let result = Ok(Made { bytes: builder.bytes(), milliseconds: 5, core_microseconds: 0 });
    rig.driver.handle(Input::SnapshotMade { point, result });
    rig.settle();
    point
}

fn leading(store: &Store) -> Rig<Ledger> {
    let mut rig = Rig::started(Ledger::with_snapshots(store), &[OWN]);
    rig.lead();
    rig
}

fn start(disk: &SimDisk, store: &Store) -> Result<Driver<Ledger>, StartError> {
    let disk = disk.fork();
    disk.kill(&mut Random::seeded(1));
    Ok(Driver::start(&disk.files(), options(), Ledger::with_snapshots(store), 0)?.driver)
}

/// The state is that of its own store; what the snapshot adds is only what is known to be committed.
#[test]
fn a_start_takes_its_own_state_and_no_snapshot_older_or_newer() {
    let store = Store::default();
    let mut rig = leading(&store);
    add(&mut rig, 20);
    let kept = store.transactions();
    let older = make(&mut rig);
    add(&mut rig, 20);
    let applied = rig.driver.applied().0;
    let driver = start(&rig.disk, &store.whole()).unwrap();
    let status = driver.replica().status();
    assert_eq!((shown(&driver), status.commit), (shown(&rig.driver), applied.index));
    assert_eq!(driver.status().snapshots.last.map(|last| last.point), Some(older), "for other nodes");
    // Its store lags behind the snapshot: what lies between is applied from the log.
    let lagging = store.cut(kept);
    let behind = lagging.last().applied;
    assert!(behind < older);
    let driver = start(&rig.disk, &lagging).unwrap();
    assert_eq!((driver.applied().0, driver.replica().status().commit), (behind, older.index));
    let before = shown(&rig.driver);
    let mut rig = rig.again(Ledger::with_snapshots(&lagging));
    rig.elect();
    assert_eq!((shown(&rig.driver).0, lagging.runs()), (before.0, 20), "those behind its own state");
    assert_eq!(shown(&rig.driver).1, before.1);
}

const TERM: Term = Term(2);

fn id(term: u64, index: u64) -> LogId {
    LogId::new(Term(term), Index(index))
}

fn base() -> Base {
    Base { point: id(2, 40), begin_after: id(2, 40) }
}

/// What another node has: its snapshot, and how it comes back as this node's state.
struct Other {
    manifest: Manifest,
    bytes: Vec<u8>,
}

impl Other {
    fn new() -> Other {
        let mut rig = leading(&Store::default());
        add(&mut rig, 30);
        rig.request(CLIENT, RequestBody::Change(Change::Snapshot));
        rig.settle();
        let Making { mut description, mut checkpoint } = rig.makings.remove(0);
        let mut bytes = bytes::BytesMut::new();
        while checkpoint.encode_next(&mut bytes) {}
        (description.point, description.log_start) = (base().point, base().begin_after.index.next());
        let (checksum, length) = (description.checksum_of(0, &bytes), bytes.len() as u64);
        let manifest = Manifest { description, chunk_bytes: 1 << 20, bytes: length, checksums: vec![checksum] };
        Other { manifest, bytes: bytes.to_vec() }
    }

    /// As fetching leaves it: in the directory, and loaded.
    fn bring(&self, rig: &Rig<Ledger>) -> (Manifest, Sessions, Ledger) {
        let source = Source(Some(self.bytes.clone()));
        let mut builder = Builder::new(self.manifest.description.clone(), Box::new(source));
        while !matches!(builder.step(&rig.files, true).expect("nothing is wrong with the disk"), Step::Done) {}
        let mut restoring = rig.driver.restoring().expect("it takes snapshots");
        restoring.add(&self.bytes).unwrap();
        let (sessions, ledger) = restoring.finish().unwrap();
        (self.manifest.clone(), sessions, ledger)
    }
}

#[derive(Debug)]
struct Source(Option<Vec<u8>>);

impl ChunkSource for Source {
    fn encode_next(&mut self, out: &mut bytes::BytesMut) -> bool {
        self.0.take().is_some_and(|bytes| {
            out.extend_from_slice(&bytes);
            true
        })
    }
}

/// It has applied something of the other's log, which is to begin later now.
fn following(store: &Store) -> Rig<Ledger> {
    let mut rig = Rig::on(formatted(&[OTHER]), Ledger::with_snapshots(store));
    let entry = |index| Entry { id: id(1, index), payload: Payload::Noop };
    let append =
        Append { previous: LogId::ZERO, entries: (1..=5).map(entry).collect(), commit: Index(4), round: Round(0) };
    rig.driver.handle(from_other(Message { from: OTHER, to: OWN, term: Term(1), body: Body::Append(append) }));
    rig.settle();
    assert_eq!(store.last().applied, id(1, 4));
    let offer = Body::Snapshot { base: base(), round: Round(0) };
    rig.driver.handle(from_other(Message { from: OTHER, to: OWN, term: TERM, body: offer }));
    rig.settle();
    assert_eq!(rig.fetches, [(OTHER, base().point)]);
    rig
}

/// The power goes at each operation, and the machine's disk has each number of its transactions: the node begins with what
/// it had or with the other's state, whole, and then with sessions and rows of the same entry.
#[test]
fn another_nodes_state_takes_the_place_of_its_own_at_once() {
    let other = Other::new();
    let mut seen = [0; 3];
    let mut expected: Option<Shown> = None;
    for at in std::iter::once(1000).chain(0..14) {
        let store = Store::default();
        let mut rig = following(&store);
        let fetched = other.bring(&rig);
        let before = store.transactions();
        rig.disk.crash_at(rig.disk.operations() + at);
        rig.driver.fetched(base().point, Ok(fetched));
        settle_until_cut(&mut rig, &mut Random::seeded(at));
        if !rig.disk.is_off() {
            assert_eq!((store.last().applied, rig.driver.applied().0), (base().point, base().point));
            expected.get_or_insert_with(|| shown(&rig.driver));
        }
        let disk = rig.disk.clone();
        drop(rig);
        for (kept, seed) in (before..=store.transactions()).flat_map(|kept| [0, 1].map(|seed| (kept, seed))) {
            let fork = disk.fork();
            fork.crash(&mut Random::seeded(seed));
            let store = store.cut(kept);
            let had = store.last().applied;
            let state = superblock::inspect(&fork.files()).expect("it is intact").state;
            let is_begun = state.group(GroupId::CLUSTER).log_start > Index::FIRST;
            let rig = Rig::on(fork, Ledger::with_snapshots(&store));
            let found = shown(&rig.driver);
            let is_new = found.2.0 == base().point;
            assert!(is_new || found.2.0 == id(1, 4), "cut at {at}: {found:?}");
            assert!(is_new || !is_begun, "cut at {at}: what was begun is ended");
            assert!(is_new || had == id(1, 4), "cut at {at}: it goes back");
            assert!(!is_new || Some(&found) == expected.as_ref(), "cut at {at}: {found:?}");
            assert_eq!(store.last().applied, found.2.0, "and it is in its store before anything else");
            seen[if !is_new { 0 } else { 1 + usize::from(had == base().point) }] += 1;
        }
    }
    println!("{seen:?}: the old state, the snapshot, the snapshot as its own");
    assert!(seen.iter().all(|count| *count > 0), "{seen:?}");
}

/// As far as it goes: without power nothing ends.
fn settle_until_cut(rig: &mut Rig<Ledger>, random: &mut Random) {
    for _ in 0..100 {
        let mut effects = Vec::new();
        if rig.driver.take_effects(&mut effects).is_err() {
            return;
        }
        effects.into_iter().for_each(|effect| rig.carry_out(effect));
        while rig.disk.complete_any(random) {}
        rig.complete_writes();
    }
}

/// It was away for so long that the log begins behind its state.
#[test]
fn a_log_that_begins_behind_its_state_is_refused_without_a_snapshot_and_begun_from_one() {
    let store = Store::default();
    let mut rig = following(&store);
    let old = store.whole();
    let fetched = Other::new().bring(&rig);
    rig.driver.fetched(base().point, Ok(fetched));
    rig.settle();
    let expected = shown(&rig.driver);
    let disk = rig.disk.clone();
    drop(rig);
    disk.kill(&mut Random::seeded(1));
    let refused =
        Driver::start(&disk.fork().files(), options(), Ledger::on(&old.whole()), 0).expect_err("no snapshots");
    let StartError::MachineBehindLog { applied, first } = refused else { panic!("{refused}") };
    assert_eq!((applied, first), (id(1, 4), Index(41)));
    assert_eq!(shown(&start(&disk, &store.whole()).unwrap()), expected, "its own is as new");
    assert_eq!(shown(&start(&disk, &old.whole()).unwrap()), expected, "by the snapshot");
    let lost = disk.fork();
    let listing = snapshot::list(&lost.files(), Some(CLUSTER)).unwrap();
    let found = listing.whole(GroupId::CLUSTER).next().expect("it is there").description.name();
    lost.truncate(&format!("{found}/chunks"), 1);
    let refused = start(&lost, &old.whole()).expect_err("there is no state to begin from");
    assert!(matches!(refused, StartError::NoState { .. }), "{refused}");
    assert_eq!(shown(&start(&lost, &store.whole()).unwrap()).0, expected.0, "its own state needs none");
}
