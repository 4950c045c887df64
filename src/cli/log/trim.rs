//! `trilith log trim`: records that nobody needs any more.

use serde::Serialize;

use crate::cli::access::{self, ClientArguments};
use crate::cli::exit::Failure;
use crate::cli::output::{self, Format};
use crate::net::Change;
use crate::types::Index;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The first index that stays readable: all records below it go, on all nodes, and do not come back
    #[arg(long, value_name = "INDEX")]
    before: u64,
    /// How to print it
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "table")]
    output: Format,
    #[command(flatten)]
    client: ClientArguments,
}

/// The document of `-o json`.
#[derive(Serialize)]
struct Shown {
    /// The first index that may be read.
    before: u64,
    /// The entry that says so; none if it was so already.
    entry: Option<u64>,
}

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    access::block_on(async {
        let client = arguments.client.connect().await?;
        let before = arguments.before;
        let Index(entry) = client.change(Change::Trim { first: Index(before) }).await.map_err(access::failure)?;
        let shown = Shown { before, entry: (entry > 0).then_some(entry) };
        output::print(&output::shown(&shown, text, arguments.output))
    })
}

fn text(shown: &Shown) -> String {
    let before = shown.before;
    match shown.entry {
        Some(entry) => format!("no record below {before} is readable any more, by entry {entry}"),
        None => format!("no record below {before} was readable any more"),
    }
}
