//! The built-in map as bytes, for snapshots. docs/formats.md has the table.
//!
//! Entries come in the order of their keys, so that one state has one encoding however it came about, and are taken in
//! pieces from a clone that shares its memory with the map that goes on.

use std::ops::Bound;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use imbl::OrdMap;

use super::command::{KEY_BYTES_MAX, VALUE_BYTES_MAX};
use super::map::Map;
use super::{Restoring, Snapshot};
use crate::codec::{Error, Reader};

const FORMAT_VERSION: u32 = 1;
/// Format version, zeros, number of entries.
const HEAD_BYTES: usize = 16;
/// A piece ends with the entry that takes it to this size.
const PIECE_BYTES: usize = 64 << 10;

/// The map at one entry of the log, and how far it was written.
#[derive(Debug)]
pub(super) struct MapSnapshot {
    map: Map,
    /// The last key that was given; only rises.
    last: Option<Bytes>,
    has_head: bool,
}

/// A map on its way back.
#[derive(Debug, Default)]
pub(super) struct MapRestoring {
    entries: OrdMap<Bytes, Bytes>,
    /// What the head said; none before it is there.
    expected: Option<u64>,
    /// The last key so far.
    last: Option<Bytes>,
    /// The beginning of an entry whose end has not come: at most one entry and what came with it.
    pending: BytesMut,
}

impl MapSnapshot {
    pub fn new(map: Map) -> MapSnapshot {
        MapSnapshot { map, last: None, has_head: false }
    }
}

impl Snapshot for MapSnapshot {
    fn encode_next(&mut self, out: &mut BytesMut) -> bool {
        let start = out.len();
        if !self.has_head {
            self.has_head = true;
            out.put_u32_le(FORMAT_VERSION);
            out.put_u32_le(0);
            out.put_u64_le(self.map.len() as u64);
        }
        let from = self.last.take();
        let bound = from.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        for (key, value) in self.map.entries.range::<_, Bytes>((bound, Bound::Unbounded)) {
            put_bytes(out, key);
            put_bytes(out, value);
            self.last = Some(key.clone());
            if out.len() - start >= PIECE_BYTES {
                break;
            }
        }
        self.last = self.last.take().or(from);
        out.len() > start
    }
}

impl Restoring<Map> for MapRestoring {
    fn add(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.pending.extend_from_slice(bytes);
        if self.expected.is_none() {
            if self.pending.len() < HEAD_BYTES {
                return Ok(());
            }
            self.expected = Some(head(&self.pending)?);
            self.pending.advance(HEAD_BYTES);
        }
        while let Some((key, value)) = whole_entry(&self.pending)? {
            let (key, value, length) =
                (Bytes::copy_from_slice(key), Bytes::copy_from_slice(value), 8 + key.len() + value.len());
            self.pending.advance(length);
            self.insert(key, value)?;
        }
        Ok(())
    }

    fn finish(self: Box<MapRestoring>) -> Result<Map, Error> {
        let Some(expected) = self.expected else {
            return Err(Error::TooShort { what: "a map", needed: HEAD_BYTES, found: self.pending.len() });
        };
        let found = self.entries.len() as u64;
        if found != expected {
            return Err(Error::Invalid { what: "number of entries that the map's head gives", found });
        }
        match self.pending.len() {
            0 => Ok(Map { entries: self.entries }),
            found => Err(Error::TooLong { what: "the map", found }),
        }
    }
}

impl MapRestoring {
    fn insert(&mut self, key: Bytes, value: Bytes) -> Result<(), Error> {
        if self.last.as_ref().is_some_and(|last| *last >= key) {
            return Err(Error::Invalid { what: "next key in order, by its length", found: key.len() as u64 });
        }
        self.last = Some(key.clone());
        self.entries.insert(key, value);
        Ok(())
    }
}

fn head(bytes: &[u8]) -> Result<u64, Error> {
    let mut reader = Reader::new(bytes);
    for (what, expected) in [("format of a map", FORMAT_VERSION), ("zero", 0)] {
        let found = reader.u32(what)?;
        if found != expected {
            return Err(Error::Invalid { what, found: u64::from(found) });
        }
    }
    reader.u64("number of entries")
}

/// Key and value; or a byte string and what stands behind it.
type Pair<'a> = (&'a [u8], &'a [u8]);

/// Key and value of the first entry, if all of it is there.
fn whole_entry(bytes: &[u8]) -> Result<Option<Pair<'_>>, Error> {
    let Some((key, behind)) = whole_bytes(bytes, KEY_BYTES_MAX, "key length")? else { return Ok(None) };
    let Some((value, _)) = whole_bytes(behind, VALUE_BYTES_MAX, "value length")? else { return Ok(None) };
    Ok(Some((key, value)))
}

fn whole_bytes<'a>(bytes: &'a [u8], max: usize, what: &'static str) -> Result<Option<Pair<'a>>, Error> {
    if bytes.len() < 4 {
        return Ok(None);
    }
    let length = Reader::new(bytes).length(max, what)?;
    Ok(bytes[4..].split_at_checked(length))
}

fn put_bytes(out: &mut BytesMut, bytes: &[u8]) {
    out.put_u32_le(u32::try_from(bytes.len()).expect("keys and values are bounded"));
    out.put_slice(bytes);
}
