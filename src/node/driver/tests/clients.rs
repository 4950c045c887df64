//! Clients that go away leave nothing behind, and one that knows more than this leader is sent on.

use super::rig::{CLIENT, Rig, data, scan};
use crate::net::{ClientKey, Consistency, Refusal, RequestBody, ResponseBody, SubmitResult};
use crate::node::driver::Input;
use crate::node::driver::reads::READS_WAITING_BYTES_MAX;
use crate::types::{Index, Service, SessionId};

const OTHER: ClientKey = ClientKey(8);
/// Of entries that are not there.
const FAR: Consistency = Consistency::AtLeast(Index(1000));

#[test]
fn what_waits_for_a_client_goes_with_it_and_nothing_of_another() {
    let mut rig = Rig::leading();
    for client in [CLIENT, OTHER, CLIENT] {
        rig.request(client, scan(FAR));
    }
    rig.settle();
    assert_eq!(rig.driver.reads.waiting().0, 3, "they wait for entries that are not there");
    rig.driver.handle(Input::ClientGone { client: CLIENT });
    rig.settle();
    assert_eq!(rig.driver.reads.waiting().0, 1, "those of the client that is gone are free");
    rig.append(1000, 1);
    assert_eq!((rig.answers_to(CLIENT).len(), rig.answers_to(OTHER).len()), (0, 1));
}

#[test]
fn a_read_that_the_protocol_still_has_is_dropped_when_it_comes_back() {
    let mut rig = Rig::leading();
    rig.request(CLIENT, scan(Consistency::Linearizable));
    rig.request(OTHER, scan(Consistency::Linearizable));
    rig.driver.handle(Input::ClientGone { client: CLIENT });
    rig.settle();
    assert_eq!(rig.driver.reads.waiting(), (0, 0));
    assert_eq!((rig.answers_to(CLIENT).len(), rig.answers_to(OTHER).len()), (0, 1));
}

#[test]
fn long_queries_that_wait_are_bounded_in_bytes() {
    let mut rig = Rig::leading();
    let query = vec![0; 1 << 20];
    for client in [CLIENT, OTHER] {
        for _ in 0..20 {
            rig.request(client, RequestBody::Query { query: query.clone().into(), consistency: FAR });
        }
    }
    rig.settle();
    let (waiting, bytes) = rig.driver.reads.waiting();
    assert!(waiting > 0 && bytes <= READS_WAITING_BYTES_MAX, "{waiting} reads, {bytes} bytes");
    let busy = |client| rig.answers_to(client).iter().filter(|body| is_busy(body)).count();
    assert_eq!(waiting + busy(CLIENT) + busy(OTHER), 40, "the others are told at once");
    rig.driver.handle(Input::ClientGone { client: CLIENT });
    rig.request(OTHER, RequestBody::Query { query: query.into(), consistency: FAR });
    rig.settle();
    assert_eq!(rig.driver.reads.waiting().0, 1, "what went with its client made room");
    rig.driver.handle(Input::ClientGone { client: OTHER });
    assert_eq!(rig.driver.reads.waiting(), (0, 0));
}

fn is_busy(body: &ResponseBody) -> bool {
    *body == ResponseBody::Refused(Refusal::Busy)
}

/// A leader that was cut off, and does not know it yet, meets a client that another leader has answered meanwhile. It
/// used to refuse the client's numbers as malformed, and its session as gone: for good, though all was well.
#[test]
fn a_leader_that_knows_less_than_its_client_does_not_judge() {
    let mut rig = Rig::leading();
    rig.append(3, 1);
    let applied = rig.driver.applied().0.index;
    let own = rig.session;
    let later = SessionId(applied.0 + 7);
    let ahead = data(Service::Append, own, (40, 40), b"x");
    let opened_elsewhere = data(Service::Append, later, (1, 1), b"x");
    for command in [ahead, opened_elsewhere] {
        let answer = rig.ask(RequestBody::Submit { commands: vec![command] });
        let ResponseBody::Submitted { results } = answer else { panic!("{answer:?}") };
        assert_eq!(results, [SubmitResult::Refused(Refusal::NotLeader { leader: None })]);
    }
    let gone = data(Service::Append, SessionId(1), (1, 1), b"x");
    let answer = rig.ask(RequestBody::Submit { commands: vec![gone] });
    assert!(
        matches!(answer, ResponseBody::Submitted { results } if results == [SubmitResult::Refused(Refusal::SessionGone)])
    );
}
