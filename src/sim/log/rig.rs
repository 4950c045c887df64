//! Carries out a log's effects on a simulated disk, and keeps the model beside it.

use std::collections::{BTreeMap, VecDeque};

use super::model::{Model, State, state_of};
use crate::disk::Queue;
use crate::limits::SEGMENT_BYTES_MIN;
use crate::random::Random;
use crate::sim::disk::{SimDisk, SimFiles, SimQueue};
use crate::types::{ClusterId, Entry, GroupId, Incarnation, Index, LogId, NodeId, Place};
use crate::wal::{
    Effect, Error, Identity, Log, Options, Prepare, ReadBuffer, Reading, Recovery, Remove, prepare, remove,
};

pub const DIRECTORY: &str = "log";

pub struct Rig {
    pub disk: SimDisk,
    pub files: SimFiles,
    pub queue: SimQueue,
    pub log: Log,
    /// Ordered and not yet carried out.
    pub prepares: VecDeque<Prepare>,
    pub removes: VecDeque<Remove>,
    /// None of them is: what is given up stays where it is.
    pub keeps_given_up: bool,
    pub model: Model,
    pub is_poisoned: bool,
    /// What the superblock beside the log may say: durable ends that it was told since the log was opened, oldest first.
    pub learned: Vec<Place>,
    /// Frames handed to the queue since the log was opened.
    pub submitted: usize,
    /// What is copied forward is read into it.
    pub read_buffer: ReadBuffer,
    /// What was in files when they were to be used again, by the number that they get, if a test wants it.
    pub retired: Option<BTreeMap<u64, Vec<u8>>>,
}

pub fn identity() -> Identity {
    Identity { cluster: ClusterId(0xc1), node: NodeId(2), incarnation: Incarnation(3) }
}

pub fn options() -> Options {
    Options {
        directory: DIRECTORY.to_owned(),
        identity: identity(),
        segment_bytes: SEGMENT_BYTES_MIN,
        writes_in_flight: 1,
        quiet_ticks: 5,
        tail_cache_bytes: 0,
        seed: 7,
    }
}

/// How a log is opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Start {
    /// What the superblock says that was durable.
    pub evidence: Place,
    pub reading: Reading,
}

impl Start {
    /// Everything is read, or it is opened by its seals. The superblock knows nothing, or the newest of what it was told,
    /// or was itself cut off while it was told that.
    pub fn drawn(learned: &[Place], random: &mut Random) -> Start {
        let reading = if random.chance(500) { Reading::BySeals } else { Reading::Everything };
        let known = match random.below(4) {
            0 => None,
            1 if !learned.is_empty() => Some(random.pick(learned)),
            _ => learned.last(),
        };
        Start { evidence: known.copied().unwrap_or(Place::START), reading }
    }
}

/// Opens what is on a disk and says what it holds.
pub fn open_as(disk: &SimDisk, options: &Options, start: Start) -> Result<(Log, Recovery, State), Error> {
    let files = disk.files();
    let (log, recovery) = Log::open_reading(&files, options.clone(), (start.evidence, start.reading), 1)?;
    let state = state_of(&files, &log)?;
    Ok((log, recovery, state))
}

impl Rig {
    pub fn new(options: Options) -> Rig {
        let disk = SimDisk::new();
        let log = Log::create(&disk.files(), options, 1).expect("the disk is empty and well");
        Rig::with(disk, log, Model::new(State::new()))
    }

    pub fn with(disk: SimDisk, log: Log, model: Model) -> Rig {
        let (files, queue) = (disk.files(), disk.queue());
        let (prepares, removes, learned) = (VecDeque::new(), VecDeque::new(), vec![log.durable_end()]);
        let (read_buffer, is_poisoned, submitted, retired) = (ReadBuffer::default(), false, 0, None);
        Rig {
            disk,
            files,
            queue,
            log,
            prepares,
            removes,
            keeps_given_up: false,
            model,
            is_poisoned,
            learned,
            submitted,
            read_buffer,
            retired,
        }
    }

    /// How the log is opened next: drawn, by its seed and by what the disk has done.
    pub fn start(&self) -> Start {
        let seed = self.log.options().seed ^ self.disk.operations().rotate_left(32);
        Start::drawn(&self.learned, &mut Random::seeded(seed))
    }

    /// Opens what is on the disk: see [`Rig::start`].
    pub fn open(&self) -> Result<(Log, Recovery, State), Error> {
        open_as(&self.disk, self.log.options(), self.start())
    }

    /// The recovered log of this disk, whose state must be one that the model allows.
    pub fn reopened(self) -> Rig {
        let start = self.start();
        let opened = open_as(&self.disk, self.log.options(), start);
        let (log, _, found) = opened.unwrap_or_else(|error| panic!("the log does not open, {start:?}: {error}"));
        let Rig { disk, mut model, .. } = self;
        model.recover(found);
        Rig::with(disk, log, model)
    }

    pub fn append(&mut self, group: GroupId, entries: &[Entry]) {
        if self.log.append(group, entries).is_ok() {
            self.model.append(group, entries);
        }
    }

    /// Appends `count` entries behind the group's last.
    pub fn grow(&mut self, group: GroupId, count: u64, bytes: usize) {
        let last = self.model.group(group).last().index;
        let entries = self.model.entries_behind(last, count, bytes);
        self.append(group, &entries);
    }

    pub fn truncate(&mut self, group: GroupId, from: Index) {
        let before = self.log.last_ticket();
        if self.log.truncate_suffix(group, from).is_ok_and(|ticket| ticket > before) {
            self.model.truncate(group, from);
        }
    }

    pub fn purge(&mut self, group: GroupId, last: LogId) {
        let before = self.log.last_ticket();
        if self.log.purge_prefix(group, last).is_ok_and(|ticket| ticket > before) {
            let entries = self.model.group(group).entries;
            if entries.iter().any(|entry| entry.id.index == last.index && entry.id.term != last.term) {
                self.model.truncate(group, last.index);
            }
            self.model.purge(group, last);
        }
    }

    /// Takes effects; writes go to the queue, preparations wait.
    pub fn pump(&mut self) {
        while let Some(effect) = self.log.take_effect() {
            match effect {
                Effect::Write(write) => {
                    self.submitted += 1;
                    self.queue.submit(write);
                }
                Effect::Prepare(order) => self.prepares.push_back(order),
                Effect::Remove(order) => self.removes.push_back(order),
            }
        }
    }

    /// Reads what the log wants to copy forward.
    pub fn copy(&mut self) {
        while let Some(plan) = self.log.take_copy() {
            let said = plan.run_with(&self.files, &mut self.read_buffer);
            self.log.copy_read(said);
        }
    }

    pub fn prepare(&mut self, at: usize) {
        let order = self.prepares.remove(at).expect("there is one");
        if let (Some(retired), Some((old, _))) = (&mut self.retired, order.recycled) {
            retired.insert(order.header.number.0, self.disk.contents(&format!("{DIRECTORY}/{:016}.segment", old.0)));
        }
        let result = prepare(&self.files, &order);
        self.log.prepared(order.header.number, result);
    }

    fn has_removal(&self) -> bool {
        !self.removes.is_empty() && !self.keeps_given_up
    }

    /// Removes a segment that the log has given up.
    pub fn remove(&mut self) {
        let order = self.removes.pop_front().expect("there is one");
        let result = remove(&self.files, &order);
        self.log.removed(order.number, &result);
    }

    /// Hands completions to the log.
    pub fn take(&mut self) {
        while let Some(completion) = self.queue.take() {
            self.is_poisoned |= self.log.completed(completion).is_err();
        }
        let durable = self.log.durable_ticket().0 as usize;
        assert!(durable >= self.model.acknowledged, "what is durable stays so");
        self.model.acknowledged = durable;
        // As whoever has the log open does: of each new segment.
        if self.learned.last().is_none_or(|known| known.segment != self.log.durable_end().segment) {
            self.learn();
        }
    }

    /// The superblock is told where the log is durable: so it is at a close, and with each vote.
    pub fn learn(&mut self) {
        self.learned.push(self.log.durable_end());
    }

    /// One thing happens, any.
    pub fn step(&mut self, random: &mut Random) {
        self.pump();
        match random.below(3) {
            0 if !self.prepares.is_empty() => self.prepare(random.below(self.prepares.len() as u64) as usize),
            0 if self.has_removal() => self.remove(),
            1 => self.log.tick(1),
            _ => drop(self.disk.complete_any(random)),
        }
        self.take();
    }

    /// Until everything taken is durable, or nothing goes on.
    pub fn settle(&mut self) {
        for _ in 0..10_000 {
            if self.disk.is_off() {
                return;
            }
            self.pump();
            while !self.prepares.is_empty() && !self.disk.is_off() {
                self.prepare(0);
            }
            while self.has_removal() && !self.disk.is_off() {
                self.remove();
            }
            self.disk.complete_all();
            self.take();
            let waits = self.prepares.is_empty() && self.disk.pending().is_empty();
            if waits && (self.log.durable_ticket() == self.log.last_ticket() || self.is_poisoned || self.disk.is_off())
            {
                self.pump();
                if self.prepares.is_empty() && !self.has_removal() && self.disk.pending().is_empty() {
                    return;
                }
            }
            if waits && self.log.is_out_of_space() {
                return;
            }
        }
        panic!("the log does not come to rest");
    }

    /// Until the log is quiet and covered.
    pub fn rest(&mut self) {
        self.settle();
        for _ in 0..20 {
            self.log.tick(1);
            self.settle();
        }
    }

    /// Appends until another segment is in use.
    pub fn rotate(&mut self, group: GroupId) {
        let before = self.log.counters().segments;
        for _ in 0..8 {
            if self.log.counters().segments > before || self.disk.is_off() || self.is_poisoned {
                return;
            }
            self.grow(group, 1, 20_000);
            self.settle();
        }
        panic!("a segment holds three such entries");
    }

    /// What the log holds is what was appended.
    pub fn check(&self) {
        let found = state_of(&self.files, &self.log).expect("the log can be read");
        assert!(found == *self.model.state(), "{}", super::model::shown(&found));
    }
}
