//! Whole clusters, by seed. A failure names the seed; `trilith sim --seed N` replays it.

use super::scenario::{MILLISECOND, SECOND};
use super::{Options, Report, Simulation};

fn run(seed: u64, options: &Options) -> Report {
    // A panic of a node must name the seed, too.
    let said = std::panic::catch_unwind(|| Simulation::run(seed, options));
    match said {
        Ok(Ok(report)) => report,
        Ok(Err(violation)) => panic!("{violation}"),
        Err(_) => panic!("seed {seed}: oracle K (no panics): see above"),
    }
}

/// Runs seeds, and adds up their reports.
fn run_all(seeds: impl Iterator<Item = u64>, options: impl Fn(u64) -> Options) -> (u64, Report) {
    let (mut runs, mut sum) = (0, Report::default());
    for seed in seeds {
        let report = run(seed, &options(seed));
        runs += 1;
        sum.crashes += report.crashes;
        sum.elections += report.elections;
        sum.acknowledged_records += report.acknowledged_records;
        sum.recoveries_repeated += report.recoveries_repeated;
        sum.resent += report.resent;
        sum.rotten += report.rotten;
        sum.log_reads += report.log_reads;
        sum.reads_checked += report.reads_checked;
    }
    (runs, sum)
}

#[test]
fn one_node_loses_its_power_a_thousand_times_and_nothing_acknowledged() {
    let options = |seed| Options::one_node_crashes(seed, 6 * SECOND, 60 * MILLISECOND);
    let mut crashes = 0;
    let mut seeds = 0..;
    let mut acknowledged = 0;
    while crashes < 1000 {
        let seed = seeds.next().expect("seeds do not run out");
        let report = run(seed, &options(seed));
        crashes += report.crashes;
        acknowledged += report.acknowledged_records;
    }
    assert!(crashes >= 1000 && acknowledged > 1000, "{crashes} crashes, {acknowledged} records");
}

#[test]
fn three_nodes_lose_nothing_acknowledged_in_two_hundred_seeds() {
    let (runs, sum) = run_all(0..200, |seed| Options::drawn_for(3, seed).shortened());
    assert_eq!(runs, 200);
    let busy = sum.crashes > 500 && sum.elections > 250 && sum.acknowledged_records > 6_000;
    assert!(busy && sum.recoveries_repeated > 50 && sum.log_reads > 0 && sum.reads_checked > 0, "{sum:?}");
    assert!(sum.resent > 1000 && sum.rotten > 0, "{sum:?}");
}

#[test]
fn five_nodes_lose_nothing_acknowledged() {
    let (runs, sum) = run_all(1000..1010, |seed| Options::drawn_for(5, seed).shortened());
    assert_eq!(runs, 10);
    assert!(sum.crashes > 30 && sum.acknowledged_records > 500, "{sum:?}");
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
    run(15, &Options::drawn_for(3, 15));
}

/// Named after the bug: an answer that waited for an earlier persist than the answer before it ended the process.
#[test]
fn answers_may_wait_for_an_earlier_persist_than_those_before_them() {
    run(46, &Options::drawn_for(3, 46));
}

/// Named after the bug: a directory that was just made stayed locked by the process that made it.
#[test]
fn a_node_starts_in_the_process_that_made_its_directory() {
    use super::node::{Node, driver_options, start};
    let trace = Default::default();
    let node = Node::new(0, 1, 1, &trace).expect("an empty disk can be formatted");
    let started = start(&node.disk, &driver_options(&Options::drawn_for(1, 1), 0, 1), 0);
    assert!(started.is_ok(), "{:?}", started.err());
}
