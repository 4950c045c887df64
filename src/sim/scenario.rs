//! What a run is like: how many nodes, how bad the world, all drawn from the seed.

use std::ops::Range;

use crate::limits;
use crate::net::Consistency;
use crate::node::sessions;
use crate::raft::Limits;
use crate::random::Random;

pub(super) const MILLISECOND: u64 = 1000;
pub(super) const SECOND: u64 = 1000 * MILLISECOND;
/// Changes of members draw from generators of their own, so that all else of a seed is the same without them.
const CHANGES_SALT: u64 = 0x3e3b_e25a_17ed;
/// And so do snapshots.
const SNAPSHOTS_SALT: u64 = 0x51a9_5407_0a3b;
/// And so does what goes from the logs.
const PURGE_SALT: u64 = 0x9a6e_7000_10dd;
/// So do the limits of sessions.
const SESSIONS_SALT: u64 = 0x5e55_1045_0dd5;

/// A run. All times are in microseconds of the simulated clock.
#[derive(Clone, Debug)]
pub struct Options {
    /// 1, 3 or 5.
    pub nodes: usize,
    /// How long things go wrong, before the calm in which the cluster must converge.
    pub fault_time: u64,
    /// How long the calm may take.
    pub calm_time_max: u64,
    /// Between two faults, on average.
    pub fault_interval: u64,
    pub faults: Faults,
    pub network: NetworkOptions,
    pub disk: DiskOptions,
    pub clients: ClientOptions,
    /// Whether somebody tails the log.
    pub tails: bool,
    /// How an operator changes the members; none does where it is `None`.
    pub changes: Option<ChangeOptions>,
    pub snapshots: SnapshotTimes,
    /// What goes from the logs; nothing ever does where it is `None`.
    pub purge: Option<PurgeOptions>,
    /// Reads by lease are on, and clients read so; nodes' clocks differ, within the bound.
    pub leases: bool,
    /// Who starts has new links to the others, over which a leader asks again for what it was acknowledged. Without it there
    /// are such links until the cluster is born.
    pub links: bool,
    pub election_ticks: Range<u32>,
    pub heartbeat_ticks: u32,
    pub writes_in_flight: usize,
    pub quiet_ticks: u32,
    /// Inputs that arrive within this time may be handled in one go.
    pub batch_time_max: u64,
    pub limits: Limits,
    /// What nodes keep of clients' sessions.
    pub sessions: sessions::Limits,
    /// Orders what happens at the same moment; 0 is the order in which it was begun.
    pub order_salt: u64,
}

/// How often each kind of fault is chosen, relative to the others.
#[derive(Clone, Copy, Debug)]
pub struct Faults {
    /// The power of one node goes at once.
    pub crash: u64,
    /// The power of one node goes in the midst of one of its next disk operations.
    pub cut: u64,
    /// A process ends; its machine goes on.
    pub kill: u64,
    /// The power of a majority goes at the same moment.
    pub blackout: u64,
    /// The next leaders lose their power just after they were elected.
    pub ambush: u64,
    pub pause: u64,
    /// A direction between two nodes is silent.
    pub partition: u64,
    /// All of a node's directions are.
    pub isolation: u64,
    pub slow_disk: u64,
    /// A write fails.
    pub write_error: u64,
    /// A process ends, and the end of its log turns to zeros, although there is proof that it had been written. Only
    /// while a majority stays whole.
    pub rot: u64,
    /// The disk of one node has no room for files to grow, for a while.
    pub full_disk: u64,
    /// The disks of a majority have none.
    pub full_disks: u64,
    /// Leaders are asked to hand over.
    pub transfer: u64,
    /// A process ends, and something of one of its snapshots is not what was written any more.
    pub snapshot_rot: u64,
    /// A process ends and does not come back for seconds, while all others run: their logs go on without it.
    pub absence: u64,
}

#[derive(Clone, Copy, Debug)]
pub struct NetworkOptions {
    pub loss_per_mille: u64,
    pub duplication_per_mille: u64,
    pub delay_max: u64,
}

#[derive(Clone, Copy, Debug)]
pub struct DiskOptions {
    /// A write with its flush takes up to this.
    pub write_time_max: u64,
    /// While a disk is slow.
    pub slow_time_max: u64,
    /// The disk of this node is, until the calm.
    pub slow_node: Option<usize>,
    /// All nodes stand on one disk, which stands still now and then, until the calm.
    pub stall: Option<Stall>,
    /// A preparation and a read of the log wait up to this.
    pub background_time_max: u64,
}

/// From time to time no write ends, on any node.
#[derive(Clone, Copy, Debug)]
pub struct Stall {
    /// From the beginning of one to that of the next.
    pub interval: u64,
    pub time: u64,
}

impl Stall {
    /// How much longer a write takes that would end at this time.
    pub fn adds(self, end: u64) -> u64 {
        self.time.saturating_sub(end % self.interval)
    }
}

#[derive(Clone, Copy, Debug)]
pub struct ChangeOptions {
    /// Machines beside those of the first members.
    pub spare_nodes: usize,
    /// Between the end of what was ordered and the next order, on average.
    pub interval: u64,
    /// After this an order without an answer is given again, perhaps elsewhere.
    pub timeout: u64,
}

#[derive(Clone, Copy, Debug)]
pub struct SnapshotTimes {
    /// After so many entries a leader has one made; 0: none is made.
    pub entries: u64,
    /// Between two steps of making one.
    pub step_time_max: u64,
    /// Between the turns of two nodes.
    pub turn_ticks: u32,
}

#[derive(Clone, Copy, Debug)]
pub struct PurgeOptions {
    /// What of the log is kept for followers that lag.
    pub tail_bytes: u64,
    /// What of the records is kept by the rule of retention; 0: all of them.
    pub retention_bytes: u64,
    /// Between two trims by an administrator, on average; 0: none.
    pub trim_interval: u64,
    /// In place of what the run else has: so much is written, and so often a snapshot is made, that something goes.
    pub record_bytes_max: u64,
    pub value_bytes_max: u64,
    pub snapshot_entries: u64,
    pub snapshot_rot: u64,
    pub absence: u64,
}

#[derive(Clone, Copy, Debug)]
pub struct ClientOptions {
    pub clients: usize,
    /// Commands that each may have without an answer.
    pub window: u64,
    pub record_bytes_max: u64,
    /// Of what is written to the map, beyond a few that tell it from all else.
    pub value_bytes_max: u64,
    /// Between two looks of a client at what it has to do.
    pub step_time: u64,
    /// After this a client asks again, perhaps elsewhere.
    pub timeout: u64,
    /// How reads are asked that must show all that was done: linearizable, or by lease.
    pub newest: Consistency,
    /// Commands that each begins in the calm, besides what waits.
    pub calm_commands: u64,
    /// Of a thousand requests so many may be passed on by whoever gets them.
    pub forward_per_mille: u64,
}

impl Options {
    /// What a seed means.
    pub fn drawn(seed: u64) -> Options {
        let random = &mut Random::seeded(seed ^ 0x5ce_0a10);
        let nodes = *random.pick(&[1, 3, 3, 3, 5]);
        Options::drawn_for(nodes, seed)
    }

    /// What a seed means for so many nodes.
    pub fn drawn_for(nodes: usize, seed: u64) -> Options {
        let random = &mut Random::seeded(seed ^ 0x0b71_0025);
        let election_start = random.between(6, 31) as u32;
        let fault_time = random.between(4 * SECOND, 8 * SECOND);
        Options {
            nodes,
            fault_time: fault_time + fault_time / 2,
            calm_time_max: 60 * SECOND,
            fault_interval: random.between(50 * MILLISECOND, 800 * MILLISECOND),
            faults: if nodes == 1 { Faults::of_one(random) } else { Faults::drawn(random) }.with_others(seed),
            network: NetworkOptions::drawn(random),
            disk: DiskOptions::drawn(random),
            clients: ClientOptions::drawn(random).with_forwarding(seed),
            tails: true,
            changes: ChangeOptions::drawn(seed),
            snapshots: SnapshotTimes::drawn(seed),
            purge: None,
            leases: false,
            links: false,
            election_ticks: election_start..2 * election_start,
            heartbeat_ticks: (election_start / 5).max(1),
            writes_in_flight: *random.pick(&[1, 1, 2, 4, 8]),
            quiet_ticks: random.between(1, 20) as u32,
            batch_time_max: *random.pick(&[1, 200, 2000]),
            limits: drawn_limits(random),
            sessions: sessions::Limits::default(),
            order_salt: 0,
        }
        .with_sessions_drawn(seed)
        .with_purge_drawn(seed)
    }

    /// In one seed of four, with a generator of its own.
    fn with_purge_drawn(self, seed: u64) -> Options {
        match Random::seeded(seed ^ PURGE_SALT).chance(250) {
            true => self.with_purge(seed),
            false => self,
        }
    }

    /// In one seed of five, with a generator of its own.
    fn with_sessions_drawn(self, seed: u64) -> Options {
        match Random::seeded(seed ^ SESSIONS_SALT).chance(200) {
            true => self.with_few_sessions(seed),
            false => self,
        }
    }

    /// The same without what was added to the simulator later: runs that showed a bug then are to stay what they were.
    #[cfg(test)]
    pub(super) fn without_additions(mut self) -> Options {
        (self.faults.full_disk, self.faults.full_disks, self.faults.transfer) = (0, 0, 0);
        self.tails = false;
        self.clients.forward_per_mille = 0;
        self.changes = None;
        self.snapshots.entries = 0;
        self.purge = None;
        self.faults.snapshot_rot = 0;
        self.sessions = sessions::Limits::default();
        // Two thirds, to the microsecond.
        self.fault_time = self.fault_time / 3 * 2 + self.fault_time % 3;
        self
    }

    /// One node that loses its power over and over, so often on average.
    pub fn one_node_crashes(seed: u64, fault_time: u64, fault_interval: u64) -> Options {
        let mut options = Options::drawn_for(1, seed);
        (options.fault_time, options.fault_interval) = (fault_time, fault_interval);
        options.election_ticks = 3..6;
        options.heartbeat_ticks = 1;
        options.changes = None;
        options.with_all_sessions()
    }

    /// The same run with an operator who changes the members, whether the seed has one or not.
    pub fn with_changes(self, seed: u64) -> Options {
        Options { changes: Some(ChangeOptions::of(seed)), ..self }
    }

    /// The same run with more clients than the nodes keep sessions, and little room for their answers.
    pub fn with_few_sessions(mut self, seed: u64) -> Options {
        let random = &mut Random::seeded(seed ^ SESSIONS_SALT.rotate_left(1));
        let sessions_max = random.between(1, 4) as usize;
        self.sessions = sessions::Limits {
            sessions_max,
            answers_max: *random.pick(&[1, 3, 8, 64]),
            answer_bytes_max: *random.pick(&[3, 12, 1000]),
        };
        self.clients.clients = sessions_max + random.between(1, 4) as usize;
        self
    }

    /// The same run with room for all sessions.
    pub fn with_all_sessions(self) -> Options {
        Options { sessions: sessions::Limits::default(), ..self }
    }

    /// The same run with logs that end where nobody needs them any more, and so much written that something goes: nodes that
    /// were down for long come back through other nodes' snapshots.
    pub fn with_purge(mut self, seed: u64) -> Options {
        let random = &mut Random::seeded(seed ^ PURGE_SALT.rotate_left(1));
        self.purge = Some(PurgeOptions {
            tail_bytes: *random.pick(&[0, 0, 64 << 10, 200 << 10]),
            retention_bytes: *random.pick(&[0, 1, 100 << 10]),
            trim_interval: *random.pick(&[200, 200, 1000]) * MILLISECOND,
            record_bytes_max: *random.pick(&[1000, 8000, 8000, 15_000]),
            value_bytes_max: *random.pick(&[0, 1000, 4000, 10_000]),
            snapshot_entries: *random.pick(&[5, 10, 20, 40]),
            snapshot_rot: *random.pick(&[0, 0, 2, 6]),
            absence: *random.pick(&[2, 4, 8]),
        });
        self
    }

    /// As it is run.
    pub(super) fn in_force(&self) -> Options {
        let mut options = self.clone();
        if let Some(purge) = self.purge {
            options.snapshots.entries = purge.snapshot_entries;
            (options.faults.snapshot_rot, options.faults.absence) = (purge.snapshot_rot, purge.absence);
            options.clients.value_bytes_max = purge.value_bytes_max;
            options.clients.record_bytes_max = purge.record_bytes_max;
        }
        options
    }

    /// The same run with reads by lease, on clocks that differ.
    pub fn with_leases(mut self) -> Options {
        self.leases = true;
        self.clients.newest = Consistency::Lease;
        self
    }

    /// The same run with new links after each start, as nodes have them.
    pub fn with_links(self) -> Options {
        Options { links: true, ..self }
    }
}

impl Faults {
    /// Each seed stresses some kinds and leaves others out.
    fn drawn(random: &mut Random) -> Faults {
        // Most attempts find nothing that is both proven and at the log's end.
        let rot = *random.pick(&[0, 2, 8]);
        let mut weight = || *random.pick(&[0, 1, 1, 4]);
        Faults {
            crash: weight() + 1,
            cut: weight(),
            kill: weight(),
            blackout: weight(),
            ambush: weight(),
            pause: weight(),
            partition: weight(),
            isolation: weight(),
            slow_disk: weight(),
            write_error: weight(),
            rot,
            full_disk: 0,
            full_disks: 0,
            transfer: 0,
            snapshot_rot: 0,
            absence: 0,
        }
    }

    /// With the kinds that have a generator of their own, so that all else of a seed is the same without them.
    fn with_others(self, seed: u64) -> Faults {
        let random = &mut Random::seeded(seed ^ 0xf011_d15c);
        let mut weight = |weights: &[u64]| *random.pick(weights);
        let (full_disk, full_disks) = (weight(&[0, 1, 1, 2]), weight(&[0, 0, 1, 1]));
        let transfer = weight(&[0, 2, 4, 8]);
        let snapshot_rot = if SnapshotTimes::drawn(seed).entries > 0 { weight(&[0, 0, 2, 6]) } else { 0 };
        Faults { full_disk, full_disks, transfer, snapshot_rot, ..self }
    }

    fn of_one(random: &mut Random) -> Faults {
        let all = Faults::drawn(random);
        Faults { crash: 6, cut: 6, ambush: 0, partition: 0, isolation: 0, blackout: 0, rot: 0, pause: 0, ..all }
    }
}

impl NetworkOptions {
    fn drawn(random: &mut Random) -> NetworkOptions {
        NetworkOptions {
            loss_per_mille: *random.pick(&[0, 0, 10, 50, 150, 300]),
            duplication_per_mille: *random.pick(&[0, 0, 50, 500]),
            delay_max: *random.pick(&[MILLISECOND, 5 * MILLISECOND, 20 * MILLISECOND, 100 * MILLISECOND]),
        }
    }

    /// The world at its best.
    pub(super) fn calm() -> NetworkOptions {
        NetworkOptions { loss_per_mille: 0, duplication_per_mille: 0, delay_max: 2 * MILLISECOND }
    }
}

impl DiskOptions {
    fn drawn(random: &mut Random) -> DiskOptions {
        let write_time_max = *random.pick(&[100, MILLISECOND, 10 * MILLISECOND, 40 * MILLISECOND]);
        DiskOptions {
            write_time_max,
            slow_time_max: 500 * MILLISECOND,
            slow_node: None,
            stall: None,
            background_time_max: *random.pick(&[MILLISECOND, 50 * MILLISECOND]),
        }
    }

    pub(super) fn calm() -> DiskOptions {
        DiskOptions {
            write_time_max: MILLISECOND,
            slow_time_max: MILLISECOND,
            slow_node: None,
            stall: None,
            background_time_max: MILLISECOND,
        }
    }
}

impl ChangeOptions {
    /// Of one seed in four, with a generator of its own.
    fn drawn(seed: u64) -> Option<ChangeOptions> {
        Random::seeded(seed ^ CHANGES_SALT).chance(250).then(|| ChangeOptions::of(seed))
    }

    fn of(seed: u64) -> ChangeOptions {
        let random = &mut Random::seeded(seed ^ CHANGES_SALT.rotate_left(1));
        ChangeOptions {
            spare_nodes: random.between(2, 4) as usize,
            interval: *random.pick(&[20, 200, 200, 1000]) * MILLISECOND,
            timeout: random.between(200 * MILLISECOND, 1000 * MILLISECOND),
        }
    }
}

impl SnapshotTimes {
    /// In two seeds of three, with a generator of its own. A run has some hundred entries.
    fn drawn(seed: u64) -> SnapshotTimes {
        let random = &mut Random::seeded(seed ^ SNAPSHOTS_SALT);
        SnapshotTimes {
            entries: *random.pick(&[0, 0, 5, 20, 60, 200]),
            step_time_max: *random.pick(&[1, MILLISECOND, 20 * MILLISECOND]),
            turn_ticks: random.below(30) as u32,
        }
    }
}

impl ClientOptions {
    fn drawn(random: &mut Random) -> ClientOptions {
        ClientOptions {
            clients: random.between(1, 5) as usize,
            window: *random.pick(&[1, 4, 16, 64]),
            record_bytes_max: *random.pick(&[40, 200, 1000, 8000]),
            value_bytes_max: 0,
            step_time: random.between(5 * MILLISECOND, 40 * MILLISECOND),
            timeout: random.between(150 * MILLISECOND, 800 * MILLISECOND),
            newest: Consistency::Linearizable,
            calm_commands: 4,
            forward_per_mille: 0,
        }
    }
}

impl ClientOptions {
    /// With what has a generator of its own, so that all else of a seed is the same without it: in every third seed all
    /// requests, or some, or half of them may be passed on, so that copies of a command come by several ways.
    fn with_forwarding(self, seed: u64) -> ClientOptions {
        let random = &mut Random::seeded(seed ^ 0xf0a3_a2d5);
        ClientOptions { forward_per_mille: *random.pick(&[0, 0, 0, 0, 1000, 500, 100]), ..self }
    }
}

/// Small bounds make the rare paths common: reads from the log, full windows, one entry per message.
fn drawn_limits(random: &mut Random) -> Limits {
    let (uncommitted_bytes_max, cache_bytes_max) = *random.pick(&[
        (20_000, 20_000),
        (40_000, 60_000),
        (limits::UNCOMMITTED_BYTES_DEFAULT, limits::TAIL_CACHE_BYTES_MAX),
    ]);
    Limits {
        window_bytes: limits::FOLLOWER_WINDOW_BYTES,
        window_messages: *random.pick(&[1, 2, 16, limits::FOLLOWER_WINDOW_MESSAGES]),
        append_bytes_max: *random.pick(&[1000, 20_000, limits::APPEND_BYTES_MAX]),
        append_entries_max: *random.pick(&[1, 1, 4, limits::APPEND_ENTRIES_MAX]),
        uncommitted_bytes_max,
        cache_bytes_max,
        ration_bytes_min: limits::RATION_BYTES_PER_TICK_MIN,
    }
}
