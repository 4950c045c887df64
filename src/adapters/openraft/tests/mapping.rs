//! The mapping by itself: bytes, names, limits, and what is refused.

use std::collections::BTreeMap;

use bytes::Bytes;
use openraft::Vote;

use super::{Types, entry, id};
use crate::adapters::openraft::Error;
use crate::adapters::openraft::mapping::{Beneath, Groups, Mapping, Operation, decode_entry};
use crate::limits::INDEX_MAX;
use crate::types::{self, Data, Entry, GroupId, Index, LogId, Payload, Place, Term};
use crate::wal::GroupLog;

const ENTRIES: GroupId = GroupId(0);
const STATE: GroupId = GroupId(1);

/// Names alone.
#[derive(Default)]
struct Names(BTreeMap<GroupId, GroupLog>);

impl Beneath for Names {
    fn group(&self, group: GroupId) -> Option<GroupLog> {
        self.0.get(&group).cloned()
    }

    fn batch_bytes_max(&self) -> usize {
        10_000
    }
}

impl Names {
    fn take(&mut self, operations: &[Operation]) {
        for operation in operations {
            let (Operation::Append { group, .. } | Operation::Truncate { group, .. } | Operation::Purge { group, .. }) =
                operation;
            let before = match operation {
                Operation::Append { entries, .. } => LogId::new(Term::ZERO, entries[0].id.index.previous()),
                _ => LogId::ZERO,
            };
            let names = self.0.entry(*group).or_insert_with(|| GroupLog::new(*group, before, Place::START));
            match operation {
                Operation::Append { entries, .. } => {
                    entries.iter().for_each(|entry| names.append(entry.id.index, 1, entry.id.term));
                }
                Operation::Truncate { from, .. } => names.truncate(*from),
                Operation::Purge { last, .. } => names.purge(*last),
            }
        }
    }
}

fn fresh() -> Mapping<Types> {
    Mapping::recover(Groups::of(0).unwrap(), &Names::default(), None).unwrap().0
}

/// A mapping with entries 0 to 9 of term 1.
fn ten() -> (Mapping<Types>, Names) {
    let (mapping, mut names) = (fresh(), Names::default());
    names.take(&mapping.append(&names, (0..10).map(|index| entry(id(1, 1, index), "x")).collect()).unwrap());
    (mapping, names)
}

fn bytes(entry: &Entry) -> &[u8] {
    match &entry.payload {
        Payload::Data(data) => &data.bytes,
        other => panic!("{other:?}"),
    }
}

/// docs/formats.md has the same bytes.
#[test]
fn the_bytes_of_an_entry_and_of_the_state() {
    let (mut mapping, names) = (fresh(), Names::default());
    let operations = mapping.append(&names, vec![entry(id(5, 2, 7), "hi")]).unwrap();
    let [Operation::Append { group: ENTRIES, entries }] = operations.as_slice() else { panic!("{operations:?}") };
    assert_eq!(entries[0].id, LogId::new(Term(6), Index(8)), "index and term count from 1");
    let expected = b"\x01\x82\xa6log_id\x82\xa9leader_id\x82\xa4term\x05\xa7node_id\x02\xa5index\x07\
                     \xa7payload\x81\xa6Normal\xa2hi";
    assert_eq!(Bytes::copy_from_slice(bytes(&entries[0])), Bytes::from_static(expected));
    assert_eq!(decode_entry::<Types>(ENTRIES, &entries[0]).unwrap(), entry(id(5, 2, 7), "hi"));

    let operations = mapping.save_vote(&names, Vote::new(3, 2)).unwrap();
    let [Operation::Append { group: STATE, entries }] = operations.as_slice() else { panic!("{operations:?}") };
    assert_eq!(entries[0].id, LogId::new(Term(1), Index(1)));
    let expected = b"\x01\x83\xa4vote\x82\xa9leader_id\x82\xa4term\x03\xa7node_id\x02\xa9committed\xc2\
                     \xa9committed\xc0\xa6purged\xc0";
    assert_eq!(Bytes::copy_from_slice(bytes(&entries[0])), Bytes::from_static(expected));
}

#[test]
fn an_entry_under_another_name_is_refused() {
    let operations = fresh().append(&Names::default(), vec![entry(id(5, 2, 7), "hi")]).unwrap();
    let Operation::Append { entries, .. } = &operations[0] else { panic!("{operations:?}") };
    let moved = Entry { id: LogId::new(Term(6), Index(9)), ..entries[0].clone() };
    assert!(matches!(decode_entry::<Types>(ENTRIES, &moved), Err(Error::Record { .. })));
    let cut = Bytes::copy_from_slice(&bytes(&entries[0])[..20]);
    let cut = Entry { payload: Payload::Data(Data::new(cut)), ..entries[0].clone() };
    assert!(matches!(decode_entry::<Types>(ENTRIES, &cut), Err(Error::Record { .. })));
    let none = Entry { payload: Payload::Noop, ..entries[0].clone() };
    assert!(matches!(decode_entry::<Types>(ENTRIES, &none), Err(Error::Record { .. })));
}

#[test]
fn a_hole_is_refused_and_what_is_purged_is_passed_over() {
    let (mut mapping, mut names) = ten();
    let refused = mapping.append(&names, vec![entry(id(1, 1, 11), "x")]).unwrap_err();
    assert!(matches!(refused, Error::Hole { found: 11, expected: 10 }), "{refused}");
    let refused = mapping.append(&names, vec![entry(id(1, 1, 10), "x"), entry(id(1, 1, 12), "x")]).unwrap_err();
    assert!(matches!(refused, Error::Hole { found: 12, expected: 11 }), "{refused}");
    let operations = mapping.purge(&names, id(1, 1, 20), &[]).unwrap();
    names.take(&operations);
    let refused = mapping.append(&names, vec![entry(id(1, 1, 10), "x"), entry(id(1, 1, 22), "x")]).unwrap_err();
    assert!(matches!(refused, Error::Hole { found: 22, expected: 21 }), "{refused}");
    let operations = mapping.append(&names, vec![entry(id(1, 1, 20), "x"), entry(id(1, 1, 21), "x")]).unwrap();
    let [Operation::Append { entries, .. }] = operations.as_slice() else { panic!("{operations:?}") };
    assert_eq!(entries.iter().map(|entry| entry.id.index.0).collect::<Vec<u64>>(), [22]);
    let refused = mapping.truncate(&names, 20).unwrap_err();
    assert!(matches!(refused, Error::Purged { from: 20, purged: 20 }), "{refused}");
    assert_eq!(mapping.purge(&names, id(1, 1, 3), &[]).unwrap(), [], "purged long since");
}

/// Entries in conflict with what is purged end first: else they would come back behind it.
#[test]
fn a_purge_ends_what_conflicts_with_it() {
    let kinds = |operations: &[Operation]| -> Vec<(char, GroupId)> {
        let kind = |operation: &Operation| match operation {
            Operation::Append { group, .. } => ('a', *group),
            Operation::Truncate { group, .. } => ('t', *group),
            Operation::Purge { group, .. } => ('p', *group),
        };
        operations.iter().map(kind).collect()
    };
    let agrees = [('a', STATE), ('p', ENTRIES)];
    let conflicts = [('t', ENTRIES), ('a', STATE), ('p', ENTRIES)];
    for (last, held, expected) in [
        (id(1, 1, 4), vec![id(1, 1, 4), id(1, 1, 5)], agrees.as_slice()),
        (id(2, 1, 4), vec![id(1, 1, 4), id(1, 1, 5)], conflicts.as_slice()),
        (id(1, 2, 4), vec![id(1, 1, 4), id(1, 1, 5)], conflicts.as_slice()),
        (id(1, 1, 9), vec![id(1, 1, 9)], agrees.as_slice()),
        (id(3, 1, 30), vec![], agrees.as_slice()),
    ] {
        let (mut mapping, names) = ten();
        assert_eq!(kinds(&mapping.purge(&names, last, &held).unwrap()), expected, "{last}");
    }
}

#[test]
fn batches_go_in_pieces_that_fit() {
    let (mapping, names) = (fresh(), Names::default());
    let lengths = |entries| -> Vec<usize> {
        let pieces = mapping.append(&names, entries).unwrap().into_iter();
        pieces.map(|piece| if let Operation::Append { entries, .. } = piece { entries.len() } else { 0 }).collect()
    };
    let text = "-".repeat(3_000);
    assert_eq!(lengths((0..7).map(|index| entry(id(1, 1, index), text.clone())).collect()), [3, 3, 1]);
    assert_eq!(lengths((0..100).map(|index| entry(id(index, 1, index), "")).collect()), [63, 37]);
    assert!(lengths(Vec::new()).is_empty());
    let refused = mapping.append(&names, vec![entry(id(1, 1, 0), "-".repeat(10_000))]).unwrap_err();
    assert!(matches!(refused, Error::TooLarge { index: 0, max: 10_000, .. }), "{refused}");
}

#[test]
fn names_over_the_limits_are_refused() {
    let (mapping, names) = (fresh(), Names::default());
    for name in [id(1, 1, INDEX_MAX), id(1, 1, u64::MAX), id(u64::MAX, 1, 1)] {
        let refused = mapping.append(&names, vec![entry(name, "x")]).unwrap_err();
        assert!(matches!(refused, Error::OverLimit { .. }), "{refused}");
    }
    let groups = Groups::of(31).unwrap();
    assert_eq!((groups.entries, groups.state), (GroupId(62), GroupId(63)));
    assert!(Groups::of(32).is_err());
}

/// Any bounds give a range of the log, and none of them panics.
#[test]
fn ranges_are_those_of_the_log() {
    let (mut mapping, mut names) = ten();
    let groups = Groups::of(0).unwrap();
    let range = |range: std::ops::Range<Index>| (range.start.0 - 1, range.end.0 - 1);
    assert_eq!(range(groups.readable(&names, 0, ..)), (0, 10));
    assert_eq!(range(groups.readable(&names, 0, 3..=5)), (3, 6));
    assert_eq!(range(groups.readable(&names, 4, ..=u64::MAX)), (4, 10));
    assert!(groups.readable(&names, 0, u64::MAX..).is_empty());
    assert!(groups.readable(&names, 0, 7..7).is_empty());
    assert!(groups.readable(&Names::default(), 0, ..).is_empty());
    names.take(&mapping.purge(&names, id(1, 1, 5), &[]).unwrap());
    assert_eq!(range(groups.readable(&names, 0, ..)), (6, 10));
}

/// State records end once there are more than 64 behind the newest, and with each purge.
#[test]
fn old_state_records_end() {
    let (mut mapping, mut names) = ten();
    for term in 0..200 {
        names.take(&mapping.save_vote(&names, Vote::new(term, 1)).unwrap());
        let state = names.group(STATE).unwrap();
        assert!(state.last.index.0 - state.before_first.index.0 <= 65 && state.last.index.0 == term + 1);
    }
    let operations = mapping.purge(&names, id(1, 1, 5), &[]).unwrap();
    names.take(&operations);
    let state = names.group(STATE).unwrap();
    assert_eq!((state.before_first.index.0, state.last.index.0), (200, 201));
}

/// A log whose entries ended without a word of openraft's is not taken for an empty one.
#[test]
fn entries_that_are_gone_are_missed() {
    let (_, mut names) = ten();
    let last = types::LogId::new(Term(2), Index(5));
    names.take(&[Operation::Purge { group: ENTRIES, last }]);
    let lost = Mapping::<Types>::recover(Groups::of(0).unwrap(), &names, None).unwrap_err();
    assert!(matches!(lost, Error::Lost { group: ENTRIES, before_first } if before_first == last), "{lost}");
}
