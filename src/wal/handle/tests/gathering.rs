//! Whom the log's thread waits for, and how long.

use std::cell::Cell;
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::atomic::AtomicU64;

use super::super::gathering::Gathering;
use super::super::open::SUPERBLOCK_TOKENS;
use super::*;

/// Waits for `woken` of whom `come` come, one at each look; gives the looks.
fn wait(gathering: &mut Gathering, woken: usize, come: usize) -> usize {
    let looks = Cell::new(0);
    gathering.wait(woken, 1, || {
        looks.set(looks.get() + 1);
        1 + come.min(looks.get())
    });
    looks.get()
}

#[test]
fn a_few_are_awaited_and_one_alone_or_many_are_not() {
    for (flushed, waiting, is_worthwhile) in
        [(1, 0, false), (1, 1, true), (8, 0, true), (8, 8, true), (9, 8, false), (1, 8_000, false)]
    {
        assert_eq!(Gathering::default().is_worthwhile(flushed, waiting), is_worthwhile, "{flushed} {waiting}");
    }
}

#[test]
fn a_small_frame_of_many_appenders_is_no_sign_of_few() {
    let mut gathering = Gathering::default();
    assert!(!gathering.is_worthwhile(40, 24));
    let small = (0..100).take_while(|_| !gathering.is_worthwhile(4, 4)).count();
    assert_eq!(small, 9, "then there are few indeed");
}

#[test]
fn the_wait_ends_when_all_have_come() {
    let mut gathering = Gathering::default();
    // Where this thread loses its processor for as long as the wait may take, the time ends it.
    assert!((0..1000).any(|_| wait(&mut gathering, 4, 4) == 4));
}

#[test]
fn those_who_do_not_come_are_awaited_seldom() {
    let mut gathering = Gathering::default();
    wait(&mut gathering, 4, 1);
    assert!(gathering.is_worthwhile(4, 0), "one of them came");
    let start = Instant::now();
    wait(&mut gathering, 4, 0);
    assert!(start.elapsed() < Duration::from_secs(5));
    let skipped = (0..100).take_while(|_| !gathering.is_worthwhile(4, 0)).count();
    assert_eq!(skipped, 32);
}

/// Tells what became of so many frames and no more.
struct Rationed {
    queue: Box<dyn disk::Queue>,
    ration: Arc<Ration>,
    held: VecDeque<disk::Completion>,
}

#[derive(Default)]
struct Ration {
    submitted: AtomicU64,
    allowed: AtomicU64,
}

impl disk::Queue for Rationed {
    fn submit(&mut self, write: disk::Write) {
        let is_frame = write.token.0 < SUPERBLOCK_TOKENS;
        self.queue.submit(write);
        self.ration.submitted.fetch_add(u64::from(is_frame), Ordering::SeqCst);
    }

    fn take(&mut self) -> Option<disk::Completion> {
        while let Some(completion) = self.queue.take() {
            if completion.token.0 >= SUPERBLOCK_TOKENS {
                return Some(completion);
            }
            self.held.push_back(completion);
        }
        let allowed = self.ration.allowed.load(Ordering::SeqCst);
        let completion = if allowed > 0 { self.held.pop_front() } else { None };
        self.ration.allowed.fetch_sub(u64::from(completion.is_some()), Ordering::SeqCst);
        completion
    }

    fn hand_over(&mut self) {
        self.queue.hand_over();
    }
}

/// Lifts the ration, however the test ends: a log whose completions nobody hears of cannot be closed.
struct Lifted(Arc<Ration>);

impl Drop for Lifted {
    fn drop(&mut self) {
        self.0.allowed.store(u64::MAX, Ordering::SeqCst);
    }
}

/// An appender that appends anew at the very moment at which it is woken.
struct Again {
    wal: Weak<Wal>,
    appended: Mutex<Option<Pending>>,
}

impl Wake for Again {
    fn wake(self: Arc<Self>) {
        let wal = self.wal.upgrade().expect("the test has it");
        *self.appended.lock().unwrap() = Some(wal.append_records(GROUP, ["again"]).unwrap());
    }
}

fn until<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(start.elapsed() < Duration::from_secs(20), "it never came");
        std::thread::yield_now();
    }
}

/// Behind a flush that leaves the disk idle: whoever appends when it wakes him is in one frame with who waited already.
#[test]
fn those_whom_a_flush_wakes_share_the_next_frame_with_those_who_wait() {
    for io in back_ends() {
        let home = home();
        let options = Options { writes_in_flight: Some(1), ..options(&home, io) };
        let ration = Arc::new(Ration::default());
        let rationed = Arc::clone(&ration);
        let wrap = move |queue| -> Box<dyn disk::Queue> {
            Box::new(Rationed { queue, ration: rationed, held: VecDeque::new() })
        };
        let wal = Arc::new(Wal::open_with(&options, wrap).unwrap().0);
        let lifted = Lifted(Arc::clone(&ration));
        let again = Arc::new(Again { wal: Arc::downgrade(&wal), appended: Mutex::default() });

        let mut first = wal.append_records(GROUP, ["first"]).unwrap();
        let waker = Waker::from(Arc::clone(&again));
        assert!(Pin::new(&mut first).poll(&mut Context::from_waker(&waker)).is_pending());
        until(|| (ration.submitted.load(Ordering::SeqCst) == 1).then_some(()));
        let waiting = wal.append_records(GROUP, ["waiting"]).unwrap();
        ration.allowed.store(1, Ordering::SeqCst);
        let again = until(|| again.appended.lock().unwrap().take());
        assert_eq!(again.ticket(), waiting.ticket(), "one write for both");
        ration.allowed.store(1, Ordering::SeqCst);
        assert_eq!(waiting.wait().unwrap(), Index(2)..Index(3));
        assert_eq!(again.wait().unwrap(), Index(3)..Index(4));
        drop(lifted);
        Arc::into_inner(wal).expect("nobody else has it").close().unwrap();
    }
}
