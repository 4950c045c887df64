//! What a leader takes of clients fits the segments that stand ready, whatever becomes of those that do not: a trim is then
//! never behind entries that wait for room which only the trim can make.

use super::purging::{SEGMENT_BYTES, second, snapshot};
use super::rig::{CLIENT, OTHER, OWN, Rig, data, formatted_with, from_other, options};
use crate::limits::UNCOMMITTED_BYTES_DEFAULT;
use crate::machine::Map;
use crate::mutant::{self, Mutant};
use crate::net::{Change, Refusal, RequestBody, ResponseBody, SubmitResult};
use crate::node::driver::{self, Effect, FollowerTail, Input};
use crate::raft::{Append, Body, Limits, Message, Round};
use crate::types::{Index, Service, Term};
use crate::wal::Fill;

/// Frames of one such record waste a good part of a segment's rest.
const RECORD_BYTES: usize = 40 << 10;

/// It leads alone, and lets so much wait uncommitted as a node does.
fn leading() -> Rig<Map> {
    let most = UNCOMMITTED_BYTES_DEFAULT;
    let limits = Limits { uncommitted_bytes_max: most, cache_bytes_max: most, ..options().limits };
    let follower_tail = Some(FollowerTail { bytes: 0, milliseconds: 0 });
    let options = driver::Options { segment_bytes: SEGMENT_BYTES, limits, follower_tail, ..options() };
    let mut rig = Rig::with_options(formatted_with(&[OWN], SEGMENT_BYTES), Map::new(), options);
    rig.lead();
    rig
}

/// Nothing more fits the disk, and the log does not know it.
fn fill_disk(rig: &Rig<Map>) {
    rig.disk.set_capacity(rig.disk.used_bytes());
}

/// Who sends again what is refused.
#[derive(Debug, Default)]
struct Sender {
    sent: u64,
    refused: u64,
    taken: u64,
    busy: u64,
    no_space: u64,
}

impl Sender {
    /// Hands over requests of these many records each, without a turn between them.
    fn send(&mut self, rig: &mut Rig<Map>, requests: usize, records: usize) {
        self.hear(rig, records as u64);
        for _ in 0..requests {
            let commands = (0..records).map(|_| {
                self.sent += 1;
                data(Service::Append, rig.session, (self.sent - self.refused, 1), &vec![7; RECORD_BYTES])
            });
            let commands = commands.collect();
            rig.request(CLIENT, RequestBody::Submit { commands });
        }
    }

    /// What is refused is told with the next turn; what is taken, when it is durable.
    fn hear(&mut self, rig: &mut Rig<Map>, records: u64) {
        for (_, response) in std::mem::take(&mut rig.replies) {
            match &response.body {
                ResponseBody::Refused(refusal) => self.was_refused(refusal, records),
                ResponseBody::Submitted { results } => {
                    for result in results {
                        match result {
                            SubmitResult::Run { count, .. } => self.taken += u64::from(*count),
                            SubmitResult::Refused(refusal) => self.was_refused(refusal, 1),
                            other => panic!("{other:?}"),
                        }
                    }
                }
                other => panic!("{other:?}"),
            }
        }
    }

    fn was_refused(&mut self, refusal: &Refusal, records: u64) {
        self.refused += records;
        match refusal {
            Refusal::Busy => self.busy += records,
            Refusal::NoSpace => self.no_space += records,
            other => panic!("{other:?}"),
        }
    }
}

/// A trim is taken, durable and told.
fn is_trimmed(rig: &mut Rig<Map>) -> bool {
    let first = rig.driver.applied().0.index;
    let id = rig.request(CLIENT, RequestBody::Change(Change::Trim { first }));
    rig.settle();
    let answer = rig.replies.iter().position(|(_, response)| response.id == id);
    answer.is_some_and(|at| matches!(rig.replies.remove(at).1.body, ResponseBody::Changed { .. }))
}

fn what_was_taken_fits() -> Result<Sender, String> {
    let (mut rig, mut sender) = (leading(), Sender::default());
    fill_disk(&rig);
    // In one turn, then more while the disk is slow, then what is left.
    sender.send(&mut rig, 3, 1);
    rig.holds_writes = true;
    for _ in 0..30 {
        rig.settle();
        sender.send(&mut rig, 2, 1);
    }
    rig.holds_writes = false;
    for _ in 0..30 {
        rig.settle();
        sender.send(&mut rig, 10, 1);
    }
    rig.settle();
    sender.hear(&mut rig, 1);
    match () {
        () if !rig.driver.is_idle() => Err("it waits for room that cannot be had".to_owned()),
        () if sender.taken + sender.refused != sender.sent => Err("nothing is heard of some".to_owned()),
        () if !is_trimmed(&mut rig) => Err("the trim waits".to_owned()),
        () => Ok(sender),
    }
}

/// All were let in while the log took it that more segments were on their way; then these failed, and nothing was ever
/// answered again, a trim the least.
#[test]
fn what_is_taken_fits_what_stands_ready() {
    let sender = what_was_taken_fits().unwrap();
    // The segment in use and two that stand ready take five such records each.
    assert!(sender.taken >= 12 && sender.no_space > 0, "{sender:?}");
    assert!(mutant::with(Mutant::RoomNotCounted, what_was_taken_fits).is_err());
}

/// What is handed over between two turns counts before the log has it.
#[test]
fn what_is_taken_in_one_turn_fits_what_stands_ready() {
    let (mut rig, mut sender) = (leading(), Sender::default());
    fill_disk(&rig);
    sender.send(&mut rig, 60, 1);
    rig.settle();
    sender.hear(&mut rig, 1);
    assert_eq!(sender.taken + sender.no_space, 60, "{sender:?}");
    assert!(rig.driver.is_idle() && is_trimmed(&mut rig));
}

/// Each time the room that is left is that of the segment for internal entries, and what was trimmed comes back.
#[test]
fn a_full_disk_is_trimmed_and_written_again_and_again() {
    let (mut rig, mut sender) = (leading(), Sender::default());
    // And a little for snapshots, which are small here.
    rig.disk.set_capacity(rig.disk.used_bytes() + 4 * SEGMENT_BYTES + 100_000);
    for round in 0..5 {
        let (taken, no_space) = (sender.taken, sender.no_space);
        for _ in 0..100 {
            sender.send(&mut rig, 3, 1);
            rig.settle();
        }
        sender.hear(&mut rig, 1);
        assert!(sender.taken >= taken + 10 && sender.no_space > no_space, "{round}: {sender:?}");
        for _ in 0..4 {
            assert!(is_trimmed(&mut rig), "{round}");
        }
        for _ in 0..2 {
            snapshot(&mut rig);
        }
        for at in 1..4 {
            second(&mut rig, 1_000_000 * (round + 1) + 1000 * at);
        }
        rig.replies.clear();
    }
}

/// One that is larger than what stands ready at best is taken in parts, and so are others behind it, in their order; none of
/// them is refused where there is room on the disk.
#[test]
fn what_finds_no_room_yet_waits_for_the_next_segment() {
    let (mut rig, mut sender) = (leading(), Sender::default());
    for _ in 0..3 {
        sender.send(&mut rig, 2, 40);
        sender.send(&mut rig, 10, 1);
        rig.settle();
    }
    sender.hear(&mut rig, 1);
    assert_eq!((sender.taken, sender.refused), (sender.sent, 0), "{sender:?}");
    assert_eq!(rig.driver.waiting.bytes(), 0);
}

/// Clients never come to the spare segment, so it is not the log that finds none left and asks for one without zeros.
#[test]
fn who_waits_for_a_segment_does_not_wait_for_zeros() {
    let (mut rig, mut sender) = (leading(), Sender::default());
    rig.holds_preparations = true;
    sender.send(&mut rig, 1, 60);
    rig.settle();
    assert!(rig.driver.waiting.bytes() > 0);
    assert!(rig.preparations.iter().all(|order| order.fill == Fill::Zeros), "zeros may be there in a moment");
    for _ in 0..4 {
        rig.tick();
        rig.settle();
    }
    let held = std::mem::take(&mut rig.preparations);
    assert_eq!(held.iter().filter(|order| order.fill == Fill::Allocated).count(), 1, "{held:?}");
    rig.holds_preparations = false;
    held.into_iter().for_each(|order| rig.carry_out(Effect::Prepare(order)));
    rig.settle();
    sender.hear(&mut rig, 60);
    assert_eq!((sender.taken, sender.refused), (60, 0));
}

/// What of a request was not taken when the disk became full is refused; what was taken is durable, and told.
#[test]
fn the_rest_of_a_request_that_was_taken_in_part_is_refused_on_a_full_disk() {
    let (mut rig, mut sender) = (leading(), Sender::default());
    fill_disk(&rig);
    sender.send(&mut rig, 1, 60);
    rig.settle();
    sender.hear(&mut rig, 60);
    assert!(sender.taken >= 5 && sender.taken + sender.no_space == 60, "{sender:?}");
    assert!(rig.driver.is_idle() && is_trimmed(&mut rig));
}

/// A leader whose disk is slow: a request of which a part is taken, and behind it ten that wait whole. Gives the first one's
/// id.
fn with_waiting(rig: &mut Rig<Map>) -> u64 {
    let mut sender = Sender::default();
    rig.holds_writes = true;
    sender.send(rig, 1, 60);
    sender.send(rig, 10, 1);
    rig.turn();
    assert_eq!(rig.replies.len(), 0, "nothing is durable");
    assert!(rig.driver.waiting.commands() == 10 && rig.driver.waiting.bytes() > 11 * RECORD_BYTES);
    rig.last_request() - 10
}

/// Each that waits whole is refused so, once; of the first one so much was taken, and of the rest it is said as well.
fn check_refused(rig: &Rig<Map>, first: u64, refusal: &Refusal) {
    for id in first + 1..first + 11 {
        let answers: Vec<_> = rig.replies.iter().filter(|(_, response)| response.id == id).collect();
        assert!(matches!(&answers[..], [(_, response)] if response.body == ResponseBody::Refused(refusal.clone())));
    }
}

fn results_of(rig: &Rig<Map>, id: u64) -> Vec<SubmitResult> {
    let mut answers = rig.replies.iter().filter(|(_, response)| response.id == id);
    let (_, response) = answers.next().expect("it is answered");
    assert!(answers.next().is_none(), "once");
    let ResponseBody::Submitted { results } = &response.body else { panic!("{response:?}") };
    results.clone()
}

/// What waits at a leader that leads no more is in no log, and told so at once.
#[test]
fn what_waits_is_refused_when_another_leads() {
    let mut rig = leading();
    let first = with_waiting(&mut rig);
    let status = rig.driver.replica().status();
    let body = Body::Append(Append { previous: status.last, entries: Vec::new(), commit: Index(1), round: Round(0) });
    let term = Term(status.hard_state.term.0 + 1);
    rig.driver.handle(from_other(Message { from: OTHER, to: OWN, term, body }));
    rig.turn();
    let not_leader = Refusal::NotLeader { leader: None };
    check_refused(&rig, first, &not_leader);
    let results = results_of(&rig, first);
    let unknown = results.iter().filter(|result| **result == SubmitResult::Refused(Refusal::OutcomeUnknown)).count();
    let refused = results.iter().filter(|result| **result == SubmitResult::Refused(not_leader.clone())).count();
    assert!(unknown >= 5 && unknown + refused == 60, "{results:?}");
    let answers = rig.replies.len();
    rig.holds_writes = false;
    rig.settle();
    assert_eq!((rig.replies.len(), rig.driver.waiting.bytes(), rig.driver.waiting.commands()), (answers, 0, 0));
}

/// What comes late is of no use to whoever sent it, and keeps others from being heard.
#[test]
fn what_waits_too_long_or_for_nobody_or_at_the_end_is_not_taken() {
    for how in ["long", "nobody", "end"] {
        let mut rig = leading();
        let first = with_waiting(&mut rig);
        let end = rig.driver.replica().status().last;
        let refusal = match how {
            "long" => {
                (0..201).for_each(|_| rig.tick());
                Refusal::Busy
            }
            "nobody" => {
                rig.driver.handle(Input::ClientGone { client: CLIENT });
                Refusal::Busy
            }
            _ => {
                rig.driver.begin_to_end();
                Refusal::Unavailable { reason: "the node is ending".to_owned() }
            }
        };
        rig.turn();
        check_refused(&rig, first, &refusal);
        rig.holds_writes = false;
        rig.settle();
        let results = results_of(&rig, first);
        let is_taken = matches!(results[0], SubmitResult::Run { count, .. } if count >= 5);
        assert!(is_taken && results[1..].iter().all(|result| *result == SubmitResult::Refused(refusal.clone())));
        assert_eq!(rig.driver.replica().status().last, end, "{how}: nothing more was taken");
        assert_eq!((rig.driver.waiting.bytes(), rig.driver.waiting.commands()), (0, 0));
        assert!(rig.driver.is_idle());
    }
}

/// So much waits as may be uncommitted, and no more.
#[test]
fn what_waits_for_room_is_bounded() {
    let (mut rig, mut sender) = (leading(), Sender::default());
    rig.holds_writes = true;
    for _ in 0..100 {
        sender.send(&mut rig, 1, 60);
    }
    rig.turn();
    sender.hear(&mut rig, 60);
    assert!(sender.busy > 0, "{sender:?}");
    assert!(rig.driver.waiting.bytes() <= UNCOMMITTED_BYTES_DEFAULT, "{}", rig.driver.waiting.bytes());
}
