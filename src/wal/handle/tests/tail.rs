//! What a follower is given: each durable entry once, in order, whatever happens beside it.

use std::sync::atomic::AtomicBool;

use super::*;
use crate::random::Random;
use crate::wal::Error as LogError;

/// Small segments: a log of some hundred entries has several.
pub(super) fn small(home: &TempDir) -> Options {
    Options { segment_bytes: 64 << 10, ..options(home, IoChoice::Blocking) }
}

pub(super) fn small_log(home: &TempDir) -> Wal {
    Wal::open(small(home)).unwrap().0
}

/// The durable entries `range`, each with a text that says its index and what it is.
pub(super) fn put(wal: &Wal, group: GroupId, term: u64, range: Range<u64>) {
    let entry = |index| Entry {
        id: LogId::new(Term(term), Index(index)),
        payload: Payload::Data(Data::new(Bytes::from(format!("{index}@{term}")))),
    };
    wal.append(group, range.map(entry).collect()).unwrap().wait().unwrap();
}

fn text(entry: &Entry) -> String {
    String::from_utf8(data(entry).to_vec()).unwrap()
}

/// What is there now, as text, up to the moment when there is nothing, or the end.
pub(super) fn told(tail: &mut Tail) -> Vec<String> {
    let mut told = Vec::new();
    loop {
        match tail.next_timeout(Duration::ZERO) {
            Poll::Ready(Some(Ok(Event::Entry(entry)))) => {
                assert_eq!(text(&entry), entry.id.to_string(), "it is given under its own name");
                told.push(text(&entry));
            }
            Poll::Ready(Some(Ok(Event::Truncated { from }))) => told.push(format!("truncated {from}")),
            Poll::Ready(Some(Err(Error::Log(LogError::Trimmed { first, .. })))) => {
                told.push(format!("trimmed {first}"));
            }
            Poll::Ready(Some(Err(error))) => told.push(error.to_string()),
            Poll::Ready(None) => told.push("end".to_owned()),
            Poll::Pending => return told,
        }
        if told.last().is_some_and(|last| last == "end") {
            return told;
        }
    }
}

#[test]
fn it_gives_what_is_there_and_what_comes() {
    let home = home();
    let wal = small_log(&home);
    let mut early = wal.tail(GROUP, Index(2));
    assert_eq!(told(&mut early), [""; 0], "there is no such group yet");
    put(&wal, GROUP, 1, 1..4);
    assert_eq!(told(&mut early), ["2@1", "3@1"]);
    assert_eq!(early.index(), Some(Index(4)));
    let mut late = wal.tail(GROUP, Index::ZERO);
    put(&wal, GROUP, 2, 4..5);
    assert_eq!(told(&mut early), ["4@2"]);
    assert_eq!(told(&mut late), ["1@1", "2@1", "3@1", "4@2"]);
    assert_eq!(told(&mut early), [""; 0]);
}

#[test]
fn what_it_has_given_and_is_cut_off_is_told_and_given_anew() {
    let home = home();
    let wal = small_log(&home);
    put(&wal, GROUP, 1, 1..9);
    let (mut whole, mut behind, mut above) =
        (wal.tail(GROUP, Index(1)), wal.tail(GROUP, Index(1)), wal.tail(GROUP, Index(9)));
    told(&mut whole);
    wal.truncate_suffix(GROUP, Index(7)).unwrap().wait().unwrap();
    assert_eq!(told(&mut whole), ["truncated 7"]);
    put(&wal, GROUP, 2, 7..10);
    assert_eq!(told(&mut whole), ["7@2", "8@2", "9@2"]);
    // An append that replaces entries ends them as a truncate does. Two cuts are told as the deeper one.
    put(&wal, GROUP, 3, 5..8);
    put(&wal, GROUP, 4, 7..8);
    assert_eq!(told(&mut whole), ["truncated 5", "5@3", "6@3", "7@4"]);
    assert_eq!(told(&mut behind), ["1@1", "2@1", "3@1", "4@1", "5@3", "6@3", "7@4"], "it had passed none of them");
    assert_eq!(told(&mut above), ["truncated 5", "5@3", "6@3", "7@4"], "what lies below its start counts as passed");
    // To cut what is not there yet is nothing.
    wal.truncate_suffix(GROUP, Index(8)).unwrap().wait().unwrap();
    assert_eq!(told(&mut whole), [""; 0]);
}

#[test]
fn a_purge_is_told_only_to_who_still_wanted_it() {
    let home = home();
    let wal = small_log(&home);
    put(&wal, GROUP, 1, 1..9);
    let (mut ahead, mut behind) = (wal.tail(GROUP, Index(1)), wal.tail(GROUP, Index(3)));
    let mut cut = wal.tail(GROUP, Index(9));
    told(&mut ahead);
    wal.purge_prefix(GROUP, LogId::new(Term(1), Index(5))).unwrap().wait().unwrap();
    assert_eq!(told(&mut ahead), [""; 0]);
    assert_eq!(told(&mut behind), ["trimmed 6", "end"]);
    assert_eq!(behind.index(), None);
    // Cut off and then purged beyond the cut: both are told.
    wal.truncate_suffix(GROUP, Index(7)).unwrap().wait().unwrap();
    wal.purge_prefix(GROUP, LogId::new(Term(2), Index(20))).unwrap().wait().unwrap();
    put(&wal, GROUP, 2, 21..22);
    assert_eq!(told(&mut cut), ["truncated 7", "trimmed 21", "end"]);
}

/// Four threads append, segments rotate, and a purge follows the slowest tail; two keep up from the start, others begin in
/// the middle.
#[test]
fn many_appenders_and_each_entry_once_in_order() {
    const THREADS: usize = 4;
    const APPENDS: usize = 600;
    const ALL: u64 = (THREADS * APPENDS) as u64;
    for io in back_ends() {
        let home = home();
        let (wal, _) = Wal::open(Options { io, ..small(&home) }).unwrap();
        let tails: Vec<Tail> = [0, 1, 700, ALL].map(|from| wal.tail(GROUP, Index(from))).into();
        // What each of them has been given.
        let given = [0, 0, 699, ALL as usize - 1].map(AtomicUsize::new);
        std::thread::scope(|scope| {
            let mut followers = Vec::new();
            for (mut tail, given) in tails.into_iter().zip(&given) {
                let wal = &wal;
                followers.push(scope.spawn(move || {
                    let first = tail.index().unwrap();
                    let mut entries = Vec::new();
                    while entries.len() as u64 + first.0 <= ALL {
                        let event = tail.next().expect("the log is open").unwrap();
                        let Event::Entry(entry) = event else { panic!("{event:?}") };
                        let id = entry.id;
                        assert_eq!(id.index.0, first.0 + entries.len() as u64, "without gaps, each once");
                        assert!(wal.durable_index(GROUP) >= id.index, "only what is durable");
                        entries.push(entry);
                        given.store(id.index.0 as usize, Ordering::SeqCst);
                    }
                    entries
                }));
            }
            for thread in 0..THREADS {
                let wal = &wal;
                scope.spawn(move || {
                    for append in 0..APPENDS {
                        let record = format!("{thread}/{append}/{}", "-".repeat(append % 700));
                        let pending = wal.append_records(GROUP, [record]).unwrap();
                        if append % 10 == 0 {
                            pending.wait().unwrap();
                        }
                    }
                });
            }
            let slowest = || given.iter().map(|given| given.load(Ordering::SeqCst) as u64).min().unwrap();
            let start = Instant::now();
            let (mut purges, mut purged) = (0, 0);
            while purged < ALL {
                let last = slowest();
                if last >= ALL.min(purged + 100) {
                    wal.purge_prefix(GROUP, LogId::new(Term(1), Index(last))).unwrap().wait().unwrap();
                    (purged, purges) = (last, purges + 1);
                }
                assert!(start.elapsed() < Duration::from_secs(60), "the slowest is at {last} of {ALL}");
                std::thread::yield_now();
            }
            assert!(purges > 3, "{purges} purges beside the appends");
            let all: Vec<Vec<Entry>> = followers.into_iter().map(|follower| follower.join().unwrap()).collect();
            assert_eq!(all[0].len() as u64, ALL);
            assert_eq!(all[0], all[1]);
            assert_eq!(all[2], all[0][699..]);
            assert_eq!(all[3], all[0][ALL as usize - 1..]);
        });
        let group = wal.group(GROUP).unwrap();
        assert_eq!((group.before_first.index, group.last.index), (Index(ALL), Index(ALL)), "all of it is purged");
        assert!(wal.counters().segments > 5, "{:?}", wal.counters());
        assert_eq!(wal.shared.followers.counts(), (0, 0), "all are gone");
    }
}

/// An entry says which one it was appended behind. So whoever holds it behind another one holds what never was.
struct History {
    random: Random,
    next_name: u64,
    /// The names of what is there, from `first` on.
    names: Vec<u64>,
    first: u64,
}

impl History {
    fn last(&self) -> u64 {
        self.first + self.names.len() as u64 - 1
    }

    /// One step. What is purged has been given: `passed` is the name of the last entry that the follower holds.
    fn step(&mut self, wal: &Wal, term: u64, passed: &AtomicUsize) {
        let from = self.first + self.random.below(self.names.len() as u64 + 1);
        match self.random.below(10) {
            0 => {
                wal.truncate_suffix(GROUP, Index(from)).map(drop).unwrap();
                self.names.truncate((from - self.first) as usize);
            }
            1 if self.names.len() > 20 => {
                wal.flush().wait().unwrap();
                let start = Instant::now();
                while self.names.last() != Some(&(passed.load(Ordering::SeqCst) as u64)) {
                    assert!(start.elapsed() < Duration::from_secs(20), "the follower does not come to {}", self.last());
                    std::thread::yield_now();
                }
                // Up to where it was purged before, 0 among it: that is nothing.
                let again = self.random.below(self.first);
                wal.purge_prefix(GROUP, LogId::new(Term(term), Index(again))).map(drop).unwrap();
                let last = self.last() - 10;
                wal.purge_prefix(GROUP, LogId::new(Term(term), Index(last))).map(drop).unwrap();
                self.names.drain(..(last + 1 - self.first) as usize);
                self.first = last + 1;
            }
            choice => {
                let first = if choice == 2 { from } else { self.last() + 1 };
                self.names.truncate((first - self.first) as usize);
                let entries = (0..1 + self.random.below(5)).map(|ahead| self.entry(term, first + ahead)).collect();
                wal.append(GROUP, entries).map(drop).unwrap();
            }
        }
    }

    fn entry(&mut self, term: u64, index: u64) -> Entry {
        self.next_name += 1;
        let before = self.names.last().copied().unwrap_or_default();
        self.names.push(self.next_name);
        let mut bytes = [self.next_name.to_le_bytes(), before.to_le_bytes()].concat();
        bytes.resize(16 + self.random.below(900) as usize, 0);
        Entry { id: LogId::new(Term(term), Index(index)), payload: Payload::Data(Data::new(Bytes::from(bytes))) }
    }
}

/// Follows until `is_over`, and gives the names that it holds by index.
fn follow(mut tail: Tail, passed: &AtomicUsize, is_over: &AtomicBool) -> (std::collections::BTreeMap<u64, u64>, u64) {
    let mut held = std::collections::BTreeMap::new();
    let mut truncated = 0;
    loop {
        match tail.next_timeout(Duration::from_millis(1)) {
            Poll::Ready(Some(Ok(Event::Entry(entry)))) => {
                let index = entry.id.index.0;
                let word = |at: usize| u64::from_le_bytes(data(&entry)[at..at + 8].try_into().unwrap());
                if let Some((last, name)) = held.last_key_value() {
                    assert_eq!(index, last + 1);
                    assert!(word(8) == *name || word(8) == 0, "{} was not appended behind what is held", entry.id);
                }
                held.insert(index, word(0));
                passed.store(word(0) as usize, Ordering::SeqCst);
            }
            Poll::Ready(Some(Ok(Event::Truncated { from }))) => {
                truncated += 1;
                assert!(tail.index() == Some(from) && from.0 <= held.last_key_value().map_or(1, |(last, _)| *last));
                held.split_off(&from.0);
                let last = held.last_key_value().map_or(0, |(_, name)| *name);
                passed.store(last as usize, Ordering::SeqCst);
            }
            Poll::Pending if is_over.load(Ordering::SeqCst) => return (held, truncated),
            Poll::Pending => {}
            Poll::Ready(other) => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_follower_holds_what_the_log_held_whatever_is_cut() {
    let mut truncated = 0;
    for seed in 0..8 {
        let home = home();
        let wal = small_log(&home);
        let (passed, is_over) = (AtomicUsize::new(0), AtomicBool::new(false));
        let tail = wal.tail(GROUP, Index(seed % 2));
        let mut history = History { random: Random::seeded(seed), next_name: 0, names: Vec::new(), first: 1 };
        let (held, cuts) = std::thread::scope(|scope| {
            let follower = scope.spawn(|| follow(tail, &passed, &is_over));
            for step in 0..1500 {
                history.step(&wal, 1, &passed);
                if step % 7 == 0 {
                    wal.flush().wait().unwrap();
                }
            }
            wal.flush().wait().unwrap();
            is_over.store(true, Ordering::SeqCst);
            follower.join().unwrap()
        });
        truncated += cuts;
        let live: Vec<u64> = held.range(history.first..).map(|(_, name)| *name).collect();
        assert_eq!(live, history.names, "seed {seed}");
    }
    assert!(truncated > 20, "{truncated} cuts were told");
}
