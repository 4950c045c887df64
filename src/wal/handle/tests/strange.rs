//! Directories in which a file of the log's own is not as it should be.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use super::*;
use crate::disk::Operation;

fn path(home: &TempDir, name: &str) -> PathBuf {
    home.path().join("wal").join(name)
}

fn opened(home: &TempDir, create: bool) -> Result<Wal, Error> {
    Wal::open(Options { create, ..options(home, IoChoice::Blocking) }).map(|(wal, _)| wal)
}

/// Names of everything in the directory and in that of the segments, and the bytes of the files.
fn contents(home: &TempDir) -> Vec<(PathBuf, Option<Vec<u8>>)> {
    let mut all = Vec::new();
    for directory in [path(home, ""), path(home, LOG_DIRECTORY)] {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            all.push((path.clone(), fs::read(path).ok()));
        }
    }
    all.sort();
    all
}

/// It was told that there was no log, and that one would be made with `create`.
#[test]
fn a_lost_superblock_is_named_also_where_no_log_is_to_be_made() {
    let home = home();
    closed_log(&home);
    let aside = home.path().join("aside");
    fs::rename(path(&home, "superblock"), &aside).unwrap();
    // What a repair leaves, and what somebody has put there, do not hide it.
    for (foreign, create) in [(None, false), (Some("cut-1-1"), false), (Some("cut-1-1"), true)] {
        foreign.map(|name| fs::write(path(&home, name), "kept")).transpose().unwrap();
        let before = contents(&home);
        let error = opened(&home, create).unwrap_err();
        assert!(matches!(error, Error::SuperblockLost { .. }), "{foreign:?}, {create}: {error}");
        assert!(error.to_string().contains("its superblock is gone"), "{error}");
        assert!(
            error.next_step().starts_with("delete nothing: put the file `superblock` back"),
            "{}",
            error.next_step()
        );
        assert!(contents(&home) == before, "nothing was changed");
    }
    fs::rename(&aside, path(&home, "superblock")).unwrap();
    assert_eq!(read_all(&opened(&home, false).unwrap()).len(), 6);
}

/// What a making left that did not come to its end is no log: in its directory a log may be made.
#[test]
fn a_directory_without_entries_holds_no_log() {
    let home = home();
    drop(opened(&home, true).unwrap());
    fs::remove_file(path(&home, "superblock")).unwrap();
    assert!(matches!(opened(&home, false).unwrap_err(), Error::Missing { .. }));
    fs::remove_dir_all(path(&home, LOG_DIRECTORY)).unwrap();
    fs::create_dir(path(&home, LOG_DIRECTORY)).unwrap();
    assert!(matches!(opened(&home, false).unwrap_err(), Error::Missing { .. }));
    opened(&home, true).unwrap().close().unwrap();
}

/// The lock holds nothing: where it is gone it is made anew, and whoever has the log open is found by the locks on
/// superblock and segments.
#[test]
fn a_missing_lock_is_made_anew_and_lets_nobody_into_a_log_in_use() {
    let home = home();
    closed_log(&home);
    for create in [false, true] {
        fs::remove_file(path(&home, LOCK_NAME)).unwrap();
        let wal = opened(&home, create).unwrap();
        assert_eq!(read_all(&wal).len(), 6);
        fs::remove_file(path(&home, LOCK_NAME)).unwrap();
        let second = opened(&home, create).unwrap_err();
        assert!(matches!(second, Error::InUse { .. }), "{second}");
        wal.close().unwrap();
        assert!(path(&home, LOCK_NAME).exists());
    }
}

/// What stands there is named, and nothing is changed: whoever put it there may know why.
#[test]
fn a_lock_that_cannot_be_opened_is_named() {
    let home = home();
    closed_log(&home);
    let lock = path(&home, LOCK_NAME);
    let strange: [(&str, &dyn Fn()); 3] = [
        ("a directory", &|| fs::create_dir(&lock).unwrap()),
        ("a link to itself", &|| symlink(&lock, &lock).unwrap()),
        ("a link to what is not there", &|| symlink(home.path().join("gone"), &lock).unwrap()),
    ];
    for (what, make) in strange {
        fs::remove_file(&lock).or_else(|_| fs::remove_dir(&lock)).unwrap();
        make();
        let before = contents(&home);
        for create in [false, true] {
            let error = opened(&home, create).unwrap_err();
            let is_named = matches!(&error, Error::Disk(disk) if disk.operation == Operation::Open);
            assert!(is_named && error.to_string().contains("lock"), "{what}: {error}");
            assert!(error.next_step().starts_with("check the path"), "{what}: {}", error.next_step());
        }
        assert!(contents(&home) == before, "{what}: nothing was changed");
    }
    fs::remove_file(&lock).unwrap();
    assert_eq!(read_all(&opened(&home, false).unwrap()).len(), 6);
}
