//! Appends that are written by their own thread.

use std::sync::MutexGuard;
use std::sync::atomic::AtomicU64;

use rustix::io::Errno;

use super::*;
use crate::disk::{Fault, Seam, SyncMode, ThreadWriter};

/// Writes that went through the queue of the log's thread, of the one test that counts them.
static QUEUED: AtomicU64 = AtomicU64::new(0);

struct Counting(Box<dyn disk::Queue>);

impl disk::Queue for Counting {
    fn submit(&mut self, write: disk::Write) {
        QUEUED.fetch_add(1, Ordering::SeqCst);
        self.0.submit(write);
    }

    fn take(&mut self) -> Option<disk::Completion> {
        self.0.take()
    }
}

/// A log whose clock runs and that has nothing to do, for the next 50 ms: the next durable append is written directly.
fn idle(wal: &Wal) -> MutexGuard<'_, Log> {
    let start = Instant::now();
    loop {
        wal.append_records(GROUP, ["before"]).unwrap().wait().unwrap();
        let log = wal.shared.log();
        if log.would_write_at_once(100) && !log.is_covered() {
            return log;
        }
        assert!(start.elapsed() < Duration::from_secs(20), "never idle");
    }
}

/// Lets writes of appenders meet these faults, one by one.
fn inject(wal: &Wal, faults: impl IntoIterator<Item = Fault>) {
    let directory = wal.shared.directory.clone();
    let writer = ThreadWriter::with_seam(directory, SyncMode::Fdatasync, Seam::with(faults));
    *wal.shared.direct.writer() = writer;
}

#[test]
fn an_appender_that_finds_the_log_idle_writes_by_itself() {
    const APPENDS: u64 = 200;
    for io in back_ends() {
        let home = home();
        QUEUED.store(0, Ordering::SeqCst);
        let (wal, _) = Wal::open_with(&options(&home, io), |queue| Box::new(Counting(queue))).unwrap();
        for append in 0..APPENDS {
            let records = vec![append.to_string(); 1 + append as usize % 3];
            let indexes = wal.append_records_durably(GROUP, records).unwrap();
            assert!(wal.durable_end().offset > 0 && indexes.end > indexes.start);
            assert_eq!(wal.durable_index(GROUP), indexes.end.previous(), "who follows knows as well");
        }
        let (queued, flushes) = (QUEUED.load(Ordering::SeqCst), wal.counters().flushes);
        assert!(flushes >= APPENDS && queued < APPENDS / 2, "{queued} of {flushes} through the log's thread");
        let before = read_all(&wal);
        wal.close().unwrap();
        let (wal, opened) = Wal::open(options(&home, io)).unwrap();
        assert!(opened.findings.is_empty(), "{:?}", opened.findings);
        assert_eq!(read_all(&wal), before);
    }
}

/// Threads that write by themselves, threads that do not, tasks and segments that end, all at once: order and number of
/// each thread's records are as they were given.
#[test]
fn direct_writes_and_those_of_the_logs_thread_keep_one_order() {
    const APPENDS: usize = 400;
    for io in back_ends() {
        let home = home();
        let (wal, _) = Wal::open(options(&home, io)).unwrap();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let wal = &wal;
                scope.spawn(move || {
                    for append in 0..APPENDS {
                        let record = format!("{thread}/{append}/{}", "-".repeat(append * 13 % 6000));
                        match thread {
                            0 | 1 => drop(wal.append_records_durably(GROUP, [record]).unwrap()),
                            2 => drop(wal.append_records(GROUP, [record]).unwrap().wait().unwrap()),
                            _ => drop(wal.append_records(GROUP, [record]).unwrap()),
                        }
                        if thread < 2 && append % 50 == 0 {
                            // So that the others' queue empties, and one finds the log idle.
                            std::thread::sleep(Duration::from_millis(3));
                        }
                    }
                });
            }
        });
        wal.flush().wait().unwrap();
        assert!(wal.counters().segments > 1);
        let mut next = [0; 4];
        for entry in read_all(&wal) {
            let text = String::from_utf8(data(&entry).to_vec()).unwrap();
            let mut parts = text.split('/').map(str::parse::<usize>);
            let (thread, append) = (parts.next().unwrap().unwrap(), parts.next().unwrap().unwrap());
            assert_eq!(append, next[thread], "thread {thread}");
            next[thread] += 1;
        }
        assert_eq!(next, [APPENDS; 4]);
        wal.close().unwrap();
    }
}

#[test]
fn a_direct_write_that_fails_fails_the_log() {
    // The write, and the flush behind it.
    for faults in [vec![Fault::Fails(Errno::IO)], vec![Fault::None, Fault::Fails(Errno::IO)]] {
        let home = home();
        let (wal, _) = Wal::open(options(&home, IoChoice::Blocking)).unwrap();
        drop(idle(&wal));
        inject(&wal, faults);
        let before = wal.durable();
        let unsaved = loop {
            match wal.append_records_durably(GROUP, ["x"]) {
                // The log's thread was at it just then.
                Ok(_) => drop(idle(&wal)),
                Err(unsaved) => break unsaved,
            }
        };
        assert!(matches!(unsaved, Unsaved::OutcomeUnknown(_)), "{unsaved}");
        assert!(wal.durable() >= before && wal.failure().is_some());
        let refused = wal.append_records(GROUP, ["late"]).unwrap_err();
        assert_eq!(refused, Refused::Log(LogRefused::Poisoned));
        let refused = wal.append_records_durably(GROUP, ["late"]).unwrap_err();
        assert!(matches!(refused, Unsaved::Refused(Refused::Log(LogRefused::Poisoned))), "{refused}");
        assert!(matches!(wal.close().unwrap_err(), Error::Failed(_)), "the log's thread has ended");
        Wal::open(options(&home, IoChoice::Blocking)).expect("it is free when it is closed");
    }
}

#[test]
fn appends_that_come_during_a_direct_write_are_written_after_it() {
    let home = home();
    let (wal, _) = Wal::open(options(&home, IoChoice::Blocking)).unwrap();
    drop(idle(&wal));
    inject(&wal, [Fault::Hangs(Duration::from_millis(30))]);
    std::thread::scope(|scope| {
        let direct = scope.spawn(|| wal.append_records_durably(GROUP, ["direct"]));
        std::thread::sleep(Duration::from_millis(5));
        let queued: Vec<Pending> = (0..10).map(|_| wal.append_records(GROUP, ["queued"]).unwrap()).collect();
        for pending in queued {
            pending.wait().unwrap();
        }
        direct.join().unwrap().unwrap();
    });
    let entries = read_all(&wal);
    assert_eq!(entries.iter().filter(|entry| data(entry) == b"queued").count(), 10);
    assert_eq!(entries.iter().filter(|entry| data(entry) == b"direct").count(), 1);
}

#[test]
fn what_is_refused_directly_has_not_happened() {
    let home = home();
    let (wal, _) = Wal::open(options(&home, IoChoice::Blocking)).unwrap();
    drop(idle(&wal));
    let large = wal.append_records_durably(GROUP, [vec![0; SEGMENT_BYTES as usize]]).unwrap_err();
    assert!(matches!(large, Unsaved::Refused(Refused::Log(LogRefused::TooLarge { .. }))), "{large}");
    let last = wal.group(GROUP).unwrap().last.index;
    assert_eq!(wal.append_records_durably(GROUP, Vec::<Vec<u8>>::new()).unwrap(), last.next()..last.next());
    assert_eq!(wal.append_records_durably(GROUP, ["x"]).unwrap(), last.next()..last.next().next());
}

/// Names end at 2^62: an append that would go beyond is refused, whoever gives the names.
#[test]
fn records_behind_the_last_index_are_refused() {
    let home = home();
    let (wal, _) = Wal::open(options(&home, IoChoice::Blocking)).unwrap();
    wal.append(GROUP, vec![entry(1, crate::limits::INDEX_MAX)]).unwrap().wait().unwrap();
    let refused = wal.append_records(GROUP, ["x"]).unwrap_err();
    assert!(matches!(refused, Refused::Log(LogRefused::IndexTooLarge { .. })), "{refused}");
    let refused = wal.append_records(GROUP, [vec![0; 10_000]]).unwrap_err();
    assert!(matches!(refused, Refused::Log(LogRefused::IndexTooLarge { .. })), "{refused}");
    wal.close().unwrap();
}

/// Frames that went through the queue of the log's thread, of the one test that counts them.
static FRAMES: AtomicU64 = AtomicU64::new(0);

struct CountingFrames(Box<dyn disk::Queue>);

impl disk::Queue for CountingFrames {
    fn submit(&mut self, write: disk::Write) {
        if write.token.0 < super::super::open::SUPERBLOCK_TOKENS {
            FRAMES.fetch_add(1, Ordering::SeqCst);
        }
        self.0.submit(write);
    }

    fn take(&mut self) -> Option<disk::Completion> {
        self.0.take()
    }
}

/// Of two flushes of one file at once the kernel tells one alone that a write was lost: the other append would count.
#[test]
fn no_frame_is_written_beside_one_that_an_appender_writes() {
    let home = home();
    let options = Options {
        writes_in_flight: Some(2),
        sync_mode: Some(SyncMode::Fdatasync),
        ..options(&home, IoChoice::Blocking)
    };
    let (wal, _) = Wal::open_with(&options, |queue| Box::new(CountingFrames(queue))).unwrap();
    let was_seen = (0..20).any(|_| {
        drop(idle(&wal));
        inject(&wal, [Fault::Hangs(Duration::from_millis(300))]);
        std::thread::scope(|scope| {
            let direct = scope.spawn(|| wal.append_records_durably(GROUP, ["direct"]).unwrap());
            std::thread::sleep(Duration::from_millis(60));
            let is_under_way = !direct.is_finished();
            let before = FRAMES.load(Ordering::SeqCst);
            let queued = wal.append_records(GROUP, ["queued"]).unwrap();
            std::thread::sleep(Duration::from_millis(100));
            let frames = FRAMES.load(Ordering::SeqCst) - before;
            let is_still = !direct.is_finished();
            queued.wait().unwrap();
            direct.join().unwrap();
            assert!(!(is_under_way && is_still) || frames == 0, "{frames} frames beside the one under way");
            is_under_way && is_still
        })
    });
    assert!(was_seen, "a direct write was under way");
    wal.close().unwrap();
}
