//! The mapping on the bare core and a simulated disk, and beside it what openraft must find, in openraft's own terms.

use std::collections::{BTreeMap, VecDeque};

use openraft::{Entry, LogId, Vote};

use super::Types;
use super::recorder::Call;
use crate::adapters::openraft::mapping::{Beneath, Groups, Mapping, Operation, decode_entry};
use crate::disk::Queue;
use crate::limits::SEGMENT_BYTES_MIN;
use crate::random::Random;
use crate::sim::disk::{SimDisk, SimQueue};
use crate::types::{ClusterId, GroupId, Incarnation, Index, NodeId, Place};
use crate::wal::{Effect, GroupLog, Identity, Log, Options, Prepare, Remove, Ticket, prepare, remove};

/// All that openraft can ask a log storage for.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct State {
    pub vote: Option<Vote<u64>>,
    pub committed: Option<LogId<u64>>,
    pub purged: Option<LogId<u64>>,
    pub entries: BTreeMap<u64, Row>,
}

/// An entry, which cannot be compared but as text.
type Row = (LogId<u64>, String);

fn text(entry: &Entry<Types>) -> String {
    serde_json::to_string(entry).unwrap()
}

/// One after the other; what a power cut leaves is one of them, from the last one told on.
#[derive(Clone, Debug)]
pub struct Model {
    pub states: Vec<State>,
    /// For each call the ticket with which it may be told, and the state after it.
    calls: Vec<(Ticket, usize)>,
    /// The first state that may be found.
    pub told: usize,
}

pub struct Rig {
    pub disk: SimDisk,
    queue: SimQueue,
    log: Log,
    mapping: Mapping<Types>,
    prepares: VecDeque<Prepare>,
    pub model: Model,
}

impl Beneath for Log {
    fn group(&self, group: GroupId) -> Option<GroupLog> {
        Log::group(self, group).cloned()
    }

    fn batch_bytes_max(&self) -> usize {
        Log::batch_bytes_max(self)
    }
}

impl State {
    fn append(&mut self, entries: &[Entry<Types>]) {
        let purged_next = self.purged.map_or(0, |purged| purged.index + 1);
        for entry in entries.iter().filter(|entry| entry.log_id.index >= purged_next) {
            self.entries.split_off(&entry.log_id.index);
            self.entries.insert(entry.log_id.index, (entry.log_id, text(entry)));
        }
    }

    pub fn last(&self) -> Option<LogId<u64>> {
        self.entries.values().next_back().map(|row| row.0).or(self.purged)
    }
}

impl Model {
    pub fn new(state: State) -> Model {
        Model { states: vec![state], calls: Vec::new(), told: 0 }
    }

    pub fn last(&self) -> &State {
        self.states.last().unwrap()
    }

    fn apply(&mut self, call: &Call, ticket: Ticket) {
        let mut state = self.last().clone();
        match call {
            Call::Append(entries) => state.append(entries),
            Call::Truncate(from) => drop(state.entries.split_off(&from.index)),
            Call::SaveVote(vote) => state.vote = Some(*vote),
            Call::SaveCommitted(committed) => state.committed = *committed,
            Call::Purge(last) if Some(*last) <= state.purged => {}
            Call::Purge(last) => {
                let conflicts = state.entries.get(&last.index).is_some_and(|(held, _)| held != last)
                    || state.entries.get(&(last.index + 1)).is_some_and(|(next, _)| next.leader_id < last.leader_id);
                if conflicts {
                    state.entries.split_off(&last.index);
                    self.states.push(state.clone());
                }
                state.purged = Some(*last);
                state.entries = state.entries.split_off(&(last.index + 1));
            }
        }
        self.states.push(state);
        self.calls.push((ticket, self.states.len() - 1));
    }

    fn durable(&mut self, ticket: Ticket) {
        let told = self.calls.iter().rev().find(|(told_with, _)| *told_with <= ticket);
        self.told = self.told.max(told.map_or(0, |&(_, state)| state));
    }
}

pub fn options() -> Options {
    Options {
        directory: "log".to_owned(),
        identity: Identity { cluster: ClusterId(0xc1), node: NodeId(2), incarnation: Incarnation(3) },
        segment_bytes: SEGMENT_BYTES_MIN,
        writes_in_flight: 2,
        quiet_ticks: 5,
        tail_cache_bytes: 0,
        seed: 7,
    }
}

/// What is on a disk after a start: as openraft would find it, or why it finds nothing.
pub fn open(disk: SimDisk) -> Result<Rig, String> {
    let (log, _) = Log::open(&disk.files(), options(), Place::START, 1).map_err(|error| error.to_string())?;
    Rig::with(disk, log)
}

impl Rig {
    /// An empty log at rest.
    pub fn new() -> Rig {
        let disk = SimDisk::new();
        let log = Log::create(&disk.files(), options(), 1).unwrap();
        Rig::with(disk, log).unwrap()
    }

    fn with(disk: SimDisk, log: Log) -> Result<Rig, String> {
        let groups = Groups::of(0).unwrap();
        let read = |at: Index| log.plan_read(groups.state, at, at.next(), 1).run(&disk.files());
        let newest = groups.newest_state(&log).map(read).transpose().map_err(|error| error.to_string())?;
        let recovered = Mapping::recover(groups, &log, newest.as_ref().and_then(|records| records.first()));
        let (mapping, unfinished) = recovered.map_err(|error| error.to_string())?;
        let (queue, model) = (disk.queue(), Model::new(State::default()));
        let mut rig = Rig { disk, queue, log, mapping, prepares: VecDeque::new(), model };
        rig.submit(unfinished);
        rig.settle();
        rig.model = Model::new(rig.found()?);
        Ok(rig)
    }

    /// What openraft finds.
    pub fn found(&self) -> Result<State, String> {
        let saved = self.mapping.saved();
        let groups = Groups::of(0).unwrap();
        let range = groups.readable(&self.log, self.mapping.purged_next(), ..);
        let plan = self.log.plan_read(groups.entries, range.start, range.end, 1 << 30);
        let records = plan.run(&self.disk.files()).map_err(|error| error.to_string())?;
        assert_eq!(records.len() as u64, range.end.0 - range.start.0, "all that is named can be read");
        let entries = records.iter().map(|record| decode_entry::<Types>(groups.entries, record));
        let entries = entries.map(|entry| entry.map(|entry| (entry.log_id.index, entry)));
        let entries: BTreeMap<u64, Entry<Types>> =
            entries.collect::<Result<_, _>>().map_err(|error| error.to_string())?;
        let rows = entries.into_iter().map(|(index, entry)| (index, (entry.log_id, text(&entry))));
        Ok(State { vote: saved.vote, committed: saved.committed, purged: saved.purged, entries: rows.collect() })
    }

    /// Where the next entry goes.
    pub fn next_index(&self) -> u64 {
        let names = Beneath::group(&self.log, Groups::of(0).unwrap().entries);
        names.map_or(0, |names| names.last.index.0).max(self.mapping.purged_next())
    }

    /// What the adapter does with a call, up to where it waits.
    pub fn call(&mut self, call: &Call) {
        let operations = match call {
            Call::Append(entries) => self.mapping.append(&self.log, entries.clone()),
            Call::Truncate(from) => self.mapping.truncate(&self.log, from.index),
            Call::SaveVote(vote) => self.mapping.save_vote(&self.log, *vote),
            Call::SaveCommitted(committed) => self.mapping.save_committed(&self.log, *committed),
            Call::Purge(last) => {
                // The adapter has what is not durable in memory; here the model has it.
                let held = self.model.last().entries.range(last.index..last.index.saturating_add(2));
                let held: Vec<LogId<u64>> = held.map(|(_, row)| row.0).collect();
                self.mapping.purge(&self.log, *last, &held)
            }
        };
        let operations = operations.unwrap_or_else(|error| panic!("{call:?}: {error}"));
        let ticket = self.submit(operations);
        self.model.apply(call, ticket);
    }

    fn submit(&mut self, operations: Vec<Operation>) -> Ticket {
        for operation in operations {
            let taken = match operation {
                Operation::Append { group, entries } => self.log.append(group, &entries),
                Operation::Truncate { group, from } => self.log.truncate_suffix(group, from),
                Operation::Purge { group, last } => self.log.purge_prefix(group, last),
            };
            taken.expect("the mapping makes what the log takes");
        }
        self.log.last_ticket()
    }

    /// Hands out what is to be written.
    pub fn pump(&mut self) {
        while let Some(effect) = self.log.take_effect() {
            match effect {
                Effect::Write(write) => self.queue.submit(write),
                Effect::Prepare(order) => self.prepares.push_back(order),
                Effect::Remove(order) => self.remove(&order),
            }
        }
    }

    /// Some write completes, or a segment is made.
    pub fn step(&mut self, random: &mut Random) {
        self.pump();
        if self.disk.is_off() {
            return;
        }
        match self.prepares.pop_front() {
            Some(order) if random.below(2) == 0 => self.prepare(&order),
            order => {
                self.prepares.extend(order);
                self.disk.complete_any(random);
            }
        }
        self.take();
    }

    /// Until everything is durable, or the power is off.
    pub fn settle(&mut self) {
        for _ in 0..1000 {
            self.pump();
            while let Some(order) = self.prepares.pop_front_if(|_| !self.disk.is_off()) {
                self.prepare(&order);
            }
            if self.disk.is_off() {
                // What is in flight stays there: the cut decides what became of it.
                return;
            }
            self.disk.complete_all();
            self.take();
            if self.log.durable_ticket() == self.log.last_ticket() && self.log.is_idle() {
                return;
            }
        }
        panic!("the log does not come to rest");
    }

    fn remove(&mut self, order: &Remove) {
        let result = remove(&self.disk.files(), order);
        if !self.disk.is_off() {
            self.log.removed(order.number, &result);
        }
    }

    fn prepare(&mut self, order: &Prepare) {
        let result = prepare(&self.disk.files(), order);
        if !self.disk.is_off() {
            self.log.prepared(order.header.number, result);
        }
    }

    fn take(&mut self) {
        while let Some(completion) = self.queue.take() {
            self.log.completed(completion).unwrap();
        }
        self.model.durable(self.log.durable_ticket());
    }
}
