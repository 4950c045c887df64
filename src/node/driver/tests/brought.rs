//! Snapshots of other nodes beside those that this node has made: which count.

use super::installs::{bring, offer, state_of_members};
use super::purging::{NOTHING, file, following, id, sends, with, write};
use super::rig::{CLUSTER, OTHER, OWN, Rig, from_other};
use crate::disk::Files;
use crate::machine::Map;
use crate::mutant::{self, Mutant};
use crate::node::driver::checkpoint::Checkpoint;
use crate::node::driver::{Driver, Input, SnapshotReport};
use crate::node::sessions::Sessions;
use crate::raft::{Base, Message};
use crate::random::Random;
use crate::sim::disk::SimDisk;
use crate::snapshot::{self, Builder, Manifest, Step};
use crate::types::{GroupId, LogId, Payload, Term};

/// Of another node, at this point.
fn fetched(point: LogId) -> (Manifest, Sessions, Map) {
    let (mut manifest, sessions, map) = state_of_members(point);
    manifest.description.membership_id = LogId::ZERO;
    (manifest, sessions, map)
}

fn whole(disk: &SimDisk) -> Vec<LogId> {
    let listing = snapshot::list(&disk.files(), Some(CLUSTER)).unwrap();
    listing.whole(GroupId::CLUSTER).map(|manifest| manifest.description.point).collect()
}

/// A follower with two snapshots, and another that its log has not come to: it was fetched, and is not wanted any more.
fn with_one_beyond() -> (Rig<Map>, [LogId; 3]) {
    let rig = following(NOTHING);
    let beyond = id(rig.driver.replica().status().last.index.0 + 50);
    bring(&rig, &fetched(beyond));
    let [older, newer] = whole(&rig.disk)[..2] else { panic!("it has made two") };
    (rig, [older, newer, beyond])
}

/// The point comes, and this node's turn.
fn pass_point(rig: &mut Rig<Map>) {
    sends(rig, 0, &[Payload::SnapshotPoint]);
    (0..110).for_each(|_| rig.driver.snapshots.tick());
    rig.settle();
}

fn begins_from_the_older_one() -> Result<(), String> {
    let (rig, [older, newer, beyond]) = with_one_beyond();
    let disk = rig.disk.clone();
    drop(rig);
    disk.kill(&mut Random::seeded(1));
    let start = || Driver::start(&disk.files(), with(NOTHING), Map::new(), 0).map_err(|error| error.to_string());
    let started = start()?;
    assert_eq!((started.snapshot, started.driver.snapshots.oldest_kept()), (Some(newer), Some(older)));
    drop(started);
    disk.kill(&mut Random::seeded(2));
    for point in [newer, beyond] {
        disk.flip_bit(&file(point, "chunks"), 8, 3);
    }
    match start()?.snapshot {
        Some(point) if point == older => Ok(()),
        other => Err(format!("it begins from {other:?}")),
    }
}

#[test]
fn a_start_removes_none_of_the_two_that_it_can_begin_from() {
    begins_from_the_older_one().unwrap();
    assert!(mutant::with(Mutant::SnapshotBeyondLogCounted, begins_from_the_older_one).is_err());
}

#[test]
fn one_that_the_log_has_not_come_to_does_not_count() {
    let (mut rig, [_, newer, beyond]) = with_one_beyond();
    pass_point(&mut rig);
    let third = write(&mut rig);
    assert!(third < beyond);
    assert_eq!(whole(&rig.disk), [newer, third, beyond]);
    assert_eq!(rig.driver.snapshots.oldest_kept(), Some(newer));
}

/// The node comes to the point of one that it has fetched, and was not to begin from: it is the one that it was to make.
#[test]
fn one_that_is_there_when_it_is_to_be_made_counts() {
    let mut rig = following(NOTHING);
    let [_, newer] = whole(&rig.disk)[..] else { panic!("it has made two") };
    pass_point(&mut rig);
    let description = rig.makings[0].description.clone();
    let checkpoint = Checkpoint::of(&rig.driver.sessions, &rig.driver.machine).expect("a map gives snapshots");
    let mut builder = Builder::new(description, Box::new(checkpoint));
    while builder.step(&rig.files, true).unwrap() != Step::Done {}
    let point = write(&mut rig);
    assert!(matches!(rig.reports.last(), Some(SnapshotReport::Made(made)) if made.point == point));
    assert_eq!((whole(&rig.disk), rig.driver.snapshots.oldest_kept()), (vec![newer, point], Some(newer)));
    assert_eq!(rig.driver.pipeline.superblock.state().group(GroupId::CLUSTER).snapshot, point);
}

/// It did not read back: it is told, and does not count.
#[test]
fn one_that_rots_behind_its_flush_lets_nothing_go() {
    let mut rig = following(NOTHING);
    let kept = rig.driver.snapshots.oldest_kept();
    pass_point(&mut rig);
    let making = rig.makings.remove(0);
    let point = making.description.point;
    let mut builder = Builder::new(making.description, Box::new(making.checkpoint));
    let name = builder.description().name();
    while !rig.files.list("").unwrap().contains(&name) {
        builder.step(&rig.files, true).unwrap();
    }
    rig.disk.flip_bit(&file(point, "chunks"), 8, 3);
    let error = loop {
        match builder.step(&rig.files, true) {
            Ok(step) => assert_ne!(step, Step::Done),
            Err(error) => break error,
        }
    };
    builder.abandon(&rig.files).unwrap();
    rig.driver.handle(Input::SnapshotMade { point, result: Err(error) });
    rig.settle();
    assert_eq!(rig.driver.snapshots.oldest_kept(), kept);
    let failure = rig.driver.status().snapshots.failure;
    assert!(failure.contains("chunk 0 is not the one that was written there"), "{failure}");
    assert!(!whole(&rig.disk).contains(&point));
}

/// Those of before lie below the log's start, and cannot be begun from: nothing goes from the log before there is another.
#[test]
fn after_an_installation_there_is_one() {
    let mut rig = following(NOTHING);
    assert!(rig.driver.snapshots.oldest_kept().is_some());
    let point = id(rig.driver.replica().status().last.index.0 + 50);
    let (manifest, sessions, map) = fetched(point);
    bring(&rig, &(manifest.clone(), sessions.clone(), map.clone()));
    let base = Base { point, begin_after: point };
    rig.driver.handle(from_other(Message { from: OTHER, to: OWN, term: Term(1), body: offer(base).body }));
    rig.settle();
    rig.driver.fetched(point, Ok((manifest, sessions, map)));
    rig.settle();
    assert_eq!(rig.driver.applied().0, point);
    assert_eq!((rig.driver.snapshots.oldest_kept(), whole(&rig.disk)), (None, vec![point]));
    let disk = rig.disk.clone();
    drop(rig);
    disk.kill(&mut Random::seeded(1));
    let started = Driver::start(&disk.files(), with(NOTHING), Map::new(), 0).unwrap();
    assert_eq!((started.snapshot, started.snapshot_findings), (Some(point), vec![]));
}

/// The log begins behind what the superblock names, and has not come to the state that was installed: what is named is of no
/// use, and that it is gone is nothing that an operator is told.
#[test]
fn what_an_installation_left_before_the_log_is_not_missed() {
    let mut rig = following(NOTHING);
    let [_, newer] = whole(&rig.disk)[..] else { panic!("it has made two") };
    let last = rig.driver.replica().status().last.index.0;
    let base = Base { point: id(last + 50), begin_after: id(last + 40) };
    let (manifest, sessions, map) = fetched(base.point);
    bring(&rig, &(manifest.clone(), sessions.clone(), map.clone()));
    rig.driver.handle(from_other(Message { from: OTHER, to: OWN, term: Term(1), body: offer(base).body }));
    rig.settle();
    rig.driver.fetched(base.point, Ok((manifest, sessions, map)));
    rig.settle();
    assert_eq!(rig.driver.replica().first_index(), base.begin_after.index.next());
    assert_eq!(rig.driver.pipeline.superblock.state().group(GroupId::CLUSTER).snapshot, newer);
    let disk = rig.disk.clone();
    drop(rig);
    disk.kill(&mut Random::seeded(1));
    snapshot::remove(&disk.files(), file(newer, "").trim_end_matches('/')).unwrap();
    let started = Driver::start(&disk.files(), with(NOTHING), Map::new(), 0).unwrap();
    assert_eq!((started.snapshot, started.snapshot_findings), (None, vec![]));
    assert!(whole(&disk).contains(&base.point), "it waits for the log");
}
