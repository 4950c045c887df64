//! How many questions it takes to find where two logs part. The logs are runs of terms, as a replica keeps them: a
//! million entries cost nothing before they are sent.

use crate::limits::ENTRY_OVERHEAD_BYTES;
use crate::raft::{
    AppendOutcome, AppendReply, Body, Config, Fetch, Input, Limits, Message, Output, Replica, Restored, Role,
};
use crate::random::Random;
use crate::types::{Entry, HardState, Index, LogId, NodeId, Payload, Term};

use super::cluster::{limits_default, membership};
use super::leader::{from_peer, reply};

const CASES: u64 = 1_000;

/// A log: consecutive runs of one term each, with their lengths.
type Runs = Vec<(u64, u64)>;

/// What it took.
#[derive(Clone, Copy, Debug)]
struct Trips {
    /// Until the leader has heard where the logs agree.
    found: u64,
    /// Until it has heard that the follower holds everything.
    matched: u64,
    /// Where they agree.
    common: u64,
}

fn length(runs: &Runs) -> u64 {
    runs.iter().map(|(_, count)| count).sum()
}

fn term_at(runs: &Runs, index: u64) -> Option<u64> {
    let mut end = 0;
    runs.iter()
        .find(|(_, count)| {
            (end + 1..=end + count).contains(&index) || {
                end += count;
                false
            }
        })
        .map(|run| run.0)
}

fn replica(id: u64, runs: &Runs, term: u64) -> Replica {
    // What is sent in one round trip fits a follower's memory, and not much more.
    let limits = Limits { cache_bytes_max: 16 << 20, uncommitted_bytes_max: 8 << 20, ..limits_default() };
    let config = Config { id: NodeId(id), heartbeat_ticks: 5, election_ticks: 30..60, seed: id, limits };
    let mut last = LogId::ZERO;
    let mut terms = Vec::new();
    for (term, count) in runs {
        terms.push((last.index.next(), Term(*term)));
        last = LogId::new(Term(*term), last.index.plus(*count));
    }
    let restored = Restored {
        hard_state: HardState { term: Term(term), vote: None },
        before_first: LogId::ZERO,
        terms,
        last,
        commit: Index::ZERO,
        snapshot: LogId::ZERO,
        memberships: vec![(Index::ZERO, membership(3, 0))],
        membership_term: Term::ZERO,
    };
    Replica::new(config, restored)
}

/// Carry the persist out, and the state machine's work.
fn take(replica: &mut Replica) -> Output {
    let mut output = replica.take_output();
    if let Some(persist) = output.persist.take() {
        replica.handle(Input::Durable(persist.number));
    }
    if let Some(commit) = output.commit {
        replica.handle(Input::Applied(commit));
    }
    output
}

/// Node 1, elected by node 3, which has all of its log: what the follower gets is committed, and leaves its memory.
fn elected(runs: &Runs, term: u64) -> Replica {
    let mut leader = replica(1, runs, term);
    while leader.status().role == Role::Follower {
        leader.handle(Input::Tick);
    }
    leader.handle(from_peer(3, term, Body::PreVoteReply { next: Term(term + 1), granted: true }));
    take(&mut leader);
    leader.handle(from_peer(3, term + 1, Body::VoteReply { granted: true }));
    assert_eq!(leader.status().role, Role::Leader);
    let last = leader.status().last.index;
    leader.handle(from_peer(3, term + 1, reply(AppendOutcome::Matched { last })));
    leader
}

fn fetched(runs: &Runs, fetch: &Fetch) -> Input {
    let Fetch { peer, from, last, bytes_max } = *fetch;
    let last = last.0.min(from.0 + (bytes_max / ENTRY_OVERHEAD_BYTES) as u64 - 1).min(length(runs));
    let mut entries = Vec::with_capacity((last + 1 - from.0) as usize);
    let mut end = 0;
    for (term, count) in runs {
        let run = (end + 1).max(from.0)..=(end + count).min(last);
        entries.extend(run.map(|index| Entry { id: LogId::new(Term(*term), Index(index)), payload: Payload::Noop }));
        end += count;
    }
    Input::Fetched { peer, from, entries }
}

/// A round trip: all that the leader has to send, then all that the follower answers.
fn trips(leader_runs: &Runs, follower_runs: &Runs) -> Trips {
    let newest = leader_runs.iter().chain(follower_runs).map(|run| run.0).max().unwrap_or(0);
    let mut leader = elected(leader_runs, newest);
    let mut follower = replica(2, follower_runs, newest);
    let mut result = Trips { found: 0, matched: 0, common: 0 };
    let mut asked = 0;
    loop {
        asked += 1;
        assert!(asked < 200, "{leader_runs:?} {follower_runs:?}");
        for message in ask(&mut leader, leader_runs) {
            follower.handle(Input::Message(message));
        }
        for outgoing in take(&mut follower).send {
            let last = match outgoing.message.body {
                Body::AppendReply(AppendReply { outcome: AppendOutcome::Matched { last }, .. }) => Some(last),
                _ => None,
            };
            leader.handle(Input::Message(outgoing.message));
            if let Some(last) = last.filter(|_| result.found == 0) {
                (result.found, result.common) = (asked, last.0);
            }
            if last == Some(leader.status().last.index) {
                return Trips { matched: asked, ..result };
            }
        }
    }
}

/// All that the leader sends to the follower before it has to hear an answer.
fn ask(leader: &mut Replica, runs: &Runs) -> Vec<Message> {
    let mut messages = Vec::new();
    loop {
        let output = take(leader);
        let sent = output.send.into_iter().map(|outgoing| outgoing.message);
        messages.extend(sent.filter(|message| message.to == NodeId(2)));
        let fetches: Vec<&Fetch> = output.fetch.iter().filter(|fetch| fetch.peer == NodeId(2)).collect();
        let [fetch] = fetches.as_slice() else { return messages };
        leader.handle(fetched(runs, fetch));
    }
}

/// The logs share 1,000 entries. Then each has a million of its own in 50 terms, laid so that each answer excludes as
/// little as it can: one term of each.
#[test]
fn a_follower_a_million_entries_and_fifty_terms_off_is_matched_in_sixty_round_trips() {
    let suffix = |offset: u64| (1..=50).map(move |block| (2 * block + offset, 20_000));
    let leader: Runs = std::iter::once((1, 1_000)).chain(suffix(1)).collect();
    let follower: Runs = std::iter::once((1, 1_000)).chain(suffix(0)).collect();
    let worst = trips(&leader, &follower);
    println!("50 terms each in turn: {worst:?}");
    assert_eq!(worst.common, 1_000);
    assert!(worst.found <= 52 && worst.matched <= 60, "{worst:?}");
    // The other way round, and with nothing to replace.
    for (what, follower) in
        [("the follower's term is the newest", vec![(1, 1_000), (102, 1_000_000)]), ("empty", vec![])]
    {
        let easy = trips(&leader, &follower);
        println!("{what}: {easy:?}");
        assert!(easy.found <= 3 && easy.matched <= 12, "{easy:?}");
    }
}

/// Two logs as they can be: one is the other's beginning, or they part, and from there on no term is in both, but that
/// one of them may go on in the last that they share.
fn divergent(random: &mut Random) -> (Runs, Runs) {
    let mut term = 0;
    let mut rise = |random: &mut Random| {
        term += random.between(1, 4);
        term
    };
    let entries_max = *random.pick(&[2, 20, 2_000]);
    let mut common = Runs::new();
    for _ in 0..random.below(10) {
        common.push((rise(random), random.between(1, entries_max)));
    }
    let mut both = [common.clone(), common];
    let goes_on = random.below(3) as usize;
    if let Some(run) = both.get_mut(goes_on).and_then(|runs| runs.last_mut()) {
        run.1 += random.between(1, entries_max);
    }
    for _ in 0..random.below(60) {
        let run = (rise(random), random.between(1, entries_max));
        let whose = random.below(2) as usize;
        both[whose].push(run);
    }
    let [one, other] = both;
    (one, other)
}

fn common(one: &Runs, other: &Runs) -> u64 {
    let shared = one.iter().zip(other).take_while(|(a, b)| a == b).count();
    let parted = one.get(shared).zip(other.get(shared)).filter(|(a, b)| a.0 == b.0);
    one[..shared].iter().map(|run| run.1).sum::<u64>() + parted.map_or(0, |(a, b)| a.1.min(b.1))
}

/// What is asked is bounded by the terms that the logs do not share, not by their entries: an answer excludes at least
/// one term of each. And what is found is the very place where they part: nothing is sent in vain.
#[test]
fn logs_that_part_are_matched_by_terms_and_not_by_entries() {
    let mut random = Random::seeded(1);
    let (mut most, mut sum, mut entries) = (0, 0, 0);
    for _ in 0..CASES {
        let (leader, follower) = divergent(&mut random);
        let at = common(&leader, &follower);
        let own_terms =
            |runs: &Runs| runs.iter().filter(|run| term_at(runs, at + 1).is_some_and(|t| run.0 >= t)).count();
        let bound = own_terms(&leader).min(own_terms(&follower)) as u64 + 2;
        let took = trips(&leader, &follower);
        assert!(took.found <= bound, "{took:?} and not {bound}: {leader:?} {follower:?}");
        assert_eq!(took.common, at, "{leader:?} {follower:?}");
        most = most.max(took.found);
        sum += took.found;
        entries += length(&leader) - at;
    }
    println!("{CASES} pairs, {entries} entries sent: {sum} round trips to find where they part, at most {most}");
    assert!(most > 10, "{most}");
}
