//! The disks against each other.

use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::disk::seam::short_reads;
use crate::sim::fuzz::{Simulated, operations};
use crate::sim::proofs::Proof;

/// More than the requests of one seed.
const FAULTS: usize = 10_000;

/// What is nobody's business: writes that end too early, and answers that come late.
fn faults(count: usize, random: &mut Random) -> Vec<Fault> {
    let one = |random: &mut Random| match random.below(12) {
        0 => Fault::Short(BLOCK_BYTES * random.between(1, 3) as usize),
        1 => Fault::Short(512),
        2 => Fault::Late(random.below(30) as u32),
        3 if random.below(10) == 0 => Fault::Slow(Duration::from_micros(random.below(300))),
        _ => Fault::None,
    };
    (0..count).map(|_| one(random)).collect()
}

/// What the operations say on a real disk, whose reads end too early now and then.
fn said_by(rig: &mut impl Rig, (seed, input): (u64, &[u8])) -> Vec<String> {
    match seed % 4 {
        0 => operations(&mut contract::Compared(rig), input),
        _ => short_reads::with(Random::seeded(seed), || operations(&mut contract::Compared(rig), input)),
    }
}

/// ring = thread = memory, to the last byte and the last error: some 1,800 operations from each seed, on each of them.
/// Without a ring it is thread = memory.
pub(super) fn all_say_the_same(proof: &Proof) {
    let fine = AtomicU64::new(0);
    proof.spread(proof.pick(6, 53, 600), |seed| {
        let mut input = vec![0; 8_000];
        Random::seeded(seed).fill(&mut input);
        let simulated = operations(&mut Simulated::new(), &input);
        let compare = |real: Vec<String>, name: &str| {
            for (simulated, real) in simulated.iter().zip(&real) {
                assert_eq!(simulated, real, "simulated against {name}, seed {seed}");
            }
            assert_eq!(simulated.len(), real.len());
        };
        // One seed in four meets no fault.
        let faults = |way: u64| faults(if seed % 4 == 0 { 0 } else { FAULTS }, &mut Random::seeded(seed << 8 | way));
        let seam = Seam::with(faults(1));
        let mut rig = BlockingRig::with(SyncMode::Fdatasync, true, seam, DISK_OPERATION_AGE_MAX);
        compare(said_by(&mut rig, (seed, &input)), "blocking");
        // Both ways to flush through the ring, in turn.
        let mode = if seed % 2 == 0 { SyncMode::Dsync } else { SyncMode::Fdatasync };
        if let Some(mut rig) = UringRig::with(mode, true, Seam::with(faults(2)), DISK_OPERATION_AGE_MAX) {
            compare(said_by(&mut rig, (seed, &input)), "uring");
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
