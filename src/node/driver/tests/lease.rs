//! Reads by lease in a driver: what they wait for, and what becomes of them when the clock says that it is too late.

use std::time::Duration;

use super::rig::{CLIENT, OTHER, OWN, Rig, from_other, from_the_start, scan};
use crate::machine::Map;
use crate::net::{Consistency, Refusal, RequestBody, ResponseBody};
use crate::node::driver::Input;
use crate::raft::{Body, LeaseOptions, Message, Round};
use crate::types::Index;

const PROMISE: Duration = Duration::from_millis(100);
const OPTIONS: LeaseOptions = LeaseOptions { promise: PROMISE, rest: Duration::from_millis(200), drift_percent: 25 };
/// Of a promise, by a clock that may be a quarter slower than others.
const SPAN: Duration = Duration::from_millis(80);

/// It leads alone, and its last round of heartbeats began when the clock showed what is given back.
fn leading() -> (Rig<Map>, Duration) {
    let mut rig = Rig::with_leases(Map::new(), &[OWN], OPTIONS);
    rig.read_clock(Duration::ZERO);
    let start = Duration::from_millis(300);
    rig.read_clock(start);
    rig.lead();
    rig.put(10, 10);
    rig.elapse_heartbeat();
    rig.replies.clear();
    (rig, start)
}

#[test]
fn an_answer_leaves_after_a_reading_of_the_clock_that_follows_it() {
    let (mut rig, begun) = leading();
    for body in [scan(Consistency::Lease), records()] {
        rig.request(CLIENT, body);
        rig.settle_but_clock();
        assert!(rig.answers_to(CLIENT).is_empty(), "the clock was read before the state");
        rig.read_clock(begun + SPAN - Duration::from_millis(1));
        rig.settle_but_clock();
        assert_eq!(rig.answers_to(CLIENT).len(), 1);
        rig.replies.clear();
    }
}

/// The process is stopped between the state and the clock.
#[test]
fn an_answer_that_is_too_late_is_not_given_and_the_others_are_asked() {
    let (mut rig, begun) = leading();
    rig.request(CLIENT, scan(Consistency::Lease));
    rig.settle_but_clock();
    rig.read_clock(begun + SPAN);
    assert_eq!(rig.driver.reads.waiting().0, 1, "the lease is over: the protocol is asked");
    assert!(rig.answers_to(CLIENT).is_empty());
    rig.settle();
    assert!(matches!(rig.answers_to(CLIENT)[..], [ResponseBody::Answer(_)]), "confirmed by a round");
    rig.replies.clear();
    rig.elapse_heartbeat();
    rig.request(CLIENT, scan(Consistency::Lease));
    rig.settle_but_clock();
    rig.driver.handle(Input::ClientGone { client: CLIENT });
    rig.settle();
    assert!(rig.answers_to(CLIENT).is_empty());
}

#[test]
fn what_waits_for_the_clock_is_refused_where_another_has_come_to_lead() {
    let (mut rig, begun) = leading();
    rig.request(CLIENT, scan(Consistency::Lease));
    rig.settle_but_clock();
    let term = rig.driver.replica().status().hard_state.term.next();
    let body = Body::Heartbeat { commit: Index::ZERO, round: Round(1) };
    rig.driver.handle(from_other(Message { from: OTHER, to: OWN, term, body }));
    rig.read_clock(begun + Duration::from_millis(1));
    rig.settle();
    let answers = rig.answers_to(CLIENT);
    assert!(!answers.iter().any(|answer| matches!(answer, ResponseBody::Answer(_))), "{answers:?}");
}

#[test]
fn where_leases_are_off_that_is_said() {
    let mut rig = Rig::leading();
    let told = rig.ask(scan(Consistency::Lease));
    assert_eq!(told, ResponseBody::Refused(Refusal::LeasesOff));
}

fn records() -> RequestBody {
    let RequestBody::Read { from, to, bytes_max, .. } = from_the_start(1 << 20) else { unreachable!("it reads") };
    RequestBody::Read { from, to, bytes_max, consistency: Consistency::Lease }
}
