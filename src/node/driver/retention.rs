//! Which records may still be read. Only a committed trim entry moves that, on all nodes alike.

use std::collections::VecDeque;

use super::reads::Read;
use super::{Driver, Effect};
use crate::machine::StateMachine;
use crate::mutant::{self, Mutant};
use crate::net::{ClientKey, Consistency, Refusal, Response, ResponseBody};
use crate::raft::Role;
use crate::types::{Entry, GroupId, Index, Payload};
use crate::wal::Kept;

/// Trims that wait for their commit.
const TRIMS_MAX: usize = 64;
/// Between two looks at what the rule wants gone: a second.
const RULE_TICKS: u32 = 100;

/// What is kept of the log, of whole segments: what lies beyond one of the bounds is trimmed. Without a bound all of it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RetentionRule {
    /// The newest of it, in bytes on this disk.
    pub bytes: Option<u64>,
    /// What was written so long ago at most, by the wall clock.
    pub milliseconds: Option<u64>,
}

/// What was trimmed, and who waits for a trim.
#[derive(Debug)]
pub(super) struct Retention {
    /// The first index that may be read, as of the last entry applied.
    readable_from: Index,
    /// By rising index of the entry. At most [`TRIMS_MAX`].
    waiting: VecDeque<Waiting>,
    rule_ticks: u32,
    /// The trim that the rule asked for last; it is not asked for twice in one reign.
    by_rule: Option<Index>,
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    entry: Index,
    client: ClientKey,
    id: u64,
}

impl Retention {
    /// Another state takes the place of the one before: what was trimmed there is trimmed.
    pub fn begin_at(&mut self, readable_from: Index) {
        self.readable_from = self.readable_from.max(readable_from);
    }

    /// As of a state in which this index was the first that may be read.
    pub fn new(readable_from: Index) -> Retention {
        Retention { readable_from, waiting: VecDeque::new(), rule_ticks: 0, by_rule: None }
    }
}

impl<M: StateMachine> Driver<M> {
    /// The first index that may be read, as of the last entry applied: the same on all nodes.
    pub(super) fn readable_from(&self) -> Index {
        self.retention.readable_from
    }

    /// The first index that clients may read here.
    pub(super) fn first_readable(&self) -> Index {
        self.replica.first_index().max(self.retention.readable_from)
    }

    /// An administrator wants the records below `first` to go. What is trimmed already is answered so, by who still leads.
    pub(super) fn on_trim(&mut self, client: ClientKey, id: u64, first: Index) {
        if first <= self.retention.readable_from {
            return self.on_read(Read::of_what_is_so(client, id), Consistency::Linearizable);
        }
        match self.propose_trim(first) {
            Ok(entry) => self.retention.waiting.push_back(Waiting { entry, client, id }),
            Err(refusal) => self.reply(client, id, ResponseBody::Refused(refusal)),
        }
    }

    /// A tick has passed. Now and then whoever leads trims what the rule does not keep; what it cannot propose now it will
    /// later.
    pub(super) fn trim_by_rule(&mut self, wall_clock_milliseconds: u64) {
        let RetentionRule { bytes, milliseconds } = self.options.retention;
        if bytes.is_none() && milliseconds.is_none() {
            return;
        }
        self.retention.rule_ticks += 1;
        if self.retention.rule_ticks < RULE_TICKS || self.admission.is_none() {
            return;
        }
        self.retention.rule_ticks = 0;
        let since_milliseconds = milliseconds.map(|age| wall_clock_milliseconds.saturating_sub(age));
        let kept = self.pipeline.log.kept_from(GroupId::CLUSTER, Kept { bytes, since_milliseconds });
        let first = kept.min(self.applied.index.next());
        let is_asked_for = self.retention.by_rule.is_some_and(|asked| asked >= first);
        if first > self.retention.readable_from && !is_asked_for && self.propose_trim(first).is_ok() {
            self.retention.by_rule = Some(first);
        }
    }

    fn propose_trim(&mut self, first: Index) -> Result<Index, Refusal> {
        if let Some(refusal) = self.refusal_while_born() {
            return Err(refusal);
        }
        if self.replica.status().role != Role::Leader {
            return Err(Refusal::NotLeader { leader: self.leader_address() });
        }
        if self.admission.is_none() {
            return Err(Refusal::Unavailable { reason: "the leader is taking over".to_owned() });
        }
        let end = self.applied.index.next();
        if first > end {
            let reason = format!("entry {first} is beyond the end: there is nothing to keep from {end} on");
            return Err(Refusal::Impossible { reason });
        }
        if self.retention.waiting.len() >= TRIMS_MAX {
            return Err(Refusal::Busy);
        }
        let proposed = self.replica.propose(vec![Payload::Trim { first }]);
        proposed.map(|range| range.start).map_err(|refused| self.refusal_of(refused))
    }

    /// A trim entry is applied. It never reaches beyond itself, whoever proposed it.
    pub(super) fn trim(&mut self, entry: &Entry, first: Index) {
        let trimmed = first.min(entry.id.index);
        let before = self.retention.readable_from;
        let is_lower_taken = mutant::is_on(Mutant::TrimMovesBack);
        self.retention.readable_from = if is_lower_taken { trimmed } else { before.max(trimmed) };
        if let Some(waiting) = self.retention.waiting.pop_front_if(|waiting| waiting.entry == entry.id.index) {
            self.reply(waiting.client, waiting.id, ResponseBody::Changed { index: entry.id.index });
        }
    }

    /// This node leads no more: whether what was proposed will be committed is not known here.
    pub(super) fn abandon_trims(&mut self) {
        let body = || ResponseBody::Refused(Refusal::OutcomeUnknown);
        let told = |waiting: Waiting| {
            let response = Response { id: waiting.id, body: body() };
            Effect::Reply { client: waiting.client, response }
        };
        self.effects.extend(self.retention.waiting.drain(..).map(told));
        self.retention.by_rule = None;
    }
}
