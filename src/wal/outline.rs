//! What a segment does to the log, as a short list: enough to open a log without reading the segment's frames.
//!
//! ```text
//!  frames      A 1..4 │ A 4..9, B 1..2 │ A 9..12 │ A cut from 6 │ A 6..8
//!  outline     A 1..12 │ B 1..2 │ A cut from 6 │ A 6..8
//! ```
//!
//! It holds the frames' runs in their order, each with the frame that it begins in. A run of entries that goes on where
//! the last one of its group ended, in the same term, is one with it, whatever other groups wrote between: each group's
//! runs keep their order among themselves, and groups know nothing of each other. So whoever goes through the outline
//! does to every group what the frames do.
//!
//! Configurations are entries whose content must be known when a log opens: the frames that hold any are listed, and are
//! read.
//!
//! It is bounded. A segment with more has none, and is read whole.

use bytes::BufMut;

use super::frame::{FrameHead, Run};
use super::record::RecordKind;
use crate::codec::{Error, Reader};
use crate::limits::SEGMENT_BYTES_MAX;
use crate::types::{FrameNumber, GroupId, Index, Term};

/// Runs of a segment, joined: one for each group at least, and one more for each change of term, cut and purge.
pub const OUTLINE_RUNS_MAX: usize = 128;
/// Frames of a segment that hold configurations.
pub const OUTLINE_MEMBERSHIPS_MAX: usize = 16;
const RUN_BYTES: usize = 48;
const MEMBERSHIP_BYTES: usize = 4;
pub const OUTLINE_BYTES_MAX: usize = OUTLINE_RUNS_MAX * RUN_BYTES + OUTLINE_MEMBERSHIPS_MAX * MEMBERSHIP_BYTES;

/// A segment's runs and where its configurations are.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Outline {
    /// In order of frames.
    pub runs: Vec<OutlineRun>,
    /// The offsets of the frames that hold configurations, rising.
    pub memberships: Vec<u64>,
}

/// A run, which may go on in later frames, and the frame that it begins in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OutlineRun {
    pub run: Run,
    pub offset: u64,
    pub frame: FrameNumber,
}

impl Outline {
    /// With one more frame; nothing if that is too much for it.
    pub fn with(mut self, head: &FrameHead, own: &[Run], holds_membership: bool) -> Option<Outline> {
        for run in own {
            let last = self.runs.iter_mut().rev().find(|last| last.run.group == run.group);
            match last.and_then(|last| last.run.joined(run).map(|joined| (last, joined))) {
                Some((last, joined)) => last.run = joined,
                None => self.runs.push(OutlineRun { run: *run, offset: head.offset, frame: head.number }),
            }
        }
        if holds_membership {
            self.memberships.push(head.offset);
        }
        let fits = self.runs.len() <= OUTLINE_RUNS_MAX && self.memberships.len() <= OUTLINE_MEMBERSHIPS_MAX;
        fits.then_some(self)
    }

    pub fn put(&self, out: &mut impl BufMut) {
        for OutlineRun { run, offset, frame } in &self.runs {
            out.put_u32_le(run.group.0);
            out.put_u8(run.kind.byte());
            out.put_slice(&[0; 3]);
            out.put_u64_le(run.first.0);
            out.put_u32_le(run.count);
            out.put_u32_le(narrow(*offset));
            out.put_u64_le(frame.0);
            out.put_u64_le(run.term.0);
            out.put_u64_le(run.previous_term.0);
        }
        for &offset in &self.memberships {
            out.put_u32_le(narrow(offset));
        }
    }

    pub fn take(reader: &mut Reader<'_>, (runs, memberships): (usize, usize)) -> Result<Outline, Error> {
        let runs = (0..runs).map(|_| take_run(reader)).collect::<Result<_, _>>()?;
        let offset = |reader: &mut Reader<'_>| reader.u32("offset").map(u64::from);
        let memberships = (0..memberships).map(|_| offset(reader)).collect::<Result<_, _>>()?;
        Ok(Outline { runs, memberships })
    }
}

fn take_run(reader: &mut Reader<'_>) -> Result<OutlineRun, Error> {
    let group = GroupId(reader.u32("group")?);
    let kind = reader.u8("kind of run")?;
    reader.take(3, "zero")?;
    let first = Index(reader.u64("first index")?);
    let count = reader.u32("count")?;
    let offset = u64::from(reader.u32("offset")?);
    let frame = FrameNumber(reader.u64("frame number")?);
    let (term, previous_term) = (Term(reader.u64("term")?), Term(reader.u64("previous term")?));
    let kind = RecordKind::from_byte(kind).ok_or(Error::Invalid { what: "kind of run", found: u64::from(kind) })?;
    let run = Run { group, kind, first, count, term, previous_term };
    match run.is_consistent() {
        true => Ok(OutlineRun { run, offset, frame }),
        false => Err(Error::Invalid { what: "run", found: first.0 }),
    }
}

/// An offset within a segment, as sections hold it.
pub fn narrow(offset: u64) -> u32 {
    u32::try_from(offset).expect("the size of a segment is bounded by limits.rs")
}

const _: () = assert!(SEGMENT_BYTES_MAX <= u32::MAX as u64);
