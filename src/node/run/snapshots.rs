//! The thread that writes snapshots, and removes what they make superfluous.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::Instant;

use tokio::sync::Notify;

use crate::disk::{self, Directory};
use crate::node::driver::{Input, Made, Making};
use crate::snapshot::run::{Control, Ended, run};
use crate::snapshot::{self, Builder, Reach};
use crate::types::{ClusterId, GroupId, LogId};

/// How this node writes snapshots.
#[derive(Clone, Copy, Debug)]
pub(super) struct SnapshotWriting {
    pub cluster: ClusterId,
    pub bytes_per_second: u64,
    pub kept_free_bytes: u64,
}

enum Order {
    Make(Box<Making>),
    Remove {
        in_use: LogId,
        reach: Reach,
    },
    /// To drop this takes long.
    Discard(Box<dyn Send>),
}

/// The thread. The driver orders one thing at a time, and now and then to drop something.
pub(super) struct Snapshots {
    orders: Option<Sender<Order>>,
    control: Arc<Control>,
    thread: Option<JoinHandle<()>>,
}

impl Snapshots {
    pub fn start(
        directory: &Directory,
        writing: SnapshotWriting,
        results: &Sender<Input>,
        woken: &Arc<Notify>,
    ) -> Result<Snapshots, disk::Error> {
        let control = Arc::new(Control::new(writing.bytes_per_second).keeping_free(writing.kept_free_bytes));
        // The driver orders a snapshot when its point is.
        control.point_is_durable.store(true, Ordering::Release);
        let (orders, ordered) = channel::<Order>();
        let (files, results, woken, told) = (directory.clone(), results.clone(), woken.clone(), control.clone());
        let body = move || {
            for order in ordered {
                let Some(carried_out) = carry_out(&files, writing.cluster, order, &told) else { return };
                let Some(input) = carried_out else { continue };
                if results.send(input).is_err() {
                    return;
                }
                woken.notify_one();
            }
        };
        let spawned = std::thread::Builder::new().name("snapshot".to_owned()).spawn(body);
        let thread = spawned.map_err(|error| disk::Error::new(disk::Operation::SetUp, "snapshot", error))?;
        Ok(Snapshots { orders: Some(orders), control, thread: Some(thread) })
    }

    pub fn make(&mut self, making: Box<Making>) {
        self.order(Order::Make(making));
    }

    pub fn remove(&mut self, in_use: LogId, reach: Reach) {
        self.order(Order::Remove { in_use, reach });
    }

    /// Drops this on the thread, once what is under way is done.
    pub fn discard(&mut self, what: Box<dyn Send>) {
        self.order(Order::Discard(what));
    }

    /// Of the state that is being written.
    pub fn written_bytes(&self) -> u64 {
        self.control.written_bytes.load(Ordering::Relaxed)
    }

    fn order(&mut self, order: Order) {
        let sent = self.orders.as_ref().map(|orders| orders.send(order));
        assert!(matches!(sent, Some(Ok(()))), "the thread lives as long as the node, unless it panicked");
    }
}

/// None if the node ends; else what it is told, if anything.
fn carry_out(files: &Directory, cluster: ClusterId, order: Order, control: &Control) -> Option<Option<Input>> {
    Some(match order {
        Order::Make(making) => {
            let Making { description, checkpoint } = *making;
            let (point, began) = (description.point, Instant::now());
            let result = match run(files, Builder::new(description, Box::new(checkpoint)), control) {
                Ok(Ended::Stopped) => return None,
                Ok(Ended::Done(_)) => Ok(Made {
                    bytes: control.written_bytes.load(Ordering::Relaxed),
                    milliseconds: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
                }),
                Err(error) => Err(error),
            };
            Some(Input::SnapshotMade { point, result })
        }
        Order::Remove { in_use, reach } => Some(Input::SnapshotsRemoved {
            result: snapshot::remove_superfluous(files, cluster, GroupId::CLUSTER, in_use, &reach),
        }),
        Order::Discard(what) => {
            drop(what);
            None
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Says by which thread it is dropped.
    struct Noted(Sender<Option<String>>);

    impl Drop for Noted {
        fn drop(&mut self) {
            let name = std::thread::current().name().map(str::to_owned);
            self.0.send(name).expect("the test waits for it");
        }
    }

    #[test]
    fn what_takes_long_to_drop_is_dropped_by_the_thread() {
        let home = tempfile::tempdir().unwrap();
        let directory = Directory::open(home.path()).unwrap();
        let writing = SnapshotWriting { cluster: ClusterId(1), bytes_per_second: 1 << 20, kept_free_bytes: 0 };
        let (results, _inputs) = channel();
        let mut snapshots = Snapshots::start(&directory, writing, &results, &Arc::new(Notify::new())).unwrap();
        let (noted, dropped) = channel();
        snapshots.discard(Box::new(Noted(noted)));
        assert_eq!(dropped.recv().unwrap().as_deref(), Some("snapshot"));
    }
}
