//! The load of the demonstration: several clients, each with many records in flight, and the journal.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::configuration::ClientConfiguration;
use crate::cli::{Exit, Failure, access};
use crate::client::{Appended, Client, Outcomes};
use crate::types::{Index, NodeId};

/// Clients at work.
const CLIENTS: usize = 4;
/// Records that a client gives at once, and batches that it keeps in flight.
const BATCH_RECORDS: usize = 64;
const BATCHES_IN_FLIGHT: usize = 8;
/// A client waits this long for a leader before it gives up.
const TIMEOUT: Duration = Duration::from_secs(60);

/// What the thread that kills sees of the load.
#[derive(Debug)]
pub struct Shared {
    pub total: u64,
    /// Records that may be sent: a gate, so that each kill meets records on their way however fast the disk is.
    allowed: AtomicU64,
    sent: AtomicU64,
    acknowledged: AtomicU64,
    leader: AtomicU64,
    is_over: AtomicBool,
    bar: ProgressBar,
}

/// What was acknowledged.
#[derive(Debug, Default)]
pub struct Journal {
    /// For each record given, its index, or `None` where the outcome is unknown.
    pub indexes: Vec<Option<Index>>,
    /// When each batch was acknowledged, and how long it took.
    pub batches: Vec<(Instant, Duration)>,
    pub elapsed: Duration,
}

impl Shared {
    pub fn new(total: u64) -> Shared {
        // Hidden by itself where standard error is no terminal.
        let bar = ProgressBar::new(total);
        let style = ProgressStyle::with_template("{wide_bar} {pos}/{len} records acknowledged, {per_sec}, {msg}");
        if let Ok(style) = style {
            bar.set_style(style);
        }
        Shared {
            total,
            allowed: AtomicU64::new(total),
            sent: AtomicU64::new(0),
            acknowledged: AtomicU64::new(0),
            leader: AtomicU64::new(0),
            is_over: AtomicBool::new(false),
            bar,
        }
    }

    /// Waits until that many records are acknowledged; false if the load ended before.
    pub fn wait_for(&self, acknowledged: u64) -> bool {
        while self.acknowledged() < acknowledged {
            if self.is_over.load(Ordering::Acquire) {
                return false;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        true
    }

    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Acquire)
    }

    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Acquire)
    }

    /// From now on that many records may be sent.
    pub fn allow(&self, records: u64) {
        self.allowed.store(records, Ordering::Release);
    }

    async fn wait_until_allowed(&self) {
        while self.sent() >= self.allowed.load(Ordering::Acquire) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Who led when last seen.
    pub fn leader(&self) -> Option<NodeId> {
        let id = self.leader.load(Ordering::Acquire);
        (id > 0).then_some(NodeId(id))
    }

    /// Tells the person.
    pub fn note(&self, text: &str) {
        self.bar.set_message(text.to_owned());
        self.bar.println(text);
    }
}

/// Appends all records; returns when the outcome of each is known.
pub fn run(configuration: &ClientConfiguration, records: &[Bytes], shared: &Shared) -> Result<Journal, Failure> {
    let outcome = access::block_on(append_all(configuration, records, shared));
    shared.is_over.store(true, Ordering::Release);
    shared.bar.finish_and_clear();
    outcome
}

async fn append_all(
    configuration: &ClientConfiguration,
    records: &[Bytes],
    shared: &Shared,
) -> Result<Journal, Failure> {
    let start = Instant::now();
    let share = records.len().div_ceil(CLIENTS).max(1);
    let mut lanes = Vec::new();
    for chunk in records.chunks(share) {
        let client = access::connect(configuration, TIMEOUT).await?;
        lanes.push(append_lane(client, chunk, shared));
    }
    let mut journal = Journal::default();
    for lane in futures_in_order(lanes).await {
        let (indexes, batches) = lane?;
        journal.indexes.extend(indexes);
        journal.batches.extend(batches);
    }
    journal.elapsed = start.elapsed();
    Ok(journal)
}

type Lane = (Vec<Option<Index>>, Vec<(Instant, Duration)>);

/// One client's share: batches in order, several in flight.
async fn append_lane(client: Client, records: &[Bytes], shared: &Shared) -> Result<Lane, Failure> {
    let mut lane: Lane = Default::default();
    let mut in_flight: VecDeque<(Instant, Appended)> = VecDeque::new();
    for batch in records.chunks(BATCH_RECORDS) {
        if in_flight.len() >= BATCHES_IN_FLIGHT
            && let Some((begun, appended)) = in_flight.pop_front()
        {
            take(&mut lane, begun, appended.await, shared)?;
        }
        shared.wait_until_allowed().await;
        if let Some(leader) = client.leader() {
            shared.leader.store(leader.0, Ordering::Release);
        }
        let appended = client.enqueue(batch.to_vec()).await.map_err(access::failure)?;
        shared.sent.fetch_add(batch.len() as u64, Ordering::AcqRel);
        in_flight.push_back((Instant::now(), appended));
    }
    for (begun, appended) in in_flight {
        take(&mut lane, begun, appended.await, shared)?;
    }
    Ok(lane)
}

fn take(lane: &mut Lane, begun: Instant, outcomes: Outcomes, shared: &Shared) -> Result<(), Failure> {
    let failed = outcomes.failures.len();
    let acknowledged = outcomes.indexes.len() - failed;
    let known = |index: Index| (index > Index::ZERO).then_some(index);
    lane.0.extend(outcomes.indexes.iter().copied().map(known));
    if acknowledged > 0 {
        lane.1.push((Instant::now(), begun.elapsed()));
    }
    shared.acknowledged.fetch_add(acknowledged as u64, Ordering::AcqRel);
    shared.bar.inc(acknowledged as u64);
    match outcomes.failures.first() {
        Some((_, error)) if shared.acknowledged() == 0 => Err(Failure::new(
            Exit::Unavailable,
            format!("no record was acknowledged within {TIMEOUT:?}: {error}"),
            "see the nodes' logs in the demonstration's directory (give it with --dir to keep it)",
        )),
        _ => Ok(()),
    }
}

/// Runs all at once on this thread; the results in the order given.
async fn futures_in_order<F: Future>(futures: Vec<F>) -> Vec<F::Output> {
    let mut pinned: Vec<_> = futures.into_iter().map(Box::pin).collect();
    let mut results: Vec<Option<F::Output>> = pinned.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        for (future, result) in pinned.iter_mut().zip(&mut results) {
            if result.is_none()
                && let std::task::Poll::Ready(output) = future.as_mut().poll(context)
            {
                *result = Some(output);
            }
        }
        let is_done = results.iter().all(Option::is_some);
        if is_done { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    results.into_iter().flatten().collect()
}
