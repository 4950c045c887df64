//! What a snapshot says about itself, as a value and as bytes. docs/formats.md has the table.
//!
//! Magic, version and checksum keep their places in every later format, so that an older program can tell "newer" from
//! "damaged".

use bytes::BufMut;

use super::error::{Damage, Error};
use super::naming::{Name, Stage};
use crate::checksum::Checksum;
use crate::codec::{self, Reader, membership, put_membership};
use crate::limits::{
    INDEX_MAX, MEMBERS_MAX, SECTOR_BYTES, SNAPSHOT_CHUNK_BYTES, SNAPSHOT_CHUNKS_MAX, SNAPSHOT_HEAD_BYTES, TERM_MAX,
};
use crate::mutant::{self, Mutant};
use crate::types::{ClusterId, GroupId, Index, LogId, Membership};

pub const FORMAT_VERSION: u32 = 1;

const MAGIC: [u8; 8] = *b"TRISNAPS";
const CHECKSUM_OFFSET: usize = 12;
const HEAD_BYTES: usize = 104;
/// Count and flag; of each member id, incarnation, the longer kind of address, role.
const MEMBERSHIP_BYTES_MAX: usize = 5 + MEMBERS_MAX * (8 + 8 + (1 + 16 + 2) + 1);
pub(super) const MANIFEST_BYTES_MAX: usize = HEAD_BYTES + 4 * SNAPSHOT_CHUNKS_MAX + MEMBERSHIP_BYTES_MAX;

// Else it would not go over the wire.
const _: () = assert!(HEAD_BYTES + MEMBERSHIP_BYTES_MAX <= SNAPSHOT_HEAD_BYTES);

/// Which state it is: the same on all nodes that make a snapshot at this point.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Description {
    pub cluster: ClusterId,
    pub group: GroupId,
    /// The last entry whose effect is in the state.
    pub point: LogId,
    /// The configuration in force at the point.
    pub membership: Membership,
    /// The entry that it stands in, at or below the point; [`LogId::ZERO`] of the one that the cluster began with.
    pub membership_id: LogId,
    /// The first index of the log that goes with the state: at least 1, at most the one behind the point.
    pub log_start: Index,
    /// The last entry up to the point that is an appended record; zero if none is.
    pub last_record: Index,
    /// Of all entries up to the point, one after the other: for comparing nodes.
    pub log_digest: Checksum,
}

/// What a snapshot consists of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Manifest {
    pub description: Description,
    /// Of each chunk but the last, which may be shorter: [`SNAPSHOT_CHUNK_BYTES`]. Smaller ones, of whole sectors, are for
    /// tests.
    pub chunk_bytes: u32,
    /// Of all chunks.
    pub bytes: u64,
    /// Of each chunk, salted with its place; at most [`SNAPSHOT_CHUNKS_MAX`].
    pub checksums: Vec<Checksum>,
}

impl Description {
    /// The salted checksum of a chunk. The number alone differs between two places of one snapshot, by at most 32 bits in a
    /// row, which a CRC always sees.
    pub fn checksum_of(&self, number: u32, chunk: &[u8]) -> Checksum {
        if mutant::is_on(Mutant::ChecksumWithoutPlace) {
            return Checksum::of(chunk);
        }
        let (cluster, point) = (self.cluster.0.to_le_bytes(), self.point);
        let point = [point.index.0.to_le_bytes(), point.term.0.to_le_bytes()].concat();
        let salt = u64::from(self.group.0) << 32 | u64::from(number);
        Checksum::salted(salt, &[&cluster, &point, chunk])
    }

    /// The name of its directory, once it is whole.
    pub fn name(&self) -> String {
        self.named(Stage::Whole).to_string()
    }

    pub(super) fn named(&self, stage: Stage) -> Name {
        Name::new(self.group, self.point, stage)
    }
}

impl Manifest {
    /// How many chunks there are.
    pub fn chunks(&self) -> u32 {
        u32::try_from(self.checksums.len()).expect("their number is bounded")
    }

    /// Where a chunk begins in the state, and how long it is. Panics if there is none of this number.
    pub fn place(&self, number: u32) -> (u64, usize) {
        assert!(number < self.chunks(), "there is no chunk {number}");
        let start = u64::from(number) * u64::from(self.chunk_bytes);
        (start, (self.bytes - start).min(u64::from(self.chunk_bytes)) as usize)
    }

    /// Whether these bytes are the chunk of this number.
    pub fn is_chunk(&self, number: u32, bytes: &[u8]) -> bool {
        let expected = self.checksums.get(number as usize);
        expected.is_some_and(|expected| {
            bytes.len() == self.place(number).1 && self.description.checksum_of(number, bytes) == *expected
        })
    }

    /// In what another one for the same point is not this one, for whoever has to find out why; empty if it is this one.
    pub fn difference(&self, other: &Manifest) -> String {
        let (one, two) = (&self.description, &other.description);
        let chunk = (0..).zip(self.checksums.iter().zip(&other.checksums)).find(|(_, (one, two))| one != two);
        let differences = [
            (one.cluster != two.cluster).then(|| "cluster".to_owned()),
            (one.log_digest != two.log_digest).then(|| "digest of the log".to_owned()),
            ((&one.membership, one.membership_id) != (&two.membership, two.membership_id))
                .then(|| "members".to_owned()),
            (one.log_start != two.log_start).then(|| format!("log start {} and {}", one.log_start, two.log_start)),
            (self.bytes != other.bytes).then(|| format!("{} and {} bytes", self.bytes, other.bytes)),
            (self.chunk_bytes != other.chunk_bytes).then(|| "bytes of a chunk".to_owned()),
            chunk.map(|(number, _)| format!("chunk {number}: the first that differs")),
        ];
        differences.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }

    /// The bytes of the file `manifest`, and of its transfer.
    pub fn encode(&self) -> Vec<u8> {
        let of = &self.description;
        let mut out = Vec::with_capacity(HEAD_BYTES + 4 * self.checksums.len() + MEMBERSHIP_BYTES_MAX);
        out.put_slice(&MAGIC);
        out.put_u32_le(FORMAT_VERSION);
        out.put_u32_le(0);
        out.put_u128_le(of.cluster.0);
        out.put_u32_le(of.group.0);
        out.put_u32_le(self.chunk_bytes);
        codec::put_log_id(&mut out, of.point);
        codec::put_log_id(&mut out, of.membership_id);
        out.put_u64_le(of.log_start.0);
        out.put_u64_le(of.last_record.0);
        out.put_u64_le(self.bytes);
        out.put_u32_le(of.log_digest.0);
        out.put_u32_le(self.chunks());
        assert!(out.len() == HEAD_BYTES, "the table says where the checksums begin");
        self.checksums.iter().for_each(|checksum| out.put_u32_le(checksum.0));
        put_membership(&mut out, &of.membership);
        let checksum = checksum(&out);
        out[CHECKSUM_OFFSET..CHECKSUM_OFFSET + 4].copy_from_slice(&checksum.0.to_le_bytes());
        out
    }

    /// The manifest in these bytes, which stand under this name.
    ///
    /// # Errors
    /// [`Error::Damaged`] if they are not what was written, [`Error::NewerFormat`] if they are intact and this program does
    /// not know the format.
    pub fn decode(name: &str, bytes: &[u8]) -> Result<Manifest, Error> {
        let damaged = |damage| Error::Damaged { name: name.to_owned(), damage };
        let format = format(bytes).ok_or_else(|| damaged(Damage::Manifest))?;
        if format > FORMAT_VERSION {
            return Err(Error::NewerFormat { name: name.to_owned(), found: format });
        }
        decode_content(bytes).map_err(|error| damaged(Damage::Content(error)))
    }
}

/// The format of what begins as a manifest and has the right checksum.
fn format(bytes: &[u8]) -> Option<u32> {
    let mut reader = Reader::new(bytes);
    let is_magic = reader.take(MAGIC.len(), "magic").is_ok_and(|magic| magic == MAGIC);
    let format = reader.u32("format version").ok()?;
    let expected = Checksum(reader.u32("checksum").ok()?);
    (is_magic && checksum(bytes) == expected).then_some(format)
}

/// Of all bytes but its own.
fn checksum(bytes: &[u8]) -> Checksum {
    Checksum::of(&bytes[..CHECKSUM_OFFSET]).continued(&bytes[CHECKSUM_OFFSET + 4..])
}

fn decode_content(bytes: &[u8]) -> Result<Manifest, codec::Error> {
    let mut reader = Reader::new(bytes);
    reader.take(MAGIC.len(), "magic")?;
    within(u64::from(reader.u32("format version")?), 1, u64::from(FORMAT_VERSION), "format version")?;
    reader.u32("checksum")?;
    let cluster = ClusterId(reader.u128("cluster id")?);
    let group = GroupId(reader.u32("group id")?);
    let chunk_bytes = reader.u32("bytes of a chunk")?;
    let sectors = u64::from(chunk_bytes) % SECTOR_BYTES as u64;
    within(sectors, 0, 0, "bytes of a chunk beyond whole sectors")?;
    within(u64::from(chunk_bytes), 1, SNAPSHOT_CHUNK_BYTES as u64, "bytes of a chunk")?;
    let point = log_id(&mut reader, Index(INDEX_MAX))?;
    let membership_id = log_id(&mut reader, point.index)?;
    let log_start = Index(reader.u64("log start")?);
    within(log_start.0, 1, point.index.next().0, "log start")?;
    let last_record = Index(reader.u64("last record")?);
    within(last_record.0, 0, point.index.0, "last record")?;
    let bytes = reader.u64("bytes of the state")?;
    let log_digest = Checksum(reader.u32("digest of the log")?);
    let chunks = reader.length(SNAPSHOT_CHUNKS_MAX, "number of chunks")?;
    within(
        chunks as u64,
        bytes.div_ceil(u64::from(chunk_bytes)),
        bytes.div_ceil(u64::from(chunk_bytes)),
        "number of chunks",
    )?;
    let list = reader.take(4 * chunks, "checksums of chunks")?;
    let checksums = list.chunks_exact(4).map(|bytes| Reader::new(bytes).u32("checksum").map(Checksum));
    let checksums = checksums.collect::<Result<_, _>>()?;
    let membership = membership(&mut reader)?;
    reader.finish("manifest")?;
    let description =
        Description { cluster, group, point, membership, membership_id, log_start, last_record, log_digest };
    Ok(Manifest { description, chunk_bytes, bytes, checksums })
}

fn log_id(reader: &mut Reader<'_>, last: Index) -> Result<LogId, codec::Error> {
    let id = codec::log_id(reader)?;
    within(id.index.0, 0, last.0, "index")?;
    within(id.term.0, 0, TERM_MAX, "term")?;
    Ok(id)
}

fn within(found: u64, least: u64, most: u64, what: &'static str) -> Result<(), codec::Error> {
    if (least..=most).contains(&found) { Ok(()) } else { Err(codec::Error::Invalid { what, found }) }
}
