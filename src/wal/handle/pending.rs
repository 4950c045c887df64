//! Appends on their way to the disk, and how one waits for them: all that a flush made durable are woken together.
//!
//! Tasks leave a waker. Threads sleep in the slot of their ticket, all of one ticket in the same: appends that were
//! joined have one ticket, so that a flush wakes dozens of threads by one call to the kernel. Tickets far apart share a
//! slot; who wakes too early sleeps again.
//!
//! A waker is the code of whoever waits, and may call back into the log: it is cloned, woken and dropped while no lock
//! is held, neither this one nor the log's.

use std::collections::BTreeMap;
use std::future::Future;
use std::ops::{Range, RangeInclusive};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::error::OutcomeUnknown;
use crate::types::Index;
use crate::wal::Ticket;

/// Places to sleep in: as many as there are bits in the set of those to be woken.
const SLOTS: u64 = 64;
/// Ways to the one [`Progress`]: see [`Links`].
const LINKS: usize = 8;

/// An append that was taken. It becomes durable whether or not somebody waits.
///
/// A thread calls [`Pending::wait`]; a task of any runtime awaits it. Both give the indexes of the entries.
#[derive(Debug)]
#[must_use = "it is not known to be durable before it was waited for"]
pub struct Pending {
    link: Arc<Link>,
    ticket: Ticket,
    indexes: Range<Index>,
    /// The place of its waker, once it was polled.
    waiter: Option<u64>,
}

/// The ways by which appends know of the progress. Each counts its own references, and threads take them in turn: a count
/// that all appending threads change at each append would go from core to core.
#[derive(Debug)]
pub(super) struct Links([Arc<Link>; LINKS]);

/// One way, in a cache line of its own.
#[derive(Debug)]
#[repr(align(128))]
pub(super) struct Link {
    progress: Arc<Progress>,
}

/// How far the log has come: one for all who wait.
#[derive(Debug)]
pub(super) struct Progress {
    /// The last durable ticket; only grows. A copy outside of the lock for those who need not wait.
    durable: AtomicU64,
    /// There is a failure: a copy as well.
    has_failed: AtomicBool,
    slots: [Slot; SLOTS as usize],
    state: Mutex<State>,
    finished: Condvar,
}

/// Where threads sleep that wait for tickets of one remainder.
#[derive(Debug, Default)]
struct Slot {
    sleepers: Mutex<usize>,
    moved: Condvar,
}

/// Those that a flush has made durable, or a failure leaves without an answer. Dropping it wakes them, so hold no lock then: a waker may do anything.
#[must_use = "they are woken when it is dropped"]
pub(super) struct Woken<'a> {
    progress: &'a Progress,
    wakers: BTreeMap<(Ticket, u64), Waker>,
    /// A bit for each slot in which somebody sleeps.
    slots: u64,
    count: usize,
}

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
    pub(super) fn new(link: Arc<Link>, ticket: Ticket, indexes: Range<Index>) -> Pending {
        Pending { link, ticket, indexes, waiter: None }
    }

    /// Blocks until it is durable.
    ///
    /// # Errors
    /// If the disk fails before that is known.
    pub fn wait(self) -> Result<Range<Index>, OutcomeUnknown> {
        self.link.progress.wait(self.ticket).map(|()| self.indexes.clone())
    }

    /// Whether it is on disk, and everything before it.
    pub fn is_durable(&self) -> bool {
        self.link.progress.durable() >= self.ticket
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

impl Future for Pending {
    type Output = Result<Range<Index>, OutcomeUnknown>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let pending = &mut *self;
        match pending.link.progress.poll(pending.ticket, &mut pending.waiter, context.waker()) {
            Poll::Ready(said) => Poll::Ready(said.map(|()| pending.indexes.clone())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        let Some(waiter) = self.waiter else { return };
        // Bound to a name, so that it is dropped when the lock is free.
        let _waker = self.link.progress.take_waker(self.ticket, waiter);
    }
}

impl Links {
    pub fn new(progress: &Arc<Progress>) -> Links {
        Links(std::array::from_fn(|_| Arc::new(Link { progress: Arc::clone(progress) })))
    }

    /// That of the calling thread.
    pub fn link(&self) -> Arc<Link> {
        Arc::clone(&self.0[OWN_LINK.with(|link| *link)])
    }
}

thread_local! {
    static OWN_LINK: usize = {
        static THREADS: AtomicUsize = AtomicUsize::new(0);
        THREADS.fetch_add(1, Ordering::Relaxed) % LINKS
    };
}

impl Default for Progress {
    fn default() -> Progress {
        Progress {
            durable: AtomicU64::new(0),
            has_failed: AtomicBool::new(false),
            slots: std::array::from_fn(|_| Slot::default()),
            state: Mutex::default(),
            finished: Condvar::new(),
        }
    }
}

impl Progress {
    /// Blocks the calling thread until `ticket` is durable.
    pub fn wait(&self, ticket: Ticket) -> Result<(), OutcomeUnknown> {
        if self.durable() >= ticket {
            return Ok(());
        }
        let slot = &self.slots[slot_of(ticket)];
        let mut sleepers = slot.lock();
        // Whoever moves on does so before it looks into the slot, so nobody goes to sleep who is not seen there.
        *sleepers += 1;
        while self.durable() < ticket && !self.has_failed.load(Ordering::Acquire) {
            sleepers = slot.moved.wait(sleepers).unwrap_or_else(PoisonError::into_inner);
        }
        *sleepers -= 1;
        drop(sleepers);
        if self.durable() >= ticket { Ok(()) } else { Err(self.failure().expect("it is set before the flag")) }
    }

    pub fn durable(&self) -> Ticket {
        Ticket(self.durable.load(Ordering::Acquire))
    }

    fn poll(&self, ticket: Ticket, waiter: &mut Option<u64>, waker: &Waker) -> Poll<Result<(), OutcomeUnknown>> {
        // Whoever moves on takes the wakers away: an outcome means that there is none left to remove.
        if self.durable() >= ticket {
            *waiter = None;
            return Poll::Ready(Ok(()));
        }
        // Cloned before the lock, and the one that it replaces dropped after it.
        let waker = waker.clone();
        let _replaced;
        let mut state = self.lock();
        if let Some(said) = self.outcome(&state, ticket) {
            *waiter = None;
            return Poll::Ready(said);
        }
        let waiter = *waiter.get_or_insert_with(|| {
            state.next_waiter += 1;
            state.next_waiter
        });
        _replaced = state.wakers.insert((ticket, waiter), waker);
        Poll::Pending
    }

    fn take_waker(&self, ticket: Ticket, waiter: u64) -> Option<Waker> {
        self.lock().wakers.remove(&(ticket, waiter))
    }

    fn outcome(&self, state: &State, ticket: Ticket) -> Option<Result<(), OutcomeUnknown>> {
        if self.durable() >= ticket {
            return Some(Ok(()));
        }
        state.failure.clone().map(Err)
    }

    /// Everything up to `ticket` is on disk: takes out those who wait for it, to be woken.
    pub fn advance(&self, ticket: Ticket) -> Woken<'_> {
        let before = self.durable();
        if before >= ticket {
            return self.woken(BTreeMap::new(), Ticket(1)..=Ticket(0));
        }
        let mut state = self.lock();
        self.durable.store(ticket.0, Ordering::Release);
        let wakers = if state.wakers.is_empty() {
            BTreeMap::new()
        } else {
            let later = state.wakers.split_off(&(Ticket(ticket.0 + 1), 0));
            std::mem::replace(&mut state.wakers, later)
        };
        drop(state);
        self.woken(wakers, Ticket(before.0 + 1)..=ticket)
    }

    /// The tasks, and the threads that sleep for these tickets.
    fn woken(&self, wakers: BTreeMap<(Ticket, u64), Waker>, tickets: RangeInclusive<Ticket>) -> Woken<'_> {
        let (first, last) = tickets.into_inner();
        let (mut slots, mut count) = (0, wakers.len());
        for ticket in (first.0..=last.0).take(SLOTS as usize) {
            let slot = slot_of(Ticket(ticket));
            let sleepers = *self.slots[slot].lock();
            slots |= u64::from(sleepers > 0) << slot;
            count += sleepers;
        }
        Woken { progress: self, wakers, slots, count }
    }

    /// Nothing becomes durable any more. Takes out all who wait, to be woken.
    pub fn fail(&self, failure: OutcomeUnknown) -> Woken<'_> {
        let mut state = self.lock();
        state.failure.get_or_insert(failure);
        let wakers = std::mem::take(&mut state.wakers);
        drop(state);
        self.has_failed.store(true, Ordering::Release);
        self.finished.notify_all();
        self.woken(wakers, Ticket(1)..=Ticket(SLOTS))
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

impl Slot {
    fn lock(&self) -> MutexGuard<'_, usize> {
        self.sleepers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Woken<'_> {
    pub fn count(&self) -> usize {
        self.count
    }
}

impl Drop for Woken<'_> {
    fn drop(&mut self) {
        for (at, slot) in self.progress.slots.iter().enumerate() {
            if self.slots >> at & 1 == 1 {
                slot.moved.notify_all();
            }
        }
        // A task that waits for many appends, mostly one behind the other, is woken once.
        let mut wakers: Vec<Waker> = std::mem::take(&mut self.wakers).into_values().collect();
        wakers.dedup_by(|next, waker| next.will_wake(waker));
        wakers.into_iter().for_each(Waker::wake);
    }
}

fn slot_of(ticket: Ticket) -> usize {
    (ticket.0 % SLOTS) as usize
}
