//! Nodes whose logs are purged, and who come back through each other's snapshots.

use std::collections::BTreeMap;
use std::sync::Mutex;

use super::{assert_more, run_all};
use crate::sim::proofs::{Proof, prove};
use crate::sim::{Doing, Options, Simulation};

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

/// All that was seen of steps, over many runs.
fn crashes_at(proof: &Proof, wanted: u64, runs_max: u64) -> BTreeMap<String, [u64; 3]> {
    let all = Mutex::new(BTreeMap::<String, [u64; 3]>::new());
    proof.spread(Doing::ALL.len() as u64, |at| {
        let doing = Doing::ALL[at as usize];
        let prefix = format!("{doing:?}: ").to_lowercase();
        for run in 0..runs_max {
            let seed = 74_000 + 10_000 * at + run;
            let said = Simulation::run_aimed(seed, &purging(seed), doing);
            let (_, steps) = said.unwrap_or_else(|violation| panic!("{doing:?}: {violation}"));
            let mut all = all.lock().unwrap();
            for (name, [seen, cuts, kills]) in steps.counts {
                let counts = all.entry(name).or_default();
                counts.iter_mut().zip([seen, cuts, kills]).for_each(|(count, more)| *count += more);
                (0..cuts + kills).for_each(|_| proof.case());
            }
            let mut own = all.iter().filter(|(name, _)| name.starts_with(&prefix)).peekable();
            if own.peek().is_some() && own.all(|(_, [_, cuts, kills])| cuts + kills >= wanted) && run > runs_max / 10 {
                break;
            }
        }
    });
    all.into_inner().unwrap()
}

#[test]
fn c7_nodes_end_at_each_step_of_a_snapshots_way() {
    prove(
        "C7",
        |proof| {
            let wanted = proof.pick(1, 10, 100);
            let hits = crashes_at(proof, wanted, proof.pick(4, 60, 2000));
            for (name, [seen, cuts, kills]) in &hits {
                println!("{name:<40} seen={seen:<6} cuts={cuts:<4} kills={kills}");
            }
        },
        [20, 300, 3000],
    );
}
