//! What replicas say to each other.
//!
//! Every message names sender, receiver and the sender's term. A reply also echoes the term in which the question
//! was asked where the answer's meaning depends on it (`asked`), so that an answer to an older self is recognised.

use crate::types::{Entry, Incarnation, Index, LogId, NodeId, Term};

/// One message from a replica to another.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Message {
    pub from: NodeId,
    pub to: NodeId,
    /// The sender's term. For [`Body::PreVote`] the sender's present term, not the one it would stand in.
    pub term: Term,
    pub body: Body,
}

/// Who has sent a message, beside its id: what the sender said of itself when its link began.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sender {
    pub incarnation: Incarnation,
    /// Counts the starts of that life. For whoever drives a replica: its messages are those of one start at a time.
    pub boot: u64,
    /// The entry of the configuration that was in force there.
    pub configuration: LogId,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Body {
    /// "Would you vote for me in `next`?" Changes nothing at either end (dissertation §9.6).
    PreVote {
        next: Term,
        last: LogId,
    },
    PreVoteReply {
        next: Term,
        granted: bool,
    },
    /// RequestVote (§5.2). `transfer` is set when the leader itself asked the candidate to stand: then the receiver
    /// does not protect a leader that it hears (dissertation §4.2.3).
    Vote {
        last: LogId,
        transfer: bool,
    },
    VoteReply {
        granted: bool,
    },
    /// AppendEntries (§5.3) with entries, or as the probe that finds where the logs part.
    Append(Append),
    AppendReply(AppendReply),
    /// "I still lead." Carries no entries and checks no log; moves the commit index up to what is known to match.
    Heartbeat {
        commit: Index,
        round: Round,
    },
    HeartbeatReply {
        round: Round,
    },
    /// A follower asks for a read index on behalf of its clients. `asked` is a number of the follower's own.
    ReadIndex {
        asked: u64,
    },
    /// `index` is `None` if the receiver does not lead, or cannot answer yet.
    ReadIndexReply {
        asked: u64,
        index: Option<Index>,
    },
    /// "Stand for election now" (leadership transfer, dissertation §3.10).
    StandNow,
    /// "What you lack is in my log no more: begin with this" (§7). An offer, without the snapshot's bytes: the receiver
    /// fetches them, or it has what it needs and says so by an [`AppendReply`]. The answer to it is that, or none.
    Snapshot {
        base: Base,
        round: Round,
    },
}

impl Body {
    /// Whether it says what its sender has promised, holds or has heard: that may be counted.
    pub(super) fn is_answer(&self) -> bool {
        match self {
            Body::PreVoteReply { .. }
            | Body::VoteReply { .. }
            | Body::AppendReply(_)
            | Body::HeartbeatReply { .. }
            | Body::ReadIndexReply { .. } => true,
            Body::PreVote { .. }
            | Body::Vote { .. }
            | Body::Append(_)
            | Body::Heartbeat { .. }
            | Body::ReadIndex { .. }
            | Body::StandNow
            | Body::Snapshot { .. } => false,
        }
    }
}

/// What a log can begin with instead of its first entry.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Base {
    /// A snapshot: it holds the state after this entry, and the configuration in force there.
    pub point: LogId,
    /// The entry after which the log begins that goes with it. Committed, and not beyond `point`: where more is kept of the
    /// log than the snapshot needs, it lies before.
    pub begin_after: LogId,
}

/// Numbers a leader's rounds of heartbeats within its term. A reply that carries round r shows that the sender
/// followed this leader at or after the time when r was sent.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct Round(pub u64);

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Append {
    /// The entry before the first one sent: the receiver must have it.
    pub previous: LogId,
    /// In order, without gaps, from `previous.index + 1` on. Empty in a probe.
    pub entries: Vec<Entry>,
    /// The leader's commit index at the time of sending; may lie beyond the entries sent.
    pub commit: Index,
    /// The newest round at the time of sending: an append is a heartbeat, too.
    pub round: Round,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct AppendReply {
    /// The newest round that the receiver has heard; of a rejection that of the append which is rejected.
    pub round: Round,
    pub outcome: AppendOutcome,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum AppendOutcome {
    /// The receiver holds, **durably**, the leader's log up to and including this index.
    Matched { last: Index },
    /// The receiver does not have `previous`. `hint` is the highest entry of its own log at or below
    /// `previous.index` whose term is at most `previous.term`: no entry above it can match (§5.3, the optimisation).
    Rejected { previous: LogId, hint: LogId },
}
