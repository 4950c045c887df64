//! Finds the leader: asks all nodes, the likely ones first, until one says that it leads. Or finds a node that passes on
//! what is given to it: the first one that knows a leader.
//!
//! ```text
//!   likely leader ──▶ probe: connect, status ──▶ leads? ──▶ found, with its connection
//!   next node     ──▶ probe (a little later)         └──▶ names another: a probe for that one, at once
//! ```
//!
//! A node that cannot be reached holds nobody up: each has a probe of its own, which asks again after a pause.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::core::jittered;
use super::directory::Directory;
use super::error::Error;
use super::node::NodeClient;
use crate::limits::MEMBERS_MAX;
use crate::net::{ClientConnection, Identity, NodeRole, NodeStatus, Responses};
use crate::random::Random;
use crate::types::Term;

/// How much later than the one before it a probe starts: most searches end with the first.
const STAGGER: Duration = Duration::from_millis(30);
/// A node that does not say within this what it is does not lead well.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
/// Nodes asked in one search: those known, and those that they name.
const PROBES_MAX: usize = 4 * MEMBERS_MAX;

/// What kind of node is looked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Wanted {
    Leader,
    /// One that can pass on what is written.
    AnyThatKnowsLeader,
}

impl Wanted {
    /// Whether a node that says this of itself is one.
    pub fn fits(self, status: &NodeStatus) -> bool {
        let is_enough = self == Wanted::AnyThatKnowsLeader && status.leader.is_some();
        status.role == NodeRole::Leader || is_enough
    }
}

/// A node that serves.
#[derive(Debug)]
pub(super) struct Found {
    pub connection: ClientConnection,
    pub responses: Responses,
    pub term: Term,
}

#[derive(Debug)]
pub(super) struct Search {
    probes: JoinSet<()>,
    asked: BTreeMap<SocketAddr, Option<Error>>,
    findings: mpsc::Receiver<Finding>,
    sender: mpsc::Sender<Finding>,
    identity: Arc<Identity>,
    directory: Directory,
    wanted: Wanted,
    /// Only a node in a later term counts.
    above: Option<Term>,
    random: Random,
}

#[derive(Debug)]
enum Finding {
    Serves(NodeClient, Box<NodeStatus>),
    /// It does not serve, and says who does, and who belongs to the cluster: this client may know none of those.
    Follows {
        address: SocketAddr,
        leader: Option<SocketAddr>,
        members: Vec<SocketAddr>,
    },
    Failed(SocketAddr, Error),
}

impl Search {
    /// Starts to look; `hint` is where a leader was said to be, and at `except` nobody is asked.
    pub fn start(
        identity: Arc<Identity>,
        directory: Directory,
        wanted: Wanted,
        hint: Option<SocketAddr>,
        (above, except): (Option<Term>, Option<SocketAddr>),
        random: Random,
    ) -> Search {
        let (sender, findings) = mpsc::channel(PROBES_MAX);
        let (probes, asked) = (JoinSet::new(), except.into_iter().map(|address| (address, None)).collect());
        let addresses = directory.addresses(hint);
        let mut search = Search { probes, asked, findings, sender, identity, directory, wanted, above, random };
        for (address, place) in addresses.into_iter().zip(0..) {
            search.probe(address, STAGGER * place);
        }
        search
    }

    /// The node; or, each time when every node has refused this client for good, why. Loses nothing if cancelled.
    pub async fn next(&mut self) -> Result<Found, Error> {
        loop {
            let finding = self.findings.recv().await.expect("this search holds a sender");
            match finding {
                Finding::Serves(node, status) => {
                    self.directory.learn(&status, node.address());
                    self.directory.prefer(node.address());
                    let (connection, responses) = node.into_parts();
                    return Ok(Found { connection, responses, term: status.term });
                }
                Finding::Follows { address, leader, members } => {
                    self.asked.insert(address, None);
                    leader.into_iter().for_each(|leader| self.probe(leader, Duration::ZERO));
                    members.into_iter().for_each(|member| self.probe(member, STAGGER));
                }
                Finding::Failed(address, error) => {
                    self.asked.insert(address, Some(error.clone()));
                    if self.is_hopeless() {
                        return Err(error);
                    }
                }
            }
        }
    }

    /// What is known of nodes that cannot be reached, in words.
    pub fn reason(&self) -> Option<String> {
        self.asked.values().flatten().next().map(|error| match error {
            Error::Unavailable { reason } => reason.clone(),
            other => other.to_string(),
        })
    }

    fn is_hopeless(&self) -> bool {
        self.asked.values().all(|error| matches!(error, Some(Error::NotTrusted(_))))
    }

    fn probe(&mut self, address: SocketAddr, delay: Duration) {
        if self.asked.contains_key(&address) || self.asked.len() >= PROBES_MAX {
            return;
        }
        self.asked.insert(address, None);
        let probe = Probe {
            identity: self.identity.clone(),
            address,
            wanted: self.wanted,
            above: self.above,
            random: self.random.fork(),
            findings: self.sender.clone(),
        };
        self.probes.spawn(async move {
            tokio::time::sleep(delay).await;
            probe.run().await;
        });
    }
}

struct Probe {
    identity: Arc<Identity>,
    address: SocketAddr,
    wanted: Wanted,
    above: Option<Term>,
    random: Random,
    findings: mpsc::Sender<Finding>,
}

impl Probe {
    /// Asks until the node serves or the search has ended.
    async fn run(mut self) {
        let mut attempts = 0;
        loop {
            let finding = match NodeClient::connect(&self.identity, self.address, PROBE_TIMEOUT).await {
                Ok(node) => self.ask(node, &mut attempts).await,
                Err(error) => Finding::Failed(self.address, error),
            };
            let is_end = matches!(finding, Finding::Serves(..));
            if self.findings.send(finding).await.is_err() || is_end {
                return;
            }
            self.pause(&mut attempts).await;
        }
    }

    /// Asks one connection until it breaks or its node serves.
    async fn ask(&mut self, mut node: NodeClient, attempts: &mut u32) -> Finding {
        loop {
            let status = match node.status().await {
                Ok(status) => status,
                Err(error) => return Finding::Failed(self.address, error),
            };
            if self.wanted.fits(&status) && self.above.is_none_or(|above| status.term > above) {
                return Finding::Serves(node, Box::new(status));
            }
            let leader = status.leader.filter(|(id, _)| *id != status.id).map(|(_, address)| address);
            let members = status.membership.members.iter().map(|member| member.address).collect();
            let follows = |members| Finding::Follows { address: self.address, leader, members };
            if self.findings.send(follows(members)).await.is_err() {
                return follows(Vec::new());
            }
            self.pause(attempts).await;
        }
    }

    async fn pause(&mut self, attempts: &mut u32) {
        tokio::time::sleep(jittered(*attempts, &mut self.random)).await;
        *attempts += 1;
    }
}
