//! Three replicas in one thread, with disks that are done at once and a network that loses nothing: what the protocol
//! itself costs per entry, at several batch sizes, and per election.

use std::collections::{BTreeMap, VecDeque};
use std::hint::black_box;
use std::net::SocketAddr;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use trilith::limits;
use trilith::raft::{Config, Input, Limits, Message, Outgoing, Output, Replica, Restored, Role};
use trilith::types::{Data, Incarnation, Index, Member, Membership, NodeId, Payload};

struct Cluster {
    replicas: BTreeMap<NodeId, Replica>,
    /// What is to be done now; its memory is used again.
    output: Output,
    network: VecDeque<Message>,
    /// Hears nothing, and nothing is heard of it.
    silent: Option<NodeId>,
}

impl Cluster {
    fn elected() -> (Cluster, NodeId) {
        let ids = [NodeId(1), NodeId(2), NodeId(3)];
        let replicas = ids.into_iter().map(|id| (id, replica(id))).collect();
        let mut cluster = Cluster { replicas, output: Output::default(), network: VecDeque::new(), silent: None };
        let leader = cluster.run_until_led();
        (cluster, leader)
    }

    fn run_until_led(&mut self) -> NodeId {
        for _ in 0..10_000 {
            self.tick();
            let mut heard = self.replicas.iter().filter(|(id, _)| Some(**id) != self.silent);
            if let Some((id, _)) = heard.find(|(_, replica)| replica.role() == Role::Leader) {
                return *id;
            }
        }
        panic!("two replicas that hear each other elect a leader");
    }

    /// The leader falls silent, the others elect one of them, and it hears of that.
    fn elect(&mut self, old: NodeId) -> NodeId {
        self.silent = Some(old);
        let leader = self.run_until_led();
        self.silent = None;
        while self.replicas[&old].status().leader != Some(leader) {
            self.tick();
        }
        leader
    }

    fn tick(&mut self) {
        let heard: Vec<NodeId> = self.replicas.keys().copied().filter(|id| Some(*id) != self.silent).collect();
        heard.into_iter().for_each(|id| self.handle(id, Input::Tick));
        self.deliver();
    }

    fn handle(&mut self, id: NodeId, input: Input) {
        self.replicas.get_mut(&id).expect("a member").handle(input);
        self.carry_out(id);
    }

    /// Everything that an output asks for is done at once.
    fn carry_out(&mut self, id: NodeId) {
        let Cluster { replicas, output, network, silent } = self;
        let replica = replicas.get_mut(&id).expect("a member");
        loop {
            if !replica.fill_output(output) {
                return;
            }
            for Outgoing { message, .. } in output.send.drain(..) {
                if Some(message.to) != *silent && Some(id) != *silent {
                    network.push_back(message);
                }
            }
            if let Some(commit) = output.commit {
                replica.handle(Input::Applied(commit));
            }
            if let Some(persist) = &output.persist {
                replica.handle(Input::Durable(persist.number));
            }
        }
    }

    fn deliver(&mut self) {
        while let Some(message) = self.network.pop_front() {
            self.handle(message.to, Input::Message(message));
        }
    }

    /// Proposes a batch and carries it to its commit.
    fn commit(&mut self, leader: NodeId, payloads: Vec<Payload>) -> Index {
        let replica = self.replicas.get_mut(&leader).expect("a member");
        let range = replica.propose(payloads).expect("the leader takes what was committed before");
        self.carry_out(leader);
        self.deliver();
        let commit = self.replicas[&leader].status().commit;
        assert!(commit >= Index(range.end.0 - 1), "all of it is committed");
        commit
    }
}

fn replica(id: NodeId) -> Replica {
    let member = |id: u64| Member {
        id: NodeId(id),
        incarnation: Incarnation(id),
        address: SocketAddr::from(([127, 0, 0, 1], id as u16)),
    };
    let membership = Membership {
        members: (1..=3).map(member).collect(),
        voters: (1..=3).map(NodeId).collect(),
        ..Default::default()
    };
    let limits = Limits {
        window_bytes: limits::FOLLOWER_WINDOW_BYTES,
        window_messages: limits::FOLLOWER_WINDOW_MESSAGES,
        append_bytes_max: limits::APPEND_BYTES_MAX,
        append_entries_max: limits::APPEND_ENTRIES_MAX,
        uncommitted_bytes_max: 1 << 20,
        cache_bytes_max: 1 << 20,
        ration_bytes_min: limits::RATION_BYTES_PER_TICK_MIN,
    };
    let config = Config { id, heartbeat_ticks: 5, election_ticks: 30..60, seed: id.0, limits };
    let restored = Restored::fresh(membership);
    Replica::new(config, restored)
}

fn step(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("raft_step");
    let data = Data::new(Bytes::from_static(&[7; 128]));
    for batch in [1, 16, 256] {
        let (mut cluster, leader) = Cluster::elected();
        group.throughput(Throughput::Elements(batch));
        group.bench_with_input(BenchmarkId::from_parameter(batch), &batch, |bencher, &batch| {
            bencher.iter(|| {
                let payloads = (0..batch).map(|_| Payload::Data(data.clone())).collect();
                black_box(cluster.commit(leader, payloads))
            });
        });
    }
    group.finish();
}

fn storm(criterion: &mut Criterion) {
    let (mut cluster, mut leader) = Cluster::elected();
    criterion.bench_function("raft_step/election", |bencher| {
        bencher.iter(|| {
            leader = cluster.elect(leader);
            leader
        });
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).measurement_time(std::time::Duration::from_secs(3));
    targets = step, storm
}
criterion_main!(benches);
