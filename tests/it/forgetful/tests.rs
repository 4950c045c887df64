//! The disk under a real kernel: what it keeps, what it forgets, what it says.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::time::Duration;

use rustix::fs::OFlags;
use tempfile::TempDir;
use trilith::disk::{Backend, Directory, IoChoice, SyncMode, probe};
use trilith::sim::disk::Code;
use trilith::types::GroupId;
use trilith::wal::Wal;
use trilith::wal::handle::Options;

use super::{Fault, Forgetful, Plan, When, obstacle};
use crate::processes::{alone, skip};

const ONES: [u8; 4096] = [1; 4096];
const TWOS: [u8; 4096] = [2; 4096];
const CUTS: u64 = 20;

/// None where it cannot be, which has been said then.
fn mounted(name: &str, plan: Plan) -> Option<(Forgetful, TempDir)> {
    if let Some((reason, needs)) = obstacle() {
        skip(name, &reason, &needs);
        return None;
    }
    let home = tempfile::tempdir().expect("a directory can be made");
    let mut disk = Forgetful::make(home.path());
    disk.on(plan).expect("it could be mounted a moment ago");
    Some((disk, home))
}

fn cut(disk: &mut Forgetful, seed: u64) {
    disk.cut();
    disk.off();
    disk.forget(seed);
    disk.on(Plan::calm(seed)).expect("it could be mounted before");
}

fn open(at: &std::path::Path, flags: OFlags) -> File {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).custom_flags(flags.bits() as i32);
    options.open(at).expect("it can be opened")
}

#[test]
fn what_was_flushed_stays_and_what_was_not_may_go() {
    let Some((mut disk, home)) = mounted("forgetful disk", Plan::calm(1)) else { return };
    let (at, new) = (home.path().join("file"), home.path().join("new"));
    let mut lost = [0, 0];
    for seed in 0..CUTS {
        let file = open(&at, OFlags::empty());
        file.write_all_at(&ONES, 0).and_then(|()| file.sync_all()).expect("it is written");
        File::open(home.path()).and_then(|root| root.sync_all()).expect("the directory is flushed");
        file.write_all_at(&TWOS, 0).expect("it is written");
        fs::write(&new, b"new").expect("it is written");
        assert_eq!(fs::read(&at).expect("it is there"), TWOS, "readers see what was written");
        drop(file);
        cut(&mut disk, seed);
        let found = fs::read(&at).expect("its entry was flushed");
        assert_eq!(found.len(), 4096);
        for sector in found.chunks(512) {
            assert!(sector.iter().all(|byte| *byte == sector[0]), "a sector is old or new, not both");
            lost[0] += u32::from(sector[0] == 1);
        }
        lost[1] += u32::from(!new.exists());
        fs::remove_file(&new).ok();
    }
    assert!(lost[0] > 0 && lost[0] < 8 * CUTS as u32, "of {CUTS} cuts some take a sector: {lost:?}");
    assert!(lost[1] > 0 && lost[1] < CUTS as u32, "of {CUTS} cuts some take an entry: {lost:?}");
}

#[test]
fn a_write_through_o_dsync_is_durable_and_takes_no_other_along() {
    let Some((mut disk, home)) = mounted("forgetful disk, O_DSYNC", Plan::calm(1)) else { return };
    let at = home.path().join("file");
    let mut lost = 0;
    for (seed, flags) in (0..CUTS).zip([OFlags::empty(), OFlags::DIRECT].into_iter().cycle()) {
        let file = open(&at, OFlags::empty());
        file.write_all_at(&[ONES, ONES].concat(), 0).and_then(|()| file.sync_all()).expect("it is written");
        File::open(home.path()).and_then(|root| root.sync_all()).expect("the directory is flushed");
        file.write_all_at(&TWOS, 4096).expect("it is written");
        let mut aligned = trilith::disk::Buffer::with_capacity(4096);
        aligned.extend(&TWOS);
        open(&at, OFlags::DSYNC | flags).write_all_at(&aligned, 0).expect("it is written");
        drop(file);
        cut(&mut disk, seed);
        let found = fs::read(&at).expect("it is there");
        assert_eq!(found[..4096], TWOS, "cut {seed}: the answer said that it is flushed");
        lost += u32::from(found[4096..] != TWOS);
    }
    assert!(lost > 0, "what was written beside it may go");
}

#[test]
fn the_log_finds_o_direct_there_or_not_and_no_ground_for_io_uring() {
    let Some((mut disk, home)) = mounted("forgetful disk, O_DIRECT", Plan::calm(1)) else { return };
    let probed = |at| probe(&Directory::open(at).expect("it is there"), IoChoice::Auto).expect("it can be probed");
    let found = probed(home.path());
    assert!(found.direct);
    assert_eq!(found.backend, Backend::Blocking, "see what_io_uring_says_of_a_short_write_is_there");
    disk.off();
    disk.on(Plan { is_direct: false, ..Plan::calm(1) }).expect("it could be mounted before");
    assert!(!probed(home.path()).direct);
}

/// A log that is made on a disk whose flushes, or whose writes through O_DSYNC, are slow takes the other way, and goes on
/// with it where the disk is not slow any more.
#[test]
fn a_log_chooses_by_what_the_mounted_disk_is_slow_at() {
    let _alone = alone();
    for (slow, chosen) in [(When::DurableWrite, SyncMode::Fdatasync), (When::Flush, SyncMode::Dsync)] {
        let plan = Plan { slow: Some((slow, Duration::from_millis(5))), ..Plan::calm(1) };
        let Some((mut disk, home)) = mounted("forgetful disk, slow", plan) else { return };
        let open = || {
            let mut options = Options::new(home.path());
            options.segment_bytes = 1 << 20;
            let (wal, opened) = Wal::open(options).expect("the disk works");
            wal.append_records(GroupId(0), ["one"]).expect("there is room").wait().expect("the disk works");
            wal.close().expect("the disk works");
            (opened.created, opened.sync_mode)
        };
        assert_eq!(open(), (true, chosen), "slow at {slow:?}");
        disk.off();
        disk.on(Plan::calm(2)).expect("it could be mounted before");
        assert_eq!(open(), (false, chosen), "what was slow at {slow:?} when the log was made");
    }
}

#[test]
fn the_power_goes_at_the_operation_that_was_named() {
    let Some((mut disk, home)) = mounted("forgetful disk, cut", Plan { cut_after: Some(4), ..Plan::calm(1) }) else {
        return;
    };
    let at = home.path().join("file");
    let mut file = open(&at, OFlags::empty());
    let refused = (0..10).find_map(|_| file.write_all(&ONES).err()).expect("the power goes");
    assert_eq!(refused.raw_os_error(), Some(5));
    assert!(disk.is_off());
    drop(file);
    disk.off();
}

#[test]
fn an_error_comes_once_and_where_it_was_planned() {
    let fault = Some((When::Flush, 1, Fault::Fails(Code::Io)));
    let Some((_disk, home)) = mounted("forgetful disk, EIO", Plan { fault, ..Plan::calm(1) }) else { return };
    let file = open(&home.path().join("file"), OFlags::empty());
    file.write_all_at(&ONES, 0).expect("it is written");
    let said: Vec<bool> = (0..3).map(|_| file.sync_data().is_ok()).collect();
    assert_eq!(said, [true, false, true]);
}

#[test]
fn reads_and_writes_are_short_now_and_then() {
    let plan = Plan { short_per_mille: 500, ..Plan::calm(1) };
    let Some((_disk, home)) = mounted("forgetful disk, short", plan) else { return };
    let file = open(&home.path().join("file"), OFlags::empty());
    let moved: Vec<usize> = (0..CUTS).map(|_| file.write_at(&ONES, 0).expect("it is written")).collect();
    assert!(moved.iter().any(|count| *count < 4096) && moved.contains(&4096), "{moved:?}");
    assert!(moved.iter().all(|count| count.is_multiple_of(512)), "{moved:?}");
    let mut buffer = [0; 4096];
    file.write_all_at(&ONES, 0).expect("it is written");
    let moved: Vec<usize> = (0..CUTS).map(|_| file.read_at(&mut buffer, 0).expect("it is read")).collect();
    assert!(moved.iter().any(|count| *count < 4096) && moved.contains(&4096), "{moved:?}");
}

/// The ring alone, without a log and without the library around it: of one write of eight sectors the file system does a
/// part each time, and the kernel comes back with the rest by itself. What it then says was written must be there. A
/// `pwrite`, which leaves the rest to its caller, shows that the file system does what it says.
#[test]
#[ignore = "shows a fault of the kernel (6.18): cargo test --test it what_io_uring_says -- --ignored --nocapture"]
fn what_io_uring_says_of_a_short_write_is_there() {
    let plan = Plan { short_per_mille: 1000, ..Plan::calm(1) };
    let Some((_disk, home)) = mounted("forgetful disk, short writes through the ring", plan) else { return };
    let mut sectors = trilith::disk::Buffer::with_capacity(4096);
    (1..=8).for_each(|number| sectors.extend(&[number; 512]));
    let at = home.path().join("file");
    let plain = open(&at, OFlags::empty());
    plain.write_all_at(&[0; 8192], 0).expect("it is written");
    let file = open(&at, OFlags::DIRECT);
    let right = |told: usize| {
        let mut found = vec![0; 8192];
        plain.read_exact_at(&mut found, 0).expect("it is read");
        let numbers: Vec<u8> = found.chunks(512).map(|sector| sector[0]).collect();
        eprintln!("told {told} bytes; sectors {numbers:?}");
        found[4096..][..told] == sectors[..told]
    };
    assert!(right(file.write_at(&sectors, 4096).expect("it is written")), "pwrite");
    let mut ring = io_uring::IoUring::new(1).expect("a ring can be had");
    let on = io_uring::types::Fd(file.as_raw_fd());
    let write = io_uring::opcode::Write::new(on, sectors.as_ptr(), 4096).offset(4096).build();
    // SAFETY: file and bytes live until the completion has been waited for, below.
    unsafe { ring.submission().push(&write).expect("it is empty") };
    ring.submit_and_wait(1).expect("the kernel takes it");
    let told = ring.completion().next().expect("it was waited for").result();
    assert!(right(usize::try_from(told).expect("it is written")), "the ring");
}
