//! What appenders are told while the disk is full.

use std::sync::atomic::AtomicBool;
use std::sync::mpsc::channel;

use super::*;
use crate::limits::SEGMENT_BYTES_MIN;
use crate::sim::disk::SimDisk;
use crate::wal::body::frame_room_bytes;
use crate::wal::record::record_bytes;
use crate::wal::{Fill, Identity, Room, Supply};

const NO_SPACE: Refused = Refused::Log(LogRefused::NoSpace);

pub(super) const FULL: Room = Room { bytes: 0, supply: Supply::Failing };
pub(super) const PLENTY: Room = Room { bytes: u64::MAX, supply: Supply::Coming };

/// An empty log, with nothing in its queue.
pub(super) fn log() -> Log {
    let identity =
        Identity { cluster: crate::types::ClusterId(1), node: NODE_ALONE, incarnation: crate::types::Incarnation(1) };
    Log::create(&SimDisk::new().files(), crate::sim::fuzz::options(identity), 1).unwrap()
}

pub(super) fn append(inbox: &Inbox, bytes: usize) -> Result<Ticket, Refused> {
    inbox.append_data(GROUP, &[Data::new(Bytes::from(vec![7; bytes]))]).map(|(ticket, _)| ticket)
}

#[test]
fn who_waits_for_room_is_told_when_the_disk_is_full() {
    comes_to_an_end("who waits for room of a full disk", || {
        let log = log();
        let inbox = Inbox::new(&log, 1000, WhenFull::Block);
        inbox.settle(&log, PLENTY, None);
        append(&inbox, 1100).unwrap();
        let (sender, said) = channel();
        std::thread::scope(|scope| {
            scope.spawn(|| sender.send(append(&inbox, 900)).unwrap());
            while inbox.blocked() == 0 {
                std::thread::yield_now();
            }
            // The first record is with the core, and finds no segment.
            inbox.settle(&log, FULL, None);
            let said = said.recv_timeout(Duration::from_secs(10));
            inbox.close();
            assert_eq!(said.expect("it is answered at once"), Err(NO_SPACE));
        });
    });
}

#[test]
fn appends_go_on_when_there_is_room_again() {
    let log = log();
    let inbox = Inbox::new(&log, 1000, WhenFull::Block);
    inbox.settle(&log, FULL, Some(0));
    assert_eq!(append(&inbox, 10), Err(NO_SPACE));
    inbox.settle(&log, PLENTY, Some(0));
    append(&inbox, 10).unwrap();
}

/// It was, while the next segment was being made: when that failed it waited for room on the disk, and a purge behind it,
/// which would have made some, waited as well.
#[test]
fn nothing_is_taken_that_might_find_no_segment() {
    let log = log();
    let busy = Inbox::new(&log, 1 << 20, WhenFull::Busy);
    let room = frame_room_bytes(record_bytes(5000)) + 4096;
    busy.settle(&log, Room { bytes: room, supply: Supply::Coming }, Some(0));
    append(&busy, 5000).unwrap();
    let refused = append(&busy, 5000).unwrap_err();
    assert!(matches!(refused, Refused::Busy { bytes: 5040, max } if max as u64 == room), "{refused:?}");
    busy.cut(GROUP, RecordKind::Purge, LogId::new(Term(1), Index(1))).expect("a purge has room of its own");
    comes_to_an_end("who waits for the next segment", move || {
        let inbox = Inbox::new(&log, 1 << 20, WhenFull::Block);
        for (then, said) in [(PLENTY, Ok(Ticket(1))), (FULL, Err(NO_SPACE))] {
            inbox.settle(&log, Room { bytes: 0, supply: Supply::Coming }, Some(0));
            std::thread::scope(|scope| {
                let waiting = scope.spawn(|| append(&inbox, 10));
                while inbox.blocked() == 0 {
                    std::thread::yield_now();
                }
                inbox.settle(&log, then, Some(0));
                assert_eq!(waiting.join().unwrap(), said);
            });
        }
    });
}

/// Whoever waits for room has the next segment made without the zeros that take time.
#[test]
fn room_that_is_short_is_hurried_once() {
    let log = log();
    let inbox = Inbox::new(&log, 1 << 20, WhenFull::Busy);
    let wanted = |inbox: &Inbox| {
        let mut taken = crate::wal::handle::inbox::Taken::default();
        inbox.take(std::task::Waker::noop(), &mut taken, None);
        taken.is_room_wanted
    };
    for supply in [Supply::Coming, Supply::Short, Supply::Failing] {
        inbox.settle(&log, Room { bytes: 4096, supply }, Some(0));
        append(&inbox, 5000).unwrap_err();
        assert_eq!(wanted(&inbox), supply == Supply::Short, "{supply:?}");
        assert!(!wanted(&inbox), "{supply:?}");
    }
}

/// A frame takes whole blocks, and its head: what would not fit is refused, and does not wait for a segment.
#[test]
fn room_is_counted_in_frames() {
    let log = log();
    let inbox = Inbox::new(&log, 1 << 20, WhenFull::Busy);
    inbox.settle(&log, Room { bytes: 4096, ..FULL }, Some(0));
    assert_eq!(append(&inbox, 4000), Err(NO_SPACE), "with its head the record does not fit one block");
    let room: u64 = 64 << 10;
    inbox.settle(&log, Room { bytes: room, ..FULL }, Some(0));
    let mut taken = 0;
    while append(&inbox, 100).is_ok() {
        // Each in an item of its own.
        inbox.cut(GroupId(1), RecordKind::Purge, LogId::new(Term(1), Index(taken + 1))).unwrap();
        taken += 1;
    }
    assert!(taken >= 2 && 2 * taken * 4096 <= room, "{taken} records of two frames each");
}

/// Nothing is full here: the log's directory is away, and no file can be made in it.
struct Away {
    wal: Wal,
    at: std::path::PathBuf,
    home: TempDir,
}

fn away(io: IoChoice) -> Away {
    away_with(io, |queue| queue)
}

fn away_with(io: IoChoice, wrap: impl FnOnce(Box<dyn Queue>) -> Box<dyn Queue> + Send + 'static) -> Away {
    let home = home();
    let small = Options { segment_bytes: SEGMENT_BYTES_MIN, ..options(&home, io) };
    let at = small.directory.join(LOG_DIRECTORY);
    let (wal, _) = Wal::open_with(&small, wrap).unwrap();
    wal.append_records(GROUP, ["first"]).unwrap().wait().unwrap();
    let ready = 1 + crate::limits::SEGMENTS_READY + crate::limits::SEGMENTS_SPARE;
    let start = Instant::now();
    let names = || std::fs::read_dir(&at).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    while names().filter(|name| name.ends_with(".segment")).count() < ready {
        assert!(start.elapsed() < Duration::from_secs(20), "no segments stand ready");
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(wal.preparation_error().is_none());
    std::fs::rename(&at, home.path().join("away")).unwrap();
    Away { wal, at, home }
}

#[test]
fn why_no_segment_can_be_made_is_told_and_appends_resume_by_themselves() {
    for io in back_ends() {
        let Away { wal, at, home } = away(io);
        let begin = Instant::now();
        let refused = loop {
            match wal.append_records(GROUP, [vec![7; 4000]]) {
                Ok(pending) => drop(pending.wait().unwrap()),
                Err(refused) => break refused,
            }
            assert!(begin.elapsed() < Duration::from_secs(20), "never refused");
        };
        assert_eq!(refused, NO_SPACE);
        let cause = wal.preparation_error().expect("it stands in the way");
        assert_eq!(cause.kind(), std::io::ErrorKind::NotFound, "{cause}");
        assert!(!refused.to_string().contains("full"), "{refused}");
        assert!(wal.failure().is_none(), "nothing durable is at stake");
        std::fs::rename(home.path().join("away"), at).unwrap();
        while wal.append_records(GROUP, [vec![7; 4000]]).is_err() {
            assert!(begin.elapsed() < Duration::from_secs(20), "it does not resume");
            std::thread::sleep(Duration::from_millis(1));
        }
        wal.flush().wait().unwrap();
        assert!(wal.preparation_error().is_none());
        wal.close().unwrap();
    }
}

/// Frames do not cross from one segment to the next: the room of several held less than its bytes, and the spare segment went
/// to what had been taken.
#[test]
fn what_is_taken_leaves_room_for_a_purge() {
    comes_to_an_end("a purge on a disk that was filled by several appends at once", || {
        for (io, bytes) in back_ends().into_iter().flat_map(|io| [19_000, 10_000, 22_000, 500].map(|bytes| (io, bytes)))
        {
            let Away { wal, at, home } = away(io);
            let mut pending = Vec::new();
            let refused = loop {
                match wal.append_records(GROUP, [vec![7; bytes]]) {
                    Ok(taken) => pending.push(taken),
                    Err(refused) => break refused,
                }
            };
            assert_eq!(refused, NO_SPACE, "{bytes}");
            let last = LogId::new(Term(1), Index(2));
            wal.purge_prefix(GROUP, last).expect("a purge is taken").wait().expect("and written");
            assert!(pending.into_iter().all(|taken| taken.wait().is_ok()), "{bytes}: what is taken is written");
            std::fs::rename(home.path().join("away"), at).unwrap();
            wal.close().unwrap();
        }
    });
}

/// The last segment there is has no room for the frame that shows the last purge to be durable: the superblock shows it. The
/// log failed at its end, though nothing was at stake.
#[test]
fn a_log_on_a_full_disk_is_closed_where_it_has_no_room_for_a_cover() {
    comes_to_an_end("the end of a log on a full disk", || {
        let Away { wal, at, home } = away(IoChoice::Blocking);
        wal.shared.log().never_quiet();
        while let Ok(taken) = wal.append_records(GROUP, [vec![7; 500]]) {
            drop(taken);
        }
        let purge = |index| {
            let last = LogId::new(Term(1), Index(index));
            wal.purge_prefix(GROUP, last).unwrap().wait().unwrap();
            (!wal.shared.log().may_fit_cover()).then_some(index)
        };
        let last = (1..100).find_map(purge).expect("each takes a block");
        assert!(!wal.shared.log().is_covered());
        wal.close().unwrap();
        std::fs::rename(home.path().join("away"), at).unwrap();
        let (wal, _) = Wal::open(options(&home, IoChoice::Blocking)).unwrap();
        assert_eq!(wal.group(GROUP).unwrap().first(), Index(last + 1));
    });
}

/// A segment that somebody waits for is no reason to refuse anything while others are being made: those may get the room of
/// old ones, where the disk has no more.
#[test]
fn one_segment_that_cannot_be_had_at_once_is_no_full_disk() {
    let mut log = log();
    log.hurry_room();
    let mut orders = Vec::new();
    while let Some(effect) = log.take_effect() {
        if let crate::wal::Effect::Prepare(order) = effect {
            orders.push(order);
        }
    }
    let (hurried, others): (Vec<_>, Vec<_>) = orders.into_iter().partition(|order| order.fill == Fill::Allocated);
    assert_eq!((hurried.len(), others.len() >= 2), (1, true));
    let error = || disk::Error::new(Operation::Write, "a segment", rustix::io::Errno::NOSPC);
    log.prepared(hurried[0].header.number, Err(error()));
    assert_eq!(log.room().supply, Supply::Coming);
    log.hurry_room();
    assert!(!matches!(log.take_effect(), Some(crate::wal::Effect::Prepare(order)) if order.fill == Fill::Allocated));
    for order in &others {
        assert_eq!(log.room().supply, Supply::Coming);
        log.prepared(order.header.number, Err(error()));
    }
    assert_eq!(log.room().supply, Supply::Failing);
}

/// What waits for a segment when the log is closed is told the cause, whatever it is.
#[test]
fn closing_tells_why_what_was_taken_could_not_be_written() {
    let Away { wal, at, home } = away(IoChoice::Blocking);
    let held = held(&wal);
    let pending: Vec<Pending> = (0..100).map(|_| wal.append_records(GROUP, [vec![7; 10_000]]).unwrap()).collect();
    drop(held);
    let Err(Error::Failed(unknown)) = wal.close() else { panic!("a million bytes do not fit four small segments") };
    assert_eq!(unknown.0.kind(), std::io::ErrorKind::NotFound, "{unknown}");
    assert!(pending.into_iter().any(|pending| pending.wait().is_err()));
    std::fs::rename(home.path().join("away"), at).unwrap();
    assert!(!read_all(&Wal::open(options(&home, IoChoice::Blocking)).unwrap().0).is_empty());
}

/// The log's thread takes its time to end.
struct SlowEnd {
    queue: Box<dyn Queue>,
    has_ended: Arc<AtomicBool>,
}

impl Queue for SlowEnd {
    fn submit(&mut self, write: disk::Write) {
        self.queue.submit(write);
    }

    fn hand_over(&mut self) {
        self.queue.hand_over();
    }

    fn take(&mut self) -> Option<disk::Completion> {
        self.queue.take()
    }
}

impl Drop for SlowEnd {
    fn drop(&mut self) {
        std::thread::sleep(Duration::from_millis(200));
        self.has_ended.store(true, Ordering::SeqCst);
    }
}

/// ETIMEDOUT is an answer, as disks on a network give it, and no disk that hangs: `close` left the log's thread to itself
/// for it, and the directory locked behind it.
#[test]
fn closing_waits_for_its_thread_where_a_preparation_failed_with_etimedout() {
    for io in back_ends() {
        let has_ended = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&has_ended);
        let Away { wal, at, home } = away_with(io, |queue| Box::new(SlowEnd { queue, has_ended: told }));
        // What stands ready is told to the log a moment later, and would take the error back.
        let start = Instant::now();
        let mut held = wal.shared.log();
        while !held.preparing.is_empty() {
            drop(held);
            assert!(start.elapsed() < Duration::from_secs(20), "segments are being made");
            std::thread::sleep(Duration::from_millis(1));
            held = wal.shared.log();
        }
        wal.shared.inbox.settle(&held, PLENTY, Some(0));
        let pending: Vec<Pending> = (0..100).map(|_| wal.append_records(GROUP, [vec![7; 10_000]]).unwrap()).collect();
        held.no_space = Some(disk::Error::new(Operation::Flush, "the next segment", rustix::io::Errno::TIMEDOUT));
        held.retry_ticks = u32::MAX;
        drop(held);
        let Err(Error::Failed(unknown)) = wal.close() else { panic!("a million bytes do not fit four small segments") };
        assert_eq!(unknown.0.source.raw_os_error(), Some(110), "{unknown}");
        assert!(has_ended.load(Ordering::SeqCst), "the log's thread is at it still");
        assert!(pending.into_iter().any(|pending| pending.wait().is_err()));
        std::fs::rename(home.path().join("away"), at).unwrap();
        Wal::open(options(&home, io)).expect("it is free when it is closed");
    }
}
