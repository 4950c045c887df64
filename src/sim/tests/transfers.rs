//! Nodes whose logs are purged, and who come back through each other's snapshots.

use super::{assert_more, run_all};
use crate::sim::Options;

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
