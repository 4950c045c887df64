//! `trilith wal` as a script sees it: what it prints, how it ends, and what it changes.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;
use trilith::disk::IoChoice;
use trilith::types::GroupId;
use trilith::wal::Wal;
use trilith::wal::handle::Options;

use crate::processes::{PROGRAM, beside_few};
use crate::refusals::contents;

const SEGMENT: &str = "log/0000000000000001.segment";

/// Three frames and what covers them; closed.
fn log() -> (TempDir, PathBuf) {
    let home = tempfile::tempdir().expect("a directory can be made");
    let directory = home.path().join("wal");
    let options = Options { io: IoChoice::Blocking, segment_bytes: 1 << 20, ..Options::new(&directory) };
    let (wal, _) = Wal::open(options).expect("a log can be made");
    for record in ["first", "the one in the middle", "last"] {
        wal.append_records(GroupId(0), [record]).expect("the log takes it").wait().expect("the disk works");
    }
    wal.close().expect("the disk works");
    (home, directory)
}

fn wal(command: &str, directory: &Path, arguments: &[&str]) -> Output {
    Command::new(PROGRAM).args(["wal", command]).arg(directory).args(arguments).output().expect("the binary runs")
}

/// Where the next frame would go.
fn end_of(directory: &Path) -> u64 {
    let inspected = wal("inspect", directory, &["-o", "json"]);
    let inspected: serde_json::Value = serde_json::from_slice(&inspected.stdout).expect("one JSON document");
    assert_eq!(inspected["segments"].as_array().map(Vec::len), Some(1), "{inspected}");
    inspected["segments"][0]["used_bytes"].as_u64().expect("it is a number")
}

fn open(directory: &Path) -> File {
    File::options().read(true).write(true).open(directory.join(SEGMENT)).expect("it is there")
}

/// A write of which only the fourth sector has landed.
fn tear(directory: &Path) {
    open(directory).write_all_at(&[0x5a; 512], end_of(directory) + 3 * 512).expect("it can be written");
}

/// The record in the middle, which a later frame covers.
fn corrupt(directory: &Path) {
    let bytes = fs::read(directory.join(SEGMENT)).expect("it is there");
    let at = bytes.windows(6).position(|window| window == b"middle").expect("the record is there") as u64;
    open(directory).write_all_at(b"m", at + 1).expect("it can be written");
}

/// Ended with this code; with a cause and a next step on standard error, that hold these words, if it is a failure, and
/// with nothing there if not.
fn ends(output: &Output, code: i32, words: &[&str]) {
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = said.lines().collect();
    match (code, lines.as_slice()) {
        (0, []) => {}
        (1.., [cause, next]) => assert!(cause.starts_with("error: ") && next.starts_with("next: "), "{said}"),
        _ => panic!("{said}"),
    }
    words.iter().for_each(|word| assert!(said.contains(word), "{word:?} is not in {said}"));
}

fn printed(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn verify_ends_with_0_for_a_sound_log_11_for_a_torn_one_and_10_for_a_corrupt_one() {
    let _share = beside_few();
    let (_home, directory) = log();
    let sound = wal("verify", &directory, &[]);
    let said = String::from_utf8_lossy(&sound.stdout).into_owned();
    assert_eq!(sound.status.code(), Some(0), "{sound:?}");
    assert!(said.contains("ok: 1 segment,") && said.contains("3 records"), "{said}");

    tear(&directory);
    let torn = wal("verify", &directory, &[]);
    let said = String::from_utf8_lossy(&torn.stdout).into_owned();
    assert_eq!(torn.status.code(), Some(11), "{torn:?}");
    assert!(said.contains("torn") && said.contains("acknowledged: no") && said.contains("next: "), "{said}");

    corrupt(&directory);
    let before = fs::read(directory.join(SEGMENT)).expect("it is there");
    let found = wal("verify", &directory, &[]);
    let said = String::from_utf8_lossy(&found.stdout).into_owned();
    assert_eq!(found.status.code(), Some(10), "{found:?}");
    assert!(said.contains("corrupt") && said.contains("entry 2@1") && said.contains("acknowledged: yes"), "{said}");
    assert!(fs::read(directory.join(SEGMENT)).expect("it is there") == before, "nothing was changed");
}

#[test]
fn inspect_ends_with_0_whatever_is_wrong_and_dump_as_verify_does() {
    let _share = beside_few();
    let (_home, directory) = log();
    ends(&wal("inspect", &directory, &[]), 0, &[]);
    ends(&wal("dump", &directory, &[]), 0, &[]);

    tear(&directory);
    let torn = wal("inspect", &directory, &[]);
    ends(&torn, 0, &[]);
    assert!(printed(&torn).contains("torn: log/"), "{torn:?}");
    let torn = wal("dump", &directory, &[]);
    ends(&torn, 11, &["1 finding, the worst: torn in log/", "never acknowledged"]);
    assert!(printed(&torn).contains("\"last\"") && printed(&torn).contains("-- torn: log/"), "{torn:?}");

    corrupt(&directory);
    let before = contents(&directory);
    let inspected = wal("inspect", &directory, &["-o", "json"]);
    ends(&inspected, 0, &[]);
    let document: serde_json::Value = serde_json::from_slice(&inspected.stdout).expect("one JSON document");
    assert_eq!(document["findings"][0]["severity"], "corrupt", "{document}");
    for output in [wal("dump", &directory, &[]), wal("dump", &directory, &["-o", "json"])] {
        ends(&output, 10, &["2 findings, the worst: corrupt in log/", "delete nothing"]);
        assert!(printed(&output).contains("last"), "what is readable is shown: {output:?}");
    }
    assert!(contents(&directory) == before, "to look changes nothing");
}

#[test]
fn a_dump_of_nothing_says_so_and_is_no_failure() {
    let _share = beside_few();
    let (_home, directory) = log();
    let output = wal("dump", &directory, &["--group", "77"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).starts_with("no record is what --group"), "{output:?}");
}

#[test]
fn repair_of_a_sound_log_and_of_a_torn_one_ends_with_0() {
    let _share = beside_few();
    let (_home, directory) = log();
    let before = contents(&directory);
    for arguments in [&[][..], &["--apply"]] {
        let output = wal("repair", &directory, arguments);
        ends(&output, 0, &[]);
        assert!(printed(&output).contains("next: nothing: there is nothing to repair"), "{output:?}");
        assert!(contents(&directory) == before, "{arguments:?}: nothing was changed");
    }

    tear(&directory);
    let before = contents(&directory);
    let planned = wal("repair", &directory, &[]);
    ends(&planned, 0, &[]);
    assert!(printed(&planned).contains("would do: cut log/") && printed(&planned).contains(" --apply"), "{planned:?}");
    assert!(contents(&directory) == before, "nothing was changed");
    let done = wal("repair", &directory, &["--apply"]);
    ends(&done, 0, &[]);
    assert!(printed(&done).contains("done: cut log/"), "{done:?}");
    ends(&wal("verify", &directory, &[]), 0, &[]);
}

#[test]
fn repair_loses_what_was_acknowledged_only_if_exactly_that_was_agreed_to() {
    let _share = beside_few();
    let (_home, directory) = log();
    corrupt(&directory);
    let before = contents(&directory);
    let cut = ["--apply", "--unsafe-cut-acknowledged"];
    for arguments in [&[][..], &["--apply"]] {
        let refused = wal("repair", &directory, arguments);
        ends(&refused, 10, &["not repaired: corrupt in log/", "--unsafe-cut-acknowledged --lost 0:2..4"]);
        assert!(printed(&refused).contains("a cut there loses group 0 entries 2..4"), "{refused:?}");
        assert!(contents(&directory) == before, "{arguments:?}: nothing was changed");
    }
    for lost in [&[][..], &["--lost", "0:2..3"], &["--lost", "nothing"]] {
        let arguments = [&cut[..], lost].concat();
        let refused = wal("repair", &directory, &arguments);
        ends(&refused, 2, &["was not agreed to, and nothing was changed", "add --lost 0:2..4"]);
        assert!(contents(&directory) == before, "{arguments:?}: nothing was changed");
    }
    let done = wal("repair", &directory, &[cut[0], cut[1], "--lost", "0:2..4"]);
    ends(&done, 0, &[]);
    let said = printed(&done);
    assert!(said.contains("done: cut the log off behind") && said.contains("what was cut is kept in"), "{said}");
    ends(&wal("verify", &directory, &[]), 0, &[]);
    let (wal, _) = Wal::open(Options { create: false, ..Options::new(&directory) }).expect("it opens again");
    assert_eq!(wal.group(GroupId(0)).expect("it has entries").last.index.0, 1);
}

#[test]
fn what_holds_no_log_is_told_from_one_that_is_lost() {
    let _share = beside_few();
    let (home, directory) = log();
    let [missing, empty] = ["missing", "empty"].map(|name| home.path().join(name));
    fs::create_dir(&empty).expect("a directory can be made");
    for command in ["inspect", "verify", "dump", "repair"] {
        ends(&wal(command, &missing, &[]), 12, &["missing is no directory", "holds `superblock`"]);
        ends(&wal(command, &directory.join("superblock"), &[]), 12, &["superblock is no directory"]);
        ends(&wal(command, &empty, &[]), 12, &["empty holds no superblock", "trilith init"]);
        ends(&wal(command, &directory.join("log"), &[]), 12, &["holds no superblock", "the directory above"]);
    }
    ends(&wal("repair", &empty, &["--apply"]), 12, &["empty holds no superblock"]);
    assert!(!missing.exists() && contents(&empty).is_empty(), "nothing was made");
    fs::remove_file(directory.join("superblock")).expect("it is there");
    for command in ["verify", "dump", "repair"] {
        ends(&wal(command, &directory, &[]), 10, &["superblock", "put the file `superblock` back"]);
    }
    ends(&wal("inspect", &directory, &[]), 0, &[]);
}

#[test]
fn a_log_in_use_can_be_looked_at_and_is_not_repaired() {
    let _share = beside_few();
    let (_home, directory) = log();
    let (held, _) = Wal::open(Options::new(&directory)).expect("it is closed");
    for command in ["inspect", "verify", "dump", "repair"] {
        ends(&wal(command, &directory, &[]), 0, &[]);
    }
    ends(&wal("repair", &directory, &["--apply"]), 19, &["lock", "stop it first"]);
    held.append_records(GroupId(0), ["still here"]).expect("the log takes it").wait().expect("the disk works");
    held.close().expect("the disk works");
    ends(&wal("repair", &directory, &["--apply"]), 0, &[]);
}

#[test]
fn what_no_command_takes_is_a_usage_error_and_changes_nothing() {
    let _share = beside_few();
    let (_home, directory) = log();
    let before = contents(&directory);
    let wrong: [(&str, &[&str], &str); 9] = [
        ("inspect", &["--apply"], "--apply"),
        ("verify", &["-o", "xml"], "xml"),
        ("verify", &["--group", "1"], "--group"),
        ("dump", &["--hex", "--text"], "--text"),
        ("dump", &["--group", "first"], "first"),
        ("dump", &["--segment", "-1"], "-1"),
        ("repair", &["--apply", "--lost", "0:2..4"], "--unsafe-cut-acknowledged"),
        ("repair", &["--apply", "--unsafe-keep-voice"], "--unsafe-cut-acknowledged"),
        ("repair", &["more"], "more"),
    ];
    for (command, arguments, word) in wrong {
        let output = wal(command, &directory, arguments);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.starts_with("error: ") && said.contains(word) && said.contains("--help"), "{said}");
        assert!(output.stdout.is_empty(), "{output:?}");
    }
    for command in ["inspect", "verify", "dump", "repair"] {
        let output = Command::new(PROGRAM).args(["wal", command]).output().expect("the binary runs");
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("<DIR>"), "{output:?}");
    }
    assert!(contents(&directory) == before);
}
