//! The public log: [`Wal`], the threads around the core.
//!
//! ```text
//!   your threads and tasks          the log's thread            the preparer
//!   append ──▶ inbox (bounded) ───▶ core ──▶ disk
//!   Pending ◀── one wake per flush ──┤ ├──── segments wanted ──▶ zero-fill
//!   read ──▶ plan (locks the core) ──┴ runs on your thread
//!   iter, tail: read, piece by piece │
//!   tail, watch ◀── one wake per flush, of those whose group moved
//! ```
//!
//! A thread that waits for its append in any case calls [`Wal::append_records_durably`]: if it finds the log idle it
//! writes by itself, and no other thread is woken.
//!
//! # The contract
//!
//! - An append that [`Pending`] says is durable is on disk, and so is every append taken before it. It is whole: one
//!   batch is there with all its entries, or not at all.
//! - Appends are durable in the order in which they were taken, from all threads.
//! - A refused append has not happened. A full queue, or a next segment that is not ready yet, makes it wait, or
//!   refuses it, as [`WhenFull`] says; who waits when the log is closed or fails is refused as well.
//! - Groups share a log's flushes, and nothing else: each has indexes of its own.
//!   What a seldom written one still needs of old segments is copied forward in the background; nobody who appends,
//!   reads or follows sees that.
//! - Readers are given what is durable, and nothing else. [`Wal::read`] and [`Iter`] give one history; a [`Tail`] says
//!   when what it gave has been replaced. None of them keeps a prefix from being purged.
//! - After an error of a write or a flush every waiter gets [`OutcomeUnknown`], and nothing is taken any more. To go on
//!   is to open the log again, which shows what is there; a process whose disk hangs leaves by `exit`.
//! - A directory that holds a superblock is never made anew: what is missing from it then is damage.
//!
//! # Caveats
//!
//! One process, one handle: the directory is locked. [`Wal::close`] covers the last frames, so that damage to them is
//! known for what it is at the next start; dropping the handle tries the same and can only log what went wrong. A
//! [`Tail`] may outlive the handle: then the directory stays locked until it has given what is durable, or is dropped.
//!
//! To wait is a matter of wakers: there is no runtime in any public type, threads wait with a waker that unparks. A waker
//! may call back into the log: no lock is held when it is cloned, woken or dropped. But it runs on the log's own thread, and
//! must not wait for that: no append that blocks for room, no `wait`, no [`Tail`] as an iterator. If it drops the last
//! handle, the log is closed behind it. Records are another matter: their [`Bytes`] may be dropped by the log's thread while it has the log locked, so that an owner that was
//! given to `Bytes::from_owner` must not call the log when it goes.
//!
//! [`Wal::open`] does not read the whole log: see [`Options::verify_at_start`].
//!
//! Short reads of segments that are full go by memory map, if those were written since the log was opened, or read
//! whole and found intact, by that or by a scrub or [`Wal::verify`] since. (Long ones go past the page cache.) If a
//! foreign program cuts one, or the device fails under a mapped page, the kernel sends SIGBUS: the process ends with 18
//! and a line that names the file. For that a handler of SIGBUS is installed with the first such read; what is not ours
//! it passes on to the handler that was there before.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let directory = tempfile::tempdir()?;
//! use trilith::types::{GroupId, Index};
//! use trilith::wal::{Wal, handle::Options};
//!
//! # let mut options = Options::new(directory.path().join("log"));
//! # options.segment_bytes = 1 << 20;
//! let (wal, _) = Wal::open(options)?;
//! let group = GroupId(0);
//! let pending = wal.append_records(group, ["one", "two"])?;
//! assert_eq!(pending.wait()?, Index(1)..Index(3));
//! assert_eq!(wal.read(group, Index(1)..Index(3), 1 << 20)?.len(), 2);
//! wal.close()?;
//! # Ok(())
//! # }
//! ```

mod copier;
mod core;
mod cursor;
mod direct;
mod error;
mod followers;
mod gathering;
mod inbox;
mod iter;
mod open;
mod options;
mod pace;
mod payloads;
mod pending;
mod preparer;
mod read_buffers;
mod scrub;
mod tail;
mod told;
mod verify;
mod waiting;
mod watch;

#[cfg(test)]
mod tests;

use std::ops::Range;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::{Builder, JoinHandle};

use bytes::Bytes;

use self::core::Start;
use self::direct::{Direct, Done};
use self::followers::{Follower, Followers, Seen};
use self::inbox::{Inbox, Share};
use self::open::Parts;
use self::pending::{Links, Progress};
use self::read_buffers::ReadBuffers;
use self::scrub::Control;
use super::record::RecordKind;
use super::{Counters, Finding, GroupLog, Log, ReadBuffer, ReadPlan, Ticket};
use crate::disk::{self, Directory, Operation, Queue};
use crate::limits::{DISK_OPERATION_AGE_MAX, ENTRY_OVERHEAD_BYTES};
use crate::types::{Data, Entry, GroupId, Index, LogId, Place, Term};

pub use self::error::{Ended, Error, OutcomeUnknown, Refused, Unsaved};
pub use self::iter::Iter;
pub use self::open::{LOCK_NAME, LOG_DIRECTORY, NODE_ALONE, has_entries};
pub use self::options::{Options, Recovery, WhenFull};
pub use self::pending::Pending;
pub use self::scrub::{Scrub, ScrubCounters};
pub use self::tail::{Event, NextEvent, Tail};
pub use self::watch::{DurableWatch, Reached};

/// How often a read whose segments went away under it is planned again.
const READ_ATTEMPTS: usize = 3;

/// A log on disk, open for appending and reading from any number of threads. See [`self`] for the contract.
#[derive(Debug)]
pub struct Wal {
    shared: Arc<Shared>,
    links: Links,
    /// None once it is closed.
    thread: Option<JoinHandle<()>>,
}

/// What all threads of one log share.
#[derive(Debug)]
struct Shared {
    inbox: Inbox,
    progress: Arc<Progress>,
    /// Marked under the log's lock.
    followers: Arc<Followers>,
    /// Locked by the log's thread for each turn, by readers while they plan.
    log: Mutex<Log>,
    directory: Directory,
    /// For appenders that write by themselves.
    direct: Direct,
    /// Those at work: they stop before the log does.
    scrubs: Mutex<Vec<Weak<Control>>>,
    read_buffers: Mutex<ReadBuffers>,
}

impl Wal {
    /// Opens the log, and makes it if there is none and the options say so. Recovery is done when this returns. Of all
    /// segments but the last two it reads what it takes to know what is in them: see [`Options::verify_at_start`].
    ///
    /// # Errors
    /// A log that is damaged where it was read, or might be, is not opened: `trilith wal verify` says what is wrong with it.
    pub fn open(options: Options) -> Result<(Wal, Recovery), Error> {
        Wal::open_with(&options, |queue| queue)
    }

    /// As [`Wal::open`], with something between the log and the disk's queue: for tests.
    pub(crate) fn open_with(
        options: &Options,
        wrap: impl FnOnce(Box<dyn Queue>) -> Box<dyn Queue> + Send + 'static,
    ) -> Result<(Wal, Recovery), Error> {
        let Parts { directory, mut log, superblock, opened } = open::open(options)?;
        let inbox = Inbox::new(&log, options.queue_bytes_max, options.when_full);
        let followers = Arc::new(Followers::new(&mut log));
        let (backend, sync_mode) = (opened.io.backend, opened.sync_mode);
        let direct = Direct::new(&directory, sync_mode);
        let log = Mutex::new(log);
        let shared = Arc::new(Shared {
            inbox,
            progress: Arc::default(),
            followers,
            log,
            directory,
            direct,
            scrubs: Mutex::default(),
            read_buffers: Mutex::default(),
        });
        let start = Start { shared: Arc::clone(&shared), superblock, backend, sync_mode, wrap: Box::new(wrap) };
        let (ready, is_ready) = channel();
        let thread = Builder::new()
            .name("wal".to_owned())
            .spawn(move || {
                // Whoever opens waits for it.
                core::run(start, move |said| ready.send(said).expect("the opener waits"));
            })
            .map_err(|error| Error::Disk(disk::Error::new(Operation::SetUp, "the log's thread", error)))?;
        is_ready.recv().expect("the thread says whether it is ready").map_err(Error::Disk)?;
        let links = Links::new(&shared.progress);
        Ok((Wal { shared, links, thread: Some(thread) }, opened))
    }

    /// Appends entries that the caller has named: consecutive indexes, terms that do not fall. They become durable
    /// together or not at all. If the first index is not behind the group's last, everything older from there on
    /// ends.
    ///
    /// # Errors
    /// See [`Refused`]; nothing has happened then.
    pub fn append(&self, group: GroupId, entries: Vec<Entry>) -> Result<Pending, Refused> {
        self.append_into(Share::Appends, group, entries)
    }

    /// As [`Wal::append`], but taken where a truncate or a purge is: also when the queue or the disk is full. For the few
    /// small records without which a purge cannot be, or nobody would be left to ask for one.
    #[cfg(feature = "openraft")]
    pub(crate) fn append_beside_cuts(&self, group: GroupId, entries: Vec<Entry>) -> Result<Pending, Refused> {
        self.append_into(Share::Cuts, group, entries)
    }

    /// Tries `operation`, an append, again each time that there may be room, as long as what it says `is_busy`: so a task
    /// waits, of any runtime, with [`WhenFull::Busy`]; with [`WhenFull::Block`] the operation itself blocks the thread.
    /// Dropped before its end, it leaves nothing that is written.
    ///
    /// `is_busy` is true for [`Refused::Busy`], and for `NoSpace` if a full disk is to be waited for. What is
    /// final would be waited for without end.
    ///
    /// # Errors
    /// What `operation` says that is not busy.
    pub async fn with_room<T, E>(
        &self,
        mut operation: impl FnMut() -> Result<T, E>,
        is_busy: impl Fn(&E) -> bool,
    ) -> Result<T, E> {
        let inbox = &self.shared.inbox;
        loop {
            let turns = inbox.turns();
            match operation() {
                Err(error) if is_busy(&error) => {
                    std::future::poll_fn(|context| inbox.poll_turn(turns, context.waker())).await;
                }
                said => return said,
            }
        }
    }

    fn append_into(&self, share: Share, group: GroupId, entries: Vec<Entry>) -> Result<Pending, Refused> {
        self.shared.inbox.append(group, entries, share).map(|(ticket, indexes)| self.pending(ticket, indexes))
    }

    /// Appends records under the group's next indexes, in its last term (1 in a group without entries). They become
    /// durable together or not at all.
    ///
    /// # Errors
    /// See [`Refused`]; nothing has happened then.
    pub fn append_records<R>(&self, group: GroupId, records: R) -> Result<Pending, Refused>
    where
        R: IntoIterator,
        R::Item: Into<Bytes>,
    {
        with_checksums(records, |records| {
            self.shared.inbox.append_data(group, records).map(|(ticket, indexes)| self.pending(ticket, indexes))
        })
    }

    /// As [`Wal::append_records`], and returns when they are durable. A thread that would wait in any case is served best
    /// by this: if it finds the log idle it writes by itself, which spares two switches between threads. On a disk that
    /// hangs it returns no sooner than the disk's answer comes, while all others are told after 30 s.
    ///
    /// # Errors
    /// See [`Unsaved`].
    pub fn append_records_durably<R>(&self, group: GroupId, records: R) -> Result<Range<Index>, Unsaved>
    where
        R: IntoIterator,
        R::Item: Into<Bytes>,
    {
        with_checksums(records, |records| match self.shared.append_direct(group, records) {
            Done::Written(said) => Ok(said?),
            Done::Refused(refused) => Err(refused.into()),
            Done::NotIdle => {
                let (ticket, indexes) = self.shared.inbox.append_data(group, records)?;
                self.shared.progress.wait(ticket)?;
                Ok(indexes)
            }
        })
    }

    /// Ends all entries of a group from `from` on.
    ///
    /// # Errors
    /// See [`Refused`]; nothing has happened then.
    pub fn truncate_suffix(&self, group: GroupId, from: Index) -> Result<Pending, Refused> {
        let ticket = self.shared.inbox.cut(group, RecordKind::Truncate, LogId::new(Term::ZERO, from))?;
        Ok(self.pending(ticket, from..from))
    }

    /// Ends all entries of a group up to and including `last`. Segments that no group needs are given up. If they have
    /// ended already, nothing is written: it is durable with what was taken before.
    ///
    /// # Errors
    /// See [`Refused`]; nothing has happened then.
    pub fn purge_prefix(&self, group: GroupId, last: LogId) -> Result<Pending, Refused> {
        let ticket = self.shared.inbox.cut(group, RecordKind::Purge, last)?;
        Ok(self.pending(ticket, last.index.next()..last.index.next()))
    }

    /// Durable when everything is that was taken before.
    pub fn flush(&self) -> Pending {
        self.pending(self.shared.inbox.last_ticket(), Index::ZERO..Index::ZERO)
    }

    /// The durable entries of a range, in order from its start: all, or as many as `bytes_max` allows and at least
    /// one, or those before the first that cannot be read, or those before entries that were cut off, or whose segment
    /// was given up, while it read (what is copied forward is in another one then: read on from there); none if none is
    /// durable. Reads on this thread: from memory what was written last; of segments that are full a little by memory
    /// map, and much past the page cache; the disk for the rest.
    ///
    /// # Errors
    /// [`super::Error::Trimmed`] if the range begins before the log does; [`super::Error::Damaged`] if the disk does
    /// not hold the first entry as it was written.
    pub fn read(&self, group: GroupId, range: Range<Index>, bytes_max: usize) -> Result<Vec<Entry>, Error> {
        let mut buffer = self.shared.take_read_buffer(group, range.start);
        let said = self.read_with(group, range, bytes_max, &mut buffer);
        self.shared.give_read_buffer(buffer);
        said.map_err(|error| self.named(group, error))
    }

    /// Ends: each plan but the last gives entries, and they end somewhere.
    fn read_with(
        &self,
        group: GroupId,
        range: Range<Index>,
        bytes_max: usize,
        buffer: &mut ReadBuffer,
    ) -> Result<Vec<Entry>, super::Error> {
        let (mut entries, mut bytes, mut attempts) = (Vec::new(), 0, 1);
        // What ends between two plans: the later one would read on in another history.
        let mut follower: Option<Follower> = None;
        loop {
            let from = range.start.plus(entries.len() as u64);
            let log = self.shared.log();
            if matches!(follower.as_ref().map(|own| own.look(from, &mut None)), Some(Seen::Cut(_))) {
                return Ok(entries);
            }
            let plan = log.plan_read(group, from, range.end, bytes_max - bytes);
            if plan.is_cut() && follower.is_none() {
                follower = Some(self.shared.followers.follow(group));
            }
            drop(log);
            match self.shared.run(&plan, buffer) {
                Ok(read) => {
                    bytes += read.iter().map(|entry| entry.payload.data_bytes() + ENTRY_OVERHEAD_BYTES).sum::<usize>();
                    let is_over = !plan.is_cut() || read.is_empty() || bytes >= bytes_max;
                    entries.extend(read);
                    if is_over {
                        return Ok(entries);
                    }
                }
                // Its segments are in use for something else by now: another plan says what became of them.
                Err(super::Error::Stale { .. }) if attempts < READ_ATTEMPTS => attempts += 1,
                Err(_) if !entries.is_empty() => return Ok(entries),
                Err(error) => return Err(error),
            }
        }
    }

    /// The durable entries of a group from an index on, one after the other; from the first, if the index is 0.
    pub fn iter(&self, group: GroupId, from: Index) -> Iter<'_> {
        Iter::new(&self.shared, group, from)
    }

    /// Follows a group from an index on, or from its first if the index is 0: its durable entries, then those to come.
    /// It may wait on another thread, and outlive this handle.
    ///
    /// Whoever goes on where he was before a start compares his last entry with [`Wal::group`]: what was truncated while
    /// nobody followed is not told.
    pub fn tail(&self, group: GroupId, from: Index) -> Tail {
        Tail::new(&self.shared, group, from)
    }

    /// The index of the group's last durable entry; that of the one before its first, if it has none.
    pub fn durable_index(&self, group: GroupId) -> Index {
        self.shared.followers.durable(group)
    }

    /// As [`Wal::durable_index`], to wait for.
    pub fn watch(&self, group: GroupId) -> DurableWatch {
        DurableWatch::new(&self.shared.followers, group)
    }

    /// The appends up to this ticket, to wait for: [`Wal::flush`] for those who know how far they need it. A ticket that
    /// was not given out yet counts as the last one that was.
    pub fn pending_up_to(&self, ticket: Ticket) -> Pending {
        self.pending(ticket.min(self.shared.inbox.last_ticket()), Index::ZERO..Index::ZERO)
    }

    /// Every append up to this one is on disk.
    pub fn durable(&self) -> Ticket {
        self.shared.progress.durable()
    }

    /// Every frame up to here is on disk.
    pub fn durable_end(&self) -> Place {
        self.shared.log().durable_end()
    }

    /// The names of a group's entries, durable or on their way.
    pub fn group(&self, group: GroupId) -> Option<GroupLog> {
        self.shared.inbox.group(group)
    }

    /// The most record bytes that one append may hold: 40 per entry, and its data rounded up to a multiple of 8.
    pub fn batch_bytes_max(&self) -> usize {
        self.shared.inbox.batch_bytes_max()
    }

    /// What was written since the log was opened.
    pub fn counters(&self) -> Counters {
        self.shared.log().counters()
    }

    /// Why the next segment cannot be made, as long as that is so: mostly a full disk. It is tried again by itself; once
    /// what stands ready is full, appends are refused with [`super::Refused::NoSpace`] until it succeeds.
    pub fn preparation_error(&self) -> Option<disk::Error> {
        self.shared.log().preparation_error().map(disk::Error::told_again)
    }

    /// Why what keeps the oldest segments from being used again is not copied forward, as long as that is so: it is damaged,
    /// or cannot be read. It is tried again from time to time. The log goes on meanwhile, and grows.
    pub fn copy_finding(&self) -> Option<Finding> {
        self.shared.log().copy_finding().cloned()
    }

    /// Why nothing is taken any more, if the log has failed.
    pub fn failure(&self) -> Option<OutcomeUnknown> {
        self.shared.progress.failure()
    }

    /// Makes everything durable that was taken, covers it, tells the superblock, and gives the directory free: at once,
    /// or when the last [`Tail`] has ended or is dropped.
    ///
    /// # Errors
    /// If the disk fails, now or before. The directory is free all the same, unless the disk hangs.
    pub fn close(mut self) -> Result<(), Error> {
        self.end().map_err(Error::Failed)
    }

    fn end(&mut self) -> Result<(), OutcomeUnknown> {
        let Some(thread) = self.thread.take() else { return Ok(()) };
        let scrubs = std::mem::take(&mut *self.shared.scrubs.lock().unwrap_or_else(PoisonError::into_inner));
        scrubs.iter().filter_map(Weak::upgrade).for_each(|scrub| scrub.stop());
        self.shared.inbox.close();
        // A waker dropped the handle: this is the thread that would be waited for. It ends when it comes back from that.
        if thread.thread().id() == std::thread::current().id() {
            return Ok(());
        }
        let is_gone = self.shared.progress.wait_finished(DISK_OPERATION_AGE_MAX);
        let failure = self.shared.progress.failure();
        // A disk that hangs may keep it for ever: then it is left to itself, and the directory stays locked.
        let hangs = failure.as_ref().is_some_and(|failure| failure.0.hangs());
        if is_gone && !hangs && thread.join().is_err() && failure.is_none() {
            panic!("the log's thread says when it panics");
        }
        failure.map_or(Ok(()), Err)
    }

    /// A plan knows indexes alone; the log knows their terms.
    fn named(&self, group: GroupId, mut error: super::Error) -> Error {
        if let (super::Error::Damaged(finding), Some(log)) = (&mut error, self.group(group)) {
            finding.name_by(&log);
        }
        Error::Log(error)
    }

    fn pending(&self, ticket: Ticket, indexes: Range<Index>) -> Pending {
        Pending::new(self.links.link(), ticket, indexes)
    }
}

/// Checksums are made before any lock is taken, and one record needs no list.
fn with_checksums<R, T>(records: R, take: impl FnOnce(&[Data]) -> T) -> T
where
    R: IntoIterator,
    R::Item: Into<Bytes>,
{
    let mut records = records.into_iter().map(|record| Data::new(record.into())).fuse();
    match (records.next(), records.next()) {
        (Some(record), None) => take(&[record]),
        (first, second) => take(&first.into_iter().chain(second).chain(records).collect::<Vec<_>>()),
    }
}

impl Drop for Wal {
    fn drop(&mut self) {
        if self.thread.is_none() {
            return;
        }
        match self.end() {
            Ok(()) => tracing::debug!("a log was dropped without being closed; it was closed in time"),
            Err(error) => {
                tracing::error!("a log was dropped and could not be closed: {error}; next: {}", error.next_step())
            }
        }
    }
}

impl Shared {
    fn take_read_buffer(&self, group: GroupId, from: Index) -> ReadBuffer {
        self.read_buffers.lock().unwrap_or_else(PoisonError::into_inner).take(group, from)
    }

    fn give_read_buffer(&self, buffer: ReadBuffer) {
        self.read_buffers.lock().unwrap_or_else(PoisonError::into_inner).give(buffer);
    }

    /// Reads without the log's lock, and lets the log judge what came of it.
    fn run(&self, plan: &ReadPlan, buffer: &mut ReadBuffer) -> Result<Vec<Entry>, super::Error> {
        let said = plan.run_with(&self.directory, buffer);
        if said.is_ok() { said } else { self.log().judged(said) }
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        // If the log's thread panicked in the middle of a turn it never takes another; readers find durable frames.
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
