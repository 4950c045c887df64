//! The two threads by which nodes have each other's snapshots: one serves, one fetches, and what the one finds rotten the
//! other mends.

use super::fetching::{FetchOptions, Fetched, Fetching};
use super::serving::Serving;
use crate::disk::{self, Directory};
use crate::machine::StateMachine;
use crate::net::Endpoint;
use crate::types::ClusterId;

/// Dropped, it ends both threads, and waits for them.
#[derive(Debug)]
pub(super) struct Exchange<M> {
    _serving: Serving,
    _fetching: Fetching<M>,
}

impl<M: StateMachine + Send + 'static> Exchange<M> {
    /// `told` is called on the thread that fetches, with what came of each order.
    pub fn start(
        files: &Directory,
        endpoint: &Endpoint,
        cluster: ClusterId,
        told: impl FnMut(Fetched<M>) + Send + 'static,
    ) -> Result<Exchange<M>, disk::Error> {
        let fetching = Fetching::start(files.clone(), endpoint.peers(), FetchOptions::new(cluster), told)?;
        let mender = fetching.mender();
        let rotten = move |manifest: &_, number| mender.is_rotten(manifest, number);
        let serving = Serving::start(files.clone(), endpoint.peers(), cluster, rotten)?;
        Ok(Exchange { _serving: serving, _fetching: fetching })
    }
}
