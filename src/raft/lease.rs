//! Reads by lease (dissertation §6.4.1): the leader answers without asking anyone, as long as a majority has promised
//! not to elect another.
//!
//! ```text
//!   leader     round r begins ────────────────────────────── lease ends      promise ends, at the earliest
//!                  │ s                                            │ s + P / (1 + d)          │
//!   follower       └──────▶ hears r ──▶ next reading: bound until then + P ─────────────────┘
//! ```
//!
//! Whoever hears a leader promises to grant no vote for P, the shortest election timeout, by its own clock. A leader
//! whose round r a majority has answered is the only one until P has passed on the fastest of their clocks since r
//! began; by its own clock, if no two of them differ in rate by more than the drift bound d, until P / (1 + d) has.
//!
//! # The contract
//!
//! - The clock goes on while the machine sleeps (CLOCK_BOOTTIME), never falls, and is not set by anyone. A reading holds
//!   for the inputs that follow it, and is older than what they do. So the leader counts from the last reading *before*
//!   the round began, a follower from the first one *after* it heard, and a read is tested against one that was taken
//!   *after* the state was read: a process that was stopped in between finds out.
//! - In a term in which leadership was to be handed over there is no lease any more: who was asked to stand may be voted
//!   for at once, and that question may arrive late.
//! - Whoever starts is bound for one longest election timeout: it does not know what it promised before.
//! - A clock that drifts further than d makes stale reads possible, and nothing else: votes, commits and reads by read
//!   index rest on no clock.

use std::collections::VecDeque;
use std::time::Duration;

use super::replica::{Replica, State};
use super::{Refused, Round, quorum};
use crate::mutant::{self, Mutant};
use crate::types::Index;

/// Rounds that wait to be answered. A leader that waits for more has lost its majority.
const ROUNDS_MAX: usize = 1024;

/// A reading of a clock that goes on while the machine sleeps: the time since some fixed moment.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct BootTime(pub Duration);

/// What must agree on all members.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LeaseOptions {
    /// The shortest election timeout: how long a vote is withheld from others after a leader was heard.
    pub promise: Duration,
    /// The longest: how long a voter that has started grants nothing.
    pub rest: Duration,
    /// By how many hundredths one member's clock may be faster than another's.
    pub drift_percent: u32,
}

/// What a replica keeps about clocks and promises.
#[derive(Clone, Debug)]
pub(super) struct Lease {
    options: LeaseOptions,
    /// The last reading.
    now: Option<BootTime>,
    bound: Bound,
}

/// Until when no vote is granted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Bound {
    /// For so long from the next reading on.
    FromNextReading(Duration),
    Until(BootTime),
}

/// What a leader keeps for its term.
#[derive(Clone, Hash, Debug, Default)]
pub(super) struct LeaderLease {
    /// When rounds began, in order: the newest that a majority has answered, and those after it.
    begun: VecDeque<(Round, BootTime)>,
    /// Leadership was to be handed over.
    is_over: bool,
}

impl LeaseOptions {
    /// How long after a round began its leader is the only one.
    fn span(&self) -> Duration {
        self.promise * 100 / (100 + self.drift_percent)
    }
}

impl Lease {
    fn new(options: LeaseOptions) -> Lease {
        let rest = if mutant::is_on(Mutant::LeaseForgottenByRestart) { Duration::ZERO } else { options.rest };
        Lease { options, now: None, bound: Bound::FromNextReading(rest) }
    }

    fn read(&mut self, reading: BootTime) {
        let now = self.now.map_or(reading, |now| now.max(reading));
        self.now = Some(now);
        if let Bound::FromNextReading(promise) = self.bound {
            self.bound = Bound::Until(BootTime(now.0 + promise));
        }
    }

    /// A leader was heard. A promise that lasts longer, that of a start, stays.
    fn promise(&mut self) {
        let promise = self.options.promise;
        self.bound = match self.bound {
            Bound::FromNextReading(longer) => Bound::FromNextReading(longer.max(promise)),
            Bound::Until(until) => {
                let left = self.now.map_or(Duration::ZERO, |now| until.0.saturating_sub(now.0));
                Bound::FromNextReading(left.max(promise))
            }
        };
    }

    fn is_bound(&self) -> bool {
        match (self.bound, self.now) {
            (Bound::Until(until), Some(now)) => now < until,
            _ => true,
        }
    }
}

impl LeaderLease {
    pub(super) fn end(&mut self) {
        self.is_over = true;
    }

    fn begin(&mut self, round: Round, now: BootTime, confirmed: Round) {
        self.begun.push_back((round, now));
        while self.begun.get(1).is_some_and(|(newer, _)| *newer <= confirmed) || self.begun.len() > ROUNDS_MAX {
            self.begun.pop_front();
        }
    }

    /// When the newest round began that a majority has answered.
    fn since(&self, confirmed: Round) -> Option<BootTime> {
        self.begun.iter().rev().find(|(round, _)| *round <= confirmed).map(|(_, since)| *since)
    }
}

impl Replica {
    /// With reads by lease, which are off otherwise. For a replica that has seen nothing yet.
    pub fn with_leases(mut self, options: LeaseOptions) -> Replica {
        assert!(options.promise <= options.rest, "the shortest election timeout is not longer than the longest");
        self.lease = Some(Lease::new(options));
        self
    }

    /// The index that must be applied for a read by lease; when the state has been read, [`Replica::holds_lease`] must be
    /// asked after a later reading of the clock. `None` if the lease does not hold now: then [`Replica::read`] serves.
    pub fn lease_index(&self) -> Result<Option<Index>, Refused> {
        match &self.state {
            _ if self.lease.is_none() => Err(Refused::LeasesOff),
            State::Leader(_) => Ok(self.is_leased(false).then_some(self.commit)),
            _ => Err(Refused::NotLeader { leader: self.leader }),
        }
    }

    /// Whether nobody else can lead at the time of the last reading.
    pub fn holds_lease(&self) -> bool {
        self.is_leased(mutant::is_on(Mutant::LeaseReadOnce))
    }

    fn is_leased(&self, at_any_time: bool) -> bool {
        let (Some(lease), State::Leader(leading)) = (&self.lease, &self.state) else { return false };
        let since = leading.lease.since(self.confirmed_round());
        let (Some(now), Some(since)) = (lease.now, since) else { return false };
        let is_led_here = leading.knows_commit(self.commit) && !leading.lease.is_over;
        let is_over = now.0 >= since.0 + lease.options.span() && !mutant::is_on(Mutant::LeaseOutlived);
        is_led_here && (at_any_time || !is_over)
    }

    pub(super) fn on_clock(&mut self, reading: BootTime) {
        if let Some(lease) = &mut self.lease {
            lease.read(reading);
        }
    }

    /// Whether this node has promised to grant no vote.
    pub(super) fn is_bound(&self) -> bool {
        self.lease.as_ref().is_some_and(Lease::is_bound)
    }

    pub(super) fn promise(&mut self) {
        if let Some(lease) = &mut self.lease {
            lease.promise();
        }
    }

    /// A round begins; its heartbeats leave after this.
    pub(super) fn begin_lease(&mut self) {
        let Some(now) = self.lease.as_ref().and_then(|lease| lease.now) else { return };
        let confirmed = self.confirmed_round();
        let State::Leader(leading) = &mut self.state else { return };
        leading.lease.begin(leading.round, now, confirmed);
    }

    /// The newest round that a majority has answered.
    pub(super) fn confirmed_round(&self) -> Round {
        let State::Leader(leading) = &self.state else { return Round::default() };
        let own = self.config.id;
        quorum::reached(self.memberships.current(), |voter| match voter == own {
            true => leading.round,
            false => leading.progress.value(&voter).map_or(Round::default(), |progress| progress.confirmed),
        })
    }
}
