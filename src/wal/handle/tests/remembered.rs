//! What was measured for a log's disk is remembered with it.

use super::*;
use crate::disk::SyncMode;

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
            wal.close().unwrap();
        }
    }
}
