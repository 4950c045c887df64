//! What a script that lets time pass or disks and network work tells: each step, and what came of it.
//!
//! Heartbeats that change nothing, and the answers to them, are counted; a count stands before whatever else happens
//! after them. All else has a line of its own.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::raft::{Body, Message, Status};
use crate::sim::replicas::Step;
use crate::types::NodeId;

use super::super::cluster::Cluster;
use super::super::words::{self, show};
use super::show_event;

pub(super) struct Trace<'a> {
    output: &'a mut String,
    /// Which tick it is, if time passes; and which one the output has told.
    tick: u32,
    tick_told: u32,
    /// The first of those that time passes at: with it a tick begins.
    first: Option<NodeId>,
    last: Option<Beat>,
    /// Quiet ones, since something else happened: what, and how often.
    quiet: BTreeMap<String, u32>,
}

/// A heartbeat or an answer to one that is being delivered. Quiet if it turns out to change nothing.
struct Beat {
    line: String,
    kind: String,
    to: NodeId,
    is_question: bool,
    /// Nothing, if it is lost.
    before: Option<Condition>,
}

/// What of a node a beat may change.
#[derive(PartialEq)]
struct Condition {
    status: Status,
    persists: usize,
    fetches: usize,
    /// Messages on their way, and those that wait for the disk here.
    said: usize,
}

impl<'a> Trace<'a> {
    pub(super) fn new(output: &'a mut String) -> Trace<'a> {
        Trace { output, tick: 0, tick_told: 0, first: None, last: None, quiet: BTreeMap::new() }
    }

    /// Called before each step: what came of the one before can be seen.
    pub(super) fn look(&mut self, cluster: &mut Cluster, step: Step<'_>) {
        self.end_step(cluster, usize::from(matches!(step, Step::Message(_))));
        match step {
            Step::Tick(id) => {
                let first = *self.first.get_or_insert(id);
                self.tick += u32::from(first == id);
            }
            Step::Persist(id, persist) => self.tell(&words::show_persist(id, persist)),
            Step::Fetch(id, fetch) => self.tell(&format!("{id} reads from {} for {}", fetch.from, fetch.peer)),
            Step::Apply(id, last) => self.tell(&format!("{id} applies up to {last}")),
            Step::Message(message) => self.message(cluster, message),
            Step::Install(id, base) => self.tell(&format!("{id} fetches the snapshot at {}", base.point)),
        }
    }

    /// After the last step.
    pub(super) fn end(mut self, cluster: &mut Cluster) {
        self.end_step(cluster, 0);
        self.tell_quiet();
    }

    fn message(&mut self, cluster: &Cluster, message: &Message) {
        let arrives = cluster.arrives(message);
        let line = format!("{}{}", show(message), if arrives { "" } else { " (lost)" });
        let (name, is_question) = match message.body {
            Body::Heartbeat { .. } => ("Heartbeat", true),
            Body::HeartbeatReply { .. } => ("HeartbeatReply", false),
            _ => return self.tell(&line),
        };
        let kind = format!("{}→{} {name}{}", message.from, message.to, if arrives { "" } else { " (lost)" });
        let before = arrives.then(|| condition(cluster, message.to));
        self.last = Some(Beat { line, kind, to: message.to, is_question, before });
    }

    /// What came of the last step. Since then so many messages were taken out of the network.
    fn end_step(&mut self, cluster: &mut Cluster, taken: usize) {
        let events = what_happened(cluster);
        if let Some(beat) = self.last.take() {
            let has_changed = beat.before.is_some_and(|before| {
                let after = condition(cluster, beat.to);
                let expected = before.said + usize::from(beat.is_question);
                Condition { said: expected, ..before } != Condition { said: after.said + taken, ..after }
            });
            match events.is_empty() && !has_changed {
                true => *self.quiet.entry(beat.kind).or_default() += 1,
                false => self.tell(&beat.line),
            }
        }
        events.iter().for_each(|line| self.tell(line));
    }

    fn tell(&mut self, line: &str) {
        self.tell_quiet();
        if self.tick > self.tick_told {
            self.tick_told = self.tick;
            writeln!(self.output, "tick {}", self.tick).expect("a string takes all");
        }
        writeln!(self.output, "{line}").expect("a string takes all");
    }

    fn tell_quiet(&mut self) {
        let counted = std::mem::take(&mut self.quiet).into_iter();
        let counted: Vec<String> = counted.map(|(kind, count)| format!("{kind} ×{count}")).collect();
        if !counted.is_empty() {
            writeln!(self.output, "… {}", counted.join(", ")).expect("a string takes all");
        }
    }
}

fn condition(cluster: &Cluster, id: NodeId) -> Condition {
    let node = &cluster.nodes[&id];
    Condition {
        status: cluster.replica(id).status(),
        persists: node.persists.len(),
        fetches: node.fetches.len(),
        said: node.held.len() + cluster.network.len(),
    }
}

/// Events and answers since the last time.
pub(super) fn what_happened(cluster: &mut Cluster) -> Vec<String> {
    let events = cluster.events.drain(..).map(|(id, event)| format!("  {id} {}", show_event(&event)));
    let mut lines: Vec<String> = events.collect();
    let ready = cluster.reads_ready.drain(..);
    lines.extend(ready.map(|(id, ready)| format!("  {id} read {} is ready at {}", ready.token.0, ready.index)));
    let refused = cluster.reads_refused.drain(..);
    lines.extend(refused.map(|(id, token)| format!("  {id} read {} is refused", token.0)));
    lines
}
