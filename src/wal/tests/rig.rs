//! Names that the tests have for what is on the rig's disk.

pub use crate::sim::log::rig::{DIRECTORY, Rig, identity, open, options};
use crate::types::GroupId;

pub const G: GroupId = GroupId(0);

pub fn segment(number: u64) -> String {
    format!("{DIRECTORY}/{number:016}.segment")
}
