//! What a log that was opened again goes on with: salts, covers, segments that are given up, the open frame's repetition.

use super::model::state_of;
use super::rig::{DIRECTORY, G, Rig, open, options, segment, tear};
use crate::disk::Files;
use crate::sim::disk::SimDisk;
use crate::types::SegmentNumber;
use crate::wal::log::Phase;
use crate::wal::segment::read_headers;
use crate::wal::{Analysis, Error, Log, Options, Source};

/// A rig whose disk has lost its power when nothing was under way, opened again.
fn opened_again(mut rig: Rig) -> Rig {
    rig.rest();
    rig.disk.crash_to(&vec![0; rig.disk.loose().len()]);
    rig.reopened()
}

/// The salts of all segments, in use or not.
fn salts(disk: &SimDisk) -> Vec<u64> {
    let files = disk.fork().files();
    let names = files.list(DIRECTORY).expect("it is there");
    let salt = |name: &String| {
        let file = files.open_read(&format!("{DIRECTORY}/{name}")).expect("it is there");
        read_headers(&files, file).expect("the disk is well").0.expect("it is intact").salt
    };
    names.iter().map(salt).collect()
}

fn assert_differ(mut salts: Vec<u64>) {
    let count = salts.len();
    salts.sort_unstable();
    salts.dedup();
    assert_eq!(salts.len(), count, "each segment has a salt of its own");
}

/// A salt tells one life of a file from another. Each start is given the same seed here, as a caller may.
#[test]
fn salts_of_a_later_life_are_others_though_the_seed_is_the_same() {
    let mut rig = Rig::new(options());
    for _ in 0..3 {
        rig.rotate(G);
        rig = opened_again(rig);
    }
    assert!(rig.log.active.number > SegmentNumber(3));
    assert_differ(salts(&rig.disk));
}

/// So it is with the segment that what was not proven is copied into.
#[test]
fn the_salt_of_a_copy_is_its_own() {
    let mut rig = Rig::new(options());
    rig.disk.set_reads_past_cache(false);
    rig.settle();
    rig.grow(G, 2, 300);
    rig.settle();
    rig.disk.crash_to(&vec![0; rig.disk.loose().len()]);
    let rig = rig.reopened();
    assert!(rig.log.active.number > SegmentNumber(1), "it was copied");
    assert_differ(salts(&rig.disk));
}

/// Frames in flight are copied into a segment of the size that is asked for now, or into a larger one.
#[test]
fn a_copy_is_as_large_as_what_it_holds() {
    let mut rig = Rig::new(Options { segment_bytes: 256 << 10, writes_in_flight: 2, ..options() });
    rig.disk.set_reads_past_cache(false);
    rig.settle();
    for _ in 0..2 {
        rig.grow(G, 1, 50_000);
        rig.pump();
    }
    rig.disk.complete_all();
    rig.take();
    rig.disk.crash_to(&vec![0; rig.disk.loose().len()]);
    for _ in 0..2 {
        let (_, _, found) = open(&rig.disk, &options()).expect("it is intact");
        assert!(rig.model.is_possible(&found) && found[&G].entries.len() == 2);
        rig.disk.crash_to(&vec![0; rig.disk.loose().len()]);
    }
}

/// A log that was closed is covered, as its superblock says: a start writes no covering frame again.
#[test]
fn a_start_takes_over_what_is_proven() {
    let mut rig = Rig::new(options());
    rig.grow(G, 2, 300);
    rig.rest();
    let end = rig.log.durable_end();
    rig.disk.crash_to(&vec![0; rig.disk.loose().len()]);
    let (log, _) = Log::open(&rig.disk.files(), options(), end, 1).expect("it is intact");
    let mut rig = Rig::with(rig.disk, log, rig.model);
    assert!(rig.log.is_covered());
    rig.model.acknowledged = 0;
    rig.rest();
    assert_eq!(rig.log.durable_end(), end);
}

/// What a purge gave up in an earlier life is not kept until the next purge.
#[test]
fn segments_that_were_given_up_before_a_start_are_used_again_behind_it() {
    let mut rig = Rig::new(options());
    rig.rotate(G);
    rig.rotate(G);
    rig.purge(G, rig.model.group(G).last());
    let mut rig = opened_again(rig);
    assert_eq!(rig.log.locator.segments().map(|own| own.header.number).collect::<Vec<_>>(), [SegmentNumber(3)]);
    let count = rig.files.list(DIRECTORY).expect("it is there").len();
    rig.rotate(G);
    rig.rotate(G);
    assert_eq!(rig.files.list(DIRECTORY).expect("it is there").len(), count, "no file was made");
}

/// The open frame was durable when the power went, and no other frame of its segment: the next start repeats it, and its
/// loss loses nothing of how the segments join.
#[test]
fn a_start_behind_an_open_frame_repeats_it() {
    let mut rig = Rig::new(options());
    rig.rest();
    (0..4).for_each(|_| rig.grow(G, 1, 20_000));
    while rig.log.phase != Phase::Opening {
        rig.pump();
        rig.disk.complete_all();
        if rig.log.phase != Phase::Opening {
            rig.take();
        }
    }
    rig.disk.crash_to(&vec![0; rig.disk.loose().len()]);
    let mut rig = rig.reopened();
    rig.grow(G, 1, 300);
    rig.settle();
    assert_eq!(rig.log.active.number, SegmentNumber(2));
    rig.rest();
    rig.disk.crash_to(&vec![0; rig.disk.loose().len()]);
    rig.disk.flip_bit(&segment(2), 4096 + 130, 1);
    let analysis = Analysis::read(&rig.disk.files(), &Source::from_outside(DIRECTORY)).expect("the disk is well");
    let damage = analysis.damage().expect("the open frame is damaged");
    assert!(damage.file == segment(2) && damage.what.starts_with("the open frame"), "{damage}");
    assert_eq!(analysis.chain.len(), 2, "the frame behind it says how the segments join");
    assert_eq!(analysis.groups[&G].last, rig.log.group(G).expect("it has entries").last);
}

/// A full disk: a torn end is cut into the room of a segment that stood ready. That one is not used a second time.
#[test]
fn a_segment_that_a_cut_took_is_not_taken_again() {
    let mut rig = Rig::new(options());
    rig.rest();
    tear(&mut rig);
    rig.disk.set_capacity(rig.disk.used_bytes());
    let files = rig.disk.files();
    let (log, ..) = open(&rig.disk, &options()).expect("there is room that stands ready");
    assert!(log.active.number > SegmentNumber(1), "the end was cut");
    let names = files.list(DIRECTORY).expect("it is there");
    for number in log.recyclable.keys().chain(log.unopened.keys()).chain(log.late.keys()) {
        assert!(names.iter().any(|name| segment(number.0).ends_with(name)), "{number} is in use");
    }
    assert!(state_of(&files, &log).is_ok());
}

#[test]
fn torn_ends_are_kept_aside_up_to_a_bound() {
    for (there, kept) in [(15, 16), (16, 16)] {
        let mut rig = Rig::new(options());
        rig.rest();
        (0..there).for_each(|at| rig.disk.plant(&format!("{DIRECTORY}/{at}.cut"), b"torn"));
        tear(&mut rig);
        open(&rig.disk, &options()).expect("a torn end is cut");
        let names = rig.disk.files().list(DIRECTORY).expect("it is there");
        assert_eq!(names.iter().filter(|name| name.ends_with(".cut")).count(), kept);
    }
}

/// The superblock is lost, and the log so damaged that nothing of it can be read: what is there is not made anew.
#[test]
fn no_log_is_made_in_the_place_of_one_that_cannot_be_read() {
    let mut rig = Rig::new(options());
    rig.grow(G, 3, 600);
    rig.rest();
    rig.disk.crash_to(&vec![0; rig.disk.loose().len()]);
    let names: Vec<_> = rig.disk.files().list(DIRECTORY).expect("it is there");
    for name in names.iter().map(|name| format!("{DIRECTORY}/{name}")) {
        let length = rig.disk.contents(&name).len() as u64;
        rig.disk.zero(&name, 0..4096);
        rig.disk.zero(&name, length - 4096..length);
    }
    let made = Log::create(&rig.disk.files(), options(), 1);
    assert!(matches!(made, Err(Error::Exists { .. })), "{made:?}");
    assert_eq!(rig.disk.files().list(DIRECTORY).expect("it is there"), names);
}
