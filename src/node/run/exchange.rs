//! The two threads by which nodes have each other's snapshots: one serves, one fetches, and what the one finds rotten the
//! other mends.

use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;

use super::fetching::{FetchOptions, Fetched, Fetching, Order, Progress};
use super::serving::Serving;
use crate::disk::{self, Directory};
use crate::machine::StateMachine;
use crate::net::Endpoint;
use crate::node::driver::SnapshotFinding;

/// Dropped, it ends both threads, and waits for them.
#[derive(Debug)]
pub(super) struct Exchange<M> {
    /// Ended first: what it finds rotten is told to the other.
    _serving: Serving,
    fetching: Fetching<M>,
    fetched: Receiver<Fetched<M>>,
}

impl<M: StateMachine + Send + 'static> Exchange<M> {
    /// `woken` is notified when something was fetched, or cannot be.
    pub fn start(
        files: &Directory,
        endpoint: &Endpoint,
        options: FetchOptions,
        woken: &Arc<Notify>,
    ) -> Result<Exchange<M>, disk::Error> {
        let (sender, fetched) = channel();
        let woken = woken.clone();
        let told = move |fetched| {
            // Whoever has gone needs it no more.
            if sender.send(fetched).is_ok() {
                woken.notify_one();
            }
        };
        let fetching = Fetching::start(files.clone(), endpoint.peers(), options, told)?;
        let mender = fetching.mender();
        let rotten = move |manifest: &_, number| mender.is_rotten(manifest, number);
        let serving = Serving::start(files.clone(), endpoint.peers(), options.cluster, rotten)?;
        Ok(Exchange { _serving: serving, fetching, fetched })
    }

    pub fn order(&self, order: Order<M>) {
        self.fetching.order(order);
    }

    pub fn cancel(&self) {
        self.fetching.cancel();
    }

    /// How far the fetch under way is.
    pub fn progress(&self) -> Option<Progress> {
        self.fetching.progress()
    }

    /// To be held by whoever else removes snapshots.
    pub fn names(&self) -> Arc<Mutex<()>> {
        self.fetching.names()
    }

    /// What the start found rotten is looked through, and mended.
    pub fn mend(&self, findings: &[SnapshotFinding]) {
        let mender = self.fetching.mender();
        findings.iter().filter_map(|finding| finding.rotten.as_ref()).for_each(|manifest| mender.is_suspect(manifest));
    }

    /// What came of an order.
    pub fn take(&self) -> Option<Fetched<M>> {
        self.fetched.try_recv().ok()
    }
}
