//! Logs of others, and of later programs.

use super::rig::{DIRECTORY, G, Rig, identity, open, options, segment};
use crate::sim::disk::SimDisk;
use crate::types::{ClusterId, Incarnation, NodeId, Place};
use crate::wal::{Error, Identity, Log, Options};

fn log() -> SimDisk {
    let mut rig = Rig::new(options());
    rig.grow(G, 2, 100);
    rig.rest();
    rig.disk.crash_to(&vec![0; rig.disk.loose().len()]);
    rig.disk
}

#[test]
fn the_log_of_another_is_refused() {
    let disk = log();
    let others = [
        Identity { cluster: ClusterId(1), ..identity() },
        Identity { node: NodeId(9), ..identity() },
        Identity { incarnation: Incarnation(9), ..identity() },
    ];
    for other in others {
        let error = open(&disk, &Options { identity: other, ..options() }).map(drop).expect_err("it is another's");
        assert!(matches!(error, Error::WrongIdentity { expected, .. } if expected == other), "{error}");
    }
    open(&disk, &options()).expect("it is ours, and nobody holds it");
}

#[test]
fn a_newer_format_is_refused() {
    let disk = log();
    for name in [segment(1), segment(2)] {
        let fork = disk.fork();
        for at in [0, 61_440] {
            let mut block = fork.contents(&name)[at..at + 4096].to_vec();
            block[8] = 9;
            fork.overwrite(&name, at as u64, &block);
        }
        let error = open(&fork, &options()).map(drop).expect_err("it is newer");
        assert!(matches!(error, Error::NewerFormat { found: 9, .. }), "{error}");
    }
}

#[test]
fn a_log_is_made_once_and_opened_once() {
    let disk = log();
    assert!(matches!(Log::create(&disk.files(), options(), 1), Err(Error::Exists { .. })));
    let files = disk.files();
    let (_log, _) = Log::open(&files, options(), Place::START, 1).expect("it is intact");
    let error = Log::open(&files, options(), Place::START, 1).map(drop).expect_err("it is in use");
    assert!(matches!(&error, Error::Disk(error) if error.is_locked()), "{error}");
    let empty = SimDisk::new();
    crate::disk::Files::create_directory(&empty.files(), DIRECTORY).expect("the disk is well");
    let error = open(&empty, &Options { directory: DIRECTORY.to_owned(), ..options() }).map(drop).expect_err("no log");
    assert!(matches!(error, Error::Missing { .. }), "{error}");
}
