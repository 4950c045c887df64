//! What is here already of a snapshot that is wanted.

use crate::disk::Files;
use crate::snapshot::{self, Condition, Damage, Error, Manifest, Receiver, Stage};
use crate::types::{ClusterId, GroupId, LogId};

/// What a look has found.
#[derive(Debug)]
pub struct Here {
    /// It is whole: nobody needs to be asked but for what rotted.
    pub manifest: Option<Manifest>,
    /// What has come of it, as far as that can be gone on with, is of this one.
    pub begun: Option<Manifest>,
    /// What stands under its name and is damaged as a whole: what is right of it is of use once a manifest is there
    /// ([`snapshot::reopen`]).
    pub damaged: Vec<(String, Damage)>,
}

/// Looks for the snapshot at this point. A part of another one goes, which would keep its room for good.
///
/// # Errors
/// What the disk says, and if what stands under the name is another cluster's or a newer program's.
pub fn here(files: &impl Files, cluster: ClusterId, group: GroupId, point: LogId) -> Result<Here, Error> {
    let begun = Receiver::begun(files, group, point)?;
    let mut here = Here { manifest: None, begun, damaged: Vec::new() };
    for found in snapshot::list(files, Some(cluster))?.found.into_iter().filter(|found| found.group == group) {
        let name = found.name;
        match found.condition {
            Condition::Unfinished(Stage::Receiving) if found.point != point => snapshot::remove(files, &name)?,
            Condition::Unfinished(_) => {}
            _ if found.point != point => {}
            Condition::Whole(manifest) => here.manifest = Some(manifest),
            Condition::Damaged(damage) => here.damaged.push((name, damage)),
            Condition::Foreign { cluster: found } => {
                return Err(Error::WrongCluster { name, expected: cluster, found });
            }
            Condition::Newer { format } => return Err(Error::NewerFormat { name, found: format }),
            Condition::Unreadable(error) => return Err(Error::Disk(error)),
        }
    }
    Ok(here)
}
