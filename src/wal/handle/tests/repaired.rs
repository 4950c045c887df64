//! A log by itself after a repair.

use super::*;
use crate::superblock;
use crate::wal::repair::{self, Orders};
use crate::wal::{Reading, Source};

/// The newest segment is lost, with all that stood ready: the log begins again under a number that the superblock has
/// not seen. It had seen a higher one, and each start ended in a panic.
#[test]
fn a_log_that_lost_its_end_opens_after_a_repair() {
    let home = home();
    closed_log(&home);
    let newest = segments(&home).pop().unwrap();
    for entry in std::fs::read_dir(home.path().join("wal/log")).unwrap() {
        let path = entry.unwrap().path();
        if path >= newest {
            std::fs::remove_file(path).unwrap();
        }
    }
    assert!(Wal::open(options(&home, IoChoice::Blocking)).is_err(), "what was acknowledged is missing");
    let files = Directory::open(home.path().join("wal")).unwrap();
    let evidence = superblock::inspect(&files).unwrap().state.durable_end;
    let source = Source {
        directory: LOG_DIRECTORY.to_owned(),
        identity: None,
        evidence,
        exclusive: true,
        reading: Reading::Everything,
    };
    let plan = repair::plan(&files, &source).unwrap();
    let orders = Orders { loss: plan.damage.unwrap().1, mark: None, seed: 5, wall_clock_milliseconds: 1 };
    repair::apply(&files, &source, &orders).unwrap();
    drop(files);
    let kept = {
        let (wal, _) = Wal::open(options(&home, IoChoice::Blocking)).unwrap();
        assert!(wal.durable_end() >= evidence);
        wal.append_records(GROUP, [vec![2; 100]]).unwrap().wait().unwrap();
        wal.close().unwrap();
        let (wal, _) = Wal::open(options(&home, IoChoice::Blocking)).unwrap();
        read_all(&wal)
    };
    assert!(kept.len() > 1 && data(kept.last().unwrap()).ends_with(&[2; 100]), "{} entries", kept.len());
}
