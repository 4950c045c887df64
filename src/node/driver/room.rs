//! What a leader takes of clients, as far as its own disk goes: no more than fits the segments that stand ready for certain,
//! without the spare one. The rest waits here until the next segment is there; or is refused, where none can be made.
//!
//! What were taken beyond that might find no segment, on a disk that turns out to be full. It would wait for the room that
//! only a trim can make, and the trim would wait behind it, in the same log. So whatever a trim, a change of members, a
//! snapshot point or a new term adds finds the spare segment.
//!
//! What was taken and is in no frame yet, counts: what was proposed since the last output of the protocol, what waits for
//! the superblock, and what waits in the log. The room that is left counts as the log says it ([`Room`](crate::wal::Room)).
//! Some of it is left for what others than clients propose in the same turn.
//!
//! Nobody waits for nothing: the log hears that somebody waits, and makes the next segment without zeros; and where nothing is
//! taken for two seconds, who waits is told to come again, for a disk that makes no segment in that time is in no state to
//! promise any. After one second leadership is handed over, to a node whose disk may make one.

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

/// So long a request waits at most while nothing is taken.
const WAIT_TICKS_MAX: u64 = 200;
/// From here on a segment is wanted without its zeros.
const WAIT_TICKS_HURRIED: u64 = 3;
/// From here on the disk counts as one that hangs, and leadership is handed over if it may: so that who waits need not be told
/// to come again.
const WAIT_TICKS_HUNG: u64 = 100;
/// From here on the status says it.
const WAIT_TICKS_TOLD: u64 = 50;
/// What is left, if a segment is not small: for trims, snapshot points and what the log writes for itself.
const LEFT_BYTES_MAX: u64 = 32 << 10;

/// Requests in the order in which they came. At most as many bytes as may be uncommitted.
#[derive(Debug, Default)]
pub(super) struct WaitingForRoom {
    requests: VecDeque<Request>,
    /// Of their commands, with what each costs besides.
    bytes: usize,
    /// Of those of which nothing is taken.
    commands: usize,
    ticks: u64,
    /// When something was taken.
    taken_ticks: u64,
    /// It is a segment that the first one waits for, and nothing else.
    is_for_segment: bool,
    /// What was proposed for clients since the last output of the protocol, in the bytes of its records.
    pub proposed_bytes: usize,
}

#[derive(Debug)]
struct Request {
    asker: Asker,
    /// When it came.
    since_ticks: u64,
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
        self.commands += commands.len();
        let (since_ticks, commands) = (self.ticks, commands.into_iter());
        self.requests.push_back(Request { asker, since_ticks, commands, taken: None });
    }

    /// Commands of which nobody else knows yet.
    pub fn commands(&self) -> usize {
        self.commands
    }

    /// Requests that wait for a segment, if they have done so for a while.
    pub fn told(&self) -> Option<usize> {
        (self.is_for_segment && self.has_waited(WAIT_TICKS_TOLD)).then_some(self.requests.len())
    }

    fn has_waited(&self, ticks: u64) -> bool {
        self.requests.front().is_some_and(|first| self.ticks - first.since_ticks.max(self.taken_ticks) >= ticks)
    }

    fn left(&mut self, request: &Request) {
        self.bytes -= request.bytes();
        if request.taken.is_none() {
            self.commands -= request.commands.len();
        }
    }

    fn pop(&mut self) -> Option<Request> {
        let request = self.requests.pop_front()?;
        self.left(&request);
        Some(request)
    }

    /// Takes out those of whom it is so, in their order.
    fn take_of(&mut self, is_so: impl Fn(Asker) -> bool) -> Vec<Request> {
        // Mostly they have none here, and there may be many who go at once.
        if !self.requests.iter().any(|request| is_so(request.asker)) {
            return Vec::new();
        }
        let (taken, kept): (Vec<Request>, Vec<Request>) =
            self.requests.drain(..).partition(|request| is_so(request.asker));
        self.requests = kept.into();
        taken.iter().for_each(|request| self.left(request));
        taken
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
            self.waiting.is_for_segment = count == 0;
            if count == 0 {
                if self.waiting.has_waited(WAIT_TICKS_HURRIED) {
                    self.pipeline.log.hurry_room();
                }
                return;
            }
            // One that waited may have become a follower's.
            if !self.replica.has_room(cost) || self.replica.role() != Role::Leader {
                return;
            }
            self.take_of_first(count, cost);
        }
    }

    /// A tick: who has waited for too long may come again.
    pub(super) fn age_waiting(&mut self) {
        self.waiting.ticks += 1;
        if self.waiting.is_for_segment && self.waiting.has_waited(WAIT_TICKS_HUNG) {
            self.replica.leave_hanging_segment();
        }
        while self.waiting.has_waited(WAIT_TICKS_MAX) {
            self.refuse_first(Refusal::Busy);
        }
    }

    /// Nothing of what waits is in the log, and nothing of it will be: this node leads no more, or ends.
    pub(super) fn refuse_waiting(&mut self, refusal: &Refusal) {
        while !self.waiting.requests.is_empty() {
            self.refuse_first(refusal.clone());
        }
    }

    /// Nobody hears of these any more.
    pub(super) fn forget_waiting(&mut self, is_gone: impl Fn(Asker) -> bool) {
        for request in self.waiting.take_of(is_gone) {
            self.refuse_request(request, Refusal::Busy);
        }
    }

    fn take_of_first(&mut self, count: usize, cost: usize) {
        let first = self.waiting.requests.front_mut().expect("the caller has seen it");
        self.waiting.bytes -= cost;
        self.waiting.taken_ticks = self.waiting.ticks;
        let all = first.commands.len();
        if first.taken.is_none() {
            self.waiting.commands -= all;
        }
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
        if let Some(request) = self.waiting.pop() {
            self.refuse_request(request, refusal);
        }
    }

    /// Of one of which a part was taken the rest is refused.
    fn refuse_request(&mut self, request: Request, refusal: Refusal) {
        let Request { asker, commands, taken, .. } = request;
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
        let (room, waiting, proposed) = (log.room(), self.pipeline.waiting_frame_bytes(), self.waiting.proposed_bytes);
        // The largest record finds room where nothing else is on its way.
        let is_alone = waiting == 0 && proposed == 0;
        let left = LEFT_BYTES_MAX.min(self.options.segment_bytes / 32);
        let (mut bytes, mut count) = (proposed, 0);
        for command in commands {
            // What is larger will be refused for that.
            if command.bytes.len() <= self.record_bytes_max + COMMAND_HEAD_BYTES {
                bytes += wal::record_bytes(command.bytes.len());
            }
            let left = if is_alone && count == 0 { 0 } else { left };
            if waiting + log.frames_bytes_max(bytes) + left > room.bytes {
                break;
            }
            count += 1;
        }
        count
    }
}
