//! A state machine that keeps its own state: what is kept with it, and what a start makes of that.

mod ledger;
mod replaced;

use bytes::Bytes;

use self::ledger::{Failing, Ledger, Store, Transaction};
use super::apply::committed_elsewhere;
use super::rig::{self, CLIENT, CLUSTER, OTHER, OWN, Rig, data, formatted, from_other, options};
use crate::checksum::Checksum;
use crate::machine::{self, StateMachine};
use crate::mutant::{self, Mutant};
use crate::net::{Consistency, RequestBody, ResponseBody, SubmitResult};
use crate::node::driver::durable::recover;
use crate::node::driver::{self, Driver, Input, StartError, Stopped};
use crate::node::sessions;
use crate::raft::{Append, Body, Message, Round};
use crate::random::Random;
use crate::sim::disk::SimDisk;
use crate::superblock;
use crate::types::{Data, Entry, Incarnation, Index, LogId, Payload, Service, SessionId, Term};
use crate::wal::Identity;

/// What nodes must agree on at one entry.
type Shown = (Checksum, Checksum, (LogId, Checksum), LogId, Index);

fn shown(driver: &Driver<Ledger>) -> Shown {
    let (machine, sessions) = (driver.machine().digest(), driver.sessions().digest());
    (machine, sessions, driver.applied(), driver.configuration.0, driver.readable_from())
}

fn leading(store: &Store) -> Rig<Ledger> {
    let mut rig = Rig::started(Ledger::on(store), &[OWN]);
    rig.lead();
    rig
}

fn add(rig: &mut Rig<Ledger>, count: u64) {
    rig.submit(Service::Machine, (0..count).map(|number| vec![number as u8 % 7]).collect());
}

/// The answer to one command.
fn answer(rig: &mut Rig<Ledger>, command: Data) -> SubmitResult {
    let ResponseBody::Submitted { mut results } = rig.ask(RequestBody::Submit { commands: vec![command] }) else {
        panic!("it is answered")
    };
    results.remove(0)
}

fn start(disk: &SimDisk, store: &Store) -> Result<Driver<Ledger>, StartError> {
    let disk = disk.fork();
    disk.kill(&mut Random::seeded(1));
    Ok(Driver::start(&disk.files(), options(), Ledger::on(store), 0)?.driver)
}

#[test]
fn a_durable_machine_is_never_ahead_of_its_own_log() {
    let store = Store::default();
    let mut rig = Rig::started(Ledger::on(&store), &[OWN, OTHER]);
    rig.holds_writes = true;
    rig.driver.handle(committed_elsewhere());
    rig.settle();
    let status = rig.driver.replica().status();
    assert_eq!((status.commit, status.durable.index), (Index(3), Index(0)), "committed, and not on this disk");
    assert_eq!((rig.driver.applied().0.index, store.transactions()), (Index(0), 0));
    rig.holds_writes = false;
    rig.settle();
    assert_eq!(rig.driver.applied().0.index, Index(3), "applied as soon as it is");
    assert_eq!(store.last().applied.index, Index(3), "and kept");
}

#[test]
fn a_start_applies_nothing_again_and_a_retry_gets_its_first_answer() {
    let store = Store::default();
    let mut rig = leading(&store);
    add(&mut rig, 300);
    let command = rig.command(Service::Machine, b"once");
    let first = answer(&mut rig, command.clone());
    let (before, runs) = (shown(&rig.driver), store.runs());
    assert_eq!(runs, 301);
    let again = store.whole();
    let mut rig = rig.again(Ledger::on(&again));
    assert_eq!(shown(&rig.driver), before, "at once");
    let status = rig.driver.replica().status();
    assert_eq!((status.commit, again.runs()), (before.2.0.index, 0), "what is applied is committed");
    rig.elect();
    assert_eq!((again.runs(), &shown(&rig.driver).0), (0, &before.0), "nothing was run again");
    assert_eq!(answer(&mut rig, command), first);
    assert_eq!(again.runs(), 0, "nor by the retry");
}

/// One transaction for all that is applied in a turn.
#[test]
fn many_entries_are_one_transaction() {
    let store = Store::default();
    let mut rig = leading(&store);
    add(&mut rig, 64);
    rig.append(64, 100);
    let (disk, entries) = (rig.disk.clone(), rig.driver.applied().0.index.0);
    drop(rig);
    disk.kill(&mut Random::seeded(1));
    let again = Store::default();
    let mut rig = Rig::on(disk, Ledger::on(&again));
    rig.elect();
    assert_eq!(again.runs(), 64, "this machine had nothing");
    assert!(entries > 128 && again.transactions() < 10, "{} for {entries} entries", again.transactions());
    let before = again.transactions();
    for _ in 0..100 {
        rig.tick();
        rig.settle();
    }
    assert_eq!(again.transactions(), before, "and none where nothing is applied");
}

/// Sessions that come, are used, and make room for others; requests that come twice; what else a log holds.
fn history() -> Vec<Entry> {
    let register = || Payload::Data(data(Service::Register, SessionId(0), (0, 0), &[]));
    let run = |session, number, lowest, row: &[u8]| {
        Payload::Data(data(Service::Machine, SessionId(session), (number, lowest), row))
    };
    let payloads = [
        Payload::Noop,
        register(),
        run(2, 1, 1, b"a"),
        run(2, 2, 1, b"b"),
        run(2, 1, 1, b"a"),
        register(),
        run(6, 1, 1, b"a"),
        Payload::Data(data(Service::Append, SessionId(6), (2, 1), b"a record")),
        run(2, 3, 3, b"a"),
        // The session of entry 6 makes room.
        register(),
        run(6, 3, 1, b"never"),
        run(2, 4, 3, b"a"),
        Payload::Trim { first: Index(4) },
        run(10, 1, 1, b"c"),
        run(2, 4, 3, b"a"),
        run(10, 2, 2, b"a"),
    ];
    let entry = |(index, payload)| Entry { id: LogId::new(Term(1), Index(index)), payload };
    (1..).zip(payloads).map(entry).collect()
}

fn small() -> driver::Options {
    let sessions = sessions::Limits { sessions_max: 2, ..sessions::Limits::default() };
    driver::Options { sessions, ..options() }
}

/// From the other, which leads: entries from this index to that, and how far they are committed.
fn append(first: u64, last: u64, commit: u64) -> Input {
    let entries = history().into_iter().filter(|entry| (first..=last).contains(&entry.id.index.0)).collect();
    let previous = if first == 1 { LogId::ZERO } else { LogId::new(Term(1), Index(first - 1)) };
    let append = Append { previous, entries, commit: Index(commit), round: Round(1) };
    from_other(Message { from: OTHER, to: OWN, term: Term(1), body: Body::Append(append) })
}

fn follow(store: &Store, look: &mut dyn FnMut(&Rig<Ledger>)) -> Rig<Ledger> {
    let mut rig = Rig::with_options(formatted(&[OWN, OTHER]), Ledger::on(store), small());
    for (first, last, commit) in [(1, 3, 3), (4, 5, 4), (6, 10, 10), (11, 14, 12), (15, 16, 16)] {
        rig.driver.handle(append(first, last, commit));
        for _ in 0..4 {
            rig.turn();
            look(&rig);
            rig.complete_writes();
            look(&rig);
        }
    }
    rig
}

/// Starts again, and is sent what is missing; tells how many commands were run.
fn brought_up(disk: SimDisk, store: &Store) -> (Shown, u64) {
    let mut rig = Rig::with_options(disk, Ledger::on(store), small());
    let last = rig.driver.replica().status().last.index.0;
    assert_eq!(rig.driver.applied().0, store.last().applied);
    rig.driver.handle(append(last + 1, 16, 16));
    rig.settle();
    (shown(&rig.driver), store.runs())
}

/// The machine's disk keeps any of its transactions, and this node's what it has flushed, or more. Tells how many cuts
/// there were.
fn cuts() -> usize {
    let (expected, runs) = brought_up(formatted(&[OWN, OTHER]), &Store::default());
    assert_eq!(runs, 7, "of ten commands two came twice, and the session of one was gone");
    let store = Store::default();
    let (mut random, mut cuts) = (Random::seeded(5), 0);
    let rig = follow(&store, &mut |rig| {
        for (kept, way) in (0..=store.transactions()).flat_map(|kept| [false, true].map(|way| (kept, way))) {
            let disk = rig.disk.fork();
            match way {
                false => disk.crash_with(&mut |_| 0),
                true => disk.crash(&mut random),
            }
            let store = store.cut(kept);
            let before: u64 = store.last().rows.values().sum();
            assert_eq!(brought_up(disk, &store), (expected, runs - before), "{kept} transactions, way {way}");
            cuts += 1;
        }
    });
    assert_eq!((shown(&rig.driver), store.runs()), (expected, runs));
    cuts
}

/// At each step, with each number of the machine's transactions durable.
#[test]
fn after_each_cut_state_and_answers_are_those_of_one_that_was_fed_everything() {
    let cuts = cuts();
    println!("{cuts} cuts");
    assert!(cuts > 200, "{cuts}");
    for mutant in [Mutant::FedBeforeDurable, Mutant::SessionsKeptApart] {
        let outcome = mutant::with(mutant, || std::panic::catch_unwind(self::cuts));
        assert!(outcome.is_err(), "{mutant:?} is not found");
    }
}

/// What the bug leads to: the command is in the state, its answer is not in the sessions, and the retry runs it again.
#[test]
fn sessions_in_a_transaction_of_their_own_run_a_command_twice() {
    let runs_of_a_retry = || {
        let store = Store::default();
        let mut rig = leading(&store);
        let before = store.transactions();
        let command = rig.command(Service::Machine, b"once");
        answer(&mut rig, command.clone());
        let kept = store.cut(before + 1);
        let mut rig = rig.again(Ledger::on(&kept));
        rig.elect();
        answer(&mut rig, command);
        kept.last().rows[&b"once"[..]]
    };
    assert_eq!(runs_of_a_retry(), 1);
    assert_eq!(mutant::with(Mutant::SessionsKeptApart, runs_of_a_retry), 2);
}

#[test]
fn a_state_that_the_log_does_not_have_is_corruption() {
    let store = Store::default();
    let mut rig = leading(&store);
    add(&mut rig, 20);
    let older = rig.disk.fork();
    add(&mut rig, 20);
    let applied = rig.driver.applied().0;
    assert!(start(&rig.disk, &store.whole()).is_ok());
    let refused = start(&older, &store.whole()).expect_err("the log was put back from a copy");
    assert!(refused.takes_voice());
    let StartError::MachineBeyondLog { applied: said, last } = refused else { panic!("{refused}") };
    assert!(said == applied && last < applied, "{said} {last}");
    // It went on without what was lost.
    older.kill(&mut Random::seeded(1));
    let mut other = Rig::on(older, Ledger::on(&Store::default()));
    other.lead();
    add(&mut other, 40);
    let last = other.driver.replica().status().last;
    assert!(last.index > applied.index && last.term > applied.term);
    let refused = start(&other.disk, &store.whole()).expect_err("the log has other entries there");
    assert!(matches!(refused, StartError::MachineBeyondLog { applied: said, .. } if said == applied), "{refused}");
}

#[test]
fn a_state_of_another_node_or_life_is_refused() {
    let store = Store::default();
    drop(leading(&store));
    let rig = Rig::started(Ledger::on(&Store::default()), &[OWN]);
    let state = superblock::inspect(&rig.disk.files()).unwrap().state;
    let disk = SimDisk::new();
    let later = superblock::State::new(CLUSTER, OWN, Incarnation(9), state.first_membership);
    driver::format(&disk.files(), &later, 4 << 20, 3, 0).unwrap();
    let refused = start(&disk, &store.whole()).expect_err("it is of an earlier life");
    let StartError::MachineOfAnother { found, expected } = refused else { panic!("{refused}") };
    assert_eq!((found.incarnation, expected.incarnation), (Incarnation(1), Incarnation(9)));
}

/// Whatever the store gives that was not put there is told, and nothing of it is used.
#[test]
fn damage_of_what_is_kept_is_found() {
    let store = Store::default();
    let mut rig = leading(&store);
    add(&mut rig, 3);
    let good = store.last();
    assert_eq!(good.kept.len(), 2, "the base and a session");
    assert!(start(&rig.disk, &Store::of(good.clone())).is_ok());
    let identity = Identity { cluster: CLUSTER, node: OWN, incarnation: Incarnation(1) };
    let mut bad: Vec<Transaction> = Vec::new();
    for (key, value) in &good.kept {
        let mut with = |value: Option<Bytes>| {
            let mut changed = good.clone();
            changed.kept.remove(key);
            changed.kept.extend(value.map(|value| (*key, value)));
            bad.push(changed);
        };
        with(None);
        with(Some(Bytes::new()));
        (0..value.len()).for_each(|length| with(Some(value.slice(..length))));
        for at in 0..value.len() * 8 {
            let mut flipped = value.to_vec();
            flipped[at / 8] ^= 1 << (at % 8);
            with(Some(Bytes::from(flipped)));
        }
    }
    let (session, value) = good.kept.last_key_value().expect("there is a session");
    let mut twice = good.clone();
    twice.kept.insert(session + 1, value.clone());
    let earlier = Transaction { applied: LogId::new(Term(1), Index(1)), ..good.clone() };
    bad.extend([twice, earlier, Transaction { kept: Default::default(), ..good.clone() }]);
    for damaged in &bad {
        let mut ledger = Ledger::on(&Store::of(damaged.clone()));
        let refused = recover(&mut ledger, identity, sessions::Limits::default()).expect_err("it is damaged");
        assert!(matches!(refused, StartError::MachineDamaged { .. }), "{refused}");
    }
    println!("{} damages", bad.len());
    assert!(matches!(start(&rig.disk, &Store::of(bad.remove(0))), Err(StartError::MachineDamaged { .. })));
}

/// docs/formats.md shows these bytes.
#[test]
fn golden_bytes() {
    let store = Store::default();
    let mut rig = Rig::with_options(formatted(&[OWN, OTHER]), Ledger::on(&store), small());
    rig.driver.handle(append(1, 3, 3));
    rig.settle();
    let kept: Vec<(u64, Bytes)> = store.last().kept.into_iter().collect();
    let hex = |bytes: &Bytes| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let [(0, base), (2, session)] = &kept[..] else { panic!("{kept:?}") };
    let expected_base = [
        "7a264da2 01000000 05000000000000000000000000000000 0100000000000000 0100000000000000",
        "0300000000000000 0100000000000000 0000000000000000 0000000000000000 0100000000000000",
        "0000000000000000 9693d3c2 01000000",
        "02000000 00 0100000000000000 0100000000000000 04 7f000001 0100 01",
        "0200000000000000 0200000000000000 04 7f000001 0200 01",
    ];
    assert_eq!(hex(base), expected_base.concat().replace(' ', ""));
    let expected_session = [
        "e88d8c76 0200000000000000 0300000000000000 0100000000000000 01000000 0300000000000000",
        "01000000 0100000000000000 08000000 0100000000000000",
    ];
    assert_eq!(hex(session), expected_session.concat().replace(' ', ""));
}

/// The first error of the store is the last thing that the node does: no answer leaves that came of it.
#[test]
fn a_store_that_fails_stops_the_node_before_anything_leaves() {
    for failing in [Failing::Apply, Failing::Query, Failing::Commit] {
        let store = Store::default();
        let mut rig = leading(&store);
        add(&mut rig, 5);
        let kept = store.last();
        store.fail(failing);
        let commands = [b"lost?", b"never"].map(|row| rig.command(Service::Machine, row)).to_vec();
        rig.request(CLIENT, RequestBody::Submit { commands });
        let query = RequestBody::Query { query: Bytes::new(), consistency: Consistency::Stale };
        if failing == Failing::Query {
            rig.request(CLIENT, query);
        }
        let stopped = (0..20).find_map(|_| {
            let mut effects = Vec::new();
            let outcome = rig.driver.take_effects(&mut effects);
            assert!(outcome.is_ok() || effects.is_empty(), "nothing leaves: {effects:?}");
            effects.into_iter().for_each(|effect| rig.carry_out(effect));
            rig.complete_writes();
            outcome.err()
        });
        let Some(Stopped::Machine(machine::Error::Failed(error))) = stopped else { panic!("{failing:?}: {stopped:?}") };
        assert_eq!(error.to_string(), format!("{failing:?} failed"));
        assert!(rig.replies.is_empty(), "{failing:?}: {:?}", rig.replies);
        assert_eq!(store.last().applied, kept.applied, "{failing:?}: nothing was kept");
    }
    let (store, disk) = (Store::default(), formatted(&[OWN]));
    store.fail(Failing::Recover);
    let refused = Driver::start(&disk.files(), rig::options(), Ledger::on(&store), 0).expect_err("it cannot be read");
    assert!(matches!(refused, StartError::Machine(machine::Error::Failed(_))), "{refused}");
}
