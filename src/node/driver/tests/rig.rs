//! One driver, with another member that the test plays, and whoever hands it inputs and takes its effects.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;

use crate::codec;
use crate::disk::Queue;
use crate::limits::RATION_BYTES_PER_TICK_MIN;
use crate::machine::{Map, StateMachine, command as map};
use crate::net::{
    ClientKey, Consistency, Forward, Forwarded, Refusal, Request, RequestBody, Response, ResponseBody, SubmitResult,
    TailKey,
};
use crate::node::driver::{self, Driver, Effect, Input, Making, ReadNumber, SnapshotOptions, SnapshotReport, WantedBy};
use crate::node::sessions;
use crate::raft::{AppendOutcome, AppendReply, Body, BootTime, LeaseOptions, Limits, Message, Sender};
use crate::sim::disk::{SimDisk, SimFiles, SimQueue};
use crate::snapshot;
use crate::superblock::State;
use crate::types::{
    ClusterId, Command, Data, GroupId, Incarnation, Index, LogId, Member, Membership, NodeId, RequestNumber, Service,
    SessionId,
};
use crate::wal::{self, Prepare, ReadBuffer, ReadPlan};

pub const OWN: NodeId = NodeId(1);
pub const OTHER: NodeId = NodeId(2);
pub const CLIENT: ClientKey = ClientKey(7);
/// What the log keeps in memory: little, so that reads go to the disk soon.
pub const CACHE_BYTES: usize = 64 << 10;
pub const CLUSTER: ClusterId = ClusterId(5);
const SEGMENT_BYTES: u64 = 4 << 20;
const TURNS_MAX: usize = 100_000;

/// A read of the log that was ordered and not carried out.
#[derive(Debug)]
pub struct Ordered {
    pub read: ReadNumber,
    pub plan: ReadPlan,
    pub is_for_client: bool,
}

pub struct Rig<M> {
    pub driver: Driver<M>,
    pub disk: SimDisk,
    pub files: SimFiles,
    queue: SimQueue,
    /// Writes stay where they are.
    pub holds_writes: bool,
    /// What the boot-time clock shows, if it is read.
    clock: Option<BootTime>,
    /// Reads of the log stay in `reads`.
    pub holds_reads: bool,
    pub reads: VecDeque<Ordered>,
    read_buffer: ReadBuffer,
    pub replies: Vec<(ClientKey, Response)>,
    pub tails: Vec<TailKey>,
    pub sent: Vec<Message>,
    /// What it passed on, and to whom.
    pub forwards: Vec<(NodeId, Forward)>,
    /// What it said of requests that were passed on to it.
    pub forwarded: Vec<(NodeId, Forwarded)>,
    /// Why tails ended.
    pub ended: Vec<Refusal>,
    pub missing: Vec<(Index, WantedBy)>,
    /// Which snapshots it wants, and from whom.
    pub fetches: Vec<(NodeId, LogId)>,
    /// How often it wanted none any more.
    pub fetches_cancelled: usize,
    /// Snapshots that were ordered and are not begun.
    pub makings: Vec<Making>,
    /// What was told of snapshots.
    pub reports: Vec<SnapshotReport>,
    /// Segments that were ordered, while they are held.
    pub preparations: Vec<Prepare>,
    pub holds_preparations: bool,
    last_request: u64,
    last_number: u64,
    /// Told by each command: all below it are answered.
    lowest: u64,
    pub session: SessionId,
}

impl Rig<Map> {
    /// It leads, and has a session.
    pub fn leading() -> Rig<Map> {
        let mut rig = Rig::started(Map::new(), &[OWN]);
        rig.lead();
        rig
    }
}

impl<M: StateMachine> Rig<M> {
    /// With two members, of which these vote.
    pub fn started(machine: M, voters: &[NodeId]) -> Rig<M> {
        Rig::on(formatted(voters), machine)
    }

    pub fn with_leases(machine: M, voters: &[NodeId], leases: LeaseOptions) -> Rig<M> {
        let disk = formatted(voters);
        Rig::with_options(disk, machine, driver::Options { leases: Some(leases), ..options() })
    }

    /// A new process on the same disk.
    pub fn again(self, machine: M) -> Rig<M> {
        let disk = self.disk.clone();
        drop(self);
        disk.kill(&mut crate::random::Random::seeded(1));
        Rig::on(disk, machine)
    }

    /// The one that votes.
    pub fn with_rule(retention: driver::RetentionRule) -> Rig<Map> {
        Rig::with_options(formatted(&[OWN]), Map::new(), driver::Options { retention, ..options() })
    }

    /// The one that votes.
    pub fn with_limits(machine: M, limits: Limits) -> Rig<M> {
        Rig::with_options(formatted(&[OWN]), machine, driver::Options { limits, ..options() })
    }

    pub fn on(disk: SimDisk, machine: M) -> Rig<M> {
        Rig::with_options(disk, machine, options())
    }

    pub fn with_options(disk: SimDisk, machine: M, options: driver::Options) -> Rig<M> {
        let (files, queue) = (disk.files(), disk.queue());
        let driver = Driver::start(&files, options, machine, 0).unwrap().driver;
        let mut rig = Rig {
            driver,
            disk,
            files,
            queue,
            holds_writes: false,
            holds_preparations: false,
            preparations: Vec::new(),
            clock: None,
            holds_reads: false,
            reads: VecDeque::new(),
            read_buffer: ReadBuffer::default(),
            replies: Vec::new(),
            tails: Vec::new(),
            sent: Vec::new(),
            forwards: Vec::new(),
            forwarded: Vec::new(),
            ended: Vec::new(),
            missing: Vec::new(),
            fetches: Vec::new(),
            fetches_cancelled: 0,
            makings: Vec::new(),
            reports: Vec::new(),
            last_request: 0,
            last_number: 0,
            lowest: 1,
            session: SessionId(0),
        };
        // It was met before: what it says counts at once.
        rig.driver.handle(Input::Met { node: OTHER, sender: other() });
        rig.settle();
        rig
    }

    pub fn lead(&mut self) {
        self.elect();
        let registration = data(Service::Register, SessionId(0), (0, 0), &[]);
        let answer = self.ask(RequestBody::Submit { commands: vec![registration] });
        let ResponseBody::Submitted { results } = answer else { panic!("{answer:?}") };
        let SubmitResult::Run { first, .. } = results[0] else { panic!("{results:?}") };
        self.session = SessionId(first.0);
    }

    /// Ticks until it leads and takes requests.
    pub fn elect(&mut self) {
        for _ in 0..100 {
            self.tick();
            self.settle();
            if self.driver.admission.is_some() {
                return;
            }
        }
        panic!("{:?}", self.driver.replica().status());
    }

    pub fn tick(&mut self) {
        self.driver.handle(Input::Tick { wall_clock_milliseconds: 0 });
    }

    /// Takes the effects once and carries them out; tells whether there is more, and how many there were.
    pub fn turn(&mut self) -> (bool, usize) {
        let mut effects = Vec::new();
        let has_more = self.driver.take_effects(&mut effects).unwrap();
        let count = effects.len();
        effects.into_iter().for_each(|effect| self.carry_out(effect));
        (has_more, count)
    }

    pub fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Write(write) => self.queue.submit(write),
            Effect::Prepare(order) if self.holds_preparations => self.preparations.push(order),
            Effect::Prepare(order) => {
                let result = wal::prepare(&self.files, &order);
                self.driver.handle(Input::Prepared { number: order.header.number, result });
            }
            Effect::Remove(order) => {
                let result = wal::remove(&self.files, &order);
                self.driver.handle(Input::Removed { number: order.number, result });
            }
            Effect::Send(message) => self.sent.push(message),
            Effect::Forward { to, forward } => self.forwards.push((to, forward)),
            Effect::Forwarded { to, forwarded } => self.forwarded.push((to, forwarded)),
            Effect::Reply { client, response } => self.replies.push((client, response)),
            Effect::Tail { tail, .. } => self.tails.push(tail),
            Effect::ReadLog { read, plan, is_for_client } => {
                self.reads.push_back(Ordered { read, plan, is_for_client });
            }
            Effect::EndTail { refusal, .. } => self.ended.push(refusal),
            Effect::Missing { index, wanted_by } => self.missing.push((index, wanted_by)),
            Effect::MakeSnapshot(making) => self.makings.push(*making),
            Effect::RemoveSnapshots { in_use, reach } => {
                let result = snapshot::remove_superfluous(&self.files, CLUSTER, GroupId::CLUSTER, in_use, &reach);
                self.driver.handle(Input::SnapshotsRemoved { result });
            }
            Effect::FetchSnapshot { from, point, .. } => self.fetches.push((from, point)),
            Effect::CancelFetch => self.fetches_cancelled += 1,
            Effect::Snapshot(report) => self.reports.push(report),
            Effect::Event(_) | Effect::Unreadable(_) => {}
        }
    }

    /// Until nothing more follows from what has happened.
    pub fn settle(&mut self) {
        for _ in 0..TURNS_MAX {
            if let Some(reading) = self.clock {
                self.driver.handle(Input::Clock(reading));
            }
            let (has_more, count) = self.turn();
            let mut is_idle = !has_more && count == 0;
            if !self.holds_writes {
                is_idle &= !self.complete_writes();
            }
            if !self.holds_reads {
                is_idle &= !self.run_reads();
            }
            if is_idle {
                return;
            }
        }
        panic!("it does not come to rest: {:?}", self.driver.replica().status());
    }

    /// The same while the clock is not read.
    pub fn settle_but_clock(&mut self) {
        for _ in 0..50 {
            self.turn();
            self.complete_writes();
            self.run_reads();
        }
    }

    pub fn read_clock(&mut self, reading: Duration) {
        self.clock = Some(BootTime(reading));
        self.driver.handle(Input::Clock(BootTime(reading)));
    }

    /// Until a round of heartbeats has begun.
    pub fn elapse_heartbeat(&mut self) {
        (0..5).for_each(|_| self.tick());
        self.settle();
    }

    /// Tells whether there were any.
    pub fn complete_writes(&mut self) -> bool {
        self.disk.complete_all();
        let mut found = false;
        while let Some(completion) = self.queue.take() {
            self.driver.handle(Input::Written(completion));
            found = true;
        }
        found
    }

    /// Each read that was ordered finds nothing.
    pub fn find_nothing(&mut self) {
        while let Some(Ordered { read, .. }) = self.reads.pop_front() {
            self.driver.handle(Input::ReadDone { read, result: Ok(Vec::new()) });
        }
    }

    /// Carries out what was ordered; tells whether there was anything.
    pub fn run_reads(&mut self) -> bool {
        let mut found = false;
        while let Some(Ordered { read, plan, .. }) = self.reads.pop_front() {
            let result = plan.run_with(&self.files, &mut self.read_buffer);
            self.driver.handle(Input::ReadDone { read, result });
            found = true;
        }
        found
    }

    /// The id of the request that was made last.
    pub fn last_request(&self) -> u64 {
        self.last_request
    }

    /// Hands over a request, and gives its id.
    pub fn request(&mut self, client: ClientKey, body: RequestBody) -> u64 {
        self.last_request += 1;
        let id = self.last_request;
        self.driver.handle(Input::Client { client, request: Request { id, body } });
        id
    }

    /// The answer to a request, when all has come to rest.
    pub fn ask(&mut self, body: RequestBody) -> ResponseBody {
        let id = self.request(CLIENT, body);
        self.settle();
        let at = self.replies.iter().position(|(_, response)| response.id == id).expect("it is answered");
        self.replies.remove(at).1.body
    }

    /// Appends records of this length, each in an entry.
    pub fn append(&mut self, count: u64, bytes: usize) {
        self.submit(Service::Append, (0..count).map(|number| vec![number as u8; bytes]).collect());
    }

    pub fn put(&mut self, count: u64, value_bytes: usize) {
        let put = |number: u64| map::Command::Put {
            key: Bytes::from(format!("key-{number:08}")),
            value: Bytes::from(vec![number as u8; value_bytes]),
        };
        self.submit(Service::Machine, (0..count).map(|number| put(number).encode().unwrap().to_vec()).collect());
    }

    pub fn submit(&mut self, service: Service, bodies: Vec<Vec<u8>>) {
        for bodies in bodies.chunks(16) {
            self.lowest = self.last_number + 1;
            let commands = bodies.iter().map(|body| self.command(service, body)).collect();
            let answer = self.ask(RequestBody::Submit { commands });
            let ResponseBody::Submitted { results } = answer else { panic!("{answer:?}") };
            assert!(results.iter().all(|result| !matches!(result, SubmitResult::Refused(_))), "{results:?}");
        }
    }

    /// The next command of the session.
    pub fn command(&mut self, service: Service, body: &[u8]) -> Data {
        self.last_number += 1;
        data(service, self.session, (self.last_number, self.lowest), body)
    }

    pub fn answers_to(&self, client: ClientKey) -> Vec<&ResponseBody> {
        let own = self.replies.iter().filter(|(to, _)| *to == client);
        own.map(|(_, response)| &response.body).collect()
    }
}

/// A read of records from the log's begin on.
pub fn from_the_start(bytes_max: u32) -> RequestBody {
    RequestBody::Read { from: Index(1), to: None, bytes_max, consistency: Consistency::Stale }
}

/// What one says who votes for whoever asks, and acknowledges everything; none if nothing is asked.
pub fn agreeing(body: Body) -> Option<Body> {
    Some(match body {
        Body::PreVote { next, .. } => Body::PreVoteReply { next, granted: true },
        Body::Vote { .. } => Body::VoteReply { granted: true },
        Body::Append(append) => {
            let last = Index(append.previous.index.0 + append.entries.len() as u64);
            Body::AppendReply(AppendReply { round: append.round, outcome: AppendOutcome::Matched { last } })
        }
        Body::Heartbeat { round, .. } => Body::HeartbeatReply { round },
        _ => return None,
    })
}

/// From the life of the other that is a member.
pub fn from_other(message: Message) -> Input {
    Input::Peer { sender: other(), message }
}

fn other() -> Sender {
    Sender { incarnation: Incarnation(OTHER.0), boot: 1, configuration: LogId::ZERO }
}

pub fn scan(consistency: Consistency) -> RequestBody {
    let query = map::Query::Scan { from: Bytes::new(), to: None, limit: u32::MAX }.encode().unwrap();
    RequestBody::Query { query, consistency }
}

pub fn data(service: Service, session: SessionId, (number, lowest): (u64, u64), body: &[u8]) -> Data {
    let (number, lowest_unanswered) = (RequestNumber(number), RequestNumber(lowest));
    let command = Command { service, session, number, lowest_unanswered };
    codec::encode_command(&command, &Bytes::copy_from_slice(body))
}

pub fn formatted(voters: &[NodeId]) -> SimDisk {
    formatted_with(voters, SEGMENT_BYTES)
}

pub fn formatted_with(voters: &[NodeId], segment_bytes: u64) -> SimDisk {
    let disk = SimDisk::new();
    let state = State::new(CLUSTER, OWN, Incarnation(1), membership(voters));
    driver::format(&disk.files(), &state, segment_bytes, 3, 0).unwrap();
    disk
}

fn membership(voters: &[NodeId]) -> Membership {
    let member = |id: NodeId| Member {
        id,
        incarnation: Incarnation(id.0),
        address: std::net::SocketAddr::from(([127, 0, 0, 1], id.0 as u16)),
    };
    Membership {
        members: vec![member(OWN), member(OTHER)],
        voters: voters.iter().copied().collect(),
        ..Membership::default()
    }
}

pub fn options() -> driver::Options {
    driver::Options {
        cluster: Some(CLUSTER),
        node: OWN,
        segment_bytes: SEGMENT_BYTES,
        writes_in_flight: 1,
        verify_at_start: false,
        quiet_ticks: 5,
        heartbeat_ticks: 5,
        election_ticks: 10..20,
        limits: Limits {
            window_bytes: 1 << 20,
            window_messages: 16,
            append_bytes_max: 64 << 10,
            append_entries_max: 1024,
            uncommitted_bytes_max: CACHE_BYTES,
            cache_bytes_max: CACHE_BYTES,
            ration_bytes_min: RATION_BYTES_PER_TICK_MIN,
        },
        retention: driver::RetentionRule::default(),
        follower_tail: None,
        sessions: sessions::Limits::default(),
        leases: None,
        snapshots: SnapshotOptions { entries: 0, bytes: 0, bytes_per_second: 1 << 20, turn_ticks: 100 },
        seed: 11,
        about: driver::About {
            address: std::net::SocketAddr::from(([127, 0, 0, 1], 1)),
            pid: 0,
            io: "simulated".to_owned(),
            sync_mode: "simulated".to_owned(),
        },
    }
}
