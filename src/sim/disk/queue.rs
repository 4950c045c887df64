//! The simulated disk as a queue: writes wait until the test says what becomes of them.

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::rc::Rc;

use super::state::{Pending, State, Verdict};
use super::{Act, Code, Failure, SimFiles};
use crate::disk::{Completion, Queue, WRITES_QUEUED_MAX, Write};

/// One process's hot path to a [`super::SimDisk`]. Nothing completes by itself: see [`super::SimDisk::complete`].
///
/// When the process has ended, what is submitted goes nowhere.
pub struct SimQueue {
    state: Rc<RefCell<State>>,
    epoch: u64,
    /// In the state's list.
    queue: usize,
}

impl SimQueue {
    pub(super) fn new(files: &SimFiles) -> SimQueue {
        let mut state = files.state.borrow_mut();
        state.queues.push(super::state::QueueState::default());
        let queue = state.queues.len() - 1;
        SimQueue { state: Rc::clone(&files.state), epoch: files.epoch, queue }
    }
}

impl Queue for SimQueue {
    fn submit(&mut self, write: Write) {
        write.check();
        let mut state = self.state.borrow_mut();
        if state.epoch != self.epoch {
            return;
        }
        let queue = &mut state.queues[self.queue];
        assert!(queue.in_flight < WRITES_QUEUED_MAX, "more than {WRITES_QUEUED_MAX} writes in flight");
        queue.in_flight += 1;
        let poisoned = queue.poisoned;
        let open = state.opened(write.file);
        let Write { token, file, offset, buffer } = write;
        let (queue, node, lands_at) = (self.queue, open.node, Some(offset));
        let mut pending = Pending { queue, token, file, node, offset, lands_at, buffer, error: None };
        let fate = if poisoned { Err(crate::disk::poisoned()) } else { fate(&mut state, &pending, open.writable) };
        match fate {
            Ok(lands_at) => pending.lands_at = lands_at,
            Err(error) => pending.error = Some(state.write_error(&pending, error)),
        }
        // A queue that has an error to tell is poisoned from here on, as one whose kernel refuses at once.
        state.queues[self.queue].poisoned |= pending.error.is_some();
        state.pending.push(pending);
    }

    fn take(&mut self) -> Option<Completion> {
        let mut state = self.state.borrow_mut();
        if state.epoch != self.epoch {
            return None;
        }
        let queue = &mut state.queues[self.queue];
        let completion = queue.done.pop_front()?;
        queue.in_flight -= 1;
        Some(completion)
    }
}

/// Where a write will land, or why it will fail. A part of one that fails may have landed.
fn fate(state: &mut State, write: &Pending, writable: bool) -> io::Result<Option<u64>> {
    let name = state.tree.name_of(write.node);
    let length = write.buffer.len() as u64;
    let verdict = state.begin(Act::Submit, &name, write.offset, length, &write.buffer)?;
    if !writable {
        return Err(Code::BadDescriptor.into());
    }
    let (lands_at, told) = match verdict {
        Verdict::Proceeds | Verdict::Cut => (write.offset, None),
        Verdict::Fails(Failure::Lost) => return Ok(None),
        Verdict::Fails(Failure::Misdirected { by }) => (moved(write.offset, by), None),
        Verdict::Fails(failure) => (write.offset, Some(failure)),
    };
    state.check_room(write.node, lands_at + length)?;
    let Some(failure) = told else { return Ok(Some(lands_at)) };
    let landed = failure.landing().min(length) as usize;
    state.content_mut(write.node).write(write.offset, &write.buffer[..landed]);
    state.content_mut(write.node).abandon();
    Err(failure.error())
}

/// Where a misdirected write begins.
pub(super) fn moved(offset: u64, by: i64) -> u64 {
    offset.checked_add_signed(by).expect("a misdirected write stays in its file")
}

impl fmt::Debug for SimQueue {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("SimQueue").field("queue", &self.queue).finish_non_exhaustive()
    }
}
