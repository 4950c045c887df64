//! What a node's snapshot holds: the answers of sessions and the state machine, as of one entry, in one stream.
//!
//! docs/formats.md has the table. Membership, log start and the entry's name stand in the snapshot's manifest.

use bytes::{Buf, BufMut, BytesMut};

use crate::codec::{Error, Reader};
use crate::machine::{self, Snapshot, StateMachine};
use crate::node::sessions::{self, Limits, Sessions};
use crate::snapshot::ChunkSource;
use crate::types::SessionId;

const FORMAT_VERSION: u32 = 1;
/// Format version, zeros.
const HEAD_BYTES: usize = 8;
/// Sessions are given together until they have so many bytes.
const PIECE_BYTES: usize = 64 << 10;

/// A node's state between two entries: made in constant time, written on another thread, and dropped there.
pub struct Checkpoint {
    sessions: Sessions,
    machine: Box<dyn Snapshot>,
    next: Next,
}

/// What comes next in the stream.
#[derive(Clone, Copy, Debug)]
enum Next {
    Head,
    /// The sessions behind this one.
    Sessions(Option<SessionId>),
    Machine,
}

/// A node's state on its way back.
pub struct Restoring<M> {
    sessions: Sessioned,
    machine: Box<dyn machine::Restoring<M>>,
    /// What has come of a head or of a session whose end has not.
    pending: BytesMut,
    has_head: bool,
}

/// How far the sessions are.
#[derive(Debug)]
enum Sessioned {
    Coming(sessions::Restoring),
    There(Sessions),
}

impl Checkpoint {
    /// The state as it is now, if the machine gives snapshots.
    pub fn of(sessions: &Sessions, machine: &impl StateMachine) -> Option<Checkpoint> {
        let machine = machine.snapshot()?;
        Some(Checkpoint { sessions: sessions.clone(), machine, next: Next::Head })
    }
}

impl ChunkSource for Checkpoint {
    fn encode_next(&mut self, out: &mut BytesMut) -> bool {
        let start = out.len();
        match self.next {
            Next::Head => {
                out.put_u32_le(FORMAT_VERSION);
                out.put_u32_le(0);
                self.next = Next::Sessions(None);
            }
            Next::Sessions(last) => {
                let mut last = last;
                while out.len() - start < PIECE_BYTES {
                    let Some(session) = self.sessions.encode_next(last, out) else {
                        out.put_u32_le(0);
                        self.next = Next::Machine;
                        return true;
                    };
                    last = Some(session);
                }
                self.next = Next::Sessions(last);
            }
            Next::Machine => return self.machine.encode_next(out),
        }
        true
    }
}

impl<M: StateMachine> Restoring<M> {
    /// One for a state such as `machine` gives, if it gives any.
    pub fn new(machine: &M, limits: Limits) -> Option<Restoring<M>> {
        let sessions = Sessioned::Coming(sessions::Restoring::new(limits));
        Some(Restoring { sessions, machine: machine.restoring()?, pending: BytesMut::new(), has_head: false })
    }

    /// The next bytes, cut anywhere.
    ///
    /// # Errors
    /// If they are not what a [`Checkpoint`] gave. Then nothing comes of it.
    pub fn add(&mut self, bytes: &[u8]) -> Result<(), Error> {
        if matches!(self.sessions, Sessioned::There(_)) {
            return self.machine.add(bytes);
        }
        self.pending.extend_from_slice(bytes);
        if !self.has_head && self.pending.len() >= HEAD_BYTES {
            check_head(&self.pending)?;
            self.pending.advance(HEAD_BYTES);
            self.has_head = true;
        }
        if self.has_head { self.take_sessions() } else { Ok(()) }
    }

    /// Those were all.
    ///
    /// # Errors
    /// If more should have come, or they are not what a [`Checkpoint`] gave.
    pub fn finish(self) -> Result<(Sessions, M), Error> {
        match self.sessions {
            Sessioned::There(sessions) => Ok((sessions, self.machine.finish()?)),
            Sessioned::Coming(_) => {
                let found = self.pending.len();
                Err(Error::TooShort { what: "the sessions of a state", needed: found + 1, found })
            }
        }
    }

    fn take_sessions(&mut self) -> Result<(), Error> {
        while let Sessioned::Coming(sessions) = &mut self.sessions {
            if self.pending.len() < 4 {
                return Ok(());
            }
            let length = Reader::new(&self.pending).length(sessions.session_bytes_max(), "bytes of a session")?;
            if length > 0 {
                let Some(session) = self.pending.get(4..4 + length) else { return Ok(()) };
                sessions.add(session)?;
                self.pending.advance(4 + length);
                continue;
            }
            let whole = std::mem::replace(sessions, sessions::Restoring::new(Limits::default())).finish()?;
            self.sessions = Sessioned::There(whole);
            self.pending.advance(4);
            let rest = std::mem::take(&mut self.pending);
            return self.machine.add(&rest);
        }
        Ok(())
    }
}

impl std::fmt::Debug for Checkpoint {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Checkpoint").field("next", &self.next).finish_non_exhaustive()
    }
}

impl<M> std::fmt::Debug for Restoring<M> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Restoring").field("pending", &self.pending.len()).finish_non_exhaustive()
    }
}

fn check_head(bytes: &[u8]) -> Result<(), Error> {
    let mut reader = Reader::new(bytes);
    for (what, expected) in [("format of a state", FORMAT_VERSION), ("zero", 0)] {
        let found = reader.u32(what)?;
        if found != expected {
            return Err(Error::Invalid { what, found: u64::from(found) });
        }
    }
    Ok(())
}
