//! The threads that make segments ahead of need, and remove those whose room goes back to the disk.

use std::sync::Arc;
use std::sync::mpsc::Sender;

use tokio::sync::Notify;

use super::workers::Worker;
use crate::disk::{self, Directory};
use crate::node::driver::Input;
use crate::wal::{self, Fill, Prepare, Remove};

/// What somebody waits for does not queue behind segments that are filled with zeros ahead.
pub(super) struct Segments {
    ahead: Worker<Order>,
    at_once: Worker<Order>,
}

enum Order {
    Prepare(Prepare),
    Remove(Remove),
}

impl Segments {
    pub fn start(directory: &Directory, results: &Sender<Input>, woken: &Arc<Notify>) -> Result<Segments, disk::Error> {
        let worker = |name| {
            let files = directory.clone();
            Worker::start(name, results, woken, move |order| carry_out(&files, order))
        };
        Ok(Segments { ahead: worker("prepare")?, at_once: worker("prepare at once")? })
    }

    pub fn prepare(&mut self, order: Prepare) {
        let worker = if order.fill == Fill::Zeros { &mut self.ahead } else { &mut self.at_once };
        worker.order(Order::Prepare(order));
    }

    pub fn remove(&mut self, order: Remove) {
        self.ahead.order(Order::Remove(order));
    }
}

fn carry_out(files: &Directory, order: Order) -> Input {
    match order {
        Order::Prepare(order) => Input::Prepared { number: order.header.number, result: wal::prepare(files, &order) },
        Order::Remove(order) => {
            let result = wal::remove(files, &order);
            match &result {
                Err(error) => {
                    let (number, next_step) = (order.number.0, error.next_step());
                    tracing::warn!(
                        number,
                        next_step,
                        "a segment of the log that nobody needs could not be removed, and is tried again: {error}"
                    );
                }
                // It could not the last time.
                Ok(()) if order.file.is_none() => {
                    tracing::info!(
                        number = order.number.0,
                        "a segment of the log that could not be removed is removed"
                    );
                }
                Ok(()) => {}
            }
            Input::Removed { number: order.number, result }
        }
    }
}
