//! Copying forward: what a seldom written group still needs is written again, so that old segments are free.
//!
//! A segment is used again when nothing in it, nor before it, is part of the log any more. A group that is seldom written
//! keeps its old entries in an old segment, and with it everything behind. So all its live entries are appended once more,
//! under the same names, in **one** frame:
//!
//! ```text
//!   segment 1          2               3                4 (written)
//!   │ B B a1 a2 B B │  │ B B B B B │   │ B a3 B B B │   │ B B B a1 a2 a3 B
//!   └──── A alone needs these, the entries of B are purged ──┘      ▲
//!                                              a copied record is a record
//! ```
//!
//! An append at an index ends all older records of its group from there on: with the frame the old places are dead, and what
//! the log holds is what it held. A crash before it is durable leaves the old ones. In pieces it would not do: the first
//! would end what follows it.
//!
//! ```text
//!   a segment was opened ──▶ choose ──▶ take_copy: a plan ──▶ run, anywhere ──▶ copy_read ──▶ ... ──▶ a frame of its own
//!                                          ▲                                       │
//!                                          └───────────── the next piece ──────────┘
//! ```
//!
//! # Rules
//!
//! - Only what is worth it: see [`choose`].
//! - All of a choice is copied, or nothing: a frame that would leave one of the groups where it is would set nothing free.
//! - Whatever is taken for one of the groups meanwhile wins, and the copy is dropped. So at the place of its frame nothing
//!   of them is queued or in flight before it, and what was read is what they hold.
//! - It is no append: no ticket, nothing of the queue's room, no word to those who follow the log.
//! - The old segments go when a later frame proves the copy, not before: until then the copy is all that could be lost.
//! - A copy uses none of the room that is left on a full disk.
//! - What cannot be read is not copied, and told: [`Log::copy_finding`]. It is tried again, later and later.
//!
//! To copy is offered, not demanded: for whoever never calls [`Log::take_copy`] nothing is copied.

use std::collections::{BTreeMap, BTreeSet};

use super::body::{self, Item, extend_runs};
use super::error::{Error, Finding, LogIds, Severity};
use super::frame::{FRAME_OVERHEAD_BYTES_MAX, FrameHead, FrameKind, Run, SEAL_FRAME_BYTES_MAX};
use super::log::{Log, Phase};
use super::plan::ReadPlan;
use super::record::{RECORD_HEAD_BYTES, RecordKind, entry_record_bytes};
use super::recovery::Acknowledged;
use super::sections::OPEN_SECTION_BYTES_MAX;
use crate::limits::{BLOCK_BYTES, FRAME_BYTES_MAX, FRAME_RECORDS_MAX, FRAME_RUNS_MAX, SEGMENTS_SPARE};
use crate::types::{Entry, FrameNumber, GroupId, Index};

/// A copy sets free at least so many times the bytes of its frame: so copying adds at most an eighth to what is written.
const FREED_PER_BYTE_MIN: u64 = 8;
/// And so many segments: for one alone it is not done.
const SEGMENTS_FREED_MIN: usize = 2;
/// Looked at for one choice, which is made while the log waits.
const SEGMENTS_LOOKED_AT_MAX: usize = 1024;
/// A group that could not be copied, or was written meanwhile, is left alone until a segment was opened, then two, four, up to so many.
const WAIT_SEGMENTS_MAX: u64 = 64;

/// A segment that takes nothing more.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Ended {
    pub bytes: u64,
    /// Groups with live entries in it.
    pub needed_by: BTreeSet<GroupId>,
}

/// What to copy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Choice {
    /// Those, and no others, need what is set free. In the order in which more segments need more of them: without the
    /// last ones it is a smaller choice.
    pub groups: Vec<GroupId>,
    #[cfg(test)]
    pub segments: usize,
    /// More record bytes than these are not worth it, or are too many for one frame.
    pub bytes_max: usize,
}

/// What all live entries of a group need of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Needs {
    /// At least.
    pub bytes: usize,
    pub records: usize,
    pub runs: usize,
}

impl Needs {
    fn plus(self, other: Needs) -> Needs {
        Needs {
            bytes: self.bytes.saturating_add(other.bytes),
            records: self.records + other.records,
            runs: self.runs + other.runs,
        }
    }

    fn fits(self, batch_bytes_max: usize) -> bool {
        self.bytes <= batch_bytes_max && self.records <= FRAME_RECORDS_MAX && self.runs <= FRAME_RUNS_MAX
    }
}

/// Which groups to copy, so that the most of the oldest segments are set free: those from the first one that is needed on.
/// `needs` is what a group's live entries take, if it can be copied now; `batch_bytes_max` what fits one frame. Freed are at least [`SEGMENTS_FREED_MIN`] segments, with [`FREED_PER_BYTE_MIN`] times the bytes of the frame.
pub fn choose(
    oldest: impl Iterator<Item = Ended>,
    batch_bytes_max: usize,
    mut needs: impl FnMut(GroupId) -> Option<Needs>,
) -> Option<Choice> {
    let (mut groups, mut all, mut freed, mut choice) = (Vec::new(), Needs::default(), 0, None);
    let mut joined = BTreeSet::new();
    let needed = oldest.skip_while(|segment| segment.needed_by.is_empty());
    for (segments, segment) in (1..).zip(needed) {
        for group in segment.needed_by {
            if joined.insert(group) {
                // What one group forbids it forbids whatever comes on top.
                let Some(own) = needs(group) else { return choice };
                groups.push(group);
                all = all.plus(own);
            }
        }
        freed += segment.bytes;
        let frame_bytes = (freed / FREED_PER_BYTE_MIN) as usize / BLOCK_BYTES * BLOCK_BYTES;
        let around = FRAME_OVERHEAD_BYTES_MAX + OPEN_SECTION_BYTES_MAX;
        let bytes_max = frame_bytes.saturating_sub(around).min(batch_bytes_max);
        if !all.fits(batch_bytes_max) {
            return choice;
        }
        if segments >= SEGMENTS_FREED_MIN && all.bytes <= bytes_max {
            choice = Some(Choice {
                groups: groups.clone(),
                #[cfg(test)]
                segments,
                bytes_max,
            });
        }
    }
    choice
}

/// Where copying stands.
#[derive(Debug, Default)]
pub struct Copying {
    /// A segment was opened since it was last asked what to copy.
    pub is_due: bool,
    current: Option<Copy>,
    /// Groups that could not be copied.
    unfit: BTreeMap<GroupId, Unfit>,
    /// Why the last of them could not, until it can or need not.
    finding: Option<Finding>,
}

/// What is being copied.
#[derive(Debug)]
struct Copy {
    /// The live entries of each group that are not read yet; none of one that is through.
    wanted: Vec<(GroupId, std::ops::Range<Index>)>,
    /// What was read, one item for each group, in the same order.
    items: Vec<Item>,
    /// Their record bytes.
    bytes: usize,
    bytes_max: usize,
    /// Somebody runs a plan of it.
    is_asked: bool,
    /// Something was taken for one of its groups.
    is_overtaken: bool,
}

/// A group that is too large, cannot be read, or was written while it was read.
#[derive(Clone, Copy, Debug)]
struct Unfit {
    /// Its first entry then: a purge gives it another chance.
    first: Index,
    wait_segments: u64,
    /// When so many segments were opened it is tried again.
    until_segments: u64,
}

impl Copying {
    /// Something is taken for this group; tells whether a copy ends by that.
    fn overtake(&mut self, group: GroupId) -> bool {
        let is_wanted = |copy: &&mut Copy| copy.wanted.iter().any(|(own, _)| *own == group);
        let Some(copy) = self.current.as_mut().filter(is_wanted) else { return false };
        let is_first = !std::mem::replace(&mut copy.is_overtaken, true);
        if !copy.is_asked {
            self.current = None;
        }
        is_first
    }

    /// Whether all is read, and a frame of it is to be written.
    pub fn is_ready(&self) -> bool {
        self.current.as_ref().is_some_and(|copy| copy.piece().is_none())
    }

    fn is_left_alone(&self, group: GroupId, first: Index, segments: u64) -> bool {
        self.unfit.get(&group).is_some_and(|unfit| unfit.first == first && segments < unfit.until_segments)
    }

    fn leave_alone(&mut self, group: GroupId, first: Index, segments: u64) {
        let before = self.unfit.get(&group).filter(|unfit| unfit.first == first);
        let wait_segments = before.map_or(1, |unfit| (2 * unfit.wait_segments).min(WAIT_SEGMENTS_MAX));
        self.unfit.insert(group, Unfit { first, wait_segments, until_segments: segments + wait_segments });
    }

    /// Keeps a finding; gives it if it is news.
    fn tell(&mut self, finding: Finding) -> Option<Finding> {
        let is_known = self.finding.as_ref() == Some(&finding);
        self.finding = Some(finding.clone());
        (!is_known).then_some(finding)
    }

    /// What was told is of no interest any more, if it is about such a group.
    fn forget(&mut self, is_over: impl Fn(GroupId) -> bool) {
        let group = |finding: &Finding| finding.entries.first().map(|ids| ids.group);
        self.finding = self.finding.take().filter(|finding| !group(finding).is_some_and(&is_over));
    }
}

impl Copy {
    /// The group that is read, and what of it is not read yet.
    fn piece(&self) -> Option<(GroupId, std::ops::Range<Index>)> {
        self.wanted.iter().find(|(_, rest)| !rest.is_empty()).cloned()
    }

    /// Takes in what was read of a group, from its first wanted entry on.
    fn take(&mut self, group: GroupId, read: Vec<Entry>) {
        self.bytes += read.iter().map(entry_record_bytes).sum::<usize>();
        let (_, rest) = self.wanted.iter_mut().find(|(own, _)| *own == group).expect("it is one of those wanted");
        rest.start = rest.start.plus(read.len() as u64);
        match self.items.last_mut() {
            Some(Item::Entries { group: own, entries }) if *own == group => entries.extend(read),
            _ => self.items.push(Item::Entries { group, entries: read }),
        }
    }
}

impl Log {
    /// The next piece to read of what is to be copied forward; none if there is nothing to copy, or somebody is at it. Run
    /// it anywhere and answer with [`Log::copy_read`].
    pub fn take_copy(&mut self) -> Option<ReadPlan> {
        if self.is_poisoned || self.no_space.is_some() {
            return None;
        }
        if self.copying.current.is_none() && std::mem::take(&mut self.copying.is_due) {
            self.copying.current = self.choose_copy().and_then(|choice| self.copy_of(&choice.groups, choice.bytes_max));
        }
        let copy = self.copying.current.as_mut().filter(|copy| !copy.is_asked)?;
        let (group, rest) = copy.piece()?;
        copy.is_asked = true;
        // A plan counts more for an entry than its record takes, at most twice as much. More than allowed is seen in time.
        let bytes_max = 2 * (copy.bytes_max - copy.bytes);
        Some(self.plan_read(group, rest.start, rest.end, bytes_max))
    }

    /// What the run of a plan of [`Log::take_copy`] said. Gives what is to be told of it.
    pub fn copy_read(&mut self, said: Result<Vec<Entry>, Error>) -> Option<Finding> {
        let said = self.judged(said);
        let mut copy = self.copying.current.take().filter(|copy| copy.is_asked).expect("an answer follows a plan");
        copy.is_asked = false;
        let (group, rest) = copy.piece().filter(|_| !copy.is_overtaken)?;
        let fault = match said {
            Ok(read) => match self.misnamed(group, &read) {
                None if read.is_empty() => return None,
                None => {
                    copy.take(group, read);
                    if copy.bytes <= copy.bytes_max {
                        self.copying.current = Some(copy);
                    } else {
                        self.leave_alone(group);
                    }
                    return None;
                }
                Some(finding) => finding,
            },
            // What it was about went.
            Err(Error::Stale { .. } | Error::Trimmed { .. }) => return None,
            Err(Error::Damaged(finding)) => finding,
            Err(error) => self.unread((group, rest), (Severity::Unclear, Acknowledged::Unknown), error.to_string()),
        };
        self.leave_alone(group);
        let mut finding = fault;
        self.groups.get(&group).inspect(|names| finding.name_by(names));
        self.copying.tell(finding)
    }

    /// Something is taken for this group: whatever of it is being copied is not what it holds any more.
    pub(super) fn overtake_copy(&mut self, group: GroupId) {
        if self.copying.overtake(group) {
            self.leave_alone(group);
        }
    }

    /// Whether a copy is read, and waits for its frame.
    pub fn has_copy(&self) -> bool {
        self.copying.is_ready()
    }

    /// Why what keeps the oldest segments from being used again is not copied forward, as long as that is so.
    pub fn copy_finding(&self) -> Option<&Finding> {
        self.copying.finding.as_ref()
    }

    /// Writes the frame of a copy that is ready, or makes room for it; tells whether that changed anything.
    pub(super) fn write_copy(&mut self) -> bool {
        // Beside what somebody writes who counts on being alone nothing is: then nothing is queued.
        if !self.copying.is_ready() || (self.queue.is_empty() && !self.in_flight.is_empty()) {
            return false;
        }
        // What room there is is for others: it waits. On a full disk it is due again with the next segment.
        if self.no_space.is_none() && self.ready.len() <= SEGMENTS_SPARE {
            return false;
        }
        let copy = self.copying.current.take().expect("it is ready");
        let open_bytes = if self.repeat_open.is_some() { OPEN_SECTION_BYTES_MAX } else { 0 };
        let room = (self.active.frames_end() - SEAL_FRAME_BYTES_MAX as u64).saturating_sub(self.offset) as usize;
        let fits = body::frame_bytes_max(copy.bytes, open_bytes, 0) <= room.min(FRAME_BYTES_MAX);
        match () {
            () if self.no_space.is_some() => return false,
            () if fits => self.submit_copy(&copy),
            () => {
                // Appends were promised what is left of this segment, and the next one.
                let is_promised = !self.queue.is_empty() || self.ready.len() <= SEGMENTS_SPARE + 1;
                self.copying.current = Some(copy);
                if is_promised {
                    return false;
                }
                self.phase = Phase::Draining;
            }
        }
        true
    }

    /// Takes in the frame of a copy, which is durable.
    pub(super) fn note_copy(&mut self, head: &FrameHead, own: &[Run], holds_membership: bool) {
        self.locator.note_copy(head, own, holds_membership);
        self.counters.copies += 1;
        self.counters.copied_bytes += head.length as u64;
    }

    fn submit_copy(&mut self, copy: &Copy) {
        let own = self.runs_of(copy);
        let open = self.repeat_open.take();
        let ticket = self.last_ticket_sent();
        self.submit(FrameKind::Data, own, open.as_ref(), None, (copy.bytes, copy.items.iter()), ticket);
        let frame = self.in_flight.back_mut().expect("it was just submitted");
        frame.holds_membership = copy.items.iter().any(Item::holds_membership);
        frame.is_copy = true;
        self.last_data_frame = FrameNumber(self.next_frame.0 - 1);
        let is_copied = |group| copy.wanted.iter().any(|(own, _)| *own == group);
        self.copying.forget(is_copied);
        self.copying.unfit.retain(|&group, _| !is_copied(group));
    }

    /// The directory of a copy's frame. The names are what they were.
    fn runs_of(&self, copy: &Copy) -> Vec<Run> {
        let mut runs = Vec::new();
        for item in &copy.items {
            let Item::Entries { group, entries } = item else { unreachable!("nothing else is copied") };
            let names = self.groups.get(group).expect("it has entries");
            let framed = self.framed.get(group).expect("they are in frames");
            let is_whole = entries.first().is_some_and(|first| first.id.index == names.first())
                && entries.last().is_some_and(|last| last.id == names.last);
            assert!(is_whole, "all live entries of a group are copied, or none");
            assert!(
                (framed.before_first, framed.last) == (names.before_first, names.last),
                "nothing of it waits for a frame"
            );
            let mut previous = names.before_first;
            for entry in entries {
                extend_runs(&mut runs, *group, RecordKind::Entry, entry.id, previous);
                previous = entry.id;
            }
        }
        runs
    }

    /// The oldest segments, and what they are needed for; and what of that is worth to be copied.
    fn choose_copy(&mut self) -> Option<Choice> {
        let active = self.active.number;
        let ended = || {
            let ended = self.locator.segments().take_while(|segment| segment.header.number != active);
            ended.take(SEGMENTS_LOOKED_AT_MAX).map(|segment| {
                let holds = |&group: &GroupId| self.locator.may_hold(segment, group, self.first_durable(group));
                let needed_by = segment.highest.keys().copied().filter(holds).collect();
                Ended { bytes: segment.header.bytes, needed_by }
            })
        };
        let pinning = ended().map(|segment| segment.needed_by).find(|groups| !groups.is_empty()).unwrap_or_default();
        let choice = choose(ended(), self.batch_bytes_max(), |group| self.needs_of(group));
        self.copying.forget(|group| !pinning.contains(&group));
        choice
    }

    /// What the live entries of a group take; none if it cannot be copied now.
    fn needs_of(&self, group: GroupId) -> Option<Needs> {
        let names = self.groups.get(&group)?;
        let count = names.last.index.0.checked_sub(names.before_first.index.0)?;
        let is_busy = self.queue.iter().any(|queued| queued.item.group() == group)
            || self.in_flight.iter().any(|frame| frame.own.iter().any(|run| run.group == group));
        let is_left = self.copying.is_left_alone(group, names.first(), self.counters.segments);
        let fits = (1..=FRAME_RECORDS_MAX as u64).contains(&count) && names.terms.len() <= FRAME_RUNS_MAX;
        if is_busy || is_left || !fits {
            return None;
        }
        let heads = count as usize * RECORD_HEAD_BYTES;
        let alone = self.locator.alone_bytes(group, names.first()).try_into().unwrap_or(usize::MAX);
        Some(Needs { bytes: heads.max(alone), records: count as usize, runs: names.terms.len() })
    }

    /// A copy of these groups, of which nothing is read yet.
    fn copy_of(&self, groups: &[GroupId], bytes_max: usize) -> Option<Copy> {
        let names = groups.iter().map(|group| self.groups.get(group)).collect::<Option<Vec<_>>>()?;
        let wanted: Vec<_> = names.iter().map(|names| (names.group, names.first()..names.last.index.next())).collect();
        let records: u64 = wanted.iter().map(|(_, wanted)| wanted.end.0 - wanted.start.0).sum();
        let runs: usize = names.iter().map(|names| names.terms.len()).sum();
        assert!(records <= FRAME_RECORDS_MAX as u64 && runs <= FRAME_RUNS_MAX, "a choice fits one frame");
        Some(Copy { wanted, items: Vec::new(), bytes: 0, bytes_max, is_asked: false, is_overtaken: false })
    }

    /// The first index of a group that no durable purge ended.
    fn first_durable(&self, group: GroupId) -> Index {
        self.purged.get(&group).copied().unwrap_or_default().next()
    }

    fn leave_alone(&mut self, group: GroupId) {
        let first = self.groups.get(&group).map_or(Index::FIRST, super::GroupLog::first);
        self.copying.leave_alone(group, first, self.counters.segments);
        self.counters.copies_dropped += 1;
    }

    /// What is wrong with entries that bear other names than the log knows.
    fn misnamed(&self, group: GroupId, read: &[Entry]) -> Option<Finding> {
        let names = self.groups.get(&group)?;
        let entry = read.iter().find(|entry| names.id_at(entry.id.index) != Some(entry.id))?;
        let what = format!("entry {} of group {group} is not the one of which the log knows", entry.id);
        let index = entry.id.index;
        Some(self.unread((group, index..index.next()), (Severity::Corrupt, Acknowledged::Yes), what))
    }

    fn unread(
        &self,
        (group, range): (GroupId, std::ops::Range<Index>),
        (severity, acknowledged): (Severity, Acknowledged),
        what: String,
    ) -> Finding {
        Finding {
            severity,
            file: self.options.directory.clone(),
            bytes: 0..0,
            what,
            acknowledged: Some(acknowledged),
            entries: vec![LogIds::unnamed(group, range)],
        }
    }

    /// Copies these groups whether that is worth it or not, if they can be.
    #[cfg(test)]
    pub fn copy_anyway(&mut self, groups: &[GroupId]) {
        let groups: Vec<GroupId> = groups.iter().copied().filter(|&group| self.needs_of(group).is_some()).collect();
        if self.copying.current.is_none() && !groups.is_empty() {
            self.copying.current = self.copy_of(&groups, self.batch_bytes_max());
        }
    }
}
