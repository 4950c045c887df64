//! Each step of a snapshot's way and of a purge, by name, and the nodes that end there: their power goes in the midst of
//! the operation, or their process ends just behind it (C7 of docs/testing.md).
//!
//! A step is what a node is doing and what it asks of its disk for it: `receiving: write chunks`. Which there are is not
//! listed here: they are told as they happen.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use super::cluster::Simulation;
use super::disk::{Act, Event};
use super::oracles::Broken;
use super::{Options, Report, Violation};
use crate::random::Random;

/// So many nodes end at a step of one run.
const HITS_MAX: u64 = 6;
/// Of a thousand times that a step comes so many are its node's end.
const HITS_PER_MILLE: u64 = 120;

/// What a node does, as far as it has to do with snapshots.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum Doing {
    /// Anything else.
    #[default]
    Other,
    Making,
    Sending,
    Receiving,
    /// It reads the state of what has come.
    Loading,
    /// Another node's state takes the place of its own, with superblock and log.
    Installing,
    /// The log loses its beginning.
    Purging,
    /// Snapshots go that are superfluous.
    Removing,
}

impl Doing {
    /// All that has steps.
    pub const ALL: [Doing; 7] = [
        Doing::Making,
        Doing::Sending,
        Doing::Receiving,
        Doing::Loading,
        Doing::Installing,
        Doing::Purging,
        Doing::Removing,
    ];
}

/// How often each step came, and how often a node ended there.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Steps {
    /// By name: seen, cuts of power, ended processes.
    pub counts: BTreeMap<String, [u64; 3]>,
}

/// What the disks of all nodes share.
#[derive(Debug)]
pub(super) struct Aim {
    /// What the node does whose turn it is.
    pub doing: Doing,
    /// At the steps of this nodes end, until the calm.
    at: Option<Doing>,
    random: Random,
    steps: Steps,
    /// Whose process ends, and not its power.
    killed: Vec<usize>,
}

impl Aim {
    pub fn new(at: Option<Doing>, random: Random) -> Rc<RefCell<Aim>> {
        let (doing, steps, killed) = (Doing::Other, Steps::default(), Vec::new());
        Rc::new(RefCell::new(Aim { doing, at, random, steps, killed }))
    }

    /// Whether a node ends with this operation.
    fn strikes(&mut self, node: usize, event: &Event<'_>) -> bool {
        let Some(at) = self.at.filter(|at| *at == self.doing) else { return false };
        let Some(name) = name(at, event) else { return false };
        let counts = self.steps.counts.entry(name).or_default();
        counts[0] += 1;
        if counts[1] + counts[2] >= HITS_MAX || !self.random.chance(HITS_PER_MILLE) {
            return false;
        }
        let is_kill = self.random.chance(500);
        counts[if is_kill { 2 } else { 1 }] += 1;
        if is_kill {
            self.killed.push(node);
        }
        true
    }
}

impl Simulation {
    /// As [`Simulation::run`]; nodes end at the steps of what is given, and each of them is counted.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn run_aimed(seed: u64, options: &Options, at: Doing) -> Result<(Report, Steps), Violation> {
        let place =
            |broken: Broken, step| Violation { seed, step, oracle: broken.oracle, explanation: broken.explanation };
        let mut simulation = Simulation::new(seed, options).map_err(|broken| place(broken, 0))?;
        simulation.aim.borrow_mut().at = Some(at);
        simulation.run_to_end().map_err(|broken| place(broken, simulation.steps))?;
        let steps = simulation.aim.borrow().steps.clone();
        Ok((simulation.into_report(), steps))
    }

    /// What follows is done by a node for this.
    pub(super) fn while_doing<T>(&mut self, doing: Doing, call: impl FnOnce(&mut Simulation) -> T) -> T {
        let before = std::mem::replace(&mut self.aim.borrow_mut().doing, doing);
        let said = call(self);
        self.aim.borrow_mut().doing = before;
        said
    }

    /// A node begins: its disk knows from now on where it is to end.
    pub(super) fn take_aim(&self, node: usize) {
        let aim = Rc::clone(&self.aim);
        self.nodes[node].disk.crash_when(move |event| aim.borrow_mut().strikes(node, event));
    }

    /// Whether the node's end, which came at a step, is that of its process alone.
    pub(super) fn is_process_struck(&self, node: usize) -> bool {
        let killed = &mut self.aim.borrow_mut().killed;
        let place = killed.iter().position(|struck| *struck == node);
        place.map(|place| killed.swap_remove(place)).is_some()
    }

    /// No node ends any more.
    pub(super) fn end_aim(&self) {
        self.aim.borrow_mut().at = None;
    }
}

/// What the step is called; none for what changes nothing, and has no part in sending or loading.
fn name(doing: Doing, event: &Event<'_>) -> Option<String> {
    let act = match event.act {
        Act::Create => "create",
        Act::Write => "write",
        Act::Zero => "zero",
        Act::Flush => "flush",
        Act::Rename => "rename",
        Act::Remove => "remove",
        Act::SyncDirectory => "flush names of",
        Act::Submit => "submit to",
        Act::Read | Act::Open if matches!(doing, Doing::Sending | Doing::Loading) => "read",
        Act::Read | Act::Open | Act::List | Act::Map | Act::FreeSpace => return None,
    };
    let (directory, file) = event.name.split_once('/').unwrap_or((event.name, ""));
    let what = match (directory, file) {
        ("", _) => "the root",
        ("superblock", _) => "the superblock",
        (_, "chunks") => "chunks",
        (_, "manifest") => "manifest",
        ("log", "") => "the log",
        ("log", _) => "a segment",
        (_, _) if directory.starts_with("snapshot-") => "a directory",
        (_, _) => "a file",
    };
    Some(format!("{doing:?}: {act} {what}").to_lowercase())
}
