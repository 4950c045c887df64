//! `trilith log tail`: records as they are committed.

use super::print::{Format, Lines};
use crate::cli::access::{self, ClientArguments};
use crate::cli::exit::Failure;
use crate::cli::output;
use crate::client::Error;
use crate::types::Index;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The first index to print
    #[arg(long, value_name = "INDEX")]
    from: u64,
    /// How to print the records
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "text")]
    output: Format,
    #[command(flatten)]
    client: ClientArguments,
}

/// Until Ctrl-C, or until nobody reads any more. A reader that is slow slows the nodes' sending, and loses nothing.
pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    access::block_on(async {
        let client = arguments.client.connect().await?;
        let mut tail = client.tail(Index(arguments.from.max(1)));
        let mut lines = Lines::stdout();
        let interrupted = tokio::signal::ctrl_c();
        tokio::pin!(interrupted);
        while !lines.is_gone() {
            let next = tokio::select! {
                _ = &mut interrupted => return Ok(()),
                next = tail.next() => next,
            };
            match next {
                Ok(records) => lines.records(&records, arguments.output)?,
                Err(Error::Unavailable { reason }) => output::complain(&format!("waiting: {reason}")),
                Err(error) => return Err(access::failure(error)),
            }
        }
        Ok(())
    })
}
