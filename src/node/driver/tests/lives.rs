//! Whose words count: not those of an older copy of a directory, also after a restart of those who met the newer one.

use super::rig::{OTHER, OWN, Rig};
use crate::limits::LIVES_MET_MAX;
use crate::machine::Map;
use crate::net::{CloseReason, RequestBody, ResponseBody};
use crate::node::driver::{Input, Stopped};
use crate::raft::{AppendOutcome, AppendReply, Body, Message, Round, Sender};
use crate::types::{Incarnation, Index, LogId, NodeId, Term};

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

fn waiting(rig: &mut Rig<Map>) -> String {
    match rig.ask(RequestBody::Status) {
        ResponseBody::Status(status) => status.waiting,
        other => panic!("{other:?}"),
    }
}

fn replies(rig: &mut Rig<Map>, round: u64, outcome: AppendOutcome) {
    let term = rig.driver.replica().status().hard_state.term;
    let body = Body::AppendReply(AppendReply { round: Round(round), outcome });
    let message = Message { from: OTHER, to: OWN, term, body };
    rig.driver.handle(Input::Peer { sender: started(OTHER.0, 1), message });
    rig.settle();
}

/// A follower comes back without what it had acknowledged: that is said, and not forgotten.
#[test]
fn who_has_lost_what_it_acknowledged_is_not_heard_and_the_status_says_what_to_do() {
    let mut rig = Rig::leading();
    rig.append(3, 10);
    let last = rig.driver.replica().status().last;
    replies(&mut rig, 0, AppendOutcome::Matched { last: last.index });
    assert_eq!(waiting(&mut rig), "");
    rig.elapse_heartbeat();
    rig.elapse_heartbeat();
    let hint = LogId::new(last.term, Index(1));
    let round = rig.sent.iter().rev().find_map(|message| match message.body {
        Body::Heartbeat { round, .. } => Some(round.0),
        _ => None,
    });
    replies(&mut rig, round.expect("it is spoken with"), AppendOutcome::Rejected { previous: last, hint });
    let says = |rig: &mut Rig<Map>| {
        let waiting = waiting(rig);
        assert!(
            waiting.contains("node 2, which has lost") && waiting.contains("`trilith cluster remove 2`"),
            "{waiting}"
        );
    };
    says(&mut rig);
    let mut rig = rig.again(Map::new());
    assert!(rig.driver.lives_met()[&OTHER].has_lost, "it is remembered");
    assert!(!is_answered(&mut rig, 9), "and that life not heard, however often it starts");
    rig.elect();
    says(&mut rig);
}

#[test]
fn a_node_that_is_told_that_it_has_lost_what_it_promised_ends() {
    for reason in [CloseReason::OlderBoot, CloseReason::LostAcknowledged] {
        let mut rig = Rig::leading();
        rig.driver.handle(Input::Refused { node: OTHER, reason });
        let stopped = rig.driver.take_effects(&mut Vec::new()).expect_err("it must not speak any more");
        assert!(stopped.takes_voice() && matches!(stopped, Stopped::VoiceTaken { by: OTHER, .. }), "{stopped}");
    }
}

#[test]
fn whoever_refuses_a_node_is_named_in_its_status_until_there_is_a_link() {
    let mut rig = Rig::started(Map::new(), &[OWN, OTHER]);
    assert_eq!(waiting(&mut rig), "a leader");
    rig.driver.handle(Input::Refused { node: OTHER, reason: CloseReason::WrongIncarnation });
    let told = waiting(&mut rig);
    assert!(told.starts_with("a leader; node 2 refuses it: ") && told.contains("made anew"), "{told}");
    rig.driver.handle(Input::Met { node: OTHER, sender: started(OTHER.0, 1) });
    assert_eq!(waiting(&mut rig), "a leader");
}
