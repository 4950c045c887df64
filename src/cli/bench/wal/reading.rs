//! A reader beside the load: it reads old, full segments at a steady rate, in turns of one second on and one second off,
//! so that what it costs the appends shows within one run.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::load::{GROUP, Stopped};
use crate::types::{Index, LogId};
use crate::wal::{self, Wal, handle};

/// How long the reader reads, and then does not.
pub const TURN: Duration = Duration::from_secs(1);
/// What the log holds for it, in bytes on disk: four segments.
pub const HISTORY_BYTES: u64 = 256 << 20;
/// So much of the end of the log is left alone: the segment in use, and one behind it.
const MARGIN_BYTES: u64 = 128 << 20;
const READ_BYTES: usize = 256 << 10;
/// A reader that fell behind by more than this does not make up for it.
const LAG_MAX: Duration = Duration::from_millis(100);
/// What is written at once to have something to read.
const BATCH_BYTES: usize = 256 << 10;

/// Between the conductor, who says when and how far, and the reader.
#[derive(Debug, Default)]
pub struct Reading {
    pub is_on: AtomicBool,
    pub is_over: AtomicBool,
    /// The reader reads before this index.
    end: AtomicU64,
    /// Payload bytes read so far.
    pub read_bytes: AtomicU64,
}

/// How far the log had come, so that old parts of it are found by the bytes behind them.
#[derive(Debug, Default)]
pub struct Marks {
    /// Rising: bytes written, and the last entry by then.
    marks: VecDeque<(u64, LogId)>,
}

impl Marks {
    pub fn push(&mut self, written_bytes: u64, last: LogId) {
        self.marks.push_back((written_bytes, last));
    }

    /// The last entry with at least so many bytes behind it.
    pub fn before(&self, written_bytes: u64, behind_bytes: u64) -> LogId {
        let old = self.marks.iter().rev().find(|(written, _)| written + behind_bytes <= written_bytes);
        old.map_or(LogId::ZERO, |&(_, last)| last)
    }

    /// Forgets what lies before that.
    pub fn forget_before(&mut self, last: LogId) {
        while self.marks.pop_front_if(|(_, own)| *own < last).is_some() {}
    }
}

impl Reading {
    /// Tells the reader how much of the log is old.
    pub fn advance(&self, marks: &Marks, written_bytes: u64) {
        let old = marks.before(written_bytes, MARGIN_BYTES);
        self.end.store(old.index.0, Ordering::Relaxed);
    }

    /// Reads at this rate while it is on, from the first entry to the last that is old, over and over.
    pub fn read(&self, wal: &Wal, bytes_per_second: u64) -> Result<(), Stopped> {
        let mut next = Index::FIRST;
        let mut due = Instant::now();
        while !self.is_over.load(Ordering::Relaxed) {
            let now = Instant::now();
            let is_on = self.is_on.load(Ordering::Relaxed);
            if !is_on || due > now {
                // Nothing is due while it is off, and so nothing to be made up for when it is on.
                due = if is_on { due } else { now };
                thread::sleep(due.saturating_duration_since(now).clamp(Duration::from_millis(1), LAG_MAX));
                continue;
            }
            due = now.checked_sub(LAG_MAX).map_or(due, |oldest| due.max(oldest));
            let bytes = self.read_piece(wal, &mut next)?;
            self.read_bytes.fetch_add(bytes, Ordering::Relaxed);
            due += Duration::from_nanos(bytes.max(1) * 1_000_000_000 / bytes_per_second);
        }
        Ok(())
    }

    fn read_piece(&self, wal: &Wal, next: &mut Index) -> Result<u64, Stopped> {
        let end = Index(self.end.load(Ordering::Relaxed));
        if *next >= end {
            *next = wal.group(GROUP).map_or(Index::FIRST, |group| group.first());
        }
        match wal.read(GROUP, *next..end, READ_BYTES) {
            Ok(entries) => {
                *next = entries.last().map_or(end, |last| last.id.index.next());
                Ok(entries.iter().map(|entry| entry.payload.data_bytes() as u64).sum())
            }
            Err(handle::Error::Log(wal::Error::Trimmed { first, .. })) => {
                *next = first;
                Ok(0)
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// Writes what there is to read.
pub fn write_history(wal: &Wal, record_bytes: usize, marks: &mut Marks) -> Result<(), Stopped> {
    let record = vec![0x5a; record_bytes];
    let records = (BATCH_BYTES / record_bytes).clamp(1, 1024);
    let last = || wal.group(GROUP).map_or(LogId::ZERO, |group| group.last);
    while wal.counters().written_bytes < HISTORY_BYTES {
        wal.append_records(GROUP, (0..records).map(|_| record.clone()))?.wait()?;
        marks.push(wal.counters().written_bytes, last());
    }
    Ok(())
}
