//! What a scrubber tells: each finding once, however many there are.

use super::super::told::Told;
use super::*;
use crate::wal::{Acknowledged, Finding, Severity};

const MAX: usize = 5;

fn found(segment: u64, at: u64) -> Finding {
    Finding {
        severity: Severity::Corrupt,
        file: format!("segment {segment}"),
        bytes: at..at + 1,
        what: "a flipped bit".to_owned(),
        acknowledged: Some(Acknowledged::Yes),
        entries: Vec::new(),
    }
}

/// A pass over segments with so many findings each: what was told, the notes among it, and the count of the pass.
fn pass(told: &mut Told, counts: &[u64]) -> (Vec<Finding>, usize, u64) {
    let sealed: Vec<SegmentNumber> = (0..counts.len() as u64).map(SegmentNumber).collect();
    let mut all = Vec::new();
    for (&number, &count) in sealed.iter().zip(counts) {
        all.extend(told.take(number, ((0..count).map(|at| found(number.0, at)).collect(), 0)));
    }
    let notes = all.extract_if(.., |own| own.severity == Severity::Note).count();
    (all, notes, told.end_pass(&sealed))
}

#[test]
fn findings_that_a_segment_has_counted_alone_are_counted_in_the_pass() {
    let mut told = Told::new(MAX);
    assert_eq!(told.take(SegmentNumber(1), (vec![found(1, 0)], 5)).len(), 1);
    assert_eq!(told.end_pass(&[SegmentNumber(1)]), 6);
}

#[test]
fn a_finding_is_told_once_and_counted_in_each_pass() {
    let mut told = Told::new(MAX);
    let (first, notes, count) = pass(&mut told, &[2, 0, 2]);
    assert_eq!((first.len(), notes, count), (4, 0, 4));
    assert_eq!(told.findings(), first);
    assert_eq!(pass(&mut told, &[2, 0, 2]), (vec![], 0, 4), "all of them are told");
    assert_eq!(pass(&mut told, &[1, 1, 2]), (vec![found(1, 0)], 0, 4), "one went, another came");
    assert_eq!(pass(&mut told, &[2, 0, 2]), (vec![found(0, 1)], 0, 4), "one that went and came again is new");
}

#[test]
fn beyond_the_bound_one_note_says_that_there_are_more() {
    let mut told = Told::new(MAX);
    let (first, notes, count) = pass(&mut told, &[2, 9, 4]);
    assert_eq!((first.len(), notes, count), (MAX, 1, 15));
    let kept = told.findings();
    assert_eq!((kept.len(), &kept[..MAX]), (MAX + 1, &first[..]));
    let note = kept.last().unwrap().to_string();
    assert!(note.starts_with("note: segment 1 bytes 3..4: 5 findings are told already"), "{note}");
    for _ in 0..3 {
        assert_eq!(pass(&mut told, &[2, 9, 4]), (vec![], 0, 15), "nothing is told anew");
        assert_eq!(told.findings(), kept);
    }
    // Room comes, for some of those that were left out.
    let (more, notes, count) = pass(&mut told, &[0, 9, 4]);
    assert_eq!((more, notes, count), (vec![found(1, 3), found(1, 4)], 0, 13));
    let (more, notes, count) = pass(&mut told, &[0, 0, 4]);
    assert_eq!((more.len(), notes, count), (4, 0, 4));
    assert_eq!(told.findings(), more, "no more than that");
    let (again, notes, _) = pass(&mut told, &[0, 9, 4]);
    assert_eq!((again, notes), (vec![found(1, 0)], 1), "there are too many again");
    assert_eq!(pass(&mut told, &[]), (vec![], 0, 0));
    assert!(told.findings().is_empty(), "segments that went take theirs along");
}
