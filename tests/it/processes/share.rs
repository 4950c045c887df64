//! What a test takes of the machine while it runs.
//!
//! Most of these tests wait for disks, elections and ends of processes, and several of them can run beside each other. Some
//! assert how long something takes, and have the machine for themselves. libtest begins as many as it has threads; who
//! finds no room waits here, and those who need less pass by. With more threads than there is room for (.ci/run) nobody is
//! kept from the room that there is by somebody who waits for more.

use std::sync::{Condvar, Mutex, PoisonError};

/// What there is to share.
const WHOLE: usize = 6;
static MACHINE: Machine = Machine::new();

/// No other of these tests runs: times mean something, and a leader leads on.
pub fn alone() -> Share {
    MACHINE.take(WHOLE)
}

/// Keeps a core busy, or the disk, and takes any change of leader: one other may run, that mostly waits.
pub fn beside_one() -> Share {
    MACHINE.take(WHOLE - WHOLE / 3)
}

/// Mostly waits: one that is busy may run beside it, or two others like it.
pub fn beside_few() -> Share {
    MACHINE.take(WHOLE / 3)
}

/// Given back when it is dropped, also by a panic.
#[must_use = "it is given back when it is dropped"]
pub struct Share {
    from: &'static Machine,
    parts: usize,
}

struct Machine {
    /// At most [`WHOLE`].
    taken: Mutex<usize>,
    given_back: Condvar,
}

impl Machine {
    const fn new() -> Machine {
        Machine { taken: Mutex::new(0), given_back: Condvar::new() }
    }

    fn take(&'static self, parts: usize) -> Share {
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let has_no_room = |taken: &mut usize| *taken + parts > WHOLE;
        let mut taken = self.given_back.wait_while(taken, has_no_room).unwrap_or_else(PoisonError::into_inner);
        *taken += parts;
        Share { from: self, parts }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        *self.from.taken.lock().unwrap_or_else(PoisonError::into_inner) -= self.parts;
        self.from.given_back.notify_all();
    }
}

#[test]
fn who_needs_the_whole_machine_waits_for_all_and_who_needs_less_passes_by() {
    static OWN: Machine = Machine::new();
    let taken = || *OWN.taken.lock().expect("nobody panics with it");
    let (sender, begun) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let (one, other) = (OWN.take(1), OWN.take(WHOLE / 3));
        scope.spawn(move || {
            let _alone = OWN.take(WHOLE);
            sender.send(taken()).expect("somebody listens");
        });
        // It may not even wait yet; whether it does is not seen from outside.
        std::thread::sleep(std::time::Duration::from_millis(50));
        drop(OWN.take(1));
        drop(one);
        assert_eq!((taken(), begun.try_recv().ok()), (WHOLE / 3, None), "it waits for the other, too");
        let panicked = std::thread::spawn(move || {
            let _other = other;
            panic!("this is meant");
        });
        assert!(panicked.join().is_err());
        assert_eq!(begun.recv(), Ok(WHOLE));
    });
    assert_eq!(taken(), 0);
}
