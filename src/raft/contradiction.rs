//! What a peer says and cannot be, after all that this node knows.
//!
//! No fault that design §1 tolerates makes a correct peer say any of this. Either the peer has forgotten or changed
//! what it had promised, or this node has; nobody can tell here which. So the replica does not go on by either's
//! word: it falls silent, and whoever drives it ends the process with the line that stands here. It does not panic:
//! that is for our own bugs, and a peer's words are none of them.

use crate::limits::{INDEX_MAX, TERM_MAX};
use crate::types::{Index, LogId, NodeId, Payload, Term};

use super::memberships::{Unsound, unsound};
use super::replica::Replica;
use super::{Append, AppendOutcome, Base, Body, Event, Message, Round};

/// A peer contradicts what this node knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("node {peer} contradicts what is known here in term {term}: {what}")]
pub struct Contradiction {
    /// Who said it.
    pub peer: NodeId,
    /// This node's term when it heard it.
    pub term: Term,
    pub what: Contradicted,
}

/// What was said, and what is known.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Contradicted {
    /// Election safety (§5.2).
    #[error("it leads in this term, in which node {leader} leads")]
    TwoLeaders { leader: NodeId },
    /// What is committed is in the log of each later leader (§5.4.3).
    #[error("it names entry {said}, and {held} is committed in its place")]
    CommittedDiffers { said: LogId, held: LogId },
    /// Within its term a leader's log is only appended to (§5.3).
    #[error("it names entry {said}, and had {held} in its place earlier in this term")]
    SentDiffers { said: LogId, held: LogId },
    #[error("it says to hold this log up to {said}, and the log ends with {last}")]
    MatchedBeyond { said: Index, last: LogId },
    /// The leader tells what this node has acknowledged.
    #[error("it counts on this node's entries up to {said}, and the log ends with {last}")]
    AcknowledgedBeyond { said: Index, last: LogId },
    #[error("it answers round {}, and the newest is {}", said.0, newest.0)]
    RoundAhead { said: Round, newest: Round },
    #[error("it names entry {id} behind {before}")]
    OutOfOrder { before: LogId, id: LogId },
    #[error("it names entry {id}, whose term lies ahead of its own")]
    TermAhead { id: LogId },
    #[error("it sent a configuration in entry {id} that is none: {why}")]
    Configuration { id: LogId, why: Unsound },
    /// Behind it there would be no next one.
    #[error("it names {number} as a term or an index, beyond any that there can be")]
    OutOfRange { number: u64 },
}

impl Contradiction {
    /// Whether it shows that this node has lost what it had acknowledged: the leader counts on it in its own term, and is
    /// told nothing but what was durable here.
    pub fn takes_voice(&self) -> bool {
        matches!(self.what, Contradicted::AcknowledgedBeyond { .. })
    }

    /// What the operator can do about it.
    pub fn next_step(&self) -> &'static str {
        match self.what {
            Contradicted::TwoLeaders { .. } => {
                "some node has voted twice: look for a directory that was emptied or put back from an older copy, \
                 and for two nodes under one id, and keep that node stopped; then start this one again"
            }
            Contradicted::CommittedDiffers { .. }
            | Contradicted::SentDiffers { .. }
            | Contradicted::MatchedBeyond { .. }
            | Contradicted::AcknowledgedBeyond { .. } => {
                "one of the two nodes has lost or changed what it had acknowledged: keep both directories as they \
                 are, run `trilith wal verify` on both, and look for one that was put back from an older copy; keep \
                 that node stopped, and start the other again"
            }
            Contradicted::RoundAhead { .. }
            | Contradicted::OutOfOrder { .. }
            | Contradicted::TermAhead { .. }
            | Contradicted::Configuration { .. }
            | Contradicted::OutOfRange { .. } => {
                "that node does not follow the protocol: compare `trilith --version` on both, keep it stopped if it \
                 is another program, and report this line; then start this node again"
            }
        }
    }
}

impl Replica {
    /// From here on this replica says nothing any more, whatever it hears.
    pub(super) fn contradict(&mut self, peer: NodeId, what: Contradicted) {
        let contradiction = Contradiction { peer, term: self.term(), what };
        self.step_down();
        self.output.events.push(Event::Contradiction(contradiction));
        self.contradiction = Some(contradiction);
    }

    /// What is wrong with an append by itself, or with the entries of it that this node knows to have already: up to
    /// `verified` its log is the leader's.
    pub(super) fn contradicted_by(&self, append: &Append, verified: Index) -> Option<Contradicted> {
        self.malformed(append).or_else(|| {
            let ids = std::iter::once(append.previous).chain(append.entries.iter().map(|entry| entry.id));
            ids.take_while(|said| said.index <= verified).find_map(|said| self.differs(said))
        })
    }

    /// The same of an offer: the log that it means is the leader's.
    pub(super) fn contradicted_by_offer(&self, base: Base, verified: Index) -> Option<Contradicted> {
        let Base { point, begin_after } = base;
        if point.term > self.term() {
            return Some(Contradicted::TermAhead { id: point });
        }
        let is_in_order = begin_after == point || (begin_after.index < point.index && begin_after.term <= point.term);
        if !is_in_order {
            return Some(Contradicted::OutOfOrder { before: begin_after, id: point });
        }
        let known = [begin_after, point].into_iter().filter(|said| said.index <= verified);
        known.into_iter().find_map(|said| self.differs(said))
    }

    fn differs(&self, said: LogId) -> Option<Contradicted> {
        // What lies before the log's start is not known any more.
        let held = LogId::new(self.log.term_at(said.index)?, said.index);
        match held == said {
            true => None,
            false if said.index <= self.commit => Some(Contradicted::CommittedDiffers { said, held }),
            false => Some(Contradicted::SentDiffers { said, held }),
        }
    }

    /// Entries follow each other, their terms do not fall and do not pass the leader's, and configurations are such.
    fn malformed(&self, append: &Append) -> Option<Contradicted> {
        let mut before = append.previous;
        if before.term > self.term() {
            return Some(Contradicted::TermAhead { id: before });
        }
        for entry in &append.entries {
            let id = entry.id;
            if id.index != before.index.next() || id.term < before.term {
                return Some(Contradicted::OutOfOrder { before, id });
            }
            if id.term > self.term() {
                return Some(Contradicted::TermAhead { id });
            }
            if let Payload::Membership(membership) = &entry.payload
                && let Some(why) = unsound(membership)
            {
                return Some(Contradicted::Configuration { id, why });
            }
            before = id;
        }
        None
    }
}

/// A number in the message behind which there may be no next one.
pub(super) fn out_of_range(message: &Message) -> Option<Contradicted> {
    let (terms, indexes) = match &message.body {
        Body::PreVote { next, last } => ([*next, last.term], [last.index, Index::ZERO]),
        Body::PreVoteReply { next, .. } => ([*next, Term::ZERO], [Index::ZERO; 2]),
        Body::Vote { last, .. } => ([last.term, Term::ZERO], [last.index, Index::ZERO]),
        Body::Append(append) => {
            let last = append.previous.index.0.saturating_add(append.entries.len() as u64);
            ([append.previous.term, Term::ZERO], [Index(last), append.commit])
        }
        Body::AppendReply(reply) => match reply.outcome {
            AppendOutcome::Matched { last } => ([Term::ZERO; 2], [last, Index::ZERO]),
            AppendOutcome::Rejected { previous, hint } => ([previous.term, hint.term], [previous.index, hint.index]),
        },
        Body::Heartbeat { commit, .. } => ([Term::ZERO; 2], [*commit, Index::ZERO]),
        Body::ReadIndexReply { index, .. } => ([Term::ZERO; 2], [index.unwrap_or_default(), Index::ZERO]),
        Body::Snapshot { base: Base { point, begin_after }, .. } => {
            ([point.term, begin_after.term], [point.index, begin_after.index])
        }
        Body::VoteReply { .. } | Body::HeartbeatReply { .. } | Body::ReadIndex { .. } | Body::StandNow => {
            ([Term::ZERO; 2], [Index::ZERO; 2])
        }
    };
    let term = terms.into_iter().chain([message.term]).map(|term| term.0).find(|term| *term > TERM_MAX);
    let index = indexes.into_iter().map(|index| index.0).find(|index| *index > INDEX_MAX);
    term.or(index).map(|number| Contradicted::OutOfRange { number })
}
