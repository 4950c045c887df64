//! `trilith log`: records in and out of a cluster's log.
//!
//! ```text
//!   file, standard input ──▶ input: records ──▶ client ──▶ indexes, in the order of the input
//!   read, tail           ◀── print: lines   ◀── client
//!   trim: an index       ──▶ client ──▶ nobody reads below it any more
//! ```
//!
//! A record is a line without its newline, or with `--framed` what a length (u32, little-endian) announces. As JSON a
//! record is `{"index": 5, "record": "text"}`, one to a line; bytes that are no UTF-8 are `"record_hex"` instead.

mod append;
mod input;
mod print;
mod read;
mod tail;
mod trim;

use super::exit::Failure;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Append records, and print the index of each once it is committed
    Append(append::Arguments),
    /// Print records
    Read(read::Arguments),
    /// Print records as they are committed, until Ctrl-C
    Tail(tail::Arguments),
    /// Let the records below an index go, for good (needs an admin's certificate)
    Trim(trim::Arguments),
}

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    match &arguments.command {
        Command::Append(arguments) => append::run(arguments),
        Command::Read(arguments) => read::run(arguments),
        Command::Tail(arguments) => tail::run(arguments),
        Command::Trim(arguments) => trim::run(arguments),
    }
}

#[cfg(test)]
mod tests;
