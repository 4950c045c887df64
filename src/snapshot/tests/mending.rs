//! A chunk that rotted comes back from another node's snapshot.

use super::crashes::each_crash;
use super::receiving::{Sender, sender};
use super::*;
use crate::sim::disk::{Code, Failure};

/// A whole snapshot with a rotten chunk, and what a node has whose snapshot is right.
fn rotten(number: u32) -> (SimDisk, Sender) {
    let (disk, sender) = (with_snapshots(&[10]), sender(10));
    disk.flip_bit(&chunks(), sender.manifest.place(number).0 + 17, 3);
    (disk, sender)
}

fn chunks() -> String {
    format!("{}/chunks", description(10).name())
}

fn bad(disk: &SimDisk, manifest: &Manifest) -> Vec<u32> {
    verify(&disk.files(), manifest).unwrap().into_iter().map(|bad| bad.number).collect()
}

#[test]
fn a_rotten_or_unreadable_chunk_is_put_back_and_a_right_one_left_alone() {
    for number in 0..3 {
        let (disk, sender) = rotten(number);
        let (files, manifest) = (disk.files(), &sender.manifest);
        let chunk = &sender.chunks[number as usize];
        assert_eq!(bad(&disk, manifest), [number]);
        let other = (number + 1) % 3;
        let mut flipped = chunk.clone();
        flipped[5] ^= 1;
        for wrong in [&flipped, &sender.chunks[other as usize], &Vec::new()] {
            assert_eq!(mend(&files, manifest, number, wrong).unwrap(), Mended::Bad);
        }
        let right = &sender.chunks[other as usize];
        assert_eq!(mend(&files, manifest, other, right).unwrap(), Mended::WasRight);
        assert_eq!(bad(&disk, manifest), [number]);
        assert_eq!(mend(&files, manifest, number, chunk).unwrap(), Mended::Done);
        disk.crash_with(&mut |_| 0);
        assert_eq!(whole(&disk), [10], "it was flushed");
    }
}

/// The power goes at each operation: no other chunk is touched, and the snapshot is as whole as it was.
#[test]
fn a_cut_at_each_operation_of_mending_makes_nothing_worse() {
    let mut cuts = 0;
    for operation in 0.. {
        let (disk, sender) = rotten(1);
        disk.crash_at(disk.operations() + operation);
        let mended = mend(&disk.files(), &sender.manifest, 1, &sender.chunks[1]).is_ok();
        cuts += each_crash(&disk, operation, |disk| {
            assert!(matches!(condition(disk, 10), Condition::Whole(_)), "operation {operation}");
            let bad = bad(disk, &sender.manifest);
            assert!(bad.is_empty() || (bad == [1] && !mended), "operation {operation}: {bad:?}");
            mend(&disk.files(), &sender.manifest, 1, &sender.chunks[1]).unwrap();
            disk.crash_with(&mut |_| 0);
            assert_eq!(whole(disk), [10]);
        });
        if mended {
            break;
        }
    }
    assert!(cuts > 10, "{cuts}");
}

#[test]
fn a_failure_of_each_operation_of_mending_is_told() {
    for operation in 0.. {
        let (disk, sender) = rotten(1);
        let before = disk.operations();
        disk.fail_at(before + operation, Failure::Error(Code::Io));
        let told = mend(&disk.files(), &sender.manifest, 1, &sender.chunks[1]);
        let is_over = disk.operations() - before <= operation;
        disk.clear_failures();
        let is_mended = bad(&disk, &sender.manifest).is_empty();
        match told {
            // The reading of what is damaged may fail: then it is damaged all the same.
            Ok(told) => assert!(is_mended && told == Mended::Done, "operation {operation}"),
            Err(_) => {
                mend(&disk.files(), &sender.manifest, 1, &sender.chunks[1]).unwrap();
                assert_eq!(whole(&disk), [10]);
            }
        }
        if is_over {
            assert!(operation > 5, "{operation}");
            break;
        }
    }
}

/// Where the snapshot is not the one that the chunk belongs to, nothing is written.
#[test]
fn only_the_snapshot_of_the_manifest_is_mended() {
    let (disk, sender) = rotten(1);
    let mut other = sender.manifest.clone();
    other.description.log_start = Index(2);
    let before = disk.contents(&chunks());
    assert!(matches!(mend(&disk.files(), &other, 1, &sender.chunks[1]), Err(Error::Damaged { .. })));
    disk.truncate(&chunks(), 1500);
    assert!(matches!(mend(&disk.files(), &sender.manifest, 1, &sender.chunks[1]), Err(Error::Damaged { .. })));
    assert_eq!(disk.contents(&chunks()), before[..1500]);
}
