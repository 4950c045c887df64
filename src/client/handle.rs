//! What callers hold.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use super::asks::{Ask, Refusals};
use super::core::Core;
use super::directory::Directory;
use super::error::Error;
use super::link::{Link, Message};
use super::node::NodeClient;
use super::records::{Appended, Batch, Outcomes};
use super::search::Wanted;
use super::tail::Tail;
use super::{ASKS_MAX, CONNECT_TIMEOUT, QUEUE_BYTES_DEFAULT, REQUEST_BYTES, REQUEST_RECORDS_DEFAULT, wrong_answer};
use crate::limits::{CLIENT_TIMEOUT_DEFAULT, ENTRY_OVERHEAD_BYTES, MEMBERS_MAX, RECORD_BYTES_MAX, REQUEST_RECORDS_MAX};
use crate::net::{
    Change, Consistency, Identity, MemberChange, NodeRole, NodeStatus, Records, RequestBody, ResponseBody, SnapshotMade,
};
use crate::random::{Random, entropy};
use crate::types::{Index, NodeId, Service};

/// How to reach a cluster, and how long to wait for it.
#[derive(Debug)]
pub struct ClientOptions {
    /// Nodes to begin with: one that answers is enough, it names the others.
    pub nodes: Vec<(NodeId, SocketAddr)>,
    pub identity: Identity,
    /// How long a caller waits for an outcome at most.
    pub timeout: Duration,
    /// Records in one request, 1 to [`REQUEST_RECORDS_MAX`].
    pub request_records_max: usize,
    /// Bytes of records that may wait, with [`ENTRY_OVERHEAD_BYTES`] for each.
    pub queue_bytes_max: usize,
    pub when_busy: WhenBusy,
    /// What is in the log is a beginning of what was given to the queue, in that order: once a caller was told of any
    /// failure, nothing is tried that is certainly not in the log, now or later. It is told the same, or
    /// [`Error::Unavailable`] if the outcome of that one is unknown. For those who go on from there later. What a call did
    /// not take that ended with an error itself (too large, or no room in the queue in time) does not count: see to it that
    /// nothing is given after that.
    pub stops_at_failure: bool,
    /// Everything is asked of the first node that answers and knows a leader, and what is written there it passes on. For
    /// clients that cannot reach every node, or not as well: the way is longer. Without it a node that does not lead says
    /// who does, and the client goes there. Changes to the cluster go to the leader all the same.
    pub forward: bool,
}

/// What becomes of a request that the leader refuses because too much waits there.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum WhenBusy {
    /// It is sent again, after pauses, until the caller's time is over; then the caller is told [`Error::Busy`].
    #[default]
    Wait,
    /// The caller is told [`Error::Busy`] at once, and so is who comes while the leader has not answered what it took of
    /// this client before.
    Tell,
}

/// A handle on a connection to a cluster; clones share it. The contract stands at the head of this module.
#[derive(Clone, Debug)]
pub struct Client {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    messages: mpsc::UnboundedSender<Message>,
    /// In bytes.
    queue_room: Arc<Semaphore>,
    queue_bytes_max: usize,
    ask_room: Arc<Semaphore>,
    identity: Arc<Identity>,
    directory: Directory,
    timeout: Duration,
}

impl ClientOptions {
    /// The defaults: 5 seconds, 64 records in a request, 64 MiB in the queue.
    pub fn new(nodes: Vec<(NodeId, SocketAddr)>, identity: Identity) -> ClientOptions {
        ClientOptions {
            nodes,
            identity,
            timeout: CLIENT_TIMEOUT_DEFAULT,
            request_records_max: REQUEST_RECORDS_DEFAULT,
            queue_bytes_max: QUEUE_BYTES_DEFAULT,
            when_busy: WhenBusy::Wait,
            stops_at_failure: false,
            forward: false,
        }
    }
}

impl Client {
    /// Finds the leader, or with [`ClientOptions::forward`] a node that knows one, within the options' time. Runs on the present tokio runtime.
    pub async fn connect(options: ClientOptions) -> Result<Client, Error> {
        let deadline = Instant::now() + options.timeout;
        let client = Client::start(options)?;
        let (sender, receiver) = oneshot::channel();
        client.send(Message::Reach(sender))?;
        match timeout_at(deadline, receiver).await {
            Ok(reached) => reached.unwrap_or_else(|_| Err(ended()))?,
            Err(_) => return Err(client.unreachable()),
        }
        Ok(client)
    }

    /// The same without waiting: the leader is looked for in the background. For those who need none, too.
    pub fn start(options: ClientOptions) -> Result<Client, Error> {
        let ClientOptions { nodes, identity, timeout, request_records_max, queue_bytes_max, when_busy, .. } = options;
        let ClientOptions { stops_at_failure, forward, .. } = options;
        if !(1..=REQUEST_RECORDS_MAX).contains(&request_records_max) {
            return Err(Error::Options { found: request_records_max, max: REQUEST_RECORDS_MAX });
        }
        let (messages, receiver) = mpsc::unbounded_channel();
        let (identity, directory) = (Arc::new(identity), Directory::new(&nodes));
        let mut random = Random::seeded(entropy());
        let core = Core::new(request_records_max, when_busy, random.next_u64()).forwarding(forward);
        let core = core.patient_for(timeout).stopping_at_failure(stops_at_failure);
        let wanted = if forward { Wanted::AnyThatKnowsLeader } else { Wanted::Leader };
        tokio::spawn(Link::new(core, receiver, identity.clone(), directory.clone(), wanted, random).run());
        let queue_bytes_max = queue_bytes_max.min(u32::MAX as usize);
        let queue_room = Arc::new(Semaphore::new(queue_bytes_max));
        let ask_room = Arc::new(Semaphore::new(ASKS_MAX));
        let shared = Shared { messages, queue_room, queue_bytes_max, ask_room, identity, directory, timeout };
        Ok(Client { shared: Arc::new(shared) })
    }

    /// Appends one record, and gives its index once it is committed.
    pub async fn append(&self, record: Bytes) -> Result<Index, Error> {
        let indexes = self.append_batch(vec![record]).await?;
        Ok(indexes[0])
    }

    /// Appends records in this order; other callers' may come between them. After an error some may be appended:
    /// [`Client::append_many`] tells which.
    pub async fn append_batch(&self, records: Vec<Bytes>) -> Result<Vec<Index>, Error> {
        self.enqueue(records).await?.await.into_result()
    }

    /// As [`Client::append_batch`], with one result for each record.
    pub async fn append_many(&self, records: Vec<Bytes>) -> Result<Vec<Result<Index, Error>>, Error> {
        Ok(self.enqueue(records).await?.await.into_results())
    }

    /// Takes records into the queue as soon as there is room: for those who keep many in flight. The order of calls is
    /// the order in the log.
    pub async fn enqueue(&self, records: Vec<Bytes>) -> Result<Appended, Error> {
        self.submit(Service::Append, records).await
    }

    /// The same without waiting: [`Error::Busy`] if there is no room.
    pub fn try_enqueue(&self, records: Vec<Bytes>) -> Result<Appended, Error> {
        let bytes = self.weigh(&records)?;
        let room = self.shared.queue_room.clone().try_acquire_many_owned(bytes).map_err(|_| Error::Busy)?;
        self.hand_in(Service::Append, records, Instant::now() + self.shared.timeout, room)
    }

    /// Records from `from` on, below `to`, as far as one answer holds them: read on at [`Records::next`].
    pub async fn read(&self, from: Index, to: Option<Index>, consistency: Consistency) -> Result<Records, Error> {
        let body = RequestBody::Read { from, to, bytes_max: REQUEST_BYTES, consistency };
        match self.ask(body).await? {
            ResponseBody::Records(records) => Ok(records),
            other => Err(wrong_answer(other)),
        }
    }

    /// Follows the log from an index on.
    pub fn tail(&self, from: Index) -> Tail {
        let Shared { identity, directory, timeout, .. } = &*self.shared;
        Tail::new(identity.clone(), directory.clone(), from, *timeout)
    }

    /// A question to the state machine, in its own encoding.
    pub async fn query(&self, query: Bytes, consistency: Consistency) -> Result<Bytes, Error> {
        match self.ask(RequestBody::Query { query, consistency }).await? {
            ResponseBody::Answer(answer) => Ok(answer),
            other => Err(wrong_answer(other)),
        }
    }

    /// A command for the state machine, in its own encoding: where it stands in the log, and the answer.
    pub async fn command(&self, command: Bytes) -> Result<(Index, Bytes), Error> {
        let outcomes = self.submit(Service::Machine, vec![command]).await?.await;
        let answer = outcomes.answer.clone();
        let indexes = outcomes.into_result()?;
        Ok((indexes[0], answer))
    }

    /// Changes who belongs to the cluster and who votes, all of this at once; needs the admin role. Gives the entry that
    /// ended the change, or 0 if it was so already. A change that is refused for the moment is asked for again until the
    /// time is up. Safe to ask again whatever came of it.
    pub async fn change_members(&self, changes: Vec<MemberChange>) -> Result<Index, Error> {
        if !(1..=MEMBERS_MAX).contains(&changes.len()) {
            return Err(Error::Options { found: changes.len(), max: MEMBERS_MAX });
        }
        self.change(Change::Members(changes)).await
    }

    /// Has every node make a snapshot of what is committed by now, and waits until the leader's is durable; needs the admin
    /// role. Safe to ask again: then one more is made. While a snapshot is being made already it is asked for again, until
    /// the time is up.
    pub async fn snapshot(&self) -> Result<SnapshotMade, Error> {
        match self.ask(RequestBody::Change(Change::Snapshot)).await? {
            ResponseBody::SnapshotMade(made) => Ok(made),
            other => Err(wrong_answer(other)),
        }
    }

    /// A change to the cluster, which needs the admin role. Sent twice only if it is of the members.
    pub async fn change(&self, change: Change) -> Result<Index, Error> {
        match self.ask(RequestBody::Change(change)).await? {
            ResponseBody::Changed { index } => Ok(index),
            other => Err(wrong_answer(other)),
        }
    }

    /// A connection to one node.
    pub async fn node(&self, node: NodeId) -> Result<NodeClient, Error> {
        let address = self.shared.directory.address(node).ok_or(Error::UnknownNode { node })?;
        NodeClient::connect(&self.shared.identity, address, self.shared.timeout).await
    }

    /// A connection to a node that answers, whichever it is: for what any of them can say.
    pub async fn any_node(&self) -> Result<NodeClient, Error> {
        let mut reasons = Vec::new();
        for address in self.shared.directory.addresses(None) {
            let patience = self.shared.timeout.min(CONNECT_TIMEOUT);
            match NodeClient::connect(&self.shared.identity, address, patience).await {
                Ok(node) => return Ok(node.with_timeout(self.shared.timeout)),
                Err(error @ Error::NotTrusted(_)) => return Err(error),
                Err(error) => reasons.push(format!("{address}: {error}")),
            }
        }
        Err(Error::Unavailable { reason: format!("no node answers: {}", reasons.join("; ")) })
    }

    /// What one node says of itself.
    pub async fn status(&self, node: NodeId) -> Result<NodeStatus, Error> {
        self.node(node).await?.status().await
    }

    /// What all known nodes say of themselves, and the members that a leader among them names, asked at the same time; by
    /// rising id.
    pub async fn statuses(&self) -> Vec<(NodeId, SocketAddr, Result<NodeStatus, Error>)> {
        self.statuses_within(self.shared.timeout).await
    }

    /// The same, for whoever goes on without those that have not answered for so long.
    pub async fn statuses_within(&self, patience: Duration) -> Vec<(NodeId, SocketAddr, Result<NodeStatus, Error>)> {
        let known = self.shared.directory.nodes();
        let mut statuses = self.statuses_of(&known, patience).await;
        let answers = statuses.iter().filter_map(|(_, address, status)| Some((address, status.as_ref().ok()?)));
        for (address, status) in answers.filter(|(_, status)| status.role == NodeRole::Leader) {
            self.shared.directory.learn(status, *address);
        }
        let is_new = |node: &(NodeId, SocketAddr)| known.iter().all(|(id, _)| *id != node.0);
        let new: Vec<_> = self.shared.directory.nodes().into_iter().filter(is_new).collect();
        statuses.extend(self.statuses_of(&new, patience).await);
        statuses.sort_by_key(|(node, ..)| *node);
        statuses
    }

    async fn statuses_of(
        &self,
        nodes: &[(NodeId, SocketAddr)],
        patience: Duration,
    ) -> Vec<(NodeId, SocketAddr, Result<NodeStatus, Error>)> {
        let ask = |(node, address): (NodeId, SocketAddr)| {
            let client = self.clone();
            let asked = async move {
                let said = tokio::time::timeout(patience, client.status(node)).await;
                said.unwrap_or_else(|_| Err(Error::Unavailable { reason: format!("no answer within {patience:?}") }))
            };
            (node, address, tokio::spawn(asked))
        };
        let asked: Vec<_> = nodes.iter().copied().map(ask).collect();
        let mut statuses = Vec::with_capacity(asked.len());
        for (node, address, status) in asked {
            statuses.push((node, address, status.await.unwrap_or_else(|_| Err(ended()))));
        }
        statuses
    }

    pub(super) fn directory(&self) -> &Directory {
        &self.shared.directory
    }

    /// Who led when this client last looked.
    pub fn leader(&self) -> Option<NodeId> {
        self.shared.directory.leader().map(|(node, _)| node)
    }

    async fn submit(&self, service: Service, bodies: Vec<Bytes>) -> Result<Appended, Error> {
        let deadline = Instant::now() + self.shared.timeout;
        let bytes = self.weigh(&bodies)?;
        let room = self.shared.queue_room.clone().acquire_many_owned(bytes);
        let room = timeout_at(deadline, room).await.map_err(|_| Error::Busy)?;
        self.hand_in(service, bodies, deadline, room.expect("the queue is never closed"))
    }

    fn hand_in(
        &self,
        service: Service,
        bodies: Vec<Bytes>,
        deadline: Instant,
        room: tokio::sync::OwnedSemaphorePermit,
    ) -> Result<Appended, Error> {
        let (sender, receiver) = oneshot::channel();
        let appended = Appended::new(receiver, bodies.len());
        if bodies.is_empty() {
            // The receiver stands above.
            let _ = sender.send(Outcomes::default());
            return Ok(appended);
        }
        self.send(Message::Submit(Batch { service, bodies, deadline, sender, room }))?;
        Ok(appended)
    }

    /// What records weigh in the queue; refused if one is too large, or all together are.
    fn weigh(&self, bodies: &[Bytes]) -> Result<u32, Error> {
        if let Some(large) = bodies.iter().find(|body| body.len() > RECORD_BYTES_MAX) {
            return Err(Error::TooLarge { bytes: large.len(), max: RECORD_BYTES_MAX });
        }
        let bytes = bodies.iter().map(|body| body.len() + ENTRY_OVERHEAD_BYTES).sum();
        let max = self.shared.queue_bytes_max;
        if bytes > max { Err(Error::TooLarge { bytes, max }) } else { Ok(bytes as u32) }
    }

    async fn ask(&self, body: RequestBody) -> Result<ResponseBody, Error> {
        let deadline = Instant::now() + self.shared.timeout;
        let room = timeout_at(deadline, self.shared.ask_room.clone().acquire_owned()).await.map_err(|_| Error::Busy)?;
        let (sender, receiver) = oneshot::channel();
        let room = room.expect("the queue is never closed");
        self.send(Message::Ask(Ask { body, deadline, sender, room, refusals: Refusals::default() }))?;
        receiver.await.unwrap_or_else(|_| Err(Error::OutcomeUnknown))
    }

    fn send(&self, message: Message) -> Result<(), Error> {
        self.shared.messages.send(message).map_err(|_| ended())
    }

    /// No leader was found in time: where it was looked for.
    fn unreachable(&self) -> Error {
        let nodes = self.shared.directory.nodes();
        let all: Vec<String> = nodes.iter().map(|(node, address)| format!("node {node} at {address}")).collect();
        let within = self.shared.timeout;
        Error::Unavailable { reason: format!("no leader within {within:?} among {}", all.join(", ")) }
    }
}

fn ended() -> Error {
    Error::Unavailable { reason: "the runtime of this client has ended".to_owned() }
}
