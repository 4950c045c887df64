//! The bytes: exact, and what happens when they are not.

use std::fmt::Debug;

use bytes::{BufMut, Bytes, BytesMut};

use super::tests::*;
use super::*;
use crate::codec::{self, Error, Reader};
use crate::limits::{BOOT_MAX, MEMBERS_MAX, WIRE_FRAME_BYTES_MAX};
use crate::raft::message::{Append, AppendOutcome, AppendReply, Base, Body, Message, Round};
use crate::random::Random;
use crate::types::*;

fn log_id(term: u64, index: u64) -> LogId {
    LogId::new(Term(term), Index(index))
}

fn membership(members: u64) -> Membership {
    let member = |id| Member { id: NodeId(id), incarnation: Incarnation(id), address: "[::1]:9".parse().unwrap() };
    Membership {
        members: (1..=members).map(member).collect(),
        voters: (1..=members).map(NodeId).collect(),
        voters_outgoing: [NodeId(1)].into(),
        promoting: Default::default(),
        forming: false,
    }
}

/// With a learner that is to be promoted.
fn joining() -> Membership {
    let mut result = membership(3);
    result.voters.remove(&NodeId(3));
    result.promoting.insert(NodeId(3));
    result
}

fn bodies() -> Vec<Body> {
    let payloads = [
        Payload::Noop,
        Payload::Membership(membership(3).into()),
        Payload::Membership(joining().into()),
        Payload::Trim { first: Index(5) },
        Payload::SnapshotPoint,
        Payload::Data(command(1, 20)),
    ];
    let entry = |(place, payload)| Entry { id: log_id(3, 8 + place as u64), payload };
    let entries = payloads.into_iter().enumerate().map(entry).collect();
    let matched = AppendOutcome::Matched { last: Index(9) };
    let rejected = AppendOutcome::Rejected { previous: log_id(2, 7), hint: log_id(1, 4) };
    vec![
        Body::PreVote { next: Term(4), last: log_id(3, 9) },
        Body::PreVoteReply { next: Term(4), granted: true },
        Body::Vote { last: log_id(3, 9), transfer: true },
        Body::VoteReply { granted: false },
        Body::Append(Append { previous: log_id(2, 7), entries, commit: Index(6), round: Round(11) }),
        Body::Append(Append { previous: LogId::ZERO, entries: vec![], commit: Index(0), round: Round(0) }),
        Body::AppendReply(AppendReply { round: Round(11), outcome: matched }),
        Body::AppendReply(AppendReply { round: Round(11), outcome: rejected }),
        Body::Heartbeat { commit: Index(6), round: Round(11) },
        Body::HeartbeatReply { round: Round(11) },
        Body::ReadIndex { asked: 12 },
        Body::ReadIndexReply { asked: 12, index: Some(Index(6)) },
        Body::ReadIndexReply { asked: 12, index: None },
        Body::StandNow,
        Body::Snapshot { base: Base { point: log_id(3, 9), begin_after: log_id(2, 7) }, round: Round(11) },
    ]
}

fn messages() -> Vec<Message> {
    let message = |body| Message { from: NodeId(1), to: NodeId(2), term: Term(3), body };
    bodies().into_iter().map(message).collect()
}

fn requests() -> Vec<Request> {
    let member = membership(1).members[0].clone();
    let bodies = [
        RequestBody::Submit { commands: vec![] },
        RequestBody::Submit { commands: vec![command(1, 0), command(2, 30)] },
        RequestBody::SubmitAnywhere { commands: vec![command(1, 0), command(2, 30)] },
        RequestBody::Read { from: Index(1), to: None, bytes_max: 100, consistency: Consistency::Stale },
        RequestBody::Read {
            from: Index(1),
            to: Some(Index(9)),
            bytes_max: 100,
            consistency: Consistency::AtLeast(Index(4)),
        },
        RequestBody::Query { query: Bytes::from_static(b"get x"), consistency: Consistency::Linearizable },
        RequestBody::Query { query: Bytes::from_static(b"get y"), consistency: Consistency::Lease },
        RequestBody::Status,
        RequestBody::Change(Change::Members(vec![
            MemberChange::Add { member: member.clone(), promote: false },
            MemberChange::Add { member, promote: true },
            MemberChange::Promote { node: NodeId(2) },
            MemberChange::Remove { node: NodeId(2), incarnation: Incarnation(9) },
        ])),
        RequestBody::Change(Change::Transfer(NodeId(2))),
        RequestBody::Change(Change::Snapshot),
        RequestBody::Change(Change::Trim { first: Index(8) }),
    ];
    bodies.into_iter().map(|body| Request { id: 77, body }).collect()
}

fn status() -> NodeStatus {
    NodeStatus {
        id: NodeId(1),
        incarnation: Incarnation(2),
        address: "127.0.0.1:80".parse().unwrap(),
        pid: 4,
        role: NodeRole::Leader,
        term: Term(5),
        leader: Some((NodeId(1), "127.0.0.1:80".parse().unwrap())),
        first: Index(1),
        last: log_id(5, 9),
        durable: log_id(5, 8),
        commit: Index(8),
        applied: Index(7),
        membership: membership(2),
        io: "uring".into(),
        sync_mode: "dsync".into(),
        waiting: String::new(),
        records: 1,
        record_bytes: 2,
        flushes: 3,
        sessions: 4,
        removals_failed: 5,
        unremoved_segments: 6,
        snapshots: snapshots(),
    }
}

fn refusals() -> Vec<Refusal> {
    vec![
        Refusal::NotLeader { leader: None },
        Refusal::NotLeader { leader: Some((NodeId(3), "[::1]:5".parse().unwrap())) },
        Refusal::Busy,
        Refusal::NoSpace,
        Refusal::TooLarge { max: 9 },
        Refusal::SessionGone,
        Refusal::Gap { expected: 4 },
        Refusal::Trimmed { first: Index(5) },
        Refusal::Unavailable { reason: "no majority".into() },
        Refusal::OutcomeUnknown,
        Refusal::Malformed,
        Refusal::NotAllowed,
        Refusal::LeasesOff,
        Refusal::Impossible { reason: "nobody would vote".into() },
        Refusal::SnapshotFailed { reason: "full".into() },
        Refusal::MapAlone,
    ]
}

fn responses() -> Vec<Response> {
    let results = vec![
        SubmitResult::Run { first: Index(10), count: 64 },
        SubmitResult::Done { index: Index(74), answer: Bytes::from_static(b"ok") },
        SubmitResult::Refused(Refusal::Busy),
    ];
    let records = Records {
        records: vec![(Index(3), Bytes::from_static(b"three")), (Index(5), Bytes::new())],
        next: Index(6),
        first: Index(1),
        commit: Index(9),
    };
    let mut bodies = vec![
        ResponseBody::Submitted { results },
        ResponseBody::Records(records),
        ResponseBody::Answer(Bytes::from_static(b"answer")),
        ResponseBody::Status(Box::new(status())),
        ResponseBody::Changed { index: Index(4) },
        ResponseBody::SnapshotMade(snapshot_made()),
    ];
    bodies.extend(refusals().into_iter().map(ResponseBody::Refused));
    bodies.into_iter().map(|body| Response { id: 77, body }).collect()
}

fn forward_messages() -> Vec<ForwardMessage> {
    let id = ForwardId { incarnation: Incarnation(2), boot: 3, number: 4 };
    let forward = |commands| ForwardMessage::Forward(Forward { id, term: Term(5), commands });
    let forwarded = |outcome| ForwardMessage::Forwarded(Forwarded { id, outcome });
    let results = vec![
        SubmitResult::Run { first: Index(10), count: 64 },
        SubmitResult::Done { index: Index(74), answer: Bytes::from_static(b"ok") },
        SubmitResult::Refused(Refusal::Gap { expected: 4 }),
    ];
    vec![
        forward(vec![]),
        forward(vec![command(1, 0), command(2, 30)]),
        forwarded(Ok(results)),
        forwarded(Err(Refusal::NotLeader { leader: None })),
        forwarded(Err(Refusal::Busy)),
    ]
}

fn snapshot_requests() -> [SnapshotRequest; 2] {
    let (group, point) = (GroupId(2), log_id(3, 9));
    [SnapshotRequest::Manifest { group, point }, SnapshotRequest::Chunk { group, point, number: 5 }]
}

fn snapshot_answers() -> Vec<SnapshotAnswer> {
    let refusals = [SnapshotRefusal::NotHere, SnapshotRefusal::Damaged { number: 5 }, SnapshotRefusal::Busy];
    let mut answers = vec![
        SnapshotAnswer::Manifest(Bytes::from_static(b"manifest")),
        SnapshotAnswer::Chunk { number: 5, bytes: Bytes::from_static(b"chunk") },
    ];
    answers.extend(refusals.map(SnapshotAnswer::Refused));
    answers
}

fn put_forward_message(out: &mut BytesMut, message: &ForwardMessage) {
    match message {
        ForwardMessage::Forward(forward) => put_forward(out, forward),
        ForwardMessage::Forwarded(forwarded) => put_forwarded(out, forwarded),
    }
}

fn frame(put: impl FnOnce(&mut BytesMut)) -> Bytes {
    let mut out = BytesMut::new();
    put(&mut out);
    out.freeze()
}

fn split(bytes: &[u8]) -> Result<Option<Frame>, Error> {
    let mut buffer = FrameBuffer::new(WIRE_FRAME_BYTES_MAX, 0);
    buffer.room().extend_from_slice(bytes);
    buffer.take()
}

/// Every valid frame, with what decodes it to something that can be encoded again.
type Recode = fn(Frame) -> Result<Bytes, Error>;

fn corpus() -> Vec<(Bytes, Recode)> {
    let mut corpus: Vec<(Bytes, Recode)> = Vec::new();
    for item in messages() {
        corpus.push((frame(|out| put_message(out, &item)), |found| {
            message(found).map(|message| frame(|out| put_message(out, &message)))
        }));
    }
    for item in requests() {
        corpus.push((frame(|out| put_request(out, &item)), |found| {
            request(found).map(|request| frame(|out| put_request(out, &request)))
        }));
    }
    for item in responses() {
        corpus.push((frame(|out| put_response(out, &item)), |found| {
            response(found).map(|response| frame(|out| put_response(out, &response)))
        }));
    }
    for item in forward_messages() {
        corpus.push((frame(|out| put_forward_message(out, &item)), |found| {
            forward_message(found).map(|message| frame(|out| put_forward_message(out, &message)))
        }));
    }
    corpus.push((frame(put_forward_stream), |found| forward_stream(&found).map(|()| frame(put_forward_stream))));
    corpus.push((frame(|out| put_hello(out, &greeting())), |found| {
        hello(&found).map(|hello| frame(|out| put_hello(out, &hello)))
    }));
    corpus.push((frame(put_log_stream), |found| log_stream(&found).map(|()| frame(put_log_stream))));
    corpus.push((frame(|out| put_welcome(out, &welcoming())), |found| {
        welcome(&found).map(|welcome| frame(|out| put_welcome(out, &welcome)))
    }));
    let first: Recode = |found| {
        client_stream(&found).map(|stream| match stream {
            ClientStream::Requests(hello) => frame(|out| put_client_hello(out, hello)),
            ClientStream::Tail(tail) => frame(|out| put_tail_request(out, tail)),
        })
    };
    corpus.push((frame(|out| put_client_hello(out, ClientHello { protocol_version: 1 })), first));
    corpus.push((frame(|out| put_tail_request(out, TailRequest { from: Index(5) })), first));
    for item in snapshot_requests() {
        corpus.push((frame(|out| put_snapshot_request(out, &item)), |found| {
            snapshot_request(&found).map(|request| frame(|out| put_snapshot_request(out, &request)))
        }));
    }
    for item in snapshot_answers() {
        corpus.push((frame(|out| put_snapshot_answer(out, &item)), |found| {
            snapshot_answer(found).map(|answer| frame(|out| put_snapshot_answer(out, &answer)))
        }));
    }
    corpus
}

fn greeting() -> Hello {
    Hello {
        cluster: CLUSTER,
        node: NodeId(2),
        incarnation: Incarnation(3),
        boot: 4,
        protocol_version: 1,
        fingerprint: 5,
        configuration: LogId::new(Term(6), Index(7)),
        receiver: Some(Incarnation(8)),
    }
}

fn welcoming() -> Welcome {
    Welcome { protocol_version: 1, cluster: CLUSTER, node: NodeId(2), incarnation: Incarnation(3) }
}

fn assert_same<T: PartialEq + Debug>(left: Result<T, Error>, right: T) {
    assert_eq!(left.unwrap(), right);
}

#[test]
fn what_is_written_is_read_back() {
    for item in messages() {
        assert_same(message(split(&frame(|out| put_message(out, &item))).unwrap().unwrap()), item);
    }
    for item in requests() {
        assert_same(request(split(&frame(|out| put_request(out, &item))).unwrap().unwrap()), item);
    }
    for item in responses() {
        assert_same(response(split(&frame(|out| put_response(out, &item))).unwrap().unwrap()), item);
    }
    for item in forward_messages() {
        assert_same(forward_message(split(&frame(|out| put_forward_message(out, &item))).unwrap().unwrap()), item);
    }
    for item in snapshot_requests() {
        assert_same(snapshot_request(&split(&frame(|out| put_snapshot_request(out, &item))).unwrap().unwrap()), item);
    }
    for item in snapshot_answers() {
        assert_same(snapshot_answer(split(&frame(|out| put_snapshot_answer(out, &item))).unwrap().unwrap()), item);
    }
    assert_same(hello(&split(&frame(|out| put_hello(out, &greeting()))).unwrap().unwrap()), greeting());
    assert_same(welcome(&split(&frame(|out| put_welcome(out, &welcoming()))).unwrap().unwrap()), welcoming());
}

/// It is kept in a superblock, which could not be read again.
#[test]
fn a_start_that_no_superblock_can_hold_is_refused() {
    let read = |boot: u64| {
        let greeting = Hello { boot, ..greeting() };
        hello(&split(&frame(|out| put_hello(out, &greeting))).unwrap().unwrap())
    };
    assert_eq!(read(BOOT_MAX).map(|hello| hello.boot), Ok(BOOT_MAX));
    assert!(read(BOOT_MAX + 1).is_err() && read(u64::MAX).is_err());
}

/// That a learner is to be promoted is a flag that goes with no other.
#[test]
fn who_is_to_be_promoted_does_not_vote_yet() {
    let mut bytes = BytesMut::new();
    codec::put_membership(&mut bytes, &joining());
    assert_eq!(bytes.last(), Some(&4));
    assert_eq!(codec::membership(&mut Reader::new(&bytes)), Ok(joining()));
    for flags in [5, 6, 7, 8] {
        *bytes.last_mut().unwrap() = flags;
        let refused = Err(Error::Invalid { what: "role of a member", found: u64::from(flags) });
        assert_eq!(codec::membership(&mut Reader::new(&bytes)), refused);
    }
}

/// The bytes of each frame, one line each: a change here is a change of the protocol's version.
#[test]
fn the_bytes_are_exact() {
    let hex = |bytes: &Bytes| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let found: Vec<String> = corpus().iter().map(|(bytes, _)| format!("{} {}", bytes[4], hex(bytes))).collect();
    let golden: Vec<&str> = include_str!("golden_wire.txt").lines().collect();
    assert_eq!(found, golden, "all:\n{}", found.join("\n"));
    // Written by hand from docs/formats.md: a heartbeat of node 1 to node 2 in term 3, commit 6, round 11.
    let by_hand = [
        &[41, 0, 0, 0, 22][..],
        &[1, 0, 0, 0, 0, 0, 0, 0],
        &[2, 0, 0, 0, 0, 0, 0, 0],
        &[3, 0, 0, 0, 0, 0, 0, 0],
        &[6, 0, 0, 0, 0, 0, 0, 0],
        &[11, 0, 0, 0, 0, 0, 0, 0],
    ];
    assert_eq!(frame(|out| put_message(out, &messages()[8])), by_hand.concat());
}

/// Cut anywhere, a frame is incomplete; cut with its length made to fit, it is refused.
#[test]
fn no_truncation_is_taken_for_a_frame() {
    for (bytes, recode) in corpus() {
        for end in 0..bytes.len() {
            assert_eq!(split(&bytes[..end]).unwrap(), None);
        }
        for end in FRAME_HEAD_BYTES..bytes.len() {
            let cut = Frame { kind: bytes[4], body: bytes.slice(FRAME_HEAD_BYTES..end) };
            // An answer is whatever bytes there are: the one body without a length of its own.
            if bytes[4] != 98 || end < FRAME_HEAD_BYTES + 8 {
                assert!(recode(cut).is_err(), "kind {} cut at {end}", bytes[4]);
            }
        }
    }
}

/// Each byte changed to each other value: refused, or a message that encodes to exactly these bytes. So there is one
/// encoding for each message, and no decoder panics.
#[test]
fn every_single_byte_mutation_is_refused_or_canonical() {
    let mut refused = 0;
    for (bytes, recode) in corpus() {
        for place in FRAME_HEAD_BYTES..bytes.len() {
            for change in 1..=255u8 {
                let mut mutated = bytes.to_vec();
                mutated[place] ^= change;
                let body = Bytes::copy_from_slice(&mutated[FRAME_HEAD_BYTES..]);
                match recode(Frame { kind: mutated[4], body }) {
                    Ok(again) => assert_eq!(again, mutated, "kind {} at {place}", bytes[4]),
                    Err(_) => refused += 1,
                }
            }
        }
    }
    assert!(refused > 10_000, "{refused}");
}

#[test]
fn random_bytes_never_panic() {
    let mut random = Random::seeded(1);
    for _ in 0..20_000 {
        let mut body = vec![0; random.below(200) as usize];
        random.fill(&mut body);
        let body = Bytes::from(body);
        for kind in [0u8, 1, 2, 3].into_iter().chain(15..28).chain(47..51).chain(63..74).chain(95..103).chain(111..118)
        {
            let frame = || Frame { kind, body: body.clone() };
            let _ = (message(frame()), request(frame()), response(frame()));
            let _ = (forward_message(frame()), forward_stream(&frame()));
            let _ = (snapshot_request(&frame()), snapshot_answer(frame()));
            let _ = (hello(&frame()), log_stream(&frame()), welcome(&frame()), client_stream(&frame()));
        }
    }
}

/// Every 32-bit field replaced by lengths that lie: never a panic, and what is allocated stays near what is there.
#[test]
fn lengths_inside_a_frame_that_lie_are_refused_or_canonical() {
    for (bytes, recode) in corpus() {
        for place in FRAME_HEAD_BYTES..bytes.len().saturating_sub(3) {
            let honest = u32::from_le_bytes(bytes[place..place + 4].try_into().unwrap());
            for lie in [honest.wrapping_sub(1), 0, honest.wrapping_add(1), 1 << 31, u32::MAX] {
                let mut mutated = bytes.to_vec();
                mutated[place..place + 4].copy_from_slice(&lie.to_le_bytes());
                let body = Bytes::copy_from_slice(&mutated[FRAME_HEAD_BYTES..]);
                if let Ok(again) = recode(Frame { kind: mutated[4], body }) {
                    assert_eq!(again, mutated);
                }
            }
        }
    }
}

#[test]
fn a_frame_length_that_lies_costs_no_memory() {
    for lie in [0, WIRE_FRAME_BYTES_MAX as u32 + 1, 1 << 31, u32::MAX] {
        let mut buffer = FrameBuffer::new(WIRE_FRAME_BYTES_MAX, 0);
        buffer.room().extend_from_slice(&lie.to_le_bytes());
        assert!(buffer.room().capacity() < 256 << 10);
        assert!(buffer.take().is_err(), "{lie}");
        assert!(buffer.capacity() < 256 << 10);
    }
    // At the limit it is believed, and memory still follows what has arrived.
    let mut buffer = FrameBuffer::new(WIRE_FRAME_BYTES_MAX, 0);
    buffer.room().extend_from_slice(&(WIRE_FRAME_BYTES_MAX as u32).to_le_bytes());
    for _ in 0..100 {
        assert_eq!(buffer.take().unwrap(), None);
        assert!(buffer.room().capacity() < 256 << 10);
    }
    // A member's word is taken, up to the bound and no further.
    let mut buffer = FrameBuffer::new(1 << 20, 1 << 20);
    buffer.room().extend_from_slice(&u32::MAX.to_le_bytes());
    assert!(((1 << 20)..(2 << 20)).contains(&buffer.room().capacity()));
    let honest = frame(|out| put_message(out, &heartbeat(1, 2, 3)));
    let length = honest.len() as u32 - 4;
    for (lie, whole) in [(length - 1, true), (length, true), (length + 1, false)] {
        let mut lying = honest.to_vec();
        lying[..4].copy_from_slice(&lie.to_le_bytes());
        let found = split(&lying).unwrap();
        assert_eq!(found.is_some(), whole);
        assert_eq!(found.is_some_and(|frame| message(frame).is_ok()), lie == length);
    }
}

/// What a state machine answered to one request may be longer than a frame: it is not known then, and nobody panics.
#[test]
fn answers_that_fit_no_frame_are_unknown_to_who_passed_the_request_on() {
    let id = ForwardId { incarnation: Incarnation(2), boot: 3, number: 4 };
    let told = |count: u64| {
        let done = |index| SubmitResult::Done { index: Index(index), answer: Bytes::from(vec![1; 1 << 20]) };
        let forwarded = Forwarded { id, outcome: Ok((0..count).map(done).collect()) };
        let bytes = frame(|out| put_forwarded(out, &forwarded));
        let ForwardMessage::Forwarded(found) = forward_message(split(&bytes).unwrap().unwrap()).unwrap() else {
            panic!("it is an answer")
        };
        assert!(found == forwarded || found.outcome == Err(Refusal::OutcomeUnknown));
        found == forwarded
    };
    assert_eq!([1, 6, 7, 20].map(told), [true, true, false, false]);
}

/// As long as they may be, they fit a frame; a byte more is refused, whatever frame it comes in.
#[test]
fn the_longest_manifest_and_chunk_go_in_a_frame_and_no_longer_ones() {
    use crate::limits::{SNAPSHOT_CHUNK_BYTES, SNAPSHOT_CHUNKS_MAX};
    let last = SNAPSHOT_CHUNKS_MAX as u32 - 1;
    let zeros = |length| Bytes::from(vec![0; length]);
    for longest in [
        SnapshotAnswer::Manifest(zeros(MANIFEST_BYTES_MAX)),
        SnapshotAnswer::Chunk { number: last, bytes: zeros(SNAPSHOT_CHUNK_BYTES) },
    ] {
        let bytes = frame(|out| put_snapshot_answer(out, &longest));
        assert!(bytes.len() <= 4 + snapshot_wire::ANSWER_FRAME_BYTES_MAX);
        let place = if matches!(longest, SnapshotAnswer::Manifest(_)) { 5 } else { 9 };
        assert_same(snapshot_answer(split(&bytes).unwrap().unwrap()), longest);
        let mut longer = BytesMut::from(&bytes[FRAME_HEAD_BYTES..]);
        longer.put_u8(0);
        let length = u32::from_le_bytes(bytes[place..place + 4].try_into().unwrap()) + 1;
        longer[place - 5..place - 1].copy_from_slice(&length.to_le_bytes());
        let refused = snapshot_answer(Frame { kind: bytes[4], body: longer.freeze() });
        assert!(matches!(refused, Err(Error::OverLimit { .. })), "{refused:?}");
    }
    let (group, point) = (GroupId(2), log_id(3, 9));
    let beyond = SnapshotRequest::Chunk { group, point, number: last + 1 };
    assert!(snapshot_request(&split(&frame(|out| put_snapshot_request(out, &beyond))).unwrap().unwrap()).is_err());
}

#[test]
fn what_is_kept_of_a_frame_holds_little_more_in_memory() {
    let mut buffer = FrameBuffer::new(WIRE_FRAME_BYTES_MAX, WIRE_FRAME_BYTES_MAX);
    let mut kept = Vec::new();
    // Small ones among large ones that nobody keeps, as appends among questions.
    for body_bytes in [64, 50_000, 100, 3000, 1 << 20, 200, 14_000].repeat(50) {
        let mut rest = &frame(|out| put_frame(out, 9, |out| out.put_bytes(7, body_bytes)))[..];
        while !rest.is_empty() {
            let room = buffer.room();
            let piece = rest.len().min(room.capacity() - room.len());
            room.extend_from_slice(&rest[..piece]);
            rest = &rest[piece..];
        }
        let taken = buffer.take().unwrap().expect("it has arrived whole");
        assert_eq!(taken.body, vec![7; body_bytes]);
        kept.extend((body_bytes <= 3000).then_some(taken.body));
    }
    drop(buffer);
    for body in kept {
        let counted = body.len();
        let mut held = body.try_into_mut().expect("no other frame is held by it");
        held.clear();
        assert!(!held.try_reclaim(4 * counted + 1), "{counted} bytes hold more than four times as much");
    }
}

#[test]
fn frames_are_found_however_the_stream_is_cut() {
    let all: Vec<u8> = messages().iter().flat_map(|item| frame(|out| put_message(out, item))).collect();
    for piece in [1, 2, 3, 7, 64, 1000] {
        let mut buffer = FrameBuffer::new(WIRE_FRAME_BYTES_MAX, piece);
        let mut found = Vec::new();
        for bytes in all.chunks(piece) {
            buffer.room().extend_from_slice(bytes);
            while let Some(frame) = buffer.take().unwrap() {
                found.push(message(frame).unwrap());
            }
        }
        assert_eq!(found, messages());
        assert!(buffer.is_empty());
    }
}

#[test]
fn entries_that_skip_an_index_are_refused() {
    let Body::Append(mut append) = bodies()[4].clone() else { unreachable!() };
    append.entries[2].id.index = Index(11);
    let bytes = frame(|out| {
        put_message(out, &Message { from: NodeId(1), to: NodeId(2), term: Term(3), body: Body::Append(append) })
    });
    assert!(matches!(message(split(&bytes).unwrap().unwrap()), Err(Error::Invalid { .. })));
}

#[test]
fn the_largest_append_and_status_fit_their_frames() {
    use crate::limits::{APPEND_BYTES_MAX, RECORD_BYTES_MAX};
    let largest = Message { ..append(1, 2, 1, RECORD_BYTES_MAX) };
    let bytes = frame(|out| put_message(out, &largest));
    assert!(bytes.len() <= peer_wire::PEER_FRAME_BYTES_MAX && APPEND_BYTES_MAX > RECORD_BYTES_MAX);
    assert_eq!(message(split(&bytes).unwrap().unwrap()).unwrap(), largest);
    let status = NodeStatus { membership: membership(MEMBERS_MAX as u64), waiting: "ä".repeat(3000), ..status() };
    let bytes = frame(|out| put_response(out, &Response { id: 1, body: ResponseBody::Status(Box::new(status)) }));
    assert!(response(split(&bytes).unwrap().unwrap()).is_ok(), "texts are cut at a character's edge");
}
