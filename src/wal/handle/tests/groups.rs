//! Several groups in one log: one flush, indexes of their own.

use super::tail::{put, small_log, told};
use super::*;

const OTHER: GroupId = GroupId(5);

#[test]
fn groups_share_a_flush_and_nothing_else() {
    let home = home();
    let wal = small_log(&home);
    let (mut tail, mut other) = (wal.tail(GROUP, Index(1)), wal.tail(OTHER, Index(1)));
    let before = wal.counters().flushes;
    let held = held(&wal);
    let mut pending = Vec::new();
    for number in 0..100 {
        pending.push(wal.append_records(GROUP, [format!("{number}")]).unwrap());
        pending.push(wal.append_records(OTHER, [format!("{number}"), format!("{number}")]).unwrap());
    }
    drop(held);
    let indexes: Vec<Range<Index>> = pending.into_iter().map(|pending| pending.wait().unwrap()).collect();
    assert_eq!(indexes[198..], [Index(100)..Index(101), Index(199)..Index(201)]);
    let flushes = wal.counters().flushes - before;
    assert!(flushes < 20, "{flushes} flushes for 200 appends");
    assert_eq!((wal.durable_index(GROUP), wal.durable_index(OTHER)), (Index(100), Index(200)));
    assert_eq!(wal.iter(OTHER, Index(150)).map(Result::unwrap).count(), 51);
    let count = |tail: &mut Tail| {
        let mut count = 0;
        while let Poll::Ready(Some(Ok(Event::Entry(_)))) = tail.next_timeout(Duration::ZERO) {
            count += 1;
        }
        count
    };
    assert_eq!((count(&mut tail), count(&mut other)), (100, 200));

    // What ends in one stays in the other, for those who read and those who follow.
    wal.truncate_suffix(OTHER, Index(50)).unwrap().wait().unwrap();
    wal.purge_prefix(OTHER, LogId::new(Term(1), Index(20))).unwrap().wait().unwrap();
    put(&wal, OTHER, 3, 50..52);
    assert_eq!(told(&mut tail), [""; 0]);
    assert_eq!(told(&mut other), ["truncated 50", "50@3", "51@3"]);
    assert_eq!(wal.iter(GROUP, Index(1)).map(Result::unwrap).count(), 100);
    let check = |wal: &Wal| {
        assert_eq!((wal.durable_index(GROUP), wal.durable_index(OTHER)), (Index(100), Index(51)));
        assert_eq!(wal.group(OTHER).unwrap().first(), Index(21));
        assert_eq!(wal.iter(OTHER, Index(21)).map(Result::unwrap).count(), 31);
    };
    check(&wal);
    drop((tail, other));
    wal.close().unwrap();
    check(&small_log(&home));
}

/// A purge beyond the end leaves nothing but the name before the first: that is known after the start as well.
#[test]
fn a_group_without_entries_has_a_durable_index() {
    let home = home();
    let wal = small_log(&home);
    put(&wal, OTHER, 1, 1..5);
    wal.purge_prefix(OTHER, LogId::new(Term(2), Index(50))).unwrap().wait().unwrap();
    assert_eq!(wal.durable_index(OTHER), Index(50));
    // Until no segment speaks of it any more but in its first frame.
    for _ in 0..60 {
        wal.append_records(GROUP, [vec![0; 10_000]]).unwrap().wait().unwrap();
    }
    wal.purge_prefix(GROUP, LogId::new(Term(1), Index(60))).unwrap().wait().unwrap();
    wal.close().unwrap();
    let wal = small_log(&home);
    assert_eq!(wal.durable_index(OTHER), Index(50));
    let mut tail = wal.tail(OTHER, Index(51));
    // That ends nothing, and is told to nobody.
    wal.truncate_suffix(OTHER, Index(51)).unwrap().wait().unwrap();
    assert_eq!((wal.durable_index(OTHER), told(&mut tail)), (Index(50), vec![]));
    put(&wal, OTHER, 2, 51..53);
    assert_eq!(told(&mut tail), ["51@2", "52@2"]);
}
