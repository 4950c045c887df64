//! What a node's disk does beside the driver: writes that complete, preparations, reads of the log, snapshots.

use super::cluster::{Happening, Simulation};
use super::node::CLUSTER;
use super::scenario::MILLISECOND;
use crate::disk::{self, Token};
use crate::limits::SECTOR_BYTES;
use crate::node::driver::{Input, Made, Making, ReadNumber};
use crate::snapshot::{self, Builder, Reach, Step};
use crate::types::{GroupId, LogId};
use crate::wal::{self, Prepare, ReadPlan, Remove};

/// Small, so that a snapshot has many.
const CHUNK_BYTES: usize = 2 * SECTOR_BYTES;

impl Simulation {
    pub(super) fn written(&mut self, node: usize, life: u64, token: Token) {
        if !self.lives(node, life) {
            return;
        }
        if let Some(completion) = self.nodes[node].complete(token) {
            self.report.writes += 1;
            self.input(node, Input::Written(completion));
        }
    }

    pub(super) fn prepare(&mut self, node: usize, life: u64, order: &Prepare) {
        if !self.lives(node, life) {
            return;
        }
        let files = self.nodes[node].disk.files();
        let result = wal::prepare(&files, order);
        self.report.preparations_refused += u64::from(result.as_ref().is_err_and(disk::Error::is_no_space));
        if !self.nodes[node].disk.is_off() {
            self.input(node, Input::Prepared { number: order.header.number, result });
        }
    }

    pub(super) fn remove(&mut self, node: usize, life: u64, order: &Remove) {
        if !self.lives(node, life) {
            return;
        }
        let result = wal::remove(&self.nodes[node].disk.files(), order);
        self.report.segments_removed += u64::from(result.is_ok());
        if !self.nodes[node].disk.is_off() {
            self.input(node, Input::Removed { number: order.number, result });
        }
    }

    pub(super) fn read(&mut self, node: usize, life: u64, read: ReadNumber, plan: &ReadPlan) {
        if !self.lives(node, life) {
            return;
        }
        let (files, process) = (self.nodes[node].disk.files(), self.nodes[node].process.as_mut());
        let result = plan.run_with(&files, &mut process.expect("this life has not ended").read_buffer);
        if !self.nodes[node].disk.is_off() {
            self.report.log_reads += 1;
            self.input(node, Input::ReadDone { read, result });
        }
    }

    pub(super) fn write_time(&mut self, node: usize) -> u64 {
        let is_slow = self.now < self.nodes[node].slow_until || self.disk.slow_node == Some(node);
        let max = if is_slow { self.disk.slow_time_max } else { self.disk.write_time_max };
        let time = 20 + self.random.below(max);
        time + self.disk.stall.map_or(0, |stall| stall.adds(self.now + time))
    }

    /// A snapshot is begun: a step now and then, among all else that happens.
    pub(super) fn begin_snapshot(&mut self, node: usize, making: Making) -> Happening {
        let Making { description, checkpoint } = making;
        let builder = Box::new(Builder::with_chunks(description, Box::new(checkpoint), CHUNK_BYTES));
        Happening::Snapshot { node, life: self.nodes[node].life, builder, began: self.now }
    }

    pub(super) fn step_snapshot(&mut self, node: usize, life: u64, mut builder: Box<Builder>, began: u64) {
        if !self.lives(node, life) {
            return;
        }
        let files = self.nodes[node].disk.files();
        let point = builder.description().point;
        let said = builder.step(&files, true);
        if self.nodes[node].disk.is_off() {
            return;
        }
        let result = match said {
            Ok(Step::Done) => {
                self.report.snapshots_made += 1;
                Ok(Made {
                    bytes: builder.bytes(),
                    milliseconds: (self.now - began) / MILLISECOND,
                    core_microseconds: 0,
                })
            }
            Ok(Step::Wrote { .. } | Step::Read { .. } | Step::Went | Step::Waits) => {
                let after = self.snapshot_random.below(self.options.snapshots.step_time_max);
                return self.order(after, Happening::Snapshot { node, life, builder, began });
            }
            Err(error) => {
                self.report.snapshots_failed += 1;
                // What is left of it is removed with what is superfluous.
                let _ = builder.abandon(&files);
                Err(error)
            }
        };
        if !self.nodes[node].disk.is_off() {
            self.input(node, Input::SnapshotMade { point, result });
        }
    }

    pub(super) fn remove_snapshots(&mut self, node: usize, life: u64, in_use: LogId, reach: &Reach) {
        if !self.lives(node, life) {
            return;
        }
        let files = self.nodes[node].disk.files();
        let result = snapshot::remove_superfluous(&files, CLUSTER, GroupId::CLUSTER, in_use, reach);
        if !self.nodes[node].disk.is_off() {
            // With it the installation of another node's, if it was one, has ended.
            self.nodes[node].process.iter_mut().for_each(|process| process.installs = false);
            self.input(node, Input::SnapshotsRemoved { result });
        }
    }
}
