use super::inbox::Arrival;
use super::tests::*;
use crate::raft::message::Message;

fn messages(arrivals: &[Arrival]) -> Vec<&Message> {
    let message = |arrival| match arrival {
        &Arrival::Peer { ref message, .. } => Some(message),
        _ => None,
    };
    arrivals.iter().filter_map(message).collect()
}

#[tokio::test]
async fn two_nodes_exchange_messages_in_order_on_both_streams() {
    let cluster = Cluster::new();
    let (one, two) = (cluster.node(1), cluster.node(2));
    introduce(&one, &two);
    until_up(&one, 2).await;
    until_up(&two, 1).await;
    for number in 1..=1000 {
        one.peers().send(&append(1, 2, number, 100));
        two.peers().send(&heartbeat(2, 1, number));
    }
    let at_two = arrivals_until(&two.inbox(), |arrivals| messages(arrivals).len() == 1000).await;
    let at_one = arrivals_until(&one.inbox(), |arrivals| messages(arrivals).len() == 1000).await;
    for number in 1..=1000 {
        assert_eq!(messages(&at_two)[number - 1], &append(1, 2, number as u64, 100));
        assert_eq!(messages(&at_one)[number - 1], &heartbeat(2, 1, number as u64));
    }
    assert_eq!(one.counters().messages_dropped + two.counters().messages_dropped, 0);
}
