//! Saving while the node runs.

use std::io;

use super::super::block::{PAIR_BYTES, Pair};
use super::*;
use crate::disk::{Buffer, Completion, Error as DiskError, Operation, Token, Write};

const TOKEN_BASE: u64 = 1 << 63;

fn loaded(age: u64) -> (FakeFiles, Writer) {
    let files = FakeFiles::default();
    format(&files, &state(age)).unwrap();
    let writer = load(&files, TOKEN_BASE).unwrap().writer;
    (files, writer)
}

fn done(write: Write) -> Completion {
    Completion { token: write.token, result: Ok(()), buffer: write.buffer }
}

fn vote(term: u64, node: u64) -> impl FnOnce(&mut State) {
    move |state| state.group_mut(GroupId::CLUSTER).hard_state = HardState { term: Term(term), vote: Some(NodeId(node)) }
}

/// The file as it is when `write` has reached the disk, but for sectors whose bit in `lost` is set.
fn apply(bytes: &mut [u8], write: &Write, lost: u32) {
    for (sector, content) in write.buffer.chunks(512).enumerate() {
        if lost >> sector & 1 == 0 {
            let at = write.offset as usize + sector * 512;
            bytes[at..at + 512].copy_from_slice(content);
        }
    }
}

#[test]
fn a_save_is_durable_when_both_pairs_have_it() {
    let (_, mut writer) = loaded(4);
    assert!(writer.is_idle() && writer.take_write().is_none());
    let number = writer.save(vote(9, 1));
    assert_eq!(number, SaveNumber(1));
    for (pair, durable) in [(Pair::A, SaveNumber(0)), (Pair::B, SaveNumber(1))] {
        assert!(writer.durable() < number && !writer.is_idle());
        let write = writer.take_write().unwrap();
        assert_eq!((write.offset, write.buffer.len()), (pair.offset(), PAIR_BYTES));
        assert!(writer.take_write().is_none(), "one write in flight");
        writer.handle(done(write)).unwrap();
        assert_eq!(writer.durable(), durable);
    }
    assert!(writer.is_idle() && writer.take_write().is_none());
}

#[test]
fn saves_that_come_while_one_is_written_go_out_together() {
    let (files, mut writer) = loaded(4);
    let mut bytes = files.bytes(FILE_NAME);
    let first = writer.save(vote(9, 1));
    let mut writes = Vec::new();
    for round in 0..4 {
        let write = writer.take_write().unwrap();
        writes.push(write.token);
        apply(&mut bytes, &write, 0);
        if round < 2 {
            writer.save(vote(10 + round, 2));
        }
        writer.handle(done(write)).unwrap();
        if round == 1 {
            assert_eq!(writer.durable(), first, "the later saves are not in what was written");
            assert_eq!(age(&inspect(&disk(bytes.clone())).unwrap().state), 9);
        }
    }
    assert_eq!(writer.durable(), SaveNumber(3));
    assert!(writer.take_write().is_none());
    assert_eq!(age(&inspect(&disk(bytes)).unwrap().state), 11);
    assert_eq!(writes, (0..4).map(|count| Token(TOKEN_BASE + count)).collect::<Vec<_>>());
}

#[test]
fn a_save_that_changes_nothing_is_the_one_before() {
    let (_, mut writer) = loaded(4);
    assert_eq!(writer.save(|_| ()), SaveNumber(0));
    assert!(writer.take_write().is_none());
    let number = writer.save(vote(9, 1));
    assert_eq!(writer.save(vote(9, 1)), number, "not yet durable, and so not answered as durable");
    assert!(writer.durable() < number);
}

/// Both writes of a save, each torn at every subset of its sixteen sectors: before the second is complete the old
/// state or the new one is found, and from the first whole pair on it is the new one.
#[test]
fn every_tear_of_both_writes_of_a_save() {
    let (files, mut writer) = loaded(4);
    let mut bytes = files.bytes(FILE_NAME);
    // Content in every sector, so that each is different from what was there before.
    writer.save(|state| {
        let group = state.group(GroupId::CLUSTER);
        state.groups = (0..GROUPS_MAX as u32).map(|id| (GroupId(id), group)).collect();
    });
    for _ in 0..2 {
        let write = writer.take_write().unwrap();
        apply(&mut bytes, &write, 0);
        writer.handle(done(write)).unwrap();
    }
    writer.save(|state| state.groups.values_mut().for_each(|group| group.hard_state.term = Term(9)));
    for pair in [Pair::A, Pair::B] {
        let write = writer.take_write().unwrap();
        let mut found = [0; 2];
        for lost in 0..1 << 16 {
            let mut torn = bytes.clone();
            apply(&mut torn, &write, lost);
            let age = age(&inspect(&disk(torn)).unwrap().state);
            assert!(age == 4 || age == 9);
            found[usize::from(age == 9)] += 1;
        }
        match pair {
            Pair::A => assert!(found[0] > 0 && found[1] > 0, "{found:?}"),
            Pair::B => assert_eq!(found, [0, 1 << 16]),
        }
        apply(&mut bytes, &write, 0);
        writer.handle(done(write)).unwrap();
    }
}

#[test]
fn a_failed_write_is_the_last() {
    for failing in 0..2 {
        let (_, mut writer) = loaded(4);
        writer.save(vote(9, 1));
        for _ in 0..failing {
            let write = writer.take_write().unwrap();
            writer.handle(done(write)).unwrap();
        }
        let write = writer.take_write().unwrap();
        let error = DiskError::new(Operation::Flush, FILE_NAME, io::Error::from_raw_os_error(5));
        let completion = Completion { token: write.token, result: Err(error), buffer: write.buffer };
        assert_eq!(writer.handle(completion).unwrap_err().operation, Operation::Flush);
        assert!(writer.is_poisoned() && !writer.is_idle());
        writer.save(vote(10, 1));
        assert!(writer.take_write().is_none());
        assert_eq!(writer.durable(), SaveNumber(0));
    }
}

#[test]
#[should_panic(expected = "is not the write in flight")]
fn a_completion_of_another_write_is_our_bug() {
    let (_, mut writer) = loaded(4);
    writer.save(vote(9, 1));
    let write = writer.take_write().unwrap();
    let _ = writer.handle(Completion { token: Token(3), ..done(write) });
}

#[test]
#[should_panic(expected = "no write of the superblock is in flight")]
fn a_completion_without_a_write_is_our_bug() {
    let (_, mut writer) = loaded(4);
    let _ = writer.handle(Completion { token: Token(3), result: Ok(()), buffer: Buffer::with_capacity(1) });
}

#[test]
fn promises_are_kept_by_assertion() {
    type Change = fn(&mut State);
    let breaks: [(&str, Change); 8] = [
        ("term falls", |state| state.group_mut(GroupId::CLUSTER).hard_state.term = Term(3)),
        ("vote changes", |state| state.group_mut(GroupId::CLUSTER).hard_state.vote = Some(NodeId(9))),
        ("vote forgotten", |state| state.group_mut(GroupId::CLUSTER).hard_state.vote = None),
        ("boot falls", |state| state.boot = 0),
        ("identity", |state| state.incarnation = Incarnation(0)),
        ("first membership", |state| state.first_membership = membership(2)),
        ("durable end falls", |state| state.durable_end = Place::START),
        ("group goes", |state| state.groups.clear()),
    ];
    for (name, change) in breaks {
        let (_, mut writer) = loaded(4);
        let broken = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| writer.save(change)));
        assert!(broken.is_err(), "{name}");
    }
}

#[test]
fn a_vote_within_a_term_comes_once_from_nobody() {
    let (_, mut writer) = loaded(4);
    writer.save(|state| state.group_mut(GroupId(3)).hard_state.term = Term(6));
    writer.save(|state| state.group_mut(GroupId(3)).hard_state.vote = Some(NodeId(3)));
    writer.save(|state| state.group_mut(GroupId(3)).hard_state = HardState { term: Term(7), vote: None });
    assert_eq!(writer.state().group(GroupId(3)).hard_state, HardState { term: Term(7), vote: None });
}
