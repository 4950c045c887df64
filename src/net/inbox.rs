//! Everything that arrives, in one bounded queue that the core drains whole.
//!
//! Peers and clients have a share each, so that clients can never keep a vote out. Who finds the share full waits,
//! does not read meanwhile, and QUIC's flow control tells the sender to stop. What is admitted below the limit may
//! exceed it by what one read brought: a receive buffer, or one frame.

use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::Notify;

use crate::limits::{CORE_QUEUE_BYTES_MAX, ENTRY_OVERHEAD_BYTES};
use crate::raft::message::{Message, Sender};
use crate::types::{Index, NodeId};

use super::client_wire::Request;
use super::close::CloseReason;
use super::forward_wire::{Forward, Forwarded};
use super::peer_wire::Hello;

/// The shares of peers and clients.
const PEER_BYTES_MAX: usize = CORE_QUEUE_BYTES_MAX / 4;
const CLIENT_BYTES_MAX: usize = CORE_QUEUE_BYTES_MAX - PEER_BYTES_MAX;

/// A connection of a client, used once in the life of the process.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ClientKey(pub u64);

/// A tail's stream, used once in the life of the process.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct TailKey(pub u64);

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Arrival {
    /// `message.from` is proven by the certificate; `sender` is what it said of itself in its greeting.
    Peer {
        sender: Sender,
        message: Message,
    },
    /// A client's request that another node passes on, because this one is to lead. Counts as a client's.
    Forward {
        from: NodeId,
        sender: Sender,
        forward: Forward,
    },
    /// What another node says of a request that was passed on to it.
    Forwarded {
        from: NodeId,
        forwarded: Forwarded,
    },
    /// A link stands. Until the matching `PeerDown`, messages come from this incarnation, which is the one that was met
    /// before.
    PeerUp {
        hello: Hello,
    },
    PeerDown {
        node: NodeId,
    },
    /// That node, whose identity is proven, does not speak with this one; or speaks with another life of it.
    Refused {
        node: NodeId,
        reason: CloseReason,
    },
    /// A request. Changes come from administrators alone; others were refused before.
    Client {
        client: ClientKey,
        request: Request,
    },
    /// No answer reaches this client any more.
    ClientGone {
        client: ClientKey,
    },
    TailOpened {
        tail: TailKey,
        from: Index,
    },
    /// A tail that was full has room again.
    TailReady {
        tail: TailKey,
    },
    TailClosed {
        tail: TailKey,
    },
}

/// A handle on the queue; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Inbox {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    /// The core waits here for the first arrival.
    arrived: Notify,
    /// Readers wait here for the core to drain.
    drained: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    arrivals: Vec<Arrival>,
    /// What the queued arrivals of each share weigh.
    peer_bytes: usize,
    client_bytes: usize,
}

/// Whose share an arrival counts against.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Share {
    Peer,
    Client,
}

impl Inbox {
    /// Moves everything that has arrived to the end of `into`.
    pub fn drain(&self, into: &mut Vec<Arrival>) {
        {
            let mut queue = self.queue();
            if queue.arrivals.is_empty() {
                return;
            }
            into.append(&mut queue.arrivals);
            (queue.peer_bytes, queue.client_bytes) = (0, 0);
        }
        self.shared.drained.notify_waiters();
    }

    /// Returns when something has arrived. One caller at a time.
    pub async fn ready(&self) {
        while self.is_empty() {
            self.shared.arrived.notified().await;
        }
    }

    pub fn is_empty(&self) -> bool {
        self.queue().arrivals.is_empty()
    }

    /// What is queued, in bytes: a metric.
    pub fn bytes(&self) -> usize {
        let queue = self.queue();
        queue.peer_bytes + queue.client_bytes
    }

    /// Queues arrivals that weigh `bytes` together; waits while the share is full.
    pub(super) async fn push(&self, share: Share, arrivals: &mut Vec<Arrival>, bytes: usize) {
        if arrivals.is_empty() {
            return;
        }
        let weight = bytes + arrivals.len() * ENTRY_OVERHEAD_BYTES;
        loop {
            let drained = self.shared.drained.notified();
            tokio::pin!(drained);
            // Listening begins before looking, so that a drain in between is not missed.
            drained.as_mut().enable();
            if self.admit(share, arrivals, weight) {
                return;
            }
            drained.await;
        }
    }

    pub(super) async fn push_one(&self, share: Share, arrival: Arrival) {
        self.push(share, &mut vec![arrival], 0).await;
    }

    fn admit(&self, share: Share, arrivals: &mut Vec<Arrival>, weight: usize) -> bool {
        let mut queue = self.queue();
        let (used, max) = match share {
            Share::Peer => (&mut queue.peer_bytes, PEER_BYTES_MAX),
            Share::Client => (&mut queue.client_bytes, CLIENT_BYTES_MAX),
        };
        if *used >= max {
            return false;
        }
        *used += weight;
        let first = queue.arrivals.is_empty();
        queue.arrivals.append(arrivals);
        drop(queue);
        if first {
            self.shared.arrived.notify_one();
        }
        true
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.shared.queue.lock().expect("no holder of this lock can panic")
    }
}
