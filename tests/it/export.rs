//! A backup of a cluster that runs, and a new cluster that begins with it: over real processes.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use trilith::net::Consistency;
use trilith::types::NodeId;

use crate::member_waits::told;
use crate::processes::{PATIENCE, PROGRAM, Trial, alone, block_on};
use crate::snapshots::connected;

const VALUE_BYTES: usize = 500 << 10;
const CHUNK_BYTES: usize = 1 << 20;

fn export(client: &Path, to: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args(["snapshot", "export"]).arg(to).args(arguments).arg("--client").arg(client);
    if !arguments.contains(&"--timeout") {
        command.args(["--timeout", "30"]);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn done(mut command: Command) -> serde_json::Value {
    let output = command.args(["-o", "json"]).output().expect("the binary runs");
    told(&output, 0, &[]);
    serde_json::from_slice(&output.stdout).expect("it is JSON")
}

fn offline(arguments: &[&str], directory: &Path, rest: &[&Path]) -> Output {
    let mut command = Command::new(PROGRAM);
    command.args(arguments).arg(directory).args(rest).output().expect("the binary runs")
}

/// No zeros, which a file has where nothing was written yet.
fn value(key: u64) -> Bytes {
    Bytes::from(vec![key as u8 | 1; VALUE_BYTES])
}

fn put(trial: &Trial, keys: std::ops::Range<u64>) {
    block_on(async {
        let client = connected(trial).await;
        for key in keys {
            client.put(Bytes::from(key.to_string()), value(key)).await.expect("it is taken");
        }
    });
}

/// Writes until it is told to end, and counts what was acknowledged.
fn write_on(trial: &Trial, from: u64, acknowledged: &AtomicU64, is_over: &AtomicBool) {
    block_on(async {
        let client = connected(trial).await;
        for key in from.. {
            if is_over.load(Ordering::Acquire) {
                return;
            }
            client.put(Bytes::from(key.to_string()), value(key)).await.expect("it is taken");
            acknowledged.store(key + 1, Ordering::Release);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
}

/// A new cluster begins with the backup; all keys below are there. What came later may be there.
fn restored_has(backup: &Path, keys: u64) {
    let mut new = Trial::prepare(1, None);
    fs::remove_dir_all(new.cluster.data_directory(NodeId(1))).expect("it is ours");
    let configuration = new.cluster.configuration_file(NodeId(1));
    let restored = offline(&["snapshot", "restore"], backup, &[Path::new("--config"), &configuration]);
    told(&restored, 0, &["it begins with the state of cluster"]);
    new.start_all();
    block_on(async {
        let client = connected(&new).await;
        for key in 0..keys {
            let found = client.get(Bytes::from(key.to_string()), Consistency::Linearizable).await;
            assert!(found.expect("it answers") == Some(value(key)), "key {key}");
        }
    });
}

/// What is there of the only snapshot in a backup that is under way: chunks that were written whole.
fn arrived(backup: &Path) -> usize {
    let Some(name) = fs::read_dir(backup).ok().and_then(|mut entries| entries.next()?.ok()) else { return 0 };
    let Ok(bytes) = fs::read(name.path().join("chunks")) else { return 0 };
    bytes.chunks(CHUNK_BYTES).filter(|chunk| chunk.last() != Some(&0)).count()
}

fn until_arrived(backup: &Path, chunks: usize) {
    let deadline = Instant::now() + PATIENCE;
    while arrived(backup) < chunks {
        assert!(Instant::now() < deadline, "{} chunks", arrived(backup));
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_backup_of_a_cluster_that_is_written_to_holds_all_that_was_acknowledged_before() {
    let _alone = alone();
    let mut old = Trial::start(3, None);
    let backup = old.home.path().join("backup");
    put(&old, 0..6);
    let (acknowledged, is_over) = (AtomicU64::new(6), AtomicBool::new(false));
    let before = std::thread::scope(|scope| {
        let writing = scope.spawn(|| write_on(&old, 6, &acknowledged, &is_over));
        while acknowledged.load(Ordering::Acquire) < 8 {
            std::thread::sleep(Duration::from_millis(10));
        }
        let before = acknowledged.load(Ordering::Acquire);
        let told = done(export(&old.cluster.admin_file(), &backup, &[]));
        is_over.store(true, Ordering::Release);
        writing.join().expect("all was taken");
        assert!(told["bytes"].as_u64().expect("a number") > before * VALUE_BYTES as u64, "{told}");
        assert_eq!(told["chunks"], told["chunks_received"], "{told}");
        assert!(told["lacks"].as_str().expect("a text").contains("trilith log"), "{told}");
        before
    });
    old.cluster.kill_all().unwrap_or_else(|failure| panic!("{failure}"));
    told(&offline(&["snapshot", "verify"], &backup, &[]), 0, &["ok: 1 snapshot"]);
    restored_has(&backup, before);
}

#[test]
fn a_client_may_not_and_nothing_is_written_over_what_is_there() {
    let _alone = alone();
    let mut trial = Trial::start(1, None);
    let (client, admin) = (trial.cluster.client_file(), trial.cluster.admin_file());
    let home = trial.home.path().to_owned();
    let at = |name: &str| home.join(name);
    let run = |client: &PathBuf, to: &str, arguments: &[&str]| {
        export(client, &at(to), arguments).output().expect("the binary runs")
    };
    put(&trial, 0..2);
    told(&run(&admin, "none", &["--newest"]), 16, &["no node that answers has a snapshot", "leave --newest out"]);
    assert!(!at("none").exists());
    told(&run(&client, "client", &[]), 15, &["use an admin's certificate"]);
    assert!(!at("client").exists());
    // Whether there is a place for it is found out before a snapshot is ordered: there is none after this.
    fs::create_dir(at("locked")).expect("it can be made");
    let lock = fs::File::open(at("locked")).expect("it can be read");
    lock.lock().expect("nobody has it");
    told(&run(&admin, "locked", &[]), 19, &["another command writes into it"]);
    drop(lock);
    told(&run(&admin, "none", &["--newest"]), 16, &["no node that answers has a snapshot"]);
    told(&run(&admin, "first", &[]), 0, &["at entry", "1 chunk", "not in it: records", "snapshot restore"]);
    put(&trial, 2..3);
    // Now there is one, and to see it is no way round.
    let refused = run(&client, "client", &["--newest"]);
    told(&refused, 15, &["does not let this certificate fetch", "use a certificate of an administrator"]);
    told(&run(&admin, "second", &["--newest"]), 0, &["at entry"]);
    let names =
        |name: &str| fs::read_dir(at(name)).unwrap().map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>();
    assert_eq!(names("first"), names("second"));
    told(
        &run(&admin, "first", &[]),
        2,
        &["first is not empty: it holds snapshot-", "name a directory that is not there"],
    );
    told(&run(&admin, "first", &[]), 2, &["that is a whole snapshot", "snapshot verify"]);
    fs::create_dir(at("mine")).expect("it can be made");
    fs::write(at("mine").join("a file"), "of mine").expect("it can be written");
    told(&run(&admin, "mine", &["--newest"]), 2, &["mine is not empty: it holds a file"]);
    told(&run(&admin, "no/parent", &["--newest"]), 12, &["no"]);
    fs::create_dir(at("empty")).expect("it can be made");
    told(&run(&admin, "empty", &["--newest"]), 0, &["at entry"]);
    told(&offline(&["snapshot", "verify"], &at("empty"), &[]), 0, &["ok: 1 snapshot"]);
    // That nobody answers is another thing than that nobody has one.
    trial.kill(NodeId(1));
    let silent = ["node 1 at ", "has not answered within 2s", "no node has answered within 2s", "cluster status"];
    told(&run(&admin, "gone", &["--newest"]), 16, &silent);
    assert!(!at("gone").exists());
}

#[test]
fn an_export_that_is_killed_goes_on_where_it_was_and_another_node_takes_the_place_of_one_that_dies() {
    let _alone = alone();
    let mut trial = Trial::start(3, None);
    let (admin, backup) = (trial.cluster.admin_file(), trial.home.path().join("backup"));
    put(&trial, 0..20);
    let slowly = ["--bytes-per-second", "2000000"];
    let mut first = export(&admin, &backup, &slowly).spawn().expect("the binary runs");
    until_arrived(&backup, 3);
    let second = export(&admin, &backup, &slowly).output().expect("the binary runs");
    told(&second, 19, &["another command writes into it"]);
    first.kill().expect("it is ours");
    first.wait().expect("it has ended");
    let here = arrived(&backup);
    assert!((3..9).contains(&here), "{here}");
    told(&offline(&["snapshot", "inspect"], &backup, &[]), 0, &["being received"]);
    let verified = offline(&["snapshot", "verify"], &backup, &[]);
    told(&verified, 10, &["it is not finished", "snapshot export"]);
    // Written behind the point: not in it, though the command is given anew.
    put(&trial, 20..21);
    let mut again = export(&admin, &backup, &slowly);
    let again = again.args(["-o", "json"]).spawn().expect("the binary runs");
    until_arrived(&backup, here + 2);
    trial.kill(trial.leader());
    let output = again.wait_with_output().expect("it has ended");
    told(&output, 0, &["goes on with the snapshot at"]);
    let shown: serde_json::Value = serde_json::from_slice(&output.stdout).expect("it is JSON");
    let chunks = shown["chunks"].as_u64().expect("a number") as usize;
    let received = shown["chunks_received"].as_u64().expect("a number") as usize;
    assert_eq!(received, chunks - here, "none is sent twice: {shown}");
    trial.cluster.kill_all().unwrap_or_else(|failure| panic!("{failure}"));
    told(&offline(&["snapshot", "verify"], &backup, &[]), 0, &["ok: 1 snapshot"]);
    restored_has(&backup, 20);
}

/// Until all nodes have a snapshot that was ordered now.
fn snapshot_on_all(trial: &Trial) {
    let ordered = crate::member_waits::order(trial, &["snapshot"]);
    told(&ordered, 0, &[]);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let statuses = block_on(async { connected(trial).await.statuses().await });
        let mut all = statuses.iter().map(|(.., status)| status.as_ref().is_ok_and(|of| of.snapshots.last.is_some()));
        if all.all(|has| has) {
            return;
        }
        assert!(Instant::now() < deadline, "{statuses:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_node_that_restarts_is_waited_for() {
    let _alone = alone();
    let mut trial = Trial::start(1, None);
    let (admin, backup) = (trial.cluster.admin_file(), trial.home.path().join("backup"));
    put(&trial, 0..10);
    let mut running = export(&admin, &backup, &["--bytes-per-second", "1500000"]).spawn().expect("the binary runs");
    let said = running.stderr.take().expect("it is a pipe");
    until_arrived(&backup, 2);
    trial.kill(NodeId(1));
    // Longer than nodes wait for each other's answers: then it ended.
    let mut lines = BufReader::new(said).lines().map(|line| line.expect("it is text"));
    assert!(lines.any(|line| line.contains("looking again")), "it ended: {:?}", running.wait());
    trial.start_node(NodeId(1));
    let rest: Vec<String> = lines.collect();
    assert!(running.wait().expect("it has ended").success(), "{rest:?}");
    told(&offline(&["snapshot", "verify"], &backup, &[]), 0, &["ok: 1 snapshot"]);
}

/// A majority is gone, and what it had is wanted the more.
#[test]
fn what_is_there_already_is_fetched_without_a_leader() {
    let _alone = alone();
    let mut trial = Trial::start(3, None);
    let admin = trial.cluster.admin_file();
    let at = |name: &str| trial.home.path().join(name);
    let (begun, newest) = (at("begun"), at("newest"));
    put(&trial, 0..8);
    snapshot_on_all(&trial);
    let mut broken_off = export(&admin, &begun, &["--newest", "--bytes-per-second", "2000000"]);
    let mut broken_off = broken_off.spawn().expect("the binary runs");
    until_arrived(&begun, 1);
    broken_off.kill().expect("it is ours");
    broken_off.wait().expect("it has ended");
    let leader = trial.leader();
    trial.kill(leader);
    trial.kill(NodeId(leader.0 % 3 + 1));
    let soon = ["--newest", "--timeout", "3"];
    told(&export(&admin, &newest, &soon).output().expect("the binary runs"), 0, &["at entry"]);
    told(
        &export(&admin, &begun, &soon[1..]).output().expect("the binary runs"),
        0,
        &["goes on with the snapshot at", "at entry"],
    );
    for backup in [begun, newest] {
        told(&offline(&["snapshot", "verify"], &backup, &[]), 0, &["ok: 1 snapshot"]);
    }
    let ordered = trial.home.path().join("ordered");
    told(&export(&admin, &ordered, &soon[1..]).output().expect("the binary runs"), 16, &[]);
    assert!(!ordered.exists());
}
