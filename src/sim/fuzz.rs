//! What the fuzz targets do with their bytes, where tests can reach it too.
//!
//! [`wal_ops_crash`], [`operations`], [`raft_step`], [`config_change`] and [`snapshot_stream`] take theirs as choices, one
//! after the other. For [`wal_decode`] and [`wal_recover_dir`] an input is a list of pieces of files, so that a few bytes make a segment of 64 KiB:
//!
//! ```text
//! offset size field of a piece
//!      0    1 file: see `name`
//!      1    1 the block of the file where the piece begins, modulo 16 (of a superblock: 4); all else is zero
//!      2    1 bit 0: checksums of the header, frame or block of a superblock that begins here are made good
//!             bit 1, of the first piece: the log is opened by its seals
//!      3    2 length, little-endian
//!      5    – bytes
//! ```
//!
//! Made-good checksums are what lets mutated lengths, numbers and directories reach the code behind the checksums.
//! Nothing may panic, whatever the bytes, but for what contradicts a model; what opens must be a log that can be written on.

mod backends;
mod choices;
mod crashes;
mod dishonest;
pub mod forged;
mod protocol;
mod snapshots;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use bytes::Bytes;

use super::disk::SimDisk;
use super::log::carry_out;
use crate::checksum::Checksum;
use crate::disk::Files;
use crate::limits::{BLOCK_BYTES, SEGMENT_BYTES_MIN};
use crate::superblock;
use crate::types::{ClusterId, Data, Entry, GroupId, Incarnation, Index, LogId, NodeId, Payload, Place};
use crate::wal::{Analysis, Identity, Log, Options, Reading, Source};

pub use backends::{Backend, Simulated, operations};
pub use crashes::{Done, wal_ops_crash};
pub use dishonest::Treason;
pub use protocol::{History, config_change, raft_step};
pub use snapshots::{Transferred, snapshot_stream};

const FILE_BYTES: usize = SEGMENT_BYTES_MIN as usize;
const SUPERBLOCK_BYTES: usize = 4 * BLOCK_BYTES;
const PIECES_MAX: usize = 256;
/// Above this an index has no room for what the target appends.
const INDEX_MAX: u64 = 1 << 60;

/// Bytes as one segment: it is read, and so is whatever it holds.
pub fn wal_decode(input: &[u8]) {
    let disk = SimDisk::new();
    plant(&disk, input, |_| name(1));
    let _ = analyse(&disk);
}

/// Bytes as a directory: it is read, and opened, with what its superblock says if there is one that can be read. If it
/// opens, it can be written on and opened again.
pub fn wal_recover_dir(input: &[u8]) {
    let disk = SimDisk::new();
    plant(&disk, input, name);
    let Some(analysis) = analyse(&disk) else { return };
    let Some(identity) = analysis.identity else { return };
    let files = disk.files();
    let reading = if input[2] & 2 == 0 { Reading::Everything } else { Reading::BySeals };
    let start = (evidence(&disk), reading);
    let Ok((log, _)) = Log::open_reading(&files, options(identity), start, 1) else { return };
    let Some(last) = append(&disk, log) else { return };
    drop(files);
    disk.crash_to(&vec![0; disk.loose().len()]);
    let opened = Log::open_reading(&disk.files(), options(identity), start, 1);
    let (log, _) = opened.expect("what was written on opens");
    assert_eq!(log.group(GroupId::CLUSTER).map(|group| group.last), Some(last), "what was acknowledged is there");
}

/// Everything that a reader does; nothing if the world refuses.
fn analyse(disk: &SimDisk) -> Option<Analysis> {
    let files = disk.files();
    let source = Source { evidence: evidence(disk), ..Source::from_outside("log") };
    // A seal may say anything here: what it says is not compared.
    let by_seals = Source { reading: Reading::BySeals, ..source.clone() };
    Analysis::read(&files, &by_seals).ok()?.close(&files);
    let analysis = Analysis::read(&files, &source).ok()?;
    for finding in &analysis.findings {
        let _ = finding.to_string();
    }
    analysis.close(&files);
    Some(analysis)
}

/// What the superblock says that was durable, if it can be read.
fn evidence(disk: &SimDisk) -> Place {
    superblock::inspect(&disk.files()).map_or(Place::START, |inspection| inspection.state.durable_end)
}

/// Appends an entry behind the cluster's last, durably; gives its name.
fn append(disk: &SimDisk, mut log: Log) -> Option<LogId> {
    let last = log.group(GroupId::CLUSTER).map_or(LogId::ZERO, |group| group.last);
    if last.index.0 > INDEX_MAX {
        return None;
    }
    let id = LogId::new(last.term, Index(last.index.0 + 1));
    let entry = Entry { id, payload: Payload::Data(Data::new(Bytes::from_static(b"after the crash"))) };
    let ticket = log.append(GroupId::CLUSTER, &[entry]).ok()?;
    let mut queue = disk.queue();
    for _ in 0..100 {
        carry_out(disk, &mut queue, &mut log);
        if log.durable_ticket() >= ticket {
            return Some(id);
        }
    }
    panic!("the append does not become durable");
}

/// Small segments, one write at a time.
pub(crate) fn options(identity: Identity) -> Options {
    Options {
        directory: "log".to_owned(),
        identity,
        segment_bytes: SEGMENT_BYTES_MIN,
        writes_in_flight: 1,
        quiet_ticks: 5,
        tail_cache_bytes: 0,
        seed: 1,
    }
}

/// Whose log the corpus is.
pub fn identity() -> Identity {
    Identity { cluster: ClusterId(1), node: NodeId(1), incarnation: Incarnation(1) }
}

/// Which file a piece is of.
fn name(file: u8) -> String {
    match file {
        0..=7 => format!("log/{:016}.segment", u64::from(file) + 1),
        8 => "log/0000000000000009.preparing".to_owned(),
        9 => "log/0000000000000001-8192.cut".to_owned(),
        10 => superblock::FILE_NAME.to_owned(),
        _ => "log/other".to_owned(),
    }
}

fn plant(disk: &SimDisk, input: &[u8], name: impl Fn(u8) -> String) {
    let mut contents: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let mut good = Vec::new();
    let mut rest = input;
    for _ in 0..PIECES_MAX {
        let Some((&[file, block, flags, low, high], behind)) = rest.split_first_chunk() else { break };
        let length = usize::from(u16::from_le_bytes([low, high])).min(behind.len());
        let (bytes, behind) = behind.split_at(length);
        rest = behind;
        let name = name(file);
        let file_bytes = if name == superblock::FILE_NAME { SUPERBLOCK_BYTES } else { FILE_BYTES };
        let content = contents.entry(name.clone()).or_insert_with(|| vec![0; file_bytes]);
        let start = usize::from(block) % (file_bytes / BLOCK_BYTES) * BLOCK_BYTES;
        let length = length.min(file_bytes - start);
        content[start..start + length].copy_from_slice(&bytes[..length]);
        if flags & 1 != 0 {
            good.push((name, start));
        }
    }
    good.iter().for_each(|(name, start)| contents.get_mut(name).into_iter().for_each(|bytes| make_good(bytes, *start)));
    disk.files().create_directory("log").expect("the disk is empty and well");
    contents.iter().for_each(|(name, bytes)| disk.plant(name, bytes));
}

/// Sets the checksums of the header or frame at `start`, if it looks like one.
fn make_good(bytes: &mut [u8], start: usize) {
    let word =
        |bytes: &[u8], at: usize| u32::from_le_bytes(bytes[start + at..start + at + 4].try_into().unwrap_or_default());
    let long =
        |bytes: &[u8], at: usize| u64::from_le_bytes(bytes[start + at..start + at + 8].try_into().unwrap_or_default());
    if bytes[start..].starts_with(b"TRLTHSEG") {
        let checksum = Checksum::of(&bytes[start..start + 72]);
        bytes[start + 72..start + 76].copy_from_slice(&checksum.0.to_le_bytes());
    } else if bytes[start..].starts_with(b"TRISUPER") {
        let end = start + BLOCK_BYTES - 4;
        let checksum = Checksum::of(&bytes[start..end]);
        bytes[end..end + 4].copy_from_slice(&checksum.0.to_le_bytes());
    } else if bytes[start..].starts_with(b"TFRM") {
        let salt = long(bytes, 8) ^ long(bytes, 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let runs = (word(bytes, 72) & 0xffff) as usize + (word(bytes, 72) >> 16) as usize;
        let sections = (runs * 40).saturating_add(word(bytes, 76) as usize).saturating_add(word(bytes, 80) as usize);
        if sections <= bytes.len() - start - 104 {
            let checksum = Checksum::salted(salt, &[&bytes[start + 104..start + 104 + sections]]);
            bytes[start + 92..start + 96].copy_from_slice(&checksum.0.to_le_bytes());
        }
        let checksum = Checksum::salted(salt, &[&bytes[start..start + 100]]);
        bytes[start + 100..start + 104].copy_from_slice(&checksum.0.to_le_bytes());
    }
}
