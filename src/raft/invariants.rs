//! What must hold in a cluster whatever happens, checked step by step from outside.
//!
//! Whoever runs several replicas in one place (the tests of this folder, the simulator) tells an [`Invariants`] of
//! every output that was taken, every message that left and every restart. It remembers what was said and decided, and
//! compares: one leader per term (§5.2), log matching (§5.3), leader completeness (§5.4.3), state machine safety
//! (§5.4.3), no old term's entry committed by counting (§5.4.2), committed stays committed, term and commit only grow,
//! one vote per term, nothing said that could be forgotten. The cost is a look-up per entry appended and per entry
//! committed; a new leader is compared with all that is committed.

use std::collections::BTreeMap;

use crate::types::{Entry, HardState, Index, LogId, NodeId, Payload, Term};

use super::{AppendOutcome, AppendReply, Body, Event, Message, Output, Replica, Role};

/// A rule of Raft was broken: a bug, never a fault of the world.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Violation {
    #[error("{first} and {second} both lead in term {term}")]
    TwoLeaders { term: Term, first: NodeId, second: NodeId },
    #[error("{node} voted for {first} and for {second} in term {term}")]
    TwoVotes { term: Term, node: NodeId, first: NodeId, second: NodeId },
    #[error("{node} went from {before:?} to {after:?}")]
    HardStateForgotten { node: NodeId, before: HardState, after: HardState },
    #[error("{node} spoke of what is not on its disk: {message:?}")]
    SpokeTooSoon { node: NodeId, message: Box<Message> },
    #[error("{node} moved its commit index back from {before} to {after}")]
    CommitFell { node: NodeId, before: Index, after: Index },
    #[error("entry {id} of {node} is not what it is elsewhere, or does not follow what it follows there")]
    LogMismatch { node: NodeId, id: LogId },
    #[error("{node} holds {held:?} at {index}, where {committed} is committed")]
    CommittedDiffers { node: NodeId, index: Index, committed: LogId, held: Option<Term> },
    #[error("the log of {node} begins after {before_first}, which is not committed")]
    BeginsUncommitted { node: NodeId, before_first: LogId },
    #[error("{node} started without {lost}, which is committed and which it had said in term {term} to hold durably")]
    Forgotten { node: NodeId, lost: LogId, term: Term },
    #[error("{node}, leader of term {term}, committed {counted} of an older term by counting")]
    OldTermCounted { node: NodeId, term: Term, counted: LogId },
    #[error("{node} leads in term {term} without {missing}, which was committed before")]
    LeaderIncomplete { node: NodeId, term: Term, missing: LogId },
}

/// See the module.
#[derive(Clone, Hash, Debug, Default)]
pub struct Invariants {
    nodes: BTreeMap<NodeId, Observed>,
    leaders: BTreeMap<Term, NodeId>,
    votes: BTreeMap<(Term, NodeId), NodeId>,
    /// Up to where a node has said, in a term, that it holds the log of that term's leader durably; a leader says so by
    /// counting itself.
    vouched: BTreeMap<(NodeId, Term), Index>,
    /// Entry i stands at place i - 1.
    committed: Vec<Committed>,
    /// Entries that some log has held and that are not known to be committed: what each is and follows.
    appended: BTreeMap<(Index, Term), Appended>,
}

/// One node, in its present life.
#[derive(Clone, Copy, Hash, Debug, Default)]
struct Observed {
    hard_state: HardState,
    commit: Index,
    /// What others have heard of: it must survive a restart.
    spoken: HardState,
}

#[derive(Clone, Hash, Debug)]
struct Committed {
    id: LogId,
    /// The term of the node that committed it first: leaders of later terms must have it.
    in_term: Term,
    payload: Option<Payload>,
}

#[derive(Clone, Hash, Debug)]
struct Appended {
    previous: Option<Term>,
    payload: Payload,
}

impl Invariants {
    /// Everything up to here is committed, as far as any node knows.
    pub fn committed(&self) -> Index {
        Index(self.committed.len() as u64)
    }

    /// The payload that is committed at `index`, if it was seen.
    pub fn committed_payload(&self, index: Index) -> Option<&Payload> {
        self.committed.get((index.0.checked_sub(1)?) as usize)?.payload.as_ref()
    }

    /// A node's directory was made anew, before its cluster was born: nothing that its life before has said binds it, and
    /// what no disk holds any more behind `kept` was never committed.
    pub fn made_anew(&mut self, node: NodeId, kept: Index) {
        self.committed.truncate(kept.0 as usize);
        self.nodes.remove(&node);
        self.leaders.retain(|_, leader| *leader != node);
        self.votes.retain(|(_, voter), _| *voter != node);
        self.vouched.retain(|(vouching, _), _| *vouching != node);
    }

    /// A node's machine was given to another life of its id, with an empty disk: what the life before has said binds it no
    /// more. Which leaders there were and what was voted stays: no term has two leaders, nor two votes of one id that count.
    pub fn begins_another_life(&mut self, node: NodeId) {
        self.nodes.remove(&node);
        self.vouched.retain(|(vouching, _), _| *vouching != node);
    }

    /// Leaves out what can show nothing any more, so that whoever compares histories takes those for one that differ in it
    /// alone. No node says anything of a term before `floor` any more, nor comes back to one; `restarts` says whether one may
    /// start again; what logs, disks and messages hold of older terms is what `is_held` says.
    pub fn forget(&mut self, floor: impl Fn(NodeId) -> Term, restarts: bool, is_held: impl Fn(LogId) -> bool) {
        self.votes.retain(|(term, voter), _| *term >= floor(*voter));
        let lowest = self.nodes.keys().map(|node| floor(*node)).min().unwrap_or_default();
        self.leaders.retain(|term, _| *term >= lowest);
        // Only the leader of its term makes an entry.
        self.appended.retain(|(index, term), _| *term >= lowest || is_held(LogId::new(*term, *index)));
        if !restarts {
            self.vouched.clear();
            self.nodes.values_mut().for_each(|observed| observed.spoken = HardState::default());
        }
    }

    /// A replica was made from what was durable: at first, or after a crash.
    pub fn started(&mut self, replica: &Replica) -> Result<(), Violation> {
        let (node, status) = (replica.id(), replica.status());
        let observed = self.nodes.entry(node).or_default();
        check_hard_state(node, observed.spoken, status.hard_state)?;
        observed.hard_state = status.hard_state;
        observed.commit = status.commit;
        self.check_vouched(replica)?;
        self.check_beginning(replica)?;
        self.check_committed_at(replica, status.commit)
    }

    /// The output that `replica` has just given.
    pub fn took(&mut self, replica: &Replica, output: &Output) -> Result<(), Violation> {
        let (node, status) = (replica.id(), replica.status());
        if let Some(persist) = &output.persist {
            self.check_entries(replica, &persist.entries)?;
        }
        let before = *self.nodes.entry(node).or_default();
        check_hard_state(node, before.hard_state, status.hard_state)?;
        if status.commit < before.commit {
            return Err(Violation::CommitFell { node, before: before.commit, after: status.commit });
        }
        self.check_beginning(replica)?;
        self.check_committed_at(replica, before.commit)?;
        for index in before.commit.0 + 1..=status.commit.0 {
            self.check_commit(replica, Index(index), status.hard_state.term)?;
        }
        if status.role == Role::Leader {
            check_counted(replica, output)?;
            self.check_leader(replica, status.hard_state.term)?;
            self.vouch(node, status.hard_state.term, status.durable.index);
        }
        let observed = self.nodes.entry(node).or_default();
        (observed.hard_state, observed.commit) = (status.hard_state, status.commit);
        Ok(())
    }

    /// A message left its node.
    pub fn sent(&mut self, message: &Message) -> Result<(), Violation> {
        let (node, term) = (message.from, message.term);
        let vote = match message.body {
            Body::Vote { .. } => Some(node),
            Body::VoteReply { granted: true } => Some(message.to),
            _ => None,
        };
        if let Some(vote) = vote {
            let first = *self.votes.entry((term, node)).or_insert(vote);
            if first != vote {
                return Err(Violation::TwoVotes { term, node, first, second: vote });
            }
        }
        if let Body::AppendReply(AppendReply { outcome: AppendOutcome::Matched { last }, .. }) = message.body {
            self.vouch(node, term, last);
        }
        let spoken = &mut self.nodes.entry(node).or_default().spoken;
        if term > spoken.term {
            *spoken = HardState { term, vote };
        } else if term == spoken.term {
            spoken.vote = spoken.vote.or(vote);
        }
        Ok(())
    }

    /// A message left its node while this was on its disk: it must say nothing that a crash would make untrue.
    pub fn sent_over_disk(
        &self,
        message: &Message,
        replica: &Replica,
        hard_state: HardState,
        term_on_disk: impl Fn(Index) -> Option<Term>,
    ) -> Result<(), Violation> {
        let vote = match message.body {
            Body::Vote { .. } => Some(message.from),
            Body::VoteReply { granted: true } => Some(message.to),
            _ => None,
        };
        let term_is_kept = hard_state.term >= message.term;
        let vote_is_kept = vote.is_none() || hard_state.term > message.term || hard_state.vote == vote;
        let log_is_kept = match message.body {
            // Of an older term: the node has voted since, and its vote counted these entries.
            Body::AppendReply(_) if replica.status().hard_state.term > message.term => true,
            // A snapshot has what lies before the log.
            Body::AppendReply(AppendReply { outcome: AppendOutcome::Matched { last }, .. }) => {
                last.next() < replica.first_index() || term_on_disk(last) == replica.term_at(last)
            }
            _ => true,
        };
        if term_is_kept && vote_is_kept && log_is_kept {
            return Ok(());
        }
        Err(Violation::SpokeTooSoon { node: message.from, message: Box::new(message.clone()) })
    }

    fn vouch(&mut self, node: NodeId, term: Term, last: Index) {
        let vouched = self.vouched.entry((node, term)).or_default();
        *vouched = (*vouched).max(last);
    }

    /// What was committed in a term or before, and is part of what the node vouched for in that term, is there still:
    /// it was counted.
    fn check_vouched(&self, replica: &Replica) -> Result<(), Violation> {
        let node = replica.id();
        for ((_, term), last) in self.vouched.range((node, Term::ZERO)..=(node, Term(u64::MAX))) {
            let count = self.committed.partition_point(|committed| committed.in_term <= *term).min(last.0 as usize);
            let from = (replica.first_index().0 as usize - 1).min(count);
            let is_lost = |committed: &&Committed| replica.term_at(committed.id.index) != Some(committed.id.term);
            if let Some(lost) = self.committed[from..count].iter().find(is_lost) {
                return Err(Violation::Forgotten { node, lost: lost.id, term: *term });
            }
        }
        Ok(())
    }

    /// Log matching (§5.3): an entry is the same wherever it is, and follows the same entry. By induction the logs
    /// agree up to it.
    fn check_entries(&mut self, replica: &Replica, entries: &[Entry]) -> Result<(), Violation> {
        let Some(first) = entries.first() else { return Ok(()) };
        let mut previous = replica.term_at(first.id.index.previous());
        for entry in entries {
            if !self.is_same(entry, previous) {
                return Err(Violation::LogMismatch { node: replica.id(), id: entry.id });
            }
            previous = Some(entry.id.term);
        }
        Ok(())
    }

    fn is_same(&mut self, entry: &Entry, previous: Option<Term>) -> bool {
        let place = (entry.id.index.0 - 1) as usize;
        if let Some(committed) = self.committed.get(place).filter(|committed| committed.id == entry.id) {
            let before = place.checked_sub(1).map(|place| self.committed[place].id.term);
            let payload_is_same = committed.payload.as_ref().is_none_or(|payload| *payload == entry.payload);
            return payload_is_same && before.is_none_or(|before| previous == Some(before));
        }
        let new = || Appended { previous, payload: entry.payload.clone() };
        let known = self.appended.entry((entry.id.index, entry.id.term)).or_insert_with(new);
        known.previous == previous && known.payload == entry.payload
    }

    /// State machine safety (§5.4.3): no two nodes commit different entries at an index.
    fn check_commit(&mut self, replica: &Replica, index: Index, in_term: Term) -> Result<(), Violation> {
        if index <= self.committed() {
            return self.check_committed_at(replica, index);
        }
        let held = replica.term_at(index);
        let Some(term) = held else {
            let committed = LogId::new(in_term, index);
            return Err(Violation::CommittedDiffers { node: replica.id(), index, committed, held });
        };
        let payload = self.appended.get(&(index, term)).map(|appended| appended.payload.clone());
        self.committed.push(Committed { id: LogId::new(term, index), in_term, payload });
        self.forget_appended(index);
        Ok(())
    }

    /// What is committed is remembered as such, and need not be remembered twice.
    fn forget_appended(&mut self, last: Index) {
        while let Some(oldest) = self.appended.first_entry().filter(|oldest| oldest.key().0 <= last) {
            oldest.remove();
        }
    }

    /// A log begins after an entry that is committed, and so with everything before it (§7).
    fn check_beginning(&self, replica: &Replica) -> Result<(), Violation> {
        let index = replica.first_index().previous();
        let before_first = LogId::new(replica.term_at(index).unwrap_or_default(), index);
        let place = (index.0 as usize).checked_sub(1);
        let committed = place.map_or(Some(LogId::ZERO), |place| self.committed.get(place).map(|known| known.id));
        if committed == Some(before_first) {
            return Ok(());
        }
        Err(Violation::BeginsUncommitted { node: replica.id(), before_first })
    }

    /// Committed stays committed. What lies before a log's start is not looked at.
    fn check_committed_at(&self, replica: &Replica, index: Index) -> Result<(), Violation> {
        if index.next() < replica.first_index() {
            return Ok(());
        }
        let place = (index.0 as usize).checked_sub(1);
        let Some(committed) = place.and_then(|place| self.committed.get(place)) else { return Ok(()) };
        let held = replica.term_at(index);
        if held == Some(committed.id.term) {
            return Ok(());
        }
        Err(Violation::CommittedDiffers { node: replica.id(), index, committed: committed.id, held })
    }

    /// One leader per term, and leader completeness (§5.4.3).
    fn check_leader(&mut self, replica: &Replica, term: Term) -> Result<(), Violation> {
        let node = replica.id();
        let first = match self.leaders.insert(term, node) {
            Some(first) if first == node => return Ok(()),
            Some(first) => return Err(Violation::TwoLeaders { term, first, second: node }),
            None => replica.first_index(),
        };
        let count = self.committed.partition_point(|committed| committed.in_term < term);
        let from = (first.0 as usize - 1).min(count);
        for committed in &self.committed[from..count] {
            if replica.term_at(committed.id.index) != Some(committed.id.term) {
                return Err(Violation::LeaderIncomplete { node, term, missing: committed.id });
            }
        }
        Ok(())
    }
}

/// What a leader commits ends with an entry of its own term (§5.4.2). If it was elected within this output, the commit
/// index may have moved before.
fn check_counted(replica: &Replica, output: &Output) -> Result<(), Violation> {
    let elected = output.events.iter().any(|event| matches!(event, Event::RoleChanged { .. }));
    let Some(commit) = output.commit.filter(|_| !elected) else { return Ok(()) };
    let (held, term) = (replica.term_at(commit), replica.status().hard_state.term);
    if held == Some(term) {
        return Ok(());
    }
    let counted = LogId::new(held.unwrap_or_default(), commit);
    Err(Violation::OldTermCounted { node: replica.id(), term, counted })
}

/// A term only grows, and a vote within it stays.
fn check_hard_state(node: NodeId, before: HardState, after: HardState) -> Result<(), Violation> {
    let vote_stays = before.vote.is_none() || before.vote == after.vote;
    if after.term > before.term || (after.term == before.term && vote_stays) {
        return Ok(());
    }
    Err(Violation::HardStateForgotten { node, before, after })
}
