//! What is said to who asks for a snapshot of this node, each chunk verified.

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::disk::Files;
use crate::net::{SnapshotAnswer, SnapshotRefusal, SnapshotRequest};
use crate::snapshot::{self, Manifest, Reader};
use crate::types::{ClusterId, GroupId, LogId};

/// Snapshots that are open at once: those of the two nodes, and of the administrator, that are served.
const OPEN_MAX: usize = 3;
/// Bad chunks that are told of, each once.
const TOLD_MAX: usize = 1024;

/// Snapshots that are read. What is removed meanwhile keeps its room as long as it is open, and is given to all who want it
/// until then.
#[derive(Debug)]
pub struct Shelf<F> {
    files: F,
    cluster: ClusterId,
    /// The one that was asked for last is the last.
    open: Vec<Reader>,
    /// The points of those of them that the last [sweep](Shelf::sweep) found removed.
    removed: BTreeSet<(GroupId, LogId)>,
    /// Bad chunks of which the operator knows.
    told: BTreeSet<(GroupId, LogId, u32)>,
}

/// What was wrong on this node's disk.
#[derive(Debug)]
pub enum Finding {
    /// This chunk is not what was written, or the disk does not give it. Told anew each time it is asked for: what could not
    /// be mended then may be now.
    BadChunk { manifest: Box<Manifest>, number: u32, error: snapshot::Error, is_news: bool },
    /// What is wanted does not open.
    DoesNotOpen { point: LogId, error: snapshot::Error },
}

impl<F: Files> Shelf<F> {
    pub fn new(files: F, cluster: ClusterId) -> Shelf<F> {
        Shelf { files, cluster, open: Vec::new(), removed: BTreeSet::new(), told: BTreeSet::new() }
    }

    /// The answer to a question, and what is to be told to the operator and to whoever mends.
    pub fn answer(&mut self, request: SnapshotRequest) -> (SnapshotAnswer, Option<Finding>) {
        const NOT_HERE: SnapshotAnswer = SnapshotAnswer::Refused(SnapshotRefusal::NotHere);
        let (group, point) = request.snapshot();
        let is_new = matches!(request, SnapshotRequest::Manifest { .. });
        match self.find(group, point, is_new) {
            Ok(true) => {}
            Ok(false) => return (NOT_HERE, None),
            Err(error) => return (NOT_HERE, Some(Finding::DoesNotOpen { point, error })),
        }
        let reader = self.open.last_mut().expect("what was found is the last");
        match request {
            SnapshotRequest::Manifest { .. } => {
                (SnapshotAnswer::Manifest(Bytes::from(reader.manifest().encode())), None)
            }
            SnapshotRequest::Chunk { number, .. } if number >= reader.manifest().chunks() => (NOT_HERE, None),
            SnapshotRequest::Chunk { number, .. } => match reader.chunk(&self.files, number) {
                Ok(chunk) => (SnapshotAnswer::Chunk { number, bytes: Bytes::copy_from_slice(chunk) }, None),
                Err(error) => {
                    let finding = self.bad_chunk(number, error);
                    (SnapshotAnswer::Refused(SnapshotRefusal::Damaged { number }), Some(finding))
                }
            },
        }
    }

    /// Of the snapshot that was asked for last; 0 if none is here.
    pub fn state_bytes(&self) -> u64 {
        self.open.last().map_or(0, |reader| reader.manifest().bytes)
    }

    /// Nothing is held open any more: what is removed then gives its room back.
    pub fn close(&mut self) {
        for reader in self.open.drain(..) {
            reader.close(&self.files);
        }
        self.removed.clear();
    }

    /// Closes what was removed and was found so by the last sweep, too: who is slow does not keep its room for good.
    ///
    /// # Errors
    /// If the directory cannot be listed: then all that is open stays so.
    pub fn sweep(&mut self) -> Result<(), snapshot::Error> {
        if self.open.is_empty() {
            return Ok(());
        }
        let names = self.files.list("")?;
        let before = std::mem::take(&mut self.removed);
        for reader in std::mem::take(&mut self.open) {
            let of = &reader.manifest().description;
            let key = (of.group, of.point);
            if names.contains(&of.name()) {
                self.open.push(reader);
            } else if before.contains(&key) {
                reader.close(&self.files);
            } else {
                self.removed.insert(key);
                self.open.push(reader);
            }
        }
        Ok(())
    }

    /// Makes a snapshot the last one of those that are open, if it is here. One that is asked for anew is looked for anew; if
    /// it has gone meanwhile, what is open is as good, and somebody may be in the midst of it.
    fn find(&mut self, group: GroupId, point: LogId, is_new: bool) -> Result<bool, snapshot::Error> {
        let is_it = |manifest: &Manifest| (manifest.description.group, manifest.description.point) == (group, point);
        let is_open = |shelf: &Self| shelf.open.iter().position(|reader| is_it(reader.manifest()));
        if is_new {
            if let Some(newer) = self.open_anew(group, point)? {
                let older = is_open(self).map(|place| self.open.remove(place));
                older.into_iter().for_each(|older| older.close(&self.files));
                self.open.push(newer);
            }
        } else if is_open(self).is_none() {
            self.open.extend(self.open_anew(group, point)?);
        }
        let Some(place) = is_open(self) else { return Ok(false) };
        let found = self.open.remove(place);
        self.open.push(found);
        if self.open.len() > OPEN_MAX {
            self.open.remove(0).close(&self.files);
        }
        Ok(true)
    }

    fn open_anew(&self, group: GroupId, point: LogId) -> Result<Option<Reader>, snapshot::Error> {
        let listing = snapshot::list(&self.files, Some(self.cluster))?;
        let found = listing.whole(group).find(|manifest| manifest.description.point == point).cloned();
        found.map(|manifest| Reader::open(&self.files, manifest)).transpose()
    }

    /// A chunk of the last one is bad.
    fn bad_chunk(&mut self, number: u32, error: snapshot::Error) -> Finding {
        let manifest = Box::new(self.open.last().expect("it was read just now").manifest().clone());
        let of = &manifest.description;
        let is_news = self.told.len() < TOLD_MAX && self.told.insert((of.group, of.point, number));
        Finding::BadChunk { manifest, number, error, is_news }
    }
}

#[cfg(test)]
mod tests;
