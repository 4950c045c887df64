//! The calm at the end of a run: how the world is mended, when all has come to rest, and what must hold then.

use super::clients::Client;
use super::cluster::{Happening, Simulation};
use super::members::Operator;
use super::node::{Node, SPACE_BYTES};
use super::oracles::{Broken, Oracle};
use super::scenario::{DiskOptions, MILLISECOND};
use super::{Report, recovery};

/// How often it is looked whether all has come to rest.
pub(super) const LOOK_INTERVAL: u64 = 20 * MILLISECOND;

impl Simulation {
    pub(super) fn calm(&mut self) {
        self.calm_since = Some(self.now);
        self.ambushes = 0;
        self.end_aim();
        self.network.calm();
        self.disk = DiskOptions::calm();
        self.clients.iter_mut().for_each(Client::wind_down);
        for node in &mut self.nodes {
            (node.paused_until, node.slow_until) = (0, 0);
            // A cut that was ordered and has not come does not come any more.
            node.disk.crash_at(u64::MAX);
            node.full_until = 0;
            node.disk.set_capacity(SPACE_BYTES);
        }
        (0..self.nodes.len()).for_each(|node| self.order(0, Happening::Restart { node }));
        self.order(LOOK_INTERVAL, Happening::Look);
    }

    /// Every client has all its answers, and all nodes that can be are in the same state.
    pub(super) fn is_at_rest(&self) -> bool {
        let committed = self.oracles.invariants.committed();
        let at_end = |(at, node): (usize, &Node)| match &node.process {
            _ if !self.is_wanted(at) => true,
            Some(process) => process.driver.applied().0.index == committed && process.driver.is_idle(),
            None => node.is_out,
        };
        let has_changed = self.is_in_force() && self.operator.as_ref().is_none_or(Operator::has_ended);
        let has_tailed = !self.options.tails || self.oracles.last_acknowledged() < self.follower.next;
        self.clients.iter().all(Client::is_done)
            && self.nodes.iter().enumerate().all(at_end)
            && has_tailed
            && has_changed
    }

    pub(super) fn check_time(&self) -> Result<(), Broken> {
        let since = self.calm_since.expect("it is looked for rest in the calm");
        if self.now < since + self.options.calm_time_max {
            return Ok(());
        }
        let node = |(at, node): (usize, &Node)| match &node.process {
            Some(process) => format!("node {}: {:?}", at + 1, process.driver.replica().status()),
            None => format!("node {} is down", at + 1),
        };
        let nodes: Vec<String> = self.nodes.iter().enumerate().map(node).collect();
        let clients: Vec<String> = self.clients.iter().filter(|client| !client.is_done()).map(Client::state).collect();
        let committed = self.oracles.invariants.committed();
        let tailed = self.follower.next;
        let (nodes, clients) = (nodes.join("; "), clients.join("; "));
        let operator = self.operator.as_ref().map(Operator::state).unwrap_or_default();
        let explanation = format!("no rest; committed {committed}, tailed to {tailed}; {nodes}; {clients}; {operator}");
        Err(Broken::new(Oracle::Progress, explanation))
    }

    /// At the end every node shows its whole log, and all that was acknowledged is there.
    pub(super) fn audit(&mut self) -> Result<(), Broken> {
        for node in 0..self.nodes.len() {
            self.take_what_came(node)?;
            let Some(mut process) = self.nodes[node].process.take() else { continue };
            recovery::check_log(&mut process, &self.oracles)?;
            self.oracles.check_sessions(&process.driver)?;
        }
        Ok(())
    }

    /// What has come to a node, and was not looked at when all had come to rest, may commit more, such as a trim. It is
    /// dealt with here, where the rules are told of it; else the node would deal with it while its log is read.
    fn take_what_came(&mut self, node: usize) -> Result<(), Broken> {
        while self.nodes[node].run_is_due && self.nodes[node].process.is_some() {
            let life = self.nodes[node].life;
            self.run_driver(node, life)?;
        }
        Ok(())
    }

    /// What the run was.
    pub(super) fn into_report(self) -> Report {
        let mut times: Vec<u64> = self.clients.iter().flat_map(|client| &client.times).copied().collect();
        times.sort_unstable();
        let time = |per_cent: usize| times.get(times.len() * per_cent / 100).copied().unwrap_or_default();
        let trace = *self.trace.borrow();
        Report {
            seed: self.seed,
            nodes: self.options.nodes as u64,
            steps: self.steps,
            events: trace.events(),
            trace_hash: trace.hash(),
            simulated_milliseconds: self.now / MILLISECOND,
            acknowledged_records: self.oracles.acknowledged_records(),
            committed_entries: self.oracles.invariants.committed().0,
            resent: self.clients.iter().map(|client| client.resent).sum(),
            refused_no_space: self.clients.iter().map(|client| client.refused_no_space).sum(),
            refused_busy: self.clients.iter().map(|client| client.refused_busy).sum(),
            answer_times: (time(50), time(99)),
            sessions_gone: self.oracles.sessions.gone,
            renumbered: self.clients.iter().map(|client| client.renumbered).sum(),
            given_up: self.clients.iter().map(|client| client.given_up).sum(),
            failed: self.clients.iter().map(|client| client.failed).sum(),
            numbers_given_again: self.oracles.copies.given_again,
            reads_checked: self.clients.iter().map(|client| client.reads).sum(),
            messages_lost: self.network.lost,
            messages_duplicated: self.network.duplicated,
            ..self.report
        }
    }
}
