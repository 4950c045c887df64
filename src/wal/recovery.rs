//! What a damaged frame means: the table by which every fault is judged.
//!
//! Three things decide. **What stands there** ([`Fault`]). **Where** ([`Site`]): before an end that a later segment
//! names, at the end of the log, or where a segment's open frame should be. And whether there is **evidence** that it
//! had been on disk: a durable end, carried by a later intact head, by an open frame or by the superblock, that covers
//! it ([`Evidence`]).
//!
//! The rule behind the rows: what is covered had been durable, so any fault in it is damage. What is not covered and
//! holds sectors that were never written is a write that the power interrupted, so it was never acknowledged. What is
//! neither could have been either; nobody may guess, so it is treated as damage and said to be unclear.

use crate::mutant::{self, Mutant};

/// What stands where a frame should begin.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Fault {
    /// A valid frame.
    Intact,
    /// Zeros from here to the end of the segment.
    Nothing,
    /// The sector of the head is zero, and something stands behind it.
    HeadUnwritten,
    /// The head's sector is not zero and holds no head of this place.
    HeadDamaged,
    /// The head is intact, the body is not, and more of its sectors are zero than were written as zeros.
    BodyUnwritten,
    /// The head is intact, the body is not, and every sector of it was written.
    BodyDamaged,
    /// The disk gives an error instead of bytes.
    Unreadable,
}

/// Where it stands.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Site {
    /// In a segment whose end a later open frame names, before that end.
    Within,
    /// In the last segment of the chain, behind its open frame.
    Tail,
    /// Where the open frame of a segment should be that no later one names as its predecessor.
    Open,
}

/// Whether something later shows that the place had been durable.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Evidence {
    Covered,
    Uncovered,
}

/// What follows.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Verdict {
    /// Take it and go on behind it.
    Accept,
    /// The log ends here, cleanly.
    End,
    /// The log ends here; what stands here and behind was never acknowledged. Keep the bytes aside, go on in a new
    /// segment.
    Torn,
    /// This segment never joined the chain: zero it again under a new number.
    NotJoined,
    /// It had been acknowledged, or may have been read as if: never cut, never skipped.
    Corrupt,
    /// Not proven either way: as corrupt.
    Unclear,
}

/// A row of the table: `None` stands for each value.
struct Row {
    fault: Option<Fault>,
    site: Option<Site>,
    evidence: Option<Evidence>,
    verdict: Verdict,
}

const fn row(fault: Option<Fault>, site: Option<Site>, evidence: Option<Evidence>, verdict: Verdict) -> Row {
    Row { fault, site, evidence, verdict }
}

use Evidence::{Covered, Uncovered};
use Fault::{BodyDamaged, BodyUnwritten, HeadDamaged, HeadUnwritten, Intact, Nothing, Unreadable};
use Site::{Open, Tail, Within};
use Verdict::{Accept, Corrupt, End, NotJoined, Torn, Unclear};

/// Exactly one row matches each input; the test walks them all.
const TABLE: &[Row] = &[
    row(Some(Intact), None, None, Accept),
    // Within a segment that was ended by a later one every frame was durable: rotation is two barriers.
    row(Some(Nothing), Some(Within), None, Corrupt),
    row(Some(HeadUnwritten), Some(Within), None, Corrupt),
    row(Some(HeadDamaged), Some(Within), None, Corrupt),
    row(Some(BodyUnwritten), Some(Within), None, Corrupt),
    row(Some(BodyDamaged), Some(Within), None, Corrupt),
    row(Some(Unreadable), Some(Within), None, Corrupt),
    // At the end of the log.
    row(Some(Nothing), Some(Tail), Some(Uncovered), End),
    row(Some(HeadUnwritten), Some(Tail), Some(Uncovered), Torn),
    row(Some(BodyUnwritten), Some(Tail), Some(Uncovered), Torn),
    row(Some(HeadDamaged), Some(Tail), Some(Uncovered), Unclear),
    row(Some(BodyDamaged), Some(Tail), Some(Uncovered), Unclear),
    row(Some(Unreadable), Some(Tail), Some(Uncovered), Unclear),
    row(Some(Nothing), Some(Tail), Some(Covered), Corrupt),
    row(Some(HeadUnwritten), Some(Tail), Some(Covered), Corrupt),
    row(Some(HeadDamaged), Some(Tail), Some(Covered), Corrupt),
    row(Some(BodyUnwritten), Some(Tail), Some(Covered), Corrupt),
    row(Some(BodyDamaged), Some(Tail), Some(Covered), Corrupt),
    row(Some(Unreadable), Some(Tail), Some(Covered), Corrupt),
    // Where a segment would join the chain. Its open frame is written alone.
    row(Some(Nothing), Some(Open), Some(Uncovered), NotJoined),
    row(Some(HeadUnwritten), Some(Open), Some(Uncovered), NotJoined),
    row(Some(BodyUnwritten), Some(Open), Some(Uncovered), NotJoined),
    row(Some(HeadDamaged), Some(Open), Some(Uncovered), Unclear),
    row(Some(BodyDamaged), Some(Open), Some(Uncovered), Unclear),
    row(Some(Unreadable), Some(Open), Some(Uncovered), Unclear),
    row(Some(Nothing), Some(Open), Some(Covered), Corrupt),
    row(Some(HeadUnwritten), Some(Open), Some(Covered), Corrupt),
    row(Some(HeadDamaged), Some(Open), Some(Covered), Corrupt),
    row(Some(BodyUnwritten), Some(Open), Some(Covered), Corrupt),
    row(Some(BodyDamaged), Some(Open), Some(Covered), Corrupt),
    row(Some(Unreadable), Some(Open), Some(Covered), Corrupt),
];

/// What follows from what was found. Panics if the table has not exactly one row for it; the test shows that it has.
pub fn judge(fault: Fault, site: Site, evidence: Evidence) -> Verdict {
    let mut rows = TABLE.iter().filter(|row| row.matches(fault, site, evidence));
    let row = rows.next().expect("the table has a row for each input");
    assert!(rows.next().is_none(), "the table has one row for each input");
    match row.verdict {
        Corrupt if site == Tail && mutant::is_on(Mutant::DurableTailCut) => Torn,
        Corrupt if site == Tail && fault == Nothing && mutant::is_on(Mutant::ZerosAccepted) => End,
        verdict => verdict,
    }
}

impl Row {
    fn matches(&self, fault: Fault, site: Site, evidence: Evidence) -> bool {
        self.fault.is_none_or(|own| own == fault)
            && self.site.is_none_or(|own| own == site)
            && self.evidence.is_none_or(|own| own == evidence)
    }
}

/// Every input of the table, for its test.
#[cfg(test)]
pub(super) const ALL_FAULTS: [Fault; 7] =
    [Intact, Nothing, HeadUnwritten, HeadDamaged, BodyUnwritten, BodyDamaged, Unreadable];
#[cfg(test)]
pub(super) const ALL_SITES: [Site; 3] = [Within, Tail, Open];
#[cfg(test)]
pub(super) const ALL_EVIDENCE: [Evidence; 2] = [Covered, Uncovered];
