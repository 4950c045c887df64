//! The model finds bugs of the core, each by the shortest way there is, which is part of the test.

use crate::mutant::{self, Mutant};

use super::Bounds;
use super::explore::{breadth_first, tell};

const LEAST: Bounds = Bounds { heartbeats: Some(1), ..Bounds::LEAST };
const SETTLED: Bounds = Bounds { settled: true, terms: 2, elections: 2, heartbeats: Some(0), ..LEAST };

/// Ways that are long, and of which little is out of the way.
const LONG: Bounds = Bounds { terms: 3, elections: 3, disturbances: Some(1), ..SETTLED };

/// Bounds in which it shows, the length of the way there, and what is said then.
const ROWS: &[(Mutant, Bounds, usize, &str)] = &[
    (Mutant::AckBeforeFlush, Bounds { crashes: 1, ..LEAST }, 7, "spoke of what is not on its disk"),
    (Mutant::VoteNotFlushed, Bounds { crashes: 1, ..LEAST }, 3, "spoke of what is not on its disk"),
    (Mutant::SecondVote, Bounds { crashes: 1, ..LEAST }, 3, "vote: Some(NodeId(1)) } to"),
    (Mutant::CommitOfOldTerm, Bounds { entries: 1, ..SETTLED }, 7, "of an older term by counting"),
    (Mutant::HeartbeatBeyondMatch, Bounds { terms: 2, elections: 2, ..LEAST }, 9, "counts on this node's entries"),
    (Mutant::ReadUnconfirmed, Bounds { reads: 1, ..SETTLED }, 8, "answers read"),
    (Mutant::ReadWithoutOwnEntry, Bounds { entries: 1, reads: 1, ..SETTLED }, 9, "answers read"),
    (
        Mutant::InstalledBeforeDurable,
        Bounds {
            terms: 1,
            elections: 1,
            entries: 1,
            compactions: 1,
            resends: 1,
            heartbeats: Some(1),
            slow_disks: true,
            ..SETTLED
        },
        13,
        "spoke of what is not on its disk",
    ),
    (Mutant::ReadConfirmedByOlderRound, Bounds { reads: 1, ..SETTLED }, 8, "answers read"),
    (Mutant::UpToDateByIndex, Bounds { entries: 1, crashes: 1, ..LONG }, 22, "without 2@2, which was committed before"),
    (
        Mutant::RemovedCounted,
        Bounds { learners: 1, changes: 1, disturbances: Some(2), ..LONG },
        11,
        "without 2@1, which was committed before",
    ),
    (Mutant::JointUsesOneHalf, Bounds { learners: 1, entries: 1, changes: 1, ..LONG }, 18, "both lead in term 2"),
];

#[test]
fn the_model_finds_bugs_of_the_core_by_the_shortest_way() {
    for (mutant, bounds, steps, words) in ROWS {
        let name = mutant.name();
        let (found, told) = mutant::with(*mutant, || {
            let found = breadth_first(bounds, 1_000_000);
            let told = found.wrong.as_ref().map(|(wrong, trace)| tell(bounds, wrong, trace));
            (found, told)
        });
        let told = told.unwrap_or_else(|| panic!("{name} is not found in {} states", found.states));
        let length = found.wrong.as_ref().map_or(0, |(_, trace)| trace.len());
        println!("{name}: {length} steps, {} states, {:.1} s\n{told}\n", found.states, found.seconds);
        assert!(told.lines().last().is_some_and(|last| last.contains(words)), "{name}: {told}");
        assert_eq!(length, *steps, "{name}: the shortest way\n{told}");
    }
}
