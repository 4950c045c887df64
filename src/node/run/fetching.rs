//! The thread that fetches: a snapshot that another node offers, and chunks that rotted here.
//!
//! ```text
//!   core ── order, cancel ──▶ "fetch"                                   other nodes
//!                              │  which one is here, or has come in part?
//!                              │  manifest ◀───────────────────────────── from one that has it
//!                              │  chunks, a few under way ◀────────────── from one after the other
//!                              │  each checked, written (snapshot::Receiver), whole and durable at the end
//!                              │  read back into sessions and state machine
//!   core ◀── Fetched ──────────╯
//! ```
//!
//! It has a runtime and sockets of its own: what arrives, is decrypted and written holds up neither core nor heartbeats.
//! No faster than it may ([`FetchOptions::bytes_per_second`]), since the log is on the same disk.
//!
//! # The contract
//!
//! - One snapshot at a time. An order for another one takes the place of the one under way, of which nothing is told then;
//!   what had come of it is removed when the next one begins. An order for the same one changes nothing, unless another
//!   leads: if something is missing all nodes are asked anew, that one first, and what has come stays, and open; else that
//!   one is asked for the manifest between two chunks that are read, so that it knows what is fetched, and keeps it.
//! - What was ended by [`Fetching::cancel`], or by the end of the process, is gone on with by the next order: no chunk is
//!   sent twice, whoever sends it.
//! - A node that does not answer, is busy, or whose connection breaks is tried again, in turn with the others. One that has
//!   no such snapshot, another state at its point, or a damaged chunk is not asked for that again. Where the one that is
//!   named by the order, which leads, has none, nor has anybody who is reached, nobody is waited for. Every state that is
//!   told was whole and durable first.
//! - An administrator's program fetches in the same way ([`Export`]), into a directory that is no node's.
//! - A chunk that rots meanwhile is fetched anew and put back, also of a snapshot that this node serves ([`Mender`]).

mod error;
mod export;
mod mending;
mod pace;
mod session;
#[cfg(test)]
mod tests;
mod way;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

pub use error::FetchError;
pub use export::Export;
pub use mending::Mender;
use session::Session;
use way::Way;

use crate::disk::{self, Directory};
use crate::limits::{DISK_OPERATION_AGE_MAX, SNAPSHOT_FETCH_BYTES_PER_SECOND_DEFAULT};
use crate::machine::StateMachine;
use crate::net::Peers;
use crate::node::driver::checkpoint::Restoring;
use crate::node::sessions::Sessions;
use crate::snapshot::{Manifest, Receiver};
use crate::types::{ClusterId, GroupId, LogId, NodeId, Term};

/// After an order that was not carried out, what has come is held open for so long: who is ordered the same again need not
/// read it anew. Longer than drivers wait before that.
const KEPT_OPEN: Duration = Duration::from_secs(120);

/// How a node fetches.
#[derive(Clone, Copy, Debug)]
pub struct FetchOptions {
    pub cluster: ClusterId,
    /// No more than this is asked for; above 0.
    pub bytes_per_second: u64,
    /// After so long without any news it is given up.
    pub patience: Duration,
    /// Room that stays free for others, the log above all: rather than take it, a fetch fails. 0: nobody else needs any.
    pub kept_free_bytes: u64,
    /// A node that has not answered a question for so long is taken for gone.
    pub answer_timeout: Duration,
    /// After so long a rotten chunk that no node has is asked for again, and twice as long after each further time.
    pub mend_pause: Duration,
}

impl FetchOptions {
    /// As fast as is usual; a minute of patience.
    pub fn new(cluster: ClusterId) -> FetchOptions {
        FetchOptions {
            cluster,
            bytes_per_second: SNAPSHOT_FETCH_BYTES_PER_SECOND_DEFAULT,
            patience: Duration::from_secs(60),
            kept_free_bytes: 0,
            // Whoever serves reads it from a disk.
            answer_timeout: DISK_OPERATION_AGE_MAX,
            mend_pause: Duration::from_secs(1),
        }
    }
}

/// Which snapshot is wanted, and who may have it.
#[derive(Debug)]
pub struct Order<M> {
    pub group: GroupId,
    pub point: LogId,
    /// Asked first: it leads, and has offered it, or is to know that it is fetched.
    pub from: NodeId,
    /// In which it leads.
    pub term: Term,
    /// May have it, too.
    pub others: Vec<NodeId>,
    /// Takes the state.
    pub restoring: Restoring<M>,
}

/// What the thread has to say.
#[derive(Debug)]
pub enum Told<M> {
    /// Once for each order that was not replaced or cancelled.
    Fetched(Box<Fetched<M>>),
    /// A snapshot that was [suspect](Mender::is_suspect) is what was written, chunk by chunk.
    Mended { point: LogId },
}

/// What came of an order.
#[derive(Debug)]
pub struct Fetched<M> {
    pub group: GroupId,
    pub point: LogId,
    /// The snapshot is whole and durable in this node's directory, and this is its state.
    pub result: Result<(Manifest, Sessions, M), FetchError>,
}

/// How far the order under way is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Progress {
    pub point: LogId,
    /// Who is asked now.
    pub from: NodeId,
    /// Of the whole state; 0 until its manifest is there.
    pub bytes: u64,
    /// What is here of it.
    pub bytes_here: u64,
    /// What was here already when this order began, from an earlier one.
    pub bytes_resumed: u64,
    /// What is read into the state, once all of it is here.
    pub bytes_installed: u64,
    /// When the order began, and when anything of it came or was read.
    pub began: Instant,
    pub moved: Instant,
}

/// A handle on the thread. Dropped, it ends the thread and waits for it.
#[derive(Debug)]
pub struct Fetching<M> {
    shared: Arc<Shared<M>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared<M> {
    control: Control,
    next: Mutex<Next<M>>,
    mender: Mender,
}

#[derive(Debug)]
struct Next<M> {
    order: Option<Order<M>>,
    /// What is under way, unless it is to end, and who is known to lead.
    current: Option<(GroupId, LogId)>,
    leader: (NodeId, Term),
}

/// What the work under way looks at.
#[derive(Debug)]
struct Control {
    /// Rises when what is under way is not wanted any more.
    generation: AtomicU64,
    is_over: AtomicBool,
    changed: Arc<Notify>,
    progress: Mutex<Option<Progress>>,
    /// Who leads, and has not been asked for what is under way: so it does not know what to keep.
    untold: Mutex<Option<NodeId>>,
    /// Held while names of snapshots are given or taken away, by this thread and by the one that removes what is
    /// superfluous: else one could give its name to what the other is removing.
    names: Arc<Mutex<()>>,
    /// Chunks that came, whatever they were.
    chunks_received: AtomicU64,
}

impl<M: StateMachine + Send + 'static> Fetching<M> {
    /// Starts the thread. `told` is called on it.
    ///
    /// # Errors
    /// If there is no thread to be had.
    pub fn start(
        files: Directory,
        peers: Peers,
        options: FetchOptions,
        told: impl FnMut(Told<M>) + Send + 'static,
    ) -> Result<Fetching<M>, disk::Error> {
        assert!(options.bytes_per_second > 0, "nothing would ever come");
        let changed = Arc::new(Notify::new());
        let shared = Arc::new(Shared {
            control: Control::new(changed.clone()),
            next: Mutex::new(Next { order: None, current: None, leader: (NodeId(0), Term::ZERO) }),
            mender: Mender::new(changed),
        });
        let set_up = |error| disk::Error::new(disk::Operation::SetUp, "fetch", error);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(set_up)?;
        let theirs = shared.clone();
        let body = move || runtime.block_on(work(&theirs, &files, &peers, options, told));
        let thread = std::thread::Builder::new().name("fetch".to_owned()).spawn(body).map_err(set_up)?;
        Ok(Fetching { shared, thread: Some(thread) })
    }

    /// From now on this is wanted, and nothing else.
    pub fn order(&self, order: Order<M>) {
        let mut next = self.shared.next();
        let is_same = next.order.is_none() && next.current == Some((order.group, order.point));
        let is_of_another = std::mem::replace(&mut next.leader, (order.from, order.term)) != (order.from, order.term);
        if is_same && !is_of_another {
            return;
        }
        // Nobody needs to be asked for what is being read already; and yet it is to know.
        if is_same && self.progress().is_some_and(Progress::is_here) {
            *self.shared.control.untold() = Some(order.from);
            return;
        }
        next.order = Some(order);
        next.current = None;
        self.shared.control.turn_over();
    }

    /// Nothing is wanted any more. What has come stays, for an order of the same.
    pub fn cancel(&self) {
        let mut next = self.shared.next();
        next.order = None;
        next.current = None;
        self.shared.control.turn_over();
    }

    /// How far the order under way is; none: there is none.
    pub fn progress(&self) -> Option<Progress> {
        *self.shared.control.progress()
    }

    /// To be held by whoever else removes snapshots of this directory.
    pub fn names(&self) -> Arc<Mutex<()>> {
        self.shared.control.names.clone()
    }

    /// Where to tell of rotten chunks.
    pub fn mender(&self) -> Mender {
        self.shared.mender.clone()
    }
}

impl<M> Drop for Fetching<M> {
    fn drop(&mut self) {
        self.shared.control.is_over.store(true, Ordering::Release);
        self.shared.control.turn_over();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that fetches snapshots panicked");
        }
    }
}

impl<M> Shared<M> {
    fn next(&self) -> MutexGuard<'_, Next<M>> {
        self.next.lock().expect("no holder of this lock can panic")
    }

    /// The order that waits, with the generation in which it counts.
    fn take_order(&self) -> Option<(Order<M>, u64)> {
        let mut next = self.next();
        let order = next.order.take()?;
        next.current = Some((order.group, order.point));
        Some((order, self.control.generation.load(Ordering::Acquire)))
    }

    /// Whether the same is ordered anew.
    fn is_next(&self, group: GroupId, point: LogId) -> bool {
        self.next().order.as_ref().is_some_and(|order| (order.group, order.point) == (group, point))
    }

    /// Whether what ended just now is still wanted; it is not under way any more.
    fn is_wanted(&self, generation: u64) -> bool {
        let mut next = self.next();
        let is_wanted = self.control.generation.load(Ordering::Acquire) == generation;
        if is_wanted {
            next.current = None;
        }
        is_wanted
    }
}

impl Progress {
    fn new(point: LogId, from: NodeId) -> Progress {
        let now = Instant::now();
        Progress { point, from, bytes: 0, bytes_here: 0, bytes_resumed: 0, bytes_installed: 0, began: now, moved: now }
    }

    /// Whether all of it is.
    fn is_here(self) -> bool {
        self.bytes > 0 && self.bytes_here == self.bytes
    }
}

impl Control {
    fn new(changed: Arc<Notify>) -> Control {
        let (generation, is_over) = (AtomicU64::new(0), AtomicBool::new(false));
        Control {
            generation,
            is_over,
            changed,
            progress: Mutex::default(),
            untold: Mutex::default(),
            names: Arc::default(),
            chunks_received: AtomicU64::new(0),
        }
    }

    /// Ends what is under way.
    fn turn_over(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.changed.notify_one();
    }

    fn names(&self) -> MutexGuard<'_, ()> {
        self.names.lock().expect("no holder of this lock can panic")
    }

    fn untold(&self) -> MutexGuard<'_, Option<NodeId>> {
        self.untold.lock().expect("no holder of this lock can panic")
    }

    fn progress(&self) -> MutexGuard<'_, Option<Progress>> {
        self.progress.lock().expect("no holder of this lock can panic")
    }
}

/// Until the handle is dropped: orders first, then rotten chunks, then those that are to be found.
async fn work<M: StateMachine>(
    shared: &Shared<M>,
    files: &Directory,
    peers: &Peers,
    options: FetchOptions,
    mut told: impl FnMut(Told<M>),
) {
    let control = &shared.control;
    let session = |generation| Session::new(files, Way::Member(peers), options, control, generation);
    // What has come of an order that was not carried out, and until when it is held open.
    let (mut kept, mut kept_until) = (None::<Receiver>, Instant::now());
    while !control.is_over.load(Ordering::Acquire) {
        // An order that comes from here on ends what is mended.
        let generation_before = control.generation.load(Ordering::Acquire);
        let waiting = shared.take_order();
        if let Some((order, generation)) = waiting {
            let (group, point) = (order.group, order.point);
            let result = session(generation).fetch(order, &mut kept).await;
            *control.progress() = None;
            kept_until = Instant::now() + KEPT_OPEN;
            if matches!(result, Err(FetchError::Interrupted)) && !shared.is_next(group, point) {
                put_down(&mut kept, files);
            }
            if shared.is_wanted(generation) {
                told(Told::Fetched(Box::new(Fetched { group, point, result })));
            }
            continue;
        }
        let mut whole = |point| told(Told::Mended { point });
        if session(generation_before).mend_next(&shared.mender, &mut whole).await {
            continue;
        }
        if kept_until <= Instant::now() {
            put_down(&mut kept, files);
        }
        let due = shared.mender.next_due().into_iter().chain(kept.as_ref().map(|_| kept_until)).min();
        match due {
            // Whichever of the two: it is looked what is to be done.
            Some(due) => drop(tokio::time::timeout_at(due.into(), control.changed.notified()).await),
            None => control.changed.notified().await,
        }
    }
    put_down(&mut kept, files);
}

/// Who orders it later goes on with it; its file is nobody's meanwhile, and its room comes back when it is removed.
fn put_down(kept: &mut Option<Receiver>, files: &Directory) {
    kept.take().into_iter().for_each(|receiver| receiver.put_down(files));
}
