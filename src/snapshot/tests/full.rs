//! D12's share: the disk fills at each byte's worth of a snapshot, and is free again.

use super::*;
use crate::sim::disk::{Code, Failure};

/// It is told, nothing is left behind, what was there stays, and the next attempt succeeds.
fn fails_and_succeeds_later(disk: &SimDisk, used_bytes: u64) {
    let (builder, error) = run(&disk.files(), builder(30)).unwrap_err();
    assert!(error.is_no_space(), "{error}");
    assert!(error.next_step().contains("space"), "{}", error.next_step());
    builder.abandon(&disk.files()).expect("to remove needs no room");
    assert_eq!(disk.used_bytes(), used_bytes, "what was made is gone");
    assert_eq!(whole(disk), [10, 20]);
    disk.set_capacity(1 << 40);
    make(&disk.files(), 30).expect("there is room again");
    assert_eq!(whole(disk), [20, 30]);
}

#[test]
fn a_disk_that_is_full_at_any_place_is_told_and_left_as_it_was() {
    let disk = with_snapshots(&[10, 20]);
    let used_bytes = disk.used_bytes();
    let fork = disk.fork();
    run(&fork.files(), builder(30)).map_err(|_| ()).unwrap();
    let needed = fork.used_bytes() - used_bytes;
    let mut cycles = 0;
    for room in (0..needed).step_by(2) {
        let fork = disk.fork();
        fork.set_capacity(used_bytes + room);
        fails_and_succeeds_later(&fork, used_bytes);
        cycles += 1;
    }
    assert!(cycles > 1000, "{cycles}");
    disk.set_capacity(used_bytes + needed);
    run(&disk.files(), builder(30)).map_err(|_| ()).expect("it just fits");
}

/// Where names need room, too, and where what a write got is half of it.
#[test]
fn an_operation_that_finds_no_room_is_told_and_leaves_nothing() {
    let mut failed = 0;
    for operation in 0.. {
        for failure in [Failure::Error(Code::NoSpace), Failure::Partial { bytes: 300, error: Code::QuotaExceeded }] {
            let disk = with_snapshots(&[10, 20]);
            let used_bytes = disk.used_bytes();
            disk.fail_at(disk.operations() + operation, failure);
            if run(&disk.fork().files(), builder(30)).is_ok() {
                assert!(failed >= 24, "{failed}");
                return;
            }
            fails_and_succeeds_later(&disk, used_bytes);
            failed += 1;
        }
    }
}
