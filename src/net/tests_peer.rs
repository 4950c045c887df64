//! Links between nodes.

use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::certificate::Validity;
use super::tests::*;
use super::tests_raw as raw;
use super::*;
use crate::limits::{CORE_QUEUE_BYTES_MAX, ENTRY_OVERHEAD_BYTES};
use crate::raft::message::{Body, Message};
use crate::types::*;

fn messages(arrivals: &[Arrival]) -> Vec<&Message> {
    let mut found = Vec::new();
    for arrival in arrivals {
        if let Arrival::Peer { message, .. } = arrival {
            found.push(message);
        }
    }
    found
}

fn rounds(arrivals: &[Arrival]) -> Vec<u64> {
    let round = |message: &Message| match message.body {
        Body::Heartbeat { round, .. } => round.0,
        _ => panic!("only heartbeats are sent here"),
    };
    messages(arrivals).into_iter().map(round).collect()
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

#[tokio::test]
async fn an_entry_of_the_largest_size_arrives() {
    let cluster = Cluster::new();
    let (one, two) = (cluster.node(1), cluster.node(2));
    introduce(&one, &two);
    until_up(&two, 1).await;
    until_up(&one, 2).await;
    let largest = append(1, 2, 1, crate::limits::RECORD_BYTES_MAX);
    one.peers().send(&largest);
    let arrivals = arrivals_until(&two.inbox(), |arrivals| !messages(arrivals).is_empty()).await;
    assert_eq!(messages(&arrivals), [&largest]);
}

#[tokio::test]
async fn messages_stay_in_order_while_links_break_and_come_back() {
    let cluster = Cluster::new();
    let (one, two) = (cluster.node(1), cluster.node(2));
    introduce(&one, &two);
    let (mut sent, mut seen) = (0, Vec::new());
    for _ in 0..20 {
        until_up(&one, 2).await;
        for _ in 0..50 {
            sent += 1;
            one.peers().send(&heartbeat(1, 2, sent));
            tokio::task::yield_now().await;
        }
        two.inbox().drain(&mut seen);
        let peer = one.peers().known(NodeId(2));
        peer.link.current().expect("the link is up").close(0u32.into(), b"");
    }
    until_up(&one, 2).await;
    one.peers().send(&heartbeat(1, 2, sent + 1));
    seen.extend(arrivals_until(&two.inbox(), |arrivals| rounds(arrivals).contains(&(sent + 1))).await);
    assert!(rounds(&seen).is_sorted_by(|left, right| left < right), "in order, none twice: {:?}", rounds(&seen));
    let mut up = false;
    for arrival in &seen {
        match arrival {
            Arrival::PeerUp { .. } => assert!(!std::mem::replace(&mut up, true), "up twice"),
            Arrival::PeerDown { .. } => assert!(std::mem::replace(&mut up, false), "down twice"),
            _ => assert!(up, "a message while the link is down"),
        }
    }
    assert!(one.counters().peers_up >= 21);
}

#[tokio::test]
async fn a_node_that_starts_again_on_its_port_is_found() {
    let cluster = Cluster::new();
    let (one, two) = (cluster.node(1), cluster.node(2));
    introduce(&one, &two);
    until_up(&one, 2).await;
    let address = two.local_address();
    let members = [(NodeId(1), one.local_address())];
    two.close().await;
    arrivals_until(&one.inbox(), |arrivals| arrivals.contains(&Arrival::PeerDown { node: NodeId(2) })).await;
    one.peers().send(&heartbeat(1, 2, 1));
    assert_eq!(one.counters().messages_dropped, 1);
    eventually("the port is free", || std::net::UdpSocket::bind(address).is_ok()).await;
    let two = cluster.node_with(2, address, endpoint::Facts { boot: 2, ..facts(2) }, Settings::default());
    two.peers().set_members(members);
    let arrivals = arrivals_until(&one.inbox(), |arrivals| !arrivals.is_empty()).await;
    assert!(matches!(&arrivals[0], Arrival::PeerUp { hello } if hello.boot == 2));
}

#[tokio::test]
async fn a_node_that_was_killed_and_is_back_is_found_before_the_idle_timeout() {
    let cluster = Cluster::new();
    let issued = cluster.authority.issue(&Role::Node(NodeId(2)), Validity::days(1)).unwrap();
    let live = |boot| {
        let facts = endpoint::Facts { boot, ..facts(2) };
        Endpoint::bind(&cluster.trusting(&issued), "127.0.0.1:0".parse().unwrap(), facts, Settings::default()).unwrap()
    };
    let (one, first_life) = (cluster.node(1), live(1));
    // Killed is unreachable from one moment to the next, without a word: the way leads to the second life then.
    let way = raw::proxy(first_life.local_address(), true).await;
    one.peers().set_members([(NodeId(2), way.address)]);
    first_life.peers().set_members([(NodeId(1), one.local_address())]);
    until_up(&one, 2).await;
    let second_life = live(2);
    second_life.peers().set_members([(NodeId(1), one.local_address())]);
    way.upstream.connect(second_life.local_address()).await.unwrap();
    let begun = std::time::Instant::now();
    let is_second = |arrival: &Arrival| matches!(arrival, Arrival::PeerUp { hello } if hello.boot == 2);
    arrivals_until(&one.inbox(), |arrivals| arrivals.iter().any(is_second)).await;
    let idle = Settings::default().idle_timeout;
    assert!(begun.elapsed() < idle * 3 / 4, "found after {:?}, the idle timeout is {idle:?}", begun.elapsed());
}

#[tokio::test]
async fn a_node_that_is_no_member_any_more_is_cut_off() {
    let cluster = Cluster::new();
    let (one, two) = (cluster.node(1), cluster.node(2));
    introduce(&one, &two);
    until_up(&two, 1).await;
    two.peers().set_members([]);
    arrivals_until(&two.inbox(), |arrivals| arrivals.contains(&Arrival::PeerDown { node: NodeId(1) })).await;
    eventually("refused when it comes again", || two.counters().hellos_refused > 0).await;
    assert!(!two.peers().is_up(NodeId(1)));
}

#[tokio::test]
async fn settings_that_must_agree_keep_nodes_apart() {
    let cluster = Cluster::new();
    let anywhere = "127.0.0.1:0".parse().unwrap();
    let other = Facts { fingerprint: 8, ..facts(2) };
    let (one, two) = (cluster.node(1), cluster.node_with(2, anywhere, other, Settings::default()));
    introduce(&one, &two);
    eventually("refused", || two.counters().hellos_refused > 0).await;
    // Whoever dialled is told so.
    let told = Arrival::Refused { node: NodeId(2), reason: CloseReason::WrongFingerprint };
    let arrivals = arrivals_until(&one.inbox(), |arrivals| !arrivals.is_empty()).await;
    assert!(arrivals.iter().all(|arrival| *arrival == told), "{arrivals:?}");
    assert!(two.inbox().is_empty());
}

/// What node 1 says of itself.
fn honest(boot: u64) -> Hello {
    Hello {
        cluster: CLUSTER,
        node: NodeId(1),
        incarnation: Incarnation(101),
        boot,
        protocol_version: PEER_PROTOCOL_VERSION,
        fingerprint: 7,
        configuration: LogId::ZERO,
        receiver: None,
    }
}

/// Greets node 2 with any claim; the reason for which it closed, or `None` if it answered.
async fn claim(cluster: &Cluster, node: &Endpoint, id: u64, hello: Hello) -> Option<CloseReason> {
    let issued = cluster.authority.issue(&Role::Node(NodeId(id)), Validity::days(1)).unwrap();
    let connection = raw::dial(node.local_address(), Some(&issued), ALPN_PEER).await.unwrap();
    let (mut send, mut receive) = connection.open_bi().await.unwrap();
    let mut out = BytesMut::new();
    put_hello(&mut out, &hello);
    send.write_all(&out).await.unwrap();
    match receive.read(&mut [0; 8]).await {
        Ok(_) => None,
        Err(_) => match connection.close_reason().unwrap() {
            quinn::ConnectionError::ApplicationClosed(close) => Some(CloseReason::from_code(close.error_code)),
            other => panic!("{other}"),
        },
    }
}

#[tokio::test]
async fn each_claim_is_compared_with_the_certificate_and_the_cluster() {
    let cluster = Cluster::new();
    let two = cluster.node(2);
    let good = honest(1);
    let cases = [
        (1, good, None),
        (1, Hello { cluster: ClusterId(9), ..good }, Some(CloseReason::WrongCluster)),
        (1, Hello { node: NodeId(3), ..good }, Some(CloseReason::WrongNode)),
        (1, Hello { protocol_version: 2, ..good }, Some(CloseReason::WrongVersion)),
        (1, Hello { fingerprint: 8, ..good }, Some(CloseReason::WrongFingerprint)),
        // Its own id, and a higher one, which does not dial.
        (2, Hello { node: NodeId(2), ..good }, Some(CloseReason::WrongNode)),
        (3, Hello { node: NodeId(3), ..good }, Some(CloseReason::WrongNode)),
    ];
    for (id, hello, expected) in cases {
        assert_eq!(claim(&cluster, &two, id, hello).await, expected, "{hello:?}");
    }
    assert_eq!(two.counters().hellos_refused, 6);
    two.peers().set_members([]);
    assert_eq!(claim(&cluster, &two, 1, good).await, Some(CloseReason::Stranger));
    assert_eq!(two.counters().hellos_refused, 7);
    assert!(two.inbox().is_empty());
}

#[tokio::test]
async fn another_life_of_a_node_and_an_earlier_moment_of_it_are_refused() {
    let cluster = Cluster::new();
    let two = cluster.node(2);
    let good = honest(5);
    let cases = [
        (good, None),
        (Hello { incarnation: Incarnation(102), ..good }, Some(CloseReason::WrongIncarnation)),
        (Hello { incarnation: Incarnation(102), boot: 9, ..good }, Some(CloseReason::WrongIncarnation)),
        (Hello { boot: 4, ..good }, Some(CloseReason::OlderBoot)),
        (good, None),
        (Hello { boot: 6, ..good }, None),
        (good, Some(CloseReason::OlderBoot)),
    ];
    for (hello, expected) in cases {
        assert_eq!(claim(&cluster, &two, 1, hello).await, expected, "{hello:?}");
    }
    assert_eq!(two.counters().hellos_refused, 4);
}

#[tokio::test]
async fn whoever_dials_refuses_an_earlier_moment_too() {
    let cluster = Cluster::new();
    let (one, two) =
        (cluster.node(1), cluster.node_with(2, "127.0.0.1:0".parse().unwrap(), booted(2), Settings::default()));
    introduce(&one, &two);
    until_up(&one, 2).await;
    two.close().await;
    let older = cluster.node_with(2, "127.0.0.1:0".parse().unwrap(), booted(1), Settings::default());
    arrivals_until(&one.inbox(), |arrivals| arrivals.contains(&Arrival::PeerDown { node: NodeId(2) })).await;
    introduce(&one, &older);
    eventually("refused", || one.counters().hellos_refused > 0).await;
    assert!(!one.peers().is_up(NodeId(2)));
}

fn booted(boot: u64) -> Facts {
    Facts { boot, ..facts(2) }
}

/// A link that is up, as an attacker with a node's certificate would hold it.
async fn raw_link(
    cluster: &Cluster,
    node: &Endpoint,
) -> (quinn::Connection, quinn::SendStream, quinn::SendStream, quinn::SendStream) {
    let issued = cluster.authority.issue(&Role::Node(NodeId(1)), Validity::days(1)).unwrap();
    let connection = raw::dial(node.local_address(), Some(&issued), ALPN_PEER).await.unwrap();
    let (mut control, mut receive) = connection.open_bi().await.unwrap();
    let mut out = BytesMut::new();
    let local = Hello {
        cluster: CLUSTER,
        node: NodeId(1),
        incarnation: Incarnation(101),
        boot: 1,
        protocol_version: PEER_PROTOCOL_VERSION,
        fingerprint: 7,
        configuration: LogId::ZERO,
        receiver: None,
    };
    put_hello(&mut out, &local);
    control.write_all(&out.split()).await.unwrap();
    receive.read(&mut [0; 8]).await.unwrap();
    let (mut log, _) = connection.open_bi().await.unwrap();
    put_log_stream(&mut out);
    log.write_all(&out.split()).await.unwrap();
    let (mut forward, _) = connection.open_bi().await.unwrap();
    put_forward_stream(&mut out);
    forward.write_all(&out).await.unwrap();
    until_up(node, 1).await;
    (connection, control, log, forward)
}

#[tokio::test]
async fn a_peer_that_speaks_for_another_or_nonsense_is_closed() {
    let cluster = Cluster::new();
    let two = cluster.node(2);
    let mut damaged = BytesMut::new();
    put_message(&mut damaged, &append(1, 2, 1, 50));
    let last = damaged.len() - 1;
    damaged[last] ^= 1;
    let mut foreign = BytesMut::new();
    put_message(&mut foreign, &heartbeat(3, 2, 1));
    let mut stray = BytesMut::new();
    put_message(&mut stray, &heartbeat(1, 3, 1));
    let lies = [u32::MAX, 1 << 31, peer_wire::PEER_FRAME_BYTES_MAX as u32 + 1, 0].map(|lie| lie.to_le_bytes().to_vec());
    for bytes in lies.into_iter().chain([damaged.to_vec(), foreign.to_vec(), stray.to_vec()]) {
        let (connection, mut control, _log, _forward) = raw_link(&cluster, &two).await;
        control.write_all(&bytes).await.unwrap();
        let closed = tokio::time::timeout(Duration::from_secs(2), connection.closed()).await;
        assert!(matches!(closed, Ok(quinn::ConnectionError::ApplicationClosed(_))));
        let arrivals = arrivals_until(&two.inbox(), |arrivals| !arrivals.is_empty()).await;
        assert_eq!(arrivals, [Arrival::PeerDown { node: NodeId(1) }], "nothing else has reached the core");
    }
    assert_eq!(two.counters().malformed, 5);
}

/// The other end's half-dead connection must not keep its new one out.
#[tokio::test]
async fn a_newer_connection_of_a_node_takes_the_place_of_the_older() {
    let cluster = Cluster::new();
    let two = cluster.node(2);
    let (older, _control, _log, _forward) = raw_link(&cluster, &two).await;
    let (newer, mut control, _log, _forward) = raw_link(&cluster, &two).await;
    let closed = tokio::time::timeout(Duration::from_secs(5), older.closed()).await.expect("closed at once");
    let quinn::ConnectionError::ApplicationClosed(close) = closed else { panic!("{closed}") };
    assert_eq!(CloseReason::from_code(close.error_code), CloseReason::Replaced);
    let mut out = BytesMut::new();
    put_message(&mut out, &heartbeat(1, 2, 9));
    control.write_all(&out).await.unwrap();
    let arrivals = arrivals_until(&two.inbox(), |arrivals| !arrivals.is_empty()).await;
    assert_eq!(rounds(&arrivals), [9], "only the newer one speaks, and it was not taken down with the older");
    assert_eq!(newer.close_reason(), None);
    assert!(two.peers().is_up(NodeId(1)));
}

#[tokio::test]
async fn what_waits_for_a_peer_is_bounded() {
    let cluster = Cluster::new();
    let (one, two) = (cluster.node(1), cluster.node(2));
    introduce(&one, &two);
    until_up(&one, 2).await;
    // Without a turn for the writer: the lane takes its bound and one message more.
    for number in 1..=200 {
        one.peers().send(&append(1, 2, number, 1 << 17));
    }
    let taken = settings::LOG_LANE_BYTES_MAX.div_ceil((1 << 17) + 100) as u64;
    assert!((200 - taken - 1..=200 - taken + 1).contains(&one.counters().messages_dropped));
}

fn forward(number: u64, bytes: usize) -> Forward {
    let id = ForwardId { incarnation: Incarnation(101), boot: 1, number };
    Forward { id, term: Term(1), commands: vec![command(number, bytes)] }
}

/// What has arrived of requests that were passed on, and of answers to them.
fn forwards(arrivals: &[Arrival]) -> Vec<(NodeId, u64)> {
    let number = |arrival: &Arrival| match arrival {
        Arrival::Forward { from, forward, .. } => Some((*from, forward.id.number)),
        Arrival::Forwarded { from, forwarded } => Some((*from, forwarded.id.number)),
        _ => None,
    };
    arrivals.iter().filter_map(number).collect()
}

#[tokio::test]
async fn requests_that_are_passed_on_arrive_in_order_and_so_do_their_answers() {
    let cluster = Cluster::new();
    let (one, two) = (cluster.node(1), cluster.node(2));
    introduce(&one, &two);
    until_up(&one, 2).await;
    until_up(&two, 1).await;
    let longest = crate::limits::RECORD_BYTES_MAX;
    let size = |number: u64| if number == 7 { longest } else { 100 };
    for number in 1..=500 {
        one.peers().forward(NodeId(2), &forward(number, size(number))).unwrap();
    }
    let arrivals = arrivals_until(&two.inbox(), |arrivals| forwards(arrivals).len() == 500).await;
    assert_eq!(forwards(&arrivals), (1..=500).map(|number| (NodeId(1), number)).collect::<Vec<_>>());
    for arrival in arrivals {
        let Arrival::Forward { from, sender, forward: found } = arrival else { continue };
        assert_eq!(
            (from, sender.incarnation),
            (NodeId(1), Incarnation(101)),
            "as the certificate and the greeting say"
        );
        assert_eq!(found, forward(found.id.number, size(found.id.number)));
        let outcome = Ok(vec![SubmitResult::Run { first: Index(found.id.number), count: 1 }]);
        two.peers().forwarded(from, &Forwarded { id: found.id, outcome });
    }
    let answers = arrivals_until(&one.inbox(), |arrivals| forwards(arrivals).len() == 500).await;
    assert_eq!(forwards(&answers), (1..=500).map(|number| (NodeId(2), number)).collect::<Vec<_>>());
}

/// Whoever is told that it was not taken counts on that it never leaves. Control passes what waits.
#[tokio::test]
async fn what_is_passed_on_is_bounded_and_holds_up_no_heartbeat() {
    let cluster = Cluster::new();
    let (one, two) = (cluster.node(1), cluster.node(2));
    introduce(&one, &two);
    assert_eq!(one.peers().forward(NodeId(2), &forward(1, 10)), Err(NotForwarded::NoLink));
    until_up(&one, 2).await;
    until_up(&two, 1).await;
    // Node 2 takes nothing out of its inbox: its clients' share is full at last, and the stream waits.
    let (mut taken, mut waits) = (0, 0);
    let clients_share = 3 * CORE_QUEUE_BYTES_MAX / 4;
    while waits < 50 || two.inbox().bytes() < clients_share {
        match one.peers().forward(NodeId(2), &forward(taken + 1, crate::limits::RECORD_BYTES_MAX)) {
            Ok(()) => (taken, waits) = (taken + 1, 0),
            Err(why) => {
                assert_eq!(why, NotForwarded::Full);
                waits += 1;
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        assert!(taken < 200, "there is no bound");
    }
    assert!(taken > 50, "{taken}");
    // The heartbeats find room, though no more of the requests do.
    let full = two.inbox().bytes();
    for round in 1..=100 {
        one.peers().send(&heartbeat(1, 2, round));
    }
    let with_heartbeats = full + 100 * ENTRY_OVERHEAD_BYTES;
    eventually("the heartbeats are there", || two.inbox().bytes() >= with_heartbeats).await;
    let mut arrivals = Vec::new();
    two.inbox().drain(&mut arrivals);
    assert_eq!(rounds(&arrivals).len(), 100, "{} requests in the inbox", forwards(&arrivals).len());
    assert!((forwards(&arrivals).len() as u64) < taken);
    let rest = taken as usize - forwards(&arrivals).len();
    let more = arrivals_until(&two.inbox(), |arrivals| forwards(arrivals).len() == rest).await;
    arrivals.extend(more);
    assert_eq!(forwards(&arrivals), (1..=taken).map(|number| (NodeId(1), number)).collect::<Vec<_>>(), "and no other");
}

/// The leader has more to say than its link takes at once: of the rest the other node hears that it hears no more.
#[tokio::test]
async fn an_answer_that_finds_no_room_is_told_as_unknown_at_once() {
    let cluster = Cluster::new();
    let (one, two) = (cluster.node(1), cluster.node(2));
    introduce(&one, &two);
    until_up(&one, 2).await;
    until_up(&two, 1).await;
    // Without a turn for the writer.
    for number in 1..=200 {
        let answer = Bytes::from(vec![0; 1 << 17]);
        let outcome = Ok(vec![SubmitResult::Done { index: Index(number), answer }]);
        two.peers().forwarded(NodeId(1), &Forwarded { id: forward(number, 1).id, outcome });
    }
    assert_eq!(two.counters().messages_dropped, 0);
    let arrivals = arrivals_until(&one.inbox(), |arrivals| forwards(arrivals).len() == 200).await;
    let is_unknown = |arrival: &Arrival| match arrival {
        Arrival::Forwarded { forwarded, .. } => forwarded.outcome == Err(Refusal::OutcomeUnknown),
        other => panic!("{other:?}"),
    };
    let unknown = arrivals.iter().filter(|arrival| is_unknown(arrival)).count();
    println!("{unknown} of 200 found no room");
    let taken = settings::FORWARDED_LANE_BYTES_MAX.div_ceil((1 << 17) + 50);
    assert!((200 - taken - 1..=200 - taken + 1).contains(&unknown), "{unknown}");
    assert!(arrivals[..taken - 1].iter().all(|arrival| !is_unknown(arrival)), "the first are whole");
}

#[tokio::test]
async fn what_was_passed_on_to_a_link_goes_by_no_later_one() {
    let cluster = Cluster::new();
    let (one, two) = (cluster.node(1), cluster.node(2));
    introduce(&one, &two);
    let (mut sent, mut seen) = (0, Vec::new());
    for _ in 0..10 {
        until_up(&one, 2).await;
        for _ in 0..50 {
            sent += 1;
            one.peers().forward(NodeId(2), &forward(sent, 5000)).unwrap();
            // The last ones are in nobody's hands yet when the link breaks.
            if sent % 50 < 40 {
                tokio::task::yield_now().await;
            }
        }
        two.inbox().drain(&mut seen);
        let connection = one.peers().known(NodeId(2)).link.current();
        connection.expect("the link is up").close(0u32.into(), b"");
    }
    until_up(&one, 2).await;
    one.peers().forward(NodeId(2), &forward(sent + 1, 10)).unwrap();
    let is_last = |arrivals: &[Arrival]| forwards(arrivals).iter().any(|(_, number)| *number == sent + 1);
    seen.extend(arrivals_until(&two.inbox(), is_last).await);
    let numbers: Vec<u64> = forwards(&seen).into_iter().map(|(_, number)| number).collect();
    assert!(numbers.is_sorted_by(|left, right| left < right), "in order, none twice: {numbers:?}");
    // 50 were given to each link: what one has brought is of one fifty.
    for link in seen.split(|arrival| matches!(arrival, Arrival::PeerUp { .. })) {
        let fifties: Vec<u64> = forwards(link).into_iter().map(|(_, number)| (number - 1) / 50).collect();
        assert!(fifties.windows(2).all(|pair| pair[0] == pair[1]), "{fifties:?}");
    }
}

/// Bytes of a peer are no more trusted on this stream than on the others, and nobody but a node has one.
#[tokio::test]
async fn nonsense_on_the_stream_for_what_is_passed_on_ends_the_link() {
    let cluster = Cluster::new();
    let two = cluster.node(2);
    let mut good = BytesMut::new();
    put_forward(&mut good, &forward(1, 50));
    let changed = |place: usize| {
        let mut bytes = good.to_vec();
        bytes[place] ^= 0x55;
        bytes
    };
    let mut heartbeat_here = BytesMut::new();
    put_message(&mut heartbeat_here, &heartbeat(1, 2, 1));
    let too_long = u32::MAX.to_le_bytes().to_vec();
    for bytes in [too_long, changed(4), changed(good.len() - 1), changed(40), heartbeat_here.to_vec()] {
        let malformed = two.counters().malformed;
        let (connection, _control, _log, mut stream) = raw_link(&cluster, &two).await;
        stream.write_all(&bytes).await.unwrap();
        connection.closed().await;
        eventually("counted", || two.counters().malformed == malformed + 1).await;
        let down = |arrivals: &[Arrival]| arrivals.contains(&Arrival::PeerDown { node: NodeId(1) });
        let arrivals = arrivals_until(&two.inbox(), down).await;
        assert!(forwards(&arrivals).is_empty());
    }
    let (_connection, _control, _log, mut stream) = raw_link(&cluster, &two).await;
    stream.write_all(&good).await.unwrap();
    arrivals_until(&two.inbox(), |arrivals| forwards(arrivals) == [(NodeId(1), 1)]).await;
}
