//! Writes that are passed on. One node plays the follower and one the leader of another world, and the test carries what
//! they say between them: late, twice, by two ways, to the wrong one.

use super::rig::{CLIENT, OTHER, OWN, Rig, agreeing, data, from_other};
use crate::limits::{FORWARD_BYTES_MAX, RECORD_BYTES_MAX};
use crate::machine::Map;
use crate::mutant::{self, Mutant};
use crate::net::{ClientKey, Forward, ForwardId, Forwarded, Refusal, RequestBody, ResponseBody, SubmitResult};
use crate::node::driver::Input;
use crate::raft::{Body, Message, Role, Round, Sender};
use crate::types::{Data, Incarnation, Index, LogId, Service, SessionId, Term};

const OTHERS_LIFE: Sender = Sender { incarnation: Incarnation(2), boot: 1, configuration: LogId::ZERO };

/// A follower of the other, which leads in this term.
fn following(term: u64) -> Rig<Map> {
    let mut rig = Rig::started(Map::new(), &[OWN, OTHER]);
    follow(&mut rig, term);
    rig
}

fn follow(rig: &mut Rig<Map>, term: u64) {
    let body = Body::Heartbeat { commit: Index::ZERO, round: Round(1) };
    rig.driver.handle(from_other(Message { from: OTHER, to: OWN, term: Term(term), body }));
    rig.settle();
    let status = rig.driver.replica().status();
    assert_eq!((status.leader, status.hard_state.term), (Some(OTHER), Term(term)));
}

fn term(rig: &Rig<Map>) -> Term {
    rig.driver.replica().status().hard_state.term
}

fn last(rig: &Rig<Map>) -> Index {
    rig.driver.replica().status().last.index
}

fn anywhere(commands: Vec<Data>) -> RequestBody {
    RequestBody::SubmitAnywhere { commands }
}

fn id(number: u64) -> ForwardId {
    ForwardId { incarnation: Incarnation(2), boot: 1, number }
}

/// Gives a leader what the other passes on to it in this term.
fn pass(rig: &mut Rig<Map>, number: u64, term: Term, commands: Vec<Data>) {
    let forward = Forward { id: id(number), term, commands };
    rig.driver.handle(Input::Forward { from: OTHER, sender: OTHERS_LIFE, forward });
    rig.settle();
}

/// What a leader said of it.
fn said(rig: &Rig<Map>, number: u64) -> Option<&Result<Vec<SubmitResult>, Refusal>> {
    let mut said = rig.forwarded.iter().filter(|(to, forwarded)| *to == OTHER && forwarded.id == id(number));
    let first = said.next().map(|(_, forwarded)| &forwarded.outcome);
    assert!(said.next().is_none(), "an answer comes once");
    first
}

fn answer(rig: &mut Rig<Map>, id: ForwardId, outcome: Result<Vec<SubmitResult>, Refusal>) {
    rig.driver.handle(Input::Forwarded { from: OTHER, forwarded: Forwarded { id, outcome } });
    rig.settle();
}

fn run(index: Index) -> SubmitResult {
    SubmitResult::Run { first: index, count: 1 }
}

fn submitted(results: Vec<SubmitResult>) -> ResponseBody {
    ResponseBody::Submitted { results }
}

fn told(rig: &Rig<Map>, request: u64) -> Option<&ResponseBody> {
    rig.replies.iter().find(|(_, response)| response.id == request).map(|(_, response)| &response.body)
}

fn record(rig: &mut Rig<Map>) -> Data {
    rig.command(Service::Append, b"record")
}

fn unknown() -> ResponseBody {
    ResponseBody::Refused(Refusal::OutcomeUnknown)
}

#[test]
fn what_may_be_passed_on_is_and_its_answer_comes_back() {
    let mut leader = Rig::leading();
    let mut follower = following(term(&leader).0);
    let (own, next) = (record(&mut leader), record(&mut leader));
    let redirected = follower.ask(RequestBody::Submit { commands: vec![own.clone()] });
    assert!(
        matches!(redirected, ResponseBody::Refused(Refusal::NotLeader { leader: Some((OTHER, _)) })),
        "{redirected:?}"
    );
    assert!(follower.forwards.is_empty(), "only if it was asked for");
    let request = follower.request(CLIENT, anywhere(vec![own, next]));
    follower.settle();
    let (to, forward) = follower.forwards.pop().unwrap();
    assert_eq!((to, forward.term, told(&follower, request)), (OTHER, term(&leader), None));
    assert_eq!(forward.id.incarnation, Incarnation(1));
    let copy = forward.id;
    leader.driver.handle(Input::Forward { from: OTHER, sender: OTHERS_LIFE, forward });
    leader.settle();
    let (to, forwarded) = leader.forwarded.pop().unwrap();
    assert_eq!((to, forwarded.id), (OTHER, copy));
    follower.driver.handle(Input::Forwarded { from: OTHER, forwarded });
    follower.settle();
    let first = Index(last(&leader).0 - 1);
    assert_eq!(told(&follower, request), Some(&submitted(vec![SubmitResult::Run { first, count: 2 }])));
    assert_eq!(follower.driver.forwards.waiting(), (0, 0));
}

#[test]
fn a_leader_does_itself_what_may_be_passed_on() {
    let mut rig = Rig::leading();
    let command = record(&mut rig);
    let answer = rig.ask(anywhere(vec![command]));
    assert_eq!(answer, submitted(vec![run(last(&rig))]));
    assert!(rig.forwards.is_empty());
}

#[test]
fn copies_that_come_by_several_ways_are_in_the_log_once_and_get_one_answer() {
    let mut rig = Rig::leading();
    let term = term(&rig);
    let commands: Vec<Data> = (0..3).map(|_| record(&mut rig)).collect();
    rig.holds_writes = true;
    // By the other, before what comes first: it is refused, and the number is free.
    pass(&mut rig, 1, term, vec![commands[1].clone()]);
    assert_eq!(said(&rig, 1), Some(&Ok(vec![SubmitResult::Refused(Refusal::Gap { expected: 1 })])));
    let direct = rig.request(CLIENT, RequestBody::Submit { commands: commands[..2].to_vec() });
    rig.settle();
    pass(&mut rig, 2, term, commands.clone());
    let again = rig.request(CLIENT, anywhere(commands.clone()));
    rig.settle();
    let end = last(&rig);
    assert_eq!((said(&rig, 2), told(&rig, again)), (None, None));
    rig.holds_writes = false;
    rig.settle();
    let first = Index(end.0 - 2);
    let results = |count| vec![SubmitResult::Run { first, count }];
    assert_eq!(told(&rig, direct), Some(&submitted(results(2))));
    assert_eq!(told(&rig, again), Some(&submitted(results(3))));
    assert_eq!(said(&rig, 2), Some(&Ok(results(3))));
    // Late copies: of what is done, and of what the client has an answer to.
    pass(&mut rig, 3, term, commands.clone());
    assert_eq!(said(&rig, 3), Some(&Ok(results(3))));
    let session = rig.session;
    let newer = data(Service::Append, session, (4, 4), b"record");
    assert_eq!(rig.ask(anywhere(vec![newer])), submitted(vec![run(end.next())]));
    pass(&mut rig, 4, term, commands);
    assert_eq!(said(&rig, 4), Some(&Ok(vec![SubmitResult::Refused(Refusal::OutcomeUnknown); 3])));
    assert_eq!(last(&rig), end.next(), "no copy was appended again");
}

/// A copy that comes behind a change of the leader is of no use to anyone: whoever passed it on has given it up.
#[test]
fn whoever_does_not_lead_in_the_term_that_is_meant_refuses_and_passes_nothing_on() {
    let mut leader = Rig::leading();
    let (now, end) = (term(&leader), last(&leader));
    for (number, term) in [(1, now.0 - 1), (2, now.0 + 1)] {
        let command = data(Service::Append, leader.session, (1, 1), b"record");
        pass(&mut leader, number, Term(term), vec![command]);
        let said = said(&leader, number);
        assert!(matches!(said, Some(Err(Refusal::NotLeader { leader: Some((OWN, _)) }))), "{said:?}");
    }
    assert_eq!(last(&leader), end);
    let mut follower = following(3);
    pass(&mut follower, 1, Term(3), vec![data(Service::Append, SessionId(1), (1, 1), b"record")]);
    assert!(matches!(said(&follower, 1), Some(Err(Refusal::NotLeader { leader: Some((OTHER, _)) }))));
    assert!(follower.forwards.is_empty(), "what was passed on to it stays with it");
}

#[test]
fn a_refusal_of_another_kind_is_the_clients_to_hear() {
    let mut rig = following(3);
    let ask = |rig: &mut Rig<Map>| {
        let command = record(rig);
        let request = rig.request(CLIENT, anywhere(vec![command]));
        rig.settle();
        (request, rig.forwards.pop().unwrap().1.id)
    };
    let (request, copy) = ask(&mut rig);
    answer(&mut rig, copy, Err(Refusal::Busy));
    assert_eq!(told(&rig, request), Some(&ResponseBody::Refused(Refusal::Busy)));
    // Its client is to ask here again, and not to look for the leader by itself.
    let (request, copy) = ask(&mut rig);
    answer(&mut rig, copy, Err(Refusal::NotLeader { leader: None }));
    assert!(matches!(told(&rig, request), Some(ResponseBody::Refused(Refusal::Unavailable { .. }))));
}

#[test]
fn of_what_was_passed_on_the_outcome_is_unknown_when_leader_link_or_patience_is_gone() {
    let mut rig = following(3);
    let ends: [fn(&mut Rig<Map>); 4] = [
        |rig| follow(rig, 4),
        |rig| rig.driver.handle(Input::Lost { node: OTHER }),
        |rig| {
            for _ in 0..500 {
                rig.tick();
                let term = term(rig).0;
                follow(rig, term);
            }
        },
        // It hears nobody, and stands.
        |rig| {
            for _ in 0..30 {
                rig.tick();
                rig.settle();
            }
        },
    ];
    for (number, end) in ends.into_iter().enumerate() {
        let commands = vec![record(&mut rig)];
        let request = rig.request(CLIENT, anywhere(commands));
        rig.settle();
        let copy = rig.forwards.pop().unwrap().1.id;
        assert_eq!(told(&rig, request), None);
        end(&mut rig);
        rig.settle();
        assert_eq!(told(&rig, request), Some(&unknown()), "end {number}");
        assert_eq!(rig.driver.forwards.waiting(), (0, 0));
        let replies = rig.replies.len();
        answer(&mut rig, copy, Ok(vec![run(Index(9))]));
        assert_eq!(rig.replies.len(), replies, "end {number}: an answer that comes late is nobody's");
    }
    let refused = rig.ask(anywhere(vec![data(Service::Append, SessionId(1), (1, 1), b"x")]));
    assert_eq!(refused, ResponseBody::Refused(Refusal::NotLeader { leader: None }), "its client looks elsewhere");
}

#[test]
fn a_link_to_another_node_that_breaks_changes_nothing() {
    let mut rig = following(3);
    let commands = vec![record(&mut rig)];
    let request = rig.request(CLIENT, anywhere(commands));
    rig.driver.handle(Input::Lost { node: crate::types::NodeId(3) });
    (0..499).for_each(|_| {
        rig.tick();
        follow(&mut rig, 3);
    });
    assert_eq!(told(&rig, request), None);
}

#[test]
fn what_has_not_left_is_refused_for_certain() {
    let mut rig = following(3);
    let commands = vec![record(&mut rig)];
    let request = rig.request(CLIENT, anywhere(commands));
    rig.settle();
    let copy = rig.forwards.pop().unwrap().1.id;
    rig.driver.handle(Input::NotForwarded { number: copy.number, refusal: Refusal::Busy });
    rig.settle();
    assert_eq!(told(&rig, request), Some(&ResponseBody::Refused(Refusal::Busy)));
    assert_eq!(rig.driver.forwards.waiting(), (0, 0));
    rig.driver.handle(Input::Lost { node: OTHER });
    rig.settle();
    assert_eq!(rig.replies.len(), 1, "it is told once");
}

/// A client that sends without end takes a half, the next a half of the rest; who is gone takes nothing.
#[test]
fn what_is_passed_on_and_not_answered_is_bounded_and_each_client_has_a_share() {
    let mut rig = following(3);
    let large = data(Service::Append, SessionId(1), (1, 1), &vec![1; RECORD_BYTES_MAX / 2]);
    let busy = ResponseBody::Refused(Refusal::Busy);
    let fill = |rig: &mut Rig<Map>, client: ClientKey| {
        let before = rig.driver.forwards.waiting().1;
        while rig.answers_to(client).is_empty() {
            rig.request(client, anywhere(vec![large.clone()]));
            rig.settle();
            assert!(rig.forwards.len() < 20, "there is no bound");
        }
        assert_eq!(rig.answers_to(client), [&busy], "it is told at once");
        rig.driver.forwards.waiting().1 - before
    };
    let held = [ClientKey(7), ClientKey(8), ClientKey(9)].map(|client| fill(&mut rig, client));
    println!("held: {held:?}");
    let fair = |at: usize| FORWARD_BYTES_MAX >> (at + 1);
    for (at, held) in held.into_iter().enumerate() {
        assert!(held <= fair(at) + RECORD_BYTES_MAX / 2 && held + RECORD_BYTES_MAX >= fair(at), "client {at}: {held}");
    }
    assert!(rig.driver.forwards.waiting().1 <= FORWARD_BYTES_MAX);
    // An answer makes room, and so does who is gone: what is said to it later is said to nobody.
    let copy = rig.forwards[0].1.id;
    let (taken, told_before) = (rig.forwards.len(), rig.replies.len());
    answer(&mut rig, copy, Err(Refusal::NoSpace));
    assert_eq!(rig.replies.len(), told_before + 1);
    let copies: Vec<ForwardId> = rig.forwards.iter().map(|(_, forward)| forward.id).collect();
    rig.driver.handle(Input::ClientGone { client: ClientKey(7) });
    assert_eq!(rig.driver.forwards.waiting().1, held[1] + held[2]);
    answer(&mut rig, copies[1], Ok(vec![run(Index(9))]));
    assert_eq!(rig.replies.len(), told_before + 1);
    rig.request(ClientKey(10), anywhere(vec![large.clone()]));
    rig.settle();
    assert_eq!(rig.forwards.len(), taken + 1);
    follow(&mut rig, 4);
    assert_eq!(rig.driver.forwards.waiting(), (0, 0));
    let small = rig.request(ClientKey(7), anywhere(vec![large.clone()]));
    rig.settle();
    assert_eq!(told(&rig, small), None);
}

#[test]
fn an_answer_to_another_copy_life_or_by_another_node_is_not_taken() {
    let mut rig = following(3);
    let commands = vec![record(&mut rig)];
    let request = rig.request(CLIENT, anywhere(commands));
    rig.settle();
    let own = rig.forwards.pop().unwrap().1.id;
    let others = [
        ForwardId { number: own.number + 1, ..own },
        ForwardId { boot: own.boot - 1, ..own },
        ForwardId { incarnation: Incarnation(9), ..own },
    ];
    for id in others {
        answer(&mut rig, id, Ok(vec![run(Index(9))]));
    }
    let forwarded = Forwarded { id: own, outcome: Ok(vec![run(Index(9))]) };
    rig.driver.handle(Input::Forwarded { from: crate::types::NodeId(3), forwarded });
    rig.settle();
    assert_eq!(told(&rig, request), None);
    answer(&mut rig, own, Ok(vec![run(Index(8))]));
    assert_eq!(told(&rig, request), Some(&submitted(vec![run(Index(8))])));
    let mut again = rig.again(Map::new());
    follow(&mut again, 3);
    let commands = vec![record(&mut again)];
    again.request(CLIENT, anywhere(commands));
    again.settle();
    assert_ne!(again.forwards[0].1.id, own, "the next start uses other ids");
}

#[test]
fn answers_to_an_earlier_life_would_be_taken_by_their_number() {
    let check = || std::panic::catch_unwind(an_answer_to_another_copy_life_or_by_another_node_is_not_taken);
    assert!(mutant::with(Mutant::ForwardAnswersMixed, check).is_err());
}

#[test]
fn another_life_of_a_node_passes_nothing_on() {
    let mut rig = Rig::leading();
    let (term, end) = (term(&rig), last(&rig));
    let sender = Sender { incarnation: Incarnation(99), ..OTHERS_LIFE };
    let forward = Forward { id: id(1), term, commands: vec![record(&mut rig)] };
    rig.driver.handle(Input::Forward { from: OTHER, sender, forward });
    rig.settle();
    assert_eq!((last(&rig), rig.forwarded.len()), (end, 0));
}

/// The other votes for this node, and acknowledges everything.
fn agree(rig: &mut Rig<Map>) {
    for message in std::mem::take(&mut rig.sent) {
        let Some(body) = agreeing(message.body) else { continue };
        rig.driver.handle(from_other(Message { from: OTHER, to: OWN, term: message.term, body }));
    }
}

#[test]
fn a_leader_that_leads_no_more_says_so_to_who_passed_on() {
    let mut rig = Rig::started(Map::new(), &[OWN, OTHER]);
    for _ in 0..200 {
        rig.tick();
        rig.settle();
        agree(&mut rig);
        rig.settle();
    }
    assert!(rig.driver.admission.is_some(), "{:?}", rig.driver.replica().status());
    let now = term(&rig);
    let registration = || vec![data(Service::Register, SessionId(0), (0, 0), &[])];
    pass(&mut rig, 1, now, registration());
    agree(&mut rig);
    rig.settle();
    let Some(Ok(results)) = said(&rig, 1) else { panic!("{:?}", said(&rig, 1)) };
    let SubmitResult::Run { first, .. } = results[0] else { panic!("{results:?}") };
    // Nobody acknowledges these.
    let command = data(Service::Append, SessionId(first.0), (1, 1), b"record");
    pass(&mut rig, 2, now, vec![command]);
    assert_eq!(said(&rig, 2), None);
    follow(&mut rig, now.0 + 1);
    assert_eq!(rig.driver.replica().status().role, Role::Follower);
    assert_eq!(said(&rig, 2), Some(&Ok(vec![SubmitResult::Refused(Refusal::OutcomeUnknown)])));
}
