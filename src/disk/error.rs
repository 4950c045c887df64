//! An I/O error with its place.

use std::fmt;
use std::io;

use rustix::io::Errno;

/// What was asked of the disk when it failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operation {
    List,
    Create,
    Open,
    Lock,
    Length,
    Read,
    Write,
    Flush,
    Rename,
    Remove,
    SyncDirectory,
    Map,
    FreeSpace,
    SetUp,
}

/// The world failed: an operation on a file, with what the kernel said.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} {path}{}: {source}", offset_suffix(.offset))]
pub struct Error {
    pub operation: Operation,
    /// The path as the operator knows it.
    pub path: String,
    pub offset: Option<u64>,
    #[source]
    pub source: io::Error,
}

impl Error {
    pub fn new(operation: Operation, path: impl Into<String>, source: impl Into<io::Error>) -> Error {
        Error { operation, path: path.into(), offset: None, source: source.into() }
    }

    pub fn at(mut self, offset: u64) -> Error {
        self.offset = Some(offset);
        self
    }

    pub fn kind(&self) -> io::ErrorKind {
        self.source.kind()
    }

    /// What to do about it.
    pub fn next_step(&self) -> &'static str {
        if self.is_locked() {
            return "stop the other process first; its end may take as long as its last write";
        }
        if self.is_no_space() {
            return "free space on this file system, or move the directory to a larger one";
        }
        match (self.kind(), self.operation) {
            (io::ErrorKind::NotFound, Operation::Open) => "check the path and the mount",
            (io::ErrorKind::PermissionDenied, _) => "run as the owner of the directory, or give this user the right",
            (_, Operation::Write | Operation::Flush | Operation::Read) => {
                "check the disk (kernel log, SMART) before starting again"
            }
            _ => "check the path, the file system and the rights of this user",
        }
    }

    /// The same once more, for somebody else: an [`io::Error`] cannot be copied.
    pub fn told_again(&self) -> Error {
        let source = match self.source.raw_os_error() {
            Some(number) => io::Error::from_raw_os_error(number),
            None => io::Error::new(self.kind(), self.source.to_string()),
        };
        Error { operation: self.operation, path: self.path.clone(), offset: self.offset, source }
    }

    /// The disk, or this user's share of it, is full.
    pub fn is_no_space(&self) -> bool {
        matches!(self.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    }

    /// The device cannot give what it was asked for: EIO, as opposed to what the kernel or this process lacks.
    pub fn is_media_error(&self) -> bool {
        self.source.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error())
    }

    /// No answer came in time: the kernel may be at it still. What disks on a network say, ETIMEDOUT, is an answer.
    pub fn hangs(&self) -> bool {
        self.kind() == io::ErrorKind::TimedOut && self.source.raw_os_error().is_none()
    }

    /// It is the file that cannot be had, and not that it is gone, that this user may not, or that this process has no
    /// room for it: whoever asks again is told the same.
    pub fn is_of_file(&self) -> bool {
        let of_caller = [Errno::MFILE, Errno::NFILE, Errno::NOMEM].map(Errno::raw_os_error);
        let is_of_caller = self.source.raw_os_error().is_some_and(|number| of_caller.contains(&number));
        let kinds = [io::ErrorKind::NotFound, io::ErrorKind::PermissionDenied, io::ErrorKind::Interrupted];
        !is_of_caller && !kinds.contains(&self.kind())
    }

    /// Another process holds the lock.
    pub fn is_locked(&self) -> bool {
        self.operation == Operation::Lock && self.kind() == io::ErrorKind::WouldBlock
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Operation::List => "list",
            Operation::Create => "create",
            Operation::Open => "open",
            Operation::Lock => "lock",
            Operation::Length => "find the length of",
            Operation::Read => "read",
            Operation::Write => "write",
            Operation::Flush => "flush",
            Operation::Rename => "rename",
            Operation::Remove => "remove",
            Operation::SyncDirectory => "flush the directory",
            Operation::Map => "map",
            Operation::FreeSpace => "find the free space of",
            Operation::SetUp => "set up",
        })
    }
}

fn offset_suffix(offset: &Option<u64>) -> String {
    offset.map(|offset| format!(" at offset {offset}")).unwrap_or_default()
}
