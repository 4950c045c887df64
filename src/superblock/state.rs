//! What the superblock holds, and what can be wrong with it.

use std::collections::BTreeMap;

use super::block::FORMAT_VERSION;
use super::recovery::{Condition, Conditions};
use crate::disk::{self, Chosen, SyncMode};
use crate::limits::{GROUPS_MAX, LIVES_MET_MAX, WRITES_IN_FLIGHT_DEFAULT, WRITES_IN_FLIGHT_MAX};
use crate::types::{ClusterId, GroupId, HardState, Incarnation, Index, LogId, Membership, NodeId, Place};

/// All that the superblock holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct State {
    pub cluster: ClusterId,
    pub node: NodeId,
    pub incarnation: Incarnation,
    /// How often the node was started: 0 in a fresh directory, raised by [`super::load`]. Peers refuse a lower one
    /// than the highest they met.
    pub boot: u64,
    /// How a write is flushed here, by [`SyncMode::number`]: measured when the directory was made.
    /// 0 = not measured.
    pub sync_mode: u8,
    /// Writes of the log in flight at once, as measured. 0 = not measured.
    pub writes_in_flight: u8,
    /// With whom the cluster began; empty on a node that joined later. Never changes.
    pub first_membership: Membership,
    /// At most [`GROUPS_MAX`]. Groups come and never go.
    pub groups: BTreeMap<GroupId, Group>,
    /// A place in the log up to which everything is durable: evidence for the log's recovery that damage before it
    /// is damage and no torn write. May lag.
    pub durable_end: Place,
    /// The other nodes that were heard, at most [`LIVES_MET_MAX`]: each in the life that was heard last. Durable before
    /// anything counts that this life says in this start of it.
    pub met: BTreeMap<NodeId, Met>,
}

/// Another node, as it was met last.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Met {
    pub incarnation: Incarnation,
    /// The highest boot number of this life. One below it is that of an older copy of its directory.
    pub boot: u64,
    /// This life was found to have lost what it had acknowledged: nothing that it says counts, for ever.
    pub has_lost: bool,
}

/// One group's part of the superblock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Group {
    /// Durable before a vote is spoken, and before an entry of its term is written.
    pub hard_state: HardState,
    /// The point of the newest durable snapshot, or [`LogId::ZERO`].
    pub snapshot: LogId,
    /// The first index of the log that goes with the snapshot.
    pub log_start: Index,
}

/// Why there is no superblock to work with.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("there is no superblock here: the directory was never made a node's (`trilith init`)")]
    NotFormatted,
    #[error("there is a superblock already: this directory belongs to a node")]
    AlreadyFormatted,
    #[error(
        "the superblock is damaged ({blocks}): what this node has promised is not known any more, and it has no \
         voice. Keep the directory; do not make it anew under the same id, for it would vote twice"
    )]
    Damaged {
        blocks: Conditions,
        /// The first read error, if one is among the causes.
        #[source]
        read_error: Option<disk::Error>,
    },
    #[error(
        "the superblock has format {found}, and this program knows formats up to {FORMAT_VERSION}: use a newer one"
    )]
    NewerFormat { found: u32 },
    #[error("this directory belongs to cluster {found}, not {expected}: check the configuration")]
    WrongCluster { expected: ClusterId, found: ClusterId },
    #[error("this directory belongs to node {found}, not {expected}: check the configuration")]
    WrongNode { expected: NodeId, found: NodeId },
    #[error(transparent)]
    Disk(#[from] disk::Error),
}

impl State {
    /// Whether this node was made with the cluster, and not for one that existed.
    pub fn is_first_member(&self) -> bool {
        self.first_membership.member(self.node).is_some()
    }

    /// The state of a directory that was just made.
    pub fn new(cluster: ClusterId, node: NodeId, incarnation: Incarnation, first_membership: Membership) -> State {
        State {
            cluster,
            node,
            incarnation,
            boot: 0,
            sync_mode: 0,
            writes_in_flight: 0,
            first_membership,
            groups: BTreeMap::new(),
            durable_end: Place::START,
            met: BTreeMap::new(),
        }
    }

    /// Takes over what was measured.
    pub fn remember(&mut self, chosen: &Chosen) {
        self.sync_mode = chosen.sync_mode.number();
        assert!((1..=WRITES_IN_FLIGHT_MAX).contains(&chosen.writes_in_flight), "it is chosen within its bounds");
        self.writes_in_flight = chosen.writes_in_flight as u8;
    }

    /// What is remembered; what was never measured is flushed in the way that every disk knows.
    pub fn sync_mode(&self) -> SyncMode {
        SyncMode::of_number(self.sync_mode)
    }

    /// What is remembered, or the default.
    pub fn writes_in_flight(&self) -> usize {
        let remembered = usize::from(self.writes_in_flight);
        if (1..=WRITES_IN_FLIGHT_MAX).contains(&remembered) { remembered } else { WRITES_IN_FLIGHT_DEFAULT }
    }

    /// Is this the directory that the configuration means? A cluster that is not known yet is not compared.
    pub fn check(&self, cluster: Option<ClusterId>, node: NodeId) -> Result<(), Error> {
        if let Some(expected) = cluster.filter(|&cluster| cluster != self.cluster) {
            return Err(Error::WrongCluster { expected, found: self.cluster });
        }
        if node != self.node {
            return Err(Error::WrongNode { expected: node, found: self.node });
        }
        Ok(())
    }

    /// A group's part; that of a group never heard of is the default.
    pub fn group(&self, group: GroupId) -> Group {
        self.groups.get(&group).copied().unwrap_or_default()
    }

    /// A group's part, to be changed; made if need be.
    pub fn group_mut(&mut self, group: GroupId) -> &mut Group {
        self.groups.entry(group).or_default()
    }

    pub(super) fn same_identity(&self, other: &State) -> bool {
        (self.cluster, self.node, self.incarnation) == (other.cluster, other.node, other.incarnation)
    }

    /// Panics unless this may come after `old`: to save anything else would be our bug, and would break a promise.
    pub(super) fn assert_follows(&self, old: &State) {
        assert!(self.same_identity(old), "the identity of a superblock never changes");
        assert!(self.first_membership == old.first_membership, "the first membership never changes");
        assert!(self.boot >= old.boot, "boot number {} falls to {}", old.boot, self.boot);
        assert!(self.durable_end >= old.durable_end, "durable end {} falls to {}", old.durable_end, self.durable_end);
        assert!(self.groups.len() <= GROUPS_MAX, "{} groups are more than a superblock holds", self.groups.len());
        assert!(self.met.len() <= LIVES_MET_MAX, "{} nodes are more than a superblock holds", self.met.len());
        for (node, old) in &old.met {
            let Some(new) = self.met.get(node).filter(|new| new.incarnation == old.incarnation) else { continue };
            assert!(new.boot >= old.boot, "node {node} was met at boot {}, which falls to {}", old.boot, new.boot);
            assert!(new.has_lost || !old.has_lost, "node {node} has lost what it had acknowledged, for good");
        }
        for (group, old) in &old.groups {
            let new = self.groups.get(group).expect("asserted: a group never goes").hard_state;
            let old = old.hard_state;
            assert!(new.term >= old.term, "group {group}: term {} falls to {}", old.term, new.term);
            let vote_stands = old.vote.is_none() || new.vote == old.vote;
            assert!(new.term > old.term || vote_stands, "group {group}: the vote of term {} changes", old.term);
        }
    }
}

impl Default for Group {
    /// Before the first election, with an empty log.
    fn default() -> Group {
        Group { hard_state: HardState::default(), snapshot: LogId::ZERO, log_start: Index::FIRST }
    }
}

impl Error {
    /// Some blocks could not be read, as opposed to: were read and are not what was written.
    pub fn has_read_error(&self) -> bool {
        matches!(self, Error::Damaged { blocks, .. } if blocks.0.contains(&Condition::Unreadable))
    }
}
