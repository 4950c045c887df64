//! Memory in huge pages, for buffers that go to the disk in large pieces.
//!
//! A request names the memory that it is to be filled from, or into, as stretches that lie in one piece. What the allocator
//! gives lies in pages of 4 KiB, wherever the kernel found each; a disk takes a limited number of stretches in one request,
//! and of all requests on their way (on virtio 254 of 256). So 1 MiB in small pages is two requests, of which the first
//! fills the disk's queue; in huge pages it is one request of one stretch, and others go beside it.
//!
//! Where the kernel has no huge pages to give, these are small ones, and everything is as slow as it was.

use std::fmt;
use std::ptr::{NonNull, null_mut};

use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

/// The size of a huge page on x86-64, and on ARM with small pages of 4 KiB. Elsewhere it is just an alignment.
pub(super) const HUGE_PAGE_BYTES: usize = 2 << 20;

/// Zeros on the boundary of a huge page: whole ones as far as the length reaches, and small pages behind those.
pub(super) struct Pages {
    start: NonNull<u8>,
    length: usize,
}

// SAFETY: whoever owns it owns the memory; nothing else points to it.
unsafe impl Send for Pages {}
// SAFETY: it gives no access to the memory; who does answers for it.
unsafe impl Sync for Pages {}

impl Pages {
    /// None if the kernel gives no memory.
    pub fn map(length: usize) -> Option<Pages> {
        let mapped_bytes = mapped_bytes(length);
        let (read_write, private) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE);
        // SAFETY: a new mapping, at a place that the kernel chooses.
        let found = unsafe { mmap_anonymous(null_mut(), mapped_bytes + HUGE_PAGE_BYTES, read_write, private) }.ok()?;
        let lead_bytes = found.align_offset(HUGE_PAGE_BYTES);
        let start = found.wrapping_byte_add(lead_bytes);
        unmap(found, lead_bytes);
        unmap(start.wrapping_byte_add(mapped_bytes), HUGE_PAGE_BYTES - lead_bytes);
        // A kernel without huge pages refuses, and small ones do as well.
        // SAFETY: the range is part of the mapping, and the advice changes no byte.
        let _is_huge = unsafe { madvise(start, length - length % HUGE_PAGE_BYTES, Advice::LinuxHugepage) }.is_ok();
        Some(Pages { start: NonNull::new(start.cast())?, length })
    }

    pub fn start(&self) -> NonNull<u8> {
        self.start
    }

    pub fn length(&self) -> usize {
        self.length
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        unmap(self.start.as_ptr().cast(), mapped_bytes(self.length));
    }
}

impl fmt::Debug for Pages {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Pages({} bytes)", self.length)
    }
}

/// Of the last huge page those bytes that nobody asked for are never touched, and so are no memory.
fn mapped_bytes(length: usize) -> usize {
    length.next_multiple_of(HUGE_PAGE_BYTES)
}

/// Gives back a part of a mapping of ours to which nothing points any more.
fn unmap(start: *mut std::ffi::c_void, bytes: usize) {
    if bytes == 0 {
        return;
    }
    // SAFETY: the callers own the range: it was cut off before anybody knew of it, or its owner is being dropped.
    match unsafe { munmap(start, bytes) } {
        Ok(()) => {}
        // The kernel joins neighbours to one mapping. To take a piece out of its midst makes one mapping more, and a process
        // may have no more than `vm.max_map_count`. Then the addresses stay taken, and the memory goes back.
        Err(Errno::NOMEM) => {
            // SAFETY: as above, and so nobody sees that the bytes change.
            let _is_given_back = unsafe { madvise(start, bytes, Advice::LinuxDontNeed) }.is_ok();
        }
        Err(error) => unreachable!("{bytes} bytes at {start:p} are whole pages that we mapped: {error}"),
    }
}
