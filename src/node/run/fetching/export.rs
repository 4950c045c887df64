//! Fetching by a program that is no node: a backup.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::{Mutex, Notify};

use super::session::Session;
use super::way::Way;
use super::{Control, FetchError, FetchOptions, Progress};
use crate::disk::Directory;
use crate::net::Identity;
use crate::node::transfer::Sources;
use crate::snapshot::{Manifest, Receiver};
use crate::types::{GroupId, LogId, NodeId};

/// Brings snapshots into a directory of which nobody else knows, by an administrator's certificate.
#[derive(Debug)]
pub struct Export<'a> {
    files: &'a Directory,
    identity: &'a Identity,
    options: FetchOptions,
    control: Control,
    /// What has come and is not all: it is not read anew each time.
    kept: Mutex<Option<Receiver>>,
}

impl<'a> Export<'a> {
    pub fn new(files: &'a Directory, identity: &'a Identity, options: FetchOptions) -> Export<'a> {
        let control = Control::new(Arc::new(Notify::new()));
        Export { files, identity, options, control, kept: Mutex::default() }
    }

    /// The snapshot at this point, whole and durable, from one of these nodes, the first one first. What has come of it
    /// before is gone on with, and what has come of another one is removed.
    ///
    /// # Errors
    /// As a node is told; what has come stays.
    pub async fn bring(
        &self,
        group: GroupId,
        point: LogId,
        nodes: &[(NodeId, SocketAddr)],
    ) -> Result<Manifest, FetchError> {
        let addresses: BTreeMap<NodeId, SocketAddr> = nodes.iter().copied().collect();
        let way = Way::Administrator { identity: self.identity, addresses: &addresses };
        let mut sources = Sources::new(nodes.iter().map(|(node, _)| *node));
        let generation = self.control.generation.load(Ordering::Acquire);
        let mut kept = self.kept.lock().await;
        let mut session = Session::new(self.files, way, self.options, &self.control, generation);
        session.bring(group, point, &mut sources, &mut kept).await
    }

    /// How far the last one is.
    pub fn progress(&self) -> Option<Progress> {
        *self.control.progress()
    }

    /// Chunks that came over the network, those that were of no use among them.
    pub fn chunks_received(&self) -> u64 {
        self.control.chunks_received.load(Ordering::Relaxed)
    }
}

impl Drop for Export<'_> {
    fn drop(&mut self) {
        self.kept.get_mut().take().into_iter().for_each(|receiver| receiver.put_down(self.files));
    }
}
