//! A stretch of an ended segment, read past the page cache into memory that is kept from one read to the next.
//!
//! ```text
//!  segment  ───────┬────────────────────────────┬───────────
//!           passed │  the stretch, in memory    │  read next, behind what is left of the stretch
//!           ───────┴──────┬─────────────────────┴───────────
//!                         └─ a frame: the next read of its reader goes on in it, and asks the disk for nothing
//! ```
//!
//! It shows bytes that were read, of the segment that is asked for, and none else: a segment that has ended does not
//! change, and one that has its number, its file or its room later on has another header, under another salt.

use std::ops::Range;

use super::locator::Part;
use super::segment::SegmentHeader;
use crate::disk::{self, Buffer, FileId, Files};

/// Bytes of one ended segment at a time.
#[derive(Debug)]
pub struct Stretch {
    /// Which segment it is of; none before the first read.
    of: Option<(FileId, SegmentHeader)>,
    /// Where it begins in the segment: on a block.
    start: u64,
    /// How much of the buffer was read. What lies behind is of another time.
    length: usize,
    buffer: Buffer,
}

impl Default for Stretch {
    fn default() -> Stretch {
        Stretch { of: None, start: 0, length: 0, buffer: Buffer::with_capacity(0) }
    }
}

impl Stretch {
    /// What lies in `wanted` of the part's segment. If not all of it is here, the disk is asked, once, for what is missing up
    /// to its end, or up to `reach` if that is further on. Both begin and end on blocks.
    pub fn bytes<F: Files>(
        &mut self,
        files: &F,
        part: &Part,
        wanted: Range<u64>,
        reach: u64,
    ) -> Result<&[u8], disk::Error> {
        if !self.holds(part, wanted.start) {
            (self.of, self.start, self.length) = (Some((part.file, part.header)), wanted.start, 0);
        }
        if wanted.end > self.end() {
            self.pass(wanted.start);
            self.read(files, part.file, wanted.end.max(reach))?;
        }
        Ok(&self.buffer[(wanted.start - self.start) as usize..(wanted.end - self.start) as usize])
    }

    /// Whether a read of this part that begins there finds something here, or goes on where this ends.
    pub fn holds(&self, part: &Part, offset: u64) -> bool {
        self.of == Some((part.file, part.header)) && (self.start..=self.end()).contains(&offset)
    }

    /// Where what is here ends in the segment.
    pub fn end(&self) -> u64 {
        self.start + self.length as u64
    }

    /// Leaves behind what lies before.
    fn pass(&mut self, offset: u64) {
        let passed = (offset - self.start) as usize;
        self.buffer.copy_within(passed..self.length, 0);
        (self.start, self.length) = (offset, self.length - passed);
    }

    fn read<F: Files>(&mut self, files: &F, file: FileId, end: u64) -> Result<(), disk::Error> {
        let length = (end - self.start) as usize;
        if length > self.buffer.len() {
            let mut larger = Buffer::zeroed(length);
            larger[..self.length].copy_from_slice(&self.buffer[..self.length]);
            self.buffer = larger;
        }
        files.read(file, self.end(), &mut self.buffer[self.length..length])?;
        self.length = length;
        Ok(())
    }
}
