//! The model of a cut: everything that may happen can happen, and what must not does not.

use std::collections::BTreeSet;
use std::io::ErrorKind;

use super::*;
use crate::disk::{Buffer, Files, Operation, Queue, Write};
use crate::limits::{BLOCK_BYTES, SECTOR_BYTES};

const SECTORS: usize = BLOCK_BYTES / SECTOR_BYTES;

fn with_file(bytes: &[u8]) -> (SimDisk, SimFiles, FileId) {
    let disk = SimDisk::new();
    disk.plant("f", bytes);
    let files = disk.files();
    let file = files.open("f").expect("it was planted");
    (disk, files, file)
}

fn block_write(token: u64, file: FileId, block: u64, fill: u8) -> Write {
    let mut buffer = Buffer::with_capacity(BLOCK_BYTES);
    buffer.extend(&[fill; BLOCK_BYTES]);
    Write { token: Token(token), file, offset: block * BLOCK_BYTES as u64, buffer }
}

/// Every state that a cut can leave, by walking all outcomes of all that is loose.
fn all_states<T: Ord>(disk: &SimDisk, look: impl Fn(&SimDisk) -> T) -> BTreeSet<T> {
    let loose = disk.loose();
    let mut outcomes = vec![0; loose.len()];
    let mut states = BTreeSet::new();
    loop {
        let copy = disk.fork();
        copy.crash_to(&outcomes);
        states.insert(look(&copy));
        let Some(at) = (0..loose.len()).find(|at| outcomes[*at] + 1 < loose[*at].outcomes) else { return states };
        outcomes[at] += 1;
        outcomes[..at].fill(0);
    }
}

fn first_bytes(disk: &SimDisk) -> Vec<u8> {
    disk.contents("f").chunks(SECTOR_BYTES).map(|sector| sector[0]).collect()
}

/// Found by backend_diff: on a file that takes no writes, too, there is no request that could be refused.
#[test]
fn to_write_or_zero_nothing_asks_no_disk() {
    let (disk, files, file) = with_file(&[7; SECTOR_BYTES]);
    let reader = files.open_read("f").expect("it was planted");
    let operations = disk.operations();
    for file in [file, reader] {
        files.write(file, 0, &[]).expect("nothing is asked");
        files.zero(file, 0, 0).expect("nothing is asked");
    }
    assert_eq!(disk.operations(), operations);
    assert_eq!(disk.contents("f"), [7; SECTOR_BYTES]);
}

#[test]
fn each_subset_of_unflushed_sectors_is_reachable() {
    let (disk, files, file) = with_file(&[0; BLOCK_BYTES]);
    files.write(file, 0, &[1; BLOCK_BYTES]).expect("there is room");
    let states = all_states(&disk, first_bytes);
    assert_eq!(states.len(), 1 << SECTORS);
    assert!(states.iter().flatten().all(|byte| *byte <= 1));
}

#[test]
fn each_version_of_a_sector_is_reachable() {
    let (disk, files, file) = with_file(&[0; SECTOR_BYTES]);
    for version in 1..=3 {
        files.write(file, 0, &[version; SECTOR_BYTES]).expect("there is room");
    }
    assert_eq!(all_states(&disk, first_bytes), BTreeSet::from([vec![0], vec![1], vec![2], vec![3]]));
    assert_eq!(first_bytes(&disk), [3], "readers see the last one");
}

#[test]
fn a_random_cut_reaches_all_none_and_some() {
    let (disk, files, file) = with_file(&[0; BLOCK_BYTES]);
    files.write(file, 0, &[1; BLOCK_BYTES]).expect("there is room");
    let mut random = Random::seeded(1);
    let states: BTreeSet<Vec<u8>> = (0..10_000)
        .map(|_| {
            let copy = disk.fork();
            copy.crash(&mut random);
            first_bytes(&copy)
        })
        .collect();
    assert_eq!(states.len(), 1 << SECTORS);
}

#[test]
fn what_was_flushed_is_never_lost() {
    let (disk, files, file) = with_file(&[0; BLOCK_BYTES]);
    files.write(file, 0, &[1; BLOCK_BYTES]).expect("there is room");
    files.sync(file).expect("nothing is wrong");
    assert_eq!(disk.loose(), []);
    files.write(file, 0, &[2; SECTOR_BYTES]).expect("there is room");
    let states = all_states(&disk, first_bytes);
    assert_eq!(states, BTreeSet::from([vec![1; SECTORS], [vec![2], vec![1; SECTORS - 1]].concat()]));
}

#[test]
fn a_length_is_lost_apart_from_the_data() {
    let (disk, files, file) = with_file(&[]);
    files.write(file, 0, &[1; SECTOR_BYTES + 10]).expect("there is room");
    let states = all_states(&disk, |disk| disk.contents("f"));
    let (one, zero) = ([1; SECTOR_BYTES], [0; SECTOR_BYTES]);
    let expected = [
        vec![],
        [&one[..], &[1; 10]].concat(),
        [&one[..], &[0; 10]].concat(),
        [&zero[..], &[1; 10]].concat(),
        [&zero[..], &[0; 10]].concat(),
    ];
    assert_eq!(states, BTreeSet::from(expected));
}

/// What lies beyond a length that was lost does not come back when the file grows again.
#[test]
fn lost_ends_read_as_zero() {
    let (disk, files, file) = with_file(&[7; 10]);
    files.write(file, 10, &[1; 2 * SECTOR_BYTES]).expect("there is room");
    let loose = disk.loose();
    let keep_data = |loose: &Loose| usize::from(matches!(loose.what, What::Sector { .. }));
    disk.crash_to(&loose.iter().map(keep_data).collect::<Vec<_>>());
    assert_eq!(disk.contents("f"), [7; 10]);
    let files = disk.files();
    let file = files.open("f").expect("it is there");
    files.zero(file, 20, 2 * SECTOR_BYTES as u64).expect("there is room");
    assert!(disk.contents("f")[10..].iter().all(|byte| *byte == 0));
}

#[test]
fn names_are_lost_or_kept_each_by_itself() {
    let disk = SimDisk::new();
    disk.plant("old", b"1");
    disk.plant("gone", b"2");
    let files = disk.files();
    files.create("new").expect("there is room");
    files.remove("gone").expect("it is there");
    files.rename("old", "young").expect("it is there");
    let names = |disk: &SimDisk| disk.files().list("").expect("the root is there").join(" ");
    let states = all_states(&disk, names);
    assert_eq!(states.len(), 8);
    assert!(states.contains("gone old") && states.contains("new young") && states.contains("gone new old"));
    files.sync_directory("").expect("nothing is wrong");
    assert_eq!(all_states(&disk, names), BTreeSet::from(["new young".to_owned()]));
}

/// A rename that is kept brings its file along, also when the creation of the first name is lost.
#[test]
fn a_rename_stands_without_its_create() {
    let disk = SimDisk::new();
    disk.plant("f", b"old");
    let files = disk.files();
    let file = files.create("f.tmp").expect("there is room");
    files.write(file, 0, b"new").expect("there is room");
    files.sync(file).expect("nothing is wrong");
    files.rename("f.tmp", "f").expect("it is there");
    let states = all_states(&disk, |disk| disk.contents("f"));
    assert_eq!(states, BTreeSet::from([b"old".to_vec(), b"new".to_vec()]));
}

#[test]
fn directories_hide_what_is_in_them() {
    let disk = SimDisk::new();
    let files = disk.files();
    files.create_directory("t").expect("there is room");
    files.create("t/x").expect("there is room");
    files.sync_directory("t").expect("it is there");
    files.rename("t", "d").expect("it is there");
    let found = |disk: &SimDisk| disk.files().list("").expect("the root is there").join(" ");
    assert_eq!(all_states(&disk, found), BTreeSet::from(["t".to_owned(), "d".to_owned()]));
    disk.crash_to(&[1]);
    assert_eq!(disk.files().list("d").expect("the rename was kept"), ["x"]);
    assert!(disk.files().list("t").is_err());
}

#[test]
fn a_write_is_durable_when_it_completes_and_not_before() {
    let (disk, _, file) = with_file(&[0; 3 * BLOCK_BYTES]);
    let mut queue = disk.queue();
    for (token, fill) in [(1, 1), (2, 2), (3, 3)] {
        queue.submit(block_write(token, file, token - 1, fill));
    }
    assert!(queue.take().is_none());
    disk.complete(1);
    assert_eq!(queue.take().map(|completion| completion.token), Some(Token(2)));
    assert_eq!(disk.pending().iter().map(|write| write.token).collect::<Vec<_>>(), [Token(1), Token(3)]);
    let mut random = Random::seeded(3);
    let mut torn = 0;
    for _ in 0..200 {
        let copy = disk.fork();
        copy.crash(&mut random);
        let sectors = first_bytes(&copy);
        assert_eq!(sectors[SECTORS..2 * SECTORS], [2; SECTORS]);
        torn += usize::from(sectors[..SECTORS].contains(&0) && sectors[..SECTORS].contains(&1));
    }
    assert!(torn > 20, "writes in flight are torn");
    let states = all_states(
        &{
            disk.complete(0);
            disk
        },
        |disk| first_bytes(disk)[2 * SECTORS..].to_vec(),
    );
    assert_eq!(states.len(), 1 << SECTORS);
}

/// The kernel takes pages for clean after it failed to write them: a second flush proves nothing.
#[test]
fn a_failed_flush_stays_failed() {
    let (disk, files, file) = with_file(&[0; SECTOR_BYTES]);
    files.write(file, 0, &[1; SECTOR_BYTES]).expect("there is room");
    disk.fail_at(disk.operations(), Failure::Error(Code::Io));
    let error = files.sync(file).expect_err("it fails once");
    assert_eq!((error.operation, error.source.raw_os_error()), (Operation::Flush, Some(5)));
    files.sync(file).expect("it says that all is well");
    assert_eq!(all_states(&disk, first_bytes).len(), 2, "and yet the data may be lost");
    files.write(file, 0, &[1; SECTOR_BYTES]).expect("there is room");
    files.sync(file).expect("nothing is wrong");
    assert_eq!(all_states(&disk, first_bytes).len(), 1, "what is written again is flushed");
}

#[test]
fn a_failed_write_poisons_its_queue() {
    let (disk, _, file) = with_file(&[0; 2 * BLOCK_BYTES]);
    let mut queue = disk.queue();
    queue.submit(block_write(1, file, 0, 1));
    queue.submit(block_write(2, file, 1, 1));
    disk.fail(0, Code::Io, &mut Random::seeded(1));
    disk.complete_all();
    let (first, second) = (queue.take().expect("it failed"), queue.take().expect("it completed"));
    assert_eq!(first.result.expect_err("it failed").source.raw_os_error(), Some(5));
    assert!(second.result.is_err(), "what was in flight does not count");
    let sectors = first_bytes(&disk);
    assert!(sectors[..SECTORS].contains(&0) && sectors[..SECTORS].contains(&1), "a failed write is mixed: {sectors:?}");
    assert_eq!(sectors[SECTORS..], [1; SECTORS]);
}

/// A write that hung is given up, and may be carried out all the same.
#[test]
fn a_write_that_hung_may_still_happen() {
    let (disk, files, file) = with_file(&[0; 2 * BLOCK_BYTES]);
    let mut queue = disk.queue();
    queue.submit(block_write(1, file, 0, 1));
    disk.time_out(0);
    let completion = queue.take().expect("it is told");
    assert_eq!(completion.result.expect_err("it hung").kind(), ErrorKind::TimedOut);
    assert!(completion.buffer.is_empty(), "the kernel still has the other");
    files.sync(file).expect("nothing is wrong with it");
    assert_eq!(all_states(&disk, first_bytes).len(), 1 << SECTORS, "each of its sectors may be there or not");
    queue.submit(block_write(2, file, 1, 1));
    disk.complete_all();
    assert!(queue.take().expect("it is told").result.is_err(), "the queue is poisoned");
}

#[test]
fn the_kth_operation_fails_or_cuts_the_power() {
    let run = |disk: &SimDisk| -> Result<(), crate::disk::Error> {
        let files = disk.files();
        files.create_directory("d")?;
        let file = files.create("d/f")?;
        files.zero(file, 0, 1024)?;
        files.write(file, 100, b"hello")?;
        files.sync(file)?;
        files.rename("d/f", "d/g")?;
        files.sync_directory("d")?;
        files.read(file, 100, &mut [0; 5])?;
        files.map(file)?;
        files.list("d")?;
        files.free_bytes()?;
        files.open_read("d/g")?;
        files.remove("d/g")
    };
    let disk = SimDisk::new();
    run(&disk).expect("nothing is wrong");
    assert_eq!(disk.operations(), 14);
    for at in 0..14 {
        let disk = SimDisk::new();
        disk.fail_at(at, Failure::Error(Code::Io));
        assert_eq!(run(&disk).expect_err("one fails").source.raw_os_error(), Some(5), "{at}");
        let disk = SimDisk::new();
        disk.crash_at(at);
        assert_eq!(run(&disk).expect_err("the power goes").kind(), ErrorKind::Interrupted, "{at}");
        assert!(disk.is_off() && disk.files().list("").is_err());
        disk.crash(&mut Random::seeded(at));
        assert!(!disk.is_off());
        disk.files().list("").expect("the power is back");
    }
}

#[test]
fn the_cut_operation_itself_is_loose() {
    let (disk, files, file) = with_file(&[0; SECTOR_BYTES]);
    disk.crash_at(disk.operations());
    files.write(file, 0, &[1; SECTOR_BYTES]).expect_err("the power goes");
    assert_eq!(all_states(&disk, first_bytes).len(), 2);
}

#[test]
fn partial_writes_and_full_disks() {
    let (disk, files, file) = with_file(&[0; 10]);
    disk.fail_at(disk.operations(), Failure::Partial { bytes: 3, error: Code::NoSpace });
    assert!(files.write(file, 0, b"hello").expect_err("it fails").is_no_space());
    assert_eq!(disk.contents("f")[..5], *b"hel\0\0");
    disk.set_capacity(1000);
    assert_eq!(files.free_bytes().expect("nothing is wrong"), 990);
    assert!(files.zero(file, 0, 1001).expect_err("it is full").is_no_space());
    files.zero(file, 0, 1000).expect("there is just room");
    files.write(file, 0, b"x").expect("no growth, no need");
    let mut queue = disk.queue();
    queue.submit(block_write(1, file, 0, 1));
    disk.complete_all();
    assert!(queue.take().expect("it is told").result.expect_err("it is full").is_no_space());
}

#[test]
fn disks_that_refuse() {
    let (disk, files, file) = with_file(&[0; BLOCK_BYTES]);
    let raw = |error: crate::disk::Error| error.source.raw_os_error();
    disk.plant("g", b"x");
    disk.refuse_to_open("g", Some(Code::Link));
    assert_eq!(files.open("g").map_err(raw), Err(Some(40)));
    assert_eq!(files.open_read("g").map_err(raw), Err(Some(40)));
    disk.refuse_to_open("g", None);
    disk.set_read_only(true);
    assert_eq!(files.open("g").map_err(raw), Err(Some(30)));
    assert_eq!(files.create("h").map_err(raw), Err(Some(30)));
    assert_eq!(files.write(file, 0, b"x").map_err(raw), Err(Some(30)));
    assert_eq!(files.rename("g", "h").map_err(raw), Err(Some(30)));
    let mut queue = disk.queue();
    queue.submit(block_write(1, file, 0, 1));
    disk.complete_all();
    assert_eq!(queue.take().expect("it is told").result.map_err(raw), Err(Some(30)));
    files.open_read("g").expect("reading is allowed");
    disk.set_read_only(false);
    files.write(file, 0, b"x").expect("there is room");
}

#[test]
fn a_killed_process_leaves_the_page_cache() {
    let mut carried_out = BTreeSet::new();
    for seed in 0..20 {
        let (disk, files, file) = with_file(&[0; 2 * BLOCK_BYTES]);
        files.write(file, 0, &[1; SECTOR_BYTES]).expect("there is room");
        let mut queue = disk.queue();
        queue.submit(block_write(1, file, 1, 1));
        disk.kill(&mut Random::seeded(seed));
        assert!(files.length(file).is_err() && queue.take().is_none(), "old handles are dead");
        files.close(file);
        queue.submit(block_write(2, file, 1, 1));
        assert_eq!(first_bytes(&disk)[0], 1);
        assert_eq!(disk.loose().len(), 1);
        carried_out.insert(first_bytes(&disk)[SECTORS..].to_vec());
        disk.files().open("f").expect("the lock went with the process");
    }
    assert_eq!(carried_out, BTreeSet::from([vec![0; SECTORS], vec![1; SECTORS]]));
}

#[test]
fn damage_is_done_where_it_was_asked_for() {
    let (disk, files, file) = with_file(&[0x55; 4 * SECTOR_BYTES]);
    disk.flip_bit("f", 3, 0);
    disk.fill("f", 10..20, 0xff);
    disk.zero("f", 512..1024);
    disk.copy_block("f", 0..512, "f", 1024);
    disk.junk("f", 1536..1600, &mut Random::seeded(1));
    let bytes = disk.contents("f");
    assert_eq!((bytes[3], bytes[4]), (0x54, 0x55));
    assert!(bytes[10..20] == [0xff; 10] && bytes[512..1024] == [0; 512] && bytes[1024..1536] == bytes[..512]);
    assert!(bytes[1536..1600] != [0x55; 64] && bytes[1600..] == [0x55; 448]);
    assert_eq!(disk.loose(), [], "damage is durable");

    disk.make_unreadable("f", 600..601);
    let error = files.read(file, 1000, &mut [0; 10]).expect_err("its sector is bad");
    assert_eq!((error.source.raw_os_error(), error.offset), (Some(5), Some(1000)));
    files.read(file, 1024, &mut [0; 10]).expect("the next sector is good");
    assert!(files.map(file).is_err());
    files.write(file, 512, &[1; 512]).expect("there is room");
    files.read(file, 512, &mut [0; 512]).expect("what is written again can be read");

    disk.truncate("f", 700);
    assert_eq!(disk.contents("f").len(), 700);
    disk.truncate("f", 1024);
    assert!(disk.contents("f")[700..] == [0; 324]);
    files.close(file);
    disk.misplace("f", "g");
    assert_eq!(disk.files().list("").expect("the root is there"), ["g"]);
    disk.lose("g");
    assert_eq!(disk.used_bytes(), 0);
}

/// A hundred thousand cycles must cost seconds: what is flushed is all there, what is not is old or new.
#[test]
fn cycles_of_write_flush_crash() {
    const CYCLES: u64 = 100_000;
    let mut random = Random::seeded(9);
    let disk = SimDisk::new();
    disk.plant("f", &[0; 1 << 16]);
    let trace = Rc::new(std::cell::Cell::new(0u64));
    let hash = Rc::clone(&trace);
    disk.observe(move |event| hash.set(hash.get().rotate_left(7) ^ u64::from(event.checksum.0) ^ event.offset));
    let mut durable = [0u8; 16];
    for cycle in 0..CYCLES {
        let files = disk.files();
        let file = files.open("f").expect("it is there");
        let mut queue = disk.queue();
        let (block, fill) = (random.below(16), random.next_u64() as u8);
        queue.submit(block_write(cycle, file, block, fill));
        let completes = random.chance(500);
        if completes {
            disk.complete_all();
            queue.take().expect("it completed").result.expect("nothing is wrong");
            durable[block as usize] = fill;
        }
        disk.crash(&mut random);
        let bytes = disk.contents("f");
        for (at, expected) in durable.iter_mut().enumerate() {
            let sectors = bytes[at * BLOCK_BYTES..][..BLOCK_BYTES].chunks(SECTOR_BYTES);
            let torn = !completes && at as u64 == block;
            assert!(sectors.clone().all(|sector| sector == [*expected; 512] || torn && sector == [fill; 512]));
            if torn {
                disk.fill("f", at as u64 * 4096..(at as u64 + 1) * 4096, fill);
                *expected = fill;
            }
        }
    }
    assert_ne!(trace.get(), 0);
    assert_eq!(disk.operations(), 2 * CYCLES);
}

#[test]
fn the_same_seed_gives_the_same_disk() {
    let run = |seed| {
        let mut random = Random::seeded(seed);
        let disk = SimDisk::new();
        for _ in 0..50 {
            let files = disk.files();
            let name = *random.pick(&["a", "b", "c"]);
            if let Ok(file) = files.create(name).or_else(|_| files.open(name)) {
                files.write(file, random.below(2000), &[random.next_u64() as u8; 700]).expect("there is room");
            }
            disk.crash(&mut random);
        }
        let names = disk.files().list("").expect("the root is there");
        names.iter().map(|name| (name.clone(), disk.contents(name))).collect::<Vec<_>>()
    };
    assert_eq!(run(5), run(5));
    assert_ne!(run(5), run(6));
}

/// One is lost and one lands a block further on; both are told to have succeeded.
#[test]
fn writes_go_nowhere_or_elsewhere_and_nobody_is_told() {
    let block = BLOCK_BYTES as i64;
    for is_queued in [false, true] {
        for (failure, expected) in [
            (Failure::Lost, [0_u8, 0, 0]),
            (Failure::Misdirected { by: block }, [0, 0, 1]),
            (Failure::Misdirected { by: -block }, [1, 0, 0]),
        ] {
            let (disk, files, file) = with_file(&[0; 3 * BLOCK_BYTES]);
            disk.fail_at(disk.operations(), failure);
            if is_queued {
                let mut queue = disk.queue();
                queue.submit(block_write(1, file, 1, 1));
                assert_eq!(all_states(&disk.fork(), first_bytes).len(), if failure == Failure::Lost { 1 } else { 256 });
                disk.complete_all();
                queue.take().expect("it is told").result.expect("that all is well");
            } else {
                files.write(file, BLOCK_BYTES as u64, &[1; BLOCK_BYTES]).expect("it says that all is well");
                files.sync(file).expect("nothing is wrong");
            }
            let found: Vec<u8> = first_bytes(&disk).chunks(SECTORS).map(|block| block[0]).collect();
            assert_eq!(found, expected, "{failure:?}, queued: {is_queued}");
            assert_eq!(all_states(&disk, first_bytes).len(), 1);
        }
    }
}

#[test]
fn a_flush_that_is_not_done_leaves_all_loose_and_other_operations_know_no_such_failure() {
    let (disk, files, file) = with_file(&[0; SECTOR_BYTES]);
    files.write(file, 0, &[1; SECTOR_BYTES]).expect("there is room");
    disk.fail_at(disk.operations(), Failure::Lost);
    files.sync(file).expect("it says that all is well");
    assert_eq!(all_states(&disk, first_bytes).len(), 2);
    files.sync(file).expect("nothing is wrong");
    assert_eq!(all_states(&disk, first_bytes).len(), 1, "nothing was abandoned");
    for failure in [Failure::Lost, Failure::Misdirected { by: 1 }] {
        let before = disk.operations();
        (0..4).for_each(|ahead| disk.fail_at(before + ahead, failure));
        let mut byte = [0];
        files.read(file, 0, &mut byte).expect("reads know no such failure");
        files.rename("f", "g").and_then(|()| files.rename("g", "f")).expect("renames neither");
        files.sync_directory("").expect("directories neither");
        assert_eq!((byte, disk.contents("f").len()), ([1], SECTOR_BYTES));
    }
}
