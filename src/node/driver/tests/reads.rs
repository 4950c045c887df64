//! What clients ask for may be much, at once, for ever: the node answers a bounded part of it at a time.

use super::rig::{CLIENT, OTHER, OWN, Rig, from_other, from_the_start, scan};
use crate::machine::command::{Answer, Query, SCAN_ENTRIES_MAX};
use crate::net::{ClientKey, Consistency, Refusal, RequestBody, ResponseBody};
use crate::node::driver::Input;
use crate::node::driver::reads::{LOG_READS_MAX, READ_ANSWERS_BYTES, READS_SERVED_MAX};
use crate::raft::{AppendOutcome, AppendReply, Body, Message, Round};
use crate::types::{Index, LogId};

/// The other lost everything: it needs the log from its start on.
pub fn lost_all(rig: &mut Rig<crate::machine::Map>) {
    let status = rig.driver.replica().status();
    let outcome = AppendOutcome::Rejected { previous: last_probe(rig), hint: LogId::ZERO };
    let reply = |body| Message { from: OTHER, to: OWN, term: status.hard_state.term, body };
    rig.driver.handle(from_other(reply(Body::AppendReply(AppendReply { round: Round(0), outcome }))));
    rig.turn();
    let outcome = AppendOutcome::Matched { last: Index::ZERO };
    rig.driver.handle(from_other(reply(Body::AppendReply(AppendReply { round: Round(0), outcome }))));
}

fn last_probe(rig: &Rig<crate::machine::Map>) -> LogId {
    let previous = |message: &Message| match &message.body {
        Body::Append(append) => Some(append.previous),
        _ => None,
    };
    rig.sent.iter().rev().find_map(previous).expect("a learner is probed")
}

#[test]
fn reads_of_the_log_for_clients_are_bounded_and_do_not_hold_up_a_follower() {
    let mut rig = Rig::leading();
    rig.append(400, 1024);
    assert!(rig.driver.replica().cached(Index(1)..Index(2)).is_none(), "the log's start is on the disk alone");
    rig.holds_reads = true;
    for _ in 0..3 * LOG_READS_MAX {
        rig.request(CLIENT, from_the_start(64 << 10));
    }
    rig.settle();
    assert_eq!(rig.reads.len(), LOG_READS_MAX, "so many are under way");
    let busy = ResponseBody::Refused(Refusal::Busy);
    assert_eq!(rig.answers_to(CLIENT), vec![&busy; 2 * LOG_READS_MAX], "the others are told at once");
    assert!(rig.reads.iter().all(|ordered| ordered.is_for_client), "they go to the thread of their own");
    lost_all(&mut rig);
    rig.settle();
    let for_cluster = rig.reads.iter().filter(|ordered| !ordered.is_for_client).count();
    assert_eq!(for_cluster, 1, "what the learner lacks is ordered all the same, apart from what clients wait for");
    rig.holds_reads = false;
    rig.replies.clear();
    rig.settle();
    let served = |body: &&ResponseBody| matches!(body, ResponseBody::Records(records) if !records.records.is_empty());
    assert_eq!(rig.answers_to(CLIENT).iter().filter(|body| served(body)).count(), LOG_READS_MAX);
    rig.request(CLIENT, from_the_start(1024));
    rig.settle();
    assert!(rig.answers_to(CLIENT).last().is_some_and(served), "there is room again");
}

#[test]
fn a_start_catches_up_while_clients_read() {
    let mut rig = Rig::leading();
    // More than one read of the log brings.
    rig.append(3000, 1024);
    let last = rig.driver.applied().0.index;
    let mut rig = rig.again(crate::machine::Map::new());
    rig.holds_reads = true;
    for _ in 0..100 {
        rig.tick();
        rig.settle();
    }
    assert_eq!(rig.reads.len(), 1, "what is to be applied");
    rig.run_reads();
    rig.settle();
    let applied = rig.driver.applied().0.index;
    assert!(Index(1) < applied && applied < last, "{applied} of {last}");
    for _ in 0..2 * LOG_READS_MAX {
        rig.request(CLIENT, from_the_start(1024));
    }
    rig.settle();
    assert!(rig.reads.len() <= LOG_READS_MAX + 1);
    for _ in 0..10 {
        // Clients' reads never end.
        let at = rig.reads.iter().position(|ordered| !ordered.is_for_client);
        let Some(ordered) = at.and_then(|at| rig.reads.remove(at)) else { break };
        let result = ordered.plan.run(&rig.disk.files());
        rig.driver.handle(Input::ReadDone { read: ordered.read, result });
        rig.settle();
    }
    assert!(rig.driver.applied().0.index >= last, "all is applied");
}

#[test]
fn queries_beyond_a_number_wait_for_the_next_turn() {
    let mut rig = Rig::leading();
    let query = Query::Get { key: "nothing".into() }.encode().unwrap();
    for _ in 0..READS_SERVED_MAX + 10 {
        rig.request(CLIENT, RequestBody::Query { query: query.clone(), consistency: Consistency::Stale });
    }
    let (has_more, _) = rig.turn();
    assert!(has_more, "the rest comes soon");
    assert_eq!(rig.answers_to(CLIENT).len(), READS_SERVED_MAX);
    let (has_more, _) = rig.turn();
    assert!(!has_more);
    assert_eq!(rig.answers_to(CLIENT).len(), READS_SERVED_MAX + 10);
}

#[test]
fn scans_of_a_huge_map_are_cut_and_do_not_fill_a_turn() {
    let mut rig = Rig::leading();
    rig.put(2 * SCAN_ENTRIES_MAX as u64, 1000);
    for client in 0..50 {
        rig.request(ClientKey(client), scan(Consistency::Stale));
    }
    let (mut turns, mut has_more) = (0, true);
    while has_more {
        let before = rig.replies.len();
        (has_more, _) = rig.turn();
        turns += 1;
        let sizes = rig.replies[before..].iter().map(|(_, response)| match &response.body {
            ResponseBody::Answer(answer) => answer.len(),
            other => panic!("{other:?}"),
        });
        let sizes: Vec<usize> = sizes.collect();
        let largest = sizes.iter().max().copied().unwrap_or_default();
        assert!(sizes.iter().sum::<usize>() <= READ_ANSWERS_BYTES + largest, "one turn answers {sizes:?}");
    }
    assert!(turns >= 10, "50 MiB are given over many turns: {turns}");
    assert_eq!(rig.replies.len(), 50);
    let ResponseBody::Answer(answer) = &rig.replies[0].1.body else { panic!("an answer") };
    let Answer::Entries { entries, next } = Answer::decode(answer).unwrap() else { panic!("entries") };
    assert!(entries.len() <= SCAN_ENTRIES_MAX && next.is_some(), "the scan says where to go on");
    let small = rig.ask(RequestBody::Status);
    assert!(matches!(small, ResponseBody::Status(_)));
}
