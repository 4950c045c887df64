//! Directories in which a file of the log's own is not as it should be.

use std::fs;
use std::path::PathBuf;

use super::*;
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
