//! How a tail waits, is woken, and ends.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::AtomicBool;

use super::tail::{put, small, small_log, told};
use super::*;

fn waker() -> (Arc<Woken>, Waker) {
    let woken = Arc::new(Woken::default());
    (Arc::clone(&woken), Waker::from(woken))
}

fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(20), "{what}");
        std::thread::yield_now();
    }
}

#[test]
fn who_stops_waiting_leaves_no_waker() {
    let home = home();
    let wal = small_log(&home);
    let counts = || wal.shared.followers.counts();
    let (_, waker) = waker();
    let mut context = Context::from_waker(&waker);
    let mut tail = wal.tail(GROUP, Index(1));
    assert_eq!(counts(), (1, 0));
    assert!(tail.poll_next(&mut context).is_pending());
    assert!(tail.poll_next(&mut context).is_pending());
    assert_eq!(counts(), (1, 1), "one, however often it was polled");
    drop(tail);
    assert_eq!(counts(), (0, 0));

    let mut tail = wal.tail(GROUP, Index(1));
    assert!(pin!(tail.next_event()).poll(&mut context).is_pending());
    assert_eq!(counts(), (1, 0), "the future is gone, and its waker");
    assert!(tail.next_timeout(Duration::from_millis(1)).is_pending());
    assert_eq!(counts(), (1, 0));
    let mut watch = wal.watch(GROUP);
    assert!(pin!(watch.changed()).poll(&mut context).is_pending());
    assert!(watch.at_least(Index(1)).wait_timeout(Duration::from_millis(1)).is_pending());
    assert_eq!(counts(), (2, 0));
    drop((tail, watch));
    assert_eq!(counts(), (0, 0));
    assert_eq!(Arc::strong_count(&wal.shared.followers), 1, "nobody else holds on to it");
}

/// The flush of many records is one wake, and those of another group are none.
#[test]
fn it_wakes_once_for_a_flush_and_for_its_own_group() {
    let home = home();
    let wal = small_log(&home);
    let (woken, waker) = waker();
    let mut context = Context::from_waker(&waker);
    let mut tail = wal.tail(GROUP, Index(1));
    assert!(tail.poll_next(&mut context).is_pending());
    for _ in 0..20 {
        wal.append_records(GroupId(7), ["other"]).unwrap().wait().unwrap();
    }
    assert_eq!(woken.0.load(Ordering::SeqCst), 0);

    let (mut wakes, mut given) = (0, 0);
    let before = wal.counters().flushes;
    let pending: Vec<Pending> = {
        let _held = held(&wal);
        (0..1000).map(|_| wal.append_records(GROUP, ["x"]).unwrap()).collect()
    };
    wait_for("it is woken", || {
        wakes += woken.0.swap(0, Ordering::SeqCst);
        while tail.poll_next(&mut context).is_ready() {
            given += 1;
        }
        given == 1000
    });
    for pending in pending {
        pending.wait().unwrap();
    }
    wakes += woken.0.swap(0, Ordering::SeqCst);
    let flushes = wal.counters().flushes - before;
    assert!((1..=flushes as usize).contains(&wakes) && wakes < 10, "{wakes} wakes, {flushes} flushes");
}

#[test]
fn any_thread_and_any_runtime_may_wait() {
    fn is_send<T: Send + 'static>(_: &T) {}
    let home = home();
    let wal = small_log(&home);
    let mut tail = wal.tail(GROUP, Index(1));
    let mut watch = wal.watch(GROUP);
    is_send(&tail);
    is_send(&watch);
    let blocked = std::thread::spawn(move || (tail.next().unwrap().unwrap(), watch.at_least(Index(1)).wait().unwrap()));
    wait_for("it waits", || wal.shared.followers.counts().1 == 1);
    put(&wal, GROUP, 1, 1..2);
    let (event, reached) = blocked.join().unwrap();
    assert!(matches!(event, Event::Entry(entry) if entry.id.index == Index(1)) && reached == Index(1));

    let mut tail = wal.tail(GROUP, Index(2));
    let (woken, waker) = waker();
    let mut next = pin!(tail.next_event());
    assert!(next.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    put(&wal, GROUP, 1, 2..3);
    wait_for("it is woken", || woken.0.load(Ordering::SeqCst) == 1);
    let Poll::Ready(Some(Ok(Event::Entry(entry)))) = next.as_mut().poll(&mut Context::from_waker(&waker)) else {
        panic!("there is an entry")
    };
    assert_eq!(entry.id.index, Index(2));
}

#[test]
fn closing_ends_a_tail_when_it_has_given_everything() {
    for is_dropped in [false, true] {
        let home = home();
        let wal = small_log(&home);
        put(&wal, GROUP, 1, 1..3);
        let mut behind = wal.tail(GROUP, Index(1));
        let mut waiting = wal.tail(GROUP, Index(3));
        let mut watch = wal.watch(GROUP);
        let blocked = std::thread::spawn(move || {
            let events: Vec<String> = waiting.by_ref().map(|event| format!("{:?}", event.is_ok())).collect();
            (events, waiting.next().is_none(), waiting.index())
        });
        wait_for("it waits", || wal.shared.followers.counts().1 == 1);
        let pending = wal.append_records(GROUP, ["three"]).unwrap();
        if is_dropped {
            drop(wal);
        } else {
            wal.close().unwrap();
        }
        assert_eq!(pending.wait().unwrap(), Index(3)..Index(4));
        assert_eq!(blocked.join().unwrap(), (vec!["true".to_owned()], true, None));
        assert!(matches!(watch.at_least(Index(4)).wait(), Err(Ended::Closed)));
        assert_eq!(watch.at_least(Index(3)).wait().unwrap(), Index(3), "what was reached stays reached");

        let busy = Wal::open(small(&home)).unwrap_err();
        assert!(matches!(busy, Error::InUse { .. }), "one tail still reads the directory: {busy}");
        let mut events: Vec<Event> = behind.by_ref().map(Result::unwrap).collect();
        assert_eq!(events.len(), 3);
        let Some(Event::Entry(entry)) = events.pop() else { panic!("{events:?}") };
        assert_eq!(data(&entry), b"three");
        let (wal, _) = Wal::open(small(&home)).expect("it has ended, and holds nothing, nor does the watch");
        drop((behind, wal));
    }
}

#[test]
fn a_failed_log_gives_what_is_durable_and_then_the_error() {
    for io in back_ends() {
        let home = home();
        let wrap = |queue| -> Box<dyn disk::Queue> { Box::new(Failing { queue, left: 20 }) };
        let (wal, _) = Wal::open_with(&options(&home, io), wrap).unwrap();
        let mut watch = wal.watch(GROUP);
        let mut late = wal.tail(GROUP, Index(1));
        let mut tail = wal.tail(GROUP, Index(1));
        let follower = std::thread::spawn(move || {
            let mut given = 0;
            loop {
                match tail.next() {
                    Some(Ok(Event::Entry(_))) => given += 1,
                    Some(Err(Error::Failed(_))) => return (given, tail.next().is_none()),
                    other => panic!("{other:?}"),
                }
            }
        });
        let mut durable = 0;
        while wal.append_records(GROUP, ["x"]).is_ok_and(|pending| pending.wait().is_ok()) {
            durable += 1;
        }
        assert_eq!(follower.join().unwrap(), (durable, true), "all that is durable, the error, the end");
        assert!(matches!(watch.at_least(Index(1000)).wait(), Err(Ended::Failed(_))));
        let events: Vec<_> = late.by_ref().collect();
        assert!(events.len() == durable + 1 && matches!(events.last(), Some(Err(Error::Failed(_)))), "{events:?}");
        assert_eq!(wal.shared.followers.counts(), (1, 0), "the watch alone");
        assert_eq!(wal.iter(GROUP, Index(1)).map(Result::unwrap).count(), durable);
        drop(wal);
    }
}

static IS_ARMED: AtomicBool = AtomicBool::new(false);

/// Once it is armed: two completions at once, the second with an error.
struct Together {
    queue: Box<dyn disk::Queue>,
    held: VecDeque<disk::Completion>,
    is_giving: bool,
}

impl disk::Queue for Together {
    fn submit(&mut self, write: disk::Write) {
        self.queue.submit(write);
    }

    fn take(&mut self) -> Option<disk::Completion> {
        if !IS_ARMED.load(Ordering::SeqCst) {
            return self.queue.take();
        }
        while let Some(completion) = self.queue.take() {
            self.held.push_back(completion);
        }
        if self.held.len() == 2 && !self.is_giving {
            self.is_giving = true;
            let error = std::io::Error::from_raw_os_error(5);
            self.held[1].result = Err(disk::Error::new(Operation::Flush, "the segment", error));
        }
        if self.is_giving { self.held.pop_front() } else { None }
    }
}

/// The turn that meets the failure has made a cut durable before: a follower does not go on as if it had not.
#[test]
fn what_became_durable_beside_a_failure_is_told() {
    let home = home();
    let wrap =
        |queue| -> Box<dyn disk::Queue> { Box::new(Together { queue, held: VecDeque::new(), is_giving: false }) };
    let options = Options { writes_in_flight: Some(2), ..small(&home) };
    let (wal, _) = Wal::open_with(&options, wrap).unwrap();
    let mut tail = wal.tail(GROUP, Index(1));
    put(&wal, GROUP, 1, 1..4);
    assert_eq!(told(&mut tail), ["1@1", "2@1", "3@1"]);
    wait_for("it is quiet", || wal.shared.log().is_covered() && wal.shared.log().is_idle());
    IS_ARMED.store(true, Ordering::SeqCst);
    let replaced = wal.append(GROUP, vec![entry(2, 2)]).unwrap();
    wait_for("it is with the disk", || wal.shared.log().queued_bytes() == 0 && !wal.shared.log().is_idle());
    let failed = wal.append(GROUP, vec![entry(2, 3)]).unwrap();
    assert!(failed.wait().is_err());
    drop(replaced);
    let Some(Ok(Event::Truncated { from })) = tail.next() else { panic!("the cut is durable") };
    let Some(Ok(Event::Entry(entry))) = tail.next() else { panic!("the entry is durable") };
    assert_eq!((from, entry.id), (Index(2), LogId::new(Term(2), Index(2))));
    assert!(matches!(tail.next(), Some(Err(Error::Failed(_)))));
}
