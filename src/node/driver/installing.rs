//! A snapshot that another node has, in the place of a log that begins too late for this node (design §8).
//!
//! ```text
//!   SnapshotOffered ──▶ FetchSnapshot ──fetched: whole, durable, loaded──▶ Installed: the log begins anew
//!      coming: the state waits ──(this node's log is durable up to its point)──▶ it is the state
//! ```
//!
//! The log's beginning and the state's point are two things: records that are kept come as log, and the state is that of a
//! point which the log reaches later. Until then nothing is applied, and the state before goes on answering who reads what
//! is stale. A node that is started meanwhile has no state at all, and says so.

use super::checkpoint::Restoring;
use super::start::session_limits;
use super::{Applying, Driver, Effect, Making, ReadFor, SnapshotReport};
use crate::machine::StateMachine;
use crate::mutant::{self, Mutant};
use crate::net::{Refusal, SnapshotMade};
use crate::node::sessions::Sessions;
use crate::raft::{Base, Input as RaftInput};
use crate::snapshot::{Description, Manifest};
use crate::types::{LogId, NodeId, Term};

/// A state that waits for the log to reach its point.
#[derive(Debug)]
pub(super) struct Coming<M> {
    pub of: Description,
    pub bytes: u64,
    pub sessions: Sessions,
    pub machine: M,
}

/// Why no snapshot came.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NotFetched {
    /// And what to do about it.
    pub what: String,
    /// What has come of it stays, and the next offer goes on with it: a node was not reached, or the disk was full. Else it is
    /// nowhere any more, or of no use, and the newest one is fetched.
    pub goes_on: bool,
}

/// What nobody needs any more, and takes long to drop.
#[derive(Debug)]
pub enum Discarded<M> {
    State(Sessions, M),
    /// A state that was held to be written.
    Making(Box<Making>),
}

/// What is fetched of what was offered.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    /// The point of the first offer, where the log begins by the last one. Whoever offered it keeps what it needs
    /// ([`Offers`](super::offers::Offers)): so a newer offer does not take its place while the log reaches back to it.
    base: Base,
    /// Who offered last, and in which term. Another leader is asked for it at once: only so does it know what to keep.
    leader: (NodeId, Term),
    /// What was offered last.
    offered: LogId,
    /// An order for it is out; else the last one came to nothing, and it is ordered again with an offer.
    is_ordered: bool,
}

/// What becomes of offers.
#[derive(Debug)]
pub(super) struct Installing<M> {
    wanted: Option<Wanted>,
    coming: Option<Coming<M>>,
    /// Not dropped here.
    discarded: Vec<Discarded<M>>,
    /// The state of this node is that of no entry: there was none to begin from.
    is_stateless: bool,
    pause: Pause,
}

/// Between a fetch that failed and the next: a full disk is not asked for room five times a second.
#[derive(Clone, Copy, Debug, Default)]
struct Pause {
    remaining_ticks: u32,
    last_ticks: u32,
}

const PAUSE_TICKS_MIN: u32 = 100;
const PAUSE_TICKS_MAX: u32 = 6_000;

impl Pause {
    fn is_over(self) -> bool {
        self.remaining_ticks == 0
    }

    fn lengthen(&mut self) {
        self.last_ticks = (2 * self.last_ticks).clamp(PAUSE_TICKS_MIN, PAUSE_TICKS_MAX);
        self.remaining_ticks = self.last_ticks;
    }
}

impl<M> Installing<M> {
    /// Of a node that has a state, or of one whose state is to come.
    pub fn new(coming: Option<Coming<M>>) -> Installing<M> {
        Installing {
            wanted: None,
            is_stateless: coming.is_some(),
            coming,
            discarded: Vec::new(),
            pause: Pause::default(),
        }
    }

    pub fn tick(&mut self) {
        self.pause.remaining_ticks = self.pause.remaining_ticks.saturating_sub(1);
    }

    /// The log has to reach this point before anything is applied.
    pub fn waits_for(&self) -> Option<LogId> {
        self.coming.as_ref().map(|coming| coming.of.point)
    }

    /// Which snapshot is being fetched.
    pub fn fetches(&self) -> Option<LogId> {
        self.wanted.filter(|wanted| wanted.is_ordered).map(|wanted| wanted.base.point)
    }

    /// Why nothing can be asked of the state.
    pub fn refusal(&self) -> Option<Refusal> {
        let point = self.waits_for().filter(|_| self.is_stateless)?;
        Some(Refusal::Unavailable {
            reason: format!("this node's state is of entry {point}, which its log has not yet"),
        })
    }
}

impl<M: StateMachine> Driver<M> {
    /// What makes a state such as this node's of what a snapshot holds, if the state machine can.
    pub fn restoring(&self) -> Option<Restoring<M>> {
        Restoring::new(&self.machine, session_limits(&self.options))
    }

    /// Whether this node has no state yet, not even an older one: what it has applied is that of no entry.
    pub fn is_stateless(&self) -> bool {
        self.installing.waits_for().is_some() && self.installing.is_stateless
    }

    /// The leader's log begins behind the end of this node's. Told again with each offer.
    pub(super) fn on_snapshot_offered(&mut self, from: NodeId, base: Base) {
        if self.machine.restoring().is_none() {
            let report = SnapshotReport::NotTaken { point: base.point };
            return self.effects.push(Effect::Snapshot(report));
        }
        let is_pause_over = self.installing.pause.is_over();
        let (leader, offered) = ((from, self.replica.status().hard_state.term), base.point);
        let point = match &mut self.installing.wanted {
            // The leader's log still reaches back to it: to begin with each newer one might never end.
            Some(wanted) if base.begin_after.index <= wanted.base.point.index => {
                wanted.base.begin_after = base.begin_after;
                let is_another = std::mem::replace(&mut wanted.leader, leader) != leader;
                wanted.offered = offered;
                // What it offers itself it keeps.
                let is_asked_anew = is_another && wanted.is_ordered && offered != wanted.base.point;
                if !is_asked_anew && (wanted.is_ordered || !is_pause_over) {
                    return;
                }
                wanted.is_ordered = true;
                wanted.base.point
            }
            wanted if is_pause_over => {
                let new = Wanted { base, leader, offered, is_ordered: true };
                // What had come of it goes.
                if let Some(Wanted { base: Base { point, .. }, .. }) = wanted.replace(new) {
                    let what = format!(
                        "the log of node {from} begins behind it by now; raise `follower_tail_minutes` on all nodes if that \
                         comes again, so that more time is left to fetch"
                    );
                    self.effects.push(Effect::Snapshot(SnapshotReport::NotFetched { point, what }));
                }
                base.point
            }
            _ => return,
        };
        self.effects.push(Effect::FetchSnapshot { from, term: leader.1, point });
    }

    /// This node leads, or has come by another way to what the snapshot was for: it goes on for nothing.
    pub(super) fn cancel_fetch_if_useless(&mut self) {
        let replica = &self.replica;
        if self.installing.wanted.take_if(|wanted| !replica.wants(wanted.base)).is_some_and(|wanted| wanted.is_ordered)
        {
            self.effects.push(Effect::CancelFetch);
        }
    }

    /// What came of an [`Effect::FetchSnapshot`]: the snapshot is whole and durable in this node's directory, and this is
    /// its state; or why there is none. What is not wanted any more is dropped.
    pub fn fetched(&mut self, point: LogId, result: Result<(Manifest, Sessions, M), NotFetched>) {
        let is_it = |wanted: &mut Wanted| wanted.is_ordered && wanted.base.point == point;
        let Some(wanted) = self.installing.wanted.take_if(is_it) else {
            let state = result.ok().map(|(_, sessions, machine)| Discarded::State(sessions, machine));
            return self.installing.discarded.extend(state);
        };
        let (manifest, sessions, machine) = match result {
            Ok(fetched) => fetched,
            // The leader offers it again.
            Err(NotFetched { what, goes_on }) => {
                self.installing.wanted = goes_on.then_some(Wanted { is_ordered: false, ..wanted });
                // Another one that is offered is taken at once.
                if goes_on || wanted.offered == point {
                    self.installing.pause.lengthen();
                }
                return self.effects.push(Effect::Snapshot(SnapshotReport::NotFetched { point, what }));
            }
        };
        self.installing.pause = Pause::default();
        let base = wanted.base;
        if !self.replica.wants(base) {
            return self.installing.discarded.push(Discarded::State(sessions, machine));
        }
        let Manifest { description: of, bytes, .. } = manifest;
        let membership = (of.membership_id, of.membership.clone());
        self.replica.handle(RaftInput::Installed { base, membership });
        let before = self.installing.coming.replace(Coming { of, bytes, sessions, machine });
        let state = before.map(|Coming { sessions, machine, .. }| Discarded::State(sessions, machine));
        self.installing.discarded.extend(state);
    }

    /// It takes long to drop.
    pub(super) fn discard(&mut self, making: Box<Making>) {
        self.installing.discarded.push(Discarded::Making(making));
    }

    /// States that nobody needs any more. To drop one of many bytes takes long: that is for another thread than the one that
    /// drives, and to be asked for after each [`Driver::take_effects`].
    pub fn take_discarded(&mut self) -> Vec<Discarded<M>> {
        std::mem::take(&mut self.installing.discarded)
    }

    /// The state takes its place once the log has come to its point. Until then nothing is applied.
    pub(super) fn take_over_if_reached(&mut self) {
        let Some(point) = self.installing.waits_for() else { return };
        let is_held = self.replica.term_at(point.index) == Some(point.term);
        let is_reached = is_held && self.commit.min(self.replica.status().durable.index) >= point.index;
        if !is_reached && !mutant::is_on(Mutant::StateBeforeLog) {
            return;
        }
        let Coming { of, bytes, sessions, machine } = self.installing.coming.take().expect("looked at above");
        self.installing.is_stateless = false;
        // What is being read to be applied is in the state.
        for (_, purpose) in &mut self.log_reads {
            if matches!(purpose, ReadFor::Apply) {
                *purpose = ReadFor::Nobody;
            }
        }
        self.applying = Applying::FromMemory;
        self.stale_reads = 0;
        let sessions = std::mem::replace(&mut self.sessions, sessions);
        let machine = std::mem::replace(&mut self.machine, machine);
        self.installing.discarded.push(Discarded::State(sessions, machine));
        self.replace_kept();
        (self.applied, self.log_digest) = (of.point, of.log_digest);
        self.configuration = (of.membership_id, of.membership);
        self.retention.begin_at(of.log_start, of.last_record);
        self.replica.handle(RaftInput::Applied(of.point.index));
        self.name_snapshot(of.point);
        self.replica.handle(RaftInput::SnapshotMade { point: of.point });
        let told = SnapshotMade { point: of.point, bytes, milliseconds: 0, core_microseconds: 0 };
        self.on_snapshot_installed(told);
        self.effects.push(Effect::Snapshot(SnapshotReport::Installed(told)));
    }
}
