//! Random histories from a seed: loss, duplication, reordering, slow disks, crashes that forget what was not flushed.
//! The oracle looks at every step; when the faults stop, the cluster must agree and serve.

use bytes::Bytes;

use crate::raft::{Base, Change, Changed, Event, Input, ReadToken, Role};
use crate::random::Random;
use crate::types::{Data, Index, LogId, Membership, NodeId, Payload};

use super::cluster::{Cluster, limits_default, limits_small, member};

const SEEDS: u64 = 2_000;
const STEPS: u64 = 20_000;
/// Members and former members together.
const NODES_MAX: u64 = 7;

/// How bad it gets, drawn per seed; chances per thousand.
struct Weather {
    loss: u64,
    duplication: u64,
    crash: u64,
    /// How often a disk does something, compared with the network.
    disk: u64,
    propose: u64,
    cut: u64,
    membership: u64,
    /// Snapshots, and logs that begin later.
    snapshot: u64,
    /// Batches: how often several inputs share one output.
    batch: u64,
}

pub struct History {
    pub cluster: Cluster,
    pub random: Random,
    weather: Weather,
    /// Snapshots that were fetched, and how many have arrived late: some when they were of no use any more.
    fetched: Vec<(NodeId, Base, (LogId, Membership))>,
    arrived_late: u64,
    token: u64,
    payload: u64,
    proposals_taken: u64,
    changes_taken: u64,
    reads_answered: usize,
}

impl History {
    pub fn new(seed: u64) -> History {
        let mut random = Random::seeded(seed);
        let voters = *random.pick(&[1, 2, 3, 3, 3, 4, 5, 5]);
        let learners = random.below(2);
        let limits = if random.chance(600) { limits_small() } else { limits_default() };
        let weather = Weather {
            loss: random.below(200),
            duplication: random.below(200),
            crash: random.below(4),
            disk: random.between(100, 700),
            propose: random.below(150),
            cut: random.below(3),
            membership: random.below(2) * random.below(60),
            snapshot: random.below(2) * random.below(30),
            batch: random.below(500),
        };
        let cluster = Cluster::new(voters, learners, limits, random.next_u64());
        History {
            cluster,
            random,
            weather,
            fetched: Vec::new(),
            arrived_late: 0,
            token: 0,
            payload: 0,
            proposals_taken: 0,
            changes_taken: 0,
            reads_answered: 0,
        }
    }

    fn any_node(&mut self) -> NodeId {
        let nodes: Vec<NodeId> = self.cluster.nodes.keys().copied().collect();
        *self.random.pick(&nodes)
    }

    pub fn step(&mut self) {
        let node = self.any_node();
        if !self.cluster.runs(node) {
            if self.random.chance(20) {
                self.cluster.start(node);
            }
            return;
        }
        let (crash, propose, cut) = (self.weather.crash, self.weather.propose, self.weather.cut);
        if self.random.chance(crash) {
            let pending = self.cluster.nodes[&node].persists.len() as u64;
            let kept = self.random.below(pending + 1) as usize;
            self.cluster.crash(node, kept);
        } else if self.random.chance(cut) {
            self.cut(node);
        } else if self.random.chance(propose) {
            self.propose(node);
        } else if self.random.chance(30) {
            self.read(node);
        } else if self.random.chance(self.weather.membership) {
            self.change_membership(node);
        } else if self.random.chance(self.weather.snapshot) {
            self.snapshot(node);
        } else if self.random.chance(2) {
            let to = self.any_node();
            let _refused_or_not = self.cluster.replica_mut(node).transfer(to);
            self.cluster.settle(node);
        } else if self.random.chance(60) {
            self.input(node, Input::Tick);
        } else if self.random.chance(self.weather.disk) {
            self.disk(node);
        } else {
            self.message();
        }
    }

    /// Sometimes the output is left for later, so that several inputs share one.
    fn input(&mut self, node: NodeId, input: Input) {
        if self.random.chance(self.weather.batch) {
            self.cluster.replica_mut(node).handle(input);
        } else {
            self.cluster.input(node, input);
        }
    }

    fn cut(&mut self, node: NodeId) {
        let other = self.any_node();
        if self.random.chance(600) {
            self.cluster.cut.clear();
        } else {
            self.cluster.cut.insert((node, other));
        }
    }

    fn propose(&mut self, node: NodeId) {
        let count = self.random.between(1, 5);
        let payloads = (0..count).map(|_| {
            self.payload += 1;
            Payload::Data(Data::new(Bytes::copy_from_slice(&self.payload.to_le_bytes())))
        });
        let payloads = payloads.collect();
        if self.cluster.propose(node, payloads).is_ok() {
            self.proposals_taken += count;
        }
    }

    /// One thing or several at once, mostly such as can be. Who is new begins with an empty disk; who was removed
    /// keeps its own, and may come back with it.
    fn change_membership(&mut self, node: NodeId) {
        let node = self.cluster.leader().unwrap_or(node);
        let membership = self.cluster.replica(node).membership().clone();
        let mut wanted = Vec::new();
        for other in (1..=NODES_MAX).map(NodeId) {
            let promote = self.random.chance(700);
            match membership.member(other) {
                _ if self.random.chance(500) => {}
                _ if self.random.chance(20) => wanted.push(Change::Promote { node: other }),
                None => wanted.push(Change::Add { member: member(other.0), promote }),
                Some(_) if membership.voters.contains(&other) => wanted.push(Change::Remove { node: other }),
                Some(_) if promote => wanted.push(Change::Promote { node: other }),
                Some(_) => wanted.push(Change::Remove { node: other }),
            }
        }
        let Ok(Changed::Begun { .. }) = self.cluster.change(node, &wanted) else { return };
        self.changes_taken += 1;
        for change in wanted {
            if !self.cluster.nodes.contains_key(&change.node()) {
                self.cluster.add(change.node());
            }
        }
    }

    /// One is made, the log begins later, or one that was offered arrives: the last that was, or an older one.
    fn snapshot(&mut self, node: NodeId) {
        let offered = |node: &&NodeId| self.cluster.nodes[*node].offered.is_some() && self.cluster.runs(**node);
        let needy = self.cluster.nodes.keys().find(offered).copied().unwrap_or(node);
        match self.random.below(8) {
            0 | 1 => drop(self.cluster.snapshot(node)),
            2 | 3 => {
                let behind = self.random.below(8);
                let last = self.cluster.nodes[&node].applied.0.saturating_sub(behind);
                self.cluster.compact(node, Index(last));
            }
            4 => self.cluster.install(needy),
            5 | 6 => {
                let fetched = self.cluster.fetch_snapshot(needy);
                self.fetched.extend(fetched.map(|(base, membership)| (needy, base, membership)));
            }
            _ if self.fetched.is_empty() => {}
            _ => {
                let at = self.random.below(self.fetched.len() as u64) as usize;
                let (node, base, membership) = self.fetched.remove(at);
                if self.cluster.runs(node) {
                    self.arrived_late += 1;
                    self.cluster.finish_install(node, base, membership);
                }
            }
        }
    }

    fn read(&mut self, node: NodeId) {
        self.token += 1;
        let _refused_or_not = self.cluster.read(node, ReadToken(self.token));
    }

    fn disk(&mut self, node: NodeId) {
        match self.random.below(4) {
            0 => {
                let fails = self.random.chance(200);
                self.cluster.fetch(node, fails);
            }
            1 => {
                let count = self.random.between(1, 10);
                self.cluster.apply(node, count);
            }
            _ => self.cluster.persist(node),
        }
    }

    /// A message arrives, is lost, or arrives and will arrive again. Which one: any that is under way.
    fn message(&mut self) {
        if self.cluster.network.is_empty() {
            return;
        }
        let newest_kept = self.cluster.network.len().min(500) as u64;
        let at = self.random.below(newest_kept) as usize;
        let message = self.cluster.network.remove(at).expect("within the queue");
        if self.random.chance(self.weather.loss) || !self.cluster.runs(message.to) {
            return;
        }
        if self.random.chance(self.weather.duplication) {
            self.cluster.network.push_back(message.clone());
        }
        if !self.cluster.cut.contains(&(message.from, message.to)) {
            self.input(message.to, Input::Message(message));
        }
    }

    /// Configurations that some node knew to be committed, that were replaced, and those in which the leader that
    /// learned of the commit was no voter any more.
    fn changes_seen(&self) -> [u64; 3] {
        let mut counts = [0; 3];
        for pair in self.cluster.events.windows(2) {
            match (&pair[0].1, &pair[1].1) {
                (Event::Replaced { .. }, Event::MembershipChanged { .. }) => counts[1] += 1,
                (Event::MembershipCommitted { .. }, Event::RoleChanged { role: Role::Follower, .. }) => counts[2] += 1,
                (Event::MembershipCommitted { .. }, _) => counts[0] += 1,
                _ => {}
            }
        }
        counts
    }

    /// Nodes that run and are no members.
    fn strangers(&self) -> u64 {
        let leader = self.cluster.leader().expect("one is elected in the end");
        let membership = self.cluster.replica(leader).membership();
        self.cluster.nodes.keys().filter(|id| membership.member(**id).is_none()).count() as u64
    }

    /// The faults stop: within some elections all members have the same log, committed and applied, and serve.
    fn converge(&mut self) {
        let ids: Vec<NodeId> = self.cluster.nodes.keys().copied().collect();
        self.cluster.cut.clear();
        for &id in &ids {
            if !self.cluster.runs(id) {
                self.cluster.start(id);
            }
            // What was handled and not taken yet.
            self.cluster.settle(id);
        }
        self.cluster.settle_all();
        self.cluster.run(600);
        let leader = self.cluster.leader().expect("a leader is elected");
        let membership = self.cluster.replica(leader).membership().clone();
        assert!(!membership.is_joint() && membership.promoting.is_empty(), "what was begun is ended: {membership:?}");
        let ids: Vec<NodeId> = membership.members.iter().map(|member| member.id).collect();
        let proposed = self.cluster.propose(leader, vec![Payload::SnapshotPoint]).expect("the leader serves");
        let token = ReadToken(u64::MAX);
        let reader = *ids.last().expect("a node");
        self.cluster.read(reader, token).expect("reads are served everywhere");
        self.cluster.run(30);
        for &id in &ids {
            let status = self.cluster.replica(id).status();
            assert_eq!(*self.cluster.replica(id).membership(), membership, "{id} knows the members");
            assert_eq!(status.commit, proposed.start, "{id} has everything: {status:?}");
            assert_eq!(self.cluster.nodes[&id].applied, proposed.start, "{id} has applied everything");
            let (own, leaders) = (&self.cluster.nodes[&id].disk, &self.cluster.nodes[&leader].disk);
            let both = own.before_first.max(leaders.before_first).index.next();
            assert_eq!(own.entries_from(both), leaders.entries_from(both), "logs are equal");
            assert_eq!(own.last(), leaders.last());
        }
        assert!(self.cluster.reads_open.is_empty(), "a read hangs: {:?}", self.cluster.reads_open);
        self.reads_answered = self.cluster.reads_ready.len();
    }
}

fn run(seed: u64) -> History {
    let mut history = History::new(seed);
    for _ in 0..STEPS {
        history.step();
    }
    history.converge();
    history
}

#[test]
fn histories_with_faults_keep_the_invariants_and_converge() {
    let (mut committed, mut reads, mut taken, mut changes) = (0, 0, 0, 0);
    let (mut installed, mut late) = (0, 0);
    let (mut changes_committed, mut fallen_back, mut leaders_out, mut strangers) = (0, 0, 0, 0);
    for seed in 0..SEEDS {
        let outcome = std::panic::catch_unwind(|| run(seed));
        let history = outcome.unwrap_or_else(|cause| {
            eprintln!("seed {seed} fails");
            std::panic::resume_unwind(cause)
        });
        committed += history.cluster.oracle.committed().0;
        reads += history.reads_answered;
        taken += history.proposals_taken;
        changes += history.changes_taken;
        let [done, back, out] = history.changes_seen();
        (changes_committed, fallen_back, leaders_out) =
            (changes_committed + done, fallen_back + back, leaders_out + out);
        strangers += history.strangers();
        installed += history.cluster.installed;
        late += history.arrived_late;
    }
    // A history in which nothing happens proves nothing.
    assert!(taken > SEEDS * 100 && committed > SEEDS * 100, "{taken} proposed, {committed} committed");
    assert!(reads > SEEDS as usize * 50, "{reads} reads");
    println!("{changes} changes, {changes_committed} commits of them heard, {fallen_back} fallen back");
    println!("{installed} snapshots installed; {late} arrived late, not all of them to be installed");
    println!("{leaders_out} leaders removed, {strangers} nodes no members in the end");
    assert!(installed > SEEDS && late > SEEDS / 4);
    assert!(changes > 2 * SEEDS && changes_committed > 10 * SEEDS);
    assert!(fallen_back > SEEDS / 40 && leaders_out > SEEDS / 2 && strangers > SEEDS / 4);
}

#[test]
fn same_seed_same_history() {
    let trace = |seed| {
        let history = run(seed);
        let disks: Vec<_> = history.cluster.nodes.values().map(|node| node.disk.clone()).collect();
        format!("{:?} {:?} {disks:?}", history.cluster.events, history.cluster.reads_ready)
    };
    assert_eq!(trace(7), trace(7));
    assert_ne!(trace(7), trace(8));
}

/// A thousand proposals through a window of a few entries, with one persist for all that waited.
#[test]
fn small_windows_carry_everything() {
    let mut cluster = Cluster::new(3, 0, limits_small(), 1);
    cluster.run(200);
    let leader = cluster.leader().expect("elected");
    for number in 0..1_000u64 {
        let payload = Payload::Data(Data::new(Bytes::copy_from_slice(&number.to_le_bytes())));
        cluster.propose(leader, vec![payload]).expect("there is room");
        cluster.settle_all();
    }
    cluster.run(10);
    for id in (1..=3).map(NodeId) {
        assert_eq!(cluster.replica(id).status().commit, Index(1_001));
    }
    assert_eq!(cluster.nodes[&leader].persists.len(), 0);
}
