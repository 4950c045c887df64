mod bounds;
mod copying;
mod direct;
mod errors;
mod failing;
mod full_disk;
mod gate;
mod gathering;
mod groups;
mod iter;
mod large;
mod limits;
mod reading;
mod remembered;
mod repaired;
mod scrub;
mod slow;
mod strange;
mod tail;
mod tail_waits;
mod told;
mod wakers;
mod watch;
mod watchdog;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tempfile::TempDir;

use self::full_disk::PLENTY;
use self::gate::{Gate, GateState, gated};
use self::watchdog::comes_to_an_end;
use super::*;
use crate::disk::{IoChoice, ProbeError};
use crate::sim::skips::skipped;
use crate::types::{Payload, SegmentNumber};
use crate::wal::Refused as LogRefused;

const GROUP: GroupId = GroupId(0);
const SEGMENT_BYTES: u64 = 1 << 20;

/// The back ends that this machine offers: without io_uring one test fewer, and not in silence.
fn back_ends() -> Vec<IoChoice> {
    let home = home();
    match Wal::open(options(&home, IoChoice::Uring)) {
        Ok(_) => vec![IoChoice::Blocking, IoChoice::Uring],
        Err(Error::Io(ProbeError::Refused { cause, .. })) => {
            skipped("wal::handle on io_uring", &cause);
            vec![IoChoice::Blocking]
        }
        Err(error) => panic!("{error}"),
    }
}

fn home() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn options(home: &TempDir, io: IoChoice) -> Options {
    Options { io, segment_bytes: SEGMENT_BYTES, ..Options::new(home.path().join("wal")) }
}

fn data(entry: &Entry) -> &[u8] {
    match &entry.payload {
        Payload::Data(data) => &data.bytes,
        other => panic!("{other:?}"),
    }
}

fn entry(term: u64, index: u64) -> Entry {
    Entry { id: LogId::new(Term(term), Index(index)), payload: Payload::Data(Data::new(Bytes::from_static(b"x"))) }
}

/// The log's lock, under which nothing is written; appends are taken meanwhile, also where no segment stands ready yet.
fn held(wal: &Wal) -> MutexGuard<'_, Log> {
    let held = wal.shared.log();
    wal.shared.inbox.settle(&held, PLENTY, Some(0));
    held
}

/// Everything a group holds, read in pieces.
fn read_all(wal: &Wal) -> Vec<Entry> {
    let end = wal.group(GROUP).map_or(Index(1), |group| group.last.index.next());
    let mut entries: Vec<Entry> = Vec::new();
    while entries.len() as u64 + 1 < end.0 {
        let next = entries.len() as u64 + 1;
        let read = wal.read(GROUP, Index(next)..end, 10_000).unwrap();
        assert!(!read.is_empty(), "nothing at {next} of {end}");
        entries.extend(read);
    }
    entries
}

#[test]
fn what_many_threads_appended_is_there_after_opening_again() {
    comes_to_an_end("many threads that append", || {
        const THREADS: usize = 8;
        const APPENDS: usize = 1000;
        for io in back_ends() {
            let home = home();
            let (wal, opened) = Wal::open(options(&home, io)).unwrap();
            assert!(opened.created && opened.groups.is_empty() && opened.boot == 1);
            std::thread::scope(|scope| {
                for thread in 0..THREADS {
                    let wal = &wal;
                    scope.spawn(move || {
                        for append in 0..APPENDS {
                            let record = format!("{thread}/{append}/{}", "-".repeat(append % 700));
                            let indexes = wal.append_records(GROUP, [record]).unwrap().wait().unwrap();
                            assert_eq!(indexes.end, indexes.start.next());
                        }
                    });
                }
            });
            let counters = wal.counters();
            assert_eq!(counters.records, (THREADS * APPENDS) as u64);
            assert!(counters.flushes < counters.records, "one flush serves many: {counters:?}");
            assert!(counters.segments > 1, "{counters:?}");
            let before = read_all(&wal);
            wal.close().unwrap();

            let (wal, opened) = Wal::open(options(&home, io)).unwrap();
            assert!(!opened.created && opened.boot == 2 && opened.findings.is_empty(), "{opened:?}");
            assert_eq!(opened.groups[0].last.index, Index((THREADS * APPENDS) as u64));
            let entries = read_all(&wal);
            assert_eq!(entries, before);
            let mut next = [0; THREADS];
            for entry in &entries {
                let text = std::str::from_utf8(data(entry)).unwrap();
                let mut parts = text.split('/').map(str::parse::<usize>);
                let (thread, append) = (parts.next().unwrap().unwrap(), parts.next().unwrap().unwrap());
                assert_eq!(append, next[thread], "each thread's records stand in its order");
                next[thread] += 1;
            }
            assert_eq!(next, [APPENDS; THREADS]);
        }
    });
}

#[test]
fn everything_that_waited_is_one_write() {
    comes_to_an_end("a thousand appends that waited", || {
        let home = home();
        let (wal, _) = Wal::open(options(&home, IoChoice::Blocking)).unwrap();
        wal.append_records(GROUP, ["x"]).unwrap().wait().unwrap();
        let before = wal.counters();
        let held = held(&wal);
        let pending: Vec<Pending> = (0..1000).map(|_| wal.append_records(GROUP, ["x"]).unwrap()).collect();
        drop(held);
        for pending in pending {
            pending.wait().unwrap();
        }
        let after = wal.counters();
        assert_eq!(after.records - before.records, 1000);
        assert!(after.flushes - before.flushes <= 3, "the first of them, the rest, a covering frame: {after:?}");
    });
}

#[test]
fn a_handle_that_is_dropped_closes_the_log() {
    comes_to_an_end("a handle that is dropped", || {
        for io in back_ends() {
            let home = home();
            let (wal, _) = Wal::open(options(&home, io)).unwrap();
            let pending: Vec<Pending> = (0..100).map(|_| wal.append_records(GROUP, ["a", "b"]).unwrap()).collect();
            drop(wal);
            assert!(pending.iter().all(Pending::is_durable), "everything taken is finished");
            let (wal, _) = Wal::open(options(&home, io)).unwrap();
            assert_eq!(read_all(&wal).len(), 200);
        }
    });
}

#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn a_pending_append_is_a_future_of_no_runtime() {
    for io in back_ends() {
        let home = home();
        let (wal, _) = Wal::open(options(&home, io)).unwrap();
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        let mut context = Context::from_waker(&waker);
        let mut pending = Box::pin(wal.append_records(GROUP, ["x"]).unwrap());
        let start = Instant::now();
        let mut polled = pending.as_mut().poll(&mut context);
        while polled.is_pending() {
            while woken.0.swap(0, Ordering::SeqCst) == 0 {
                assert!(start.elapsed() < Duration::from_secs(20), "never woken");
                std::thread::yield_now();
            }
            polled = pending.as_mut().poll(&mut context);
        }
        let Poll::Ready(Ok(indexes)) = polled else { panic!("{polled:?}") };
        assert_eq!(indexes, Index(1)..Index(2));
    }
}

#[test]
fn one_flush_wakes_each_waiter_once() {
    let progress = Arc::new(Progress::default());
    let links = Links::new(&progress);
    // Five tasks, each of which waits for two appends, one behind the other.
    let tasks: Vec<_> = (0..5).map(|_| Arc::new(Woken::default())).collect();
    let woken = || tasks.iter().map(|task| task.0.load(Ordering::SeqCst)).collect::<Vec<_>>();
    let mut pending: Vec<_> =
        (1..=10).map(|ticket| Box::pin(Pending::new(links.link(), Ticket(ticket), Index(1)..Index(2)))).collect();
    for (at, pending) in pending.iter_mut().enumerate() {
        let waker = Waker::from(Arc::clone(&tasks[at / 2]));
        let mut context = Context::from_waker(&waker);
        assert!(pending.as_mut().poll(&mut context).is_pending());
        assert!(pending.as_mut().poll(&mut context).is_pending(), "to be polled twice changes nothing");
    }
    drop(progress.advance(Ticket(5)));
    assert_eq!(woken(), [1, 1, 1, 0, 0]);
    drop(pending.split_off(8));
    drop(progress.advance(Ticket(10)));
    assert_eq!(woken(), [1, 1, 2, 1, 0], "who is gone is not woken");
}

#[test]
fn refusals_say_why_and_change_nothing() {
    let home = home();
    let (wal, _) = Wal::open(options(&home, IoChoice::Blocking)).unwrap();
    wal.append(GROUP, vec![entry(2, 1), entry(2, 2)]).unwrap().wait().unwrap();
    let refused = |entries| wal.append(GROUP, entries).unwrap_err();
    assert!(matches!(refused(vec![entry(2, 4)]), Refused::Log(LogRefused::Gap { .. })));
    assert!(matches!(refused(vec![entry(2, 3), entry(2, 5)]), Refused::Order { .. }));
    assert!(matches!(refused(vec![entry(1, 3)]), Refused::Order { .. }), "terms never fall");
    let terms = (0..64).map(|ahead| entry(3 + ahead, 3 + ahead)).collect();
    assert!(matches!(refused(terms), Refused::TooManyTerms { .. }));
    let large = wal.append_records(GROUP, [vec![0; SEGMENT_BYTES as usize]]).unwrap_err();
    assert!(matches!(large, Refused::Log(LogRefused::TooLarge { .. })));
    assert!(matches!(wal.truncate_suffix(GROUP, Index(9)).unwrap_err(), Refused::Log(LogRefused::Gap { .. })));
    for group in 1..64 {
        wal.append_records(GroupId(group), ["x"]).unwrap().wait().unwrap();
    }
    let one_more = wal.append_records(GroupId(64), ["x"]).unwrap_err();
    assert!(matches!(one_more, Refused::Log(LogRefused::TooManyGroups { .. })));
    assert_eq!(wal.group(GROUP).unwrap().last, LogId::new(Term(2), Index(2)));
    wal.append(GROUP, vec![entry(2, 3)]).unwrap().wait().unwrap();
    assert_eq!(read_all(&wal).len(), 3);
}

#[test]
fn a_suffix_and_a_prefix_end_and_stay_ended() {
    for io in back_ends() {
        let home = home();
        let (wal, _) = Wal::open(options(&home, io)).unwrap();
        let batch = |term, range: Range<u64>| range.map(|index| entry(term, index)).collect::<Vec<_>>();
        wal.append(GROUP, batch(1, 1..11)).unwrap().wait().unwrap();
        wal.truncate_suffix(GROUP, Index(8)).unwrap().wait().unwrap();
        wal.append(GROUP, batch(2, 6..9)).unwrap().wait().unwrap();
        wal.purge_prefix(GROUP, LogId::new(Term(1), Index(3))).unwrap().wait().unwrap();
        let check = |wal: &Wal| {
            let trimmed = wal.read(GROUP, Index(3)..Index(9), 1 << 20).unwrap_err();
            assert!(matches!(trimmed, Error::Log(crate::wal::Error::Trimmed { first: Index(4), .. })), "{trimmed}");
            let read = wal.read(GROUP, Index(4)..Index(20), 1 << 20).unwrap();
            let names: Vec<String> = read.iter().map(|entry| entry.id.to_string()).collect();
            assert_eq!(names, ["4@1", "5@1", "6@2", "7@2", "8@2"]);
        };
        check(&wal);
        wal.close().unwrap();
        check(&Wal::open(options(&home, io)).unwrap().0);
    }
}

#[test]
fn a_full_queue_refuses_or_blocks_as_it_was_told() {
    comes_to_an_end("a full queue", || {
        let home = home();
        let small = Options { queue_bytes_max: 10_000, ..options(&home, IoChoice::Blocking) };
        let busy = Options { when_full: WhenFull::Busy, ..small.clone() };
        let (wal, _) = Wal::open(busy).unwrap();
        let mut refused = 0;
        let mut taken = 0;
        while refused == 0 {
            match wal.append_records(GROUP, [vec![7; 1000]]) {
                Ok(_) => taken += 1,
                Err(Refused::Busy { bytes, max: 10_000 }) => refused += usize::from(bytes > 8_000),
                // The first segment is being made.
                Err(Refused::Busy { bytes: 0, max: 0 }) => std::thread::yield_now(),
                Err(other) => panic!("{other}"),
            }
        }
        wal.close().unwrap();
        let (wal, _) = Wal::open(small).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..200).for_each(|_| drop(wal.append_records(GROUP, [vec![7; 1000]]).unwrap())));
            }
        });
        wal.close().unwrap();
        let (wal, _) = Wal::open(options(&home, IoChoice::Blocking)).unwrap();
        assert_eq!(read_all(&wal).len(), taken + 800);
    });
}

/// Lets twenty writes pass; the flush of the next one fails.
struct Failing {
    queue: Box<dyn disk::Queue>,
    left: usize,
}

impl disk::Queue for Failing {
    fn submit(&mut self, write: disk::Write) {
        self.queue.submit(write);
    }

    fn take(&mut self) -> Option<disk::Completion> {
        let mut completion = self.queue.take()?;
        match self.left.checked_sub(1) {
            Some(left) => self.left = left,
            None => {
                let error = std::io::Error::from_raw_os_error(5);
                completion.result = Err(disk::Error::new(Operation::Flush, "the segment", error));
            }
        }
        Some(completion)
    }
}

#[test]
fn after_a_failed_flush_nobody_is_told_that_it_is_durable() {
    for io in back_ends() {
        let home = home();
        let wrap = |queue| -> Box<dyn disk::Queue> { Box::new(Failing { queue, left: 20 }) };
        let (wal, _) = Wal::open_with(&options(&home, io), wrap).unwrap();
        let mut durable = 0;
        let unknown = loop {
            let pending = wal.append_records(GROUP, ["x"]).unwrap();
            match pending.wait() {
                Ok(_) => durable += 1,
                Err(unknown) => break unknown,
            }
            assert!(durable <= 20, "the failure was not noticed");
        };
        assert!(unknown.to_string().contains("outcome is unknown"), "{unknown}");
        let refused = wal.append_records(GROUP, ["late"]).unwrap_err();
        assert_eq!(refused, Refused::Log(LogRefused::Poisoned));
        assert!(wal.failure().is_some());
        assert!(!read_all_durable(&wal).is_empty(), "what is durable can still be read");
        assert!(matches!(wal.close().unwrap_err(), Error::Failed(_)));
        let (wal, _) = Wal::open(options(&home, io)).expect("it is free when it is closed");
        assert!(read_all(&wal).len() >= durable, "what was durable is there");
    }
}

fn read_all_durable(wal: &Wal) -> Vec<Entry> {
    wal.read(GROUP, Index(1)..Index(100), 1 << 20).unwrap()
}

#[test]
fn a_second_handle_is_refused_until_the_first_is_closed() {
    let home = home();
    let (wal, _) = Wal::open(options(&home, IoChoice::Blocking)).unwrap();
    let second = Wal::open(options(&home, IoChoice::Blocking)).unwrap_err();
    assert!(matches!(second, Error::InUse { .. }), "{second}");
    wal.close().unwrap();
    Wal::open(options(&home, IoChoice::Blocking)).unwrap();
}

/// Two who make the same log at once: what the one saw before the other had the lock does not count.
#[test]
fn a_log_is_made_once_by_whoever_comes_first() {
    for _ in 0..8 {
        let home = home();
        let barrier = std::sync::Barrier::new(2);
        let open = || {
            barrier.wait();
            let start = Instant::now();
            loop {
                match Wal::open(options(&home, IoChoice::Blocking)) {
                    Ok((wal, opened)) => {
                        wal.append_records(GROUP, ["mine"]).unwrap().wait().unwrap();
                        wal.close().unwrap();
                        return opened.created;
                    }
                    Err(Error::InUse { .. }) => assert!(start.elapsed() < Duration::from_secs(20), "never free"),
                    Err(error) => panic!("{error}"),
                }
            }
        };
        let created = std::thread::scope(|scope| {
            let other = scope.spawn(open);
            [open(), other.join().unwrap()]
        });
        assert!(created[0] != created[1], "{created:?}");
        let (wal, _) = Wal::open(options(&home, IoChoice::Blocking)).unwrap();
        assert_eq!(read_all(&wal).len(), 2);
    }
}

#[test]
fn a_log_is_made_only_where_there_is_none() {
    let home = home();
    let absent = Options { create: false, ..options(&home, IoChoice::Blocking) };
    assert!(matches!(Wal::open(absent.clone()).unwrap_err(), Error::Missing { .. }));
    std::fs::create_dir(home.path().join("wal")).unwrap();
    assert!(matches!(Wal::open(absent).unwrap_err(), Error::Missing { .. }), "an empty directory is no log");
    std::fs::write(home.path().join("wal/notes.txt"), "mine").unwrap();
    let foreign = Wal::open(options(&home, IoChoice::Blocking)).unwrap_err();
    assert!(matches!(&foreign, Error::NotEmpty { name, .. } if name == "notes.txt"), "{foreign}");
    assert_eq!(std::fs::read_dir(home.path().join("wal")).unwrap().count(), 1, "nothing was made");
}

/// A log with some entries in several segments, closed.
fn closed_log(home: &TempDir) {
    let (wal, _) = Wal::open(options(home, IoChoice::Blocking)).unwrap();
    for _ in 0..6 {
        wal.append_records(GROUP, [vec![1; 400_000]]).unwrap().wait().unwrap();
    }
    assert!(wal.counters().segments >= 2);
    wal.close().unwrap();
}

/// The segments that are in use, oldest first.
fn segments(home: &TempDir) -> Vec<std::path::PathBuf> {
    let directory = Directory::open(home.path().join("wal")).unwrap();
    let source = crate::wal::Source::from_outside(LOG_DIRECTORY);
    let analysis = crate::wal::Analysis::read(&directory, &source).unwrap();
    analysis.chain.iter().map(|segment| home.path().join("wal").join(segment.name(LOG_DIRECTORY))).collect()
}

#[test]
fn what_is_missing_is_damage_and_not_a_new_log() {
    let home = home();
    closed_log(&home);
    let newest = segments(&home).pop().unwrap();
    let aside = home.path().join("aside");
    std::fs::rename(&newest, &aside).unwrap();
    let error = Wal::open(options(&home, IoChoice::Blocking)).unwrap_err();
    assert!(matches!(error, Error::LogLost { .. } | Error::Damaged { .. }), "{error}");
    std::fs::rename(&aside, &newest).unwrap();

    std::fs::rename(home.path().join("wal/log"), &aside).unwrap();
    for with_directory in [false, true] {
        if with_directory {
            std::fs::create_dir(home.path().join("wal/log")).unwrap();
        }
        let error = Wal::open(options(&home, IoChoice::Blocking)).unwrap_err();
        assert!(matches!(error, Error::LogLost { .. } | Error::Damaged { .. }), "{error}");
    }
    std::fs::remove_dir(home.path().join("wal/log")).unwrap();
    std::fs::rename(&aside, home.path().join("wal/log")).unwrap();

    std::fs::rename(home.path().join("wal/superblock"), &aside).unwrap();
    let error = Wal::open(options(&home, IoChoice::Blocking)).unwrap_err();
    assert!(matches!(error, Error::SuperblockLost { .. }), "{error}");
    std::fs::rename(&aside, home.path().join("wal/superblock")).unwrap();
    let (wal, _) = Wal::open(options(&home, IoChoice::Blocking)).unwrap();
    assert_eq!(read_all(&wal).len(), 6, "all of it is back");
}

/// What a crash at this moment would leave.
fn copied(home: &TempDir) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(copy.path().join("wal/log")).unwrap();
    for directory in ["wal", "wal/log"] {
        for entry in std::fs::read_dir(home.path().join(directory)).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_file() {
                std::fs::copy(entry.path(), copy.path().join(directory).join(entry.file_name())).unwrap();
            }
        }
    }
    copy
}

#[test]
fn a_missing_newest_segment_is_missed_after_a_crash() {
    let home = home();
    let (wal, _) = Wal::open(options(&home, IoChoice::Blocking)).unwrap();
    let mut appended = 0;
    while wal.durable_end().segment < SegmentNumber(3) {
        wal.append_records(GROUP, [vec![1; 400_000]]).unwrap().wait().unwrap();
        appended += 1;
    }
    // The superblock learns of a segment beside the appends.
    std::thread::sleep(Duration::from_millis(200));
    let newest = wal.durable_end().segment;
    let crashed = copied(&home);
    drop(wal);
    std::fs::remove_file(crashed.path().join("wal").join(crate::wal::segment_name(LOG_DIRECTORY, newest))).unwrap();
    let error = Wal::open(options(&crashed, IoChoice::Blocking)).unwrap_err();
    assert!(matches!(error, Error::Damaged { .. }), "{appended} appends: {error}");
}

#[test]
fn a_purge_beyond_every_index_is_refused_and_harms_nothing() {
    let home = home();
    let (wal, _) = Wal::open(options(&home, IoChoice::Blocking)).unwrap();
    wal.append_records(GROUP, ["one", "two"]).unwrap().wait().unwrap();
    let refused = wal.purge_prefix(GROUP, LogId::new(Term(1), Index(u64::MAX))).unwrap_err();
    assert!(matches!(refused, Refused::Log(LogRefused::IndexTooLarge { .. })), "{refused}");
    wal.close().unwrap();
    let (wal, _) = Wal::open(options(&home, IoChoice::Blocking)).unwrap();
    assert_eq!(read_all(&wal).len(), 2);
}

#[test]
fn a_making_that_was_cut_short_is_made_again() {
    let home = home();
    Wal::open(options(&home, IoChoice::Blocking)).unwrap().0.close().unwrap();
    std::fs::remove_file(home.path().join("wal/superblock")).unwrap();
    for name in std::fs::read_dir(home.path().join("wal/log")).unwrap() {
        let path = name.unwrap().path();
        if !path.ends_with("0000000000000001.segment") {
            std::fs::remove_file(path).unwrap();
        }
    }
    let (_, opened) = Wal::open(options(&home, IoChoice::Blocking)).unwrap();
    assert!(opened.created);
}

#[test]
fn segments_of_another_log_and_directories_of_a_node_are_refused() {
    let (home, other) = (home(), self::home());
    closed_log(&home);
    closed_log(&other);
    let newest = segments(&other).pop().unwrap();
    // Under its own number, which this log has in use or ready.
    let place = home.path().join("wal").join(LOG_DIRECTORY).join(newest.file_name().unwrap());
    std::fs::copy(&newest, place).unwrap();
    let error = Wal::open(options(&home, IoChoice::Blocking)).unwrap_err();
    assert!(matches!(error, Error::Log(crate::wal::Error::WrongIdentity { .. })), "{error}");

    let node = self::home();
    std::fs::create_dir(node.path().join("wal")).unwrap();
    let directory = Directory::open(node.path().join("wal")).unwrap();
    let (cluster, incarnation) = (crate::types::ClusterId(1), crate::types::Incarnation(2));
    let state = crate::superblock::State::new(cluster, crate::types::NodeId(3), incarnation, Default::default());
    crate::superblock::format(&directory, &state).unwrap();
    let error = Wal::open(options(&node, IoChoice::Blocking)).unwrap_err();
    assert!(matches!(error, Error::OfNode { .. }), "{error}");
}

#[test]
fn a_quiet_log_covers_its_last_frame() {
    for io in back_ends() {
        let home = home();
        let (wal, _) = Wal::open(options(&home, io)).unwrap();
        wal.append_records(GROUP, ["x"]).unwrap().wait().unwrap();
        let start = Instant::now();
        while !wal.shared.log().is_covered() {
            assert!(start.elapsed() < Duration::from_secs(20), "never covered");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
