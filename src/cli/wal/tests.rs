mod damaged;
mod golden;

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::reading::Reading;
use super::{inspect, verify};
use crate::cli::exit::{Exit, Failure};
use crate::cli::output::Format;
use crate::disk::IoChoice;
use crate::limits::FINDINGS_MAX;
use crate::types::{GroupId, Index, LogId, Term};
use crate::wal::Wal;
use crate::wal::handle::Options;

/// Three records in one frame each, a cut, and the seal of a small segment; closed.
fn log(home: &TempDir) -> PathBuf {
    let directory = home.path().join("wal");
    let options = Options { io: IoChoice::Blocking, segment_bytes: 1 << 20, ..Options::new(&directory) };
    let (wal, _) = Wal::open(options).unwrap();
    for size in [100, 300_000, 600_000, 200_000] {
        wal.append_records(GroupId(0), [vec![7; size]]).unwrap().wait().unwrap();
    }
    wal.append_records(GroupId(5), ["a", "b"]).unwrap().wait().unwrap();
    wal.purge_prefix(GroupId(5), LogId::new(Term(1), Index(1))).unwrap().wait().unwrap();
    wal.close().unwrap();
    directory
}

/// Ids and times differ from run to run, and so do frames and the bytes they take: a pause adds a covering frame. A segment
/// that was not ready in time on a busy machine gets a later number; the first one is always 1.
fn normalised(text: &str, directory: &Path) -> String {
    let text = text.replace(&directory.display().to_string(), "DIR");
    let mut out = String::new();
    for line in text.lines() {
        let words = line.split(' ').map(|word| {
            let bare = word.trim_end_matches(',');
            let is_id = bare.len() >= 16 && bare.bytes().all(|byte| byte.is_ascii_hexdigit());
            let is_time = bare.len() == 20 && bare.ends_with('Z');
            if is_id {
                word.replace(bare, "ID")
            } else if is_time {
                "TIME".to_owned()
            } else {
                word.to_owned()
            }
        });
        let line = words.collect::<Vec<_>>().join(" ");
        let mut cells: Vec<&str> = line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect();
        if cells.len() == 8 {
            (cells[2], cells[5]) = ("N", "N");
            cells[0] = if cells[1] == "open" { "N" } else { cells[0] };
            out.push_str(&cells.join("  "));
        } else {
            out.push_str(line.trim_end());
        }
        out.push('\n');
    }
    out
}

fn verified(directory: &Path) -> Result<String, Failure> {
    let reading = Reading::take(directory)?;
    verify::judge(&reading).map(|()| verify::text(&reading, Format::Table))
}

fn segment(directory: &Path, number: u64) -> File {
    let name = format!("log/{number:016}.segment");
    OpenOptions::new().read(true).write(true).open(directory.join(name)).unwrap()
}

fn flip(file: &File, offset: u64) {
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], offset).unwrap();
}

#[test]
fn inspect_says_what_there_is() {
    let home = tempfile::tempdir().unwrap();
    let directory = log(&home);
    let reading = Reading::take(&directory).unwrap();
    let spare = |line: &&str| !line.starts_with("spare segments") && !line.starts_with("superblock");
    let text = normalised(&inspect::text(&reading, Format::Table), &directory);
    let text: Vec<&str> = text.lines().filter(spare).collect();
    let golden = include_str!("golden_inspect.txt");
    assert_eq!(text.join("\n"), golden.trim_end(), "\n{}", text.join("\n"));
    let json: serde_json::Value = serde_json::from_str(&inspect::text(&reading, Format::Json)).unwrap();
    assert_eq!(json["kind"], "a log by itself");
    assert_eq!(json["segments"][0]["groups"][0], serde_json::json!({"group": 0, "first": 1, "end": 4}));
    assert_eq!((&json["superblock"]["boot"], &json["pinned_by"]), (&1.into(), &serde_json::json!([0])));
    assert_eq!(json["groups"][1], serde_json::json!({"group": 5, "first": 2, "last": "2@1", "terms": 1}));
}

#[test]
fn verify_reads_every_frame_also_of_a_log_in_use() {
    let home = tempfile::tempdir().unwrap();
    let directory = log(&home);
    let closed = verified(&directory).unwrap();
    let (wal, _) = Wal::open(Options::new(&directory)).unwrap();
    wal.append_records(GroupId(0), ["more"]).unwrap().wait().unwrap();
    let text = verified(&directory).unwrap();
    assert!(closed.contains("ok: 2 segments") && closed.contains(" 7 records"), "{closed}");
    assert!(text.contains(" 8 records"), "{text}");
}

/// Names, lengths, bytes and times of change of all files below a directory.
fn snapshot(directory: &Path) -> Vec<(PathBuf, Vec<u8>, std::time::SystemTime)> {
    let mut all = Vec::new();
    for place in [directory.to_owned(), directory.join("log")] {
        for entry in fs::read_dir(place).unwrap().map(Result::unwrap).filter(|entry| entry.path().is_file()) {
            let modified = entry.metadata().unwrap().modified().unwrap();
            all.push((entry.path(), fs::read(entry.path()).unwrap(), modified));
        }
    }
    all.sort();
    all
}

#[test]
fn to_look_changes_nothing() {
    let home = tempfile::tempdir().unwrap();
    let directory = log(&home);
    flip(&segment(&directory, 1), 40_000);
    let before = snapshot(&directory);
    let (reading, files) = Reading::take_with_files(&directory).unwrap();
    verify::text(&reading, Format::Json);
    inspect::text(&reading, Format::Json);
    let all = (&reading.analysis, reading.findings.as_slice());
    let _flow = crate::wal::contents(&files, all, None, &mut |_| std::ops::ControlFlow::Continue(()));
    assert!(snapshot(&directory) == before);
}

#[test]
fn a_tail_that_is_being_written_is_no_finding() {
    let home = tempfile::tempdir().unwrap();
    let directory = home.path().join("wal");
    let options = Options { segment_bytes: 1 << 20, ..Options::new(&directory) };
    let (wal, _) = Wal::open(options).unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let appender = scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let indexes = wal.append_records(GroupId(0), [vec![7; 20_000]]).unwrap().wait().unwrap();
                if indexes.start.0 % 50 == 0 && indexes.start.0 > 400 {
                    let last = LogId::new(Term(1), Index(indexes.start.0 - 400));
                    wal.purge_prefix(GroupId(0), last).unwrap().wait().unwrap();
                }
            }
        });
        for round in 0..25 {
            let reading = Reading::take(&directory).unwrap_or_else(|failure| panic!("round {round}: {failure}"));
            let shown = verify::text(&reading, Format::Table);
            assert!(reading.findings.is_empty() && !appender.is_finished(), "round {round}: {shown}");
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    wal.close().unwrap();
    verified(&directory).unwrap();
}

#[test]
fn a_flipped_bit_in_a_covered_frame_is_corrupt() {
    let home = tempfile::tempdir().unwrap();
    let directory = log(&home);
    flip(&segment(&directory, 1), 40_000);
    let failure = verified(&directory).unwrap_err();
    assert_eq!(failure.exit, Exit::Corrupt);
    assert!(failure.message.contains("log/0000000000000001.segment"), "{failure}");
    let reading = Reading::take(&directory).unwrap();
    let json: serde_json::Value = serde_json::from_str(&verify::text(&reading, Format::Json)).unwrap();
    assert_eq!(json["result"], "corrupt");
    let finding = &json["findings"][0];
    assert_eq!(finding["severity"], "corrupt");
    let ids = serde_json::json!({
        "group": 0, "kind": "entry", "first": 2, "end": 3, "term": 1, "first_id": "2@1", "last_id": "2@1",
    });
    assert_eq!(finding["entries"], serde_json::json!([ids]));
    assert_eq!(finding["acknowledged"], "yes");
    assert!(finding["start"].as_u64().unwrap() <= 40_000 && finding["end"].as_u64().unwrap() > 40_000);
    assert!(finding["next_step"].as_str().unwrap().contains("delete nothing"));
}

/// It held all of them in memory.
#[test]
fn findings_beyond_the_bound_are_counted() {
    let home = tempfile::tempdir().unwrap();
    let directory = log(&home);
    for number in 0..FINDINGS_MAX + 52 {
        File::create(directory.join(format!("log/{number}.txt"))).unwrap();
    }
    let sound = Reading::take(&directory).unwrap();
    assert!(verify::judge(&sound).is_ok(), "notes are no failure");
    flip(&segment(&directory, 1), 40_000);
    let reading = Reading::take(&directory).unwrap();
    let failure = verify::judge(&reading).unwrap_err();
    let told = format!(": {} findings, the worst: corrupt in log/0000000000000001.segment", FINDINGS_MAX + 53);
    assert!(failure.exit == Exit::Corrupt && failure.message.contains(&told), "{failure}");
    for text in [verify::text(&reading, Format::Table), inspect::text(&reading, Format::Table)] {
        assert!(text.ends_with("\nand 52 more findings\n"), "{}", &text[text.len() - 200..]);
        assert_eq!(text.matches("note: log/").count(), FINDINGS_MAX);
    }
    for text in [verify::text(&reading, Format::Json), inspect::text(&reading, Format::Json)] {
        let document: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(document["findings"].as_array().map(Vec::len), Some(FINDINGS_MAX + 1));
        assert_eq!(document["findings_more"], 52);
    }
    let dumped = golden::said(&directory, "dump DIR");
    assert!(dumped.contains("\n-- and 52 more findings\n(exit code 10)"), "{}", &dumped[dumped.len() - 200..]);
    let dumped = golden::said(&directory, "dump DIR -o json");
    assert!(dumped.contains("\n{\"what\":\"and 52 more findings\"}\n]\n"), "{}", &dumped[dumped.len() - 200..]);
}

#[test]
fn a_torn_end_is_told_apart() {
    let home = tempfile::tempdir().unwrap();
    let directory = home.path().join("wal");
    let options = Options { io: IoChoice::Blocking, segment_bytes: 1 << 20, ..Options::new(&directory) };
    let (wal, _) = Wal::open(options).unwrap();
    wal.append_records(GroupId(0), [vec![7; 100]]).unwrap().wait().unwrap();
    wal.close().unwrap();
    let end = Reading::take(&directory).unwrap().analysis.end.offset;
    // The end of a frame reached the disk, and its start did not.
    segment(&directory, 1).write_all_at(&[9; 512], end + 4096).unwrap();
    let failure = verified(&directory).unwrap_err();
    assert_eq!(failure.exit, Exit::TornTail, "{failure}");
    assert!(failure.next_step.contains("never acknowledged"), "{failure}");
}

#[test]
fn what_is_no_log_is_not_formatted() {
    let home = tempfile::tempdir().unwrap();
    let failure = verified(home.path()).unwrap_err();
    assert_eq!(failure.exit, Exit::WrongIdentity);
    assert!(failure.next_step.contains("trilith init"), "{failure}");
    let failure = verified(&home.path().join("absent")).unwrap_err();
    assert_eq!(failure.exit, Exit::WrongIdentity);
    let directory = log(&home);
    let failure = verified(&directory.join("log")).unwrap_err();
    assert!(failure.exit == Exit::WrongIdentity && failure.next_step.contains("above"), "{failure}");
    fs::rename(directory.join("log"), home.path().join("aside")).unwrap();
    let failure = verified(&directory).unwrap_err();
    assert!(failure.exit == Exit::Corrupt && failure.message.contains("corrupt in log at 0"), "{failure}");
}

#[test]
fn a_damaged_superblock_is_a_finding_and_the_log_is_still_read() {
    let home = tempfile::tempdir().unwrap();
    let directory = log(&home);
    let file = OpenOptions::new().read(true).write(true).open(directory.join("superblock")).unwrap();
    flip(&file, 30);
    assert!(verified(&directory).is_ok(), "one block of four is not missed");
    flip(&file, 3 * 4096 + 30);
    let failure = verified(&directory).unwrap_err();
    assert_eq!(failure.exit, Exit::Corrupt);
    assert!(failure.message.contains("superblock"), "{failure}");
    assert!(verify::text(&Reading::take(&directory).unwrap(), Format::Table).contains(" 7 records"));
}

#[test]
fn a_newer_format_is_said_to_be_one() {
    let home = tempfile::tempdir().unwrap();
    let directory = log(&home);
    let file = segment(&directory, 1);
    let last = file.metadata().unwrap().len() - 4096;
    for offset in [8, last + 8] {
        file.write_all_at(&99u32.to_le_bytes(), offset).unwrap();
    }
    assert_eq!(verified(&directory).unwrap_err().exit, Exit::NewerFormat);
}
