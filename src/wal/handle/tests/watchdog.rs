//! A bound for stories that show a defect by hanging: a wake-up that is lost is a failure with a name.

use std::panic::resume_unwind;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

/// Far more than any of them takes on a busy machine.
const TIME_MAX: Duration = Duration::from_secs(60);

/// Runs a story on a thread of its own. One that does not end in time is left behind, with what it waits for.
pub(super) fn comes_to_an_end(what: &str, story: impl FnOnce() + Send + 'static) {
    comes_to_an_end_within(TIME_MAX, what, story);
}

fn comes_to_an_end_within(time: Duration, what: &str, story: impl FnOnce() + Send + 'static) {
    let (done, is_done) = channel();
    let thread = std::thread::spawn(move || {
        story();
        done.send(()).unwrap();
    });
    match is_done.recv_timeout(time) {
        Err(RecvTimeoutError::Timeout) => panic!("{what}: it hangs"),
        // It has come to its end, or it panicked.
        Ok(()) | Err(RecvTimeoutError::Disconnected) => thread.join().unwrap_or_else(|panic| resume_unwind(panic)),
    }
}

#[test]
#[should_panic(expected = "who waits for nobody: it hangs")]
fn a_story_that_hangs_fails_by_its_name() {
    let never = || loop {
        std::thread::park();
    };
    comes_to_an_end_within(Duration::from_millis(1), "who waits for nobody", never);
}

#[test]
#[should_panic(expected = "its own words")]
fn a_story_that_fails_fails_in_its_own_words() {
    comes_to_an_end("who fails", || panic!("its own words"));
}
