//! What must hold, whatever happens: each rule has a name, and a run ends at the first that is broken.
//!
//! They know what clients were told and what left the nodes; they believe nothing that a node says of itself without a
//! second witness.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;

use super::copies::Copies;
use crate::checksum::Checksum;
use crate::codec;
use crate::machine::{Map, StateMachine};
use crate::net::Response;
use crate::node::driver::Driver;
use crate::raft::Replica;
use crate::raft::invariants::Invariants;
use crate::types::{Index, Membership, Payload, RequestNumber, Service, SessionId};

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
    /// Where each command of a session was committed.
    placed: BTreeMap<(SessionId, RequestNumber), Index>,
    /// Up to here `placed` is filled.
    placed_end: Index,
    /// What clients were refused.
    pub copies: Copies,
    /// The last configuration up to there.
    membership: Membership,
    /// State by applied index, of whichever node came there first.
    states: BTreeMap<Index, Digests>,
}

/// A node's state in short: log, machine, sessions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Digests {
    log: Checksum,
    machine: Checksum,
    sessions: Checksum,
}

impl Oracles {
    /// The members before the first entry.
    pub fn begin_with(&mut self, first: Membership) {
        self.membership = first;
    }

    /// The last configuration that is committed.
    pub fn membership(&self) -> &Membership {
        &self.membership
    }

    pub fn issued(&mut self, name: RecordName, record: Bytes) {
        self.issued.insert(name, record);
    }

    /// A client was told that a command stands at `index`; `record` names it if it is an append.
    pub fn acknowledged(
        &mut self,
        (session, number): (SessionId, RequestNumber),
        index: Index,
        record: Option<RecordName>,
    ) -> Result<(), Broken> {
        let placed = self.placed.get(&(session, number)).copied();
        if placed != Some(index) {
            let explanation = format!(
                "request {number} of session {session} was acknowledged at {index}, and is committed at {placed:?}"
            );
            return Err(Broken::new(Oracle::Acknowledged, explanation));
        }
        if let Some(record) = record {
            self.acknowledged.insert(index, record);
        }
        Ok(())
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
        for name in self.copies.answered(client, response)? {
            self.placed.get(&name).map_or(Ok(()), |index| self.copies.check(name, *index))?;
        }
        Ok(())
    }

    /// The entry at `index` is committed: each command only once.
    fn place(&mut self, index: Index) -> Result<(), Broken> {
        if let Some(Payload::Membership(membership)) = self.invariants.committed_payload(index) {
            self.membership.clone_from(membership);
        }
        let Some(Payload::Data(data)) = self.invariants.committed_payload(index) else { return Ok(()) };
        let Ok((command, body)) = codec::decode_command(&data.bytes) else {
            return Err(Broken::new(Oracle::Whole, format!("entry {index} is no command")));
        };
        if command.service == Service::Register {
            return Ok(());
        }
        if let Some(first) = self.placed.insert((command.session, command.number), index) {
            let (session, number) = (command.session, command.number);
            let explanation = format!("request {number} of session {session} is committed at {first} and at {index}");
            return Err(Broken::new(Oracle::Acknowledged, explanation));
        }
        self.copies.check((command.session, command.number), index)?;
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
