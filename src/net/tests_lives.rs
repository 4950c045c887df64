//! Who is let in when members come and go: by which configuration, and in which life.

use std::time::Duration;

use super::tests::*;
use super::*;
use crate::raft::message::Sender;
use crate::types::*;

const ANYWHERE: &str = "127.0.0.1:0";

fn node(cluster: &Cluster, facts: Facts, id: u64) -> Endpoint {
    let settings = Settings { dial_delay_max: Duration::from_millis(50), ..Settings::default() };
    cluster.node_with(id, ANYWHERE.parse().unwrap(), facts, settings)
}

fn joiner(cluster: &Cluster, id: u64) -> Endpoint {
    let node = node(cluster, Facts { is_first_member: false, ..facts(id) }, id);
    node.peers().set_correspondents(Correspondents::default());
    node
}

/// A node names members, each as some life of it, by the configuration of entry `index`@1.
fn names(node: &Endpoint, index: u64, members: &[(&Endpoint, u64)]) {
    let member = |(endpoint, incarnation): &(&Endpoint, u64)| Member {
        id: endpoint.node(),
        incarnation: Incarnation(*incarnation),
        address: endpoint.local_address(),
    };
    let configuration = LogId::new(Term(1), Index(index));
    let members = members.iter().map(member).collect();
    node.peers().set_correspondents(Correspondents { configuration, members, forming: false });
}

/// The higher id dials, since the lower one knows nobody yet.
#[tokio::test]
async fn a_node_that_joins_speaks_with_whoever_names_its_own_life() {
    let cluster = Cluster::new();
    let (joiner, leader) = (joiner(&cluster, 1), node(&cluster, facts(2), 2));
    for other_life in [0, 7] {
        let before = joiner.counters().hellos_refused;
        names(&leader, 5, &[(&joiner, other_life)]);
        eventually("refused", || joiner.counters().hellos_refused > before).await;
        assert!(!joiner.peers().is_up(NodeId(2)) && !leader.peers().is_up(NodeId(1)));
    }
    names(&leader, 6, &[(&joiner, 101)]);
    until_up(&leader, 1).await;
    leader.peers().send(&heartbeat(2, 1, 4));
    let is_message = |arrival: &Arrival| matches!(arrival, Arrival::Peer { .. });
    let arrivals = arrivals_until(&joiner.inbox(), |arrivals| arrivals.iter().any(is_message)).await;
    let Some(Arrival::Peer { sender, .. }) = arrivals.last() else { panic!("{arrivals:?}") };
    let configuration = LogId::new(Term(1), Index(6));
    assert_eq!(*sender, Sender { incarnation: Incarnation(102), boot: 1, configuration });
}

#[tokio::test]
async fn of_two_nodes_that_know_different_members_the_one_that_knows_more_is_believed() {
    let cluster = Cluster::new();
    let (one, two) = (node(&cluster, facts(1), 1), node(&cluster, facts(2), 2));
    names(&two, 5, &[]);
    names(&one, 5, &[(&two, 102)]);
    eventually("node 1 is no member for node 2", || two.counters().hellos_refused > 0).await;
    assert!(!two.peers().is_up(NodeId(1)));
    names(&one, 6, &[(&two, 102)]);
    until_up(&two, 1).await;
    // What node 2 hears of later leaves node 1 out.
    names(&two, 7, &[]);
    eventually("cut off", || !one.peers().is_up(NodeId(2)) && !two.peers().is_up(NodeId(1))).await;
}

#[tokio::test]
async fn a_life_that_is_not_meant_any_more_is_cut_off_and_the_next_one_let_in() {
    let cluster = Cluster::new();
    let (one, old) = (node(&cluster, facts(1), 1), node(&cluster, facts(2), 2));
    names(&one, 5, &[(&old, 102)]);
    names(&old, 5, &[(&one, 101)]);
    until_up(&one, 2).await;
    let new = node(&cluster, Facts { incarnation: Incarnation(900), is_first_member: false, ..facts(2) }, 2);
    new.peers().set_correspondents(Correspondents::default());
    names(&one, 8, &[(&new, 900)]);
    let inbox = one.inbox();
    let arrivals = arrivals_until(&inbox, |arrivals| {
        arrivals.iter().any(|arrival| matches!(arrival, Arrival::PeerUp { hello } if hello.incarnation.0 == 900))
    });
    assert_eq!(arrivals.await[0], Arrival::PeerDown { node: NodeId(2) }, "the older one first");
    eventually("the old one is alone", || !old.peers().is_up(NodeId(1))).await;
}

/// The link is there before whoever sends has heard of it, and what it says until then was for the life before.
#[tokio::test]
async fn what_was_for_the_life_before_does_not_go_by_the_next_ones_link() {
    let cluster = Cluster::new();
    let (one, old) = (node(&cluster, facts(1), 1), node(&cluster, facts(2), 2));
    names(&one, 5, &[(&old, 102)]);
    names(&old, 5, &[(&one, 101)]);
    until_up(&one, 2).await;
    one.peers().means(NodeId(2), Incarnation(102));
    let new = node(&cluster, Facts { incarnation: Incarnation(900), is_first_member: false, ..facts(2) }, 2);
    new.peers().set_correspondents(Correspondents::default());
    names(&one, 8, &[(&new, 900)]);
    until_up(&new, 1).await;
    let is_new = |arrival: &Arrival| matches!(arrival, Arrival::PeerUp { hello } if hello.incarnation.0 == 900);
    arrivals_until(&one.inbox(), |arrivals| arrivals.iter().any(is_new)).await;
    let dropped = one.counters().messages_dropped;
    one.peers().send(&heartbeat(1, 2, 4));
    assert_eq!(one.counters().messages_dropped, dropped + 1);
    one.peers().means(NodeId(2), Incarnation(900));
    one.peers().send(&heartbeat(1, 2, 5));
    let is_message = |arrival: &Arrival| matches!(arrival, Arrival::Peer { .. });
    let arrivals = arrivals_until(&new.inbox(), |arrivals| arrivals.iter().any(is_message)).await;
    let Some(Arrival::Peer { message, .. }) = arrivals.iter().find(|arrival| is_message(arrival)) else {
        unreachable!()
    };
    assert_eq!(*message, heartbeat(1, 2, 5));
}

fn known(boot: u64, has_lost: bool) -> [(NodeId, KnownLife); 1] {
    [(NodeId(2), KnownLife { incarnation: Incarnation(102), boot, has_lost })]
}

/// Whoever dials.
#[tokio::test]
async fn what_was_met_before_this_process_is_remembered_and_the_other_is_told() {
    let cases = [
        (known(2, false), Some(CloseReason::OlderBoot)),
        (known(1, true), Some(CloseReason::LostAcknowledged)),
        (known(1, false), None),
    ];
    for (known, expected) in cases {
        for (knowing, coming) in [(1, 2), (3, 2)] {
            let cluster = Cluster::new();
            let (one, two) = (node(&cluster, facts(knowing), knowing), node(&cluster, facts(coming), coming));
            one.peers().set_known(known);
            introduce(&one, &two);
            let refused = |arrival: &Arrival| match arrival {
                Arrival::Refused { node, reason } if node.0 == knowing => Some(*reason),
                _ => None,
            };
            match expected {
                None => until_up(&one, 2).await,
                Some(expected) => {
                    let is_refused = |arrivals: &[Arrival]| arrivals.iter().any(|arrival| refused(arrival).is_some());
                    let arrivals = arrivals_until(&two.inbox(), is_refused).await;
                    assert_eq!(arrivals.iter().find_map(refused), Some(expected), "node {knowing} knows");
                    assert!(!one.peers().is_up(NodeId(2)));
                }
            }
        }
    }
}

#[tokio::test]
async fn a_link_to_one_that_has_lost_what_it_acknowledged_is_closed_and_it_is_told() {
    let cluster = Cluster::new();
    let (one, two) = (node(&cluster, facts(1), 1), node(&cluster, facts(2), 2));
    introduce(&one, &two);
    until_up(&one, 2).await;
    until_up(&two, 1).await;
    one.peers().set_known(known(1, true));
    let told = Arrival::Refused { node: NodeId(1), reason: CloseReason::LostAcknowledged };
    arrivals_until(&two.inbox(), |arrivals| arrivals.contains(&told)).await;
    eventually("closed", || !one.peers().is_up(NodeId(2)) && !two.peers().is_up(NodeId(1))).await;
}

/// Neither says it to the other's face: the one that is not meant finds out by itself.
#[tokio::test]
async fn who_is_not_the_life_that_is_meant_hears_of_it() {
    let cluster = Cluster::new();
    let (one, two) = (node(&cluster, facts(1), 1), node(&cluster, facts(2), 2));
    names(&one, 5, &[(&two, 7)]);
    names(&two, 0, &[(&one, 101)]);
    let is_told = |arrival: &Arrival| matches!(arrival, Arrival::Refused { node: NodeId(1), .. });
    let arrivals = arrivals_until(&two.inbox(), |arrivals| arrivals.iter().any(is_told)).await;
    let reasons = [CloseReason::AnotherLife, CloseReason::WrongIncarnation];
    assert!(reasons.map(|reason| Arrival::Refused { node: NodeId(1), reason }).contains(&arrivals[0]), "{arrivals:?}");
}

/// Named after the bug: who had not yet come to the configuration by which its leader is a later life of its id was let in
/// no more, once their link had broken.
#[tokio::test]
async fn who_catches_up_may_mean_an_earlier_life_of_its_leader() {
    let cluster = Cluster::new();
    let later = Facts { incarnation: Incarnation(900), is_first_member: false, ..facts(2) };
    let (behind, leader) = (node(&cluster, facts(1), 1), node(&cluster, later, 2));
    names(&behind, 3, &[(&leader, 102)]);
    names(&leader, 8, &[(&behind, 101)]);
    until_up(&leader, 1).await;
    until_up(&behind, 2).await;
    // Not where the leader means another life, or knows no more.
    for (index, incarnation) in [(9, 7), (3, 101)] {
        names(&leader, index, &[(&behind, incarnation)]);
        names(&behind, 3, &[(&leader, 102)]);
        let refused = || leader.counters().hellos_refused + behind.counters().hellos_refused;
        let before = refused();
        eventually("refused", || refused() > before && !leader.peers().is_up(NodeId(1))).await;
    }
}
