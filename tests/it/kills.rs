//! Processes killed with SIGKILL under load, from outside.
//!
//! The leader dies again and again in the middle of appends, at last all nodes and the writers at once. Then every
//! node must hold every acknowledged record at its acknowledged index, once, in the same order.

use std::time::{Duration, Instant};

use trilith::types::NodeId;

use crate::processes::load::Load;
use crate::processes::{PATIENCE, Trial, beside_one, check, spread};

/// At least so many acknowledgements come between two kills.
const BETWEEN: u64 = 5000;

#[test]
fn three_nodes_lose_nothing_when_the_leader_is_killed_20_times() {
    kill_the_leader("3 nodes", 3, None, 20);
}

#[test]
fn three_nodes_with_blocking_io_lose_nothing_when_the_leader_is_killed_20_times() {
    kill_the_leader("3 nodes, blocking", 3, Some("blocking"), 20);
}

#[test]
fn one_node_loses_nothing_when_it_is_killed_20_times() {
    kill_the_leader("1 node", 1, None, 20);
}

#[test]
fn one_node_with_blocking_io_loses_nothing_when_it_is_killed_20_times() {
    kill_the_leader("1 node, blocking", 1, Some("blocking"), 20);
}

fn kill_the_leader(name: &str, nodes: u64, io: Option<&str>, kills: usize) {
    let _share = beside_one();
    let begin = Instant::now();
    let mut trial = Trial::start(nodes, io);
    let mut load = Load::start(&trial.cluster.client_file(), trial.home.path());
    let (mut acknowledged, mut pending, mut gaps) = (0, Vec::new(), Vec::new());
    for _ in 0..kills {
        load.reach(acknowledged + BETWEEN);
        let leader = trial.leader();
        let given = load.given();
        trial.kill(leader);
        let killed = Instant::now();
        // All that was told before the kill is in the journals by now.
        std::thread::sleep(Duration::from_millis(20));
        let told = load.acknowledged();
        assert!(given > told, "nothing was under way when node {leader} was killed");
        assert!(told - acknowledged >= BETWEEN, "{told} acknowledged, {acknowledged} at the kill before");
        pending.push(given - told);
        acknowledged = told;
        gaps.push(until_served(&mut trial, &mut load, leader, told, killed));
    }
    assert_eq!(pending.len(), kills, "so many kills were made");
    load.reach(acknowledged + BETWEEN);
    let waiting = Instant::now();
    while load.given() == load.acknowledged() {
        assert!(waiting.elapsed() < PATIENCE, "nothing is under way");
        std::thread::yield_now();
    }
    trial.cluster.kill_all().unwrap_or_else(|failure| panic!("{failure}"));
    let journals = load.kill();
    trial.start_all();
    let client = trial.cluster.client().unwrap_or_else(|failure| panic!("{failure}"));
    let checked = check::compare(&client, &journals);
    assert!(checked.acknowledged >= BETWEEN * (kills as u64 + 1), "{checked:?}");
    assert!(checked.unacknowledged_found + checked.unacknowledged_absent > 0, "{checked:?}");
    println!("kills, {name}: {kills} kills and one of all, {:.1?}", begin.elapsed());
    println!("  {checked:?}");
    println!("  unacknowledged at each kill: {pending:?}");
    let (led, served): (Vec<Duration>, Vec<Duration>) = gaps.into_iter().unzip();
    println!("  from a kill to the next leader: {}", spread(&led));
    println!("  from a kill to the next acknowledgement: {}", spread(&served));
    trial.cluster.stop_all(PATIENCE).unwrap_or_else(|failure| panic!("{failure}"));
}

/// How long nobody led, and how long nothing was acknowledged. A node alone is started at once, one of several when
/// the others serve.
fn until_served(trial: &mut Trial, load: &mut Load, node: NodeId, told: u64, killed: Instant) -> (Duration, Duration) {
    let is_alone = trial.cluster.nodes().count() == 1;
    if is_alone {
        trial.start_node(node);
    }
    trial.leader_besides((!is_alone).then_some(node));
    let led = killed.elapsed();
    load.reach(told + 1);
    let served = killed.elapsed();
    if !is_alone {
        load.slow(true);
        trial.start_node(node);
        load.slow(false);
    }
    (led, served)
}
