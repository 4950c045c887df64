//! From a directory to a driver: superblock first, then the log, then the protocol with what both remember.

use std::collections::{BTreeMap, VecDeque};

use super::durable::{Kept, recover};
use super::forwards::Forwards;
use super::installing::Installing;
use super::loading::{Beginning, Named, SnapshotFinding, choose};
use super::offers::Offers;
use super::pipeline::{Pipeline, SUPERBLOCK_TOKENS};
use super::purging::Purging;
use super::retention::Retention;
use super::wall_clock::WallClock;
use super::{Applying, Driver, Options, Reads, Snapshots, Submissions, Tails, WaitingForRoom};
use crate::checksum::Checksum;
use crate::codec;
use crate::disk::Files;
use crate::limits::RECORD_BYTES_MAX;
use crate::machine::{self, StateMachine};
use crate::mutant::{self, Mutant};
use crate::node::sessions;
use crate::raft::{self, Replica, Restored};
use crate::snapshot::{self, Description};
use crate::superblock::{self, Writer};
use crate::types::{GroupId, Index, Life, LogId, Membership, Place, Term};
use crate::wal::{self, GroupLog, Identity, Log, Reading, Recovery};

use super::ReadNumber;

/// The log's directory within a node's.
pub const LOG_DIRECTORY: &str = "log";

/// What an entry's record takes in a frame besides the record that a client appends: heads, at most.
const RECORD_HEADS_BYTES: usize = 128;

/// The largest record that a leader takes from a client. It must fit a frame of every node's log: nodes on which it
/// differs do not go together.
pub fn record_bytes_max(segment_bytes: u64) -> usize {
    RECORD_BYTES_MAX.min(wal::batch_bytes_max(segment_bytes) - RECORD_HEADS_BYTES)
}

/// Why a node does not start. Nothing was said to anyone.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Superblock(Box<superblock::Error>),
    #[error(transparent)]
    Log(#[from] wal::Error),
    #[error("the superblock is at term {superblock}, the log at {log}: the superblock is older than the log")]
    StaleSuperblock { superblock: Term, log: Term },
    #[error("this node has lost what it had acknowledged: it has no voice")]
    NoVoice,
    #[error("this node was removed from its cluster, and is a member no more")]
    Removed,
    #[error(transparent)]
    Machine(machine::Error),
    /// What was kept with its state is not what was written.
    #[error("the state machine has kept its state as of entry {applied}, and what goes with it is damaged: {error}")]
    MachineDamaged { applied: LogId, error: codec::Error },
    #[error("the state machine's state is that of {found}, and this is {expected}")]
    MachineOfAnother { found: Identity, expected: Identity },
    /// It was fed only what was durable here: this log is older than it was, or another one.
    #[error("the state machine has applied entry {applied}, and the log, which ends at {last}, has no such entry")]
    MachineBeyondLog { applied: LogId, last: LogId },
    /// What lies between was given up.
    #[error(
        "the state machine has applied entry {applied}, the log begins at {first}, and this machine takes no snapshots"
    )]
    MachineBehindLog { applied: LogId, first: Index },
    #[error("the log does not begin where the superblock says: {0}")]
    LogRefuses(wal::Refused),
    #[error(transparent)]
    Snapshot(#[from] snapshot::Error),
    /// Committed entries are gone, or were replaced: it was named only when the log was durable up to its point.
    #[error("there is a durable snapshot at {point}, and the log, which ends at {last}, has no such entry")]
    SnapshotBeyondLog { point: LogId, last: LogId },
    /// It does not begin with an empty state.
    #[error("the log begins at {first}, and no snapshot can be used to begin from there{}", after_colon(.findings))]
    NoState { first: Index, findings: String },
}

impl StartError {
    /// Whether this node was found to have lost what it had promised, so that it must not be started again in this life.
    pub fn takes_voice(&self) -> bool {
        use StartError::{MachineBeyondLog, SnapshotBeyondLog, StaleSuperblock};
        matches!(self, StaleSuperblock { .. } | MachineBeyondLog { .. } | SnapshotBeyondLog { .. })
    }
}

fn after_colon(findings: &str) -> String {
    if findings.is_empty() { String::new() } else { format!(": {findings}") }
}

impl From<superblock::Error> for StartError {
    fn from(error: superblock::Error) -> StartError {
        StartError::Superblock(Box::new(error))
    }
}

/// What starting found.
#[derive(Debug)]
pub struct Started<M> {
    pub driver: Driver<M>,
    pub recovery: Recovery,
    /// The snapshot that it begins from.
    pub snapshot: Option<LogId>,
    /// Snapshots that it does not begin from, and ought to have been able to.
    pub snapshot_findings: Vec<SnapshotFinding>,
    pub boot: u64,
    pub identity: Identity,
    /// Made with the cluster, and not for one that existed.
    pub is_first_member: bool,
}

/// Makes a node's directory: log first, superblock last, so that a directory with a superblock is whole.
pub fn format<F: Files>(
    files: &F,
    state: &superblock::State,
    segment_bytes: u64,
    seed: u64,
    wall_clock_milliseconds: u64,
) -> Result<(), StartError> {
    match superblock::inspect(files) {
        Err(superblock::Error::NotFormatted) => {}
        Ok(_) => return Err(superblock::Error::AlreadyFormatted.into()),
        // There is one, whatever is wrong with it: the log that belongs to it stays as it is.
        Err(error) => return Err(error.into()),
    }
    let identity = Identity { cluster: state.cluster, node: state.node, incarnation: state.incarnation };
    let options = log_options(identity, segment_bytes, 1, 1, seed);
    // The same process may start the node next, and must find no lock of its own.
    Log::create(files, options, wall_clock_milliseconds)?.close(files);
    superblock::format(files, state)?;
    Ok(())
}

impl<M: StateMachine> Driver<M> {
    /// Starts a node on its directory. Recovery happens here, and the loading of the newest snapshot that can be used: both
    /// are done when this returns.
    pub fn start<F: Files>(
        files: &F,
        options: Options,
        mut machine: M,
        wall_clock_milliseconds: u64,
    ) -> Result<Started<M>, StartError> {
        let mut superblock = superblock::load(files, SUPERBLOCK_TOKENS)?.writer;
        let state = superblock.state();
        state.check(options.cluster, options.node)?;
        let identity = Identity { cluster: state.cluster, node: state.node, incarnation: state.incarnation };
        let boot = state.boot;
        let is_first_member = state.is_first_member();
        let log_options = log_options(
            identity,
            options.segment_bytes,
            options.writes_in_flight,
            options.quiet_ticks,
            options.seed ^ boot.rotate_left(32),
        );
        let reading = if options.verify_at_start { Reading::Everything } else { Reading::BySeals };
        let (mut log, recovery) =
            Log::open_reading(files, log_options, (state.durable_end, reading), wall_clock_milliseconds)?;
        let mut names = names(state, &log)?;
        let superblock::Group { snapshot: named, log_start, .. } = state.group(GroupId::CLUSTER);
        let limits = session_limits(&options);
        let own = match machine.durable() {
            Some(durable) => recover(durable, identity, limits)?,
            None => None,
        };
        let mut beginning = choose(
            files,
            identity.cluster,
            (&names, Named { point: named, log_start, is_founder: is_first_member }),
            (machine, own),
            limits,
        )?;
        if beginning.begins_log {
            // Nothing is said before that is durable but what the superblock says already.
            log.purge_prefix(GroupId::CLUSTER, named).map_err(StartError::LogRefuses)?;
            // Nothing of what it held is part of it.
            names = GroupLog::new(GroupId::CLUSTER, named, names.last_place);
        }
        beginning.remove_superfluous(files, identity.cluster, (&names, named));
        let snapshot = beginning.snapshot.map(|(point, _)| point);
        if let Some(point) = snapshot.filter(|point| *point > named) {
            superblock.save(|state| state.group_mut(GroupId::CLUSTER).snapshot = point);
        }
        let snapshot_findings = std::mem::take(&mut beginning.findings);
        let mut driver = Driver::begin(options, (superblock, log), &names, &recovery, beginning);
        driver.snapshots.note(&snapshot_findings);
        Ok(Started { driver, recovery, snapshot, snapshot_findings, boot, identity, is_first_member })
    }

    /// A driver of what the disk held.
    fn begin(
        options: Options,
        (superblock, log): (Writer, Log),
        names: &GroupLog,
        recovery: &Recovery,
        mut beginning: Beginning<M>,
    ) -> Driver<M> {
        let state = superblock.state();
        let restored = restored(state, names, recovery, &beginning);
        let (incarnation, boot) = (state.incarnation, state.boot);
        let config = raft::Config {
            id: options.node,
            heartbeat_ticks: options.heartbeat_ticks,
            election_ticks: options.election_ticks.clone(),
            seed: options.seed ^ boot,
            limits: options.limits,
        };
        let life = Life { incarnation, is_first_member: state.is_first_member() };
        let configuration = match beginning.described() {
            Some(from) => (from.membership_id, from.membership.clone()),
            None => (LogId::ZERO, state.first_membership.clone()),
        };
        let applied = beginning.from.as_ref().map_or(names.before_first, |from| from.point);
        let is_durable = beginning.machine.durable().is_some();
        let begins = |from: &Description| Retention::new(from.log_start, from.last_record);
        let retention = beginning.from.as_ref().map_or(Retention::new(Index::FIRST, Index::ZERO), begins);
        Driver {
            kept: is_durable.then(|| Kept::new(applied, beginning.is_of_snapshot())),
            applied,
            commit: restored.commit,
            output: raft::Output::default(),
            replica: match options.leases {
                Some(leases) => Replica::in_life(config, restored, life).with_leases(leases),
                None => Replica::in_life(config, restored, life),
            },
            pipeline: Pipeline::new(log, superblock),
            held: BTreeMap::new(),
            refused: BTreeMap::new(),
            admission: None,
            log_digest: beginning.from.as_ref().map_or(Checksum::default(), |from| from.log_digest),
            configuration,
            snapshots: Snapshots::new(options.snapshots, &beginning, names.last.index),
            sessions: beginning.sessions,
            machine: beginning.machine,
            submissions: Submissions::default(),
            waiting: WaitingForRoom::default(),
            forwards: Forwards::new(incarnation, boot),
            change: None,
            wall_clock: WallClock::default(),
            retention,
            purging: Purging::default(),
            offers: Offers::default(),
            installing: Installing::new(beginning.coming),
            reads: Reads::default(),
            tails: Tails::default(),
            log_reads: VecDeque::new(),
            last_read: ReadNumber::default(),
            applying: Applying::FromMemory,
            stale_reads: 0,
            record_bytes_max: record_bytes_max(options.segment_bytes),
            options,
            effects: Vec::new(),
            stopped: None,
        }
    }
}

/// What its table keeps. It must be the same on every node.
pub(super) fn session_limits(options: &Options) -> sessions::Limits {
    let is_other = mutant::is_on(Mutant::SessionLimitsDiffer) && options.node.0.is_multiple_of(2);
    let sessions_max = options.sessions.sessions_max + usize::from(is_other);
    sessions::Limits { sessions_max, ..options.sessions }
}

/// The names of the log's entries, if the superblock is not older than they are.
fn names(state: &superblock::State, log: &Log) -> Result<GroupLog, StartError> {
    let names = log.group(GroupId::CLUSTER).cloned();
    let names = names.unwrap_or_else(|| GroupLog::new(GroupId::CLUSTER, LogId::ZERO, Place::START));
    let term = state.group(GroupId::CLUSTER).hard_state.term;
    if names.last.term > term {
        return Err(StartError::StaleSuperblock { superblock: term, log: names.last.term });
    }
    Ok(names)
}

/// What the protocol begins with. Whatever a state holds is committed, and so is what a snapshot holds, which may be newer
/// than a durable machine's own state.
fn restored<M>(state: &superblock::State, names: &GroupLog, recovery: &Recovery, beginning: &Beginning<M>) -> Restored {
    let of = beginning.described();
    let made = beginning.snapshot.map(|(point, _)| point);
    let held = [beginning.from.as_ref().map(|from| from.point), made, Some(names.before_first)];
    Restored {
        hard_state: state.group(GroupId::CLUSTER).hard_state,
        before_first: names.before_first,
        terms: names.terms.clone(),
        last: names.last,
        commit: held.into_iter().flatten().map(|held| held.index).max().unwrap_or_default(),
        snapshot: made.or(beginning.coming.as_ref().map(|coming| coming.of.point)).unwrap_or_default(),
        memberships: memberships(state, names, recovery, of),
        membership_term: of.map_or(Term::ZERO, |of| of.membership_id.term),
    }
}

/// The configurations in order of index. The snapshot's counts, wherever its entry lies. Those before it are kept as far as
/// the log has them and it, too: they tell who was a member once.
fn memberships(
    state: &superblock::State,
    names: &GroupLog,
    recovery: &Recovery,
    of: Option<&Description>,
) -> Vec<(Index, Membership)> {
    let first = (Index::ZERO, state.first_membership.clone());
    let in_log = recovery.memberships.get(&GroupId::CLUSTER).into_iter().flatten().cloned();
    let is_in_log = |index: Index| index > names.before_first.index && index <= names.last.index;
    let has_first = names.before_first == LogId::ZERO;
    let known = std::iter::once(first).chain(in_log.filter(|(index, _)| is_in_log(*index)));
    let known = known.filter(|(index, _)| has_first || *index > Index::ZERO);
    let Some(of) = of else { return known.collect() };
    let base = (of.membership_id.index, of.membership.clone());
    let (mut before, mut behind): (Vec<_>, Vec<_>) =
        known.filter(|(index, _)| *index != base.0).partition(|(index, _)| *index < base.0);
    let has_base = is_in_log(base.0) && names.id_at(base.0) == Some(of.membership_id);
    if !has_base {
        before.clear();
    }
    before.push(base);
    before.append(&mut behind);
    before
}

fn log_options(
    identity: Identity,
    segment_bytes: u64,
    writes_in_flight: usize,
    quiet_ticks: u32,
    seed: u64,
) -> wal::Options {
    let directory = LOG_DIRECTORY.to_owned();
    // The newest entries are in the replica's memory already, as entries.
    let tail_cache_bytes = 0;
    wal::Options { directory, identity, segment_bytes, writes_in_flight, quiet_ticks, tail_cache_bytes, seed }
}
