//! What of a replica does not matter is set to one value, so that states that differ in it alone are one.
//!
//! What counts ticks is set as if nothing were due: the model's actions set what they need to be due (see
//! `actions.rs`).

use std::hash::{Hash, Hasher};

use crate::raft::progress::{Mode, Progress};
use crate::raft::replica::State;
use crate::raft::{AppendReply, Body, Input, Message, Outgoing, Persist, PersistNumber, Replica, Round};
use crate::random::Random;
use crate::types::{Index, NodeId};

use super::Bounds;

/// Since the leader was heard: lately, or so long ago that its followers listen to others.
pub const HEARD: u32 = 0;
/// The next tick begins an election.
pub const SILENT: u32 = ELECTION_TICKS.start;
pub const HEARTBEAT_TICKS: u32 = 1;
pub const ELECTION_TICKS: std::ops::Range<u32> = 2..4;

impl Replica {
    /// The same replica, as far as the model looks.
    pub fn make_canonical(&mut self, bounds: &Bounds) {
        self.random = Random::seeded(0);
        self.own_disk = Default::default();
        self.election_timeout_ticks = SILENT + 1;
        let hears = bounds.pre_vote
            && self.leader.is_some()
            && !matches!(self.state, State::Leader(_))
            && self.election_elapsed_ticks < SILENT;
        self.election_elapsed_ticks = if hears { HEARD } else { SILENT };
        self.reads.open_ticks = 0;
        self.log.applied = Index::ZERO;
        if let State::Leader(leading) = &mut self.state {
            leading.heartbeat_elapsed_ticks = 0;
            leading.growth = Default::default();
            if !bounds.has_rounds() {
                leading.round = Round::default();
            }
            leading.progress.values_mut().for_each(|progress| progress.make_canonical(bounds));
        }
    }

    /// Persists are numbered from the last durable one on. The caller does the same with what it holds.
    pub fn renumber_persists(&mut self) -> PersistNumber {
        let base = self.persists.durable;
        let lowered = |number: PersistNumber| PersistNumber(number.0.saturating_sub(base.0));
        self.persists.last = lowered(self.persists.last);
        self.persists.hard_state_in = lowered(self.persists.hard_state_in);
        self.persists.durable = PersistNumber(0);
        self.log.in_flight.iter_mut().for_each(|flight| flight.number = lowered(flight.number));
        base
    }
}

impl Progress {
    fn make_canonical(&mut self, bounds: &Bounds) {
        self.silent_ticks = 0;
        // Nothing is lost here that was acknowledged, so no rejection is to show it: random histories do without this.
        self.matched_in = Round(u64::MAX);
        self.matched_ticks_ago = u32::MAX;
        self.stalled_ticks = 0;
        if let Mode::Snapshot { wait_ticks } = &mut self.mode {
            *wait_ticks = (*wait_ticks).min(1);
        }
        self.catch_up.ticks = 0;
        self.catch_up.last_round_ticks = self.catch_up.last_round_ticks.map(|_| 0);
        if bounds.changes == 0 {
            (self.catch_up.target, self.catch_up.last_round_ticks) = (Index::ZERO, None);
        }
        if !bounds.has_rounds() {
            // What is rejected of an older attempt is passed over, which is as if it were lost: here it is heard, or lost.
            (self.confirmed, self.attempt) = (Round::default(), Round::default());
        }
        self.pace = Default::default();
        // Memory has the whole log here.
        self.ration = Default::default();
        // Windows are wide: what is in them matters only where an answer is overdue, which no tick makes it.
        self.in_flight.clear();
        self.in_flight_bytes = 0;
    }
}

/// A replica's state, without what is fixed or empty between two actions.
pub struct Essence<'r>(pub &'r Replica);

impl Hash for Essence<'_> {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        // Whoever adds a field decides whether it is part of the state.
        let Replica {
            config: _,
            life: _,
            was_member: _,
            met: _,
            lost: _,
            lease: _,
            random: _,
            hard_state,
            persists,
            own_disk: _,
            log,
            memberships,
            snapshot,
            kept_from: _,
            base_waits,
            commit,
            commit_told: _,
            state,
            leader,
            election_elapsed_ticks,
            election_timeout_ticks: _,
            reads,
            contradiction,
            output: _,
        } = self.0;
        (hard_state, persists, log, memberships, snapshot, base_waits, commit).hash(hasher);
        (state, leader, election_elapsed_ticks, reads, contradiction.is_some()).hash(hasher);
    }
}

/// A message as the network holds it.
pub fn message(mut message: Message, bounds: &Bounds) -> Message {
    if !bounds.has_rounds() {
        match &mut message.body {
            Body::Append(append) => append.round = Round::default(),
            Body::AppendReply(AppendReply { round, .. })
            | Body::Heartbeat { round, .. }
            | Body::HeartbeatReply { round }
            | Body::Snapshot { round, .. } => *round = Round::default(),
            _ => {}
        }
    }
    message
}

/// Numbers of persists after [`Replica::renumber_persists`] gave `base`.
pub fn renumber(persists: &mut [Persist], held: &mut [Outgoing], base: PersistNumber) {
    for persist in persists {
        persist.number.0 -= base.0;
    }
    for after in held.iter_mut().filter_map(|outgoing| outgoing.after.as_mut()) {
        after.0 -= base.0;
    }
}

/// Fires whatever timer a node that does not lead has, at its next tick.
pub fn tick_until_it_fires(replica: &mut Replica) {
    replica.election_elapsed_ticks = SILENT;
    replica.handle(Input::Tick);
}

/// This follower has not heard its leader for a while, and its own timer has not fired yet.
pub fn let_silence_pass(replica: &mut Replica) {
    replica.election_elapsed_ticks = SILENT;
}

/// Nobody has been heard by this leader for long.
pub fn let_nobody_be_heard(replica: &mut Replica) {
    let State::Leader(leading) = &mut replica.state else { unreachable!("called for leaders") };
    leading.progress.values_mut().for_each(|progress| progress.silent_ticks = ELECTION_TICKS.end);
}

/// The clock says that an answer of this node is overdue. False if none is awaited.
pub fn let_answer_be_overdue(replica: &mut Replica, peer: NodeId) -> bool {
    let State::Leader(leading) = &mut replica.state else { return false };
    let Some(progress) = leading.progress.value_mut(&peer) else { return false };
    let probed = progress.mode == Mode::Probe { outstanding: true };
    let sent = progress.mode == Mode::Replicate && progress.next > progress.matched.next();
    progress.stalled_ticks = 2 * HEARTBEAT_TICKS;
    probed || sent
}

/// A life's first question has another number than those of the lives before.
pub fn number_questions(replica: &mut Replica, lives: u8) {
    replica.reads.asked = u64::from(lives) << 8;
}
