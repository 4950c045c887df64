//! What can be chosen about the way to the disk, and how it is spelled in configuration, flags and headers.

use std::fmt;
use std::str::FromStr;

/// How a write of the hot path gets past the disk's cache. Measured when a directory is made.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum SyncMode {
    /// The descriptor is opened with `O_DSYNC`: one request, written and flushed.
    Dsync,
    /// A write, and `fdatasync` after it.
    Fdatasync,
}

impl SyncMode {
    /// As the superblock numbers the ways to flush; 0 is "not measured".
    pub fn number(self) -> u8 {
        match self {
            SyncMode::Dsync => 1,
            SyncMode::Fdatasync => 2,
        }
    }

    /// What the superblock remembers. What was never measured is flushed in the way that every disk knows.
    pub fn of_number(number: u8) -> SyncMode {
        if number == SyncMode::Dsync.number() { SyncMode::Dsync } else { SyncMode::Fdatasync }
    }
}

/// Who carries writes to the kernel.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Backend {
    /// io_uring.
    Uring,
    /// `pwrite` on a thread.
    Blocking,
}

/// What the operator asks for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub enum IoChoice {
    /// io_uring where it works, and blocking where it does not.
    #[default]
    Auto,
    /// io_uring, or an error that says what stands in the way.
    Uring,
    /// Blocking, without trying io_uring.
    Blocking,
}

/// A word that names none of the choices.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{word:?} is none of {known}")]
pub struct UnknownChoice {
    /// What was given.
    pub word: String,
    /// What may be given.
    pub known: &'static str,
}

impl fmt::Display for SyncMode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            SyncMode::Dsync => "dsync",
            SyncMode::Fdatasync => "fdatasync",
        })
    }
}

impl FromStr for SyncMode {
    type Err = UnknownChoice;

    fn from_str(word: &str) -> Result<SyncMode, UnknownChoice> {
        match word {
            "dsync" => Ok(SyncMode::Dsync),
            "fdatasync" => Ok(SyncMode::Fdatasync),
            _ => Err(UnknownChoice { word: word.to_owned(), known: "dsync, fdatasync" }),
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Backend::Uring => "uring",
            Backend::Blocking => "blocking",
        })
    }
}

impl FromStr for Backend {
    type Err = UnknownChoice;

    fn from_str(word: &str) -> Result<Backend, UnknownChoice> {
        match word {
            "uring" => Ok(Backend::Uring),
            "blocking" => Ok(Backend::Blocking),
            _ => Err(UnknownChoice { word: word.to_owned(), known: "uring, blocking" }),
        }
    }
}

impl fmt::Display for IoChoice {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            IoChoice::Auto => "auto",
            IoChoice::Uring => "uring",
            IoChoice::Blocking => "blocking",
        })
    }
}

impl FromStr for IoChoice {
    type Err = UnknownChoice;

    fn from_str(word: &str) -> Result<IoChoice, UnknownChoice> {
        match word {
            "auto" => Ok(IoChoice::Auto),
            "uring" => Ok(IoChoice::Uring),
            "blocking" => Ok(IoChoice::Blocking),
            _ => Err(UnknownChoice { word: word.to_owned(), known: "auto, uring, blocking" }),
        }
    }
}
