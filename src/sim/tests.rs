//! Whole clusters, by seed. A failure names the seed; `trilith sim --seed N` replays it.

mod leases;
mod links;
mod numbers;
mod proofs;
mod sessions;
mod transfers;

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use super::oracles::Oracle;
use super::scenario::{MILLISECOND, SECOND};
use super::{Options, Report, Simulation};
use crate::mutant::{self, Mutant};

fn run(seed: u64, options: &Options) -> Report {
    // A panic of a node must name the seed, too.
    let said = std::panic::catch_unwind(|| Simulation::run(seed, options));
    match said {
        Ok(Ok(report)) => report,
        Ok(Err(violation)) => panic!("{violation}"),
        Err(_) => panic!("seed {seed}: oracle K (no panics): see above"),
    }
}

/// Runs seeds, a few on each core; gives their reports in the order of the seeds. Each is a simulation of its own, in
/// one thread.
fn run_all(seeds: Range<u64>, options: impl Fn(u64) -> Options + Sync) -> Vec<Report> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let next = AtomicU64::new(seeds.start);
    let work = || {
        let mut reports = Vec::new();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return reports;
            }
            reports.push(run(seed, &options(seed)));
        }
    };
    let mut reports: Vec<Report> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("a seed failed: see above")).collect()
    });
    reports.sort_by_key(|report| report.seed);
    assert!(reports.iter().map(|report| report.seed).eq(seeds), "each seed has its report");
    reports
}

fn sum(reports: &[Report], count: impl Fn(&Report) -> u64) -> u64 {
    reports.iter().map(count).sum()
}

/// What happened at all, in words, for a test whose world was too kind.
fn show(reports: &[Report]) -> String {
    let mut lines = vec![format!("{} seeds", reports.len())];
    for (at, (name, _)) in Report::default().counts().iter().enumerate() {
        lines.push(format!("{name} {}", sum(reports, |report| report.counts()[at].1)));
    }
    lines.join(", ")
}

/// Each of these has happened more often than the figure beside it.
fn assert_more(reports: &[Report], least: &[(&str, u64)]) {
    println!("{}", show(reports));
    let counts = Report::default().counts();
    for (name, least) in least {
        let at = counts.iter().position(|(known, _)| known == name).expect("it is one of the counts");
        let found = sum(reports, |report| report.counts()[at].1);
        assert!(found > *least, "{name}: {found}, and more than {least} were wanted: {}", show(reports));
    }
}

#[test]
fn one_node_loses_its_power_a_thousand_times_and_nothing_acknowledged() {
    let reports = run_all(0..2400, |seed| Options::one_node_crashes(seed, 6 * SECOND, 60 * MILLISECOND));
    assert_more(
        &reports,
        &[("crashes", 999), ("acknowledged_records", 1000), ("full_disks", 0), ("records_tailed", 0)],
    );
    // What a recovery adds finds the spare segment, which clients leave alone; where they do not, 201 starts find none.
    assert_eq!(sum(&reports, |report| report.starts_refused), 0, "{}", show(&reports));
}

#[test]
fn three_nodes_lose_nothing_acknowledged_in_two_hundred_seeds() {
    let least = [
        ("crashes", 1000),
        ("elections", 1000),
        ("acknowledged_records", 20_000),
        ("recoveries_repeated", 50),
        ("log_reads", 0),
        ("reads_checked", 0),
        ("resent", 1000),
        ("rotten", 0),
        ("full_disks", 0),
        ("preparations_refused", 0),
        ("refused_no_space", 0),
        ("transfers", 0),
        ("records_tailed", 0),
        ("forwarded", 1000),
        ("refused_busy", 10_000),
        ("numbers_given_again", 20_000),
    ];
    assert_more(&run_all(0..200, |seed| Options::drawn_for(3, seed)), &least);
}

#[test]
fn five_nodes_lose_nothing_acknowledged() {
    let reports = run_all(1000..1010, |seed| Options::drawn_for(5, seed));
    assert_more(
        &reports,
        &[("crashes", 30), ("acknowledged_records", 500), ("full_disks", 0), ("transfers", 0), ("records_tailed", 0)],
    );
}

/// An operator grows, shrinks and replaces, while all else goes wrong; some of the cluster's reads are by lease.
#[test]
fn members_change_and_nothing_acknowledged_is_lost_in_twenty_seeds() {
    let options = |seed: u64| {
        let options = Options::drawn_for([1, 3, 3, 3][(seed % 4) as usize], seed).with_changes(seed);
        if seed.is_multiple_of(5) { options.with_leases() } else { options }
    };
    let least = [
        ("crashes", 50),
        ("acknowledged_records", 1_000),
        ("reads_checked", 100),
        ("records_tailed", 1_000),
        ("changes_asked", 100),
        ("changes_answered", 50),
        ("members_added", 20),
        ("members_removed", 20),
        ("leaders_removed", 3),
        ("lives_begun", 20),
        ("removed_ended", 3),
    ];
    assert_more(&run_all(50_041..50_061, options), &least);
}

/// Clocks that differ, transfers, pauses, partitions: a read by lease shows all that was done before it.
#[test]
fn reads_by_lease_are_as_new_as_linearizable_ones_in_thirty_seeds() {
    let options = |seed| Options::drawn_for(3, seed).with_leases();
    assert_more(&run_all(31_000..31_030, options), &[("reads_checked", 300), ("transfers", 0), ("elections", 100)]);
}

/// Snapshots every few entries, while the power goes, disks are full, and what is written rots: nodes that begin from one
/// show what those show that have applied everything.
fn with_snapshots(seed: u64) -> Options {
    let mut options = Options::drawn_for(3, seed);
    options.purge = None;
    options.snapshots.entries = [3, 10, 40][(seed % 3) as usize];
    options.faults.snapshot_rot = 2 * (seed % 2);
    options
}

#[test]
fn nodes_that_begin_from_snapshots_show_what_the_others_show_in_thirty_seeds() {
    let least = [
        ("snapshots_made", 500),
        ("snapshots_loaded", 100),
        ("snapshots_rotten", 10),
        ("crashes", 100),
        ("acknowledged_records", 1000),
    ];
    assert_more(&run_all(61_000..61_030, with_snapshots), &least);
}

#[test]
fn the_bugs_of_snapshots_are_found_by_seeds() {
    for (mutant, oracle, says) in [
        (Mutant::SnapshotWithoutSessions, Oracle::Agreement, "others are"),
        (Mutant::SnapshotDamagedIsEmpty, Oracle::Agreement, "others are"),
        (Mutant::SnapshotNamedBeforeDurable, Oracle::Recovery, "which the superblock names, is not there"),
        (Mutant::SnapshotManifestBeforeChunks, Oracle::Recovery, "is damaged"),
    ] {
        let found = mutant::with(mutant, || {
            (61_000..61_040).find_map(|seed| Simulation::run(seed, &with_snapshots(seed | 1)).err())
        });
        let violation = found.unwrap_or_else(|| panic!("{}: nobody noticed", mutant.name()));
        println!("{}: {violation}", mutant.name());
        assert!(violation.oracle == oracle && violation.explanation.contains(says), "{}: {violation}", mutant.name());
    }
}

fn passing_on(seed: u64) -> Options {
    let mut options = Options::drawn_for(3, seed);
    options.clients.forward_per_mille = if seed.is_multiple_of(2) { 1000 } else { 500 };
    options
}

/// Copies of one command come by the client and by two followers, late and in any order, and leaders change.
#[test]
fn what_followers_pass_on_is_in_the_log_once_in_thirty_seeds() {
    let least = [("forwarded", 1000), ("acknowledged_records", 3000), ("elections", 50), ("resent", 500)];
    assert_more(&run_all(41_000..41_030, passing_on), &least);
}

#[test]
fn a_refusal_of_what_was_passed_on_and_may_be_in_the_log_is_found() {
    let found = mutant::with(Mutant::ForwardRefused, || {
        let mut seeds = 41_000..41_020;
        seeds.find_map(|seed| Simulation::run(seed, &passing_on(seed)).err())
    });
    let violation = found.expect("nobody noticed");
    println!("forward_refused: {violation}");
    let says = "was refused, and is committed at";
    assert!(violation.oracle == Oracle::Acknowledged && violation.explanation.contains(says), "{violation}");
}

#[test]
fn the_same_seed_gives_the_same_trace_and_another_seed_another() {
    let mut options = Options::drawn_for(3, 7);
    options.fault_time = 75 * SECOND;
    let (first, second) = (run(7, &options), run(7, &options));
    assert_eq!(first, second);
    assert!(first.events >= 100_000, "{first:?}");
    assert_ne!(first.trace_hash, run(8, &options).trace_hash);
}

/// Named after the bug: what was replaced in memory and not yet on the disk was read from there, and applied.
#[test]
fn entries_that_were_replaced_are_not_applied_from_the_disk() {
    run(15, &Options::drawn_for(3, 15).without_additions());
}

/// Named after the bug: an answer that waited for an earlier persist than the answer before it ended the process.
#[test]
fn answers_may_wait_for_an_earlier_persist_than_those_before_them() {
    run(46, &Options::drawn_for(3, 46).without_additions());
}

/// Named after the bug: a directory that was just made stayed locked by the process that made it.
#[test]
fn a_node_starts_in_the_process_that_made_its_directory() {
    use super::node::{Node, driver_options, membership, start};
    let trace = Default::default();
    let node = Node::new(0, membership(1, false), 1, &trace).expect("an empty disk can be formatted");
    let started = start(&node.disk, &driver_options(&Options::drawn_for(1, 1), 0, 1), 0);
    assert!(started.is_ok(), "{:?}", started.err());
}
