//! Changes of members: section 6 of the paper, chapter 4 of the dissertation.

use std::collections::BTreeSet;

use crate::raft::{Append, Body, Change, ChangeRefused, Changed, Event, Input, Replica, Role, Round};
use crate::types::{Entry, Index, LogId, Membership, NodeId, Payload, Term};

use super::super::cluster::{limits_default, member, membership};
use super::{
    Cluster, elect, give_up_leader, granted, has, hear, heartbeat, id, lead, led_cluster, matched, node, role_is,
    settle, settled_leader, stand, tick, vote,
};

fn ids(nodes: &[u64]) -> BTreeSet<NodeId> {
    nodes.iter().copied().map(NodeId).collect()
}

fn remove(node: u64) -> Change {
    Change::Remove { node: NodeId(node) }
}

fn promote(node: u64) -> Change {
    Change::Promote { node: NodeId(node) }
}

fn add(node: u64) -> Change {
    Change::Add { member: member(node), promote: false }
}

fn begun(index: u64) -> Result<Changed, ChangeRefused> {
    Ok(Changed::Begun { index: Index(index) })
}

/// The old voters are `voters_outgoing`.
fn voters(replica: &Replica) -> (BTreeSet<NodeId>, BTreeSet<NodeId>) {
    let membership = replica.membership();
    (membership.voters.clone(), membership.voters_outgoing.clone())
}

/// An append of one configuration.
fn configured(previous: LogId, term: u64, membership: Membership) -> Body {
    let entry =
        Entry { id: LogId::new(Term(term), previous.index.next()), payload: Payload::Membership(membership.into()) };
    Body::Append(Append { previous, entries: vec![entry], commit: Index::ZERO, round: Round(0) })
}

/// Its removal of node 3 is appended; the voters are 1 and 2, and 1, 2 and 3.
fn removing_a_follower() -> Replica {
    let mut leader = settled_leader(&[], 0);
    assert_eq!(leader.change(&[remove(3)]), begun(2));
    settle(&mut leader);
    leader
}

#[test]
fn s6_voters_change_by_a_joint_configuration_and_it_is_left_by_another_entry() {
    let mut leader = removing_a_follower();
    assert_eq!(voters(&leader), (ids(&[1, 2]), ids(&[1, 2, 3])));
    // Committed: the second follows by itself.
    matched(&mut leader, 2, 2);
    assert_eq!((leader.status().commit, leader.status().last), (Index(2), id(1, 3)));
    assert_eq!(voters(&leader), (ids(&[1, 2]), ids(&[])));
}

/// From 1, 2 and 3 to 1, 4 and 5: entry 3 is joint.
fn replacing_two() -> Replica {
    let mut leader = settled_leader(&[], 0);
    leader.change(&[add(4), add(5)]).expect("it can be");
    settle(&mut leader);
    for peer in [2, 3, 4, 5] {
        matched(&mut leader, peer, 2);
    }
    assert_eq!(leader.change(&[promote(4), promote(5), remove(2), remove(3)]), begun(3));
    settle(&mut leader);
    leader
}

#[test]
fn s6_while_it_is_joint_an_entry_needs_a_majority_of_both() {
    // All of one half, and of the other the leader alone.
    for (half, other) in [([2, 3], 4), ([4, 5], 2)] {
        let mut leader = replacing_two();
        half.into_iter().for_each(|peer| drop(matched(&mut leader, peer, 3)));
        assert_eq!(leader.status().commit, Index(2));
        matched(&mut leader, other, 3);
        assert_eq!(leader.status().commit, Index(3));
    }
}

#[test]
fn s6_while_it_is_joint_an_election_needs_a_majority_of_both() {
    for (half, other) in [([2, 3], 4), ([4, 5], 2)] {
        let joint = Membership { voters: ids(&[1, 4, 5]), voters_outgoing: ids(&[1, 2, 3]), ..membership(5, 0) };
        let mut candidate = node(&[1], 1);
        hear(&mut candidate, 3, 2, configured(id(1, 1), 2, joint));
        tick(&mut candidate, 60);
        for peer in [2, 4] {
            hear(&mut candidate, peer, 2, Body::PreVoteReply { next: Term(3), granted: true });
        }
        for peer in half {
            hear(&mut candidate, peer, 3, Body::VoteReply { granted: true });
        }
        assert_eq!(role_is(&candidate, Role::Candidate), 3);
        hear(&mut candidate, other, 3, Body::VoteReply { granted: true });
        role_is(&candidate, Role::Leader);
    }
}

#[test]
fn s6_of_two_halves_that_cannot_hear_each_other_one_at_most_decides() {
    // Every way to part five nodes, from the old configuration 1 2 3 to the new one 3 4 5.
    let joint = Membership { voters: ids(&[3, 4, 5]), voters_outgoing: ids(&[1, 2, 3]), ..membership(5, 0) };
    let wins = |half: u32| crate::raft::quorum::won(&joint, |node| half >> (node.0 - 1) & 1 == 1);
    let winners = (0..1u32 << 5).filter(|half| wins(*half));
    assert!(winners.clone().count() > 0);
    assert!(winners.into_iter().all(|half| !wins(!half & 0b11111)));
}

#[test]
fn s6_a_server_joins_without_a_vote() {
    let mut leader = settled_leader(&[], 0);
    assert_eq!(leader.change(&[add(4)]), begun(2));
    assert_eq!(voters(&leader), (ids(&[1, 2, 3]), ids(&[])));
    let sent = settle(&mut leader);
    assert!(has(&sent, 4, |body| matches!(body, Body::Append(_))), "it is replicated to");
    matched(&mut leader, 4, 2);
    assert_eq!(leader.status().commit, Index(1), "and does not count");
}

#[test]
fn d4_1_a_configuration_is_in_force_when_it_is_appended() {
    let leader = removing_a_follower();
    assert_eq!(leader.status().commit, Index(1));
    assert!(leader.membership().is_joint());
    let mut follower = node(&[1], 1);
    hear(&mut follower, 2, 1, configured(id(1, 1), 1, membership(5, 0)));
    assert_eq!((voters(&follower).0, follower.status().commit), (ids(&[1, 2, 3, 4, 5]), Index::ZERO));
}

#[test]
fn d4_1_a_configuration_that_is_replaced_gives_way_to_the_one_before() {
    let mut follower = node(&[1], 1);
    hear(&mut follower, 2, 1, configured(id(1, 1), 1, membership(5, 0)));
    hear(&mut follower, 3, 2, super::append(id(1, 1), &[id(2, 2)], 0));
    assert_eq!(voters(&follower).0, ids(&[1, 2, 3]));
}

#[test]
fn d4_1_one_change_at_a_time() {
    let mut leader = removing_a_follower();
    assert_eq!(leader.change(&[add(4)]), Err(ChangeRefused::Pending { index: Index(2) }));
    matched(&mut leader, 2, 2);
    assert_eq!(leader.change(&[add(4)]), Err(ChangeRefused::Pending { index: Index(3) }));
    matched(&mut leader, 2, 3);
    assert_eq!(leader.change(&[add(4)]), begun(4));
}

/// What the dissertation lacked at first, for changes of one server at a time.
#[test]
fn d4_1_no_change_before_the_leader_has_committed_an_entry_of_its_term() {
    let mut leader = node(&[1, 1], 1);
    lead(&mut leader);
    assert_eq!(leader.change(&[add(4)]), Err(ChangeRefused::NotSettled));
    matched(&mut leader, 2, 3);
    assert_eq!(leader.change(&[add(4)]), begun(4));
}

#[test]
fn d4_2_1_who_is_to_vote_has_caught_up_first() {
    let mut leader = settled_leader(&[1, 1, 1], 1);
    leader.change(&[add(4)]).expect("it can be");
    settle(&mut leader);
    matched(&mut leader, 2, 5);
    let refused = leader.change(&[promote(4)]);
    assert_eq!(refused, Err(ChangeRefused::Behind { node: NodeId(4), matched: Index::ZERO, last: Index(5) }));
    matched(&mut leader, 4, 5);
    assert_eq!(leader.change(&[promote(4)]), begun(6));
}

/// A round brings a learner what the log held when the round began. The first may take long; as soon as one has taken
/// less than an election timeout it may vote, and the others would not wait longer for it than for an election.
#[test]
pub fn d4_2_1_who_is_to_vote_has_caught_up_in_a_round_shorter_than_an_election_timeout() {
    let mut leader = settled_leader(&[1, 1, 1], 1);
    leader.change(&[add(4)]).expect("it can be");
    settle(&mut leader);
    matched(&mut leader, 2, 5);
    // All that there is by now, but in a round of 30 ticks, while the log grew by one entry.
    led_ticks(&mut leader, 29);
    leader.propose(vec![Payload::Noop]).expect("it leads");
    settle(&mut leader);
    matched(&mut leader, 2, 6);
    led_ticks(&mut leader, 1);
    matched(&mut leader, 4, 5);
    let behind = Err(ChangeRefused::Behind { node: NodeId(4), matched: Index(5), last: Index(6) });
    assert_eq!(leader.change(&[promote(4)]), behind);
    // The next round is that entry, and takes 29.
    led_ticks(&mut leader, 29);
    assert_eq!(leader.change(&[promote(4)]), behind);
    matched(&mut leader, 4, 6);
    assert_eq!(leader.change(&[promote(4)]), begun(7));
}

/// Time passes at a leader that node 2 answers.
fn led_ticks(leader: &mut Replica, count: u32) {
    for _ in 0..count {
        tick(leader, 1);
        hear(leader, 2, 2, Body::HeartbeatReply { round: Round(0) });
    }
}

#[test]
fn d4_2_1_a_learner_does_not_stand() {
    let mut learner = node(&[1], 1);
    let mut learning = membership(3, 0);
    learning.voters = ids(&[2, 3]);
    hear(&mut learner, 2, 1, configured(id(1, 1), 1, learning));
    // What was in force before is not known to be out of force until that is committed.
    hear(&mut learner, 2, 1, super::append(id(1, 2), &[], 2));
    assert_eq!(tick(&mut learner, 300), []);
}

#[test]
fn d4_2_2_a_leader_that_is_removed_leads_until_that_is_committed_without_counting_itself() {
    let mut leader = settled_leader(&[], 0);
    matched(&mut leader, 3, 1);
    assert_eq!(leader.change(&[remove(1)]), begun(2));
    settle(&mut leader);
    matched(&mut leader, 2, 2);
    assert_eq!(leader.status().commit, Index(1), "of 2 and 3 both are needed");
    matched(&mut leader, 3, 2);
    assert_eq!((leader.status().commit, voters(&leader).0), (Index(2), ids(&[2, 3])));
    matched(&mut leader, 2, 3);
    assert_eq!((leader.status().commit, role_is(&leader, Role::Leader)), (Index(2), 1));
    let last = matched(&mut leader, 3, 3);
    assert_eq!((leader.status().commit, role_is(&leader, Role::Follower)), (Index(3), 1));
    // It does not leave the others to wait for an election timeout.
    assert!(last.iter().any(|message| message.body == Body::StandNow));
}

#[test]
fn d4_2_2_who_is_in_no_newest_configuration_may_have_to_be_elected_all_the_same() {
    let mut removed = node(&[1], 1);
    let mut without = membership(3, 0);
    without.voters = ids(&[2, 3]);
    hear(&mut removed, 2, 1, configured(id(1, 1), 1, without));
    tick(&mut removed, 60);
    role_is(&removed, Role::PreCandidate);
}

#[test]
pub fn d4_2_3_a_vote_is_not_heard_while_a_leader_is() {
    let mut follower = node(&[1], 1);
    hear(&mut follower, 2, 1, heartbeat());
    tick(&mut follower, 29);
    assert_eq!(hear(&mut follower, 3, 8, vote(id(7, 9))), []);
    assert_eq!(role_is(&follower, Role::Follower), 1);
    // But for the one that the leader itself has asked to stand.
    let asked = Body::Vote { last: id(7, 9), transfer: true };
    assert_eq!(granted(&hear(&mut follower, 3, 8, asked)), Some(true));
    let mut leader = settled_leader(&[], 0);
    assert_eq!(hear(&mut leader, 3, 8, vote(id(7, 9))), []);
    // Nor does a leader follow the term in the answer of who is no member.
    assert_eq!(hear(&mut leader, 9, 8, Body::HeartbeatReply { round: Round(0) }), []);
    assert_eq!(role_is(&leader, Role::Leader), 1);
}

/// Its log is as new as any, so that it could win if it were listened to: it lacks only the news that its removal is
/// committed.
#[test]
pub fn d4_2_3_who_was_removed_and_does_not_know_it_disturbs_nobody() {
    let mut cluster = led_cluster();
    cluster.loses = |message| {
        let told = match &message.body {
            Body::Append(append) => append.commit,
            Body::Heartbeat { commit, .. } => *commit,
            _ => Index::ZERO,
        };
        message.to == NodeId(3) && told >= Index(3)
    };
    cluster.change(NodeId(1), &[remove(3)]).expect("it can be");
    // Longer than it is told farewell.
    cluster.run(400);
    let [leader, removed] = [1, 3].map(|id| cluster.replica(NodeId(id)).status());
    assert_eq!((leader.last, leader.commit, removed.last), (id(1, 3), Index(3), id(1, 3)));
    assert!(!cluster.replica(NodeId(3)).is_removed());
    let asks = |(id, event): &(NodeId, Event)| {
        *id == NodeId(3) && matches!(event, Event::RoleChanged { role: Role::PreCandidate, .. })
    };
    assert!(cluster.events.iter().filter(|event| asks(event)).count() > 3, "it asks again and again");
    cluster.run(400);
    assert_eq!(role_is(cluster.replica(NodeId(1)), Role::Leader), 1);
    assert_eq!(cluster.replica(NodeId(3)).status().hard_state.term, Term(1), "it never stands");
}

/// It stands all the same, as a program without pre-votes would: its votes are not heard, and its answers, which name
/// its term, depose nobody.
#[test]
pub fn d4_2_3_who_was_removed_and_stands_disturbs_nobody() {
    let mut leader = removing_a_follower();
    matched(&mut leader, 2, 2);
    matched(&mut leader, 2, 3);
    assert_eq!(leader.status().commit, Index(3));
    assert_eq!(hear(&mut leader, 3, 8, vote(id(1, 3))), []);
    hear(&mut leader, 3, 8, Body::HeartbeatReply { round: Round(0) });
    hear(&mut leader, 3, 8, super::reply(crate::raft::AppendOutcome::Matched { last: Index(3) }));
    assert_eq!(role_is(&leader, Role::Leader), 1);
    let mut follower = node(&[1, 1, 1], 1);
    hear(&mut follower, 2, 1, heartbeat());
    assert_eq!(hear(&mut follower, 3, 8, vote(id(1, 3))), []);
    assert_eq!(role_is(&follower, Role::Follower), 1);
}

#[test]
fn d4_3_several_servers_change_at_once() {
    assert_eq!(voters(&replacing_two()), (ids(&[1, 4, 5]), ids(&[1, 2, 3])));
}

#[test]
fn d4_3_a_leader_of_either_half_may_lead_and_ends_what_another_began() {
    let mut cluster = led_cluster();
    cluster.loses = |message| matches!(&message.body, Body::AppendReply(_));
    cluster.change(NodeId(1), &[remove(3)]).expect("it can be");
    cluster.settle_all();
    cluster.crash(NodeId(1), 0);
    cluster.loses = |_| false;
    cluster.start(NodeId(1));
    give_up_leader(&mut cluster, 2);
    for _ in 0..60 {
        cluster.input(NodeId(3), Input::Tick);
        cluster.settle_all();
    }
    // It leads until it has ended its own removal, and no longer.
    let leads = |event: &Event| matches!(event, Event::RoleChanged { role: Role::Leader, .. });
    assert!(cluster.events.iter().any(|(id, event)| *id == NodeId(3) && leads(event)));
    cluster.run(120);
    for id in [1, 2] {
        assert_eq!(voters(cluster.replica(NodeId(id))), (ids(&[1, 2]), ids(&[])), "{id}");
    }
    let leader = cluster.leader().expect("who leads is a voter in the end");
    assert_ne!(leader, NodeId(3));
}

#[test]
fn d4_4_a_server_is_replaced_without_a_moment_with_fewer_voters() {
    let mut cluster = Cluster::new(3, 1, limits_default(), 1);
    elect(&mut cluster, 1);
    cluster.run(10);
    cluster.events.clear();
    cluster.change(NodeId(1), &[promote(4), remove(3)]).expect("it can be");
    assert_eq!(voters(cluster.replica(NodeId(1))), (ids(&[1, 2, 4]), ids(&[1, 2, 3])));
    cluster.run(20);
    assert_eq!(voters(cluster.replica(NodeId(4))), (ids(&[1, 2, 4]), ids(&[])));
    let committed = |event: &Event| matches!(event, Event::MembershipCommitted { .. });
    assert_eq!(cluster.events.iter().filter(|(id, event)| *id == NodeId(1) && committed(event)).count(), 2);
}

/// As a voter of a configuration that it does not have yet a node is asked for its vote, and gives it.
#[test]
fn d4_2_2_who_is_asked_votes_without_looking_whether_either_is_a_member() {
    let mut replica = node(&[1], 1);
    let mut without = membership(3, 0);
    without.voters = ids(&[2, 3]);
    hear(&mut replica, 2, 1, configured(id(1, 1), 1, without));
    hear(&mut replica, 2, 1, super::append(id(1, 2), &[], 2));
    tick(&mut replica, 60);
    replica.handle(Input::Tick);
    assert_eq!(granted(&hear(&mut replica, 9, 5, vote(id(4, 9)))), Some(true));
    let mut candidate = node(&[1], 1);
    assert_eq!(stand(&mut candidate).len(), 2);
}
