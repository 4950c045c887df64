//! `trilith bench`: figures that one can trust, next to those of the bare disk under them.
//!
//! Every figure comes with what it depends on: the disk's own flush time, measured just before, the back end and why,
//! the sync mode, file system, kernel, cores, payload, and what was in flight. A run is bounded in time, works in a
//! directory of its own and removes it.

mod cluster;
mod disk;
mod median;
mod place;
mod surroundings;
mod wal;

use super::exit::{Exit, Failure};
use crate::disk::ProbeError;
pub use surroundings::header;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Measure a cluster: clients in a closed loop, every record flushed on a majority
    Cluster(cluster::Arguments),
    /// Measure the disk alone, in each of the ways in which a log could use it
    Disk(disk::Arguments),
    /// Measure the log alone: appends, each flushed before it counts
    Wal(wal::Arguments),
}

/// Runs the sub-command.
pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    match &arguments.command {
        Command::Cluster(arguments) => cluster::run(arguments),
        Command::Disk(arguments) => disk::run(arguments),
        Command::Wal(arguments) => wal::run(arguments),
    }
}

/// io_uring was insisted on.
fn refused(error: &ProbeError) -> Failure {
    Failure::new(Exit::IoUringRefused, error.to_string(), "do what the message names, or take --io auto")
}

#[cfg(test)]
mod tests;
