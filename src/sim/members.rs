//! The operator who changes the members: grows the cluster, shrinks it, replaces its nodes, also by another life under
//! their own id, and repeats what was not answered.
//!
//! What is ordered is decided with care, as by somebody who means well: no order leaves voters of whom half or more
//! are known to have lost their disks, and only one disk more is lost when that leaves a majority of them. What
//! becomes of an order is the cluster's business. In the calm no more is ordered, and what was must come into force.

use std::collections::VecDeque;

use bytes::BytesMut;

use super::cluster::{Happening, Simulation};
use super::node::{Node, node_at, node_id};
use super::oracles::{Broken, Oracle};
use super::scenario::{ChangeOptions, MILLISECOND};
use super::trace::Label;
use crate::net::{self, Change, MemberChange, Refusal, Request, RequestBody, Response, ResponseBody};
use crate::raft::Role;
use crate::random::Random;
use crate::types::{Incarnation, Index, Member, Membership, NodeId, Payload};

/// Between two looks of the operator at what there is to do.
const LOOK_INTERVAL: u64 = 20 * MILLISECOND;
/// After a refusal that may pass.
const AGAIN: u64 = 100 * MILLISECOND;
/// A node that knows its removal to be committed goes on for so many ticks, as `node::run` has it.
const FAREWELL_TICKS: u32 = 100;
/// Between the incarnations of the lives that a machine may have: the first is the node's id.
const LIVES_APART: u64 = 1000;

#[derive(Debug)]
pub(super) struct Operator {
    random: Random,
    options: ChangeOptions,
    /// What was ordered, all of it: what must be in force in the end. Never joint.
    wanted: Membership,
    /// The first is being given, or is waited for.
    orders: VecDeque<Order>,
    /// Nothing new is ordered before.
    rests_until: u64,
    asked: Option<Asked>,
    /// Whom it asks next.
    target: usize,
    last_request: u64,
    /// The first one of the order that is being given.
    first_request: u64,
    last_life: u64,
    /// In the calm: all is in force, and clients have begun to write on.
    has_ended: bool,
}

/// One request, and what goes with it.
#[derive(Clone, Debug)]
struct Order {
    /// Machines that are made anew before.
    makes: Vec<(NodeId, Incarnation)>,
    changes: Vec<MemberChange>,
    is_begun: bool,
    /// So many answers are wanted: who asks again is told the same.
    answers: u64,
    /// The next order waits until whoever is to vote votes.
    waits: bool,
}

#[derive(Clone, Copy, Debug)]
struct Asked {
    request: u64,
    node: usize,
    deadline: u64,
}

/// What is asked, and the machines that are made anew before.
type Step = (Vec<MemberChange>, Vec<(NodeId, Incarnation)>);

/// What an operator sets out to do.
#[derive(Clone, Copy, Debug)]
enum Plan {
    /// A new node, which is to vote.
    Grow,
    /// Two new ones, in two orders.
    GrowTwice,
    /// A new node, which is not to vote yet.
    Learn,
    Promote,
    Remove,
    RemoveLeader,
    /// A new node for an old one, in one order.
    Swap,
    /// The same in two, one right after the other.
    AddThenRemove,
    /// A new node, which goes again at once.
    TakeBack,
    /// A learner votes and a voter goes, at once.
    PromoteAndRemove,
    /// A member goes, loses its disk, and comes back as another life.
    Renew,
    /// The same, and the disk is lost first.
    Lose,
}

const PLANS: &[Plan] = &[
    Plan::Grow,
    Plan::Grow,
    Plan::GrowTwice,
    Plan::Learn,
    Plan::Promote,
    Plan::Remove,
    Plan::Remove,
    Plan::RemoveLeader,
    Plan::Swap,
    Plan::AddThenRemove,
    Plan::TakeBack,
    Plan::PromoteAndRemove,
    Plan::Renew,
    Plan::Renew,
    Plan::Lose,
];

impl Operator {
    pub fn new(options: ChangeOptions, random: Random, first: Membership) -> Operator {
        Operator {
            random,
            options,
            wanted: first,
            orders: VecDeque::new(),
            rests_until: 0,
            asked: None,
            target: 0,
            last_request: 0,
            first_request: 0,
            last_life: 0,
            has_ended: false,
        }
    }

    /// All that was ordered is in force, and clients write on since.
    pub fn has_ended(&self) -> bool {
        self.has_ended
    }

    pub fn wants(&self, node: usize) -> bool {
        self.wanted.member(node_id(node)).is_some()
    }

    /// A seed for what it makes.
    pub fn draw(&mut self) -> u64 {
        self.random.next_u64()
    }

    /// In words, for a run that does not end.
    pub fn state(&self) -> String {
        format!("wanted {:?}; orders {:?}, asked {:?}", self.wanted, self.orders, self.asked)
    }

    fn order(&mut self, changes: Vec<MemberChange>, makes: Vec<(NodeId, Incarnation)>) {
        let answers = if self.random.chance(300) { 2 } else { 1 };
        let waits = self.random.chance(700);
        self.orders.push_back(Order { makes, changes, is_begun: false, answers, waits });
    }

    /// What a plan comes to; nothing if there is nobody with whom it can be done.
    fn steps(&mut self, plan: Plan, leader: Option<NodeId>, spare: &[NodeId]) -> Vec<Step> {
        let wanted = self.wanted.clone();
        let Membership { members, voters, .. } = wanted.clone();
        let members: Vec<NodeId> = members.iter().map(|member| member.id).collect();
        let (voters, learners): (Vec<_>, Vec<_>) = members.iter().partition(|id| voters.contains(id));
        let (new, voter, learner) = (self.pick(spare), self.pick(&voters), self.pick(&learners));
        let another: Vec<NodeId> = spare.iter().copied().filter(|node| Some(*node) != new).collect();
        let old = if self.random.chance(200) { self.pick(&members) } else { voter };
        let remove = |node| removal(&wanted, node);
        let leader = leader.filter(|node| wanted.member(*node).is_some());
        let promote = |node| MemberChange::Promote { node };
        match (plan, new, old) {
            (Plan::Grow, Some(new), _) => vec![self.grow(new, true)],
            (Plan::Learn, Some(new), _) => vec![self.grow(new, false)],
            (Plan::GrowTwice, Some(new), _) => {
                let another = self.pick(&another).map(|another| self.grow(another, true));
                [self.grow(new, true)].into_iter().chain(another).collect()
            }
            (Plan::Promote, ..) => learner.map(|node| (vec![promote(node)], Vec::new())).into_iter().collect(),
            (Plan::Remove, _, Some(old)) => vec![(vec![remove(old)], Vec::new())],
            (Plan::RemoveLeader, ..) => leader.map(|node| (vec![remove(node)], Vec::new())).into_iter().collect(),
            (Plan::Swap, Some(new), Some(old)) => {
                let (mut changes, makes) = self.grow(new, true);
                changes.push(remove(old));
                vec![(changes, makes)]
            }
            (Plan::AddThenRemove, Some(new), Some(old)) => vec![self.grow(new, true), (vec![remove(old)], Vec::new())],
            (Plan::TakeBack, Some(new), _) => {
                let promote = self.random.chance(500);
                let (add, makes) = self.grow(new, promote);
                let goes = makes.iter().map(|(node, incarnation)| {
                    let (node, incarnation) = (*node, *incarnation);
                    MemberChange::Remove { node, incarnation }
                });
                let goes = goes.collect();
                vec![(add, makes), (goes, Vec::new())]
            }
            (Plan::PromoteAndRemove, ..) => {
                let both = learner.zip(voter).map(|(new, old)| (vec![promote(new), remove(old)], Vec::new()));
                both.into_iter().collect()
            }
            (Plan::Renew, _, Some(old)) => self.renew(old),
            _ => Vec::new(),
        }
    }

    fn renew(&mut self, node: NodeId) -> Vec<Step> {
        vec![(vec![removal(&self.wanted, node)], Vec::new()), self.grow(node, true)]
    }

    /// The disk goes first; the new life waits, and is added when the old one is removed.
    fn lose(&mut self, node: NodeId) -> Vec<Step> {
        let (add, makes) = self.grow(node, true);
        vec![(vec![removal(&self.wanted, node)], makes), (add, Vec::new())]
    }

    /// Another life than any before, on a disk that is made for it.
    fn grow(&mut self, node: NodeId, promote: bool) -> Step {
        self.last_life += LIVES_APART;
        let incarnation = Incarnation(self.last_life + node.0);
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], node.0 as u16));
        let member = Member { id: node, incarnation, address };
        (vec![MemberChange::Add { member, promote }], vec![(node, incarnation)])
    }

    fn pick(&mut self, nodes: &[NodeId]) -> Option<NodeId> {
        (!nodes.is_empty()).then(|| *self.random.pick(nodes))
    }
}

impl Simulation {
    /// The operator looks at what there is to do.
    pub(super) fn operate(&mut self) -> Result<(), Broken> {
        self.order(LOOK_INTERVAL, Happening::Operate);
        if !self.is_born() {
            return Ok(());
        }
        let now = self.now;
        let Some(operator) = &mut self.operator else { return Ok(()) };
        if operator.wanted.forming {
            // Its members have named each other meanwhile.
            operator.wanted = self.oracles.membership().clone();
            return Ok(());
        }
        let Some(first) = operator.orders.front() else {
            if self.calm_since.is_some() {
                self.write_on();
            } else if operator.rests_until <= now {
                self.set_out();
            }
            return Ok(());
        };
        let (is_begun, is_answered) = (first.is_begun, first.answers == 0);
        let is_late = operator.asked.is_none_or(|asked| asked.deadline <= now);
        if !is_begun {
            self.begin_order()
        } else if is_answered {
            self.end_order();
            Ok(())
        } else {
            if is_late {
                self.ask();
            }
            Ok(())
        }
    }

    /// In the calm all is in force, at every member: clients have something more to write.
    fn write_on(&mut self) {
        let is_over = self.operator.as_ref().is_none_or(Operator::has_ended);
        if !is_over && self.is_in_force() {
            self.operator.as_mut().into_iter().for_each(|operator| operator.has_ended = true);
            self.clients.iter_mut().for_each(super::clients::Client::wind_down);
        }
    }

    /// Whether what was ordered is committed, nothing more is to be done by itself, and each member knows it.
    pub(super) fn is_in_force(&self) -> bool {
        let Some(operator) = &self.operator else { return true };
        let committed = self.oracles.membership();
        let knows = |member: &Member| {
            let node = &self.nodes[node_at(member.id)];
            node.process.as_ref().is_none_or(|process| process.driver.replica().membership() == committed)
        };
        operator.orders.is_empty() && operator.wanted == *committed && committed.members.iter().all(knows)
    }

    /// Whether nobody would miss this disk: what was ordered is in force, and a majority of the voters keeps its own.
    pub(super) fn may_lose(&self, node: usize) -> bool {
        let Some(operator) = &self.operator else { return true };
        let committed = self.oracles.membership();
        let is_settled = operator.orders.is_empty() && operator.wanted == *committed;
        let voters = &committed.voters;
        let lost = voters.iter().filter(|voter| !self.is_whole(**voter, committed)).count();
        is_settled && voters.contains(&node_id(node)) && 2 * (lost + 1) < voters.len()
    }

    /// Whether a member has its disk as far as anybody knows, and its life is the one that is named.
    fn is_whole(&self, node: NodeId, membership: &Membership) -> bool {
        let Node { identity, is_rotten, is_out, .. } = &self.nodes[node_at(node)];
        let is_named = membership.member(node).is_some_and(|member| identity.is_named_by(member.incarnation));
        is_named && !is_rotten && !is_out
    }

    /// Sets out to do something, if there is somebody with whom it can be done.
    fn set_out(&mut self) {
        let (leader, spare, now) = (self.leading(), self.spare(), self.now);
        let wanted = self.oracles.membership().clone();
        let damaged: Vec<NodeId> = wanted.voters.iter().copied().filter(|id| !self.is_whole(*id, &wanted)).collect();
        let can_lose: Vec<NodeId> = wanted.voters.iter().copied().filter(|id| self.may_lose(node_at(*id))).collect();
        let Some(operator) = &mut self.operator else { return };
        let interval = operator.options.interval;
        operator.rests_until = now + operator.random.between(interval / 4, 2 * interval);
        let damaged = operator.pick(&damaged).filter(|_| operator.random.chance(800));
        let steps = match (damaged, *operator.random.pick(PLANS)) {
            (Some(damaged), _) => operator.renew(damaged),
            (None, Plan::Lose) => operator.pick(&can_lose).map(|node| operator.lose(node)).unwrap_or_default(),
            (None, plan) => operator.steps(plan, leader, &spare),
        };
        for (changes, makes) in steps {
            if !self.give(changes, makes) {
                break;
            }
        }
    }

    /// Puts an order behind those that are to be given, unless it would leave too few.
    fn give(&mut self, changes: Vec<MemberChange>, makes: Vec<(NodeId, Incarnation)>) -> bool {
        let operator = self.operator.as_mut().expect("it orders");
        let mut wanted = operator.wanted.clone();
        for order in operator.orders.iter().filter(|order| !order.is_begun) {
            apply(&mut wanted, &order.changes);
        }
        // What comes with the same order does not vote yet when others go.
        let goes = |change: &&MemberChange| !matches!(change, MemberChange::Add { .. });
        let mut meanwhile = wanted.clone();
        apply(&mut meanwhile, &changes.iter().filter(goes).cloned().collect::<Vec<_>>());
        apply(&mut wanted, &changes);
        let will_be_whole = |node: &NodeId| {
            let operator = self.operator.as_ref().expect("it orders");
            let orders = operator.orders.iter().flat_map(|order| &order.changes).chain(&changes);
            let is_added =
                |change: &MemberChange| matches!(change, MemberChange::Add { member, .. } if member.id == *node);
            orders.into_iter().any(is_added) || self.is_whole(*node, &wanted)
        };
        let suffices = [&meanwhile, &wanted].iter().all(|membership| {
            let whole = membership.voters.iter().filter(|voter| will_be_whole(voter)).count();
            2 * whole > membership.voters.len()
        });
        if suffices {
            self.operator.as_mut().expect("it orders").order(changes, makes);
        }
        suffices
    }

    /// Makes the machines that go with the first order, and asks for it, as soon as it would not stop the cluster.
    fn begin_order(&mut self) -> Result<(), Broken> {
        if !self.is_safe_now() {
            return Ok(());
        }
        let operator = self.operator.as_mut().expect("it has an order");
        let order = operator.orders.front_mut().expect("it has an order");
        order.is_begun = true;
        let makes = std::mem::take(&mut order.makes);
        let changes = order.changes.clone();
        apply(&mut operator.wanted, &changes);
        let leader = self.leading();
        for change in &changes {
            match change {
                MemberChange::Add { .. } => self.report.members_added += 1,
                MemberChange::Promote { .. } => self.report.learners_promoted += 1,
                MemberChange::Remove { node, .. } => {
                    self.report.members_removed += 1;
                    self.report.leaders_removed += u64::from(leader == Some(*node));
                }
            }
        }
        for (node, incarnation) in makes {
            self.make(node_at(node), incarnation)?;
        }
        self.ask();
        Ok(())
    }

    /// With the voters there are now: those that are to vote may not do so yet. Mostly waited for, and always where
    /// somebody has lost its disk.
    fn is_safe_now(&mut self) -> bool {
        let committed = self.oracles.membership().clone();
        let operator = self.operator.as_mut().expect("it has an order");
        let order = operator.orders.front().expect("it has an order");
        let mut voters = committed.voters.clone();
        for change in &order.changes {
            match change {
                MemberChange::Remove { node, .. } => drop(voters.remove(node)),
                MemberChange::Promote { node } => drop(voters.insert(*node)),
                MemberChange::Add { .. } => {}
            }
        }
        let is_hasty = operator.random.chance(100);
        let whole = voters.iter().filter(|voter| self.is_whole(**voter, &committed)).count();
        let all_are_whole = committed.voters.iter().all(|voter| self.is_whole(*voter, &committed));
        2 * whole > voters.len() || (is_hasty && all_are_whole)
    }

    /// Whether a node is to be a member in the end.
    pub(super) fn is_wanted(&self, node: usize) -> bool {
        self.operator.as_ref().is_none_or(|operator| operator.wants(node))
    }

    /// A machine becomes that of another life: whatever ran there is over, whatever was on its disk is gone.
    fn make(&mut self, node: usize, incarnation: Incarnation) -> Result<(), Broken> {
        let seed = self.operator.as_mut().expect("it makes").draw();
        self.note(Label::Fault, &[self.now, node as u64, incarnation.0], &[]);
        self.oracles.invariants.begins_another_life(node_id(node));
        let made = self.nodes[node].make(node, incarnation, Membership::default(), seed, &self.trace);
        made.map_err(|error| Broken::new(Oracle::Recovery, format!("cannot format: {error}")))?;
        self.report.lives_begun += 1;
        self.report.disks_lost += u64::from(self.oracles.membership().is_voter(node_id(node)));
        let after = seed % (50 * MILLISECOND);
        self.order(after, Happening::Restart { node });
        Ok(())
    }

    /// Gives the first order to whomever it takes for the leader.
    fn ask(&mut self) {
        let (client, now) = (self.operator_key(), self.now);
        let operator = self.operator.as_mut().expect("it asks");
        let order = operator.orders.front().expect("it has an order");
        let change = Change::Members(order.changes.clone());
        operator.last_request += 1;
        let (node, deadline) = (operator.target, now + operator.options.timeout);
        operator.asked = Some(Asked { request: operator.last_request, node, deadline });
        let request = Request { id: operator.last_request, body: RequestBody::Change(change) };
        // If nothing is heard.
        operator.target = operator.random.below(self.nodes.len() as u64) as usize;
        let mut bytes = BytesMut::new();
        net::put_request(&mut bytes, &request);
        self.note(Label::Request, &[now, client as u64, node as u64], &bytes);
        self.report.changes_asked += 1;
        for arrival in self.network.copies(now) {
            let request = request.clone();
            self.order(arrival - now, Happening::Request { node, client, request });
        }
    }

    /// Under which number nodes know the operator.
    pub(super) fn operator_key(&self) -> usize {
        self.clients.len() + 1
    }

    /// Whether this belongs to an order that is done, over a connection that the operator has closed since.
    pub(super) fn is_given_up(&self, client: usize, request: &Request) -> bool {
        let operator = self.operator.as_ref().filter(|_| client == self.operator_key());
        operator.is_some_and(|operator| request.id < operator.first_request)
    }

    /// A change was answered: what is told to be so is so, and for good.
    pub(super) fn change_answered(&mut self, response: &Response) -> Result<(), Broken> {
        let Some(operator) = &mut self.operator else { return Ok(()) };
        let Some(order) = operator.orders.front_mut() else { return Ok(()) };
        let Some(asked) = operator.asked.filter(|asked| asked.request == response.id) else { return Ok(()) };
        match &response.body {
            ResponseBody::Changed { index } => {
                let committed = match self.oracles.invariants.committed_payload(*index) {
                    _ if *index == Index::ZERO => Some(self.oracles.membership()),
                    Some(Payload::Membership(membership)) => Some(&**membership),
                    _ => None,
                };
                if !committed.is_some_and(|membership| order.changes.iter().all(|change| is_so(membership, change))) {
                    let explanation =
                        format!("{:?} was answered with {index}, where {committed:?} is committed", order.changes);
                    return Err(Broken::new(Oracle::Acknowledged, explanation));
                }
                order.answers -= 1;
                operator.asked = None;
                self.report.changes_answered += 1;
            }
            ResponseBody::Refused(Refusal::NotLeader { leader: Some((leader, _)) }) => {
                operator.target = node_at(*leader);
                operator.asked = None;
            }
            // Whoever leads says so, and in a moment it may be otherwise.
            ResponseBody::Refused(Refusal::Unavailable { .. } | Refusal::Impossible { .. }) => {
                operator.target = asked.node;
                let deadline = asked.deadline.min(self.now + AGAIN);
                operator.asked = Some(Asked { deadline, ..asked });
            }
            ResponseBody::Refused(_) => {}
            body => return Err(Broken::new(Oracle::Whole, format!("{body:?} is no answer to a change"))),
        }
        Ok(())
    }

    /// The first order was answered as often as it was asked for.
    fn end_order(&mut self) {
        let committed = self.oracles.membership();
        let Some(operator) = &mut self.operator else { return };
        let waits = operator.orders.front().is_some_and(|order| order.waits);
        if waits && (!committed.promoting.is_empty() || committed.is_joint()) {
            return;
        }
        operator.orders.pop_front();
        operator.first_request = operator.last_request + 1;
        if operator.orders.is_empty() {
            operator.rests_until = self.now + operator.random.between(0, 2 * operator.options.interval);
        }
    }

    /// The node that leads in the highest term.
    fn leading(&self) -> Option<NodeId> {
        let replicas =
            self.nodes.iter().filter_map(|node| node.process.as_ref()).map(|process| process.driver.replica());
        let leaders = replicas.filter(|replica| replica.status().role == Role::Leader);
        leaders.max_by_key(|replica| replica.status().hard_state.term).map(|replica| replica.id())
    }

    /// Machines that no member needs, whatever runs there.
    fn spare(&self) -> Vec<NodeId> {
        let Some(operator) = &self.operator else { return Vec::new() };
        let committed = self.oracles.membership();
        let all = (0..self.nodes.len()).map(node_id);
        all.filter(|id| operator.wanted.member(*id).is_none() && committed.member(*id).is_none()).collect()
    }

    /// A node that knows that it was removed goes on for a while, and then never again.
    pub(super) fn end_if_removed(&mut self, node: usize) {
        let Some(process) = self.nodes[node].process.as_ref().filter(|_| self.operator.is_some()) else { return };
        let replica = process.driver.replica();
        let status = replica.status();
        let (ticks, before) = self.nodes[node].removed;
        // Who catches up may yet come to where it was added again.
        let is_over = replica.is_removed() && status.role != Role::Leader && before == status.last.index;
        let ticks = if is_over { ticks + 1 } else { 0 };
        self.nodes[node].removed = (ticks, status.last.index);
        if ticks >= FAREWELL_TICKS {
            self.nodes[node].disk.kill(&mut self.random);
            self.nodes[node].end();
            self.nodes[node].is_gone = true;
            self.report.removed_ended += 1;
        }
    }
}

/// Names the life that goes.
fn removal(members: &Membership, node: NodeId) -> MemberChange {
    let incarnation = members.member(node).expect("only a member is removed").incarnation;
    MemberChange::Remove { node, incarnation }
}

/// What a change makes of the members in the end.
fn apply(wanted: &mut Membership, changes: &[MemberChange]) {
    for change in changes {
        match change {
            MemberChange::Add { member, promote } => {
                wanted.members.push(member.clone());
                wanted.members.sort_by_key(|member| member.id);
                wanted.voters.extend(promote.then_some(member.id));
            }
            MemberChange::Promote { node } => drop(wanted.voters.insert(*node)),
            MemberChange::Remove { node, .. } => {
                wanted.members.retain(|member| member.id != *node);
                wanted.voters.remove(node);
            }
        }
    }
}

/// Whether a configuration is as a change wants it.
fn is_so(membership: &Membership, change: &MemberChange) -> bool {
    let votes = |node: &NodeId| membership.voters.contains(node);
    match change {
        MemberChange::Add { member, promote } => {
            let will_vote = votes(&member.id) || membership.promoting.contains(&member.id);
            membership.member(member.id) == Some(member) && (!promote || will_vote)
        }
        MemberChange::Promote { node } => votes(node),
        MemberChange::Remove { node, incarnation } => {
            membership.member(*node).is_none_or(|member| member.incarnation != *incarnation)
        }
    }
}
