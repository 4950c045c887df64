//! What the tools make of a log in which more is wrong than is kept of it.

use super::rig::{DIRECTORY, G, Rig, Start, WHOLE, identity, open_as, options, segment};
use crate::disk::Files;
use crate::limits::FINDINGS_MAX;
use crate::sim::disk::SimDisk;
use crate::types::{FrameNumber, Place, SegmentNumber};
use crate::wal::repair::{self, Orders, Plan, Step};
use crate::wal::{Analysis, Finding, Log, Severity, Source};

const MAX: u64 = FINDINGS_MAX as u64;
const BLOCK: u64 = 4096;

fn orders() -> Orders {
    Orders { loss: None, mark: None, seed: 3, wall_clock_milliseconds: 1 }
}

fn to_repair(evidence: Place) -> Source {
    Source { identity: Some(identity()), evidence, exclusive: true, ..Source::from_outside(DIRECTORY) }
}

/// A log behind so many segments that a purge gave up, at rest.
fn given_up(count: u64) -> (SimDisk, Place) {
    let mut rig = Rig::new(options());
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
