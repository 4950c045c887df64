//! Rounds of heartbeats, and how rarely those get them who do not answer.
//!
//! A follower that has been silent for the shortest election timeout is probably dead. Each heartbeat to it costs a
//! place in a queue and an attempt to send, and every read begins a round: so it gets them at an interval that doubles.
//!
//! - **The bound.** The interval ends at the shortest election timeout less one interval of heartbeats; since rounds
//!   begin at that interval at least, two heartbeats to one follower are always less than an election timeout apart. A
//!   node that was started again, or is heard again, waits for at least the shortest timeout before it asks for votes;
//!   so it hears its leader first, and does not even ask. Should it ask all the same, because a heartbeat was lost, it is
//!   a pre-vote: those who hear the leader do not grant it, and no term is raised. And that question, like anything
//!   else that a silent node says, makes the next round go to it.
//! - **Who needs a majority does not wait for it.** Nobody is left out while those who answer are no majority: whoever
//!   comes back may then be needed for check-quorum, for reads and to commit. "Answer" means within two intervals
//!   of heartbeats, so that this begins long before a leader would step down.
//! - **Reads.** Their round leaves out who is silent, and needs a majority of the others. If one of those has died just
//!   now the round is open when the next one is due, one interval later, and then all get it; a lost message costs as
//!   much.

use crate::mutant::{self, Mutant};

use super::replica::{Replica, State};
use super::{Body, Round, quorum};

/// How often a follower that does not answer gets heartbeats.
#[derive(Clone, Copy, Hash, Debug, Default)]
pub(super) struct Pace {
    sent_ticks_ago: u32,
    /// Until the next one; 0 at first, and when there was a sign of life.
    interval_ticks: u32,
}

/// What a round is like, for each follower.
#[derive(Clone, Copy, Debug)]
struct Pacing {
    heartbeat_ticks: u32,
    /// Who is silent for so long gets fewer heartbeats.
    patience_ticks: u32,
    interval_ticks_max: u32,
    /// Everybody gets this one.
    is_urgent: bool,
}

impl Pace {
    pub(super) fn on_tick(&mut self) {
        self.sent_ticks_ago = self.sent_ticks_ago.saturating_add(1);
    }

    /// It said something, if only that it knows no leader.
    pub(super) fn on_sign_of_life(&mut self) {
        self.interval_ticks = 0;
    }

    /// Whether this round goes to a follower that has been silent for so long.
    fn is_due(&mut self, silent_ticks: u32, pacing: Pacing) -> bool {
        if silent_ticks < pacing.patience_ticks || mutant::is_on(Mutant::SilentHeartbeats) {
            *self = Pace::default();
            return true;
        }
        if self.sent_ticks_ago < self.interval_ticks {
            return pacing.is_urgent;
        }
        let longest_ticks = match mutant::is_on(Mutant::BackoffUnbounded) {
            true => u32::MAX,
            false => pacing.interval_ticks_max,
        };
        let doubled_ticks = self.interval_ticks.saturating_mul(2).max(pacing.heartbeat_ticks);
        let interval_ticks = doubled_ticks.min(longest_ticks);
        *self = Pace { sent_ticks_ago: 0, interval_ticks };
        true
    }
}

impl Replica {
    /// Heartbeats in a new round. Each tells only as much of the commit index as is known to match there.
    pub(super) fn begin_round(&mut self) {
        let (envelope, pacing) = (self.envelope(), self.pacing());
        let State::Leader(leading) = &mut self.state else { unreachable!("called for leaders") };
        leading.heartbeat_elapsed_ticks = 0;
        leading.round = Round(leading.round.0 + 1);
        self.begin_lease();
        let State::Leader(leading) = &mut self.state else { unreachable!("a round does not depose") };
        if leading.knows_commit(self.commit) {
            leading.reads.begin(leading.round, self.commit);
        }
        for (peer, progress) in leading.progress.iter_mut() {
            progress.retry_fetch();
            if !progress.pace.is_due(progress.silent_ticks, pacing) {
                continue;
            }
            let known = if mutant::is_on(Mutant::HeartbeatBeyondMatch) { self.commit } else { progress.affirmed() };
            let commit = self.commit.min(known);
            progress.on_heartbeat(commit, leading.round);
            self.output.send.push(envelope.outgoing(*peer, Body::Heartbeat { commit, round: leading.round }));
        }
        self.confirm_reads();
    }

    fn pacing(&self) -> Pacing {
        let State::Leader(leading) = &self.state else { unreachable!("called for leaders") };
        let (own, heartbeat_ticks) = (self.config.id, self.config.heartbeat_ticks);
        let answers = |voter| voter == own || leading.silent_ticks(voter) < 2 * heartbeat_ticks;
        // A round that is open now has waited for a whole interval: for reads the next begins when it is closed.
        let is_urgent = leading.reads.is_round_open() || !quorum::won(self.memberships.current(), answers);
        Pacing {
            heartbeat_ticks,
            patience_ticks: self.config.election_ticks.start,
            interval_ticks_max: self.config.election_ticks.start - heartbeat_ticks,
            is_urgent: is_urgent && !mutant::is_on(Mutant::BackoffWithoutMajority),
        }
    }
}
