//! Majorities against a definition that is too slow to be wrong: all subsets of up to five members.

use std::collections::BTreeSet;

use crate::raft::quorum::{lost, reached, won};
use crate::types::{Membership, NodeId};

const MEMBERS_COUNT: u32 = 5;

fn subset(bits: u32) -> BTreeSet<NodeId> {
    (0..MEMBERS_COUNT).filter(|bit| bits >> bit & 1 == 1).map(|bit| NodeId(u64::from(bit) + 1)).collect()
}

fn majority(voters: u32, yes: u32) -> bool {
    2 * (voters & yes).count_ones() > voters.count_ones()
}

/// Each pair of configurations over five members, the second of which may be empty: not joint.
fn each_membership(mut test: impl FnMut(&Membership, u32, u32)) {
    for voters in 0..1 << MEMBERS_COUNT {
        for outgoing in 0..1 << MEMBERS_COUNT {
            let (voters_here, voters_outgoing) = (subset(voters), subset(outgoing));
            let membership = Membership { voters: voters_here, voters_outgoing, ..Membership::default() };
            test(&membership, voters, outgoing);
        }
    }
}

#[test]
fn won_and_lost_in_all_configurations_of_five() {
    let mut cases = 0;
    each_membership(|membership, voters, outgoing| {
        for yes in 0..1u32 << MEMBERS_COUNT {
            let decides = |yes| majority(voters, yes) && (outgoing == 0 || majority(outgoing, yes));
            let said = |node: NodeId| yes >> (node.0 - 1) & 1 == 1;
            assert_eq!(won(membership, said), decides(yes), "{membership:?} {yes:b}");
            // Lost: not even with everybody who has not said no.
            assert_eq!(lost(membership, said), !decides(!yes), "{membership:?} {yes:b}");
            cases += 1;
        }
    });
    assert_eq!(cases, 1 << 15);
}

#[test]
fn reached_is_the_greatest_value_that_wins() {
    let mut cases = 0;
    each_membership(|membership, voters, outgoing| {
        for values in 0..3u32.pow(MEMBERS_COUNT) {
            let value = |node: NodeId| values / 3u32.pow(node.0 as u32 - 1) % 3;
            let wins = |mark: u32| won(membership, |node| value(node) >= mark);
            let expected = (0..3).rev().find(|mark| wins(*mark)).unwrap_or(0);
            assert_eq!(reached(membership, value), expected, "{voters:b} {outgoing:b} {values}");
            cases += 1;
        }
    });
    assert_eq!(cases, 1024 * 243);
}
