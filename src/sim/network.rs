//! The network: what is lost, what comes twice, what comes late, and who does not hear whom.

use std::collections::BTreeMap;

use super::scenario::NetworkOptions;
use crate::random::Random;

/// Decides about each message by itself, so that later ones overtake.
#[derive(Debug)]
pub(super) struct Network {
    options: NetworkOptions,
    /// Directions that are silent, and until when.
    silent: BTreeMap<(usize, usize), u64>,
    random: Random,
    pub lost: u64,
    pub duplicated: u64,
}

impl Network {
    pub fn new(options: NetworkOptions, random: Random) -> Network {
        Network { options, silent: BTreeMap::new(), random, lost: 0, duplicated: 0 }
    }

    /// When the copies of a message between nodes arrive: none if it is lost.
    pub fn between_nodes(&mut self, now: u64, from: usize, to: usize) -> Vec<u64> {
        let silent = self.silent.get(&(from, to)).is_some_and(|until| now < *until);
        if silent {
            self.lost += 1;
            return Vec::new();
        }
        self.copies(now)
    }

    /// When the copies of what a client says or hears arrive.
    pub fn copies(&mut self, now: u64) -> Vec<u64> {
        if self.random.chance(self.options.loss_per_mille) {
            self.lost += 1;
            return Vec::new();
        }
        let mut arrivals = vec![now + self.delay()];
        if self.random.chance(self.options.duplication_per_mille) {
            self.duplicated += 1;
            arrivals.push(now + self.delay());
        }
        arrivals
    }

    /// The same, for a request that may arrive twice or may not.
    pub fn copies_of_request(&mut self, now: u64, may_double: bool) -> Vec<u64> {
        let arrivals = self.copies(now);
        self.first(arrivals, if may_double { 2 } else { 1 })
    }

    /// Of the copies of what does not come more often, so many; the others are none.
    pub fn first(&mut self, mut arrivals: Vec<u64>, copies_max: usize) -> Vec<u64> {
        self.duplicated -= arrivals.len().saturating_sub(copies_max) as u64;
        arrivals.truncate(copies_max);
        arrivals
    }

    pub fn silence(&mut self, from: usize, to: usize, until: u64) {
        self.silent.insert((from, to), until);
    }

    pub fn calm(&mut self) {
        self.silent.clear();
        self.options = NetworkOptions::calm();
    }

    fn delay(&mut self) -> u64 {
        // Mostly short, sometimes long: uniform delays alone would reorder everything, always.
        let bound = if self.random.chance(800) { self.options.delay_max / 8 } else { self.options.delay_max };
        50 + self.random.below(bound.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_copy_that_does_not_come_is_not_counted() {
        let always = NetworkOptions { loss_per_mille: 0, duplication_per_mille: 1000, delay_max: 10 };
        let mut network = Network::new(always, Random::seeded(1));
        assert_eq!((network.copies_of_request(0, false).len(), network.duplicated), (1, 0));
        assert_eq!((network.copies_of_request(0, true).len(), network.duplicated), (2, 1));
    }
}
