//! C7 over real processes: a node is killed at each step of giving up a part of its log.
//!
//! As in [`crate::snapshot_kills`] the very request is held back that makes the step, and each has the same three ends. What is
//! trimmed is gone for readers as soon as that is acknowledged; the segments go when two snapshots hold what was in them, some
//! of them to be used again, the others for good. After each kill the node starts again, all acknowledged records behind the
//! last trim are there as they were written, and none before it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use trilith::cli::local::{LocalCluster, LocalOptions};
use trilith::net::Consistency;
use trilith::types::Index;

use crate::forgetful::obstacle;
use crate::forgetful::steps::{Act, Let, Step};
use crate::member_waits::told;
use crate::processes::{PATIENCE, PROGRAM, Trial, beside_one, block_on, connect, skip, trilith};
use crate::snapshot_kills::{ENDS, FIRST, OnForgetful, hurry};
use crate::snapshots::connected;

const SEGMENT_BYTES: u64 = 256 << 10;
const RECORD_BYTES: usize = 16 << 10;
/// Of records, in a request.
const BATCH: u64 = 2;
/// Of records: ten segments are full of them, more than stand ready and are kept for use again.
const ROUND: u64 = 120;
/// A log that needs its newest segment or two: three that stand ready, three that are kept for use again, and one on its way.
const FILES_MAX: usize = 9;

/// In what it falls.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum During {
    /// The second snapshot since the trim.
    Snapshot,
    /// Appends that fill the next segments.
    Appends,
}

const STEPS: [(&str, During, Step); 11] = [
    (
        "the superblock that names the newer snapshot",
        During::Snapshot,
        Step::new(Act::Write, "superblock").behind(Act::Rename, "snapshot-*.making"),
    ),
    (
        "the superblock's second pair",
        During::Snapshot,
        Step::new(Act::Write, "superblock").skip(1).behind(Act::Rename, "snapshot-*.making"),
    ),
    (
        "the log's next frame",
        During::Snapshot,
        Step::new(Act::Write, "log/*.segment").behind(Act::Remove, "snapshot-*.removing"),
    ),
    ("a segment's removal", During::Snapshot, Step::new(Act::Remove, "log/*.segment")),
    ("its flush", During::Snapshot, Step::new(Act::FlushDirectory, "log").behind(Act::Remove, "log/*.segment")),
    ("another segment's removal", During::Snapshot, Step::new(Act::Remove, "log/*.segment").skip(1)),
    ("taking the name of one that is used again", During::Appends, Step::new(Act::Rename, "log/*.segment")),
    ("the flush of that", During::Appends, Step::new(Act::FlushDirectory, "log").behind(Act::Rename, "log/*.segment")),
    ("its zeros", During::Appends, Step::new(Act::Write, "log/*.preparing").behind(Act::Rename, "log/*.segment")),
    (
        "the flush of its zeros",
        During::Appends,
        Step::new(Act::Flush, "log/*.preparing").behind(Act::Rename, "log/*.segment"),
    ),
    ("its new name", During::Appends, Step::new(Act::Rename, "log/*.preparing").behind(Act::Rename, "log/*.segment")),
];

#[test]
fn a_node_that_is_killed_at_each_step_of_giving_up_its_log_has_all_that_was_not_trimmed() {
    let _share = beside_one();
    if let Some((reason, needs)) = obstacle() {
        return skip("purging_kills", &reason, &needs);
    }
    let begin = Instant::now();
    for (seed, end) in (1..).zip(ENDS) {
        let mut log = Log::start();
        log.write();
        log.trial.snapshot();
        for (name, during, step) in STEPS {
            log.write();
            log.trim();
            log.trial.snapshot();
            if during == During::Appends {
                // There is one to be used again.
                log.purged(end);
            }
            let (client, records) = (log.trial.inner.cluster.client_file(), log.unknown());
            log.trial.kill_at(FIRST, FIRST, name, step, end, seed, |trial| {
                Some(if during == During::Snapshot { trial.order() } else { append(&client, &records) })
            });
            log.trial.inner.start_node(FIRST);
            log.check(&format!("{name}, {end:?}"));
        }
        log.write();
        log.trim();
        log.trial.snapshot();
        log.purged(end);
        log.check(&format!("in the end, {end:?}"));
        let written = log.acknowledged.len();
        println!("purging, {end:?}: {} kills, each at its step; {written} records, {} files", STEPS.len(), log.files());
    }
    println!("logs purged and killed: {:.1?}", begin.elapsed());
}

/// A node that keeps its log on a disk of the test's own, and what it was given.
struct Log {
    trial: OnForgetful,
    acknowledged: BTreeMap<Index, Bytes>,
    /// Records below are trimmed.
    first: Index,
}

impl Log {
    fn start() -> Log {
        let home = tempfile::tempdir().expect("a directory can be made");
        let options = LocalOptions { nodes: 1, segment_bytes: SEGMENT_BYTES, io: None };
        let cluster = LocalCluster::prepare(&home.path().join("cluster"), Path::new(PROGRAM), &options);
        let trial = Trial { cluster: cluster.unwrap_or_else(|failure| panic!("{failure}")), home };
        hurry(&trial);
        Log { trial: OnForgetful::of(trial), acknowledged: BTreeMap::new(), first: Index::FIRST }
    }

    fn write(&mut self) {
        block_on(async {
            let client = connected(&self.trial.inner).await;
            for _ in 0..ROUND / BATCH {
                let from = self.acknowledged.len() as u64;
                let records: Vec<Bytes> = (from..from + BATCH).map(record).collect();
                let indexes = client.append_batch(records.clone()).await.expect("it is taken");
                self.acknowledged.extend(indexes.into_iter().zip(records));
            }
        });
    }

    /// All but the newest of what was acknowledged.
    fn trim(&mut self) {
        let last = self.acknowledged.last_key_value().expect("there are some").0;
        self.first = Index(last.0 - BATCH);
        let before = self.first.to_string();
        told(&trilith(&self.trial.inner.cluster.admin_file(), &["log", "trim", "--before", &before]), 0, &[]);
    }

    /// With a second snapshot behind the trim all that was trimmed goes.
    fn purged(&self, end: Let) {
        self.trial.snapshot();
        let deadline = Instant::now() + PATIENCE;
        while self.files() > FILES_MAX {
            assert!(Instant::now() < deadline, "{end:?}: {} files stay", self.files());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Records of which nobody hears what became, and the file they are in.
    fn unknown(&self) -> std::path::PathBuf {
        let file = self.trial.inner.home.path().join("unknown");
        let line = format!("{}\n", "u".repeat(RECORD_BYTES));
        fs::write(&file, line.repeat(ROUND as usize)).expect("the ground is ours");
        file
    }

    /// Of segments, whatever they are for.
    fn files(&self) -> usize {
        let log = self.trial.inner.cluster.data_directory(FIRST).join("log");
        fs::read_dir(log).expect("it is there").count()
    }

    /// What is to be read is what was acknowledged, and nothing that nobody wrote.
    fn check(&self, what: &str) {
        let client = self.trial.inner.cluster.client().unwrap_or_else(|failure| panic!("{failure}"));
        let mut found = BTreeMap::new();
        block_on(async {
            // Whoever leads again has committed something: a linearizable read waits for it.
            let leads = connected(&self.trial.inner).await;
            let shown = leads.read(self.first, None, Consistency::Linearizable).await.expect("it answers");
            let mut connection = connect(&client, FIRST, PATIENCE).await.expect("it answers");
            let to = connection.status().await.expect("it answers").commit.next();
            let mut from = self.first;
            found.extend(shown.records);
            while from < to {
                let read = connection.read(from, Some(to), Consistency::Stale).await.expect("it answers");
                assert!(read.next > from, "{what}: nothing at {from} of {to}");
                from = read.next;
                found.extend(read.records);
            }
            let before = self.first.previous();
            if before > Index::ZERO {
                let below = connection.read(before, Some(self.first), Consistency::Stale).await;
                assert!(below.is_err(), "{what}: {before} was trimmed");
            }
        });
        for (index, record) in self.acknowledged.range(self.first..) {
            assert!(found.remove(index).is_some_and(|held| held == record), "{what}: {index} is not as it was");
        }
        let is_unknown = |record: &Bytes| record.len() == RECORD_BYTES && record.iter().all(|byte| *byte == b'u');
        assert!(found.values().all(is_unknown), "{what}: something is there that nobody wrote");
    }
}

fn record(number: u64) -> Bytes {
    Bytes::from([&number.to_le_bytes()[..], &[number as u8; RECORD_BYTES - 8]].concat())
}

/// Goes on until the node is killed.
fn append(client: &Path, records: &Path) -> Child {
    let mut command = Command::new(PROGRAM);
    command.args(["log", "append", "--timeout", "60", "--client"]).arg(client).arg(records);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the binary runs")
}
