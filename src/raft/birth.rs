//! How a cluster is born (design §6, Birth).
//!
//! Each first member draws its incarnation when its directory is made; none knows those of the others. So the leader
//! names them, once it has met all, and the cluster serves from the moment that this is durable on every one of them:
//!
//! ```text
//!   forming, unnamed ──▶ forming, all named ──▶ committed: on every disk ──▶ born ──▶ served
//! ```
//!
//! Until then whatever is decided takes **all** voters (quorum.rs). That has two ends. A first member whose directory is
//! lost meanwhile may be made anew: without it, and so without everyone who holds what it held, nothing was decided. And
//! directories that were emptied and made anew later, be they a majority, cannot agree on anything without those that
//! were not: these name other lives, and do not even listen. (The last entry needs a majority only. Whoever has missed
//! that one listens still; if *all* who hold it are then made anew by hand, they and it begin again from nothing.)

use crate::limits::MEMBERS_MAX;
use crate::mutant::{self, Mutant};
use crate::types::{Incarnation, Member, Membership, NodeId};

use super::progress::Progress;
use super::replica::{Replica, State};

/// Links that are remembered: to members, to former ones, and to some that will be.
const MET_MAX: usize = 4 * MEMBERS_MAX;

impl Replica {
    #[inline(never)]
    pub(super) fn on_met(&mut self, node: NodeId, incarnation: Incarnation) {
        let is_bounded = self.met.contains_key(&node) || self.met.len() < MET_MAX;
        if incarnation == Incarnation::OPEN || node == self.config.id || !is_bounded {
            return;
        }
        let before = self.met.insert(node, incarnation);
        let membership = self.memberships.current();
        if !membership.forming {
            return self.verify_again(node);
        }
        if membership.member(node).is_none() {
            return;
        }
        let next = self.log.last().index.next();
        if let State::Leader(leading) = &mut self.state
            && before.is_some_and(|before| before != incarnation)
        {
            // Another disk: what the one before held is gone, and what has not left yet counts on it.
            leading.progress.insert(node, Progress::new(next));
            self.output.send.retain(|outgoing| outgoing.message.to != node);
            self.lost.remove(&node);
        }
        self.continue_change();
    }

    /// The configuration in force is committed, and so on every disk.
    pub(super) fn continue_birth(&mut self) {
        let current = self.memberships.current();
        let lives: Option<Vec<Member>> = current.members.iter().map(|member| self.life_of(member)).collect();
        let Some(members) = lives else { return };
        let is_named = members == current.members || mutant::is_on(Mutant::BornUnnamed);
        let next = Membership { members, forming: !is_named, ..current.clone() };
        self.append_membership(next);
    }

    fn life_of(&self, member: &Member) -> Option<Member> {
        let incarnation = match member.id == self.config.id {
            true => self.life.map(|life| life.incarnation),
            false => self.met.get(&member.id).copied(),
        };
        Some(Member { incarnation: incarnation?, ..member.clone() })
    }

    /// The first members that this node has not met yet, while the cluster is being born.
    pub fn not_met(&self) -> impl Iterator<Item = NodeId> {
        let membership = self.memberships.current();
        let own = self.config.id;
        let others = membership.members.iter().map(|member| member.id).filter(move |id| *id != own);
        others.filter(|id| membership.forming && !self.met.contains_key(id))
    }
}
