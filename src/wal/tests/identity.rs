//! Logs of others, and of later programs.

use super::rig::{DIRECTORY, G, Rig, identity, open, options, segment};
use crate::sim::disk::SimDisk;
use crate::sim::proofs::Proof;
use crate::superblock;
use crate::types::{ClusterId, Incarnation, NodeId, Place};
use crate::wal::{Error, Identity, Log, Options};

/// D14, without its exit codes: tests/it/refusals.rs has those. No older format was ever released.
pub fn refusals(proof: &Proof) {
    the_log_of_another_is_refused(proof);
    a_newer_format_is_refused(proof);
    a_log_is_made_once_and_opened_once(proof);
    superblocks_that_are_refused(proof);
}

fn superblocks_that_are_refused(proof: &Proof) {
    let disk = SimDisk::new();
    super::voter::format(&disk);
    let before = disk.contents(superblock::FILE_NAME);
    let found = superblock::inspect(&disk.files()).expect("it was just made").state;
    let own = identity();
    assert!(matches!(found.check(Some(ClusterId(1)), own.node), Err(superblock::Error::WrongCluster { .. })));
    assert!(matches!(found.check(Some(own.cluster), NodeId(9)), Err(superblock::Error::WrongNode { .. })));
    for block in 0..4 {
        let fork = disk.fork();
        let mut bytes = before[block * 4096..][..4096].to_vec();
        bytes[8] = 9;
        let checksum = crate::checksum::Checksum::of(&bytes[..4092]);
        bytes[4092..].copy_from_slice(&checksum.0.to_le_bytes());
        fork.overwrite(superblock::FILE_NAME, block as u64 * 4096, &bytes);
        let error = superblock::load(&fork.files(), 0).map(drop).expect_err("a newer program was here");
        assert!(matches!(error, superblock::Error::NewerFormat { found: 9 }), "{error}");
        proof.case();
    }
    let files = disk.files();
    let _first = superblock::load(&files, 0).expect("it is intact");
    let error = superblock::load(&files, 0).map(drop).expect_err("it is in use");
    assert!(matches!(&error, superblock::Error::Disk(error) if error.is_locked()), "{error}");
    assert!(matches!(superblock::load(&SimDisk::new().files(), 0), Err(superblock::Error::NotFormatted)));
    (0..4).for_each(|_| proof.case());
}

fn log() -> SimDisk {
    let mut rig = Rig::new(options());
    rig.grow(G, 2, 100);
    rig.rest();
    rig.disk.crash_to(&vec![0; rig.disk.loose().len()]);
    rig.disk
}

fn the_log_of_another_is_refused(proof: &Proof) {
    let disk = log();
    let others = [
        Identity { cluster: ClusterId(1), ..identity() },
        Identity { node: NodeId(9), ..identity() },
        Identity { incarnation: Incarnation(9), ..identity() },
    ];
    for other in others {
        let error = open(&disk, &Options { identity: other, ..options() }).map(drop).expect_err("it is another's");
        assert!(matches!(error, Error::WrongIdentity { expected, .. } if expected == other), "{error}");
        proof.case();
    }
    open(&disk, &options()).expect("it is ours, and nobody holds it");
}

fn a_newer_format_is_refused(proof: &Proof) {
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
        proof.case();
    }
}

fn a_log_is_made_once_and_opened_once(proof: &Proof) {
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
    (0..3).for_each(|_| proof.case());
}
