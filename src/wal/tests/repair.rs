//! Repair: what it costs is said before, and a cut of power in its midst leaves the old log or the new one.

use super::model::{Model, State, state_of};
use super::rig::{G, Rig, identity, open, options, segment};
use crate::checksum::Checksum;
use crate::disk::Files;
use crate::limits::SEGMENT_BYTES_MIN;
use crate::random::Random;
use crate::sim::disk::SimDisk;
use crate::types::{FrameNumber, GroupId, Index, LogId, Place, SegmentNumber, Term};
use crate::wal::repair::{self, MANIFEST_NAME, Obstacle, Orders, Plan, Step};
use crate::wal::{Analysis, Log, Reading, Severity, Source, chain};

/// Two segments and the beginning of a third, at rest, without anything loose.
fn log() -> (SimDisk, Place) {
    let mut rig = Rig::new(options());
    rig.settle();
    for _ in 0..6 {
        rig.grow(G, 1, 7_000);
        rig.grow(GroupId(4), 1, 30);
        rig.settle();
    }
    rig.rest();
    let end = rig.log.durable_end();
    assert_eq!(end.segment, SegmentNumber(2));
    rig.disk.crash_to(&vec![0; rig.disk.loose().len()]);
    (rig.disk, end)
}

fn source(evidence: Place, exclusive: bool) -> Source {
    Source {
        directory: "log".to_owned(),
        identity: Some(identity()),
        evidence,
        exclusive,
        reading: Reading::Everything,
    }
}

fn orders(plan: &Plan) -> Orders {
    let loss = plan.damage.as_ref().and_then(|(_, loss)| loss.clone());
    Orders { loss, mark: Some(("no-voice".to_owned(), "why\n".to_owned())), seed: 3, wall_clock_milliseconds: 1 }
}

fn no_loss() -> Orders {
    Orders { loss: None, mark: None, seed: 3, wall_clock_milliseconds: 1 }
}

fn plan(disk: &SimDisk, evidence: Place) -> Plan {
    repair::plan(&disk.files(), &source(evidence, false)).expect("the disk is well")
}

fn analysis(disk: &SimDisk, evidence: Place) -> Analysis {
    let files = disk.files();
    let analysis = Analysis::read(&files, &source(evidence, false)).expect("the disk is well");
    analysis.close(&files);
    analysis
}

/// What the log holds, after it was opened to be written; it must be sound with this evidence.
fn opened(disk: &SimDisk, evidence: Place) -> State {
    let files = disk.files();
    let (log, _) = Log::open(&files, options(), evidence, 1).unwrap_or_else(|error| panic!("{error}"));
    state_of(&files, &log).expect("it can be read")
}

/// Where the frames of a segment lie.
fn frames(disk: &SimDisk, number: u64) -> Vec<u64> {
    let content = disk.contents(&segment(number));
    (1..SEGMENT_BYTES_MIN / 4096).map(|at| at * 4096).filter(|&at| content[at as usize..][..4] == *b"TFRM").collect()
}

#[test]
fn a_sound_log_needs_no_repair() {
    let (disk, end) = log();
    assert_eq!(plan(&disk, end), Plan::default());
    assert_eq!(repair::apply(&disk.files(), &source(end, true), &no_loss()).expect("well"), []);
}

#[test]
fn a_header_is_restored_from_its_twin() {
    let (disk, end) = log();
    let before = disk.contents(&segment(1));
    for offset in [0, SEGMENT_BYTES_MIN - 4096] {
        disk.flip_bit(&segment(1), offset + 20, 3);
        let steps = vec![Step::RestoreHeader { file: segment(1), offset }];
        assert_eq!(plan(&disk, end).steps, steps);
        assert_eq!(repair::apply(&disk.files(), &source(end, true), &no_loss()).expect("well"), steps);
        assert!(disk.contents(&segment(1)) == before && disk.loose().is_empty());
    }
}

#[test]
fn a_torn_end_is_cut_as_a_start_would_cut_it() {
    let (disk, end) = log();
    disk.fill(&segment(2), end.offset + 4096..end.offset + 5000, 9);
    let fork = disk.fork();
    assert!(matches!(&plan(&disk, end).steps[..], [Step::CutTorn { bytes, .. }] if bytes.start == end.offset));
    repair::apply(&disk.files(), &source(end, true), &no_loss()).expect("well");
    assert_eq!(plan(&disk, end), Plan::default());
    assert!(opened(&disk, end) == opened(&fork, end));
    assert!(disk.files().list("log").expect("well").iter().any(|name| name.ends_with(".cut")));
}

type Damage = Box<dyn Fn(&SimDisk)>;

/// Each class of damage to what had been acknowledged: what it is, and how it is made.
fn damages(disk: &SimDisk) -> Vec<(&'static str, SimDisk)> {
    let (first, second) = (frames(disk, 1), frames(disk, 2));
    let length = SEGMENT_BYTES_MIN;
    let made: Vec<(&'static str, Damage)> = vec![
        (
            "a flipped bit in a payload",
            Box::new({
                let at = first[2];
                move |disk| disk.flip_bit(&segment(1), at + 3000, 1)
            }),
        ),
        (
            "a head that is gone",
            Box::new({
                let at = first[2];
                move |disk| disk.zero(&segment(1), at..at + 4096)
            }),
        ),
        (
            "two frames in a row",
            Box::new({
                let (from, to) = (first[2], first[4]);
                move |disk| disk.fill(&segment(1), from..to, 7)
            }),
        ),
        (
            "a frame that cannot be read",
            Box::new({
                let at = first[3];
                move |disk| disk.make_unreadable(&segment(1), at..at + 512)
            }),
        ),
        (
            "a seal",
            Box::new({
                let at = first[first.len() - 1];
                move |disk| disk.flip_bit(&segment(1), at + 130, 1)
            }),
        ),
        (
            "an open frame",
            Box::new({
                let at = second[0];
                move |disk| disk.flip_bit(&segment(2), at + 130, 1)
            }),
        ),
        (
            "the last frame with entries",
            Box::new({
                let at = second[1];
                move |disk| disk.flip_bit(&segment(2), at + 500, 1)
            }),
        ),
        (
            "both headers",
            Box::new(move |disk| {
                disk.flip_bit(&segment(2), 20, 1);
                disk.flip_bit(&segment(2), length - 4096 + 20, 1);
            }),
        ),
        ("a segment that is missing", Box::new(move |disk| disk.lose(&segment(2)))),
        ("a segment of zeros", Box::new(move |disk| disk.zero(&segment(2), 0..length))),
    ];
    let apply = |(what, damage): (&'static str, Damage)| {
        let fork = disk.fork();
        damage(&fork);
        (what, fork)
    };
    made.into_iter().map(apply).collect()
}

#[test]
fn a_cut_says_before_what_is_lost_and_keeps_the_rest() {
    let (disk, end) = log();
    let whole = opened(&disk.fork(), end);
    for (what, disk) in damages(&disk) {
        let plan = plan(&disk, end);
        let (finding, loss) = plan.damage.clone().unwrap_or_else(|| panic!("{what} is no damage"));
        let loss = loss.unwrap_or_else(|| panic!("{what}: nothing would be left"));
        assert!(finding.severity >= Severity::Unclear);
        let unasked = repair::apply(&disk.files(), &source(end, true), &no_loss()).expect("well");
        assert!(unasked.iter().all(|step| !matches!(step, Step::CutAcknowledged(_))), "{what}");
        assert_eq!(self::plan(&disk, end).damage, plan.damage, "{what}: nothing was asked for, and nothing was cut");

        let done = repair::apply(&disk.files(), &source(end, true), &orders(&plan)).expect("well");
        assert!(done.contains(&Step::CutAcknowledged(loss.clone())), "{what}");
        assert!(disk.loose().is_empty(), "{what}: {:?}", disk.loose());
        assert_eq!(disk.contents("no-voice"), b"why\n");
        assert_eq!(self::plan(&disk, end), Plan::default(), "{what}");
        let kept = opened(&disk, end);
        for (group, entries) in &whole {
            let own = kept.get(group).map(|log| log.entries.clone()).unwrap_or_default();
            assert!(entries.entries.starts_with(&own), "{what}");
            let lost = loss.entries.iter().find(|lost| lost.group == *group);
            let missing = entries.entries.get(own.len()..).unwrap_or_default();
            let named = missing
                .iter()
                .all(|entry| lost.is_some_and(|lost| (lost.first.index..lost.end()).contains(&entry.id.index)));
            assert!(named || loss.has_unnamed, "{what}: {missing:?} and {loss:?}");
        }
    }
}

#[test]
fn what_is_lost_is_named_to_the_entry() {
    let (disk, end) = log();
    let at = frames(&disk, 1)[2];
    disk.zero(&segment(1), at..at + 4096);
    let loss = plan(&disk, end).damage.and_then(|(_, loss)| loss).expect("something is left");
    assert!(!loss.has_unnamed);
    let names: Vec<String> = loss.entries.iter().map(ToString::to_string).collect();
    assert_eq!(names, ["group 0 entries 2..7 (the last is 6@1)", "group 4 entries 2..7 (the last is 6@1)"]);
    assert_eq!(loss.entries[0].first, LogId::new(Term(1), Index(2)));
    assert!(loss.frame_last > FrameNumber(end.frame.0));
}

#[test]
fn what_is_cut_is_kept_whole_with_a_manifest() {
    let (disk, end) = log();
    let at = frames(&disk, 1)[2];
    disk.flip_bit(&segment(1), at + 3000, 1);
    let old = [disk.contents(&segment(1)), disk.contents(&segment(2))];
    let plan = plan(&disk, end);
    let loss = plan.damage.as_ref().and_then(|(_, loss)| loss.clone()).expect("something is left");
    repair::apply(&disk.files(), &source(end, true), &orders(&plan)).expect("well");
    let home = loss.directory();
    let manifest = String::from_utf8(disk.contents(&format!("{home}/{MANIFEST_NAME}"))).expect("it is text");
    assert!(manifest.contains("lost group 0 entries") && manifest.contains("of 65536 bytes"), "{manifest}");
    for (number, old) in (1..).zip(&old) {
        assert!(disk.contents(&format!("{home}/{number:016}.segment")) == *old);
        let line = format!("{number:016}.segment of 65536 bytes, checksum {}\n", Checksum::of(old));
        assert!(manifest.contains(&line), "{manifest}");
    }
}

/// The power went after the copies were made; then the manifest rots: it is not believed, and the copies are made anew.
#[test]
fn a_manifest_that_rotted_is_written_again() {
    let (disk, end) = log();
    let at = frames(&disk, 1)[2];
    disk.flip_bit(&segment(1), at + 3000, 1);
    let plan = plan(&disk, end);
    let whole = disk.fork();
    repair::apply(&whole.files(), &source(end, true), &orders(&plan)).expect("well");
    let home = plan.damage.as_ref().and_then(|(_, loss)| loss.as_ref()).expect("something is left").directory();
    let name = format!("{home}/{MANIFEST_NAME}");
    let manifest = whole.contents(&name);
    for bit in (0..manifest.len() as u64).step_by(7) {
        let fork = disk.fork();
        fork.files().create_directory(&home).expect("well");
        fork.plant(&name, &manifest);
        fork.flip_bit(&name, bit, 1);
        repair::apply(&fork.files(), &source(end, true), &orders(&plan)).expect("well");
        assert!(fork.contents(&name) == manifest, "flipped at {bit}");
    }
}

#[test]
fn another_loss_than_the_one_agreed_to_is_not_taken() {
    let (disk, end) = log();
    let second = frames(&disk, 2);
    disk.flip_bit(&segment(2), second[1] + 500, 1);
    let agreed = orders(&plan(&disk, end));
    let first = frames(&disk, 1);
    disk.flip_bit(&segment(1), first[2] + 3000, 1);
    assert_eq!(repair::apply(&disk.files(), &source(end, true), &agreed).expect("well"), []);
    assert!(analysis(&disk, end).damage().is_some());
}

#[test]
fn nothing_is_cut_where_nothing_would_be_left() {
    let (disk, end) = log();
    disk.zero(&segment(1), 0..SEGMENT_BYTES_MIN);
    let plan = plan(&disk, end);
    assert!(matches!(plan.damage, Some((_, None))));
    assert_eq!(plan.obstacle, Some(Obstacle::NothingLeft));
    assert_eq!(repair::apply(&disk.files(), &source(end, true), &orders(&plan)).expect("well"), []);
}

/// It was said that nothing would be left.
#[test]
fn a_cut_that_would_bring_back_what_was_purged_is_said_to_do_so() {
    let mut rig = Rig::new(options());
    rig.settle();
    for _ in 0..3 {
        rig.rotate(G);
    }
    rig.settle();
    let damaged = rig.log.durable_end();
    rig.grow(G, 1, 300);
    rig.settle();
    rig.purge(G, rig.model.group(G).last());
    rig.rest();
    let (disk, end) = (rig.disk, rig.log.durable_end());
    assert_eq!(damaged.segment, end.segment);
    disk.crash_to(&vec![0; disk.loose().len()]);
    for number in 1..end.segment.0 {
        if disk.files().open_read(&segment(number)).is_ok() {
            disk.lose(&segment(number));
        }
    }
    assert_eq!(plan(&disk, end), Plan::default(), "nothing before the purge is needed");
    disk.flip_bit(&segment(end.segment.0), damaged.offset + 4, 1);
    let plan = plan(&disk, end);
    assert!(matches!(plan.damage, Some((_, None))), "{plan:?}");
    assert_eq!(plan.obstacle, Some(Obstacle::PurgedAgain));
}

/// Of a log in use: a step was planned for headers that were those of another segment by then.
#[test]
fn a_header_without_a_twin_that_says_the_same_is_not_restored() {
    let (disk, end) = log();
    let (files, source) = (disk.files(), source(end, false));
    let gathered = chain::gather(&files, &source).expect("the disk is well");
    assert_eq!(repair::damaged_headers(&files, &gathered, &source), []);
    disk.zero(&segment(1), 0..4096);
    let steps = repair::damaged_headers(&files, &gathered, &source);
    assert_eq!(steps, [Step::RestoreHeader { file: segment(1), offset: 0 }]);
    disk.zero(&segment(1), SEGMENT_BYTES_MIN - 4096..SEGMENT_BYTES_MIN);
    assert_eq!(repair::damaged_headers(&files, &gathered, &source), []);
}

#[test]
fn a_torn_end_that_is_not_kept_aside_is_said_not_to_be() {
    let (disk, end) = log();
    for number in 0..16 {
        disk.plant(&format!("log/{number:016}-8192.cut"), &[1; 500]);
    }
    disk.fill(&segment(2), end.offset + 4096..end.offset + 5000, 9);
    let (_, recovery) = Log::open(&disk.files(), options(), end, 1).expect("it is torn, not damaged");
    let is_said = |own: &crate::wal::Finding| own.severity == Severity::Note && own.what.contains("is not kept aside");
    assert!(recovery.findings.iter().any(is_said), "{:?}", recovery.findings);
}

#[test]
fn a_damaged_segment_that_is_no_part_of_the_log_is_set_aside() {
    let mut rig = Rig::new(options());
    rig.settle();
    rig.rotate(G);
    rig.rotate(G);
    let last = rig.model.group(G).last();
    rig.purge(G, last);
    rig.rest();
    let end = rig.log.durable_end();
    let disk = rig.disk;
    disk.crash_to(&vec![0; disk.loose().len()]);
    let oldest = disk.files().list("log").expect("well").first().cloned().expect("there are segments");
    let name = format!("log/{oldest}");
    disk.zero(&name, 0..4096);
    disk.zero(&name, SEGMENT_BYTES_MIN - 4096..SEGMENT_BYTES_MIN);
    assert!(open(&disk.fork(), &options()).is_err(), "it is unclear what it was");
    let steps = vec![Step::SetAside { file: name }];
    assert_eq!(plan(&disk, end).steps, steps);
    assert_eq!(repair::apply(&disk.files(), &source(end, true), &no_loss()).expect("well"), steps);
    assert_eq!(plan(&disk, end), Plan::default());
    assert!(
        open(&disk, &options()).is_ok()
            && disk.files().list(repair::SET_ASIDE_DIRECTORY).expect("it is there").len() == 1
    );
}

/// The power goes at each operation: what is there then is the old log or the new one, and to go on gives the new one.
#[test]
fn a_repair_that_is_cut_off_leaves_the_old_log_or_the_new_one() {
    let (disk, end) = log();
    let mut random = Random::seeded(5);
    let mut cases = 0;
    let mut kinds = damages(&disk);
    let header = disk.fork();
    header.flip_bit(&segment(1), 20, 3);
    let torn = disk.fork();
    torn.fill(&segment(2), end.offset + 4096..end.offset + 5000, 9);
    kinds.extend([("one header", header), ("a torn end", torn)]);
    for (what, damaged) in kinds {
        let planned = plan(&damaged, end);
        let orders = orders(&planned);
        let goal = damaged.fork();
        let before = goal.operations();
        repair::apply(&goal.files(), &source(end, true), &orders).expect("well");
        let operations = goal.operations() - before;
        let goal = opened(&goal, end);
        for at in 0..operations {
            let fork = damaged.fork();
            fork.crash_at(fork.operations() + at);
            // Whether it says so depends on whether it was writing: what cannot be read is a finding.
            let _told = repair::apply(&fork.files(), &source(end, true), &orders);
            assert!(fork.is_off(), "{what} cut at {at}");
            fork.crash(&mut random);
            let found = plan(&fork, end);
            let is_new = found.damage.is_none() && planned.damage.is_some();
            assert!(is_new || found.damage == planned.damage, "{what} cut at {at}: {found:?}");
            let again = self::orders(&found);
            repair::apply(&fork.files(), &source(end, true), &again)
                .unwrap_or_else(|error| panic!("{what} {at}: {error}"));
            assert_eq!(plan(&fork, end), Plan::default(), "{what} cut at {at}");
            if let Some((_, Some(loss))) = &planned.damage {
                let manifest = fork.contents(&format!("{}/{MANIFEST_NAME}", loss.directory()));
                assert!(manifest.ends_with(b"\n"), "{what} cut at {at}");
                assert_eq!(fork.contents("no-voice"), b"why\n", "{what} cut at {at}");
            }
            assert!(opened(&fork, end) == goal, "{what} cut at {at}");
            cases += 1;
        }
    }
    println!("{cases} cases");
    assert!(cases > 300, "{cases}");
}

/// The segment that a cut began could have a lower number than the last one that the superblock had seen. Then that
/// outranked all that was written later: no later durable end could be saved, and what a covering frame proved was not
/// taken for proven.
#[test]
fn what_the_superblock_has_seen_does_not_outrank_what_is_written_after_a_cut() {
    let (disk, end) = log();
    let older = Place { segment: SegmentNumber(40), offset: 40_960, frame: FrameNumber(end.frame.0 + 100) };
    let newest_lost = disk.fork();
    for name in disk.files().list("log").expect("well").iter().filter(|name| !name.ends_with("1.segment")) {
        newest_lost.lose(&format!("log/{name}"));
    }
    for (disk, evidence) in [(disk, older), (newest_lost, end)] {
        let plan = plan(&disk, evidence);
        repair::apply(&disk.files(), &source(evidence, true), &orders(&plan)).expect("well");
        let files = disk.files();
        let (log, _) = Log::open(&files, options(), evidence, 1).expect("it was repaired");
        assert!(log.durable_end() >= evidence, "the superblock can follow: {} {evidence}", log.durable_end());
        let found = state_of(&files, &log).expect("it can be read");
        let mut rig = Rig::with(disk, log, Model { term: Term(2), ..Model::new(found) });
        rig.grow(G, 1, 300);
        rig.settle();
        let covered = rig.log.durable_end();
        rig.rest();
        assert!(rig.log.is_covered());
        rig.disk.crash_to(&vec![0; rig.disk.loose().len()]);
        rig.disk.zero(&segment(covered.segment.0), covered.offset - 4096..covered.offset);
        assert_eq!(analysis(&rig.disk, evidence).severity(), Some(Severity::Corrupt));
    }
}

/// Entries that others had replaced were counted as lost: somebody had to agree to the loss of what was gone long ago.
#[test]
fn what_was_replaced_or_cut_before_is_not_named_as_lost() {
    let mut rig = Rig::new(options());
    rig.settle();
    for group in [G, GroupId(4), GroupId(5)] {
        rig.grow(group, 2, 30);
    }
    rig.settle();
    let first = rig.log.durable_end();
    for group in [G, GroupId(4), GroupId(5)] {
        rig.grow(group, 3, 30);
    }
    rig.settle();
    rig.model.term = Term(2);
    let entries = rig.model.entries_behind(Index(2), 1, 30);
    rig.append(G, &entries);
    rig.truncate(GroupId(4), Index(4));
    rig.truncate(GroupId(5), Index(3));
    rig.rest();
    let end = rig.log.durable_end();
    let disk = rig.disk;
    disk.crash_to(&vec![0; disk.loose().len()]);
    disk.flip_bit(&segment(1), first.offset - 4096 + 3, 1);
    let loss = plan(&disk, end).damage.and_then(|(_, loss)| loss).expect("something is left");
    let names: Vec<String> = loss.entries.iter().map(ToString::to_string).collect();
    assert_eq!(
        names,
        [
            "group 0 entries 1..4 (the last is 3@2)",
            "group 4 entries 1..4 (the last is 3@1)",
            "group 5 entries 1..3 (the last is 2@1)",
        ]
    );
}
