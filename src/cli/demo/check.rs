//! Reads every node back and compares it with the journal: payload, order, index, number of times.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::load::Journal;
use crate::cli::configuration::ClientConfiguration;
use crate::cli::{Exit, Failure, access};
use crate::client::NodeClient;
use crate::net::Consistency;
use crate::types::{Index, NodeId};

/// How long a node may take to apply what the others have.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the comparison of all nodes gave.
#[derive(Clone, Debug, Default)]
pub struct Checked {
    pub nodes: Vec<NodeId>,
    /// Acknowledged, and not at its index on some node.
    pub lost: u64,
    /// Acknowledged, and something else stands at its index.
    pub changed: u64,
    /// In the log more often than it was given.
    pub doubled: u64,
    /// Nodes whose records differ from the first one's, in content or order.
    pub differing: u64,
    /// Records on each node.
    pub records: u64,
}

pub fn run(client: &ClientConfiguration, given: &[Bytes], journal: &Journal) -> Result<Checked, Failure> {
    access::block_on(async {
        let highest = journal.indexes.iter().flatten().max().copied().unwrap_or_default();
        let mut checked = Checked::default();
        let mut first: Option<Vec<(Index, Bytes)>> = None;
        for node in &client.nodes {
            let records = read_all(client, node.id, node.address, highest).await?;
            compare(given, journal, &records, &mut checked);
            checked.nodes.push(node.id);
            match &first {
                None => {
                    checked.records = records.len() as u64;
                    first = Some(records);
                }
                // A node may have applied a little less than the first, of what nobody was told.
                Some(first) => checked.differing += u64::from(!is_same(first, &records)),
            }
        }
        Ok(checked)
    })
}

/// Everything that a node has applied, once it has applied what was acknowledged.
async fn read_all(
    client: &ClientConfiguration,
    id: NodeId,
    address: std::net::SocketAddr,
    highest: Index,
) -> Result<Vec<(Index, Bytes)>, Failure> {
    let identity = access::identity(client)?;
    let mut node = NodeClient::connect(&identity, address, PATIENCE).await.map_err(access::failure)?;
    let deadline = Instant::now() + PATIENCE;
    while node.status().await.map_err(access::failure)?.applied < highest {
        if Instant::now() > deadline {
            let message = format!("node {id} has not applied {highest} within {PATIENCE:?}");
            return Err(Failure::new(Exit::Unavailable, message, "see its log in the demonstration's directory"));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut records = Vec::new();
    let mut from = Index::FIRST;
    loop {
        let read = node.read(from, None, Consistency::Stale).await.map_err(access::failure)?;
        records.extend(read.records);
        if read.next == from {
            return Ok(records);
        }
        from = read.next;
    }
}

fn compare(given: &[Bytes], journal: &Journal, records: &[(Index, Bytes)], checked: &mut Checked) {
    let at: HashMap<Index, &Bytes> = records.iter().map(|(index, record)| (*index, record)).collect();
    for (record, index) in given.iter().zip(&journal.indexes) {
        match index.map(|index| at.get(&index)) {
            Some(None) => checked.lost += 1,
            Some(Some(found)) if *found != record => checked.changed += 1,
            Some(Some(_)) | None => {}
        }
    }
    let mut left: HashMap<&Bytes, i64> = HashMap::new();
    given.iter().for_each(|record| *left.entry(record).or_default() += 1);
    for (_, record) in records {
        let left = left.entry(record).or_default();
        *left -= 1;
        checked.doubled += u64::from(*left < 0);
    }
}

fn is_same(one: &[(Index, Bytes)], other: &[(Index, Bytes)]) -> bool {
    let common = one.len().min(other.len());
    one[..common] == other[..common]
}
