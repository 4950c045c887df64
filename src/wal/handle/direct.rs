//! An appender that finds the log idle writes by itself: no other thread has to be woken for it, and none to wake it.
//!
//! ```text
//!   append ──▶ idle? ── yes ──▶ lock log: push, frame ──▶ write + flush, here ──▶ lock log: completed ──▶ Progress
//!                └───── no ───▶ inbox ──▶ the log's thread ...
//! ```
//!
//! While it is under way the core takes no append, so that no other frame is written or flushed beside it: of two flushes
//! of one file the kernel tells only one that a write was lost. Appends queue up for the core's next turn. An appender
//! writes only while the core's clock runs, because it is the core that sees a disk that hangs; so the first append after a
//! rest goes to the core.

use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Shared;
use super::error::{OutcomeUnknown, Refused};
use super::pending::Woken;
use crate::disk::{self, Begun, Completion, Directory, Operation, SyncMode, ThreadWriter};
use crate::types::{Data, GroupId, Index};
use crate::wal::Effect;
use crate::wal::record::record_bytes;

/// The way to the disk of those who write by themselves, one at a time.
#[derive(Debug)]
pub(super) struct Direct {
    writer: Mutex<ThreadWriter>,
    begun: Begun,
    /// Changed while the log is locked.
    is_underway: AtomicBool,
}

/// What became of an append that was to be written here.
pub(super) enum Done {
    /// The log is not idle: nothing has happened.
    NotIdle,
    Refused(Refused),
    /// It is durable, or the log has failed.
    Written(Result<Range<Index>, OutcomeUnknown>),
}

impl Direct {
    pub fn new(directory: &Directory, sync_mode: SyncMode) -> Direct {
        let writer = ThreadWriter::new(directory.clone(), sync_mode);
        Direct { begun: writer.begun(), writer: Mutex::new(writer), is_underway: AtomicBool::new(false) }
    }

    /// Whether an appender writes just now. To be asked while the log is locked.
    pub fn is_underway(&self) -> bool {
        self.is_underway.load(Ordering::Relaxed)
    }

    /// Whether a write is with the kernel for too long.
    pub fn is_lost(&self) -> bool {
        self.begun.is_lost()
    }

    pub(super) fn writer(&self) -> MutexGuard<'_, ThreadWriter> {
        // One whose thread panicked has failed the log: nobody writes then.
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    /// Appends records and makes them durable on this thread, if the log is idle.
    pub(super) fn append_direct(&self, group: GroupId, records: &[Data]) -> Done {
        // Before the lock, and so dropped after it.
        let mut underway = Underway { shared: self, is_taken: false };
        let Ok(mut log) = self.log.try_lock() else { return Done::NotIdle };
        let bytes = records.iter().map(|data| record_bytes(data.bytes.len())).sum();
        if !log.would_write_at_once(bytes) {
            return Done::NotIdle;
        }
        let (item, indexes) = match self.inbox.append_direct(group, records) {
            Ok(Some(taken)) => taken,
            Ok(None) => return Done::NotIdle,
            Err(refused) => return Done::Refused(refused),
        };
        underway.is_taken = true;
        log.push(item).expect("the inbox refuses what the log would");
        let Some(Effect::Write(write)) = log.take_effect() else { panic!("the log was ready to write") };
        self.direct.is_underway.store(true, Ordering::Relaxed);
        drop(log);
        let completion = self.direct.writer().write(write);
        let said = self.settle_direct(completion);
        underway.is_taken = false;
        Done::Written(said.map(|()| indexes))
    }

    fn settle_direct(&self, completion: Completion) -> Result<(), OutcomeUnknown> {
        // Before the lock, and so dropped after it: wakers may do anything.
        let woken;
        let mut log = self.log();
        self.direct.is_underway.store(false, Ordering::Relaxed);
        if let Some(failure) = self.progress.failure() {
            // The core gave it up: what it did to the disk is for the next start to see.
            return Err(failure);
        }
        if let Err(poisoned) = log.completed(completion) {
            // Before the core can take a turn: it would give the log what waits, and tell of that.
            let failure;
            (failure, woken) = self.fail_direct(poisoned.0);
            drop(log);
            self.inbox.wake();
            drop(woken);
            return Err(failure);
        }
        self.followers.publish(&mut log);
        woken = self.progress.advance(log.durable_ticket());
        let is_waited_for = self.inbox.settle(&log, log.room(), log.leaves_from_bytes()) || !log.is_at_rest();
        drop(log);
        if is_waited_for {
            self.inbox.wake();
        }
        drop(woken);
        self.inbox.wake_tasks();
        self.followers.wake();
        Ok(())
    }

    /// Nothing is taken any more, and this is why. Whoever waits is to be woken, and the core too, which ends then.
    fn fail_direct(&self, error: disk::Error) -> (OutcomeUnknown, Woken<'_>) {
        let failure = OutcomeUnknown(Arc::new(error));
        self.inbox.poison();
        let woken = self.progress.fail(failure.clone());
        (self.progress.failure().unwrap_or(failure), woken)
    }
}

/// From the moment at which an append is taken to that at which its outcome is known: a panic between fails the log.
struct Underway<'a> {
    shared: &'a Shared,
    is_taken: bool,
}

impl Drop for Underway<'_> {
    fn drop(&mut self) {
        if self.is_taken {
            let error = io::Error::other("its thread panicked, which is a defect of this program");
            let error = disk::Error::new(Operation::Write, "an append of its own thread", error);
            let (_, woken) = self.shared.fail_direct(error);
            self.shared.inbox.wake();
            drop(woken);
        }
    }
}
