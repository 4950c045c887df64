//! Elections: pre-vote, vote, and the rules that keep them from disturbing a leader that works.

use crate::mutant::{self, Mutant};
use crate::types::{HardState, LogId, Membership, NodeId, Term};

use super::by_node::ByNode;
use super::leader::Leading;
use super::replica::{Replica, State, Tally};
use super::{AppendOutcome, AppendReply, Body, Event, Message, Round, quorum};

impl Replica {
    pub(super) fn on_tick(&mut self) {
        self.own_disk.on_tick();
        if let State::Leader(_) = self.state {
            self.on_leader_tick();
            return;
        }
        self.election_elapsed_ticks += 1;
        self.retry_follower_read();
        if self.election_elapsed_ticks >= self.election_timeout_ticks {
            self.on_election_due();
        }
    }

    /// The leader was not heard for the time that was drawn, or an election came to nothing.
    #[inline(never)]
    fn on_election_due(&mut self) {
        self.is_touched = true;
        self.set_leader(None);
        self.restart_election_timer();
        if self.may_stand() && !self.is_bound() {
            match mutant::is_on(Mutant::NoPreVote) {
                true => self.stand(false),
                false => self.begin_pre_vote(),
            }
        } else if let State::PreCandidate(_) = self.state {
            // A late answer must not make it stand after all. A candidate stays one: its own vote may be on its way.
            self.become_follower();
        }
    }

    /// Draw a new election timeout (§5.2). Called when the leader is heard, a vote is granted, an election begins, or
    /// this node stops leading; nowhere else.
    pub(super) fn restart_election_timer(&mut self) {
        let range = &self.config.election_ticks;
        self.election_elapsed_ticks = 0;
        self.election_timeout_ticks = self.random.between(u64::from(range.start), u64::from(range.end)) as u32;
    }

    /// Ask whether an election could be won, so that a node that cannot win does not raise the term (dissertation
    /// §9.6).
    fn begin_pre_vote(&mut self) {
        self.state = State::PreCandidate(Tally::new());
        self.tell_role();
        let body = Body::PreVote { next: self.term().next(), last: self.log.last() };
        self.send_to_voters(&body);
        self.count_pre_vote(self.config.id, true);
    }

    /// Stand for election (§5.2). The requests leave after the new term and the vote are durable: every message does.
    fn stand(&mut self, transfer: bool) {
        let own = self.config.id;
        self.set_hard_state(HardState { term: self.term().next(), vote: Some(own) });
        self.state = State::Candidate(Tally::new());
        self.set_leader(None);
        self.restart_election_timer();
        self.tell_role();
        let body = Body::Vote { last: self.log.last(), transfer };
        self.send_to_voters(&body);
    }

    fn send_to_voters(&mut self, body: &Body) {
        let (envelope, own) = (self.envelope(), self.config.id);
        let membership = self.memberships.current();
        let voters = membership.members.iter().map(|member| member.id);
        for to in voters.filter(|id| *id != own && membership.is_voter(*id)) {
            self.output.send.push(envelope.outgoing(to, body.clone()));
        }
    }

    /// A message of a higher term. False if it must be left unheard: a vote that would disturb a leader that this node
    /// hears (dissertation §4.2.3). Pre-votes change nothing, so they do not change the term either.
    pub(super) fn follow_newer_term(&mut self, message: &Message) -> bool {
        match message.body {
            Body::PreVote { next, last } => {
                self.on_pre_vote(message.from, next, last);
                return false;
            }
            Body::PreVoteReply { next, granted: true } => {
                self.on_pre_vote_reply(message.from, next, true);
                return false;
            }
            Body::Vote { transfer: false, .. } if self.is_loyal(Mutant::VoteBesideLeader) => return false,
            _ if self.is_of_no_concern(message) => return false,
            _ => {}
        }
        self.enter_term(message.term);
        true
    }

    /// The sender is behind, perhaps a leader that was replaced: any answer of ours tells it the term. It names no round:
    /// should the sender come to lead in our term, its rounds of before must not confirm those of then. Answers to questions
    /// of an older term mean nothing any more.
    pub(super) fn answer_older_term(&mut self, message: Message) {
        let body = match message.body {
            Body::PreVote { next, last } => return self.on_pre_vote(message.from, next, last),
            // Who answers a pre-vote keeps its own term, which may be lower; `next` says which question it answers.
            Body::PreVoteReply { next, granted } => return self.on_pre_vote_reply(message.from, next, granted),
            Body::Vote { .. } => Body::VoteReply { granted: false },
            Body::Append(append) => {
                let outcome = AppendOutcome::Rejected { previous: append.previous, hint: LogId::ZERO };
                Body::AppendReply(AppendReply { round: Round::default(), outcome })
            }
            Body::Heartbeat { .. } | Body::Snapshot { .. } => Body::HeartbeatReply { round: Round::default() },
            Body::ReadIndex { asked } => Body::ReadIndexReply { asked, index: None },
            Body::VoteReply { .. }
            | Body::AppendReply(_)
            | Body::HeartbeatReply { .. }
            | Body::ReadIndexReply { .. }
            | Body::StandNow => return,
        };
        self.send(message.from, body);
    }

    pub(super) fn on_pre_vote(&mut self, from: NodeId, next: Term, last: LogId) {
        let free = next > self.term() || (next == self.term() && self.could_vote_for(from));
        let granted = free && !self.is_loyal(Mutant::PreVoteBesideLeader) && self.is_up_to_date(last);
        self.send(from, Body::PreVoteReply { next, granted });
    }

    pub(super) fn on_pre_vote_reply(&mut self, from: NodeId, next: Term, granted: bool) {
        if next == self.term().next() {
            self.count_pre_vote(from, granted);
        }
    }

    fn count_pre_vote(&mut self, from: NodeId, granted: bool) {
        let State::PreCandidate(tally) = &mut self.state else { return };
        let membership = self.memberships.current();
        tally.count(membership, from, granted);
        if quorum::won(membership, |voter| tally.said(voter, true)) {
            match self.may_stand() {
                true => self.stand(false),
                false => self.become_follower(),
            }
        } else if quorum::lost(membership, |voter| tally.said(voter, false)) {
            self.become_follower();
        }
    }

    /// RequestVote (§5.2, §5.4.1). Asked again by the same candidate, the answer is the same.
    pub(super) fn on_vote(&mut self, from: NodeId, last: LogId, transfer: bool) {
        let hears_another = self.hears_leader() && self.leader != Some(from);
        let protected = !transfer && (hears_another || self.is_bound());
        let refuses = mutant::is_on(Mutant::UnawareRefuses) && !self.memberships.current().is_voter(self.config.id);
        let granted = self.could_vote_for(from) && !protected && self.is_up_to_date(last) && !refuses;
        if granted {
            self.set_hard_state(HardState { term: self.term(), vote: Some(from) });
            self.restart_election_timer();
            if let State::PreCandidate(_) = self.state {
                self.become_follower();
            }
        }
        let envelope = self.envelope();
        let envelope = if mutant::is_on(Mutant::VoteNotFlushed) { envelope.unguarded() } else { envelope };
        self.output.send.push(envelope.outgoing(from, Body::VoteReply { granted }));
    }

    pub(super) fn on_vote_reply(&mut self, from: NodeId, granted: bool) {
        let State::Candidate(tally) = &mut self.state else { return };
        let membership = self.memberships.current();
        tally.count(membership, from, granted);
        if quorum::won(membership, |voter| tally.said(voter, true)) {
            self.become_leader();
        } else if quorum::lost(membership, |voter| tally.said(voter, false)) {
            self.become_follower();
        }
    }

    /// The own vote counts when it cannot be forgotten any more.
    pub(super) fn count_own_vote(&mut self) {
        if self.persists.hard_state_after().is_none() {
            self.on_vote_reply(self.config.id, true);
        }
    }

    /// The leader asks this node to stand, and has told it that it has the whole log (dissertation §3.10).
    pub(super) fn on_stand_now(&mut self, from: NodeId) {
        if self.leader == Some(from) && self.may_stand() {
            self.note_handed_over();
            self.stand(true);
        }
    }

    fn become_leader(&mut self) {
        assert!(matches!(self.state, State::Candidate(_)), "only a candidate is elected");
        assert_eq!(self.hard_state.vote, Some(self.config.id), "a leader has its own vote");
        let uncommitted_bytes = self.log.cached_cost_bytes(self.commit, self.log.last().index);
        let leading = Leading::new(self.log.last().index.next(), uncommitted_bytes);
        self.state = State::Leader(Box::new(leading));
        self.follow_membership();
        self.tell_role();
        self.set_leader(Some(self.config.id));
        self.append_noop();
    }

    /// A leader that hears no majority cannot commit, and must not keep clients waiting (dissertation §6.2).
    pub(super) fn step_down_without_quorum(&mut self) {
        self.output.events.push(Event::QuorumLost { term: self.term() });
        self.step_down();
    }

    pub(super) fn step_down(&mut self) {
        self.become_follower();
        self.set_leader(None);
    }

    /// Whether a leader works as far as this node can tell: it leads, or has heard the leader within the shortest
    /// election timeout.
    fn hears_leader(&self) -> bool {
        let leads = matches!(self.state, State::Leader(_));
        leads || (self.leader.is_some() && self.election_elapsed_ticks < self.config.election_ticks.start)
    }

    /// Whether it takes part in no election, since it hears a leader or has promised so.
    fn is_loyal(&self, unless: Mutant) -> bool {
        (self.hears_leader() && !mutant::is_on(unless)) || self.is_bound()
    }

    /// Whether a log that ends so has all that this one has, if what this one has is committed (§5.4.1).
    fn is_up_to_date(&self, last: LogId) -> bool {
        let own = self.log.last();
        let is_newer = if mutant::is_on(Mutant::UpToDateByIndex) { last.index >= own.index } else { last >= own };
        is_newer || mutant::is_on(Mutant::LogNotCompared)
    }

    fn may_stand(&self) -> bool {
        self.memberships.may_stand(|membership| self.votes_in(membership), self.commit) && !self.is_disk_stalled()
    }

    fn could_vote_for(&self, candidate: NodeId) -> bool {
        self.hard_state.vote.is_none_or(|vote| vote == candidate)
    }
}

impl Tally {
    fn new() -> Tally {
        Tally { answers: ByNode::new() }
    }

    /// Of others nothing is kept, however many of them there are.
    fn count(&mut self, membership: &Membership, from: NodeId, granted: bool) {
        if membership.is_voter(from) {
            self.answers.insert(from, granted);
        }
    }

    fn said(&self, voter: NodeId, granted: bool) -> bool {
        self.answers.value(&voter) == Some(&granted)
    }
}
