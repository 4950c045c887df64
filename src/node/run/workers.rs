//! The threads around a driver: what would hold it up is done there.

use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

use tokio::sync::Notify;

use crate::disk;
use crate::node::driver::{Input, ReadNumber};
use crate::types::Entry;
use crate::wal;

/// Reads of the log: on one thread what the cluster waits for, on another what clients do, so that they hold up nobody.
pub(super) struct Readers<P> {
    for_cluster: Worker<(ReadNumber, P)>,
    for_clients: Worker<(ReadNumber, P)>,
}

impl<P: Send + 'static> Readers<P> {
    pub fn start(
        results: &Sender<Input>,
        woken: &Arc<Notify>,
        run: impl FnMut(P) -> Result<Vec<Entry>, wal::Error> + Clone + Send + 'static,
    ) -> Result<Readers<P>, disk::Error> {
        let worker = |name: &str| {
            let mut run = run.clone();
            let work = move |(read, plan): (ReadNumber, P)| Input::ReadDone { read, result: run(plan) };
            Worker::start(name, results, woken, work)
        };
        Ok(Readers { for_cluster: worker("read")?, for_clients: worker("read for clients")? })
    }

    pub fn order(&mut self, read: ReadNumber, plan: P, is_for_client: bool) {
        match is_for_client {
            true => self.for_clients.order((read, plan)),
            false => self.for_cluster.order((read, plan)),
        }
    }
}

/// A thread that does one kind of work in order. What is ordered is bounded by the driver.
pub(super) struct Worker<T> {
    orders: Option<Sender<T>>,
    thread: Option<JoinHandle<()>>,
}

impl<T: Send + 'static> Worker<T> {
    pub fn start(
        name: &str,
        results: &Sender<Input>,
        woken: &Arc<Notify>,
        mut work: impl FnMut(T) -> Input + Send + 'static,
    ) -> Result<Worker<T>, disk::Error> {
        let (orders, ordered) = channel::<T>();
        let (results, woken) = (results.clone(), woken.clone());
        let body = move || {
            for order in ordered {
                if results.send(work(order)).is_err() {
                    return;
                }
                woken.notify_one();
            }
        };
        let spawned = std::thread::Builder::new().name(name.to_owned()).spawn(body);
        let thread = spawned.map_err(|error| disk::Error::new(disk::Operation::SetUp, name, error))?;
        Ok(Worker { orders: Some(orders), thread: Some(thread) })
    }

    pub fn order(&mut self, order: T) {
        let sent = self.orders.as_ref().map(|orders| orders.send(order));
        assert!(matches!(sent, Some(Ok(()))), "the worker lives as long as the node, unless it panicked");
    }
}

impl<T> Drop for Worker<T> {
    fn drop(&mut self) {
        drop(self.orders.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("a worker thread panicked");
        }
    }
}

#[cfg(test)]
mod tests;
