//! `peers wal`: the same work on the bare disk, on other logs and on Trilith's, in turn in one run.
//!
//! ```text
//!   wal ──▶ for each case, for each round: the disk alone, then for each engine
//!             ├─▶ run    (a process of its own): opens an empty log, appends for a while, closes it
//!             └─▶ count  (another one):          opens it again, and says how many entries were ever in it
//! ```
//!
//! A process each, so that no engine inherits another's threads, memory or open files, and that what is counted comes
//! from the disk's files alone. A round in which the count is not what was acknowledged fails the whole run, and so
//! does one in which the device flushed less often than acknowledgements of flushed entries need.
//!
//! `peers raft`: the protocol alone, in our core and in raft-rs's (raft/mod.rs).

mod count;
mod disk;
mod engines;
mod load;
mod raft;
mod run;
mod table;
#[cfg(test)]
mod tests;
mod wal;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The same work on the bare disk, on other logs and on Trilith's, and in two protocol cores
#[derive(Debug, Parser)]
#[command(name = "peers", version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Local logs, every append flushed
    Wal(wal::Arguments),
    /// The protocol alone: three replicas in memory
    Raft(raft::Arguments),
    #[command(hide = true)]
    Run(run::Arguments),
    #[command(hide = true)]
    Count(engines::Subject),
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Wal(arguments) => wal::run(&arguments),
        Command::Raft(arguments) => raft::run(&arguments),
        Command::Run(arguments) => run::run(&arguments),
        Command::Count(subject) => count::run(&subject),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            failure.exit.into()
        }
    }
}
