//! Real files: one directory, the files that are open in it, and everything that is done by name.

use std::fmt;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::ahead::Ahead;
use super::choice::SyncMode;
use super::error::{Error, Operation};
use super::name;
use super::open_file::{OpenFailure, OpenFile};
use super::queue::FileId;
use super::table::Table;
use super::{Files, buffer::Buffer, mapping::Map};
use crate::limits::{BLOCK_BYTES, FILES_OPEN_MAX};

const FILE_MODE: u32 = 0o600;
const DIRECTORY_MODE: u32 = 0o700;
/// What statfs(2) says of FUSE.
const FUSE_MAGIC: u64 = 0x6573_5546;

/// Between two looks at a lock that is waited for.
const LOCK_LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// A directory on a real file system. Clones are handles to the same one, for use from any thread.
///
/// Files are locked while they are open for writing, see [`Files::open`]; the lock goes when they are closed, when the
/// last handle is dropped, and when the process ends **and** the kernel is done with its last request. Beyond
/// [`FILES_OPEN_MAX`] the descriptors of files in sub-directories that nobody uses are closed, and their locks with them,
/// until they are used again; whoever relies on a lock relies on that of a file in the root.
#[derive(Clone)]
pub struct Directory {
    inner: Arc<Inner>,
}

struct Inner {
    root: PathBuf,
    descriptor: OwnedFd,
    direct: bool,
    /// How long a file that another process has locked is waited for.
    patience: Duration,
    /// Held while a name is given, changed or followed, so that a rename cannot come between a name and its file. It may
    /// be held as long as the disk takes; [`Directory::target`] goes without, and the hot path with it. Before `table`.
    names: Mutex<()>,
    /// Held for a look or a change in memory alone.
    table: Mutex<Table>,
}

/// Where a write of the hot path goes.
pub(super) struct Target {
    pub descriptor: Arc<OwnedFd>,
    /// What offsets and lengths must be a multiple of.
    pub granule: usize,
}

impl Directory {
    /// Opens a directory that exists.
    ///
    /// # Errors
    /// With kind [`io::ErrorKind::NotFound`] if there is none, and whatever the kernel says otherwise.
    pub fn open(path: impl AsRef<Path>) -> Result<Directory, Error> {
        Directory::open_with(path.as_ref(), true, Duration::ZERO)
    }

    /// As [`Directory::open`], for whoever may come right behind a process that was killed: a file that is locked is waited for
    /// so long, since the kernel lets go of it when it is done with the last request of that process, and tells nobody.
    ///
    /// # Errors
    /// Those of [`Directory::open`].
    pub fn open_patiently(path: impl AsRef<Path>, patience: Duration) -> Result<Directory, Error> {
        Directory::open_with(path.as_ref(), true, patience)
    }

    /// Makes a directory, durably, and opens it. Its parent must exist, and it must not.
    ///
    /// # Errors
    /// With kind [`io::ErrorKind::AlreadyExists`] or [`io::ErrorKind::NotFound`] if that is not so.
    pub fn create(path: impl AsRef<Path>) -> Result<Directory, Error> {
        let path = path.as_ref();
        let shown = path.display().to_string();
        rustix::fs::mkdir(path, Mode::from_raw_mode(DIRECTORY_MODE))
            .map_err(|error| Error::new(Operation::Create, &shown, error))?;
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        open_directory(rustix::fs::CWD, parent, OFlags::empty())
            .and_then(rustix::fs::fsync)
            .map_err(|error| Error::new(Operation::SyncDirectory, parent.display().to_string(), error))?;
        Directory::open(path)
    }

    /// As [`Directory::open`], as if the file system had no O_DIRECT.
    #[cfg(test)]
    pub(crate) fn open_plain(path: impl AsRef<Path>) -> Result<Directory, Error> {
        Directory::open_with(path.as_ref(), false, Duration::ZERO)
    }

    /// As [`Directory::open`], with a bound of its own on the files that are held open.
    #[cfg(test)]
    pub(crate) fn open_few(path: impl AsRef<Path>, open_max: usize) -> Result<Directory, Error> {
        let directory = Directory::open(path)?;
        *directory.table() = Table::new(open_max);
        Ok(directory)
    }

    /// Files that are held open.
    #[cfg(test)]
    pub(crate) fn open_count(&self) -> usize {
        self.table().open_count()
    }

    /// As a rename does that hangs, until what is returned is dropped.
    #[cfg(test)]
    pub(crate) fn hold_names(&self) -> impl Drop {
        self.names()
    }

    fn open_with(path: &Path, direct: bool, patience: Duration) -> Result<Directory, Error> {
        let open = |error: Errno| Error::new(Operation::Open, path.display().to_string(), error);
        let descriptor = open_directory(rustix::fs::CWD, path, OFlags::empty()).map_err(open)?;
        let direct = direct && supports_direct(descriptor.as_fd()).map_err(open)?;
        let table = Mutex::new(Table::new(FILES_OPEN_MAX));
        let inner = Inner { root: path.to_owned(), descriptor, direct, patience, names: Mutex::default(), table };
        Ok(Directory { inner: Arc::new(inner) })
    }

    /// Whether files are read and written past the page cache: the file system has `O_DIRECT`, and lets us make the
    /// nameless file that shows it.
    pub fn direct(&self) -> bool {
        self.inner.direct
    }

    /// Whether the file system is a process behind the kernel (FUSE).
    pub(super) fn is_fuse(&self) -> Result<bool, Errno> {
        let said = rustix::fs::fstatfs(&self.inner.descriptor)?;
        // The kernel's numbers are 32 bits wide; the type of the field differs between machines.
        Ok((said.f_type as u64) & 0xffff_ffff == FUSE_MAGIC)
    }

    /// The path that this directory was opened by.
    pub fn root(&self) -> &Path {
        &self.inner.root
    }

    /// Where the hot path writes to a file. Panics if it is not open.
    pub(super) fn target(&self, file: FileId, mode: SyncMode) -> Result<Target, Error> {
        let open = self.file(Operation::Write, file, true)?;
        // A file that is written is not renamed: the name is what it was when its segment was given out.
        let name = {
            let mut table = self.table();
            table.heat(file);
            table.entry(file).name.clone()
        };
        let descriptor = open
            .hot(mode, |flags| self.open_at(&name, flags))
            .map_err(|failure| self.failure(Operation::Write, &name, failure))?;
        Ok(Target { descriptor, granule: if open.is_direct() { BLOCK_BYTES } else { 1 } })
    }

    /// An error in a file's name. The file may have been closed since.
    pub(super) fn error_at(&self, operation: Operation, file: FileId, source: io::Error) -> Error {
        let table = self.table();
        let name = table.find(file).map(|entry| entry.name.clone());
        Error::new(operation, self.shown(&name.unwrap_or_else(|| format!("(closed file {})", file.0))), source)
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // Nothing is half done in a table whose user panicked: each change is one insertion or removal.
        self.inner.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn names(&self) -> MutexGuard<'_, ()> {
        self.inner.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An open file's descriptions, for reading or for writing. Panics if it was closed.
    pub(super) fn file(&self, operation: Operation, file: FileId, to_write: bool) -> Result<Arc<OpenFile>, Error> {
        let open = self.file_unless_closed(operation, file, to_write)?;
        Ok(open.unwrap_or_else(|| panic!("{file:?} was closed, or never opened")))
    }

    /// Its descriptions as they are, or opened again.
    fn file_unless_closed(
        &self,
        operation: Operation,
        file: FileId,
        to_write: bool,
    ) -> Result<Option<Arc<OpenFile>>, Error> {
        if let Some(open) = self.table().descriptions(file, to_write) {
            return Ok(Some(open));
        }
        let _names = self.names();
        let (name, identity, is_writable) = {
            let mut table = self.table();
            if let Some(open) = table.descriptions(file, to_write) {
                return Ok(Some(open));
            }
            let Some(entry) = table.find(file) else { return Ok(None) };
            (entry.name.clone(), entry.identity, entry.is_writable)
        };
        // A reader takes no lock: it may come while another process has it.
        let flags = if to_write && is_writable { OFlags::RDWR } else { OFlags::RDONLY };
        let open = OpenFile::open(|extra| self.open_at(&name, extra), flags, self.inner.direct)
            .map_err(|failure| self.failure(operation, &name, failure))?;
        if open.identity() != identity {
            return Err(self.error(operation, &name, io::Error::from(io::ErrorKind::NotFound)));
        }
        Ok(self.table().reopened(file, open))
    }

    /// The path as the operator knows it.
    fn shown(&self, name: &str) -> String {
        match name {
            "" => self.inner.root.display().to_string(),
            name => self.inner.root.join(name).display().to_string(),
        }
    }

    fn error(&self, operation: Operation, name: &str, error: impl Into<io::Error>) -> Error {
        Error::new(operation, self.shown(name), error)
    }

    fn failure(&self, operation: Operation, name: &str, failure: OpenFailure) -> Error {
        match failure {
            OpenFailure::Open(error) => self.error(operation, name, error),
            OpenFailure::Lock(error) => self.error(Operation::Lock, name, error),
        }
    }

    fn checked(&self, operation: Operation, name: &str) -> Result<(), Error> {
        name::check(name).map_err(|error| self.error(operation, name, error))
    }

    /// Opens a directory of ours: `""` is the root.
    fn open_part(&self, directory: &str) -> Result<OwnedFd, Errno> {
        let part = if directory.is_empty() { Path::new(".") } else { Path::new(directory) };
        open_directory(self.inner.descriptor.as_fd(), part, OFlags::NOFOLLOW)
    }

    /// Calls `call` with the directory that a name lies in, and the name's last part.
    fn within<T>(&self, name: &str, call: impl FnOnce(BorrowedFd<'_>, &str) -> Result<T, Errno>) -> Result<T, Errno> {
        match name.split_once('/') {
            None => call(self.inner.descriptor.as_fd(), name),
            Some((directory, last)) => call(self.open_part(directory)?.as_fd(), last),
        }
    }

    fn open_at(&self, name: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        self.within(name, |directory, last| {
            rustix::io::retry_on_intr(|| rustix::fs::openat(directory, last, flags, Mode::from_raw_mode(FILE_MODE)))
        })
    }

    fn add(&self, operation: Operation, name: &str, flags: OFlags) -> Result<FileId, Error> {
        self.checked(operation, name)?;
        let open_at = |extra: OFlags| self.open_at(name, extra);
        // What has just been made nobody else has.
        let may_wait = !flags.contains(OFlags::CREATE);
        let deadline = Instant::now() + self.inner.patience;
        loop {
            let names = self.names();
            let opened = OpenFile::open(open_at, flags, self.inner.direct);
            match opened.map_err(|failure| self.failure(operation, name, failure)) {
                Err(error) if may_wait && error.is_locked() && Instant::now() < deadline => {
                    drop(names);
                    std::thread::sleep(LOCK_LOOK_INTERVAL);
                }
                opened => return Ok(self.table().insert(name, opened?)),
            }
        }
    }
}

impl Files for Directory {
    type Map = Map;

    fn list(&self, directory: &str) -> Result<Vec<String>, Error> {
        if !directory.is_empty() {
            self.checked(Operation::List, directory)?;
        }
        let list = || -> Result<Vec<String>, Errno> {
            let mut names = Vec::new();
            for entry in rustix::fs::Dir::new(self.open_part(directory)?)? {
                let name = entry?.file_name().to_string_lossy().into_owned();
                if name != "." && name != ".." {
                    names.push(name);
                }
            }
            names.sort_unstable();
            Ok(names)
        };
        list().map_err(|error| self.error(Operation::List, directory, error))
    }

    fn create_directory(&self, directory: &str) -> Result<(), Error> {
        self.checked(Operation::Create, directory)?;
        let mode = Mode::from_raw_mode(DIRECTORY_MODE);
        match self.within(directory, |parent, last| rustix::fs::mkdirat(parent, last, mode)) {
            Ok(()) => {}
            // A file or a link of that name does not open as a directory.
            Err(Errno::EXIST) => drop(self.open_part(directory).map_err(|_| {
                self.error(Operation::Create, directory, io::Error::from(io::ErrorKind::NotADirectory))
            })?),
            Err(error) => return Err(self.error(Operation::Create, directory, error)),
        }
        self.sync_directory(directory.split_once('/').map_or("", |(parent, _)| parent))
    }

    fn create(&self, name: &str) -> Result<FileId, Error> {
        self.add(Operation::Create, name, OFlags::RDWR | OFlags::CREATE | OFlags::EXCL)
    }

    fn open(&self, name: &str) -> Result<FileId, Error> {
        self.add(Operation::Open, name, OFlags::RDWR)
    }

    fn open_read(&self, name: &str) -> Result<FileId, Error> {
        self.add(Operation::Open, name, OFlags::RDONLY)
    }

    fn length(&self, file: FileId) -> Result<u64, Error> {
        let length = self.file(Operation::Length, file, false)?.length();
        length.map_err(|error| self.error_at(Operation::Length, file, error))
    }

    fn read(&self, file: FileId, offset: u64, buffer: &mut [u8]) -> Result<(), Error> {
        let open = self.file_unless_closed(Operation::Read, file, false).map_err(|error| error.at(offset))?;
        let Some(open) = open else {
            return Err(self.error_at(Operation::Read, file, io::ErrorKind::NotFound.into()).at(offset));
        };
        let read = open.read(offset, buffer);
        read.map_err(|error| self.error_at(Operation::Read, file, error).at(offset))
    }

    fn ahead(&self) -> Option<Ahead> {
        Ahead::start(self)
    }

    fn write(&self, file: FileId, offset: u64, bytes: &[u8]) -> Result<(), Error> {
        let written = self.file(Operation::Write, file, true)?.write(offset, bytes);
        written.map_err(|error| self.error_at(Operation::Write, file, error).at(offset))
    }

    fn zero(&self, file: FileId, offset: u64, bytes: u64) -> Result<(), Error> {
        let zeroed = self.file(Operation::Write, file, true)?.zero(offset, bytes);
        zeroed.map_err(|error| self.error_at(Operation::Write, file, error).at(offset))
    }

    fn allocate(&self, file: FileId, bytes: u64) -> Result<(), Error> {
        let allocated = self.file(Operation::Write, file, true)?.allocate(bytes);
        allocated.map_err(|error| self.error_at(Operation::Write, file, error))
    }

    fn expect_writes(&self, file: FileId) -> Result<(), Error> {
        self.file(Operation::Write, file, true)?.set_awaited(true);
        Ok(())
    }

    fn has_holes(&self, file: FileId) -> bool {
        self.file(Operation::Length, file, false).is_ok_and(|open| open.has_holes())
    }

    fn sync(&self, file: FileId) -> Result<(), Error> {
        let flushed = self.file(Operation::Flush, file, true)?.flush();
        flushed.map_err(|error| self.error_at(Operation::Flush, file, error))
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), Error> {
        self.checked(Operation::Rename, from)?;
        self.checked(Operation::Rename, to)?;
        let _names = self.names();
        self.within(from, |from_directory, from_last| {
            self.within(to, |to_directory, to_last| {
                rustix::fs::renameat(from_directory, from_last, to_directory, to_last)
            })
        })
        .map_err(|error| self.error(Operation::Rename, from, error))?;
        self.table().rename(from, to);
        Ok(())
    }

    fn remove(&self, name: &str) -> Result<(), Error> {
        self.checked(Operation::Remove, name)?;
        let _names = self.names();
        self.within(name, |directory, last| match rustix::fs::unlinkat(directory, last, AtFlags::empty()) {
            Err(Errno::ISDIR) => rustix::fs::unlinkat(directory, last, AtFlags::REMOVEDIR),
            other => other,
        })
        .map_err(|error| self.error(Operation::Remove, name, error))?;
        self.table().remove(name);
        Ok(())
    }

    fn sync_directory(&self, directory: &str) -> Result<(), Error> {
        if !directory.is_empty() {
            self.checked(Operation::SyncDirectory, directory)?;
        }
        self.open_part(directory)
            .and_then(rustix::fs::fsync)
            .map_err(|error| self.error(Operation::SyncDirectory, directory, error))
    }

    fn map(&self, file: FileId) -> Result<Map, Error> {
        let Some(open) = self.file_unless_closed(Operation::Map, file, false)? else {
            return Err(self.error_at(Operation::Map, file, io::ErrorKind::NotFound.into()));
        };
        let name = self.table().find(file).map(|entry| self.shown(&entry.name)).unwrap_or_default();
        let map = open.map().and_then(|bytes| Map::new(bytes, &name));
        map.map_err(|error| self.error_at(Operation::Map, file, error))
    }

    fn expect(&self, map: &Map, part: Range<usize>) {
        map.expect(part);
    }

    fn free_bytes(&self) -> Result<u64, Error> {
        let space = rustix::fs::fstatvfs(&self.inner.descriptor)
            .map_err(|error| self.error(Operation::FreeSpace, "", error))?;
        Ok(space.f_bavail.saturating_mul(space.f_frsize))
    }

    fn reads_past_cache(&self) -> bool {
        self.inner.direct
    }

    fn close(&self, file: FileId) {
        self.table().close(file);
    }
}

impl fmt::Debug for Directory {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = formatter.debug_struct("Directory");
        shown.field("root", &self.inner.root).field("direct", &self.inner.direct).finish_non_exhaustive()
    }
}

fn open_directory(at: BorrowedFd<'_>, path: &Path, extra: OFlags) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | extra;
    rustix::io::retry_on_intr(|| rustix::fs::openat(at, path, flags, Mode::empty()))
}

/// Tries it on a file without a name. Where none can be made (a read-only file system, or an old one), the page cache
/// is used: slower, never wrong.
fn supports_direct(directory: BorrowedFd<'_>) -> Result<bool, Errno> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::DIRECT | OFlags::CLOEXEC;
    let file = match rustix::fs::openat(directory, ".", flags, Mode::from_raw_mode(FILE_MODE)) {
        Err(
            Errno::INVAL | Errno::OPNOTSUPP | Errno::ISDIR | Errno::NOENT | Errno::ROFS | Errno::ACCESS | Errno::PERM,
        ) => {
            return Ok(false);
        }
        other => other?,
    };
    let mut block = Buffer::with_capacity(BLOCK_BYTES);
    block.pad_to_capacity();
    match rustix::io::retry_on_intr(|| rustix::io::pwrite(&file, &block, 0)) {
        Err(Errno::INVAL) => Ok(false),
        // A disk that is full can still do it.
        Ok(_) | Err(Errno::NOSPC | Errno::DQUOT) => Ok(true),
        Err(error) => Err(error),
    }
}
