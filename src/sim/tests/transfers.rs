//! Nodes whose logs are purged, and who come back through each other's snapshots.

mod proofs;

use super::{assert_more, run_all};
use crate::mutant::{self, Mutant};
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

/// So much is purged and fetched, and so little else goes wrong, that each step comes often. Clients are patient: with others
/// two seeds in full do not come to rest (docs/testing.md, C7).
fn aimed(seed: u64) -> Options {
    let mut options = purging(seed);
    let purge = options.purge.as_mut().expect("it purges");
    (purge.tail_bytes, purge.trim_interval, purge.absence) = (0, 200 * MILLISECOND, 16);
    (purge.snapshot_entries, purge.value_bytes_max) = (5 + seed % 20, 4000);
    options.impatience = None;
    options.fault_time = 12 * SECOND;
    options.fault_interval = options.fault_interval.min(300 * MILLISECOND);
    options
}

/// The bugs of what is fetched, installed and purged: who finds them, and by what it says. Where snapshots rot often few are
/// fetched, and where they rot seldom nobody misses an older one.
#[test]
fn each_deliberate_bug_of_transfers_and_purges_is_found() {
    let bugs = [
        (Mutant::ChunkUnverified, 2, None, Oracle::Recovery, "has received it whole, and"),
        (Mutant::ResumedUnverified, 2, Some(Doing::Receiving), Oracle::Recovery, "has received it whole, and"),
        (Mutant::ReceivedBeforeFlush, 2, Some(Doing::Installing), Oracle::Recovery, "is not the one that was written"),
        (Mutant::PurgedThoughReadable, 2, None, Oracle::Acknowledged, "a log begins at"),
        (Mutant::PurgedToNewestSnapshot, 8, None, Oracle::Recovery, "no snapshot can be used to begin from there"),
    ];
    for (bug, snapshot_rot, doing, oracle, says) in bugs {
        let run = |seed| {
            let mut options = aimed(seed);
            options.purge.as_mut().expect("it purges").snapshot_rot = snapshot_rot;
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
