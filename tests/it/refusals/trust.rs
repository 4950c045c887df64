//! Certificates that do not fit.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use trilith::net::certificate::{Authority, Validity};
use trilith::net::{NodeRole, Role, pem};
use trilith::types::{ClusterId, NodeId};

use super::{FIRST, append, give, node, refused};
use crate::processes::{PATIENCE, Trial, beside_few, status};

const LAST: NodeId = NodeId(3);
const DAY: Duration = Duration::from_secs(24 * 3600);

#[test]
fn a_client_whose_certificate_is_foreign_or_expired_is_refused() {
    let _share = beside_few();
    let trial = Trial::start(1, None);
    let client = trial.cluster.client_file();
    append(&client, b"one\n");
    let role = Role::Client("local".to_owned());
    issue(&foreign(&trial), &trial, &role, "client", Validity::days(1));
    refused(&give(&client, b"two\n"), 15, &["trust", "trilith cert show"]);
    issue(&own(&trial), &trial, &role, "client", expired());
    refused(&give(&client, b"two\n"), 15, &["trust", "trilith cert show"]);
    let another_clusters = Authority::create(ClusterId(7), Validity::days(1)).expect("an authority can be made");
    issue(&another_clusters, &trial, &role, "client", Validity::days(1));
    refused(&give(&client, b"two\n"), 15, &["belongs to cluster"]);
    issue(&own(&trial), &trial, &role, "client", Validity::days(1));
    append(&client, b"two\n");
    assert!(trial.log(FIRST).contains("handshake failed"), "{}", trial.log(FIRST));
}

#[test]
fn a_client_with_a_revocation_list_does_not_talk_to_a_node_on_it() {
    let _share = beside_few();
    let trial = Trial::start(1, None);
    let client = trial.cluster.client_file();
    append(&client, b"one\n");
    let home = trial.home.path();
    let certificate = std::fs::read_to_string(home.join("cluster/node-1.pem")).expect("it is there");
    let lists: [&[&str]; 2] = [&[], &[&certificate]];
    let text = std::fs::read_to_string(&client).expect("it is there");
    for (number, revoked) in (1..).zip(lists) {
        let list = own(&trial).revoke(revoked, number, Validity::days(1)).expect("a list can be made");
        std::fs::write(home.join("cluster/revoked.pem"), list).expect("it can be written");
        std::fs::write(&client, format!("crl = \"revoked.pem\"\n{text}")).expect("it can be written");
        match revoked.is_empty() {
            true => append(&client, b"two\n"),
            false => refused(&give(&client, b"three\n"), 15, &["trust"]),
        }
    }
}

#[test]
fn a_node_under_another_nodes_certificate_is_refused() {
    let _share = beside_few();
    let trial = Trial::prepare(2, None);
    issue(&own(&trial), &trial, &Role::Node(NodeId(2)), "node-1", Validity::days(1));
    refused(&node(&trial.cluster.configuration_file(FIRST), &[]), 15, &["is for node 2", "trilith cert node"]);
    issue(&own(&trial), &trial, &Role::Client("local".to_owned()), "node-1", Validity::days(1));
    refused(&node(&trial.cluster.configuration_file(FIRST), &[]), 15, &["client", "trilith cert"]);
}

#[test]
fn a_node_whose_certificate_is_foreign_or_expired_cannot_join_and_both_sides_say_so() {
    let _share = beside_few();
    // A cluster is born with all of its first members; from then on a majority serves.
    let mut trial = Trial::start(3, None);
    let client = trial.cluster.client_file();
    let known = trial.cluster.client().unwrap_or_else(|failure| panic!("{failure}"));
    append(&client, b"zero\n");
    trial.kill(LAST);
    issue(&foreign(&trial), &trial, &Role::Node(LAST), "node-3", Validity::days(1));
    trial.start_node(LAST);
    append(&client, b"one\n");
    logged(&trial, FIRST, "do not trust each other");
    logged(&trial, LAST, "handshake failed");
    trial.kill(LAST);
    issue(&own(&trial), &trial, &Role::Node(LAST), "node-3", expired());
    trial.start_node(LAST);
    append(&client, b"two\n");
    logged(&trial, FIRST, "xpired");
    trial.kill(LAST);
    // The same node with a good certificate does join.
    issue(&own(&trial), &trial, &Role::Node(LAST), "node-3", Validity::days(1));
    trial.start_node(LAST);
    let commit = status(&known, trial.leader()).expect("it answers").commit;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let last = status(&known, LAST);
        if last.as_ref().is_some_and(|last| last.applied >= commit && last.role == NodeRole::Follower) {
            break;
        }
        assert!(Instant::now() < deadline, "{last:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn logged(trial: &Trial, node: NodeId, words: &str) {
    let deadline = Instant::now() + PATIENCE;
    while !trial.log(node).contains(words) {
        assert!(Instant::now() < deadline, "node {node} does not say {words:?}: {}", trial.log(node));
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Another authority that claims to be this cluster's.
fn foreign(trial: &Trial) -> Authority {
    Authority::create(own(trial).cluster(), Validity::days(1)).expect("an authority can be made")
}

fn own(trial: &Trial) -> Authority {
    let read = |name: &str| std::fs::read_to_string(files(trial).join(name)).expect("it is there");
    Authority::from_pem(&read("ca.pem"), &read("ca.key")).expect("it is the cluster's")
}

/// Puts a certificate and its key where the files of `name` lie.
fn issue(authority: &Authority, trial: &Trial, role: &Role, name: &str, validity: Validity) {
    let issued = authority.issue(role, validity).expect("a certificate can be made");
    let path = |ending: &str| files(trial).join(format!("{name}.{ending}"));
    let (certificate, key) = (path("pem"), path("key"));
    for old in [&certificate, &key] {
        std::fs::remove_file(old).expect("it was there");
    }
    pem::write(&issued, &certificate, &key).expect("it can be written");
}

fn files(trial: &Trial) -> std::path::PathBuf {
    let client = trial.cluster.client_file();
    client.parent().map(Path::to_owned).expect("a file lies in a directory")
}

fn expired() -> Validity {
    let now = SystemTime::now();
    Validity { from: now - 10 * DAY, until: now - DAY }
}
