//! How deep a pipeline should be, by round trip and flush time: the real core in a model of time, so that every figure is
//! the same on each machine.
//!
//! ```text
//!   clients ⇄ leader: turns ──delay──▶ follower: turns ─▶ one flush at a time, of all that waits ──delay──▶ leader
//! ```
//!
//! A node takes everything that has arrived in one turn, which costs its time: a fixed part, a part for each message that
//! comes or leaves, and one for each entry. So messages become larger by themselves where a node is busy.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use bytes::Bytes;

use crate::raft::{Body, Input, Limits, Message};
use crate::random::Random;
use crate::types::{Data, NodeId, Payload};

use super::cluster::{Cluster, limits_default};

const LEADER: NodeId = NodeId(1);
/// Nanoseconds, about as measured: a wake-up, a message, an entry.
const TURN: u64 = 20_000;
const MESSAGE: u64 = 5_000;
const ENTRY: u64 = 300;
/// Round trips with their flush, before and while it is measured.
const WARM_UP_ROUNDS: u64 = 5;
const MEASURED_ROUNDS: u64 = 20;

#[derive(Clone, Copy, Debug)]
struct Place {
    /// One way.
    delay: u64,
    flush: u64,
    clients: u64,
    window_messages: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum What {
    Arrives(usize),
    Flushed(NodeId, usize),
    TurnEnds(NodeId),
    /// So many clients ask again.
    Asks(u64),
}

struct World {
    place: Place,
    cluster: Cluster,
    now: u64,
    sequence: u64,
    due: BinaryHeap<Reverse<(u64, u64, What)>>,
    messages: Vec<Option<Message>>,
    inbox: BTreeMap<NodeId, Vec<Message>>,
    /// In a turn, or not.
    busy: BTreeMap<NodeId, bool>,
    flushing: BTreeMap<NodeId, bool>,
    flushed: BTreeMap<NodeId, usize>,
    /// Clients whose request has not been taken.
    asking: u64,
    answered: u64,
    random: Random,
}

impl World {
    fn new(place: Place) -> World {
        let limits = Limits { window_messages: place.window_messages, ..limits_default() };
        let mut cluster = Cluster::new(3, 0, limits, 1);
        while cluster.leader().is_none() {
            cluster.tick(LEADER);
            cluster.settle_all();
        }
        let mut world = World {
            place,
            cluster,
            now: 0,
            sequence: 0,
            due: BinaryHeap::new(),
            messages: Vec::new(),
            inbox: BTreeMap::new(),
            busy: BTreeMap::new(),
            flushing: BTreeMap::new(),
            flushed: BTreeMap::new(),
            asking: 0,
            answered: 0,
            random: Random::seeded(1),
        };
        world.answered = world.cluster.replica(LEADER).status().commit.0;
        world.ask_again(place.clients);
        world
    }

    fn at(&mut self, time: u64, what: What) {
        self.sequence += 1;
        self.due.push(Reverse((time, self.sequence, what)));
    }

    /// Entries committed in the time that is measured, for each second.
    fn run(mut self) -> u64 {
        let mut before = None;
        let round = self.round();
        let (warm_up, measured) = (WARM_UP_ROUNDS * round, MEASURED_ROUNDS * round);
        while let Some(Reverse((time, _, what))) = self.due.pop() {
            if time > warm_up {
                before.get_or_insert(self.answered);
            }
            if time > warm_up + measured {
                break;
            }
            self.now = time;
            match what {
                What::Arrives(message) => {
                    let message = self.messages[message].take().expect("it arrives once");
                    let to = message.to;
                    self.inbox.entry(to).or_default().push(message);
                    self.turn(to);
                }
                What::Flushed(node, count) => {
                    self.flushing.insert(node, false);
                    *self.flushed.entry(node).or_default() += count;
                    self.turn(node);
                }
                What::Asks(clients) => {
                    self.asking += clients;
                    self.turn(LEADER);
                }
                What::TurnEnds(node) => {
                    self.busy.insert(node, false);
                    self.turn(node);
                }
            }
        }
        (self.answered - before.expect("it was warm")) * 1_000_000_000 / measured
    }

    /// Takes all that has happened at a node, unless it is busy.
    fn turn(&mut self, node: NodeId) {
        let arrived = std::mem::take(self.inbox.entry(node).or_default());
        let flushed = std::mem::take(self.flushed.entry(node).or_default());
        let asked = if node == LEADER { std::mem::take(&mut self.asking) } else { 0 };
        if self.busy.get(&node) == Some(&true) {
            self.inbox.insert(node, arrived);
            self.flushed.insert(node, flushed);
            self.asking += asked;
            return;
        }
        if arrived.is_empty() && flushed == 0 && asked == 0 {
            return;
        }
        let mut cost = TURN + MESSAGE * arrived.len() as u64;
        for message in arrived {
            cost += entries(&message) * ENTRY;
            self.cluster.replica_mut(node).handle(Input::Message(message));
        }
        (0..flushed).for_each(|_| self.cluster.persist(node));
        if asked > 0 {
            let payload = || Payload::Data(Data::new(Bytes::from_static(&[7; 128])));
            let proposed = self.cluster.replica_mut(LEADER).propose((0..asked).map(|_| payload()).collect());
            proposed.expect("it leads, and has room");
            cost += asked * ENTRY;
        }
        self.cluster.settle(node);
        self.cluster.apply(node, 1 << 40);
        let sent: Vec<Message> = self.cluster.network.drain(..).collect();
        cost += sent.iter().map(|message| MESSAGE + entries(message) * ENTRY).sum::<u64>();
        self.busy.insert(node, true);
        self.at(self.now + cost, What::TurnEnds(node));
        for message in sent {
            self.messages.push(Some(message));
            let number = self.messages.len() - 1;
            self.at(self.now + cost + self.place.delay, What::Arrives(number));
        }
        let waiting = self.cluster.nodes[&node].persists.len();
        if waiting > 0 && self.flushing.get(&node) != Some(&true) {
            self.flushing.insert(node, true);
            self.at(self.now + cost + self.place.flush, What::Flushed(node, waiting));
        }
        let committed = self.cluster.replica(LEADER).status().commit.0;
        let news = committed - self.answered;
        self.answered = committed;
        self.ask_again(news);
    }

    fn round(&self) -> u64 {
        2 * self.place.delay + self.place.flush + 2 * TURN
    }

    /// Clients think for up to a round, some longer than others, so that they do not go in step.
    fn ask_again(&mut self, clients: u64) {
        let mut left = clients;
        while left > 0 {
            let together = left.min(clients.div_ceil(16));
            let think = self.random.below(self.round());
            self.at(self.now + think, What::Asks(together));
            left -= together;
        }
    }
}

fn entries(message: &Message) -> u64 {
    match &message.body {
        Body::Append(append) => append.entries.len() as u64,
        _ => 0,
    }
}

/// Followers flush once for all that waits, so no depth costs a flush; and a busy node takes several requests in one turn,
/// so that none costs much in messages. There is nothing to adapt: where a window of few messages is the best it is so by
/// some hundredths, and where it is not it is so by whole factors.
#[test]
fn a_deep_window_is_best_or_near_it_whatever_round_trip_and_flush_take() {
    const MICRO: u64 = 1_000;
    println!("entries/s by messages on their way; the one way, the flush");
    for (delay, flush) in [(50, 100), (50, 1_000), (500, 100), (500, 5_000), (5_000, 100), (50_000, 1_000)] {
        for clients in [1, 64, 2_048] {
            let rate = |window_messages| {
                World::new(Place { delay: delay * MICRO, flush: flush * MICRO, clients, window_messages }).run()
            };
            let rates = [1, 2, 4, 16, 256].map(rate);
            println!("{delay:>6} us {flush:>5} us {clients:>5} clients: {rates:?}");
            let best = *rates.iter().max().expect("some");
            assert!(rates[4] * 100 >= best * 90, "256 messages, and the best of fewer: {rates:?}");
        }
    }
}
