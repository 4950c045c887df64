//! The threads, timers and sockets around a [`Driver`]: what makes it a running node.
//!
//! ```text
//!   core thread (one runtime)                         other threads
//!   ─────────────────────────                         ─────────────
//!   QUIC tasks ─▶ Inbox ─┐                            "prepare": zero-fills segments ahead of use
//!   disk completions ────┼─▶ Driver ─▶ effects        "read": entries from the log, for followers, readers, replay
//!   ticks ───────────────┘      ▲                      "read for clients": the same, so that they hold up nobody
//!                               │                    "snapshot": writes the state, no faster than it may
//!                               └─── results, a wake ◀──┘   "serve snapshots", "fetch": to other nodes, and from them
//!                                                    "discard": drops states that nobody needs any more
//! ```
//!
//! QUIC and the core share one thread: what arrives is drained whole, handed to the driver, and its effects are carried
//! out at once. Between two turns the runtime runs every task that is ready: what was sent leaves, and packets which
//! arrived meanwhile are one batch. A write goes to the kernel when the thread parks, or else at the next turn (see
//! [`crate::disk`]): messages go first, since others have to wait for those.

mod clocks;
mod discards;
mod exchange;
pub mod fetching;
mod formatting;
mod links;
mod moving;
mod queue;
mod report;
mod segments;
mod serving;
mod snapshots;
#[cfg(test)]
mod tests;
mod workers;

use std::future::poll_fn;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::PathBuf;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use clocks::{boot_time, wall_clock_milliseconds};
use discards::Discards;
use exchange::Exchange;
pub use formatting::format;
use links::{correspondents, lives_met, refusal_to_forward};
use queue::AnyQueue;
use report::Report;
use segments::Segments;
use snapshots::{SnapshotWriting, Snapshots};
use workers::Readers;

use super::driver::{
    About, Driver, Effect, FollowerTail, Input, Options, RetentionRule, SnapshotOptions, StartError, Started, Stopped,
};
use super::sessions;
use crate::disk::{self, Backend, Directory, IoChoice, ProbeError, Probed, Runtime, SyncMode};
use crate::limits::{
    APPEND_BYTES_MAX, APPEND_ENTRIES_MAX, FOLLOWER_WINDOW_BYTES, FOLLOWER_WINDOW_MESSAGES, RATION_BYTES_PER_TICK_MIN,
    SNAPSHOT_TURN, TAIL_CACHE_BYTES_MAX, TICK,
};
use crate::machine::StateMachine;
use crate::net::{
    self, Arrival, Correspondents, Endpoint, Facts, Identity, Inbox, Peers, Replies, Settings, TailState,
};
use crate::raft::{Event, LeaseOptions, Limits, Role};
use crate::random::entropy;
use crate::superblock;
use crate::types::{Index, NodeId};
use crate::wal::{self, ReadPlan};

/// How long the last writes of a node that is told to end may take.
const FINISH_PATIENCE: Duration = Duration::from_secs(2);
/// A node that is started again right behind its death finds files that the kernel has not let go yet.
const LOCK_PATIENCE: Duration = Duration::from_secs(3);
/// Ticks that are made up for at once after the thread was kept from running.
const TICKS_BEHIND_MAX: u32 = 10;
/// Ticks of quiet before a covering frame: one heartbeat interval.
const QUIET_TICKS: u32 = 5;
/// Segments of the log for which a snapshot leaves room on the disk.
const SNAPSHOT_SEGMENTS_FREE: u64 = 2;
/// A node that was removed goes on for so long, to answer who has removed it, and to ask its successor to stand.
const FAREWELL_TICKS: u32 = 100;

/// What a node is started with. Checked by whoever makes it.
#[derive(Debug)]
pub struct NodeOptions {
    pub id: NodeId,
    pub directory: PathBuf,
    pub listen: SocketAddr,
    /// Where the others and clients find it.
    pub advertise: SocketAddr,
    pub identity: Identity,
    pub io: IoChoice,
    pub segment_bytes: u64,
    /// A start reads the whole log; else its end, and of each older segment what it says of itself.
    pub verify_at_start: bool,
    /// Taken and not committed while this node leads; beyond it clients are told `Busy`.
    pub uncommitted_bytes_max: usize,
    /// By how many hundredths one member's clock may be faster than another's, for reads by lease; 0: they are off.
    pub lease_drift_percent: u32,
    pub retention: RetentionRule,
    /// What is kept for followers that lag.
    pub follower_tail: FollowerTail,
    /// A snapshot is made when so many entries, or so many bytes of them, were applied since the last one; 0: not for that.
    pub snapshot_entries: u64,
    pub snapshot_bytes: u64,
    /// And written no faster than this.
    pub snapshot_bytes_per_second: u64,
    /// And fetches others' no faster than this.
    pub snapshot_fetch_bytes_per_second: u64,
    pub heartbeat: Duration,
    pub election: Range<Duration>,
    /// Of what must agree across the cluster.
    pub fingerprint: u64,
}

/// Why a node does not start, or why it stopped.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error(transparent)]
    Disk(#[from] disk::Error),
    #[error(transparent)]
    Probe(#[from] ProbeError),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error(transparent)]
    Network(#[from] net::Error),
    #[error(transparent)]
    Stopped(#[from] Stopped),
    /// For good: it comes back only as another life of its id.
    #[error("this node was removed from the cluster by entry {index}, and is a member no more")]
    Removed { index: Index },
    /// Nothing that was acknowledged is missing: it was on disk before.
    #[error("the disk did not finish what was on its way within {patience:?}")]
    Unfinished { patience: Duration },
}

impl RunError {
    /// Whether this node was found to have lost what it had promised: it must not speak in this life any more.
    fn takes_voice(&self) -> bool {
        match self {
            RunError::Start(start) => start.takes_voice(),
            RunError::Stopped(stopped) => stopped.takes_voice(),
            _ => false,
        }
    }
}

/// What a node says once it serves.
#[derive(Clone, Debug)]
pub struct Serving {
    pub address: SocketAddr,
    pub io: String,
    pub sync_mode: SyncMode,
    pub boot: u64,
    /// What recovery noted, a line each.
    pub findings: Vec<String>,
}

/// Runs a node with this state machine until `shutdown` comes or the disk fails. `ready` is called once it serves.
///
/// `failed` is called when the disk has failed or does not answer, **before** anything is cleaned up: threads and
/// requests may hang in that disk for ever, so whoever has a process of its own for the node ends it there.
pub fn run<M: StateMachine + Send + 'static>(
    options: NodeOptions,
    machine: M,
    shutdown: impl Future<Output = ()>,
    ready: impl FnOnce(&Serving),
    failed: impl FnOnce(&RunError),
) -> Result<(), RunError> {
    let directory = Directory::open_patiently(&options.directory, LOCK_PATIENCE)?;
    // Before anything is written: another node's directory stays as it is.
    let found = superblock::inspect(&directory).map_err(StartError::from)?;
    found.state.check(Some(options.identity.name().cluster), options.id).map_err(StartError::from)?;
    let marks = disk::Files::list(&directory, "")?;
    if marks.iter().any(|name| name == superblock::NO_VOICE_NAME) {
        return Err(StartError::NoVoice.into());
    }
    if marks.iter().any(|name| name == superblock::REMOVED_NAME) {
        return Err(StartError::Removed.into());
    }
    let probed = disk::probe(&directory, options.io)?;
    let sync_mode = found.state.sync_mode();
    let writes_in_flight = found.state.writes_in_flight();
    let runtime = Runtime::new(probed.backend)?;
    let way = (probed, sync_mode, writes_in_flight);
    runtime.block_on(serve(options, machine, directory, way, shutdown, ready, failed))
}

async fn serve<M: StateMachine + Send + 'static>(
    options: NodeOptions,
    machine: M,
    directory: Directory,
    (probed, sync_mode, writes_in_flight): (Probed, SyncMode, usize),
    shutdown: impl Future<Output = ()>,
    ready: impl FnOnce(&Serving),
    failed: impl FnOnce(&RunError),
) -> Result<(), RunError> {
    tokio::pin!(shutdown);
    let io = format!("{} ({})", probed.backend, probed.reason);
    let about = About {
        address: options.advertise,
        pid: std::process::id(),
        io: probed.backend.to_string(),
        sync_mode: sync_mode.to_string(),
    };
    let driver_options = driver_options(&options, writes_in_flight, about);
    let started = Driver::start(&directory, driver_options, machine, wall_clock_milliseconds());
    let started = started.map_err(|error| {
        let error = RunError::from(error);
        note_lost_voice(&directory, &error);
        error
    })?;
    let facts = Facts {
        incarnation: started.identity.incarnation,
        is_first_member: started.is_first_member,
        boot: started.boot,
        fingerprint: options.fingerprint,
        seed: entropy(),
    };
    let endpoint = Endpoint::bind(&options.identity, options.listen, facts, Settings::default())?;
    let serving =
        Serving { address: endpoint.local_address(), io, sync_mode, boot: started.boot, findings: told(&started) };
    let snapshots = SnapshotWriting {
        cluster: started.identity.cluster,
        bytes_per_second: options.snapshot_bytes_per_second,
        fetch_bytes_per_second: options.snapshot_fetch_bytes_per_second,
        kept_free_bytes: SNAPSHOT_SEGMENTS_FREE * options.segment_bytes,
    };
    let mut node = Node::new(
        started.driver,
        directory.clone(),
        probed.backend,
        sync_mode,
        &endpoint,
        options.lease_drift_percent > 0,
        snapshots,
    )?;
    node.exchange.mend(&started.snapshot_findings);
    // Polled once before anyone is told: from then on a signal is heard.
    let is_over = poll_fn(|context| Poll::Ready(shutdown.as_mut().poll(context).is_ready())).await;
    if is_over {
        return Ok(());
    }
    ready(&serving);
    let outcome = node.run(shutdown).await;
    if let Err(error) = &outcome {
        note_lost_voice(&directory, error);
        failed(error);
    }
    endpoint.close().await;
    outcome
}

fn driver_options(options: &NodeOptions, writes_in_flight: usize, about: About) -> Options {
    let ticks = |duration: Duration| u32::try_from(duration.as_millis() / TICK.as_millis()).unwrap_or(u32::MAX).max(1);
    Options {
        cluster: Some(options.identity.name().cluster),
        node: options.id,
        segment_bytes: options.segment_bytes,
        writes_in_flight,
        verify_at_start: options.verify_at_start,
        quiet_ticks: QUIET_TICKS,
        heartbeat_ticks: ticks(options.heartbeat),
        election_ticks: ticks(options.election.start)..ticks(options.election.end),
        limits: Limits {
            window_bytes: FOLLOWER_WINDOW_BYTES,
            window_messages: FOLLOWER_WINDOW_MESSAGES,
            append_bytes_max: APPEND_BYTES_MAX,
            append_entries_max: APPEND_ENTRIES_MAX,
            uncommitted_bytes_max: options.uncommitted_bytes_max,
            // What waits is in memory anyway.
            cache_bytes_max: TAIL_CACHE_BYTES_MAX.max(options.uncommitted_bytes_max),
            ration_bytes_min: RATION_BYTES_PER_TICK_MIN,
        },
        retention: options.retention,
        follower_tail: Some(options.follower_tail),
        sessions: sessions::Limits::default(),
        leases: (options.lease_drift_percent > 0).then_some(LeaseOptions {
            promise: options.election.start,
            rest: options.election.end,
            drift_percent: options.lease_drift_percent,
        }),
        snapshots: SnapshotOptions {
            entries: options.snapshot_entries,
            bytes: options.snapshot_bytes,
            bytes_per_second: options.snapshot_bytes_per_second,
            turn_ticks: ticks(SNAPSHOT_TURN),
        },
        seed: entropy(),
        about,
    }
}

/// What log and snapshots showed at the start, a line each.
fn told<M>(started: &Started<M>) -> Vec<String> {
    let mut lines = started.recovery.told();
    lines.extend(started.snapshot_findings.iter().map(ToString::to_string));
    lines
}

/// A driver with everything around it.
struct Node<M> {
    driver: Driver<M>,
    directory: Directory,
    queue: AnyQueue,
    inbox: Inbox,
    peers: Peers,
    replies: Replies,
    /// Work for the other threads, and what came of it.
    segments: Segments,
    readers: Readers<ReadPlan>,
    snapshots: Snapshots,
    discards: Discards,
    exchange: Exchange<M>,
    results: Receiver<Input>,
    /// Something other than the network has news.
    woken: Arc<Notify>,
    /// With reads by lease.
    reads_clock: bool,
    correspondents: Correspondents,
    /// Since it is known that this node is a member no more, and does not lead.
    removed_ticks: u32,
    /// The end of the log at the last tick.
    last: Index,
    report: Report,
    effects: Vec<Effect>,
    arrivals: Vec<Arrival>,
}

impl<M: StateMachine + Send + 'static> Node<M> {
    fn new(
        mut driver: Driver<M>,
        directory: Directory,
        backend: Backend,
        sync_mode: SyncMode,
        endpoint: &Endpoint,
        reads_clock: bool,
        snapshots: SnapshotWriting,
    ) -> Result<Node<M>, RunError> {
        let woken = Arc::new(Notify::new());
        let (sender, results) = channel();
        let queue = AnyQueue::new(&directory, backend, sync_mode, &woken)?;
        let segments = Segments::start(&directory, &sender, &woken)?;
        let files = directory.clone();
        let mut buffer = wal::ReadBuffer::default();
        let read = move |plan: ReadPlan| plan.run_with(&files, &mut buffer);
        let readers = Readers::start(&sender, &woken, read)?;
        let exchange = Exchange::start(&directory, endpoint, snapshots.fetch_options(), &woken)?;
        let snapshots = Snapshots::start(&directory, snapshots, exchange.names(), &sender, &woken)?;
        driver.measure_with(snapshots.stopwatch());
        let (inbox, peers, replies) = (endpoint.inbox(), endpoint.peers(), endpoint.replies());
        let correspondents = correspondents(driver.replica());
        peers.set_known(lives_met(&driver));
        peers.set_correspondents(correspondents.clone());
        Ok(Node {
            driver,
            directory,
            queue,
            inbox,
            peers,
            replies,
            segments,
            readers,
            snapshots,
            discards: Discards::start()?,
            exchange,
            results,
            woken,
            reads_clock,
            correspondents,
            removed_ticks: 0,
            last: Index::ZERO,
            report: Report::default(),
            effects: Vec::new(),
            arrivals: Vec::new(),
        })
    }

    async fn run(&mut self, mut shutdown: Pin<&mut impl Future<Output = ()>>) -> Result<(), RunError> {
        let mut next_tick = Instant::now() + TICK;
        // One timer for good: a new one for each turn would wake the thread that sets it.
        let mut clock = pin!(tokio::time::sleep_until(next_tick.into()));
        loop {
            self.queue.hand_over();
            self.gather();
            if self.tick(&mut next_tick) {
                clock.as_mut().reset(next_tick.into());
            }
            let has_more = self.turn()?;
            if self.removed_ticks >= FAREWELL_TICKS {
                return Err(self.leave().await?);
            }
            if has_more {
                // There may be more for ever, and a signal is heard all the same.
                tokio::select! {
                    biased;
                    () = &mut shutdown => return self.finish().await,
                    () = tokio::task::yield_now() => continue,
                }
            }
            tokio::select! {
                biased;
                () = &mut shutdown => return self.finish().await,
                () = self.woken.notified() => {}
                () = self.inbox.ready() => {}
                () = clock.as_mut() => {}
            }
        }
    }

    /// Hands the driver everything that has arrived.
    fn gather(&mut self) {
        if self.reads_clock {
            self.driver.handle(Input::Clock(boot_time()));
        }
        while let Some(completion) = self.queue.take() {
            self.driver.handle(Input::Written(completion));
        }
        while let Ok(input) = self.results.try_recv() {
            self.driver.handle(input);
        }
        self.exchange.gather(&mut self.driver);
        let mut arrivals = std::mem::take(&mut self.arrivals);
        self.inbox.drain(&mut arrivals);
        for arrival in arrivals.drain(..) {
            self.arrived(arrival);
        }
        self.arrivals = arrivals;
    }

    fn arrived(&mut self, arrival: Arrival) {
        match arrival {
            Arrival::Peer { sender, message } => self.driver.handle(Input::Peer { sender, message }),
            Arrival::Client { client, request } => self.driver.handle(Input::Client { client, request }),
            Arrival::TailOpened { tail, from } => self.driver.handle(Input::TailOpened { tail, from }),
            Arrival::TailReady { tail } => self.driver.handle(Input::TailReady { tail }),
            Arrival::TailClosed { tail } => self.driver.handle(Input::TailClosed { tail }),
            Arrival::PeerUp { hello } => {
                tracing::info!(node = %hello.node, boot = hello.boot, "peer up");
                self.peers.means(hello.node, hello.incarnation);
                self.driver.handle(Input::Met { node: hello.node, sender: hello.sender() });
            }
            Arrival::PeerDown { node } => {
                tracing::info!(%node, "peer down");
                self.driver.handle(Input::Lost { node });
            }
            Arrival::Refused { node, reason } => self.driver.handle(Input::Refused { node, reason }),
            Arrival::Forward { from, sender, forward } => self.driver.handle(Input::Forward { from, sender, forward }),
            Arrival::Forwarded { from, forwarded } => self.driver.handle(Input::Forwarded { from, forwarded }),
            Arrival::ClientGone { client } => self.driver.handle(Input::ClientGone { client }),
        }
    }

    /// Gives the driver the ticks that are due; tells whether there were any.
    fn tick(&mut self, next_tick: &mut Instant) -> bool {
        let now = Instant::now();
        let mut behind = 0;
        while *next_tick <= now {
            *next_tick += TICK;
            behind += 1;
            if behind <= TICKS_BEHIND_MAX {
                self.driver.handle(Input::Tick { wall_clock_milliseconds: wall_clock_milliseconds() });
            }
        }
        if behind > 0 {
            self.follow_correspondents();
            let progress = moving::progress(&self.snapshots, &self.exchange, &self.peers);
            self.driver.handle(Input::SnapshotProgress(progress));
            self.snapshots.note_log(self.driver.is_log_full());
            let replica = self.driver.replica();
            let (status, last) = (replica.status(), self.last);
            self.last = status.last.index;
            // Who catches up may yet come to where it was added again.
            let is_over = replica.is_removed() && status.role != Role::Leader && last == self.last;
            self.removed_ticks = if is_over { self.removed_ticks + behind.min(TICKS_BEHIND_MAX) } else { 0 };
        }
        behind > 0
    }

    /// They change with the configuration, and when those who were removed have been told so long enough.
    fn follow_correspondents(&mut self) {
        let correspondents = correspondents(self.driver.replica());
        if correspondents != self.correspondents {
            self.correspondents = correspondents;
            self.peers.set_correspondents(self.correspondents.clone());
        }
    }

    /// Takes the driver's effects and carries them out; tells whether there is more to do at once.
    fn turn(&mut self) -> Result<bool, Stopped> {
        let mut effects = std::mem::take(&mut self.effects);
        let has_more = self.driver.take_effects(&mut effects)?;
        self.driver.take_discarded().into_iter().for_each(|state| self.discards.order(Box::new(state)));
        let mut has_news = false;
        for effect in effects.drain(..) {
            has_news |= self.carry_out(effect);
        }
        self.effects = effects;
        Ok(has_more || has_news)
    }

    /// Tells whether the driver has news at once.
    fn carry_out(&mut self, effect: Effect) -> bool {
        match effect {
            Effect::Write(write) => self.queue.submit(write),
            Effect::Prepare(order) => self.segments.prepare(order),
            Effect::Remove(order) => self.segments.remove(order),
            Effect::ReadLog { read, plan, is_for_client } => self.readers.order(read, plan, is_for_client),
            Effect::MakeSnapshot(making) => self.snapshots.make(making),
            Effect::RemoveSnapshots { in_use, reach } => self.snapshots.remove(in_use, reach),
            Effect::FetchSnapshot { from, term, point } => self.exchange.fetch(&self.driver, (from, term), point),
            Effect::CancelFetch => self.exchange.cancel(),
            Effect::Snapshot(told) => report::snapshot(&told),
            Effect::Send(message) => self.peers.send(&message),
            Effect::Forward { to, forward } => {
                if let Err(why) = self.peers.forward(to, &forward) {
                    let (number, refusal) = (forward.id.number, refusal_to_forward(why));
                    self.driver.handle(Input::NotForwarded { number, refusal });
                    return true;
                }
            }
            Effect::Forwarded { to, forwarded } => self.peers.forwarded(to, &forwarded),
            Effect::Reply { client, response } => self.replies.reply(client, &response),
            Effect::Tail { tail, records } => match self.replies.tail(tail, records) {
                TailState::Room => {
                    self.driver.handle(Input::TailReady { tail });
                    return true;
                }
                TailState::Full => {}
                TailState::Gone => self.driver.handle(Input::TailClosed { tail }),
            },
            Effect::EndTail { tail, refusal } => self.replies.end_tail(tail, Some(refusal)),
            Effect::Event(event) => {
                if let Event::VoiceLost { .. } = event {
                    self.peers.set_known(lives_met(&self.driver));
                }
                self.report.event(&event);
            }
            Effect::Unreadable(error) => self.report.unreadable(&error),
            Effect::Missing { index, wanted_by } => {
                tracing::error!(%index, ?wanted_by, "the log holds an entry no more that is wanted: only a snapshot helps");
            }
        }
        false
    }

    /// It is a member no more, and leaves word of it for the next start.
    async fn leave(&mut self) -> Result<RunError, RunError> {
        self.finish().await?;
        let removed = RunError::Removed { index: self.driver.replica().membership_id().index };
        superblock::mark_removed(&self.directory, &format!("{removed}\n")).map_err(StartError::from)?;
        Ok(removed)
    }

    /// A clean end: what is on its way to the disk gets there, with proof.
    async fn finish(&mut self) -> Result<(), RunError> {
        let deadline = Instant::now() + FINISH_PATIENCE;
        self.driver.begin_to_end();
        while Instant::now() < deadline {
            while let Some(completion) = self.queue.take() {
                self.driver.handle(Input::Written(completion));
            }
            while let Ok(input) = self.results.try_recv() {
                self.driver.handle(input);
            }
            self.turn()?;
            if self.driver.is_finished() {
                return Ok(());
            }
            // What that asked for.
            self.turn()?;
            tokio::select! {
                () = self.woken.notified() => {}
                () = tokio::time::sleep(TICK) => {}
            }
        }
        Err(RunError::Unfinished { patience: FINISH_PATIENCE })
    }
}

/// A node that has lost what it had promised leaves word of it, for it must not be started again.
fn note_lost_voice(directory: &Directory, error: &RunError) {
    if !error.takes_voice() {
        return;
    }
    if let Err(failed) = superblock::mark_no_voice(directory, &format!("{error}\n")) {
        tracing::error!("`{}` could not be written: do not start this node again: {failed}", superblock::NO_VOICE_NAME);
    }
}
