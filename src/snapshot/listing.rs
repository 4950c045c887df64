//! What is there: each name, and what it stands for.

use std::io;

use super::error::{Damage, Error};
use super::manifest::{MANIFEST_BYTES_MAX, Manifest};
use super::naming::{CHUNKS, MANIFEST, Name, PREFIX, Stage};
use crate::disk::{self, FileId, Files};
use crate::types::{ClusterId, GroupId, LogId};

/// All snapshots in a directory.
#[derive(Debug)]
pub struct Listing {
    /// By group, then by point: oldest first.
    pub found: Vec<Found>,
    /// Names that begin as a snapshot's, and are none that we give.
    pub strange: Vec<String>,
}

/// What stands under a name.
#[derive(Debug)]
pub struct Found {
    pub name: String,
    /// As the name says.
    pub group: GroupId,
    /// As the name says.
    pub point: LogId,
    pub condition: Condition,
}

/// What a snapshot's directory was found to be. Only the first is used.
#[derive(Debug)]
pub enum Condition {
    /// Manifest and lengths are right; chunks are checked as they are read.
    Whole(Manifest),
    /// It was being made, received or removed.
    Unfinished(Stage),
    /// Not what was written.
    Damaged(Damage),
    /// Another cluster's.
    Foreign { cluster: ClusterId },
    /// A newer program wrote it.
    Newer { format: u32 },
    /// The disk gives an error.
    Unreadable(disk::Error),
}

impl Listing {
    /// The whole ones of a group, oldest first.
    pub fn whole(&self, group: GroupId) -> impl DoubleEndedIterator<Item = &Manifest> {
        self.found.iter().filter(move |found| found.group == group).filter_map(Found::manifest)
    }
}

impl Found {
    /// If it is whole.
    pub fn manifest(&self) -> Option<&Manifest> {
        if let Condition::Whole(manifest) = &self.condition { Some(manifest) } else { None }
    }

    /// Why it cannot be used though it has a name without an ending.
    pub fn into_error(self, expected: ClusterId) -> Option<Error> {
        let name = self.name;
        match self.condition {
            Condition::Whole(_) | Condition::Unfinished(_) => None,
            Condition::Damaged(damage) => Some(Error::Damaged { name, damage }),
            Condition::Foreign { cluster: found } => Some(Error::WrongCluster { name, expected, found }),
            Condition::Newer { format: found } => Some(Error::NewerFormat { name, found }),
            Condition::Unreadable(error) => Some(Error::Disk(error)),
        }
    }
}

/// Looks at all snapshots in the directory, without changing anything and without a lock. If the cluster is known, one of
/// another is told as such.
///
/// # Errors
/// If the directory cannot be listed. What is wrong with one snapshot is its [`Condition`].
pub fn list(files: &impl Files, cluster: Option<ClusterId>) -> Result<Listing, Error> {
    let (mut names, mut strange) = (Vec::new(), Vec::new());
    for name in files.list("")?.into_iter().filter(|name| name.starts_with(PREFIX)) {
        match Name::parse(&name) {
            Some(name) => names.push(name),
            None => strange.push(name),
        }
    }
    names.sort();
    let found = |name: Name| Found {
        name: name.to_string(),
        group: name.group,
        point: name.point,
        condition: if name.stage == Stage::Whole {
            judge(files, name, cluster)
        } else {
            Condition::Unfinished(name.stage)
        },
    };
    Ok(Listing { found: names.into_iter().map(found).collect(), strange })
}

fn judge(files: &impl Files, name: Name, cluster: Option<ClusterId>) -> Condition {
    match examine(files, name, cluster) {
        Ok(manifest) => Condition::Whole(manifest),
        Err(Error::Damaged { damage, .. }) => Condition::Damaged(damage),
        Err(Error::WrongCluster { found, .. }) => Condition::Foreign { cluster: found },
        Err(Error::NewerFormat { found, .. }) => Condition::Newer { format: found },
        Err(Error::Disk(error)) => Condition::Unreadable(error),
        Err(other @ (Error::Exists { .. } | Error::TooLarge { .. } | Error::NoRoom { .. })) => {
            unreachable!("to look does not end so: {other}")
        }
    }
}

/// The manifest, if it is that of this name and the chunks have their length.
pub(super) fn examine(files: &impl Files, name: Name, cluster: Option<ClusterId>) -> Result<Manifest, Error> {
    let manifest = read_manifest(files, name)?;
    let found = manifest.description.cluster;
    if let Some(expected) = cluster.filter(|expected| *expected != found) {
        return Err(Error::WrongCluster { name: name.to_string(), expected, found });
    }
    let file = open(files, name, CHUNKS)?;
    let length = files.length(file);
    files.close(file);
    let (expected, found) = (manifest.bytes, length?);
    if found != expected {
        return Err(damaged(name, Damage::Length { expected, found }));
    }
    Ok(manifest)
}

/// The manifest that stands under a name, if it is its own.
pub(super) fn read_manifest(files: &impl Files, name: Name) -> Result<Manifest, Error> {
    let file = open(files, name, MANIFEST)?;
    let bytes = read_all(files, file, name);
    files.close(file);
    let manifest = Manifest::decode(&name.to_string(), &bytes?)?;
    let (found, expected) = (manifest.description.named(Stage::Whole), name.with(Stage::Whole));
    if found != expected {
        return Err(damaged(name, Damage::Misplaced { found: found.to_string() }));
    }
    Ok(manifest)
}

fn read_all(files: &impl Files, file: FileId, name: Name) -> Result<Vec<u8>, Error> {
    let length = files.length(file)?;
    let fits = usize::try_from(length).ok().filter(|length| *length <= MANIFEST_BYTES_MAX);
    let mut bytes = vec![0; fits.ok_or_else(|| damaged(name, Damage::Manifest))?];
    files.read(file, 0, &mut bytes)?;
    Ok(bytes)
}

/// A file of a snapshot, for reading; that there is none is damage.
pub(super) fn open(files: &impl Files, name: Name, file: &'static str) -> Result<FileId, Error> {
    files.open_read(&name.file(file)).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => damaged(name, Damage::Missing { file }),
        _ => Error::Disk(error),
    })
}

pub(super) fn damaged(name: Name, damage: Damage) -> Error {
    Error::Damaged { name: name.to_string(), damage }
}
