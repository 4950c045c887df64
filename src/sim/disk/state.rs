//! Everything a simulated disk is, behind the handles.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::rc::Rc;

use super::content::Content;
use super::tree::{NodeId, Tree};
use super::{Act, Code, Event, Failure, Loose, What};
use crate::checksum::Checksum;
use crate::disk::{Buffer, Completion, Error, FileId, Operation, Token};

/// Free by default, so that nothing is full unless a test wants it.
pub(super) const CAPACITY_BYTES_DEFAULT: u64 = 1 << 40;

pub(super) type Observer = Box<dyn FnMut(&Event<'_>)>;
pub(super) type Strikes = Box<dyn FnMut(&Event<'_>) -> bool>;

pub(super) struct State {
    pub tree: Tree,
    /// Shared with forks until they change.
    pub contents: BTreeMap<NodeId, Rc<Content>>,
    /// What the process has open.
    pub open: BTreeMap<FileId, Open>,
    pub next_file: u64,
    /// Submitted and not completed, oldest first, over all queues.
    pub pending: Vec<Pending>,
    pub queues: Vec<QueueState>,
    /// Grows when the process ends: handles of an older one are dead.
    pub epoch: u64,
    /// Bytes that all files together may have.
    pub capacity_bytes: u64,
    /// I/O operations since the disk was made.
    pub operations: u64,
    /// Operation, and what becomes of it.
    pub failures: BTreeMap<u64, Failure>,
    /// Names that cannot be opened, and why.
    pub refused: BTreeMap<String, Code>,
    pub read_only: bool,
    pub crash_at: Option<u64>,
    /// The power is off: nothing can be done before a crash was carried out.
    pub off: bool,
    pub observer: Option<Observer>,
    /// The power goes with the operation for which this says so.
    pub crash_when: Option<Strikes>,
    /// Whether a new process sees the disk itself, or what a dead one left in the page cache.
    pub reads_past_cache: bool,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Open {
    pub node: NodeId,
    /// Holds the lock.
    pub writable: bool,
}

/// A write that waits for the test to complete it.
#[derive(Debug)]
pub(super) struct Pending {
    pub queue: usize,
    pub token: Token,
    pub file: FileId,
    pub node: NodeId,
    pub offset: u64,
    /// Where it goes on the disk, whatever its submitter thinks: nowhere, if it is lost.
    pub lands_at: Option<u64>,
    pub buffer: Buffer,
    /// It is not to be carried out: the queue is poisoned, or the write was doomed when it was submitted.
    pub error: Option<Error>,
}

#[derive(Default, Debug)]
pub(super) struct QueueState {
    pub done: VecDeque<Completion>,
    /// Submitted and not taken.
    pub in_flight: usize,
    pub poisoned: bool,
}

/// What is to become of an operation that has begun.
#[derive(Clone, Copy, Debug)]
pub(super) enum Verdict {
    Proceeds,
    /// The power goes in its midst: what it changes is loose.
    Cut,
    Fails(Failure),
}

impl Default for State {
    fn default() -> State {
        State {
            tree: Tree::default(),
            contents: BTreeMap::new(),
            open: BTreeMap::new(),
            next_file: 0,
            pending: Vec::new(),
            queues: Vec::new(),
            epoch: 0,
            capacity_bytes: CAPACITY_BYTES_DEFAULT,
            operations: 0,
            failures: BTreeMap::new(),
            refused: BTreeMap::new(),
            read_only: false,
            crash_at: None,
            off: false,
            observer: None,
            crash_when: None,
            reads_past_cache: true,
        }
    }
}

impl State {
    /// Counts an operation, shows it to the observer, and says what is to become of it.
    pub fn begin(&mut self, act: Act, name: &str, offset: u64, length: u64, bytes: &[u8]) -> io::Result<Verdict> {
        if self.off {
            return Err(power_is_off());
        }
        let number = self.operations;
        self.operations += 1;
        let mut is_struck = false;
        if self.observer.is_some() || self.crash_when.is_some() {
            let event = Event { number, act, name, offset, length, checksum: Checksum::of(bytes) };
            self.observer.iter_mut().for_each(|observer| observer(&event));
            is_struck = self.crash_when.as_mut().is_some_and(|strikes| strikes(&event));
        }
        if is_struck || self.crash_at == Some(number) {
            self.off = true;
            return Ok(Verdict::Cut);
        }
        if self.read_only && act.changes_the_disk() {
            return Err(Code::ReadOnly.into());
        }
        let failure = self.failures.remove(&number).filter(|failure| failure.concerns(act));
        Ok(failure.map_or(Verdict::Proceeds, Verdict::Fails))
    }

    /// An operation that fails as a whole or not at all. What it does is done before a cut, and is loose then.
    pub fn whole<T>(&mut self, act: Act, name: &str, call: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        match self.begin(act, name, 0, 0, &[])? {
            Verdict::Proceeds => call(self),
            Verdict::Cut => call(self).and_then(|_| Err(power_is_off())),
            Verdict::Fails(failure) => Err(failure.error()),
        }
    }

    pub fn opened(&self, file: FileId) -> Open {
        *self.open.get(&file).unwrap_or_else(|| panic!("{file:?} was closed, or never opened"))
    }

    pub fn content(&self, node: NodeId) -> &Content {
        self.contents.get(&node).expect("files that are open or have a name have content")
    }

    pub fn content_mut(&mut self, node: NodeId) -> &mut Content {
        Rc::make_mut(self.contents.get_mut(&node).expect("files that are open or have a name have content"))
    }

    pub fn used_bytes(&self) -> u64 {
        self.contents.values().map(|content| content.length()).sum()
    }

    /// Refuses to let a file grow beyond what the disk holds.
    pub fn check_room(&self, node: NodeId, end: u64) -> io::Result<()> {
        let growth = end.saturating_sub(self.content(node).length());
        match growth > 0 && self.used_bytes() + growth > self.capacity_bytes {
            true => Err(Code::NoSpace.into()),
            false => Ok(()),
        }
    }

    /// Forgets files without a name that nobody has open.
    pub fn collect(&mut self) {
        let reachable = self.tree.reachable();
        let busy = |node: &NodeId| {
            self.open.values().any(|open| open.node == *node) || self.pending.iter().any(|write| write.node == *node)
        };
        let kept: Vec<NodeId> =
            self.contents.keys().copied().filter(|node| reachable.contains(node) || busy(node)).collect();
        self.contents.retain(|node, _| kept.binary_search(node).is_ok());
    }

    /// Completes a pending write: it is carried out and flushed, unless it was doomed.
    pub fn complete(&mut self, at: usize) {
        let mut write = self.pending.remove(at);
        let error = match write.error.take() {
            Some(error) => Some(error),
            None => {
                if let Some(offset) = write.lands_at {
                    self.content_mut(write.node).settle(offset, &write.buffer);
                }
                // It was in flight when another failed: it has happened, but it does not count.
                self.queues[write.queue].poisoned.then(|| self.write_error(&write, crate::disk::poisoned()))
            }
        };
        self.finish(write, error);
    }

    /// Completes a pending write with an error; `landed` says of each of its sectors whether it is on the disk.
    pub fn fail(&mut self, at: usize, error: io::Error, mut landed: impl FnMut() -> bool) {
        let write = self.pending.remove(at);
        if let (None, Some(start)) = (&write.error, write.lands_at) {
            for (index, sector) in write.buffer.chunks(crate::limits::SECTOR_BYTES).enumerate() {
                if landed() {
                    let offset = start + (index * crate::limits::SECTOR_BYTES) as u64;
                    self.content_mut(write.node).settle(offset, sector);
                }
            }
        }
        let error = self.write_error(&write, error);
        self.finish(write, Some(error));
    }

    /// Completes a pending write with a timeout: it may happen yet.
    pub fn time_out(&mut self, at: usize) {
        let mut write = self.pending.remove(at);
        if let (None, Some(offset)) = (&write.error, write.lands_at) {
            let content = self.content_mut(write.node);
            content.write(offset, &write.buffer);
            content.abandon();
        }
        write.buffer = Buffer::with_capacity(write.buffer.len());
        let error = self.write_error(&write, Code::TimedOut.into());
        self.finish(write, Some(error));
    }

    pub fn write_error(&self, write: &Pending, source: io::Error) -> Error {
        Error::new(Operation::Write, self.tree.name_of(write.node), source).at(write.offset)
    }

    fn finish(&mut self, write: Pending, error: Option<Error>) {
        let queue = &mut self.queues[write.queue];
        queue.poisoned |= error.is_some();
        let result = error.map_or(Ok(()), Err);
        queue.done.push_back(Completion { token: write.token, result, buffer: write.buffer });
    }

    /// All that a cut of power may take or leave, each with the number of its outcomes, in the order in which
    /// [`State::crash`] asks.
    pub fn loose(&self) -> Vec<Loose> {
        let mut copy = self.fork();
        let mut all = Vec::new();
        copy.crash(&mut |loose| {
            all.push(loose.clone());
            0
        });
        all
    }

    pub fn crash(&mut self, choose: &mut dyn FnMut(&Loose) -> usize) {
        self.land_pending();
        let mut choose = |what: What, outcomes: usize| {
            let choice = choose(&Loose { what, outcomes });
            assert!(choice < outcomes, "there are {outcomes} outcomes, not {choice}");
            choice
        };
        for (node, content) in self.contents.iter_mut().filter(|(_, content)| content.is_loose()) {
            let (name, content) = (self.tree.name_of(*node), Rc::make_mut(content));
            if content.loose_lengths() > 0 {
                let choice = choose(What::Length { file: name.clone() }, content.loose_lengths() + 1);
                content.keep_length(choice);
            }
            let sectors: Vec<(u64, usize)> = content.loose_sectors().collect();
            for (sector, versions) in sectors {
                let choice = choose(What::Sector { file: name.clone(), sector }, versions + 1);
                content.keep_sector(sector, choice);
            }
            content.trim();
        }
        self.tree.crash(|label| choose(What::Name { change: label.to_owned() }, 2) == 1);
        self.end_process();
    }

    /// What a failed flush left in the page cache as if it were clean: the disk holds it or not, and a new process
    /// that reads past the cache sees which.
    pub fn settle_abandoned(&mut self, mut landed: impl FnMut() -> bool) {
        for content in self.contents.values_mut().filter(|content| content.is_loose()) {
            Rc::make_mut(content).settle_abandoned(&mut landed);
        }
    }

    /// The process is gone, and with it all that it had open.
    pub fn end_process(&mut self) {
        self.open.clear();
        self.pending.clear();
        self.queues.clear();
        self.epoch += 1;
        self.crash_at = None;
        self.off = false;
        self.collect();
    }

    /// What was in flight may be on the disk like anything else that was not flushed.
    fn land_pending(&mut self) {
        for write in std::mem::take(&mut self.pending) {
            if let (None, Some(offset)) = (&write.error, write.lands_at) {
                self.content_mut(write.node).write(offset, &write.buffer);
            }
        }
    }

    /// The same disk once more, without an observer.
    pub fn fork(&self) -> State {
        let pending = self.pending.iter().filter(|write| write.error.is_none()).map(|write| Pending {
            buffer: copy(&write.buffer),
            error: None,
            ..*write
        });
        State {
            tree: self.tree.clone(),
            contents: self.contents.clone(),
            open: self.open.clone(),
            next_file: self.next_file,
            pending: pending.collect(),
            queues: self
                .queues
                .iter()
                .map(|queue| QueueState { poisoned: queue.poisoned, ..Default::default() })
                .collect(),
            epoch: self.epoch,
            capacity_bytes: self.capacity_bytes,
            operations: self.operations,
            failures: self.failures.clone(),
            refused: self.refused.clone(),
            read_only: self.read_only,
            crash_at: self.crash_at,
            off: self.off,
            observer: None,
            crash_when: None,
            reads_past_cache: self.reads_past_cache,
        }
    }
}

pub(super) fn power_is_off() -> io::Error {
    io::Error::new(io::ErrorKind::Interrupted, "the power is off")
}

fn copy(buffer: &Buffer) -> Buffer {
    let mut copy = Buffer::with_capacity(buffer.len());
    copy.extend(buffer);
    copy
}
