//! What a leader knows of one follower, and what is on its way to it.
//!
//! A follower is *probed* until the place is found where the logs agree: one empty append at a time. Then it is
//! *replicated* to: entries flow without waiting for answers, up to the window, and `next` runs ahead of what is
//! acknowledged. Whatever gets lost brings it back to being probed. One that lacks what the log has no more is offered a
//! *snapshot*, from time to time, until it holds the log's beginning.
//!
//! When one append is lost, all those behind it that are under way are rejected. The first of these rejections begins a
//! new attempt, in a round of its own; the others name the rounds of before, and are not heard: the window is sent again
//! once for each attempt that fails, and not for each append of it.

use std::collections::VecDeque;

use crate::mutant::{self, Mutant};
use crate::types::{Index, LogId, Term};

use super::heartbeats::Pace;
use super::log::Log;
use super::rationing::Ration;
use super::{Limits, Round};

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Mode {
    /// `outstanding`: a probe at `next` - 1 was sent and not answered.
    Probe {
        outstanding: bool,
    },
    Replicate,
    /// The log no longer reaches back to what it lacks. Until it is offered a snapshot, again: so many ticks.
    Snapshot {
        wait_ticks: u32,
    },
}

/// An append on its way.
#[derive(Clone, Copy, Hash, Debug)]
pub(super) struct Flight {
    last: Index,
    bytes: usize,
}

/// Entries that are being read from the log for a follower.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Fetching {
    No,
    /// Asked for, from this index on.
    From(Index),
    /// The last attempt failed: not before the next heartbeat.
    Later,
}

#[derive(Clone, Hash, Debug)]
pub(super) struct Progress {
    /// The follower has the leader's log durably up to here. Only grows within a term.
    pub(super) matched: Index,
    /// Of that entry, which the log may give up. Lower, if it was given up when the follower said so.
    matched_term: Term,
    /// The leader's newest round when `matched` moved last: what was sent in a later one was sent to a follower that had
    /// that much.
    pub(super) matched_in: Round,
    /// On its present link the follower has shown that it holds that. Until then it is not told that it does.
    is_affirmed: bool,
    /// The next entry to send. Above `matched`.
    pub(super) next: Index,
    pub(super) mode: Mode,
    /// The newest round that the follower has answered.
    pub(super) confirmed: Round,
    /// The round in which the present attempt to find where the logs agree began. What is rejected of older ones means
    /// nothing any more.
    pub(super) attempt: Round,
    /// Since `matched` moved.
    pub(super) matched_ticks_ago: u32,
    /// Since it was heard to follow.
    pub(super) silent_ticks: u32,
    /// It has answered in this term.
    pub(super) was_heard: bool,
    pub(super) pace: Pace,
    pub(super) fetching: Fetching,
    pub(super) ration: Ration,
    /// Whether it was said that the log no longer reaches back to what this follower lacks.
    pub(super) snapshot_needed: bool,
    /// Since an answer moved something, while one is awaited.
    pub(super) stalled_ticks: u32,
    pub(super) catch_up: CatchUp,
    /// Set while a node that was removed is told so.
    pub(super) departure: Option<Departure>,
    pub(super) in_flight: VecDeque<Flight>,
    pub(super) in_flight_bytes: usize,
}

/// How well a follower keeps up, in rounds (dissertation §4.2.1): a round brings it what the leader's log held when the
/// round began, and the next begins.
#[derive(Clone, Copy, Hash, Debug)]
pub(super) struct CatchUp {
    /// The end of the log when this round began.
    pub(super) target: Index,
    pub(super) ticks: u32,
    /// What the round before took, if there was one.
    pub(super) last_round_ticks: Option<u32>,
}

/// The last that is sent to a node which was removed.
#[derive(Clone, Copy, Hash, Debug)]
pub(super) struct Departure {
    /// The configuration that it is not part of.
    removed_at: Index,
    /// The first round that told it that this is committed.
    told_in: Option<Round>,
    /// From the commit on; then nothing is sent any more.
    pub(super) remaining_ticks: u32,
}

/// What a rejection comes to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Rejected {
    /// It was too late, or said nothing new.
    Nothing,
    /// Another probe is due. All that was sent before may be rejected, too.
    BeginsAnew,
    /// The log does not reach back far enough.
    NeedsSnapshot { is_news: bool },
}

impl Departure {
    pub(super) fn new(removed_at: Index, remaining_ticks: u32) -> Departure {
        Departure { removed_at, told_in: None, remaining_ticks }
    }
}

impl Progress {
    /// Nothing is known; the first guess is that the follower has everything before `next`.
    pub(super) fn new(next: Index) -> Progress {
        Progress {
            matched: Index::ZERO,
            matched_term: Term::ZERO,
            matched_in: Round::default(),
            is_affirmed: true,
            next,
            mode: Mode::Probe { outstanding: false },
            confirmed: Round::default(),
            attempt: Round::default(),
            // As if long ago: it has not moved yet.
            matched_ticks_ago: u32::MAX,
            silent_ticks: 0,
            was_heard: false,
            pace: Pace::default(),
            fetching: Fetching::No,
            ration: Ration::default(),
            snapshot_needed: false,
            stalled_ticks: 0,
            catch_up: CatchUp { target: next.previous(), ticks: 0, last_round_ticks: None },
            departure: None,
            in_flight: VecDeque::new(),
            in_flight_bytes: 0,
        }
    }

    /// `last` is the end of the leader's log.
    pub(super) fn on_tick(&mut self, last: Index) {
        self.matched_ticks_ago = self.matched_ticks_ago.saturating_add(1);
        self.silent_ticks = self.silent_ticks.saturating_add(1);
        self.pace.on_tick();
        let awaited = !self.in_flight.is_empty() || self.mode == Mode::Probe { outstanding: true };
        self.stalled_ticks = if awaited { self.stalled_ticks.saturating_add(1) } else { 0 };
        if let Mode::Snapshot { wait_ticks } = &mut self.mode {
            *wait_ticks = wait_ticks.saturating_sub(1);
        }
        self.catch_up.ticks = self.catch_up.ticks.saturating_add(1);
        self.end_round(last);
    }

    /// It answered, whatever it said.
    pub(super) fn on_heard(&mut self, round: Round) {
        self.silent_ticks = 0;
        self.was_heard = true;
        self.confirmed = self.confirmed.max(round);
    }

    pub(super) fn on_probe_sent(&mut self) {
        self.mode = Mode::Probe { outstanding: true };
        self.stalled_ticks = 0;
    }

    /// Entries up to `last` were sent: the next message begins behind them, without waiting.
    pub(super) fn on_sent(&mut self, last: Index, bytes: usize) {
        self.next = last.next();
        self.in_flight.push_back(Flight { last, bytes });
        self.in_flight_bytes += bytes;
    }

    pub(super) fn window_is_open(&self, limits: &Limits) -> bool {
        let takes_message = self.in_flight.len() < limits.window_messages;
        let takes_bytes = self.in_flight_bytes < limits.window_bytes;
        (takes_message || mutant::is_on(Mutant::WindowMessagesIgnored))
            && (takes_bytes || mutant::is_on(Mutant::WindowBytesIgnored))
    }

    /// The follower has the log durably up to `last`, as it says in `round`, which is heard in round `newest`. True if that
    /// is news.
    pub(super) fn on_matched(&mut self, last: Index, round: Round, newest: Round, log: &Log) -> bool {
        let news = last > self.matched;
        self.is_affirmed |= round >= self.attempt;
        self.matched = self.matched.max(last);
        self.next = self.next.max(self.matched.next());
        while let Some(flight) = self.in_flight.front().filter(|flight| flight.last <= last) {
            self.in_flight_bytes -= flight.bytes;
            self.in_flight.pop_front();
        }
        if news {
            self.matched_term = log.term_at(last).unwrap_or(self.matched_term);
            self.matched_in = newest;
            self.matched_ticks_ago = 0;
            self.stalled_ticks = 0;
            self.snapshot_needed = false;
            self.end_round(log.last().index);
        }
        let is_offered = matches!(self.mode, Mode::Snapshot { .. });
        if self.matched < log.before_first().index {
            // A late answer is no reason to ask again: the next offer does.
            if !is_offered {
                self.probe_at(self.matched.next(), log);
            }
        } else if self.mode != Mode::Replicate && !(is_offered && mutant::is_on(Mutant::SnapshotOfferedForEver)) {
            self.mode = Mode::Replicate;
            self.next = self.matched.next();
        }
        news
    }

    fn end_round(&mut self, last: Index) {
        if self.matched >= self.catch_up.target {
            self.catch_up = CatchUp { target: last, ticks: 0, last_round_ticks: Some(self.catch_up.ticks) };
        }
    }

    /// Whether it holds something and was heard, and its last round took, and this one takes, less than
    /// `patience_ticks`: as a voter it would not keep the others waiting for longer than an election does.
    pub(super) fn has_caught_up(&self, patience_ticks: u32) -> bool {
        let CatchUp { ticks, last_round_ticks, .. } = self.catch_up;
        // Before it has said anything, nothing was to be had in its first round either.
        let is_known = self.matched > Index::ZERO;
        if mutant::is_on(Mutant::CaughtUpAtOnce) {
            return is_known;
        }
        is_known && last_round_ticks.is_some_and(|last| last.max(ticks).max(self.silent_ticks) < patience_ticks)
    }

    pub(super) fn depart(&mut self, departure: Departure) {
        self.departure = Some(self.departure.unwrap_or(departure));
    }

    pub(super) fn departs(&self) -> bool {
        self.departure.is_some()
    }

    /// What a node that was removed gets ends with its removal.
    pub(super) fn last_to_send(&self, last: Index) -> Index {
        self.departure.map_or(last, |departure| departure.removed_at.min(last))
    }

    /// It was told the commit index in a round.
    pub(super) fn on_heartbeat(&mut self, commit: Index, round: Round) {
        if let Some(departure) = self.departure.as_mut().filter(|departure| departure.removed_at <= commit) {
            departure.told_in.get_or_insert(round);
        }
    }

    /// It was removed, and has heard that this is committed.
    pub(super) fn knows_farewell(&self) -> bool {
        self.departure.and_then(|departure| departure.told_in).is_some_and(|told_in| self.confirmed >= told_in)
    }

    /// It was removed, and there was time enough to tell it. Called for each tick.
    pub(super) fn has_departed(&mut self, commit: Index) -> bool {
        let Some(departure) = self.departure.as_mut().filter(|departure| departure.removed_at <= commit) else {
            return false;
        };
        departure.remaining_ticks = departure.remaining_ticks.saturating_sub(1);
        departure.remaining_ticks == 0
    }

    /// The follower lacks `previous`, which an append of `round` named. `hint` is its highest entry at or below it whose
    /// term is not above; the leader's highest entry at or below the hint whose term is not above the hint's is the best
    /// that can match (§5.3). An answer to an older question, or to one of an older attempt, changes nothing.
    pub(super) fn on_rejected(&mut self, previous: LogId, hint: LogId, round: Round, log: &Log) -> Rejected {
        let current = match self.mode {
            Mode::Probe { .. } => previous.index.next() == self.next,
            Mode::Replicate => previous.index < self.next,
            // The offer is answered otherwise.
            Mode::Snapshot { .. } => false,
        };
        let is_late = round < self.attempt && !mutant::is_on(Mutant::LateRejectionCounted);
        if !current || is_late || previous.index <= self.matched {
            return Rejected::Nothing;
        }
        if previous.index <= log.before_first().index {
            // The probe stays outstanding, so that the next one waits for its turn.
            let is_known = std::mem::replace(&mut self.snapshot_needed, true);
            return Rejected::NeedsSnapshot { is_news: !is_known };
        }
        let below = previous.index.previous();
        let candidate = match mutant::is_on(Mutant::ProbesOneByOne) {
            true => below,
            false => log.highest_at_most(hint.index.min(below), hint.term).index,
        };
        self.probe_at(candidate.max(self.matched).next(), log);
        Rejected::BeginsAnew
    }

    /// The entry that the follower has lost: it had acknowledged it, and of what was sent to it since it says that its log
    /// holds no more than `hint`. What was sent before the acknowledgement came proves nothing.
    pub(super) fn lost(&self, hint: LogId, round: Round) -> Option<LogId> {
        let is_late = round <= self.matched_in;
        let acknowledged = LogId::new(self.matched_term, self.matched);
        (self.matched > Index::ZERO && !is_late && hint < acknowledged).then_some(acknowledged)
    }

    /// An answer has been due for `patience_ticks`: what was sent, or the answer, is lost. Probe again from what is
    /// known to match. True if what was sent before may still be rejected, and must not be heard then. (The answer to a
    /// probe that only took longer is as good as that to its repetition.)
    pub(super) fn probe_if_stalled(&mut self, patience_ticks: u32, log: &Log) -> bool {
        if self.stalled_ticks < patience_ticks || mutant::is_on(Mutant::LossNotNoticed) {
            return false;
        }
        let replicated = self.mode == Mode::Replicate;
        self.probe_again(log);
        replicated
    }

    /// Its link is another one: it is asked whether it holds what it has acknowledged.
    pub(super) fn verify_again(&mut self, log: &Log) {
        self.is_affirmed = false;
        self.probe_again(log);
    }

    /// Up to where it is known to hold the log.
    pub(super) fn affirmed(&self) -> Index {
        if self.is_affirmed { self.matched } else { Index::ZERO }
    }

    /// From what is known to match.
    fn probe_again(&mut self, log: &Log) {
        let replicated = self.mode == Mode::Replicate;
        self.probe_at(if replicated { self.matched.next() } else { self.next }, log);
    }

    /// What is sent from now on is of `round` at least, in which nothing was sent to this follower before.
    pub(super) fn begin_attempt(&mut self, round: Round) {
        self.attempt = round;
    }

    /// It lacks what the log has no more, and there is a snapshot.
    pub(super) fn begin_offering(&mut self) {
        self.mode = Mode::Snapshot { wait_ticks: 0 };
    }

    /// The log begins later now. True if something was on its way that is asked for no more: the follower is probed again.
    pub(super) fn on_compacted(&mut self, log: &Log) -> bool {
        let is_offered = matches!(self.mode, Mode::Snapshot { .. });
        let is_behind = self.next <= log.before_first().index && !is_offered;
        if is_behind {
            self.probe_at(self.next, log);
        }
        is_behind
    }

    /// Not below the log's start: a follower that ends there says so, and needs a snapshot.
    fn probe_at(&mut self, next: Index, log: &Log) {
        self.mode = Mode::Probe { outstanding: false };
        self.next = next.max(log.before_first().index.next());
        self.stalled_ticks = 0;
        self.in_flight.clear();
        self.in_flight_bytes = 0;
    }
}
