//! The entries that a read has taken, each with a payload of its own.
//!
//! Small payloads are copied one behind the other into a piece of memory, and their entries are made when it is full:
//! to allocate memory for each takes longer than to read it, and so does to hand each from one type to the next.

use bytes::Bytes;

use crate::checksum::Checksum;
use crate::types::{Data, Entry, LogId, Payload};

/// Copies of payloads up to this length share memory, and so much of it.
const SHARED_BYTES_MAX: usize = 1024;
const PIECE_BYTES: usize = 16 << 10;

#[derive(Debug, Default)]
pub struct Taken {
    entries: Vec<Entry>,
    piece: Vec<u8>,
    /// Those whose payloads lie in the piece, in order.
    waiting: Vec<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    id: LogId,
    length: usize,
    checksum: Checksum,
}

impl Taken {
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.waiting.is_empty()
    }

    pub fn reserve(&mut self, entries: usize) {
        self.entries.reserve(entries);
    }

    /// Takes an entry as it is.
    pub fn push(&mut self, entry: Entry) {
        self.finish_piece();
        self.entries.push(entry);
    }

    /// Takes an entry with a copy of its data. `left` says how many of about that length are to come at most, this one
    /// counted.
    pub fn push_copy(&mut self, id: LogId, data: &[u8], checksum: Checksum, left: impl FnOnce() -> usize) {
        if data.len() > SHARED_BYTES_MAX {
            let bytes = Bytes::copy_from_slice(data);
            return self.push(Entry { id, payload: Payload::Data(Data { bytes, checksum }) });
        }
        if self.piece.capacity() - self.piece.len() < data.len() {
            self.finish_piece();
            self.piece = Vec::with_capacity(data.len().saturating_mul(left()).clamp(data.len(), PIECE_BYTES));
        }
        self.piece.extend_from_slice(data);
        self.waiting.push(Waiting { id, length: data.len(), checksum });
    }

    /// All of them.
    pub fn into_entries(mut self) -> Vec<Entry> {
        self.finish_piece();
        self.entries
    }

    fn finish_piece(&mut self) {
        let mut piece = Bytes::from(std::mem::take(&mut self.piece));
        for Waiting { id, length, checksum } in self.waiting.drain(..) {
            let bytes = piece.split_to(length);
            self.entries.push(Entry { id, payload: Payload::Data(Data { bytes, checksum }) });
        }
    }
}

const _: () = assert!(SHARED_BYTES_MAX < PIECE_BYTES);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Index, Term};

    #[test]
    fn entries_of_all_sizes_and_kinds_stand_in_the_order_in_which_they_were_taken() {
        let lengths = [3, 0, SHARED_BYTES_MAX, SHARED_BYTES_MAX + 1, 7, 700, 0];
        let mut taken = Taken::default();
        let mut expected = Vec::new();
        assert!(taken.is_empty());
        // Often enough to fill a piece several times.
        for at in 0..100 {
            let id = LogId::new(Term(1), Index(expected.len() as u64 + 1));
            if at % 11 == 5 {
                taken.push(Entry { id, payload: Payload::Noop });
                expected.push(Entry { id, payload: Payload::Noop });
                continue;
            }
            let data = Data::new(Bytes::from(vec![at as u8; lengths[at % lengths.len()]]));
            taken.push_copy(id, &data.bytes, data.checksum, || 100 - at);
            assert!(!taken.is_empty());
            expected.push(Entry { id, payload: Payload::Data(data) });
        }
        assert_eq!(taken.into_entries(), expected);
    }
}
