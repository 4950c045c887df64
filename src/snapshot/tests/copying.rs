//! A snapshot of one cluster becomes one of another: the same state, and nothing that is not whole.

use super::*;
use crate::sim::disk::{Code, Failure};

const NEW: ClusterId = ClusterId(0xc2);

fn renamed(index: u64) -> Description {
    Description { cluster: NEW, membership: Membership::default(), membership_id: LogId::ZERO, ..description(index) }
}

fn manifest_of(disk: &SimDisk) -> Manifest {
    list(&disk.files(), None).unwrap().whole(GROUP).next().expect("one is whole").clone()
}

fn copied(from: &SimDisk, to: &SimDisk) -> Result<Manifest, Error> {
    copy(&from.files(), &manifest_of(from), &to.files(), renamed(20), |_| ())
}

#[test]
fn a_copy_is_the_same_state_under_another_name() {
    let (from, to) = (with_snapshots(&[20]), SimDisk::new());
    let manifest = copied(&from, &to).unwrap();
    assert_eq!(manifest.description, renamed(20));
    to.crash_with(&mut |_| 0);
    assert_eq!(content(&to.files(), &manifest).unwrap(), state(20));
    assert!(
        list(&to.files(), Some(ClusterId(0xc1))).unwrap().whole(GROUP).next().is_none(),
        "it is of the new cluster"
    );
    assert_eq!(manifest_of(&to), manifest);
    let operations = to.operations();
    copied(&from, &to).unwrap();
    assert!(to.operations() <= operations + 1, "what is there is not brought again");
    assert_eq!(
        content(&from.files(), &manifest_of(&from)).unwrap(),
        state(20),
        "where it came from nothing has changed"
    );
}

#[test]
fn how_far_it_is_is_told_of_both_rounds() {
    let (from, to) = (with_snapshots(&[20]), SimDisk::new());
    let (manifest, mut told) = (manifest_of(&from), Vec::new());
    copy(&from.files(), &manifest, &to.files(), renamed(20), |copying| told.push(copying)).unwrap();
    let of = manifest.bytes;
    let starts: Vec<u64> = (0..manifest.chunks()).map(|number| manifest.place(number).0).collect();
    let checked = starts.iter().map(|bytes| Copying::Checked { bytes: *bytes, of });
    assert_eq!(
        told,
        checked.chain(starts.iter().map(|bytes| Copying::Written { bytes: *bytes, of })).collect::<Vec<_>>()
    );
}

#[test]
fn what_rotted_is_not_passed_on() {
    let (from, to) = (with_snapshots(&[20]), SimDisk::new());
    from.flip_bit(&format!("{}/chunks", description(20).name()), 1500, 3);
    let error = copied(&from, &to).unwrap_err();
    assert!(matches!(error, Error::Damaged { .. }), "{error}");
    assert!(to.files().list("").unwrap().is_empty());
}

/// Each operation of either disk fails once: what is whole is right, and the next attempt ends well.
#[test]
fn a_copy_that_fails_anywhere_is_made_by_the_next_attempt() {
    for is_source in [true, false] {
        for operation in 0.. {
            let (from, to) = (with_snapshots(&[20]), SimDisk::new());
            let manifest = manifest_of(&from);
            let disk = if is_source { &from } else { &to };
            disk.fail_at(disk.operations() + operation, Failure::Partial { bytes: 100, error: Code::Io });
            let failed = copy(&from.files(), &manifest, &to.files(), renamed(20), |_| ()).is_err();
            disk.clear_failures();
            to.kill(&mut Random::seeded(operation));
            let whole = list(&to.files(), None).unwrap().whole(GROUP).count();
            assert!(!failed || whole == 0, "operation {operation}");
            let manifest =
                copy(&from.files(), &manifest, &to.files(), renamed(20), |_| ()).expect("nothing is wrong any more");
            assert_eq!(content(&to.files(), &manifest).unwrap(), state(20));
            if !failed {
                assert!(operation > 3, "{operation}");
                break;
            }
        }
    }
}
