//! How the errors of the parts become exit codes and next steps.

use std::io::ErrorKind;
use std::path::Path;

use super::{Exit, Failure};
use crate::disk::{self, Directory};
use crate::machine;
use crate::net::{self, CertificateError};
use crate::node::driver::{StartError, Stopped};
use crate::node::run::RunError;
use crate::snapshot;
use crate::superblock;
use crate::wal;
use crate::wal::handle::{self, has_entries};

/// What becomes of a node that was removed.
const REMOVED_STEP: &str = "the cluster needs nothing of it any more. To bring this machine back, run `trilith init --config FILE \
                            --join`, which keeps what is here beside a new directory, and then the command that it prints";

/// A state machine whose state cannot be used.
const MACHINE_ANEW_STEP: &str = "keep the state machine's state as it is, and move it away: where the log has its first entry, or there \
                                 is a snapshot, a start without it makes it anew; else put back a copy of it";

/// The way back of a node that has lost what it had promised.
pub const NO_VOICE_STEP: &str = "it must not vote again as what it was. Put its newest directory back if this is an older copy of it; else, \
                                 while a majority runs: `trilith cluster remove` with its id, then `trilith init --config FILE \
                                 --join`, which keeps what is here beside a new directory and prints how to add the node again";

/// Why a node in `directory` did not start, or stopped.
pub fn of_node(error: &RunError, directory: &Path) -> Failure {
    let message = format!("{}: {error}", directory.display());
    match error {
        RunError::Disk(disk) => of_disk(disk, message),
        RunError::Probe(disk::ProbeError::Refused { remedy, .. }) => {
            Failure::new(Exit::IoUringRefused, message, *remedy)
        }
        RunError::Probe(disk::ProbeError::Disk(disk)) => of_disk(disk, message),
        RunError::Start(start) => of_start(start, directory, message),
        RunError::Network(network) => of_network(network, message),
        RunError::Stopped(Stopped::Disk(disk)) if disk.is_no_space() => Failure::new(
            Exit::DiskFailed,
            message,
            "a write was refused for lack of space after room was reserved (a copy-on-write or thin volume?): free \
             space, then start the node again; it recovers by itself",
        ),
        RunError::Stopped(Stopped::Disk(_)) => Failure::new(
            Exit::DiskFailed,
            message,
            "check the disk (kernel log, SMART); start the node again only if the cause is known: it recovers what is \
             on the disk, and the others have the rest",
        ),
        RunError::Stopped(Stopped::Log(_)) => Failure::new(
            Exit::Usage,
            message,
            "give every node the same `segment_bytes`, large enough for the largest record; nodes that run compare it",
        ),
        RunError::Unfinished { .. } => Failure::new(
            Exit::DiskFailed,
            message,
            "nothing that was acknowledged is missing; check the disk (kernel log, SMART) before the next start",
        ),
        RunError::Stopped(Stopped::Contradicted(contradiction)) if contradiction.takes_voice() => {
            Failure::new(Exit::Corrupt, message, NO_VOICE_STEP)
        }
        RunError::Stopped(Stopped::Contradicted(contradiction)) => {
            Failure::new(Exit::Corrupt, message, contradiction.next_step())
        }
        RunError::Stopped(Stopped::VoiceTaken { .. }) => Failure::new(Exit::WrongIdentity, message, NO_VOICE_STEP),
        RunError::Removed { .. } => Failure::new(Exit::WrongIdentity, message, REMOVED_STEP),
        RunError::Stopped(Stopped::Read(read)) => of_log(read, directory, message),
        RunError::Stopped(Stopped::Machine(machine)) => of_machine(machine, message),
    }
}

/// A certificate, key or list that cannot be used.
pub fn of_certificate(error: &CertificateError) -> Failure {
    Failure::new(
        Exit::Certificate,
        error.to_string(),
        "check the paths and the names with `trilith cert show FILE`; `trilith cert` makes new ones",
    )
}

fn of_start(error: &StartError, directory: &Path, message: String) -> Failure {
    match error {
        StartError::Superblock(superblock) => match **superblock {
            superblock::Error::Damaged { .. } => Failure::new(Exit::Corrupt, message, NO_VOICE_STEP),
            _ => of_superblock(superblock, directory, message),
        },
        StartError::Log(log) => of_log(log, directory, message),
        StartError::StaleSuperblock { .. } => Failure::new(Exit::Corrupt, message, NO_VOICE_STEP),
        StartError::Machine(machine) => of_machine(machine, message),
        StartError::MachineDamaged { .. } => Failure::new(Exit::Corrupt, message, MACHINE_ANEW_STEP),
        StartError::MachineOfAnother { .. } => Failure::new(
            Exit::WrongIdentity,
            message,
            "nothing was changed. Check where the state machine keeps its state; if it is of an earlier life of this node, \
             move it away: the log, or a snapshot, makes it anew",
        ),
        StartError::MachineBeyondLog { .. } | StartError::SnapshotBeyondLog { .. } => {
            Failure::new(Exit::Corrupt, message, NO_VOICE_STEP)
        }
        StartError::MachineBehindLog { .. } => Failure::new(
            Exit::Corrupt,
            message,
            "nothing was changed. Put back a copy of the state machine's state, of this node, which is new enough; without \
             one this machine cannot come to the state that the log goes on from",
        ),
        StartError::LogRefuses(_) => Failure::new(Exit::Corrupt, message, verify_step(directory)),
        StartError::Snapshot(snapshot::Error::Disk(disk)) => of_disk(disk, message),
        StartError::Snapshot(snapshot) => Failure::new(Exit::DiskFailed, message, snapshot.next_step()),
        StartError::NoState { .. } => Failure::new(
            Exit::Corrupt,
            message,
            "nothing was changed; `trilith snapshot verify` says what is wrong with the snapshots. While a majority runs: \
             `trilith cluster remove` with its id, then `trilith init --config FILE --join`, which keeps what is here beside \
             a new directory and prints how to add the node again",
        ),
        StartError::NoVoice => Failure::new(Exit::WrongIdentity, message, NO_VOICE_STEP),
        StartError::Removed => Failure::new(Exit::WrongIdentity, message, REMOVED_STEP),
    }
}

/// A state machine whose store cannot be worked with.
fn of_machine(error: &machine::Error, message: String) -> Failure {
    match error {
        machine::Error::Failed(_) => Failure::new(
            Exit::DiskFailed,
            message,
            "check the disk that the state machine keeps its state on, then start the node again: what the state lacks is \
             in the log",
        ),
        machine::Error::Corrupt(_) => Failure::new(Exit::Corrupt, message, MACHINE_ANEW_STEP),
    }
}

/// A superblock that cannot be worked with.
pub fn of_superblock(error: &superblock::Error, directory: &Path, message: String) -> Failure {
    use superblock::Error;
    match error {
        Error::NotFormatted if Directory::open(directory).is_ok_and(|files| has_entries(&files)) => {
            superblock_lost(directory)
        }
        Error::NotFormatted => Failure::new(
            Exit::WrongIdentity,
            message,
            "run `trilith init --config FILE` once for a new node, with --initial in a new cluster and with --join in one \
             that exists; if this node had data, its directory is not mounted or the path is wrong",
        ),
        Error::AlreadyFormatted => Failure::new(
            Exit::WrongIdentity,
            message,
            "nothing was changed; start it with `trilith node --config FILE`",
        ),
        Error::Damaged { .. } => Failure::new(Exit::Corrupt, message, verify_step(directory)),
        Error::NewerFormat { .. } => {
            Failure::new(Exit::NewerFormat, message, "use the version that wrote it, or newer")
        }
        Error::WrongCluster { .. } | Error::WrongNode { .. } => Failure::new(
            Exit::WrongIdentity,
            message,
            "check `data_directory`, `node_id` and the certificate in the configuration; nothing was changed",
        ),
        Error::Disk(disk) => of_disk(disk, message),
    }
}

fn superblock_lost(directory: &Path) -> Failure {
    let lost = handle::Error::SuperblockLost { directory: directory.display().to_string() };
    Failure::new(Exit::Corrupt, lost.to_string(), lost.next_step())
}

/// A log that cannot be opened or read.
pub fn of_log(error: &wal::Error, directory: &Path, message: String) -> Failure {
    use wal::Error;
    match error {
        Error::Disk(disk) if disk.operation == disk::Operation::List && disk.kind() == ErrorKind::NotFound => {
            Failure::new(Exit::Corrupt, message, verify_step(directory))
        }
        Error::Disk(disk) => of_disk(disk, message),
        Error::Damaged(finding) => {
            Failure::new(Exit::Corrupt, message, finding.next_step(&directory.display().to_string(), true))
        }
        Error::Missing { .. } => Failure::new(Exit::Corrupt, message, verify_step(directory)),
        Error::Exists { .. } => superblock_lost(directory),
        Error::WrongIdentity { .. } => Failure::new(
            Exit::WrongIdentity,
            message,
            "these files belong to another node or another life of it; put back what belongs here",
        ),
        Error::NewerFormat { .. } => {
            Failure::new(Exit::NewerFormat, message, "use the version that wrote it, or newer")
        }
        Error::Stale { .. } => Failure::new(Exit::Unavailable, message, "read again"),
        Error::Trimmed { first, .. } => Failure::new(Exit::Usage, message, format!("read from {first} on")),
    }
}

/// An operation on a file that failed.
pub fn of_disk(error: &disk::Error, message: String) -> Failure {
    if error.is_locked() {
        let next = "another process has this directory: stop it first (its end may take as long as its last write)";
        return Failure::new(Exit::InUse, message, next);
    }
    let exit = match (error.kind(), error.operation) {
        _ if error.is_no_space() => Exit::NoSpace,
        (ErrorKind::NotFound, disk::Operation::Open) => {
            return Failure::new(
                Exit::WrongIdentity,
                message,
                "check the path and the mount; `trilith init` makes a node's directory, `trilith node` never does",
            );
        }
        (ErrorKind::PermissionDenied, _) => Exit::Other,
        (_, disk::Operation::Write | disk::Operation::Flush | disk::Operation::Read) => Exit::DiskFailed,
        _ => Exit::Other,
    };
    Failure::new(exit, message, error.next_step())
}

fn of_network(error: &net::Error, message: String) -> Failure {
    match error {
        net::Error::Certificate(certificate) => of_certificate(certificate),
        net::Error::Bind { .. } => {
            Failure::new(Exit::Usage, message, "choose another `listen` address, or stop what uses this one")
        }
        _ => Failure::new(Exit::Unavailable, message, "check that the nodes can reach each other over UDP"),
    }
}

fn verify_step(directory: &Path) -> String {
    format!(
        "nothing was cut and nothing was changed. See what is damaged with `trilith wal verify {}` and keep the directory; \
         the others serve while they are a majority. Never make it anew under the same id: it would vote twice",
        wal::shell_quoted(&directory.display().to_string())
    )
}
