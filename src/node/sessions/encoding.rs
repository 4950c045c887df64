//! The table as bytes, for snapshots and for comparing nodes: one byte string per session, by rising id.
//!
//! docs/formats.md has the table.

use bytes::{BufMut, Bytes, BytesMut};

use super::session::Session;
use super::table::{Limits, Sessions};
use crate::checksum::Checksum;
use crate::codec::{Error, Reader};
use crate::types::{Index, RequestNumber, SessionId};

/// A session without requests and answers, an index, and an answer without its bytes.
const SESSION_BYTES: usize = 8 + 8 + 8 + 4 + 4;
const INDEX_BYTES: usize = 8;
const ANSWER_BYTES: usize = 8 + 4;

/// A table on its way back from its bytes.
#[derive(Debug)]
pub struct Restoring {
    limits: Limits,
    /// By rising id.
    sessions: Vec<Session>,
}

impl Sessions {
    /// The table, one session at a time. One table has one encoding.
    pub fn encoded(&self) -> impl Iterator<Item = Bytes> {
        self.iter().map(|session| {
            let mut out = BytesMut::new();
            put_session(&mut out, session);
            out.freeze()
        })
    }

    /// Appends the encoding of the first session behind `last`, with its length before it, and gives its id: for
    /// whoever takes the table in pieces.
    pub fn encode_next(&self, last: Option<SessionId>, out: &mut BytesMut) -> Option<SessionId> {
        let session = self.next_behind(last)?;
        let start = out.len();
        out.put_u32_le(0);
        put_session(out, session);
        let length = u32::try_from(out.len() - start - 4).expect("bounded by the limits");
        out[start..start + 4].copy_from_slice(&length.to_le_bytes());
        Some(session.id)
    }

    /// Appends the encoding of one session; false, and nothing, if it is not there.
    pub fn encode(&self, id: SessionId, out: &mut BytesMut) -> bool {
        let session = self.session(id);
        session.into_iter().for_each(|session| put_session(out, session));
        session.is_some()
    }

    /// The table that [`Sessions::encoded`] gave.
    pub fn restore<'a>(limits: Limits, encoded: impl IntoIterator<Item = &'a [u8]>) -> Result<Sessions, Error> {
        let mut restoring = Restoring::new(limits);
        encoded.into_iter().try_for_each(|bytes| restoring.add(bytes))?;
        restoring.finish()
    }

    /// Equal on all nodes at equal index, once the answers of all that was run are kept.
    pub fn digest(&self) -> Checksum {
        let mut out = BytesMut::new();
        self.iter().fold(Checksum::of(&[]), |before, session| {
            out.clear();
            put_session(&mut out, session);
            Checksum::salted(u64::from(before.0), &[&out])
        })
    }
}

impl Restoring {
    pub fn new(limits: Limits) -> Restoring {
        Restoring { limits, sessions: Vec::new() }
    }

    /// The most bytes that one session takes.
    pub fn session_bytes_max(&self) -> usize {
        SESSION_BYTES + self.limits.answers_max * (INDEX_BYTES + ANSWER_BYTES) + self.limits.answer_bytes_max
    }

    /// The next session's bytes.
    pub fn add(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let session = take_session(Reader::new(bytes), &self.limits)?;
        if self.sessions.len() == self.limits.sessions_max {
            let (max, found) = (self.limits.sessions_max as u64, self.sessions.len() as u64 + 1);
            return Err(Error::OverLimit { what: "number of sessions", max, found });
        }
        if self.sessions.last().is_some_and(|last| last.id >= session.id) {
            return Err(Error::Invalid { what: "next session id in order", found: session.id.0 });
        }
        self.sessions.push(session);
        Ok(())
    }

    /// That was the last one.
    pub fn finish(mut self) -> Result<Sessions, Error> {
        self.sessions.sort_by_key(|session| session.last_use);
        if let Some(pair) = self.sessions.windows(2).find(|pair| pair[0].last_use == pair[1].last_use) {
            return Err(Error::Invalid { what: "last use of one session alone", found: pair[0].last_use.0 });
        }
        let mut table = Sessions::with_limits(self.limits);
        self.sessions.into_iter().for_each(|session| table.push(session));
        Ok(table)
    }
}

fn put_session(out: &mut BytesMut, session: &Session) {
    out.put_u64_le(session.id.0);
    out.put_u64_le(session.last_use.0);
    out.put_u64_le(session.first.0);
    out.put_u32_le(u32::try_from(session.indexes.len()).expect("bounded by the limits"));
    for index in &session.indexes {
        out.put_u64_le(index.0);
    }
    out.put_u32_le(u32::try_from(session.answers.len()).expect("bounded by the limits"));
    for (number, answer) in &session.answers {
        out.put_u64_le(number.0);
        out.put_u32_le(u32::try_from(answer.len()).expect("bounded by the limits"));
        out.put_slice(answer);
    }
}

fn take_session(mut reader: Reader<'_>, limits: &Limits) -> Result<Session, Error> {
    let mut session = Session::new(SessionId(reader.u64("session")?));
    session.last_use = Index(reader.u64("last use")?);
    session.first = RequestNumber(reader.u64("lowest number")?);
    let done = reader.length(limits.answers_max, "requests done")?;
    if session.last_use.0 < session.id.0 || session.id.0 == 0 {
        return Err(Error::Invalid { what: "last use of a session", found: session.last_use.0 });
    }
    if session.first.0 == 0 || session.first.0.checked_add(done as u64).is_none() {
        return Err(Error::Invalid { what: "lowest number", found: session.first.0 });
    }
    let mut last = Index(session.id.0);
    for _ in 0..done {
        let index = Index(reader.u64("index of a request")?);
        if index <= last || index > session.last_use {
            return Err(Error::Invalid { what: "index of a request", found: index.0 });
        }
        session.indexes.push_back(index);
        last = index;
    }
    for _ in 0..reader.length(done, "answers")? {
        let number = RequestNumber(reader.u64("request number")?);
        let rises = session.answers.back().is_none_or(|(last, _)| *last < number);
        if !rises || number < session.first || number >= session.next() {
            return Err(Error::Invalid { what: "number of an answer", found: number.0 });
        }
        let length = reader.length(limits.answer_bytes_max - session.answer_bytes, "length of an answer")?;
        session.keep(number, Bytes::copy_from_slice(reader.take(length, "answer")?), limits);
    }
    reader.finish("session")?;
    Ok(session)
}
