//! The floor: what any log must do at least. A queue, one thread that writes everything that waits in one `pwrite` and
//! one `fdatasync`, into a file whose blocks were all written before. No checksum, no index, no recovery.
//!
//! A batch is a header (magic, number of its first entry, number of entries, length in bytes) and the payloads,
//! padded to whole blocks. Where the file ends the writer begins again at its front, over what is oldest.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};

use trilith::cli::Failure;

use super::{Counted, Engine, Kind, Producer};

const FILE_NAME: &str = "floor";
const FILE_BYTES: u64 = 512 << 20;
const PREFILL_BYTES: usize = 1 << 20;
const BLOCK_BYTES: usize = 4096;
/// Bytes that may wait for the writer.
const QUEUE_BYTES_MAX: usize = 64 << 20;
const MAGIC: u64 = 0x666c_6f6f_7220_3031;
const HEADER_BYTES: usize = 32;

struct Floor {
    shared: Arc<Shared>,
    writer: JoinHandle<()>,
}

struct Shared {
    queue: Mutex<Queue>,
    /// For the writer: something waits.
    arrived: Condvar,
    /// For the others: something is durable, or has failed.
    moved: Condvar,
    /// The last durable entry.
    durable: AtomicU64,
}

struct Queue {
    /// What waits: room for a header, then payloads.
    bytes: Vec<u8>,
    /// The last entry that was taken.
    last: u64,
    is_writer_asleep: bool,
    closing: bool,
    failure: Option<Failure>,
}

pub fn open(directory: &Path) -> Result<Box<dyn Engine>, Failure> {
    let file = prefilled(&directory.join(FILE_NAME)).map_err(|error| Kind::Floor.io_failure(&error))?;
    let queue = Queue { bytes: vec![0; HEADER_BYTES], last: 0, is_writer_asleep: false, closing: false, failure: None };
    let shared = Arc::new(Shared {
        queue: Mutex::new(queue),
        arrived: Condvar::new(),
        moved: Condvar::new(),
        durable: AtomicU64::new(0),
    });
    let writer = thread::spawn({
        let shared = Arc::clone(&shared);
        move || shared.write(&file)
    });
    Ok(Box::new(Floor { shared, writer }))
}

/// A file of blocks that were all written before.
fn prefilled(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
    let zeros = vec![0; PREFILL_BYTES];
    for offset in (0..FILE_BYTES).step_by(PREFILL_BYTES) {
        file.write_all_at(&zeros, offset)?;
    }
    file.sync_all()?;
    Ok(file)
}

impl Engine for Floor {
    fn producer(&self, _thread: usize) -> Result<Box<dyn Producer + '_>, Failure> {
        Ok(Box::new(FloorProducer { shared: &self.shared, waiting: VecDeque::new() }))
    }

    fn about(&self) -> String {
        "one thread, pwrite + fdatasync, page cache, blocks written before".to_owned()
    }

    fn close(self: Box<Self>) -> Result<(), Failure> {
        self.shared.lock().closing = true;
        self.shared.arrived.notify_one();
        self.writer.join().expect("the writer keeps its errors");
        self.shared.lock().failure.take().map_or(Ok(()), Err)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().expect("no thread panics while it holds the queue")
    }

    /// The writer, until the queue is closed and empty, or the disk fails.
    fn write(&self, file: &File) {
        let (mut batch, mut first, mut offset) = (vec![0; HEADER_BYTES], 1, 0);
        while let Some(last) = self.take(&mut batch) {
            match write_batch(file, &mut batch, first..last + 1, &mut offset) {
                Ok(()) => {
                    let _queue = self.lock();
                    self.durable.store(last, Ordering::Release);
                }
                Err(error) => self.lock().failure = Some(Kind::Floor.io_failure(&error)),
            }
            self.moved.notify_all();
            first = last + 1;
        }
    }

    /// Swaps the batch for what waits; gives its last entry, or none if there will be no other.
    fn take(&self, batch: &mut Vec<u8>) -> Option<u64> {
        batch.truncate(HEADER_BYTES);
        let mut queue = self.lock();
        while queue.bytes.len() == HEADER_BYTES && !queue.closing {
            queue.is_writer_asleep = true;
            queue = self.arrived.wait(queue).expect("no thread panics while it holds the queue");
            queue.is_writer_asleep = false;
        }
        if queue.bytes.len() == HEADER_BYTES || queue.failure.is_some() {
            return None;
        }
        std::mem::swap(batch, &mut queue.bytes);
        Some(queue.last)
    }
}

fn write_batch(file: &File, batch: &mut Vec<u8>, entries: std::ops::Range<u64>, offset: &mut u64) -> io::Result<()> {
    let header = [MAGIC, entries.start, entries.end - entries.start, batch.len() as u64];
    for (field, bytes) in header.iter().zip(batch.chunks_exact_mut(8)) {
        bytes.copy_from_slice(&field.to_le_bytes());
    }
    batch.resize(batch.len().next_multiple_of(BLOCK_BYTES), 0);
    if *offset + batch.len() as u64 > FILE_BYTES {
        *offset = 0;
    }
    file.write_all_at(batch, *offset)?;
    *offset += batch.len() as u64;
    file.sync_data()
}

struct FloorProducer<'a> {
    shared: &'a Shared,
    /// Entries that were submitted and not yet reaped.
    waiting: VecDeque<u64>,
}

impl Producer for FloorProducer<'_> {
    fn submit(&mut self, payload: &[u8]) -> Result<(), Failure> {
        let mut queue = self.shared.lock();
        while queue.bytes.len() + payload.len() > QUEUE_BYTES_MAX && queue.failure.is_none() {
            queue = self.shared.moved.wait(queue).expect("no thread panics while it holds the queue");
        }
        queue.bytes.extend_from_slice(payload);
        queue.last += 1;
        self.waiting.push_back(queue.last);
        let wake = queue.is_writer_asleep;
        drop(queue);
        if wake {
            self.shared.arrived.notify_one();
        }
        Ok(())
    }

    fn reap(&mut self) -> Result<usize, Failure> {
        let oldest = *self.waiting.front().expect("something was submitted");
        if self.shared.durable.load(Ordering::Acquire) < oldest {
            let mut queue = self.shared.lock();
            while self.shared.durable.load(Ordering::Acquire) < oldest {
                if let Some(failure) = &queue.failure {
                    return Err(failure.clone());
                }
                queue = self.shared.moved.wait(queue).expect("no thread panics while it holds the queue");
            }
        }
        let durable = self.shared.durable.load(Ordering::Acquire);
        let reaped = self.waiting.partition_point(|entry| *entry <= durable);
        self.waiting.drain(..reaped);
        Ok(reaped)
    }
}

/// The newest lap begins at the front of the file, and ends where a batch does not go on from the one before it.
pub fn count(directory: &Path) -> Result<Counted, Failure> {
    let read = || -> io::Result<Counted> {
        let file = File::open(directory.join(FILE_NAME))?;
        let (mut offset, mut next, mut present) = (0, None, 0);
        while let Some((first, entries, bytes)) = read_header(&file, offset)? {
            if next.is_some_and(|next| next != first) {
                break;
            }
            next = Some(first + entries);
            present += entries;
            offset += bytes.next_multiple_of(BLOCK_BYTES as u64);
        }
        Ok(Counted { appended: next.map_or(0, |next| next - 1), present })
    };
    read().map_err(|error| Kind::Floor.io_failure(&error))
}

fn read_header(file: &File, offset: u64) -> io::Result<Option<(u64, u64, u64)>> {
    if offset + BLOCK_BYTES as u64 > FILE_BYTES {
        return Ok(None);
    }
    let mut header = [0; HEADER_BYTES];
    file.read_exact_at(&mut header, offset)?;
    let field = |at: usize| u64::from_le_bytes(header[at * 8..at * 8 + 8].try_into().expect("eight bytes"));
    Ok((field(0) == MAGIC).then(|| (field(1), field(2), field(3))))
}
