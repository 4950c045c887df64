//! What must hold, whatever happens: each rule has a name, and a run ends at the first that is broken.
//!
//! They know what clients were told and what left the nodes; they believe nothing that a node says of itself without a
//! second witness.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use bytes::Bytes;

use super::copies::{Copies, Name};
use super::sessions::{Fate, Sessions};
use super::trims::Trims;
use crate::checksum::Checksum;
use crate::codec;
use crate::machine::command::Answer;
use crate::machine::{Map, StateMachine};
use crate::net::Response;
use crate::node::driver::Driver;
use crate::node::sessions::Limits;
use crate::raft::Replica;
use crate::raft::invariants::Invariants;
use crate::types::{Index, Membership, Payload, Service, SessionId};

/// A rule, by the letter under which docs/testing.md tells more of it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Oracle {
    /// A: nothing acknowledged is lost or changed, and it is in the log once.
    Acknowledged,
    /// D: the rules of the protocol.
    Protocol,
    /// E: nodes that have applied as far are in the same state.
    Agreement,
    /// F: what was not acknowledged is there whole, or not at all.
    Whole,
    /// G: a node starts again after whatever is tolerated, and to recover twice is to recover once.
    Recovery,
    /// H: when nothing goes wrong any more, the cluster comes to rest with every request answered.
    Progress,
}

/// A rule was broken: a bug, never a fault of the simulated world. The seed and the options replay it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("seed {seed}, step {step}: oracle {oracle}: {explanation}")]
pub struct Violation {
    pub seed: u64,
    pub step: u64,
    pub oracle: Oracle,
    pub explanation: String,
}

/// A violation without its place in the run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Broken {
    pub oracle: Oracle,
    pub explanation: String,
}

/// Which client, and the how manieth of its commands: what every record begins with.
pub(super) type RecordName = (u64, u64);

/// Bytes of a [`RecordName`] at the start of a record.
pub(super) const RECORD_NAME_BYTES: usize = 16;

/// What clients and nodes said so far.
#[derive(Debug, Default)]
pub(super) struct Oracles {
    pub invariants: Invariants,
    /// Every record that a client has sent.
    issued: BTreeMap<RecordName, Bytes>,
    /// Where a client was told that its record stands.
    acknowledged: BTreeMap<Index, RecordName>,
    /// Where each number of a session was committed, with which command, and what came of it there.
    placed: BTreeMap<Name, Placed>,
    /// Up to here `placed` is filled.
    placed_end: Index,
    /// What clients were refused.
    pub copies: Copies,
    pub sessions: Sessions,
    pub trims: Trims,
    /// Where each of the clients' commands took effect.
    done: BTreeMap<RecordName, Index>,
    /// Those of which it was said for certain that they did not, and will not.
    failed: BTreeSet<RecordName>,
    /// The last configuration up to there.
    membership: Membership,
    /// State by applied index, of whichever node came there first.
    states: BTreeMap<Index, Digests>,
}

/// A number of a session, as it is committed.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Placed {
    index: Index,
    command: RecordName,
    fate: Fate,
}

/// A node's state in short: log, machine, sessions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Digests {
    log: Checksum,
    machine: Checksum,
    sessions: Checksum,
}

impl Oracles {
    /// The members before the first entry, and what nodes keep of sessions.
    pub fn begin_with(&mut self, first: Membership, sessions: Limits) {
        self.membership = first;
        self.sessions = Sessions::with_limits(sessions);
    }

    /// The last configuration that is committed.
    pub fn membership(&self) -> &Membership {
        &self.membership
    }

    pub fn issued(&mut self, name: RecordName, record: Bytes) {
        self.issued.insert(name, record);
    }

    /// A client was told of its command that this number of a session stands at `index`, and what the map answered; without
    /// an answer it is an append. It is that very command that stands there, whichever others had its number before.
    pub fn acknowledged(
        &mut self,
        (name, command): (Name, RecordName),
        index: Index,
        answer: Option<&Bytes>,
    ) -> Result<(), Broken> {
        let (session, number) = name;
        let told = (index, answer.map_or(Fate::Stands, |answer| Fate::Run(answer.clone())));
        let placed = self.placed.get(&name);
        if let Some(placed) = placed.filter(|placed| placed.command != command) {
            let explanation = format!(
                "request {number} of session {session} was acknowledged at {index} to who waits for command {command:?}, \
                 and stands in the log with another one: {placed:?}"
            );
            return Err(Broken::new(Oracle::Acknowledged, explanation));
        }
        let placed = placed.map(|placed| (placed.index, placed.fate.clone()));
        if placed.as_ref() != Some(&told) {
            let explanation = format!(
                "request {number} of session {session} was acknowledged as {told:?}, and is committed as {placed:?}"
            );
            return Err(Broken::new(Oracle::Acknowledged, explanation));
        }
        if answer.is_none() {
            self.acknowledged.insert(index, command);
        }
        Ok(())
    }

    /// Whoever waited for a command is told that it did not happen, and will not.
    pub fn failed(&mut self, command: RecordName) -> Result<(), Broken> {
        self.failed.insert(command);
        self.done.get(&command).map_or(Ok(()), |index| self.check_failed(command, *index))
    }

    fn check_failed(&self, command: RecordName, index: Index) -> Result<(), Broken> {
        if !self.failed.contains(&command) {
            return Ok(());
        }
        let explanation =
            format!("command {command:?} of a client was told not to be done, and is committed at {index}");
        Err(Broken::new(Oracle::Acknowledged, explanation))
    }

    /// A client was told that its session is gone.
    pub fn session_gone(&self, session: SessionId) -> Result<(), Broken> {
        if !self.sessions.contains(session) {
            return Ok(());
        }
        let explanation = format!("session {session} was refused as gone, and has not made room for another");
        Err(Broken::new(Oracle::Acknowledged, explanation))
    }

    /// Whether the map has answered a command, and the answer had to make room: nobody is told it any more.
    pub fn is_answer_gone(&self, name: Name) -> bool {
        matches!(self.placed.get(&name), Some(Placed { fate: Fate::Run(_), .. })) && !self.sessions.keeps_answer(name)
    }

    /// A read of a client's key shows what it held at `since` or later.
    pub fn check_value(&self, key: &Bytes, since: Index, answer: &Bytes) -> Result<(), Broken> {
        let shown = match Answer::decode(answer) {
            Ok(Answer::Value(value)) => value,
            other => return Err(Broken::new(Oracle::Whole, format!("{other:?} is no answer to a read"))),
        };
        if self.sessions.had_value(key, since, &shown) {
            return Ok(());
        }
        let explanation = format!("a read of {key:?} shows {shown:?}, which it has not held since {since}");
        Err(Broken::new(Oracle::Acknowledged, explanation))
    }

    /// How many records were acknowledged.
    pub fn acknowledged_records(&self) -> u64 {
        self.acknowledged.len() as u64
    }

    /// The records that a node gives for the indexes `from..to`: those that were acknowledged are among them, and all
    /// are what some client sent.
    pub fn check_records(&self, from: Index, to: Index, records: &[(Index, Bytes)]) -> Result<(), Broken> {
        let mut given = BTreeMap::new();
        for (index, record) in records {
            let name = record_name(record).filter(|name| self.issued.get(name) == Some(record));
            let Some(name) = name else {
                let explanation = format!("the record at {index} is none that a client sent ({} bytes)", record.len());
                return Err(Broken::new(Oracle::Whole, explanation));
            };
            given.insert(*index, name);
        }
        for (index, name) in self.acknowledged.range(from..to) {
            if given.get(index) != Some(name) {
                let explanation = format!(
                    "record {name:?} was acknowledged at {index}, where {:?} is read ({from}..{to}: {given:?})",
                    given.get(index)
                );
                return Err(Broken::new(Oracle::Acknowledged, explanation));
            }
        }
        Ok(())
    }

    /// Records given for `from..to` are exactly those that are committed there, in order.
    pub fn check_committed_records(&self, from: Index, to: Index, records: &[(Index, Bytes)]) -> Result<(), Broken> {
        let mut given = records.iter();
        for index in (from.0..to.0).map(Index) {
            let committed = self.invariants.committed_payload(index).and_then(record_in);
            if committed.is_some_and(|record| given.next() != Some(&(index, record))) {
                let explanation = format!("the record that is committed at {index} is not given ({from}..{to})");
                return Err(Broken::new(Oracle::Acknowledged, explanation));
            }
        }
        match given.next() {
            None => Ok(()),
            Some((index, _)) => {
                Err(Broken::new(Oracle::Whole, format!("a record is given at {index}, where none is committed")))
            }
        }
    }

    /// The last index that a client was told.
    pub fn last_acknowledged(&self) -> Index {
        self.acknowledged.last_key_value().map_or(Index::ZERO, |(index, _)| *index)
    }

    /// What a node has committed and applied, after each of its steps.
    pub fn check_node(&mut self, driver: &Driver<Map>) -> Result<(), Broken> {
        while self.placed_end < self.invariants.committed() {
            self.placed_end = self.placed_end.next();
            self.place(self.placed_end)?;
        }
        self.trims.check_beginning(driver.replica().first_index())?;
        if driver.is_stateless() {
            return Ok(());
        }
        let (applied, log) = driver.applied();
        let digests = Digests { log, machine: driver.machine().digest(), sessions: driver.sessions().digest() };
        let first = *self.states.entry(applied.index).or_insert(digests);
        if first != digests {
            let explanation =
                format!("at {applied} node {} is {digests:?}, others are {first:?}", driver.replica().id());
            return Err(Broken::new(Oracle::Agreement, explanation));
        }
        Ok(())
    }

    /// A node that has applied all that is committed has the sessions that the rules leave.
    pub fn check_sessions(&self, driver: &Driver<Map>) -> Result<(), Broken> {
        let (applied, _) = driver.applied();
        let (table, open) = (driver.sessions(), self.sessions.ids().collect::<Vec<_>>());
        let is_same = table.len() == open.len() && open.iter().all(|session| table.contains(*session));
        if is_same || applied.index < self.placed_end {
            return Ok(());
        }
        let explanation =
            format!("at {applied} node {} has {} sessions, and not {open:?}", driver.replica().id(), table.len());
        Err(Broken::new(Oracle::Agreement, explanation))
    }

    /// Whoever would read by lease now, by a clock that was read just now, knows all that is committed anywhere.
    pub fn check_lease(&self, replica: &Replica) -> Result<(), Broken> {
        let (commit, committed) = (replica.status().commit, self.invariants.committed());
        if !replica.holds_lease() || commit >= committed {
            return Ok(());
        }
        let explanation = format!("node {} holds a lease at {commit}, and {committed} is committed", replica.id());
        Err(Broken::new(Oracle::Acknowledged, explanation))
    }

    /// A node answers a client: what it refuses may not be in the log by then, either.
    pub fn answered(&mut self, client: u64, response: &Response) -> Result<(), Broken> {
        for (name, command) in self.copies.answered(client, response)? {
            let counts = |placed: &&Placed| placed.command == command && placed.fate != Fate::NotRun;
            let placed = self.placed.get(&name).filter(counts);
            placed.map_or(Ok(()), |placed| self.copies.check(name, command, placed.index))?;
        }
        Ok(())
    }

    /// The entry at `index` is committed: each command only once.
    fn place(&mut self, index: Index) -> Result<(), Broken> {
        if let Some(Payload::Membership(membership)) = self.invariants.committed_payload(index) {
            self.membership.clone_from(membership);
        }
        if let Some(payload) = self.invariants.committed_payload(index) {
            self.trims.place(index, payload);
        }
        let Some(Payload::Data(data)) = self.invariants.committed_payload(index) else { return Ok(()) };
        let Ok((command, body)) = codec::decode_command(&data.bytes) else {
            return Err(Broken::new(Oracle::Whole, format!("entry {index} is no command")));
        };
        if command.service == Service::Register {
            self.sessions.register(index);
            return Ok(());
        }
        let name = (command.session, command.number);
        let (session, number) = name;
        let Some(known) = self.copies.command(name, command.service, &body) else {
            let explanation = format!("entry {index} is none that was sent as request {number} of session {session}");
            return Err(Broken::new(Oracle::Whole, explanation));
        };
        let fate = self.sessions.take(index, &command, &body);
        let placed = Placed { index, command: known, fate: fate.clone() };
        if let Some(Placed { index: first, .. }) = self.placed.insert(name, placed) {
            let explanation = format!("request {number} of session {session} is committed at {first} and at {index}");
            return Err(Broken::new(Oracle::Acknowledged, explanation));
        }
        if fate == Fate::NotRun {
            return Ok(());
        }
        self.copies.check(name, known, index)?;
        if let Some(first) = self.done.insert(known, index) {
            let explanation = format!("command {known:?} of a client is carried out at {first} and at {index}");
            return Err(Broken::new(Oracle::Acknowledged, explanation));
        }
        self.check_failed(known, index)?;
        if command.service == Service::Append {
            self.check_records(index, index, &[(index, body)])?;
        }
        Ok(())
    }
}

impl Oracle {
    /// The letter under which it is known.
    pub fn letter(self) -> char {
        match self {
            Oracle::Acknowledged => 'A',
            Oracle::Protocol => 'D',
            Oracle::Agreement => 'E',
            Oracle::Whole => 'F',
            Oracle::Recovery => 'G',
            Oracle::Progress => 'H',
        }
    }
}

impl Broken {
    pub fn new(oracle: Oracle, explanation: impl Into<String>) -> Broken {
        Broken { oracle, explanation: explanation.into() }
    }
}

impl From<crate::raft::invariants::Violation> for Broken {
    fn from(violation: crate::raft::invariants::Violation) -> Broken {
        Broken::new(Oracle::Protocol, violation.to_string())
    }
}

impl fmt::Display for Oracle {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Oracle::Acknowledged => "A (acknowledged)",
            Oracle::Protocol => "D (protocol)",
            Oracle::Agreement => "E (agreement)",
            Oracle::Whole => "F (whole)",
            Oracle::Recovery => "G (recovery)",
            Oracle::Progress => "H (progress)",
        })
    }
}

fn record_name(record: &Bytes) -> Option<RecordName> {
    let head = record.first_chunk::<RECORD_NAME_BYTES>()?;
    let (client, ordinal) = head.split_at(8);
    let number = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("half of sixteen bytes"));
    Some((number(client), number(ordinal)))
}

/// The record that an entry holds, if it holds one.
fn record_in(payload: &Payload) -> Option<Bytes> {
    let Payload::Data(data) = payload else { return None };
    let (command, body) = codec::decode_command(&data.bytes).ok()?;
    (command.service == Service::Append).then_some(body)
}
