//! What a disk holds, looked at from outside: on forks, so that looking changes nothing.

use super::disk::{SimDisk, SimFiles};
use super::node::{Process, start};
use super::oracles::{Broken, Oracle, Oracles};
use crate::limits::BLOCK_BYTES;
use crate::machine::Map;
use crate::net::{ClientKey, Consistency, Refusal, Request, RequestBody, ResponseBody};
use crate::node::driver::{self, Driver, Effect, Input, LOG_DIRECTORY};
use crate::raft::invariants::Invariants;
use crate::raft::{Body, Message, Replica};
use crate::random::Random;
use crate::superblock;
use crate::types::{GroupId, HardState, Index, LogId, Term};
use crate::wal::{Analysis, GroupLog, Source};

/// Operations of a recovery among which one is cut short.
const RECOVERY_OPERATIONS: u64 = 60;
/// Bytes asked for at once when a whole log is read.
const READ_BYTES: u32 = 1 << 20;

/// What a recovery gives.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Recovered {
    hard_state: HardState,
    last: LogId,
    terms: Vec<Option<Term>>,
}

impl Recovered {
    fn of(driver: &Driver<Map>) -> Recovered {
        let replica = driver.replica();
        let status = replica.status();
        let terms = (0..=status.last.index.0).map(|index| replica.term_at(Index(index))).collect();
        Recovered { hard_state: status.hard_state, last: status.last, terms }
    }
}

/// A message that has just left says nothing that a cut of power now could make untrue.
pub(super) fn check_spoken(
    invariants: &Invariants,
    message: &Message,
    replica: &Replica,
    disk: &SimDisk,
) -> Result<(), Broken> {
    let disk = disk.fork();
    disk.crash_with(&mut |_| 0);
    let files = disk.files();
    let unreadable = |error: String| Broken::new(Oracle::Recovery, format!("what is on the disk is unusable: {error}"));
    let state = superblock::inspect(&files).map_err(|error| unreadable(error.to_string()))?.state;
    let hard_state = state.group(GroupId::CLUSTER).hard_state;
    // Only what vouches for entries is compared with the log, which costs most.
    let says_entries = matches!(message.body, Body::AppendReply(_));
    let group = if says_entries { group_on_disk(&files).map_err(unreadable)? } else { None };
    let term_on_disk = |index: Index| match &group {
        Some(group) => group.id_at(index).map(|id| id.term),
        None => (index == Index::ZERO).then_some(Term::ZERO),
    };
    invariants.sent_over_disk(message, replica, hard_state, term_on_disk)?;
    Ok(())
}

/// The cluster's log as a recovery would find it.
fn group_on_disk(files: &SimFiles) -> Result<Option<GroupLog>, String> {
    let source = Source::from_outside(LOG_DIRECTORY);
    let mut analysis = Analysis::read(files, &source).map_err(|error| error.to_string())?;
    Ok(analysis.groups.remove(&GroupId::CLUSTER))
}

/// To recover, and to recover again after a cut of power at any moment of it, gives the same. Only what was never spoken may
/// go with a start that was cut short: a term or vote that one pair of the superblock alone holds, which that start wrote over.
pub(super) fn check_repeated(disk: &SimDisk, options: &driver::Options, random: &mut Random) -> Result<(), Broken> {
    let once = recover(&disk.fork(), options)?;
    let spoken = spoken(disk);
    let twice = disk.fork();
    recover(&twice, options)?;
    twice.crash(random);
    compare("twice", &once, &recover(&twice, options)?)?;
    let interrupted = disk.fork();
    for _ in 0..2 {
        interrupted.crash_at(interrupted.operations() + random.below(RECOVERY_OPERATIONS));
        if start(&interrupted, options, 0).is_err() && !interrupted.is_off() {
            return Err(Broken::new(Oracle::Recovery, "a recovery that was interrupted cannot be repeated"));
        }
        interrupted.crash(random);
    }
    let recovered = recover(&interrupted, options)?;
    let is_spoken = spoken == Some(recovered.hard_state);
    let once = if is_spoken { Recovered { hard_state: recovered.hard_state, ..once } } else { once };
    compare("after interruptions", &once, &recovered)
}

/// What both pairs of the superblock hold at least. Where one of them cannot be used by itself it was being written, and what
/// it was to say had not been spoken: the other one counts.
fn spoken(disk: &SimDisk) -> Option<HardState> {
    let without = |pair: std::ops::Range<u64>| {
        let disk = disk.fork();
        disk.zero(superblock::FILE_NAME, pair);
        let inspected = superblock::inspect(&disk.files()).ok()?;
        Some(inspected.state.group(GroupId::CLUSTER).hard_state)
    };
    let pair_bytes = 2 * BLOCK_BYTES as u64;
    let pairs = [without(pair_bytes..2 * pair_bytes), without(0..pair_bytes)];
    pairs.into_iter().flatten().min_by_key(|state| (state.term, state.vote))
}

fn recover(disk: &SimDisk, options: &driver::Options) -> Result<Recovered, Broken> {
    match start(disk, options, 0) {
        Ok(started) => Ok(Recovered::of(&started.driver)),
        Err(error) => Err(Broken::new(Oracle::Recovery, format!("node {} does not recover: {error}", options.node))),
    }
}

fn compare(how: &str, once: &Recovered, other: &Recovered) -> Result<(), Broken> {
    if once == other {
        return Ok(());
    }
    let explanation =
        format!("recovered {how}: {:?} {}, once: {:?} {}", other.hard_state, other.last, once.hard_state, once.last);
    Err(Broken::new(Oracle::Recovery, explanation))
}

/// Reads a node's whole log as a client would, and compares it with what clients were told. All is there that was not
/// trimmed as far as the node knows, and nothing that was.
pub(super) fn check_log(process: &mut Process, oracles: &Oracles) -> Result<(), Broken> {
    let applied = process.driver.applied().0.index;
    let end = applied.next();
    // A log that was taken over from another node may begin where that node knew it to be trimmed.
    let mut from = oracles.trims.readable_from_at(applied).max(process.driver.replica().first_index());
    if from > Index::FIRST {
        match read(process, from.previous())? {
            ResponseBody::Refused(refusal) if refusal == (Refusal::Trimmed { first: from }) => {}
            body => {
                let explanation = format!("the log is trimmed up to {from}, and a read before it gives {body:?}");
                return Err(Broken::new(Oracle::Acknowledged, explanation));
            }
        }
    }
    while from < end {
        let records = match read(process, from)? {
            ResponseBody::Records(records) => records,
            body => return Err(Broken::new(Oracle::Acknowledged, format!("the log cannot be read: {body:?}"))),
        };
        if records.next <= from {
            return Err(Broken::new(Oracle::Acknowledged, format!("the log cannot be read on from {from}")));
        }
        oracles.check_records(from, records.next, &records.records)?;
        from = records.next;
    }
    Ok(())
}

fn read(process: &mut Process, from: Index) -> Result<ResponseBody, Broken> {
    let body = RequestBody::Read { from, to: None, bytes_max: READ_BYTES, consistency: Consistency::Stale };
    let auditor = ClientKey(u64::MAX);
    process.driver.handle(Input::Client { client: auditor, request: Request { id: 0, body } });
    let stops = |error: String| Broken::new(Oracle::Recovery, format!("a node stops when it is read: {error}"));
    // The read of the log, then its answer.
    for _ in 0..2 {
        let mut effects = Vec::new();
        process.driver.take_effects(&mut effects).map_err(|error| stops(error.to_string()))?;
        for effect in effects {
            match effect {
                Effect::ReadLog { read, plan, .. } => {
                    let result = plan.run_with(&process.files, &mut process.read_buffer);
                    process.driver.handle(Input::ReadDone { read, result });
                }
                Effect::Reply { client, response } if client == auditor => {
                    return Ok(response.body);
                }
                _ => {}
            }
        }
    }
    Err(Broken::new(Oracle::Progress, format!("the log from {from} on is not read")))
}
