//! What becomes of a replica to which anything may be said.
//!
//! ```text
//!   honest cluster ── a copy of one node, its disk among it ──▶ victim ◀── messages that are changed, made up, old,
//!        │                                                        │        meant for others, from strangers
//!        ▼                                                        ▼
//!   all rules hold                                    it does not panic; what cannot be is told, and is the last that is
//!                                                     heard of it; what strangers answer changes nothing; it holds no
//!                                                     more than it heard
//! ```
//!
//! No rule of the protocol is expected to hold for it otherwise: whoever believes a liar may vote, commit and forget as the
//! liar likes. Its disk, its clock and its clients are honest, and it is started again from its disk when it ends.

use std::collections::VecDeque;

use super::choices::Choices;
use super::forged::{self, STRANGER};
use crate::limits::{INDEX_MAX, TERM_MAX};
use crate::raft::{
    AppendOutcome, AppendReply, Base, Body, Change, Event, Input, Message, Output, Persist, PersistNumber, ReadToken,
    Replica, Role, Status,
};
use crate::sim::replica_disk::Disk;
use crate::sim::replicas::{self, Cluster};
use crate::types::{Index, LogId, NodeId, Payload};

/// Bounds on what is done with one victim.
const STEPS_MAX: u64 = 48;
/// What one input may add to a replica, written out, beyond a few times what it heard: the state of a leader, a round of
/// messages.
const GROWTH_MAX: usize = 16 << 10;

/// What was done to victims.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Treason {
    /// Nodes of which a copy was told what an honest node does not say.
    pub victims: u64,
    /// Messages that they heard, honest ones among them.
    pub heard: u64,
    /// Those that made the victim say what cannot be.
    pub contradicted: u64,
    /// Those of them of which it was known before that they cannot be.
    pub expected: u64,
    /// Answers of strangers.
    pub strangers: u64,
    /// Snapshots that were taken from whoever offered them.
    pub installed: u64,
}

impl std::ops::AddAssign for Treason {
    fn add_assign(&mut self, other: Treason) {
        self.victims += other.victims;
        self.heard += other.heard;
        self.contradicted += other.contradicted;
        self.expected += other.expected;
        self.strangers += other.strangers;
        self.installed += other.installed;
    }
}

pub(super) struct Victim<'c> {
    cluster: &'c Cluster,
    replica: Replica,
    disk: Disk,
    persists: VecDeque<Persist>,
    applied: Index,
    offered: Option<Base>,
    /// It ends, and is to say nothing more.
    is_over: bool,
    seed: u64,
    done: Treason,
}

impl<'c> Victim<'c> {
    /// A copy of a node that runs.
    pub fn of(cluster: &'c Cluster, id: NodeId) -> Victim<'c> {
        let node = &cluster.nodes[&id];
        let mut replica = cluster.replica(id).clone();
        // The messages that the real one owes are none of its.
        replica.take_output();
        Victim {
            cluster,
            replica,
            disk: node.disk.clone(),
            persists: node.persists.clone(),
            applied: node.applied,
            offered: None,
            is_over: false,
            seed: cluster.seed,
            done: Treason { victims: 1, ..Treason::default() },
        }
    }

    /// `past` is what honest nodes have said.
    pub fn live(mut self, choices: &mut Choices<'_>, past: &VecDeque<Message>) -> Treason {
        for _ in 0..1 + choices.below(STEPS_MAX) {
            self.step(choices, past);
            if self.is_over {
                self.fall_silent(choices, past);
                self.start_again(choices);
            }
        }
        self.done
    }

    fn step(&mut self, choices: &mut Choices<'_>, past: &VecDeque<Message>) {
        if self.offered.is_some() && choices.below(2) == 0 {
            return self.install();
        }
        match choices.below(15) {
            0 => self.ticks(choices),
            1 => self.persist(),
            2 => self.apply(),
            3 => self.ask(choices),
            4 => self.start_again(choices),
            5..=7 => {
                if let Some(message) = self.of_the_past(choices, past) {
                    self.hear(message);
                }
            }
            8..=10 => {
                if let Some(mut message) = self.of_the_past(choices, past) {
                    forged::change_message(choices, &mut message);
                    self.hear(message);
                }
            }
            _ => {
                let message = forged::made_up(choices, &self.replica);
                self.hear(message);
            }
        }
    }

    fn ticks(&mut self, choices: &mut Choices<'_>) {
        for _ in 0..[1, 5, 30, 60][choices.below(4) as usize] {
            self.input(Input::Tick);
        }
    }

    fn persist(&mut self) {
        if let Some(persist) = self.persists.pop_front() {
            self.disk.write(&persist);
            self.input(Input::Durable(persist.number));
        }
    }

    fn apply(&mut self) {
        let Status { commit, durable, .. } = self.replica.status();
        let last = commit.min(durable.index);
        if last > self.applied {
            self.applied = last;
            self.input(Input::Applied(last));
        }
    }

    /// What clients and administrators want.
    fn ask(&mut self, choices: &mut Choices<'_>) {
        let other = NodeId(1 + choices.below(5));
        match choices.below(5) {
            0 => drop(self.replica.propose(vec![Payload::Noop])),
            1 => drop(self.replica.read(ReadToken(choices.below(9)))),
            2 => drop(self.replica.transfer(other)),
            3 => drop(self.replica.change(&[Change::Remove { node: other }])),
            _ => drop(self.replica.change(&[Change::Promote { node: other }])),
        }
        self.settle();
    }

    /// What was offered is there: whoever offered it has made it up.
    fn install(&mut self) {
        let Some(base) = self.offered.take() else { return };
        let membership = (self.replica.membership_id(), self.replica.membership().clone());
        if membership.0.index <= base.point.index {
            self.done.installed += 1;
            self.disk.received.insert(base.point, membership.clone());
            self.input(Input::Installed { base, membership });
        }
    }

    fn of_the_past(&self, choices: &mut Choices<'_>, past: &VecDeque<Message>) -> Option<Message> {
        let at = choices.below(past.len().clamp(1, 256) as u64) as usize;
        let message = past.get(at)?.clone();
        // Some were meant for others.
        Some(Message { to: self.replica.id(), ..message })
    }

    fn hear(&mut self, message: Message) {
        self.done.heard += 1;
        let (before, expected) = (self.held(), cannot_be(&self.replica, &message));
        let is_known_term = message.term <= self.replica.status().hard_state.term;
        let (is_of_stranger, shown) = (is_known_term && is_answer_of_stranger(&message), format!("{message:?}"));
        self.replica.handle(Input::Message(message));
        let after = self.held();
        assert!(after <= before + GROWTH_MAX + 4 * shown.len(), "{before} bytes become {after} by {shown}");
        let was_over = self.is_over;
        self.settle();
        self.done.contradicted += u64::from(self.is_over && !was_over);
        self.done.expected += u64::from(expected);
        assert!(self.is_over || !expected, "{shown} cannot be, and is believed: {:?}", self.replica.status());
        if is_of_stranger && !self.is_over {
            self.done.strangers += 1;
            assert_eq!(self.held(), before, "a stranger's answer is kept: {shown}");
        }
    }

    fn input(&mut self, input: Input) {
        self.replica.handle(input);
        self.settle();
    }

    fn settle(&mut self) {
        let before = self.replica.status();
        let output = self.replica.take_output();
        let after = self.replica.status();
        assert!(after.commit <= after.last.index || self.is_over, "{after:?}");
        assert!(before.hard_state.term <= after.hard_state.term && before.commit <= after.commit);
        let contradiction = output.events.iter().any(|event| matches!(event, Event::Contradiction(_)));
        if contradiction || self.is_over {
            self.is_over = true;
            return assert!(says_nothing(&output), "these are no last words: {output:?}");
        }
        let Output { persist, fetch, events, .. } = output;
        self.persists.extend(persist);
        let mut offers = events.iter().filter_map(|event| match event {
            Event::SnapshotOffered { base, .. } => Some(*base),
            _ => None,
        });
        self.offered = offers.next_back().or(self.offered);
        for fetch in fetch {
            let stored = self.disk.entries_from(fetch.from).iter();
            let entries = stored.take_while(|entry| entry.id.index <= fetch.last).take(3).cloned().collect();
            self.input(Input::Fetched { peer: fetch.peer, from: fetch.from, entries });
        }
    }

    /// After a contradiction nothing moves it any more.
    fn fall_silent(&mut self, choices: &mut Choices<'_>, past: &VecDeque<Message>) {
        (0..70).for_each(|_| self.input(Input::Tick));
        for _ in 0..3 {
            if let Some(message) = self.of_the_past(choices, past) {
                self.input(Input::Message(message));
            }
        }
        let number = self.persists.back().map_or(PersistNumber(0), |persist| persist.number);
        self.input(Input::Durable(number));
    }

    /// From its disk, with some of what was under way.
    fn start_again(&mut self, choices: &mut Choices<'_>) {
        let kept = choices.below(self.persists.len().min(255) as u64 + 1) as usize;
        self.persists.drain(..).take(kept).for_each(|persist| self.disk.write(&persist));
        self.seed += 1;
        let config = replicas::config(self.replica.id(), self.seed, self.cluster.limits);
        let restored = self.disk.restored(self.applied, &self.cluster.born_with);
        self.replica = Replica::in_life(config, restored, self.cluster.nodes[&self.replica.id()].life());
        (self.is_over, self.offered) = (false, None);
    }

    /// All that the replica holds, written out.
    fn held(&self) -> usize {
        // That it was asked for nothing since an input is no growth.
        let mut settled = self.replica.clone();
        settled.take_output();
        format!("{settled:?}").len()
    }
}

fn says_nothing(output: &Output) -> bool {
    let Output { persist, send, commit, reads_ready, fetch, .. } = output;
    persist.is_none() && send.is_empty() && commit.is_none() && reads_ready.is_empty() && fetch.is_empty()
}

fn is_answer_of_stranger(message: &Message) -> bool {
    let answers = matches!(
        message.body,
        Body::VoteReply { .. } | Body::PreVoteReply { .. } | Body::AppendReply(_) | Body::HeartbeatReply { .. }
    );
    message.from == STRANGER && answers
}

/// What is told to a replica that runs and is known to be impossible, by rules in other words than the replica's own. Of a
/// message of another term than its own only what is beyond all numbers: which of the others is heard is the protocol's.
fn cannot_be(replica: &Replica, message: &Message) -> bool {
    if message.to != replica.id() || message.from == replica.id() {
        return false;
    }
    let status = replica.status();
    if message.term.0 > TERM_MAX {
        return true;
    }
    if message.term != status.hard_state.term {
        return false;
    }
    let differs =
        |said: LogId| said.index <= status.commit && replica.term_at(said.index).is_some_and(|held| held != said.term);
    let leads_too = status.leader.is_some_and(|leader| leader != message.from);
    match &message.body {
        Body::Append(append) => {
            let said = append.entries.iter().map(|entry| entry.id).chain([append.previous]);
            leads_too || append.commit.0 > INDEX_MAX || said.into_iter().any(differs)
        }
        Body::Heartbeat { commit, .. } => leads_too || *commit > status.last.index,
        Body::Snapshot { base, .. } => leads_too || differs(base.begin_after) || differs(base.point),
        Body::AppendReply(AppendReply { outcome: AppendOutcome::Matched { last }, .. }) => {
            let is_heard = status.role == Role::Leader && replica.membership().member(message.from).is_some();
            last.0 > INDEX_MAX || (is_heard && *last > status.last.index)
        }
        _ => false,
    }
}
