//! The disks against each other.

use std::collections::BTreeMap;

use super::*;
use crate::sim::fuzz::{Simulated, operations};

/// uring = blocking = simulated, to the last byte and the last error: so many operations on each of them.
fn all_say_the_same(seeds: std::ops::Range<u64>) -> usize {
    let mut said = BTreeMap::<String, usize>::new();
    let mut count = 0;
    for seed in seeds {
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
        count += simulated.len();
        for line in simulated {
            *said.entry(line.split(' ').next_back().unwrap_or_default().to_owned()).or_default() += 1;
        }
    }
    let fine = said.iter().filter(|(last, _)| last.contains("fine")).map(|(_, count)| count).sum::<usize>();
    assert!(fine > count / 2, "most of it must do something: {said:?}");
    count
}

#[test]
fn all_disks_are_one() {
    let count = all_say_the_same(0..6);
    assert!(count >= 10_000, "{count}");
}

#[test]
#[ignore = "a minute: a hundred thousand operations"]
fn all_disks_are_one_in_a_hundred_thousand_operations() {
    let count = all_say_the_same(100..160);
    assert!(count >= 100_000, "{count}");
}
