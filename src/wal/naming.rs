//! How an append enters the names of its group, and the directory entries that will name it in a frame.

use super::body::{Item, extend_runs};
use super::frame::Run;
use super::group::GroupLog;
use super::log::Log;
use super::record::RecordKind;
use crate::types::{Index, LogId, Term};

impl Log {
    /// Takes the item's names into its group, and gives the runs that will name it.
    pub(super) fn take_names(&mut self, item: &Item) -> Vec<Run> {
        let mut runs = Vec::new();
        let place = self.durable;
        match item {
            Item::Entries { group, entries } => {
                let first = entries[0].id.index;
                let new = || GroupLog::new(*group, LogId::new(Term::ZERO, first.previous()), place);
                let log = self.groups.entry(*group).or_insert_with(new);
                let before = log.id_at(first.previous()).expect("the join was checked");
                assert!(before.term <= entries[0].id.term, "terms never fall");
                let mut previous = before;
                for entry in entries {
                    assert!(previous.term <= entry.id.term, "terms never fall");
                    extend_runs(&mut runs, *group, RecordKind::Entry, entry.id, previous);
                    previous = entry.id;
                }
            }
            Item::Encoded(encoded) => {
                let (group, first) = (encoded.group(), encoded.first());
                let new = || GroupLog::new(group, LogId::new(Term::ZERO, first.index.previous()), place);
                let log = self.groups.entry(group).or_insert_with(new);
                let before = log.id_at(first.index.previous()).expect("the join was checked");
                assert!(before.term <= first.term, "terms never fall");
                let count = encoded.count();
                assert!(count > 0, "a batch holds an entry");
                let (kind, previous_term) = (RecordKind::Entry, before.term);
                runs.push(Run { group, kind, first: first.index, count, term: first.term, previous_term });
            }
            Item::Cut { group, kind, id } => {
                let log = self.groups.entry(*group).or_insert_with(|| GroupLog::new(*group, LogId::ZERO, place));
                let before = id.index.0.checked_sub(1).and_then(|before| log.id_at(Index(before)));
                extend_runs(&mut runs, *group, *kind, *id, before.unwrap_or_default());
            }
        }
        let log = self.groups.get_mut(&item.group()).expect("inserted above");
        for run in &runs {
            log.apply(run, place);
        }
        runs
    }
}
