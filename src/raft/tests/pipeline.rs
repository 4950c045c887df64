//! A deep pipeline of which something is lost: how much is sent again, counted.

use bytes::Bytes;

use crate::raft::{Append, AppendOutcome, AppendReply, Body, Input, Message};
use crate::random::Random;
use crate::types::{Data, Index, NodeId, Payload};

use super::cluster::{Cluster, limits_default};

const LEADER: NodeId = NodeId(1);
const FOLLOWER: NodeId = NodeId(2);
/// Appends on their way, of one entry each.
const DEPTH: usize = 64;

#[derive(Clone, Copy, Debug, Default)]
struct Sent {
    probes: usize,
    /// With entries, and how many these were.
    appends: usize,
    entries: usize,
    rejections: usize,
}

impl Sent {
    fn count(&mut self, message: &Message) {
        match &message.body {
            Body::Append(Append { entries, .. }) if entries.is_empty() => self.probes += 1,
            Body::Append(Append { entries, .. }) => {
                self.appends += 1;
                self.entries += entries.len();
            }
            Body::AppendReply(AppendReply { outcome: AppendOutcome::Rejected { .. }, .. }) => self.rejections += 1,
            _ => {}
        }
    }
}

/// Two nodes with a full pipeline between them.
fn pipeline() -> (Cluster, Vec<Message>) {
    let mut cluster = Cluster::new(2, 0, limits_default(), 1);
    while cluster.leader().is_none() {
        cluster.input(LEADER, Input::Tick);
        cluster.settle_all();
    }
    for number in 0..DEPTH as u64 {
        let data = Data::new(Bytes::copy_from_slice(&number.to_le_bytes()));
        cluster.propose(LEADER, vec![Payload::Data(data)]).expect("it leads");
    }
    let appends: Vec<Message> = cluster.network.drain(..).collect();
    assert_eq!(appends.len(), DEPTH);
    (cluster, appends)
}

fn is_everything_matched(cluster: &Cluster) -> bool {
    let last = cluster.replica(LEADER).status().last;
    cluster.replica(LEADER).status().commit == last.index && cluster.replica(FOLLOWER).status().durable == last
}

/// Everything that is under way between the two arrives, what is new after what was there, and is counted. `late` are
/// messages of which one arrives at the leader after each thing that the leader hears. The follower's disk is slow: what
/// it got is not acknowledged before all that has happened.
fn exchange(cluster: &mut Cluster, mut late: Vec<Message>) -> Sent {
    let mut sent = Sent::default();
    for _ in 0..10_000 {
        let Some(message) = cluster.network.pop_front().or_else(|| late.pop()) else {
            match cluster.nodes[&FOLLOWER].persists.is_empty() {
                true => return sent,
                false => cluster.persist(FOLLOWER),
            }
            continue;
        };
        sent.count(&message);
        let hears_leader = message.to == LEADER;
        cluster.deliver(message);
        if hears_leader && let Some(message) = late.pop() {
            sent.count(&message);
            cluster.deliver(message);
        }
    }
    panic!("it never comes to rest: {sent:?}");
}

/// The first of 64 is lost, the other 63 are rejected, and 62 of these rejections arrive one by one whenever the leader
/// has just heard that its probe has arrived.
#[test]
pub fn one_loss_costs_one_window_whenever_the_rejections_arrive() {
    let (mut cluster, appends) = pipeline();
    for message in appends.into_iter().skip(1) {
        cluster.deliver(message);
    }
    let mut rejections: Vec<Message> = cluster.network.drain(..).collect();
    assert_eq!(rejections.len(), DEPTH - 1);
    cluster.network.push_back(rejections.remove(0));
    while !cluster.nodes[&LEADER].persists.is_empty() {
        cluster.persist(LEADER);
    }
    let sent = exchange(&mut cluster, rejections);
    println!("{DEPTH} appends on their way, the first lost: then {sent:?}");
    assert!(is_everything_matched(&cluster));
    assert_eq!((sent.probes, sent.appends, sent.entries, sent.rejections), (1, 1, DEPTH, DEPTH - 1));
}

/// The pipeline arrives in any order, some of it not at all or twice, and so does what is sent because of it, for a
/// while. The window is sent again at most once for each round trip, however many rejections there are: a round trip
/// is here the time in which all that was under way has arrived.
#[test]
pub fn a_window_is_sent_again_once_a_round_trip_at_most() {
    let (mut rejections, mut windows, mut trips) = (0, 0, 0);
    for seed in 0..300 {
        let mut random = Random::seeded(seed);
        let (mut cluster, appends) = pipeline();
        cluster.network.extend(appends);
        for _ in 0..6 {
            let mut under_way: Vec<Message> = cluster.network.drain(..).collect();
            let mut sent = Sent::default();
            trips += 1;
            while !under_way.is_empty() {
                let message = under_way.remove(random.below(under_way.len() as u64) as usize);
                sent.count(&message);
                if random.chance(100) {
                    under_way.push(message.clone());
                }
                if !random.chance(30) {
                    cluster.deliver(message);
                }
                if random.chance(300) {
                    cluster.persist(FOLLOWER);
                }
            }
            // The answers to what arrived in this trip arrive in the next, and what they cause is counted here.
            let probes = cluster.network.iter().filter(|message| is_append(message, true)).count();
            assert!(probes <= 1, "seed {seed}: {probes} probes in a round trip");
            let entries: u64 = cluster.network.iter().map(entries_of).sum();
            assert!(entries <= DEPTH as u64, "seed {seed}: {entries} entries in a round trip");
            rejections += sent.rejections;
            windows += u64::from(entries > 0);
        }
        // In order again: what is left needs no more than heartbeats.
        cluster.settle_all();
        cluster.run(30);
        assert!(is_everything_matched(&cluster), "seed {seed}");
        assert_eq!(cluster.replica(FOLLOWER).status().last.index, Index(DEPTH as u64 + 1), "seed {seed}");
    }
    println!("{trips} round trips of disorder: {rejections} rejections, {windows} times the window or a part of it");
    assert!(rejections > 10 * windows as usize, "{rejections} rejections, {windows} windows");
}

fn is_append(message: &Message, empty: bool) -> bool {
    matches!(&message.body, Body::Append(append) if append.entries.is_empty() == empty)
}

fn entries_of(message: &Message) -> u64 {
    match &message.body {
        Body::Append(append) => append.entries.len() as u64,
        _ => 0,
    }
}
