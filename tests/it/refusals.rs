//! What is refused: with the cause, the next step, and the exit code that scripts know; and nothing is changed.

mod trust;
mod wire;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use trilith::types::NodeId;

use crate::processes::{PATIENCE, PROGRAM, Trial, beside_few, skip};

const FIRST: NodeId = NodeId(1);
const BLOCK_BYTES: usize = 4096;
/// Where a superblock's block has its format version, and its checksum.
const VERSION_AT: usize = 8;
const CHECKSUM_AT: usize = BLOCK_BYTES - 4;

#[test]
fn a_directory_of_another_node_or_cluster_is_refused_and_left_as_it_is() {
    let _share = beside_few();
    let (one, other) = (Trial::prepare(2, None), Trial::prepare(1, None));
    let cases = [
        (one.cluster.data_directory(NodeId(2)), "belongs to node 2"),
        (other.cluster.data_directory(FIRST), "belongs to cluster"),
    ];
    for (directory, words) in cases {
        let before = contents(&directory);
        let configuration = edited(&one, FIRST, "data_directory", &directory);
        refused(&node(&configuration, &[]), 12, &[words, "data_directory"]);
        assert!(contents(&directory) == before, "{words}: it is as it was");
    }
}

#[test]
fn a_directory_that_was_never_made_is_refused_and_not_made() {
    let _share = beside_few();
    let trial = Trial::prepare(1, None);
    let missing = trial.home.path().join("missing");
    refused(&node(&edited(&trial, FIRST, "data_directory", &missing), &[]), 12, &["missing", "trilith init"]);
    assert!(!missing.exists());
    let empty = trial.home.path().join("empty");
    std::fs::create_dir(&empty).expect("a directory can be made");
    refused(&node(&edited(&trial, FIRST, "data_directory", &empty), &[]), 12, &["no superblock", "trilith init"]);
    assert_eq!(contents(&empty), BTreeMap::new());
}

#[test]
fn a_directory_in_use_is_refused_and_its_owner_goes_on() {
    let _share = beside_few();
    let mut trial = Trial::start(1, None);
    let second = node(&trial.cluster.configuration_file(FIRST), &[]);
    refused(&second, 19, &["stop it first"]);
    assert!(trial.cluster.child(FIRST).expect("it was started").ended().is_none());
    append(&trial.cluster.client_file(), b"still here\n");
}

#[test]
fn an_unknown_key_is_refused_and_the_nearest_is_named() {
    let _share = beside_few();
    let trial = Trial::prepare(1, None);
    let path = trial.cluster.configuration_file(FIRST);
    let text = std::fs::read_to_string(&path).expect("it is there").replace("segment_bytes", "segmentbytes");
    std::fs::write(&path, text).expect("it can be written");
    refused(&node(&path, &[]), 2, &["unknown key `segmentbytes`", "did you mean `segment_bytes`?"]);
}

#[test]
fn nodes_whose_segments_hold_different_records_do_not_go_together_and_say_so() {
    let _share = beside_few();
    let mut trial = Trial::prepare(2, None);
    let path = trial.cluster.configuration_file(NodeId(2));
    let text = std::fs::read_to_string(&path).expect("it is there");
    let size = text.lines().find(|line| line.starts_with("segment_bytes")).expect("the key is there").to_owned();
    std::fs::write(&path, text.replace(&size, "segment_bytes = 65536")).expect("it can be written");
    trial.start_all();
    for (node, words) in [(FIRST, "no link"), (NodeId(2), "connection refused")] {
        let deadline = Instant::now() + PATIENCE;
        let says = |log: &str| log.lines().any(|line| line.contains(words) && line.contains("`segment_bytes`"));
        while !says(&trial.log(node)) {
            assert!(Instant::now() < deadline, "{words}: {}", trial.log(node));
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

#[test]
fn a_record_over_the_limit_is_refused_by_its_line_and_those_before_it_are_taken() {
    let _share = beside_few();
    let trial = Trial::start(1, None);
    let input = [b"short\n", &[b'x'; (1 << 20) + 1][..], b"\nnever\n"].concat();
    let output = give(&trial.cluster.client_file(), &input);
    refused(&output, 2, &["standard input:2", "1048576", "split it"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout).lines().count(), 1, "{output:?}");
}

#[test]
fn a_flipped_bit_in_a_covered_frame_is_named_and_nothing_is_cut() {
    let _share = beside_few();
    let trial = stopped_with_records();
    let log = trial.cluster.data_directory(FIRST).join("log");
    let segment = log.join("0000000000000001.segment");
    let mut bytes = std::fs::read(&segment).expect("it is there");
    let found = bytes.windows(6).position(|window| window == b"rec-77").expect("the record is in the first segment");
    bytes[found] ^= 4;
    std::fs::write(&segment, bytes).expect("it can be written");
    let before = contents(&log);
    for _ in 0..2 {
        let output = node(&trial.cluster.configuration_file(FIRST), &[]);
        refused(&output, 10, &["0000000000000001.segment", "corrupt", "trilith wal repair"]);
        assert!(contents(&log) == before, "nothing was cut and nothing was changed");
    }
}

#[test]
fn a_superblock_damaged_in_both_pairs_is_refused() {
    let _share = beside_few();
    let trial = stopped_with_records();
    let file = trial.cluster.data_directory(FIRST).join("superblock");
    let mut bytes = std::fs::read(&file).expect("it is there");
    for block in [0, 2] {
        bytes[block * BLOCK_BYTES + 40] ^= 1;
    }
    std::fs::write(&file, bytes).expect("it can be written");
    let before = contents(&trial.cluster.data_directory(FIRST));
    refused(&node(&trial.cluster.configuration_file(FIRST), &[]), 10, &["superblock"]);
    assert!(contents(&trial.cluster.data_directory(FIRST)) == before, "nothing was changed");
}

#[test]
fn a_newer_format_is_refused_and_left_as_it_is() {
    let _share = beside_few();
    let trial = stopped_with_records();
    let file = trial.cluster.data_directory(FIRST).join("superblock");
    let mut bytes = std::fs::read(&file).expect("it is there");
    for block in bytes.chunks_mut(BLOCK_BYTES) {
        block[VERSION_AT] += 1;
        let checksum = crc32fast::hash(&block[..CHECKSUM_AT]);
        block[CHECKSUM_AT..].copy_from_slice(&checksum.to_le_bytes());
    }
    std::fs::write(&file, bytes).expect("it can be written");
    let before = contents(&trial.cluster.data_directory(FIRST));
    refused(&node(&trial.cluster.configuration_file(FIRST), &[]), 20, &["version", "or newer"]);
    assert!(contents(&trial.cluster.data_directory(FIRST)) == before, "nothing was changed");
}

/// Where a segment's header has its format version; the header is the first block and the last.
#[test]
fn segments_of_a_newer_format_are_refused_and_left_as_they_are() {
    let _share = beside_few();
    let trial = stopped_with_records();
    let directory = trial.cluster.data_directory(FIRST);
    for (path, mut bytes) in contents(&directory.join("log")) {
        let last = bytes.len() - BLOCK_BYTES;
        for block in [0, last] {
            bytes[block + VERSION_AT] += 1;
        }
        std::fs::write(path, bytes).expect("it can be written");
    }
    let before = contents(&directory.join("log"));
    refused(&node(&trial.cluster.configuration_file(FIRST), &[]), 20, &["version", "or newer"]);
    assert!(contents(&directory.join("log")) == before, "the log is as it was");
}

/// The same cluster and the same node, made anew.
#[test]
fn segments_of_another_incarnation_are_refused_and_left_as_they_are() {
    let _share = beside_few();
    let trial = stopped_with_records();
    let (directory, anew) = (trial.cluster.data_directory(FIRST), trial.home.path().join("anew"));
    let configuration = edited(&trial, FIRST, "data_directory", &anew);
    let made = Command::new(PROGRAM).args(["init", "--initial", "--config"]).arg(configuration).output();
    assert!(made.as_ref().is_ok_and(|made| made.status.success()), "{made:?}");
    std::fs::rename(directory.join("log"), trial.home.path().join("old-log")).expect("it is there");
    std::fs::rename(anew.join("log"), directory.join("log")).expect("it is there");
    let before = contents(&directory.join("log"));
    let output = node(&trial.cluster.configuration_file(FIRST), &[]);
    refused(&output, 12, &["incarnation", "put back what belongs here"]);
    assert!(contents(&directory.join("log")) == before, "the log is as it was");
}

#[test]
fn io_uring_insisted_on_where_it_cannot_be_used_is_refused() {
    let _share = beside_few();
    let trial = Trial::prepare(1, None);
    let at = trial.home.path().join("no-direct");
    std::fs::create_dir(&at).expect("a directory can be made");
    let Some(_mount) = WithoutDirect::mount(&at) else {
        return skip("refusals::io_uring", "a file system without O_DIRECT (ramfs) cannot be mounted", "");
    };
    let data = at.join("data");
    let copied = Command::new("cp").arg("-r").arg(trial.cluster.data_directory(FIRST)).arg(&data).status();
    assert!(copied.expect("cp runs").success());
    let configuration = edited(&trial, FIRST, "data_directory", &data);
    refused(&node(&configuration, &["--io", "uring"]), 14, &["O_DIRECT", "--io auto"]);
}

/// A file system that has no O_DIRECT, unmounted when dropped.
struct WithoutDirect<'a>(&'a Path);

impl WithoutDirect<'_> {
    fn mount(at: &Path) -> Option<WithoutDirect<'_>> {
        let output = Command::new("mount").args(["-t", "ramfs", "none"]).arg(at).output().ok()?;
        output.status.success().then_some(WithoutDirect(at))
    }
}

impl Drop for WithoutDirect<'_> {
    fn drop(&mut self) {
        Command::new("umount").arg(self.0).status().ok();
    }
}

/// One node that took records and was stopped properly, so that all of them are covered.
fn stopped_with_records() -> Trial {
    let mut trial = Trial::start(1, None);
    let records: String = (0..200).map(|number| format!("rec-{number}\n")).collect();
    append(&trial.cluster.client_file(), records.as_bytes());
    trial.cluster.stop_all(PATIENCE).unwrap_or_else(|failure| panic!("{failure}"));
    trial
}

/// Runs a node that has to end by itself.
fn node(configuration: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(PROGRAM);
    command.arg("node").arg("--config").arg(configuration).args(arguments);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary runs");
    let deadline = Instant::now() + Duration::from_secs(20);
    while child.try_wait().expect("it is a child").is_none() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
    // One that serves all the same shows by its missing exit code.
    child.kill().ok();
    child.wait_with_output().expect("it is a child")
}

fn give(client_file: &Path, input: &[u8]) -> Output {
    let mut command = Command::new(PROGRAM);
    command.args(["log", "append", "-", "--client"]).arg(client_file);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary runs");
    // One that refuses does not read to the end.
    std::io::Write::write_all(&mut child.stdin.take().expect("it is piped"), input).ok();
    child.wait_with_output().expect("it is a child")
}

fn append(client_file: &Path, input: &[u8]) {
    let output = give(client_file, input);
    assert!(output.status.success(), "{output:?}");
}

/// Exit code, `error:`, `next:`, and the words in them.
fn refused(output: &Output, code: i32, words: &[&str]) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{text}");
    let said: Vec<&str> =
        text.lines().filter(|line| line.starts_with("error: ") || line.starts_with("next: ")).collect();
    assert!(said.len() == 2 && said[0].starts_with("error: ") && said[1].starts_with("next: "), "{text}");
    for word in words {
        assert!(said.iter().any(|line| line.contains(word)), "{word:?} is said: {text}");
    }
}

/// A copy of a node's configuration with another value for one key.
fn edited(trial: &Trial, node: NodeId, key: &str, value: &Path) -> PathBuf {
    let text = std::fs::read_to_string(trial.cluster.configuration_file(node)).expect("it is there");
    let line = |line: &str| match line.starts_with(&format!("{key} = ")) {
        true => format!("{key} = \"{}\"\n", value.display()),
        false => format!("{line}\n"),
    };
    let path = trial.home.path().join("edited.toml");
    std::fs::write(&path, text.lines().map(line).collect::<String>()).expect("it can be written");
    path
}

/// Every file below a directory, with its bytes.
pub fn contents(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(directory).expect("it is there").map(|entry| entry.expect("it can be read")) {
        let path = entry.path();
        if path.is_dir() {
            found.append(&mut contents(&path));
        } else {
            let bytes = std::fs::read(&path).expect("it can be read");
            found.insert(path, bytes);
        }
    }
    found
}
