//! Reads of a log on a real disk: from memory, by map, past the cache, and of what was purged meanwhile.

use super::*;
use crate::wal::handle::read_buffers::READ_BUFFERS_MAX;

const RECORD_BYTES: usize = 2000;
const RECORDS: u64 = 400;

fn record(index: u64) -> Vec<u8> {
    (0..RECORD_BYTES as u64).map(|at| (index * 31 + at) as u8 | 1).collect()
}

fn check(wal: &Wal, range: Range<u64>, bytes_max: usize) {
    let mut next = range.start;
    while next < range.end {
        let found = wal.read(GROUP, Index(next)..Index(range.end), bytes_max).unwrap();
        assert!(!found.is_empty(), "{next} of {range:?}");
        for entry in found {
            assert_eq!((entry.id.index, data(&entry)), (Index(next), record(next).as_slice()));
            next += 1;
        }
    }
}

#[test]
fn reads_give_what_was_written_wherever_it_lies() {
    for io in back_ends() {
        // None, a few frames, all.
        for tail_cache_bytes in [0, 64 << 10, 64 << 20] {
            let home = home();
            let options = Options { segment_bytes: 64 << 10, tail_cache_bytes, ..options(&home, io) };
            let (wal, _) = Wal::open(options.clone()).unwrap();
            for index in 1..=RECORDS {
                wal.append_records(GROUP, [record(index)]).unwrap().wait().unwrap();
            }
            for bytes_max in [1, 10_000, 1 << 30] {
                check(&wal, 1..RECORDS + 1, bytes_max);
            }
            let last = LogId::new(Term(1), Index(RECORDS / 2));
            wal.purge_prefix(GROUP, last).unwrap().wait().unwrap();
            // Over segments that were used before.
            for index in RECORDS + 1..=2 * RECORDS {
                wal.append_records(GROUP, [record(index)]).unwrap().wait().unwrap();
            }
            let trimmed = wal.read(GROUP, Index(3)..Index(9), 1);
            assert!(matches!(trimmed, Err(Error::Log(crate::wal::Error::Trimmed { .. }))), "{trimmed:?}");
            check(&wal, RECORDS / 2 + 1..2 * RECORDS + 1, 50_000);
            wal.close().unwrap();
            let (wal, _) = Wal::open(options).unwrap();
            check(&wal, RECORDS / 2 + 1..2 * RECORDS + 1, 50_000);
            wal.close().unwrap();
        }
    }
}

/// What the disk holds counts where memory does not have it, mapped or not.
#[test]
fn damage_in_a_full_segment_is_told() {
    let home = home();
    let options = Options { segment_bytes: 64 << 10, tail_cache_bytes: 0, ..options(&home, IoChoice::Blocking) };
    let (wal, _) = Wal::open(options).unwrap();
    for index in 1..=60 {
        wal.append_records(GROUP, [record(index)]).unwrap().wait().unwrap();
    }
    check(&wal, 1..61, 1);
    let path = home.path().join("wal/log/0000000000000001.segment");
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes.windows(RECORD_BYTES).position(|window| window == record(2)).unwrap();
    bytes[at + 7] ^= 8;
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    std::os::unix::fs::FileExt::write_at(&file, &bytes[at..at + 8], at as u64).unwrap();
    file.sync_all().unwrap();
    check(&wal, 1..2, 1);
    let said = wal.read(GROUP, Index(2)..Index(3), 1);
    let Err(Error::Log(crate::wal::Error::Damaged(finding))) = said else { panic!("{said:?}") };
    assert_eq!(finding.entries.iter().map(|ids| ids.first..ids.end).collect::<Vec<_>>(), [Index(2)..Index(3)]);
    check(&wal, 3..61, 1);
    wal.close().unwrap();
}

/// It was told to read again, however often it did.
#[test]
fn zeros_from_a_segments_header_on_are_told_as_damage() {
    let home = home();
    let options = Options { segment_bytes: 64 << 10, tail_cache_bytes: 0, ..options(&home, IoChoice::Blocking) };
    let (wal, _) = Wal::open(options).unwrap();
    for index in 1..=60 {
        wal.append_records(GROUP, [record(index)]).unwrap().wait().unwrap();
    }
    let path = home.path().join("wal/log/0000000000000001.segment");
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    std::os::unix::fs::FileExt::write_at(&file, &[0; 32 << 10], 0).unwrap();
    file.sync_all().unwrap();
    let is_damaged = |said: Option<Error>| {
        let Some(Error::Log(crate::wal::Error::Damaged(finding))) = said else { panic!("{said:?}") };
        assert!(finding.file.ends_with("0000000000000001.segment"), "{finding}");
        assert_eq!(finding.entries[0].first, Index(1));
    };
    is_damaged(wal.read(GROUP, Index(1)..Index(3), 1).err());
    is_damaged(wal.iter(GROUP, Index(1)).next().and_then(Result::err));
    is_damaged(wal.tail(GROUP, Index(1)).next().and_then(Result::err));
    check(&wal, 30..61, 1);
    wal.close().unwrap();
}

/// What each has read ahead of its segment is there when its turn comes again, whoever reads between.
#[test]
fn readers_who_take_turns_keep_their_memory() {
    let home = home();
    let options = Options { tail_cache_bytes: 0, ..options(&home, IoChoice::Blocking) };
    let (wal, _) = Wal::open(options).unwrap();
    for _ in 0..15 {
        wal.append_records(GROUP, vec![vec![7; 10_000]; 40]).unwrap().wait().unwrap();
    }
    // Where reads of those who go on with what is kept begin.
    let places = || -> Vec<u64> {
        let buffers = wal.shared.read_buffers.lock().unwrap();
        (1..=601).filter(|&index| buffers.are_at(GROUP, Index(index))).collect()
    };
    let (mut one, mut other) = (wal.iter(GROUP, Index(1)), wal.iter(GROUP, Index(300)));
    for _ in 0..250 {
        assert!(one.next().unwrap().is_ok() && other.next().unwrap().is_ok());
    }
    let found = places();
    assert!(matches!(found[..], [250..400, 550..=601]), "{found:?}");
    // More than are kept: those who read last have theirs.
    for index in (2..).step_by(2).take(READ_BUFFERS_MAX + 3) {
        wal.read(GROUP, Index(index)..Index(index + 1), 1).unwrap();
    }
    assert_eq!(places(), [9, 11, 13, 15]);
    drop((one, other));
    wal.close().unwrap();
}
