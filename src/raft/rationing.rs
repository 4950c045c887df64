//! Followers that lack much, and how fast a leader sends it to them while clients write.
//!
//! What has left the leader's memory is read from its disk, checked, sent, and written by the follower. Where clients'
//! entries need the same processors, disks and links, all that such a follower gets faster than clients write is taken
//! from them. So it is rationed: in each tick half as much again may be read for it as clients wrote in one, and what it
//! lacks becomes less by that half.
//!
//! It gets as much as it takes, as if there were no such rule, where
//!
//! - **clients write little**: a sixteenth of the least that anybody is rationed to. A cluster without load has nothing to
//!   save; and what clients would lose is little.
//! - **a commit may need it.** Without those who lack so much, the voters that are heard and move, and hold what is committed,
//!   are no majority, in both configurations of a joint one. A disk that stalls counts as a node that is silent, this one's
//!   too. While a cluster is being born all are needed.
//! - **the log may lose what it lacks.** Behind the newest snapshot nothing goes before another two were made, and by then it
//!   has come further than the older of them; nor does what clients may read, where no rule trims it
//!   ([`Replica::keeps_from`]). What lies before both may be gone tomorrow, and then only a snapshot would help.
//! - **leadership is handed over to it**, or it was removed and is told so: there is a time for both.
//! - **it was rationed for long**: three minutes. While it lags there is a copy less, and a snapshot is kept for ten minutes.
//!
//! What memory has is not rationed: who is so near gets everything, up to the window.

use crate::mutant::{self, Mutant};
use crate::types::{Index, NodeId};

use super::progress::{Mode, Progress};
use super::quorum;
use super::replica::{Replica, State};

/// What clients write in a tick is the mean of about so many.
const WINDOW_TICKS: u64 = 16;
/// Clients write little if it is less than this part of the least ration.
const LITTLE: u64 = 16;
/// Three minutes.
const RATIONED_TICKS_MAX: u32 = 18_000;

/// What this leader's log grows by.
#[derive(Clone, Copy, Hash, Debug, Default)]
pub(super) struct Growth {
    /// Since the last tick.
    new_bytes: u64,
    /// [`WINDOW_TICKS`] times the mean of a tick; of one that is further back less counts.
    window_bytes: u64,
}

/// What may be read from the log for one follower.
#[derive(Clone, Copy, Hash, Debug, Default)]
pub(super) struct Ration {
    /// `None`: as much as it takes. Else nothing more is read unless it is above zero; one read takes it below.
    left_bytes: Option<i64>,
    /// For so long it has been rationed since it was last sent what memory has.
    ticks: u32,
}

impl Growth {
    pub(super) fn note(&mut self, bytes: usize) {
        self.new_bytes += bytes as u64;
    }

    fn on_tick(&mut self) {
        // Rounded up, so that what was written long ago leaves nothing behind.
        self.window_bytes -= self.window_bytes.div_ceil(WINDOW_TICKS);
        self.window_bytes += std::mem::take(&mut self.new_bytes);
    }

    /// What each follower that lacks much may get in this tick, if it is rationed; at least `bytes_min`.
    fn ration(&self, bytes_min: u64) -> Option<u64> {
        let tick_bytes = self.window_bytes / WINDOW_TICKS;
        (tick_bytes > bytes_min / LITTLE).then(|| bytes_min.max(tick_bytes + tick_bytes / 2))
    }
}

impl Ration {
    /// What it had left is not saved up.
    fn give(&mut self, bytes: u64) {
        let bytes = bytes as i64;
        self.left_bytes = Some(self.left_bytes.map_or(bytes, |left| bytes.min(left + bytes)));
        self.ticks += 1;
    }

    fn lift(&mut self) {
        self.left_bytes = None;
    }

    pub(super) fn is_used_up(&self) -> bool {
        self.left_bytes.is_some_and(|left| left <= 0) && !mutant::is_on(Mutant::NobodyRationed)
    }

    /// So much was read for it.
    pub(super) fn take(&mut self, bytes: usize) {
        self.left_bytes = self.left_bytes.map(|left| left - bytes as i64);
    }
}

impl Replica {
    /// The log keeps the entries from this one on, however many snapshots have them: they may be read. `None` if it keeps
    /// no more than snapshots want. It counts where this node leads.
    pub fn keeps_from(&mut self, kept_from: Option<Index>) {
        self.kept_from = kept_from;
    }

    /// A leader's tick has passed: who is sent how much of what memory does not have.
    pub(super) fn ration_followers(&mut self) {
        let State::Leader(leading) = &mut self.state else { unreachable!("called for leaders") };
        leading.growth.on_tick();
        let ration = leading.growth.ration(self.config.limits.ration_bytes_min);
        let memory_first = self.log.cache_first();
        if !leading.progress.values().any(|progress| progress.lags(memory_first)) {
            return;
        }
        let ration = ration.filter(|_| self.commits_without_laggards(memory_first));
        let (stays_behind, stays_from) = (self.snapshot.index, self.kept_from);
        let patience_ticks = self.config.election_ticks.start;
        let State::Leader(leading) = &mut self.state else { unreachable!("called for leaders") };
        let transfer_to = leading.transfer.map(|transfer| transfer.to());
        // Time in which it is silent does not count.
        let takes = |progress: &Progress| progress.lags(memory_first) && progress.silent_ticks < patience_ticks;
        for (peer, progress) in leading.progress.iter_mut().filter(|(_, progress)| takes(progress)) {
            let stays = progress.next > stays_behind || stays_from.is_some_and(|first| progress.next >= first);
            let is_urgent = !(stays || mutant::is_on(Mutant::RationedThoughItGoes))
                || progress.departs()
                || transfer_to == Some(*peer)
                || progress.ration.ticks >= RATIONED_TICKS_MAX;
            match ration.filter(|_| !is_urgent) {
                Some(bytes) => progress.ration.give(bytes),
                None => progress.ration.lift(),
            }
        }
    }

    /// Whether a majority is there for what clients write now, those left out who lack what memory does not have.
    fn commits_without_laggards(&self, memory_first: Index) -> bool {
        let State::Leader(leading) = &self.state else { unreachable!("called for leaders") };
        let (last, patience_ticks) = (self.log.last().index, self.config.election_ticks.start);
        let goes_on = |progress: &Progress| {
            let moves = progress.matched == last || progress.matched_ticks_ago < patience_ticks;
            let is_near = progress.matched >= self.commit && !progress.lags(memory_first);
            is_near && moves && progress.silent_ticks < patience_ticks
        };
        let counts = |voter: NodeId| match voter == self.config.id {
            true => self.own_disk.stalled_ticks() < u64::from(patience_ticks),
            false => leading.progress.value(&voter).is_some_and(goes_on),
        };
        quorum::won(self.memberships.current(), counts) || mutant::is_on(Mutant::RationedThoughNeeded)
    }
}

impl Progress {
    /// It lacks what memory, which begins with this entry, does not have.
    fn lags(&self, memory_first: Index) -> bool {
        self.mode == Mode::Replicate && self.next < memory_first
    }
}
