//! Oracle E, below what nodes say: their logs as they lie on the disk, entry by entry with its term.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use trilith::cli::local::LocalCluster;
use trilith::types::Index;

use super::PROGRAM;

/// The exit codes of a dump of a whole log, and of one with a last write that was never acknowledged.
const FINE: [i32; 2] = [0, 11];

/// A log as its records make it.
#[derive(Debug, Default)]
pub struct Log {
    /// Term, kind and payload by index.
    entries: BTreeMap<u64, String>,
    /// Entries that were written, and given up for others.
    pub given_up: u64,
}

/// The logs of nodes that have ended, by rising node: the same up to `last`, or this panics.
pub fn compare(cluster: &LocalCluster, last: Index) -> Vec<Log> {
    let logs: Vec<Log> = cluster.nodes().map(|node| Log::read(&cluster.data_directory(node))).collect();
    for (node, log) in cluster.nodes().zip(&logs) {
        assert!(log.entries.keys().copied().take(last.0 as usize).eq(1..=last.0), "node {node} lacks entries");
        for ((index, entry), (_, first)) in log.entries.range(..=last.0).zip(&logs[0].entries) {
            assert_eq!(entry, first, "oracle E: entry {index} of node {node} and of the first node");
        }
    }
    logs
}

impl Log {
    fn read(directory: &Path) -> Log {
        let mut command = Command::new(PROGRAM);
        let dumped = command.args(["wal", "dump"]).arg(directory).output().expect("the binary runs");
        let complaint = String::from_utf8_lossy(&dumped.stderr);
        assert!(dumped.status.code().is_some_and(|code| FINE.contains(&code)), "{}: {complaint}", directory.display());
        let mut log = Log::default();
        String::from_utf8_lossy(&dumped.stdout).lines().skip(1).for_each(|line| log.take(line));
        log
    }

    /// `segment:offset  group  index@term  kind  bytes  payload`, in the order of writing.
    fn take(&mut self, line: &str) {
        let parts: Vec<&str> = line.splitn(4, "  ").collect();
        let [_, _, id, what] = parts[..] else { return assert!(line.starts_with("--"), "no line of a dump: {line}") };
        let (index, term) = id.split_once('@').unwrap_or_else(|| panic!("no line of a dump: {line}"));
        let index: u64 = index.parse().expect("an index is a number");
        let given_up = self.entries.split_off(&index).len() as u64;
        self.given_up += given_up;
        if !what.starts_with("truncate") {
            assert!(!what.starts_with("purge"), "nothing is trimmed in these tests: {line}");
            self.entries.insert(index, format!("{term}  {what}"));
        }
    }
}

#[test]
fn a_log_is_what_was_written_last() {
    let mut log = Log::default();
    let lines = ["1:4096  1  1@1  no-op  0", "1:8192  1  2@1  data  3  \"a  b\"", "1:12288  1  3@1  data  1  \"c\""];
    lines.iter().for_each(|line| log.take(line));
    assert_eq!((log.entries.len(), log.given_up), (3, 0));
    log.take("1:16384  1  2@0  truncate  0");
    log.take("1:16384  1  2@2  no-op  0");
    assert_eq!((log.entries.len(), log.given_up), (2, 2));
    assert_eq!(log.entries[&2], "2  no-op  0");
}
