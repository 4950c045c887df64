//! C7's share of one disk: the power goes at each operation of making and of removing, and any part of what was not
//! flushed survives.

use super::*;

/// So many ways are tried one by one; of more, so many.
const WAYS_MAX: usize = 1 << 8;

/// Calls `check` with the disk after each way in which a cut may end.
pub fn each_crash(disk: &SimDisk, seed: u64, mut check: impl FnMut(&SimDisk)) -> usize {
    let loose = disk.loose();
    let ways =
        loose.iter().try_fold(1_usize, |ways, one| ways.checked_mul(one.outcomes).filter(|ways| *ways <= WAYS_MAX));
    let mut random = Random::seeded(seed);
    for way in 0..ways.unwrap_or(WAYS_MAX) {
        let fork = disk.fork();
        let mut rest = way;
        match ways {
            Some(_) => fork.crash_with(&mut |one| {
                let outcome = rest % one.outcomes;
                rest /= one.outcomes;
                outcome
            }),
            None => fork.crash(&mut random),
        }
        check(&fork);
    }
    ways.unwrap_or(WAYS_MAX)
}

/// What a start finds is what it may find; it sweeps, makes another one, and both are there.
fn check_start(disk: &SimDisk, allowed: &[&[u64]], what: &str) {
    let listing = list(&disk.files(), Some(ClusterId(0xc1))).expect("the root can be listed");
    for found in &listing.found {
        let is_sound = matches!(found.condition, Condition::Whole(_) | Condition::Unfinished(_));
        assert!(is_sound, "{what}: {found:?}");
    }
    let found = whole(disk);
    assert!(allowed.contains(&&found[..]), "{what}: {found:?} is there, and not one of {allowed:?}");
}

fn start(disk: &SimDisk) -> Result<(), Error> {
    settle(&disk.files())?;
    sweep(&disk.files())
}

/// From two snapshots to the next two: the third is made and the first removed, with a cut at each operation. Then, of every
/// third way that ends, a start with a cut at each of its operations, and a fourth one, which must go well.
pub fn cut_at_each_operation() -> usize {
    let (mut cuts, mut starts, mut operation) = (0, 0, 0);
    loop {
        let disk = with_snapshots(&[10, 20]);
        disk.crash_at(disk.operations() + operation);
        let made = run(&disk.files(), builder(30)).is_ok();
        let swept = made && sweep(&disk.files()).is_ok() && !disk.is_off();
        let allowed: &[&[u64]] = match (made, swept) {
            (false, _) => &[&[10, 20], &[10, 20, 30]],
            (true, false) => &[&[10, 20, 30], &[20, 30]],
            (true, true) => &[&[20, 30]],
        };
        cuts += each_crash(&disk, operation, |disk| {
            check_start(disk, allowed, &format!("operation {operation}"));
            starts += 1;
            if starts % 3 == 0 {
                interrupted_start(disk, allowed, operation);
            }
        });
        if swept {
            return cuts;
        }
        operation += 1;
    }
}

/// A start that is cut itself, at any operation, loses nothing either; the next one is whole.
fn interrupted_start(disk: &SimDisk, allowed: &[&[u64]], seed: u64) {
    let found = whole(disk);
    let newest = found.last().copied().expect("one is always there");
    for operation in 0.. {
        let fork = disk.fork();
        fork.crash_at(fork.operations() + operation);
        // A snapshot that cannot be read is told, and ends no start.
        let started = start(&fork).is_ok() && !fork.is_off();
        if !started {
            fork.crash(&mut Random::seeded(seed + operation));
            assert_eq!(whole(&fork).last(), Some(&newest));
            check_start(&fork, &[&found, &found[found.len() - 2..]], "an interrupted start");
            continue;
        }
        // What a start has done is durable.
        fork.crash_with(&mut |_| 0);
        let kept = &found[found.len() - 2..];
        assert!(allowed.iter().any(|allowed| allowed.ends_with(kept)));
        assert_eq!(whole(&fork), kept);
        assert_eq!(fork.files().list("").unwrap().len(), 2, "nothing is left over");
        make(&fork.files(), 40).expect("nothing is wrong with the disk");
        assert_eq!(whole(&fork), [kept[1], 40]);
        return;
    }
}

#[test]
fn a_cut_at_each_operation_leaves_the_older_or_the_newer_one_whole() {
    let cuts = cut_at_each_operation();
    println!("{cuts} cuts");
    assert!(cuts > 500, "{cuts}");
}

/// The first one of all: nothing, or that one.
#[test]
fn a_cut_of_the_first_one_leaves_nothing_or_all() {
    let mut seen = [0, 0];
    for operation in 0.. {
        let disk = SimDisk::new();
        disk.crash_at(operation);
        let made = make(&disk.files(), 10).is_ok();
        each_crash(&disk, operation, |disk| {
            check_start(disk, if made { &[&[10]] } else { &[&[], &[10]] }, &format!("operation {operation}"));
            seen[whole(disk).len()] += 1;
            start(disk).expect("nothing is wrong with the disk");
        });
        if made {
            break;
        }
    }
    assert!(seen[0] > 100 && seen[1] >= 2, "{seen:?}");
}

/// An operation that fails without a cut: told, removed, and the next one succeeds. Then a cut.
#[test]
fn a_failure_of_each_operation_is_told_and_leaves_nothing_behind() {
    use crate::sim::disk::{Code, Failure};
    let (mut failed, mut operation) = (0, 0);
    loop {
        let disk = with_snapshots(&[10]);
        let before = disk.operations();
        disk.fail_at(before + operation, Failure::Partial { bytes: 100, error: Code::Io });
        let made = run(&disk.files(), builder(20));
        if let Err((builder, error)) = made {
            assert!(matches!(error, Error::Disk(_)), "{error}");
            builder.abandon(&disk.files()).expect("nothing else is wrong");
            assert_eq!(disk.files().list("").unwrap(), [description(10).name()], "operation {operation}");
            make(&disk.files(), 20).expect("nothing is wrong any more");
            failed += 1;
        } else {
            disk.clear_failures();
            break;
        }
        each_crash(&disk, operation, |disk| assert_eq!(whole(disk), [10, 20]));
        operation += 1;
    }
    assert!(failed >= 12, "{failed}");
}

/// A process that dies leaves what the page cache has; the next start flushes the root before it believes a name.
#[test]
fn a_name_that_a_dead_process_did_not_flush_is_flushed_at_start() {
    let (mut not_flushed, mut not_read_back) = (0, 0);
    for operation in 0.. {
        let disk = with_snapshots(&[10]);
        let mut builder = builder(20);
        let mut done = false;
        for _ in 0..operation {
            done = builder.step(&disk.files(), true).expect("nothing is wrong with the disk") == Step::Done;
        }
        disk.kill(&mut Random::seeded(operation));
        let after_a_cut = disk.fork();
        after_a_cut.crash_with(&mut |_| 0);
        if whole(&disk).len() == 2 && !done {
            match whole(&after_a_cut).len() {
                1 => not_flushed += 1,
                _ => not_read_back += 1,
            }
        }
        settle(&disk.files()).unwrap();
        let found = whole(&disk);
        each_crash(&disk, operation, |disk| assert_eq!(whole(disk), found));
        if done {
            break;
        }
    }
    // Each but the last read is a step after which the process may die, and so is the flush.
    let chunks = state(20).len().div_ceil(CHUNK_BYTES);
    assert_eq!((not_flushed, not_read_back), (1, 1 + chunks), "renamed, and not flushed or not read back");
}

/// A process dies while it removes one, its renaming seen by all and on no disk; the next start clears what it left, and the
/// power goes in that, too. Had the start cleared it before it flushed the name, a cut would bring back the name without the
/// files.
#[test]
fn what_a_dead_process_began_to_remove_is_cleared_and_at_no_cut_damaged() {
    use crate::sim::disk::{Code, Failure};
    let (mut left, mut cuts) = (0, 0);
    for operation in 0.. {
        let disk = with_snapshots(&[10, 20]);
        run(&disk.files(), builder(30)).map_err(|_| ()).expect("nothing is wrong with the disk");
        disk.fail_at(disk.operations() + operation, Failure::Error(Code::Io));
        let is_removed = sweep(&disk.files()).is_ok();
        disk.kill(&mut Random::seeded(operation));
        disk.clear_failures();
        let names = disk.files().list("").expect("it can be listed");
        let is_removed = is_removed && !names.iter().any(|name| name.starts_with(&description(10).name()));
        left += u64::from(names.iter().any(|name| name.ends_with(".removing")));
        for at in 0.. {
            let fork = disk.fork();
            fork.crash_at(fork.operations() + at);
            let is_started = start(&fork).is_ok() && !fork.is_off();
            cuts += each_crash(&fork, operation + at, |disk| {
                let what = format!("it died at {operation}, and the power went at {at}");
                check_start(disk, &[&[10, 20, 30], &[20, 30]], &what);
                start(disk).expect("nothing is wrong with the disk");
                disk.crash_with(&mut |_| 0);
                let names = disk.files().list("").expect("it can be listed");
                assert_eq!(names, [20, 30].map(|index| description(index).name()), "{what}");
            });
            if is_started {
                break;
            }
        }
        if is_removed {
            break;
        }
    }
    assert!(left >= 4 && cuts > 100, "{left} times something was left, {cuts} cuts");
}
