//! What was measured for a log's disk is remembered with it.

use super::*;
use crate::disk::SyncMode;

/// Whether the kernel has any file of this log down as O_DSYNC.
fn is_any_open_durably(home: &TempDir) -> bool {
    const O_DSYNC: u32 = 0o10_000;
    let root = home.path().canonicalize().unwrap();
    std::fs::read_dir("/proc/self/fd").unwrap().filter_map(|entry| Some(entry.ok()?.file_name())).any(|name| {
        // Those of other tests come and go meanwhile.
        let file = std::fs::read_link(std::path::Path::new("/proc/self/fd").join(&name)).unwrap_or_default();
        let said = std::fs::read_to_string(std::path::Path::new("/proc/self/fdinfo").join(name)).unwrap_or_default();
        let flags = said.lines().find_map(|line| line.strip_prefix("flags:")).unwrap_or("0").trim();
        file.starts_with(&root) && u32::from_str_radix(flags, 8).unwrap() & O_DSYNC != 0
    })
}

/// What was measured when the log was made is what its superblock says.
#[test]
fn what_was_measured_is_remembered() {
    let home = home();
    let (wal, opened) = Wal::open(options(&home, IoChoice::Blocking)).unwrap();
    wal.close().unwrap();
    let directory = Directory::open(home.path().join("wal")).unwrap();
    let state = crate::superblock::load(&directory, 0).unwrap().state;
    assert_eq!(state.sync_mode, opened.sync_mode.number(), "0 is not measured");
    assert_eq!(usize::from(state.writes_in_flight), opened.writes_in_flight);
}

/// Measured once: whatever would be measured now, the log keeps to what its superblock remembers.
#[test]
fn a_log_keeps_to_what_was_chosen_when_it_was_made() {
    for (sync_mode, writes_in_flight) in [(SyncMode::Dsync, 3), (SyncMode::Fdatasync, 1)] {
        let home = home();
        Wal::open(options(&home, IoChoice::Blocking)).unwrap().0.close().unwrap();
        let directory = Directory::open(home.path().join("wal")).unwrap();
        let mut state = crate::superblock::load(&directory, 0).unwrap().state;
        state.sync_mode = sync_mode.number();
        state.writes_in_flight = writes_in_flight;
        std::fs::remove_file(home.path().join("wal/superblock")).unwrap();
        drop(directory);
        let directory = Directory::open(home.path().join("wal")).unwrap();
        crate::superblock::format(&directory, &state).unwrap();
        drop(directory);
        for _ in 0..2 {
            let (wal, opened) = Wal::open(options(&home, IoChoice::Blocking)).unwrap();
            assert_eq!((opened.sync_mode, opened.writes_in_flight), (sync_mode, usize::from(writes_in_flight)));
            wal.append_records(GROUP, ["x"]).unwrap().wait().unwrap();
            for _ in 0..10 {
                wal.append_records_durably(GROUP, ["x"]).unwrap();
            }
            assert_eq!(is_any_open_durably(&home), sync_mode == SyncMode::Dsync, "{sync_mode}: it is written so");
            assert_eq!(wal.shared.log().options().writes_in_flight, opened.writes_in_flight);
            wal.close().unwrap();
        }
    }
}
