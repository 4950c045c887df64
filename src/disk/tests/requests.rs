//! Requests that are refused, and requests that wait.

use super::*;

/// What waits behind slow writes is not old by that: the age is that of the request that is with the kernel.
#[test]
fn blocking_does_not_take_a_long_queue_for_a_hung_disk() {
    let slow = [Fault::Hangs(Duration::from_millis(150)); 6];
    let mut rig = BlockingRig::with(SyncMode::Dsync, true, Seam::with(slow), Duration::from_millis(450));
    let file = contract::create(rig.files(), "f", &[1; 6 * BLOCK_BYTES]);
    for at in 0..6 {
        rig.submit(contract::write(at, file, at, 2, 1));
    }
    for _ in 0..6 {
        rig.wait().result.expect("no request takes long");
    }
}

/// A request that the ring does not take, a write or a flush: its writer is told, and nobody waits for ever.
#[test]
fn uring_says_what_the_ring_refuses() {
    let refused_write = (SyncMode::Dsync, vec![Fault::Refused], Operation::Write);
    let refused_flush = (SyncMode::Fdatasync, vec![Fault::None, Fault::Refused], Operation::Flush);
    for (mode, faults, operation) in [refused_write, refused_flush] {
        let Some(mut rig) = faulty_uring(mode, faults) else { return };
        let file = contract::create(rig.files(), "f", &[1; BLOCK_BYTES]);
        rig.submit(contract::write(1, file, 0, 2, 1));
        let start = std::time::Instant::now();
        let completion = loop {
            match rig.take() {
                Some(completion) => break completion,
                None => assert!(start.elapsed() < Duration::from_secs(5), "{operation} never completes"),
            }
            rig.turn();
        };
        assert_eq!(completion.result.expect_err("it was refused").operation, operation);
        rig.submit(contract::write(2, file, 0, 3, 1));
        assert!(rig.wait().result.is_err(), "nothing counts after that");
    }
}
