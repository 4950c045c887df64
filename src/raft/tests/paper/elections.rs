//! Terms, elections and who may win them: sections 5.1, 5.2 and 5.4.1, pre-vote and check-quorum.

use std::collections::BTreeSet;

use crate::raft::{AppendOutcome, Body, Event, Input, Role};
use crate::types::{HardState, Index, LogId, NodeId, Term};

use super::super::cluster::membership;
use super::super::leader::from_peer;
use super::{
    append, elect, give_up_leader, granted, has, hear, heartbeat, id, lead, led_cluster, node, outcome, restored,
    role_is, stand, start, tick, to, vote,
};

#[test]
fn s5_1_every_node_begins_as_a_follower_of_the_term_that_it_had() {
    let replica = node(&[1, 3], 4);
    assert_eq!(role_is(&replica, Role::Follower), 4);
    assert_eq!(replica.status().leader, None);
}

#[test]
fn s5_1_a_higher_term_is_taken_over_by_whoever_hears_it() {
    let mut follower = node(&[], 1);
    hear(&mut follower, 2, 7, append(LogId::ZERO, &[], 0));
    assert_eq!(role_is(&follower, Role::Follower), 7);
    let mut candidate = node(&[], 1);
    stand(&mut candidate);
    role_is(&candidate, Role::Candidate);
    hear(&mut candidate, 3, 7, Body::VoteReply { granted: false });
    assert_eq!(role_is(&candidate, Role::Follower), 7);
    let mut leader = node(&[], 1);
    lead(&mut leader);
    hear(&mut leader, 3, 7, Body::HeartbeatReply { round: Default::default() });
    assert_eq!(role_is(&leader, Role::Follower), 7);
}

#[test]
fn s5_1_a_request_of_an_older_term_is_refused_and_told_the_present_one() {
    for (request, said) in [
        (vote(id(9, 9)), Body::VoteReply { granted: false }),
        (heartbeat(), Body::HeartbeatReply { round: Default::default() }),
    ] {
        let mut replica = node(&[1], 5);
        let answers = hear(&mut replica, 2, 4, request);
        assert_eq!((answers[0].term, &answers[0].body), (Term(5), &said));
        assert_eq!(replica.status().leader, None);
    }
    let mut replica = node(&[1], 5);
    let answers = hear(&mut replica, 2, 4, append(id(1, 1), &[id(4, 2)], 2));
    assert!(matches!(outcome(&answers), Some(AppendOutcome::Rejected { .. })));
    assert_eq!((answers[0].term, replica.status().last), (Term(5), id(1, 1)));
}

#[test]
fn s5_1_term_and_vote_are_durable_before_anybody_hears_of_them() {
    let mut voter = node(&[], 1);
    voter.handle(from_peer(2, 2, vote(LogId::ZERO)));
    let output = voter.take_output();
    let persist = output.persist.expect("the vote is kept");
    assert_eq!(persist.hard_state, Some(HardState { term: Term(2), vote: Some(NodeId(2)) }));
    assert!(output.send.iter().all(|outgoing| outgoing.after == Some(persist.number)));
    let mut candidate = node(&[], 1);
    while candidate.status().role == Role::Follower {
        candidate.handle(Input::Tick);
    }
    candidate.take_output();
    candidate.handle(from_peer(2, 1, Body::PreVoteReply { next: Term(2), granted: true }));
    let output = candidate.take_output();
    assert_eq!(output.persist.and_then(|persist| persist.hard_state).map(|kept| kept.vote), Some(Some(NodeId(1))));
    assert!(!output.send.is_empty() && output.send.iter().all(|outgoing| outgoing.after.is_some()));
}

#[test]
fn s5_1_a_vote_survives_a_restart() {
    let mut before = restored(LogId::ZERO, &[], 2, membership(3, 0));
    before.hard_state.vote = Some(NodeId(2));
    assert_eq!(granted(&hear(&mut start(2, before.clone()), 3, 2, vote(LogId::ZERO))), Some(false));
    assert_eq!(granted(&hear(&mut start(2, before), 2, 2, vote(LogId::ZERO))), Some(true));
}

#[test]
fn s5_2_who_hears_its_leader_stays_a_follower() {
    let mut replica = node(&[], 1);
    for _ in 0..50 {
        hear(&mut replica, 2, 1, heartbeat());
        tick(&mut replica, 29);
    }
    assert_eq!(role_is(&replica, Role::Follower), 1);
}

#[test]
fn s5_2_who_hears_nobody_asks_all_for_their_votes_in_a_new_term_and_votes_for_itself() {
    let mut replica = node(&[1, 1], 1);
    let requests = stand(&mut replica);
    assert_eq!(role_is(&replica, Role::Candidate), 2);
    assert_eq!(replica.status().hard_state.vote, Some(NodeId(1)));
    for peer in [2, 3] {
        assert_eq!(to(&requests, peer).collect::<Vec<_>>(), [&vote(id(1, 2))]);
    }
}

#[test]
fn s5_2_a_node_gives_one_vote_a_term_to_who_comes_first() {
    let mut replica = node(&[], 1);
    assert_eq!(granted(&hear(&mut replica, 2, 2, vote(LogId::ZERO))), Some(true));
    assert_eq!(granted(&hear(&mut replica, 3, 2, vote(id(1, 9)))), Some(false));
    // Asked again, it says the same.
    assert_eq!(granted(&hear(&mut replica, 2, 2, vote(LogId::ZERO))), Some(true));
    assert_eq!(granted(&hear(&mut replica, 3, 3, vote(id(1, 9)))), Some(true));
}

#[test]
fn s5_2_a_majority_of_votes_elects_and_less_does_not() {
    let mut replica = start(1, restored(LogId::ZERO, &[], 1, membership(5, 0)));
    stand(&mut replica);
    hear(&mut replica, 3, 1, Body::PreVoteReply { next: Term(2), granted: true });
    hear(&mut replica, 2, 2, Body::VoteReply { granted: true });
    hear(&mut replica, 2, 2, Body::VoteReply { granted: true });
    hear(&mut replica, 4, 2, Body::VoteReply { granted: false });
    role_is(&replica, Role::Candidate);
    hear(&mut replica, 3, 2, Body::VoteReply { granted: true });
    role_is(&replica, Role::Leader);
}

#[test]
fn s5_2_votes_of_another_term_do_not_count() {
    let mut replica = node(&[], 1);
    stand(&mut replica);
    hear(&mut replica, 2, 1, Body::VoteReply { granted: true });
    role_is(&replica, Role::Candidate);
}

#[test]
fn s5_2_a_new_leader_tells_everybody_at_once() {
    let mut replica = node(&[], 1);
    let first = lead(&mut replica);
    for peer in [2, 3] {
        assert!(has(&first, peer, |body| matches!(body, Body::Append(_))), "{peer}");
    }
}

#[test]
fn s5_2_a_candidate_follows_the_leader_of_its_term_and_not_one_of_an_older() {
    let mut replica = node(&[], 1);
    stand(&mut replica);
    hear(&mut replica, 3, 1, heartbeat());
    role_is(&replica, Role::Candidate);
    hear(&mut replica, 3, 2, heartbeat());
    role_is(&replica, Role::Follower);
    assert_eq!(replica.status().leader, Some(NodeId(3)));
}

#[test]
fn s5_2_a_split_vote_ends_with_the_timeout_in_a_new_term() {
    let mut replica = start(1, restored(LogId::ZERO, &[], 1, membership(4, 0)));
    stand(&mut replica);
    hear(&mut replica, 3, 1, Body::PreVoteReply { next: Term(2), granted: true });
    hear(&mut replica, 2, 2, Body::VoteReply { granted: true });
    assert_eq!(role_is(&replica, Role::Candidate), 2);
    tick(&mut replica, 60);
    for peer in [2, 3] {
        hear(&mut replica, peer, 2, Body::PreVoteReply { next: Term(3), granted: true });
    }
    assert_eq!(role_is(&replica, Role::Candidate), 3);
}

#[test]
fn s5_2_election_timeouts_are_spread_and_drawn_anew() {
    let mut firsts = BTreeSet::new();
    for seed in 0..200 {
        let mut replica = start(seed, restored(LogId::ZERO, &[], 1, membership(3, 0)));
        let mut waits = Vec::new();
        let mut waited = 0;
        while waits.len() < 6 {
            waited += 1;
            if !tick(&mut replica, 1).is_empty() {
                waits.push(std::mem::take(&mut waited));
            }
        }
        assert!(waits.iter().all(|ticks| (30..60).contains(ticks)), "{waits:?}");
        assert!(waits.iter().any(|ticks| *ticks != waits[0]), "{waits:?}");
        firsts.insert(waits[0]);
    }
    assert!(firsts.len() > 25, "{firsts:?}");
}

#[test]
fn s5_4_1_a_vote_goes_to_a_log_that_is_no_older_than_the_own() {
    // The last terms are compared first, and only then the lengths.
    for (asked, expected) in [
        (id(2, 3), true),
        (id(2, 4), true),
        (id(3, 1), true),
        (id(2, 2), false),
        (id(1, 9), false),
        (LogId::ZERO, false),
    ] {
        let mut replica = node(&[1, 2, 2], 3);
        assert_eq!(granted(&hear(&mut replica, 2, 4, vote(asked))), Some(expected), "{asked}");
        assert_eq!(role_is(&replica, Role::Follower), 4, "the term counts all the same");
    }
}

#[test]
fn s5_4_1_a_vote_that_is_refused_does_not_put_the_own_election_off() {
    let mut replica = node(&[2], 3);
    for asked in 4..64 {
        tick(&mut replica, 1);
        if replica.status().role == Role::PreCandidate {
            return;
        }
        hear(&mut replica, 2, asked, vote(LogId::ZERO));
    }
    panic!("it never stands");
}

#[test]
fn d6_2_a_leader_that_hears_no_majority_for_an_election_timeout_steps_down() {
    let mut replica = node(&[], 1);
    lead(&mut replica);
    tick(&mut replica, 59);
    hear(&mut replica, 3, 2, Body::HeartbeatReply { round: Default::default() });
    tick(&mut replica, 59);
    assert_eq!(role_is(&replica, Role::Leader), 2);
    tick(&mut replica, 1);
    assert_eq!(role_is(&replica, Role::Follower), 2);
}

#[test]
fn d9_6_who_asks_whether_it_could_win_changes_no_term_and_takes_no_vote() {
    let mut asker = node(&[], 1);
    let mut asks = 0;
    for _ in 0..600 {
        asks += tick(&mut asker, 1).len();
    }
    assert_eq!(role_is(&asker, Role::PreCandidate), 1);
    assert!(asks > 10, "{asks}");
    let mut asked = node(&[], 1);
    let pre_vote = Body::PreVote { next: Term(9), last: LogId::ZERO };
    for peer in [2, 3] {
        assert_eq!(granted(&hear(&mut asked, peer, 8, pre_vote.clone())), Some(true));
    }
    assert_eq!(asked.status().hard_state, HardState { term: Term(1), vote: None });
}

#[test]
fn d9_6_it_is_granted_only_for_a_log_that_could_win_and_where_no_leader_is_heard() {
    let ask = |last| Body::PreVote { next: Term(9), last };
    let mut replica = node(&[1, 2], 2);
    assert_eq!(granted(&hear(&mut replica, 2, 8, ask(id(1, 5)))), Some(false));
    assert_eq!(granted(&hear(&mut replica, 2, 8, ask(id(2, 2)))), Some(true));
    hear(&mut replica, 3, 2, heartbeat());
    assert_eq!(granted(&hear(&mut replica, 2, 8, ask(id(2, 2)))), Some(false));
    tick(&mut replica, 29);
    assert_eq!(granted(&hear(&mut replica, 2, 8, ask(id(2, 2)))), Some(false));
    tick(&mut replica, 1);
    assert_eq!(granted(&hear(&mut replica, 2, 8, ask(id(2, 2)))), Some(true));
}

#[test]
fn d9_6_a_majority_that_would_vote_lets_it_stand() {
    let mut replica = start(1, restored(LogId::ZERO, &[], 1, membership(5, 0)));
    while replica.status().role == Role::Follower {
        tick(&mut replica, 1);
    }
    hear(&mut replica, 2, 1, Body::PreVoteReply { next: Term(2), granted: true });
    // An answer to another question.
    hear(&mut replica, 3, 1, Body::PreVoteReply { next: Term(9), granted: true });
    assert_eq!(role_is(&replica, Role::PreCandidate), 1);
    hear(&mut replica, 3, 1, Body::PreVoteReply { next: Term(2), granted: true });
    assert_eq!(role_is(&replica, Role::Candidate), 2);
}

#[test]
fn d9_6_a_node_that_was_cut_off_does_not_depose_the_leader_when_it_comes_back() {
    let mut cluster = led_cluster();
    super::cut(&mut cluster, 1, 3);
    super::cut(&mut cluster, 2, 3);
    cluster.run(400);
    cluster.cut.clear();
    cluster.events.clear();
    cluster.run(100);
    assert_eq!(cluster.leader(), Some(NodeId(1)));
    assert_eq!(cluster.replica(NodeId(3)).status().leader, Some(NodeId(1)));
    let deposed = |event: &Event| matches!(event, Event::RoleChanged { role: Role::Follower, .. });
    assert!(!cluster.events.iter().any(|(id, event)| *id == NodeId(1) && deposed(event)));
}

#[test]
pub fn s5_4_3_who_lacks_what_is_committed_is_not_elected() {
    let mut cluster = led_cluster();
    super::cut(&mut cluster, 1, 3);
    super::cut(&mut cluster, 2, 3);
    cluster.propose(NodeId(1), vec![crate::types::Payload::Noop]).expect("it leads");
    cluster.settle_all();
    assert_eq!(cluster.replica(NodeId(1)).status().commit, Index(2));
    cluster.crash(NodeId(1), 0);
    cluster.cut.clear();
    // Nobody stands in the way but its log: node 2 has given the dead leader up.
    give_up_leader(&mut cluster, 2);
    for _ in 0..600 {
        cluster.input(NodeId(3), Input::Tick);
        cluster.settle_all();
        assert_ne!(cluster.replica(NodeId(3)).status().role, Role::Leader);
    }
    elect(&mut cluster, 2);
    assert_eq!(cluster.leader(), Some(NodeId(2)));
}
