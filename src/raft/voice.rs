//! Followers that have lost what they had acknowledged (design §6, No voice).
//!
//! A leader counts on what a follower has acknowledged in its term. One that comes back without it was put back from an
//! older copy, or its disk forgot: whatever it says now, it may have said the opposite before. So this life of it is not
//! heard any more, by the leader that saw it; it is told, and comes back as another life, as a learner first.
//!
//! The follower may find the same by itself: a leader that counts on entries which are not there any more contradicts
//! what it knows ([`Contradicted::AcknowledgedBeyond`](super::Contradicted)).
//!
//! A node that reports that it does not know its last name is another matter: its match is set to what it reports. There
//! is none yet; a log whose end is damaged is not started on.

use crate::types::{Incarnation, LogId, NodeId};

use super::progress::Progress;
use super::replica::{Replica, State};
use super::{Event, Sender};

impl Replica {
    /// What this follower has acknowledged it does not have: nothing that it says counts any more, nor what it has said.
    pub(super) fn take_voice(&mut self, node: NodeId, acknowledged: LogId, holds: LogId) {
        let next = self.log.last().index.next();
        let State::Leader(leading) = &mut self.state else { unreachable!("called for leaders") };
        let departure = leading.progress.value(&node).and_then(|progress| progress.departure);
        let mut progress = Progress::new(next);
        // Who is removed goes all the same.
        progress.departure = departure;
        leading.progress.insert(node, progress);
        self.lost.insert(node, self.named_incarnation(node));
        self.output.events.push(Event::VoiceLost { peer: node, acknowledged, holds });
    }

    /// Whether the life of this node that the configuration in force names has lost its voice.
    pub(super) fn has_lost(&self, node: NodeId) -> bool {
        self.lost.get(&node).is_some_and(|lost| *lost == self.named_incarnation(node))
    }

    pub(super) fn is_lost(&self, node: NodeId, sender: Sender) -> bool {
        self.lost.get(&node) == Some(&sender.incarnation)
    }

    /// There is a new link to this follower: what was on its way is lost, and what it has acknowledged it may have lost.
    /// It is asked at once, before anything is counted on it.
    pub(super) fn verify_again(&mut self, node: NodeId) {
        let State::Leader(leading) = &mut self.state else { return };
        let Some(progress) = leading.progress.value_mut(&node) else { return };
        progress.verify_again(&self.log);
        leading.begin_attempt(node);
    }

    fn named_incarnation(&self, node: NodeId) -> Incarnation {
        self.memberships.current().member(node).map_or(Incarnation::OPEN, |member| member.incarnation)
    }
}
