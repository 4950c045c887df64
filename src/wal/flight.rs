//! Frames on their way to the disk, and when another may go beside them.

use super::frame::{FrameHead, Run};
use super::log::{Log, Ticket};
use crate::disk::Buffer;

/// Beside so many bytes on their way another write gains nothing: the disk is busy with bytes, not with flushes. What
/// comes meanwhile waits, and makes one frame.
const BESIDE_BYTES_MAX: usize = 128 << 10;

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
    /// Whether a frame that is ready now would leave now. While it would not, one is in flight whose completion changes
    /// that.
    pub fn may_write(&self) -> bool {
        let bytes: usize = self.in_flight.iter().map(|frame| frame.head.length).sum();
        self.in_flight.len() < self.options.writes_in_flight && bytes < BESIDE_BYTES_MAX
    }
}
