//! Operations on a log, faults of its disk and cuts of power, all chosen by the bytes: nothing acknowledged is lost.
//!
//! Other stores are fuzzed by killing their process. Here the page cache goes as well: the bytes say which sectors,
//! names and lengths survive.

use super::choices::Choices;
use crate::random::Random;
use crate::sim::disk::{Code, Failure, Loose};
use crate::sim::log::model::shown;
use crate::sim::log::rig::{Rig, options};
use crate::types::{GroupId, Index, Term};
use crate::wal::{Options, Reading};

/// Bounds on what one input does.
const OPERATIONS_MAX: usize = 400;
const INTERRUPTIONS_MAX: usize = 3;
/// As good as no limit.
const CAPACITY_BYTES: u64 = 1 << 40;
const CODES: [Code; 4] = [Code::Io, Code::NoSpace, Code::QuotaExceeded, Code::TooManyFiles];

/// What an input has done: shows that inputs reach what they are meant for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Done {
    /// Cuts of power and killed processes, each with a recovery behind it.
    pub crashes: usize,
    /// Recoveries that were cut themselves.
    pub interrupted: usize,
    /// Lives of the log that ended with a refused write or flush.
    pub poisoned: usize,
    /// Appends, cuts and purges that were durable when the power went.
    pub acknowledged: usize,
    /// Starts by seals.
    pub by_seals: usize,
    /// Segments opened.
    pub segments: u64,
}

/// Bytes as operations on a log, with what its disk does meanwhile. Panics if something acknowledged is lost or
/// changed, a batch is there in part, or the log does not open or cannot be written on. How it is opened each time, by
/// its seals or whole, and what the superblock knows then, follows from the first byte and from what was done until then.
pub fn wal_ops_crash(input: &[u8]) -> Done {
    let mut choices = Choices::new(input);
    let flags = choices.byte();
    let options = Options { writes_in_flight: 1 + usize::from(flags & 3), seed: flags.into(), ..options() };
    let mut run = Run { rig: Rig::new(options), done: Done::default(), is_full: false };
    run.rig.disk.set_reads_past_cache(flags & 4 == 0);
    for _ in 0..OPERATIONS_MAX {
        if choices.is_done() {
            break;
        }
        run = if run.rig.disk.is_off() { run.cut_power(&mut choices) } else { run.operation(&mut choices) };
    }
    let mut run = run.cut_power(&mut choices);
    run.rig.rotate(GroupId(0));
    run.rig.rest();
    run.rig.check();
    run.count();
    run.done
}

struct Run {
    rig: Rig,
    done: Done,
    /// The disk has less room than it might.
    is_full: bool,
}

impl Run {
    fn operation(mut self, choices: &mut Choices<'_>) -> Run {
        let rig = &mut self.rig;
        match choices.below(18) {
            0..=3 => append(rig, choices),
            4 => append_over(rig, choices),
            5 => truncate(rig, choices),
            6 => purge(rig, choices),
            7 => rig.model.term = Term(rig.model.term.0 + 1),
            8 => {
                rig.settle();
                rig.learn();
            }
            9 => complete(rig, choices),
            10 => {
                rig.copy();
                rig.log.tick(1);
            }
            11 => rig.step(&mut Random::seeded(choices.byte().into())),
            12 => fail_write(rig, choices),
            13 => {
                let error = CODES[choices.below(CODES.len() as u64) as usize];
                let failure = match choices.byte() {
                    0 => Failure::Ends,
                    blocks @ 1..=16 => Failure::Partial { bytes: 512 * u64::from(blocks), error },
                    _ => Failure::Error(error),
                };
                rig.disk.fail_at(rig.disk.operations() + choices.below(16), failure);
            }
            14 => {
                let room = choices.below(4) * (32 << 10);
                rig.disk.set_capacity(rig.disk.used_bytes() + room);
                self.is_full = true;
            }
            15 => {
                rig.disk.set_capacity(CAPACITY_BYTES);
                self.is_full = false;
            }
            16 => rig.disk.crash_at(rig.disk.operations() + choices.below(64)),
            _ if choices.byte().is_multiple_of(4) => return self.kill(choices),
            _ => return self.cut_power(choices),
        }
        self.rig.take();
        self
    }

    fn cut_power(mut self, choices: &mut Choices<'_>) -> Run {
        self.count();
        crash(&self.rig, choices);
        self.reopen(choices)
    }

    fn kill(mut self, choices: &mut Choices<'_>) -> Run {
        self.count();
        self.rig.disk.kill(&mut Random::seeded(choices.byte().into()));
        self.reopen(choices)
    }

    fn count(&mut self) {
        self.done.crashes += 1;
        self.done.poisoned += usize::from(self.rig.is_poisoned);
        self.done.acknowledged += self.rig.model.acknowledged;
        self.done.segments += self.rig.log.counters().segments;
        self.done.by_seals += usize::from(self.rig.start().reading == Reading::BySeals);
    }

    /// Recovers, perhaps after recoveries that were cut, and perhaps first on a full disk.
    fn reopen(mut self, choices: &mut Choices<'_>) -> Run {
        let rig = &self.rig;
        rig.disk.clear_failures();
        for _ in 0..INTERRUPTIONS_MAX {
            if choices.byte() & 7 != 7 {
                break;
            }
            rig.disk.crash_at(rig.disk.operations() + choices.below(64));
            match rig.open() {
                Ok((.., found)) => assert!(rig.model.is_possible(&found), "{}", shown(&found)),
                Err(error) => assert!(rig.disk.is_off() || self.is_full, "{error}"),
            }
            crash(rig, choices);
            self.done.interrupted += 1;
        }
        if self.is_full && rig.open().is_err() {
            crash(rig, choices);
        }
        rig.disk.set_capacity(CAPACITY_BYTES);
        rig.disk.kill(&mut Random::seeded(0));
        Run { rig: self.rig.reopened(), done: self.done, is_full: false }
    }
}

/// The bytes say what survives.
fn crash(rig: &Rig, choices: &mut Choices<'_>) {
    // What a whole cut keeps, or each thing by itself: a fuzzer finds the extremes at once.
    let which = choices.below(4);
    rig.disk.crash_with(&mut |loose: &Loose| match which {
        0 => 0,
        1 => loose.outcomes - 1,
        _ => (choices.byte() as usize) % loose.outcomes,
    });
}

fn group(choices: &mut Choices<'_>) -> GroupId {
    GroupId(choices.below(3) as u32)
}

/// Behind the group's last entry; small, over several blocks, or so large that segments fill.
fn append(rig: &mut Rig, choices: &mut Choices<'_>) {
    let group = group(choices);
    let count = 1 + choices.below(6);
    let bytes = match choices.below(4) {
        0 => choices.below(64),
        1 => choices.below(1024),
        2 => choices.below(6000),
        _ => choices.below(20_000) / count,
    };
    rig.grow(group, count, bytes as usize);
}

/// Entries that end older ones.
fn append_over(rig: &mut Rig, choices: &mut Choices<'_>) {
    let group = group(choices);
    let state = rig.model.group(group);
    if state.entries.is_empty() {
        return;
    }
    rig.model.term = Term(rig.model.term.0 + 1);
    let keep = choices.below((state.entries.len() as u64).min(1 << 16));
    let after = Index(state.before_first.index.0 + keep);
    let entries = rig.model.entries_behind(after, 1 + choices.below(5), choices.below(700) as usize);
    rig.append(group, &entries);
}

fn truncate(rig: &mut Rig, choices: &mut Choices<'_>) {
    let group = group(choices);
    let entries = rig.model.group(group).entries;
    if let Some(entry) = entries.get(choices.below(1 << 8) as usize % entries.len().max(1)) {
        rig.truncate(group, entry.id.index);
    }
}

fn purge(rig: &mut Rig, choices: &mut Choices<'_>) {
    let group = group(choices);
    let entries = rig.model.group(group).entries;
    if let Some(entry) = entries.get(choices.below(1 << 8) as usize % entries.len().max(1)) {
        rig.purge(group, entry.id);
    }
}

/// One write of those in flight, or one segment that is to be made.
fn complete(rig: &mut Rig, choices: &mut Choices<'_>) {
    rig.pump();
    let pending = if rig.disk.is_off() { 0 } else { rig.disk.pending().len() };
    match choices.byte() {
        byte if byte & 1 == 0 && pending > 0 => rig.disk.complete(usize::from(byte >> 1) % pending),
        byte if !rig.prepares.is_empty() => rig.prepare(usize::from(byte >> 1) % rig.prepares.len()),
        _ => {}
    }
}

fn fail_write(rig: &mut Rig, choices: &mut Choices<'_>) {
    rig.pump();
    let pending = if rig.disk.is_off() { 0 } else { rig.disk.pending().len() };
    let (at, error) = (choices.byte(), CODES[choices.below(2) as usize]);
    if pending > 0 {
        rig.disk.fail(usize::from(at) % pending, error, &mut Random::seeded(at.into()));
    }
}
