//! What the hot path never waits for.

use super::*;

/// Uses more files than are held open.
fn use_others(directory: &Directory, round: usize) {
    for at in 0..12 {
        let file = contract::create(directory, &format!("d/other-{round}-{at}"), &[7; 8]);
        directory.sync(file).expect("it is open");
    }
}

fn prepared(directory: &Directory, name: &str) -> FileId {
    let file = directory.create(name).expect("it does not exist yet");
    directory.zero(file, 0, 4 * BLOCK_BYTES as u64).expect("there is room");
    directory.sync(file).expect("it is open");
    file
}

/// However long ago it was written, and whatever else was used since, the file that is written stays open, and so does
/// one that was prepared for it; what was left behind goes like any other.
#[test]
fn the_file_that_is_written_is_never_parked() {
    for mode in [SyncMode::Dsync, SyncMode::Fdatasync] {
        let root = scratch();
        let directory = Directory::open_few(root.path(), 4).expect("it exists");
        directory.create_directory("d").expect("there is room");
        let [active, ready] = ["d/active", "d/ready"].map(|name| prepared(&directory, name));
        let mut queue = BlockingQueue::new(directory.clone(), mode, Box::new(|| {})).expect("a thread can be had");
        let mut write = |file| {
            queue.submit(contract::write(1, file, 0, 5, 1));
            loop {
                if let Some(completion) = queue.take() {
                    break completion.result.expect("the disk works");
                }
                std::thread::yield_now();
            }
        };
        let another = Directory::open(root.path()).expect("it exists");
        let is_open = |name| another.open(name).is_err_and(|error| error.is_locked());
        write(active);
        use_others(&directory, 0);
        assert!(is_open("d/active") && is_open("d/ready"), "{mode}");
        let names = directory.hold_names();
        write(active);
        write(ready);
        drop(names);
        use_others(&directory, 1);
        assert!(is_open("d/ready") && !is_open("d/active"), "{mode}: the one that was left behind is parked");
    }
}

/// A rename, or an opening, may hang in the kernel with the lock of names: files that are open are read and written.
#[test]
fn whoever_holds_names_holds_up_no_open_file() {
    for mode in [SyncMode::Dsync, SyncMode::Fdatasync] {
        let mut rig = blocking(mode, true).expect("it always works");
        rig.directory.create_directory("d").expect("there is room");
        let file = prepared(&rig.directory, "d/f");
        let holder = rig.directory.clone();
        let names = holder.hold_names();
        let (done, is_done) = std::sync::mpsc::channel();
        let directory = rig.directory.clone();
        let worker = std::thread::spawn(move || {
            rig.submit(contract::write(1, file, 0, 5, 1));
            rig.wait().result.expect("the disk works");
            assert_eq!(contract::read(&directory, file, 0, BLOCK_BYTES), [5; BLOCK_BYTES]);
            directory.write(file, 0, &[6; 8]).expect("it is open");
            directory.sync(file).expect("it is open");
            done.send(()).expect("the test waits");
        });
        let said = is_done.recv_timeout(Duration::from_secs(10));
        drop(names);
        worker.join().expect("it does not panic");
        said.expect("it waited for a name");
    }
}

/// The kernel may refuse what is in the ring: the write is no error, and leaves at the next hand-over, also of a thread
/// that never parks.
#[test]
fn uring_tries_a_refused_hand_over_again() {
    let faults = [Fault::None, Fault::NotHandedOver, Fault::NotHandedOver];
    let Some(mut rig) = faulty_uring(SyncMode::Dsync, faults) else { return };
    let file = contract::create(rig.files(), "f", &[1; BLOCK_BYTES]);
    let reader = rig.directory.open_read("f").expect("it exists");
    leaves_without_a_park(&mut rig, reader, |queue, directory| {
        queue.submit(contract::write(1, file, 0, 2, 1));
        queue.hand_over();
        queue.hand_over();
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(contract::read(directory, reader, 0, 1), [1], "it was refused twice");
        queue.hand_over();
    });
}
