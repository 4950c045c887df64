//! The hot path through io_uring, and the runtimes that futures run on: the only file that names tokio and tokio-uring.
//!
//! ```text
//!   submit ──▶ request in the ring ──▶ handed to the kernel ──▶ ... ──▶ task: short? again : flush? ──▶ take
//! ```
//!
//! **Requests leave soon.** tokio-uring hands the ring to the kernel when its thread parks. An idle thread does so at
//! once, after it has sent what it had to send: the others' disks begin no later than ours. A busy thread may put it off
//! for long: so [`Queue::hand_over`] asks the runtime whether it has parked since, and if not, pushes the request out.
//! For this the submission ring has a single place: a second request, one that does nothing, finds it taken, and has to
//! hand over the first to make room. tokio-uring panics where the kernel refuses a request then, and we make that panic
//! the error of the write that needed the place. Where the kernel refuses it at a park nobody is told: the request stays
//! in the ring and is handed over at the next occasion, or it grows too old, which is an error.
//!
//! **Flushes** of [`SyncMode::Fdatasync`] run one at a time: what was written meanwhile is flushed together by the next
//! one. Two at once could not be told apart, because the kernel reports a lost write to one of them only.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio_uring::buf::{BoundedBuf, IoBuf};
use tokio_uring::fs::File;

use super::buffer::Buffer;
use super::choice::{Backend, SyncMode};
use super::directory::{Directory, Target};
use super::error::{Error, Operation};
use super::open_file;
use super::queue::{Completion, FileId, Queue, Token, WRITES_QUEUED_MAX, Write};
use super::seam::{Drawn, Seam};
use super::transfer::Transfer;
use crate::limits::DISK_OPERATION_AGE_MAX;
use crate::mutant::{self, Mutant};

/// See the head of this file.
const RING_ENTRIES: u32 = 1;
/// Room for the answers to all writes, flushes and requests that do nothing.
const RING_ANSWERS: u32 = 4 * WRITES_QUEUED_MAX as u32;

/// Runs futures on the present thread, with timers, sockets, and local tasks; and where it can, with io_uring.
pub struct Runtime {
    kind: Kind,
}

enum Kind {
    Uring(tokio_uring::Runtime),
    Blocking(tokio::runtime::Runtime, tokio::task::LocalSet),
}

impl Runtime {
    /// Sets up a runtime.
    ///
    /// # Errors
    /// Where the kernel refuses a ring or its other descriptors; [`super::probe`] tells the reasons apart.
    pub fn new(backend: Backend) -> Result<Runtime, Error> {
        let (what, kind) = match backend {
            Backend::Uring => ("io_uring", Runtime::uring(RING_ENTRIES)),
            Backend::Blocking => ("the event loop", Runtime::blocking()),
        };
        Ok(Runtime { kind: kind.map_err(|error| Error::new(Operation::SetUp, what, error))? })
    }

    /// Which one it is.
    pub fn backend(&self) -> Backend {
        match self.kind {
            Kind::Uring(_) => Backend::Uring,
            Kind::Blocking(..) => Backend::Blocking,
        }
    }

    /// Runs a future to its end. Tasks spawned by it stand still when it has ended, until the next call.
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        match &self.kind {
            Kind::Uring(runtime) => runtime.block_on(future),
            Kind::Blocking(runtime, tasks) => runtime.block_on(tasks.run_until(future)),
        }
    }

    fn uring(entries: u32) -> io::Result<Kind> {
        let mut ring = tokio_uring::uring_builder();
        ring.setup_cqsize(RING_ANSWERS).setup_coop_taskrun();
        // Not `tokio_uring::start`: it panics where io_uring is blocked.
        let start = |ring| tokio_uring::Runtime::new(tokio_uring::builder().entries(entries).uring_builder(ring));
        let runtime = match start(&ring) {
            // Before Linux 5.19 answers interrupt the thread that waits for them: slower, and no less right.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                start(tokio_uring::uring_builder().setup_cqsize(RING_ANSWERS))
            }
            other => other,
        };
        runtime.map(Kind::Uring)
    }

    fn blocking() -> io::Result<Kind> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Kind::Blocking(runtime, tokio::task::LocalSet::new()))
    }
}

impl fmt::Debug for Runtime {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Runtime({})", self.backend())
    }
}

/// Ends after a time. To be awaited within [`Runtime::block_on`].
pub async fn sleep(time: Duration) {
    tokio::time::sleep(time).await;
}

/// Writes through io_uring. [`Queue::submit`] is to be called within [`Runtime::block_on`] of a [`Backend::Uring`]
/// runtime, by the future itself or by a local task of it; it panics elsewhere.
///
/// After the first error nothing is written any more, and what was in flight then completes with an error. A write
/// that is older than [`DISK_OPERATION_AGE_MAX`] completes with an error of kind [`io::ErrorKind::TimedOut`] and with an
/// **empty buffer**: the one that was given stays with the kernel.
///
/// The runtime waits for requests in the kernel when it is dropped: a process whose disk hangs leaves by `exit`.
pub struct UringQueue {
    shared: Rc<Shared>,
    /// Submitted and not taken.
    in_flight: usize,
    /// Submitted, and perhaps still in the ring: how often the thread had parked then.
    in_ring: Option<u64>,
}

struct Shared {
    directory: Directory,
    sync_mode: SyncMode,
    wake: Box<dyn Fn()>,
    seam: Seam,
    age_max: Duration,
    state: RefCell<State>,
}

#[derive(Default)]
struct State {
    done: VecDeque<Completion>,
    /// Written, and waiting for the next flush.
    written: Vec<Written>,
    /// A flush is under way; its task takes care of `written` when it is done.
    flushing: bool,
    /// A write or a flush failed.
    poisoned: bool,
}

struct Written {
    token: Token,
    file: FileId,
    offset: u64,
    descriptor: Arc<OwnedFd>,
    buffer: Buffer,
}

impl UringQueue {
    /// `wake` is called after completions have become available, at times out of [`Queue::submit`]: it should do no more
    /// than wake.
    pub fn new(directory: Directory, sync_mode: SyncMode, wake: Box<dyn Fn()>) -> UringQueue {
        UringQueue::with_seam(directory, sync_mode, wake, Seam::default(), DISK_OPERATION_AGE_MAX)
    }

    pub(crate) fn with_seam(
        directory: Directory,
        sync_mode: SyncMode,
        wake: Box<dyn Fn()>,
        seam: Seam,
        age_max: Duration,
    ) -> UringQueue {
        let shared = Shared { directory, sync_mode, wake, seam, age_max, state: RefCell::default() };
        UringQueue { shared: Rc::new(shared), in_flight: 0, in_ring: None }
    }
}

impl Queue for UringQueue {
    fn submit(&mut self, write: Write) {
        write.check();
        assert!(self.in_flight < WRITES_QUEUED_MAX, "more than {WRITES_QUEUED_MAX} writes in flight");
        self.in_flight += 1;
        let target = self.shared.directory.target(write.file, self.shared.sync_mode);
        let Write { token, file, offset, buffer } = write;
        if self.shared.state.borrow().poisoned {
            return self.shared.fail(token, Operation::Write, file, offset, super::poisoned(), buffer);
        }
        let started = match target {
            Ok(target) => Request::start(&self.shared.seam, target, offset, buffer),
            Err(error) => Err((error.source, buffer)),
        };
        match started {
            Ok(request) => {
                self.in_ring = Some(parks());
                drop(tokio_uring::spawn(Rc::clone(&self.shared).carry(token, file, request)));
            }
            Err((error, buffer)) => self.shared.fail(token, Operation::Write, file, offset, error, buffer),
        }
    }

    fn hand_over(&mut self) {
        let Some(then) = self.in_ring.take().filter(|then| *then == parks()) else { return };
        let handed = catch_unwind(AssertUnwindSafe(|| {
            self.shared.seam.hand_over();
            push_out();
        }));
        if handed.is_err() {
            tracing::warn!("io_uring refused to take a request; it is tried again");
            self.in_ring = Some(then);
        }
    }

    fn take(&mut self) -> Option<Completion> {
        let completion = self.shared.state.borrow_mut().done.pop_front()?;
        self.in_flight -= 1;
        Some(completion)
    }
}

impl fmt::Debug for UringQueue {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = formatter.debug_struct("UringQueue");
        shown.field("sync_mode", &self.shared.sync_mode).field("in_flight", &self.in_flight).finish_non_exhaustive()
    }
}

impl Shared {
    /// Sees a write through, from its first request on.
    async fn carry(self: Rc<Self>, token: Token, file: FileId, request: Request) {
        let offset = request.offset;
        let descriptor = Arc::clone(&request.target.descriptor);
        let is_flushed = self.sync_mode == SyncMode::Fdatasync;
        match tokio::time::timeout(self.age_max, request.finish(&self.seam, is_flushed)).await {
            Err(_) => self.fail_lost(token, Operation::Write, file, offset),
            Ok((Err(error), buffer)) => self.fail(token, Operation::Write, file, offset, error, buffer),
            Ok((Ok(()), buffer)) if self.state.borrow().poisoned => {
                self.fail(token, Operation::Write, file, offset, super::poisoned(), buffer);
            }
            Ok((Ok(()), buffer)) if self.sync_mode == SyncMode::Dsync => {
                self.complete(Completion { token, result: Ok(()), buffer });
            }
            Ok((Ok(()), buffer)) => {
                self.state.borrow_mut().written.push(Written { token, file, offset, descriptor, buffer });
                self.flush_all().await;
            }
        }
    }

    /// Flushes what is written until nothing is, unless another task does so already.
    async fn flush_all(&self) {
        if std::mem::replace(&mut self.state.borrow_mut().flushing, true) {
            return;
        }
        loop {
            // At most what is in flight: the submitter's bound is this loop's.
            let batch = std::mem::take(&mut self.state.borrow_mut().written);
            let Some(file) = batch.first().map(|write| write.file) else { break };
            let (now, later) = batch.into_iter().partition::<Vec<_>, _>(|write| write.file == file);
            self.state.borrow_mut().written.splice(..0, later);
            let poisoned = self.state.borrow().poisoned;
            let said = match poisoned {
                true => Err(super::poisoned()),
                false => self.flush_one(&now[0].descriptor).await,
            };
            self.flushed(now, said);
        }
        self.state.borrow_mut().flushing = false;
    }

    async fn flush_one(&self, descriptor: &OwnedFd) -> io::Result<()> {
        let answer = tokio::time::timeout(self.age_max, flush(descriptor, self.seam.draw_flush())).await;
        answer.unwrap_or(Err(io::ErrorKind::TimedOut.into()))
    }

    fn flushed(&self, batch: Vec<Written>, said: io::Result<()>) {
        let poisoned = self.state.borrow().poisoned;
        for Written { token, file, offset, descriptor, buffer } in batch {
            if mutant::is_on(Mutant::FlushBeforeShortWriteFinished) {
                super::blocking::finish_late(&said.as_ref().map(|()| &descriptor), offset, &buffer);
            }
            match &said {
                Ok(()) if !poisoned => self.complete(Completion { token, result: Ok(()), buffer }),
                Ok(()) => self.fail(token, Operation::Flush, file, offset, super::poisoned(), buffer),
                Err(error) => self.fail(token, Operation::Flush, file, offset, copy(error), buffer),
            }
        }
    }

    fn fail(&self, token: Token, operation: Operation, file: FileId, offset: u64, error: io::Error, buffer: Buffer) {
        self.state.borrow_mut().poisoned = true;
        let error = self.directory.error_at(operation, file, error).at(offset);
        self.complete(Completion { token, result: Err(error), buffer });
    }

    fn fail_lost(&self, token: Token, operation: Operation, file: FileId, offset: u64) {
        self.fail(token, operation, file, offset, io::ErrorKind::TimedOut.into(), Buffer::with_capacity(0));
    }

    fn complete(&self, completion: Completion) {
        self.state.borrow_mut().done.push_back(completion);
        (self.wake)();
    }
}

type InFlight = tokio_uring::InFlightOneshot<
    tokio_uring::WriteData<tokio_uring::buf::Slice<Lent>>,
    tokio_uring::WriteTransform<tokio_uring::buf::Slice<Lent>>,
>;

/// A write whose first request is with the kernel.
struct Request {
    target: Target,
    file: File,
    offset: u64,
    length: usize,
    in_flight: InFlight,
    drawn: Drawn,
}

impl Request {
    fn start(seam: &Seam, target: Target, offset: u64, buffer: Buffer) -> Result<Request, (io::Error, Buffer)> {
        // A descriptor of its own: it keeps the description, and so the lock, while the kernel is at it.
        let file = match target.descriptor.try_clone() {
            Ok(descriptor) => File::from_std(descriptor.into()),
            Err(error) => return Err((error, buffer)),
        };
        let length = buffer.len();
        let drawn = seam.draw();
        let in_flight = begin_write((&file, drawn), offset, Lent(buffer), 0..drawn.limit(length), Leaves::Soon)
            .map_err(|error| (error, Buffer::with_capacity(0)))?;
        Ok(Request { target, file, offset, length, in_flight, drawn })
    }

    /// Waits for the answer, and for those to the requests for what is missing. `is_flushed`: there is a flush behind it.
    async fn finish(self, seam: &Seam, is_flushed: bool) -> (io::Result<()>, Buffer) {
        let Request { target, file, offset, length, mut in_flight, mut drawn } = self;
        let mut transfer = Transfer::new(length, target.granule);
        loop {
            let (said, slice) = in_flight.await;
            delay(drawn).await;
            let lent = slice.into_inner();
            let place = offset + transfer.next_start() as u64;
            let said = drawn.answer(said);
            let is_short = is_flushed && said.is_ok();
            if let Err(error) = transfer.record(seam.wrote(place, said)) {
                return (Err(error), lent.0);
            }
            if transfer.is_complete() || is_short && mutant::is_on(Mutant::FlushBeforeShortWriteFinished) {
                return (Ok(()), lent.0);
            }
            let start = transfer.next_start();
            drawn = seam.draw();
            let end = start + drawn.limit(length - start);
            let place = offset + start as u64;
            in_flight = match begin_write((&file, drawn), place, lent, start..end, Leaves::Now) {
                Ok(in_flight) => in_flight,
                Err(error) => return (Err(error), Buffer::with_capacity(0)),
            };
        }
    }
}

/// When a request goes from the ring to the kernel.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Leaves {
    /// When the thread parks, or at the submitter's [`Queue::hand_over`].
    Soon,
    Now,
}

/// Puts a request into the ring. After an error it is not known who has the buffer: it stays with the driver.
fn begin_write(
    (file, drawn): (&File, Drawn),
    place: u64,
    lent: Lent,
    part: Range<usize>,
    leaves: Leaves,
) -> io::Result<InFlight> {
    let request = file.write_at(lent.slice(part), place);
    let handed = catch_unwind(AssertUnwindSafe(|| {
        drawn.hand_over();
        let in_flight = request.submit();
        if leaves == Leaves::Now {
            push_out();
        }
        in_flight
    }));
    handed.map_err(|_| refused())
}

/// How often this thread has parked since its runtime was made.
fn parks() -> u64 {
    tokio::runtime::Handle::current().metrics().worker_park_count(0)
}

/// Fills the only place in the ring, so that what stands there goes to the kernel now.
fn push_out() {
    // Its answer is of no interest: dropped, it is forgotten by the driver when it comes.
    let started = pin!(tokio_uring::no_op()).poll(&mut Context::from_waker(Waker::noop()));
    assert!(started.is_pending(), "no answer is looked at before the thread's next turn");
}

async fn flush(descriptor: &OwnedFd, drawn: Drawn) -> io::Result<()> {
    let file = File::from_std(descriptor.try_clone()?.into());
    let said = {
        let mut flush = pin!(file.sync_data());
        match poll_fn(|context| Poll::Ready(begin(flush.as_mut(), context, drawn))).await? {
            Poll::Ready(said) => said,
            Poll::Pending => flush.await,
        }
    };
    delay(drawn).await;
    open_file::answer_of_flush(drawn.answer(said))
}

/// Puts a flush into the ring and the ring into the kernel's hands. A panic here would take the task with it that
/// answers for all writes of the batch, and leave the queue as one that flushes for ever.
fn begin<F: Future>(flush: Pin<&mut F>, context: &mut Context<'_>, drawn: Drawn) -> io::Result<Poll<F::Output>> {
    let handed = catch_unwind(AssertUnwindSafe(|| {
        drawn.hand_over();
        let polled = flush.poll(context);
        if polled.is_pending() {
            push_out();
        }
        polled
    }));
    handed.map_err(|_| refused())
}

fn refused() -> io::Error {
    io::Error::other("io_uring refused to take the request")
}

/// Where tests put off an answer.
async fn delay(drawn: Drawn) {
    for _ in 0..drawn.turns_late() {
        tokio::task::yield_now().await;
    }
    if let Some(time) = drawn.slow() {
        sleep(time).await;
    }
    if drawn.hangs().is_some() {
        std::future::pending::<()>().await;
    }
}

/// An error for each write of a batch that shares it.
fn copy(error: &io::Error) -> io::Error {
    error.raw_os_error().map_or_else(|| io::Error::new(error.kind(), error.to_string()), io::Error::from_raw_os_error)
}

/// A buffer while the kernel has it.
struct Lent(Buffer);

// SAFETY: the buffer's memory is allocated once and stays where it is when the buffer moves; all of its length is
// initialised. While the request is in flight tokio-uring owns it: nobody else can reach it.
unsafe impl IoBuf for Lent {
    fn stable_ptr(&self) -> *const u8 {
        self.0.as_ptr()
    }

    fn bytes_init(&self) -> usize {
        self.0.len()
    }

    fn bytes_total(&self) -> usize {
        self.0.len()
    }
}
