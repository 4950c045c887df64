//! Which snapshot a node begins from, and its state (design §8).
//!
//! The newest one is taken that is whole, whose point this node's log has under the same name, and whose state reads back. One
//! that cannot be used is told, and left as it is; the next older one is tried, and at last the log by itself, if it
//! begins at its first entry. A node never begins with an empty state where there was more.
//!
//! A state machine that has kept its own state goes on from that, if the log reaches back to it; a snapshot is then only
//! what this node can offer to others.

use super::checkpoint::Restoring;
use super::durable::Own;
use super::installing::Coming;
use super::start::StartError;
use crate::disk::Files;
use crate::machine::StateMachine;
use crate::mutant::{self, Mutant};
use crate::node::sessions::{Limits, Sessions};
use crate::snapshot::{self, Condition, Damage, Description, Found, Listing, Manifest, Reach, Reader};
use crate::types::{ClusterId, GroupId, Index, LogId};
use crate::wal::GroupLog;

/// A snapshot that the node does not begin from, and ought to have been able to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SnapshotFinding {
    pub what: String,
    pub next_step: String,
    /// The snapshot of which a chunk is not what was written, or cannot be read: another node may have it.
    pub rotten: Option<Box<Manifest>>,
}

impl std::fmt::Display for SnapshotFinding {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}; {}", self.what, self.next_step)
    }
}

/// What a node begins with.
#[derive(Debug)]
pub(super) struct Beginning<M> {
    pub sessions: Sessions,
    pub machine: M,
    /// As of which entry they are; none of an empty state.
    pub from: Option<Description>,
    /// The snapshot that they are of, or else the newest that is whole; and the bytes of its state.
    pub snapshot: Option<(LogId, u64)>,
    /// The next older one from which the node could begin, as far as its manifest tells.
    pub older: Option<LogId>,
    /// The machine had kept them.
    pub is_own: bool,
    pub findings: Vec<SnapshotFinding>,
    /// Points of those that are there and cannot be used.
    pub damaged: Vec<LogId>,
    /// Points of those that are whole and not in the log: they are older than its start, or came from a peer and were not
    /// begun from.
    pub elsewhere: Vec<LogId>,
    /// The superblock says that the log begins after the snapshot, and it does not: what it holds goes.
    pub begins_log: bool,
    /// The log does not reach back to any state, and comes to this one later.
    pub coming: Option<Coming<M>>,
}

/// What the superblock says of the group.
#[derive(Clone, Copy, Debug)]
pub(super) struct Named {
    pub point: LogId,
    pub log_start: Index,
    /// The node was made with its cluster: if it has no state, nobody need have one.
    pub is_founder: bool,
}

impl Named {
    /// The log is to begin behind the snapshot, and does not yet: an installation was cut short.
    fn is_to_begin(self, log: &GroupLog) -> bool {
        let Named { point, log_start, .. } = self;
        point != LogId::ZERO && log_start == point.index.next() && log.first() < log_start && !is_in(log, point)
    }
}

fn is_in(log: &GroupLog, point: LogId) -> bool {
    log.id_at(point.index) == Some(point)
}

/// Looks through the snapshots.
pub(super) fn choose<F: Files, M: StateMachine>(
    files: &F,
    cluster: ClusterId,
    (log, named): (&GroupLog, Named),
    (machine, own): (M, Option<Own>),
    limits: Limits,
) -> Result<Beginning<M>, StartError> {
    // A manifest is written when the log is durable up to its point, and the superblock names it later still.
    let (point, begins_log) = (named.point, named.is_to_begin(log));
    let is_within = point != LogId::ZERO && point.index >= log.before_first.index;
    // A log that has not begun where the superblock says is the one before: an installation was cut short.
    let has_begun = log.first() >= named.log_start;
    if is_within && has_begun && !is_in(log, point) {
        return Err(StartError::SnapshotBeyondLog { point, last: log.last });
    }
    let mut beginning = Beginning::empty(machine, limits);
    let takes_snapshots = beginning.machine.restoring().is_some();
    let mut own = own.map(|own| usable(own, (log, named), takes_snapshots)).transpose()?.flatten();
    if !takes_snapshots {
        return match own {
            Some(own) => Ok(beginning.with_own(own)),
            None => beginning.refuse_empty(log, named),
        };
    }
    snapshot::settle(files)?;
    let listing = snapshot::list(files, Some(cluster))?;
    let whole: Vec<Manifest> = listing.whole(GroupId::CLUSTER).rev().cloned().collect();
    // One before the log's start is of no use, and may have gone.
    beginning.note_all(listing, cluster, if is_within { point } else { LogId::ZERO });
    let is_named = |of: LogId| begins_log && of == point;
    let is_usable = |of: LogId| is_in(log, of) || is_named(of);
    beginning.elsewhere =
        whole.iter().map(|manifest| manifest.description.point).filter(|of| !is_usable(*of)).collect();
    // A log that is to begin later will not have what lies behind that state.
    if let Some(own) = own.take_if(|_| !begins_log) {
        let mut usable = whole.iter().filter(|manifest| is_in(log, manifest.description.point));
        let snapshot = usable.next().map(|manifest| (manifest.description.point, manifest.bytes));
        let older = usable.next().map(|older| older.description.point);
        return Ok(Beginning { snapshot, older, ..beginning.with_own(own) });
    }
    let mut usable = whole.iter().filter(|manifest| is_usable(manifest.description.point));
    while let Some(manifest) = usable.next() {
        match load(files, manifest, &beginning.machine, limits) {
            Ok((sessions, machine)) => {
                let from = Some(manifest.description.clone());
                let begins_log = is_named(manifest.description.point);
                let snapshot = Some((manifest.description.point, manifest.bytes));
                let older = usable.next().map(|older| older.description.point).filter(|_| !begins_log);
                return Ok(Beginning { sessions, machine, from, snapshot, older, begins_log, ..beginning });
            }
            Err(error) => {
                beginning.note_damage(&error, manifest);
                if mutant::is_on(Mutant::SnapshotDamagedIsEmpty) {
                    let snapshot = Some((manifest.description.point, 0));
                    return Ok(Beginning { from: Some(manifest.description.clone()), snapshot, ..beginning });
                }
            }
        }
    }
    if log.before_first != LogId::ZERO {
        beginning.find_coming(files, &whole, log, limits);
    }
    match own {
        // It cannot begin later: it is as it was before that was tried.
        Some(own) => Ok(beginning.with_own(own)),
        None => beginning.refuse_empty(log, named),
    }
}

/// What a machine has kept, if the log reaches back to it. Where it does not, only a snapshot helps.
fn usable(own: Own, (log, named): (&GroupLog, Named), takes_snapshots: bool) -> Result<Option<Own>, StartError> {
    let applied = own.of.point;
    if applied.index < log.before_first.index {
        let first = log.first().max(named.log_start);
        return if takes_snapshots { Ok(None) } else { Err(StartError::MachineBehindLog { applied, first }) };
    }
    match is_in(log, applied) {
        true => Ok(Some(own)),
        false => Err(StartError::MachineBeyondLog { applied, last: log.last }),
    }
}

impl<M: StateMachine> Beginning<M> {
    /// A log that was begun with another node's, and has not come to the point of its state yet.
    fn find_coming(&mut self, files: &impl Files, whole: &[Manifest], log: &GroupLog, limits: Limits) {
        for manifest in whole.iter().filter(|manifest| manifest.description.point.index > log.last.index) {
            match load(files, manifest, &self.machine, limits) {
                Ok((sessions, machine)) => {
                    let (of, bytes) = (manifest.description.clone(), manifest.bytes);
                    self.coming = Some(Coming { of, bytes, sessions, machine });
                    return;
                }
                Err(error) => {
                    self.note_damage(&error, manifest);
                }
            }
        }
    }
}

impl<M> Beginning<M> {
    fn empty(machine: M, limits: Limits) -> Beginning<M> {
        let (findings, damaged) = (Vec::new(), Vec::new());
        Beginning {
            sessions: Sessions::with_limits(limits),
            machine,
            from: None,
            snapshot: None,
            older: None,
            is_own: false,
            findings,
            damaged,
            elsewhere: Vec::new(),
            begins_log: false,
            coming: None,
        }
    }

    /// The machine goes on from what it has kept.
    fn with_own(self, own: Own) -> Beginning<M> {
        Beginning { sessions: own.sessions, from: Some(own.of), is_own: true, ..self }
    }

    /// The machine was made of a snapshot just now.
    pub fn is_of_snapshot(&self) -> bool {
        self.from.is_some() && !self.is_own
    }

    /// As of which entry the state is, or will be.
    pub fn described(&self) -> Option<&Description> {
        self.from.as_ref().or(self.coming.as_ref().map(|coming| &coming.of))
    }

    /// An empty state is right only where the log has its first entry, and is not to begin later: one that was restored
    /// from a snapshot has no entry yet.
    fn refuse_empty(self, log: &GroupLog, named: Named) -> Result<Beginning<M>, StartError> {
        let is_restored = named.is_to_begin(log) && named.is_founder && log.last == LogId::ZERO;
        if (log.before_first == LogId::ZERO && !is_restored) || self.coming.is_some() {
            return Ok(self);
        }
        let findings: Vec<String> = self.findings.iter().map(|finding| finding.what.clone()).collect();
        Err(StartError::NoState { first: log.first().max(named.log_start), findings: findings.join("; ") })
    }

    /// What an earlier process left. That it stays is no reason not to start.
    pub fn remove_superfluous(&mut self, files: &impl Files, cluster: ClusterId, (log, named): (&GroupLog, LogId)) {
        let unusable = self.damaged.iter().chain(&self.elsewhere).copied().collect();
        let reach = Reach { log: log.before_first.index..=log.last.index, unusable, offered: Vec::new() };
        let removed = snapshot::remove_superfluous(files, cluster, GroupId::CLUSTER, named, &reach);
        removed.err().iter().for_each(|error| self.note(error));
    }

    fn note(&mut self, error: &snapshot::Error) {
        let (what, next_step) = (error.to_string(), error.next_step());
        self.findings.push(SnapshotFinding { what, next_step, rotten: None });
    }

    /// One that is whole by its manifest does not read back.
    fn note_damage(&mut self, error: &snapshot::Error, manifest: &Manifest) {
        self.note(error);
        self.damaged.push(manifest.description.point);
        if error.is_rot() {
            let finding = self.findings.last_mut().expect("it was noted above");
            finding.rotten = Some(Box::new(manifest.clone()));
        }
    }

    /// What a look at names and manifests shows.
    fn note_all(&mut self, listing: Listing, cluster: ClusterId, named: LogId) {
        let is_named = |found: &&Found| found.group == GroupId::CLUSTER && found.point == named;
        let is_finished = |found: &Found| !matches!(found.condition, Condition::Unfinished(_));
        if named != LogId::ZERO && !listing.found.iter().filter(is_named).any(is_finished) {
            self.findings.push(SnapshotFinding {
                what: format!("the snapshot at {named}, which the superblock names, is not there"),
                next_step: "see who removes files from this directory: an older snapshot and the log are used"
                    .to_owned(),
                rotten: None,
            });
        }
        for found in listing.found {
            let point = found.point;
            if let Some(error) = found.into_error(cluster) {
                self.note(&error);
                self.damaged.push(point);
            }
        }
        self.findings.extend(listing.strange.into_iter().map(|name| SnapshotFinding {
            what: format!("{name} is no name of a snapshot, and is not looked at"),
            next_step: "remove it, or give it the name that it had".to_owned(),
            rotten: None,
        }));
    }
}

fn load<F: Files, M: StateMachine>(
    files: &F,
    manifest: &Manifest,
    machine: &M,
    limits: Limits,
) -> Result<(Sessions, M), snapshot::Error> {
    let name = manifest.description.name();
    let no_state = |error| snapshot::Error::Damaged { name: name.clone(), damage: Damage::State(error) };
    let mut restoring = Restoring::new(machine, limits).expect("asked before: the machine restores states");
    let mut reader = Reader::open(files, manifest.clone())?;
    let read = (0..manifest.chunks()).try_for_each(|number| match reader.chunk(files, number) {
        Ok(chunk) => restoring.add(chunk).map_err(no_state),
        Err(error) => Err(error),
    });
    reader.close(files);
    read?;
    let (sessions, machine) = restoring.finish().map_err(no_state)?;
    let sessions =
        if mutant::is_on(Mutant::SnapshotWithoutSessions) { Sessions::with_limits(limits) } else { sessions };
    Ok((sessions, machine))
}
