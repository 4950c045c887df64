//! Reads that run while their caller works on what came before.

use std::ops::Range;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use super::buffer::Buffer;
use super::directory::Directory;
use super::error::Error;
use super::queue::FileId;
use super::{Files, READS_AHEAD_MAX};

/// Threads that read, one for each read under way: a disk that works on two at once is faster than on one after another.
/// What they give is what [`Files::read`] would have given between the beginning and the end of the read. Dropping it
/// waits for what was begun.
#[derive(Debug)]
pub struct Ahead {
    readers: Vec<Reader>,
    /// Reads begun and finished since the start: they go round the readers, and so come back in order.
    begun: usize,
    finished: usize,
}

#[derive(Debug)]
struct Reader {
    /// None once it is being dropped.
    jobs: Option<Sender<Job>>,
    done: Receiver<Begun>,
    thread: Option<JoinHandle<()>>,
}

/// A read that was begun: the buffer, the part of it that was to be filled, and what became of it.
type Begun = (Buffer, Range<usize>, Result<(), Error>);

#[derive(Debug)]
struct Job {
    file: FileId,
    offset: u64,
    buffer: Buffer,
    part: Range<usize>,
}

impl Ahead {
    /// None if the kernel gives no thread: then its user reads by itself.
    pub(super) fn start(directory: &Directory) -> Option<Ahead> {
        let readers: Option<Vec<Reader>> = (0..READS_AHEAD_MAX).map(|_| Reader::start(directory.clone())).collect();
        Some(Ahead { readers: readers?, begun: 0, finished: 0 })
    }

    /// Begins to fill `part` of `buffer`. Panics if [`READS_AHEAD_MAX`] are under way already.
    pub fn begin(&mut self, file: FileId, offset: u64, buffer: Buffer, part: Range<usize>) {
        assert!(self.begun - self.finished < self.readers.len(), "more than {READS_AHEAD_MAX} reads ahead");
        let reader = &self.readers[self.begun % self.readers.len()];
        self.begun += 1;
        let jobs = reader.jobs.as_ref().expect("it is taken by drop alone");
        jobs.send(Job { file, offset, buffer, part }).expect("the thread runs until the sender is dropped");
    }

    /// Waits for the oldest read that was begun. Panics if there is none.
    pub fn finish(&mut self) -> Begun {
        assert!(self.finished < self.begun, "a read was begun");
        let reader = &self.readers[self.finished % self.readers.len()];
        self.finished += 1;
        reader.done.recv().expect("the thread runs until the sender is dropped")
    }
}

impl Reader {
    fn start(directory: Directory) -> Option<Reader> {
        let (jobs, incoming) = channel::<Job>();
        let (outgoing, done) = channel();
        let read = move || {
            while let Ok(Job { file, offset, mut buffer, part }) = incoming.recv() {
                let result = directory.read(file, offset, &mut buffer[part.clone()]);
                // Nobody waits for it any more.
                if outgoing.send((buffer, part, result)).is_err() {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("read ahead".to_owned()).spawn(read).ok()?;
        Some(Reader { jobs: Some(jobs), done, thread: Some(thread) })
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.jobs = None;
        let thread = self.thread.take().expect("it is taken by drop alone");
        if thread.join().is_err() && !std::thread::panicking() {
            panic!("a thread that reads ahead panicked");
        }
    }
}
