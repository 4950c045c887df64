//! The proofs of snapshots on the simulated disk: one test for each row of docs/testing.md in which they have a part. How much
//! of each is done: see [`crate::sim::proofs`].

use std::collections::BTreeSet;

use super::crashes::each_crash;
use super::damage::{flip_every_bit, spoil_every_block};
use super::receiving::{receive, sender};
use super::*;
use crate::sim::disk::{Code, What};
use crate::sim::proofs::{Proof, prove};

#[test]
fn d04_bits_and_blocks_of_snapshots_and_their_manifests() {
    let run = |proof: &Proof| {
        let cases = flip_every_bit() + spoil_every_block();
        (0..cases).for_each(|_| proof.case());
    };
    prove("D4s", run, [21_900; 3]);
}

#[test]
fn d10_names_lost_and_strange_files_of_snapshots() {
    let run = |proof: &Proof| {
        names(proof);
        files(proof);
        read_only(proof);
    };
    prove("D10s", run, [3_400; 3]);
}

#[test]
fn d12_the_disk_is_full_and_free_again_while_snapshots_are_made_and_received() {
    prove("D12s", full_and_free_again, [100, 1_000, 1_000]);
}

/// Every kind of file is made, renamed and removed: one is made and an older one removed, one is received, and what was
/// broken off earlier goes. Tells which steps came to their end.
fn life(disk: &SimDisk) -> usize {
    let files = disk.files();
    let steps: [&dyn Fn() -> bool; 4] =
        [&|| settle(&files).is_ok(), &|| sweep(&files).is_ok(), &|| make(&files, 30).is_ok(), &|| {
            receive(disk, &sender(40)).is_ok() && sweep(&files).is_ok()
        }];
    steps.iter().take_while(|step| step() && !disk.is_off()).count()
}

/// Two snapshots, and what dead processes left: in the making, on its way to be removed, and received up to a chunk.
fn left_over() -> SimDisk {
    let disk = with_snapshots(&[10, 20]);
    let files = disk.files();
    let mut builder = builder(25);
    for _ in 0..3 {
        let step = builder.step(&files, true).expect("nothing is wrong with the disk");
        assert_ne!(step, Step::Done);
    }
    make_removing(&disk, 5);
    let sender = sender(40);
    let mut receiver = Receiver::open(&files, sender.manifest.clone(), ClusterId(0xc1)).expect("nothing is wrong");
    receiver.take(&files, 1, &sender.chunks[1]).expect("nothing is wrong with the disk");
    receiver.close(&files).expect("nothing is wrong with the disk");
    disk.kill(&mut Random::seeded(3));
    disk
}

/// As whoever removes one leaves it who dies behind the rename.
fn make_removing(disk: &SimDisk, index: u64) {
    let (from, name) = (with_snapshots(&[index]), description(index).name());
    disk.files().create_directory(&format!("{name}.removing")).expect("nothing is wrong with the disk");
    for file in ["chunks", "manifest"] {
        disk.plant(&format!("{name}.removing/{file}"), &from.contents(&format!("{name}/{file}")));
    }
}

/// D10: at each operation of that life the power goes, and of the creates, renames and removals that no flush of a directory
/// covers each subset is lost.
fn names(proof: &Proof) {
    let mut seen = BTreeSet::new();
    for at in 0.. {
        let disk = left_over();
        disk.crash_at(disk.operations() + at);
        let done = life(&disk);
        note(&disk, &mut seen);
        // Those at 30 and 40 are there when they were told to be.
        let told: &[u64] = [&[][..], &[], &[], &[30], &[30, 40]][done];
        each_crash(&disk, at, |disk| {
            let found = whole(disk);
            assert!(told.iter().all(|point| found.contains(point)), "cut at {at}, {done} steps done: {found:?}");
            assert!(found.len() >= 2 && found.is_sorted(), "cut at {at}: {found:?}");
            start_again(disk, at);
            proof.case();
        });
        if done == 4 {
            break;
        }
    }
    let acts = |act: &'static str, names: &'static [&'static str]| names.iter().map(move |name| (act, *name));
    let wanted: BTreeSet<(&str, &str)> = acts("create", &["making", "making/chunks", "making/manifest"])
        .chain(acts("rename", &["making", "whole", "receiving"]))
        .chain(acts("remove", &["removing/chunks", "removing/manifest", "removing", "making/chunks", "making"]))
        .collect();
    let missing: Vec<_> = wanted.difference(&seen).collect();
    assert!(missing.is_empty(), "never lost: {missing:?} of {seen:?}");
}

/// The next start finds two, or three, and leaves nothing of what was broken off; and another one can be made.
fn start_again(disk: &SimDisk, at: u64) {
    let files = disk.files();
    let before = whole(disk);
    settle(&files).expect("nothing is wrong with the disk");
    sweep(&files).expect("nothing is wrong with the disk");
    let kept = whole(disk);
    assert_eq!(kept, before[before.len() - 2..], "cut at {at}");
    disk.crash_with(&mut |_| 0);
    let files = disk.files();
    assert_eq!(whole(disk), kept, "cut at {at}: what a start has done is durable");
    let names = files.list("").expect("it can be listed");
    let is_left = |name: &&String| name.contains(".making") || name.contains(".removing");
    assert!(!names.iter().any(|name| is_left(&name)), "cut at {at}: {names:?}");
    make(&files, 50).expect("nothing is wrong with the disk");
    assert_eq!(whole(disk), [kept[1], 50], "cut at {at}");
}

/// Which changes of names are loose.
fn note(disk: &SimDisk, seen: &mut BTreeSet<(&'static str, &'static str)>) {
    for loose in disk.loose() {
        let What::Name { change } = loose.what else { continue };
        let mut words = change.split(' ');
        let (act, name) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let act = ["create", "rename", "remove"].into_iter().find(|own| *own == act).expect("one of the three");
        let kinds = ["making/chunks", "making/manifest", "receiving/chunks", "receiving/manifest"];
        let kinds =
            kinds.into_iter().chain(["removing/chunks", "removing/manifest", "making", "receiving", "removing"]);
        seen.insert((act, kinds.into_iter().find(|kind| name.ends_with(kind)).unwrap_or("whole")));
    }
}

/// D10: each file missing, empty, doubled, unopenable, a link; each directory likewise, and with something in it that is none
/// of its files. The other snapshot stays what it was, none passes for whole that is not what was written, and another one
/// can be made.
fn files(proof: &Proof) {
    let name = description(20).name();
    let refused = [Code::Io, Code::NotPermitted, Code::TooManyFiles, Code::Link, Code::Interrupted];
    for file in ["manifest", "chunks"] {
        let of = format!("{name}/{file}");
        let changes: [&dyn Fn(&SimDisk); 4] = [
            &|disk| disk.lose(&of),
            &|disk| disk.truncate(&of, 0),
            &|disk| disk.truncate(&of, disk.contents(&of).len() as u64 + 1),
            &|disk| disk.plant(&of, &disk.contents(&format!("{}/{file}", description(10).name()))),
        ];
        changes.iter().for_each(|change| is_told(proof, &format!("{of} changed"), false, change));
        for code in refused {
            is_told(proof, &format!("{of} {code:?}"), false, &|disk| disk.refuse_to_open(&of, Some(code)));
        }
    }
    let lost = |disk: &SimDisk| ["manifest", "chunks"].iter().for_each(|file| disk.lose(&format!("{name}/{file}")));
    is_told(proof, "an empty directory", false, &lost);
    // What is none of ours harms nobody, wherever it stands.
    let strange = ["snapshot-", "snapshot-0-20-3", "snapshots", "chunks", "manifest"];
    for name in strange.map(str::to_owned).into_iter().chain([format!("{name}/other"), format!("{name}/chunks.old")]) {
        is_told(proof, &name, true, &|disk| disk.plant(&name, b"strange"));
    }
    // The same files under the name of another point, and unfinished ones beside the whole one.
    for copy in
        [description(21).name(), format!("{name}.making"), format!("{name}.removing"), format!("{name}.receiving")]
    {
        is_told(proof, &copy, true, &|disk| {
            disk.files().create_directory(&copy).expect("nothing is wrong with the disk");
            ["manifest", "chunks"].iter().for_each(|file| {
                disk.plant(&format!("{copy}/{file}"), &disk.contents(&format!("{name}/{file}")));
            });
        });
    }
}

fn is_told(proof: &Proof, what: &str, is_whole: bool, change: &dyn Fn(&SimDisk)) {
    let disk = with_snapshots(&[10, 20]);
    change(&disk);
    let expected: &[u64] = if is_whole { &[10, 20] } else { &[10] };
    assert_eq!(whole(&disk), expected, "{what}");
    let files = disk.files();
    match make(&files, 30) {
        Ok(()) => {}
        Err(error) => panic!("{what}: {error}"),
    }
    let found = whole(&disk);
    // One that is damaged counts as none: the older whole one stays.
    assert_eq!(found, if is_whole { [20, 30] } else { [10, 30] }, "{what}");
    proof.case();
}

/// Of a file system that became read-only: what is there can be read, and nothing is changed.
fn read_only(proof: &Proof) {
    let disk = left_over();
    let before = disk.files().list("").expect("it can be listed");
    disk.set_read_only(true);
    assert_eq!(whole(&disk), [10, 20]);
    assert!(run(&disk.files(), builder(30)).is_err() && sweep(&disk.files()).is_err());
    assert!(receive(&disk, &sender(40)).is_err());
    assert_eq!(disk.files().list("").expect("it can be listed"), before);
    disk.set_read_only(false);
    start_again(&disk, 0);
    proof.case();
}

/// D12: one disk that is full and free again, while a snapshot is made, or received, or an older one removed. What was there
/// stays, nothing is left of what found no room, and what had come of another node's is gone on with.
fn full_and_free_again(proof: &Proof) {
    const CYCLES: u64 = 20;
    proof.spread(proof.pick(100, 1_000, 1_000) / CYCLES, |seed| {
        let (mut random, mut refused) = (Random::seeded(seed), 0);
        let disk = with_snapshots(&[10, 20]);
        for cycle in 0..CYCLES {
            let next = 30 + 10 * cycle;
            let (before, used) = (whole(&disk), disk.used_bytes());
            // A third of what one takes, more or less.
            disk.set_capacity(used + random.below(4_000));
            let is_received = cycle % 2 == 1;
            let said = match is_received {
                true => receive(&disk, &sender(next)).map(drop).and_then(|()| sweep(&disk.files())),
                false => match run(&disk.files(), builder(next)) {
                    Ok(()) => sweep(&disk.files()),
                    Err((builder, error)) => builder.abandon(&disk.files()).and(Err(error)),
                },
            };
            if let Err(error) = said {
                refused += 1;
                assert!(error.is_no_space(), "seed {seed}, cycle {cycle}: {error}");
                assert_eq!((whole(&disk), disk.used_bytes()), (before, used), "seed {seed}, cycle {cycle}");
                if cycle % 3 == 0 {
                    disk.crash(&mut random);
                    settle(&disk.files()).expect("to flush needs no room");
                    sweep(&disk.files()).expect("to remove needs no room");
                }
                disk.set_capacity(1 << 40);
                match is_received {
                    true => drop(receive(&disk, &sender(next)).expect("there is room again")),
                    false => run(&disk.files(), builder(next)).map_err(|(_, error)| error).expect("there is room"),
                }
                sweep(&disk.files()).expect("nothing is wrong with the disk");
            }
            disk.set_capacity(1 << 40);
            assert_eq!(whole(&disk), [next - 10, next], "seed {seed}, cycle {cycle}");
            proof.case();
        }
        assert!(refused >= CYCLES / 3, "seed {seed}: {refused} found no room");
    });
}
