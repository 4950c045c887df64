//! A node whose disk its log has filled: what is trimmed makes room again, for the log and for others, and writing goes on.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use trilith::cli::local::{LocalCluster, LocalOptions};
use trilith::types::NodeId;

use crate::full_disk::Small;
use crate::member_waits::{order, told};
use crate::processes::{PATIENCE, PROGRAM, Trial, alone, trilith};
use crate::purging::disk_bytes;
use crate::snapshot_kills::copy;
use crate::snapshots::view;

const NODE: NodeId = NodeId(1);
const SEGMENT_BYTES: u64 = 2 << 20;
const DISK_MIB: u64 = 49;
const RECORD_BYTES: usize = 64 << 10;
/// More than the disk has room for.
const RECORDS: usize = 1_000;
/// A segment or two in use, three that stand ready, three that are kept for use again, and one on its way.
const LEFT_BYTES: u64 = 9 * SEGMENT_BYTES;
const DONE: i32 = 0;
const NO_SPACE: i32 = 13;
/// Long enough for the disk to fill, and 2.5 s before it is over nothing is tried any more: a leader says within two seconds
/// what becomes of a request, so that the outcome is known each time.
const TIMEOUT: &str = "15";
/// As many at once come to a disk that is full already.
const COMERS: usize = 3;

#[test]
fn what_is_trimmed_on_a_full_disk_makes_room_and_writing_goes_on() {
    let _alone = alone();
    let home = tempfile::tempdir().expect("a directory can be made");
    let options = LocalOptions { nodes: 1, segment_bytes: SEGMENT_BYTES, io: None };
    let cluster = LocalCluster::prepare(&home.path().join("cluster"), Path::new(PROGRAM), &options);
    let mut trial = Trial { cluster: cluster.unwrap_or_else(|failure| panic!("{failure}")), home };
    let at = trial.cluster.data_directory(NODE);
    let aside = at.with_extension("aside");
    fs::rename(&at, &aside).and_then(|()| fs::create_dir(&at)).expect("they can be put aside");
    let Some(_small) = Small::mounted_at("full_node", &at, DISK_MIB) else { return };
    copy(&aside, &at);
    trial.start_node(NODE);
    let (client, admin) = (trial.cluster.client_file(), trial.cluster.admin_file());

    // Twice: what is used again fills the disk, too.
    for round in 0..2_u8 {
        let first = filled(&trial, round);
        let full_bytes = disk_bytes(&trial, NODE);
        assert!(full_bytes + 6 * SEGMENT_BYTES > DISK_MIB << 20, "round {round}: {full_bytes} bytes");
        // By entries that are let in where a client's are not, and snapshots that take what the log has no use for.
        let before = (first + 1).to_string();
        told(&trilith(&admin, &["log", "trim", "--before", &before]), 0, &[]);
        for _ in 0..2 {
            told(&order(&trial, &["snapshot", "--timeout", "60"]), 0, &["a snapshot at"]);
        }
        let deadline = Instant::now() + PATIENCE;
        while disk_bytes(&trial, NODE) > LEFT_BYTES {
            assert!(Instant::now() < deadline, "{} bytes stay: {:?}", disk_bytes(&trial, NODE), view(&trial, NODE));
            std::thread::sleep(Duration::from_millis(50));
        }
        let left_bytes = disk_bytes(&trial, NODE);
        println!("round {round}: {full_bytes} bytes of log, {left_bytes} behind the trim at {before}");
        append(&trial, round, 3, DONE);
        let read = trilith(&client, &["log", "read", "--from", &before]);
        told(&read, 0, &[]);
        assert!(read.stdout.len() > 3 * RECORD_BYTES);
    }
    trial.kill(NODE);
    trial.start_node(NODE);
    append(&trial, 7, 3, DONE);
    assert!(disk_bytes(&trial, NODE) <= LEFT_BYTES);
    trial.cluster.stop_all(PATIENCE).unwrap_or_else(|failure| panic!("{failure}"));
}

/// Appends until there is no room; gives the index of the last record that was taken.
fn filled(trial: &Trial, round: u8) -> u64 {
    let mut indexes = append(trial, round, RECORDS, NO_SPACE);
    assert!(indexes.len() > 100, "{} records of {RECORD_BYTES} bytes", indexes.len());
    // What comes to a disk that is full already is told the same, and in the same words.
    std::thread::scope(|scope| {
        let comers = [(); COMERS].map(|()| scope.spawn(|| append(trial, round, RECORDS, NO_SPACE)));
        comers.into_iter().for_each(|comer| indexes.extend(comer.join().expect("each ends as it must")));
    });
    *indexes.iter().max().expect("there are some")
}

/// Appends records, which ends so; gives the indexes of those that were taken.
fn append(trial: &Trial, round: u8, records: usize, code: i32) -> Vec<u64> {
    let file = tempfile::NamedTempFile::new_in(trial.home.path()).expect("the ground is ours");
    let line = format!("{}\n", char::from(b'a' + round).to_string().repeat(RECORD_BYTES));
    fs::write(file.path(), line.repeat(records)).expect("the ground is ours");
    let mut command = Command::new(PROGRAM);
    command.args(["log", "append"]).arg(file.path()).arg("--client").arg(trial.cluster.client_file());
    // On a full disk it is sent again until its time is over.
    let said = command.args(["--timeout", TIMEOUT]).output().expect("the binary runs");
    let error = String::from_utf8_lossy(&said.stderr).into_owned();
    assert_eq!(said.status.code(), Some(code), "{}: {error}", said.status);
    let printed = String::from_utf8_lossy(&said.stdout).into_owned();
    if code == NO_SPACE {
        assert!(error.contains("disk is full") && error.contains("next: free space"), "{error}");
        assert!(error.contains("nothing from there on"), "{error}");
    }
    printed.lines().map(|line| line.parse().expect("an index")).collect()
}
