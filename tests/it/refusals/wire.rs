//! A node under a client that does not keep to the protocol.

use std::sync::Arc;

use bytes::BytesMut;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{Connection, ConnectionError, Endpoint, RecvStream, SendStream};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use trilith::cli::configuration::ClientConfiguration;
use trilith::net::{ALPN_CLIENT, ALPN_PEER, CLIENT_PROTOCOL_VERSION, ClientHello, CloseReason, put_client_hello};

use super::{FIRST, append};
use crate::processes::{Trial, beside_few, block_on};

/// The longest frame that a client may send, and a little.
const OVER: u32 = (4 << 20) + (64 << 10) + 1;
const LIARS: usize = 60;
/// What a frame that is announced and never sent may cost in all, and the noise of an allocator.
const GROWTH_KIB_MAX: u64 = 48 << 10;

#[test]
fn a_client_on_the_peer_protocol_is_refused() {
    let _share = beside_few();
    let trial = Trial::start(1, None);
    let client = trial.cluster.client().unwrap_or_else(|failure| panic!("{failure}"));
    let reason = block_on(async {
        let (_endpoint, connection) = dial(&client, ALPN_PEER).await;
        closed(&connection).await
    });
    assert_eq!(reason, CloseReason::WrongRole);
    assert!(trial.log(FIRST).contains("connection refused"), "{}", trial.log(FIRST));
    append(&trial.cluster.client_file(), b"still here\n");
}

#[test]
fn a_length_that_lies_closes_the_connection_and_costs_no_memory() {
    let _share = beside_few();
    let mut trial = Trial::start(1, None);
    append(&trial.cluster.client_file(), b"before\n");
    let client = trial.cluster.client().unwrap_or_else(|failure| panic!("{failure}"));
    let process = trial.cluster.child(FIRST).expect("it was started").id();
    let before = resident_kib(process);
    let peak = block_on(async {
        for length in [OVER, 1 << 31, u32::MAX, 0].into_iter().cycle().take(LIARS) {
            let (_endpoint, connection) = dial(&client, ALPN_CLIENT).await;
            let (mut send, _receive) = greet(&connection).await;
            send.write_all(&length.to_le_bytes()).await.expect("four bytes fit");
            assert_eq!(closed(&connection).await, CloseReason::Malformed, "length {length}");
        }
        // Allowed lengths of which nothing comes, all held at once.
        let mut held = Vec::new();
        for _ in 0..LIARS {
            let (endpoint, connection) = dial(&client, ALPN_CLIENT).await;
            let (mut send, receive) = greet(&connection).await;
            send.write_all(&(OVER - 1).to_le_bytes()).await.expect("four bytes fit");
            held.push((endpoint, connection, send, receive));
        }
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        resident_kib(process)
    });
    println!("lengths that lie: {LIARS} closed, {LIARS} held; resident {before} KiB before, {peak} KiB at the end");
    assert!(peak < before + GROWTH_KIB_MAX, "{before} KiB before, {peak} KiB at the end");
    append(&trial.cluster.client_file(), b"after\n");
}

async fn dial(client: &ClientConfiguration, protocol: &[u8]) -> (Endpoint, Connection) {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&client.ca).expect("a certificate")).expect("an authority");
    let chain = vec![CertificateDer::from_pem_file(&client.certificate).expect("a certificate")];
    let key = PrivateKeyDer::from_pem_file(&client.key).expect("a key");
    let mut config = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("ring has TLS 1.3")
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .expect("they belong together");
    config.alpn_protocols = vec![protocol.to_vec()];
    let config = QuicClientConfig::try_from(config).expect("it is TLS 1.3");
    let endpoint = Endpoint::client("127.0.0.1:0".parse().expect("an address")).expect("a port is free");
    let name = trilith::net::certificate::SERVER_NAME;
    let connecting = endpoint.connect_with(quinn::ClientConfig::new(Arc::new(config)), client.nodes[0].address, name);
    let connection = connecting.expect("it can be dialled").await.expect("the handshake is good");
    (endpoint, connection)
}

/// As a client that knows how to behave.
async fn greet(connection: &Connection) -> (SendStream, RecvStream) {
    let (mut send, mut receive) = connection.open_bi().await.expect("a stream");
    let mut hello = BytesMut::new();
    put_client_hello(&mut hello, ClientHello { protocol_version: CLIENT_PROTOCOL_VERSION });
    send.write_all(&hello).await.expect("it fits");
    receive.read_exact(&mut [0; 4]).await.expect("the node welcomes");
    (send, receive)
}

async fn closed(connection: &Connection) -> CloseReason {
    let closed = tokio::time::timeout(std::time::Duration::from_secs(10), connection.closed()).await;
    match closed.expect("it is closed in time") {
        ConnectionError::ApplicationClosed(close) => CloseReason::from_code(close.error_code),
        other => panic!("{other}"),
    }
}

fn resident_kib(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("it runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("the kernel says it");
    line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number")
}
