//! One node: the driver on its simulated disk, and what a machine under it can do.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use super::disk::{SimDisk, SimFiles, SimQueue};
use super::steps::Doing;
use super::trace::{Label, Trace};
use super::transfer::Fetch;
use crate::disk::Queue;
use crate::limits::TICK;
use crate::machine::Map;
use crate::node::driver::{self, Driver, FollowerTail, SnapshotOptions, StartError, Started};
use crate::node::transfer::Shelf;
use crate::raft::{BootTime, LeaseOptions};
use crate::superblock;
use crate::types::{ClusterId, Incarnation, Index, Life, Member, Membership, NodeId};
use crate::wal::{self, ReadBuffer};

/// The segments of all runs: small, so that there are many.
pub(super) const SEGMENT_BYTES: u64 = 64 << 10;
/// What a disk holds that is not full.
pub(super) const SPACE_BYTES: u64 = 1 << 40;
/// With reads by lease: by how much clocks may differ.
const DRIFT_PERCENT: u32 = 10;
pub(super) const CLUSTER: ClusterId = ClusterId(0x7213_1174);

#[derive(Debug)]
pub(super) struct Node {
    pub disk: SimDisk,
    /// Grows when the process ends: what was on its way to an older one goes nowhere.
    pub life: u64,
    pub process: Option<Process>,
    pub paused_until: u64,
    pub slow_until: u64,
    /// Until then the disk has no room for files to grow.
    pub full_until: u64,
    /// The driver is to be run: it is not ordered twice.
    pub run_is_due: bool,
    /// A write was failed on purpose: the process may end by itself.
    pub has_failing_disk: bool,
    /// The end of its log was damaged on purpose.
    pub is_rotten: bool,
    /// Something of its snapshots was damaged on purpose.
    pub has_rotten_snapshot: bool,
    /// It does not start any more, and rightly.
    pub is_out: bool,
    /// Which life of its id its directory is of.
    pub identity: Life,
    /// Nothing is started here: the machine is nobody's yet, or its node was removed and knows it.
    pub is_gone: bool,
    /// For so long it has known its removal to be committed, with a log that ended here.
    pub removed: (u32, Index),
}

#[derive(Debug)]
pub(super) struct Process {
    pub driver: Driver<Map>,
    /// Which start of the node it is.
    pub boot: u64,
    pub files: SimFiles,
    pub queue: SimQueue,
    /// What all its reads of the log read into.
    pub read_buffer: ReadBuffer,
    /// What other nodes read of its snapshots.
    pub shelf: Shelf<SimFiles>,
    /// The snapshot that it fetches.
    pub fetch: Option<Fetch>,
    pub last_fetch: u64,
    /// Another node's state is taking the place of its own.
    pub installs: bool,
}

impl Process {
    pub fn new(driver: Driver<Map>, boot: u64, files: SimFiles, queue: SimQueue, read_buffer: ReadBuffer) -> Process {
        let shelf = Shelf::new(files.clone(), CLUSTER);
        Process { driver, boot, files, queue, read_buffer, shelf, fetch: None, last_fetch: 0, installs: false }
    }

    /// What it writes for.
    pub fn doing(&self) -> Doing {
        match (self.installs, self.driver.is_purging()) {
            (true, _) => Doing::Installing,
            (false, true) => Doing::Purging,
            (false, false) => Doing::Other,
        }
    }
}

pub(super) fn node_id(at: usize) -> NodeId {
    NodeId(at as u64 + 1)
}

pub(super) fn node_at(id: NodeId) -> usize {
    id.0 as usize - 1
}

/// Of a cluster that was born before the run begins, or that must be born in it.
pub(super) fn membership(nodes: usize, forming: bool) -> Membership {
    let ids = || (0..nodes).map(node_id);
    let member = |id: NodeId| Member {
        id,
        incarnation: if forming { Incarnation::OPEN } else { incarnation(id) },
        address: std::net::SocketAddr::from(([127, 0, 0, 1], id.0 as u16)),
    };
    Membership { members: ids().map(member).collect(), voters: ids().collect(), forming, ..Membership::default() }
}

pub(super) fn incarnation(id: NodeId) -> Incarnation {
    Incarnation(id.0)
}

impl Node {
    /// A machine with a formatted directory.
    pub fn new(at: usize, membership: Membership, seed: u64, trace: &Rc<RefCell<Trace>>) -> Result<Node, StartError> {
        let mut node = Node::of_nobody(at);
        node.make(at, incarnation(node_id(at)), membership, seed, trace)?;
        Ok(node)
    }

    /// A machine on which no node runs yet.
    pub fn of_nobody(at: usize) -> Node {
        Node {
            disk: SimDisk::new(),
            life: 0,
            process: None,
            paused_until: 0,
            slow_until: 0,
            full_until: 0,
            run_is_due: false,
            has_failing_disk: false,
            is_rotten: false,
            has_rotten_snapshot: false,
            is_out: false,
            identity: Life { incarnation: incarnation(node_id(at)), is_first_member: false },
            is_gone: true,
            removed: (0, Index::ZERO),
        }
    }

    /// Makes this a node's machine, with an empty disk and a formatted directory: of a first member, or, with a membership
    /// that names nobody, of one that joins.
    pub fn make(
        &mut self,
        at: usize,
        incarnation: Incarnation,
        membership: Membership,
        seed: u64,
        trace: &Rc<RefCell<Trace>>,
    ) -> Result<(), StartError> {
        let life = self.life;
        *self = Node::of_nobody(at);
        observe(&self.disk, at, trace);
        let state = superblock::State::new(CLUSTER, node_id(at), incarnation, membership);
        driver::format(&self.disk.files(), &state, SEGMENT_BYTES, seed, 0)?;
        self.identity = Life { incarnation, is_first_member: state.is_first_member() };
        (self.life, self.is_gone) = (life + 1, false);
        Ok(())
    }

    /// The process is gone.
    pub fn end(&mut self) {
        self.process = None;
        self.life += 1;
        self.run_is_due = false;
        self.paused_until = 0;
        self.has_failing_disk = false;
        self.removed.0 = 0;
    }

    /// The next write that the disk says is done.
    pub fn complete(&mut self, token: crate::disk::Token) -> Option<crate::disk::Completion> {
        if let Some(at) = self.disk.pending().iter().position(|write| write.token == token) {
            self.disk.complete(at);
        }
        self.process.as_mut()?.queue.take()
    }
}

/// Starts a driver on a disk.
pub(super) fn start(
    disk: &SimDisk,
    options: &driver::Options,
    wall_clock_milliseconds: u64,
) -> Result<Started<Map>, StartError> {
    Driver::start(&disk.files(), options.clone(), Map::new(), wall_clock_milliseconds)
}

/// What a node's boot-time clock shows: each runs at a rate of its own.
pub(super) fn boot_time(at: usize, now: u64) -> BootTime {
    let per_mille = 1000 + 10 * u64::from(DRIFT_PERCENT) * (at as u64 % 3) / 2;
    BootTime(Duration::from_micros(now * per_mille / 1000))
}

pub(super) fn driver_options(options: &super::Options, at: usize, seed: u64) -> driver::Options {
    driver::Options {
        cluster: Some(CLUSTER),
        node: node_id(at),
        segment_bytes: SEGMENT_BYTES,
        retention: driver::RetentionRule {
            is_for_map_alone: false,
            bytes: options.purge.map(|purge| purge.retention_bytes).filter(|bytes| *bytes > 0),
            ..driver::RetentionRule::default()
        },
        // By bytes alone: wall clocks jump.
        follower_tail: options.purge.map(|purge| FollowerTail { bytes: purge.tail_bytes, milliseconds: u64::MAX }),
        leases: options.leases.then(|| LeaseOptions {
            promise: TICK * options.election_ticks.start,
            rest: TICK * options.election_ticks.end,
            drift_percent: DRIFT_PERCENT,
        }),
        writes_in_flight: options.writes_in_flight,
        verify_at_start: at % 2 == 1,
        quiet_ticks: options.quiet_ticks,
        heartbeat_ticks: options.heartbeat_ticks,
        election_ticks: options.election_ticks.clone(),
        limits: options.limits,
        snapshots: SnapshotOptions {
            entries: options.snapshots.entries,
            bytes: 0,
            bytes_per_second: 1 << 20,
            turn_ticks: options.snapshots.turn_ticks,
        },
        sessions: options.sessions,
        seed: seed ^ (at as u64 + 1).rotate_left(48),
        about: driver::About {
            address: std::net::SocketAddr::from(([127, 0, 0, 1], node_id(at).0 as u16)),
            pid: 0,
            io: "simulated".to_owned(),
            sync_mode: "simulated".to_owned(),
        },
    }
}

/// Whether a start was refused because there is no room to go on in.
pub(super) fn is_no_space(error: &StartError) -> bool {
    matches!(error, StartError::Log(wal::Error::Disk(error)) if error.is_no_space())
}

fn observe(disk: &SimDisk, at: usize, trace: &Rc<RefCell<Trace>>) {
    let trace = Rc::clone(trace);
    disk.observe(move |event| {
        let numbers = [at as u64, event.act as u64, event.offset, event.length, u64::from(event.checksum.0)];
        trace.borrow_mut().note(Label::Disk, &numbers, event.name.as_bytes());
    });
}
