//! The engines, one file each, behind one trait.
//!
//! - [`Engine::producer`] is called once by each thread that appends, with the thread's number.
//! - What [`Producer::reap`] counts is flushed. Whether an engine keeps that promise is not its own to say: the
//!   device's flushes are counted while it runs ([`crate::disk::Flushes`]).
//! - [`count`] opens the log in a process that did not write it. An engine that lets go of old entries tells them from
//!   lost ones by the numbers of those that it kept, which must have no gap.

mod floor;
mod okaywal;
mod raft_engine;
mod trilith;
mod walrus;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use ::trilith::cli::{Exit, Failure};
use ::trilith::disk::IoChoice;

/// In the order in which they take their turns.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, clap::ValueEnum)]
pub enum Kind {
    /// A queue and one writer: pwrite and fdatasync on blocks written before
    Floor,
    /// raft-engine, recycling and prefill on, sync each
    RaftEngine,
    /// okaywal
    Okaywal,
    /// walrus-rust, sync each
    Walrus,
    /// Trilith's log
    Trilith,
}

/// What an engine is opened with.
#[derive(Clone, Debug, clap::Args)]
pub struct Settings {
    /// Trilith's way to the disk: auto, uring, blocking
    #[arg(long, default_value = "auto")]
    pub io: IoChoice,
    /// Trilith's writes on their way to the disk at once; what was measured when the log was made, if not given
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=8))]
    pub depth: Option<u8>,
}

/// Which log a process is to open.
#[derive(Clone, Debug, clap::Args)]
pub struct Subject {
    #[arg(long)]
    pub engine: Kind,
    #[arg(long)]
    pub directory: PathBuf,
    #[arg(long)]
    pub threads: usize,
    #[command(flatten)]
    pub settings: Settings,
}

/// A log that several threads append to.
pub trait Engine: Sync {
    fn producer(&self, thread: usize) -> Result<Box<dyn Producer + '_>, Failure>;

    /// Lets go of what was appended before the call before this one. Called at a steady beat.
    fn release(&self) -> Result<(), Failure> {
        Ok(())
    }

    /// How it reaches the disk, for the header.
    fn about(&self) -> String;

    fn close(self: Box<Self>) -> Result<(), Failure>;
}

/// One thread's way into a log.
pub trait Producer {
    /// Appends one entry. An engine without pipelining returns when it is durable.
    fn submit(&mut self, payload: &[u8]) -> Result<(), Failure>;

    /// Waits until the oldest entry that was submitted and not yet reaped is durable; tells how many are.
    fn reap(&mut self) -> Result<usize, Failure>;

    /// Appends one entry and returns when it is durable: for a thread that has no other on its way.
    fn append(&mut self, payload: &[u8]) -> Result<(), Failure> {
        self.submit(payload)?;
        self.reap().map(drop)
    }
}

/// What is in a log.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct Counted {
    /// Entries that were ever appended.
    pub appended: u64,
    /// Of those, how many were found and read; the others were let go.
    pub present: u64,
}

impl Kind {
    pub const ALL: [Kind; 5] = [Kind::Floor, Kind::RaftEngine, Kind::Okaywal, Kind::Walrus, Kind::Trilith];

    pub fn name(self) -> &'static str {
        match self {
            Kind::Floor => "floor",
            Kind::RaftEngine => "raft-engine",
            Kind::Okaywal => "okaywal",
            Kind::Walrus => "walrus",
            Kind::Trilith => "trilith",
        }
    }

    /// Neither the floor nor Trilith.
    pub fn is_peer(self) -> bool {
        matches!(self, Kind::RaftEngine | Kind::Okaywal | Kind::Walrus)
    }

    /// Whether a thread can have more than one entry on its way.
    pub fn is_pipelined(self) -> bool {
        !self.is_peer()
    }

    /// Makes a log in an empty directory.
    pub fn open(self, directory: &Path, threads: usize, settings: &Settings) -> Result<Box<dyn Engine>, Failure> {
        match self {
            Kind::Floor => floor::open(directory),
            Kind::RaftEngine => raft_engine::open(directory, threads),
            Kind::Okaywal => okaywal::open(directory),
            Kind::Walrus => walrus::open(),
            Kind::Trilith => trilith::open(directory, settings),
        }
    }

    /// Opens a log that `threads` threads have written, and reads what is in it.
    pub fn count(self, directory: &Path, threads: usize, settings: &Settings) -> Result<Counted, Failure> {
        match self {
            Kind::Floor => floor::count(directory),
            Kind::RaftEngine => raft_engine::count(directory),
            Kind::Okaywal => okaywal::count(directory),
            Kind::Walrus => walrus::count(threads),
            Kind::Trilith => trilith::count(directory, settings),
        }
    }

    /// What goes through the environment alone: set for the processes that open the log.
    pub fn environment(self, directory: &Path) -> Vec<(&'static str, String)> {
        match self {
            Kind::Walrus => walrus::environment(directory),
            _ => Vec::new(),
        }
    }

    /// The failure of an engine that names no error of the operating system.
    fn failure(self, error: impl fmt::Display) -> Failure {
        let message = format!("{}: {error}", self.name());
        Failure::new(Exit::DiskFailed, message, "see the kernel's log, and leave the engine out with --only")
    }

    fn io_failure(self, error: &io::Error) -> Failure {
        match error.kind() {
            io::ErrorKind::StorageFull => crate::disk::no_space(&format!("{}: {error}", self.name())),
            _ => self.failure(error),
        }
    }

    /// Entries that are not what was appended.
    fn damage(self, what: impl fmt::Display) -> Failure {
        let message = format!("{}: {what}", self.name());
        Failure::new(Exit::Corrupt, message, "the log broke its promise: keep its directory with --keep and look")
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}
