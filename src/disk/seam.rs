//! The seam between what the kernel says of a request and what we make of it: tests put faults here.
//!
//! Outside of tests the seam is empty and costs nothing.

use std::io;

#[cfg(test)]
use std::{collections::VecDeque, sync::Arc, sync::Mutex};

/// What a test does to one request.
#[cfg(test)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fault {
    /// Nothing.
    None,
    /// The kernel is given so many bytes at most.
    Short(usize),
    /// The request is carried out, and answered by this error.
    Fails(rustix::io::Errno),
    /// The ring does not take the request (io_uring).
    Refused,
    /// The kernel does not take what is in the ring at the hand-over (io_uring). Is met by hand-overs alone.
    NotHandedOver,
    /// The request takes so much longer.
    Slow(std::time::Duration),
    /// The answer comes after so many turns of the other tasks (io_uring), or at once (blocking).
    Late(u32),
    /// The answer never comes (io_uring), or after so long (blocking).
    Hangs(std::time::Duration),
}

/// What the kernel has done, and was asked for.
#[cfg(test)]
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Done {
    /// These bytes of the file are written, as the kernel says.
    Wrote(std::ops::Range<u64>),
    /// A flush of its own begins.
    FlushBegun,
}

/// Faults, used up one by one: by each request for a write, and by each flush of its own.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seam {
    #[cfg(test)]
    faults: Arc<Mutex<VecDeque<Fault>>>,
    /// A slow disk: what each write, and each flush of its own, takes longer.
    #[cfg(test)]
    slow: Option<[std::time::Duration; 2]>,
    /// In order, since a test took them last.
    #[cfg(test)]
    done: Arc<Mutex<Vec<Done>>>,
}

/// The fault of one request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Drawn(#[cfg(test)] Fault);

impl Seam {
    #[cfg(test)]
    pub fn with(faults: impl IntoIterator<Item = Fault>) -> Seam {
        Seam { faults: Arc::new(Mutex::new(faults.into_iter().collect())), ..Seam::default() }
    }

    /// Each write, and each flush of its own, takes so much longer.
    #[cfg(test)]
    pub fn slow(write: std::time::Duration, flush: std::time::Duration) -> Seam {
        Seam { slow: Some([write, flush]), ..Seam::default() }
    }

    /// Faults that no request has met yet.
    #[cfg(test)]
    pub fn left(&self) -> usize {
        self.faults.lock().expect("no test panics with it").len()
    }

    /// Called once before each hand-over.
    #[cfg(not(test))]
    pub fn hand_over(&self) {}

    /// As tokio-uring says it: by a panic.
    #[cfg(test)]
    pub fn hand_over(&self) {
        let mut faults = self.faults.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let refused = faults.pop_front_if(|fault| *fault == Fault::NotHandedOver);
        drop(faults);
        assert!(refused.is_none(), "a test refuses the hand-over");
    }

    /// Called once before each write.
    #[cfg(not(test))]
    pub fn draw(&self) -> Drawn {
        Drawn()
    }

    /// Called once before each flush of its own.
    #[cfg(not(test))]
    pub fn draw_flush(&self) -> Drawn {
        Drawn()
    }

    #[cfg(test)]
    pub fn draw(&self) -> Drawn {
        self.next(self.slow.map(|[write, _]| write))
    }

    #[cfg(test)]
    pub fn draw_flush(&self) -> Drawn {
        self.done.lock().expect("no test panics with it").push(Done::FlushBegun);
        self.next(self.slow.map(|[_, flush]| flush))
    }

    /// Called with each answer to a write that began there.
    #[cfg(not(test))]
    pub fn wrote(&self, _place: u64, said: io::Result<usize>) -> io::Result<usize> {
        said
    }

    #[cfg(test)]
    pub fn wrote(&self, place: u64, said: io::Result<usize>) -> io::Result<usize> {
        if let Ok(count) = said {
            let bytes = place..place + count as u64;
            self.done.lock().expect("no test panics with it").push(Done::Wrote(bytes));
        }
        said
    }

    /// What has been done since this was called last.
    #[cfg(test)]
    pub fn take_done(&self) -> Vec<Done> {
        std::mem::take(&mut self.done.lock().expect("no test panics with it"))
    }

    #[cfg(test)]
    fn next(&self, slow: Option<std::time::Duration>) -> Drawn {
        let fault = self.faults.lock().expect("no test panics with it").pop_front();
        Drawn(fault.unwrap_or(slow.map_or(Fault::None, Fault::Slow)))
    }
}

/// How many bytes a read asks the kernel for, of so many.
#[cfg(not(test))]
pub(super) const fn read_limit(length: usize) -> usize {
    length
}

#[cfg(test)]
pub(super) use short_reads::read_limit;

#[cfg(not(test))]
impl Drawn {
    pub fn limit(self, length: usize) -> usize {
        length
    }

    pub fn answer<T>(self, said: io::Result<T>) -> io::Result<T> {
        said
    }

    pub fn hand_over(self) {}

    pub fn turns_late(self) -> u32 {
        0
    }

    pub fn hangs(self) -> Option<std::time::Duration> {
        None
    }

    pub fn slow(self) -> Option<std::time::Duration> {
        None
    }
}

#[cfg(test)]
impl Drawn {
    pub fn limit(self, length: usize) -> usize {
        if let Fault::Short(limit) = self.0 { limit.min(length) } else { length }
    }

    pub fn answer<T>(self, said: io::Result<T>) -> io::Result<T> {
        if let Fault::Fails(error) = self.0 { Err(error.into()) } else { said }
    }

    /// As tokio-uring says it: by a panic.
    pub fn hand_over(self) {
        assert!(self.0 != Fault::Refused, "a test refuses the request");
    }

    pub fn turns_late(self) -> u32 {
        if let Fault::Late(turns) = self.0 { turns } else { 0 }
    }

    pub fn hangs(self) -> Option<std::time::Duration> {
        if let Fault::Hangs(time) = self.0 { Some(time) } else { None }
    }

    pub fn slow(self) -> Option<std::time::Duration> {
        if let Fault::Slow(time) = self.0 { Some(time) } else { None }
    }
}

/// Reads that end too early, for the thread of a test.
#[cfg(test)]
pub(crate) mod short_reads {
    use std::cell::RefCell;

    use crate::limits::BLOCK_BYTES;
    use crate::random::Random;

    thread_local! {
        static SHORT: RefCell<Option<Random>> = const { RefCell::new(None) };
    }

    /// Until the call ends one read in three of this thread gets a part of what it could, by whole blocks.
    pub fn with<T>(random: Random, call: impl FnOnce() -> T) -> T {
        SHORT.replace(Some(random));
        let said = call();
        SHORT.replace(None);
        said
    }

    pub fn read_limit(length: usize) -> usize {
        let blocks = length.div_ceil(BLOCK_BYTES) as u64;
        let draw = |random: &mut Random| {
            if random.below(3) > 0 {
                length
            } else {
                (random.between(1, blocks + 1) as usize * BLOCK_BYTES).min(length)
            }
        };
        SHORT.with_borrow_mut(|short| short.as_mut().filter(|_| blocks > 0).map_or(length, draw))
    }
}
