//! Appends that are written by their own thread.

use std::sync::atomic::AtomicU64;
use std::sync::{Barrier, MutexGuard};

use rustix::io::Errno;

use super::*;
use crate::disk::{Fault, Seam, SyncMode};

/// Frames that go through the queue of the log's thread.
struct Counting {
    queue: Box<dyn disk::Queue>,
    frames: Arc<AtomicU64>,
}

impl disk::Queue for Counting {
    fn submit(&mut self, write: disk::Write) {
        if write.token.0 < super::super::open::SUPERBLOCK_TOKENS {
            self.frames.fetch_add(1, Ordering::SeqCst);
        }
        self.queue.submit(write);
    }

    fn hand_over(&mut self) {
        self.queue.hand_over();
    }

    fn take(&mut self) -> Option<disk::Completion> {
        self.queue.take()
    }
}

/// A log, and the count of the frames that its own thread writes.
fn counted(options: &Options) -> (Wal, Arc<AtomicU64>) {
    let frames = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&frames);
    let (wal, _) = Wal::open_with(options, |queue| Box::new(Counting { queue, frames: count })).unwrap();
    (wal, frames)
}

/// Frames that appenders have written by themselves.
fn direct_frames(wal: &Wal, frames: &AtomicU64) -> u64 {
    let flushes = wal.counters().flushes;
    flushes - frames.load(Ordering::SeqCst)
}

/// What is appended until the log is idle.
const BEFORE: &str = "before";

/// A log whose clock runs and that has nothing to do, for the next 50 ms: the next durable append is written directly.
fn idle(wal: &Wal) -> MutexGuard<'_, Log> {
    let start = Instant::now();
    loop {
        wal.append_records(GROUP, [BEFORE]).unwrap().wait().unwrap();
        let log = wal.shared.log();
        if log.would_write_at_once(100) && !log.is_covered() {
            return log;
        }
        assert!(start.elapsed() < Duration::from_secs(20), "never idle");
    }
}

/// Lets writes of appenders meet these faults, one by one; what is left of them shows whether there was such a write.
fn inject(wal: &Wal, faults: impl IntoIterator<Item = Fault>) -> Seam {
    inject_aged(wal, faults, DISK_OPERATION_AGE_MAX)
}

fn inject_aged(wal: &Wal, faults: impl IntoIterator<Item = Fault>, age_max: Duration) -> Seam {
    let seam = Seam::with(faults);
    wal.shared.direct.writer().inject(SyncMode::Fdatasync, seam.clone(), age_max);
    seam
}

/// Begins a direct append that hangs for so long, runs `beside` while it does, and gives what it said.
fn beside_one_that_hangs<T>(
    wal: &Wal,
    (time, age_max): (Duration, Duration),
    beside: impl Fn(&dyn Fn() -> bool) -> T,
) -> (T, Result<Range<Index>, Unsaved>) {
    let start = Instant::now();
    loop {
        drop(idle(wal));
        let seam = inject_aged(wal, [Fault::Hangs(time)], age_max);
        let ended = std::thread::scope(|scope| {
            let direct = scope.spawn(|| wal.append_records_durably(GROUP, ["direct"]));
            while seam.left() == 1 && !direct.is_finished() {
                std::thread::yield_now();
            }
            // Otherwise the log's thread was at it just then, and wrote this one.
            let is_direct = seam.left() == 0;
            let said = is_direct.then(|| beside(&|| !direct.is_finished()));
            (said, direct.join().unwrap())
        });
        match ended {
            (Some(beside), direct) => return (beside, direct),
            (None, direct) => drop(direct.unwrap()),
        }
        assert!(start.elapsed() < Duration::from_secs(20), "never direct");
    }
}

#[test]
fn an_appender_that_finds_the_log_idle_writes_by_itself() {
    const APPENDS: u64 = 200;
    for io in back_ends() {
        let home = home();
        let (wal, frames) = counted(&options(&home, io));
        for append in 0..APPENDS {
            let records = vec![append.to_string(); 1 + append as usize % 3];
            let indexes = wal.append_records_durably(GROUP, records).unwrap();
            assert!(wal.durable_end().offset > 0 && indexes.end > indexes.start);
            assert_eq!(wal.durable_index(GROUP), indexes.end.previous(), "who follows knows as well");
        }
        let (direct, flushes) = (direct_frames(&wal, &frames), wal.counters().flushes);
        assert!(flushes >= APPENDS && direct > APPENDS / 2, "{direct} of {flushes} by the appender");
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
    comes_to_an_end("appenders of all kinds", || {
        const APPENDS: usize = 400;
        const STOP_EACH: usize = 20;
        for io in back_ends() {
            let home = home();
            let (wal, frames) = counted(&options(&home, io));
            let together = Barrier::new(4);
            std::thread::scope(|scope| {
                for thread in 0..4 {
                    let (wal, together) = (&wal, &together);
                    scope.spawn(move || {
                        for append in 0..APPENDS {
                            let record = format!("{thread}/{append}/{}", "-".repeat(append * 13 % 6000));
                            // All stop, so that one of them finds the log idle.
                            let is_stop = append % STOP_EACH == 0;
                            if is_stop {
                                together.wait();
                            }
                            match thread {
                                0 if is_stop => drop(idle(wal)),
                                _ if is_stop => drop(together.wait()),
                                _ => {}
                            }
                            match thread {
                                0 | 1 => drop(wal.append_records_durably(GROUP, [record]).unwrap()),
                                2 => drop(wal.append_records(GROUP, [record]).unwrap().wait().unwrap()),
                                _ => drop(wal.append_records(GROUP, [record]).unwrap()),
                            }
                            if is_stop && thread == 0 {
                                together.wait();
                            }
                        }
                    });
                }
            });
            wal.flush().wait().unwrap();
            assert!(wal.counters().segments > 1);
            let queued = frames.load(Ordering::SeqCst);
            let direct = direct_frames(&wal, &frames);
            assert!(direct >= 1 && queued >= 1, "{direct} frames by appenders, {queued} by the log's thread");
            let mut next = [0; 4];
            for entry in read_all(&wal) {
                let text = String::from_utf8(data(&entry).to_vec()).unwrap();
                if text == BEFORE {
                    continue;
                }
                let mut parts = text.split('/').map(str::parse::<usize>);
                let (thread, append) = (parts.next().unwrap().unwrap(), parts.next().unwrap().unwrap());
                assert_eq!(append, next[thread], "thread {thread}");
                next[thread] += 1;
            }
            assert_eq!(next, [APPENDS; 4]);
            wal.close().unwrap();
        }
    });
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

/// The log's thread could take a turn before it was told, and panicked over what had queued up; that was then said to be
/// why. So whoever gets the log after the failure finds that it is told.
#[test]
fn a_direct_write_that_fails_beside_queued_appends_is_told_as_what_the_disk_said() {
    const ROUNDS: usize = 40;
    let mut direct = 0;
    for _ in 0..ROUNDS {
        let home = home();
        let two = Options { writes_in_flight: Some(2), ..options(&home, IoChoice::Blocking) };
        let (wal, _) = Wal::open(two).unwrap();
        drop(idle(&wal));
        let seam = inject(&wal, [Fault::Hangs(Duration::from_millis(2)), Fault::Fails(Errno::IO)]);
        std::thread::scope(|scope| {
            let appender = scope.spawn(|| wal.append_records_durably(GROUP, ["direct"]).map(drop));
            while seam.left() == 2 && !appender.is_finished() {
                std::thread::yield_now();
            }
            // Otherwise the log's thread was at it just then, and wrote this one.
            if seam.left() == 2 {
                appender.join().unwrap().unwrap();
                return;
            }
            let queued = match wal.append_records(GROUP, ["queued"]) {
                Ok(queued) => queued,
                // It came too late.
                Err(refused) => {
                    assert_eq!(refused, Refused::Log(LogRefused::Poisoned));
                    appender.join().unwrap().unwrap_err();
                    return;
                }
            };
            direct += 1;
            loop {
                // A turn of the log's thread at any moment.
                wal.shared.inbox.wake();
                let Ok(log) = wal.shared.log.try_lock() else { continue };
                if log.is_poisoned {
                    let refused = wal.append_records(GROUP, ["late"]).map(drop);
                    assert_eq!(refused, Err(Refused::Log(LogRefused::Poisoned)));
                    assert!(wal.failure().is_some(), "what the log knows is told");
                    break;
                }
            }
            let is_the_disks = |unknown: OutcomeUnknown| {
                assert_eq!(unknown.0.source.raw_os_error(), Some(Errno::IO.raw_os_error()), "{unknown}");
            };
            is_the_disks(wal.failure().unwrap());
            is_the_disks(queued.wait().unwrap_err());
            let Err(Unsaved::OutcomeUnknown(unknown)) = appender.join().unwrap() else { panic!("it has failed") };
            is_the_disks(unknown);
        });
        if wal.failure().is_some() {
            let Err(Error::Failed(unknown)) = wal.close() else { panic!("it has failed") };
            assert_eq!(unknown.0.source.raw_os_error(), Some(Errno::IO.raw_os_error()), "{unknown}");
        }
    }
    assert!(direct > ROUNDS / 4, "{direct} of {ROUNDS} were direct");
}

/// Of two flushes of one file at once the kernel tells one alone that a write was lost: the other append would count.
#[test]
fn appends_that_come_during_a_direct_write_are_written_after_it() {
    comes_to_an_end("appends during a direct write", || {
        const TIME: Duration = Duration::from_millis(300);
        for io in back_ends() {
            let home = home();
            let (wal, frames) = counted(&Options { writes_in_flight: Some(2), ..options(&home, io) });
            let beside = |is_under_way: &dyn Fn() -> bool| {
                let before = frames.load(Ordering::SeqCst);
                let queued: Vec<Pending> = (0..10).map(|_| wal.append_records(GROUP, ["queued"]).unwrap()).collect();
                // Several ticks of the clock, each of which is a turn of the log's thread.
                std::thread::sleep(Duration::from_millis(100));
                let none_is_durable = queued.iter().all(|pending| !pending.is_durable());
                let written = frames.load(Ordering::SeqCst) - before;
                assert!(
                    !is_under_way() || (written == 0 && none_is_durable),
                    "{written} frames beside the one under way"
                );
                (is_under_way(), queued)
            };
            let was_under_way = (0..20).any(|_| {
                let ((was_under_way, queued), direct) =
                    beside_one_that_hangs(&wal, (TIME, DISK_OPERATION_AGE_MAX), beside);
                let last_direct = direct.unwrap().start;
                for pending in queued {
                    assert!(pending.wait().unwrap().start > last_direct);
                }
                was_under_way
            });
            assert!(was_under_way, "none was under way for as long as it hung");
            let count = |what: &[u8]| read_all(&wal).iter().filter(|entry| data(entry) == what).count();
            assert!(count(b"direct") >= 1 && count(b"queued") == 10 * count(b"direct"));
            wal.close().unwrap();
        }
    });
}

/// The log's thread sees it, since its clock runs: all are told, and what the disk says later counts no more.
#[test]
fn a_direct_write_that_hangs_fails_the_log_when_it_is_too_old() {
    const TIMES: (Duration, Duration) = (Duration::from_secs(2), Duration::from_millis(200));
    let hangs = |unknown: &OutcomeUnknown| assert_eq!(unknown.0.kind(), std::io::ErrorKind::TimedOut, "{unknown}");
    for io in back_ends() {
        let home = home();
        let (wal, _) = Wal::open(options(&home, io)).unwrap();
        let beside = |is_under_way: &dyn Fn() -> bool| {
            let before = wal.durable();
            let mut watch = wal.watch(GROUP);
            let mut tail = wal.tail(GROUP, wal.durable_index(GROUP).next());
            let queued = wal.append_records(GROUP, ["queued"]).unwrap();
            hangs(&queued.wait().unwrap_err());
            let Err(Ended::Failed(unknown)) = watch.changed().wait() else { panic!("nothing became durable") };
            hangs(&unknown);
            let Some(Err(Error::Failed(unknown))) = tail.next() else { panic!("nothing became durable") };
            hangs(&unknown);
            let refused = wal.append_records(GROUP, ["late"]).unwrap_err();
            assert_eq!(refused, Refused::Log(LogRefused::Poisoned));
            let refused = wal.append_records_durably(GROUP, ["late"]).unwrap_err();
            assert!(matches!(refused, Unsaved::Refused(Refused::Log(LogRefused::Poisoned))), "{refused}");
            assert!(is_under_way(), "they were told before the disk answered");
            before
        };
        let (before, direct) = beside_one_that_hangs(&wal, TIMES, beside);
        // The disk has answered by now, and said that it is written.
        let Err(Unsaved::OutcomeUnknown(unknown)) = direct else { panic!("{direct:?}") };
        hangs(&unknown);
        assert_eq!(wal.durable(), before, "nothing is acknowledged any more");
        assert!(wal.durable_index(GROUP) < wal.group(GROUP).unwrap().last.index);
        let Err(Error::Failed(unknown)) = wal.close() else { panic!("it has failed") };
        hangs(&unknown);
    }
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
