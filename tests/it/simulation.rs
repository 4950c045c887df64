//! The simulator from outside: what is not of the seed shows.

use std::collections::HashSet;

use trilith::checksum::Checksum;
use trilith::sim::{Options, Simulation};

/// What a hash map in deterministic code would do to a run: the order of simultaneous things would be that of the map,
/// which differs from one map to the next.
#[test]
fn an_order_that_is_a_hash_maps_shows_in_the_trace() {
    let salt_of_a_map = || {
        let order: Vec<u8> = (0..64).collect::<HashSet<u8>>().into_iter().collect();
        u64::from(Checksum::of(&order).0) + 1
    };
    let trace = |salt| {
        let options = Options { order_salt: salt, fault_time: 2_000_000, ..Options::drawn_for(3, 9) };
        Simulation::run(9, &options).expect("any order of arrivals is tolerated").trace_hash
    };
    let salts: Vec<u64> = (0..4).map(|_| salt_of_a_map()).collect();
    assert_eq!(trace(salts[0]), trace(salts[0]), "an order that is given is kept");
    let traces: HashSet<u64> = salts.iter().map(|salt| trace(*salt)).collect();
    assert!(traces.len() > 1, "orders {salts:?} are all the same run");
}
