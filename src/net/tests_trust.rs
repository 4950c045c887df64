//! Who is refused: each kind of bad certificate, on both sides, before a byte of the application is looked at.

use std::time::{Duration, SystemTime};

use quinn::ConnectionError;
use rcgen::ExtendedKeyUsagePurpose::{self, ClientAuth, ServerAuth};

use super::certificate::{Authority, Issued, Validity, parameters, usages};
use super::tests::*;
use super::tests_raw as raw;
use super::*;
use crate::types::{ClusterId, NodeId};

const BOTH: [ExtendedKeyUsagePurpose; 2] = [ServerAuth, ClientAuth];

fn node_role() -> Role {
    Role::Node(NodeId(1))
}

fn uri(cluster: ClusterId, role: &Role) -> String {
    Name { cluster, role: role.clone() }.to_string()
}

fn shifted(from_days: i64, until_days: i64) -> Validity {
    let day = |days: i64| {
        let distance = Duration::from_secs(days.unsigned_abs() * 24 * 3600);
        if days < 0 { SystemTime::now() - distance } else { SystemTime::now() + distance }
    };
    Validity { from: day(from_days), until: day(until_days) }
}

fn sign(authority: &Authority, uris: &[&str], usages: &[ExtendedKeyUsagePurpose], validity: Validity) -> Issued {
    authority.sign(parameters(uris, usages.to_vec(), validity).unwrap()).unwrap()
}

fn self_signed(role: &Role) -> Issued {
    let key = rcgen::KeyPair::generate().unwrap();
    let parameters = parameters(&[&uri(CLUSTER, role)], usages(role), Validity::days(1)).unwrap();
    Issued { certificate: parameters.self_signed(&key).unwrap().pem(), key: key.serialize_pem() }
}

/// Certificates that nobody may accept from anyone, whatever the protocol. `role` is what they pretend.
fn forgeries(cluster: &Cluster, role: &Role) -> Vec<(&'static str, Issued)> {
    let authority = &cluster.authority;
    let (name, day) = (uri(CLUSTER, role), Validity::days(1));
    let foreign = Authority::create(CLUSTER, day).unwrap();
    let impostor = Authority::create(ClusterId(9), day).unwrap();
    let upper = name.to_uppercase().replace("TRILITH", "trilith");
    vec![
        ("another authority for the same cluster", foreign.issue(role, day).unwrap()),
        ("another cluster's authority", impostor.issue(role, day).unwrap()),
        ("self-signed", self_signed(role)),
        ("another cluster's name", sign(authority, &[&uri(ClusterId(9), role)], &BOTH, day)),
        ("expired", sign(authority, &[&name], &BOTH, shifted(-3, -1))),
        ("not yet valid", sign(authority, &[&name], &BOTH, shifted(1, 3))),
        ("no name", sign(authority, &[], &BOTH, day)),
        ("two names", sign(authority, &[&name, &uri(CLUSTER, &Role::Admin("root".into()))], &BOTH, day)),
        ("another scheme", sign(authority, &[&name.replace("trilith", "https")], &BOTH, day)),
        ("a name spelled otherwise", sign(authority, &[&upper], &BOTH, day)),
        ("node 0", sign(authority, &[&uri(CLUSTER, &Role::Node(NodeId(0)))], &BOTH, day)),
        ("the wrong use", sign(authority, &[&name], &[ExtendedKeyUsagePurpose::CodeSigning], day)),
        ("the authority itself", authority.pem().clone()),
    ]
}

/// Dials as an attacker; true if the node closed the connection, or never let it stand.
async fn is_refused(node: &Endpoint, issued: Option<&Issued>, alpn: &[u8]) -> bool {
    let connection = match raw::dial(node.local_address(), issued, alpn).await {
        Err(_) => return true,
        Ok(connection) => connection,
    };
    // Both greetings, so that one would be answered if it were looked at.
    let mut streams = connection.open_bi().await;
    if let Ok((send, _)) = &mut streams {
        let mut out = bytes::BytesMut::new();
        put_client_hello(&mut out, ClientHello { protocol_version: CLIENT_PROTOCOL_VERSION });
        let _ = send.write_all(&out).await;
    }
    let closed = tokio::time::timeout(Duration::from_secs(3), connection.closed()).await;
    matches!(closed, Ok(ConnectionError::ConnectionClosed(_) | ConnectionError::ApplicationClosed(_)))
}

#[tokio::test]
async fn a_node_refuses_bad_certificates_on_both_protocols() {
    let cluster = Cluster::new();
    let node = cluster.node(2);
    let mut kinds = 0;
    for alpn in [ALPN_PEER, ALPN_CLIENT] {
        assert!(is_refused(&node, None, alpn).await, "no certificate");
        for (what, issued) in forgeries(&cluster, &node_role()) {
            assert!(is_refused(&node, Some(&issued), alpn).await, "{what}");
            kinds += 1;
        }
    }
    assert_eq!(kinds, 26);
    let good = cluster.authority.issue(&node_role(), Validity::days(1)).unwrap();
    let server_only = sign(&cluster.authority, &[&uri(CLUSTER, &node_role())], &[ServerAuth], Validity::days(1));
    assert!(is_refused(&node, Some(&server_only), ALPN_CLIENT).await, "may serve, not dial");
    assert!(is_refused(&node, Some(&good), b"trilith-peer/2").await, "another protocol");
    assert!(node.inbox().is_empty(), "nothing that was refused has reached the core");
    assert!(node.counters().handshakes_failed >= 28, "{:?}", node.counters());
    assert!(!is_refused(&node, Some(&good), ALPN_CLIENT).await, "a good one passes by the same way");
}

#[tokio::test]
async fn a_client_and_an_administrator_may_not_speak_as_a_peer() {
    let cluster = Cluster::new();
    let node = cluster.node(2);
    for role in [Role::Client("app".into()), Role::Admin("root".into())] {
        let issued = cluster.authority.issue(&role, Validity::days(1)).unwrap();
        assert!(is_refused(&node, Some(&issued), ALPN_PEER).await, "{role}");
        assert!(!is_refused(&node, Some(&issued), ALPN_CLIENT).await, "{role}");
    }
    assert_eq!(node.counters().roles_refused, 2);
}

#[tokio::test]
async fn whoever_dials_refuses_a_bad_node() {
    let cluster = Cluster::new();
    let (name, day) = (uri(CLUSTER, &Role::Node(NodeId(2))), Validity::days(1));
    let mut bad = forgeries(&cluster, &Role::Node(NodeId(2)));
    bad.push(("may dial, not serve", sign(&cluster.authority, &[&name], &[ClientAuth], day)));
    bad.push(("a client", cluster.authority.issue(&Role::Client("app".into()), day).unwrap()));
    let client = uri(CLUSTER, &Role::Client("app".into()));
    bad.push(("a client that may serve", sign(&cluster.authority, &[&client], &BOTH, day)));
    for (what, issued) in bad {
        let server = raw::serve(&issued);
        let address = server.local_addr().unwrap();
        let accept = tokio::spawn(async move { server.accept().await.unwrap().await.map(|_| ()) });
        let refused = ClientConnection::connect(&cluster.client(), address).await;
        assert!(matches!(refused, Err(Error::Handshake { .. })), "{what}: {refused:?}");
        assert!(accept.await.unwrap().is_err(), "{what}: the handshake was not finished");

        let server = raw::serve(&issued);
        let node = cluster.node(1);
        node.peers().set_members([(NodeId(2), server.local_addr().unwrap())]);
        assert!(server.accept().await.unwrap().await.is_err(), "{what}: dialled by a node");
        assert!(node.inbox().is_empty(), "{what}");
    }
}

#[tokio::test]
async fn a_node_with_another_id_than_expected_is_refused_by_the_dialler() {
    let cluster = Cluster::new();
    let (one, three) = (cluster.node(1), cluster.node(3));
    three.peers().set_members([(NodeId(1), one.local_address())]);
    one.peers().set_members([(NodeId(2), three.local_address())]);
    eventually("refused", || one.counters().hellos_refused >= 2).await;
    assert!(one.inbox().is_empty() && three.inbox().is_empty());
}

#[tokio::test]
async fn a_revoked_certificate_is_refused_and_its_connection_ends_at_the_reload() {
    let cluster = Cluster::new();
    let authority = &cluster.authority;
    let node_issued = authority.issue(&node_role(), Validity::days(1)).unwrap();
    let (good, bad) = (Role::Client("good".into()), Role::Client("bad".into()));
    let (good, bad) =
        (authority.issue(&good, Validity::days(1)).unwrap(), authority.issue(&bad, Validity::days(1)).unwrap());
    let list = authority.revoke(&[&bad.certificate], 1, Validity::days(1)).unwrap();
    let root = &authority.pem().certificate;
    let identity = |list| Identity::from_pem(&node_issued.certificate, &node_issued.key, root, list).unwrap();

    let anywhere = "127.0.0.1:0".parse().unwrap();
    let node = Endpoint::bind(&identity(None), anywhere, facts(1), Settings::default()).unwrap();
    let (_kept, _good_responses) =
        ClientConnection::connect(&cluster.trusting(&good), node.local_address()).await.unwrap();
    let (_dropped, mut responses) =
        ClientConnection::connect(&cluster.trusting(&bad), node.local_address()).await.unwrap();
    let another = cluster.identity(Role::Node(NodeId(2)));
    assert!(matches!(node.reload(&another), Err(Error::Certificate(CertificateError::WrongRole { .. }))));
    node.reload(&identity(Some(&list))).unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(5), responses.next()).await.expect("closed at once");
    assert!(matches!(ended, Err(Error::Closed { reason: CloseReason::Revoked, .. })), "{ended:?}");
    let refused = ClientConnection::connect(&cluster.trusting(&bad), node.local_address()).await;
    assert!(refused.is_err());
    eventually("one left", || node.clients() == 1).await;
    ClientConnection::connect(&cluster.trusting(&good), node.local_address()).await.unwrap();
    assert_eq!(node.counters().revoked, 1);

    // And a revoked node is refused by whoever dials it.
    let list = authority.revoke(&[&node_issued.certificate], 2, Validity::days(1)).unwrap();
    let careful = Identity::from_pem(&good.certificate, &good.key, root, Some(&list)).unwrap();
    assert!(ClientConnection::connect(&careful, node.local_address()).await.is_err());
}

#[test]
fn names_have_one_spelling() {
    for role in [node_role(), Role::Client("a.b-c_D9".into()), Role::Admin("x".repeat(64))] {
        let name = Name { cluster: CLUSTER, role };
        assert_eq!(Name::parse(&name.to_string()).unwrap(), name);
    }
    let cluster = format!("trilith://{CLUSTER}");
    for bad in [
        "",
        "/",
        "/node",
        "/node/",
        "/node/0",
        "/node/01",
        "/node/+1",
        "/node/-1",
        "/node/1/",
        "/node/1 ",
        "/client/",
        "/client/a/b",
        "/client/ä",
        "/root/x",
        "/authority",
    ] {
        assert!(Name::parse(&format!("{cluster}{bad}")).is_err(), "{bad}");
    }
    let long = format!("{cluster}/client/{}", "x".repeat(65));
    for bad in [long.as_str(), "trilith://0/node/1", "trilith:///node/1", "http://x/node/1"] {
        assert!(Name::parse(bad).is_err(), "{bad}");
    }
    assert!(Role::Client("a/b".into()).check().is_err() && Role::Node(NodeId(0)).check().is_err());
}

#[test]
fn files_are_written_once_and_a_key_that_others_may_read_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let [authority, certificate, key] = ["ca.pem", "node.pem", "node.key"].map(|name| directory.path().join(name));
    let cluster = Cluster::new();
    let issued = cluster.authority.issue(&node_role(), Validity::days(1)).unwrap();
    pem::write(&issued, &certificate, &key).unwrap();
    pem::write_public(&authority, &cluster.authority.pem().certificate).unwrap();
    assert_eq!(std::fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(matches!(pem::write(&issued, &certificate, &key), Err(CertificateError::File { .. })), "never overwritten");

    let identity = Identity::load(&certificate, &key, &authority, None).unwrap();
    assert_eq!(identity.node().unwrap(), NodeId(1));
    for mode in [0o640, 0o604, 0o620, 0o610] {
        std::fs::set_permissions(&key, PermissionsExt::from_mode(mode)).unwrap();
        let refused = Identity::load(&certificate, &key, &authority, None);
        assert!(matches!(refused, Err(CertificateError::OpenKeyFile { .. })), "{mode:o}");
    }
}

#[test]
fn an_authority_comes_back_from_its_files_and_issues_what_is_accepted() {
    let made = Authority::create(CLUSTER, Validity::days(1)).unwrap();
    let back = Authority::from_pem(&made.pem().certificate, &made.pem().key).unwrap();
    assert_eq!((back.cluster(), back.pem()), (CLUSTER, made.pem()));
    let issued = back.issue(&Role::Client("app".into()), Validity::days(3)).unwrap();
    let description = certificate::show(&issued.certificate).unwrap();
    assert_eq!(description.name, Some(Name { cluster: CLUSTER, role: Role::Client("app".into()) }));
    assert!(description.validity.until > SystemTime::now() + Duration::from_secs(2 * 24 * 3600));
    assert_eq!(certificate::show(&made.pem().certificate).unwrap().name, None);

    let other = Authority::create(CLUSTER, Validity::days(1)).unwrap();
    let mixed = Authority::from_pem(&made.pem().certificate, &other.pem().key);
    assert!(matches!(mixed, Err(CertificateError::KeyMismatch)));
    let leaf = Authority::from_pem(&issued.certificate, &issued.key);
    assert!(matches!(leaf, Err(CertificateError::NotAnAuthority)));
}

#[test]
fn no_key_is_ever_printed() {
    let cluster = Cluster::new();
    let issued = cluster.authority.issue(&node_role(), Validity::days(1)).unwrap();
    let secret = issued.key.lines().nth(1).unwrap();
    let printed = format!("{:?}{issued:?}{:?}", cluster.trusting(&issued), cluster.authority);
    assert!(!printed.contains(secret) && !printed.contains("PRIVATE"));
}
