//! Plans of membership changes: from the configuration in force and what is wanted to the next configuration. Pure.
//!
//! ```text
//!   no voter changes:   C ─────────────────▶ C'
//!   voters change:      C ──▶ (C', with C outgoing) ──▶ C'        (dissertation §4.3)
//! ```
//!
//! Learners come and go by one entry, for they are in no majority. Voters change in two, also a single one: while the
//! first is in force every decision needs a majority of the old voters and one of the new, so that no two majorities
//! that decide alone ever stand beside each other. The second, [`leave`], follows by itself once the first is
//! committed.
//!
//! Whatever is asked for may be asked for again: what is so already is [`Plan::Nothing`].

use std::collections::BTreeSet;
use std::net::SocketAddr;

use crate::limits::MEMBERS_MAX;
use crate::types::{Incarnation, Member, Membership, NodeId};

/// One thing that is wanted of the members.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// A new member, which votes not yet. With `promote` it becomes a voter as soon as it has caught up; so does a
    /// learner that is there.
    Add { member: Member, promote: bool },
    /// A learner is to vote.
    Promote { node: NodeId },
    /// Voter or learner: it is to go.
    Remove { node: NodeId },
    /// This life of it is to go. Another one stays: then this one is gone already.
    RemoveLife { node: NodeId, incarnation: Incarnation },
}

/// What has to be appended for that.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Plan {
    /// It is so already.
    Nothing,
    /// This, and it is done.
    Direct(Membership),
    /// This, and what [`leave`] makes of it when it is committed.
    Joint(Membership),
}

/// Why no configuration is what is wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Impossible {
    #[error("node {node} is no member")]
    NotMember { node: NodeId },
    /// Its address, or its life, is another. It is removed first, and then added.
    #[error("node {node} is a member already, with another address or incarnation")]
    AnotherMember { node: NodeId },
    #[error("node {node} is named twice")]
    NamedTwice { node: NodeId },
    #[error("node {node} has no incarnation: `trilith init --join` gives it one")]
    Unnamed { node: NodeId },
    /// Two processes cannot be there, and whoever dials it would not know whom it meets.
    #[error("node {node} would have the address of node {other}, {address}")]
    SameAddress { node: NodeId, other: NodeId, address: SocketAddr },
    /// It may have voted, and knows it no more: a removed life never comes back.
    #[error(
        "node {node} was removed from the cluster in this life of it, {incarnation}: `trilith init --join` gives it another"
    )]
    LifeRemoved { node: NodeId, incarnation: Incarnation },
    #[error("nobody would vote any more")]
    NobodyVotes,
    #[error("there would be {members} members, at most {MEMBERS_MAX}")]
    TooMany { members: usize },
}

impl Change {
    pub fn node(&self) -> NodeId {
        match self {
            Change::Add { member, .. } => member.id,
            Change::Promote { node } | Change::Remove { node } | Change::RemoveLife { node, .. } => *node,
        }
    }
}

/// Plans these changes, all at once. Panics if `current` is joint: then a change is under way.
pub fn plan(current: &Membership, wanted: &[Change]) -> Result<Plan, Impossible> {
    assert!(!current.is_joint(), "one change at a time");
    let mut named = BTreeSet::new();
    let mut next = current.clone();
    for change in wanted {
        let node = change.node();
        if !named.insert(node) {
            return Err(Impossible::NamedTwice { node });
        }
        apply(&mut next, change)?;
    }
    if next.voters.is_empty() {
        return Err(Impossible::NobodyVotes);
    }
    if next.voters != current.voters {
        next.voters_outgoing.clone_from(&current.voters);
        restore_outgoing(&mut next, current);
    }
    refuse_same_address(&next, current)?;
    match next.members.len() {
        members if members > MEMBERS_MAX => Err(Impossible::TooMany { members }),
        _ if next == *current => Ok(Plan::Nothing),
        _ if next.is_joint() => Ok(Plan::Joint(next)),
        _ => Ok(Plan::Direct(next)),
    }
}

/// The configuration after a joint one: the new voters alone. Who was a voter and is none any more is no member either.
pub fn leave(joint: &Membership) -> Membership {
    let mut next = joint.clone();
    next.voters_outgoing.clear();
    next.members.retain(|member| next.voters.contains(&member.id) || !joint.voters_outgoing.contains(&member.id));
    next
}

fn apply(next: &mut Membership, change: &Change) -> Result<(), Impossible> {
    match change {
        Change::Add { member, .. } if member.incarnation == Incarnation::OPEN => {
            return Err(Impossible::Unnamed { node: member.id });
        }
        Change::Add { member, promote } => {
            match next.member(member.id) {
                None => {
                    next.members.push(member.clone());
                    next.members.sort_by_key(|member| member.id);
                }
                Some(known) if known == member => {}
                Some(_) => return Err(Impossible::AnotherMember { node: member.id }),
            }
            if *promote && !next.voters.contains(&member.id) {
                next.promoting.insert(member.id);
            }
        }
        Change::Promote { node } => {
            if next.member(*node).is_none() {
                return Err(Impossible::NotMember { node: *node });
            }
            next.promoting.remove(node);
            next.voters.insert(*node);
        }
        Change::Remove { node } => remove(next, *node),
        Change::RemoveLife { node, incarnation } => {
            if next.member(*node).is_some_and(|member| member.incarnation == *incarnation) {
                remove(next, *node);
            }
        }
    }
    Ok(())
}

fn remove(next: &mut Membership, node: NodeId) {
    next.members.retain(|member| member.id != node);
    next.promoting.remove(&node);
    next.voters.remove(&node);
}

/// Of those who come nobody has the address of another, not even of one that goes with the same change.
fn refuse_same_address(next: &Membership, current: &Membership) -> Result<(), Impossible> {
    let new = next.members.iter().filter(|member| current.member(member.id).is_none());
    for Member { id, address, .. } in new {
        let is_other = |other: &&Member| other.id != *id && other.address == *address;
        if let Some(other) = next.members.iter().chain(&current.members).find(is_other) {
            return Err(Impossible::SameAddress { node: *id, other: other.id, address: *address });
        }
    }
    Ok(())
}

/// Who votes on in the outgoing configuration is a member as long as that counts.
fn restore_outgoing(next: &mut Membership, current: &Membership) {
    let leaving = current.members.iter().filter(|member| current.voters.contains(&member.id));
    let leaving: Vec<Member> = leaving.filter(|member| next.member(member.id).is_none()).cloned().collect();
    next.members.extend(leaving);
    next.members.sort_by_key(|member| member.id);
}
