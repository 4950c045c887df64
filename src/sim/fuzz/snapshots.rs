//! A snapshot that comes over a wire from whoever says to have it, and the bytes of a state.

use bytes::BytesMut;

use super::choices::Choices;
use crate::checksum::Checksum;
use crate::machine::{Map, StateMachine};
use crate::node::driver::checkpoint::{Checkpoint, Restoring};
use crate::node::sessions::Limits;
use crate::random::Random;
use crate::sim::disk::{Code, Failure, SimDisk};
use crate::snapshot::{self, Arrival, Description, Error, Manifest, Receiver};
use crate::types::{ClusterId, GroupId, Index, LogId, Membership, Term};

const CLUSTER: ClusterId = ClusterId(1);
const CHUNK_BYTES: usize = 512;
/// What a manifest made of bytes may ask the simulated disk for.
const BYTES_MAX: u64 = 64 << 10;

/// What became of an input.
#[derive(Clone, Copy, Default, Debug)]
pub struct Transferred {
    /// Chunks that were new, and such as were no chunk of the snapshot.
    pub arrived: usize,
    pub refused: usize,
    /// Cuts of power and killed processes.
    pub crashes: usize,
    /// Errors of the disk.
    pub failures: usize,
    /// Manifests made of bytes that are valid.
    pub manifests: usize,
    /// States made of bytes that are valid.
    pub states: usize,
}

/// Bytes as a manifest, as chunks of senders good and bad while the disk fails and the power goes, and as a state. What is
/// whole at the end is what was sent; whatever decodes encodes to the same bytes.
pub fn snapshot_stream(input: &[u8]) -> Transferred {
    let mut choices = Choices::new(input);
    let mut done = Transferred::default();
    manifest(&mut choices, &mut done);
    state(&mut choices, &mut done);
    transfer(&mut choices, &mut done);
    done
}

/// What good senders have.
struct Sent {
    manifest: Manifest,
    chunks: Vec<Vec<u8>>,
}

fn sent(seed: u64, bytes: usize) -> Sent {
    let description = Description {
        cluster: CLUSTER,
        group: GroupId::CLUSTER,
        point: LogId::new(Term(2), Index(9)),
        membership: Membership::default(),
        membership_id: LogId::ZERO,
        log_start: Index(1),
        last_record: Index::ZERO,
        log_digest: Checksum(0),
    };
    let mut state = vec![0; bytes];
    Random::seeded(seed).fill(&mut state);
    let chunks: Vec<Vec<u8>> = state.chunks(CHUNK_BYTES).map(|chunk| chunk.to_vec()).collect();
    let checksums = (0..).zip(&chunks).map(|(number, chunk)| description.checksum_of(number, chunk)).collect();
    Sent { manifest: Manifest { description, chunk_bytes: CHUNK_BYTES as u32, bytes: bytes as u64, checksums }, chunks }
}

/// A good manifest with some bytes changed, and its checksum perhaps made good.
fn manifest(choices: &mut Choices<'_>, done: &mut Transferred) {
    let mut bytes = sent(1, 1200).manifest.encode();
    for _ in 0..choices.below(4) {
        let at = choices.below(bytes.len() as u64) as usize;
        bytes[at] = choices.byte();
    }
    if choices.byte() & 1 != 0 {
        bytes.truncate(16.max(choices.below(bytes.len() as u64) as usize));
    }
    let checksum = Checksum::of(&bytes[..12]).continued(&bytes[16..]);
    bytes[12..16].copy_from_slice(&checksum.0.to_le_bytes());
    let Ok(manifest) = Manifest::decode("", &bytes) else { return };
    assert_eq!(manifest.encode(), bytes, "one manifest has one encoding");
    done.manifests += 1;
    if manifest.bytes <= BYTES_MAX {
        let disk = SimDisk::new();
        let cluster = manifest.description.cluster;
        let mut receiver = Receiver::open(&disk.files(), manifest, cluster).expect("nothing is wrong with the disk");
        let mut junk = vec![0; CHUNK_BYTES];
        junk.fill(choices.byte());
        let arrival = receiver.take(&disk.files(), choices.below(4) as u32, &junk);
        assert_eq!(arrival.expect("nothing is wrong with the disk"), Arrival::Bad);
    }
}

/// A good state with some bytes changed, cut anywhere.
fn state(choices: &mut Choices<'_>, done: &mut Transferred) {
    let mut map = Map::new();
    for _ in 0..choices.below(4) {
        let put = [&[1, 1, 0, 0, 0, choices.byte(), 2, 0, 0, 0][..], &[choices.byte(), 7]].concat();
        map.apply(LogId::ZERO, &put).expect("a map in memory does not fail");
    }
    let mut bytes = encoded(Checkpoint::of(&Default::default(), &map).expect("a map gives snapshots"));
    for _ in 0..choices.below(4) {
        let at = choices.below(bytes.len() as u64) as usize;
        bytes[at] = choices.byte();
    }
    let mut restoring = Restoring::new(&map, Limits::default()).expect("a map gives snapshots");
    let (one, other) = bytes.split_at(choices.below(bytes.len() as u64 + 1) as usize);
    if restoring.add(one).is_err() || restoring.add(other).is_err() {
        return;
    }
    let Ok((sessions, map)) = restoring.finish() else { return };
    let again = encoded(Checkpoint::of(&sessions, &map).expect("a map gives snapshots"));
    assert_eq!(again, bytes, "one state has one encoding");
    done.states += 1;
}

fn encoded(mut checkpoint: Checkpoint) -> Vec<u8> {
    let mut out = BytesMut::new();
    while snapshot::ChunkSource::encode_next(&mut checkpoint, &mut out) {}
    out.to_vec()
}

/// Until the bytes end, chunks come and things go wrong; then nothing goes wrong any more, and the rest comes.
fn transfer(choices: &mut Choices<'_>, done: &mut Transferred) {
    let sent = sent(choices.byte().into(), 1 + choices.below(4000) as usize);
    let disk = SimDisk::new();
    let mut receiver = None;
    while !choices.is_done() {
        let open = match receiver.take() {
            Some(open) => Ok(open),
            None => Receiver::open(&disk.files(), sent.manifest.clone(), CLUSTER),
        };
        receiver = open.and_then(|open| step(choices, &disk, open, &sent, done)).unwrap_or_else(|error| {
            assert!(matches!(error, Error::Disk(_)), "{error}");
            done.failures += 1;
            None
        });
        if receiver.is_none() && (disk.is_off() || choices.byte() & 1 == 0) {
            done.crashes += 1;
            // The bytes say what survives.
            disk.crash_with(&mut |loose| choices.byte() as usize % loose.outcomes);
        } else if receiver.is_none() {
            done.crashes += 1;
            disk.kill(&mut Random::seeded(choices.byte().into()));
        }
        let listing = snapshot::list(&disk.files(), Some(CLUSTER));
        let is_whole = |listing: snapshot::Listing| listing.whole(GroupId::CLUSTER).next().is_some();
        assert!(!listing.is_ok_and(is_whole), "it is not finished, and has its name");
    }
    drop(receiver);
    disk.clear_failures();
    disk.set_capacity(1 << 40);
    disk.kill(&mut Random::seeded(0));
    finish(&disk, &sent);
}

/// One thing happens to an open receiver; it stays open, or it is gone.
fn step(
    choices: &mut Choices<'_>,
    disk: &SimDisk,
    mut receiver: Receiver,
    sent: &Sent,
    done: &mut Transferred,
) -> Result<Option<Receiver>, Error> {
    let number = choices.below(sent.chunks.len() as u64 + 1) as usize;
    let mut chunk = sent.chunks.get(number).cloned().unwrap_or_default();
    let mut is_good = number < sent.chunks.len();
    match choices.below(16) {
        0 => {
            let at = choices.below(chunk.len() as u64 + 1) as usize;
            is_good &= at == chunk.len();
            chunk.truncate(at);
        }
        1 | 2 if is_good => {
            let at = choices.below(chunk.len() as u64) as usize;
            chunk[at] ^= 1 << choices.below(8);
            is_good = false;
        }
        3 => {
            let failure = Failure::Partial { bytes: choices.below(600), error: Code::Io };
            disk.fail_at(disk.operations() + choices.below(6), failure);
        }
        4 => disk.crash_at(disk.operations() + choices.below(12)),
        5 => disk.set_capacity(disk.used_bytes() + choices.below(600)),
        6 => disk.set_capacity(1 << 40),
        7 => return receiver.close(&disk.files()).map(|()| None),
        8 => return receiver.abandon(&disk.files()).map(|()| None),
        9 => return Ok(None),
        _ => {}
    }
    let is_known = !receiver.missing().any(|missing| missing as usize == number);
    match receiver.take(&disk.files(), number as u32, &chunk)? {
        Arrival::New => {
            assert!(is_good && !is_known);
            done.arrived += 1;
        }
        Arrival::Known => assert!(is_good && is_known),
        Arrival::Bad => {
            assert!(!is_good);
            done.refused += 1;
        }
    }
    Ok(Some(receiver))
}

fn finish(disk: &SimDisk, sent: &Sent) {
    let files = disk.files();
    let well = "nothing is wrong with the disk any more";
    let mut receiver = Receiver::open(&files, sent.manifest.clone(), CLUSTER).expect(well);
    let missing: Vec<u32> = receiver.missing().collect();
    for number in missing {
        assert_eq!(receiver.take(&files, number, &sent.chunks[number as usize]).expect(well), Arrival::New);
    }
    receiver.finish(&files).expect(well);
    disk.crash_with(&mut |_| 0);
    let listing = snapshot::list(&disk.files(), Some(CLUSTER)).expect(well);
    let manifest = listing.whole(GroupId::CLUSTER).next().expect("it is whole, and durable");
    assert_eq!(*manifest, sent.manifest);
    assert!(snapshot::verify(&disk.files(), manifest).expect(well).is_empty(), "and each chunk is right");
}
