//! Clients that give up what was refused early, and send other commands under its numbers.

use super::{assert_more, passing_on, run_all};
use crate::mutant::{self, Mutant};
use crate::sim::{Options, Oracle, Simulation};

fn impatient(seed: u64) -> Options {
    let options = if seed.is_multiple_of(3) { passing_on(seed) } else { Options::drawn_for(3, seed) };
    options.with_impatient_clients(seed)
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
