//! Names that the tests have for what is on the rig's disk.

use super::model::State;
use crate::sim::disk::SimDisk;
pub use crate::sim::log::rig::{DIRECTORY, Rig, Start, identity, open_as, options};
use crate::types::{GroupId, Place};
use crate::wal::{Error, Log, Options, Reading, Recovery};

pub const G: GroupId = GroupId(0);
pub const READINGS: [Reading; 2] = [Reading::Everything, Reading::BySeals];
/// Nothing is known, and everything is read.
pub const WHOLE: Start = Start { evidence: Place::START, reading: Reading::Everything };

/// Opens what is on a disk and says what it holds, with nothing known and everything read.
pub fn open(disk: &SimDisk, options: &Options) -> Result<(Log, Recovery, State), Error> {
    open_as(disk, options, WHOLE)
}

pub fn segment(number: u64) -> String {
    format!("{DIRECTORY}/{number:016}.segment")
}

/// The power goes while a frame is written: of what is loose the first alone is on the disk.
pub fn tear(rig: &mut Rig) {
    rig.grow(G, 1, 3000);
    rig.pump();
    let mut at = 0;
    rig.disk.crash_with(&mut |loose| {
        at += 1;
        usize::from(at == 1).min(loose.outcomes - 1)
    });
}
