//! What to do about each state of the four blocks: a table.
//!
//! Why the rules are right: a save is spoken of only when both pairs hold it, so everything that was ever spoken is
//! in each pair that is intact and equal, and nothing that was spoken is newer than the older of two such pairs. One
//! whole pair is therefore enough. Beyond it any intact block may be believed, since it can only be newer than what
//! was spoken.
//!
//! **The pair that is written first at start is never the only whole one**, also where what was read is in the page
//! cache alone: a flush of it failed in an earlier life, and the kernel takes its pages for clean since. That can be the
//! case of one pair only, the one that was written last, since nothing is written after an error. Which one it is, is
//! seen from the copy numbers. Every write of both pairs goes A, then B:
//!
//! ```text
//!   A is higher     A was written last, and B is on the disk
//!   both are equal  B was written last, and A is on the disk
//!   B is higher     a start wrote B alone, under a number of its own, and A is on the disk
//! ```
//!
//! So a start first writes A in the first case, and B, under a number of its own, in the others; then both as ever.

use std::cmp::Ordering;
use std::fmt;

use super::block::{BLOCKS, Copy, Pair};

/// What one block was found to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Condition {
    /// Passes every check. Of two intact blocks the one with the higher copy number is newer.
    Intact { copy: u64 },
    /// Not what was written: torn, rotten, foreign, or missing behind the end of the file.
    Damaged,
    /// Written as another of the four.
    Misplaced,
    /// The disk gives an error.
    Unreadable,
    /// Intact, in a format that this program does not know.
    Newer { found: u32 },
}

/// The conditions of all four blocks, as an error names them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Conditions(pub [Condition; BLOCKS]);

/// What to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    /// Take the highest intact copy, and write this pair first when all four are brought to it: it is broken, or was
    /// written last.
    Use { first: Pair },
    /// Neither pair can be trusted to hold what was spoken.
    Damaged,
    /// A newer program was here.
    Newer,
}

/// One pair, seen as one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum PairIs {
    /// Both blocks are intact, and equal.
    Whole,
    /// At least one block is intact, but they are not equal.
    Split,
    /// No block is intact.
    Lost,
}

/// What the intact blocks say of each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Agreement {
    /// One identity, and one content for each copy number.
    Consistent,
    /// They cannot all be from the life of one directory.
    Contradictory,
    /// At least one is of a newer format.
    Newer,
}

/// The four blocks, reduced to what decides.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Situation {
    pub agreement: Agreement,
    pub a: PairIs,
    pub b: PairIs,
    /// The highest intact copy in A against that in B; none is lower than any.
    pub a_to_b: Ordering,
}

/// One line of the table: it is meant if every column names what was found.
pub(super) struct Row {
    agreement: Agreement,
    a: &'static [PairIs],
    b: &'static [PairIs],
    a_to_b: &'static [Ordering],
    verdict: Verdict,
}

const ANY_PAIR: &[PairIs] = &[PairIs::Whole, PairIs::Split, PairIs::Lost];
const WHOLE: &[PairIs] = &[PairIs::Whole];
const BROKEN: &[PairIs] = &[PairIs::Split, PairIs::Lost];
const ANY_ORDER: &[Ordering] = &[Ordering::Less, Ordering::Equal, Ordering::Greater];
const A_NOT_HIGHER: &[Ordering] = &[Ordering::Less, Ordering::Equal];
const A_HIGHER: &[Ordering] = &[Ordering::Greater];

#[rustfmt::skip]
pub(super) const TABLE: [Row; 7] = [
    row(Agreement::Newer,         ANY_PAIR, ANY_PAIR, ANY_ORDER,    Verdict::Newer),
    row(Agreement::Contradictory, ANY_PAIR, ANY_PAIR, ANY_ORDER,    Verdict::Damaged),
    row(Agreement::Consistent,    WHOLE,    WHOLE,    A_NOT_HIGHER, Verdict::Use { first: Pair::B }),
    row(Agreement::Consistent,    WHOLE,    WHOLE,    A_HIGHER,     Verdict::Use { first: Pair::A }),
    row(Agreement::Consistent,    WHOLE,    BROKEN,   ANY_ORDER,    Verdict::Use { first: Pair::B }),
    row(Agreement::Consistent,    BROKEN,   WHOLE,    ANY_ORDER,    Verdict::Use { first: Pair::A }),
    row(Agreement::Consistent,    BROKEN,   BROKEN,   ANY_ORDER,    Verdict::Damaged),
];

/// What was found in the places of the four blocks.
pub(super) type Blocks = [Result<Copy, Condition>; BLOCKS];

impl Situation {
    pub fn of(blocks: &Blocks) -> Situation {
        let (a, b) = blocks.split_at(2);
        Situation {
            agreement: agreement(blocks),
            a: PairIs::of(a),
            b: PairIs::of(b),
            a_to_b: highest(a).map(|copy| copy.number).cmp(&highest(b).map(|copy| copy.number)),
        }
    }

    /// What the one row that fits says.
    pub fn verdict(&self) -> Verdict {
        TABLE.iter().find(|row| row.fits(self)).expect("a test shows that every situation has a row").verdict
    }
}

impl Conditions {
    /// Whether each block passes every check.
    pub fn are_intact(&self) -> bool {
        self.0.iter().all(|condition| matches!(condition, Condition::Intact { .. }))
    }
}

impl Row {
    pub fn fits(&self, situation: &Situation) -> bool {
        self.agreement == situation.agreement
            && self.a.contains(&situation.a)
            && self.b.contains(&situation.b)
            && self.a_to_b.contains(&situation.a_to_b)
    }
}

impl PairIs {
    fn of(pair: &[Result<Copy, Condition>]) -> PairIs {
        match (&pair[0], &pair[1]) {
            (Ok(one), Ok(other)) if one == other => PairIs::Whole,
            (Err(_), Err(_)) => PairIs::Lost,
            _ => PairIs::Split,
        }
    }
}

/// The newest intact copy.
pub(super) fn highest(blocks: &[Result<Copy, Condition>]) -> Option<&Copy> {
    blocks.iter().flatten().max_by_key(|copy| copy.number)
}

pub(super) fn conditions(blocks: &Blocks) -> Conditions {
    Conditions(std::array::from_fn(|at| match &blocks[at] {
        Ok(copy) => Condition::Intact { copy: copy.number.0 },
        Err(condition) => *condition,
    }))
}

/// The highest format among blocks that are newer than this program.
pub(super) fn newer_format(blocks: &Blocks) -> Option<u32> {
    let newer = |block: &Result<Copy, Condition>| match block {
        Err(Condition::Newer { found }) => Some(*found),
        _ => None,
    };
    blocks.iter().filter_map(newer).max()
}

fn agreement(blocks: &Blocks) -> Agreement {
    if newer_format(blocks).is_some() {
        return Agreement::Newer;
    }
    let contradict = |one: &Copy, other: &Copy| {
        !one.state.same_identity(&other.state) || (one.number == other.number && one.state != other.state)
    };
    let intact: Vec<&Copy> = blocks.iter().flatten().collect();
    match intact.iter().any(|one| intact.iter().any(|other| contradict(one, other))) {
        true => Agreement::Contradictory,
        false => Agreement::Consistent,
    }
}

const fn row(
    agreement: Agreement,
    a: &'static [PairIs],
    b: &'static [PairIs],
    a_to_b: &'static [Ordering],
    verdict: Verdict,
) -> Row {
    Row { agreement, a, b, a_to_b, verdict }
}

impl fmt::Display for Conditions {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (block, condition) in self.0.iter().enumerate() {
            let separator = if block == 0 { "" } else { ", " };
            write!(formatter, "{separator}block {block} {condition}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Condition::Intact { copy } => write!(formatter, "is intact as copy {copy}"),
            Condition::Damaged => formatter.write_str("is damaged"),
            Condition::Misplaced => formatter.write_str("is another block"),
            Condition::Unreadable => formatter.write_str("cannot be read"),
            Condition::Newer { found } => write!(formatter, "has format {found}"),
        }
    }
}
