//! Saving while the node runs: writes out, completions in, no I/O of its own.

use super::block::{Copy, PAIR_BYTES, Pair};
use super::state::State;
use crate::disk::{self, Buffer, Completion, FileId, Token, Write};

/// Numbers the saves of one life of the process; 0 is what [`super::load`] found and made durable.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct SaveNumber(pub u64);

/// Keeps the superblock's state, and gets it to the disk: pair A with its flush, then pair B with its flush.
///
/// ```text
///   Idle ──take_write: A──▶ WritingA ──handle──▶ HalfDone ──take_write: B──▶ WritingB ──handle──▶ Idle, durable
///    any error ──▶ Poisoned
/// ```
#[derive(Debug)]
pub struct Writer {
    file: FileId,
    /// The newest state, saved or about to be.
    state: State,
    /// The newest save, which made `state` what it is.
    saved: SaveNumber,
    /// Up to this save all is in both pairs. At most `saved`.
    durable: SaveNumber,
    /// What was written last, or is being written. Its number rises with each write of both pairs.
    copy: Copy,
    /// The save that `copy` holds: between `durable` and `saved`.
    copied: SaveNumber,
    phase: Phase,
    /// The next write's token; never given twice.
    next_token: u64,
    /// Back from the last write, for the next.
    spare: Option<Buffer>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Idle,
    Writing {
        pair: Pair,
        token: Token,
    },
    /// Pair A is durable, pair B has not been given out.
    HalfDone,
    /// A write failed: what the disk holds is not known, and nothing is written any more.
    Poisoned,
}

impl Writer {
    /// A writer of a file in which both pairs hold `copy`, durably.
    pub(super) fn new(file: FileId, copy: Copy, token_base: u64) -> Writer {
        Writer {
            file,
            state: copy.state.clone(),
            saved: SaveNumber(0),
            durable: SaveNumber(0),
            copy,
            copied: SaveNumber(0),
            phase: Phase::Idle,
            next_token: token_base,
            spare: None,
        }
    }

    /// The newest state, durable or not.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Changes the state. What depends on it may be spoken once [`Writer::durable`] has reached the number given
    /// back. A change that changes nothing is the save before it. Panics if the change breaks a promise.
    pub fn save(&mut self, change: impl FnOnce(&mut State)) -> SaveNumber {
        let mut state = self.state.clone();
        change(&mut state);
        if state != self.state {
            state.assert_follows(&self.state);
            self.state = state;
            self.saved = SaveNumber(self.saved.0 + 1);
        }
        self.saved
    }

    /// Up to and including this save all is on disk, in both pairs.
    pub fn durable(&self) -> SaveNumber {
        self.durable
    }

    /// Neither is anything to be written, nor is anything in flight.
    pub fn is_idle(&self) -> bool {
        self.phase == Phase::Idle && self.durable == self.saved
    }

    /// A write has failed; there will be no more.
    pub fn is_poisoned(&self) -> bool {
        self.phase == Phase::Poisoned
    }

    /// The next write, if one can be made now. To be called after [`Writer::save`] and after [`Writer::handle`].
    pub fn take_write(&mut self) -> Option<Write> {
        match self.phase {
            Phase::Idle if self.durable < self.saved => {
                self.copy = Copy { number: self.copy.number.plus(1), state: self.state.clone() };
                self.copied = self.saved;
                Some(self.write(Pair::A))
            }
            Phase::HalfDone => Some(self.write(Pair::B)),
            Phase::Idle | Phase::Writing { .. } | Phase::Poisoned => None,
        }
    }

    /// Takes the completion of the write that was given out last. An error is final: see [`disk`].
    pub fn handle(&mut self, completion: Completion) -> Result<(), disk::Error> {
        let Phase::Writing { pair, token } = self.phase else {
            panic!("no write of the superblock is in flight: {completion:?}");
        };
        assert!(completion.token == token, "{completion:?} is not the write in flight, {token:?}");
        if let Err(error) = completion.result {
            self.phase = Phase::Poisoned;
            return Err(error);
        }
        self.spare = Some(completion.buffer);
        match pair {
            Pair::A => self.phase = Phase::HalfDone,
            Pair::B => {
                self.phase = Phase::Idle;
                self.durable = self.copied;
            }
        }
        Ok(())
    }

    fn write(&mut self, pair: Pair) -> Write {
        let token = Token(self.next_token);
        self.next_token += 1;
        self.phase = Phase::Writing { pair, token };
        let mut buffer = self.spare.take().unwrap_or_else(|| Buffer::with_capacity(PAIR_BYTES));
        buffer.clear();
        pair.encode_into(&mut buffer, &self.copy);
        Write { token, file: self.file, offset: pair.offset(), buffer }
    }
}
