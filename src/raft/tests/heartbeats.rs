//! Heartbeats to those who do not answer, counted; and that whoever comes back hears one in time.

use std::ops::Range;

use crate::raft::{Body, Config, Event, Input, Output, ReadToken, Replica, Restored, Role};
use crate::types::{NodeId, Term};

use super::cluster::{Cluster, limits_default, membership};
use super::leader::{durable, from_peer};

const LEADER: NodeId = NodeId(1);
const DEAD: NodeId = NodeId(3);

/// Of `voters`, elected by nodes 2 and 4, which answer every heartbeat at once; node 3 never says anything.
struct Led {
    leader: Replica,
    voters: u64,
    /// The ticks in which a heartbeat was sent to node 2 and to node 3.
    sent: [Vec<u32>; 2],
    now_ticks: u32,
}

impl Led {
    fn new(voters: u64, heartbeat_ticks: u32, election_ticks: Range<u32>) -> Led {
        let config = Config { id: LEADER, heartbeat_ticks, election_ticks, seed: 1, limits: limits_default() };
        let restored = Restored::fresh(membership(voters, 0));
        let mut leader = Replica::new(config, restored);
        while leader.status().role == Role::Follower {
            leader.handle(Input::Tick);
        }
        for peer in [2, 4] {
            leader.handle(from_peer(peer, 0, Body::PreVoteReply { next: Term(1), granted: true }));
        }
        durable(&mut leader);
        for peer in [2, 4] {
            leader.handle(from_peer(peer, 1, Body::VoteReply { granted: true }));
        }
        assert_eq!(leader.status().role, Role::Leader);
        let mut led = Led { leader, voters, sent: [Vec::new(), Vec::new()], now_ticks: 0 };
        let output = durable(&mut led.leader);
        led.answer(&output);
        led
    }

    fn answer(&mut self, output: &Output) {
        for message in output.send.iter().map(|outgoing| &outgoing.message) {
            let answer = match &message.body {
                Body::Heartbeat { round, .. } => Body::HeartbeatReply { round: *round },
                Body::Append(append) => {
                    let last = append.previous.index.plus(append.entries.len() as u64);
                    super::leader::reply(crate::raft::AppendOutcome::Matched { last })
                }
                _ => continue,
            };
            if let Body::Heartbeat { .. } = message.body {
                let times = self.sent.get_mut((message.to.0 as usize).wrapping_sub(2));
                times.into_iter().for_each(|times| times.push(self.now_ticks));
            }
            if message.to != DEAD && message.to.0 <= self.voters {
                self.leader.handle(from_peer(message.to.0, 1, answer));
            }
        }
    }

    fn tick(&mut self) {
        self.now_ticks += 1;
        self.leader.handle(Input::Tick);
        self.exchange();
    }

    fn exchange(&mut self) {
        for _ in 0..4 {
            let output = durable(&mut self.leader);
            self.answer(&output);
        }
    }

    fn counts(&self) -> [usize; 2] {
        [self.sent[0].len(), self.sent[1].len()]
    }
}

#[test]
pub fn who_is_silent_gets_a_fifth_of_the_heartbeats() {
    let mut led = Led::new(5, 5, 30..60);
    for _ in 0..10_000 {
        led.tick();
    }
    let [answered, silent] = led.counts();
    println!("in 10,000 ticks {answered} heartbeats to a follower that answers, {silent} to one that does not");
    assert_eq!(answered, 2_000);
    assert!(silent <= 10_000 / 25 + 10, "{silent}");
    assert_eq!(led.leader.status().role, Role::Leader);
}

/// Every read begins a round. Who is silent gets no more for it, and no read waits for a tick.
#[test]
fn reads_are_served_at_once_and_cost_who_is_silent_nothing() {
    let mut led = Led::new(5, 5, 30..60);
    for number in 0..1_000 {
        led.tick();
        led.leader.read(ReadToken(number)).expect("it leads");
        let output = durable(&mut led.leader);
        led.answer(&output);
        assert_eq!(led.leader.take_output().reads_ready.len(), 1, "read {number}");
    }
    let [answered, silent] = led.counts();
    println!(
        "with 1,000 reads in as many ticks {answered} heartbeats to one that answers, {silent} to one that does not"
    );
    assert!(answered >= 1_000);
    assert!(silent <= 30 + 1_000 / 25 + 10, "{silent}");
}

/// Whatever the times are: two heartbeats to a silent node are always less than the shortest election timeout apart.
#[test]
fn a_silent_node_gets_a_heartbeat_within_every_election_timeout() {
    let mut longest = 0;
    for start in [2, 3, 5, 10, 30, 31, 100] {
        for heartbeat in (1..start).filter(|heartbeat| *heartbeat < 12 || heartbeat % 7 == 0) {
            let mut led = Led::new(5, heartbeat, start..2 * start);
            for number in 0..u64::from(20 * start) {
                led.tick();
                // Rounds of reads begin between those of heartbeats, and put the next of these off.
                if number % 13 < 3 {
                    led.leader.read(ReadToken(number)).expect("it leads");
                    led.exchange();
                }
            }
            let gaps = led.sent[1].windows(2).map(|pair| pair[1] - pair[0]);
            let gap = gaps.max().expect("it gets some");
            assert!(gap < start, "{gap} ticks without a heartbeat: every {heartbeat}, elections after {start}");
            longest = longest.max(gap / heartbeat);
        }
    }
    assert!(longest > 10, "nothing backs off");
}

/// Started again at any time, a node hears its leader before it asks for votes, and has what it missed soon after.
#[test]
pub fn who_comes_back_asks_for_no_votes() {
    for (seed, away_ticks) in (0..240).map(|number| (number, 31 + number % 97)) {
        let mut cluster = Cluster::new(3, 0, limits_default(), seed);
        cluster.run(120);
        let leader = cluster.leader().expect("elected");
        let node = NodeId(1 + leader.0 % 3);
        let term = cluster.replica(leader).status().hard_state.term;
        cluster.crash(node, 0);
        cluster.run(away_ticks as u32);
        cluster.start(node);
        cluster.events.clear();
        cluster.run(30);
        let stood = |event: &Event| matches!(event, Event::RoleChanged { role: Role::PreCandidate, .. });
        assert!(!cluster.events.iter().any(|(_, event)| stood(event)), "seed {seed}: {:?}", cluster.events);
        let status = cluster.replica(node).status();
        assert_eq!((status.leader, status.hard_state.term), (Some(leader), term), "seed {seed}");
        assert_eq!(status.commit, cluster.replica(leader).status().commit, "seed {seed}");
    }
}

/// A leader that loses its majority notices it as early as one that never left anybody out.
#[test]
pub fn check_quorum_counts_who_comes_back() {
    let mut cluster = Cluster::new(3, 0, limits_default(), 1);
    cluster.run(120);
    let leader = cluster.leader().expect("elected");
    let [dies, returns] = [1, 2].map(|step| NodeId(1 + (leader.0 - 1 + step) % 3));
    for phase in 0..25 {
        cluster.crash(returns, 0);
        cluster.run(150 + phase);
        // The one that comes back does so in the last moment: 30 ticks before the leader would step down.
        cluster.crash(dies, 0);
        cluster.run(29);
        cluster.start(returns);
        cluster.run(6);
        assert_eq!(cluster.replica(returns).status().leader, Some(leader), "phase {phase}");
        cluster.run(60);
        assert_eq!(cluster.leader(), Some(leader), "phase {phase}");
        cluster.start(dies);
        cluster.run(60);
    }
}
