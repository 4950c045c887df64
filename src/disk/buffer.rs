//! Memory that the kernel may read from while we do something else: aligned to a block, and moved, never copied.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::collections::VecDeque;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::Arc;

use super::pages::{HUGE_PAGE_BYTES, Pages};
use crate::limits::BLOCK_BYTES;

/// Buffers of the pool from this size on, up to a huge page, are made as the parts of one. Smaller ones would gain little,
/// and a single one that stays in use would keep more of a page that nobody uses.
const PART_BYTES_MIN: usize = 512 << 10;

/// Bytes on a block boundary, with a length that grows up to the capacity. What lies between length and capacity is
/// initialised, and may be what an earlier use left there: padding writes its zeros.
pub struct Buffer {
    start: NonNull<u8>,
    /// Bytes in use.
    length: usize,
    /// Bytes allocated: a multiple of a block, at least one.
    capacity: usize,
    /// What it is a part of. None if it was allocated by itself.
    pages: Option<Arc<Pages>>,
}

// SAFETY: the buffer owns its memory; nothing else points to it.
unsafe impl Send for Buffer {}
// SAFETY: shared access only reads.
unsafe impl Sync for Buffer {}

impl Buffer {
    /// An empty buffer that holds at least `capacity` bytes.
    pub fn with_capacity(capacity: usize) -> Buffer {
        let capacity = capacity.max(1).next_multiple_of(BLOCK_BYTES);
        let mapped = if capacity >= HUGE_PAGE_BYTES { Pages::map(capacity) } else { None };
        let of_pages = mapped.and_then(|pages| Buffer::split(pages, capacity).pop());
        of_pages.unwrap_or_else(|| Buffer::allocated(capacity))
    }

    /// As [`Buffer::with_capacity`], but as those of a pool are made: for one that is used again and again, and is not kept.
    pub(super) fn as_of_pool(capacity: usize) -> Buffer {
        Buffer::several(capacity).pop().expect("at least one is made")
    }

    /// Empty buffers of this capacity, at least one: those that are made from one huge page, if that is how they are made.
    fn several(capacity: usize) -> Vec<Buffer> {
        let is_part = capacity >= PART_BYTES_MIN && HUGE_PAGE_BYTES.is_multiple_of(capacity);
        let mapped = if is_part { Pages::map(HUGE_PAGE_BYTES) } else { None };
        mapped.map_or_else(|| vec![Buffer::with_capacity(capacity)], |pages| Buffer::split(pages, capacity))
    }

    /// Cuts pages into as many buffers as they hold.
    fn split(pages: Pages, capacity: usize) -> Vec<Buffer> {
        let pages = Arc::new(pages);
        let parts = 0..pages.length() / capacity;
        parts
            .map(|part| {
                // SAFETY: the part lies within the pages.
                let start = unsafe { pages.start().add(part * capacity) };
                Buffer { start, length: 0, capacity, pages: Some(Arc::clone(&pages)) }
            })
            .collect()
    }

    fn allocated(capacity: usize) -> Buffer {
        let layout = layout(capacity);
        // SAFETY: the layout's size is not zero.
        let start = unsafe { alloc_zeroed(layout) };
        let Some(start) = NonNull::new(start) else { handle_alloc_error(layout) };
        Buffer { start, length: 0, capacity, pages: None }
    }

    /// A buffer that is in use from the start, all zeros: to read into.
    pub fn zeroed(length: usize) -> Buffer {
        let mut buffer = Buffer::with_capacity(length);
        buffer.length = length;
        buffer
    }

    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Appends bytes. Panics if they do not fit: the caller counted wrong.
    pub fn extend(&mut self, bytes: &[u8]) {
        let end = self.length + bytes.len();
        assert!(end <= self.capacity, "{end} bytes do not fit a buffer of {}", self.capacity);
        // SAFETY: the range lies within the allocation, and `bytes` cannot overlap memory that we borrow mutably.
        unsafe { self.start.add(self.length).copy_from_nonoverlapping(NonNull::from(bytes).cast(), bytes.len()) };
        self.length = end;
    }

    /// Appends zeros until the length is a multiple of `alignment`. Panics if they do not fit.
    pub fn pad_to(&mut self, alignment: usize) {
        let end = self.length.next_multiple_of(alignment);
        self.extend_zeros(end);
    }

    /// Appends zeros until the buffer is full.
    pub fn pad_to_capacity(&mut self) {
        self.extend_zeros(self.capacity);
    }

    /// Back to empty, for use again.
    pub fn clear(&mut self) {
        self.length = 0;
    }

    fn extend_zeros(&mut self, end: usize) {
        assert!(end <= self.capacity, "{end} bytes do not fit a buffer of {}", self.capacity);
        let start = std::mem::replace(&mut self.length, end);
        self[start..].fill(0);
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `length` bytes from `start` on are allocated, and initialised since the allocation.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.length) }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and we are borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.length) }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.pages.is_none() {
            // SAFETY: allocated by `allocated` with this very layout.
            unsafe { dealloc(self.start.as_ptr(), layout(self.capacity)) };
        }
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Buffer({} of {} bytes)", self.length, self.capacity)
    }
}

/// Buffers that came back, kept for the next batch up to a bound in bytes.
#[derive(Debug)]
pub struct BufferPool {
    /// In the order in which they came back.
    free: VecDeque<Buffer>,
    /// The capacities of `free`, added up; at most `free_bytes_max`.
    free_bytes: usize,
    free_bytes_max: usize,
}

impl BufferPool {
    pub fn new(free_bytes_max: usize) -> BufferPool {
        BufferPool { free: VecDeque::new(), free_bytes: 0, free_bytes_max }
    }

    /// An empty buffer of at least this capacity: of the smallest free ones that fit the last that came back, since the
    /// processor may still have it; or a new one.
    pub fn take(&mut self, capacity: usize) -> Buffer {
        let fitting = (0..self.free.len())
            .rev()
            .filter(|&at| self.free[at].capacity() >= capacity)
            .min_by_key(|&at| self.free[at].capacity());
        let free = fitting.and_then(|at| self.free.remove(at));
        self.free_bytes -= free.as_ref().map_or(0, Buffer::capacity);
        free.unwrap_or_else(|| self.make(capacity.next_power_of_two()))
    }

    /// Makes one, and keeps what comes with it.
    fn make(&mut self, capacity: usize) -> Buffer {
        let mut made = Buffer::several(capacity);
        let buffer = made.pop().expect("at least one is made");
        made.into_iter().for_each(|other| self.put(other));
        buffer
    }

    /// Takes a buffer back. Beyond the bound those are freed that came back first: they have been of no use since, and a
    /// pool full of them would have each large buffer made anew.
    pub fn put(&mut self, mut buffer: Buffer) {
        if buffer.capacity() > self.free_bytes_max {
            return;
        }
        buffer.clear();
        self.free_bytes += buffer.capacity();
        self.free.push_back(buffer);
        while self.free_bytes > self.free_bytes_max {
            let oldest = self.free.pop_front().expect("what is counted is there");
            self.free_bytes -= oldest.capacity();
        }
    }
}

fn layout(capacity: usize) -> Layout {
    Layout::from_size_align(capacity, BLOCK_BYTES).expect("a block is a power of two, and buffers are bounded")
}
