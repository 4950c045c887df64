//! Chunks that rotted here, until they are put back.
//!
//! ```text
//!   found when served or read ──▶ rotten ──due──▶ asked for ──▶ put back
//!   found by a start ──▶ suspect ──looked through──▶ rotten, each ╯  ╰─▶ nobody has it now: later, others first
//!                           ╰──────── all are put back: looked through again ──▶ whole: told
//! ```
//!
//! That no node has a chunk now is no reason to give it up: the others make the same snapshot later than the leader, and mend
//! their own. It is asked for again [`MENDS_TRIED_MAX`] times, ever more seldom, which takes some minutes; after that the next
//! who finds it rotten begins anew.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::snapshot::Manifest;

/// Rotten chunks that wait to be fetched. More are found again when they are read again.
const MENDS_WAITING_MAX: usize = 64;
/// So often nodes are asked for a chunk that none of them has.
pub(super) const MENDS_TRIED_MAX: u32 = 12;
/// The longest time between two of these.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// Takes note of chunks that are found rotten; clones share the list.
#[derive(Clone, Debug)]
pub struct Mender {
    waiting: Arc<Mutex<Waiting>>,
    changed: Arc<Notify>,
}

/// What is to be done.
#[derive(Debug, Default)]
struct Waiting {
    rotten: VecDeque<Rotten>,
    /// Snapshots that have a rotten chunk, if not more: which, is still to be found.
    suspects: VecDeque<Manifest>,
}

/// A chunk that is to be put back.
#[derive(Clone, Debug)]
pub(super) struct Rotten {
    pub manifest: Manifest,
    pub number: u32,
    /// Whoever suspected its snapshot waits to be told that it is whole.
    is_of_suspect: bool,
    /// How often all nodes were asked.
    tries: u32,
    due: Instant,
}

impl Mender {
    pub(super) fn new(changed: Arc<Notify>) -> Mender {
        Mender { waiting: Arc::default(), changed }
    }

    /// This chunk of a whole snapshot is not what was written: it is fetched from a node that has it, when nothing more
    /// urgent is to be done.
    pub fn is_rotten(&self, manifest: &Manifest, number: u32) {
        self.add(manifest, number, false);
    }

    /// This whole snapshot has a chunk that is not what was written: all are looked at, and fetched where they are not. It is
    /// told when all are right.
    pub fn is_suspect(&self, manifest: &Manifest) {
        self.waiting().suspect(manifest);
        self.changed.notify_one();
    }

    /// A suspect was looked through, and these chunks are not what was written.
    pub(super) fn found(&self, manifest: &Manifest, numbers: &[u32]) {
        numbers.iter().for_each(|number| self.add(manifest, *number, true));
    }

    /// The one that waits for the longest time of those that are due.
    pub(super) fn take_due(&self, now: Instant) -> Option<Rotten> {
        let mut waiting = self.waiting();
        let place = waiting.rotten.iter().position(|rotten| rotten.due <= now)?;
        waiting.rotten.remove(place)
    }

    /// When something is to be done, if nothing new is told.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.waiting().rotten.iter().map(|rotten| rotten.due).min()
    }

    pub(super) fn take_suspect(&self) -> Option<Manifest> {
        self.waiting().suspects.pop_front()
    }

    /// Something more urgent came: it is the next again.
    pub(super) fn put_back(&self, rotten: Rotten) {
        self.waiting().rotten.push_front(rotten);
    }

    /// Nobody has it now: it waits behind the others, `pause` after the first time and ever longer. None: it was tried often
    /// enough.
    pub(super) fn again(&self, rotten: &Rotten, pause: Duration) -> Option<Duration> {
        let tries = rotten.tries + 1;
        if tries >= MENDS_TRIED_MAX {
            return None;
        }
        let pause = pause.saturating_mul(1 << rotten.tries).min(PAUSE_MAX);
        let due = Instant::now() + pause;
        self.waiting().rotten.push_back(Rotten { tries, due, ..rotten.clone() });
        Some(pause)
    }

    /// It is what was written. If it was the last one of a suspect, that is looked through once more.
    pub(super) fn is_mended(&self, rotten: &Rotten) {
        let mut waiting = self.waiting();
        let has_more = waiting.rotten.iter().any(|other| other.manifest == rotten.manifest);
        if rotten.is_of_suspect && !has_more {
            waiting.suspect(&rotten.manifest);
        }
    }

    fn add(&self, manifest: &Manifest, number: u32, is_of_suspect: bool) {
        let mut waiting = self.waiting();
        let known = waiting.rotten.iter_mut().find(|known| known.number == number && known.manifest == *manifest);
        if let Some(known) = known {
            known.is_of_suspect |= is_of_suspect;
        } else if waiting.rotten.len() < MENDS_WAITING_MAX {
            let (manifest, due) = (manifest.clone(), Instant::now());
            waiting.rotten.push_back(Rotten { manifest, number, is_of_suspect, tries: 0, due });
            self.changed.notify_one();
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().expect("no holder of this lock can panic")
    }
}

impl Waiting {
    fn suspect(&mut self, manifest: &Manifest) {
        if !self.suspects.contains(manifest) {
            self.suspects.push_back(manifest.clone());
        }
    }
}
