//! Majorities, also joint ones, as pure functions of a membership.
//!
//! While a change is joint, whatever is decided needs a majority of both configurations (dissertation §4.3). Learners
//! are in neither, and so never count. While a cluster is being born whatever is decided needs all (see birth.rs).

use std::collections::BTreeSet;

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

/// Quadratic in the number of voters, which is small, and without an allocation.
fn reached_by<V: Ord + Copy + Default>(
    membership: &Membership,
    voters: &BTreeSet<NodeId>,
    value: &impl Fn(NodeId) -> V,
) -> V {
    let supported = |mark: &V| suffices(membership, voters, &|voter| value(voter) >= *mark);
    voters.iter().map(|&voter| value(voter)).filter(supported).max().unwrap_or_default()
}

fn suffices(membership: &Membership, voters: &BTreeSet<NodeId>, yes: &impl Fn(NodeId) -> bool) -> bool {
    let count = voters.iter().filter(|&&voter| yes(voter)).count();
    match membership.forming && !mutant::is_on(Mutant::BornByMajority) {
        true => count == voters.len(),
        false => count > voters.len() / 2,
    }
}

/// The configurations that must agree: one, or two while joint.
fn configurations(membership: &Membership) -> impl Iterator<Item = &BTreeSet<NodeId>> {
    let outgoing = Some(&membership.voters_outgoing).filter(|voters| !voters.is_empty());
    let outgoing = outgoing.filter(|_| !mutant::is_on(Mutant::JointUsesOneHalf));
    std::iter::once(&membership.voters).chain(outgoing)
}
