//! A client that tails: it follows the log over one stream at a time, from node to node.
//!
//! A stream keeps its order and loses nothing, or breaks. When it does, or when the client tires of a node, it goes on
//! from where it was with any other.

use super::cluster::{Happening, Simulation};
use super::oracles::{Broken, Oracle};
use super::scenario::MILLISECOND;
use super::trace::Label;
use crate::net::{self, Records, Refusal, Response, ResponseBody, TailKey};
use crate::node::driver::Input;
use crate::random::Random;
use crate::types::Index;

/// Between two looks at whether its stream lives.
const LOOK_INTERVAL: u64 = 100 * MILLISECOND;
/// Between what a node says over a stream and its arrival, and between that and room for more.
const STREAM_TIME_MAX: u64 = 20 * MILLISECOND;
/// The chance at each look that it goes elsewhere.
const TIRES_PER_MILLE: u64 = 50;

#[derive(Debug)]
pub(super) struct Follower {
    random: Random,
    /// Where it reads on: everything before has come.
    pub next: Index,
    stream: Option<Stream>,
    last_key: u64,
}

/// A tail at a node, in that node's life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Stream {
    key: TailKey,
    node: usize,
    life: u64,
}

impl Follower {
    pub fn new(random: Random) -> Follower {
        Follower { random, next: Index::FIRST, stream: None, last_key: 0 }
    }
}

impl Simulation {
    /// The follower looks whether its stream lives, and opens another if not.
    pub(super) fn follow(&mut self) {
        self.order(LOOK_INTERVAL, Happening::Follow);
        let tires = self.calm_since.is_none() && self.follower.random.chance(TIRES_PER_MILLE);
        if let Some(stream) = self.follower.stream {
            let lives = self.lives(stream.node, stream.life);
            // A node that was removed may not know it.
            let is_done = self.calm_since.is_some() && !self.is_wanted(stream.node);
            if lives && !tires && !is_done {
                return;
            }
            self.follower.stream = None;
            if lives {
                self.input(stream.node, Input::TailClosed { tail: stream.key });
            }
        }
        let node = self.follower.random.below(self.nodes.len() as u64) as usize;
        if self.nodes[node].process.is_none() {
            return;
        }
        self.follower.last_key += 1;
        let stream = Stream { key: TailKey(self.follower.last_key), node, life: self.nodes[node].life };
        self.follower.stream = Some(stream);
        self.report.tails += 1;
        self.input(node, Input::TailOpened { tail: stream.key, from: self.follower.next });
    }

    /// A node has records for the follower: they arrive, or the stream has broken by then.
    pub(super) fn tail(&mut self, tail: TailKey, records: Records) {
        let response = Response { id: 0, body: ResponseBody::Records(records.clone()) };
        let mut bytes = bytes::BytesMut::new();
        net::put_response(&mut bytes, &response);
        self.note(Label::Output, &[self.now, tail.0], &bytes);
        let after = self.follower.random.below(STREAM_TIME_MAX);
        self.order(after, Happening::Tailed { tail, records });
    }

    /// What was trimmed before it was read is passed over.
    pub(super) fn end_tail(&mut self, tail: TailKey, refusal: &Refusal) -> Result<(), Broken> {
        self.note(Label::Output, &[self.now, tail.0], &[]);
        if self.follower.stream.is_none_or(|stream| stream.key != tail) {
            return Ok(());
        }
        self.follower.stream = None;
        if let Refusal::Trimmed { first } = refusal {
            // What is on its way from there is not waited for.
            self.oracles.trims.check_refusal(self.follower.next, refusal)?;
            self.report.tails_trimmed += 1;
            self.follower.next = *first;
        }
        Ok(())
    }

    /// What a tail gives is what is committed there, all of it, and goes on where the last ended.
    pub(super) fn tailed(&mut self, tail: TailKey, records: &Records) -> Result<(), Broken> {
        let Some(stream) = self.follower.stream.filter(|stream| stream.key == tail) else { return Ok(()) };
        self.note(Label::Response, &[self.now, tail.0, records.next.0], &[]);
        let from = self.follower.next;
        if records.next <= from {
            return Err(Broken::new(Oracle::Acknowledged, format!("a tail goes from {from} to {}", records.next)));
        }
        self.oracles.check_records(from, records.next, &records.records)?;
        self.oracles.check_committed_records(from, records.next, &records.records)?;
        self.follower.next = records.next;
        self.report.records_tailed += records.records.len() as u64;
        let after = self.follower.random.below(STREAM_TIME_MAX);
        self.order(after, Happening::TailReady { node: stream.node, life: stream.life, tail });
        Ok(())
    }

    pub(super) fn tail_ready(&mut self, node: usize, life: u64, tail: TailKey) {
        if self.lives(node, life) {
            self.input(node, Input::TailReady { tail });
        }
    }
}
