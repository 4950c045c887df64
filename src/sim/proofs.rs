//! How the proofs of docs/testing.md are run: how much of each, on all cores, and what they say.
//!
//! `TRILITH_PROOFS` is `share` (or nothing), `ci` or `full`; `TRILITH_PROOFS_PART=2/5` does the second fifth of all that is
//! spread over the cores.

use std::panic::resume_unwind;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::mutant;

/// How much of a proof is done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scale {
    /// What `cargo test` does.
    Share,
    /// What CI does.
    Ci,
    /// All that its row asks for.
    Full,
}

/// One run of a proof: how much of it, and what was done.
pub struct Proof {
    /// How much is done.
    pub scale: Scale,
    threads: usize,
    part: u64,
    parts: u64,
    cases: AtomicU64,
}

impl Proof {
    /// As the environment says, on all cores.
    fn asked_for() -> Proof {
        let scale = match std::env::var("TRILITH_PROOFS").as_deref() {
            Err(_) | Ok("share") => Scale::Share,
            Ok("ci") => Scale::Ci,
            Ok("full") => Scale::Full,
            Ok(other) => panic!("TRILITH_PROOFS is {other:?}: it is share, ci or full"),
        };
        let part = std::env::var("TRILITH_PROOFS_PART").unwrap_or("1/1".to_owned());
        let (part, parts) = part.split_once('/').expect("TRILITH_PROOFS_PART is like 2/5");
        let (part, parts) = (part.parse::<u64>().expect("a number"), parts.parse().expect("a number"));
        assert!((1..=parts).contains(&part), "TRILITH_PROOFS_PART counts from 1");
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Proof { scale, threads, part, parts, cases: AtomicU64::new(0) }
    }

    /// The share of `cargo test`, on one thread: what comes before what is always the same.
    pub fn in_order() -> Proof {
        Proof { scale: Scale::Share, threads: 1, part: 1, parts: 1, cases: AtomicU64::new(0) }
    }

    /// Whether only a part of the work was asked for.
    pub fn is_part(&self) -> bool {
        self.parts > 1
    }

    /// One more case is done.
    pub fn case(&self) {
        self.cases.fetch_add(1, Ordering::Relaxed);
    }

    /// How many are done.
    pub fn cases(&self) -> u64 {
        self.cases.load(Ordering::Relaxed)
    }

    /// The number for this scale.
    pub fn pick(&self, share: u64, ci: u64, full: u64) -> u64 {
        match self.scale {
            Scale::Share => share,
            Scale::Ci => ci,
            Scale::Full => full,
        }
    }

    /// Does the part that was asked for of `count` pieces of work, on the cores there are.
    pub fn spread(&self, count: u64, work: impl Fn(u64) + Sync) {
        let end = count * self.part / self.parts;
        let next = AtomicU64::new(count * (self.part - 1) / self.parts);
        let mutants = mutant::inherit();
        let run = || {
            mutants.take_over();
            let said = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    if at >= end {
                        return;
                    }
                    work(at);
                }
            }));
            said.inspect_err(|_| next.store(end, Ordering::Relaxed))
        };
        if self.threads == 1 {
            return run().unwrap_or_else(|panic| resume_unwind(panic));
        }
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..self.threads).map(|_| scope.spawn(run)).collect();
            for thread in threads {
                thread.join().expect("panics are caught").unwrap_or_else(|panic| resume_unwind(panic));
            }
        });
    }
}

/// Runs a row and says what it did; it did at least so much, in each of the scales.
pub fn prove(row: &str, run: impl Fn(&Proof), least: [u64; 3]) {
    let proof = Proof::asked_for();
    let begin = Instant::now();
    run(&proof);
    let (cases, seconds) = (proof.cases(), begin.elapsed().as_secs_f64());
    let part = if proof.parts == 1 { String::new() } else { format!(" part={}/{}", proof.part, proof.parts) };
    println!("{row:<4} cases={cases} seconds={seconds:.1} violations=0{part}");
    let least = proof.pick(least[0], least[1], least[2]) / proof.parts / if proof.parts == 1 { 1 } else { 2 };
    assert!(cases >= least, "{row}: {cases} cases, and {least} were wanted");
}
