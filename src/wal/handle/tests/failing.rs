//! What is told when one of several writes fails.

use std::collections::VecDeque;

use super::*;
use crate::wal::handle::open::SUPERBLOCK_TOKENS;

/// Holds the completions of frames from the moment at which it is told to, until there are two: they come in the order of
/// their frames, and the second has failed.
struct Paired {
    queue: Box<dyn disk::Queue>,
    gate: Arc<Gate>,
    held: Vec<disk::Completion>,
    given: VecDeque<disk::Completion>,
}

impl disk::Queue for Paired {
    fn submit(&mut self, write: disk::Write) {
        self.queue.submit(write);
    }

    fn hand_over(&mut self) {
        self.queue.hand_over();
    }

    fn take(&mut self) -> Option<disk::Completion> {
        while let Some(completion) = self.queue.take() {
            if self.gate.is(GateState::Open) || completion.token.0 >= SUPERBLOCK_TOKENS {
                return Some(completion);
            }
            self.held.push(completion);
        }
        if self.held.len() == 2 {
            self.held.sort_by_key(|completion| completion.token.0);
            let error = std::io::Error::from_raw_os_error(5);
            self.held[1].result = Err(disk::Error::new(Operation::Flush, "the segment", error));
            self.given.extend(self.held.drain(..));
        }
        self.given.pop_front()
    }
}

/// Tails and the durable index gave the entries of the first, while those who waited for them heard of a failure.
#[test]
fn what_completed_beside_a_failure_is_durable_to_all() {
    for io in back_ends() {
        let home = home();
        let gate = Arc::new(Gate::default());
        let between = Arc::clone(&gate);
        let wrap = move |queue| -> Box<dyn disk::Queue> {
            Box::new(Paired { queue, gate: between, held: Vec::new(), given: VecDeque::new() })
        };
        let two = Options { writes_in_flight: Some(2), ..options(&home, io) };
        let (wal, _) = Wal::open_with(&two, wrap).unwrap();
        wal.append_records(GROUP, ["before"]).unwrap().wait().unwrap();
        // The covering frame is on its way or done: none comes beside those that follow.
        let start = Instant::now();
        while !wal.shared.log().is_covered() || !wal.shared.log().is_idle() {
            assert!(start.elapsed() < Duration::from_secs(20), "never covered");
            std::thread::sleep(Duration::from_millis(1));
        }
        gate.set(GateState::Held);
        let writing = |frames| {
            while wal.shared.log().in_flight.len() < frames {
                assert!(start.elapsed() < Duration::from_secs(20), "{frames} frames are not in flight");
                std::thread::yield_now();
            }
        };
        let first = wal.append_records(GROUP, ["first"]).unwrap();
        let mut task = Box::pin(wal.append_records(GROUP, Vec::<Bytes>::new()).unwrap());
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        let polled = task.as_mut().poll(&mut Context::from_waker(&waker));
        writing(1);
        let second = wal.append_records(GROUP, ["second"]).unwrap();
        let failed = second.wait().unwrap_err();
        assert_eq!(failed.0.source.raw_os_error(), Some(5), "{failed}");
        assert!(wal.shared.log().in_flight.len() <= 1, "both went at once");
        let told = wal.durable_index(GROUP);
        assert_eq!(told, Index(2), "the first is durable");
        assert_eq!(first.wait().expect("as the durable index says"), Index(2)..Index(3));
        if polled.is_pending() {
            assert!(matches!(task.as_mut().poll(&mut Context::from_waker(&waker)), Poll::Ready(Ok(_))));
            assert_eq!(woken.0.load(Ordering::SeqCst), 1);
        }
        assert!(matches!(wal.close(), Err(Error::Failed(_))));
    }
}
