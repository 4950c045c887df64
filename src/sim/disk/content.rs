//! One file's bytes: what is on the disk for certain, and what is loose above it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::rc::Rc;

use crate::limits::SECTOR_BYTES;

const SECTOR: u64 = SECTOR_BYTES as u64;

/// Versions of one sector that are remembered between two flushes: the first ones and the last.
const VERSIONS_MAX: usize = 8;

/// None is a sector of zeros, which takes no memory.
type Sector = Option<Rc<[u8; SECTOR_BYTES]>>;

/// Sparse, and cheap to clone: sectors are shared until they change.
#[derive(Clone, Default, Debug)]
pub(super) struct Content {
    /// What a cut of power cannot take. Sectors of zeros are not held.
    durable: BTreeMap<u64, Rc<[u8; SECTOR_BYTES]>>,
    durable_length: u64,
    /// What was written since, by sector.
    loose: BTreeMap<u64, Versions<Sector>>,
    /// Lengths since, each greater than the one before.
    loose_length: Versions<u64>,
    /// Sectors that the disk cannot read. One that is written again is put elsewhere by the disk, and can be.
    unreadable: BTreeSet<u64>,
}

/// What a thing has been since it was last durable, oldest first.
#[derive(Clone, Debug)]
struct Versions<T> {
    since: Vec<T>,
    /// A flush failed: the kernel takes these for clean, and no later flush covers them.
    abandoned: bool,
}

impl<T> Default for Versions<T> {
    fn default() -> Versions<T> {
        Versions { since: Vec::new(), abandoned: false }
    }
}

impl<T> Versions<T> {
    fn push(&mut self, version: T) {
        if self.since.len() == VERSIONS_MAX {
            self.since.remove(VERSIONS_MAX / 2);
        }
        self.since.push(version);
        self.abandoned = false;
    }
}

impl Content {
    pub fn length(&self) -> u64 {
        self.loose_length.since.last().copied().unwrap_or(self.durable_length)
    }

    /// Fills `buffer`, or fails where the range ends beyond the file or touches what cannot be read.
    pub fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        if offset.checked_add(buffer.len() as u64).is_none_or(|end| end > self.length()) && !buffer.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let sectors = offset / SECTOR..(offset + buffer.len() as u64).div_ceil(SECTOR);
        if self.unreadable.range(sectors).next().is_some() {
            return Err(super::Code::Io.into());
        }
        self.copy_out(offset, buffer);
        Ok(())
    }

    /// Writes, loosely: readers see it, the disk may or may not have it.
    pub fn write(&mut self, offset: u64, bytes: &[u8]) {
        for part in parts(offset, bytes.len() as u64) {
            let value = self.patched(&part, &bytes[part.source.clone()]);
            self.put_loose(part.sector, value);
        }
        self.grow(offset + bytes.len() as u64);
    }

    pub fn zero(&mut self, offset: u64, bytes: u64) {
        for part in parts(offset, bytes) {
            let whole = part.within.len() == SECTOR_BYTES;
            let value = if whole { None } else { self.patched(&part, &[0; SECTOR_BYTES][..part.within.len()]) };
            self.put_loose(part.sector, value);
        }
        self.grow(offset + bytes);
    }

    /// Writes what is durable at once: a write with its flush, or damage.
    pub fn settle(&mut self, offset: u64, bytes: &[u8]) {
        for part in parts(offset, bytes.len() as u64) {
            let value = self.patched(&part, &bytes[part.source.clone()]);
            self.loose.remove(&part.sector);
            self.put_durable(part.sector, value);
        }
        let end = offset + bytes.len() as u64;
        self.durable_length = self.durable_length.max(end);
        self.loose_length.since.retain(|length| *length > end);
    }

    /// All that is loose is durable, save what a failed flush abandoned.
    pub fn flush(&mut self) {
        let (kept, flushed) = std::mem::take(&mut self.loose).into_iter().partition(|(_, loose)| loose.abandoned);
        self.loose = kept;
        let flushed: BTreeMap<u64, Versions<Sector>> = flushed;
        for (sector, mut versions) in flushed {
            self.put_durable(sector, versions.since.pop().expect("what is loose has a version"));
        }
        if !self.loose_length.abandoned {
            self.durable_length = self.length();
            self.loose_length.since.clear();
        }
    }

    /// A flush failed: what is loose stays so until it is written again.
    pub fn abandon(&mut self) {
        self.loose.values_mut().for_each(|loose| loose.abandoned = true);
        self.loose_length.abandoned = true;
    }

    /// Decides for each sector that a failed flush abandoned whether its newest version is on the disk.
    pub fn settle_abandoned(&mut self, landed: &mut impl FnMut() -> bool) {
        let abandoned: Vec<(u64, usize)> = self
            .loose
            .iter()
            .filter(|(_, loose)| loose.abandoned)
            .map(|(at, loose)| (*at, loose.since.len()))
            .collect();
        for (sector, newest) in abandoned {
            self.keep_sector(sector, if landed() { newest } else { 0 });
        }
    }

    /// Whether a cut of power has anything to decide here.
    pub fn is_loose(&self) -> bool {
        !self.loose.is_empty() || !self.loose_length.since.is_empty()
    }

    /// How many versions the length has had since it was durable.
    pub fn loose_lengths(&self) -> usize {
        self.loose_length.since.len()
    }

    /// The sectors that are loose, and how many versions each has had.
    pub fn loose_sectors(&self) -> impl Iterator<Item = (u64, usize)> {
        self.loose.iter().map(|(sector, versions)| (*sector, versions.since.len()))
    }

    /// The length that survives: 0 is the durable one, n the nth since.
    pub fn keep_length(&mut self, choice: usize) {
        if let Some(at) = choice.checked_sub(1) {
            self.durable_length = self.loose_length.since[at];
        }
        self.loose_length = Versions::default();
    }

    /// The version of a sector that survives: 0 is the durable one, n the nth since.
    pub fn keep_sector(&mut self, sector: u64, choice: usize) {
        let mut versions = self.loose.remove(&sector).expect("it was listed as loose");
        if let Some(at) = choice.checked_sub(1) {
            self.put_durable(sector, versions.since.swap_remove(at));
        }
    }

    /// Cuts, durably: what lay beyond reads as zero if the file grows again.
    pub fn truncate(&mut self, length: u64) {
        self.loose.values_mut().for_each(|loose| loose.abandoned = false);
        self.loose_length = Versions::default();
        self.flush();
        self.durable_length = length;
        self.trim();
    }

    /// After a cut: what lies beyond the length that survived is gone, also if the file grows again.
    pub fn trim(&mut self) {
        let length = self.durable_length;
        self.durable.retain(|sector, _| sector * SECTOR < length);
        if let Some(last) = self.durable.get_mut(&(length / SECTOR)) {
            Rc::make_mut(last)[(length % SECTOR) as usize..].fill(0);
        }
    }

    pub fn make_unreadable(&mut self, range: Range<u64>) {
        self.unreadable.extend(range.start / SECTOR..range.end.div_ceil(SECTOR));
    }

    pub fn make_readable(&mut self) {
        self.unreadable.clear();
    }

    fn grow(&mut self, end: u64) {
        if end > self.length() {
            self.loose_length.push(end);
        }
    }

    fn copy_out(&self, offset: u64, buffer: &mut [u8]) {
        for part in parts(offset, buffer.len() as u64) {
            let target = &mut buffer[part.source.clone()];
            match self.sector(part.sector) {
                Some(bytes) => target.copy_from_slice(&bytes[part.within]),
                None => target.fill(0),
            }
        }
    }

    fn sector(&self, sector: u64) -> Option<&Rc<[u8; SECTOR_BYTES]>> {
        match self.loose.get(&sector) {
            Some(versions) => versions.since.last().and_then(Option::as_ref),
            None => self.durable.get(&sector),
        }
    }

    /// The sector as it is, with a part of it replaced.
    fn patched(&self, part: &Part, bytes: &[u8]) -> Sector {
        let mut sector = match self.sector(part.sector) {
            Some(old) if part.within.len() < SECTOR_BYTES => **old,
            _ => [0; SECTOR_BYTES],
        };
        sector[part.within.clone()].copy_from_slice(bytes);
        if sector == [0; SECTOR_BYTES] { None } else { Some(Rc::new(sector)) }
    }

    fn put_loose(&mut self, sector: u64, value: Sector) {
        self.unreadable.remove(&sector);
        self.loose.entry(sector).or_default().push(value);
    }

    fn put_durable(&mut self, sector: u64, value: Sector) {
        self.unreadable.remove(&sector);
        match value {
            Some(bytes) => self.durable.insert(sector, bytes),
            None => self.durable.remove(&sector),
        };
    }
}

/// A range's part in one sector.
struct Part {
    sector: u64,
    /// In the sector.
    within: Range<usize>,
    /// In what is copied.
    source: Range<usize>,
}

fn parts(offset: u64, length: u64) -> impl Iterator<Item = Part> {
    let end = offset + length;
    (offset / SECTOR..end.div_ceil(SECTOR)).filter(move |_| length > 0).map(move |sector| {
        let from = offset.max(sector * SECTOR);
        let to = end.min((sector + 1) * SECTOR);
        Part {
            sector,
            within: (from - sector * SECTOR) as usize..(to - sector * SECTOR) as usize,
            source: (from - offset) as usize..(to - offset) as usize,
        }
    })
}
