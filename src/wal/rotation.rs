//! From one segment to the next, and the segments that stand ready for it.

use super::body;
use super::frame::{FrameKind, OPEN_FRAME_BYTES_MAX, SEAL_FRAME_BYTES_MAX};
use super::locator::SegmentIndex;
use super::log::{Effect, Log, Phase};
use super::record::RECORD_HEAD_BYTES;
use super::sections::{OPEN_SECTION_BYTES_MAX, OpenSection};
use super::segment::{FRAMES_START, Fill, Prepare, SegmentHeader};
use crate::disk::{self, FileId};
use crate::limits::{BLOCK_BYTES, FRAME_RECORDS_MAX, SEGMENTS_READY, SEGMENTS_SPARE, SPARE_BYTES};
use crate::types::SegmentNumber;

/// What there is for frames to come, so that nothing is taken that might find no segment: it would wait for the disk, and
/// a purge behind it, which could make room, would wait, too.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Room {
    /// Frame bytes that fit into what is ready for certain, without what is kept for internal entries: the last segment
    /// that stands ready, or where none does, the last [`SPARE_BYTES`] of the active one, or all of it if no other can be made.
    pub bytes: u64,
    pub supply: Supply,
}

/// What becomes of the room.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Supply {
    /// There is as much as stands ready at best, or more is on its way.
    Coming,
    /// It grows when the next segment has its zeros, or as soon as somebody asks for it: [`Log::hurry_room`].
    Short,
    /// No segment can be made: mostly, the disk is full.
    Failing,
}

/// Ticks after which a preparation that failed, on a full disk or otherwise, is tried again.
const RETRY_TICKS: u32 = 100;

impl Log {
    /// What became of a preparation. An error is waited out, whatever it is: nothing durable was at stake, and the file
    /// is gone. If none other is on its way, and until another attempt succeeds, [`Log::is_out_of_space`].
    pub fn prepared(&mut self, number: SegmentNumber, result: Result<FileId, disk::Error>) {
        let order = self.preparing.remove(&number).expect("a preparation was ordered");
        // Those that are on their way may well succeed: on a full disk, if they get the room of old segments.
        self.has_one_failed = result.is_err() && !self.preparing.is_empty();
        match result {
            Ok(file) if number > self.active.number => {
                self.no_space = None;
                self.ready.insert(number, (order, file));
            }
            Ok(file) => {
                // A later one was needed first. Numbers rise along the chain, so this one gets another.
                let unused = if order.fill == Fill::Allocated { &mut self.recyclable } else { &mut self.late };
                unused.insert(number, file);
            }
            Err(_) if self.has_one_failed => {}
            Err(error) => {
                self.no_space = Some(error);
                self.retry_ticks = RETRY_TICKS;
            }
        }
    }

    /// Whether another segment could not be made, and is tried again from time to time.
    pub fn is_out_of_space(&self) -> bool {
        self.no_space.is_some()
    }

    /// Why it could not be made: mostly a full disk.
    pub fn preparation_error(&self) -> Option<&disk::Error> {
        self.no_space.as_ref()
    }

    /// What there is for frames to come.
    pub fn room(&self) -> Room {
        let supply = match () {
            () if self.no_space.is_some() => Supply::Failing,
            () if self.ready.len() > SEGMENTS_SPARE || self.has_one_failed || self.is_one_hurried() => Supply::Coming,
            () => Supply::Short,
        };
        Room { bytes: self.room_bytes(), supply }
    }

    /// What entries of so many record bytes, of one term and in one [`Log::append_each`], take of [`Room::bytes`] at most.
    pub fn frames_bytes_max(&self, record_bytes: usize) -> u64 {
        // Of two pieces in a row one holds more than half of what a piece may.
        let piece_bytes = self.batch_bytes_max().min(FRAME_RECORDS_MAX * RECORD_HEAD_BYTES);
        let pieces = if record_bytes <= piece_bytes { 0 } else { 2 * (record_bytes / piece_bytes) as u64 };
        body::frame_room_bytes(record_bytes) + pieces * body::frame_room_bytes(0)
    }

    /// Somebody waits for more room: where the supply is short, a segment comes without the zeros that take time.
    pub fn hurry_room(&mut self) {
        if self.room().supply == Supply::Short {
            self.order(Fill::Allocated);
        }
    }

    /// Never a stall for the sake of zeros: an allocated segment costs speed, not safety.
    fn is_one_hurried(&self) -> bool {
        self.preparing.values().any(|order| order.fill != Fill::Zeros)
    }

    /// No frame crosses from one segment to the next: two of them hold for certain what one does, and the active one if
    /// there are more.
    fn room_bytes(&self) -> u64 {
        let section = OPEN_SECTION_BYTES_MAX.next_multiple_of(BLOCK_BYTES) as u64;
        let around = FRAMES_START + (OPEN_FRAME_BYTES_MAX + SEAL_FRAME_BYTES_MAX) as u64 + section;
        let segment = self.ready.values().map(|(order, _)| order.header.frames_end() - around).min().unwrap_or(0);
        let end = self.active.frames_end() - SEAL_FRAME_BYTES_MAX as u64;
        let active = match self.phase {
            Phase::Running if self.repeat_open.is_none() => end.saturating_sub(self.offset),
            Phase::Running | Phase::Opening => end.saturating_sub(self.offset + section),
            Phase::Draining | Phase::Sealing => 0,
        };
        match self.ready.len().checked_sub(SEGMENTS_SPARE) {
            None if self.no_space.is_some() => 0,
            None => active.saturating_sub(SPARE_BYTES),
            Some(0) => active,
            Some(1) => active.max(segment),
            Some(_) => active + segment,
        }
    }

    pub(super) fn retry_preparation(&mut self) {
        self.retry_ticks = self.retry_ticks.saturating_sub(1);
    }

    /// Orders segments until enough stand ready or are on their way.
    pub(super) fn keep_ready(&mut self) {
        let waits = self.has_one_failed || (self.no_space.is_some() && self.retry_ticks > 0);
        while !waits && !self.is_one_renumbered() && !self.has_enough_ready() {
            self.order(Fill::Zeros);
            if self.no_space.is_some() {
                // One at a time shows whether there is room again.
                self.retry_ticks = RETRY_TICKS;
                return;
            }
        }
    }

    /// A segment without a name is lost where the power fails, and one that is only numbered anew is there soon: one at a
    /// time, or a start on a full disk might find none for what its recovery adds.
    fn is_one_renumbered(&self) -> bool {
        self.preparing.values().any(|order| order.fill == Fill::AsItIs)
    }

    /// Whether enough segments stand ready or are on their way.
    pub(super) fn has_enough_ready(&self) -> bool {
        self.ready.len() + self.preparing.len() >= SEGMENTS_READY + SEGMENTS_SPARE
    }

    /// A segment that came too late is the next one: to number it anew takes no longer than to allocate one.
    fn order(&mut self, fill: Fill) {
        let late = self.late.pop_first();
        let fill = if late.is_some() { Fill::AsItIs } else { fill };
        let header = SegmentHeader {
            identity: self.options.identity,
            number: self.next_segment,
            salt: self.random.next_u64(),
            bytes: self.options.segment_bytes,
        };
        self.next_segment = self.next_segment.next();
        let recycled = match fill {
            Fill::AsItIs => late,
            // On a full disk their room is all there is.
            Fill::Zeros | Fill::Allocated => self.take_recyclable(),
        };
        let order = Prepare { directory: self.options.directory.clone(), header, fill, recycled };
        self.preparing.insert(header.number, order.clone());
        self.effects.push_back(Effect::Prepare(order));
    }

    /// The oldest that was given up; before that, what stood ready in another life. Of that a start reads all, to see that it
    /// is zero, and of the other the open frame: so there are no more of those than have to stand ready.
    fn take_recyclable(&mut self) -> Option<(SegmentNumber, FileId)> {
        self.unopened.pop_first().or_else(|| self.recyclable.pop_first())
    }

    /// Ends the active segment with its seal. Everything in it is durable.
    pub(super) fn write_seal(&mut self) -> bool {
        let seal = self.locator.seal();
        let ticket = self.last_ticket_sent();
        let open = self.repeat_open.take();
        self.submit(FrameKind::Seal, Vec::new(), open.as_ref(), Some(&seal), (0, std::iter::empty()), ticket);
        self.phase = Phase::Sealing;
        true
    }

    /// Opens the next segment: its open frame, alone in flight, ends the one before. Tells whether it could.
    pub(super) fn open_next(&mut self) -> bool {
        let Some((_, (order, file))) = self.ready.pop_first() else {
            self.hurry_room();
            return false;
        };
        self.counters.unzeroed_segments += u64::from(order.fill == Fill::Allocated);
        self.counters.segments += 1;
        let section = OpenSection {
            predecessor_end: self.durable,
            wall_clock_milliseconds: self.wall_clock_milliseconds,
            groups: self.framed.values().copied().collect(),
        };
        self.active = order.header;
        self.active_file = file;
        self.offset = FRAMES_START;
        self.locator.add_segment(order.header, file, section.wall_clock_milliseconds);
        let ticket = self.last_ticket_sent();
        self.submit(FrameKind::Open, Vec::new(), Some(&section), None, (0, std::iter::empty()), ticket);
        self.repeat_open = Some(section);
        self.phase = Phase::Opening;
        true
    }

    /// Gives up the oldest segments that no group needs any more.
    pub(super) fn retire(&mut self) {
        loop {
            let oldest = self.locator.segments().next();
            let Some(oldest) = oldest.filter(|oldest| oldest.header.number != self.active.number) else { return };
            if !self.is_unneeded(oldest) {
                return;
            }
            let (number, file) = (oldest.header.number, oldest.file);
            self.locator.remove_segment(number);
            self.recyclable.insert(number, file);
            // On a full disk it is what was waited for.
            (self.retry_ticks, self.has_one_failed) = (0, false);
            self.removals.end_pause();
        }
    }

    fn is_unneeded(&self, segment: &SegmentIndex) -> bool {
        // What was replaced, or copied forward, is needed in its old place until something proves the new one.
        let is_proven = self.is_covered();
        segment.highest.iter().all(|(&group, highest)| {
            let purged = self.purged.get(&group).copied().unwrap_or_default();
            let holds = || self.locator.may_hold(segment, group, purged.next());
            *highest <= purged || (is_proven && !holds())
        })
    }
}
