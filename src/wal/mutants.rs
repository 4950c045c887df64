//! What a correct log never does: the bodies of its deliberate bugs (see [`crate::mutant`]), which log.rs calls.

use super::body::Item;
use super::log::{Effect, Log};
use crate::disk::Buffer;

impl Log {
    /// Half of a batch goes on its own, and only the other half counts as the append.
    pub(super) fn push_first_half(&mut self, item: Item) -> Item {
        match item {
            Item::Entries { group, mut entries } if entries.len() > 1 => {
                let rest = entries.split_off(entries.len() / 2);
                let first = Item::Entries { group, entries };
                let runs = self.take_names(&first);
                self.enqueue(first, runs);
                Item::Entries { group, entries: rest }
            }
            whole => whole,
        }
    }

    /// Leaves the bytes that would be there if a frame had been built in the buffer of the one before it, which is on its
    /// way. Ownership rules that out.
    pub(super) fn reuse_last_buffer(&mut self, next: &Buffer) {
        if let Some(Effect::Write(earlier)) = self.effects.back_mut() {
            earlier.buffer.clear();
            earlier.buffer.extend(&next[..earlier.buffer.capacity().min(next.len())]);
        }
    }
}
