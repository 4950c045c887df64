//! The clean end of a node: what is durable is shown to be, so that its loss would be seen.

use super::rig::{OTHER, OWN, Rig, from_other, options};
use crate::machine::Map;
use crate::node::driver::{Driver, StartError, Stopped};
use crate::raft::{AppendOutcome, AppendReply, Body, Message, Round};
use crate::random::Random;
use crate::types::{Index, Payload, Term};
use crate::wal;

/// Steps until all is done, as the end of a process does.
fn finish(rig: &mut Rig<Map>) {
    for _ in 0..20 {
        rig.settle();
        if rig.driver.is_finished() {
            return;
        }
    }
    panic!("it does not end");
}

/// Nothing showed that the last frames were durable, and the end was called a clean one.
#[test]
fn what_has_no_room_for_a_cover_is_known_to_the_superblock_at_the_end() {
    let mut rig = Rig::leading();
    rig.disk.set_capacity(rig.disk.used_bytes());
    for _ in 0..5000 {
        if !rig.driver.pipeline.log.may_fit_cover() {
            break;
        }
        rig.driver.replica.propose(vec![Payload::Noop]).unwrap();
        rig.settle();
    }
    assert!(!rig.driver.pipeline.log.is_covered());
    finish(&mut rig);
    let end = rig.driver.pipeline.log.durable_end();
    assert_eq!(rig.driver.pipeline.superblock.state().durable_end, end);
    let Rig { driver, disk, .. } = rig;
    drop(driver);
    disk.kill(&mut Random::seeded(1));
    disk.set_capacity(1 << 40);
    disk.zero(&format!("log/{:016}.segment", end.segment.0), end.offset - 4096..end.offset);
    let started = Driver::start(&disk.files(), options(), Map::new(), 0).map(|_| ());
    assert!(matches!(started, Err(StartError::Log(wal::Error::Damaged(_)))), "its last frame is gone: {started:?}");
}

/// The cover was asked for once, before what waited was written.
#[test]
fn what_waits_when_a_node_ends_is_covered() {
    let mut rig = Rig::leading();
    finish(&mut rig);
    assert!(rig.driver.pipeline.log.is_covered());
    rig.driver.replica.propose(vec![Payload::Noop]).unwrap();
    finish(&mut rig);
    assert!(rig.driver.pipeline.log.is_covered());
}

/// It stops in that moment: neither what was about to be written nor an answer leaves.
#[test]
fn a_peer_that_says_what_cannot_be_ends_the_node() {
    let mut rig = Rig::leading();
    rig.settle();
    let status = rig.driver.replica.status();
    rig.driver.replica.propose(vec![Payload::Noop]).unwrap();
    let outcome = AppendOutcome::Matched { last: Index(status.last.index.0 + 2) };
    let body = Body::AppendReply(AppendReply { round: Round(0), outcome });
    rig.driver.handle(from_other(Message { from: OTHER, to: OWN, term: status.hard_state.term, body }));
    let mut effects = Vec::new();
    let said = rig.driver.take_effects(&mut effects);
    assert!(matches!(said, Err(Stopped::Contradicted(_))), "{said:?}");
    assert!(effects.is_empty(), "{effects:?}");
}

/// The leader counts on what is not here any more: whatever the node has said, it must not vote again in this life.
#[test]
fn a_node_on_which_a_leader_counts_for_more_than_it_holds_has_no_voice() {
    let mut rig = Rig::started(Map::new(), &[OWN, OTHER]);
    let heartbeat = Body::Heartbeat { commit: Index(5), round: Round(1) };
    rig.driver.handle(from_other(Message { from: OTHER, to: OWN, term: Term(3), body: heartbeat }));
    let stopped = rig.driver.take_effects(&mut Vec::new()).expect_err("it cannot be");
    assert!(stopped.takes_voice() && matches!(stopped, Stopped::Contradicted(_)), "{stopped}");
    let mut rig = Rig::leading();
    let term = rig.driver.replica().status().hard_state.term;
    let body = Body::Heartbeat { commit: Index(1), round: Round(1) };
    rig.driver.handle(from_other(Message { from: OTHER, to: OWN, term, body }));
    let stopped = rig.driver.take_effects(&mut Vec::new()).expect_err("there is one leader");
    assert!(!stopped.takes_voice(), "nobody knows whose fault it is: {stopped}");
}
