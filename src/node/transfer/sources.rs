//! Which nodes are asked, and for what.

use std::collections::BTreeSet;
use std::fmt;

use crate::net::SnapshotRefusal;
use crate::snapshot::Manifest;
use crate::types::{ClusterId, GroupId, LogId, NodeId};

/// The nodes that may have a snapshot, in the order in which they are asked.
#[derive(Debug)]
pub struct Sources {
    pub all: Vec<Source>,
    /// Who leads. Once it has no such snapshot it keeps nothing of the log for who fetches it.
    pub leader: Option<NodeId>,
}

/// One of them.
#[derive(Debug)]
pub struct Source {
    pub node: NodeId,
    /// It is not asked for anything any more.
    pub unfit: Option<Unfit>,
    /// Chunks that it does not have as they were written.
    pub damaged: BTreeSet<u32>,
    /// In this round it has said that it has it, or nothing against that.
    pub is_reached: bool,
}

/// Each node that was asked, and what keeps it from giving what was asked for.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Asked(pub Vec<(NodeId, Unfit)>);

/// Why a node is not asked any more.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Unfit {
    /// It has no whole snapshot at the point.
    NotHere,
    /// Its manifest is not the one that the first node gave.
    Another,
    /// Its manifest is none, or not of the point, or not of the cluster.
    Manifest(String),
    /// This chunk, and perhaps others, is damaged there, or came so.
    Damaged { number: u32 },
}

impl Sources {
    /// Each once.
    pub fn new(nodes: impl IntoIterator<Item = NodeId>) -> Sources {
        let mut all: Vec<Source> = Vec::new();
        for node in nodes {
            if all.iter().all(|source| source.node != node) {
                all.push(Source { node, unfit: None, damaged: BTreeSet::new(), is_reached: false });
            }
        }
        Sources { all, leader: None }
    }

    /// The same, of which this one leads.
    pub fn led_by(self, leader: NodeId) -> Sources {
        Sources { leader: Some(leader), ..self }
    }

    /// All of them are asked anew.
    pub fn begin_round(&mut self) {
        self.all.iter_mut().for_each(|source| source.is_reached = false);
    }

    /// Whether nobody is waited for, at the end of a round: the leader has no such snapshot, offers another one, and none of
    /// those who are reached has it.
    pub fn is_given_up(&self) -> bool {
        let lacks = |source: &Source| Some(source.node) == self.leader && source.unfit == Some(Unfit::NotHere);
        let may_have = |source: &Source| source.unfit.is_none() && (source.is_reached || !source.damaged.is_empty());
        self.all.iter().any(lacks) && !self.all.iter().any(may_have)
    }

    /// Whether the leader has shown that it has not all of it as it was written: then whoever might is waited for once, and not
    /// again and again, since the leader offers what it has.
    pub fn is_left_by_leader(&self) -> bool {
        let lacks = |source: &Source| source.unfit.is_some() || !source.damaged.is_empty();
        self.all.iter().any(|source| Some(source.node) == self.leader && lacks(source))
    }

    /// Whether nobody is left to be asked, `missing` being the chunks that are wanted.
    pub fn is_exhausted(&self, mut missing: impl Iterator<Item = u32>) -> bool {
        let mut fit = self.all.iter().filter(|source| source.unfit.is_none()).peekable();
        if fit.peek().is_none() {
            return true;
        }
        let fit: Vec<&Source> = fit.collect();
        missing.any(|number| fit.iter().all(|source| source.damaged.contains(&number)))
    }

    /// What keeps each from being asked.
    pub fn asked(&self) -> Asked {
        let why = |source: &Source| {
            let damaged = || source.damaged.first().map(|number| Unfit::Damaged { number: *number });
            Some((source.node, source.unfit.clone().or_else(damaged)?))
        };
        Asked(self.all.iter().filter_map(why).collect())
    }
}

impl Source {
    /// Whether it may have this chunk.
    pub fn has(&self, number: u32) -> bool {
        self.unfit.is_none() && !self.damaged.contains(&number)
    }

    /// The manifest that it has sent, if that is one of the snapshot that is wanted; else it is unfit.
    pub fn judge(&mut self, bytes: &[u8], cluster: ClusterId, group: GroupId, point: LogId) -> Option<Manifest> {
        let why = match Manifest::decode("on its way", bytes) {
            Err(error) => error.to_string(),
            Ok(found) if (found.description.group, found.description.point) != (group, point) => {
                format!("it is that of {}", found.description.name())
            }
            Ok(found) if found.description.cluster != cluster => {
                format!("it is of cluster {}", found.description.cluster)
            }
            Ok(found) => {
                self.is_reached = true;
                return Some(found);
            }
        };
        self.unfit = Some(Unfit::Manifest(why));
        None
    }

    /// Whether this answers the question for its manifest, or for this chunk of it: then it is not asked for that again.
    pub fn is_refusal(&mut self, refusal: SnapshotRefusal, number: Option<u32>) -> bool {
        match refusal {
            SnapshotRefusal::NotHere => self.unfit = Some(Unfit::NotHere),
            SnapshotRefusal::Damaged { number: found } if Some(found) == number => drop(self.damaged.insert(found)),
            SnapshotRefusal::Damaged { .. } => return false,
            SnapshotRefusal::Busy => {
                self.is_reached = true;
                return false;
            }
        }
        true
    }
}

impl fmt::Display for Asked {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (node, unfit)) in self.0.iter().enumerate() {
            let gap = if place > 0 { "; " } else { "" };
            write!(formatter, "{gap}node {node} {unfit}")?;
        }
        if self.0.is_empty() { formatter.write_str("there is none to be asked") } else { Ok(()) }
    }
}

impl fmt::Display for Unfit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unfit::NotHere => formatter.write_str("has none that is whole"),
            Unfit::Another => formatter.write_str("has another state at that point"),
            Unfit::Manifest(why) => write!(formatter, "sent a manifest that is none of it: {why}"),
            Unfit::Damaged { number } => write!(formatter, "has chunk {number} damaged"),
        }
    }
}
