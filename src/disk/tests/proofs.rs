//! D8 of docs/testing.md at the door to real files, below what the simulated disk stands for: each fault at each request
//! of a run. D11: that it stands for them.

use rustix::io::Errno;

use super::agreement::all_say_the_same;
use super::contract::{self, Rig};
use super::{Fault, UringRig, faulty, faulty_uring};
use crate::disk::{Files, SyncMode};
use crate::limits::BLOCK_BYTES;
use crate::mutant::{self, Mutant};
use crate::sim::proofs::{Proof, prove};

const FAULTS: [Fault; 7] = [
    Fault::Fails(Errno::IO),
    Fault::Fails(Errno::NOSPC),
    Fault::Fails(Errno::DQUOT),
    Fault::Fails(Errno::INTR),
    Fault::Fails(Errno::AGAIN),
    Fault::Short(BLOCK_BYTES),
    Fault::Short(512),
];

/// Each fault at each request of a run of writes, of which each makes so many requests: the write, and perhaps a flush.
/// EINTR, EAGAIN and short writes are nobody's business; what else is said is final, and so is all that a flush says.
fn each_fault<R: Rig>(proof: &Proof, requests: usize, make: impl Fn(Vec<Fault>) -> Option<R>) {
    let writes = proof.pick(5, 10, 50) as usize * 2 / requests;
    for at in 0..writes * requests {
        for fault in FAULTS {
            let faults = std::iter::repeat_n(Fault::None, at).chain([fault]).collect();
            let Some(mut rig) = make(faults) else { return };
            let is_flush = at % requests == 1;
            let is_final = match fault {
                Fault::Fails(Errno::INTR | Errno::AGAIN) => is_flush,
                Fault::Fails(_) => true,
                _ => false,
            };
            let failing = is_final.then_some(at / requests);
            run(&mut rig, writes, failing, &format!("{fault:?} at request {at}"));
            proof.case();
        }
    }
}

/// Writes two blocks at a time; those before the failing one are acknowledged and there, and no others.
fn run(rig: &mut impl Rig, writes: usize, failing: Option<usize>, what: &str) {
    let file = contract::create(rig.files(), "f", &vec![1; writes * 2 * BLOCK_BYTES]);
    for number in 0..writes {
        rig.submit(contract::write(number as u64, file, number as u64 * 2, 2, 2));
        let said = rig.wait().result;
        assert_eq!(said.is_ok(), failing.is_none_or(|failing| number < failing), "{what}: write {number}: {said:?}");
        if said.is_ok() {
            let found = contract::read(rig.files(), file, (number * 2 * BLOCK_BYTES) as u64, 2 * BLOCK_BYTES);
            assert!(found.iter().all(|&byte| byte == 2), "{what}: write {number} was acknowledged and is not there");
        }
    }
    rig.files().close(file);
}

fn blocking(proof: &Proof) {
    each_fault(proof, 2, |faults| Some(faulty(faults)));
}

fn uring(proof: &Proof) {
    let make = |faults| -> Option<UringRig> { faulty_uring(SyncMode::Dsync, faults) };
    each_fault(proof, 1, make);
}

#[test]
fn d08_a_fault_at_each_request_to_the_kernel() {
    let run = |proof: &Proof| {
        blocking(proof);
        uring(proof);
    };
    // Without a ring, which says so by itself, its half is missing.
    let halves = if faulty_uring(SyncMode::Dsync, []).is_some() { 2 } else { 1 };
    prove("D8b", run, [70, 140, 700].map(|half| half * halves));
}

#[test]
fn d11_ring_thread_and_memory_say_the_same() {
    prove("D11", all_say_the_same, [10_000, 100_000, 1_000_000]);
}

/// The zoo's two bugs of the door.
#[test]
fn bugs_of_the_door_are_found_by_their_proof() {
    for mutant in [Mutant::FlushErrorSwallowed, Mutant::FlushBeforeShortWriteFinished] {
        for (name, back_end) in [("blocking", blocking as fn(&Proof)), ("uring", uring)] {
            let proof = Proof::in_order();
            let said = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                mutant::with(mutant, || back_end(&proof));
            }));
            let is_there = faulty_uring(SyncMode::Dsync, []).is_some() || name == "blocking";
            // With O_DSYNC there is no flush of its own whose answer could be swallowed.
            let can_show = mutant == Mutant::FlushBeforeShortWriteFinished || name == "blocking";
            assert_eq!(said.is_err(), is_there && can_show, "{} {name}", mutant.name());
            println!("{}: D8b {name}, found: {}, in case {}", mutant.name(), said.is_err(), proof.cases() + 1);
        }
    }
}
