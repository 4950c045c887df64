//! What may go from the logs, and what that must not take away: an administrator who trims, and what is known of trims.
//!
//! Only a committed trim entry takes records away from readers. So whoever is told `Trimmed` is told of records that one of
//! the committed entries covers, all of them; and every other record is there, on each node.

use std::collections::BTreeMap;

use bytes::BytesMut;

use super::cluster::{Happening, Simulation};
use super::node::Process;
use super::oracles::{Broken, Oracle};
use super::trace::Label;
use crate::net::{self, Change, Refusal, Request, RequestBody, Response, ResponseBody};
use crate::raft::Role;
use crate::types::{Index, Payload};

/// The first index that may be read, as the committed log says.
#[derive(Debug, Default)]
pub(super) struct Trims {
    /// By the index of the entry that moved it.
    bounds: BTreeMap<Index, Index>,
    /// What was asked for, by the number of the request.
    asked: BTreeMap<u64, Index>,
}

impl Trims {
    /// An entry is committed.
    pub fn place(&mut self, index: Index, payload: &Payload) {
        if let Payload::Trim { first } = payload {
            let bound = self.readable_from().max(*first.min(&index));
            self.bounds.insert(index, bound);
        }
    }

    /// As of all that is committed.
    pub fn readable_from(&self) -> Index {
        self.bounds.last_key_value().map_or(Index::FIRST, |(_, bound)| *bound)
    }

    /// As of the entries up to this one.
    pub fn readable_from_at(&self, applied: Index) -> Index {
        self.bounds.range(..=applied).next_back().map_or(Index::FIRST, |(_, bound)| *bound)
    }

    /// A node refuses to read `from`: what it says is trimmed up to `first` was, by entries that are committed.
    pub fn check_refusal(&self, from: Index, refusal: &Refusal) -> Result<(), Broken> {
        let Refusal::Trimmed { first } = refusal else { return Ok(()) };
        if from < *first && *first <= self.readable_from() {
            return Ok(());
        }
        let explanation = format!(
            "a read from {from} is refused as trimmed up to {first}, and what is committed trims up to {}",
            self.readable_from()
        );
        Err(Broken::new(Oracle::Acknowledged, explanation))
    }

    /// The log of a node that has applied so much begins with the first index that may be read, or before it.
    pub fn check_beginning(&self, first: Index) -> Result<(), Broken> {
        if first <= self.readable_from() {
            return Ok(());
        }
        let explanation =
            format!("a log begins at {first}, and what is committed trims up to {}", self.readable_from());
        Err(Broken::new(Oracle::Acknowledged, explanation))
    }
}

impl Simulation {
    /// Now and then an administrator has all nodes that believe to lead trim what is committed, somewhere.
    pub(super) fn trim(&mut self) {
        let Some(purge) = self.options.purge.filter(|purge| purge.trim_interval > 0) else { return };
        let after = self.fetch_random.between(purge.trim_interval / 4, 2 * purge.trim_interval);
        self.order(after, Happening::Trim);
        let end = self.oracles.invariants.committed().next();
        let before = self.oracles.trims.readable_from();
        // Mostly nearly all, sometimes what was trimmed already, or what is not there yet.
        let first = match self.fetch_random.below(8) {
            0 => Index(1 + self.fetch_random.below(end.0 + 5)),
            1..=3 => Index(self.fetch_random.between(before.0.min(end.0), end.0 + 1)),
            _ => Index(end.0.saturating_sub(self.fetch_random.below(20)).max(1)),
        };
        self.oracles.trims.asked.insert(self.steps, first);
        let (client, request) =
            (self.clients.len(), Request { id: self.steps, body: RequestBody::Change(Change::Trim { first }) });
        for node in 0..self.nodes.len() {
            let leads = |process: &Process| process.driver.replica().status().role == Role::Leader;
            if !self.nodes[node].process.as_ref().is_some_and(leads) {
                continue;
            }
            let mut bytes = BytesMut::new();
            net::put_request(&mut bytes, &request);
            self.note(Label::Request, &[self.now, client as u64, node as u64], &bytes);
            for arrival in self.network.copies(self.now) {
                let request = request.clone();
                self.order(arrival - self.now, Happening::Request { node, client, request });
            }
        }
    }

    /// The answer to a trim, or to a transfer, which has the number 0.
    pub(super) fn administrator_answered(&mut self, response: &Response) -> Result<(), Broken> {
        let Some(first) = self.oracles.trims.asked.get(&response.id).copied() else {
            self.operator_answered(response);
            return Ok(());
        };
        if !matches!(response.body, ResponseBody::Changed { .. }) {
            return Ok(());
        }
        self.report.trims += 1;
        if first <= self.oracles.trims.readable_from() {
            return Ok(());
        }
        let explanation = format!("a trim up to {first} was answered as done, and no committed entry does it");
        Err(Broken::new(Oracle::Acknowledged, explanation))
    }
}
