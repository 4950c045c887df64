//! `trilith log read`: a part of the log.

use super::print::{Format, Lines};
use crate::cli::access::{self, ClientArguments};
use crate::cli::exit::Failure;
use crate::client::{Client, Error, NodeClient};
use crate::net::{Consistency, Records};
use crate::types::{Index, NodeId};

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
    /// Ask this node, and take what it has applied, however old
    #[arg(long, value_name = "ID", requires = "stale")]
    node: Option<u64>,
    /// Allow what is not the newest state; needs --node
    #[arg(long, requires = "node")]
    stale: bool,
    #[command(flatten)]
    client: ClientArguments,
}

/// Whom to ask.
enum Source {
    Leader(Client),
    Node(NodeClient),
}

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    access::block_on(async {
        let mut source = match arguments.node {
            Some(node) => {
                let client = arguments.client.start()?;
                Source::Node(client.node(NodeId(node)).await.map_err(access::failure)?)
            }
            None => Source::Leader(arguments.client.connect().await?),
        };
        let mut lines = Lines::stdout();
        let to = arguments.to.map(Index);
        let mut from = Index(arguments.from.max(1));
        // All parts together show one moment: that of the first.
        let mut seen = None;
        while !lines.is_gone() && to.is_none_or(|to| from < to) {
            let records = source.read(from, to, seen).await.map_err(access::failure)?;
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

impl Source {
    async fn read(&mut self, from: Index, to: Option<Index>, seen: Option<Index>) -> Result<Records, Error> {
        match self {
            Source::Node(node) => node.read(from, to, Consistency::Stale).await,
            Source::Leader(client) => {
                let consistency = seen.map_or(Consistency::Linearizable, Consistency::AtLeast);
                client.read(from, to, consistency).await
            }
        }
    }
}
