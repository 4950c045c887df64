//! The calls of openraft's suite, and longer ones, again on the simulated disk, with the power cut at each I/O: what
//! openraft was told is there, and what was truncated or purged does not come back.

use openraft::Vote;

use super::recorder::Call;
use super::rig::{Model, Rig, open};
use super::suite::recording;
use super::{entry, id};
use crate::random::Random;
use crate::sim::disk::SimDisk;

/// How calls follow each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Pace {
    /// As openraft 0.9 does: the next call when the one before was told.
    Waiting,
    /// As its contract allows for appends: calls follow before anything is durable; the seed says what completes.
    Ahead(u64),
}

fn run(calls: &[Call], pace: Pace, cut: Option<u64>) -> (Rig, u64) {
    let mut rig = Rig::new();
    let before = rig.disk.operations();
    if let Some(cut) = cut {
        rig.disk.crash_at(before + cut);
    }
    let mut random = Random::seeded(match pace {
        Pace::Waiting => 0,
        Pace::Ahead(seed) => seed,
    });
    for call in calls {
        if rig.disk.is_off() {
            break;
        }
        rig.call(call);
        match pace {
            Pace::Waiting => rig.settle(),
            Pace::Ahead(_) => (0..random.below(3)).for_each(|_| rig.step(&mut random)),
        }
    }
    rig.settle();
    let operations = rig.disk.operations() - before;
    (rig, operations)
}

/// After a cut: a state that may be found, the same when found again, and one to go on from.
fn check(disk: SimDisk, model: &Model, what: &dyn Fn() -> String) {
    let mut rig = open(disk).unwrap_or_else(|error| panic!("{}: {error}", what()));
    let found = rig.model.last().clone();
    let possible = &model.states[model.told..];
    assert!(possible.contains(&found), "{}: {found:?}\nis none of {possible:?}", what());
    let term = found.last().map_or(1, |last| last.leader_id.term + 1);
    let index = rig.next_index();
    rig.call(&Call::SaveVote(Vote::new(term, 9)));
    rig.call(&Call::Append(vec![entry(id(term, 9, index), "after the cut")]));
    rig.settle();
    let expected = rig.model.last().clone();
    assert_eq!(rig.model.told, rig.model.states.len() - 1, "{}: all of it was told", what());
    rig.disk.crash_to(&vec![0; rig.disk.loose().len()]);
    let again = open(rig.disk).unwrap_or_else(|error| panic!("{}: {error}", what()));
    assert_eq!(*again.model.last(), expected, "{}", what());
}

/// Cuts the power at each I/O, and loses what is loose: all, nothing, and `samples` mixtures.
fn cut_at_each_operation(calls: &[Call], pace: Pace, samples: u64, name: &str) -> u64 {
    let (rig, operations) = run(calls, pace, None);
    assert_eq!(rig.model.told, rig.model.states.len() - 1, "without a cut all is told");
    assert_eq!(rig.found().unwrap(), *rig.model.last());
    let mut random = Random::seeded(5);
    let mut cases = 0;
    for cut in 0..=operations {
        let (rig, _) = run(calls, pace, Some(cut));
        let Rig { disk, model, .. } = rig;
        for sample in 0..2 + samples {
            let fork = disk.fork();
            match sample {
                0 => fork.crash_to(&vec![0; fork.loose().len()]),
                1 => fork.crash_with(&mut |loose| loose.outcomes - 1),
                _ => fork.crash(&mut random),
            }
            check(fork, &model, &|| format!("{name}, {pace:?}, cut at {cut} of {operations}, sample {sample}"));
            cases += 1;
        }
    }
    cases
}

#[test]
fn what_the_suite_was_told_survives_a_power_cut_at_each_operation() {
    let mut cases = 0;
    for (at, calls) in recording().iter().enumerate() {
        cases += cut_at_each_operation(calls, Pace::Waiting, 1, &format!("storage {at}"));
        cases += cut_at_each_operation(calls, Pace::Ahead(at as u64), 1, &format!("storage {at}"));
    }
    println!("{} storages, {cases} cases", recording().len());
    assert!(cases > 2_000, "{cases}");
}

/// Calls such as openraft makes: leaders that follow each other, conflicts, snapshots.
fn calls(seed: u64, count: usize) -> Vec<Call> {
    let mut random = Random::seeded(seed);
    let mut calls = Vec::new();
    let (mut term, mut next, mut committed, mut purged_next) = (1, 0u64, 0u64, 0u64);
    let mut names = Vec::new();
    while calls.len() < count {
        match random.below(8) {
            0 => {
                term += 1;
                calls.push(Call::SaveVote(Vote::new(term, random.below(3))));
            }
            1 if next > committed => {
                let from = committed + random.below(next - committed);
                calls.push(Call::Truncate(names[from as usize]));
                names.truncate(from as usize);
                next = from;
                term += 1;
            }
            2 if next > committed => {
                committed += 1 + random.below(next - committed);
                calls.push(Call::SaveCommitted(Some(names[committed as usize - 1])));
            }
            3 if committed > purged_next => {
                purged_next += 1 + random.below(committed - purged_next);
                calls.push(Call::Purge(names[purged_next as usize - 1]));
            }
            4 if random.below(6) == 0 => {
                // A snapshot of another leader is installed over what conflicts, or lies beyond the end.
                term += 1;
                let last = id(term, 1, committed + random.below(next - committed + 3));
                names.resize(last.index as usize, last);
                names.push(last);
                (next, committed, purged_next) = (last.index + 1, last.index + 1, last.index + 1);
                calls.push(Call::Purge(last));
            }
            _ => {
                let count = 1 + random.below(4);
                let text = "-".repeat(random.below(4_000) as usize);
                let batch = (next..next + count).map(|index| entry(id(term, 1, index), text.clone()));
                let batch: Vec<_> = batch.collect();
                names.extend(batch.iter().map(|entry| entry.log_id));
                next += count;
                calls.push(Call::Append(batch));
            }
        }
    }
    calls
}

#[test]
fn what_longer_lives_were_told_survives_a_power_cut_at_each_operation() {
    assert!(cut_lives(20) > 4_000);
}

#[test]
#[ignore = "minutes: two hundred lives"]
fn what_many_lives_were_told_survives_a_power_cut_at_each_operation() {
    assert!(cut_lives(200) > 40_000);
}

fn cut_lives(seeds: u64) -> u64 {
    let mut cases = 0;
    for seed in 0..seeds {
        let calls = calls(seed, 40);
        let pace = if seed.is_multiple_of(2) { Pace::Waiting } else { Pace::Ahead(seed) };
        cases += cut_at_each_operation(&calls, pace, 2, &format!("life {seed}"));
    }
    println!("{seeds} lives, {cases} cases");
    cases
}
