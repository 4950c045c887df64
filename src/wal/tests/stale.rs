//! A segment that cannot be read: the log alone knows whether it gave it up.

use super::rig::{G, Rig, options, segment};
use crate::disk::Files;
use crate::limits::{BLOCK_BYTES, SEGMENT_BYTES_MIN};
use crate::types::{Entry, Index, SegmentNumber};
use crate::wal::followed::Followed;
use crate::wal::{Error, LogIds};

/// Three segments or more, the last of them in use.
fn rotated() -> Rig {
    let mut rig = Rig::new(options());
    for _ in 0..3 {
        rig.rotate(G);
    }
    rig.settle();
    rig
}

/// What the plan says, before the log was asked and after.
fn read(rig: &Rig) -> [Result<Vec<Entry>, Error>; 2] {
    let plan = rig.log.plan_read(G, Index(1), Index(2), 1 << 20);
    [plan.run(&rig.files), rig.log.judged(plan.run(&rig.files))]
}

/// It was told to read again, for ever.
#[test]
fn zeros_from_the_header_of_a_segment_of_the_log_on_are_damage() {
    for bytes in [BLOCK_BYTES as u64 * 3, SEGMENT_BYTES_MIN / 2, SEGMENT_BYTES_MIN] {
        let rig = rotated();
        rig.disk.zero(&segment(1), 0..bytes);
        let [run, judged] = read(&rig);
        assert!(matches!(run, Err(Error::Stale { segment: SegmentNumber(1), .. })), "{run:?}");
        let Err(Error::Damaged(finding)) = judged else { panic!("{judged:?}") };
        assert_eq!(finding.file, segment(1));
        assert_eq!(finding.entries[0].first, Index(1));
        let LogIds { group, .. } = finding.entries[0];
        assert_eq!(group, G);
    }
}

/// Of a segment whose file somebody removed while it was closed.
#[test]
fn a_segment_of_the_log_whose_file_is_gone_is_an_error_of_the_disk() {
    let rig = rotated();
    let first = rig.log.locator.segments().next().expect("there are three");
    rig.files.close(first.file);
    let [run, judged] = read(&rig);
    assert!(matches!(run, Err(Error::Stale { .. })), "{run:?}");
    let Err(Error::Disk(error)) = judged else { panic!("{judged:?}") };
    assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
}

/// A header that was lost alone costs no entry.
#[test]
fn a_lost_header_costs_no_read() {
    let rig = rotated();
    rig.disk.zero(&segment(1), 0..BLOCK_BYTES as u64);
    let [run, judged] = read(&rig);
    assert_eq!(run.expect("its frames are intact"), judged.expect("its frames are intact"));
}

#[test]
fn a_segment_that_was_given_up_stays_stale_and_the_next_plan_says_why() {
    let mut rig = rotated();
    let plan = rig.log.plan_read(G, Index(1), Index(2), 1 << 20);
    let entries = rig.model.group(G).entries;
    rig.purge(G, entries[entries.len() - 2].id);
    for _ in 0..3 {
        rig.rotate(G);
    }
    let said = rig.log.judged(plan.run(&rig.files));
    assert!(matches!(said, Err(Error::Stale { segment: SegmentNumber(1), .. })), "{said:?}");
    let [_, again] = read(&rig);
    assert!(matches!(again, Err(Error::Trimmed { .. })), "{again:?}");
}

/// The log says that an entry is durable, and has lost where: that is no empty answer.
#[test]
fn a_durable_entry_without_a_place_is_damage() {
    let mut rig = rotated();
    rig.log.locator.followed = Some(Followed::new(rig.log.groups()));
    rig.log.locator.remove_segment(SegmentNumber(1));
    let [run, _] = read(&rig);
    assert!(matches!(run, Err(Error::Damaged(_))), "{run:?}");
    let end = rig.model.group(G).last().index.next();
    let behind = rig.log.plan_read(G, end, end.plus(5), 1 << 20).run(&rig.files);
    assert_eq!(behind.expect("none is durable"), []);
}
