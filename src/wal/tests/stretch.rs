//! Long reads of ended segments go past the page cache, into memory that is kept, and what is kept never passes for what
//! is asked for.

use std::cell::Cell;
use std::rc::Rc;

use super::rig::{G, Rig, options, segment};
use super::seals::open_by_seals;
use crate::disk::Files;
use crate::limits::BLOCK_BYTES;
use crate::random::Random;
use crate::sim::disk::{Act, SimDisk};
use crate::types::{Entry, GroupId, Index, SegmentNumber, Term};
use crate::wal::locator::Part;
use crate::wal::stretch::Stretch;
use crate::wal::{Error, Options, ReadBuffer, ReadPlan};

const BLOCK: u64 = BLOCK_BYTES as u64;
const SEGMENT_BYTES: u64 = 1 << 20;

/// Segments of a MiB each, all but the last ended, in frames of so many entries.
fn grown(frames: u64, entries: u64, bytes: usize) -> Rig {
    let mut rig = Rig::new(Options { segment_bytes: SEGMENT_BYTES, ..options() });
    for _ in 0..frames {
        rig.grow(G, entries, bytes);
        rig.settle();
    }
    rig
}

/// What is done to a segment's file from now on: how often it is mapped, and how many bytes of it are read.
fn watch(disk: &SimDisk, name: String) -> Rc<Cell<(u64, u64)>> {
    let seen = Rc::new(Cell::new((0, 0)));
    let told = Rc::clone(&seen);
    disk.observe(move |event| {
        let (maps, bytes) = told.get();
        match event.act {
            Act::Map if event.name == name => told.set((maps + 1, bytes)),
            Act::Read if event.name == name => told.set((maps, bytes + event.length)),
            _ => {}
        }
    });
    seen
}

fn read(rig: &Rig, disk: &SimDisk, (from, to): (u64, u64), bytes_max: usize) -> Result<Vec<Entry>, Error> {
    rig.log.plan_read(G, Index(from), Index(to), bytes_max).run(&disk.files())
}

#[test]
fn who_wants_much_of_an_ended_segment_reads_past_the_page_cache_and_who_wants_little_maps_it() {
    let rig = grown(30, 100, 1000);
    let all = rig.model.group(G).entries;
    assert!(rig.log.counters().segments >= 2);
    for (to, bytes_max, past_cache, is_mapped) in [
        (500, usize::MAX, true, false),
        (500, 256 << 10, true, false),
        (500, usize::MAX, false, true),
        (500, 64 << 10, true, true),
        (20, usize::MAX, true, true),
    ] {
        let disk = rig.disk.fork();
        disk.set_reads_past_cache(past_cache);
        let seen = watch(&disk, segment(1));
        let found = read(&rig, &disk, (1, to), bytes_max).expect("it is intact");
        assert_eq!(found, all[..found.len()]);
        let (maps, bytes) = seen.get();
        assert_eq!((maps > 0, bytes == 0), (is_mapped, is_mapped), "{to} {bytes_max} {past_cache}: {:?}", seen.get());
    }
}

/// Frames of any length, of which each read ends somewhere in the middle; of a log that was written, or opened by its
/// seals.
#[test]
fn a_read_that_goes_on_reads_no_byte_again() {
    for (frames, entries, bytes, by_seals) in
        [(400, 3, 1000, false), (40, 200, 200, false), (6, 1000, 500, false), (40, 200, 200, true)]
    {
        let mut rig = grown(frames, entries, bytes);
        if by_seals {
            while rig.log.counters().segments < 3 {
                rig.grow(G, entries, bytes);
                rig.settle();
            }
            rig.rest();
            rig.disk.crash_to(&vec![0; rig.disk.loose().len()]);
            let log = open_by_seals(&rig.disk, rig.log.options()).expect("it is intact");
            rig = Rig::with(rig.disk, log, rig.model);
        }
        let first = rig.log.locator.segments().next().expect("there are several");
        assert_eq!(first.is_verified, !by_seals);
        let (all, last) = (rig.model.group(G).entries, first.highest[&G].0);
        let disk = rig.disk.fork();
        let reached = Cell::new(0);
        disk.observe(move |event| {
            assert!(event.act == Act::Read && event.offset >= reached.get(), "{event:?} behind {}", reached.get());
            reached.set(event.offset + event.length);
        });
        let (mut buffer, mut found, mut reads) = (ReadBuffer::default(), Vec::new(), 0);
        while (found.len() as u64) < last {
            let from = Index(1 + found.len() as u64);
            assert!(reads == 0 || buffer.is_at(G, from));
            let plan = rig.log.plan_read(G, from, Index(last + 1), 150 << 10);
            found.extend(plan.run_with(&disk.files(), &mut buffer).expect("it is intact"));
            reads += 1;
        }
        assert_eq!(found, all[..last as usize]);
        assert!(reads > 3, "{reads}");
    }
}

/// Some 128 KiB of a frame that is many times as long cost little more, at any place of it; who goes on there has read
/// that little twice.
#[test]
fn a_long_read_at_a_random_place_does_not_read_its_whole_frame() {
    const FRAME_ENTRIES: u64 = 4000;
    let mut rig = Rig::new(Options { segment_bytes: 16 << 20, ..options() });
    while rig.log.counters().segments < 1 {
        rig.grow(G, FRAME_ENTRIES, 1000);
        rig.settle();
    }
    let first = rig.log.locator.segments().next().expect("there are two");
    let (all, last, end) = (rig.model.group(G).entries, first.highest[&G].0, first.end);
    assert!(last >= 3 * FRAME_ENTRIES);
    for from in (1..last - 200).step_by(977) {
        let disk = rig.disk.fork();
        let seen = watch(&disk, segment(1));
        let (mut buffer, mut next) = (ReadBuffer::default(), from);
        while next <= last {
            let plan = rig.log.plan_read(G, Index(next), Index(last + 1), 128 << 10);
            let found = plan.run_with(&disk.files(), &mut buffer).expect("it is intact");
            assert_eq!(found, all[next as usize - 1..][..found.len()]);
            if next == from {
                assert!(seen.get().1 < 1 << 20, "{from}: {:?}", seen.get());
            }
            next += found.len() as u64;
        }
        let read_bytes = seen.get().1;
        assert!(read_bytes < end + (1 << 20), "{from}: {read_bytes}");
        // Another place of the frame that is there.
        let plan = rig.log.plan_read(G, Index(last - 150), Index(last + 1), 128 << 10);
        let found = plan.run_with(&disk.files(), &mut buffer).expect("it is intact");
        assert_eq!(found, all[last as usize - 151..][..found.len()]);
        assert_eq!(seen.get().1, read_bytes, "{from}");
    }
}

#[test]
fn damage_is_told_as_by_a_map() {
    let rig = grown(60, 3, 20_000);
    let all = rig.model.group(G).entries;
    let (mut told, mut read_on) = (0, 0);
    for at in (4096..SEGMENT_BYTES).step_by(4999) {
        let disk = rig.disk.fork();
        disk.flip_bit(&segment(1), at, 3);
        let mapped = disk.fork();
        mapped.set_reads_past_cache(false);
        for from in 1..=6 {
            let (direct, mapped) =
                (read(&rig, &disk, (from, from + 30), usize::MAX), read(&rig, &mapped, (from, from + 30), usize::MAX));
            match (direct, mapped) {
                (Ok(direct), Ok(mapped)) => {
                    assert!(direct == mapped && all[from as usize - 1..].starts_with(&direct));
                    read_on += 1;
                }
                (Err(Error::Damaged(direct)), Err(Error::Damaged(mapped))) => {
                    assert_eq!(format!("{direct:?}"), format!("{mapped:?}"), "{at}");
                    told += 1;
                }
                (direct, mapped) => panic!("{at} {from}: {direct:?}, {mapped:?}"),
            }
        }
        disk.make_unreadable(&segment(1), at / 512 * 512..at / 512 * 512 + 512);
        match read(&rig, &disk, (1, 40), usize::MAX) {
            Ok(found) => assert!(all.starts_with(&found)),
            Err(error) => assert!(matches!(error, Error::Disk(_)), "{at}: {error}"),
        }
    }
    assert!(told > 20 && read_on > 500, "{told} {read_on}");
}

fn part(rig: &Rig, number: u64) -> Part {
    let parts = rig.log.locator.parts(G, Index(1), Index(u64::MAX));
    parts.into_iter().find(|part| part.header.number == SegmentNumber(number)).expect("it is in the chain")
}

/// What the disk holds there.
fn on_disk(rig: &Rig, part: &Part, range: std::ops::Range<u64>) -> Vec<u8> {
    let mut bytes = vec![0; (range.end - range.start) as usize];
    rig.disk.files().read(part.file, range.start, &mut bytes).expect("it can be read");
    bytes
}

/// At any place and of any length, of one segment after the other: what is shown is what the disk holds.
#[test]
fn kept_bytes_are_shown_as_those_of_their_own_place_alone() {
    let rig = grown(30, 100, 1000);
    let parts = [part(&rig, 1), part(&rig, 2)];
    for seed in 0..40 {
        let mut random = Random::seeded(seed);
        let (mut stretch, mut at) = (Stretch::default(), 2);
        for _ in 0..60 {
            let part = &parts[usize::from(random.chance(200))];
            at = if random.chance(500) { random.below(200) } else { at + random.below(20) } % 200;
            let wanted = BLOCK * at..BLOCK * (at + 1 + random.below(20));
            let reach = wanted.end + BLOCK * random.below(30);
            let shown = stretch.bytes(&rig.disk.files(), part, wanted.clone(), reach).expect("it can be read");
            assert_eq!(shown, on_disk(&rig, part, wanted), "seed {seed}");
        }
    }
}

/// The memory has the bytes of an earlier read where those would stand that the disk did not give.
#[test]
fn a_read_that_failed_shows_nothing_of_what_was_there_before() {
    let rig = grown(30, 100, 1000);
    let (part, files) = (part(&rig, 1), rig.disk.files());
    let mut stretch = Stretch::default();
    stretch.bytes(&files, &part, 0..BLOCK * 64, 0).expect("it can be read");
    let disk = rig.disk.fork();
    disk.make_unreadable(&segment(1), BLOCK * 80..BLOCK * 81);
    let refused = disk.files();
    let shown = stretch.bytes(&refused, &part, BLOCK * 40..BLOCK * 100, 0);
    assert!(shown.is_err(), "one of its blocks cannot be read");
    for at in 41..100 {
        let wanted = BLOCK * at..BLOCK * (at + 1);
        match stretch.bytes(&refused, &part, wanted.clone(), 0) {
            Ok(shown) => assert_eq!(shown, on_disk(&rig, &part, wanted), "{at}"),
            Err(_) => assert_eq!(at, 80),
        }
    }
}

/// Segment 1 goes, and its file, its room and its place in the reader's memory are another one's.
#[test]
fn what_is_kept_of_a_segment_is_not_taken_for_the_one_in_its_file() {
    let mut rig = grown(30, 100, 1000);
    let mut stretch = Stretch::default();
    let old = part(&rig, 1);
    let range = BLOCK * 2..BLOCK * 50;
    let before = stretch.bytes(&rig.disk.files(), &old, range.clone(), 0).expect("it can be read").to_vec();
    let last = rig.model.group(G).last();
    rig.purge(G, last);
    let mut reused = None;
    for _ in 0..60 {
        rig.grow(G, 100, 1000);
        rig.settle();
        let parts = rig.log.locator.parts(G, last.index.next(), Index(u64::MAX));
        reused = reused.or(parts.into_iter().find(|part| part.file == old.file));
    }
    let reused = reused.expect("the file is in use again");
    let shown = stretch.bytes(&rig.disk.files(), &reused, range.clone(), 0).expect("it can be read");
    assert_ne!(shown, before);
    assert_eq!(shown, on_disk(&rig, &reused, range));
}

/// What it knows of a place may lie behind all that an older plan has.
#[test]
fn memory_of_a_newer_plan_is_no_place_in_an_older_one() {
    let mut rig = grown(10, 10, 100);
    let older = rig.log.plan_read(G, Index(50), Index(101), usize::MAX);
    rig.truncate(G, Index(40));
    rig.grow(G, 10, 100);
    rig.settle();
    let newer = rig.log.plan_read(G, Index(40), Index(46), usize::MAX);
    let mut buffer = ReadBuffer::default();
    assert_eq!(newer.run_with(&rig.files, &mut buffer).expect("it is intact").len(), 6);
    let fresh = older.run(&rig.files).expect("its frames stand where they stood");
    assert_eq!(fresh.len(), 51);
    assert_eq!(older.run_with(&rig.files, &mut buffer).expect("its frames stand where they stood"), fresh);
}

/// A reader with one memory, over cuts, purges, copies and segments that are used again. Some plans are run later, in
/// any order.
#[test]
fn a_reader_who_keeps_what_he_has_reads_what_one_without_does() {
    let (mut went_on, mut late, mut copies) = (0, 0, 0);
    for seed in 0..30 {
        let mut random = Random::seeded(seed);
        let mut rig = Rig::new(Options { segment_bytes: SEGMENT_BYTES, ..options() });
        let (mut buffer, mut next) = (ReadBuffer::default(), 1);
        let mut kept: Vec<(ReadPlan, Vec<Entry>)> = Vec::new();
        for _ in 0..120 {
            let group = GroupId(u32::from(random.chance(200)));
            rig.grow(group, 1 + random.below(60), *random.pick(&[60, 900, 5000]));
            if random.chance(100) {
                let entries = rig.model.group(group).entries;
                let cut = random.below(entries.len() as u64) as usize;
                match random.below(3) {
                    0 => rig.purge(group, entries[cut / 2].id),
                    1 => rig.truncate(group, entries[cut].id.index),
                    _ => {
                        rig.model.term = Term(rig.model.term.0 + 1);
                        let again = rig.model.entries_behind(entries[cut].id.index, 40, 900);
                        rig.append(group, &again);
                    }
                }
            }
            if random.chance(100) {
                rig.log.copy_anyway(&[G, GroupId(1)][usize::from(random.chance(500))..]);
                rig.copy();
            }
            rig.settle();
            while !kept.is_empty() && random.chance(300) {
                let (plan, wanted) = kept.swap_remove(random.below(kept.len() as u64) as usize);
                run_late(&rig, &plan, &wanted, &mut buffer);
                late += 1;
            }
            let state = rig.model.group(G);
            let Some(first) = state.entries.first().map(|first| first.id.index.0) else { continue };
            let last = state.last().index.0;
            let jumps = next < first || next > last || random.chance(100);
            next = if jumps { first + random.below(last + 1 - first) } else { next };
            went_on += u64::from(buffer.is_at(G, Index(next)));
            let plan = rig.log.plan_read(G, Index(next), Index(last + 1), *random.pick(&[1, 20_000, 150_000, 150_000]));
            if random.chance(200) {
                kept.push((plan.clone(), state.entries[(next - first) as usize..].to_vec()));
            }
            let found = plan.run_with(&rig.files, &mut buffer).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
            assert_eq!(found, state.entries[(next - first) as usize..][..found.len()], "seed {seed}");
            assert_eq!(found, plan.run(&rig.files).expect("it is intact"), "seed {seed}");
            next += found.len() as u64;
        }
        copies += rig.log.counters().copies;
        rig.check();
    }
    assert!(went_on > 1000 && late > 300 && copies > 100, "{went_on} {late} {copies}");
}

/// What a plan finds is what was live when it was made, whatever its reader read in between. Who has read a segment may
/// have it still when it is another one.
fn run_late(rig: &Rig, plan: &ReadPlan, wanted: &[Entry], buffer: &mut ReadBuffer) {
    let (fresh, found) = (plan.run(&rig.files), plan.run_with(&rig.files, buffer));
    match (&fresh, &found) {
        (Ok(fresh), Ok(found)) => assert!(!found.is_empty() && found.starts_with(fresh) && wanted.starts_with(found)),
        (Err(Error::Stale { .. }), Ok(found)) => assert!(!found.is_empty() && wanted.starts_with(found)),
        (Err(Error::Stale { .. }), Err(Error::Stale { .. })) => {}
        _ => panic!("{fresh:?}, {found:?}"),
    }
}
