//! The two threads by which nodes have each other's snapshots: one serves, one fetches, and what the one finds rotten the
//! other mends.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};

use tokio::sync::Notify;

use super::fetching::{FetchOptions, Fetched, Fetching, Order};
use super::serving::Serving;
use crate::disk::{self, Directory};
use crate::machine::StateMachine;
use crate::net::Endpoint;
use crate::types::ClusterId;

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
        cluster: ClusterId,
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
        let fetching = Fetching::start(files.clone(), endpoint.peers(), FetchOptions::new(cluster), told)?;
        let mender = fetching.mender();
        let rotten = move |manifest: &_, number| mender.is_rotten(manifest, number);
        let serving = Serving::start(files.clone(), endpoint.peers(), cluster, rotten)?;
        Ok(Exchange { _serving: serving, fetching, fetched })
    }

    pub fn order(&self, order: Order<M>) {
        self.fetching.order(order);
    }

    /// What came of an order.
    pub fn take(&self) -> Option<Fetched<M>> {
        self.fetched.try_recv().ok()
    }
}
