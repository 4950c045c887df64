//! The hot path without io_uring: a thread that writes and flushes.
//!
//! ```text
//!   submit ──▶ channel ──▶ thread: all that is there │ write, write, write │ flush each file once ──▶ done ──▶ take
//! ```
//!
//! What queued up while the last flush ran is the next batch. Completions come in the order of submission.
//!
//! A thread that would wait for its write in any case needs no other: [`ThreadWriter`].

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::buffer::Buffer;
use super::choice::SyncMode;
use super::directory::{Directory, Target};
use super::error::{Error, Operation};
use super::open_file;
use super::queue::{Completion, FileId, Queue, Token, WRITES_QUEUED_MAX, Write};
use super::seam::{Drawn, Seam};
use super::transfer::Transfer;
use crate::limits::DISK_OPERATION_AGE_MAX;
use crate::mutant::{self, Mutant};

/// `pwrite` and its flush, on a thread of its own.
///
/// After the first error nothing is written any more: each later write completes with an error. If a request is with
/// the kernel for longer than [`DISK_OPERATION_AGE_MAX`] when [`Queue::take`] is called, its write and all behind it
/// complete with an error of kind [`io::ErrorKind::TimedOut`] and with an **empty buffer**, since the kernel still reads
/// from the one that was given. Waiting behind others does not count: a slow disk is not a hung one.
///
/// Dropping it waits for what is in flight, unless a write timed out: then the thread is left to itself.
pub struct BlockingQueue {
    directory: Directory,
    sync_mode: SyncMode,
    /// None once it is being dropped.
    jobs: Option<Sender<Job>>,
    done: Arc<Mutex<VecDeque<Completion>>>,
    /// Submitted and not taken, oldest first.
    in_flight: VecDeque<Token>,
    /// Since when the thread's present request is with the kernel.
    begun: Begun,
    /// A write timed out: nothing that comes later counts.
    hung: bool,
    thread: Option<JoinHandle<()>>,
}

/// A write with what it needs of the directory, or with why it got none.
struct Job {
    write: Write,
    target: Result<Target, Error>,
}

impl BlockingQueue {
    /// Starts the thread. `wake` is called on it after completions have become available, once per batch.
    ///
    /// # Errors
    /// If the kernel gives no thread.
    pub fn new(directory: Directory, sync_mode: SyncMode, wake: Box<dyn Fn() + Send>) -> Result<BlockingQueue, Error> {
        BlockingQueue::with_seam(directory, sync_mode, wake, Seam::default(), DISK_OPERATION_AGE_MAX)
    }

    pub(crate) fn with_seam(
        directory: Directory,
        sync_mode: SyncMode,
        wake: Box<dyn Fn() + Send>,
        seam: Seam,
        age_max: Duration,
    ) -> Result<BlockingQueue, Error> {
        let (jobs, incoming) = channel();
        let (done, begun) = (Arc::default(), Begun::new(age_max));
        let writer = Writer { directory: directory.clone(), sync_mode, begun: begun.clone(), seam, poisoned: false };
        let mutants = mutant::inherit();
        let told = Arc::clone(&done);
        let thread = std::thread::Builder::new()
            .name("disk".to_owned())
            .spawn(move || {
                mutants.take_over();
                writer.run(&incoming, &told, &*wake);
            })
            .map_err(|error| Error::new(Operation::SetUp, "the disk's thread", error))?;
        Ok(BlockingQueue {
            directory,
            sync_mode,
            jobs: Some(jobs),
            done,
            in_flight: VecDeque::new(),
            begun,
            hung: false,
            thread: Some(thread),
        })
    }

    fn lost(&mut self) -> Option<Completion> {
        if !self.hung && !self.begun.is_lost() {
            return None;
        }
        self.hung = true;
        let token = self.in_flight.pop_front()?;
        let root = self.directory.root().display().to_string();
        let error = Error::new(Operation::Write, root, io::Error::from(io::ErrorKind::TimedOut));
        Some(Completion { token, result: Err(error), buffer: Buffer::with_capacity(0) })
    }
}

impl Queue for BlockingQueue {
    fn submit(&mut self, write: Write) {
        write.check();
        assert!(self.in_flight.len() < WRITES_QUEUED_MAX, "more than {WRITES_QUEUED_MAX} writes in flight");
        let target = self.directory.target(write.file, self.sync_mode);
        self.in_flight.push_back(write.token);
        let jobs = self.jobs.as_ref().expect("it is taken by drop alone");
        jobs.send(Job { write, target }).expect("the thread runs until the sender is dropped");
    }

    fn take(&mut self) -> Option<Completion> {
        if self.hung {
            return self.lost();
        }
        let Some(completion) = lock(&self.done).pop_front() else { return self.lost() };
        let token = self.in_flight.pop_front().expect("what completes was in flight");
        assert_eq!(token, completion.token, "writes complete in the order of submission");
        Some(completion)
    }
}

impl Drop for BlockingQueue {
    fn drop(&mut self) {
        self.jobs = None;
        let thread = self.thread.take().expect("it is taken by drop alone");
        if !self.hung && thread.join().is_err() && !std::thread::panicking() {
            panic!("the disk's thread panicked");
        }
    }
}

impl fmt::Debug for BlockingQueue {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = formatter.debug_struct("BlockingQueue");
        shown.field("sync_mode", &self.sync_mode).field("in_flight", &self.in_flight.len()).finish_non_exhaustive()
    }
}

/// Writes and flushes on the thread that calls: for one that would wait in any case.
///
/// After the first error nothing is written any more: each later write completes with an error.
pub struct ThreadWriter {
    writer: Writer,
}

/// Since when a thread is in the kernel with a request, and how long it may be.
#[derive(Clone, Debug)]
pub struct Begun(Arc<Mutex<Age>>);

#[derive(Debug)]
struct Age {
    since: Option<Instant>,
    max: Duration,
}

impl ThreadWriter {
    pub fn new(directory: Directory, sync_mode: SyncMode) -> ThreadWriter {
        let (begun, seam) = (Begun::new(DISK_OPERATION_AGE_MAX), Seam::default());
        ThreadWriter { writer: Writer { directory, sync_mode, begun, seam, poisoned: false } }
    }

    /// From now on writes go this way and meet these faults, and none may take longer: whoever has [`Begun`] sees it.
    #[cfg(test)]
    pub(crate) fn inject(&mut self, sync_mode: SyncMode, seam: Seam, age_max: Duration) {
        (self.writer.sync_mode, self.writer.seam) = (sync_mode, seam);
        lock(&self.writer.begun.0).max = age_max;
    }

    /// Done when it returns, which may be as late as the disk likes: see [`ThreadWriter::begun`].
    pub fn write(&mut self, write: Write) -> Completion {
        write.check();
        let target = self.writer.directory.target(write.file, self.writer.sync_mode);
        let mut written = [self.writer.write(Job { write, target })];
        if self.writer.sync_mode == SyncMode::Fdatasync {
            self.writer.flush(&mut written);
        }
        let [Written { token, buffer, outcome, .. }] = written;
        Completion { token, result: outcome.map(drop), buffer }
    }

    /// For another thread, which looks whether the disk hangs.
    pub fn begun(&self) -> Begun {
        self.writer.begun.clone()
    }
}

impl fmt::Debug for ThreadWriter {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ThreadWriter").field("sync_mode", &self.writer.sync_mode).finish_non_exhaustive()
    }
}

impl Begun {
    fn new(max: Duration) -> Begun {
        Begun(Arc::new(Mutex::new(Age { since: None, max })))
    }

    /// Whether a request is with the kernel for longer than it may be: [`DISK_OPERATION_AGE_MAX`].
    pub fn is_lost(&self) -> bool {
        let age = lock(&self.0);
        age.since.is_some_and(|since| since.elapsed() >= age.max)
    }

    /// Shows others that a request is with the kernel, and since when.
    fn timed<T>(&self, request: impl FnOnce() -> T) -> T {
        lock(&self.0).since = Some(Instant::now());
        let said = request();
        lock(&self.0).since = None;
        said
    }
}

/// The thread's half.
struct Writer {
    directory: Directory,
    sync_mode: SyncMode,
    begun: Begun,
    seam: Seam,
    /// A write or a flush failed.
    poisoned: bool,
}

/// A write of the batch that is being carried out.
struct Written {
    token: Token,
    file: FileId,
    offset: u64,
    buffer: Buffer,
    /// What its flush goes through, once all of it is written.
    outcome: Result<Arc<OwnedFd>, Error>,
}

impl Writer {
    fn run(mut self, incoming: &Receiver<Job>, done: &Mutex<VecDeque<Completion>>, wake: &dyn Fn()) {
        while let Ok(first) = incoming.recv() {
            // The submitter's bound is this loop's.
            let batch: Vec<Job> = std::iter::once(first).chain(incoming.try_iter().take(WRITES_QUEUED_MAX)).collect();
            let mut written: Vec<Written> = batch.into_iter().map(|job| self.write(job)).collect();
            if self.sync_mode == SyncMode::Fdatasync {
                self.flush(&mut written);
            }
            lock(done).extend(written.into_iter().map(|write| Completion {
                token: write.token,
                result: write.outcome.map(drop),
                buffer: write.buffer,
            }));
            wake();
        }
    }

    fn write(&mut self, job: Job) -> Written {
        let Job { write: Write { token, file, offset, buffer }, target } = job;
        let outcome = match target {
            _ if self.poisoned => Err(self.error(Operation::Write, file, offset, super::poisoned())),
            Err(error) => Err(error.at(offset)),
            Ok(target) => match self.write_all(&target, offset, &buffer) {
                Ok(()) => Ok(target.descriptor),
                Err(error) => Err(self.error(Operation::Write, file, offset, error)),
            },
        };
        self.poisoned |= outcome.is_err();
        Written { token, file, offset, buffer, outcome }
    }

    fn write_all(&self, target: &Target, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut transfer = Transfer::new(bytes.len(), target.granule);
        while !transfer.is_complete() {
            let start = transfer.next_start();
            let fault = self.seam.draw();
            let end = start + fault.limit(bytes.len() - start);
            let said = self.begun.timed(|| {
                put_off(fault);
                rustix::io::pwrite(&target.descriptor, &bytes[start..end], offset + start as u64)
            });
            let said = fault.answer(said.map_err(io::Error::from));
            let is_short = said.is_ok();
            transfer.record(self.seam.wrote(offset + start as u64, said))?;
            let is_flushed = self.sync_mode == SyncMode::Fdatasync;
            if is_short && is_flushed && mutant::is_on(Mutant::FlushBeforeShortWriteFinished) {
                break;
            }
        }
        Ok(())
    }

    /// Flushes each file of the batch once. All its writes are complete by now; one that failed is not flushed, and
    /// after a flush that failed nothing is.
    fn flush(&mut self, written: &mut [Written]) {
        let mut flushed: Vec<FileId> = Vec::new();
        let mut failed = false;
        for write in written.iter_mut() {
            let Ok(descriptor) = &write.outcome else { continue };
            if !failed && flushed.contains(&write.file) {
                continue;
            }
            let said = match failed {
                true => Err(super::poisoned()),
                false => {
                    let fault = self.seam.draw_flush();
                    let said = self.begun.timed(|| {
                        put_off(fault);
                        open_file::flush(descriptor)
                    });
                    open_file::answer_of_flush(fault.answer(said))
                }
            };
            flushed.push(write.file);
            if let Err(error) = said {
                (failed, self.poisoned) = (true, true);
                write.outcome = Err(self.error(Operation::Flush, write.file, write.offset, error));
            }
        }
        if mutant::is_on(Mutant::FlushBeforeShortWriteFinished) {
            written.iter().for_each(|own| finish_late(&own.outcome, own.offset, &own.buffer));
        }
    }

    fn error(&self, operation: Operation, file: FileId, offset: u64, source: io::Error) -> Error {
        self.directory.error_at(operation, file, source).at(offset)
    }
}

/// The deliberate bug: what a short write left is written behind the flush.
pub(super) fn finish_late<D: AsFd, E>(outcome: &Result<D, E>, offset: u64, bytes: &[u8]) {
    if let Ok(descriptor) = outcome {
        rustix::io::pwrite(descriptor, bytes, offset).expect("a disk of a test has room");
    }
}

/// Where tests put off a request.
fn put_off(fault: Drawn) {
    if let Some(time) = fault.hangs().or(fault.slow()) {
        std::thread::sleep(time);
    }
}

/// A queue of completions, or one instant, is whole at any time, whoever panicked.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
