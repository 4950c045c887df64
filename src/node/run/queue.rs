//! The way to the disk that was chosen.

use std::sync::Arc;

use tokio::sync::Notify;

use crate::disk::{self, Backend, BlockingQueue, Completion, Directory, Queue, SyncMode, UringQueue, Write};

pub(super) enum AnyQueue {
    Uring(UringQueue),
    Blocking(BlockingQueue),
}

impl AnyQueue {
    pub fn new(
        directory: &Directory,
        backend: Backend,
        sync_mode: SyncMode,
        woken: &Arc<Notify>,
    ) -> Result<AnyQueue, disk::Error> {
        let woken = woken.clone();
        let wake = Box::new(move || woken.notify_one());
        Ok(match backend {
            Backend::Uring => AnyQueue::Uring(UringQueue::new(directory.clone(), sync_mode, wake)),
            Backend::Blocking => AnyQueue::Blocking(BlockingQueue::new(directory.clone(), sync_mode, wake)?),
        })
    }

    pub fn submit(&mut self, write: Write) {
        match self {
            AnyQueue::Uring(queue) => queue.submit(write),
            AnyQueue::Blocking(queue) => queue.submit(write),
        }
    }

    pub fn hand_over(&mut self) {
        match self {
            AnyQueue::Uring(queue) => queue.hand_over(),
            AnyQueue::Blocking(queue) => queue.hand_over(),
        }
    }

    pub fn take(&mut self) -> Option<Completion> {
        match self {
            AnyQueue::Uring(queue) => queue.take(),
            AnyQueue::Blocking(queue) => queue.take(),
        }
    }
}
