//! What a damaged frame means: the table by which every fault is judged.
//!
//! Three things decide. **What stands there** ([`Fault`]). **Where** ([`Site`]): before an end that a later segment
//! names, at the end of the log, or where a segment's open frame should be. And whether there is **evidence** that it
//! had been on disk: a durable end, carried by a later intact head, by an open frame or by the superblock, that covers
//! it ([`Evidence`]).
//!
//! The table says two things: what follows ([`Verdict`]), and whether it had been acknowledged ([`Acknowledged`]).
//!
//! The rule behind the rows: what is covered had been durable, so any fault in it is damage. What is not covered and
//! holds sectors that were never written is a write that the power interrupted, so it was never acknowledged. What is
//! neither could have been either; nobody may guess, so it is treated as damage and said to be unclear.

use std::fmt;

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

/// Whether somebody may have been told that what stands there, or stood there, is on disk. As far as can be known: a
/// frame that was durable may have been acknowledged at once, so it counts as if it had been.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Acknowledged {
    /// Something later shows that it had been durable.
    Yes,
    /// By the fault model it had not: the power went before it was whole, or nothing was ever written there.
    No,
    /// Nothing shows the one or the other.
    Unknown,
}

/// What the table says.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Judgement {
    pub verdict: Verdict,
    pub acknowledged: Acknowledged,
}

/// A row of the table: `None` stands for each value.
struct Row {
    fault: Option<Fault>,
    site: Option<Site>,
    evidence: Option<Evidence>,
    judgement: Judgement,
}

const fn row(
    (fault, site, evidence): (Option<Fault>, Option<Site>, Option<Evidence>),
    verdict: Verdict,
    acknowledged: Acknowledged,
) -> Row {
    Row { fault, site, evidence, judgement: Judgement { verdict, acknowledged } }
}

use Acknowledged::{No, Unknown, Yes};
use Evidence::{Covered, Uncovered};
use Fault::{BodyDamaged, BodyUnwritten, HeadDamaged, HeadUnwritten, Intact, Nothing, Unreadable};
use Site::{Open, Tail, Within};
use Verdict::{Accept, Corrupt, End, NotJoined, Torn, Unclear};

/// Exactly one row matches each input; the test walks them all.
const TABLE: &[Row] = &[
    row((Some(Intact), Some(Within), None), Accept, Yes),
    row((Some(Intact), Some(Tail), Some(Covered)), Accept, Yes),
    row((Some(Intact), Some(Open), Some(Covered)), Accept, Yes),
    row((Some(Intact), Some(Tail), Some(Uncovered)), Accept, Unknown),
    row((Some(Intact), Some(Open), Some(Uncovered)), Accept, Unknown),
    // Within a segment that was ended by a later one every frame was durable: rotation is two barriers.
    row((Some(Nothing), Some(Within), None), Corrupt, Yes),
    row((Some(HeadUnwritten), Some(Within), None), Corrupt, Yes),
    row((Some(HeadDamaged), Some(Within), None), Corrupt, Yes),
    row((Some(BodyUnwritten), Some(Within), None), Corrupt, Yes),
    row((Some(BodyDamaged), Some(Within), None), Corrupt, Yes),
    row((Some(Unreadable), Some(Within), None), Corrupt, Yes),
    // At the end of the log.
    row((Some(Nothing), Some(Tail), Some(Uncovered)), End, No),
    row((Some(HeadUnwritten), Some(Tail), Some(Uncovered)), Torn, No),
    row((Some(BodyUnwritten), Some(Tail), Some(Uncovered)), Torn, No),
    row((Some(HeadDamaged), Some(Tail), Some(Uncovered)), Unclear, Unknown),
    row((Some(BodyDamaged), Some(Tail), Some(Uncovered)), Unclear, Unknown),
    row((Some(Unreadable), Some(Tail), Some(Uncovered)), Unclear, Unknown),
    row((Some(Nothing), Some(Tail), Some(Covered)), Corrupt, Yes),
    row((Some(HeadUnwritten), Some(Tail), Some(Covered)), Corrupt, Yes),
    row((Some(HeadDamaged), Some(Tail), Some(Covered)), Corrupt, Yes),
    row((Some(BodyUnwritten), Some(Tail), Some(Covered)), Corrupt, Yes),
    row((Some(BodyDamaged), Some(Tail), Some(Covered)), Corrupt, Yes),
    row((Some(Unreadable), Some(Tail), Some(Covered)), Corrupt, Yes),
    // Where a segment would join the chain. Its open frame is written alone.
    row((Some(Nothing), Some(Open), Some(Uncovered)), NotJoined, No),
    row((Some(HeadUnwritten), Some(Open), Some(Uncovered)), NotJoined, No),
    row((Some(BodyUnwritten), Some(Open), Some(Uncovered)), NotJoined, No),
    row((Some(HeadDamaged), Some(Open), Some(Uncovered)), Unclear, Unknown),
    row((Some(BodyDamaged), Some(Open), Some(Uncovered)), Unclear, Unknown),
    row((Some(Unreadable), Some(Open), Some(Uncovered)), Unclear, Unknown),
    row((Some(Nothing), Some(Open), Some(Covered)), Corrupt, Yes),
    row((Some(HeadUnwritten), Some(Open), Some(Covered)), Corrupt, Yes),
    row((Some(HeadDamaged), Some(Open), Some(Covered)), Corrupt, Yes),
    row((Some(BodyUnwritten), Some(Open), Some(Covered)), Corrupt, Yes),
    row((Some(BodyDamaged), Some(Open), Some(Covered)), Corrupt, Yes),
    row((Some(Unreadable), Some(Open), Some(Covered)), Corrupt, Yes),
];

/// What follows from what was found. Panics if the table has not exactly one row for it; the test shows that it has.
pub fn judge(fault: Fault, site: Site, evidence: Evidence) -> Judgement {
    let mut rows = TABLE.iter().filter(|row| row.matches(fault, site, evidence));
    let row = rows.next().expect("the table has a row for each input");
    assert!(rows.next().is_none(), "the table has one row for each input");
    match row.judgement.verdict {
        Corrupt if site == Tail && mutant::is_on(Mutant::DurableTailCut) => {
            Judgement { verdict: Torn, acknowledged: No }
        }
        Corrupt if site == Tail && fault == Nothing && mutant::is_on(Mutant::ZerosAccepted) => {
            Judgement { verdict: End, acknowledged: No }
        }
        _ => row.judgement,
    }
}

impl Acknowledged {
    /// What frames up to `proven`, which something durable names, say of one.
    pub(super) fn by(evidence: Evidence) -> Acknowledged {
        match evidence {
            Covered => Yes,
            Uncovered => Unknown,
        }
    }

    /// Why that is known, or is not, for people.
    pub fn why(self) -> &'static str {
        match self {
            Yes => "a later frame, the next segment or the superblock shows that it had been on disk",
            No => "it was never completely written, so nobody was told that it was",
            Unknown => "nothing that can be read shows whether it had been on disk",
        }
    }
}

impl fmt::Display for Acknowledged {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Yes => "yes",
            No => "no",
            Unknown => "unknown",
        })
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
