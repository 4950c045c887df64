//! Clients that go away leave nothing behind, and one that knows more than this leader is sent on.

use bytes::{Bytes, BytesMut};

use super::rig::{CACHE_BYTES, CLIENT, OWN, Rig, data, options, scan};
use crate::checksum::Checksum;
use crate::codec::COMMAND_HEAD_BYTES;
use crate::limits::{ENTRY_OVERHEAD_BYTES, REQUEST_RECORDS_MAX, WIRE_FRAME_BYTES_MAX};
use crate::machine::{self, Map, StateMachine, command as map};
use crate::net::{ClientKey, Consistency, Refusal, RequestBody, Response, ResponseBody, SubmitResult, put_response};
use crate::node::driver::Input;
use crate::node::driver::reads::READS_WAITING_BYTES_MAX;
use crate::raft::Limits;
use crate::types::{Data, Index, LogId, Service, SessionId};

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

/// A client that did not hear the answer asks again: also at once, while the first request is still on its way, and after
/// other commands that a second run would undo.
#[test]
fn s8_a_command_that_comes_twice_is_run_once_and_answered_alike() {
    let mut rig = Rig::leading();
    let key = Bytes::from_static(b"key");
    let put = |value: &'static [u8]| map::Command::Put { key: key.clone(), value: Bytes::from_static(value) };
    let submit = |command: &Data| RequestBody::Submit { commands: vec![command.clone()] };
    let [first, second] = [b"old", b"new"].map(|value| rig.command(Service::Machine, &put(value).encode().unwrap()));
    rig.holds_writes = true;
    for _ in 0..3 {
        rig.request(CLIENT, submit(&first));
        rig.settle();
    }
    rig.holds_writes = false;
    rig.settle();
    let told: Vec<ResponseBody> = rig.answers_to(CLIENT).into_iter().cloned().collect();
    assert_eq!(told.len(), 3);
    let ResponseBody::Submitted { results } = &told[0] else { panic!("{told:?}") };
    assert!(matches!(results[..], [SubmitResult::Run { count: 1, .. } | SubmitResult::Done { .. }]), "{results:?}");
    assert!(told.iter().all(|answer| *answer == told[0]), "{told:?}");
    let of_second = rig.ask(submit(&second));
    assert_ne!(of_second, told[0]);
    assert_eq!(rig.ask(submit(&first)), told[0]);
    assert_eq!(rig.ask(submit(&second)), of_second);
    let ResponseBody::Answer(answer) = rig.ask(scan(Consistency::Stale)) else { panic!("it is asked for all") };
    let Ok(map::Answer::Entries { entries, .. }) = map::Answer::decode(&answer) else { panic!("entries") };
    assert_eq!(entries, [(key, Bytes::from_static(b"new"))]);
}

/// Of a request of many commands what is known of most of them at once is kept until the last is: that has a bound as
/// well, which has nothing to do with how much waits to be committed.
#[test]
fn requests_of_many_commands_that_wait_for_one_are_bounded() {
    let limits = Limits { uncommitted_bytes_max: 1 << 20, cache_bytes_max: 1 << 20, ..options().limits };
    let mut rig = Rig::with_limits(Map::new(), limits);
    rig.lead();
    rig.holds_writes = true;
    let first = rig.command(Service::Append, b"x");
    let mut commands = vec![Data::new(Bytes::from_static(b"garbage")); REQUEST_RECORDS_MAX];
    commands[0] = first;
    let mut taken = 0;
    while rig.answers_to(CLIENT).is_empty() {
        rig.request(CLIENT, RequestBody::Submit { commands: commands.clone() });
        rig.settle();
        taken += 1;
        assert!(taken <= 1025, "what waits has no bound");
    }
    assert_eq!((taken, rig.answers_to(CLIENT)), (1025, vec![&ResponseBody::Refused(Refusal::Busy)]));
    rig.holds_writes = false;
    rig.settle();
    assert_eq!(rig.answers_to(CLIENT).len(), 1025, "each is answered");
    rig.request(CLIENT, RequestBody::Submit { commands });
    rig.settle();
    let last = rig.answers_to(CLIENT)[1025].clone();
    assert!(matches!(last, ResponseBody::Submitted { .. }), "there is room again: {last:?}");
}

/// Answers at length, whatever is asked of it.
struct Wordy;

impl StateMachine for Wordy {
    fn apply(&mut self, _: LogId, command: &[u8]) -> Result<Bytes, machine::Error> {
        Ok(Bytes::from(vec![7; usize::from(command[0]) << 16]))
    }

    fn query(&self, _: &[u8]) -> Result<Bytes, machine::Error> {
        Ok(Bytes::new())
    }

    fn digest(&self) -> Checksum {
        Checksum(0)
    }
}

/// Named after the bug: answers that no frame holds stopped the node that told them.
#[test]
fn answers_of_a_machine_that_fit_no_frame_are_told_as_unknown() {
    let mut rig = Rig::started(Wordy, &[OWN]);
    rig.lead();
    let command = rig.command(Service::Machine, &[16]);
    let answer = rig.ask(RequestBody::Submit { commands: vec![command.clone(); 6] });
    let ResponseBody::Submitted { results } = &answer else { panic!("{answer:?}") };
    assert!(matches!(results[..4], [SubmitResult::Done { .. }, ..]) && results.len() == 6, "1 MiB each");
    let unknown = SubmitResult::Refused(Refusal::OutcomeUnknown);
    assert_eq!(results[4..], [unknown.clone(), unknown.clone()], "half a frame is for answers");
    let mut frame = BytesMut::new();
    put_response(&mut frame, &Response { id: 1, body: answer });
    assert!(frame.len() < WIRE_FRAME_BYTES_MAX);
    let command = rig.command(Service::Machine, &[17]);
    let answer = rig.ask(RequestBody::Submit { commands: vec![command] });
    assert_eq!(answer, ResponseBody::Submitted { results: vec![unknown] }, "more than an answer may have");
}

/// What waits to be committed is bounded, and who comes beyond that is told at once, whatever is asked: to append, to
/// put, to register. Service goes on when what waited is committed.
#[test]
fn beyond_what_may_wait_uncommitted_clients_are_told_at_once() {
    let mut rig = Rig::leading();
    rig.holds_writes = true;
    let body = vec![7; 1 << 10];
    let mut taken = 0;
    while rig.answers_to(CLIENT).is_empty() {
        let command = rig.command(Service::Append, &body);
        rig.request(CLIENT, RequestBody::Submit { commands: vec![command] });
        rig.settle();
        taken += 1;
        assert!(taken <= CACHE_BYTES / body.len(), "what waits has no bound");
    }
    taken -= 1;
    assert_eq!(taken, CACHE_BYTES / (body.len() + COMMAND_HEAD_BYTES + ENTRY_OVERHEAD_BYTES));
    let busy = ResponseBody::Refused(Refusal::Busy);
    assert_eq!(rig.answers_to(CLIENT), [&busy]);
    let next = taken as u64 + 1;
    let put = data(Service::Machine, rig.session, (next, 1), &body);
    assert_eq!(rig.ask(RequestBody::Submit { commands: vec![put.clone()] }), busy, "the number is free still");
    // There is room for the first of these. It would keep the answer to the second until it is committed.
    let commands = [(next, &[][..]), (next + 1, &body)].map(|(number, body)| {
        data(Service::Append, rig.session, (number, 1), body) //
    });
    assert_eq!(rig.ask(RequestBody::Submit { commands: commands.into() }), busy);
    let registration = RequestBody::Submit { commands: vec![data(Service::Register, SessionId(0), (0, 0), &[])] };
    let refused = ResponseBody::Submitted { results: vec![SubmitResult::Refused(Refusal::Busy)] };
    assert_eq!(rig.ask(registration.clone()), refused, "there is room for it, and none for its first request");
    rig.holds_writes = false;
    rig.settle();
    let is_done = |body: &&&ResponseBody| matches!(body, ResponseBody::Submitted { results } if matches!(results[..], [SubmitResult::Run { .. }]));
    assert_eq!(rig.answers_to(CLIENT).iter().filter(is_done).count(), taken, "all that was taken is done");
    for again in [registration, RequestBody::Submit { commands: vec![put] }] {
        let told = rig.ask(again);
        assert!(
            matches!(&told, ResponseBody::Submitted { results }
            if !matches!(results[0], SubmitResult::Refused(_))),
            "{told:?}"
        );
    }
}
