//! Entries that are read from the log, off the driver's thread: for the state machine, followers, clients and tails.

use super::{Driver, Effect, ReadFor, ReadNumber, WantedBy};
use crate::machine::StateMachine;
use crate::raft::Input as RaftInput;
use crate::types::{Entry, GroupId, Index};
use crate::wal;

impl<M: StateMachine> Driver<M> {
    /// Orders entries that memory does not have all of. Only what is durable is read: behind it the disk may still
    /// hold entries that have been replaced.
    pub(super) fn read_log(&mut self, from: Index, to: Index, bytes_max: usize, purpose: ReadFor) {
        let to = to.min(self.replica.status().durable.index.next());
        assert!(from < to, "what is not durable is in memory: {from}..{to}");
        let plan = self.pipeline.log.plan_read(GroupId::CLUSTER, from, to, bytes_max);
        self.last_read = ReadNumber(self.last_read.0 + 1);
        let is_for_client = matches!(purpose, ReadFor::Client(_) | ReadFor::Tail(_));
        self.log_reads.push_back((self.last_read, purpose));
        self.effects.push(Effect::ReadLog { read: self.last_read, plan, is_for_client });
    }

    pub(super) fn on_read_done(&mut self, read: ReadNumber, result: Result<Vec<Entry>, wal::Error>) {
        let at = self.log_reads.iter().position(|(number, _)| *number == read).expect("a read was ordered");
        let (_, purpose) = self.log_reads.remove(at).expect("the position was found");
        let result = self.pipeline.log.judged(result);
        match purpose {
            ReadFor::Apply => self.on_read_to_apply(result),
            ReadFor::Follower(fetch) => {
                // What cannot be read now is tried again; a follower waits meanwhile.
                let wanted_by = WantedBy::Follower(fetch.peer);
                let (entries, reported) = match result {
                    Ok(entries) if entries.is_empty() => {
                        (entries, Some(Effect::Missing { index: fetch.from, wanted_by }))
                    }
                    Ok(entries) => {
                        self.damaged.was_read(fetch.peer);
                        (entries, None)
                    }
                    Err(error) if log_moved_on(&error) => (Vec::new(), None),
                    Err(error) => {
                        self.on_unreadable(fetch.peer, fetch.from, &error);
                        (Vec::new(), Some(Effect::Unreadable(error)))
                    }
                };
                self.effects.extend(reported);
                self.replica.handle(RaftInput::Fetched { peer: fetch.peer, from: fetch.from, entries });
            }
            ReadFor::Client(read) => self.on_records_read(read, result),
            ReadFor::Tail(tail) => self.on_tail_read(tail, result),
            ReadFor::Nobody => {}
        }
    }
}

/// It is no fault of the disk: the entries went while they were read. Another plan says what became of them.
pub(super) fn log_moved_on(error: &wal::Error) -> bool {
    matches!(error, wal::Error::Stale { .. } | wal::Error::Trimmed { .. })
}
