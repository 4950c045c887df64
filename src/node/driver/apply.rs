//! Committed entries, in order, into sessions and state machine.

use bytes::Bytes;

use super::log_reads::log_moved_on;
use super::{
    APPLY_BATCH_ENTRIES, APPLY_READ_BYTES, Applying, Driver, Effect, ReadFor, STALE_READS_MAX, Stopped, WantedBy,
};
use crate::checksum::Checksum;
use crate::codec;
use crate::machine::StateMachine;
use crate::mutant::{self, Mutant};
use crate::net::{Refusal, SubmitResult};
use crate::node::sessions::{Admission, Answered, Decision};
use crate::raft::{Input as RaftInput, Role};
use crate::types::{Command, Data, Entry, Index, Payload, Service};
use crate::wal;

/// Between two looks for an entry that is to be applied and is not in the log: a second.
const MISSING_AGAIN_TICKS: u32 = 100;

impl<M: StateMachine> Driver<M> {
    /// Applies what is committed and in memory, up to a bound; orders the rest from the log. Tells how many.
    pub(super) fn apply_committed(&mut self) -> usize {
        self.take_over_if_reached();
        if self.installing.waits_for().is_some() {
            return 0;
        }
        let end = self.apply_end();
        if self.applied.index >= end || self.applying != Applying::FromMemory {
            return 0;
        }
        let first = self.applied.index.next();
        let last = end.min(self.applied.index.plus(APPLY_BATCH_ENTRIES as u64));
        let cached = self.replica.cached(first..last.next()).map(|entries| entries.cloned().collect::<Vec<_>>());
        match cached {
            Some(entries) => self.apply_all(&entries),
            None => {
                self.applying = Applying::Reading;
                self.read_log(first, last.next(), APPLY_READ_BYTES, ReadFor::Apply);
                0
            }
        }
    }

    /// How far entries may be applied. A state that outlives the process must not get ahead of this node's own log: it
    /// would hold what a restart does not find there. One in memory goes with the process, and need not wait.
    fn apply_end(&self) -> Index {
        match self.kept.is_some() && !mutant::is_on(Mutant::FedBeforeDurable) {
            true => self.commit.min(self.replica.status().durable.index),
            false => self.commit,
        }
    }

    pub(super) fn on_read_to_apply(&mut self, result: Result<Vec<Entry>, wal::Error>) {
        self.applying = Applying::FromMemory;
        match result {
            Ok(entries) if entries.is_empty() => self.miss(),
            Ok(entries) => {
                self.stale_reads = 0;
                let entries: Vec<Entry> =
                    entries.into_iter().take_while(|entry| entry.id.index <= self.commit).collect();
                self.apply_all(&entries);
            }
            // It is planned again, a few times.
            Err(error) if log_moved_on(&error) && self.stale_reads < STALE_READS_MAX => self.stale_reads += 1,
            Err(error) if log_moved_on(&error) => self.miss(),
            Err(error) => self.stop_on(Err(Stopped::Read(error))),
        }
    }

    /// The next entry is not there. It is looked for again after a while.
    fn miss(&mut self) {
        let index = self.applied.index.next();
        self.stale_reads = 0;
        self.applying = Applying::Missing { again_ticks: MISSING_AGAIN_TICKS };
        self.effects.push(Effect::Missing { index, wanted_by: WantedBy::StateMachine });
    }

    /// A tick has passed.
    pub(super) fn look_for_missing(&mut self) {
        if let Applying::Missing { again_ticks } = &mut self.applying {
            *again_ticks -= 1;
            if *again_ticks == 0 {
                self.applying = Applying::FromMemory;
            }
        }
    }

    fn apply_all(&mut self, entries: &[Entry]) -> usize {
        for entry in entries {
            self.apply(entry);
            if self.stopped.is_some() {
                return 0;
            }
        }
        self.replica.handle(RaftInput::Applied(self.applied.index));
        self.propose_point_if_due();
        entries.len()
    }

    fn apply(&mut self, entry: &Entry) {
        assert!(entry.id.index == self.applied.index.next(), "{} comes behind {}", entry.id, self.applied);
        assert!(entry.id.term >= self.applied.term, "terms never fall: {} behind {}", entry.id, self.applied);
        self.applied = entry.id;
        self.extend_digest(entry);
        self.snapshots.count(entry);
        match &entry.payload {
            Payload::Data(data) => {
                let result = self.apply_data(entry, data);
                self.submissions.applied(entry.id.index, result, &mut self.effects);
            }
            // From its own no-op on, a leader's table holds all that earlier leaders put there.
            Payload::Noop => self.begin_service(entry),
            // From here on it serves, and no leader before it has.
            Payload::Membership(membership) => {
                self.configuration = (entry.id, (**membership).clone());
                if !membership.forming && self.admission.is_none() {
                    self.begin_service(entry);
                }
            }
            Payload::SnapshotPoint => self.on_snapshot_point(),
            Payload::Trim { first } => self.trim(entry, *first),
        }
    }

    /// If this entry is of its own term the leader serves, unless the cluster is being born.
    fn begin_service(&mut self, entry: &Entry) {
        let status = self.replica.status();
        let is_own = status.role == Role::Leader && status.hard_state.term == entry.id.term;
        if is_own && !self.replica.membership().forming {
            self.admission = Some(Admission::new());
        }
    }

    fn apply_data(&mut self, entry: &Entry, data: &Data) -> SubmitResult {
        let Ok((command, body)) = codec::decode_command(&data.bytes) else {
            // No leader lets it in; if one did, every node passes over it alike.
            return SubmitResult::Refused(Refusal::Malformed);
        };
        let index = entry.id.index;
        if command.service == Service::Append {
            self.retention.note_record(index);
        }
        let decision = self.sessions.begin(index, &command);
        if let Some(kept) = &mut self.kept {
            kept.note(&command, &decision);
        }
        match decision {
            Decision::Registered { .. } => SubmitResult::Run { first: index, count: 1 },
            Decision::Run => self.run(entry, &command, &body),
            Decision::Duplicate(answered) => answered_before(answered, command.service),
            Decision::Stale | Decision::Gap { .. } => SubmitResult::Refused(Refusal::OutcomeUnknown),
            // The record stands, though its session went since.
            Decision::SessionGone if command.service == Service::Append => SubmitResult::Run { first: index, count: 1 },
            Decision::SessionGone if mutant::is_on(Mutant::SessionRunsOn) => self.run(entry, &command, &body),
            Decision::SessionGone => SubmitResult::Refused(Refusal::SessionGone),
        }
    }

    fn run(&mut self, entry: &Entry, command: &Command, body: &Bytes) -> SubmitResult {
        let index = entry.id.index;
        if command.service != Service::Machine {
            return SubmitResult::Run { first: index, count: 1 };
        }
        let answer = match self.machine.apply(entry.id, body) {
            Ok(answer) => answer,
            // Nothing leaves any more.
            Err(error) => {
                self.stop_on(Err(Stopped::Machine(error)));
                return SubmitResult::Refused(Refusal::OutcomeUnknown);
            }
        };
        self.sessions.keep(command.session, command.number, answer.clone());
        SubmitResult::Done { index, answer }
    }

    fn extend_digest(&mut self, entry: &Entry) {
        let payload = codec::payload_data(&entry.payload).checksum;
        let before = u64::from(self.log_digest.0);
        let Index(index) = entry.id.index;
        self.log_digest =
            Checksum::salted(before, &[&index.to_le_bytes(), &entry.id.term.0.to_le_bytes(), &payload.0.to_le_bytes()]);
    }
}

/// The answer to a request that was carried out before.
pub(super) fn answered_before(answered: Answered, service: Service) -> SubmitResult {
    match answered.answer {
        Some(answer) => SubmitResult::Done { index: answered.index, answer },
        None if service == Service::Machine => SubmitResult::Refused(Refusal::OutcomeUnknown),
        None => SubmitResult::Run { first: answered.index, count: 1 },
    }
}
