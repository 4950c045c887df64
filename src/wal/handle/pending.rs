//! Appends on their way to the disk, and how one waits for them: all that a flush made durable are woken together, and
//! nobody else. Threads wait as tasks do, with a waker that unparks.

use std::collections::BTreeMap;
use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use super::error::OutcomeUnknown;
use crate::types::Index;
use crate::wal::Ticket;

/// An append that was taken. It becomes durable whether or not somebody waits.
///
/// A thread calls [`Pending::wait`]; a task of any runtime awaits it. Both give the indexes of the entries.
#[derive(Debug)]
#[must_use = "it is not known to be durable before it was waited for"]
pub struct Pending {
    progress: Arc<Progress>,
    ticket: Ticket,
    indexes: Range<Index>,
    /// The place of its waker, once it was polled.
    waiter: Option<u64>,
}

/// How far the log has come: one for all who wait.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// The last durable ticket; only grows. A copy outside of the lock for those who need not wait.
    durable: AtomicU64,
    state: Mutex<State>,
    finished: Condvar,
}

/// Those that a flush has made durable, not yet woken.
#[must_use = "they sleep until they are woken"]
pub(super) struct Woken(BTreeMap<(Ticket, u64), Waker>);

#[derive(Debug, Default)]
struct State {
    /// By ticket, so that those of one flush are a range; the second number tells apart those of one ticket.
    wakers: BTreeMap<(Ticket, u64), Waker>,
    next_waiter: u64,
    failure: Option<OutcomeUnknown>,
    /// The log's thread does nothing any more.
    is_finished: bool,
}

impl Pending {
    pub(super) fn new(progress: Arc<Progress>, ticket: Ticket, indexes: Range<Index>) -> Pending {
        Pending { progress, ticket, indexes, waiter: None }
    }

    /// Blocks until it is durable.
    ///
    /// # Errors
    /// If the disk fails before that is known.
    pub fn wait(self) -> Result<Range<Index>, OutcomeUnknown> {
        if self.is_durable() {
            return Ok(self.indexes.clone());
        }
        OWN_WAKER.with(|waker| {
            let mut pending = self;
            let mut context = Context::from_waker(waker);
            loop {
                if let Poll::Ready(said) = Pin::new(&mut pending).poll(&mut context) {
                    return said;
                }
                // Returns at once if it was woken meanwhile, and at times for no reason.
                thread::park();
            }
        })
    }

    /// Whether it is on disk, and everything before it.
    pub fn is_durable(&self) -> bool {
        self.progress.durable() >= self.ticket
    }

    /// Its place in the order of all appends. Appends that were joined into one write share it.
    pub fn ticket(&self) -> Ticket {
        self.ticket
    }

    /// The indexes of its entries; empty for a cut.
    pub fn indexes(&self) -> Range<Index> {
        self.indexes.clone()
    }
}

thread_local! {
    /// Unparks this thread.
    pub(super) static OWN_WAKER: Waker = Waker::from(Arc::new(Unpark(thread::current())));
}

/// Wakes a thread that waits.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.unpark();
    }
}

impl Future for Pending {
    type Output = Result<Range<Index>, OutcomeUnknown>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let pending = &mut *self;
        match pending.progress.poll(pending.ticket, &mut pending.waiter, context.waker()) {
            Poll::Ready(said) => Poll::Ready(said.map(|()| pending.indexes.clone())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if let Some(waiter) = self.waiter {
            self.progress.lock().wakers.remove(&(self.ticket, waiter));
        }
    }
}

impl Progress {
    pub fn durable(&self) -> Ticket {
        Ticket(self.durable.load(Ordering::Acquire))
    }

    fn poll(&self, ticket: Ticket, waiter: &mut Option<u64>, waker: &Waker) -> Poll<Result<(), OutcomeUnknown>> {
        // Whoever moves on takes the wakers away: an outcome means that there is none left to remove.
        if self.durable() >= ticket {
            *waiter = None;
            return Poll::Ready(Ok(()));
        }
        let mut state = self.lock();
        if let Some(said) = self.outcome(&state, ticket) {
            *waiter = None;
            return Poll::Ready(said);
        }
        let waiter = *waiter.get_or_insert_with(|| {
            state.next_waiter += 1;
            state.next_waiter
        });
        state.wakers.insert((ticket, waiter), waker.clone());
        Poll::Pending
    }

    fn outcome(&self, state: &State, ticket: Ticket) -> Option<Result<(), OutcomeUnknown>> {
        if self.durable() >= ticket {
            return Some(Ok(()));
        }
        state.failure.clone().map(Err)
    }

    /// Everything up to `ticket` is on disk: takes out those who wait for it, to be woken.
    pub fn advance(&self, ticket: Ticket) -> Woken {
        if self.durable() >= ticket {
            return Woken(BTreeMap::new());
        }
        let mut state = self.lock();
        self.durable.store(ticket.0, Ordering::Release);
        let later = state.wakers.split_off(&(Ticket(ticket.0 + 1), 0));
        Woken(std::mem::replace(&mut state.wakers, later))
    }

    /// Nothing becomes durable any more.
    pub fn fail(&self, failure: OutcomeUnknown) {
        let mut state = self.lock();
        state.failure.get_or_insert(failure);
        let woken = std::mem::take(&mut state.wakers);
        drop(state);
        self.finished.notify_all();
        Woken(woken).wake();
    }

    pub fn finish(&self) {
        self.lock().is_finished = true;
        self.finished.notify_all();
    }

    /// Waits until the log's thread does nothing any more, and no longer than `time` after it has failed; tells whether
    /// it does nothing.
    pub fn wait_finished(&self, time: Duration) -> bool {
        let works = |state: &mut State| !state.is_finished && state.failure.is_none();
        let state = self.finished.wait_while(self.lock(), works).unwrap_or_else(PoisonError::into_inner);
        let waited = self.finished.wait_timeout_while(state, time, |state| !state.is_finished);
        waited.unwrap_or_else(PoisonError::into_inner).0.is_finished
    }

    pub fn failure(&self) -> Option<OutcomeUnknown> {
        self.lock().failure.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Each change is one assignment: whole at any instant, whoever panicked.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Woken {
    pub fn count(&self) -> usize {
        self.0.len()
    }

    pub fn wake(self) {
        self.0.into_values().for_each(Waker::wake);
    }
}
