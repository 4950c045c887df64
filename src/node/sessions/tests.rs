//! One test per rule; `model.rs` runs random histories.

mod model;

use bytes::Bytes;

use super::*;
use crate::codec::Error;
use crate::limits::SESSION_ANSWERS_MAX;
use crate::types::{Command, Index, RequestNumber, Service, SessionId};

const SMALL: Limits = Limits { sessions_max: 3, answers_max: 4, answer_bytes_max: 10 };

fn register() -> Command {
    Command {
        service: Service::Register,
        session: SessionId(0),
        number: RequestNumber(0),
        lowest_unanswered: RequestNumber(0),
    }
}

fn command(service: Service, session: u64, number: u64, lowest: u64) -> Command {
    Command {
        service,
        session: SessionId(session),
        number: RequestNumber(number),
        lowest_unanswered: RequestNumber(lowest),
    }
}

fn append(session: u64, number: u64, lowest: u64) -> Command {
    command(Service::Append, session, number, lowest)
}

fn run(session: u64, number: u64, lowest: u64) -> Command {
    command(Service::Machine, session, number, lowest)
}

fn answered(index: u64, answer: Option<&'static str>) -> Answered {
    Answered { index: Index(index), answer: answer.map(Bytes::from) }
}

fn registered(session: u64, gone: Option<u64>) -> Decision {
    Decision::Registered { session: SessionId(session), gone: gone.map(SessionId) }
}

/// A table with one session, 5, that has done the appends 1 to `done` at the indexes from 6 on.
fn table(done: u64) -> Sessions {
    let mut table = Sessions::with_limits(SMALL);
    assert_eq!(table.begin(Index(5), &register()), registered(5, None));
    for number in 1..=done {
        assert_eq!(table.begin(Index(5 + number), &append(5, number, 1)), Decision::Run);
    }
    table
}

#[test]
fn the_id_of_a_session_is_the_index_of_its_registration() {
    let mut table = Sessions::new();
    assert!(!table.contains(SessionId(41)));
    assert_eq!(table.begin(Index(41), &register()), registered(41, None));
    assert!(table.contains(SessionId(41)));
    assert_eq!(table.begin(Index(42), &append(41, 1, 1)), Decision::Run);
}

#[test]
fn an_entry_that_comes_twice_is_run_once_and_gets_the_first_answer() {
    let mut table = table(1);
    assert_eq!(table.begin(Index(7), &append(5, 1, 1)), Decision::Duplicate(answered(6, None)));
    assert_eq!(table.begin(Index(8), &run(5, 2, 1)), Decision::Run);
    assert_eq!(table.begin(Index(9), &run(5, 2, 1)), Decision::Duplicate(answered(8, None)), "not answered yet");
    table.keep(SessionId(5), RequestNumber(2), Bytes::from("two"));
    assert_eq!(table.begin(Index(10), &run(5, 2, 1)), Decision::Duplicate(answered(8, Some("two"))));
}

/// A client asks again after its leader died: the entry is in the log twice, and whoever reads the log, now or from its
/// begin, runs it once and has the same answer for it.
#[test]
fn s8_a_command_that_is_in_the_log_twice_is_run_once_on_every_node() {
    let log = [(6, run(5, 1, 1)), (7, run(5, 2, 1)), (8, run(5, 1, 1)), (9, run(5, 3, 1)), (10, run(5, 2, 1))];
    let read = |table: &mut Sessions| {
        let mut runs = 0;
        log.each_ref().map(|(index, command)| {
            let decision = table.begin(Index(*index), command);
            if decision == Decision::Run {
                runs += 1;
                table.keep(SessionId(5), command.number, Bytes::from(format!("run {runs}")));
            }
            decision
        })
    };
    let first = Decision::Duplicate(answered(6, Some("run 1")));
    let second = Decision::Duplicate(answered(7, Some("run 2")));
    let expected = [Decision::Run, Decision::Run, first, Decision::Run, second];
    let mut tables = [table(0), table(0)];
    for table in &mut tables {
        assert_eq!(read(table), expected);
    }
    assert_eq!(tables[0].digest(), tables[1].digest());
}

#[test]
fn numbers_count_from_one_without_gaps() {
    let mut table = table(0);
    let gap = |expected| Decision::Gap { expected: RequestNumber(expected) };
    assert_eq!(table.begin(Index(6), &append(5, 2, 1)), gap(1));
    assert_eq!(table.begin(Index(7), &append(5, 0, 0)), Decision::Stale);
    assert_eq!(table.begin(Index(8), &append(5, 1, 1)), Decision::Run);
    assert_eq!(table.begin(Index(9), &append(5, u64::MAX, u64::MAX)), gap(2));
    assert_eq!(table.begin(Index(10), &append(5, 2, 2)), Decision::Run, "what is not done is not forgotten");
}

#[test]
fn answers_at_or_above_the_lowest_unanswered_are_kept() {
    let mut table = table(3);
    assert_eq!(table.begin(Index(9), &append(5, 4, 3)), Decision::Run);
    assert_eq!(table.begin(Index(10), &append(5, 2, 1)), Decision::Stale);
    assert_eq!(table.begin(Index(11), &append(5, 3, 1)), Decision::Duplicate(answered(8, None)));
    assert_eq!(table.begin(Index(12), &append(5, 4, 1)), Decision::Duplicate(answered(9, None)));
}

#[test]
fn the_number_of_answers_kept_is_bounded() {
    let mut table = table(5);
    assert_eq!(table.begin(Index(11), &append(5, 1, 1)), Decision::Stale);
    assert_eq!(table.begin(Index(12), &append(5, 2, 1)), Decision::Duplicate(answered(7, None)));
}

#[test]
fn the_bytes_of_answers_kept_are_bounded_and_the_oldest_go() {
    let mut table = table(0);
    for (number, answer) in [(1, "1234"), (2, "5678"), (3, "901")] {
        assert_eq!(table.begin(Index(5 + number), &run(5, number, 1)), Decision::Run);
        table.keep(SessionId(5), RequestNumber(number), Bytes::from(answer));
    }
    assert_eq!(table.begin(Index(9), &run(5, 1, 1)), Decision::Duplicate(answered(6, None)), "done, answer gone");
    assert_eq!(table.begin(Index(10), &run(5, 2, 1)), Decision::Duplicate(answered(7, Some("5678"))));
    assert_eq!(table.begin(Index(11), &run(5, 4, 1)), Decision::Run);
    table.keep(SessionId(5), RequestNumber(4), Bytes::from("longer than all"));
    for number in 1..=4 {
        let again = table.begin(Index(11 + number), &run(5, number, 1));
        assert_eq!(again, Decision::Duplicate(answered(5 + number + u64::from(number == 4) * 2, None)));
    }
}

#[test]
fn the_least_recently_used_session_goes_in_log_order() {
    let mut table = table(0);
    table.begin(Index(6), &register());
    table.begin(Index(7), &register());
    table.begin(Index(8), &append(5, 1, 1));
    table.begin(Index(9), &append(6, 9, 1));
    assert_eq!(table.begin(Index(10), &register()), registered(10, Some(7)));
    assert_eq!(table.begin(Index(11), &register()), registered(11, Some(5)));
    assert_eq!(table.begin(Index(12), &register()), registered(12, Some(6)), "a gap is a use, too");
    assert_eq!(table.len(), 3);
}

#[test]
fn an_entry_of_a_session_that_went_is_not_run_and_its_answer_not_kept() {
    let mut table = table(0);
    assert_eq!(table.begin(Index(6), &run(5, 1, 1)), Decision::Run);
    for index in 7..10 {
        table.begin(Index(index), &register());
    }
    table.keep(SessionId(5), RequestNumber(1), Bytes::from("late"));
    assert_eq!(table.begin(Index(10), &run(5, 2, 1)), Decision::SessionGone);
    assert_eq!(table.begin(Index(11), &append(5, 2, 1)), Decision::SessionGone);
}

#[test]
#[should_panic(expected = "comes behind")]
fn entries_come_in_the_order_of_the_log() {
    table(2).begin(Index(7), &append(5, 3, 1));
}

#[test]
#[should_panic(expected = "was not run")]
fn only_what_was_run_has_an_answer() {
    table(2).keep(SessionId(5), RequestNumber(3), Bytes::new());
}

#[test]
fn a_leader_takes_the_numbers_of_a_session_in_order() {
    let (table, mut admission) = (table(2), Admission::new());
    let mut lane = admission.lane(&table, SessionId(5)).unwrap();
    let gap = |expected| Admit::Gap { expected: RequestNumber(expected) };
    assert_eq!(lane.admit(&append(5, 4, 1)), gap(3));
    assert_eq!(lane.admit(&append(5, 5, 1)), gap(3), "after a gap all later ones are refused");
    assert_eq!(lane.admit(&append(5, 3, 1)), Admit::Append);
    assert_eq!(lane.admit(&append(5, 4, 1)), gap(3), "and after one that could not be proposed");
    assert_eq!(lane.admit(&append(5, 3, 1)), Admit::Append);
    lane.appended(RequestNumber(3), Index(20));
    assert_eq!(lane.admit(&append(5, 4, 1)), Admit::Append);
}

#[test]
fn what_is_done_or_pending_is_not_appended_again() {
    let (mut table, mut admission) = (table(2), Admission::new());
    let mut lane = admission.lane(&table, SessionId(5)).unwrap();
    assert_eq!(lane.admit(&append(5, 2, 1)), Admit::Answered(answered(7, None)));
    for number in 3..5 {
        lane.appended(RequestNumber(number), Index(17 + number));
    }
    assert_eq!(lane.admit(&append(5, 3, 1)), Admit::Pending { index: Index(20) });
    // The first one is committed and applied; the other is still pending.
    assert_eq!(table.begin(Index(20), &append(5, 3, 1)), Decision::Run);
    let lane = admission.lane(&table, SessionId(5)).unwrap();
    assert_eq!(lane.admit(&append(5, 3, 1)), Admit::Answered(answered(20, None)));
    assert_eq!(lane.admit(&append(5, 4, 1)), Admit::Pending { index: Index(21) });
    assert_eq!(lane.admit(&append(5, 5, 2)), Admit::Append);
}

#[test]
fn what_is_below_the_lowest_unanswered_is_not_appended_again() {
    let mut table = table(2);
    table.begin(Index(8), &append(5, 3, 3));
    let mut admission = Admission::new();
    let lane = admission.lane(&table, SessionId(5)).unwrap();
    assert_eq!(lane.admit(&append(5, 2, 1)), Admit::Stale);
    assert_eq!(lane.admit(&append(5, 3, 1)), Admit::Answered(answered(8, None)));
}

#[test]
fn a_client_has_a_bounded_number_of_requests_without_an_answer() {
    let (table, mut admission) = (table(2), Admission::new());
    let mut lane = admission.lane(&table, SessionId(5)).unwrap();
    for number in 3..5 {
        assert_eq!(lane.admit(&append(5, number, 1)), Admit::Append);
        lane.appended(RequestNumber(number), Index(17 + number));
    }
    assert_eq!(lane.admit(&append(5, 5, 1)), Admit::TooManyUnanswered);
    assert_eq!(lane.admit(&append(5, 6, 1)), Admit::Gap { expected: RequestNumber(5) });
    assert_eq!(lane.admit(&append(5, 5, 2)), Admit::Append, "it has the first answer by now");
}

#[test]
fn what_is_done_counts_no_more_as_pending() {
    let (mut table, mut admission) = (table(0), Admission::new());
    for number in 1..50 {
        let request = append(5, number, number.saturating_sub(2).max(1));
        let mut lane = admission.lane(&table, SessionId(5)).unwrap();
        assert_eq!(lane.admit(&request), Admit::Append);
        lane.appended(request.number, Index(5 + number));
        if number > 1 {
            let before = append(5, number - 1, request.lowest_unanswered.0);
            assert_eq!(table.begin(Index(4 + number), &before), Decision::Run);
        }
    }
}

#[test]
fn numbers_that_contradict_each_other_are_refused() {
    let (table, mut admission) = (table(2), Admission::new());
    let lane = admission.lane(&table, SessionId(5)).unwrap();
    for (number, lowest) in [(0, 0), (1, 0), (2, 3)] {
        assert_eq!(lane.admit(&append(5, number, lowest)), Admit::Invalid, "{number} {lowest}");
    }
    for number in [4, u64::MAX] {
        assert_eq!(lane.admit(&append(5, number, number)), Admit::Behind, "another leader answered {number}");
    }
}

#[test]
fn a_session_that_went_has_no_lane_and_leaves_nothing_behind() {
    let (mut table, mut admission) = (table(0), Admission::new());
    assert!(admission.lane(&table, SessionId(4)).is_none());
    for index in 6..100 {
        let Decision::Registered { session, .. } = table.begin(Index(index), &register()) else {
            panic!("a registration is always taken");
        };
        admission.lane(&table, session).unwrap().appended(RequestNumber(1), Index(1000 + index));
        assert!(admission.sessions_held() <= 2 * SMALL.sessions_max);
    }
    assert!(admission.lane(&table, SessionId(5)).is_none());
    assert_eq!(
        admission.lane(&table, SessionId(98)).unwrap().admit(&append(98, 1, 1)),
        Admit::Pending { index: Index(1098) },
        "what is pending of the living is not swept out"
    );
}

#[test]
#[should_panic(expected = "out of turn")]
fn what_was_not_admitted_is_not_reported() {
    let (table, mut admission) = (table(2), Admission::new());
    admission.lane(&table, SessionId(5)).unwrap().appended(RequestNumber(4), Index(20));
}

#[test]
fn golden_bytes_and_back() {
    let mut table = table(1);
    table.begin(Index(9), &run(5, 2, 2));
    table.keep(SessionId(5), RequestNumber(2), Bytes::from("ok"));
    let encoded: Vec<Bytes> = table.encoded().collect();
    let expected: &[&[u8]] = &[
        b"\x05\0\0\0\0\0\0\0\x09\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0",
        b"\x01\0\0\0\x09\0\0\0\0\0\0\0",
        b"\x01\0\0\0\x02\0\0\0\0\0\0\0\x02\0\0\0ok",
    ];
    assert_eq!(encoded, [Bytes::from(expected.concat())]);
    assert_eq!(Sessions::restore(SMALL, encoded.iter().map(|bytes| &bytes[..])), Ok(table));
}

/// For snapshots: a clone is taken on the core thread and read on another, while the table goes on.
#[test]
fn a_clone_stays_as_it_was_shares_what_did_not_change_and_comes_in_pieces() {
    fn assert_goes_to_another_thread<T: Send + 'static>(_: &T) {}
    let mut table = Sessions::new();
    for session in 1..=200 {
        table.begin(Index(session), &register());
    }
    let answer = Bytes::from(vec![7; 1000]);
    for session in 1..=200 {
        table.begin(Index(1000 + session), &run(session, 1, 1));
        table.keep(SessionId(session), RequestNumber(1), answer.clone());
    }
    let before: Vec<Bytes> = table.encoded().collect();
    let clone = table.clone();
    assert_goes_to_another_thread(&clone);
    table.begin(Index(2000), &run(70, 2, 2));
    table.begin(Index(2001), &register());
    assert_ne!(table.digest(), clone.digest());
    let shared = |id| std::ptr::eq(table.session(SessionId(id)).unwrap(), clone.session(SessionId(id)).unwrap());
    let changed: Vec<u64> = (1..=200).filter(|id| !shared(*id)).collect();
    assert_eq!(changed, [70], "what was not touched is not copied");
    let (mut pieces, mut last) = (Vec::new(), None);
    loop {
        let mut piece = bytes::BytesMut::new();
        let Some(next) = clone.encode_next(last, &mut piece) else { break };
        assert_eq!(u32::from_le_bytes(piece[..4].try_into().unwrap()) as usize, piece.len() - 4);
        assert!(piece.len() <= 4 + Restoring::new(Limits::default()).session_bytes_max());
        pieces.push(piece.freeze().slice(4..));
        last = Some(next);
    }
    assert_eq!(pieces, before);
    assert_eq!(Sessions::restore(Limits::default(), pieces.iter().map(|piece| &piece[..])), Ok(clone));
}

/// The bound is met by a session with all that it may have, and by none else.
#[test]
fn the_largest_session_is_as_large_as_said() {
    let mut table = Sessions::with_limits(SMALL);
    table.begin(Index(5), &register());
    for number in 1..=4 {
        table.begin(Index(5 + number), &run(5, number, 1));
        let bytes = if number == 1 { 7 } else { 1 };
        table.keep(SessionId(5), RequestNumber(number), Bytes::from(vec![1; bytes]));
    }
    let encoded = table.encoded().next().unwrap();
    assert_eq!(encoded.len(), Restoring::new(SMALL).session_bytes_max());
}

#[test]
fn a_damaged_encoding_is_refused() {
    let mut table = table(2);
    table.begin(Index(9), &run(5, 3, 1));
    table.keep(SessionId(5), RequestNumber(3), Bytes::from("ok"));
    let good = table.encoded().next().unwrap();
    let restore = |bytes: &[u8]| Sessions::restore(SMALL, [bytes]);
    for length in 0..good.len() {
        assert!(restore(&good[..length]).is_err());
    }
    // Session id 0, last use before the id, lowest number 0, too many requests, indexes out of order, an answer to a
    // number that is not done, one that is too long.
    for (offset, byte) in [(0, 0), (8, 4), (16, 0), (24, 5), (28, 5), (36, 6), (56, 4), (64, 11)] {
        let mut bytes = good.to_vec();
        bytes[offset] = byte;
        assert!(restore(&bytes).is_err(), "byte {offset} = {byte}");
    }
    assert!(matches!(Sessions::restore(SMALL, [&good[..], &good[..]]), Err(Error::Invalid { .. })));
    let (small, two) = (Limits { sessions_max: 1, ..SMALL }, Sessions::new());
    assert!(two.is_empty() && Sessions::restore(small, [&good[..]]).is_ok());
}

#[test]
fn the_digest_sees_every_part() {
    let digest = table(2).digest();
    assert_eq!(digest, table(2).digest());
    let mut answer_more = table(1);
    answer_more.begin(Index(7), &run(5, 2, 1));
    assert_eq!(digest, answer_more.digest(), "how a request was served is not part of it");
    answer_more.keep(SessionId(5), RequestNumber(2), Bytes::from("x"));
    let mut used = table(2);
    used.begin(Index(8), &append(5, 1, 1));
    let mut trimmed = table(1);
    trimmed.begin(Index(7), &append(5, 2, 2));
    for other in [answer_more, used, trimmed, table(1), Sessions::new()] {
        assert_ne!(digest, other.digest());
    }
}

#[test]
fn the_default_bounds_are_those_of_the_design() {
    let mut table = Sessions::new();
    table.begin(Index(1), &register());
    let mut admission = Admission::new();
    let mut lane = admission.lane(&table, SessionId(1)).unwrap();
    for number in 1..=SESSION_ANSWERS_MAX as u64 {
        assert_eq!(lane.admit(&append(1, number, 1)), Admit::Append);
        lane.appended(RequestNumber(number), Index(1 + number));
    }
    let one_more = append(1, SESSION_ANSWERS_MAX as u64 + 1, 1);
    assert_eq!(lane.admit(&one_more), Admit::TooManyUnanswered);
}
