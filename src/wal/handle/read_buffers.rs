//! The memory of those who read, kept from one read to the next: who goes on finds there what was read ahead of him.
//!
//! ```text
//!  take ◀── the one whose read ended there; else a new one; else, if there are enough ──┐
//!                                                                                       │
//!  [ given back first │ ............................................ │ given back last ]
//!        └──────────────────────────────────────────────────────────────────────────────┘
//! ```

use crate::types::{GroupId, Index};
use crate::wal::ReadBuffer;

/// So many are kept; beyond it each has memory of his own.
pub(super) const READ_BUFFERS_MAX: usize = 4;

#[derive(Debug, Default)]
pub(super) struct ReadBuffers {
    /// In the order in which they were given back.
    kept: Vec<ReadBuffer>,
    /// Taken and not given back.
    lent: usize,
}

impl ReadBuffers {
    /// For a read from this entry on. None that another reader may go on with, as long as there are few.
    pub fn take(&mut self, group: GroupId, from: Index) -> ReadBuffer {
        let ended_there = self.kept.iter().position(|buffer| buffer.is_at(group, from));
        let are_enough = self.kept.len() + self.lent >= READ_BUFFERS_MAX && !self.kept.is_empty();
        self.lent += 1;
        match ended_there.or(are_enough.then_some(0)) {
            Some(at) => self.kept.remove(at),
            None => ReadBuffer::default(),
        }
    }

    pub fn give(&mut self, buffer: ReadBuffer) {
        self.lent -= 1;
        self.kept.push(buffer);
        if self.kept.len() > READ_BUFFERS_MAX {
            self.kept.remove(0);
        }
    }

    #[cfg(test)]
    pub fn are_at(&self, group: GroupId, from: Index) -> bool {
        self.kept.iter().any(|buffer| buffer.is_at(group, from))
    }
}
