//! Reads against a model: whatever was cut, purged and written again.

use super::rig::{Rig, options, segment};
use crate::random::Random;
use crate::sim::disk::Act;
use crate::types::{Entry, GroupId, Index, Term};
use crate::wal::window::PIECE_BYTES_MAX;
use crate::wal::{Error, LogIds, Options};

const BYTES: [usize; 4] = [0, 60, 900, 9000];
/// None, one small frame, a few, more than a segment, all.
const CACHES: [usize; 5] = [0, 8 << 10, 48 << 10, 160 << 10, 64 << 20];

fn change(rig: &mut Rig, random: &mut Random) {
    let group = GroupId(random.below(3) as u32);
    let state = rig.model.group(group);
    let any = |random: &mut Random| state.entries[random.below(state.entries.len() as u64) as usize].id;
    match random.below(10) {
        0 if !state.entries.is_empty() => rig.truncate(group, any(random).index),
        1 if !state.entries.is_empty() && random.chance(300) => rig.purge(group, any(random)),
        2 if random.chance(50) => {
            // Beyond the end: a snapshot took the log's place.
            let last = state.last();
            rig.purge(group, crate::types::LogId::new(last.term.max(Term(1)), last.index.plus(7)));
        }
        3 if !state.entries.is_empty() => {
            rig.model.term = Term(rig.model.term.0 + 1);
            let after = any(random).index.previous();
            let entries = rig.model.entries_behind(after, 1 + random.below(4), *random.pick(&BYTES));
            rig.append(group, &entries);
        }
        4 => rig.model.term = Term(rig.model.term.0 + 1),
        5 => rig.settle(),
        _ => rig.grow(group, 1 + random.below(4), *random.pick(&BYTES)),
    }
}

/// Any range, any limit: a run of the model's entries from the first wanted one on, at least one if there is one.
fn compare(rig: &Rig, random: &mut Random, what: &str) {
    for (&group, state) in rig.model.state() {
        let (first, last) = (state.before_first.index.0 + 1, state.last().index.0);
        let from = Index(first + random.below(last + 3 - first.min(last)));
        let to = from.plus(random.below(12));
        let bytes_max = *random.pick(&[1, 500, 20_000, 1 << 30]);
        let found = rig.log.plan_read(group, from, to, bytes_max).run(&rig.files);
        let found = found.unwrap_or_else(|error| panic!("{what}: group {group} {from}..{to}: {error}"));
        let wanted: Vec<&Entry> = state.entries.iter().filter(|entry| (from..to).contains(&entry.id.index)).collect();
        let shown = || format!("{what}: group {group} {from}..{to} within {bytes_max}");
        assert!(found.len() <= wanted.len() && found.is_empty() == wanted.is_empty(), "{}", shown());
        assert!(found.iter().eq(wanted.iter().take(found.len()).copied()), "{}", shown());
        let is_whole = found.len() == wanted.len();
        assert!(is_whole || bytes_max < 1 << 30, "{}", shown());
    }
}

fn run(seed: u64) -> u64 {
    let mut random = Random::seeded(seed);
    let writes_in_flight = 1 + seed as usize % 3;
    let tail_cache_bytes = CACHES[seed as usize / 3 % CACHES.len()];
    let mut rig = Rig::new(Options { writes_in_flight, tail_cache_bytes, ..options() });
    let mut reads = 0;
    for step in 0..150 {
        change(&mut rig, &mut random);
        if random.chance(250) {
            rig.settle();
            for _ in 0..4 {
                compare(&rig, &mut random, &format!("seed {seed} step {step}"));
                reads += 1;
            }
        }
        if random.chance(10) {
            rig.disk.crash(&mut random);
            rig = rig.reopened();
        }
        assert!(rig.log.tail.bytes() <= tail_cache_bytes);
    }
    rig.settle();
    rig.check();
    reads
}

#[test]
fn reads_give_what_was_written() {
    let reads: u64 = (0..150).map(run).sum();
    println!("{reads} rounds of reads");
    assert!(reads > 15_000, "{reads}");
}

/// A run of one group over many segments, read from each of its entries.
#[test]
fn reads_go_over_segments() {
    let mut rig = Rig::new(options());
    for _ in 0..60 {
        rig.grow(GroupId(0), 2, 3000);
        rig.grow(GroupId(1), 1, 100);
        rig.settle();
    }
    assert!(rig.log.counters().segments > 5);
    for from in 1..=120 {
        let plan = rig.log.plan_read(GroupId(0), Index(from), Index(121), 1 << 30);
        assert_eq!(plan.run(&rig.files).expect("it is intact").len() as u64, 121 - from);
    }
    rig.check();
}

/// Recovery reads a log of any length in windows: neither a segment nor a log is ever in memory whole.
#[test]
fn recovery_reads_in_windows() {
    let options = Options { segment_bytes: 4 << 20, ..options() };
    let mut rig = Rig::new(options.clone());
    for _ in 0..60 {
        rig.grow(GroupId(0), 1, 300_000);
        rig.settle();
    }
    assert!(rig.log.counters().segments > 3);
    let Rig { disk, model, .. } = rig;
    disk.crash_to(&vec![0; disk.loose().len()]);
    let largest = std::rc::Rc::new(std::cell::Cell::new(0));
    let seen = std::rc::Rc::clone(&largest);
    disk.observe(move |event| {
        if event.act == Act::Read {
            seen.set(seen.get().max(event.length));
        }
    });
    let files = disk.files();
    let (log, _) = crate::wal::Log::open(&files, options, Default::default(), 1).expect("it is intact");
    assert!((300_000..=PIECE_BYTES_MAX as u64).contains(&largest.get()), "{}", largest.get());
    assert_eq!(log.group(GroupId(0)).map(|group| group.last), Some(model.group(GroupId(0)).last()));
}

#[test]
fn a_read_takes_at_least_one_entry_and_not_many_more_than_asked_for() {
    let mut rig = Rig::new(options());
    rig.grow(GroupId(0), 20, 1000);
    rig.settle();
    let lengths: Vec<usize> = [1, 1500, 4000]
        .iter()
        .map(|&bytes_max| rig.log.plan_read(GroupId(0), Index(1), Index(21), bytes_max).run(&rig.files))
        .map(|entries| entries.expect("it is intact").len())
        .collect();
    assert_eq!(lengths, [1, 2, 4]);
}

#[test]
fn a_read_that_the_device_refuses_is_no_damage() {
    let mut rig = Rig::new(options());
    rig.grow(GroupId(0), 20, 1000);
    rig.settle();
    let plan = rig.log.plan_read(GroupId(0), Index(1), Index(21), usize::MAX);
    rig.disk.make_unreadable(&segment(1), 12_288..12_800);
    let refusal = plan.run(&rig.files).expect_err("a sector of it cannot be read");
    assert!(matches!(refusal, Error::Disk(_)), "{refusal}");
}

/// Twelve entries in one frame, each larger than a sector.
fn one_frame() -> Rig {
    let mut rig = Rig::new(options());
    rig.grow(GroupId(0), 12, 700);
    rig.settle();
    rig
}

/// Any byte of a frame's records: the entry in it is lost, and no other.
#[test]
fn damage_to_a_record_costs_that_entry_and_no_other() {
    let rig = one_frame();
    let all = rig.log.plan_read(GroupId(0), Index(1), Index(13), usize::MAX).run(&rig.files).expect("it is intact");
    let mut lost = std::collections::BTreeSet::new();
    // The open frame is one block, and the records of the next begin within its first.
    for at in (8192 + 512..8192 + 12 * 700).step_by(41) {
        let disk = rig.disk.fork();
        disk.flip_bit(&segment(1), at, 3);
        let read = |from: u64| rig.log.plan_read(GroupId(0), Index(from), Index(13), usize::MAX).run(&disk.files());
        let before = match read(1) {
            Ok(entries) => entries,
            Err(Error::Damaged(_)) => Vec::new(),
            Err(error) => panic!("{at}: {error}"),
        };
        let damaged = before.len() as u64 + 1;
        if damaged == 13 {
            continue;
        }
        lost.insert(damaged);
        assert_eq!(before, all[..damaged as usize - 1], "{at}");
        let Err(Error::Damaged(finding)) = read(damaged) else { panic!("{at}: entry {damaged} is damaged") };
        let ids = LogIds::unnamed(GroupId(0), Index(damaged)..Index(damaged + 1));
        assert_eq!(finding.entries, [ids], "{at}: {finding}");
        assert_eq!(read(damaged + 1).expect("it is intact"), all[damaged as usize..], "{at}");
    }
    assert!(lost.len() >= 11, "{lost:?}");
}

/// A damaged record that ended others of its frame: what it ended does not come back.
#[test]
fn a_damaged_record_still_ends_what_it_ended() {
    let mut rig = Rig::new(options());
    rig.pump();
    rig.grow(GroupId(0), 3, 700);
    rig.model.term = Term(2);
    let entries = rig.model.entries_behind(Index(1), 1, 700);
    rig.append(GroupId(0), &entries);
    rig.settle();
    let mut damaged = 0;
    for at in (8192..8192 + 4096).step_by(8) {
        let disk = rig.disk.fork();
        disk.flip_bit(&segment(1), at, 3);
        let found = rig.log.plan_read(GroupId(0), Index(2), Index(3), usize::MAX).run(&disk.files());
        match found {
            Ok(found) => assert_eq!(found[0].id.term, Term(2), "{at}"),
            Err(Error::Damaged(_)) => damaged += 1,
            Err(error) => panic!("{at}: {error}"),
        }
    }
    assert!(damaged > 50, "{damaged}");
}

#[test]
fn a_segment_that_stands_ready_is_read_once() {
    let mut rig = Rig::new(options());
    rig.grow(GroupId(0), 3, 1000);
    rig.settle();
    let Rig { disk, .. } = rig;
    disk.crash_to(&vec![0; disk.loose().len()]);
    let read = std::rc::Rc::new(std::cell::Cell::new(0));
    let seen = std::rc::Rc::clone(&read);
    disk.observe(move |event| {
        if event.act == crate::sim::disk::Act::Read && event.name == segment(3) {
            seen.set(seen.get() + event.length);
        }
    });
    crate::wal::Log::open(&disk.files(), options(), Default::default(), 1).expect("it is intact");
    let whole = options().segment_bytes;
    assert!((whole / 2..whole + whole / 2).contains(&read.get()), "{} of {whole}", read.get());
}

/// What a start keeps of a log: places by the segment, however many entries are in it, and spans by the cut.
#[test]
fn memory_grows_with_segments_and_cuts_alone() {
    let opened = |segments: usize| {
        let mut rig = Rig::new(options());
        while rig.log.counters().segments < segments as u64 {
            rig.rotate(GroupId(0));
        }
        rig.rest();
        rig.disk.crash(&mut Random::seeded(1));
        let rig = rig.reopened();
        assert!(rig.log.locator.segments().count() >= segments);
        rig.log.locator.sizes()
    };
    let ((few_spans, few_places), (many_spans, many_places)) = (opened(10), opened(200));
    assert_eq!((few_spans, many_spans), (1, 1), "nothing was cut");
    assert!(few_places <= 11 * 128 && many_places <= 201 * 128);
    assert!(many_places < 21 * few_places, "{few_places} places in 10 segments, {many_places} in 200");
    let mut rig = Rig::new(options());
    for _ in 0..500 {
        let last = rig.model.group(GroupId(0)).last().index;
        rig.grow(GroupId(0), 2, 0);
        rig.truncate(GroupId(0), last.plus(2));
        rig.settle();
    }
    rig.rest();
    rig.disk.crash(&mut Random::seeded(2));
    let mut rig = rig.reopened();
    let (spans, _) = rig.log.locator.sizes();
    assert!((499..=501).contains(&spans), "{spans} spans for 500 cuts");
    let last = rig.model.group(GroupId(0)).last();
    rig.purge(GroupId(0), last);
    rig.rest();
    assert!(rig.log.locator.sizes().0 <= 1, "what was purged has no span");
}

/// One of many in a frame, of one size and of many, with others before it damaged.
#[test]
fn one_entry_of_a_large_frame_is_read_whatever_lies_before_it() {
    for sizes in [[300; 4], [0, 300, 77, 1000]] {
        let mut rig = Rig::new(options());
        rig.pump();
        let mut entries: Vec<Entry> = Vec::new();
        for (number, bytes) in (1..=48).zip(sizes.into_iter().cycle()) {
            entries.push(crate::sim::log::model::entry(Term(1), crate::types::Index(number), bytes));
        }
        rig.append(GroupId(0), &entries);
        rig.settle();
        for damaged in [None, Some(8192 + 300), Some(8192 + 5000)] {
            let disk = rig.disk.fork();
            damaged.into_iter().for_each(|at| disk.flip_bit(&segment(1), at, 3));
            let mut lost = 0;
            for entry in &entries {
                let plan = rig.log.plan_read(GroupId(0), entry.id.index, entry.id.index.next(), 1);
                match plan.run(&disk.files()) {
                    Ok(found) => assert_eq!(found, std::slice::from_ref(entry)),
                    Err(Error::Damaged(_)) => lost += 1,
                    Err(error) => panic!("{}: {error}", entry.id),
                }
            }
            assert_eq!(lost, usize::from(damaged.is_some()), "{sizes:?} {damaged:?}");
        }
    }
}

/// One record of many in a frame of the segment in use: its frame's names and the blocks that it lies in are read, also in
/// frames that are passed by; those who want most of a frame read it at once.
#[test]
fn one_record_of_a_large_frame_takes_few_blocks() {
    let mut rig = Rig::new(Options { segment_bytes: 16 << 20, ..options() });
    let frame_bytes = 1000 * 1040;
    for _ in 0..3 {
        rig.grow(GroupId(0), 1000, 1000);
        rig.settle();
    }
    let all = rig.model.group(GroupId(0)).entries;
    let read = |from: u64, to: u64| {
        let disk = rig.disk.fork();
        let bytes = std::rc::Rc::new(std::cell::Cell::new(0));
        let seen = std::rc::Rc::clone(&bytes);
        disk.observe(move |event| {
            if event.act == Act::Read {
                seen.set(seen.get() + event.length);
            }
        });
        let plan = rig.log.plan_read(GroupId(0), Index(from), Index(to), usize::MAX);
        let found = plan.run(&disk.files()).expect("it is intact");
        assert_eq!(found, all[from as usize - 1..to as usize - 1], "{from}..{to}");
        bytes.get()
    };
    for from in [1, 2, 500, 999, 1000, 1001, 1700, 2999, 3000] {
        let bytes = read(from, from + 1);
        assert!(bytes < 100_000, "{from}: {bytes}");
    }
    let few = read(990, 1010);
    assert!(few < 300_000, "{few}");
    let whole = read(1, 3001);
    assert!((3 * frame_bytes..4 * frame_bytes).contains(&whole), "{whole}");
}

/// Records of all sizes, several groups in a frame, and what was replaced within it: where they lie cannot be told ahead.
#[test]
fn any_record_of_a_large_frame_is_found() {
    let mut rig = Rig::new(Options { segment_bytes: 16 << 20, ..options() });
    for round in 0..6 {
        for group in 0..3 {
            for bytes in [0, 3000, 17, 40_000, 900] {
                rig.grow(GroupId(group), 2 + round % 3, bytes);
            }
        }
        let state = rig.model.group(GroupId(1));
        rig.model.term = Term(2 + round);
        let entries = rig.model.entries_behind(state.entries[state.entries.len() - 3].id.index, 4, 5000);
        rig.append(GroupId(1), &entries);
        rig.settle();
    }
    for group in 0..3 {
        let all = rig.model.group(GroupId(group)).entries;
        for from in 1..=all.len() {
            for to in [from + 1, from + 3, all.len() + 1] {
                let plan = rig.log.plan_read(GroupId(group), Index(from as u64), Index(to as u64), usize::MAX);
                let found = plan.run(&rig.files).unwrap_or_else(|error| panic!("{group}: {from}..{to}: {error}"));
                assert_eq!(found, all[from - 1..(to - 1).min(all.len())], "{group}: {from}..{to}");
            }
        }
    }
}

/// Wherever a large frame is damaged, reading an excerpt says what reading all of it says.
#[test]
fn damage_in_a_large_frame_is_told_alike_to_all() {
    let mut rig = Rig::new(Options { segment_bytes: 4 << 20, ..options() });
    rig.grow(GroupId(0), 200, 1000);
    rig.settle();
    let all = rig.model.group(GroupId(0)).entries;
    let mut told = 0;
    for at in (8192..8192 + 200 * 1040).step_by(3331) {
        let disk = rig.disk.fork();
        disk.flip_bit(&segment(1), at, 3);
        let read =
            |from: u64, to: u64| rig.log.plan_read(GroupId(0), Index(from), Index(to), usize::MAX).run(&disk.files());
        // Which entry it is is known by reading on from the first.
        let lost = read(1, 201).map_or(0, |entries| entries.len() as u64) + 1;
        for from in [lost.saturating_sub(1).max(1), lost, lost + 1].into_iter().filter(|&from| from <= 200) {
            match read(from, from + 1) {
                Ok(found) => assert!(from != lost && found == all[from as usize - 1..from as usize], "{at} {from}"),
                Err(Error::Damaged(_)) => {
                    assert!(from == lost || lost == 1, "{at} {from}");
                    told += 1;
                }
                Err(error) => panic!("{at} {from}: {error}"),
            }
        }
    }
    assert!(told >= 60, "{told}");
}
