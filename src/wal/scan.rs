//! Walks a segment's frames on disk, in bounded memory, and says of each what it is.

use super::body::FrameView;
use super::frame::{FrameHead, HeadFault, is_zero};
use super::segment::SegmentHeader;
use super::window::Window;
use crate::disk::{self, FileId, Files};
use crate::limits::{BLOCK_BYTES, FRAME_BYTES_MAX, SECTOR_BYTES};
use crate::types::FrameNumber;

/// Looked through at once for what is not zero.
const SWEEP_BYTES: u64 = 64 << 10;
const BLOCK: u64 = BLOCK_BYTES as u64;

/// A segment that is being read.
#[derive(Debug)]
pub struct Scan<'a, F: Files> {
    files: &'a F,
    file: FileId,
    pub header: SegmentHeader,
    window: Window,
    /// Nothing from here on is read that was not asked for.
    end: u64,
}

/// What stands where a frame should begin.
#[derive(Debug)]
pub enum Found<'w> {
    /// An intact head, and the frame's bytes. Whether the body is valid is for [`FrameView::verify`] to say.
    Frame(FrameView<'w>),
    /// No frame can be read here.
    Fault(HeadProblem),
}

/// Why no frame can be read.
#[derive(Debug, thiserror::Error)]
pub enum HeadProblem {
    #[error("{0}")]
    Head(HeadFault),
    #[error("it reaches beyond the segment's end")]
    Beyond,
    #[error("{0}")]
    Unreadable(disk::Error),
}

impl<'a, F: Files> Scan<'a, F> {
    pub fn new(files: &'a F, file: FileId, header: SegmentHeader) -> Scan<'a, F> {
        Scan::with_window(files, (file, header), Window::default())
    }

    /// With the window of a scan before it: for whoever reads one segment after another.
    pub fn with_window(files: &'a F, (file, header): (FileId, SegmentHeader), mut window: Window) -> Scan<'a, F> {
        window.leave();
        Scan { files, file, header, window, end: header.bytes }
    }

    /// As [`Scan::with_window`], for one who reads frames before `end`, perhaps only a few.
    pub fn for_reader(files: &'a F, (file, header): (FileId, SegmentHeader), end: u64, window: Window) -> Scan<'a, F> {
        let mut scan = Scan::with_window(files, (file, header), window);
        scan.window.stay_behind();
        scan.end = end;
        scan
    }

    /// Says that the segment will be read from end to end.
    pub fn expect_all(mut self) -> Scan<'a, F> {
        self.window.expect_all();
        self
    }

    pub fn into_window(self) -> Window {
        self.window
    }

    /// What stands at `offset`, which is a multiple of a block within the room for frames.
    pub fn frame_at(&mut self, offset: u64) -> Found<'_> {
        let head = match self.head_at(offset) {
            Ok(head) => head,
            Err(problem) => return Found::Fault(problem),
        };
        let salt = self.header.salt;
        match self.bytes(offset, head.length) {
            Ok(bytes) => Found::Frame(FrameView::new(head, bytes, salt)),
            Err(error) => Found::Fault(HeadProblem::Unreadable(error)),
        }
    }

    /// The head at `offset`, whatever follows it.
    pub fn head_at(&mut self, offset: u64) -> Result<FrameHead, HeadProblem> {
        let (salt, number, end) = (self.header.salt, self.header.number, self.header.frames_end());
        let block = self.bytes(offset, BLOCK_BYTES).map_err(HeadProblem::Unreadable)?;
        let head = FrameHead::decode(block, salt, number, offset).map_err(HeadProblem::Head)?;
        if offset + head.length as u64 > end || head.length > FRAME_BYTES_MAX {
            return Err(HeadProblem::Beyond);
        }
        Ok(head)
    }

    /// The next intact head behind `offset` whose frame number is above that of every frame before it. A search for
    /// evidence: blocks that cannot be read are passed over.
    pub fn next_head(&mut self, offset: u64, above: FrameNumber) -> Option<FrameHead> {
        let mut at = offset;
        while at < self.header.frames_end() {
            match self.head_at(at) {
                Ok(head) if head.number > above => return Some(head),
                _ => at += BLOCK,
            }
        }
        None
    }

    /// Where the first byte from `offset` on lies that is not zero, to the sector, if there is one. What cannot be
    /// read counts as not zero.
    pub fn next_nonzero(&mut self, offset: u64) -> Option<u64> {
        let end = self.header.frames_end();
        let mut at = offset;
        while at < end {
            let length = (end - at).min(SWEEP_BYTES) as usize;
            let Ok(bytes) = self.bytes(at, length) else { return Some(at) };
            let mut sectors = bytes.chunks(SECTOR_BYTES);
            if let Some(found) = sectors.position(|sector| !is_zero(sector)) {
                return Some(at + (found * SECTOR_BYTES) as u64);
            }
            at += length as u64;
        }
        None
    }

    /// Reads past the window, which stays where it is.
    pub fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<(), disk::Error> {
        self.files.read(self.file, offset, bytes)
    }

    /// `length` bytes from `offset` on. If a large read fails, only as much as was asked for is read.
    pub fn bytes(&mut self, offset: u64, length: usize) -> Result<&[u8], disk::Error> {
        self.window.bytes(self.files, (self.file, self.end), (offset, length))
    }
}
