//! A model checker over the core itself: every order of events within bounds, not a sample of them.
//!
//! ```text
//!   World: replicas, disks, messages under way, what is left of the bounds, what the oracle remembers
//!      │ each action that can be taken                    fingerprint, 128 bits
//!      ▼                                                          ▼
//!   World' ── rules (raft::invariants, and the logs side by side) ── covered? ── no: it waits for its turn
//! ```
//!
//! A state is made of real [`Replica`](crate::raft::Replica)s, and an action calls them as a driver does. What can
//! happen at any time is a choice of the model: which message arrives and whether it ever does, which write is done and
//! what of the writes under way a crash leaves, who stands for election and when.
//!
//! What is different from a running cluster, and why it may be:
//!
//! - **Time.** Clocks of nodes are not tied to each other, so whatever a clock can bring about may happen at any
//!   moment: an election timeout, a heartbeat, a leader that gives up. Counters of ticks are set to one value after
//!   each action (see `canonical.rs`), and an action sets the one that it needs. In this way more can happen than does.
//! - **Pre-vote** ([`Bounds::pre_vote`] off): whoever's timer ends is told that it would be elected. With it on, the
//!   messages are those of the core, and a follower hears its leader or has not heard it for a while.
//! - **The network** is a set. What is in it may arrive at any time or never, which is loss and reordering; identical
//!   messages count as one; so many may arrive twice as [`Bounds::duplicates`] says. A message that can change nothing
//!   any more is taken out (`dead.rs` has the rules, each of which is an argument of its own), and one that changes
//!   nothing now stays, since whatever can happen without it can happen beside it.
//! - **What is covered is not looked at.** Of two states that differ in what is under way and in what is left of the bounds
//!   alone, one of which has all messages of the other and as much left, that one can do whatever the other can, since
//!   messages may be lost and nothing need happen: the same nodes hear the same and come to the same, with more under way. So whatever follows from the other and breaks a rule is found from
//!   the one (`seen.rs`). What the oracle remembers is no more with fewer messages, so it finds no less.
//! - **What can show nothing any more is forgotten** by the oracle (`Invariants::forget`): votes and leaders of terms that
//!   nobody can come back to, entries that nobody holds and nobody can make again, and what a restart would have to
//!   honour when none can follow.
//! - **Disks.** While a crash may follow, each write waits until the model does it, and a crash keeps any number of the
//!   oldest. Where none can follow any more writes are done at once, but with [`Bounds::slow_disks`]: then what waits for
//!   a write is a message that comes later, but for what a leader counts of its own log.
//! - **Numbers** that are only compared (of persists) begin at 0 in each state; those of rounds are all 0 where no read
//!   and no change of members looks at them.
//! - **Symmetry.** Of voters that have not taken part yet the first is taken: the others are like it.
//! - **Disturbances** ([`Bounds::disturbances`]) bound what is too much otherwise. Left alone, a write is done at once,
//!   messages arrive in the order in which they were sent, and what else happens (an election, an entry, a crash, ...)
//!   happens when nothing is under way. Each of these is a disturbance: a message that is late, and arrives at any time
//!   from then on, or never; a disk that is slow until it has nothing to do (while crashes are left: else writes are part of
//!   a step, and what comes late of them are the messages); something that happens in between, such as a crash while a write
//!   is under way.
//!
//! Left out: several inputs before one output, reads of a log that is not in memory taking their time, disks that
//! stall, full windows, logs of which more is kept than their snapshot needs. Random histories (random.rs) have all of
//! them but the third, which own_disk.rs has.

mod actions;
mod canonical;
mod dead;
mod explore;
mod fingerprint;
mod proofs;
mod seen;
mod world;
mod zoo;

/// How much may happen in the histories that are looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bounds {
    /// Voters at the beginning: nodes 1, 2, ...
    pub voters: u64,
    /// Learners at the beginning, with the next ids.
    pub learners: u64,
    /// The beginning is not an empty cluster but a leader, node 1, whose no-op everybody knows to be committed. Its
    /// election is one of `elections`.
    pub settled: bool,
    /// Nobody stands in a higher term.
    pub terms: u64,
    /// How often somebody stands for election.
    pub elections: u8,
    /// Entries of clients, beside the no-op of each leader.
    pub entries: u8,
    /// Nodes that lose their power, and start again at once.
    pub crashes: u8,
    /// Messages that arrive and stay under way.
    pub duplicates: u8,
    /// Writes take time also when no crash can follow, to which it would matter what is written. Else they are done at
    /// once then.
    pub slow_disks: bool,
    /// Answers that a leader takes for overdue, so that it sends again.
    pub resends: u8,
    /// Leaders that hear no majority.
    pub step_downs: u8,
    /// Heartbeats; `None` for any number, if nothing looks at their rounds.
    pub heartbeats: Option<u8>,
    /// Reads, at leaders and at followers.
    pub reads: u8,
    /// Changes of members.
    pub changes: u8,
    /// Requests to hand leadership over.
    pub transfers: u8,
    /// Nodes that make a snapshot of what they know to be committed, and whose logs begin behind it from then on. Who is
    /// offered one installs it at any time, or never.
    pub compactions: u8,
    /// Pre-votes, and the protection of a leader that is heard, are those of the core.
    pub pre_vote: bool,
    /// Whether all goes its straight way, but so often; `None` if anything may happen at any time.
    pub disturbances: Option<u8>,
}

impl Bounds {
    /// Three voters, one term, nothing else.
    pub const LEAST: Bounds = Bounds {
        voters: 3,
        learners: 0,
        settled: false,
        terms: 1,
        elections: 1,
        entries: 0,
        crashes: 0,
        duplicates: 0,
        slow_disks: false,
        resends: 0,
        step_downs: 0,
        heartbeats: None,
        reads: 0,
        changes: 0,
        transfers: 0,
        compactions: 0,
        pre_vote: false,
        disturbances: None,
    };

    /// Whether the numbers of rounds mean something.
    fn has_rounds(&self) -> bool {
        self.reads > 0 || self.changes > 0 || self.transfers > 0
    }
}
