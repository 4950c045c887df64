//! Snapshots that go from node to node: what `node::run::fetching` and `node::run::serving` do with threads and sockets, a
//! step at a time among all else that happens.
//!
//! ```text
//!   FetchSnapshot ──▶ Looking ──not here──▶ Receiving ──all there, durable──▶ Loading ──▶ Driver::fetched
//!                        ╰──────────whole here──────────────────────────────▶  │  ▲
//!                                                                              ▼  │
//!                                                                            Mending
//! ```
//!
//! Questions and answers are the frames that the snapshot protocol has. A question is lost, late or doubled as any
//! message; without an answer in time the next node is asked, as where a connection breaks. What was fetched goes with the
//! process, and what has come stays on its disk: the next one goes on with it. Rot may befall a chunk behind the last check
//! of who sends it.

mod fetch;

pub(super) use fetch::Fetch;

use bytes::{Bytes, BytesMut};
use fetch::{Loading, Pull, Stage};

use super::cluster::{Happening, Simulation};
use super::disk::SimFiles;
use super::links::Greeting;
use super::node::{CLUSTER, Process, node_at, node_id};
use super::oracles::{Broken, Oracle};
use super::scenario::{MILLISECOND, SECOND};
use super::steps::Doing;
use super::trace::Label;
use crate::machine::Map;
use crate::net::{self, SnapshotAnswer, SnapshotRefusal, SnapshotRequest};
use crate::node::driver::{Input, NotFetched, SnapshotReport};
use crate::node::sessions::Sessions;
use crate::node::transfer::{Sources, Unfit, here};
use crate::snapshot::{self, Arrival, Manifest, Mended, Reader, Receiver};
use crate::types::{GroupId, LogId, NodeId};

/// Chunks that are asked for and have not come.
const UNDER_WAY_MAX: usize = 4;
/// A node that has not answered for so long is taken for gone.
const ANSWER_TIMEOUT: u64 = 300 * MILLISECOND;
/// Between two rounds of all nodes.
const PAUSE_MAX: u64 = 200 * MILLISECOND;
/// After so long without any news it is given up.
const PATIENCE: u64 = 3 * SECOND;
/// Of a thousand questions so many find all seats taken.
const BUSY_PER_MILLE: u64 = 20;
/// Of a thousand chunks so many rot behind their last check, where snapshots rot at all.
const ROT_ON_THE_WAY_PER_MILLE: u64 = 20;
/// After an answer who serves may close what it reads from: as after a while without a question.
const CLOSES_PER_MILLE: u64 = 100;

/// What happens with a transfer.
#[derive(Debug)]
pub(super) enum Transfer {
    /// The next step of what a node fetches.
    Step {
        life: u64,
        fetch: u64,
    },
    /// A question arrives at who is to have the snapshot.
    Question {
        from: usize,
        life: u64,
        fetch: u64,
        question: u64,
        greeting: Greeting,
        bytes: Bytes,
    },
    Answer {
        life: u64,
        fetch: u64,
        question: u64,
        bytes: Bytes,
    },
    /// The time is over in which a question is answered.
    Deadline {
        life: u64,
        fetch: u64,
        question: u64,
    },
}

/// What comes after a step.
enum After {
    Step,
    /// A round of all nodes brought nothing.
    Pause,
    /// An answer, or the end of the time for it.
    Answer,
    Done(Box<(Manifest, Sessions, Map)>),
    Failed(NotFetched),
}

/// It is not needed any more. What has come stays.
pub(super) fn end_fetch(process: &mut Process) {
    if let Some(fetch) = process.fetch.take() {
        fetch.end(&process.files, false);
    }
}

impl Simulation {
    /// A node is to fetch the snapshot at this point, and nothing else any more.
    pub(super) fn begin_fetch(&mut self, node: usize, process: &mut Process, from: NodeId, point: LogId) {
        end_fetch(process);
        let others = process.driver.replica().correspondents().into_iter().map(|member| member.id);
        process.last_fetch += 1;
        let number = process.last_fetch;
        process.fetch = Some(Fetch {
            number,
            point,
            sources: Sources::new([from].into_iter().chain(others)).led_by(from),
            next_source: 0,
            pull: None,
            last_question: 0,
            news: self.now,
            stage: Stage::Looking,
            begun: None,
            is_damaged: false,
        });
        self.report.fetches += 1;
        self.order_step(node, number);
    }

    pub(super) fn transfer(&mut self, node: usize, what: Transfer) -> Result<(), Broken> {
        match what {
            Transfer::Step { life, fetch } => self.with_fetch(node, (life, fetch), Simulation::advance),
            Transfer::Answer { life, fetch, question, bytes } => {
                self.with_fetch(node, (life, fetch), |simulation, node, process, fetch| {
                    simulation.take_answer(node, process, fetch, question, bytes)
                })
            }
            Transfer::Deadline { life, fetch, question } => self.with_fetch(node, (life, fetch), |_, _, _, fetch| {
                let is_late = |pull: &mut Pull| pull.under_way.contains_key(&question);
                Ok(Ok(if fetch.pull.take_if(is_late).is_some() { After::Step } else { After::Answer }))
            }),
            Transfer::Question { from, life, fetch, question, greeting, bytes } => {
                self.serve(node, from, &greeting, &bytes, |bytes| Transfer::Answer { life, fetch, question, bytes })
            }
        }
    }

    /// Does something of what a node fetches, if it still does, and what follows from it.
    fn with_fetch(
        &mut self,
        node: usize,
        (life, number): (u64, u64),
        step: impl FnOnce(
            &mut Simulation,
            usize,
            &mut Process,
            &mut Fetch,
        ) -> Result<Result<After, snapshot::Error>, Broken>,
    ) -> Result<(), Broken> {
        if !self.lives(node, life) {
            return Ok(());
        }
        let mut process = self.nodes[node].process.take().expect("it lives");
        if let Some(mut fetch) = process.fetch.take_if(|fetch| fetch.number == number) {
            let doing = fetch.doing();
            let said = self.while_doing(doing, |simulation| step(simulation, node, &mut process, &mut fetch))?;
            if !self.nodes[node].disk.is_off() {
                self.follow_fetch(node, &mut process, fetch, said);
            }
        }
        self.nodes[node].process = Some(process);
        Ok(())
    }

    fn follow_fetch(&mut self, node: usize, process: &mut Process, fetch: Fetch, said: Result<After, snapshot::Error>) {
        let (number, point) = (fetch.number, fetch.point);
        let result = match said {
            Ok(After::Step) => {
                process.fetch = Some(fetch);
                return self.order_step(node, number);
            }
            Ok(After::Pause) => {
                process.fetch = Some(fetch);
                let (after, life) = (self.fetch_random.below(PAUSE_MAX), self.nodes[node].life);
                let what = Transfer::Step { life, fetch: number };
                return self.order(after, Happening::Transfer { node, what });
            }
            Ok(After::Answer) => return process.fetch = Some(fetch),
            Ok(After::Done(fetched)) => {
                self.report.snapshots_fetched += 1;
                Ok(*fetched)
            }
            Ok(After::Failed(why)) => {
                fetch.end(&process.files, false);
                Err(why)
            }
            Err(error) => {
                fetch.end(&process.files, true);
                Err(NotFetched { what: error.to_string(), goes_on: error.is_no_space() })
            }
        };
        if !self.nodes[node].disk.is_off() {
            self.report.fetches_failed += u64::from(result.is_err());
            process.installs = result.is_ok();
            process.driver.fetched(point, result);
            self.run_soon(node);
        }
    }

    fn order_step(&mut self, node: usize, fetch: u64) {
        let after = self.fetch_random.below(self.options.snapshots.step_time_max);
        let what = Transfer::Step { life: self.nodes[node].life, fetch };
        self.order(after, Happening::Transfer { node, what });
    }

    /// The next thing.
    fn advance(
        &mut self,
        node: usize,
        process: &mut Process,
        fetch: &mut Fetch,
    ) -> Result<Result<After, snapshot::Error>, Broken> {
        match &mut fetch.stage {
            Stage::Looking => Ok(here(&process.files, CLUSTER, GroupId::CLUSTER, fetch.point).map(|here| {
                (fetch.begun, fetch.is_damaged) = (here.begun, !here.damaged.is_empty());
                fetch.stage = match here.manifest {
                    Some(manifest) => Stage::Loading(Loading::of(manifest, process)),
                    None => Stage::Receiving(None),
                };
                After::Step
            })),
            Stage::Receiving(receiver) if receiver.as_ref().is_some_and(|receiver| receiver.missing_count() == 0) => {
                let receiver = receiver.take().expect("looked at just now");
                fetch.pull = None;
                Ok(receiver.finish(&process.files).map(|manifest| {
                    self.report.snapshots_received += 1;
                    fetch.stage = Stage::Loading(Loading::of(manifest, process));
                    After::Step
                }))
            }
            Stage::Receiving(_) | Stage::Mending(_) => Ok(Ok(self.pull(node, process, fetch))),
            Stage::Loading(_) => self.load(node, process, fetch),
        }
    }

    /// One more chunk of the state.
    fn load(
        &mut self,
        node: usize,
        process: &Process,
        fetch: &mut Fetch,
    ) -> Result<Result<After, snapshot::Error>, Broken> {
        let Stage::Loading(mut loading) = std::mem::replace(&mut fetch.stage, Stage::Looking) else {
            unreachable!("only a whole one is loaded")
        };
        let files = &process.files;
        let mut reader = match loading.reader.take().map_or_else(|| Reader::open(files, loading.manifest.clone()), Ok) {
            Ok(reader) => reader,
            Err(error) => return Ok(Err(error)),
        };
        let point = fetch.point;
        let no_state = |error| {
            let explanation = format!("the state at {point}, whole on node {}, does not load: {error}", node_id(node));
            Broken::new(Oracle::Recovery, explanation)
        };
        if loading.next == loading.manifest.chunks() {
            reader.close(files);
            let (sessions, map) = loading.restoring.finish().map_err(no_state)?;
            return Ok(Ok(After::Done(Box::new((loading.manifest, sessions, map)))));
        }
        match reader.chunk(files, loading.next) {
            Ok(bytes) => {
                loading.restoring.add(bytes).map_err(no_state)?;
                loading.next += 1;
                loading.reader = Some(reader);
                fetch.stage = Stage::Loading(loading);
            }
            Err(_) if self.nodes[node].disk.is_off() => {}
            Err(error) if !self.nodes[node].has_rotten_snapshot => {
                let explanation = format!("node {} has received it whole, and: {error}", node_id(node));
                return Err(Broken::new(Oracle::Recovery, explanation));
            }
            Err(_) => {
                reader.close(files);
                fetch.news = self.now;
                fetch.stage = Stage::Mending(loading);
            }
        }
        Ok(Ok(After::Step))
    }

    /// Asks one node for what it may have of what is wanted, then the next one.
    fn pull(&mut self, node: usize, process: &Process, fetch: &mut Fetch) -> After {
        let (group, point) = (GroupId::CLUSTER, fetch.point);
        let Some(pull) = &mut fetch.pull else {
            if fetch.turn_to_next() {
                self.ask_for(node, process, fetch, SnapshotRequest::Manifest { group, point });
                return After::Answer;
            }
            if fetch.sources.is_exhausted(fetch.wanted().into_iter().flatten()) {
                let what = format!("no node gives the snapshot at {point}: {}", fetch.sources.asked());
                return After::Failed(NotFetched { what, goes_on: false });
            }
            if fetch.sources.is_given_up() {
                let what = format!("the leader has the snapshot at {point} no more: {}", fetch.sources.asked());
                return After::Failed(NotFetched { what, goes_on: false });
            }
            if self.now >= fetch.news + PATIENCE {
                let what = format!("the snapshot at {point} does not come");
                return After::Failed(NotFetched { what, goes_on: !fetch.sources.is_left_by_leader() });
            }
            fetch.next_source = 0;
            fetch.sources.begin_round();
            return After::Pause;
        };
        if pull.under_way.len() < UNDER_WAY_MAX
            && let Some(number) = pull.wanted.pop_front()
        {
            self.ask_for(node, process, fetch, SnapshotRequest::Chunk { group, point, number });
            return After::Step;
        }
        if !pull.under_way.is_empty() {
            return After::Answer;
        }
        fetch.pull = None;
        After::Step
    }

    fn ask_for(&mut self, node: usize, process: &Process, fetch: &mut Fetch, request: SnapshotRequest) {
        let pull = fetch.pull.as_mut().expect("a node is asked");
        fetch.last_question += 1;
        let asked = if let SnapshotRequest::Chunk { number, .. } = request { Some(number) } else { None };
        pull.under_way.insert(fetch.last_question, asked);
        let (life, number, question) = (self.nodes[node].life, fetch.number, fetch.last_question);
        let to = node_at(fetch.sources.all[pull.source].node);
        let mut bytes = BytesMut::new();
        net::put_snapshot_request(&mut bytes, &request);
        let bytes = bytes.freeze();
        self.note(Label::Message, &[self.now, node as u64, to as u64], &bytes);
        let late = Transfer::Deadline { life, fetch: number, question };
        self.order(ANSWER_TIMEOUT, Happening::Transfer { node, what: late });
        let Some(greeting) = self.greet(node, process, to) else { return };
        for arrival in self.network.between_nodes(self.now, node, to) {
            let bytes = bytes.clone();
            let what = Transfer::Question { from: node, life, fetch: number, question, greeting, bytes };
            self.order(arrival - self.now, Happening::Transfer { node: to, what });
        }
    }

    /// A node is asked for its snapshot.
    fn serve(
        &mut self,
        node: usize,
        from: usize,
        greeting: &Greeting,
        bytes: &Bytes,
        answer: impl Fn(Bytes) -> Transfer,
    ) -> Result<(), Broken> {
        if self.nodes[node].process.is_none() || !self.is_welcome(node, greeting, from) {
            return Ok(());
        }
        let garbled = |error| Broken::new(Oracle::Whole, format!("a question is garbled: {error}"));
        let request = net::snapshot_request(&frame(bytes)).map_err(garbled)?;
        let mut process = self.nodes[node].process.take().expect("looked at just now");
        let is_listed = process.driver.replica().membership().member(node_id(from)).is_some();
        // Also where no seat is free.
        if let (true, SnapshotRequest::Manifest { point, .. }) = (is_listed, request) {
            process.driver.handle(Input::SnapshotAsked { node: node_id(from), point });
        }
        let said = match is_listed && !self.fetch_random.chance(BUSY_PER_MILLE) {
            true => self.while_doing(Doing::Sending, |_| process.shelf.answer(request).0),
            false => SnapshotAnswer::Refused(SnapshotRefusal::Busy),
        };
        if self.fetch_random.chance(CLOSES_PER_MILLE) {
            process.shelf.close();
        }
        self.nodes[node].process = Some(process);
        if self.nodes[node].disk.is_off() {
            return Ok(());
        }
        let said = self.rot_on_the_way(said);
        let mut bytes = BytesMut::new();
        net::put_snapshot_answer(&mut bytes, &said);
        let bytes = bytes.freeze();
        self.note(Label::Message, &[self.now, node as u64, from as u64], &bytes);
        for arrival in self.network.between_nodes(self.now, node, from) {
            let what = answer(bytes.clone());
            self.order(arrival - self.now, Happening::Transfer { node: from, what });
        }
        Ok(())
    }

    /// Counts what is sent; now and then it is not what was read.
    fn rot_on_the_way(&mut self, said: SnapshotAnswer) -> SnapshotAnswer {
        match said {
            SnapshotAnswer::Chunk { number, bytes } => {
                self.report.chunks_sent += 1;
                let rots = self.options.faults.snapshot_rot > 0 && self.calm_since.is_none();
                if !rots || !self.fetch_random.chance(ROT_ON_THE_WAY_PER_MILLE) {
                    return SnapshotAnswer::Chunk { number, bytes };
                }
                let mut bytes = bytes.to_vec();
                let at = self.fetch_random.below(bytes.len() as u64) as usize;
                bytes[at] ^= 1 << self.fetch_random.below(8);
                SnapshotAnswer::Chunk { number, bytes: Bytes::from(bytes) }
            }
            SnapshotAnswer::Refused(SnapshotRefusal::Damaged { number }) => {
                self.report.chunks_refused += 1;
                SnapshotAnswer::Refused(SnapshotRefusal::Damaged { number })
            }
            other => other,
        }
    }

    fn take_answer(
        &mut self,
        node: usize,
        process: &Process,
        fetch: &mut Fetch,
        question: u64,
        bytes: Bytes,
    ) -> Result<Result<After, snapshot::Error>, Broken> {
        let garbled = |error| Broken::new(Oracle::Whole, format!("an answer is garbled: {error}"));
        let answer = net::snapshot_answer(frame(&bytes)).map_err(garbled)?;
        let Some(pull) = &mut fetch.pull else { return Ok(Ok(After::Answer)) };
        let Some(asked) = pull.under_way.remove(&question) else { return Ok(Ok(After::Answer)) };
        let source = &mut fetch.sources.all[pull.source];
        let goes_on = match (asked, answer) {
            (None, SnapshotAnswer::Manifest(bytes)) => {
                match source.judge(&bytes, CLUSTER, GroupId::CLUSTER, fetch.point) {
                    Some(manifest) => self.compare(process, fetch, manifest),
                    None => Ok(false),
                }
            }
            (Some(number), SnapshotAnswer::Chunk { number: found, bytes }) if number == found => {
                self.take_chunk(node, process, fetch, number, &bytes)
            }
            (asked, SnapshotAnswer::Refused(refusal)) => {
                Ok(source.is_refusal(refusal, asked) && source.unfit.is_none())
            }
            _ => Ok(false),
        };
        Ok(goes_on.map(|goes_on| {
            if !goes_on {
                fetch.pull = None;
            }
            After::Step
        }))
    }

    /// A node's manifest is there: whether it is asked for chunks.
    fn compare(&mut self, process: &Process, fetch: &mut Fetch, manifest: Manifest) -> Result<bool, snapshot::Error> {
        let is_another = fetch.begun.as_ref().is_some_and(|begun| *begun != manifest);
        if matches!(fetch.stage, Stage::Receiving(None)) && !is_another {
            if std::mem::take(&mut fetch.is_damaged) {
                snapshot::reopen(&process.files, &manifest)?;
            }
            fetch.begun = Some(manifest.clone());
            let receiver = Receiver::open(&process.files, manifest.clone(), CLUSTER)?;
            self.report.chunks_resumed += u64::from(receiver.resumed_count());
            self.report.fetches_resumed += u64::from(receiver.resumed_count() > 0);
            fetch.stage = Stage::Receiving(Some(receiver));
        }
        let is_same = fetch.manifest() == Some(&manifest);
        let wanted = fetch.wanted().unwrap_or_default();
        let pull = fetch.pull.as_mut().expect("it was asked");
        let source = &mut fetch.sources.all[pull.source];
        if is_same {
            pull.wanted = wanted.into_iter().filter(|number| source.has(*number)).collect();
        } else {
            source.unfit = Some(Unfit::Another);
        }
        Ok(is_same)
    }

    /// A chunk is there: whether the same node is asked for more.
    fn take_chunk(
        &mut self,
        node: usize,
        process: &Process,
        fetch: &mut Fetch,
        number: u32,
        bytes: &[u8],
    ) -> Result<bool, snapshot::Error> {
        let pull = fetch.pull.as_ref().expect("it was asked");
        let source = &mut fetch.sources.all[pull.source];
        match &mut fetch.stage {
            Stage::Receiving(Some(receiver)) => match receiver.take(&process.files, number, bytes)? {
                Arrival::New => {
                    self.report.chunks_received += 1;
                    fetch.news = self.now;
                }
                Arrival::Known => {}
                Arrival::Bad => {
                    self.report.chunks_bad += 1;
                    source.damaged.insert(number);
                }
            },
            Stage::Mending(loading) => {
                match snapshot::mend(&process.files, &loading.manifest, number, bytes)? {
                    Mended::Bad => {
                        self.report.chunks_bad += 1;
                        source.damaged.insert(number);
                        return Ok(true);
                    }
                    Mended::Done => self.report.chunks_mended += 1,
                    Mended::WasRight => {}
                }
                let Stage::Mending(loading) = std::mem::replace(&mut fetch.stage, Stage::Looking) else {
                    unreachable!("looked at just now")
                };
                fetch.stage = Stage::Loading(loading);
                return Ok(false);
            }
            Stage::Looking | Stage::Receiving(None) | Stage::Loading(_) => {
                unreachable!("node {node} asked for no chunk")
            }
        }
        Ok(true)
    }

    /// What a node tells its operator.
    pub(super) fn on_snapshot_report(&mut self, report: &SnapshotReport) {
        self.report.snapshots_installed += u64::from(matches!(report, SnapshotReport::Installed(_)));
    }
}

fn frame(bytes: &Bytes) -> net::Frame {
    net::Frame { kind: bytes[net::FRAME_HEAD_BYTES - 1], body: bytes.slice(net::FRAME_HEAD_BYTES..) }
}
