//! A snapshot takes the place of the log: what of it is durable before what, at each cut.

use super::rig::{CLUSTER, OTHER, OWN, Rig, from_other};
use crate::machine::Map;
use crate::node::driver::start::LOG_DIRECTORY;
use crate::raft::{Append, AppendOutcome, Base, Body, Input, Message, Round};
use crate::random::Random;
use crate::sim::disk::SimDisk;
use crate::superblock;
use crate::types::{Entry, GroupId, Incarnation, Index, LogId, Payload, Term};
use crate::wal::{self, GroupLog, Identity, Log};

const TERM: Term = Term(1);

fn id(term: u64, index: u64) -> LogId {
    LogId::new(Term(term), Index(index))
}

fn base() -> Base {
    Base { point: id(2, 9), begin_after: id(2, 7) }
}

fn append(term: u64, previous: LogId, count: u64) -> Message {
    let entry = |index| Entry { id: id(term, index), payload: Payload::Noop };
    let entries = (previous.index.0 + 1..=previous.index.0 + count).map(entry).collect();
    let body = Body::Append(Append { previous, entries, commit: Index::ZERO, round: Round(0) });
    Message { from: OTHER, to: OWN, term: Term(term), body }
}

/// The other leads, and this node's log holds so many entries of it.
fn following(count: u64) -> Rig<Map> {
    let mut rig = Rig::started(Map::new(), &[OTHER]);
    rig.driver.handle(from_other(append(TERM.0, LogId::ZERO, count)));
    rig.settle();
    assert_eq!(rig.driver.replica().status().durable, id(TERM.0, count));
    rig
}

/// The snapshot is there; the next leader sends what comes behind the log's start.
fn install(rig: &mut Rig<Map>) {
    let membership = (LogId::ZERO, rig.driver.replica().membership().clone());
    // Nothing is applied before the state has been taken over.
    rig.driver.applied = base().point;
    rig.driver.replica.handle(Input::Installed { base: base(), membership });
    rig.driver.handle(from_other(append(2, base().begin_after, 1)));
}

/// What it has said to hold since.
fn held(rig: &Rig<Map>) -> Option<Index> {
    let matched = rig.sent.iter().filter_map(|message| match &message.body {
        Body::AppendReply(reply) if message.term == Term(2) => match reply.outcome {
            AppendOutcome::Matched { last } => Some(last),
            AppendOutcome::Rejected { .. } => None,
        },
        _ => None,
    });
    matched.max()
}

fn on_disk(disk: &SimDisk) -> (superblock::Group, GroupLog) {
    let files = disk.files();
    let state = superblock::inspect(&files).expect("it is intact").state;
    let identity = Identity { cluster: CLUSTER, node: OWN, incarnation: Incarnation(1) };
    let options = wal::Options {
        directory: LOG_DIRECTORY.to_owned(),
        identity,
        segment_bytes: 4 << 20,
        writes_in_flight: 1,
        quiet_ticks: 5,
        tail_cache_bytes: 0,
        seed: 9,
    };
    let (log, _) = Log::open(&files, options, state.durable_end, 0).expect("it is intact");
    (state.group(GroupId::CLUSTER), log.group(GroupId::CLUSTER).expect("it has entries").clone())
}

#[test]
fn an_installation_is_durable_in_superblock_and_log_before_it_is_told() {
    // The log ends before the snapshot's log begins, or beyond it with other entries.
    for count in [3, 12] {
        let mut rig = following(count);
        install(&mut rig);
        assert_eq!((rig.driver.replica().status().last, held(&rig)), (id(2, 8), None));
        rig.settle();
        assert_eq!((rig.driver.replica().status().durable, held(&rig)), (id(2, 8), Some(Index(8))));
        let disk = rig.disk.clone();
        drop(rig);
        disk.kill(&mut Random::seeded(1));
        let (group, log) = on_disk(&disk);
        assert_eq!((group.snapshot, group.log_start), (base().point, Index(8)));
        assert_eq!((log.before_first, log.last, log.terms), (id(2, 7), id(2, 8), vec![(Index(8), Term(2))]));
    }
}

/// The power goes at each operation of the disk. The superblock says what counts before anything of the log goes; whatever of
/// the log has gone then, none of it is taken for what follows on the snapshot; and what was told is there.
#[test]
fn a_cut_at_each_operation_of_an_installation_leaves_the_old_log_or_the_new_one() {
    for count in [3, 12] {
        let mut seen = [0; 4];
        let mut whole = following(count);
        let before = whole.disk.operations();
        install(&mut whole);
        whole.settle();
        let operations = whole.disk.operations() - before;
        for (at, order) in (0..=operations).flat_map(|at| (0..6).map(move |order| (at, order))) {
            let mut rig = following(count);
            let disk = rig.disk.clone();
            disk.crash_at(disk.operations() + at);
            install(&mut rig);
            settle_until_cut(&mut rig, &mut Random::seeded(order));
            let told = held(&rig);
            drop(rig);
            for seed in 0..8 {
                let fork = disk.fork();
                fork.crash(&mut Random::seeded(seed));
                let (group, log) = on_disk(&fork);
                let has_begun = group.snapshot == base().point;
                assert_eq!(group.log_start, if has_begun { Index(8) } else { Index(1) }, "they go together");
                let state = match (has_begun, log.before_first, log.last) {
                    (false, LogId::ZERO, last) if last == id(1, count) => 0,
                    (true, LogId::ZERO, last) if last == id(1, count) => 1,
                    // Truncated, so that it does not reach where the new one begins.
                    (true, LogId::ZERO, last) if last == id(1, 6) => 1,
                    (true, before_first, last) if before_first == last && last == base().begin_after => 2,
                    (true, before_first, last) if before_first == base().begin_after && last == id(2, 8) => 3,
                    other => panic!("{count} cut at {at}: {other:?}"),
                };
                assert!(told.is_none() || state == 3, "cut at {at}: it said {told:?}");
                seen[state] += 1;
            }
        }
        assert!(seen[0] > 0 && seen[1] > 0 && seen[3] > 0, "{seen:?}");
    }
}

/// As far as it goes: without power nothing ends. Of writes that are on their way together any may be done first.
fn settle_until_cut(rig: &mut Rig<Map>, random: &mut Random) {
    for _ in 0..100 {
        let mut effects = Vec::new();
        if rig.driver.take_effects(&mut effects).is_err() {
            return;
        }
        effects.into_iter().for_each(|effect| rig.carry_out(effect));
        while rig.disk.complete_any(random) {}
        rig.complete_writes();
    }
}
