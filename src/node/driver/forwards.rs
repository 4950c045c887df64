//! Clients' requests that this node passes on to the leader, until their answers are back.
//!
//! ```text
//!   client ─▶ pass on ─▶ open ─▶ Effect::Forward ═══▶ leader: Input::Forward ─▶ as from a client of its own
//!          ◀─ answer ◀──  │  ◀── Input::Forwarded ◀══ leader: Effect::Forwarded
//!                         └─ another leader or term, a broken link, too old: the outcome is unknown
//! ```
//!
//! # Invariants
//!
//! - A request is passed on once at most, to the leader of this term, and by nobody a second time.
//! - A client is told that its request was refused only if it never left, or if the leader refused that very copy: a
//!   client counts such a copy as one that can never be in the log. Of all others the outcome is unknown.
//! - A copy's id is used once by all lives of all nodes, so that no answer is taken for another's.
//! - What is open is bounded in bytes, and everything that is open is answered: at the latest when it is too old.

use std::collections::BTreeMap;

use super::submissions::Asker;
use super::{Driver, Effect};
use crate::limits::{ENTRY_OVERHEAD_BYTES, FORWARD_BYTES_MAX};
use crate::machine::StateMachine;
use crate::mutant::{self, Mutant};
use crate::net::{ClientKey, Forward, ForwardId, Forwarded, Refusal, ResponseBody, SubmitResult};
use crate::raft::{Role, Sender};
use crate::types::{Data, Incarnation, NodeId, Term};

/// Ticks after which nobody waits for an answer any more: what a client waits unless told otherwise. A leader that leads
/// and is linked answers; this is for what nobody thought of, so that what is open does not grow.
const AGE_TICKS_MAX: u64 = 500;

#[derive(Debug)]
pub(super) struct Forwards {
    incarnation: Incarnation,
    boot: u64,
    /// By number, and so by age. All of them went to `to`.
    open: BTreeMap<u64, Open>,
    /// Of the requests in `open`; at most [`FORWARD_BYTES_MAX`].
    bytes: usize,
    /// The same of each client that has some.
    held: BTreeMap<ClientKey, usize>,
    /// The last number that was given.
    last: u64,
    /// The leader, and its term.
    to: (NodeId, Term),
    /// Since the start.
    ticks: u64,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    client: ClientKey,
    id: u64,
    bytes: usize,
    begun_ticks: u64,
}

impl Forwards {
    pub fn new(incarnation: Incarnation, boot: u64) -> Forwards {
        let to = (NodeId(0), Term(0));
        Forwards { incarnation, boot, open: BTreeMap::new(), bytes: 0, held: BTreeMap::new(), last: 0, to, ticks: 0 }
    }

    /// Takes a request, if there is room; gives the number of its copy. A client may hold no more than it leaves free: so
    /// one that sends without end takes a half, and there is something for the next.
    fn begin(&mut self, to: (NodeId, Term), (client, id): (ClientKey, u64), bytes: usize) -> Option<ForwardId> {
        assert!(self.open.is_empty() || self.to == to, "what went to another leader was given up");
        let held = self.held.get(&client).copied().unwrap_or_default();
        if held + bytes > FORWARD_BYTES_MAX - self.bytes {
            return None;
        }
        self.to = to;
        self.bytes += bytes;
        self.held.insert(client, held + bytes);
        self.last += 1;
        self.open.insert(self.last, Open { client, id, bytes, begun_ticks: self.ticks });
        Some(ForwardId { incarnation: self.incarnation, boot: self.boot, number: self.last })
    }

    fn is_own(&self, id: ForwardId) -> bool {
        (id.incarnation, id.boot) == (self.incarnation, self.boot) || mutant::is_on(Mutant::ForwardAnswersMixed)
    }

    fn take(&mut self, number: u64) -> Option<Open> {
        let open = self.open.remove(&number)?;
        self.bytes -= open.bytes;
        let held = self.held.get_mut(&open.client).expect("whose request is open holds something");
        *held -= open.bytes;
        if *held == 0 {
            self.held.remove(&open.client);
        }
        Some(open)
    }

    /// Nobody waits for the answers of this client's requests any more.
    pub fn forget(&mut self, client: ClientKey) {
        if self.held.contains_key(&client) {
            let numbers = self.open.iter().filter(|(_, open)| open.client == client).map(|(number, _)| *number);
            for number in numbers.collect::<Vec<_>>() {
                self.take(number);
            }
        }
    }

    /// The oldest one, if it is too old.
    fn take_late(&mut self) -> Option<Open> {
        let (number, open) = self.open.first_key_value()?;
        let (number, is_late) = (*number, self.ticks - open.begun_ticks >= AGE_TICKS_MAX);
        if is_late { self.take(number) } else { None }
    }

    fn take_any(&mut self) -> Option<Open> {
        let number = *self.open.first_key_value()?.0;
        self.take(number)
    }

    #[cfg(test)]
    pub(super) fn waiting(&self) -> (usize, usize) {
        (self.open.len(), self.bytes)
    }
}

impl<M: StateMachine> Driver<M> {
    /// Whether there may be another node that leads: while the cluster is being born nobody serves.
    pub(super) fn is_follower_that_serves(&self) -> bool {
        self.replica.status().role != Role::Leader && self.birth().is_none()
    }

    /// A client's request that this node, which does not lead, is to pass on.
    pub(super) fn pass_on(&mut self, client: ClientKey, id: u64, commands: Vec<Data>) {
        let status = self.replica.status();
        assert!(status.role != Role::Leader, "a leader passes nothing on");
        let Some(leader) = status.leader else {
            let refusal = Refusal::NotLeader { leader: None };
            return self.reply(client, id, ResponseBody::Refused(refusal));
        };
        let term = status.hard_state.term;
        let bytes = commands.iter().map(|data| data.bytes.len() + ENTRY_OVERHEAD_BYTES).sum();
        self.give_up_on_earlier_leaders();
        match self.forwards.begin((leader, term), (client, id), bytes) {
            Some(id) => {
                self.effects.push(Effect::Forward { to: leader, forward: Forward { id, term, commands } });
            }
            None => self.reply(client, id, ResponseBody::Refused(Refusal::Busy)),
        }
    }

    /// Another node passes on what a client asked of it. Whoever does not lead in the term that is meant refuses it, and
    /// never passes it on again.
    pub(super) fn on_forward(&mut self, from: NodeId, sender: Sender, forward: Forward) {
        // As with its messages: another life of that node is none of ours.
        if !self.is_believed(from, sender) {
            return;
        }
        let Forward { id, term, commands } = forward;
        let status = self.replica.status();
        if status.role == Role::Leader && status.hard_state.term == term {
            return self.on_submit(Asker::Node { node: from, id }, commands);
        }
        let outcome = Err(Refusal::NotLeader { leader: self.leader_address() });
        self.effects.push(Effect::Forwarded { to: from, forwarded: Forwarded { id, outcome } });
    }

    /// What the leader said of a request that was passed on.
    pub(super) fn on_forwarded(&mut self, from: NodeId, forwarded: Forwarded) {
        let Forwarded { id, outcome } = forwarded;
        if !self.forwards.is_own(id) || self.forwards.to.0 != from {
            return;
        }
        let Some(open) = self.forwards.take(id.number) else { return };
        self.reply(
            open.client,
            open.id,
            match outcome {
                Ok(results) => ResponseBody::Submitted { results: results.into_iter().map(as_from_here).collect() },
                // This node will hear of the next one, and is asked again until then.
                Err(Refusal::NotLeader { .. }) => ResponseBody::Refused(between_leaders()),
                Err(refusal) => ResponseBody::Refused(refusal),
            },
        );
    }

    /// It has not left, and will not.
    pub(super) fn on_not_forwarded(&mut self, number: u64, refusal: Refusal) {
        if let Some(open) = self.forwards.take(number) {
            self.reply(open.client, open.id, ResponseBody::Refused(refusal));
        }
    }

    /// The link to this node is broken: what was on it may have arrived or not.
    pub(super) fn on_lost(&mut self, node: NodeId) {
        if self.forwards.to.0 == node {
            self.give_up_on_forwards();
        }
    }

    /// What was passed on to another leader, or in another term, is not waited for.
    pub(super) fn give_up_on_earlier_leaders(&mut self) {
        if self.forwards.open.is_empty() {
            return;
        }
        let status = self.replica.status();
        if status.role == Role::Leader
            || (status.leader, status.hard_state.term) != (Some(self.forwards.to.0), self.forwards.to.1)
        {
            self.give_up_on_forwards();
        }
    }

    pub(super) fn age_forwards(&mut self) {
        self.forwards.ticks += 1;
        while let Some(open) = self.forwards.take_late() {
            self.reply_unknown(open);
        }
    }

    fn give_up_on_forwards(&mut self) {
        while let Some(open) = self.forwards.take_any() {
            self.reply_unknown(open);
        }
    }

    fn reply_unknown(&mut self, open: Open) {
        let refusal = match mutant::is_on(Mutant::ForwardRefused) {
            true => between_leaders(),
            false => Refusal::OutcomeUnknown,
        };
        self.reply(open.client, open.id, ResponseBody::Refused(refusal));
    }
}

/// A client that hears of another leader would leave this node, to which it would come back.
fn as_from_here(result: SubmitResult) -> SubmitResult {
    match result {
        SubmitResult::Refused(Refusal::NotLeader { .. }) => SubmitResult::Refused(between_leaders()),
        other => other,
    }
}

fn between_leaders() -> Refusal {
    Refusal::Unavailable { reason: "the leader has just changed".to_owned() }
}
