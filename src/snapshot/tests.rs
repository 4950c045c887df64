//! Making, listing and reading; `crashes.rs` cuts the power, `damage.rs` damages, `mending.rs` mends, `full.rs` fills the
//! disk.

mod copying;
mod crashes;
mod damage;
mod full;
mod mending;
mod proofs;
mod receiving;
mod running;
mod zoo;

use bytes::BytesMut;

use super::*;
use crate::checksum::Checksum;
use crate::disk::{self, Files};
use crate::mutant::{self, Mutant};
use crate::random::Random;
use crate::sim::disk::SimDisk;
use crate::types::{ClusterId, GroupId, Incarnation, Index, LogId, Member, Membership, NodeId, Term};

const GROUP: GroupId = GroupId(0);
/// Small, so that a state of a few sectors has several.
const CHUNK_BYTES: usize = 1024;

/// Gives bytes in pieces that have nothing to do with chunks.
struct Bytes {
    rest: Vec<u8>,
    piece_bytes: usize,
}

impl ChunkSource for Bytes {
    fn encode_next(&mut self, out: &mut BytesMut) -> bool {
        let piece = self.piece_bytes.min(self.rest.len());
        out.extend(self.rest.drain(..piece));
        piece > 0
    }
}

/// The state at a point: its length and its bytes differ from those at every other.
fn state(index: u64) -> Vec<u8> {
    let mut bytes = vec![0; 2000 + 100 * (index as usize % 7)];
    Random::seeded(index).fill(&mut bytes);
    bytes
}

fn description(index: u64) -> Description {
    let member =
        Member { id: NodeId(1), incarnation: Incarnation(2), address: "127.0.0.1:7000".parse().expect("an address") };
    let membership = Membership { voters: [member.id].into(), members: vec![member], ..Membership::default() };
    Description {
        cluster: ClusterId(0xc1),
        group: GROUP,
        point: LogId::new(Term(3), Index(index)),
        membership,
        membership_id: LogId::new(Term(1), Index(2)),
        log_start: Index(1),
        last_record: Index::ZERO,
        log_digest: Checksum(0x1234_5678),
    }
}

fn builder(index: u64) -> Builder {
    builder_of(description(index), state(index))
}

fn builder_of(description: Description, state: Vec<u8>) -> Builder {
    Builder::with_chunks(description, Box::new(Bytes { rest: state, piece_bytes: 700 }), CHUNK_BYTES)
}

#[expect(clippy::result_large_err, reason = "what failed is abandoned by the test")]
fn run(files: &impl Files, mut builder: Builder) -> Result<(), (Builder, Error)> {
    loop {
        match builder.step(files, true) {
            Ok(Step::Done) => return Ok(()),
            Ok(_) => {}
            Err(error) => return Err((builder, error)),
        }
    }
}

/// A snapshot of the state at this index, and what is then too much.
fn make(files: &impl Files, index: u64) -> Result<(), Error> {
    run(files, builder(index)).map_err(|(_, error)| error)?;
    sweep(files)
}

/// What a start does, and whoever has made one.
fn sweep(files: &impl Files) -> Result<(), Error> {
    let listing = list(files, Some(ClusterId(0xc1)))?;
    superfluous(&listing, GROUP, LogId::ZERO).iter().try_for_each(|name| remove(files, name))
}

/// Every chunk, one after the other, each checked.
fn content(files: &impl Files, manifest: &Manifest) -> Result<Vec<u8>, Error> {
    let mut reader = Reader::open(files, manifest.clone())?;
    let mut bytes = Vec::new();
    let read =
        (0..manifest.chunks()).try_for_each(|number| reader.chunk(files, number).map(|chunk| bytes.extend(chunk)));
    reader.close(files);
    read.map(|()| bytes)
}

/// The points that are whole, oldest first, and read back as the states that they were.
fn whole(disk: &SimDisk) -> Vec<u64> {
    let files = disk.files();
    let listing = list(&files, Some(ClusterId(0xc1))).expect("the root can be listed");
    let of = |manifest: &Manifest| {
        let index = manifest.description.point.index.0;
        assert_eq!(manifest.description, description(index));
        assert!(content(&files, manifest).expect("each chunk is right") == state(index), "the state at {index}");
        index
    };
    listing.whole(GROUP).map(of).collect()
}

fn condition(disk: &SimDisk, index: u64) -> Condition {
    let listing = list(&disk.files(), Some(ClusterId(0xc1))).expect("the root can be listed");
    let found = listing.found.into_iter().find(|found| found.name == description(index).name());
    found.expect("it has its name").condition
}

fn with_snapshots(indexes: &[u64]) -> SimDisk {
    let disk = SimDisk::new();
    indexes.iter().for_each(|index| make(&disk.files(), *index).expect("nothing is wrong with the disk"));
    disk
}

#[test]
fn what_is_made_is_listed_and_read_back() {
    let disk = with_snapshots(&[10]);
    assert_eq!(whole(&disk), [10]);
    let mut names = disk.files().list("").unwrap();
    names.extend(disk.files().list(&description(10).name()).unwrap());
    assert_eq!(names, ["snapshot-0000000000-00000000000000000010-00000000000000000003", "chunks", "manifest"]);
    assert!(verify(&disk.files(), &Manifest { chunk_bytes: 512, ..sample() }).is_err(), "of another point");
}

/// docs/formats.md shows these bytes.
fn sample() -> Manifest {
    let chunks = [&[1; 512][..], &[1; 100]];
    let (cluster, point, last_record) = (ClusterId(0xc1), LogId::new(Term(6), Index(11)), Index(9));
    let description = Description { cluster, point, last_record, ..description(11) };
    let checksums = (0..).zip(chunks).map(|(number, chunk)| description.checksum_of(number, chunk)).collect();
    Manifest { description, chunk_bytes: 512, bytes: 612, checksums }
}

#[test]
fn golden_bytes() {
    let expected: &[&[u8]] = &[
        b"TRISNAPS\x01\0\0\0\xe2\x75\x7c\x4a",
        b"\xc1\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
        b"\0\0\0\0\0\x02\0\0\x0b\0\0\0\0\0\0\0",
        b"\x06\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0",
        b"\x01\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0",
        b"\x09\0\0\0\0\0\0\0\x64\x02\0\0\0\0\0\0",
        b"\x78\x56\x34\x12\x02\0\0\0\xdb\x7e\x1c\xa8\xdd\xbe\x4b\x0e",
        b"\x01\0\0\0\0\x01\0\0\0\0\0\0\0\x02\0\0",
        b"\0\0\0\0\0\x04\x7f\0\0\x01\x58\x1b\x01",
    ];
    assert_eq!(sample().encode(), expected.concat());
}

/// Two nodes that make a snapshot of one state make the same files.
#[test]
fn the_files_tell_nothing_of_who_made_them() {
    let (one, other) = (with_snapshots(&[10]), with_snapshots(&[3, 7]));
    let different_pieces = Box::new(Bytes { rest: state(10), piece_bytes: 3000 });
    run(&other.files(), Builder::with_chunks(description(10), different_pieces, CHUNK_BYTES)).map_err(|_| ()).unwrap();
    for file in ["chunks", "manifest"] {
        let name = format!("{}/{file}", description(10).name());
        assert_eq!(one.contents(&name), other.contents(&name));
    }
}

#[test]
fn a_state_of_any_length_has_its_chunks() {
    for length in [0, 1, 511, 512, 1023, 1024, 1025, 2047, 2048, 5000] {
        let (disk, bytes) = (SimDisk::new(), vec![7; length]);
        run(&disk.files(), builder_of(description(5), bytes.clone())).map_err(|_| ()).unwrap();
        let listing = list(&disk.files(), None).unwrap();
        let manifest = listing.whole(GROUP).next().unwrap();
        assert_eq!((manifest.bytes, manifest.chunks() as usize), (length as u64, length.div_ceil(CHUNK_BYTES)));
        assert!(content(&disk.files(), manifest).unwrap() == bytes);
    }
}

#[test]
fn the_manifest_waits_until_the_point_is_durable() {
    let (disk, mut builder) = (SimDisk::new(), builder(10));
    let mut wrote = 0;
    loop {
        match builder.step(&disk.files(), false).unwrap() {
            Step::Wrote { bytes } => wrote += bytes,
            Step::Went => {}
            Step::Waits => break,
            Step::Read { .. } | Step::Done => panic!("it was not to be finished"),
        }
    }
    assert_eq!((wrote, builder.bytes()), (state(10).len(), state(10).len() as u64));
    for _ in 0..3 {
        assert_eq!(builder.step(&disk.files(), false).unwrap(), Step::Waits);
    }
    assert_eq!(disk.files().list(&format!("{}.making", description(10).name())).unwrap(), ["chunks"]);
    assert!(whole(&disk).is_empty());
    run(&disk.files(), builder).map_err(|_| ()).unwrap();
    assert_eq!(whole(&disk), [10]);
}

/// Chunks of 1 MiB are flushed every 8 MiB, so that no flush has much to do.
#[test]
fn a_long_state_is_flushed_as_it_is_written() {
    let disk = SimDisk::new();
    let (rest, acts) = (vec![5; (20 << 20) + 3], std::rc::Rc::new(std::cell::RefCell::new(Vec::new())));
    let seen = std::rc::Rc::clone(&acts);
    disk.observe(move |event| seen.borrow_mut().push((event.act, event.length)));
    let source = Box::new(Bytes { rest, piece_bytes: 2 << 20 });
    run(&disk.files(), Builder::new(description(5), source)).map_err(|_| ()).unwrap();
    let acts = acts.borrow();
    let flushes = acts.iter().filter(|(act, _)| *act == crate::sim::disk::Act::Flush).count();
    let longest = acts.iter().map(|(_, length)| *length).max();
    assert_eq!((flushes, longest), (3 + 1, Some(1 << 20)), "two in between, one at the end, one of the manifest");
}

/// It came from another node. It is read, and not written; one of another state stays, and so does one that is damaged.
#[test]
fn one_that_is_there_is_not_made_again() {
    let disk = with_snapshots(&[10]);
    let before = disk.fork();
    run(&disk.files(), builder(10)).map_err(|(_, error)| error).unwrap();
    assert_eq!((whole(&disk), disk.used_bytes()), (vec![10], before.used_bytes()));
    let other = Description { log_digest: crate::checksum::Checksum(99), ..description(10) };
    let (builder_of_other, error) = run(&disk.files(), builder_of(other, state(10))).unwrap_err();
    assert!(matches!(error, Error::Exists { .. }), "{error}");
    builder_of_other.abandon(&disk.files()).unwrap();
    assert_eq!(whole(&disk), [10]);
    disk.flip_bit(&format!("{}/chunks", description(10).name()), 40, 3);
    let (builder, error) = run(&disk.files(), builder(10)).unwrap_err();
    assert!(matches!(error, Error::Damaged { damage: Damage::Chunk { number: 0 }, .. }), "{error}");
    builder.abandon(&disk.files()).unwrap();
    assert_eq!(disk.files().list("").unwrap(), [description(10).name()]);
}

/// The disk said that it was flushed, and gives back something else; tells whether that was seen.
fn is_rot_seen(file: &str, at: u64) -> bool {
    let disk = SimDisk::new();
    let mut builder = builder(10);
    while !disk.files().list("").unwrap().contains(&description(10).name()) {
        builder.step(&disk.files(), true).unwrap();
    }
    disk.flip_bit(&format!("{}/{file}", description(10).name()), at, 3);
    let Err((builder, error)) = run(&disk.files(), builder) else { return false };
    assert!(matches!(error, Error::Damaged { .. }), "{error}");
    builder.abandon(&disk.files()).unwrap();
    assert!(disk.files().list("").unwrap().is_empty(), "nothing is left of it");
    true
}

#[test]
fn one_that_does_not_read_back_is_not_done() {
    for (file, at) in [("chunks", 0), ("chunks", state(10).len() as u64 - 1), ("manifest", 40)] {
        assert!(is_rot_seen(file, at), "{file} at {at}");
    }
    assert!(!mutant::with(Mutant::SnapshotNotReadBack, || is_rot_seen("chunks", 0)), "the check finds it");
}

#[test]
#[should_panic(expected = "none is made after that")]
fn after_an_error_nothing_is_written() {
    let disk = SimDisk::new();
    disk.fail_at(4, crate::sim::disk::Failure::Error(crate::sim::disk::Code::Io));
    let (mut builder, _) = run(&disk.files(), builder(10)).unwrap_err();
    drop(builder.step(&disk.files(), true));
}

#[test]
fn two_are_kept_and_what_cannot_be_judged() {
    let disk = with_snapshots(&[10, 20, 30, 40]);
    assert_eq!(whole(&disk), [30, 40]);
    // The superblock still names the older one of three.
    run(&disk.files(), builder(50)).map_err(|_| ()).unwrap();
    let listing = list(&disk.files(), None).unwrap();
    assert_eq!(superfluous(&listing, GROUP, description(30).point), Vec::<String>::new());
    assert_eq!(superfluous(&listing, GROUP, description(40).point), [description(30).name()]);
    assert_eq!(superfluous(&listing, GroupId(1), LogId::ZERO), Vec::<String>::new(), "of another group");
    // Damaged ones go like whole ones, but do not count; the others stay.
    let name = |index| description(index).name();
    disk.flip_bit(&format!("{}/manifest", name(50)), 40, 0);
    disk.flip_bit(&format!("{}/manifest", name(30)), 40, 0);
    run(&disk.files(), builder(45)).map_err(|_| ()).unwrap();
    let superfluous = |disk: &SimDisk| superfluous(&list(&disk.files(), None).unwrap(), GROUP, LogId::ZERO);
    assert_eq!(superfluous(&disk), [name(30)], "40 and 45 are whole, 50 is newer");
    disk.refuse_to_open(&format!("{}/manifest", name(30)), Some(crate::sim::disk::Code::Io));
    assert_eq!(superfluous(&disk), Vec::<String>::new());
}

#[test]
fn what_was_being_received_stays_while_it_is_the_newest() {
    let disk = with_snapshots(&[10]);
    for (index, ending) in [(5, "receiving"), (10, "removing"), (12, "receiving"), (12, "making")] {
        disk.files().create_directory(&format!("{}.{ending}", description(index).name())).unwrap();
    }
    disk.files().create_directory("snapshot-0-12-3").unwrap();
    disk.files().create_directory("snapshots").unwrap();
    sweep(&disk.files()).unwrap();
    let listing = list(&disk.files(), None).unwrap();
    let names: Vec<&str> = listing.found.iter().map(|found| &*found.name).collect();
    assert_eq!(names, [description(10).name(), format!("{}.receiving", description(12).name())]);
    assert_eq!(listing.strange, ["snapshot-0-12-3"], "told, and left alone");
}

#[test]
fn every_error_says_what_to_do() {
    let damage = Damage::Length { expected: 5, found: 4 };
    for error in [
        Error::Damaged { name: "snapshot-1".into(), damage },
        Error::Exists { name: "snapshot-1".into() },
        Error::TooLarge { bytes_max: 5 },
        Error::Disk(disk::Error::new(disk::Operation::Read, "x", std::io::Error::from_raw_os_error(5))),
    ] {
        assert!(!error.to_string().is_empty() && !error.next_step().is_empty());
    }
}
