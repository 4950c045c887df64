//! Follows the log, over broken connections and changes of leader.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::CONNECT_TIMEOUT;
use super::core::jittered;
use super::directory::Directory;
use super::error::Error;
use super::node::NodeClient;
use crate::net::{self, ClientConnection, Identity, Records, Refusal, Responses, TailItem};
use crate::random::{Random, entropy};
use crate::types::Index;

/// Appended records from an index on, as they are committed; each once, in order.
#[derive(Debug)]
pub struct Tail {
    identity: Arc<Identity>,
    directory: Directory,
    /// The index to go on from.
    next: Index,
    /// How long no node may be reachable before the caller is told.
    timeout: Duration,
    open: Option<Open>,
    /// Attempts since records came.
    attempts: u32,
    random: Random,
}

#[derive(Debug)]
struct Open {
    tail: net::Tail,
    /// The connection lives as long as both its halves.
    _connection: (ClientConnection, Responses),
}

impl Tail {
    pub(super) fn new(identity: Arc<Identity>, directory: Directory, from: Index, timeout: Duration) -> Tail {
        let random = Random::seeded(entropy());
        Tail { identity, directory, next: from, timeout, open: None, attempts: 0, random }
    }

    /// The next records. Waits as long as there are none; fails if they were trimmed, or if no node could be reached
    /// for the client's time: then it may be called again, and goes on where it was. Loses nothing if cancelled.
    pub async fn next(&mut self) -> Result<Records, Error> {
        let mut deadline = None;
        loop {
            let open = match &mut self.open {
                Some(open) => open,
                None => {
                    let deadline = *deadline.get_or_insert_with(|| Instant::now() + self.timeout);
                    let opened = self.reopen(deadline).await?;
                    self.open.insert(opened)
                }
            };
            match open.tail.next().await {
                Ok(TailItem::Records(records)) => {
                    if let Some(records) = self.accept(records) {
                        return Ok(records);
                    }
                }
                Ok(TailItem::Refused(Refusal::Trimmed { first })) => {
                    self.open = None;
                    return Err(Error::Trimmed { first });
                }
                Ok(TailItem::Refused(refusal)) => tracing::debug!("the tail has ended: {refusal}"),
                Err(error) => tracing::debug!("the tail is lost: {error}"),
            }
            self.open = None;
            self.attempts += 1;
        }
    }

    /// Where it goes on.
    pub fn next_index(&self) -> Index {
        self.next
    }

    /// The part of it that is new. A node that gives what was not asked for is left.
    fn accept(&mut self, records: Records) -> Option<Records> {
        let mut lowest = self.next;
        for (index, _) in &records.records {
            if *index < lowest {
                return None;
            }
            lowest = index.next();
        }
        if records.next < lowest {
            return None;
        }
        self.next = records.next;
        self.attempts = 0;
        Some(records)
    }

    /// Tries one node after another, the leader first, until one takes the tail.
    async fn reopen(&mut self, deadline: Instant) -> Result<Open, Error> {
        let mut reason = Error::Unavailable { reason: "no node is known".to_owned() };
        loop {
            let addresses = self.directory.addresses(None);
            if self.attempts > 0 {
                let pause = jittered(self.attempts, &mut self.random);
                tokio::time::sleep(pause).await;
            }
            // After a failure the next one is tried.
            let address = addresses.get(self.attempts as usize % addresses.len().max(1)).copied();
            match timeout_at(deadline, self.try_open(address)).await {
                Ok(Ok(open)) => return Ok(open),
                Ok(Err(error)) => reason = error,
                Err(_) => return Err(reason),
            }
            self.attempts = self.attempts.saturating_add(1);
            if Instant::now() >= deadline {
                return Err(reason);
            }
        }
    }

    async fn try_open(&self, address: Option<SocketAddr>) -> Result<Open, Error> {
        let none = || Error::Unavailable { reason: "no node is known".to_owned() };
        let address = address.ok_or_else(none)?;
        let node = NodeClient::connect(&self.identity, address, CONNECT_TIMEOUT).await?;
        let (connection, responses) = node.into_parts();
        let tail = connection.tail(self.next).await.map_err(Error::from_connection)?;
        Ok(Open { tail, _connection: (connection, responses) })
    }
}
