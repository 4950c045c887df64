//! Changes of the configuration at the leader (design §6, dissertation chapter 4).
//!
//! ```text
//!   change ──▶ appended, in force ──▶ committed ──▶ joint? leave it ──▶ in force ──▶ committed ──▶ am I out? hand over
//! ```
//!
//! One change at a time, the second half of a joint one included; none before an entry of the term is committed, since
//! before that the leader does not know whether the configuration in force is. What goes on by itself is decided anew
//! from the log each time, so that a new leader takes it up where the one before stopped: to leave a joint
//! configuration, to promote a learner that has caught up, to go when it is no voter itself.
//!
//! Who is removed is told: its removal is sent to it, and that it is committed, for a while. After that it may ask
//! for votes as long as it likes: those who hear their leader do not hear it (pre-vote), and the leader does not
//! follow its term.

use std::cmp::Reverse;

use crate::mutant::{self, Mutant};
use crate::types::{Index, Member, Membership, NodeId, Payload};

use super::change::{self, Change, Impossible, Plan};
use super::leader::Leading;
use super::progress::{Departure, Progress};
use super::replica::{Replica, State};
use super::transfer::Transfer;
use super::{Message, quorum};

/// For so many of the longest election timeouts a node that was removed is told so.
const FAREWELL_TIMEOUTS: u32 = 4;

/// What became of a change that was asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Changed {
    /// It is so, and committed.
    Already,
    /// This entry begins it. [`super::Event::MembershipCommitted`] tells how far it has come.
    Begun { index: Index },
}

/// Why a change is not begun.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ChangeRefused {
    #[error("this node does not lead")]
    NotLeader { leader: Option<NodeId> },
    #[error("leadership is being handed over")]
    TransferPending,
    /// One at a time: also the same one, until it is done.
    #[error("the change that began with entry {index} is under way")]
    Pending { index: Index },
    /// Its first members have not all met.
    #[error("the cluster is being born")]
    Forming,
    /// Asked again in a moment it will be.
    #[error("this leader has committed nothing in its term yet")]
    NotSettled,
    /// As a voter it would hold up the others. `matched` is what it holds.
    #[error("node {node} has not caught up: it holds the log up to {matched}, which ends with {last}")]
    Behind { node: NodeId, matched: Index, last: Index },
    /// With those who are heard the new configuration, or the joint one before it, could decide nothing.
    #[error("too few of those who would vote are heard: the change would stop the cluster")]
    TooFewHeard,
    #[error(transparent)]
    Impossible(#[from] Impossible),
}

impl Replica {
    /// Refuses to add whoever was removed in the same life, as far as that is remembered. For whoever drives a replica, and
    /// knows that what was removed is never started again; the protocol itself would bear it.
    pub fn refuse_removed(&self, wanted: &[Change]) -> Result<(), Impossible> {
        for change in wanted {
            let Change::Add { member, .. } = change else { continue };
            let Member { id: node, incarnation, .. } = *member;
            let is_member = self.memberships.current().member(node).is_some_and(|known| known == member);
            if !is_member && self.memberships.was_removed(node, incarnation) {
                return Err(Impossible::LifeRemoved { node, incarnation });
            }
        }
        Ok(())
    }

    pub(super) fn begin_change(&mut self, wanted: &[Change]) -> Result<Changed, ChangeRefused> {
        let State::Leader(leading) = &self.state else {
            return Err(ChangeRefused::NotLeader { leader: self.leader });
        };
        if leading.transfer.is_some() {
            return Err(ChangeRefused::TransferPending);
        }
        if self.commit < leading.term_first && !mutant::is_on(Mutant::ChangeWithoutOwnEntry) {
            return Err(ChangeRefused::NotSettled);
        }
        let (current, index) = (self.memberships.current(), self.memberships.index());
        if current.forming {
            return Err(ChangeRefused::Forming);
        }
        if index > self.commit || current.is_joint() {
            return Err(ChangeRefused::Pending { index });
        }
        let plan = change::plan(current, wanted)?;
        self.refuse_behind(leading, wanted)?;
        self.refuse_to_stop(leading, &plan)?;
        Ok(match plan {
            Plan::Nothing => Changed::Already,
            Plan::Direct(next) | Plan::Joint(next) => Changed::Begun { index: self.append_membership(next) },
        })
    }

    /// Who is to vote has caught up.
    fn refuse_behind(&self, leading: &Leading, wanted: &[Change]) -> Result<(), ChangeRefused> {
        let current = self.memberships.current();
        for change in wanted {
            let Change::Promote { node } = *change else { continue };
            if !current.voters.contains(&node) && !self.has_caught_up(leading, node) {
                let (matched, last) = (leading.matched(node), self.log.last().index);
                return Err(ChangeRefused::Behind { node, matched, last });
            }
        }
        Ok(())
    }

    /// A change cannot be taken back while nobody can decide: it is not begun where that is to be expected.
    fn refuse_to_stop(&self, leading: &Leading, plan: &Plan) -> Result<(), ChangeRefused> {
        let Plan::Joint(next) = plan else { return Ok(()) };
        let (own, patience_ticks) = (self.config.id, self.config.election_ticks.end);
        // In this term: a leader that was elected just now does not know yet who is dead.
        let heard = |voter| leading.progress.value(&voter).filter(|follower| follower.was_heard);
        let is_heard =
            |voter: NodeId| voter == own || heard(voter).is_some_and(|follower| follower.silent_ticks < patience_ticks);
        if quorum::won(next, is_heard) { Ok(()) } else { Err(ChangeRefused::TooFewHeard) }
    }

    fn has_caught_up(&self, leading: &Leading, node: NodeId) -> bool {
        let patience_ticks = self.config.election_ticks.start;
        leading.progress.value(&node).is_some_and(|progress| progress.has_caught_up(patience_ticks))
    }

    /// What has to be done next by itself, if no change is on its way to a majority.
    pub(super) fn continue_change(&mut self) {
        let State::Leader(leading) = &self.state else { return };
        let is_settled = self.commit >= leading.term_first && self.memberships.index() <= self.commit;
        let is_early = mutant::is_on(Mutant::JointLeftEarly) && self.memberships.current().is_joint();
        if !(is_settled || is_early) || leading.transfer.is_some() {
            return;
        }
        let current = self.memberships.current();
        if current.forming {
            self.continue_birth();
        } else if current.is_joint() {
            self.append_membership(change::leave(current));
        } else if !current.is_voter(self.config.id) {
            self.resign();
        } else if !current.promoting.is_empty() {
            self.promote_who_caught_up();
        }
    }

    fn promote_who_caught_up(&mut self) {
        let State::Leader(leading) = &self.state else { return };
        let current = self.memberships.current();
        let ready = current.promoting.iter().filter(|node| self.has_caught_up(leading, **node));
        let wanted: Vec<Change> = ready.map(|node| Change::Promote { node: *node }).collect();
        if let Ok(Plan::Joint(next)) = change::plan(current, &wanted) {
            self.append_membership(next);
        }
    }

    pub(super) fn append_membership(&mut self, next: Membership) -> Index {
        self.append_own(vec![Payload::Membership(next.into())]).start
    }

    /// This node led until its own removal was committed (dissertation §4.2.2). Who has most of the log takes over, at once
    /// if that is all of it; of several the one that was heard last, for one of them may be dead.
    fn resign(&mut self) {
        let (own, remaining_ticks) = (self.config.id, self.config.election_ticks.end);
        let voters = &self.memberships.current().voters;
        let State::Leader(leading) = &mut self.state else { return };
        let heirs = voters.iter().filter(|voter| **voter != own);
        let merit = |voter: NodeId| (leading.matched(voter), Reverse(leading.silent_ticks(voter)));
        if let Some(&to) = heirs.rev().max_by_key(|voter| merit(**voter)) {
            leading.transfer = Some(Transfer::new(to, remaining_ticks));
            self.continue_transfer();
        }
    }

    /// Committed, and so for good: this node is no voter any more.
    pub(super) fn is_out(&self) -> bool {
        self.memberships.index() <= self.commit && !self.memberships.current().is_voter(self.config.id)
    }

    /// Replicate to exactly the members of the configuration in force, and to those that it leaves out until they know.
    pub(super) fn follow_membership(&mut self) {
        let (own, next) = (self.config.id, self.log.last().index.next());
        let (membership, index) = (self.memberships.current(), self.memberships.index());
        let departure = Departure::new(index, FAREWELL_TIMEOUTS * self.config.election_ticks.end);
        let State::Leader(leading) = &mut self.state else { unreachable!("called for leaders") };
        for former in self.memberships.left_out().filter(|former| *former != own) {
            leading.told_farewell(former, next).depart(departure);
        }
        for member in membership.members.iter().filter(|member| member.id != own) {
            let is_new = leading.progress.value(&member.id).is_none_or(Progress::departs);
            if is_new {
                // What has not left yet was for a life before, and counts on what its disk held.
                self.output.send.retain(|outgoing| outgoing.message.to != member.id);
            }
            leading.follow(member.id, next);
        }
    }

    /// Whether a leader leaves this unheard: an answer of a higher term from somebody who is no member of the
    /// configuration in force. No majority here has given it that term. (Another leader's append is heard: the
    /// configuration that elected it may be one that this node does not know yet.)
    pub(super) fn is_of_no_concern(&self, message: &Message) -> bool {
        let is_answer = message.body.is_answer();
        let is_stranger = self.memberships.current().member(message.from).is_none();
        let leads = matches!(self.state, State::Leader(_));
        leads && is_answer && is_stranger && !mutant::is_on(Mutant::RemovedNodeDisrupts)
    }
}
