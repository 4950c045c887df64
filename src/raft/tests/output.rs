//! An output that is filled in place: what is to be done is the same, and nothing of what was there before.

use crate::raft::{Body, Event, Fetch, Input, Output, ReadReady, ReadToken, Replica, Role, Round};
use crate::types::{Index, LogId, NodeId, Payload, Term};

use super::follower::{append, follower};
use super::leader::{from_peer, leader};

/// Something of each kind, as a caller would have left it who has carried nothing out.
fn left_over() -> Output {
    let mut follower = follower(1 << 20);
    follower.handle(append(2, LogId::ZERO, 1, 3, 2));
    let mut output = follower.take_output();
    output.reads_ready.push(ReadReady { token: ReadToken(7), index: Index(7) });
    output.reads_refused.push(ReadToken(8));
    output.fetch.push(Fetch { peer: NodeId(2), from: Index(1), last: Index(2), bytes_max: 9 });
    output.events.push(Event::RoleChanged { role: Role::Leader, term: Term(9) });
    assert!(output.persist.is_some() && output.commit.is_some() && !output.send.is_empty());
    output
}

fn check(name: &str, mut replica: Replica, is_anything: bool) {
    let taken = replica.clone().take_output();
    let mut filled = left_over();
    assert_eq!(replica.fill_output(&mut filled), is_anything, "{name}");
    assert_eq!(format!("{filled:?}"), format!("{taken:?}"), "{name}");
    assert!(!replica.fill_output(&mut filled), "{name}: once");
    assert_eq!(format!("{filled:?}"), format!("{:?}", Output::default()), "{name}: once");
}

#[test]
fn what_is_filled_in_place_is_what_would_be_taken() {
    let mut follower = follower(1 << 20);
    follower.take_output();
    check("a follower that hears nothing", follower.clone(), false);
    follower.handle(Input::Tick);
    check("a tick later", follower.clone(), false);
    follower.handle(append(2, LogId::ZERO, 1, 3, 2));
    check("a follower that is told entries", follower.clone(), true);
    follower.handle(append(3, LogId::ZERO, 1, 3, 2));
    check("a follower that is told of two leaders", follower, true);
    let mut leader = leader();
    leader.take_output();
    check("a leader with nothing to send", leader.clone(), false);
    leader.handle(from_peer(2, 4, Body::HeartbeatReply { round: Round(0) }));
    leader.propose(vec![Payload::Noop]).expect("it leads");
    check("a leader with an entry", leader, true);
}
