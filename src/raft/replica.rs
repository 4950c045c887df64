//! The replica: its state, the way of an input through it, and its changes of role.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::mutant::{self, Mutant};
use crate::random::Random;
use crate::types::{Entry, HardState, Incarnation, Index, Life, LogId, Member, Membership, NodeId, Payload, Term};

use super::by_node::ByNode;
use super::contradiction;
use super::follower::Following;
use super::leader::Leading;
use super::lease::Lease;
use super::log::Log;
use super::memberships::Memberships;
use super::own_disk::OwnDisk;
use super::reads::FollowerReads;
use super::{
    Base, Body, Change, ChangeRefused, Changed, Config, Contradiction, Event, Input, Message, Outgoing, Output,
    Persist, PersistNumber, ReadToken, Refused, Restored, Role, Sender, Status,
};

/// One node's part of one Raft group. See [the module](super) for the contract.
#[derive(Clone, Debug)]
pub struct Replica {
    pub(super) config: Config,
    /// `None` where ids are never used again.
    pub(super) life: Option<Life>,
    /// A configuration that is committed has named this node.
    pub(super) was_member: bool,
    pub(super) random: Random,
    pub(super) hard_state: HardState,
    pub(super) persists: Persists,
    pub(super) own_disk: OwnDisk,
    pub(super) log: Log,
    pub(super) memberships: Memberships,
    /// The point of the newest snapshot that this node has, or zero.
    pub(super) snapshot: LogId,
    /// From here on the log keeps its entries, whatever snapshots have, if it does.
    pub(super) kept_from: Option<Index>,
    /// What takes the log's place with the next persist.
    pub(super) base_waits: Option<Base>,
    /// Everything up to here is committed, and this node has it. Only grows.
    pub(super) commit: Index,
    /// The commit index that the last output told.
    pub(super) commit_told: Index,
    pub(super) state: State,
    /// Who leads in the present term, as far as this node knows.
    pub(super) leader: Option<NodeId>,
    /// Since the leader was heard, a vote was granted, or the present election began.
    pub(super) election_elapsed_ticks: u32,
    /// When `election_elapsed_ticks` gets here the next election begins. Drawn anew for each wait (§5.2).
    pub(super) election_timeout_ticks: u32,
    /// Reads that clients of this node wait for while another node leads.
    pub(super) reads: FollowerReads,
    /// Which lives of the others were met last. It counts while the cluster is being born.
    pub(super) met: BTreeMap<NodeId, Incarnation>,
    /// Lives of followers that have lost what they had acknowledged to this node, the newest of each id.
    pub(super) lost: BTreeMap<NodeId, Incarnation>,
    /// What is known of the clock, with reads by lease.
    pub(super) lease: Option<Lease>,
    /// What a peer said that cannot be: from then on this replica is silent.
    pub(super) contradiction: Option<Contradiction>,
    pub(super) output: Output,
}

/// What a replica does in its term, with what it needs for it and forgets with it.
#[derive(Clone, Hash, Debug)]
pub(super) enum State {
    Follower(Following),
    PreCandidate(Tally),
    Candidate(Tally),
    Leader(Box<Leading>),
}

/// The answers to one election, real or not.
#[derive(Clone, Hash, Debug)]
pub(super) struct Tally {
    pub(super) answers: ByNode<bool>,
}

/// Which persists were handed out, and which of them are on disk.
#[derive(Clone, Hash, Debug, Default)]
pub(super) struct Persists {
    pub(super) last: PersistNumber,
    pub(super) durable: PersistNumber,
    /// The hard state has changed since the last persist.
    hard_state_waits: bool,
    /// The persist that holds the present hard state, unless it waits for the next.
    pub(super) hard_state_in: PersistNumber,
}

/// What every message of this moment has in common.
#[derive(Clone, Copy, Debug)]
pub(super) struct Envelope {
    from: NodeId,
    term: Term,
    after: Option<PersistNumber>,
}

impl Replica {
    /// A replica as it is after a start: a follower that knows what was durable, and nothing else.
    ///
    /// Panics if `config` or `restored` contradict themselves.
    pub fn new(config: Config, restored: Restored) -> Replica {
        Replica::restored(config, restored, None)
    }

    /// The same for a node whose id may have had other lives, or will: where a configuration names another life, it does
    /// not mean this node.
    pub fn in_life(config: Config, restored: Restored, life: Life) -> Replica {
        Replica::restored(config, restored, Some(life))
    }

    fn restored(config: Config, restored: Restored, life: Option<Life>) -> Replica {
        assert!(config.heartbeat_ticks > 0, "a leader must be heard");
        assert!(config.heartbeat_ticks < config.election_ticks.start, "heartbeats come before elections");
        assert!(!config.election_ticks.is_empty(), "the range of election timeouts is empty");
        assert!(config.limits.uncommitted_bytes_max <= config.limits.cache_bytes_max, "what waits is in the cache");
        assert!(restored.hard_state.term >= restored.last.term, "the term is durable before entries of it");
        assert!(restored.commit >= restored.before_first.index, "a snapshot holds committed entries only");
        assert!(restored.commit <= restored.last.index, "what is committed is in the log");
        let has_snapshot = restored.snapshot != LogId::ZERO;
        assert!(!has_snapshot || restored.snapshot >= restored.before_first, "the log goes on where a snapshot ends");
        let log = Log::restored(&restored, config.limits.cache_bytes_max);
        let first = restored.memberships.first().map(|(index, _)| *index);
        let term_at = |index| match first == Some(index) && restored.membership_term > Term::ZERO {
            true => restored.membership_term,
            false => log.term_at(index).unwrap_or_default(),
        };
        let memberships = Memberships::restored(restored.memberships, term_at, life.is_some());
        let mut random = Random::seeded(config.seed);
        let mut replica = Replica {
            log,
            hard_state: remembered(restored.hard_state),
            persists: Persists::default(),
            own_disk: OwnDisk::default(),
            life,
            was_member: false,
            memberships,
            snapshot: restored.snapshot,
            kept_from: None,
            base_waits: None,
            commit: restored.commit,
            commit_told: told_at_start(restored.commit),
            state: State::Follower(Following::new(restored.commit)),
            leader: None,
            election_elapsed_ticks: 0,
            election_timeout_ticks: 0,
            reads: FollowerReads::new(&mut random),
            met: BTreeMap::new(),
            lost: BTreeMap::new(),
            lease: None,
            contradiction: None,
            output: Output::default(),
            random,
            config,
        };
        replica.note_commit();
        replica.output = Output::default();
        replica.restart_election_timer();
        replica
    }

    /// Something happened. What follows from it is in the next [`Replica::take_output`].
    pub fn handle(&mut self, input: Input) {
        if self.contradiction.is_some() {
            return;
        }
        match input {
            Input::Tick => self.on_tick(),
            Input::Clock(reading) => self.on_clock(reading),
            Input::Message(message) => self.on_message(message),
            Input::Durable(number) => self.on_durable(number),
            Input::Applied(index) => self.on_applied(index),
            Input::Met { node, incarnation } => self.on_met(node, incarnation),
            Input::Fetched { peer, from, entries } => self.on_fetched(peer, from, entries),
            Input::SnapshotMade { point } => self.snapshot = self.snapshot.max(point),
            Input::Compacted { before_first } => self.on_compacted(before_first),
            Input::Installed { base, membership } => self.on_installed(base, membership),
        }
    }

    /// Append entries with these payloads, in this order, if this node leads. Answers their indexes; they are
    /// committed when [`Output::commit`] says so, and lost if another leader replaces them first.
    ///
    /// All or none. Panics if one of them is a configuration: see [`Replica::change`].
    pub fn propose(&mut self, payloads: Vec<Payload>) -> Result<Range<Index>, Refused> {
        self.admit(&payloads)?;
        Ok(self.append_own(payloads))
    }

    /// Whether this node leads and would take payloads of together so many bytes now, each with
    /// [`ENTRY_OVERHEAD_BYTES`](crate::limits::ENTRY_OVERHEAD_BYTES). For callers who take several proposals together
    /// or none.
    pub fn has_room(&self, bytes: usize) -> bool {
        let max = self.config.limits.uncommitted_bytes_max;
        let is_full = self.log.is_full(self.commit);
        matches!(&self.state, State::Leader(leading) if leading.has_room(bytes, max) && !is_full)
    }

    /// Ask for a linearizable read (dissertation §6.4). The token comes back in [`Output::reads_ready`] or in
    /// [`Output::reads_refused`]: always in one of them, unless this node is restarted before.
    pub fn read(&mut self, token: ReadToken) -> Result<(), Refused> {
        match &mut self.state {
            State::Leader(leading) => leading.reads.ask(token),
            State::Follower(_) if self.leader.is_some() => self.reads.ask(token),
            State::Follower(_) | State::PreCandidate(_) | State::Candidate(_) => {
                Err(Refused::NotLeader { leader: None })
            }
        }
    }

    /// Hand leadership over to another voter (dissertation §3.10): it stands for election as soon as it has the whole
    /// log. Until then, and for an election timeout at most, proposals are refused.
    pub fn transfer(&mut self, to: NodeId) -> Result<(), Refused> {
        self.begin_transfer(to)
    }

    /// Change who belongs to the cluster and who votes, all of this at once, if this node leads. Voters change by a
    /// joint configuration, which is left by itself when it is committed (see [`change`](super::change)). Refused
    /// while a change is under way, and before an entry of this term is committed (the rule that the dissertation's
    /// change of a single server lacked at first). Safe to ask again.
    pub fn change(&mut self, wanted: &[Change]) -> Result<Changed, ChangeRefused> {
        self.begin_change(wanted)
    }

    /// Everything that must be done since the last call.
    pub fn take_output(&mut self) -> Output {
        let mut output = Output::default();
        self.fill_output(&mut output);
        output
    }

    /// The same in place of what `output` holds, whose memory is used again: for callers who take many. False if there
    /// is nothing to be done.
    pub fn fill_output(&mut self, output: &mut Output) -> bool {
        output.clear();
        if self.contradiction.is_some() {
            self.fill_last_words(output);
            return !output.is_empty();
        }
        match self.state {
            State::Leader(_) => self.send_as_leader(),
            State::Follower(_) => self.send_as_follower(),
            State::PreCandidate(_) | State::Candidate(_) => {}
        }
        if let Some(persist) = self.take_persist() {
            self.output.persist = Some(persist);
        }
        if self.commit > self.commit_told {
            self.commit_told = self.commit;
            self.output.commit = Some(self.commit);
        }
        let is_empty = self.output.is_empty();
        if !is_empty {
            std::mem::swap(&mut self.output, output);
        }
        !is_empty
    }

    /// Nothing is done any more; whoever waits for a read is told.
    fn fill_last_words(&mut self, output: &mut Output) {
        let Output { reads_ready, mut reads_refused, events, .. } = std::mem::take(&mut self.output);
        reads_refused.extend(reads_ready.into_iter().map(|ready| ready.token));
        *output = Output { reads_refused, events, ..Output::default() };
    }

    /// What this replica knows of itself.
    pub fn status(&self) -> Status {
        let durable = self.log.durable();
        let durable_term = self.log.term_at(durable).unwrap_or_default();
        Status {
            role: self.role(),
            hard_state: self.hard_state,
            leader: self.leader,
            last: self.log.last(),
            durable: LogId::new(durable_term, durable),
            commit: self.commit,
        }
    }

    /// Which node this is.
    pub fn id(&self) -> NodeId {
        self.config.id
    }

    /// The first index of the log, whether there is an entry yet or not.
    pub fn first_index(&self) -> Index {
        self.log.before_first().index.next()
    }

    /// The configuration in force: the last one in the log, committed or not.
    pub fn membership(&self) -> &Membership {
        self.memberships.current()
    }

    /// The entry of the configuration in force; zero if it is the one before the log. Of two configurations the one with
    /// the later entry is right, if one of them is committed.
    pub fn membership_id(&self) -> LogId {
        self.memberships.id()
    }

    /// Whom this node has to speak with: the members of all configurations that are in force or may come back, and who
    /// was removed and is still told so. By rising id, each in its newest life; this node is not among them.
    pub fn correspondents(&self) -> Vec<Member> {
        let (named, former) = self.memberships.named();
        let is_told = |member: &&Member| match &self.state {
            State::Leader(leading) => leading.progress.contains_key(&member.id),
            _ => false,
        };
        let mut found: BTreeMap<NodeId, &Member> = BTreeMap::new();
        for member in named.chain(former.iter().filter(is_told)) {
            found.entry(member.id).or_insert(member);
        }
        found.remove(&self.config.id);
        let forming = self.memberships.current().forming;
        // Until the cluster is born any life of a first member is spoken with: it is named anew.
        let open = |member: &Member| Member { incarnation: Incarnation::OPEN, ..member.clone() };
        found.into_values().map(|member| if forming { open(member) } else { member.clone() }).collect()
    }

    /// Whether what this life of a node says is to be heard. It is not if the configuration in force here names another
    /// one, unless a later configuration was in force there. While the cluster is being born it is the life met last.
    pub fn hears(&self, from: NodeId, sender: Sender) -> bool {
        if self.is_lost(from, sender) {
            return false;
        }
        if self.memberships.current().forming {
            let is_met = self.met.get(&from) == Some(&sender.incarnation);
            return is_met || sender.configuration > self.membership_id();
        }
        let named = self.memberships.current().member(from).map(|member| member.incarnation);
        let differs = named.is_some_and(|named| named != Incarnation::OPEN && named != sender.incarnation);
        !differs || mutant::is_on(Mutant::LivesNotTold) || sender.configuration > self.membership_id()
    }

    /// Whether this message is to be heard. Votes, acknowledgements and confirmations count for the life that the
    /// configuration in force names: another one has none of what that one has promised, however much it knows.
    pub fn hears_message(&self, message: &Message, sender: Sender) -> bool {
        let current = self.memberships.current();
        let is_another = match current.member(message.from) {
            _ if current.forming => self.met.get(&message.from) != Some(&sender.incarnation),
            Some(named) => named.incarnation != Incarnation::OPEN && named.incarnation != sender.incarnation,
            None => false,
        };
        let counts_for_another = is_another && message.body.is_answer() && !mutant::is_on(Mutant::LivesNotTold);
        self.hears(message.from, sender) && !counts_for_another
    }

    /// It is committed that this node, which was a member, is none any more.
    pub fn is_removed(&self) -> bool {
        let current = self.memberships.current();
        let is_settled = self.memberships.index() <= self.commit && !current.forming;
        self.was_member && is_settled && !self.is_named_in(current)
    }

    pub(super) fn is_named_in(&self, membership: &Membership) -> bool {
        let named = membership.member(self.config.id);
        named.is_some_and(|member| self.life.is_none_or(|life| life.is_named_by(member.incarnation)))
    }

    pub(super) fn votes_in(&self, membership: &Membership) -> bool {
        // A first member that was made anew is named anew: until then it may be the only one that all would elect.
        let is_to_be_named = membership.forming && self.life.is_some_and(|life| life.is_first_member);
        membership.is_voter(self.config.id) && (is_to_be_named || self.is_named_in(membership))
    }

    /// The entries of `range`, for the state machine, if memory has them all; else they are on disk.
    pub fn cached(&self, range: Range<Index>) -> Option<impl ExactSizeIterator<Item = &Entry>> {
        self.log.cached(range)
    }

    /// The term of the entry at `index`, if the log has one; also of the entry before the first.
    pub fn term_at(&self, index: Index) -> Option<Term> {
        self.log.term_at(index)
    }

    /// Of [`Replica::status`] what is asked most.
    pub fn role(&self) -> Role {
        match self.state {
            State::Follower(_) => Role::Follower,
            State::PreCandidate(_) => Role::PreCandidate,
            State::Candidate(_) => Role::Candidate,
            State::Leader(_) => Role::Leader,
        }
    }

    pub(super) fn term(&self) -> Term {
        self.hard_state.term
    }

    fn on_message(&mut self, message: Message) {
        if message.to != self.config.id || message.from == self.config.id {
            return;
        }
        if let Some(what) = contradiction::out_of_range(&message) {
            return self.contradict(message.from, what);
        }
        if mutant::is_on(Mutant::TimerResetByAny) {
            self.restart_election_timer();
        }
        self.note_sign_of_life(message.from);
        if message.term > self.term() && !self.follow_newer_term(&message) {
            return;
        }
        if message.term < self.term() && !counts_anyway(&message) {
            self.answer_older_term(message);
            return;
        }
        let Message { from, term: _, body, .. } = message;
        match body {
            Body::PreVote { next, last } => self.on_pre_vote(from, next, last),
            Body::PreVoteReply { next, granted } => self.on_pre_vote_reply(from, next, granted),
            Body::Vote { last, transfer } => self.on_vote(from, last, transfer),
            Body::VoteReply { granted } => self.on_vote_reply(from, granted),
            Body::Append(append) => self.on_append(from, append),
            Body::AppendReply(reply) => self.on_append_reply(from, reply),
            Body::Heartbeat { commit, round } => self.on_heartbeat(from, commit, round),
            Body::HeartbeatReply { round } => self.on_heartbeat_reply(from, round),
            Body::ReadIndex { asked } => self.on_read_index(from, asked),
            Body::ReadIndexReply { asked, index } => self.on_read_index_reply(from, asked, index),
            Body::StandNow => self.on_stand_now(from),
            Body::Snapshot { base, round } => self.on_snapshot(from, base, round),
        }
    }

    /// Whatever it says: who is led and was silent lives.
    fn note_sign_of_life(&mut self, from: NodeId) {
        let State::Leader(leading) = &mut self.state else { return };
        if let Some(progress) = leading.progress.value_mut(&from) {
            progress.pace.on_sign_of_life();
        }
    }

    fn on_durable(&mut self, number: PersistNumber) {
        assert!(number <= self.persists.last, "{number:?} is durable and was never handed out");
        if number > self.persists.durable {
            self.persists.durable = number;
            self.own_disk.on_durable(number);
        }
        self.log.on_durable(number);
        match self.state {
            State::Candidate(_) => self.count_own_vote(),
            State::Leader(_) => self.advance_commit(),
            State::Follower(_) | State::PreCandidate(_) => {}
        }
    }

    fn on_applied(&mut self, index: Index) {
        assert!(index <= self.commit, "{index} is applied and not committed");
        self.log.on_applied(index);
    }

    /// Enter a higher term as a follower of nobody yet (§5.1). Does not touch the election timer: a candidate that
    /// cannot win must not keep others from standing.
    pub(super) fn enter_term(&mut self, term: Term) {
        assert!(term > self.term(), "terms only grow");
        self.set_hard_state(HardState { term, vote: None });
        self.become_follower();
        self.set_leader(None);
    }

    /// Leave whatever role there is. What others wait for because of it is refused here.
    pub(super) fn become_follower(&mut self) {
        let following = State::Follower(Following::new(self.commit));
        if let State::Leader(leading) = std::mem::replace(&mut self.state, following) {
            self.refuse_leader_reads(*leading);
            self.restart_election_timer();
        }
        self.tell_role();
    }

    pub(super) fn set_leader(&mut self, leader: Option<NodeId>) {
        if self.leader == leader {
            return;
        }
        self.leader = leader;
        self.reads.refuse_all(&mut self.output.reads_refused);
        self.output.events.push(Event::LeaderChanged { leader, term: self.term() });
    }

    pub(super) fn tell_role(&mut self) {
        self.output.events.push(Event::RoleChanged { role: self.role(), term: self.term() });
    }

    pub(super) fn set_hard_state(&mut self, hard_state: HardState) {
        let old = self.hard_state;
        let grows = hard_state.term > old.term || (hard_state.term == old.term && old.vote.is_none());
        assert!(grows || hard_state == old, "{old:?} cannot become {hard_state:?}");
        self.hard_state = hard_state;
        self.persists.hard_state_waits |= hard_state != old;
    }

    /// Append to the log what must come next, and take its configuration over.
    pub(super) fn push_entry(&mut self, entry: Entry) {
        if let Payload::Membership(membership) = &entry.payload
            && self.memberships.counts(entry.id.index)
        {
            self.memberships.append(entry.id, membership.clone());
            self.output.events.push(Event::MembershipChanged { index: entry.id.index });
        }
        self.log.push(entry);
    }

    /// The commit index has moved: what it means for the configurations.
    pub(super) fn note_commit(&mut self) {
        if !self.was_member {
            self.was_member = self.memberships.up_to(self.commit).any(|membership| self.is_named_in(membership));
        }
        if self.memberships.on_commit(self.commit) {
            let index = self.memberships.index();
            self.output.events.push(Event::MembershipCommitted { index });
        }
    }

    /// No message may carry a term that this node could forget: it leaves after the hard state is durable.
    pub(super) fn envelope(&self) -> Envelope {
        Envelope { from: self.config.id, term: self.term(), after: self.persists.hard_state_after() }
    }

    pub(super) fn send(&mut self, to: NodeId, body: Body) {
        let outgoing = self.envelope().outgoing(to, body);
        self.output.send.push(outgoing);
    }

    fn take_persist(&mut self) -> Option<Persist> {
        let waits = self.persists.hard_state_waits || self.log.has_unpersisted() || self.base_waits.is_some();
        if !waits {
            return None;
        }
        let base = self.base_waits.take();
        let hard_state = self.persists.hard_state_waits.then_some(self.hard_state);
        let number = self.persists.hand_out();
        self.own_disk.on_handed_out(number, self.log.last().index);
        Some(Persist { number, hard_state, base, entries: self.log.persist(number) })
    }
}

/// What was durable.
fn remembered(hard_state: HardState) -> HardState {
    match mutant::is_on(Mutant::SecondVote) {
        true => HardState { vote: None, ..hard_state },
        false => hard_state,
    }
}

/// Of what a snapshot holds nothing is told any more.
fn told_at_start(commit: Index) -> Index {
    if mutant::is_on(Mutant::SnapshotAppliedAgain) { Index::ZERO } else { commit }
}

/// Nothing of an older term counts.
fn counts_anyway(message: &Message) -> bool {
    mutant::is_on(Mutant::StaleReplyCounted) && matches!(message.body, Body::AppendReply(_))
}

impl Persists {
    /// The number of the persist that is handed out next.
    pub(super) fn next(&self) -> PersistNumber {
        PersistNumber(self.last.0 + 1)
    }

    pub(super) fn hard_state_after(&self) -> Option<PersistNumber> {
        match self.hard_state_waits {
            true => Some(self.next()),
            false => Some(self.hard_state_in).filter(|number| *number > self.durable),
        }
    }

    fn hand_out(&mut self) -> PersistNumber {
        self.last = self.next();
        if std::mem::take(&mut self.hard_state_waits) {
            self.hard_state_in = self.last;
        }
        self.last
    }
}

impl Envelope {
    pub(super) fn outgoing(self, to: NodeId, body: Body) -> Outgoing {
        let message = Message { from: self.from, to, term: self.term, body };
        Outgoing { message, after: self.after }
    }

    /// The same, and not before `persist` is durable.
    pub(super) fn after(self, persist: Option<PersistNumber>) -> Envelope {
        Envelope { after: self.after.max(persist), ..self }
    }

    /// What a correct replica never does; a mutant does it to show that the tests see it.
    pub(super) fn unguarded(self) -> Envelope {
        Envelope { after: None, ..self }
    }
}
