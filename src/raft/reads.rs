//! Linearizable reads by read index (dissertation §6.4), without an entry in the log.
//!
//! ```text
//!   read ──▶ waiting ──▶ round r, index = commit ──▶ a majority answers r ──▶ ready at index
//! ```
//!
//! The leader notes its commit index, then makes sure that it still leads: by a round of heartbeats that begins after
//! the reads arrived. One round serves all that wait, and the next begins when it is confirmed; the regular heartbeat
//! is a round, too, so that a lost message delays reads and does not lose them. It must have committed an entry of its
//! own term first: before that it does not know what is committed.
//!
//! A follower asks its leader on behalf of its clients, with one question at a time for all of them.

use std::collections::VecDeque;

use crate::mutant::{self, Mutant};
use crate::random::Random;
use crate::types::{Index, NodeId};

use super::leader::Leading;
use super::replica::{Replica, State};
use super::{Body, ReadReady, ReadToken, Refused, Round};

/// Reads that wait in one replica, and questions of followers that wait in a leader.
const READS_WAITING_MAX: usize = 65_536;

/// Who waits for a read index.
#[derive(Clone, Copy, Hash, Debug)]
enum Reader {
    Own(ReadToken),
    Peer { peer: NodeId, asked: u64 },
}

/// Reads that were given an index and wait for their round to be confirmed.
#[derive(Clone, Hash, Debug)]
struct ReadRound {
    round: Round,
    index: Index,
    readers: Vec<Reader>,
}

/// The reads that wait at a leader.
#[derive(Clone, Hash, Debug, Default)]
pub(super) struct LeaderReads {
    /// No round has begun since they arrived.
    waiting: Vec<Reader>,
    /// In order of rounds.
    rounds: VecDeque<ReadRound>,
    /// In `waiting` and `rounds` together.
    count: usize,
}

/// The reads that wait at a follower. They are refused when the leader changes: an answer of another term would be
/// worth nothing (the question carries the term, and so does its answer).
#[derive(Clone, Hash, Debug)]
pub(super) struct FollowerReads {
    /// Numbers the questions. Begins at random, so that an answer to an earlier life is recognised.
    pub(super) asked: u64,
    /// Not part of a question yet.
    waiting: Vec<ReadToken>,
    /// Part of the question numbered `asked`; empty if none is open.
    open: Vec<ReadToken>,
    /// Since the question was sent.
    pub(super) open_ticks: u32,
}

impl LeaderReads {
    pub(super) fn ask(&mut self, token: ReadToken) -> Result<(), Refused> {
        if self.count == READS_WAITING_MAX {
            return Err(Refused::Busy);
        }
        self.wait(Reader::Own(token));
        Ok(())
    }

    fn wait(&mut self, reader: Reader) {
        self.count += 1;
        self.waiting.push(reader);
    }

    /// Whether a round should begin now rather than with the next heartbeat.
    pub(super) fn want_round(&self) -> bool {
        self.rounds.is_empty() && !self.waiting.is_empty()
    }

    pub(super) fn is_round_open(&self) -> bool {
        !self.rounds.is_empty()
    }

    /// A round begins: those that wait get the present commit index.
    pub(super) fn begin(&mut self, round: Round, index: Index) {
        let round = if mutant::is_on(Mutant::ReadConfirmedByOlderRound) { Round(round.0 - 1) } else { round };
        if !self.waiting.is_empty() {
            self.rounds.push_back(ReadRound { round, index, readers: std::mem::take(&mut self.waiting) });
        }
    }

    fn take_confirmed(&mut self, confirmed: Round) -> Option<ReadRound> {
        if self.rounds.front()?.round > confirmed {
            return None;
        }
        let done = self.rounds.pop_front()?;
        self.count -= done.readers.len();
        Some(done)
    }
}

impl FollowerReads {
    pub(super) fn new(random: &mut Random) -> FollowerReads {
        FollowerReads { asked: random.next_u64() >> 1, waiting: Vec::new(), open: Vec::new(), open_ticks: 0 }
    }

    pub(super) fn ask(&mut self, token: ReadToken) -> Result<(), Refused> {
        if self.waiting.len() + self.open.len() == READS_WAITING_MAX {
            return Err(Refused::Busy);
        }
        self.waiting.push(token);
        Ok(())
    }

    pub(super) fn refuse_all(&mut self, refused: &mut Vec<ReadToken>) {
        refused.append(&mut self.open);
        refused.append(&mut self.waiting);
    }

    /// The number of a new question, if reads wait and none is open.
    fn open_question(&mut self) -> Option<u64> {
        if self.waiting.is_empty() || !self.open.is_empty() {
            return None;
        }
        self.asked += 1;
        self.open = std::mem::take(&mut self.waiting);
        self.open_ticks = 0;
        Some(self.asked)
    }

    /// The reads that this answer is for.
    fn close_question(&mut self, asked: u64) -> Vec<ReadToken> {
        if asked == self.asked { std::mem::take(&mut self.open) } else { Vec::new() }
    }

    /// The number of a question that was lost, or whose answer was: to be sent again.
    fn overdue(&mut self, patience_ticks: u32) -> Option<u64> {
        if self.open.is_empty() {
            return None;
        }
        self.open_ticks += 1;
        if self.open_ticks < patience_ticks {
            return None;
        }
        self.open_ticks = 0;
        Some(self.asked)
    }
}

impl Replica {
    /// A follower asks for its clients. Who does not lead says so, so that they are refused and not left waiting.
    pub(super) fn on_read_index(&mut self, from: NodeId, asked: u64) {
        match &mut self.state {
            State::Leader(leading) if leading.reads.count < READS_WAITING_MAX => {
                leading.reads.wait(Reader::Peer { peer: from, asked });
            }
            _ => self.send(from, Body::ReadIndexReply { asked, index: None }),
        }
    }

    /// The answer of this term's leader; of another term it does not get here.
    pub(super) fn on_read_index_reply(&mut self, from: NodeId, asked: u64, index: Option<Index>) {
        if self.leader != Some(from) {
            return;
        }
        let mut tokens = self.reads.close_question(asked);
        match index {
            Some(index) => self.output.reads_ready.extend(tokens.iter().map(|&token| ReadReady { token, index })),
            None => self.output.reads_refused.append(&mut tokens),
        }
    }

    pub(super) fn send_read_index(&mut self, leader: NodeId) {
        if let Some(asked) = self.reads.open_question() {
            self.send(leader, Body::ReadIndex { asked });
        }
    }

    pub(super) fn retry_follower_read(&mut self) {
        let patience_ticks = 2 * self.config.heartbeat_ticks;
        if let (Some(leader), Some(asked)) = (self.leader, self.reads.overdue(patience_ticks)) {
            self.is_touched = true;
            self.send(leader, Body::ReadIndex { asked });
        }
    }

    /// Serve the reads whose round a majority has answered.
    pub(super) fn confirm_reads(&mut self) {
        let State::Leader(leading) = &self.state else { return };
        if leading.reads.rounds.is_empty() {
            return;
        }
        let envelope = self.envelope();
        let (confirmed, present) = (self.confirmed_round(), leading.round);
        let confirmed = if mutant::is_on(Mutant::ReadUnconfirmed) { present } else { confirmed };
        let State::Leader(leading) = &mut self.state else { return };
        while let Some(done) = leading.reads.take_confirmed(confirmed) {
            for reader in done.readers {
                match reader {
                    Reader::Own(token) => self.output.reads_ready.push(ReadReady { token, index: done.index }),
                    Reader::Peer { peer, asked } => {
                        let body = Body::ReadIndexReply { asked, index: Some(done.index) };
                        self.output.send.push(envelope.outgoing(peer, body));
                    }
                }
            }
        }
    }

    /// This node leads no more. Followers learn of it by the change of leader.
    pub(super) fn refuse_leader_reads(&mut self, leading: Leading) {
        let rounds = leading.reads.rounds.into_iter().flat_map(|round| round.readers);
        let own = rounds.chain(leading.reads.waiting).filter_map(|reader| match reader {
            Reader::Own(token) => Some(token),
            Reader::Peer { .. } => None,
        });
        self.output.reads_refused.extend(own);
    }
}
