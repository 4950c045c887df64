//! `trilith log read`: a part of the log.

use super::print::{Format, Lines};
use crate::cli::access::{self, ClientArguments};
use crate::cli::exit::Failure;
use crate::cli::source::ReadArguments;
use crate::net::Consistency;
use crate::types::Index;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The first index to print
    #[arg(long, value_name = "INDEX")]
    from: u64,
    /// The index to stop before; without it, everything that is committed now
    #[arg(long, value_name = "INDEX")]
    to: Option<u64>,
    /// How to print the records
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "text")]
    output: Format,
    #[command(flatten)]
    read: ReadArguments,
    #[command(flatten)]
    client: ClientArguments,
}

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    access::block_on(async {
        let mut source = arguments.read.open(&arguments.client).await?;
        let mut lines = Lines::stdout();
        let to = arguments.to.map(Index);
        let mut from = Index(arguments.from.max(1));
        // All parts together show one moment: that of the first.
        let mut seen = None;
        while !lines.is_gone() && to.is_none_or(|to| from < to) {
            let consistency = match (arguments.read.consistency, seen) {
                (Consistency::Linearizable | Consistency::Lease | Consistency::AtLeast(_), Some(seen)) => {
                    Consistency::AtLeast(seen)
                }
                (first, _) => first,
            };
            let records = source.read(from, to, consistency).await?;
            lines.records(&records, arguments.output)?;
            let end = *seen.get_or_insert(records.commit);
            if records.next == from || records.next > end {
                break;
            }
            from = records.next;
        }
        Ok(())
    })
}
