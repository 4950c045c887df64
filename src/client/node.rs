//! One node, whether it leads or not: its status, and what it has applied.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;

use super::error::Error;
use super::{REQUEST_BYTES, wrong_answer};
use crate::net::{
    ClientConnection, Consistency, Identity, NodeStatus, Records, Request, RequestBody, ResponseBody, Responses,
};
use crate::types::{Index, NodeId};

/// A connection to one node, for one question at a time. Nothing is retried: a broken connection is an error.
#[derive(Debug)]
pub struct NodeClient {
    connection: ClientConnection,
    responses: Responses,
    last_request: u64,
    timeout: Duration,
}

impl NodeClient {
    /// Connects to the node at this address, whichever it is. `timeout` is for this and for each question.
    pub async fn connect(identity: &Identity, address: SocketAddr, timeout: Duration) -> Result<NodeClient, Error> {
        let connected = within(timeout, async {
            ClientConnection::connect(identity, address).await.map_err(Error::from_connection)
        });
        let (connection, responses) = connected.await?;
        Ok(NodeClient { connection, responses, last_request: FIRST_REQUEST, timeout })
    }

    /// The same with another time for each question.
    pub fn with_timeout(self, timeout: Duration) -> NodeClient {
        NodeClient { timeout, ..self }
    }

    /// Which node this is.
    pub fn node(&self) -> NodeId {
        self.connection.welcome().node
    }

    pub fn address(&self) -> SocketAddr {
        self.connection.address()
    }

    pub async fn status(&mut self) -> Result<NodeStatus, Error> {
        match self.ask(RequestBody::Status).await? {
            ResponseBody::Status(status) => Ok(*status),
            _ => Err(Error::WrongAnswer),
        }
    }

    /// Records from `from` on, below `to`, as far as one answer holds them.
    pub async fn read(&mut self, from: Index, to: Option<Index>, consistency: Consistency) -> Result<Records, Error> {
        let body = RequestBody::Read { from, to, bytes_max: REQUEST_BYTES, consistency };
        match self.ask(body).await? {
            ResponseBody::Records(records) => Ok(records),
            other => Err(wrong_answer(other)),
        }
    }

    /// A question to the state machine, in its own encoding.
    pub async fn query(&mut self, query: Bytes, consistency: Consistency) -> Result<Bytes, Error> {
        match self.ask(RequestBody::Query { query, consistency }).await? {
            ResponseBody::Answer(answer) => Ok(answer),
            other => Err(wrong_answer(other)),
        }
    }

    pub(super) fn into_parts(self) -> (ClientConnection, Responses) {
        (self.connection, self.responses)
    }

    async fn ask(&mut self, body: RequestBody) -> Result<ResponseBody, Error> {
        self.last_request += 1;
        let request = Request { id: self.last_request, body };
        let NodeClient { connection, responses, timeout, .. } = self;
        within(*timeout, async {
            connection.send(&request).await.map_err(Error::from_connection)?;
            loop {
                // An answer to an earlier question, which was given up, may still come.
                let response = responses.next().await.map_err(Error::from_connection)?;
                if response.id == request.id {
                    return match response.body {
                        ResponseBody::Refused(refusal) => Err(Error::from_refusal(&refusal)),
                        body => Ok(body),
                    };
                }
            }
        })
        .await
    }
}

/// Leaves the numbers below to whoever takes the connection over.
const FIRST_REQUEST: u64 = 1 << 63;

async fn within<T>(timeout: Duration, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let late = || Error::Unavailable { reason: format!("no answer within {timeout:?}") };
    tokio::time::timeout(timeout, work).await.unwrap_or_else(|_| Err(late()))
}
