//! Connections of clients.

use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::certificate::Validity;
use super::tests::*;
use super::tests_raw as raw;
use super::*;
use crate::limits::{REQUEST_BYTES_MAX, REQUEST_RECORDS_MAX};
use crate::types::*;

/// Answers every request as a leader would that appends each command at the next index.
async fn serve(node: &Endpoint) {
    let (inbox, replies) = (node.inbox(), node.replies());
    let (mut arrivals, mut next) = (Vec::new(), 1);
    loop {
        inbox.ready().await;
        inbox.drain(&mut arrivals);
        for arrival in arrivals.drain(..) {
            if let Arrival::Client { client, request } = arrival {
                let count = match &request.body {
                    RequestBody::Submit { commands } => commands.len() as u32,
                    _ => 0,
                };
                let results = vec![SubmitResult::Run { first: Index(next), count }];
                next += u64::from(count);
                replies.reply(client, &Response { id: request.id, body: ResponseBody::Submitted { results } });
            }
        }
    }
}

#[tokio::test]
async fn ten_thousand_requests_in_flight_are_answered_in_order() {
    let cluster = Cluster::new();
    let node = cluster.node(1);
    let (connection, mut responses) = ClientConnection::connect(&cluster.client(), node.local_address()).await.unwrap();
    assert_eq!(connection.welcome().node, NodeId(1));
    let talk = async {
        for id in 0..10_000 {
            let body = RequestBody::Submit { commands: vec![command(id, 128); 4] };
            connection.send(&Request { id, body }).await.unwrap();
        }
        for id in 0..10_000 {
            let results = vec![SubmitResult::Run { first: Index(1 + 4 * id), count: 4 }];
            assert_eq!(responses.next().await.unwrap(), Response { id, body: ResponseBody::Submitted { results } });
        }
    };
    tokio::select! {
        () = serve(&node) => {}
        talked = tokio::time::timeout(Duration::from_secs(60), talk) => talked.unwrap(),
    }
}

#[tokio::test]
async fn a_request_over_a_bound_is_refused_before_it_is_sent() {
    let cluster = Cluster::new();
    let node = cluster.node(1);
    let (connection, _responses) = ClientConnection::connect(&cluster.client(), node.local_address()).await.unwrap();
    let send = async |commands| {
        let request = Request { id: 1, body: RequestBody::Submit { commands } };
        connection.send(&request).await
    };
    let large = command(1, REQUEST_BYTES_MAX / 4);
    assert!(matches!(send(vec![large.clone(); 4]).await, Err(Error::RequestTooLarge { .. })));
    let many = vec![command(1, 1); REQUEST_RECORDS_MAX + 1];
    assert!(matches!(send(many).await, Err(Error::TooManyCommands { .. })));
    send(vec![command(1, REQUEST_BYTES_MAX / 4 - 25); 4]).await.unwrap();
    let arrived = |arrivals: &[Arrival]| arrivals.iter().any(|arrival| matches!(arrival, Arrival::Client { .. }));
    arrivals_until(&node.inbox(), arrived).await;
}

#[tokio::test]
async fn only_an_administrator_changes_the_cluster() {
    let cluster = Cluster::new();
    let node = cluster.node(1);
    let change = Request { id: 5, body: RequestBody::Change(Change::Transfer(NodeId(3))) };
    for role in [Role::Client("app".into()), Role::Node(NodeId(2))] {
        let identity = cluster.identity(role);
        let (connection, mut responses) = ClientConnection::connect(&identity, node.local_address()).await.unwrap();
        connection.send(&change).await.unwrap();
        let body = ResponseBody::Refused(Refusal::NotAllowed);
        let answer = tokio::time::timeout(Duration::from_secs(5), responses.next()).await.expect("refused at once");
        assert_eq!(answer.unwrap(), Response { id: 5, body });
    }
    let identity = cluster.identity(Role::Admin("root".into()));
    let (connection, _responses) = ClientConnection::connect(&identity, node.local_address()).await.unwrap();
    connection.send(&change).await.unwrap();
    let is_change = |arrival: &Arrival| matches!(arrival, Arrival::Client { request, .. } if *request == change);
    let arrivals = arrivals_until(&node.inbox(), |arrivals| arrivals.iter().any(is_change)).await;
    assert_eq!(arrivals.iter().filter(|arrival| is_change(arrival)).count(), 1, "the others did not reach the core");
}

/// How the node names a client, once it has asked something.
async fn key_of(connection: &ClientConnection, node: &Endpoint) -> ClientKey {
    connection.send(&Request { id: 1, body: RequestBody::Status }).await.unwrap();
    let arrivals = arrivals_until(&node.inbox(), |arrivals| !arrivals.is_empty()).await;
    let Arrival::Client { client, .. } = arrivals[0] else { panic!("{arrivals:?}") };
    client
}

#[tokio::test]
async fn a_client_that_does_not_read_is_closed_and_counted() {
    let cluster = Cluster::new();
    let node = cluster.node(1);
    let (connection, mut responses) = ClientConnection::connect(&cluster.client(), node.local_address()).await.unwrap();
    let client = key_of(&connection, &node).await;
    let answer = ResponseBody::Answer(Bytes::from(vec![0; 1 << 20]));
    let mut given = 0;
    while node.counters().clients_not_reading == 0 {
        given += 1;
        assert!(given < 1_000_000, "bounded by the outbox and the windows");
        node.replies().reply(client, &Response { id: 1, body: answer.clone() });
        // Beyond the bound answers are short; it takes many of them.
        if given < 100 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    eventually("gone", || node.clients() == 0).await;
    node.replies().reply(client, &Response { id: 1, body: answer });
    let ended = loop {
        if let Err(error) = responses.next().await {
            break error;
        }
    };
    assert!(matches!(ended, Error::Closed { reason: CloseReason::NotReading, .. }), "{ended}");
}

#[tokio::test]
async fn many_long_answers_at_once_do_not_cut_a_client_off() {
    let cluster = Cluster::new();
    let node = cluster.node(1);
    let (connection, mut responses) = ClientConnection::connect(&cluster.client(), node.local_address()).await.unwrap();
    let client = key_of(&connection, &node).await;
    // All in one turn of the core: nothing can be written in between.
    for id in 0..40 {
        let body = ResponseBody::Answer(Bytes::from(vec![0; 1 << 20]));
        node.replies().reply(client, &Response { id, body });
    }
    let submitted = ResponseBody::Submitted { results: vec![SubmitResult::Run { first: Index(1), count: 1 }] };
    node.replies().reply(client, &Response { id: 40, body: submitted });
    // Named after the bug: it was told as `Busy`, which says that nothing has happened.
    node.replies().reply(client, &Response { id: 41, body: ResponseBody::Refused(Refusal::OutcomeUnknown) });
    let (mut long, mut busy) = (0, 0);
    for id in 0..40 {
        let response = responses.next().await.unwrap();
        assert_eq!(response.id, id);
        match response.body {
            ResponseBody::Answer(_) => long += 1,
            ResponseBody::Refused(Refusal::Busy) => busy += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!(long >= 16 && busy > 0, "{long} long, {busy} busy");
    let last = responses.next().await.unwrap();
    assert_eq!(last.body, ResponseBody::Refused(Refusal::OutcomeUnknown), "it may have happened");
    let passed_on = responses.next().await.unwrap();
    assert_eq!((passed_on.id, passed_on.body), (41, ResponseBody::Refused(Refusal::OutcomeUnknown)));
    assert_eq!(node.counters().clients_not_reading, 0);
}

#[tokio::test]
async fn requests_that_the_core_does_not_take_stay_with_the_client() {
    let cluster = Cluster::new();
    let node = cluster.node(1);
    let (connection, _responses) = ClientConnection::connect(&cluster.client(), node.local_address()).await.unwrap();
    let request = Request { id: 1, body: RequestBody::Submit { commands: vec![command(1, 1 << 19); 4] } };
    let send = async {
        loop {
            connection.send(&request).await.unwrap();
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(3), send).await.is_err(), "sending waits");
    let full = node.inbox().bytes();
    assert!((32 << 20..72 << 20).contains(&full), "{full}");
    let mut arrivals = Vec::new();
    node.inbox().drain(&mut arrivals);
    eventually("it goes on", || node.inbox().bytes() > 8 << 20).await;
}

#[tokio::test]
async fn a_tail_is_held_back_by_its_reader_and_ends_from_either_side() {
    let cluster = Cluster::new();
    let node = cluster.node(1);
    let (connection, _responses) = ClientConnection::connect(&cluster.client(), node.local_address()).await.unwrap();
    let mut tail = connection.tail(Index(7)).await.unwrap();
    let arrivals = arrivals_until(&node.inbox(), |arrivals| !arrivals.is_empty()).await;
    let Arrival::TailOpened { tail: key, from: Index(7) } = arrivals[0] else { panic!("{arrivals:?}") };
    let records = |index| Records {
        records: vec![(Index(index), Bytes::from(vec![1; 256 << 10]))],
        next: Index(index + 1),
        ..Records::default()
    };
    let give = |index| node.replies().tail(key, records(index));
    // Nobody reads: windows and outbox fill, and the core is told to stop.
    let mut next = 7;
    let mut waited = 0;
    while waited < 20 {
        while give(next) == TailState::Room {
            next += 1;
        }
        next += 1;
        let ready = tokio::time::timeout(Duration::from_millis(300), node.inbox().ready()).await;
        node.inbox().drain(&mut Vec::new());
        if ready.is_err() {
            break;
        }
        waited += 1;
    }
    assert!((7 + 16..7 + 160).contains(&next), "{next}");
    for index in 7..next {
        assert_eq!(tail.next().await.unwrap(), TailItem::Records(records(index)));
    }
    arrivals_until(&node.inbox(), |arrivals| arrivals.contains(&Arrival::TailReady { tail: key })).await;
    let refusal = Refusal::Trimmed { first: Index(900) };
    node.replies().end_tail(key, Some(refusal.clone()));
    assert_eq!(tail.next().await.unwrap(), TailItem::Refused(refusal));
    assert!(matches!(tail.next().await, Err(Error::Ended { .. })));
    assert_eq!(give(next), TailState::Gone);

    let tail = connection.tail(Index(1)).await.unwrap();
    let opened = |arrival: &Arrival| matches!(arrival, Arrival::TailOpened { .. });
    arrivals_until(&node.inbox(), |arrivals| arrivals.iter().any(opened)).await;
    drop(tail);
    let closed = |arrival: &Arrival| matches!(arrival, Arrival::TailClosed { .. });
    arrivals_until(&node.inbox(), |arrivals| arrivals.iter().any(closed)).await;

    // A tail that is quiet ends with its client's connection, and before it.
    let _tail = connection.tail(Index(1)).await.unwrap();
    arrivals_until(&node.inbox(), |arrivals| arrivals.iter().any(opened)).await;
    connection.close();
    let arrivals = arrivals_until(&node.inbox(), |arrivals| arrivals.len() == 2).await;
    assert!(closed(&arrivals[0]) && matches!(arrivals[1], Arrival::ClientGone { .. }), "{arrivals:?}");
}

/// A client's connection as an attacker with a good certificate would hold it, greeted.
async fn raw_client(cluster: &Cluster, node: &Endpoint) -> (quinn::Connection, quinn::SendStream, quinn::RecvStream) {
    let issued = cluster.authority.issue(&Role::Client("app".into()), Validity::days(1)).unwrap();
    let connection = raw::dial(node.local_address(), Some(&issued), ALPN_CLIENT).await.unwrap();
    let (mut send, mut receive) = connection.open_bi().await.unwrap();
    let mut out = BytesMut::new();
    put_client_hello(&mut out, ClientHello { protocol_version: CLIENT_PROTOCOL_VERSION });
    send.write_all(&out).await.unwrap();
    assert!(receive.read(&mut [0; 256]).await.unwrap().is_some());
    (connection, send, receive)
}

#[tokio::test]
async fn nonsense_from_a_client_closes_its_connection_and_no_other() {
    let cluster = Cluster::new();
    let node = cluster.node(1);
    let (connection, _responses) = ClientConnection::connect(&cluster.client(), node.local_address()).await.unwrap();
    let mut damaged = BytesMut::new();
    let body = RequestBody::Submit { commands: vec![command(1, 50)] };
    put_request(&mut damaged, &Request { id: 1, body });
    let last = damaged.len() - 1;
    damaged[last] ^= 1;
    let mut unknown = BytesMut::new();
    put_frame(&mut unknown, 250, |_| {});
    let lies = [u32::MAX, 1 << 31, client_wire::CLIENT_FRAME_BYTES_MAX as u32 + 1, 0];
    let cases = lies.map(|lie| lie.to_le_bytes().to_vec()).into_iter().chain([damaged.to_vec(), unknown.to_vec()]);
    for (count, bytes) in cases.enumerate() {
        let (raw, mut send, _receive) = raw_client(&cluster, &node).await;
        send.write_all(&bytes).await.unwrap();
        let closed = tokio::time::timeout(Duration::from_secs(2), raw.closed()).await;
        let Ok(quinn::ConnectionError::ApplicationClosed(close)) = closed else { panic!("{bytes:?} {closed:?}") };
        assert_eq!(CloseReason::from_code(close.error_code), CloseReason::Malformed);
        assert_eq!(node.counters().malformed, count as u64 + 1);
    }
    connection.send(&Request { id: 9, body: RequestBody::Status }).await.unwrap();
    let is_request = |arrival: &Arrival| matches!(arrival, Arrival::Client { .. });
    let arrivals = arrivals_until(&node.inbox(), |arrivals| arrivals.iter().any(is_request)).await;
    assert_eq!(arrivals.iter().filter(|arrival| is_request(arrival)).count(), 1);
}

#[tokio::test]
async fn clients_that_fill_their_share_do_not_keep_peers_out() {
    let cluster = Cluster::new();
    let (one, two) = (cluster.node(1), cluster.node(2));
    introduce(&one, &two);
    until_up(&one, 2).await;
    until_up(&two, 1).await;
    let (connection, _responses) = ClientConnection::connect(&cluster.client(), two.local_address()).await.unwrap();
    let request = Request { id: 1, body: RequestBody::Submit { commands: vec![command(1, 1 << 19); 4] } };
    let send = async {
        loop {
            connection.send(&request).await.unwrap();
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(2), send).await.is_err(), "the share is full");
    one.peers().send(&heartbeat(1, 2, 1));
    let before = two.inbox().bytes();
    eventually("the heartbeat is in", || two.inbox().bytes() > before).await;
    let mut arrivals = Vec::new();
    two.inbox().drain(&mut arrivals);
    assert!(matches!(arrivals.last(), Some(Arrival::Peer { .. })));
}

fn hasty() -> Settings {
    Settings {
        handshake_timeout: Duration::from_millis(300),
        first_frame_timeout: Duration::from_millis(300),
        ..Settings::default()
    }
}

#[tokio::test]
async fn a_handshake_that_never_ends_is_dropped_and_its_place_is_free_again() {
    let cluster = Cluster::new();
    let anywhere = "127.0.0.1:0".parse().unwrap();
    // So long that it is not what ends the handshake.
    let idle_timeout = Duration::from_secs(60);
    let node = cluster.node_with(1, anywhere, facts(1), Settings { handshakes_max: 1, idle_timeout, ..hasty() });
    let proxy = raw::proxy(node.local_address(), false).await;
    let issued = cluster.authority.issue(&Role::Client("app".into()), Validity::days(1)).unwrap();
    let hanging = tokio::spawn(async move { raw::dial(proxy.address, Some(&issued), ALPN_CLIENT).await.map(|_| ()) });
    tokio::time::sleep(Duration::from_millis(100)).await;
    let refused = ClientConnection::connect(&cluster.client(), node.local_address()).await;
    let refused = refused.expect_err("one handshake at a time was asked for");
    assert!(matches!(refused, Error::Broken { .. }), "it says nothing about certificates: {refused}");
    eventually("dropped", || node.counters().handshakes_failed >= 1).await;
    hanging.abort();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(ClientConnection::connect(&cluster.client(), node.local_address()).await.is_ok());
    assert!(node.counters().handshakes_refused >= 1);
}

#[tokio::test]
async fn a_first_frame_that_does_not_come_closes_the_connection() {
    let cluster = Cluster::new();
    let anywhere = "127.0.0.1:0".parse().unwrap();
    let node = cluster.node_with(1, anywhere, facts(1), hasty());
    let issued = cluster.authority.issue(&Role::Client("app".into()), Validity::days(1)).unwrap();
    let silent = raw::dial(node.local_address(), Some(&issued), ALPN_CLIENT).await.unwrap();
    let halting = raw::dial(node.local_address(), Some(&issued), ALPN_CLIENT).await.unwrap();
    let (mut send, _receive) = halting.open_bi().await.unwrap();
    send.write_all(&[5, 0, 0]).await.unwrap();
    for connection in [silent, halting] {
        let quinn::ConnectionError::ApplicationClosed(close) = connection.closed().await else { panic!() };
        assert_eq!(CloseReason::from_code(close.error_code), CloseReason::TooSlow);
    }
    assert_eq!(node.counters().slow, 2);
}

#[tokio::test]
async fn streams_and_clients_over_the_bound_are_not_taken() {
    let cluster = Cluster::new();
    let anywhere = "127.0.0.1:0".parse().unwrap();
    let node = cluster.node_with(1, anywhere, facts(1), Settings { clients_max: 1, ..Settings::default() });
    let (raw, _send, _receive) = raw_client(&cluster, &node).await;
    let mut streams = Vec::new();
    let open = async {
        loop {
            let (mut send, receive) = raw.open_bi().await.unwrap();
            let mut out = BytesMut::new();
            put_tail_request(&mut out, TailRequest { from: Index(1) });
            send.write_all(&out).await.unwrap();
            streams.push((send, receive));
        }
    };
    assert!(tokio::time::timeout(Duration::from_millis(500), open).await.is_err());
    assert_eq!(streams.len(), settings::CLIENT_STREAMS_MAX - 1);
    let refused = ClientConnection::connect(&cluster.client(), node.local_address()).await;
    assert!(matches!(refused, Err(Error::Closed { reason: CloseReason::TooMany, .. })), "{refused:?}");
    assert_eq!(node.counters().connections_refused, 1);
}

#[tokio::test]
async fn a_captured_connection_replayed_has_no_effect() {
    let cluster = Cluster::new();
    let node = cluster.node(1);
    let proxy = raw::proxy(node.local_address(), true).await;
    let (connection, _responses) = ClientConnection::connect(&cluster.client(), proxy.address).await.unwrap();
    connection.send(&Request { id: 3, body: RequestBody::Submit { commands: vec![command(1, 10)] } }).await.unwrap();
    let is_request = |arrival: &Arrival| matches!(arrival, Arrival::Client { .. });
    arrivals_until(&node.inbox(), |arrivals| arrivals.iter().any(is_request)).await;
    let captured = proxy.captured.lock().unwrap().clone();
    assert!(captured.len() > 3);
    // Once into the connection that stands, and once after its end.
    for _ in 0..2 {
        for datagram in &captured {
            proxy.upstream.send(datagram).await.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        connection.close();
    }
    eventually("closed", || node.clients() == 0).await;
    let mut arrivals = Vec::new();
    node.inbox().drain(&mut arrivals);
    assert!(!arrivals.iter().any(is_request), "{arrivals:?}");
    assert_eq!(node.counters().clients_up, 1);
}

#[test]
fn a_node_that_ends_and_refuses_connections_is_not_taken_for_one_that_cannot_be_trusted() {
    let address = "127.0.0.1:1".parse().unwrap();
    let closed = |error_code| {
        let close = quinn::ConnectionClose { error_code, frame_type: None, reason: Bytes::new() };
        Error::from_connection(address, quinn::ConnectionError::ConnectionClosed(close))
    };
    let refused = closed(quinn::TransportErrorCode::CONNECTION_REFUSED);
    assert!(matches!(refused, Error::Broken { .. }), "{refused}");
    let unknown_authority = closed(quinn::TransportErrorCode::crypto(48));
    assert!(matches!(unknown_authority, Error::Handshake { .. }), "{unknown_authority}");
}
