//! The client against a cluster of toys: what it promises when nodes, answers and sessions are lost.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::tests::*;
use super::*;
use crate::limits::RECORD_BYTES_MAX;
use crate::machine::command::KEY_BYTES_MAX;
use crate::net::certificate::{Authority, Validity};
use crate::net::{Consistency, Identity, Refusal, Role};
use crate::random::Random;
use crate::types::*;

const SHORT: Duration = Duration::from_millis(400);

#[tokio::test]
async fn the_leader_is_found_by_way_of_a_node_that_does_not_lead() {
    let toy = Toy::new(2).await;
    toy.lead(2);
    let client = Client::connect(toy.options(&[1])).await.unwrap();
    assert_eq!(client.leader(), Some(NodeId(2)));
    assert_eq!(client.append(record(1)).await.unwrap(), Index(2));
    toy.lead(1);
    assert_eq!(client.append(record(2)).await.unwrap(), Index(3));
    assert_eq!(client.leader(), Some(NodeId(1)));
    assert_eq!(toy.records(), [record(1), record(2)]);
}

#[tokio::test]
async fn a_record_whose_answer_was_lost_keeps_its_number_and_is_in_the_log_once() {
    let mut toy = Toy::new(2).await;
    let client = toy.client().await;
    toy.world().faults = [Fault::None, Fault::Crash].into();
    assert_eq!(client.append(record(1)).await.unwrap(), Index(2));
    let appended = client.enqueue(vec![record(2), record(3)]).await.unwrap();
    eventually("crashed", || toy.is_stopped(1)).await;
    toy.lead(2);
    assert_eq!(appended.await.into_result().unwrap(), [Index(3), Index(4)]);
    toy.start(1).await;
    toy.lead(1);
    assert_eq!(client.append(record(4)).await.unwrap(), Index(5));
    assert_eq!(toy.records(), (1..=4).map(record).collect::<Vec<_>>());
    assert_eq!(toy.world().sessions.len(), 1, "one session served it all");
}

#[tokio::test]
async fn ten_thousand_in_flight_keep_their_order_whatever_is_refused() {
    let toy = Toy::new(3).await;
    let mut options = toy.options(&[1, 2, 3]);
    options.timeout = Duration::from_secs(60);
    let client = Client::connect(options).await.unwrap();
    let mut random = Random::seeded(5);
    let mut fault = || match random.below(8) {
        0 => Fault::Refuse(Refusal::Busy),
        1 => Fault::Refuse(Refusal::Unavailable { reason: "taking over".into() }),
        2 => Fault::Unknown,
        3 => Fault::Part(random.below(64) as usize),
        4 => Fault::Refuse(Refusal::NoSpace),
        _ => Fault::None,
    };
    toy.world().faults = (0..200).map(|_| fault()).collect();
    let mut waiting = Vec::new();
    for first in (0..10_000).step_by(10) {
        waiting.push(client.enqueue((first..first + 10).map(record).collect()).await.unwrap());
        if first % 2000 == 0 {
            toy.lead(1 + u64::from(first / 2000) % 3);
        }
    }
    let mut indexes = Vec::new();
    for appended in waiting {
        indexes.extend(appended.await.into_result().unwrap());
    }
    assert!(indexes.windows(2).all(|pair| pair[0] < pair[1]), "indexes rise in the order of the calls");
    assert_eq!(toy.records(), (0..10_000).map(record).collect::<Vec<_>>(), "each once, in order");
    let world = toy.world();
    assert!(world.faults.is_empty(), "all faults were met");
    assert_eq!(world.sessions.len(), 1);
    assert!(world.submissions < 3000, "{} requests: records travel together", world.submissions);
}

#[tokio::test]
async fn a_first_send_on_a_session_that_is_gone_registers_anew() {
    let toy = Toy::new(1).await;
    let client = toy.client().await;
    client.append(record(1)).await.unwrap();
    toy.world().sessions.clear();
    client.append_batch(vec![record(2), record(3)]).await.unwrap();
    assert_eq!(toy.records(), [record(1), record(2), record(3)]);
    assert_eq!(toy.world().log.len(), 5, "two registrations");
}

#[tokio::test]
async fn of_a_resend_on_a_session_that_is_gone_the_outcome_is_unknown() {
    let toy = Toy::new(1).await;
    let client = toy.client().await;
    client.append(record(1)).await.unwrap();
    toy.world().faults = [Fault::Unknown, Fault::Forget].into();
    let told = client.append(record(2)).await;
    assert!(matches!(told, Err(Error::OutcomeUnknown)), "{told:?}");
    client.append(record(3)).await.unwrap();
    assert_eq!(toy.records(), [record(1), record(2), record(3)]);
}

#[tokio::test]
async fn what_was_never_sent_is_unavailable_and_what_was_is_unknown() {
    let toy = Toy::new(1).await;
    let mut options = toy.options(&[1]);
    options.timeout = SHORT;
    let client = Client::connect(options).await.unwrap();
    client.append(record(1)).await.unwrap();
    toy.world().faults = [Fault::Lose].into();
    let told = client.append(record(2)).await;
    assert!(matches!(told, Err(Error::OutcomeUnknown)), "{told:?}");
    toy.lead(9);
    let begun = Instant::now();
    let told = client.append(record(3)).await;
    assert!(matches!(told, Err(Error::Unavailable { .. })), "{told:?}");
    let took = begun.elapsed();
    assert!(took >= SHORT && took < SHORT * 3, "{took:?}");
    let told = client.read(Index(1), None, Consistency::Linearizable).await;
    assert!(matches!(told, Err(Error::Unavailable { .. })), "{told:?}");
    toy.lead(1);
    client.append(record(4)).await.unwrap();
    assert_eq!(toy.records(), [record(1), record(2), record(4)], "what was unavailable does not come later");
}

#[tokio::test]
async fn refusals_that_last_are_told_as_what_they_are() {
    let toy = Toy::new(1).await;
    let mut options = toy.options(&[1]);
    options.timeout = SHORT;
    let client = Client::connect(options).await.unwrap();
    let refuse = |refusal: Refusal| toy.world().faults = vec![Fault::Refuse(refusal); 1000].into();
    refuse(Refusal::NoSpace);
    assert!(matches!(client.append(record(1)).await, Err(Error::NoSpace)));
    refuse(Refusal::Busy);
    assert!(matches!(client.append(record(2)).await, Err(Error::Busy)));
    refuse(Refusal::Malformed);
    assert!(matches!(client.append(record(3)).await, Err(Error::Refused(Refusal::Malformed))));
    toy.world().faults.clear();
    client.append(record(4)).await.unwrap();
    assert_eq!(toy.records(), [record(4)]);
    let large = Bytes::from(vec![0; RECORD_BYTES_MAX + 1]);
    let told = client.append(large).await;
    assert!(matches!(told, Err(Error::TooLarge { max: RECORD_BYTES_MAX, .. })), "{told:?}");
}

#[tokio::test]
async fn a_full_queue_makes_callers_wait() {
    let toy = Toy::new(1).await;
    let mut options = toy.options(&[1]);
    options.queue_bytes_max = 10 * (64 + 4);
    let client = Client::connect(options).await.unwrap();
    toy.world().faults = vec![Fault::Refuse(Refusal::Busy); 8].into();
    let first = client.try_enqueue((0..10).map(record).collect()).unwrap();
    assert!(matches!(client.try_enqueue(vec![record(10)]), Err(Error::Busy)));
    let second = client.enqueue(vec![record(10)]).await.unwrap();
    // The room of the first was given back only when its outcomes were known.
    assert_eq!(toy.records().len(), 10);
    assert_eq!(first.await.into_result().unwrap().len(), 10);
    second.await.into_result().unwrap();
    let many = client.try_enqueue((0..11).map(record).collect());
    assert!(matches!(many, Err(Error::TooLarge { .. })), "{many:?}");
    assert_eq!(client.append_batch(Vec::new()).await.unwrap(), []);
}

#[tokio::test]
async fn a_silent_leader_is_left_for_one_of_a_later_term() {
    let toy = Toy::new(2).await;
    let client = toy.client().await;
    client.append(record(1)).await.unwrap();
    toy.world().silent.push(1);
    toy.lead(2);
    let begun = Instant::now();
    client.append(record(2)).await.unwrap();
    let took = begun.elapsed();
    assert!(took < Duration::from_millis(1500), "{took:?}: sooner than the connection is given up");
    assert_eq!(toy.records(), [record(1), record(2)]);
}

#[tokio::test]
async fn a_tail_goes_on_where_it_was() {
    let mut toy = Toy::new(2).await;
    let client = toy.client().await;
    let mut tail = client.tail(Index(1));
    let mut seen = Vec::new();
    for round in 0..4 {
        client.append_batch((round * 150..(round + 1) * 150).map(record).collect()).await.unwrap();
        while seen.len() < 150 * (round as usize + 1) {
            let records = tokio::time::timeout(Duration::from_secs(10), tail.next()).await.unwrap().unwrap();
            seen.extend(records.records.into_iter().map(|(_, record)| record));
        }
        let (leads, next) = (1 + u64::from(round) % 2, 1 + u64::from(round + 1) % 2);
        toy.stop(leads);
        eventually("stopped", || toy.is_stopped(leads)).await;
        toy.world().tails.retain(|tail| tail.0 != leads);
        toy.lead(next);
        toy.start(leads).await;
    }
    assert_eq!(seen, (0..600).map(record).collect::<Vec<_>>());
}

#[tokio::test]
async fn reads_statuses_and_the_map_are_answered() {
    let mut toy = Toy::new(3).await;
    let client = toy.client().await;
    client.append_batch(vec![record(1), record(2)]).await.unwrap();
    let records = client.read(Index(1), None, Consistency::Linearizable).await.unwrap();
    assert_eq!(records.records, [(Index(2), record(1)), (Index(3), record(2))]);
    client.put(Bytes::from_static(b"key"), Bytes::from_static(b"value")).await.unwrap();
    assert_eq!(client.get(Bytes::from_static(b"key"), Consistency::Stale).await.unwrap(), None);
    let long = Bytes::from(vec![0; KEY_BYTES_MAX + 1]);
    assert!(matches!(client.put(long, Bytes::new()).await, Err(Error::Machine(_))));
    toy.stop(3);
    eventually("stopped", || toy.is_stopped(3)).await;
    let statuses = client.statuses().await;
    let answers: Vec<_> = statuses.iter().map(|(node, _, status)| (node.0, status.is_ok())).collect();
    assert_eq!(answers, [(1, true), (2, true), (3, false)]);
    assert!(matches!(client.status(NodeId(9)).await, Err(Error::UnknownNode { .. })));
}

/// It takes the connection, and is asked beside the others.
#[tokio::test]
async fn a_node_that_says_nothing_is_waited_for_no_longer_than_whoever_asks_wants() {
    let toy = Toy::new(3).await;
    let client = toy.client().await;
    toy.world().silent.push(3);
    let begun = Instant::now();
    let statuses = client.statuses_within(Duration::from_millis(1500)).await;
    let answers: Vec<_> = statuses.iter().map(|(node, _, status)| (node.0, status.is_ok())).collect();
    assert_eq!(answers, [(1, true), (2, true), (3, false)]);
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_stranger_is_told_at_once_that_waiting_cannot_help() {
    let toy = Toy::new(2).await;
    let mut options = toy.options(&[1, 2]);
    let stranger = Authority::create(ClusterId(7), Validity::days(1)).unwrap();
    let issued = stranger.issue(&Role::Client("app".into()), Validity::days(1)).unwrap();
    let authority = &toy.authority.pem().certificate;
    options.identity = Identity::from_pem(&issued.certificate, &issued.key, authority, None).unwrap();
    let begun = Instant::now();
    let told = Client::connect(options).await;
    assert!(matches!(told, Err(Error::NotTrusted(_))), "{told:?}");
    assert!(begun.elapsed() < Duration::from_secs(2));
}

/// Only the second node is known to begin with: what is written goes there, and by it to whoever leads.
#[tokio::test]
async fn a_client_that_may_be_passed_on_stays_with_the_node_that_it_has() {
    let mut toy = Toy::new(3).await;
    let options = ClientOptions { forward: true, ..toy.options(&[2]) };
    let client = Client::connect(options).await.unwrap();
    assert_eq!(client.append(record(1)).await.unwrap(), Index(2));
    assert_eq!(client.leader(), Some(NodeId(1)), "as its node says");
    toy.lead(3);
    toy.world().faults = [Fault::Unknown, Fault::Refuse(Refusal::Unavailable { reason: "changed".into() })].into();
    assert_eq!(client.append(record(2)).await.unwrap(), Index(3));
    let (put, _) = client.command(Bytes::from_static(b"command")).await.unwrap();
    assert_eq!(put, Index(4));
    assert!(toy.world().asked.iter().all(|node| *node == 2), "{:?}", toy.world().asked);
    // It goes: another one of those that it named takes its place, under the same session.
    toy.world().faults = [Fault::Crash].into();
    assert_eq!(client.append(record(3)).await.unwrap(), Index(5));
    assert!(toy.is_stopped(2));
    let asked = toy.world().asked.clone();
    assert!(asked.last().is_some_and(|node| *node != 2), "{asked:?}");
    assert_eq!((toy.records().len(), toy.world().sessions.len()), (4, 1), "each is there once, in one session");
    toy.start(2).await;
}

/// A node that knows no leader is of no use for this.
#[tokio::test]
async fn a_client_that_may_be_passed_on_leaves_a_node_that_knows_no_leader() {
    let toy = Toy::new(3).await;
    let mut options = ClientOptions { forward: true, ..toy.options(&[1, 2, 3]) };
    options.timeout = SHORT;
    toy.lead(9);
    let refused = Client::connect(options).await;
    assert!(matches!(refused, Err(Error::Unavailable { .. })), "{refused:?}");
    toy.lead(3);
    let client = Client::connect(ClientOptions { forward: true, ..toy.options(&[1, 2, 3]) }).await.unwrap();
    assert_eq!(client.append(record(1)).await.unwrap(), Index(2));
    toy.lead(9);
    let waiting = client.enqueue(vec![record(2)]).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    toy.lead(2);
    assert_eq!(waiting.await.into_result().unwrap(), [Index(3)]);
    assert_eq!(toy.records(), [record(1), record(2)]);
}

/// What only the leader can do is asked of the leader.
#[tokio::test]
async fn a_change_goes_to_the_leader_by_whatever_way_writes_go() {
    let toy = Toy::new(2).await;
    let client = Client::connect(ClientOptions { forward: true, ..toy.options(&[2]) }).await.unwrap();
    client.append(record(1)).await.unwrap();
    assert_eq!(client.change(crate::net::Change::Transfer(NodeId(2))).await.unwrap(), Index(0));
    assert_eq!(client.append(record(2)).await.unwrap(), Index(3));
}

/// A process that stands still answers nothing, not even what it could say by itself.
#[tokio::test]
async fn a_client_that_may_be_passed_on_leaves_a_node_that_says_nothing_at_all() {
    let toy = Toy::new(3).await;
    let client = Client::connect(ClientOptions { forward: true, ..toy.options(&[2]) }).await.unwrap();
    client.append(record(1)).await.unwrap();
    toy.world().silent = vec![2];
    let begun = Instant::now();
    client.append(record(2)).await.unwrap();
    println!("left after {:?}", begun.elapsed());
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    assert_eq!(toy.records(), [record(1), record(2)]);
    let asked = toy.world().asked.clone();
    assert!(asked.last().is_some_and(|node| *node != 2), "{asked:?}");
}

/// Its answers to other questions show that it is there: it is the leader that takes its time.
#[tokio::test]
async fn a_client_that_may_be_passed_on_stays_with_a_node_whose_leader_is_slow() {
    let toy = Toy::new(3).await;
    let client = Client::connect(ClientOptions { forward: true, ..toy.options(&[2]) }).await.unwrap();
    client.append(record(1)).await.unwrap();
    toy.world().faults = [Fault::Lose].into();
    assert!(matches!(client.append(record(2)).await, Err(Error::OutcomeUnknown)));
    assert!(toy.world().asked.iter().all(|node| *node == 2), "{:?}", toy.world().asked);
}

#[tokio::test]
async fn who_looks_again_and_again_keeps_a_connection_to_each_node() {
    let mut toy = Toy::new(2).await;
    toy.lead(1);
    let client = toy.client().await;
    let mut looks = Looks::new(&client);
    // The client itself asks as well, in its own time and on its own connection.
    let own: std::collections::BTreeSet<_> = toy.world().looks.iter().copied().collect();
    for _ in 0..20 {
        assert_eq!(looks.leader().await.map(|status| status.id), Some(NodeId(1)));
        assert_eq!(looks.status(NodeId(2)).await.unwrap().id, NodeId(2));
    }
    let asked: std::collections::BTreeSet<_> = toy.world().looks.iter().copied().collect();
    assert_eq!(asked.difference(&own).count(), 2, "{asked:?}");
    // A question that is given up, and a connection that breaks, cost nothing but a new one.
    toy.world().silent.push(2);
    assert!(tokio::time::timeout(Duration::from_millis(50), looks.status(NodeId(2))).await.is_err());
    toy.world().silent.clear();
    assert_eq!(looks.status(NodeId(2)).await.unwrap().id, NodeId(2));
    toy.stop(2);
    toy.start(2).await;
    eventually_async(&mut looks, NodeId(2)).await;
}

/// While no leader is known all nodes are asked with each look.
#[tokio::test]
async fn who_looks_for_a_leader_that_is_not_there_keeps_a_connection_to_each_node() {
    let toy = Toy::new(3).await;
    let client = toy.client().await;
    // None of these.
    toy.lead(9);
    let mut looks = Looks::new(&client);
    let before: std::collections::BTreeSet<_> = toy.world().looks.iter().copied().collect();
    for _ in 0..10 {
        assert!(looks.leader().await.is_none());
    }
    let asked: std::collections::BTreeSet<_> = toy.world().looks.iter().copied().collect();
    assert_eq!(asked.difference(&before).count(), 3, "{asked:?}");
    toy.lead(3);
    assert_eq!(looks.leader().await.map(|status| status.id), Some(NodeId(3)));
    assert_eq!(client.leader(), Some(NodeId(3)), "what was seen there the client knows");
    let asked: std::collections::BTreeSet<_> = toy.world().looks.iter().copied().collect();
    assert_eq!(asked.difference(&before).count(), 3, "{asked:?}");
}

async fn eventually_async(looks: &mut Looks<'_>, node: NodeId) {
    for _ in 0..100 {
        if looks.status(node).await.is_ok_and(|status| status.id == node) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("node {node} is not seen any more");
}
