//! The run: one queue of what is to happen, in the order of a simulated clock.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};

use super::clients::Client;
use super::follower::Follower;
use super::links::Greeting;
use super::members::Operator;
use super::network::Network;
use super::node::{Node, Process, boot_time, membership, node_at, node_id};
use super::oracles::{Broken, Oracle, Oracles, Violation};
use super::rest::LOOK_INTERVAL;
use super::scenario::{DiskOptions, MILLISECOND, Options};
use super::steps::{Aim, Doing};
use super::trace::{Label, Trace};
use super::transfer::{Transfer, end_fetch};
use super::{Report, recovery};
use crate::disk::{Queue, Token};
use crate::net::{self, ClientKey, Records, Request, Response, TailKey};
use crate::node::driver::{Effect, Input, ReadNumber};
use crate::raft::{Body, Event, Message, Role};
use crate::random::Random;
use crate::snapshot::{Builder, Reach};
use crate::types::LogId;
use crate::wal::{Prepare, ReadPlan, Remove};

/// Of so many seeds one begins with a cluster that is not born yet.
const UNBORN_SEEDS: u64 = 4;
/// The follower, what is passed on, the operator, and snapshots draw from generators of their own.
const FOLLOWER_SALT: u64 = 0x7a11_7a11;
const FORWARD_SALT: u64 = 0xf0a3_a2d5;
const OPERATOR_SALT: u64 = 0x0bea_a704;
const SNAPSHOT_SALT: u64 = 0x5a95_0701;
const FETCH_SALT: u64 = 0xfe7c_4001;
const AIM_SALT: u64 = 0xa13a_0771;

/// A cluster, its disks, its network and its clients, in one thread.
#[derive(Debug)]
pub struct Simulation {
    pub(super) seed: u64,
    pub(super) options: Options,
    pub(super) now: u64,
    pub(super) steps: u64,
    /// What is to happen, by time; at the same time in the order in which it was ordered.
    queue: BTreeMap<(u64, u64), Happening>,
    last_ordered: u64,
    pub(super) nodes: Vec<Node>,
    pub(super) network: Network,
    pub(super) clients: Vec<Client>,
    pub(super) follower: Follower,
    pub(super) operator: Option<Operator>,
    pub(super) oracles: Oracles,
    pub(super) trace: Rc<RefCell<Trace>>,
    /// For the world; clients and network have their own.
    pub(super) random: Random,
    /// For requests that are passed on, and links that break under them.
    pub(super) forward_random: Random,
    /// For snapshots.
    pub(super) snapshot_random: Random,
    /// For their way from node to node.
    pub(super) fetch_random: Random,
    /// Where nodes end, if that is asked for.
    pub(super) aim: Rc<RefCell<Aim>>,
    pub(super) disk: DiskOptions,
    /// When the calm began.
    pub(super) calm_since: Option<u64>,
    /// So many of the next leaders lose their power soon after their election.
    pub(super) ambushes: u64,
    pub(super) report: Report,
}

/// What is to happen. A `life` that is over makes it nothing.
#[derive(Debug)]
pub(super) enum Happening {
    Tick {
        node: usize,
        life: u64,
    },
    Run {
        node: usize,
        life: u64,
    },
    Message {
        node: usize,
        greeting: Greeting,
        bytes: Bytes,
    },
    /// A request that a node passes on, or the answer to one.
    Forwarded {
        node: usize,
        from: usize,
        greeting: Greeting,
        bytes: Bytes,
    },
    /// A node notices that its link to another is broken.
    LinkLost {
        node: usize,
        other: usize,
    },
    Written {
        node: usize,
        life: u64,
        token: Token,
    },
    Prepare {
        node: usize,
        life: u64,
        order: Prepare,
    },
    Remove {
        node: usize,
        life: u64,
        order: Remove,
    },
    Read {
        node: usize,
        life: u64,
        read: ReadNumber,
        plan: ReadPlan,
    },
    Request {
        node: usize,
        client: usize,
        request: Request,
    },
    Response {
        client: usize,
        response: Response,
    },
    Client {
        client: usize,
    },
    Follow,
    Operate,
    Trim,
    Tailed {
        tail: TailKey,
        records: Records,
    },
    TailReady {
        node: usize,
        life: u64,
        tail: TailKey,
    },
    /// The next step of a snapshot that is made.
    Snapshot {
        node: usize,
        life: u64,
        builder: Box<Builder>,
        began: u64,
    },
    RemoveSnapshots {
        node: usize,
        life: u64,
        in_use: LogId,
        reach: Reach,
    },
    Transfer {
        node: usize,
        what: Transfer,
    },
    /// The disk has room again, unless it was filled anew.
    Room {
        node: usize,
    },
    Fault,
    Crash {
        node: usize,
        life: u64,
    },
    Restart {
        node: usize,
    },
    Calm,
    Look,
}

impl Simulation {
    /// Runs a seed to its end, or to the first rule that is broken.
    pub fn run(seed: u64, options: &Options) -> Result<Report, Violation> {
        let place =
            |broken: Broken, step| Violation { seed, step, oracle: broken.oracle, explanation: broken.explanation };
        let mut simulation = Simulation::new(seed, options).map_err(|broken| place(broken, 0))?;
        simulation.run_to_end().map_err(|broken| place(broken, simulation.steps))?;
        Ok(simulation.into_report())
    }

    pub(super) fn new(seed: u64, options: &Options) -> Result<Simulation, Broken> {
        let options = options.in_force();
        let mut random = Random::seeded(seed);
        let trace = Rc::new(RefCell::new(Trace::default()));
        let membership = membership(options.nodes, seed.is_multiple_of(UNBORN_SEEDS));
        let nodes = (0..options.nodes).map(|at| Node::new(at, membership.clone(), random.next_u64(), &trace));
        let nodes = nodes.collect::<Result<Vec<_>, _>>();
        let mut nodes = nodes.map_err(|error| Broken::new(Oracle::Recovery, format!("cannot format: {error}")))?;
        let spare_nodes = options.changes.map_or(0, |changes| changes.spare_nodes);
        nodes.extend((options.nodes..options.nodes + spare_nodes).map(Node::of_nobody));
        let forward_salt = |id: usize| seed ^ FORWARD_SALT.rotate_left(id as u32 + 1);
        let client = |id| {
            let forwarding = Random::seeded(forward_salt(id));
            Client::new(id as u64, nodes.len(), options.clients, (random.fork(), forwarding))
        };
        let clients: Vec<Client> = (0..options.clients.clients).map(client).collect();
        let operates = |changes| Operator::new(changes, Random::seeded(seed ^ OPERATOR_SALT), membership.clone());
        let mut simulation = Simulation {
            seed,
            operator: options.changes.map(operates),
            now: 0,
            steps: 0,
            queue: BTreeMap::new(),
            last_ordered: 0,
            nodes,
            network: Network::new(options.network, random.fork()),
            clients,
            follower: Follower::new(Random::seeded(seed ^ FOLLOWER_SALT)),
            oracles: Oracles::default(),
            trace,
            random,
            forward_random: Random::seeded(seed ^ FORWARD_SALT),
            snapshot_random: Random::seeded(seed ^ SNAPSHOT_SALT),
            fetch_random: Random::seeded(seed ^ FETCH_SALT),
            aim: Aim::new(None, Random::seeded(seed ^ AIM_SALT)),
            disk: options.disk,
            calm_since: None,
            ambushes: 0,
            report: Report::default(),
            options,
        };
        let options = simulation.options.clone();
        (0..options.nodes).for_each(|node| simulation.order(0, Happening::Restart { node }));
        (0..options.clients.clients).for_each(|client| simulation.order(0, Happening::Client { client }));
        if options.tails {
            simulation.order(0, Happening::Follow);
        }
        if options.changes.is_some() {
            simulation.order(0, Happening::Operate);
        }
        if options.purge.is_some() {
            simulation.order(0, Happening::Trim);
        }
        simulation.oracles.begin_with(membership, options.sessions);
        simulation.order(0, Happening::Fault);
        simulation.order(options.fault_time, Happening::Calm);
        Ok(simulation)
    }

    pub(super) fn run_to_end(&mut self) -> Result<(), Broken> {
        while let Some(((time, _), happening)) = self.queue.pop_first() {
            self.now = time;
            self.steps += 1;
            if let Happening::Look = happening {
                if self.is_at_rest() {
                    return self.audit();
                }
                self.check_time()?;
                self.order(LOOK_INTERVAL, Happening::Look);
                continue;
            }
            self.happen(happening)?;
        }
        Err(Broken::new(Oracle::Progress, "nothing is left to happen"))
    }

    pub(super) fn order(&mut self, after: u64, happening: Happening) {
        self.last_ordered += 1;
        let place = match self.options.order_salt {
            0 => self.last_ordered,
            // Odd, so that no two are the same.
            salt => (self.last_ordered ^ salt).wrapping_mul(0x9e37_79b9_7f4a_7c15),
        };
        self.queue.insert((self.now + after, place), happening);
    }

    pub(super) fn note(&self, label: Label, numbers: &[u64], bytes: &[u8]) {
        self.trace.borrow_mut().note(label, numbers, bytes);
    }

    fn happen(&mut self, happening: Happening) -> Result<(), Broken> {
        if let Some(until) = self.paused_until(&happening) {
            self.order(until - self.now, happening);
            return Ok(());
        }
        match happening {
            Happening::Tick { node, life } => self.tick(node, life),
            Happening::Run { node, life } => self.run_driver(node, life)?,
            Happening::Message { node, greeting, bytes } => self.deliver(node, &greeting, bytes)?,
            Happening::Forwarded { node, from, greeting, bytes } => {
                self.deliver_forwarded(node, from, greeting, bytes)?
            }
            Happening::LinkLost { node, other } => self.input(node, Input::Lost { node: node_id(other) }),
            Happening::Written { node, life, token } => self.written(node, life, token),
            Happening::Prepare { node, life, order } => {
                let doing = if order.recycled.is_some() { Doing::Purging } else { Doing::Other };
                self.while_doing(doing, |simulation| simulation.prepare(node, life, &order))
            }
            Happening::Remove { node, life, order } => {
                self.while_doing(Doing::Purging, |simulation| simulation.remove(node, life, &order))
            }
            Happening::Read { node, life, read, plan } => self.read(node, life, read, &plan),
            Happening::Request { client, request, .. } if self.is_given_up(client, &request) => {}
            Happening::Request { node, client, request } => {
                let client = ClientKey(client as u64);
                self.input(node, Input::Client { client, request });
            }
            Happening::Response { client, response } => {
                self.note(Label::Response, &[self.now, client as u64, response.id], &[]);
                let is_operators = client == self.operator_key();
                match self.clients.get_mut(client) {
                    Some(client) => client.answered(self.now, response, &mut self.oracles)?,
                    None if is_operators => self.change_answered(&response)?,
                    None => self.administrator_answered(&response)?,
                }
            }
            Happening::Snapshot { node, life, builder, began } => {
                self.while_doing(Doing::Making, |simulation| simulation.step_snapshot(node, life, builder, began))
            }
            Happening::RemoveSnapshots { node, life, in_use, reach } => {
                self.while_doing(Doing::Removing, |simulation| simulation.remove_snapshots(node, life, in_use, &reach))
            }
            Happening::Transfer { node, what } => self.transfer(node, what)?,
            Happening::Client { client } => self.step_client(client)?,
            Happening::Follow => self.follow(),
            Happening::Operate => self.operate()?,
            Happening::Trim => self.trim(),
            Happening::Tailed { tail, records } => self.tailed(tail, &records)?,
            Happening::TailReady { node, life, tail } => self.tail_ready(node, life, tail),
            Happening::Room { node } => self.make_room(node),
            Happening::Fault => self.fault(),
            Happening::Crash { node, life } if self.nodes[node].life == life => self.crash(node),
            Happening::Crash { .. } => {}
            Happening::Restart { node } => self.restart(node)?,
            Happening::Calm => self.calm(),
            Happening::Look => unreachable!("looked at before"),
        }
        self.cut_where_power_went();
        Ok(())
    }

    /// Until when this must wait, because its node does nothing.
    fn paused_until(&self, happening: &Happening) -> Option<u64> {
        let node = match happening {
            Happening::Tick { node, .. }
            | Happening::Run { node, .. }
            | Happening::Message { node, .. }
            | Happening::Forwarded { node, .. }
            | Happening::LinkLost { node, .. }
            | Happening::Written { node, .. }
            | Happening::TailReady { node, .. }
            | Happening::Transfer { node, .. }
            | Happening::Request { node, .. } => *node,
            _ => return None,
        };
        Some(self.nodes[node].paused_until).filter(|until| *until > self.now)
    }

    /// Whether the cluster serves: of every fourth seed it is born in the run. It is not yet where its leader alone has
    /// the last entry of the birth, which can still be lost.
    pub(super) fn is_born(&self) -> bool {
        !self.oracles.membership().forming
    }

    pub(super) fn lives(&self, node: usize, life: u64) -> bool {
        self.nodes[node].life == life && self.nodes[node].process.is_some()
    }

    fn tick(&mut self, node: usize, life: u64) {
        if !self.lives(node, life) {
            return;
        }
        // Wall clocks jump; nothing may rest on them.
        let wall_clock_milliseconds = self.random.below(self.now / MILLISECOND + 1000);
        self.input(node, Input::Tick { wall_clock_milliseconds });
        let early = self.random.below(MILLISECOND);
        self.order(10 * MILLISECOND + MILLISECOND / 2 - early, Happening::Tick { node, life });
        self.end_if_removed(node);
    }

    fn step_client(&mut self, client: usize) -> Result<(), Broken> {
        let requests = self.clients[client].step(self.now, &mut self.oracles)?;
        for (node, request) in requests {
            let mut bytes = BytesMut::new();
            net::put_request(&mut bytes, &request);
            self.note(Label::Request, &[self.now, client as u64, node as u64], &bytes);
            let arrivals = self.network.copies_of_request(self.now, self.options.clients.patience == 0);
            self.oracles.copies.sent(client as u64, &request, arrivals.len() as u64);
            for arrival in arrivals {
                let request = request.clone();
                self.order(arrival - self.now, Happening::Request { node, client, request });
            }
        }
        let step_time = self.options.clients.step_time;
        let after = self.random.between(step_time / 2, 2 * step_time);
        self.order(after, Happening::Client { client });
        Ok(())
    }

    /// Hands a node an input, and sees to it that it runs soon.
    pub(super) fn input(&mut self, node: usize, input: Input) {
        let kind = match &input {
            Input::Tick { .. } => 0,
            Input::Peer { .. } | Input::Met { .. } => 1,
            Input::Client { .. } => 2,
            Input::ClientGone { .. } => 3,
            Input::TailOpened { tail, .. } | Input::TailReady { tail } | Input::TailClosed { tail } => 3 + tail.0,
            Input::Written(completion) => 4 + completion.token.0,
            Input::Prepared { number, .. } | Input::Removed { number, .. } => 5 + number.0,
            Input::ReadDone { read, .. } => 6 + read.0,
            Input::Forward { .. } | Input::Forwarded { .. } | Input::NotForwarded { .. } | Input::Lost { .. } => 7,
            Input::SnapshotMade { point, result } => 8 + 2 * point.index.0 + u64::from(result.is_ok()),
            Input::SnapshotsRemoved { .. } => 8,
            Input::SnapshotAsked { .. } => unreachable!("it comes with a question"),
            Input::SnapshotProgress(_) => unreachable!("nobody looks at it"),
            Input::Refused { .. } => unreachable!("the network has nothing against a node"),
            Input::Clock(_) => unreachable!("the clock is read beside the inputs"),
        };
        self.note(Label::Input, &[self.now, node as u64, kind], &[]);
        let clock = self.clock(node);
        let Some(process) = &mut self.nodes[node].process else { return };
        clock.into_iter().chain([input]).for_each(|input| process.driver.handle(input));
        self.run_soon(node);
    }

    /// What is read before anything else is done, where there are leases.
    fn clock(&self, node: usize) -> Option<Input> {
        self.options.leases.then(|| Input::Clock(boot_time(node, self.now)))
    }

    pub(super) fn run_soon(&mut self, node: usize) {
        if !std::mem::replace(&mut self.nodes[node].run_is_due, true) {
            let (after, life) = (self.random.below(self.options.batch_time_max), self.nodes[node].life);
            self.order(after, Happening::Run { node, life });
        }
    }

    /// A node deals with what has come to it, and its rules are checked.
    pub(super) fn run_driver(&mut self, node: usize, life: u64) -> Result<(), Broken> {
        if !self.lives(node, life) {
            return Ok(());
        }
        self.nodes[node].run_is_due = false;
        let mut process = self.nodes[node].process.take().expect("it lives");
        self.clock(node).into_iter().for_each(|input| process.driver.handle(input));
        self.oracles.check_lease(process.driver.replica())?;
        let before = process.driver.replica().first_index();
        let mut broken = Ok(());
        let mut effects = Vec::new();
        let invariants = &mut self.oracles.invariants;
        let said = process.driver.take_effects_watched(&mut effects, &mut |replica, output| {
            if broken.is_ok() {
                broken = invariants.took(replica, output);
            }
        });
        drop(process.driver.take_discarded());
        broken?;
        self.oracles.check_node(&process.driver)?;
        let replica = process.driver.replica();
        let is_purged = replica.first_index() > before && replica.status().last.index >= replica.first_index();
        self.report.purges += u64::from(is_purged);
        for effect in effects {
            self.carry_out(node, &mut process, effect)?;
        }
        self.nodes[node].process = Some(process);
        match said {
            Ok(true) => self.run_soon(node),
            Ok(false) => {}
            Err(stopped) => self.stopped(node, &stopped.to_string())?,
        }
        Ok(())
    }

    /// A process ended by itself, which only a disk that failed allows.
    fn stopped(&mut self, node: usize, why: &str) -> Result<(), Broken> {
        if self.nodes[node].disk.is_off() {
            return Ok(());
        }
        if !std::mem::take(&mut self.nodes[node].has_failing_disk) {
            return Err(Broken::new(Oracle::Recovery, format!("node {} stops: {why}", node_id(node))));
        }
        self.kill(node);
        Ok(())
    }

    fn carry_out(&mut self, node: usize, process: &mut Process, effect: Effect) -> Result<(), Broken> {
        let life = self.nodes[node].life;
        match effect {
            Effect::Write(write) => {
                let token = write.token;
                let doing = process.doing();
                self.while_doing(doing, |_| process.queue.submit(write));
                let after = self.write_time(node);
                self.order(after, Happening::Written { node, life, token });
            }
            Effect::Prepare(order) => {
                let after = self.random.below(self.disk.background_time_max);
                self.order(after, Happening::Prepare { node, life, order });
            }
            Effect::Remove(order) => {
                let after = self.random.below(self.disk.background_time_max);
                self.order(after, Happening::Remove { node, life, order });
            }
            Effect::ReadLog { read, plan, .. } => {
                let after = self.random.below(self.disk.background_time_max);
                self.order(after, Happening::Read { node, life, read, plan });
            }
            Effect::MakeSnapshot(making) => {
                let begun = self.begin_snapshot(node, *making);
                self.order(0, begun);
            }
            Effect::RemoveSnapshots { in_use, reach } => {
                let after = self.snapshot_random.below(self.options.snapshots.step_time_max);
                self.order(after, Happening::RemoveSnapshots { node, life, in_use, reach });
            }
            Effect::FetchSnapshot { from, point, .. } => self.begin_fetch(node, process, from, point),
            Effect::CancelFetch => end_fetch(process),
            Effect::Snapshot(report) => self.on_snapshot_report(&report),
            Effect::Send(message) => self.send(node, process, &message)?,
            Effect::Forward { to, forward } => self.forward(node, process, to, &forward),
            Effect::Forwarded { to, forwarded } => self.forwarded(node, process, to, &forwarded),
            Effect::Reply { client, response } => self.reply(client.0 as usize, &response)?,
            Effect::Tail { tail, records } => self.tail(tail, records),
            Effect::EndTail { tail, refusal } => self.end_tail(tail, &refusal)?,
            Effect::Event(event) => self.on_event(node, &event)?,
            Effect::Unreadable(error) => {
                let Node { is_rotten, has_failing_disk, disk, .. } = &self.nodes[node];
                if !is_rotten && !has_failing_disk && !disk.is_off() {
                    let explanation = format!("node {} has damaged what it wrote: {error}", node_id(node));
                    return Err(Broken::new(Oracle::Recovery, explanation));
                }
            }
            Effect::Missing { index, .. } => {
                let explanation = format!("node {} misses entry {index}, which it must have", node_id(node));
                return Err(Broken::new(Oracle::Recovery, explanation));
            }
        }
        Ok(())
    }

    fn send(&mut self, node: usize, process: &Process, message: &Message) -> Result<(), Broken> {
        self.oracles.invariants.sent(message)?;
        if matches!(message.body, Body::VoteReply { granted: true } | Body::Vote { .. }) || self.random.chance(10) {
            let disk = &self.nodes[node].disk;
            recovery::check_spoken(&self.oracles.invariants, message, process.driver.replica(), disk)?;
        }
        let mut bytes = BytesMut::new();
        net::put_message(&mut bytes, message);
        let bytes = bytes.freeze();
        self.note(Label::Message, &[self.now, node as u64], &bytes);
        let to = node_at(message.to);
        let Some(greeting) = self.greet(node, process, to) else { return Ok(()) };
        self.report.messages += 1;
        for arrival in self.network.between_nodes(self.now, node, to) {
            self.order(arrival - self.now, Happening::Message { node: to, greeting, bytes: bytes.clone() });
        }
        Ok(())
    }

    fn reply(&mut self, client: usize, response: &Response) -> Result<(), Broken> {
        self.oracles.answered(client as u64, response)?;
        let mut bytes = BytesMut::new();
        net::put_response(&mut bytes, response);
        self.note(Label::Output, &[self.now, client as u64], &bytes);
        for arrival in self.network.copies(self.now) {
            let response = response.clone();
            self.order(arrival - self.now, Happening::Response { client, response });
        }
        Ok(())
    }

    fn on_event(&mut self, node: usize, event: &Event) -> Result<(), Broken> {
        match event {
            Event::RoleChanged { role: Role::Leader, .. } => self.on_elected(node),
            // No disk here gives up what it has flushed, but for those on which nothing starts again.
            Event::VoiceLost { peer, acknowledged, holds } => {
                let taker = node_id(node);
                let explanation =
                    format!("node {taker} takes the voice of node {peer}, which acknowledged {acknowledged}: {holds}");
                return Err(Broken::new(Oracle::Protocol, explanation));
            }
            _ => {}
        }
        Ok(())
    }

    fn on_elected(&mut self, node: usize) {
        self.report.elections += 1;
        if self.ambushes > 0 {
            self.ambushes -= 1;
            let (after, life) = (self.random.below(30 * MILLISECOND), self.nodes[node].life);
            self.order(after, Happening::Crash { node, life });
        }
    }
}
