//! The newest frames are read from memory, and only those that are live.

use std::cell::Cell;
use std::rc::Rc;

use super::places;
use super::rig::{G, Rig, options, read_by_plans, segment};
use crate::disk::{Buffer, BufferPool};
use crate::sim::disk::Act;
use crate::types::{Entry, FrameNumber, Index, Place, SegmentNumber, Term};
use crate::wal::frame::{FrameHead, FrameKind};
use crate::wal::tail_cache::{Budget, PLAN_BYTES_MAX, TailCache};
use crate::wal::{Error, Options};

fn cached(bytes: usize) -> Rig {
    Rig::new(Options { tail_cache_bytes: bytes, ..options() })
}

/// The entries, and how many reads and maps of the disk it took.
fn read(rig: &Rig, from: u64, to: u64) -> (Vec<Entry>, usize) {
    let asked = Rc::new(Cell::new(0));
    let seen = Rc::clone(&asked);
    rig.disk.observe(move |event| seen.set(seen.get() + usize::from(matches!(event.act, Act::Read | Act::Map))));
    let plan = rig.log.plan_read(G, Index(from), Index(to), usize::MAX);
    (plan.run(&rig.files).expect("it is intact"), asked.get())
}

#[test]
fn what_was_written_last_is_read_without_the_disk() {
    let mut rig = cached(1 << 20);
    for _ in 0..20 {
        rig.grow(G, 3, 500);
        rig.settle();
    }
    let all = rig.model.group(G).entries;
    for from in [1, 2, 17, 60] {
        assert_eq!(read(&rig, from, 61), (all[from as usize - 1..].to_vec(), 0), "from {from}");
    }
}

#[test]
fn what_went_from_memory_is_read_from_the_disk_and_the_rest_is_not() {
    let mut rig = cached(10 * 8192);
    for _ in 0..30 {
        rig.grow(G, 1, 500);
        rig.settle();
    }
    let all = rig.model.group(G).entries;
    assert_eq!(read(&rig, 25, 31), (all[24..].to_vec(), 0));
    let (found, asked) = read(&rig, 1, 31);
    assert!(found == all && asked > 0);
    assert!(rig.log.tail.bytes() <= 10 * 8192);
}

/// Memory shows a frame as it was written, whatever the disk does to it since; damage is met when it is gone from there.
#[test]
fn a_cut_counts_for_frames_in_memory() {
    let mut rig = cached(1 << 20);
    rig.grow(G, 6, 500);
    rig.settle();
    rig.model.term = Term(2);
    let again = rig.model.entries_behind(Index(3), 2, 300);
    rig.append(G, &again);
    rig.settle();
    rig.truncate(G, Index(5));
    rig.settle();
    let all = rig.model.group(G).entries;
    assert_eq!(all.len(), 4);
    assert_eq!(read(&rig, 1, 9), (all, 0));
    rig.purge(G, rig.model.group(G).entries[1].id);
    rig.settle();
    let trimmed = rig.log.plan_read(G, Index(2), Index(9), 1).run(&rig.files);
    assert!(matches!(trimmed, Err(Error::Trimmed { first: Index(3), .. })), "{trimmed:?}");
    assert_eq!(read(&rig, 3, 9).0, rig.model.group(G).entries);
}

/// The reader has the plan, and the frame goes from the cache, and its buffer could be written anew.
#[test]
fn a_frame_that_a_reader_holds_is_not_written_over() {
    let mut rig = cached(2 * 8192);
    rig.grow(G, 1, 500);
    rig.settle();
    let plan = rig.log.plan_read(G, Index(1), Index(2), usize::MAX);
    for _ in 0..40 {
        rig.grow(G, 1, 700);
        rig.settle();
    }
    // Only memory has it still.
    rig.disk.flip_bit(&segment(1), 8192 + 300, 3);
    let all = rig.model.group(G).entries;
    assert_eq!(plan.run(&rig.files).expect("it holds the frame"), all[..1]);
    let from_disk = rig.log.plan_read(G, Index(1), Index(2), usize::MAX).run(&rig.files);
    assert!(matches!(from_disk, Err(Error::Damaged(_))), "{from_disk:?}");
}

#[test]
fn a_plan_takes_out_a_bounded_number_of_frames() {
    let mut rig = Rig::new(Options { tail_cache_bytes: 64 << 20, segment_bytes: 16 << 20, ..options() });
    for _ in 0..1500 {
        rig.grow(G, 1, 10);
        rig.settle();
    }
    let all = rig.model.group(G).entries;
    let plan = rig.log.plan_read(G, Index(100), Index(1501), usize::MAX);
    let first = plan.run(&rig.files).expect("it is intact");
    assert!(plan.is_cut() && first.len() <= 1024 && first.len() > 900, "{}", first.len());
    let (rest, asked) = read(&rig, 100 + first.len() as u64, 1501);
    assert_eq!(asked, 0);
    assert_eq!([first, rest].concat(), all[99..]);
}

/// Each cut begins another part, and each part has frames in memory: what one plan takes does not grow with its parts.
#[test]
fn the_parts_of_a_plan_share_its_bound() {
    let mut rig = Rig::new(Options { tail_cache_bytes: 64 << 20, segment_bytes: 64 << 20, ..options() });
    // Of 40 parts each has half a MiB in memory.
    for part in 0..40 {
        for _ in 0..8 {
            rig.grow(G, 1, 60_000);
            rig.settle();
        }
        let last = rig.model.group(G).last();
        rig.model.term = Term(2 + part);
        let again = rig.model.entries_behind(last.index.previous(), 1, 60_000);
        rig.append(G, &again);
        rig.settle();
    }
    let all = rig.model.group(G).entries;
    let (mut plans, mut most) = (0, 0);
    let found = read_by_plans(&rig, 1, |plan| {
        let held: usize = plan.parts.iter().flat_map(|planned| &planned.cached).map(|frame| frame.bytes.len()).sum();
        assert!(held < PLAN_BYTES_MAX + (64 << 10), "one plan holds {held} bytes in {} parts", plan.parts.len());
        most = most.max(plan.parts.len());
        plans += 1;
    });
    assert_eq!(found, all);
    assert!(plans > 1 && most > 10, "{plans} plans of up to {most} parts");
}

/// Behind its last entry a part needs no frame: to find one entry takes a look at few.
#[test]
fn a_plan_looks_no_further_than_its_last_entry() {
    let mut rig = Rig::new(Options { tail_cache_bytes: 64 << 20, segment_bytes: 16 << 20, ..options() });
    for _ in 0..500 {
        rig.grow(G, 1, 10);
        rig.settle();
    }
    let part = rig.log.locator.parts(G, Index(3), Index(4)).remove(0);
    let mut budget = Budget::default();
    let cached = rig.log.tail.cached(&part, (G, Index(3)), &mut budget).expect("all is in memory");
    assert_eq!(cached.frames.len(), 1);
    assert!(budget.frames() <= 10, "{budget:?}");
}

/// A plan whose budget ended behind such a frame found the entry nowhere, and called it damaged.
#[test]
fn a_run_that_its_own_frame_ended_is_no_sign_of_its_entries() {
    let mut rig = cached(1 << 20);
    rig.settle();
    rig.grow(G, 60, 10);
    rig.model.term = Term(2);
    let entries = rig.model.entries_behind(Index(29), 6, 10);
    rig.append(G, &entries);
    rig.settle();
    let end = rig.log.durable_end().offset;
    rig.grow(G, 2, 10);
    rig.settle();
    let part = rig.log.locator.parts(G, Index(36), Index(38)).remove(0);
    assert!(part.start < end, "both frames are looked at");
    let found = rig.log.tail.cached(&part, (G, Index(36)), &mut Budget::default()).expect("all is in memory");
    let offsets: Vec<u64> = found.frames.iter().map(|frame| frame.offset).collect();
    assert_eq!(offsets, [end]);
    assert_eq!(read(&rig, 36, 38).0.len(), 2);
}

fn head(number: u64) -> FrameHead {
    let place = Place { frame: FrameNumber(number), segment: SegmentNumber(1), offset: number * 4096 };
    places::head(FrameKind::Cover, place, 4096)
}

/// After a burst of large batches small frames are built in large buffers: those go back, and do not fill the cache.
#[test]
fn a_small_frame_does_not_keep_a_large_buffer() {
    let mut pool = BufferPool::new(16 << 20);
    let mut tail = TailCache::new(64 << 10);
    for number in 1..=8 {
        let mut buffer = Buffer::with_capacity(8 << 20);
        buffer.extend(&[7; 4096]);
        tail.push(&head(number), Vec::new(), buffer, &mut pool);
    }
    assert_eq!(tail.bytes(), 8 * 8192);
    assert_eq!(pool.take(8 << 20).capacity(), 8 << 20);
}
