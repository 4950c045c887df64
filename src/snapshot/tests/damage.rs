//! D4's and D10's share: every flipped bit, blocks that are not what was written, chunks in another's place, and files and
//! names that are not there.

use super::*;
use crate::limits::SECTOR_BYTES;
use crate::sim::disk::{Code, SimFiles};

fn file(index: u64, file: &str) -> String {
    format!("{}/{file}", description(index).name())
}

/// Which chunks of a whole one cannot be used.
fn bad(disk: &SimDisk, index: u64) -> Vec<u32> {
    let Condition::Whole(manifest) = condition(disk, index) else { panic!("{:?}", condition(disk, index)) };
    let bad = verify(&disk.files(), &manifest).expect("it opens");
    bad.into_iter().map(|chunk| chunk.number).collect()
}

/// Nothing is said to be whole that is not, and nothing else suffers. Tells how many cases there were.
pub fn flip_every_bit() -> usize {
    let disk = with_snapshots(&[10, 20]);
    let manifest = disk.contents(&file(20, "manifest")).len() as u64;
    for bit in 0..manifest * 8 {
        disk.flip_bit(&file(20, "manifest"), bit / 8, (bit % 8) as u32);
        let found = condition(&disk, 20);
        assert!(matches!(found, Condition::Damaged(Damage::Manifest)), "bit {bit} of the manifest: {found:?}");
        assert_eq!(whole(&disk), [10]);
        disk.flip_bit(&file(20, "manifest"), bit / 8, (bit % 8) as u32);
    }
    let chunks = state(20).len() as u64;
    for bit in 0..chunks * 8 {
        disk.flip_bit(&file(20, "chunks"), bit / 8, (bit % 8) as u32);
        assert_eq!(bad(&disk, 20), [(bit / 8) as u32 / CHUNK_BYTES as u32], "bit {bit} of the chunks");
        disk.flip_bit(&file(20, "chunks"), bit / 8, (bit % 8) as u32);
    }
    assert_eq!(whole(&disk), [10, 20]);
    (manifest + chunks) as usize * 8
}

#[test]
fn every_flipped_bit_is_found() {
    let flipped = flip_every_bit();
    println!("{flipped} bits");
    assert!(flipped > 15_000, "{flipped}");
}

/// Chunks of the same bytes, so that nothing but place and point tells them apart. Tells how many were tried.
pub fn put_chunks_elsewhere() -> usize {
    let same = vec![9; 4 * CHUNK_BYTES];
    let mut tried = 0;
    let snapshot = |description: &Description, salt: u8| {
        let mut state = same.clone();
        state.chunks_mut(CHUNK_BYTES).zip(salt..).for_each(|(chunk, salt)| chunk[0] = salt);
        let disk = SimDisk::new();
        run(&disk.files(), builder_of(description.clone(), state)).map_err(|_| ()).unwrap();
        list(&disk.files(), None).unwrap().whole(description.group).next().unwrap().clone()
    };
    let here = description(10);
    let manifest = snapshot(&here, 0);
    // The same bytes under another number, point, term, cluster or group have another checksum.
    for (from, to) in (0..4).flat_map(|from| (0..4).map(move |to| (from, to))).filter(|(from, to)| from != to) {
        assert_ne!(here.checksum_of(from, &same), here.checksum_of(to, &same), "{from} in the place of {to}");
        tried += 1;
    }
    let point = here.point;
    for other in [
        Description { point: LogId { index: Index(11), ..point }, ..here.clone() },
        Description { point: LogId { term: Term(4), ..point }, ..here.clone() },
        Description { cluster: ClusterId(0xc2), ..here.clone() },
        Description { group: GroupId(1), ..here.clone() },
    ] {
        let theirs = snapshot(&other, 0);
        for number in 0..4 {
            assert_ne!(theirs.checksums[number], manifest.checksums[number], "{other:?}");
            tried += 1;
        }
    }
    tried
}

#[test]
fn no_chunk_passes_for_one_of_another_place_or_snapshot() {
    assert_eq!(put_chunks_elsewhere(), 12 + 16);
}

#[test]
fn chunks_that_changed_places_are_damaged() {
    let disk = SimDisk::new();
    let mut state = vec![0; 4 * CHUNK_BYTES];
    state[CHUNK_BYTES..].fill(1);
    run(&disk.files(), builder_of(description(10), state)).map_err(|_| ()).unwrap();
    let name = file(10, "chunks");
    for (from, to) in [(0, 1), (1, 0), (0, 3)] {
        let fork = disk.fork();
        fork.copy_block(
            &name,
            from * CHUNK_BYTES as u64..(from + 1) * CHUNK_BYTES as u64,
            &name,
            to * CHUNK_BYTES as u64,
        );
        assert_eq!(bad(&fork, 10), [to as u32]);
    }
    // Chunks 1 to 3 hold the same bytes: nothing is wrong where one stands for the other.
    disk.copy_block(&name, 1024..2048, &name, 2048);
    assert!(bad(&disk, 10).is_empty());
}

/// Blocks of 512 bytes and of 4 KiB, as far as the files go. Tells how many cases there were.
pub fn spoil_every_block() -> usize {
    let disk = with_snapshots(&[10, 20]);
    let mut random = Random::seeded(5);
    let mut tried = 0;
    for (name, block_bytes) in ["manifest", "chunks"].into_iter().flat_map(|name| [(name, SECTOR_BYTES), (name, 4096)])
    {
        let length = disk.contents(&file(20, name)).len() as u64;
        for start in (0..length).step_by(block_bytes) {
            let range = start..(start + block_bytes as u64).min(length);
            for kind in 0..4 {
                let fork = disk.fork();
                match kind {
                    0 => fork.zero(&file(20, name), range.clone()),
                    1 => fork.fill(&file(20, name), range.clone(), 0xff),
                    2 => fork.junk(&file(20, name), range.clone(), &mut random),
                    _ => {
                        let older = fork.contents(&file(10, name));
                        let stale = range.start as usize..range.end as usize;
                        let Some(stale) = older.get(stale) else { continue };
                        fork.overwrite(&file(20, name), range.start, stale);
                    }
                }
                tried += 1;
                match name {
                    "chunks" => {
                        let chunks = start / CHUNK_BYTES as u64..range.end.div_ceil(CHUNK_BYTES as u64);
                        let chunks: Vec<u32> = chunks.map(|chunk| chunk as u32).collect();
                        assert_eq!(bad(&fork, 20), chunks, "{kind} at {start}");
                    }
                    _ => assert!(matches!(condition(&fork, 20), Condition::Damaged(_)), "{kind}"),
                }
            }
        }
    }
    tried
}

#[test]
fn blocks_that_are_zero_full_junk_or_stale_are_found() {
    let tried = spoil_every_block();
    assert!(tried > 25, "{tried}");
}

#[test]
fn files_that_are_cut_missing_unreadable_or_another_ones_are_told() {
    let damaged = |change: &dyn Fn(&SimDisk)| {
        let disk = with_snapshots(&[10, 20]);
        change(&disk);
        condition(&disk, 20)
    };
    let manifest = file(20, "manifest");
    for length in 0..with_snapshots(&[20]).contents(&manifest).len() as u64 {
        let found = damaged(&|disk| disk.truncate(&manifest, length));
        assert!(matches!(found, Condition::Damaged(Damage::Manifest)), "{length}: {found:?}");
    }
    for length in [0, 1, 1024, state(20).len() as u64 - 1, state(20).len() as u64 + 1] {
        let found = damaged(&|disk| disk.truncate(&file(20, "chunks"), length));
        assert!(matches!(found, Condition::Damaged(Damage::Length { .. })), "{length}: {found:?}");
    }
    for name in ["manifest", "chunks"] {
        let found = damaged(&|disk| disk.lose(&file(20, name)));
        assert!(matches!(found, Condition::Damaged(Damage::Missing { file }) if file == name), "{found:?}");
        for code in [Code::Io, Code::NotPermitted, Code::Link, Code::TooManyFiles] {
            let found = damaged(&|disk| disk.refuse_to_open(&file(20, name), Some(code)));
            assert!(matches!(found, Condition::Unreadable(_)), "{found:?}");
        }
    }
    let found = damaged(&|disk| disk.make_unreadable(&manifest, 0..1));
    assert!(matches!(found, Condition::Unreadable(_)), "{found:?}");
    let found = damaged(&|disk| disk.plant(&manifest, &disk.contents(&file(10, "manifest"))));
    assert!(matches!(found, Condition::Damaged(Damage::Misplaced { .. })), "{found:?}");
    // A file in the place of the directory.
    let disk = with_snapshots(&[10]);
    disk.plant(&description(20).name(), b"x");
    assert!(matches!(condition(&disk, 20), Condition::Unreadable(_)), "{:?}", condition(&disk, 20));
}

#[test]
fn bad_sectors_are_told_from_rot() {
    let disk = with_snapshots(&[10]);
    disk.make_unreadable(&file(10, "chunks"), 1030..1031);
    disk.flip_bit(&file(10, "chunks"), 0, 0);
    let Condition::Whole(manifest) = condition(&disk, 10) else { panic!() };
    let bad = verify(&disk.files(), &manifest).unwrap();
    let bad: Vec<(u32, bool)> = bad.iter().map(|chunk| (chunk.number, chunk.read_error.is_some())).collect();
    assert_eq!(bad, [(0, false), (1, true)]);
}

#[test]
fn another_clusters_and_a_newer_programs_are_told_as_such() {
    let disk = with_snapshots(&[10]);
    let foreign = |files: &SimFiles, cluster| {
        let listing = list(files, Some(ClusterId(cluster))).unwrap();
        matches!(listing.found[0].condition, Condition::Foreign { cluster: ClusterId(0xc1) })
    };
    assert!(foreign(&disk.files(), 0xc2) && !foreign(&disk.files(), 0xc1));
    let mut newer = disk.contents(&file(10, "manifest"));
    newer[8] = 2;
    newer.extend([7; 50]);
    disk.plant(&file(10, "manifest"), &newer);
    assert!(matches!(condition(&disk, 10), Condition::Damaged(_)), "its checksum is not right");
    make_good(&mut newer);
    disk.plant(&file(10, "manifest"), &newer);
    assert!(matches!(condition(&disk, 10), Condition::Newer { format: 2 }));
    newer[8] = 0;
    make_good(&mut newer);
    disk.plant(&file(10, "manifest"), &newer);
    assert!(matches!(condition(&disk, 10), Condition::Damaged(_)), "there was none before the first");
}

fn make_good(bytes: &mut [u8]) {
    let checksum = Checksum::of(&bytes[..12]).continued(&bytes[16..]);
    bytes[12..16].copy_from_slice(&checksum.0.to_le_bytes());
}

/// A checksum says that a manifest is as it was written, not that it was written by a program without errors.
#[test]
fn an_intact_manifest_with_impossible_content_does_not_pass() {
    let good = sample().encode();
    let name = description(11).name();
    let with = |offset: usize, bytes: &[u8]| {
        let mut changed = good.clone();
        changed[offset..offset + bytes.len()].copy_from_slice(bytes);
        make_good(&mut changed);
        Manifest::decode(&name, &changed)
    };
    assert_eq!(with(32, &[7]).unwrap().description.group, GroupId(7), "the test can make one that passes");
    assert_eq!(Manifest::decode(&name, &good).unwrap(), sample());
    let full = [0xff; 8];
    for (offset, bytes, what) in [
        (36, &[0, 0, 0, 0][..], "chunks of nothing"),
        (36, &[1, 2, 0, 0], "chunks of half a sector"),
        (36, &[0, 2, 16, 0], "chunks of more than 1 MiB"),
        (36, &[0, 4, 0, 0], "fewer chunks than are there"),
        (40, &full, "index"),
        (48, &full, "term"),
        (56, &[12], "a configuration behind the point"),
        (64, &full, "term of the configuration"),
        (72, &[0], "log start 0"),
        (72, &[13], "log start behind what is next"),
        (80, &[12], "a record behind the point"),
        (88, &[0, 2], "512 bytes in two chunks"),
        (88, &[1, 4], "1025 bytes in two chunks"),
        (88, &full, "no disk has so many"),
        (100, &[1], "one chunk"),
        (100, &[3], "three chunks"),
        (100, &full[..4], "more than memory"),
        (112, &[16], "more members than there may be"),
        (116, &[2], "neither being born nor not"),
    ] {
        let found = with(offset, bytes);
        assert!(matches!(found, Err(Error::Damaged { damage: Damage::Content(_), .. })), "{what}: {found:?}");
    }
    let mut longer = good.clone();
    longer.push(0);
    make_good(&mut longer);
    assert!(Manifest::decode(&name, &longer).is_err(), "something is left over");
}

#[test]
fn names_that_we_do_not_give_are_none() {
    use super::super::naming::Name;
    let name = description(10).name();
    for stage in ["", ".making", ".receiving", ".removing"] {
        let name = format!("{name}{stage}");
        assert_eq!(Name::parse(&name).map(|parsed| parsed.to_string()), Some(name));
    }
    let others = [
        name.replacen('0', "+", 1),
        format!("{name}0"),
        format!("{name}-1"),
        format!("{name}.making.making"),
        format!("x{name}"),
        name.replace("0000000000-", "9999999999-"),
        "snapshot-".to_owned(),
        "snapshot-1-2-3".to_owned(),
    ];
    for other in others {
        assert_eq!(Name::parse(&other), None, "{other}");
    }
}
