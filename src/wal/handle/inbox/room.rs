//! How an append waits for room: in the queue, and in the segments that stand ready.

use std::sync::{MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use super::{Inbox, Share, State};
use crate::limits::CUT_QUEUE_BYTES;
use crate::wal::body::frame_room_bytes;
use crate::wal::handle::error::Refused;
use crate::wal::handle::options::WhenFull;
use crate::wal::{self, Supply};

impl Inbox {
    pub(super) fn wait_for_room(&self, bytes: usize) -> Result<MutexGuard<'_, State>, Refused> {
        self.wait_until(bytes, self.queue_bytes_max, |state| {
            let frame_bytes = state.item_frame_bytes + state.core_frame_bytes + frame_room_bytes(bytes);
            bytes == 0 || frame_bytes <= state.disk_room.bytes
        })
    }

    pub(super) fn wait_for(&self, share: Share, bytes: usize) -> Result<MutexGuard<'_, State>, Refused> {
        if share == Share::Appends {
            return self.wait_for_room(bytes);
        }
        // A cut has room of its own behind that of the clients: it may be what makes some.
        let max = self.queue_bytes_max.saturating_add(CUT_QUEUE_BYTES);
        self.wait_until(bytes, max, |state| !state.is_disk_full() || state.waiting_bytes() + bytes <= max)
    }

    /// Waits until no more than `max` bytes wait with these, and until what is ready holds them; but not where no segment can
    /// be made: nothing may be written then, and the wait would not end.
    fn wait_until(
        &self,
        bytes: usize,
        max: usize,
        fits_disk: impl Fn(&State) -> bool,
    ) -> Result<MutexGuard<'_, State>, Refused> {
        let mut state = self.lock();
        loop {
            state.check_open()?;
            let (waiting, fits_disk) = (state.waiting_bytes(), fits_disk(&state));
            match state.disk_room.supply {
                _ if fits_disk && (waiting == 0 || waiting + bytes <= max) => return Ok(state),
                Supply::Failing if !fits_disk => return Err(wal::Refused::NoSpace.into()),
                Supply::Short if !fits_disk && !state.is_room_wanted => {
                    state.is_room_wanted = true;
                    drop(state);
                    self.wake();
                    state = self.lock();
                    continue;
                }
                Supply::Coming | Supply::Short | Supply::Failing => {}
            }
            if self.when_full == WhenFull::Busy {
                let room = usize::try_from(state.disk_room.bytes).unwrap_or(usize::MAX);
                let max = if fits_disk { max } else { max.min(room) };
                return Err(Refused::Busy { bytes: waiting, max });
            }
            state.blocked += 1;
            state = self.room.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.blocked -= 1;
        }
    }

    /// To be asked before an append that may be refused as busy, for [`Inbox::poll_turn`] after it.
    pub fn turns(&self) -> u64 {
        self.lock().turns
    }

    /// Ready when there was a turn since: another try may be worth it.
    pub fn poll_turn(&self, since: u64, waker: &Waker) -> Poll<()> {
        // Cloned before the lock.
        let waker = waker.clone();
        let mut state = self.lock();
        if state.turns != since {
            return Poll::Ready(());
        }
        if !state.room_wakers.iter().any(|known| known.will_wake(&waker)) {
            state.room_wakers.push(waker);
        }
        Poll::Pending
    }

    /// Wakes the tasks that wait for room. To be called behind each turn, with no lock held: a waker may do anything.
    pub fn wake_tasks(&self) {
        let wakers = std::mem::take(&mut self.lock().room_wakers);
        wakers.into_iter().for_each(Waker::wake);
    }
}
