//! The states that were met, so far as none of them is covered by another.
//!
//! Messages may be lost, and what may happen need not. So of two states that differ only in messages under way and in what
//! is left of the bounds, the one that has all messages of the other and as much left of each bound can do whatever the
//! other can: it *covers* it, and nothing that follows from the other needs to be looked at.

use std::collections::BTreeMap;
use std::sync::{Mutex, RwLock};

use super::world::Left;

const SHARDS: usize = 256;

/// A state: all of it but what may happen and need not, and that.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Print {
    pub core: u128,
    pub may: May,
}

/// What may happen.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct May {
    /// Messages that may arrive, as fingerprints, in rising order.
    pub arrive: Box<[u64]>,
    pub left: Left,
}

/// What came of a state that was met.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Met {
    New,
    /// It was there, or one that covers it.
    Covered,
    /// There is no room for it.
    Full,
}

/// A set for several threads.
pub struct Seen {
    shards: Vec<Mutex<Shard>>,
    /// Messages that were met, each by its number.
    messages: RwLock<BTreeMap<u64, u32>>,
    /// Of states in one shard.
    shard_max: usize,
}

#[derive(Default)]
struct Shard {
    by_core: BTreeMap<u128, Vec<Kept>>,
    /// States that were new when they were met.
    met: u64,
    kept: usize,
}

/// With one core, and how far from the beginning it was met.
struct Kept {
    may: Compact,
    depth: u32,
}

/// What may happen, as it is kept: there are millions of states and some thousands of messages.
#[derive(PartialEq, Eq)]
struct Compact {
    /// Numbers of messages that may arrive, in rising order.
    arrive: Box<[u32]>,
    left: Left,
}

impl Seen {
    /// With room for so many, about.
    pub fn new(states_max: usize) -> Seen {
        Seen {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            messages: RwLock::default(),
            shard_max: states_max.div_ceil(SHARDS),
        }
    }

    /// A state is met, so far from the beginning. Those that it covers are kept no more if they are not nearer.
    pub fn insert(&self, print: &Print, depth: usize) -> Met {
        let (core, may, depth) = (print.core, self.compact(&print.may), depth as u32);
        let mut shard = self.shard(core);
        if shard.kept >= self.shard_max {
            return Met::Full;
        }
        // Most have one.
        let all = shard.by_core.entry(core).or_insert_with(|| Vec::with_capacity(1));
        if all.iter().any(|kept| kept.may.covers(&may)) {
            return Met::Covered;
        }
        let before = all.len();
        all.retain(|kept| kept.depth < depth || !may.covers(&kept.may));
        all.push(Kept { may, depth });
        let after = all.len();
        shard.kept = shard.kept + after - before;
        shard.met += 1;
        Met::New
    }

    /// Whether a state that was new when it was met is covered meanwhile by another one, no farther from the beginning if
    /// `as_near`.
    pub fn is_covered(&self, print: &Print, depth: usize, as_near: bool) -> bool {
        let may = self.compact(&print.may);
        let shard = self.shard(print.core);
        let all = shard.by_core.get(&print.core).expect("it was met");
        let is_other = |kept: &&Kept| kept.may != may && (!as_near || kept.depth as usize <= depth);
        all.iter().filter(is_other).any(|kept| kept.may.covers(&may))
    }

    /// How many were new when they were met.
    pub fn count(&self) -> u64 {
        self.shards.iter().map(|shard| shard.lock().expect("nobody panics with it").met).sum()
    }

    fn compact(&self, may: &May) -> Compact {
        let known = self.messages.read().expect("nobody panics with it");
        let numbers: Option<Box<[u32]>> = may.arrive.iter().map(|print| known.get(print).copied()).collect();
        drop(known);
        let mut arrive = numbers.unwrap_or_else(|| {
            let mut messages = self.messages.write().expect("nobody panics with it");
            let mut number = |print: &u64| {
                let next = messages.len() as u32;
                *messages.entry(*print).or_insert(next)
            };
            may.arrive.iter().map(&mut number).collect()
        });
        arrive.sort_unstable();
        Compact { arrive, left: may.left }
    }

    fn shard(&self, core: u128) -> std::sync::MutexGuard<'_, Shard> {
        self.shards[core as usize % SHARDS].lock().expect("nobody panics with it")
    }
}

impl Compact {
    fn covers(&self, other: &Compact) -> bool {
        self.left.covers(&other.left) && has_all(&self.arrive, &other.arrive)
    }
}

/// Whether everything in `small` is in `large`; both in rising order.
fn has_all(large: &[u32], small: &[u32]) -> bool {
    if small.len() > large.len() {
        return false;
    }
    let mut rest = large.iter();
    small.iter().all(|wanted| rest.by_ref().find(|found| *found >= wanted) == Some(wanted))
}

#[cfg(test)]
fn print(core: u128, arrive: &[u64]) -> Print {
    let left = super::world::World::new(&super::Bounds::LEAST).left;
    Print { core, may: May { arrive: arrive.into(), left } }
}

#[test]
fn one_set_covers_another_if_it_has_all_of_it() {
    let subsets = |bits: u32| (0..6).filter(|bit| bits >> bit & 1 == 1).collect::<Vec<u32>>();
    for (large, small) in (0..64u32).flat_map(|large| (0..64u32).map(move |small| (large, small))) {
        assert_eq!(has_all(&subsets(large), &subsets(small)), small & !large == 0, "{large:06b} {small:06b}");
    }
}

#[test]
fn a_state_is_new_unless_one_that_covers_it_was_met() {
    let seen = Seen::new(1 << 12);
    assert_eq!(seen.insert(&print(7, &[1, 3]), 4), Met::New);
    assert_eq!(seen.insert(&print(7, &[1, 3]), 5), Met::Covered);
    assert_eq!(seen.insert(&print(7, &[3]), 3), Met::Covered);
    assert_eq!(seen.insert(&print(7, &[1, 4]), 6), Met::New);
    assert!(!seen.is_covered(&print(7, &[1, 4]), 6, false));
    assert_eq!(seen.insert(&print(7, &[1, 2, 4]), 6), Met::New);
    assert!(seen.is_covered(&print(7, &[1, 4]), 6, true), "as near");
    assert_eq!(seen.insert(&print(7, &[1, 3, 9]), 6), Met::New);
    assert!(!seen.is_covered(&print(7, &[1, 3]), 4, true), "it is farther away");
    assert!(seen.is_covered(&print(7, &[1, 3]), 4, false));
    assert_eq!(seen.insert(&print(8, &[1]), 6), Met::New, "another core");
    assert_eq!(seen.count(), 5);
}

#[test]
fn who_has_more_left_of_one_and_less_of_another_covers_nobody() {
    let seen = Seen::new(1 << 12);
    let with = |elections, disturbances, messages: &[u64]| {
        let mut print = print(7, messages);
        print.may.left = Left { elections, disturbances, ..print.may.left };
        print
    };
    assert_eq!(seen.insert(&with(2, 1, &[1]), 0), Met::New);
    assert_eq!(seen.insert(&with(1, 2, &[1]), 0), Met::New);
    assert_eq!(seen.insert(&with(2, 0, &[1]), 0), Met::Covered);
    assert_eq!(seen.insert(&with(1, 1, &[]), 0), Met::Covered);
    assert_eq!(seen.insert(&with(2, 0, &[2]), 0), Met::New);
    assert_eq!(seen.insert(&with(2, 2, &[1]), 0), Met::New);
    assert!(seen.is_covered(&with(2, 1, &[1]), 0, true) && seen.is_covered(&with(1, 2, &[1]), 0, true));
    assert!(!seen.is_covered(&with(2, 0, &[2]), 0, true));
}

#[test]
fn the_bound_holds() {
    let seen = Seen::new(256 * 20);
    let insert = |number: u64| seen.insert(&print(super::fingerprint::of(&number), &[number]), 0);
    assert!((0..1_000).all(|number| insert(number) == Met::New));
    assert!((0..1_000).all(|number| insert(number) == Met::Covered));
    assert_eq!(seen.count(), 1_000);
    assert!((1_000..10_000).any(|number| insert(number) == Met::Full));
}
