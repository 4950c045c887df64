//! The queue's bound, in both ways of meeting it, and what becomes of those who wait for room.

use std::pin::pin;

use super::full_disk::{FULL, PLENTY, append, log};
use super::*;
use crate::limits::CUT_QUEUE_BYTES;

const MAX: usize = 10_000;

fn inbox(when_full: WhenFull) -> (Log, Inbox) {
    let log = log();
    let inbox = Inbox::new(&log, MAX, when_full);
    inbox.settle(&log, PLENTY, Some(0));
    (log, inbox)
}

fn wait_for_blocked(inbox: &Inbox, count: usize) {
    let start = Instant::now();
    while inbox.blocked() != count {
        assert!(start.elapsed() < Duration::from_secs(20), "{} of {count} wait for room", inbox.blocked());
        std::thread::yield_now();
    }
}

#[test]
fn an_append_larger_than_the_queue_goes_when_nothing_else_waits() {
    let (_, busy) = inbox(WhenFull::Busy);
    append(&busy, 10).unwrap();
    let refused = append(&busy, 2 * MAX).unwrap_err();
    assert!(matches!(refused, Refused::Busy { bytes: 56, max: MAX }), "{refused:?}");
    append(&busy, 10).expect("a refusal takes no room");

    let (_, empty) = inbox(WhenFull::Busy);
    append(&empty, 2 * MAX).unwrap();
    assert!(matches!(append(&empty, 1), Err(Refused::Busy { bytes, .. }) if bytes > 2 * MAX));
}

#[test]
fn who_waits_for_room_with_more_than_the_queue_holds_gets_it() {
    comes_to_an_end("who waits for room with more than the queue holds", || {
        let home = home();
        let small = Options { queue_bytes_max: MAX, ..options(&home, IoChoice::Blocking) };
        let (wal, _) = Wal::open(small).unwrap();
        let held = held(&wal);
        wal.append_records(GROUP, [vec![1; 100]]).map(drop).unwrap();
        std::thread::scope(|scope| {
            let large = scope.spawn(|| wal.append_records(GROUP, [vec![2; 5 * MAX]]).unwrap().wait().unwrap());
            wait_for_blocked(&wal.shared.inbox, 1);
            drop(held);
            assert_eq!(large.join().unwrap(), Index(2)..Index(3));
        });
    });
}

#[test]
fn who_waits_for_room_is_told_that_the_log_closes_or_has_failed() {
    comes_to_an_end("who waits for room when the log closes or fails", || {
        for expected in [Refused::Closed, Refused::Log(LogRefused::Poisoned)] {
            let (_, inbox) = inbox(WhenFull::Block);
            append(&inbox, MAX).unwrap();
            std::thread::scope(|scope| {
                let waiting: Vec<_> = (0..3).map(|_| scope.spawn(|| append(&inbox, 1000))).collect();
                wait_for_blocked(&inbox, 3);
                if expected == Refused::Closed {
                    inbox.close()
                } else {
                    inbox.poison()
                }
                for waiting in waiting {
                    assert_eq!(waiting.join().unwrap(), Err(expected));
                }
            });
            assert_eq!(append(&inbox, 1), Err(expected), "and so is who comes later");
            assert_eq!(inbox.cut(GROUP, RecordKind::Purge, LogId::new(Term(1), Index(1))), Err(expected));
        }
    });
}

/// Threads that append as fast as they can into a small queue, when the disk fails: all of them end.
#[test]
fn nobody_is_left_waiting_when_the_disk_fails() {
    comes_to_an_end("who appends when the disk fails", || {
        for when_full in [WhenFull::Block, WhenFull::Busy] {
            let home = home();
            let wrap = |queue| -> Box<dyn disk::Queue> { Box::new(Failing { queue, left: 20 }) };
            let small = Options { queue_bytes_max: MAX, when_full, ..options(&home, IoChoice::Blocking) };
            let (wal, _) = Wal::open_with(&small, wrap).unwrap();
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        let mut pending = Vec::new();
                        let refused = loop {
                            match wal.append_records(GROUP, [vec![3; 4000]]) {
                                Ok(taken) => pending.push(taken),
                                Err(Refused::Busy { .. }) => std::thread::yield_now(),
                                Err(refused) => break refused,
                            }
                        };
                        assert_eq!(refused, Refused::Log(LogRefused::Poisoned));
                        let said: Vec<bool> = pending.into_iter().map(|pending| pending.wait().is_ok()).collect();
                        assert!(said.is_sorted_by(|before, after| before >= after), "durable ones, then unknown ones");
                    });
                }
            });
            assert!(matches!(wal.close(), Err(Error::Failed(_))));
        }
    });
}

fn cut(inbox: &Inbox, index: u64) -> Result<Ticket, Refused> {
    inbox.cut(GROUP, RecordKind::Purge, LogId::new(Term(1), Index(index)))
}

/// Truncates and purges go beyond the queue's bound, by a bound of their own.
#[test]
fn cuts_in_a_loop_on_a_disk_that_hangs_end_at_their_reserve() {
    let (_, inbox) = inbox(WhenFull::Busy);
    append(&inbox, MAX).unwrap();
    assert!(matches!(append(&inbox, 1), Err(Refused::Busy { max: MAX, .. })));
    let mut taken = 0;
    let refused = loop {
        match cut(&inbox, taken + 1) {
            Ok(_) => taken += 1,
            Err(refused) => break refused,
        }
        assert!(taken < 100_000, "cuts grow the queue without bound");
    };
    assert!(taken > 1000, "{taken}: some go where an append does not");
    let max = MAX + CUT_QUEUE_BYTES;
    assert!(matches!(refused, Refused::Busy { bytes, max: said } if bytes <= max && said == max), "{refused:?}");
}

#[test]
fn a_cut_beyond_the_reserve_blocks_and_goes_on_when_something_was_written() {
    comes_to_an_end("a cut beyond the reserve", || {
        let home = home();
        let (wal, _) = Wal::open(Options { queue_bytes_max: MAX, ..options(&home, IoChoice::Blocking) }).unwrap();
        let cuts = ((MAX + CUT_QUEUE_BYTES) / 40 + 100) as u64;
        wal.append_records(GROUP, vec!["x"; cuts as usize + 1]).unwrap().wait().unwrap();
        let held = wal.shared.log();
        std::thread::scope(|scope| {
            let purging = scope.spawn(|| {
                for index in 1..=cuts {
                    wal.purge_prefix(GROUP, LogId::new(Term(1), Index(index))).map(drop).unwrap();
                }
            });
            wait_for_blocked(&wal.shared.inbox, 1);
            drop(held);
            purging.join().unwrap();
        });
        wal.flush().wait().unwrap();
        assert_eq!(wal.group(GROUP).unwrap().before_first.index, Index(cuts));
    });
}

/// What must go on when the queue or the disk is full is taken where a cut is, and no further.
#[test]
fn an_append_beside_cuts_goes_where_an_append_does_not() {
    for is_disk_full in [false, true] {
        let (log, inbox) = inbox(WhenFull::Busy);
        append(&inbox, MAX - 100).unwrap();
        if is_disk_full {
            inbox.settle(&log, FULL, None);
        }
        append(&inbox, 1000).unwrap_err();
        let beside = |index| inbox.append(GroupId(1), vec![entry(1, index)], Share::Cuts);
        let refused = (1..100_000).find_map(|index| beside(index).err().map(|refused| (index, refused)));
        let (taken, refused) = refused.expect("they grow the queue without bound");
        assert!(taken > 1000, "{taken}");
        match is_disk_full {
            true => assert_eq!(refused, Refused::Log(LogRefused::NoSpace)),
            false => assert!(matches!(refused, Refused::Busy { max, .. } if max == MAX + CUT_QUEUE_BYTES), "{refused}"),
        }
    }
}

/// The queue may never empty on a full disk, so nobody waits there.
#[test]
fn a_cut_beyond_the_reserve_is_told_that_the_disk_is_full() {
    comes_to_an_end("a cut beyond the reserve of a full disk", || {
        let (log, inbox) = inbox(WhenFull::Block);
        inbox.settle(&log, FULL, None);
        let refused = (1..100_000).find_map(|index| cut(&inbox, index).err());
        assert_eq!(refused, Some(Refused::Log(LogRefused::NoSpace)));
        std::thread::scope(|scope| {
            inbox.settle(&log, PLENTY, None);
            let waiting = scope.spawn(|| cut(&inbox, 100_001));
            wait_for_blocked(&inbox, 1);
            inbox.settle(&log, FULL, None);
            let start = Instant::now();
            while inbox.blocked() > 0 && start.elapsed() < Duration::from_secs(10) {
                std::thread::yield_now();
            }
            inbox.close();
            assert_eq!(waiting.join().unwrap(), Err(Refused::Log(LogRefused::NoSpace)), "it is answered at once");
        });
    });
}

/// With `Busy` a task waits for room as a thread does otherwise, and is told when there will be none because the log failed.
#[test]
fn a_task_waits_for_room_and_learns_of_a_failure() {
    comes_to_an_end("a task that waits for room", || {
        let home = home();
        let busy = Options { when_full: WhenFull::Busy, queue_bytes_max: MAX, ..options(&home, IoChoice::Blocking) };
        let (wal, _) = Wal::open_with(&busy, |queue| Box::new(Failing { queue, left: 20 })).unwrap();
        let is_busy = |refused: &Refused| matches!(refused, Refused::Busy { .. });
        let mut waits = 0;
        let refused = loop {
            let mut append = pin!(wal.with_room(|| wal.append_records(GROUP, [vec![7; 4000]]), is_busy));
            let said = super::super::waiting::wait(|context| {
                let polled = append.as_mut().poll(context);
                waits += usize::from(polled.is_pending());
                polled
            });
            match said {
                Ok(pending) => drop(pending),
                Err(refused) => break refused,
            }
        };
        assert_eq!(refused, Refused::Log(LogRefused::Poisoned));
        assert!(waits > 5, "{waits} times");
        assert!(wal.close().is_err());
    });
}
