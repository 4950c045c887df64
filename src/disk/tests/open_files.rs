//! Which files are held open.

use std::time::{Duration, Instant};

use super::*;

/// However many files have an id, few are open; each is there all the same, wherever it was renamed to.
#[test]
fn few_of_many_files_are_open() {
    let root = scratch();
    let directory = Directory::open_few(root.path(), 4).expect("it exists");
    directory.create_directory("d").expect("there is room");
    let root_file = contract::create(&directory, "root", b"held");
    let files: Vec<FileId> = (0..20)
        .map(|at| {
            let file = contract::create(&directory, &format!("d/{at}"), &[at; BLOCK_BYTES]);
            directory.sync(file).expect("it is open");
            file
        })
        .collect();
    assert!(directory.open_count() <= 4, "{}", directory.open_count());
    directory.rename("d/3", "d/three").expect("it exists");
    directory.remove("d/5").expect("it exists");
    for (at, &file) in files.iter().enumerate().filter(|(at, _)| *at != 5) {
        assert_eq!(contract::read(&directory, file, 0, BLOCK_BYTES), [at as u8; BLOCK_BYTES]);
        assert!(directory.open_count() <= 4, "{}", directory.open_count());
    }
    let removed = directory.read(files[5], 0, &mut [0; 8]).expect_err("it is parked, and its name is gone");
    assert_eq!(removed.kind(), std::io::ErrorKind::NotFound);
    let another = Directory::open(root.path()).expect("it exists");
    assert!(another.open("root").expect_err("it is held").is_locked(), "files in the root are never parked");
    directory.write(files[7], 0, b"new").expect("it is opened again");
    assert!(another.open("d/7").expect_err("it is written").is_locked());
    for &file in &files[8..] {
        contract::read(&directory, file, 0, 8);
    }
    assert!(another.open("d/7").expect_err("what is written waits for its flush").is_locked());
    assert_eq!(contract::read(&directory, files[7], 0, 3), b"new");
    directory.close(root_file);
}

/// As a supervisor starts a node again right behind its death.
#[test]
fn who_is_patient_waits_for_a_lock_and_for_no_longer_than_that() {
    let root = scratch();
    let first = Directory::open(root.path()).expect("it exists");
    contract::create(&first, "held", b"bytes");
    let refused = |patience| {
        let second = Directory::open_patiently(root.path(), Duration::from_millis(patience)).expect("it exists");
        let begun = Instant::now();
        assert!(second.open("held").expect_err("it is held").is_locked());
        begun.elapsed()
    };
    assert!(refused(100) >= Duration::from_millis(100));
    assert!(refused(0) < Duration::from_millis(100));
    let second = Directory::open_patiently(root.path(), Duration::from_secs(60)).expect("it exists");
    std::thread::scope(|scope| {
        scope.spawn(move || {
            std::thread::sleep(Duration::from_millis(100));
            drop(first);
        });
        second.open("held").expect("it is let go");
    });
}

/// A file without a name could not be opened again, and one that a request is at keeps its lock.
#[test]
fn what_is_in_use_stays_open() {
    let root = scratch();
    let directory = Directory::open_few(root.path(), 2).expect("it exists");
    directory.create_directory("d").expect("there is room");
    let nameless = contract::create(&directory, "d/nameless", &[9; 8]);
    let busy = contract::create(&directory, "d/busy", &[9; BLOCK_BYTES]);
    directory.sync(nameless).expect("it is open");
    directory.sync(busy).expect("it is open");
    directory.remove("d/nameless").expect("it exists");
    let seam = Seam::with([Fault::Hangs(Duration::from_secs(3))]);
    let mut queue =
        BlockingQueue::with_seam(directory.clone(), SyncMode::Dsync, Box::new(|| {}), seam, DISK_OPERATION_AGE_MAX)
            .expect("a thread can be had");
    queue.submit(contract::write(1, busy, 0, 5, 1));
    for at in 0..8 {
        let file = contract::create(&directory, &format!("d/{at}"), &[at; 8]);
        directory.sync(file).expect("it is open");
    }
    let another = Directory::open(root.path()).expect("it exists");
    assert!(another.open("d/busy").expect_err("the kernel has a request").is_locked());
    assert_eq!(contract::read(&directory, nameless, 0, 8), [9; 8]);
    drop(queue);
    assert_eq!(contract::read(&directory, busy, 0, 8), [5; 8]);
}

/// Descriptors of this process on files below a directory that the kernel has down as O_DSYNC.
fn durable_descriptors(root: &std::path::Path) -> usize {
    const O_DSYNC: u32 = 0o10_000;
    let is_below = |name: &std::ffi::OsStr| {
        // Those of other tests come and go meanwhile.
        let target = std::fs::read_link(std::path::Path::new("/proc/self/fd").join(name)).unwrap_or_default();
        target.starts_with(root)
    };
    let flags = |name: std::ffi::OsString| {
        let text = std::fs::read_to_string(std::path::Path::new("/proc/self/fdinfo").join(name)).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("flags:")).unwrap_or("0").trim();
        u32::from_str_radix(line, 8).expect("the kernel prints octal")
    };
    let names =
        std::fs::read_dir("/proc/self/fd").expect("Linux has it").filter_map(|entry| Some(entry.ok()?.file_name()));
    names.filter(|name| is_below(name)).filter(|name| flags(name.clone()) & O_DSYNC != 0).count()
}

fn write_durably(rig: &mut impl Rig, root: &std::path::Path) -> usize {
    let file = contract::create(rig.files(), "f", &[1; 2 * BLOCK_BYTES]);
    assert_eq!(durable_descriptors(root), 0, "nothing was written durably");
    rig.submit(contract::write(1, file, 0, 1, 2));
    rig.wait().result.expect("nothing is wrong with the disk");
    let count = durable_descriptors(root);
    rig.files().close(file);
    count
}

/// No cut of power is needed to see that a write through O_DSYNC is one: the kernel says how the descriptor is open. The
/// zoo's `dsync_left_out` is found by that.
#[test]
fn what_is_written_through_o_dsync_is_open_with_it() {
    use crate::mutant::{self, Mutant};
    let check = |name: &str, expected: usize| {
        let mut rig = super::blocking(SyncMode::Dsync, true).expect("it always works");
        let root = rig.root.path().canonicalize().expect("it exists");
        assert_eq!(write_durably(&mut rig, &root), expected, "blocking, {name}");
        if let Some(mut rig) = super::uring(SyncMode::Dsync, true) {
            let root = rig.root.path().canonicalize().expect("it exists");
            assert_eq!(write_durably(&mut rig, &root), expected, "uring, {name}");
        }
    };
    check("sound", 1);
    mutant::with(Mutant::DsyncLeftOut, || check("dsync_left_out", 0));
}
