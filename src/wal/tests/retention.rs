//! What a rule in bytes or in time keeps: whole segments, never less than it says.

use super::rig::{G, Rig, options};
use crate::types::{GroupId, Index};
use crate::wal::retention::Kept;

const HOUR: u64 = 3_600_000;

/// One segment for each hour, each with entries of `G`; what the log's last index was at the end of each, the newest last.
fn hours(count: u64) -> (Rig, Vec<Index>) {
    let mut rig = Rig::new(options());
    rig.settle();
    let mut ends = Vec::new();
    for hour in 1..=count {
        rig.log.tick(hour * HOUR);
        rig.grow(G, 3, 100);
        rig.settle();
        ends.push(rig.log.group(G).expect("it has entries").last.index);
        rig.log.tick(hour * HOUR + HOUR / 2);
        let before = rig.log.counters().segments;
        rig.rotate(G);
        assert!(rig.log.counters().segments > before);
        rig.settle();
    }
    (rig, ends)
}

fn by_bytes(rig: &Rig, bytes: u64) -> Index {
    rig.log.kept_from(G, Kept { bytes: Some(bytes), since_milliseconds: None })
}

fn by_time(rig: &Rig, since_milliseconds: u64) -> Index {
    rig.log.kept_from(G, Kept { bytes: None, since_milliseconds: Some(since_milliseconds) })
}

/// Bytes of frames from an index on, of the segments that hold it and what comes behind.
fn bytes_from(rig: &Rig, first: Index) -> u64 {
    let is_needed = |highest: Option<&Index>| highest.is_none_or(|&highest| highest >= first);
    let segments = rig.log.locator.segments().filter(|segment| is_needed(segment.highest.get(&G)));
    segments.map(|segment| segment.end).sum()
}

#[test]
fn so_many_bytes_are_kept_and_no_segment_more() {
    let (rig, _) = hours(6);
    let all = bytes_from(&rig, Index::FIRST);
    let mut kept = Vec::new();
    for bytes in (0..=all + 4096).step_by(512) {
        let first = by_bytes(&rig, bytes);
        assert!(bytes_from(&rig, first) >= bytes.min(all), "{bytes} bytes, from {first} on");
        kept.push(first);
    }
    assert!(kept.is_sorted_by(|more, less| more >= less), "who keeps more begins earlier");
    assert_eq!(*kept.last().expect("some"), Index::FIRST, "all of it");
    kept.dedup();
    assert!(kept.len() >= 6, "each segment counts: {kept:?}");
    let in_use = rig.log.locator.segments().last().expect("there is one").header.number;
    let ended = rig.log.locator.segments().filter(|segment| segment.header.number != in_use);
    let highest = ended.filter_map(|segment| segment.highest.get(&G)).max().expect("some hold entries");
    assert_eq!(by_bytes(&rig, 1), highest.next(), "the segment in use stays");
}

#[test]
fn what_was_written_since_is_kept() {
    let (rig, ends) = hours(6);
    assert_eq!(by_time(&rig, 0), Index::FIRST);
    for (hour, end) in (1..=6).zip(&ends) {
        let first = by_time(&rig, hour * HOUR);
        assert!(first <= end.next(), "what was written in hour {hour} is kept: from {first} on");
        let later = by_time(&rig, (hour + 2) * HOUR);
        assert!(hour == 6 || later > *end, "two hours on it is not: from {later} on");
    }
}

/// A clock that shows 1970 for a while makes nothing older.
#[test]
fn a_clock_that_was_set_back_trims_nothing_early() {
    let (mut rig, ends) = hours(3);
    // For more than one segment.
    for _ in 0..3 {
        rig.log.tick(5);
        rig.rotate(G);
        rig.settle();
        rig.grow(G, 1, 10);
        rig.settle();
    }
    assert!(by_time(&rig, 2 * HOUR) <= ends[1].next(), "what was written at three is not older than two");
    assert!(by_time(&rig, 3 * HOUR) <= ends[2].next());
}

#[test]
fn a_start_knows_how_old_segments_are() {
    let (rig, _) = hours(4);
    let asked: Vec<u64> = (0..12).map(|half| half * HOUR / 2).collect();
    let before: Vec<Index> = asked.iter().map(|&since| by_time(&rig, since)).collect();
    rig.disk.crash_to(&vec![0; rig.disk.loose().len()]);
    let rig = rig.reopened();
    let since: Vec<Index> = asked.iter().map(|&since| by_time(&rig, since)).collect();
    assert_eq!(before[..9], since[..9]);
}

#[test]
fn a_group_that_is_not_there_and_an_empty_log_keep_all() {
    let rig = Rig::new(options());
    let nothing = Kept { bytes: Some(0), since_milliseconds: Some(u64::MAX) };
    assert_eq!(rig.log.kept_from(G, nothing), Index::FIRST);
    let (rig, _) = hours(3);
    assert_eq!(rig.log.kept_from(GroupId(77), nothing), Index::FIRST);
}

/// Entries that were replaced lie in the old segment, and those that count in the newer one: they are kept.
#[test]
fn what_was_replaced_does_not_take_what_replaced_it_along() {
    let mut rig = Rig::new(options());
    rig.settle();
    rig.grow(G, 50, 100);
    rig.settle();
    rig.rotate(G);
    rig.truncate(G, Index(10));
    rig.grow(G, 80, 100);
    rig.settle();
    assert!(rig.log.locator.segments().count() >= 2);
    let first = by_bytes(&rig, 1);
    assert!(first <= Index(10), "10 and what follows lie in the segment in use: {first}");
    assert!(first > Index(1), "what is before does not");
}
