//! Who looks at the same nodes again and again: a connection to each is kept.

use std::collections::BTreeMap;

use tokio::task::JoinSet;

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
        let (new, status) = asked(self.client, node, None).await?;
        self.kept.insert(node, new);
        Ok(status)
    }

    /// What the leader says of itself; none if no node leads, or it does not answer. May be given up, which may cost
    /// connections: they are made anew.
    pub async fn leader(&mut self) -> Option<NodeStatus> {
        if let Some(leader) = self.client.leader()
            && let Ok(status) = self.status(leader).await
            && status.role == NodeRole::Leader
        {
            return Some(status);
        }
        let mut questions = JoinSet::new();
        for (node, _) in self.client.directory().nodes() {
            let (client, kept) = (self.client.clone(), self.kept.remove(&node));
            questions.spawn(async move { (node, asked(&client, node, kept).await) });
        }
        let mut leads: Option<NodeStatus> = None;
        let mut at = None;
        while let Some(answer) = questions.join_next().await {
            let Ok((node, Ok((connection, status)))) = answer else { continue };
            if status.role == NodeRole::Leader && leads.as_ref().is_none_or(|other| other.term < status.term) {
                (leads, at) = (Some(status), Some(connection.address()));
            }
            self.kept.insert(node, connection);
        }
        if let (Some(status), Some(address)) = (&leads, at) {
            self.client.directory().learn(status, address);
        }
        leads
    }
}

/// A node's answer, and the connection on which it came: a new one, if none is kept.
async fn asked(client: &Client, node: NodeId, kept: Option<NodeClient>) -> Result<(NodeClient, NodeStatus), Error> {
    let mut connection = match kept {
        Some(kept) => kept,
        None => client.node(node).await?,
    };
    let status = connection.status().await?;
    Ok((connection, status))
}
