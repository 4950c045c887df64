//! Plans of membership changes, exhaustively: all configurations of up to five members, and everything that can be
//! wanted of them at once; and when a learner has caught up.

use std::collections::{BTreeMap, BTreeSet};

use crate::limits::MEMBERS_MAX;
use crate::raft::change::{Change, Impossible, Plan, leave, plan};
use crate::raft::memberships::unsound;
use crate::raft::quorum::won;
use crate::raft::{
    Append, AppendOutcome, AppendReply, Body, ChangeRefused, Changed, Event, Input, Outgoing, Replica, Round,
};
use crate::types::{Incarnation, Index, Membership, NodeId, Payload};

use super::cluster::{member, membership};
use super::leader::{durable, from_peer, leader, reply};

const NODES: u64 = 5;
const ROLES: u64 = 4;
const WISHES: u64 = 5;

/// The digits of a number: one for each node.
fn digits(number: u64, base: u64) -> impl Iterator<Item = (u64, u64)> {
    (0..NODES as u32).map(move |place| (u64::from(place) + 1, number / base.pow(place) % base))
}

/// By the role of each node: none, learner, learner to be promoted, voter.
fn configuration(roles: u64) -> Membership {
    let mut result = Membership::default();
    for (node, role) in digits(roles, ROLES).filter(|(_, role)| *role > 0) {
        result.members.push(member(node));
        match role {
            1 => {}
            2 => drop(result.promoting.insert(NodeId(node))),
            _ => drop(result.voters.insert(NodeId(node))),
        }
    }
    result
}

/// By what is wanted of each node: nothing, add, add and promote, promote, remove.
fn wishes(wanted: u64) -> Vec<Change> {
    let wish = |(id, wish)| match wish {
        0 => None,
        1 | 2 => Some(Change::Add { member: member(id), promote: wish == 2 }),
        3 => Some(Change::Promote { node: NodeId(id) }),
        _ => Some(Change::Remove { node: NodeId(id) }),
    };
    digits(wanted, WISHES).filter_map(wish).collect()
}

/// The role that a node has in the end: what the plan must come to, told in other words.
fn role_after(role: u64, wish: u64) -> u64 {
    match (role, wish) {
        (role, 0) => role,
        (0, 1) => 1,
        (role, 1) => role,
        (role, 2) => role.max(2),
        (_, 3) => 3,
        _ => 0,
    }
}

fn check(roles: u64, wanted: u64) -> (Membership, Option<Membership>) {
    let (current, changes) = (configuration(roles), wishes(wanted));
    let planned = plan(&current, &changes);
    let pairs = || digits(roles, ROLES).zip(digits(wanted, WISHES)).map(|((_, role), (_, wish))| (role, wish));
    let end = pairs().enumerate().map(|(place, (role, wish))| role_after(role, wish) * ROLES.pow(place as u32)).sum();
    let end = configuration(end);
    if pairs().any(|pair| pair == (0, 3)) {
        assert!(matches!(planned, Err(Impossible::NotMember { .. })), "{current:?} {changes:?}: {planned:?}");
        return (current, None);
    }
    if end.voters.is_empty() {
        assert_eq!(planned, Err(Impossible::NobodyVotes), "{current:?} {changes:?}");
        return (current, None);
    }
    let between = match planned.expect("it can be") {
        Plan::Nothing => {
            assert_eq!(current, end, "{changes:?}");
            None
        }
        Plan::Direct(next) => {
            assert!(next == end && next != current && next.voters == current.voters, "{current:?} {changes:?}");
            None
        }
        Plan::Joint(joint) => {
            assert_eq!(joint.voters_outgoing, current.voters, "{changes:?}");
            assert_eq!(leave(&joint), end, "{current:?} {changes:?}");
            assert_eq!(unsound(&joint), None, "who votes is a member: {current:?} {changes:?}");
            Some(joint)
        }
    };
    assert_eq!(plan(&end, &changes), Ok(Plan::Nothing), "asked again: {current:?} {changes:?}");
    (end, between)
}

/// Whether two sets that have nobody in common could decide, one in each configuration.
fn can_decide_apart(one: &Membership, other: &Membership) -> bool {
    (0..1u64 << NODES).any(|yes| {
        let said = |node: NodeId| yes >> (node.0 - 1) & 1 == 1;
        won(one, said) && won(other, |node| !said(node))
    })
}

#[test]
fn all_changes_of_all_configurations_of_five() {
    let (mut cases, mut joint_count) = (0, 0);
    // Majorities see voters alone.
    let mut steps: BTreeSet<[BTreeSet<NodeId>; 3]> = BTreeSet::new();
    for roles in 0..ROLES.pow(NODES as u32) {
        let current = configuration(roles);
        if current.voters.is_empty() {
            continue;
        }
        for wanted in 0..WISHES.pow(NODES as u32) {
            let (end, between) = check(roles, wanted);
            if let Some(joint) = between {
                joint_count += 1;
                steps.insert([joint.voters_outgoing, joint.voters, end.voters]);
            }
            cases += 1;
        }
    }
    assert_eq!((cases, steps.len()), ((4 * 4 * 4 * 4 * 4 - 3 * 3 * 3 * 3 * 3) * 3125, 31 * 30));
    assert!(joint_count > 500_000, "{joint_count} joint");
    let mut apart = 0;
    for [before, voters, after] in steps {
        let of = |voters: &BTreeSet<NodeId>| Membership { voters: voters.clone(), ..Membership::default() };
        let joint = Membership { voters, voters_outgoing: before.clone(), ..Membership::default() };
        assert!(!can_decide_apart(&of(&before), &joint), "{joint:?}");
        assert!(!can_decide_apart(&joint, &of(&after)), "{joint:?}");
        apart += u64::from(can_decide_apart(&of(&before), &of(&after)));
    }
    assert_eq!(apart, 640, "in one step these would not be safe");
}

#[test]
fn what_cannot_be_planned() {
    let current = membership(3, 1);
    let promote = |node| Change::Promote { node: NodeId(node) };
    let add = |member| Change::Add { member, promote: false };
    let refused = |changes: &[Change]| plan(&current, changes).expect_err("it cannot be");
    assert_eq!(refused(&[promote(9)]), Impossible::NotMember { node: NodeId(9) });
    assert_eq!(refused(&[promote(4), promote(4)]), Impossible::NamedTwice { node: NodeId(4) });
    let mut another = member(4);
    another.incarnation = Incarnation(99);
    assert_eq!(refused(&[add(another)]), Impossible::AnotherMember { node: NodeId(4) });
    let mut neighbour = member(5);
    neighbour.address = member(2).address;
    let (node, other, address) = (NodeId(5), NodeId(2), neighbour.address);
    let same = Impossible::SameAddress { node, other, address };
    assert_eq!(refused(&[add(neighbour.clone())]), same);
    // Nor while the one before it still counts, nor of two that come together.
    assert_eq!(refused(&[add(neighbour), Change::Remove { node: NodeId(2) }]), same);
    let mut twin = member(6);
    twin.address = member(5).address;
    assert!(matches!(refused(&[add(member(5)), add(twin)]), Impossible::SameAddress { .. }));
    let many: Vec<Change> = (5..=MEMBERS_MAX as u64 + 1).map(|id| add(member(id))).collect();
    assert_eq!(refused(&many), Impossible::TooMany { members: MEMBERS_MAX + 1 });
    assert!(plan(&current, &many[1..]).is_ok());
}

/// A leader of term 4 whose log ends with 14, the configuration with learner 4.
fn with_learner(promote: bool) -> Replica {
    let mut replica = leader();
    replica.handle(from_peer(2, 4, reply(AppendOutcome::Matched { last: Index(13) })));
    let wanted = [Change::Add { member: member(4), promote }];
    assert_eq!(replica.change(&wanted), Ok(Changed::Begun { index: Index(14) }));
    durable(&mut replica);
    replica.handle(from_peer(2, 4, reply(AppendOutcome::Matched { last: Index(14) })));
    assert_eq!(replica.status().commit, Index(14));
    replica
}

/// A tick, with the voters answering and the log growing by an entry.
fn tick(replica: &mut Replica) {
    replica.propose(vec![Payload::Noop]).expect("it leads");
    replica.handle(Input::Tick);
    durable(replica);
    let last = replica.status().last.index;
    for voter in [2, 3] {
        replica.handle(from_peer(voter, 4, reply(AppendOutcome::Matched { last })));
    }
}

fn learner_holds(replica: &mut Replica, last: Index) {
    replica.handle(from_peer(4, 4, reply(AppendOutcome::Matched { last })));
}

/// It gets what the log held when a round began later than an election takes, again and again.
#[test]
fn a_learner_that_lags_is_no_voter_and_one_that_catches_up_is() {
    let mut replica = with_learner(false);
    let promote = [Change::Promote { node: NodeId(4) }];
    let mut target = replica.status().last.index;
    for _ in 0..5 {
        (0..30).for_each(|_| tick(&mut replica));
        learner_holds(&mut replica, target);
        target = replica.status().last.index;
        let refused = replica.change(&promote);
        assert!(matches!(refused, Err(ChangeRefused::Behind { node: NodeId(4), .. })), "{refused:?}");
    }
    (0..29).for_each(|_| tick(&mut replica));
    learner_holds(&mut replica, target);
    assert!(matches!(replica.clone().change(&promote), Ok(Changed::Begun { .. })));
    // It falls silent again.
    (0..30).for_each(|_| tick(&mut replica));
    assert!(matches!(replica.change(&promote), Err(ChangeRefused::Behind { .. })));
}

#[test]
fn a_learner_that_is_to_be_promoted_is_when_it_has_caught_up() {
    let mut replica = with_learner(true);
    for _ in 0..100 {
        tick(&mut replica);
        assert!(!replica.membership().is_joint());
    }
    let mut last = replica.status().last.index;
    for _ in 0..3 {
        learner_holds(&mut replica, last);
        last = replica.status().last.index;
        replica.handle(Input::Tick);
    }
    assert!(replica.membership().is_joint() && replica.membership().voters.contains(&NodeId(4)));
    assert!(replica.membership().promoting.is_empty());
}

/// What it held before it was removed may have gone with its disk.
#[test]
fn who_comes_back_while_it_is_still_told_farewell_is_another_node() {
    let mut replica = with_learner(false);
    learner_holds(&mut replica, Index(14));
    let mut another = member(4);
    another.incarnation = Incarnation(99);
    for change in [Change::Remove { node: NodeId(4) }, Change::Add { member: another, promote: false }] {
        let Ok(Changed::Begun { index }) = replica.change(&[change]) else { panic!("nothing is under way") };
        durable(&mut replica);
        replica.handle(from_peer(2, 4, reply(AppendOutcome::Matched { last: index })));
    }
    let behind = ChangeRefused::Behind { node: NodeId(4), matched: Index(0), last: Index(16) };
    assert_eq!(replica.change(&[Change::Promote { node: NodeId(4) }]), Err(behind));
}

/// Seed 104084: what was to go to the life before counts on what its disk held.
#[test]
fn what_has_not_left_for_the_life_before_never_leaves_for_the_one_that_follows() {
    let mut replica = with_learner(false);
    learner_holds(&mut replica, Index(14));
    let Ok(Changed::Begun { index }) = replica.change(&[Change::Remove { node: NodeId(4) }]) else {
        panic!("it can be")
    };
    durable(&mut replica);
    replica.handle(from_peer(2, 4, reply(AppendOutcome::Matched { last: index })));
    replica.take_output();
    // The disk of the fourth is lost meanwhile, and it is made anew, before what follows is taken.
    (0..5).for_each(|_| replica.handle(Input::Tick));
    let last = replica.clone().take_output().send;
    let counts =
        |outgoing: &Outgoing| matches!(outgoing.message.body, Body::Heartbeat { commit, .. } if commit > Index(0));
    assert!(last.iter().any(|outgoing| outgoing.message.to == NodeId(4) && counts(outgoing)), "{last:?}");
    let mut another = member(4);
    another.incarnation = Incarnation(99);
    let begun = replica.change(&[Change::Add { member: another, promote: false }]);
    assert!(matches!(begun, Ok(Changed::Begun { .. })), "{begun:?}");
    let sent = replica.take_output().send;
    assert!(!sent.iter().any(|outgoing| outgoing.message.to == NodeId(4) && counts(outgoing)), "{sent:?}");
    assert!(sent.iter().any(|outgoing| outgoing.message.to == NodeId(2) && counts(outgoing)), "{sent:?}");
}

/// The removed node hears no more than its removal, whatever is appended meanwhile.
#[test]
fn what_a_removed_node_gets_ends_with_its_removal() {
    let mut replica = with_learner(false);
    let index = match replica.change(&[Change::Remove { node: NodeId(4) }]) {
        Ok(Changed::Begun { index }) => index,
        other => panic!("{other:?}"),
    };
    replica.propose(vec![Payload::Noop, Payload::Noop]).expect("it leads");
    learner_holds(&mut replica, Index(13));
    let mut sent = BTreeMap::new();
    for outgoing in durable(&mut replica).send {
        if let Body::Append(Append { entries, .. }) = outgoing.message.body {
            *sent.entry(outgoing.message.to).or_insert(0) += entries.len();
        }
    }
    assert_eq!((index, sent.get(&NodeId(4))), (Index(15), Some(&2)));
    let answer =
        Body::AppendReply(AppendReply { round: Round(0), outcome: AppendOutcome::Matched { last: Index(15) } });
    replica.handle(from_peer(4, 4, answer));
    assert!(replica.take_output().events.iter().all(|event| !matches!(event, Event::Contradiction(_))));
}

#[test]
fn of_a_node_only_the_life_is_removed_that_is_named() {
    let current = membership(3, 1);
    for node in [2, 4] {
        let life = |incarnation| Change::RemoveLife { node: NodeId(node), incarnation };
        assert_eq!(plan(&current, &[life(Incarnation(99))]), Ok(Plan::Nothing));
        let whole = plan(&current, &[Change::Remove { node: NodeId(node) }]);
        assert_eq!(plan(&current, &[life(member(node).incarnation)]), whole);
        assert_ne!(whole, Ok(Plan::Nothing));
    }
}
