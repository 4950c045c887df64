//! The names of snapshots' directories, and what an ending means.

use std::fmt;

use crate::types::{GroupId, Index, LogId, Term};

/// The file with the state, in each of them.
pub(super) const CHUNKS: &str = "chunks";
/// The file that says what the chunks are.
pub(super) const MANIFEST: &str = "manifest";

/// All names begin so.
pub(super) const PREFIX: &str = "snapshot-";

/// How far a directory is: what its name ends with.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Stage {
    /// No ending: all of it was flushed before it got its name.
    Whole,
    /// This node is making it, or was when its power went.
    Making,
    /// It comes, or came, from another node.
    Receiving,
    /// It is going.
    Removing,
}

/// Which snapshot, and how far.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Name {
    pub group: GroupId,
    pub point: LogId,
    pub stage: Stage,
}

impl Name {
    pub fn new(group: GroupId, point: LogId, stage: Stage) -> Name {
        Name { group, point, stage }
    }

    pub fn with(self, stage: Stage) -> Name {
        Name { stage, ..self }
    }

    /// The one that this name stands for, if it is one that we give.
    pub fn parse(name: &str) -> Option<Name> {
        let stages = [Stage::Making, Stage::Receiving, Stage::Removing];
        let ended = |stage: &Stage| name.strip_suffix(stage.ending()).map(|rest| (rest, *stage));
        let (rest, stage) = stages.iter().find_map(ended).unwrap_or((name, Stage::Whole));
        let mut numbers = rest.strip_prefix(PREFIX)?.split('-').map(|part| part.parse::<u64>().ok());
        let (group, index, term) = (numbers.next()??, numbers.next()??, numbers.next()??);
        let point = LogId::new(Term(term), Index(index));
        let parsed = Name::new(GroupId(u32::try_from(group).ok()?), point, stage);
        // One snapshot has one name: no sign, no other number of digits, nothing behind.
        (parsed.to_string() == name).then_some(parsed)
    }

    pub fn file(self, file: &str) -> String {
        format!("{self}/{file}")
    }
}

impl fmt::Display for Name {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (group, index, term, ending) = (self.group.0, self.point.index.0, self.point.term.0, self.stage.ending());
        write!(formatter, "{PREFIX}{group:010}-{index:020}-{term:020}{ending}")
    }
}

impl Stage {
    fn ending(self) -> &'static str {
        match self {
            Stage::Whole => "",
            Stage::Making => ".making",
            Stage::Receiving => ".receiving",
            Stage::Removing => ".removing",
        }
    }
}
