//! What the commands print, to the letter, and how they end.

use bytes::BytesMut;

use super::locked::Locked;
use super::reading::Reading;
use super::{inspect, restore, verify};
use crate::checksum::Checksum;
use crate::cli::exit::Exit;
use crate::cli::output::Format;
use crate::disk::{Directory, Files};
use crate::sim::disk::{Code, SimDisk};
use crate::snapshot::{Builder, ChunkSource, Description, Step};
use crate::superblock::{self, State};
use crate::types::{ClusterId, GroupId, HardState, Incarnation, Index, LogId, Member, Membership, NodeId, Term};

/// What it is called, what becomes of the disk, how `verify` ends.
type Case<'a> = (&'a str, &'a dyn Fn(&SimDisk), Exit);

/// What it is called, the disk before, what becomes of it, how a restore from it ends.
type Restored<'a> = (&'a str, SimDisk, &'a dyn Fn(&SimDisk), Exit);

struct Once(Option<Vec<u8>>);

impl ChunkSource for Once {
    fn encode_next(&mut self, out: &mut BytesMut) -> bool {
        let bytes = self.0.take();
        bytes.iter().for_each(|bytes| out.extend_from_slice(bytes));
        bytes.is_some()
    }
}

fn description(index: u64) -> Description {
    let member = |id| Member {
        id: NodeId(id),
        incarnation: Incarnation(id),
        address: "127.0.0.1:7000".parse().expect("an address"),
    };
    let members: Vec<Member> = (1..=3).map(member).collect();
    Description {
        cluster: ClusterId(0xc1),
        group: GroupId::CLUSTER,
        point: LogId::new(Term(4), Index(index)),
        membership: Membership { voters: [NodeId(1), NodeId(2)].into(), members, ..Membership::default() },
        membership_id: LogId::new(Term(2), Index(7)),
        log_start: Index(1),
        last_record: Index::ZERO,
        log_digest: Checksum(5),
    }
}

fn make(files: &impl Files, index: u64) {
    let source = Once(Some(vec![index as u8; 1000 + index as usize]));
    let mut builder = Builder::with_chunks(description(index), Box::new(source), 512);
    while builder.step(files, true).expect("nothing is wrong with the disk") != Step::Done {}
}

/// A node with two snapshots, of which the superblock names the newer one.
fn node() -> SimDisk {
    node_with_log_from(1)
}

fn node_with_log_from(log_start: u64) -> SimDisk {
    let disk = SimDisk::new();
    let mut state = State::new(ClusterId(0xc1), NodeId(1), Incarnation(1), Membership::default());
    let snapshot = description(200).point;
    let group = superblock::Group { hard_state: HardState::default(), snapshot, log_start: Index(log_start) };
    state.groups.insert(GroupId::CLUSTER, group);
    superblock::format(&disk.files(), &state).expect("nothing is wrong with the disk");
    make(&disk.files(), 100);
    make(&disk.files(), 200);
    disk
}

/// What both say, and how verify ends.
fn said(disk: &SimDisk, title: &str) -> (String, Exit) {
    let read =
        |every_chunk| Reading::take(&disk.files(), "DIR".to_owned(), every_chunk).expect("the root can be listed");
    let (inspected, verified) = (read(false), read(true));
    let end = verify::judge(&verified);
    let failure = end.as_ref().map_or_else(ToString::to_string, |()| "exit code 0".to_owned());
    let text = format!(
        "=== {title}\n--- inspect\n{}--- verify\n{}{failure}\n\n",
        inspect::text(&inspected, Format::Table),
        verify::text(&verified, Format::Table)
    );
    (text, end.map_or_else(|failure| failure.exit, |()| Exit::Done))
}

#[test]
fn what_is_said_of_sound_and_of_damaged_snapshots() {
    let name = |index| description(index).name();
    let cases: [Case<'_>; 9] = [
        ("sound", &|_| {}, Exit::Done),
        ("a flipped bit in a chunk", &|disk| disk.flip_bit(&format!("{}/chunks", name(200)), 600, 1), Exit::Corrupt),
        ("a bad sector", &|disk| disk.make_unreadable(&format!("{}/chunks", name(100)), 0..1), Exit::DiskFailed),
        ("a rotten manifest", &|disk| disk.flip_bit(&format!("{}/manifest", name(200)), 50, 1), Exit::Corrupt),
        ("chunks cut short", &|disk| disk.truncate(&format!("{}/chunks", name(200)), 512), Exit::Corrupt),
        ("a manifest that does not open", &refuse, Exit::DiskFailed),
        ("the one that the superblock names is gone", &lose, Exit::Corrupt),
        ("another cluster's, a newer program's", &foreign_and_newer, Exit::WrongIdentity),
        ("unfinished and strange names", &unfinished, Exit::Done),
    ];
    let mut all = String::new();
    for (title, change, exit) in cases {
        let disk = node();
        change(&disk);
        let (text, found) = said(&disk, title);
        assert_eq!(found, exit, "{title}\n{text}");
        all.push_str(&text);
    }
    assert_eq!(all, include_str!("tests/golden.txt"), "\n{all}");
}

/// Another node's was installed, and its state waits for the log: that one counts, and what is named may have gone.
#[test]
fn one_that_an_installation_left_behind_is_not_missed() {
    for (log_start, exit) in [(1, Exit::Corrupt), (201, Exit::Corrupt), (202, Exit::Done)] {
        let disk = node_with_log_from(log_start);
        lose(&disk);
        let (text, found) = said(&disk, "");
        assert_eq!(found, exit, "a log from {log_start} on\n{text}");
    }
}

fn refuse(disk: &SimDisk) {
    disk.refuse_to_open(&format!("{}/manifest", description(200).name()), Some(Code::Io));
}

fn lose(disk: &SimDisk) {
    crate::snapshot::remove(&disk.files(), &description(200).name()).expect("nothing is wrong with the disk");
}

fn foreign_and_newer(disk: &SimDisk) {
    let other = Description { cluster: ClusterId(0xc2), ..description(300) };
    let mut builder = Builder::new(other, Box::new(Once(Some(vec![1]))));
    while builder.step(&disk.files(), true).expect("nothing is wrong with the disk") != Step::Done {}
    make(&disk.files(), 400);
    let name = format!("{}/manifest", description(400).name());
    let mut bytes = disk.contents(&name);
    bytes[8] = 2;
    let checksum = Checksum::of(&bytes[..12]).continued(&bytes[16..]);
    bytes[12..16].copy_from_slice(&checksum.0.to_le_bytes());
    disk.plant(&name, &bytes);
}

fn unfinished(disk: &SimDisk) {
    for ending in ["making", "receiving", "removing"] {
        let name = format!("{}.{ending}", description(300).name());
        disk.files().create_directory(&name).expect("nothing is wrong with the disk");
    }
    disk.files().create_directory("snapshot-of-mine").expect("nothing is wrong with the disk");
}

#[test]
fn the_answers_are_json_for_scripts() {
    let disk = node();
    disk.flip_bit(&format!("{}/chunks", description(100).name()), 0, 0);
    let read = |every_chunk| Reading::take(&disk.files(), "DIR".to_owned(), every_chunk).unwrap();
    let json = |text: String| serde_json::from_str::<serde_json::Value>(&text).unwrap();
    let inspected = json(inspect::text(&read(false), Format::Json));
    let second = &inspected["snapshots"][1];
    assert_eq!((&second["point"], &second["condition"]), (&"200@4".into(), &"whole".into()));
    assert_eq!(second["manifest"]["bytes"], 1200);
    assert_eq!(second["manifest"]["voters"], serde_json::json!([1, 2]));
    assert_eq!(inspected["findings"], serde_json::json!([]));
    let verified = json(verify::text(&read(true), Format::Json));
    assert_eq!((&verified["result"], &verified["chunks"]), (&"damaged".into(), &6.into()));
    assert_eq!(verified["findings"][0]["exit_code"], 10);
    assert_eq!(verified["findings"][0]["name"], description(100).name());
}

/// The same on a real file system, where directories are renamed, flushed and removed.
#[test]
fn a_real_directory_holds_snapshots_too() {
    let home = tempfile::tempdir().unwrap();
    let files = Directory::open(home.path()).unwrap();
    for index in [100, 200, 300] {
        make(&files, index);
    }
    let listing = crate::snapshot::list(&files, None).unwrap();
    let superfluous = crate::snapshot::superfluous(&listing, GroupId::CLUSTER, LogId::ZERO);
    superfluous.iter().for_each(|name| crate::snapshot::remove(&files, name).unwrap());
    let reading = Reading::take(&files, "DIR".to_owned(), true).unwrap();
    assert!(verify::judge(&reading).is_ok());
    assert_eq!(verify::text(&reading, Format::Table).trim_end(), "DIR: ok: 2 snapshots, 6 chunks, 2500 bytes");
    assert_eq!(files.list("").unwrap().len(), 2);
    let missing = super::reading::open(&home.path().join("nothing")).unwrap_err();
    assert_eq!(missing.exit, Exit::WrongIdentity);
}

/// A directory with these that is no node's, as an export leaves one.
fn backup(indexes: &[u64]) -> SimDisk {
    let disk = SimDisk::new();
    indexes.iter().for_each(|index| make(&disk.files(), *index));
    disk
}

#[test]
fn what_is_said_where_a_backup_ought_to_be_and_is_none() {
    let name = |index| description(index).name();
    let cases: [(&str, SimDisk, Exit); 6] = [
        ("a backup", backup(&[100]), Exit::Done),
        ("nothing", backup(&[]), Exit::Corrupt),
        ("an export that was broken off", backup(&[]), Exit::Corrupt),
        ("a copy under another name", backup(&[100]), Exit::Corrupt),
        ("one level too deep", backup(&[]), Exit::Corrupt),
        ("a chunk that rotted", backup(&[100]), Exit::Corrupt),
    ];
    let receiving = format!("{}.receiving", name(300));
    cases[2].1.files().create_directory(&receiving).expect("nothing is wrong with the disk");
    let renamed = format!("{}-copy", name(100));
    cases[3].1.files().rename(&name(100), &renamed).expect("nothing is wrong with the disk");
    ["manifest", "chunks"].iter().for_each(|file| cases[4].1.plant(file, b"of a snapshot"));
    cases[5].1.flip_bit(&format!("{}/chunks", name(100)), 600, 1);
    let mut all = String::new();
    for (title, disk, exit) in &cases {
        let (text, found) = said(disk, title);
        assert_eq!(found, *exit, "{title}\n{text}");
        all.push_str(&text);
    }
    assert_eq!(all, include_str!("tests/backups.txt"), "\n{all}");
}

/// What is whole and older is no stand-in for what is newest: acknowledged writes would be gone, and nobody told.
#[test]
fn a_restore_takes_an_older_one_on_purpose_alone() {
    let name = |index| description(index).name();
    let manifest = |index| format!("{}/manifest", name(index));
    let flip: &dyn Fn(&SimDisk) = &|disk| disk.flip_bit(&manifest(200), 50, 1);
    let cases: [Restored<'_>; 7] = [
        ("a rotten manifest", backup(&[100, 200]), flip, Exit::Corrupt),
        ("one that does not open", backup(&[100, 200]), &refuse, Exit::DiskFailed),
        ("chunks cut short", node(), &|disk| disk.truncate(&format!("{}/chunks", name(200)), 512), Exit::Corrupt),
        ("the one that the superblock names is gone", node(), &lose, Exit::Corrupt),
        ("a superblock that nobody can read", node(), &|disk| disk.plant("superblock", &[1; 8192]), Exit::Corrupt),
        ("another cluster's", node(), &foreign_and_newer, Exit::WrongIdentity),
        ("unfinished ones", node(), &unfinished, Exit::Done),
    ];
    let shown = std::path::Path::new("DIR");
    for (title, disk, change, exit) in cases {
        let newest = |at| restore::choose(&disk.files(), shown, at).map(|manifest| manifest.description.point.index.0);
        assert_eq!(newest(None), Ok(200), "{title}");
        change(&disk);
        match newest(None) {
            Ok(index) => assert_eq!((index, exit), (200, Exit::Done), "{title}"),
            Err(failure) => {
                assert_eq!(failure.exit, exit, "{title}: {failure}");
                assert!(failure.next_step.contains("--at"), "{title}: {failure}");
            }
        }
        assert_eq!(newest(Some(100)), Ok(100), "{title}");
        let missing = newest(Some(7)).unwrap_err();
        assert!(missing.exit == Exit::Usage && missing.next_step.contains("100"), "{title}: {missing}");
    }
    // What is damaged and older is in nobody's way.
    let disk = node();
    disk.flip_bit(&manifest(100), 50, 1);
    assert!(restore::choose(&disk.files(), shown, None).is_ok());
}

#[test]
fn a_directory_is_written_into_by_one_command_at_a_time() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("backup");
    let first = Locked::take(&path).unwrap();
    let second = Locked::take(&path).unwrap_err();
    assert_eq!(second.exit, Exit::InUse, "{second}");
    first.give_up();
    assert!(!path.exists(), "it was made for nothing");
    Locked::take(&path).unwrap().files.create_directory("something").unwrap();
    Locked::take(&path).unwrap().give_up();
    assert!(path.join("something").exists(), "it was there before");
    std::fs::write(home.path().join("file"), "").unwrap();
    for (path, exit) in [("file", Exit::WrongIdentity), ("no/parent", Exit::WrongIdentity)] {
        let refused = Locked::take(&home.path().join(path)).unwrap_err();
        assert_eq!(refused.exit, exit, "{refused}");
    }
}
