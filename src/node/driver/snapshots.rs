//! This node's snapshots: when one is due, when it is this node's turn to write it, and what becomes of it (design §8).
//!
//! ```text
//!   entries applied ──▶ due, or ordered ──▶ the leader proposes a point ──▶ applied: the state as it is now, held
//!     held ──(own log durable, own turn)──▶ MakeSnapshot ──SnapshotMade──▶ superblock ──durable──▶ told
//!     told ──▶ RemoveSnapshots ──SnapshotsRemoved──▶ ready for the next point
//! ```
//!
//! # Invariants
//!
//! - There is one at a time, from its point to the removal of what it makes superfluous. A point that is applied meanwhile
//!   is passed over on this node.
//! - A point that was in the log when the node started is passed over, too: most are old, and each would hold a state
//!   while newer entries are applied.
//! - What the superblock names is durable.

use std::fmt;

use super::checkpoint::Checkpoint;
use super::loading::{Beginning, SnapshotFinding};
use super::{Driver, Effect};
use crate::limits::{ENTRY_OVERHEAD_BYTES, SNAPSHOTS_KEPT, TICK};
use crate::machine::StateMachine;
use crate::mutant::{self, Mutant};
use crate::net::{
    ClientKey, Refusal, ResponseBody, SnapshotFetching, SnapshotMade, SnapshotMaking, SnapshotSending, SnapshotStatus,
};
use crate::raft::{Input as RaftInput, Role};
use crate::snapshot::{self, Description};
use crate::superblock::SaveNumber;
use crate::types::{Entry, GroupId, Index, LogId, Payload};

/// A node waits no longer than this for the one before it, however much that has to write.
const TURN_TICKS_MAX: u64 = 6000;
/// Clients that may wait for one snapshot.
const ORDERS_MAX: usize = 64;

/// When snapshots are made, and how fast they are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SnapshotOptions {
    /// A leader has one made when so many entries were applied since the last point; 0: their number does not matter.
    pub entries: u64,
    /// The same for their bytes, [`ENTRY_OVERHEAD_BYTES`] for each among them.
    pub bytes: u64,
    /// What a node writes of one in a second. How long the next node waits for its turn follows from it.
    pub bytes_per_second: u64,
    /// Between the turns of two nodes, at least.
    pub turn_ticks: u32,
}

/// A snapshot to be made, off the thread of the driver, and dropped there.
#[derive(Debug)]
pub struct Making {
    pub description: Description,
    pub checkpoint: Checkpoint,
}

/// What it was to make one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Made {
    /// Of the state.
    pub bytes: u64,
    pub milliseconds: u64,
    /// How long the driver's thread worked to take the state, or to hand it over: the longer of both.
    pub core_microseconds: u64,
}

/// What those who make, fetch and send snapshots have done so far.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct SnapshotProgress {
    /// Of the one that is being made, and since when it is.
    pub written_bytes: u64,
    pub making_milliseconds: u64,
    pub fetching: Option<SnapshotFetching>,
    pub sending: Vec<SnapshotSending>,
}

/// What is told to the operator.
#[derive(Debug)]
pub enum SnapshotReport {
    Made(SnapshotMade),
    /// Another node's is this node's state now.
    Installed(SnapshotMade),
    /// One is needed, and could not be had: it is offered again.
    NotFetched {
        point: LogId,
        what: String,
    },
    /// One is needed, and the state machine takes none.
    NotTaken {
        point: LogId,
    },
    Failed {
        point: LogId,
        error: snapshot::Error,
    },
    /// One that the start found rotten is whole again.
    Mended {
        point: LogId,
    },
    /// Those that are not needed any more could not be removed.
    NotRemoved {
        error: snapshot::Error,
    },
    /// They hold what the log was to be kept for, the map, and records up to this one may still be read.
    RecordsInTheWay {
        last: Index,
    },
    /// One is due, and the state machine gives none: the log is the only way to its state.
    NoneGiven,
}

/// Stands beside the driver while it takes a state. What it measures it keeps: the driver knows no clock.
pub trait Stopwatch: fmt::Debug + Send {
    fn start(&mut self);
    fn stop(&mut self);
}

/// What a driver knows of its snapshots.
#[derive(Debug)]
pub(super) struct Snapshots {
    options: SnapshotOptions,
    /// Whether the state machine gives any.
    are_given: bool,
    phase: Phase,
    /// The last point that was applied, and the bytes of entries since.
    last_point: Index,
    bytes_since: u64,
    /// Proposed here, and not applied yet.
    proposed: Option<Index>,
    /// Points up to here are passed over: they were in the log when the node started.
    replayed_until: Index,
    /// Clients that wait, at most [`ORDERS_MAX`].
    orders: Vec<Order>,
    pub(super) last: Option<SnapshotMade>,
    /// The points of the newest that this node could begin from, at most [`SNAPSHOTS_KEPT`], the newest last. Durable, and
    /// named by the superblock or begun from.
    kept: Vec<LogId>,
    /// As it was last told: it decides nothing.
    pub(super) progress: SnapshotProgress,
    /// Why the last attempt to make one, or to remove others, failed.
    failure: String,
    /// What the start found to be wrong, each with the point of the snapshot if it can be mended.
    findings: Vec<(Option<LogId>, String)>,
    /// Points of those that are there and cannot be used.
    damaged: Vec<LogId>,
    is_told_none: bool,
    stopwatch: Option<Box<dyn Stopwatch>>,
}

/// A client that waits for the snapshot at a point.
#[derive(Clone, Copy, Debug)]
struct Order {
    client: ClientKey,
    id: u64,
    point: Index,
}

#[derive(Debug)]
enum Phase {
    Idle,
    /// The state as it was at the point, until the point is durable here and the node's turn has come.
    Held {
        making: Box<Making>,
        wait_ticks: u64,
    },
    Making {
        point: LogId,
    },
    /// It is durable, and the superblock is about to name it.
    Saving {
        made: SnapshotMade,
        save: SaveNumber,
    },
    Removing,
}

impl Snapshots {
    /// Of a node that begins so, with a log up to `last`.
    pub fn new<M: StateMachine>(options: SnapshotOptions, beginning: &Beginning<M>, last: Index) -> Snapshots {
        assert!(options.bytes_per_second > 0, "a snapshot would never end");
        let made = |(point, bytes)| SnapshotMade { point, bytes, milliseconds: 0, core_microseconds: 0 };
        let from = beginning.from.as_ref().map(|from| from.point);
        let last_point = beginning.snapshot.map(|(point, _)| point).or(from);
        Snapshots {
            options,
            are_given: beginning.machine.restoring().is_some(),
            phase: Phase::Idle,
            last_point: last_point.map_or(Index::ZERO, |point| point.index),
            bytes_since: 0,
            proposed: None,
            replayed_until: last,
            orders: Vec::new(),
            last: beginning.snapshot.map(made),
            kept: beginning.older.into_iter().chain(beginning.snapshot.map(|(point, _)| point)).collect(),
            progress: SnapshotProgress::default(),
            failure: String::new(),
            findings: Vec::new(),
            damaged: beginning.damaged.clone(),
            is_told_none: false,
            stopwatch: None,
        }
    }

    /// What the start found to be wrong with some.
    pub fn note(&mut self, findings: &[SnapshotFinding]) {
        let point = |finding: &SnapshotFinding| finding.rotten.as_ref().map(|manifest| manifest.description.point);
        self.findings = findings.iter().map(|finding| (point(finding), finding.to_string())).collect();
    }

    /// An entry is applied.
    pub fn count(&mut self, entry: &Entry) {
        self.bytes_since += (entry.payload.data_bytes() + ENTRY_OVERHEAD_BYTES) as u64;
    }

    pub fn tick(&mut self) {
        if let Phase::Held { wait_ticks, .. } = &mut self.phase {
            *wait_ticks = wait_ticks.saturating_sub(1);
        }
    }

    /// Nobody waits for this client's answers any more.
    pub fn forget(&mut self, client: ClientKey) {
        self.orders.retain(|order| order.client != client);
    }

    pub fn status(&self) -> SnapshotStatus {
        let SnapshotProgress { written_bytes: bytes, making_milliseconds: milliseconds, fetching, sending } =
            self.progress.clone();
        let making = match self.phase {
            Phase::Making { point } => Some(SnapshotMaking { point, bytes, milliseconds }),
            Phase::Idle | Phase::Held { .. } | Phase::Saving { .. } | Phase::Removing => None,
        };
        let failures = self.findings.iter().map(|(_, what)| what).chain([&self.failure]);
        let failures: Vec<&str> = failures.map(String::as_str).filter(|what| !what.is_empty()).collect();
        SnapshotStatus { last: self.last, making, fetching, sending, failure: failures.join("; ") }
    }

    /// What was in the log when the node started is not, from here on.
    pub fn on_replaced(&mut self, from: Index) {
        self.replayed_until = self.replayed_until.min(from.previous());
    }

    /// The oldest of those that are kept, if they are all there: what they hold may go from the log.
    pub fn oldest_kept(&self) -> Option<LogId> {
        let is_newest = mutant::is_on(Mutant::PurgedToNewestSnapshot);
        let oldest = if is_newest { self.kept.last() } else { self.kept.first() };
        oldest.copied().filter(|_| is_newest || self.kept.len() == SNAPSHOTS_KEPT)
    }

    /// Another one is whole, and counts. What lies before the entry before the log's first one can be begun from no more.
    fn keep(&mut self, point: LogId, before_first: Index) {
        self.damaged.retain(|damaged| *damaged != point);
        self.kept.retain(|kept| kept.index >= before_first);
        self.kept.push(point);
        self.kept.sort_by_key(|point| point.index);
        self.kept.dedup();
        self.kept.drain(..self.kept.len().saturating_sub(SNAPSHOTS_KEPT));
    }

    fn is_due(&self, applied: Index) -> bool {
        let SnapshotOptions { entries, bytes, .. } = self.options;
        let entries_since = applied.0 - self.last_point.0;
        (entries > 0 && entries_since >= entries) || (bytes > 0 && self.bytes_since >= bytes)
    }

    fn is_free(&self) -> bool {
        matches!(self.phase, Phase::Idle) && self.proposed.is_none()
    }

    /// From one node's turn to the next one's: what the last snapshot would take now.
    pub fn turn_ticks(&self) -> u64 {
        let ticks_per_second = 1000 / TICK.as_millis() as u64;
        let last_bytes = self.last.map_or(0, |last| last.bytes);
        // It is written, and then read back: both within the rate.
        let moved_bytes = last_bytes.saturating_mul(2);
        let making_ticks = moved_bytes.saturating_mul(ticks_per_second) / self.options.bytes_per_second;
        making_ticks.clamp(u64::from(self.options.turn_ticks), TURN_TICKS_MAX.max(u64::from(self.options.turn_ticks)))
    }
}

impl<M: StateMachine> Driver<M> {
    /// An administrator orders one.
    pub(super) fn on_snapshot_order(&mut self, client: ClientKey, id: u64) {
        match self.order_snapshot() {
            Ok(point) => {
                self.snapshots.proposed = Some(point);
                self.snapshots.orders.push(Order { client, id, point });
            }
            Err(refusal) => self.reply(client, id, ResponseBody::Refused(refusal)),
        }
    }

    fn order_snapshot(&mut self) -> Result<Index, Refusal> {
        if let Some(refusal) = self.refusal_while_born() {
            return Err(refusal);
        }
        if self.replica.status().role != Role::Leader {
            return Err(Refusal::NotLeader { leader: self.leader_address() });
        }
        let unavailable = |reason: &str| Err(Refusal::Unavailable { reason: reason.to_owned() });
        if self.admission.is_none() {
            return unavailable("the leader is taking over");
        }
        if !self.snapshots.are_given {
            return Err(Refusal::Impossible { reason: "the state machine gives no snapshots".to_owned() });
        }
        if !self.snapshots.is_free() || self.snapshots.orders.len() >= ORDERS_MAX {
            return unavailable("a snapshot is being made already");
        }
        match self.replica.propose(vec![Payload::SnapshotPoint]) {
            Ok(range) => Ok(range.start),
            Err(error) => Err(self.refusal_of(error)),
        }
    }

    /// A leader that serves has one made when enough was applied since the last point.
    pub(super) fn propose_point_if_due(&mut self) {
        if self.admission.is_none() || !self.snapshots.is_free() || !self.snapshots.is_due(self.applied.index) {
            return;
        }
        if !self.snapshots.are_given {
            return self.tell_none_given();
        }
        // A leader that is busy, or hands over, has another opportunity with the next entries.
        if let Ok(range) = self.replica.propose(vec![Payload::SnapshotPoint]) {
            self.snapshots.proposed = Some(range.start);
        }
    }

    /// The entry that was applied just now is a point.
    pub(super) fn on_snapshot_point(&mut self) {
        let point = self.applied;
        let snapshots = &mut self.snapshots;
        (snapshots.last_point, snapshots.bytes_since) = (point.index, 0);
        snapshots.proposed.take_if(|proposed| *proposed <= point.index);
        let is_replayed = point.index <= snapshots.replayed_until;
        if is_replayed || !snapshots.is_free() {
            let reason = if is_replayed { "its point is of before this start" } else { "another was being written" };
            let reason = reason.to_owned();
            let failed = ResponseBody::Refused(Refusal::SnapshotFailed { reason });
            return self.answer_orders(&failed, |wanted| wanted == point.index);
        }
        // Who was sent entries before it was sent the configuration that they were made under does not know it.
        if self.configuration.1.members.is_empty() {
            return;
        }
        let watch = self.snapshots.stopwatch.as_deref_mut();
        watch.into_iter().for_each(Stopwatch::start);
        let checkpoint = Checkpoint::of(&self.sessions, &self.machine);
        let description = self.description();
        let watch = self.snapshots.stopwatch.as_deref_mut();
        watch.into_iter().for_each(Stopwatch::stop);
        let Some(checkpoint) = checkpoint else { return self.tell_none_given() };
        let making = Box::new(Making { description, checkpoint });
        self.snapshots.phase = Phase::Held { making, wait_ticks: self.turn() * self.snapshots.turn_ticks() };
    }

    /// Whether the state of a point is held, to be handed out when its turn has come.
    #[cfg(test)]
    pub fn holds_state(&self) -> bool {
        matches!(self.snapshots.phase, Phase::Held { .. })
    }

    /// From here on this measures how long a state takes to be taken.
    pub fn measure_with(&mut self, stopwatch: Box<dyn Stopwatch>) {
        self.snapshots.stopwatch = Some(stopwatch);
    }

    /// What is done next is done.
    pub(super) fn advance_snapshots(&mut self) {
        match &self.snapshots.phase {
            Phase::Held { making, wait_ticks: 0 } => {
                // A state that is ahead of its log is of no use to a restart.
                let is_durable = making.description.point.index <= self.replica.status().durable.index;
                if is_durable || mutant::is_on(Mutant::SnapshotBeforeLog) {
                    self.begin_making();
                }
            }
            Phase::Saving { made, save } if *save <= self.pipeline.superblock.durable() => {
                let made = *made;
                self.end_making(made);
            }
            Phase::Idle | Phase::Held { .. } | Phase::Making { .. } | Phase::Saving { .. } | Phase::Removing => {}
        }
    }

    pub(super) fn on_snapshot_made(&mut self, point: LogId, result: Result<Made, snapshot::Error>) {
        let is_awaited = matches!(self.snapshots.phase, Phase::Making { point: awaited } if awaited == point);
        assert!(is_awaited, "the snapshot at {point} was not ordered: {:?}", self.snapshots.phase);
        match result {
            Ok(Made { bytes, milliseconds, core_microseconds }) => {
                let save = self.name_snapshot(point);
                let made = SnapshotMade { point, bytes, milliseconds, core_microseconds };
                self.snapshots.phase = Phase::Saving { made, save };
            }
            Err(error) => {
                // What is there under this name stays, and counts for nothing: what came whole and has rotted since, say.
                let is_there =
                    error.is_rot() || matches!(error, snapshot::Error::Damaged { .. } | snapshot::Error::Exists { .. });
                if is_there && !self.snapshots.damaged.contains(&point) {
                    self.snapshots.damaged.push(point);
                }
                self.snapshots.phase = Phase::Idle;
                self.snapshots.failure = format!("the snapshot at {point} failed: {error}; {}", error.next_step());
                let reason = error.to_string();
                self.effects.push(Effect::Snapshot(SnapshotReport::Failed { point, error }));
                let failed = ResponseBody::Refused(Refusal::SnapshotFailed { reason });
                self.answer_orders(&failed, |wanted| wanted <= point.index);
            }
        }
    }

    /// A snapshot that the start found rotten is what was written, chunk by chunk: others sent what was not.
    pub fn mended(&mut self, point: LogId) {
        self.snapshots.damaged.retain(|damaged| *damaged != point);
        self.snapshots.findings.retain(|(of, _)| *of != Some(point));
        self.effects.push(Effect::Snapshot(SnapshotReport::Mended { point }));
    }

    pub(super) fn on_snapshots_removed(&mut self, result: Result<usize, snapshot::Error>) {
        assert!(matches!(self.snapshots.phase, Phase::Removing), "nothing was to be removed");
        self.snapshots.phase = Phase::Idle;
        if let Err(error) = result {
            self.snapshots.failure = format!("older snapshots are not removed: {error}; {}", error.next_step());
            self.effects.push(Effect::Snapshot(SnapshotReport::NotRemoved { error }));
        }
    }

    /// This node leads no more: whether its points will be committed is not known here.
    pub(super) fn abandon_snapshot_orders(&mut self) {
        self.snapshots.proposed = None;
        self.answer_orders(&ResponseBody::Refused(Refusal::OutcomeUnknown), |_| true);
    }

    fn begin_making(&mut self) {
        let Phase::Held { making, .. } = std::mem::replace(&mut self.snapshots.phase, Phase::Idle) else {
            unreachable!("its turn has come")
        };
        let point = making.description.point;
        if mutant::is_on(Mutant::SnapshotNamedBeforeDurable) {
            self.name_snapshot(point);
        }
        (self.snapshots.progress.written_bytes, self.snapshots.progress.making_milliseconds) = (0, 0);
        self.snapshots.phase = Phase::Making { point };
        self.effects.push(Effect::MakeSnapshot(making));
    }

    /// Another node's is this node's state. What is not written yet of an older one never will be; what is being written is
    /// followed by a removal of its own.
    pub(super) fn on_snapshot_installed(&mut self, installed: SnapshotMade) {
        let before_first = self.replica.first_index().previous();
        let snapshots = &mut self.snapshots;
        (snapshots.last_point, snapshots.bytes_since) = (installed.point.index, 0);
        snapshots.last = Some(installed);
        snapshots.keep(installed.point, before_first);
        if matches!(snapshots.phase, Phase::Idle | Phase::Held { .. }) {
            if let Phase::Held { making, .. } = std::mem::replace(&mut snapshots.phase, Phase::Removing) {
                self.discard(making);
            }
            self.remove_superfluous(installed.point);
        }
    }

    fn remove_superfluous(&mut self, in_use: LogId) {
        let log = self.replica.first_index().previous()..=self.replica.status().durable.index;
        let (unusable, offered) = (self.snapshots.damaged.clone(), self.offers.points());
        let reach = snapshot::Reach { log, unusable, offered };
        self.effects.push(Effect::RemoveSnapshots { in_use, reach });
    }

    fn end_making(&mut self, made: SnapshotMade) {
        self.replica.handle(RaftInput::SnapshotMade { point: made.point });
        self.snapshots.last = Some(made);
        self.snapshots.keep(made.point, self.replica.first_index().previous());
        self.snapshots.failure.clear();
        self.snapshots.findings.clear();
        self.snapshots.phase = Phase::Removing;
        self.effects.push(Effect::Snapshot(SnapshotReport::Made(made)));
        self.answer_orders(&ResponseBody::SnapshotMade(made), |wanted| wanted <= made.point.index);
        self.remove_superfluous(made.point);
    }

    /// The superblock is to name the snapshot at this point.
    pub(super) fn name_snapshot(&mut self, point: LogId) -> SaveNumber {
        self.pipeline.superblock.save(|state| {
            let group = state.group_mut(GroupId::CLUSTER);
            group.snapshot = group.snapshot.max(point);
        })
    }

    /// Tells those who wait for the snapshot at such a point.
    fn answer_orders(&mut self, body: &ResponseBody, is_told: impl Fn(Index) -> bool) {
        for order in std::mem::take(&mut self.snapshots.orders) {
            match is_told(order.point) {
                true => self.reply(order.client, order.id, body.clone()),
                false => self.snapshots.orders.push(order),
            }
        }
    }

    pub(super) fn description(&self) -> Description {
        let (membership_id, membership) = self.configuration.clone();
        Description {
            cluster: self.pipeline.superblock.state().cluster,
            group: GroupId::CLUSTER,
            point: self.applied,
            membership,
            membership_id,
            log_start: self.readable_from(),
            last_record: self.last_record(),
            log_digest: self.log_digest,
        }
    }

    /// How many nodes write before this one: the leader first, for whom somebody may wait, then by rising id.
    pub(super) fn turn(&self) -> u64 {
        let leader = self.replica.status().leader;
        let own = self.options.node;
        if leader == Some(own) {
            return 0;
        }
        let others = self.configuration.1.members.iter().map(|member| member.id);
        others.filter(|id| Some(*id) == leader || *id < own).count() as u64
    }

    fn tell_none_given(&mut self) {
        if !std::mem::replace(&mut self.snapshots.is_told_none, true) {
            self.effects.push(Effect::Snapshot(SnapshotReport::NoneGiven));
        }
    }
}
