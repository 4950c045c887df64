//! One piece of work of the thread that fetches: a snapshot, or a chunk that rotted.

mod mending;

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::error::FetchError;
use super::pace::Pace;
use super::way::Way;
use super::{Control, FetchOptions, Order, Progress};
use crate::disk::Files;
use crate::machine::StateMachine;
use crate::net::{self, CloseReason, SnapshotAnswer, SnapshotLink, SnapshotRefusal, SnapshotRequest};
use crate::node::driver::checkpoint::Restoring;
use crate::node::sessions::Sessions;
use crate::node::transfer::{Source, Sources, Unfit, here};
use crate::snapshot::{self, Arrival, Description, Manifest, Reader, Receiver};
use crate::types::{GroupId, LogId, NodeId};

/// Chunks that are asked for and have not come.
const CHUNKS_UNDER_WAY_MAX: usize = 4;
/// Between two rounds of all nodes in which nothing came.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// Between two looks at the room that is left.
const LOOK_BYTES: u64 = 16 << 20;
/// So long reading the state waits for a leader that is told of it.
const TELLING_MAX: Duration = Duration::from_secs(2);

/// Everything that it needs.
pub(super) struct Session<'a, F> {
    files: &'a F,
    way: Way<'a>,
    options: FetchOptions,
    control: &'a Control,
    /// Another one than the control's: this work is not wanted any more.
    generation: u64,
    pace: Pace,
    /// What has come of the ordered snapshot is of this one: nothing is added to it of another.
    begun: Option<Manifest>,
    /// What is here under the ordered name cannot be used as it is; its chunks may be right.
    is_damaged: bool,
    /// Bytes that came since the room on the disk was looked at.
    unlooked_bytes: u64,
}

/// Why one node gave no more. It may be asked again, unless it became unfit.
enum Ended {
    /// Nobody is asked any more.
    Failed(FetchError),
    /// It does not answer, or not now.
    Away(String),
    /// It gave what it has, or its source tells why it is asked no more.
    Over,
}

impl<'a, F: Files> Session<'a, F> {
    pub fn new(
        files: &'a F,
        way: Way<'a>,
        options: FetchOptions,
        control: &'a Control,
        generation: u64,
    ) -> Session<'a, F> {
        let pace = Pace::new(options.bytes_per_second, Instant::now());
        let (begun, is_damaged, unlooked_bytes) = (None, false, 0);
        Session { files, way, options, control, generation, pace, begun, is_damaged, unlooked_bytes }
    }

    /// The snapshot that is ordered, whole and durable, and its state.
    /// What comes of it stays in `kept`, open, if not all of it comes.
    pub async fn fetch<M: StateMachine>(
        &mut self,
        order: Order<M>,
        kept: &mut Option<Receiver>,
    ) -> Result<(Manifest, Sessions, M), FetchError> {
        let Order { group, point, from, others, restoring, .. } = order;
        let mut sources = Sources::new([from].into_iter().chain(others)).led_by(from);
        *self.control.untold() = Some(from);
        let manifest = self.bring(group, point, &mut sources, kept).await?;
        let (sessions, machine) = self.load(&manifest, restoring, &mut sources).await?;
        Ok((manifest, sessions, machine))
    }

    /// A snapshot, whole and durable, from one of these nodes or as it is here already. What has come before is read before
    /// anybody is asked, and once: by whoever keeps what this leaves open.
    pub async fn bring(
        &mut self,
        group: GroupId,
        point: LogId,
        sources: &mut Sources,
        kept: &mut Option<Receiver>,
    ) -> Result<Manifest, FetchError> {
        let first = sources.all.first().ok_or(FetchError::Nowhere { point, asked: sources.asked() })?.node;
        *self.control.progress() = Some(Progress::new(point, first));
        if let Some(manifest) = self.look(group, point, kept)? {
            return Ok(manifest);
        }
        match self.begun.clone().filter(|_| !self.is_damaged) {
            Some(begun) if kept.is_none() => *kept = Some(self.open(begun)?),
            _ => kept.iter_mut().for_each(Receiver::go_on),
        }
        self.show(kept.as_ref(), first);
        self.receive(group, point, sources, kept).await
    }

    /// What is here already under this name. Of what is kept open nothing stays so but what has come of this one.
    fn look(
        &mut self,
        group: GroupId,
        point: LogId,
        kept: &mut Option<Receiver>,
    ) -> Result<Option<Manifest>, FetchError> {
        let _names = self.control.names();
        let is_of = |receiver: &Receiver| {
            let of = &receiver.manifest().description;
            (of.group, of.point) == (group, point)
        };
        let put_down = |receiver: Receiver| receiver.put_down(self.files);
        kept.take_if(|receiver| !is_of(receiver)).into_iter().for_each(put_down);
        let here = here(self.files, self.options.cluster, group, point)?;
        for (name, damage) in &here.damaged {
            tracing::warn!(name, %damage, "a snapshot is damaged: what is right of it stays, the rest is fetched");
        }
        // Somebody may have removed it meanwhile.
        kept.take_if(|receiver| here.begun.as_ref() != Some(receiver.manifest())).into_iter().for_each(put_down);
        (self.begun, self.is_damaged) = (here.begun, !here.damaged.is_empty());
        Ok(here.manifest)
    }

    /// Everything that is missing, from one node after the other, in rounds.
    async fn receive(
        &mut self,
        group: GroupId,
        point: LogId,
        sources: &mut Sources,
        kept: &mut Option<Receiver>,
    ) -> Result<Manifest, FetchError> {
        match self.receive_into(kept, group, point, sources).await {
            Ok(()) => {
                let receiver = kept.take().expect("nothing is missing only where a receiver says so");
                let name = receiver.manifest().description.name();
                let (bytes, resumed) = (receiver.manifest().bytes, receiver.resumed_count());
                let finished = {
                    let _names = self.control.names();
                    receiver.finish(self.files)
                };
                let manifest = finished?;
                tracing::info!(name, bytes, chunks = manifest.chunks(), resumed, "snapshot received");
                Ok(manifest)
            }
            // The disk failed: what it holds is not known. It is removed as far as that goes, and by the next order else.
            Err(error @ FetchError::Snapshot(_)) => {
                let _names = self.control.names();
                kept.take().into_iter().for_each(|receiver| drop(receiver.abandon(self.files)));
                Err(error)
            }
            Err(error) => {
                if let Some(Err(flush)) = kept.as_mut().map(|receiver| receiver.flush(self.files)) {
                    // Whoever goes on with it has to read what there is.
                    kept.take().into_iter().for_each(|receiver| receiver.put_down(self.files));
                    return Err(flush.into());
                }
                Err(error)
            }
        }
    }

    async fn receive_into(
        &mut self,
        receiver: &mut Option<Receiver>,
        group: GroupId,
        point: LogId,
        sources: &mut Sources,
    ) -> Result<(), FetchError> {
        // All of it may have come before.
        if receiver.as_ref().is_some_and(|receiver| receiver.missing_count() == 0) {
            return Ok(());
        }
        let (mut news, mut pause, mut last) = (Instant::now(), PAUSE_MIN, String::new());
        loop {
            sources.begin_round();
            for source in &mut sources.all {
                let missing = receiver.as_ref().map(Receiver::missing_count);
                if receiver.as_ref().is_some_and(|receiver| !receiver.missing().any(|number| source.has(number)))
                    || source.unfit.is_some()
                {
                    continue;
                }
                match self.pull(receiver, group, point, source).await {
                    Ended::Failed(error) => return Err(error),
                    Ended::Away(why) => last = format!("node {}: {why}", source.node),
                    Ended::Over => {}
                }
                if receiver.as_ref().map(Receiver::missing_count) != missing {
                    (news, pause) = (Instant::now(), PAUSE_MIN);
                }
                if receiver.as_ref().is_some_and(|receiver| receiver.missing_count() == 0) {
                    return Ok(());
                }
            }
            if sources.is_exhausted(receiver.iter().flat_map(Receiver::missing)) {
                return Err(FetchError::Nowhere { point, asked: sources.asked() });
            }
            if sources.is_given_up() {
                return Err(FetchError::Left { point, asked: sources.asked(), last });
            }
            self.pause(&mut pause, news, point, &last).await.map_err(|error| match error {
                FetchError::Stuck { last, .. } if sources.is_left_by_leader() => {
                    FetchError::Left { point, asked: sources.asked(), last }
                }
                error => error,
            })?;
        }
    }

    /// Between two rounds. An error if nothing came for too long.
    async fn pause(&self, pause: &mut Duration, news: Instant, point: LogId, last: &str) -> Result<(), FetchError> {
        let patience = self.options.patience;
        if news.elapsed() >= patience {
            return Err(FetchError::Stuck { point, patience, last: last.to_owned() });
        }
        self.unless_interrupted(tokio::time::sleep(*pause)).await?;
        *pause = (*pause * 2).min(PAUSE_MAX);
        Ok(())
    }

    /// As much as one node gives.
    async fn pull(
        &mut self,
        receiver: &mut Option<Receiver>,
        group: GroupId,
        point: LogId,
        source: &mut Source,
    ) -> Ended {
        self.show(receiver.as_ref(), source.node);
        let pulled = async {
            let mut link = self.link(source.node).await?;
            let found = self.manifest(&mut link, group, point, source).await?;
            self.control.untold().take_if(|leader| *leader == source.node);
            let Some(manifest) = found else { return Ok(()) };
            if let Some(begun) = self.begun.as_ref().filter(|begun| **begun != manifest) {
                differs(source, begun, &manifest);
                return Ok(());
            }
            if receiver.is_none() {
                *receiver = Some(self.open(manifest).map_err(Ended::Failed)?);
            }
            let receiver = receiver.as_mut().expect("it was opened above");
            self.show(Some(receiver), source.node);
            self.chunks(&mut link, receiver, source).await
        };
        pulled.await.err().unwrap_or(Ended::Over)
    }

    fn open(&mut self, manifest: Manifest) -> Result<Receiver, FetchError> {
        let is_new = self.begun.is_none() && !self.is_damaged;
        self.check_room(if is_new { manifest.bytes } else { 0 })?;
        self.begun = Some(manifest.clone());
        let _names = self.control.names();
        if std::mem::take(&mut self.is_damaged) {
            snapshot::reopen(self.files, &manifest)?;
        }
        let is_wanted = || self.check().is_ok();
        let opened = Receiver::open_while(self.files, manifest, self.options.cluster, is_wanted)?;
        let receiver = opened.ok_or(FetchError::Interrupted)?;
        if receiver.resumed_count() > 0 {
            let (name, chunks) = (receiver.manifest().description.name(), receiver.resumed_count());
            tracing::info!(name, chunks, "goes on with what has come of the snapshot before");
        }
        Ok(receiver)
    }

    /// What is left free is the log's.
    fn check_room(&self, bytes: u64) -> Result<(), FetchError> {
        let kept_free_bytes = self.options.kept_free_bytes;
        if kept_free_bytes == 0 {
            return Ok(());
        }
        let free_bytes = self.files.free_bytes().map_err(snapshot::Error::from)?;
        let needed_bytes = kept_free_bytes + bytes;
        match free_bytes >= needed_bytes {
            true => Ok(()),
            false => Err(snapshot::Error::NoRoom { needed_bytes, free_bytes }.into()),
        }
    }

    /// All chunks that are missing and that this node is not known to lack, a few under way.
    async fn chunks(
        &mut self,
        link: &mut SnapshotLink,
        receiver: &mut Receiver,
        source: &mut Source,
    ) -> Result<(), Ended> {
        let wanted: Vec<u32> = receiver.missing().filter(|number| source.has(*number)).collect();
        let (mut wanted, mut asked) = (wanted.into_iter().peekable(), VecDeque::new());
        let of = receiver.manifest().description.clone();
        loop {
            let next = wanted.peek().copied().filter(|_| asked.len() < CHUNKS_UNDER_WAY_MAX);
            let wait = next.map(|_| self.pace.wait(Instant::now()));
            let Some(answer) = self.answer_before(link, !asked.is_empty(), wait).await? else {
                let Some(number) = next else { return Ok(()) };
                self.pace.take(receiver.manifest().place(number).1, Instant::now());
                let (group, point) = (of.group, of.point);
                self.ask(link, SnapshotRequest::Chunk { group, point, number }).await?;
                asked.push_back(number);
                wanted.next();
                continue;
            };
            let Some(number) = asked.pop_front() else { return Ok(()) };
            let Some(bytes) = self.chunk(answer, number, source)? else {
                if source.unfit.is_some() {
                    return Ok(());
                }
                continue;
            };
            self.unlooked_bytes += bytes.len() as u64;
            if self.unlooked_bytes >= LOOK_BYTES {
                self.unlooked_bytes = 0;
                self.check_room(0).map_err(Ended::Failed)?;
            }
            let taken = receiver.take(self.files, number, &bytes).map_err(|error| Ended::Failed(error.into()))?;
            if taken == Arrival::Bad {
                is_bad(source, &of.name(), number);
            }
            self.show(Some(receiver), source.node);
        }
    }

    /// The state, from the snapshot that is whole here. A chunk that cannot be used is fetched anew.
    async fn load<M: StateMachine>(
        &mut self,
        manifest: &Manifest,
        mut restoring: Restoring<M>,
        sources: &mut Sources,
    ) -> Result<(Sessions, M), FetchError> {
        let mut reader = Reader::open(self.files, manifest.clone())?;
        let point = manifest.description.point;
        let mut number = 0;
        while number < manifest.chunks() {
            self.show_installed(manifest, manifest.place(number).0);
            self.tell_leader(&manifest.description).await;
            let read = self.check().and_then(|()| match reader.chunk(self.files, number) {
                Ok(bytes) => restoring.add(bytes).map(|()| true).map_err(|source| FetchError::State { point, source }),
                Err(_) => Ok(false),
            });
            match read {
                Ok(true) => number += 1,
                Ok(false) => {
                    reader.close(self.files);
                    self.mend(manifest, number, sources).await?;
                    reader = Reader::open(self.files, manifest.clone())?;
                }
                Err(error) => {
                    reader.close(self.files);
                    return Err(error);
                }
            }
        }
        reader.close(self.files);
        restoring.finish().map_err(|source| FetchError::State { point, source })
    }

    /// A leader that was not asked for anything learns what is fetched by the question for its manifest. What it answers is of
    /// no interest, and neither is it if it does not: all of it is here, and is the same whoever leads.
    async fn tell_leader(&self, of: &Description) {
        let Some(leader) = self.control.untold().take() else { return };
        let telling = async {
            let mut link = self.link(leader).await?;
            self.ask(&mut link, SnapshotRequest::Manifest { group: of.group, point: of.point }).await?;
            self.answer(&mut link).await.map(drop)
        };
        let why = match tokio::time::timeout(TELLING_MAX, telling).await {
            Ok(Err(Ended::Away(why))) => why,
            Ok(_) => return,
            Err(_) => format!("no answer within {TELLING_MAX:?}"),
        };
        tracing::info!(node = %leader, point = %of.point, "who leads may not know that this snapshot is read here: {why}");
    }

    /// A node's manifest of the snapshot; none if that is not one to be used.
    async fn manifest(
        &mut self,
        link: &mut SnapshotLink,
        group: GroupId,
        point: LogId,
        source: &mut Source,
    ) -> Result<Option<Manifest>, Ended> {
        self.ask(link, SnapshotRequest::Manifest { group, point }).await?;
        let bytes = match self.answer(link).await? {
            SnapshotAnswer::Manifest(bytes) => bytes,
            other => return self.refused(other, None, source),
        };
        let found = source.judge(&bytes, self.options.cluster, group, point);
        if let Some(Unfit::Manifest(why)) = &source.unfit {
            let node = source.node;
            tracing::error!(%node, %point, "a node sent what is no manifest of its snapshot: {why}");
        }
        Ok(found)
    }

    /// The answer to the oldest question, if there is one and the time for the next question does not come before it:
    /// what has come is not left lying while the pace holds back what is to be asked.
    async fn answer_before(
        &self,
        link: &mut SnapshotLink,
        is_asked: bool,
        wait: Option<Duration>,
    ) -> Result<Option<SnapshotAnswer>, Ended> {
        match (is_asked, wait) {
            (_, Some(Duration::ZERO)) | (false, None) => Ok(None),
            (true, None) => self.answer(link).await.map(Some),
            (true, Some(wait)) => tokio::time::timeout(wait, self.answer(link)).await.ok().transpose(),
            (false, Some(wait)) => {
                self.unless_interrupted(tokio::time::sleep(wait)).await.map_err(Ended::Failed)?;
                Ok(None)
            }
        }
    }

    /// The chunk that an answer holds; none if the node does not have it.
    fn chunk(&self, answer: SnapshotAnswer, number: u32, source: &mut Source) -> Result<Option<Bytes>, Ended> {
        match answer {
            SnapshotAnswer::Chunk { number: found, bytes } if found == number => {
                self.control.chunks_received.fetch_add(1, Ordering::Relaxed);
                Ok(Some(bytes))
            }
            other => self.refused(other, Some(number), source),
        }
    }

    fn refused<T>(&self, answer: SnapshotAnswer, number: Option<u32>, source: &mut Source) -> Result<Option<T>, Ended> {
        match answer {
            SnapshotAnswer::Refused(refusal) if source.is_refusal(refusal, number) => {
                if let SnapshotRefusal::Damaged { number } = refusal {
                    tracing::warn!(node = %source.node, number, "a chunk is damaged on the node that was asked");
                }
                Ok(None)
            }
            SnapshotAnswer::Refused(SnapshotRefusal::Busy) => Err(Ended::Away("it is busy".to_owned())),
            _ => Err(Ended::Away("it answered another question than was asked".to_owned())),
        }
    }

    async fn link(&self, node: NodeId) -> Result<SnapshotLink, Ended> {
        match self.timed(self.way.link(node)).await? {
            // Whoever they ask: it is said of the certificate.
            Err(source @ net::Error::Closed { reason: CloseReason::WrongRole, .. }) => {
                Err(Ended::Failed(FetchError::NotAllowed { node, source }))
            }
            Err(error) => Err(Ended::Away(error.to_string())),
            Ok(link) => Ok(link),
        }
    }

    async fn ask(&self, link: &mut SnapshotLink, request: SnapshotRequest) -> Result<(), Ended> {
        self.asked(link.ask(&request)).await
    }

    async fn answer(&self, link: &mut SnapshotLink) -> Result<SnapshotAnswer, Ended> {
        self.asked(link.answer()).await
    }

    /// Something of the network, as long as it is wanted and does not take too long.
    async fn asked<T>(&self, doing: impl Future<Output = Result<T, net::Error>>) -> Result<T, Ended> {
        self.timed(doing).await?.map_err(|error| Ended::Away(error.to_string()))
    }

    async fn timed<T>(&self, doing: impl Future<Output = T>) -> Result<T, Ended> {
        let timed = tokio::time::timeout(self.options.answer_timeout, doing);
        match self.unless_interrupted(timed).await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(_)) => Err(Ended::Away(format!("no answer within {:?}", self.options.answer_timeout))),
            Err(interrupted) => Err(Ended::Failed(interrupted)),
        }
    }

    async fn unless_interrupted<T>(&self, doing: impl Future<Output = T>) -> Result<T, FetchError> {
        let mut doing = std::pin::pin!(doing);
        loop {
            self.check()?;
            tokio::select! {
                done = &mut doing => return Ok(done),
                () = self.control.changed.notified() => {}
            }
        }
    }

    fn check(&self) -> Result<(), FetchError> {
        let is_same = self.control.generation.load(Ordering::Acquire) == self.generation;
        let is_wanted = is_same && !self.control.is_over.load(Ordering::Acquire);
        if is_wanted { Ok(()) } else { Err(FetchError::Interrupted) }
    }

    fn show(&self, receiver: Option<&Receiver>, from: NodeId) {
        let mut progress = self.control.progress();
        let Some(progress) = progress.as_mut() else { return };
        progress.from = from;
        let Some(receiver) = receiver else { return };
        let (manifest, missing) = (receiver.manifest(), receiver.missing_count());
        let of = |chunks: u32| (u64::from(chunks) * u64::from(manifest.chunk_bytes)).min(manifest.bytes);
        let before = (progress.bytes, progress.bytes_here);
        progress.bytes = manifest.bytes;
        progress.bytes_here = of(manifest.chunks() - missing);
        progress.bytes_resumed = of(receiver.resumed_count());
        if (progress.bytes, progress.bytes_here) != before {
            progress.moved = Instant::now();
        }
    }

    /// All of it is here, and so much of that is read.
    fn show_installed(&self, manifest: &Manifest, bytes_installed: u64) {
        let mut progress = self.control.progress();
        let Some(progress) = progress.as_mut() else { return };
        (progress.bytes, progress.bytes_here) = (manifest.bytes, manifest.bytes);
        (progress.bytes_installed, progress.moved) = (bytes_installed, Instant::now());
    }
}

/// Nodes make the same of the same log: that these did not is an error of the program, or of one of them.
fn differs(source: &mut Source, ours: &Manifest, theirs: &Manifest) {
    let (name, difference) = (ours.description.name(), ours.difference(theirs));
    tracing::error!(
        node = %source.node, name, difference,
        "a node has another state at the same point than what is here, or than another node: nothing of it is taken; compare \
         the nodes"
    );
    source.unfit = Some(Unfit::Another);
}

/// What came has passed TLS: it left the other node so.
fn is_bad(source: &mut Source, name: &str, number: u32) {
    tracing::warn!(name, number, node = %source.node, "what came is not the chunk that was asked for");
    source.damaged.insert(number);
}
