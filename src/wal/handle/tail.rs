//! A group's durable entries, and those to come.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::cursor::{Cursor, Step};
use super::error::{Ended, Error};
use super::{Shared, waiting};
use crate::types::{Entry, GroupId, Index};

/// Follows a group: gives its durable entries from an index on, and waits for more. Made by [`super::Wal::tail`].
///
/// A thread takes it as an iterator, which blocks, or calls [`Tail::next_timeout`]. A task of any runtime awaits
/// [`Tail::next_event`], or polls it in a stream of its own.
///
/// # What it gives
///
/// - Only durable entries, each once, by rising index without gaps.
/// - [`Event::Truncated`] when entries that it has passed end, by [`super::Wal::truncate_suffix`] or because an append
///   replaced them, and that is durable. It then goes on at that index, with what stands there now. Several such cuts
///   may be told as one, at the lowest of their indexes. Everything below the index that it was made with counts as
///   passed: its owner has it from before. So if you take back what stands at and behind the index of each such event,
///   what you hold is at any time a state that the durable log was in.
/// - [`super::super::Error::Trimmed`] if the next entry was purged before it was given. To purge what it has given is
///   no event.
/// - Then the end: nothing when the log was closed and all that is durable was given, or the error. After that it gives
///   nothing, ever.
///
/// It is a reader: a slow one costs the log nothing and keeps nothing from being purged. It wakes at most once for a
/// flush, and only for its own group. It reads the disk on the thread that asks, at most about 1 MiB (or one frame) at
/// a time, and holds no more than that: tasks that must never block belong on a thread for blocking work.
///
/// It does not end what it follows: the log may be closed or dropped first, and the tail still gives what is durable.
/// **The directory is free when the log is closed and all its tails have ended or are dropped.**
#[derive(Debug)]
pub struct Tail {
    /// None once it has ended: then it holds nothing of the log.
    cursor: Option<Cursor>,
}

/// What a [`Tail`] gives.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// It is durable.
    Entry(Entry),
    /// Entries from here on, which were given or lie below where the tail began, are no more. Those that stand there
    /// now come next.
    Truncated { from: Index },
}

/// Waits for a tail's next event. Made by [`Tail::next_event`].
#[derive(Debug)]
#[must_use = "it does nothing unless it is awaited"]
pub struct NextEvent<'t> {
    tail: &'t mut Tail,
}

impl Tail {
    pub(super) fn new(shared: &Arc<Shared>, group: GroupId, from: Index) -> Tail {
        Tail { cursor: Some(Cursor::new(shared, group, from)) }
    }

    /// The index of the entry that comes next if nothing is truncated before; none once the tail has ended.
    pub fn index(&self) -> Option<Index> {
        self.cursor.as_ref().map(Cursor::index)
    }

    /// As the iterator does, but blocks no longer than `time`: pending means that it was over before there was
    /// anything. With no time at all it tells what is there.
    pub fn next_timeout(&mut self, time: Duration) -> Poll<Option<Result<Event, Error>>> {
        let polled = waiting::wait_timeout(time, |context| self.poll_next(context));
        self.stop_waiting();
        polled
    }

    /// The next event, for a task of any runtime. To drop it unfinished loses nothing.
    pub fn next_event(&mut self) -> NextEvent<'_> {
        NextEvent { tail: self }
    }

    /// The next event, or pending: then the waker of this call, and of no earlier one, is woken when there is one.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Event, Error>>> {
        let Some(cursor) = &mut self.cursor else { return Poll::Ready(None) };
        let end = match cursor.step(Some(context.waker())) {
            Ok(Step::Entry(entry)) => return Poll::Ready(Some(Ok(Event::Entry(entry)))),
            Ok(Step::Cut(from)) => return Poll::Ready(Some(Ok(Event::Truncated { from }))),
            Ok(Step::Nothing) => return Poll::Pending,
            Ok(Step::Ended(Ended::Closed)) => None,
            Ok(Step::Ended(Ended::Failed(unknown))) => Some(Err(Error::Failed(unknown))),
            Err(error) => Some(Err(error)),
        };
        self.cursor = None;
        Poll::Ready(end)
    }

    fn stop_waiting(&self) {
        if let Some(cursor) = &self.cursor {
            cursor.stop_waiting();
        }
    }
}

impl Iterator for Tail {
    type Item = Result<Event, Error>;

    /// Blocks until there is an event, or the end.
    fn next(&mut self) -> Option<Self::Item> {
        waiting::wait(|context| self.poll_next(context))
    }
}

impl Future for NextEvent<'_> {
    type Output = Option<Result<Event, Error>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.tail.poll_next(context)
    }
}

impl Drop for NextEvent<'_> {
    fn drop(&mut self) {
        self.tail.stop_waiting();
    }
}
