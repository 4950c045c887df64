//! What goes of a node's log for good: each bound once, and a cut of power at each step.

use super::rig::{CLIENT, OTHER, OWN, Rig, data, formatted_with, from_other, options};
use crate::checksum::Checksum;
use crate::machine::{Map, StateMachine};
use crate::mutant::{self, Mutant};
use crate::net::{Change, Consistency, Refusal, RequestBody, ResponseBody};
use crate::node::driver::{self, Driver, FollowerTail, Input, Made, Making, StartError};
use crate::raft::{Append, AppendOutcome, AppendReply, Base, Body, Input as RaftInput, Message, Round};
use crate::random::Random;
use crate::sim::disk::SimDisk;
use crate::snapshot::{Builder, Step};
use crate::types::{Entry, GroupId, Index, LogId, Payload, Service, SessionId, Term};

pub const SEGMENT_BYTES: u64 = 256 << 10;
const RECORD_BYTES: usize = 1 << 10;
/// A frame of 16 ends at a block.
const RECORD_DISK_BYTES: u64 = 1280;
/// One segment holds not quite so many.
pub const SEGMENT_RECORDS: u64 = 240;
pub const NOTHING: FollowerTail = FollowerTail { bytes: 0, milliseconds: 0 };

pub fn with(follower_tail: FollowerTail) -> driver::Options {
    driver::Options { segment_bytes: SEGMENT_BYTES, follower_tail: Some(follower_tail), ..options() }
}

/// With a second member, of which nothing is heard; and a session.
pub fn leading(tail: FollowerTail) -> Rig<Map> {
    let mut rig = Rig::with_options(formatted_with(&[OWN], SEGMENT_BYTES), Map::new(), with(tail));
    rig.lead();
    rig
}

/// Somewhat more than this many segments of records.
pub fn fill(rig: &mut Rig<Map>, segments: u64) {
    rig.append(segments * SEGMENT_RECORDS, RECORD_BYTES);
}

pub fn write(rig: &mut Rig<Map>) -> LogId {
    let Making { description, checkpoint } = rig.makings.remove(0);
    let point = description.point;
    let mut builder = Builder::new(description, Box::new(checkpoint));
    while builder.step(&rig.files, true).expect("nothing is wrong with the disk") != Step::Done {}
    let result = Ok(Made { bytes: builder.bytes(), milliseconds: 5, core_microseconds: 0 });
    rig.driver.handle(Input::SnapshotMade { point, result });
    rig.settle();
    point
}

pub fn snapshot(rig: &mut Rig<Map>) -> LogId {
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
pub fn second(rig: &mut Rig<Map>, wall_clock_milliseconds: u64) {
    for _ in 0..101 {
        rig.driver.handle(Input::Tick { wall_clock_milliseconds });
        rig.settle();
    }
}

pub fn first(rig: &Rig<Map>) -> Index {
    let first = rig.driver.replica().first_index();
    let log = rig.driver.pipeline.log.group(GroupId::CLUSTER).expect("it has entries");
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

pub fn file(point: LogId, file: &str) -> String {
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

/// So many segments, however old.
fn segments_of(count: u64) -> FollowerTail {
    FollowerTail { bytes: count * SEGMENT_BYTES, milliseconds: u64::MAX }
}

/// Two snapshots, of all that there is, and a trim of it.
fn let_go(rig: &mut Rig<Map>) {
    trim(rig);
    snapshot(rig);
    snapshot(rig);
}

/// The other one, which this node leads, says so of the newest that it was sent.
fn answers(rig: &mut Rig<Map>, outcome: AppendOutcome) {
    let round = |message: &Message| match &message.body {
        Body::Append(append) => Some(append.round),
        Body::Heartbeat { round, .. } => Some(*round),
        _ => None,
    };
    let round = rig.sent.iter().filter_map(round).max().expect("it leads");
    let term = rig.driver.replica().status().hard_state.term;
    let body = Body::AppendReply(AppendReply { round, outcome });
    rig.driver.handle(from_other(Message { from: OTHER, to: OWN, term, body }));
    rig.settle();
}

fn matched(rig: &mut Rig<Map>, last: Index) {
    answers(rig, AppendOutcome::Matched { last });
}

/// The log from its first entry on.
fn log_bytes(rig: &Rig<Map>) -> u64 {
    (rig.driver.replica().status().last.index.0 - first(rig).0) * RECORD_DISK_BYTES
}

#[test]
fn a_follower_that_lags_finds_what_it_lacks_within_its_tail_and_no_longer() {
    let mut rig = leading(segments_of(4));
    fill(&mut rig, 3);
    matched(&mut rig, Index(100));
    let_go(&mut rig);
    second(&mut rig, 0);
    assert_eq!(first(&rig), Index::FIRST, "it lacks what lies behind 100");
    for _ in 0..3 {
        fill(&mut rig, 3);
        let_go(&mut rig);
        second(&mut rig, 0);
        let bytes = log_bytes(&rig);
        assert!(bytes > 3 * SEGMENT_BYTES, "{bytes} are kept for it");
        assert!(bytes < 6 * SEGMENT_BYTES, "{bytes} are kept for it");
    }
    let last = rig.driver.replica().status().last.index;
    matched(&mut rig, last);
    second(&mut rig, 0);
    assert!(log_bytes(&rig) < 2 * SEGMENT_BYTES, "it holds all: {} of {last}", first(&rig));
}

#[test]
fn a_follower_that_is_away_for_long_keeps_nothing() {
    let minute = FollowerTail { bytes: 1 << 40, milliseconds: 60_000 };
    let mut rig = leading(minute);
    fill(&mut rig, 3);
    let_go(&mut rig);
    let begins = 1_000_000;
    (0..59).for_each(|at| second(&mut rig, begins + 1000 * at));
    assert_eq!(first(&rig), Index::FIRST, "it may come back");
    (59..65).for_each(|at| second(&mut rig, begins + 1000 * at));
    assert!(log_bytes(&rig) < 2 * SEGMENT_BYTES, "{}", first(&rig));
}

#[test]
fn what_sets_no_segment_free_is_not_purged() {
    let mut rig = leading(NOTHING);
    fill(&mut rig, 2);
    let mut begins = Vec::new();
    for _ in 0..6 {
        // Of less than a segment in all.
        rig.append(16, RECORD_BYTES);
        let_go(&mut rig);
        let last = rig.driver.replica().status().last.index;
        matched(&mut rig, last);
        second(&mut rig, 0);
        begins.push(first(&rig));
    }
    assert!(begins[0] > Index(SEGMENT_RECORDS), "{begins:?}");
    begins.dedup();
    assert!(begins.len() <= 2, "{begins:?}");
}

/// Nothing is heard of the other one, and all that is written is trimmed and in snapshots.
#[test]
fn a_follower_that_hangs_does_not_fill_the_disk() {
    let mut rig = leading(segments_of(3));
    let mut files = Vec::new();
    for _ in 0..14 {
        fill(&mut rig, 1);
        let_go(&mut rig);
        second(&mut rig, 0);
        files.push(segments(&rig.disk));
    }
    // Three of its tail, one more of which a part counts, one that is written, three that stand ready, one on its way.
    assert!(files.iter().all(|count| *count <= 9), "{files:?}");
    assert_eq!(files[6], files[13], "{files:?}");
}

/// What the other leader sends: records up to here, and what stands behind them. All of it is committed.
pub fn sends(rig: &mut Rig<Map>, until: u64, behind: &[Payload]) {
    let record = |index: u64| {
        let command = data(Service::Append, SessionId(1), (index, index), &[7; RECORD_BYTES]);
        Payload::Data(command)
    };
    let mut last = rig.driver.replica().status().last;
    let payloads = (last.index.0 + 1..=until).map(record).chain(behind.iter().cloned());
    let entries = payloads.zip(last.index.0 + 1..).map(|(payload, index)| Entry { id: id(index), payload });
    for batch in entries.collect::<Vec<_>>().chunks(16) {
        let end = batch.last().expect("not empty").id;
        let append = Append { previous: last, entries: batch.to_vec(), commit: end.index, round: Round(1) };
        let message = Message { from: OTHER, to: OWN, term: Term(1), body: Body::Append(append) };
        rig.driver.handle(from_other(message));
        rig.settle();
        last = end;
    }
}

pub fn id(index: u64) -> LogId {
    LogId::new(Term(1), Index(index))
}

/// The other one leads. This one has two snapshots of six segments that were trimmed.
pub fn following(tail: FollowerTail) -> Rig<Map> {
    let mut rig = Rig::with_options(formatted_with(&[OTHER], SEGMENT_BYTES), Map::new(), with(tail));
    sends(&mut rig, 6 * SEGMENT_RECORDS, &[]);
    let first = rig.driver.applied().0.index;
    for _ in 0..2 {
        sends(&mut rig, 0, &[Payload::Trim { first }, Payload::SnapshotPoint]);
        // Its turn comes behind the leader's.
        (0..110).for_each(|_| rig.driver.snapshots.tick());
        rig.settle();
        write(&mut rig);
    }
    assert_eq!(rig.driver.readable_from(), first);
    rig
}

/// It may lead next, and knows nothing of what the others hold.
#[test]
fn who_does_not_lead_keeps_the_tail_of_followers_as_well() {
    let mut rig = following(segments_of(3));
    second(&mut rig, 0);
    let bytes = log_bytes(&rig);
    assert!(bytes > 2 * SEGMENT_BYTES && bytes < 4 * SEGMENT_BYTES, "{bytes}");
    let mut rig = following(NOTHING);
    second(&mut rig, 0);
    assert!(log_bytes(&rig) < 2 * SEGMENT_BYTES, "{}", first(&rig));
}

/// Of what a purge and an installation do to the log, the later beginning counts, whichever is durable first.
#[test]
fn a_snapshot_that_is_installed_during_a_purge_decides_where_the_log_begins() {
    for purges_first in [true, false] {
        let mut rig = following(NOTHING);
        rig.holds_writes = true;
        let end = rig.driver.replica().status().last.index.0;
        let base = Base { point: id(end + 50), begin_after: id(end + 50) };
        let membership = (LogId::ZERO, rig.driver.replica().membership().clone());
        if purges_first {
            second(&mut rig, 0);
            assert_eq!(rig.driver.replica().first_index(), Index::FIRST, "it is on its way");
        }
        // Nothing is applied before the state has been taken over.
        rig.driver.applied = base.point;
        rig.driver.replica.handle(RaftInput::Installed { base, membership });
        if !purges_first {
            second(&mut rig, 0);
        }
        rig.holds_writes = false;
        rig.settle();
        assert_eq!(first(&rig), base.begin_after.index.next());
        assert_eq!(rig.driver.replica().status().durable, base.begin_after);
        second(&mut rig, 0);
        assert_eq!(first(&rig), base.begin_after.index.next());
    }
}

/// The entries were being read for it when they went. It is offered the snapshot.
#[test]
fn a_follower_whose_entries_go_while_they_are_read_is_offered_the_snapshot() {
    let mut rig = leading(NOTHING);
    fill(&mut rig, 3);
    let_go(&mut rig);
    rig.holds_reads = true;
    matched(&mut rig, Index(100));
    assert_eq!(rig.reads.len(), 1, "they are in the log alone");
    second(&mut rig, 0);
    assert!(first(&rig) > Index(SEGMENT_RECORDS));
    // What held them is written anew before they are read.
    fill(&mut rig, 2);
    rig.holds_reads = false;
    rig.settle();
    assert_eq!(rig.missing, [], "nothing is wrong");
    let begin_after = first(&rig).previous();
    let previous = LogId::new(rig.driver.replica().term_at(begin_after).expect("it is known"), begin_after);
    let hint = LogId::new(previous.term, Index(100));
    answers(&mut rig, AppendOutcome::Rejected { previous, hint });
    let point = rig.driver.status().snapshots.last.expect("there are two").point;
    let mut offers = rig.sent.iter().filter_map(|message| match message.body {
        Body::Snapshot { base, .. } => Some(base),
        _ => None,
    });
    assert_eq!(offers.next_back(), Some(Base { point, begin_after: previous }));
}

fn offers(rig: &Rig<Map>) -> Vec<Base> {
    let offers = rig.sent.iter().filter_map(|message| match message.body {
        Body::Snapshot { base, .. } => Some(base),
        _ => None,
    });
    offers.collect()
}

/// Two newer snapshots, and the records that they hold let go, while it fetches the one that it was offered.
fn keeps_what_was_offered() -> Result<(), String> {
    let mut rig = leading(FollowerTail { bytes: 0, milliseconds: 60_000 });
    fill(&mut rig, 3);
    matched(&mut rig, Index(100));
    let_go(&mut rig);
    second(&mut rig, 0);
    let begin_after = first(&rig).previous();
    let previous = LogId::new(rig.driver.replica().term_at(begin_after).expect("it is known"), begin_after);
    let rejected = AppendOutcome::Rejected { previous, hint: LogId::new(previous.term, Index(100)) };
    answers(&mut rig, rejected);
    rig.tick();
    rig.settle();
    let point = offers(&rig).first().expect("it is offered one").point;
    for _ in 0..3 {
        fill(&mut rig, 2);
        let_go(&mut rig);
        answers(&mut rig, rejected);
        second(&mut rig, 0);
    }
    if first(&rig) > point.index.next() {
        return Err(format!("the log begins at {}, and {point} is fetched", first(&rig)));
    }
    let is_there = {
        let listing = crate::snapshot::list(&rig.files, None).unwrap();
        listing.whole(GroupId::CLUSTER).any(|manifest| manifest.description.point == point)
    };
    assert!(is_there);
    for _ in 0..60 {
        answers(&mut rig, rejected);
        second(&mut rig, 0);
    }
    assert!(first(&rig) > point.index.next(), "it hangs, and keeps what it was offered for no longer than its tail");
    assert!(offers(&rig).last().is_some_and(|base| base.point > point), "it is offered a newer one");
    Ok(())
}

#[test]
fn what_a_member_was_offered_stays_while_it_may_be_fetching_it() {
    keeps_what_was_offered().unwrap();
    assert!(mutant::with(Mutant::OfferNotKept, keeps_what_was_offered).is_err());
}
