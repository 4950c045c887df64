//! What a window shows is what the file holds: in whatever order, in pieces of whatever size, read ahead or not.

use crate::disk::{Directory, FileId, Files};
use crate::limits::{BLOCK_BYTES, FRAME_BYTES_MAX};
use crate::random::Random;
use crate::sim::disk::SimDisk;
use crate::wal::window::Window;

const FILE_BYTES: usize = 24 << 20;
const BLOCK: u64 = BLOCK_BYTES as u64;

/// A file that holds something else at each place.
fn made<F: Files>(files: &F) -> (FileId, Vec<u8>) {
    let words = (0..FILE_BYTES as u64 / 8).flat_map(|at| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15)).to_le_bytes());
    let bytes: Vec<u8> = words.collect();
    let file = files.create("file").expect("there is none");
    files.write(file, 0, &bytes).and_then(|()| files.sync(file)).expect("the disk is well");
    (file, bytes)
}

/// Goes on for the most part, by steps of any size up to a frame; now and then elsewhere.
fn walk<F: Files>(files: &F, (file, bytes): (FileId, &[u8]), random: &mut Random, claimed: u64) {
    let mut window = Window::default();
    for round in 0..6 {
        window.leave();
        if round % 2 == 0 {
            window.expect_all();
        }
        let largest = *random.pick(&[BLOCK, 64 << 10, 1 << 20, FRAME_BYTES_MAX as u64]);
        let mut at = 0;
        while at < bytes.len() as u64 {
            if random.chance(10) {
                at = random.below(bytes.len() as u64 / BLOCK) * BLOCK;
            }
            let length = (1 + random.below(largest / BLOCK)) * BLOCK;
            let length = length.min(bytes.len() as u64 - at) as usize;
            for wanted in [BLOCK_BYTES.min(length), length] {
                let found = window.bytes(files, (file, claimed), (at, wanted)).expect("it is there");
                assert!(found == &bytes[at as usize..at as usize + wanted], "{wanted} bytes at {at}");
            }
            at += length as u64;
        }
    }
}

#[test]
fn a_window_shows_what_the_file_holds() {
    let mut random = Random::seeded(5);
    let simulated = SimDisk::new().files();
    let (file, bytes) = made(&simulated);
    walk(&simulated, (file, &bytes), &mut random, FILE_BYTES as u64);
    let home = tempfile::tempdir().unwrap();
    for directory in [Directory::open(home.path()).unwrap(), Directory::open_plain(home.path()).unwrap()] {
        let (file, bytes) = made(&directory);
        assert!(directory.ahead().is_some());
        walk(&directory, (file, &bytes), &mut random, FILE_BYTES as u64);
        // What is read ahead beyond the end fails, and costs nobody what is there.
        walk(&directory, (file, &bytes), &mut random, FILE_BYTES as u64 + (5 << 20));
        directory.close(file);
        directory.remove("file").unwrap();
    }
}

#[test]
fn what_is_not_there_is_an_error() {
    let home = tempfile::tempdir().unwrap();
    let directory = Directory::open(home.path()).unwrap();
    let (file, bytes) = made(&directory);
    let mut window = Window::default();
    window.expect_all();
    let end = FILE_BYTES as u64;
    assert!(window.bytes(&directory, (file, 2 * end), (end - BLOCK, 2 * BLOCK_BYTES)).is_err());
    let found = window.bytes(&directory, (file, 2 * end), (end - BLOCK, BLOCK_BYTES)).unwrap();
    assert_eq!(found, &bytes[FILE_BYTES - BLOCK_BYTES..]);
    assert!(window.bytes(&directory, (file, 2 * end), (end, BLOCK_BYTES)).is_err());
}
