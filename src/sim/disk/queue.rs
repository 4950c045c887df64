//! The simulated disk as a queue: writes wait until the test says what becomes of them.

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::rc::Rc;

use super::state::{Pending, State, Verdict};
use super::{Act, Code, SimFiles};
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
        let mut pending = Pending { queue: self.queue, token, file, node: open.node, offset, buffer, error: None };
        let doom = if poisoned { Some(crate::disk::poisoned()) } else { doom(&mut state, &pending, open.writable) };
        pending.error = doom.map(|error| state.write_error(&pending, error));
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

/// Why a write will fail, if it will. A part of it may have landed.
fn doom(state: &mut State, write: &Pending, writable: bool) -> Option<io::Error> {
    let name = state.tree.name_of(write.node);
    let verdict = match state.begin(Act::Submit, &name, write.offset, write.buffer.len() as u64, &write.buffer) {
        Ok(verdict) => verdict,
        Err(error) => return Some(error),
    };
    if !writable {
        return Some(Code::BadDescriptor.into());
    }
    if let Err(error) = state.check_room(write.node, write.offset + write.buffer.len() as u64) {
        return Some(error);
    }
    match verdict {
        Verdict::Proceeds | Verdict::Cut => None,
        Verdict::Fails(failure) => {
            let landed = failure.landing().min(write.buffer.len() as u64) as usize;
            state.content_mut(write.node).write(write.offset, &write.buffer[..landed]);
            state.content_mut(write.node).abandon();
            Some(failure.error())
        }
    }
}

impl fmt::Debug for SimQueue {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("SimQueue").field("queue", &self.queue).finish_non_exhaustive()
    }
}
