//! One block of the superblock as bytes. All numbers are little-endian.
//!
//! docs/formats.md has the table, with a worked example that a test pins.
//!
//! Magic, version and checksum keep their places in every later format, so that an older program can tell "newer"
//! from "damaged". The checksum covers the block's number: a block that turns up in another's place does not pass.

use std::collections::BTreeMap;

use bytes::BufMut;

use super::recovery::Condition;
use super::state::{Group, Met, State};
use crate::checksum::Checksum;
use crate::codec::{self, Reader, membership, put_membership};
use crate::disk::Buffer;
use crate::limits::{BLOCK_BYTES, BOOT_MAX, GROUPS_MAX, LIVES_MET_MAX, MEMBERS_MAX};
use crate::types::{
    ClusterId, FrameNumber, GroupId, HardState, Incarnation, Index, NodeId, Place, SegmentNumber, Term,
};

pub const FORMAT_VERSION: u32 = 1;

/// Blocks in the file.
pub(super) const BLOCKS: usize = 4;
/// Two blocks, one write.
pub(super) const PAIR_BYTES: usize = 2 * BLOCK_BYTES;

const MAGIC: [u8; 8] = *b"TRISUPER";
const HEAD_BYTES: usize = 96;
const GROUP_BYTES: usize = 44;
/// Id, incarnation, the longer kind of address, role.
const MEMBER_BYTES_MAX: usize = 8 + 8 + (1 + 16 + 2) + 1;
/// Id, incarnation, boot number, what was lost.
const MET_BYTES: usize = 8 + 8 + 8 + 1;
const CHECKSUM_OFFSET: usize = BLOCK_BYTES - 4;

const LARGEST_BYTES: usize =
    HEAD_BYTES + GROUPS_MAX * GROUP_BYTES + (4 + 1 + MEMBERS_MAX * MEMBER_BYTES_MAX) + (4 + LIVES_MET_MAX * MET_BYTES);
const _: () = assert!(LARGEST_BYTES <= CHECKSUM_OFFSET);

/// No copy number and no boot number is higher: no disk lives to see them, and one more is always a number.
pub(super) const COUNT_MAX: u64 = BOOT_MAX;
/// Nor a segment's number: its name has sixteen digits.
pub(super) const SEGMENT_MAX: u64 = 1 << 50;

/// One of the two halves of the file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Pair {
    A,
    B,
}

/// What an intact block says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Copy {
    pub number: CopyNumber,
    pub state: State,
}

/// Counts what was written over the life of the file; of two intact blocks the one with the higher number is newer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct CopyNumber(pub u64);

impl CopyNumber {
    pub const FIRST: CopyNumber = CopyNumber(1);

    pub fn plus(self, count: u64) -> CopyNumber {
        CopyNumber(self.0.checked_add(count).expect("2^64 saves outlast every disk"))
    }
}

impl Pair {
    pub fn offset(self) -> u64 {
        (self.first_block() * BLOCK_BYTES) as u64
    }

    pub fn first_block(self) -> usize {
        match self {
            Pair::A => 0,
            Pair::B => 2,
        }
    }

    /// Both blocks of the pair, ready to be written at its offset. `buffer` is empty and holds at least a pair.
    pub fn encode_into(self, buffer: &mut Buffer, copy: &Copy) {
        for block in self.first_block()..self.first_block() + 2 {
            buffer.extend(&encode(block, copy));
        }
    }
}

/// The bytes of one block.
pub(super) fn encode(block: usize, copy: &Copy) -> [u8; BLOCK_BYTES] {
    assert!(block < BLOCKS, "there is no block {block}");
    let state = &copy.state;
    assert!(state.groups.len() <= GROUPS_MAX && state.first_membership.members.len() <= MEMBERS_MAX);
    let mut bytes = [0; BLOCK_BYTES];
    let mut out = &mut bytes[..CHECKSUM_OFFSET];
    out.put_slice(&MAGIC);
    out.put_u32_le(FORMAT_VERSION);
    out.put_u8(block as u8);
    out.put_u8(state.sync_mode);
    out.put_u8(state.writes_in_flight);
    out.put_u8(0);
    out.put_u64_le(copy.number.0);
    out.put_u128_le(state.cluster.0);
    out.put_u64_le(state.node.0);
    out.put_u64_le(state.incarnation.0);
    out.put_u64_le(state.boot);
    out.put_u64_le(state.durable_end.segment.0);
    out.put_u64_le(state.durable_end.offset);
    out.put_u64_le(state.durable_end.frame.0);
    out.put_u32_le(state.groups.len() as u32);
    out.put_u32_le(0);
    for (id, group) in &state.groups {
        put_group(&mut out, *id, group);
    }
    put_membership(&mut out, &state.first_membership);
    // What was written before there were any has zeros here: none.
    out.put_u32_le(state.met.len() as u32);
    for (node, met) in &state.met {
        put_met(&mut out, *node, met);
    }
    let checksum = Checksum::of(&bytes[..CHECKSUM_OFFSET]);
    bytes[CHECKSUM_OFFSET..].copy_from_slice(&checksum.0.to_le_bytes());
    bytes
}

/// What the bytes in a block's place say, or what is wrong with them.
pub(super) fn decode(block: usize, bytes: &[u8; BLOCK_BYTES]) -> Result<Copy, Condition> {
    let (content, checksum) = bytes.split_at(CHECKSUM_OFFSET);
    let damaged = |_: codec::Error| Condition::Damaged;
    let expected = Checksum(Reader::new(checksum).u32("checksum").map_err(damaged)?);
    let mut reader = Reader::new(content);
    if reader.take(MAGIC.len(), "magic").map_err(damaged)? != MAGIC || Checksum::of(content) != expected {
        return Err(Condition::Damaged);
    }
    match reader.u32("format version").map_err(damaged)? {
        FORMAT_VERSION => {}
        found if found > FORMAT_VERSION => return Err(Condition::Newer { found }),
        _ => return Err(Condition::Damaged),
    }
    if usize::from(reader.u8("block").map_err(damaged)?) != block {
        return Err(Condition::Misplaced);
    }
    take_copy(reader).map_err(damaged)
}

fn take_copy(mut reader: Reader<'_>) -> Result<Copy, codec::Error> {
    let sync_mode = reader.u8("sync mode")?;
    let writes_in_flight = reader.u8("writes in flight")?;
    refuse_all_but_zeros(reader.take(1, "zero")?)?;
    let number = CopyNumber(count(&mut reader, "copy number")?);
    let mut state = State {
        cluster: ClusterId(reader.u128("cluster id")?),
        node: node_id(&mut reader)?.ok_or(codec::Error::Invalid { what: "node id", found: 0 })?,
        incarnation: Incarnation(reader.u64("incarnation")?),
        boot: count(&mut reader, "boot number")?,
        sync_mode,
        writes_in_flight,
        durable_end: Place {
            segment: SegmentNumber(bounded(&mut reader, "segment", SEGMENT_MAX)?),
            offset: reader.u64("offset")?,
            frame: FrameNumber(count(&mut reader, "frame")?),
        },
        groups: BTreeMap::new(),
        first_membership: Default::default(),
        met: BTreeMap::new(),
    };
    let groups = reader.length(GROUPS_MAX, "number of groups")?;
    refuse_all_but_zeros(reader.take(4, "zeros")?)?;
    for _ in 0..groups {
        let (id, group) = take_group(&mut reader)?;
        if state.groups.last_key_value().is_some_and(|(last, _)| *last >= id) {
            return Err(codec::Error::Invalid { what: "next group id in order", found: u64::from(id.0) });
        }
        state.groups.insert(id, group);
    }
    state.first_membership = membership(&mut reader)?;
    for _ in 0..reader.length(LIVES_MET_MAX, "number of nodes met")? {
        let (node, met) = take_met(&mut reader)?;
        if state.met.last_key_value().is_some_and(|(last, _)| *last >= node) {
            return Err(codec::Error::Invalid { what: "next node in order", found: node.0 });
        }
        state.met.insert(node, met);
    }
    refuse_all_but_zeros(reader.take(reader.remaining(), "zeros")?)?;
    Ok(Copy { number, state })
}

fn put_group(out: &mut impl BufMut, id: GroupId, group: &Group) {
    out.put_u32_le(id.0);
    out.put_u64_le(group.hard_state.term.0);
    out.put_u64_le(group.hard_state.vote.map_or(0, |node| node.0));
    codec::put_log_id(out, group.snapshot);
    out.put_u64_le(group.log_start.0);
}

fn take_group(reader: &mut Reader<'_>) -> Result<(GroupId, Group), codec::Error> {
    let id = GroupId(reader.u32("group id")?);
    let term = Term(reader.u64("term")?);
    let vote = node_id(reader)?;
    let snapshot = codec::log_id(reader)?;
    let log_start = Index(reader.u64("log start")?);
    Ok((id, Group { hard_state: HardState { term, vote }, snapshot, log_start }))
}

fn put_met(out: &mut impl BufMut, node: NodeId, met: &Met) {
    out.put_u64_le(node.0);
    out.put_u64_le(met.incarnation.0);
    out.put_u64_le(met.boot);
    out.put_u8(u8::from(met.has_lost));
}

fn take_met(reader: &mut Reader<'_>) -> Result<(NodeId, Met), codec::Error> {
    let node = node_id(reader)?.ok_or(codec::Error::Invalid { what: "node id", found: 0 })?;
    let incarnation = Incarnation(reader.u64("incarnation")?);
    let boot = count(reader, "boot number")?;
    let has_lost = match reader.u8("flag of a loss")? {
        0 => false,
        1 => true,
        found => return Err(codec::Error::Invalid { what: "flag of a loss", found: u64::from(found) }),
    };
    Ok((node, Met { incarnation, boot, has_lost }))
}

fn count(reader: &mut Reader<'_>, what: &'static str) -> Result<u64, codec::Error> {
    bounded(reader, what, COUNT_MAX)
}

fn bounded(reader: &mut Reader<'_>, what: &'static str, most: u64) -> Result<u64, codec::Error> {
    match reader.u64(what)? {
        found if found > most => Err(codec::Error::Invalid { what, found }),
        found => Ok(found),
    }
}

fn node_id(reader: &mut Reader<'_>) -> Result<Option<NodeId>, codec::Error> {
    let id = reader.u64("node id")?;
    Ok((id != 0).then_some(NodeId(id)))
}

fn refuse_all_but_zeros(bytes: &[u8]) -> Result<(), codec::Error> {
    match bytes.iter().find(|&&byte| byte != 0) {
        None => Ok(()),
        Some(&found) => Err(codec::Error::Invalid { what: "zero", found: u64::from(found) }),
    }
}
