//! Which buffer the pool gives.

use std::process::Command;
use std::ptr::null_mut;

use rustix::mm::{Advice, MapFlags, MprotectFlags, ProtFlags, madvise, mmap_anonymous, mprotect};

use crate::disk::{Buffer, BufferPool};
use crate::limits::BLOCK_BYTES;
use crate::sim::skips::skipped;

const BYTES: usize = 64 << 10;
const HUGE_BYTES: usize = 2 << 20;

#[test]
fn of_buffers_that_fit_as_well_the_last_that_came_back_is_used_again() {
    let mut pool = BufferPool::new(16 * BYTES);
    let buffers: Vec<Buffer> = (0..3).map(|_| pool.take(BYTES)).collect();
    let places: Vec<*const u8> = buffers.iter().map(|buffer| buffer.as_ptr()).collect();
    pool.put(Buffer::with_capacity(2 * BYTES));
    buffers.into_iter().for_each(|buffer| pool.put(buffer));
    let taken: Vec<Buffer> = (0..3).map(|_| pool.take(BYTES)).collect();
    let found: Vec<*const u8> = taken.iter().map(|buffer| buffer.as_ptr()).collect();
    assert_eq!(found, [places[2], places[1], places[0]], "and none that is larger than needed");
}

/// Or a burst of small frames would leave no room for the large buffers that come after it.
#[test]
fn a_full_pool_frees_what_came_back_first() {
    let mut pool = BufferPool::new(8 * BYTES);
    for _ in 0..8 {
        pool.put(Buffer::with_capacity(BYTES));
    }
    let large = Buffer::with_capacity(6 * BYTES);
    let place = large.as_ptr();
    pool.put(large);
    assert_eq!(pool.take(6 * BYTES).as_ptr(), place);
    pool.put(Buffer::with_capacity(9 * BYTES));
    let left: Vec<Buffer> = (0..3).map(|_| pool.take(BYTES)).collect();
    let kept: usize = left.iter().filter(|buffer| buffer.capacity() == BYTES).count();
    assert_eq!(kept, 3, "what is beyond the bound by itself costs no other");
}

/// They are parts of one huge page: each has its own memory, and that of one which is gone is not given up while another
/// is in use.
#[test]
fn large_buffers_of_a_pool_are_made_several_at_once_and_share_nothing() {
    for capacity in [512 << 10, 1 << 20] {
        let mut pool = BufferPool::new(8 << 20);
        let count = (2 << 20) / capacity;
        let mut buffers: Vec<Buffer> = (0..2 * count).map(|_| pool.take(capacity)).collect();
        for (number, buffer) in (1..).zip(&mut buffers) {
            assert_eq!(buffer.capacity(), capacity);
            assert!(buffer.as_ptr().addr().is_multiple_of(BLOCK_BYTES));
            buffer.extend(&vec![number; capacity]);
        }
        let mut places: Vec<usize> = buffers.iter().map(|buffer| buffer.as_ptr().addr()).collect();
        places.sort_unstable();
        let pages: Vec<&[usize]> = places.chunk_by(|left, right| left + capacity == *right).collect();
        assert!(pages.iter().all(|page| page.len().is_multiple_of(count)), "{pages:x?}");
        let last = buffers.pop().expect("there are several");
        drop(buffers);
        drop(pool);
        assert!(last.iter().all(|&byte| byte == 2 * count as u8));
    }
}

#[test]
fn memory_of_every_size_is_whole_aligned_and_zero() {
    for capacity in [1, 4096, 4097, 512 << 10, (2 << 20) - 1, 2 << 20, (2 << 20) + 1, 8 << 20] {
        let mut buffer = Buffer::zeroed(capacity);
        assert_eq!(buffer.len(), capacity);
        assert!(buffer.as_ptr().addr().is_multiple_of(BLOCK_BYTES), "of {capacity} bytes");
        assert!(buffer.iter().all(|&byte| byte == 0), "of {capacity} bytes");
        buffer.fill(0xff);
        buffer.pad_to_capacity();
        assert!(buffer.iter().skip(capacity).all(|&byte| byte == 0));
        assert!(buffer.capacity().is_multiple_of(BLOCK_BYTES) && buffer.len() == buffer.capacity());
    }
}

/// So many mappings take the kernel a second and some 50 MB; machines that allow a million are left alone.
const MAPPINGS_MADE_MAX: usize = 1 << 18;

/// What the child is told to do.
const CHILD: &str = "TRILITH_TEST_BUFFERS";

/// It ended in a panic, where a buffer is dropped: to unmap a part of what the kernel had joined takes one mapping more. In
/// a process of its own, since none of its threads can map anything then.
#[test]
fn a_process_that_may_map_nothing_more_gives_back_the_memory_of_its_buffers() {
    const COUNT: usize = 32;
    if std::env::var_os(CHILD).is_none() {
        let name = "disk::tests::buffers::a_process_that_may_map_nothing_more_gives_back_the_memory_of_its_buffers";
        let limit = mappings_max();
        if limit > MAPPINGS_MADE_MAX {
            return skipped(name, &format!("{limit} mappings are too many to make (vm.max_map_count)"));
        }
        let program = std::env::current_exe().expect("a test has a program");
        let output =
            Command::new(program).args(["--exact", name, "--nocapture"]).env(CHILD, "").output().expect("it runs");
        assert!(output.status.success(), "{output:?}");
        return;
    }
    let mut buffers: Vec<Buffer> = (0..COUNT).map(|_| Buffer::with_capacity(HUGE_BYTES)).collect();
    buffers.iter().for_each(join_with_neighbours);
    buffers.sort_by_key(|buffer| buffer.as_ptr().addr());
    buffers.iter_mut().for_each(|buffer| buffer.extend(&[1; HUGE_BYTES]));
    let before = resident_bytes();
    map_all_that_may_be();
    let (kept, dropped): (Vec<_>, Vec<_>) = buffers.into_iter().enumerate().partition(|(at, _)| at % 2 == 0);
    drop(dropped);
    let given_back = before.saturating_sub(resident_bytes());
    assert!(given_back >= (COUNT / 2 - 2) * HUGE_BYTES, "{given_back} of {before}");
    assert!(kept.iter().all(|(_, buffer)| buffer.iter().all(|&byte| byte == 1)));
}

/// Maps the huge pages on both sides as the buffer's own is, where they are free: what other users of memory do now and then.
fn join_with_neighbours(buffer: &Buffer) {
    let start = buffer.as_ptr().cast_mut();
    for side in [start.wrapping_sub(HUGE_BYTES), start.wrapping_add(HUGE_BYTES)] {
        let (rights, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE | MapFlags::FIXED_NOREPLACE);
        // SAFETY: a new mapping that takes no place where there is one.
        if let Ok(found) = unsafe { mmap_anonymous(side.cast(), HUGE_BYTES, rights, flags) } {
            // SAFETY: nothing points to it, and the advice changes no byte.
            let _is_huge = unsafe { madvise(found, HUGE_BYTES, Advice::LinuxHugepage) }.is_ok();
        }
    }
}

/// Of this process, as the kernel counts them.
fn resident_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("the kernel says it");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("there is one for each process");
    line.trim().strip_suffix(" kB").and_then(|kib| kib.parse::<usize>().ok()).expect("it is a number") << 10
}

/// How many a process may have.
fn mappings_max() -> usize {
    let limit = std::fs::read_to_string("/proc/sys/vm/max_map_count").expect("the kernel says it");
    limit.trim().parse().expect("it is a number")
}

/// Every second piece of a range with other rights: each is a mapping by itself.
fn map_all_that_may_be() {
    // Whole pages, of whatever size they are.
    const PIECE_BYTES: usize = 64 << 10;
    let pieces = mappings_max() + 2;
    // SAFETY: a new mapping, at a place that the kernel chooses.
    let start = unsafe { mmap_anonymous(null_mut(), pieces * PIECE_BYTES, ProtFlags::empty(), MapFlags::PRIVATE) };
    let start = start.expect("nothing of it is touched");
    let is_refused = (0..pieces).step_by(2).any(|piece| {
        let piece = start.wrapping_byte_add(piece * PIECE_BYTES);
        // SAFETY: a part of that mapping, to which nothing points.
        unsafe { mprotect(piece, PIECE_BYTES, MprotectFlags::READ) }.is_err()
    });
    assert!(is_refused, "there is a limit");
}
