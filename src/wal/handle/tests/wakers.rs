//! Wakers are the code of those who wait: they call back into the log when they are woken, and when they are dropped.

use std::future::Future;
use std::pin::pin;

use super::tail::{put, small, small_log};
use super::*;

/// A second handle of an open log, which ends nothing when it is dropped.
fn guest(wal: &Wal) -> Wal {
    Wal { shared: Arc::clone(&wal.shared), links: Links::new(&wal.shared.progress), thread: None }
}

/// A waker that takes every lock of the log there is, through the calls that anybody has.
struct Nosy {
    wal: Wal,
    calls: Arc<Calls>,
}

#[derive(Default)]
struct Calls {
    wakes: AtomicUsize,
    drops: AtomicUsize,
}

impl Nosy {
    fn call_back(&self) {
        let end = self.wal.durable_index(GROUP).next();
        let first = self.wal.group(GROUP).map_or(Index(1), |group| group.before_first.index.next());
        assert!(self.wal.read(GROUP, first..end, 1 << 20).is_ok());
        assert!(self.wal.counters().flushes > 0);
        drop((self.wal.failure(), self.wal.tail(GROUP, end), self.wal.flush()));
        // Refused, if the log has ended.
        drop(self.wal.append_records(GroupId(9), ["from a waker"]));
    }
}

impl Wake for Nosy {
    fn wake(self: Arc<Self>) {
        self.call_back();
        self.calls.wakes.fetch_add(1, Ordering::SeqCst);
    }
}

impl Drop for Nosy {
    fn drop(&mut self) {
        self.call_back();
        self.calls.drops.fetch_add(1, Ordering::SeqCst);
    }
}

/// A waker of which nobody else has a copy once the poll is over: who drops it drops all of it.
fn nosy(wal: &Wal, calls: &Arc<Calls>) -> Waker {
    Waker::from(Arc::new(Nosy { wal: guest(wal), calls: Arc::clone(calls) }))
}

fn wait_until(what: &str, count: &AtomicUsize, wanted: usize) {
    let start = Instant::now();
    while count.load(Ordering::SeqCst) < wanted {
        assert!(start.elapsed() < Duration::from_secs(20), "{what}: {} of {wanted}", count.load(Ordering::SeqCst));
        std::thread::yield_now();
    }
}

/// What waits, polled once with a waker.
type Poller = Box<dyn FnMut(&mut Context<'_>) -> bool + Send>;

const KINDS: [&str; 4] = ["pending", "tail", "at least", "changed"];

/// Something that waits for the next entry of the group.
fn waiting(wal: &Wal, kind: &str) -> Poller {
    let next = wal.durable_index(GROUP).next();
    match kind {
        "pending" => {
            let mut pending = Box::pin(wal.append_records(GROUP, ["next"]).unwrap());
            Box::new(move |context| pending.as_mut().poll(context).is_ready())
        }
        "tail" => {
            let mut tail = wal.tail(GROUP, next);
            Box::new(move |context| tail.poll_next(context).is_ready())
        }
        _ => {
            let watch = wal.watch(GROUP);
            let wanted = (kind == "at least").then_some(next);
            // Not through `Reached`, which takes its waker away when it goes.
            Box::new(move |context| match wanted {
                Some(wanted) => watch.follower().reached(wanted, context.waker()).is_some(),
                None => watch.follower().changed(context.waker()).is_some(),
            })
        }
    }
}

/// How it comes that a waker is woken, or dropped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    /// What is waited for becomes durable.
    Flushed,
    Failed,
    Closed,
    /// Another waker takes its place.
    Replaced,
    GivenUp,
}

fn story(kind: &'static str, end: End) {
    let home = home();
    let gate = Arc::new(Gate::default());
    let (wal, _) = Wal::open_with(&small(&home), gated(&gate)).unwrap();
    put(&wal, GROUP, 1, 1..2);
    gate.set(GateState::Held);
    let calls = Arc::new(Calls::default());
    let mut waiting = waiting(&wal, kind);
    let poll_with = |waiting: &mut Poller, waker: Waker| waiting(&mut Context::from_waker(&waker));
    assert!(!poll_with(&mut waiting, nosy(&wal, &calls)));
    assert_eq!(calls.drops.load(Ordering::SeqCst), 0, "it is kept");
    let is_woken = match end {
        End::Flushed | End::Failed => {
            drop(wal.append_records(GROUP, ["one more"]).unwrap());
            gate.set(if end == End::Flushed { GateState::Open } else { GateState::Fails });
            wait_until("it is woken", &calls.wakes, 1);
            true
        }
        End::Closed => {
            gate.set(GateState::Open);
            wal.close().unwrap();
            wait_until("it is woken", &calls.wakes, 1);
            true
        }
        End::Replaced => {
            assert!(!poll_with(&mut waiting, Waker::noop().clone()));
            gate.set(GateState::Open);
            false
        }
        End::GivenUp => {
            drop(waiting);
            gate.set(GateState::Open);
            waiting = Box::new(|_| true);
            false
        }
    };
    wait_until("it is dropped", &calls.drops, 1);
    assert_eq!(calls.wakes.load(Ordering::SeqCst), usize::from(is_woken), "{kind} {end:?}");
    if is_woken {
        assert!(poll_with(&mut waiting, Waker::noop().clone()), "what it waited for is there, or will never be");
    }
}

#[test]
fn a_waker_may_call_back_into_the_log_when_it_is_woken_and_when_it_is_dropped() {
    for kind in KINDS {
        for end in [End::Flushed, End::Failed, End::Closed, End::Replaced, End::GivenUp] {
            comes_to_an_end(&format!("{kind} {end:?}"), move || story(kind, end));
        }
    }
}

/// Futures that are dropped before they are done take their waker away, and it goes when no lock is held.
#[test]
fn the_waker_of_a_dropped_future_may_call_back_into_the_log() {
    comes_to_an_end("a dropped future", || {
        let home = home();
        let wal = small_log(&home);
        put(&wal, GROUP, 1, 1..2);
        let calls = Arc::new(Calls::default());
        let (mut tail, mut watch) = (wal.tail(GROUP, Index(2)), wal.watch(GROUP));
        assert!(pin!(tail.next_event()).poll(&mut Context::from_waker(&nosy(&wal, &calls))).is_pending());
        assert!(pin!(watch.changed()).poll(&mut Context::from_waker(&nosy(&wal, &calls))).is_pending());
        assert!(pin!(watch.at_least(Index(2))).poll(&mut Context::from_waker(&nosy(&wal, &calls))).is_pending());
        assert_eq!((calls.drops.load(Ordering::SeqCst), calls.wakes.load(Ordering::SeqCst)), (3, 0));
    });
}

/// Who waits, and owns the log: with this waker the last handle goes.
struct Owner {
    wal: Option<Wal>,
    /// The threads on which it went.
    went: Arc<Mutex<Vec<Option<String>>>>,
}

impl Wake for Owner {
    fn wake(self: Arc<Self>) {}
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.wal = None;
        self.went.lock().unwrap().push(std::thread::current().name().map(str::to_owned));
    }
}

/// The log's thread waited for its own end there.
fn last_handle_story(kind: &'static str, state: GateState) {
    let home = home();
    let gate = Arc::new(Gate::default());
    let (wal, _) = Wal::open_with(&small(&home), gated(&gate)).unwrap();
    put(&wal, GROUP, 1, 1..2);
    gate.set(GateState::Held);
    let mut waiting = waiting(&wal, kind);
    let one_more = wal.append_records(GROUP, ["one more"]).unwrap();
    let went = Arc::default();
    let owner = Waker::from(Arc::new(Owner { wal: Some(wal), went: Arc::clone(&went) }));
    assert!(!waiting(&mut Context::from_waker(&owner)));
    // The log has the only one now.
    drop(owner);
    assert!(went.lock().unwrap().is_empty(), "it is kept");
    gate.set(state);
    let start = Instant::now();
    while went.lock().unwrap().is_empty() {
        assert!(start.elapsed() < Duration::from_secs(20), "{kind} {state:?}: never woken");
        std::thread::yield_now();
    }
    assert_eq!(*went.lock().unwrap(), [Some("wal".to_owned())], "it went on the log's own thread");
    assert!(waiting(&mut Context::from_waker(Waker::noop())), "what it waited for is there, or will never be");
    // A tail keeps the directory.
    drop(waiting);
    assert_eq!(one_more.wait().is_ok(), state == GateState::Open, "what was taken is finished");
    let reopened = loop {
        match Wal::open(small(&home)) {
            Ok((wal, _)) => break wal,
            Err(Error::InUse { .. }) => assert!(start.elapsed() < Duration::from_secs(20), "never free"),
            Err(error) => panic!("{error}"),
        }
    };
    assert!(state != GateState::Open || data(read_all(&reopened).last().unwrap()) == b"one more");
}

#[test]
fn a_waker_that_drops_the_last_handle_closes_the_log_behind_it() {
    for kind in KINDS {
        for state in [GateState::Open, GateState::Fails] {
            comes_to_an_end(&format!("{kind} {state:?}"), move || last_handle_story(kind, state));
        }
    }
}
