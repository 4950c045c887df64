//! The disks against each other.

use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::sim::fuzz::{Simulated, operations};
use crate::sim::proofs::Proof;

/// ring = thread = memory, to the last byte and the last error: some 1,800 operations from each seed, on each of them.
/// Without a ring it is thread = memory.
pub(super) fn all_say_the_same(proof: &Proof) {
    let fine = AtomicU64::new(0);
    proof.spread(proof.pick(6, 60, 600), |seed| {
        let mut input = vec![0; 8_000];
        Random::seeded(seed).fill(&mut input);
        let simulated = operations(&mut Simulated::new(), &input);
        let compare = |real: Vec<String>, name: &str| {
            for (simulated, real) in simulated.iter().zip(&real) {
                assert_eq!(simulated, real, "simulated against {name}, seed {seed}");
            }
            assert_eq!(simulated.len(), real.len());
        };
        let mut rig = blocking(SyncMode::Fdatasync, true).expect("it always works");
        compare(operations(&mut contract::Compared(&mut rig), &input), "blocking");
        if let Some(mut rig) = uring(SyncMode::Dsync, true) {
            compare(operations(&mut contract::Compared(&mut rig), &input), "uring");
        }
        for line in simulated {
            let is_fine = line.split(' ').next_back().is_some_and(|last| last.contains("fine"));
            fine.fetch_add(u64::from(is_fine), Ordering::Relaxed);
            proof.case();
        }
    });
    let fine = fine.into_inner();
    assert!(fine > proof.cases() / 2, "most of it must do something: {fine} of {}", proof.cases());
}
