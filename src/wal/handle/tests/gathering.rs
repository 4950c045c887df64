//! Whom the log's thread waits for, and how long.

use std::cell::Cell;

use super::super::gathering::Gathering;
use super::super::pending::{Links, Progress};
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
    let mut gathering = Gathering::default();
    for (woken, waiting, is_worthwhile) in
        [(0, 9, false), (1, 0, false), (1, 1, true), (8, 0, true), (8, 8, true), (9, 8, false), (1, 8_000, false)]
    {
        assert_eq!(gathering.is_worthwhile(woken, waiting), is_worthwhile, "{woken} {waiting}");
    }
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
    wait(&mut gathering, 4, 2);
    assert!(gathering.is_worthwhile(4, 0), "half of them came");
    let start = Instant::now();
    wait(&mut gathering, 4, 1);
    assert!(start.elapsed() < Duration::from_secs(5));
    let skipped = (0..100).take_while(|_| !gathering.is_worthwhile(4, 0)).count();
    assert_eq!(skipped, 32);
}

/// Between a flush and the next write the log may fail: what was durable before is told all the same.
#[test]
fn who_is_taken_out_to_be_woken_is_woken_whatever_comes_next() {
    let progress = Arc::new(Progress::default());
    let links = Links::new(&progress);
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    let mut pending = Box::pin(Pending::new(links.link(), Ticket(1), Index(1)..Index(2)));
    assert!(pending.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    drop(progress.advance(Ticket(1)));
    assert_eq!(woken.0.load(Ordering::SeqCst), 1);
    assert!(pending.as_mut().poll(&mut Context::from_waker(&waker)).is_ready());
}
