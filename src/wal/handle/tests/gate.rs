//! A disk that answers when a test lets it, and as it says.

use super::*;

/// What stands before the completions of the queue, and is set while the log is open.
#[derive(Default)]
pub(super) struct Gate(AtomicUsize);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum GateState {
    Open,
    /// Nothing comes back from the disk.
    Held,
    /// What comes back has failed.
    Fails,
}

impl Gate {
    pub fn set(&self, state: GateState) {
        self.0.store(state as usize, Ordering::SeqCst);
    }

    pub fn is(&self, state: GateState) -> bool {
        self.0.load(Ordering::SeqCst) == state as usize
    }
}

/// The log looks for completions at each tick of its clock.
pub(super) fn gated(gate: &Arc<Gate>) -> impl FnOnce(Box<dyn disk::Queue>) -> Box<dyn disk::Queue> + Send + 'static {
    let gate = Arc::clone(gate);
    move |queue| Box::new(Gated { queue, gate })
}

struct Gated {
    queue: Box<dyn disk::Queue>,
    gate: Arc<Gate>,
}

impl disk::Queue for Gated {
    fn submit(&mut self, write: disk::Write) {
        self.queue.submit(write);
    }

    fn hand_over(&mut self) {
        self.queue.hand_over();
    }

    fn take(&mut self) -> Option<disk::Completion> {
        if self.gate.is(GateState::Held) {
            return None;
        }
        let mut completion = self.queue.take()?;
        if self.gate.is(GateState::Fails) {
            let error = std::io::Error::from_raw_os_error(5);
            completion.result = Err(disk::Error::new(Operation::Flush, "the segment", error));
        }
        Some(completion)
    }
}
