//! One node, deterministic: protocol, log, superblock, sessions and state machine, joined. No socket, no clock, no
//! thread; the simulator runs this very code.
//!
//! ```text
//!   Tick  Peer(message)  Client(request)  Written  Prepared  Removed  ReadDone
//!     └────────┴───────────────┴─────────────┴────────┴────────┴────────┘
//!                              ▼ handle (many)
//!     Replica ⇄ Pipeline (superblock, log) ⇄ Applier (sessions, machine) ⇄ Submissions, Reads, Tails
//!                              ▼ take_effects (once)
//!      Write  Prepare  Remove  Send  Reply  Tail  ReadLog  Event
//! ```
//!
//! # The contract
//!
//! - Whoever runs the driver hands it everything that has arrived, then takes the effects once and carries all of
//!   them out. That is how batches form: everything that queued up while the last flush ran is the next.
//! - Effects are independent of each other: what must wait for a flush is held back here until it may leave.
//! - [`Driver::take_effects`] fails when the disk failed, or a peer said what cannot be, once and for ever: then nothing
//!   more may leave, and the process ends, with exit code 18 or 10.
//! - States that are not needed any more are handed out by [`Driver::take_discarded`]: to drop them takes long.
//! - A [`Effect::ReadLog`] is answered by [`Input::ReadDone`], with whatever came of it; [`Effect::MakeSnapshot`] by
//!   [`Input::SnapshotMade`], and [`Effect::RemoveSnapshots`] by [`Input::SnapshotsRemoved`].

mod apply;
mod changes;
pub mod checkpoint;
mod damaged;
mod durable;
mod forwards;
mod installing;
mod lives;
mod loading;
mod log_reads;
mod offers;
mod pipeline;
mod purging;
mod reads;
mod retention;
mod room;
mod snapshots;
mod start;
mod status;
mod stopped;
mod submissions;
mod tails;
#[cfg(test)]
mod tests;
mod wall_clock;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::ops::Range;

use crate::checksum::Checksum;
use crate::disk::{self, Completion, FileId, Write};
use crate::machine::StateMachine;
use crate::net::{
    ClientKey, CloseReason, Forward, Forwarded, Records, Refusal, Request, RequestBody, Response, ResponseBody, TailKey,
};
use crate::node::sessions::{self, Admission, Sessions};
use crate::raft::{self, BootTime, Event, Fetch, Input as RaftInput, LeaseOptions, Message, Replica, Role, Sender};
use crate::snapshot;
use crate::types::{ClusterId, Entry, Index, LogId, Membership, NodeId, SegmentNumber, Term};
use crate::wal::{self, Prepare, ReadPlan, Remove};

use damaged::Damaged;
use durable::Kept;
use forwards::Forwards;
use installing::Installing;
pub use installing::{Discarded, NotFetched};
use offers::Offers;
use pipeline::Pipeline;
pub use purging::FollowerTail;
use purging::Purging;
use reads::Reads;
use retention::Retention;
pub use retention::RetentionRule;
use room::WaitingForRoom;
use snapshots::Snapshots;
use submissions::{Asker, Submissions};
use tails::Tails;
use wall_clock::WallClock;

pub use loading::SnapshotFinding;
pub use snapshots::{Made, Making, SnapshotOptions, SnapshotProgress, SnapshotReport, Stopwatch};
pub use start::{LOG_DIRECTORY, StartError, Started, format, record_bytes_max};
pub use stopped::Stopped;

/// Entries that are applied before the driver looks up again.
const APPLY_BATCH_ENTRIES: usize = 4096;
/// Bytes asked of the log at once when entries to be applied are not in memory.
const APPLY_READ_BYTES: usize = 1 << 20;
/// Reads of the log for one purpose, one after the other, that may find that it has moved on.
const STALE_READS_MAX: usize = 8;

/// What is fixed for the life of a driver.
#[derive(Clone, Debug)]
pub struct Options {
    /// Checked against the superblock, if known.
    pub cluster: Option<ClusterId>,
    pub node: NodeId,
    pub segment_bytes: u64,
    pub writes_in_flight: usize,
    /// A start reads the whole log and refuses it if it is damaged anywhere; else damage to older segments is met by who
    /// reads there.
    pub verify_at_start: bool,
    /// Ticks of quiet after which the log writes a covering frame.
    pub quiet_ticks: u32,
    pub heartbeat_ticks: u32,
    pub election_ticks: Range<u32>,
    pub limits: raft::Limits,
    /// What of the log is kept: whoever leads trims what is beyond it.
    pub retention: RetentionRule,
    /// What of it is kept for followers that lag; none: nothing of the log ever goes.
    pub follower_tail: Option<FollowerTail>,
    /// What is kept of clients' sessions: the same on all nodes of a cluster.
    pub sessions: sessions::Limits,
    /// Reads by lease, if they are on. Then an [`Input::Clock`] comes before each [`Driver::take_effects`].
    pub leases: Option<LeaseOptions>,
    pub snapshots: SnapshotOptions,
    pub seed: u64,
    /// For status answers only.
    pub about: About,
}

/// What a node's status says besides what the driver knows.
#[derive(Clone, Debug)]
pub struct About {
    pub address: SocketAddr,
    pub pid: u32,
    pub io: String,
    pub sync_mode: String,
}

/// What can happen to a node.
#[derive(Debug)]
pub enum Input {
    /// One tick has passed. The wall clock is written down, and says what is too old to be kept.
    Tick {
        wall_clock_milliseconds: u64,
    },
    /// What the boot-time clock shows, before the inputs that follow and after all effects before: for reads by lease.
    Clock(BootTime),
    /// There is a link to this node, in this life of it.
    Met {
        node: NodeId,
        sender: Sender,
    },
    /// This node does not speak with us, or speaks with another life of us, and says why.
    Refused {
        node: NodeId,
        reason: CloseReason,
    },
    /// From a peer whose identity is proven. Dropped if it is of another life of that node than the one that is meant, or
    /// of an older start of it than one that was met.
    Peer {
        sender: Sender,
        message: Message,
    },
    Client {
        client: ClientKey,
        request: Request,
    },
    /// A node whose identity is proven passes on what a client asked of it.
    Forward {
        from: NodeId,
        sender: Sender,
        forward: Forward,
    },
    /// The answer to an [`Effect::Forward`].
    Forwarded {
        from: NodeId,
        forwarded: Forwarded,
    },
    /// The [`Effect::Forward`] of this number has not left and will not, and why.
    NotForwarded {
        number: u64,
        refusal: Refusal,
    },
    /// This node asked for the snapshot at this point, which it fetches, whether or not it was given anything.
    SnapshotAsked {
        node: NodeId,
        point: LogId,
    },
    /// The link to this node is broken. What was on it may have arrived or not.
    Lost {
        node: NodeId,
    },
    /// No answer reaches this client any more.
    ClientGone {
        client: ClientKey,
    },
    TailOpened {
        tail: TailKey,
        from: Index,
    },
    /// The tail takes more: after it was opened, and after each [`Effect::Tail`] when there is room again.
    TailReady {
        tail: TailKey,
    },
    TailClosed {
        tail: TailKey,
    },
    Written(Completion),
    Prepared {
        number: SegmentNumber,
        result: Result<FileId, disk::Error>,
    },
    /// What came of an [`Effect::Remove`].
    Removed {
        number: SegmentNumber,
        result: Result<(), disk::Error>,
    },
    ReadDone {
        read: ReadNumber,
        result: Result<Vec<Entry>, wal::Error>,
    },
    /// How far snapshots are that are made, fetched or sent: for status answers only.
    SnapshotProgress(SnapshotProgress),
    /// What came of an [`Effect::MakeSnapshot`]: it is durable under its name, or nothing is left of it.
    SnapshotMade {
        point: LogId,
        result: Result<Made, snapshot::Error>,
    },
    /// What came of an [`Effect::RemoveSnapshots`].
    SnapshotsRemoved {
        result: Result<usize, snapshot::Error>,
    },
}

/// What must be done outside.
#[derive(Debug)]
pub enum Effect {
    Write(Write),
    Prepare(Prepare),
    Remove(Remove),
    Send(Message),
    /// A client's request, for the node that leads: it arrives once or not at all.
    Forward {
        to: NodeId,
        forward: Forward,
    },
    /// The answer to what a node has passed on.
    Forwarded {
        to: NodeId,
        forwarded: Forwarded,
    },
    Reply {
        client: ClientKey,
        response: Response,
    },
    /// Records for a tail; it gets no more until [`Input::TailReady`].
    Tail {
        tail: TailKey,
        records: Records,
    },
    /// A tail ends, and why.
    EndTail {
        tail: TailKey,
        refusal: Refusal,
    },
    ReadLog {
        read: ReadNumber,
        plan: ReadPlan,
        /// For a client or a tail: such reads must not hold up those that the cluster waits for.
        is_for_client: bool,
    },
    /// One at a time, and not while others are removed.
    MakeSnapshot(Box<Making>),
    /// By [`snapshot::remove_superfluous`].
    RemoveSnapshots {
        in_use: LogId,
        reach: snapshot::Reach,
    },
    /// The snapshot at this point, from this node or any other that has it: [`Driver::fetched`] answers it, unless another one
    /// is ordered first. The same again: another node leads by now, and is to be asked first.
    FetchSnapshot {
        from: NodeId,
        /// In which it leads.
        term: Term,
        point: LogId,
    },
    /// The snapshot that was ordered last is not needed any more. What has come of it may stay.
    CancelFetch,
    /// For the operator.
    Snapshot(SnapshotReport),
    /// For the operator.
    Event(Event),
    /// For the operator: entries of this node's log that a follower needs cannot be read.
    Unreadable(wal::Error),
    /// For the operator: this entry is wanted, and the log holds it no more.
    Missing {
        index: Index,
        wanted_by: WantedBy,
    },
}

/// Who wants an entry that is not there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WantedBy {
    /// It is committed here, and not applied.
    StateMachine,
    Follower(NodeId),
}

/// Numbers the reads of the log from 1 on.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct ReadNumber(pub u64);

/// Where the entries come from that are to be applied next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Applying {
    /// From memory, or there are none.
    FromMemory,
    /// They are being read from the log.
    Reading,
    /// They are not in the log: nothing is applied until something brings them. Looked for again after these ticks.
    Missing { again_ticks: u32 },
}

/// What a read of the log is for.
#[derive(Debug)]
enum ReadFor {
    Apply,
    Follower(Fetch),
    Client(reads::RecordsRead),
    Tail(TailKey),
    /// It was to be applied, and is no more.
    Nobody,
}

/// A node. See the head of this module.
#[derive(Debug)]
pub struct Driver<M> {
    replica: Replica,
    /// Empty between two of its outputs; its memory is used again.
    output: raft::Output,
    pipeline: Pipeline,
    sessions: Sessions,
    /// Messages of nodes whose present start is not durable here yet.
    held: lives::HeldByNode,
    /// Who does not speak with this node, and why: until there is a link.
    refused: BTreeMap<NodeId, CloseReason>,
    /// While this node leads and has applied its no-op.
    admission: Option<Admission>,
    machine: M,
    /// What the machine has to keep of the node's, if it keeps its own state.
    kept: Option<Kept>,
    /// The last entry applied. Follows the commit index.
    applied: LogId,
    commit: Index,
    /// A checksum over the names and payloads of all applied entries: equal on all nodes at equal index.
    log_digest: Checksum,
    /// The configuration at `applied`, and the entry that it stands in.
    configuration: (LogId, Membership),
    snapshots: Snapshots,
    submissions: Submissions,
    waiting: WaitingForRoom,
    forwards: Forwards,
    /// The change of the members that somebody waits for.
    change: Option<changes::Waiting>,
    wall_clock: WallClock,
    retention: Retention,
    purging: Purging,
    offers: Offers,
    damaged: Damaged,
    installing: Installing<M>,
    reads: Reads,
    tails: Tails,
    /// Reads of the log that are under way, by rising number. Bounded by what asks for them.
    log_reads: VecDeque<(ReadNumber, ReadFor)>,
    last_read: ReadNumber,
    applying: Applying,
    /// Reads to apply, one after the other, that found the log moved on.
    stale_reads: usize,
    record_bytes_max: usize,
    options: Options,
    /// Effects that inputs gave at once.
    effects: Vec<Effect>,
    stopped: Option<Stopped>,
}

impl<M: StateMachine> Driver<M> {
    /// Something happened. What follows from it is in the next [`Driver::take_effects`].
    pub fn handle(&mut self, input: Input) {
        match input {
            Input::Tick { wall_clock_milliseconds } => {
                self.pipeline.log.tick(wall_clock_milliseconds);
                self.replica.keeps_from(self.kept_for_readers());
                self.replica.handle(RaftInput::Tick);
                self.look_for_missing();
                self.age_forwards();
                self.age_waiting();
                self.wall_clock.tick(wall_clock_milliseconds);
                self.trim_by_rule();
                self.purge_if_useful();
                self.snapshots.tick();
                self.installing.tick();
                self.damaged.tick();
            }
            Input::Clock(reading) => {
                self.replica.handle(RaftInput::Clock(reading));
                self.release_leased();
            }
            Input::Met { node, sender } => self.on_met(node, sender),
            Input::Refused { node, reason } => self.on_refused(node, reason),
            Input::Peer { sender, message } => self.on_peer(sender, message),
            Input::Client { client, request } => self.on_request(client, request),
            Input::Forward { from, sender, forward } => self.on_forward(from, sender, forward),
            Input::Forwarded { from, forwarded } => self.on_forwarded(from, forwarded),
            Input::NotForwarded { number, refusal } => self.on_not_forwarded(number, refusal),
            Input::SnapshotAsked { node, point } => self.on_snapshot_asked(node, point),
            Input::Lost { node } => {
                self.on_lost(node);
                self.forget_waiting(|asker| matches!(asker, Asker::Node { node: from, .. } if from == node));
            }
            Input::ClientGone { client } => self.forget_client(client),
            Input::TailOpened { tail, from } => self.tails.open(tail, from),
            Input::TailReady { tail } => self.tails.ready(tail),
            Input::TailClosed { tail } => self.tails.close(tail),
            Input::Written(completion) => {
                let written = self.pipeline.written(completion);
                self.stop_on(written);
                self.release_held();
            }
            Input::Prepared { number, result } => self.pipeline.log.prepared(number, result),
            Input::Removed { number, result } => self.pipeline.log.removed(number, &result),
            Input::ReadDone { read, result } => self.on_read_done(read, result),
            Input::SnapshotProgress(progress) => self.snapshots.progress = progress,
            Input::SnapshotMade { point, result } => self.on_snapshot_made(point, result),
            Input::SnapshotsRemoved { result } => self.on_snapshots_removed(result),
        }
    }

    /// Everything that must be done since the last call; tells whether there is more to do at once.
    pub fn take_effects(&mut self, effects: &mut Vec<Effect>) -> Result<bool, Stopped> {
        self.take_effects_watched(effects, &mut |_, _| {})
    }

    /// As [`Driver::take_effects`], and shows each output of the protocol to whoever checks its rules
    /// ([`raft::invariants`]), before it is carried out.
    pub fn take_effects_watched(
        &mut self,
        effects: &mut Vec<Effect>,
        watch: &mut dyn FnMut(&Replica, &raft::Output),
    ) -> Result<bool, Stopped> {
        let mut applied = 0;
        loop {
            self.take_waiting();
            self.end_if_stopped(effects)?;
            effects.append(&mut self.effects);
            self.dispatch_output(effects, watch);
            self.end_if_stopped(effects)?;
            let durable = self.pipeline.advance(effects)?;
            if let Some(number) = durable {
                self.replica.handle(RaftInput::Durable(number));
            }
            self.end_purge();
            let count = if applied < APPLY_BATCH_ENTRIES { self.apply_committed() } else { 0 };
            applied += count;
            if durable.is_none() && count == 0 {
                break;
            }
        }
        self.cancel_fetch_if_useless();
        self.advance_snapshots();
        let has_reads = self.serve_reads();
        let has_tails = self.serve_tails();
        let committed = self.commit_state();
        self.stop_on(committed);
        self.end_if_stopped(effects)?;
        effects.append(&mut self.effects);
        Ok(applied >= APPLY_BATCH_ENTRIES || has_reads || has_tails)
    }

    /// The machine, for reading.
    pub fn machine(&self) -> &M {
        &self.machine
    }

    pub fn replica(&self) -> &Replica {
        &self.replica
    }

    pub fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    /// The last entry applied, and a checksum over all entries up to it.
    pub fn applied(&self) -> (LogId, Checksum) {
        (self.applied, self.log_digest)
    }

    /// Nothing waits for the disk.
    pub fn is_idle(&self) -> bool {
        self.pipeline.is_idle()
    }

    /// The node is to end: what waits here, and is in no log yet, is left to others.
    pub fn begin_to_end(&mut self) {
        self.refuse_waiting(&Refusal::Unavailable { reason: "the node is ending".to_owned() });
    }

    /// One step towards a clean end: all is durable, and shown to be.
    pub fn is_finished(&mut self) -> bool {
        self.pipeline.is_finished()
    }

    fn on_request(&mut self, client: ClientKey, request: Request) {
        let Request { id, body } = request;
        match body {
            RequestBody::SubmitAnywhere { commands } if !commands.is_empty() && self.is_follower_that_serves() => {
                self.pass_on(client, id, commands);
            }
            RequestBody::Submit { commands } | RequestBody::SubmitAnywhere { commands } => {
                self.on_submit(Asker::Client { client, id }, commands);
            }
            RequestBody::Read { from, to, bytes_max, consistency } => {
                let read = reads::Read::records(client, id, from, to, bytes_max);
                self.on_read(read, consistency);
            }
            RequestBody::Query { query, consistency } => {
                self.on_read(reads::Read::query(client, id, query), consistency);
            }
            RequestBody::Status => {
                let status = ResponseBody::Status(Box::new(self.status()));
                self.reply(client, id, status);
            }
            RequestBody::Change(change) => self.on_change(client, id, change),
        }
    }

    fn reply(&mut self, client: ClientKey, id: u64, body: ResponseBody) {
        self.effects.push(Effect::Reply { client, response: Response { id, body } });
    }

    fn dispatch_output(&mut self, effects: &mut Vec<Effect>, watch: &mut dyn FnMut(&Replica, &raft::Output)) {
        let mut output = std::mem::take(&mut self.output);
        self.replica.fill_output(&mut output);
        watch(&self.replica, &output);
        if let Some(persist) = output.persist.take() {
            self.pipeline.persist(persist);
        }
        self.waiting.proposed_bytes = 0;
        for outgoing in output.send.drain(..) {
            self.offers.note(&outgoing.message);
            self.pipeline.send(outgoing.message, outgoing.after, effects);
        }
        if let Some(commit) = output.commit {
            assert!(commit > self.commit, "the commit index only grows");
            self.commit = commit;
        }
        for ready in output.reads_ready.drain(..) {
            self.reads.confirmed(ready.token, ready.index);
        }
        for token in output.reads_refused.drain(..) {
            self.refuse_read(token);
        }
        for fetch in output.fetch.drain(..) {
            self.read_log(fetch.from, fetch.last.next(), fetch.bytes_max, ReadFor::Follower(fetch));
        }
        for event in output.events.drain(..) {
            self.on_event(&event);
            effects.push(Effect::Event(event));
        }
        self.output = output;
        self.give_up_on_earlier_leaders();
        effects.append(&mut self.effects);
    }

    fn on_event(&mut self, event: &Event) {
        match event {
            Event::RoleChanged { role, .. } if *role != Role::Leader => {
                self.admission = None;
                self.refuse_waiting(&Refusal::NotLeader { leader: None });
                self.submissions.abandon(&mut self.effects);
                self.damaged.forget();
                self.abandon_change();
                self.abandon_trims();
                self.abandon_snapshot_orders();
            }
            Event::MembershipCommitted { index } => self.on_membership_committed(*index),
            Event::VoiceLost { peer, .. } => self.disbelieve(*peer),
            Event::Replaced { from } => self.snapshots.on_replaced(*from),
            Event::SnapshotOffered { from, base } => self.on_snapshot_offered(*from, *base),
            Event::Contradiction(contradiction) => self.stop_on(Err(Stopped::Contradicted(*contradiction))),
            _ => {}
        }
    }
}
