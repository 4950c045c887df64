//! Two things know where a group's log begins and ends: `GroupLog`, with the term of each entry, and `GroupStart`, which
//! an open frame holds and which has no room for terms. They must never differ.

use crate::random::Random;
use crate::types::{GroupId, Index, LogId, Place, Term};
use crate::wal::GroupLog;
use crate::wal::frame::Run;
use crate::wal::record::RecordKind;
use crate::wal::sections::GroupStart;

const GROUP: GroupId = GroupId(3);

/// A run as a writer makes one for a log that stands as `names` says.
fn run(names: &GroupLog, random: &mut Random) -> Run {
    let (before, last) = (names.before_first, names.last);
    let within = |random: &mut Random| Index(random.between(before.index.0 + 1, last.index.0 + 2));
    let (kind, first, count, term) = match random.below(10) {
        0 => (RecordKind::Truncate, within(random), 1, Term::ZERO),
        1 => {
            let at = Index(random.between(before.index.0.max(1), last.index.0 + 3));
            let term = names.id_at(at).map_or(last.term, |id| id.term);
            (RecordKind::Purge, at, 1, term)
        }
        2 => (RecordKind::Entry, within(random), random.between(1, 4), last.term.next()),
        3 => (RecordKind::Entry, last.index.next(), random.between(1, 4), last.term.next()),
        _ => (RecordKind::Entry, last.index.next(), random.between(1, 9), last.term.max(Term(1))),
    };
    let previous_term = names.id_at(first.previous()).map_or(Term::ZERO, |id| id.term);
    Run { group: GROUP, kind, first, count: count as u32, term, previous_term }
}

#[test]
fn both_rules_by_which_a_log_moves_give_the_same_ends() {
    let mut random = Random::seeded(11);
    for _ in 0..200 {
        let mut names = GroupLog::new(GROUP, LogId::ZERO, Place::START);
        let mut start =
            GroupStart { group: GROUP, before_first: LogId::ZERO, last: LogId::ZERO, last_place: Place::START };
        for _ in 0..100 {
            let run = run(&names, &mut random);
            names.apply(&run, Place::START);
            start.apply(&run, Place::START);
            assert_eq!((start.before_first, start.last), (names.before_first, names.last), "after {run:?}");
        }
    }
}
