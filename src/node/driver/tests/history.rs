//! What a start makes of a long history behind its snapshot.

use std::cell::Cell;
use std::rc::Rc;

use super::purging::{SEGMENT_BYTES, SEGMENT_RECORDS, snapshot, with};
use super::rig::{OWN, Rig, formatted_with};
use crate::machine::Map;
use crate::net::{Consistency, RequestBody, ResponseBody};
use crate::node::driver::{self, Driver, FollowerTail, StartError};
use crate::random::Random;
use crate::sim::disk::{Act, SimDisk};
use crate::types::Index;
use crate::wal;

/// What is read of a segment that is not read whole, at most: four times a few blocks.
const SEALED_BYTES: u64 = 32 << 10;

fn options() -> driver::Options {
    with(FollowerTail { bytes: u64::MAX, milliseconds: u64::MAX })
}

/// Killed with so many segments of records, all wanted, in its snapshots.
fn killed(segments: u64) -> SimDisk {
    let mut rig = Rig::with_options(formatted_with(&[OWN], SEGMENT_BYTES), Map::new(), options());
    rig.lead();
    rig.append(segments * SEGMENT_RECORDS, 1 << 10);
    for _ in 0..2 {
        snapshot(&mut rig);
    }
    let disk = rig.disk.clone();
    drop(rig);
    disk.kill(&mut Random::seeded(1));
    disk
}

/// Bytes that the start of a node reads.
fn read_by_start(disk: &SimDisk) -> u64 {
    let read = Rc::new(Cell::new(0));
    let sum = read.clone();
    disk.observe(move |event| {
        if event.act == Act::Read {
            sum.set(sum.get() + event.length);
        }
    });
    Driver::start(&disk.files(), options(), Map::new(), 0).expect("nothing is wrong with it");
    read.get()
}

#[test]
fn a_start_reads_no_more_of_a_long_history_than_what_each_segment_says_of_itself() {
    let [short, long] = [5, 45].map(|segments| read_by_start(&killed(segments)));
    assert!(long - short <= 40 * SEALED_BYTES, "{short} bytes, and {long} with 40 segments more");
    assert!(long < 45 * SEGMENT_BYTES / 4, "{long} bytes");
}

/// Whoever reads there is told, and nothing else suffers; with `verify_at_start` the node stays down.
#[test]
fn damage_in_an_older_segment_is_told_to_who_reads_there() {
    let disk = killed(12);
    disk.flip_bit(&format!("{}/{}", driver::LOG_DIRECTORY, "0000000000000004.segment"), SEGMENT_BYTES / 2, 3);
    let refused = Driver::start(&disk.fork().files(), verifying(), Map::new(), 0);
    assert!(matches!(refused, Err(StartError::Log(wal::Error::Damaged(_)))), "{refused:?}");
    let mut rig = Rig::with_options(disk, Map::new(), options());
    rig.lead();
    let mut ask = |from: u64| {
        let (from, to) = (Index(from), Some(Index(from + 1)));
        rig.ask(RequestBody::Read { from, to, bytes_max: 1 << 12, consistency: Consistency::Stale })
    };
    let answers: Vec<ResponseBody> = (1..12 * SEGMENT_RECORDS).step_by(2).map(&mut ask).collect();
    let refused: Vec<_> = answers.iter().filter(|answer| !matches!(answer, ResponseBody::Records(_))).collect();
    assert!((1..=16).contains(&refused.len()), "{refused:?}");
}

fn verifying() -> driver::Options {
    driver::Options { verify_at_start: true, ..options() }
}
