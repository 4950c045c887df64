//! What the threads of a log do, and what is in it then. Both sides derive it from a seed: the process that does it, and
//! the test that knows what must be there.

use std::collections::VecDeque;

use trilith::checksum::Checksum;
use trilith::random::Random;

/// Each has a thread of its own, so that the order of what it does is known.
pub const GROUPS: usize = 3;

const BATCH_RECORDS_MAX: u64 = 8;
const RECORD_BYTES_MAX: u64 = 64 << 10;
/// Entries that stay, before any are truncated or purged.
const HELD_MIN: u64 = 40;
const TRUNCATED_MAX: u64 = 12;

/// One call of the log. Each of a group has a number that is never used again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// So many records.
    Append(u32),
    /// From this index on.
    Truncate(u64),
    /// Up to this index.
    Purge(u64),
}

/// What a group's next call is, if its entries go from one index to another.
pub fn step(seed: u64, group: usize, number: u64, before_first: u64, last: u64) -> Step {
    let mut random = Random::seeded(mixed(&[seed, group as u64, number]));
    let held = last - before_first;
    match random.below(100) {
        0..3 if held > HELD_MIN => Step::Truncate(last - random.below(TRUNCATED_MAX)),
        3..6 if held > 3 * HELD_MIN => Step::Purge(before_first + held / 2),
        6..36 => Step::Append(random.between(2, BATCH_RECORDS_MAX) as u32),
        _ => Step::Append(1),
    }
}

/// A record of an append: mostly short, up to 64 KiB.
pub fn record(seed: u64, group: usize, name: Name) -> Vec<u8> {
    let mut random = Random::seeded(mixed(&[seed, group as u64, name.step, u64::from(name.at), 1]));
    let bytes_max = match random.below(100) {
        0..4 => RECORD_BYTES_MAX,
        4..30 => 4096,
        _ => 200,
    };
    let mut record = vec![0; random.between(1, bytes_max) as usize];
    random.fill(&mut record);
    record
}

/// Which record an entry is: of which call, and which of that call's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Name {
    pub step: u64,
    pub at: u32,
}

/// What a group holds.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Model {
    pub before_first: u64,
    pub entries: VecDeque<Name>,
}

/// What was found of an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Found {
    pub bytes: usize,
    pub checksum: u32,
}

impl Found {
    pub fn of(record: &[u8]) -> Found {
        Found { bytes: record.len(), checksum: Checksum::of(record).0 }
    }
}

impl Model {
    pub fn last(&self) -> u64 {
        self.before_first + self.entries.len() as u64
    }

    pub fn take(&mut self, number: u64, step: &Step) {
        match step {
            Step::Append(count) => self.entries.extend((0..*count).map(|at| Name { step: number, at })),
            Step::Truncate(from) => self.entries.truncate((from - 1 - self.before_first) as usize),
            Step::Purge(last) => {
                self.entries.drain(..(last - self.before_first) as usize);
                self.before_first = *last;
            }
        }
    }

    /// Whether this is what was found, to the byte.
    pub fn is(&self, seed: u64, group: usize, before_first: u64, found: &[Found]) -> bool {
        // Most that differ do so in their number.
        (self.before_first, self.entries.len()) == (before_first, found.len())
            && self.entries.iter().zip(found).all(|(name, found)| Found::of(&record(seed, group, *name)) == *found)
    }
}

fn mixed(numbers: &[u64]) -> u64 {
    numbers.iter().fold(0, |mixed, number| Random::seeded(mixed ^ number).next_u64())
}
