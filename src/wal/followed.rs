//! How far each group is durable, told to those who follow it: what changed since they were told last.
//!
//! Changes are merged: it is at most one for each group, however many frames it sums up.

use std::collections::BTreeMap;

use super::frame::Run;
use super::group::GroupLog;
use super::record::RecordKind;
use crate::types::{GroupId, Index};

/// The durable end of every group, and what moved.
#[derive(Clone, Debug, Default)]
pub struct Followed {
    /// The last durable entry of each group, or the one before its first.
    last: BTreeMap<GroupId, Index>,
    /// Not yet taken by [`Followed::take`].
    moved: BTreeMap<GroupId, Moved>,
}

/// What became of one group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Moved {
    /// The last durable entry now, or the one before the first.
    pub last: Index,
    /// Durable entries from here on ended, or were replaced: the lowest such index.
    pub cut: Option<Index>,
}

impl Followed {
    /// Everything in `groups` is durable.
    pub fn new<'g>(groups: impl Iterator<Item = &'g GroupLog>) -> Followed {
        Followed { last: groups.map(|group| (group.group, group.last.index)).collect(), moved: BTreeMap::new() }
    }

    /// How far each group is durable.
    pub fn durable(&self) -> &BTreeMap<GroupId, Index> {
        &self.last
    }

    /// A run of a frame became durable.
    pub fn note(&mut self, run: &Run) {
        let last = self.last.entry(run.group).or_default();
        let cut = (run.kind != RecordKind::Purge && run.first <= *last).then_some(run.first);
        *last = match run.kind {
            RecordKind::Entry => run.end().previous(),
            RecordKind::Truncate => (*last).min(run.first.previous()),
            RecordKind::Purge => (*last).max(run.first),
        };
        let moved = self.moved.entry(run.group).or_insert(Moved { last: *last, cut: None });
        moved.last = *last;
        moved.cut = moved.cut.into_iter().chain(cut).min();
    }

    /// What moved since this was called last.
    pub fn take(&mut self) -> BTreeMap<GroupId, Moved> {
        std::mem::take(&mut self.moved)
    }
}
