//! The log's thread: a future that sleeps in the runtime and does one turn whenever it is woken.
//!
//! A turn takes in what has come, lets the core make the next write, tells those who wait, and sleeps again:
//!
//! ```text
//!   appenders ──▶ Inbox ──▶ ╭──────╮ ──▶ disk::Queue ──▶ (wake) ─╮
//!   preparer  ──▶           │ turn │ ──▶ preparer                │
//!   clock     ──▶           ╰──────╯ ──▶ Progress: all waiters   │
//!                              ▲─────────────────────────────────╯
//! ```
//!
//! While as many writes are in flight as may be, appends wake nobody: the completion does, and takes them all. The append
//! with which enough waits for a large frame wakes the thread before that. Behind a flush that leaves the disk idle, the few
//! whom it wakes are awaited for a moment (gathering.rs), so that what they append next is one frame.

use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, MutexGuard};
use std::task::{Context, Poll};
use std::time::{SystemTime, UNIX_EPOCH};

use super::Shared;
use super::error::OutcomeUnknown;
use super::gathering::Gathering;
use super::inbox::{Taken, Upkeep};
use super::open::SUPERBLOCK_TOKENS;
use super::pending::Woken;
use super::preparer::Preparer;
use crate::disk::{
    self, Backend, BlockingQueue, Completion, Directory, Operation, Queue, Runtime, SyncMode, UringQueue,
};
use crate::limits::TICK;
use crate::superblock;
use crate::types::SegmentNumber;
use crate::wal::{Effect, Log};

/// To wake so many takes about as long as to push a write out of the ring.
const WOKEN_MANY: usize = 4;

/// What the thread is made from.
pub(super) struct Start {
    pub shared: Arc<Shared>,
    pub superblock: superblock::Writer,
    pub backend: Backend,
    pub sync_mode: SyncMode,
    pub wrap: WrapQueue,
}

/// What stands between the core and the disk's queue: nothing, or what a test puts there.
pub(super) type WrapQueue = Box<dyn FnOnce(Box<dyn Queue>) -> Box<dyn Queue> + Send>;

/// The thread, from its set-up (which `ready` is told of) to its end (which [`super::pending::Progress`] is).
pub(super) fn run(start: Start, ready: impl FnOnce(Result<(), disk::Error>)) {
    let shared = Arc::clone(&start.shared);
    let progress = &shared.progress;
    let _finished = Finished(Arc::clone(&shared));
    let (runtime, mut core) = match set_up(start) {
        Ok(both) => both,
        Err(error) => return ready(Err(error)),
    };
    ready(Ok(()));
    let ended = runtime.block_on(poll_fn(|context| core.poll(context)));
    match ended {
        Ok(()) => {
            drop(core);
            drop(runtime);
        }
        Err(error) => {
            shared.inbox.poison();
            let hangs = error.hangs();
            drop(progress.fail(OutcomeUnknown(Arc::new(error))));
            shared.inbox.wake_tasks();
            if hangs {
                // Before the runtime goes: it waits for the kernel, which may never answer.
                shared.followers.end(progress.failure());
                progress.finish();
            }
        }
    }
}

/// Says at the thread's end, however it comes, that nothing more will happen.
struct Finished(Arc<Shared>);

impl Drop for Finished {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.inbox.poison();
            let error = io::Error::other("it panicked, which is a defect of this program");
            let error = disk::Error::new(Operation::Write, "the log's thread", error);
            drop(self.0.progress.fail(OutcomeUnknown(Arc::new(error))));
        }
        self.0.inbox.wake_tasks();
        self.0.followers.end(self.0.progress.failure());
        self.0.progress.finish();
    }
}

fn set_up(start: Start) -> Result<(Runtime, Core), disk::Error> {
    let Start { shared, superblock, backend, sync_mode, wrap } = start;
    let runtime = Runtime::new(backend)?;
    let queue = wrap(open_queue(&shared, &shared.directory, backend, sync_mode)?);
    let preparer = Preparer::start(&shared)?;
    let core = Core {
        shared,
        queue,
        superblock,
        preparer,
        taken: Taken::default(),
        gathering: Gathering::default(),
        clock: None,
        was_ticking: false,
        segment: SegmentNumber(0),
        warnings: Vec::new(),
    };
    Ok((runtime, core))
}

fn open_queue(
    shared: &Arc<Shared>,
    directory: &Directory,
    backend: Backend,
    sync_mode: SyncMode,
) -> Result<Box<dyn Queue>, disk::Error> {
    let waking = Arc::clone(shared);
    let wake = move || waking.inbox.wake();
    Ok(match backend {
        Backend::Uring => Box::new(UringQueue::new(directory.clone(), sync_mode, Box::new(wake))),
        Backend::Blocking => Box::new(BlockingQueue::new(directory.clone(), sync_mode, Box::new(wake))?),
    })
}

/// What comes after a turn.
enum Turn {
    Again,
    /// Nothing, until the core is woken.
    Rest,
    /// The log is closed.
    Last,
}

struct Core {
    shared: Arc<Shared>,
    queue: Box<dyn Queue>,
    superblock: superblock::Writer,
    preparer: Preparer,
    /// Kept for its memory.
    taken: Taken,
    gathering: Gathering,
    /// Runs while something depends on time passing.
    clock: Option<Pin<Box<dyn Future<Output = ()>>>>,
    /// What appenders were told of the clock.
    was_ticking: bool,
    /// Where the durable end was when the superblock learned of it last: it learns of each new segment, so that one
    /// that is missing is missed.
    segment: SegmentNumber,
    /// To be told when the log is not locked: at most two for each segment that was ordered.
    warnings: Vec<String>,
}

impl Core {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<(), disk::Error>> {
        let shared = Arc::clone(&self.shared);
        // Ends: each turn after the first follows an append, a preparation or a tick.
        loop {
            self.queue.hand_over();
            let mut woken = None;
            let turned = self.turn(&shared, context, &mut woken);
            if woken.as_ref().is_some_and(|woken| woken.count() >= WOKEN_MANY) {
                // To wake them takes a while, which the disk need not wait for.
                self.queue.hand_over();
            }
            // No lock is held: wakers, and whoever collects warnings, may do anything. Most read the log.
            drop(woken);
            shared.inbox.wake_tasks();
            shared.followers.wake();
            for warning in self.warnings.drain(..) {
                tracing::warn!("{warning}");
            }
            match turned? {
                Turn::Again => {}
                Turn::Rest => return Poll::Pending,
                Turn::Last => return Poll::Ready(Ok(())),
            }
        }
    }

    /// What is done while the log is locked. `woken` are those who are to be woken when it is free, however this ends.
    fn turn<'s>(
        &mut self,
        shared: &'s Shared,
        context: &mut Context<'_>,
        woken: &mut Option<Woken<'s>>,
    ) -> Result<Turn, disk::Error> {
        let mut log = shared.log();
        let completed = self.take_completions(&mut log);
        // What became durable before an error is durable all the same: to those who follow, and to those who wait.
        shared.followers.publish(&mut log);
        if completed.is_err() {
            *woken = Some(shared.progress.advance(log.durable_ticket()));
        }
        completed?;
        let log = &mut *self.gather(shared, log);
        let from_bytes = self.leaves_from_bytes(log);
        shared.inbox.take(context.waker(), &mut self.taken, from_bytes);
        self.check_direct()?;
        self.take_in(log);
        let is_tick = self.tick(log, context);
        self.tell_ticking();
        self.take_effects(log);
        *woken = Some(shared.progress.advance(log.durable_ticket()));
        if self.taken.closing && self.is_closed(log)? {
            return Ok(Turn::Last);
        }
        if self.taken.is_room_wanted {
            log.hurry_room();
        }
        self.take_effects(log);
        let again = shared.inbox.settle(log, log.room(), self.leaves_from_bytes(log));
        Ok(if again || is_tick { Turn::Again } else { Turn::Rest })
    }

    /// Behind a flush that leaves the disk idle: wakes whom it made durable, and waits for what they append, if that is
    /// worth it. Otherwise they are woken later: the next write leaves before.
    fn gather<'s>(&mut self, shared: &'s Shared, log: MutexGuard<'s, Log>) -> MutexGuard<'s, Log> {
        if shared.progress.durable() >= log.durable_ticket() || log.is_writing() {
            return log;
        }
        let waiting = shared.inbox.appends();
        if !self.gathering.is_worthwhile(shared.inbox.taken_appends(), waiting) {
            return log;
        }
        let woken = shared.progress.advance(log.durable_ticket());
        // Readers need not wait meanwhile.
        drop(log);
        let count = woken.count();
        drop(woken);
        self.gathering.wait(count, waiting, || shared.inbox.appends());
        shared.log()
    }

    /// As the log says; none beside a frame that an appender writes by itself, who wakes this thread then.
    fn leaves_from_bytes(&self, log: &Log) -> Option<usize> {
        log.leaves_from_bytes().filter(|_| !self.shared.direct.is_underway())
    }

    fn take_completions(&mut self, log: &mut Log) -> Result<(), disk::Error> {
        // The queue's bound is this loop's.
        while let Some(completion) = self.queue.take() {
            self.complete(log, completion)?;
        }
        Ok(())
    }

    fn complete(&mut self, log: &mut Log, completion: Completion) -> Result<(), disk::Error> {
        if completion.token.0 >= SUPERBLOCK_TOKENS {
            return self.superblock.handle(completion);
        }
        log.completed(completion).map_err(|poisoned| poisoned.0)
    }

    /// A write that an appender carries out by itself may have failed, or be with the kernel for too long.
    fn check_direct(&self) -> Result<(), disk::Error> {
        let error = match () {
            // Those who wait were told of the failure itself.
            () if self.taken.poisoned => io::Error::other("an append failed that its own thread wrote"),
            () if self.shared.direct.is_lost() => io::ErrorKind::TimedOut.into(),
            () => return Ok(()),
        };
        Err(disk::Error::new(Operation::Write, self.shared.directory.root().display().to_string(), error))
    }

    fn take_in(&mut self, log: &mut Log) {
        for item in self.taken.items.drain(..) {
            log.push(item).expect("the inbox refuses what the log would");
        }
        for upkeep in self.taken.upkeep.drain(..) {
            match upkeep {
                Upkeep::Prepared(number, result) => {
                    if let Err(error) = &result {
                        self.warnings.push(format!("a segment could not be made, and is tried again: {error}"));
                    }
                    log.prepared(number, result);
                }
                Upkeep::Removed(number, result) => {
                    if let Err(error) = &result {
                        let what = "a segment that nobody needs could not be removed, and is tried again";
                        self.warnings.push(format!("{what}: {error}"));
                    }
                    log.removed(number, &result);
                }
            }
        }
    }

    /// Lets the clock run as long as something waits for time to pass; tells whether a tick was given.
    fn tick(&mut self, log: &mut Log, context: &mut Context<'_>) -> bool {
        let is_idle = log.is_idle() && !log.has_copy() && log.is_covered();
        let tries_again = log.is_out_of_space() || log.counters().unremoved_segments > 0;
        let waits = !(is_idle && !tries_again && self.superblock.is_idle());
        // One that runs goes on: to set it anew for each append would wake the thread that sets it.
        if !waits && self.clock.is_none() {
            return false;
        }
        let clock = self.clock.get_or_insert_with(|| Box::pin(disk::sleep(TICK)));
        if clock.as_mut().poll(context).is_pending() {
            return false;
        }
        self.clock = None;
        if waits {
            log.tick(wall_clock_milliseconds());
        }
        waits
    }

    /// While the log is locked: an append by its own thread relies on it.
    fn tell_ticking(&mut self) {
        let is_ticking = self.clock.is_some();
        if std::mem::replace(&mut self.was_ticking, is_ticking) != is_ticking {
            self.shared.inbox.set_ticking(is_ticking);
        }
    }

    fn take_effects(&mut self, log: &mut Log) {
        while let Some(effect) = log.take_effect() {
            match effect {
                Effect::Write(write) => self.queue.submit(write),
                Effect::Prepare(order) => self.preparer.prepare(order),
                Effect::Remove(order) => self.preparer.remove(order),
            }
        }
        self.copy_forward(log);
        let segment = log.durable_end().segment;
        if segment != self.segment {
            self.segment = segment;
            self.save_durable_end(log);
        }
        while let Some(write) = self.superblock.take_write() {
            self.queue.submit(write);
        }
    }

    /// Begins to read what alone keeps old segments in use, if there is anything.
    fn copy_forward(&mut self, log: &mut Log) {
        if self.taken.closing {
            return;
        }
        let Some(plan) = log.take_copy() else { return };
        if let Err(error) = self.preparer.copy(plan)
            && let Some(found) = log.copy_read(Err(error.into()))
        {
            self.warnings.push(format!("what keeps the oldest segments in use is not copied forward: {found}"));
        }
    }

    fn save_durable_end(&mut self, log: &Log) {
        let durable_end = log.durable_end();
        self.superblock.save(|state| state.durable_end = state.durable_end.max(durable_end));
    }

    /// One step towards the end: everything durable, then covered, then known to the superblock.
    fn is_closed(&mut self, log: &mut Log) -> Result<bool, disk::Error> {
        if !log.is_idle() {
            // What was taken has no segment to go to, and there may never be one.
            return match log.preparation_error().filter(|_| !log.is_writing()) {
                Some(error) => Err(error.told_again()),
                None => Ok(false),
            };
        }
        if self.shared.inbox.last_ticket() != log.last_ticket() {
            return Ok(false);
        }
        // Ends: nothing is appended any more, and of copies only the one that was being read may still come.
        // Where a full disk has no room for a cover, the superblock shows what it would.
        if log.cover() {
            return Ok(false);
        }
        self.save_durable_end(log);
        Ok(self.superblock.is_idle())
    }
}

impl fmt::Debug for Core {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Core").field("segment", &self.segment).finish_non_exhaustive()
    }
}

/// Only ever written down, for retention by age.
pub(super) fn wall_clock_milliseconds() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
