//! How new an answer is, over real processes: what each mode shows, whom it asks, and what it does without a majority.

use std::path::Path;
use std::process::Command;

use trilith::types::NodeId;

use crate::processes::{PROGRAM, Trial, beside_few, trilith};

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("UTF-8")
}

/// What a command printed, without its last newline.
fn said(client: &Path, arguments: &[&str]) -> String {
    let output = trilith(client, arguments);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {output:?}");
    text(&output.stdout).trim_end().to_owned()
}

#[test]
fn each_mode_of_reading_shows_what_it_promises() {
    let _share = beside_few();
    let mut trial = Trial::start(3, None);
    let client = trial.cluster.client_file();
    // A session reads its own writes on any node, whichever of them is behind.
    for round in 0..10 {
        let value = round.to_string();
        let at_least = format!("at-least={}", said(&client, &["kv", "put", "colour", &value]));
        for node in ["1", "2", "3"] {
            let read = &["kv", "get", "colour", "--read", &at_least, "--node", node];
            assert_eq!(said(&client, read), value, "node {node}");
        }
        assert_eq!(said(&client, &["kv", "get", "colour", "--read", &at_least]), value);
        let linearizable = &["kv", "get", "colour", "--node", &(1 + round % 3).to_string()];
        assert_eq!(said(&client, linearizable), value, "a follower asks its leader");
    }
    let changed = said(&client, &["kv", "cas", "colour", "--expected", "9", "--new", "red"]);
    let deleted = said(&client, &["kv", "put", "shape", "round"]);
    assert!(changed.parse::<u64>().expect("an index") < deleted.parse::<u64>().expect("an index"));
    let at_least = format!("at-least={}", said(&client, &["kv", "delete", "shape"]));
    // Each is asked: who is left below has then applied it, and does not owe it to a leader that is gone.
    for node in ["1", "2", "3"] {
        let scanned = said(&client, &["kv", "scan", "--read", &at_least, "--node", node]);
        assert_eq!(scanned, "colour\tred", "node {node}");
    }

    // Without a majority nothing is linearizable, and everything else goes on.
    let leader = trial.leader();
    let left = NodeId(if leader == NodeId(3) { 2 } else { 3 });
    for node in (1..=3).map(NodeId).filter(|node| *node != left) {
        trial.kill(node);
    }
    let left = left.0.to_string();
    for stale in
        [&["kv", "get", "colour", "--read", "stale", "--node", &left][..], &["kv", "get", "colour", "--read", "stale"]]
    {
        assert_eq!(said(&client, stale), "red", "the nodes that do not answer are passed over");
    }
    assert_eq!(said(&client, &["kv", "get", "colour", "--read", &at_least]), "red");
    let records = said(&client, &["log", "read", "--from", "1", "--read", "stale", "--node", &left]);
    assert_eq!(records, "", "a map's commands are no records");
    let short = ["--timeout", "1"];
    for (arguments, next) in [
        (&["kv", "get", "colour"][..], "trilith cluster status"),
        (&["kv", "get", "colour", "--node", &left], "trilith cluster status"),
        (&["kv", "get", "colour", "--read", "at-least=1000000"], "which nodes have applied 1000000"),
    ] {
        let output = Command::new(PROGRAM).args(arguments).arg("--client").arg(&client).args(short).output();
        let output = output.expect("the binary runs");
        assert_eq!(output.status.code(), Some(16), "{arguments:?}: {output:?}");
        assert!(text(&output.stderr).contains(next), "{arguments:?}: {output:?}");
        assert!(output.stdout.is_empty(), "{arguments:?}: {output:?}");
    }
}

#[test]
fn reads_by_lease_are_refused_where_they_are_off_and_show_what_was_written_where_they_are_on() {
    let _share = beside_few();
    let mut trial = Trial::start(3, None);
    let client = trial.cluster.client_file();
    said(&client, &["kv", "put", "colour", "red"]);
    for refused in [&["kv", "get", "colour"][..], &["kv", "scan"], &["log", "read", "--from", "1"]] {
        let output = trilith(&client, &[refused, &["--read", "lease"]].concat());
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        let told = text(&output.stderr);
        assert!(told.contains("lease_drift_percent") && told.contains("--read linearizable"), "{told}");
    }
    for node in (1..=3).map(NodeId) {
        trial.kill(node);
        let file = trial.cluster.configuration_file(node);
        let configuration = std::fs::read_to_string(&file).expect("it was made");
        let on = configuration.replace("lease_drift_percent = 0", "lease_drift_percent = 5");
        assert_ne!(on, configuration, "the key is written out");
        std::fs::write(&file, on).expect("it can be written");
    }
    trial.start_all();
    for round in 0..20 {
        let value = round.to_string();
        said(&client, &["kv", "put", "colour", &value]);
        assert_eq!(said(&client, &["kv", "get", "colour", "--read", "lease"]), value);
    }
    assert_eq!(said(&client, &["kv", "scan", "--read", "lease"]), "colour\t19");
    said(&client, &["log", "read", "--from", "1", "--read", "lease"]);
    // Another leads: it is found, and knows what was written before.
    trial.kill(trial.leader());
    assert_eq!(said(&client, &["kv", "get", "colour", "--read", "lease"]), "19");
}
