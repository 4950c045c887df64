//! The state of one snapshot as a snapshot of another cluster.

use super::error::Error;
use super::manifest::{Description, Manifest};
use super::reader::Reader;
use super::receiver::{Arrival, Receiver};
use crate::disk::Files;

/// How far a copy is, of all bytes of the state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Copying {
    /// So much was read and has its checksum.
    Checked { bytes: u64, of: u64 },
    /// So much is written.
    Written { bytes: u64, of: u64 },
}

/// Makes a snapshot, whole and durable in the directory `to`, of the state that another one holds in the directory `from`:
/// its chunks are the same, and their checksums are those of the new description. Every chunk is read twice, and checked
/// each time, and `told` is how far it is. What an earlier attempt has brought is gone on with; if all of it is there nothing
/// is done.
///
/// # Errors
/// [`Error::Damaged`] if a chunk is not what was written, and what either disk says.
pub fn copy(
    from: &impl Files,
    source: &Manifest,
    to: &impl Files,
    description: Description,
    told: impl FnMut(Copying),
) -> Result<Manifest, Error> {
    let mut reader = Reader::open(from, source.clone())?;
    let copied = copy_all(from, &mut reader, to, description, told);
    reader.close(from);
    copied
}

fn copy_all(
    from: &impl Files,
    reader: &mut Reader,
    to: &impl Files,
    description: Description,
    mut told: impl FnMut(Copying),
) -> Result<Manifest, Error> {
    let mut manifest = Manifest { description, ..reader.manifest().clone() };
    let of = manifest.bytes;
    for number in 0..manifest.chunks() {
        told(Copying::Checked { bytes: manifest.place(number).0, of });
        manifest.checksums[number as usize] = manifest.description.checksum_of(number, reader.chunk(from, number)?);
    }
    let mut receiver = match Receiver::open(to, manifest.clone(), manifest.description.cluster) {
        Ok(receiver) => receiver,
        Err(Error::Exists { .. }) => return Ok(manifest),
        Err(error) => return Err(error),
    };
    let missing: Vec<u32> = receiver.missing().collect();
    for number in missing {
        told(Copying::Written { bytes: manifest.place(number).0, of });
        let chunk = match reader.chunk(from, number) {
            Ok(chunk) => chunk,
            // What has come stays for the next attempt; if that cannot be flushed it comes again.
            Err(error) => match receiver.close(to) {
                Ok(()) | Err(_) => return Err(error),
            },
        };
        match receiver.take(to, number, chunk) {
            Ok(arrival) => assert!(arrival == Arrival::New, "its checksum was made of this very chunk: {arrival:?}"),
            // A start of a node there removes what is left.
            Err(error) => match receiver.abandon(to) {
                Ok(()) | Err(_) => return Err(error),
            },
        }
    }
    receiver.finish(to)
}
