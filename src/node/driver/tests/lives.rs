//! Whose words count: not those of an older copy of a directory, also after a restart of those who met the newer one.

use super::rig::{OTHER, OWN, Rig};
use crate::limits::LIVES_MET_MAX;
use crate::machine::Map;
use crate::node::driver::Input;
use crate::raft::{Body, Message, Sender};
use crate::types::{Incarnation, LogId, NodeId, Term};

const NEXT: Term = Term(1);

fn started(incarnation: u64, boot: u64) -> Sender {
    Sender { incarnation: Incarnation(incarnation), boot, configuration: LogId::ZERO }
}

fn asks(from: NodeId, sender: Sender) -> Input {
    let body = Body::PreVote { next: NEXT, last: LogId::ZERO };
    Input::Peer { sender, message: Message { from, to: OWN, term: Term(0), body } }
}

/// Whether the other is answered that asks for a vote in this start of it.
fn is_answered(rig: &mut Rig<Map>, boot: u64) -> bool {
    rig.sent.clear();
    rig.driver.handle(asks(OTHER, started(OTHER.0, boot)));
    rig.settle();
    !rig.sent.is_empty()
}

#[test]
fn an_older_start_than_one_that_was_heard_is_not_heard_also_after_a_restart() {
    let mut rig = Rig::started(Map::new(), &[OWN, OTHER]);
    assert!(is_answered(&mut rig, 4) && !is_answered(&mut rig, 3));
    assert!(is_answered(&mut rig, 4), "it is still there");
    assert!(is_answered(&mut rig, 7) && !is_answered(&mut rig, 4));
    let mut rig = rig.again(Map::new());
    assert!(!is_answered(&mut rig, 4), "what was heard is remembered");
    assert!(!is_answered(&mut rig, 6) && is_answered(&mut rig, 7) && is_answered(&mut rig, 8));
}

/// A link is enough.
#[test]
fn a_start_that_was_met_is_remembered_before_it_says_anything() {
    let mut rig = Rig::started(Map::new(), &[OWN, OTHER]);
    rig.driver.handle(Input::Met { node: OTHER, sender: started(OTHER.0, 4) });
    rig.settle();
    let mut rig = rig.again(Map::new());
    assert!(!is_answered(&mut rig, 3) && is_answered(&mut rig, 4));
}

#[test]
fn nothing_of_a_new_start_counts_before_it_cannot_be_forgotten() {
    let mut rig = Rig::started(Map::new(), &[OWN, OTHER]);
    rig.settle();
    rig.holds_writes = true;
    for _ in 0..3 {
        assert!(!is_answered(&mut rig, 4), "it waits for the disk");
    }
    rig.holds_writes = false;
    rig.settle();
    assert_eq!(rig.sent.len(), 3, "in their order");
    rig.holds_writes = true;
    assert!(is_answered(&mut rig, 4), "what is durable needs no write");
}

/// What waited may be of another start than the one that is believed when the disk is done.
#[test]
fn what_waited_of_a_start_that_is_older_by_then_is_dropped() {
    let mut rig = Rig::started(Map::new(), &[OWN, OTHER]);
    rig.settle();
    rig.holds_writes = true;
    assert!(!is_answered(&mut rig, 4) && !is_answered(&mut rig, 5));
    rig.holds_writes = false;
    rig.settle();
    assert_eq!(rig.sent.len(), 1);
}

/// Another life counts its own starts, if it is one that is meant.
#[test]
fn a_life_that_is_not_meant_takes_no_place() {
    let mut rig = Rig::started(Map::new(), &[OWN, OTHER]);
    assert!(is_answered(&mut rig, 4));
    rig.driver.handle(Input::Met { node: OTHER, sender: started(99, 900) });
    rig.driver.handle(asks(OTHER, started(99, 900)));
    rig.settle();
    assert!(!is_answered(&mut rig, 3) && is_answered(&mut rig, 4));
}

/// Nodes come and go; the members stay.
#[test]
fn those_who_are_no_members_go_first() {
    let mut rig = Rig::started(Map::new(), &[OWN, OTHER]);
    assert!(is_answered(&mut rig, 4));
    for id in 3..3 + 3 * LIVES_MET_MAX as u64 {
        rig.driver.handle(asks(NodeId(id), started(id, 1)));
        rig.settle();
        assert!(rig.driver.lives_met().len() <= LIVES_MET_MAX);
    }
    assert!(!is_answered(&mut rig, 3) && is_answered(&mut rig, 4));
}
