//! The superblock beside the log, on the same disk: votes are saved, and none that was spoken is forgotten.

use super::rig::identity;
use crate::disk::Queue;
use crate::random::Random;
use crate::sim::disk::{Code, Failure, SimDisk, SimQueue};
use crate::sim::proofs::{Proof, Scale};
use crate::superblock::{self, FILE_NAME, SaveNumber, State, Writer};
use crate::types::{GroupId, HardState, LogId, Membership, NodeId, Place, Term};

const TOKENS: u64 = 1 << 62;
const FILE_BYTES: u64 = 16 << 10;

pub struct Voter {
    writer: Writer,
    queue: SimQueue,
    /// The term that was loaded; each save adds one.
    loaded: Term,
    asked: SaveNumber,
    /// Where the log was durable when it was told of that last.
    known: Place,
    /// Points of snapshots that were to take the place of the log up to them.
    pub installs: Vec<LogId>,
}

pub fn format(disk: &SimDisk) {
    let own = identity();
    let state = State::new(own.cluster, own.node, own.incarnation, Membership::default());
    superblock::format(&disk.files(), &state).expect("the disk is well, and holds none");
}

fn term(state: &State) -> Term {
    state.group(GroupId::CLUSTER).hard_state.term
}

impl Voter {
    pub fn new(disk: &SimDisk) -> Voter {
        format(disk);
        Voter::load(disk).expect("it was just made")
    }

    pub fn load(disk: &SimDisk) -> Result<Voter, superblock::Error> {
        let loaded = superblock::load(&disk.files(), TOKENS)?;
        let term = term(&loaded.state);
        let (writer, known) = (loaded.writer, loaded.state.durable_end);
        Ok(Voter { writer, queue: disk.queue(), loaded: term, asked: SaveNumber(0), known, installs: Vec::new() })
    }

    pub fn save(&mut self) {
        self.save_with(Place::START);
    }

    /// A vote, and where the log was durable when it was given.
    pub fn save_with(&mut self, durable_end: Place) {
        let term = Term(self.loaded.0 + self.asked.0 + 1);
        self.asked = self.writer.save(|state| {
            state.group_mut(GroupId::CLUSTER).hard_state = HardState { term, vote: Some(NodeId(2)) };
            state.durable_end = state.durable_end.max(durable_end);
        });
        self.pump();
    }

    /// As whoever has the log open does: saves where the log is durable if that is in another segment than it was, and
    /// sees that through.
    pub fn follow(&mut self, disk: &SimDisk, durable_end: Place) {
        if durable_end.segment == self.known.segment {
            return;
        }
        self.known = durable_end;
        self.save_with(durable_end);
        self.see_through(disk);
    }

    /// A snapshot at this point stands in the place of the log up to it. Tells whether that is durable.
    pub fn install(&mut self, disk: &SimDisk, point: LogId) -> bool {
        let term = Term(self.loaded.0 + self.asked.0 + 1);
        self.asked = self.writer.save(|state| {
            let group = state.group_mut(GroupId::CLUSTER);
            group.hard_state = HardState { term, vote: None };
            (group.snapshot, group.log_start) = (point, point.index.next());
        });
        self.installs.push(point);
        self.pump();
        self.see_through(disk);
        self.is_durable()
    }

    /// Until what was asked for is saved, or the power goes.
    fn see_through(&mut self, disk: &SimDisk) {
        while !self.is_durable() && !disk.is_off() {
            let of_ours = disk.pending().iter().position(|write| write.token.0 >= TOKENS);
            disk.complete(of_ours.expect("a save that is not durable is on its way"));
            self.take();
        }
    }

    pub fn pump(&mut self) {
        while let Some(write) = self.writer.take_write() {
            self.queue.submit(write);
        }
    }

    /// Takes what has completed, and goes on.
    pub fn take(&mut self) {
        while let Some(completion) = self.queue.take() {
            let failed = self.writer.handle(completion).is_err();
            assert_eq!(failed, self.writer.is_poisoned());
        }
        self.pump();
    }

    /// Until all is saved, if the disk lets it.
    pub fn settle(&mut self, disk: &SimDisk) {
        for _ in 0..6 {
            disk.complete_all();
            self.take();
        }
    }

    pub fn is_durable(&self) -> bool {
        self.writer.durable() == self.asked
    }

    /// What is on the disk afterwards is what was spoken, or what was about to be. Gives what it says of the log.
    pub fn check(&self, disk: &SimDisk, what: &dyn Fn() -> String) -> Place {
        let loaded = superblock::load(&disk.files(), TOKENS);
        let state = loaded.unwrap_or_else(|error| panic!("{}: {error}", what())).state;
        let found = term(&state).0;
        let (spoken, asked) = (self.loaded.0 + self.writer.durable().0, self.loaded.0 + self.asked.0);
        assert!((spoken..=asked).contains(&found), "{}: term {found} of {spoken} to {asked}", what());
        state.durable_end
    }
}

/// A superblock at rest, the bytes that it had one save ago, and its term.
fn saved() -> (SimDisk, Vec<u8>, Term) {
    let disk = SimDisk::new();
    let mut voter = Voter::new(&disk);
    voter.save();
    voter.settle(&disk);
    let before = disk.contents(FILE_NAME);
    voter.save();
    voter.settle(&disk);
    disk.crash_to(&vec![0; disk.loose().len()]);
    (disk, before, Term(2))
}

/// Damage of one block: it is found, and the vote is known all the same.
fn is_found_and_harmless(disk: &SimDisk, expected: Term, what: &dyn Fn() -> String) {
    let found = superblock::inspect(&disk.files()).unwrap_or_else(|error| panic!("{}: {error}", what()));
    let blocks = found.found.0;
    assert!(!found.found.are_intact() || blocks.iter().any(|block| *block != blocks[0]), "{} is not found", what());
    assert_eq!(term(&found.state), expected, "{}", what());
    let loaded = superblock::load(&disk.files(), TOKENS).unwrap_or_else(|error| panic!("{}: {error}", what()));
    assert_eq!(term(&loaded.state), expected, "{}", what());
}

/// D4: each bit of the file.
pub fn flipped_bits(proof: &Proof) {
    let (stride, (disk, _, expected)) = (proof.pick(509, 31, 1), saved());
    let bytes = disk.contents(FILE_NAME);
    drop(disk);
    proof.spread(FILE_BYTES / 64, |piece| {
        let disk = SimDisk::new();
        disk.plant(FILE_NAME, &bytes);
        for bit in (piece * 512..(piece + 1) * 512).filter(|bit| bit % stride == 0) {
            let fork = disk.fork();
            fork.flip_bit(FILE_NAME, bit / 8, (bit % 8) as u32);
            is_found_and_harmless(&fork, expected, &|| format!("superblock bit {bit}"));
            proof.case();
        }
    });
}

/// D4: each block of both sizes zeroed, all ones, junk, and as it was one save ago.
pub fn damaged_blocks(proof: &Proof) {
    let (disk, before, expected) = saved();
    let now = disk.contents(FILE_NAME);
    let mut random = Random::seeded(8);
    let mut changed = 0;
    for size in [512, 4096] {
        for start in (0..FILE_BYTES).step_by(size) {
            let range = start as usize..start as usize + size;
            for kind in 0..4 {
                let mut bytes = now.clone();
                match kind {
                    0 => bytes[range.clone()].fill(0),
                    1 => bytes[range.clone()].fill(0xff),
                    2 => random.fill(&mut bytes[range.clone()]),
                    _ => bytes[range.clone()].copy_from_slice(&before[range.clone()]),
                }
                if bytes == now {
                    continue;
                }
                let fork = disk.fork();
                fork.plant(FILE_NAME, &bytes);
                is_found_and_harmless(&fork, expected, &|| format!("superblock {range:?} kind {kind}"));
                proof.case();
                changed += 1;
            }
        }
    }
    assert!(changed > 90, "{changed}");
    // With a damaged block in each pair nobody can say what was spoken.
    for (left, right) in [(0, 8192), (4096, 12_288), (0, 12_288)] {
        let fork = disk.fork();
        fork.flip_bit(FILE_NAME, left + 40, 1);
        fork.flip_bit(FILE_NAME, right + 40, 1);
        assert!(matches!(superblock::load(&fork.files(), TOKENS), Err(superblock::Error::Damaged { .. })));
        assert_eq!(fork.contents(FILE_NAME)[..40], now[..40], "nothing is changed");
        proof.case();
    }
}

/// D9: each of the two writes of a save fails once, with each number of sectors on their way; what is then on the disk
/// is old, new or mixed.
pub fn a_flush_fails_once(proof: &Proof) {
    let (disk, ..) = saved();
    let samples = if proof.scale == Scale::Share { 32 } else { 256 };
    for failing in 0..2 {
        for sectors in 0..=16 {
            let disk = disk.fork();
            let mut voter = Voter::load(&disk).expect("it is intact");
            let partial = Failure::Partial { bytes: 512 * sectors, error: Code::Io };
            disk.fail_at(disk.operations() + failing, partial);
            voter.save();
            voter.settle(&disk);
            assert!(voter.writer.is_poisoned() && !voter.is_durable(), "{failing} {sectors}");
            let operations = disk.operations();
            voter.save();
            voter.settle(&disk);
            assert_eq!(disk.operations(), operations, "nothing is written after an error");
            for seed in 0..samples {
                let fork = disk.fork();
                fork.crash(&mut Random::seeded(seed));
                voter.check(&fork, &|| format!("write {failing} fails after {sectors} sectors, seed {seed}"));
                proof.case();
            }
        }
    }
}
