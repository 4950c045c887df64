//! Three processes on one disk that stands still again and again: nobody is better than who leads (design §6, Slow disk).
//!
//! The disk is made of file systems of the test's own ([`crate::forgetful`]), one for each node, which answer nobody while a
//! request is held back; they stand still and go on together. (A file system that is frozen by the kernel lets flushes
//! end for a while, and then some node is ahead.)

use std::fs;
use std::time::{Duration, Instant};

use trilith::types::{NodeId, Term};

use crate::forgetful::steps::{Act, Let, Step};
use crate::forgetful::{Forgetful, Plan, obstacle};
use crate::processes::load::Load;
use crate::processes::{PATIENCE, Trial, alone, check, skip, spread, status};
use crate::snapshot_kills::copy;

/// How long the disk stands still each time: less and more than the shortest election timeout, and than the longest.
const STALLS_MILLISECONDS: [u64; 8] = [300, 1000, 2500, 1000, 1000, 2500, 1000, 1000];
/// What is on its way when the disk stands still may still be told.
const LAST_WORDS: Duration = Duration::from_millis(200);
/// At least so many acknowledgements come between two stalls.
const BETWEEN: u64 = 500;
/// Whatever the disk does, a machine that has no time for its nodes may cost an election.
const CHANGES_MAX: u64 = 1;

#[test]
fn three_nodes_on_one_stalled_disk_do_not_pass_leadership_round() {
    let _alone = alone();
    if let Some((reason, needs)) = obstacle() {
        return skip("slow_disk", &reason, &needs);
    }
    let mut shared = OnOneDisk::start(3);
    let mut load = Load::start(&shared.trial.cluster.client_file(), shared.trial.home.path());
    load.reach(BETWEEN);
    let (first, mut gaps) = (shared.term(), Vec::new());
    for time in STALLS_MILLISECONDS.map(Duration::from_millis) {
        shared.disks.iter().for_each(|disk| disk.gate.close(Step::new(Act::Write, "*")));
        assert!(shared.disks.iter().all(|disk| disk.gate.is_reached(PATIENCE)), "a node does not write");
        std::thread::sleep(LAST_WORDS);
        let told = load.acknowledged();
        std::thread::sleep(time - LAST_WORDS);
        assert_eq!(load.acknowledged(), told, "something is acknowledged while the disk stands still");
        shared.go_on();
        let begin = Instant::now();
        load.reach(told + 1);
        gaps.push(begin.elapsed());
        load.reach(told + BETWEEN);
    }
    let changes = shared.term().0 - first.0;
    let journals = load.kill();
    let client = shared.trial.cluster.client().unwrap_or_else(|failure| panic!("{failure}"));
    let checked = check::compare(&client, &journals);
    println!("one disk, {} stalls: {changes} changes of leader, {checked:?}", STALLS_MILLISECONDS.len());
    println!("  from its end to the next acknowledgement: {}", spread(&gaps));
    assert!(changes <= CHANGES_MAX, "leadership was passed on {changes} times:\n{}", shared.history());
    assert!(checked.acknowledged >= BETWEEN * (STALLS_MILLISECONDS.len() as u64 + 1), "{checked:?}");
    shared.trial.cluster.stop_all(PATIENCE).unwrap_or_else(|failure| panic!("{failure}"));
}

/// A cluster on what is one disk to it.
struct OnOneDisk {
    // Dropped in this order: a process that has a file there holds the file system.
    trial: Trial,
    disks: Vec<Forgetful>,
}

impl OnOneDisk {
    fn start(nodes: u64) -> OnOneDisk {
        let trial = Trial::prepare(nodes, None);
        let mount = |node: NodeId| {
            let at = trial.cluster.data_directory(node);
            let aside = at.with_extension("aside");
            fs::rename(&at, &aside).and_then(|()| fs::create_dir(&at)).expect("they can be put aside");
            let mut disk = Forgetful::make(&at);
            disk.on(Plan::calm(node.0)).expect("it could be mounted before");
            copy(&aside, &at);
            disk
        };
        let disks = trial.cluster.nodes().map(mount).collect();
        let mut shared = OnOneDisk { trial, disks };
        shared.trial.start_all();
        shared
    }

    fn go_on(&self) {
        self.disks.iter().for_each(|disk| disk.gate.open(Let::Done));
    }

    /// The highest that a node has met.
    fn term(&self) -> Term {
        let client = self.trial.cluster.client().unwrap_or_else(|failure| panic!("{failure}"));
        let terms = client.nodes.iter().filter_map(|node| status(&client, node.id)).map(|status| status.term);
        terms.max().expect("a node answers")
    }
}

impl OnOneDisk {
    /// What the nodes say of who leads, and why.
    fn history(&self) -> String {
        let mut history = String::new();
        for node in self.trial.cluster.nodes() {
            let log = self.trial.log(node);
            let of_leaders = |line: &&str| ["role", "leader", "stepped", "disk"].iter().any(|word| line.contains(word));
            log.lines().filter(of_leaders).for_each(|line| history += &format!("{node}: {line}\n"));
        }
        history
    }
}

impl Drop for OnOneDisk {
    fn drop(&mut self) {
        self.go_on();
        self.trial.cluster.kill_all().ok();
    }
}
