//! The log's parts by themselves: terms, conflict hints, what is durable, what is in memory.

use bytes::Bytes;

use crate::limits::ENTRY_OVERHEAD_BYTES;
use crate::raft::log::Log;
use crate::raft::{PersistNumber, Restored};
use crate::types::{Data, Entry, Index, LogId, Payload, Term};

use super::cluster::membership;

fn empty(cache_bytes_max: usize) -> Log {
    let restored = Restored::fresh(membership(1, 0));
    Log::restored(&restored, cache_bytes_max)
}

fn entry(index: u64, term: u64) -> Entry {
    Entry { id: LogId::new(Term(term), Index(index)), payload: Payload::Noop }
}

/// A log whose entry i has the i-th of these terms.
fn of_terms(terms: &[u64]) -> Log {
    let mut log = empty(usize::MAX / 2);
    terms.iter().zip(1..).for_each(|(term, index)| log.push(entry(index, *term)));
    log
}

/// All rising sequences of terms 1..=3 with up to four entries.
fn each_log() -> Vec<Vec<u64>> {
    let mut all: Vec<Vec<u64>> = vec![Vec::new()];
    let mut grown = 0;
    while grown < all.len() {
        let terms = all[grown].clone();
        if terms.len() < 4 {
            let lowest = terms.last().copied().unwrap_or(1);
            all.extend((lowest..=3).map(|term| [terms.as_slice(), &[term]].concat()));
        }
        grown += 1;
    }
    all
}

#[test]
fn terms_and_hints_in_all_small_logs() {
    let logs = each_log();
    assert_eq!(logs.len(), 1 + 3 + 6 + 10 + 15);
    for terms in logs {
        let log = of_terms(&terms);
        let slow_term = |index: u64| match index {
            0 => Some(Term::ZERO),
            _ => terms.get(index as usize - 1).map(|term| Term(*term)),
        };
        for index in 0..6 {
            assert_eq!(log.term_at(Index(index)), slow_term(index), "{terms:?} at {index}");
            for term in (0..4).map(Term) {
                let slow = (0..=index)
                    .rev()
                    .find_map(|at| slow_term(at).filter(|held| *held <= term).map(|held| LogId::new(held, Index(at))));
                assert_eq!(Some(log.highest_at_most(Index(index), term)), slow, "{terms:?} at {index}, {term}");
            }
        }
    }
}

#[test]
fn truncated_and_grown_again() {
    for terms in each_log() {
        for from in 1..=terms.len() {
            let mut log = of_terms(&terms);
            log.truncate(Index(from as u64));
            log.push(entry(from as u64, 9));
            let expected = [&terms[..from - 1], &[9]].concat();
            for index in 1..6 {
                let slow = expected.get(index as usize - 1).map(|term| Term(*term));
                assert_eq!(log.term_at(Index(index)), slow, "{terms:?} from {from}");
            }
        }
    }
}

/// The same index is written twice, in two terms, with both writes in flight: the first one's end proves nothing
/// about the second.
#[test]
pub fn durable_follows_the_persist_and_not_the_index() {
    let mut log = of_terms(&[1, 1, 1]);
    assert_eq!(log.durable_after(Index(3), PersistNumber(1)), Some(PersistNumber(1)));
    assert_eq!(log.persist(PersistNumber(1)).len(), 3);
    log.truncate(Index(2));
    log.push(entry(2, 2));
    log.push(entry(3, 2));
    assert_eq!(log.durable_after(Index(1), PersistNumber(2)), Some(PersistNumber(1)));
    assert_eq!(log.durable_after(Index(2), PersistNumber(2)), Some(PersistNumber(2)));
    assert_eq!(log.persist(PersistNumber(2)).len(), 2);
    log.on_durable(PersistNumber(1));
    assert_eq!(log.durable(), Index(1));
    assert_eq!(log.durable_after(Index(3), PersistNumber(3)), Some(PersistNumber(2)));
    log.on_durable(PersistNumber(2));
    assert_eq!(log.durable(), Index(3));
    assert_eq!(log.durable_after(Index(3), PersistNumber(3)), None);
}

/// What was durable and is replaced is not durable any more.
#[test]
fn durable_moves_back_with_a_truncation() {
    let mut log = of_terms(&[1, 1, 1]);
    log.persist(PersistNumber(1));
    log.on_durable(PersistNumber(1));
    log.truncate(Index(3));
    log.push(entry(3, 2));
    assert_eq!(log.durable(), Index(2));
    assert_eq!(log.durable_after(Index(3), PersistNumber(2)), Some(PersistNumber(2)));
}

#[test]
fn cache_keeps_what_is_not_durable_or_not_applied() {
    let mut log = empty(2 * ENTRY_OVERHEAD_BYTES);
    let first_cached = |log: &Log| (1..12).find(|index| log.cached(Index(*index)..Index(11)).is_some());
    (1..=10).for_each(|index| log.push(entry(index, 1)));
    assert!(log.is_full(Index(0)), "the disk has work to do");
    log.on_applied(Index(4));
    assert_eq!(first_cached(&log), Some(1), "nothing is durable");
    log.persist(PersistNumber(1));
    log.on_durable(PersistNumber(1));
    assert_eq!(first_cached(&log), Some(5), "four are durable and applied");
    assert!(log.is_full(Index(5)), "the state machine has work to do");
    assert!(!log.is_full(Index(4)), "to take no more would keep six entries from being committed");
    log.on_applied(Index(10));
    assert_eq!(first_cached(&log), Some(9), "the bound holds two");
    assert!(!log.is_full(Index(10)));
    assert!(log.batch(Index(8), 1 << 20, 10).is_none());
    assert_eq!(log.batch(Index(9), 1, 10).map(|(entries, _)| entries.len()), Some(1), "at least one");
    assert_eq!(log.batch(Index(9), 1 << 20, 10).map(|(entries, _)| entries.len()), Some(2));
    assert!(log.batch(Index(11), 1 << 20, 10).is_none());
}

#[test]
fn batches_end_at_their_bounds() {
    let mut log = empty(1 << 20);
    let data = Data::new(Bytes::from_static(&[7; 36]));
    for index in 1..=10 {
        log.push(Entry { id: LogId::new(Term(1), Index(index)), payload: Payload::Data(data.clone()) });
    }
    assert_eq!(log.batch(Index(1), 300, 100).map(|(entries, bytes)| (entries.len(), bytes)), Some((3, 300)));
    assert_eq!(log.batch(Index(1), 1000, 4).map(|(entries, bytes)| (entries.len(), bytes)), Some((4, 400)));
    assert_eq!(log.batch(Index(9), 1000, 4).map(|(entries, bytes)| (entries.len(), bytes)), Some((2, 200)));
}
