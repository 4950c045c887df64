//! What a log must hold: its state after each append, truncate and purge.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::disk::Files;
use crate::types::{Data, Entry, GroupId, Index, LogId, Payload, Term};
use crate::wal::{Error, Log};

/// One group's entries.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupState {
    pub before_first: LogId,
    pub entries: Vec<Entry>,
}

pub type State = BTreeMap<GroupId, GroupState>;

/// States by ticket: the one at `n` is that after ticket `n` of the present life of the log.
#[derive(Clone, Debug)]
pub struct Model {
    pub states: Vec<State>,
    pub acknowledged: usize,
    pub term: Term,
}

impl GroupState {
    pub fn last(&self) -> LogId {
        self.entries.last().map_or(self.before_first, |entry| entry.id)
    }
}

impl Model {
    pub fn new(state: State) -> Model {
        Model { states: vec![state], acknowledged: 0, term: Term(1) }
    }

    pub fn state(&self) -> &State {
        self.states.last().expect("there is always a first state")
    }

    pub fn group(&self, group: GroupId) -> GroupState {
        let new = || GroupState { before_first: LogId::ZERO, entries: Vec::new() };
        self.state().get(&group).cloned().unwrap_or_else(new)
    }

    /// Entries that join the group behind `after`, in the present term.
    pub fn entries_behind(&self, after: Index, count: u64, bytes: usize) -> Vec<Entry> {
        (1..=count).map(|ahead| entry(self.term, after.plus(ahead), bytes)).collect()
    }

    pub fn append(&mut self, group: GroupId, entries: &[Entry]) {
        let first = entries[0].id.index;
        let mut state = self.group(group);
        if !self.state().contains_key(&group) {
            state.before_first = LogId::new(Term::ZERO, first.previous());
        }
        state.entries.retain(|entry| entry.id.index < first);
        state.entries.extend_from_slice(entries);
        self.push(group, state);
    }

    pub fn truncate(&mut self, group: GroupId, from: Index) {
        let mut state = self.group(group);
        state.entries.retain(|entry| entry.id.index < from);
        self.push(group, state);
    }

    pub fn purge(&mut self, group: GroupId, last: LogId) {
        let mut state = self.group(group);
        state.entries.retain(|entry| entry.id.index > last.index);
        state.before_first = last;
        self.push(group, state);
    }

    /// What was recovered must be a state from the last acknowledged one on; the log goes on from there.
    pub fn recover(&mut self, found: State) {
        let from = self.acknowledged;
        let fits = self.states[from..].contains(&found);
        assert!(fits, "{} is none of the {} possible states", shown(&found), self.states.len() - from);
        let term = Term(self.term.0 + 1);
        *self = Model { term, ..Model::new(found) };
    }

    pub fn is_possible(&self, found: &State) -> bool {
        self.states[self.acknowledged..].contains(found)
    }

    fn push(&mut self, group: GroupId, state: GroupState) {
        let mut next = self.state().clone();
        next.insert(group, state);
        self.states.push(next);
    }
}

/// An entry whose payload follows from its name.
pub fn entry(term: Term, index: Index, bytes: usize) -> Entry {
    let seed = (term.0 as u8).wrapping_mul(31).wrapping_add(index.0 as u8) | 1;
    let bytes: Vec<u8> = (0..bytes).map(|at| seed.wrapping_add(at as u8) | 1).collect();
    Entry { id: LogId::new(term, index), payload: Payload::Data(Data::new(Bytes::from(bytes))) }
}

/// Everything that a log holds, read from its files.
pub fn state_of<F: Files>(files: &F, log: &Log) -> Result<State, Error> {
    log.groups()
        .map(|group| {
            let mut entries: Vec<Entry> = Vec::new();
            // A read gives what lies before the first entry that it cannot give; the next one says why.
            while group.first().0 + (entries.len() as u64) <= group.last.index.0 {
                let from = Index(group.first().0 + entries.len() as u64);
                entries.extend(log.plan_read(group.group, from, group.last.index.next(), 1 << 30).run(files)?);
            }
            assert!(entries.iter().all(|entry| group.id_at(entry.id.index) == Some(entry.id)), "names agree");
            let state = GroupState { before_first: group.before_first, entries };
            assert_eq!(state.last(), group.last, "group {} is read to its end", group.group);
            Ok((group.group, state))
        })
        .collect()
}

pub fn shown(state: &State) -> String {
    let one = |(group, state): (&GroupId, &GroupState)| {
        let names: Vec<String> = state.entries.iter().map(|entry| entry.id.to_string()).collect();
        format!("group {group}: after {} {names:?}", state.before_first)
    };
    state.iter().map(one).collect::<Vec<_>>().join(", ")
}
