//! What is copied forward under an open log, and what its users notice of that: nothing but the room.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::scrub::{flip, name_of};
use super::tail::{put, told};
use super::*;
use crate::limits::SEGMENT_BYTES_MIN;
use crate::wal::Severity;

/// Seldom written.
const SELDOM: GroupId = GroupId(7);

fn small(home: &TempDir, io: IoChoice) -> Wal {
    Wal::open(Options { segment_bytes: SEGMENT_BYTES_MIN, ..options(home, io) }).unwrap().0
}

fn segments(home: &TempDir) -> usize {
    std::fs::read_dir(home.path().join("wal/log")).unwrap().count()
}

/// Appends and purges the busy group until so many segments were opened.
fn rotate(wal: &Wal, count: u64) {
    let until = wal.counters().segments + count;
    while wal.counters().segments < until {
        let indexes = wal.append_records(GROUP, [vec![7; 20_000]]).unwrap().wait().unwrap();
        wal.purge_prefix(GROUP, LogId::new(Term(1), indexes.start.previous())).map(drop).unwrap();
    }
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(30), "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// One busy group that purges and one that is seldom written, for twenty times what the log may take: it does not, and
/// nobody who reads or follows sees a copy.
#[test]
fn a_log_with_a_seldom_written_group_stays_small() {
    const SEGMENTS_MAX: usize = 24;
    for io in back_ends() {
        let home = home();
        let wal = small(&home, io);
        put(&wal, SELDOM, 1, 1..4);
        let mut tail = wal.tail(SELDOM, Index(1));
        let mut seen = told(&mut tail);
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let reads = scope.spawn(|| {
                let mut reads = 0;
                while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
                    let read = wal.read(SELDOM, Index(1)..Index(4), 1 << 20).unwrap();
                    let text: Vec<_> = read.iter().map(data).collect();
                    assert_eq!(text, [b"1@1", b"2@1", b"3@1"]);
                    assert!(wal.durable_index(SELDOM) >= Index(3));
                    reads += 1;
                }
                reads
            });
            let (mut most, mut ticket) = (0, wal.durable());
            while wal.counters().segments < 20 * SEGMENTS_MAX as u64 {
                rotate(&wal, 1);
                wal.append_records_durably(GROUP, [vec![3; 3_000]]).unwrap();
                if wal.counters().segments == 100 {
                    put(&wal, SELDOM, 1, 4..5);
                }
                assert!(wal.durable() >= ticket);
                ticket = wal.durable();
                most = most.max(segments(&home));
            }
            is_over.store(true, std::sync::atomic::Ordering::Relaxed);
            assert!(most <= SEGMENTS_MAX, "{most} segments");
            assert!(reads.join().unwrap() > 0);
        });
        let counters = wal.counters();
        assert!(counters.copies > 20, "{counters:?}");
        assert!(8 * counters.copied_bytes <= counters.segments * SEGMENT_BYTES_MIN, "{counters:?}");
        seen.extend(told(&mut tail));
        assert_eq!(seen, ["1@1", "2@1", "3@1", "4@1"], "each once, and nothing is cut");
        assert!(wal.copy_finding().is_none() && wal.verify().unwrap().findings.is_empty());
        drop(tail);
        wal.close().unwrap();
        let wal = small(&home, io);
        let read: Vec<_> = wal.iter(SELDOM, Index(1)).map(Result::unwrap).collect();
        assert_eq!(read.iter().map(data).collect::<Vec<_>>(), [b"1@1", b"2@1", b"3@1", b"4@1"]);
    }
}

/// Closed at any moment of a copy the log ends in time, and holds what it held.
#[test]
fn a_log_is_closed_in_the_midst_of_a_copy() {
    let home = home();
    let records: Vec<Vec<u8>> = (0..4).map(|number| vec![number; 900]).collect();
    small(&home, IoChoice::Blocking).append_records(SELDOM, records.clone()).unwrap().wait().unwrap();
    let mut copies = 0;
    for round in 0..30 {
        let wal = small(&home, IoChoice::Blocking);
        rotate(&wal, 3 + round % 3);
        if round % 2 == 0 {
            std::thread::sleep(Duration::from_micros(100 * round));
        }
        copies += wal.counters().copies;
        let begun = Instant::now();
        let shared = Arc::clone(&wal.shared);
        wal.close().unwrap();
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
        assert!(shared.log().is_covered(), "a copy that was durable before the end is proven at the end");
        drop(shared);
        let wal = small(&home, IoChoice::Blocking);
        let read = wal.read(SELDOM, Index(1)..Index(5), 1 << 20).unwrap();
        assert_eq!(read.iter().map(data).collect::<Vec<_>>(), records);
    }
    assert!(copies > 0);
    let wal = small(&home, IoChoice::Blocking);
    let chain = wal.shared.log().sealed_segments().len();
    assert!(chain < 15, "{chain} segments in use");
}

#[test]
fn what_cannot_be_copied_is_told_and_the_log_goes_on() {
    let home = home();
    // Without frames in memory: they would be read from there.
    let options = options(&home, IoChoice::Blocking);
    let (wal, _) = Wal::open(Options { segment_bytes: SEGMENT_BYTES_MIN, tail_cache_bytes: 0, ..options }).unwrap();
    wal.append_records(SELDOM, [vec![5; 4_000]]).unwrap().wait().unwrap();
    let name = name_of(&home, 0);
    flip(&home, &name, 11_000);
    rotate(&wal, 4);
    wait_until("it is told", || wal.copy_finding().is_some());
    let found = wal.copy_finding().unwrap();
    assert_eq!((found.severity, &found.file), (Severity::Corrupt, &name), "{found}");
    assert_eq!((found.entries[0].group, found.entries[0].last()), (SELDOM, Some(LogId::new(Term(1), Index(1)))));
    rotate(&wal, 6);
    assert_eq!((wal.counters().copies, wal.copy_finding()), (0, Some(found)));
    // Its owner gives it up.
    wal.purge_prefix(SELDOM, LogId::new(Term(1), Index(1))).map(drop).unwrap();
    rotate(&wal, 2);
    wait_until("it is over", || wal.copy_finding().is_none());
    wal.close().unwrap();
}

/// An appender that writes by itself shares the disk with no copy, and the copy is written all the same.
#[test]
fn a_copy_goes_between_appends_of_their_own_threads() {
    let home = home();
    let wal = small(&home, IoChoice::Blocking);
    wal.append_records(SELDOM, ["rare"]).unwrap().wait().unwrap();
    let mut last = Index(0);
    while wal.counters().copies < 3 {
        let indexes = wal.append_records_durably(GROUP, [vec![1; 9_000]]).unwrap();
        assert_eq!(indexes.start, last.next());
        last = indexes.start;
        wal.purge_prefix(GROUP, LogId::new(Term(1), last)).map(drop).unwrap();
        assert!(last.0 < 1_000, "{:?}", wal.counters());
    }
    assert_eq!(wal.durable_index(GROUP), last);
    wal.close().unwrap();
}
