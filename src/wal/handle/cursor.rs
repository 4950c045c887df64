//! A place in one group's entries from which they are read in pieces: what [`super::Iter`] and [`super::Tail`] share.

use std::sync::Arc;
use std::task::Waker;
use std::vec;

use super::error::{Ended, Error};
use super::followers::{Follower, Seen};
use super::{READ_ATTEMPTS, Shared};
use crate::types::{Entry, GroupId, Index};
use crate::wal::{self, GroupLog, Log};

/// What one read of the disk gives at most, but for an entry or a frame that is larger.
const PIECE_BYTES_MAX: usize = 1 << 20;

#[derive(Debug)]
pub(super) struct Cursor {
    shared: Arc<Shared>,
    follower: Follower,
    /// The index behind the last entry of the piece; 0 until something was read of what is to be read from the first on.
    next: Index,
    /// Read, and not yet given.
    piece: vec::IntoIter<Entry>,
}

/// One step of a cursor.
#[derive(Debug)]
pub(super) enum Step {
    Entry(Entry),
    /// Entries that the cursor has passed ended, from here on; it goes on here.
    Cut(Index),
    /// There is nothing more now. If there was a waker, it is kept.
    Nothing,
    /// There is nothing more, and never will be.
    Ended(Ended),
}

impl Cursor {
    /// At `from`, or if that is 0 at the group's first entry, as it is when it begins to read.
    pub fn new(shared: &Arc<Shared>, group: GroupId, from: Index) -> Cursor {
        let follower = shared.followers.follow(group);
        Cursor { shared: Arc::clone(shared), follower, next: from, piece: Vec::new().into_iter() }
    }

    pub fn group(&self) -> GroupId {
        self.follower.group()
    }

    /// The index of the entry that it gives next, unless that is cut off before.
    pub fn index(&self) -> Index {
        match self.next {
            Index::ZERO => self.first(&self.shared.log()),
            next => Index(next.0 - self.piece.len() as u64),
        }
    }

    fn first(&self, log: &Log) -> Index {
        log.group(self.group()).map_or(Index::FIRST, GroupLog::first)
    }

    /// Goes on at `index`, which lies before what it has given; at the first entry if that is 0.
    pub fn rewind(&mut self, index: Index) {
        self.next = index;
        self.piece = Vec::new().into_iter();
    }

    /// Reads the disk if what it has read before is used up.
    pub fn step(&mut self, waker: Option<&Waker>) -> Result<Step, Error> {
        let mut attempts = READ_ATTEMPTS;
        loop {
            if let Some(entry) = self.piece.next() {
                return Ok(Step::Entry(entry));
            }
            attempts -= 1;
            match self.read_piece(waker) {
                // Its segments are in use for something else by now: another plan says what became of them.
                Err(wal::Error::Stale { .. }) if attempts > 0 => {}
                Err(error) => return Err(Error::Log(error)),
                Ok(Some(step)) => return Ok(step),
                Ok(None) => {}
            }
        }
    }

    /// Reads on; what there is instead of entries is the answer.
    fn read_piece(&mut self, waker: Option<&Waker>) -> Result<Option<Step>, wal::Error> {
        let group = self.group();
        // Outlives the lock: a waker may do anything when it is cloned and when it is dropped.
        let mut waker = waker.cloned();
        // What is seen holds for the plan: nothing becomes durable, and nothing is cut, between the two.
        let log = self.shared.log();
        let wanted = if self.next == Index::ZERO { self.first(&log) } else { self.next };
        let seen = match self.follower.look(wanted, &mut waker) {
            // Who has not begun has passed nothing.
            Seen::Cut(_) if self.next == Index::ZERO => self.follower.look(wanted, &mut waker),
            seen => seen,
        };
        let last = match seen {
            Seen::UpTo(last) => last,
            Seen::Cut(from) => {
                self.next = from;
                return Ok(Some(Step::Cut(from)));
            }
            Seen::Nothing => return Ok(Some(Step::Nothing)),
            Seen::Ended(ended) => return Ok(Some(Step::Ended(ended))),
        };
        // Before the plan: what it knows of a segment the plan then knows, too.
        let mut buffer = self.shared.take_read_buffer(group, wanted);
        let plan = log.plan_read(group, wanted, last.next(), PIECE_BYTES_MAX);
        drop(log);
        let said = self.shared.run(&plan, &mut buffer);
        self.shared.give_read_buffer(buffer);
        let entries = said?;
        let read_last = entries.last().expect("what is seen is in the plan, whose run gives it or says why not");
        self.next = read_last.id.index.next();
        self.piece = entries.into_iter();
        Ok(None)
    }

    pub fn stop_waiting(&self) {
        self.follower.stop_waiting();
    }
}
