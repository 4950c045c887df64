//! Changes of the members: when they are answered, what becomes of them in a restart, and who is heard afterwards.

use super::rig::{CLIENT, OTHER, OWN, Rig};
use crate::machine::Map;
use crate::mutant::{self, Mutant};
use crate::net::{Change, MemberChange, Refusal, RequestBody, ResponseBody};
use crate::node::driver::Input;
use crate::raft::{AppendOutcome, AppendReply, Body, Message, Round, Sender};
use crate::types::{Incarnation, Index, LogId, Member, NodeId};

const THIRD: NodeId = NodeId(3);

fn member(id: NodeId, incarnation: u64) -> Member {
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], id.0 as u16));
    Member { id, incarnation: Incarnation(incarnation), address }
}

fn ask(rig: &mut Rig<Map>, change: MemberChange) -> ResponseBody {
    rig.ask(RequestBody::Change(Change::Members(vec![change])))
}

fn add(id: NodeId, incarnation: u64) -> MemberChange {
    MemberChange::Add { member: member(id, incarnation), promote: false }
}

/// The life of a node that has the number of its id.
fn remove(node: NodeId) -> MemberChange {
    MemberChange::Remove { node, incarnation: Incarnation(node.0) }
}

/// The other holds all that the log holds, ten times over.
fn catch_up(rig: &mut Rig<Map>) {
    for _ in 0..10 {
        rig.tick();
        rig.settle();
        let last = rig.driver.replica().status().last.index;
        matched(rig, OTHER.0, last);
        rig.settle();
    }
}

/// The other, as this life of it, has all up to an index.
fn matched(rig: &mut Rig<Map>, incarnation: u64, last: Index) {
    let term = rig.driver.replica().status().hard_state.term;
    let body = Body::AppendReply(AppendReply { round: Round(0), outcome: AppendOutcome::Matched { last } });
    let sender = Sender { incarnation: Incarnation(incarnation), boot: 1, configuration: LogId::ZERO };
    rig.driver.handle(Input::Peer { sender, message: Message { from: OTHER, to: OWN, term, body } });
}

/// The commit index that the next heartbeat tells the other.
fn told(rig: &mut Rig<Map>) -> Index {
    rig.sent.clear();
    for _ in 0..100 {
        rig.tick();
        rig.settle();
        let commit = rig.sent.iter().find_map(|message| match message.body {
            Body::Heartbeat { commit, .. } if message.to == OTHER => Some(commit),
            _ => None,
        });
        if let Some(commit) = commit {
            return commit;
        }
    }
    panic!("it is not spoken with");
}

#[test]
fn a_change_is_answered_when_it_is_committed_and_when_it_is_so_already() {
    let mut rig = Rig::leading();
    rig.holds_writes = true;
    let id = rig.request(CLIENT, RequestBody::Change(Change::Members(vec![add(THIRD, 3)])));
    rig.settle();
    assert!(rig.replies.iter().all(|(_, response)| response.id != id), "it is not on disk");
    rig.holds_writes = false;
    rig.settle();
    let answer = &rig.replies.iter().find(|(_, response)| response.id == id).expect("it is").1.body;
    let index = rig.driver.replica().membership_id().index;
    assert_eq!(*answer, ResponseBody::Changed { index });
    assert_eq!(ask(&mut rig, add(THIRD, 3)), ResponseBody::Changed { index: Index::ZERO });
    let rig = rig.again(Map::new());
    let membership = rig.driver.replica().membership();
    assert_eq!(membership.member(THIRD), Some(&member(THIRD, 3)), "a restart finds it");
}

/// The answer that commits the first, and the second change, come before anything is told.
#[test]
fn of_two_changes_in_one_turn_the_second_waits() {
    let mut rig = Rig::leading();
    let everything = |rig: &mut Rig<Map>| {
        let last = rig.driver.replica().status().last.index;
        matched(rig, OTHER.0, last);
    };
    for _ in 0..10 {
        rig.tick();
        rig.settle();
        everything(&mut rig);
        rig.settle();
    }
    let change = |change| RequestBody::Change(Change::Members(vec![change]));
    let first = rig.request(CLIENT, change(MemberChange::Promote { node: OTHER }));
    rig.settle();
    everything(&mut rig);
    rig.settle();
    assert!(!rig.driver.replica().membership().is_joint(), "its second half is on the way");
    everything(&mut rig);
    let status = rig.driver.replica().status();
    assert!(status.commit == status.last.index && rig.replies.iter().all(|(_, response)| response.id != first));
    let second = rig.request(CLIENT, change(add(NodeId(4), 4)));
    rig.settle();
    let answer = |id| &rig.replies.iter().find(|(_, response)| response.id == id).expect("it is answered").1.body;
    assert!(matches!(answer(first), ResponseBody::Changed { .. }), "{:?}", answer(first));
    assert!(matches!(answer(second), ResponseBody::Refused(Refusal::Unavailable { .. })), "{:?}", answer(second));
}

#[test]
fn what_cannot_be_is_told_apart_from_what_may_pass() {
    let mut rig = Rig::leading();
    for change in [remove(OWN), add(OTHER, 9), MemberChange::Promote { node: NodeId(9) }] {
        let answer = ask(&mut rig, change);
        assert!(matches!(answer, ResponseBody::Refused(Refusal::Impossible { .. })), "{answer:?}");
    }
    let behind = ask(&mut rig, MemberChange::Promote { node: OTHER });
    assert!(matches!(behind, ResponseBody::Refused(Refusal::Unavailable { .. })), "{behind:?}");
    let removed = ask(&mut rig, remove(NodeId(9)));
    assert_eq!(removed, ResponseBody::Changed { index: Index::ZERO }, "it is none");
}

/// Named after the bug: a leader that was cut off said that nothing was to be done, while another had done it otherwise.
#[test]
fn what_is_so_already_is_answered_by_who_still_leads() {
    let mut rig = Rig::leading();
    catch_up(&mut rig);
    rig.request(CLIENT, RequestBody::Change(Change::Members(vec![MemberChange::Promote { node: OTHER }])));
    for _ in 0..3 {
        rig.settle();
        let last = rig.driver.replica().status().last.index;
        matched(&mut rig, OTHER.0, last);
    }
    assert!(!rig.driver.replica().membership().is_joint(), "both vote");
    // The other is not heard any more.
    let asked = rig.request(CLIENT, RequestBody::Change(Change::Members(vec![MemberChange::Promote { node: OTHER }])));
    let answers = |rig: &Rig<Map>| {
        let answers = rig.replies.iter().filter(|(_, response)| response.id == asked);
        answers.map(|(_, response)| response.body.clone()).collect::<Vec<_>>()
    };
    rig.settle();
    assert_eq!(answers(&rig), [], "nobody has confirmed that it leads");
    for _ in 0..40 {
        rig.tick();
        rig.settle();
    }
    assert_eq!(answers(&rig), [ResponseBody::Refused(Refusal::NotLeader { leader: None })]);
}

#[test]
fn a_leader_that_answers_unconfirmed_is_found() {
    let test = || std::panic::catch_unwind(what_is_so_already_is_answered_by_who_still_leads);
    assert!(mutant::with(Mutant::AlreadyUnconfirmed, test).is_err());
}

#[test]
fn of_a_change_that_a_leader_could_not_finish_the_outcome_is_unknown() {
    let mut rig = Rig::leading();
    catch_up(&mut rig);
    let id = rig.request(CLIENT, RequestBody::Change(Change::Members(vec![MemberChange::Promote { node: OTHER }])));
    rig.settle();
    assert!(rig.driver.replica().membership().is_joint(), "{:?}", rig.replies.last());
    for _ in 0..40 {
        rig.tick();
        rig.settle();
    }
    let answer = &rig.replies.iter().find(|(_, response)| response.id == id).expect("it is answered").1.body;
    assert_eq!(*answer, ResponseBody::Refused(Refusal::OutcomeUnknown));
}

/// It would be told that it has what it never had, and end.
#[test]
fn a_late_answer_of_an_earlier_life_is_not_counted_for_the_next() {
    let mut rig = Rig::leading();
    rig.append(3, 10);
    let last = rig.driver.replica().status().last.index;
    matched(&mut rig, OTHER.0, last);
    assert_eq!(told(&mut rig), last, "it is heard while it is a member");
    assert!(matches!(ask(&mut rig, remove(OTHER)), ResponseBody::Changed { .. }));
    assert!(matches!(ask(&mut rig, add(OTHER, 9)), ResponseBody::Changed { .. }));
    matched(&mut rig, OTHER.0, last);
    assert_eq!(told(&mut rig), Index::ZERO, "it is of the life before");
    matched(&mut rig, 9, Index(1));
    assert_eq!(told(&mut rig), Index(1));
}

/// The answer to a removal was lost, and it is asked for again when another life has come.
#[test]
fn a_removal_that_comes_late_spares_the_next_life() {
    let mut rig = Rig::leading();
    assert!(matches!(ask(&mut rig, remove(OTHER)), ResponseBody::Changed { index } if index > Index::ZERO));
    assert_eq!(ask(&mut rig, remove(OTHER)), ResponseBody::Changed { index: Index::ZERO }, "it is gone");
    assert!(matches!(ask(&mut rig, add(OTHER, 9)), ResponseBody::Changed { index } if index > Index::ZERO));
    assert_eq!(ask(&mut rig, remove(OTHER)), ResponseBody::Changed { index: Index::ZERO }, "it is gone still");
    assert_eq!(rig.driver.replica().membership().member(OTHER), Some(&member(OTHER, 9)));
}

#[test]
fn a_life_that_was_removed_never_comes_back() {
    let mut rig = Rig::leading();
    assert!(matches!(ask(&mut rig, remove(OTHER)), ResponseBody::Changed { .. }));
    assert!(matches!(ask(&mut rig, add(OTHER, 9)), ResponseBody::Changed { .. }));
    let again = MemberChange::Remove { node: OTHER, incarnation: Incarnation(9) };
    assert!(matches!(ask(&mut rig, again), ResponseBody::Changed { .. }));
    let refused = |rig: &mut Rig<Map>, incarnation| {
        let answer = ask(rig, add(OTHER, incarnation));
        let ResponseBody::Refused(Refusal::Impossible { reason }) = &answer else { panic!("{answer:?}") };
        assert!(reason.contains("was removed") && reason.contains("trilith init --join"), "{reason}");
    };
    for incarnation in [OTHER.0, 9] {
        refused(&mut rig, incarnation);
    }
    let mut rig = rig.again(Map::new());
    rig.elect();
    for incarnation in [OTHER.0, 9] {
        refused(&mut rig, incarnation);
    }
    assert!(matches!(ask(&mut rig, add(OTHER, 10)), ResponseBody::Changed { index } if index > Index::ZERO));
}
