//! What a node fetches, and how far it is.

use std::collections::{BTreeMap, VecDeque};

use super::{Doing, Process, SimFiles};
use crate::machine::Map;
use crate::node::driver::checkpoint::Restoring;
use crate::node::transfer::{Source, Sources};
use crate::snapshot::{Manifest, Reader, Receiver};
use crate::types::LogId;

/// What a process fetches.
#[derive(Debug)]
pub struct Fetch {
    /// Which one it is of its process.
    pub number: u64,
    pub point: LogId,
    pub sources: Sources,
    /// Where in the round the next node stands.
    pub next_source: usize,
    pub pull: Option<Pull>,
    pub last_question: u64,
    /// When something came last.
    pub news: u64,
    pub stage: Stage,
    /// What had come when it was begun is of this one; then the one that is received.
    pub begun: Option<Manifest>,
    /// What stands under its name is damaged as a whole.
    pub is_damaged: bool,
}

/// What is asked of one node.
#[derive(Debug)]
pub struct Pull {
    pub source: usize,
    /// In order. What was asked for is in `under_way`.
    pub wanted: VecDeque<u32>,
    /// By the number of the question: which chunk, or the manifest.
    pub under_way: BTreeMap<u64, Option<u32>>,
}

#[derive(Debug)]
pub enum Stage {
    Looking,
    /// There is a receiver as soon as a node has given its manifest.
    Receiving(Option<Receiver>),
    Loading(Loading),
    /// The next chunk to be loaded cannot be used.
    Mending(Loading),
}

/// The state, from the snapshot that is whole here.
#[derive(Debug)]
pub struct Loading {
    pub manifest: Manifest,
    pub restoring: Restoring<Map>,
    pub reader: Option<Reader>,
    pub next: u32,
}

impl Fetch {
    /// The chunks that are wanted, if it is known which there are.
    pub fn wanted(&self) -> Option<Vec<u32>> {
        match &self.stage {
            Stage::Receiving(Some(receiver)) => Some(receiver.missing().collect()),
            Stage::Mending(loading) => Some(vec![loading.next]),
            Stage::Looking | Stage::Receiving(None) | Stage::Loading(_) => None,
        }
    }

    pub fn doing(&self) -> Doing {
        match self.stage {
            Stage::Looking | Stage::Receiving(_) => Doing::Receiving,
            Stage::Loading(_) | Stage::Mending(_) => Doing::Loading,
        }
    }

    /// Which one all nodes must have.
    pub fn manifest(&self) -> Option<&Manifest> {
        match &self.stage {
            Stage::Receiving(receiver) => receiver.as_ref().map(Receiver::manifest),
            Stage::Mending(loading) | Stage::Loading(loading) => Some(&loading.manifest),
            Stage::Looking => None,
        }
    }

    /// The next node of the round that may have something of what is wanted.
    pub fn turn_to_next(&mut self) -> bool {
        let wanted = self.wanted();
        let may_have = |source: &Source| match &wanted {
            Some(wanted) => wanted.iter().any(|number| source.has(*number)),
            None => source.unfit.is_none(),
        };
        let all = &self.sources.all;
        let Some(source) = (self.next_source..all.len()).find(|at| may_have(&all[*at])) else { return false };
        self.next_source = source + 1;
        self.pull = Some(Pull { source, wanted: VecDeque::new(), under_way: BTreeMap::new() });
        true
    }

    /// What has come stays, if that can be flushed. A receiver whose disk failed leaves nothing that passes for more.
    pub fn end(self, files: &SimFiles, has_failed: bool) {
        let Stage::Receiving(Some(receiver)) = self.stage else { return };
        // What cannot be removed or flushed comes again.
        let _ = if has_failed { receiver.abandon(files) } else { receiver.close(files) };
    }
}

impl Loading {
    pub fn of(manifest: Manifest, process: &Process) -> Loading {
        let restoring = process.driver.restoring().expect("the map takes states");
        Loading { manifest, restoring, reader: None, next: 0 }
    }
}
