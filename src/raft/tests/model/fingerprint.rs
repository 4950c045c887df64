//! 128 bits that stand for a state. Two states of 10^9 have the same with a probability of 10^-21.

use std::hash::{Hash, Hasher};

/// Two lanes that see the same words and mix them with other constants.
struct Lanes {
    first: u64,
    second: u64,
}

/// The fingerprint of anything, the same in every run.
pub fn of<T: Hash + ?Sized>(value: &T) -> u128 {
    let mut lanes = Lanes { first: 0x243f_6a88_85a3_08d3, second: 0x1319_8a2e_0370_7344 };
    value.hash(&mut lanes);
    lanes.write_u64(0x9e37_79b9_7f4a_7c15);
    u128::from(lanes.first) << 64 | u128::from(lanes.second)
}

fn mix(word: u64, constant: u64) -> u64 {
    let product = u128::from(word) * u128::from(constant);
    (product >> 64) as u64 ^ product as u64
}

impl Hasher for Lanes {
    fn finish(&self) -> u64 {
        self.first
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
        self.write_usize(bytes.len());
    }

    fn write_u64(&mut self, word: u64) {
        self.first = mix(self.first ^ word, 0xa076_1d64_78bd_642f).wrapping_add(0x8ebc_6af0_9c88_c6e3);
        self.second = mix(self.second.rotate_left(23) ^ word, 0xe703_7ed1_a0b4_28db).wrapping_add(word);
    }

    fn write_u8(&mut self, word: u8) {
        self.write_u64(word.into());
    }

    fn write_u16(&mut self, word: u16) {
        self.write_u64(word.into());
    }

    fn write_u32(&mut self, word: u32) {
        self.write_u64(word.into());
    }

    fn write_u128(&mut self, word: u128) {
        self.write_u64(word as u64);
        self.write_u64((word >> 64) as u64);
    }

    fn write_usize(&mut self, word: usize) {
        self.write_u64(word as u64);
    }

    fn write_isize(&mut self, word: isize) {
        self.write_u64(word as u64);
    }
}

#[test]
fn small_values_have_fingerprints_of_their_own() {
    let mut all: Vec<u128> = (0..100u64).flat_map(|a| (0..100u64).map(move |b| of(&(a, b)))).collect();
    all.extend((1..100usize).map(|length| of(&vec![0u8; length][..])));
    let count = all.len();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), count);
    let halves: std::collections::BTreeSet<u64> = all.iter().map(|print| *print as u64).collect();
    assert_eq!(halves.len(), count, "so have their halves");
}
