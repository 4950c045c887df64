//! Nodes that have lost what they had promised: they are not heard, say so, and come back as another life.
//!
//! ```text
//!   an older copy is put back · the superblock is damaged · what was acknowledged is gone
//!     ──▶ exit code, `no-voice`, the commands ──▶ remove, init --join, node, add ──▶ a voter, with everything there
//! ```

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use trilith::net::NodeStatus;
use trilith::types::NodeId;

use crate::processes::{PATIENCE, PROGRAM, Trial, beside_few, status};

const FIRST: NodeId = NodeId(1);
const SECOND: NodeId = NodeId(2);
const THIRD: NodeId = NodeId(3);
const NO_VOICE: i32 = 12;
const CORRUPT: i32 = 10;
const BLOCK_BYTES: usize = 4096;

/// Those who met the newer one were all started again meanwhile.
#[test]
fn an_older_copy_of_a_directory_has_no_voice_and_comes_back_as_a_new_member() {
    let _share = beside_few();
    let mut trial = Trial::start(3, None);
    append(&trial, 0..50);
    trial.kill(THIRD);
    let copy = trial.home.path().join("copy");
    duplicate(&trial.cluster.data_directory(THIRD), &copy);
    for _ in 0..2 {
        trial.start_node(THIRD);
        append(&trial, 50..51);
        holds_everything(&trial, THIRD);
        trial.kill(THIRD);
    }
    trial.kill(FIRST);
    trial.kill(SECOND);
    put_back(&trial, THIRD, &copy);
    trial.start_node(FIRST);
    trial.start_node(SECOND);
    trial.start_node(THIRD);
    assert_eq!(trial.ended(THIRD), NO_VOICE, "{}", trial.log(THIRD));
    let log = trial.log(THIRD);
    assert!(log.contains("is an older copy of the one that it had") && log.contains("trilith cluster remove"), "{log}");
    // However often it is started: each start would count as a later one.
    for _ in 0..3 {
        assert_eq!(start(&mut trial, THIRD), Some(NO_VOICE));
    }
    append(&trial, 51..60);
    comes_back(&mut trial, THIRD);
    trial.kill(SECOND);
    append(&trial, 60..70);
    // 50 was sent twice.
    everything(&trial, THIRD, 71);
}

#[test]
fn a_node_whose_superblock_is_damaged_votes_again_with_everything_acknowledged_there() {
    let _share = beside_few();
    let mut trial = Trial::start(3, None);
    append(&trial, 0..300);
    trial.kill(SECOND);
    append(&trial, 300..310);
    let file = trial.cluster.data_directory(SECOND).join("superblock");
    let mut bytes = fs::read(&file).expect("it is there");
    for block in [0, 2] {
        bytes[block * BLOCK_BYTES + 40] ^= 1;
    }
    fs::write(&file, &bytes).expect("it can be written");
    assert_eq!(start(&mut trial, SECOND), Some(CORRUPT));
    assert!(trial.log(SECOND).contains("trilith cluster remove"), "{}", trial.log(SECOND));
    let log = fs::read(first_segment(&trial.cluster.data_directory(SECOND))).expect("it is there");
    comes_back(&mut trial, SECOND);
    let kept = trial.cluster.data_directory(SECOND).join("before-1");
    assert!(fs::read(kept.join("superblock")).expect("it is kept") == bytes, "as it was");
    assert!(fs::read(first_segment(&kept)).expect("it is kept") == log, "as it was");
    let is_read_only = |path: &Path| fs::metadata(path).expect("it is there").permissions().readonly();
    assert!(is_read_only(&kept.join("superblock")) && is_read_only(&first_segment(&kept)));
    append(&trial, 310..320);
    trial.kill(THIRD);
    append(&trial, 320..330);
    everything(&trial, SECOND, 330);
    // A directory of a node that is well is not moved, whatever is typed.
    trial.kill(SECOND);
    let again = init_join(&trial, SECOND);
    assert_eq!(again.status.code(), Some(NO_VOICE), "{again:?}");
    assert!(text(&again).contains("nothing was changed"), "{again:?}");
    trial.start_node(SECOND);
    append(&trial, 330..331);
}

/// Its boot number is the one that it had: the leader finds it out by what it had acknowledged.
#[test]
fn a_follower_that_lost_what_it_had_acknowledged_has_no_voice_and_the_leader_says_so() {
    let _share = beside_few();
    let mut trial = Trial::start(3, None);
    append(&trial, 0..20);
    let leader = trial.leader();
    let follower = [FIRST, SECOND, THIRD].into_iter().find(|node| *node != leader).expect("there are three");
    trial.kill(follower);
    let copy = trial.home.path().join("copy");
    duplicate(&trial.cluster.data_directory(follower), &copy);
    trial.start_node(follower);
    append(&trial, 20..60);
    holds_everything(&trial, follower);
    trial.kill(follower);
    put_back(&trial, follower, &copy);
    trial.start_node(follower);
    assert_eq!(trial.ended(follower), NO_VOICE, "{}", trial.log(follower));
    let log = trial.log(follower);
    assert!(log.contains("had acknowledged entries") && log.contains("trilith cluster remove"), "{log}");
    assert_eq!(start(&mut trial, follower), Some(NO_VOICE));
    let known = trial.cluster.client().unwrap_or_else(|failure| panic!("{failure}"));
    let told = status(&known, leader).expect("it answers").waiting;
    let words = format!("another life of node {follower}, which has lost what it had acknowledged");
    assert!(told.contains(&words), "{told:?}");
    comes_back(&mut trial, follower);
    let told = status(&known, trial.leader()).expect("it answers").waiting;
    assert_eq!(told, "", "nothing is left to be done");
    everything(&trial, follower, 60);
}

/// The superblock names a snapshot, and the log is older: what this node had acknowledged up to there is gone.
#[test]
fn a_node_whose_log_lacks_the_point_of_its_snapshot_has_no_voice() {
    let _share = beside_few();
    let mut trial = Trial::start(3, None);
    append(&trial, 0..50);
    let leader = trial.leader();
    let follower = [FIRST, SECOND, THIRD].into_iter().find(|node| *node != leader).expect("there are three");
    holds_everything(&trial, follower);
    let (log, copy) = (trial.cluster.data_directory(follower).join("log"), trial.home.path().join("copy"));
    pause(&mut trial, follower, true);
    duplicate(&log, &copy);
    pause(&mut trial, follower, false);
    append(&trial, 50..60);
    cluster(&trial, &["snapshot"]);
    let known = trial.cluster.client().unwrap_or_else(|failure| panic!("{failure}"));
    let deadline = Instant::now() + PATIENCE;
    while status(&known, follower).is_none_or(|status| status.snapshots.last.is_none()) {
        assert!(Instant::now() < deadline, "it makes one, too: {}", trial.log(follower));
        std::thread::sleep(Duration::from_millis(20));
    }
    // The superblock names it in the same breath, and what is removed then is nothing.
    std::thread::sleep(Duration::from_millis(200));
    trial.kill(follower);
    fs::remove_dir_all(&log).expect("it was there");
    duplicate(&copy, &log);
    assert_eq!(start(&mut trial, follower), Some(CORRUPT), "{}", trial.log(follower));
    let said = trial.log(follower);
    assert!(said.contains("has no such entry") && said.contains("trilith cluster remove"), "{said}");
    assert_eq!(start(&mut trial, follower), Some(NO_VOICE));
    comes_back(&mut trial, follower);
    everything(&trial, follower, 60);
}

/// It asks for votes twice a second, and says so once.
#[test]
fn a_node_without_a_majority_is_quiet_about_it() {
    let _share = beside_few();
    let mut trial = Trial::start(3, None);
    append(&trial, 0..1);
    for node in [FIRST, SECOND, THIRD] {
        trial.kill(node);
    }
    let before = trial.log(FIRST).len();
    trial.start_node(FIRST);
    let known = trial.cluster.client().unwrap_or_else(|failure| panic!("{failure}"));
    let deadline = Instant::now() + PATIENCE;
    while status(&known, FIRST).is_none_or(|status| status.waiting != "a leader") {
        assert!(Instant::now() < deadline, "{}", trial.log(FIRST));
    }
    std::thread::sleep(Duration::from_secs(3));
    let said = trial.log(FIRST)[before..].matches("PreCandidate").count();
    assert_eq!(said, 1, "{}", &trial.log(FIRST)[before..]);
}

/// As an operator does it: the commands are those that the program prints.
fn comes_back(trial: &mut Trial, node: NodeId) {
    let file = trial.cluster.configuration_file(node);
    let configuration = fs::read_to_string(&file).expect("it is there");
    // A later member lists no first ones.
    fs::write(&file, configuration.split("\n[[member]]").next().unwrap_or_default()).expect("it can be written");
    let id = node.to_string();
    let removed = cluster(trial, &["remove", &id]);
    assert!(removed.contains("is removed, by entry"), "{removed}");
    let made = init_join(trial, node);
    assert!(made.status.success() && text(&made).contains("is kept, read-only, in "), "{made:?}");
    let add = text(&made).lines().find_map(|line| line.trim().strip_prefix("trilith cluster add ").map(str::to_owned));
    let add = add.unwrap_or_else(|| panic!("it says how to add it: {made:?}"));
    trial.start_node(node);
    let add: Vec<&str> = add.split_whitespace().take_while(|word| *word != "--client").collect();
    let told = cluster(trial, &[&["add"], &add[..], &["--wait", "60"]].concat());
    assert!(told.contains(&format!("node {node} votes")), "{told}");
}

fn cluster(trial: &Trial, arguments: &[&str]) -> String {
    let mut command = Command::new(PROGRAM);
    command.arg("cluster").args(arguments).args(["--timeout", "30", "--client"]);
    let done = command.arg(trial.cluster.admin_file()).output().expect("the binary runs");
    assert!(done.status.success(), "{arguments:?}: {done:?}");
    text(&done)
}

fn init_join(trial: &Trial, node: NodeId) -> Output {
    let mut command = Command::new(PROGRAM);
    command.args(["init", "--join", "--config"]).arg(trial.cluster.configuration_file(node));
    command.output().expect("the binary runs")
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

/// How a start ends, if it does not serve.
fn start(trial: &mut Trial, node: NodeId) -> Option<i32> {
    trial.kill(node);
    trial.cluster.start(node, PATIENCE).err().map(|failure| failure.exit as i32)
}

fn append(trial: &Trial, numbers: std::ops::Range<u32>) {
    let mut command = Command::new(PROGRAM);
    command.args(["log", "append", "-", "--timeout", "30", "--client"]).arg(trial.cluster.client_file());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the binary runs");
    let lines: String = numbers.map(|number| format!("record {number}\n")).collect();
    let written = child.stdin.take().expect("it is piped").write_all(lines.as_bytes());
    written.expect("the lines fit a pipe");
    let output = child.wait_with_output().expect("it is a child");
    assert!(output.status.success(), "{output:?}");
}

/// Until the node has acknowledged all that the leader has.
fn holds_everything(trial: &Trial, node: NodeId) -> NodeStatus {
    let known = trial.cluster.client().unwrap_or_else(|failure| panic!("{failure}"));
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (leader, own) = (status(&known, trial.leader()), status(&known, node));
        if let (Some(leader), Some(own)) = (&leader, &own)
            && own.durable == leader.last
            && own.commit == leader.commit
            && own.applied == own.commit
        {
            return own.clone();
        }
        assert!(Instant::now() < deadline, "{leader:?} {own:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// This node has every record that was acknowledged.
fn everything(trial: &Trial, node: NodeId, records: usize) {
    holds_everything(trial, node);
    let mut command = Command::new(PROGRAM);
    command.args(["log", "read", "--from", "1", "--read", "stale", "--node", &node.to_string(), "--client"]);
    let read = command.arg(trial.cluster.client_file()).output().expect("the binary runs");
    assert!(read.status.success(), "{read:?}");
    let read = text(&read);
    assert_eq!(read.lines().filter(|line| line.contains("record ")).count(), records, "{read}");
}

fn pause(trial: &mut Trial, node: NodeId, pause: bool) {
    let paused = trial.cluster.child(node).expect("it was started").pause(pause);
    paused.unwrap_or_else(|failure| panic!("{failure}"));
}

fn first_segment(directory: &Path) -> std::path::PathBuf {
    directory.join("log/0000000000000001.segment")
}

/// A backup is put back.
fn put_back(trial: &Trial, node: NodeId, copy: &Path) {
    let directory = trial.cluster.data_directory(node);
    fs::remove_dir_all(&directory).expect("it was there");
    duplicate(copy, &directory);
}

fn duplicate(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status();
    assert!(copied.expect("cp runs").success());
}
