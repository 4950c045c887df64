//! How whoever fetches reaches the nodes.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::net::{self, Identity, Peers, SnapshotLink};
use crate::types::NodeId;

/// As what it asks them.
#[derive(Clone, Copy, Debug)]
pub(super) enum Way<'a> {
    /// As one of them.
    Member(&'a Peers),
    /// As an administrator, by the addresses that are known.
    Administrator { identity: &'a Identity, addresses: &'a BTreeMap<NodeId, SocketAddr> },
}

impl Way<'_> {
    pub async fn link(&self, node: NodeId) -> Result<SnapshotLink, net::Error> {
        match self {
            Way::Member(peers) => peers.snapshot_link(node).await,
            Way::Administrator { identity, addresses } => {
                let address = *addresses.get(&node).ok_or(net::Error::NoAddress { node })?;
                SnapshotLink::for_administrator(identity, node, address).await
            }
        }
    }

    /// All that can be asked.
    pub fn others(&self) -> Vec<NodeId> {
        match self {
            Way::Member(peers) => peers.others(),
            Way::Administrator { addresses, .. } => addresses.keys().copied().collect(),
        }
    }
}
