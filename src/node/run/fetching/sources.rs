//! Which nodes are asked, how they are reached, and for what.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use super::error::{Asked, Unfit};
use crate::net::{self, Identity, Peers, SnapshotLink};
use crate::types::NodeId;

/// How whoever fetches reaches the nodes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Way<'a> {
    /// As one of them.
    Member(&'a Peers),
    /// As an administrator, by the addresses that are known.
    Administrator { identity: &'a Identity, addresses: &'a BTreeMap<NodeId, SocketAddr> },
}

/// The nodes that may have a snapshot, in the order in which they are asked.
#[derive(Debug)]
pub(super) struct Sources {
    pub all: Vec<Source>,
}

/// One of them.
#[derive(Debug)]
pub(super) struct Source {
    pub node: NodeId,
    /// It is not asked for anything any more.
    pub unfit: Option<Unfit>,
    /// Chunks that it does not have as they were written.
    pub damaged: BTreeSet<u32>,
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

impl Sources {
    pub fn new(nodes: impl IntoIterator<Item = NodeId>) -> Sources {
        let mut all: Vec<Source> = Vec::new();
        for node in nodes {
            if all.iter().all(|source| source.node != node) {
                all.push(Source { node, unfit: None, damaged: BTreeSet::new() });
            }
        }
        Sources { all }
    }

    /// Whether nobody is left to be asked, `missing` being the chunks that are wanted.
    pub fn is_exhausted(&self, mut missing: impl Iterator<Item = u32>) -> bool {
        let mut fit = self.all.iter().filter(|source| source.unfit.is_none()).peekable();
        if fit.peek().is_none() {
            return true;
        }
        let fit: Vec<&Source> = fit.collect();
        missing.any(|number| fit.iter().all(|source| source.damaged.contains(&number)))
    }

    /// What keeps each from being asked.
    pub fn asked(&self) -> Asked {
        let why = |source: &Source| {
            let damaged = || source.damaged.first().map(|number| Unfit::Damaged { number: *number });
            Some((source.node, source.unfit.clone().or_else(damaged)?))
        };
        Asked(self.all.iter().filter_map(why).collect())
    }
}

impl Source {
    pub fn has(&self, number: u32) -> bool {
        self.unfit.is_none() && !self.damaged.contains(&number)
    }
}
