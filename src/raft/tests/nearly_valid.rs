//! Messages of a running cluster with one field changed. The replica that hears one may do with it what it likes, but
//! for one thing: it does not panic, neither at once nor by what comes after.

use std::collections::{BTreeMap, VecDeque};

use crate::raft::{Event, Input, Message, PersistNumber, ReadToken, Replica};
use crate::random::Random;
use crate::sim::fuzz::forged;
use crate::types::Payload;

use super::random::History;

const SEEDS: u64 = 300;
const STEPS: u64 = 3_000;
/// Messages that were under way some time ago; what is changed is one of them.
const REMEMBERED: usize = 300;

/// How often something came of a changed message.
#[derive(Default)]
struct Outcomes {
    told: u64,
    /// By the name of what was said.
    contradicted: BTreeMap<String, u64>,
    answered: u64,
    newer_term: u64,
    nothing: u64,
}

impl Outcomes {
    fn note(&mut self, before: &Replica, after: &mut Replica) {
        self.told += 1;
        let output = after.take_output();
        let contradiction = output.events.iter().find_map(|event| match event {
            Event::Contradiction(contradiction) => Some(format!("{:?}", contradiction.what)),
            _ => None,
        });
        if let Some(what) = contradiction {
            let name = what.split([' ', '{']).next().unwrap_or_default().to_owned();
            *self.contradicted.entry(name).or_default() += 1;
        } else if after.status().hard_state.term > before.status().hard_state.term {
            self.newer_term += 1;
        } else if !output.send.is_empty() {
            self.answered += 1;
        } else {
            self.nothing += 1;
        }
    }
}

/// What was real goes on: time, the disk, clients, and messages that nobody has changed.
fn live_on(random: &mut Random, replica: &mut Replica, messages: &VecDeque<Message>) {
    let mut durable = PersistNumber::default();
    for _ in 0..12 {
        (0..random.below(25)).for_each(|_| replica.handle(Input::Tick));
        for _ in 0..random.below(6) {
            let at = random.below(messages.len() as u64) as usize;
            replica.handle(Input::Message(Message { to: replica.id(), ..messages[at].clone() }));
        }
        let _refused_or_not = replica.propose(vec![Payload::Noop]);
        let _refused_or_not = replica.read(ReadToken(0));
        let output = replica.take_output();
        durable = output.persist.map_or(durable, |persist| persist.number);
        if durable > PersistNumber::default() && random.chance(700) {
            replica.handle(Input::Durable(durable));
        }
        for fetch in output.fetch {
            replica.handle(Input::Fetched { peer: fetch.peer, from: fetch.from, entries: Vec::new() });
        }
    }
}

fn run(seed: u64, outcomes: &mut Outcomes) {
    let mut history = History::new(seed);
    let mut random = Random::seeded(!seed);
    let mut messages = VecDeque::new();
    for _ in 0..STEPS {
        history.step();
        messages.extend(history.cluster.network.back().cloned());
        messages.truncate(REMEMBERED);
        if messages.len() == REMEMBERED && random.chance(100) {
            messages.pop_front();
        }
        let Some(message) = messages.get(random.below(messages.len().max(1) as u64) as usize) else { continue };
        let Some(replica) = history.cluster.nodes.get(&message.to).and_then(|node| node.replica.as_ref()) else {
            continue;
        };
        // What waits belongs to the messages before.
        let mut before = replica.clone();
        before.take_output();
        let (mut message, mut after) = (message.clone(), before.clone());
        let mut choices = [0; 24];
        random.fill(&mut choices);
        forged::change(&choices, &mut message);
        let shown = format!("seed {seed}: {message:?} to {:?}", before.status());
        let heard = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            after.handle(Input::Message(message));
            outcomes.note(&before, &mut after);
            live_on(&mut random, &mut after, &messages);
        }));
        assert!(heard.is_ok(), "{shown}");
    }
}

#[test]
fn a_changed_message_makes_no_replica_panic() {
    let mut outcomes = Outcomes::default();
    (0..SEEDS).for_each(|seed| run(seed, &mut outcomes));
    let Outcomes { told, contradicted, answered, newer_term, nothing } = outcomes;
    println!(
        "{told} changed: {contradicted:?}, {answered} answered, {newer_term} of a newer term, {nothing} of no use"
    );
    assert!(told > 10_000 && answered > 1_000 && newer_term > 500 && nothing > 1_000, "too little came of them");
    for kind in [
        "TwoLeaders",
        "CommittedDiffers",
        "SentDiffers",
        "MatchedBeyond",
        "AcknowledgedBeyond",
        "RoundAhead",
        "OutOfOrder",
        "TermAhead",
        "Configuration",
        "OutOfRange",
    ] {
        assert!(contradicted.get(kind).is_some_and(|count| *count > 10), "{kind} is not met: {contradicted:?}");
    }
    assert_eq!(contradicted.len(), 10, "{contradicted:?}");
}
