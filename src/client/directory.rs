//! Which nodes there are, as far as this client knows.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::limits::MEMBERS_MAX;
use crate::net::{NodeRole, NodeStatus};
use crate::types::NodeId;

/// Nodes that are remembered: members, and as many that were.
const KNOWN_MAX: usize = 2 * MEMBERS_MAX;

/// A handle; clones share what is known.
#[derive(Clone, Debug)]
pub(super) struct Directory {
    shared: Arc<Mutex<Known>>,
}

#[derive(Debug)]
struct Known {
    /// What the caller named, and what nodes said of the members. At most [`KNOWN_MAX`].
    nodes: BTreeMap<NodeId, SocketAddr>,
    leader: Option<(NodeId, SocketAddr)>,
    /// The node that served last: it is asked first.
    served: Option<SocketAddr>,
}

impl Directory {
    pub fn new(nodes: &[(NodeId, SocketAddr)]) -> Directory {
        let nodes = nodes.iter().copied().collect();
        Directory { shared: Arc::new(Mutex::new(Known { nodes, leader: None, served: None })) }
    }

    /// Takes the word of a node that serves on who leads and who belongs to the cluster. Others stay known, as far as
    /// there is room: they may say where the leader is.
    pub fn learn(&self, status: &NodeStatus, address: SocketAddr) {
        let mut known = self.known();
        let is_member = |id: NodeId| status.membership.member(id).is_some();
        if known.nodes.len() + status.membership.members.len() > KNOWN_MAX {
            known.nodes.retain(|id, _| is_member(*id));
        }
        for member in &status.membership.members {
            if known.nodes.len() < KNOWN_MAX || known.nodes.contains_key(&member.id) {
                known.nodes.insert(member.id, member.address);
            }
        }
        // Where it answered is where it can be reached.
        known.nodes.insert(status.id, address);
        known.leader = if status.role == NodeRole::Leader { Some((status.id, address)) } else { status.leader };
    }

    /// This is the node that is asked first from now on.
    pub fn prefer(&self, address: SocketAddr) {
        self.known().served = Some(address);
    }

    pub fn address(&self, node: NodeId) -> Option<SocketAddr> {
        self.known().nodes.get(&node).copied()
    }

    pub fn nodes(&self) -> Vec<(NodeId, SocketAddr)> {
        self.known().nodes.iter().map(|(node, address)| (*node, *address)).collect()
    }

    pub fn leader(&self) -> Option<(NodeId, SocketAddr)> {
        self.known().leader
    }

    /// All addresses, the likely ones first.
    pub fn addresses(&self, hint: Option<SocketAddr>) -> Vec<SocketAddr> {
        let known = self.known();
        let mut addresses: Vec<SocketAddr> = hint.into_iter().collect();
        let leader = known.leader.iter().map(|(_, address)| address);
        let rest = known.served.iter().chain(leader).chain(known.nodes.values());
        for address in rest {
            if !addresses.contains(address) {
                addresses.push(*address);
            }
        }
        addresses
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.shared.lock().expect("no holder of this lock can panic")
    }
}
