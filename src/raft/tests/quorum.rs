//! Majorities against definitions that are too slow to be wrong: all configurations of up to seven members.

use std::collections::BTreeSet;

use crate::raft::quorum::{lost, reached, won};
use crate::types::{Membership, NodeId};

const MEMBERS_COUNT: u32 = 7;

fn members(bits: u32) -> impl Iterator<Item = u32> {
    (0..MEMBERS_COUNT).filter(move |bit| bits >> bit & 1 == 1)
}

fn subset(bits: u32) -> BTreeSet<NodeId> {
    members(bits).map(|bit| NodeId(u64::from(bit) + 1)).collect()
}

/// Bit of a node.
fn bit(node: NodeId) -> u32 {
    1 << (node.0 - 1)
}

/// The second may be empty: not joint.
fn membership(voters: u32, outgoing: u32) -> Membership {
    Membership { voters: subset(voters), voters_outgoing: subset(outgoing), ..Membership::default() }
}

/// Each pair of configurations over these many members.
fn each_membership(count: u32, mut test: impl FnMut(&Membership, u32, u32)) {
    for voters in 0..1 << count {
        for outgoing in 0..1 << count {
            test(&membership(voters, outgoing), voters, outgoing);
        }
    }
}

fn majority(voters: u32, yes: u32) -> bool {
    2 * (voters & yes).count_ones() > voters.count_ones()
}

fn decides(voters: u32, outgoing: u32, yes: u32) -> bool {
    majority(voters, yes) && (outgoing == 0 || majority(outgoing, yes))
}

/// Of the voters' values in falling order the one that ends the smallest majority; of two halves the lesser.
fn by_sorting(voters: u32, outgoing: u32, value: impl Fn(u32) -> u32) -> u32 {
    let half = |voters: u32| {
        let mut values: Vec<u32> = members(voters).map(&value).collect();
        values.sort_unstable_by(|one, other| other.cmp(one));
        values.get(values.len() / 2).copied().unwrap_or(0)
    };
    if outgoing == 0 { half(voters) } else { half(voters).min(half(outgoing)) }
}

#[test]
fn won_and_lost_in_all_configurations_of_seven() {
    let mut cases = 0;
    each_membership(MEMBERS_COUNT, |membership, voters, outgoing| {
        for yes in 0..1u32 << MEMBERS_COUNT {
            let said = |node: NodeId| yes & bit(node) != 0;
            let expected = decides(voters, outgoing, yes);
            assert_eq!(won(membership, said), expected, "{voters:b} {outgoing:b} {yes:b}");
            // Lost: not even with everybody who has not said no.
            assert_eq!(lost(membership, said), !decides(voters, outgoing, !yes), "{voters:b} {outgoing:b} {yes:b}");
            // Nobody else decides beside them.
            assert!(!expected || !decides(voters, outgoing, !yes));
            cases += 1;
        }
    });
    assert_eq!(cases, 1 << 21);
}

/// What only compares is right for all values if it is for two: each greater one is there or is not. So these are
/// all cases, whatever the indexes are.
#[test]
fn reached_of_two_values_in_all_configurations_of_seven() {
    let mut cases = 0;
    each_membership(MEMBERS_COUNT, |membership, voters, outgoing| {
        for has in 0..1u32 << MEMBERS_COUNT {
            let expected = u32::from(decides(voters, outgoing, has));
            let said = reached(membership, |node| u32::from(has & bit(node) != 0));
            assert_eq!(said, expected, "{voters:b} {outgoing:b} {has:b}");
            cases += 1;
        }
    });
    assert_eq!(cases, 1 << 21);
}

#[test]
fn reached_is_the_greatest_value_that_wins() {
    let mut cases = 0;
    each_membership(5, |membership, voters, outgoing| {
        for values in 0..3u32.pow(5) {
            let value = |node: NodeId| values / 3u32.pow(node.0 as u32 - 1) % 3;
            let wins = |mark: u32| won(membership, |node| value(node) >= mark);
            let expected = (0..3).rev().find(|mark| wins(*mark)).unwrap_or(0);
            assert_eq!(reached(membership, value), expected, "{voters:b} {outgoing:b} {values}");
            cases += 1;
        }
    });
    assert_eq!(cases, 1024 * 243);
}

/// All orders of seven different values, in each of the ways in which two configurations may overlap.
#[test]
fn reached_in_all_orders_of_seven_values() {
    let orders = permutations(MEMBERS_COUNT);
    let mut shapes = 0;
    for new in 0..=MEMBERS_COUNT {
        for both in 0..=MEMBERS_COUNT - new {
            for old in 0..=MEMBERS_COUNT - new - both {
                let (voters, outgoing) = ((1 << (new + both)) - 1, ((1 << (both + old)) - 1) << new);
                let membership = membership(voters, outgoing);
                for order in &orders {
                    let said = reached(&membership, |node| order[node.0 as usize - 1]);
                    let expected = by_sorting(voters, outgoing, |member| order[member as usize]);
                    assert_eq!(said, expected, "{voters:b} {outgoing:b} {order:?}");
                }
                shapes += 1;
            }
        }
    }
    assert_eq!((shapes, orders.len()), (120, 5_040));
}

/// Of 1 to `count`.
fn permutations(count: u32) -> Vec<Vec<u32>> {
    let mut all = vec![Vec::new()];
    for next in 1..=count {
        all = all.iter().flat_map(|order| (0..=order.len()).map(|at| inserted(order, at, next))).collect();
    }
    all
}

fn inserted(order: &[u32], at: usize, value: u32) -> Vec<u32> {
    let mut order = order.to_vec();
    order.insert(at, value);
    order
}
