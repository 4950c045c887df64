//! A state machine that keeps its own state: what the node keeps with it, and what a start makes of that (design §8).
//!
//! ```text
//!   entries applied ─▶ machine, sessions ─▶ end of the turn: commit(applied, base + sessions that changed) ─▶ answers
//!   start: recovered() ─▶ base, sessions ─▶ is `applied` in this log under the same name? ─▶ on behind it
//! ```
//!
//! Under key 0 stands the base: whose state it is, and what a snapshot's manifest would say of it. Under the number of a
//! session stand its requests and answers. docs/formats.md has the table.

use std::collections::BTreeSet;

use bytes::{BufMut, Bytes, BytesMut};

use super::start::StartError;
use super::{Driver, Stopped};
use crate::checksum::Checksum;
use crate::codec::{self, Error, Reader, membership, put_membership};
use crate::machine::{Commit, Durable, Recovered, StateMachine};
use crate::mutant::{self, Mutant};
use crate::node::sessions::{self, Decision, Limits, Sessions};
use crate::snapshot::Description;
use crate::types::{ClusterId, Command, GroupId, Incarnation, Index, LogId, NodeId, SessionId};
use crate::wal::Identity;

const FORMAT_VERSION: u32 = 1;
/// Of the record that is there once. Sessions count from 1.
const BASE_KEY: u64 = 0;

/// What a durable machine has to keep of what the node changes.
#[derive(Debug)]
pub(super) struct Kept {
    /// The last entry of the last commit.
    committed: LogId,
    /// Sessions that have changed since, or went.
    changed: BTreeSet<SessionId>,
    /// The machine was made of a snapshot, and holds nothing of the node's yet.
    replaces: bool,
}

/// What a durable machine brings.
#[derive(Debug)]
pub(super) struct Own {
    pub of: Description,
    pub sessions: Sessions,
}

impl Kept {
    /// Of a machine that has committed up to here; or of one that was made of a snapshot, which it has to keep yet.
    pub fn new(committed: LogId, replaces: bool) -> Kept {
        Kept { committed, changed: BTreeSet::new(), replaces }
    }

    /// The table has taken this command of a client, or registered this session and let another one go.
    pub fn note(&mut self, command: &Command, decision: &Decision) {
        match decision {
            Decision::Registered { session, gone } => {
                self.changed.insert(*session);
                self.changed.extend(gone);
            }
            Decision::SessionGone => {}
            Decision::Run | Decision::Duplicate(_) | Decision::Stale | Decision::Gap { .. } => {
                self.changed.insert(command.session);
            }
        }
    }
}

impl<M: StateMachine> Driver<M> {
    /// A durable machine keeps what was applied since it was last here. Nothing that came of it has left yet.
    pub(super) fn commit_state(&mut self) -> Result<(), Stopped> {
        let is_due = self.kept.as_ref().is_some_and(|kept| kept.committed != self.applied || kept.replaces);
        // Of an entry that the machine could not apply nothing is kept.
        if !is_due || self.stopped.is_some() {
            return Ok(());
        }
        let description = self.description();
        let kept = self.kept.as_mut().expect("looked at above");
        let replaces = std::mem::take(&mut kept.replaces);
        let changed = std::mem::take(&mut kept.changed);
        let changed = if replaces { self.sessions.ids().collect() } else { changed };
        let own = self.pipeline.superblock.state();
        let identity = Identity { cluster: own.cluster, node: own.node, incarnation: own.incarnation };
        let base = base_record(identity, &description, self.sessions.len());
        let sessions = &self.sessions;
        let durable = self.machine.durable().expect("it was durable at the start");
        if mutant::is_on(Mutant::SessionsKeptApart) {
            let kept = &mut std::iter::once((BASE_KEY, Some(base.clone())));
            durable.commit(Commit { applied: self.applied, replaces, kept }).map_err(Stopped::Machine)?;
        }
        let records = changed.into_iter().map(|id| (id.0, session_record(sessions, id)));
        let mut records = std::iter::once((BASE_KEY, Some(base))).chain(records);
        let commit = Commit { applied: self.applied, replaces, kept: &mut records };
        durable.commit(commit).map_err(Stopped::Machine)?;
        kept.committed = self.applied;
        Ok(())
    }

    /// The machine is another one, made of a snapshot.
    pub(super) fn replace_kept(&mut self) {
        if let Some(kept) = &mut self.kept {
            *kept = Kept::new(LogId::ZERO, true);
        }
    }
}

/// What a durable machine has from before.
pub(super) fn recover(
    durable: &mut dyn Durable,
    identity: Identity,
    limits: Limits,
) -> Result<Option<Own>, StartError> {
    let Some(Recovered { applied, kept }) = durable.recovered().map_err(StartError::Machine)? else { return Ok(None) };
    let damaged = |error| StartError::MachineDamaged { applied, error };
    let (found, own) = decode(kept, limits).map_err(damaged)?;
    if found != identity {
        return Err(StartError::MachineOfAnother { found, expected: identity });
    }
    if own.of.point != applied {
        let error = Error::Invalid { what: "index of the last entry of the base", found: own.of.point.index.0 };
        return Err(damaged(error));
    }
    Ok(Some(own))
}

fn decode(mut kept: Vec<(u64, Bytes)>, limits: Limits) -> Result<(Identity, Own), Error> {
    kept.sort_by_key(|(key, _)| *key);
    let mut records = kept.iter();
    let Some((BASE_KEY, base)) = records.next() else {
        return Err(Error::TooShort { what: "what is kept with the state", needed: 1, found: 0 });
    };
    let (identity, of, count) = decode_base(content(BASE_KEY, base)?)?;
    if records.len() != count {
        return Err(Error::Invalid { what: "number of sessions that the base gives", found: records.len() as u64 });
    }
    let mut restoring = sessions::Restoring::new(limits);
    for (key, bytes) in records {
        let session = content(*key, bytes)?;
        let found = Reader::new(session).u64("session")?;
        if found != *key {
            return Err(Error::Invalid { what: "session of its key", found });
        }
        restoring.add(session)?;
    }
    Ok((identity, Own { of, sessions: restoring.finish()? }))
}

fn base_record(identity: Identity, of: &Description, sessions: usize) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u32_le(0);
    out.put_u32_le(FORMAT_VERSION);
    out.put_u128_le(identity.cluster.0);
    out.put_u64_le(identity.node.0);
    out.put_u64_le(identity.incarnation.0);
    codec::put_log_id(&mut out, of.point);
    codec::put_log_id(&mut out, of.membership_id);
    out.put_u64_le(of.log_start.0);
    out.put_u64_le(of.last_record.0);
    out.put_u32_le(of.log_digest.0);
    out.put_u32_le(u32::try_from(sessions).expect("their number is bounded"));
    put_membership(&mut out, &of.membership);
    checked(BASE_KEY, out)
}

fn decode_base(bytes: &[u8]) -> Result<(Identity, Description, usize), Error> {
    let mut reader = Reader::new(bytes);
    let found = reader.u32("format of what is kept with the state")?;
    if found != FORMAT_VERSION {
        return Err(Error::Invalid { what: "format of what is kept with the state", found: u64::from(found) });
    }
    let cluster = ClusterId(reader.u128("cluster id")?);
    let (node, incarnation) = (NodeId(reader.u64("node id")?), Incarnation(reader.u64("incarnation")?));
    let (point, membership_id) = (codec::log_id(&mut reader)?, codec::log_id(&mut reader)?);
    let log_start = Index(reader.u64("log start")?);
    if membership_id.index > point.index {
        return Err(Error::Invalid { what: "index of the configuration", found: membership_id.index.0 });
    }
    if log_start < Index::FIRST || log_start.0 - 1 > point.index.0 {
        return Err(Error::Invalid { what: "log start", found: log_start.0 });
    }
    let last_record = Index(reader.u64("last record")?);
    if last_record > point.index {
        return Err(Error::Invalid { what: "last record", found: last_record.0 });
    }
    let log_digest = Checksum(reader.u32("digest of the log")?);
    let sessions = reader.u32("number of sessions")? as usize;
    let membership = membership(&mut reader)?;
    reader.finish("what is kept with the state")?;
    let group = GroupId::CLUSTER;
    let of = Description { cluster, group, point, membership, membership_id, log_start, last_record, log_digest };
    Ok((Identity { cluster, node, incarnation }, of, sessions))
}

/// None of a session that went.
fn session_record(sessions: &Sessions, id: SessionId) -> Option<Bytes> {
    let mut out = BytesMut::new();
    out.put_u32_le(0);
    sessions.encode(id, &mut out).then(|| checked(id.0, out))
}

/// Sets the checksum at the front: of what follows, salted with the key.
fn checked(key: u64, mut record: BytesMut) -> Bytes {
    let checksum = Checksum::salted(key, &[&record[4..]]);
    record[..4].copy_from_slice(&checksum.0.to_le_bytes());
    record.freeze()
}

/// What stands behind the checksum, if that is right.
fn content(key: u64, record: &[u8]) -> Result<&[u8], Error> {
    let mut reader = Reader::new(record);
    let expected = Checksum(reader.u32("checksum of what is kept with the state")?);
    let found = Checksum::salted(key, &[&record[4..]]);
    match found == expected {
        true => Ok(&record[4..]),
        false => Err(Error::Checksum { what: "what is kept with the state", expected, found }),
    }
}
