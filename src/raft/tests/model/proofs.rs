//! The rows of docs/testing.md: histories within bounds, all of them.

use crate::sim::proofs::{Proof, prove};

use super::Bounds;
use super::explore::{self, Found};

const LEAST: Bounds = Bounds::LEAST;
/// From a leader of term 1 on, with another election.
const SETTLED: Bounds = Bounds { settled: true, terms: 2, elections: 2, heartbeats: Some(0), ..LEAST };
const STATES_CI: usize = 8_000_000;
/// About 200 bytes each. `TRILITH_MODEL_STATES` says another number.
const STATES_FULL: usize = 40_000_000;

/// A row's bounds: what `cargo test` does, what CI does besides, and what the full run does besides.
type Row = [&'static [Bounds]; 3];

const ELECTIONS_AND_LOGS: Row = [
    &[Bounds { entries: 1, heartbeats: Some(1), ..LEAST }],
    &[
        Bounds { elections: 3, ..LEAST },
        Bounds { terms: 2, elections: 2, heartbeats: Some(0), ..LEAST },
        Bounds { entries: 1, ..LEAST },
    ],
    &[
        Bounds { terms: 2, elections: 2, heartbeats: Some(1), ..LEAST },
        Bounds { entries: 3, ..LEAST },
        Bounds { entries: 1, ..SETTLED },
        Bounds { terms: 2, elections: 2, entries: 1, heartbeats: Some(0), ..LEAST },
        Bounds { terms: 3, elections: 3, ..SETTLED },
        Bounds { terms: 3, elections: 3, entries: 1, ..SETTLED },
        Bounds { duplicates: 1, ..SETTLED },
        Bounds { resends: 1, step_downs: 1, heartbeats: Some(1), ..SETTLED },
    ],
];

const CRASHES: Row = [
    &[Bounds { elections: 1, crashes: 1, heartbeats: Some(0), ..LEAST }],
    &[],
    &[
        Bounds { elections: 1, crashes: 1, entries: 1, heartbeats: Some(0), ..LEAST },
        Bounds { crashes: 1, ..SETTLED },
        Bounds { crashes: 1, entries: 1, ..SETTLED },
        Bounds { elections: 1, crashes: 2, heartbeats: Some(0), ..LEAST },
        Bounds { crashes: 2, ..SETTLED },
        Bounds { terms: 3, elections: 3, crashes: 2, entries: 3, ..SETTLED },
    ],
];

const MEMBERS: Row = [
    &[Bounds { voters: 2, learners: 1, changes: 1, ..SETTLED }],
    &[],
    &[
        Bounds { voters: 2, learners: 1, changes: 1, heartbeats: Some(1), ..SETTLED },
        Bounds { voters: 2, learners: 1, changes: 1, entries: 1, heartbeats: Some(1), ..SETTLED },
        Bounds { voters: 2, learners: 1, changes: 1, crashes: 1, heartbeats: Some(1), ..SETTLED },
        Bounds { changes: 1, heartbeats: Some(1), ..SETTLED },
        Bounds { changes: 1, crashes: 1, heartbeats: Some(1), ..SETTLED },
    ],
];

const READS: Row = [
    &[Bounds { terms: 1, elections: 1, reads: 2, ..SETTLED }],
    &[Bounds { reads: 1, ..SETTLED }],
    &[
        Bounds { reads: 1, heartbeats: Some(1), ..SETTLED },
        Bounds { reads: 1, entries: 1, heartbeats: Some(1), ..SETTLED },
        Bounds { reads: 1, crashes: 1, heartbeats: Some(1), ..SETTLED },
    ],
];

const PRE_VOTE_AND_TRANSFER: Row = [
    &[Bounds { pre_vote: true, heartbeats: Some(0), ..LEAST }],
    &[Bounds { pre_vote: true, elections: 2, heartbeats: Some(0), ..LEAST }],
    &[Bounds { pre_vote: true, elections: 3, ..SETTLED }, Bounds { transfers: 1, ..SETTLED }],
];

/// Without an overdue answer, or another leader, nobody would notice that it lacks what the log has no more.
const COMPACTED: Bounds = Bounds { compactions: 1, resends: 1, heartbeats: Some(1), entries: 1, ..SETTLED };

const SNAPSHOTS: Row = [
    &[Bounds { terms: 1, elections: 1, ..COMPACTED }],
    &[],
    &[
        Bounds { resends: 0, heartbeats: Some(0), ..COMPACTED },
        Bounds { terms: 1, elections: 1, entries: 2, heartbeats: Some(2), ..COMPACTED },
        COMPACTED,
        Bounds { crashes: 1, ..COMPACTED },
    ],
];

/// What the other rows look at by itself, together.
const TOGETHER: Row = [
    &[Bounds { terms: 1, elections: 1, entries: 1, crashes: 1, compactions: 1, ..SETTLED }],
    &[Bounds { terms: 1, elections: 1, crashes: 1, ..COMPACTED }],
    &[
        Bounds { entries: 1, crashes: 1, ..SETTLED },
        Bounds { voters: 2, learners: 1, entries: 1, changes: 1, ..SETTLED },
        Bounds { voters: 2, learners: 1, entries: 1, crashes: 1, changes: 1, ..SETTLED },
        Bounds { entries: 1, changes: 1, ..SETTLED },
        Bounds { entries: 1, crashes: 1, compactions: 1, ..SETTLED },
        Bounds { entries: 1, crashes: 1, changes: 1, ..SETTLED },
        Bounds { entries: 1, crashes: 1, changes: 1, compactions: 1, ..SETTLED },
        Bounds { entries: 2, crashes: 1, changes: 1, compactions: 1, ..SETTLED },
        Bounds { terms: 3, elections: 3, entries: 3, crashes: 2, changes: 1, compactions: 1, ..SETTLED },
    ],
];

/// All bounds of the whole, where nothing disturbs what goes on.
const WHOLE: Bounds =
    Bounds { terms: 3, elections: 3, entries: 3, crashes: 2, changes: 1, disturbances: Some(0), ..SETTLED };

const UNDISTURBED: Row = [
    &[Bounds { changes: 0, ..WHOLE }],
    &[Bounds { voters: 2, learners: 1, ..WHOLE }],
    &[
        WHOLE,
        Bounds { heartbeats: Some(1), ..WHOLE },
        Bounds { compactions: 1, ..WHOLE },
        Bounds { voters: 3, learners: 1, ..WHOLE },
        Bounds { changes: 0, disturbances: Some(1), ..WHOLE },
        Bounds { disturbances: Some(1), ..WHOLE },
        Bounds { voters: 2, learners: 1, disturbances: Some(1), ..WHOLE },
        Bounds { changes: 0, disturbances: Some(2), ..WHOLE },
    ],
];

/// Looks at all histories of a row, as far as there is room; says of each bounds what it did, and whether that was all.
/// Everything that `cargo test` and CI look at is looked at to the end.
fn run(row: &str, bounds: &Row, proof: &Proof) {
    let count = proof.pick(1, 2, 3) as usize;
    let only = std::env::var("TRILITH_MODEL_ONLY").ok().map(|number| number.parse::<usize>().expect("a number"));
    let states_max =
        std::env::var("TRILITH_MODEL_STATES").map_or(STATES_FULL, |count| count.parse().expect("a number"));
    for (number, (scale, bounds)) in
        (1..).zip((1..).zip(&bounds[..count]).flat_map(|(n, all)| all.iter().map(move |b| (n, b))))
    {
        if only.is_some_and(|only| only != number) {
            continue;
        }
        let found = match scale {
            1 | 2 => explore::breadth_first(bounds, STATES_CI),
            _ => explore::depth_first(bounds, states_max, std::thread::available_parallelism().map_or(1, usize::from)),
        };
        tell(row, number, &found, bounds);
        assert!(found.complete || scale == 3, "{row}.{number} is looked at to the end");
        (0..found.states).for_each(|_| proof.case());
    }
}

fn tell(row: &str, number: usize, found: &Found, bounds: &Bounds) {
    let Found { states, transitions, depth, seconds, complete, .. } = found;
    let end = if *complete { "all" } else { "NOT ALL: there was no room for more" };
    println!("{row}.{number} states={states} transitions={transitions} depth={depth} seconds={seconds:.1} {end}");
    if let Some((wrong, trace)) = &found.wrong {
        panic!("{row}.{number} {bounds:?}\n{}", explore::tell(bounds, wrong, trace));
    }
}

#[test]
fn m1_elections_and_logs() {
    prove("M1", |proof| run("M1", &ELECTIONS_AND_LOGS, proof), [2_580, 11_600, 11_600]);
}

#[test]
fn m2_crashes() {
    prove("M2", |proof| run("M2", &CRASHES, proof), [2_600; 3]);
}

#[test]
fn m3_members() {
    prove("M3", |proof| run("M3", &MEMBERS, proof), [7_000; 3]);
}

#[test]
fn m4_reads() {
    prove("M4", |proof| run("M4", &READS, proof), [940, 7_900, 7_900]);
}

#[test]
fn m6_snapshots() {
    prove("M6", |proof| run("M6", &SNAPSHOTS, proof), [600; 3]);
}

#[test]
fn m7_together() {
    prove("M7", |proof| run("M7", &TOGETHER, proof), [900, 18_000, 18_000]);
}

#[test]
fn m8_undisturbed() {
    prove("M8", |proof| run("M8", &UNDISTURBED, proof), [97_900, 757_000, 757_000]);
}

#[test]
fn m5_pre_vote_and_transfer() {
    prove("M5", |proof| run("M5", &PRE_VOTE_AND_TRANSFER, proof), [330, 5_000, 5_000]);
}
