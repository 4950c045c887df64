//! Making the file, looking at it, and bringing it into order at start: synchronous, over [`disk::Files`].

use std::io;

use super::block::{BLOCKS, Copy, CopyNumber, PAIR_BYTES, Pair, decode};
use super::recovery::{Blocks, Condition, Conditions, Situation, Verdict, conditions, highest, newer_format};
use super::writer::Writer;
use super::{Error, FILE_NAME, State};
use crate::disk::{self, Buffer, FileId, Files};
use crate::limits::BLOCK_BYTES;

/// The file under construction; one that is left over from a crash is removed.
const TEMPORARY_NAME: &str = "superblock.new";

/// How far the copy number jumps at start. A single save goes one further, so the first pair of a start can never
/// carry the number of a save that was under way before the crash and is hidden just now by a read error.
const START_STEP: u64 = 2;

/// What [`load`] gives.
#[derive(Debug)]
pub struct Loaded {
    /// As it now stands in all four blocks: the boot number is that of this start.
    pub state: State,
    pub writer: Writer,
    /// How the four blocks were found, for a report: they are all intact and equal now.
    pub found: Conditions,
}

/// What [`inspect`] gives.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Inspection {
    /// The highest intact copy.
    pub state: State,
    pub found: Conditions,
}

/// Makes a directory a node's. Refuses if it is one already; a crash in the middle leaves it as it was, or done.
pub fn format(files: &impl Files, state: &State) -> Result<(), Error> {
    let names = files.list("")?;
    if names.iter().any(|name| name == FILE_NAME) {
        return Err(Error::AlreadyFormatted);
    }
    if names.iter().any(|name| name == TEMPORARY_NAME) {
        files.remove(TEMPORARY_NAME)?;
    }
    let file = files.create(TEMPORARY_NAME)?;
    let copy = Copy { number: CopyNumber::FIRST, state: state.clone() };
    let written = write_pair(files, file, Pair::A, &copy).and_then(|()| write_pair(files, file, Pair::B, &copy));
    files.close(file);
    written?;
    files.rename(TEMPORARY_NAME, FILE_NAME)?;
    files.sync_directory("")?;
    Ok(())
}

/// Looks without changing anything and without a lock: for tools.
pub fn inspect(files: &impl Files) -> Result<Inspection, Error> {
    let file = files.open_read(FILE_NAME).map_err(not_formatted)?;
    let examined = examine(files, file);
    files.close(file);
    let (copy, _, found) = examined?;
    Ok(Inspection { state: copy.state, found })
}

/// Reads the superblock, raises the boot number and brings all four blocks to that state. Nothing may be spoken
/// before it returns. The writer's tokens count up from `token_base`.
///
/// It writes: whoever expects a certain cluster and node first asks [`inspect`] and [`State::check`], so that a wrong
/// configuration leaves another node's directory as it is.
pub fn load(files: &impl Files, token_base: u64) -> Result<Loaded, Error> {
    let file = files.open(FILE_NAME).map_err(not_formatted)?;
    match start(files, file) {
        Ok((copy, found)) => {
            let state = copy.state.clone();
            Ok(Loaded { state, writer: Writer::new(file, copy, token_base), found })
        }
        Err(error) => {
            files.close(file);
            Err(error)
        }
    }
}

/// Leaves the word, durably, that this node was removed from its cluster.
pub fn mark_removed(files: &impl Files, why: &str) -> Result<(), Error> {
    mark(files, super::REMOVED_NAME, why)
}

/// Leaves the word, durably, that this node has lost what it had promised: it is never started again. Where there is no
/// room for a file, the superblock takes that name: without it nothing starts either, and its boot number, which each
/// start raises without any room, cannot pass for a newer one at last.
pub fn mark_no_voice(files: &impl Files, why: &str) -> Result<(), Error> {
    match mark(files, super::NO_VOICE_NAME, why) {
        Err(Error::Disk(failed)) if failed.is_no_space() => {
            files.rename(FILE_NAME, super::NO_VOICE_NAME)?;
            Ok(files.sync_directory("")?)
        }
        marked => marked,
    }
}

fn mark(files: &impl Files, name: &str, why: &str) -> Result<(), Error> {
    if files.list("")?.iter().any(|found| found == name) {
        return Ok(files.sync_directory("")?);
    }
    let file = files.create(name)?;
    let written = files.write(file, 0, why.as_bytes()).and_then(|()| files.sync(file));
    files.close(file);
    written?;
    Ok(files.sync_directory("")?)
}

/// Writes damaged blocks again from the intact ones, as a start does, and counts as none. Tells whether there were any.
pub fn mend(files: &impl Files) -> Result<bool, Error> {
    let file = files.open(FILE_NAME).map_err(not_formatted)?;
    let mended = mend_open(files, file);
    files.close(file);
    mended
}

fn mend_open(files: &impl Files, file: FileId) -> Result<bool, Error> {
    files.sync(file)?;
    let (mut copy, first, found) = examine(files, file)?;
    if found.are_intact() {
        return Ok(false);
    }
    settle(files, file, &mut copy, first)?;
    Ok(true)
}

fn start(files: &impl Files, file: FileId) -> Result<(Copy, Conditions), Error> {
    // What a dead process has written and not flushed would be read now and be gone after a cut of power.
    files.sync(file)?;
    let (mut copy, first, found) = examine(files, file)?;
    copy.state.boot += 1;
    settle(files, file, &mut copy, first)?;
    Ok((copy, found))
}

/// Brings all four blocks to one state, under a number that was never used.
fn settle(files: &impl Files, file: FileId, copy: &mut Copy, first: Pair) -> Result<(), Error> {
    copy.number = copy.number.plus(START_STEP);
    if first == Pair::B {
        // Under a number of its own, so that the next start can tell this write from the second of a save.
        write_pair(files, file, Pair::B, copy)?;
        copy.number = copy.number.plus(1);
    }
    write_pair(files, file, Pair::A, copy)?;
    write_pair(files, file, Pair::B, copy)
}

/// The highest intact copy and the pair that is to be written first, if the table says that they can be used.
fn examine(files: &impl Files, file: FileId) -> Result<(Copy, Pair, Conditions), Error> {
    let (blocks, read_error) = read_blocks(files, file);
    let found = conditions(&blocks);
    match Situation::of(&blocks).verdict() {
        Verdict::Use { first } => {
            let copy = highest(&blocks).expect("a usable pair has intact blocks").clone();
            Ok((copy, first, found))
        }
        Verdict::Damaged => Err(Error::Damaged { blocks: found, read_error }),
        Verdict::Newer => {
            let found = newer_format(&blocks).expect("a newer block led to this verdict");
            Err(Error::NewerFormat { found })
        }
    }
}

/// The four blocks, and the first read error: it is a finding like any other, since the other pair may do.
fn read_blocks(files: &impl Files, file: FileId) -> (Blocks, Option<disk::Error>) {
    let mut first_error = None;
    let mut bytes = Buffer::with_capacity(BLOCK_BYTES);
    bytes.extend(&[0; BLOCK_BYTES]);
    let blocks: [_; BLOCKS] =
        std::array::from_fn(|block| match files.read(file, (block * BLOCK_BYTES) as u64, &mut bytes) {
            Ok(()) => decode(block, bytes[..].try_into().expect("the buffer is one block long")),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(Condition::Damaged),
            Err(error) => {
                first_error.get_or_insert(error);
                Err(Condition::Unreadable)
            }
        });
    (blocks, first_error)
}

fn write_pair(files: &impl Files, file: FileId, pair: Pair, copy: &Copy) -> Result<(), Error> {
    let mut buffer = Buffer::with_capacity(PAIR_BYTES);
    pair.encode_into(&mut buffer, copy);
    files.write(file, pair.offset(), &buffer)?;
    files.sync(file)?;
    Ok(())
}

fn not_formatted(error: disk::Error) -> Error {
    match error.kind() {
        io::ErrorKind::NotFound => Error::NotFormatted,
        _ => Error::Disk(error),
    }
}
