//! C7 over real processes: a node is killed at each step of making, sending, receiving and installing a snapshot.
//!
//! The node's directory is a file system of the test's own ([`crate::forgetful`]), which holds back the very request that
//! makes the step: the kill falls there and nowhere else, and the test knows that it did. Each step has three ends: killed
//! before the request was carried out, killed behind it, and the power gone with it, so that what was not flushed is lost
//! or not. After each the node starts again, everything acknowledged is there, and nothing is left of what was broken off.

use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rustix::process::{Pid, Signal, kill_process};
use trilith::limits::SNAPSHOT_CHUNK_BYTES;
use trilith::net::Consistency;
use trilith::types::NodeId;

use crate::forgetful::steps::{Act, Let, Step};
use crate::forgetful::{Forgetful, Plan, obstacle};
use crate::member_waits::{order, told};
use crate::processes::{PATIENCE, PROGRAM, SEGMENT_BYTES, Trial, beside_one, block_on, connect, skip, status};
use crate::snapshots::connected;

pub const FIRST: NodeId = NodeId(1);
const SECOND: NodeId = NodeId(2);
const VALUE_BYTES: usize = 500 << 10;
/// Of a few chunks.
const KEYS: u64 = 8;
/// How a step ends.
pub const ENDS: [Let; 3] = [Let::Refused, Let::Done, Let::Cut];

/// From the directory's first entry to the removal of what is superfluous.
const MAKING: [(&str, Step); 15] = [
    ("its directory", Step::new(Act::MakeDirectory, "snapshot-*.making")),
    ("the file of chunks", Step::new(Act::Create, "snapshot-*.making/chunks")),
    ("a chunk", Step::new(Act::Write, "snapshot-*.making/chunks").skip(1)),
    ("the flush of chunks", Step::new(Act::Flush, "snapshot-*.making/chunks")),
    ("the file of the manifest", Step::new(Act::Create, "snapshot-*.making/manifest")),
    ("the manifest", Step::new(Act::Write, "snapshot-*.making/manifest")),
    ("the flush of the manifest", Step::new(Act::Flush, "snapshot-*.making/manifest")),
    ("the flush of its directory", Step::new(Act::FlushDirectory, "snapshot-*.making")),
    ("its name", Step::new(Act::Rename, "snapshot-*.making")),
    ("the flush of its name", Step::new(Act::FlushDirectory, "").behind(Act::Rename, "snapshot-*.making")),
    ("the superblock", Step::new(Act::Write, "superblock").behind(Act::Rename, "snapshot-*.making")),
    (
        "the superblock's second pair",
        Step::new(Act::Write, "superblock").skip(1).behind(Act::Rename, "snapshot-*.making"),
    ),
    ("taking the name of an older one", Step::new(Act::Rename, "snapshot-*").behind(Act::Write, "superblock")),
    ("removing its chunks", Step::new(Act::Remove, "snapshot-*.removing/chunks")),
    ("removing its directory", Step::new(Act::Remove, "snapshot-*.removing")),
];

#[test]
fn a_node_that_is_killed_at_each_step_of_making_a_snapshot_has_all_that_was_acknowledged() {
    let _share = beside_one();
    if let Some((reason, needs)) = obstacle() {
        return skip("snapshot_kills, making", &reason, &needs);
    }
    let begin = Instant::now();
    for (seed, end) in (1..).zip(ENDS) {
        let mut trial = OnForgetful::start();
        let mut keys = 0;
        for _ in 0..2 {
            trial.put(&mut keys);
            trial.snapshot();
        }
        for (name, step) in MAKING {
            trial.put(&mut keys);
            trial.kill_at(FIRST, FIRST, name, step, end, seed, |trial| Some(trial.order()));
            trial.inner.start_node(FIRST);
            let unfinished: Vec<String> = trial.names(FIRST).into_iter().filter(|name| name.contains('.')).collect();
            assert_eq!(unfinished, [""; 0], "{name}, {end:?}: what was broken off is removed");
            trial.check(keys);
        }
        trial.put(&mut keys);
        trial.snapshot();
        // Whoever asked is told before older ones are removed.
        let deadline = Instant::now() + PATIENCE;
        while trial.names(FIRST).len() > 2 {
            assert!(Instant::now() < deadline, "{:?}", trial.names(FIRST));
            std::thread::sleep(Duration::from_millis(20));
        }
        trial.check(keys);
        println!("making, {end:?}: {} kills, each at its step; {keys} values are there", MAKING.len());
    }
    println!("snapshots made and killed: {:.1?}", begin.elapsed());
}

/// From the first entry at the receiver to its state, and what who sends it reads; in this order.
const FETCHING: [(&str, NodeId, Step); 16] = [
    ("receiving: its directory", SECOND, Step::new(Act::MakeDirectory, "snapshot-*.receiving")),
    ("receiving: the file of the manifest", SECOND, Step::new(Act::Create, "snapshot-*.receiving/manifest")),
    ("receiving: the manifest", SECOND, Step::new(Act::Write, "snapshot-*.receiving/manifest")),
    ("receiving: the flush of the manifest", SECOND, Step::new(Act::Flush, "snapshot-*.receiving/manifest")),
    ("receiving: the file of chunks", SECOND, Step::new(Act::Create, "snapshot-*.receiving/chunks")),
    ("receiving: room for chunks", SECOND, Step::new(Act::Allocate, "snapshot-*.receiving/chunks")),
    ("sending: the manifest", FIRST, Step::new(Act::Read, "snapshot-*/manifest")),
    ("receiving: a chunk", SECOND, Step::new(Act::Write, "snapshot-*.receiving/chunks").skip(3)),
    ("sending: a chunk", FIRST, Step::new(Act::Read, "snapshot-*/chunks").skip(1)),
    ("receiving: another chunk", SECOND, Step::new(Act::Write, "snapshot-*.receiving/chunks")),
    ("receiving: the flush of its directory", SECOND, Step::new(Act::FlushDirectory, "snapshot-*.receiving")),
    ("receiving: its name", SECOND, Step::new(Act::Rename, "snapshot-*.receiving")),
    (
        "receiving: the flush of its name",
        SECOND,
        Step::new(Act::FlushDirectory, "").behind(Act::Rename, "snapshot-*.receiving"),
    ),
    ("installing: reading it back", SECOND, Step::new(Act::Read, "snapshot-*/chunks").skip(1)),
    ("installing: the superblock", SECOND, Step::new(Act::Write, "superblock").behind(Act::Read, "snapshot-*/chunks")),
    (
        "installing: a segment of the log, behind the superblock",
        SECOND,
        Step::new(Act::Write, "log/*").behind(Act::Write, "superblock"),
    ),
];

#[test]
fn a_node_that_is_killed_at_each_step_of_sending_receiving_or_installing_goes_on_with_what_has_come() {
    let _share = beside_one();
    if let Some((reason, needs)) = obstacle() {
        return skip("snapshot_kills, fetching", &reason, &needs);
    }
    let begin = Instant::now();
    for (seed, end) in (1..).zip(ENDS) {
        let mut keys = 0;
        let mut trial = OnForgetful::restored(&mut keys);
        trial.join();
        trial.disk(SECOND).gate.note(".receiving/chunks");
        let mut down = SECOND;
        // Killed behind the renaming it has its name, and none is flushed any more: that is what killing it before the flush
        // of its name leaves.
        let steps = FETCHING.into_iter().filter(|(name, ..)| end != Let::Done || *name != "receiving: its name");
        let mut kills = 0;
        for (name, node, step) in steps {
            trial.kill_at(node, node, name, step, end, seed, |trial| {
                trial.inner.start_node(down);
                None
            });
            down = node;
            kills += 1;
        }
        trial.inner.start_node(down);
        trial.put(&mut keys);
        trial.check(keys);
        trial.check_same(keys);
        let whole: Vec<String> = trial.names(SECOND).into_iter().filter(|name| !name.contains('.')).collect();
        assert_eq!((trial.names(SECOND), whole.len()), (whole, 1), "nothing is left of what was broken off");
        let arrived = trial.arrived();
        // The power takes along what was not flushed, and that has to come again.
        let is_sent_once = end == Let::Cut || arrived.iter().all(|count| *count == 1);
        assert!(is_sent_once && arrived.len() > 2, "what had arrived is not sent again: {arrived:?}");
        println!("fetching, {end:?}: {kills} kills, each at its step; chunks that were written {arrived:?}");
    }
    println!("snapshots fetched and killed: {:.1?}", begin.elapsed());
}

/// A cluster whose nodes' directories are disks of the test's own.
pub struct OnForgetful {
    // Dropped in this order: a process that has a file there holds the file system.
    pub inner: Trial,
    disks: Vec<(NodeId, Forgetful)>,
}

impl OnForgetful {
    /// Of one node.
    fn start() -> OnForgetful {
        OnForgetful::of(prepare())
    }

    /// Of one node, which is prepared and starts.
    pub fn of(inner: Trial) -> OnForgetful {
        let mut trial = OnForgetful { inner, disks: Vec::new() };
        trial.mount(FIRST);
        trial.inner.start_node(FIRST);
        trial
    }

    /// Of one node, whose log begins behind its state.
    fn restored(keys: &mut u64) -> OnForgetful {
        let old = OnForgetful::start();
        old.put(keys);
        old.snapshot();
        let mut trial = OnForgetful { inner: prepare(), disks: Vec::new() };
        let [from, at] = [&old.inner, &trial.inner].map(|trial| trial.cluster.data_directory(FIRST));
        fs::remove_dir_all(&at).expect("it is ours");
        let mut command = std::process::Command::new(PROGRAM);
        command.args(["snapshot", "restore"]).arg(from).arg("--config");
        let restored = command.arg(trial.inner.cluster.configuration_file(FIRST)).output().expect("the binary runs");
        told(&restored, 0, &["it begins with the state of cluster"]);
        trial.mount(FIRST);
        trial.inner.start_node(FIRST);
        trial
    }

    /// A second node, which needs the state by a snapshot, is a learner, and runs.
    fn join(&mut self) {
        let member =
            self.inner.cluster.prepare_later(SECOND, SEGMENT_BYTES).unwrap_or_else(|failure| panic!("{failure}"));
        hurry(&self.inner);
        self.mount(SECOND);
        let [incarnation, address] = [member.incarnation.to_string(), member.address.to_string()];
        let add = ["add", "2", "--incarnation", &incarnation, "--address", &address, "--learner"];
        told(&order(&self.inner, &add), 0, &["node 2 is a learner"]);
        let file = self.inner.cluster.client_file();
        let mut known = fs::read_to_string(&file).expect("it is there");
        known.push_str(&format!("\n[[node]]\nid = 2\naddress = \"{address}\"\n"));
        fs::write(&file, known).expect("it is ours");
    }

    /// Puts a node's files on a disk of their own, flushed.
    fn mount(&mut self, node: NodeId) {
        let at = self.inner.cluster.data_directory(node);
        let aside = at.with_extension("aside");
        fs::rename(&at, &aside).and_then(|()| fs::create_dir(&at)).expect("they can be put aside");
        let mut disk = Forgetful::make(&at);
        disk.on(Plan::calm(node.0)).expect("it could be mounted before");
        copy(&aside, &at);
        self.disks.push((node, disk));
    }

    fn disk(&mut self, node: NodeId) -> &mut Forgetful {
        &mut self.disks.iter_mut().find(|(id, _)| *id == node).expect("it was mounted").1
    }

    /// One more value, or at first all of them. Older ones are overwritten, so that the state stays small.
    fn put(&self, keys: &mut u64) {
        block_on(async {
            let client = connected(&self.inner).await;
            for number in *keys..(*keys + 1).max(KEYS) {
                client.put(key(number), value(number)).await.expect("it is taken");
                *keys = number + 1;
            }
        });
    }

    /// Is asked for one, and goes on asking.
    pub fn order(&self) -> Child {
        let mut command = std::process::Command::new(PROGRAM);
        command.args(["cluster", "snapshot", "--timeout", "60", "--client"]).arg(self.inner.cluster.admin_file());
        command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the binary runs")
    }

    pub fn snapshot(&self) {
        let done = order(&self.inner, &["snapshot", "--timeout", "60"]);
        told(&done, 0, &["a snapshot at"]);
    }

    /// What stands in the way of `victim` when `watched` reaches the step: its death.
    #[expect(clippy::too_many_arguments, reason = "a step is told by all of these")]
    pub fn kill_at(
        &mut self,
        watched: NodeId,
        victim: NodeId,
        name: &str,
        step: Step,
        end: Let,
        seed: u64,
        begin: impl FnOnce(&mut OnForgetful) -> Option<Child>,
    ) {
        let gate = self.disk(watched).gate.clone();
        gate.close(step);
        let mut ordered = begin(self);
        let deadline = Instant::now() + PATIENCE;
        while !gate.is_reached(Duration::from_millis(200)) {
            if let Some(what) = self.broken(ordered.as_mut()) {
                panic!("{name}: before the step {what}\n{}", self.inner.log(watched));
            }
            assert!(
                Instant::now() < deadline,
                "{name}: nothing ended, and the step is not reached\n{}",
                self.inner.log(watched)
            );
        }
        let process = self.inner.cluster.child(victim).expect("it runs").id();
        let process = Pid::from_raw(i32::try_from(process).expect("a number of a process")).expect("it runs");
        kill_process(process, Signal::KILL).expect("it is a child");
        if let Some(ordered) = &mut ordered {
            ordered.kill().expect("it is a child");
            ordered.wait().expect("it has ended");
        }
        gate.open(end);
        self.inner.kill(victim);
        if end == Let::Cut {
            assert_eq!(watched, victim, "a power has one node");
            let disk = self.disk(victim);
            disk.off();
            disk.forget(seed);
            disk.on(Plan::calm(seed)).expect("it could be mounted before");
        }
    }

    /// A process that has ended though nobody killed it, or an order that was not carried out: no step is reached then.
    fn broken(&mut self, ordered: Option<&mut Child>) -> Option<String> {
        let nodes: Vec<NodeId> = self.disks.iter().map(|(node, _)| *node).collect();
        for node in nodes {
            let ended = self.inner.cluster.child(node).and_then(|child| child.ended());
            if let Some(status) = ended {
                return Some(format!("node {node} ended with {status}: {}", self.inner.log(node)));
            }
        }
        let ordered = ordered?;
        let status = ordered.try_wait().expect("it is a child").filter(|status| !status.success())?;
        let mut said = String::new();
        let told = ordered.stderr.take().map(|mut stderr| stderr.read_to_string(&mut said));
        Some(format!("the order ended with {status}: {said} ({told:?})"))
    }

    /// Both nodes have the same state, each by itself.
    fn check_same(&self, keys: u64) {
        let known = self.inner.cluster.client().unwrap_or_else(|failure| panic!("{failure}"));
        let last = status(&known, FIRST).expect("it answers").commit;
        block_on(async {
            for node in [FIRST, SECOND] {
                let mut asked = connect(&known, node, PATIENCE).await.expect("it answers");
                for number in keys - KEYS..keys {
                    let found = asked.get(key(number), Consistency::AtLeast(last)).await.expect("it answers");
                    assert!(found == Some(value(number)), "value {number} of {keys} is not at node {node}");
                }
            }
        });
    }

    /// How often each chunk but the last was written whole where it is received. The kernel gives each in two pieces, of
    /// which the second does not begin where the chunk does.
    fn arrived(&mut self) -> Vec<usize> {
        let chunk_bytes = SNAPSHOT_CHUNK_BYTES as u64;
        let mut ends = std::collections::BTreeMap::new();
        for seen in self.disk(SECOND).gate.noted().iter().filter(|seen| seen.act == Act::Write) {
            if !seen.offset.is_multiple_of(chunk_bytes) {
                *ends.entry(seen.offset / chunk_bytes).or_insert(0) += 1;
            }
        }
        ends.into_values().collect()
    }

    /// Of snapshots, whole or not.
    fn names(&self, node: NodeId) -> Vec<String> {
        crate::snapshots::names(&self.inner, node)
    }

    /// Everything that was acknowledged is there.
    fn check(&self, keys: u64) {
        block_on(async {
            let client = connected(&self.inner).await;
            for number in keys - KEYS..keys {
                let found = client.get(key(number), Consistency::Linearizable).await.expect("it answers");
                assert!(found == Some(value(number)), "value {number} of {keys} is not there");
            }
        });
    }
}

fn prepare() -> Trial {
    let trial = Trial::prepare(1, None);
    hurry(&trial);
    trial
}

/// Much is started here.
pub fn hurry(trial: &Trial) {
    for (key, number) in [
        ("snapshot_bytes_per_second", 1 << 30),
        ("heartbeat_milliseconds", 30),
        ("election_milliseconds_min", 150),
        ("election_milliseconds_max", 300),
    ] {
        trial.cluster.configure(key, number).unwrap_or_else(|failure| panic!("{failure}"));
    }
}

impl Drop for OnForgetful {
    fn drop(&mut self) {
        // A request that is held back would keep its process from dying.
        self.disks.iter().for_each(|(_, disk)| disk.gate.open(Let::Refused));
        self.inner.cluster.kill_all().ok();
        self.disks.clear();
    }
}

fn key(number: u64) -> Bytes {
    Bytes::from(format!("key-{}", number % KEYS))
}

fn value(number: u64) -> Bytes {
    Bytes::from(vec![number as u8; VALUE_BYTES])
}

/// Files and directories, flushed.
pub fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).expect("it is there") {
        let entry = entry.expect("it can be listed");
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            fs::create_dir(&to).expect("it can be made");
            copy(&entry.path(), &to);
            continue;
        }
        fs::write(&to, fs::read(entry.path()).expect("it is there")).expect("it can be written");
        fs::File::open(&to).and_then(|file| file.sync_all()).expect("it can be flushed");
    }
    fs::File::open(to).and_then(|directory| directory.sync_all()).expect("it can be flushed");
}
