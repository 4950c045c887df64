//! Who looks at the same nodes again and again: a connection to each is kept.

use std::collections::BTreeMap;

use super::error::Error;
use super::handle::Client;
use super::node::NodeClient;
use crate::net::{NodeRole, NodeStatus};
use crate::types::NodeId;

/// What nodes say of themselves, asked over connections that stay as long as this does. One that breaks is made anew with
/// the next question.
#[derive(Debug)]
pub struct Looks<'a> {
    client: &'a Client,
    /// At most one for each node that the client knows.
    kept: BTreeMap<NodeId, NodeClient>,
}

impl<'a> Looks<'a> {
    pub fn new(client: &'a Client) -> Looks<'a> {
        Looks { client, kept: BTreeMap::new() }
    }

    /// As [`Client::status`]. May be given up at any time: the answer to an earlier question is passed over.
    ///
    /// # Errors
    /// As there. Then the next question makes a new connection.
    pub async fn status(&mut self, node: NodeId) -> Result<NodeStatus, Error> {
        if let Some(kept) = self.kept.get_mut(&node) {
            return kept.status().await.inspect_err(|_| drop(self.kept.remove(&node)));
        }
        let mut new = self.client.node(node).await?;
        let status = new.status().await?;
        self.kept.insert(node, new);
        Ok(status)
    }

    /// What the leader says of itself; none if no node leads, or it does not answer.
    pub async fn leader(&mut self) -> Option<NodeStatus> {
        if let Some(leader) = self.client.leader()
            && let Ok(status) = self.status(leader).await
            && status.role == NodeRole::Leader
        {
            return Some(status);
        }
        let statuses = self.client.statuses().await.into_iter().filter_map(|(_, _, status)| status.ok());
        let leads = statuses.filter(|status| status.role == NodeRole::Leader);
        leads.max_by_key(|status| status.term)
    }
}
