//! In which life, and in which start of it, the other nodes speak (design §6, No voice).
//!
//! ```text
//!   message ──▶ of a life that is meant? ──▶ of the newest start of it? ──▶ is that durable here? ──▶ Replica
//!                     no: dropped                no: dropped                  not yet: held
//! ```
//!
//! A start that is older than one which was heard is that of an older copy of a directory: what the node has said since is
//! not in it. So the newest start is in the superblock before anything is counted that was said in it, and a restart of
//! those who heard it does not let the older copy in. That is one save for each start of each other node.

use std::collections::{BTreeMap, VecDeque};

use super::{Driver, Stopped};
use crate::limits::LIVES_MET_MAX;
use crate::machine::StateMachine;
use crate::net::CloseReason;
use crate::raft::{Input as RaftInput, Message, Sender};
use crate::superblock::{Met, SaveNumber};
use crate::types::{Incarnation, NodeId};

/// Messages of one node that wait for the superblock; more are lost, as on a bad network.
const HELD_MAX: usize = 256;

/// What waits until the start of its sender is durable here.
#[derive(Debug)]
pub(super) struct Held {
    save: SaveNumber,
    messages: VecDeque<(Sender, Message)>,
}

pub(super) type HeldByNode = BTreeMap<NodeId, Held>;

impl<M: StateMachine> Driver<M> {
    pub(super) fn on_met(&mut self, node: NodeId, sender: Sender) {
        self.refused.remove(&node);
        self.replica.handle(RaftInput::Met { node, incarnation: sender.incarnation });
        if self.is_believed(node, sender) {
            self.remember(node, sender);
        }
    }

    pub(super) fn on_refused(&mut self, by: NodeId, reason: CloseReason) {
        if reason.takes_voice() {
            return self.stop_on(Err(Stopped::VoiceTaken { by, reason }));
        }
        if self.refused.contains_key(&by) || self.refused.len() < LIVES_MET_MAX {
            self.refused.insert(by, reason);
        }
    }

    pub(super) fn on_peer(&mut self, sender: Sender, message: Message) {
        let from = message.from;
        if !self.is_believed(from, sender) || !self.replica.hears_message(&message, sender) {
            return;
        }
        self.remember(from, sender);
        match self.held.get_mut(&from) {
            Some(held) if held.messages.len() < HELD_MAX => held.messages.push_back((sender, message)),
            Some(_) => {}
            None => self.replica.handle(RaftInput::Message(message)),
        }
    }

    /// The superblock may have got further: what waited for it is heard.
    pub(super) fn release_held(&mut self) {
        let durable = self.pipeline.superblock.durable();
        while let Some((node, _)) = self.held.iter().find(|(_, held)| held.save <= durable) {
            let node = *node;
            let held = self.held.remove(&node).expect("it was found");
            for (sender, message) in held.messages {
                // What came meanwhile may have made another life of it the one that is meant.
                if self.is_believed(node, sender) && self.replica.hears_message(&message, sender) {
                    self.replica.handle(RaftInput::Message(message));
                }
            }
        }
    }

    /// This life of a node has lost what it had acknowledged: nothing that it says is heard any more.
    pub(super) fn disbelieve(&mut self, node: NodeId) {
        let Some(mut met) = self.pipeline.superblock.state().met.get(&node).copied() else { return };
        met.has_lost = true;
        self.pipeline.superblock.save(|state| {
            state.met.insert(node, met);
        });
        self.held.remove(&node);
    }

    /// The other nodes as they were met last, in this process or in one before it.
    pub fn lives_met(&self) -> &BTreeMap<NodeId, Met> {
        &self.pipeline.superblock.state().met
    }

    pub(super) fn is_believed(&self, node: NodeId, sender: Sender) -> bool {
        let met = self.known(node, sender.incarnation);
        let is_older = met.is_some_and(|met| met.has_lost || sender.boot < met.boot);
        !is_older && self.replica.hears(node, sender)
    }

    /// What is known of this very life.
    fn known(&self, node: NodeId, incarnation: Incarnation) -> Option<Met> {
        self.pipeline.superblock.state().met.get(&node).copied().filter(|met| met.incarnation == incarnation)
    }

    fn remember(&mut self, node: NodeId, sender: Sender) {
        let Sender { incarnation, boot, .. } = sender;
        if self.known(node, incarnation).is_some_and(|met| met.boot == boot) {
            return;
        }
        self.offers.forget(node);
        let met = &self.pipeline.superblock.state().met;
        let membership = self.replica.membership();
        let is_full = met.len() >= LIVES_MET_MAX && !met.contains_key(&node);
        let stranger = met.keys().find(|known| membership.member(**known).is_none()).copied();
        let save = self.pipeline.superblock.save(|state| {
            if is_full {
                let stranger = stranger.expect("there are fewer members than nodes that are remembered");
                state.met.remove(&stranger);
            }
            state.met.insert(node, Met { incarnation, boot, has_lost: false });
        });
        let held = self.held.entry(node).or_insert(Held { save, messages: VecDeque::new() });
        held.save = save;
    }
}
