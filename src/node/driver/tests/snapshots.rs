//! Snapshots of one node: when they are made, what is told of them, and what a start makes of them.

use std::sync::{Arc, Mutex};

use bytes::Bytes;

use super::rig::{CLIENT, CLUSTER, OTHER, OWN, Rig, formatted, from_other, options};
use crate::checksum::Checksum;
use crate::disk::Files;
use crate::machine::{self, Map, StateMachine};
use crate::mutant::{self, Mutant};
use crate::net::{Change, Refusal, RequestBody, ResponseBody, SnapshotMade, SnapshotMaking};
use crate::node::driver::{
    self, Driver, Input, Made, Making, SnapshotFinding, SnapshotOptions, SnapshotProgress, SnapshotReport, StartError,
};
use crate::raft::{Append, Body, Message, Round};
use crate::random::Random;
use crate::sim::disk::SimDisk;
use crate::snapshot::{self, Builder, Step};
use crate::types::{Entry, GroupId, Index, LogId, Membership, NodeId, Payload, Term};

/// Small, so that there are many.
const CHUNK_BYTES: usize = 1024;

/// What nodes must agree on, and what a restart must bring back.
type State = (Checksum, Checksum);

fn state(driver: &Driver<Map>) -> State {
    (driver.machine().digest(), driver.sessions().digest())
}

fn every(entries: u64) -> driver::Options {
    driver::Options { snapshots: SnapshotOptions { entries, ..options().snapshots }, ..options() }
}

/// It leads, has a session, and has a snapshot made after so many entries.
fn leading(entries: u64) -> Rig<Map> {
    let mut rig = Rig::with_options(formatted(&[OWN]), Map::new(), every(entries));
    rig.lead();
    rig
}

fn order() -> RequestBody {
    RequestBody::Change(Change::Snapshot)
}

fn builder(rig: &mut Rig<Map>) -> Builder {
    let Making { description, checkpoint } = rig.makings.remove(0);
    Builder::with_chunks(description, Box::new(checkpoint), CHUNK_BYTES)
}

/// Writes what was ordered, and says so; `look` sees the disk after each step.
fn make_watched(rig: &mut Rig<Map>, look: &mut dyn FnMut(&SimDisk)) -> LogId {
    let mut builder = builder(rig);
    let point = builder.description().point;
    while builder.step(&rig.files, true).expect("nothing is wrong with the disk") != Step::Done {
        look(&rig.disk);
    }
    let result = Ok(Made { bytes: builder.bytes(), milliseconds: 5, core_microseconds: 6 });
    rig.driver.handle(Input::SnapshotMade { point, result });
    for _ in 0..10 {
        rig.turn();
        look(&rig.disk);
        rig.complete_writes();
        look(&rig.disk);
    }
    rig.settle();
    point
}

fn make(rig: &mut Rig<Map>) -> LogId {
    make_watched(rig, &mut |_| ())
}

/// So many commands, and a snapshot behind them.
fn put_and_make(rig: &mut Rig<Map>, commands: u64) -> LogId {
    rig.put(commands, 100);
    rig.request(CLIENT, order());
    rig.settle();
    make(rig)
}

fn start(disk: &SimDisk) -> Result<(Driver<Map>, Vec<SnapshotFinding>), StartError> {
    let disk = disk.fork();
    disk.kill(&mut Random::seeded(1));
    let started = Driver::start(&disk.files(), options(), Map::new(), 0)?;
    assert_eq!(started.snapshot.unwrap_or_default(), started.driver.applied().0);
    Ok((started.driver, started.snapshot_findings))
}

fn whole(disk: &SimDisk) -> Vec<LogId> {
    let listing = snapshot::list(&disk.files(), Some(CLUSTER)).unwrap();
    listing.whole(GroupId::CLUSTER).map(|manifest| manifest.description.point).collect()
}

fn named(driver: &Driver<Map>) -> LogId {
    driver.pipeline.superblock.state().group(GroupId::CLUSTER).snapshot
}

/// What the node shows once it leads and has applied its whole log.
fn state_after(disk: SimDisk) -> State {
    let mut rig = Rig::on(disk, Map::new());
    rig.elect();
    state(&rig.driver)
}

#[test]
fn one_is_made_when_enough_was_applied_and_a_start_goes_on_from_it() {
    let mut rig = leading(30);
    rig.put(20, 100);
    assert!(rig.makings.is_empty(), "not enough was applied");
    rig.put(20, 100);
    assert_eq!(rig.makings.len(), 1);
    let point = make(&mut rig);
    assert_eq!((named(&rig.driver), whole(&rig.disk)), (point, vec![point]));
    let last = rig.driver.status().snapshots.last.expect("it is made");
    assert_eq!((last.point, last.milliseconds), (point, 5));
    rig.put(10, 100);
    assert!(rig.makings.is_empty(), "it counts from the last point on");
    let expected = state(&rig.driver);
    let (driver, findings) = start(&rig.disk).unwrap();
    assert_eq!((driver.applied().0, driver.replica().status().commit), (point, point.index));
    assert_eq!((driver.configuration.clone(), findings), (rig.driver.configuration.clone(), vec![]));
    assert_eq!(driver.status().snapshots.last.map(|last| last.point), Some(point));
    let log_digest = rig.driver.applied();
    let mut again = rig.again(Map::new());
    assert_eq!(again.driver.applied().0, point);
    again.elect();
    assert_eq!(state(&again.driver), expected);
    // Its no-op is behind what the other had applied.
    assert!(again.driver.applied().0.index > log_digest.0.index);
}

/// The digest of the log is taken over from the snapshot, too.
#[test]
fn who_begins_from_a_snapshot_shows_at_each_entry_what_others_show() {
    let mut rig = leading(0);
    rig.put(20, 100);
    let without = rig.disk.fork();
    put_and_make(&mut rig, 10);
    let (with, expected) = (rig.disk.fork(), rig.driver.applied());
    assert_eq!(start(&with).unwrap().0.applied(), expected);
    assert_eq!(start(&without).unwrap().0.applied().0, LogId::ZERO);
}

#[test]
fn bytes_count_as_entries_do() {
    let snapshots = SnapshotOptions { bytes: 64 << 10, ..options().snapshots };
    let mut rig = Rig::with_options(formatted(&[OWN]), Map::new(), driver::Options { snapshots, ..options() });
    rig.lead();
    rig.put(3, 10 << 10);
    assert!(rig.makings.is_empty());
    rig.put(4, 10 << 10);
    assert_eq!(rig.makings.len(), 1);
}

#[test]
fn a_point_that_is_applied_while_one_is_written_is_passed_over() {
    let mut rig = leading(20);
    rig.put(80, 10);
    assert_eq!(rig.makings.len(), 1, "one at a time");
    let making = rig.driver.status().snapshots.making.expect("it is written");
    let progress = SnapshotProgress { written_bytes: 77, making_milliseconds: 3, ..SnapshotProgress::default() };
    rig.driver.handle(Input::SnapshotProgress(progress));
    let expected = SnapshotMaking { point: making.point, bytes: 77, milliseconds: 3 };
    assert_eq!(rig.driver.status().snapshots.making, Some(expected));
    // Somebody else's point, as it were.
    rig.driver.replica.propose(vec![Payload::SnapshotPoint]).unwrap();
    rig.settle();
    assert_eq!(rig.makings.len(), 1);
    make(&mut rig);
    rig.put(20, 10);
    assert_eq!(rig.makings.len(), 1, "the next is due");
}

/// Counts how often it was started, and how often stopped.
#[derive(Clone, Debug, Default)]
struct Counting(Arc<Mutex<[u32; 2]>>);

impl driver::Stopwatch for Counting {
    fn start(&mut self) {
        self.0.lock().unwrap()[0] += 1;
    }

    fn stop(&mut self) {
        self.0.lock().unwrap()[1] += 1;
    }
}

#[test]
fn each_state_that_is_taken_is_measured_and_nothing_else() {
    let mut rig = leading(0);
    let counting = Counting::default();
    rig.driver.measure_with(Box::new(counting.clone()));
    rig.put(10, 100);
    assert_eq!(*counting.0.lock().unwrap(), [0, 0]);
    put_and_make(&mut rig, 5);
    assert_eq!(*counting.0.lock().unwrap(), [1, 1]);
    put_and_make(&mut rig, 5);
    assert_eq!(*counting.0.lock().unwrap(), [2, 2]);
}

#[test]
fn who_orders_one_is_answered_when_it_is_durable() {
    let mut rig = leading(0);
    rig.put(5, 100);
    let id = rig.request(CLIENT, order());
    rig.settle();
    assert!(rig.replies.is_empty(), "it is not written");
    let again = rig.ask(order());
    assert!(matches!(again, ResponseBody::Refused(Refusal::Unavailable { .. })), "one at a time: {again:?}");
    let mut builder = builder(&mut rig);
    let point = builder.description().point;
    while builder.step(&rig.files, true).unwrap() != Step::Done {}
    rig.holds_writes = true;
    rig.driver
        .handle(Input::SnapshotMade { point, result: Ok(Made { bytes: 9, milliseconds: 8, core_microseconds: 7 }) });
    rig.settle();
    assert!(rig.replies.is_empty(), "the superblock does not name it");
    rig.holds_writes = false;
    rig.settle();
    let (_, answer) = rig.replies.pop().expect("it is durable");
    let made = SnapshotMade { point, bytes: 9, milliseconds: 8, core_microseconds: 7 };
    assert_eq!((answer.id, answer.body), (id, ResponseBody::SnapshotMade(made)));
    assert!(matches!(rig.reports[..], [SnapshotReport::Made(told)] if told == made), "{:?}", rig.reports);
}

/// The log goes on, and so does everything else.
#[test]
fn one_that_finds_no_room_is_told_and_the_next_one_is_tried() {
    let mut rig = leading(0);
    rig.put(50, 100);
    let id = rig.request(CLIENT, order());
    rig.settle();
    rig.disk.set_capacity(rig.disk.used_bytes() + 3000);
    let mut builder = builder(&mut rig);
    let point = builder.description().point;
    let error = loop {
        match builder.step(&rig.files, true) {
            Ok(step) => assert_ne!(step, Step::Done),
            Err(error) => break error,
        }
    };
    assert!(error.is_no_space());
    builder.abandon(&rig.files).unwrap();
    rig.driver.handle(Input::SnapshotMade { point, result: Err(error) });
    rig.settle();
    let (_, answer) = rig.replies.pop().expect("it has failed");
    assert_eq!(answer.id, id);
    assert!(matches!(answer.body, ResponseBody::Refused(Refusal::SnapshotFailed { .. })), "{answer:?}");
    assert!(matches!(rig.reports[..], [SnapshotReport::Failed { .. }]), "{:?}", rig.reports);
    assert!(rig.driver.status().snapshots.failure.contains("failed"));
    assert_eq!((named(&rig.driver), whole(&rig.disk)), (LogId::ZERO, vec![]));
    rig.disk.set_capacity(1 << 40);
    let point = put_and_make(&mut rig, 1);
    assert_eq!((whole(&rig.disk), rig.driver.status().snapshots.failure.as_str()), (vec![point], ""));
}

#[test]
fn two_stay_and_older_ones_are_removed() {
    let mut rig = leading(0);
    let points: Vec<LogId> = (0..4).map(|_| put_and_make(&mut rig, 3)).collect();
    assert_eq!(whole(&rig.disk), points[2..]);
}

/// Entries from another leader that this node has not on its disk yet, with a point and what is behind it.
fn follower_with_a_point() -> Rig<Map> {
    let mut rig = Rig::started(Map::new(), &[OWN, OTHER]);
    rig.holds_writes = true;
    let payloads = [Payload::Noop, Payload::SnapshotPoint, Payload::Noop];
    let entry = |(at, payload)| Entry { id: LogId::new(Term(1), Index(at)), payload };
    let entries = (1..).zip(payloads).map(entry).collect();
    let append = Append { previous: LogId::ZERO, entries, commit: Index(3), round: Round(1) };
    rig.driver.handle(from_other(Message { from: OTHER, to: OWN, term: Term(1), body: Body::Append(append) }));
    rig.settle();
    assert_eq!(rig.driver.applied().0.index, Index(3), "it is applied");
    for _ in 0..300 {
        rig.driver.snapshots.tick();
    }
    rig.settle();
    rig
}

#[test]
fn a_node_writes_no_state_that_its_own_log_does_not_hold() {
    let mut rig = follower_with_a_point();
    assert!(rig.makings.is_empty(), "the point is not durable here");
    rig.holds_writes = false;
    rig.settle();
    assert_eq!(rig.makings[0].description.point.index, Index(2), "the state as it was at the point");
    let found = mutant::with(Mutant::SnapshotBeforeLog, || !follower_with_a_point().makings.is_empty());
    assert!(found, "the check finds it");
}

#[test]
fn the_leader_writes_first_and_the_others_one_after_the_other() {
    let mut rig = follower_with_a_point();
    rig.holds_writes = false;
    rig.settle();
    rig.makings.clear();
    let member = |id| crate::types::Member { id: NodeId(id), ..rig.driver.configuration.1.members[0].clone() };
    rig.driver.configuration.1 = Membership { members: (1..=4).map(member).collect(), ..Default::default() };
    assert_eq!(rig.driver.replica().status().leader, Some(OTHER));
    assert_eq!(rig.driver.turn(), 1, "behind node 2, which leads");
    rig.driver.options.node = NodeId(3);
    assert_eq!(rig.driver.turn(), 2);
    rig.driver.options.node = NodeId(4);
    assert_eq!(rig.driver.turn(), 3);
    rig.driver.options.node = OTHER;
    assert_eq!(rig.driver.turn(), 0);
    assert_eq!(rig.driver.snapshots.turn_ticks(), 100, "as configured, at least");
    let last = |bytes| Some(SnapshotMade { point: LogId::ZERO, bytes, milliseconds: 0, core_microseconds: 0 });
    rig.driver.snapshots.last = last(5 << 20);
    assert_eq!(rig.driver.snapshots.turn_ticks(), 1000, "as long as the one before writes, and reads back");
    rig.driver.snapshots.last = last(1 << 50);
    assert_eq!(rig.driver.snapshots.turn_ticks(), 6000, "and no longer than a minute");
}

#[test]
fn points_of_before_the_start_are_passed_over() {
    let mut rig = leading(0);
    rig.put(10, 10);
    rig.request(CLIENT, order());
    rig.settle();
    let mut rig = rig.again(Map::new());
    rig.elect();
    assert!(rig.makings.is_empty(), "it is not the state of now");
    let answer = rig.request(CLIENT, order());
    rig.settle();
    assert_eq!((rig.makings.len(), rig.replies.iter().all(|(_, reply)| reply.id != answer)), (1, true));
}

/// After each operation, with what was not flushed lost, kept, or some of it.
fn cuts_while_one_is_made() -> Result<usize, String> {
    let mut rig = leading(0);
    let first = put_and_make(&mut rig, 30);
    rig.put(30, 100);
    let expected = state(&rig.driver);
    rig.request(CLIENT, order());
    rig.settle();
    let second = rig.makings[0].description.point;
    let mut wrong = None;
    let mut random = Random::seeded(3);
    let mut cuts = 0;
    let mut cut = |disk: &SimDisk| {
        for way in 0..if wrong.is_some() { 0 } else { 3 } {
            let fork = disk.fork();
            match way {
                0 => fork.crash_with(&mut |_| 0),
                1 => fork.crash_with(&mut |loose| loose.outcomes - 1),
                _ => fork.crash(&mut random),
            }
            let check = match start(&fork) {
                Err(error) => Some(error.to_string()),
                Ok((_, findings)) if !findings.is_empty() => Some(format!("{findings:?}")),
                Ok((driver, _)) if ![first, second].contains(&driver.applied().0) => {
                    Some(format!("it begins from {}", driver.applied().0))
                }
                Ok(_) if state_after(fork) != expected => Some("it is in another state".to_owned()),
                Ok(_) => None,
            };
            wrong = wrong.take().or(check);
            cuts += 1;
        }
    };
    make_watched(&mut rig, &mut cut);
    match wrong {
        None => Ok(cuts),
        Some(wrong) => Err(wrong),
    }
}

#[test]
fn the_power_goes_at_each_operation_and_the_node_begins_from_one_or_the_other() {
    let cuts = cuts_while_one_is_made().unwrap();
    println!("{cuts} cuts");
    assert!(cuts > 90, "{cuts}");
}

#[test]
fn the_cuts_find_what_is_named_early_and_what_is_lost() {
    for (mutant, says) in [
        (Mutant::SnapshotNamedBeforeDurable, "which the superblock names, is not there"),
        (Mutant::SnapshotWithoutSessions, "it is in another state"),
    ] {
        let found = mutant::with(mutant, cuts_while_one_is_made).expect_err("nobody noticed");
        println!("{}: {found}", mutant.name());
        assert!(found.contains(says), "{}: {found}", mutant.name());
    }
}

/// A disk with two snapshots, the points of both, and the state behind them.
fn with_two() -> (SimDisk, [LogId; 2], State) {
    let mut rig = leading(0);
    let points = [30, 30].map(|commands| put_and_make(&mut rig, commands));
    rig.put(5, 100);
    let expected = state(&rig.driver);
    let disk = rig.disk.fork();
    disk.kill(&mut Random::seeded(1));
    (disk, points, expected)
}

fn file(point: LogId, file: &str) -> String {
    format!("snapshot-{:010}-{:020}-{:020}/{file}", GroupId::CLUSTER.0, point.index.0, point.term.0)
}

fn damage_is_told() -> Result<(), String> {
    for damaged in ["chunks", "manifest"] {
        let (disk, [older, newer], expected) = with_two();
        disk.flip_bit(&file(newer, damaged), 40, 3);
        let (driver, findings) = start(&disk).map_err(|error| error.to_string())?;
        if driver.applied().0 != older || findings.len() != 1 || !findings[0].what.contains("is damaged") {
            return Err(format!("{damaged}: it begins from {}, and says {findings:?}", driver.applied().0));
        }
        assert!(driver.status().snapshots.failure.contains("is damaged"));
        if state_after(disk.fork()) != expected {
            return Err(format!("{damaged}: it is in another state"));
        }
        disk.flip_bit(&file(older, damaged), 41, 3);
        let (driver, findings) = start(&disk).map_err(|error| error.to_string())?;
        assert_eq!((driver.applied().0, findings.len()), (LogId::ZERO, 2), "the log has all of it: {findings:?}");
        assert_eq!(state_after(disk), expected);
    }
    Ok(())
}

#[test]
fn a_damaged_one_is_told_and_the_older_one_and_the_log_are_used() {
    damage_is_told().unwrap();
    let found = mutant::with(Mutant::SnapshotDamagedIsEmpty, damage_is_told).expect_err("nobody noticed");
    println!("snapshot_damaged_is_empty: {found}");
}

/// It came from another node, say, and has rotted before the log came to its point.
#[test]
fn one_that_is_there_and_does_not_read_back_does_not_push_a_whole_one_out() {
    let (disk, [_, second], _) = with_two();
    let mut rig = Rig::on(disk, Map::new());
    rig.lead();
    rig.put(2, 100);
    rig.request(CLIENT, order());
    rig.settle();
    let mut builder = builder(&mut rig);
    let rotten = builder.description().point;
    while builder.step(&rig.files, true).expect("nothing is wrong with the disk") != Step::Done {}
    rig.disk.flip_bit(&file(rotten, "chunks"), 70, 1);
    let damage = snapshot::Damage::Chunk { number: 0 };
    let result = Err(snapshot::Error::Damaged { name: "it".to_owned(), damage });
    rig.driver.handle(Input::SnapshotMade { point: rotten, result });
    rig.settle();
    let newest = put_and_make(&mut rig, 2);
    let left = whole(&rig.disk);
    assert!(left.contains(&second) && left.contains(&newest), "{left:?}, and {rotten} is rotten");
}

/// What was found to be damaged stays until two newer ones are whole, and counts for none of them.
#[test]
fn a_damaged_one_does_not_push_a_whole_one_out() {
    let (disk, [older, newer], _) = with_two();
    disk.flip_bit(&file(newer, "chunks"), 40, 3);
    let mut rig = Rig::on(disk, Map::new());
    rig.lead();
    let third = put_and_make(&mut rig, 2);
    assert_eq!(
        whole(&rig.disk),
        [older, newer, third],
        "by name and length: of two of them it is known that they read back"
    );
    let fourth = put_and_make(&mut rig, 2);
    assert_eq!(whole(&rig.disk), [third, fourth]);
}

/// Others have sent what was not right: it counts again, and nothing is said of it any more.
#[test]
fn a_damaged_one_that_was_mended_counts_and_is_not_told_any_more() {
    let (disk, [older, newer], _) = with_two();
    let chunks = file(newer, "chunks");
    disk.flip_bit(&chunks, 40, 3);
    let mut rig = Rig::on(disk, Map::new());
    assert!(rig.driver.status().snapshots.failure.contains("is damaged"));
    rig.disk.flip_bit(&chunks, 40, 3);
    rig.driver.mended(older);
    assert!(rig.driver.status().snapshots.failure.contains("is damaged"), "that was another one");
    rig.driver.mended(newer);
    assert_eq!(rig.driver.status().snapshots.failure, "");
    rig.lead();
    let third = put_and_make(&mut rig, 2);
    assert_eq!(whole(&rig.disk), [newer, third]);
}

#[test]
fn one_that_is_gone_is_told() {
    let (disk, [older, newer], expected) = with_two();
    snapshot::remove(&disk.files(), file(newer, "").trim_end_matches('/')).unwrap();
    let (driver, findings) = start(&disk).unwrap();
    assert_eq!((driver.applied().0, findings.len()), (older, 1));
    assert!(findings[0].what.contains("is not there"), "{findings:?}");
    assert_eq!(state_after(disk), expected);
}

/// The purge that a start would follow is another builder's: here a log begins late because its beginning was purged.
#[test]
fn without_a_snapshot_a_log_that_begins_late_is_no_empty_state() {
    let mut rig = leading(0);
    let point = put_and_make(&mut rig, 30);
    rig.put(3, 100);
    let expected = state(&rig.driver);
    rig.driver.pipeline.log.purge_prefix(GroupId::CLUSTER, point).unwrap();
    rig.settle();
    let disk = rig.disk.fork();
    disk.kill(&mut Random::seeded(1));
    let (driver, findings) = start(&disk).unwrap();
    assert_eq!((driver.applied().0, driver.replica().first_index(), findings), (point, point.index.next(), vec![]));
    assert_eq!(state_after(disk.fork()), expected);
    disk.flip_bit(&file(point, "chunks"), 40, 3);
    let refused = start(&disk).unwrap_err();
    assert!(matches!(&refused, StartError::NoState { first, .. } if *first == point.index.next()), "{refused}");
    assert!(refused.to_string().contains("is damaged"), "{refused}");
}

#[test]
fn a_log_that_lacks_the_point_of_a_durable_snapshot_is_corrupt() {
    let mut rig = leading(0);
    let before = rig.disk.fork();
    put_and_make(&mut rig, 3);
    let point = named(&rig.driver);
    // The superblock and the snapshot of now, with the log of before.
    let disk = rig.disk.fork();
    for name in before.files().list("log").unwrap() {
        let name = format!("log/{name}");
        disk.overwrite(&name, 0, &before.contents(&name));
    }
    let refused = start(&disk).unwrap_err();
    println!("{refused}");
    assert!(refused.takes_voice(), "what it has acknowledged is gone");
    let StartError::SnapshotBeyondLog { point: said, .. } = refused else { panic!("{refused}") };
    assert_eq!(said, point);
}

/// It keeps nothing that it could give.
#[derive(Debug)]
struct Plain;

impl StateMachine for Plain {
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

#[test]
fn a_machine_that_gives_none_says_so_once() {
    let mut rig = Rig::with_options(formatted(&[OWN]), Plain, every(5));
    rig.lead();
    rig.append(40, 10);
    assert!(rig.makings.is_empty());
    assert!(matches!(rig.reports[..], [SnapshotReport::NoneGiven]), "{:?}", rig.reports);
    let answer = rig.ask(order());
    assert!(matches!(answer, ResponseBody::Refused(Refusal::Impossible { .. })), "{answer:?}");
}
