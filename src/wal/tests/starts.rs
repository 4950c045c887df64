//! Starts by seals in the proofs: how many there were, and what one owes where the log is damaged.

use std::sync::atomic::{AtomicU64, Ordering};

use super::model::State;
use super::rig::Start;
use crate::disk::Files;
use crate::sim::disk::SimDisk;
use crate::sim::proofs::Proof;
use crate::types::Place;
use crate::wal::{Error, GroupLog, Log, Options, Reading, Severity};

/// Starts that mattered: they took a segment by its seal, or were cut off.
#[derive(Default)]
pub struct Starts {
    taken: AtomicU64,
    cut: AtomicU64,
}

impl Starts {
    /// A log is open.
    pub fn opened(&self, log: &Log) {
        let is_taken = log.locator.segments().any(|segment| !segment.is_verified);
        self.taken.fetch_add(u64::from(is_taken), Ordering::Relaxed);
    }

    /// The power went while a log was opened so.
    pub fn cut(&self, start: Start) {
        self.cut.fetch_add(u64::from(start.reading == Reading::BySeals), Ordering::Relaxed);
    }

    /// To a thousand cases so many starts took a segment by its seal, and so many were cut off.
    pub fn are_at_least(&self, proof: &Proof, [taken_min, cut_min]: [u64; 2]) {
        let [taken, cut] = [&self.taken, &self.cut].map(|count| count.load(Ordering::Relaxed));
        let cases = proof.cases();
        println!("     by seals: {taken} starts took a segment in, {cut} were cut");
        // A part may have none of the work in which segments come to be.
        let are_enough = taken * 1000 >= cases * taken_min && cut * 1000 >= cases * cut_min;
        assert!(proof.is_part() || are_enough, "{taken} and {cut} of {cases}");
    }
}

/// A damaged log is opened by its seals. It is refused, and then by whoever reads everything, too; or each entry that it
/// gives is the one that was written, and where it gives none it says why, and whoever verifies it is told of the damage.
/// Gives whether it opened.
pub fn is_honest(
    damaged: &SimDisk,
    (options, evidence): (&Options, Place),
    (state, is_refused): (&State, bool),
    what: &dyn Fn() -> String,
) -> bool {
    let fork = damaged.fork();
    let files = fork.files();
    let log = match Log::open_reading(&files, options.clone(), (evidence, Reading::BySeals), 1) {
        Ok((log, _)) => log,
        Err(Error::Damaged(_) | Error::NewerFormat { .. }) if is_refused => return false,
        Err(error) => panic!("{}, by seals: {error}", what()),
    };
    let missing = entries_missing(&files, &log, state, what);
    let is_told = log
        .extent()
        .check(&files)
        .map_or(true, |checked| checked.findings.iter().any(|finding| finding.severity >= Severity::Unclear));
    assert_eq!(is_told, is_refused, "{}, by seals: what a verify says", what());
    assert!(missing == 0 || is_refused, "{}, by seals: {missing} entries are missing", what());
    true
}

/// Reads everything: each entry is as in the model, or an error stands in its place. Gives the number of errors.
fn entries_missing<F: Files>(files: &F, log: &Log, state: &State, what: &dyn Fn() -> String) -> usize {
    let names = |group: &GroupLog| (group.group, group.before_first, group.last);
    let expected = state.iter().map(|(&group, own)| (group, own.before_first, own.last()));
    assert!(log.groups().map(names).eq(expected), "{}, by seals: the names", what());
    let mut missing = 0;
    for group in log.groups() {
        let mut rest = state[&group.group].entries.as_slice();
        while let Some(first) = rest.first() {
            let (from, end) = (first.id.index, group.last.index.next());
            match log.plan_read(group.group, from, end, 1 << 30).run(files) {
                Ok(found) => {
                    assert!(!found.is_empty() && rest.starts_with(&found), "{}, by seals: wrong data", what());
                    rest = &rest[found.len()..];
                }
                Err(Error::Damaged(_) | Error::Disk(_)) => {
                    missing += 1;
                    rest = &rest[1..];
                }
                Err(error) => panic!("{}, by seals: {error}", what()),
            }
        }
    }
    missing
}
