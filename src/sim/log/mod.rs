//! One log on a simulated disk, and beside it a model of what it must hold: for the log's own tests and for the fuzz
//! targets.
//!
//! ```text
//!   Rig: append, truncate, purge ──▶ Log ──▶ Effect ──▶ SimQueue, prepare ──▶ SimDisk
//!                │                                                             │ crash, kill, fail
//!                ▼                                                             ▼
//!   Model: a state after each ticket ◀────── must be one of them ────── what the log says, opened again
//! ```
//!
//! What is recovered must be the state after the last acknowledged ticket or after a later one, whole: so nothing
//! acknowledged is lost or changed, and what was not acknowledged is there in order and by whole batches, or not at
//! all. Whatever contradicts that panics.

pub(crate) mod model;
pub(crate) mod rig;

use super::disk::SimDisk;
use crate::disk::Queue;
use crate::wal::{Effect, Log, prepare, remove};

/// All that the log wants now is done, and reported to it: once, since more may come of it.
pub(crate) fn carry_out(disk: &SimDisk, queue: &mut impl Queue, log: &mut Log) {
    while let Some(effect) = log.take_effect() {
        match effect {
            Effect::Write(write) => queue.submit(write),
            Effect::Prepare(order) => log.prepared(order.header.number, prepare(&disk.files(), &order)),
            Effect::Remove(order) => log.removed(order.number, &remove(&disk.files(), &order)),
        }
    }
    disk.complete_all();
    while let Some(completion) = queue.take() {
        log.completed(completion).expect("nothing is wrong with the disk");
    }
}
