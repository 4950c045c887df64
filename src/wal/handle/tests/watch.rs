//! Watching a durable end: no advance is missed, whatever comes between the watcher's steps.

use std::future::Future;
use std::pin::pin;

use super::full_disk::log;
use super::tail::{put, small_log};
use super::*;
use crate::wal::frame::Run;

const INDEXES: u64 = 3000;

/// The durable end of `GROUP` and what a watcher of it does, step by step on one thread.
struct Steps {
    log: Log,
    followers: Arc<Followers>,
    watch: DurableWatch,
    woken: Arc<Woken>,
    waker: Waker,
    last: u64,
}

/// What came of a poll.
type Polled = Poll<Result<Index, Ended>>;

impl Steps {
    fn new() -> Steps {
        let mut log = log();
        let followers = Arc::new(Followers::new(&mut log));
        let watch = DurableWatch::new(&followers, GROUP);
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        Steps { log, followers, watch, woken, waker, last: 0 }
    }

    /// One entry becomes durable, or one is cut off and written again; and that is published.
    fn advance(&mut self, first: u64) {
        let run = Run {
            group: GROUP,
            kind: RecordKind::Entry,
            first: Index(first),
            count: 1,
            term: Term(1),
            previous_term: Term(1),
        };
        self.log.locator.followed.as_mut().unwrap().note(&run);
        self.followers.publish(&mut self.log);
        self.last = first;
    }

    fn poll(&self, wanted: Option<u64>) -> Polled {
        // Not through `Reached`, which takes its waker away when it goes.
        let said = match wanted {
            Some(wanted) => self.watch.follower().reached(Index(wanted), &self.waker),
            None => self.watch.follower().changed(&self.waker),
        };
        said.map_or(Poll::Pending, Poll::Ready)
    }

    fn wakes(&self) -> usize {
        self.woken.0.load(Ordering::SeqCst)
    }
}

/// All orders of seven steps: a watcher that sleeps has missed nothing, and one that is told is told the truth.
#[test]
fn no_order_of_steps_misses_an_advance() {
    for order in 0..4_u32.pow(7) {
        let mut steps = Steps::new();
        let (mut is_asleep, mut unseen, mut due) = (false, false, 0);
        for step in (0..7).map(|place| order / 4_u32.pow(place) % 4) {
            match step {
                0 | 1 => {
                    // Once further, once to the same end again.
                    steps.advance(if step == 0 { steps.last + 1 } else { steps.last.max(1) });
                    unseen = true;
                    due += usize::from(std::mem::take(&mut is_asleep));
                }
                2 => steps.followers.wake(),
                _ => {
                    let polled = steps.poll(None);
                    assert_eq!(polled.is_ready(), unseen, "order {order}");
                    if let Poll::Ready(said) = polled {
                        assert_eq!(said.unwrap(), Index(steps.last));
                    }
                    is_asleep = !std::mem::take(&mut unseen);
                }
            }
        }
        steps.followers.wake();
        assert_eq!(steps.wakes(), due, "order {order}: woken once for each sleep that was over");
    }
}

#[test]
fn who_wants_an_index_is_woken_when_it_is_reached_and_not_before() {
    let mut steps = Steps::new();
    assert!(steps.poll(Some(3)).is_pending());
    for index in 1..=2 {
        steps.advance(index);
        steps.followers.wake();
        assert_eq!(steps.wakes(), 0);
    }
    steps.advance(3);
    steps.followers.wake();
    assert_eq!(steps.wakes(), 1);
    assert_eq!(steps.poll(Some(3)).map(Result::unwrap), Poll::Ready(Index(3)));
    assert!(steps.poll(Some(4)).is_pending());
    steps.followers.end(None);
    assert_eq!(steps.wakes(), 2);
    assert!(matches!(steps.poll(Some(4)), Poll::Ready(Err(Ended::Closed))));
    assert!(matches!(steps.poll(Some(3)), Poll::Ready(Ok(Index(3)))));
    assert!(matches!(steps.poll(None), Poll::Ready(Ok(Index(3)))), "the changes that were not seen come first");
    assert!(matches!(steps.poll(None), Poll::Ready(Err(Ended::Closed))));
    assert_eq!(steps.followers.counts(), (1, 0), "nobody waits for what has ended");
}

#[test]
fn watchers_see_every_end_that_stays() {
    let home = home();
    let wal = small_log(&home);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            let mut watch = wal.watch(GROUP);
            scope.spawn(move || {
                let mut seen = watch.durable();
                while seen < Index(INDEXES) {
                    let now = watch.changed().wait().unwrap();
                    assert!(now >= seen);
                    seen = now;
                }
            });
            let mut watch = wal.watch(GROUP);
            scope.spawn(move || {
                let mut seen = Index::ZERO;
                while seen < Index(INDEXES) {
                    let now = watch.at_least(seen.next()).wait().unwrap();
                    assert!(now > seen);
                    seen = now;
                }
            });
        }
        for index in 1..=INDEXES {
            let pending = wal.append_records(GROUP, ["x"]).unwrap();
            if index % 16 == 0 {
                assert_eq!(pending.wait().unwrap().end, Index(index + 1));
                assert!(wal.durable_index(GROUP) >= Index(index), "it is published before a waiter is woken");
            }
        }
    });
    assert_eq!(wal.shared.followers.counts(), (0, 0));
}

#[test]
fn a_ticket_can_be_waited_for_by_its_number() {
    let home = home();
    let wal = small_log(&home);
    let held = held(&wal);
    let first = wal.append_records(GROUP, ["x"]).unwrap();
    let again = wal.pending_up_to(first.ticket());
    let ahead = wal.pending_up_to(Ticket(1000));
    assert_eq!(ahead.ticket(), first.ticket(), "as far as anything was taken");
    assert!(!again.is_durable());
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    let mut again = pin!(again);
    assert!(again.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    drop(held);
    first.wait().unwrap();
    ahead.wait().unwrap();
    assert!(again.poll(&mut Context::from_waker(&waker)).is_ready());
    put(&wal, GROUP, 1, 2..3);
    assert!(wal.durable() >= Ticket(2));
}
