//! A log of several segments, and what is said of it when one of them, the superblock or everything is gone.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::golden::{CLOCK_MILLISECONDS, compare, entry, lay_out, said, settle};
use crate::cli::exit::Exit;
use crate::cli::failures;
use crate::cli::output::Format;
use crate::cli::wal::reading::Reading;
use crate::cli::wal::repair::{self, Answer};
use crate::cli::wal::verify;
use crate::disk;
use crate::limits::SEGMENT_BYTES_MIN;
use crate::sim::disk::SimDisk;
use crate::superblock::{self, State};
use crate::types::{ClusterId, GroupId, Incarnation, Index, LogId, Membership, NodeId, Term};
use crate::wal::handle::{LOG_DIRECTORY, NODE_ALONE};
use crate::wal::repair::{Plan, Step};
use crate::wal::{self, Identity, Log};

/// Segments of the log.
const LAST: u64 = 5;
const MIDDLE: u64 = 3;

/// Each entry of group 0 takes a segment; those of group 9 stand in every other one, and the first keeps them all.
fn log(node: NodeId) -> SimDisk {
    let disk = SimDisk::new();
    let files = disk.files();
    let identity = Identity { cluster: ClusterId(0xc1), node, incarnation: Incarnation(3) };
    let options = wal::Options {
        directory: LOG_DIRECTORY.to_owned(),
        identity,
        segment_bytes: SEGMENT_BYTES_MIN,
        writes_in_flight: 1,
        quiet_ticks: 5,
        tail_cache_bytes: 0,
        seed: 7,
    };
    let mut log = Log::create(&files, options, CLOCK_MILLISECONDS).expect("the disk is empty and well");
    settle(&disk, &mut log);
    for index in 1..=5 {
        log.append(GroupId(0), &[entry(1, index, &"x".repeat(20_000))]).expect("it fits");
        if index % 2 == 1 {
            log.append(GroupId(9), &[entry(1, index / 2 + 1, "small")]).expect("it fits");
        }
        settle(&disk, &mut log);
    }
    log.purge_prefix(GroupId(0), LogId::new(Term(1), Index(2))).expect("it is there");
    settle(&disk, &mut log);
    let mut state = State::new(identity.cluster, node, identity.incarnation, Membership::default());
    state.durable_end = log.durable_end();
    assert_eq!(state.durable_end.segment.0, LAST);
    superblock::format(&files, &state).expect("the disk is well");
    log.close(&files);
    disk
}

fn segment(home: &Path, number: u64) -> PathBuf {
    home.join(format!("{LOG_DIRECTORY}/{number:016}.segment"))
}

fn open(path: PathBuf) -> File {
    OpenOptions::new().read(true).write(true).open(path).expect("it is there")
}

fn story(node: NodeId, what: &str, damage: &dyn Fn(&Path), lines: &[&str]) -> String {
    let home = tempfile::tempdir().expect("there is room");
    lay_out(&log(node), home.path());
    damage(home.path());
    let said: String = lines.iter().map(|line| said(home.path(), line)).collect();
    format!("==== {what}\n\n{said}")
}

#[test]
fn each_part_that_is_gone() {
    let all = ["verify DIR", "inspect DIR", "dump DIR --group 9", "repair DIR"];
    let short = ["verify DIR", "repair DIR"];
    let remove = |number| move |home: &Path| fs::remove_file(segment(home, number)).expect("it is there");
    let cut = |bytes| move |home: &Path| open(segment(home, LAST)).set_len(bytes).expect("there is room");
    let junk = |home: &Path| {
        let mut file = OpenOptions::new().append(true).open(segment(home, MIDDLE)).expect("it is there");
        file.write_all(b"junk!").expect("there is room");
    };
    let no_superblock = |home: &Path| fs::remove_file(home.join(superblock::FILE_NAME)).expect("it is there");
    let no_log = |home: &Path| fs::remove_dir_all(home.join(LOG_DIRECTORY)).expect("it is there");
    let no_segments = |home: &Path| {
        no_log(home);
        fs::create_dir(home.join(LOG_DIRECTORY)).expect("there is room");
    };
    let alone = |what: &str, damage: &dyn Fn(&Path), lines: &[&str]| story(NODE_ALONE, what, damage, lines);
    let sound = ["inspect DIR", "inspect DIR -o json", "verify DIR", "verify DIR -o json"];
    let of_segments = ["1 --group 9", "3 --group 9 --text", "3 --group 9 -o json", "4 --from 5", "77"];
    let of_segments = of_segments.map(|rest| format!("dump DIR --segment {rest}"));
    let sound: Vec<&str> = sound.into_iter().chain(of_segments.iter().map(String::as_str)).collect();
    let gone: Vec<&str> = all.into_iter().chain(sound[4..6].iter().copied()).collect();
    let text = [
        alone("nothing is wrong", &|_| (), &sound),
        alone("a segment in the middle is gone", &remove(MIDDLE), &gone),
        alone("junk behind a segment in the middle", &junk, &[all[0], all[1], all[2], "dump DIR --group 9 -o json"]),
        alone("the last segment is gone", &remove(LAST), &short),
        alone("the last segment is cut off", &cut(40_000), &all),
        alone("the last segment is empty", &cut(0), &short),
        alone("the superblock is gone", &no_superblock, &[all[0], all[2], all[3]]),
        alone("the log is gone", &no_log, &["verify DIR", "verify DIR -o json", "repair DIR", "repair DIR --apply"]),
        alone("all segments are gone", &no_segments, &short),
        story(NodeId(2), "the log of a node is gone", &no_log, &["verify DIR"]),
        story(NodeId(2), "the superblock of a node is gone", &no_superblock, &["verify DIR"]),
    ];
    compare("damaged.txt", include_str!("damaged.txt"), &text.concat());
}

/// Whoever may not list the directory was told that the log was lost.
#[test]
fn a_log_that_cannot_be_listed_is_not_called_lost() {
    let home = tempfile::tempdir().expect("there is room");
    lay_out(&log(NODE_ALONE), home.path());
    let directory = home.path().join(LOG_DIRECTORY);
    fs::remove_dir_all(&directory).expect("it is there");
    fs::write(&directory, "no directory").expect("there is room");
    let failure = Reading::take(home.path()).expect_err("nothing can be read");
    assert_eq!(failure.exit, Exit::Other, "{failure}");
    assert!(failure.next_step.contains("may read the directory"), "{failure}");
}

/// There was no document, and nothing of the other segments.
#[test]
fn a_segment_that_cannot_be_opened_is_a_finding() {
    let home = tempfile::tempdir().expect("there is room");
    lay_out(&log(NODE_ALONE), home.path());
    let second = segment(home.path(), 2);
    fs::remove_file(&second).expect("it is there");
    symlink(&second, &second).expect("there is room");
    let text = said(home.path(), "verify DIR -o json");
    assert!(text.contains("(exit code 10)") && text.contains("\"segments\": 3"), "{text}");
    assert!(text.contains("cannot open"), "{text}");
}

/// A node that had lost its superblock alone was told to make its directory anew.
#[test]
fn nobody_is_told_to_format_a_directory_that_holds_entries() {
    let home = tempfile::tempdir().expect("there is room");
    lay_out(&log(NodeId(2)), home.path());
    fs::remove_file(home.path().join(superblock::FILE_NAME)).expect("it is there");
    for error in [superblock::Error::NotFormatted, superblock::Error::AlreadyFormatted] {
        let is_lost = matches!(error, superblock::Error::NotFormatted);
        let failure = failures::of_superblock(&error, home.path(), error.to_string());
        assert_eq!(failure.exit == Exit::Corrupt, is_lost, "{failure}");
        assert_eq!(failure.next_step.contains("delete nothing: put the file `superblock` back"), is_lost, "{failure}");
    }
    let error = wal::Error::Exists { directory: LOG_DIRECTORY.to_owned() };
    assert_eq!(failures::of_log(&error, home.path(), error.to_string()).exit, Exit::Corrupt);
    let gone = disk::Error::new(disk::Operation::List, LOG_DIRECTORY, std::io::ErrorKind::NotFound);
    assert_eq!(failures::of_log(&wal::Error::Disk(gone), home.path(), String::new()).exit, Exit::Corrupt);
    // What a making left that did not come to its end is made again.
    fs::remove_dir_all(home.path().join(LOG_DIRECTORY)).expect("it is there");
    let failure = failures::of_superblock(&superblock::Error::NotFormatted, home.path(), String::new());
    assert!(failure.exit == Exit::WrongIdentity && failure.next_step.contains("trilith init"), "{failure}");
}

/// What could not be taken in the rounds of one repair was passed over: the log was said to be sound.
#[test]
fn a_repair_that_leaves_steps_does_not_call_the_log_sound() {
    let home = tempfile::tempdir().expect("there is room");
    lay_out(&log(NODE_ALONE), home.path());
    let reading = Reading::take(home.path()).expect("it can be read");
    let arguments = repair::Arguments {
        directory: home.path().to_owned(),
        apply: true,
        unsafe_cut_acknowledged: false,
        lost: Vec::new(),
        unsafe_keep_voice: false,
        output: Format::Table,
    };
    let left =
        |count: usize| Plan { steps: vec![Step::SetAside { file: "log/x".to_owned() }; count], ..Plan::default() };
    let answer = |count| Answer::of(&reading, &arguments, (vec!["a step".to_owned()], &left(count)));
    let sound = answer(0);
    assert!(sound.judge().is_ok() && sound.table().ends_with("next: nothing: the log is sound\n"), "{}", sound.table());
    for (count, told) in [(1, "not repaired: 1 step left to take"), (2, "not repaired: 2 steps left to take")] {
        let answer = answer(count);
        let failure = answer.judge().expect_err("something is left");
        assert!(failure.exit == Exit::Corrupt && failure.message.ends_with(told), "{failure}");
        assert!(
            failure.next_step.contains("trilith wal repair") && failure.next_step.ends_with("--apply"),
            "{failure}"
        );
        assert_eq!(answer.table().matches("\nleft: move log/x to ").count(), count);
    }
}

#[test]
fn commands_can_be_pasted_whatever_the_directory_is_called() {
    let home = tempfile::tempdir().expect("there is room");
    let directory = home.path().join("my log's");
    fs::create_dir(&directory).expect("there is room");
    lay_out(&log(NODE_ALONE), &directory);
    super::flip(&open(segment(&directory, 1)), 20);
    let quoted = format!("'{}'", directory.display().to_string().replace('\'', r"'\''"));
    let reading = Reading::take(&directory).expect("it can be read");
    let verified = verify::text(&reading, Format::Table);
    assert!(verified.contains(&format!("`trilith wal repair {quoted}`")), "{verified}");
    let arguments = repair::Arguments {
        directory,
        apply: false,
        unsafe_cut_acknowledged: false,
        lost: Vec::new(),
        unsafe_keep_voice: false,
        output: Format::Table,
    };
    let (planned, _) = repair::perform(&arguments).expect("it can be read");
    assert!(planned.contains(&format!("next: trilith wal repair {quoted} --apply\n")), "{planned}");
}
