//! One open file: its descriptions, its lock, and reads and writes that leave nothing half done.
//!
//! A file that may be written has up to three open file descriptions:
//!
//! ```text
//!   plain     unaligned writes, flushes, maps; everything where O_DIRECT is missing
//!   direct    reads, zero-filling, and the hot path where fdatasync comes after it
//!   durable   O_DSYNC: the hot path where one request writes and flushes; opened when first asked for
//! ```
//!
//! **The lock.** A request that a dead process left in the kernel keeps its description open, and with it the
//! description's flock: so each of the three is locked. Two descriptions of one process conflict like those of two
//! processes, so the lock is exclusive to come in and shared to stay: whoever opens takes `LOCK_EX` on the first
//! description, lowers it to `LOCK_SH`, and takes `LOCK_SH` on the others. A newcomer's `LOCK_EX` is refused while any
//! of them lives. Lowering is not atomic: a newcomer may slip in between, and then it is the first one that is
//! refused, before it has written a byte. Both can never hold the file.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use rustix::fs::{FallocateFlags, FileType, FlockOperation, Mode, OFlags, SeekFrom};
use rustix::io::Errno;

use super::buffer::Buffer;
use super::choice::SyncMode;
use super::seam;
use super::transfer::Transfer;
use crate::limits::BLOCK_BYTES;
use crate::mutant::{self, Mutant};

/// What is read or zeroed in one call.
const CHUNK_BYTES: usize = 1 << 20;

/// Why a file could not be opened: the lock is told apart.
#[derive(Debug)]
pub(super) enum OpenFailure {
    Open(io::Error),
    Lock(io::Error),
}

impl From<Errno> for OpenFailure {
    fn from(error: Errno) -> OpenFailure {
        OpenFailure::Open(error.into())
    }
}

/// The descriptions of one file.
#[derive(Debug)]
pub(super) struct OpenFile {
    plain: Arc<OwnedFd>,
    /// None where the file system has no O_DIRECT.
    direct: Option<Arc<OwnedFd>>,
    /// Opened by the first write in [`SyncMode::Dsync`]. The mutex keeps two threads from opening it twice.
    durable: OnceLock<Arc<OwnedFd>>,
    opening: Mutex<()>,
    writable: bool,
    identity: Identity,
    /// Something was written and not flushed since.
    unflushed: AtomicBool,
    /// The hot path will come for it: it was prepared for that, or is written just now.
    awaited: AtomicBool,
}

/// Device and inode.
pub(super) type Identity = (u64, u64);

impl OpenFile {
    /// Opens a regular file. `open_at` opens its name with the flags it is given; `direct` says whether O_DIRECT is
    /// to be tried.
    pub fn open(
        open_at: impl Fn(OFlags) -> Result<OwnedFd, Errno>,
        first_flags: OFlags,
        direct: bool,
    ) -> Result<OpenFile, OpenFailure> {
        let writable = first_flags.contains(OFlags::RDWR);
        // NONBLOCK so that a pipe of this name cannot hold us up. It must not stay: it changes what requests mean.
        let plain = open_at(first_flags | OFlags::NONBLOCK)?;
        let stat = rustix::fs::fstat(&plain)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(OpenFailure::Open(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")));
        }
        rustix::fs::fcntl_setfl(&plain, OFlags::empty())?;
        if writable {
            lock(&plain, FlockOperation::NonBlockingLockExclusive)?;
            lock(&plain, FlockOperation::NonBlockingLockShared)?;
        }
        let access = if writable { OFlags::RDWR } else { OFlags::RDONLY };
        let direct = if direct { open_direct(&open_at, access, &plain)? } else { None };
        Ok(OpenFile {
            plain: Arc::new(plain),
            direct: direct.map(Arc::new),
            durable: OnceLock::new(),
            opening: Mutex::new(()),
            writable,
            identity: (stat.st_dev, stat.st_ino),
            unflushed: AtomicBool::new(false),
            awaited: AtomicBool::new(false),
        })
    }

    pub fn identity(&self) -> Identity {
        self.identity
    }

    pub fn is_writable(&self) -> bool {
        self.writable
    }

    pub fn set_awaited(&self, awaited: bool) {
        self.awaited.store(awaited, Ordering::Release);
    }

    /// Whether closing it now would be missed by nobody: no request has one of its descriptors, everything written is
    /// flushed, and the hot path will not come for it.
    pub fn is_idle(&self) -> bool {
        let descriptors = [Some(&self.plain), self.direct.as_ref(), self.durable.get()];
        !self.unflushed.load(Ordering::Acquire)
            && !self.awaited.load(Ordering::Acquire)
            && descriptors.into_iter().flatten().all(|own| Arc::strong_count(own) == 1)
    }

    /// Whether reads and writes go past the page cache.
    pub fn is_direct(&self) -> bool {
        self.direct.is_some()
    }

    /// The descriptor that the hot path writes through.
    pub fn hot(
        &self,
        mode: SyncMode,
        open_at: impl Fn(OFlags) -> Result<OwnedFd, Errno>,
    ) -> Result<Arc<OwnedFd>, OpenFailure> {
        if !self.writable {
            return Err(OpenFailure::Open(Errno::BADF.into()));
        }
        if mode == SyncMode::Fdatasync {
            return Ok(self.direct.clone().unwrap_or_else(|| self.plain.clone()));
        }
        let _alone = self.opening.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(durable) = self.durable.get() {
            return Ok(durable.clone());
        }
        let direct = if self.is_direct() { OFlags::DIRECT } else { OFlags::empty() };
        let durable = if mutant::is_on(Mutant::DsyncLeftOut) { OFlags::empty() } else { OFlags::DSYNC };
        let flags = OFlags::RDWR | durable | direct;
        let descriptor = reopen(&self.plain, flags).or_else(|_| open_at(flags))?;
        check_same_file(&descriptor, &self.plain)?;
        lock(&descriptor, FlockOperation::NonBlockingLockShared)?;
        Ok(self.durable.get_or_init(|| Arc::new(descriptor)).clone())
    }

    pub fn length(&self) -> io::Result<u64> {
        let length = rustix::fs::fstat(&*self.plain)?.st_size;
        Ok(u64::try_from(length).expect("a file's length is not negative"))
    }

    /// Whether the file system knows of a part that was never written.
    pub fn has_holes(&self) -> bool {
        // Nobody goes by the position that it moves. Every file has a hole behind its end.
        let hole = rustix::fs::seek(&*self.plain, SeekFrom::Hole(0));
        hole.is_ok_and(|hole| self.length().is_ok_and(|length| hole < length))
    }

    pub fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        match &self.direct {
            Some(direct) => read_direct(direct.as_fd(), offset, buffer),
            None => read_plain(self.plain.as_fd(), offset, buffer),
        }
    }

    pub fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.unflushed.store(true, Ordering::Release);
        write_all(&self.plain, offset, bytes, 1)
    }

    /// Zeros past the page cache where offset and length allow it.
    pub fn zero(&self, offset: u64, bytes: u64) -> io::Result<()> {
        let aligned = offset.is_multiple_of(BLOCK_BYTES as u64) && bytes.is_multiple_of(BLOCK_BYTES as u64);
        let (descriptor, granule) = match &self.direct {
            Some(direct) if aligned => (direct, BLOCK_BYTES),
            _ => (&self.plain, 1),
        };
        self.unflushed.store(true, Ordering::Release);
        self.set_awaited(true);
        let mut zeros = Buffer::as_of_pool(bytes.min(CHUNK_BYTES as u64) as usize);
        zeros.pad_to_capacity();
        let (mut offset, mut left) = (offset, bytes);
        while left > 0 {
            let count = left.min(zeros.len() as u64);
            write_all(descriptor, offset, &zeros[..count as usize], granule)?;
            offset += count;
            left -= count;
        }
        Ok(())
    }

    /// Reserved room that reads as zero; written zeros where the file system cannot reserve.
    pub fn allocate(&self, bytes: u64) -> io::Result<()> {
        match self.fallocate(FallocateFlags::empty(), bytes) {
            Err(error) if matches!(Errno::from_io_error(&error), Some(Errno::OPNOTSUPP | Errno::NOSYS)) => {
                self.zero(0, bytes)
            }
            other => other,
        }
    }

    /// What `fallocate` makes of the file's first `bytes`, or that the kernel or the file system does not do that.
    pub fn fallocate(&self, flags: FallocateFlags, bytes: u64) -> io::Result<()> {
        self.unflushed.store(true, Ordering::Release);
        self.set_awaited(true);
        Ok(rustix::io::retry_on_intr(|| rustix::fs::fallocate(&self.plain, flags, 0, bytes))?)
    }

    pub fn flush(&self) -> io::Result<()> {
        // What is written meanwhile is not covered; after a failure nothing is.
        let unflushed = self.unflushed.swap(false, Ordering::AcqRel);
        let said = flush(&self.plain);
        if said.is_err() && unflushed {
            self.unflushed.store(true, Ordering::Release);
        }
        said
    }

    pub fn map(&self) -> io::Result<memmap2::Mmap> {
        // SAFETY: the lock keeps other writers of ours out, and by the contract of `Files::map` a mapped file does not
        // shrink; what is mapped is sealed or private to its reader, and it is checked by its checksums when copied
        // out. A foreign program that cuts the file ends this process by SIGBUS, with a line that says so (mapping.rs);
        // one that writes into it is outside of what any mapping can withstand.
        unsafe { memmap2::Mmap::map(&*self.plain) }
    }
}

/// Writes all of `bytes`, in as many calls as it takes, each on a multiple of `granule`.
pub(super) fn write_all(descriptor: impl AsFd, offset: u64, bytes: &[u8], granule: usize) -> io::Result<()> {
    let mut transfer = Transfer::new(bytes.len(), granule);
    while !transfer.is_complete() {
        let start = transfer.next_start();
        let said = rustix::io::pwrite(&descriptor, &bytes[start..], offset + start as u64);
        transfer.record(said.map_err(io::Error::from))?;
    }
    Ok(())
}

/// Flushes data and length. Whatever it returns stands: a flush is never asked for twice.
pub(super) fn flush(descriptor: impl AsFd) -> io::Result<()> {
    answer_of_flush(rustix::fs::fdatasync(descriptor).map_err(io::Error::from))
}

/// What a flush said, by whatever way it was asked for. Here a mutant may lie.
pub(super) fn answer_of_flush(said: io::Result<()>) -> io::Result<()> {
    if mutant::is_on(Mutant::FlushErrorSwallowed) { Ok(()) } else { said }
}

fn open_direct(
    open_at: impl Fn(OFlags) -> Result<OwnedFd, Errno>,
    access: OFlags,
    plain: &OwnedFd,
) -> Result<Option<OwnedFd>, OpenFailure> {
    let descriptor = match open_at(access | OFlags::DIRECT) {
        Err(Errno::INVAL) => return Ok(None),
        other => other?,
    };
    check_same_file(&descriptor, plain)?;
    if access == OFlags::RDWR {
        lock(&descriptor, FlockOperation::NonBlockingLockShared)?;
    }
    Ok(Some(descriptor))
}

/// Another description of the same file, also if it has no name any more. Needs /proc.
fn reopen(descriptor: &OwnedFd, flags: OFlags) -> Result<OwnedFd, Errno> {
    let path = format!("/proc/self/fd/{}", descriptor.as_raw_fd());
    rustix::io::retry_on_intr(|| rustix::fs::open(&path, flags | OFlags::CLOEXEC, Mode::empty()))
}

/// A name may have been given to another file between two openings.
fn check_same_file(left: &OwnedFd, right: &OwnedFd) -> Result<(), OpenFailure> {
    let (left, right) = (rustix::fs::fstat(left)?, rustix::fs::fstat(right)?);
    match (left.st_dev, left.st_ino) == (right.st_dev, right.st_ino) {
        true => Ok(()),
        false => Err(OpenFailure::Open(io::Error::other("the name was given to another file while it was open"))),
    }
}

fn lock(descriptor: &OwnedFd, how: FlockOperation) -> Result<(), OpenFailure> {
    loop {
        match rustix::fs::flock(descriptor, how) {
            Err(Errno::INTR) => {}
            other => return other.map_err(|error| OpenFailure::Lock(error.into())),
        }
    }
}

fn read_plain(descriptor: BorrowedFd<'_>, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
    let mut transfer = Transfer::new(buffer.len(), 1);
    while !transfer.is_complete() {
        let start = transfer.next_start();
        let end = start + seam::read_limit(buffer.len() - start);
        let said = rustix::io::pread(descriptor, &mut buffer[start..end], offset + start as u64);
        record_read(&mut transfer, said)?;
    }
    Ok(())
}

/// Straight into the buffer where all is aligned; else whole blocks into one that is, and from there what was asked for.
fn read_direct(descriptor: BorrowedFd<'_>, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
    let block = BLOCK_BYTES as u64;
    let is_aligned = offset.is_multiple_of(block)
        && [buffer.len(), buffer.as_ptr().addr()].iter().all(|value| value.is_multiple_of(BLOCK_BYTES));
    if is_aligned {
        let needed = buffer.len();
        return read_blocks(descriptor, offset, buffer, needed);
    }
    let whole = buffer.len().saturating_add(2 * BLOCK_BYTES);
    let mut blocks = Buffer::with_capacity(whole.min(CHUNK_BYTES));
    blocks.pad_to_capacity();
    let mut copied = 0;
    while copied < buffer.len() {
        let from = offset + copied as u64;
        let skip = (from % block) as usize;
        let count = (buffer.len() - copied).min(blocks.len() - skip);
        let wanted = (skip + count).next_multiple_of(BLOCK_BYTES);
        read_blocks(descriptor, from - skip as u64, &mut blocks[..wanted], skip + count)?;
        buffer[copied..copied + count].copy_from_slice(&blocks[skip..skip + count]);
        copied += count;
    }
    Ok(())
}

/// Fills at least the first `needed` bytes of `blocks`: the last block may end with the file.
fn read_blocks(descriptor: BorrowedFd<'_>, offset: u64, blocks: &mut [u8], needed: usize) -> io::Result<()> {
    let mut transfer = Transfer::new(blocks.len(), BLOCK_BYTES);
    let mut filled = 0;
    while filled < needed {
        let start = transfer.next_start();
        let end = start + seam::read_limit(blocks.len() - start);
        let said = rustix::io::pread(descriptor, &mut blocks[start..end], offset + start as u64);
        if let Ok(count) = said {
            // The same part of a block again: the file ends there.
            if start + count <= filled {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            filled = start + count;
        }
        record_read(&mut transfer, said)?;
    }
    Ok(())
}

fn record_read(transfer: &mut Transfer, said: Result<usize, Errno>) -> io::Result<()> {
    if said == Ok(0) {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    transfer.record(said.map_err(io::Error::from))
}
