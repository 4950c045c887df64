//! A log on a disk that is really full: a small tmpfs of its own.

use std::ffi::CString;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use tempfile::TempDir;
use trilith::disk::{IoChoice, ProbeError};
use trilith::types::{GroupId, Index, LogId, Payload};
use trilith::wal::handle::{Error, Options, Refused};
use trilith::wal::{self, Wal};

use crate::processes::{alone, skip};

const GROUP: GroupId = GroupId(0);
const RECORD_BYTES: usize = 16 << 10;
/// Each fills the disk anew.
const PURGES: u64 = 4;
const PATIENCE: Duration = Duration::from_secs(30);

/// Taken off when it is dropped.
pub struct Small {
    at: PathBuf,
    _home: Option<TempDir>,
}

impl Small {
    /// Eight MiB.
    fn mounted() -> Option<Small> {
        let home = tempfile::tempdir().expect("a directory can be made");
        let at = home.path().join("disk");
        std::fs::create_dir(&at).expect("a directory can be made");
        let mut small = Small::mounted_at("full_disk", &at, 8)?;
        small._home = Some(home);
        Some(small)
    }

    /// None, and a line that says so, where nothing may be mounted.
    pub fn mounted_at(name: &str, at: &Path, mib: u64) -> Option<Small> {
        if !rustix::process::geteuid().is_root() {
            skip(name, "not root", "root");
            return None;
        }
        let flags = MountFlags::NODEV | MountFlags::NOSUID;
        let size = CString::new(format!("size={mib}m")).expect("there is no zero in it");
        match mount("tmpfs", at, "tmpfs", flags, size.as_c_str()) {
            Ok(()) => Some(Small { at: at.to_owned(), _home: None }),
            Err(error) => {
                // A right that a container withholds.
                skip(name, &format!("no tmpfs can be mounted here: {error}"), "");
                None
            }
        }
    }

    /// The log, if this back end is to be had here.
    fn open(&self, io: IoChoice) -> Option<Wal> {
        let options = Options { io, segment_bytes: 256 << 10, ..Options::new(self.at.join("wal")) };
        match Wal::open(options) {
            Ok((wal, _)) => Some(wal),
            Err(Error::Io(ProbeError::Refused { cause, .. })) => {
                skip("full_disk on io_uring", &cause, "");
                None
            }
            Err(error) => panic!("{error}"),
        }
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        if let Err(error) = unmount(&self.at, UnmountFlags::DETACH) {
            eprintln!("{} cannot be taken off: {error}", self.at.display());
        }
    }
}

fn record(number: u64) -> Vec<u8> {
    let mut record = vec![number as u8; RECORD_BYTES];
    record[..8].copy_from_slice(&number.to_le_bytes());
    record
}

/// Appends one after another until the disk is full; gives the last that is durable.
fn fill(wal: &Wal, from: u64) -> u64 {
    for number in from.. {
        assert!(number < 10_000, "a small disk takes no end");
        match wal.append_records(GROUP, [record(number)]) {
            Ok(pending) => assert_eq!(pending.wait().expect("what was taken is written").start, Index(number)),
            Err(refused) => {
                assert_eq!(refused, Refused::Log(wal::Refused::NoSpace));
                return number - 1;
            }
        }
    }
    unreachable!("numbers do not end")
}

/// Without anything being done to the log, it takes this record.
fn wait_for_room(wal: &Wal, number: u64) {
    let begin = Instant::now();
    loop {
        match wal.append_records(GROUP, [record(number)]) {
            Ok(pending) => {
                assert_eq!(pending.wait().expect("the disk works").start, Index(number));
                return;
            }
            Err(refused) => assert_eq!(refused, Refused::Log(wal::Refused::NoSpace)),
        }
        assert!(begin.elapsed() < PATIENCE, "appends do not resume: {:?}", wal.preparation_error());
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn check(wal: &Wal, first: u64, last: u64) {
    let mut next = first;
    for entry in wal.iter(GROUP, Index(first)) {
        let entry = entry.expect("it is there");
        if next > last {
            break;
        }
        let Payload::Data(data) = &entry.payload else { panic!("{}: no record of ours", entry.id) };
        assert!(entry.id.index == Index(next) && data.bytes[..] == record(next)[..], "{}", entry.id);
        next += 1;
    }
    assert_eq!(next, last + 1, "{first} to {last} are there");
}

fn back_ends() -> [IoChoice; 2] {
    [IoChoice::Blocking, IoChoice::Uring]
}

#[test]
fn on_a_full_disk_appends_are_refused_purges_pass_and_appends_resume() {
    // A process that is started elsewhere holds the lock of the log for a moment.
    let _alone = alone();
    for io in back_ends() {
        let Some(small) = Small::mounted() else { return };
        let Some(wal) = small.open(io) else { continue };
        let full = fill(&wal, 1);
        assert!(full > 200, "{full} records of 16 KiB on 8 MiB");
        let cause = wal.preparation_error().expect("it stands in the way");
        assert!(cause.is_no_space(), "{cause}");
        assert!(wal.failure().is_none());
        check(&wal, 1, full);
        let (mut kept, mut last) = (1, full);
        for _ in 0..PURGES {
            kept = last - full / 2;
            let purged = LogId::new(wal.group(GROUP).expect("it is there").last.term, Index(kept - 1));
            wal.purge_prefix(GROUP, purged).expect("a purge is taken").wait().expect("and is written");
            wait_for_room(&wal, last + 1);
            let again = fill(&wal, last + 2);
            assert!(again > last + 50, "what the purge has given up is used again: {last}, {again}");
            last = again;
            check(&wal, kept, last);
        }
        wal.close().expect("the disk works");
        let wal = small.open(io).expect("it was to be had before");
        check(&wal, kept, last);
        println!("full disk, {io}: {full} records, {} more after {PURGES} purges", last - full);
    }
}

#[test]
fn appends_resume_by_themselves_when_another_file_goes() {
    // A process that is started elsewhere holds the lock of the log for a moment.
    let _alone = alone();
    for io in back_ends() {
        let Some(small) = Small::mounted() else { return };
        let other = small.at.join("other");
        std::fs::write(&other, vec![1; 3 << 20]).expect("there is room");
        let Some(wal) = small.open(io) else { continue };
        let full = fill(&wal, 1);
        std::fs::remove_file(&other).expect("it is there");
        wait_for_room(&wal, full + 1);
        wal.close().expect("the disk works");
        check(&small.open(io).expect("it was to be had before"), 1, full + 1);
    }
}
