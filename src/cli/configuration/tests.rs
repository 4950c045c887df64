use std::path::Path;
use std::time::Duration;

use crate::cli::exit::{Exit, Failure};
use crate::node::driver::{FollowerTail, RetentionRule};
use crate::types::{ClusterId, NodeId};

use super::*;

const NODE: &str = r#"
node_id = 2
data_directory = "data"
listen = "0.0.0.0:7400"
advertise = "10.0.0.2:7400"
certificate = "tls/node.pem"
key = "tls/node.key"
ca = "/etc/trilith/ca.pem"

[[member]]
id = 1
address = "10.0.0.1:7400"

[[member]]
id = 2
address = "10.0.0.2:7400"
"#;

const CLIENT: &str = r#"
cluster = "000102030405060708090a0b0c0d0e0f"
certificate = "client.pem"
key = "client.key"
ca = "ca.pem"

[[node]]
id = 1
address = "[::1]:7400"
"#;

fn node(text: &str) -> Result<NodeConfiguration, Error> {
    NodeConfiguration::parse(Path::new("etc/node.toml"), text, &[])
}

fn client(text: &str) -> Result<ClientConfiguration, Error> {
    ClientConfiguration::parse(Path::new("etc/client.toml"), text)
}

/// The file with one key set, or replaced, before the lists begin.
fn with(text: &str, key: &str, line: &str) -> String {
    let kept: Vec<&str> = text.lines().filter(|line| !line.starts_with(&format!("{key} = "))).collect();
    format!("{line}\n{}\n", kept.join("\n"))
}

/// That the message and the next step say these things.
#[track_caller]
fn says<T: std::fmt::Debug>(result: Result<T, Error>, words: &[&str]) {
    let failure = Failure::from(result.unwrap_err());
    assert_eq!(failure.exit, Exit::Usage);
    let text = failure.to_string();
    for word in words {
        assert!(text.contains(word), "no {word:?} in: {text}");
    }
    assert!(!failure.next_step.is_empty());
}

#[test]
fn what_is_kept_of_the_log_is_two_segments_at_least() {
    let with = |line: &str| node(&format!("{line}\n{NODE}"));
    let read = with("retention_bytes = 134217728\nretention_minutes = 30").unwrap();
    assert_eq!(
        read.retention,
        RetentionRule { bytes: Some(128 << 20), milliseconds: Some(30 * 60_000), ..Default::default() }
    );
    assert_eq!(with("retention_bytes = 0\nretention_minutes = 0").unwrap().retention, RetentionRule::default());
    says(
        with("retention_bytes = 134217727"),
        &["retention_bytes = 134217727", "two segments, 134217728", "node.toml:1:"],
    );
    let tail = with("follower_tail_bytes = 0\nfollower_tail_minutes = 3").unwrap().follower_tail;
    assert_eq!(tail, FollowerTail { bytes: 0, milliseconds: 3 * 60_000 });
    says(with("follower_tail_minutes = 52704001"), &["follower_tail_minutes = 52704001", "52704000", "node.toml:1:"]);
    says(with("follower_tail_bytes = 1152921504606846977"), &["follower_tail_bytes", "up to 1152921504606846976"]);
    assert_eq!(with("retention = \"all\"").unwrap().retention, RetentionRule::default());
    let alone = with("retention = \"snapshot\"").unwrap();
    assert_eq!(alone.retention, RetentionRule { is_for_map_alone: true, ..RetentionRule::default() });
    assert!(alone.render().contains("retention = \"snapshot\""));
    says(with("retention = \"none\""), &["retention = \"none\"", "\"all\" or \"snapshot\"", "node.toml:1:"]);
    for bound in ["retention_bytes = 134217728", "retention_minutes = 30"] {
        let both = with(&format!("retention = \"snapshot\"\n{bound}"));
        says(both, &["retention = \"snapshot\"", "without `retention_bytes` and `retention_minutes`", "node.toml:1:"]);
    }
    says(with("retention_minutes = 52704001"), &["retention_minutes = 52704001", "52704000", "node.toml:1:"]);
    let always = node(NODE).unwrap().fingerprint();
    assert_eq!(read.fingerprint(), always, "it may be changed node by node: who leads goes by its own");
}

#[test]
fn a_node_is_read_with_its_defaults() {
    let read = node(NODE).unwrap();
    assert_eq!(read.node_id, NodeId(2));
    assert_eq!(read.data_directory, Path::new("etc/data"));
    assert_eq!(read.tls.certificate, Path::new("etc/tls/node.pem"));
    assert_eq!(read.tls.ca, Path::new("/etc/trilith/ca.pem"));
    assert_eq!(read.tls.crl, None);
    assert_eq!(read.listen.to_string(), "0.0.0.0:7400");
    assert_eq!(read.advertise.to_string(), "10.0.0.2:7400");
    assert_eq!(read.members.len(), 2);
    assert_eq!(read.io, IoChoice::Auto);
    assert_eq!(read.segment_bytes, 64 << 20);
    assert_eq!(read.uncommitted_bytes_max, 64 << 20);
    assert_eq!(read.retention, RetentionRule::default(), "all of the log is kept");
    assert_eq!(read.follower_tail, FollowerTail { bytes: 256 << 20, milliseconds: 600_000 });
    assert_eq!(read.heartbeat, Duration::from_millis(50));
    assert_eq!((read.election_min, read.election_max), (Duration::from_millis(300), Duration::from_millis(600)));
}

#[test]
fn what_is_rendered_reads_back() {
    let mut settings = (*node(NODE).unwrap()).clone();
    settings.io = IoChoice::Blocking;
    settings.segment_bytes = 1 << 20;
    settings.uncommitted_bytes_max = 1 << 24;
    settings.lease_drift_percent = 5;
    settings.retention = RetentionRule { bytes: Some(5 << 30), milliseconds: Some(90 * 60_000), ..Default::default() };
    settings.follower_tail = FollowerTail { bytes: 7 << 20, milliseconds: 60_000 };
    settings.heartbeat = Duration::from_millis(20);
    settings.tls.crl = Some("/etc/with \"quotes\" and \\/crl.pem".into());
    settings.data_directory = "/var/lib/trilith".into();
    settings.tls.certificate = "/c".into();
    settings.tls.key = "/k".into();
    let written = NodeConfiguration::checked(settings).unwrap();
    assert_eq!(node(&written.render()).unwrap(), written);

    let mut settings = (*client(CLIENT).unwrap()).clone();
    settings.certificate = "/c".into();
    settings.key = "/k".into();
    settings.ca = "/a".into();
    settings.crl = Some("/revoked \"list\"".into());
    let written = ClientConfiguration::checked(settings).unwrap();
    assert_eq!(client(&written.render()).unwrap(), written);
}

#[test]
fn flags_go_over_the_environment_over_the_file_over_the_default() {
    let path = Path::new("etc/node.toml");
    let file = with(NODE, "segment_bytes", "segment_bytes = 131072");
    let variables = [("TRILITH_SEGMENT_BYTES", "262144"), ("TRILITH_DATA_DIRECTORY", "here"), ("HOME", "x")];
    let mut over = environment(variables.into_iter().map(|(name, text)| (name.to_string(), text.to_string()))).unwrap();
    assert_eq!(over.len(), 2);
    assert_eq!(NodeConfiguration::parse(path, &file, &[]).unwrap().segment_bytes, 131072);
    let read = NodeConfiguration::parse(path, &file, &over).unwrap();
    assert_eq!(read.segment_bytes, 262144);
    assert_eq!(read.data_directory, Path::new("here"), "relative to the working directory, not to the file");
    over.push(Override::flag("segment_bytes", "524288"));
    assert_eq!(NodeConfiguration::parse(path, &file, &over).unwrap().segment_bytes, 524288);
    over.push(Override::flag("segment_bytes", "many"));
    says(NodeConfiguration::parse(path, &file, &over), &["flag --segment-bytes", "\"many\"", "whole number"]);
    says(
        NodeConfiguration::parse(path, &file, &[Override::flag("segment_bytes", "5")]),
        &["flag --segment-bytes", "segment_bytes = 5", "multiple of 4096"],
    );
}

#[test]
fn a_slip_in_a_variable_is_refused_and_a_strange_one_is_not_ours() {
    let one = |name: &str| environment([(name.to_string(), "1".to_string())].into_iter());
    says(one("TRILITH_LISTEM"), &["variable TRILITH_LISTEM", "unknown key", "did you mean `TRILITH_LISTEN`"]);
    says(one("TRILITH_DATA"), &["did you mean `TRILITH_DATA_DIRECTORY`"]);
    assert_eq!(one("TRILITH_CLIENT").unwrap(), []);
    assert_eq!(one("TRILITH_LOG").unwrap(), []);
    assert_eq!(one("TRILITH_SKIPS_FILE").unwrap(), []);
}

#[test]
fn an_unknown_key_is_refused_with_the_nearest() {
    says(node(&NODE.replace("data_directory", "data_dir")), &["etc/node.toml:3:", "`data_dir`", "`data_directory`"]);
    says(node(&with(NODE, "x", "hartbeat_milliseconds = 50")), &["etc/node.toml:1:", "`heartbeat_milliseconds`"]);
    says(node(&NODE.replace("address =", "adress =")), &["etc/node.toml:12:", "`adress`", "`address`"]);
    says(node(&NODE.replace("[[member]]", "[[members]]")), &["`members`", "`member`"]);
    says(client(&CLIENT.replace("cluster", "claster")), &["etc/client.toml:2:", "`cluster`"]);
    says(client(&CLIENT.replace("[[node]]", "[[nodes]]")), &["`node`"]);
}

#[test]
fn what_is_no_toml_is_named_with_its_line() {
    says(node("node_id = 1\nlisten = \n"), &["etc/node.toml:2:", "mend the line"]);
    says(node("node_id = 1\nnode_id = 2\n"), &["etc/node.toml:2:"]);
    says(node("node_id = 1.5\n"), &["etc/node.toml:1:", "`node_id` is a number, true or false, or text"]);
    says(node("member = 3\n"), &["etc/node.toml:1:", "[[member]]"]);
    says(node("member = [3]\n"), &["etc/node.toml:1:", "[[member]]"]);
}

#[test]
fn a_missing_key_is_named_with_what_it_is() {
    for key in ["node_id", "data_directory", "listen", "certificate", "key", "ca"] {
        says(node(&with(NODE, key, "")), &["etc/node.toml", &format!("the key `{key}` is missing"), "add"]);
    }
    says(node(&NODE.replace("id = 1\n", "")), &["`member.id` is missing", "[[member]]"]);
    says(node(&NODE.replace("address = \"10.0.0.1:7400\"", "")), &["`member.address` is missing"]);
    for key in ["cluster", "certificate", "key", "ca"] {
        says(client(&with(CLIENT, key, "")), &[&format!("the key `{key}` is missing")]);
    }
    says(client(&CLIENT.replace("id = 1\n", "")), &["`node.id` is missing"]);
}

#[test]
fn a_value_out_of_range_is_refused_with_the_range() {
    let lines: &[(&str, &str, &str)] = &[
        ("segment_bytes", "65535", "a multiple of 4096 from 65536 to 1073741824"),
        ("segment_bytes", "61440", "a multiple of 4096"),
        ("segment_bytes", "1073745920", "a multiple of 4096"),
        ("segment_bytes", "-4096", "a whole number"),
        ("segment_bytes", "\"1 MiB\"", "a whole number"),
        ("heartbeat_milliseconds", "0", "a multiple of 10 from 10 to 60000"),
        ("heartbeat_milliseconds", "55", "a multiple of 10"),
        ("heartbeat_milliseconds", "160", "from twice the heartbeat, 320,"),
        ("election_milliseconds_min", "90", "from twice the heartbeat, 100,"),
        ("election_milliseconds_min", "600", "over election_milliseconds_min, 600,"),
        ("election_milliseconds_max", "300", "over election_milliseconds_min, 300,"),
        ("election_milliseconds_max", "60010", "at most 60000"),
        ("node_id", "0", "from 1 to"),
        ("node_id", "18446744073709551615", "from 1 to"),
        ("node_id", "3", "the id of one [[member]]"),
        ("listen", "\"10.0.0.2\"", "an IP address with a port"),
        ("listen", "\"localhost:7400\"", "an IP address with a port"),
        ("listen", "\"0.0.0.0:0\"", "a port other than 0"),
        ("advertise", "\"0.0.0.0:7400\"", "that others can reach"),
        ("advertise", "\"10.0.0.3:7400\"", "what this node advertises, 10.0.0.3:7400"),
        ("io", "\"fast\"", "\"auto\", \"uring\" or \"blocking\""),
        ("io", "1", "text in quotes"),
        ("data_directory", "\"\"", "text in quotes, not empty"),
    ];
    for (key, value, allowed) in lines {
        let text = with(NODE, key, &format!("{key} = {value}"));
        says(node(&text), &["etc/node.toml:", " = ", "it must be", allowed, "next: "]);
    }
    // The line is that of the key that is refused.
    says(node(&with(NODE, "segment_bytes", "\n\nsegment_bytes = 1")), &["etc/node.toml:3: segment_bytes = 1 "]);
    says(
        node(&NODE.replace("listen = \"0.0.0.0:7400\"", "listen = \"7400\"")),
        &["etc/node.toml:4: listen = \"7400\""],
    );
}

#[test]
fn members_are_told_apart() {
    says(node(&NODE.replace("id = 1\n", "id = 2\n")), &["etc/node.toml:12: member[0].address", "advertises"]);
    let twice = format!("{NODE}\n[[member]]\nid = 1\naddress = \"10.0.0.9:7400\"\n");
    says(node(&twice), &["etc/node.toml:19: member[2].id = 1", "no other member's"]);
    let same = format!("{NODE}\n[[member]]\nid = 3\naddress = \"10.0.0.1:7400\"\n");
    says(node(&same), &["etc/node.toml:20: member[2].address = 10.0.0.1:7400", "no other member's"]);
    says(node(&NODE.replace("10.0.0.1:7400", "10.0.0.1:0")), &["member[0].address", "others can reach"]);
    let none = NODE.split("[[member]]").next().unwrap();
    assert!(node(none).unwrap().members.is_empty(), "it joins a cluster");
    let many: String = (10..26).map(|id| format!("[[member]]\nid = {id}\naddress = \"10.0.0.{id}:1\"\n")).collect();
    says(node(&format!("{none}{many}")), &["member = 16 members", "at most 15"]);
}

#[test]
fn clients_are_checked_too() {
    let read = client(CLIENT).unwrap();
    assert_eq!(read.cluster, ClusterId(0x000102030405060708090a0b0c0d0e0f));
    assert_eq!((read.ca.as_path(), &read.crl), (Path::new("etc/ca.pem"), &None));
    let careful = client(&CLIENT.replace("[[node]]", "crl = \"revoked.pem\"\n[[node]]")).unwrap();
    assert_eq!(careful.crl.as_deref(), Some(Path::new("etc/revoked.pem")));
    says(client(&CLIENT.replace("[[node]]", "crl = \"\"\n[[node]]")), &["crl"]);
    assert!(!read.forward, "only if it is asked for");
    let passing = client(&with(CLIENT, "forward", "forward = true")).unwrap();
    assert!(passing.forward && client(&passing.render()).unwrap().forward);
    assert!(!client(&with(CLIENT, "forward", "forward = false")).unwrap().forward);
    for wrong in ["forward = 1", "forward = \"yes\""] {
        says(client(&with(CLIENT, "forward", wrong)), &["forward", "true or false"]);
    }
    says(client(&with(CLIENT, "forward", "forwards = true")), &["`forward`"]);
    says(client(&CLIENT.replace("0001", "01")), &["etc/client.toml:2: cluster", "32 hexadecimal digits"]);
    says(client(&CLIENT.replace("0001", "zz01")), &["32 hexadecimal digits"]);
    says(client(&CLIENT.replace("id = 1", "id = 0")), &["node = 0 at [::1]:7400", "reachable"]);
    says(client(&CLIENT.replace("[::1]:7400", "[::]:7400")), &["reachable"]);
    says(client(&format!("{CLIENT}[[node]]\nid = 1\naddress = \"10.0.0.1:1\"\n")), &["no other's"]);
    says(client(CLIENT.split("[[node]]").next().unwrap()), &["node = 0 nodes"]);
}

#[test]
fn an_unreadable_file_is_named() {
    says(NodeConfiguration::load(Path::new("no/such/node.toml"), &[]), &["no/such/node.toml", "exists"]);
}

#[test]
fn the_fingerprint_is_of_what_must_agree() {
    let print = |text: &str| node(text).unwrap().fingerprint();
    let first = print(NODE);
    assert_eq!(first, 0xc890_b9ed_5cad_8958, "pinned: nodes of different builds compare it");
    for (key, line) in [
        ("data_directory", "data_directory = \"elsewhere\""),
        // Both hold the largest record that a client may append.
        ("segment_bytes", "segment_bytes = 4194304"),
        ("io", "io = \"blocking\""),
        ("listen", "listen = \"10.0.0.2:7401\""),
    ] {
        assert_eq!(print(&with(NODE, key, line)), first, "{line}");
    }
    let other_node = with(&with(NODE, "node_id", "node_id = 1"), "advertise", "advertise = \"10.0.0.1:7400\"");
    assert_eq!(print(&other_node), first, "every node of a cluster has the same");
    let order = NODE.replace("id = 2\naddress = \"10.0.0.2", "id = 7\naddress = \"10.0.0.7");
    let order = order.replace("id = 1\naddress = \"10.0.0.1", "id = 2\naddress = \"10.0.0.2");
    let order = order.replace("id = 7\naddress = \"10.0.0.7", "id = 1\naddress = \"10.0.0.1");
    assert_eq!(print(&order), first, "the order of members does not count");
    let differing = [
        "heartbeat_milliseconds = 60",
        "election_milliseconds_min = 310",
        "election_milliseconds_max = 610",
        // A leader with large segments would take records that this one cannot hold.
        "segment_bytes = 65536",
        "segment_bytes = 1048576",
    ];
    for line in differing {
        let key = line.split(' ').next().unwrap();
        assert_ne!(print(&with(NODE, key, line)), first, "{line}");
    }
    assert_ne!(print(&NODE.replace("10.0.0.1:7400", "10.0.0.1:7401")), first);
    assert_ne!(print(&NODE.replace("id = 1\n", "id = 3\n")), first);
}
