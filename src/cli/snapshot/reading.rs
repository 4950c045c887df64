//! Reads the snapshots of a directory without changing anything in it.

use std::path::Path;

use crate::cli::exit::{Exit, Failure};
use crate::disk::{self, Directory, Files};
use crate::snapshot::{self, BadChunk, Condition, Listing, Manifest};
use crate::superblock;
use crate::types::{ClusterId, GroupId, LogId};

/// What a directory holds.
#[derive(Debug)]
pub struct Reading {
    pub directory: String,
    /// As its superblock says, if it is a node's.
    pub cluster: Option<ClusterId>,
    pub listing: Listing,
    pub findings: Vec<Finding>,
}

/// What is wrong.
#[derive(Debug)]
pub struct Finding {
    /// Of the snapshot, or `superblock`.
    pub name: String,
    pub exit: Exit,
    pub what: String,
    pub next_step: String,
}

/// A directory of this machine.
pub fn open(path: &Path) -> Result<Directory, Failure> {
    Directory::open(path).map_err(|error| disk_failure(&error))
}

impl Reading {
    /// Looks at manifests and lengths; with `every_chunk`, at all bytes.
    pub fn take(files: &impl Files, directory: String, every_chunk: bool) -> Result<Reading, Failure> {
        let (state, complaint) = match superblock::inspect(files) {
            Ok(inspection) => (Some(inspection.state), None),
            Err(superblock::Error::NotFormatted) => (None, None),
            Err(error) => (None, Some(error)),
        };
        let cluster = state.as_ref().map(|state| state.cluster);
        let listing = list(files, cluster)?;
        let mut reading = Reading { directory, cluster, listing, findings: Vec::new() };
        reading.findings.extend(complaint.map(|error| {
            let next_step = format!("`trilith wal verify {}` says what is wrong with it", reading.directory);
            Finding { name: superblock::FILE_NAME.to_owned(), exit: Exit::Corrupt, what: error.to_string(), next_step }
        }));
        reading.judge(files, every_chunk);
        for (group, of_group) in state.iter().flat_map(|state| &state.groups) {
            reading.miss(*group, of_group.snapshot);
        }
        if !reading.findings.is_empty() {
            // A node that runs may have removed one since.
            let names = files.list("").map_err(|error| disk_failure(&error))?;
            reading.findings.retain(|finding| names.contains(&finding.name) || finding.name == superblock::FILE_NAME);
        }
        Ok(reading)
    }

    fn judge(&mut self, files: &impl Files, every_chunk: bool) {
        for found in &self.listing.found {
            let (exit, what) = match &found.condition {
                Condition::Unfinished(_) => continue,
                Condition::Whole(manifest) if every_chunk => match chunks(files, manifest) {
                    None => continue,
                    Some(bad) => bad,
                },
                Condition::Whole(_) => continue,
                Condition::Damaged(damage) => (Exit::Corrupt, damage.to_string()),
                Condition::Foreign { cluster } => (Exit::WrongIdentity, format!("it is of cluster {cluster}")),
                Condition::Newer { format } => (Exit::NewerFormat, format!("it has format {format}")),
                Condition::Unreadable(error) => (Exit::DiskFailed, error.to_string()),
            };
            let next_step = next_step(exit).to_owned();
            self.findings.push(Finding { name: found.name.clone(), exit, what, next_step });
        }
    }

    /// The superblock names a snapshot that is not there.
    fn miss(&mut self, group: GroupId, point: LogId) {
        let is_there = self.listing.found.iter().any(|found| {
            found.group == group && found.point == point && !matches!(found.condition, Condition::Unfinished(_))
        });
        if point != LogId::ZERO && !is_there {
            self.findings.push(Finding {
                name: superblock::FILE_NAME.to_owned(),
                exit: Exit::Corrupt,
                what: format!("it names the snapshot of group {group} at {point}, which is not there"),
                next_step: "put it back, if somebody moved it; the log before it may be gone".to_owned(),
            });
        }
    }
}

/// What is wrong with the chunks.
fn chunks(files: &impl Files, manifest: &Manifest) -> Option<(Exit, String)> {
    let bad = match snapshot::verify(files, manifest) {
        Ok(bad) => bad,
        Err(snapshot::Error::Disk(error)) => return Some((Exit::DiskFailed, error.to_string())),
        Err(error) => return Some((Exit::Corrupt, error.to_string())),
    };
    let (unreadable, rotten): (Vec<&BadChunk>, Vec<&BadChunk>) = bad.iter().partition(|bad| bad.read_error.is_some());
    let counted = |bad: &[&BadChunk], what: &str| {
        let first = bad.first().map(|bad| bad.number);
        first.map(|first| format!("{} of {} chunks {what}, the first: {first}", bad.len(), manifest.chunks()))
    };
    let rotten = counted(&rotten, "not as written");
    let exit = if rotten.is_some() { Exit::Corrupt } else { Exit::DiskFailed };
    let both: Vec<String> = rotten.into_iter().chain(counted(&unreadable, "unreadable")).collect();
    (!both.is_empty()).then(|| (exit, both.join("; ")))
}

fn next_step(exit: Exit) -> &'static str {
    match exit {
        Exit::WrongIdentity => "check how it came here: it holds another cluster's data",
        Exit::NewerFormat => "use the newer program that wrote it",
        Exit::DiskFailed => "check the disk (kernel log, SMART) before starting again",
        _ => "keep it: an older one and the log are used if they reach, or one of a peer",
    }
}

fn list(files: &impl Files, cluster: Option<ClusterId>) -> Result<Listing, Failure> {
    snapshot::list(files, cluster).map_err(|error| match error {
        snapshot::Error::Disk(error) => disk_failure(&error),
        other => Failure::new(Exit::Corrupt, other.to_string(), other.next_step()),
    })
}

pub fn disk_failure(error: &disk::Error) -> Failure {
    let exit = match error.kind() {
        std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory => Exit::WrongIdentity,
        std::io::ErrorKind::PermissionDenied => Exit::Other,
        _ => Exit::DiskFailed,
    };
    Failure::new(exit, error.to_string(), error.next_step())
}
