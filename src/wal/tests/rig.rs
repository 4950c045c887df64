//! Names that the tests have for what is on the rig's disk.

pub use crate::sim::log::rig::{DIRECTORY, Rig, identity, open, options};
use crate::types::GroupId;

pub const G: GroupId = GroupId(0);

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
