//! A process stopped at a named step: the request that makes it is held back until the test has done what it wants, which
//! is to kill the process.
//!
//! While one is held back no other is answered: nothing happens on this disk between the step and the kill.

use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// What a process asks of the disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Act {
    MakeDirectory,
    Create,
    Read,
    Write,
    Allocate,
    Flush,
    FlushDirectory,
    Rename,
    Remove,
}

/// A request that came in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Seen {
    pub act: Act,
    /// From the mount on; empty for that itself.
    pub name: String,
    pub offset: u64,
}

/// The request that is waited for.
#[derive(Clone, Debug)]
pub struct Step {
    pub act: Act,
    /// Its name is this, or begins and ends so around a star.
    pub name: &'static str,
    /// So many of its kind are let through.
    pub skip: u64,
    /// Not before one of this kind was let through.
    pub behind: Option<(Act, &'static str)>,
}

/// What becomes of the request that was held back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Let {
    /// It is carried out.
    Done,
    /// It is not.
    Refused,
    /// It is not, and nothing after it: the power has gone.
    Cut,
}

/// Where requests pass.
#[derive(Default)]
pub struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    step: Option<Step>,
    is_held: bool,
    answer: Option<Let>,
    /// What was let through and done, of names with this in them.
    noted: Vec<Seen>,
    note: Option<&'static str>,
}

impl Step {
    pub const fn new(act: Act, name: &'static str) -> Step {
        Step { act, name, skip: 0, behind: None }
    }

    pub const fn skip(self, skip: u64) -> Step {
        Step { skip, ..self }
    }

    pub const fn behind(self, act: Act, name: &'static str) -> Step {
        Step { behind: Some((act, name)), ..self }
    }

    /// Whether this request is the one.
    fn is_reached(&mut self, seen: &Seen) -> bool {
        if let Some((act, name)) = self.behind {
            if seen.act == act && is_named(&seen.name, name) {
                self.behind = None;
            }
            return false;
        }
        if seen.act != self.act || !is_named(&seen.name, self.name) {
            return false;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return false;
        }
        true
    }
}

impl Gate {
    /// The next request that is this one is held back.
    pub fn close(&self, step: Step) {
        let mut state = self.state();
        assert!(!state.is_held, "one at a time");
        (state.step, state.answer) = (Some(step), None);
    }

    /// Whether one is held back, as soon as it is so or the time is over.
    pub fn is_reached(&self, patience: Duration) -> bool {
        let end = Instant::now() + patience;
        let mut state = self.state();
        while !state.is_held && Instant::now() < end {
            let left = end.saturating_duration_since(Instant::now());
            state = self.changed.wait_timeout(state, left).expect("no holder of this lock panics").0;
        }
        state.is_held
    }

    /// Lets go what is held back, and holds back nothing more.
    pub fn open(&self, answer: Let) {
        let mut state = self.state();
        state.step = None;
        state.answer = state.is_held.then_some(answer);
        self.changed.notify_all();
        // Who is let go may be late to see it, and must not find another step then.
        while state.is_held {
            state = self.changed.wait(state).expect("no holder of this lock panics");
        }
    }

    /// From now on what is done to such names is noted.
    pub fn note(&self, name: &'static str) {
        let mut state = self.state();
        state.note = Some(name);
        state.noted.clear();
    }

    pub fn noted(&self) -> Vec<Seen> {
        self.state().noted.clone()
    }

    /// A request comes in: what is to become of it.
    pub fn pass(&self, seen: Seen) -> Let {
        let mut state = self.state();
        let is_reached = state.step.as_mut().is_some_and(|step| step.is_reached(&seen));
        let mut answer = Let::Done;
        if is_reached {
            state.is_held = true;
            self.changed.notify_all();
            while state.answer.is_none() {
                state = self.changed.wait(state).expect("no holder of this lock panics");
            }
            answer = state.answer.take().expect("it was waited for");
            (state.step, state.is_held) = (None, false);
            self.changed.notify_all();
        }
        if answer == Let::Done && state.note.is_some_and(|part| seen.name.contains(part)) {
            state.noted.push(seen);
        }
        answer
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics")
    }
}

fn is_named(name: &str, pattern: &str) -> bool {
    match pattern.split_once('*') {
        Some((begin, end)) => name.len() >= begin.len() + end.len() && name.starts_with(begin) && name.ends_with(end),
        None => name == pattern,
    }
}

#[test]
fn a_step_is_the_request_that_was_named() {
    let seen = |act, name: &str| Seen { act, name: name.to_owned(), offset: 0 };
    let mut step = Step::new(Act::Write, "snapshot-*/chunks").skip(1).behind(Act::Create, "a");
    assert!(!step.is_reached(&seen(Act::Write, "snapshot-1/chunks")), "nothing was created yet");
    assert!(!step.is_reached(&seen(Act::Create, "a")));
    assert!(!step.is_reached(&seen(Act::Write, "snapshot-1/manifest")));
    assert!(!step.is_reached(&seen(Act::Flush, "snapshot-1/chunks")));
    assert!(!step.is_reached(&seen(Act::Write, "snapshot-1/chunks")), "the first of two");
    assert!(step.is_reached(&seen(Act::Write, "snapshot-1/chunks")));
    assert!(is_named("", "") && is_named("ab", "a*b") && !is_named("a", "a*a"));
}

#[test]
fn a_step_may_be_named_as_soon_as_what_was_held_back_is_let_go() {
    let gate = Gate::default();
    let seen = || Seen { act: Act::Write, name: "a".to_owned(), offset: 0 };
    for _ in 0..100 {
        gate.close(Step::new(Act::Write, "a"));
        std::thread::scope(|scope| {
            scope.spawn(|| gate.pass(seen()));
            assert!(gate.is_reached(Duration::from_secs(60)));
            gate.open(Let::Done);
            gate.close(Step::new(Act::Write, "b"));
        });
        let step = gate.state().step.take().map(|step| step.name);
        assert_eq!(step, Some("b"), "it is not forgotten by who was late");
    }
}
