//! A disk that tells success and has done something else: a write goes nowhere, or elsewhere in its file. What a log holds
//! then is what was appended, or it is damaged and says so; it never shows anything else.

use std::cell::RefCell;
use std::rc::Rc;

use super::model::state_of;
use super::rig::{G, Rig, options};
use crate::limits::BLOCK_BYTES;
use crate::random::Random;
use crate::sim::disk::{Act, Failure};
use crate::types::GroupId;
use crate::wal::Log;

/// Appends, cuts, rotations and files that are used again; all of it is durable and covered at the end.
fn work(rig: &mut Rig) {
    for round in 0..6 {
        rig.grow(G, 1 + round % 3, 200 + 900 * (round % 5) as usize);
        rig.grow(GroupId(1), 1, 4000);
        rig.settle();
        let group = rig.model.group(G);
        rig.truncate(G, group.last().index);
        rig.rotate(G);
        for group in [G, GroupId(1)] {
            let entries = rig.model.group(group).entries;
            if round >= 2 && entries.len() > 1 {
                rig.purge(group, entries[entries.len() - 2].id);
            }
        }
        rig.settle();
    }
    rig.rest();
}

/// The writes of a life in which nothing goes wrong: how many operations come before each, and where it goes.
fn writes() -> Vec<(u64, u64)> {
    let mut rig = Rig::new(options());
    let before = rig.disk.operations();
    let seen = Rc::new(RefCell::new(Vec::new()));
    let told = Rc::clone(&seen);
    rig.disk.observe(move |event| {
        if matches!(event.act, Act::Write | Act::Zero | Act::Submit) {
            told.borrow_mut().push((event.number - before, event.offset));
        }
    });
    work(&mut rig);
    rig.check();
    let writes = seen.borrow().clone();
    assert!(writes.len() > 60, "{} writes", writes.len());
    writes
}

/// Whether the log with this fault is found to be damaged, while it is open or after its process has died.
fn is_damage_found(at: u64, failure: Failure) -> bool {
    let mut rig = Rig::new(options());
    rig.disk.fail_at(rig.disk.operations() + at, failure);
    work(&mut rig);
    let expected = rig.model.state();
    let mut found = false;
    match state_of(&rig.files, &rig.log) {
        Ok(state) => assert!(state == *expected, "{failure:?} at {at}: another state is read"),
        Err(_) => found = true,
    }
    rig.disk.kill(&mut Random::seeded(1));
    // The superblock has the durable end of a log that was closed.
    let files = rig.disk.files();
    let opened = Log::open(&files, rig.log.options().clone(), rig.log.durable_end(), 1);
    match opened.and_then(|(log, _)| state_of(&files, &log)) {
        Ok(state) => assert!(state == *expected, "{failure:?} at {at}: another state is recovered"),
        Err(_) => found = true,
    }
    found
}

#[test]
fn a_write_that_goes_nowhere_or_elsewhere_is_found_or_does_no_harm() {
    let blocks = |count: i64| count * BLOCK_BYTES as i64;
    let (mut cases, mut damaged) = (0, 0);
    for (at, offset) in writes() {
        for failure in [
            Failure::Lost,
            Failure::Misdirected { by: blocks(1) },
            Failure::Misdirected { by: blocks(3) },
            Failure::Misdirected { by: -blocks(2) },
        ] {
            if matches!(failure, Failure::Misdirected { by } if offset.checked_add_signed(by).is_none()) {
                continue;
            }
            cases += 1;
            damaged += u32::from(is_damage_found(at, failure));
        }
    }
    println!("{cases} silent faults, {damaged} found to be damage");
    assert!(damaged > cases / 4, "{damaged} of {cases}: most frames that are not there are missed");
}
