//! The map's encoding: canonical, in pieces, and refused when it is not what a map gave.

use bytes::BytesMut;

use super::*;
use crate::codec::Error;
use crate::random::Random;

fn encoded(machine: &impl StateMachine) -> Vec<u8> {
    let (mut snapshot, mut out) = (machine.snapshot().expect("it has one"), BytesMut::new());
    let mut before = 0;
    while snapshot.encode_next(&mut out) {
        assert!((1..=SNAPSHOT_PIECE_BYTES_MAX).contains(&(out.len() - before)));
        before = out.len();
    }
    assert!(!snapshot.encode_next(&mut out) && out.len() == before, "what was all stays all");
    out.to_vec()
}

fn restored(pieces: &[&[u8]]) -> Result<Map, Error> {
    let mut restoring = Map::new().restoring().expect("it has one");
    pieces.iter().try_for_each(|piece| restoring.add(piece))?;
    restoring.finish()
}

/// docs/formats.md shows these bytes.
#[test]
fn golden_bytes() {
    let mut map = Map::new();
    run(&mut map, &put("key", "value"));
    run(&mut map, &put("", ""));
    let expected: &[&[u8]] =
        &[b"\x01\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0", b"\0\0\0\0\0\0\0\0", b"\x03\0\0\0key\x05\0\0\0value"];
    assert_eq!(encoded(&map), expected.concat());
    assert_eq!(restored(&[&expected.concat()]), Ok(map));
    assert_eq!(encoded(&Map::new()), [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn a_snapshot_goes_to_another_thread_and_stays_as_it_was() {
    let mut map = Map::new();
    for number in 0..50_000 {
        run(&mut map, &put(&format!("key {number:05}"), &"v".repeat(number % 100)));
    }
    let (before, expected) = (map.clone(), encoded(&map));
    let mut snapshot = map.snapshot().unwrap();
    let mut out = BytesMut::new();
    assert!(snapshot.encode_next(&mut out), "half of it before, half of it after the change");
    run(&mut map, &put("key 00000", "changed"));
    run(&mut map, &Command::Delete { key: bytes("key 40000") });
    let written = std::thread::spawn(move || {
        while snapshot.encode_next(&mut out) {}
        out.to_vec()
    });
    assert_eq!(written.join().unwrap(), expected);
    assert_eq!(restored(&[&expected]), Ok(before));
    assert_ne!(encoded(&map), expected);
}

/// Where an encoding is cut into pieces makes no difference, and one byte at a time is the worst.
#[test]
fn an_encoding_comes_back_however_it_is_cut() {
    let mut map = Map::new();
    let value = Bytes::from(vec![7; VALUE_BYTES_MAX]);
    run(&mut map, &Command::Put { key: Bytes::from(vec![9; KEY_BYTES_MAX]), value });
    for key in ["", "a", "b"] {
        run(&mut map, &put(key, "value"));
    }
    let bytes = encoded(&map);
    let mut random = Random::seeded(3);
    for _ in 0..20 {
        let (mut pieces, mut rest) = (Vec::new(), &bytes[..]);
        while !rest.is_empty() {
            let longest = *random.pick(&[3, 5000, 1 << 20]);
            let (piece, behind) = rest.split_at((random.below(longest) as usize).min(rest.len()));
            pieces.push(piece);
            rest = behind;
        }
        assert_eq!(restored(&pieces), Ok(map.clone()));
    }
    let small: Vec<&[u8]> = bytes[..60].chunks(1).collect();
    assert!(restored(&small).is_err(), "the rest is missing");
}

#[test]
fn what_no_map_gave_is_refused() {
    let mut map = Map::new();
    for key in ["a", "b", "c"] {
        run(&mut map, &put(key, key));
    }
    let good = encoded(&map);
    for length in 0..good.len() {
        assert!(restored(&[&good[..length]]).is_err(), "the first {length} bytes");
    }
    assert!(restored(&[&good, b"x"]).is_err());
    let entry = |key: &str| [&[key.len() as u8, 0, 0, 0][..], key.as_bytes(), &[0; 4]].concat();
    let head = |count: u8| [&[1, 0, 0, 0, 0, 0, 0, 0, count][..], &[0; 7]].concat();
    assert!(restored(&[&head(2), &entry("a"), &entry("b")]).is_ok(), "the test can make one that passes");
    for (second, what) in [("a", "twice"), ("", "out of order")] {
        assert!(restored(&[&head(2), &entry("a"), &entry(second)]).is_err(), "{what}");
    }
    for count in [1, 3] {
        assert!(restored(&[&head(count), &entry("a"), &entry("b")]).is_err(), "{count} entries are said");
    }
    // Format version, zeros, a key and a value beyond what a map takes.
    for (offset, byte) in [(0, 2), (0, 0), (4, 1), (18, 1), (19, 255), (23, 255)] {
        let mut bytes = good.clone();
        bytes[offset] = byte;
        assert!(restored(&[&bytes]).is_err(), "byte {offset} = {byte}");
    }
}

proptest! {
    /// Equal states have equal bytes however they came about, different states different ones.
    #[test]
    fn one_state_has_one_encoding(one in prop::collection::vec(any_command(), 0..60), other in any_command()) {
        let (mut map, mut rebuilt) = (Map::new(), Map::new());
        one.iter().for_each(|command| drop(run(&mut map, command)));
        let entries: Vec<(Bytes, Bytes)> = map.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        for (key, value) in entries.into_iter().rev() {
            run(&mut rebuilt, &Command::Put { key, value });
        }
        prop_assert_eq!(encoded(&map), encoded(&rebuilt));
        prop_assert_eq!(restored(&[&encoded(&map)]), Ok(map.clone()));
        run(&mut rebuilt, &other);
        prop_assert_eq!(map == rebuilt, encoded(&map) == encoded(&rebuilt));
    }

    #[test]
    fn no_bytes_make_restoring_panic(pieces in prop::collection::vec(prop::collection::vec(0..9u8, 0..30), 0..5)) {
        let head = [1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0];
        let pieces: Vec<&[u8]> = pieces.iter().map(|piece| &piece[..]).collect();
        let with_head: Vec<&[u8]> = std::iter::once(&head[..]).chain(pieces.iter().copied()).collect();
        for pieces in [pieces, with_head] {
            if let Ok(map) = restored(&pieces) {
                prop_assert_eq!(encoded(&map), pieces.concat());
            }
        }
    }
}
