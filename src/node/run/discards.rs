//! The thread that drops states which nobody needs any more.
//!
//! To drop one of a GiB takes a second, and its memory is wanted: so neither the core's thread does it, nor the one that writes
//! snapshots, which may be at one for half a minute.

use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

use crate::disk;

pub(super) struct Discards {
    orders: Option<Sender<Box<dyn Send>>>,
    thread: Option<JoinHandle<()>>,
}

impl Discards {
    pub fn start() -> Result<Discards, disk::Error> {
        let (orders, ordered) = channel::<Box<dyn Send>>();
        let body = move || ordered.into_iter().for_each(drop);
        let spawned = std::thread::Builder::new().name("discard".to_owned()).spawn(body);
        let thread = spawned.map_err(|error| disk::Error::new(disk::Operation::SetUp, "discard", error))?;
        Ok(Discards { orders: Some(orders), thread: Some(thread) })
    }

    /// Drops this on the thread.
    pub fn order(&self, what: Box<dyn Send>) {
        let sent = self.orders.as_ref().map(|orders| orders.send(what));
        assert!(matches!(sent, Some(Ok(()))), "the thread lives as long as the node, unless it panicked");
    }
}

impl Drop for Discards {
    fn drop(&mut self) {
        drop(self.orders.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that drops states panicked");
        }
    }
}
