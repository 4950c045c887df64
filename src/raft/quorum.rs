//! Majorities, also joint ones, as pure functions of a membership.
//!
//! While a change is joint, whatever is decided needs a majority of both configurations (dissertation §4.3). Learners
//! are in neither, and so never count. While a cluster is being born whatever is decided needs all (see birth.rs).

use std::collections::BTreeSet;

use crate::limits::MEMBERS_MAX;
use crate::mutant::{self, Mutant};
use crate::types::{Membership, NodeId};

/// Whether those who said yes decide.
pub(super) fn won(membership: &Membership, yes: impl Fn(NodeId) -> bool) -> bool {
    configurations(membership).all(|voters| suffices(membership, voters, &yes))
}

/// Whether so many said no that the others cannot decide any more.
pub(super) fn lost(membership: &Membership, no: impl Fn(NodeId) -> bool) -> bool {
    !won(membership, |voter| !no(voter))
}

/// The greatest value that a majority has reached: of matched indexes the one that is safe on disks, of rounds the one
/// that is confirmed. The default if nobody counts.
pub(super) fn reached<V: Ord + Copy + Default>(membership: &Membership, value: impl Fn(NodeId) -> V) -> V {
    configurations(membership).map(|voters| reached_by(membership, voters, &value)).min().unwrap_or_default()
}

/// Of all values in order the one that as many have reached as are needed.
fn reached_by<V: Ord + Copy + Default>(
    membership: &Membership,
    voters: &BTreeSet<NodeId>,
    value: &impl Fn(NodeId) -> V,
) -> V {
    let mut values = [V::default(); MEMBERS_MAX];
    let values = &mut values[..voters.len()];
    values.iter_mut().zip(voters).for_each(|(reached, voter)| *reached = value(*voter));
    values.sort_unstable();
    // In rising order: whoever stands here or behind has reached it.
    voters.len().checked_sub(needed(membership, voters)).and_then(|at| values.get(at)).copied().unwrap_or_default()
}

fn suffices(membership: &Membership, voters: &BTreeSet<NodeId>, yes: &impl Fn(NodeId) -> bool) -> bool {
    let mut missing = needed(membership, voters);
    missing == 0
        || voters.iter().any(|voter| {
            missing -= usize::from(yes(*voter));
            missing == 0
        })
}

fn needed(membership: &Membership, voters: &BTreeSet<NodeId>) -> usize {
    match membership.forming && !mutant::is_on(Mutant::BornByMajority) {
        true => voters.len(),
        false => voters.len() / 2 + 1,
    }
}

/// The configurations that must agree: one, or two while joint.
fn configurations(membership: &Membership) -> impl Iterator<Item = &BTreeSet<NodeId>> {
    let outgoing = Some(&membership.voters_outgoing).filter(|voters| !voters.is_empty());
    let outgoing = outgoing.filter(|_| !mutant::is_on(Mutant::JointUsesOneHalf));
    std::iter::once(&membership.voters).chain(outgoing)
}
