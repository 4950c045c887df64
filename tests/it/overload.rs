//! More than may wait at a leader, over real processes: told at once, and taken again when what waited is committed.

use std::time::{Duration, Instant};

use bytes::Bytes;
use trilith::cli::configuration::ClientConfiguration;
use trilith::client::{Appended, Client, ClientOptions, Error, WhenBusy};
use trilith::net::Identity;
use trilith::types::NodeId;

use crate::processes::{Trial, alone, block_on};

const UNCOMMITTED_BYTES_MAX: usize = 8 << 20;
const RECORD_BYTES: usize = 32 << 10;
/// What is handed in: three times what may wait.
const RECORDS: usize = 3 * UNCOMMITTED_BYTES_MAX / RECORD_BYTES;
/// Far below the time that the client gives an answer.
const AT_ONCE: Duration = Duration::from_secs(1);

#[test]
fn a_leader_whose_followers_hang_says_busy_at_once_and_goes_on_when_they_do() {
    let _alone = alone();
    let mut trial = Trial::prepare(3, None);
    for node in (1..=3).map(NodeId) {
        configure(&trial, node);
    }
    trial.start_all();
    let configuration = trial.cluster.client().unwrap_or_else(|failure| panic!("{failure}"));
    let leader = trial.leader();
    let followers: Vec<NodeId> = (1..=3).map(NodeId).filter(|node| *node != leader).collect();
    let mut pause = |is_paused: bool| {
        for node in &followers {
            let child = trial.cluster.child(*node).expect("it was started");
            child.pause(is_paused).unwrap_or_else(|failure| panic!("{failure}"));
        }
    };
    block_on(async {
        let client = Client::connect(options(&configuration)).await.expect("it leads");
        client.append(record()).await.expect("nothing is wrong yet");
        pause(true);
        let begun = Instant::now();
        let mut waiting = Vec::new();
        for _ in 0..RECORDS {
            waiting.push(client.enqueue(vec![record()]).await.expect("the client's own queue has room"));
        }
        let (taken, refused) = split(waiting, AT_ONCE).await;
        assert!(begun.elapsed() < 2 * AT_ONCE, "{:?}", begun.elapsed());
        assert!(taken.len() < RECORDS && taken.len() * RECORD_BYTES <= UNCOMMITTED_BYTES_MAX, "{} wait", taken.len());
        assert!(!taken.is_empty() && refused > 0);
        let begun = Instant::now();
        let put = client.put(Bytes::from_static(b"key"), record()).await;
        assert!(matches!(put, Err(Error::Busy)) && begun.elapsed() < AT_ONCE, "{put:?}, {:?}", begun.elapsed());
        pause(false);
        for appended in taken {
            appended.await.into_result().expect("what was taken is committed");
        }
        client.append(record()).await.expect("it goes on by itself");
        client.put(Bytes::from_static(b"key"), record()).await.expect("it goes on by itself");
    });
}

/// Those that wait still after a while, and how many were told that the leader is busy.
async fn split(waiting: Vec<Appended>, patience: Duration) -> (Vec<Appended>, usize) {
    let (mut taken, mut refused) = (Vec::new(), 0);
    let deadline = tokio::time::Instant::now() + patience;
    for mut appended in waiting {
        match tokio::time::timeout_at(deadline, &mut appended).await {
            Err(_) => taken.push(appended),
            Ok(outcomes) => {
                let outcome = outcomes.into_result();
                assert!(matches!(outcome, Err(Error::Busy)), "{outcome:?}");
                refused += 1;
            }
        }
    }
    (taken, refused)
}

fn record() -> Bytes {
    Bytes::from(vec![7; RECORD_BYTES])
}

fn options(configuration: &ClientConfiguration) -> ClientOptions {
    let identity = Identity::load(&configuration.certificate, &configuration.key, &configuration.ca, None);
    let identity = identity.expect("the files are there");
    let nodes = configuration.nodes.iter().map(|node| (node.id, node.address)).collect();
    let timeout = Duration::from_secs(20);
    ClientOptions { timeout, request_records_max: 8, when_busy: WhenBusy::Tell, ..ClientOptions::new(nodes, identity) }
}

/// Little may wait, and followers that are paused do not depose the leader while the test lasts.
fn configure(trial: &Trial, node: NodeId) {
    let file = trial.cluster.configuration_file(node);
    let text = std::fs::read_to_string(&file).expect("it was made");
    let is_set = ["uncommitted_bytes_max", "election_milliseconds_min", "election_milliseconds_max"];
    let kept = text.lines().filter(|line| !is_set.iter().any(|key| line.starts_with(key)));
    let set = format!(
        "uncommitted_bytes_max = {UNCOMMITTED_BYTES_MAX}\nelection_milliseconds_min = 4000\n\
         election_milliseconds_max = 6000\n"
    );
    let text = kept.fold(set, |text, line| text + line + "\n");
    std::fs::write(&file, text).expect("it can be written");
}
