//! How nodes start, and what is looked at then.

use super::cluster::{Happening, Simulation};
use super::node::{Process, driver_options, incarnation, is_no_space, node_id, start};
use super::oracles::{Broken, Oracle};
use super::recovery;
use super::scenario::MILLISECOND;
use crate::machine::Map;
use crate::node::driver::Started;
use crate::wal::ReadBuffer;

impl Simulation {
    pub(super) fn restart(&mut self, node: usize) -> Result<(), Broken> {
        if self.nodes[node].process.is_some() || self.nodes[node].is_out || self.nodes[node].is_gone {
            return Ok(());
        }
        // Another life draws other numbers: an answer to the one before must not pass for one to this.
        let life = self.nodes[node].identity.incarnation.0 ^ incarnation(node_id(node)).0;
        let options = driver_options(&self.options, node, self.seed ^ life.rotate_left(20));
        let is_full = self.nodes[node].full_until > self.now;
        let is_repeated = self.calm_since.is_none() && self.random.chance(150) && !self.nodes[node].is_rotten;
        if is_repeated && !is_full {
            recovery::check_repeated(&self.nodes[node].disk, &options, &mut self.random)?;
            self.report.recoveries_repeated += 1;
        }
        let disk = self.nodes[node].disk.clone();
        if self.calm_since.is_none() && self.random.chance(50) {
            disk.crash_at(disk.operations() + self.random.below(60));
        }
        self.take_aim(node);
        match start(&disk, &options, self.now / MILLISECOND) {
            Ok(started) => {
                self.check_begun(node, &started)?;
                self.oracles.invariants.started(started.driver.replica())?;
                let (files, queue, read_buffer) = (disk.files(), disk.queue(), ReadBuffer::default());
                let node_state = &mut self.nodes[node];
                let (driver, boot) = (started.driver, started.boot);
                node_state.process = Some(Process::new(driver, boot, files, queue, read_buffer));
                let life = node_state.life;
                self.report.starts += 1;
                if self.options.links || !self.is_born() {
                    self.meet(node);
                }
                self.order(self.seed % 7, Happening::Tick { node, life });
                self.run_soon(node);
            }
            Err(_) if disk.is_off() => {}
            Err(error) if is_full && is_no_space(&error) => self.start_later(node),
            Err(_) if self.nodes[node].is_rotten => self.nodes[node].is_out = true,
            Err(error) => {
                let explanation = format!("node {} does not start: {error}", node_id(node));
                return Err(Broken::new(Oracle::Recovery, explanation));
            }
        }
        Ok(())
    }

    /// A node has begun from a snapshot or not, and what it says of others is true.
    fn check_begun(&mut self, node: usize, started: &Started<Map>) -> Result<(), Broken> {
        // Then it is started again.
        if self.nodes[node].disk.is_off() {
            return Ok(());
        }
        self.report.snapshots_loaded += u64::from(started.snapshot.is_some());
        let findings: Vec<String> = started.snapshot_findings.iter().map(ToString::to_string).collect();
        if !findings.is_empty() && !self.nodes[node].has_rotten_snapshot {
            let explanation = format!("node {} says: {}, and nothing was damaged", node_id(node), findings.join("; "));
            return Err(Broken::new(Oracle::Recovery, explanation));
        }
        self.oracles.check_node(&started.driver)
    }
}
