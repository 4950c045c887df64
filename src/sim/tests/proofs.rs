//! D13 of docs/testing.md: flushes that take long.

use super::super::scenario::{MILLISECOND, SECOND, Stall};
use super::super::{Faults, NetworkOptions, Options};
use super::run;
use crate::mutant::{self, Mutant};
use crate::sim::proofs::{Proof, prove};

const FLUSH_TIMES: [u64; 9] = [
    MILLISECOND,
    3 * MILLISECOND,
    10 * MILLISECOND,
    30 * MILLISECOND,
    100 * MILLISECOND,
    300 * MILLISECOND,
    SECOND,
    3 * SECOND,
    10 * SECOND,
];

pub(super) const NOTHING: Faults = Faults {
    crash: 0,
    cut: 0,
    kill: 0,
    blackout: 0,
    ambush: 0,
    pause: 0,
    partition: 0,
    isolation: 0,
    slow_disk: 0,
    write_error: 0,
    rot: 0,
    full_disk: 0,
    full_disks: 0,
    transfer: 0,
    snapshot_rot: 0,
    absence: 0,
};

/// Three nodes: all disks take up to so long, or now one and now another does; and while that is so nodes lose their
/// power, or nothing else happens. Each time the cluster must come to rest and have lost nothing.
fn slow(flush_time: u64, case: u64) {
    let mut options = Options::drawn_for(3, 13_000 + case);
    options.fault_time = 6 * SECOND + 10 * flush_time;
    (options.changes, options.purge, options.impatience) = (None, None, None);
    let (is_each, is_cut) = (case.is_multiple_of(2), (case / 2).is_multiple_of(2));
    match is_each {
        true => options.disk.write_time_max = flush_time,
        false => options.disk.slow_time_max = flush_time,
    }
    options.faults = Faults { slow_disk: 4, crash: 2 * u64::from(is_cut), ..NOTHING };
    let report = run(13_000 + case, &options);
    let is_busy = report.acknowledged_records > 0 && report.writes > 20;
    assert!(is_busy && report.simulated_milliseconds >= 6_000, "{flush_time} us, case {case}: {report:?}");
}

#[test]
fn d13_flushes_of_a_millisecond_to_ten_seconds() {
    let scenarios = |proof: &Proof| {
        let each = proof.pick(2, 4, 40);
        proof.spread(each * FLUSH_TIMES.len() as u64, |at| {
            slow(FLUSH_TIMES[(at / each) as usize], at % each);
            proof.case();
        });
    };
    prove("D13", scenarios, [18, 36, 360]);
}

/// Seed 13,000 with logs that are purged: a start that was cut short wrote over the pair of the superblock that alone held a
/// term, of which nobody had heard.
#[test]
fn a_term_that_was_never_spoken_may_go_with_a_start_that_is_cut_short() {
    let repeated: u64 = FLUSH_TIMES
        .iter()
        .map(|flush_time| {
            let mut options = Options::drawn_for(3, 13_000);
            options.fault_time = 6 * SECOND + 10 * flush_time;
            (options.changes, options.disk.write_time_max) = (None, *flush_time);
            options.faults = Faults { slow_disk: 4, crash: 2, ..NOTHING };
            run(13_000, &options).recoveries_repeated
        })
        .sum();
    assert!(repeated > 5, "{repeated}");
}

/// Nothing goes wrong; a flush takes 20 us, a message always as long.
fn quiet(seed: u64, time: u64) -> Options {
    let mut options = Options::drawn_for(3, seed).with_all_sessions();
    (options.changes, options.purge, options.impatience) = (None, None, None);
    options.faults = Faults { transfer: 1, ..NOTHING };
    (options.fault_time, options.fault_interval) = (time, 1000 * SECOND);
    options.network = NetworkOptions { loss_per_mille: 0, duplication_per_mille: 0, delay_max: 1 };
    (options.disk.write_time_max, options.batch_time_max) = (1, 1);
    (options.clients.window, options.clients.forward_per_mille) = (4, 0);
    (options.writes_in_flight, options.limits) = (4, crate::sim::replicas::limits_default());
    options
}

/// One disk of three takes up to 100 ms: half of the commands, and 99 of a hundred, are answered as soon as without it,
/// whether its node leads or not. (One follower is left to wait for, and not the faster of two: the slowest answers may
/// meet one more flush of it.)
#[test]
fn the_slow_disk_of_one_node_slows_no_commit() {
    let seed = 13_500;
    let mut options = quiet(seed, 5 * SECOND);
    let (half, most) = run(seed, &options).answer_times;
    let is_as_soon =
        |(slow_half, slow_most): (u64, u64)| slow_half * 10 <= half * 11 && slow_most * 10 <= (most + 2 * 20) * 11;
    options.disk.slow_time_max = 100 * MILLISECOND;
    for slow in 0..3 {
        options.disk.slow_node = Some(slow);
        let report = run(seed, &options);
        let (times, count) = (report.answer_times, report.acknowledged_records);
        println!("disk {slow}: {times:?} us, without {:?} us ({count} records)", (half, most));
        assert!(count > 500 && is_as_soon(times), "{report:?}");
    }
    let by_all = mutant::with(Mutant::CommitByAll, || run(seed, &options)).answer_times;
    println!("commit_by_all: {by_all:?} us");
    assert!(!is_as_soon(by_all));
}

/// Three nodes on one disk, which stands still for 0.3 to 3 s out of 5: nobody is better, and leadership stays where it is.
/// That takes the rule that who is asked to lead holds more: without it they pass it round.
#[test]
fn three_nodes_on_one_stalled_disk_do_not_pass_leadership_round() {
    let seed = 13_600;
    let mut options = quiet(seed, 30 * SECOND);
    for time in [300 * MILLISECOND, SECOND, 3 * SECOND] {
        options.disk.stall = Some(Stall { interval: 5 * SECOND, time });
        let report = run(seed, &options);
        let to_any = mutant::with(Mutant::StallHandsToAny, || run(seed, &options));
        let (elections, records) = (report.elections, report.acknowledged_records);
        println!(
            "stalls of {time} us: {elections} elections, {records} records; stall_hands_to_any: {}",
            to_any.elections
        );
        assert!(elections <= 2 && records > 1_000, "{report:?}");
        assert!(to_any.elections > 3, "{to_any:?}");
    }
}
