//! The file: bytes, formatting, loading in each state, and what survives a cut of power.

mod fake;
mod mend;
mod page_cache;
mod recovery;
mod writer;

use std::collections::BTreeMap;

use fake::FakeFiles;

use super::block::{BLOCKS, COUNT_MAX, Copy, CopyNumber, SEGMENT_MAX, decode, encode};
use super::*;
use crate::disk::Files;
use crate::limits::{BLOCK_BYTES, GROUPS_MAX, LIVES_MET_MAX, MEMBERS_MAX};
use crate::sim::disk::SimDisk;
use crate::types::{
    ClusterId, FrameNumber, GroupId, HardState, Incarnation, Index, LogId, Member, Membership, NodeId, Place,
    SegmentNumber, Term,
};

fn membership(members: usize) -> Membership {
    let member = |id| Member {
        id: NodeId(id),
        incarnation: Incarnation(0x0b00 + id),
        address: format!("[fe80::{id}]:7000").parse().unwrap(),
    };
    let members: Vec<Member> = (1..=members as u64).map(member).collect();
    Membership { voters: members.iter().map(|member| member.id).collect(), members, ..Membership::default() }
}

/// A state that grows with `age`: each part of it differs from that of every other age.
fn state(age: u64) -> State {
    let group = Group {
        hard_state: HardState { term: Term(age), vote: Some(NodeId(1 + age % 3)) },
        snapshot: LogId::new(Term(age), Index(100 * age)),
        log_start: Index(1 + 10 * age),
    };
    State {
        durable_end: Place { segment: SegmentNumber(1), offset: 4096 * age, frame: FrameNumber(age) },
        sync_mode: 2,
        writes_in_flight: 1,
        groups: BTreeMap::from([(GroupId::CLUSTER, group), (GroupId(7), group)]),
        met: BTreeMap::from([(NodeId(3), Met { incarnation: Incarnation(0xb03), boot: age, has_lost: false })]),
        ..State::new(ClusterId(0xc1), NodeId(2), Incarnation(0xabcd), membership(3))
    }
}

fn copy(number: u64, age: u64) -> Copy {
    Copy { number: CopyNumber(number), state: state(age) }
}

/// A file of four blocks, each as given.
fn file(blocks: [&Copy; BLOCKS]) -> Vec<u8> {
    (0..BLOCKS).flat_map(|block| encode(block, blocks[block])).collect()
}

fn disk(bytes: Vec<u8>) -> FakeFiles {
    FakeFiles::with_file(FILE_NAME, bytes)
}

/// The age of the state, apart from what a start changes.
fn age(state: &State) -> u64 {
    state.groups[&GroupId::CLUSTER].hard_state.term.0
}

/// docs/formats.md shows these bytes.
#[test]
fn golden_bytes() {
    let mut state = State::new(ClusterId(0x0102), NodeId(2), Incarnation(0x0a), membership(0));
    (state.boot, state.sync_mode, state.writes_in_flight) = (3, 1, 4);
    state.durable_end = Place { segment: SegmentNumber(5), offset: 0x6000, frame: FrameNumber(7) };
    let vote = HardState { term: Term(8), vote: Some(NodeId(9)) };
    let group = Group { hard_state: vote, snapshot: LogId::new(Term(6), Index(11)), log_start: Index(12) };
    state.groups.insert(GroupId(1), group);
    state.met.insert(NodeId(14), Met { incarnation: Incarnation(15), boot: 16, has_lost: true });
    let bytes = encode(2, &Copy { number: CopyNumber(13), state });
    let head: &[&[u8]] = &[
        b"TRISUPER\x01\0\0\0\x02\x01\x04\0",
        b"\x0d\0\0\0\0\0\0\0",
        b"\x02\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
        b"\x02\0\0\0\0\0\0\0\x0a\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0",
        b"\x05\0\0\0\0\0\0\0\0\x60\0\0\0\0\0\0\x07\0\0\0\0\0\0\0",
        b"\x01\0\0\0\0\0\0\0",
        b"\x01\0\0\0\x08\0\0\0\0\0\0\0\x09\0\0\0\0\0\0\0",
        b"\x0b\0\0\0\0\0\0\0\x06\0\0\0\0\0\0\0\x0c\0\0\0\0\0\0\0",
        b"\0\0\0\0\0",
        b"\x01\0\0\0\x0e\0\0\0\0\0\0\0\x0f\0\0\0\0\0\0\0\x10\0\0\0\0\0\0\0\x01",
    ];
    let head = head.concat();
    assert_eq!(bytes[..head.len()], head);
    assert!(bytes[head.len()..4092].iter().all(|&byte| byte == 0));
    assert_eq!(bytes[4092..], 0x65a7_48d0_u32.to_le_bytes());
}

#[test]
fn the_largest_state_fits_and_comes_back() {
    let mut state = state(5);
    let member = |id: u64| Member {
        id: NodeId(u64::MAX - 100 + id),
        incarnation: Incarnation(u64::MAX),
        address: "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535".parse().unwrap(),
    };
    state.first_membership.members = (0..MEMBERS_MAX as u64).map(member).collect();
    state.first_membership.voters = state.first_membership.members.iter().map(|member| member.id).collect();
    let group = state.group(GroupId::CLUSTER);
    state.groups = (0..GROUPS_MAX as u32).map(|id| (GroupId(u32::MAX - id), group)).collect();
    let met = Met { incarnation: Incarnation(u64::MAX), boot: COUNT_MAX, has_lost: true };
    state.met = (0..LIVES_MET_MAX as u64).map(|id| (NodeId(u64::MAX - id), met)).collect();
    let copy = Copy { number: CopyNumber(COUNT_MAX), state };
    assert_eq!(decode(3, &encode(3, &copy)), Ok(copy));
}

#[test]
fn format_then_load_counts_the_starts() {
    let mut files = FakeFiles::default();
    assert!(matches!(load(&files, 0), Err(Error::NotFormatted)));
    assert!(matches!(inspect(&files), Err(Error::NotFormatted)));
    format(&files, &state(4)).unwrap();
    assert!(matches!(format(&files, &state(4)), Err(Error::AlreadyFormatted)));
    for boot in 1..=3 {
        files = files.after_cut(false, |_| false);
        let before = files.operations();
        assert_eq!(inspect(&files).unwrap().state.boot, boot - 1);
        assert_eq!(files.operations(), before, "to look changes nothing");
        let loaded = load(&files, 0).unwrap();
        assert_eq!(loaded.state, State { boot, ..state(4) });
        assert_eq!(&loaded.state, loaded.writer.state());
        assert_eq!(files.bytes(FILE_NAME).len(), BLOCKS * BLOCK_BYTES);
    }
}

#[test]
fn a_cut_while_formatting_leaves_nothing_or_all() {
    let whole = FakeFiles::default();
    format(&whole, &state(1)).unwrap();
    let (mut nothing, mut all) = (0, 0);
    for operations in 0..=whole.operations() {
        for (names_survive, sectors_survive) in [(false, false), (false, true), (true, false), (true, true)] {
            let files = FakeFiles::default();
            files.cut_after(operations);
            let cut = format(&files, &state(1));
            assert_eq!(cut.is_err(), operations <= whole.operations());
            let files = files.after_cut(names_survive, |_| sectors_survive);
            match inspect(&files) {
                Err(Error::NotFormatted) => {
                    nothing += 1;
                    format(&files, &state(1)).unwrap();
                }
                found => {
                    all += 1;
                    assert_eq!(found.unwrap().state, state(1));
                }
            }
            let again = files.after_cut(false, |_| false);
            assert_eq!(load(&again, 0).unwrap().state.boot, 1, "what format made is durable");
        }
    }
    assert!(nothing > 10 && all >= 4, "{nothing} {all}");
}

#[test]
fn a_directory_of_another_cluster_or_node_is_refused() {
    let state = state(1);
    state.check(None, NodeId(2)).unwrap();
    state.check(Some(ClusterId(0xc1)), NodeId(2)).unwrap();
    assert!(matches!(state.check(Some(ClusterId(0xc2)), NodeId(2)), Err(Error::WrongCluster { .. })));
    assert!(matches!(state.check(None, NodeId(3)), Err(Error::WrongNode { expected: NodeId(3), found: NodeId(2) })));
}

#[test]
fn a_file_that_is_cut_short_is_damaged_where_it_ends() {
    let bytes = file([&copy(9, 4); BLOCKS]);
    for length in 0..bytes.len() {
        let usable = length >= 2 * BLOCK_BYTES;
        match load(&disk(bytes[..length].to_vec()), 0) {
            Ok(loaded) => assert!(usable && age(&loaded.state) == 4),
            Err(error) => assert!(!usable && matches!(error, Error::Damaged { .. }), "{length}: {error}"),
        }
    }
}

#[test]
fn every_flipped_bit_is_found_and_harmless() {
    let mut bytes = file([&copy(9, 4); BLOCKS]);
    for bit in 0..bytes.len() * 8 {
        bytes[bit / 8] ^= 1 << (bit % 8);
        let inspection = inspect(&disk(bytes.clone())).unwrap();
        assert_eq!(inspection.state, state(4));
        for (block, condition) in inspection.found.0.iter().enumerate() {
            let intact = *condition == Condition::Intact { copy: 9 };
            assert_eq!(intact, block != bit / 8 / BLOCK_BYTES, "bit {bit}: block {block} {condition}");
        }
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
}

#[test]
fn a_block_in_anothers_place_does_not_pass() {
    for from in 0..BLOCKS {
        for to in (0..BLOCKS).filter(|to| *to != from) {
            assert_eq!(decode(to, &encode(from, &copy(9, 4))), Err(Condition::Misplaced));
        }
    }
}

/// No disk has seen so many saves or starts: it is not what was written, and nothing is to be added to it.
#[test]
fn numbers_that_cannot_be_raised_are_damage() {
    for high in [COUNT_MAX + 1, u64::MAX - 1, u64::MAX] {
        let boot = Copy { number: CopyNumber(9), state: State { boot: high, ..state(4) } };
        for copy in [copy(high, 4), boot] {
            assert!(matches!(load(&disk(file([&copy; BLOCKS])), 0), Err(Error::Damaged { .. })));
        }
    }
    let highest = Copy { number: CopyNumber(COUNT_MAX), state: State { boot: COUNT_MAX, ..state(4) } };
    assert!(load(&disk(file([&highest; BLOCKS])), 0).is_ok());
    // The next segment's number is one more than that which the superblock knows.
    let knowing = |segment, frame| {
        let durable_end = Place { segment: SegmentNumber(segment), offset: 4096, frame: FrameNumber(frame) };
        load(&disk(file([&Copy { number: CopyNumber(9), state: State { durable_end, ..state(4) } }; BLOCKS])), 0)
    };
    for (segment, frame) in [(SEGMENT_MAX + 1, 1), (u64::MAX, 1), (1, COUNT_MAX + 1), (1, u64::MAX)] {
        assert!(matches!(knowing(segment, frame), Err(Error::Damaged { .. })), "{segment} {frame}");
    }
    assert!(knowing(SEGMENT_MAX, COUNT_MAX).is_ok());
}

#[test]
fn zeros_and_junk_do_not_pass() {
    for byte in 0..=255 {
        assert_eq!(decode(0, &[byte; BLOCK_BYTES]), Err(Condition::Damaged));
    }
}

/// A checksum says that a block is as it was written, not that it was written by a program without errors.
#[test]
fn an_intact_block_with_impossible_content_does_not_pass() {
    let good = encode(0, &copy(9, 4));
    let with = |offset: usize, byte: u8| {
        let mut bytes = good;
        bytes[offset] = byte;
        let checksum = crate::checksum::Checksum::of(&bytes[..4092]);
        bytes[4092..].copy_from_slice(&checksum.0.to_le_bytes());
        decode(0, &bytes)
    };
    assert!(with(13, 99).is_ok(), "the test can make a block that passes");
    assert_eq!(with(8, 2), Err(Condition::Newer { found: 2 }));
    assert_eq!(with(8, 0), Err(Condition::Damaged));
    for (offset, byte) in [(15, 1), (40, 0), (88, 65), (88, 255), (92, 1), (96 + 44, 0), (96 + 88, 16), (4091, 1)] {
        assert_eq!(with(offset, byte), Err(Condition::Damaged), "byte {offset} = {byte}");
    }
}

/// A superblock that was written before others were remembered in it: zeros where they stand now.
#[test]
fn where_nobody_was_remembered_nobody_is() {
    let mut bytes = encode(1, &copy(9, 4));
    let nobody = Copy { state: State { met: BTreeMap::new(), ..state(4) }, ..copy(9, 4) };
    let end = encode(1, &nobody)[..4092].iter().rposition(|&byte| byte != 0).expect("it holds something") + 1;
    bytes[end..4092].fill(0);
    let checksum = crate::checksum::Checksum::of(&bytes[..4092]);
    bytes[4092..].copy_from_slice(&checksum.0.to_le_bytes());
    assert_eq!(decode(1, &bytes), Ok(nobody));
}

/// Named after the bug: on a full disk nothing was left, each start raised the boot number of an older copy, and at last it
/// was a newer one.
#[test]
fn a_full_disk_does_not_keep_a_node_from_losing_its_voice() {
    let disk = SimDisk::new();
    let files = disk.files();
    format(&files, &state(4)).unwrap();
    disk.set_capacity(0);
    mark_no_voice(&files, "why").unwrap();
    disk.crash_to(&vec![0; disk.loose().len()]);
    assert_eq!(disk.files().list("").unwrap(), [NO_VOICE_NAME]);
    mark_no_voice(&disk.files(), "again").unwrap();
}
