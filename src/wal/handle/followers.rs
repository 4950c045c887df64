//! Those who follow a group: each has a place here, which the log's thread marks when the group moved.
//!
//! ```text
//!   core ── publish, once a turn ──▶ places: cut, moved, waker ◀── look, register ── Tail, Iter, DurableWatch
//!        ── wake, after its locks ──▶ wakers of what moved
//! ```
//!
//! A reader looks and registers while it holds the log: nothing becomes durable between the two. A place, with its
//! waker, is gone when its owner is.
//!
//! A waker is the code of whoever waits, and may call back into the log: it is cloned, woken and dropped while no lock
//! is held, neither this one nor the log's.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use super::error::{Ended, OutcomeUnknown};
use crate::types::{GroupId, Index};
use crate::wal::Log;
use crate::wal::followed::Followed;

#[derive(Debug, Default)]
pub(super) struct Followers(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// The last durable entry of each group, or the one before its first.
    durable: BTreeMap<GroupId, Index>,
    places: BTreeMap<(GroupId, u64), FollowerPlace>,
    next_follower: u64,
    /// Taken out of their places, to be woken when no lock is held.
    woken: Vec<Waker>,
    /// Nothing becomes durable any more.
    ended: Option<Ended>,
}

#[derive(Debug, Default)]
struct FollowerPlace {
    /// The lowest index from which durable entries ended since its owner looked.
    cut: Option<Index>,
    /// The group moved since its owner looked.
    is_moved: bool,
    /// Its owner waits for the group to reach `wanted`.
    waker: Option<Waker>,
    wanted: Index,
}

/// One place. Dropping it gives it up.
#[derive(Debug)]
pub(super) struct Follower {
    followers: Arc<Followers>,
    place: (GroupId, u64),
}

/// What a reader sees that has everything below some index.
#[derive(Debug)]
pub(super) enum Seen {
    /// Entries that it has have ended, from here on.
    Cut(Index),
    /// There are more, up to and including this one.
    UpTo(Index),
    /// Nothing new.
    Nothing,
    /// Nothing new, and there never will be.
    Ended(Ended),
}

impl Followers {
    /// For a log whose entries are all durable, as after opening it.
    pub fn new(log: &mut Log) -> Followers {
        let followed = Followed::new(log.groups());
        let durable = followed.durable().clone();
        log.locator.followed = Some(followed);
        Followers(Mutex::new(State { durable, ..State::default() }))
    }

    /// The last durable entry of a group, or the one before its first.
    pub fn durable(&self, group: GroupId) -> Index {
        self.lock().durable.get(&group).copied().unwrap_or_default()
    }

    /// Marks whom the last frames concern; [`Followers::wake`] then wakes those of them who wait.
    pub fn publish(&self, log: &mut Log) {
        let moved = log.locator.followed.as_mut().map(Followed::take).unwrap_or_default();
        if moved.is_empty() {
            return;
        }
        let mut state = self.lock();
        let State { durable, places, woken, .. } = &mut *state;
        for (group, moved) in moved {
            durable.insert(group, moved.last);
            for (_, place) in places.range_mut((group, 0)..=(group, u64::MAX)) {
                place.is_moved = true;
                place.cut = place.cut.into_iter().chain(moved.cut).min();
                if moved.last >= place.wanted {
                    woken.extend(place.waker.take());
                }
            }
        }
    }

    /// Wakes those whom the group that they wait for has reached. Hold no lock: a waker may do anything.
    pub fn wake(&self) {
        let woken = std::mem::take(&mut self.lock().woken);
        woken.into_iter().for_each(Waker::wake);
    }

    /// Nothing becomes durable any more: wakes all.
    pub fn end(&self, failure: Option<OutcomeUnknown>) {
        let mut state = self.lock();
        let State { places, woken, ended, .. } = &mut *state;
        ended.get_or_insert(failure.map_or(Ended::Closed, Ended::Failed));
        woken.extend(places.values_mut().filter_map(|place| place.waker.take()));
        drop(state);
        self.wake();
    }

    /// A place for one who follows `group` from now on.
    pub fn follow(self: &Arc<Self>, group: GroupId) -> Follower {
        let mut state = self.lock();
        state.next_follower += 1;
        let place = (group, state.next_follower);
        state.places.insert(place, FollowerPlace::default());
        Follower { followers: Arc::clone(self), place }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Each change is whole at any instant, whoever panicked.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Those who have a place, and those of them who wait.
    #[cfg(test)]
    pub fn counts(&self) -> (usize, usize) {
        let state = self.lock();
        (state.places.len(), state.places.values().filter(|place| place.waker.is_some()).count() + state.woken.len())
    }
}

impl Follower {
    pub fn group(&self) -> GroupId {
        self.place.0
    }

    /// What there is for a reader that has everything below `next`. If there is nothing it is woken when there is: then
    /// `waker` is kept, and what is left in its place is to be dropped when the caller holds no lock.
    pub fn look(&self, next: Index, waker: &mut Option<Waker>) -> Seen {
        let mut state = self.followers.lock();
        let last = state.durable.get(&self.place.0).copied().unwrap_or_default();
        let ended = state.ended.clone();
        let place = self.place_in(&mut state);
        if let Some(cut) = place.cut.take().filter(|&cut| cut < next) {
            return Seen::Cut(cut);
        }
        if next <= last {
            return Seen::UpTo(last);
        }
        if let Some(ended) = ended {
            return Seen::Ended(ended);
        }
        place.wanted = Index::ZERO;
        std::mem::swap(&mut place.waker, waker);
        Seen::Nothing
    }

    /// The last durable entry, if it is at least `wanted`; otherwise wakes when it is.
    pub fn reached(&self, wanted: Index, waker: &Waker) -> Option<Result<Index, Ended>> {
        self.poll(Some(wanted), waker)
    }

    /// The last durable entry, if the group moved since this last gave one; otherwise wakes when it does.
    pub fn changed(&self, waker: &Waker) -> Option<Result<Index, Ended>> {
        self.poll(None, waker)
    }

    fn poll(&self, wanted: Option<Index>, waker: &Waker) -> Option<Result<Index, Ended>> {
        // Cloned before the lock, and the one that it replaces dropped after it.
        let mut waker = Some(waker.clone());
        let mut state = self.followers.lock();
        let last = state.durable.get(&self.place.0).copied().unwrap_or_default();
        let ended = state.ended.clone();
        let place = self.place_in(&mut state);
        let is_there = match wanted {
            Some(wanted) => last >= wanted,
            None => std::mem::take(&mut place.is_moved),
        };
        if is_there {
            return Some(Ok(last));
        }
        if ended.is_none() {
            place.wanted = wanted.unwrap_or_default();
            std::mem::swap(&mut place.waker, &mut waker);
        }
        ended.map(Err)
    }

    /// Its owner does not wait any more.
    pub fn stop_waiting(&self) {
        // Bound to a name, so that it is dropped when the lock is free.
        let _waker = self.take_waker();
    }

    fn take_waker(&self) -> Option<Waker> {
        self.place_in(&mut self.followers.lock()).waker.take()
    }

    fn leave(&self) -> Option<FollowerPlace> {
        self.followers.lock().places.remove(&self.place)
    }

    pub fn durable(&self) -> Index {
        self.followers.durable(self.place.0)
    }

    fn place_in<'s>(&self, state: &'s mut State) -> &'s mut FollowerPlace {
        state.places.get_mut(&self.place).expect("it is there as long as its follower")
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        // Bound to a name, so that its waker is dropped when the lock is free.
        let _place = self.leave();
    }
}
