//! What a leader takes of clients, as far as its own disk goes: no more than fits the segments that stand ready for certain,
//! without the spare one. The rest waits here until the next segment is there; or is refused, where none can be made.
//!
//! What were taken beyond that might find no segment, on a disk that turns out to be full. It would wait for the room that
//! only a trim can make, and the trim would wait behind it, in the same log. So whatever a trim, a change of members, a
//! snapshot point or a new term adds finds the spare segment.
//!
//! What was taken and is in no frame yet, counts: what was proposed since the last output of the protocol, what waits for
//! the superblock, and what waits in the log. The room that is left counts as the log says it ([`Room`](crate::wal::Room)).

use std::collections::VecDeque;
use std::vec;

use super::Driver;
use super::submissions::Asker;
use crate::codec::COMMAND_HEAD_BYTES;
use crate::limits::ENTRY_OVERHEAD_BYTES;
use crate::machine::StateMachine;
use crate::mutant::{self, Mutant};
use crate::net::Refusal;
use crate::raft::Role;
use crate::types::Data;
use crate::wal::{self, Supply};

/// Requests in the order in which they came. At most as many bytes as may be uncommitted.
#[derive(Debug, Default)]
pub(super) struct WaitingForRoom {
    requests: VecDeque<Request>,
    /// Of their commands, with what each costs besides.
    bytes: usize,
    /// What was proposed for clients since the last output of the protocol, in the bytes of its records.
    pub proposed_bytes: usize,
}

#[derive(Debug)]
struct Request {
    asker: Asker,
    /// Which are not taken yet.
    commands: vec::IntoIter<Data>,
    /// If some are: the request's key, and how many.
    taken: Option<(u64, usize)>,
}

impl Request {
    fn bytes(&self) -> usize {
        cost_bytes(self.commands.as_slice())
    }
}

impl WaitingForRoom {
    #[cfg(test)]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether these may wait as well.
    pub fn may_join(&self, commands: &[Data], bytes_max: usize) -> bool {
        self.requests.is_empty() || self.bytes + cost_bytes(commands) <= bytes_max
    }

    pub fn join(&mut self, asker: Asker, commands: Vec<Data>) {
        self.bytes += cost_bytes(&commands);
        self.requests.push_back(Request { asker, commands: commands.into_iter(), taken: None });
    }

    fn pop(&mut self) -> Option<Request> {
        let request = self.requests.pop_front()?;
        self.bytes -= request.bytes();
        Some(request)
    }
}

/// What commands take of a leader's bound on what is uncommitted.
pub(super) fn cost_bytes(commands: &[Data]) -> usize {
    commands.iter().map(|data| data.bytes.len() + ENTRY_OVERHEAD_BYTES).sum()
}

impl<M: StateMachine> Driver<M> {
    /// Takes of what waits what finds room by now. A request that is larger than what ever stands ready is taken in parts.
    pub(super) fn take_waiting(&mut self) {
        while let Some(first) = self.waiting.requests.front() {
            let count = self.count_with_room(first.commands.as_slice());
            if count < first.commands.len() && self.pipeline.log.room().supply == Supply::Failing {
                self.refuse_first(Refusal::NoSpace);
                continue;
            }
            let cost = cost_bytes(&first.commands.as_slice()[..count]);
            // One that waited may have become a follower's.
            if count == 0 || !self.replica.has_room(cost) || self.replica.role() != Role::Leader {
                return;
            }
            self.take_of_first(count, cost);
        }
    }

    /// This node leads no more: nothing of what waits is in its log.
    pub(super) fn refuse_waiting(&mut self) {
        while !self.waiting.requests.is_empty() {
            self.refuse_first(Refusal::NotLeader { leader: None });
        }
    }

    fn take_of_first(&mut self, count: usize, cost: usize) {
        let first = self.waiting.requests.front_mut().expect("the caller has seen it");
        self.waiting.bytes -= cost;
        let all = first.commands.len();
        let (request, before) = match first.taken {
            Some(taken) => taken,
            None => (self.submissions.begin(first.asker, all), 0),
        };
        first.taken = Some((request, before + count));
        let commands: Vec<Data> = first.commands.by_ref().take(count).collect();
        if count == all {
            self.waiting.requests.pop_front();
        }
        let verdicts = self.admit(commands);
        self.submissions.know(request, before, verdicts, &mut self.effects);
    }

    fn refuse_first(&mut self, refusal: Refusal) {
        let Some(Request { asker, commands, taken }) = self.waiting.pop() else { return };
        match taken {
            None => self.effects.push(asker.told(Err(refusal))),
            Some((request, before)) => {
                let verdicts = commands.map(|_| super::submissions::refused(refusal.clone())).collect();
                self.submissions.know(request, before, verdicts, &mut self.effects);
            }
        }
    }

    /// How many of these commands, from the first on, find room on the disk.
    fn count_with_room(&self, commands: &[Data]) -> usize {
        if mutant::is_on(Mutant::RoomNotCounted) {
            return commands.len();
        }
        let log = &self.pipeline.log;
        let (room, waiting) = (log.room(), self.pipeline.waiting_frame_bytes());
        let mut bytes = self.waiting.proposed_bytes;
        let fits = |command: &&Data| {
            // What is larger will be refused for that.
            if command.bytes.len() <= self.record_bytes_max + COMMAND_HEAD_BYTES {
                bytes += wal::record_bytes(command.bytes.len());
            }
            waiting + log.frames_bytes_max(bytes) <= room.bytes
        };
        commands.iter().take_while(fits).count()
    }
}
