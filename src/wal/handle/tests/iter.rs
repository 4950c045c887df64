//! A group's entries one after the other, beside what `read` gives.

use super::tail::{put, small, small_log};
use super::*;
use crate::random::Random;
use crate::wal::Error as LogError;

fn names(iter: Iter<'_>) -> Vec<String> {
    iter.map(|entry| entry.map_or_else(|error| error.to_string(), |entry| entry.id.to_string())).collect()
}

#[test]
fn it_reads_in_pieces_and_up_to_the_end_as_it_is_then() {
    let home = home();
    let (wal, _) = Wal::open(options(&home, IoChoice::Blocking)).unwrap();
    let records = |count: usize| (0..count).map(|number| vec![number as u8; 3000]).collect::<Vec<_>>();
    for _ in 0..10 {
        wal.append_records(GROUP, records(100)).unwrap().wait().unwrap();
    }
    let mut iter = wal.iter(GROUP, Index::ZERO);
    let mut entries: Vec<Entry> = iter.by_ref().take(900).map(Result::unwrap).collect();
    wal.append_records(GROUP, records(50)).unwrap().wait().unwrap();
    entries.extend(iter.by_ref().map(Result::unwrap));
    assert_eq!(entries.len(), 1050, "what came meanwhile is part of it");
    assert_eq!(entries, read_all(&wal));
    wal.append_records(GROUP, records(1)).unwrap().wait().unwrap();
    assert!(iter.next().is_none(), "once it has ended it stays so");
    assert_eq!(wal.iter(GROUP, Index(1051)).count(), 1);
    assert_eq!(wal.iter(GROUP, Index(1052)).count(), 0);
    assert_eq!(wal.iter(GroupId(9), Index(1)).count(), 0);
    assert_eq!(wal.shared.followers.counts(), (0, 0), "and holds nothing");
}

#[test]
fn it_does_not_go_on_with_another_history() {
    let home = home();
    let wal = small_log(&home);
    put(&wal, GROUP, 1, 1..6);
    // More than one piece.
    for _ in 0..80 {
        wal.append_records(GROUP, [vec![1; 20_000]]).unwrap().wait().unwrap();
    }
    let (mut early, mut late) = (wal.iter(GROUP, Index(1)), wal.iter(GROUP, Index(30)));
    let fresh = wal.iter(GROUP, Index(6));
    let mut given: Vec<String> = early.by_ref().take(5).map(|entry| entry.unwrap().id.to_string()).collect();
    assert!(late.next().is_some());
    wal.truncate_suffix(GROUP, Index(4)).unwrap().wait().unwrap();
    put(&wal, GROUP, 2, 4..8);
    given.extend(names(early));
    let error = given.pop().unwrap();
    assert_eq!(error, "group 0 was truncated at 4 behind its reader");
    assert!(given.len() > 20 && given.len() < 80, "what was read before comes first: {}", given.len());
    assert_eq!(names(late).last(), Some(&error), "also where it began behind the cut");
    assert_eq!(names(fresh), ["6@2", "7@2"], "it had given nothing");
}

#[test]
fn it_says_what_read_says_of_what_is_trimmed_or_damaged() {
    let home = home();
    // From the disk, where the damage is.
    let wal = Wal::open(Options { tail_cache_bytes: 0, ..small(&home) }).unwrap().0;
    for number in 0..60_u8 {
        wal.append_records(GROUP, [vec![b'a' + number % 26; 5000]]).unwrap().wait().unwrap();
    }
    wal.purge_prefix(GROUP, LogId::new(Term(1), Index(3))).unwrap().wait().unwrap();
    let mut trimmed = wal.iter(GROUP, Index(2));
    assert!(matches!(trimmed.next(), Some(Err(Error::Log(LogError::Trimmed { first: Index(4), .. })))));
    assert!(trimmed.next().is_none());

    // The tenth entry: its letters are changed in the file.
    let mut is_changed = false;
    let names = std::fs::read_dir(home.path().join("wal/log")).unwrap();
    let mut paths: Vec<_> = names.map(|name| name.unwrap().path()).collect();
    // There is another entry of these letters, in a later segment.
    paths.sort();
    for path in paths {
        let mut bytes = std::fs::read(&path).unwrap();
        if let Some(at) = bytes.windows(5000).position(|window| window.iter().all(|&byte| byte == b'j')) {
            bytes[at + 100] ^= 1;
            std::fs::write(&path, bytes).unwrap();
            is_changed = true;
            break;
        }
    }
    assert!(is_changed);
    let mut iter = wal.iter(GROUP, Index(4));
    for index in 4..10 {
        assert_eq!(iter.next().unwrap().unwrap().id.index, Index(index));
    }
    let Some(Err(Error::Log(LogError::Damaged(finding)))) = iter.next() else { panic!("it is damaged") };
    assert_eq!(finding.entries.iter().map(|ids| ids.first..ids.end).collect::<Vec<_>>(), [Index(10)..Index(11)]);
    assert!(iter.next().is_none());
    assert_eq!(wal.iter(GROUP, Index(11)).filter(Result::is_ok).count(), 50);
    let mut tail = wal.tail(GROUP, Index(10));
    assert!(matches!(tail.next(), Some(Err(Error::Log(LogError::Damaged(_))))));
    assert!(tail.next().is_none());
}

#[test]
fn it_gives_what_the_model_holds_after_any_cuts() {
    for seed in 0..6 {
        let home = home();
        let wal = small_log(&home);
        let mut random = Random::seeded(seed);
        let (mut first, mut model) = (1, Vec::<Entry>::new());
        for term in 1..200 {
            let end = first + model.len() as u64;
            let at = first + random.below(model.len() as u64 + 1);
            match random.below(8) {
                0 => {
                    wal.truncate_suffix(GROUP, Index(at)).map(drop).unwrap();
                    model.truncate((at - first) as usize);
                }
                1 if at < end => {
                    wal.purge_prefix(GROUP, model[(at - first) as usize].id).map(drop).unwrap();
                    model.drain(..(at + 1 - first) as usize);
                    first = at + 1;
                    // What has ended, 0 among it, ends no more.
                    let again = Index(random.below(first));
                    wal.purge_prefix(GROUP, LogId::new(Term(term), again)).map(drop).unwrap();
                }
                choice => {
                    let begin = if choice == 2 { at } else { end };
                    let bytes = Bytes::from(vec![term as u8; random.below(2800) as usize]);
                    let payload = || Payload::Data(Data::new(bytes.clone()));
                    let batch = (0..1 + random.below(8))
                        .map(|ahead| Entry { id: LogId::new(Term(term), Index(begin + ahead)), payload: payload() });
                    let batch: Vec<Entry> = batch.collect();
                    model.truncate((begin - first) as usize);
                    model.extend(batch.iter().cloned());
                    wal.append(GROUP, batch).map(drop).unwrap();
                }
            }
            if random.chance(200) {
                wal.flush().wait().unwrap();
                assert_eq!(wal.durable_index(GROUP).0 + 1, first + model.len() as u64, "seed {seed}");
                let from = random.below(model.len() as u64 + 1);
                let read: Vec<Entry> = wal.iter(GROUP, Index(first + from)).map(Result::unwrap).collect();
                assert_eq!(read, model[from as usize..], "seed {seed}");
                let read: Vec<Entry> = wal.iter(GROUP, Index::ZERO).map(Result::unwrap).collect();
                assert_eq!(read, model, "seed {seed}: from the first");
            }
        }
        wal.flush().wait().unwrap();
        let index = wal.durable_index(GROUP);
        wal.close().unwrap();
        let wal = small_log(&home);
        assert_eq!(wal.durable_index(GROUP), index, "seed {seed}: known from the start");
    }
}
