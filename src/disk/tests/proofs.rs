//! D8 of docs/testing.md at the door to real files, below what the simulated disk stands for: each fault at each request
//! of a run. D11: that it stands for them.

use std::ops::Range;

use rustix::io::Errno;

use super::agreement::all_say_the_same;
use super::contract::{self, Rig};
use super::{BlockingRig, Fault, Seam, UringRig};
use crate::disk::seam::Done;
use crate::disk::{Files, SyncMode};
use crate::limits::{BLOCK_BYTES, DISK_OPERATION_AGE_MAX};
use crate::mutant::{self, Mutant};
use crate::sim::proofs::{Proof, prove};

const FAULTS: [Fault; 9] = [
    Fault::Fails(Errno::IO),
    Fault::Fails(Errno::NOSPC),
    Fault::Fails(Errno::DQUOT),
    Fault::Fails(Errno::OPNOTSUPP),
    Fault::Fails(Errno::INVAL),
    Fault::Fails(Errno::INTR),
    Fault::Fails(Errno::AGAIN),
    Fault::Short(BLOCK_BYTES),
    Fault::Short(512),
];

/// A way to write, and what a run of it is made on.
struct Way<R> {
    /// How many requests a write makes: itself, and perhaps a flush.
    requests: usize,
    make: fn(Seam) -> Option<R>,
}

const BLOCKING: Way<BlockingRig> =
    Way { requests: 2, make: |seam| Some(BlockingRig::with(SyncMode::Fdatasync, true, seam, DISK_OPERATION_AGE_MAX)) };
const RING: Way<UringRig> =
    Way { requests: 1, make: |seam| UringRig::with(SyncMode::Dsync, true, seam, DISK_OPERATION_AGE_MAX) };
const RING_FLUSHED: Way<UringRig> =
    Way { requests: 2, make: |seam| UringRig::with(SyncMode::Fdatasync, true, seam, DISK_OPERATION_AGE_MAX) };

/// Each fault at each request of a run of writes. EINTR, EAGAIN and short writes are nobody's business; what else is said
/// is final, and so is all that a flush says.
fn each_fault<R: Rig>(proof: &Proof, Way { requests, make }: Way<R>) {
    let writes = proof.pick(5, 7, 50) as usize * 2 / requests;
    for at in 0..writes * requests {
        for fault in FAULTS {
            let seam = Seam::with(std::iter::repeat_n(Fault::None, at).chain([fault]));
            let Some(mut rig) = make(seam.clone()) else { return };
            let is_flush = at % requests == 1;
            let is_final = match fault {
                Fault::Fails(Errno::INTR | Errno::AGAIN) => is_flush,
                Fault::Fails(_) => true,
                _ => false,
            };
            let failing = is_final.then_some(at / requests);
            run((&mut rig, &seam), (writes, requests), failing, &format!("{fault:?} at request {at}"));
            proof.case();
        }
    }
}

/// Writes two blocks at a time; those before the failing one are acknowledged and there, and no others.
fn run((rig, seam): (&mut impl Rig, &Seam), (writes, requests): (usize, usize), failing: Option<usize>, what: &str) {
    let file = contract::create(rig.files(), "f", &vec![1; writes * 2 * BLOCK_BYTES]);
    for number in 0..writes {
        let bytes = (number * 2 * BLOCK_BYTES) as u64..((number + 1) * 2 * BLOCK_BYTES) as u64;
        rig.submit(contract::write(number as u64, file, number as u64 * 2, 2, 2));
        let said = rig.wait().result;
        assert_eq!(said.is_ok(), failing.is_none_or(|failing| number < failing), "{what}: write {number}: {said:?}");
        let done = seam.take_done();
        if said.is_ok() {
            let flushes = written_then_flushed(bytes.clone(), &done);
            assert_eq!(flushes, Some(requests - 1), "{what}: write {number}: {done:?}");
            let found = contract::read(rig.files(), file, bytes.start, 2 * BLOCK_BYTES);
            assert!(found.iter().all(|&byte| byte == 2), "{what}: write {number} was acknowledged and is not there");
        }
    }
    rig.files().close(file);
}

/// How many flushes there were; `None` if one began before all of these bytes were written, or not all of them were.
fn written_then_flushed(bytes: Range<u64>, done: &[Done]) -> Option<usize> {
    let (mut written, mut flushes) = (bytes.start, 0);
    for one in done {
        match one {
            Done::Wrote(part) if part.start <= written => written = written.max(part.end),
            Done::Wrote(_) => return None,
            Done::FlushBegun if written < bytes.end => return None,
            Done::FlushBegun => flushes += 1,
        }
    }
    (written == bytes.end).then_some(flushes)
}

fn blocking(proof: &Proof) {
    each_fault(proof, BLOCKING);
}

fn uring(proof: &Proof) {
    each_fault(proof, RING);
}

fn uring_flushed(proof: &Proof) {
    each_fault(proof, RING_FLUSHED);
}

fn has_ring() -> bool {
    (RING.make)(Seam::default()).is_some()
}

#[test]
fn d08_a_fault_at_each_request_to_the_kernel() {
    let run = |proof: &Proof| {
        blocking(proof);
        uring(proof);
        uring_flushed(proof);
    };
    // Without a ring, which says so by itself, what is done on it is missing.
    let ways = if has_ring() { 3 } else { 1 };
    prove("D8b", run, [90, 126, 900].map(|each| each * ways));
}

#[test]
fn d11_ring_thread_and_memory_say_the_same() {
    prove("D11", all_say_the_same, [11_500, 102_000, 1_100_000]);
}

/// The zoo's two bugs of the door. With O_DSYNC there is no flush of its own, which could come too early, or whose answer
/// could be swallowed.
#[test]
fn bugs_of_the_door_are_found_by_their_proof() {
    for mutant in [Mutant::FlushErrorSwallowed, Mutant::FlushBeforeShortWriteFinished] {
        let row = |name: &'static str, back_end: fn(&Proof), can_show: bool| (name, back_end, can_show);
        for (name, back_end, can_show) in [
            row("blocking", blocking, true),
            row("uring, fdatasync", uring_flushed, has_ring()),
            row("uring, O_DSYNC", uring, false),
        ] {
            let proof = Proof::in_order();
            let said = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                mutant::with(mutant, || back_end(&proof));
            }));
            assert_eq!(said.is_err(), can_show, "{} {name}", mutant.name());
            println!("{}: D8b {name}, found: {}, in case {}", mutant.name(), said.is_err(), proof.cases() + 1);
        }
    }
}
