//! Who may speak with whom, as the links between nodes have it (`net::peer`): where members change.
//!
//! A real link begins with a greeting of each side, and ends when a configuration comes into force by which it should
//! not be there. Here each message carries the greeting that its sender would give when it sends, and is let in by the
//! rules of a greeting when it arrives. A machine that was given to another life is not reached by what was on its way
//! to the one before. What is not here: the memory that a process has of the lives and boots that it has met.

use bytes::Bytes;

use super::cluster::Simulation;
use super::node::{Process, node_at, node_id};
use super::oracles::{Broken, Oracle};
use crate::net;
use crate::node::driver::Input;
use crate::raft::{Replica, Sender};
use crate::types::{Incarnation, Member};

/// What a node says of itself to another.
#[derive(Clone, Copy, Debug)]
pub(super) struct Greeting {
    pub sender: Sender,
    /// Which life of the receiver the sender means, if it means any.
    means: Option<Incarnation>,
    /// The life that the receiver's machine was in when this was sent.
    reaches: Incarnation,
}

impl Simulation {
    /// A node that has started and those that run have links to each other, where both let the other in.
    pub(super) fn meet(&mut self, node: usize) {
        for other in (0..self.nodes.len()).filter(|other| *other != node) {
            if let (Some(one), Some(two)) = (self.met(node, other), self.met(other, node)) {
                self.input(node, two);
                self.input(other, one);
            }
        }
    }

    /// What `to` hears first of a node that runs, if they have a link.
    fn met(&self, node: usize, to: usize) -> Option<Input> {
        let process = self.nodes[node].process.as_ref()?;
        let sender = self.greet(node, process, to)?.sender;
        Some(Input::Met { node: node_id(node), sender })
    }

    fn sender(&self, node: usize, process: &Process) -> Sender {
        let configuration = process.driver.replica().membership_id();
        Sender { incarnation: self.nodes[node].identity.incarnation, boot: process.boot, configuration }
    }

    pub(super) fn deliver(&mut self, node: usize, greeting: &Greeting, bytes: Bytes) -> Result<(), Broken> {
        let garbled = |error: crate::codec::Error| Broken::new(Oracle::Whole, format!("a message is garbled: {error}"));
        // Whole frames are delivered; the streams that cut and join them have tests of their own.
        let (kind, body) = (bytes[net::FRAME_HEAD_BYTES - 1], bytes.slice(net::FRAME_HEAD_BYTES..));
        let message = net::message(net::Frame { kind, body }).map_err(garbled)?;
        if self.is_welcome(node, greeting, node_at(message.from)) {
            self.input(node, Input::Peer { sender: greeting.sender, message });
        }
        Ok(())
    }

    /// What `from`, whose process this is, says of itself to `to`; nothing if it would not let that one in.
    pub(super) fn greet(&self, from: usize, process: &Process, to: usize) -> Option<Greeting> {
        let own = self.greeting(from, process, to);
        let other = self.nodes[to].process.as_ref().filter(|_| self.operator.is_some());
        let replica = process.driver.replica();
        let is_let_in = |other: &Process| self.lets_in(from, replica, to, &self.greeting(to, other, from));
        other.is_none_or(is_let_in).then_some(own)
    }

    /// Whether a message with this greeting arrives at the process that runs there now.
    pub(super) fn is_welcome(&self, node: usize, greeting: &Greeting, from: usize) -> bool {
        let Some(process) = self.nodes[node].process.as_ref().filter(|_| self.operator.is_some()) else { return true };
        let is_reached = greeting.reaches == self.nodes[node].identity.incarnation;
        is_reached && self.lets_in(node, process.driver.replica(), from, greeting)
    }

    fn greeting(&self, from: usize, process: &Process, to: usize) -> Greeting {
        let (replica, sender) = (process.driver.replica(), self.sender(from, process));
        let means = self.operator.as_ref().and_then(|_| spoken_with(replica, to)).map(|member| member.incarnation);
        Greeting { sender, means, reaches: self.nodes[to].identity.incarnation }
    }

    /// The rules of `net::peer::Peers::meet`.
    fn lets_in(&self, node: usize, replica: &Replica, from: usize, greeting: &Greeting) -> bool {
        let (own, theirs) = (replica.membership_id(), greeting.sender.configuration);
        let named = spoken_with(replica, from).map(|member| member.incarnation);
        let is_meant = greeting.means.map(|named| self.nodes[node].identity.is_named_by(named));
        let is_outdated = own > theirs && named == Some(greeting.sender.incarnation);
        if is_meant == Some(false) && !is_outdated {
            return false;
        }
        let knows_more = is_meant.is_some() && theirs > own;
        knows_more || named.is_some_and(|named| named == Incarnation::OPEN || named == greeting.sender.incarnation)
    }
}

fn spoken_with(replica: &Replica, other: usize) -> Option<Member> {
    replica.correspondents().into_iter().find(|member| member.id == node_id(other))
}
