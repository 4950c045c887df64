//! The records of a frame by the names in its directory: a damaged one costs no other.
//!
//! The directory says which records there are, in order; each record's head says how long it is. So whoever wants a few
//! of many goes from head to head, or further: where the records of a run are all of one size, the wanted one stands where
//! that says, and its head, which names it under a salted checksum, proves it.

use std::ops::{ControlFlow, Range};

use super::body::{FrameView, RecordName};
use super::frame::Run;
use super::record::{self, RECORD_ALIGNMENT_BYTES, RecordFault, RecordHead};
use crate::types::{Index, LogId};

/// A record with its payload, or what is wrong with it.
pub type Salvaged<'h, 'a> = Result<(&'h RecordHead, &'a [u8]), RecordFault>;

impl<'a> FrameView<'a> {
    /// Calls `each` with every name of a directory and its record, if that is intact: a damaged one costs no other.
    /// `own` is the frame's own directory, which says what a damaged head does not.
    pub fn salvage(&self, own: &[Run], mut each: impl FnMut(RecordName, Salvaged<'_, 'a>)) {
        let all = |run: usize| own[run].first..own[run].end();
        self.salvage_wanted(own, all, |name, record| {
            each(name, record);
            ControlFlow::Continue(())
        });
    }

    /// Whether all records are as large as the first, as far as the frame's head and that one say.
    pub fn has_equal_records(&self) -> bool {
        let first = record::parse_head(self.records_bytes(), self.salt());
        first.is_ok_and(|first| {
            record::record_bytes(first.payload_length) * self.head.records == self.head.records_bytes
        })
    }

    /// As [`FrameView::salvage`], with the wanted indexes of each run alone, until there are no more or `each` breaks off.
    /// What lies between is not verified.
    pub fn salvage_wanted(
        &self,
        own: &[Run],
        wanted: impl Fn(usize) -> Range<Index>,
        mut each: impl FnMut(RecordName, Salvaged<'_, 'a>) -> ControlFlow<()>,
    ) {
        let Some(last) = (0..own.len()).rfind(|&run| !wanted(run).is_empty()) else { return };
        let mut place = Place { frame: self, bytes: self.records_bytes(), at: 0, found: None };
        for (ordinal, run) in own[..=last].iter().enumerate() {
            let wanted = wanted(ordinal);
            if wanted.is_empty() {
                place.pass(run, run.first..run.end());
                continue;
            }
            assert!(run.first <= wanted.start && wanted.end <= run.end(), "a run names what is wanted of it");
            place.pass(run, run.first..wanted.start);
            for name in names(run, &wanted) {
                let said = place.record(name);
                if each(name, said.as_ref().map(|(head, payload)| (head, *payload)).map_err(|fault| *fault)).is_break()
                {
                    return;
                }
            }
            if ordinal < last {
                place.pass(run, wanted.end..run.end());
            }
        }
    }
}

/// A place in a frame's records.
struct Place<'f, 'a> {
    frame: &'f FrameView<'a>,
    bytes: &'a [u8],
    at: usize,
    /// The record that a search behind a damaged one found next.
    found: Option<RecordName>,
}

impl<'a> Place<'_, 'a> {
    /// The record of this name, which comes next.
    fn record(&mut self, name: RecordName) -> Result<(RecordHead, &'a [u8]), RecordFault> {
        if !self.is_reached(name) {
            return Err(RecordFault::Head);
        }
        match record::parse(self.rest(), self.frame.salt()) {
            Ok((head, payload, size)) if head.name() == name => {
                self.at += size;
                Ok((head, payload))
            }
            said => {
                self.pass_damaged(name);
                Err(said.err().unwrap_or(RecordFault::Head))
            }
        }
    }

    /// Leaves these of a run's records behind, which come next.
    fn pass(&mut self, run: &Run, indexes: Range<Index>) {
        let mut left = indexes.clone();
        if indexes.end < run.end() && self.leap(run, &indexes) {
            left.start = indexes.end;
        }
        for name in names(run, &left) {
            if !self.is_reached(name) {
                continue;
            }
            match self.head(self.at).filter(|head| head.name() == name) {
                Some(head) => self.at += record::record_bytes(head.payload_length),
                None => self.pass_damaged(name),
            }
        }
    }

    /// Goes to where the record behind these stands if all are as large as the first; tells whether it stands there.
    fn leap(&mut self, run: &Run, indexes: &Range<Index>) -> bool {
        let name_of = |index: Index| (run.group, run.kind, LogId::new(run.term, index));
        let first = self.head(self.at).filter(|head| self.found.is_none() && head.name() == name_of(indexes.start));
        let Some(first) = first else { return false };
        let count = (indexes.end.0 - indexes.start.0) as usize;
        let at = self.at + count * record::record_bytes(first.payload_length);
        let is_there = self.head(at).is_some_and(|head| head.name() == name_of(indexes.end));
        if is_there {
            self.at = at;
        }
        is_there
    }

    /// Whether this name's record is to be looked for here, and not one that stands further on.
    fn is_reached(&mut self, name: RecordName) -> bool {
        if self.found.is_some_and(|found| found != name) {
            return false;
        }
        self.found = None;
        true
    }

    /// Goes to the next place that a record's head stands at behind this record. Its salted checksum is what finds it.
    fn pass_damaged(&mut self, name: RecordName) {
        let whole = self.head(self.at).filter(|head| head.name() == name);
        self.at += whole.map_or(RECORD_ALIGNMENT_BYTES, |head| record::record_bytes(head.payload_length));
        let mut places = (self.at..self.bytes.len()).step_by(RECORD_ALIGNMENT_BYTES);
        let next = places.find_map(|at| self.head(at).map(|head| (at, head.name())));
        (self.at, self.found) = next.map_or((self.bytes.len(), None), |(at, name)| (at, Some(name)));
    }

    fn head(&self, at: usize) -> Option<RecordHead> {
        record::parse_head(self.bytes.get(at..)?, self.frame.salt()).ok()
    }

    fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }
}

/// What a run calls its records of these indexes.
fn names(run: &Run, indexes: &Range<Index>) -> impl Iterator<Item = RecordName> {
    let (group, kind, term) = (run.group, run.kind, run.term);
    (indexes.start.0..indexes.end.0).map(move |index| (group, kind, LogId::new(term, Index(index))))
}
