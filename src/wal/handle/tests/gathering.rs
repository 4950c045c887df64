//! Whom the log's thread waits for, and how long.

use std::cell::Cell;

use super::super::gathering::Gathering;
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
