//! The command line: what a person or a script says to Trilith, and how it answers.
//!
//! ```text
//!   arguments ──▶ Command ──▶ one file per sub-command ──▶ Ok: exit code 0
//!                                                     └──▶ Failure: "error: ..", "next: ..", its exit code
//! ```
//!
//! # The contract
//!
//! - A sub-command is a file of its own with `Arguments` (clap's derive) and `run(&Arguments) -> Result<(), Failure>`;
//!   a line in `Command` and one in `Command::run` make it known.
//! - What was asked for goes to standard output, everything else to standard error. `-o json` gives one JSON document.
//! - Every failure says what is wrong, with the file, key or place, and what to do next. Exit codes are a promise:
//!   scripts act on them (docs/operations.md).
//! - Files of configuration are read in [`configuration`] and nowhere else, into types that cannot be wrong.

pub mod configuration;
pub mod exit;
pub mod local;

mod access;
mod aside;
mod bench;
mod certificate;
mod cluster;
mod demo;
mod dev;
mod doctor;
mod failures;
mod init;
mod kv;
mod log;
mod node;
mod output;
mod progress;
mod sim;
mod snapshot;
mod source;
mod target;
mod wal;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::machine::StateMachine;
use configuration::NodeConfiguration;

pub use bench::header as bench_header;
pub use exit::{Exit, Failure};

/// A replicated write-ahead log.
#[derive(Debug, Parser)]
#[command(name = "trilith", version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show it all: three nodes, real records, the leader killed, everything checked
    Demo(demo::Arguments),
    /// Run a local cluster until Ctrl-C, with certificates made for you
    Dev(dev::Arguments),
    /// Make a node's directory, once
    Init(init::Arguments),
    /// Run one member of a cluster
    Node(node::Arguments),
    /// Say what this machine offers to a log, and what to change
    Doctor(doctor::Arguments),
    /// Append, read and follow records
    Log(log::Arguments),
    /// Use the built-in map
    Kv(kv::Arguments),
    /// See and order a cluster's nodes
    Cluster(cluster::Arguments),
    /// Make and show certificates
    Cert(certificate::Arguments),
    /// Measure, next to what the bare disk does
    Bench(bench::Arguments),
    /// Look into a log's directory
    Wal(wal::Arguments),
    /// Look into a directory's snapshots
    Snapshot(snapshot::Arguments),
    /// Run whole simulated clusters, from a seed, and check that no rule is broken
    Sim(sim::Arguments),
}

impl Command {
    fn run(&self) -> Result<(), Failure> {
        match self {
            Command::Demo(arguments) => demo::run(arguments),
            Command::Dev(arguments) => dev::run(arguments),
            Command::Init(arguments) => init::run(arguments),
            Command::Node(arguments) => node::run(arguments),
            Command::Doctor(arguments) => doctor::run(arguments),
            Command::Log(arguments) => log::run(arguments),
            Command::Kv(arguments) => kv::run(arguments),
            Command::Cluster(arguments) => cluster::run(arguments),
            Command::Cert(arguments) => certificate::run(arguments),
            Command::Bench(arguments) => bench::run(arguments),
            Command::Wal(arguments) => wal::run(arguments),
            Command::Snapshot(arguments) => snapshot::run(arguments),
            Command::Sim(arguments) => sim::run(arguments),
        }
    }
}

/// `node` alone, for programs that bring their own state machine.
#[derive(Debug, Parser)]
struct NodeArguments {
    #[command(subcommand)]
    command: NodeCommand,
}

#[derive(Debug, Subcommand)]
enum NodeCommand {
    /// Run one member of a cluster
    Node(node::Arguments),
}

/// What `trilith node` does, arguments, exit codes and all, in a program that brings its own state machine: `machine` opens
/// it for the configuration that the process's arguments name.
pub fn run_node<M: StateMachine + Send + 'static>(
    machine: impl FnOnce(&NodeConfiguration) -> Result<M, Failure>,
) -> ExitCode {
    match NodeArguments::try_parse() {
        Ok(NodeArguments { command: NodeCommand::Node(arguments) }) => ended(node::run_with(&arguments, machine)),
        Err(error) => refuse(&error),
    }
}

/// Runs the command that the process's arguments name, to its end.
pub fn run() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return refuse(&error),
    };
    ended(arguments.command.run())
}

fn ended(outcome: Result<(), Failure>) -> ExitCode {
    match outcome {
        Ok(()) => Exit::Done.into(),
        Err(failure) => {
            output::complain(&failure);
            failure.exit.into()
        }
    }
}

/// Help and version are no errors; everything else is [`Exit::Usage`].
fn refuse(error: &clap::Error) -> ExitCode {
    // Where standard error is gone there is nobody left to tell.
    let printed = error.print();
    let exit = if error.use_stderr() || printed.is_err() { Exit::Usage } else { Exit::Done };
    exit.into()
}

#[cfg(test)]
mod tests;
