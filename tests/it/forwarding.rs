//! Writes that are given to one node, which passes them on to whoever leads.
//!
//! The leader dies again and again in the middle of it, then the node that passes on, at last all. Every node must hold
//! every acknowledged record at its acknowledged index, once, in the order given.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use bytes::Bytes;
use trilith::cli::configuration::{ClientConfiguration, ClientSettings};
use trilith::client::{Client, ClientOptions};
use trilith::codec::encode_command;
use trilith::net::{
    Change, ClientConnection, Consistency, Identity, NodeRole, Refusal, Request, RequestBody, ResponseBody,
    SubmitResult,
};
use trilith::types::{Command, NodeId, RequestNumber, Service, SessionId};

use crate::processes::load::Load;
use crate::processes::{PATIENCE, Trial, alone, beside_one, block_on, check, status};

/// At least so many acknowledgements come between two kills.
const BETWEEN: u64 = 1500;
const KILLS: usize = 6;

#[test]
fn writes_that_one_node_passes_on_are_in_the_log_once_though_leaders_are_killed() {
    let _share = beside_one();
    let mut trial = Trial::start(3, None);
    let node = follower(&trial);
    let (file, _) = knowing_only(&trial, node);
    let mut load = Load::start_with(&file, trial.home.path(), &["--forward"]);
    let mut acknowledged = 0;
    for kill in 0..KILLS {
        let leader = lead_elsewhere(&trial, node);
        load.reach(acknowledged + BETWEEN);
        // The last time the node that passes on dies, and its writers go to others that it named.
        let victim = if kill + 1 < KILLS { leader } else { node };
        let given = load.given();
        trial.kill(victim);
        std::thread::sleep(Duration::from_millis(20));
        acknowledged = load.acknowledged();
        assert!(given > acknowledged, "nothing was under way when node {victim} was killed");
        load.reach(acknowledged + 1);
        load.slow(true);
        trial.start_node(victim);
        load.slow(false);
    }
    load.reach(acknowledged + BETWEEN);
    trial.cluster.kill_all().unwrap_or_else(|failure| panic!("{failure}"));
    let journals = load.kill();
    trial.start_all();
    let client = trial.cluster.client().unwrap_or_else(|failure| panic!("{failure}"));
    let checked = check::compare(&client, &journals);
    println!("forwarding: {KILLS} kills and one of all: {checked:?}");
    assert!(checked.acknowledged >= BETWEEN * KILLS as u64, "{checked:?}");
    trial.cluster.stop_all(PATIENCE).unwrap_or_else(|failure| panic!("{failure}"));
}

/// By hand, so that there is no client that might go elsewhere by itself; and by the library, the map among it.
#[test]
fn a_node_that_does_not_lead_passes_on_only_what_it_is_asked_to() {
    let _alone = alone();
    let mut trial = Trial::start(3, None);
    let node = follower(&trial);
    let (_, configuration) = knowing_only(&trial, node);
    let identity = || identity(&configuration);
    let nodes = configuration.nodes.iter().map(|node| (node.id, node.address)).collect();
    let (put, read) = block_on(async {
        let address = configuration.nodes[0].address;
        let (connection, mut responses) = ClientConnection::connect(&identity(), address).await.unwrap();
        let (session, number) = (SessionId(0), RequestNumber(0));
        let command = Command { service: Service::Register, session, number, lowest_unanswered: number };
        let commands = vec![encode_command(&command, &[])];
        let bodies = [RequestBody::Submit { commands: commands.clone() }, RequestBody::SubmitAnywhere { commands }];
        for (id, body) in (1..).zip(bodies) {
            connection.send(&Request { id, body }).await.unwrap();
        }
        let redirected = responses.next().await.unwrap().body;
        assert!(matches!(redirected, ResponseBody::Refused(Refusal::NotLeader { leader: Some(_) })), "{redirected:?}");
        let passed_on = responses.next().await.unwrap().body;
        assert!(
            matches!(&passed_on, ResponseBody::Submitted { results } if matches!(results[..], [SubmitResult::Run { .. }])),
            "{passed_on:?}"
        );
        // What follows is to have an outcome: eight times 1 MiB cross four links, one request after the other. In the
        // client's 5 s a busy machine does not always do that, and then the client rightly says that it does not know.
        let options = ClientOptions { forward: true, timeout: PATIENCE, ..ClientOptions::new(nodes, identity()) };
        let client = Client::connect(options).await.unwrap();
        let key = Bytes::from_static(b"key");
        let put = client.put(key.clone(), Bytes::from_static(b"one")).await.unwrap();
        let (_, is_equal) = client
            .compare_and_set(key.clone(), Some(Bytes::from_static(b"one")), Some(Bytes::from_static(b"two")))
            .await
            .unwrap();
        assert!(is_equal);
        assert!(!client.compare_and_set(key.clone(), None, None).await.unwrap().1);
        let large = Bytes::from(vec![7; 1 << 20]);
        client.append_batch(vec![large; 8]).await.unwrap();
        (put, client.get(key, Consistency::Linearizable).await.unwrap())
    });
    assert!(put.0 > 0 && read == Some(Bytes::from_static(b"two")), "{read:?}");
    let still = status(&configuration, node).expect("it answers");
    assert_eq!(still.role, NodeRole::Follower, "it has not led meanwhile");
    trial.cluster.stop_all(PATIENCE).unwrap_or_else(|failure| panic!("{failure}"));
}

fn follower(trial: &Trial) -> NodeId {
    let leader = trial.leader();
    let mut others = trial.cluster.nodes().filter(|node| *node != leader);
    others.next().expect("there are three")
}

/// A client's configuration that names one node, and its file.
fn knowing_only(trial: &Trial, node: NodeId) -> (PathBuf, ClientConfiguration) {
    let all = trial.cluster.client().unwrap_or_else(|failure| panic!("{failure}"));
    let mut settings: ClientSettings = (*all).clone();
    settings.nodes.retain(|known| known.id == node);
    let configuration = ClientConfiguration::checked(settings).unwrap_or_else(|error| panic!("{error}"));
    let file = trial.home.path().join("one-node.toml");
    std::fs::write(&file, configuration.render()).expect("a file can be written");
    (file, configuration)
}

fn identity(client: &ClientConfiguration) -> Identity {
    Identity::load(&client.certificate, &client.key, &client.ca, None).expect("the files are there")
}

/// Another node than this one leads: it is asked to hand over if it leads itself.
fn lead_elsewhere(trial: &Trial, node: NodeId) -> NodeId {
    let admin = trial.home.path().join("cluster/admin.toml");
    let admin = ClientConfiguration::load(&admin).unwrap_or_else(|error| panic!("{error}"));
    let other = trial.cluster.nodes().find(|other| *other != node).expect("there are three");
    let deadline = Instant::now() + PATIENCE;
    loop {
        let leader = trial.leader();
        if leader != node {
            return leader;
        }
        assert!(Instant::now() < deadline, "node {node} does not hand over");
        block_on(async {
            let nodes = admin.nodes.iter().map(|node| (node.id, node.address)).collect();
            if let Ok(client) = Client::connect(ClientOptions::new(nodes, identity(&admin))).await {
                // It may have been refused, or lead on: it is looked for again.
                let _ = client.change(Change::Transfer(other)).await;
            }
        });
        std::thread::sleep(Duration::from_millis(100));
    }
}
