//! What was trimmed is read no more, on whichever node, and trims are answered when they are committed.

use super::rig::{CLIENT, OTHER, OWN, Rig, from_other, options};
use crate::machine::Map;
use crate::mutant::{self, Mutant};
use crate::net::{Change, Consistency, Refusal, RequestBody, ResponseBody, TailKey};
use crate::node::driver::{self, Input};
use crate::raft::{Body, Message};
use crate::random::Random;
use crate::types::{Index, Term};

fn trim(rig: &mut Rig<Map>, first: u64) -> ResponseBody {
    rig.ask(RequestBody::Change(Change::Trim { first: Index(first) }))
}

fn read(rig: &mut Rig<Map>, from: u64) -> ResponseBody {
    rig.ask(RequestBody::Read { from: Index(from), to: None, bytes_max: 1 << 20, consistency: Consistency::Stale })
}

fn trimmed(first: u64) -> ResponseBody {
    ResponseBody::Refused(Refusal::Trimmed { first: Index(first) })
}

#[test]
fn what_is_trimmed_is_read_no_more_by_nobody() {
    let mut rig = Rig::leading();
    rig.append(20, 100);
    let ResponseBody::Changed { index } = trim(&mut rig, 10) else { panic!("it is committed") };
    assert_eq!(index, rig.driver.replica().status().last.index, "the entry that says so");
    assert_eq!(read(&mut rig, 1), trimmed(10));
    assert_eq!(read(&mut rig, 9), trimmed(10));
    let ResponseBody::Records(records) = read(&mut rig, 10) else { panic!("from there on all is there") };
    assert_eq!((records.first, records.records[0].0), (Index(10), Index(10)));
    rig.driver.handle(Input::TailOpened { tail: TailKey(1), from: Index(9) });
    rig.driver.handle(Input::TailOpened { tail: TailKey(2), from: Index(10) });
    rig.settle();
    assert_eq!((&rig.ended[..], &rig.tails[..]), (&[Refusal::Trimmed { first: Index(10) }][..], &[TailKey(2)][..]));
    let ResponseBody::Status(status) = rig.ask(RequestBody::Status) else { panic!("a status") };
    assert_eq!(status.first, Index(10));
    let mut rig = rig.again(Map::new());
    rig.elect();
    assert_eq!(read(&mut rig, 9), trimmed(10), "as of the entries that it applied again");
}

/// By a rule it may go tomorrow: then no follower's ration counts on it.
#[test]
fn the_log_is_kept_for_readers_where_no_rule_trims_it() {
    let mut rig = Rig::leading();
    rig.append(20, 100);
    assert!(matches!(trim(&mut rig, 10), ResponseBody::Changed { .. }));
    assert_eq!(rig.driver.kept_for_readers(), Some(Index(10)));
    let by_bytes = driver::RetentionRule { bytes: Some(1 << 30), ..driver::RetentionRule::default() };
    let by_age = driver::RetentionRule { milliseconds: Some(1 << 30), ..driver::RetentionRule::default() };
    let for_map = driver::RetentionRule { is_for_map_alone: true, ..driver::RetentionRule::default() };
    for rule in [by_bytes, by_age, for_map] {
        assert_eq!(Rig::<Map>::with_rule(rule).driver.kept_for_readers(), None, "{rule:?}");
    }
}

#[test]
fn what_was_trimmed_never_comes_back() {
    let test = || {
        std::panic::catch_unwind(|| {
            let mut rig = Rig::leading();
            rig.append(20, 100);
            assert!(matches!(trim(&mut rig, 10), ResponseBody::Changed { .. }));
            // One that was proposed by a leader which did not know of the first yet.
            let entries = rig.driver.replica.propose(vec![crate::types::Payload::Trim { first: Index(5) }]).unwrap();
            rig.settle();
            assert!(rig.driver.applied().0.index >= entries.start);
            assert_eq!(read(&mut rig, 7), trimmed(10));
        })
    };
    test().unwrap();
    assert!(mutant::with(Mutant::TrimMovesBack, test).is_err());
}

#[test]
fn a_trim_is_safe_to_repeat_and_ends_at_what_is_applied() {
    let mut rig = Rig::leading();
    rig.append(20, 100);
    assert!(matches!(trim(&mut rig, 10), ResponseBody::Changed { index } if index > Index::ZERO));
    let last = rig.driver.replica().status().last;
    assert_eq!(trim(&mut rig, 10), ResponseBody::Changed { index: Index::ZERO }, "it is so already");
    assert_eq!(trim(&mut rig, 3), ResponseBody::Changed { index: Index::ZERO });
    assert_eq!(rig.driver.replica().status().last, last, "nothing was to be done");
    let beyond = trim(&mut rig, last.index.0 + 2);
    assert!(
        matches!(&beyond, ResponseBody::Refused(Refusal::Impossible { reason }) if reason.contains("beyond the end"))
    );
    assert!(matches!(trim(&mut rig, last.index.0 + 1), ResponseBody::Changed { .. }), "all that there is");
}

#[test]
fn who_waits_for_a_trim_is_told_when_the_leader_leads_no_more() {
    let mut rig = Rig::leading();
    rig.append(20, 100);
    rig.holds_writes = true;
    let id = rig.request(CLIENT, RequestBody::Change(Change::Trim { first: Index(10) }));
    rig.settle();
    assert!(rig.replies.iter().all(|(_, response)| response.id != id), "it is not committed");
    let body = Body::Heartbeat { commit: Index::ZERO, round: crate::raft::Round(1) };
    rig.driver.handle(from_other(Message { from: OTHER, to: OWN, term: Term(99), body }));
    rig.settle();
    let answers: Vec<_> = rig.replies.iter().filter(|(_, response)| response.id == id).collect();
    assert_eq!(answers.len(), 1);
    assert_eq!(answers[0].1.body, ResponseBody::Refused(Refusal::OutcomeUnknown));
}

#[test]
fn a_node_that_does_not_lead_trims_nothing() {
    let mut rig = Rig::started(Map::new(), &[OTHER]);
    assert!(matches!(trim(&mut rig, 2), ResponseBody::Refused(Refusal::NotLeader { .. })));
}

fn rule(bytes: Option<u64>, milliseconds: Option<u64>) -> Rig<Map> {
    let mut rig = Rig::<Map>::with_rule(driver::RetentionRule { bytes, milliseconds, ..Default::default() });
    rig.lead();
    rig
}

/// A second, as ticks count it, at this time of the wall clock.
fn second(rig: &mut Rig<Map>, wall_clock_milliseconds: u64) {
    for _ in 0..100 {
        rig.driver.handle(Input::Tick { wall_clock_milliseconds });
        rig.settle();
    }
}

fn first_readable(rig: &mut Rig<Map>) -> Index {
    let ResponseBody::Status(status) = rig.ask(RequestBody::Status) else { panic!("a status") };
    status.first
}

/// Segments are of 4 MiB.
#[test]
fn who_leads_trims_what_lies_beyond_so_many_bytes() {
    let mut rig = rule(Some(8 << 20), None);
    let mut firsts = Vec::new();
    for _ in 0..12 {
        rig.append(700, 3 << 10);
        second(&mut rig, 0);
        firsts.push(first_readable(&mut rig));
    }
    assert_eq!(firsts[2], Index(1), "less than the bound stays: {firsts:?}");
    assert!(firsts.is_sorted() && firsts[11] > firsts[6] && firsts[6] > Index(1), "{firsts:?}");
    let last = rig.driver.replica().status().last.index;
    let kept = last.0 - firsts[11].0;
    assert!(kept * (3 << 10) >= 7 << 20, "at least the bound is kept: {kept} records");
    let proposed = rig.driver.replica().status().last;
    second(&mut rig, 0);
    assert_eq!(rig.driver.replica().status().last, proposed, "nothing new, nothing to be trimmed");
}

const MINUTE: u64 = 60_000;

/// So many minutes, as ticks count them and as the clock shows them, from this time of it on.
fn minutes(rig: &mut Rig<Map>, from_milliseconds: u64, count: u64) {
    for tick in 0..count * MINUTE / 10 {
        rig.driver.handle(Input::Tick { wall_clock_milliseconds: from_milliseconds + tick * 10 });
        if tick % 100 == 0 {
            rig.settle();
        }
    }
    rig.settle();
}

#[test]
fn who_leads_trims_what_is_older() {
    let begins = 100 * MINUTE;
    let mut rig = rule(None, Some(2 * MINUTE));
    for at in 0..6 {
        second(&mut rig, begins + at);
        rig.append(700, 3 << 10);
    }
    minutes(&mut rig, begins, 1);
    assert_eq!(first_readable(&mut rig), Index(1));
    minutes(&mut rig, begins + MINUTE, 2);
    let first = first_readable(&mut rig);
    assert!(first > Index(1), "segments that have ended are older than two minutes");
    minutes(&mut rig, begins + 3 * MINUTE, 3);
    let last = rig.driver.replica().status().last.index;
    assert!(first_readable(&mut rig) < last, "the segment in use stays");
}

/// The clock is ten years ahead, for a second or for less than what is kept, and right again.
#[test]
fn a_jump_of_the_clock_takes_nothing() {
    let test = || std::panic::catch_unwind(jump);
    test().unwrap();
    assert!(mutant::with(Mutant::ClockJumpBelieved, test).is_err());
}

fn jump() {
    let years = 10 * 365 * 24 * 60 * MINUTE;
    let mut rig = rule(None, Some(60 * MINUTE));
    let begins = 1000 * MINUTE;
    for _ in 0..3 {
        second(&mut rig, begins);
        rig.append(1400, 3 << 10);
    }
    minutes(&mut rig, begins, 1);
    let last = rig.driver.replica().status().last;
    second(&mut rig, begins + years);
    second(&mut rig, begins + 2 * MINUTE);
    minutes(&mut rig, begins + years, 3);
    minutes(&mut rig, begins + 6 * MINUTE, 2);
    assert_eq!((rig.driver.replica().status().last, first_readable(&mut rig)), (last, Index(1)));
    // A start with a clock that is wrong.
    let disk = rig.disk.clone();
    drop(rig);
    disk.kill(&mut Random::seeded(1));
    let retention = driver::RetentionRule { milliseconds: Some(60 * MINUTE), ..Default::default() };
    let mut rig = Rig::with_options(disk, Map::new(), driver::Options { retention, ..options() });
    rig.elect();
    minutes(&mut rig, begins + years, 2);
    assert_eq!(first_readable(&mut rig), Index(1));
}

#[test]
fn who_does_not_lead_trims_by_no_rule() {
    let mut rig =
        Rig::<Map>::with_rule(driver::RetentionRule { bytes: Some(0), milliseconds: Some(0), ..Default::default() });
    for _ in 0..5 {
        rig.driver.handle(Input::Tick { wall_clock_milliseconds: 1 << 40 });
    }
    rig.settle();
    assert_eq!(rig.driver.replica().status().last.index, Index::ZERO);
}
