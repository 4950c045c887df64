//! `trilith wal verify` as a script sees it: what it prints, and how it ends.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;
use trilith::disk::IoChoice;
use trilith::types::GroupId;
use trilith::wal::Wal;
use trilith::wal::handle::Options;

use crate::processes::PROGRAM;

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

#[test]
fn verify_ends_with_0_for_a_sound_log_11_for_a_torn_one_and_10_for_a_corrupt_one() {
    let (_home, directory) = log();
    let sound = wal("verify", &directory, &[]);
    let said = String::from_utf8_lossy(&sound.stdout).into_owned();
    assert_eq!(sound.status.code(), Some(0), "{sound:?}");
    assert!(said.contains("ok: 1 segment,") && said.contains("3 records"), "{said}");

    // A write of which only the fourth sector has landed.
    open(&directory).write_all_at(&[0x5a; 512], end_of(&directory) + 3 * 512).expect("it can be written");
    let torn = wal("verify", &directory, &[]);
    let said = String::from_utf8_lossy(&torn.stdout).into_owned();
    assert_eq!(torn.status.code(), Some(11), "{torn:?}");
    assert!(said.contains("torn") && said.contains("acknowledged: no") && said.contains("next: "), "{said}");

    let bytes = fs::read(directory.join(SEGMENT)).expect("it is there");
    let at = bytes.windows(6).position(|window| window == b"middle").expect("the record is there") as u64;
    open(&directory).write_all_at(b"m", at + 1).expect("it can be written");
    let before = fs::read(directory.join(SEGMENT)).expect("it is there");
    let corrupt = wal("verify", &directory, &[]);
    let said = String::from_utf8_lossy(&corrupt.stdout).into_owned();
    assert_eq!(corrupt.status.code(), Some(10), "{corrupt:?}");
    assert!(said.contains("corrupt") && said.contains("entry 2@1") && said.contains("acknowledged: yes"), "{said}");
    assert!(fs::read(directory.join(SEGMENT)).expect("it is there") == before, "nothing was changed");
}
