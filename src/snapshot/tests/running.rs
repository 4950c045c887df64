//! The thread around it, on a real directory.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::*;
use crate::disk::Directory;
use crate::snapshot::run::{Control, Ended, run};

fn of(bytes: usize) -> Builder {
    Builder::new(description(10), Box::new(Bytes { rest: vec![3; bytes], piece_bytes: 1 << 20 }))
}

#[test]
fn it_is_written_no_faster_than_it_may_and_waits_for_its_point() {
    let home = tempfile::tempdir().unwrap();
    let files = Directory::open(home.path()).unwrap();
    let control = Arc::new(Control::new(4 << 20));
    let began = Instant::now();
    let (elsewhere, told) = (files.clone(), Arc::clone(&control));
    let thread = std::thread::spawn(move || run(&elsewhere, of(4 << 20), &told));
    while files.list("").unwrap() != [format!("{}.making", description(10).name())] {
        std::thread::sleep(Duration::from_millis(1));
    }
    std::thread::sleep(Duration::from_millis(300));
    assert!(list(&files, None).unwrap().whole(GROUP).next().is_none(), "its point is not durable");
    control.point_is_durable.store(true, Ordering::Release);
    let ended = thread.join().unwrap().unwrap();
    assert!(matches!(ended, Ended::Done(done) if done == description(10)));
    // What waits for its turn goes by that (turn_ticks in node::driver).
    assert!(began.elapsed() >= Duration::from_millis(1900), "4 MiB at 4 MiB/s, and read back: {:?}", began.elapsed());
    let listing = list(&files, None).unwrap();
    assert!(verify(&files, listing.whole(GROUP).next().unwrap()).unwrap().is_empty());
}

#[test]
fn one_that_is_stopped_or_fails_leaves_nothing() {
    let home = tempfile::tempdir().unwrap();
    let files = Directory::open(home.path()).unwrap();
    // A byte per second: it would take weeks.
    let control = Arc::new(Control::new(1));
    let (elsewhere, told) = (files.clone(), Arc::clone(&control));
    let thread = std::thread::spawn(move || run(&elsewhere, of(4 << 20), &told));
    std::thread::sleep(Duration::from_millis(50));
    control.stop.store(true, Ordering::Release);
    assert!(matches!(thread.join().unwrap(), Ok(Ended::Stopped)));
    assert!(files.list("").unwrap().is_empty());
    let disk = SimDisk::new();
    disk.set_capacity(2 << 20);
    let error = run(&disk.files(), of(4 << 20), &Control::new(1 << 40)).unwrap_err();
    assert!(error.is_no_space() && disk.files().list("").unwrap().is_empty(), "{error}");
}

/// The log needs the rest more.
#[test]
fn one_that_would_leave_too_little_room_is_not_begun_or_not_ended() {
    let disk = SimDisk::new();
    let kept = 8 << 20;
    let control = || Control::new(1 << 40).keeping_free(kept);
    // There is not enough at the beginning.
    disk.set_capacity(kept + (1 << 20));
    let error = run(&disk.files(), of(4 << 20), &control()).unwrap_err();
    assert!(matches!(error, Error::NoRoom { free_bytes, .. } if free_bytes == kept + (1 << 20)), "{error}");
    // Nor when a part of it is written.
    disk.set_capacity(kept + (20 << 20));
    let error = run(&disk.files(), of(40 << 20), &control()).unwrap_err();
    assert!(matches!(error, Error::NoRoom { .. }) && error.is_no_space(), "{error}");
    assert!(disk.files().list("").unwrap().is_empty());
    // A log that is full has no use for it.
    disk.set_capacity(5 << 20);
    let full = control();
    full.log_is_full.store(true, Ordering::Release);
    full.point_is_durable.store(true, Ordering::Release);
    assert!(matches!(run(&disk.files(), of(4 << 20), &full), Ok(Ended::Done(_))));
    remove(&disk.files(), &description(10).name()).unwrap();
    disk.set_capacity(kept + (60 << 20));
    let control = control();
    control.point_is_durable.store(true, Ordering::Release);
    assert!(matches!(run(&disk.files(), of(40 << 20), &control), Ok(Ended::Done(_))));
    assert_eq!(control.written_bytes.load(Ordering::Relaxed), 40 << 20);
}
