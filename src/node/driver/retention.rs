//! Which records may still be read. Only a committed trim entry moves that, on all nodes alike.

use std::collections::VecDeque;

use super::reads::Read;
use super::{Driver, Effect, SnapshotReport};
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
    /// What was written so long ago at most, by the wall clock as far as it is believed.
    pub milliseconds: Option<u64>,
    /// The log is a means for the map alone, and takes no records: what snapshots hold is trimmed, unless there are records
    /// that may still be read.
    pub is_for_map_alone: bool,
}

/// What was trimmed, and who waits for a trim.
#[derive(Debug)]
pub(super) struct Retention {
    /// The first index that may be read, as of the last entry applied.
    readable_from: Index,
    /// The last entry applied that is an appended record; zero if none is.
    last_record: Index,
    /// By rising index of the entry. At most [`TRIMS_MAX`].
    waiting: VecDeque<Waiting>,
    rule_ticks: u32,
    /// The trim that the rule asked for last; it is not asked for twice in one reign.
    by_rule: Option<Index>,
    /// Records that are in the rule's way, up to this one, of which the operator was told.
    told_of: Option<Index>,
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    entry: Index,
    client: ClientKey,
    id: u64,
}

impl Retention {
    /// Another state takes the place of the one before: what was trimmed there is trimmed.
    pub fn begin_at(&mut self, readable_from: Index, last_record: Index) {
        self.readable_from = self.readable_from.max(readable_from);
        self.last_record = self.last_record.max(last_record);
    }

    /// As of a state in which this index was the first that may be read, and that the last record.
    pub fn new(readable_from: Index, last_record: Index) -> Retention {
        Retention { readable_from, last_record, waiting: VecDeque::new(), rule_ticks: 0, by_rule: None, told_of: None }
    }

    /// An appended record is applied.
    pub fn note_record(&mut self, index: Index) {
        self.last_record = index;
    }
}

impl<M: StateMachine> Driver<M> {
    /// The first index that may be read, as of the last entry applied: the same on all nodes.
    pub(super) fn readable_from(&self) -> Index {
        self.retention.readable_from
    }

    /// The last entry applied that is an appended record: the same on all nodes.
    pub(super) fn last_record(&self) -> Index {
        self.retention.last_record
    }

    /// The last of the records that may be read, where the rule is that the log takes none: nothing of it goes before they
    /// are trimmed.
    pub(super) fn record_in_the_way(&self) -> Option<Index> {
        let last = Some(self.retention.last_record).filter(|last| *last >= self.first_readable());
        last.filter(|_| self.options.retention.is_for_map_alone && !mutant::is_on(Mutant::RecordsTrimmedForMap))
    }

    /// The first index that clients may read here.
    pub(super) fn first_readable(&self) -> Index {
        self.replica.first_index().max(self.retention.readable_from)
    }

    /// The first index that the log keeps whatever is in snapshots, and however much there is: nothing but an administrator's
    /// trim moves it.
    pub(super) fn kept_for_readers(&self) -> Option<Index> {
        (self.options.retention == RetentionRule::default()).then_some(self.retention.readable_from)
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
    pub(super) fn trim_by_rule(&mut self) {
        let rule = self.options.retention;
        if rule == RetentionRule::default() {
            return;
        }
        self.retention.rule_ticks += 1;
        if self.retention.rule_ticks < RULE_TICKS || self.admission.is_none() {
            return;
        }
        self.retention.rule_ticks = 0;
        let first = match rule.is_for_map_alone {
            true => self.first_for_map(),
            false => self.first_kept(rule),
        };
        let is_asked_for = self.retention.by_rule.is_some_and(|asked| asked >= first);
        if first > self.retention.readable_from && !is_asked_for && self.propose_trim(first).is_ok() {
            self.retention.by_rule = Some(first);
        }
    }

    fn first_kept(&self, rule: RetentionRule) -> Index {
        let since_milliseconds = rule.milliseconds.and_then(|age| self.wall_clock.older_than(age));
        let kept = self.pipeline.log.kept_from(GroupId::CLUSTER, Kept { bytes: rule.bytes, since_milliseconds });
        kept.min(self.applied.index.next())
    }

    /// What the older of the two snapshots holds nobody needs, if nobody may read it. It is applied, so that it is known
    /// whether there are records.
    fn first_for_map(&mut self) -> Index {
        let record = self.record_in_the_way();
        if record.is_some() && self.retention.told_of != record {
            self.effects.extend(record.map(|last| Effect::Snapshot(SnapshotReport::RecordsInTheWay { last })));
        }
        self.retention.told_of = record;
        let older = self.snapshots.oldest_kept().filter(|_| record.is_none());
        older.map_or(Index::FIRST, |older| older.index.next())
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
