//! How a cluster of processes is born: with all of its first members, and not again from directories that were emptied.

use std::fs;
use std::io::Write;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use trilith::types::{Index, NodeId};

use crate::processes::{PATIENCE, PROGRAM, Trial, beside_few, status};

const FIRST: NodeId = NodeId(1);
const SECOND: NodeId = NodeId(2);
const THIRD: NodeId = NodeId(3);
const UNAVAILABLE: i32 = 16;

#[test]
fn a_cluster_serves_once_all_of_its_first_members_have_met() {
    let _share = beside_few();
    let mut trial = Trial::prepare(3, None);
    trial.start_node(FIRST);
    trial.start_node(SECOND);
    waits(&trial, FIRST, "not met yet: 3");
    assert_eq!(append(&trial, b"early\n").status.code(), Some(UNAVAILABLE));
    // Until then a directory may be lost and made anew, also of one that the others have met.
    make_anew(&mut trial, SECOND);
    trial.start_node(SECOND);
    waits(&trial, SECOND, "not met yet: 3");
    waits(&trial, FIRST, "not met yet: 3");
    trial.start_node(THIRD);
    let appended = append(&trial, b"one\n");
    assert!(appended.status.success(), "{appended:?}");
    // Born once, it is born for good: a majority serves, also after all have started again.
    trial.kill(FIRST);
    trial.kill(SECOND);
    trial.kill(THIRD);
    trial.start_node(FIRST);
    trial.start_node(THIRD);
    let appended = append(&trial, b"two\n");
    assert!(appended.status.success(), "{appended:?}");
}

/// As a supervisor does it that makes the directory where there is none.
#[test]
fn two_of_three_directories_made_anew_are_no_new_cluster() {
    let _share = beside_few();
    let mut trial = Trial::start(3, None);
    let appended = append(&trial, b"one\n");
    assert!(appended.status.success(), "{appended:?}");
    let known = trial.cluster.client().unwrap_or_else(|failure| panic!("{failure}"));
    let before = settled(&trial, FIRST);
    for node in [SECOND, THIRD] {
        make_anew(&mut trial, node);
    }
    trial.start_node(SECOND);
    trial.start_node(THIRD);
    // Not only that they wait: who does not speak with them, and why.
    waits(&trial, SECOND, "node 1 refuses it");
    waits(&trial, THIRD, "node 1 refuses it");
    assert_eq!(append(&trial, b"lost\n").status.code(), Some(UNAVAILABLE));
    for node in [SECOND, THIRD] {
        assert_eq!(status(&known, node).expect("it answers").commit, Index::ZERO, "node {node} decides nothing");
        assert!(trial.log(node).contains("another incarnation"), "{}", trial.log(node));
    }
    assert!(status(&known, FIRST).expect("it answers").commit >= before, "what it has it keeps");
}

/// What the node has committed, once that is the record.
fn settled(trial: &Trial, node: NodeId) -> Index {
    let known = trial.cluster.client().unwrap_or_else(|failure| panic!("{failure}"));
    let deadline = Instant::now() + PATIENCE;
    loop {
        let status = status(&known, node).expect("it answers");
        if status.commit == status.last.index && status.records > 0 {
            return status.commit;
        }
        assert!(Instant::now() < deadline, "{status:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The directory is lost, and `init --initial` makes another.
fn make_anew(trial: &mut Trial, node: NodeId) {
    trial.kill(node);
    fs::remove_dir_all(trial.cluster.data_directory(node)).expect("it was there");
    let configuration = trial.cluster.configuration_file(node);
    let made = Command::new(PROGRAM).args(["init", "--initial", "--config"]).arg(configuration).output();
    let made = made.expect("the binary runs");
    assert!(made.status.success(), "{made:?}");
}

/// Until the node says that it waits for this.
fn waits(trial: &Trial, node: NodeId, words: &str) {
    let known = trial.cluster.client().unwrap_or_else(|failure| panic!("{failure}"));
    let deadline = Instant::now() + PATIENCE;
    loop {
        let waiting = status(&known, node).map(|status| status.waiting);
        if waiting.as_ref().is_some_and(|waiting| waiting.contains(words)) {
            return;
        }
        assert!(Instant::now() < deadline, "node {node} does not say {words:?}: {waiting:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn append(trial: &Trial, input: &[u8]) -> Output {
    let mut command = Command::new(PROGRAM);
    command.args(["log", "append", "-", "--client"]).arg(trial.cluster.client_file());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the binary runs");
    let written = child.stdin.take().expect("it is piped").write_all(input);
    written.expect("a line fits a pipe");
    child.wait_with_output().expect("it is a child")
}
