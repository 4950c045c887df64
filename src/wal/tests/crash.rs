//! Bounded-exhaustive: short sequences of operations, the power cut at each I/O, and what is loose lost in each way.
//!
//! To install a snapshot is an operation of the node, in an order that it keeps: the snapshot durable under its name, the
//! superblock that names it, the log that begins behind it. Here that order is kept in its place, on the same disk; what the
//! log does for it, to begin behind an entry that it does not have, is looked at by itself, too.

use super::installed;
use super::model::Model;
use super::rig::{G, Rig, Start, open_as, options};
use super::starts::Starts;
use super::voter::Voter;
use crate::random::Random;
use crate::sim::disk::SimDisk;
use crate::sim::proofs::Proof;
use crate::superblock;
use crate::types::{Index, LogId, Place, Term};
use crate::wal::Options;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    Small,
    Large,
    Flush,
    Rotate,
    Truncate,
    Purge,
    Vote,
    /// Forward, of what alone keeps the oldest segment.
    Copy,
    /// Of a snapshot beyond the log's end, which begins behind it then.
    Install,
    /// The log begins behind an entry in whose place it has another one.
    BeginDiffering,
    /// The log begins behind an entry beyond its end.
    BeginBeyond,
}

const STEPS: [Step; 9] = [
    Step::Small,
    Step::Large,
    Step::Flush,
    Step::Rotate,
    Step::Truncate,
    Step::Purge,
    Step::Vote,
    Step::Copy,
    Step::Install,
];

/// A log and a superblock on one disk.
struct Life {
    rig: Rig,
    voter: Voter,
}

fn sequences() -> Vec<Vec<Step>> {
    let mut all: Vec<Vec<Step>> = vec![vec![]];
    let mut longest = all.clone();
    for _ in 0..3 {
        let longer = longest.iter().flat_map(|before| {
            STEPS.iter().map(move |&step| before.iter().copied().chain([step]).collect::<Vec<Step>>())
        });
        longest = longer.collect();
        all.extend(longest.clone());
    }
    all.remove(0);
    all
}

fn perform(Life { rig, voter }: &mut Life, step: Step) {
    match step {
        Step::Small => rig.grow(G, 1, 50),
        Step::Large => rig.grow(G, 3, 3000),
        Step::Flush => {
            rig.settle();
            voter.settle(&rig.disk);
        }
        Step::Rotate => rig.rotate(G),
        Step::Truncate => {
            let group = rig.model.group(G);
            let from = group.last().index.0.saturating_sub(1).max(group.before_first.index.0 + 1);
            rig.truncate(G, Index(from));
        }
        Step::Purge => {
            let group = rig.model.group(G);
            if let Some(entry) = group.entries.get(group.entries.len() / 2) {
                rig.purge(G, entry.id);
            }
        }
        Step::Vote => voter.save_with(rig.log.durable_end()),
        Step::Copy => rig.copy(),
        Step::Install => {
            let point = LogId::new(Term(rig.model.term.0 + 1), rig.model.group(G).last().index.plus(2));
            if installed::make(&rig.disk, point) && voter.install(&rig.disk, point) {
                begin_behind(rig, point.index);
            }
        }
        Step::BeginDiffering => {
            let group = rig.model.group(G);
            let index = group.entries.get(group.entries.len() / 2).map_or(group.last().index, |entry| entry.id.index);
            begin_behind(rig, index);
        }
        Step::BeginBeyond => begin_behind(rig, rig.model.group(G).last().index.plus(2)),
    }
    rig.pump();
    voter.take();
    voter.follow(&rig.disk, rig.log.durable_end());
}

/// Behind an entry of a later term.
fn begin_behind(rig: &mut Rig, index: Index) {
    rig.model.term = Term(rig.model.term.0 + 1);
    rig.purge(G, LogId::new(rig.model.term, index));
}

/// A log with a little in it, at rest, and a superblock. Where something is to be copied there is what is worth it.
fn base(copies: bool) -> Life {
    let options = Options { writes_in_flight: 2, ..options() };
    let mut rig = if copies { super::copying::pinned(options) } else { Rig::new(options) };
    let voter = Voter::new(&rig.disk);
    rig.grow(G, 2, 600);
    rig.settle();
    Life { rig, voter }
}

fn run(steps: &[Step], cut: Option<u64>) -> (Life, u64) {
    let mut life = base(steps.contains(&Step::Copy));
    let before = life.rig.disk.operations();
    if let Some(cut) = cut {
        life.rig.disk.crash_at(before + cut);
    }
    for &step in steps {
        perform(&mut life, step);
    }
    let operations = life.rig.disk.operations() - before;
    (life, operations)
}

/// Each way to lose what is loose if they are few, else a sample; calls `each` with the disk afterwards.
pub fn cuts(disk: &SimDisk, most: u64, random: &mut Random, mut each: impl FnMut(SimDisk)) {
    let loose = disk.loose();
    let all: u64 =
        loose.iter().try_fold(1u64, |product, one| product.checked_mul(one.outcomes as u64)).unwrap_or(u64::MAX);
    let count = all.min(most);
    for at in 0..count {
        let fork = disk.fork();
        if all <= most {
            let mut rest = at;
            let outcomes: Vec<usize> = loose
                .iter()
                .map(|one| {
                    let outcome = rest % one.outcomes as u64;
                    rest /= one.outcomes as u64;
                    outcome as usize
                })
                .collect();
            fork.crash_to(&outcomes);
        } else {
            fork.crash(random);
        }
        each(fork);
    }
}

/// What survives is a state that may be; to recover again gives the same; and the log can be written on. It is opened
/// with what the superblock on the disk says, or with nothing, by seals or whole: drawn, by what the disk has done.
fn check(disk: SimDisk, (model, options, starts): (&Model, &Options, &Starts), what: &dyn Fn() -> String) {
    // Of one in eight, by what it wrote.
    if disk.operations().is_multiple_of(8) {
        super::seals::compare(&disk, options);
    }
    let start = Start::drawn(&[superblock_of(&disk)], &mut Random::seeded(disk.operations()));
    let opened = open_as(&disk, options, start);
    let (log, _, found) = opened.unwrap_or_else(|error| panic!("{}, {start:?}: {error}", what()));
    starts.opened(&log);
    assert!(model.is_possible(&found), "{}, {start:?}: {}", what(), super::model::shown(&found));
    let mut rig = Rig::with(disk, log, Model { term: model.term.max(Term(2)), ..Model::new(found) });
    rig.grow(G, 1, 40);
    rig.pump();
    rig.disk.complete_all();
    rig.take();
    rig.disk.crash_to(&vec![0; rig.disk.loose().len()]);
    rig.reopened();
}

/// Where the log was durable, as the superblock says.
fn superblock_of(disk: &SimDisk) -> Place {
    superblock::inspect(&disk.files()).expect("it is intact").state.durable_end
}

/// A recovery that is cut at each of its own operations changes nothing of what it finds.
fn check_interrupted(
    disk: &SimDisk,
    known: (&Model, &Options, &Starts),
    random: &mut Random,
    what: &dyn Fn() -> String,
) {
    let (_, options, starts) = known;
    let start = Start::drawn(&[superblock_of(disk)], random);
    for at in 0..40 {
        let fork = disk.fork();
        fork.crash_at(fork.operations() + at);
        if open_as(&fork, options, start).is_ok() {
            return;
        }
        starts.cut(start);
        fork.crash(random);
        check(fork, known, what);
    }
}

/// Whether a step is sure to find something to copy, and nothing in its way.
fn is_copied(steps: &[Step]) -> bool {
    steps.first() == Some(&Step::Copy)
}

/// D1: all sequences of up to three operations, with the power cut at each I/O; of what is loose then every subset if
/// there are up to 2^8 of them, else a sample of as many. A share takes a smaller sample of all of it.
pub fn short_sequences(proof: &Proof) {
    let options = Options { writes_in_flight: 2, ..options() };
    let (sequences, starts) = (sequences(), Starts::default());
    assert_eq!(sequences.len(), 9 + 81 + 729);
    let most = proof.pick(6, 36, 256);
    proof.spread(sequences.len() as u64, |at| {
        let steps = &sequences[at as usize];
        let mut random = Random::seeded(at);
        let (Life { mut rig, .. }, operations) = run(steps, None);
        rig.settle();
        assert!(rig.log.counters().copies > 0 || !is_copied(steps), "{steps:?}");
        for cut in 0..=operations {
            let (Life { rig, voter }, _) = run(steps, (cut < operations).then_some(cut));
            let Rig { disk, model, .. } = rig;
            let what = || format!("{steps:?} cut at {cut}");
            cuts(&disk, most, &mut random, |fork| {
                voter.check(&fork, &what);
                installed::check(&fork, (&options, &voter.installs), &what);
                check(fork, (&model, &options, &starts), &what);
                proof.case();
            });
            if (cut + at).is_multiple_of(6) {
                disk.crash(&mut random);
                check_interrupted(&disk, (&model, &options, &starts), &mut random, &what);
            }
        }
    });
    starts.are_at_least(proof, [20, 8]);
}

/// A log that is to begin behind an entry which it does not have, with the power cut at each I/O: what is found is the log
/// of before, or that log up to the entry before, or one that is empty and begins there, and can be written on. Never what
/// lay behind an entry that is another one now.
pub fn beginnings_behind_another_entry(proof: &Proof) {
    let options = Options { writes_in_flight: 2, ..options() };
    let starts = Starts::default();
    for before in [&[][..], &[Step::Large], &[Step::Rotate, Step::Small], &[Step::Purge, Step::Large]] {
        for begin in [Step::BeginDiffering, Step::BeginBeyond] {
            for after in [&[][..], &[Step::Flush], &[Step::Small, Step::Flush], &[Step::Flush, Step::Rotate]] {
                let steps: Vec<Step> = before.iter().chain([&begin]).chain(after).copied().collect();
                let mut random = Random::seeded(proof.cases());
                let (Life { mut rig, .. }, operations) = run(&steps, None);
                rig.settle();
                let state = rig.model.group(G);
                assert!(state.before_first.term > Term(1) && state.entries.iter().all(|it| it.id.term > Term(1)));
                for cut in 0..=operations {
                    let (Life { rig, .. }, _) = run(&steps, (cut < operations).then_some(cut));
                    let Rig { disk, model, .. } = rig;
                    let what = || format!("{steps:?} cut at {cut}");
                    cuts(&disk, 8, &mut random, |fork| {
                        check(fork, (&model, &options, &starts), &what);
                        proof.case();
                    });
                }
            }
        }
    }
}

#[test]
fn a_log_that_begins_behind_another_entry_has_nothing_of_the_old_one() {
    let proof = Proof::in_order();
    beginnings_behind_another_entry(&proof);
    assert!(proof.cases() > 1_000, "{} cases", proof.cases());
}
