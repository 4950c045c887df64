//! How processes end: a node whose disk fails or hangs, the nodes of a parent that is killed, and those of one that
//! goes on.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};
use tempfile::TempDir;
use trilith::cli::local::{LocalCluster, LocalOptions};
use trilith::limits::{DISK_OPERATION_AGE_MAX, SEGMENT_BYTES_MIN};
use trilith::types::NodeId;

use crate::power_cut::{Disk, Frozen, obstacle};
use crate::processes::{PATIENCE, PROGRAM, Trial, beside_few, skip};

const FIRST: NodeId = NodeId(1);
const DISK_FAILED: i32 = 18;

#[test]
fn a_node_whose_disk_refuses_a_write_ends_with_18() {
    let _share = beside_few();
    for io in [None, Some("blocking")] {
        // Superblock and events still fit, segments do not.
        let trial = refuse_writes(io, 16 << 10);
        assert!(says_why(&trial), "{}", trial.log(FIRST));
    }
}

#[test]
fn a_node_that_cannot_say_why_ends_with_18_all_the_same() {
    let _share = beside_few();
    // Its events lie on a disk that takes nothing, either.
    let trial = refuse_writes(None, 0);
    assert!(!says_why(&trial), "{}", trial.log(FIRST));
}

/// Runs a node until no file may grow, or be written, beyond so many bytes.
fn refuse_writes(io: Option<&str>, bytes: u64) -> Trial {
    let home = tempfile::tempdir().expect("a directory can be made");
    // The limit must come as an error, not as a signal.
    let program = home.path().join("program");
    fs::write(&program, format!("#!/bin/sh\ntrap '' XFSZ\nexec {PROGRAM} \"$@\"\n")).expect("it can be written");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("it is ours");
    let mut trial = trial(home, &program, io);
    trial.start_all();
    let _writer = Writer::start(&trial);
    let child = trial.cluster.child(FIRST).expect("it was started");
    let limit = Rlimit { current: Some(bytes), maximum: Some(bytes) };
    prlimit(pid(child.id()), Resource::Fsize, limit).expect("it is our child");
    assert_eq!(ended(&mut trial, Duration::from_secs(20)), Some(DISK_FAILED), "{}", trial.log(FIRST));
    trial
}

/// By both ways to the disk at once: each waits for half a minute.
#[test]
fn a_node_whose_disk_hangs_says_so_and_waits_for_no_thread() {
    let _share = beside_few();
    std::thread::scope(|scope| {
        scope.spawn(|| hang("a hung disk, blocking", "blocking"));
        scope.spawn(|| hang("a hung disk, uring", "uring"));
    });
}

/// The disk stands still: writes, and the preparation of segments, block in the kernel.
fn hang(name: &str, io: &str) {
    if let Some((reason, needs)) = obstacle() {
        return skip(name, &reason, &needs);
    }
    let home = tempfile::tempdir().expect("a directory can be made");
    let mut trial = trial(home, Path::new(PROGRAM), Some(io));
    let at = trial.cluster.data_directory(FIRST);
    let disk = Disk::make(&at, &trial.home.path().join("disk"), at.clone()).unwrap_or_else(|error| panic!("{error}"));
    trial.start_all();
    let writer = Writer::start(&trial);
    std::thread::sleep(Duration::from_millis(500));
    let frozen = Frozen::freeze(&at);
    let deadline = Instant::now() + DISK_OPERATION_AGE_MAX + Duration::from_secs(15);
    while !says_why(&trial) {
        assert!(Instant::now() < deadline, "it waits for its disk: {}", trial.log(FIRST));
        std::thread::sleep(Duration::from_millis(50));
    }
    // The kernel takes a process away only when its last thread has come out of the disk.
    drop(frozen);
    assert_eq!(ended(&mut trial, Duration::from_secs(20)), Some(DISK_FAILED), "{}", trial.log(FIRST));
    drop((writer, trial.cluster));
    drop(disk);
}

#[test]
fn the_nodes_of_dev_and_demo_end_with_their_parent() {
    let _share = beside_few();
    let home = tempfile::tempdir().expect("a directory can be made");
    for arguments in [["dev", "--nodes", "3"], ["demo", "--records", "500000"]] {
        let mut parent = Parent::start(&home.path().join(arguments[0]), &arguments);
        let deadline = Instant::now() + PATIENCE;
        while children(parent.process.id()).len() < 3 {
            assert!(Instant::now() < deadline, "three nodes are started");
            std::thread::sleep(Duration::from_millis(10));
        }
        // Each has begun to serve, and to read its standard input.
        std::thread::sleep(Duration::from_secs(1));
        let nodes = children(parent.process.id());
        parent.process.kill().expect("it is our child");
        parent.process.wait().expect("it is our child");
        let deadline = Instant::now() + Duration::from_secs(20);
        while nodes.iter().any(|node| is_alive(*node)) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
        let left: Vec<u32> = nodes.into_iter().filter(|node| is_alive(*node)).collect();
        // Whatever the verdict, nothing stays behind.
        for node in left.iter().filter_map(|node| pid(*node)) {
            let _ended_meanwhile = kill_process(node, Signal::KILL);
        }
        assert!(left.is_empty(), "{arguments:?} left nodes behind: {left:?}");
    }
}

#[test]
fn dev_starts_a_node_again_until_it_serves() {
    let _share = beside_few();
    let home = tempfile::tempdir().expect("a directory can be made");
    let at = home.path().join("cluster");
    let mut parent = Parent::start(&at, &["dev", "--nodes", "2"]);
    let greeting = parent.line("node 1 serves");
    let number = greeting.rsplit("process ").next().expect("a number").trim_end_matches(')');
    parent.line("Ctrl-C");
    let (file, away) = (at.join("node-1.toml"), at.join("away"));
    fs::rename(&file, &away).expect("it is there");
    kill_process(pid(number.parse().expect("a number")).expect("a process"), Signal::KILL).expect("it runs");
    parent.line("node 1 ended");
    let first = parent.line("node 1 does not serve");
    assert!(first.ends_with("again in 2s"), "{first}");
    let second = parent.line("node 1 does not serve");
    assert!(second.ends_with("again in 4s"), "{second}");
    fs::rename(&away, &file).expect("it can be put back");
    parent.line("node 1 serves");
    let nodes = children(parent.process.id());
    assert_eq!(nodes.len(), 2, "the other one was left alone");
    kill_process(pid(parent.process.id()).expect("a process"), Signal::TERM).expect("it runs");
    assert!(parent.process.wait().expect("it is our child").success());
}

#[test]
fn a_node_that_does_not_end_costs_the_others_nothing() {
    let _share = beside_few();
    let mut trial = Trial::start(3, None);
    let paused = trial.cluster.child(FIRST).expect("it was started");
    paused.pause(true).unwrap_or_else(|failure| panic!("{failure}"));
    let failure = trial.cluster.stop_all(Duration::from_secs(2)).expect_err("one did not end");
    assert!(failure.message.contains("was killed"), "{failure}");
    for node in trial.cluster.nodes().collect::<Vec<_>>() {
        assert!(trial.cluster.child(node).is_none(), "node {node} was waited for");
    }
}

/// One node with many small segments, not started.
fn trial(home: TempDir, program: &Path, io: Option<&str>) -> Trial {
    let options = LocalOptions { nodes: 1, segment_bytes: SEGMENT_BYTES_MIN, io: io.map(str::to_owned) };
    let cluster = LocalCluster::prepare(&home.path().join("cluster"), program, &options);
    Trial { cluster: cluster.unwrap_or_else(|failure| panic!("{failure}")), home }
}

fn says_why(trial: &Trial) -> bool {
    trial.log(FIRST).lines().any(|line| line.starts_with("next: check the disk"))
}

fn ended(trial: &mut Trial, patience: Duration) -> Option<i32> {
    let child = trial.cluster.child(FIRST).expect("it was started");
    let deadline = Instant::now() + patience;
    while Instant::now() < deadline {
        if let Some(status) = child.ended() {
            return Some(status.code().unwrap_or(-1));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    None
}

/// Appends for as long as it can.
struct Writer(Child);

impl Writer {
    fn start(trial: &Trial) -> Writer {
        let mut command = Command::new(PROGRAM);
        command.args(["log", "append", "-", "--client"]).arg(trial.cluster.client_file());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let mut input = child.as_mut().expect("the binary runs").stdin.take().expect("it is piped");
        std::thread::spawn(move || {
            let line = [&[b'x'; 8000][..], b"\n"].concat();
            while input.write_all(&line).is_ok() {}
        });
        Writer(child.expect("the binary runs"))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.0.kill().and_then(|()| self.0.wait()).expect("it is our child");
    }
}

/// `trilith dev` or `demo`. Killed when dropped.
struct Parent {
    process: Child,
    lines: Receiver<String>,
}

impl Parent {
    fn start(at: &Path, arguments: &[&str]) -> Parent {
        let mut command = Command::new(PROGRAM);
        command.args(arguments).arg("--dir").arg(at).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut process = command.spawn().expect("the binary runs");
        let output = BufReader::new(process.stdout.take().expect("it is piped"));
        let (sender, lines) = channel();
        std::thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Parent { process, lines }
    }

    /// The next line with these words.
    fn line(&self, words: &str) -> String {
        loop {
            let line = self.lines.recv_timeout(PATIENCE);
            let line = line.unwrap_or_else(|error| panic!("{words:?} is not said: {error}"));
            if line.contains(words) {
                return line;
            }
        }
    }
}

impl Drop for Parent {
    fn drop(&mut self) {
        self.process.kill().and_then(|()| self.process.wait()).expect("it is our child");
    }
}

fn pid(id: u32) -> Option<Pid> {
    i32::try_from(id).ok().and_then(Pid::from_raw)
}

/// The processes that this one has started and that run.
fn children(parent: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc").expect("it is there").flatten();
    let ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    ids.filter(|id| is_alive(*id) && stat(*id).is_some_and(|(_, found)| found == parent)).collect()
}

/// One that has ended and waits to be fetched does not count.
fn is_alive(id: u32) -> bool {
    stat(id).is_some_and(|(state, _)| state != "Z" && state != "X")
}

/// State and parent.
fn stat(id: u32) -> Option<(String, u32)> {
    let text = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // The name before may hold anything, brackets and spaces too.
    let mut fields = text.rsplit(") ").next()?.split(' ');
    Some((fields.next()?.to_owned(), fields.next()?.parse().ok()?))
}
