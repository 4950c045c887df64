//! What the tools make of a log in which more is wrong than is kept of it.

use std::cell::Cell;
use std::ops::ControlFlow;
use std::rc::Rc;

use super::dead::records_start;
use super::rig::{DIRECTORY, G, Rig, Start, WHOLE, identity, open_as, options, segment};
use crate::disk::Files;
use crate::limits::FINDINGS_MAX;
use crate::random::Random;
use crate::sim::disk::{Act, SimDisk};
use crate::types::{FrameNumber, Index, Place, SegmentNumber};
use crate::wal::repair::{self, Orders, Plan, Step};
use crate::wal::{Analysis, Finding, Log, Options, Piece, Severity, Source, contents};

const MAX: u64 = FINDINGS_MAX as u64;
const BLOCK: u64 = 4096;
/// Where a byte of the second payload lies in the records of a frame of [`log`].
const SECOND: u64 = 2 * 40 + 104 + 50;

/// A log with a first segment of so many frames of a block, and two more; the frames of so many entries each, and where
/// each begins with the index of its first.
fn log(frames: u64, entries: u64) -> (SimDisk, Vec<(Place, Index)>) {
    let mut rig = Rig::new(Options { segment_bytes: (frames + 20) * BLOCK, ..options() });
    rig.settle();
    let mut starts = Vec::new();
    let mut in_last = 0;
    while in_last < 12 {
        let start = rig.log.durable_end();
        let first = rig.model.group(G).last().index.next();
        let is_second = start.segment == SegmentNumber(2) && rig.log.counters().segments == 2;
        // In the second segment fewer frames are enough.
        rig.grow(G, entries, if is_second { 200_000 } else { 100 });
        rig.settle();
        in_last += u64::from(start.segment == SegmentNumber(3));
        starts.extend(Some((start, first)).filter(|_| rig.log.durable_end().segment == start.segment));
    }
    rig.disk.crash_to(&vec![0; rig.disk.loose().len()]);
    (rig.disk, starts)
}

fn found(disk: &SimDisk) -> Analysis {
    Analysis::read(&disk.files(), &Source::from_outside(DIRECTORY)).expect("the directory can be read")
}

/// The indexes that a dump shows, and what else it says that is neither a finding nor a damaged record.
fn dumped(disk: &SimDisk, found: &Analysis) -> (Vec<Index>, Vec<String>) {
    let (mut shown, mut said) = (Vec::new(), Vec::new());
    let _flow = contents(&disk.files(), (found, &found.findings), None, &mut |piece| {
        match piece {
            Piece::Record { head, .. } => shown.push(head.id.index),
            Piece::Finding(_) | Piece::Damaged { .. } => {}
            other => said.push(format!("{other:?}")),
        }
        ControlFlow::Continue(())
    });
    (shown, said)
}

/// It stepped over a damaged head by its finding alone, and said of the first without one that the segment was taken into
/// other use.
#[test]
fn a_dump_shows_what_lies_behind_heads_that_are_damaged_and_counted_alone() {
    let (disk, starts) = log(MAX + 300, 2);
    let in_first = starts.iter().filter(|(start, _)| start.segment == SegmentNumber(1)).count();
    let (mut untouched, mut damaged, mut gone) = (Vec::new(), 0, 0);
    for (at, (start, first)) in starts.iter().enumerate() {
        let name = segment(start.segment.0);
        // All of the first are damaged; of the others, and of its own last ones, every third has no head.
        let is_gone = at + 200 > in_first && at + 1 < starts.len() && at % 3 == 1;
        let is_damaged = at < in_first;
        match (is_gone, is_damaged) {
            (true, _) => disk.zero(&name, start.offset..start.offset + 512),
            (false, true) => disk.flip_bit(&name, start.offset + records_start(2) + SECOND, 1),
            (false, false) => {}
        }
        untouched.extend(Some(*first).filter(|_| !is_gone));
        untouched.extend(Some(first.next()).filter(|_| !is_gone && !is_damaged));
        gone += u64::from(is_gone && at > in_first);
        damaged += u64::from(is_gone || is_damaged);
    }
    assert!(gone >= 5, "{gone}");
    let found = found(&disk);
    assert_eq!((found.findings.len() as u64, found.findings_more()), (MAX, damaged - MAX));
    let (shown, said) = dumped(&disk, &found);
    let missing: Vec<&Index> = untouched.iter().filter(|index| !shown.contains(index)).collect();
    assert!(missing.is_empty(), "{} are not shown, the first {}", missing.len(), missing[0]);
    assert!(said.iter().all(|said| said.starts_with("Unread")), "{said:?}");
    let in_others = said.iter().filter(|said| !said.contains("SegmentNumber(1)")).count();
    assert_eq!(in_others as u64, gone, "each that is counted alone is told");
}

/// The end of the last segment was where its last whole frame ended.
#[test]
fn a_dump_shows_what_is_intact_in_the_last_frames_though_each_is_damaged_and_counted_alone() {
    let (disk, starts) = log(MAX + 100, 2);
    let damaged = |at: usize, start: &Place| start.segment.0 == 1 || (start.segment.0 == 3 && at + 6 >= starts.len());
    let mut expected = Vec::new();
    for (at, (start, first)) in starts.iter().enumerate() {
        expected.push(*first);
        match damaged(at, start) {
            // The second of its records.
            true => disk.flip_bit(&segment(start.segment.0), start.offset + records_start(2) + SECOND, 1),
            false => expected.push(first.next()),
        }
    }
    let found = found(&disk);
    assert!(found.findings_more() >= 6 && found.findings.iter().all(|own| own.segment() == Some(SegmentNumber(1))));
    let (shown, said) = dumped(&disk, &found);
    let missing: Vec<&Index> = expected.iter().filter(|index| !shown.contains(index)).collect();
    assert!(missing.is_empty(), "{} are not shown: {missing:?}", missing.len());
    assert_eq!(said, Vec::<String>::new());
}

fn orders() -> Orders {
    Orders { loss: None, mark: None, seed: 3, wall_clock_milliseconds: 1 }
}

fn to_repair(evidence: Place) -> Source {
    Source { identity: Some(identity()), evidence, exclusive: true, ..Source::from_outside(DIRECTORY) }
}

/// A log behind so many segments that a purge gave up, at rest.
fn given_up(count: u64) -> (SimDisk, Place) {
    let mut rig = Rig::new(options());
    // The power goes before the first of them is removed.
    rig.keeps_given_up = true;
    rig.settle();
    (0..count).for_each(|_| rig.rotate(G));
    rig.purge(G, rig.model.group(G).last());
    rig.grow(G, 2, 300);
    rig.settle();
    let end = rig.log.durable_end();
    rig.disk.crash_to(&vec![0; rig.disk.loose().len()]);
    (rig.disk, end)
}

fn damage_headers(disk: &SimDisk, number: u64) {
    let bytes = disk.contents(&segment(number)).len() as u64;
    [0, bytes - BLOCK].into_iter().for_each(|offset| disk.fill(&segment(number), offset + 20..offset + 40, 0xff));
}

/// Foreign names stood in the list, and of the damaged files one for each round of repair: behind the last round it said
/// that the log is sound.
#[test]
fn a_repair_sets_all_damaged_files_aside_whatever_else_stands_beside_them() {
    let (disk, end) = given_up(10);
    (0..MAX + 10).for_each(|number| disk.plant(&format!("{DIRECTORY}/!{number}.txt"), b""));
    let names = disk.files().list(DIRECTORY).expect("it is there");
    let damaged: Vec<u64> = (1..=8).filter(|&number| names.iter().any(|own| segment(number).ends_with(own))).collect();
    assert_eq!(damaged.len(), 8, "{damaged:?}");
    damaged.iter().for_each(|&number| damage_headers(&disk, number));
    let aside: Vec<Step> = damaged.iter().map(|&number| Step::SetAside { file: segment(number) }).collect();
    let source = to_repair(end);
    assert_eq!(repair::plan(&disk.fork().files(), &source).expect("the disk is well").steps, aside);
    let files = disk.files();
    assert_eq!(repair::apply(&files, &source, &orders()).expect("the disk is well"), aside);
    assert_eq!(repair::plan(&disk.files(), &source).expect("the disk is well"), Plan::default());
    Log::open(&disk.fork().files(), options(), end, 1).expect("it is sound");
}

/// A log of which the last segments have numbers above this one, and where it ends.
fn numbered_above(number: u64) -> (SimDisk, Place) {
    let mut rig = Rig::new(options());
    rig.rotate(G);
    rig.rest();
    rig.disk.crash_to(&vec![0; rig.disk.loose().len()]);
    // The superblock says that there was such a number.
    let evidence = Place { segment: SegmentNumber(number), offset: 0, frame: FrameNumber(0) };
    let Rig { disk, mut model, .. } = rig;
    let (log, _, found) = open_as(&disk, &options(), Start { evidence, ..WHOLE }).expect("it is sound");
    model.recover(found);
    let mut rig = Rig::with(disk, log, model);
    (0..3).for_each(|_| rig.rotate(G));
    rig.rest();
    rig.disk.crash_to(&vec![0; rig.disk.loose().len()]);
    let end = rig.log.durable_end();
    assert!(end.segment > SegmentNumber(number), "{end}");
    (rig.disk, end)
}

/// What its header says of a segment in which the log had been durable is damage to the log, whatever else is damaged.
#[test]
fn a_header_that_had_been_durable_is_told_though_very_many_others_are_damaged() {
    let (disk, end) = numbered_above(5000);
    (0..MAX + 50).for_each(|number| disk.plant(&segment(100 + number), &[7; 4 * BLOCK as usize]));
    damage_headers(&disk, end.segment.0);
    let source = Source { exclusive: false, ..to_repair(end) };
    let found = Analysis::read(&disk.files(), &source).expect("the directory can be read");
    assert_eq!(found.findings_more(), 51 - 1);
    let corrupt: Vec<&Finding> = found.findings.iter().filter(|own| own.severity == Severity::Corrupt).collect();
    assert_eq!(corrupt.iter().map(|own| own.segment()).collect::<Vec<_>>(), [Some(end.segment)]);
    assert!(corrupt[0].what.contains("it had been durable up to offset"), "{}", corrupt[0]);
    let plan = repair::plan(&disk.files(), &source).expect("the directory can be read");
    assert_eq!(plan.damage.and_then(|(finding, _)| finding.segment()), Some(end.segment));
}

fn damage_bodies(disk: &SimDisk, starts: &[u64]) {
    starts.iter().for_each(|start| disk.flip_bit(&segment(1), start + records_start(2) + 60, 1));
}

/// The bytes that it takes to find out what is wrong with the log.
fn bytes_read(disk: &SimDisk) -> (Analysis, u64) {
    let read = Rc::new(Cell::new(0));
    let told = Rc::clone(&read);
    disk.observe(move |event| told.set(told.get() + if event.act == Act::Read { event.length } else { 0 }));
    (found(disk), read.get())
}

/// In the last segment nothing later says where it ends, and behind each fault that nothing proves the search for proof goes
/// to the end of the segment. There are no more such faults than writes in flight.
#[test]
fn to_read_damage_at_the_end_of_a_log_is_to_read_it_a_few_times() {
    const SEGMENT_BYTES: u64 = 4 << 20;
    let mut rig = Rig::new(Options { segment_bytes: SEGMENT_BYTES, writes_in_flight: 8, ..options() });
    rig.settle();
    let mut starts = Vec::new();
    for _ in 0..400 {
        starts.push(rig.log.durable_end().offset);
        rig.grow(G, 1, 100);
        rig.settle();
    }
    let proven = rig.log.durable_end().offset;
    let in_flight: Vec<u64> = (0..8).map(|at| proven + at * BLOCK).collect();
    for _ in &in_flight {
        rig.grow(G, 1, 100);
        rig.pump();
    }
    assert_eq!((rig.disk.pending().len(), rig.log.active.number), (8, SegmentNumber(1)));
    rig.disk.complete_all();
    rig.disk.crash_to(&vec![0; rig.disk.loose().len()]);

    let proven_ones = rig.disk.fork();
    damage_bodies(&proven_ones, &starts[3..]);
    let (found, read) = bytes_read(&proven_ones);
    assert_eq!((found.findings.len(), found.severity()), (397, Some(Severity::Corrupt)));
    assert!(read < 8 * SEGMENT_BYTES, "{read}");

    let unproven = rig.disk.fork();
    damage_bodies(&unproven, &in_flight);
    let end = in_flight[7] + BLOCK;
    unproven.junk(&segment(1), end..SEGMENT_BYTES - BLOCK, &mut Random::seeded(1));
    let (found, read) = bytes_read(&unproven);
    let unclear = found.findings.iter().filter(|own| own.severity == Severity::Unclear).count();
    assert_eq!(unclear, 8 + 1, "and what stands behind them: {:?}", found.findings);
    assert!(read < 24 * SEGMENT_BYTES, "{read}");
}
