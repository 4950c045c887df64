//! What goes wrong, and when.

use bytes::BytesMut;

use super::cluster::{Happening, Simulation};
use super::disk::Code;
use super::node::{Node, Process, SEGMENT_BYTES, SPACE_BYTES, node_id};
use super::scenario::{MILLISECOND, SECOND};
use super::trace::Label;
use crate::disk::Files;
use crate::limits::SNAPSHOTS_KEPT;
use crate::net::{self, Change, Request, RequestBody, Response, ResponseBody};
use crate::node::driver::LOG_DIRECTORY;
use crate::raft::Role;
use crate::snapshot::{self, Manifest};
use crate::superblock;
use crate::types::{GroupId, LogId};
use crate::wal::{Analysis, Source};

/// A kind of fault, as the options weigh them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fault {
    Crash,
    Cut,
    Kill,
    Blackout,
    Ambush,
    Pause,
    Partition,
    Isolation,
    SlowDisk,
    WriteError,
    Rot,
    FullDisk,
    FullDisks,
    Transfer,
    SnapshotRot,
    Absence,
}

impl Simulation {
    /// The next fault, and when the one behind it comes.
    pub(super) fn fault(&mut self) {
        if self.calm_since.is_some() {
            return;
        }
        let after = self.random.between(self.options.fault_interval / 4, 2 * self.options.fault_interval);
        self.order(after, Happening::Fault);
        let fault = self.draw_fault();
        let node = self.random.below(self.nodes.len() as u64) as usize;
        self.note(Label::Fault, &[self.now, fault as u64, node as u64], &[]);
        match fault {
            Fault::Crash => self.crash(node),
            Fault::Cut => self.cut_soon(node),
            Fault::Kill => self.kill(node),
            Fault::Blackout => self.blackout(),
            Fault::Ambush => self.ambushes = self.random.between(1, 5),
            Fault::Pause => self.nodes[node].paused_until = self.now + self.random.below(2 * SECOND),
            Fault::Partition => self.part(node, true),
            Fault::Isolation => (0..self.nodes.len()).for_each(|_| self.part(node, false)),
            Fault::SlowDisk => self.nodes[node].slow_until = self.now + self.random.below(2 * SECOND),
            Fault::WriteError => self.fail_write(node),
            Fault::Rot => self.rot(node),
            Fault::FullDisk => self.fill(node),
            Fault::FullDisks => self.majority().iter().for_each(|node| self.fill(*node)),
            Fault::Transfer => self.ask_transfer(node),
            Fault::SnapshotRot => self.rot_snapshot(node),
            Fault::Absence => self.send_away(node),
        }
    }

    fn draw_fault(&mut self) -> Fault {
        let weights = &self.options.faults;
        let table = [
            (Fault::Crash, weights.crash),
            (Fault::Cut, weights.cut),
            (Fault::Kill, weights.kill),
            (Fault::Blackout, weights.blackout),
            (Fault::Ambush, weights.ambush),
            (Fault::Pause, weights.pause),
            (Fault::Partition, weights.partition),
            (Fault::Isolation, weights.isolation),
            (Fault::SlowDisk, weights.slow_disk),
            (Fault::WriteError, weights.write_error),
            (Fault::Rot, weights.rot),
            (Fault::FullDisk, weights.full_disk),
            (Fault::FullDisks, weights.full_disks),
            (Fault::Transfer, weights.transfer),
            (Fault::SnapshotRot, weights.snapshot_rot),
            (Fault::Absence, weights.absence),
        ];
        let mut draw = self.random.below(table.iter().map(|(_, weight)| weight).sum());
        for (fault, weight) in table {
            if draw < weight {
                return fault;
            }
            draw -= weight;
        }
        unreachable!("the draw is below the sum of the weights")
    }

    /// The power goes, now: what was not flushed survives or not.
    pub(super) fn crash(&mut self, node: usize) {
        if self.nodes[node].process.is_none() {
            return;
        }
        self.nodes[node].disk.crash(&mut self.random);
        self.report.crashes += 1;
        self.ended(node);
    }

    /// Where the power went in the midst of an operation, the machine falls.
    pub(super) fn cut_where_power_went(&mut self) {
        for node in 0..self.nodes.len() {
            if self.nodes[node].disk.is_off() {
                if self.is_process_struck(node) {
                    self.kill(node);
                    continue;
                }
                self.nodes[node].disk.crash(&mut self.random);
                self.report.crashes += 1;
                self.ended(node);
            }
        }
    }

    /// The process ends, and nothing else.
    pub(super) fn kill(&mut self, node: usize) {
        if self.nodes[node].process.is_none() {
            return;
        }
        self.nodes[node].disk.kill(&mut self.random);
        self.report.kills += 1;
        self.ended(node);
    }

    /// The process ends, and nobody starts it for seconds.
    fn send_away(&mut self, node: usize) {
        let is_down = |node: &Node| node.process.is_none() && !node.is_gone && !node.is_out;
        if self.nodes.iter().any(is_down) || self.nodes[node].process.is_none() {
            return;
        }
        self.nodes[node].disk.kill(&mut self.random);
        self.report.kills += 1;
        self.report.absences += 1;
        self.nodes[node].end();
        let after = self.random.between(2 * SECOND, 5 * SECOND);
        self.order(after, Happening::Restart { node });
    }

    fn ended(&mut self, node: usize) {
        self.nodes[node].end();
        let down_time_max = if self.calm_since.is_some() { MILLISECOND } else { self.down_time_max() };
        let after = self.random.below(down_time_max);
        self.order(after, Happening::Restart { node });
    }

    /// Mostly short: a cluster that is down all the time has nothing to lose.
    fn down_time_max(&mut self) -> u64 {
        *self.random.pick(&[MILLISECOND, 20 * MILLISECOND, 200 * MILLISECOND, SECOND])
    }

    fn cut_soon(&mut self, node: usize) {
        if self.nodes[node].process.is_some() {
            let disk = &self.nodes[node].disk;
            disk.crash_at(disk.operations() + self.random.below(20));
        }
    }

    fn blackout(&mut self) {
        self.majority().iter().for_each(|node| self.crash(*node));
    }

    /// More than half of the nodes, any.
    fn majority(&mut self) -> Vec<usize> {
        let mut nodes: Vec<usize> = (0..self.nodes.len()).collect();
        self.random.shuffle(&mut nodes);
        let count = self.random.between(nodes.len() as u64 / 2 + 1, nodes.len() as u64 + 1);
        nodes.truncate(count as usize);
        nodes
    }

    /// For a while files can hardly grow.
    fn fill(&mut self, node: usize) {
        let time = self.random.between(SECOND / 2, 4 * SECOND);
        let left = self.random.below(2 * SEGMENT_BYTES);
        self.nodes[node].full_until = self.now + time;
        self.nodes[node].disk.set_capacity(self.nodes[node].disk.used_bytes() + left);
        self.report.full_disks += 1;
        self.order(time, Happening::Room { node });
    }

    pub(super) fn make_room(&mut self, node: usize) {
        if self.now >= self.nodes[node].full_until {
            self.nodes[node].disk.set_capacity(SPACE_BYTES);
        }
    }

    /// A process that found no room to start in has ended; whoever keeps it tries again.
    pub(super) fn start_later(&mut self, node: usize) {
        self.nodes[node].disk.kill(&mut self.random);
        self.report.starts_refused += 1;
        let after = self.random.between(MILLISECOND, 500 * MILLISECOND);
        self.order(after, Happening::Restart { node });
    }

    /// An operator asks every node that believes to lead to hand over to this one, or to the one behind itself.
    fn ask_transfer(&mut self, to: usize) {
        let operator = self.clients.len();
        for node in 0..self.nodes.len() {
            let leads = |process: &Process| process.driver.replica().status().role == Role::Leader;
            if !self.nodes[node].process.as_ref().is_some_and(leads) {
                continue;
            }
            let to = if to == node { (node + 1) % self.nodes.len() } else { to };
            let request = Request { id: 0, body: RequestBody::Change(Change::Transfer(node_id(to))) };
            let mut bytes = BytesMut::new();
            net::put_request(&mut bytes, &request);
            self.note(Label::Request, &[self.now, operator as u64, node as u64], &bytes);
            for arrival in self.network.copies(self.now) {
                let request = request.clone();
                self.order(arrival - self.now, Happening::Request { node, client: operator, request });
            }
        }
    }

    /// The node has begun to hand over, or not.
    pub(super) fn operator_answered(&mut self, response: &Response) {
        self.report.transfers += u64::from(matches!(response.body, ResponseBody::Changed { .. }));
    }

    /// One direction between this node and another is silent, or both are.
    fn part(&mut self, node: usize, one_way: bool) {
        let other = self.random.below(self.nodes.len() as u64) as usize;
        let until = self.now + self.random.below(2 * SECOND);
        self.network.silence(node, other, until);
        if !one_way {
            self.network.silence(other, node, until);
        }
    }

    fn fail_write(&mut self, node: usize) {
        let pending = self.nodes[node].disk.pending();
        if pending.is_empty() || self.nodes[node].process.is_none() {
            return;
        }
        let at = self.random.below(pending.len() as u64) as usize;
        let code = *self.random.pick(&[Code::Io, Code::NoSpace]);
        self.nodes[node].has_failing_disk = true;
        self.nodes[node].disk.fail(at, code, &mut self.random);
        self.report.write_errors += 1;
    }

    /// A process ends, and a bit of one of its snapshots turns.
    fn rot_snapshot(&mut self, node: usize) {
        let Some(process) = &self.nodes[node].process else { return };
        let disk = self.nodes[node].disk.clone();
        let files = disk.files();
        let Ok(listing) = snapshot::list(&files, None) else { return };
        let names: Vec<String> = listing.whole(GroupId::CLUSTER).map(|whole| whole.description.name()).collect();
        // Where its log does not reach back to the first entry, a node needs one of those that it can begin from.
        let replica = process.driver.replica();
        let durable = replica.status().durable.index;
        let log_start = superblock::inspect(&files).map(|found| found.state.group(GroupId::CLUSTER).log_start);
        let mut newest: Vec<LogId> = listing.whole(GroupId::CLUSTER).map(|whole| whole.description.point).collect();
        newest.sort_by_key(|point| std::cmp::Reverse(point.index));
        newest.truncate(SNAPSHOTS_KEPT);
        // A purge goes no further than both: only a log that was begun anew lies behind one of them.
        let ought_to_be = |point: LogId| {
            let begins = log_start.as_ref().is_ok_and(|start| point.index.next() >= *start);
            point.index < replica.first_index() && newest.contains(&point) && begins
        };
        let is_in_log = |point: LogId| {
            point.index <= durable && (replica.term_at(point.index) == Some(point.term) || ought_to_be(point))
        };
        let is_intact = |whole: &Manifest| snapshot::verify(&files, whole).is_ok_and(|bad| bad.is_empty());
        let is_usable = |whole: &&Manifest| is_in_log(whole.description.point) && is_intact(whole);
        let is_needed = || listing.whole(GroupId::CLUSTER).filter(is_usable).count() < 2;
        if names.is_empty() || (self.options.purge.is_some() && is_needed()) {
            return;
        }
        self.kill(node);
        let name = self.snapshot_random.pick(&names);
        let file = format!("{name}/{}", self.snapshot_random.pick(&["chunks", "chunks", "manifest"]));
        let offset = self.snapshot_random.below(disk.contents(&file).len() as u64);
        disk.flip_bit(&file, offset, self.snapshot_random.below(8) as u32);
        self.nodes[node].has_rotten_snapshot = true;
        self.report.snapshots_rotten += 1;
    }

    /// The end of a log that was proven to be on the disk turns to zeros.
    fn rot(&mut self, node: usize) {
        let damaged = self.nodes.iter().filter(|node| node.is_rotten).count();
        // Without one of its first members a cluster is not born.
        let is_spared = !self.is_born() || self.nodes[node].is_rotten || !self.may_lose(node);
        let is_half = self.operator.is_none() && 2 * (damaged + 1) >= self.nodes.len();
        if is_spared || is_half || self.nodes[node].process.is_none() {
            return;
        }
        let disk = self.nodes[node].disk.clone();
        self.kill(node);
        let files = disk.files();
        let Ok(inspected) = superblock::inspect(&files) else { return };
        let evidence = inspected.state.durable_end;
        let source = Source { evidence, ..Source::from_outside(LOG_DIRECTORY) };
        let Ok(analysis) = Analysis::read(&files, &source) else { return };
        let Some(last) = analysis.chain.last().filter(|last| last.header.number == evidence.segment) else { return };
        let name = last.name(LOG_DIRECTORY);
        let Ok(length) = files.length(last.file) else { return };
        let block = crate::limits::BLOCK_BYTES as u64;
        // Behind header and open frame, where a frame begins for certain; or one block, perhaps in a frame's midst.
        let from = if self.random.chance(700) { 2 * block } else { evidence.offset - block };
        if from >= evidence.offset {
            return;
        }
        disk.zero(&name, from..length);
        self.nodes[node].is_rotten = true;
        self.report.rotten += 1;
    }
}
