//! More clients than nodes keep sessions, with changes of leader, lost answers and copies on their way.

use super::{assert_more, passing_on, run_all};
use crate::mutant::{self, Mutant};
use crate::sim::{Options, Oracle, Simulation};

fn few_sessions(seed: u64) -> Options {
    let options = if seed.is_multiple_of(3) { passing_on(seed) } else { Options::drawn_for(3, seed) };
    options.with_few_sessions(seed)
}

#[test]
fn sessions_go_and_no_command_is_done_twice_nor_an_answer_lost_in_forty_seeds() {
    let least = [
        ("sessions_gone", 2000),
        ("renumbered", 500),
        ("given_up", 200),
        ("elections", 200),
        ("resent", 2000),
        ("acknowledged_records", 2000),
        ("reads_checked", 500),
    ];
    assert_more(&run_all(51_000..51_040, few_sessions), &least);
}

/// The zoo of sessions: who finds it, and by what it says.
#[test]
fn each_deliberate_bug_of_sessions_is_found() {
    let bugs = [
        (Mutant::SessionLimitsDiffer, Oracle::Agreement, "others are"),
        (Mutant::SessionOldestGoes, Oracle::Acknowledged, "has not made room for another"),
        (Mutant::SessionAnswerMisnumbered, Oracle::Acknowledged, "is committed as"),
        (Mutant::SessionReopened, Oracle::Acknowledged, "is committed at"),
        (Mutant::SessionRunsOn, Oracle::Acknowledged, "is committed as"),
    ];
    for (bug, oracle, says) in bugs {
        let first = 51_000;
        let found =
            mutant::with(bug, || (first..first + 40).find_map(|seed| Simulation::run(seed, &few_sessions(seed)).err()));
        let violation = found.unwrap_or_else(|| panic!("nobody noticed {}", bug.name()));
        println!("{}, after {} seeds: {violation}", bug.name(), violation.seed - first + 1);
        assert!(violation.oracle == oracle && violation.explanation.contains(says), "{}: {violation}", bug.name());
    }
}
