//! Records that wait as the bytes which they become: small appends are copied once, by the thread that appends, and the
//! thread that builds frames copies whole chunks of them.
//!
//! Only the checksums of their heads are missing, because a frame's salt goes into those.

use super::record::{self, FrameSalt};
use crate::disk::Buffer;
use crate::types::{Data, GroupId, Index, LogId};

/// Consecutive data entries of one group and one term, at least one once it is in a queue.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Encoded {
    group: GroupId,
    first: LogId,
    count: u32,
    /// Their records, each with zeros where the checksum of its head will be.
    bytes: Vec<u8>,
}

impl Encoded {
    /// None yet, with room for so many bytes of records.
    pub fn with_capacity(group: GroupId, first: LogId, bytes: usize) -> Encoded {
        Encoded { group, first, count: 0, bytes: Vec::with_capacity(bytes) }
    }

    /// Adds the next entry.
    pub fn push(&mut self, data: &Data) {
        let id = self.next();
        record::encode_data(&mut self.bytes, self.group, id, data);
        self.count += 1;
    }

    pub fn group(&self) -> GroupId {
        self.group
    }

    pub fn first(&self) -> LogId {
        self.first
    }

    /// The name of the entry behind the last.
    pub fn next(&self) -> LogId {
        LogId::new(self.first.term, self.first.index.plus(u64::from(self.count)))
    }

    pub fn last_index(&self) -> Index {
        self.next().index.previous()
    }

    pub fn count(&self) -> u32 {
        self.count
    }

    /// Bytes of the records in a frame.
    pub fn record_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Copies the records into a frame, whole.
    pub fn put(&self, out: &mut Buffer, salt: FrameSalt) {
        let start = out.len();
        out.extend(&self.bytes);
        record::finish_heads(&mut out[start..], salt);
    }
}
