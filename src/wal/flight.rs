//! Frames on their way to the disk, and when another may go beside them.

use super::frame::{FrameHead, Run};
use super::log::{Log, Ticket};
use crate::disk::Buffer;
use crate::limits::WRITES_IN_FLIGHT_MAX;

/// Beside so many bytes on their way another small write gains nothing: the disk is busy with bytes, not with flushes.
/// What comes meanwhile waits, and makes one frame.
const BESIDE_BYTES_MAX: usize = 128 << 10;
/// A frame of so many record bytes does go beside them: to copy it and to look for its zero sectors takes a good part of
/// the time in which the disk writes the one before.
const LARGE_BYTES_MIN: usize = 512 << 10;
/// Frames on their way while a large one may leave, whatever depth suits the disk: what it writes, what it writes next,
/// and what is built meanwhile.
pub const LARGE_IN_FLIGHT_MAX: usize = 3;
const _: () = assert!(LARGE_IN_FLIGHT_MAX <= WRITES_IN_FLIGHT_MAX, "recovery knows no more that nothing proves");
/// What waits is joined into frames of up to so many record bytes: several, of which one is built while the other is
/// written, are faster than one of all. An append may be larger by itself.
pub(super) const JOINED_BYTES_MAX: usize = 1 << 20;

#[derive(Debug)]
pub(super) struct InFlight {
    pub head: FrameHead,
    pub own: Vec<Run>,
    pub holds_membership: bool,
    /// The last append that it holds.
    pub ticket: Ticket,
    /// Its buffer, once the write has completed.
    pub written: Option<Buffer>,
}

impl Log {
    /// Record bytes that must wait for a frame to leave now. None while no frame may leave: then one is in flight whose
    /// completion changes that.
    pub fn leaves_from_bytes(&self) -> Option<usize> {
        let bytes: usize = self.in_flight.iter().map(|frame| frame.head.length).sum();
        match self.in_flight.len() {
            0 => Some(0),
            count if count < self.options.writes_in_flight && bytes < BESIDE_BYTES_MAX => Some(0),
            count if count < LARGE_IN_FLIGHT_MAX => Some(LARGE_BYTES_MIN),
            _ => None,
        }
    }
}
