//! What stood ready when a process ended: the next start has read all of it, and does not make it anew.

use std::time::Duration;

use super::rig::{self, DIRECTORY, G, Rig, Start, open_as, segment};
use crate::disk::{BlockingQueue, Buffer, Directory, FileId, Files, Queue, SyncMode, Token, Write};
use crate::limits::{BLOCK_BYTES, SEGMENT_BYTES_MIN, SEGMENTS_GIVEN_UP, SEGMENTS_READY, SEGMENTS_SPARE};
use crate::random::Random;
use crate::sim::disk::{Code, Failure};
use crate::types::{Place, SegmentNumber};
use crate::wal::{Fill, Log, Options, Prepare, Reading, SegmentHeader, prepare};

const READY: usize = SEGMENTS_READY + SEGMENTS_SPARE;
const BYTES: u64 = 2 * SEGMENT_BYTES_MIN;

/// Room for some lives in one segment.
fn options() -> Options {
    Options { segment_bytes: BYTES, ..rig::options() }
}

/// Segments that hold nothing but their headers.
fn zero(rig: &Rig) -> Vec<String> {
    let block = BLOCK_BYTES;
    let is_zero = |name: &String| {
        let bytes = rig.disk.contents(&format!("{DIRECTORY}/{name}"));
        bytes[block..bytes.len() - block].iter().all(|&byte| byte == 0)
    };
    rig.files.list(DIRECTORY).expect("it is there").into_iter().filter(is_zero).collect()
}

/// Another life of the log on this disk, in which nothing has been made yet.
fn restarted(rig: Rig, options: &Options) -> Rig {
    rig.disk.crash_to(&vec![0; rig.disk.loose().len()]);
    let start = Start { evidence: Place::START, reading: Reading::BySeals };
    let (log, _, found) = open_as(&rig.disk, options, start).expect("nothing is wrong with it");
    let Rig { disk, mut model, .. } = rig;
    model.recover(found);
    let mut rig = Rig::with(disk, log, model);
    rig.pump();
    rig
}

/// As many as are kept of those that were given up, and as many that stand ready.
fn with_given_up() -> Rig {
    let mut rig = Rig::new(options());
    rig.settle();
    for _ in 0..SEGMENTS_GIVEN_UP + READY {
        rig.rotate(G);
    }
    let entries = rig.model.group(G).entries;
    rig.purge(G, entries[entries.len() - 2].id);
    rig.rest();
    assert_eq!((rig.log.recyclable.len(), rig.log.ready.len()), (SEGMENTS_GIVEN_UP, READY));
    rig
}

/// Else those that were given up would be zeroed in their place, one start after the other, and each start would read more.
#[test]
fn starts_zero_nothing_that_is_zero() {
    let mut rig = with_given_up();
    let given_up: Vec<SegmentNumber> = rig.log.recyclable.keys().copied().collect();
    let numbers: Vec<SegmentNumber> = rig.log.ready.keys().copied().collect();
    for life in 0..4 {
        rig = restarted(rig, &options());
        let fills: Vec<Fill> = rig.prepares.iter().map(|order| order.fill).collect();
        assert_eq!(fills, [Fill::AsItIs; READY], "{life}");
        rig.rest();
        assert_eq!(zero(&rig).len(), READY, "{life}");
        assert!(rig.log.recyclable.keys().eq(&given_up), "{life}: {:?}", rig.log.recyclable);
        assert!(rig.log.ready.keys().all(|number| !numbers.contains(number)), "{life}: a number is used once");
        rig.check();
    }
    for _ in 0..2 * READY {
        rig.rotate(G);
    }
    rig.check();
    rig.disk.crash(&mut Random::seeded(1));
    rig.reopened().check();
}

/// Of each that stood ready one bit, anywhere.
#[test]
fn what_is_not_zero_is_zeroed() {
    for offset in [BLOCK_BYTES + 700, BYTES as usize - BLOCK_BYTES - 1] {
        let mut rig = with_given_up();
        let ready: Vec<u64> = rig.log.ready.keys().map(|number| number.0).collect();
        ready.iter().for_each(|number| rig.disk.flip_bit(&segment(*number), offset as u64, 3));
        rig = restarted(rig, &options());
        assert!(rig.prepares.iter().all(|order| order.fill == Fill::Zeros), "{offset}: {:?}", rig.prepares);
        let used: Vec<u64> = rig.prepares.iter().filter_map(|order| Some(order.recycled?.0.0)).collect();
        assert_eq!(used, ready, "{offset}: what was given up stays as it is");
        for _ in 0..2 * READY {
            rig.rotate(G);
        }
        rig.rest();
        assert_eq!(zero(&rig).len(), READY, "{offset}");
        rig.check();
    }
}

/// What it is made into has the length that segments have now.
#[test]
fn a_segment_of_another_length_is_made_anew() {
    let rig = with_given_up();
    let shorter = Options { segment_bytes: SEGMENT_BYTES_MIN, ..options() };
    let mut rig = restarted(rig, &shorter);
    let fills: Vec<Fill> = rig.prepares.iter().map(|order| order.fill).collect();
    assert_eq!(fills, [Fill::Zeros; READY]);
    rig.rest();
    for _ in 0..READY {
        rig.rotate(G);
    }
    rig.check();
}

/// As [`Log`] orders them.
fn order(number: SegmentNumber, fill: Fill, recycled: Option<(SegmentNumber, FileId)>) -> Prepare {
    let options = options();
    let salt = Random::seeded(number.0).next_u64();
    let header = SegmentHeader { identity: options.identity, number, salt, bytes: options.segment_bytes };
    Prepare { directory: options.directory, header, fill, recycled }
}

/// Another segment, of which the log is not told.
fn make<F: Files>(files: &F, log: &mut Log, fill: Fill) {
    let number = log.next_segment;
    log.next_segment = number.next();
    files.close(prepare(files, &order(number, fill, None)).expect("there is room"));
}

/// So many can stand there where some were overtaken, or were left by a program that zeroed those that it had given up. The
/// next start finds no more than stand ready.
#[test]
fn no_more_are_left_as_they_are_than_stand_ready() {
    for (has_given_up, rotations) in [(false, 0), (true, 0), (false, READY + 1), (true, READY + 1)] {
        let mut rig = if has_given_up { with_given_up() } else { Rig::new(options()) };
        rig.settle();
        (0..READY).for_each(|_| make(&rig.files, &mut rig.log, Fill::Zeros));
        (0..rotations).for_each(|_| rig.rotate(G));
        rig.rest();
        assert_eq!(zero(&rig).len(), 2 * READY);
        let given_up: Vec<SegmentNumber> = rig.log.recyclable.keys().copied().collect();
        let mut rig = restarted(rig, &options());
        assert_eq!(rig.log.preparing.values().filter(|order| order.fill == Fill::AsItIs).count(), READY);
        rig.rest();
        let mut rig = restarted(rig, &options());
        assert_eq!(zero(&rig).len(), READY, "{has_given_up} {rotations}");
        rig.rest();
        assert!(rig.log.recyclable.keys().eq(&given_up), "{:?}", rig.log.recyclable);
        let files = rig.files.list(DIRECTORY).expect("it is there").len();
        assert_eq!(files, rig.log.locator.segments().count() + READY + given_up.len());
        rig.check();
    }
}

/// On a full disk their room is all there is.
#[test]
fn what_is_still_needed_is_not_given_back() {
    let mut rig = Rig::new(options());
    rig.settle();
    (0..READY).for_each(|_| make(&rig.files, &mut rig.log, Fill::Zeros));
    for name in zero(&rig) {
        rig.disk.flip_bit(&format!("{DIRECTORY}/{name}"), BYTES / 2, 3);
    }
    let mut rig = restarted(rig, &options());
    for _ in 0..READY {
        rig.disk.fail_at(rig.disk.operations(), Failure::Error(Code::NoSpace));
        rig.prepare(0);
    }
    rig.disk.set_capacity(rig.disk.used_bytes());
    rig.pump();
    assert!(rig.log.is_out_of_space() && rig.removes.is_empty(), "{:?}", rig.removes);
    for _ in 0..10_000 {
        rig.log.tick(1);
        rig.settle();
    }
    assert!(!rig.log.is_out_of_space());
    assert_eq!((zero(&rig).len(), rig.log.ready.len()), (READY, READY));
    rig.check();
}

/// Room that was only reserved reads as zero, and writing it would need the file system's journal each time. Reads through the
/// page cache may hide where it is.
#[test]
fn what_was_only_reserved_is_zeroed() {
    for is_plain in [false, true] {
        let home = tempfile::tempdir().expect("a directory can be made");
        let opened = if is_plain { Directory::open_plain(home.path()) } else { Directory::open(home.path()) };
        let directory = opened.expect("it is there");
        let mut log = Log::create(&directory, options(), 1).expect("it is empty");
        make(&directory, &mut log, Fill::Allocated);
        make(&directory, &mut log, Fill::Zeros);
        log.close(&directory);
        let (mut log, _) = Log::open(&directory, options(), Place::START, 1).expect("nothing is wrong with it");
        let tells = {
            let sparse = std::fs::File::create(home.path().join("sparse")).expect("it can be made");
            sparse.set_len(BYTES).expect("it can grow");
            let file = directory.open("sparse").expect("it is there");
            directory.has_holes(file)
        };
        while log.take_effect().is_some() {}
        let fills: Vec<Fill> = log.preparing.values().map(|order| order.fill).collect();
        match tells {
            true => assert_eq!(fills, [Fill::AsItIs, Fill::Zeros, Fill::Zeros], "{is_plain}"),
            false => eprintln!("left out: the file system does not tell what was never written"),
        }
    }
}

/// The rotation comes for it as for one that was zeroed, and must not wait for an opening, which waits for whoever holds names.
#[test]
fn what_is_taken_as_it_is_is_never_parked() {
    for mode in [SyncMode::Dsync, SyncMode::Fdatasync] {
        let home = tempfile::tempdir().expect("a directory can be made");
        let before = Directory::open(home.path()).expect("it is there");
        before.create_directory(DIRECTORY).expect("there is room");
        let old = SegmentNumber(1);
        prepare(&before, &order(old, Fill::Zeros, None)).expect("there is room");
        drop(before);
        let directory = Directory::open_few(home.path(), 4).expect("it is there");
        let stood_ready = directory.open(&segment(old.0)).expect("it is there");
        let taken = order(old.next(), Fill::AsItIs, Some((old, stood_ready)));
        let file = prepare(&directory, &taken).expect("it is zero");
        for at in 0..12 {
            let other = directory.create(&format!("{DIRECTORY}/other-{at}")).expect("there is room");
            directory.sync(other).expect("it is open");
        }
        let mut queue = BlockingQueue::new(directory.clone(), mode, Box::new(|| {})).expect("a thread can be had");
        let mut buffer = Buffer::with_capacity(BLOCK_BYTES);
        buffer.pad_to_capacity();
        let (done, is_done) = std::sync::mpsc::channel();
        let names = directory.hold_names();
        let worker = std::thread::spawn(move || {
            queue.submit(Write { token: Token(1), file, offset: BLOCK_BYTES as u64, buffer });
            let completion = loop {
                match queue.take() {
                    Some(completion) => break completion,
                    None => std::thread::yield_now(),
                }
            };
            completion.result.expect("the disk works");
            done.send(()).expect("the test waits");
        });
        let said = is_done.recv_timeout(Duration::from_secs(10));
        drop(names);
        worker.join().expect("it does not panic");
        said.unwrap_or_else(|_| panic!("{mode}: it waited for a name"));
    }
}
