//! Processes that a network of their own cuts off from each other, one way and both ways, under load, from outside.
//!
//! Clients reach all nodes at all times, so that whoever was deposed and does not know is asked, too. At the end each
//! acknowledged record must be where it was told (oracle A), everything in its time, reads among it (B), and all logs
//! and maps the same (E); and nobody may have been without service for long.

mod witness;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use trilith::cli::configuration::ClientConfiguration;
use trilith::cli::local::{LocalCluster, LocalOptions};
use trilith::client::NodeClient;
use trilith::limits::ELECTION_MAX_DEFAULT;
use trilith::net::{NodeRole, NodeStatus};
use trilith::types::NodeId;

use tokio::runtime::Runtime;

use crate::netns::{CLIENTS, Inside, Net, make_or_skip};
use crate::processes::check::Seen;
use crate::processes::load::{Journal, Load, Told};
use crate::processes::{PATIENCE, PROGRAM, SEGMENT_BYTES, Trial, alone, check, connect, logs};
use witness::{Account, Witness};

/// Nobody may be without service for longer: the leader's own election timeout, one of the others, two more that end
/// with split votes, and as much again for a machine that does other things as well.
const WITHOUT_SERVICE_MAX: Duration = ELECTION_MAX_DEFAULT.saturating_mul(6);
/// When a test that waits for another leader gives up.
const REPLACED_MAX: Duration = Duration::from_secs(10);
/// The load: three writers give 50 records each so often.
const PACE: Duration = Duration::from_millis(100);
/// The same where many entries are to come.
const BUSY: Duration = Duration::from_millis(40);
/// Less than it takes a connection to be given up for silence, and more.
const SHORT: Duration = Duration::from_millis(1200);
const LONG: Duration = Duration::from_millis(3000);
const POLL: Duration = Duration::from_millis(5);
/// How long a node may take to say how it stands.
const LOOK: Duration = Duration::from_secs(1);
/// Terms that may pass where a leader leads on, for a machine that stands still now and then.
const TERMS_MAX: u64 = 2;
/// So many linearizable reads at least are answered while something is cut.
const READS_MIN: usize = 5;
/// Entries that a majority writes while the others are gone.
const BEHIND: u64 = 10_000;

/// What a cut does to the one that led.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Deposed,
    /// It leads on, and in its term.
    Leads,
}

/// Directions that are cut, given the leader and the others.
type Cut = fn(u64, &[u64]) -> Vec<(u64, u64)>;

#[test]
fn a_leader_that_cannot_send_is_replaced() {
    run("the leader cannot send, 3 nodes", 3, Fate::Deposed, &[SHORT, LONG], 0, |leader, others| {
        others.iter().map(|other| (leader, *other)).collect()
    });
}

#[test]
fn a_leader_that_cannot_receive_steps_down() {
    run("the leader cannot receive, 3 nodes", 3, Fate::Deposed, &[SHORT, LONG], 0, |leader, others| {
        others.iter().map(|other| (*other, leader)).collect()
    });
}

#[test]
fn a_leader_cut_off_from_half_of_the_others_leads_on() {
    run("the leader and 2 of 5 nodes cut apart", 5, Fate::Leads, &[LONG], 0, |leader, others| {
        others[..2].iter().flat_map(|other| both_ways(leader, *other)).collect()
    });
    run("the leader and 1 of 3 nodes cut apart", 3, Fate::Leads, &[LONG], 0, |leader, others| {
        both_ways(leader, others[0]).to_vec()
    });
}

#[test]
fn where_only_one_follower_reaches_all_it_leads() {
    run("only one follower of 4 reaches all", 5, Fate::Deposed, &[SHORT, LONG], 0, |leader, others| {
        let apart = [leader, others[1], others[2], others[3]];
        let pairs = apart.iter().flat_map(|from| apart.iter().map(|to| (*from, *to)));
        pairs.filter(|(from, to)| from != to).collect()
    });
}

#[test]
fn a_minority_with_the_leader_comes_back_after_10000_entries() {
    run("a minority of 2 with the leader cut off, 5 nodes", 5, Fate::Deposed, &[LONG], BEHIND, |leader, others| {
        let (minority, majority) = ([leader, others[0]], &others[1..]);
        minority.iter().flat_map(|few| majority.iter().flat_map(|many| both_ways(*few, *many))).collect()
    });
}

fn both_ways(one: u64, other: u64) -> [(u64, u64); 2] {
    [(one, other), (other, one)]
}

fn run(name: &str, nodes: u64, fate: Fate, holds: &[Duration], behind: u64, cut: Cut) {
    let _alone = alone();
    let Some(net) = make_or_skip("partitions", nodes) else { return };
    let begin = Instant::now();
    let mut parted = Parted::start(net, nodes);
    for hold in holds {
        parted.load.reach(parted.load.acknowledged() + 1000);
        parted.part(fate, *hold, behind, cut);
    }
    parted.load.reach(parted.load.acknowledged() + 1000);
    parted.finish(name, fate, behind, begin);
}

/// A cluster whose nodes are hosts of a network, with clients at work.
struct Parted {
    // Dropped in this order: clients, nodes, and the network last.
    witness: Option<Witness>,
    load: Load,
    trial: Trial,
    /// This thread is where the clients are.
    _inside: Inside,
    net: Net,
    eyes: Eyes,
    client: ClientConfiguration,
    parts: Vec<Part>,
}

/// One cut and what came of it.
struct Part {
    cut: Instant,
    healed: Instant,
    /// When all nodes had what was committed when it was healed.
    caught_up: Instant,
    /// From the cut until another node led, and until the one before said that it leads no more.
    led: Duration,
    deposed: Duration,
    /// Entries that came meanwhile.
    entries: u64,
    /// By how much the term rose from the cut until all had caught up.
    terms: u64,
}

impl Parted {
    fn start(net: Net, nodes: u64) -> Parted {
        let home = tempfile::tempdir().expect("a directory can be made");
        let options = LocalOptions { nodes, segment_bytes: SEGMENT_BYTES, io: None };
        let addresses: Vec<_> = (1..=nodes).map(Net::address).collect();
        let directory = home.path().join("cluster");
        let cluster = LocalCluster::prepare_at(&directory, PROGRAM.as_ref(), &options, &addresses);
        let mut trial = Trial { cluster: cluster.unwrap_or_else(|failure| panic!("{failure}")), home };
        for node in 1..=nodes {
            let _inside = net.enter(node);
            trial.start_node(NodeId(node));
        }
        let inside = net.enter(CLIENTS);
        let client = trial.cluster.client().unwrap_or_else(|failure| panic!("{failure}"));
        let load = Load::start(&trial.cluster.client_file(), trial.home.path());
        load.pace(PACE);
        let witness = Some(Witness::start(client.clone()));
        let eyes = Eyes::new(client.clone());
        Parted { witness, load, trial, _inside: inside, net, eyes, client, parts: Vec::new() }
    }

    /// Cuts, waits for what must come of it, heals, and waits until all are as far as each other.
    fn part(&mut self, fate: Fate, hold: Duration, behind: u64, directions: Cut) {
        let before = self.eyes.leader();
        let others: Vec<u64> = (1..=self.client.nodes.len() as u64).filter(|node| *node != before.id.0).collect();
        let told = self.load.acknowledged();
        self.net.cut(&directions(before.id.0, &others));
        let cut = Instant::now();
        let (led, deposed) = if fate == Fate::Deposed { self.replaced(&before, cut) } else { Default::default() };
        self.load.pace(if behind > 0 { BUSY } else { PACE });
        self.load.reach(told + behind.max(1));
        self.load.pace(PACE);
        std::thread::sleep(hold.saturating_sub(cut.elapsed()));
        let entries = self.load.acknowledged() - told;
        let now = self.eyes.leader();
        assert!(fate == Fate::Deposed || now.id == before.id, "node {} leads, and no more {}", now.id, before.id);
        self.net.heal();
        let healed = Instant::now();
        let all: Vec<NodeId> = self.trial.cluster.nodes().collect();
        for node in all {
            self.eyes
                .await_status(node, "has caught up", |status| status.commit >= now.commit && status.term >= now.term);
        }
        let caught_up = Instant::now();
        let terms = self.eyes.leader().term.0 - before.term.0;
        self.parts.push(Part { cut, healed, caught_up, led, deposed, entries, terms });
    }

    /// How long after the cut another node led, and the one before said that it leads no more.
    fn replaced(&mut self, before: &NodeStatus, cut: Instant) -> (Duration, Duration) {
        let (mut led, mut deposed) = (None, None);
        loop {
            for node in self.trial.cluster.nodes().collect::<Vec<_>>() {
                let Some(status) = self.eyes.status(node) else { continue };
                let leads = status.role == NodeRole::Leader;
                if leads && status.term > before.term {
                    led.get_or_insert(cut.elapsed());
                }
                if node == before.id && !(leads && status.term == before.term) {
                    deposed.get_or_insert(cut.elapsed());
                }
            }
            if let (Some(led), Some(deposed)) = (led, deposed) {
                return (led, deposed);
            }
            assert!(cut.elapsed() < REPLACED_MAX, "after {REPLACED_MAX:?}: another leads {led:?}, deposed {deposed:?}");
            std::thread::sleep(POLL);
        }
    }

    fn finish(mut self, name: &str, fate: Fate, behind: u64, begin: Instant) {
        let account = self.witness.take().expect("it runs").stop();
        let over = Instant::now();
        let mut journals = self.load.kill();
        let (unknown, absent) = account.uncertain();
        let Account { journals: witnessed, reads, reads_refused } = account;
        journals.extend(witnessed);
        let seen: Vec<_> = reads.into_iter().map(|(_, seen)| seen).collect();
        let checked = check::compare_with_reads(&self.client, &journals, &seen);
        self.trial.cluster.kill_all().unwrap_or_else(|failure| panic!("{failure}"));
        let logs = logs::compare(&self.trial.cluster, checked.settled);
        let given_up: u64 = logs.iter().map(|log| log.given_up).sum();
        println!("partitions, {name}: {:.1?}", begin.elapsed());
        println!("  {checked:?}, {unknown} told unknown, {absent} told absent, {given_up} entries given up");
        println!("  {} linearizable reads, {reads_refused} refused or without an answer", seen.len());
        let ends: Vec<Instant> = self.parts.iter().skip(1).map(|next| next.cut).chain([over]).collect();
        self.parts.iter().zip(ends).for_each(|(part, end)| part.judge(fate, &journals, end));
        let is_within = |read: &&Seen| self.parts.iter().any(|part| part.cut < read.begin && read.end < part.healed);
        let reads_within = seen.iter().filter(is_within).count();
        assert!(reads_within >= READS_MIN, "{reads_within} reads while something was cut");
        assert!(fate == Fate::Leads || unknown > 0, "with a leader gone some outcomes are unknown");
        assert!(self.parts.iter().all(|part| part.entries >= behind), "so much was written meanwhile");
        assert!(behind == 0 || given_up > 0, "what the minority's leader took meanwhile was given up");
    }
}

impl Part {
    /// `end` is when the next one began, or the test ended.
    fn judge(&self, fate: Fate, journals: &[Journal], end: Instant) {
        let Part { led, deposed, entries, terms, .. } = self;
        let cut = without_service(journals, self.cut, self.healed);
        let healed = without_service(journals, self.healed, end);
        println!(
            "  cut for {:.1?}, {entries} records: next leader {led:.1?}, the one before deposed {deposed:.1?}, \
             terms {terms}, without service {cut:.1?}; healed: caught up {:.1?}, without service {healed:.1?}",
            self.healed - self.cut,
            self.caught_up - self.healed
        );
        assert!(*led < WITHOUT_SERVICE_MAX && *deposed < WITHOUT_SERVICE_MAX, "a leader for nobody");
        assert!(cut < WITHOUT_SERVICE_MAX, "cut: {cut:?} without service");
        assert!(healed < WITHOUT_SERVICE_MAX, "healed: {healed:?} without service");
        assert!(fate == Fate::Deposed || *terms <= TERMS_MAX, "who is cut off disturbs: {terms} terms");
    }
}

/// Connections that stay, to ask each node how it stands.
struct Eyes {
    client: ClientConfiguration,
    runtime: Runtime,
    open: BTreeMap<NodeId, NodeClient>,
}

impl Eyes {
    fn new(client: ClientConfiguration) -> Eyes {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime can be made");
        Eyes { client, runtime, open: BTreeMap::new() }
    }

    fn status(&mut self, node: NodeId) -> Option<NodeStatus> {
        let Eyes { client, runtime, open } = self;
        runtime.block_on(async {
            if let Some(connection) = open.get_mut(&node)
                && let Ok(status) = connection.status().await
            {
                return Some(status);
            }
            // None yet, or it lay idle for too long.
            open.remove(&node);
            let mut connection = connect(client, node, LOOK).await?;
            let status = connection.status().await.ok();
            open.insert(node, connection);
            status
        })
    }

    /// Who leads, in the highest term of those who say so.
    fn leader(&mut self) -> NodeStatus {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            let nodes: Vec<NodeId> = self.client.nodes.iter().map(|node| node.id).collect();
            let statuses = nodes.into_iter().filter_map(|node| self.status(node));
            let leaders = statuses.filter(|status| status.role == NodeRole::Leader);
            if let Some(leader) = leaders.max_by_key(|status| status.term) {
                return leader;
            }
            std::thread::sleep(POLL);
        }
        panic!("no leader within {PATIENCE:?}");
    }

    fn await_status(&mut self, node: NodeId, what: &str, is_so: impl Fn(&NodeStatus) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = self.status(node);
            if status.as_ref().is_some_and(&is_so) {
                return;
            }
            assert!(Instant::now() < deadline, "node {node}: not so within {PATIENCE:?}: {what}; {status:?}");
            std::thread::sleep(POLL);
        }
    }
}

/// The longest time between `from` and `to` in which nothing was acknowledged to anybody.
fn without_service(journals: &[Journal], from: Instant, to: Instant) -> Duration {
    let told = journals.iter().flat_map(|journal| &journal.records).filter_map(|given| match given.told {
        Told::At(_, end) => Some(end),
        _ => None,
    });
    let mut ends: Vec<Instant> = told.filter(|end| (from..to).contains(end)).chain([from, to]).collect();
    ends.sort_unstable();
    ends.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
}
