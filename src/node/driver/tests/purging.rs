//! What goes of a node's log for good: each bound once, and a cut of power at each step.

use super::rig::{CLIENT, OWN, Rig, formatted_with, options};
use crate::checksum::Checksum;
use crate::machine::{Map, StateMachine};
use crate::mutant::{self, Mutant};
use crate::net::{Change, Consistency, Refusal, RequestBody, ResponseBody};
use crate::node::driver::{self, Driver, FollowerTail, Input, Made, Making, StartError};
use crate::random::Random;
use crate::sim::disk::SimDisk;
use crate::snapshot::{Builder, Step};
use crate::types::{Index, LogId};

const SEGMENT_BYTES: u64 = 256 << 10;
const RECORD_BYTES: usize = 1 << 10;
/// Of so many bytes, with what is around them, one segment holds not quite so many.
const SEGMENT_RECORDS: u64 = 240;
const NOTHING: FollowerTail = FollowerTail { bytes: 0, milliseconds: 0 };

fn with(follower_tail: FollowerTail) -> driver::Options {
    driver::Options { segment_bytes: SEGMENT_BYTES, follower_tail: Some(follower_tail), ..options() }
}

/// With a second member, of which nothing is heard; and a session.
fn leading(tail: FollowerTail) -> Rig<Map> {
    let mut rig = Rig::with_options(formatted_with(&[OWN], SEGMENT_BYTES), Map::new(), with(tail));
    rig.lead();
    rig
}

/// Somewhat more than this many segments of records.
fn fill(rig: &mut Rig<Map>, segments: u64) {
    rig.append(segments * SEGMENT_RECORDS, RECORD_BYTES);
}

fn write(rig: &mut Rig<Map>) -> LogId {
    let Making { description, checkpoint } = rig.makings.remove(0);
    let point = description.point;
    let mut builder = Builder::new(description, Box::new(checkpoint));
    while builder.step(&rig.files, true).expect("nothing is wrong with the disk") != Step::Done {}
    let result = Ok(Made { bytes: builder.bytes(), milliseconds: 5 });
    rig.driver.handle(Input::SnapshotMade { point, result });
    rig.settle();
    point
}

fn snapshot(rig: &mut Rig<Map>) -> LogId {
    rig.request(CLIENT, RequestBody::Change(Change::Snapshot));
    rig.settle();
    write(rig)
}

/// All that there is, but the newest.
fn trim(rig: &mut Rig<Map>) -> Index {
    let first = rig.driver.applied().0.index;
    let answer = rig.ask(RequestBody::Change(Change::Trim { first }));
    assert!(matches!(answer, ResponseBody::Changed { .. }), "{answer:?}");
    first
}

/// More than the time from one look at the log to the next, at this time of the wall clock.
fn second(rig: &mut Rig<Map>, wall_clock_milliseconds: u64) {
    for _ in 0..101 {
        rig.driver.handle(Input::Tick { wall_clock_milliseconds });
        rig.settle();
    }
}

fn first(rig: &Rig<Map>) -> Index {
    let first = rig.driver.replica().first_index();
    let log = rig.driver.pipeline.log.group(crate::types::GroupId::CLUSTER).expect("it has entries");
    assert_eq!(log.first(), first, "log and protocol say the same");
    first
}

fn segments(disk: &SimDisk) -> usize {
    use crate::disk::Files;
    disk.files().list(driver::LOG_DIRECTORY).expect("it is there").len()
}

type State = (Checksum, Checksum, LogId, Checksum);

/// What the node shows.
fn state(driver: &Driver<Map>) -> State {
    let (applied, log_digest) = driver.applied();
    (driver.machine().digest(), driver.sessions().digest(), applied, log_digest)
}

fn on(disk: SimDisk) -> Rig<Map> {
    Rig::with_options(disk, Map::new(), with(NOTHING))
}

fn file(point: LogId, file: &str) -> String {
    format!("snapshot-{:010}-{:020}-{:020}/{file}", 0, point.index.0, point.term.0)
}

#[test]
fn no_record_goes_because_a_snapshot_was_made() {
    let test = || {
        std::panic::catch_unwind(|| {
            let mut rig = leading(NOTHING);
            for _ in 0..4 {
                fill(&mut rig, 1);
                snapshot(&mut rig);
                second(&mut rig, 0);
            }
            assert_eq!(first(&rig), Index::FIRST);
            let read =
                RequestBody::Read { from: Index(1), to: None, bytes_max: 1 << 10, consistency: Consistency::Stale };
            assert!(matches!(rig.ask(read), ResponseBody::Records(records) if !records.records.is_empty()));
        })
    };
    test().unwrap();
    assert!(mutant::with(Mutant::PurgedThoughReadable, test).is_err());
}

/// With one snapshot nothing goes; with two, what the older one holds, of whole segments. What is left is less than they
/// were, and is used again.
#[test]
fn what_was_trimmed_goes_as_far_as_the_older_snapshot_holds_it() {
    let mut rig = leading(NOTHING);
    fill(&mut rig, 3);
    let older = snapshot(&mut rig);
    fill(&mut rig, 3);
    trim(&mut rig);
    second(&mut rig, 0);
    assert_eq!(first(&rig), Index::FIRST, "there is one snapshot alone");
    let newer = snapshot(&mut rig);
    assert_eq!(first(&rig), Index::FIRST, "not at once");
    let files = segments(&rig.disk);
    second(&mut rig, 0);
    let begins = first(&rig);
    assert!(begins > Index(2 * SEGMENT_RECORDS) && begins <= older.index.next(), "{begins} of {older}");
    let ticket = rig.driver.pipeline.log.last_ticket();
    second(&mut rig, 0);
    assert_eq!((first(&rig), rig.driver.pipeline.log.last_ticket()), (begins, ticket), "no other segment is free");
    fill(&mut rig, 2);
    assert!(segments(&rig.disk) <= files, "what is free is used again");
    snapshot(&mut rig);
    second(&mut rig, 0);
    assert!(first(&rig) > begins && first(&rig) <= newer.index.next());
}

#[test]
fn what_is_not_trimmed_stays_though_both_snapshots_hold_it() {
    let mut rig = leading(NOTHING);
    fill(&mut rig, 2);
    let trimmed = trim(&mut rig);
    fill(&mut rig, 2);
    for _ in 0..2 {
        snapshot(&mut rig);
        second(&mut rig, 0);
    }
    assert!(first(&rig) > Index(SEGMENT_RECORDS) && first(&rig) <= trimmed, "{} of {trimmed}", first(&rig));
}

/// Trimmed up to the newer one of two snapshots; what the older one holds has gone.
fn purged() -> (Rig<Map>, [LogId; 2]) {
    let mut rig = leading(NOTHING);
    fill(&mut rig, 3);
    let older = snapshot(&mut rig);
    fill(&mut rig, 2);
    trim(&mut rig);
    let newer = snapshot(&mut rig);
    rig.put(20, 100);
    second(&mut rig, 0);
    assert!(first(&rig) > Index(SEGMENT_RECORDS));
    (rig, [older, newer])
}

fn older_is_enough() -> Result<(), String> {
    let (rig, [older, newer]) = purged();
    let expected = state(&rig.driver);
    let disk = rig.disk.fork();
    drop(rig);
    disk.kill(&mut Random::seeded(1));
    disk.flip_bit(&file(newer, "chunks"), 40, 3);
    let fork = disk.fork();
    let started = Driver::start(&fork.files(), with(NOTHING), Map::new(), 0).map_err(|error| error.to_string())?;
    assert_eq!(started.snapshot, Some(older));
    drop(started);
    fork.kill(&mut Random::seeded(1));
    let mut rig = on(fork);
    rig.elect();
    let (machine, sessions, ..) = state(&rig.driver);
    assert_eq!((machine, sessions), (expected.0, expected.1));
    disk.flip_bit(&file(older, "chunks"), 40, 3);
    let refused = Driver::start(&disk.files(), with(NOTHING), Map::new(), 0).unwrap_err();
    assert!(matches!(&refused, StartError::NoState { first, .. } if *first > Index(SEGMENT_RECORDS)), "{refused}");
    Ok(())
}

/// The newest snapshot rots: the older one and the log behind it are the same state. Where both do, there is no state, and
/// that is said.
#[test]
fn a_start_from_the_older_snapshot_finds_its_log() {
    older_is_enough().unwrap();
    let found = mutant::with(Mutant::PurgedToNewestSnapshot, older_is_enough).expect_err("nobody noticed");
    assert!(found.contains("no snapshot can be used"), "{found}");
}

/// After each operation of the disk, with what was not flushed lost, kept, or some of it: the log is there or has gone, and
/// the state is the same.
#[test]
fn a_cut_at_each_operation_of_a_purge_leaves_the_log_or_the_snapshots() {
    let before = || {
        let mut rig = leading(NOTHING);
        fill(&mut rig, 2);
        snapshot(&mut rig);
        fill(&mut rig, 1);
        trim(&mut rig);
        rig
    };
    let mut seen = [0; 2];
    for at in 0.. {
        let mut rig = before();
        rig.request(CLIENT, RequestBody::Change(Change::Snapshot));
        rig.settle();
        let expected = (rig.driver.machine().digest(), rig.driver.sessions().digest());
        write(&mut rig);
        rig.disk.crash_at(rig.disk.operations() + at);
        let mut random = Random::seeded(at);
        for _ in 0..130 {
            rig.tick();
            for _ in 0..3 {
                let mut effects = Vec::new();
                if rig.driver.take_effects(&mut effects).is_err() {
                    break;
                }
                effects.into_iter().for_each(|effect| rig.carry_out(effect));
                while rig.disk.complete_any(&mut random) {}
                rig.complete_writes();
            }
        }
        let (disk, is_over) = (rig.disk.clone(), !rig.disk.is_off());
        drop(rig);
        for seed in 0..8 {
            let fork = disk.fork();
            match seed {
                0 => fork.crash_with(&mut |_| 0),
                1 => fork.crash_with(&mut |loose| loose.outcomes - 1),
                _ => fork.crash(&mut Random::seeded(seed)),
            }
            let mut rig = on(fork);
            seen[usize::from(first(&rig) > Index::FIRST)] += 1;
            rig.elect();
            let found = (rig.driver.machine().digest(), rig.driver.sessions().digest());
            assert_eq!(found, expected, "cut at {at}");
            rig.lead();
            fill(&mut rig, 1);
        }
        if is_over {
            break;
        }
    }
    assert!(seen[0] > 0 && seen[1] > 0, "{seen:?}");
}

#[test]
fn who_reads_what_has_gone_is_told() {
    let (mut rig, _) = purged();
    let begins = first(&rig);
    let ResponseBody::Status(status) = rig.ask(RequestBody::Status) else { panic!("a status") };
    assert!(status.first >= begins);
    let read = RequestBody::Read { from: Index(5), to: None, bytes_max: 1 << 10, consistency: Consistency::Stale };
    assert_eq!(rig.ask(read), ResponseBody::Refused(Refusal::Trimmed { first: status.first }));
}
