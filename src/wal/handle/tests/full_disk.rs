//! What appenders are told while the disk is full.

use std::sync::atomic::AtomicBool;
use std::sync::mpsc::channel;

use super::*;
use crate::limits::SEGMENT_BYTES_MIN;
use crate::sim::disk::SimDisk;
use crate::wal::Identity;

const NO_SPACE: Refused = Refused::Log(LogRefused::NoSpace);

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
        append(&inbox, 1100).unwrap();
        let (sender, said) = channel();
        std::thread::scope(|scope| {
            scope.spawn(|| sender.send(append(&inbox, 900)).unwrap());
            while inbox.blocked() == 0 {
                std::thread::yield_now();
            }
            // The first record is with the core, and finds no segment.
            inbox.settle(&log, Some(0), None);
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
    inbox.settle(&log, Some(0), Some(0));
    assert_eq!(append(&inbox, 10), Err(NO_SPACE));
    inbox.settle(&log, None, Some(0));
    append(&inbox, 10).unwrap();
}

/// A frame takes whole blocks, and its head: what would not fit is refused, and does not wait for a segment.
#[test]
fn room_is_counted_in_frames() {
    let log = log();
    let inbox = Inbox::new(&log, 1 << 20, WhenFull::Busy);
    inbox.settle(&log, Some(4096), Some(0));
    assert_eq!(append(&inbox, 4000), Err(NO_SPACE), "with its head the record does not fit one block");
    let room: u64 = 64 << 10;
    inbox.settle(&log, Some(room), Some(0));
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

/// What waits for a segment when the log is closed is told the cause, whatever it is.
#[test]
fn closing_tells_why_what_was_taken_could_not_be_written() {
    let Away { wal, at, home } = away(IoChoice::Blocking);
    let held = wal.shared.log();
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
