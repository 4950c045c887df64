//! Requests that nodes pass on to the leader. A link between nodes loses only what was on it when it broke, and keeps the
//! order; here any request or answer may be lost or overtaken, and an answer may come twice. A request does not: a link
//! that repeats it would make a refusal mean nothing.

use bytes::{Bytes, BytesMut};

use super::cluster::{Happening, Simulation};
use super::links::Greeting;
use super::node::{Process, node_at, node_id};
use super::oracles::{Broken, Oracle};
use super::scenario::MILLISECOND;
use super::trace::Label;
use crate::net::{self, Forward, ForwardMessage, Forwarded, Refusal};
use crate::node::driver::Input;
use crate::types::NodeId;

/// Of a thousand requests so many find no link, or one that is full.
const REFUSED_PER_MILLE: u64 = 20;
/// Of a thousand losses so many are noticed by the node that passed on: the others are found out by age.
const NOTICED_PER_MILLE: u64 = 700;

impl Simulation {
    pub(super) fn forward(&mut self, node: usize, process: &mut Process, to: NodeId, forward: &Forward) {
        if self.forward_random.chance(REFUSED_PER_MILLE) {
            let refusal = match self.forward_random.chance(500) {
                true => Refusal::Busy,
                false => Refusal::Unavailable { reason: "no link".to_owned() },
            };
            process.driver.handle(Input::NotForwarded { number: forward.id.number, refusal });
            self.run_soon(node);
            return;
        }
        let mut bytes = BytesMut::new();
        net::put_forward(&mut bytes, forward);
        self.report.forwarded += 1;
        let to = node_at(to);
        let is_lost = self.carry(node, process, to, &bytes.freeze(), 1);
        self.break_link(is_lost, node, to);
    }

    pub(super) fn forwarded(&mut self, node: usize, process: &Process, to: NodeId, forwarded: &Forwarded) {
        let mut bytes = BytesMut::new();
        net::put_forwarded(&mut bytes, forwarded);
        let to = node_at(to);
        let is_lost = self.carry(node, process, to, &bytes.freeze(), 2);
        self.break_link(is_lost, to, node);
    }

    pub(super) fn deliver_forwarded(
        &mut self,
        node: usize,
        from: usize,
        greeting: Greeting,
        bytes: Bytes,
    ) -> Result<(), Broken> {
        let (kind, body) = (bytes[net::FRAME_HEAD_BYTES - 1], bytes.slice(net::FRAME_HEAD_BYTES..));
        let message = net::forward_message(net::Frame { kind, body });
        if !self.is_welcome(node, &greeting, from) {
            return Ok(());
        }
        let (from, sender) = (node_id(from), greeting.sender);
        let garbled = |error| Broken::new(Oracle::Whole, format!("a forwarded message is garbled: {error}"));
        self.input(
            node,
            match message.map_err(garbled)? {
                ForwardMessage::Forward(forward) => Input::Forward { from, sender, forward },
                ForwardMessage::Forwarded(forwarded) => Input::Forwarded { from, forwarded },
            },
        );
        Ok(())
    }

    /// Tells whether nothing arrives.
    fn carry(&mut self, node: usize, process: &Process, to: usize, bytes: &Bytes, copies_max: usize) -> bool {
        self.note(Label::Message, &[self.now, node as u64], bytes);
        let Some(greeting) = self.greet(node, process, to) else { return true };
        let arrivals = self.network.between_nodes(self.now, node, to);
        let arrivals = self.network.first(arrivals, copies_max);
        for arrival in &arrivals {
            let happening = Happening::Forwarded { node: to, from: node, greeting, bytes: bytes.clone() };
            self.order(arrival - self.now, happening);
        }
        arrivals.is_empty()
    }

    fn break_link(&mut self, is_lost: bool, node: usize, other: usize) {
        if is_lost && self.forward_random.chance(NOTICED_PER_MILLE) {
            let after = self.forward_random.below(500 * MILLISECOND);
            self.order(after, Happening::LinkLost { node, other });
        }
    }
}
