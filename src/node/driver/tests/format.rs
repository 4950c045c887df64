//! The making of a node's directory.

use super::rig::{CLUSTER, OWN, Rig};
use crate::disk::Files;
use crate::limits::SEGMENT_BYTES_MIN;
use crate::machine::Map;
use crate::node::driver::{self, StartError};
use crate::random::Random;
use crate::sim::disk::SimDisk;
use crate::superblock::{self, State};
use crate::types::{Incarnation, Member, Membership};

fn format(disk: &SimDisk, incarnation: u64) -> Result<(), StartError> {
    let own = Member { id: OWN, incarnation: Incarnation(incarnation), address: ([127, 0, 0, 1], 1).into() };
    let membership = Membership { members: vec![own], ..Membership::default() };
    let state = State::new(CLUSTER, OWN, Incarnation(incarnation), membership);
    driver::format(&disk.files(), &state, SEGMENT_BYTES_MIN, incarnation, 0)
}

/// The power goes at each operation of the making. A second attempt draws another incarnation, and could not get past
/// what the first had left.
#[test]
fn a_directory_can_be_made_whatever_an_attempt_before_left() {
    let mut cases = 0;
    for at in 0.. {
        let disk = SimDisk::new();
        disk.crash_at(at);
        let is_made = format(&disk, 1).is_ok();
        for seed in 0..6 {
            let fork = disk.fork();
            fork.crash(&mut Random::seeded(seed));
            let expected = match format(&fork, 2) {
                Ok(()) => Incarnation(2),
                Err(StartError::Superblock(error)) if matches!(*error, superblock::Error::AlreadyFormatted) => {
                    Incarnation(1)
                }
                Err(error) => panic!("{at} {seed}: {error}"),
            };
            assert!(!is_made || expected == Incarnation(1), "{at} {seed}: made twice");
            fork.crash(&mut Random::seeded(seed));
            Rig::on(fork.clone(), Map::new());
            let found = superblock::inspect(&fork.files()).expect("it was made").state;
            assert_eq!(found.incarnation, expected, "{at} {seed}");
            cases += 1;
        }
        if is_made {
            break;
        }
    }
    assert!(cases > 100, "{cases}");
}

/// A superblock that cannot be read is no absent one: its log, empty as it may be, stays.
#[test]
fn a_damaged_superblock_is_no_place_for_a_new_one() {
    let disk = SimDisk::new();
    format(&disk, 1).expect("the disk is empty and well");
    disk.crash(&mut Random::seeded(1));
    disk.zero(superblock::FILE_NAME, 0..16_384);
    let names = disk.files().list("log").expect("it is there");
    let before: Vec<Vec<u8>> = names.iter().map(|name| disk.contents(&format!("log/{name}"))).collect();
    let refused = format(&disk, 2).expect_err("there is one");
    let StartError::Superblock(refused) = refused else { panic!("{refused}") };
    assert!(matches!(*refused, superblock::Error::Damaged { .. }), "{refused}");
    assert_eq!(disk.files().list("log").expect("it is there"), names);
    assert!(names.iter().zip(before).all(|(name, before)| disk.contents(&format!("log/{name}")) == before));
}
