//! A snapshot that is removed while it is sent.

use bytes::BytesMut;

use super::*;
use crate::checksum::Checksum;
use crate::sim::disk::{SimDisk, SimFiles};
use crate::snapshot::{Builder, ChunkSource, Description, Step};
use crate::types::{Index, Membership, Term};

const CLUSTER: ClusterId = ClusterId(0xc1);
const CHUNK_BYTES: usize = 1024;

struct Once(Vec<u8>);

impl ChunkSource for Once {
    fn encode_next(&mut self, out: &mut BytesMut) -> bool {
        out.extend(self.0.drain(..));
        false
    }
}

fn description(index: u64) -> Description {
    Description {
        cluster: CLUSTER,
        group: GroupId::CLUSTER,
        point: LogId::new(Term(3), Index(index)),
        membership: Membership::default(),
        membership_id: LogId::ZERO,
        last_record: Index::ZERO,
        log_start: Index(1),
        log_digest: Checksum(5),
    }
}

fn make(disk: &SimDisk, index: u64) {
    let source = Box::new(Once(vec![7; 3 * CHUNK_BYTES]));
    let mut builder = Builder::with_chunks(description(index), source, CHUNK_BYTES);
    while builder.step(&disk.files(), true).expect("nothing is wrong with the disk") != Step::Done {}
}

fn remove(disk: &SimDisk, index: u64) {
    snapshot::remove(&disk.files(), &description(index).name()).expect("nothing is wrong with the disk");
}

fn manifest(shelf: &mut Shelf<SimFiles>, index: u64) -> bool {
    let Description { group, point, .. } = description(index);
    matches!(shelf.answer(SnapshotRequest::Manifest { group, point }).0, SnapshotAnswer::Manifest(_))
}

fn chunk(shelf: &mut Shelf<SimFiles>, index: u64, number: u32) -> bool {
    let Description { group, point, .. } = description(index);
    matches!(shelf.answer(SnapshotRequest::Chunk { group, point, number }).0, SnapshotAnswer::Chunk { .. })
}

#[test]
fn who_asks_anew_for_what_was_removed_takes_it_from_nobody() {
    let disk = SimDisk::new();
    make(&disk, 10);
    let mut shelf = Shelf::new(disk.files(), CLUSTER);
    assert!(manifest(&mut shelf, 10) && chunk(&mut shelf, 10, 0));
    remove(&disk, 10);
    assert!(manifest(&mut shelf, 10), "it is as good as before");
    assert!(chunk(&mut shelf, 10, 1) && chunk(&mut shelf, 10, 2));
    shelf.close();
    assert!(!manifest(&mut shelf, 10) && !chunk(&mut shelf, 10, 1));
}

#[test]
fn what_was_removed_is_closed_by_the_second_sweep_and_what_is_there_stays_open() {
    let disk = SimDisk::new();
    make(&disk, 10);
    make(&disk, 20);
    let mut shelf = Shelf::new(disk.files(), CLUSTER);
    assert!(manifest(&mut shelf, 10) && manifest(&mut shelf, 20));
    shelf.sweep().expect("nothing is wrong with the disk");
    remove(&disk, 10);
    shelf.sweep().expect("nothing is wrong with the disk");
    assert!(chunk(&mut shelf, 10, 0) && manifest(&mut shelf, 10), "whoever is in the midst has a while");
    shelf.sweep().expect("nothing is wrong with the disk");
    assert!(!chunk(&mut shelf, 10, 0) && !manifest(&mut shelf, 10));
    for _ in 0..3 {
        shelf.sweep().expect("nothing is wrong with the disk");
        assert!(chunk(&mut shelf, 20, 0));
    }
}
