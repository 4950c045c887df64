//! Reads the snapshots of a directory without changing anything in it.

use std::path::Path;

use crate::cli::exit::{Exit, Failure};
use crate::disk::{self, Directory, Files};
use crate::snapshot::{self, BadChunk, Condition, Listing, Manifest};
use crate::superblock;
use crate::types::{ClusterId, GroupId, LogId};

/// What decides the exit code where several things are wrong: the first of these.
const WORST_FIRST: [Exit; 4] = [Exit::Corrupt, Exit::DiskFailed, Exit::WrongIdentity, Exit::NewerFormat];

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
    /// Of the snapshot, or `superblock`, or what is there in place of a backup.
    pub name: String,
    /// Of the snapshot that it is about, also one that is not there; none if that is not known.
    pub point: Option<LogId>,
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
        let is_nobodys = state.is_none() && complaint.is_none();
        let cluster = state.as_ref().map(|state| state.cluster);
        let listing = list(files, cluster)?;
        let mut reading = Reading { directory, cluster, listing, findings: Vec::new() };
        reading.findings.extend(complaint.map(|error| {
            let next_step = format!("`trilith wal verify {}` says what is wrong with it", reading.directory);
            let (name, what) = (superblock::FILE_NAME.to_owned(), error.to_string());
            Finding { name, point: None, exit: Exit::Corrupt, what, next_step }
        }));
        reading.judge(files, every_chunk, if is_nobodys { of_a_backup } else { of_a_node });
        for (group, of_group) in state.iter().flat_map(|state| &state.groups) {
            reading.miss(*group, of_group);
        }
        if !reading.findings.is_empty() {
            // A node that runs may have removed one since.
            let names = files.list("").map_err(|error| disk_failure(&error))?;
            reading.findings.retain(|finding| names.contains(&finding.name) || finding.name == superblock::FILE_NAME);
        }
        if is_nobodys && reading.listing.whole(GroupId::CLUSTER).next().is_none() && reading.findings.is_empty() {
            let names = files.list("").map_err(|error| disk_failure(&error))?;
            reading.findings.push(reading.no_backup(&names));
        }
        Ok(reading)
    }

    /// What decides the exit code, of those findings that count.
    pub fn worst(&self, counts: impl FnMut(&&Finding) -> bool) -> Option<&Finding> {
        let rank = |exit: Exit| WORST_FIRST.iter().position(|worst| *worst == exit).unwrap_or(WORST_FIRST.len());
        self.findings.iter().filter(counts).min_by_key(|finding| rank(finding.exit))
    }

    /// A directory that is no node's is there for what it holds.
    fn no_backup(&self, names: &[String]) -> Finding {
        const AGAIN: &str = "give the same `trilith snapshot export` again: it goes on where it is, or begins anew";
        let unfinished = self.listing.found.iter().max_by_key(|found| found.point);
        let is_inside = names.iter().any(|name| name == "manifest") && names.iter().any(|name| name == "chunks");
        let (name, what, next_step) = match (unfinished, self.listing.strange.first()) {
            (Some(found), _) => (&found.name, "it is not finished, and nothing else is here: this is no backup", AGAIN),
            (None, Some(name)) => (
                name,
                "no snapshot has this name, and nothing else is here: it is not used",
                "give it the name back that it had where it was made: snapshot-GROUP-INDEX-TERM",
            ),
            (None, None) if is_inside => {
                (&self.directory, "it is the inside of a snapshot", "name the directory that the snapshot lies in")
            }
            (None, None) => (
                &self.directory,
                "there is no snapshot in it",
                "name the directory that the snapshot lies in; `trilith snapshot export` makes one",
            ),
        };
        Finding {
            name: name.clone(),
            point: None,
            exit: Exit::Corrupt,
            what: what.to_owned(),
            next_step: next_step.to_owned(),
        }
    }

    fn judge(&mut self, files: &impl Files, every_chunk: bool, next_step: fn(Exit) -> &'static str) {
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
            self.findings.push(Finding { name: found.name.clone(), point: Some(found.point), exit, what, next_step });
        }
    }

    /// The superblock names a snapshot that is not there. One before the log's start is of no use any more, and may have
    /// gone: another node's was installed, and its state has not taken over yet.
    fn miss(&mut self, group: GroupId, of_group: &superblock::Group) {
        let point = of_group.snapshot;
        let is_left_behind = point.index.next() < of_group.log_start;
        let is_there = self.listing.found.iter().any(|found| {
            found.group == group && found.point == point && !matches!(found.condition, Condition::Unfinished(_))
        });
        if point != LogId::ZERO && !is_there && !is_left_behind {
            self.findings.push(Finding {
                name: superblock::FILE_NAME.to_owned(),
                point: Some(point),
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

fn of_a_backup(exit: Exit) -> &'static str {
    match exit {
        Exit::Corrupt => "this is no backup any more: export again, into another directory",
        Exit::DiskFailed => "check the disk (kernel log, SMART), and export again, to another one",
        other => of_a_node(other),
    }
}

fn of_a_node(exit: Exit) -> &'static str {
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
        _ if error.is_locked() => Exit::InUse,
        _ => Exit::DiskFailed,
    };
    Failure::new(exit, error.to_string(), error.next_step())
}
