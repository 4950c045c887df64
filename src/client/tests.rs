//! A toy cluster: real endpoints, one log in memory that all nodes share, one node that leads, faults by order.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use tokio::task::JoinHandle;

use super::{Client, ClientOptions};
use crate::codec::decode_command;
use crate::machine::command::Answer;
use crate::net::certificate::{Authority, Validity};
use crate::net::{
    Arrival, ClientKey, Endpoint, Facts, Identity, NodeRole, NodeStatus, Records, Refusal, Request, RequestBody,
    Response, ResponseBody, Role, Settings, SubmitResult, TailKey,
};
use crate::types::*;

pub(super) struct Toy {
    pub(super) authority: Authority,
    world: Arc<Mutex<World>>,
    nodes: BTreeMap<u64, (SocketAddr, JoinHandle<()>)>,
}

/// What the nodes agree on, without the work of agreeing.
#[derive(Default)]
pub(super) struct World {
    pub(super) leader: u64,
    pub(super) term: u64,
    /// The entry at index 1 comes first; `None` is a registration.
    pub(super) log: Vec<Option<Bytes>>,
    /// The entries of each session's numbers, from 1 on.
    pub(super) sessions: BTreeMap<u64, Vec<Index>>,
    /// What to do to the next submissions of records.
    pub(super) faults: VecDeque<Fault>,
    /// Nodes that take everything in and answer nothing.
    pub(super) silent: Vec<u64>,
    pub(super) addresses: BTreeMap<u64, SocketAddr>,
    /// The nodes that submissions were given to which any node may pass on.
    pub(super) asked: Vec<u64>,
    /// The nodes that were asked for their status, and on which of their connections.
    pub(super) looks: Vec<(u64, ClientKey)>,
    /// How many submissions arrived.
    pub(super) submissions: usize,
    pub(super) tails: Vec<(u64, TailKey, u64)>,
}

#[derive(Clone, Debug)]
pub(super) enum Fault {
    None,
    /// Nothing of it is taken.
    Refuse(Refusal),
    /// It is taken, and the answer is what a leader says that steps down.
    Unknown,
    /// This many are taken, the rest is refused.
    Part(usize),
    /// It is taken, and the node is gone before it answers.
    Crash,
    /// All sessions are forgotten before it is looked at.
    Forget,
    /// It is taken, and no answer comes.
    Lose,
}

impl Toy {
    pub(super) async fn new(nodes: u64) -> Toy {
        let authority = Authority::create(ClusterId(7), Validity::days(1)).unwrap();
        let world = World { leader: 1, term: 1, ..World::default() };
        let mut toy = Toy { authority, world: Arc::new(Mutex::new(world)), nodes: BTreeMap::new() };
        for id in 1..=nodes {
            toy.start(id).await;
        }
        toy
    }

    /// Starts a node, at its old address if it had one.
    pub(super) async fn start(&mut self, id: u64) {
        let old = self.world().addresses.get(&id).copied();
        let address = old.unwrap_or_else(|| "127.0.0.1:0".parse().unwrap());
        let identity = self.identity(Role::Node(NodeId(id)));
        let facts = Facts { incarnation: Incarnation(id), is_first_member: true, boot: 1, fingerprint: 1, seed: id };
        let mut attempts = 0;
        let endpoint = loop {
            match Endpoint::bind(&identity, address, facts, Settings::default()) {
                Ok(endpoint) => break endpoint,
                Err(error) => assert!(attempts < 200, "{error}"),
            }
            attempts += 1;
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        let address = endpoint.local_address();
        self.world().addresses.insert(id, address);
        self.nodes.insert(id, (address, tokio::spawn(serve(endpoint, id, self.world.clone()))));
    }

    pub(super) fn stop(&mut self, id: u64) {
        self.nodes[&id].1.abort();
    }

    pub(super) fn is_stopped(&self, id: u64) -> bool {
        self.nodes[&id].1.is_finished()
    }

    pub(super) fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    pub(super) fn lead(&self, id: u64) {
        let mut world = self.world();
        world.leader = id;
        world.term += 1;
    }

    pub(super) fn identity(&self, role: Role) -> Identity {
        let issued = self.authority.issue(&role, Validity::days(1)).unwrap();
        Identity::from_pem(&issued.certificate, &issued.key, &self.authority.pem().certificate, None).unwrap()
    }

    pub(super) fn options(&self, nodes: &[u64]) -> ClientOptions {
        let nodes = nodes.iter().map(|id| (NodeId(*id), self.nodes[id].0)).collect();
        ClientOptions::new(nodes, self.identity(Role::Admin("test".into())))
    }

    pub(super) async fn client(&self) -> Client {
        let all: Vec<u64> = self.nodes.keys().copied().collect();
        Client::connect(self.options(&all)).await.unwrap()
    }

    /// The appended records in the order of the log.
    pub(super) fn records(&self) -> Vec<Bytes> {
        self.world().log.iter().flatten().cloned().collect()
    }
}

pub(super) fn record(number: u32) -> Bytes {
    Bytes::copy_from_slice(&number.to_le_bytes())
}

pub(super) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..2000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("not in time: {what}");
}

async fn serve(endpoint: Endpoint, id: u64, world: Arc<Mutex<World>>) {
    let (inbox, replies) = (endpoint.inbox(), endpoint.replies());
    let mut arrivals = Vec::new();
    loop {
        // Tails are served by the clock, which is enough for a toy.
        let _ = tokio::time::timeout(Duration::from_millis(5), inbox.ready()).await;
        inbox.drain(&mut arrivals);
        let mut world = world.lock().unwrap();
        for arrival in arrivals.drain(..) {
            match arrival {
                Arrival::Client { client, request } => {
                    let Request { id: request, body } = request;
                    if let RequestBody::Status = body {
                        world.looks.push((id, client));
                    }
                    let Ok(body) = world.answer(id, body) else { return };
                    if let Some(body) = body.filter(|_| !world.silent.contains(&id)) {
                        replies.reply(client, &Response { id: request, body });
                    }
                }
                Arrival::TailOpened { tail, from } => world.tails.push((id, tail, from.0)),
                Arrival::TailClosed { tail } => world.tails.retain(|open| (open.0, open.1) != (id, tail)),
                _ => {}
            }
        }
        for at in 0..world.tails.len() {
            let (node, tail, next) = world.tails[at];
            let records = world.records(next, u64::MAX);
            if node == id && !records.records.is_empty() {
                world.tails[at].2 = records.next.0;
                replies.tail(tail, records);
            }
        }
    }
}

/// The node is to be gone.
struct Gone;

impl World {
    fn answer(&mut self, node: u64, body: RequestBody) -> Result<Option<ResponseBody>, Gone> {
        if let RequestBody::Status = body {
            return Ok(Some(ResponseBody::Status(Box::new(self.status(node)))));
        }
        let body = match body {
            // A node that passes it on is heard as the leader is.
            RequestBody::SubmitAnywhere { commands } if self.addresses.contains_key(&self.leader) => {
                self.asked.push(node);
                return self.submit(&commands);
            }
            body => body,
        };
        if self.leader != node {
            let leader = self.addresses.get(&self.leader).map(|address| (NodeId(self.leader), *address));
            return Ok(Some(ResponseBody::Refused(Refusal::NotLeader { leader })));
        }
        Ok(Some(match body {
            RequestBody::Submit { commands } | RequestBody::SubmitAnywhere { commands } => {
                return self.submit(&commands);
            }
            RequestBody::Read { from, to, .. } => {
                ResponseBody::Records(self.records(from.0.max(1), to.unwrap_or(Index(u64::MAX)).0))
            }
            RequestBody::Query { .. } => ResponseBody::Answer(Answer::Value(None).encode()),
            RequestBody::Status => unreachable!("answered above"),
            RequestBody::Change(_) => ResponseBody::Changed { index: Index(0) },
        }))
    }

    fn submit(&mut self, commands: &[Data]) -> Result<Option<ResponseBody>, Gone> {
        let is_registration = decode_command(&commands[0].bytes).unwrap().0.service == Service::Register;
        let fault = if is_registration { None } else { self.faults.pop_front() };
        self.submissions += usize::from(!is_registration);
        let take = |world: &mut World, part: usize| {
            let told = commands.iter().enumerate().map(|(at, data)| match at < part {
                true => world.take(data),
                false => SubmitResult::Refused(Refusal::Busy),
            });
            ResponseBody::Submitted { results: told.collect() }
        };
        Ok(match fault.unwrap_or(Fault::None) {
            Fault::None => Some(take(self, usize::MAX)),
            Fault::Refuse(refusal) => Some(ResponseBody::Refused(refusal)),
            Fault::Unknown => {
                take(self, usize::MAX);
                let results = vec![SubmitResult::Refused(Refusal::OutcomeUnknown); commands.len()];
                Some(ResponseBody::Submitted { results })
            }
            Fault::Part(part) => Some(take(self, part)),
            Fault::Crash => {
                take(self, usize::MAX);
                return Err(Gone);
            }
            Fault::Forget => {
                self.sessions.clear();
                Some(take(self, usize::MAX))
            }
            Fault::Lose => {
                take(self, usize::MAX);
                None
            }
        })
    }

    /// One command, by the rules of sessions.
    fn take(&mut self, data: &Data) -> SubmitResult {
        let (command, body) = decode_command(&data.bytes).unwrap();
        let index = Index(self.log.len() as u64 + 1);
        if command.service == Service::Register {
            self.log.push(None);
            self.sessions.insert(index.0, Vec::new());
            return SubmitResult::Run { first: index, count: 1 };
        }
        let Some(done) = self.sessions.get_mut(&command.session.0) else {
            return SubmitResult::Refused(Refusal::SessionGone);
        };
        let lowest = command.lowest_unanswered.0 as usize;
        assert!(lowest >= 1 && lowest <= done.len() + 1 && lowest <= command.number.0 as usize);
        let at = command.number.0 as usize - 1;
        assert!(at + 1 - lowest < crate::limits::SESSION_ANSWERS_MAX, "too many unanswered");
        if at > done.len() {
            return SubmitResult::Refused(Refusal::Gap { expected: done.len() as u64 + 1 });
        }
        if at == done.len() {
            done.push(index);
            self.log.push(Some(Bytes::copy_from_slice(&body)));
        }
        let index = self.sessions[&command.session.0][at];
        match command.service {
            Service::Machine => SubmitResult::Done { index, answer: Answer::Done.encode() },
            _ => SubmitResult::Run { first: index, count: 1 },
        }
    }

    fn records(&self, from: u64, to: u64) -> Records {
        let numbered = (1..).zip(&self.log).filter(|(index, _)| (from..to).contains(index)).take(100);
        let mut records =
            Records { next: Index(from), first: Index(1), commit: Index(self.log.len() as u64), ..Records::default() };
        for (index, record) in numbered {
            records.next = Index(index + 1);
            records.records.extend(record.clone().map(|record| (Index(index), record)));
        }
        records
    }

    fn status(&self, node: u64) -> NodeStatus {
        let member = |(id, address): (&u64, &SocketAddr)| Member {
            id: NodeId(*id),
            incarnation: Incarnation(*id),
            address: *address,
        };
        let members = self.addresses.iter().map(member).collect();
        let voters = self.addresses.keys().map(|id| NodeId(*id)).collect();
        let last = LogId::new(Term(self.term), Index(self.log.len() as u64));
        NodeStatus {
            id: NodeId(node),
            incarnation: Incarnation(node),
            address: self.addresses[&node],
            pid: std::process::id(),
            role: if self.leader == node { NodeRole::Leader } else { NodeRole::Follower },
            term: Term(self.term),
            leader: self.addresses.get(&self.leader).map(|address| (NodeId(self.leader), *address)),
            first: Index(1),
            last,
            durable: last,
            commit: last.index,
            applied: last.index,
            membership: Membership { members, voters, ..Membership::default() },
            io: "memory".into(),
            sync_mode: "none".into(),
            waiting: String::new(),
            records: self.log.len() as u64,
            record_bytes: 0,
            flushes: 0,
            sessions: self.sessions.len() as u64,
            removals_failed: 0,
            unremoved_segments: 0,
            snapshots: Default::default(),
        }
    }
}
