//! How a thread waits for what a task would await: it polls with a waker that unparks it.

use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

/// Blocks until it is ready.
pub(super) fn wait<T>(mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>) -> T {
    OWN_WAKER.with(|waker| {
        let mut context = Context::from_waker(waker);
        loop {
            if let Poll::Ready(said) = poll(&mut context) {
                return said;
            }
            // Returns at once if it was woken meanwhile, and at times for no reason.
            thread::park();
        }
    })
}

/// Blocks until it is ready, or `time` is over.
pub(super) fn wait_timeout<T>(time: Duration, mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>) -> Poll<T> {
    // A time that no clock reaches.
    let Some(end) = Instant::now().checked_add(time) else { return Poll::Ready(wait(poll)) };
    OWN_WAKER.with(|waker| {
        let mut context = Context::from_waker(waker);
        loop {
            let polled = poll(&mut context);
            let left = end.saturating_duration_since(Instant::now());
            if polled.is_ready() || left.is_zero() {
                return polled;
            }
            thread::park_timeout(left);
        }
    })
}

thread_local! {
    /// Unparks this thread.
    static OWN_WAKER: Waker = Waker::from(Arc::new(Unpark(thread::current())));
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.unpark();
    }
}
