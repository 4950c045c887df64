//! What every pair of files and queue promises, told once, for the real ones and the simulated one alike.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;

use crate::disk::{Buffer, Completion, Error, FileId, Files, Operation, Token, WRITES_QUEUED_MAX, Write};
use crate::limits::{BLOCK_BYTES, WRITES_IN_FLIGHT_MAX};
use crate::random::Random;
use crate::sim::fuzz::Backend;

const BLOCK: u64 = BLOCK_BYTES as u64;

/// A disk under test.
pub trait Rig {
    type Files: Files;

    fn files(&self) -> &Self::Files;
    /// The same directory, as another process sees it.
    fn another(&self) -> Self::Files;
    fn submit(&mut self, write: Write);
    fn take(&mut self) -> Option<Completion>;
    /// Lets time pass for what is in flight.
    fn turn(&mut self);

    fn wait(&mut self) -> Completion {
        for _ in 0..1_000_000 {
            if let Some(completion) = self.take() {
                return completion;
            }
            self.turn();
        }
        panic!("a write never completes");
    }
}

pub fn names_are_kept_inside(rig: &mut impl Rig) {
    let files = rig.files();
    for name in ["", "/", "/etc", "..", "../x", "a/..", "a/../b", "a/b/c", "./a", "a/", "a//b", "a\0"] {
        let refusals = [
            files.create(name).err(),
            files.open(name).err(),
            files.open_read(name).err(),
            files.rename("x", name).err(),
            files.remove(name).err(),
            files.create_directory(name).err(),
        ];
        for refusal in refusals {
            assert_eq!(refusal.map(|error| error.kind()), Some(ErrorKind::InvalidInput), "{name:?}");
        }
    }
    assert_eq!(files.list("").expect("the root can be listed"), Vec::<String>::new());
}

pub fn creates_lists_renames_removes(rig: &mut impl Rig) {
    let files = rig.files();
    let first = create(files, "b", b"first");
    files.create_directory("d").expect("there is room");
    files.create_directory("d").expect("it is no error that it exists");
    let inner = create(files, "d/x", b"inner");
    assert_eq!(files.list("").expect("it exists"), ["b", "d"]);
    assert_eq!(files.list("d").expect("it exists"), ["x"]);
    expect(files.create("b"), Operation::Create, ErrorKind::AlreadyExists);
    expect(files.create_directory("b"), Operation::Create, ErrorKind::NotADirectory);
    expect(files.open("none"), Operation::Open, ErrorKind::NotFound);
    expect(files.open_read("none/x"), Operation::Open, ErrorKind::NotFound);
    expect(files.list("none"), Operation::List, ErrorKind::NotFound);
    expect(files.remove("none"), Operation::Remove, ErrorKind::NotFound);
    expect(files.rename("none", "b"), Operation::Rename, ErrorKind::NotFound);

    let second = create(files, "a", b"second");
    files.rename("a", "b").expect("both exist");
    files.rename("d", "e").expect("nothing stands there");
    files.sync_directory("").expect("it exists");
    assert_eq!(files.list("").expect("it exists"), ["b", "e"]);
    assert_eq!(read(files, first, 0, 5), b"first", "an open file lives on without a name");
    assert_eq!(read(files, second, 0, 6), b"second");
    assert_eq!(read(files, inner, 0, 5), b"inner");
    for file in [first, second, inner] {
        files.close(file);
    }
    let again = files.open_read("b").expect("it was renamed to that");
    assert_eq!(read(files, again, 0, 6), b"second");
    files.close(again);
    files.remove("e/x").expect("it exists");
    files.remove("e").expect("it is empty");
    files.remove("b").expect("it exists");
    files.sync_directory("").expect("it exists");
    assert_eq!(files.list("").expect("it exists"), Vec::<String>::new());
}

/// Renamed before its first durable write, a file is still found.
pub fn renamed_files_take_writes(rig: &mut impl Rig) {
    rig.files().create_directory("t").expect("there is room");
    let file = create(rig.files(), "t/new", &[0; BLOCK_BYTES]);
    rig.files().rename("t/new", "t/f").expect("it exists");
    rig.files().rename("t", "s").expect("it exists");
    rig.submit(write(1, file, 0, 7, 1));
    rig.wait().result.expect("the file is open");
    assert_eq!(read(rig.files(), file, 0, BLOCK_BYTES), [7; BLOCK_BYTES]);
    rig.files().close(file);
}

pub fn reads_any_range_and_no_further(rig: &mut impl Rig) {
    let files = rig.files();
    let mut bytes = vec![0; 3 * BLOCK_BYTES + 100];
    Random::seeded(1).fill(&mut bytes);
    let file = create(files, "f", &bytes);
    assert_eq!(files.length(file).expect("it is open"), bytes.len() as u64);
    let edges = [0, 1, 511, 512, 4095, 4096, 4097, 8192, 12287, 12288, 12300, 12387, 12388];
    for from in edges {
        for to in edges.into_iter().filter(|to| *to >= from) {
            assert_eq!(read(files, file, from as u64, to - from), bytes[from..to], "{from}..{to}");
        }
    }
    for (from, count) in [(0, bytes.len() + 1), (12_388, 1), (12_287, 102), (20_000, 1), (1 << 40, 4096)] {
        let error = files.read(file, from, &mut vec![0; count]).expect_err("it ends before");
        assert_eq!((error.operation, error.kind()), (Operation::Read, ErrorKind::UnexpectedEof), "{from} {count}");
        assert_eq!(error.offset, Some(from));
        assert!(error.path.ends_with('f'), "{}", error.path);
    }
    files.close(file);
}

pub fn large_reads_and_zeros(rig: &mut impl Rig) {
    let files = rig.files();
    let mut bytes = vec![0; (2 << 20) + 777];
    Random::seeded(2).fill(&mut bytes);
    let file = create(files, "f", &bytes);
    assert!(read(files, file, 3, bytes.len() - 3) == bytes[3..]);
    let (from, count) = (BLOCK, (1 << 20) + BLOCK);
    files.zero(file, from, count).expect("there is room");
    files.zero(file, 5, 3).expect("there is room");
    files.zero(file, bytes.len() as u64 - 7, 100).expect("there is room");
    files.sync(file).expect("it is open");
    bytes[from as usize..(from + count) as usize].fill(0);
    bytes[5..8].fill(0);
    let end = bytes.len();
    bytes[end - 7..].fill(0);
    bytes.resize(end + 93, 0);
    assert!(read(files, file, 0, bytes.len()) == bytes);
    assert!(&files.map(file).expect("it is open")[..] == bytes.as_slice());
    files.close(file);
    let empty = files.create("empty").expect("there is room");
    assert!(files.map(empty).expect("it is open").is_empty());
    files.close(empty);
}

pub fn a_gap_reads_as_zero(rig: &mut impl Rig) {
    let files = rig.files();
    let file = create(files, "f", b"x");
    files.write(file, 10_000, b"y").expect("there is room");
    let bytes = read(files, file, 0, 10_001);
    assert!(bytes[0] == b'x' && bytes[10_000] == b'y' && bytes[1..10_000].iter().all(|byte| *byte == 0));
    files.close(file);
}

pub fn one_writer_at_a_time(rig: &mut impl Rig) {
    let other = rig.another();
    let file = create(rig.files(), "f", &[1; BLOCK_BYTES]);
    let refused = |said: Result<FileId, Error>| assert!(said.expect_err("the file is locked").is_locked());
    refused(other.open("f"));
    refused(rig.files().open("f"));
    let reader = other.open_read("f").expect("readers need no lock");
    rig.submit(write(1, file, 0, 2, 1));
    rig.wait().result.expect("the lock is ours");
    assert_eq!(read(&other, reader, 0, BLOCK_BYTES), [2; BLOCK_BYTES]);
    refused(other.open("f"));
    rig.files().close(file);
    let file = other.open("f").expect("the lock went with the file");
    refused(rig.files().open("f"));
    other.close(file);
    other.close(reader);
    let file = rig.files().open("f").expect("the lock went with the file");
    rig.files().close(file);
}

/// A reader on another thread may come too late: it is told so.
pub fn a_closed_file_is_not_found(rig: &mut impl Rig) {
    let file = create(rig.files(), "f", &[1; BLOCK_BYTES]);
    rig.files().close(file);
    let error = rig.files().read(file, 0, &mut [0; 8]).expect_err("it is closed");
    assert_eq!((error.operation, error.kind()), (Operation::Read, ErrorKind::NotFound));
}

/// What is opened for reading takes no write, by either way, and the disk says so.
pub fn readers_do_not_write(rig: &mut impl Rig) {
    let file = create(rig.files(), "f", &[1; BLOCK_BYTES]);
    rig.files().close(file);
    let file = rig.files().open_read("f").expect("it exists");
    assert!(rig.files().write(file, 0, b"x").is_err());
    assert!(rig.files().zero(file, 0, 1).is_err());
    rig.submit(write(3, file, 0, 2, 1));
    let completion = rig.wait();
    assert_eq!(completion.token, Token(3));
    assert_eq!(completion.result.expect_err("it was opened for reading").operation, Operation::Write);
    assert_eq!(read(rig.files(), file, 0, BLOCK_BYTES), [1; BLOCK_BYTES]);
    rig.files().close(file);
}

pub fn writes_at_each_depth(rig: &mut impl Rig) {
    let file = rig.files().create("f").expect("there is room");
    rig.files().zero(file, 0, 64 * BLOCK).expect("there is room");
    rig.files().sync(file).expect("it is open");
    let mut random = Random::seeded(3);
    let mut model = vec![0u8; 64 * BLOCK_BYTES];
    for depth in 1..=WRITES_IN_FLIGHT_MAX {
        for round in 0..10 {
            let mut outstanding = BTreeMap::new();
            for at in 0..depth {
                let (block, blocks) = (at as u64 * 8 + random.below(4), 1 + random.below(4));
                let write = write(round * 100 + at as u64, file, block, random.next_u64() as u8, blocks);
                let from = (block * BLOCK) as usize;
                model[from..from + write.buffer.len()].copy_from_slice(&write.buffer);
                outstanding.insert(write.token, write.buffer.len());
                rig.submit(write);
            }
            for _ in 0..depth {
                let completion = rig.wait();
                completion.result.expect("nothing is wrong with the disk");
                assert_eq!(outstanding.remove(&completion.token), Some(completion.buffer.len()));
            }
            assert!(rig.take().is_none() && outstanding.is_empty());
        }
        assert!(read(rig.files(), file, 0, model.len()) == model, "at depth {depth}");
    }
    rig.files().close(file);
}

/// An error is for good: nothing that comes later reaches the disk, also in another file.
pub fn an_error_poisons_the_queue(rig: &mut impl Rig) {
    let good = create(rig.files(), "good", &[1; BLOCK_BYTES]);
    let file = create(rig.files(), "f", &[1; BLOCK_BYTES]);
    rig.files().close(file);
    let bad = rig.files().open_read("f").expect("it exists");
    rig.submit(write(1, good, 0, 2, 1));
    rig.wait().result.expect("nothing is wrong yet");
    rig.submit(write(2, bad, 0, 2, 1));
    assert!(rig.wait().result.is_err());
    for token in 3..6 {
        rig.submit(write(token, good, 0, 3, 1));
    }
    let mut outstanding = BTreeSet::from([Token(3), Token(4), Token(5)]);
    while !outstanding.is_empty() {
        let completion = rig.wait();
        assert!(outstanding.remove(&completion.token), "each completes once");
        assert!(completion.result.is_err(), "an error is for good");
    }
    assert_eq!(read(rig.files(), good, 0, BLOCK_BYTES), [2; BLOCK_BYTES], "nothing is written after an error");
    rig.files().close(good);
    rig.files().close(bad);
}

pub fn the_bound_is_asserted(rig: &mut impl Rig) {
    let file = create(rig.files(), "f", &[1; BLOCK_BYTES]);
    for token in 0..=WRITES_QUEUED_MAX as u64 {
        rig.submit(write(token, file, 0, 1, 1));
    }
}

pub fn a_write_off_the_blocks_is_our_bug(rig: &mut impl Rig) {
    let file = create(rig.files(), "f", &[1; BLOCK_BYTES]);
    let mut buffer = Buffer::with_capacity(BLOCK_BYTES);
    buffer.extend(&[0; 512]);
    rig.submit(Write { token: Token(1), file, offset: 0, buffer });
}

/// A rig as the fuzz target `backend_diff` takes it.
pub struct Compared<'r, R>(pub &'r mut R);

impl<R: Rig> Backend for Compared<'_, R> {
    type Files = R::Files;

    fn files(&self) -> &R::Files {
        self.0.files()
    }

    fn submit(&mut self, write: Write) {
        self.0.submit(write);
    }

    fn wait(&mut self) -> Completion {
        self.0.wait()
    }
}

pub fn create(files: &impl Files, name: &str, bytes: &[u8]) -> FileId {
    let file = files.create(name).expect("it does not exist yet");
    files.write(file, 0, bytes).expect("there is room");
    files.sync(file).expect("it is open");
    files.sync_directory(name.split_once('/').map_or("", |(parent, _)| parent)).expect("it exists");
    file
}

pub fn read(files: &impl Files, file: FileId, offset: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0xa5; length];
    files.read(file, offset, &mut bytes).expect("the range lies within the file");
    bytes
}

/// A write of so many blocks, all of one byte.
pub fn write(token: u64, file: FileId, block: u64, fill: u8, blocks: u64) -> Write {
    let mut buffer = Buffer::with_capacity((blocks * BLOCK) as usize);
    buffer.pad_to_capacity();
    buffer.fill(fill);
    Write { token: Token(token), file, offset: block * BLOCK, buffer }
}

fn expect<T: std::fmt::Debug>(said: Result<T, Error>, operation: Operation, kind: ErrorKind) {
    let error = said.expect_err("it cannot be done");
    assert_eq!((error.operation, error.kind()), (operation, kind), "{error}");
}
