//! `trilith wal`: what a log's directory holds, and whether it is what was written.
//!
//! ```text
//!   directory ──▶ reading (superblock, every frame) ──▶ inspect: what there is
//!                                                  ├──▶ verify: what is wrong, and the exit code
//!                                                  ├──▶ dump: every record, the damaged among them
//!                                                  └──▶ repair: what can be done, and with --apply it is done
//! ```
//!
//! All but `repair --apply` only read, take no lock, and work on a log that is in use: what is wrong only while a write
//! is under way is looked at twice. They read a node's directory and that of a log by itself alike.

mod dump;
mod inspect;
mod reading;
mod repair;
mod verify;

use super::exit::Failure;
use super::target::Target;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Say what a log holds: segments, groups, superblock
    Inspect(Target),
    /// Read every frame of a log and say what is wrong with it
    Verify(Target),
    /// Print every record that stands in a log's files
    Dump(dump::Arguments),
    /// Say what can be repaired; with --apply, repair it
    Repair(repair::Arguments),
}

/// Runs the sub-command.
pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    match &arguments.command {
        Command::Inspect(target) => inspect::run(&target.directory, target.output),
        Command::Verify(target) => verify::run(&target.directory, target.output),
        Command::Dump(arguments) => dump::run(arguments),
        Command::Repair(arguments) => repair::run(arguments),
    }
}

#[cfg(test)]
mod tests;
