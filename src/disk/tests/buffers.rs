//! Which buffer the pool gives.

use crate::disk::{Buffer, BufferPool};
use crate::limits::BLOCK_BYTES;

const BYTES: usize = 64 << 10;

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
