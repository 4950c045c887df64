//! The covering frame: written when nothing else is, it shows that all before it is durable, so that its loss would be seen.

use super::body;
use super::frame::{FrameKind, SEAL_FRAME_BYTES_MAX};
use super::log::{Log, Phase};
use super::sections::OPEN_SECTION_BYTES_MAX;

impl Log {
    /// Whether a durable frame shows that all records before it are durable.
    pub fn is_covered(&self) -> bool {
        self.proven_frame >= self.last_data_frame
    }

    /// Asks for a covering frame if something durable is not yet shown to be by another frame, and there may be room for
    /// it; tells whether it is asked for.
    pub fn cover(&mut self) -> bool {
        self.cover_wanted = !self.is_covered() && self.may_fit_cover();
        self.cover_wanted
    }

    /// Whether there is room for a covering frame, or will be. Where not, the superblock can show what it would.
    pub fn may_fit_cover(&self) -> bool {
        self.no_space.is_none() || !self.ready.is_empty() || self.fits_cover()
    }

    /// No covering frame is written but by [`Log::cover`].
    #[cfg(test)]
    pub(super) fn never_quiet(&mut self) {
        self.options.quiet_ticks = u32::MAX;
    }

    /// Whether the active segment has room for a covering frame.
    fn fits_cover(&self) -> bool {
        let open_bytes = if self.repeat_open.is_some() { OPEN_SECTION_BYTES_MAX } else { 0 };
        let bytes = body::frame_bytes_max(0, open_bytes, 0) + SEAL_FRAME_BYTES_MAX;
        self.offset + bytes as u64 <= self.active.frames_end()
    }

    pub(super) fn write_cover(&mut self) -> bool {
        let fits = self.fits_cover();
        if !fits && self.ready.is_empty() {
            // What room is left is for a purge; the next segment, if there will be one, has some for a cover.
            self.cover_wanted = self.no_space.is_none();
            return false;
        }
        self.cover_wanted = false;
        if !fits {
            // The seal carries the durable end as well as a cover would.
            self.phase = Phase::Draining;
            return true;
        }
        let open = self.repeat_open.take();
        self.submit(
            FrameKind::Cover,
            Vec::new(),
            open.as_ref(),
            None,
            (0, std::iter::empty()),
            self.last_ticket_sent(),
        );
        true
    }
}
