//! What a node says of itself, and what administrators may order.

use std::net::SocketAddr;

use super::{Applying, Driver};
use crate::machine::StateMachine;
use crate::net::{Change, ClientKey, NodeRole, NodeStatus, Refusal, ResponseBody};
use crate::raft::Role;
use crate::types::{Index, Member, NodeId};

impl<M: StateMachine> Driver<M> {
    pub(super) fn status(&self) -> NodeStatus {
        let status = self.replica.status();
        let membership = self.replica.membership();
        let counters = self.pipeline.log.counters();
        let is_voter = membership.is_voter(self.options.node);
        NodeStatus {
            id: self.options.node,
            incarnation: self.pipeline.superblock.state().incarnation,
            address: self.options.about.address,
            pid: self.options.about.pid,
            role: match status.role {
                Role::Leader => NodeRole::Leader,
                Role::Candidate | Role::PreCandidate => NodeRole::Candidate,
                Role::Follower if is_voter => NodeRole::Follower,
                Role::Follower => NodeRole::Learner,
            },
            term: status.hard_state.term,
            leader: self.leader_address(),
            first: self.first_readable(),
            last: status.last,
            durable: status.durable,
            commit: self.commit,
            applied: self.applied.index,
            membership: membership.clone(),
            io: self.options.about.io.clone(),
            sync_mode: self.options.about.sync_mode.clone(),
            waiting: self.waiting_for(),
            records: counters.records,
            record_bytes: counters.written_bytes,
            flushes: counters.flushes,
            sessions: self.sessions.len() as u64,
            removals_failed: counters.removals_failed,
            unremoved_segments: counters.unremoved_segments,
            snapshots: self.snapshots.status(),
        }
    }

    /// The leader, with the address at which clients find it.
    pub(super) fn leader_address(&self) -> Option<(NodeId, SocketAddr)> {
        let leader = self.replica.status().leader?;
        let member = self.replica.membership().member(leader)?;
        Some((leader, member.address))
    }

    pub(super) fn on_change(&mut self, client: ClientKey, id: u64, change: Change) {
        let body = match change {
            Change::Members(changes) => return self.on_member_changes(client, id, changes),
            Change::Transfer(to) => match self.replica.transfer(to) {
                Ok(()) => ResponseBody::Changed { index: Index::ZERO },
                Err(error) => ResponseBody::Refused(self.refusal_of(error)),
            },
            Change::Trim { first } => return self.on_trim(client, id, first),
            Change::Snapshot => return self.on_snapshot_order(client, id),
        };
        self.reply(client, id, body);
    }

    pub(super) fn refusal_while_born(&self) -> Option<Refusal> {
        let reason = self.birth()?;
        Some(Refusal::Unavailable { reason: format!("the cluster is new and waits for {reason}") })
    }

    /// What the cluster waits for before it serves anybody, while it is being born.
    pub(super) fn birth(&self) -> Option<String> {
        if !self.replica.membership().forming {
            return None;
        }
        if let Some(refusal) = self.refusal_of_this_node() {
            return Some(format!("all first members to be there once: {refusal}"));
        }
        let missing: Vec<String> = self.replica.not_met().map(|node| node.to_string()).collect();
        Some(match missing.is_empty() {
            true => "the first members to have each other's names on their disks".to_owned(),
            false => format!("all first members to be there once: not met yet: {}", missing.join(", ")),
        })
    }

    /// What others have against this node, one of them at least.
    fn refusal_of_this_node(&self) -> Option<String> {
        let (node, reason) = self.refused.first_key_value()?;
        Some(format!("node {node} refuses it: {reason}"))
    }

    /// Members that were found to have lost what they had acknowledged, and what is to be done about it.
    fn without_voice(&self) -> Option<String> {
        let met = self.lives_met();
        let has_lost = |member: &&Member| {
            met.get(&member.id).is_some_and(|met| met.has_lost && met.incarnation == member.incarnation)
        };
        let ids: Vec<String> =
            self.replica.membership().members.iter().filter(has_lost).map(|member| member.id.to_string()).collect();
        let id = ids.first()?;
        Some(format!(
            "another life of node {}, which has lost what it had acknowledged and counts for nothing: `trilith cluster \
             remove {id}`, then `trilith init --config FILE --join` on its machine",
            ids.join(" and of node ")
        ))
    }

    /// What an administrator has to run to make this node a member.
    fn how_to_add(&self) -> String {
        let (id, address) = (self.options.node, self.options.about.address);
        let incarnation = self.pipeline.superblock.state().incarnation;
        format!("`trilith cluster add {id} --incarnation {incarnation} --address {address}`")
    }

    fn waiting_for(&self) -> String {
        match self.pipeline.log.preparation_error() {
            Some(error) if error.is_no_space() => return "room on the disk".to_owned(),
            Some(error) => return format!("a segment of the log that can be made: {error}"),
            None => {}
        }
        if let Some(requests) = self.waiting.told() {
            return format!("the next segment of its log, and {requests} requests with it");
        }
        if let Some(point) = self.installing.fetches() {
            return format!("the snapshot at {point}, which it fetches from another node");
        }
        if let Some(point) = self.installing.waits_for() {
            return format!("its log to come to {point}, where its state begins");
        }
        if matches!(self.applying, Applying::Missing { .. }) {
            return format!("entry {}, which is to be applied and is not in the log", self.applied.index.next());
        }
        if let Some(reason) = self.birth() {
            return reason;
        }
        if self.replica.membership().members.is_empty() {
            return format!("to be added to the cluster: {}", self.how_to_add());
        }
        if self.replica.is_removed() {
            return "nothing: it was removed from the cluster".to_owned();
        }
        if let Some(others) = self.without_voice() {
            return others;
        }
        if let Some(last) = self.record_in_the_way().filter(|_| self.admission.is_some()) {
            return format!(
                "records up to {last} to be let go, for the log is kept for the map alone: `trilith log trim --before {}`",
                last.next()
            );
        }
        match (self.replica.status().leader, self.refusal_of_this_node()) {
            (None, None) => "a leader".to_owned(),
            (None, Some(refusal)) => format!("a leader; {refusal}"),
            (Some(_), _) => String::new(),
        }
    }
}
