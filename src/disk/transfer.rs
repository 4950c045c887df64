//! Short reads and writes are finished, interrupted ones resubmitted: the one place that decides which is which.

use std::io;

/// Requests in a row that move nothing, or that the kernel asks to send again, before that is an error by itself.
const IDLE_REQUESTS_MAX: u32 = 1024;

/// How far a request of known length has come, over as many calls as it takes.
#[derive(Debug)]
pub(super) struct Transfer {
    /// What has to be moved, in bytes.
    length: usize,
    /// Moved so far, from the start on; only grows.
    moved: usize,
    /// A call starts on a multiple of this: direct I/O refuses anything else.
    granule: usize,
    /// Calls in a row after which the next one starts where the last one did.
    idle_requests: u32,
}

impl Transfer {
    pub fn new(length: usize, granule: usize) -> Transfer {
        Transfer { length, moved: 0, granule, idle_requests: 0 }
    }

    /// Where the next call starts. A part of a granule that was moved already is moved once more.
    pub fn next_start(&self) -> usize {
        self.moved - self.moved % self.granule
    }

    pub fn is_complete(&self) -> bool {
        self.moved == self.length
    }

    /// Takes in what a call said that began at `next_start`. An error that comes back is final.
    pub fn record(&mut self, said: io::Result<usize>) -> io::Result<()> {
        let start = self.next_start();
        match said {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => {
                assert!(start + count <= self.length, "the kernel moved {count} bytes, more than it was given");
                self.moved = self.moved.max(start + count);
            }
            Err(error) if self.idle_requests < IDLE_REQUESTS_MAX && may_be_resubmitted(&error) => {}
            Err(error) => return Err(error),
        }
        if self.is_complete() || self.next_start() > start {
            self.idle_requests = 0;
        } else if self.idle_requests == IDLE_REQUESTS_MAX {
            return Err(io::Error::other("the kernel took a part of a block a thousand times over"));
        } else {
            self.idle_requests += 1;
        }
        Ok(())
    }
}

/// A call that failed so has moved no byte.
fn may_be_resubmitted(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock)
}
