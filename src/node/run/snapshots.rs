//! The thread that writes snapshots, and removes what they make superfluous.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::clocks::thread_time;
use super::fetching::FetchOptions;
use crate::disk::{self, Directory};
use crate::node::driver::{Input, Made, Making, Stopwatch};
use crate::snapshot::run::{Control, Ended, run};
use crate::snapshot::{self, Builder, Reach};
use crate::types::{ClusterId, GroupId, LogId};

/// How this node writes snapshots, and fetches them.
#[derive(Clone, Copy, Debug)]
pub(super) struct SnapshotWriting {
    pub cluster: ClusterId,
    pub bytes_per_second: u64,
    pub fetch_bytes_per_second: u64,
    pub kept_free_bytes: u64,
}

impl SnapshotWriting {
    pub fn fetch_options(self) -> FetchOptions {
        let SnapshotWriting { cluster, fetch_bytes_per_second: bytes_per_second, kept_free_bytes, .. } = self;
        FetchOptions { bytes_per_second, kept_free_bytes, ..FetchOptions::new(cluster) }
    }
}

enum Order {
    Make(Box<Making>),
    Remove { in_use: LogId, reach: Reach },
}

/// The thread. The driver orders one thing at a time.
pub(super) struct Snapshots {
    orders: Option<Sender<Order>>,
    control: Arc<Control>,
    /// The last one was handed over then.
    began: Option<Instant>,
    core: CoreTime,
    thread: Option<JoinHandle<()>>,
}

/// How long the driver's thread has worked to take the state of the snapshot that is made, or to hand it over: the longer of
/// both. Given out, and 0 again, when it is made.
#[derive(Clone, Debug, Default)]
struct CoreTime {
    microseconds: Arc<AtomicU64>,
    begun: Duration,
}

impl Stopwatch for CoreTime {
    fn start(&mut self) {
        self.begun = thread_time();
    }

    fn stop(&mut self) {
        let took = thread_time().saturating_sub(self.begun);
        // Whatever was begun is counted.
        let microseconds = u64::try_from(took.as_nanos().div_ceil(1000)).unwrap_or(u64::MAX);
        self.microseconds.fetch_max(microseconds, Ordering::Relaxed);
    }
}

impl Snapshots {
    pub fn start(
        directory: &Directory,
        writing: SnapshotWriting,
        names: Arc<Mutex<()>>,
        results: &Sender<Input>,
        woken: &Arc<Notify>,
    ) -> Result<Snapshots, disk::Error> {
        let control = Arc::new(Control::new(writing.bytes_per_second).keeping_free(writing.kept_free_bytes));
        // The driver orders a snapshot when its point is.
        control.point_is_durable.store(true, Ordering::Release);
        let (orders, ordered) = channel::<Order>();
        let (files, results, woken, told) = (directory.clone(), results.clone(), woken.clone(), control.clone());
        let core = CoreTime::default();
        let microseconds = core.microseconds.clone();
        let body = move || {
            for order in ordered {
                let carried_out = carry_out(&files, writing.cluster, order, (&told, &microseconds), &names);
                let Some(input) = carried_out else { return };
                if results.send(input).is_err() {
                    return;
                }
                woken.notify_one();
            }
        };
        let spawned = std::thread::Builder::new().name("snapshot".to_owned()).spawn(body);
        let thread = spawned.map_err(|error| disk::Error::new(disk::Operation::SetUp, "snapshot", error))?;
        Ok(Snapshots { orders: Some(orders), control, began: None, core, thread: Some(thread) })
    }

    /// What measures the driver.
    pub fn stopwatch(&self) -> Box<dyn Stopwatch> {
        Box::new(self.core.clone())
    }

    pub fn make(&mut self, making: Box<Making>) {
        self.core.start();
        self.began = Some(Instant::now());
        self.order(Order::Make(making));
        self.core.stop();
    }

    pub fn remove(&mut self, in_use: LogId, reach: Reach) {
        self.order(Order::Remove { in_use, reach });
    }

    /// Whether there is no room for another segment of the log.
    pub fn note_log(&self, is_full: bool) {
        self.control.log_is_full.store(is_full, Ordering::Release);
    }

    /// Of the state that is being written.
    pub fn written_bytes(&self) -> u64 {
        self.control.written_bytes.load(Ordering::Relaxed)
    }

    /// When the one that is being written, or was written last, was begun.
    pub fn began(&self) -> Option<Instant> {
        self.began
    }

    fn order(&mut self, order: Order) {
        let sent = self.orders.as_ref().map(|orders| orders.send(order));
        assert!(matches!(sent, Some(Ok(()))), "the thread lives as long as the node, unless it panicked");
    }
}

/// None if the node ends; else what it is told.
fn carry_out(
    files: &Directory,
    cluster: ClusterId,
    order: Order,
    (control, core_microseconds): (&Control, &AtomicU64),
    names: &Mutex<()>,
) -> Option<Input> {
    Some(match order {
        Order::Make(making) => {
            let Making { description, checkpoint } = *making;
            let (point, began) = (description.point, Instant::now());
            let result = match run(files, Builder::new(description, Box::new(checkpoint)), control) {
                Ok(Ended::Stopped) => return None,
                Ok(Ended::Done(_)) => Ok(Made {
                    bytes: control.written_bytes.load(Ordering::Relaxed),
                    milliseconds: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
                    core_microseconds: core_microseconds.swap(0, Ordering::Relaxed),
                }),
                Err(error) => Err(error),
            };
            Input::SnapshotMade { point, result }
        }
        Order::Remove { in_use, reach } => {
            let _names = names.lock().expect("no holder of this lock can panic");
            let result = snapshot::remove_superfluous(files, cluster, GroupId::CLUSTER, in_use, &reach);
            Input::SnapshotsRemoved { result }
        }
    })
}

impl Drop for Snapshots {
    /// What is not finished is removed; the next start does it where that takes a process that is killed.
    fn drop(&mut self) {
        self.control.stop.store(true, Ordering::Release);
        drop(self.orders.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that writes snapshots panicked");
        }
    }
}
