//! What is said to the built-in map, as values and as bytes: shared by the map and its clients.
//!
//! The byte tables stand in docs/formats.md.
//!
//! Answers to commands are a few bytes, because each node keeps them for clients that ask again. So a failed
//! [`Command::CompareAndSet`] does not give the value it found: a [`Query::Get`] does.

use bytes::{BufMut, Bytes, BytesMut};

use crate::codec::{Error, Reader};
use crate::limits::{RECORD_BYTES_MAX, WIRE_FRAME_BYTES_MAX};

/// The longest key.
pub const KEY_BYTES_MAX: usize = 4096;
/// The longest value: with the longest key it is one record. A compare-and-set that names two values must fit one
/// record as a whole.
pub const VALUE_BYTES_MAX: usize = RECORD_BYTES_MAX - KEY_BYTES_MAX - 16;
/// Entries in the answer to one scan.
pub const SCAN_ENTRIES_MAX: usize = 4096;
/// The answer to a scan ends with the entry that takes its keys and values to this size.
pub const SCAN_BYTES_MAX: usize = 1 << 20;

const SCAN_ANSWER_BYTES_MAX: usize = SCAN_BYTES_MAX + VALUE_BYTES_MAX + 2 * KEY_BYTES_MAX + 16 + 8 * SCAN_ENTRIES_MAX;
const _: () = assert!(1 + 4 + KEY_BYTES_MAX + 4 + VALUE_BYTES_MAX <= RECORD_BYTES_MAX);
const _: () = assert!(2 * SCAN_ANSWER_BYTES_MAX < WIRE_FRAME_BYTES_MAX);

/// Changes the map; goes through the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Command {
    /// Sets a key's value, whether it had one or not. Answer: [`Answer::Done`].
    Put { key: Bytes, value: Bytes },
    /// Removes a key. Answer: [`Answer::Deleted`].
    Delete { key: Bytes },
    /// Sets or removes (`new` is `None`) a key's value if it is as expected (`None`: the key is not there). Answer:
    /// [`Answer::Compared`].
    CompareAndSet { key: Bytes, expected: Option<Bytes>, new: Option<Bytes> },
}

/// Asks the map; does not go through the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Query {
    /// Answer: [`Answer::Value`].
    Get { key: Bytes },
    /// Entries from `from` on, below `to` if there is one, in the order of their keys (byte by byte): at most
    /// `limit`, and not more than one answer holds. Answer: [`Answer::Entries`].
    Scan { from: Bytes, to: Option<Bytes>, limit: u32 },
}

/// What the map says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    Done,
    Deleted {
        existed: bool,
    },
    /// The new value is set if it was equal; else nothing has changed.
    Compared {
        equal: bool,
    },
    Value(Option<Bytes>),
    /// `next` is the first key that was left out, to go on from; `None` if there is none.
    Entries {
        entries: Vec<(Bytes, Bytes)>,
        next: Option<Bytes>,
    },
    Refused(Refusal),
}

/// Why the map did nothing. The same on every node for the same bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refusal {
    #[error("not a command or query of the map")]
    Malformed,
    #[error("a key is at most {KEY_BYTES_MAX} bytes, a value at most {VALUE_BYTES_MAX}, a command {RECORD_BYTES_MAX}")]
    TooLarge,
}

impl Command {
    /// The bytes for the log, or [`Refusal::TooLarge`].
    pub fn encode(&self) -> Result<Bytes, Refusal> {
        self.check()?;
        let mut out = BytesMut::with_capacity(self.encoded_bytes());
        match self {
            Command::Put { key, value } => {
                out.put_u8(1);
                put_bytes(&mut out, key);
                put_bytes(&mut out, value);
            }
            Command::Delete { key } => {
                out.put_u8(2);
                put_bytes(&mut out, key);
            }
            Command::CompareAndSet { key, expected, new } => {
                out.put_u8(3);
                put_bytes(&mut out, key);
                put_optional(&mut out, expected);
                put_optional(&mut out, new);
            }
        }
        Ok(out.freeze())
    }

    /// The command in these bytes, copied out of them.
    pub fn decode(bytes: &[u8]) -> Result<Command, Refusal> {
        if bytes.len() > RECORD_BYTES_MAX {
            return Err(Refusal::TooLarge);
        }
        let mut reader = Reader::new(bytes);
        let command = match reader.u8("kind of command")? {
            1 => Command::Put { key: key(&mut reader)?, value: value(&mut reader)? },
            2 => Command::Delete { key: key(&mut reader)? },
            3 => {
                let key = key(&mut reader)?;
                let expected = optional(&mut reader, value)?;
                Command::CompareAndSet { key, expected, new: optional(&mut reader, value)? }
            }
            found => return Err(Error::Invalid { what: "kind of command", found: u64::from(found) }.into()),
        };
        reader.finish("command")?;
        Ok(command)
    }

    fn check(&self) -> Result<(), Refusal> {
        let (key, values) = match self {
            Command::Put { key, value } => (key, [Some(value), None]),
            Command::Delete { key } => (key, [None, None]),
            Command::CompareAndSet { key, expected, new } => (key, [expected.as_ref(), new.as_ref()]),
        };
        let values_fit = values.into_iter().flatten().all(|value| value.len() <= VALUE_BYTES_MAX);
        match key.len() <= KEY_BYTES_MAX && values_fit && self.encoded_bytes() <= RECORD_BYTES_MAX {
            true => Ok(()),
            false => Err(Refusal::TooLarge),
        }
    }

    fn encoded_bytes(&self) -> usize {
        let optional = |value: &Option<Bytes>| value.as_ref().map_or(1, |value| 1 + 4 + value.len());
        match self {
            Command::Put { key, value } => 1 + 4 + key.len() + 4 + value.len(),
            Command::Delete { key } => 1 + 4 + key.len(),
            Command::CompareAndSet { key, expected, new } => 1 + 4 + key.len() + optional(expected) + optional(new),
        }
    }
}

impl Query {
    /// The bytes for a node, or [`Refusal::TooLarge`].
    pub fn encode(&self) -> Result<Bytes, Refusal> {
        let keys = match self {
            Query::Get { key } => [Some(key), None],
            Query::Scan { from, to, .. } => [Some(from), to.as_ref()],
        };
        if keys.into_iter().flatten().any(|key| key.len() > KEY_BYTES_MAX) {
            return Err(Refusal::TooLarge);
        }
        let mut out = BytesMut::new();
        match self {
            Query::Get { key } => {
                out.put_u8(1);
                put_bytes(&mut out, key);
            }
            Query::Scan { from, to, limit } => {
                out.put_u8(2);
                put_bytes(&mut out, from);
                put_optional(&mut out, to);
                out.put_u32_le(*limit);
            }
        }
        Ok(out.freeze())
    }

    /// The query in these bytes, copied out of them.
    pub fn decode(bytes: &[u8]) -> Result<Query, Refusal> {
        let mut reader = Reader::new(bytes);
        let query = match reader.u8("kind of query")? {
            1 => Query::Get { key: key(&mut reader)? },
            2 => {
                let from = key(&mut reader)?;
                let to = optional(&mut reader, key)?;
                Query::Scan { from, to, limit: reader.u32("limit")? }
            }
            found => return Err(Error::Invalid { what: "kind of query", found: u64::from(found) }.into()),
        };
        reader.finish("query")?;
        Ok(query)
    }
}

impl Answer {
    pub fn encode(&self) -> Bytes {
        match self {
            Answer::Done => return Bytes::from_static(&[1]),
            Answer::Deleted { existed: false } => return Bytes::from_static(&[2, 0]),
            Answer::Deleted { existed: true } => return Bytes::from_static(&[2, 1]),
            Answer::Compared { equal: false } => return Bytes::from_static(&[3, 0]),
            Answer::Compared { equal: true } => return Bytes::from_static(&[3, 1]),
            Answer::Refused(Refusal::Malformed) => return Bytes::from_static(&[6, 1]),
            Answer::Refused(Refusal::TooLarge) => return Bytes::from_static(&[6, 2]),
            Answer::Value(_) | Answer::Entries { .. } => {}
        }
        let mut out = BytesMut::new();
        if let Answer::Value(value) = self {
            out.put_u8(4);
            put_optional(&mut out, value);
        }
        if let Answer::Entries { entries, next } = self {
            out.put_u8(5);
            out.put_u32_le(u32::try_from(entries.len()).expect("scans are bounded"));
            for (key, value) in entries {
                put_bytes(&mut out, key);
                put_bytes(&mut out, value);
            }
            put_optional(&mut out, next);
        }
        out.freeze()
    }

    /// The answer in these bytes; keys and values share the memory.
    pub fn decode(bytes: &Bytes) -> Result<Answer, Error> {
        let mut reader = Reader::new(bytes);
        let key = |reader: &mut Reader<'_>| Ok(bytes.slice_ref(borrowed(reader, KEY_BYTES_MAX, "key length")?));
        let value = |reader: &mut Reader<'_>| Ok(bytes.slice_ref(borrowed(reader, VALUE_BYTES_MAX, "value length")?));
        let answer = match reader.u8("kind of answer")? {
            1 => Answer::Done,
            2 => Answer::Deleted { existed: flag(&mut reader)? },
            3 => Answer::Compared { equal: flag(&mut reader)? },
            4 => Answer::Value(optional(&mut reader, value)?),
            5 => {
                let count = reader.length(SCAN_ENTRIES_MAX, "number of entries")?;
                let mut entries = Vec::new();
                for _ in 0..count {
                    entries.push((key(&mut reader)?, value(&mut reader)?));
                }
                Answer::Entries { entries, next: optional(&mut reader, key)? }
            }
            6 => Answer::Refused(match reader.u8("reason")? {
                1 => Refusal::Malformed,
                2 => Refusal::TooLarge,
                found => return Err(Error::Invalid { what: "reason", found: u64::from(found) }),
            }),
            found => return Err(Error::Invalid { what: "kind of answer", found: u64::from(found) }),
        };
        reader.finish("answer")?;
        Ok(answer)
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Refusal {
        match error {
            Error::OverLimit { .. } => Refusal::TooLarge,
            Error::TooShort { .. } | Error::TooLong { .. } | Error::Invalid { .. } | Error::Checksum { .. } => {
                Refusal::Malformed
            }
        }
    }
}

fn put_bytes(out: &mut BytesMut, bytes: &Bytes) {
    out.put_u32_le(u32::try_from(bytes.len()).expect("keys and values are bounded"));
    out.put_slice(bytes);
}

fn put_optional(out: &mut BytesMut, bytes: &Option<Bytes>) {
    out.put_u8(u8::from(bytes.is_some()));
    if let Some(bytes) = bytes {
        put_bytes(out, bytes);
    }
}

fn key(reader: &mut Reader<'_>) -> Result<Bytes, Error> {
    borrowed(reader, KEY_BYTES_MAX, "key length").map(Bytes::copy_from_slice)
}

fn value(reader: &mut Reader<'_>) -> Result<Bytes, Error> {
    borrowed(reader, VALUE_BYTES_MAX, "value length").map(Bytes::copy_from_slice)
}

fn borrowed<'a>(reader: &mut Reader<'a>, max: usize, what: &'static str) -> Result<&'a [u8], Error> {
    let length = reader.length(max, what)?;
    reader.take(length, what)
}

fn optional<T>(
    reader: &mut Reader<'_>,
    take: impl FnOnce(&mut Reader<'_>) -> Result<T, Error>,
) -> Result<Option<T>, Error> {
    Ok(if flag(reader)? { Some(take(reader)?) } else { None })
}

fn flag(reader: &mut Reader<'_>) -> Result<bool, Error> {
    match reader.u8("flag")? {
        0 => Ok(false),
        1 => Ok(true),
        found => Err(Error::Invalid { what: "flag", found: u64::from(found) }),
    }
}
