//! The log: sections 5.3, 5.4.2, 5.4.3, 5.5 and 7, and what a leader writes beside sending.

use crate::raft::{AppendOutcome, Body, Event, Input, Role};
use crate::types::{Index, LogId, NodeId, Payload, Term};

use super::super::cluster::{limits_default, membership};
use super::super::leader::from_peer;
use super::{
    Cluster, append, at_once, cut, elect, give_up_leader, has, hear, id, lead, led_cluster, matched, node, outcome,
    reply, restored, role_is, settle, settled_leader, stand, start, terms, tick, to, vote,
};

fn rejected(previous: LogId, hint: LogId) -> Option<AppendOutcome> {
    Some(AppendOutcome::Rejected { previous, hint })
}

fn holds_up_to(last: u64) -> Option<AppendOutcome> {
    Some(AppendOutcome::Matched { last: Index(last) })
}

#[test]
fn s5_3_what_a_client_wants_is_appended_first_and_committed_when_a_majority_holds_it() {
    let mut leader = settled_leader(&[], 0);
    let range = leader.propose(vec![Payload::Noop]).expect("it leads");
    assert_eq!(range, Index(2)..Index(3));
    let sent = settle(&mut leader);
    assert!(has(&sent, 2, |body| matches!(body, Body::Append(append) if append.entries.len() == 1)));
    assert_eq!((leader.status().last, leader.status().commit), (id(1, 2), Index(1)));
    matched(&mut leader, 2, 2);
    assert_eq!(leader.status().commit, Index(2));
}

#[test]
fn s5_3_a_minority_that_is_slow_or_dead_holds_nothing_up() {
    let mut cluster = Cluster::new(5, 0, limits_default(), 1);
    elect(&mut cluster, 1);
    cluster.crash(NodeId(4), 0);
    cluster.crash(NodeId(5), 0);
    let range = cluster.propose(NodeId(1), vec![Payload::Noop; 3]).expect("it leads");
    cluster.settle_all();
    assert_eq!(cluster.replica(NodeId(1)).status().commit.next(), range.end);
}

/// Of five nodes some have disks that finish no flush. How often all messages are delivered, and all other disks do
/// their work, until entries are committed.
fn turns_to_commit(stalled: &[u64]) -> Option<u32> {
    let mut cluster = Cluster::new(5, 0, limits_default(), 1);
    elect(&mut cluster, 1);
    cluster.stalled = stalled.iter().copied().map(NodeId).collect();
    let range = cluster.propose(NodeId(1), vec![Payload::Noop; 3]).expect("it leads");
    let going: Vec<NodeId> = (1..=5).map(NodeId).filter(|id| !cluster.stalled.contains(id)).collect();
    (1..20).find(|_| {
        for &id in &going {
            (0..cluster.nodes[&id].persists.len()).for_each(|_| cluster.persist(id));
        }
        for message in std::mem::take(&mut cluster.network) {
            cluster.deliver(message);
        }
        cluster.replica(NodeId(1)).status().commit.next() == range.end
    })
}

#[test]
pub fn s5_3_the_slow_disks_of_a_minority_cost_no_commit_a_turn() {
    assert_eq!(turns_to_commit(&[]), Some(2));
    assert_eq!(turns_to_commit(&[4, 5]), Some(2));
    // The leader's own disk is one as well: three others hold the entries.
    assert_eq!(turns_to_commit(&[1, 5]), Some(2));
    assert_eq!(turns_to_commit(&[3, 4, 5]), None);
}

#[test]
fn s5_3_followers_learn_what_is_committed_from_what_the_leader_sends() {
    let mut follower = node(&[], 1);
    hear(&mut follower, 2, 1, append(LogId::ZERO, &[id(1, 1), id(1, 2)], 1));
    assert_eq!(follower.status().commit, Index(1));
    hear(&mut follower, 2, 1, append(id(1, 2), &[], 2));
    assert_eq!(follower.status().commit, Index(2));
}

#[test]
fn s5_3_a_follower_commits_no_more_than_it_knows_to_be_its_leaders() {
    // Its own 2@1 and 3@1 may be another leader's.
    let mut follower = node(&[1, 1, 1], 1);
    hear(&mut follower, 2, 2, append(id(1, 1), &[], 3));
    assert_eq!(follower.status().commit, Index(1));
}

#[test]
fn s5_3_to_commit_an_entry_is_to_commit_all_before_it_those_of_older_leaders_too() {
    let mut leader = node(&[1, 2, 2], 2);
    lead(&mut leader);
    matched(&mut leader, 2, 3);
    assert_eq!(leader.status().commit, Index::ZERO);
    matched(&mut leader, 2, 4);
    assert_eq!(leader.status().commit, Index(4));
}

#[test]
fn s5_3_an_append_is_taken_where_the_entry_before_it_is_there_in_index_and_term() {
    for (previous, expected) in [
        (LogId::ZERO, holds_up_to(0)),
        (id(1, 1), holds_up_to(1)),
        (id(2, 2), holds_up_to(2)),
        (id(1, 2), rejected(id(1, 2), id(1, 1))),
        (id(2, 3), rejected(id(2, 3), id(2, 2))),
        (id(3, 2), rejected(id(3, 2), id(2, 2))),
    ] {
        let mut follower = node(&[1, 2], 3);
        assert_eq!(outcome(&hear(&mut follower, 2, 4, append(previous, &[], 0))), expected, "{previous}");
    }
}

#[test]
fn s5_3_what_conflicts_goes_with_all_behind_it() {
    let mut follower = node(&[1, 2, 2, 2], 2);
    let answers = hear(&mut follower, 2, 3, append(id(1, 1), &[id(3, 2)], 0));
    assert_eq!((outcome(&answers), terms(&follower)), (holds_up_to(2), vec![1, 3]));
}

#[test]
fn s5_3_what_is_there_already_takes_nothing_away() {
    let mut follower = node(&[], 1);
    hear(&mut follower, 2, 1, append(LogId::ZERO, &[id(1, 1), id(1, 2), id(1, 3)], 0));
    // An older append, late.
    let answers = hear(&mut follower, 2, 1, append(LogId::ZERO, &[id(1, 1)], 0));
    assert_eq!((outcome(&answers), terms(&follower)), (holds_up_to(3), vec![1, 1, 1]));
}

#[test]
fn s5_3_a_leader_changes_nothing_in_its_own_log_and_only_appends() {
    let mut leader = node(&[1, 1], 1);
    lead(&mut leader);
    let before = terms(&leader);
    hear(&mut leader, 2, 2, reply(AppendOutcome::Rejected { previous: id(1, 2), hint: LogId::ZERO }));
    hear(&mut leader, 3, 1, append(LogId::ZERO, &[id(1, 1)], 0));
    assert_eq!(terms(&leader), before);
    assert_eq!(before, [1, 1, 2]);
}

#[test]
fn s5_3_a_new_leader_goes_back_until_the_logs_agree_and_sends_what_follows() {
    let mut leader = node(&[1, 1, 2, 2, 4], 4);
    let first = lead(&mut leader);
    let asked = |messages: &[_]| {
        to(messages, 3).find_map(|body| match body {
            Body::Append(append) => Some((append.previous, append.entries.len())),
            _ => None,
        })
    };
    assert_eq!(asked(&first), Some((id(4, 5), 0)));
    // The other has 1 1 3 3 3. What is not above term 3 ends here with 4@2, and what is not above term 2 there with 2@1.
    let term = leader.status().hard_state.term.0;
    let outcome = AppendOutcome::Rejected { previous: id(4, 5), hint: id(3, 5) };
    let second = hear(&mut leader, 3, term, reply(outcome));
    assert_eq!(asked(&second), Some((id(2, 4), 0)));
    let outcome = AppendOutcome::Rejected { previous: id(2, 4), hint: id(1, 2) };
    let reply = Body::AppendReply(crate::raft::AppendReply { round: crate::raft::Round(1), outcome });
    let third = hear(&mut leader, 3, term, reply);
    assert_eq!(asked(&third), Some((id(1, 2), 0)));
}

#[test]
fn s5_3_logs_that_parted_are_made_equal_by_the_leader() {
    let mut cluster = led_cluster();
    cut(&mut cluster, 1, 2);
    cut(&mut cluster, 1, 3);
    // Three entries that nobody else gets, beside two that the others commit.
    cluster.propose(NodeId(1), vec![Payload::Noop; 3]).expect("it leads");
    cluster.settle_all();
    give_up_leader(&mut cluster, 3);
    elect(&mut cluster, 2);
    cluster.propose(NodeId(2), vec![Payload::SnapshotPoint]).expect("it leads");
    cluster.settle_all();
    cluster.cut.clear();
    cluster.run(60);
    let entries = &cluster.nodes[&NodeId(2)].disk.entries;
    assert_eq!(entries.len(), 3);
    for id in [1, 3] {
        assert_eq!(&cluster.nodes[&NodeId(id)].disk.entries, entries, "{id}");
    }
    assert!(cluster.events.contains(&(NodeId(1), Event::Replaced { from: Index(2) })));
}

#[test]
fn s5_3_what_is_lost_is_sent_again_without_end() {
    let mut cluster = led_cluster();
    cut(&mut cluster, 1, 3);
    cluster.propose(NodeId(1), vec![Payload::Noop]).expect("it leads");
    cluster.run(500);
    assert_eq!(cluster.replica(NodeId(3)).status().last.index, Index(1));
    cluster.cut.clear();
    cluster.run(60);
    assert_eq!(cluster.replica(NodeId(3)).status().last.index, Index(2));
}

#[test]
fn s5_4_2_an_entry_of_an_older_term_is_not_committed_because_a_majority_has_it() {
    let mut leader = node(&[1, 2], 3);
    lead(&mut leader);
    matched(&mut leader, 2, 2);
    matched(&mut leader, 3, 2);
    assert_eq!(leader.status().commit, Index::ZERO);
    matched(&mut leader, 3, 3);
    assert_eq!(leader.status().commit, Index(3));
}

#[test]
fn s5_3_a_follower_answers_for_what_it_has_durably() {
    let mut follower = node(&[], 1);
    follower.handle(from_peer(2, 1, append(LogId::ZERO, &[id(1, 1)], 0)));
    let output = follower.take_output();
    let number = output.persist.expect("it is written").number;
    assert!(at_once(&output.send).is_empty());
    // Replaced while the first write is on its way: the end of that says nothing about what took its place.
    follower.handle(from_peer(3, 2, append(LogId::ZERO, &[id(2, 1)], 0)));
    assert!(at_once(&follower.take_output().send).is_empty());
    follower.handle(Input::Durable(number));
    assert_eq!(follower.status().durable, LogId::ZERO);
}

#[test]
fn s5_1_an_answer_of_an_older_term_counts_for_nothing() {
    let mut leader = node(&[1], 1);
    lead(&mut leader);
    hear(&mut leader, 2, 1, reply(AppendOutcome::Matched { last: Index(2) }));
    assert_eq!(leader.status().commit, Index::ZERO);
}

#[test]
fn s5_5_an_append_that_comes_twice_is_taken_once() {
    let mut follower = node(&[], 1);
    let message = append(LogId::ZERO, &[id(1, 1), id(1, 2)], 2);
    let first = hear(&mut follower, 2, 1, message.clone());
    let status = follower.status();
    let second = hear(&mut follower, 2, 1, message);
    assert_eq!((outcome(&first), outcome(&second)), (holds_up_to(2), holds_up_to(2)));
    assert_eq!(follower.status(), status);
}

#[test]
fn s5_5_who_crashed_goes_on_with_what_was_durable() {
    let mut cluster = led_cluster();
    cluster.crash(NodeId(2), 0);
    cluster.propose(NodeId(1), vec![Payload::Noop]).expect("it leads");
    cluster.settle_all();
    cluster.start(NodeId(2));
    assert_eq!(role_is(cluster.replica(NodeId(2)), Role::Follower), 1);
    cluster.run(60);
    assert_eq!(cluster.replica(NodeId(2)).status().commit, Index(2));
}

#[test]
fn d10_2_1_a_leader_sends_while_it_writes_and_counts_itself_when_it_has_written() {
    let mut leader = settled_leader(&[], 0);
    leader.propose(vec![Payload::Noop]).expect("it leads");
    let output = leader.take_output();
    assert!(
        at_once(&output.send).iter().any(|body| matches!(body, Body::Append(append) if !append.entries.is_empty()))
    );
    let number = output.persist.expect("it writes").number;
    // Node 2 is faster: that is one of three, and with node 3 a majority without the leader.
    leader.handle(from_peer(2, 1, reply(AppendOutcome::Matched { last: Index(2) })));
    assert_eq!(leader.status().commit, Index(1));
    let mut other = leader.clone();
    leader.handle(Input::Durable(number));
    other.handle(from_peer(3, 1, reply(AppendOutcome::Matched { last: Index(2) })));
    assert_eq!([leader.status().commit, other.status().commit], [Index(2), Index(2)]);
}

/// A log that begins after 10@2, the end of a snapshot.
fn after_snapshot(terms: &[u64]) -> crate::raft::Replica {
    start(1, restored(id(2, 10), terms, 3, membership(3, 0)))
}

#[test]
pub fn s7_what_a_snapshot_holds_counts_as_committed_and_applied() {
    let mut replica = after_snapshot(&[]);
    let status = replica.status();
    assert_eq!((status.last, status.commit, replica.first_index()), (id(2, 10), Index(10), Index(11)));
    // After the start there is nothing to be written, applied or read.
    let output = replica.take_output();
    assert_eq!((output.persist, output.commit, output.fetch, output.events), (None, None, vec![], vec![]));
    replica.handle(Input::Applied(Index(10)));
    // A leader sends it once more: of that, what lies within the snapshot is neither written nor applied again.
    replica.handle(from_peer(2, 3, append(id(2, 8), &[id(2, 9), id(2, 10), id(3, 11)], 9)));
    let output = replica.take_output();
    let persist = output.persist.expect("one entry is new");
    assert_eq!(persist.entries.iter().map(|entry| entry.id).collect::<Vec<_>>(), [id(3, 11)]);
    assert_eq!(output.commit, None);
    replica.handle(Input::Durable(persist.number));
    replica.handle(from_peer(2, 3, append(id(3, 11), &[], 11)));
    assert_eq!(replica.take_output().commit, Some(Index(11)));
    assert!(replica.cached(Index(10)..Index(12)).is_none());
    let next = replica.cached(Index(11)..Index(12)).map(|entries| entries.map(|entry| entry.id).collect());
    assert_eq!(next, Some(vec![id(3, 11)]));
}

#[test]
fn s7_the_first_entry_after_a_snapshot_follows_on_its_last_index_and_term() {
    let mut follower = after_snapshot(&[]);
    let answers = hear(&mut follower, 2, 3, append(id(2, 10), &[id(3, 11)], 0));
    assert_eq!((outcome(&answers), follower.status().last), (holds_up_to(11), id(3, 11)));
    // What lies within the snapshot is there already.
    let mut follower = after_snapshot(&[]);
    let answers = hear(&mut follower, 2, 3, append(id(2, 9), &[id(2, 10), id(3, 11)], 0));
    assert_eq!((outcome(&answers), follower.status().last), (holds_up_to(11), id(3, 11)));
}

#[test]
fn s7_a_log_that_is_empty_after_a_snapshot_is_as_new_as_the_snapshot() {
    for (asked, expected) in [(id(2, 9), false), (id(2, 10), true), (id(1, 50), false), (id(3, 1), true)] {
        let mut voter = after_snapshot(&[]);
        assert_eq!(super::granted(&hear(&mut voter, 2, 4, vote(asked))), Some(expected), "{asked}");
    }
    let mut candidate = after_snapshot(&[]);
    assert!(stand(&mut candidate).iter().all(|message| message.body == vote(id(2, 10))));
}

#[test]
fn s7_who_lacks_what_the_leader_has_no_more_needs_the_snapshot() {
    let mut leader = after_snapshot(&[3]);
    lead(&mut leader);
    hear(&mut leader, 3, 4, reply(AppendOutcome::Rejected { previous: id(3, 11), hint: id(1, 4) }));
    let outcome = AppendOutcome::Rejected { previous: id(2, 10), hint: id(1, 4) };
    let reply = Body::AppendReply(crate::raft::AppendReply { round: crate::raft::Round(1), outcome });
    leader.handle(from_peer(3, 4, reply));
    assert_eq!(leader.take_output().events, [Event::SnapshotNeeded { peer: NodeId(3) }]);
}

#[test]
fn s8_a_term_begins_with_an_entry_that_says_nothing() {
    let mut leader = node(&[1, 1], 1);
    lead(&mut leader);
    assert_eq!(leader.status().last, id(2, 3));
    let first = leader.cached(Index(3)..Index(4)).and_then(|mut entries| entries.next().cloned());
    assert_eq!(first.map(|entry| (entry.payload, entry.id.term)), Some((Payload::Noop, Term(2))));
    tick(&mut leader, 1);
}
