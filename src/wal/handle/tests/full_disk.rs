//! What appenders are told while the disk is full.

use std::sync::mpsc::channel;

use super::*;
use crate::sim::disk::SimDisk;
use crate::wal::Identity;

const NO_SPACE: Refused = Refused::Log(LogRefused::NoSpace);

/// An empty log, with nothing in its queue.
pub(super) fn log() -> Log {
    let identity =
        Identity { cluster: crate::types::ClusterId(1), node: NODE_ALONE, incarnation: crate::types::Incarnation(1) };
    Log::create(&SimDisk::new().files(), crate::sim::fuzz::options(identity), 1).unwrap()
}

pub(super) fn append(inbox: &Inbox, bytes: usize) -> Result<Ticket, Refused> {
    inbox.append_data(GROUP, &[Data::new(Bytes::from(vec![7; bytes]))]).map(|(ticket, _)| ticket)
}

#[test]
fn who_waits_for_room_is_told_when_the_disk_is_full() {
    let log = log();
    let inbox = Inbox::new(&log, 1000, WhenFull::Block);
    append(&inbox, 1100).unwrap();
    let (sender, said) = channel();
    std::thread::scope(|scope| {
        scope.spawn(|| sender.send(append(&inbox, 900)).unwrap());
        while inbox.blocked() == 0 {
            std::thread::yield_now();
        }
        // The first record is with the core, and finds no segment.
        inbox.settle(&log, Some(0), None);
        let said = said.recv_timeout(Duration::from_secs(10));
        inbox.close();
        assert_eq!(said.expect("it is answered at once"), Err(NO_SPACE));
    });
}

#[test]
fn appends_go_on_when_there_is_room_again() {
    let log = log();
    let inbox = Inbox::new(&log, 1000, WhenFull::Block);
    inbox.settle(&log, Some(0), Some(0));
    assert_eq!(append(&inbox, 10), Err(NO_SPACE));
    inbox.settle(&log, None, Some(0));
    append(&inbox, 10).unwrap();
}

/// A frame takes whole blocks, and its head: what would not fit is refused, and does not wait for a segment.
#[test]
fn room_is_counted_in_frames() {
    let log = log();
    let inbox = Inbox::new(&log, 1 << 20, WhenFull::Busy);
    inbox.settle(&log, Some(4096), Some(0));
    assert_eq!(append(&inbox, 4000), Err(NO_SPACE), "with its head the record does not fit one block");
    let room: u64 = 64 << 10;
    inbox.settle(&log, Some(room), Some(0));
    let mut taken = 0;
    while append(&inbox, 100).is_ok() {
        // Each in an item of its own.
        inbox.cut(GroupId(1), RecordKind::Purge, LogId::new(Term(1), Index(taken + 1))).unwrap();
        taken += 1;
    }
    assert!(taken >= 2 && 2 * taken * 4096 <= room, "{taken} records of two frames each");
}
