//! Reads the sealed segments of an open log again and again, slowly, on a thread of its own.
//!
//! ```text
//!   scrubber ──▶ which segments are sealed? (locks the core for an instant) ──▶ reads one, at the rate ──▶ is it there still?
//!      ▲                                                                                                  │
//!      └── the next; after the last, the first ◀── findings, counters, the callback ◀─────────────────────┘
//! ```
//!
//! Nothing that appends waits for it: it has files of its own and holds no lock while it reads.

use std::num::NonZeroU64;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use super::open::LOG_DIRECTORY;
use super::pace::{Bucket, Paced};
use super::told::Told;
use super::{Error, Shared, Wal};
use crate::disk::{self, Directory, Operation};
use crate::types::SegmentNumber;
use crate::wal::segment::segment_name;
use crate::wal::{Acknowledged, Finding, Severity};

/// Between two passes, and until a segment is sealed where there is none.
const PAUSE: Duration = Duration::from_millis(100);
/// Told and remembered; others are counted.
const FINDINGS_MAX: usize = 1000;
/// How long whoever stops it waits for a read that is under way. It holds no lock of the directory.
const STOP_MAX: Duration = Duration::from_secs(5);

/// A scrubber at work. It stops when this is dropped, and when the log is closed.
#[derive(Debug)]
#[must_use = "it stops when this is dropped"]
pub struct Scrub {
    control: Arc<Control>,
}

/// What a scrubber has done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ScrubCounters {
    pub read_bytes: u64,
    /// Segments that were looked at, each as often as it was.
    pub segments: u64,
    /// How often all sealed segments were gone through.
    pub passes: u64,
    /// How long the last of these took.
    pub last_pass: Option<Duration>,
    /// Findings that were told, each counted once as long as it stays.
    pub findings: u64,
    /// What the last pass over all sealed segments met, told or not.
    pub last_pass_findings: u64,
}

/// What the scrubber shares with those who look at it and stop it.
#[derive(Debug)]
pub(super) struct Control {
    state: Mutex<State>,
    changed: Condvar,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
struct State {
    is_stopping: bool,
    is_finished: bool,
    counters: ScrubCounters,
    told: Told,
}

impl Wal {
    /// Reads all sealed segments again and again, `bytes_per_second` on average, and checks them as [`Wal::verify`] does.
    /// What is wrong, a read error too, is given to `on_finding` when it is first seen, on the scrubber's thread. It
    /// remembers 1,000 findings; if there are more, one note says so, and [`ScrubCounters::last_pass_findings`] how many.
    ///
    /// # Errors
    /// If the thread cannot be started, or the directory not opened.
    pub fn scrub(
        &self,
        bytes_per_second: NonZeroU64,
        on_finding: impl FnMut(&Finding) + Send + 'static,
    ) -> Result<Scrub, Error> {
        let files = Directory::open(self.shared.directory.root()).map_err(Error::Disk)?;
        let control = Arc::new(Control::new(FINDINGS_MAX));
        let scrubber = Scrubber {
            shared: Arc::downgrade(&self.shared),
            control: Arc::clone(&control),
            files,
            started: Instant::now(),
            bucket: Mutex::new(Bucket::new(bytes_per_second.get(), Duration::ZERO)),
            on_finding: Box::new(on_finding),
        };
        let thread = Builder::new().name("wal-scrub".to_owned()).spawn(move || scrubber.run());
        let thread =
            thread.map_err(|error| Error::Disk(disk::Error::new(Operation::SetUp, "the thread that scrubs", error)))?;
        *control.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
        let mut scrubs = self.shared.scrubs.lock().unwrap_or_else(PoisonError::into_inner);
        scrubs.retain(|scrub| scrub.strong_count() > 0);
        scrubs.push(Arc::downgrade(&control));
        Ok(Scrub { control })
    }
}

impl Scrub {
    pub fn counters(&self) -> ScrubCounters {
        self.control.lock().counters
    }

    /// What is wrong with the sealed segments, as each showed when it was looked at last: what was told, and the note that
    /// there is more.
    pub fn findings(&self) -> Vec<Finding> {
        self.control.lock().told.findings()
    }

    /// Stops it, and waits for that.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for Scrub {
    fn drop(&mut self) {
        self.control.stop();
    }
}

impl Control {
    fn new(findings_max: usize) -> Control {
        let (counters, told) = (ScrubCounters::default(), Told::new(findings_max));
        let state = State { is_stopping: false, is_finished: false, counters, told };
        Control { state: Mutex::new(state), changed: Condvar::new(), thread: Mutex::default() }
    }

    pub fn stop(&self) {
        let mut state = self.lock();
        state.is_stopping = true;
        self.changed.notify_all();
        let waited = self.changed.wait_timeout_while(state, STOP_MAX, |state| !state.is_finished);
        let is_finished = waited.unwrap_or_else(PoisonError::into_inner).0.is_finished;
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread.filter(|_| is_finished)
            && thread.join().is_err()
        {
            tracing::error!("the scrubber panicked");
        }
    }

    /// Waits; tells whether to go on.
    fn wait(&self, time: Duration) -> bool {
        let waited = self.changed.wait_timeout_while(self.lock(), time, |state| !state.is_stopping);
        !waited.unwrap_or_else(PoisonError::into_inner).0.is_stopping
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Each change is whole at any instant, whoever panicked.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Scrubber {
    /// Not held while it reads: the log closes when it likes.
    shared: Weak<Shared>,
    control: Arc<Control>,
    files: Directory,
    started: Instant,
    bucket: Mutex<Bucket>,
    on_finding: Box<dyn FnMut(&Finding) + Send>,
}

/// Says at the thread's end, however it comes, that nothing more will happen.
struct Finished(Arc<Control>);

impl Drop for Finished {
    fn drop(&mut self) {
        self.0.lock().is_finished = true;
        self.0.changed.notify_all();
    }
}

impl Scrubber {
    fn run(mut self) {
        let _finished = Finished(Arc::clone(&self.control));
        while let Some(()) = self.pass() {}
    }

    /// Goes through all sealed segments; `None` if it is to stop.
    fn pass(&mut self) -> Option<()> {
        let started = Instant::now();
        let sealed = self.shared.upgrade()?.log().sealed_segments();
        for &number in &sealed {
            self.look_at(number)?;
        }
        let mut state = self.control.lock();
        state.counters.last_pass_findings = state.told.end_pass(&sealed);
        if !sealed.is_empty() {
            state.counters.passes += 1;
            state.counters.last_pass = Some(started.elapsed());
        }
        drop(state);
        self.control.wait(PAUSE).then_some(())
    }

    fn look_at(&mut self, number: SegmentNumber) -> Option<()> {
        let extent = self.shared.upgrade()?.log().sealed_extent(number);
        let Some(extent) = extent else { return Some(()) };
        let checked = extent.check(&Paced { files: &self.files, pace: &|bytes| self.pace(bytes) });
        if !self.control.wait(Duration::ZERO) {
            return None;
        }
        let shared = self.shared.upgrade()?;
        let mut log = shared.log();
        if !log.has_segment(number) {
            // It was retired meanwhile: what was read may be of another life.
            return Some(());
        }
        match &checked {
            Ok(checked) => log.mark_verified(checked),
            Err(_) => log.mark_unverified(number),
        }
        drop(log);
        drop(shared);
        let findings = match checked {
            Ok(checked) => (checked.findings, checked.findings_more),
            Err(error) => (vec![unopened(number, &error)], 0),
        };
        self.take(number, findings);
        Some(())
    }

    /// Waits until so much may be read; tells whether to go on.
    fn pace(&self, bytes: u64) -> bool {
        let wait = {
            let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
            bucket.take(bytes, self.started.elapsed())
        };
        let goes_on = self.control.wait(wait);
        self.control.lock().counters.read_bytes += if goes_on { bytes } else { 0 };
        goes_on
    }

    fn take(&mut self, number: SegmentNumber, findings: (Vec<Finding>, u64)) {
        let mut state = self.control.lock();
        let new = state.told.take(number, findings);
        state.counters.segments += 1;
        state.counters.findings += new.len() as u64;
        drop(state);
        for finding in &new {
            match finding.severity {
                Severity::Note => tracing::warn!("the scrubber found: {finding}"),
                _ => tracing::error!("the scrubber found: {finding}"),
            }
            (self.on_finding)(finding);
        }
    }
}

/// A segment of the log whose file does not let itself be looked at.
fn unopened(number: SegmentNumber, error: &crate::wal::Error) -> Finding {
    // The world may refuse for a reason of its own, as when there are no descriptors left.
    let (severity, acknowledged) = match error {
        crate::wal::Error::Disk(_) => (Severity::Unclear, Acknowledged::Unknown),
        _ => (Severity::Corrupt, Acknowledged::Yes),
    };
    Finding {
        severity,
        file: segment_name(LOG_DIRECTORY, number),
        bytes: 0..0,
        what: format!("it cannot be looked at: {error}"),
        acknowledged: Some(acknowledged),
        entries: Vec::new(),
    }
}
