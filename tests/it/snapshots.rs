//! Snapshots of processes: ordered, equal on all nodes, interrupted by SIGKILL, damaged on the disk.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use bytes::Bytes;
use trilith::client::{Client, ClientOptions};
use trilith::net::{Consistency, Identity, NodeStatus};
use trilith::types::NodeId;

use crate::processes::{PATIENCE, PROGRAM, Trial, alone, block_on, status};

const VALUE_BYTES: usize = 500 << 10;

#[test]
fn all_nodes_make_the_same_snapshot_when_one_is_ordered_and_begin_from_it() {
    let _alone = alone();
    let mut trial = Trial::start(3, None);
    put(&trial, 0..4);
    let shown = ordered(&trial, &["-o", "json"]);
    let told: serde_json::Value = serde_json::from_str(&text(&shown.stdout)).expect("it is JSON");
    let index = told["index"].as_u64().expect("a number");
    assert!(told["bytes"].as_u64().expect("a number") > 4 * VALUE_BYTES as u64, "{told}");
    assert!(told["core_microseconds"].as_u64().expect("a number") > 0, "{told}");
    let nodes: Vec<NodeId> = trial.cluster.nodes().collect();
    nodes.iter().for_each(|node| until(&trial, *node, |status| last(status) == index));
    let contents: Vec<BTreeMap<String, Vec<u8>>> = nodes.iter().map(|node| contents(&trial, *node)).collect();
    assert!(contents[0].len() == 2 && contents.iter().all(|other| *other == contents[0]), "equal byte for byte");
    assert!(table(&trial).contains(&format!("has a snapshot at {index}@")), "{}", table(&trial));
    put(&trial, 4..6);
    trial.cluster.kill_all().unwrap_or_else(|failure| panic!("{failure}"));
    trial.start_all();
    nodes.iter().for_each(|node| until(&trial, *node, |status| last(status) == index));
    check(&trial, 6);
    trial.cluster.stop_all(PATIENCE).unwrap_or_else(|failure| panic!("{failure}"));
}

#[test]
fn a_node_that_is_killed_while_it_writes_or_finds_damage_uses_what_is_whole() {
    let _alone = alone();
    let node = NodeId(1);
    let mut trial = Trial::prepare(1, None);
    configure(&trial, 1 << 20);
    trial.start_all();
    put(&trial, 0..12);
    let order = command(&trial, &["snapshot"]).spawn().expect("the binary runs");
    until(&trial, node, |status| status.snapshots.making.is_some_and(|making| making.bytes > 0));
    trial.kill(node);
    let mut order = order;
    order.kill().expect("it is ours");
    order.wait().expect("it has ended");
    assert!(names(&trial, node).iter().all(|name| name.ends_with(".making")), "{:?}", names(&trial, node));
    configure(&trial, 1 << 30);
    trial.start_node(node);
    check(&trial, 12);
    assert_eq!(names(&trial, node), [""; 0], "what was not finished is removed");
    ordered(&trial, &[]);
    let older = last(&view(&trial, node));
    put(&trial, 12..14);
    ordered(&trial, &[]);
    let newer = last(&view(&trial, node));
    put(&trial, 14..15);
    trial.kill(node);
    trial.start_node(node);
    assert_eq!((last(&view(&trial, node)), newer > older), (newer, true));
    check(&trial, 15);
    trial.kill(node);
    let chunks = directory(&trial, node).join(names(&trial, node).pop().expect("there are two")).join("chunks");
    let mut bytes = fs::read(&chunks).expect("it is there");
    bytes[1000] ^= 1;
    fs::write(&chunks, bytes).expect("it can be written");
    trial.start_node(node);
    let status = view(&trial, node);
    assert_eq!(last(&status), older);
    assert!(status.snapshots.failure.contains("is damaged: chunk 0"), "{}", status.snapshots.failure);
    assert!(trial.log(node).contains("is damaged: chunk 0"), "{}", trial.log(node));
    check(&trial, 15);
    trial.cluster.stop_all(PATIENCE).unwrap_or_else(|failure| panic!("{failure}"));
}

/// What a start finds rotten comes back from another node: all of it, though the start stops at the first.
#[test]
fn what_a_start_finds_rotten_is_mended_from_another_node() {
    let _alone = alone();
    let node = NodeId(2);
    let mut trial = Trial::start(3, None);
    put(&trial, 0..8);
    ordered(&trial, &[]);
    let index = last(&view(&trial, trial.leader()));
    let nodes: Vec<NodeId> = trial.cluster.nodes().collect();
    nodes.iter().for_each(|node| until(&trial, *node, |status| last(status) == index));
    trial.kill(node);
    let chunks = directory(&trial, node).join(names(&trial, node).pop().expect("there is one")).join("chunks");
    let right = fs::read(&chunks).expect("it is there");
    let mut bytes = right.clone();
    assert!(bytes.len() > 3 << 20);
    (bytes[1000], bytes[(2 << 20) + 7]) = (!right[1000], !right[(2 << 20) + 7]);
    fs::write(&chunks, bytes).expect("it can be written");
    trial.start_node(node);
    let deadline = Instant::now() + PATIENCE;
    while fs::read(&chunks).expect("it is there") != right {
        assert!(Instant::now() < deadline, "it stays rotten: {}", trial.log(node));
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(trial.log(node).contains("is damaged: chunk 0"), "{}", trial.log(node));
    // Nobody is told any more of what is right again.
    until(&trial, node, |status| status.snapshots.failure.is_empty());
    assert!(trial.log(node).contains("is whole again"), "{}", trial.log(node));
    trial.cluster.stop_all(PATIENCE).unwrap_or_else(|failure| panic!("{failure}"));
}

/// How fast snapshots are written.
fn configure(trial: &Trial, bytes_per_second: u64) {
    let file = trial.cluster.configuration_file(NodeId(1));
    let text = fs::read_to_string(&file).expect("it was made");
    let set = format!("snapshot_bytes_per_second = {bytes_per_second}\n");
    let kept = text.lines().filter(|line| !line.starts_with("snapshot_bytes_per_second"));
    fs::write(&file, kept.fold(set, |text, line| text + line + "\n")).expect("it can be written");
}

fn directory(trial: &Trial, node: NodeId) -> PathBuf {
    trial.cluster.data_directory(node)
}

/// Of snapshots, whole or not.
pub fn names(trial: &Trial, node: NodeId) -> Vec<String> {
    let entries = fs::read_dir(directory(trial, node)).expect("it is there");
    let names = entries.map(|entry| entry.expect("it can be listed").file_name().into_string().expect("it is ours"));
    let mut names: Vec<String> = names.filter(|name| name.starts_with("snapshot-")).collect();
    names.sort();
    names
}

/// What all files of a node's snapshots hold.
fn contents(trial: &Trial, node: NodeId) -> BTreeMap<String, Vec<u8>> {
    let files =
        names(trial, node).into_iter().flat_map(|name| ["chunks", "manifest"].map(|file| format!("{name}/{file}")));
    files.map(|file| (file.clone(), fs::read(directory(trial, node).join(file)).expect("it is whole"))).collect()
}

fn command(trial: &Trial, arguments: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.arg("cluster").args(arguments).arg("--client").arg(trial.cluster.admin_file());
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    command
}

fn ordered(trial: &Trial, arguments: &[&str]) -> Output {
    let arguments = [&["snapshot", "--timeout", "30"], arguments].concat();
    let done = command(trial, &arguments).output().expect("the binary runs");
    assert!(done.status.success(), "{}{}", text(&done.stdout), text(&done.stderr));
    done
}

fn table(trial: &Trial) -> String {
    text(&command(trial, &["status"]).output().expect("the binary runs").stdout)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub fn view(trial: &Trial, node: NodeId) -> NodeStatus {
    let client = trial.cluster.client().unwrap_or_else(|failure| panic!("{failure}"));
    status(&client, node).expect("it answers")
}

/// The index of the newest snapshot.
pub fn last(status: &NodeStatus) -> u64 {
    status.snapshots.last.map_or(0, |last| last.point.index.0)
}

pub fn until(trial: &Trial, node: NodeId, is_so: impl Fn(&NodeStatus) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so(&view(trial, node)) {
        assert!(Instant::now() < deadline, "node {node}: {:?}", view(trial, node));
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub async fn connected(trial: &Trial) -> Client {
    let client = trial.cluster.client().unwrap_or_else(|failure| panic!("{failure}"));
    let identity = Identity::load(&client.certificate, &client.key, &client.ca, None).expect("the files are there");
    let nodes = client.nodes.iter().map(|node| (node.id, node.address)).collect();
    let options = ClientOptions { timeout: PATIENCE, ..ClientOptions::new(nodes, identity) };
    Client::connect(options).await.expect("it leads")
}

fn value(key: u64) -> Bytes {
    Bytes::from(vec![key as u8; VALUE_BYTES])
}

pub fn put(trial: &Trial, keys: std::ops::Range<u64>) {
    block_on(async {
        let client = connected(trial).await;
        for key in keys {
            client.put(Bytes::from(key.to_string()), value(key)).await.expect("it is taken");
        }
    });
}

/// All that was put is there.
pub fn check(trial: &Trial, keys: u64) {
    block_on(async {
        let client = connected(trial).await;
        for key in 0..keys {
            let found = client.get(Bytes::from(key.to_string()), Consistency::Linearizable).await;
            assert!(found.expect("it answers") == Some(value(key)), "key {key}");
        }
    });
}
