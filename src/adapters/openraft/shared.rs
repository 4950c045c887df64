//! What the writer and the readers of one Raft log share: the log beneath, and the entries that it cannot give yet.

use std::collections::BTreeMap;
use std::ops::{Range, RangeBounds};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::error::Error;
use super::mapping::{Beneath, Groups, Operation, record_bytes};
use crate::types::{Entry, GroupId, Index};
use crate::wal::handle::{self, Pending, Refused};
use crate::wal::{self, GroupLog, Ticket, Wal};

/// How often a read that a purge overtook is planned again.
const READ_ATTEMPTS: usize = 3;

#[derive(Debug)]
pub struct Shared {
    pub wal: Arc<Wal>,
    pub groups: Groups,
    recent: Mutex<Recent>,
}

#[derive(Debug, Default)]
struct Recent {
    /// The end of the log as far as it is not known to be durable, each entry with the append that holds it. Tickets
    /// rise with the index.
    unflushed: BTreeMap<Index, (Ticket, Entry)>,
    unflushed_bytes: usize,
    /// The first index that is not purged, as openraft counts.
    purged_next: u64,
}

impl Shared {
    pub fn new(wal: Arc<Wal>, groups: Groups, purged_next: u64) -> Shared {
        Shared { wal, groups, recent: Mutex::new(Recent { purged_next, ..Recent::default() }) }
    }

    /// Hands operations to the log in their order. What comes back is durable when all of them are.
    pub async fn submit_all(&self, operations: Vec<Operation>) -> Result<Pending, Error> {
        let mut last = None;
        for operation in operations {
            last = Some(self.submit(operation).await?);
        }
        match last {
            Some(pending) => Ok(pending),
            None => Ok(self.wal.flush()),
        }
    }

    pub async fn submit(&self, operation: Operation) -> Result<Pending, Error> {
        let is_busy = |error: &Error| matches!(error, Error::Refused(Refused::Busy { .. }));
        self.wal.with_room(|| self.submit_now(operation.clone()), is_busy).await
    }

    /// Hands an operation to the log; what can be read follows at once.
    pub fn submit_now(&self, operation: Operation) -> Result<Pending, Error> {
        match operation {
            Operation::Append { group, entries } if group == self.groups.entries => {
                let pending = self.wal.append(group, entries.clone())?;
                self.recent().append(pending.ticket(), entries);
                Ok(pending)
            }
            // On a full disk a purge makes room, and a vote elects who asks for one: neither is without its record.
            Operation::Append { group, entries } => Ok(self.wal.append_beside_cuts(group, entries)?),
            Operation::Truncate { group, from } => {
                let pending = self.wal.truncate_suffix(group, from)?;
                self.recent().truncate(from);
                Ok(pending)
            }
            Operation::Purge { group, last } => Ok(self.wal.purge_prefix(group, last)?),
        }
    }

    /// The entries of a range that the log has, in order from its start: all of them.
    ///
    /// # Errors
    /// If there are entries that cannot be read: what is left out is taken for what is not there.
    pub fn read(&self, wanted: impl RangeBounds<u64>) -> Result<Vec<Entry>, Error> {
        let (mut entries, mut left) = self.read_some(wanted, usize::MAX)?;
        // Ends: each round but the last gives entries.
        while let Some(last) = entries.last().filter(|_| !left.is_empty()).map(|last| last.id) {
            // It stopped before something that cannot be read, which is told now; or before what has ended meanwhile.
            let (rest, behind) = self.read_some(left, usize::MAX)?;
            let goes_on = rest.first().is_some_and(|first| first.id.index == last.index.next());
            let stands = self.wal.group(self.groups.entries).and_then(|names| names.id_at(last.index)) == Some(last);
            if !goes_on || !stands {
                break;
            }
            entries.extend(rest);
            left = behind;
        }
        Ok(entries)
    }

    /// As [`Shared::read`], but as many as `bytes_max` allows and at least one, or those before the first that cannot be
    /// read.
    pub fn read_limited(&self, wanted: impl RangeBounds<u64>, bytes_max: usize) -> Result<Vec<Entry>, Error> {
        Ok(self.read_some(wanted, bytes_max)?.0)
    }

    /// Entries of a range, and the range that is left of what the log has of it.
    fn read_some(&self, wanted: impl RangeBounds<u64>, bytes_max: usize) -> Result<(Vec<Entry>, Range<u64>), Error> {
        self.check()?;
        let wanted = (wanted.start_bound().cloned(), wanted.end_bound().cloned());
        for _ in 1..READ_ATTEMPTS {
            match self.read_once(wanted, bytes_max) {
                Err(handle::Error::Log(wal::Error::Trimmed { .. })) => {}
                said => return Ok(said?),
            }
        }
        Ok(self.read_once(wanted, bytes_max)?)
    }

    fn read_once(
        &self,
        wanted: impl RangeBounds<u64>,
        bytes_max: usize,
    ) -> Result<(Vec<Entry>, Range<u64>), handle::Error> {
        let (wanted, unflushed) = {
            let recent = self.recent();
            let wanted = self.groups.readable(&*self.wal, recent.purged_next, wanted);
            let unflushed = recent.unflushed.range(wanted.clone()).map(|(_, (_, entry))| entry.clone());
            (wanted, unflushed.collect::<Vec<Entry>>())
        };
        // What left the memory was durable before.
        let durable_end = unflushed.first().map_or(wanted.end, |entry| entry.id.index);
        let mut entries = Vec::new();
        if wanted.start < durable_end {
            entries = self.wal.read(self.groups.entries, wanted.start..durable_end, bytes_max)?;
        }
        let mut bytes: usize = entries.iter().map(record_bytes).sum();
        let mut next = wanted.start.plus(entries.len() as u64);
        for entry in unflushed {
            // A read that stopped before its end, for its size or because a truncate overtook it, ends there.
            if entry.id.index != next || (bytes >= bytes_max && !entries.is_empty()) {
                break;
            }
            bytes += record_bytes(&entry);
            next = next.next();
            entries.push(entry);
        }
        // As openraft counts.
        Ok((entries, next.0 - 1..wanted.end.0 - 1))
    }

    /// # Errors
    /// If the log has failed: what was taken last may not be there after the next start.
    pub fn check(&self) -> Result<(), Error> {
        self.wal.failure().map_or(Ok(()), |failure| Err(failure.into()))
    }

    /// Every append up to this one is durable: the log gives its entries.
    pub fn flushed(&self, ticket: Ticket) {
        self.recent().flushed(ticket);
    }

    pub fn unflushed_bytes(&self) -> usize {
        self.recent().unflushed_bytes
    }

    pub fn set_purged_next(&self, purged_next: u64) {
        self.recent().purged_next = purged_next;
    }

    fn recent(&self) -> MutexGuard<'_, Recent> {
        // A reader that panicked has changed nothing, and the writer's next call is an error of the log's.
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Recent {
    fn append(&mut self, ticket: Ticket, entries: Vec<Entry>) {
        if let Some(first) = entries.first() {
            self.truncate(first.id.index);
        }
        for entry in entries {
            self.unflushed_bytes += record_bytes(&entry);
            self.unflushed.insert(entry.id.index, (ticket, entry));
        }
    }

    fn truncate(&mut self, from: Index) {
        let ended = self.unflushed.split_off(&from);
        self.unflushed_bytes -= ended.values().map(|(_, entry)| record_bytes(entry)).sum::<usize>();
    }

    fn flushed(&mut self, ticket: Ticket) {
        while let Some(first) = self.unflushed.first_entry().filter(|first| first.get().0 <= ticket) {
            self.unflushed_bytes -= record_bytes(&first.remove().1);
        }
    }
}

impl Beneath for Wal {
    fn group(&self, group: GroupId) -> Option<GroupLog> {
        Wal::group(self, group)
    }

    fn batch_bytes_max(&self) -> usize {
        Wal::batch_bytes_max(self)
    }
}
