//! The fingerprints of the states that were met: 16 bytes each, and no more than a bound of them.

use std::sync::Mutex;

const SHARDS: usize = 256;

/// A set for several threads.
pub struct Seen {
    shards: Vec<Mutex<Shard>>,
    shard_max: usize,
}

/// Open addressing; 0 is a free place.
#[derive(Default)]
struct Shard {
    places: Vec<u128>,
    count: usize,
}

impl Seen {
    /// With room for so many, about.
    pub fn new(states_max: usize) -> Seen {
        Seen { shards: (0..SHARDS).map(|_| Mutex::default()).collect(), shard_max: states_max.div_ceil(SHARDS) }
    }

    /// True if it is new; `None` if there is no room.
    pub fn insert(&self, print: u128) -> Option<bool> {
        let mut shard = self.shards[print as usize % SHARDS].lock().expect("nobody panics with it");
        if shard.count >= self.shard_max {
            return None;
        }
        Some(shard.insert(print.max(1)))
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.shards.iter().map(|shard| shard.lock().expect("nobody panics with it").count as u64).sum()
    }
}

impl Shard {
    fn insert(&mut self, print: u128) -> bool {
        if self.count * 5 >= self.places.len() * 4 {
            self.grow();
        }
        let place = self.place(print);
        let is_new = self.places[place] == 0;
        self.places[place] = print;
        self.count += usize::from(is_new);
        is_new
    }

    /// Where it is, or would be. The lowest bits chose the shard.
    fn place(&self, print: u128) -> usize {
        let mask = self.places.len() - 1;
        let mut place = (print >> 8) as usize & mask;
        while self.places[place] != 0 && self.places[place] != print {
            place = (place + 1) & mask;
        }
        place
    }

    fn grow(&mut self) {
        let places = vec![0; (self.places.len() * 2).max(16)];
        for print in std::mem::replace(&mut self.places, places).into_iter().filter(|print| *print != 0) {
            let place = self.place(print);
            self.places[place] = print;
        }
    }
}

#[test]
fn what_was_inserted_is_seen_and_the_bound_holds() {
    let seen = Seen::new(256 * 20);
    let prints: Vec<u128> = (0..1_000u64).map(|number| super::fingerprint::of(&number)).collect();
    assert!(prints.iter().all(|print| seen.insert(*print) == Some(true)));
    assert!(prints.iter().all(|print| seen.insert(*print) == Some(false)));
    assert_eq!(seen.count(), 1_000);
    assert!((1_000..10_000u64).any(|number| seen.insert(super::fingerprint::of(&number)).is_none()));
}
