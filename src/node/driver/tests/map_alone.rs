//! A log that is kept for the map alone: it takes no records, goes as far as snapshots hold it, and lets no record go that
//! is in it all the same.

use super::purging::{NOTHING, SEGMENT_BYTES, SEGMENT_RECORDS, first, second, snapshot, with};
use super::rig::{Rig, formatted_with};
use crate::machine::{Map, StateMachine};
use crate::mutant::{self, Mutant};
use crate::net::{Change, Consistency, Refusal, RequestBody, ResponseBody, SubmitResult};
use crate::node::driver::{self, RetentionRule, SnapshotReport};
use crate::random::Random;
use crate::sim::disk::SimDisk;
use crate::types::{Index, Service};

use super::rig::OWN;

const VALUE_BYTES: usize = 1 << 10;

fn alone(disk: SimDisk) -> Rig<Map> {
    let retention = RetentionRule { is_for_map_alone: true, ..RetentionRule::default() };
    let mut rig = Rig::with_options(disk, Map::new(), driver::Options { retention, ..with(NOTHING) });
    rig.lead();
    rig
}

fn again(rig: Rig<Map>) -> Rig<Map> {
    let disk = rig.disk.clone();
    drop(rig);
    disk.kill(&mut Random::seeded(1));
    alone(disk)
}

fn put(rig: &mut Rig<Map>, segments: u64) {
    rig.put(segments * SEGMENT_RECORDS, VALUE_BYTES);
}

#[test]
fn the_log_of_a_map_goes_as_far_as_the_older_snapshot_holds_it() {
    let mut rig = alone(formatted_with(&[OWN], SEGMENT_BYTES));
    put(&mut rig, 3);
    let older = snapshot(&mut rig);
    second(&mut rig, 0);
    assert_eq!(rig.driver.readable_from(), Index::FIRST, "there is one snapshot alone");
    put(&mut rig, 1);
    snapshot(&mut rig);
    second(&mut rig, 0);
    assert_eq!(rig.driver.readable_from(), older.index.next());
    let last = rig.driver.replica().status().last;
    second(&mut rig, 0);
    assert_eq!(rig.driver.replica().status().last, last, "nothing new, nothing to be trimmed");
    assert!(first(&rig) > Index(2 * SEGMENT_RECORDS) && first(&rig) <= older.index.next(), "{}", first(&rig));
    let expected = rig.driver.machine().digest();
    let rig = again(rig);
    assert_eq!(rig.driver.machine().digest(), expected);
    assert!(rig.reports.is_empty(), "{:?}", rig.reports);
}

#[test]
fn it_takes_no_records() {
    let mut rig = alone(formatted_with(&[OWN], SEGMENT_BYTES));
    let last = rig.driver.replica().status().last;
    let commands = vec![rig.command(Service::Append, b"record")];
    let ResponseBody::Submitted { results } = rig.ask(RequestBody::Submit { commands }) else { panic!("an answer") };
    assert_eq!(results, [SubmitResult::Refused(Refusal::MapAlone)]);
    assert_eq!(rig.driver.replica().status().last, last);
}

/// The rule was another one when they were appended. They stay, also after starts from snapshots, until somebody trims them;
/// and that is told.
#[test]
fn records_that_may_be_read_do_not_go_for_a_map() {
    let test = || {
        std::panic::catch_unwind(|| {
            let mut rig = Rig::with_options(formatted_with(&[OWN], SEGMENT_BYTES), Map::new(), with(NOTHING));
            rig.lead();
            rig.append(10, 100);
            let record = rig.driver.applied().0.index;
            for _ in 0..2 {
                rig = again(rig);
                for _ in 0..2 {
                    put(&mut rig, 1);
                    snapshot(&mut rig);
                    second(&mut rig, 0);
                }
                assert_eq!((rig.driver.readable_from(), first(&rig)), (Index::FIRST, Index::FIRST));
                let told: Vec<Index> = rig
                    .reports
                    .iter()
                    .filter_map(|report| match report {
                        SnapshotReport::RecordsInTheWay { last } => Some(*last),
                        _ => None,
                    })
                    .collect();
                assert_eq!(told, [record], "it is told once");
                let way = format!("`trilith log trim --before {}`", record.next());
                assert!(rig.driver.status().waiting.contains(&way), "{}", rig.driver.status().waiting);
            }
            let read =
                RequestBody::Read { from: record, to: None, bytes_max: 1 << 10, consistency: Consistency::Stale };
            let ResponseBody::Records(records) = rig.ask(read) else { panic!("it may be read") };
            assert_eq!(records.records[0].0, record);
            let trim = rig.ask(RequestBody::Change(Change::Trim { first: record.next() }));
            assert!(matches!(trim, ResponseBody::Changed { .. }), "{trim:?}");
            assert_eq!(rig.driver.status().waiting, "");
            second(&mut rig, 0);
            second(&mut rig, 0);
            assert!(first(&rig) > Index(2 * SEGMENT_RECORDS), "{}", first(&rig));
        })
    };
    test().unwrap();
    assert!(mutant::with(Mutant::RecordsTrimmedForMap, test).is_err());
}
