//! Which buffer the pool gives.

use crate::disk::{Buffer, BufferPool};

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
