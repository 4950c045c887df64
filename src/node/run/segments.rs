//! The thread that makes segments ahead of need, and removes those whose room goes back to the disk.

use std::sync::Arc;
use std::sync::mpsc::Sender;

use tokio::sync::Notify;

use super::workers::Worker;
use crate::disk::{self, Directory};
use crate::node::driver::Input;
use crate::wal::{self, Prepare, Remove};

pub(super) enum Order {
    Prepare(Prepare),
    Remove(Remove),
}

pub(super) fn start(
    directory: &Directory,
    results: &Sender<Input>,
    woken: &Arc<Notify>,
) -> Result<Worker<Order>, disk::Error> {
    let files = directory.clone();
    Worker::start("prepare", results, woken, move |order| match order {
        Order::Prepare(order) => Input::Prepared { number: order.header.number, result: wal::prepare(&files, &order) },
        Order::Remove(order) => {
            let result = wal::remove(&files, &order);
            if let Err(error) = &result {
                tracing::warn!("a segment that nobody needs could not be removed, the next start tries again: {error}");
            }
            Input::Removed { number: order.number, result }
        }
    })
}
