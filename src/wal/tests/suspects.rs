//! Damaged entries that something may have ended: which of them are dead, and what is known beside them.

use super::dead::records_start;
use super::rig::{DIRECTORY, G, Rig, open, options, segment};
use super::seals::configure;
use crate::sim::disk::SimDisk;
use crate::types::{GroupId, Index, LogId, Place, SegmentNumber, Term};
use crate::wal::error::LogIds;
use crate::wal::frame::Run;
use crate::wal::record::RecordKind;
use crate::wal::{Acknowledged, Analysis, Error, Finding, Log, Options, Severity, Source};

const OTHER: GroupId = GroupId(1);

/// Damage to one entry of [`G`] in its own frame, or to nothing that has a name.
fn damaged(at: u64, index: Option<u64>) -> Finding {
    let ids = |index: u64| LogIds {
        group: G,
        kind: RecordKind::Entry,
        first: Index(index),
        end: Index(index + 1),
        term: Some(Term(1)),
    };
    Finding {
        severity: Severity::Corrupt,
        file: segment(1),
        bytes: at..at + 1,
        what: "damaged".to_owned(),
        acknowledged: Some(Acknowledged::Yes),
        entries: index.map(ids).into_iter().collect(),
    }
}

fn replacing(group: GroupId, first: u64) -> Run {
    let (kind, first) = (RecordKind::Entry, Index(first));
    Run { group, kind, first, count: 1, term: Term(2), previous_term: Term(1) }
}

/// What becomes of these findings behind these runs: where each stands, and how bad it is.
fn settled(findings: impl IntoIterator<Item = Finding>, runs: &[Run]) -> Vec<(u64, Severity)> {
    let mut analysis = Analysis::empty(None, SegmentNumber(1));
    findings.into_iter().for_each(|finding| analysis.suspect(finding));
    runs.iter().for_each(|run| analysis.end_suspects(run));
    analysis.settle_suspects();
    analysis.findings.iter().map(|finding| (finding.bytes.start, finding.severity)).collect()
}

/// Of an empty list of names all are dead: what named nothing would have been noted, and the log opened.
#[test]
fn what_names_nothing_is_not_taken_for_dead() {
    let found = settled([damaged(1, None), damaged(2, Some(5))], &[replacing(G, 1)]);
    assert_eq!(found, [(1, Severity::Corrupt), (2, Severity::Note)]);
}

/// Those beyond the bound stay what they are, and all stay in the order of the log.
#[test]
fn damage_beyond_the_bound_of_suspects_stays_damage() {
    let found = settled((0..1030).map(|at| damaged(at, Some(at + 1))), &[replacing(G, 1)]);
    let of = |severity| found.iter().filter(|own| own.1 == severity).map(|own| own.0).collect::<Vec<_>>();
    assert_eq!(of(Severity::Note), (0..1024).collect::<Vec<_>>());
    assert_eq!(of(Severity::Corrupt), (1024..1030).collect::<Vec<_>>());
    assert!(found.is_sorted(), "as they stand in the log");
}

#[test]
fn entries_are_ended_by_their_own_group_from_its_first_index_on() {
    let found = |run| settled([damaged(0, Some(4)), damaged(1, Some(5))], &[run]);
    let dead = |severities: [Severity; 2]| vec![(0, severities[0]), (1, severities[1])];
    assert_eq!(found(replacing(G, 4)), dead([Severity::Note, Severity::Note]));
    assert_eq!(found(replacing(G, 5)), dead([Severity::Corrupt, Severity::Note]));
    assert_eq!(found(replacing(G, 6)), dead([Severity::Corrupt, Severity::Corrupt]));
    assert_eq!(found(replacing(OTHER, 4)), dead([Severity::Corrupt, Severity::Corrupt]));
    let purge = Run { kind: RecordKind::Purge, ..replacing(G, 4) };
    assert_eq!(found(purge), dead([Severity::Corrupt, Severity::Corrupt]));
}

/// A frame may hold tens of thousands of runs, and each suspect remembered all that are damaged.
#[test]
fn of_a_suspect_the_lowest_damaged_index_of_each_group_is_remembered() {
    let ids = |group, index: u64| LogIds { group, ..damaged(0, Some(index)).entries[0] };
    let of_own = (0..1000).map(|at| ids(G, 12 + 2 * at)).chain([ids(G, 10)]);
    let entries: Vec<LogIds> = of_own.chain((0..1000).map(|at| ids(OTHER, 7 + 2 * at))).collect();
    let found = |runs: &[Run]| {
        let mut analysis = Analysis::empty(None, SegmentNumber(1));
        analysis.suspect(Finding { entries: entries.clone(), ..damaged(1, Some(1)) });
        assert_eq!(analysis.suspects[0].live, [(G, Index(10)), (OTHER, Index(7))]);
        runs.iter().for_each(|run| analysis.end_suspects(run));
        analysis.settle_suspects();
        analysis.findings[0].severity
    };
    for (of_own, of_other, expected) in
        [(10, 7, Severity::Note), (1, 1, Severity::Note), (11, 7, Severity::Corrupt), (10, 8, Severity::Corrupt)]
    {
        assert_eq!(found(&[replacing(G, of_own), replacing(OTHER, of_other)]), expected, "{of_own}, {of_other}");
    }
}

/// The disk of a log on which nothing is under way.
fn at_rest(mut rig: Rig) -> SimDisk {
    rig.rest();
    rig.disk.crash_to(&vec![0; rig.disk.loose().len()]);
    rig.disk
}

/// Where the next frame will begin.
fn next_frame(rig: &mut Rig) -> u64 {
    rig.settle();
    rig.log.durable_end().offset
}

fn refusal(disk: &SimDisk) -> Finding {
    match Log::open(&disk.files(), options(), Place::START, 1) {
        Err(Error::Damaged(finding)) => finding,
        other => panic!("{other:?}"),
    }
}

/// An entry that was purged in a segment that is still needed may have been a configuration.
#[test]
fn a_damaged_entry_that_was_purged_in_a_segment_still_needed_stays_damaged() {
    let mut rig = Rig::new(options());
    rig.settle();
    rig.grow(OTHER, 1, 100);
    let start = next_frame(&mut rig);
    rig.grow(G, 1, 600);
    rig.settle();
    rig.purge(G, LogId::new(Term(1), Index(1)));
    rig.settle();
    rig.grow(G, 1, 600);
    let disk = at_rest(rig);
    disk.flip_bit(&segment(1), start + records_start(2) + 200, 3);
    let finding = refusal(&disk);
    assert_eq!((finding.severity, finding.entries[0].first), (Severity::Corrupt, Index(1)), "{finding}");
}

/// A cut whose record is damaged is known by its name alone, as an entry is. What ended what it cut does not make it whole.
#[test]
fn a_damaged_cut_stays_damaged_whatever_was_written_behind_it() {
    let mut rig = Rig::new(options());
    rig.settle();
    rig.grow(G, 4, 600);
    let start = next_frame(&mut rig);
    rig.truncate(G, Index(3));
    rig.settle();
    rig.model.term = Term(2);
    let entries = rig.model.entries_behind(Index(1), 3, 600);
    rig.append(G, &entries);
    let disk = at_rest(rig);
    disk.flip_bit(&segment(1), start + records_start(2) + 10, 3);
    let finding = refusal(&disk);
    assert_eq!((finding.severity, finding.entries[0].kind), (Severity::Corrupt, RecordKind::Truncate), "{finding}");
}

/// Two frames in flight, the second of which replaces what is in the first: nothing proves the first, and it is damaged.
/// It may never have been acknowledged, and it may: that is for the owner to say.
#[test]
fn what_an_unproven_frame_replaced_of_another_is_unclear() {
    let two = Options { writes_in_flight: 2, ..options() };
    let mut rig = Rig::new(two);
    rig.settle();
    rig.grow(G, 2, 600);
    let start = next_frame(&mut rig);
    rig.grow(G, 2, 600);
    rig.pump();
    rig.model.term = Term(2);
    let entries = rig.model.entries_behind(Index(2), 3, 600);
    rig.append(G, &entries);
    rig.pump();
    assert_eq!(rig.disk.pending().len(), 2, "both are in flight");
    rig.disk.complete_all();
    rig.disk.crash_to(&vec![0; rig.disk.loose().len()]);
    let (.., whole) = open(&rig.disk.fork(), &options()).expect("it is intact");
    assert_eq!(whole[&G].entries.last().map(|entry| entry.id), Some(LogId::new(Term(2), Index(5))));
    rig.disk.flip_bit(&segment(1), start + records_start(2) + 200, 3);
    assert_eq!(refusal(&rig.disk).severity, Severity::Unclear);
}

/// What else is in a frame of which dead entries are damaged is known: a configuration of another group.
#[test]
fn a_configuration_beside_dead_entries_is_known() {
    let mut rig = Rig::new(options());
    rig.settle();
    rig.grow(G, 2, 600);
    configure(&mut rig, OTHER);
    let start = next_frame(&mut rig);
    rig.grow(G, 2, 600);
    configure(&mut rig, OTHER);
    rig.settle();
    rig.model.term = Term(2);
    let entries = rig.model.entries_behind(Index(2), 3, 600);
    rig.append(G, &entries);
    let disk = at_rest(rig);
    let memberships = |disk: &SimDisk| open(&disk.fork(), &options()).expect("it opens").1.memberships;
    let whole = memberships(&disk);
    assert_eq!(whole[&OTHER].len(), 2);
    disk.flip_bit(&segment(1), start + records_start(4) + 200, 3);
    assert_eq!(memberships(&disk), whole);
}

/// Segments that a purge gave up, the first of them damaged. What is known of its configurations is what is known without
/// the damage; and one that a damaged frame had cut off does not come back.
#[test]
fn configurations_in_a_damaged_segment_that_was_given_up() {
    let mut rig = Rig::new(options());
    rig.settle();
    configure(&mut rig, G);
    rig.grow(G, 2, 600);
    let entries = next_frame(&mut rig);
    rig.grow(G, 1, 600);
    rig.settle();
    configure(&mut rig, G);
    let cut = next_frame(&mut rig);
    rig.truncate(G, Index(5));
    rig.settle();
    rig.rotate(OTHER);
    rig.rotate(OTHER);
    rig.purge(G, rig.model.group(G).last());
    rig.purge(OTHER, rig.model.group(OTHER).last());
    rig.grow(OTHER, 1, 300);
    let disk = at_rest(rig);
    let indexes = |disk: &SimDisk| {
        let (_, recovery, _) = open(&disk.fork(), &options()).expect("nothing of it is needed");
        recovery.memberships[&G].iter().map(|&(index, _)| index.0).collect::<Vec<_>>()
    };
    assert_eq!(indexes(&disk), [1]);
    for frame in [entries, cut] {
        let fork = disk.fork();
        fork.flip_bit(&segment(1), frame + 20, 3);
        assert_eq!(indexes(&fork), [1], "{frame}");
    }
}

/// Every other record of a frame is damaged: all of them are dead if the first one is.
#[test]
fn a_frame_with_alternate_damage_is_dead_from_its_first_damaged_entry_on() {
    for (from, severity) in [(3, Some(Severity::Note)), (4, Some(Severity::Corrupt))] {
        let mut rig = Rig::new(options());
        rig.settle();
        rig.grow(G, 2, 600);
        let start = next_frame(&mut rig);
        rig.grow(G, 200, 48);
        rig.settle();
        rig.model.term = Term(2);
        let entries = rig.model.entries_behind(Index(from - 1), 200, 48);
        rig.append(G, &entries);
        let disk = at_rest(rig);
        (0..100).for_each(|at| disk.flip_bit(&segment(1), start + records_start(2) + at * 2 * (40 + 48) + 50, 3));
        let found = Analysis::read(&disk.files(), &Source::from_outside(DIRECTORY)).expect("it can be read");
        assert_eq!((found.severity(), found.findings.len()), (severity, 1), "{from}: {:?}", found.findings);
        let entries: Vec<Index> = found.findings[0].entries.iter().map(|ids| ids.first).collect();
        assert_eq!(entries, (0..100).map(|at| Index(3 + 2 * at)).collect::<Vec<_>>(), "{from}");
        assert!(!found.findings[0].what.contains("not named"), "{from}");
    }
}
