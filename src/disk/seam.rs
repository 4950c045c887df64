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
    /// The answer comes after so many turns of the other tasks (io_uring), or at once (blocking).
    Late(u32),
    /// The answer never comes (io_uring), or after so long (blocking).
    Hangs(std::time::Duration),
}

/// Faults, used up one by one: by each request for a write, and by each flush of its own.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seam {
    #[cfg(test)]
    faults: Arc<Mutex<VecDeque<Fault>>>,
}

/// The fault of one request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Drawn(#[cfg(test)] Fault);

impl Seam {
    #[cfg(test)]
    pub fn with(faults: impl IntoIterator<Item = Fault>) -> Seam {
        Seam { faults: Arc::new(Mutex::new(faults.into_iter().collect())) }
    }

    /// Faults that no request has met yet.
    #[cfg(test)]
    pub fn left(&self) -> usize {
        self.faults.lock().expect("no test panics with it").len()
    }

    /// Called once before each request.
    #[cfg(not(test))]
    pub fn draw(&self) -> Drawn {
        Drawn()
    }

    #[cfg(test)]
    pub fn draw(&self) -> Drawn {
        Drawn(self.faults.lock().expect("no test panics with it").pop_front().unwrap_or(Fault::None))
    }
}

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
}
