//! The thread that reads snapshots for the nodes that fetch them, each chunk verified.
//!
//! A chunk that is not what was written, or that the disk does not give, is refused, so that whoever wants it asks another
//! node; it is told to the operator, and to whoever mends it. One thread for all, and one question at a time of each node that
//! is served: a few chunks are in memory, however many are wanted.

use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::disk::{self, Directory};
use crate::net::{Peers, SnapshotQuestion};
use crate::node::transfer::{Finding, Shelf};
use crate::snapshot::Manifest;
use crate::types::ClusterId;

/// After so long without a question nothing is held open: what is removed then gives its room back.
const QUIET: Duration = Duration::from_secs(5);
/// What was removed and is still wanted is held open for at least so long, and at most twice as long: at the rate of a
/// default configuration the largest snapshot is sent in little more.
const SWEEP_INTERVAL: Duration = Duration::from_secs(30 * 60);

/// A handle on the thread. Dropped, it ends the thread and waits for it.
#[derive(Debug)]
pub(super) struct Serving {
    peers: Peers,
    thread: Option<JoinHandle<()>>,
}

impl Serving {
    /// Starts the thread, to which the endpoint's questions go from now on. `rotten` is called on it for each chunk that is
    /// found bad, once.
    pub fn start(
        files: Directory,
        peers: Peers,
        cluster: ClusterId,
        rotten: impl FnMut(&Manifest, u32) + Send + 'static,
    ) -> Result<Serving, disk::Error> {
        let (sender, questions) = channel();
        let shelf = Shelf::new(files, cluster);
        let spawned = std::thread::Builder::new().name("serve snapshots".to_owned());
        let spawned = spawned.spawn(move || serve(shelf, &questions, rotten));
        let thread = spawned.map_err(|error| disk::Error::new(disk::Operation::SetUp, "serve snapshots", error))?;
        peers.answer_snapshots(Some(sender));
        Ok(Serving { peers, thread: Some(thread) })
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.peers.answer_snapshots(None);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that serves snapshots panicked");
        }
    }
}

fn serve(mut shelf: Shelf<Directory>, questions: &Receiver<SnapshotQuestion>, mut rotten: impl FnMut(&Manifest, u32)) {
    let mut swept = Instant::now();
    loop {
        if swept.elapsed() >= SWEEP_INTERVAL {
            swept = Instant::now();
            shelf.sweep().unwrap_or_else(|error| tracing::error!("removed snapshots stay open: {error}"));
        }
        match questions.recv_timeout(QUIET) {
            Ok(question) if question.is_moot() => {}
            Ok(question) => {
                let (answer, finding) = shelf.answer(question.request);
                finding.into_iter().for_each(|finding| tell(&finding, &mut rotten));
                question.answer_of(answer, shelf.state_bytes());
            }
            Err(RecvTimeoutError::Timeout) => shelf.close(),
            Err(RecvTimeoutError::Disconnected) => return shelf.close(),
        }
    }
}

fn tell(finding: &Finding, rotten: &mut impl FnMut(&Manifest, u32)) {
    match finding {
        Finding::BadChunk { manifest, number, error, is_news } => {
            if *is_news {
                let name = manifest.description.name();
                tracing::error!(name, number, "a chunk that another node wants cannot be used here: {error}");
            }
            rotten(manifest, *number);
        }
        Finding::DoesNotOpen { point, error } => {
            let next_step = error.next_step();
            tracing::error!(%point, next_step, "a snapshot that another node wants does not open: {error}");
        }
    }
}
