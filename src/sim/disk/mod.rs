//! A disk that forgets, tears, rots and refuses on demand: for testing anything that stands on [`Files`] and [`Queue`].
//!
//! ```text
//!   the code under test                          the test
//!   SimFiles: write, sync, rename ──┐       ┌── fail_at, crash_at, capacity
//!                                   ▼       ▼
//!                      durable sectors + what is loose above them
//!                                   ▲       ▲
//!   SimQueue: submit ── pending ────┘       └── complete, fail, crash, kill, flip_bit, junk, ...
//! ```
//!
//! What is **loose** may be lost by a cut of power ([`SimDisk::crash`]) or kept, each thing by itself:
//! - each sector of 512 bytes that was written and not flushed: what it was, or any version since;
//! - each file's length since its last flush, apart from its data;
//! - each create, rename and removal in a directory that was not flushed, in any subset (which is harsher than the
//!   journals of ext4 and xfs, that keep an order);
//! - each sector of each write in a queue that has not completed.
//!
//! What was flushed, and every write that completed without an error, is never lost. A flush that failed makes nothing
//! durable, and neither does a later one of the same data: the kernel takes it for clean.
//!
//! Every call of [`Files`] acts at once and every [`Queue`] submission counts as one I/O operation, numbered from 0;
//! [`SimDisk::fail_at`] and [`SimDisk::crash_at`] go by that number, and [`SimDisk::observe`] sees each. Asking for a
//! length and closing do not count.
//!
//! # What it can do to you
//!
//! | fault | how |
//! |---|---|
//! | the page cache is lost, in any subset of sectors of 512 bytes | [`SimDisk::crash`], [`SimDisk::crash_to`], [`SimDisk::loose`] |
//! | a write is torn | the same: each of its sectors is loose by itself |
//! | the power goes in the midst of the kth operation | [`SimDisk::crash_at`] |
//! | a process dies, its machine does not | [`SimDisk::kill`], [`SimDisk::set_reads_past_cache`] |
//! | directory entries are lost: creates, renames, removals | [`What::Name`] among what is loose |
//! | the kth operation fails, or does half of its work | [`SimDisk::fail_at`] with a [`Failure`] |
//! | the kth write goes nowhere or elsewhere, or the kth flush is not done, and success is told | [`Failure::Lost`], [`Failure::Misdirected`] |
//! | a write is slow; the order of completions is another | [`Queue::submit`], and [`SimDisk::complete`] when you say so |
//! | a write hangs, is given up, and happens all the same | [`SimDisk::time_out`] |
//! | bit rot; blocks zeroed, filled, or junk | [`SimDisk::flip_bit`], [`SimDisk::zero`], [`SimDisk::fill`], [`SimDisk::junk`] |
//! | a misdirected or a stale block | [`SimDisk::copy_block`], [`SimDisk::overwrite`] with bytes of [`SimDisk::contents`] |
//! | bad sectors | [`SimDisk::make_unreadable`] |
//! | files lost, moved, cut, or put there | [`SimDisk::lose`], [`SimDisk::misplace`], [`SimDisk::truncate`], [`SimDisk::plant`] |
//! | a full disk, a read-only one, files that do not open | [`SimDisk::set_capacity`], [`SimDisk::set_read_only`], [`SimDisk::refuse_to_open`] |
//!
//! Time does not pass here. A test that needs it keeps a clock of its own: it completes a write when it is due, and may
//! charge every other operation in [`SimDisk::observe`]. A call of [`Files`] cannot hang: nothing could go on beside it.
//! What a caller is told who has waited for too long is [`Code::TimedOut`], through [`SimDisk::fail_at`].
//!
//! A disk and all its handles live on one thread: they share it by `Rc`. A test with threads keeps the disk on one of
//! them, and has the others ask that one.
//!
//! # A storage of your own
//!
//! This one keeps a number in a file, and means to replace it as a whole. It lacks one flush. Whoever cuts the power at
//! each operation, and lets each subset of what is loose survive, finds that:
//!
//! ```
//! use trilith::disk::{Error, Files};
//! use trilith::sim::disk::SimDisk;
//!
//! fn save(files: &impl Files, number: u8, flushes: bool) -> Result<(), Error> {
//!     let file = files.create("number.new")?;
//!     files.write(file, 0, &[number; 1000])?;
//!     if flushes {
//!         files.sync(file)?;
//!     }
//!     files.close(file);
//!     files.rename("number.new", "number")?;
//!     files.sync_directory("")
//! }
//!
//! /// The number that is there, if all of it is one that was saved.
//! fn load(disk: &SimDisk) -> Option<u8> {
//!     match disk.contents("number")[..] {
//!         [first, ref rest @ ..] if rest.len() == 999 && rest.iter().all(|byte| *byte == first) => Some(first),
//!         _ => None,
//!     }
//! }
//!
//! /// How many ways there are to lose the old number and not to have the new one.
//! fn violations(flushes: bool) -> usize {
//!     let mut found = 0;
//!     for operation in 0.. {
//!         let disk = SimDisk::new();
//!         disk.plant("number", &[1; 1000]);
//!         disk.crash_at(operation);
//!         let is_saved = save(&disk.files(), 2, flushes).is_ok();
//!         let loose = disk.loose();
//!         let ways: usize = loose.iter().map(|one| one.outcomes).product();
//!         for way in 0..ways {
//!             let mut rest = way;
//!             let fork = disk.fork();
//!             fork.crash_with(&mut |one| {
//!                 let outcome = rest % one.outcomes;
//!                 rest /= one.outcomes;
//!                 outcome
//!             });
//!             let allowed: &[u8] = if is_saved { &[2] } else { &[1, 2] };
//!             found += usize::from(!load(&fork).is_some_and(|number| allowed.contains(&number)));
//!         }
//!         if is_saved {
//!             return found;
//!         }
//!     }
//!     unreachable!("a save ends")
//! }
//!
//! assert_eq!(violations(true), 0);
//! assert!(violations(false) > 0, "the missing flush is found");
//! ```
//!
//! Larger storages have too many ways to try them all: then [`SimDisk::crash`] takes one of them from a seed.
//!
//! Files of 64 KiB and small trees are what it is made for: sectors are shared and zeros take no memory, so that a
//! crash, or a [`SimDisk::fork`] to try another one, costs microseconds.

mod content;
mod damage;
mod files;
mod queue;
mod state;
#[cfg(test)]
mod tests;
mod tree;

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::rc::Rc;

use crate::checksum::Checksum;
use crate::disk::{FileId, Token};
#[cfg(doc)]
use crate::disk::{Files, Queue};
use crate::random::Random;
pub use files::SimFiles;
pub use queue::SimQueue;
use state::State;

/// A simulated disk. Clones are handles to the same one; [`SimDisk::fork`] makes another.
#[derive(Clone, Default)]
pub struct SimDisk {
    state: Rc<RefCell<State>>,
}

/// What an I/O operation was.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Act {
    /// [`Files::list`]
    List,
    /// [`Files::create`] and [`Files::create_directory`], which is followed by a [`Act::SyncDirectory`].
    Create,
    /// [`Files::open`] and [`Files::open_read`]
    Open,
    /// [`Files::read`]
    Read,
    /// [`Files::write`]
    Write,
    /// [`Files::zero`]
    Zero,
    /// [`Files::sync`]
    Flush,
    /// [`Files::rename`]
    Rename,
    /// [`Files::remove`]
    Remove,
    /// [`Files::sync_directory`]
    SyncDirectory,
    /// [`Files::map`]
    Map,
    /// [`Files::free_bytes`]
    FreeSpace,
    /// [`Queue::submit`]
    Submit,
}

/// An I/O operation, as the observer sees it when it begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Event<'a> {
    /// Operations before this one.
    pub number: u64,
    /// What was asked for.
    pub act: Act,
    /// The file or directory; of a rename the old name.
    pub name: &'a str,
    /// In bytes; 0 where it has no meaning.
    pub offset: u64,
    /// In bytes; 0 where it has no meaning.
    pub length: u64,
    /// Of the bytes that are written; that of no bytes otherwise.
    pub checksum: Checksum,
}

/// What a disk says when it fails. As an [`io::Error`] it has the number that Linux gives it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Code {
    /// EINTR. As EAGAIN: [`Files`] and [`Queue`] keep it to themselves where no byte was moved, so that it reaches a
    /// caller only when it does not end.
    Interrupted,
    /// EIO
    Io,
    /// EBADF
    BadDescriptor,
    /// EAGAIN
    Again,
    /// EACCES
    NotPermitted,
    /// EMFILE
    TooManyFiles,
    /// ENOSPC
    NoSpace,
    /// EROFS
    ReadOnly,
    /// ELOOP: what opening a link says
    Link,
    /// ETIMEDOUT: what a queue says of a write that hung for too long
    TimedOut,
    /// EDQUOT
    QuotaExceeded,
}

impl From<Code> for io::Error {
    fn from(code: Code) -> io::Error {
        io::Error::from_raw_os_error(match code {
            Code::Interrupted => 4,
            Code::Io => 5,
            Code::BadDescriptor => 9,
            Code::Again => 11,
            Code::NotPermitted => 13,
            Code::TooManyFiles => 24,
            Code::NoSpace => 28,
            Code::ReadOnly => 30,
            Code::Link => 40,
            Code::TimedOut => 110,
            Code::QuotaExceeded => 122,
        })
    }
}

/// What goes wrong with an operation. A failed flush abandons what it should have flushed. The last two are not told:
/// they are for writes and flushes, and nothing goes wrong with anything else.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Failure {
    /// Nothing is done, and this is said.
    Error(Code),
    /// Of a write: so many bytes land, loosely, and then this is said. Of anything else: as [`Failure::Error`].
    Partial {
        /// Bytes from the start on.
        bytes: u64,
        /// What is said.
        error: Code,
    },
    /// The file ends too early: for reads.
    Ends,
    /// Of a write or a flush: nothing is done, and success is told.
    Lost,
    /// Of a write: it lands so many bytes further on in its file, or before, and success is told.
    Misdirected {
        /// In bytes. Panics if the write would begin before its file does.
        by: i64,
    },
}

/// Something that a cut of power decides.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Loose {
    /// What it is.
    pub what: What,
    /// How many outcomes there are, at least 2: 0 is what was durable, n the nth version since, the last one what
    /// readers saw.
    pub outcomes: usize,
}

/// What can be lost by itself.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum What {
    /// The length of a file. What lies beyond a length that is lost goes with it.
    Length {
        /// Its name at the time of the cut.
        file: String,
    },
    /// 512 bytes of a file.
    Sector {
        /// Its name at the time of the cut.
        file: String,
        /// Counted from the file's start.
        sector: u64,
    },
    /// A create, rename or removal.
    Name {
        /// In words: `create a`, `rename a b`, `remove a`.
        change: String,
    },
}

/// A write in a queue that has not completed.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct PendingWrite {
    /// What its submitter calls it.
    pub token: Token,
    /// Where it goes.
    pub file: FileId,
    /// The file's name.
    pub name: String,
    /// In bytes.
    pub offset: u64,
    /// In bytes.
    pub length: usize,
}

impl SimDisk {
    /// An empty disk.
    pub fn new() -> SimDisk {
        SimDisk::default()
    }

    /// A copy that goes its own way, with all that is open, loose and in flight, and without the observer.
    pub fn fork(&self) -> SimDisk {
        SimDisk { state: Rc::new(RefCell::new(self.state.borrow().fork())) }
    }

    /// The files, for a process that begins now or runs already.
    pub fn files(&self) -> SimFiles {
        SimFiles { state: Rc::clone(&self.state), epoch: self.state.borrow().epoch }
    }

    /// A queue of the process that runs.
    pub fn queue(&self) -> SimQueue {
        SimQueue::new(&self.files())
    }

    /// The writes that wait, oldest first.
    pub fn pending(&self) -> Vec<PendingWrite> {
        let state = self.state.borrow();
        let shown = |write: &state::Pending| PendingWrite {
            token: write.token,
            file: write.file,
            name: state.tree.name_of(write.node),
            offset: write.offset,
            length: write.buffer.len(),
        };
        state.pending.iter().map(shown).collect()
    }

    /// Completes the nth of the pending writes: it is on the disk, flushed. Panics if there is no nth.
    pub fn complete(&self, at: usize) {
        let mut state = self.state.borrow_mut();
        assert!(!state.off, "nothing completes without power");
        state.complete(at);
    }

    /// Completes all pending writes, oldest first. Without power: none.
    pub fn complete_all(&self) {
        while self.can_complete() {
            self.complete(0);
        }
    }

    /// Completes one of the pending writes, any. False if there is none, or no power.
    pub fn complete_any(&self, random: &mut Random) -> bool {
        let any = self.can_complete();
        if any {
            let count = self.state.borrow().pending.len();
            self.complete(random.below(count as u64) as usize);
        }
        any
    }

    /// Completes the nth of the pending writes with an error. Each of its sectors is on the disk or not.
    pub fn fail(&self, at: usize, error: Code, random: &mut Random) {
        let mut state = self.state.borrow_mut();
        state.fail(at, error.into(), || random.chance(500));
    }

    /// Gives up on the nth of the pending writes, which hung for too long: its submitter is told ETIMEDOUT and gets another
    /// buffer, and the kernel may still carry it out. Until it is written again each of its sectors is loose, and no flush
    /// covers them.
    pub fn time_out(&self, at: usize) {
        self.state.borrow_mut().time_out(at);
    }

    /// Cuts the power and brings it back: of what is loose, any part survives; what was open is closed.
    pub fn crash(&self, random: &mut Random) {
        // Where much is loose, even odds alone would never lose or keep nearly all of it.
        let kept_per_mille = *random.pick(&[0, 50, 500, 950, 1000]);
        self.crash_with(&mut |loose| match random.chance(kept_per_mille) {
            true => 1 + random.below(loose.outcomes as u64 - 1) as usize,
            false => 0,
        });
    }

    /// As [`SimDisk::crash`], with what survives chosen by the caller: an outcome for each thing that is loose.
    /// Panics if an outcome is not below [`Loose::outcomes`].
    pub fn crash_with(&self, choose: &mut dyn FnMut(&Loose) -> usize) {
        self.state.borrow_mut().crash(choose);
    }

    /// As [`SimDisk::crash_with`], with the outcomes in the order of [`SimDisk::loose`]. Panics if there are too few.
    pub fn crash_to(&self, outcomes: &[usize]) {
        let mut outcomes = outcomes.iter();
        self.crash_with(&mut |_| *outcomes.next().expect("an outcome for each thing that is loose"));
    }

    /// What a cut of power would decide now, in a fixed order.
    pub fn loose(&self) -> Vec<Loose> {
        self.state.borrow().loose()
    }

    /// Ends the process and nothing else: what was written stays, what is loose stays loose, locks go. Each write in
    /// flight is carried out by the kernel as a whole or was never begun.
    pub fn kill(&self, random: &mut Random) {
        let mut state = self.state.borrow_mut();
        while let Some(last) = state.pending.len().checked_sub(1) {
            match random.chance(500) {
                true => state.complete(last),
                false => drop(state.pending.pop()),
            }
        }
        if state.reads_past_cache {
            state.settle_abandoned(|| random.chance(500));
        }
        state.end_process();
    }

    /// Whether a process that begins after a [`SimDisk::kill`] sees what the disk holds, as it does unless this says
    /// otherwise, or what the dead one left in the page cache, also what a failed flush abandoned there.
    pub fn set_reads_past_cache(&self, reads_past_cache: bool) {
        self.state.borrow_mut().reads_past_cache = reads_past_cache;
    }

    /// The power goes in the midst of an operation: what it changes is loose, its caller and all later ones are told
    /// so (kind [`io::ErrorKind::Interrupted`]), and [`SimDisk::crash`] is to follow, which also forgets a number that
    /// was not reached.
    pub fn crash_at(&self, operation: u64) {
        self.state.borrow_mut().crash_at = Some(operation);
    }

    /// The same at each operation for which this says so. It must not use the disk.
    pub fn crash_when(&self, strikes: impl FnMut(&Event<'_>) -> bool + 'static) {
        self.state.borrow_mut().crash_when = Some(Box::new(strikes));
    }

    /// Whether the power went.
    pub fn is_off(&self) -> bool {
        self.state.borrow().off
    }

    /// Lets an operation fail, once.
    pub fn fail_at(&self, operation: u64, failure: Failure) {
        self.state.borrow_mut().failures.insert(operation, failure);
    }

    /// Forgets the failures that have not come up.
    pub fn clear_failures(&self) {
        self.state.borrow_mut().failures.clear();
    }

    /// Whoever opens this name is told so, until it is none.
    pub fn refuse_to_open(&self, name: &str, code: Option<Code>) {
        let refused = &mut self.state.borrow_mut().refused;
        match code {
            Some(code) => refused.insert(name.to_owned(), code),
            None => refused.remove(name),
        };
    }

    /// While it is read-only, whatever would change the disk is told so, and so is who opens a file for writing.
    pub fn set_read_only(&self, read_only: bool) {
        self.state.borrow_mut().read_only = read_only;
    }

    /// I/O operations so far: the number that the next one gets.
    pub fn operations(&self) -> u64 {
        self.state.borrow().operations
    }

    /// Bytes that all files together may have; growth beyond fails with ENOSPC. 1 TiB unless set.
    pub fn set_capacity(&self, bytes: u64) {
        self.state.borrow_mut().capacity_bytes = bytes;
    }

    /// Bytes that all files have, together.
    pub fn used_bytes(&self) -> u64 {
        self.state.borrow().used_bytes()
    }

    /// Calls this at each operation, before it is carried out, in place of what was called before. It must not use the
    /// disk.
    pub fn observe(&self, observer: impl FnMut(&Event<'_>) + 'static) {
        self.state.borrow_mut().observer = Some(Box::new(observer));
    }

    fn can_complete(&self) -> bool {
        let state = self.state.borrow();
        !state.off && !state.pending.is_empty()
    }
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.borrow();
        let mut shown = formatter.debug_struct("SimDisk");
        shown.field("operations", &state.operations).field("pending", &state.pending.len());
        shown.field("off", &state.off).finish_non_exhaustive()
    }
}

impl Act {
    fn changes_the_disk(self) -> bool {
        self.is_write() || matches!(self, Act::Create | Act::Rename | Act::Remove)
    }

    fn is_write(self) -> bool {
        matches!(self, Act::Write | Act::Zero | Act::Submit)
    }
}

impl Failure {
    fn error(self) -> io::Error {
        match self {
            Failure::Error(error) | Failure::Partial { error, .. } => error.into(),
            Failure::Ends => io::ErrorKind::UnexpectedEof.into(),
            Failure::Lost | Failure::Misdirected { .. } => unreachable!("nobody is told of it"),
        }
    }

    /// Whether it has a meaning for such an operation.
    fn concerns(self, act: Act) -> bool {
        match self {
            Failure::Lost => act.is_write() || act == Act::Flush,
            Failure::Misdirected { .. } => act.is_write(),
            Failure::Error(_) | Failure::Partial { .. } | Failure::Ends => true,
        }
    }

    /// Bytes of a write that land all the same.
    fn landing(self) -> u64 {
        if let Failure::Partial { bytes, .. } = self { bytes } else { 0 }
    }
}
