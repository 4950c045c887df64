//! Random work, cut at a random point, with a random part of what was loose surviving: over and over on one log.

use std::sync::atomic::{AtomicU64, Ordering};

use super::model::Model;
use super::rig::{Rig, open, open_as, options};
use super::starts::Starts;
use crate::random::Random;
use crate::sim::proofs::Proof;
use crate::types::{GroupId, Index, Term};
use crate::wal::Options;

/// What one log goes through before another begins: so that it cannot grow without end.
const CYCLES_PER_LOG: u64 = 25;

fn work(rig: &mut Rig, random: &mut Random) {
    let group = GroupId(random.below(3) as u32);
    let state = rig.model.group(group);
    let last = state.last().index;
    match random.below(13) {
        0 if !state.entries.is_empty() => {
            let at = random.below(state.entries.len() as u64) as usize;
            rig.truncate(group, state.entries[at].id.index);
        }
        1 if !state.entries.is_empty() => {
            let at = random.below(state.entries.len() as u64) as usize;
            rig.purge(group, state.entries[at].id);
        }
        2 => rig.model.term = Term(rig.model.term.0 + 1),
        // Entries that end older ones.
        3 if state.entries.len() > 3 => {
            let keep = random.below(state.entries.len() as u64 - 1);
            let after = Index(state.before_first.index.0 + keep);
            let entries = rig.model.entries_behind(after, 1 + random.below(5), random.below(700) as usize);
            rig.model.term = Term(rig.model.term.0 + 1);
            let entries: Vec<_> =
                entries.into_iter().map(|own| super::model::entry(rig.model.term, own.id.index, 40)).collect();
            rig.append(group, &entries);
        }
        4..=5 => {
            let entries = rig.model.entries_behind(last, 1 + random.below(6), random.below(4000) as usize);
            rig.append(group, &entries);
        }
        6..=7 => {
            let entries = rig.model.entries_behind(last, 1 + random.below(3), random.below(200) as usize);
            rig.append(group, &entries);
        }
        8 => copy(rig, random),
        _ => rig.step(random),
    }
}

/// What is worth to be copied forward, or some groups whether they are worth it or not; other things happen while it is
/// read.
fn copy(rig: &mut Rig, random: &mut Random) {
    if random.chance(700) {
        let groups: Vec<GroupId> = (0..3).filter(|_| random.chance(500)).map(GroupId).collect();
        rig.log.copy_anyway(&groups);
    }
    while let Some(plan) = rig.log.take_copy() {
        let said = plan.run(&rig.files);
        for _ in 0..random.below(3) {
            rig.step(random);
        }
        if random.chance(100) {
            let last = rig.model.group(GroupId(1)).last().index;
            let entries = rig.model.entries_behind(last, 1, 30);
            rig.append(GroupId(1), &entries);
        }
        rig.log.copy_read(said);
    }
}

/// One cycle: work, a cut, and a recovery that is perhaps cut as well.
fn cycle(mut rig: Rig, random: &mut Random, (starts, copies): (&Starts, &AtomicU64)) -> Rig {
    for _ in 0..random.below(60) {
        work(&mut rig, random);
    }
    if random.chance(200) {
        rig.settle();
        rig.learn();
    }
    copies.fetch_add(rig.log.counters().copies, Ordering::Relaxed);
    if random.chance(100) {
        rig.disk.kill(random);
    } else {
        rig.disk.crash(random);
    }
    while random.chance(300) {
        rig.disk.crash_at(rig.disk.operations() + random.below(60));
        let start = rig.start();
        match open_as(&rig.disk, rig.log.options(), start) {
            Ok((log, _, found)) => {
                starts.opened(&log);
                assert!(rig.model.is_possible(&found), "{}", super::model::shown(&found));
            }
            Err(error) => {
                starts.cut(start);
                assert!(rig.disk.is_off(), "{start:?}: {error}");
            }
        }
        rig.disk.crash(random);
    }
    // Of one in eight, by what it wrote: it costs as much as all else.
    if rig.disk.operations().is_multiple_of(8) {
        super::seals::compare(&rig.disk, rig.log.options());
    }
    let rig = rig.reopened();
    starts.opened(&rig.log);
    rig
}

/// D2: cycles of random work, a cut of power at a random point and a random part of what is loose surviving.
pub fn cycles(proof: &Proof) {
    let starts = Starts::default();
    let logs = proof.pick(2_500, 100_000, 10_000_000) / CYCLES_PER_LOG;
    let copies = AtomicU64::new(0);
    proof.spread(logs, |log| {
        let seed = log + 1;
        let mut random = Random::seeded(seed);
        let options = Options { writes_in_flight: 1 + seed as usize % 4, seed, ..options() };
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let mut rig = Rig::new(options);
            for _ in 0..CYCLES_PER_LOG {
                rig = cycle(rig, &mut random, (&starts, &copies));
                proof.case();
            }
            rig.rest();
            rig.check();
        }));
        if let Err(panic) = result {
            println!("seed {seed}");
            std::panic::resume_unwind(panic);
        }
    });
    // Of a part of the logs, too.
    let (copies, logs) = (copies.into_inner(), proof.cases() / CYCLES_PER_LOG);
    assert!(copies >= logs, "{copies} copies in {logs} logs");
    starts.are_at_least(proof, [400, 150]);
}

/// The same without reads that go past the page cache, and with flushes that fail before the process ends.
#[test]
fn what_the_page_cache_alone_holds_is_not_taken_for_durable() {
    let mut kept = 0;
    for seed in 0..400 {
        let mut random = Random::seeded(seed);
        let mut rig = Rig::new(Options { writes_in_flight: 1 + seed as usize % 4, seed, ..options() });
        rig.disk.set_reads_past_cache(false);
        for _ in 0..random.below(80) {
            work(&mut rig, &mut random);
        }
        let failing = rig.disk.operations();
        let bytes = 512 * random.below(20);
        let failure = crate::sim::disk::Failure::Partial { bytes, error: crate::sim::disk::Code::Io };
        rig.disk.fail_at(failing, failure);
        for _ in 0..10 {
            work(&mut rig, &mut random);
        }
        rig.disk.kill(&mut random);
        rig.disk.clear_failures();
        let start = rig.start();
        let Rig { disk, mut model, log, .. } = rig;
        let (_, _, found) = match open_as(&disk, log.options(), start) {
            Ok(opened) => opened,
            Err(error) => panic!("seed {seed}: {error}"),
        };
        assert!(model.is_possible(&found), "seed {seed}");
        kept += usize::from(found == *model.state());
        // What was recovered counts from here on.
        model = Model { term: Term(model.term.0 + 1), ..Model::new(found) };
        disk.crash(&mut random);
        disk.set_reads_past_cache(random.chance(500));
        let (log, _, found) = open(&disk, log.options()).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        assert!(model.is_possible(&found), "seed {seed}: {}", super::model::shown(&found));
        let mut rig = Rig::with(disk, log, model);
        rig.grow(GroupId(0), 2, 300);
        rig.rest();
        rig.check();
    }
    assert!(kept > 20, "{kept}");
}
