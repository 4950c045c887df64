//! A log is opened by its seals and says the same as if everything had been read.

use std::cell::Cell;
use std::rc::Rc;

use super::model::{entry, state_of};
use super::rig::{DIRECTORY, G, Rig, identity, open, options, segment};
use crate::random::Random;
use crate::sim::disk::{Act, SimDisk};
use crate::types::{Entry, GroupId, Incarnation, Index, LogId, Member, Membership, NodeId, Payload, Place, Term};
use crate::wal::frame::OPEN_FRAME_BYTES_MAX;
use crate::wal::log::Phase;
use crate::wal::outline::{OUTLINE_MEMBERSHIPS_MAX, OUTLINE_RUNS_MAX, OutlineRun};
use crate::wal::sections::SealSection;
use crate::wal::{Analysis, Error, Log, Options, Reading, RecordKind, Severity, Source};

fn analysis(disk: &SimDisk, reading: Reading) -> Analysis {
    let (directory, identity) = (DIRECTORY.to_owned(), Some(identity()));
    let source = Source { directory, identity, evidence: Place::START, exclusive: false, reading };
    Analysis::read(&disk.fork().files(), &source).expect("the directory can be read")
}

pub fn open_by_seals(disk: &SimDisk, options: &Options) -> Result<Log, Error> {
    let start = (Place::START, Reading::BySeals);
    Log::open_reading(&disk.files(), options.clone(), start, 1).map(|(log, _)| log)
}

/// What is on a disk is the same by its seals as by all its frames: everything that a start takes from it, and each
/// entry that is read through that. Gives how many segments were taken in by their seals.
pub fn compare(disk: &SimDisk, options: &Options) -> usize {
    let mut whole = analysis(disk, Reading::Everything);
    let mut by_seals = analysis(disk, Reading::BySeals);
    let damaged = whole.locator.forget_reading();
    assert!(damaged.iter().all(|&number| whole.findings.iter().any(|finding| finding.segment() == Some(number))));
    let taken = by_seals.locator.forget_reading().into_iter().filter(|number| !damaged.contains(number)).count();
    // On one line each: the indented form took a fifth of the time of D2.
    assert_eq!(format!("{by_seals:?}"), format!("{whole:?}"));
    if whole.damage().is_none() && !whole.chain.is_empty() {
        let fork = disk.fork();
        let log = open_by_seals(&fork, options).expect("it is intact");
        let (.., found) = open(&disk.fork(), options).expect("it is intact");
        assert_eq!(state_of(&fork.files(), &log).expect("it is intact"), found);
    }
    taken
}

/// A disk on which nothing is under way.
fn at_rest(mut rig: Rig) -> SimDisk {
    rig.rest();
    rig.disk.crash_to(&vec![0; rig.disk.loose().len()]);
    rig.disk
}

fn membership(id: LogId) -> Entry {
    let member = Member { id: NodeId(id.index.0), incarnation: Incarnation(1), address: ([127, 0, 0, 1], 1).into() };
    let members = Membership { voters: [member.id].into(), members: vec![member], ..Membership::default() };
    Entry { id, payload: Payload::Membership(members.into()) }
}

/// Adds a configuration behind a group's last entry.
pub fn configure(rig: &mut Rig, group: GroupId) {
    let id = LogId::new(rig.model.term, rig.model.group(group).last().index.next());
    rig.append(group, &[membership(id)]);
}

/// One thing happens to one of several groups.
fn change(rig: &mut Rig, random: &mut Random) {
    let group = GroupId(random.below(4) as u32 * 3);
    let state = rig.model.group(group);
    let any = |random: &mut Random| state.entries[random.below(state.entries.len() as u64) as usize].id;
    match random.below(16) {
        0 if !state.entries.is_empty() => rig.truncate(group, any(random).index),
        1 if !state.entries.is_empty() => rig.purge(group, any(random)),
        2 => rig.model.term = rig.model.term.next(),
        3 if !state.entries.is_empty() => {
            let first = any(random).index;
            rig.model.term = rig.model.term.next();
            let entries: Vec<_> =
                (0..random.between(1, 4)).map(|ahead| entry(rig.model.term, first.plus(ahead), 300)).collect();
            rig.append(group, &entries);
        }
        4 => configure(rig, group),
        5..=9 => rig.grow(group, random.between(1, 5), random.below(900) as usize),
        10..=12 => rig.grow(group, 1, random.below(9000) as usize),
        _ => rig.settle(),
    }
}

#[test]
fn groups_cuts_purges_terms_and_configurations_are_the_same_by_seals() {
    let mut taken = 0;
    for seed in 0..60 {
        let mut random = Random::seeded(seed);
        let segment_bytes = [64 << 10, 128 << 10, 512 << 10][seed as usize % 3];
        let options = Options { segment_bytes, writes_in_flight: 1 + seed as usize % 4, ..options() };
        let mut rig = Rig::new(options.clone());
        rig.settle();
        while rig.log.counters().segments < 7 {
            change(&mut rig, &mut random);
        }
        taken += compare(&at_rest(rig), &options);
    }
    assert!(taken > 100, "{taken}");
}

/// The numbers of the segments that hold frames, and of those taken in by their seals.
fn taken(disk: &SimDisk) -> (Vec<u64>, Vec<u64>) {
    let by_seals = analysis(disk, Reading::BySeals);
    let chain = by_seals.chain.iter().map(|segment| segment.header.number.0).collect();
    let taken = by_seals.locator.segments().filter(|segment| !segment.is_verified);
    (chain, taken.map(|segment| segment.header.number.0).collect())
}

fn rotate(rig: &mut Rig, times: u64) {
    let until = rig.log.counters().segments + times;
    while rig.log.counters().segments < until {
        rig.grow(G, 1, 20_000);
        rig.settle();
    }
}

#[test]
fn all_but_the_last_two_segments_are_taken_by_their_seals() {
    for segments in 1..8 {
        let mut rig = Rig::new(options());
        rotate(&mut rig, segments - 1);
        let disk = at_rest(rig);
        let (chain, taken) = taken(&disk);
        assert_eq!(chain.len() as u64, segments);
        assert_eq!(taken, chain[..chain.len().saturating_sub(2)]);
        compare(&disk, &options());
    }
}

#[test]
fn a_segment_with_more_runs_than_an_outline_holds_is_read_whole() {
    for (runs, is_taken) in [(OUTLINE_RUNS_MAX as u64 - 1, true), (OUTLINE_RUNS_MAX as u64, false)] {
        let options = Options { segment_bytes: 2 << 20, ..options() };
        let mut rig = Rig::new(options.clone());
        for _ in 0..runs {
            rig.model.term = rig.model.term.next();
            rig.grow(G, 1, 100);
            rig.settle();
        }
        rig.grow(GroupId(1), 1, 100);
        rotate(&mut rig, 3);
        let disk = at_rest(rig);
        let (chain, taken) = taken(&disk);
        assert_eq!((chain.len(), taken), (4, if is_taken { vec![1, chain[1]] } else { vec![chain[1]] }), "{runs}");
        assert_eq!(compare(&disk, &options), if is_taken { 2 } else { 1 });
    }
}

#[test]
fn a_segment_with_more_configurations_than_an_outline_holds_is_read_whole() {
    for (frames, is_taken) in [(OUTLINE_MEMBERSHIPS_MAX, true), (OUTLINE_MEMBERSHIPS_MAX + 1, false)] {
        let options = Options { segment_bytes: 512 << 10, ..options() };
        let mut rig = Rig::new(options.clone());
        for _ in 0..frames {
            configure(&mut rig, G);
            rig.grow(G, 1, 100);
            rig.settle();
        }
        rotate(&mut rig, 3);
        let disk = at_rest(rig);
        let by_seals = analysis(&disk, Reading::BySeals);
        assert_eq!(by_seals.memberships[&G].len(), frames);
        assert_eq!(taken(&disk).1.contains(&1), is_taken, "{frames}");
        compare(&disk, &options);
    }
}

/// A configuration comes and goes within one frame, and what went does not come back.
#[test]
fn configurations_that_ended_are_not_taken_from_an_old_segment() {
    let mut rig = Rig::new(options());
    rig.settle();
    rig.grow(G, 3, 10);
    configure(&mut rig, G);
    configure(&mut rig, G);
    rig.truncate(G, Index(5));
    rig.model.term = Term(2);
    rig.grow(G, 1, 10);
    configure(&mut rig, G);
    rig.truncate(G, Index(6));
    configure(&mut rig, G);
    rig.settle();
    rotate(&mut rig, 1);
    configure(&mut rig, G);
    rig.settle();
    rotate(&mut rig, 3);
    let disk = at_rest(rig);
    let found = analysis(&disk, Reading::BySeals).memberships;
    let indexes: Vec<u64> = found[&G].iter().map(|(index, _)| index.0).collect();
    assert_eq!((indexes.len(), &indexes[..2]), (3, &[4, 6][..]), "{indexes:?}");
    assert!(compare(&disk, &options()) >= 2);
}

#[test]
fn a_segment_that_ended_without_a_seal_is_read_whole() {
    let mut rig = Rig::new(options());
    rotate(&mut rig, 1);
    rig.rest();
    rig.grow(G, 1, 9000);
    rig.pump();
    // Its head is there and half of it is not.
    rig.disk.crash_to(&vec![1; rig.disk.loose().len()]);
    let end = rig.log.durable_end();
    rig.disk.zero(&segment(end.segment.0), end.offset + 4096..end.offset + 12_288);
    let mut rig = rig.reopened();
    assert!(rig.log.active.number > end.segment, "the torn end was cut");
    rotate(&mut rig, 3);
    let disk = at_rest(rig);
    let (chain, taken) = taken(&disk);
    assert_eq!(taken, [&chain[..1], &chain[2..chain.len() - 2]].concat(), "{chain:?}");
    compare(&disk, &options());
}

/// Five segments, and where the seal of the first begins and ends.
fn sealed() -> (Rig, std::ops::Range<u64>) {
    let mut rig = Rig::new(options());
    rig.grow(G, 3, 500);
    rig.grow(GroupId(1), 2, 500);
    rig.truncate(G, Index(3));
    rotate(&mut rig, 4);
    rig.rest();
    rig.disk.crash_to(&vec![0; rig.disk.loose().len()]);
    let end = rig.log.locator.segments().next().expect("the first").end;
    (rig, end - 4096..end)
}

/// Everything that is found is found by seals too, in the same words.
fn findings(disk: &SimDisk, what: &str) -> usize {
    let [whole, by_seals] = [Reading::Everything, Reading::BySeals].map(|reading| analysis(disk, reading).findings);
    assert_eq!(by_seals, whole, "{what}");
    whole.len()
}

#[test]
fn a_seal_that_is_not_as_it_was_written_is_judged_as_any_frame() {
    let (rig, seal) = sealed();
    assert_eq!(findings(&rig.disk, "nothing"), 0);
    let name = segment(1);
    for bit in (0..4096 * 8).step_by(7) {
        let disk = rig.disk.fork();
        disk.flip_bit(&name, seal.start + bit / 8, (bit % 8) as u32);
        assert_eq!(findings(&disk, &format!("bit {bit}")), 1);
        assert!(open_by_seals(&disk, &options()).is_err());
    }
    let mut older = Rig::new(Options { seed: 77, ..options() });
    older.grow(G, 3, 500);
    older.grow(GroupId(1), 2, 500);
    older.truncate(G, Index(3));
    rotate(&mut older, 1);
    let older = older.disk.contents(&name);
    assert!(older[seal.start as usize..][..5] == *b"TFRM\x03", "a seal stands there, of another life");
    type Change<'a> = &'a dyn Fn(&SimDisk);
    let changes: [(&str, Change<'_>); 4] = [
        ("zeros", &|disk| disk.zero(&name, seal.clone())),
        ("junk", &|disk| disk.junk(&name, seal.clone(), &mut Random::seeded(1))),
        ("unreadable", &|disk| disk.make_unreadable(&name, seal.start + 512..seal.start + 1024)),
        ("older", &|disk| disk.overwrite(&name, seal.start, &older[seal.start as usize..seal.end as usize])),
    ];
    for (what, change) in changes {
        let disk = rig.disk.fork();
        change(&disk);
        assert_eq!(findings(&disk, what), 1, "{what}");
        assert!(matches!(open_by_seals(&disk, &options()), Err(Error::Damaged(_))), "{what}");
    }
}

/// What an intact seal says is believed only where the groups stand then as the next segment says.
#[test]
fn a_seal_that_contradicts_its_neighbours_is_not_believed() {
    type Change = fn(&mut Vec<OutlineRun>);
    fn purge(runs: &mut [OutlineRun]) -> &mut OutlineRun {
        runs.iter_mut().find(|own| own.run.kind == RecordKind::Purge).expect("there is one")
    }
    let changes: [(&str, Change, bool); 13] = [
        ("nothing", |_| {}, true),
        ("an entry less", |runs| runs.last_mut().expect("it has runs").run.count -= 1, false),
        ("an entry more", |runs| runs.last_mut().expect("it has runs").run.count += 1, false),
        ("another term", |runs| runs.last_mut().expect("it has runs").run.term = Term(8), false),
        ("another term before", |runs| runs.last_mut().expect("it has runs").run.previous_term = Term(8), false),
        ("another beginning", |runs| runs[0].run.first = Index(9), false),
        ("a group more", |runs| runs[0].run.group = GroupId(7), false),
        ("no run", Vec::clear, false),
        ("another purge", |runs| purge(runs).run.first = Index(2), false),
        ("no purge", |runs| runs.retain(|own| own.run.kind != RecordKind::Purge), false),
        ("the order of frames", |runs| runs.reverse(), false),
        ("a frame behind the seal", |runs| runs.last_mut().expect("it has runs").offset += 1 << 20, false),
        ("a frame between blocks", |runs| runs.last_mut().expect("it has runs").offset += 8, false),
    ];
    for (what, change, is_believed) in changes {
        let disk = falsified(|seal| change(&mut seal.outline.as_mut().expect("it is short").runs));
        let (_, taken) = taken(&disk);
        assert_eq!(taken.contains(&1), is_believed, "{what}");
        assert_eq!(findings(&disk, what), usize::from(!is_believed), "{what}");
    }
}

/// Of five segments, the first with a seal that says something else than what is in it.
fn falsified(change: impl FnOnce(&mut SealSection)) -> SimDisk {
    let mut rig = Rig::new(options());
    rig.grow(G, 1, 400);
    rig.settle();
    rig.model.term = Term(2);
    rig.grow(G, 2, 400);
    rig.settle();
    rig.purge(G, LogId::new(Term(1), Index(1)));
    rig.settle();
    while rig.log.offset <= 28_000 {
        rig.grow(G, 1, 12_000);
        rig.settle();
    }
    assert_eq!((rig.log.active.number.0, rig.log.phase == Phase::Sealing), (1, false));
    rig.log.locator.falsify_seal(change);
    rotate(&mut rig, 4);
    at_rest(rig)
}

/// Readers reckon with it: a sum that went beyond 64 bits ended the process, or divided by nothing.
#[test]
fn a_seal_that_counts_more_than_its_segment_can_hold_is_not_believed() {
    type Change = fn(&mut SealSection);
    let changes: [(&str, Change); 4] = [
        ("one endless record", |seal| (seal.records, seal.records_bytes) = (1, u64::MAX - 23)),
        ("more than a segment", |seal| seal.records_bytes = 64 << 10),
        ("more records than bytes", |seal| seal.records = seal.records_bytes / 40 + 1),
        ("records without bytes", |seal| seal.records_bytes = 0),
    ];
    for (what, change) in changes {
        let disk = falsified(change);
        let files = disk.files();
        if let Ok(log) = open_by_seals(&disk, &options()) {
            state_of(&files, &log).expect("it is intact");
        }
        assert!(!taken(&disk).1.contains(&1), "{what}");
        assert_eq!(findings(&disk, what), 1, "{what}");
    }
}

/// Opened by seals, a damaged record of an old segment is met by who reads it, and by nobody else.
#[test]
fn damage_to_an_old_segment_is_met_where_it_is() {
    let (rig, seal) = sealed();
    let all = rig.model.group(G).entries;
    let mut met = 0;
    for at in (8192..seal.start).step_by(293) {
        let disk = rig.disk.fork();
        disk.flip_bit(&segment(1), at, 5);
        let Err(Error::Damaged(refusal)) = open(&disk.fork(), &options()) else { panic!("{at} is not found") };
        let log = open_by_seals(&disk, &options()).unwrap_or_else(|error| panic!("{at}: {error}"));
        let files = disk.files();
        for entry in &all {
            let index = entry.id.index;
            match log.plan_read(G, index, index.next(), 1 << 20).run(&files) {
                Ok(found) => assert_eq!(found, std::slice::from_ref(entry), "{at}"),
                Err(Error::Damaged(finding)) => {
                    assert_eq!(finding.file, segment(1));
                    assert!(finding.bytes.contains(&at), "{at} {finding}");
                    assert!(finding.entries.iter().any(|ids| ids.first <= index && index < ids.end), "{at} {finding}");
                    met += 1;
                }
                Err(error) => panic!("{at}: {error}"),
            }
        }
        let checked = log.extent().check(&files).expect("the files can be opened");
        let [found] = checked.findings.as_slice() else { panic!("{at}: {:?}", checked.findings) };
        assert_eq!((found.severity, &found.bytes), (Severity::Corrupt, &refusal.bytes), "{at}");
        let sealed = log.sealed_extent(log.sealed_segments()[0]).expect("it is sealed");
        assert_eq!(sealed.check(&files).expect("the file can be opened").findings.len(), 1);
    }
    assert!(met > 40, "{met}");
}

/// A sector that cannot be read is an error too: what was not read at the start is not mapped.
#[test]
fn an_old_segment_that_was_not_read_is_not_mapped() {
    let (rig, _) = sealed();
    rig.disk.make_unreadable(&segment(1), 8192..8704);
    let log = open_by_seals(&rig.disk, &options()).expect("that is not looked at");
    let maps = Rc::new(Cell::new(0));
    let seen = Rc::clone(&maps);
    rig.disk.observe(move |event| seen.set(seen.get() + usize::from(event.act == Act::Map)));
    let read = log.plan_read(G, Index(1), Index(2), 1 << 20).run(&rig.disk.files());
    let refusal = read.expect_err("it cannot be read");
    assert!(matches!(refusal, Error::Disk(_)), "{refusal}");
    assert_eq!(maps.get(), 0);
}

/// Bytes read when a log of so many segments is opened.
fn bytes_at_start(segments: u64, reading: Reading) -> u64 {
    let options = Options { segment_bytes: 256 << 10, ..options() };
    let mut rig = Rig::new(options.clone());
    rotate(&mut rig, segments - 1);
    let disk = at_rest(rig);
    let bytes = Rc::new(Cell::new(0));
    let seen = Rc::clone(&bytes);
    disk.observe(move |event| seen.set(seen.get() + if event.act == Act::Read { event.length } else { 0 }));
    Log::open_reading(&disk.files(), options, (Place::START, reading), 1).expect("it is intact");
    bytes.get()
}

#[test]
fn a_start_by_seals_reads_of_an_older_segment_its_headers_its_open_frame_and_its_seal() {
    let [few, many] = [10, 100].map(|segments| bytes_at_start(segments, Reading::BySeals));
    // Two headers, the room of an open frame, a seal of one block and its head.
    let each = 2 * 4096 + OPEN_FRAME_BYTES_MAX as u64 + 4096;
    assert_eq!(many - few, 90 * each);
    let [few, many] = [10, 100].map(|segments| bytes_at_start(segments, Reading::Everything));
    assert!(many - few > 90 * (200 << 10));
}

/// Whoever is told that a log is damaged is told of everything.
#[test]
fn behind_a_first_damage_the_rest_is_read_whole() {
    let (rig, seal) = sealed();
    let disk = rig.disk.fork();
    disk.flip_bit(&segment(1), seal.start + 200, 1);
    disk.flip_bit(&segment(2), 9000, 1);
    assert_eq!(findings(&disk, "both"), 2);
}
