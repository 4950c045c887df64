//! From a directory to an open log, or to a log made anew: what is there decides, and damage is never taken for
//! absence.

use std::io;

use super::core::wall_clock_milliseconds;
use super::error::Error;
use super::options::{Options, Recovery};
use crate::disk::{Backend, Directory, Files, Operation, Probed, choose, probe};
use crate::limits::TICK;
use crate::random::entropy;
use crate::superblock::{self, Loaded, State};
use crate::types::{ClusterId, Incarnation, Membership, NodeId};
use crate::wal::{self, Analysis, Identity, Log, Reading, Source};

/// The node id of a log that belongs to no cluster: none that a node can be given.
pub const NODE_ALONE: NodeId = NodeId(u64::MAX);
/// The log's directory below that of the superblock, as in a node's.
pub const LOG_DIRECTORY: &str = "log";
/// Locked by whoever has the log open, before anything is looked at.
pub const LOCK_NAME: &str = "lock";
/// What may be in a directory in which a log is made: traces of a making that did not come to its end.
const HALF_MADE: &[&str] = &[LOCK_NAME, LOG_DIRECTORY, "superblock.new", "lost+found"];

/// Tokens of the superblock's writes begin here; those of the log are frame numbers.
pub(super) const SUPERBLOCK_TOKENS: u64 = 1 << 63;
/// A log that is quiet for so long writes a covering frame.
const QUIET_TICKS: u32 = (50 / TICK.as_millis()) as u32;

/// An open log, before its threads run.
pub(super) struct Parts {
    pub directory: Directory,
    pub log: Log,
    pub superblock: superblock::Writer,
    pub opened: Recovery,
}

pub(super) fn open(options: &Options) -> Result<Parts, Error> {
    options.check()?;
    let shown = options.directory.display().to_string();
    let directory = open_directory(options, &shown)?;
    // A look before the lock, which is a file: nothing is made in a directory that is not ours. What was seen may
    // change until the lock is had, so it is looked at again then.
    match is_made(&directory, options, &shown) {
        // Whoever has the lock may be writing the superblock just now.
        Ok(_) | Err(Error::Superblock(_) | Error::Disk(_)) => {}
        // It came between the look for it and the list of names.
        Err(Error::NotEmpty { name, .. }) if name == superblock::FILE_NAME => {}
        Err(error) => return Err(error),
    }
    lock(&directory, &shown)?;
    let created = !is_made(&directory, options, &shown)?;
    let io = probe(&directory, options.io).map_err(Error::Io)?;
    if created {
        make(options, io.backend, &shown)?;
    }
    let loaded = superblock::load(&directory, SUPERBLOCK_TOKENS).map_err(|error| Error::superblock(error, &shown))?;
    open_log(options, directory, loaded, (created, io), &shown)
}

/// Whether there is a log by itself; an error if there is anything else, or one is not to be made.
fn is_made(directory: &Directory, options: &Options, shown: &str) -> Result<bool, Error> {
    match superblock::inspect(directory) {
        Ok(inspection) => check_alone(&inspection.state, shown).map(|()| true),
        Err(superblock::Error::NotFormatted) => check_absent(directory, options, shown).map(|()| false),
        Err(error) => Err(Error::superblock(error, shown)),
    }
}

fn open_log(
    options: &Options,
    directory: Directory,
    loaded: Loaded,
    (created, io): (bool, Probed),
    shown: &str,
) -> Result<Parts, Error> {
    let Loaded { state, writer: mut superblock, .. } = loaded;
    let identity = Identity { cluster: state.cluster, node: state.node, incarnation: state.incarnation };
    let evidence = state.durable_end;
    let lost = || Error::LogLost { directory: shown.to_owned(), evidence };
    let sync_mode = options.sync_mode.unwrap_or(state.sync_mode());
    let writes_in_flight = options.writes_in_flight.unwrap_or(state.writes_in_flight());
    let log_options = log_options(options, identity, writes_in_flight);
    let reading = if options.verify_at_start { Reading::Everything } else { Reading::BySeals };
    let opened = Log::open_reading(&directory, log_options, (evidence, reading), wall_clock_milliseconds());
    let (log, recovery) = opened.map_err(|error| match error {
        wal::Error::Missing { .. } => lost(),
        wal::Error::Disk(error) if error.operation == Operation::List && error.kind() == io::ErrorKind::NotFound => {
            lost()
        }
        error => Error::log(error, shown),
    })?;
    superblock.save(|state| state.durable_end = log.durable_end());
    let groups = log.groups().cloned().collect();
    let boot = state.boot;
    let wal::Recovery { findings, findings_more, segments, .. } = recovery;
    let opened = Recovery {
        created,
        identity,
        boot,
        io,
        sync_mode,
        writes_in_flight,
        segments,
        groups,
        findings,
        findings_more,
    };
    Ok(Parts { directory, log, superblock, opened })
}

fn open_directory(options: &Options, shown: &str) -> Result<Directory, Error> {
    match Directory::open(&options.directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => match options.create {
            true => match Directory::create(&options.directory) {
                // Somebody else makes a log here just now: the lock decides.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Directory::open(&options.directory),
                other => other,
            }
            .map_err(Error::Disk),
            false => Err(Error::Missing { directory: shown.to_owned() }),
        },
        other => other.map_err(Error::Disk),
    }
}

/// A node's directory looks the same but for the node.
fn check_alone(state: &State, shown: &str) -> Result<(), Error> {
    match state.node {
        NODE_ALONE => Ok(()),
        node => Err(Error::OfNode { directory: shown.to_owned(), node }),
    }
}

/// There is no superblock: may a log be made here?
fn check_absent(directory: &Directory, options: &Options, shown: &str) -> Result<(), Error> {
    let names = directory.list("").map_err(Error::Disk)?;
    let is_ours = |name: &str| HALF_MADE.contains(&name) || (name.starts_with("flush-time-") && name.ends_with(".tmp"));
    let holds_log = names.iter().any(|name| name == LOG_DIRECTORY);
    let foreign = names.into_iter().find(|name| !is_ours(name));
    if options.create && foreign.is_none() {
        // Whether what lies there has entries is seen under the lock.
        return Ok(());
    }
    // One that is being made by somebody else may have both by now.
    let is_made = || !matches!(superblock::inspect(directory), Err(superblock::Error::NotFormatted));
    let directory_shown = shown.to_owned();
    Err(match foreign {
        _ if holds_log && has_entries(directory) && !is_made() => Error::SuperblockLost { directory: directory_shown },
        Some(name) if options.create => Error::NotEmpty { directory: directory_shown, name },
        _ => Error::Missing { directory: directory_shown },
    })
}

/// Whether a directory without a superblock holds a log in which something was ever written, or may have been.
pub fn has_entries(files: &Directory) -> bool {
    let source = Source { reading: Reading::BySeals, ..Source::from_outside(LOG_DIRECTORY) };
    match Analysis::read(files, &source) {
        Ok(analysis) => {
            analysis.close(files);
            !analysis.is_half_made()
        }
        Err(_) => files.list(LOG_DIRECTORY).is_ok_and(|names| names.iter().any(|name| name.ends_with(".segment"))),
    }
}

/// Held until the directory is dropped.
fn lock(directory: &Directory, shown: &str) -> Result<(), Error> {
    let opened = match directory.open(LOCK_NAME) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => match directory.create(LOCK_NAME) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => directory.open(LOCK_NAME),
            other => other,
        },
        other => other,
    };
    opened.map(drop).map_err(|error| Error::disk(error, shown))
}

/// Log first, superblock last: a directory with a superblock is whole. Without one, a log in which something was ever
/// written has lost it. The handle that it is made through is dropped,
/// and its locks with it.
fn make(options: &Options, backend: Backend, shown: &str) -> Result<(), Error> {
    let files = Directory::open(&options.directory).map_err(Error::Disk)?;
    let chosen = choose(&files, backend).map_err(Error::Disk)?;
    let cluster = ClusterId(u128::from(entropy()) << 64 | u128::from(entropy()));
    let mut state = State::new(cluster, NODE_ALONE, Incarnation(entropy()), Membership::default());
    state.remember(&chosen);
    let identity = Identity { cluster, node: state.node, incarnation: state.incarnation };
    let log = Log::create(&files, log_options(options, identity, chosen.writes_in_flight), wall_clock_milliseconds());
    state.durable_end = log
        .map_err(|error| match error {
            wal::Error::Exists { .. } => Error::SuperblockLost { directory: shown.to_owned() },
            error => Error::log(error, shown),
        })?
        .durable_end();
    superblock::format(&files, &state).map_err(|error| Error::superblock(error, shown))
}

fn log_options(options: &Options, identity: Identity, writes_in_flight: usize) -> wal::Options {
    wal::Options {
        directory: LOG_DIRECTORY.to_owned(),
        identity,
        segment_bytes: options.segment_bytes,
        writes_in_flight,
        quiet_ticks: QUIET_TICKS,
        tail_cache_bytes: options.tail_cache_bytes,
        seed: entropy(),
    }
}
