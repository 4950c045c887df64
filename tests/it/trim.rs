//! Records that were let go, over real processes: on every node, and after a restart of all.

use trilith::types::NodeId;

use crate::member_waits::told;
use crate::processes::{Trial, alone, trilith};

#[test]
fn what_is_trimmed_is_read_on_no_node_any_more() {
    let _alone = alone();
    let mut trial = Trial::start(3, None);
    let (client, admin) = (trial.cluster.client_file(), trial.cluster.admin_file());
    let records = trial.home.path().join("records");
    std::fs::write(&records, "one\ntwo\nthree\n").expect("the ground is ours");
    let appended = trilith(&client, &["log", "append", records.to_str().expect("UTF-8")]);
    told(&appended, 0, &[]);
    let indexes = String::from_utf8_lossy(&appended.stdout);
    let last: u64 = indexes.lines().last().and_then(|index| index.parse().ok()).expect("an index");
    let before: &str = &last.to_string();
    told(&trilith(&client, &["log", "trim", "--before", before]), 15, &["admin"]);
    let beyond: &str = &(last + 1_000_000).to_string();
    told(&trilith(&admin, &["log", "trim", "--before", beyond]), 2, &["beyond the end"]);
    let trimmed = trilith(&admin, &["log", "trim", "--before", before, "-o", "json"]);
    told(&trimmed, 0, &[]);
    let trimmed: serde_json::Value = serde_json::from_slice(&trimmed.stdout).expect("a document");
    assert_eq!(trimmed["before"], last);
    // A node that has applied the entry knows.
    let applied: &str = &format!("at-least={}", trimmed["entry"]);
    told(&trilith(&admin, &["log", "trim", "--before", before]), 0, &["was readable any more"]);
    let kept_alone = |words: &str| {
        for node in ["1", "2", "3"] {
            let read = |from| trilith(&client, &["log", "read", "--from", from, "--node", node, "--read", applied]);
            told(&read("1"), 1, &[&format!("records below {before} were trimmed"), words]);
            let kept = read(before);
            told(&kept, 0, &[]);
            let kept = String::from_utf8_lossy(&kept.stdout).into_owned();
            assert_eq!(kept, format!("{before}\tthree\n"), "node {node}");
        }
    };
    kept_alone("next");
    (1..=3).for_each(|node| trial.kill(NodeId(node)));
    trial.start_all();
    kept_alone("next");
}
