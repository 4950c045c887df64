//! A group's durable entries, one after the other.

use std::iter::FusedIterator;
use std::marker::PhantomData;
use std::sync::Arc;

use super::cursor::{Cursor, Step};
use super::error::Error;
use super::{Shared, Wal};
use crate::types::{Entry, GroupId, Index};

/// The entries of a group from an index on, up to the one that is the last durable one when it is reached. Made by
/// [`Wal::iter`].
///
/// It reads the disk as it goes, on the thread that asks, about 1 MiB at a time; it holds no more than that, or than
/// one frame. It ends after the first error, and once it has ended it stays so.
///
/// Entries come by rising index, without gaps, and are of one history. If a suffix is truncated or replaced while it
/// runs, and entries that it gave are among it, the next entry is not given: the error is [`Error::Truncated`]. (What
/// it had read by then comes first, as it was.) Whoever wants to go on over that takes a [`super::Tail`].
#[derive(Debug)]
pub struct Iter<'w> {
    from: Index,
    has_given: bool,
    /// None once it has ended.
    cursor: Option<Cursor>,
    /// The log stays open meanwhile.
    wal: PhantomData<&'w Wal>,
}

impl Iter<'_> {
    pub(super) fn new(shared: &Arc<Shared>, group: GroupId, from: Index) -> Iter<'static> {
        Iter { from, has_given: false, cursor: Some(Cursor::new(shared, group, from)), wal: PhantomData }
    }
}

impl Iterator for Iter<'_> {
    type Item = Result<Entry, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let cursor = self.cursor.as_mut()?;
        let group = cursor.group();
        let said = loop {
            match cursor.step(None) {
                Ok(Step::Entry(entry)) => {
                    self.has_given = true;
                    return Some(Ok(entry));
                }
                // Nothing that it gave has ended.
                Ok(Step::Cut(_)) if !self.has_given => cursor.rewind(self.from),
                Ok(Step::Cut(from)) => break Some(Err(Error::Truncated { group, from })),
                Ok(Step::Nothing | Step::Ended(_)) => break None,
                Err(error) => break Some(Err(error)),
            }
        };
        self.cursor = None;
        said
    }
}

impl FusedIterator for Iter<'_> {}
