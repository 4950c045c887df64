//! Oracle B: the log is linearizable.
//!
//! Records are unique and tell their indexes, so the only order in which everything can have happened is known: that of
//! the log. What remains is to see that nothing which had ended stands behind something that began later, in time
//! O(n log n).

use std::time::Instant;

use trilith::types::Index;

/// Something that somebody asked for, and did or may have got.
#[derive(Clone, Debug)]
pub struct Operation {
    /// Not later than it was asked for.
    pub begin: Instant,
    /// Not earlier than its answer; `None`: there was none, or it said nothing.
    pub end: Option<Instant>,
    pub kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A record that stands there.
    Append(Index),
    /// It shows the log up to there, this entry among it.
    Read(Index),
}

impl Operation {
    fn reaches(&self) -> Index {
        let (Kind::Append(index) | Kind::Read(index)) = self.kind;
        index
    }
}

/// Panics at the first that stands before what it must have come after.
pub fn check(mut operations: Vec<Operation>) {
    operations.sort_by_key(|operation| operation.begin);
    let mut ended: Vec<&Operation> = operations.iter().filter(|operation| operation.end.is_some()).collect();
    ended.sort_by_key(|operation| operation.end);
    let mut ended = ended.into_iter().peekable();
    // Of those that ended before the one that is looked at, the one that reaches furthest.
    let mut furthest: Option<&Operation> = None;
    for operation in &operations {
        while let Some(earlier) = ended.next_if(|earlier| earlier.end < Some(operation.begin)) {
            if furthest.is_none_or(|furthest| furthest.reaches() < earlier.reaches()) {
                furthest = Some(earlier);
            }
        }
        let Some(earlier) = furthest else { continue };
        let is_behind = match operation.kind {
            Kind::Append(index) => index > earlier.reaches(),
            Kind::Read(index) => index >= earlier.reaches(),
        };
        assert!(is_behind, "oracle B: {operation:?} began when {earlier:?} had ended");
    }
}

#[test]
fn what_stands_before_something_that_had_ended_is_found() {
    let zero = Instant::now();
    let at = |milliseconds| zero + std::time::Duration::from_millis(milliseconds);
    let append =
        |begin, end, index| Operation { begin: at(begin), end: Some(at(end)), kind: Kind::Append(Index(index)) };
    let read = |begin, end, index| Operation { begin: at(begin), end: Some(at(end)), kind: Kind::Read(Index(index)) };
    let found = |operations: &[Operation]| {
        let operations = operations.to_vec();
        std::panic::catch_unwind(|| check(operations)).is_err()
    };
    assert!(!found(&[append(0, 5, 2), append(1, 2, 1), read(3, 9, 1), read(6, 7, 2), append(8, 9, 3)]));
    assert!(found(&[append(0, 1, 2), append(2, 3, 1)]), "a later append stands before");
    assert!(!found(&[append(0, 2, 2), append(2, 3, 1)]), "at the same moment");
    assert!(found(&[append(0, 1, 5), append(0, 1, 3), read(2, 3, 4)]), "a read that is stale");
    assert!(found(&[read(0, 1, 4), read(2, 3, 3)]), "reads that go back");
    assert!(found(&[read(0, 1, 4), append(2, 3, 4)]), "a read that shows what was not there");
    let unknown = |begin, index| Operation { begin: at(begin), end: None, kind: Kind::Append(Index(index)) };
    assert!(!found(&[unknown(0, 9), append(1, 2, 3)]), "it may have been later");
    assert!(found(&[append(0, 1, 9), unknown(2, 3)]), "it cannot have been earlier");
}
