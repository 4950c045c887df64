//! Leases beside transfers: who was asked to stand is voted for at once, whatever was promised, and nobody reads by a
//! lease that this has ended.

use std::time::Duration;

use bytes::Bytes;

use crate::limits::TICK;
use crate::raft::{Body, BootTime, Input, LeaseOptions, Message, Role};
use crate::random::Random;
use crate::types::{Data, LogId, NodeId, Payload, Term};

use super::cluster::{Cluster, limits_default};

const DRIFT_PERCENT: u32 = 10;
const OPTIONS: LeaseOptions = LeaseOptions {
    promise: Duration::from_millis(300),
    rest: Duration::from_millis(600),
    drift_percent: DRIFT_PERCENT,
};
const NODES: u64 = 3;
const SEEDS: u64 = 20;
const STEPS: u64 = 4_000;

fn with_leases(seed: u64) -> Cluster {
    let mut cluster = Cluster::new(NODES, 0, limits_default(), seed);
    let ids: Vec<NodeId> = cluster.nodes.keys().copied().collect();
    cluster.leases = Some(OPTIONS);
    for id in ids {
        cluster.crash(id, 0);
        cluster.start(id);
    }
    cluster
}

/// The leader has a lease, and both others are bound by a promise.
fn led() -> (Cluster, NodeId, NodeId, NodeId) {
    let mut cluster = with_leases(1);
    cluster.run(200);
    let leader = cluster.leader().expect("one is elected");
    let others: Vec<NodeId> = cluster.nodes.keys().copied().filter(|id| *id != leader).collect();
    assert!(cluster.replica(leader).holds_lease());
    assert!(others.iter().all(|id| cluster.replica(*id).is_bound()));
    (cluster, leader, others[0], others[1])
}

fn vote(cluster: &Cluster, from: NodeId, to: NodeId, transfer: bool) -> Input {
    let term = cluster.replica(to).status().hard_state.term.next();
    let body = Body::Vote { last: LogId::new(Term(9), cluster.replica(from).status().last.index), transfer };
    Input::Message(Message { from, to, term, body })
}

#[test]
fn a_vote_that_a_transfer_asks_for_is_given_whatever_was_promised() {
    let (mut cluster, leader, heir, other) = led();
    cluster.replica_mut(leader).transfer(heir).expect("it is a voter");
    assert!(!cluster.replica(leader).holds_lease(), "before anything leaves");
    cluster.settle(leader);
    let bound = |cluster: &Cluster| cluster.replica(heir).is_bound() && cluster.replica(other).is_bound();
    assert!(bound(&cluster), "no time has passed");
    cluster.settle_all();
    assert!(bound(&cluster));
    assert_eq!(cluster.replica(heir).status().role, Role::Leader, "no time has passed, and it leads");
    assert_eq!(cluster.replica(other).status().hard_state.vote, Some(heir));
    assert!(!cluster.replica(leader).holds_lease() && cluster.replica(heir).lease_index() == Ok(None));
}

#[test]
fn a_vote_that_no_transfer_asks_for_is_not_given_while_a_promise_binds() {
    let (mut cluster, leader, candidate, other) = led();
    let before = cluster.replica(other).status();
    let asked = vote(&cluster, candidate, other, false);
    cluster.input(other, asked);
    assert_eq!(cluster.replica(other).status(), before, "it is not even heard");
    assert!(cluster.replica(leader).holds_lease());
    // The same, asked for by the leader.
    let asked = vote(&cluster, candidate, other, true);
    cluster.input(other, asked);
    assert_eq!(cluster.replica(other).status().hard_state.vote, Some(candidate));
}

/// Clocks within the bound, lost, late and doubled messages, crashes, cuts, and leaders that are asked to hand over:
/// at no moment does a node that holds a lease lack what is committed.
#[test]
pub fn no_lease_is_held_where_another_has_committed() {
    let mut told = [0; 3];
    for seed in 0..SEEDS {
        let mut history = History::new(seed);
        (0..STEPS).for_each(|_| history.step());
        told[0] += history.reads;
        told[1] += history.transfers;
        told[2] += history.cluster.committed().0;
    }
    println!("{} reads by lease, {} transfers, {} entries committed", told[0], told[1], told[2]);
    assert!(told[0] > 100 * SEEDS && told[1] > SEEDS && told[2] > 20 * SEEDS, "{told:?}");
}

/// Time is in microseconds; the clock of node i runs faster by i - 1 times half of the bound.
struct History {
    seed: u64,
    cluster: Cluster,
    random: Random,
    now: u64,
    ticks: [u64; NODES as usize],
    reads: u64,
    transfers: u64,
}

impl History {
    fn new(seed: u64) -> History {
        let random = Random::seeded(seed ^ 0x1ea5e);
        History { seed, cluster: with_leases(seed), random, now: 0, ticks: [0; 3], reads: 0, transfers: 0 }
    }

    fn clock(&self, id: NodeId) -> Duration {
        let faster = u64::from(DRIFT_PERCENT) * 5 * (id.0 - 1);
        Duration::from_micros(self.now * (1000 + faster) / 1000)
    }

    fn step(&mut self) {
        self.now += self.random.below(6_000);
        for id in (1..=NODES).map(NodeId) {
            let due = (self.clock(id).as_micros() / TICK.as_micros()) as u64;
            let at = (id.0 - 1) as usize;
            while self.ticks[at] < due {
                self.ticks[at] += 1;
                if self.cluster.runs(id) {
                    self.cluster.tick(id);
                } else {
                    self.cluster.nodes.get_mut(&id).expect("a member").clock.0 += TICK;
                }
            }
        }
        let id = NodeId(1 + self.random.below(NODES));
        if !self.cluster.runs(id) {
            if self.random.chance(100) {
                self.cluster.start(id);
            }
            return;
        }
        self.act(id);
        for id in (1..=NODES).map(NodeId).filter(|_| self.random.chance(700)) {
            while self.cluster.runs(id) && !self.cluster.nodes[&id].persists.is_empty() {
                self.cluster.persist(id);
            }
        }
        for _ in 0..self.random.below(12) {
            self.message();
        }
        (1..=NODES).map(NodeId).for_each(|id| self.look(id));
    }

    fn act(&mut self, id: NodeId) {
        match self.random.below(400) {
            0..2 => self.cluster.crash(id, 0),
            // From one of the others, or from both.
            2..6 => {
                let other = NodeId(1 + self.random.below(NODES));
                let is_alone = self.random.chance(500);
                for other in (1..=NODES).map(NodeId).filter(|node| is_alone || *node == other) {
                    self.cluster.cut.extend([(id, other), (other, id)]);
                }
            }
            6..9 => self.cluster.cut.clear(),
            14..24 => {
                let to = NodeId(1 + self.random.below(NODES));
                let is_begun = self.cluster.replica_mut(id).transfer(to).is_ok();
                self.transfers += u64::from(is_begun);
                self.cluster.settle(id);
                // Who hands over may be the last to hear of it.
                if is_begun && self.random.chance(400) {
                    self.cluster.cut.extend((1..=NODES).map(|other| (NodeId(other), id)));
                }
            }
            30..130 => {
                let payload = Payload::Data(Data::new(Bytes::from_static(b"entry")));
                let _refused_or_not = self.cluster.propose(id, vec![payload]);
            }
            _ => {}
        }
    }

    /// Mostly the oldest; lost or doubled now and then.
    fn message(&mut self) {
        let under_way = self.cluster.network.len() as u64;
        if under_way == 0 {
            return;
        }
        let at = if self.random.chance(700) { 0 } else { self.random.below(under_way.min(50)) };
        let message = self.cluster.network.remove(at as usize).expect("it is under way");
        if self.random.chance(30) {
            return;
        }
        // What leads to votes is late more often than anything else.
        let is_late = matches!(message.body, Body::StandNow | Body::Vote { .. }) && self.random.chance(400);
        if is_late || self.random.chance(30) {
            self.cluster.network.push_back(message.clone());
        }
        if !is_late {
            // The reading is older than what it comes before.
            let reading = BootTime(self.clock(message.to));
            if self.cluster.runs(message.to) {
                self.cluster.input(message.to, Input::Clock(reading));
            }
            self.cluster.deliver(message);
        }
    }

    fn look(&mut self, id: NodeId) {
        if !self.cluster.runs(id) {
            return;
        }
        let index = self.cluster.replica(id).lease_index();
        let reading = BootTime(self.clock(id));
        self.cluster.input(id, Input::Clock(reading));
        let Ok(Some(index)) = index else { return };
        if self.cluster.replica(id).holds_lease() {
            self.reads += 1;
            let (seed, committed) = (self.seed, self.cluster.committed());
            assert!(index >= committed, "seed {seed}: {id} reads by lease at {index}, and {committed} is committed");
        }
    }
}
