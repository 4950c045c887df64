//! The piece of a file that is looked at: read in few large pieces, the next ones on their way while the caller works.
//!
//! ```text
//!  file     ───────┬───────────────┬───────────────┬───────────────┬──────
//!           passed │    window     │   on its way  │   on its way  │
//!           ───────┴────────────┬──┴───────────────┴───────────────┴──────
//!                               └─ what is left of the window when a frame reaches beyond it is copied before the
//!                                  next piece, so that each frame lies in memory in one piece
//! ```
//!
//! Pieces grow while the reading goes on: whoever looks at one frame reads little. The memory is that of a few buffers,
//! each of a piece and the largest frame so far, and is used again.

use std::ops::Range;

use crate::disk::{self, Ahead, Buffer, FileId, Files, READS_AHEAD_MAX};
use crate::limits::{BLOCK_BYTES, FRAME_BYTES_MAX};

/// What is read at once: at first, and in the long run.
const PIECE_BYTES_MIN: usize = 64 << 10;
pub const PIECE_BYTES_MAX: usize = 2 << 20;

/// Bytes of one file at a time. It may be used for one file after another, and keeps its memory.
#[derive(Debug)]
pub struct Window {
    file: Option<FileId>,
    /// Where the window begins in the file, and which part of the buffer it is.
    start: u64,
    buffer: Buffer,
    part: Range<usize>,
    /// What the next read asks for: doubles with each one that goes on where the last one ended.
    piece_bytes: usize,
    /// Room before each piece for what is left of the one before: a power of two. Only grows, up to a frame.
    lead_bytes: usize,
    /// Started by the first reading that is worth it.
    ahead: Option<Ahead>,
    /// Whoever looks at it reads a piece when he needs it, and no thread works for him.
    stays_behind: bool,
    /// Pieces on their way, which follow the window without a gap, and where they end in the file.
    coming: usize,
    coming_end: u64,
    /// Buffers for use again.
    free: Vec<Buffer>,
}

impl Default for Window {
    fn default() -> Window {
        Window {
            file: None,
            start: 0,
            buffer: Buffer::with_capacity(0),
            part: 0..0,
            piece_bytes: PIECE_BYTES_MIN,
            lead_bytes: PIECE_BYTES_MIN,
            ahead: None,
            stays_behind: false,
            coming: 0,
            coming_end: 0,
            free: Vec::new(),
        }
    }
}

impl Window {
    /// `length` bytes of a file of `file_bytes` from `offset` on. If a large read fails, only as much as was asked for is
    /// read.
    pub fn bytes<F: Files>(
        &mut self,
        files: &F,
        (file, file_bytes): (FileId, u64),
        (offset, length): (u64, usize),
    ) -> Result<&[u8], disk::Error> {
        let is_there = self.file == Some(file) && offset >= self.start && offset + length as u64 <= self.end();
        if !is_there {
            let goes_on = self.file == Some(file) && (self.start..=self.end()).contains(&offset);
            if !goes_on {
                self.jump(file, offset);
            }
            self.pass((offset - self.start) as usize);
            if self.extend(files, file_bytes, length).is_err() {
                self.jump(file, offset);
                self.read_piece(files, file, length)?;
            }
        }
        let from = self.part.start + (offset - self.start) as usize;
        Ok(&self.buffer[from..from + length])
    }

    /// Leaves the file: the next one is another, or has changed.
    pub fn leave(&mut self) {
        for _ in 0..std::mem::take(&mut self.coming) {
            // What was read, or why it could not be, concerns nobody any more.
            let (buffer, ..) = self.ahead.as_mut().expect("pieces come by it").finish();
            self.free.push(buffer);
        }
        (self.file, self.part, self.piece_bytes, self.stays_behind) = (None, 0..0, PIECE_BYTES_MIN, false);
    }

    /// Says that the next file is read from where it is entered to its end.
    pub fn expect_all(&mut self) {
        self.piece_bytes = PIECE_BYTES_MAX;
    }

    /// Says that the next file is read only here and there.
    pub fn stay_behind(&mut self) {
        self.stays_behind = true;
    }

    fn length(&self) -> usize {
        self.part.len()
    }

    /// Where the window ends in the file.
    fn end(&self) -> u64 {
        self.start + self.length() as u64
    }

    /// Begins at another place: whoever jumps looks here and there.
    fn jump(&mut self, file: FileId, offset: u64) {
        if self.file.is_some() {
            let stays_behind = self.stays_behind;
            self.leave();
            self.stays_behind = stays_behind;
        }
        (self.file, self.start) = (Some(file), offset);
    }

    /// Leaves bytes behind.
    fn pass(&mut self, bytes: usize) {
        self.start += bytes as u64;
        self.part.start += bytes;
    }

    /// Reads on until the window holds `length` bytes.
    fn extend<F: Files>(&mut self, files: &F, file_bytes: u64, length: usize) -> Result<(), disk::Error> {
        let file = self.file.expect("the window is in a file");
        while self.length() < length {
            self.read_ahead(files, file, file_bytes);
            if self.coming > 0 {
                self.coming -= 1;
                let (piece, part, read) = self.ahead.as_mut().expect("pieces come by it").finish();
                read.inspect(|()| self.take(piece, part))?;
            } else {
                let left = file_bytes.saturating_sub(self.end()).min(self.piece_bytes as u64) as usize;
                self.read_piece(files, file, left.max(length - self.length()))?;
            }
            self.piece_bytes = (self.piece_bytes * 2).min(PIECE_BYTES_MAX);
        }
        self.read_ahead(files, file, file_bytes);
        Ok(())
    }

    fn read_piece<F: Files>(&mut self, files: &F, file: FileId, length: usize) -> Result<(), disk::Error> {
        let (mut piece, part) = self.room(length);
        files.read(file, self.end(), &mut piece[part.clone()])?;
        self.take(piece, part);
        Ok(())
    }

    /// Once it is clear that the file is read on and on, what comes next is read while the caller works.
    fn read_ahead<F: Files>(&mut self, files: &F, file: FileId, file_bytes: u64) {
        if self.piece_bytes < PIECE_BYTES_MAX || self.stays_behind {
            return;
        }
        if self.coming == 0 {
            self.coming_end = self.end();
        }
        while self.coming < READS_AHEAD_MAX && self.coming_end < file_bytes {
            if self.ahead.is_none() {
                self.ahead = files.ahead();
            }
            let length = (file_bytes - self.coming_end).min(self.piece_bytes as u64) as usize;
            let (piece, part) = self.room(length);
            let Some(ahead) = &mut self.ahead else { return self.free.push(piece) };
            ahead.begin(file, self.coming_end, piece, part);
            self.coming += 1;
            self.coming_end += length as u64;
        }
    }

    /// A buffer and the part of it that a piece goes to.
    fn room(&mut self, length: usize) -> (Buffer, Range<usize>) {
        let part = self.lead_bytes..self.lead_bytes + length;
        self.free.retain(|free| free.len() >= part.end);
        let buffer = self.free.pop().unwrap_or_else(|| Buffer::zeroed(part.end));
        (buffer, part)
    }

    /// Makes the window and the piece behind it one.
    fn take(&mut self, mut piece: Buffer, mut part: Range<usize>) {
        if part.start < self.length() {
            // The frame is larger than all before it.
            self.lead_bytes = self.length().next_power_of_two();
            let (mut larger, room) = self.room(part.len());
            larger[room.clone()].copy_from_slice(&piece[part]);
            (piece, part) = (larger, room);
        }
        let start = part.start - self.length();
        piece[start..part.start].copy_from_slice(&self.buffer[self.part.clone()]);
        let passed = std::mem::replace(&mut self.buffer, piece);
        self.part = start..part.end;
        if self.free.len() < READS_AHEAD_MAX {
            self.free.push(passed);
        }
    }
}

const _: () = assert!(PIECE_BYTES_MIN.is_multiple_of(BLOCK_BYTES) && PIECE_BYTES_MIN.is_power_of_two());
const _: () = assert!(FRAME_BYTES_MAX.is_power_of_two());
