//! The configurations in the log. A configuration is in force from the moment its entry is appended, committed or not
//! (dissertation §4.1), and out of force when that entry is replaced.

use crate::limits::MEMBERS_MAX;
use crate::mutant::{self, Mutant};
use crate::types::{Incarnation, Index, LogId, Member, Membership, NodeId, Term};

/// Removed lives that are remembered, and refused when they are to be added again.
const REMOVED_MAX: usize = 4 * MEMBERS_MAX;

/// Why a membership is none that a cluster could have.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Unsound {
    #[error("nobody votes")]
    NobodyVotes,
    #[error("node {0} votes and is no member")]
    VoterNotMember(NodeId),
    #[error("node {0} is to be promoted and is no learner")]
    PromotedNotLearner(NodeId),
    #[error("the members are not in the order of their ids")]
    NotInOrder,
    #[error("there are {0} members, at most {MEMBERS_MAX}")]
    TooMany(usize),
    #[error("of node {0} it is not said which life of it is meant")]
    Unnamed(NodeId),
    #[error("the cluster is being born, and not all of its members vote")]
    FormingWithLearners,
}

/// What is wrong with a membership by itself, if anything is.
pub(super) fn unsound(membership: &Membership) -> Option<Unsound> {
    let Membership { members, voters, voters_outgoing, promoting, forming } = membership;
    if members.len() > MEMBERS_MAX {
        return Some(Unsound::TooMany(members.len()));
    }
    if members.windows(2).any(|pair| pair[0].id >= pair[1].id) {
        return Some(Unsound::NotInOrder);
    }
    if voters.is_empty() {
        return Some(Unsound::NobodyVotes);
    }
    if let Some(member) = members.iter().find(|member| !forming && member.incarnation == Incarnation::OPEN) {
        return Some(Unsound::Unnamed(member.id));
    }
    if *forming && members.len() != voters.len() {
        return Some(Unsound::FormingWithLearners);
    }
    if let Some(voter) = voters.union(voters_outgoing).find(|voter| membership.member(**voter).is_none()) {
        return Some(Unsound::VoterNotMember(*voter));
    }
    let odd = promoting.iter().find(|node| membership.member(**node).is_none() || membership.is_voter(**node));
    odd.map(|node| Unsound::PromotedNotLearner(*node))
}

#[derive(Clone, Hash, Debug)]
pub(super) struct Memberships {
    /// By their entries, in order of index; never empty. The last is in force; those before it come back if it is
    /// replaced. The first may be a snapshot's, whose entry this log does not hold, or not yet: those of entries before
    /// that one count no more.
    entries: Vec<(LogId, Membership)>,
    /// Members of configurations that were committed away, which are members no more: where a leader finds those
    /// that it still tells so. Bounded by [`MEMBERS_MAX`].
    former: Vec<Member>,
    /// Whether an id may have several lives.
    has_lives: bool,
    /// Lives that were removed, the latest at the end: none of them comes back. Bounded by [`REMOVED_MAX`].
    removed: Vec<(NodeId, Incarnation)>,
}

impl Memberships {
    /// `term_at` knows the terms of their entries.
    pub(super) fn restored(
        entries: Vec<(Index, Membership)>,
        term_at: impl Fn(Index) -> Term,
        has_lives: bool,
    ) -> Memberships {
        assert!(!entries.is_empty(), "a replica is born with a configuration");
        assert!(entries.windows(2).all(|pair| pair[0].0 < pair[1].0), "configurations are not in order of index");
        let named = |(index, membership)| (LogId::new(term_at(index), index), counting(membership));
        let entries = entries.into_iter().map(named).collect();
        Memberships { entries, former: Vec::new(), has_lives, removed: Vec::new() }
    }

    /// In force.
    pub(super) fn current(&self) -> &Membership {
        if mutant::is_on(Mutant::ChangeEffectiveLate) { &self.entries[0].1 } else { &self.newest().1 }
    }

    /// Where the one in force was appended.
    pub(super) fn index(&self) -> Index {
        self.id().index
    }

    /// The entry of the one in force.
    pub(super) fn id(&self) -> LogId {
        self.newest().0
    }

    /// Whether a configuration in this place of the log is of any account: the oldest that is known is committed.
    pub(super) fn counts(&self, index: Index) -> bool {
        index > self.entries[0].0.index
    }

    /// Who is a member in what was in force before and may not be committed away yet, and is none any more.
    pub(super) fn left_out(&self) -> impl Iterator<Item = NodeId> {
        let former = self.entries.iter().flat_map(|(_, membership)| &membership.members);
        former.map(|member| member.id).filter(|id| self.current().member(*id).is_none())
    }

    /// Whether a node votes, by `votes`, in the configuration in force, or in one that comes back if those after it are
    /// replaced. Until its removal is committed a node may be the only one that can win (dissertation §4.2.2).
    pub(super) fn may_stand(&self, votes: impl Fn(&Membership) -> bool, commit: Index) -> bool {
        let committed = self.entries.partition_point(|(id, _)| id.index <= commit);
        self.entries[committed.saturating_sub(1)..].iter().any(|(_, membership)| votes(membership))
    }

    /// The configurations up to this index.
    pub(super) fn up_to(&self, last: Index) -> impl Iterator<Item = &Membership> {
        self.entries.iter().take_while(move |(id, _)| id.index <= last).map(|(_, membership)| membership)
    }

    /// Everyone whom a configuration names that is in force or may come back, in the newest life, and then those who
    /// are members no more.
    pub(super) fn named(&self) -> (impl Iterator<Item = &Member>, &[Member]) {
        (self.entries.iter().rev().flat_map(|(_, membership)| &membership.members), &self.former)
    }

    /// Whether this life of a node was removed, as far as that is remembered.
    pub(super) fn was_removed(&self, node: NodeId, incarnation: Incarnation) -> bool {
        self.removed.contains(&(node, incarnation))
    }

    pub(super) fn append(&mut self, id: LogId, membership: Membership) {
        assert!(id.index > self.index(), "configurations are appended in order");
        assert_eq!(unsound(&membership), None, "{membership:?} is checked where it is heard of, or planned");
        self.entries.push((id, counting(membership)));
    }

    /// The log was replaced by a snapshot, in whose state this one is in force. Of the others those count that were committed
    /// up to here: nobody was ever a member by one that was not.
    pub(super) fn install(&mut self, id: LogId, membership: Membership, commit: Index) {
        let gone = std::mem::replace(&mut self.entries, vec![(id, counting(membership))]);
        let committed = gone.into_iter().filter(|(id, _)| id.index <= commit);
        committed.for_each(|(_, membership)| self.remember(membership));
    }

    /// Entries from `from` on are replaced. True if another configuration came into force.
    pub(super) fn truncate(&mut self, from: Index) -> bool {
        let before = self.entries.len();
        while self.entries.len() > 1 && self.index() >= from {
            self.entries.pop();
        }
        before != self.entries.len()
    }

    /// What is committed cannot be replaced: of the committed ones only the last can still be needed. True if the one
    /// in force is among those that were committed just now.
    pub(super) fn on_commit(&mut self, commit: Index) -> bool {
        let committed = self.entries.partition_point(|(id, _)| id.index <= commit);
        if committed > 1 {
            let gone: Vec<(LogId, Membership)> = self.entries.drain(..committed - 1).collect();
            gone.into_iter().for_each(|(_, membership)| self.remember(membership));
        }
        committed > 1 && self.entries.len() == 1
    }

    /// The members of a configuration that has gone, as far as they have gone with it; the newest life of each.
    fn remember(&mut self, gone: Membership) {
        let Memberships { entries, former, has_lives, removed } = self;
        if *has_lives {
            let committed = &entries.first().expect("never empty").1;
            let is_named = |life: &(NodeId, Incarnation)| {
                committed.member(life.0).is_some_and(|member| member.incarnation == life.1)
            };
            let lives = gone.members.iter().map(|member| (member.id, member.incarnation));
            let lives: Vec<_> = lives.filter(|life| life.1 != Incarnation::OPEN && !is_named(life)).collect();
            removed.retain(|known| !lives.contains(known));
            removed.extend(lives);
            removed.drain(..removed.len().saturating_sub(REMOVED_MAX));
        }
        former.retain(|known| gone.member(known.id).is_none());
        former.extend(gone.members);
        former.retain(|known| entries.iter().all(|(_, membership)| membership.member(known.id).is_none()));
        former.drain(..former.len().saturating_sub(MEMBERS_MAX));
    }

    fn newest(&self) -> &(LogId, Membership) {
        self.entries.last().expect("never empty")
    }
}

/// Who counts in a membership: its voters.
fn counting(mut membership: Membership) -> Membership {
    if mutant::is_on(Mutant::LearnerCounted) {
        membership.promoting.clear();
        membership.voters = membership.members.iter().map(|member| member.id).collect();
    }
    membership
}
