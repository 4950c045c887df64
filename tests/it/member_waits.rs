//! Changes of the members that take longer than whoever asked for them waits: what is told, with which exit code, and that
//! to ask again is enough.

use std::process::{Command, Output};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use trilith::net::NodeRole;
use trilith::types::{Member, NodeId};

use crate::processes::{PATIENCE, PROGRAM, SEGMENT_BYTES, Trial, beside_few, status};

const FIRST: NodeId = NodeId(1);
const SECOND: NodeId = NodeId(2);
const THIRD: NodeId = NodeId(3);
const USAGE: i32 = 2;
const REMOVED: i32 = 12;
const UNAVAILABLE: i32 = 16;
const OUTCOME_UNKNOWN: i32 = 17;

#[test]
fn a_member_is_added_and_promoted_though_nobody_waits_for_it() {
    let _share = beside_few();
    let mut trial = Trial::start(1, None);
    let member = prepare(&mut trial, SECOND);
    let [incarnation, address] = [member.incarnation.to_string(), member.address.to_string()];
    let add = ["add", "2", "--incarnation", &incarnation, "--address", &address];
    // No process runs there yet.
    let expired = order(&trial, &[&add[..], &["--wait", "1"]].concat());
    told(&expired, UNAVAILABLE, &["node 2 is a learner", "node 2 does not vote yet, after 1s", "may be run again"]);
    let not_waited = order(&trial, &[&add[..], &["--wait", "0"]].concat());
    told(&not_waited, 0, &["node 2 is a member already"]);
    trial.start_node(SECOND);
    told(&order(&trial, &[&add[..], &["--wait", "60"]].concat()), 0, &["node 2 votes"]);
    // A learner by order stays one until it is promoted.
    let member = prepare(&mut trial, THIRD);
    let [incarnation, address] = [member.incarnation.to_string(), member.address.to_string()];
    let add = ["add", "3", "--incarnation", &incarnation, "--address", &address, "--learner"];
    told(&order(&trial, &add), 0, &["node 3 is a learner"]);
    let expired = order(&trial, &["promote", "3", "--wait", "1"]);
    told(&expired, UNAVAILABLE, &["node 3 does not vote yet, after 1s", "may be run again"]);
    trial.start_node(THIRD);
    told(&order(&trial, &["promote", "3", "--wait", "60"]), 0, &["node 3 votes"]);
    told(&order(&trial, &["promote", "3"]), 0, &["node 3 votes"]);
    told(&order(&trial, &["promote", "9"]), USAGE, &["node 9 is no member"]);
    // Nobody else's address.
    let taken = ["add", "4", "--incarnation", "00000000000000ff", "--address", &address, "--wait", "0"];
    told(&order(&trial, &taken), USAGE, &["node 4 would have the address of node 3"]);
}

/// The others stand still when the order comes: the leader takes it, and loses its majority.
#[test]
fn a_removal_of_which_the_outcome_is_unknown_is_finished_by_asking_again() {
    let _share = beside_few();
    let mut trial = Trial::start(3, None);
    let known = trial.cluster.client().unwrap_or_else(|failure| panic!("{failure}"));
    let leader = trial.leader();
    let others: Vec<NodeId> = [FIRST, SECOND, THIRD].into_iter().filter(|node| *node != leader).collect();
    let pids: Vec<Pid> = others.iter().map(|node| pid(&trial, *node)).collect();
    let gone = others[1].to_string();
    pids.iter().for_each(|pid| kill_process(*pid, Signal::STOP).expect("it is a child"));
    let cut_off = order(&trial, &["remove", &gone, "--timeout", "2"]);
    pids.iter().for_each(|pid| kill_process(*pid, Signal::CONT).expect("it is a child"));
    let code = cut_off.status.code();
    assert!(matches!(code, Some(UNAVAILABLE | OUTCOME_UNKNOWN)), "{cut_off:?}");
    println!("  a removal without a majority: exit code {code:?}");
    let again = order(&trial, &["remove", &gone, "--timeout", "30"]);
    assert!(again.status.success(), "{again:?}");
    assert_eq!(trial.ended(others[1]), REMOVED);
    let view = status(&known, trial.leader()).expect("it answers");
    assert!(view.membership.member(others[1]).is_none() && !view.membership.is_joint(), "{view:?}");
}

/// It cannot be told; when it comes it is refused, is told why, and waits.
#[test]
fn a_node_that_is_down_while_it_is_removed_is_told_when_it_comes() {
    let _share = beside_few();
    let mut trial = Trial::start(3, None);
    let known = trial.cluster.client().unwrap_or_else(|failure| panic!("{failure}"));
    let leader = trial.leader();
    let gone = [FIRST, SECOND, THIRD].into_iter().find(|node| *node != leader).expect("there are three");
    let incarnation = status(&known, gone).expect("it answers").incarnation.to_string();
    let address = known.nodes.iter().find(|node| node.id == gone).expect("it is known").address.to_string();
    trial.kill(gone);
    let id = gone.to_string();
    told(&order(&trial, &["remove", &id]), 0, &["is removed, by entry"]);
    told(&order(&trial, &["remove", &format!("{id}@{incarnation}")]), 0, &["nothing was to be done"]);
    // Nobody tells it farewell any more, after four of the longest election timeouts.
    std::thread::sleep(Duration::from_secs(4));
    trial.start_node(gone);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let view = status(&known, gone).expect("it runs");
        assert_ne!(view.role, NodeRole::Leader);
        if view.waiting.contains("refuses it: ") && view.waiting.contains("members no more") {
            break;
        }
        assert!(Instant::now() < deadline, "{view:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
    let add = ["add", &id, "--incarnation", &incarnation, "--address", &address, "--wait", "0"];
    told(&order(&trial, &add), USAGE, &["was removed from the cluster in this life of it", "trilith init --join"]);
}

fn prepare(trial: &mut Trial, id: NodeId) -> Member {
    trial.cluster.prepare_later(id, SEGMENT_BYTES).unwrap_or_else(|failure| panic!("{failure}"))
}

pub fn order(trial: &Trial, arguments: &[&str]) -> Output {
    let mut command = Command::new(PROGRAM);
    command.arg("cluster").args(arguments).arg("--client").arg(trial.cluster.admin_file());
    command.output().expect("the binary runs")
}

pub fn told(output: &Output, code: i32, words: &[&str]) {
    let text = String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned();
    assert_eq!(output.status.code(), Some(code), "{text}");
    for word in words {
        assert!(text.contains(word), "{word:?} is said: {text}");
    }
}

pub fn pid(trial: &Trial, node: NodeId) -> Pid {
    let known = trial.cluster.client().unwrap_or_else(|failure| panic!("{failure}"));
    let pid = status(&known, node).expect("it answers").pid;
    Pid::from_raw(i32::try_from(pid).expect("it is a process")).expect("it is a process")
}
