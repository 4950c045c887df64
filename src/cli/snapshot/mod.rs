//! `trilith snapshot`: which snapshots a directory holds, and whether they are what was written.
//!
//! ```text
//!   directory ──▶ reading (superblock, manifests, with verify every chunk) ──▶ inspect: what there is
//!                                                                        └──▶ verify: what is wrong, and the exit code
//! ```
//!
//! Both only read, take no lock, and work beside a node that runs: what it removes meanwhile is not missed. `export` fetches
//! one from a cluster that runs, and `restore` makes the first node of a new cluster of one.

mod export;
mod inspect;
mod locked;
mod reading;
mod restore;
mod verify;

use super::exit::{Exit, Failure};
use super::target::Target;
use crate::snapshot;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Say which snapshots there are, and of what
    Inspect(Target),
    /// Read every chunk and say what is wrong
    Verify(Target),
    /// Back up a cluster that runs: fetch a snapshot of it into a directory (needs an admin's certificate)
    Export(export::Arguments),
    /// Make the first node of a NEW cluster, which begins with what a snapshot holds
    Restore(restore::Arguments),
}

/// Runs the sub-command.
pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    match &arguments.command {
        Command::Inspect(target) => inspect::run(&target.directory, target.output),
        Command::Verify(target) => verify::run(&target.directory, target.output),
        Command::Export(arguments) => export::run(arguments),
        Command::Restore(arguments) => restore::run(arguments),
    }
}

fn failure_of_snapshot(error: &snapshot::Error) -> Failure {
    let exit = match error {
        snapshot::Error::Damaged { .. } => Exit::Corrupt,
        snapshot::Error::NewerFormat { .. } => Exit::NewerFormat,
        snapshot::Error::WrongCluster { .. } => Exit::WrongIdentity,
        error if error.is_no_space() => Exit::NoSpace,
        snapshot::Error::Disk(error) => return reading::disk_failure(error),
        _ => Exit::Other,
    };
    Failure::new(exit, error.to_string(), error.next_step())
}

#[cfg(test)]
mod tests;
