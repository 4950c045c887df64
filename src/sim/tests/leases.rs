//! Leaders that are cut off or stand still while they hold a lease.

use super::proofs::NOTHING;
use super::run;
use crate::mutant::{self, Mutant};
use crate::sim::scenario::{MILLISECOND, SECOND};
use crate::sim::{Faults, NetworkOptions, Options, Oracle, Simulation};

/// Nothing goes wrong but what makes two nodes believe that they lead: and that often.
fn two_leaders(seed: u64) -> Options {
    let mut options = Options::drawn_for(3, seed).with_leases().with_all_sessions();
    options.faults = Faults { kill: 2, pause: 4, partition: 2, isolation: 4, transfer: 2, ..NOTHING };
    options.fault_interval = 150 * MILLISECOND;
    options.fault_time = 12 * SECOND;
    options.network = NetworkOptions { loss_per_mille: 0, duplication_per_mille: 0, delay_max: 5 * MILLISECOND };
    options.batch_time_max = 1;
    (options.changes, options.impatience) = (None, None);
    options
}

/// The first seed from 61000 on in which the oracle notices; without the bug it is content with the same seed.
#[test]
fn a_lease_that_does_not_end_is_noticed() {
    let seed = 61_015;
    let found = mutant::with(Mutant::LeaseOutlived, || Simulation::run(seed, &two_leaders(seed)));
    let violation = found.expect_err("nobody noticed");
    println!("lease_outlived: {violation}");
    assert!(violation.oracle == Oracle::Acknowledged && violation.explanation.contains("holds a lease"), "{violation}");
    assert!(run(seed, &two_leaders(seed)).elections > 5);
}
