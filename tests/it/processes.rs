//! What the tests over real processes share.
//!
//! ```text
//!   feeder ──stdin──▶ `trilith log append -` ──QUIC──▶ nodes (processes, killed and started again)
//!      ▲                      │ stdout                        │ stale reads, node by node
//!      └──── counts ◀──── journal (a file) ──────────▶ check ◀┘
//! ```
//!
//! The journal is written by a process that is no part of the cluster and outlives it. Everything that is started is
//! ended by its id when its value is dropped, also after a panic.

pub mod check;
pub mod load;
pub mod logs;
pub mod order;
mod share;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use trilith::cli::configuration::ClientConfiguration;
use trilith::cli::local::{LocalCluster, LocalOptions};
use trilith::client::NodeClient;
use trilith::net::{Identity, NodeRole, NodeStatus};
use trilith::types::NodeId;

pub use share::{alone, beside_few, beside_one};

/// How long a step may take before the test gives up.
pub const PATIENCE: Duration = Duration::from_secs(60);
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_trilith");
/// Small enough that a run goes through several.
pub const SEGMENT_BYTES: u64 = 16 << 20;
/// What one question to a running node may take.
const ANSWER: Duration = Duration::from_secs(2);

/// A cluster of processes in a directory of its own.
pub struct Trial {
    // Dropped in this order: processes first.
    pub cluster: LocalCluster,
    pub home: TempDir,
}

impl Trial {
    /// Made, not started.
    pub fn prepare(nodes: u64, io: Option<&str>) -> Trial {
        let home = tempfile::tempdir().expect("a directory can be made");
        let options = LocalOptions { nodes, segment_bytes: SEGMENT_BYTES, io: io.map(str::to_owned) };
        let cluster = LocalCluster::prepare(&home.path().join("cluster"), Path::new(PROGRAM), &options);
        Trial { cluster: cluster.unwrap_or_else(|failure| panic!("{failure}")), home }
    }

    pub fn start(nodes: u64, io: Option<&str>) -> Trial {
        let mut trial = Trial::prepare(nodes, io);
        trial.start_all();
        trial
    }

    pub fn start_all(&mut self) {
        self.cluster.start_all(PATIENCE).unwrap_or_else(|failure| panic!("{failure}"));
    }

    pub fn start_node(&mut self, node: NodeId) {
        let started = self.cluster.start(node, PATIENCE);
        started.unwrap_or_else(|failure| panic!("node {node}: {failure}\n{}", self.log(node)));
    }

    pub fn kill(&mut self, node: NodeId) {
        self.cluster.kill(node).unwrap_or_else(|failure| panic!("{failure}"));
    }

    /// The exit code of a node, as soon as it has ended.
    pub fn ended(&mut self, node: NodeId) -> i32 {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.cluster.child(node).expect("it was started").ended() {
                return status.code().expect("it was not killed");
            }
            assert!(Instant::now() < deadline, "it goes on: {}", self.log(node));
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// What a node has logged.
    pub fn log(&self, node: NodeId) -> String {
        std::fs::read_to_string(self.home.path().join(format!("cluster/node-{node}.log"))).unwrap_or_default()
    }

    /// The node that leads, as soon as one says so.
    pub fn leader(&self) -> NodeId {
        self.leader_besides(None)
    }

    /// The same where one node need not be asked.
    pub fn leader_besides(&self, dead: Option<NodeId>) -> NodeId {
        let client = self.cluster.client().unwrap_or_else(|failure| panic!("{failure}"));
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            let alive = client.nodes.iter().filter(|node| Some(node.id) != dead);
            let statuses = alive.filter_map(|node| status(&client, node.id));
            let leads = statuses.filter(|status| status.role == NodeRole::Leader).max_by_key(|status| status.term);
            if let Some(leader) = leads {
                return leader.id;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("no leader within {PATIENCE:?}");
    }
}

/// What a node says of itself, if it answers.
pub fn status(client: &ClientConfiguration, node: NodeId) -> Option<NodeStatus> {
    block_on(async { connect(client, node, ANSWER).await?.status().await.ok() })
}

pub async fn connect(client: &ClientConfiguration, node: NodeId, timeout: Duration) -> Option<NodeClient> {
    let identity = Identity::load(&client.certificate, &client.key, &client.ca, None).expect("the files are there");
    let address = client.nodes.iter().find(|known| known.id == node)?.address;
    NodeClient::connect(&identity, address, timeout).await.ok()
}

/// What a command that asks a cluster ends with.
pub fn trilith(client: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(PROGRAM);
    command.args(arguments).arg("--client").arg(client).args(["--timeout", "20"]).stdin(Stdio::null());
    command.output().expect("the binary runs")
}

pub fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime can be made");
    runtime.block_on(work)
}

/// Says that a test cannot run here, on standard error and where `TRILITH_SKIPS_FILE` says.
/// Without needs, nothing that can be looked up decides it.
pub fn skip(name: &str, reason: &str, needs: &str) {
    let needs = if needs.is_empty() { String::new() } else { format!(" (needs {needs})") };
    let line = format!("SKIPPED {name}: {reason}{needs}\n");
    // Not by a macro: what goes through those is shown of tests that fail alone.
    std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes()).expect("standard error takes a line");
    if let Some(file) = std::env::var_os("TRILITH_SKIPS_FILE").map(PathBuf::from) {
        let mut file = std::fs::File::options().append(true).create(true).open(file).expect("the file of skips");
        std::io::Write::write_all(&mut file, line.as_bytes()).expect("the file of skips can be written");
    }
}

/// The middle, the 99th percentile and the largest.
pub fn spread(times: &[Duration]) -> String {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    let at = |percent: usize| sorted.get((sorted.len() * percent / 100).min(sorted.len().saturating_sub(1)));
    format!("p50 {:.1?}, p99 {:.1?}, max {:.1?}", at(50), at(99), sorted.last()).replace("Some(", "").replace(')', "")
}
