//! The log's part of the zoo: with each deliberate bug built in, a proof finds a violation, and soon.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::{crash, errors, forged, holes, lost, random, rot, tail};
use crate::mutant::{self, Mutant};
use crate::sim::proofs::Proof;

/// Which proof finds a bug, within how many cases, and what it says: a bug that is found as something else, or only because
/// the proof itself fails, is not found.
struct Row {
    mutant: Mutant,
    proof: (&'static str, fn(&Proof)),
    cases_max: u64,
    says: &'static str,
}

const fn row(mutant: Mutant, proof: (&'static str, fn(&Proof)), cases_max: u64, says: &'static str) -> Row {
    Row { mutant, proof, cases_max, says }
}

const ROWS: &[Row] = &[
    row(Mutant::AckBeforeFlush, ("D1", crash::short_sequences), 1_000, "group 0: after"),
    row(Mutant::FlushErrorSwallowed, ("D9", errors::a_flush_fails_once), 1, "frame 0 of 1"),
    row(Mutant::NoDirectoryFsync, ("D10", lost::names), 1_000, "it had been durable up to"),
    row(Mutant::ChecksumWithoutLength, ("D4", rot::flipped_bits), 10_000, "is not found"),
    row(Mutant::ChecksumWithoutPlace, ("D6", forged::torn_frames_that_hold_frames), 10, "shift"),
    row(Mutant::DurableTailCut, ("D5", tail::damaged_where_it_is_covered_and_where_not), 1_000, "LaterFrame"),
    row(Mutant::ZerosAccepted, ("D7", holes::zeros), 10_000, "the names"),
    row(Mutant::OlderGenerationAccepted, ("D6", rot::older_generations), 10_000, "frames lie in segments of the chain"),
    row(Mutant::BatchHalfVisible, ("D1", crash::short_sequences), 10_000, "group 0: after"),
    row(
        Mutant::LogKeptBehindPurge,
        ("a log's new beginning", crash::beginnings_behind_another_entry),
        1_000,
        "group 0: after",
    ),
    row(Mutant::BufferReused, ("D2", random::cycles), 1_000, "the log does not open"),
];

#[test]
fn each_bug_of_the_log_is_found_by_its_proof() {
    for Row { mutant, proof: (name, run), cases_max, says } in ROWS {
        let proof = Proof::in_order();
        let said = catch_unwind(AssertUnwindSafe(|| mutant::with(*mutant, || run(&proof))));
        let panic = said.expect_err(mutant.name());
        let words = panic.downcast_ref::<String>().cloned().unwrap_or_default();
        println!("{}: {name}, in case {}: {words}", mutant.name(), proof.cases() + 1);
        assert!(words.contains(says), "{}: {words:?} does not say {says:?}", mutant.name());
        assert!(proof.cases() < *cases_max, "{} is found after {} cases", mutant.name(), proof.cases());
    }
}

/// The zoo's page names each of them, in a table.
#[test]
fn each_bug_stands_in_the_documentation() {
    const TESTING: &str = include_str!("../../../docs/testing.md");
    for mutant in Mutant::ALL {
        let row = format!("| `{}`", mutant.name());
        assert!(TESTING.lines().any(|line| line.starts_with(&row)), "{} is not in docs/testing.md", mutant.name());
    }
}
