//! A snapshot takes the place of the log: what of it is durable before what, at each cut.

use super::rig::{CLUSTER, OTHER, OWN, Rig, from_other, options};
use crate::checksum::Checksum;
use crate::machine::{Map, StateMachine, command};
use crate::mutant::{self, Mutant};
use crate::net::{Consistency, Refusal, RequestBody, ResponseBody};
use crate::node::driver::checkpoint::Checkpoint;
use crate::node::driver::start::LOG_DIRECTORY;
use crate::node::driver::{Discarded, Driver, NotFetched, SnapshotReport, StartError};
use crate::node::sessions::Sessions;
use crate::raft::{Append, AppendOutcome, Base, Body, Input, Message, Round};
use crate::random::Random;
use crate::sim::disk::SimDisk;
use crate::snapshot::{Builder, Description, Manifest, Step};
use crate::superblock;
use crate::types::{Entry, GroupId, Incarnation, Index, LogId, Membership, Payload, Term};
use crate::wal::{self, GroupLog, Identity, Log};

const TERM: Term = Term(1);

fn id(term: u64, index: u64) -> LogId {
    LogId::new(Term(term), Index(index))
}

fn base() -> Base {
    Base { point: id(2, 9), begin_after: id(2, 7) }
}

fn append(term: u64, previous: LogId, count: u64) -> Message {
    let entry = |index| Entry { id: id(term, index), payload: Payload::Noop };
    let entries = (previous.index.0 + 1..=previous.index.0 + count).map(entry).collect();
    let body = Body::Append(Append { previous, entries, commit: Index::ZERO, round: Round(0) });
    Message { from: OTHER, to: OWN, term: Term(term), body }
}

/// The other leads, and this node's log holds so many entries of it.
fn following(count: u64) -> Rig<Map> {
    let mut rig = Rig::started(Map::new(), &[OTHER]);
    rig.driver.handle(from_other(append(TERM.0, LogId::ZERO, count)));
    rig.settle();
    assert_eq!(rig.driver.replica().status().durable, id(TERM.0, count));
    rig
}

/// The snapshot is there; the next leader sends what comes behind the log's start.
fn install(rig: &mut Rig<Map>) {
    let membership = (LogId::ZERO, rig.driver.replica().membership().clone());
    // Nothing is applied before the state has been taken over.
    rig.driver.applied = base().point;
    rig.driver.replica.handle(Input::Installed { base: base(), membership });
    rig.driver.handle(from_other(append(2, base().begin_after, 1)));
}

/// What it has said to hold since.
fn held(rig: &Rig<Map>) -> Option<Index> {
    let matched = rig.sent.iter().filter_map(|message| match &message.body {
        Body::AppendReply(reply) if message.term == Term(2) => match reply.outcome {
            AppendOutcome::Matched { last } => Some(last),
            AppendOutcome::Rejected { .. } => None,
        },
        _ => None,
    });
    matched.max()
}

fn on_disk(disk: &SimDisk) -> (superblock::Group, GroupLog) {
    let files = disk.files();
    let state = superblock::inspect(&files).expect("it is intact").state;
    let identity = Identity { cluster: CLUSTER, node: OWN, incarnation: Incarnation(1) };
    let options = wal::Options {
        directory: LOG_DIRECTORY.to_owned(),
        identity,
        segment_bytes: 4 << 20,
        writes_in_flight: 1,
        quiet_ticks: 5,
        tail_cache_bytes: 0,
        seed: 9,
    };
    let (log, _) = Log::open(&files, options, state.durable_end, 0).expect("it is intact");
    (state.group(GroupId::CLUSTER), log.group(GroupId::CLUSTER).expect("it has entries").clone())
}

#[test]
fn an_installation_is_durable_in_superblock_and_log_before_it_is_told() {
    // The log ends before the snapshot's log begins, or beyond it with other entries.
    for count in [3, 12] {
        let mut rig = following(count);
        install(&mut rig);
        assert_eq!((rig.driver.replica().status().last, held(&rig)), (id(2, 8), None));
        rig.settle();
        assert_eq!((rig.driver.replica().status().durable, held(&rig)), (id(2, 8), Some(Index(8))));
        let disk = rig.disk.clone();
        drop(rig);
        disk.kill(&mut Random::seeded(1));
        let (group, log) = on_disk(&disk);
        // Its point is one that the log has not come to.
        assert_eq!((group.snapshot, group.log_start), (LogId::ZERO, Index(8)));
        assert_eq!((log.before_first, log.last, log.terms), (id(2, 7), id(2, 8), vec![(Index(8), Term(2))]));
    }
}

/// The power goes at each operation of the disk. The superblock says what counts before anything of the log goes; whatever of
/// the log has gone then, none of it is taken for what follows on the snapshot; and what was told is there.
#[test]
fn a_cut_at_each_operation_of_an_installation_leaves_the_old_log_or_the_new_one() {
    for count in [3, 12] {
        let mut seen = [0; 4];
        let mut whole = following(count);
        let before = whole.disk.operations();
        install(&mut whole);
        whole.settle();
        let operations = whole.disk.operations() - before;
        for (at, order) in (0..=operations).flat_map(|at| (0..6).map(move |order| (at, order))) {
            let mut rig = following(count);
            let disk = rig.disk.clone();
            disk.crash_at(disk.operations() + at);
            install(&mut rig);
            settle_until_cut(&mut rig, &mut Random::seeded(order));
            let told = held(&rig);
            drop(rig);
            for seed in 0..8 {
                let fork = disk.fork();
                fork.crash(&mut Random::seeded(seed));
                let (group, log) = on_disk(&fork);
                assert_eq!(group.snapshot, LogId::ZERO);
                let has_begun = group.log_start == Index(8);
                assert!(has_begun || group.log_start == Index(1), "{group:?}");
                let state = match (has_begun, log.before_first, log.last) {
                    (false, LogId::ZERO, last) if last == id(1, count) => 0,
                    (true, LogId::ZERO, last) if last == id(1, count) => 1,
                    // Truncated, so that it does not reach where the new one begins.
                    (true, LogId::ZERO, last) if last == id(1, 6) => 1,
                    (true, before_first, last) if before_first == last && last == base().begin_after => 2,
                    (true, before_first, last) if before_first == base().begin_after && last == id(2, 8) => 3,
                    other => panic!("{count} cut at {at}: {other:?}"),
                };
                assert!(told.is_none() || state == 3, "cut at {at}: it said {told:?}");
                seen[state] += 1;
            }
        }
        assert!(seen[0] > 0 && seen[1] > 0 && seen[3] > 0, "{seen:?}");
    }
}

/// As far as it goes: without power nothing ends. Of writes that are on their way together any may be done first.
fn settle_until_cut(rig: &mut Rig<Map>, random: &mut Random) {
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

/// A snapshot of a map with one key, at this point.
fn state(point: LogId) -> (Manifest, Sessions, Map) {
    let mut map = Map::new();
    map.apply(id(1, 1), &command::Command::Put { key: "colour".into(), value: "blue".into() }.encode().unwrap())
        .unwrap();
    let of = Description {
        cluster: CLUSTER,
        group: GroupId::CLUSTER,
        point,
        membership: Membership::default(),
        membership_id: LogId::ZERO,
        log_start: base().begin_after.index.next(),
        last_record: Index::ZERO,
        log_digest: Checksum(7),
    };
    let manifest = Manifest { description: of, chunk_bytes: 1 << 20, bytes: 0, checksums: Vec::new() };
    (manifest, Sessions::new(), map)
}

pub fn offer(base: Base) -> Message {
    Message { from: OTHER, to: OWN, term: Term(2), body: Body::Snapshot { base, round: Round(0) } }
}

fn colour(rig: &mut Rig<Map>) -> ResponseBody {
    let query = command::Query::Get { key: "colour".into() }.encode().unwrap();
    rig.ask(RequestBody::Query { query, consistency: Consistency::Stale })
}

fn is_blue(rig: &mut Rig<Map>) -> bool {
    matches!(colour(rig), ResponseBody::Answer(answer) if answer.ends_with(b"blue"))
}

/// It is ordered once, however often it is offered, and counts when the log has come to its point: until then what was
/// there is read.
#[test]
fn another_nodes_state_counts_when_the_log_has_come_to_it() {
    let test = || {
        std::panic::catch_unwind(|| {
            let mut rig = following(3);
            for _ in 0..3 {
                rig.driver.handle(from_other(offer(base())));
                rig.settle();
            }
            assert_eq!(rig.fetches, [(OTHER, base().point)]);
            rig.driver.fetched(base().point, Ok(state(base().point)));
            rig.settle();
            assert_eq!(rig.driver.replica().status().last, base().begin_after);
            assert!(!is_blue(&mut rig), "the log has not come to it");
            let Message { body: Body::Append(append), .. } = append(2, base().begin_after, 3) else { unreachable!() };
            let body = Body::Append(Append { commit: Index(10), ..append });
            rig.driver.handle(from_other(Message { from: OTHER, to: OWN, term: Term(2), body }));
            rig.settle();
            assert!(is_blue(&mut rig));
            let discarded = rig.driver.take_discarded();
            assert_eq!(discarded.len(), 1, "the state of before is dropped elsewhere");
            let Discarded::State(_, before) = &discarded[0] else { panic!("{discarded:?}") };
            assert!(before.digest() != rig.driver.machine().digest() && rig.driver.take_discarded().is_empty());
            assert_eq!(rig.driver.applied().0, id(2, 10), "and what is committed behind it is applied");
            rig.driver.handle(from_other(offer(base())));
            rig.settle();
            assert_eq!(rig.fetches.len(), 1, "it is not wanted any more");
        })
    };
    test().unwrap();
    assert!(mutant::with(Mutant::StateBeforeLog, test).is_err());
}

fn failed(goes_on: bool) -> NotFetched {
    NotFetched { what: "nobody has it".to_owned(), goes_on }
}

/// The leader keeps what the first offer needs. Who goes on with that after an error is not served in vain, and who cannot
/// begins with the newest.
#[test]
fn what_was_offered_first_is_fetched_after_an_error_unless_it_is_gone() {
    let newer = Base { point: id(2, 50), begin_after: id(2, 8) };
    let gone = Base { begin_after: id(2, 20), ..newer };
    for (goes_on, then, fetched) in [(true, newer, base()), (false, newer, newer), (true, gone, gone)] {
        let mut rig = following(3);
        rig.driver.handle(from_other(offer(base())));
        rig.settle();
        rig.driver.fetched(base().point, Err(failed(goes_on)));
        assert_eq!(rig.driver.installing.fetches(), None, "nothing is under way");
        rig.driver.fetched(base().point, Ok(state(base().point)));
        assert_eq!(rig.driver.take_discarded().len(), 1, "it was not ordered");
        for _ in 0..101 {
            rig.driver.handle(from_other(offer(then)));
            rig.settle();
            rig.tick();
        }
        assert_eq!(rig.fetches, [(OTHER, base().point), (OTHER, fetched.point)]);
        assert_eq!(rig.driver.installing.fetches(), Some(fetched.point));
        // An error is told once, and so is that what had come of it goes.
        assert_eq!(rig.reports.len(), 1 + usize::from(goes_on && then == gone), "{:?}", rig.reports);
        // With the log's beginning of the newest offer.
        rig.driver.fetched(fetched.point, Ok(state(fetched.point)));
        assert_eq!(rig.driver.replica().status().last, then.begin_after);
    }
}

/// Another leader does not know what is fetched, and keeps what it offers itself: it is asked at once whether it has it. If
/// nobody has, what it offers is fetched without a pause.
#[test]
fn another_leader_is_asked_for_what_is_fetched_and_its_own_is_taken_if_nobody_has_that() {
    let newer = Base { point: id(2, 50), begin_after: id(2, 8) };
    for (offered, fetches) in [(base(), 1), (newer, 2)] {
        let mut rig = following(3);
        let hear = |rig: &mut Rig<Map>, term: u64, base: Base| {
            rig.driver.handle(from_other(Message { term: Term(term), ..offer(base) }));
            rig.settle();
        };
        hear(&mut rig, 2, base());
        hear(&mut rig, 2, newer);
        assert_eq!(rig.fetches, [(OTHER, base().point)], "the same leader keeps it");
        hear(&mut rig, 3, offered);
        hear(&mut rig, 3, offered);
        assert_eq!(rig.fetches, vec![(OTHER, base().point); fetches]);
        if offered == newer {
            rig.driver.fetched(base().point, Err(failed(false)));
            hear(&mut rig, 3, newer);
            assert_eq!(rig.fetches.last(), Some(&(OTHER, newer.point)));
            // It is what is offered: there is nothing else to be taken.
            rig.driver.fetched(newer.point, Err(failed(false)));
            hear(&mut rig, 3, newer);
            assert_eq!(rig.fetches.len(), 3);
        }
    }
}

/// An order that came to nothing is not out: nothing of it is to be cancelled.
#[test]
fn what_could_not_be_fetched_is_not_cancelled() {
    let mut rig = following(3);
    rig.driver.handle(from_other(offer(base())));
    rig.settle();
    rig.driver.fetched(base().point, Err(failed(true)));
    rig.driver.handle(from_other(append(2, id(1, 3), 5)));
    rig.settle();
    assert_eq!((rig.driver.replica().status().last, rig.fetches_cancelled), (id(2, 8), 0));
}

/// What could not be fetched is told, and ordered again after a while, with an offer; and one that is being fetched is
/// not given up for a newer one as long as the leader's log reaches back to it.
#[test]
fn what_could_not_be_fetched_is_ordered_again() {
    let mut rig = following(3);
    rig.driver.handle(from_other(offer(base())));
    rig.settle();
    rig.driver.fetched(id(2, 5), Ok(state(id(2, 5))));
    assert_eq!(rig.driver.take_discarded().len(), 1, "nobody wants it");
    rig.driver.fetched(base().point, Err(failed(false)));
    rig.settle();
    assert!(matches!(&rig.reports[..], [SnapshotReport::NotFetched { what, .. }] if what == "nobody has it"));
    assert_eq!(rig.driver.replica().status().last, id(1, 3), "nothing has changed");
    for seconds in [1, 2, 4] {
        let fetches = rig.fetches.len();
        for tick in 0..100 * seconds {
            rig.driver.handle(from_other(offer(base())));
            rig.settle();
            assert_eq!(rig.fetches.len(), fetches, "tick {tick} of {seconds} s");
            // Nobody stands for election meanwhile.
            rig.tick();
        }
        rig.driver.handle(from_other(offer(base())));
        rig.settle();
        assert_eq!(rig.fetches.len(), fetches + 1);
        rig.driver.fetched(base().point, Err(failed(false)));
    }
    let mut rig = following(3);
    rig.driver.handle(from_other(offer(base())));
    let newer = Base { point: id(2, 50), begin_after: id(2, 8) };
    rig.driver.handle(from_other(offer(newer)));
    rig.settle();
    assert_eq!(rig.fetches, [(OTHER, base().point)], "the log behind it is still there");
    rig.driver.handle(from_other(offer(Base { point: id(2, 50), begin_after: id(2, 20) })));
    rig.settle();
    assert_eq!(rig.fetches.len(), 2, "the log behind it is gone");
    let given_up = |what: &str| what.contains("raise `follower_tail_minutes`");
    assert!(
        matches!(&rig.reports[..], [SnapshotReport::NotFetched { point, what }] if *point == base().point && given_up(what))
    );
    rig.driver.fetched(base().point, Ok(state(base().point)));
    assert_eq!(rig.driver.replica().status().last, id(1, 3), "what was given up does not count");
}

/// A state that was held to be written is handed out as well: it may be the last that holds much of what was.
#[test]
fn a_state_that_was_held_is_dropped_elsewhere_too() {
    let mut rig = following(3);
    let point = Entry { id: id(1, 4), payload: Payload::SnapshotPoint };
    let body = Body::Append(Append { previous: id(1, 3), entries: vec![point], commit: Index(4), round: Round(0) });
    rig.driver.handle(from_other(Message { from: OTHER, to: OWN, term: TERM, body }));
    rig.settle();
    assert!(rig.driver.holds_state() && rig.driver.take_discarded().is_empty());
    rig.driver.handle(from_other(offer(base())));
    rig.settle();
    rig.driver.fetched(base().point, Ok(state(base().point)));
    let Message { body: Body::Append(append), .. } = append(2, base().begin_after, 3) else { unreachable!() };
    let body = Body::Append(Append { commit: Index(10), ..append });
    rig.driver.handle(from_other(Message { from: OTHER, to: OWN, term: Term(2), body }));
    rig.settle();
    let discarded = rig.driver.take_discarded();
    let is_whole = matches!(&discarded[..], [Discarded::State(..), Discarded::Making(making)] if making.description.point == id(1, 4));
    assert!(is_whole && !rig.driver.holds_state(), "{discarded:?}");
}

/// The log went on without the node once more: the state that the log had not come to is dropped elsewhere.
#[test]
fn a_state_that_waits_for_the_log_makes_way_for_a_newer_one() {
    let mut rig = following(3);
    let newer = Base { point: id(2, 50), begin_after: id(2, 20) };
    for (base, discarded) in [(base(), 0), (newer, 1)] {
        rig.driver.handle(from_other(offer(base)));
        rig.settle();
        rig.driver.fetched(base.point, Ok(state(base.point)));
        rig.settle();
        assert_eq!(rig.driver.replica().status().last, base.begin_after);
        assert_eq!(rig.driver.take_discarded().len(), discarded);
    }
}

/// The log's beginning came as entries: what is still being fetched is of no use, and goes on no longer.
#[test]
fn a_fetch_that_is_not_needed_any_more_is_cancelled() {
    let mut rig = following(3);
    rig.driver.handle(from_other(offer(base())));
    rig.settle();
    assert_eq!((rig.fetches.len(), rig.fetches_cancelled), (1, 0));
    rig.driver.handle(from_other(append(2, id(1, 3), 3)));
    rig.settle();
    assert_eq!(rig.fetches_cancelled, 0, "the log's beginning is behind that");
    rig.driver.handle(from_other(append(2, id(2, 6), 2)));
    rig.settle();
    assert_eq!(rig.fetches_cancelled, 1);
    let last = rig.driver.replica().status().last;
    rig.driver.fetched(base().point, Ok(state(base().point)));
    rig.settle();
    assert_eq!((rig.driver.replica().status().last, rig.fetches_cancelled), (last, 1), "what came late does not count");
    let ResponseBody::Status(status) = rig.ask(RequestBody::Status) else { panic!("a status") };
    assert_eq!(status.waiting, "");
}

/// A state at the very beginning of the log is there at once, and after a start.
#[test]
fn a_state_where_the_log_begins_counts_at_once() {
    let base = Base { point: id(2, 7), begin_after: id(2, 7) };
    let mut rig = following(3);
    rig.driver.handle(from_other(offer(base)));
    rig.settle();
    rig.driver.fetched(base.point, Ok(state(base.point)));
    rig.settle();
    assert!(is_blue(&mut rig));
    assert_eq!((rig.driver.applied().0, held(&rig)), (base.point, Some(Index(7))));
    let ResponseBody::Status(status) = rig.ask(RequestBody::Status) else { panic!("a status") };
    assert_eq!((status.first, status.applied), (Index(8), Index(7)));
}

/// The snapshot, whole and durable in the node's directory, as fetching leaves it.
pub fn bring(rig: &Rig<Map>, (manifest, sessions, map): &(Manifest, Sessions, Map)) {
    let files = rig.disk.files();
    let checkpoint = Checkpoint::of(sessions, map).expect("a map gives snapshots");
    let mut builder = Builder::new(manifest.description.clone(), Box::new(checkpoint));
    while !matches!(builder.step(&files, true).expect("nothing is wrong with the disk"), Step::Done) {}
}

/// With a configuration of its own, whose entry lies before the log that goes with it.
pub fn state_of_members(point: LogId) -> (Manifest, Sessions, Map) {
    let (mut manifest, sessions, map) = state(point);
    manifest.description.membership = Rig::<Map>::started(Map::new(), &[OTHER]).driver.replica().membership().clone();
    manifest.description.membership_id = id(2, 5);
    (manifest, sessions, map)
}

/// A node that is started while its state is to come has none, says so, knows the configuration, and goes on.
#[test]
fn a_start_before_the_log_has_come_to_the_state_goes_on() {
    let mut rig = following(3);
    let (manifest, sessions, map) = state_of_members(base().point);
    bring(&rig, &(manifest.clone(), sessions.clone(), map.clone()));
    rig.driver.handle(from_other(offer(base())));
    rig.settle();
    rig.driver.fetched(base().point, Ok((manifest.clone(), sessions, map)));
    rig.settle();
    for _ in 0..2 {
        rig = rig.again(Map::new());
        let status = rig.driver.replica().status();
        assert_eq!((status.last, status.commit), (base().begin_after, base().begin_after.index));
        assert_eq!(rig.driver.replica().membership_id(), manifest.description.membership_id);
        assert!(
            matches!(colour(&mut rig), ResponseBody::Refused(Refusal::Unavailable { reason }) if reason.contains("9@2"))
        );
    }
    let Message { body: Body::Append(append), .. } = append(2, base().begin_after, 3) else { unreachable!() };
    let body = Body::Append(Append { commit: Index(10), ..append });
    rig.driver.handle(from_other(Message { from: OTHER, to: OWN, term: Term(2), body }));
    rig.settle();
    assert!(is_blue(&mut rig));
    let mut rig = rig.again(Map::new());
    assert!(is_blue(&mut rig), "the superblock names it now");
    assert_eq!(rig.driver.applied().0, base().point);
    assert_eq!(superblock::inspect(&rig.disk.files()).unwrap().state.group(GroupId::CLUSTER).snapshot, base().point);
}

/// The log begins where the state is: after each cut of power the node begins with the old log or with that state, and
/// never with names or configurations of the one and entries of the other.
#[test]
fn a_start_after_an_installation_that_was_cut_short_ends_it() {
    let base = Base { point: id(2, 7), begin_after: id(2, 7) };
    let (manifest, sessions, map) = state_of_members(base.point);
    let mut seen = [0; 2];
    for at in 0.. {
        let mut rig = following(12);
        bring(&rig, &(manifest.clone(), sessions.clone(), map.clone()));
        rig.driver.handle(from_other(offer(base)));
        rig.settle();
        rig.disk.crash_at(rig.disk.operations() + at);
        rig.driver.fetched(base.point, Ok((manifest.clone(), sessions.clone(), map.clone())));
        settle_until_cut(&mut rig, &mut Random::seeded(at));
        let (disk, told, is_over) = (rig.disk.clone(), held(&rig), !rig.disk.is_off());
        drop(rig);
        for seed in 0..8 {
            let fork = disk.fork();
            fork.crash(&mut Random::seeded(seed));
            let mut rig = Rig::on(fork, Map::new());
            let status = rig.driver.replica().status();
            let is_new = is_blue(&mut rig);
            seen[usize::from(is_new)] += 1;
            assert!(is_new || told.is_none(), "cut at {at}: it said {told:?}");
            if is_new {
                assert_eq!((status.last, rig.driver.replica().membership_id()), (base.point, id(2, 5)), "cut at {at}");
            } else {
                assert!(status.last.term == Term(1) && rig.driver.replica().first_index() == Index(1), "{status:?}");
            }
        }
        if is_over {
            break;
        }
    }
    assert!(seen[0] > 0 && seen[1] > 0, "{seen:?}");
}

/// What was restored from a snapshot has no entry yet: without that snapshot there is nothing to begin with.
#[test]
fn a_restored_node_without_its_snapshot_does_not_begin_with_nothing() {
    let rig = Rig::started(Map::new(), &[OWN]);
    let disk = SimDisk::new();
    let mut restored = superblock::inspect(&rig.disk.files()).unwrap().state;
    let group = restored.group_mut(GroupId::CLUSTER);
    (group.snapshot, group.log_start) = (id(2, 7), Index(8));
    group.hard_state.term = Term(2);
    crate::node::driver::format(&disk.files(), &restored, 4 << 20, 3, 0).unwrap();
    let started = Driver::start(&disk.files(), options(), Map::new(), 0);
    assert!(matches!(started, Err(StartError::NoState { first: Index(8), .. })), "{:?}", started.err());
}
