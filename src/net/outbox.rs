//! Frames that wait to be written to one stream: encoded as they are queued, written all at once.

use std::sync::{Mutex, MutexGuard};

use bytes::{Bytes, BytesMut};
use tokio::sync::Notify;

use crate::types::Incarnation;

/// One writer takes; anyone puts.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    state: Mutex<State>,
    /// The writer waits here for the first frame.
    queued: Notify,
    /// Those who found no room wait here for the writer.
    taken: Notify,
}

#[derive(Debug, Default)]
struct State {
    bytes: BytesMut,
    /// Somebody was told [`Put::Full`] and waits for room.
    full: bool,
    open: bool,
    /// Of whoever reads it, where that matters.
    life: Option<Incarnation>,
    /// No more frames come; what is queued is still written.
    ended: bool,
}

/// What became of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Put {
    Queued,
    /// Queued, and the bound is reached.
    Full,
    /// Not queued: the bound was reached before.
    Refused,
    /// Not queued: nobody writes.
    Closed,
}

/// What the writer is to write.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) bytes: Bytes,
    /// Somebody waits for the room that this makes.
    pub(super) was_full: bool,
}

impl Outbox {
    pub(super) fn opened() -> Outbox {
        let outbox = Outbox::default();
        outbox.open();
        outbox
    }

    pub(super) fn open(&self) {
        *self.state() = State { open: true, ..State::default() };
    }

    /// For one life of a node.
    pub(super) fn open_for(&self, life: Incarnation) {
        *self.state() = State { open: true, life: Some(life), ..State::default() };
    }

    /// Forgets what is queued and refuses more.
    pub(super) fn close(&self) {
        *self.state() = State::default();
        self.queued.notify_one();
        self.taken.notify_waiters();
    }

    pub(super) fn is_open(&self) -> bool {
        self.state().open
    }

    /// Refuses more, and lets the writer end when all is written.
    pub(super) fn end(&self) {
        self.state().ended = true;
        self.queued.notify_one();
    }

    /// Appends what `encode` writes, if less than `bytes_max` is queued.
    pub(super) fn put(&self, bytes_max: usize, encode: impl FnOnce(&mut BytesMut)) -> Put {
        self.put_for(None, bytes_max, encode)
    }

    /// The same for one life, if one is meant: closed to it if another one reads.
    pub(super) fn put_for(
        &self,
        life: Option<Incarnation>,
        bytes_max: usize,
        encode: impl FnOnce(&mut BytesMut),
    ) -> Put {
        let mut state = self.state();
        let is_another = life.is_some() && state.life != life;
        if !state.open || state.ended || is_another {
            return Put::Closed;
        }
        if state.bytes.len() >= bytes_max {
            state.full = true;
            return Put::Refused;
        }
        let first = state.bytes.is_empty();
        encode(&mut state.bytes);
        let full = state.bytes.len() >= bytes_max;
        state.full |= full;
        drop(state);
        if first {
            self.queued.notify_one();
        }
        if full { Put::Full } else { Put::Queued }
    }

    /// The same, but waits for room. False if nobody writes.
    pub(super) async fn put_when_room(&self, bytes_max: usize, encode: impl Fn(&mut BytesMut)) -> bool {
        loop {
            let taken = self.taken.notified();
            tokio::pin!(taken);
            // Listening begins before looking, so that room made in between is not missed.
            taken.as_mut().enable();
            match self.put(bytes_max, &encode) {
                Put::Queued | Put::Full => return true,
                Put::Closed => return false,
                Put::Refused => taken.await,
            }
        }
    }

    /// Everything that is queued, as soon as there is something; `None` when no more comes.
    pub(super) async fn take(&self) -> Option<Taken> {
        loop {
            if let Some(taken) = self.take_now() {
                return taken;
            }
            self.queued.notified().await;
        }
    }

    /// `Some(None)` when no more comes, `None` when one has to wait.
    fn take_now(&self) -> Option<Option<Taken>> {
        let mut state = self.state();
        if !state.bytes.is_empty() {
            let was_full = std::mem::take(&mut state.full);
            if was_full {
                self.taken.notify_waiters();
            }
            return Some(Some(Taken { bytes: state.bytes.split().freeze(), was_full }));
        }
        (state.ended || !state.open).then_some(None)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("only an encoder that breaks its own bounds can panic here")
    }
}
