//! A node's state as one stream, through a snapshot's files and back.

use bytes::{Bytes, BytesMut};

use crate::checksum::Checksum;
use crate::codec::Error;
use crate::machine::command::Command as MapCommand;
use crate::machine::{Map, StateMachine};
use crate::node::driver::checkpoint::{Checkpoint, Restoring};
use crate::node::sessions::{Limits, Sessions};
use crate::random::Random;
use crate::sim::disk::SimDisk;
use crate::snapshot::{self, Builder, ChunkSource, Description, Reader, Step};
use crate::types::{ClusterId, Command, GroupId, Index, LogId, Membership, RequestNumber, Service, SessionId, Term};

fn of(service: Service, session: u64, number: u64) -> Command {
    Command { service, session: SessionId(session), number: RequestNumber(number), lowest_unanswered: RequestNumber(1) }
}

/// Sessions and a map that have seen so many commands.
fn node(commands: u64) -> (Sessions, Map) {
    let (mut sessions, mut map) = (Sessions::new(), Map::new());
    for session in 1..=20 {
        sessions.begin(Index(session), &of(Service::Register, 0, 0));
    }
    for at in 0..commands {
        let (index, session, number) = (Index(21 + at), 1 + at % 20, 1 + at / 20);
        sessions.begin(index, &of(Service::Machine, session, number));
        let (key, value) = (format!("key {}", at % 500), vec![at as u8; 4000 + at as usize % 1000]);
        let put = MapCommand::Put { key: key.into(), value: value.into() };
        let answer = map.apply(LogId::new(Term(1), index), &put.encode().unwrap()).unwrap();
        sessions.keep(SessionId(session), RequestNumber(number), answer);
    }
    (sessions, map)
}

fn encoded((sessions, map): &(Sessions, Map)) -> Vec<u8> {
    let (mut checkpoint, mut out) = (Checkpoint::of(sessions, map).unwrap(), BytesMut::new());
    while checkpoint.encode_next(&mut out) {}
    out.to_vec()
}

fn restored<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<(Sessions, Map), Error> {
    let mut restoring = Restoring::new(&Map::new(), Limits::default()).unwrap();
    pieces.into_iter().try_for_each(|piece| restoring.add(piece))?;
    restoring.finish()
}

/// docs/formats.md shows these bytes.
#[test]
fn golden_bytes() {
    let mut sessions = Sessions::new();
    let register = Command {
        service: Service::Register,
        session: SessionId(0),
        number: RequestNumber(0),
        lowest_unanswered: RequestNumber(0),
    };
    sessions.begin(Index(3), &register);
    let expected: &[&[u8]] = &[
        b"\x01\0\0\0\0\0\0\0",
        b"\x20\0\0\0",
        b"\x03\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
        b"\0\0\0\0",
        b"\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
    ];
    assert_eq!(encoded(&(sessions, Map::new())), expected.concat());
}

#[test]
fn a_state_comes_back_through_the_files_as_it_was_while_the_node_goes_on() {
    let mut node = node(3000);
    let (expected, digests) = (encoded(&node), (node.0.digest(), node.1.digest()));
    let description = Description {
        cluster: ClusterId(1),
        group: GroupId::CLUSTER,
        point: LogId::new(Term(1), Index(3020)),
        membership: Membership::default(),
        membership_id: LogId::ZERO,
        log_start: Index(1),
        last_record: Index::ZERO,
        log_digest: Checksum(0),
    };
    let disk = SimDisk::new();
    let source = Box::new(Checkpoint::of(&node.0, &node.1).unwrap());
    let mut builder = Builder::new(description, source);
    for at in 0.. {
        if builder.step(&disk.files(), true).unwrap() == Step::Done {
            break;
        }
        let put = MapCommand::Put { key: Bytes::from("later"), value: Bytes::from(vec![at]) };
        node.1.apply(LogId::new(Term(1), Index(4000 + u64::from(at))), &put.encode().unwrap()).unwrap();
        let append = Command {
            service: Service::Append,
            session: SessionId(5),
            number: RequestNumber(500),
            lowest_unanswered: RequestNumber(90),
        };
        node.0.begin(Index(4000 + u64::from(at)), &append);
    }
    assert_ne!((node.0.digest(), node.1.digest()), digests);
    let files = disk.files();
    let manifest = snapshot::list(&files, None).unwrap().whole(GroupId::CLUSTER).next().unwrap().clone();
    let (mut reader, mut restoring) =
        (Reader::open(&files, manifest).unwrap(), Restoring::new(&node.1, Limits::default()).unwrap());
    assert!(reader.manifest().chunks() > 2);
    for number in 0..reader.manifest().chunks() {
        restoring.add(reader.chunk(&files, number).unwrap()).unwrap();
    }
    let back = restoring.finish().unwrap();
    assert_eq!((back.0.digest(), back.1.digest()), digests);
    assert!(encoded(&back) == expected, "and it gives the same bytes again");
}

/// What the core thread pays: the handle, and the first change of each session after it.
#[test]
#[ignore = "a measurement"]
fn what_a_handle_costs() {
    let (mut sessions, mut map) = (Sessions::new(), Map::new());
    for session in 1..=10_000 {
        sessions.begin(Index(session), &of(Service::Register, 0, 0));
    }
    let mut index = 10_000;
    for number in 1..=100 {
        for session in 1..=10_000 {
            index += 1;
            sessions.begin(Index(index), &of(Service::Machine, session, number));
            sessions.keep(SessionId(session), RequestNumber(number), Bytes::from_static(b"answer"));
        }
    }
    for at in 0..200_000_u64 {
        let put = MapCommand::Put { key: at.to_le_bytes().to_vec().into(), value: vec![7; 100].into() };
        map.apply(LogId::ZERO, &put.encode().unwrap()).unwrap();
    }
    let began = std::time::Instant::now();
    let checkpoint = Checkpoint::of(&sessions, &map).unwrap();
    let handle = began.elapsed();
    let (mut first, mut second) = (Vec::new(), Vec::new());
    for (number, times) in [(101, &mut first), (102, &mut second)] {
        for session in 1..=10_000 {
            index += 1;
            let began = std::time::Instant::now();
            sessions.begin(Index(index), &of(Service::Machine, session, number));
            sessions.keep(SessionId(session), RequestNumber(number), Bytes::from_static(b"answer"));
            times.push(began.elapsed());
        }
        times.sort();
    }
    let of = |times: &[std::time::Duration]| (times[times.len() / 2], times[times.len() * 99 / 100]);
    println!("handle {handle:?}; p50 and p99 of a command after it {:?}, of the next {:?}", of(&first), of(&second));
    drop(checkpoint);
}

#[test]
fn where_it_is_cut_makes_no_difference_and_what_is_missing_is_told() {
    let node = node(60);
    let bytes = encoded(&node);
    let mut random = Random::seeded(9);
    for longest in [2, 9, 100, 5000] {
        let (mut pieces, mut rest) = (Vec::new(), &bytes[..]);
        while !rest.is_empty() {
            let (piece, behind) = rest.split_at((random.below(longest) as usize).min(rest.len()));
            pieces.push(piece);
            rest = behind;
        }
        assert_eq!(restored(pieces), Ok(node.clone()));
    }
    for length in (0..4000).chain((4000..bytes.len()).step_by(4001)) {
        assert!(restored([&bytes[..length]]).is_err(), "the first {length} bytes");
    }
    for (offset, byte) in [(0, 2), (4, 1), (11, 1), (12, 0)] {
        let mut changed = bytes.clone();
        changed[offset] = byte;
        assert!(restored([&changed[..]]).is_err(), "byte {offset} = {byte}");
    }
}
