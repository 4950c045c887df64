//! The two threads by which nodes have each other's snapshots: one serves, one fetches, and what the one finds rotten the
//! other mends.

use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;

use super::fetching::{FetchError, FetchOptions, Fetched, Fetching, Order, Progress, Told};
use super::serving::Serving;
use crate::disk::{self, Directory};
use crate::machine::StateMachine;
use crate::net::{Endpoint, Peers};
use crate::node::driver::{Driver, Input, NotFetched, SnapshotFinding};
use crate::types::{GroupId, LogId, NodeId, Term};

/// Dropped, it ends both threads, and waits for them.
#[derive(Debug)]
pub(super) struct Exchange<M> {
    /// Ended first: what it finds rotten is told to the other.
    _serving: Serving,
    fetching: Fetching<M>,
    told: Receiver<Told<M>>,
    /// They know who asks for which of this node's snapshots.
    peers: Peers,
}

impl<M: StateMachine + Send + 'static> Exchange<M> {
    /// `woken` is notified when something was fetched, or cannot be, and when a member wants to know of a snapshot.
    pub fn start(
        files: &Directory,
        endpoint: &Endpoint,
        options: FetchOptions,
        woken: &Arc<Notify>,
    ) -> Result<Exchange<M>, disk::Error> {
        let (sender, received) = channel();
        let peers = endpoint.peers();
        peers.wake_when_snapshots_are_asked_for(woken.clone());
        let woken = woken.clone();
        let told = move |said| {
            // Whoever has gone needs it no more.
            if sender.send(said).is_ok() {
                woken.notify_one();
            }
        };
        let fetching = Fetching::start(files.clone(), peers.clone(), options, told)?;
        let mender = fetching.mender();
        let rotten = move |manifest: &_, number| mender.is_rotten(manifest, number);
        let serving = Serving::start(files.clone(), peers.clone(), options.cluster, rotten)?;
        Ok(Exchange { _serving: serving, fetching, told: received, peers })
    }

    /// Orders a snapshot, from whoever offers it, or any other member that has the same.
    pub fn fetch(&self, driver: &Driver<M>, (from, term): (NodeId, Term), point: LogId) {
        let members = driver.replica().correspondents();
        let others = members.iter().map(|member| member.id).filter(|id| *id != from).collect();
        let restoring = driver.restoring().expect("what the state machine does not take is not ordered");
        self.fetching.order(Order { group: GroupId::CLUSTER, point, from, term, others, restoring });
    }

    /// Tells the driver what came of its order, what was mended, and what others fetch.
    pub fn gather(&self, driver: &mut Driver<M>) {
        for (node, point) in self.peers.take_snapshots_asked_for() {
            driver.handle(Input::SnapshotAsked { node, point });
        }
        while let Ok(told) = self.told.try_recv() {
            match told {
                Told::Fetched(fetched) => {
                    let Fetched { point, result, .. } = *fetched;
                    let why = |error: FetchError| NotFetched {
                        what: format!("{error}; {}", error.next_step()),
                        goes_on: error.goes_on(),
                    };
                    driver.fetched(point, result.map_err(why));
                }
                Told::Mended { point } => driver.mended(point),
            }
        }
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
}
