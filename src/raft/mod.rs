//! The protocol, pure: no I/O, no clock, no thread, no randomness but a seed.
//!
//! A [`Replica`] is one node's part of one Raft group. It is told what happened ([`Input`], [`Replica::propose`],
//! [`Replica::read`]) and says what must be done ([`Output`]), each thing with what must be durable before it:
//!
//! ```text
//!            Tick  Message  Durable(n)  Applied(i)  Fetched  Installed
//!              └──────┴─────────┴───────────┴──────────┴─────────┘
//!                                ▼  handle
//!    propose, read ──▶  Replica (cannot fail, cannot block)
//!                                ▼  take_output, fill_output
//!     persist n ── send ── send after n ── commit to i ── read ready ── fetch ── events
//! ```
//!
//! # The contract
//!
//! - Whoever drives the replica calls [`Replica::take_output`] after one or many inputs and carries it out. Calling
//!   it after many is how batches form: entries that were proposed or received meanwhile are one persist and one
//!   message per follower. [`Replica::fill_output`] does the same in the caller's memory.
//! - [`Persist`]s are carried out in the order of their numbers. First the hard state, durably, then the entries. An
//!   append at index i ends all older entries from i on. `Durable(n)` says that persist n **and all before it** are
//!   on disk; a number, because a log id does not name a write: after a change of term the same index may be written
//!   again while the first write is still in flight.
//! - A message in [`Output::send`] with `after: Some(n)` must not leave before persist n is durable. One without may
//!   leave at once: the leader's own flush runs beside its sends (dissertation §10.2.1).
//! - Messages may be lost, doubled, delayed, reordered. `from` must be proven by the transport, and be the incarnation of
//!   that node which the configuration in force names: nothing of another life of it may arrive
//!   ([`Replica::hears`]). A node speaks only with those that name its own life of its id.
//! - After a restart a replica is made anew from what was durable ([`Restored`]); it remembers nothing else. Its seed is
//!   another one.
//! - A peer may say anything, and the replica does not panic. What cannot be after all that this node knows is an
//!   [`Event::Contradiction`]: it is the last that is heard of the replica, and whoever drives it ends.
//! - Every [`Fetch`] is answered, with nothing if the entries cannot be read now. A state machine that
//!   outlives the process takes only what is committed and durable on this node, so that [`Restored`] finds it in the log.
//!
//! # What holds inside
//!
//! - No message leaves before the term that it carries is durable: nothing is said that a restart could take back.
//! - What is durable follows the numbers of persists. A leader's own disk counts like a follower's; a candidate's own
//!   vote counts when it is on disk.
//! - A follower knows up to where its log is its leader's (`verified`), commits nothing beyond, and answers any number
//!   of appends with one reply. Whatever is lost, a follower that answers heartbeats is probed again, and a window that
//!   failed is sent again once, however many rejections of it arrive, and when.
//! - Where two logs part is found in at most one question for each term that they do not share, whatever their length.
//! - The cost per entry is a push, a clone of its `Bytes` per follower and a subtraction when it commits: no map, no
//!   allocation. Terms cost memory per election, not per entry.
//! - Everything that queues has a bound: uncommitted bytes, window, cache, waiting reads, one fetch per follower. A
//!   follower whose disk or state machine lags takes no more from its leader until it has caught up.
//!
//! # Where to read what
//!
//! | question | file |
//! |---|---|
//! | what goes in, what comes out, who is called when; changes of role | `replica.rs` |
//! | pre-vote, vote, who may disturb whom | `election.rs` |
//! | how a leader finds out what a follower has, and keeps it busy | `progress.rs`, then `sending.rs` |
//! | what a leader takes, counts and commits | `leader.rs` |
//! | how fast those are sent entries who lack many | `rationing.rs` |
//! | who gets heartbeats, and how often | `heartbeats.rs` |
//! | how leadership is handed over | `transfer.rs` |
//! | what a leader does whose disk stalls | `own_disk.rs` |
//! | what a follower does with an append | `follower.rs` |
//! | terms by index, the cache, what is durable | `log.rs` |
//! | linearizable reads | `reads.rs`; without a round, by lease, `lease.rs` |
//! | what no peer may say | `contradiction.rs` |
//! | who has lost what it had acknowledged | `voice.rs` |
//! | what a change of members makes of a configuration | `change.rs` |
//! | how a leader carries it out, and who is told | `reconfigure.rs` |
//! | how a new cluster finds out who its first members are | `birth.rs` |
//! | who lacks what the log has no more, and what becomes of its log | `snapshots.rs` |
//! | who counts | `quorum.rs`, `memberships.rs` |
//! | what must always hold, checked from outside | `invariants.rs` |
//! | every order of events within bounds | `tests/model.rs` |
//! | a situation, told step by step | `scripts/` (read one beside the code) |
//!
//! # What is not here
//!
//! The snapshots themselves: they are made, sent and loaded elsewhere, and named here by the entries at which they were
//! taken. Damaged entries.

mod birth;
mod by_node;
pub mod change;
mod contradiction;
mod election;
mod follower;
mod heartbeats;
pub mod invariants;
mod leader;
mod lease;
mod log;
mod memberships;
pub mod message;
mod own_disk;
mod progress;
mod quorum;
mod rationing;
mod reads;
mod reconfigure;
mod replica;
mod sending;
mod snapshots;
#[cfg(test)]
mod tests;
mod transfer;
mod voice;

use std::ops::Range;

use crate::types::{Entry, HardState, Incarnation, Index, LogId, Membership, NodeId, Term};

pub use change::{Change, Impossible};
pub use contradiction::{Contradicted, Contradiction};
pub use lease::{BootTime, LeaseOptions};
pub use memberships::Unsound;
pub use message::{Append, AppendOutcome, AppendReply, Base, Body, Message, Round, Sender};
pub use reconfigure::{ChangeRefused, Changed};
pub use replica::Replica;

/// What is fixed for the life of a replica.
#[derive(Clone, Debug)]
pub struct Config {
    pub id: NodeId,
    /// Ticks between heartbeats of a leader.
    pub heartbeat_ticks: u32,
    /// An election timeout is drawn from `election_ticks`, anew for each wait.
    pub election_ticks: Range<u32>,
    /// The replica's only randomness. Another one at every start: the numbers of questions begin at it, and an answer to
    /// the life before must not pass for one to this.
    pub seed: u64,
    pub limits: Limits,
}

/// The bounds of a replica's queues; the defaults stand in [`crate::limits`].
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// On their way to one follower, unacknowledged.
    pub window_bytes: usize,
    pub window_messages: usize,
    /// One AppendEntries holds at most this, or a single entry.
    pub append_bytes_max: usize,
    pub append_entries_max: usize,
    /// Proposed and not committed; beyond it `propose` answers [`Refused::Busy`].
    pub uncommitted_bytes_max: usize,
    /// The newest entries, kept in memory; those that are not yet durable stay whatever the bound.
    pub cache_bytes_max: usize,
    /// A follower that lacks what is no longer in memory, and is rationed because clients write, is sent at least this in
    /// a tick.
    pub ration_bytes_min: u64,
}

/// What was durable when the replica was made.
#[derive(Clone, Debug)]
pub struct Restored {
    pub hard_state: HardState,
    /// The entry before the first one of the log: [`LogId::ZERO`], or the snapshot's point.
    pub before_first: LogId,
    /// The log's entries as runs of one term, in order: each begins at an index and reaches to the next run or to
    /// `last`.
    pub terms: Vec<(Index, Term)>,
    /// The last entry of the log, or `before_first`.
    pub last: LogId,
    /// Known to be committed: the log's start, or what the state machine has applied.
    pub commit: Index,
    /// The point of the newest durable snapshot that this node can start from: [`LogId::ZERO`] if there is none, else not
    /// before `before_first`. It may lie beyond `last`, where one was installed and the log behind it is still to come.
    pub snapshot: LogId,
    /// The configurations in the log, in order of index; the first is in force before the log begins, or is that of
    /// `snapshot`, wherever its entry lies: then those of entries before that are left out. Never empty; for a node that
    /// joins a cluster the first one has no members.
    pub memberships: Vec<(Index, Membership)>,
    /// The term of the first one's entry, where the log does not have that.
    pub membership_term: Term,
}

impl Restored {
    /// Of a directory that was just made.
    pub fn fresh(first: Membership) -> Restored {
        Restored {
            hard_state: HardState::default(),
            before_first: LogId::ZERO,
            terms: Vec::new(),
            last: LogId::ZERO,
            commit: Index::ZERO,
            snapshot: LogId::ZERO,
            memberships: vec![(Index::ZERO, first)],
            membership_term: Term::ZERO,
        }
    }
}

/// What can happen to a replica.
#[derive(Clone, Debug)]
pub enum Input {
    /// One tick of the clock has passed.
    Tick,
    /// What a clock shows before the inputs that follow, and after all that was done before. For reads by lease alone;
    /// none is needed where they are off.
    Clock(BootTime),
    /// From a peer whose identity the transport has proven.
    Message(Message),
    /// This persist, and all before it, are on disk.
    Durable(PersistNumber),
    /// The state machine has applied up to and including this index.
    Applied(Index),
    /// The transport has a link to this node, in this life of it. Messages come from that life from now on.
    Met { node: NodeId, incarnation: Incarnation },
    /// The answer to a [`Fetch`]: consecutive entries from its `from` on; empty if they could not be read now.
    Fetched { peer: NodeId, from: Index, entries: Vec<Entry> },
    /// There is a durable snapshot of the state after this entry, which this node has applied.
    SnapshotMade { point: LogId },
    /// The log begins later now: after this entry, which is durable here, committed, and not beyond the newest snapshot.
    Compacted { before_first: LogId },
    /// What [`Event::SnapshotOffered`] told of is whole and durable in this node's directory, with the configuration in
    /// force at its point and that one's entry. If it is still wanted ([`Replica::wants`]) this log is empty from now on
    /// and begins as it says; else nothing happens.
    Installed { base: Base, membership: (LogId, Membership) },
}

/// Numbers the persists of a replica from 1 on, within one life of the process.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct PersistNumber(pub u64);

/// The name that the caller gives a read; it comes back with the answer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ReadToken(pub u64);

/// What must be done, in this order where the order matters: persist, send, then the rest.
#[derive(Clone, Debug, Default)]
pub struct Output {
    /// At most one per call: all that is new since the last.
    pub persist: Option<Persist>,
    pub send: Vec<Outgoing>,
    /// The commit index, if it has moved. Entries up to it may be applied, in order.
    pub commit: Option<Index>,
    /// Reads that may be served once the state machine has applied their index.
    pub reads_ready: Vec<ReadReady>,
    /// Reads that cannot be served here: the caller tells its client to ask again.
    pub reads_refused: Vec<ReadToken>,
    /// Entries that a follower needs and that are no longer in memory.
    pub fetch: Vec<Fetch>,
    /// What an operator or a test wants to know, in order.
    pub events: Vec<Event>,
}

impl Output {
    /// Whether there is nothing to be done.
    fn is_empty(&self) -> bool {
        let Output { persist, send, commit, reads_ready, reads_refused, fetch, events } = self;
        // Without a branch for each: this is asked after every input.
        let listed = send.len() | events.len() | fetch.len() | reads_ready.len() | reads_refused.len();
        listed == 0 && persist.is_none() && commit.is_none()
    }

    /// Nothing is to be done; what was, leaves its memory behind.
    fn clear(&mut self) {
        let Output { persist, send, commit, reads_ready, reads_refused, fetch, events } = self;
        (*persist, *commit) = (None, None);
        send.clear();
        reads_ready.clear();
        reads_refused.clear();
        fetch.clear();
        events.clear();
    }
}

/// To be made durable: first the hard state and the base, then the log's new beginning, then the entries.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Persist {
    pub number: PersistNumber,
    pub hard_state: Option<HardState>,
    /// A snapshot takes the place of the log, of which nothing is left but what follows here. That it does is durable
    /// before anything of the log goes, so that a start that finds the old one ends it.
    pub base: Option<Base>,
    /// Consecutive. If the first has an index that the log has already, everything from there on is replaced.
    pub entries: Vec<Entry>,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Outgoing {
    pub message: Message,
    /// Must not leave before this persist is durable.
    pub after: Option<PersistNumber>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReadReady {
    pub token: ReadToken,
    pub index: Index,
}

/// Entries to be read from the log, off the core, for a follower that lags.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fetch {
    pub peer: NodeId,
    pub from: Index,
    /// Not beyond this index, and not (much) more bytes than `bytes_max`; at least one entry.
    pub last: Index,
    pub bytes_max: usize,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    RoleChanged {
        role: Role,
        term: Term,
    },
    LeaderChanged {
        leader: Option<NodeId>,
        term: Term,
    },
    /// A leader heard no majority for an election timeout and stepped down.
    QuorumLost {
        term: Term,
    },
    /// A leader's disk has not finished a flush for half the shortest election timeout, while others' did: leadership is
    /// handed over, or, where that failed, given up.
    DiskStalls {
        to: Option<NodeId>,
    },
    /// The making of the next segment hangs at a leader, and clients wait for it: leadership is handed over.
    SegmentHangs {
        to: NodeId,
    },
    /// A leader cannot read the entry that a follower needs next, and hands leadership over.
    LogDamaged {
        to: NodeId,
        follower: NodeId,
        index: Index,
    },
    /// A follower's conflicting entries from this index on were replaced.
    Replaced {
        from: Index,
    },
    /// Another configuration is in force, from this entry; by an entry, or because one was replaced.
    MembershipChanged {
        index: Index,
    },
    /// The configuration in force is committed.
    MembershipCommitted {
        index: Index,
    },
    /// The leader's log no longer reaches back to what this follower lacks, and the leader has no snapshot.
    SnapshotNeeded {
        peer: NodeId,
    },
    /// This node lacks what its leader's log has no more: it needs the snapshot that the leader offers. Told with each
    /// offer; [`Input::Installed`] is what should come of it.
    SnapshotOffered {
        from: NodeId,
        base: Base,
    },
    /// This follower had acknowledged an entry to this leader, and its log ends before: it counts for nothing any more, in
    /// this life of it.
    VoiceLost {
        peer: NodeId,
        acknowledged: LogId,
        /// The highest of its entries that the leader's log may share.
        holds: LogId,
    },
    /// A peer said what cannot be. Nothing of this output and of later ones is to be done but to end, with this line.
    Contradiction(Contradiction),
}

/// What a replica does in its term.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    Follower,
    /// Asks whether an election could be won, without starting one.
    PreCandidate,
    Candidate,
    Leader,
}

/// Why a replica does not take a proposal or a read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refused {
    #[error("this node does not lead")]
    NotLeader { leader: Option<NodeId> },
    #[error("too much is waiting to be committed")]
    Busy,
    /// See [`Replica::with_leases`].
    #[error("reads by lease are off in this cluster")]
    LeasesOff,
    #[error("leadership is being handed over")]
    TransferPending,
    /// Leadership can be handed over only to one.
    #[error("that node is not another voter")]
    NotAnotherVoter,
}

/// What a replica knows of itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Status {
    pub role: Role,
    pub hard_state: HardState,
    pub leader: Option<NodeId>,
    pub last: LogId,
    /// The last entry that is on this node's disk; zero while a snapshot's log begins there.
    pub durable: LogId,
    pub commit: Index,
}
