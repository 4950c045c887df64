//! What the commands print, to the letter: a log whose bytes are always the same, and each class of damage to it.

use std::fs;
use std::path::Path;

use clap::Parser;

use super::super::reading::Reading;
use super::super::{Command, dump, inspect, repair, verify};
use crate::cli::exit::Exit;
use crate::cli::output::Format;
use crate::disk::Files;
use crate::limits::{BLOCK_BYTES, SEGMENT_BYTES_MIN};
use crate::sim::disk::SimDisk;
use crate::sim::log::carry_out;
use crate::superblock::{self, State};
use crate::types::{
    ClusterId, Data, Entry, GroupId, Incarnation, Index, LogId, Membership, NodeId, Payload, Place, Term,
};
use crate::wal::handle::{LOG_DIRECTORY, NODE_ALONE};
use crate::wal::{self, Identity, Log};

const SEGMENT: &str = "log/0000000000000001.segment";
pub const CLOCK_MILLISECONDS: u64 = 1_700_000_000_000;

#[derive(Debug, Parser)]
struct Line {
    #[command(subcommand)]
    command: Command,
}

pub fn settle(disk: &SimDisk, log: &mut Log) {
    let mut queue = disk.queue();
    for _ in 0..20 {
        carry_out(disk, &mut queue, log);
        log.tick(CLOCK_MILLISECONDS);
    }
}

pub fn entry(term: u64, index: u64, text: &str) -> Entry {
    let payload = match text {
        "" => Payload::Noop,
        _ => Payload::Data(Data::new(text.as_bytes().to_vec().into())),
    };
    Entry { id: LogId::new(Term(term), Index(index)), payload }
}

/// A frame with a no-op and a record, one that is covered by the next, a cut and what replaced it, another group, and a
/// purge. `is_covered`: a covering frame stands behind them, and the superblock knows of it.
fn log(node: NodeId, is_covered: bool) -> SimDisk {
    let disk = SimDisk::new();
    let files = disk.files();
    let identity = Identity { cluster: ClusterId(0xc1), node, incarnation: Incarnation(3) };
    let options = wal::Options {
        directory: LOG_DIRECTORY.to_owned(),
        identity,
        segment_bytes: SEGMENT_BYTES_MIN,
        writes_in_flight: 1,
        quiet_ticks: if is_covered { 5 } else { 1_000_000 },
        tail_cache_bytes: 0,
        seed: 7,
    };
    let mut log = Log::create(&files, options, CLOCK_MILLISECONDS).expect("the disk is empty and well");
    settle(&disk, &mut log);
    let zero = GroupId(0);
    log.append(zero, &[entry(1, 1, ""), entry(1, 2, "debit 7\n")]).expect("it fits");
    settle(&disk, &mut log);
    log.append(zero, &[entry(1, 3, "overwritten"), entry(1, 4, "as well")]).expect("it fits");
    settle(&disk, &mut log);
    log.append(zero, &[entry(2, 3, "\u{1}\"credit\" \\ \u{fc}")]).expect("it fits");
    log.append(GroupId(9), &[entry(4, 1, "another log")]).expect("it fits");
    settle(&disk, &mut log);
    log.purge_prefix(zero, LogId::new(Term(1), Index(1))).expect("it is there");
    settle(&disk, &mut log);
    let mut state = State::new(identity.cluster, node, identity.incarnation, Membership::default());
    state.durable_end = if is_covered { log.durable_end() } else { Place::START };
    superblock::format(&files, &state).expect("the disk is well");
    log.close(&files);
    disk
}

pub fn lay_out(disk: &SimDisk, home: &Path) {
    fs::create_dir(home.join(LOG_DIRECTORY)).expect("it is new");
    fs::write(home.join(superblock::FILE_NAME), disk.contents(superblock::FILE_NAME)).expect("there is room");
    for name in disk.files().list(LOG_DIRECTORY).expect("it was made") {
        let name = format!("{LOG_DIRECTORY}/{name}");
        fs::write(home.join(&name), disk.contents(&name)).expect("there is room");
    }
}

/// What a command line prints, and how it ends.
pub fn said(home: &Path, line: &str) -> String {
    let shown = home.display().to_string();
    let words = ["wal"].into_iter().chain(line.split(' ')).map(|word| word.replace("DIR", &shown));
    let Line { command } = Line::try_parse_from(words).unwrap_or_else(|error| panic!("{line}: {error}"));
    let read = |directory: &Path| Reading::take_with_files(directory);
    let (text, outcome) = match &command {
        Command::Inspect(target) => {
            let (reading, _) = read(&target.directory).expect("it can be read");
            (inspect::text(&reading, target.output), Ok(()))
        }
        Command::Verify(target) => {
            let (reading, _) = read(&target.directory).expect("it can be read");
            (verify::text(&reading, target.output), verify::judge(&reading))
        }
        Command::Dump(arguments) => {
            let (reading, files) = read(home).expect("it can be read");
            let mut out = Vec::new();
            let records = dump::write(&reading, &files, arguments, &mut out).expect("memory takes it");
            if let Some(line) = dump::emptiness(arguments, records) {
                out.extend_from_slice(format!("stderr: {line}\n").as_bytes());
            }
            (String::from_utf8(out).expect("what is no text is escaped"), verify::judge(&reading))
        }
        Command::Repair(arguments) => match repair::perform(arguments) {
            Ok((text, outcome)) => (text, outcome),
            Err(failure) => (failure.to_string(), Err(failure)),
        },
    };
    let exit = outcome.err().map_or(Exit::Done, |failure| failure.exit) as u8;
    format!("$ trilith wal {line}\n{}\n(exit code {exit})\n\n", text.trim_end().replace(&shown, "DIR"))
}

/// Compares with the file of that name; TRILITH_GOLDEN_WAL_OUT names a directory to write it to instead.
pub fn compare(name: &str, golden: &str, text: &str) {
    if let Ok(directory) = std::env::var("TRILITH_GOLDEN_WAL_OUT") {
        fs::write(Path::new(&directory).join(name), text).expect("the directory can be written");
    }
    assert!(golden == text, "{name}: expected\n{golden}\nfound\n{text}");
}

fn story(disk: &SimDisk, lines: &[&str]) -> String {
    let home = tempfile::tempdir().expect("there is room");
    lay_out(disk, home.path());
    lines.iter().map(|line| said(home.path(), line)).collect()
}

#[test]
fn a_sound_log() {
    let lines = [
        "inspect DIR",
        "inspect DIR -o json",
        "verify DIR",
        "verify DIR -o json",
        "dump DIR",
        "dump DIR --text",
        "dump DIR --group 9",
        "dump DIR --group 9 --hex",
        "dump DIR --group 0 --from 3 --to 4 -o json",
        "dump DIR --group 77",
        "repair DIR",
        "repair DIR --apply",
    ];
    compare("sound.txt", include_str!("sound.txt"), &story(&log(NODE_ALONE, true), &lines));
}

/// Each class of damage, with what each command says of it before and after a repair.
#[test]
fn each_class_of_damage() {
    let block = BLOCK_BYTES as u64;
    let [first, second, third] = [2 * block, 4 * block, 6 * block];
    let all = ["verify DIR", "dump DIR", "repair DIR"];
    let cut = "repair DIR --apply --unsafe-cut-acknowledged";
    let mut text = String::new();
    let mut class = |what: &str, is_covered: bool, damage: &dyn Fn(&SimDisk), more: &[String]| {
        let disk = log(NODE_ALONE, is_covered);
        damage(&disk);
        let lines: Vec<&str> = all.into_iter().chain(more.iter().map(String::as_str)).collect();
        text += &format!("==== {what}\n\n{}", story(&disk, &lines));
    };
    let verify = || "verify DIR".to_owned();
    let json = || "verify DIR -o json".to_owned();
    let mended = ["repair DIR --apply".to_owned(), verify()];
    let torn = [json(), mended[0].clone(), verify()];
    let end = 6 * block;
    class("a header of a segment", true, &|disk| disk.flip_bit(SEGMENT, 20, 1), &mended);
    class("two blocks of the superblock", true, &|disk| disk.zero(superblock::FILE_NAME, 0..2 * block), &mended);
    class("an end that was being written", false, &|disk| disk.fill(SEGMENT, end + 4096..end + 5000, 9), &torn);
    let agreed = format!("{cut} --lost 3..4 --lost 9:1..2");
    let lost = [json(), cut.to_owned(), agreed.clone(), verify(), "dump DIR".to_owned()];
    class("a record that was replaced", true, &|disk| disk.flip_bit(SEGMENT, second + 185, 1), &lost[..1]);
    class("a record", true, &|disk| disk.flip_bit(SEGMENT, third + 226, 1), &lost);
    class(
        "a frame that is gone",
        true,
        &|disk| disk.zero(SEGMENT, first..first + block),
        &["repair DIR -o json".to_owned()],
    );
    class("a last frame without proof", false, &|disk| disk.flip_bit(SEGMENT, end - block + 4, 1), &[json()]);
    class("the superblock", true, &|disk| disk.zero(superblock::FILE_NAME, 0..4 * block), &[agreed]);
    class(
        "a frame that holds no record",
        true,
        &|disk| disk.flip_bit(SEGMENT, 9 * block + 3000, 1),
        &[cut.to_owned(), format!("{cut} --lost nothing"), verify()],
    );
    class("a segment", true, &|disk| disk.zero(SEGMENT, 0..SEGMENT_BYTES_MIN), &[]);
    compare("damage.txt", include_str!("damage.txt"), &text);
}

#[test]
fn a_node_that_lost_what_it_acknowledged_has_no_voice() {
    let disk = log(NodeId(2), true);
    disk.flip_bit(SEGMENT, 6 * BLOCK_BYTES as u64 + 226, 1);
    let mut all = story(&disk, &["verify DIR", "repair DIR"]);
    for (more, is_marked) in [("", true), (" --unsafe-keep-voice", false), (" -o json", true)] {
        let home = tempfile::tempdir().expect("there is room");
        lay_out(&disk, home.path());
        let planned = said(home.path(), "repair DIR");
        let flags = planned.split("--unsafe-cut-acknowledged ").nth(1).and_then(|rest| rest.lines().next());
        let line = format!("repair DIR --apply --unsafe-cut-acknowledged {}{more}", flags.expect("it is said"));
        let text = said(home.path(), &line);
        assert!(text.contains("(exit code 0)"), "{text}");
        assert_eq!(home.path().join(superblock::NO_VOICE_NAME).exists(), is_marked, "{text}");
        assert_eq!(text.contains("no voice any more"), is_marked, "{text}");
        all += &text;
    }
    compare("node.txt", include_str!("node.txt"), &all);
}

/// It was told that headers had to be restored, of segments that were taken into other use while it looked.
#[test]
fn a_dry_repair_of_a_log_in_use_invents_nothing() {
    let home = tempfile::tempdir().expect("there is room");
    let directory = home.path().join("wal");
    let options = wal::handle::Options { segment_bytes: 1 << 20, ..wal::handle::Options::new(&directory) };
    let (wal, _) = wal::Wal::open(options).expect("there is room");
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let appender = scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let indexes = wal.append_records(GroupId(0), [vec![7; 100_000]]).expect("room").wait().expect("well");
                if indexes.start.0 % 20 == 0 && indexes.start.0 > 40 {
                    let last = LogId::new(Term(1), Index(indexes.start.0 - 30));
                    wal.purge_prefix(GroupId(0), last).expect("room").wait().expect("well");
                }
            }
        });
        let is_sound = |text: &str| text.contains("there is nothing to repair") && text.contains("(exit code 0)");
        let invented = (0..10).map(|_| said(&directory, "repair DIR")).find(|text| !is_sound(text));
        let is_in_use = !appender.is_finished();
        // Before anything is asserted: a scope that panics waits for its threads.
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(invented, None);
        assert!(is_in_use);
    });
    wal.close().expect("the disk is well");
}

#[test]
fn a_log_in_use_is_not_repaired() {
    let home = tempfile::tempdir().expect("there is room");
    let directory = super::log(&home);
    let (wal, _) = wal::Wal::open(wal::handle::Options::new(&directory)).expect("it is closed");
    let line = |apply: bool| repair::Arguments {
        directory: directory.clone(),
        apply,
        unsafe_cut_acknowledged: false,
        lost: Vec::new(),
        unsafe_keep_voice: false,
        output: Format::Json,
    };
    let failure = repair::perform(&line(true)).expect_err("it is in use");
    assert_eq!(failure.exit, Exit::InUse, "{failure}");
    let (text, _) = repair::perform(&line(false)).expect("to look is allowed");
    let document: serde_json::Value = serde_json::from_str(&text).expect("it is JSON");
    assert_eq!(document["applied"], false);
    wal.close().expect("the disk is well");
}
