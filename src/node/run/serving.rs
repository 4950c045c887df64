//! The thread that reads snapshots for the nodes that fetch them, each chunk verified.
//!
//! A chunk that is not what was written, or that the disk does not give, is refused, so that whoever wants it asks another
//! node; it is told to the operator, and to whoever mends it. One thread for all, and one question at a time of each node that
//! is served: a few chunks are in memory, however many are wanted.

use std::collections::BTreeSet;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;

use crate::disk::{self, Directory, Files};
use crate::net::{Peers, SnapshotAnswer, SnapshotQuestion, SnapshotRefusal, SnapshotRequest};
use crate::snapshot::{self, Manifest, Reader};
use crate::types::{ClusterId, GroupId, LogId};

/// Snapshots that are open at once: those of the two nodes, and of the administrator, that are served.
const OPEN_MAX: usize = 3;
/// After so long without a question nothing is held open: what is removed then gives its room back.
const QUIET: Duration = Duration::from_secs(5);
/// Bad chunks that are told of, each once.
const TOLD_MAX: usize = 1024;

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
        let (asked, questions) = channel();
        let shelf = Shelf { files, cluster, open: Vec::new(), told: BTreeSet::new(), rotten };
        let spawned = std::thread::Builder::new().name("serve snapshots".to_owned());
        let spawned = spawned.spawn(move || serve(shelf, &questions));
        let thread = spawned.map_err(|error| disk::Error::new(disk::Operation::SetUp, "serve snapshots", error))?;
        peers.answer_snapshots(Some(asked));
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

fn serve<F: Files, R: FnMut(&Manifest, u32)>(mut shelf: Shelf<F, R>, questions: &Receiver<SnapshotQuestion>) {
    loop {
        match questions.recv_timeout(QUIET) {
            Ok(question) if question.is_moot() => {}
            Ok(question) => {
                let answer = shelf.answer(question.request);
                question.answer(answer);
            }
            Err(RecvTimeoutError::Timeout) => shelf.close(),
            Err(RecvTimeoutError::Disconnected) => return shelf.close(),
        }
    }
}

/// Snapshots that are read.
struct Shelf<F, R> {
    files: F,
    cluster: ClusterId,
    /// The one that was asked for last is the last.
    open: Vec<Reader>,
    /// Bad chunks of which the operator knows.
    told: BTreeSet<(GroupId, LogId, u32)>,
    rotten: R,
}

impl<F: Files, R: FnMut(&Manifest, u32)> Shelf<F, R> {
    fn answer(&mut self, request: SnapshotRequest) -> SnapshotAnswer {
        const NOT_HERE: SnapshotAnswer = SnapshotAnswer::Refused(SnapshotRefusal::NotHere);
        let (group, point) = request.snapshot();
        let is_new = matches!(request, SnapshotRequest::Manifest { .. });
        if !self.find(group, point, is_new) {
            return NOT_HERE;
        }
        let reader = self.open.last_mut().expect("what was found is the last");
        match request {
            SnapshotRequest::Manifest { .. } => SnapshotAnswer::Manifest(Bytes::from(reader.manifest().encode())),
            SnapshotRequest::Chunk { number, .. } if number >= reader.manifest().chunks() => NOT_HERE,
            SnapshotRequest::Chunk { number, .. } => match reader.chunk(&self.files, number) {
                Ok(chunk) => SnapshotAnswer::Chunk { number, bytes: Bytes::copy_from_slice(chunk) },
                Err(error) => {
                    self.note(number, &error);
                    SnapshotAnswer::Refused(SnapshotRefusal::Damaged { number })
                }
            },
        }
    }

    /// Makes a snapshot the last one of those that are open, if it is here. One that is asked for anew is looked for anew.
    fn find(&mut self, group: GroupId, point: LogId, is_new: bool) -> bool {
        let is_it = |manifest: &Manifest| (manifest.description.group, manifest.description.point) == (group, point);
        let found = self.open.iter().position(|reader| is_it(reader.manifest())).map(|place| self.open.remove(place));
        match found {
            Some(reader) if !is_new => {
                self.open.push(reader);
                return true;
            }
            Some(reader) => reader.close(&self.files),
            None => {}
        }
        let opened = snapshot::list(&self.files, Some(self.cluster)).and_then(|listing| {
            let manifest = listing.whole(group).find(|manifest| is_it(manifest)).cloned();
            manifest.map(|manifest| Reader::open(&self.files, manifest)).transpose()
        });
        match opened {
            Ok(Some(reader)) => {
                if self.open.len() == OPEN_MAX {
                    self.open.remove(0).close(&self.files);
                }
                self.open.push(reader);
                true
            }
            Ok(None) => false,
            Err(error) => {
                let next_step = error.next_step();
                tracing::error!(%point, next_step, "a snapshot that another node wants does not open: {error}");
                false
            }
        }
    }

    /// A chunk of the last one is bad.
    fn note(&mut self, number: u32, error: &snapshot::Error) {
        let manifest = self.open.last().expect("it was read just now").manifest().clone();
        let of = &manifest.description;
        if self.told.len() < TOLD_MAX && self.told.insert((of.group, of.point, number)) {
            tracing::error!(name = of.name(), number, "a chunk that another node wants cannot be used here: {error}");
        }
        // One that could not be mended then may be now.
        (self.rotten)(&manifest, number);
    }

    fn close(&mut self) {
        for reader in self.open.drain(..) {
            reader.close(&self.files);
        }
    }
}
