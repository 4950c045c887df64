//! What is applied, and when; and what becomes of an entry that is wanted and not there.

use super::rig::{CLIENT, OTHER, OWN, Rig, from_other, from_the_start};
use crate::machine::Map;
use crate::net::{Refusal, RequestBody, ResponseBody, TailKey};
use crate::node::driver::{self, Input, Stopped, WantedBy};
use crate::raft::{Append, Body, Message, Round};
use crate::types::{Entry, Index, LogId, Payload, SegmentNumber, Term};
use crate::wal;

/// Three entries of another leader, committed on a majority without this node's disk.
pub fn committed_elsewhere() -> Input {
    let entry = |index| Entry { id: LogId::new(Term(1), Index(index)), payload: Payload::Noop };
    let entries = (1..=3).map(entry).collect();
    let append = Append { previous: LogId::ZERO, entries, commit: Index(3), round: Round(1) };
    from_other(Message { from: OTHER, to: OWN, term: Term(1), body: Body::Append(append) })
}

#[test]
fn a_machine_in_memory_does_not_wait_for_the_own_disk() {
    let mut rig = Rig::started(Map::new(), &[OWN, OTHER]);
    rig.holds_writes = true;
    rig.driver.handle(committed_elsewhere());
    rig.settle();
    assert_eq!(rig.driver.applied().0.index, Index(3));
}

#[test]
fn an_entry_to_be_applied_that_is_missing_is_reported_and_looked_for_now_and_then() {
    let mut rig = Rig::leading();
    rig.append(200, 1024);
    let last = rig.driver.applied().0.index;
    let mut rig = rig.again(Map::new());
    rig.holds_reads = true;
    let mut looks = 0;
    for _ in 0..1000 {
        rig.tick();
        rig.settle();
        looks += rig.reads.len();
        rig.find_nothing();
        rig.settle();
        assert!(rig.reads.is_empty(), "it does not look again at once");
    }
    assert!((5..=11).contains(&looks), "{looks} looks in ten seconds");
    assert_eq!(rig.missing, vec![(Index(1), WantedBy::StateMachine); looks]);
    let ResponseBody::Status(status) = rig.ask(RequestBody::Status) else { panic!("a status") };
    assert!(status.waiting.contains("entry 1"), "{}", status.waiting);
    rig.holds_reads = false;
    for _ in 0..200 {
        rig.tick();
        rig.settle();
    }
    assert!(rig.driver.applied().0.index >= last, "it was there after all");
    let ResponseBody::Status(status) = rig.ask(RequestBody::Status) else { panic!("a status") };
    assert_eq!(status.waiting, "");
}

#[test]
fn a_tail_or_a_read_of_what_is_missing_ends_with_a_reason() {
    let mut rig = Rig::leading();
    rig.append(400, 1024);
    rig.holds_reads = true;
    rig.driver.handle(Input::TailOpened { tail: TailKey(1), from: Index(1) });
    rig.request(CLIENT, from_the_start(1024));
    rig.settle();
    assert_eq!(rig.reads.len(), 2);
    rig.find_nothing();
    rig.settle();
    assert!(rig.reads.is_empty(), "neither is read for again by itself");
    let is_told = |refusal: &Refusal| matches!(refusal, Refusal::Unavailable { reason } if reason.contains("entry 1"));
    assert!(rig.ended.len() == 1 && is_told(&rig.ended[0]), "{:?}", rig.ended);
    let answers = rig.answers_to(CLIENT);
    assert!(matches!(answers[..], [ResponseBody::Refused(refusal)] if is_told(refusal)), "{answers:?}");
}

#[test]
fn a_follower_that_wants_what_is_missing_is_reported_and_waits_for_a_heartbeat() {
    let mut rig = Rig::leading();
    rig.append(400, 1024);
    rig.holds_reads = true;
    super::reads::lost_all(&mut rig);
    let mut looks = 0;
    for _ in 0..50 {
        rig.settle();
        looks += rig.reads.len();
        rig.find_nothing();
        rig.settle();
        assert!(rig.reads.is_empty(), "it does not look again at once");
        rig.tick();
    }
    assert!((1..=10).contains(&looks), "{looks} looks in ten heartbeats");
    assert_eq!(rig.missing, vec![(Index(1), WantedBy::Follower(OTHER)); looks]);
}

/// The log was asked again, and then the entry was reported as missing, now and then, for ever.
#[test]
fn zeros_where_an_entry_to_be_applied_was_stop_the_node_and_are_no_reason_to_look_again() {
    let mut rig = Rig::leading();
    // More than a segment.
    rig.append(5000, 1024);
    let mut rig = rig.again(Map::new());
    rig.holds_reads = true;
    while rig.reads.is_empty() {
        rig.tick();
        rig.settle();
    }
    rig.disk.zero(&wal::segment_name(driver::LOG_DIRECTORY, SegmentNumber(1)), 0..1 << 20);
    rig.run_reads();
    let said = rig.driver.take_effects(&mut Vec::new());
    assert!(matches!(said, Err(Stopped::Read(wal::Error::Damaged(_)))), "{said:?}");
}
