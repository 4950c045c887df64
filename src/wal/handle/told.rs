//! What a scrubber has found and told, so that it tells it once; bounded, however much is wrong.
//!
//! A finding is remembered as long as its segment shows it. Beyond the bound one note says that there are more; those are
//! counted and not told, until others go and make room.

use std::collections::BTreeMap;

use crate::types::SegmentNumber;
use crate::wal::{Finding, Severity};

#[derive(Debug)]
pub(super) struct Told {
    /// What each segment showed when it was looked at last, of that which was told.
    by_segment: BTreeMap<SegmentNumber, Vec<Finding>>,
    /// The note that was told when there was no room for another.
    more: Option<Finding>,
    /// There was no room for one in this pass.
    is_over: bool,
    /// All that this pass has met, told or not.
    pass_findings: u64,
    findings_max: usize,
}

impl Told {
    pub fn new(findings_max: usize) -> Told {
        Told { by_segment: BTreeMap::new(), more: None, is_over: false, pass_findings: 0, findings_max }
    }

    /// What a segment shows now, and how much more that was counted alone. Gives what is to be told of it.
    pub fn take(&mut self, number: SegmentNumber, (findings, counted): (Vec<Finding>, u64)) -> Vec<Finding> {
        self.pass_findings += findings.len() as u64 + counted;
        let before = self.by_segment.remove(&number).unwrap_or_default();
        let (mut kept, mut new): (Vec<_>, Vec<_>) = findings.into_iter().partition(|found| before.contains(found));
        let elsewhere: usize = self.by_segment.values().map(Vec::len).sum();
        let room = self.findings_max.saturating_sub(elsewhere + kept.len());
        let left_out = new.split_off(room.min(new.len()));
        kept.extend(new.iter().cloned());
        if !kept.is_empty() {
            self.by_segment.insert(number, kept);
        }
        if let Some(first) = left_out.first() {
            self.is_over = true;
            if self.more.is_none() {
                new.push(self.more.insert(more(first, self.findings_max)).clone());
            }
        }
        new
    }

    /// Ends a pass over these segments, and gives how much it met. What was of others is forgotten.
    pub fn end_pass(&mut self, sealed: &[SegmentNumber]) -> u64 {
        self.by_segment.retain(|number, _| sealed.contains(number));
        if !std::mem::take(&mut self.is_over) {
            self.more = None;
        }
        std::mem::take(&mut self.pass_findings)
    }

    /// What is remembered, and the note that there is more.
    pub fn findings(&self) -> Vec<Finding> {
        self.by_segment.values().flatten().chain(&self.more).cloned().collect()
    }
}

fn more(first: &Finding, findings_max: usize) -> Finding {
    Finding {
        severity: Severity::Note,
        what: format!("{findings_max} findings are told already: this one and others are counted, and not told"),
        acknowledged: None,
        entries: Vec::new(),
        ..first.clone()
    }
}
