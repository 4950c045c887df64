//! Makes segments ahead of need, off the log's thread: to fill one with zeros takes as long as to write it. What frees old
//! ones is started here, too, and those whose room goes back to the disk are removed here.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Weak};
use std::thread::{Builder, JoinHandle};

use super::inbox::Upkeep;
use super::{Shared, copier};
use crate::disk::{Error, Operation};
use crate::wal::{Fill, Prepare, ReadPlan, Remove, prepare, remove};

/// Dropping it waits for the segment that is being made and for the read that is under way; there are no more then.
#[derive(Debug)]
pub(super) struct Preparer {
    shared: Weak<Shared>,
    /// At most a few orders: the log keeps count. None once it is being dropped.
    orders: Option<Sender<Order>>,
    stopping: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
enum Order {
    Prepare(Prepare),
    Remove(Remove),
}

impl Preparer {
    pub fn start(shared: &Arc<Shared>) -> Result<Preparer, Error> {
        let (orders, incoming) = channel();
        let stopping = Arc::new(AtomicBool::new(false));
        let (worker, told) = (Arc::clone(shared), Arc::clone(&stopping));
        let thread = Builder::new()
            .name("wal-prepare".to_owned())
            .spawn(move || work(&worker, &incoming, &told))
            .map_err(|error| Error::new(Operation::SetUp, "the thread that prepares segments", error))?;
        Ok(Preparer { shared: Arc::downgrade(shared), orders: Some(orders), stopping, threads: vec![thread] })
    }

    /// Sees to it that the inbox hears of this segment.
    pub fn prepare(&mut self, order: Prepare) {
        if order.fill != Fill::Zeros {
            return self.prepare_at_once(order);
        }
        self.order(Order::Prepare(order));
    }

    /// Sees to it that the inbox hears of its end.
    pub fn remove(&mut self, order: Remove) {
        self.order(Order::Remove(order));
    }

    fn order(&mut self, order: Order) {
        let orders = self.orders.as_ref().expect("it is taken by drop alone");
        orders.send(order).expect("the thread runs until the sender is dropped");
    }

    /// The log waits for this one: it does not queue behind those that are filled ahead.
    fn prepare_at_once(&mut self, order: Prepare) {
        self.threads.retain(|thread| !thread.is_finished());
        let Some(shared) = self.shared.upgrade() else { return };
        let number = order.header.number;
        let worker = Arc::clone(&shared);
        let started = Builder::new().name("wal-prepare-now".to_owned()).spawn(move || {
            worker.inbox.kept_up(Upkeep::Prepared(number, prepare(&worker.directory, &order)));
        });
        match started {
            Ok(thread) => self.threads.push(thread),
            Err(error) => {
                let error = Error::new(Operation::SetUp, "the thread that prepares segments", error);
                shared.inbox.kept_up(Upkeep::Prepared(number, Err(error)));
            }
        }
    }

    /// Sees to it that the log gets what this plan reads, and all else of the copy that it begins.
    ///
    /// # Errors
    /// If the thread cannot be started: then nothing has happened.
    pub fn copy(&mut self, plan: ReadPlan) -> Result<(), Error> {
        self.threads.retain(|thread| !thread.is_finished());
        let Some(shared) = self.shared.upgrade() else { return Ok(()) };
        let stopping = Arc::clone(&self.stopping);
        let started = Builder::new().name("wal-copy".to_owned()).spawn(move || copier::copy(&shared, plan, &stopping));
        let thread = started.map_err(|error| Error::new(Operation::SetUp, "the thread that copies forward", error))?;
        self.threads.push(thread);
        Ok(())
    }
}

impl Drop for Preparer {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Relaxed);
        self.orders = None;
        for thread in self.threads.drain(..) {
            if thread.join().is_err() && !std::thread::panicking() {
                panic!("a thread that prepares segments, or copies, panicked");
            }
        }
    }
}

fn work(shared: &Shared, incoming: &Receiver<Order>, stopping: &AtomicBool) {
    while let Ok(order) = incoming.recv() {
        if stopping.load(Ordering::Relaxed) {
            return;
        }
        shared.inbox.kept_up(match order {
            Order::Prepare(order) => Upkeep::Prepared(order.header.number, prepare(&shared.directory, &order)),
            Order::Remove(order) => Upkeep::Removed(order.number, remove(&shared.directory, &order)),
        });
    }
}
