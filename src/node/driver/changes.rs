//! Changes of the members between their arrival and their answer.
//!
//! A change is answered when it is whole: committed, and where voters change its second half, too. Every change may be
//! asked for again, whatever was heard of it: what is so already is answered so, by who still leads.

use super::Driver;
use super::reads::Read;
use crate::machine::StateMachine;
use crate::mutant::{self, Mutant};
use crate::net::{ClientKey, Consistency, MemberChange, Refusal, ResponseBody};
use crate::raft::{Change, ChangeRefused, Changed};
use crate::types::Index;

/// The change that is under way, and who waits for it: there is one at a time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiting {
    client: ClientKey,
    id: u64,
    /// It is done with the first configuration from here on that is committed.
    done_from: Index,
}

impl<M: StateMachine> Driver<M> {
    pub(super) fn on_member_changes(&mut self, client: ClientKey, id: u64, changes: Vec<MemberChange>) {
        let wanted: Vec<Change> = changes.into_iter().map(wanted).collect();
        // Also one that is committed, if whoever waits for it has not been told yet.
        let begun = match self.change {
            Some(Waiting { done_from, .. }) => Err(ChangeRefused::Pending { index: done_from }),
            None => match self.replica.refuse_removed(&wanted) {
                Ok(()) => self.replica.change(&wanted),
                Err(impossible) => Err(impossible.into()),
            },
        };
        match begun {
            Ok(Changed::Already) if mutant::is_on(Mutant::AlreadyUnconfirmed) => {
                self.reply(client, id, ResponseBody::Changed { index: Index::ZERO });
            }
            // Another may lead meanwhile, and have committed another change: that this node leads is made sure of first.
            Ok(Changed::Already) => self.on_read(Read::of_what_is_so(client, id), Consistency::Linearizable),
            Ok(Changed::Begun { index }) => {
                let is_half = self.replica.membership().is_joint();
                let done_from = if is_half { index.next() } else { index };
                self.change = Some(Waiting { client, id, done_from });
            }
            Err(refused) => {
                let refusal = self.refusal_of_change(refused);
                self.reply(client, id, ResponseBody::Refused(refusal));
            }
        }
    }

    /// The configuration in force, at this index, is committed.
    pub(super) fn on_membership_committed(&mut self, index: Index) {
        if let Some(change) = self.change.take_if(|change| change.done_from <= index) {
            self.reply(change.client, change.id, ResponseBody::Changed { index });
        }
    }

    /// This node leads no more: whether the change will be committed is not known here.
    pub(super) fn abandon_change(&mut self) {
        if let Some(change) = self.change.take() {
            self.reply(change.client, change.id, ResponseBody::Refused(Refusal::OutcomeUnknown));
        }
    }

    /// What may pass by itself is told apart from what will be refused again.
    fn refusal_of_change(&self, refused: ChangeRefused) -> Refusal {
        match refused {
            ChangeRefused::NotLeader { .. } => Refusal::NotLeader { leader: self.leader_address() },
            ChangeRefused::TransferPending
            | ChangeRefused::Pending { .. }
            | ChangeRefused::NotSettled
            | ChangeRefused::Forming
            | ChangeRefused::TooFewHeard
            | ChangeRefused::Behind { .. } => Refusal::Unavailable { reason: refused.to_string() },
            ChangeRefused::Impossible(impossible) => Refusal::Impossible { reason: impossible.to_string() },
        }
    }
}

fn wanted(change: MemberChange) -> Change {
    match change {
        MemberChange::Add { member, promote } => Change::Add { member, promote },
        MemberChange::Promote { node } => Change::Promote { node },
        MemberChange::Remove { node, incarnation } => Change::RemoveLife { node, incarnation },
    }
}
