//! How new an answer must be, and who gives it: for the commands that read.

use bytes::Bytes;

use super::access::{self, ClientArguments};
use super::exit::Failure;
use crate::client::{Client, Error, NodeClient, Scan, Scanned};
use crate::net::{Consistency, Records};
use crate::types::{Index, NodeId};

#[derive(Debug, clap::Args)]
pub struct ReadArguments {
    /// How new the answer must be: `linearizable`, `lease` (the same, from the leader alone, where clocks keep to their
    /// bound), `at-least=INDEX` (as new as that entry), or `stale` (what the node has)
    #[arg(long = "read", value_name = "MODE", default_value = "linearizable", value_parser = parse)]
    pub consistency: Consistency,
    /// Ask this node; without it the leader answers what is linearizable, and any node the rest
    #[arg(long, value_name = "ID")]
    node: Option<u64>,
}

/// Whom to ask.
pub enum Source {
    Leader(Client),
    Node(NodeClient),
}

impl ReadArguments {
    pub async fn open(&self, client: &ClientArguments) -> Result<Source, Failure> {
        match (self.node, self.consistency) {
            (Some(node), _) => client.start()?.node(NodeId(node)).await.map(Source::Node).map_err(access::failure),
            (None, Consistency::Linearizable | Consistency::Lease) => client.connect().await.map(Source::Leader),
            (None, Consistency::Stale | Consistency::AtLeast(_)) => {
                client.start()?.any_node().await.map(Source::Node).map_err(access::failure)
            }
        }
    }
}

impl Source {
    pub async fn read(&mut self, from: Index, to: Option<Index>, consistency: Consistency) -> Result<Records, Failure> {
        let read = match self {
            Source::Leader(client) => client.read(from, to, consistency).await,
            Source::Node(node) => node.read(from, to, consistency).await,
        };
        read.map_err(|error| failure(error, consistency))
    }

    pub async fn get(&mut self, key: Bytes, consistency: Consistency) -> Result<Option<Bytes>, Failure> {
        let read = match self {
            Source::Leader(client) => client.get(key, consistency).await,
            Source::Node(node) => node.get(key, consistency).await,
        };
        read.map_err(|error| failure(error, consistency))
    }

    pub async fn scan(&mut self, scan: Scan, consistency: Consistency) -> Result<Scanned, Failure> {
        let read = match self {
            Source::Leader(client) => client.scan(scan, consistency).await,
            Source::Node(node) => node.scan(scan, consistency).await,
        };
        read.map_err(|error| failure(error, consistency))
    }
}

/// Who waits for an entry in vain learns what he waited for.
fn failure(error: Error, consistency: Consistency) -> Failure {
    match (&error, consistency) {
        (Error::Unavailable { .. }, Consistency::AtLeast(index)) => Failure {
            next_step: format!(
                "see with `trilith cluster status` which nodes have applied {index}, and ask one with --node, or wait longer"
            ),
            ..access::failure(error)
        },
        _ => access::failure(error),
    }
}

fn parse(text: &str) -> Result<Consistency, String> {
    let index = text.strip_prefix("at-least=").map(str::parse);
    match (text, index) {
        ("linearizable", _) => Ok(Consistency::Linearizable),
        ("lease", _) => Ok(Consistency::Lease),
        ("stale", _) => Ok(Consistency::Stale),
        (_, Some(Ok(index))) => Ok(Consistency::AtLeast(Index(index))),
        (_, Some(Err(_))) => {
            Err("at-least= is followed by an index, as the one that `trilith kv put` prints".to_owned())
        }
        (_, None) => Err("linearizable, lease, at-least=INDEX or stale".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_new_an_answer_must_be_is_said_in_one_way() {
        assert_eq!(parse("linearizable"), Ok(Consistency::Linearizable));
        assert_eq!(parse("stale"), Ok(Consistency::Stale));
        assert_eq!(parse("lease"), Ok(Consistency::Lease));
        assert_eq!(parse("at-least=0"), Ok(Consistency::AtLeast(Index(0))));
        assert_eq!(parse("at-least=18446744073709551615"), Ok(Consistency::AtLeast(Index(u64::MAX))));
        for wrong in ["", "Stale", "at-least", "at-least=", "at-least=-1", "at-least=18446744073709551616", "leases"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
