//! A log in which more is wrong than is kept of it.

use std::ops::ControlFlow;

use super::dead::records_start;
use super::rig::{DIRECTORY, G, Rig, open, options, segment};
use crate::limits::{FINDING_RUNS_MAX, FINDINGS_MAX};
use crate::sim::disk::SimDisk;
use crate::types::{GroupId, Index, Place, SegmentNumber};
use crate::wal::surplus::Surplus;
use crate::wal::{
    Acknowledged, Analysis, Error, Finding, Log, LogIds, Options, Piece, Severity, Source, contents, more_findings,
    repair,
};
use Severity::{Corrupt, Note, Torn};

const MAX: u64 = FINDINGS_MAX as u64;

/// A log of three segments, the first with more frames than findings are kept, and where frames of one entry begin.
fn log() -> (Rig, Vec<Place>) {
    let segment_bytes = (FINDINGS_MAX as u64 + 200) * 4096;
    let mut rig = Rig::new(Options { segment_bytes, ..options() });
    rig.settle();
    let mut starts = Vec::new();
    while rig.log.active.number < SegmentNumber(3) {
        let start = rig.log.durable_end();
        // In the second segment fewer frames are enough.
        let bytes = if start.segment == SegmentNumber(1) { 100 } else { 20_000 };
        rig.grow(G, 1, bytes);
        rig.settle();
        starts.extend(Some(start).filter(|_| rig.log.durable_end().segment == start.segment));
    }
    rig.rest();
    (rig, starts)
}

/// All frames of the first segment but for its first ones, and one of the second; gives how many.
fn damage(disk: &SimDisk, starts: &[Place]) -> u64 {
    let in_first = starts.iter().filter(|start| start.segment == SegmentNumber(1)).skip(3);
    let in_second = starts.iter().filter(|start| start.segment == SegmentNumber(2)).skip(3).take(1);
    let damaged: Vec<&Place> = in_first.chain(in_second).collect();
    damaged.iter().for_each(|start| disk.flip_bit(&segment(start.segment.0), start.offset + records_start(2) + 60, 1));
    damaged.len() as u64
}

#[test]
fn what_is_wrong_with_a_very_damaged_log_has_a_bound_and_is_counted() {
    let (rig, starts) = log();
    let fork = rig.disk.fork();
    let all = damage(&fork, &starts);
    assert!(all > MAX + 100, "{all}");

    let checked = rig.log.extent().check(&fork.files()).expect("its files are there");
    assert_eq!((checked.findings.len() as u64, checked.findings_more), (MAX, all - MAX));
    let clean: Vec<u64> = checked.clean.iter().map(|(header, _)| header.number.0).collect();
    assert_eq!(clean, [3], "what is wrong with the second is counted alone, and it is not whole");
    let sealed = rig.log.sealed_extent(SegmentNumber(1)).expect("it is sealed");
    let checked = sealed.check(&fork.files()).expect("its file is there");
    assert_eq!((checked.findings.len() as u64, checked.findings_more), (MAX, all - 1 - MAX));

    fork.crash_to(&vec![0; fork.loose().len()]);
    let source = Source::from_outside(DIRECTORY);
    let found = Analysis::read(&fork.files(), &source).expect("the directory can be read");
    assert_eq!((found.findings.len() as u64, found.findings_more()), (MAX, all - MAX));
    assert_eq!(found.severity(), Some(Severity::Corrupt));
    assert!(found.findings.is_sorted_by_key(|finding| (finding.segment(), finding.bytes.start)), "the first are kept");
    let first = starts[3].offset;
    assert_eq!(found.findings[0].bytes.start, first);
    let plan = repair::plan(&fork.files(), &source).expect("the directory can be read");
    let (finding, loss) = plan.damage.expect("it is damaged");
    assert!(finding.bytes.start == first && loss.expect("a cut helps").entries[0].first.index == Index(4));
    match Log::open(&fork.files(), rig.log.options().clone(), Place::START, 1) {
        Err(Error::Damaged(finding)) => assert_eq!(finding.bytes.start, first),
        other => panic!("{:?}", other.map(|(_, recovery)| recovery)),
    }
}

/// Nothing was said of such a frame where findings are only counted: neither a record nor that it is there.
#[test]
fn a_frame_that_is_counted_alone_and_damaged_twice_is_shown_when_all_is() {
    let (rig, starts) = log();
    damage(&rig.disk, &starts);
    let twice = starts.iter().rfind(|start| start.segment == SegmentNumber(1)).expect("it has many");
    rig.disk.flip_bit(&segment(1), twice.offset + records_start(0) + 4, 1);
    rig.disk.flip_bit(&segment(1), twice.offset + records_start(2) + 4, 1);
    let files = rig.disk.files();
    let found = Analysis::read(&files, &Source::from_outside(DIRECTORY)).expect("the directory can be read");
    let (mut undirected, mut damaged) = (Vec::new(), 0);
    let flow = contents(&files, (&found, &found.findings), Some(SegmentNumber(1)), &mut |piece| {
        match piece {
            Piece::Undirected { segment, offset } => undirected.push((segment, offset)),
            Piece::Damaged { .. } => damaged += 1,
            _ => {}
        }
        ControlFlow::Continue(())
    });
    assert!(flow.is_continue() && damaged > MAX, "{damaged}");
    assert_eq!(undirected, [(SegmentNumber(1), twice.offset)]);
}

/// They have a bound of their own: what is wrong in frames is told beside them.
#[test]
fn names_that_are_not_the_logs_do_not_hide_what_is_wrong_in_it() {
    let mut rig = Rig::new(options());
    rig.settle();
    rig.grow(G, 2, 600);
    rig.settle();
    let start = rig.log.durable_end().offset;
    rig.grow(G, 2, 600);
    rig.rest();
    rig.disk.crash_to(&vec![0; rig.disk.loose().len()]);
    (0..MAX + 52).for_each(|number| rig.disk.plant(&format!("{DIRECTORY}/{number}.txt"), b""));
    let (_, recovery, found) = open(&rig.disk.fork(), &options()).expect("notes keep nobody from opening it");
    assert!(found == *rig.model.state());
    assert_eq!((recovery.findings.len() as u64, recovery.findings_more), (MAX, 52));
    let told = recovery.told();
    assert!(told.len() as u64 == MAX + 1 && told[MAX as usize] == "and 52 more findings", "{:?}", told.last());
    assert_eq!(
        [0, 1, 2].map(more_findings),
        [None, Some("and 1 more finding".to_owned()), Some("and 2 more findings".to_owned())]
    );
    rig.disk.flip_bit(&segment(1), start + records_start(2) + 200, 1);
    let found = Analysis::read(&rig.disk.files(), &Source::from_outside(DIRECTORY)).expect("it can be read");
    assert_eq!((found.findings.len() as u64, found.findings_more()), (MAX + 1, 52));
    assert_eq!(found.severity(), Some(Severity::Corrupt));
}

fn finding(severity: Severity, number: u64, runs: usize) -> Finding {
    let ids = |at: usize| LogIds::unnamed(GroupId(0), Index(2 * at as u64)..Index(2 * at as u64 + 1));
    Finding {
        severity,
        file: segment(number),
        bytes: number..number + 1,
        what: "wrong".to_owned(),
        acknowledged: Some(Acknowledged::Yes),
        entries: (0..runs).map(ids).collect(),
    }
}

#[test]
fn the_first_are_kept_and_the_worst_and_the_others_are_counted_by_segment() {
    let (mut kept, mut surplus) = (vec![finding(Severity::Note, 99, 0)], Surplus::default());
    let mut keep = |severity, number| drop(surplus.keep((&mut kept, 1), finding(severity, number, 0)));
    (1..=MAX + 3).for_each(|number| keep(Severity::Torn, number));
    keep(Severity::Note, 7);
    keep(Severity::Corrupt, MAX + 4);
    keep(Severity::Unclear, MAX + 5);
    keep(Severity::Corrupt, MAX + 6);
    assert_eq!(kept.len(), FINDINGS_MAX + 1);
    let numbers: Vec<u64> = kept.iter().map(|finding| finding.bytes.start).collect();
    let first = [99].into_iter().chain(1..=MAX - 3).chain(MAX + 4..=MAX + 6);
    assert!(numbers.iter().copied().eq(first), "{:?}", &numbers[numbers.len() - 5..]);
    assert_eq!(surplus.sum(None), 7);
    let counted = [7, MAX - 2, MAX - 1, MAX, MAX + 1, MAX + 2, MAX + 3].map(SegmentNumber);
    assert_eq!(surplus.sum(Some(&counted)), 7);
    assert_eq!(surplus.sum(Some(&[SegmentNumber(MAX + 4), SegmentNumber(1)])), 0);
    let mut other = Surplus::default();
    other.take_below(SegmentNumber(MAX + 1), &surplus);
    assert_eq!(other.sum(None), 4);
}

#[test]
fn the_entries_that_findings_name_have_a_bound_together_and_each_names_some() {
    let mut analysis = Analysis::empty(None, SegmentNumber(1));
    for number in 0..4 {
        analysis.found(finding(Severity::Corrupt, number, FINDING_RUNS_MAX / 2 + 1));
    }
    let named: Vec<usize> = analysis.findings.iter().map(|finding| finding.entries.len()).collect();
    assert_eq!(named, [FINDING_RUNS_MAX / 2 + 1, FINDING_RUNS_MAX / 2 - 1, 1, 1]);
    assert_eq!(analysis.findings[0].what, "wrong");
    assert_eq!(analysis.findings[1].what, "wrong; 2 more runs of entries are not named");
    assert_eq!(analysis.findings_more(), 0);
}

/// Those of a purged segment that is damaged beyond the bound are told and counted as notes: the log opens.
#[test]
fn what_is_wrong_with_a_segment_that_was_given_up_is_counted_beyond_the_bound() {
    let (mut rig, starts) = log();
    rig.purge(G, rig.model.group(G).last());
    rig.grow(G, 1, 100);
    rig.rest();
    rig.disk.crash_to(&vec![0; rig.disk.loose().len()]);
    let first: Vec<Place> = starts.into_iter().filter(|start| start.segment == SegmentNumber(1)).collect();
    let all = damage(&rig.disk, &first);
    assert!(all > MAX + 100, "{all}");
    let (_, recovery, held) = open(&rig.disk.fork(), rig.log.options()).expect("nothing of it is needed");
    assert!(held == *rig.model.state());
    assert_eq!((recovery.findings.len() as u64, recovery.findings_more), (MAX, all - MAX));
    assert!(recovery.findings.iter().all(|finding| finding.severity == Severity::Note));
}

/// What is left out was said of a finding each time that it was kept anew.
#[test]
fn what_is_not_named_of_a_finding_is_said_once() {
    let mut analysis = Analysis::empty(None, SegmentNumber(1));
    let suspected = [(1, FINDING_RUNS_MAX / 2 + 1), (2, FINDING_RUNS_MAX / 2 + 1)];
    for (number, runs) in suspected {
        analysis.suspect(finding(Severity::Corrupt, number, runs));
    }
    analysis.found(finding(Severity::Corrupt, 3, FINDING_RUNS_MAX + 5));
    analysis.settle_suspects();
    let named: Vec<usize> = analysis.findings.iter().map(|finding| finding.entries.len()).collect();
    assert_eq!(named, [FINDING_RUNS_MAX / 2 + 1, FINDING_RUNS_MAX / 2 - 1, 1]);
    let told = |at: usize| analysis.findings[at].what.as_str();
    assert_eq!(told(0), "wrong");
    assert_eq!(told(1), "wrong; 2 more runs of entries are not named");
    assert_eq!(told(2), format!("wrong; {} more runs of entries are not named", FINDING_RUNS_MAX + 4));
}

/// What a look found: segments, or 0 for a file that is none, with how many findings are kept, at rising places, and how
/// many are counted alone.
fn look(segments: &[(u64, Severity, u64, u64)]) -> Analysis {
    let mut analysis = Analysis::empty(None, SegmentNumber(1));
    for &(number, severity, kept, counted) in segments {
        let file = if number == 0 { format!("{DIRECTORY}/foreign") } else { segment(number) };
        let at = |at: u64| Finding { file: file.clone(), bytes: at..at + 1, ..finding(severity, number, 0) };
        analysis.findings.extend((0..kept).map(at));
        let mut full = vec![finding(Severity::Corrupt, 0, 0); FINDINGS_MAX];
        (kept..kept + counted).for_each(|place| drop(analysis.surplus.keep((&mut full, 0), at(place))));
    }
    analysis
}

/// What a second look leaves of what it found: how many of each segment are kept, and how many are counted alone.
fn lasting(first: &Analysis, mut second: Analysis) -> (Vec<(u64, u64)>, u64) {
    second.leave_what_lasts(first);
    let mut kept: Vec<(u64, u64)> = Vec::new();
    for number in second.findings.iter().map(|finding| finding.segment().map_or(0, |number| number.0)) {
        match kept.last_mut().filter(|(own, _)| *own == number) {
            Some((_, count)) => *count += 1,
            None => kept.push((number, 1)),
        }
    }
    (kept, second.findings_more())
}

/// A log in use is looked at twice, since a frame that is being written looks torn. The first segment, which had all the
/// findings that are kept, was retired between the two looks: what the first look had only counted seemed to be new, and
/// nothing was left.
#[test]
fn what_the_first_look_only_counted_is_no_news_in_the_second() {
    let first = look(&[(1, Corrupt, MAX, 100), (2, Corrupt, 0, 1)]);
    assert_eq!(lasting(&first, look(&[(2, Corrupt, 1, 0)])), (vec![(2, 1)], 0));
    assert_eq!(lasting(&first, look(&[(2, Corrupt, 3, 0), (3, Torn, 1, 0)])), (vec![(2, 3)], 0));
    assert_eq!(lasting(&first, look(&[(1, Corrupt, MAX, 100), (2, Corrupt, 0, 1)])), (vec![(1, MAX)], 101));
    assert_eq!(lasting(&first, look(&[])), (vec![], 0));
}

#[test]
fn what_one_look_alone_finds_is_nothing() {
    let first = look(&[(1, Note, 1, 0), (2, Corrupt, 1, 0)]);
    assert_eq!(lasting(&first, look(&[(3, Torn, 1, 0)])), (vec![], 0));
    assert_eq!(
        lasting(&first, look(&[(1, Note, 2, 0), (2, Corrupt, 1, 0), (3, Torn, 1, 0)])),
        (vec![(1, 1), (2, 1)], 0)
    );
    let foreign = [(0, Note, MAX, 60)];
    let second = look(&[foreign[0], (3, Torn, 1, 0)]);
    assert_eq!(lasting(&look(&foreign), second), (vec![(0, MAX)], 60));
}

/// What is counted was no worse than what was kept, so it does not stand alone.
#[test]
fn where_damage_is_counted_in_both_looks_and_none_is_kept_what_the_second_found_stays() {
    let first = look(&[(1, Corrupt, MAX, 0), (5, Corrupt, 0, 1)]);
    let second = look(&[(4, Corrupt, MAX, 0), (5, Corrupt, 0, 1)]);
    assert_eq!(lasting(&first, second), (vec![(4, MAX)], 1));
}

/// The count of a check spoke of segments that had been retired since, too.
#[test]
fn what_a_check_counted_in_segments_that_are_gone_is_forgotten() {
    let (rig, starts) = log();
    let fork = rig.disk.fork();
    let all = damage(&fork, &starts);
    let checked = rig.log.extent().check(&fork.files()).expect("its files are there");
    let left = |first: u64| {
        let mut checked = checked.clone();
        checked.leave_those_of(|number| number.0 >= first);
        (checked.findings.len() as u64, checked.findings_more)
    };
    assert_eq!([left(1), left(2), left(3)], [(MAX, all - MAX), (0, 1), (0, 0)]);
}
