//! The follower's side of replication: check, append, answer.

use std::cmp::Reverse;

use crate::mutant::{self, Mutant};
use crate::types::{Index, LogId, NodeId};

use super::replica::{Replica, State};
use super::{Append, AppendOutcome, AppendReply, Body, Contradicted, Event, Round};

/// What a follower keeps about the leader of its term.
#[derive(Clone, Hash, Debug)]
pub(super) struct Following {
    /// The log is known to be the leader's up to here. Begins at the commit index, because every later leader has what
    /// is committed (§5.4.3), and only grows within a term. Commit never passes it.
    pub(super) verified: Index,
    /// The newest round of the leader that was heard.
    round: Round,
    /// Appends were taken and not answered.
    answer_due: bool,
    /// Of the appends that were rejected and not answered the leader's newest question.
    rejected: Option<Rejection>,
}

/// An append that does not follow on this log.
#[derive(Clone, Copy, Hash, Debug)]
struct Rejection {
    previous: LogId,
    hint: LogId,
    /// The append's own, so that the leader can tell to which attempt it belongs; newer ones may have been heard.
    round: Round,
}

impl Following {
    pub(super) fn new(commit: Index) -> Following {
        Following { verified: commit, round: Round::default(), answer_due: false, rejected: None }
    }

    /// A round was heard that is no heartbeat's.
    pub(super) fn hear(&mut self, round: Round) {
        self.round = self.round.max(round);
    }

    /// The log is the leader's up to here, and that is to be said.
    pub(super) fn verify(&mut self, index: Index) {
        self.verified = self.verified.max(index);
        self.answer_due = true;
    }

    /// As [`Following::verify`], of a log that begins here now: what was rejected before says nothing of it.
    pub(super) fn begin_at(&mut self, index: Index) {
        self.rejected = None;
        self.verify(index);
    }

    /// Appends were taken or rejected, and the leader does not know yet.
    pub(super) fn owes_answer(&self) -> bool {
        self.answer_due || self.rejected.is_some()
    }

    /// What begins anew begins a round; within one the leader's probes only move down.
    fn reject(&mut self, rejection: Rejection) {
        let age = |of: &Rejection| (Reverse(of.round), of.previous.index);
        if self.rejected.is_none_or(|other| age(&rejection) < age(&other)) {
            self.rejected = Some(rejection);
        }
    }
}

impl Replica {
    /// AppendEntries (§5.3).
    pub(super) fn on_append(&mut self, from: NodeId, append: Append) {
        let Some(verified) = self.follow_leader(from).map(|following| following.verified) else { return };
        if let Some(what) = self.contradicted_by(&append, verified) {
            return self.contradict(from, what);
        }
        if !append.entries.is_empty() && self.log.is_full(self.commit) {
            // As if it were lost, without an answer: the leader probes after a while, at the pace of heartbeats.
            return;
        }
        let State::Follower(following) = &mut self.state else { unreachable!("who hears a leader follows it") };
        following.round = following.round.max(append.round);
        let previous = append.previous;
        if previous.index > following.verified && self.log.term_at(previous.index) != Some(previous.term) {
            let hint = self.log.highest_at_most(previous.index, previous.term);
            following.reject(Rejection { previous, hint, round: append.round });
            return;
        }
        following.answer_due = true;
        following.verified = following.verified.max(previous.index.plus(append.entries.len() as u64));
        let (verified, commit) = (following.verified, append.commit);
        self.append_new(append);
        let known = if mutant::is_on(Mutant::CommitBeyondMatch) { self.log.last().index } else { verified };
        self.follow_commit(commit.min(known));
    }

    /// "I still lead": no log is checked. The leader tells only as much of its commit index as it knows to match here,
    /// from an answer of this node in this term; that node may have been this one before a restart.
    pub(super) fn on_heartbeat(&mut self, from: NodeId, commit: Index, round: Round) {
        let last = self.log.last();
        let Some(following) = self.follow_leader(from) else { return };
        if commit > last.index {
            return self.contradict(from, Contradicted::AcknowledgedBeyond { said: commit, last });
        }
        following.round = following.round.max(round);
        following.verified = following.verified.max(commit);
        self.follow_commit(commit);
        self.send(from, Body::HeartbeatReply { round });
    }

    /// Answer all appends since the last output with one reply: the end that is verified holds for each of them.
    pub(super) fn send_as_follower(&mut self) {
        let Some(leader) = self.leader else { return };
        self.send_read_index(leader);
        let State::Follower(following) = &self.state else { unreachable!("called for followers") };
        if !following.owes_answer() {
            return;
        }
        let envelope = self.envelope();
        let State::Follower(following) = &mut self.state else { unreachable!("called for followers") };
        let round = following.round;
        if let Some(Rejection { previous, hint, round }) = following.rejected.take() {
            let outcome = AppendOutcome::Rejected { previous, hint };
            let body = Body::AppendReply(AppendReply { round, outcome });
            self.output.send.push(envelope.outgoing(leader, body));
        }
        if std::mem::take(&mut following.answer_due) {
            let last = following.verified;
            let after = self.log.durable_after(last, self.persists.next());
            let after = after.filter(|_| !mutant::is_on(Mutant::AckBeforeFlush));
            let outcome = AppendOutcome::Matched { last };
            let body = Body::AppendReply(AppendReply { round, outcome });
            self.output.send.push(envelope.after(after).outgoing(leader, body));
        }
    }

    /// The leader of this term was heard: whatever this node was about to do, it follows. `None` if it knows another.
    pub(super) fn follow_leader(&mut self, from: NodeId) -> Option<&mut Following> {
        if let Some(leader) = self.leader.filter(|leader| *leader != from) {
            self.contradict(from, Contradicted::TwoLeaders { leader });
            return None;
        }
        if let State::PreCandidate(_) | State::Candidate(_) = self.state {
            self.become_follower();
        }
        self.set_leader(Some(from));
        self.restart_election_timer();
        self.promise();
        match &mut self.state {
            State::Follower(following) => Some(following),
            _ => unreachable!("a leader knows of itself, and whoever stands has given that up"),
        }
    }

    /// Append what is new, in place of what conflicts. Entries that are there already are left alone: an append that
    /// was delayed must not cut off what came after it.
    fn append_new(&mut self, append: Append) {
        let mut entries = append.entries.into_iter().peekable();
        while entries.next_if(|entry| self.holds(entry.id)).is_some() {}
        let Some(first) = entries.peek().map(|entry| entry.id.index) else { return };
        if first <= self.log.last().index {
            self.replace_from(first);
        }
        entries.for_each(|entry| self.push_entry(entry));
    }

    /// Committed entries count as held without a look: the log may begin after them.
    fn holds(&self, id: LogId) -> bool {
        id.index <= self.commit || self.log.term_at(id.index) == Some(id.term)
    }

    fn replace_from(&mut self, from: Index) {
        assert!(from > self.commit, "entry {from} is committed (up to {}) and would be replaced", self.commit);
        self.log.truncate(from);
        self.output.events.push(Event::Replaced { from });
        if self.memberships.truncate(from) {
            let index = self.memberships.index();
            self.output.events.push(Event::MembershipChanged { index });
        }
    }

    /// Never beyond what is known to be the leader's, however far its own commit index is (§5.3).
    pub(super) fn follow_commit(&mut self, commit: Index) {
        if commit > self.commit {
            self.commit = commit;
            self.note_commit();
        }
    }
}
