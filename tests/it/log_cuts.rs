//! The log by itself under cuts of power: a process appends to a [`trilith::wal::Wal`] from several threads, the power
//! goes, another process opens what is left.
//!
//! ```text
//!   the process: given 7 ─▶ append ─▶ Pending::wait ─▶ durable 7          ext4, shut down by the kernel
//!        │ socket                                        on               the disk that forgets (forgetful.rs)
//!        ▼
//!   the test: the state of each group after its call 0, 1, 2, ...   ◀── compared ──   what the next process reads
//! ```
//!
//! Each group has one thread, so its calls have an order: after a cut the group is exactly as it was after one of its
//! calls, the last that was acknowledged or a later one, to the byte (oracles A and F of docs/testing.md). Lives without
//! load, and cuts in the midst of a recovery, show that to recover twice is to recover once (G).

mod ground;
mod life;
mod load;
mod process;
mod trial;

use std::time::{Duration, Instant};

use trilith::disk::{Backend, Runtime};
use trilith::sim::disk::Code;

use crate::forgetful::{self, Fault, Plan, When};
use crate::power_cut::{self, Frozen};
use crate::processes::{beside_one, skip};
use ground::{Ground, OnExt4, OnForgetful};
use life::Life;
use process::DISK_FAILED;
use trial::Trial;

/// Another one by command: `TRILITH_TEST_SEED`.
const SEED: u64 = 1;
/// Cuts of one log, before another begins.
const CUTS_PER_LOG: u64 = 25;
/// How long a log may take to see that its disk hangs.
const HANG: Duration = Duration::from_secs(45);

#[test]
fn a_log_loses_nothing_when_ext4_loses_its_power() {
    on_ext4("uring", 20);
    on_ext4("blocking", 20);
}

#[test]
#[ignore = "long: cargo test --test it log_cuts -- --ignored --nocapture"]
fn a_log_on_ext4_with_200_cuts_of_each_back_end() {
    on_ext4("uring", 200);
    on_ext4("blocking", 200);
}

#[test]
fn a_log_loses_nothing_on_a_disk_that_forgets() {
    on_forgetful("uring", true, 50);
    on_forgetful("blocking", true, 30);
    on_forgetful("blocking", false, 20);
}

#[test]
#[ignore = "long: cargo test --test it log_cuts -- --ignored --nocapture"]
fn a_log_on_a_disk_that_forgets_with_500_cuts_of_each_back_end() {
    on_forgetful("uring", true, 500);
    on_forgetful("blocking", true, 500);
    on_forgetful("blocking", false, 500);
}

#[test]
fn a_log_whose_write_fails_acknowledges_nothing_after_it() {
    for io in ["uring", "blocking"] {
        for sync in ["dsync", "fdatasync"] {
            for code in [Code::Io, Code::NoSpace] {
                fail(io, sync, Fault::Fails(code));
            }
        }
    }
}

#[test]
#[ignore = "waits 30 s for each back end: cargo test --test it log_cuts -- --ignored --nocapture"]
fn a_log_whose_disk_hangs_says_so() {
    fail("blocking", "dsync", Fault::Hangs);
    // Under FUSE the kernel holds the thread that hands a write to the ring, instead of taking the write.
    for io in ["uring", "blocking"] {
        freeze(io);
    }
}

/// Why this back end is not to be had here, if so.
fn no_back_end(io: &str) -> Option<String> {
    let ring = || Runtime::new(Backend::Uring).err().map(|error| error.to_string());
    if io == "uring" { ring() } else { None }
}

fn seed() -> u64 {
    std::env::var("TRILITH_TEST_SEED").map_or(SEED, |seed| seed.parse().expect("TRILITH_TEST_SEED is a number"))
}

fn on_ext4(io: &'static str, cuts: u64) {
    let _share = beside_one();
    if let Some((reason, needs)) = power_cut::obstacle() {
        return skip("log_cuts on ext4", &reason, &needs);
    }
    if let Some(reason) = no_back_end(io) {
        return skip("log_cuts on ext4, io_uring", &reason, "");
    }
    cut_the_power(io, cuts, OnExt4::make);
}

fn on_forgetful(io: &'static str, is_direct: bool, cuts: u64) {
    let _share = beside_one();
    if let Some((reason, needs)) = forgetful::obstacle() {
        return skip("log_cuts on a disk that forgets", &reason, &needs);
    }
    if let Some(reason) = no_back_end(io) {
        return skip("log_cuts on a disk that forgets, io_uring", &reason, "");
    }
    cut_the_power(io, cuts, |seed| OnForgetful::make(seed, is_direct, io == "blocking"));
}

fn cut_the_power<G: Ground>(io: &'static str, cuts: u64, ground: impl Fn(u64) -> G) {
    let begin = Instant::now();
    let (mut done, mut acknowledged, mut in_recovery) = (0, 0, 0);
    for seed in seed().. {
        let mut trial = Trial::new(ground(seed), io, seed);
        for cut in 0..CUTS_PER_LOG.min(cuts - done) {
            trial.live(cut);
        }
        trial.look();
        trial.ground.cut();
        trial.ground.lose(u64::MAX);
        println!("log, {io}, seed {seed}: {:?}; {}", trial.seen, trial.ground.summary());
        done += trial.seen.cuts;
        acknowledged += trial.seen.acknowledged;
        in_recovery += trial.seen.cut_in_recovery;
        if done == cuts {
            break;
        }
    }
    println!(
        "log, {io}: {done} cuts, {in_recovery} in a recovery, {acknowledged} acknowledged calls, {:.1?}",
        begin.elapsed()
    );
    assert!(in_recovery > 0, "no cut fell into a recovery");
    assert!(acknowledged > cuts * 50, "{acknowledged} acknowledged calls in {cuts} cuts: there was a load");
}

/// A write of the hot path fails or hangs in the midst of a load.
fn fail(io: &'static str, sync: &'static str, fault: Fault) {
    let _share = beside_one();
    if let Some((reason, needs)) = forgetful::obstacle() {
        return skip("log_cuts with a disk that fails", &reason, &needs);
    }
    if let Some(reason) = no_back_end(io) {
        return skip("log_cuts with a disk that fails, io_uring", &reason, "");
    }
    let mut trial = made(OnForgetful::make(seed(), true, false), io);
    trial.sync = sync;
    let when = if sync == "dsync" { When::DurableWrite } else { When::Flush };
    trial.ground.on_with(Plan { fault: Some((when, 1500, fault)), ..trial.ground.calm() });
    let begin = Instant::now();
    let mut life = trial.start(true);
    life.wait("failure", |told| told.failed.is_some() || told.refused.is_some());
    assert!(begin.elapsed() < HANG);
    if fault == Fault::Hangs {
        // A process cannot end before its requests do.
        trial.ground.off();
        trial.ground.on();
    }
    failed(trial, life, &format!("{io}, {sync}, {fault:?}"));
}

/// The file system under a log stands still in the midst of a load.
fn freeze(io: &'static str) {
    let _share = beside_one();
    if let Some((reason, needs)) = power_cut::obstacle() {
        return skip("log_cuts on a frozen ext4", &reason, &needs);
    }
    if let Some(reason) = no_back_end(io) {
        return skip("log_cuts on a frozen ext4, io_uring", &reason, "");
    }
    let trial = made(OnExt4::make(seed()), io);
    let mut life = trial.start(true);
    life.wait("load", |told| told.acknowledged > 500 || told.failed.is_some() || told.refused.is_some());
    let begin = Instant::now();
    let frozen = Frozen::freeze(trial.ground.directory().parent().expect("it is mounted there"));
    life.wait("failure", |told| told.failed.is_some() || told.refused.is_some());
    assert!(begin.elapsed() < HANG);
    drop(frozen);
    failed(trial, life, &format!("{io}, frozen ext4"));
}

/// The making, which tries how fast the disk flushes, is no part of a trial.
fn made<G: Ground>(ground: G, io: &'static str) -> Trial<G> {
    let mut trial = Trial::new(ground, io, seed());
    trial.look();
    trial.ground.cut();
    trial.ground.lose(u64::MAX);
    trial
}

/// The process has told of the failure: it ends with 18, and what it had acknowledged is there.
fn failed<G: Ground>(mut trial: Trial<G>, mut life: Life, what: &str) {
    assert_eq!(life.end(), Some(DISK_FAILED), "{what}");
    let told = life.kill();
    assert_eq!(told.refused, None, "{what}");
    assert!(told.acknowledged > 100, "{what}: there was a load: {told:?}");
    println!("log, {what}: after {} acknowledged calls: {:?}", told.acknowledged, told.failed);
    trial.take(told);
    trial.ground.cut();
    trial.ground.lose(0);
    trial.look();
}
