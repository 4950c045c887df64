//! How a command ends: the exit codes, and what is printed when it did not do what was asked.

use std::fmt;
use std::process::ExitCode;

/// The exit codes. The numbers are a promise to scripts; docs/operations.md lists each with its next step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Exit {
    Done = 0,
    /// None of those below.
    Other = 1,
    /// The command line, the configuration, or a size that is not allowed.
    Usage = 2,
    /// Data that is not what was written, or that is gone.
    Corrupt = 10,
    /// `wal verify` or `wal dump` met an end that was never acknowledged.
    TornTail = 11,
    /// Another cluster's or node's directory, an older incarnation, or none at all.
    WrongIdentity = 12,
    NoSpace = 13,
    /// `--io uring` on a machine that does not offer it.
    IoUringRefused = 14,
    Certificate = 15,
    /// Not done, and certainly never sent: safe to ask again.
    Unavailable = 16,
    /// Sent, and no answer came: it may have happened.
    OutcomeUnknown = 17,
    /// A write or a flush failed; the log takes no more.
    DiskFailed = 18,
    /// Another process has the directory.
    InUse = 19,
    /// The directory was written by a newer version.
    NewerFormat = 20,
    /// A queue is full: ask again later.
    Busy = 21,
}

impl Exit {
    pub const ALL: &[Exit] = &[
        Exit::Done,
        Exit::Other,
        Exit::Usage,
        Exit::Corrupt,
        Exit::TornTail,
        Exit::WrongIdentity,
        Exit::NoSpace,
        Exit::IoUringRefused,
        Exit::Certificate,
        Exit::Unavailable,
        Exit::OutcomeUnknown,
        Exit::DiskFailed,
        Exit::InUse,
        Exit::NewerFormat,
        Exit::Busy,
    ];

    /// The words that docs/operations.md uses.
    pub fn meaning(self) -> &'static str {
        match self {
            Exit::Done => "done",
            Exit::Other => "other",
            Exit::Usage => "usage, configuration, size",
            Exit::Corrupt => "corrupt data or a loss found",
            Exit::TornTail => "torn tail found (verify, dump)",
            Exit::WrongIdentity => "wrong cluster, node, incarnation, or not formatted",
            Exit::NoSpace => "no space",
            Exit::IoUringRefused => "io_uring insisted on and refused",
            Exit::Certificate => "certificate",
            Exit::Unavailable => "unavailable",
            Exit::OutcomeUnknown => "outcome unknown",
            Exit::DiskFailed => "disk failed",
            Exit::InUse => "directory in use",
            Exit::NewerFormat => "newer format",
            Exit::Busy => "busy",
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

/// Why a command did not do what was asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    pub exit: Exit,
    /// What is wrong, with its place.
    pub message: String,
    /// What the person can do about it.
    pub next_step: String,
}

impl Failure {
    pub fn new(exit: Exit, message: impl Into<String>, next_step: impl Into<String>) -> Failure {
        assert!(exit != Exit::Done, "a failure is not done");
        Failure { exit, message: message.into(), next_step: next_step.into() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "error: {}\nnext: {}", self.message, self.next_step)
    }
}

impl std::error::Error for Failure {}
