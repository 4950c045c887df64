//! `trilith snapshot`: which snapshots a directory holds, and whether they are what was written.
//!
//! ```text
//!   directory ──▶ reading (superblock, manifests, with verify every chunk) ──▶ inspect: what there is
//!                                                                        └──▶ verify: what is wrong, and the exit code
//! ```
//!
//! Both only read, take no lock, and work beside a node that runs: what it removes meanwhile is not missed. `restore` makes
//! another directory of one.

mod inspect;
mod reading;
mod restore;
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
    /// Say which snapshots there are, and of what
    Inspect(Target),
    /// Read every chunk and say what is wrong
    Verify(Target),
    /// Make the first node of a NEW cluster, which begins with what a snapshot holds
    Restore(restore::Arguments),
}

/// Runs the sub-command.
pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    match &arguments.command {
        Command::Inspect(target) => inspect::run(&target.directory, target.output),
        Command::Verify(target) => verify::run(&target.directory, target.output),
        Command::Restore(arguments) => restore::run(arguments),
    }
}

#[cfg(test)]
mod tests;
