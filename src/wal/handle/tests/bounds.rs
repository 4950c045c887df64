//! Calls at the ends of a log: index 0, before its start, beyond its end, in a group that is not there. What was taken is
//! there when the log is opened again.

use super::tail::{put, small, small_log, told};
use super::*;
use crate::types::{Incarnation, Member, Membership, NodeId};
use crate::wal::Error as LogError;

const OTHER: GroupId = GroupId(7);

fn purge(wal: &Wal, group: GroupId, index: u64) {
    wal.purge_prefix(group, LogId::new(Term(1), Index(index))).unwrap().wait().unwrap();
}

/// Closes a log and opens it again, which finds nothing wrong.
fn reopened(wal: Wal, home: &TempDir) -> Wal {
    wal.close().unwrap();
    let (wal, opened) = Wal::open(Options { verify_at_start: true, ..small(home) }).unwrap();
    assert!(opened.findings.is_empty(), "{:?}", opened.findings);
    wal
}

/// It was written, and could not be read: the log did not open any more.
#[test]
fn a_purge_with_index_0_is_done_at_once_and_the_log_opens_again() {
    let home = home();
    let wal = small_log(&home);
    purge(&wal, GROUP, 0);
    purge(&wal, OTHER, 0);
    assert_eq!((wal.group(GROUP), wal.counters().records), (None, 0), "nothing is written");
    let wal = reopened(wal, &home);
    put(&wal, GROUP, 1, 1..4);
    purge(&wal, GROUP, 0);
    wal.purge_prefix(GROUP, LogId::ZERO).unwrap().wait().unwrap();
    purge(&wal, OTHER, 0);
    assert_eq!((wal.group(OTHER), wal.counters().records), (None, 3));
    let wal = reopened(wal, &home);
    put(&wal, GROUP, 1, 4..5);
    assert_eq!(read_all(&wal).len(), 4);
}

#[test]
fn a_purge_below_the_start_is_done_when_what_came_before_is() {
    let home = home();
    let wal = small_log(&home);
    put(&wal, GROUP, 1, 1..9);
    let held = wal.shared.log();
    let last = |index| LogId::new(Term(1), Index(index));
    let pending: Vec<Pending> = [5, 5, 3, 0, 1].map(|index| wal.purge_prefix(GROUP, last(index)).unwrap()).into();
    assert!(pending.iter().all(|again| again.ticket() == pending[0].ticket()), "only the first of them is written");
    assert!(!pending.iter().any(Pending::is_durable), "and it is not yet");
    drop(held);
    assert!(pending.into_iter().all(|pending| pending.wait().is_ok()));
    assert_eq!((wal.group(GROUP).unwrap().before_first, wal.counters().records), (last(5), 9));
    let wal = reopened(wal, &home);
    assert_eq!(wal.group(GROUP).unwrap().before_first, last(5));
    purge(&wal, GROUP, 5);
    purge(&wal, GROUP, 20);
    purge(&wal, GROUP, 20);
    let wal = reopened(wal, &home);
    let group = wal.group(GROUP).unwrap();
    assert_eq!((group.before_first, group.last), (last(20), last(20)), "beyond the end it is empty from there on");
    put(&wal, GROUP, 1, 21..22);
}

#[test]
fn a_truncate_at_the_ends_is_refused_or_ends_nothing() {
    let home = home();
    let wal = small_log(&home);
    let refused = |wal: &Wal, group, from| {
        let refused = wal.truncate_suffix(group, Index(from)).unwrap_err();
        assert!(matches!(refused, Refused::Log(LogRefused::Gap { .. })), "{from}: {refused}");
    };
    refused(&wal, GROUP, 0);
    // A group that is not there has nothing that could end.
    wal.truncate_suffix(OTHER, Index(5)).unwrap().wait().unwrap();
    assert_eq!((wal.group(OTHER), wal.counters().records), (None, 0));
    put(&wal, GROUP, 1, 1..9);
    purge(&wal, GROUP, 3);
    for from in [0, 1, 3, 10, 1 << 62] {
        refused(&wal, GROUP, from);
    }
    let refused = wal.truncate_suffix(GROUP, Index(u64::MAX)).unwrap_err();
    assert!(matches!(refused, Refused::Log(LogRefused::IndexTooLarge { .. })), "{refused}");
    wal.truncate_suffix(GROUP, Index(9)).unwrap().wait().unwrap();
    wal.truncate_suffix(GROUP, Index(4)).unwrap().wait().unwrap();
    let wal = reopened(wal, &home);
    let group = wal.group(GROUP).unwrap();
    assert_eq!((group.first(), group.last.index, wal.group(OTHER)), (Index(4), Index(3), None));
}

#[test]
fn entries_of_term_0_and_at_the_highest_index_are_read_again() {
    let home = home();
    let wal = small_log(&home);
    put(&wal, GROUP, 0, 1..4);
    let refused = wal.append(GROUP, vec![entry(1, 0)]).unwrap_err();
    assert!(matches!(refused, Refused::Log(LogRefused::Gap { .. })), "{refused}");
    let refused = wal.append(OTHER, vec![entry(1, u64::MAX), entry(1, 5)]).unwrap_err();
    assert!(matches!(refused, Refused::Log(LogRefused::IndexTooLarge { .. })), "{refused}");
    let max = crate::limits::INDEX_MAX;
    put(&wal, OTHER, 1, max..max + 1);
    purge(&wal, OTHER, max);
    purge(&wal, OTHER, max);
    let refused = wal.purge_prefix(OTHER, LogId::new(Term(1), Index(u64::MAX))).unwrap_err();
    assert!(matches!(refused, Refused::Log(LogRefused::IndexTooLarge { .. })), "{refused}");
    let wal = reopened(wal, &home);
    assert_eq!(read_all(&wal).len(), 3);
    assert_eq!(wal.group(OTHER).unwrap().before_first.index, Index(max));
}

/// As the documentation has it: index 0 is "from the first", wherever that is.
#[test]
fn who_reads_or_follows_from_0_begins_at_the_first_entry_there_is() {
    let home = home();
    let wal = small_log(&home);
    let mut early = wal.tail(GROUP, Index::ZERO);
    assert_eq!((early.index(), told(&mut early)), (Some(Index(1)), vec![]), "there is no such group yet");
    put(&wal, GROUP, 1, 1..9);
    let (late, mut given) = (wal.iter(GROUP, Index::ZERO), wal.tail(GROUP, Index::ZERO));
    assert!(matches!(given.next(), Some(Ok(Event::Entry(entry))) if entry.id.index == Index(1)));
    purge(&wal, GROUP, 3);
    let names = |iter: Iter<'_>| iter.map(|entry| entry.unwrap().id.index.0).collect::<Vec<u64>>();
    assert_eq!(names(wal.iter(GROUP, Index::ZERO)), [4, 5, 6, 7, 8]);
    assert_eq!(names(late), [4, 5, 6, 7, 8], "it had not begun");
    assert_eq!(early.index(), Some(Index(4)));
    assert_eq!(told(&mut early), ["4@1", "5@1", "6@1", "7@1", "8@1"], "nor had this one");
    assert_eq!(told(&mut wal.tail(GROUP, Index::ZERO)).len(), 5);
    let trimmed = wal.iter(GROUP, Index(1)).next();
    assert!(matches!(trimmed, Some(Err(Error::Log(LogError::Trimmed { first: Index(4), .. })))), "{trimmed:?}");
    assert_eq!(told(&mut given)[..7], ["2@1", "3@1", "4@1", "5@1", "6@1", "7@1", "8@1"], "read before they went");

    // What was cut off before it began is nothing to it.
    let mut unbegun = wal.tail(GROUP, Index::ZERO);
    wal.truncate_suffix(GROUP, Index(6)).unwrap().wait().unwrap();
    purge(&wal, GROUP, 20);
    put(&wal, GROUP, 2, 21..23);
    assert_eq!(told(&mut unbegun), ["21@2", "22@2"]);
    assert_eq!(names(wal.iter(GROUP, Index::ZERO)), [21, 22]);

    // A group may begin anywhere.
    let mut other = wal.tail(OTHER, Index::ZERO);
    put(&wal, OTHER, 1, 100..102);
    assert_eq!(told(&mut other), ["100@1", "101@1"]);
    // Each of them keeps the directory.
    drop((early, given, unbegun, other));
    let wal = reopened(wal, &home);
    assert_eq!(names(wal.iter(OTHER, Index::ZERO)), [100, 101]);
    assert_eq!(names(wal.iter(GroupId(9), Index::ZERO)), [0; 0]);
    purge(&wal, OTHER, 101);
    assert_eq!(names(wal.iter(OTHER, Index::ZERO)), [0; 0]);
}

/// Such an append was acknowledged, and was damage at the next start.
#[test]
fn an_entry_that_could_not_be_read_back_is_refused() {
    let home = home();
    let wal = small_log(&home);
    put(&wal, GROUP, 1, 1..3);
    let refused = |payload| {
        let entries = vec![entry(1, 3), Entry { id: LogId::new(Term(1), Index(4)), payload }];
        match wal.append(GROUP, entries).unwrap_err() {
            Refused::Payload { entry, .. } => assert_eq!(entry, LogId::new(Term(1), Index(4))),
            refused => panic!("{refused}"),
        }
    };
    let bytes = Bytes::from_static(b"changed on its way");
    refused(Payload::Data(Data { checksum: crate::checksum::Checksum(1), ..Data::new(bytes) }));
    let member = |id| Member { id: NodeId(id), incarnation: Incarnation(1), address: "[::1]:1".parse().unwrap() };
    let members = |ids: &[u64]| Membership { members: ids.iter().copied().map(member).collect(), ..Default::default() };
    refused(Payload::Membership(members(&[2, 1]).into()));
    refused(Payload::Membership(members(&(1..17).collect::<Vec<u64>>()).into()));
    let stranger = Membership { voters: [NodeId(3)].into(), ..members(&[1, 2]) };
    refused(Payload::Membership(stranger.into()));
    let payloads = [
        Payload::Noop,
        Payload::SnapshotPoint,
        Payload::Trim { first: Index(1) },
        Payload::Membership(members(&[1, 2]).into()),
        Payload::Data(Data::new(Bytes::from_static(b"whole"))),
    ];
    let entries = (3..).zip(payloads).map(|(index, payload)| Entry { id: LogId::new(Term(1), Index(index)), payload });
    let entries: Vec<Entry> = entries.collect();
    wal.append(GROUP, entries.clone()).unwrap().wait().unwrap();
    let wal = reopened(wal, &home);
    assert_eq!(read_all(&wal)[2..], entries);
}
