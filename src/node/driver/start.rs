//! From a directory to a driver: superblock first, then the log, then the protocol with what both remember.

use std::collections::{BTreeMap, VecDeque};

use super::forwards::Forwards;
use super::pipeline::{Pipeline, SUPERBLOCK_TOKENS};
use super::{Applying, Driver, Options, Reads, Submissions, Tails};
use crate::checksum::Checksum;
use crate::disk::Files;
use crate::limits::RECORD_BYTES_MAX;
use crate::machine::StateMachine;
use crate::mutant::{self, Mutant};
use crate::node::sessions::{self, Sessions};
use crate::raft::{self, Replica, Restored};
use crate::superblock::{self, Writer};
use crate::types::{GroupId, Index, Life, LogId, Membership, Term};
use crate::wal::{self, Identity, Log, Recovery};

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
    /// It would be fed again what it has applied, and the sessions that go with it are not known.
    #[error(
        "the state machine has applied {applied} already; this version starts only machines that have applied nothing"
    )]
    MachineNotEmpty { applied: LogId },
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
    /// Starts a node on its directory. Recovery happens here, and is done when this returns.
    pub fn start<F: Files>(
        files: &F,
        options: Options,
        machine: M,
        wall_clock_milliseconds: u64,
    ) -> Result<Started<M>, StartError> {
        if machine.applied() != LogId::ZERO {
            return Err(StartError::MachineNotEmpty { applied: machine.applied() });
        }
        let loaded = superblock::load(files, SUPERBLOCK_TOKENS)?;
        let superblock = loaded.writer;
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
        let (log, recovery) = Log::open(files, log_options, state.durable_end, wall_clock_milliseconds)?;
        let restored = restored(&superblock, &log, &recovery)?;
        let config = raft::Config {
            id: options.node,
            heartbeat_ticks: options.heartbeat_ticks,
            election_ticks: options.election_ticks.clone(),
            seed: options.seed ^ boot,
            limits: options.limits,
        };
        let life = Life { incarnation: identity.incarnation, is_first_member };
        let record_bytes_max = record_bytes_max(options.segment_bytes);
        let driver = Driver {
            applied: restored.before_first,
            commit: restored.commit,
            replica: match options.leases {
                Some(leases) => Replica::in_life(config, restored, life).with_leases(leases),
                None => Replica::in_life(config, restored, life),
            },
            pipeline: Pipeline::new(log, superblock),
            held: BTreeMap::new(),
            refused: BTreeMap::new(),
            sessions: Sessions::with_limits(session_limits(&options)),
            admission: None,
            machine,
            log_digest: Checksum::default(),
            submissions: Submissions::default(),
            forwards: Forwards::new(identity.incarnation, boot),
            change: None,
            reads: Reads::default(),
            tails: Tails::default(),
            log_reads: VecDeque::new(),
            last_read: ReadNumber::default(),
            applying: Applying::FromMemory,
            stale_reads: 0,
            record_bytes_max,
            options,
            effects: Vec::new(),
            stopped: None,
        };
        Ok(Started { driver, recovery, boot, identity, is_first_member })
    }
}

/// What its table keeps. It must be the same on every node.
fn session_limits(options: &Options) -> sessions::Limits {
    let is_other = mutant::is_on(Mutant::SessionLimitsDiffer) && options.node.0.is_multiple_of(2);
    let sessions_max = options.sessions.sessions_max + usize::from(is_other);
    sessions::Limits { sessions_max, ..options.sessions }
}

fn restored(superblock: &Writer, log: &Log, recovery: &Recovery) -> Result<Restored, StartError> {
    let state = superblock.state();
    let hard_state = state.group(GroupId::CLUSTER).hard_state;
    let group = log.group(GroupId::CLUSTER);
    let last = group.map_or(LogId::ZERO, |group| group.last);
    if last.term > hard_state.term {
        return Err(StartError::StaleSuperblock { superblock: hard_state.term, log: last.term });
    }
    let mut memberships: Vec<(Index, Membership)> = vec![(Index::ZERO, state.first_membership.clone())];
    memberships.extend(recovery.memberships.get(&GroupId::CLUSTER).into_iter().flatten().cloned());
    Ok(Restored {
        hard_state,
        before_first: group.map_or(LogId::ZERO, |group| group.before_first),
        terms: group.map(|group| group.terms.clone()).unwrap_or_default(),
        last,
        commit: group.map_or(Index::ZERO, |group| group.before_first.index),
        memberships,
    })
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
