//! What is chosen for a disk, and by which figures.

use super::*;
use crate::disk::choose::{better, choose_with, depth};
use crate::limits::WRITES_IN_FLIGHT_DEFAULT;

const SLOW: Duration = Duration::from_millis(5);
const FAST: Duration = Duration::ZERO;

/// Chooses on a disk whose writes through O_DSYNC take longer, and whose flushes do.
fn chosen(backend: Backend, dsync: Duration, flush: Duration) -> Option<Chosen> {
    if let Err(error) = Runtime::new(backend) {
        assert_eq!(backend, Backend::Uring, "{error}");
        skipped("disk on io_uring", &error.to_string());
        return None;
    }
    let root = scratch();
    let directory = Directory::open(root.path()).expect("it exists");
    let seam = |mode| match mode {
        SyncMode::Dsync => Seam::slow(dsync, FAST),
        SyncMode::Fdatasync => Seam::slow(FAST, flush),
    };
    let chosen = choose_with(&directory, backend, seam).expect("the disk works");
    eprintln!("{backend}: {chosen}");
    assert_eq!(directory.list("").expect("it exists"), Vec::<String>::new(), "nothing is left behind");
    Some(chosen)
}

/// The disk is made slow in one way, and the other is taken.
#[test]
fn another_mode_is_chosen_on_a_disk_made_slow() {
    for backend in [Backend::Uring, Backend::Blocking] {
        let Some(slow_dsync) = chosen(backend, SLOW, FAST) else { continue };
        assert_eq!(slow_dsync.sync_mode, SyncMode::Fdatasync, "{slow_dsync}");
        assert!(slow_dsync.dsync >= SLOW);
        let slow_flush = chosen(backend, FAST, SLOW).expect("it was set up before");
        assert_eq!(slow_flush.sync_mode, SyncMode::Dsync, "{slow_flush}");
        assert!(slow_flush.fdatasync >= SLOW);
    }
}

/// Two ways that measure close to each other: fdatasync is ahead by a tenth, and O_DSYNC is chosen. What else uses the disk
/// may make the lead a large one: then it is measured again.
#[test]
fn a_small_lead_of_a_flush_is_no_reason_to_choose_it() {
    const TRIES_MAX: usize = 20;
    let is_small = |chosen: &Chosen| chosen.dsync < chosen.fdatasync.mul_f64(1.2);
    for backend in [Backend::Uring, Backend::Blocking] {
        let mut tries = (0..TRIES_MAX).map_while(|_| chosen(backend, SLOW + SLOW / 10, SLOW)).peekable();
        if tries.peek().is_none() {
            continue;
        }
        let close = tries.find(is_small).expect("the disk is not always in others' use");
        assert_eq!(close.sync_mode, SyncMode::Dsync, "{close}");
    }
}

/// A disk that takes its time, but works on several writes at once, gets several; one that works on one at a time gets
/// one. The thread of the blocking queue is such a disk.
#[test]
fn several_writes_in_flight_are_for_disks_that_work_on_several() {
    if let Some(parallel) = chosen(Backend::Uring, SLOW, 2 * SLOW) {
        assert_eq!(parallel.sync_mode, SyncMode::Dsync, "{parallel}");
        assert_eq!(parallel.writes_in_flight, WRITES_IN_FLIGHT_DEFAULT, "{parallel}");
    }
    let serial = chosen(Backend::Blocking, SLOW, 3 * SLOW).expect("it always works");
    assert_eq!((serial.sync_mode, serial.writes_in_flight), (SyncMode::Dsync, 1), "{serial}");
}

#[test]
fn a_choice_is_made_within_a_second() {
    let root = scratch();
    let directory = Directory::open(root.path()).expect("it exists");
    let backend = probe(&directory, IoChoice::Auto).expect("one of them works").backend;
    let start = std::time::Instant::now();
    let chosen = choose(&directory, backend).expect("the disk works");
    eprintln!("{chosen} in {:?}", start.elapsed());
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
}

#[test]
fn a_write_through_is_chosen_unless_a_flush_is_clearly_faster() {
    let micros = Duration::from_micros;
    assert_eq!(better(micros(100), micros(80)), SyncMode::Dsync);
    assert_eq!(better(micros(101), micros(80)), SyncMode::Fdatasync);
}

#[test]
fn one_write_in_flight_is_chosen_unless_several_are_clearly_faster() {
    assert_eq!(depth(10_000.0, 14_999.0), 1);
    assert_eq!(depth(10_000.0, 15_000.0), WRITES_IN_FLIGHT_DEFAULT);
}

/// Each ground that the kernel knows reads as zero where it is not growing, and takes writes in every way.
#[test]
fn every_way_works_on_every_ground() {
    let root = scratch();
    let directory = Directory::open(root.path()).expect("it exists");
    let (bytes, time) = (64 * BLOCK_BYTES as u64, Duration::from_millis(2));
    let queue = |sync_mode| Way::Queue { backend: Backend::Blocking, sync_mode, depth: 4 };
    let modes = [SyncMode::Dsync, SyncMode::Fdatasync];
    let ways = [Way::Cached].into_iter().chain(modes.map(Way::Caller)).chain(modes.map(queue));
    for ground in [Ground::Growing, Ground::Allocated, Ground::ZeroRange, Ground::WriteZeroes, Ground::Written] {
        for way in ways.clone() {
            let Some((mut surface, _)) = Surface::make(&directory, ground, bytes).expect("the disk works") else {
                assert_ne!(ground, Ground::Written);
                continue;
            };
            let pace = surface.run(way, BLOCK_BYTES, time).expect("the disk works");
            assert!(pace.writes > 0 && pace.median > Duration::ZERO, "{ground:?} {way:?} {pace:?}");
            if ground != Ground::Written {
                assert!(pace.writes <= bytes / BLOCK_BYTES as u64, "each block is written once: {pace:?}");
            }
        }
    }
    assert_eq!(directory.list("").expect("it exists"), Vec::<String>::new());
}

/// Whoever opens a log may be a task of a runtime.
#[test]
fn a_choice_can_be_made_within_a_runtime() {
    let root = scratch();
    let directory = Directory::open(root.path()).expect("it exists");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime can be had");
    let chosen = runtime.block_on(async { choose(&directory, Backend::Blocking) });
    assert!(chosen.expect("the disk works").writes_in_flight >= 1);
}
