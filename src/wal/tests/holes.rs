//! Zeros where bytes should be: a hole, a page that never came, a tail that is only allocated.

use super::rig::{G, READINGS, Rig, Start, open, open_as, options, segment};
use super::rot::{Log3, log, severity};
use crate::limits::SECTOR_BYTES;
use crate::sim::proofs::Proof;
use crate::types::Place;

const SECTOR: u64 = SECTOR_BYTES as u64;

/// D7: zeros never decode, wherever they stand.
pub fn zeros(proof: &Proof) {
    let stride = proof.pick(3, 1, 1);
    proof.spread(6, |piece| {
        let mut log = log();
        // Without the superblock nobody misses what lies at the end; with it, it is missed.
        let is_proven = piece % 2 == 1;
        log.evidence = if is_proven { log.end } else { Place::START };
        holes(&log, (piece / 2) as usize, stride, proof);
    });
    zeros_over_a_durable_tail(proof);
    allocated_room(proof);
}

/// Each range of sectors of each segment is zero, with good frames before and behind it.
fn holes(log: &Log3, at: usize, stride: u64, proof: &Proof) {
    let (name, end) = &log.segments[at];
    let before = log.disk.contents(name);
    let mut turn = 0;
    for from in (4096..*end).step_by(SECTOR_BYTES) {
        for to in (from + SECTOR..=*end).step_by(SECTOR_BYTES) {
            turn += 1;
            let range = from as usize..to as usize;
            if turn % stride != 0 || before[range].iter().all(|&byte| byte == 0) {
                continue;
            }
            let fork = log.disk.fork();
            fork.zero(name, from..to);
            let what = format!("{name} {from}..{to}");
            let is_last = at == 2 && to > log.last && log.evidence == Place::START;
            if is_last {
                continue;
            }
            assert!(log.is_found(&fork, &what), "{what} is not found");
            proof.case();
        }
    }
}

/// All from a frame on is zero, and the superblock had seen more: the log does not end there.
fn zeros_over_a_durable_tail(proof: &Proof) {
    let log = log();
    let (name, end) = &log.segments[2];
    for from in (8192..*end).step_by(4096) {
        let fork = log.disk.fork();
        fork.zero(name, from..61_440);
        for reading in READINGS {
            let opened = open_as(&fork, &options(), Start { evidence: log.end, reading }).map(drop);
            assert!(opened.is_err(), "{from}, {reading:?}: the log ends before what was durable");
        }
        proof.case();
    }
}

/// A segment that was only allocated reads as zeros behind its end, and the log ends cleanly there.
fn allocated_room(proof: &Proof) {
    let mut rig = Rig::new(options());
    // As many as the first segment holds.
    for count in 0..9 {
        rig.grow(G, 1, 500);
        rig.settle();
        let fork = rig.disk.fork();
        fork.crash_to(&vec![0; fork.loose().len()]);
        // Files get longer and shorter behind the end where room was given and not used.
        let bytes = fork.contents(&segment(1));
        assert!(bytes[rig.log.durable_end().offset as usize..61_440].iter().all(|&byte| byte == 0));
        assert_eq!(severity(&fork), None, "{count}");
        let (log, _, found) = open(&fork, &options()).expect("it ends cleanly");
        assert!(rig.model.is_possible(&found) && log.durable_end() > Place::START);
        proof.case();
    }
}
