//! The nouns that every folder shares. No logic beyond what the noun itself means.
//!
//! Identifiers are newtypes: a term is never an index, and the compiler says so. Ranges of indexes are half-open;
//! where an end is inclusive its name is `last`.

use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;

use bytes::Bytes;

use crate::checksum::Checksum;

/// Which member of a cluster. Chosen by the operator, at least 1, never used again for another machine's data under
/// the same [`Incarnation`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct NodeId(pub u64);

/// Raft's logical clock. Term 0 is before the first election.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct Term(pub u64);

/// The place of an entry in a group's log. The first entry has index 1; index 0 is "before the log".
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct Index(pub u64);

/// Which of the logs that share one directory. A cluster uses [`GroupId::CLUSTER`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct GroupId(pub u32);

/// The name of an entry. Two entries with the same name are the same entry (Raft §5.3). Prints as `index@term`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct LogId {
    /// First, so that the derived order is the order of "more up to date" (Raft §5.4.1).
    pub term: Term,
    pub index: Index,
}

/// What a replica must never forget: changed before it speaks, read before it speaks again.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct HardState {
    /// The highest term this node has met. Only grows.
    pub term: Term,
    /// Whom this node voted for in `term`. Within a term it changes once, from `None`.
    pub vote: Option<NodeId>,
}

/// Which cluster: random, drawn when the first member is made. In every frame, handshake, segment and snapshot.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClusterId(pub u128);

/// Which life of a node id: random, drawn when its directory is made. A node that lost its disk comes back under the
/// same id with another incarnation, and so cannot pass for the one that had voted.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Incarnation(pub u64);

/// Which client session: the index of the entry that registered it. 0 is "no session".
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct SessionId(pub u64);

/// Which request of a session. Counts from 1 without gaps.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct RequestNumber(pub u64);

/// Which segment of the log. Counts from 1; a number is used once in the life of a directory.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct SegmentNumber(pub u64);

/// Which frame of the log. Runs on across segments and counts from 1.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct FrameNumber(pub u64);

/// An end in the log's files: the byte after frame `frame`, which lies in `segment`. Frames up to and including
/// `frame` are meant. The order is that of the log: by frame first, whose numbers rise whatever becomes of the files. The
/// default lies before every frame.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct Place {
    pub frame: FrameNumber,
    pub segment: SegmentNumber,
    pub offset: u64,
}

/// One entry of a group's log.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Entry {
    pub id: LogId,
    pub payload: Payload,
}

/// What an entry says.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Payload {
    /// The first entry of each term (Raft §8): says nothing, lets earlier terms' entries commit.
    Noop,
    /// A new configuration, effective when appended. Elsewhere in memory: it is large and rare, and data is neither.
    Membership(Box<Membership>),
    /// Entries below `first` may go.
    Trim { first: Index },
    /// Every node takes its snapshot here, so that they are equal byte for byte.
    SnapshotPoint,
    /// What a client gave.
    Data(Data),
}

/// Bytes from a client with the checksum that it made of them.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Data {
    /// A [`Command`] and its body, as `codec` writes them.
    pub bytes: Bytes,
    /// `Checksum::of(bytes)`, made by the client, checked at each hop, stored on disk.
    pub checksum: Checksum,
}

/// The head of every client's data: who asks, and for what.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Command {
    pub service: Service,
    /// 0 for [`Service::Register`].
    pub session: SessionId,
    /// The number of this request in its session; 0 for [`Service::Register`].
    pub number: RequestNumber,
    /// The lowest number that the client has no answer to; answers below it need not be kept.
    pub lowest_unanswered: RequestNumber,
}

/// Which service a command is for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Service {
    /// Begin a session. The body is empty.
    Register,
    /// Append the body to the log, as it is.
    Append,
    /// Run the body on the state machine.
    Machine,
}

/// One member of the cluster.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Member {
    pub id: NodeId,
    pub incarnation: Incarnation,
    pub address: SocketAddr,
}

/// Which life of its id a node is. A configuration with another life of it means another node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Life {
    pub incarnation: Incarnation,
    /// Made with the cluster, whose first configuration leaves incarnations open (0). To a later member that is
    /// somebody else.
    pub is_first_member: bool,
}

/// Who belongs to the cluster and who counts. Sorted by id, no id twice.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Membership {
    /// Everyone, learners included.
    pub members: Vec<Member>,
    /// The voters of the configuration (the incoming one while joint).
    pub voters: BTreeSet<NodeId>,
    /// The voters of the outgoing configuration; empty unless the change is joint (dissertation §4.3).
    pub voters_outgoing: BTreeSet<NodeId>,
    /// Learners that become voters as soon as they have caught up, whoever leads then.
    pub promoting: BTreeSet<NodeId>,
    /// The cluster is being born: it serves nobody, and whatever is decided takes all voters (design §6, Birth).
    pub forming: bool,
}

impl Incarnation {
    /// In the configuration of a cluster that is being born: each first member draws its own, and none knows the others'.
    pub const OPEN: Incarnation = Incarnation(0);
}

impl Life {
    /// Whether a configuration that names this incarnation under the node's id means this life of it.
    pub fn is_named_by(self, incarnation: Incarnation) -> bool {
        incarnation == self.incarnation || (incarnation == Incarnation::OPEN && self.is_first_member)
    }
}

impl NodeId {
    /// Ids count from 1, so that 0 on disk can mean "nobody".
    pub const FIRST: NodeId = NodeId(1);
}

impl Term {
    pub const ZERO: Term = Term(0);

    pub fn next(self) -> Term {
        Term(self.0 + 1)
    }
}

impl Index {
    /// Before the first entry.
    pub const ZERO: Index = Index(0);
    pub const FIRST: Index = Index(1);

    pub fn next(self) -> Index {
        Index(self.0 + 1)
    }

    /// The index before this one. Panics at 0: nothing lies before "before the log".
    pub fn previous(self) -> Index {
        assert!(self.0 > 0, "no index lies before 0");
        Index(self.0 - 1)
    }

    /// The index `count` further on.
    pub fn plus(self, count: u64) -> Index {
        Index(self.0 + count)
    }
}

impl GroupId {
    /// The group of a node's replicated log.
    pub const CLUSTER: GroupId = GroupId(0);
}

impl LogId {
    /// Before the first entry.
    pub const ZERO: LogId = LogId { term: Term::ZERO, index: Index::ZERO };

    pub fn new(term: Term, index: Index) -> LogId {
        LogId { term, index }
    }
}

impl SegmentNumber {
    pub fn next(self) -> SegmentNumber {
        SegmentNumber(self.0 + 1)
    }
}

impl FrameNumber {
    pub fn next(self) -> FrameNumber {
        FrameNumber(self.0 + 1)
    }
}

impl Place {
    /// Before every frame.
    pub const START: Place = Place { segment: SegmentNumber(0), offset: 0, frame: FrameNumber(0) };
}

impl Payload {
    /// How many bytes of client data the entry holds: what limits in bytes count besides a fixed cost per entry.
    pub fn data_bytes(&self) -> usize {
        match self {
            Payload::Data(data) => data.bytes.len(),
            Payload::Noop | Payload::Membership(_) | Payload::Trim { .. } | Payload::SnapshotPoint => 0,
        }
    }
}

impl Data {
    /// Client data with its checksum made here: for clients and tests.
    pub fn new(bytes: Bytes) -> Data {
        let checksum = Checksum::of(&bytes);
        Data { bytes, checksum }
    }
}

impl Membership {
    pub fn member(&self, id: NodeId) -> Option<&Member> {
        self.members.iter().find(|member| member.id == id)
    }

    pub fn is_voter(&self, id: NodeId) -> bool {
        self.voters.contains(&id) || self.voters_outgoing.contains(&id)
    }

    pub fn is_joint(&self) -> bool {
        !self.voters_outgoing.is_empty()
    }
}

macro_rules! display_number {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(formatter)
            }
        }
    )*};
}

display_number!(NodeId, Term, Index, GroupId, SessionId, RequestNumber, SegmentNumber, FrameNumber);

impl fmt::Display for LogId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}@{}", self.index, self.term)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "segment {} offset {} frame {}", self.segment, self.offset, self.frame)
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:032x}", self.0)
    }
}

impl fmt::Debug for ClusterId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{self}")
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:016x}", self.0)
    }
}

impl fmt::Debug for Incarnation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{self}")
    }
}
