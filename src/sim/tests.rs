//! Whole clusters, by seed.

use super::{Options, Report, Simulation, Violation};

fn run(seed: u64, options: &Options) -> Report {
    Simulation::run(seed, options).unwrap_or_else(|violation: Violation| panic!("{violation}"))
}

#[test]
fn three_nodes_elect_and_commit() {
    let report = run(1, &Options::drawn_for(3, 1));
    assert!(report.elections > 0 && report.acknowledged_records > 0, "{report:?}");
}
