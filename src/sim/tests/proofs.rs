//! D13 of docs/testing.md: flushes that take long.

use super::super::scenario::{MILLISECOND, SECOND};
use super::super::{Faults, Options};
use super::run;
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

const NOTHING: Faults = Faults {
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
};

/// Three nodes: all disks take up to so long, or now one and now another does; and while that is so nodes lose their
/// power, or nothing else happens. Each time the cluster must come to rest and have lost nothing.
fn slow(flush_time: u64, case: u64) {
    let mut options = Options::drawn_for(3, 13_000 + case);
    options.fault_time = 6 * SECOND + 2 * flush_time;
    options.changes = None;
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
