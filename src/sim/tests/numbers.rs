//! Clients that give up what was refused early, and send other commands under its numbers.

use bytes::Bytes;

use super::{assert_more, passing_on, run_all};
use crate::codec;
use crate::mutant::{self, Mutant};
use crate::net::{Refusal, Request, RequestBody, Response, ResponseBody};
use crate::sim::copies::{Copies, Name};
use crate::sim::{Options, Oracle, Simulation};
use crate::types::{Command, RequestNumber, Service, SessionId};

const CLIENT: u64 = 3;
const NAME: Name = (SessionId(2), RequestNumber(7));

fn impatient(seed: u64) -> Options {
    let options = if seed.is_multiple_of(3) { passing_on(seed) } else { Options::drawn_for(3, seed) };
    options.with_impatient_clients(seed)
}

/// What deletes the same key has the same bytes.
fn same() -> Bytes {
    Bytes::from_static(b"delete")
}

/// The number is the command's, and is sent with it in a request of which so many copies arrive.
fn number_and_send(copies: &mut Copies, ordinal: u64, arrivals: u64) {
    copies.numbered(NAME, (CLIENT, ordinal), Service::Machine, same());
    let (session, number) = NAME;
    let command = Command { service: Service::Machine, session, number, lowest_unanswered: number };
    let body = RequestBody::Submit { commands: vec![codec::encode_command(&command, &same())] };
    copies.sent(CLIENT, &Request { id: ordinal, body }, arrivals);
}

fn refuse(copies: &mut Copies, ordinal: u64) {
    let response = Response { id: ordinal, body: ResponseBody::Refused(Refusal::Busy) };
    assert_eq!(copies.answered(CLIENT, &response), Ok(vec![(NAME, (CLIENT, ordinal))]));
}

fn committed(copies: &Copies) -> Option<u64> {
    copies.command(NAME, Service::Machine, &same()).map(|(_, ordinal)| ordinal)
}

/// Two commands that say the same had one number: if it was given away too early, it is the first that is committed.
#[test]
fn of_commands_that_say_the_same_that_one_is_committed_which_was_sent_and_may_be_in_the_log() {
    let mut copies = Copies::default();
    copies.numbered(NAME, (CLIENT, 9), Service::Machine, same());
    assert_eq!(committed(&copies), None, "nothing was sent under that number");
    number_and_send(&mut copies, 10, 1);
    assert_eq!(committed(&copies), Some(10));
    copies.numbered(NAME, (CLIENT, 13), Service::Machine, same());
    assert_eq!(committed(&copies), Some(10), "the other was not sent");
    number_and_send(&mut copies, 14, 1);
    assert_eq!(committed(&copies), Some(10), "a copy of it was never answered");
    refuse(&mut copies, 10);
    assert_eq!(committed(&copies), Some(14));
    refuse(&mut copies, 14);
    assert_eq!(committed(&copies), Some(14), "of those that were all refused the last");
}

/// What was said not to be done is not, and what is answered is the answer to the command that has the number now.
#[test]
fn numbers_of_what_was_refused_go_to_other_commands_and_each_has_its_own_answer_in_forty_seeds() {
    let least = [
        ("numbers_given_again", 50_000),
        ("failed", 20_000),
        ("refused_busy", 10_000),
        ("refused_no_space", 5000),
        ("acknowledged_records", 5000),
        ("elections", 200),
        ("crashes", 200),
        ("forwarded", 500),
    ];
    assert_more(&run_all(54_000..54_040, impatient), &least);
}

/// The zoo of numbers: who finds it, and by what it says.
#[test]
fn each_deliberate_bug_of_numbers_is_found() {
    let bugs = [
        (Mutant::NumberFreeWhenLost, "was told not to be done, and is committed at"),
        (Mutant::NumberFreeBesideUncertain, "was told not to be done, and is committed at"),
        (Mutant::RefusedThoughProposed, "was refused, and is committed at"),
    ];
    for (bug, says) in bugs {
        let first = 54_000;
        let found =
            mutant::with(bug, || (first..first + 20).find_map(|seed| Simulation::run(seed, &impatient(seed)).err()));
        let violation = found.unwrap_or_else(|| panic!("nobody noticed {}", bug.name()));
        println!("{}, after {} seeds: {violation}", bug.name(), violation.seed - first + 1);
        let is_it = violation.oracle == Oracle::Acknowledged && violation.explanation.contains(says);
        assert!(is_it, "{}: {violation}", bug.name());
    }
}
