#![no_main]
//! The same operations on the ring, where there is one, on the thread and in memory.

use std::sync::Once;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use trilith::disk::{self, BlockingQueue, Completion, Directory, Queue, Runtime, SyncMode, UringQueue, Write};
use trilith::sim::fuzz::{Backend, Simulated, operations};

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let simulated = operations(&mut Simulated::new(), input);
    assert_eq!(simulated, operations(&mut Blocking::new(), input), "simulated against blocking");
    if let Some(mut uring) = Uring::new() {
        assert_eq!(simulated, operations(&mut uring, input), "simulated against uring");
    }
});

struct Blocking {
    directory: Directory,
    queue: BlockingQueue,
    woken: Receiver<()>,
    _home: tempfile::TempDir,
}

impl Blocking {
    fn new() -> Blocking {
        let (home, directory) = scratch();
        let (wake, woken) = channel();
        let wake = Box::new(move || wake.send(()).unwrap_or(()));
        let queue = BlockingQueue::new(directory.clone(), SyncMode::Fdatasync, wake).expect("a thread can be had");
        Blocking { directory, queue, woken, _home: home }
    }
}

impl Backend for Blocking {
    type Files = Directory;

    fn files(&self) -> &Directory {
        &self.directory
    }

    fn submit(&mut self, write: Write) {
        self.queue.submit(write);
    }

    fn wait(&mut self) -> Completion {
        loop {
            if let Some(completion) = self.queue.take() {
                return completion;
            }
            self.woken.recv_timeout(Duration::from_secs(10)).expect("a write completes");
        }
    }
}

struct Uring {
    directory: Directory,
    queue: UringQueue,
    runtime: Runtime,
    _home: tempfile::TempDir,
}

impl Uring {
    fn new() -> Option<Uring> {
        let runtime = Runtime::new(disk::Backend::Uring).inspect_err(|error| tell_once(error)).ok()?;
        let (home, directory) = scratch();
        let queue = UringQueue::new(directory.clone(), SyncMode::Dsync, Box::new(|| {}));
        Some(Uring { directory, queue, runtime, _home: home })
    }
}

impl Backend for Uring {
    type Files = Directory;

    fn files(&self) -> &Directory {
        &self.directory
    }

    fn submit(&mut self, write: Write) {
        self.runtime.block_on(async { self.queue.submit(write) });
    }

    fn wait(&mut self) -> Completion {
        loop {
            if let Some(completion) = self.queue.take() {
                return completion;
            }
            self.runtime.block_on(disk::sleep(Duration::from_micros(100)));
        }
    }
}

fn tell_once(error: &disk::Error) {
    static TOLD: Once = Once::new();
    TOLD.call_once(|| eprintln!("SKIPPED backend_diff on io_uring: {error}"));
}

/// Beside the program, which unlike /tmp is rarely held in memory.
fn scratch() -> (tempfile::TempDir, Directory) {
    let program = std::env::current_exe().expect("it runs");
    let home = tempfile::tempdir_in(program.parent().expect("it lies in a directory")).expect("there is room");
    let directory = Directory::open(home.path()).expect("it was just made");
    (home, directory)
}
