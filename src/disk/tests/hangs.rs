//! A disk that hangs, and one that only takes its time.

use super::*;

/// Two writes, of which the first hangs for so long and is given up.
fn given_up(hangs: Duration) -> BlockingRig {
    let seam = Seam::with([Fault::Hangs(hangs)]);
    let mut rig = BlockingRig::with(SyncMode::Fdatasync, true, seam, Duration::from_millis(50));
    let file = contract::create(rig.files(), "f", &[1; BLOCK_BYTES]);
    rig.submit(contract::write(1, file, 0, 2, 1));
    rig.submit(contract::write(2, file, 0, 2, 1));
    std::thread::sleep(Duration::from_millis(60));
    let completion = rig.wait();
    assert!(completion.token == Token(1) && completion.result.expect_err("it hangs").hangs());
    rig
}

/// The disk answers after all: nobody believes it any more.
#[test]
fn blocking_takes_no_answer_that_comes_too_late() {
    let mut rig = given_up(Duration::from_millis(200));
    // Until both are written.
    while rig.woken.recv_timeout(Duration::from_secs(1)).is_ok() {}
    let completion = rig.wait();
    assert!(completion.token == Token(2) && completion.result.expect_err("nothing counts").hangs());
}

/// Whoever gives up on a disk does not wait for it at the end.
#[test]
fn blocking_is_dropped_while_its_disk_hangs() {
    let rig = given_up(Duration::from_secs(20));
    let start = std::time::Instant::now();
    drop(rig.queue);
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}

/// The age is that of a request, not that of the thread: one that has nothing to do is not given up.
#[test]
fn blocking_may_rest_for_longer_than_a_request_may_take() {
    let mut rig = BlockingRig::with(SyncMode::Fdatasync, true, Seam::default(), Duration::from_secs(2));
    let file = contract::create(rig.files(), "f", &[1; BLOCK_BYTES]);
    rig.submit(contract::write(1, file, 0, 2, 1));
    rig.wait().result.expect("nothing is wrong with the disk");
    std::thread::sleep(Duration::from_millis(2100));
    assert!(rig.take().is_none());
    rig.submit(contract::write(2, file, 0, 3, 1));
    rig.wait().result.expect("nothing is wrong with the disk");
}

/// ETIMEDOUT is an answer, as disks on a network give it.
#[test]
fn an_error_that_says_timed_out_is_no_disk_that_hangs() {
    let mut rig = faulty([Fault::Fails(Errno::TIMEDOUT)]);
    let file = contract::create(rig.files(), "f", &[1; BLOCK_BYTES]);
    rig.submit(contract::write(1, file, 0, 2, 1));
    let error = rig.wait().result.expect_err("it failed");
    assert!(error.kind() == std::io::ErrorKind::TimedOut && !error.hangs() && !error.told_again().hangs(), "{error}");
}

/// A write whose flush is under way, and takes its time.
fn flushing() -> Option<(UringRig, FileId)> {
    let seam = Seam::with([Fault::None, Fault::Late(50_000)]);
    let faults = seam.clone();
    let mut rig = UringRig::with(SyncMode::Fdatasync, true, seam, DISK_OPERATION_AGE_MAX)?;
    let file = contract::create(rig.files(), "f", &[1; 2 * BLOCK_BYTES]);
    rig.submit(contract::write(1, file, 0, 2, 1));
    while faults.left() > 0 {
        assert!(rig.take().is_none());
        rig.turn();
    }
    Some((rig, file))
}

/// Of two flushes of one file at once the kernel tells one alone that a write was lost.
#[test]
fn uring_flushes_one_at_a_time() {
    let Some((mut rig, file)) = flushing() else { return };
    rig.submit(contract::write(2, file, 1, 2, 1));
    assert_eq!([rig.wait().token, rig.wait().token], [Token(1), Token(2)]);
}
