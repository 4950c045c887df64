//! The map against a model, and its messages against every kind of bytes.

mod snapshots;

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;

use super::command::{
    Answer, Command, KEY_BYTES_MAX, Query, Refusal, SCAN_BYTES_MAX, SCAN_ENTRIES_MAX, VALUE_BYTES_MAX,
};
use super::*;
use crate::limits::RECORD_BYTES_MAX;
use crate::types::{Index, Term};

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn run(map: &mut Map, command: &Command) -> Answer {
    Answer::decode(&map.apply(LogId::new(Term(1), Index(1)), &command.encode().unwrap()).unwrap()).unwrap()
}

fn ask(map: &Map, query: &Query) -> Answer {
    Answer::decode(&map.query(&query.encode().unwrap()).unwrap()).unwrap()
}

fn put(key: &str, value: &str) -> Command {
    Command::Put { key: bytes(key), value: bytes(value) }
}

fn get(key: &str) -> Query {
    Query::Get { key: bytes(key) }
}

fn scan(from: &str, to: Option<&str>, limit: u32) -> Query {
    Query::Scan { from: bytes(from), to: to.map(bytes), limit }
}

#[test]
fn put_get_delete() {
    let mut map = Map::new();
    assert_eq!(ask(&map, &get("k")), Answer::Value(None));
    assert_eq!(run(&mut map, &put("k", "v")), Answer::Done);
    assert_eq!(ask(&map, &get("k")), Answer::Value(Some(bytes("v"))));
    assert_eq!(run(&mut map, &Command::Delete { key: bytes("k") }), Answer::Deleted { existed: true });
    assert_eq!(run(&mut map, &Command::Delete { key: bytes("k") }), Answer::Deleted { existed: false });
    assert!(map.is_empty());
}

#[test]
fn compare_and_set_changes_only_what_is_as_expected() {
    let cas = |expected: Option<&str>, new: Option<&str>| Command::CompareAndSet {
        key: bytes("k"),
        expected: expected.map(bytes),
        new: new.map(bytes),
    };
    let mut map = Map::new();
    for (expected, new, equal, after) in [
        (Some("a"), Some("b"), false, None),
        (None, Some("a"), true, Some("a")),
        (None, Some("b"), false, Some("a")),
        (Some("b"), Some("c"), false, Some("a")),
        (Some("a"), Some("b"), true, Some("b")),
        (Some("a"), None, false, Some("b")),
        (Some("b"), None, true, None),
        (None, None, true, None),
    ] {
        assert_eq!(run(&mut map, &cas(expected, new)), Answer::Compared { equal });
        assert_eq!(ask(&map, &get("k")), Answer::Value(after.map(bytes)));
    }
}

#[test]
fn a_scan_is_half_open_ordered_and_can_be_continued() {
    let mut map = Map::new();
    for key in ["d", "a", "c", "b"] {
        run(&mut map, &put(key, key));
    }
    let entries = |query: &Query| match ask(&map, query) {
        Answer::Entries { entries, next } => {
            let keys: Vec<u8> = entries.iter().flat_map(|(key, _)| key.to_vec()).collect();
            (String::from_utf8(keys).unwrap(), next)
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(entries(&scan("", None, 9)), ("abcd".into(), None));
    assert_eq!(entries(&scan("b", Some("d"), 9)), ("bc".into(), None));
    assert_eq!(entries(&scan("b", Some("d"), 1)), ("b".into(), Some(bytes("c"))));
    assert_eq!(entries(&scan("b", Some("c"), 1)), ("b".into(), None));
    assert_eq!(entries(&scan("bb", None, 0)), ("".into(), Some(bytes("c"))));
    assert_eq!(entries(&scan("c", Some("c"), 9)), ("".into(), None));
    assert_eq!(entries(&scan("d", Some("a"), 9)), ("".into(), None));
}

#[test]
fn a_scan_is_bounded_in_bytes_and_entries() {
    let mut map = Map::new();
    let value = Bytes::from(vec![7; VALUE_BYTES_MAX]);
    for key in 0..4u8 {
        run(&mut map, &Command::Put { key: Bytes::from(vec![key; KEY_BYTES_MAX]), value: value.clone() });
    }
    match ask(&map, &scan("", None, u32::MAX)) {
        Answer::Entries { entries, next } => {
            let before_last = (entries.len() - 1) * (KEY_BYTES_MAX + VALUE_BYTES_MAX);
            assert!(before_last < SCAN_BYTES_MAX && entries.len() < 4 && next.is_some());
        }
        other => panic!("{other:?}"),
    }
    let mut map = Map::new();
    for key in 0..=SCAN_ENTRIES_MAX {
        run(&mut map, &put(&format!("{key:05}"), ""));
    }
    match ask(&map, &scan("", None, u32::MAX)) {
        Answer::Entries { entries, next } => {
            assert_eq!((entries.len(), next), (SCAN_ENTRIES_MAX, Some(bytes(&format!("{SCAN_ENTRIES_MAX:05}")))));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_too_large_is_refused_by_both_sides() {
    let of = |length: usize| Bytes::from(vec![1; length]);
    let cases = [
        (Command::Put { key: of(KEY_BYTES_MAX), value: of(VALUE_BYTES_MAX) }, true),
        (Command::Put { key: of(KEY_BYTES_MAX + 1), value: of(0) }, false),
        (Command::Put { key: of(0), value: of(VALUE_BYTES_MAX + 1) }, false),
        (Command::Delete { key: of(KEY_BYTES_MAX + 1) }, false),
        (Command::CompareAndSet { key: of(1), expected: Some(of(RECORD_BYTES_MAX / 2)), new: Some(of(9)) }, true),
        (
            Command::CompareAndSet {
                key: of(1),
                expected: Some(of(RECORD_BYTES_MAX / 2)),
                new: Some(of(RECORD_BYTES_MAX / 2)),
            },
            false,
        ),
    ];
    for (command, fits) in cases {
        match command.encode() {
            Ok(bytes) => assert!(fits && Command::decode(&bytes) == Ok(command)),
            Err(refusal) => assert!(!fits && refusal == Refusal::TooLarge),
        }
    }
    assert!(Query::Get { key: of(KEY_BYTES_MAX) }.encode().is_ok());
    assert_eq!(Query::Get { key: of(KEY_BYTES_MAX + 1) }.encode(), Err(Refusal::TooLarge));
    let to = Some(of(KEY_BYTES_MAX + 1));
    assert_eq!(Query::Scan { from: of(0), to, limit: 1 }.encode(), Err(Refusal::TooLarge));
    // What a client that does not check would send.
    let mut long = vec![2];
    long.extend((KEY_BYTES_MAX as u32 + 1).to_le_bytes());
    long.resize(5 + KEY_BYTES_MAX + 1, 0);
    let too_large = Answer::Refused(Refusal::TooLarge).encode();
    assert_eq!(Map::new().apply(LogId::ZERO, &long).unwrap(), too_large);
    assert_eq!(Map::new().apply(LogId::ZERO, &vec![1; RECORD_BYTES_MAX + 1]).unwrap(), too_large);
}

#[test]
fn malformed_bytes_get_an_answer_and_change_nothing() {
    let mut map = Map::new();
    run(&mut map, &put("k", "v"));
    let digest = map.digest();
    let malformed = Answer::Refused(Refusal::Malformed).encode();
    let whole = put("key", "value").encode().unwrap();
    for length in 0..whole.len() {
        assert_eq!(map.apply(LogId::ZERO, &whole[..length]).unwrap(), malformed, "the first {length} bytes");
    }
    for broken in [&b"\x09"[..], b"\x02\0\0\0\0extra", b"\x03\0\0\0\0\x02\0"] {
        assert_eq!(map.apply(LogId::ZERO, broken).unwrap(), malformed);
        assert_eq!(map.query(broken).unwrap(), malformed);
    }
    assert_eq!(map.digest(), digest);
}

#[test]
fn golden_bytes() {
    assert_eq!(put("k", "vw").encode().unwrap()[..], *b"\x01\x01\0\0\0k\x02\0\0\0vw");
    assert_eq!(Command::Delete { key: bytes("k") }.encode().unwrap()[..], *b"\x02\x01\0\0\0k");
    let cas = Command::CompareAndSet { key: bytes("k"), expected: None, new: Some(bytes("v")) };
    assert_eq!(cas.encode().unwrap()[..], *b"\x03\x01\0\0\0k\0\x01\x01\0\0\0v");
    assert_eq!(get("k").encode().unwrap()[..], *b"\x01\x01\0\0\0k");
    assert_eq!(scan("a", Some("b"), 3).encode().unwrap()[..], *b"\x02\x01\0\0\0a\x01\x01\0\0\0b\x03\0\0\0");
    let entries = Answer::Entries { entries: vec![(bytes("k"), bytes("v"))], next: None };
    assert_eq!(entries.encode()[..], *b"\x05\x01\0\0\0\x01\0\0\0k\x01\0\0\0v\0");
    assert_eq!(Answer::Value(Some(bytes("v"))).encode()[..], *b"\x04\x01\x01\0\0\0v");
    assert_eq!(Answer::Compared { equal: true }.encode()[..], *b"\x03\x01");
}

#[test]
fn a_clone_stays_as_it_was() {
    let mut map = Map::new();
    run(&mut map, &put("k", "old"));
    let (clone, digest) = (map.clone(), map.digest());
    run(&mut map, &put("k", "new"));
    assert_eq!(clone.get(b"k"), Some(&bytes("old")));
    assert_eq!(clone.digest(), digest);
    assert_ne!(map.digest(), digest);
}

#[test]
fn the_digest_knows_where_a_key_ends() {
    let digest = |key: &str, value: &str| {
        let mut map = Map::new();
        run(&mut map, &put(key, value));
        map.digest()
    };
    assert_ne!(digest("ab", "c"), digest("a", "bc"));
    assert_ne!(digest("", ""), Map::new().digest());
}

fn any_key() -> impl Strategy<Value = Bytes> {
    prop::collection::vec(0..3u8, 0..3).prop_map(Bytes::from)
}

fn any_command() -> impl Strategy<Value = Command> {
    let value = || any_key();
    prop_oneof![
        (any_key(), value()).prop_map(|(key, value)| Command::Put { key, value }),
        any_key().prop_map(|key| Command::Delete { key }),
        (any_key(), prop::option::of(value()), prop::option::of(value()))
            .prop_map(|(key, expected, new)| Command::CompareAndSet { key, expected, new }),
    ]
}

proptest! {
    #[test]
    fn the_map_does_as_a_model_does(
        commands in prop::collection::vec(any_command(), 0..60),
        from in any_key(),
        to in prop::option::of(any_key()),
        limit in 0..6u32,
    ) {
        let (mut map, mut model) = (Map::new(), BTreeMap::new());
        for command in &commands {
            let expected = match command.clone() {
                Command::Put { key, value } => {
                    model.insert(key, value);
                    Answer::Done
                }
                Command::Delete { key } => Answer::Deleted { existed: model.remove(&key).is_some() },
                Command::CompareAndSet { key, expected, new } => {
                    let equal = model.get(&key) == expected.as_ref();
                    if equal {
                        model.remove(&key);
                        model.extend(new.map(|new| (key, new)));
                    }
                    Answer::Compared { equal }
                }
            };
            prop_assert_eq!(run(&mut map, command), expected);
        }
        let within = |key: &&Bytes| **key >= from && to.as_ref().is_none_or(|to| **key < *to);
        let keys: Vec<Bytes> = model.keys().filter(within).cloned().collect();
        let answer = ask(&map, &Query::Scan { from: from.clone(), to: to.clone(), limit });
        let entries = keys.iter().take(limit as usize).map(|key| (key.clone(), model[key].clone())).collect();
        prop_assert_eq!(answer, Answer::Entries { entries, next: keys.get(limit as usize).cloned() });

        // The same state, put together in another order, has the same digest.
        let mut rebuilt = Map::new();
        for (key, value) in model.into_iter().rev() {
            run(&mut rebuilt, &Command::Put { key, value });
        }
        prop_assert_eq!(rebuilt.digest(), map.digest());
    }

    #[test]
    fn no_bytes_make_it_panic(command in prop::collection::vec(any::<u8>(), 0..64), kind in 0..8u8) {
        let mut of_kind = command.clone();
        of_kind.insert(0, kind);
        for bytes in [command, of_kind] {
            let answer = Map::new().apply(LogId::ZERO, &bytes).unwrap();
            prop_assert!(Answer::decode(&answer).is_ok());
            prop_assert!(Answer::decode(&Map::new().query(&bytes).unwrap()).is_ok());
            if let Ok(answer) = Answer::decode(&Bytes::from(bytes.clone())) {
                prop_assert_eq!(&answer.encode()[..], &bytes[..]);
            }
            if let Ok(command) = Command::decode(&bytes) {
                prop_assert_eq!(&command.encode().unwrap()[..], &bytes[..]);
            }
        }
    }
}
