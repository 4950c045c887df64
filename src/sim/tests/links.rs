//! Links that are new with each start, as between real nodes: leaders ask again for what they were acknowledged.

use super::{assert_more, run_all};
use crate::sim::Options;

fn linked(seed: u64) -> Options {
    let options = Options::drawn_for(3, seed).with_links();
    match seed % 3 {
        0 => options.with_changes(seed),
        1 => options.with_purge(seed),
        _ => options,
    }
}

/// And nobody's voice is taken: each follower still holds what it is asked for.
#[test]
fn nodes_that_meet_anew_lose_nothing_acknowledged_in_ten_seeds() {
    let least = [("crashes", 50), ("elections", 50), ("acknowledged_records", 1000)];
    assert_more(&run_all(91_000..91_010, linked), &least);
}
