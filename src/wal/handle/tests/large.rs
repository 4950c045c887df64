//! A large frame goes to the disk beside others.

use std::sync::atomic::{AtomicBool, AtomicU64};

use super::*;

/// Frames that went to the disk, and whether nobody hears what became of them, in the one test here.
static FRAMES: AtomicU64 = AtomicU64::new(0);
static IS_HELD: AtomicBool = AtomicBool::new(false);

struct Holding(Box<dyn disk::Queue>);

impl disk::Queue for Holding {
    fn submit(&mut self, write: disk::Write) {
        if write.token.0 < super::super::open::SUPERBLOCK_TOKENS {
            FRAMES.fetch_add(1, Ordering::SeqCst);
        }
        self.0.submit(write);
    }

    fn take(&mut self) -> Option<disk::Completion> {
        if IS_HELD.load(Ordering::SeqCst) { None } else { self.0.take() }
    }
}

fn wait_for_frames(count: u64) {
    let start = Instant::now();
    while FRAMES.load(Ordering::SeqCst) < count {
        assert!(start.elapsed() < Duration::from_secs(20), "{} of {count} frames", FRAMES.load(Ordering::SeqCst));
        std::thread::yield_now();
    }
}

/// The append that makes what waits large wakes the log's thread, which has no completion to wait for.
#[test]
fn a_large_frame_leaves_before_those_in_flight_have_completed() {
    const HALF_BYTES: usize = 300_000;
    for io in back_ends() {
        let home = home();
        let options = Options { segment_bytes: 16 << 20, writes_in_flight: Some(1), ..options(&home, io) };
        FRAMES.store(0, Ordering::SeqCst);
        let (wal, _) = Wal::open_with(&options, |queue| Box::new(Holding(queue))).unwrap();
        IS_HELD.store(true, Ordering::SeqCst);
        let mut pending = vec![wal.append_records(GROUP, ["first"]).unwrap()];
        wait_for_frames(1);
        pending.push(wal.append_records(GROUP, [vec![1; HALF_BYTES]]).unwrap());
        // Ticks pass, on which the log's thread comes round.
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(FRAMES.load(Ordering::SeqCst), 1, "half of it waits");
        pending.push(wal.append_records(GROUP, [vec![2; HALF_BYTES]]).unwrap());
        wait_for_frames(2);
        pending.push(wal.append_records(GROUP, [vec![3; 2 * HALF_BYTES]]).unwrap());
        wait_for_frames(3);
        pending.push(wal.append_records(GROUP, [vec![4; 2 * HALF_BYTES]]).unwrap());
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(FRAMES.load(Ordering::SeqCst), 3, "three are in flight at most");
        assert!(pending.iter().all(|append| !append.is_durable()));
        IS_HELD.store(false, Ordering::SeqCst);
        for (append, index) in pending.into_iter().zip(1..) {
            assert_eq!(append.wait().unwrap(), Index(index)..Index(index + 1));
        }
        wal.close().unwrap();
    }
}
