//! Life after life of one log: load, a cut of power, and what must be there then.

use std::path::Path;
use std::process::Command;

use trilith::random::Random;

use super::ground::Ground;
use super::life::{Life, Told};
use super::load::{GROUPS, Model, step};
use super::process::Task;
use crate::processes::PROGRAM;

/// So many calls are acknowledged, at most, before the power goes.
const LOAD_MAX: u64 = 1500;
/// Lives in a row that only open the log, so that what a recovery leaves is recovered again: one in so many.
const IDLE: u64 = 6;
/// `trilith wal verify`: nothing is wrong, or what was being written was cut off.
const SOUND: [i32; 2] = [0, 11];

/// What was seen over all lives.
#[derive(Default, Debug)]
pub struct Seen {
    pub cuts: u64,
    pub acknowledged: u64,
    /// Calls that were made and not acknowledged: found in the log, and not.
    pub unacknowledged_found: u64,
    pub unacknowledged_absent: u64,
    /// The power went while the log was opened, or before it had told what it holds.
    pub cut_in_recovery: u64,
    pub idle: u64,
    pub torn: u64,
    /// Entries read and compared.
    pub entries_read: u64,
}

/// What is known of a log.
pub struct Trial<G: Ground> {
    pub ground: G,
    pub seen: Seen,
    io: &'static str,
    /// See [`Task`].
    pub sync: &'static str,
    seed: u64,
    /// What each group held when the log was last looked at whole.
    known: [Model; GROUPS],
    /// The numbers of the calls made since: from, to, and what was acknowledged.
    first: [u64; GROUPS],
    given: [u64; GROUPS],
    durable: [u64; GROUPS],
    /// A log was made, so there must be one.
    is_made: bool,
}

impl<G: Ground> Trial<G> {
    pub fn new(ground: G, io: &'static str, seed: u64) -> Trial<G> {
        let (known, zero) = (std::array::from_fn(|_| Model::default()), [0; GROUPS]);
        let seen = Seen::default();
        Trial { ground, seen, io, sync: "auto", seed, known, first: zero, given: zero, durable: zero, is_made: false }
    }

    /// A life that ends with a cut.
    pub fn live(&mut self, cut: u64) {
        self.verify();
        let mut random = Random::seeded(self.seed ^ cut);
        let is_busy = random.below(IDLE) > 0;
        let load = random.between(1, LOAD_MAX);
        self.ground.on_until_cut(cut, self.is_made);
        let mut life = self.start(is_busy);
        let ground = &self.ground;
        life.wait("cut, answer or end", |told| {
            let is_enough = if is_busy { told.acknowledged >= load } else { told.is_whole };
            ground.is_off() || is_enough || told.failed.is_some() || told.refused.is_some()
        });
        // In this order: whoever complains of a cut does so after it.
        let strange = life.strange();
        let went_by_itself = self.ground.is_off();
        self.ground.cut();
        let told = life.kill();
        self.ground.lose(cut);
        assert!(went_by_itself || strange.is_none(), "cut {cut}, with the power on: {strange:?}");
        self.seen.cuts += 1;
        self.seen.idle += u64::from(!is_busy);
        self.seen.cut_in_recovery += u64::from(told.is_opening && !told.is_whole);
        self.take(told);
    }

    /// The last look: nothing happens any more.
    pub fn look(&mut self) {
        self.verify();
        self.ground.on();
        let mut life = self.start(false);
        life.wait("answer", |told| told.is_whole || told.refused.is_some());
        let told = life.kill();
        assert!(told.is_whole, "it opens: {:?}", told.refused);
        self.take(told);
    }

    pub fn start(&self, is_busy: bool) -> Life {
        let directory = self.ground.directory().to_owned();
        Life::start(&Task { directory, io: self.io, sync: self.sync, seed: self.seed, is_busy, given: self.given })
    }

    /// What a process has told is compared with what is known, and known from now on.
    pub fn take(&mut self, told: Told) {
        let Told { opened, held, is_whole, given, durable, acknowledged, .. } = told;
        self.is_made |= opened.is_some();
        if let Some(opened) = opened {
            assert!(opened.starts_with(self.io), "{opened}");
        }
        if !is_whole {
            return;
        }
        for (group, held) in held.iter().enumerate() {
            let (before_first, entries) = held.as_ref().map_or((0, &[][..]), |(first, held)| (*first, &held[..]));
            self.seen.entries_read += entries.len() as u64;
            self.settle(
                group,
                |seed, model| model.is(seed, group, before_first, entries),
                || format!("{} entries from behind {before_first} on", entries.len()),
            );
        }
        // Its numbers go on from where the one before it came, not from where the log was found.
        self.first = self.given;
        (self.given, self.durable) = (given, durable);
        self.seen.acknowledged += acknowledged;
    }

    /// Finds after which of the group's calls the log is as it was found: after all that were acknowledged, and whole
    /// calls alone.
    fn settle(&mut self, group: usize, is_found: impl Fn(u64, &Model) -> bool, shown: impl Fn() -> String) {
        let mut model = self.known[group].clone();
        let (first, durable, given) = (self.first[group], self.durable[group], self.given[group]);
        let mut found = None;
        for number in first..=given {
            if number > first {
                let next = step(self.seed, group, number, model.before_first, model.last());
                model.take(number, &next);
            }
            if number >= durable && is_found(self.seed, &model) {
                found = Some((number, model));
                break;
            }
        }
        let Some((number, model)) = found else {
            panic!(
                "after {} cuts of seed {}: group {group} is as it was after none of its calls {durable} (the last that \
                 was acknowledged) to {given}: {}",
                self.seen.cuts,
                self.seed,
                shown(),
            );
        };
        self.seen.unacknowledged_found += number - durable;
        self.seen.unacknowledged_absent += given - number;
        self.known[group] = model;
    }

    /// As an operator looks at it before anything is mended.
    fn verify(&mut self) {
        if !self.is_made {
            return;
        }
        self.ground.on();
        let code = verify(self.ground.directory());
        self.ground.cut();
        self.ground.lose(self.seen.cuts);
        self.seen.torn += u64::from(code == SOUND[1]);
    }
}

fn verify(directory: &Path) -> i32 {
    let output = Command::new(PROGRAM).args(["wal", "verify"]).arg(directory).output().expect("the binary runs");
    let code = output.status.code().unwrap_or(-1);
    assert!(SOUND.contains(&code), "wal verify: {code}: {output:?}");
    code
}
