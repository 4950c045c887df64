//! Nodes whose logs are purged, and who come back through each other's snapshots.

use std::collections::BTreeMap;
use std::sync::Mutex;

use super::{assert_more, run_all};
use crate::mutant::{self, Mutant};
use crate::sim::proofs::{Proof, prove};
use crate::sim::scenario::{MILLISECOND, SECOND};
use crate::sim::{Doing, Options, Oracle, Simulation};

fn purging(seed: u64) -> Options {
    let options = Options::drawn_for(3, seed).with_purge(seed);
    if seed.is_multiple_of(4) { options.with_changes(seed) } else { options }
}

#[test]
fn nodes_that_were_away_come_back_through_snapshots_of_others_in_forty_seeds() {
    let least = [
        ("trims", 100),
        ("purges", 100),
        ("fetches", 20),
        ("snapshots_installed", 10),
        ("chunks_received", 20),
        ("acknowledged_records", 1000),
    ];
    assert_more(&run_all(71_000..71_040, purging), &least);
}

/// So much is purged and fetched, and so little else goes wrong, that each step comes often.
fn aimed(seed: u64) -> Options {
    let mut options = purging(seed);
    let purge = options.purge.as_mut().expect("it purges");
    (purge.tail_bytes, purge.trim_interval, purge.absence) = (0, 200 * MILLISECOND, 16);
    (purge.snapshot_entries, purge.value_bytes_max) = (5 + seed % 20, 4000);
    options.fault_time = 12 * SECOND;
    options.fault_interval = options.fault_interval.min(300 * MILLISECOND);
    options
}

/// What is done to a disk, in the order in which it is. Some of it comes where an earlier attempt was cut short.
const STEPS: &[(Doing, &[&str])] = &[
    (
        Doing::Making,
        &[
            "create a directory",
            "create chunks",
            "write chunks",
            "flush chunks",
            "create manifest",
            "write manifest",
            "flush manifest",
            "flush names of a directory",
            "rename a directory",
            "flush names of the root",
            "remove chunks",
            "remove a directory",
        ],
    ),
    (Doing::Sending, &["read manifest", "read chunks"]),
    (
        Doing::Receiving,
        &[
            "create a directory",
            "create manifest",
            "write manifest",
            "flush manifest",
            "create chunks",
            "zero chunks",
            "flush chunks",
            "flush names of a directory",
            "write chunks",
            "rename a directory",
            "flush names of the root",
            "remove manifest",
            "remove a directory",
        ],
    ),
    (Doing::Loading, &["read manifest", "read chunks"]),
    (Doing::Installing, &["submit to the superblock", "submit to a segment"]),
    (
        Doing::Purging,
        &[
            "submit to a segment",
            "rename a segment",
            "flush names of the log",
            "zero a segment",
            "write a segment",
            "flush a segment",
        ],
    ),
    (
        Doing::Removing,
        &[
            "rename a directory",
            "flush names of the root",
            "remove chunks",
            "remove manifest",
            "flush names of a directory",
            "remove a directory",
        ],
    ),
];

type Counts = BTreeMap<String, [u64; 3]>;

/// Runs until nodes have ended so often at each step of this.
fn end_at_each(doing: Doing, wanted: u64, runs_max: u64) -> Counts {
    let steps = STEPS.iter().find(|(of, _)| *of == doing).expect("each has its steps").1;
    let steps: Vec<String> = steps.iter().map(|step| format!("{doing:?}: {step}").to_lowercase()).collect();
    let mut all = Counts::new();
    for seed in (0..runs_max).map(|run| 74_000 + 10_000 * doing as u64 + run) {
        let said = Simulation::run_aimed(seed, &aimed(seed), doing);
        let (_, found) = said.unwrap_or_else(|violation| panic!("{doing:?}: {violation}"));
        for (name, counts) in found.counts {
            let sums = all.entry(name).or_default();
            sums.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
        }
        let is_often = |step: &String| all.get(step).is_some_and(|[_, cuts, kills]| cuts + kills >= wanted);
        if steps.iter().all(is_often) {
            return all;
        }
    }
    let lacks: Vec<_> = steps.iter().map(|step| (step, all.get(step))).collect();
    panic!("{runs_max} runs, and nodes have not ended {wanted} times at each of {lacks:?}");
}

/// In the share for what is short alone.
#[test]
fn c7_nodes_end_at_each_step_of_a_snapshots_way() {
    let run = |proof: &Proof| {
        let all = Mutex::new(Counts::new());
        let (wanted, runs_max) = (proof.pick(1, 10, 100), proof.pick(40, 400, 4000));
        proof.spread(STEPS.len() as u64, |at| {
            let counts = end_at_each(STEPS[at as usize].0, wanted, runs_max);
            (0..counts.values().map(|[_, cuts, kills]| cuts + kills).sum()).for_each(|_| proof.case());
            all.lock().unwrap().extend(counts);
        });
        for (name, [seen, cuts, kills]) in all.into_inner().unwrap() {
            println!("{name:<40} seen={seen:<7} cuts={cuts:<5} kills={kills}");
        }
    };
    prove("C7", run, [43, 430, 4300]);
}

/// The bugs of what is fetched, installed and purged: who finds them, and by what it says.
#[test]
fn each_deliberate_bug_of_transfers_and_purges_is_found() {
    let bugs = [
        (Mutant::ChunkUnverified, None, Oracle::Recovery, "has received it whole, and"),
        (Mutant::ResumedUnverified, Some(Doing::Receiving), Oracle::Recovery, "has received it whole, and"),
        (
            Mutant::ReceivedBeforeFlush,
            Some(Doing::Installing),
            Oracle::Recovery,
            "is not the one that was written there",
        ),
        (Mutant::PurgedThoughReadable, None, Oracle::Acknowledged, "a log begins at"),
        (Mutant::PurgedToNewestSnapshot, None, Oracle::Recovery, "no snapshot can be used to begin from there"),
        (Mutant::StateBeforeLog, None, Oracle::Agreement, "others are"),
        (Mutant::TrimMovesBack, None, Oracle::Acknowledged, "trim"),
    ];
    for (bug, doing, oracle, says) in bugs {
        let run = |seed| {
            let options = rotting(seed);
            match doing {
                Some(doing) => Simulation::run_aimed(seed, &options, doing).err(),
                None => Simulation::run(seed, &options).err(),
            }
        };
        let first = 73_000;
        let found = mutant::with(bug, || (first..first + 60).find_map(run));
        let violation = found.unwrap_or_else(|| panic!("nobody noticed {}", bug.name()));
        println!("{}, after {} seeds: {violation}", bug.name(), violation.seed - first + 1);
        assert!(violation.oracle == oracle && violation.explanation.contains(says), "{}: {violation}", bug.name());
    }
}

/// Chunks rot, also on their way.
fn rotting(seed: u64) -> Options {
    let mut options = aimed(seed);
    options.purge.as_mut().expect("it purges").snapshot_rot = 2;
    options
}
