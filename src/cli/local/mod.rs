//! A cluster on this machine, of child processes: what `dev`, `demo`, benches and tests stand on.
//!
//! ```text
//!   DIR/ca.pem ca.key            the cluster's authority
//!   DIR/client.toml admin.toml   what clients need, with their certificates beside them
//!   DIR/node-1.toml node-1.pem node-1.key node-1/     one set for each node
//! ```
//!
//! Everything is made once; later starts find it and use it, ports included. Processes are stopped by their id, also
//! when the value is dropped.

mod files;
mod process;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Failure;
use super::configuration::ClientConfiguration;
use crate::types::{Member, NodeId};

pub use files::LocalOptions;
pub use process::Child;

/// A cluster whose files lie in one directory.
#[derive(Debug)]
pub struct LocalCluster {
    directory: PathBuf,
    program: PathBuf,
    nodes: Vec<LocalNode>,
    /// Passed to each node as `--io`.
    io: Option<String>,
}

#[derive(Debug)]
struct LocalNode {
    id: NodeId,
    child: Option<Child>,
}

impl LocalCluster {
    /// The cluster in `directory`: made if it is not there. `program` is what runs as `PROGRAM node --config F`.
    pub fn prepare(directory: &Path, program: &Path, options: &LocalOptions) -> Result<LocalCluster, Failure> {
        LocalCluster::made(directory, program, options, None)
    }

    /// The same with nodes that listen at these addresses, for those who lay a network of their own between them.
    pub fn prepare_at(
        directory: &Path,
        program: &Path,
        options: &LocalOptions,
        addresses: &[SocketAddr],
    ) -> Result<LocalCluster, Failure> {
        assert_eq!(addresses.len() as u64, options.nodes, "an address for each node");
        LocalCluster::made(directory, program, options, Some(addresses))
    }

    fn made(
        directory: &Path,
        program: &Path,
        options: &LocalOptions,
        addresses: Option<&[SocketAddr]>,
    ) -> Result<LocalCluster, Failure> {
        let count = files::make(directory, options, addresses)?;
        let nodes = (1..=count).map(|id| LocalNode { id: NodeId(id), child: None }).collect();
        Ok(LocalCluster { directory: directory.to_owned(), program: program.to_owned(), nodes, io: options.io.clone() })
    }

    pub fn nodes(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.nodes.iter().map(|node| node.id)
    }

    pub fn client_file(&self) -> PathBuf {
        self.directory.join("client.toml")
    }

    /// What clients need to know.
    pub fn client(&self) -> Result<ClientConfiguration, Failure> {
        Ok(ClientConfiguration::load(&self.client_file())?)
    }

    pub fn data_directory(&self, id: NodeId) -> PathBuf {
        self.directory.join(format!("node-{id}"))
    }

    pub fn configuration_file(&self, id: NodeId) -> PathBuf {
        self.directory.join(format!("node-{id}.toml"))
    }

    /// Sets a number in every node's configuration, for the starts from now on.
    pub fn configure(&self, key: &str, value: u64) -> Result<(), Failure> {
        self.nodes.iter().try_for_each(|node| files::set(&self.configuration_file(node.id), key, value))
    }

    /// Makes the files of a node that is to join, and gives what to add it as. Not remembered for another value of
    /// this type on the same directory.
    pub fn prepare_later(&mut self, id: NodeId, segment_bytes: u64) -> Result<Member, Failure> {
        let member = files::make_later(&self.directory, id, segment_bytes)?;
        if self.nodes.iter().all(|node| node.id != id) {
            self.nodes.push(LocalNode { id, child: None });
        }
        Ok(member)
    }

    pub fn admin_file(&self) -> PathBuf {
        self.directory.join("admin.toml")
    }

    /// Starts a node that does not run, and waits until it serves.
    pub fn start(&mut self, id: NodeId, patience: Duration) -> Result<(), Failure> {
        let configuration = self.configuration_file(id);
        let log = self.directory.join(format!("node-{id}.log"));
        let (program, io) = (self.program.clone(), self.io.clone());
        let node = self.node(id);
        assert!(node.child.is_none(), "node {id} runs already");
        let child = Child::start(&program, &configuration, io.as_deref(), &log, patience)?;
        self.node(id).child = Some(child);
        Ok(())
    }

    pub fn start_all(&mut self, patience: Duration) -> Result<(), Failure> {
        for id in self.nodes().collect::<Vec<_>>() {
            self.start(id, patience)?;
        }
        Ok(())
    }

    /// The process of a node that was started.
    pub fn child(&mut self, id: NodeId) -> Option<&mut Child> {
        self.node(id).child.as_mut()
    }

    /// Ends a node at once, without warning (SIGKILL), and waits until it is gone.
    pub fn kill(&mut self, id: NodeId) -> Result<(), Failure> {
        match self.node(id).child.take() {
            Some(child) => child.kill(),
            None => Ok(()),
        }
    }

    /// Ends all nodes at the same moment, without warning.
    pub fn kill_all(&mut self) -> Result<(), Failure> {
        for node in &mut self.nodes {
            if let Some(child) = &mut node.child {
                child.signal_kill()?;
            }
        }
        self.nodes().collect::<Vec<_>>().into_iter().try_for_each(|id| self.kill(id))
    }

    /// Asks all nodes to end (SIGTERM), and waits for each, also when another one fails; gives the first failure.
    pub fn stop_all(&mut self, patience: Duration) -> Result<(), Failure> {
        let mut stopped = Ok(());
        for child in self.nodes.iter_mut().filter_map(|node| node.child.as_mut()) {
            stopped = stopped.and(child.signal_stop());
        }
        for child in self.nodes.iter_mut().filter_map(|node| node.child.take()) {
            stopped = stopped.and(child.wait_stopped(patience));
        }
        stopped
    }

    fn node(&mut self, id: NodeId) -> &mut LocalNode {
        self.nodes.iter_mut().find(|node| node.id == id).expect("the caller takes ids from nodes()")
    }
}
