//! What can happen next, and how it is told.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::raft::tests::words::show;
use crate::raft::{Body, Change, Changed, Input, Message, Role};
use crate::types::{Data, NodeId, Payload};

use super::world::{Left, Node, Travelling, World, Wrong};
use super::{Bounds, canonical};

/// One thing that happens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// The election timer ends. Without pre-votes the node is told that it would win.
    Stand(NodeId),
    /// The leader was not heard for a while.
    Silence(NodeId),
    Persist(NodeId),
    Heartbeat(NodeId),
    StepDown(NodeId),
    Propose(NodeId),
    Read(NodeId),
    Change(NodeId, Vec<Change>),
    Transfer(NodeId, NodeId),
    /// It makes a snapshot, and its log begins behind it.
    Compact(NodeId),
    /// The snapshot that it was offered is whole and durable there.
    Install(NodeId),
    /// Its disk is slow from here on until it has nothing to do.
    SlowDisk(NodeId),
    /// The message that would arrive next does not.
    Delay {
        message: Arc<Message>,
        print: u128,
    },
    /// Of the writes under way so many are done, and it starts again; `remembers` what its state machine took.
    Crash {
        node: NodeId,
        kept: usize,
        remembers: bool,
    },
    Deliver {
        message: Arc<Message>,
        print: u128,
        way: Way,
    },
}

/// How a message arrives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    Once,
    /// And will arrive again.
    AndStays,
    /// And the receiver finds that other answers of this sender are overdue.
    Overdue,
}

/// Where the histories begin.
pub fn beginning(bounds: &Bounds) -> World {
    let mut world = World::new(bounds);
    if bounds.settled {
        let heartbeats = std::mem::replace(&mut world.left.heartbeats, u8::MAX);
        for action in [Action::Stand(NodeId(1)), Action::Heartbeat(NodeId(1))] {
            let next = take(&world, &action, bounds).expect("nothing is wrong at the beginning");
            world = come_to_rest(next.expect("something happens"), bounds);
        }
        let commits = world.ids().map(|id| world.node(id).replica.status().commit.0);
        assert!(world.network.is_empty() && commits.min() == Some(1), "{}", world.describe());
        world.left.heartbeats = heartbeats;
    }
    world
}

/// All writes are done and all messages arrive.
fn come_to_rest(mut world: World, bounds: &Bounds) -> World {
    let goes_on = |action: &Action| matches!(action, Action::Persist(_) | Action::Deliver { way: Way::Once, .. });
    while let Some(action) = possible(&world, bounds).into_iter().find(goes_on) {
        world = take(&world, &action, bounds).expect("nothing is wrong at the beginning").unwrap_or(world);
        if let Action::Deliver { print, .. } = action {
            world.take_message(print);
        }
    }
    world
}

/// All that can happen now.
pub fn possible(world: &World, bounds: &Bounds) -> Vec<Action> {
    let mut actions = Vec::new();
    let represented = || world.ids().filter(|id| world.is_represented(*id, bounds));
    for id in represented().filter(|id| !world.node(*id).persists.is_empty()) {
        if bounds.disturbances.is_none() || world.node(id).is_slow {
            actions.push(Action::Persist(id));
        }
    }
    if world.left.disturbances > 0 || world.is_at_rest() {
        represented().for_each(|id| of_node(world, id, bounds, &mut actions));
    }
    for travelling in world.network.iter().filter(|travelling| !world.on_time.contains(&travelling.print)) {
        if world.is_represented(travelling.message.to, bounds) {
            arrivals(world, travelling, &mut actions);
        }
    }
    if bounds.disturbances.is_some() {
        by_itself(world, &mut actions);
    }
    actions
}

/// What is done next if nothing disturbs it, and what disturbs it.
fn by_itself(world: &World, actions: &mut Vec<Action>) {
    let may_be_disturbed = world.left.disturbances > 0;
    if let Some(id) = world.writes_next() {
        actions.push(Action::Persist(id));
        if may_be_disturbed {
            actions.push(Action::SlowDisk(id));
        }
    } else if let Some(travelling) = world.arrives_next() {
        arrivals(world, travelling, actions);
        if may_be_disturbed {
            actions.push(Action::Delay { message: travelling.message.clone(), print: travelling.print });
        }
    }
}

fn arrivals(world: &World, travelling: &Travelling, actions: &mut Vec<Action>) {
    let (message, print) = (&travelling.message, travelling.print);
    let deliver = |way| Action::Deliver { message: message.clone(), print, way };
    actions.push(deliver(Way::Once));
    if world.left.duplicates > 0 {
        actions.push(deliver(Way::AndStays));
    }
    if world.left.resends > 0 && matches!(message.body, Body::HeartbeatReply { .. }) {
        actions.push(deliver(Way::Overdue));
    }
}

/// What happens from outside.
fn of_node(world: &World, id: NodeId, bounds: &Bounds, actions: &mut Vec<Action>) {
    let (node, left) = (world.node(id), &world.left);
    let leads = node.role() == Role::Leader;
    if !leads && left.elections > 0 && node.replica.term().0 < bounds.terms {
        actions.push(Action::Stand(id));
    }
    if bounds.pre_vote && !leads && node.replica.election_elapsed_ticks < canonical::SILENT {
        actions.push(Action::Silence(id));
    }
    if leads {
        of_leader(world, id, actions);
    }
    if left.reads > 0 && node.replica.leader.is_some() {
        actions.push(Action::Read(id));
    }
    if left.compactions > 0 && world.may_compact(id) {
        actions.push(Action::Compact(id));
    }
    if node.offered.is_some() {
        actions.push(Action::Install(id));
    }
    if left.crashes > 0 {
        let commits = node.replica.status().commit.0 > 0;
        for kept in 0..=node.persists.len() {
            actions.push(Action::Crash { node: id, kept, remembers: false });
            if commits {
                actions.push(Action::Crash { node: id, kept, remembers: true });
            }
        }
    }
}

fn of_leader(world: &World, id: NodeId, actions: &mut Vec<Action>) {
    let left = &world.left;
    if left.heartbeats > 0 {
        actions.push(Action::Heartbeat(id));
    }
    if left.step_downs > 0 {
        actions.push(Action::StepDown(id));
    }
    if left.entries > 0 {
        actions.push(Action::Propose(id));
    }
    if left.transfers > 0 {
        actions.extend(world.ids().filter(|to| *to != id).map(|to| Action::Transfer(id, to)));
    }
    if left.changes > 0 {
        let ids: Vec<NodeId> = world.ids().collect();
        actions.extend(changes(&ids).into_iter().map(|wanted| Action::Change(id, wanted)));
    }
}

/// One member goes, one votes, or both at once.
fn changes(ids: &[NodeId]) -> Vec<Vec<Change>> {
    let mut all = Vec::new();
    for &node in ids {
        all.push(vec![Change::Remove { node }]);
        all.push(vec![Change::Promote { node }]);
        let others = ids.iter().filter(|other| **other != node);
        all.extend(others.map(|other| vec![Change::Promote { node }, Change::Remove { node: *other }]));
    }
    all
}

/// What becomes of the world; nothing if the action is refused, or changes nothing.
pub fn take(world: &World, action: &Action, bounds: &Bounds) -> Result<Option<World>, Wrong> {
    let mut next = world.clone();
    spend(&mut next.left, action);
    if bounds.disturbances.is_some() && disturbs(world, action) {
        next.left.disturbances -= 1;
    }
    let happens = happen(&mut next, action, bounds)?;
    let changed = (0..next.nodes.len()).any(|at| !Arc::ptr_eq(&next.nodes[at], &world.nodes[at]));
    Ok((happens && (changed || next.on_time != world.on_time)).then_some(next))
}

fn disturbs(world: &World, action: &Action) -> bool {
    match action {
        Action::SlowDisk(_) | Action::Delay { .. } => true,
        Action::Persist(_) | Action::Deliver { .. } => false,
        _ => !world.is_at_rest(),
    }
}

fn spend(left: &mut Left, action: &Action) {
    let spent = match action {
        Action::Stand(_) => &mut left.elections,
        Action::Heartbeat(_) if left.heartbeats < u8::MAX => &mut left.heartbeats,
        Action::StepDown(_) => &mut left.step_downs,
        Action::Propose(_) => &mut left.entries,
        Action::Change(..) => &mut left.changes,
        Action::Transfer(..) => &mut left.transfers,
        Action::Compact(_) => &mut left.compactions,
        Action::Crash { .. } => &mut left.crashes,
        Action::Deliver { way: Way::AndStays, .. } => &mut left.duplicates,
        Action::Deliver { way: Way::Overdue, .. } => &mut left.resends,
        // A read is numbered by what is left of them.
        Action::Read(_)
        | Action::Silence(_)
        | Action::Persist(_)
        | Action::Install(_)
        | Action::SlowDisk(_)
        | Action::Delay { .. }
        | Action::Heartbeat(_)
        | Action::Deliver { .. } => return,
    };
    *spent -= 1;
}

/// False if the action is refused.
fn happen(next: &mut World, action: &Action, bounds: &Bounds) -> Result<bool, Wrong> {
    let mut taken = true;
    match action {
        Action::Stand(id) => next.with_node(*id, bounds, |node| stand(node, bounds))?,
        Action::Silence(id) => next.with_node(*id, bounds, |node| canonical::let_silence_pass(&mut node.replica))?,
        Action::Persist(id) => next.persist(*id, bounds)?,
        Action::Heartbeat(id) => next.with_node(*id, bounds, |node| node.replica.handle(Input::Tick))?,
        Action::StepDown(id) => next.with_node(*id, bounds, |node| {
            canonical::let_nobody_be_heard(&mut node.replica);
            node.replica.handle(Input::Tick);
        })?,
        Action::Propose(id) => {
            let payload = Payload::Data(Data::new(Bytes::copy_from_slice(&[id.0 as u8])));
            next.with_node(*id, bounds, |node| taken = node.replica.propose(vec![payload]).is_ok())?;
        }
        Action::Read(id) => {
            taken = next.read(*id, bounds)?;
            next.left.reads -= 1;
        }
        Action::Change(id, wanted) => next.with_node(*id, bounds, |node| {
            taken = matches!(node.replica.change(wanted), Ok(Changed::Begun { .. }));
        })?,
        Action::Transfer(id, to) => {
            next.with_node(*id, bounds, |node| taken = node.replica.transfer(*to).is_ok())?;
        }
        Action::Compact(id) => next.compact(*id, bounds)?,
        Action::Install(id) => taken = next.install(*id, bounds)?,
        Action::SlowDisk(id) => next.with_node(*id, bounds, |node| node.is_slow = true)?,
        Action::Delay { print, .. } => next.be_late(*print),
        Action::Crash { node, kept, remembers } => next.restart(*node, *kept, *remembers, bounds)?,
        Action::Deliver { message, print, way } => taken = deliver(next, message, *print, *way, bounds)?,
    }
    Ok(taken)
}

/// A message that changes nothing and is not answered is as good as under way, if it is not the one that is waited for.
fn deliver(next: &mut World, message: &Message, print: u128, way: Way, bounds: &Bounds) -> Result<bool, Wrong> {
    let before = next.node(message.to).print();
    let is_next = next.on_time.contains(&print);
    match way {
        Way::AndStays => next.be_late(print),
        Way::Once | Way::Overdue => next.take_message(print),
    }
    let under_way: u128 = next.network.iter().fold(0, |sum, travelling| sum.wrapping_add(travelling.print));
    let mut happens = true;
    let act = |node: &mut Node| {
        if way == Way::Overdue {
            happens = canonical::let_answer_be_overdue(&mut node.replica, message.from);
        }
        node.replica.handle(Input::Message(message.clone()));
    };
    next.with_node(message.to, bounds, act)?;
    let still: u128 = next.network.iter().fold(0, |sum, travelling| sum.wrapping_add(travelling.print));
    Ok(happens && (is_next || next.node(message.to).print() != before || still != under_way))
}

fn stand(node: &mut Node, bounds: &Bounds) {
    canonical::tick_until_it_fires(&mut node.replica);
    if bounds.pre_vote {
        return;
    }
    let (id, term) = (node.replica.id(), node.replica.term());
    let others: Vec<NodeId> = node.replica.membership().members.iter().map(|member| member.id).collect();
    for from in others.into_iter().filter(|other| *other != id) {
        if node.role() == Role::PreCandidate {
            let body = Body::PreVoteReply { next: term.next(), granted: true };
            node.replica.handle(Input::Message(Message { from, to: id, term, body }));
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Action::Stand(id) => write!(formatter, "{id} stands for election"),
            Action::Silence(id) => write!(formatter, "{id} has not heard its leader for a while"),
            Action::Persist(id) => write!(formatter, "{id} has its oldest write on disk"),
            Action::Heartbeat(id) => write!(formatter, "{id} begins a round of heartbeats"),
            Action::StepDown(id) => write!(formatter, "{id} hears no majority"),
            Action::Propose(id) => write!(formatter, "{id} takes an entry"),
            Action::Read(id) => write!(formatter, "{id} is asked for a read"),
            Action::Change(id, wanted) => {
                let wanted: Vec<String> = wanted.iter().map(|change| format!("{change:?}")).collect();
                write!(formatter, "{id} is asked for {}", wanted.join(" and "))
            }
            Action::Transfer(id, to) => write!(formatter, "{id} is asked to hand over to {to}"),
            Action::Compact(id) => write!(formatter, "{id} makes a snapshot, and its log begins behind it"),
            Action::Install(id) => write!(formatter, "{id} has the snapshot that it was offered"),
            Action::SlowDisk(id) => write!(formatter, "{id} has a slow disk"),
            Action::Delay { message, .. } => write!(formatter, "is late: {}", show(message)),
            Action::Crash { node, kept, remembers } => {
                let machine = if *remembers { ", its state machine remembers" } else { "" };
                write!(formatter, "{node} loses its power with {kept} of its writes done, and starts{machine}")
            }
            Action::Deliver { message, way, .. } => {
                let way = match way {
                    Way::Once => "arrives",
                    Way::AndStays => "arrives, and will again",
                    Way::Overdue => "arrives, and others are overdue",
                };
                write!(formatter, "{way}: {}", show(message))
            }
        }
    }
}
