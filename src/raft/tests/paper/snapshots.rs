//! Section 7 of the paper: what a snapshot does to logs, a rule for each sentence that speaks of them.

use crate::raft::{AppendOutcome, Base, Body, Event, Input, Replica, Role, Round};
use crate::sim::replicas::member;
use crate::types::{Entry, Index, LogId, Membership, NodeId, Payload, Term};

use super::{
    append, from_peer, has, hear, heartbeat, id, lead, node, outcome, reply, restored, settle, settled_leader, start,
    terms,
};
use crate::raft::tests::cluster::membership;

/// Of a snapshot after which the log begins.
fn base(point: LogId) -> Base {
    Base { point, begin_after: point }
}

fn offer(base: Base) -> Body {
    Body::Snapshot { base, round: Round(1) }
}

fn install(replica: &mut Replica, base: Base) -> Vec<crate::raft::Message> {
    replica.handle(Input::Installed { base, membership: (LogId::ZERO, membership(3, 0)) });
    settle(replica)
}

/// It leads with these entries and its no-op, all of it committed, and its log begins after `begin`.
fn compacted_leader(terms: &[u64], term: u64, begin: LogId) -> Replica {
    let mut leader = settled_leader(terms, term);
    leader.handle(Input::SnapshotMade { point: begin });
    leader.handle(Input::Compacted { before_first: begin });
    settle(&mut leader);
    leader
}

fn holds(last: u64) -> Option<AppendOutcome> {
    Some(AppendOutcome::Matched { last: Index(last) })
}

/// "The state machine's work is done, and all of the log up to the last included entry may go"; what comes behind it stays.
#[test]
fn s7_who_has_a_snapshot_may_give_up_the_log_up_to_its_last_entry() {
    let mut leader = settled_leader(&[1, 1, 2], 2);
    leader.handle(Input::SnapshotMade { point: id(1, 2) });
    leader.handle(Input::Compacted { before_first: id(1, 2) });
    assert_eq!((leader.first_index(), leader.status().last, terms(&leader)), (Index(3), id(3, 4), vec![2, 3]));
    assert_eq!((leader.term_at(Index(2)), leader.term_at(Index(1))), (Some(Term(1)), None));
    // All of it.
    leader.handle(Input::SnapshotMade { point: id(3, 4) });
    leader.handle(Input::Compacted { before_first: id(3, 4) });
    assert_eq!((leader.first_index(), leader.status().last, terms(&leader)), (Index(5), id(3, 4), vec![]));
    assert!(leader.propose(vec![Payload::Noop]).is_ok());
    assert_eq!(terms(&leader), [3]);
}

/// The last index and term that it includes are kept, for the check of the first append behind it.
#[test]
fn s7_what_is_kept_of_the_last_entry_passes_the_check_of_the_next_append() {
    let mut follower = node(&[1, 1], 2);
    hear(&mut follower, 2, 2, offer(base(id(2, 9))));
    install(&mut follower, base(id(2, 9)));
    let answers = hear(&mut follower, 2, 2, append(id(2, 9), &[id(2, 10)], 10));
    assert_eq!((outcome(&answers), follower.status().commit), (holds(10), Index(10)));
    let mut candidate = node(&[1, 1], 2);
    install(&mut candidate, base(id(2, 9)));
    assert!(super::stand(&mut candidate).iter().all(|message| message.body == super::vote(id(2, 9))));
}

/// The snapshot has the latest configuration as of its last entry.
#[test]
fn s7_a_snapshot_brings_the_configuration_with_it() {
    let four = Membership { members: (1..=4).map(member).collect(), ..membership(3, 0) };
    let mut joining = start(1, restored(LogId::ZERO, &[], 2, Membership::default()));
    joining.handle(Input::Installed { base: base(id(2, 9)), membership: (id(1, 5), four.clone()) });
    let output = joining.take_output();
    assert_eq!((joining.membership(), joining.membership_id()), (&four, id(1, 5)));
    assert!(output.events.contains(&Event::MembershipChanged { index: Index(5) }));
    // Of a snapshot whose log begins before that entry: what is sent of before counts no more, and what comes after does.
    let mut joining = start(1, restored(LogId::ZERO, &[], 2, Membership::default()));
    let early = Base { point: id(1, 6), begin_after: id(1, 3) };
    joining.handle(Input::Installed { base: early, membership: (id(1, 5), four.clone()) });
    settle(&mut joining);
    let entry = |index, members| Entry { id: id(1, index), payload: Payload::Membership(Box::new(members)) };
    let sends = |first: u64, entries: Vec<Entry>| {
        let Body::Append(mut body) = append(id(1, first - 1), &[], 0) else { unreachable!("an append") };
        body.entries = entries;
        Body::Append(body)
    };
    hear(&mut joining, 2, 2, sends(4, vec![entry(4, membership(3, 0)), entry(5, four.clone())]));
    assert_eq!((joining.membership(), joining.membership_id()), (&four, id(1, 5)));
    hear(&mut joining, 2, 2, sends(6, vec![entry(6, membership(4, 0))]));
    assert_eq!((joining.membership(), joining.membership_id()), (&membership(4, 0), id(1, 6)));
}

/// A leader sends one where it has given up what the follower needs next.
#[test]
fn s7_a_leader_offers_a_snapshot_to_whom_it_cannot_send_the_next_entry() {
    let mut leader = compacted_leader(&[1, 1, 2], 2, id(2, 3));
    let lacks = |previous, hint| reply(AppendOutcome::Rejected { previous, hint });
    let asked = hear(&mut leader, 3, 3, lacks(id(2, 3), id(1, 1)));
    assert!(has(&asked, 3, |body| matches!(body, Body::Snapshot { base: said, .. } if *said == base(id(2, 3)))));
    // It is not sent anything else but heartbeats, and the offer again.
    let mut offers = 0;
    for _ in 0..60 {
        leader.handle(Input::Tick);
        leader.handle(from_peer(2, 3, Body::HeartbeatReply { round: Round(0) }));
        leader.handle(from_peer(3, 3, Body::HeartbeatReply { round: Round(0) }));
        let said = settle(&mut leader);
        assert!(!has(&said, 3, |body| matches!(body, Body::Append(_))), "{said:?}");
        offers += usize::from(has(&said, 3, |body| matches!(body, Body::Snapshot { .. })));
    }
    assert_eq!(offers, 3);
    // Who has kept up gets entries.
    leader.propose(vec![Payload::Noop]).expect("it leads");
    assert!(has(&settle(&mut leader), 2, |body| matches!(body, Body::Append(append) if !append.entries.is_empty())));
}

/// Receiver 1: an older term is answered at once, and changes nothing.
#[test]
fn s7_an_offer_of_an_older_term_is_refused_with_the_newer_one() {
    let mut follower = node(&[1, 1], 5);
    let answers = hear(&mut follower, 2, 4, offer(base(id(4, 9))));
    assert!(answers.iter().all(|answer| answer.term == Term(5)) && answers.len() == 1, "{answers:?}");
    assert_eq!((follower.status().leader, terms(&follower)), (None, vec![1, 1]));
}

/// An offer is of the leader: it is followed, and heard.
#[test]
fn s7_who_offers_a_snapshot_leads() {
    let mut candidate = node(&[1, 1], 5);
    super::stand(&mut candidate);
    let answers = hear(&mut candidate, 2, 6, offer(base(id(5, 9))));
    assert_eq!((candidate.status().leader, candidate.status().role), (Some(NodeId(2)), Role::Follower), "{answers:?}");
    // As by a heartbeat: nobody is elected while it is heard.
    let refused = hear(&mut candidate, 3, 7, Body::PreVote { next: Term(8), last: id(6, 99) });
    assert_eq!(super::granted(&refused), Some(false));
}

/// Receiver 6: if the log has the snapshot's last entry, what follows it is kept, and that is answered.
#[test]
fn s7_a_snapshot_of_a_prefix_of_the_log_leaves_what_follows() {
    for is_installed in [false, true] {
        let mut follower = node(&[1, 1, 2, 2], 2);
        let answers = hear(&mut follower, 2, 2, offer(base(id(1, 2))));
        assert_eq!(outcome(&answers), holds(2), "by mistake or late: it is there");
        if is_installed {
            assert_eq!(install(&mut follower, base(id(1, 2))), []);
        }
        assert_eq!((terms(&follower), follower.status().last), (vec![1, 1, 2, 2], id(2, 4)));
        assert_eq!(follower.status().commit, Index(2), "a snapshot holds what is committed");
    }
}

/// Receiver 7: else the whole log goes, also what lies beyond the snapshot; it may conflict with what was committed.
#[test]
fn s7_a_snapshot_with_something_new_takes_the_place_of_the_whole_log() {
    for own in [&[1, 1][..], &[1, 1, 2, 2, 2, 2, 2, 2], &[]] {
        let mut follower = node(own, 3);
        assert_eq!(outcome(&hear(&mut follower, 2, 3, offer(base(id(3, 5))))), None, "nothing is held of it yet");
        assert_eq!(terms(&follower), own, "as long as it is only offered");
        let answers = install(&mut follower, base(id(3, 5)));
        assert_eq!(outcome(&answers), holds(5));
        let status = follower.status();
        assert_eq!((terms(&follower), status.last, status.commit), (vec![], id(3, 5), Index(5)));
    }
}

/// Receiver 8: the state is that of the snapshot. What it holds is not applied.
#[test]
fn s7_what_a_snapshot_holds_is_committed_and_its_log_goes_on_behind_it() {
    let mut follower = node(&[1, 1], 3);
    hear(&mut follower, 2, 3, offer(base(id(3, 5))));
    follower.handle(Input::Installed { base: base(id(3, 5)), membership: (LogId::ZERO, membership(3, 0)) });
    let output = follower.take_output();
    assert_eq!((output.commit, output.fetch.len()), (Some(Index(5)), 0));
    let persist = output.persist.expect("that it counts is to be durable");
    assert_eq!((persist.base, persist.entries), (Some(base(id(3, 5))), vec![]));
    follower.handle(Input::Durable(persist.number));
    follower.handle(Input::Applied(Index(5)));
    assert_eq!(hear(&mut follower, 2, 3, heartbeat()).len(), 1);
}

/// A leader that has what is committed is never behind a snapshot.
#[test]
fn s7_who_leads_installs_nothing() {
    let mut leader = node(&[1, 1], 1);
    lead(&mut leader);
    assert!(!leader.wants(base(id(1, 9))));
    install(&mut leader, base(id(1, 9)));
    assert_eq!(terms(&leader), [1, 1, 2]);
}
