//! Names that the tests have for what is on the rig's disk.

use super::model::State;
use crate::sim::disk::SimDisk;
pub use crate::sim::log::rig::{DIRECTORY, Rig, Start, identity, open_as, options};
use crate::types::{Entry, GroupId, Index, Place};
use crate::wal::{Error, Log, Options, ReadPlan, Reading, Recovery};

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

/// Everything of a group from an index on, by as many plans as it takes; each is shown first.
pub fn read_by_plans(rig: &Rig, from: u64, mut each: impl FnMut(&ReadPlan)) -> Vec<Entry> {
    let mut found: Vec<Entry> = Vec::new();
    loop {
        let at = Index(from + found.len() as u64);
        let plan = rig.log.plan_read(G, at, Index(u64::MAX), usize::MAX);
        each(&plan);
        let read = plan.run(&rig.files).expect("it is intact");
        assert!(!read.is_empty() || !plan.is_cut(), "each plan goes on");
        found.extend(read);
        if !plan.is_cut() {
            return found;
        }
    }
}
